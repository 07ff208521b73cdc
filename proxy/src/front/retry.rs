//! A `tools/call` that carries `requestState`: the same call again, as far as we are concerned, and never a second one.

use std::{sync::Arc, time::Duration};

use holdfast_store::{Call, Text, fingerprint_with};
use serde_json::{Map, Value};

use super::{
    Front,
    call::{Asked, Begun, Refusal, resolve, wanted},
    deliver::Output,
    listen::Link,
    problem::{HEADER_MISMATCH, Problem},
    state::{AskedFor, Pending, Unsealed},
    surface::{QUESTION, ROUND},
    tools,
};
use crate::{
    driver::{HoldWait, now},
    upstream::{Answers, Question, Said},
};

/// What the retry brings along besides name and arguments.
#[derive(Debug)]
pub(super) struct Brought {
    state: Option<String>,
    responses: Map<String, Value>,
}

/// What a client brings along for a question of the call's server.
#[derive(Debug)]
pub(super) struct Inputs {
    /// The question that it was given; none where it does not say.
    question: Option<u64>,
    responses: Map<String, Value>,
}

impl Inputs {
    /// The answers, where they are for this question. Which of them are missing is for the server to say.
    pub(super) fn to(self, question: &Question) -> Option<Answers> {
        let fits = match self.question {
            Some(number) => number == question.number,
            None => question.wanted.asks.iter().any(|ask| self.responses.contains_key(&ask.name)),
        };
        fits.then(|| {
            let said = |(name, value): (String, Value)| (name, Said::Result(Text::of(&value)));
            self.responses.into_iter().map(said).collect()
        })
    }
}

/// A retry of a call that exists.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    /// What its state says.
    pub(super) pending: Pending,
    /// What the client says to our question.
    pub(super) visit: Visit,
}

/// Whether the client sends its user to the page of the call. Not a decision about the call, whatever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visit {
    /// It does.
    Agreed,
    /// It does not, or its user does not want to.
    Declined,
    /// It does not say, or was not asked.
    Unsaid,
}

/// Takes what belongs to a retry out of `params`; none where this is none.
///
/// # Errors
/// Where it is not of the shape that 2026-07-28 gives it.
pub(super) fn brought(params: &mut Map<String, Value>) -> Result<Option<Brought>, Problem> {
    let responses = match params.shift_remove("inputResponses") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(responses)) => responses,
        Some(_) => {
            let message = "params.inputResponses must be an object";
            return Err(Problem::invalid_params("invalid-arguments", message));
        }
    };
    let state = match params.shift_remove("requestState") {
        None | Some(Value::Null) if responses.is_empty() => return Ok(None),
        None | Some(Value::Null) => None,
        Some(Value::String(state)) => Some(state),
        Some(_) => return Err(unusable("it is not a string")),
    };
    Ok(Some(Brought { state, responses }))
}

impl Brought {
    /// The state, and what comes with it; the answers alone where there is no state.
    pub(super) fn parts(self) -> Result<(String, Map<String, Value>), Inputs> {
        match self.state {
            Some(state) => Ok((state, self.responses)),
            None => Err(Inputs { question: None, responses: self.responses }),
        }
    }
}

/// What the retry asks for.
pub(super) struct Named<'a> {
    /// The tool, as agents know it.
    pub(super) name: &'a str,
    pub(super) arguments: &'a Value,
    /// Further members of `params`.
    pub(super) extra: &'a Map<String, Value>,
}

/// Reads the result of an elicitation. What a form may have brought is not looked at.
pub(super) fn visit(result: &Value) -> Visit {
    match result.get("action").and_then(Value::as_str) {
        Some("accept") => Visit::Agreed,
        _ => Visit::Declined,
    }
}

