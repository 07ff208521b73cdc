//! `holdfast serve`: proxy and inbox in the foreground, from configuration to an orderly end.

mod running;

use std::{
    fs::File,
    net::SocketAddr,
    os::fd::AsFd,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast_store::{Journal, JournalError, Millis, Options, Redb};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use self::running::{Notifying, Office, Running};
use super::{Done, Failure, Global, out};
use crate::{
    address::{self, Address, Claim, Origin},
    config::{Config, Current, Listen, Place},
    driver::{Driver, now, read},
    front::{self, Front, Surroundings},
    inbox::{self, Page, Readiness},
    keeper::{self, Keeper},
    notify::Notifier,
    reload::{self, Files, Reloads},
    report::Report,
    upstream::{Threads, Upstreams},
};

/// How long calls in flight may take to end after a signal to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// How long requests of operators may take to end, once agents are no longer served.
const LEAVE: Duration = Duration::from_secs(5);
/// How long commands that read the journal may be in the way of a start.
const READERS: Duration = Duration::from_secs(10);
/// How often old answers are looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(600);
/// Calls that one pruning transaction touches at most, so that it holds up nobody for long.
const PRUNE_AT_ONCE: usize = 500;

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
/// What keeps it from starting, with the way out.
pub(super) fn run(global: &Global) -> Done {
    let (config, warnings) = Config::load(global.config.as_deref())?;
    let files = Files::of(&config);
    out::problems(&warnings);
    let runtime = tokio::runtime::Runtime::new().map_err(|error| {
        cannot_start(format!("no threads can be started: {error}"), "Raise the process limits.")
    })?;
    runtime.block_on(serve(config, files))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: Config, files: Files) -> Result<(), Failure> {
    // From here on: by itself it would end the process.
    let hangups = signal(SignalKind::hangup()).expect("signal handlers can be installed at start");
    let current = Current::new(config);
    let config = current.get();
    let Place::Redb(store) = config.store.place.clone() else {
        return Err(cannot_start(
            "this build keeps its journal in redb files only",
            "Use `url = \"redb:holdfast.redb\"`.",
        ));
    };
    let claim = claim(&store)?;
    let journal = open(&store, &config).await?;
    let [mcp, inbox] = bind(&config.listen).await?;
    let addresses = [local_addr(&mcp)?, local_addr(&inbox)?];

    let state_key = state_key(&store)?;
    let made = if config.operators.is_empty() { Some(operator_token(&store)?) } else { None };
    let inbox_base = config.listen.inbox_base(addresses[1]);
    // Before recovery, whose findings are news.
    let notifier =
        Notifier::open(&journal, &config.notify, &inbox_base).await.map_err(|error| unusable(&error))?;
    let upstreams = upstreams(&store, &config).await;
    let driver = Driver::new(current.clone(), journal.clone(), upstreams.clone());
    tidy(&driver).await?;
    driver.recover().await.map_err(|error| unusable(&error))?;

    let stop = CancellationToken::new();
    let bridge_token = address::random_token();
    let surroundings =
        Surroundings { bridge_token: &bridge_token, state_key: &state_key, inbox: &inbox_base };
    let front = Front::new(&config, driver.clone(), upstreams.clone(), &surroundings, stop.clone())
        .map_err(|error| unusable(&error))?;
    let agents = tokio::spawn(agents(front.clone(), mcp, stop.clone()));
    let readiness = Arc::new(Readiness::default());
    let page = Arc::new(Page::new(stop.clone()));
    let (reloads, asked) = Reloads::new();
    let pruning = tokio::spawn(prune(current, driver.clone(), stop.clone()));
    let office = Office {
        driver,
        journal: journal.clone(),
        readiness,
        page,
        reloads: reloads.clone(),
        base: inbox_base.clone(),
    };
    let over = stop.child_token();
    let made_token = made.as_ref().map(|made| &*made.text);
    let door = Arc::new(inbox::door(office.inbox(&config, made_token, notifier.board(), over.clone())));
    let operators = tokio::spawn(front::serve(door.clone(), inbox, stop.clone(), LEAVE));
    let notifying = Notifying::start(notifier, &stop);

    let [mcp, inbox] = addresses;
    let address = listening(addresses, bridge_token, made_token);
    claim.publish(&address).map_err(|error| unwritable(&store, &error))?;
    let (driver, readiness, page) = (office.driver.clone(), office.readiness.clone(), office.page.clone());
    let running = Running { office, front, door, over, notifying, claim, address, store, stop };
    let stop = running.stop.clone();
    let reloading = tokio::spawn(reload::run(running, reloads, asked, hangups, files, stop.clone()));
    let asked_to_stop = asked_to_stop();
    announce(mcp, inbox);
    match &made {
        Some(made) => invite(inbox, &page, made),
        None => out::talk(&format!("Your inbox:               {inbox_base}/")),
    }

    asked_to_stop.await;
    readiness.missing("serve", "it is stopping");
    wind_up(&driver, &stop, [agents, operators, pruning]).await;
    // The claim on the journal is in it, and outlives everything else.
    let mut running = reloading.await.map_err(|error| cannot_start(error.to_string(), "Report this."))?;
    running.notifying.end().await;
    upstreams.stop().await;
    drop(running);
    Ok(())
}

fn listening([mcp, inbox]: [SocketAddr; 2], bridge_token: String, made: Option<&str>) -> Address {
    Address {
        pid: std::process::id(),
        mcp: format!("http://{mcp}/mcp"),
        inbox: format!("http://{inbox}/"),
        bridge_token,
        operator_token: made.map(str::to_owned),
    }
}

/// Takes no more calls, lets those in flight end, and then those who listen.
async fn wind_up(driver: &Driver, stop: &CancellationToken, listeners: [tokio::task::JoinHandle<()>; 3]) {
    tracing::info!("stopping: calls in flight may end, new ones are refused");
    let left = driver.stop(DRAIN).await;
    if left > 0 {
        tracing::warn!(
            calls = left,
            "still in flight; the journal keeps them, and the next start goes on with them"
        );
    }
    stop.cancel();
    for listener in listeners {
        listener.await.ok();
    }
}

/// Serves agents to the end.
async fn agents(front: Arc<Front>, listener: TcpListener, stop: CancellationToken) {
    front::serve(front.clone(), listener, stop, DRAIN + Duration::from_secs(5)).await;
    front.close().await;
}

/// The servers, with those that were kept since an earlier life.
async fn upstreams(store: &Path, config: &Config) -> Arc<Upstreams> {
    let kept = match config.store.keep_servers_ms.map(Duration::from_millis) {
        Some(unclaimed) => Keeper::find(keeper::Place::beside(store, unclaimed)).await,
        None => (Keeper::within(), Vec::new()),
    };
    Upstreams::start_kept(&config.servers, kept, Threads::beside(store))
}

fn cannot_start(what: impl Into<String>, way_out: impl Into<String>) -> Failure {
    Report::new("cannot-start", what).hint(way_out).into()
}

fn claim(store: &Path) -> Result<Claim, Failure> {
    let place = store.display();
    match Claim::take(store) {
        Ok(Some(claim)) => Ok(claim),
        Ok(None) => Err(cannot_start(
            format!("another `holdfast serve` has the journal {place} open"),
            "Use that one (`holdfast stdio` and the other commands find it), stop it, or give this one another `store.url`.",
        )),
        Err(error) => Err(cannot_start(
            format!("the journal {place} cannot be claimed: {error}"),
            "The directory of `store.url` must exist and be writable.",
        )),
    }
}

/// Opens the journal. Whoever has it open although the claim on it is ours only reads it and is done in a moment.
async fn open(store: &Path, config: &Config) -> Result<Arc<dyn Journal>, Failure> {
    let begun = Instant::now();
    loop {
        let (path, options) = (
            store.to_owned(),
            Options { durability: config.store.durability, on_repair: tell_repair, ..Options::default() },
        );
        let opened = tokio::task::spawn_blocking(move || Redb::open(&path, options)).await;
        match opened.expect("opening a journal does not panic") {
            Ok(journal) => return Ok(Arc::new(journal)),
            Err(JournalError::Locked { .. }) if begun.elapsed() < READERS => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(unusable(&error)),
        }
    }
}

fn tell_repair(done: f64) {
    out::talk(&format!(
        "The journal was not closed in an orderly way and is being checked: {:.0} %",
        done * 100.0
    ));
}

fn unwritable(store: &Path, error: &std::io::Error) -> Failure {
    cannot_start(
        format!("the address file beside {} cannot be written: {error}", store.display()),
        "Make the directory writable.",
    )
}

fn unusable(error: &JournalError) -> Failure {
    cannot_start(
        error.to_string(),
        match error {
            JournalError::Locked { .. } => {
                "Stop the process that has it open, or give this one another `store.url`."
            }
            JournalError::Io(_) => {
                "Check that the directory exists, is writable and has room; then start again."
            }
            JournalError::Unreadable(_) => {
                "Put a backup in its place, or start with another `store.url`; keep the file for inspection."
            }
        },
    )
}

async fn bind(listen: &Listen) -> Result<[TcpListener; 2], Failure> {
    let bind = async |key: &str, address: SocketAddr| {
        TcpListener::bind(address).await.map_err(|error| {
            let why = if error.kind() == std::io::ErrorKind::AddrInUse {
                "another program listens there already".to_owned()
            } else {
                error.to_string()
            };
            let hint = format!(
                "Stop that program, or set `listen.{key}` to another address (port 0: any free one)."
            );
            cannot_start(format!("cannot listen on {address} (`listen.{key}`): {why}"), hint)
        })
    };
    Ok([bind("mcp", listen.mcp).await?, bind("inbox", listen.inbox).await?])
}

fn local_addr(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener
        .local_addr()
        .map_err(|error| cannot_start(format!("a listener has no address: {error}"), "Start again."))
}

fn operator_token(store: &Path) -> Result<address::OperatorToken, Failure> {
    address::operator_token(store).map_err(|error| {
        cannot_start(
            format!("the operator token beside {} cannot be used: {error}", store.display()),
            "It must be readable by you alone (mode 0600); delete it to have a new one made.",
        )
    })
}

fn state_key(store: &Path) -> Result<String, Failure> {
    address::state_key(store).map_err(|error| {
        cannot_start(
            format!("the key of request states beside {} cannot be used: {error}", store.display()),
            "It must be readable by you alone (mode 0600); delete it to have a new one made.",
        )
    })
}

/// Removes what a killed process has left of large answers.
async fn tidy(driver: &Driver) -> Result<(), Failure> {
    match driver.answers().sweep().await {
        Ok(0) => {}
        Ok(files) => tracing::info!(files, "answers that nothing refers to were removed"),
        Err(error) => return Err(unusable(&error)),
    }
    Ok(())
}

/// Forgets answers and tombstones whose time is over.
async fn prune(current: Arc<Current>, driver: Arc<Driver>, stop: CancellationToken) {
    let journal = driver.journal();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PRUNE_EVERY) => {}
        }
        let (config, mut pruned) = (current.get(), false);
        let before = |keep_ms: u64| Millis(now().0.saturating_sub(keep_ms));
        let answers = before(config.store.keep_answers_ms);
        let tombstones = before(config.store.keep_tombstones_ms);
        loop {
            match read(journal, move |journal| journal.prune(answers, tombstones, PRUNE_AT_ONCE)).await {
                Ok(0) => break,
                Ok(calls) => {
                    tracing::debug!(calls, "pruned");
                    pruned = true;
                }
                Err(error) => {
                    tracing::error!(%error, "pruning failed");
                    break;
                }
            }
            if stop.is_cancelled() {
                return;
            }
        }
        if pruned && let Err(error) = driver.answers().sweep().await {
            tracing::error!(%error, "removing answers that nothing refers to failed");
        }
    }
}

