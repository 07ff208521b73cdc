//! How a held call looks to its client, by what the client declares (semantics section 7, "Waiting").
//!
//! Whatever it looks like, it is the same call in the journal: a client that loses what it was given repeats the call,
//! or asks `holdfast_wait`, and joins it. What a client says to a question of ours is never an approval, because nobody
//! can tell whether a person said it; decisions are made in the inbox.

use std::time::Duration;

use holdfast_store::{Call, CallId};
use serde_json::{Map, Value, json};

use super::{
    Front,
    accept::Accepts,
    asks,
    call::{Asked, Begun},
    deliver,
    era::{self, Era, META_CAPABILITIES},
    retry::{Retry, Visit},
    state::{AskedFor, Pending},
    tasks,
};
use crate::{
    driver::{HoldWait, Reply, now},
    upstream::Question,
};

/// How long one round waits for a person: below the shortest time-out of a client that we know (60 s), long enough that
/// the ten rounds that clients take part in are not over in an instant.
pub(super) const ROUND: Duration = Duration::from_secs(25);
/// Rounds of a client that sends its user to the inbox. After them it gets a held result, because its library would make
/// an error of two rounds more.
const ROUNDS_OF_VISITORS: u8 = 8;
/// Rounds of a client that can only come again.
const ROUNDS_OF_OTHERS: u8 = 1;
/// How long an answer can be collected with a state, counted from the last moment at which the call can be approved.
const COLLECT_WITHIN_MS: u64 = 24 * 3_600 * 1_000;
/// The name of our one question.
pub(super) const QUESTION: &str = "approval";

/// What a client is given while its call waits for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surface {
    /// 2026-07-28 with the Tasks extension: a task, at once.
    Task,
    /// 2026-07-28, URL elicitation: `input_required` with the address of the call's page, then long polls.
    Visit,
    /// 2026-07-28: after `hold_wait`, `input_required` with nothing but a state, one long poll, then a held result.
    ComeAgain,
    /// 2025-11-25, URL elicitation: a request to send the user to the call's page, a long poll, then a held result.
    Offer,
    /// After `hold_wait` a held result.
    Result,
}

/// The one method of elicitation.
pub(super) const ELICIT: &str = "elicitation/create";

impl Surface {
    /// By what `initialize` declares.
    pub(crate) fn of_handshake(params: &Map<String, Value>) -> Self {
        let version = params.get("protocolVersion").and_then(Value::as_str).unwrap_or_default();
        // Before 2025-11-25 there were only forms.
        let knows_urls = era::negotiate(version) == era::LEGACY[0];
        match params.get("capabilities") {
            Some(capabilities) if knows_urls && visits_urls(capabilities) => Self::Offer,
            _ => Self::Result,
        }
    }

    /// By what a request declares, or its session declared before.
    pub(super) fn of(era: Era, params: &Map<String, Value>, session: Surface) -> Self {
        let declared = params.get("_meta").and_then(|meta| meta.get(META_CAPABILITIES));
        match era {
            Era::Legacy => session,
            Era::Modern if declared.is_some_and(tasks::are_known_to) => Self::Task,
            Era::Modern if declared.is_some_and(visits_urls) => Self::Visit,
            Era::Modern => Self::ComeAgain,
        }
    }

    /// The same, over a response of these kinds: what needs a stream is nothing to a client that reads none.
    pub(super) fn over(self, accepts: Accepts) -> Self {
        match self {
            Self::Offer if !accepts.events => Self::Result,
            surface => surface,
        }
    }

    /// How long the first request waits for a person.
    pub(super) fn hold_wait(self) -> HoldWait {
        match self {
            // Waiting would only keep the user from the page where it ends, or the agent from other work.
            Self::Task | Self::Visit => HoldWait::Exactly(Duration::ZERO),
            Self::Offer => HoldWait::AtLeast(ROUND),
            Self::ComeAgain | Self::Result => HoldWait::Policy,
        }
    }
}

