//! The deciding half of the API: POST with an operator's token and the digest that was looked at.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use holdfast_store::{Answer, AnswerKind, CallId, Digest, Resolution, Text};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json, value::RawValue};

use super::{
    Inbox,
    access::Signed,
    api::{blocking, no_call, problem},
    desk::{Decision, Desk},
    ids,
};
use crate::{config::Role, driver::DecideError, report::Report, wire::read_strictly};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Approval {
    digest: Digest,
    /// Why the gates are passed over.
    #[serde(default)]
    break_glass: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    digest: Digest,
    arguments: Box<RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answering {
    digest: Digest,
    answer: Box<RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecondThoughts {
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rejection {
    digest: Digest,
    #[serde(default)]
    reason: String,
}

/// Exactly one of the three.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settlement {
    #[serde(default)]
    happened: Option<Box<RawValue>>,
    #[serde(default)]
    not_sent: bool,
    #[serde(default)]
    give_up: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// `POST /api/v1/calls/{id}/approve`: `{"digest": "..."}`
pub(super) async fn approve<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(signed): Extension<Signed>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let decision = read(&headers, &body).and_then(|Approval { digest, break_glass }| match break_glass {
        None => Ok(Decision::Approve(digest)),
        Some(why) => signed.may_break_glass(&why).map(|()| Decision::BreakGlass(digest, why)),
    });
    carry_out(&inbox, &signed, Role::Approver, id, decision).await
}

/// `POST /api/v1/calls/{id}/revoke`: `{"reason": "..."}`
pub(super) async fn revoke<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(signed): Extension<Signed>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let decision =
        read_optional(&headers, &body).map(|SecondThoughts { reason }| Decision::Revoke(some_reason(reason)));
    carry_out(&inbox, &signed, Role::Approver, id, decision).await
}

/// `POST /api/v1/calls/{id}/edit`: `{"digest": "...", "arguments": {...}}`
pub(super) async fn edit<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(signed): Extension<Signed>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let decision = read(&headers, &body).and_then(|Edit { digest, arguments }| {
        Ok(Decision::Edit(digest, arguments_of(arguments.get(), inbox.max_depth)?))
    });
    carry_out(&inbox, &signed, Role::Approver, id, decision).await
}

/// `POST /api/v1/calls/{id}/respond`: `{"digest": "...", "answer": ANSWER}`
pub(super) async fn respond<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(signed): Extension<Signed>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let decision = read(&headers, &body)
        .map(|Answering { digest, answer }| Decision::Respond(digest, answer_of(answer.get())));
    carry_out(&inbox, &signed, Role::Approver, id, decision).await
}

/// `POST /api/v1/calls/{id}/reject`: `{"digest": "...", "reason": "..."}`
pub(super) async fn reject<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(signed): Extension<Signed>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let decision = read(&headers, &body)
        .map(|Rejection { digest, reason }| Decision::Reject(digest, some_reason(reason)));
    carry_out(&inbox, &signed, Role::Approver, id, decision).await
}

/// `POST /api/v1/calls/{id}/resolve`: `{"happened": ANSWER}`, `{"not_sent": true}` or `{"give_up": true}`
pub(super) async fn resolve<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(signed): Extension<Signed>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let decision = read(&headers, &body).and_then(settlement).map(Decision::Resolve);
    carry_out(&inbox, &signed, Role::Approver, id, decision).await
}

/// `POST /api/v1/calls/{id}/cancel`
pub(super) async fn cancel<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(signed): Extension<Signed>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let decision = read_optional(&headers, &body).map(|Nothing {}| Decision::Cancel);
    carry_out(&inbox, &signed, Role::Approver, id, decision).await
}

/// `POST /api/v1/calls/{id}/release`: a second execution becomes possible, so it takes an admin
pub(super) async fn release<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(signed): Extension<Signed>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let decision = read_optional(&headers, &body).map(|Nothing {}| Decision::Release);
    carry_out(&inbox, &signed, Role::Admin, id, decision).await
}

