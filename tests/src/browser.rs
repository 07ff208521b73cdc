//! A real browser: Chromium with a profile of its own, which ends with its story.

use std::{
    cell::Cell,
    fs,
    future::Future,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Condvar, Mutex, PoisonError, mpsc::Receiver},
    time::{Duration, Instant},
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use thirtyfour::{
    BrowserCapabilitiesHelper, By, CapabilitiesHelper, ChromeCapabilities, ChromiumLikeCapabilities,
    LoggingPrefsLogLevel, WebDriver, WebElement, WindowHandle, error::WebDriverResult,
};
use tokio::runtime::Runtime;

use crate::{
    binaries,
    patience::PATIENCE,
    process::{Served, end_group, end_process, lines, living_in},
};

/// Browsers at a time: each is half a dozen processes, and the other stories go on beside them.
const MOST: usize = 2;

const FLAGS: [&str; 14] = [
    "--headless",
    // All pages are ours, and a sandbox needs rights that root and containers do not have.
    "--no-sandbox",
    "--disable-breakpad",
    "--disable-crash-reporter",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    // No animation, no layout that is still on its way.
    "--force-prefers-reduced-motion",
    "--window-size=1280,900",
];

/// How the page is to look, for [`Browser::look`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Look {
    /// 1280 px wide.
    Desk,
    /// 390 px wide, and dark.
    NightPhone,
    /// 390 px wide.
    Phone,
}

/// A browser and the program that drives it.
pub struct Browser {
    /// Ends first, while its driver is still there.
    session: Session,
    driver: Child,
    /// Its last words, which nobody needs, but a closed pipe would end it.
    _said: Receiver<String>,
    /// Profile and temporary files; also the working directory, by which whatever is left is found.
    directory: TempDir,
    _turn: Turn,
}

struct Session {
    runtime: Runtime,
    driver: Option<WebDriver>,
}

impl Browser {
    /// A browser that has never been anywhere.
    ///
    /// # Panics
    /// Where there is none on this machine; says what to do.
    pub fn open() -> Browser {
        let turn = Turn::take();
        let directory = tempfile::Builder::new().prefix("holdfast-browser-").tempdir().expect("a directory");
        let (driver, said, port) = start_driver(&directory);
        // From here on a failure ends the driver.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let session = Session { runtime, driver: None };
        let mut browser = Browser { session, driver, _said: said, directory, _turn: turn };
        // The client has no provider of its own, although it only ever speaks to this machine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let capabilities = browser.capabilities().expect("capabilities are JSON");
        let begun = WebDriver::builder(format!("http://127.0.0.1:{port}"), capabilities)
            .request_timeout(2 * PATIENCE)
            .connect();
        browser.session.driver = Some(browser.session.runtime.block_on(begun).expect("chromium starts"));
        browser
    }

    fn capabilities(&self) -> WebDriverResult<ChromeCapabilities> {
        let mut wanted = ChromeCapabilities::new();
        for flag in FLAGS {
            wanted.add_arg(flag)?;
        }
        wanted.add_arg(&format!("--user-data-dir={}", self.directory.path().join("profile").display()))?;
        wanted.set_binary(program("chromium").to_str().expect("a path of this system is UTF-8"))?;
        // A dialog that nobody asked for is to stay until a story has seen it.
        wanted.set("unhandledPromptBehavior", "ignore")?;
        wanted.set_browser_log_level(LoggingPrefsLogLevel::All)?;
        wanted.set_browser_option("prefs", json!({ "credentials_enable_service": false }))?;
        Ok(wanted)
    }

    /// Goes to an address and waits until the page is there.
    #[track_caller]
    pub fn go(&self, address: &str) {
        self.run(self.driver().goto(address)).unwrap_or_else(|error| panic!("{address}: {error}"));
        // On a busy machine the driver says so a little early.
        self.wait_until("true");
    }

    /// Goes to a path of the inbox.
    #[track_caller]
    pub fn visit(&self, served: &Served, path: &str) {
        self.go(&format!("http://{}{path}", served.inbox));
    }

    /// Signs in with a token, as a person would.
    #[track_caller]
    pub fn sign_in(&self, served: &Served, token: &str) {
        self.visit(served, "/login");
        self.write("#token", token);
        self.click("form button.primary");
        self.wait_for("#places");
    }

    /// Where it is.
    pub fn address(&self) -> String {
        self.run(self.driver().current_url()).expect("there is an address").to_string()
    }

    /// Looks at the page anew.
    pub fn reload(&self) {
        self.run(self.driver().refresh()).expect("the page is loaded again");
    }

    /// What `script` returns; `arguments` are its arguments.
    ///
    /// # Panics
    /// Where it throws.
    #[track_caller]
    pub fn script(&self, script: &str, arguments: &[Value]) -> Value {
        let done = self.run(self.driver().execute(script, arguments.to_vec()));
        done.unwrap_or_else(|error| panic!("{script}: {error}")).json().clone()
    }

