//! Remembered decisions and the definitions of tools, as the API and the commands show and change them.

use std::sync::Arc;

use axum::{Json, http::StatusCode};
use holdfast_policy::parse_duration;
use holdfast_store::{Decider, Definition, Digest, Hash32, Millis, Remembered, RememberedId, Text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    Inbox,
    api::{blocking, no_call_words},
    decisions::refusal,
    desk::Desk,
    failure::Failure,
    ids,
    strict::{Input, Named},
};
use crate::{
    config::Role,
    driver::{DecideError, Wish},
    report::Report,
    upstream::Tool,
};

/// A remembered decision, as it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Trust {
    /// They are decided by the policy.
    Trusted,
    /// Nothing is sent until an operator accepts the definition.
    Changed,
    /// The definition is not recorded: not yet, or because it cannot be. Nothing is sent before it is.
    Unrecorded,
}

impl ToolView {
    /// The view of a tool as its server lists it, and of what is known of it.
    pub(crate) fn of(server: &str, tool: &Tool, known: Option<Definition>) -> Self {
        let is = |hash: Hash32| hash == *tool.hash;
        let changed = known.as_ref().is_some_and(|known| !is(known.trusted.hash));
        Self {
            server: server.to_owned(),
            tool: tool.name.clone(),
            state: match known {
                None => Trust::Unrecorded,
                Some(_) if changed => Trust::Changed,
                Some(_) => Trust::Trusted,
            },
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

/// All that is remembered.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct AllRemembered {
    remembered: Vec<RememberedView>,
}

/// `GET /api/v1/remembered`
pub(super) async fn remembered<D: Desk>(
    inbox: Arc<Inbox<D>>,
    (): (),
) -> Result<Json<AllRemembered>, Failure> {
    Ok(Json(AllRemembered { remembered: inbox.desk.remembered() }))
}

/// All tools of all servers.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct AllTools {
    tools: Vec<ToolView>,
}

/// `GET /api/v1/tools`
pub(super) async fn tools<D: Desk>(inbox: Arc<Inbox<D>>, (): ()) -> Result<Json<AllTools>, Failure> {
    Ok(Json(AllTools { tools: listed(&inbox.desk) }))
}

/// All tools of all servers, as far as they have been listed.
pub(super) fn listed(desk: &impl Desk) -> Vec<ToolView> {
    let mut views = Vec::new();
    for server in desk.servers() {
        for tool in desk.tools(&server.name).unwrap_or_default().iter() {
            views.push(ToolView::of(&server.name, tool, desk.definition(&server.name, &tool.name)));
        }
    }
    views
}

/// Something that an operator does with a POST: what its body says, and what comes of it.
pub(super) trait Act: DeserializeOwned + JsonSchema + Send + 'static {
    /// Its path.
    const PATH: &'static str;
    /// Its name in the API's description.
    const NAME: &'static str;
    /// In a few words.
    const SUMMARY: &'static str;
    /// Who may.
    const ROLE: Role;
    /// What the path names.
    type Target: Input;
    /// What is answered.
    type Given: Serialize + JsonSchema + Send + 'static;

    /// # Errors
    /// Why nothing changed.
    fn act<D: Desk>(
        self,
        inbox: &Inbox<D>,
        by: Decider,
        target: Self::Target,
    ) -> impl Future<Output = Result<Self::Given, Failure>> + Send;
}

/// Have your approval of this call speak for later calls like it, too.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Remembering {
    /// What you approved.
    digest: Digest,
    /// Arguments that may be anything, or missing; all others must be as in this call.
    #[serde(default)]
    vary: Vec<String>,
    /// For how many calls: 1 to 1000.
    uses: u32,
    /// For how long, a minute to 30 days: `30m`, `8h`, `7d`.
    #[serde(rename = "for")]
    span: String,
}

impl Act for Remembering {
    const PATH: &'static str = "/api/v1/calls/{id}/remember";
    const NAME: &'static str = "remember";
    const SUMMARY: &'static str = "Lets your approval speak for later calls, too";
    const ROLE: Role = Role::Approver;
    type Target = Named;
    type Given = RememberedView;

    async fn act<D: Desk>(
        self,
        inbox: &Inbox<D>,
        by: Decider,
        Named { id }: Named,
    ) -> Result<RememberedView, Failure> {
        let Self { digest, vary, uses, span: length } = self;
        let wish = Wish::new(digest, vary, uses, span(&length)?).map_err(Report::bad_request)?;
        let journal = inbox.desk.journal();
        let found =
            blocking(move || Ok(ids::find(&*journal, &id).map_err(|missing| no_call_words(&id, &missing))));
        let call = found.await??;
        inbox.desk.remember(call, by, wish).await.map_err(|error| refusal(call, error).into())
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

/// Have a remembered decision speak for nothing any more.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Forgetting {
    /// Why.
    #[serde(default)]
    reason: String,
}

/// What was done.
#[derive(Serialize, JsonSchema)]
pub(super) struct Forgotten {
    forgotten: RememberedId,
}

impl Act for Forgetting {
    const PATH: &'static str = "/api/v1/remembered/{id}/forget";
    const NAME: &'static str = "forget";
    const SUMMARY: &'static str = "Ends a remembered decision";
    const ROLE: Role = Role::Approver;
    type Target = Named;
    type Given = Forgotten;

    async fn act<D: Desk>(
        self,
        inbox: &Inbox<D>,
        by: Decider,
        Named { id }: Named,
    ) -> Result<Forgotten, Failure> {
        let what = format!("remembered decision `{id}`");
        let id = find(&inbox.desk, &id).ok_or_else(|| words(DecideError::NotFound, &what))?;
        inbox.desk.forget(id, by, self.reason).await.map_err(|error| words(error, &what))?;
        Ok(Forgotten { forgotten: id })
    }
}

/// The one whose id is, begins with or ends in `text`.
pub(super) fn find(desk: &impl Desk, text: &str) -> Option<RememberedId> {
    let all = desk.remembered();
    let named = |view: &&RememberedView| {
        let id = view.decision.id.to_string();
        text.len() >= 4 && (id.starts_with(text) || id.ends_with(text))
    };
    let mut found = all.iter().filter(named);
    let one = found.next()?;
    found.next().is_none().then_some(one.decision.id)
}

/// Accept the definition that a tool has now.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Accepting {
    server: String,
    tool: String,
    /// The hash of the definition that was looked at.
    definition: Hash32,
}

/// What is trusted from now on.
#[derive(Serialize, JsonSchema)]
pub(super) struct Accepted {
    accepted: Hash32,
}

impl Act for Accepting {
    const PATH: &'static str = "/api/v1/tools/accept";
    const NAME: &'static str = "accept";
    const SUMMARY: &'static str = "Accepts the changed definition of a tool";
    // What a tool is decides what every later approval means.
    const ROLE: Role = Role::Admin;
    type Target = ();
    type Given = Accepted;

    async fn act<D: Desk>(self, inbox: &Inbox<D>, by: Decider, (): ()) -> Result<Accepted, Failure> {
        let Self { server, tool, definition } = self;
        let trusted = inbox.desk.trust(&server, &tool, definition, by).await;
        trusted.map_err(|error| words(error, &format!("tool `{tool}` of server `{server}`")))?;
        Ok(Accepted { accepted: definition })
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
