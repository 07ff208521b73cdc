//! What one rule says, and what `[defaults]` say where no rule does.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::gate::Gate;
use crate::pattern::{Glob, Pattern};
use crate::plan::{KeyRule, OnDisconnect, OnJoin, Plan, Preview, Probe, Rate, Reuse, Scope, UpstreamKey};
use crate::source::Place;

/// The name of a rule, unique within a policy. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct RuleId(Arc<str>);

impl RuleId {
    /// A rule's id as it stands in the policy.
    pub fn new(id: &str) -> RuleId {
        RuleId(id.into())
    }

    /// What stands in for a rule where `[defaults]` decided; no rule may have this id.
    pub fn defaults() -> RuleId {
        RuleId("defaults".into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a rule wants done with a call. Ordered: the greater is the stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Send it.
    Allow,
    /// Hold it until a person has decided.
    Ask,
    /// Refuse it.
    Deny,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Effect::Allow => "allow",
            Effect::Ask => "ask",
            Effect::Deny => "deny",
        })
    }
}

/// May a call be sent again when its answer was lost? Ordered: the greater is the stricter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Repeat {
    /// Yes: doing it twice is doing it once.
    Safe,
    /// Yes, with the same key: the upstream deduplicates.
    Keyed,
    /// No: its outcome is then unknown.
    #[default]
    Never,
}

impl fmt::Display for Repeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Repeat::Safe => "safe",
            Repeat::Keyed => "keyed",
            Repeat::Never => "never",
        })
    }
}

/// Whether a rule counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It counts.
    #[default]
    Enforce,
    /// It is recorded and sets nothing.
    Shadow,
}

/// One `[[rule]]`.
#[derive(Clone, Debug, Serialize)]
pub struct Rule {
    /// Its name.
    pub id: RuleId,
    /// What it wants; `None` for a rule that only sets settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    /// Whether it counts.
    pub mode: Mode,
    /// Servers it is about.
    pub server: Glob,
    /// Tools it is about.
    pub tool: Glob,
    /// Conditions on the arguments; all must hold.
    pub when: Vec<Condition>,
    /// What it sets.
    pub settings: Settings,
    /// Who is asked, for `ask` rules that say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
    /// Where its parts stand in the file; no part of its meaning.
    #[serde(skip)]
    pub places: RulePlaces,
}

/// Where a rule stands in its file.
#[derive(Clone, Debug, Default)]
pub struct RulePlaces {
    /// The rule itself.
    pub rule: Place,
    /// Its `server` glob.
    pub server: Place,
    /// Its `tool` glob.
    pub tool: Place,
}

/// The settings a rule may set; `None` leaves a setting to later rules and to `[defaults]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)] // Each field is the field of `Plan` with the same name.
pub struct Settings {
    pub repeat: Option<Repeat>,
    pub attempts: Option<u32>,
    pub initial_ms: Option<u64>,
    pub factor: Option<f64>,
    pub cap_ms: Option<u64>,
    pub retry_on: Option<Vec<Pattern>>,
    pub concurrency: Option<u32>,
    pub rate: Option<Option<Rate>>,
    pub queue: Option<u32>,
    pub attempt_timeout_ms: Option<u64>,
    pub call_timeout_ms: Option<u64>,
    pub queue_timeout_ms: Option<u64>,
    pub idle_timeout_ms: Option<Option<u64>>,
    pub hold_wait_ms: Option<u64>,
    pub on_disconnect: Option<OnDisconnect>,
    pub on_join: Option<OnJoin>,
    pub reuse: Option<Reuse>,
    pub detached: Option<bool>,
    pub reissue_window_ms: Option<Option<u64>>,
    /// `[rule.idempotency]` as a whole: key, scope and upstream of different rules never mix.
    pub idempotency: Option<Idempotency>,
    pub probe: Option<Probe>,
    pub preview: Option<Preview>,
}

/// `[rule.idempotency]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Idempotency {
    /// What keys a call must or does have.
    pub key: KeyRule,
    /// Among whom the effect key is unique.
    pub scope: Scope,
    /// Where the upstream expects our key.
    pub upstream: Option<UpstreamKey>,
}

/// The `[defaults]` table: the last word where no rule says otherwise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Defaults {
    /// What happens to a call that no enforced rule with an effect matches.
    pub effect: Effect,
    /// All settings; `rules` is empty.
    pub plan: Plan,
}

impl Default for Defaults {
    fn default() -> Self {
        Defaults { effect: Effect::Ask, plan: Plan::default() }
    }
}
