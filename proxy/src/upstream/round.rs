//! A request that a modern server wants sent again: with what it asked for, or just later (MCP 2026-07-28, "Multi
//! Round-Trip Requests").

use std::{sync::Arc, time::Duration};

use holdfast_store::{Answer, AnswerKind, Loss, Text};
use serde_json::{Value, json};

use super::{
    Answers, Ask, Bookmark, Flight, Question, Refused, Said, Signal, Wanted, Way,
    flight::trusted,
    id::RequestId,
    link::Link,
    peer::Listener,
    relay::{Parcel, ROUND},
    shared::Shared,
};
use crate::wire;

/// How long a server that asks for nothing but patience is left alone.
const COME_AGAIN: Duration = Duration::from_millis(500);

/// A request that may go on in further rounds.
#[derive(Clone)]
pub(super) struct Going {
    pub(super) flight: Flight,
    pub(super) shared: Arc<Shared>,
    pub(super) parcel: Parcel,
    pub(super) listener: Listener,
}

impl Going {
    /// Lets the client be asked; `then` hears the answers.
    pub(super) fn ask(&self, wanted: Wanted, then: impl FnOnce(Answers) + Send + 'static) {
        let Way::Round { round, .. } = wanted.way else { return };
        let question = Question::new(Some(request_id(&self.parcel, round)), wanted, Box::new(then));
        (self.listener)(Signal::Asked(Arc::new(question)));
    }
}

/// What goes on with a request once the server's question is answered.
pub(super) struct Round {
    pub(super) going: Going,
    pub(super) link: Link,
    /// How often the request was sent again before.
    pub(super) number: u32,
    pub(super) state: Option<Text>,
}

impl Round {
    pub(super) fn ask(self, asks: Vec<Ask>) {
        // Servers may answer twice.
        if !self.going.flight.asked_in(self.number) {
            return;
        }
        if asks.is_empty() {
            // If we end before it is sent again, the next life finds the server's wish where it was.
            let bookmark = Bookmark::here();
            tokio::spawn(async move {
                // Less and less often, where it takes its time.
                tokio::time::sleep(COME_AGAIN * (1 + self.number / 4).min(10)).await;
                self.go_on(Vec::new());
                drop(bookmark);
            });
            return;
        }
        let wanted = Wanted { asks, way: Way::Round { round: self.number, state: self.state.clone() } };
        let going = self.going.clone();
        going.ask(wanted, |answers| self.go_on(answers));
    }

    /// Sends the request again, with the answers. To us it is the same attempt: the server has said that it waits.
    pub(super) fn go_on(self, answers: Answers) {
        let Self { going: Going { flight, shared, parcel, listener }, link, number, state } = self;
        if let Some((name, error)) = answers.iter().find_map(|(name, said)| match said {
            Said::Error(error) => Some((name, error)),
            Said::Result(_) => None,
        }) {
            // Nothing in this era could tell the server.
            return listener(given_up(&parcel, name, error));
        }
        if !flight.goes_on_from(number) {
            return;
        }
        if flight.is_withdrawn() {
            let message = format!("cancelled between two rounds with server `{}`", shared.name);
            return listener(Signal::Lost(Loss::Cancelled, message));
        }
        if let Parcel::Call(dispatch) = &parcel
            && let Err(unsent) = trusted(&shared, &link, &dispatch.tool)
        {
            return once_begun(&shared, listener)(Signal::Unsent(unsent));
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
        let number = number.saturating_add(1);
        let id = request_id(&parcel, number);
        let hear = flight.hearing(&shared, &link, &parcel, once_begun(&shared, listener), number);
        link.convey(id, &parcel, &round, || mirrored(&shared, &parcel), hear);
        flight.sent(link.clone(), id);
        // It may have been withdrawn meanwhile, when there was nothing to withdraw.
        if flight.is_withdrawn() {
            link.withdraw(id, "cancelled between two rounds");
        }
    }
}

/// The id under which a round of the request goes out; that of a call's attempt is known again after a restart.
pub(super) fn request_id(parcel: &Parcel, round: u32) -> RequestId {
    match parcel {
        Parcel::Call(dispatch) => {
            dispatch.attempt.map_or_else(RequestId::fresh, |attempt| RequestId::of_round(attempt, round))
        }
        Parcel::Relayed(_) => RequestId::fresh(),
    }
}

/// The arguments that the tool wants in headers, too.
pub(super) fn mirrored(shared: &Shared, parcel: &Parcel) -> Vec<(String, String)> {
    match (parcel, shared.catalog()) {
        (Parcel::Call(dispatch), Some(catalog)) => catalog.mirrored(&dispatch.tool, &dispatch.arguments),
        _ => Vec::new(),
    }
}

/// What was begun in an earlier round is not undone by a later one that does not get through.
pub(super) fn once_begun(shared: &Arc<Shared>, listener: Listener) -> Listener {
    let shared = shared.clone();
    Arc::new(move |signal| match signal {
        Signal::Unsent(unsent) => listener(Signal::Lost(Loss::Disconnected, unsent.message)),
        // Only what says that this request will never be carried out says something about the earlier rounds, too.
        // Codes that the operator knows to mean "not executed" say so of this request alone.
        Signal::Refused(refused)
            if !is_for_good(&refused)
                || refused.code.is_some_and(|code| shared.config().unexecuted.contains(&code)) =>
        {
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

/// What a result asks for, and the state to bring along; none for a result that is whole.
pub(super) fn input_wanted(result: &Text) -> Option<(Vec<Ask>, Option<Text>)> {
    // Almost every result is whole, and long ones are not read for this.
    if !result.contains("input_required") {
        return None;
    }
    let members = wire::members(result)?;
    let member = |name: &str| members.iter().rfind(|(other, _)| other == name).map(|(_, value)| *value);
    if member("resultType") != Some(r#""input_required""#) {
        return None;
    }
    let asks = member("inputRequests").map(asks_in).unwrap_or_default();
    Some((asks, member("requestState").and_then(|state| Text::parse(state).ok())))
}

/// What an object of `inputRequests` asks for.
pub(super) fn asks_in(requests: &str) -> Vec<Ask> {
    let mut asks = Vec::new();
    for (name, request) in wire::members(requests).unwrap_or_default() {
        let request = wire::members(request).unwrap_or_default();
        let part = |name: &str| request.iter().rfind(|(other, _)| other == name).map(|(_, value)| *value);
        let method = part("method").and_then(|method| serde_json::from_str::<String>(method).ok());
        asks.push(Ask {
            name: name.into_owned(),
            method: method.unwrap_or_default(),
            params: part("params").and_then(|params| Text::parse(params).ok()),
        });
    }
    asks
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
