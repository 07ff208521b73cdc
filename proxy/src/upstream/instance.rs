//! One process or session of a server, kept alive: opened when wanted, reopened with growing pauses, ended when idle.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Arc, Mutex, OnceLock, RwLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use holdfast_store::Millis;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Audiences, Authorizer, Client, Health, HealthState, Judge, Origin, Sharer, Speaks, Unsent,
    catalog::Catalog,
    client,
    era::Opening,
    health::{self, Pulse},
    kept::{self, Estate},
    link::{Link, NotOpen, Offer},
    peer::Peer,
    pipe::Pipe,
    process::{Command, LastWords, Process},
    web::{Address, Web},
};
use crate::{
    config::{Http, ServerConfig, Transport},
    keeper::{Keeper, Recipe},
};

/// How long a server may take from its start to its list of tools.
pub(super) const START_LIMIT: Duration = Duration::from_secs(10);
/// The same for one that may have to be fetched first.
const FETCH_LIMIT: Duration = Duration::from_secs(180);
/// How long anybody waits for a server that could not be opened when it was tried last.
const KNOWN_LIMIT: Duration = Duration::from_secs(1);
/// A connection that lived this long, or brought an answer, is no sign of a server that cannot live.
const HEALTHY: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest pause while a call waits for it.
const LONGEST_WANTED_PAUSE: Duration = Duration::from_secs(1);

/// What all instances of a server share.
pub(super) struct Shared {
    /// Replaced where settings change that need no other connection.
    config: RwLock<Arc<ServerConfig>>,
    pub(super) name: Arc<str>,
    /// Command line or URL.
    pub(super) identity: Arc<str>,
    pub(super) catalog: RwLock<Option<Arc<Catalog>>>,
    pub(super) health: Mutex<Health>,
    /// Counts changes of any server's list.
    pub(super) changed: watch::Sender<u64>,
    /// How the server was last begun with successfully, for agents of each era.
    openings: Mutex<Openings>,
    address: OnceLock<Result<Arc<Address>, String>>,
    judge: Judge,
    audiences: Audiences,
    /// Of the latest processes, the newest last.
    words: Mutex<VecDeque<Arc<LastWords>>>,
    pub(super) keeper: Arc<Keeper>,
    pub(super) estate: Estate,
}

#[derive(Clone, Copy)]
struct Openings {
    legacy: Opening,
    modern: Opening,
}

impl Shared {
    pub(super) fn new(
        config: ServerConfig,
        changed: watch::Sender<u64>,
        judge: Judge,
        audiences: Audiences,
        keeper: Arc<Keeper>,
    ) -> Self {
        let health = Health { state: HealthState::Idle, since: now(), last_error: None, restarts: 0 };
        Self {
            name: config.name.as_str().into(),
            identity: config.identity().into(),
            config: RwLock::new(Arc::new(config)),
            catalog: RwLock::new(None),
            health: Mutex::new(health),
            changed,
            openings: Mutex::new(Openings { legacy: Opening::Initialize, modern: Opening::Discover }),
            address: OnceLock::new(),
            judge,
            audiences,
            words: Mutex::default(),
            keeper,
            estate: Estate::default(),
        }
    }

    /// What the server wrote to stderr last, the newest line last.
    pub(super) fn last_words(&self) -> Vec<String> {
        let words = self.words.lock().expect("nothing panics while it holds the words");
        let mut lines: Vec<String> = words.iter().flat_map(|words| words.lines()).collect();
        lines.drain(..lines.len().saturating_sub(LastWords::LINES));
        lines
    }

    fn address(&self, url: &str, headers: &[(String, String)], http: &Http) -> Result<Arc<Address>, String> {
        let address = self.address.get_or_init(|| {
            let address = Address::new(self.name.clone(), url, headers)?.signing_in(&http.oauth);
            Ok(Arc::new(if http.old { address.in_the_old_way() } else { address }))
        });
        address.clone()
    }

    /// Who signs in to the server; none where nobody can.
    pub(super) fn authorizer(&self) -> Option<Arc<Authorizer>> {
        let config = self.config();
        let Transport::Http { url, headers } = &config.transport else { return None };
        self.address(url, headers, &config.http).ok()?.authorizer()
    }

