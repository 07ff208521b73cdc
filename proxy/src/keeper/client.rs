//! `serve`'s side: finds the keeper or starts it, has servers started by it, and hears how they end.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{
    net::UnixStream,
    sync::{oneshot, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Place,
    group::{GRACE, Group},
    house::House,
    parcel::{About, Ask, Ends, Inbox, Logged, Recipe, Said, VERSION, send},
    sent::Sent,
};

/// How long a keeper may take to say anything. One that is ending its servers says nothing until it is done.
const PATIENCE: Duration = Duration::from_secs(15);

/// The way to the keeper.
pub(crate) struct Keeper {
    /// None: servers are kept by this process, and end with it.
    place: Option<Place>,
    life: tokio::sync::Mutex<Option<Arc<Life>>>,
    sent: Arc<Sent>,
}

/// A server that outlived an earlier `serve`, and the ends of its pipes.
pub(crate) struct Kept {
    pub(crate) about: About,
    pub(crate) ends: Ends,
    pub(crate) hold: Hold,
}

/// A connection to a keeper.
struct Life {
    stream: Arc<UnixStream>,
    /// Messages are sent whole.
    writing: tokio::sync::Mutex<()>,
    table: Mutex<Table>,
    tags: AtomicU64,
    over: CancellationToken,
}

#[derive(Default)]
struct Table {
    starting: HashMap<u64, oneshot::Sender<Result<Started, String>>>,
    taking: HashMap<u64, oneshot::Sender<Option<Ends>>>,
    states: HashMap<u64, watch::Sender<State>>,
    closed: bool,
}

struct Started {
    number: u64,
    pid: i32,
    ends: Ends,
    state: watch::Receiver<State>,
}

/// How a server is, as the keeper says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Lives,
    Exited(String),
    Gone(Option<String>),
    /// The keeper itself is gone.
    Unkept,
}

impl Keeper {
    /// A keeper within this process: servers end with it.
    pub(crate) fn within() -> Arc<Self> {
        Arc::new(Self { place: None, life: tokio::sync::Mutex::default(), sent: new_log() })
    }

