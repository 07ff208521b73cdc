//! The deciding half of the API: POST with an operator's token and the digest that was looked at.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use holdfast_store::{Answer, AnswerKind, CallId, Digest, Resolution, State as CallState, Text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json, value::RawValue};

use super::{
    Inbox,
    access::Signed,
    api::{blocking, no_call_words},
    desk::{Decision, Desk},
    failure::Failure,
    ids,
    strict::{self, Input, Named},
};
use crate::{config::Role, driver::DecideError, report::Report, wire::read_strictly};

/// A kind of decision: what its body says, and what that comes to.
pub(super) trait Verb: DeserializeOwned + JsonSchema + Send + 'static {
    /// The last part of its path.
    const NAME: &'static str;
    /// In a few words.
    const SUMMARY: &'static str;
    /// Who may decide like this.
    const ROLE: Role = Role::Approver;

    /// What a request without a body says; nothing where there must be one.
    fn unsaid() -> Option<Self> {
        None
    }

    /// # Errors
    /// Why it is no decision, or not one of this operator.
    fn decision(self, signed: &Signed, max_depth: usize) -> Result<Decision, Failure>;
}

/// Do exactly what the digest covers.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Approval {
    digest: Digest,
    /// Why the gates are passed over; for operators who may.
    #[serde(default)]
    #[schemars(regex(pattern = r"\S"))]
    break_glass: Option<String>,
}

impl Verb for Approval {
    const NAME: &'static str = "approve";
    const SUMMARY: &'static str = "Approves a held call, or votes for it";

    fn decision(self, signed: &Signed, _: usize) -> Result<Decision, Failure> {
        let Self { digest, break_glass } = self;
        let Some(why) = break_glass else { return Ok(Decision::Approve(digest)) };
        signed.may_break_glass(&why)?;
        Ok(Decision::BreakGlass(digest, why))
    }
}

/// Do not do what the digest covers.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rejection {
    digest: Digest,
    /// The agent is told.
    #[serde(default)]
    reason: String,
}

impl Verb for Rejection {
    const NAME: &'static str = "reject";
    const SUMMARY: &'static str = "Refuses a held call";

    fn decision(self, _: &Signed, _: usize) -> Result<Decision, Failure> {
        Ok(Decision::Reject(self.digest, some_reason(self.reason)))
    }
}

/// Take an approval back.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SecondThoughts {
    #[serde(default)]
    reason: String,
}

impl Verb for SecondThoughts {
    const NAME: &'static str = "revoke";
    const SUMMARY: &'static str = "Takes an approval back, where nothing was sent yet";

    fn unsaid() -> Option<Self> {
        Some(Self::default())
    }

    fn decision(self, _: &Signed, _: usize) -> Result<Decision, Failure> {
        Ok(Decision::Revoke(some_reason(self.reason)))
    }
}

/// Ask for these arguments instead of what the digest covers.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Edit {
    digest: Digest,
    /// All of them. No name may stand twice, and no more levels than `intake.max_depth`.
    #[schemars(with = "Map<String, Value>")]
    arguments: Box<RawValue>,
}

impl Verb for Edit {
    const NAME: &'static str = "edit";
    const SUMMARY: &'static str = "Puts other arguments in the place of the agent's, to be approved";

    fn decision(self, _: &Signed, max_depth: usize) -> Result<Decision, Failure> {
        Ok(Decision::Edit(self.digest, arguments_of(self.arguments.get(), max_depth)?))
    }
}

/// Answer in the tool's place what the digest covers.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Answering {
    digest: Digest,
    /// A tool result, or anything that becomes the content of one.
    #[schemars(with = "Value")]
    answer: Box<RawValue>,
}

impl Verb for Answering {
    const NAME: &'static str = "respond";
    const SUMMARY: &'static str = "Answers a held call by hand; nothing is sent";

    fn decision(self, _: &Signed, _: usize) -> Result<Decision, Failure> {
        Ok(Decision::Respond(self.digest, answer_of(self.answer.get())))
    }
}

/// Exactly one of the three.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [
    { "required": ["happened"], "properties": { "not_sent": { "const": false }, "give_up": { "const": false } } },
    { "required": ["not_sent"], "properties": {
        "happened": false, "not_sent": { "const": true }, "give_up": { "const": false } } },
    { "required": ["give_up"], "properties": {
        "happened": false, "not_sent": { "const": false }, "give_up": { "const": true } } },
]))]
pub(super) struct Settlement {
    /// It was executed, and this was the answer: a tool result, or anything that becomes the content of one.
    #[schemars(with = "Option<Value>", extend("type" = ["object", "array", "string", "number", "boolean"]))]
    happened: Option<Box<RawValue>>,
    /// It was not executed and may be sent again.
    #[serde(default)]
    not_sent: bool,
    /// Nobody will find out.
    #[serde(default)]
    give_up: bool,
}

impl Verb for Settlement {
    const NAME: &'static str = "resolve";
    const SUMMARY: &'static str = "Settles a call in doubt";

    fn decision(self, _: &Signed, _: usize) -> Result<Decision, Failure> {
        Ok(Decision::Resolve(settlement(self)?))
    }
}

/// Nothing needs to be said.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Withdrawal {}

impl Verb for Withdrawal {
    const NAME: &'static str = "cancel";
    const SUMMARY: &'static str = "Withdraws a call";

    fn unsaid() -> Option<Self> {
        Some(Self::default())
    }

    fn decision(self, _: &Signed, _: usize) -> Result<Decision, Failure> {
        Ok(Decision::Cancel)
    }
}

/// Nothing needs to be said. A second execution becomes possible, so it takes an admin.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Release {}

impl Verb for Release {
    const NAME: &'static str = "release";
    const SUMMARY: &'static str = "Frees the keys of a finished call, so that it can be executed again";
    const ROLE: Role = Role::Admin;

    fn unsaid() -> Option<Self> {
        Some(Self::default())
    }

    fn decision(self, _: &Signed, _: usize) -> Result<Decision, Failure> {
        Ok(Decision::Release)
    }
}

/// What became of a decision.
#[derive(Serialize, JsonSchema)]
pub(super) struct Decided {
    call: CallId,
    /// Where it stands now.
    state: CallState,
}

/// `POST /api/v1/calls/{id}/NAME`
pub(super) async fn decide<D: Desk, V: Verb>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(signed): Extension<Signed>,
    request: Request,
) -> Response {
    match carry_out::<D, V>(&inbox, &signed, request).await {
        Ok(decided) => Json(decided).into_response(),
        Err(failure) => failure.into_response(),
    }
}

async fn carry_out<D: Desk, V: Verb>(
    inbox: &Inbox<D>,
    signed: &Signed,
    request: Request,
) -> Result<Decided, Failure> {
    signed.require(V::ROLE)?;
    let (mut parts, body) = request.into_parts();
    let Named { id } = Named::read(&mut parts).await?;
    let verb: V = strict::json(Request::from_parts(parts, body), V::unsaid()).await?;
    let decision = verb.decision(signed, inbox.max_depth)?;
    let journal = inbox.desk.journal();
    let found =
        blocking(move || Ok(ids::find(&*journal, &id).map_err(|missing| no_call_words(&id, &missing))));
    let call = found.await??;
    match inbox.desk.decide(call, signed.by.clone(), decision).await {
        Ok(state) => Ok(Decided { call, state }),
        Err(error) => Err(refusal(call, error).into()),
    }
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
