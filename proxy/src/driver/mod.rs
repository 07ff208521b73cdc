//! The only place where engine and tokio meet: requests become calls, and calls are driven by tasks of their own.
//!
//! A request's connection only waits. Claiming, dispatching and answering happen in a task that no disconnect ends.

mod accept;
mod admit;
mod asking;
mod check;
mod classify;
mod decide;
mod edit;
mod join;
mod journaling;
mod keys;
mod live;
mod plans;
mod preview;
mod recover;
mod register;
mod reissue;
mod remember;
mod slots;
mod task;
mod ticket;
mod words;

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, Weak},
    time::{Duration, Instant},
};

use holdfast_policy::Trust;
use holdfast_store::{Call, CallId, Caller, Hash32, Journal, KeyFate, Millis, State, engine::Now};
use serde_json::{Map, Value};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use decide::DecideError;
pub(crate) use journaling::{now, read};
pub(crate) use live::Progress;
pub(crate) use register::Known;
pub(crate) use reissue::Evidence;
pub(crate) use remember::Wish;
pub(crate) use ticket::{Body, HoldWait, News, Receipt, Reply, Ticket};
pub(crate) use words::has_reply;

use crate::{
    answers::Answers,
    config::{self, Config, Current, ServerConfig},
    upstream::{Client, Fate, Signal, Upstreams},
};
use classify::Transport;
use live::Live;
use plans::Plans;
use reissue::{From, Reissues};
use slots::{Breaker, Slots};

/// A `tools/call` as the front has read it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Who asks.
    pub(crate) caller: Caller,
    /// The number of the connection it came by.
    pub(crate) connection: u64,
    /// The server's name.
    pub(crate) server: String,
    /// The server's own name of the tool.
    pub(crate) tool: String,
    /// An object, parsed strictly.
    pub(crate) arguments: Value,
    /// The members of the request's `params` that nobody but its server knows.
    pub(crate) extra: Map<String, Value>,
    /// The request's `_meta`, as it came.
    pub(crate) meta: Map<String, Value>,
    /// The bridge's name for this request.
    pub(crate) transport_key: Option<String>,
    /// The agent's key.
    pub(crate) explicit_key: Option<String>,
    /// The agent's task.
    pub(crate) run: Option<String>,
    /// The life of the agent within its task.
    pub(crate) incarnation: Option<String>,
    /// Whether progress is wanted.
    pub(crate) progress: Progress,
    /// What the agent's client can do.
    pub(crate) client: Arc<Client>,
}

/// Drives all calls. See the module's text.
pub(crate) struct Driver {
    config: Arc<Current>,
    journal: Arc<dyn Journal>,
    answers: Arc<Answers>,
    upstreams: Arc<Upstreams>,
    live: Mutex<HashMap<CallId, Arc<Live>>>,
    reissues: Mutex<Reissues>,
    peers: Mutex<HashMap<u64, Weak<dyn Peer>>>,
    slots: Slots,
    breakers: Mutex<HashMap<String, (config::Breaker, Arc<Breaker>)>>,
    /// Held while rules and servers change: whoever judges sees both as they were, or both as they are.
    turning: RwLock<()>,
    registrar: register::Registrar,
    plans: Arc<Plans>,
    /// Dispatches that are being recorded.
    dispatching: TaskTracker,
    /// No new calls are taken, and nothing more is dispatched.
    closing: CancellationToken,
    /// All tasks end where they are.
    stopped: CancellationToken,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

impl Driver {
    /// A driver over an open journal. Nothing runs before [`Driver::recover`].
    pub(crate) fn new(
        config: Arc<Current>,
        journal: Arc<dyn Journal>,
        upstreams: Arc<Upstreams>,
    ) -> Arc<Self> {
        Arc::new(Self {
            breakers: Mutex::default(),
            turning: RwLock::default(),
            answers: Arc::new(Answers::new(journal.clone(), &config.get().store.place)),
            config,
            journal,
            upstreams,
            live: Mutex::default(),
            reissues: Mutex::default(),
            peers: Mutex::default(),
            slots: Slots::default(),
            registrar: register::Registrar::default(),
            plans: Arc::default(),
            dispatching: TaskTracker::new(),
            closing: CancellationToken::new(),
            stopped: CancellationToken::new(),
        })
    }

    /// The journal.
    pub(crate) fn journal(&self) -> &Arc<dyn Journal> {
        &self.journal
    }

    /// Answers that are too large for the journal.
    pub(crate) fn answers(&self) -> &Arc<Answers> {
        &self.answers
    }

    /// The servers.
    pub(crate) fn upstreams(&self) -> &Arc<Upstreams> {
        &self.upstreams
    }

    /// A message arrived, which may show that earlier answers were heard. To be called before it is handled.
    pub(crate) fn seen(&self, connection: u64, channel: &str, evidence: Evidence) {
        self.reissues().seen(now(), &from(connection, channel), evidence);
    }

    /// A channel ended: what it has not heard may be asked for by another one.
    pub(crate) fn channel_gone(&self, channel: &str) {
        self.reissues().channel_gone(channel);
        if let Some(bridge) = bridge(channel) {
            self.reissues().connection_gone(now(), bridge);
        }
    }

    /// A connection was accepted.
    pub(crate) fn connection_opened(&self, connection: u64, peer: &Arc<dyn Peer>) {
        self.peers().insert(connection, Arc::downgrade(peer));
    }

    /// A connection ended.
    pub(crate) fn connection_gone(&self, connection: u64) {
        self.peers().remove(&connection);
        self.reissues().connection_gone(now(), connection);
    }

