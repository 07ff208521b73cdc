//! A request on its way to a server: taken back as long as it can be, sent on with answers where the server asks back.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use holdfast_store::{Answer, AnswerKind, Loss, Text};
use serde_json::{Value, json};

use super::{
    Answers, Ask, Question, Refused, Said, Signal, Speaks, UNTRUSTED, Unsent,
    instance::Shared,
    link::Link,
    peer::{Listener, RequestId},
    relay::{Parcel, ROUND},
};
use crate::wire;

/// How long a server that asks for nothing but patience is left alone.
const COME_AGAIN: Duration = Duration::from_millis(500);

/// A request on its way. Dropping it cancels nothing: late answers still arrive.
#[derive(Clone)]
pub(crate) struct Flight {
    place: Arc<Mutex<Place>>,
    /// Its answer is not wanted any more: no further round is sent.
    withdrawn: Arc<AtomicBool>,
}

enum Place {
    /// The server is not there yet; the reason of a withdrawal that came meanwhile.
    Waiting(Option<String>),
    /// Being handed to the connection; the same.
    Sending(Option<String>),
    Sent(Link, RequestId),
    /// It never left.
    Never,
}

/// What goes on with a request once the server's question is answered.
struct Round {
    flight: Flight,
    shared: Arc<Shared>,
    link: Link,
    parcel: Parcel,
    listener: Listener,
    state: Option<Text>,
}

impl Flight {
    pub(super) fn new() -> Self {
        Self { place: Arc::new(Mutex::new(Place::Waiting(None))), withdrawn: Arc::default() }
    }

    /// That of a request that an earlier life sent.
    pub(super) fn of_earlier_life(link: Link, id: RequestId) -> Self {
        Self { place: Arc::new(Mutex::new(Place::Sent(link, id))), withdrawn: Arc::default() }
    }

    /// Tells the server that the answer is not wanted; an answer that comes all the same is still passed on. A call
    /// that has not left is not sent, and `on` hears that.
    pub(crate) fn cancel(&self, reason: &str) {
        self.withdrawn.store(true, Ordering::SeqCst);
        let (link, id) = match &mut *self.place() {
            Place::Waiting(withdrawn) | Place::Sending(withdrawn) => {
                *withdrawn = Some(reason.to_owned());
                return;
            }
            Place::Sent(link, id) => (link.clone(), *id),
            Place::Never => return,
        };
        link.withdraw(id, reason);
    }

    /// Takes the call back if the server was not there to take it. True: it has not left and never will, and `on` need
    /// not say so.
    pub(crate) fn recall(&self) -> bool {
        let mut place = self.place();
        let waiting = matches!(*place, Place::Waiting(_));
        if waiting {
            *place = Place::Never;
        }
        waiting
    }

    /// Whether the process or session that the call was sent to no longer exists: whatever it was doing is over.
    /// Without a session, by HTTP, only the end of the call's own stream can be told.
    pub(crate) fn gone(&self) -> bool {
        match &*self.place() {
            Place::Waiting(_) | Place::Sending(_) => false,
            Place::Sent(link, id) => link.is_gone(*id),
            Place::Never => true,
        }
    }

    /// It will not be sent.
    pub(super) fn never(&self) {
        self.swap(Place::Never);
    }

    pub(super) fn send(&self, shared: &Arc<Shared>, link: Link, parcel: &Parcel, listener: Listener) {
        match self.swap(Place::Sending(None)) {
            Place::Never => {
                self.swap(Place::Never);
                return;
            }
            Place::Waiting(Some(reason)) => {
                self.swap(Place::Never);
                let message = format!("withdrawn before server `{}` was there: {reason}", shared.name);
                listener(Signal::Unsent(Unsent { code: "upstream-unreachable", message }));
                return;
            }
            Place::Waiting(None) | Place::Sending(_) | Place::Sent(..) => {}
        }
        if let Parcel::Call(dispatch) = parcel
            && let Err(unsent) = trusted(shared, &link, &dispatch.tool)
        {
            self.swap(Place::Never);
            listener(Signal::Unsent(unsent));
            return;
        }
        let id = match parcel {
            Parcel::Call(dispatch) => {
                dispatch.attempt.map_or_else(RequestId::fresh, |(call, attempt)| RequestId::of(call, attempt))
            }
            Parcel::Relayed(_) => RequestId::fresh(),
        };
        let hear = self.hearing(shared, &link, parcel, listener);
        // This can call back into the flight, so no lock is held.
        link.convey(id, parcel, &[], || mirrored(shared, parcel), hear);
        self.sent(link, id);
    }