/// Resolves when somebody asks for the end. From the call on, not from the first poll: whoever has read where we listen
/// may ask at once.
fn asked_to_stop() -> impl Future<Output = ()> {
    let mut term = signal(SignalKind::terminate()).expect("signal handlers can be installed at start");
    let mut interrupt = signal(SignalKind::interrupt()).expect("signal handlers can be installed at start");
    async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// Two lines of data on stdout; everything for people on stderr.
fn announce(mcp: SocketAddr, inbox: SocketAddr) {
    out::data(&format!("mcp http://{mcp}/mcp\ninbox http://{inbox}/"));
    let url = format!("http://{mcp}/mcp");
    out::talk(&format!(
        "
Holdfast is ready. Connect your agent:
  Claude Code     claude mcp add --transport http holdfast {url}
  Codex           codex mcp add holdfast --url {url}
  Gemini CLI      gemini mcp add --transport http holdfast {url}
  Cursor          {{\"mcpServers\":{{\"holdfast\":{{\"url\":\"{url}\"}}}}}}
  VS Code         {{\"servers\":{{\"holdfast\":{{\"type\":\"http\",\"url\":\"{url}\"}}}}}}
  Claude Desktop  {{\"mcpServers\":{{\"holdfast\":{{\"command\":\"holdfast\",\"args\":[\"stdio\"]}}}}}}
Calls that wait for you:  holdfast pending
What happened:            holdfast calls"
    ));
}

/// How the operator of this account gets in. What is written to a file stays there, so it gets no link that signs in:
/// the log of a `serve` that a bridge started, above all.
fn invite(inbox: SocketAddr, page: &Page, token: &address::OperatorToken) {
    if stderr_is_a_file() {
        out::talk(&format!("Your inbox:               http://{inbox}/"));
    } else {
        let link = page.login_link();
        out::talk(&format!(
            "Your inbox:               http://{inbox}/{link}\n                          \
             (signs you in once, within the hour)"
        ));
    }
    if token.origin == Origin::Made {
        out::talk(&format!(
            "No operators are configured, so a token was made for this account (kept beside the journal, mode 0600).
The holdfast commands find it by themselves; for the JSON API: Authorization: Bearer {}",
            token.text
        ));
    }
}

fn stderr_is_a_file() -> bool {
    let handle = std::io::stderr().as_fd().try_clone_to_owned();
    handle.and_then(|handle| File::from(handle).metadata()).is_ok_and(|about| about.is_file())
}
