//! The first fact of a call: who asked for what, and what the policy said.

use std::sync::Arc;

use holdfast_policy::{Gate, Plan, RuleId};
use serde::{Deserialize, Serialize};

use crate::{
    fingerprint::{Digest, Fingerprint, KeyHash},
    text::Text,
};

/// The source of an idempotency key; each source is a namespace of its own (semantics section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum KeySource {
    /// The `stdio` bridge's name for one request.
    Transport,
    /// `_meta["io.holdfast/idempotency-key"]` or the `Idempotency-Key` header.
    Explicit,
    /// A template of the policy over the arguments.
    Effect,
    /// The n-th identical call of one incarnation of a run.
    Run,
}

/// A key that a call claims: only the hash is kept, so a tombstone gives nothing away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Key {
    /// Where the key came from.
    pub source: KeySource,
    /// Hash over source, scope and the key itself.
    pub hash: KeyHash,
}

/// Who asked, as exactly as is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Caller {
    /// The name of the agent's token; `local` without configured agents.
    pub principal: String,
    /// Bridge instance, legacy session, else principal and client name.
    pub channel: String,
    /// The client's own name (`clientInfo.name`), or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub client: String,
}

/// What the policy said, with all that is needed to act on it: recovery never decides anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Disposition {
    /// Dispatch as soon as there is a slot.
    Allow,
    /// Hold until every gate is satisfied for this digest.
    Ask {
        /// What the approvers approve.
        digest: Digest,
        /// One gate for each matching `ask` rule; all must be satisfied.
        gates: Arc<[Gate]>,
    },
    /// Refused by a rule; nothing is ever sent.
    Deny {
        /// The rule that refused.
        rule: RuleId,
    },
}

/// The first fact of a call: everything about it that does not change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Accepted {
    /// Who asked.
    pub caller: Caller,
    /// The server's name in the configuration.
    pub server: String,
    /// Command line or URL of the server: what is really going to be spoken to.
    pub identity: String,
    /// The tool's name at that server.
    pub tool: String,
    /// Hash of the tool's definition as the server gave it.
    pub definition: String,
    /// The one argument text: shown, journaled and sent.
    pub arguments: Text,
    /// Members of `params` beside name, arguments and `_meta`, as a JSON object text: sent with each attempt, and shown to
    /// whoever decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Text>,
    /// Identity of server, tool, the arguments and the extra members as received (without what we inject).
    pub fingerprint: Fingerprint,
    /// Every key that was claimed with this call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Key>,
    /// The agent's task, if it named one (`io.holdfast/run`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The life of the agent within its task (`io.holdfast/incarnation`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<String>,
    /// `_meta` entries that go to the upstream with each attempt, as a JSON object text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<Text>,
    /// HTTP headers that go to the upstream with each attempt (forwarded keys).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// The verdict.
    pub disposition: Disposition,
    /// The effective settings.
    pub plan: Arc<Plan>,
    /// The policy version that the verdict came from.
    pub policy: Arc<str>,
}
