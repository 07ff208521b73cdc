//! The MCP side that agents see: streamable HTTP in both protocol eras, and the other end of the stdio bridge.
//!
//! | module | holds |
//! |---|---|
//! | `listen` | connections: numbers, stalls, orderly ends |
//! | `http`, `accept` | one HTTP request: which message, on whose behalf, and how it wants its response |
//! | `guard`, `visitor` | `Host` and `Origin`; principals and bridges by their tokens |
//! | `era` | revisions of MCP, and the headers they demand |
//! | `guest` | what a legacy client said about itself |
//! | `event_id`, `replay`, `resume` | events of legacy streams, and who comes back for them |
//! | `session`, `presence`, `cancel` | legacy sessions, which channels are alive, what can be cancelled |
//! | `tools` | the list of all servers' tools |
//! | `call`, `wait`, `respond` | `tools/call`, the wait for its answer, and the response |
//! | `surface` | what a client is given while its call waits for a person |
//! | `asks` | requests to legacy clients: offers, and what servers want to know |
//! | `retry`, `state` | a request that goes on with an earlier one, and the seal on what links the two |
//! | `offer` | asking legacy clients to send their users to the inbox |
//! | `tasks` | the Tasks extension |
//! | `rpc` | every other method that Holdfast answers itself |
//! | `relay`, `homes`, `task_id` | requests passed on, and the server that each is for |
//! | `fetch` | large answers, whole or in ranges |
//! | `deliver` | replies of the driver -> JSON-RPC messages |
//! | `splice` | changing members of a JSON text without reading the rest |
//! | `stream` | event streams |
//! | `body`, `patience`, `problem` | bodies and refusals |

mod absent;
mod accept;
mod asks;
mod body;
mod call;
mod cancel;
mod deliver;
mod era;
mod event_id;
mod fetch;
mod guard;
mod guest;
mod homes;
mod http;
mod hub;
mod levels;
mod listen;
mod lists;
mod offer;
mod patience;
mod presence;
mod problem;
mod relay;
mod replay;
mod respond;
mod resume;
mod retry;
mod rpc;
mod session;
mod splice;
mod state;
mod stream;
mod surface;
mod task_id;
mod tasks;
mod tools;
mod visitor;
mod wait;

use std::sync::{Arc, PoisonError, RwLock, Weak};

use holdfast_store::JournalError;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

pub(crate) use guard::{Came, Guard, Tokens};
pub(crate) use listen::{Link, Reception, serve};
pub(crate) use patience::{Broken, Patient};
pub(crate) use splice::one_line;
pub(crate) use surface::Surface;

use crate::{
    config::Config,
    driver::{Driver, Peer, now},
    upstream::Upstreams,
};

/// The name of the header that carries the bridge's secret from the address file.
pub(crate) const BRIDGE_TOKEN: &str = "Holdfast-Bridge-Token";
/// The bridge instance: a UUID that lives as long as the bridge's process.
pub(crate) const BRIDGE_INSTANCE: &str = "Holdfast-Bridge";
/// The bridge's number for one request; the same each time it is sent.
pub(crate) const BRIDGE_REQUEST: &str = "Holdfast-Request";
/// The name of the client behind the bridge.
pub(crate) const BRIDGE_CLIENT: &str = "Holdfast-Client";
/// What that client has declared at `initialize`, as far as it matters here: [`VISIT_PAGES`] or nothing. The bridge says
/// it each time, because a `serve` that was started since has not heard it.
pub(crate) const BRIDGE_CAN: &str = "Holdfast-Client-Can";
/// Everything that it has declared: its `capabilities`, as JSON in ASCII.
pub(crate) const BRIDGE_CAPABILITIES: &str = "Holdfast-Client-Capabilities";
/// The level of log messages that it has set.
pub(crate) const BRIDGE_LOG_LEVEL: &str = "Holdfast-Client-Log-Level";
/// The client can send its user to a page (URL elicitation).
pub(crate) const VISIT_PAGES: &str = "elicitation-url";