    fn hears(&self, process: &Arc<LastWords>) {
        let mut words = self.words.lock().expect("nothing panics while it holds the words");
        // The one before may have said why there is another one now.
        while words.len() > 1 {
            words.pop_front();
        }
        words.push_back(process.clone());
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.config.read().expect("nothing panics while it holds the configuration").clone()
    }

    /// Begins with the list that `earlier` had last.
    pub(super) fn inherit(&self, earlier: &Self) {
        *self.catalog.write().expect("nothing panics while it holds the catalog") = earlier.catalog();
    }

    /// Takes settings that need no other connection.
    pub(super) fn configure(&self, config: ServerConfig) {
        *self.config.write().expect("nothing panics while it holds the configuration") = Arc::new(config);
    }

    /// Whether anything may be sent to this tool as it is defined at the other end of `link`.
    pub(super) fn trusts(&self, link: &Link, tool: &str) -> bool {
        let judge = self.judge.get().and_then(Weak::upgrade);
        let defined = judge.zip(link.definition(tool));
        defined.is_none_or(|(judge, hash)| judge.trusts(&self.name, tool, &hash))
    }

    pub(super) fn catalog(&self) -> Option<Arc<Catalog>> {
        self.catalog.read().expect("nothing panics while it holds the catalog").clone()
    }

    /// Takes a new list; the last good one stays where there is none. What a server lists in its other era it lists for
    /// the dispatches of that era alone.
    pub(super) fn listed(&self, link: &Link, catalog: Catalog) {
        let catalog = Arc::new(catalog);
        link.lists(catalog.clone());
        let main = self.best_for(Speaks::Legacy) == link.speaks();
        if !main && self.catalog().is_some() {
            return;
        }
        let mut current = self.catalog.write().expect("nothing panics while it holds the catalog");
        let same = current.as_ref().is_some_and(|current| current.same_as(&catalog));
        if !same {
            tracing::info!(target: "upstream", server = &*self.name, tools = catalog.tools.len(), "tools listed");
            *current = Some(catalog);
            drop(current);
            self.changed.send_modify(|changes| *changes += 1);
        }
    }

    fn opening(&self, speaks: Speaks) -> Opening {
        let openings = *self.openings.lock().expect("nothing panics while it holds the openings");
        match speaks {
            Speaks::Legacy => openings.legacy,
            Speaks::Modern => openings.modern,
        }
    }

    fn remember(&self, speaks: Speaks, opening: Opening) {
        let mut openings = self.openings.lock().expect("nothing panics while it holds the openings");
        match speaks {
            Speaks::Legacy => openings.legacy = opening,
            Speaks::Modern => openings.modern = opening,
        }
    }

    /// The era in which an agent of this era is best served: its own, unless the server is known not to speak it.
    pub(super) fn best_for(&self, speaks: Speaks) -> Speaks {
        match (speaks, self.opening(speaks)) {
            (Speaks::Legacy, Opening::Discover) => Speaks::Modern,
            (Speaks::Modern, Opening::Initialize) => Speaks::Legacy,
            (speaks, _) => speaks,
        }
    }

    /// Lists the tools on a new connection. A list that fails is no reason not to call tools: the last good one
    /// serves on.
    async fn list(&self, link: &Link) -> Result<(), NotOpen> {
        match Catalog::fetch(link, &self.name).await {
            Ok(catalog) => self.listed(link, catalog),
            Err(error) if link.over().is_cancelled() => return Err(NotOpen::Unsent(link.unsent(error))),
            Err(error) => {
                let error = link.unsent(error).message;
                tracing::warn!(target: "upstream", server = &*self.name, error, "the tools could not be listed");
                self.report(HealthState::Starting, Some(&error));
            }
        }
        Ok(())
    }

    /// Logs a failure, loudly when it is news.
    fn complain(&self, error: &str, failures: u32) {
        let server = &*self.name;
        let last = self.health.lock().expect("nothing panics while it holds the health").last_error.clone();
        if last.as_deref() == Some(error) {
            tracing::debug!(target: "upstream", server, failures, error, "the server still cannot be used");
        } else {
            tracing::warn!(target: "upstream", server, failures, error, "the server cannot be used");
        }
    }

