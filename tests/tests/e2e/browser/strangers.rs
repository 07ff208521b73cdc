//! Pages of others, in the browser of somebody who is signed in.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use holdfast_tests::{Agent, Desk, eventually, payment};
use serde_json::Value;

use super::{ANA, NIGHTLY, ana, asking};

/// Another site on this machine, with one page that can be changed.
struct Site {
    port: u16,
    /// None once the story is over.
    page: Arc<Mutex<Option<String>>>,
}

impl Site {
    fn open() -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let port = listener.local_addr().expect("it listens").port();
        let page = Arc::new(Mutex::new(Some(String::new())));
        let shown = page.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                if shown.lock().expect("nobody panics with it").is_none() {
                    return;
                }
                let shown = shown.clone();
                thread::spawn(move || {
                    // A whole request fits; what is asked for does not matter. Browsers connect before they ask.
                    let _ = stream.read(&mut [0; 8_192]);
                    let Some(body) = shown.lock().expect("nobody panics with it").clone() else { return };
                    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n";
                    let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
                });
            }
        });
        Site { port, page }
    }

    fn shows(&self, page: String) {
        *self.page.lock().expect("nobody panics with it") = Some(page);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        *self.page.lock().unwrap_or_else(PoisonError::into_inner) = None;
        // It looks at the next visitor.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

#[test]
fn a_page_of_others_decides_nothing() {
    let world = asking("");
    let served = world.serve();
    let call = Agent::with_token(&served, "clerk", NIGHTLY).call("bank__transfer", payment("INV-1")).call();
    let desk = Desk::of(&served, ANA);
    let digest = desk.digest(&call);
    let browser = ana(&served);
    // The worst case: it knows all that the form has, and the cookie comes along, as ports are no other site.
    let csrf = browser.value("document.querySelector('input[name=csrf]').value");
    let csrf = csrf.as_str().expect("a token");
    let inbox = format!("http://{}", served.inbox);
    let site = Site::open();
    for host in ["127.0.0.1", "localhost"] {
        let own = format!("http://{host}:{}/", site.port);
        for (action, kind) in [
            (format!("/calls/{call}/approve"), "application/x-www-form-urlencoded"),
            (format!("/calls/{call}/approve"), "text/plain"),
            (format!("/calls/{call}/approve"), "multipart/form-data"),
            ("/batch".to_owned(), "application/x-www-form-urlencoded"),
            (format!("/api/v1/calls/{call}/approve"), "text/plain"),
        ] {
            site.shows(format!(
                "<form method=post enctype='{kind}' action='{inbox}{action}'><input name=csrf value='{csrf}'>\
                 <input name=digest value='{digest}'><input name=back value='/'><input name=do value=approve>\
                 <input name=pick value='{call}:{digest}'><button>win</button></form>"
            ));
            browser.go(&own);
            browser.click("button");
            browser.wait_until(&format!("location.href.startsWith('{inbox}')"));
            let page = browser.text();
            assert!(
                !page.contains("at most once") && !page.contains("approved"),
                "{host} {action} {kind}: {page}"
            );
        }
        site.shows(String::new());
        browser.go(&own);
        for (mode, path, kind) in [
            ("no-cors", format!("/calls/{call}/approve"), "application/x-www-form-urlencoded"),
            ("cors", format!("/calls/{call}/approve"), "application/x-www-form-urlencoded"),
            ("cors", format!("/api/v1/calls/{call}/approve"), "application/json"),
            ("no-cors", format!("/api/v1/calls/{call}/approve"), "text/plain"),
        ] {
            let read = browser.script(
                "const [url, mode, kind, csrf, digest] = arguments;
                 const body = kind.endsWith('urlencoded') ? new URLSearchParams({ csrf, digest })
                     : JSON.stringify({ digest });
                 return fetch(url, { method: 'POST', mode, credentials: 'include', body, headers: { 'Content-Type': kind } })
                     .then(response => response.status, error => 'blocked')",
                &[format!("{inbox}{path}").into(), mode.into(), kind.into(), csrf.into(), digest.clone().into()],
            );
            assert!(read == 0 || read == "blocked", "{host} {mode} {path}: {read}");
        }
        let read = browser.script(
            "return fetch(arguments[0], { credentials: 'include' }).then(response => response.text(), () => 'blocked')",
            &[format!("{inbox}/").into()],
        );
        assert_eq!(read, "blocked", "{host} reads nothing");
    }
    let records = desk.call(&call)["records"].as_array().map(Vec::len);
    assert_eq!((records, world.ledger().len()), (Some(1), 0));
}

#[test]
fn no_page_frames_the_inbox() {
    let world = asking("");
    let served = world.serve();
    let call = Agent::with_token(&served, "clerk", NIGHTLY).call("bank__transfer", payment("INV-1")).call();
    let browser = ana(&served);
    let inbox = format!("http://{}", served.inbox);
    let site = Site::open();
    let paths = ["/".to_owned(), format!("/calls/{call}"), "/calls".to_owned(), "/login".to_owned()];
    let frames: String = paths.iter().map(|path| format!("<iframe src='{inbox}{path}'></iframe>")).collect();
    site.shows(frames);
    browser.go(&format!("http://127.0.0.1:{}/", site.port));
    for number in 0..4 {
        browser.enter_frame(number);
        assert_eq!(
            browser.count("form, #main, #places, button[type=submit]"),
            0,
            "{}",
            paths[usize::from(number)]
        );
        browser.leave_frames();
    }
    let mut refused = 0;
    eventually("the browser says that it refused all four", || {
        let told = browser.complaints();
        refused += told.iter().filter(|line| line.contains("frame-ancestors 'none'")).count();
        refused >= 4
    });

    // Nor does the inbox itself, and what is opened by others is not theirs to steer.
    browser.go(&format!("http://127.0.0.1:{}/", site.port));
    let opened = browser.script(
        "const opened = window.open(arguments[0]);
         return new Promise(done => { const look = () => { if (opened.closed) done('cut off'); else setTimeout(look, 20) }; look() })",
        &[Value::from(inbox)],
    );
    assert_eq!(opened, "cut off");
}