/// Whether these client capabilities name URL elicitation; an empty `elicitation` means forms only.
fn visits_urls(capabilities: &Value) -> bool {
    capabilities.pointer("/elicitation/url").is_some_and(Value::is_object)
}

/// The response for a call that its request waits for no longer; none where it is Holdfast's own words as a result.
pub(super) async fn instead(front: &Front, asked: &Asked, begun: &Begun, reply: &Reply) -> Option<String> {
    let surface = match asked.surface {
        Surface::Offer | Surface::Result => return None,
        surface => surface,
    };
    let call = front.driver.look(&asked.caller, reply.call?).await?;
    if surface == Surface::Task {
        return Some(deliver::result(&asked.id, &tasks::created(&call), asked.era, &deliver::meta(reply)));
    }
    if !call.state.is_held() {
        return None;
    }
    let hold_wait_ms = call.accepted.plan.hold_wait_ms;
    let (rounds, asked_for) = next_round(surface, hold_wait_ms, begun.retry.as_ref())?;
    let pending = Pending { call: call.id, rounds, asked: asked_for };
    let mut result = Map::from_iter([("resultType".to_owned(), Value::from("input_required"))]);
    if pending.asked == AskedFor::Visit {
        result.insert(
            "inputRequests".into(),
            json!({ QUESTION: { "method": ELICIT, "params": question(&front.inbox, &call) } }),
        );
    }
    let approvable = call.hold.as_ref().map_or(call.since, |hold| hold.approve_by()).max(now());
    let expires = approvable.plus(COLLECT_WITHIN_MS);
    result.insert("requestState".into(), front.seal.seal(&asked.caller.principal, &pending, expires).into());
    Some(deliver::result(&asked.id, &Value::Object(result).to_string(), asked.era, &deliver::meta(reply)))
}

