//! What the rules come to for one call: everything that the engine needs to know about it.
//!
//! Journaled as JSON with each call, so that recovery never asks the rules again. Reading is tolerant: a
//! field that an old journal lacks has its built-in default, or is off where it can be.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::pattern::Pattern;
use crate::pointer::Pointer;
use crate::rule::{Repeat, RuleId};
use crate::template::{KeyTemplate, MissingPointer, Template, first_text, look_into, structured};

/// Everything the effective settings for one call come to; the engine looks at nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Plan {
    /// The enforced rules that matched, in the order of the policy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleId>,
    /// The strictest of the matching rules.
    pub repeat: Repeat,
    /// How often and when to try again.
    pub retry: Retry,
    /// How much at once.
    pub limits: Limits,
    /// How long one attempt may take.
    pub attempt_timeout_ms: u64,
    /// How long all of it may take, the time in which a person decides not counted.
    pub call_timeout_ms: u64,
    /// How long it may stay ready without being sent.
    pub queue_timeout_ms: u64,
    /// How long the upstream may show no progress; `None` is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_ms: Option<u64>,
    /// How long an agent without a better surface waits for a hold before it gets the held result.
    pub hold_wait_ms: u64,
    /// What a closed stream means for the work.
    pub on_disconnect: OnDisconnect,
    /// What a second request for the same call gets.
    pub on_join: OnJoin,
    /// When a key may be used again.
    pub reuse: Reuse,
    /// Whether an approved call runs even when its agent is gone.
    pub detached: bool,
    /// For how long an identical request takes a finished, perhaps unheard answer; `None` is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reissue_window_ms: Option<u64>,
    /// What keys the call must or does have.
    #[serde(skip_serializing_if = "KeyRule::is_none")]
    pub key: KeyRule,
    /// Among whom the effect key is unique.
    pub scope: Scope,
    /// Where the upstream expects our key; always there when `repeat` is `Keyed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_key: Option<UpstreamKey>,
    /// How an in-doubt call can be settled without a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// What an approver is shown besides the arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<Preview>,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            rules: Vec::new(),
            repeat: Repeat::Never,
            retry: Retry::default(),
            limits: Limits::default(),
            attempt_timeout_ms: 60_000,
            call_timeout_ms: 600_000,
            queue_timeout_ms: 30_000,
            idle_timeout_ms: None,
            hold_wait_ms: 20_000,
            on_disconnect: OnDisconnect::Finish,
            on_join: OnJoin::Attach,
            reuse: Reuse::Never,
            detached: true,
            reissue_window_ms: Some(600_000),
            key: KeyRule::None,
            scope: Scope::Principal,
            upstream_key: None,
            probe: None,
            preview: None,
        }
    }
}

/// How often and when to try again. Which failures may be tried again at all says [`crate::next`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Retry {
    /// How many attempts in all; the first counts.
    pub attempts: u32,
    /// Upper bound of the wait after the first attempt.
    pub initial_ms: u64,
    /// By how much the bound grows with each attempt.
    pub factor: f64,
    /// The bound never grows beyond this.
    pub cap_ms: u64,
    /// Tool errors that are known to have done nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retry_on: Vec<Pattern>,
}

impl Default for Retry {
    fn default() -> Self {
        Retry { attempts: 5, initial_ms: 200, factor: 2.0, cap_ms: 30_000, retry_on: Vec::new() }
    }
}

impl Retry {
    /// Whether a tool result is an error (`isError: true`) that a `retry_on` pattern knows to have done
    /// nothing. Patterns are searched in the first text block and in `structuredContent` as JSON text.
    pub fn matches(&self, result: &Value) -> bool {
        if self.retry_on.is_empty() || !is_error(result) {
            return false;
        }
        let structured = structured(result).map(Value::to_string);
        let texts = [first_text(result), structured.as_deref()];
        let found = |pattern: &Pattern| texts.iter().flatten().any(|text| pattern.matches(text));
        self.retry_on.iter().any(found)
    }
}

/// How much at once, per tool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Limits {
    /// Calls in flight at the same time.
    pub concurrency: u32,
    /// Calls started per time; `None` is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Calls waiting for a slot; the next one fails.
    pub queue: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { concurrency: 16, rate: None, queue: 1000 }
    }
}

/// `count` starts per `per_ms` milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Rate {
    /// How many, at least 1.
    pub count: u32,
    /// In how many milliseconds.
    pub per_ms: u64,
}

/// What a closed stream means for the work that was waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnDisconnect {
    /// The work goes on; the answer is kept for whoever asks again.
    #[default]
    Finish,
    /// The work is cancelled.
    Cancel,
}

/// What a second request for a running or held call gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnJoin {
    /// The same answer.
    #[default]
    Attach,
    /// An error.
    Reject,
    /// The call id, at once.
    Handle,
}

