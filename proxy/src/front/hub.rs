//! Who listens to announcements, and what each of them hears of what servers say of their own accord.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use holdfast_store::Caller;
use serde_json::Value;
use tokio::sync::mpsc;

use super::{
    asks::{self, Asks},
    levels,
    splice::set_member,
};
use crate::{
    upstream::{Audience, Client, Origin, Question, Remark, Sharer, Standing},
    wire,
};

/// How long a client may take for what a server asks outside of any request.
const ASK_LIMIT: Duration = Duration::from_secs(10 * 60);
/// Announcements that a slow reader may be behind; more are dropped, because each says only that something changed.
const BACKLOG: usize = 1_024;

pub(super) const PROMPTS_CHANGED: &str = "notifications/prompts/list_changed";
pub(super) const RESOURCES_CHANGED: &str = "notifications/resources/list_changed";
const TOOLS_CHANGED: &str = "notifications/tools/list_changed";
const RESOURCE_UPDATED: &str = "notifications/resources/updated";

/// What a listener wants to hear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wants {
    pub(super) prompts: bool,
    pub(super) resources: bool,
    /// Everything else that a server says, as legacy clients hear it.
    pub(super) remarks: bool,
    /// The id of the subscription that all of it belongs to (2026-07-28), a JSON text.
    pub(super) subscription: Option<String>,
}

/// A stream of announcements that is open.
struct Listener {
    caller: Caller,
    client: Arc<Client>,
    wants: Wants,
    /// Resources by server, as their servers name them.
    updates: BTreeSet<(String, String)>,
    tell: mpsc::Sender<String>,
}

/// All listeners.
pub(super) struct Hub {
    asks: Arc<Asks>,
    listeners: Mutex<HashMap<u64, Listener>>,
    /// What legacy clients have subscribed to, by channel: it outlives their streams.
    subscribed: Mutex<HashMap<String, BTreeSet<(String, String)>>>,
    /// The levels that the clients of bridges have set.
    levels: Mutex<HashMap<String, String>>,
    least: Mutex<Option<String>>,
    numbers: AtomicU64,
    /// How many agents there can be.
    agents: AtomicUsize,
}

/// A place among the listeners, until it is dropped.
pub(super) struct Place {
    hub: Weak<Hub>,
    number: u64,
    /// Messages for this listener.
    pub(super) heard: mpsc::Receiver<String>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(hub) = self.hub.upgrade() {
            hub.listeners().remove(&self.number);
        }
    }
}

impl Hub {
    pub(super) fn new(asks: Arc<Asks>) -> Arc<Self> {
        Arc::new(Self {
            asks,
            listeners: Mutex::default(),
            subscribed: Mutex::default(),
            levels: Mutex::default(),
            least: Mutex::default(),
            numbers: AtomicU64::new(0),
            agents: AtomicUsize::new(0),
        })
    }

    /// Listens from now on.
    pub(super) fn listen(
        self: &Arc<Self>,
        caller: &Caller,
        client: &Arc<Client>,
        wants: Wants,
        updates: BTreeSet<(String, String)>,
    ) -> Place {
        let (tell, heard) = mpsc::channel(BACKLOG);
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let listener = Listener { caller: caller.clone(), client: client.clone(), wants, updates, tell };
        self.listeners().insert(number, listener);
        Place { hub: Arc::downgrade(self), number, heard }
    }

    /// From now on these are the agents, all of them where there are none: others hear nothing more.
    pub(super) fn only(&self, agents: &[(String, [u8; 32])]) {
        self.agents.store(agents.len(), Ordering::Relaxed);
        if !agents.is_empty() {
            let known = |caller: &Caller| agents.iter().any(|(name, _)| *name == caller.principal);
            self.listeners().retain(|_, listener| known(&listener.caller));
        }
    }

    /// The client of this channel wants to hear of updates. True where it is the first of all to want these.
    pub(super) fn subscribe(&self, channel: &str, server: &str, uri: &str) -> bool {
        let one = (server.to_owned(), uri.to_owned());
        let mut subscribed = lock(&self.subscribed);
        let first = !subscribed.values().any(|uris| uris.contains(&one));
        subscribed.entry(channel.to_owned()).or_default().insert(one);
        first
    }

    /// How many resources the client of this channel follows.
    pub(super) fn count(&self, channel: &str) -> usize {
        lock(&self.subscribed).get(channel).map_or(0, BTreeSet::len)
    }

