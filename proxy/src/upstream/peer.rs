//! The client side of JSON-RPC: who waits for which, and what a server's messages mean for them.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use holdfast_store::{Caller, Loss, Text};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::Notify;

use super::{
    Ask, Audiences, Origin, Question, Remark, Said, Signal, Wanted, Way, id::RequestId, outcome::outcome,
};
use crate::wire::{self, Envelope};

/// Who hears what a request brings. Called from the task that reads the connection: it must not block.
pub(super) type Listener = Arc<dyn Fn(Signal) + Send + Sync>;

/// Answered and lost requests that are remembered, so that a late or a second answer still finds its listener.
const REMEMBERED: usize = 256;
/// Withdrawn requests that are kept waiting: servers need not answer those, so they would pile up.
const WITHDRAWN: usize = 1024;

/// What a request is for: only those of agents keep an otherwise idle server alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// On behalf of this agent.
    Agent(Agent),
    Housekeeping,
}

/// An agent, as far as it matters whose request is whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Agent {
    pub(super) principal: Arc<str>,
    pub(super) channel: Arc<str>,
}

impl Agent {
    pub(super) fn of(caller: &Caller) -> Self {
        Self { principal: caller.principal.as_str().into(), channel: caller.channel.as_str().into() }
    }
}

/// The requests of one connection, in both directions.
pub(super) struct Peer {
    origin: Origin,
    table: Mutex<Table>,
    /// Woken by `notifications/tools/list_changed`.
    pub(super) list_changed: Notify,
    audiences: Audiences,
    /// Sends a message that answers a question of the server.
    say: OnceLock<Box<dyn Fn(String) + Send + Sync>>,
    in_garbage: AtomicBool,
    heard: AtomicU64,
}

struct Waiting {
    listener: Listener,
    purpose: Purpose,
    /// Grows with each request.
    order: u64,
}

#[derive(Default)]
struct Table {
    waiting: HashMap<RequestId, Waiting>,
    settled: VecDeque<(RequestId, Listener)>,
    withdrawn: VecDeque<RequestId>,
    /// What the server asks, by the text of its ids.
    asked: HashMap<String, Weak<Question>>,
    registered: u64,
    closed: bool,
}

/// To whom something belongs that a server says of its own accord.
enum Owner {
    Request(RequestId, Listener),
    /// Nothing of any agent is under way.
    Nobody,
    /// Requests of several agents are.
    Unclear,
}

impl Peer {
    pub(super) fn new(origin: Origin, audiences: Audiences) -> Self {
        Self {
            origin,
            table: Mutex::default(),
            list_changed: Notify::new(),
            audiences,
            say: OnceLock::new(),
            in_garbage: AtomicBool::new(false),
            heard: AtomicU64::new(0),
        }
    }

    pub(super) fn server(&self) -> &Arc<str> {
        &self.origin.server
    }

    /// The way for answers to what the server asks; without one they are dropped.
    pub(super) fn answers_by(&self, say: Box<dyn Fn(String) + Send + Sync>) {
        // Whoever was first stays.
        let _ = self.say.set(say);
    }

    /// Must come before the request's first byte leaves. False once the connection is over.
    pub(super) fn register(&self, id: RequestId, listener: Listener, purpose: Purpose) -> bool {
        let mut table = self.table();
        if !table.closed {
            table.registered += 1;
            let order = table.registered;
            table.waiting.insert(id, Waiting { listener, purpose, order });
        }
        !table.closed
    }

    pub(super) fn is_waiting(&self, id: RequestId) -> bool {
        self.table().waiting.contains_key(&id)
    }

    /// Requests of agents that wait for their answers.
    pub(super) fn calls(&self) -> usize {
        self.table().waiting.values().filter(|waiting| waiting.purpose != Purpose::Housekeeping).count()
    }

    /// Calls whose answers somebody insists on: effects, for as long as an answer could still settle what they did.
    pub(super) fn insisted(&self) -> usize {
        let table = self.table();
        let is_call = |waiting: &Waiting| waiting.purpose != Purpose::Housekeeping;
        table.waiting.iter().filter(|(id, one)| is_call(one) && !table.withdrawn.contains(id)).count()
    }