/// Everything that requests of agents need.
pub(crate) struct Front {
    driver: Arc<Driver>,
    upstreams: Arc<Upstreams>,
    rules: RwLock<Arc<Rules>>,
    bridge: [u8; 32],
    sessions: Arc<session::Sessions>,
    replays: Arc<replay::Replays>,
    presence: presence::Presence,
    waiting: Arc<cancel::Waiting>,
    asks: Arc<asks::Asks>,
    hub: Arc<hub::Hub>,
    index: lists::Index,
    parked: relay::Parked,
    catalogue: tools::Catalogue,
    seal: state::Seal,
    /// Where people open the inbox, without the last slash.
    inbox: String,
    stop: CancellationToken,
}

/// Who is let in, and with what: as the configuration in force says.
struct Rules {
    guard: Guard,
    agents: Vec<(String, [u8; 32])>,
    max_body: u64,
    max_depth: usize,
    keep_answers_ms: u64,
}

impl Rules {
    fn of(config: &Config) -> Arc<Self> {
        let tokens = if config.agents.is_empty() { Tokens::None } else { Tokens::Required };
        Arc::new(Self {
            guard: Guard::new(config.listen.mcp, tokens),
            agents: config.agents.iter().map(|agent| (agent.name.clone(), agent.token_sha256)).collect(),
            max_body: config.intake.max_body,
            max_depth: config.intake.max_depth,
            keep_answers_ms: config.store.keep_answers_ms,
        })
    }
}

/// What belongs to one `serve` and is in no configuration.
pub(crate) struct Surroundings<'a> {
    /// The secret in the address file.
    pub(crate) bridge_token: &'a str,
    /// The key that is kept beside the journal.
    pub(crate) state_key: &'a str,
    /// Where people open the inbox, without the last slash.
    pub(crate) inbox: &'a str,
}

impl Front {
    /// The front for `config`, with the sessions that it left. `stop` ends notification streams.
    ///
    /// # Errors
    /// Where the journal cannot be used.
    pub(crate) fn new(
        config: &Config,
        driver: Arc<Driver>,
        upstreams: Arc<Upstreams>,
        surroundings: &Surroundings<'_>,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, JournalError> {
        let sessions = session::Sessions::restore(driver.journal().clone(), now())?;
        let asks = Arc::<asks::Asks>::default();
        let hub = hub::Hub::new(asks.clone());
        let audience: Weak<hub::Hub> = Arc::downgrade(&hub);
        for (channel, guest) in sessions.all() {
            guest.log_level.iter().for_each(|level| hub.set_level(&channel, level));
            for (server, uri) in &guest.subscribed {
                hub.subscribe(&channel, server, uri);
            }
        }
        upstreams.heard_by(audience);
        let rules = Rules::of(config);
        hub.only(&rules.agents);
        Ok(Arc::new(Self {
            driver,
            upstreams,
            rules: RwLock::new(rules),
            bridge: Sha256::digest(surroundings.bridge_token).into(),
            sessions: Arc::new(sessions),
            replays: Arc::default(),
            presence: presence::Presence::default(),
            waiting: Arc::default(),
            hub,
            asks,
            index: lists::Index::default(),
            parked: relay::Parked::default(),
            catalogue: tools::Catalogue::default(),
            seal: state::Seal::new(surroundings.state_key.as_bytes()),
            inbox: surroundings.inbox.to_owned(),
            stop,
        }))
    }

    /// What is left to be written once nobody is served any more.
    pub(crate) async fn close(&self) {
        if let Err(error) = self.sessions.write_all().await {
            tracing::warn!(%error, "the last uses of sessions were not written");
        }
    }

    /// From now on `config` says who is let in. Requests that are in go on.
    pub(crate) fn reconfigure(&self, config: &Config) {
        let rules = Rules::of(config);
        self.hub.only(&rules.agents);
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    fn rules(&self) -> Arc<Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn connection_opened(&self, link: &Arc<listen::Link>) {
        let peer: Arc<dyn Peer> = link.clone();
        self.driver.connection_opened(link.number, &peer);
    }

    /// A channel is gone.
    fn left(&self, channel: &str) {
        self.driver.channel_gone(channel);
        // What a session has subscribed to outlives its streams, not the session.
        if !channel.starts_with("session:") || !self.sessions.is_there(channel) {
            self.replays.forget(channel);
            self.asks.forget(channel);
            rpc::leave(self, channel);
        }
    }

    fn connection_closed(&self, link: &listen::Link) {
        self.driver.connection_gone(link.number);
        for channel in link.take_channels() {
            if self.presence.leave(&channel) {
                self.left(&channel);
            }
        }
    }
}
