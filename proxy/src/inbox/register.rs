//! Remembered decisions and the definitions of tools, as the API and the commands show and change them.

use std::sync::Arc;

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use holdfast_policy::parse_duration;
use holdfast_store::{Decider, Definition, Digest, Hash32, Millis, Remembered, RememberedId, Text};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Inbox,
    access::Signed,
    api::{blocking, no_call, problem, unavailable},
    decisions::{read, refusal},
    desk::Desk,
    ids,
};
use crate::{
    config::Role,
    driver::{DecideError, Wish},
    report::Report,
    upstream::Tool,
};

/// A remembered decision, as it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RememberedView {
    /// What was decided.
    pub(crate) decision: Remembered,
    /// For how many calls it has spoken.
    pub(crate) used: u32,
    /// Why it speaks for nothing any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) silenced: Option<String>,
}

impl RememberedView {
    /// Where it stands, in a word or two.
    pub(crate) fn standing(&self) -> String {
        match &self.silenced {
            Some(why) => format!("silent: {why}"),
            None if self.used >= self.decision.uses => "used up".to_owned(),
            None => "speaks".to_owned(),
        }
    }
}

/// A tool of a server, and whether its definition is trusted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ToolView {
    /// The server's name.
    pub(crate) server: String,
    /// The tool's name.
    pub(crate) tool: String,
    /// Whether calls of it are sent.
    pub(crate) state: Trust,
    /// Hash of its definition.
    pub(crate) hash: String,
    /// Its definition, as the server gave it.
    pub(crate) definition: Text,
    /// The definition that is trusted, where that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trusted: Option<Text>,
    /// Since when the trusted one is, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<Millis>,
    /// Who accepted that; nobody had to for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<Decider>,
}

/// What becomes of calls of a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Trust {
    /// They are decided by the policy.
    Trusted,
    /// Nothing is sent until an operator accepts the definition.
    Changed,
}

impl ToolView {
    /// The view of a tool as its server lists it, and of what is known of it.
    pub(crate) fn of(server: &str, tool: &Tool, known: Option<Definition>) -> Self {
        let is = |hash: Hash32| hash.to_string() == *tool.hash;
        let changed = known.as_ref().is_some_and(|known| !is(known.trusted.hash));
        Self {
            server: server.to_owned(),
            tool: tool.name.clone(),
            state: if changed { Trust::Changed } else { Trust::Trusted },
            hash: tool.hash.to_string(),
            definition: Text::of(&tool.definition),
            since: known.as_ref().map(|known| known.trusted.at),
            by: known.as_ref().and_then(|known| known.by.clone()),
            trusted: known.filter(|_| changed).map(|known| known.trusted.definition),
        }
    }

    /// Both definitions laid out line by line, the members of their objects in the order of the alphabet: what is no
    /// change is no difference.
    pub(crate) fn difference(&self) -> Vec<(Sign, String)> {
        let laid_out = |text: &Text| {
            let mut value = text.value();
            value.sort_all_objects();
            serde_json::to_string_pretty(&value).expect("JSON always serialises")
        };
        let Some(trusted) = &self.trusted else { return Vec::new() };
        let (before, after) = (laid_out(trusted), laid_out(&self.definition));
        let lines = similar::TextDiff::from_lines(&before, &after);
        let signed = lines.iter_all_changes().map(|line| {
            let sign = match line.tag() {
                similar::ChangeTag::Delete => Sign::Gone,
                similar::ChangeTag::Insert => Sign::New,
                similar::ChangeTag::Equal => Sign::Same,
            };
            (sign, line.value().trim_end_matches('\n').to_owned())
        });
        signed.collect()
    }
}

/// What has become of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It is as it was.
    Same,
    /// It was there.
    Gone,
    /// It was not.
    New,
}

