//! One live connection to a server, whichever transport it uses.

mod begin;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use holdfast_store::{Caller, Loss, Text};
use serde_json::Value;
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

pub(super) use self::begin::{Agreed, NotOpen, Offer};
use super::{
    Refused, Relayed, Sharer, Signal, Speaks, Standing, Unsent,
    catalog::Catalog,
    era::Era,
    id::RequestId,
    peer::{Agent, Listener, Peer, Purpose},
    pipe::Pipe,
    process::LAST_WORDS,
    relay::Parcel,
    web::{Post, Web},
};
use crate::wire;

/// Pauses before a stream for news that has ended is opened again.
pub(super) const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A connection. Cheap to clone.
#[derive(Clone)]
pub(super) struct Link {
    wire: Wire,
    /// Set when the connection is opened, and read by every request.
    era: Arc<OnceLock<Era>>,
    /// What this very process or session listed last.
    listed: Arc<RwLock<Option<Arc<Catalog>>>>,
    /// The resources whose updates a modern server is asked for.
    subscribed: Arc<watch::Sender<BTreeSet<String>>>,
}

#[derive(Clone)]
enum Wire {
    Pipe(Arc<Pipe>),
    Web(Arc<Web>),
}

/// Why one of our own requests has no result.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The server's own error.
    Refused(Refused),
    /// It was never sent.
    Unsent(Unsent),
    /// The connection ended, or what came cannot be used.
    Gone(String),
}

impl Link {
    /// Whether requests go with headers, as over HTTP.
    pub(super) fn has_headers(&self) -> bool {
        matches!(self.wire, Wire::Web(_))
    }

    pub(super) fn pipe(pipe: Arc<Pipe>) -> Self {
        Self::over_wire(Wire::Pipe(pipe))
    }

    pub(super) fn web(web: Arc<Web>) -> Self {
        Self::over_wire(Wire::Web(web))
    }

    fn over_wire(wire: Wire) -> Self {
        let subscribed = Arc::new(watch::Sender::new(BTreeSet::new()));
        Self { wire, era: Arc::default(), listed: Arc::default(), subscribed }
    }

    /// Takes up a conversation that an earlier life began, with what was agreed in it.
    pub(super) fn resume(pipe: Arc<Pipe>, agreed: &Agreed) -> Self {
        let link = Self::pipe(pipe);
        link.agree(&agreed.era);
        link
    }

    /// This was agreed on. There is one agreement for each connection.
    pub(super) fn agree(&self, era: &Era) {
        let _ = self.era.set(era.clone());
    }

    /// Lets the next life know what is agreed, where it can take this conversation up, and whose it is.
    pub(super) async fn note(&self, offer: &Offer, sharer: &Sharer, speaks: Speaks) {
        let pipe = match &self.wire {
            Wire::Pipe(pipe) => pipe,
            Wire::Web(web) => return web.note(&self.era(), offer, sharer, speaks),
        };
        let tools = {
            let listed = self.listed.read().unwrap_or_else(PoisonError::into_inner);
            listed.iter().flat_map(|listed| &*listed.tools).map(|tool| tool.definition.clone()).collect()
        };
        let agreed = Agreed { era: self.era(), offer: offer.clone(), tools };
        match serde_json::to_value(agreed) {
            Ok(note) => pipe.note(note).await,
            Err(error) => tracing::warn!(target: "upstream", %error, "what is agreed cannot be kept"),
        }
    }

    /// Waits for what a request of an earlier life brings.
    pub(super) fn await_again(&self, id: RequestId, caller: &Caller, listener: Listener) {
        let purpose = Purpose::Agent(Agent::of(caller));
        if !self.peer().register(id, listener.clone(), purpose) {
            listener(Signal::Lost(Loss::Disconnected, self.cause()));
        }
    }

    /// Asks for the answer to a request of an earlier life, from what comes after this event on.
    pub(super) fn take_up(&self, id: RequestId, caller: &Caller, listener: Listener, event: &str) {
        self.await_again(id, caller, listener);
        if let Wire::Web(web) = &self.wire {
            web.take_up(id, event, self.era());
        }
    }