    fn restarted(&self) {
        self.health.lock().expect("nothing panics while it holds the health").restarts += 1;
    }

    pub(super) fn report(&self, state: HealthState, error: Option<&str>) {
        let mut health = self.health.lock().expect("nothing panics while it holds the health");
        if health.state != state {
            health.state = state;
            health.since = now();
        }
        if let Some(error) = error {
            health.last_error = Some(error.to_owned());
        }
    }

    /// How the server is started, where it is a process.
    pub(super) fn recipe(&self, sharer: &Sharer) -> Option<Recipe> {
        match &self.config().transport {
            Transport::Stdio { command, args, env, cwd } => {
                let command = Command { server: &self.name, command, args, env, cwd: cwd.as_deref() };
                Some(command.recipe(&kept::name(sharer)))
            }
            _ => None,
        }
    }

    /// What hears one of its connections.
    pub(super) fn peer(&self, sharer: &Sharer) -> Peer {
        let origin = Origin { server: self.name.clone(), sharer: sharer.clone() };
        Peer::new(origin, self.audiences.clone())
    }

    async fn link(&self, sharer: &Sharer) -> Result<Link, Unsent> {
        let failed = |code, what: String| Unsent { code, message: format!("server `{}`: {what}", self.name) };
        let peer = self.peer(sharer);
        if let Some(recipe) = self.recipe(sharer) {
            self.estate.cleared().await;
            let process = Process::start(&self.keeper, recipe).await;
            let process = process.map_err(|what| failed("upstream-spawn-failed", what))?;
            self.hears(&process.last_words);
            let ready = CancellationToken::new();
            ready.cancel();
            return Ok(Link::pipe(Pipe::attach(peer, process, ready)));
        }
        let config = self.config();
        match &config.transport {
            Transport::Stdio { .. } => unreachable!("it has a recipe"),
            Transport::Http { url, headers } => {
                let address = self
                    .address(url, headers, &config.http)
                    .map_err(|what| failed("upstream-unreachable", what))?;
                Ok(Link::web(Web::new(peer, address)))
            }
        }
    }
}

/// When an instance is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// At once and always.
    Open,
    /// When it is wanted.
    OnDemand,
}

/// For whom an instance is.
#[derive(Clone, Debug)]
pub(super) struct For {
    pub(super) sharer: Sharer,
    /// The era of those whom it serves.
    pub(super) speaks: Speaks,
    /// The first of them.
    pub(super) client: Arc<Client>,
}

impl For {
    fn keep(&self) -> Keep {
        match (&self.sharer, self.speaks) {
            (Sharer::All, Speaks::Legacy) => Keep::Open,
            _ => Keep::OnDemand,
        }
    }

    /// What `initialize` declares.
    fn capabilities(&self) -> String {
        match self.sharer {
            Sharer::All => client::of_everybody(),
            Sharer::Channel(_) | Sharer::Principal(_) => self.client.declared(),
        }
    }
}

#[derive(Clone)]
enum Status {
    /// Not open, and why the latest attempt failed, if one did.
    Down(Option<Unsent>),
    Up(Link, Offer),
    Stopped,
}

/// One process or session, over all its lives.
pub(super) struct Instance {
    for_whom: For,
    status: watch::Sender<Status>,
    wanted: Notify,
    /// What must have ended before it is opened for the first time.
    after: CancellationToken,
    /// Attempts to open it that failed.
    failed: AtomicU64,
    /// Connections that were opened.
    lives: AtomicU64,
    /// Answers since the latest connection was opened.
    answers: AtomicU64,
    used: Mutex<Instant>,
    pulse: Pulse,
    /// Attempts to open it that failed, one after another.
    vain: AtomicU64,
    stop: CancellationToken,
    stopped: CancellationToken,
}

impl Instance {
    /// One that is opened once `after` is cancelled.
    pub(super) fn start(shared: Arc<Shared>, for_whom: For, after: CancellationToken) -> Arc<Self> {
        let instance = Arc::new(Self {
            for_whom,
            status: watch::Sender::new(Status::Down(None)),
            wanted: Notify::new(),
            after,
            failed: AtomicU64::new(0),
            lives: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            used: Mutex::new(Instant::now()),
            pulse: Pulse::default(),
            vain: AtomicU64::new(0),
            stop: CancellationToken::new(),
            stopped: CancellationToken::new(),
        });
        tokio::spawn(instance.clone().run(shared));
        instance
    }