/// When a key may be used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Reuse {
    /// Not while its answer or tombstone is kept.
    #[default]
    Never,
    /// After a definitive failure.
    AfterFailure,
}

/// What keys a call must or does have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum KeyRule {
    /// None needed.
    #[default]
    None,
    /// The agent must give one.
    Required,
    /// Computed from the arguments and always claimed.
    Effect(KeyTemplate),
}

impl KeyRule {
    /// Whether no key is asked for.
    pub fn is_none(&self) -> bool {
        matches!(self, KeyRule::None)
    }
}

/// Among whom an effect key is unique.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Each principal for itself.
    #[default]
    Principal,
    /// All principals together.
    Everyone,
}

/// Where an upstream expects the key by which it deduplicates. Serialises as `arg:/p`, `meta:name` or
/// `header:Name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamKey {
    /// An argument of the tool.
    Arg(Pointer),
    /// A member of `_meta`.
    Meta(String),
    /// An HTTP header.
    Header(String),
}

impl UpstreamKey {
    /// Reads `arg:/p`, `meta:name` or `header:Name`; `None` for anything else, and for header names that
    /// are no HTTP tokens.
    pub fn parse(text: &str) -> Option<UpstreamKey> {
        let (kind, name) = text.split_once(':')?;
        match kind {
            "arg" if !name.is_empty() => Pointer::parse(name).ok().map(UpstreamKey::Arg),
            "meta" if !name.is_empty() => Some(UpstreamKey::Meta(name.to_owned())),
            "header" if is_http_token(name) => Some(UpstreamKey::Header(name.to_owned())),
            _ => None,
        }
    }
}

/// `token` of RFC 9110, section 5.6.2.
fn is_http_token(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !name.is_empty() && name.chars().all(allowed)
}

impl fmt::Display for UpstreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpstreamKey::Arg(pointer) => write!(f, "arg:{pointer}"),
            UpstreamKey::Meta(name) => write!(f, "meta:{name}"),
            UpstreamKey::Header(name) => write!(f, "header:{name}"),
        }
    }
}

impl Serialize for UpstreamKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UpstreamKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        UpstreamKey::parse(&text).ok_or_else(|| serde::de::Error::custom("not arg:, meta: or header:"))
    }
}

/// What an approver is shown besides the arguments, and what of it must not change until the dispatch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Preview {
    /// Where it comes from.
    pub by: PreviewBy,
    /// Pointers into its result (see [`look_into`]) that are compared again at dispatch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<Pointer>,
}

/// Where a preview comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PreviewBy {
    /// A read-only tool of the same server.
    Companion {
        /// Its name.
        tool: String,
        /// Its arguments, over those of the call.
        args: Template,
    },
    /// The tool itself, with one argument that makes it only say what it would do.
    DryRun {
        /// The argument.
        arg: Pointer,
        /// Its value.
        value: Value,
    },
}

/// A read-only call that can confirm that an in-doubt call happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Probe {
    /// A tool of the same server.
    pub tool: String,
    /// Its arguments, over those of the call.
    pub args: Template,
    /// What its result must say.
    pub happened: Happened,
    /// What "not found" means.
    #[serde(default)]
    pub absent: Absent,
    /// How long to wait before "not found" may count.
    #[serde(default = "default_settle_ms")]
    pub settle_ms: u64,
    /// The call's answer, over what [`look_into`] gives of the probe's result; without it the result itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Template>,
}

pub(crate) fn default_settle_ms() -> u64 {
    300_000
}

impl Probe {
    /// Whether a result of the probe confirms that the call happened. An error, "not found" and a missing
    /// pointer do not.
    pub fn confirms(&self, result: &Value) -> bool {
        if is_error(result) {
            return false;
        }
        let content = look_into(result);
        let found = self.happened.at.find(&content);
        found.is_some_and(|found| crate::condition::same(found, &self.happened.equals))
    }

    /// The `answer` template filled from a confirming result; `None` when there is no template and the
    /// result itself is the answer.
    ///
    /// # Errors
    /// [`MissingPointer`]: the result does not hold what the template needs, so the call stays in doubt.
    pub fn answer_from(&self, result: &Value) -> Result<Option<Value>, MissingPointer> {
        self.answer.as_ref().map(|template| template.render(&look_into(result))).transpose()
    }
}

/// What the result of a probe must say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Happened {
    /// Where to look (see [`look_into`]).
    pub at: Pointer,
    /// What must stand there; numbers compare as decimals.
    pub equals: Value,
}

/// What a probe's "not found" means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Absent {
    /// Nothing: the upstream may still be working.
    #[default]
    Hold,
    /// After `settle`, with the old process gone: it did not happen, send again.
    Resend,
}

fn is_error(result: &Value) -> bool {
    result.get("isError").and_then(Value::as_bool) == Some(true)
}
