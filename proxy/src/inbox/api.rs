//! The reading half of the API. Nothing here changes anything.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, Query, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use holdfast_policy::parse_duration;
use holdfast_store::{CallId, Filter, JournalError, Millis, State as CallState, VerifyError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Inbox,
    desk::Desk,
    ids::{self, NoCall},
    view,
};
use crate::{driver::now, report::Report};

/// Query of `GET /api/v1/calls`; all given conditions hold.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CallsQuery {
    /// Names of states, separated by commas.
    state: Option<String>,
    server: Option<String>,
    tool: Option<String>,
    run: Option<String>,
    /// Milliseconds since 1970, or how long ago (`2h`).
    since: Option<String>,
    /// An id: only older calls.
    before: Option<String>,
    /// At most this many; 100 without it, at most 1000.
    limit: Option<usize>,
}

const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1_000;

/// `GET /api/v1/calls`
pub(super) async fn calls<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    query: Result<Query<CallsQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let filter = match query {
        Ok(Query(query)) => filter(query, now()),
        Err(rejection) => Err(Report::bad_request(rejection.body_text())),
    };
    let filter = match filter {
        Ok(filter) => filter,
        Err(report) => return problem(StatusCode::BAD_REQUEST, &report),
    };
    let journal = inbox.desk.journal();
    answer(blocking(move || view::listing(&*journal, &filter)).await)
}

/// `GET /api/v1/calls/{id}`
pub(super) async fn call<D: Desk>(State(inbox): State<Arc<Inbox<D>>>, Path(id): Path<String>) -> Response {
    let journal = inbox.desk.journal();
    let found = blocking(move || {
        let call = match ids::find(&*journal, &id) {
            Ok(call) => call,
            Err(missing) => return Ok(Err(no_call(&id, missing))),
        };
        Ok(view::detail(&*journal, call)?.ok_or_else(|| no_call(&id, NoCall::Unknown)))
    });
    match found.await {
        Ok(Ok(detail)) => Json(detail).into_response(),
        Ok(Err(response)) => response,
        Err(error) => unavailable(&error),
    }
}

/// `GET /api/v1/pending`
pub(super) async fn pending<D: Desk>(State(inbox): State<Arc<Inbox<D>>>) -> Response {
    let journal = inbox.desk.journal();
    answer(blocking(move || view::pending(&*journal)).await.map(|pending| json!({ "pending": pending })))
}

/// `GET /api/v1/verify`
pub(super) async fn verify<D: Desk>(State(inbox): State<Arc<Inbox<D>>>) -> Response {
    let journal = inbox.desk.journal();
    answer(blocking(move || verdict(journal.verify(&mut |_| {}))).await)
}

/// What `verify` found, as the API and `--json` give it.
///
/// # Errors
/// Where the journal itself failed.
pub(crate) fn verdict(
    verified: Result<holdfast_store::Verified, VerifyError>,
) -> Result<Value, JournalError> {
    match verified {
        Ok(chain) => {
            Ok(json!({ "ok": true, "entries": chain.entries, "pruned": chain.pruned, "head": chain.head }))
        }
        Err(VerifyError::Broken { seq, what }) => Ok(json!({ "ok": false, "seq": seq, "what": what })),
        Err(VerifyError::Journal(error)) => Err(error),
    }
}

/// `GET /api/v1/servers`
pub(super) async fn servers<D: Desk>(State(inbox): State<Arc<Inbox<D>>>) -> Response {
    Json(json!({ "servers": inbox.desk.servers() })).into_response()
}

/// `GET /api/v1/notifications`
pub(super) async fn notifications<D: Desk>(State(inbox): State<Arc<Inbox<D>>>) -> Response {
    Json(json!({ "notifications": inbox.notifications.all() })).into_response()
}

/// `GET /healthz`: the process answers.
pub(super) async fn healthz() -> Response {
    Json(json!({ "ok": true })).into_response()
}

/// `GET /readyz`: calls can be taken.
pub(super) async fn readyz<D: Desk>(State(inbox): State<Arc<Inbox<D>>>) -> Response {
    let mut reasons = inbox.readiness.reasons();
    let journal = inbox.desk.journal();
    let read = blocking(move || journal.list(&Filter { limit: 1, ..Filter::default() }));
    match tokio::time::timeout(Duration::from_secs(2), read).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => drop(reasons.insert("journal", error.to_string())),
        Err(_) => drop(reasons.insert("journal", "it did not answer within 2s".to_owned())),
    }
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": reasons.is_empty(), "reasons": reasons }))).into_response()
}