    /// The open connection, if there is one.
    pub(super) fn link(&self) -> Option<Link> {
        *self.used.lock().expect("nothing panics while it holds the time") = Instant::now();
        match &*self.status.borrow() {
            Status::Up(link, _) if !link.over().is_cancelled() => Some(link.clone()),
            _ => None,
        }
    }

    /// What the server said of itself when the connection was opened.
    pub(super) fn offer(&self) -> Option<Offer> {
        match &*self.status.borrow() {
            Status::Up(_, offer) => Some(offer.clone()),
            Status::Down(_) | Status::Stopped => None,
        }
    }

    /// When it is opened.
    pub(super) fn keep(&self) -> Keep {
        self.for_whom.keep()
    }

    /// Waits for the connection to be open.
    ///
    /// # Errors
    /// What the attempt that began after this call, or ran during it, failed with.
    pub(super) async fn opened(&self, server: &str) -> Result<Link, Unsent> {
        if let Some(link) = self.link() {
            return Ok(link);
        }
        let mut status = self.status.subscribe();
        let before = self.failed.load(Ordering::Relaxed);
        self.wanted.notify_one();
        let unsent = |message| Unsent { code: "upstream-unreachable", message };
        let opened = async {
            loop {
                match &*status.borrow_and_update() {
                    Status::Up(link, _) if !link.over().is_cancelled() => return Ok(link.clone()),
                    Status::Down(Some(last)) if self.failed.load(Ordering::Relaxed) > before => {
                        return Err(last.clone());
                    }
                    Status::Stopped => return Err(unsent(format!("server `{server}` was stopped"))),
                    _ => {}
                }
                if status.changed().await.is_err() {
                    return Err(unsent(format!("server `{server}` was stopped")));
                }
            }
        };
        // A little more than an attempt takes, so that its own words are heard. Of one that is known to be in trouble they
        // have been heard.
        let troubled = self.vain.load(Ordering::Relaxed) > 0;
        let limit = if troubled { KNOWN_LIMIT } else { START_LIMIT + Duration::from_millis(500) };
        match timeout(limit, opened).await {
            Ok(opened) => opened,
            Err(_) if troubled => Err(self.trouble().unwrap_or_else(|| {
                unsent(format!("server `{server}` is being started again, and is not ready yet"))
            })),
            Err(_) => {
                Err(unsent(format!("server `{server}` was not ready within {} s", START_LIMIT.as_secs())))
            }
        }
    }

    /// Why the latest attempt to open it failed.
    fn trouble(&self) -> Option<Unsent> {
        match &*self.status.borrow() {
            Status::Down(trouble) => trouble.clone(),
            Status::Up(..) | Status::Stopped => None,
        }
    }

    /// Why nothing is sent there now, although it is open.
    pub(super) fn hung(&self, server: &str) -> Option<Unsent> {
        self.pulse.hung(server)
    }

    /// Has it opened now.
    pub(super) fn want(&self) {
        self.wanted.notify_one();
    }

    /// What kept it from being opened may be over.
    pub(super) fn try_again(&self) {
        self.vain.store(0, Ordering::Relaxed);
        self.wanted.notify_one();
    }

    /// Notes that the connection is of use.
    pub(super) fn answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether nothing was asked of it for `limit` and nothing is being waited for.
    pub(super) fn is_idle(&self, limit: Duration) -> bool {
        !self.is_busy() && self.used.lock().expect("nothing panics while it holds the time").elapsed() > limit
    }

    /// Whether calls wait for their answers.
    pub(super) fn is_busy(&self) -> bool {
        matches!(&*self.status.borrow(), Status::Up(link, _) if link.peer().calls() > 0)
    }