    /// Finds the keeper that an earlier life left, and what it kept. Where there is none, one is started when the first
    /// server is.
    pub(crate) async fn find(place: Place) -> (Arc<Self>, Vec<Kept>) {
        let found = match place.connect() {
            Ok(Some(stream)) => greet(stream).await,
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        let fresh = |place| Self { place, life: tokio::sync::Mutex::default(), sent: new_log() };
        match found {
            Ok(Some((life, sent, kept))) => {
                let life_again = tokio::sync::Mutex::new(Some(life));
                (Arc::new(Self { place: Some(place), life: life_again, sent }), kept)
            }
            Ok(None) => (Arc::new(fresh(Some(place))), Vec::new()),
            Err(error) => {
                tracing::warn!(%error, "the keeper of the servers cannot be used: they will end with this process");
                (Arc::new(fresh(None)), Vec::new())
            }
        }
    }

    /// What was sent, in this life and in earlier ones.
    pub(crate) fn sent(&self) -> &Arc<Sent> {
        &self.sent
    }

    /// Has a server started.
    ///
    /// # Errors
    /// Why it could not be, in words.
    pub(crate) async fn start(&self, recipe: Recipe) -> Result<(Hold, Ends), String> {
        let gone = || "its keeper has ended".to_owned();
        let life = self.life().await?;
        let tag = life.tags.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        life.table().starting.insert(tag, tell);
        life.ask(&Ask::Start { tag, recipe }).await;
        let started = tokio::select! {
            started = told => started.map_err(|_| gone())??,
            () = life.over.cancelled() => return Err(gone()),
        };
        let Started { number, pid, ends, state } = started;
        Ok((Hold { life, number, pid, state }, ends))
    }

    /// Ends the keeper, and the servers that it still has.
    pub(crate) async fn stop(&self) {
        if let Some(life) = self.life.lock().await.take() {
            life.ask(&Ask::Stop).await;
            let _ = timeout(PATIENCE, life.over.cancelled()).await;
        }
    }

    async fn life(&self) -> Result<Arc<Life>, String> {
        let mut current = self.life.lock().await;
        if let Some(life) = current.as_ref().filter(|life| !life.over.is_cancelled()) {
            return Ok(life.clone());
        }
        let begun = self.place.as_ref().and_then(|place| match begin(place) {
            Ok(stream) => Some(stream),
            Err(error) => {
                tracing::warn!(%error, "the keeper of the servers cannot be started: they will end with this process");
                None
            }
        });
        let stream = match begun {
            Some(stream) => stream,
            None => {
                let words = |error: io::Error| format!("its keeper could not be started: {error}");
                let (ours, theirs) = UnixStream::pair().map_err(words)?;
                tokio::spawn(House::new().serve_one(theirs));
                ours
            }
        };
        let life = Life::of(stream);
        life.ask_with(&Ask::Log, Some(&self.sent)).await;
        *current = Some(life.clone());
        Ok(life)
    }
}

fn new_log() -> Arc<Sent> {
    Arc::new(Sent::new().expect("there is memory at the start"))
}

fn begin(place: &Place) -> io::Result<UnixStream> {
    let (mut child, stream) = place.start()?;
    // Reaped where it ends before us.
    tokio::spawn(async move { child.wait().await.ok() });
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Takes over from an earlier life; none where there is nothing to be had.
async fn greet(
    stream: std::os::unix::net::UnixStream,
) -> io::Result<Option<(Arc<Life>, Arc<Sent>, Vec<Kept>)>> {
    stream.set_nonblocking(true)?;
    let stream = Arc::new(UnixStream::from_std(stream)?);
    if stream.peer_cred()?.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::other("it is another user's"));
    }
    let mut inbox = Inbox::of(stream.clone());
    // One that ends in this moment takes its servers with it.
    if send(&stream, &Ask::Hello { version: VERSION }, &[]).await.is_err() {
        return Ok(None);
    }
    let said = timeout(PATIENCE, inbox.next::<Said>()).await;
    let Ok(Ok(Some(Said::Hello { version, logged, kept }))) = said else { return Ok(None) };
    let log = inbox.fds(usize::from(logged == Logged::Yes)).pop();
    if version != VERSION {
        tracing::warn!(version, "the keeper is of another version; its servers end");
        let _ = send(&stream, &Ask::Stop, &[]).await;
        while let Ok(Ok(Some(_))) = timeout(PATIENCE, inbox.next::<Value>()).await {}
        return Ok(None);
    }
    let life = Life::on(stream, inbox);
    let sent = match log.map(Sent::find) {
        Some(Ok(sent)) => Arc::new(sent),
        Some(Err(_)) | None => {
            let sent = new_log();
            life.ask_with(&Ask::Log, Some(&sent)).await;
            sent
        }
    };
    let mut taken = Vec::new();
    for about in kept {
        taken.extend(life.take(about).await);
    }
    Ok(Some((life, sent, taken)))
}

impl Life {
    fn of(stream: UnixStream) -> Arc<Self> {
        let stream = Arc::new(stream);
        Self::on(stream.clone(), Inbox::of(stream))
    }

    fn on(stream: Arc<UnixStream>, inbox: Inbox) -> Arc<Self> {
        let life = Arc::new(Self {
            stream,
            writing: tokio::sync::Mutex::default(),
            table: Mutex::default(),
            tags: AtomicU64::new(0),
            over: CancellationToken::new(),
        });
        tokio::spawn(life.clone().listen(inbox));
        life
    }

    async fn listen(self: Arc<Self>, mut inbox: Inbox) {
        while let Ok(Some(said)) = inbox.next::<Said>().await {
            let fds = match &said {
                Said::Taken { .. } | Said::Started { .. } => inbox.fds(Ends::COUNT),
                _ => Vec::new(),
            };
            self.hear(said, Ends::of(fds));
        }
        let mut table = self.table();
        table.closed = true;
        let left = std::mem::take(&mut *table);
        table.closed = true;
        drop(table);
        for state in left.states.into_values() {
            state.send_if_modified(|state| {
                let unkept = !matches!(state, State::Gone(_));
                if unkept {
                    *state = State::Unkept;
                }
                unkept
            });
        }
        self.over.cancel();
    }

