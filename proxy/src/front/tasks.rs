//! The Tasks extension (`io.modelcontextprotocol/tasks`, revision 2026-07-28): held calls as tasks.
//!
//! There is no table of tasks: a task's id is its call's, what it is comes from the journal each time, and so it outlives
//! proxy and agent alike. An id is worth nothing to another principal.

use std::{sync::Arc, time::Duration};

use holdfast_store::{Answer, AnswerKind, Call, CallId, Outcome, State};
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::{
    Front,
    body::{self, Outgoing},
    deliver,
    era::META_CAPABILITIES,
    listen::Link,
    problem::Problem,
    rpc::Request,
    splice::set_member,
};
use crate::{
    driver::{self, Body, News, Progress, Receipt, Reply},
    report::{Report, Target},
    times, wire,
};

/// The extension's name.
pub(super) const EXTENSION: &str = "io.modelcontextprotocol/tasks";
/// How often clients should ask: people are not faster.
const POLL_MS: u64 = 2_000;
/// How long `tasks/get` waits for what is there already.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Whether these client capabilities name the extension.
pub(super) fn are_known_to(capabilities: &Value) -> bool {
    capabilities
        .get("extensions")
        .and_then(|extensions| extensions.get(EXTENSION))
        .is_some_and(Value::is_object)
}

/// Refuses requests about tasks whose client does not say that it knows them.
///
/// # Errors
/// The capability that is missing.
pub(super) fn must_be_known(params: &Map<String, Value>) -> Result<(), Problem> {
    let declared = params.get("_meta").and_then(|meta| meta.get(META_CAPABILITIES));
    if declared.is_some_and(are_known_to) {
        return Ok(());
    }
    Err(Problem::missing_capability(json!({ "extensions": { EXTENSION: {} } })))
}

/// Whether a request is about a task of ours, which is a call, and not about one of a server.
pub(super) fn is_ours(params: &Map<String, Value>) -> bool {
    let id = params.get("taskId").and_then(Value::as_str).unwrap_or_default();
    !id.contains('~')
}

/// The task that a call is from now on, in place of its result. The call is in the journal already.
pub(super) fn created(call: &Call) -> String {
    let mut task = members(call, "working", None, None);
    task.insert("resultType".into(), "task".into());
    Value::Object(task).to_string()
}

/// Answers `tasks/get`, `tasks/update` and `tasks/cancel`.
///
/// # Errors
/// A client that knows no tasks, and a task that is not there, or not this principal's, which must look the same.
pub(super) async fn handle(
    front: &Arc<Front>,
    link: &Arc<Link>,
    request: &Request<'_>,
    method: &str,
    params: &Map<String, Value>,
) -> Result<Response<Outgoing>, Problem> {
    must_be_known(params)?;
    let id = params.get("taskId").and_then(Value::as_str);
    let id = id.and_then(|id| id.parse().ok()).ok_or_else(not_found)?;
    let known = match method {
        "tasks/cancel" => front.driver.withdraw(request.caller, id).await,
        _ => front.driver.look(request.caller, id).await.is_some(),
    };
    if !known {
        return Err(not_found());
    }
    if method == "tasks/get" {
        let (result, meta, receipt) = get(front, link, request, id).await.ok_or_else(not_found)?;
        let message = deliver::result(request.id, &result, request.era, &meta);
        return Ok(body::answer(link, request.accepts, StatusCode::OK, message, receipt));
    }
    if method == "tasks/update" && !params.get("inputResponses").is_some_and(Value::is_object) {
        let message = "params.inputResponses must be an object";
        return Err(Problem::invalid_params("invalid-arguments", message));
    }
    // Our tasks ask for nothing, so nothing that an update brings is outstanding.
    let message = deliver::result(request.id, "{}", request.era, &[]);
    Ok(body::answer(link, request.accepts, StatusCode::OK, message, Receipt::none()))
}

