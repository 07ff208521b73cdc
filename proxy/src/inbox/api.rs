//! The reading half of the API. Nothing here changes anything.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json,
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use holdfast_policy::parse_duration;
use holdfast_store::{CallId, Filter, JournalError, Millis, State as CallState, Verified, VerifyError};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Inbox,
    desk::{Desk, ServerHealth},
    failure::Failure,
    ids::{self, NoCall},
    openapi::Operation,
    routes::Output,
    strict::{Asked, Named},
    view::{self, Detail, Listing, Pending},
};
use crate::{driver::now, notify::SinkHealth, report::Report};

/// Query of `GET /api/v1/calls`; all given conditions hold.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CallsQuery {
    /// Names of states, separated by commas.
    #[serde(default)]
    #[schemars(schema_with = "states_shape")]
    state: Option<String>,
    server: Option<String>,
    tool: Option<String>,
    run: Option<String>,
    /// Milliseconds since 1970, or how long ago (`2h`).
    #[schemars(regex(pattern = "^[0-9]{1,15}(ms|s|m|h|d)?$"))]
    since: Option<String>,
    /// An id: only older calls.
    #[schemars(extend("format" = "uuid"))]
    before: Option<String>,
    /// At most this many; 100 without it, at most 1000.
    limit: Option<usize>,
}

fn states_shape(_: &mut SchemaGenerator) -> Schema {
    let names: Vec<&str> = CallState::ALL.into_iter().map(CallState::name).collect();
    let name = names.join("|");
    json_schema!({ "type": "string", "pattern": format!("^(({name})(,({name}))*)?$") })
}

const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1_000;

/// `GET /api/v1/calls`
pub(super) async fn calls<D: Desk>(
    inbox: Arc<Inbox<D>>,
    Asked(query): Asked<CallsQuery>,
) -> Result<Json<Listing>, Failure> {
    let filter = filter(query, now())?;
    let journal = inbox.desk.journal();
    Ok(Json(blocking(move || view::listing(&*journal, &filter)).await?))
}

/// `GET /api/v1/calls/{id}`
pub(super) async fn call<D: Desk>(
    inbox: Arc<Inbox<D>>,
    Named { id }: Named,
) -> Result<Json<Detail>, Failure> {
    let journal = inbox.desk.journal();
    let found = blocking(move || {
        let detail = match ids::find(&*journal, &id) {
            Ok(call) => view::detail(&*journal, call)?.ok_or(NoCall::Unknown),
            Err(missing) => Err(missing),
        };
        Ok(detail.map_err(|missing| no_call_words(&id, &missing)))
    });
    Ok(Json(found.await??))
}

/// Query of `GET /api/v1/pending`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PendingQuery {
    /// An id: only what was accepted after that call.
    #[schemars(extend("format" = "uuid"))]
    after: Option<String>,
    /// At most this many; 100 without it, at most 1000.
    limit: Option<usize>,
}

/// `GET /api/v1/pending`
pub(super) async fn pending<D: Desk>(
    inbox: Arc<Inbox<D>>,
    Asked(query): Asked<PendingQuery>,
) -> Result<Json<Pending>, Failure> {
    let after = query.after.map(|id| whole_id("after", &id)).transpose()?;
    let limit = page(query.limit);
    let journal = inbox.desk.journal();
    Ok(Json(blocking(move || view::pending(&*journal, after, limit)).await?))
}

fn page(limit: Option<usize>) -> usize {
    limit.unwrap_or(PAGE).clamp(1, LARGEST_PAGE)
}

fn whole_id(name: &str, id: &str) -> Result<CallId, Report> {
    id.parse().map_err(|_| Report::bad_request(format!("`{name}` is a whole call id, not `{id}`")))
}

/// What checking the journal's chain came to.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Verdict {
    /// It is whole.
    Whole {
        #[schemars(extend("const" = true))]
        ok: bool,
        #[serde(flatten)]
        chain: Verified,
    },
    /// This entry is not the one that was written.
    Broken {
        #[schemars(extend("const" = false))]
        ok: bool,
        seq: u64,
        what: String,
    },
}

impl Verdict {
    /// As JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::to_value(self).expect("our own shapes always serialise")
    }
}