    /// Whether the server waits for the answer to any question.
    pub(super) fn is_asked(&self) -> bool {
        let open = |question: &Weak<Question>| question.upgrade().is_some_and(|question| question.is_open());
        self.table().asked.values().any(open)
    }

    /// How many messages came.
    pub(super) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// Notes that nobody insists on this answer any more. False if it is not awaited.
    pub(super) fn withdraw(&self, id: RequestId) -> bool {
        let mut table = self.table();
        if !table.waiting.contains_key(&id) {
            return false;
        }
        if !table.withdrawn.contains(&id) {
            table.withdrawn.push_back(id);
        }
        while table.withdrawn.len() > WITHDRAWN {
            if let Some(oldest) = table.withdrawn.pop_front() {
                table.waiting.remove(&oldest);
            }
        }
        true
    }

    /// Ends the wait for `id` with `signal`; a later answer is passed on all the same.
    pub(super) fn settle(&self, id: RequestId, signal: Signal) {
        let listener = {
            let mut table = self.table();
            let Some(Waiting { listener, .. }) = table.waiting.remove(&id) else { return };
            table.remember(id, listener.clone());
            listener
        };
        listener(signal);
    }

    /// Nothing more will be read: whatever waits is lost.
    pub(super) fn close(&self, cause: &str) {
        let (lost, asked) = {
            let mut table = self.table();
            table.closed = true;
            table.settled.clear();
            (std::mem::take(&mut table.waiting), std::mem::take(&mut table.asked))
        };
        for question in asked.into_values().filter_map(|question| question.upgrade()) {
            question.take_back();
        }
        for waiting in lost.into_values() {
            (waiting.listener)(Signal::Lost(Loss::Disconnected, cause.to_owned()));
        }
    }

    /// Takes in one message, or a batch, and returns what is to be replied at once. `stream` is the request on whose
    /// stream it came, where there is such a thing.
    pub(super) fn incoming(self: &Arc<Self>, text: &str, stream: Option<RequestId>) -> Vec<String> {
        self.heard.fetch_add(1, Ordering::Relaxed);
        let mut replies = Vec::new();
        if text.trim_start().starts_with('[')
            && let Ok(batch) = serde_json::from_str::<Vec<&RawValue>>(text)
        {
            batch.into_iter().for_each(|message| replies.extend(self.message(message.get(), stream)));
        } else {
            replies.extend(self.message(text, stream));
        }
        replies
    }

    /// Logs what is no message: once per burst, since a server that prints to stdout prints a lot.
    pub(super) fn garbage(&self, text: &[u8]) {
        let start = String::from_utf8_lossy(&text[..text.len().min(200)]);
        if self.in_garbage.swap(true, Ordering::Relaxed) {
            tracing::debug!(target: "upstream", server = &*self.origin.server, text = %start, "skipped a line that is no message");
        } else {
            tracing::warn!(
                target: "upstream", server = &*self.origin.server, text = %start,
                "the server wrote something to stdout that is no message; it is skipped"
            );
        }
    }

    fn message(self: &Arc<Self>, text: &str, stream: Option<RequestId>) -> Option<String> {
        let Ok(message) = Envelope::read(text) else {
            self.garbage(text.as_bytes());
            return None;
        };
        match (&message.method, message.id) {
            (Some(method), Some(id)) => {
                self.in_garbage.store(false, Ordering::Relaxed);
                if method == "ping" {
                    return Some(wire::result(id.get(), "{}"));
                }
                self.asked(method, id, message.params, stream)
            }
            (Some(method), None) => {
                self.in_garbage.store(false, Ordering::Relaxed);
                self.notified(method, message.params, stream);
                None
            }
            (None, Some(id)) => {
                self.in_garbage.store(false, Ordering::Relaxed);
                self.answered(id, &message);
                None
            }
            (None, None) => {
                match message.error {
                    Some(error) => tracing::warn!(
                        target: "upstream", server = &*self.origin.server, error = error.get(),
                        "the server reported an error without saying for which request"
                    ),
                    None => self.garbage(text.as_bytes()),
                }
                None
            }
        }
    }