    fn hear(&self, said: Said, ends: Option<Ends>) {
        let mut table = self.table();
        match said {
            Said::Hello { .. } => {}
            Said::Taken { number } => drop(table.taking.remove(&number).map(|tell| tell.send(ends))),
            Said::Started { tag, number, pid } => {
                let Some(ends) = ends else { return };
                let state = table.watch(number, State::Lives);
                let started = Started { number, pid, ends, state };
                table.starting.remove(&tag).map(|tell| tell.send(Ok(started)).ok());
            }
            Said::NotStarted { tag, why } => {
                table.starting.remove(&tag).map(|tell| tell.send(Err(why)).ok());
            }
            Said::Exited { number, status } => table.tell(number, State::Exited(status)),
            Said::Gone { number, status } => {
                table.taking.remove(&number).map(|tell| tell.send(None).ok());
                table.tell(number, State::Gone(status));
                table.states.remove(&number);
            }
        }
    }

    async fn take(self: &Arc<Self>, about: About) -> Option<Kept> {
        let number = about.number;
        let first = about.status.clone().map_or(State::Lives, State::Exited);
        let (tell, told) = oneshot::channel();
        let state = {
            let mut table = self.table();
            table.taking.insert(number, tell);
            table.watch(number, first)
        };
        self.ask(&Ask::Take { number }).await;
        let ends = timeout(PATIENCE, told).await.ok()?.ok()??;
        let hold = Hold { life: self.clone(), number, pid: about.pid, state };
        Some(Kept { about, ends, hold })
    }

    async fn ask(&self, ask: &Ask) {
        self.ask_with(ask, None).await;
    }

    async fn ask_with(&self, ask: &Ask, log: Option<&Sent>) {
        let _whole = self.writing.lock().await;
        let fds: Vec<_> = log.into_iter().map(Sent::file).collect();
        // Where it is gone, its end says so.
        let _ = send(&self.stream, ask, &fds).await;
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn watch(&mut self, number: u64, first: State) -> watch::Receiver<State> {
        let first = if self.closed { State::Unkept } else { first };
        let (tell, state) = watch::channel(first);
        if !self.closed {
            self.states.insert(number, tell);
        }
        state
    }

    fn tell(&self, number: u64, state: State) {
        if let Some(watched) = self.states.get(&number) {
            watched.send_replace(state);
        }
    }
}

/// A server in the keeper's care. Dropping it changes nothing.
pub(crate) struct Hold {
    life: Arc<Life>,
    number: u64,
    pid: i32,
    state: watch::Receiver<State>,
}

/// How a server that is not to be ended by us has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Its own process has, like this if that is known.
    Exited(Option<String>),
    /// Its keeper has, so that nobody can say.
    Unkept,
}

impl Hold {
    /// Its number, by which the log of what was sent knows it.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Resolves when the server's own process has ended, or its keeper has.
    pub(crate) async fn ended(&self) -> Ended {
        let mut state = self.state.clone();
        let ended = state.wait_for(|state| *state != State::Lives).await;
        match ended.as_deref() {
            Ok(State::Exited(status)) => Ended::Exited(Some(status.clone())),
            Ok(State::Gone(status)) => Ended::Exited(status.clone()),
            Ok(State::Unkept | State::Lives) | Err(_) => Ended::Unkept,
        }
    }

    /// Lets the keeper keep this, for the next life.
    pub(crate) async fn note(&self, note: Value) {
        self.life.ask(&Ask::Note { number: self.number, note }).await;
    }

    /// Lets go of the server's stdin, which we have let go of.
    pub(crate) async fn close_input(&self) {
        self.life.ask(&Ask::CloseInput { number: self.number }).await;
    }

    /// Ends every process of the server, if SIGTERM does not, and waits for that.
    pub(crate) async fn end(&self) {
        self.life.ask(&Ask::End { number: self.number }).await;
        if !self.gone().await {
            // Nobody else is left to do it. They are not our children, but their group is still theirs while one lives.
            Group::of(self.pid).end(None).await;
        }
    }

    /// Whether every process of it was seen to end, by a keeper that lived to see it.
    async fn gone(&self) -> bool {
        let mut state = self.state.clone();
        let gone = state.wait_for(|state| matches!(state, State::Gone(_) | State::Unkept)).await;
        matches!(gone.as_deref(), Ok(State::Gone(_)))
    }

    /// Ends a server that we have no use for as one ends any: stdin is closed, and after the grace SIGTERM follows.
    pub(crate) async fn dismiss(self, ends: Ends) {
        drop(ends.stdin);
        self.close_input().await;
        let _ = timeout(GRACE, self.ended()).await;
        self.end().await;
    }
}