    /// It does not any more. True where nobody is left who does.
    pub(super) fn unsubscribe(&self, channel: &str, server: &str, uri: &str) -> bool {
        let one = (server.to_owned(), uri.to_owned());
        let mut subscribed = lock(&self.subscribed);
        if let Some(uris) = subscribed.get_mut(channel) {
            uris.remove(&one);
            if uris.is_empty() {
                subscribed.remove(channel);
            }
        }
        !subscribed.values().any(|uris| uris.contains(&one))
    }

    /// The channel is gone; gives what it had subscribed to.
    pub(super) fn forget(&self, channel: &str) -> BTreeSet<(String, String)> {
        lock(&self.levels).remove(channel);
        lock(&self.subscribed).remove(channel).unwrap_or_default()
    }

    /// All resources of a server whose updates anybody wants.
    pub(super) fn wanted_of(&self, server: &str) -> BTreeSet<String> {
        let subscribed = lock(&self.subscribed);
        let all = subscribed.values().flatten().filter(|(other, _)| other == server);
        all.map(|(_, uri)| uri.clone()).collect()
    }

    /// The client of this channel has set its level.
    pub(super) fn set_level(&self, channel: &str, level: &str) {
        lock(&self.levels).insert(channel.to_owned(), level.to_owned());
        self.most_talkative(level);
    }

    /// The most talkative level that any client has set, this one included.
    pub(super) fn most_talkative(&self, level: &str) -> String {
        let mut least = lock(&self.least);
        let talks_more = |known: &String| levels::rank(known) > levels::rank(level);
        if least.as_ref().is_none_or(talks_more) {
            *least = Some(level.to_owned());
        }
        least.clone().unwrap_or_default()
    }

    /// The level that the client behind a bridge has set.
    pub(super) fn level(&self, channel: &str) -> Option<String> {
        lock(&self.levels).get(channel).cloned()
    }

