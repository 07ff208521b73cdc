//! What a call's state means to whoever waits for it.

use holdfast_policy::show_duration;
use holdfast_store::{Answer, AnswerKind, Call, Decider, Entry, HoldClock, Outcome, State, Text, engine};

use super::ticket::Body;
use crate::report::{Report, Target};

/// The reply that the state calls for; none while there is reason to wait.
pub(super) fn reply(call: &Call) -> Option<Body> {
    match call.state {
        State::Done(outcome) => Some(ended(call, outcome)),
        State::InDoubt if !engine::is_settling(call) => Some(Body::Report(in_doubt(call))),
        State::Previewing
        | State::Asking
        | State::Approved
        | State::Ready
        | State::InFlight
        | State::Backoff
        | State::InDoubt => None,
    }
}

/// Whether there is something to tell to whoever waits for the call.
pub(crate) fn has_reply(call: &Call) -> bool {
    reply(call).is_some()
}

/// The words for a call that waits for a person.
pub(super) fn held(call: &Call) -> Report {
    let until = call.hold.as_ref().map(|hold| show(hold.approve_by().since(hold.asked)));
    Report::held(call.id, target(call), until.as_deref())
}

/// The words for a call that runs longer than anybody waits.
pub(super) fn running(call: &Call) -> Report {
    Report::running(call.id, target(call))
}

/// The words for a call that the next start of Holdfast goes on with.
pub(super) fn stopped(call: &Call) -> Body {
    Body::Stopped(if call.state.is_held() { held(call) } else { running(call) })
}

/// The decider for what an agent does to its own calls.
pub(super) fn agent(principal: &str) -> Decider {
    Decider { name: principal.to_owned(), groups: Vec::new(), via: "agent".into() }
}

/// Server and tool of a call.
pub(super) fn target(call: &Call) -> Target<'_> {
    Target { server: &call.accepted.server, tool: &call.accepted.tool }
}

fn ended(call: &Call, outcome: Outcome) -> Body {
    if let Some(answer) = &call.answer {
        return Body::Answer(told(call, answer));
    }
    let target = target(call);
    Body::Report(match (outcome, call.ending.as_deref()) {
        (_, Some(Entry::Refused { by, reason })) => Report::refused(call.id, target, &by.name, reason),
        (_, Some(Entry::Cancelled { by })) => Report::cancelled(call.id, target, &by.name),
        (_, Some(Entry::Expired { clock })) => {
            let clock = match clock {
                HoldClock::ApproveBy => "approve",
                HoldClock::ExecuteBy => "execute the approved call of",
            };
            Report::expired(call.id, target, clock)
        }
        (Outcome::Denied, _) => match &call.accepted.disposition {
            holdfast_store::Disposition::Deny { rule } => Report::denied(target, rule.as_str()),
            _ => Report::denied(target, "defaults"),
        },
        (Outcome::Unknown, Some(Entry::Resolved { by, .. })) => Report::given_up(call.id, target, &by.name),
        (Outcome::Unknown, _) => in_doubt(call),
        _ => failed(call),
    })
}

/// The answer, with a note where a person had a hand in it: the agent must not take it for what it asked for.
fn told(call: &Call, answer: &Answer) -> Answer {
    let note = match (call.ending.as_deref(), &call.edited) {
        (Some(Entry::Responded { by, .. }), _) => {
            format!(
                "Note from Holdfast: {} answered this in the tool's place; nothing was sent to it.",
                by.name
            )
        }
        (_, Some((by, arguments))) => format!(
            "Note from Holdfast: {} changed the arguments before approving the call; what was sent is {}",
            by.name, &**arguments
        ),
        _ => return answer.clone(),
    };
    let mut value = answer.text.value();
    let Some(members) = value.as_object_mut().filter(|_| answer.kind != AnswerKind::Error) else {
        return answer.clone();
    };
    let block = serde_json::json!({ "type": "text", "text": note });
    match members.get_mut("content").and_then(|content| content.as_array_mut()) {
        Some(content) => content.push(block),
        None => drop(members.insert("content".into(), serde_json::json!([block]))),
    }
    if let Some((_, arguments)) = &call.edited {
        let meta = members.entry("_meta").or_insert_with(|| serde_json::json!({}));
        if let Some(meta) = meta.as_object_mut() {
            meta.insert("io.holdfast/edited".into(), arguments.value());
        }
    }
    Answer { kind: answer.kind, text: Text::of(&value) }
}

fn failed(call: &Call) -> Report {
    let target = target(call);
    let plan = &call.accepted.plan;
    let (code, message) = match &call.trouble {
        Some(trouble) => (trouble.code.as_str(), trouble.message.as_str()),
        None => ("failed", "no reason was recorded"),
    };
    let report = match code {
        "queue-full" => Report::queue_full(target, plan.limits.queue),
        "queue-timeout" => Report::queue_timeout(target, &show(plan.queue_timeout_ms)),
        "call-timeout" => Report::call_timeout(target, &show(plan.call_timeout_ms), message),
        _ if call.attempts <= 1 && crate::report::page(code).is_some() => {
            let code = crate::report::codes().find(|known| *known == code).expect("it has a page");
            Report::upstream(code, message)
        }
        _ if call.may_have_executed() => Report::attempts_exhausted(target, call.attempts, message)
            .hint("The policy declares it safe to repeat: call it again later, or tell the user that the server fails."),
        _ => Report::attempts_exhausted(target, call.attempts, message),
    };
    with_upstream_error(report, call)
}

fn in_doubt(call: &Call) -> Report {
    let why =
        call.trouble.as_ref().map_or("its answer was lost", |trouble| trouble.message.trim_end_matches('.'));
    with_upstream_error(Report::outcome_unknown(call.id, target(call), why), call)
}

/// The upstream's own error belongs to what the agent is told: it may say more than we know.
fn with_upstream_error(report: Report, call: &Call) -> Report {
    let Some(error) = call.trouble.as_ref().and_then(|trouble| trouble.upstream.as_ref()) else {
        return report;
    };
    let mut details = report.details.clone().unwrap_or_else(|| serde_json::json!({}));
    if let Some(details) = details.as_object_mut() {
        details.insert("upstream_error".into(), error.value());
    }
    report.details(details)
}

fn show(ms: u64) -> String {
    show_duration(ms)
}