impl Sign {
    /// As in a unified diff.
    pub(crate) fn mark(self) -> &'static str {
        match self {
            Self::Same => " ",
            Self::Gone => "-",
            Self::New => "+",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembering {
    digest: Digest,
    #[serde(default)]
    vary: Vec<String>,
    uses: u32,
    /// How long, as in the configuration: `30m`, `8h`, `7d`.
    #[serde(rename = "for")]
    for_: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Forgetting {
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Accepting {
    server: String,
    tool: String,
    /// The hash of the definition that was looked at.
    definition: Hash32,
}

/// `GET /api/v1/remembered`
pub(super) async fn remembered<D: Desk>(State(inbox): State<Arc<Inbox<D>>>) -> Response {
    Json(json!({ "remembered": inbox.desk.remembered() })).into_response()
}

/// `GET /api/v1/tools`
pub(super) async fn tools<D: Desk>(State(inbox): State<Arc<Inbox<D>>>) -> Response {
    Json(json!({ "tools": listed(&inbox.desk) })).into_response()
}

/// All tools of all servers, as far as they have been listed.
pub(super) fn listed(desk: &impl Desk) -> Vec<ToolView> {
    let servers = desk.servers();
    let tools = servers.iter().flat_map(|server| {
        let tools = desk.tools(&server.name).unwrap_or_default();
        let views: Vec<_> = tools.iter().map(|tool| view(desk, &server.name, tool)).collect();
        views
    });
    tools.collect()
}

/// A tool, with what is known of it.
pub(super) fn view(desk: &impl Desk, server: &str, tool: &Tool) -> ToolView {
    ToolView::of(server, tool, desk.definition(server, &tool.name))
}

/// `POST /api/v1/calls/{id}/remember`: `{"digest": "...", "vary": ["reference"], "uses": 10, "for": "8h"}`
pub(super) async fn remember<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(signed): Extension<Signed>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(response) = signed.require(Role::Approver) {
        return *response;
    }
    let wish = read(&headers, &body).and_then(|Remembering { digest, vary, uses, for_ }| {
        Ok(Wish { digest, vary, uses, for_ms: span(&for_)? })
    });
    let wish = match wish {
        Ok(wish) => wish,
        Err(report) => return problem(StatusCode::BAD_REQUEST, &report),
    };
    let (journal, text) = (inbox.desk.journal(), id.clone());
    let call = match blocking(move || Ok(ids::find(&*journal, &text))).await {
        Ok(Ok(call)) => call,
        Ok(Err(missing)) => return no_call(&id, missing),
        Err(error) => return unavailable(&error),
    };
    match inbox.desk.remember(call, signed.by.clone(), wish).await {
        Ok(view) => Json(view).into_response(),
        Err(error) => {
            let (status, report) = refusal(call, error);
            problem(status, &report)
        }
    }
}

/// How long a decision is to be remembered, in milliseconds.
///
/// # Errors
/// What to write.
pub(super) fn span(text: &str) -> Result<u64, Report> {
    let span = parse_duration(text.trim()).ok_or_else(|| {
        Report::bad_request(format!("`{text}` is no span of time")).hint("Write 30m, 8h or 7d.")
    })?;
    Ok(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

/// `POST /api/v1/remembered/{id}/forget`: `{"reason": "..."}`
pub(super) async fn forget<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(signed): Extension<Signed>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(response) = signed.require(Role::Approver) {
        return *response;
    }
    let reason = match read(&headers, &body) {
        Ok(Forgetting { reason }) => reason,
        Err(report) => return problem(StatusCode::BAD_REQUEST, &report),
    };
    let forgotten = match find(&inbox.desk, &id) {
        Some(id) => inbox.desk.forget(id, signed.by.clone(), reason).await,
        None => Err(DecideError::NotFound),
    };
    outcome(forgotten, &format!("the remembered decision `{id}`"), json!({ "forgotten": true }))
}

/// The one whose id is, or ends in, `text`.
pub(super) fn find(desk: &impl Desk, text: &str) -> Option<RememberedId> {
    let all = desk.remembered();
    let ends = |view: &&RememberedView| text.len() >= 4 && view.decision.id.to_string().ends_with(text);
    let mut found = all.iter().filter(ends);
    let one = found.next()?;
    found.next().is_none().then_some(one.decision.id)
}

/// `POST /api/v1/tools/accept`: `{"server": "bank", "tool": "transfer", "definition": "HASH"}`
pub(super) async fn accept<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(signed): Extension<Signed>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    // What a tool is decides what every later approval means.
    if let Err(response) = signed.require(Role::Admin) {
        return *response;
    }
    let Accepting { server, tool, definition } = match read(&headers, &body) {
        Ok(accepting) => accepting,
        Err(report) => return problem(StatusCode::BAD_REQUEST, &report),
    };
    let accepted = inbox.desk.trust(&server, &tool, definition, signed.by.clone()).await;
    outcome(accepted, &format!("tool `{tool}` of server `{server}`"), json!({ "accepted": definition }))
}

fn outcome(done: Result<(), DecideError>, what: &str, said: Value) -> Response {
    match done {
        Ok(()) => Json(said).into_response(),
        Err(error) => {
            let (status, report) = words(error, what);
            problem(status, &report)
        }
    }
}

/// Status and words for what was not done about `what`.
pub(super) fn words(error: DecideError, what: &str) -> (StatusCode, Report) {
    match error {
        DecideError::NotFound => {
            (StatusCode::NOT_FOUND, Report::new("not-found", format!("there is no {what}")))
        }
        DecideError::NotAllowed(why) => (StatusCode::FORBIDDEN, Report::forbidden(format!("{what}: {why}"))),
        DecideError::Illegal(why) => {
            let report = Report::new("not-now", format!("{what}: {why}")).hint("Look at it again.");
            (StatusCode::CONFLICT, report)
        }
        DecideError::Stale { .. } => {
            (StatusCode::CONFLICT, Report::new("not-now", format!("{what} has changed")))
        }
        DecideError::Journal(why) => (StatusCode::SERVICE_UNAVAILABLE, Report::journal_unavailable(&why)),
    }
}