/// Every other path.
pub(super) async fn nothing_here(uri: Uri) -> Response {
    let report = Report::new("not-found", format!("there is nothing at {}", uri.path()))
        .hint("GET / is the page; GET /api/v1/calls, /pending and /servers are where the API starts.");
    problem(StatusCode::NOT_FOUND, &report)
}

/// An error as JSON: code, message, hint, details.
pub(super) fn problem(status: StatusCode, report: &Report) -> Response {
    (status, Json(report.json())).into_response()
}

/// The response for an id that names no call.
pub(super) fn no_call(id: &str, missing: NoCall) -> Response {
    let (status, report) = no_call_words(id, &missing);
    problem(status, &report)
}

/// Status and words for an id that names no call.
pub(crate) fn no_call_words(id: &str, missing: &NoCall) -> (StatusCode, Report) {
    match missing {
        NoCall::Malformed => (
            StatusCode::BAD_REQUEST,
            Report::bad_request(format!("`{id}` is no call id"))
                .hint("Give the id, or at least 4 digits of its beginning or end."),
        ),
        NoCall::Unknown => (StatusCode::NOT_FOUND, Report::not_found(id)),
        NoCall::Ambiguous(calls) => {
            let list: Vec<String> = calls.iter().map(ToString::to_string).collect();
            let report = Report::bad_request(format!("`{id}` can mean several calls: {}", list.join(", ")))
                .hint("Give more digits; the end of an id differs most.");
            (StatusCode::CONFLICT, report)
        }
        NoCall::Journal(error) => {
            (StatusCode::SERVICE_UNAVAILABLE, Report::journal_unavailable(&error.to_string()))
        }
    }
}

/// The response for a journal that cannot be read.
pub(super) fn unavailable(error: &JournalError) -> Response {
    problem(StatusCode::SERVICE_UNAVAILABLE, &Report::journal_unavailable(&error.to_string()))
}

/// Journals block, so they are read on threads that may.
pub(super) async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, JournalError> + Send + 'static,
) -> Result<T, JournalError> {
    let task = tokio::task::spawn_blocking(read).await;
    task.unwrap_or_else(|error| Err(JournalError::Io(error.to_string().into())))
}

fn answer(found: Result<impl serde::Serialize, JournalError>) -> Response {
    match found {
        Ok(found) => Json(found).into_response(),
        Err(error) => unavailable(&error),
    }
}

fn filter(query: CallsQuery, now: Millis) -> Result<Filter, Report> {
    let states = query.state.as_deref().map(states).transpose()?.unwrap_or_default();
    let since = query.since.as_deref().map(|text| since(text, now)).transpose()?;
    let before = query.before.map(|id| {
        id.parse::<CallId>()
            .map_err(|_| Report::bad_request(format!("`before` is a whole call id, not `{id}`")))
    });
    Ok(Filter {
        states,
        server: query.server.filter(|text| !text.is_empty()),
        tool: query.tool.filter(|text| !text.is_empty()),
        run: query.run.filter(|text| !text.is_empty()),
        since,
        before: before.transpose()?,
        limit: query.limit.unwrap_or(PAGE).clamp(1, LARGEST_PAGE),
    })
}

/// Names of states, separated by commas.
///
/// # Errors
/// The names that there are.
pub(crate) fn states(text: &str) -> Result<Vec<CallState>, Report> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names
        .map(|name| {
            CallState::from_name(name).ok_or_else(|| {
                let known: Vec<&str> = CallState::ALL.into_iter().map(CallState::name).collect();
                Report::bad_request(format!("`{name}` is no state"))
                    .hint(format!("Known: {}.", known.join(", ")))
            })
        })
        .collect()
}

/// Milliseconds since 1970, or how long ago.
///
/// # Errors
/// What to write.
pub(crate) fn since(text: &str, now: Millis) -> Result<Millis, Report> {
    if let Ok(ms) = text.parse() {
        return Ok(Millis(ms));
    }
    let ago = parse_duration(text).ok_or_else(|| {
        Report::bad_request(format!("`{text}` is no time"))
            .hint("Write how long ago (30m, 2h, 7d), or milliseconds since 1970.")
    })?;
    Ok(Millis(now.0.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX))))
}