    fn notified(&self, method: &str, params: Option<&RawValue>, stream: Option<RequestId>) {
        match (method, params) {
            ("notifications/progress", Some(params)) => {
                #[derive(Deserialize)]
                struct Progress<'a> {
                    #[serde(borrow, rename = "progressToken")]
                    token: &'a RawValue,
                }
                let token = serde_json::from_str::<Progress<'_>>(params.get())
                    .ok()
                    .and_then(|progress| RequestId::read(progress.token.get()));
                let listener = token.and_then(|id| Some(self.table().waiting.get(&id)?.listener.clone()));
                match listener {
                    Some(listener) => listener(Signal::Progress(Text::from(params))),
                    None => {
                        tracing::debug!(target: "upstream", server = &*self.origin.server, "progress of nothing that waits")
                    }
                }
            }
            ("notifications/cancelled", params) => self.taken_back(params),
            _ => {
                if method == "notifications/tools/list_changed" {
                    self.list_changed.notify_one();
                }
                self.remarked(Remark { method: method.to_owned(), params: params.map(Text::from) }, stream);
            }
        }
    }

    /// Passes on what the server says besides: to the request it belongs to, else to everybody who may hear it.
    fn remarked(&self, remark: Remark, stream: Option<RequestId>) {
        // What changed, changed for all.
        let of_one =
            !remark.method.ends_with("/list_changed") && remark.method != "notifications/resources/updated";
        match self.owner(stream) {
            Owner::Request(_, listener) if of_one => listener(Signal::Remarked(remark)),
            _ => {
                if let Some(audience) = self.audiences.get() {
                    audience.remarked(&self.origin, &remark);
                }
            }
        }
    }

    /// The server asks something. What cannot be passed on is answered at once.
    fn asked(
        self: &Arc<Self>,
        method: &str,
        id: &RawValue,
        params: Option<&RawValue>,
        stream: Option<RequestId>,
    ) -> Option<String> {
        let refusal = |message: &str| {
            Some(wire::error(id.get(), &wire::error_member(wire::METHOD_NOT_FOUND, message, None)))
        };
        let owner = self.owner(stream);
        let audience = self.audiences.get();
        match (&owner, &audience) {
            (Owner::Unclear, _) => {
                return refusal(&format!(
                    "requests of several agents are under way, and nothing says which of them this {method} is \
                     for; `share = \"session\"` in the configuration of this server gives each agent its own"
                ));
            }
            (Owner::Nobody, None) => return refusal(&format!("nobody is here to answer {method}")),
            _ => {}
        }
        let about = if let Owner::Request(id, _) = &owner { Some(*id) } else { None };
        const ONLY: &str = "request";
        let ask = Ask { name: ONLY.to_owned(), method: method.to_owned(), params: params.map(Text::from) };
        let question = self.question(about, id.get(), vec![ask]);
        match (owner, audience) {
            (Owner::Request(_, listener), _) => listener(Signal::Asked(question)),
            (_, Some(audience)) => audience.asked(&self.origin, question),
            (_, None) => {}
        }
        None
    }

    /// Lets the owner of request `about` be asked again what the server asked by its request `id` in an earlier life.
    pub(super) fn ask_again(
        self: &Arc<Self>,
        id: &str,
        about: RequestId,
        wanted: &Wanted,
        listener: &Listener,
    ) {
        listener(Signal::Asked(self.question(Some(about), id, wanted.asks.clone())));
    }

    fn question(self: &Arc<Self>, about: Option<RequestId>, id: &str, asks: Vec<Ask>) -> Arc<Question> {
        let (peer, id) = (Arc::downgrade(self), id.to_owned());
        let key = id.clone();
        let wanted = Wanted { asks, way: Way::Response(id.clone()) };
        let question = Arc::new(Question::new(
            about,
            wanted,
            Box::new(move |answers| {
                let Some(peer) = peer.upgrade() else { return };
                peer.table().asked.remove(&id);
                // It asks one thing.
                let message = match answers.into_iter().next() {
                    Some((_, Said::Result(result))) => wire::result(&id, &result),
                    Some((_, Said::Error(error))) => wire::error(&id, &error),
                    None => {
                        let error =
                            wire::error_member(wire::INTERNAL_ERROR, "the client did not answer", None);
                        wire::error(&id, &error)
                    }
                };
                if let Some(say) = peer.say.get() {
                    say(message);
                }
            }),
        ));
        let mut table = self.table();
        // A stream that is taken up again tells once more what was asked on it.
        let open = table.asked.get(&key).and_then(Weak::upgrade);
        if let Some(open) = open.filter(|open| open.is_open() && open.number == question.number) {
            return open;
        }
        table.asked.retain(|_, question| question.strong_count() > 0);
        table.asked.insert(key, Arc::downgrade(&question));
        question
    }

    fn taken_back(&self, params: Option<&RawValue>) {
        #[derive(Deserialize)]
        struct Cancelled<'a> {
            #[serde(borrow, rename = "requestId")]
            id: &'a RawValue,
        }
        let id = params.and_then(|params| serde_json::from_str::<Cancelled<'_>>(params.get()).ok());
        let question = id.and_then(|cancelled| self.table().asked.remove(cancelled.id.get())?.upgrade());
        if let Some(question) = question {
            question.take_back();
        }
    }

    /// Whose request something belongs to that came on `stream`, or on none: then to the one agent for whom anything is
    /// under way.
    fn owner(&self, stream: Option<RequestId>) -> Owner {
        let table = self.table();
        if let Some(id) = stream {
            let settled =
                || table.settled.iter().find(|(settled, _)| *settled == id).map(|(_, listener)| listener);
            return match table.waiting.get(&id).map(|waiting| &waiting.listener).or_else(settled) {
                Some(listener) => Owner::Request(id, listener.clone()),
                None => Owner::Nobody,
            };
        }
        let mut latest: Option<(&Agent, RequestId, &Waiting)> = None;
        let mut taken_back: Option<&Agent> = None;
        for (id, waiting) in &table.waiting {
            let Purpose::Agent(agent) = &waiting.purpose else { continue };
            if table.withdrawn.contains(id) {
                taken_back = Some(agent);
                continue;
            }
            match latest {
                Some((other, ..)) if other.channel != agent.channel => return Owner::Unclear,
                Some((.., other)) if other.order > waiting.order => {}
                _ => latest = Some((agent, *id, waiting)),
            }
        }
        // A server that was told so asks no more for what was taken back; one that does all the same must not be answered
        // by somebody else's agent.
        match (latest, taken_back) {
            (Some((agent, ..)), Some(other)) if agent.principal != other.principal => Owner::Unclear,
            (Some((_, id, waiting)), _) => Owner::Request(id, waiting.listener.clone()),
            (None, _) => Owner::Nobody,
        }
    }

    fn answered(&self, raw_id: &RawValue, message: &Envelope<'_>) {
        let id = RequestId::read(raw_id.get());
        let listener = id.and_then(|id| {
            let mut table = self.table();
            match table.waiting.remove(&id) {
                Some(Waiting { listener, .. }) => {
                    table.remember(id, listener.clone());
                    Some(listener)
                }
                None => {
                    let (_, listener) = table.settled.iter().find(|(settled, _)| *settled == id)?;
                    Some(listener.clone())
                }
            }
        });
        match listener {
            Some(listener) => listener(outcome(message)),
            None => tracing::debug!(
                target: "upstream", server = &*self.origin.server, id = raw_id.get(), "an answer to nothing that was asked"
            ),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("nothing panics while it holds the table")
    }
}

impl Table {
    fn remember(&mut self, id: RequestId, listener: Listener) {
        if self.settled.len() == REMEMBERED {
            self.settled.pop_front();
        }
        self.settled.push_back((id, listener));
        if let Some(at) = self.withdrawn.iter().position(|withdrawn| *withdrawn == id) {
            self.withdrawn.remove(at);
        }
    }
}