async fn carry_out<D: Desk>(
    inbox: &Inbox<D>,
    signed: &Signed,
    role: Role,
    id: String,
    decision: Result<Decision, Report>,
) -> Response {
    if let Err(response) = signed.require(role) {
        return *response;
    }
    let decision = match decision {
        Ok(decision) => decision,
        Err(report) if report.code == "forbidden" => return problem(StatusCode::FORBIDDEN, &report),
        Err(report) => return problem(StatusCode::BAD_REQUEST, &report),
    };
    let journal = inbox.desk.journal();
    let text = id.clone();
    let call = match blocking(move || Ok(ids::find(&*journal, &text))).await {
        Ok(Ok(call)) => call,
        Ok(Err(missing)) => return no_call(&id, missing),
        Err(error) => return super::api::unavailable(&error),
    };
    match inbox.desk.decide(call, signed.by.clone(), decision).await {
        Ok(state) => Json(json!({ "call": call, "state": state.name() })).into_response(),
        Err(error) => refused(call, error),
    }
}

fn refused(call: CallId, error: DecideError) -> Response {
    let (status, report) = refusal(call, error);
    problem(status, &report)
}

/// Status and words for a decision that was not taken.
pub(super) fn refusal(call: CallId, error: DecideError) -> (StatusCode, Report) {
    match error {
        DecideError::NotFound => (StatusCode::NOT_FOUND, Report::not_found(&call.to_string())),
        DecideError::Stale { digest } => (StatusCode::CONFLICT, Report::stale_digest(call, digest)),
        DecideError::NotAllowed(why) => {
            (StatusCode::FORBIDDEN, Report::forbidden(format!("call {call}: {why}")))
        }
        DecideError::Illegal(why) => (StatusCode::CONFLICT, Report::not_now(call, &why)),
        DecideError::Journal(why) => (StatusCode::SERVICE_UNAVAILABLE, Report::journal_unavailable(&why)),
    }
}

fn some_reason(reason: String) -> String {
    if reason.trim().is_empty() { "no reason was given".to_owned() } else { reason }
}

/// Other arguments for a call, read as strictly as an agent's.
///
/// # Errors
/// What is wrong with them.
pub(super) fn arguments_of(text: &str, max_depth: usize) -> Result<Value, Report> {
    match read_strictly(text, max_depth) {
        Ok(arguments @ Value::Object(_)) => Ok(arguments),
        Ok(_) => Err(Report::bad_request("the arguments must be a JSON object")),
        Err(fault) => Err(Report::bad_request(format!("the arguments cannot be read: {fault}"))),
    }
}

fn read_optional<T: DeserializeOwned + Default>(headers: &HeaderMap, body: &[u8]) -> Result<T, Report> {
    if body.is_empty() { Ok(T::default()) } else { read(headers, body) }
}

/// The body of a POST as JSON.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Report> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    // A page of another origin can send a form or plain text unasked, but not this.
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Err(
            Report::bad_request("the body must be JSON").hint("Send `Content-Type: application/json`.")
        );
    }
    serde_json::from_slice(body).map_err(|error| {
        Report::bad_request(format!("the body cannot be read: {error}"))
            .hint("Approving, rejecting, editing and responding need the `digest` of `GET /api/v1/calls/ID`.")
    })
}

fn settlement(settlement: Settlement) -> Result<Resolution, Report> {
    match settlement {
        Settlement { happened: Some(answer), not_sent: false, give_up: false } => {
            Ok(Resolution::Happened(answer_of(answer.get())))
        }
        Settlement { happened: None, not_sent: true, give_up: false } => Ok(Resolution::NotSent),
        Settlement { happened: None, not_sent: false, give_up: true } => Ok(Resolution::GaveUp),
        _ => Err(Report::bad_request("say exactly one of `happened`, `not_sent` and `give_up`")),
    }
}

/// A tool result as it is; anything else becomes the content of one.
pub(super) fn answer_of(text: &str) -> Answer {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    if value.get("content").is_some_and(Value::is_array) {
        let failed = value.get("isError") == Some(&Value::Bool(true));
        let kind = if failed { AnswerKind::ToolError } else { AnswerKind::Result };
        let text = Text::parse(text).unwrap_or_else(|_| Text::of(&value));
        return Answer { kind, text };
    }
    let words = value.as_str().map_or_else(|| text.to_owned(), str::to_owned);
    let mut result = json!({ "content": [{ "type": "text", "text": words }] });
    if value.is_object() {
        result["structuredContent"] = value;
    }
    Answer { kind: AnswerKind::Result, text: Text::of(&result) }
}