    /// This process or session listed these tools.
    pub(super) fn lists(&self, catalog: Arc<Catalog>) {
        *self.listed.write().unwrap_or_else(PoisonError::into_inner) = Some(catalog);
    }

    /// Hash of a tool's definition as this process or session gave it; none where it gave none.
    pub(super) fn definition(&self, tool: &str) -> Option<Arc<str>> {
        let listed = self.listed.read().unwrap_or_else(PoisonError::into_inner);
        Some(listed.as_ref()?.tool(tool)?.hash.clone())
    }

    /// Keeps a way open for what the server announces, for as long as the connection lives.
    pub(super) async fn listen(self, offer: Offer) {
        if self.era() != Era::Modern {
            if let Wire::Web(web) = &self.wire {
                web.clone().listen(self.era()).await;
            }
            return;
        }
        let mut subscribed = self.subscribed.subscribe();
        let mut pause = SHORTEST_PAUSE;
        while !self.over().is_cancelled() {
            let wanted = offer.wanted(&subscribed.borrow_and_update());
            let Some(wanted) = wanted else {
                tokio::select! {
                    _ = subscribed.changed() => continue,
                    () = self.over().cancelled() => return,
                }
            };
            let opened = Instant::now();
            tokio::select! {
                listened = self.request("subscriptions/listen", &wanted) => {
                    if matches!(listened, Err(NoAnswer::Refused(_))) {
                        // Perhaps it takes another selection.
                        tokio::select! {
                            _ = subscribed.changed() => continue,
                            () = self.over().cancelled() => return,
                        }
                    }
                }
                // By HTTP the end of the stream ends the subscription; by stdio the new one takes its place.
                _ = subscribed.changed() => continue,
            }
            // The stream had an end, and what was said since then is lost.
            self.peer().list_changed.notify_one();
            pause =
                if opened.elapsed() > LONGEST_PAUSE { SHORTEST_PAUSE } else { LONGEST_PAUSE.min(pause * 2) };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.over().cancelled() => {}
            }
        }
    }

    /// Tells a new connection what an earlier one was told.
    pub(super) async fn restore(self, offer: Offer, standing: Standing) {
        if self.era() == Era::Modern {
            return self.subscribe_to(standing.resources);
        }
        let capabilities = &offer.about["capabilities"];
        if let Some(level) = standing.level.filter(|_| capabilities["logging"].is_object()) {
            self.request("logging/setLevel", &format!(r#""level":{}"#, Value::from(level))).await.ok();
        }
        for uri in standing.resources {
            let members = format!(r#""uri":{}"#, Value::from(uri.as_str()));
            if let Err(error) = self.request("resources/subscribe", &members).await {
                tracing::warn!(target: "upstream", uri, ?error, "a resource is not followed any more");
            }
        }
    }

    /// Asks a modern server for the updates of exactly these resources.
    pub(super) fn subscribe_to(&self, resources: BTreeSet<String>) {
        self.subscribed.send_if_modified(|current| {
            let changed = *current != resources;
            *current = resources;
            changed
        });
    }

    /// The era that was agreed on.
    pub(super) fn speaks(&self) -> Speaks {
        if self.era() == Era::Modern { Speaks::Modern } else { Speaks::Legacy }
    }

    /// Sends a request of our own and waits for its result.
    pub(super) async fn request(&self, method: &'static str, members: &str) -> Result<Text, NoAnswer> {
        self.request_as(&self.era(), method, members).await
    }

    async fn request_as(&self, era: &Era, method: &'static str, members: &str) -> Result<Text, NoAnswer> {
        let (answer, answered) = oneshot::channel();
        let answer = Mutex::new(Some(answer));
        let listener: Listener = Arc::new(move |signal| {
            if let Signal::Asked(question) = &signal {
                let why = wire::error_member(wire::METHOD_NOT_FOUND, "no agent is behind this request", None);
                return question.refuse(&why);
            }
            if !matches!(signal, Signal::Progress(_) | Signal::Remarked(_))
                && let Some(answer) = answer.lock().expect("nothing panics while it holds the answer").take()
            {
                let _ = answer.send(signal);
            }
        });
        let id = RequestId::fresh();
        let text = era.request(id, method, members);
        let post = || Post { era: era.clone(), method: method.into(), name: None, headers: Vec::new() };
        let mut withdrawn = Abandoned((method == "subscriptions/listen").then(|| self.clone()), id);
        self.send(id, text, post, listener, Purpose::Housekeeping);
        let answered = answered.await;
        withdrawn.0.take();
        match answered {
            Ok(Signal::Answered(answer)) => Ok(answer.text),
            Ok(Signal::Refused(refused)) => Err(NoAnswer::Refused(refused)),
            Ok(Signal::Unsent(unsent)) => Err(NoAnswer::Unsent(unsent)),
            Ok(Signal::Lost(_, message)) => Err(NoAnswer::Gone(message)),
            Ok(Signal::Progress(_) | Signal::Remarked(_) | Signal::Asked(_)) | Err(_) => {
                Err(NoAnswer::Gone("the connection has ended".into()))
            }
        }
    }

    /// Sends a request of an agent. `mirrored` are headers for servers that want some arguments there, `round` members
    /// by which the request goes on with an earlier one.
    pub(super) fn convey(
        &self,
        id: RequestId,
        parcel: &Parcel,
        round: &[(String, Text)],
        mirrored: impl FnOnce() -> Vec<(String, String)>,
        listener: Listener,
    ) {
        let era = self.era();
        let text = era.parcel(id, parcel, round);
        let post = || {
            let (method, name, mut headers) = match parcel {
                Parcel::Call(dispatch) => {
                    ("tools/call".to_owned(), Some(dispatch.tool.clone()), dispatch.headers.clone())
                }
                Parcel::Relayed(relayed) => (relayed.method.clone(), relayed.name(), Vec::new()),
            };
            if era == Era::Modern {
                headers.extend(mirrored());
            }
            Post { era: era.clone(), method: method.into(), name, headers }
        };
        self.send(id, text, post, listener, Purpose::Agent(Agent::of(parcel.caller())));
    }

    /// Sends a notification of an agent, which nobody answers.
    pub(super) fn tell(&self, relayed: &Relayed) {
        let era = self.era();
        let text = era.notification(relayed);
        match &self.wire {
            Wire::Pipe(pipe) => pipe.write(None, text),
            Wire::Web(web) => {
                tokio::spawn(web.clone().tell(text, era));
            }
        }
    }

    fn send(
        &self,
        id: RequestId,
        text: String,
        post: impl FnOnce() -> Post,
        listener: Listener,
        purpose: Purpose,
    ) {
        if !self.peer().register(id, listener.clone(), purpose) {
            listener(Signal::Unsent(Unsent { code: "upstream-unreachable", message: self.cause() }));
            return;
        }
        match &self.wire {
            Wire::Pipe(pipe) => pipe.write(Some(id), text),
            Wire::Web(web) => web.send(id, text, post()),
        }
    }

    /// Tells the server that the answer is not wanted. A message that has not left is not sent at all.
    pub(super) fn withdraw(&self, id: RequestId, reason: &str) {
        if let Wire::Pipe(pipe) = &self.wire
            && pipe.take_back(id)
        {
            let message = format!("cancelled before it was written: {reason}");
            self.peer().settle(id, Signal::Unsent(Unsent { code: "upstream-unreachable", message }));
            return;
        }
        if !self.peer().withdraw(id) {
            return;
        }
        match &self.wire {
            // By HTTP the modern era cancels by ending the stream.
            Wire::Web(web) if self.era() == Era::Modern => {
                web.abort(id);
                self.peer().settle(id, Signal::Lost(Loss::Cancelled, format!("cancelled: {reason}")));
            }
            Wire::Web(web) => {
                tokio::spawn(web.clone().tell(cancelled(id, reason), self.era()));
            }
            Wire::Pipe(pipe) => pipe.write(None, cancelled(id, reason)),
        }
    }

    /// Whether the process or session that took request `id` no longer exists.
    pub(super) fn is_gone(&self, id: RequestId) -> bool {
        // Without a session there is nothing but the request's own stream that could be gone.
        let stream_is_over = |web: &Web| !web.has_session() && !web.peer.is_waiting(id);
        self.is_gone_for_good() || matches!(&self.wire, Wire::Web(web) if stream_is_over(web))
    }

    /// Whether the process or session no longer exists.
    pub(super) fn is_gone_for_good(&self) -> bool {
        match &self.wire {
            Wire::Pipe(pipe) => pipe.ended.is_cancelled(),
            Wire::Web(web) => web.session_is_over(),
        }
    }

    /// Cancelled when the connection takes no new requests.
    pub(super) fn over(&self) -> &CancellationToken {
        match &self.wire {
            Wire::Pipe(pipe) => &pipe.over,
            Wire::Web(web) => &web.over,
        }
    }

    pub(super) fn peer(&self) -> &Arc<Peer> {
        match &self.wire {
            Wire::Pipe(pipe) => &pipe.peer,
            Wire::Web(web) => &web.peer,
        }
    }

    /// Resolves when nothing of the connection is left that a new one could meet.
    pub(super) async fn ended(&self) {
        match &self.wire {
            Wire::Pipe(pipe) => pipe.ended.cancelled().await,
            Wire::Web(web) => web.over.cancelled().await,
        }
    }

    /// Ends the connection, and the process if there is one.
    pub(super) async fn stop(&self) {
        match &self.wire {
            Wire::Pipe(pipe) => pipe.stop().await,
            Wire::Web(web) => web.stop(&self.era()).await,
        }
    }

    /// Why the connection is over.
    pub(super) fn cause(&self) -> String {
        match &self.wire {
            Wire::Pipe(pipe) => pipe.cause(),
            Wire::Web(web) => web.cause(),
        }
    }

    /// Why a server that has just ended cannot be used, with what it wrote last.
    pub(super) async fn with_last_words(&self, mut unsent: Unsent) -> Unsent {
        if let Wire::Pipe(pipe) = &self.wire {
            pipe.said_all().await;
            // Some of it may not have been read when that was said.
            if let Some(at) = unsent.message.find(LAST_WORDS) {
                unsent.message.truncate(at);
            }
            unsent.message.push_str(&pipe.last_words());
        }
        unsent
    }

    /// What a server wrote last, as the end of a sentence.
    pub(super) fn last_words(&self) -> String {
        match &self.wire {
            Wire::Pipe(pipe) => pipe.last_words(),
            Wire::Web(_) => String::new(),
        }
    }

    fn era(&self) -> Era {
        self.era.get().cloned().unwrap_or(Era::Opening)
    }

    /// Why the server cannot be used.
    pub(super) fn unsent(&self, error: NoAnswer) -> Unsent {
        match error {
            NoAnswer::Unsent(unsent) => unsent,
            NoAnswer::Gone(message) => {
                let code = match &self.wire {
                    Wire::Pipe(_) => "upstream-spawn-failed",
                    Wire::Web(_) => "upstream-unreachable",
                };
                Unsent { code, message }
            }
            NoAnswer::Refused(refused) => Unsent {
                code: if refused.status == Some(403) {
                    "upstream-unauthorized"
                } else {
                    "upstream-unreachable"
                },
                message: format!("the server refuses to begin: {}", &*refused.error),
            },
        }
    }
}

fn cancelled(id: RequestId, reason: &str) -> String {
    let params = format!(r#"{{"requestId":{id},"reason":{}}}"#, Value::from(reason));
    wire::notification("notifications/cancelled", &params)
}

/// A subscription that is dropped is taken back.
struct Abandoned(Option<Link>, RequestId);

impl Drop for Abandoned {
    fn drop(&mut self) {
        if let Some(link) = self.0.take() {
            link.withdraw(self.1, "not wanted any more");
        }
    }
}