type Got = (String, Vec<(&'static str, Value)>, Receipt);

async fn get(front: &Arc<Front>, link: &Arc<Link>, request: &Request<'_>, id: CallId) -> Option<Got> {
    let call = front.driver.look(request.caller, id).await?;
    let reply = if driver::has_reply(&call) { collect(front, link, request, id).await } else { None };
    let Some(reply) = reply else {
        let (state, body) = (call.state.name(), Body::Handle(words(&call)));
        let reply = Reply { call: Some(id), state, replayed: false, body, receipt: Receipt::none() };
        let task = members(&call, "working", None, None);
        return Some((Value::Object(task).to_string(), deliver::meta(&reply), reply.receipt));
    };
    let keep = Some(front.rules().keep_answers_ms);
    let task = |status, message| Value::Object(members(&call, status, message, keep)).to_string();
    let result = match (&reply.body, call.state) {
        // Only an error of the protocol is a failed task; a tool that says "error" has completed.
        (Body::Answer(Answer { kind: AnswerKind::Error, text }), _) => {
            let message = text.value().get("message").and_then(Value::as_str).map(str::to_owned);
            set_member(&task("failed", message), "error", text)
        }
        (Body::Report(report), State::Done(Outcome::Cancelled)) => {
            task("cancelled", Some(report.message.to_string()))
        }
        _ => set_member(&task("completed", None), "result", &deliver::content(request.era, &reply)),
    };
    Some((result, deliver::meta(&reply), reply.receipt))
}

/// Collects what a call has come to, so that the driver knows that it was heard.
async fn collect(front: &Arc<Front>, link: &Link, request: &Request<'_>, call: CallId) -> Option<Reply> {
    let mut ticket =
        front.driver.collect(request.caller, link.number, call, Progress::Unwanted, request.client).await?;
    let reply = async {
        loop {
            if let News::Reply(reply) = ticket.next().await {
                return reply;
            }
        }
    };
    // There at once, unless an operator has sent a call in doubt again in this very moment, or Holdfast stops.
    let reply = tokio::time::timeout(AT_ONCE, reply).await.ok()?;
    let is_final = reply.call.is_some() && matches!(reply.body, Body::Answer(_) | Body::Report(_));
    is_final.then_some(reply)
}

/// What every shape of a task has. `keep_ms` is how long a call is kept that has ended; before, it is kept for good.
fn members(call: &Call, status: &str, message: Option<String>, keep_ms: Option<u64>) -> Map<String, Value> {
    let message = match status {
        "working" => Some(words(call).message.to_string()),
        _ => message,
    };
    let ended = call.state.is_done().then(|| call.since.since(call.accepted_at));
    let ttl = ended.zip(keep_ms).map(|(lived, keep)| lived.saturating_add(keep));
    let mut task = Map::new();
    task.insert("taskId".into(), call.id.to_string().into());
    task.insert("status".into(), status.into());
    if let Some(message) = message {
        task.insert("statusMessage".into(), message.into());
    }
    task.insert("createdAt".into(), times::iso(call.accepted_at).into());
    task.insert("lastUpdatedAt".into(), times::iso(call.since).into());
    task.insert("ttlMs".into(), ttl.into());
    task.insert("pollIntervalMs".into(), POLL_MS.into());
    task
}

/// Where a call stands that has not come to anything yet.
fn words(call: &Call) -> Report {
    let target = Target { server: &call.accepted.server, tool: &call.accepted.tool };
    if call.state.is_held() { Report::held(call.id, target, None) } else { Report::running(call.id, target) }
}

fn not_found() -> Problem {
    let message = "Task not found: there is none of this id for this agent, or it is no longer kept";
    Problem::new(StatusCode::OK, wire::INVALID_PARAMS, "not-found", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_extensions_own_name_counts() {
        let check = |capabilities: Value, expected: bool| {
            assert_eq!(are_known_to(&capabilities), expected, "{capabilities}");
        };
        check(json!({ "extensions": { EXTENSION: {} } }), true);
        check(json!({ "extensions": { EXTENSION: null } }), false);
        check(json!({ "extensions": { "io.modelcontextprotocol/task": {} } }), false);
        // Those of 2025-11-25 are others.
        check(json!({ "tasks": { "requests": { "tools": { "call": {} } } } }), false);
        check(json!({}), false);
    }
}