    fn sent(&self, link: Link, id: RequestId) {
        if let Place::Sending(Some(reason)) = self.swap(Place::Sent(link.clone(), id)) {
            link.withdraw(id, &reason);
        }
    }

    /// Makes a question of a result that asks for input, where the one who asked cannot be given that as it is.
    fn hearing(&self, shared: &Arc<Shared>, link: &Link, parcel: &Parcel, listener: Listener) -> Listener {
        let passes_on = matches!(parcel, Parcel::Relayed(relayed) if relayed.client.speaks == Speaks::Modern);
        if passes_on || link.speaks() == Speaks::Legacy {
            return listener;
        }
        let (flight, shared, link, parcel) = (self.clone(), shared.clone(), link.clone(), parcel.clone());
        Arc::new(move |signal| match signal {
            Signal::Answered(answer) => match input_wanted(&answer.text) {
                None => listener(Signal::Answered(answer)),
                Some((asks, state)) => {
                    let round = Round {
                        flight: flight.clone(),
                        shared: shared.clone(),
                        link: link.clone(),
                        parcel: parcel.clone(),
                        listener: listener.clone(),
                        state,
                    };
                    round.ask(asks);
                }
            },
            signal => listener(signal),
        })
    }

    fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::SeqCst)
    }

    fn swap(&self, place: Place) -> Place {
        std::mem::replace(&mut *self.place(), place)
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().expect("nothing panics while it holds the place")
    }
}

impl Round {
    fn ask(self, asks: Vec<Ask>) {
        let listener = self.listener.clone();
        if asks.is_empty() {
            tokio::spawn(async move {
                tokio::time::sleep(COME_AGAIN).await;
                self.go_on(Vec::new());
            });
            return;
        }
        listener(Signal::Asked(Arc::new(Question::new(asks, Box::new(|answers| self.go_on(answers))))));
    }

    /// Sends the request again, with the answers. To us it is the same attempt: the server has said that it waits.
    fn go_on(self, answers: Answers) {
        let Self { flight, shared, link, parcel, listener, state } = self;
        if flight.is_withdrawn() {
            let message = format!("cancelled between two rounds with server `{}`", shared.name);
            return listener(Signal::Lost(Loss::Cancelled, message));
        }
        if let Parcel::Call(dispatch) = &parcel
            && let Err(unsent) = trusted(&shared, &link, &dispatch.tool)
        {
            return once_begun(listener)(Signal::Unsent(unsent));
        }
        if let Some((name, error)) = answers.iter().find_map(|(name, said)| match said {
            Said::Error(error) => Some((name, error)),
            Said::Result(_) => None,
        }) {
            // Nothing in this era could tell the server.
            return listener(given_up(&parcel, name, error));
        }
        let mut responses = String::from("{");
        for (name, said) in &answers {
            let Said::Result(result) = said else { continue };
            let comma = if responses.len() > 1 { "," } else { "" };
            responses.push_str(&format!("{comma}{}:{}", Value::from(name.as_str()), &**result));
        }
        responses.push('}');
        let responses = Text::parse(&responses).expect("names and JSON texts make a JSON object");
        let mut round = Vec::new();
        if !answers.is_empty() {
            round.push((ROUND[0].to_owned(), responses));
        }
        round.extend(state.map(|state| (ROUND[1].to_owned(), state)));
        let id = RequestId::fresh();
        let hear = flight.hearing(&shared, &link, &parcel, once_begun(listener));
        link.convey(id, &parcel, &round, || mirrored(&shared, &parcel), hear);
        flight.sent(link.clone(), id);
        // It may have been withdrawn meanwhile, when there was nothing to withdraw.
        if flight.is_withdrawn() {
            link.withdraw(id, "cancelled between two rounds");
        }
    }
}

/// The arguments that the tool wants in headers, too.
fn mirrored(shared: &Shared, parcel: &Parcel) -> Vec<(String, String)> {
    match (parcel, shared.catalog()) {
        (Parcel::Call(dispatch), Some(catalog)) => catalog.mirrored(&dispatch.tool, &dispatch.arguments),
        _ => Vec::new(),
    }
}

