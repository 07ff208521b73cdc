//! What all processes and sessions of a server share: its configuration, its list of tools, its health, and how a new one
//! is connected to.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, OnceLock, RwLock, Weak},
    time::{SystemTime, UNIX_EPOCH},
};

use holdfast_store::Millis;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Audiences, Authorizer, Health, HealthState, Judge, Origin, Sharer, Speaks, Unsent,
    catalog::Catalog,
    era::Opening,
    kept::{self, Estate},
    link::{Link, NotOpen},
    peer::Peer,
    pipe::Pipe,
    process::{Command, LastWords, Process},
    threads::{Number, Session, Threads},
    web::{Address, Web},
};
use crate::{
    config::{Http, ServerConfig, Transport},
    keeper::{Keeper, Recipe},
};

/// What all servers share.
#[derive(Clone)]
pub(super) struct Common {
    /// Counts changes of any server's list.
    pub(super) changed: watch::Sender<u64>,
    pub(super) judge: Judge,
    pub(super) audiences: Audiences,
    pub(super) keeper: Arc<Keeper>,
    pub(super) threads: Arc<Threads>,
    /// Cancelled when all unfinished calls of an earlier life were read back.
    pub(super) ready: CancellationToken,
}

/// What all instances of a server share.
pub(super) struct Shared {
    /// Replaced where settings change that need no other connection.
    config: RwLock<Arc<ServerConfig>>,
    pub(super) name: Arc<str>,
    /// Command line or URL.
    pub(super) identity: Arc<str>,
    pub(super) catalog: RwLock<Option<Arc<Catalog>>>,
    pub(super) health: Mutex<Health>,
    /// How the server was last begun with successfully, for agents of each era.
    openings: Mutex<Openings>,
    address: OnceLock<Result<Arc<Address>, String>>,
    pub(super) common: Common,
    /// Of the latest processes, the newest last.
    words: Mutex<VecDeque<Arc<LastWords>>>,
    pub(super) estate: Estate,
}

#[derive(Clone, Copy)]
struct Openings {
    legacy: Opening,
    modern: Opening,
}

impl Shared {
    pub(super) fn new(config: ServerConfig, common: Common) -> Self {
        let health = Health { state: HealthState::Idle, since: now(), last_error: None, restarts: 0 };
        Self {
            name: config.name.as_str().into(),
            identity: config.identity().into(),
            config: RwLock::new(Arc::new(config)),
            catalog: RwLock::new(None),
            health: Mutex::new(health),
            openings: Mutex::new(Openings { legacy: Opening::Initialize, modern: Opening::Discover }),
            address: OnceLock::new(),
            common,
            words: Mutex::default(),
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
        let judge = self.common.judge.get().and_then(Weak::upgrade);
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
            self.common.changed.send_modify(|changes| *changes += 1);
        }
    }

    pub(super) fn opening(&self, speaks: Speaks) -> Opening {
        let openings = *self.openings.lock().expect("nothing panics while it holds the openings");
        match speaks {
            Speaks::Legacy => openings.legacy,
            Speaks::Modern => openings.modern,
        }
    }

    pub(super) fn remember(&self, speaks: Speaks, opening: Opening) {
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
    pub(super) async fn list(&self, link: &Link) -> Result<(), NotOpen> {
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
    pub(super) fn complain(&self, error: &str, failures: u32) {
        let server = &*self.name;
        let last = self.health.lock().expect("nothing panics while it holds the health").last_error.clone();
        if last.as_deref() == Some(error) {
            tracing::debug!(target: "upstream", server, failures, error, "the server still cannot be used");
        } else {
            tracing::warn!(target: "upstream", server, failures, error, "the server cannot be used");
        }
    }

    pub(super) fn restarted(&self) {
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
        Peer::new(origin, self.common.audiences.clone())
    }

    pub(super) async fn link(&self, sharer: &Sharer) -> Result<Link, Unsent> {
        let failed = |code, what: String| Unsent { code, message: format!("server `{}`: {what}", self.name) };
        let peer = self.peer(sharer);
        if let Some(recipe) = self.recipe(sharer) {
            self.estate.cleared().await;
            let process = Process::start(&self.common.keeper, recipe).await;
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
                Ok(Link::web(Web::new(peer, address, self.common.threads.clone())))
            }
        }
    }

    /// A conversation by HTTP that an earlier life began; none where the configuration has no way to it any more.
    pub(super) fn resume(&self, number: Number, session: &Session, sharer: &Sharer) -> Option<Link> {
        let config = self.config();
        let Transport::Http { url, headers } = &config.transport else { return None };
        let address = self.address(url, headers, &config.http).ok()?;
        let web = Web::new(self.peer(sharer), address, self.common.threads.clone());
        web.resume(number, session).then(|| Link::web(web)).inspect(|link| link.agree(&session.era))
    }
}

fn now() -> Millis {
    Millis(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64))
}