    /// The value of an expression.
    #[track_caller]
    pub fn value(&self, expression: &str) -> Value {
        self.script(&format!("return {expression}"), &[])
    }

    /// Waits until an expression is true of the page.
    #[track_caller]
    pub fn wait_until(&self, expression: &str) {
        let end = Instant::now() + PATIENCE;
        while self.try_value(expression) != Value::Bool(true) {
            assert!(
                Instant::now() < end,
                "waited in vain: {expression}\n{}\n{}",
                self.address(),
                self.try_value("document.body.innerText.slice(0, 3000)")
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Null while one page makes room for the next, and until that is whole: before, its scripts have not run.
    fn try_value(&self, expression: &str) -> Value {
        let whole = format!("return document.readyState === 'complete' ? {expression} : null");
        let done = self.run(self.driver().execute(whole, Vec::new()));
        done.map(|value| value.json().clone()).unwrap_or_default()
    }

    /// Waits until something is on the page.
    #[track_caller]
    pub fn wait_for(&self, selector: &str) {
        self.wait_until(&format!("document.querySelector({}) !== null", json!(selector)));
    }

    /// Waits until nothing like this is on the page.
    #[track_caller]
    pub fn wait_for_no(&self, selector: &str) {
        self.wait_until(&format!("document.querySelector({}) === null", json!(selector)));
    }

    /// Waits until the page says this, as it is read on the screen.
    #[track_caller]
    pub fn wait_for_text(&self, text: &str) {
        self.wait_until(&format!("document.body.innerText.includes({})", json!(text)));
    }

    /// How often something is on the page.
    #[track_caller]
    pub fn count(&self, selector: &str) -> u64 {
        let count = self.value(&format!("document.querySelectorAll({}).length", json!(selector)));
        count.as_u64().expect("a number")
    }

    /// What the page says, as it is read on the screen.
    #[track_caller]
    pub fn text(&self) -> String {
        self.value("document.body.innerText").as_str().expect("a page has text").to_owned()
    }

    /// Clicks on something once it is there and nothing is in its way.
    #[track_caller]
    pub fn click(&self, selector: &str) {
        self.insist(&format!("click on {selector}"), async || self.find(selector).await?.click().await);
    }

    /// Clicks twice, as fast as a hand that trembles.
    #[track_caller]
    pub fn double_click(&self, selector: &str) {
        let at_once = Some(Duration::ZERO);
        self.insist(&format!("double click on {selector}"), async || {
            self.find(selector).await?.scroll_into_view().await?;
            let button = self.find(selector).await?;
            let twice = self.driver().action_chain_with_delay(at_once, at_once).double_click_element(&button);
            // With the first click the page may already be on its way out.
            let _ = twice.perform().await;
            Ok(())
        });
    }

    /// Puts the pointer somewhere.
    #[track_caller]
    pub fn hover(&self, selector: &str) {
        self.insist(&format!("hover over {selector}"), async || {
            let there = self.find(selector).await?;
            self.driver().action_chain().move_to_element_center(&there).perform().await
        });
    }

    /// Types into a field that was empty or is to be.
    #[track_caller]
    pub fn write(&self, selector: &str, text: &str) {
        self.insist(&format!("write into {selector}"), async || {
            let field = self.find(selector).await?;
            field.clear().await?;
            field.send_keys(text).await
        });
    }

    /// Presses keys, wherever the focus is.
    #[track_caller]
    pub fn press(&self, keys: &str) {
        let pressed = self.run(self.driver().action_chain().send_keys(keys).perform());
        pressed.unwrap_or_else(|error| panic!("{keys:?}: {error}"));
    }

    /// A command of the DevTools protocol.
    #[track_caller]
    pub fn devtools(&self, method: &str, params: Value) -> Value {
        let done = self.run(self.driver().cdp().send_raw(method, params));
        done.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// No script of a page runs from here on; those of [`Browser::script`] do.
    pub fn without_scripts(&self) {
        self.devtools("Emulation.setScriptExecutionDisabled", json!({ "value": true }));
    }

    /// Another size of the screen, and another time of the day.
    pub fn look(&self, look: Look) {
        let (width, height) = if look == Look::Desk { (1280, 900) } else { (390, 844) };
        let screen =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": look != Look::Desk });
        self.devtools("Emulation.setDeviceMetricsOverride", screen);
        let scheme = if look == Look::NightPhone { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// All cookies, with their attributes.
    pub fn cookies(&self) -> Vec<Value> {
        let all = self.devtools("Network.getAllCookies", json!({}));
        all["cookies"].as_array().expect("a list").clone()
    }

    /// What the browser complained about since the last time.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.run(self.driver().browser_log()).expect("chromium keeps a log");
        log.into_iter().map(|line| format!("{} {}", line.level, line.message)).collect()
    }

    /// The text of a dialog that a page has opened.
    pub fn dialog(&self) -> Option<String> {
        self.run(self.driver().get_alert_text()).ok()
    }

    /// Opens another window and goes on in it.
    pub fn new_window(&self) -> WindowHandle {
        self.run(async {
            let window = self.driver().new_tab().await?;
            self.driver().switch_to_window(window.clone()).await?;
            WebDriverResult::Ok(window)
        })
        .expect("a window opens")
    }

    /// The window that it is in.
    pub fn window(&self) -> WindowHandle {
        self.run(self.driver().window()).expect("there is a window")
    }

    /// Goes on in another window.
    pub fn switch_to(&self, window: &WindowHandle) {
        self.run(self.driver().switch_to_window(window.clone())).expect("the window is there");
    }

    /// Into a frame of the page, by its number.
    pub fn enter_frame(&self, number: u16) {
        self.run(self.driver().enter_frame(number)).expect("the frame is there");
    }

    /// Out of all frames.
    pub fn leave_frames(&self) {
        self.run(self.driver().enter_default_frame()).expect("there is a page");
    }

    /// A picture of the whole page, where `HOLDFAST_SHOTS` is set, in `e2e/shots` of the target directory.
    pub fn shoot(&self, name: &str) {
        if std::env::var_os("HOLDFAST_SHOTS").is_none() {
            return;
        }
        let directory = binaries::target().join("e2e/shots");
        fs::create_dir_all(&directory).expect("the target directory is ours");
        let size = self.value("[innerWidth, Math.min(document.documentElement.scrollHeight, 6000)]");
        let clip = json!({ "x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1 });
        let how = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let picture = self.devtools("Page.captureScreenshot", how);
        let picture = picture["data"].as_str().expect("a picture");
        let picture = BASE64_STANDARD.decode(picture).expect("DevTools gives base64");
        fs::write(directory.join(format!("{name}.png")), picture).expect("the target directory is ours");
    }

    fn driver(&self) -> &WebDriver {
        self.session.driver.as_ref().expect("it is there from the start")
    }

    async fn find(&self, selector: &str) -> WebDriverResult<WebElement> {
        self.driver().find(By::Css(selector)).await
    }

    fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.session.runtime.block_on(work)
    }

    /// Tries until it works: pages move, and what was found may be gone again.
    #[track_caller]
    fn insist(&self, what: &str, mut work: impl AsyncFnMut() -> WebDriverResult<()>) {
        let end = Instant::now() + PATIENCE;
        while let Err(error) = self.run(work()) {
            assert!(Instant::now() < end, "{what}: {error}\n{}", self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(driver) = self.session.driver.take() {
            // Whether it ends in good order or not, it is over below.
            let _ = self.session.runtime.block_on(async {
                tokio::time::timeout(Duration::from_secs(5), driver.clone().quit()).await
            });
            let _ = driver.leak();
        }
        end_group(&mut self.driver);
        for _ in 0..200 {
            let left = living_in(self.directory.path());
            if left.is_empty() {
                return;
            }
            left.into_iter().for_each(end_process);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// One of [`MOST`]. A story that has one may open further browsers: two that wait for each other would wait for ever.
struct Turn;

thread_local! {
    /// Browsers of this story.
    static MINE: Cell<usize> = const { Cell::new(0) };
}

static OPEN: Mutex<usize> = Mutex::new(0);
static CLOSED: Condvar = Condvar::new();

impl Turn {
    fn take() -> Turn {
        let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |open: &mut usize| *open >= MOST && MINE.get() == 0;
        let mut open = CLOSED.wait_while(open, full).unwrap_or_else(PoisonError::into_inner);
        MINE.set(MINE.get() + 1);
        *open += 1;
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        MINE.set(MINE.get() - 1);
        *OPEN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        CLOSED.notify_one();
    }
}

/// `chromedriver` at a port of the kernel's choice.
fn start_driver(directory: &TempDir) -> (Child, Receiver<String>, u16) {
    // It wants the same port of IPv6 as well, which may be taken: then it ends.
    let tried = (0..10).find_map(|_| try_driver(directory));
    tried.unwrap_or_else(|| panic!("chromedriver does not start"))
}

fn try_driver(directory: &TempDir) -> Option<(Child, Receiver<String>, u16)> {
    let mut command = Command::new(program("chromedriver"));
    command.arg("--port=0").current_dir(directory.path()).process_group(0);
    command.env_clear().env("HOME", directory.path()).env("TMPDIR", directory.path());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("chromedriver starts");
    let said = lines(child.stdout.take().expect("stdout is piped"));
    while let Ok(line) = said.recv_timeout(PATIENCE) {
        if let Some((_, port)) = line.split_once("started successfully on port ") {
            let port = port.trim_end_matches('.').parse().expect("a port");
            return Some((child, said, port));
        }
    }
    end_group(&mut child);
    None
}

/// Where a program of this machine is.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|directory| directory.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is missing: run tests/setup once, then this test again"))
}