    /// Ends the connection and the process, and waits for that.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.stopped.cancelled().await;
    }

    async fn run(self: Arc<Self>, shared: Arc<Shared>) {
        let (mut failures, mut failed_at) = (0, Instant::now());
        tokio::select! {
            () = self.after.cancelled() => {}
            () = self.stop.cancelled() => {}
        }
        loop {
            tokio::select! {
                () = self.rest(self.keep(), failures, failed_at) => {}
                () = self.stop.cancelled() => break,
            }
            match self.open(&shared).await {
                Ok((link, offer)) => match self.live(&shared, link, offer).await {
                    Life::OfUse => failures = 0,
                    Life::Short => failures += 1,
                },
                Err((unsent, link)) => {
                    failures += 1;
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    self.vain.fetch_add(1, Ordering::Relaxed);
                    if !self.stop.is_cancelled() {
                        shared.complain(&unsent.message, failures);
                    }
                    shared.report(HealthState::Down, Some(&unsent.message));
                    self.status.send_replace(Status::Down(Some(unsent)));
                    if let Some(link) = link {
                        link.stop().await;
                    }
                }
            }
            failed_at = Instant::now();
        }
        self.status.send_replace(Status::Stopped);
        shared.report(HealthState::Stopped, None);
        self.stopped.cancel();
    }

    /// Waits until it is time to open: after the pause that the failures ask for, a short one if a call waits.
    async fn rest(&self, keep: Keep, failures: u32, failed_at: Instant) {
        let pause = pause(failures);
        if keep == Keep::Open {
            tokio::select! {
                () = sleep_until(failed_at + pause) => return,
                () = self.wanted.notified() => {}
            }
        } else {
            self.wanted.notified().await;
        }
        sleep_until(failed_at + pause.min(LONGEST_WANTED_PAUSE)).await;
    }

    /// Opens a connection, and a second one if the server wants to be begun with in the other way.
    async fn open(&self, shared: &Shared) -> Result<(Link, Offer), (Unsent, Option<Link>)> {
        if let Some(running) = shared.estate.running(&self.for_whom.sharer) {
            return Ok(running);
        }
        shared.report(HealthState::Starting, None);
        let For { sharer, speaks, .. } = &self.for_whom;
        let mut link = shared.link(sharer).await.map_err(|unsent| (unsent, None))?;
        let mut opened = self.agree(shared, &link, shared.opening(*speaks)).await;
        if let Err(NotOpen::Begin(opening)) = opened {
            shared.remember(*speaks, opening);
            link.stop().await;
            link = shared.link(sharer).await.map_err(|unsent| (unsent, None))?;
            opened = self.agree(shared, &link, opening).await;
        }
        match opened {
            Ok(offer) => Ok((link, offer)),
            Err(NotOpen::Unsent(unsent)) => Err((unsent, Some(link))),
            Err(NotOpen::Begin(_)) => {
                Err((Unsent { code: "upstream-unreachable", message: link.cause() }, Some(link)))
            }
        }
    }

    /// Agrees on an era and lists the tools, within the limit.
    async fn agree(&self, shared: &Shared, link: &Link, first: Opening) -> Result<Offer, NotOpen> {
        let unsent = |message| NotOpen::Unsent(Unsent { code: "upstream-unreachable", message });
        let agreed = async {
            let offer = link.open(first, &self.for_whom.capabilities()).await?;
            shared.remember(self.for_whom.speaks, offer.opening);
            shared.list(link).await.map(|()| offer)
        };
        let limit = start_limit(&shared.config().transport);
        tokio::select! {
            agreed = timeout(limit, agreed) => agreed.unwrap_or_else(|_| {
                Err(unsent(format!(
                    "server `{}` did not answer within {} s of being started{}",
                    shared.name, limit.as_secs(), link.last_words()
                )))
            }),
            () = self.stop.cancelled() => Err(unsent(format!("server `{}` was stopped", shared.name))),
        }
    }

    /// A connection's life.
    async fn live(&self, shared: &Shared, link: Link, offer: Offer) -> Life {
        let opened = Instant::now();
        self.answers.store(0, Ordering::Relaxed);
        self.vain.store(0, Ordering::Relaxed);
        shared.report(HealthState::Up, None);
        link.note(&offer).await;
        if self.lives.fetch_add(1, Ordering::Relaxed) > 0 {
            shared.restarted();
        }
        self.status.send_replace(Status::Up(link.clone(), offer.clone()));
        let origin = Origin { server: shared.name.clone(), sharer: self.for_whom.sharer.clone() };
        if let Some(audience) = shared.audiences.get() {
            tokio::spawn(link.clone().restore(offer.clone(), audience.standing(&origin)));
            if self.lives.load(Ordering::Relaxed) > 1 {
                offer.changes().for_each(|remark| audience.remarked(&origin, &remark));
            }
        }
        let news = tokio::spawn(link.clone().listen(offer.clone()));
        let mut watch = std::pin::pin!(health::watch(shared, &link, &self.pulse));
        loop {
            tokio::select! {
                () = link.over().cancelled() => break,
                () = self.stop.cancelled() => break,
                health::GivenUp = &mut watch => {
                    link.stop().await;
                    break;
                }
                () = link.peer().list_changed.notified() => tokio::select! {
                    () = relist(shared, &link) => link.note(&offer).await,
                    () = link.over().cancelled() => break,
                    () = self.stop.cancelled() => break,
                },
            }
        }
        news.abort();
        self.pulse.reset();
        self.status.send_replace(Status::Down(None));
        if self.stop.is_cancelled() {
            link.stop().await;
            return Life::OfUse;
        }
        // The old process must be gone before a new one can meet it.
        link.ended().await;
        let cause = link.cause();
        tracing::warn!(target: "upstream", server = &*shared.name, cause, "the connection has ended");
        shared.report(HealthState::Down, Some(&cause));
        let of_use = opened.elapsed() >= HEALTHY || self.answers.load(Ordering::Relaxed) > 0;
        if of_use { Life::OfUse } else { Life::Short }
    }
}