    /// Takes no more calls, waits until those in flight have ended or `limit` is over, and leaves the rest as the
    /// journal has them. Returns how many are left.
    pub(crate) async fn stop(&self, limit: Duration) -> usize {
        self.closing.cancel();
        let end = Instant::now() + limit;
        loop {
            // First, because what was being recorded is in flight afterwards.
            let recording = self.dispatching.len();
            let lives = self.lives();
            let in_flight = |live: &&Arc<Live>| live.with(|shared| shared.call.state == State::InFlight);
            let (count, over) = (recording + lives.iter().filter(in_flight).count(), Instant::now() >= end);
            if count == 0 || over {
                self.stopped.cancel();
                return count;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn find(&self, call: CallId) -> Option<Arc<Live>> {
        self.live_map().get(&call).cloned()
    }

    fn lives(&self) -> Vec<Arc<Live>> {
        self.live_map().values().cloned().collect()
    }

    fn live_map(&self) -> MutexGuard<'_, HashMap<CallId, Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reissues(&self) -> MutexGuard<'_, Reissues> {
        self.reissues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn peers(&self) -> MutexGuard<'_, HashMap<u64, Weak<dyn Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the other end of a connection has closed it, noticed or not. Bridges are told of by their channel.
    fn hung_up(&self, connection: u64) -> bool {
        if connection & BRIDGE != 0 {
            return false;
        }
        let peer = self.peers().get(&connection).and_then(Weak::upgrade);
        peer.is_none_or(|peer| peer.hung_up())
    }

    fn moment(&self) -> Now {
        Now { at: now(), dice: rand::random() }
    }

    /// Puts `config` in force: new calls are judged by it, held ones again at their dispatch. Says what became of which
    /// server.
    pub(crate) fn reconfigure(&self, config: Config) -> Vec<(String, Fate)> {
        let turning = self.turning.write().unwrap_or_else(PoisonError::into_inner);
        let fates = self.upstreams.replace(&config.servers);
        self.config.replace(config);
        drop(turning);
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        // What was known of them is about others.
        let anew = fates.iter().filter(|(_, fate)| *fate != Fate::Adjusted);
        anew.for_each(|(server, _)| drop(breakers.remove(server)));
        drop(breakers);
        fates
    }

    /// Nothing of the configuration changes while this is held.
    fn steady(&self) -> RwLockReadGuard<'_, ()> {
        self.turning.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The configuration in force.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.get()
    }

    fn breaker(&self, server: &ServerConfig) -> Arc<Breaker> {
        let settings = server.breaker;
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        match breakers.get(&server.name) {
            Some((known, breaker)) if *known == settings => breaker.clone(),
            _ => {
                let [window, open] = [settings.window_ms, settings.open_ms].map(Duration::from_millis);
                let breaker = Arc::new(Breaker::new(settings.failures, window, open));
                breakers.insert(server.name.clone(), (settings, breaker.clone()));
                breaker
            }
        }
    }

    fn note_transport(&self, server: &ServerConfig, signal: &Signal) {
        match classify::transport(signal) {
            Some(Transport::Works) => self.breaker(server).succeeded(),
            Some(Transport::Failed) => self.breaker(server).failed(Instant::now()),
            None => {}
        }
    }

    /// A call is done durably; its waiters have not been told yet.
    fn settled(&self, at: Millis, live: &Live, keys: KeyFate) {
        let Some(hash) = live.origin else { return };
        let mut reissues = self.reissues();
        match keys {
            // A fresh try is what the next identical request is meant to be.
            KeyFate::Release => reissues.remove(hash, live.id),
            KeyFate::Keep => reissues.settled(at, hash, live.id),
        }
    }

    /// A call's task has ended.
    fn ended(&self, live: &Live) {
        self.live_map().remove(&live.id);
    }

    fn forget_origin(&self, call: &Call) {
        if let Some(hash) = accept::origin_of(call) {
            self.reissues().remove(hash, call.id);
        }
    }

    /// A reply was handed to its socket whole.
    fn answer_written(self: &Arc<Self>, hash: Hash32, call: CallId, from: &From) {
        let first = self.reissues().written(now(), hash, call, from);
        if first == reissue::Collection::FirstOfHold {
            let caller =
                Caller { principal: String::new(), channel: from.channel.clone(), client: String::new() };
            let entry = holdfast_store::Entry::Collected { caller };
            tokio::spawn(self.clone().record_late(call, entry));
        }
    }

    /// A reply did not get out.
    fn answer_not_written(&self, hash: Hash32, call: CallId, from: &From) {
        self.reissues().left(hash, call, from.connection);
    }
}

/// The other end of a connection.
pub(crate) trait Peer: Send + Sync {
    /// Whether it has closed the connection: as the kernel knows it, which is before the task of the connection does.
    fn hung_up(&self) -> bool;
}

/// Marks the numbers of bridges among those of connections.
const BRIDGE: u64 = 1 << 63;

/// A bridge uses several connections and re-sends what it got no answer to: to us it is one that never loses anything.
fn bridge(channel: &str) -> Option<u64> {
    let instance = channel.strip_prefix("bridge:")?;
    let mut hasher = std::hash::DefaultHasher::new();
    instance.hash(&mut hasher);
    Some(hasher.finish() | BRIDGE)
}

fn from(connection: u64, channel: &str) -> From {
    From { connection: bridge(channel).unwrap_or(connection), channel: channel.to_owned() }
}

/// Whether a server's hints count.
fn trust(server: &ServerConfig) -> Trust {
    if server.trust_annotations { Trust::Annotations } else { Trust::Nothing }
}

#[cfg(test)]
mod tests;
