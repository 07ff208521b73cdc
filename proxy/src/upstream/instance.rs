//! One process or session of a server, kept alive: opened when wanted, reopened with growing pauses, ended when idle.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Client, HealthState, Origin, Sharer, Speaks, Unsent,
    catalog::Catalog,
    client,
    era::Opening,
    health::{self, Pulse},
    kept,
    link::{Link, NotOpen, Offer},
    shared::Shared,
};
use crate::config::Transport;

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
}

impl For {
    fn keep(&self) -> Keep {
        match (&self.sharer, self.speaks) {
            (Sharer::All, Speaks::Legacy) => Keep::Open,
            _ => Keep::OnDemand,
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
    /// The first of those whom it serves, of whom anything is known.
    client: OnceLock<Arc<Client>>,
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
            client: OnceLock::new(),
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

    /// It serves this client, too.
    pub(super) fn serves(&self, client: &Arc<Client>) {
        if !Arc::ptr_eq(client, &Client::unknown()) {
            // The first one stays.
            let _ = self.client.set(client.clone());
        }
    }

    /// What `initialize` declares.
    fn capabilities(&self) -> String {
        match self.for_whom.sharer {
            Sharer::All => client::of_everybody(),
            Sharer::Channel(_) | Sharer::Principal(_) => {
                self.client.get().map_or_else(|| Client::unknown().declared(), |client| client.declared())
            }
        }
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
        let For { sharer, speaks, .. } = &self.for_whom;
        if let Some((link, offer)) = shared.estate.running(sharer, *speaks) {
            if !link.has_headers() || self.lists_tools(shared, &link).await {
                return Ok((link, offer));
            }
            // Not before it is known who waits for an answer from it.
            let ready = shared.common.ready.clone();
            tokio::spawn(async move {
                ready.cancelled().await;
                kept::end_when_idle(link).await;
            });
        }
        shared.report(HealthState::Starting, None);
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
            Err(NotOpen::Unsent(unsent)) => Err((link.with_last_words(unsent).await, Some(link))),
            Err(NotOpen::Begin(_)) => {
                Err((Unsent { code: "upstream-unreachable", message: link.cause() }, Some(link)))
            }
        }
    }

    /// Whether a session of an earlier life still exists: its server lists its tools in it.
    async fn lists_tools(&self, shared: &Shared, link: &Link) -> bool {
        tokio::select! {
            listed = timeout(START_LIMIT, Catalog::fetch(link, &shared.name)) => match listed {
                Ok(Ok(catalog)) => {
                    shared.listed(link, catalog);
                    true
                }
                Ok(Err(_)) | Err(_) => false,
            },
            () = self.stop.cancelled() => false,
        }
    }

    /// Agrees on an era and lists the tools, within the limit.
    async fn agree(&self, shared: &Shared, link: &Link, first: Opening) -> Result<Offer, NotOpen> {
        let unsent = |message| NotOpen::Unsent(Unsent { code: "upstream-unreachable", message });
        let agreed = async {
            let offer = link.open(first, &self.capabilities()).await?;
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
        self.note(&link, &offer).await;
        if self.lives.fetch_add(1, Ordering::Relaxed) > 0 {
            shared.restarted();
        }
        self.status.send_replace(Status::Up(link.clone(), offer.clone()));
        let origin = Origin { server: shared.name.clone(), sharer: self.for_whom.sharer.clone() };
        if let Some(audience) = shared.common.audiences.get() {
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
                    () = relist(shared, &link) => self.note(&link, &offer).await,
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

    async fn note(&self, link: &Link, offer: &Offer) {
        link.note(offer, &self.for_whom.sharer, self.for_whom.speaks).await;
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