/// What a connection's life says about the next one.
enum Life {
    OfUse,
    Short,
}

async fn relist(shared: &Shared, link: &Link) {
    match timeout(START_LIMIT, Catalog::fetch(link, &shared.name)).await {
        Ok(Ok(catalog)) => shared.listed(link, catalog),
        Ok(Err(error)) => {
            tracing::warn!(target: "upstream", server = &*shared.name, ?error, "the tools could not be listed anew");
        }
        Err(_) => {
            tracing::warn!(target: "upstream", server = &*shared.name, "listing the tools anew took too long")
        }
    }
}

/// How long a server may take to begin. Callers do not wait as long.
fn start_limit(transport: &Transport) -> Duration {
    /// What gets a server before it starts it: ended in the middle of that, it would begin again each time.
    const FETCHERS: [&str; 12] =
        ["npx", "npm", "pnpm", "yarn", "bunx", "bun", "deno", "uvx", "uv", "pipx", "docker", "podman"];
    let fetches = match transport {
        Transport::Stdio { command, .. } => Path::new(command)
            .file_stem()
            .is_some_and(|program| FETCHERS.iter().any(|fetcher| *fetcher == program)),
        Transport::Http { .. } => false,
    };
    if fetches { FETCH_LIMIT } else { START_LIMIT }
}

/// None after the first failure, then growing, with jitter.
fn pause(failures: u32) -> Duration {
    if failures < 2 {
        return Duration::ZERO;
    }
    let full = FIRST_PAUSE.saturating_mul(2u32.saturating_pow(failures - 2)).min(LONGEST_PAUSE);
    full.mul_f64(rand::random_range(0.5..=1.0))
}

fn now() -> Millis {
    Millis(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fetched_first_may_take_its_time() {
        let stdio = |command: &str| Transport::Stdio {
            command: command.into(),
            args: Vec::new(),
            env: Vec::new(),
            cwd: None,
        };
        for (command, limit) in [
            ("npx", FETCH_LIMIT),
            ("/usr/bin/docker", FETCH_LIMIT),
            ("npx.cmd", FETCH_LIMIT),
            ("bank", START_LIMIT),
        ] {
            assert_eq!(start_limit(&stdio(command)), limit, "{command}");
        }
    }

    #[test]
    fn the_first_restart_is_immediate_and_none_waits_long() {
        assert_eq!((pause(0), pause(1)), (Duration::ZERO, Duration::ZERO));
        for (failures, full) in
            [(2, FIRST_PAUSE), (3, FIRST_PAUSE * 2), (12, LONGEST_PAUSE), (u32::MAX, LONGEST_PAUSE)]
        {
            let pause = pause(failures);
            assert!(full / 2 <= pause && pause <= full, "{failures}: {pause:?}");
        }
    }
}
