//! The MCP servers behind us: started, connected, watched and restarted; nothing they say is lost or reinterpreted.

mod audience;
mod catalog;
mod client;
mod era;
mod errand;
mod flight;
mod headers;
mod health;
mod id;
mod instance;
mod kept;
mod lines;
mod link;
mod oauth;
mod outcome;
mod peer;
mod pipe;
mod process;
mod question;
mod relay;
mod reload;
mod round;
mod server;
mod shared;
mod stage;
#[cfg(test)]
mod tests;
mod threads;
mod unread;
mod web;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, RwLock, RwLockReadGuard, Weak},
    time::Duration,
};

use holdfast_policy::Hints;
use holdfast_store::{Answer, Attempt, CallId, Caller, Loss, Millis, Text};
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{audience::Audiences, shared::Common};
pub(crate) use self::{
    audience::{Audience, Origin, Remark, Sharer, Standing},
    client::{Client, Speaks},
    flight::Flight,
    headers::retry_after_ms,
    kept::Again,
    oauth::{Authorizer, Returned},
    question::{Answers, Ask, Question, Said, Wanted, Way},
    relay::Relayed,
    reload::Fate,
    server::Upstream,
    threads::Threads,
    unread::Bookmark,
};
use crate::{
    config::ServerConfig,
    keeper::{Keeper, Kept},
};

/// How long a process or session of one channel or principal is kept without use.
const IDLE_LIMIT: Duration = Duration::from_secs(5 * 60);

/// Says which definitions of tools are trusted.
pub(crate) trait Trust: Send + Sync {
    /// Whether anything may be sent to a tool that its server defines like this.
    fn trusts(&self, server: &str, tool: &str, hash: &str) -> bool;
}

/// Whoever says so, once it is there; until then everything is trusted.
type Judge = Arc<OnceLock<Weak<dyn Trust>>>;

/// The code of a dispatch that was not sent because its tool is not what it was when it was trusted.
pub(crate) const UNTRUSTED: &str = "tool-quarantined";

/// The code of a dispatch that was not sent because the server behind the name is another one than the call was for, or
/// none.
pub(crate) const RECONFIGURED: &str = "server-changed";

/// Every configured server, in the order of the configuration.
pub(crate) struct Upstreams {
    all: RwLock<Vec<Arc<Upstream>>>,
    /// Those that are not configured any more, but have calls that are not done.
    away: Mutex<HashMap<String, Arc<Upstream>>>,
    /// What is being ended because the configuration has changed.
    leaving: TaskTracker,
    common: Common,
    /// What servers of an earlier life say is heard.
    ready: CancellationToken,
    stopped: CancellationToken,
}

impl Upstreams {
    /// Starts what all agents share, and waits for nothing: a server that hangs holds up nobody else.
    /// Needs a tokio runtime.
    /// They end with this process; [`Upstreams::start_kept`] has them outlive it.
    pub(crate) fn start(servers: &[ServerConfig]) -> Arc<Self> {
        Self::start_kept(servers, (Keeper::within(), Vec::new()), Threads::none())
    }

    /// The same, with what is left of an earlier life: what the keeper has kept, and what was noted of conversations by
    /// HTTP. What those servers say is heard once [`Upstreams::recovered`] was called.
    pub(crate) fn start_kept(
        servers: &[ServerConfig],
        (keeper, kept): (Arc<Keeper>, Vec<Kept>),
        threads: Arc<Threads>,
    ) -> Arc<Self> {
        let ready = CancellationToken::new();
        let common = Common {
            changed: watch::Sender::new(0),
            judge: Judge::default(),
            audiences: Audiences::default(),
            keeper,
            threads,
            ready: ready.clone(),
        };
        let mut kept = kept::by_server(kept);
        let start = |server: &ServerConfig| {
            let kept = kept.remove(&server.name).unwrap_or_default();
            Upstream::start(server, common.clone(), (kept, &ready))
        };
        let all = servers.iter().map(start).collect();
        kept::dismiss(kept.into_values().flatten());
        common.threads.forget_the_rest();
        let upstreams = Arc::new(Self {
            all: RwLock::new(all),
            away: Mutex::default(),
            leaving: TaskTracker::new(),
            common,
            ready,
            stopped: CancellationToken::new(),
        });
        tokio::spawn(sweep(upstreams.clone()));
        upstreams
    }

    /// From now on nothing is sent that the next life would not know of. To be called when the clock is right, and before
    /// anything is sent.
    pub(crate) fn recovering(&self, now: Millis) {
        self.common.keeper.sent().complete_from(now);
    }

    /// All unfinished calls were read back: what servers of an earlier life say finds them.
    pub(crate) fn recovered(&self) {
        self.all().iter().for_each(|upstream| upstream.settled());
        self.common.threads.recovered();
        self.ready.cancel();
    }

    /// The server of this name.
    pub(crate) fn get(&self, server: &str) -> Option<Arc<Upstream>> {
        self.configured().iter().find(|upstream| upstream.name() == server).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Upstream>> {
        self.configured().clone()
    }

    fn configured(&self) -> RwLockReadGuard<'_, Vec<Arc<Upstream>>> {
        self.all.read().expect("nothing panics while it holds the list")
    }