/// What was begun in an earlier round is not undone by a later one that does not get through.
fn once_begun(listener: Listener) -> Listener {
    Arc::new(move |signal| match signal {
        Signal::Unsent(unsent) => listener(Signal::Lost(Loss::Disconnected, unsent.message)),
        // Only what says that this request will never be carried out says something about the earlier rounds, too.
        Signal::Refused(refused) if !is_for_good(&refused) => {
            let message = format!("the server refused to go on: {}", &*refused.error);
            listener(Signal::Lost(Loss::UpstreamError, message));
        }
        signal => listener(signal),
    })
}

fn is_for_good(refused: &Refused) -> bool {
    const FOR_GOOD: [i64; 4] =
        [wire::METHOD_NOT_FOUND, wire::INVALID_PARAMS, wire::HEADER_MISMATCH, wire::MISSING_CAPABILITY];
    refused.code.is_some_and(|code| FOR_GOOD.contains(&code))
}

/// Looked at here, at the last moment: the process may be another one than the one whose list was looked at before.
fn trusted(shared: &Shared, link: &Link, tool: &str) -> Result<(), Unsent> {
    if shared.trusts(link, tool) {
        return Ok(());
    }
    let message = format!(
        "server `{}` defines `{tool}` otherwise than when it was trusted, so nothing was sent",
        shared.name
    );
    Err(Unsent { code: UNTRUSTED, message })
}

/// What a result asks for, and the state to bring along; none for a result that is whole.
fn input_wanted(result: &Text) -> Option<(Vec<Ask>, Option<Text>)> {
    // Almost every result is whole, and long ones are not read for this.
    if !result.contains("input_required") {
        return None;
    }
    let members = wire::members(result)?;
    let member = |name: &str| members.iter().rfind(|(other, _)| other == name).map(|(_, value)| *value);
    if member("resultType") != Some(r#""input_required""#) {
        return None;
    }
    let mut asks = Vec::new();
    for (name, request) in member("inputRequests").and_then(wire::members).unwrap_or_default() {
        let request = wire::members(request).unwrap_or_default();
        let part = |name: &str| request.iter().rfind(|(other, _)| other == name).map(|(_, value)| *value);
        let method = part("method").and_then(|method| serde_json::from_str::<String>(method).ok());
        asks.push(Ask {
            name: name.into_owned(),
            method: method.unwrap_or_default(),
            params: part("params").and_then(|params| Text::parse(params).ok()),
        });
    }
    Some((asks, member("requestState").and_then(|state| Text::parse(state).ok())))
}

/// The end of a request whose question the client cannot answer.
fn given_up(parcel: &Parcel, name: &str, error: &Text) -> Signal {
    match parcel {
        Parcel::Relayed(_) => Signal::Refused(Refused {
            error: error.clone(),
            code: error.value().get("code").and_then(Value::as_i64),
            status: None,
            retry_after_ms: None,
        }),
        Parcel::Call(_) => {
            let text = format!(
                "The server asked the client for {name:?}, which answered with an error: {}",
                &**error
            );
            let result = json!({ "content": [{ "type": "text", "text": text }], "isError": true });
            Signal::Answered(Answer { kind: AnswerKind::ToolError, text: Text::of(&result) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_result_asks_for() {
        let read = |text: &str| input_wanted(&Text::parse(text).expect("JSON"));
        assert_eq!(read(r#"{"content":[]}"#), None);
        assert_eq!(read(r#"{"content":[{"type":"text","text":"input_required"}]}"#), None);
        assert_eq!(read(r#"{"resultType":"complete","x":"input_required"}"#), None);
        let (asks, state) = read(
            r#"{"resultType":"input_required","inputRequests":{"b":{"method":"roots/list"},"a":{"method":"m","params":{"n":1.50}}},"requestState":"s\u0041"}"#,
        )
        .expect("it asks");
        let ask = |name: &str, method: &str, params: Option<&str>| Ask {
            name: name.into(),
            method: method.into(),
            params: params.map(|params| Text::parse(params).expect("JSON")),
        };
        assert_eq!(asks, [ask("b", "roots/list", None), ask("a", "m", Some(r#"{"n":1.50}"#))]);
        assert_eq!(state.as_deref(), Some(r#""s\u0041""#));
        assert_eq!(
            read(r#"{"resultType":"input_required","requestState":"s"}"#).map(|(asks, _)| asks.len()),
            Some(0)
        );
    }
}
