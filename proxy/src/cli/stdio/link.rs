//! The way to `serve`: finding it, starting it, connections to it.

use std::{
    fs::OpenOptions,
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, client::conn::http1::SendRequest, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::super::Failure;
use crate::{
    address::{self, Address},
    config::{Config, Place},
    front::BRIDGE_TOKEN,
    report::Report,
};

/// Idle connections that are kept for the next requests.
const POOL: usize = 8;
/// A start that has not led to a connection after this time may be tried again.
const START: Duration = Duration::from_secs(5);
/// After so many starts in a row that failed there is no use in another one for the same request.
const STARTS: u32 = 3;

/// The `serve` of our configuration, wherever it is and whether or not it runs.
pub(super) struct Serve {
    store: PathBuf,
    file: PathBuf,
    log: PathBuf,
    agent_token: Option<String>,
    pool: Mutex<Vec<Connection>>,
    starting: Mutex<Starting>,
}

#[derive(Debug, Default)]
struct Starting {
    child: Option<Child>,
    at: Option<Instant>,
    failed: u32,
}

/// A connection, and by which address it was made.
pub(super) struct Connection {
    /// The sending half.
    pub(super) sender: SendRequest<Full<Bytes>>,
    address: Address,
    authority: String,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoConnection {
    /// Not yet; a little later there may be one.
    Yet,
    /// `serve` was started several times and ended each time.
    CannotStart,
}

/// Whether a missing `serve` is to be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfMissing {
    /// Somebody waits for an answer.
    Start,
    /// Nobody does.
    Leave,
}

impl Serve {
    /// The `serve` of `config`.
    ///
    /// # Errors
    /// A store that no local process can share.
    pub(super) fn of(config: &Config) -> Result<Self, Failure> {
        let Place::Redb(store) = &config.store.place else {
            let report = Report::new("cannot-start", "this build keeps its journal in redb files only");
            return Err(report.hint("Use `url = \"redb:holdfast.redb\"`.").into());
        };
        let mut log = store.clone().into_os_string();
        log.push(".serve.log");
        let agent_token = if config.agents.is_empty() { None } else { std::env::var("HOLDFAST_TOKEN").ok() };
        Ok(Self {
            store: store.clone(),
            file: config.file.clone(),
            log: log.into(),
            agent_token,
            pool: Mutex::default(),
            starting: Mutex::default(),
        })
    }

    /// Where a started `serve` writes what it has to say.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// What to do where `serve` knows our bridge token and does not let us in all the same.
    pub(super) fn unauthorized(&self) -> &'static str {
        match self.agent_token {
            None => {
                "the configuration has [agents]: start `holdfast stdio` with HOLDFAST_TOKEN set to the token of one"
            }
            Some(_) => "HOLDFAST_TOKEN is not the token of any of the configured [agents]",
        }
    }

    /// An idle connection, or a new one.
    pub(super) async fn connection(&self, if_missing: IfMissing) -> Result<Connection, NoConnection> {
        while let Some(mut connection) = self.pooled() {
            if connection.sender.ready().await.is_ok() {
                return Ok(connection);
            }
        }
        match self.connect().await {
            Some(connection) => {
                let mut starting = lock(&self.starting);
                (starting.at, starting.failed) = (None, 0);
                Ok(connection)
            }
            None if if_missing == IfMissing::Start => Err(self.start()),
            None => Err(NoConnection::Yet),
        }
    }

    /// Keeps a connection whose last response was read to its end.
    pub(super) fn keep(&self, connection: Connection) {
        let mut pool = lock(&self.pool);
        if !connection.sender.is_closed() && pool.len() < POOL {
            pool.push(connection);
        }
    }

    /// Whether the address file still says what `connection` was made by.
    pub(super) fn is_current(&self, connection: &Connection) -> bool {
        address::read(&self.store)
            .is_some_and(|address| address.bridge_token == connection.address.bridge_token)
    }

    fn pooled(&self) -> Option<Connection> {
        lock(&self.pool).pop()
    }

    async fn connect(&self) -> Option<Connection> {
        let address = address::read(&self.store)?;
        let authority = address.mcp.strip_prefix("http://")?.split('/').next()?.to_owned();
        let stream = TcpStream::connect(&authority).await.ok()?;
        stream.set_nodelay(true).ok();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        // The task ends with its connection; what went wrong is seen by whoever waits for the response.
        tokio::spawn(connection);
        Some(Connection { sender, address, authority })
    }

    /// Starts `serve`, unless that is under way, here or elsewhere.
    fn start(&self) -> NoConnection {
        let mut starting = lock(&self.starting);
        if let Some(child) = &mut starting.child {
            match child.try_wait() {
                Ok(None) => {}
                ended => {
                    starting.child = None;
                    starting.at = None;
                    // Whoever was killed may start well the next time; whoever gave up by itself has a reason, unless
                    // another bridge's `serve` was quicker with the lock.
                    let gave_up = !matches!(ended, Ok(Some(status)) if status.code().is_none());
                    if gave_up && !address::is_claimed(&self.store) {
                        starting.failed += 1;
                    }
                }
            }
        }
        if address::is_claimed(&self.store) || starting.at.is_some_and(|at| at.elapsed() < START) {
            return NoConnection::Yet;
        }
        if starting.failed >= STARTS {
            // The next request gets one more try.
            starting.failed = STARTS - 1;
            return NoConnection::CannotStart;
        }
        starting.at = Some(Instant::now());
        match self.spawn() {
            Ok(child) => starting.child = Some(child),
            Err(_) => starting.failed += 1,
        }
        NoConnection::Yet
    }

    fn spawn(&self) -> std::io::Result<Child> {
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.log)?;
        Command::new(std::env::current_exe()?)
            .arg("serve")
            .arg("--config")
            .arg(&self.file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A group of its own: what interrupts the agent's terminal is not meant for it.
            .process_group(0)
            .spawn()
    }
}

impl Connection {
    /// The request with everything that shows who we are.
    pub(super) fn request(&self, serve: &Serve, method: hyper::Method, body: Bytes) -> Request<Full<Bytes>> {
        let builder = Request::builder()
            .method(method)
            .uri("/mcp")
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, text/event-stream")
            .header(BRIDGE_TOKEN, &self.address.bridge_token);
        let builder = match &serve.agent_token {
            Some(token) => builder.header(header::AUTHORIZATION, format!("Bearer {}", token.trim())),
            None => builder,
        };
        builder.body(Full::new(body)).expect("tokens and authorities are header values")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