    fn listeners(&self) -> MutexGuard<'_, HashMap<u64, Listener>> {
        lock(&self.listeners)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Listener {
    fn may_hear(&self, origin: &Origin) -> bool {
        match &origin.sharer {
            Sharer::All => true,
            Sharer::Channel(channel) => *self.caller.channel == **channel,
            Sharer::Principal(principal) => *self.caller.principal == **principal,
        }
    }

    fn wants(&self, hub: &Hub, origin: &Origin, remark: &Remark) -> bool {
        match remark.method.as_str() {
            // That list is announced when it has been read anew.
            TOOLS_CHANGED => false,
            PROMPTS_CHANGED => self.wants.prompts,
            RESOURCES_CHANGED => self.wants.resources,
            RESOURCE_UPDATED => {
                let uri = remark.params.as_ref().map(|params| params.value()["uri"].clone());
                let Some(uri) = uri.as_ref().and_then(Value::as_str) else { return false };
                let one = (origin.server.to_string(), uri.to_owned());
                let by_channel = self.wants.subscription.is_none()
                    && lock(&hub.subscribed)
                        .get(&self.caller.channel)
                        .is_some_and(|uris| uris.contains(&one));
                by_channel || self.updates.contains(&one)
            }
            _ => self.wants.remarks && levels::is_wanted(&self.client, remark),
        }
    }

    fn message(&self, remark: &Remark) -> String {
        let params = remark.params.as_deref().unwrap_or("{}");
        match &self.wants.subscription {
            None => wire::notification(&remark.method, params),
            Some(id) => {
                let meta = format!(r#"{{"io.modelcontextprotocol/subscriptionId":{id}}}"#);
                wire::notification(&remark.method, &set_member(params, "_meta", &meta))
            }
        }
    }
}

impl Audience for Hub {
    fn remarked(&self, origin: &Origin, remark: &Remark) {
        for listener in self.listeners().values() {
            if listener.may_hear(origin) && listener.wants(self, origin, remark) {
                listener.tell.try_send(listener.message(remark)).ok();
            }
        }
    }

    fn standing(&self, origin: &Origin) -> Standing {
        Standing { level: lock(&self.least).clone(), resources: self.wanted_of(&origin.server) }
    }

    /// Asked outside of any request: there must be one client, and no more, that this can be meant for.
    fn asked(&self, origin: &Origin, question: Arc<Question>) {
        let listeners = self.listeners();
        let mut fit: HashMap<&str, &Listener> = HashMap::new();
        for listener in listeners.values() {
            if listener.wants.remarks
                && listener.may_hear(origin)
                && asks::unfit(&listener.client, &question).is_none()
            {
                fit.insert(&listener.caller.channel, listener);
            }
        }
        let mut fit = fit.into_values();
        // Agents that have no stream open are not to be seen here.
        let many = origin.sharer == Sharer::All && self.agents.load(Ordering::Relaxed) > 1;
        let why = match (fit.next().filter(|_| !many), fit.next()) {
            (Some(listener), None) => {
                let put = self.asks.put(&listener.caller.channel, &question);
                let told = put.messages.iter().all(|message| listener.tell.try_send(message.clone()).is_ok());
                drop(fit);
                drop(listeners);
                let limit = if told { ASK_LIMIT } else { Duration::ZERO };
                tokio::spawn(async move {
                    tokio::time::timeout(limit, put.question.closed.cancelled()).await.ok();
                    let why = "the client did not answer in time";
                    put.question.refuse(&wire::error_member(wire::INTERNAL_ERROR, why, None));
                    put.take_back();
                });
                return;
            }
            (None, _) if many => {
                "several agents share this server, and nothing says which of them this is for; `share = \"session\"` in \
                 its configuration gives each agent its own"
            }
            (None, _) => "no agent is connected whose client could answer this",
            (Some(_), Some(_)) => {
                "several agents are connected, and nothing says which of them this is for; `share = \"session\"` in the \
                 configuration of this server gives each agent its own"
            }
        };
        drop(fit);
        drop(listeners);
        question.refuse(&wire::error_member(wire::METHOD_NOT_FOUND, why, None));
    }
}

#[cfg(test)]
mod tests {
    use holdfast_store::Text;
    use serde_json::json;

    use super::*;
    use crate::upstream::Speaks;

    fn hub() -> Arc<Hub> {
        Hub::new(Arc::default())
    }

    fn caller(channel: &str) -> Caller {
        Caller { principal: "local".into(), channel: channel.into(), client: String::new() }
    }

    fn client(capabilities: &Value) -> Arc<Client> {
        Arc::new(Client { speaks: Speaks::Legacy, capabilities: Text::of(capabilities), log_level: None })
    }

    fn of_all() -> Origin {
        Origin { server: "s".into(), sharer: Sharer::All }
    }

    fn remark(method: &str, params: &Value) -> Remark {
        Remark { method: method.into(), params: Some(Text::of(params)) }
    }

    fn everything() -> Wants {
        Wants { prompts: true, resources: true, remarks: true, subscription: None }
    }

    #[test]
    fn updates_reach_those_who_subscribed() {
        let hub = hub();
        let listen =
            |channel: &str| hub.listen(&caller(channel), &client(&json!({})), everything(), BTreeSet::new());
        let (mut a, mut b) = (listen("a"), listen("b"));
        assert!(hub.subscribe("a", "s", "x:1"));
        assert!(!hub.subscribe("b", "s", "x:1"));
        assert!(!hub.unsubscribe("b", "s", "x:1"));
        hub.remarked(&of_all(), &remark(RESOURCE_UPDATED, &json!({ "uri": "x:1" })));
        hub.remarked(&of_all(), &remark(RESOURCE_UPDATED, &json!({ "uri": "x:2" })));
        assert!(a.heard.try_recv().expect("one").contains("x:1"));
        assert!(a.heard.try_recv().is_err() && b.heard.try_recv().is_err());
        assert_eq!(hub.forget("a").len(), 1);
        assert!(hub.wanted_of("s").is_empty());
    }

    #[test]
    fn a_subscription_names_itself() {
        let hub = hub();
        let wants = Wants { prompts: true, subscription: Some("\"7\"".into()), ..Wants::default() };
        let mut place = hub.listen(&caller("a"), &client(&json!({})), wants, BTreeSet::new());
        hub.remarked(&of_all(), &remark(RESOURCES_CHANGED, &json!({})));
        hub.remarked(&of_all(), &remark("notifications/x", &json!({})));
        hub.remarked(&of_all(), &remark(PROMPTS_CHANGED, &json!({ "_meta": { "a": 1 }, "b": 2 })));
        assert_eq!(
            place.heard.try_recv().expect("one"),
            r#"{"jsonrpc":"2.0","method":"notifications/prompts/list_changed","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":"7"},"b":2}}"#
        );
        assert!(place.heard.try_recv().is_err());
        drop(place);
        assert!(hub.listeners().is_empty());
    }

    #[test]
    fn what_is_one_agents_is_heard_by_that_one() {
        let hub = hub();
        let listen =
            |channel: &str| hub.listen(&caller(channel), &client(&json!({})), everything(), BTreeSet::new());
        let (mut a, mut b) = (listen("a"), listen("b"));
        let origin = Origin { server: "s".into(), sharer: Sharer::Channel("b".into()) };
        hub.remarked(&origin, &remark("notifications/x", &json!({})));
        assert!(a.heard.try_recv().is_err());
        assert!(b.heard.try_recv().is_ok());
    }
}