/// The result that asks a modern client for what the server of its call wants to know.
pub(super) fn input_required(front: &Front, asked: &Asked, call: CallId, question: &Question) -> String {
    let requests = asks::as_members(&question.wanted.asks);
    let pending = Pending { call, rounds: 0, asked: AskedFor::Input(question.number) };
    let state = front.seal.seal(&asked.caller.principal, &pending, now().plus(COLLECT_WITHIN_MS));
    format!(r#"{{"resultType":"input_required","inputRequests":{requests},"requestState":"{state}"}}"#)
}

/// Which round comes next and what it asks for; none where the client is told how the call stands instead.
fn next_round(surface: Surface, hold_wait_ms: u64, retry: Option<&Retry>) -> Option<(u8, AskedFor)> {
    let (most, first) = match surface {
        Surface::Visit => (ROUNDS_OF_VISITORS, AskedFor::Visit),
        // An operator who lets nobody wait wants no long polls either.
        _ if hold_wait_ms == 0 => return None,
        _ => (ROUNDS_OF_OTHERS, AskedFor::Nothing),
    };
    let (rounds, asked) = match retry {
        None => (0, first),
        Some(Retry { visit: Visit::Declined, .. }) => return None,
        // The page is open: to send its user there every half minute would be a nuisance.
        Some(Retry { visit: Visit::Agreed, pending }) => (pending.rounds, AskedFor::Nothing),
        Some(Retry { visit: Visit::Unsaid, pending }) if surface == Surface::Visit => {
            (pending.rounds, pending.asked)
        }
        Some(Retry { visit: Visit::Unsaid, pending }) => (pending.rounds, AskedFor::Nothing),
    };
    (rounds < most).then(|| (rounds + 1, asked))
}

/// The parameters of the elicitation that sends a user to the inbox.
pub(super) fn question(inbox: &str, call: &Call) -> Value {
    json!({ "mode": "url", "message": words(call), "url": page(inbox, call.id) })
}

fn words(call: &Call) -> String {
    let accepted = &call.accepted;
    format!(
        "`{}` of server `{}` waits for a person's approval (call {}). Open the inbox to see exactly what would be done, \
         and to decide.",
        accepted.tool, accepted.server, call.id
    )
}

/// The page of the call. No credential is in it: whoever opens it has to be an operator.
fn page(inbox: &str, call: CallId) -> String {
    format!("{inbox}/calls/{call}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(capabilities: Value, expected: Surface) {
        let params = json!({ "_meta": { META_CAPABILITIES: capabilities } });
        let params = params.as_object().expect("an object");
        assert_eq!(Surface::of(Era::Modern, params, Surface::Result), expected, "{params:?}");
        assert_eq!(Surface::of(Era::Legacy, params, Surface::Result), Surface::Result, "{params:?}");
    }

    #[test]
    fn what_a_client_declares_decides() {
        check(json!({}), Surface::ComeAgain);
        check(json!({ "elicitation": {} }), Surface::ComeAgain);
        check(json!({ "elicitation": { "form": {} } }), Surface::ComeAgain);
        check(json!({ "elicitation": { "url": true } }), Surface::ComeAgain);
        check(json!({ "elicitation": { "form": {}, "url": {} } }), Surface::Visit);
        let tasks = json!({ tasks::EXTENSION: {} });
        check(json!({ "extensions": tasks }), Surface::Task);
        check(json!({ "extensions": tasks, "elicitation": { "url": {} } }), Surface::Task);
    }

    #[test]
    fn rounds_end_before_libraries_make_an_error_of_them() {
        let call = CallId::from_bytes([1; 16]);
        let after = |rounds: u8, asked: AskedFor, visit: Visit| Retry {
            pending: Pending { call, rounds, asked },
            visit,
        };
        let check = |surface: Surface,
                     hold_wait_ms: u64,
                     retry: Option<Retry>,
                     expected: Option<(u8, AskedFor)>| {
            assert_eq!(next_round(surface, hold_wait_ms, retry.as_ref()), expected, "{surface:?} {retry:?}");
        };
        use AskedFor::{Nothing, Visit as Page};
        check(Surface::Visit, 0, None, Some((1, Page)));
        check(Surface::Visit, 1, Some(after(1, Page, Visit::Agreed)), Some((2, Nothing)));
        check(Surface::Visit, 1, Some(after(2, Nothing, Visit::Unsaid)), Some((3, Nothing)));
        // What was not answered is asked again.
        check(Surface::Visit, 1, Some(after(1, Page, Visit::Unsaid)), Some((2, Page)));
        check(Surface::Visit, 1, Some(after(1, Page, Visit::Declined)), None);
        check(Surface::Visit, 1, Some(after(7, Nothing, Visit::Unsaid)), Some((8, Nothing)));
        check(Surface::Visit, 1, Some(after(8, Nothing, Visit::Unsaid)), None);
        check(Surface::Visit, 1, Some(after(u8::MAX, Nothing, Visit::Unsaid)), None);
        check(Surface::ComeAgain, 1, None, Some((1, Nothing)));
        check(Surface::ComeAgain, 1, Some(after(1, Nothing, Visit::Unsaid)), None);
        check(Surface::ComeAgain, 0, None, None);
        // Who does not declare it any more is not asked for it.
        check(Surface::ComeAgain, 1, Some(after(0, Page, Visit::Unsaid)), Some((1, Nothing)));
    }

    #[test]
    fn a_handshake_can_declare_it_since_there_are_urls() {
        let check = |version: &str, capabilities: Value, expected: Surface| {
            let params = json!({ "protocolVersion": version, "capabilities": capabilities });
            let params = params.as_object().expect("an object");
            assert_eq!(Surface::of_handshake(params), expected, "{params:?}");
        };
        let urls = || json!({ "elicitation": { "url": {} } });
        check("2025-11-25", urls(), Surface::Offer);
        check("2025-11-25", json!({ "elicitation": {} }), Surface::Result);
        check("2025-11-25", json!({ "elicitation": { "form": {} } }), Surface::Result);
        check("2025-11-25", json!({}), Surface::Result);
        check("2025-06-18", urls(), Surface::Result);
        assert_eq!(Surface::of_handshake(&Map::new()), Surface::Result);
    }
}