/// Goes on waiting for the call that the state names.
///
/// # Errors
/// Where the state is not to be used, or not for this.
pub(super) async fn rejoin(
    front: &Arc<Front>,
    link: &Arc<Link>,
    asked: &Asked,
    named: Named<'_>,
    (state, responses): (String, Map<String, Value>),
    progress_token: Option<String>,
) -> Result<Begun, Refusal> {
    let pending =
        front.seal.open(&asked.caller.principal, now(), &state).map_err(|unsealed| match unsealed {
            Unsealed::Forged => unusable("it is not one that was given to this agent"),
            Unsealed::Expired => unusable("its time is over"),
        })?;
    let gone = || unusable("its call is no longer kept");
    let call = front.driver.look(&asked.caller, pending.call).await.ok_or_else(gone)?;
    if !is_of(front, &call, &named) {
        return Err(unusable("it belongs to a call of another tool, or with other arguments").into());
    }
    let output = match resolve(front, asked, named.name, named.arguments).await {
        Ok((_, _, output)) => output,
        Err(problem) if problem.code == HEADER_MISMATCH => return Err(problem.into()),
        // That a tool is gone says nothing about a call that was made of it.
        Err(_) => Output::Free,
    };
    let visit = match pending.asked {
        AskedFor::Visit => responses.get(QUESTION).map_or(Visit::Unsaid, visit),
        AskedFor::Nothing | AskedFor::Input(_) => Visit::Unsaid,
    };
    let inputs = match pending.asked {
        AskedFor::Input(question) => Some(Inputs { question: Some(question), responses }),
        AskedFor::Nothing | AskedFor::Visit => None,
    };
    let wait = if visit == Visit::Declined { Duration::ZERO } else { ROUND };
    let wanted = wanted(progress_token.as_ref());
    let ticket = front.driver.collect(&asked.caller, link.number, pending.call, wanted, &asked.client).await;
    Ok(Begun {
        ticket: Some(ticket.ok_or_else(gone)?.with_hold_wait(HoldWait::Exactly(wait))),
        output,
        progress_token,
        patience_shown: Some(0),
        collects: None,
        retry: Some(Retry { pending, visit }),
        server: Some(call.accepted.server.clone()),
        inputs,
    })
}

/// Whether a request with this name and these arguments would be this call.
fn is_of(front: &Front, call: &Call, named: &Named<'_>) -> bool {
    let accepted = &call.accepted;
    let arguments = Text::of(named.arguments);
    // What stands beside the arguments was sent when the call was made; the retry may leave it out.
    let said = Text::of(named.extra);
    let extras = [None, Some(&*said), accepted.extra.as_deref()];
    let fingerprint = |extra| fingerprint_with(&accepted.identity, &accepted.tool, &arguments, extra);
    tools::can_mean(&front.upstreams, named.name, &accepted.server, &accepted.tool)
        && extras.into_iter().any(|extra| fingerprint(extra) == accepted.fingerprint)
}

fn unusable(why: &str) -> Problem {
    let message = format!(
        "requestState cannot be used: {why}. Send the call without it: as long as it waits, the identical call joins it"
    );
    Problem::invalid_params("request-state-invalid", message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_retry_brings() {
        let check = |params: Value, expected: Result<Option<(Option<&str>, usize)>, ()>| {
            let mut members = params.as_object().expect("an object").clone();
            let found = brought(&mut members).map_err(|_| ());
            let found = found.map(|brought| brought.map(|brought| (brought.state, brought.responses.len())));
            let expected = expected.map(|some| some.map(|(state, count)| (state.map(str::to_owned), count)));
            assert_eq!(found, expected, "{params}");
        };
        check(json!({}), Ok(None));
        check(json!({ "inputResponses": {} }), Ok(None));
        check(json!({ "inputResponses": { "a": 1 } }), Ok(Some((None, 1))));
        check(json!({ "requestState": "s" }), Ok(Some((Some("s"), 0))));
        check(json!({ "requestState": "s", "inputResponses": { "a": 1, "b": 2 } }), Ok(Some((Some("s"), 2))));
        check(json!({ "requestState": 7 }), Err(()));
        check(json!({ "requestState": "s", "inputResponses": [] }), Err(()));
    }

    #[test]
    fn only_an_accepted_visit_is_one() {
        assert_eq!(visit(&json!({ "action": "accept", "content": { "approve": true } })), Visit::Agreed);
        for no in ["decline", "cancel", "approve", ""] {
            assert_eq!(visit(&json!({ "action": no })), Visit::Declined, "{no}");
        }
    }
}
