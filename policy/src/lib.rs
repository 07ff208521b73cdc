//! What may happen to a tool call: rules, verdicts and retries.
//!
//! | module | holds |
//! |---|---|
//! | `source` | TOML with lines: [`Document`], [`Section`], [`Problem`]; the proxy reads its own configuration with it too |
//! | `rule` | what one rule says: [`Rule`], [`Effect`], [`Repeat`] |
//! | `plan`, `gate` | what the rules come to for a call, journaled with it: [`Plan`], [`Gate`] |
//! | `parse` | text -> rules: [`Policy::load`], and what is suspicious about them |
//! | `condition` | one condition on arguments, with "cannot be told" as an answer of its own |
//! | `decide` | rules + call -> [`Verdict`] |
//! | `explain` | the same with the reason for each part |
//! | `template` | `{/pointer}` in arguments, effect keys; looking into results |
//! | `retry` | failure class + attempt number -> [`Next`] |
//! | `pattern`, `pointer`, `decimal` | globs and regular expressions, JSON Pointers, exact numbers |
//!
//! Invariants of this crate:
//! - It is pure: no IO, no clock, no randomness, no environment, no async. Time, dice and variables are
//!   arguments.
//! - No rule, and no order of rules, makes a verdict less strict.
//! - What cannot be told (a missing or wrongly typed argument, a path with tricks) is a match for `deny`
//!   and `ask` and for nothing else.
//! - A server's word about its tools is never needed to be safe: unbelieved hints only raise caution.
//! - `Plan.repeat` is `Keyed` only together with an `upstream_key`.
//! - Everything that costs time is linear in its input: patterns do not backtrack and numbers are never
//!   expanded.

mod condition;
mod decide;
mod decimal;
mod explain;
mod gate;
mod parse;
mod pattern;
mod plan;
mod pointer;
mod retry;
mod rule;
#[cfg(feature = "schema")]
mod schema;
mod source;
mod template;

pub use condition::{Condition, Doubt, Outcome};
pub use decide::{Applies, Decision, Hints, Policy, Question, Trust, Verdict};
pub use explain::{Explanation, Reason, RuleReport, SettingReport};
pub use gate::{Approver, Gate, SelfApproval};
pub use pattern::{BadPattern, Glob, Pattern};
pub use plan::{
    Absent, Happened, KeyRule, Limits, OnDisconnect, OnJoin, Plan, Preview, PreviewBy, Probe, Rate, Retry,
    Reuse, Scope, UpstreamKey,
};
pub use pointer::{NoPointer, NoRoom, Pointer};
pub use retry::{Earlier, Failure, Next, next};
pub use rule::{Defaults, Effect, Idempotency, Mode, Repeat, Rule, RuleId, RulePlaces, Settings};
pub use source::{
    Document, Dollar, OrOff, Place, Problem, Replaced, Section, Severity, Variable, parse_duration,
    parse_rate, parse_size, replace_dollars, show_duration,
};
pub use template::{BadTemplate, KeyTemplate, MissingPointer, Template, look_into};