/// `GET /api/v1/verify`
pub(super) async fn verify<D: Desk>(inbox: Arc<Inbox<D>>, (): ()) -> Result<Json<Verdict>, Failure> {
    let (journal, answers) = (inbox.desk.journal(), inbox.desk.answers());
    let check = move || match answers {
        Some(answers) => verdict(answers.verify()),
        None => verdict(journal.verify(&mut |_| {})),
    };
    Ok(Json(blocking(check).await?))
}

/// What `verify` found, as the API and `--json` give it.
///
/// # Errors
/// Where the journal itself failed.
pub(crate) fn verdict(verified: Result<Verified, VerifyError>) -> Result<Verdict, JournalError> {
    match verified {
        Ok(chain) => Ok(Verdict::Whole { ok: true, chain }),
        Err(VerifyError::Broken { seq, what }) => Ok(Verdict::Broken { ok: false, seq, what }),
        Err(VerifyError::Journal(error)) => Err(error),
    }
}

/// The servers behind us.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Servers {
    servers: Vec<ServerHealth>,
}

/// `GET /api/v1/servers`
pub(super) async fn servers<D: Desk>(inbox: Arc<Inbox<D>>, (): ()) -> Result<Json<Servers>, Failure> {
    Ok(Json(Servers { servers: inbox.desk.servers() }))
}

/// Who is told when somebody is needed.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Notifications {
    notifications: Vec<SinkHealth>,
}

/// `GET /api/v1/notifications`
pub(super) async fn notifications<D: Desk>(
    inbox: Arc<Inbox<D>>,
    (): (),
) -> Result<Json<Notifications>, Failure> {
    Ok(Json(Notifications { notifications: inbox.notifications.all() }))
}

/// The process answers.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Alive {
    ok: bool,
}

/// `GET /healthz`
pub(super) async fn healthz<D: Desk>(_: Arc<Inbox<D>>, (): ()) -> Result<Json<Alive>, Failure> {
    Ok(Json(Alive { ok: true }))
}

/// Whether calls can be taken.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Ready {
    ready: bool,
    /// Why not: parts and what is the matter with them.
    reasons: BTreeMap<&'static str, String>,
}

impl Output for Ready {
    fn respond(self) -> Response {
        let status = if self.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Json(self)).into_response()
    }

    fn describe(operation: Operation) -> Operation {
        operation
            .gives::<Self>(StatusCode::OK, "Calls can be taken.")
            .gives::<Self>(StatusCode::SERVICE_UNAVAILABLE, "They cannot.")
    }
}

/// `GET /readyz`
pub(super) async fn readyz<D: Desk>(inbox: Arc<Inbox<D>>, (): ()) -> Result<Ready, Failure> {
    let mut reasons = inbox.readiness.reasons();
    let journal = inbox.desk.journal();
    let read = blocking(move || journal.list(&Filter { limit: 1, ..Filter::default() }));
    match tokio::time::timeout(Duration::from_secs(2), read).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => drop(reasons.insert("journal", error.to_string())),
        Err(_) => drop(reasons.insert("journal", "it did not answer within 2s".to_owned())),
    }
    Ok(Ready { ready: reasons.is_empty(), reasons })
}

/// Every other path.
pub(super) async fn nothing_here(uri: Uri) -> Response {
    let report = Report::new("not-found", format!("there is nothing at {}", uri.path()))
        .hint("GET / is the page; GET /api/v1/openapi.json says what the API has.");
    problem(StatusCode::NOT_FOUND, &report)
}

/// An error as JSON: code, message, hint, details.
pub(super) fn problem(status: StatusCode, report: &Report) -> Response {
    (status, Json(report.json())).into_response()
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

fn filter(query: CallsQuery, now: Millis) -> Result<Filter, Report> {
    let states = query.state.as_deref().map(states).transpose()?.unwrap_or_default();
    let since = query.since.as_deref().map(|text| since(text, now)).transpose()?;
    Ok(Filter {
        states,
        server: query.server.filter(|text| !text.is_empty()),
        tool: query.tool.filter(|text| !text.is_empty()),
        run: query.run.filter(|text| !text.is_empty()),
        since,
        before: query.before.map(|id| whole_id("before", &id)).transpose()?,
        limit: page(query.limit),
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