    /// A number that grows whenever the list of tools of any server has changed.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.common.changed.subscribe()
    }

    /// From now on `judge` says which tools are trusted.
    pub(crate) fn judged_by(&self, judge: Weak<dyn Trust>) {
        // Whoever was first stays.
        let _ = self.common.judge.set(judge);
    }

    /// From now on `audience` hears what servers say that belongs to no request.
    pub(crate) fn heard_by(&self, audience: Weak<dyn Audience>) {
        self.common.audiences.set(audience);
    }

    /// What agents may see of the lists has changed, although no list has.
    pub(crate) fn touch(&self) {
        self.common.changed.send_modify(|count| *count += 1);
    }

    /// Ends all servers: stdin is closed, after 3 s their groups get SIGTERM, after 3 more SIGKILL. What is in flight
    /// then is lost, so those who care wait for it first.
    pub(crate) async fn stop(&self) {
        self.stopped.cancel();
        self.common.threads.leave();
        futures_util::future::join_all(self.all().iter().map(|upstream| upstream.stop())).await;
        self.leaving.close();
        self.leaving.wait().await;
        self.common.keeper.stop().await;
        self.common.threads.written().await;
    }
}

/// Ends instances of agents that are gone, now and then.
async fn sweep(upstreams: Arc<Upstreams>) {
    let mut often = interval(Duration::from_secs(30));
    often.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = often.tick() => {}
            () = upstreams.stopped.cancelled() => return,
        }
        let all = upstreams.all();
        futures_util::future::join_all(all.iter().map(|upstream| upstream.sweep(IDLE_LIMIT))).await;
    }
}

/// How a server is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) state: HealthState,
    /// Since when.
    pub(crate) since: Millis,
    /// The latest reason for not being up, kept afterwards.
    pub(crate) last_error: Option<String>,
    /// How often a connection was opened after the first.
    pub(crate) restarts: u64,
}

/// What a server is doing; where each agent has its own, what the latest of them is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HealthState {
    /// Nobody has asked for it.
    Idle,
    /// Being started or connected to.
    Starting,
    /// Ready for calls.
    Up,
    /// It takes requests and answers nothing.
    Hung,
    /// It cannot be used; it is tried again, with growing pauses or when it is wanted.
    Down,
    /// Holdfast is stopping.
    Stopped,
}

impl HealthState {
    /// A stable kebab-case name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Hung => "hung",
            Self::Down => "down",
            Self::Stopped => "stopped",
        }
    }
}

/// One `tools/call` on its way to a server.
#[derive(Clone, Debug)]
pub(crate) struct Dispatch {
    /// Which attempt of which call it is: its request is known by that after a restart. None: nobody will ask for it.
    pub(crate) attempt: Option<(CallId, Attempt)>,
    /// For whom: decides which process or session where a server is not shared by all.
    pub(crate) caller: Caller,
    /// For which server, by command line or URL, where no other one will do.
    pub(crate) identity: Option<Arc<str>>,
    /// The server's own name of the tool.
    pub(crate) tool: String,
    /// The journaled argument text, sent byte for byte.
    pub(crate) arguments: Text,
    /// Further members of `params`, a JSON object text.
    pub(crate) extra: Option<Text>,
    /// Further `_meta` members, a JSON object text (reserved keys are already gone).
    pub(crate) meta: Option<Text>,
    /// Further HTTP headers (forwarded keys); ignored by stdio servers.
    pub(crate) headers: Vec<(String, String)>,
    /// The agent's client, as far as it is known.
    pub(crate) client: Arc<Client>,
}

/// What a dispatch brings, in the order in which the server said it. After `Answered`, `Refused`, `Unsent` or `Lost`
/// more can still come: an answer after a loss, or a second answer.
#[derive(Clone, Debug)]
pub(crate) enum Signal {
    /// The `params` of a `notifications/progress` for this dispatch, as they came.
    Progress(Text),
    /// Another notification that belongs to this dispatch.
    Remarked(Remark),
    /// The server wants to know something before it goes on.
    Asked(Arc<Question>),
    /// A result, its kind read from `isError`.
    Answered(Answer),
    /// An error: a JSON-RPC error member, or an HTTP status without one.
    Refused(Refused),
    /// Not one byte of the request has reached the server, or the server's session was not there to take it.
    Unsent(Unsent),
    /// The answer can no longer come by this way.
    Lost(Loss, String),
}

/// An error from the server.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    /// The `error` member; made up from the status where the server gave none.
    pub(crate) error: Text,
    /// The JSON-RPC code, where there was one.
    pub(crate) code: Option<i64>,
    /// The HTTP status, for servers by HTTP, where it was not 2xx.
    pub(crate) status: Option<u16>,
    /// From `Retry-After`.
    pub(crate) retry_after_ms: Option<u64>,
}

/// Proof that a dispatch did not leave.
#[derive(Clone, Debug)]
pub(crate) struct Unsent {
    /// `upstream-unreachable`, `upstream-spawn-failed`, `upstream-unauthorized`, `upstream-session-expired`.
    pub(crate) code: &'static str,
    /// What happened, to which server, and what to do.
    pub(crate) message: String,
}

/// A tool as its server defines it.
#[derive(Clone, Debug)]
pub(crate) struct Tool {
    /// The server's own name of the tool.
    pub(crate) name: String,
    /// The definition as it came, every member of it.
    pub(crate) definition: Value,
    /// Hash (hex) of the definition; see [`holdfast_store::definition_hash`].
    pub(crate) hash: Arc<str>,
    /// `annotations`, untrusted unless the configuration says otherwise.
    pub(crate) hints: Hints,
    /// Whether results must carry `structuredContent`.
    pub(crate) has_output_schema: bool,
}
