//! Who must approve a held call, and by when.
//!
//! Journaled as JSON with each call; a field that an old journal lacks has its default.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::rule::RuleId;

/// One condition for approval; where several `ask` rules match, every one of their gates must be satisfied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Gate {
    /// The rule it comes from.
    pub rule: RuleId,
    /// Who may decide; empty means every approver.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub approvers: Vec<Approver>,
    /// How many different people must approve.
    pub quorum: u32,
    /// Whether the owner of the calling agent counts.
    pub self_approve: SelfApproval,
    /// How long after asking the decision may come.
    pub approve_by_ms: u64,
    /// How long after approval it may be dispatched.
    pub execute_by_ms: u64,
}

impl Default for Gate {
    fn default() -> Self {
        Gate::for_rule(RuleId::defaults())
    }
}

impl Gate {
    /// The gate of a rule that describes none.
    pub fn for_rule(rule: RuleId) -> Gate {
        Gate {
            rule,
            approvers: Vec::new(),
            quorum: 1,
            self_approve: SelfApproval::Refused,
            approve_by_ms: 24 * 3_600_000,
            execute_by_ms: 3_600_000,
        }
    }

    /// Whether an approval under this gate also satisfies `other`: it asked as many people or more, out
    /// of the same or fewer, and was no laxer about self-approval. Deadlines do not matter here.
    pub fn covers(&self, other: &Gate) -> bool {
        let among = other.approvers.is_empty()
            || (!self.approvers.is_empty()
                && self.approvers.iter().all(|approver| other.approvers.contains(approver)));
        let strict =
            self.self_approve == SelfApproval::Refused || other.self_approve == SelfApproval::Allowed;
        self.quorum >= other.quorum && among && strict
    }
}

/// Who may decide. Serialises as `group:NAME` or `operator:NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Approver {
    /// Any operator in this group.
    Group(String),
    /// This operator.
    Operator(String),
}

impl Approver {
    /// Reads `group:NAME` or `operator:NAME`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Approver> {
        match text.split_once(':')? {
            (_, "") => None,
            ("group", name) => Some(Approver::Group(name.to_owned())),
            ("operator", name) => Some(Approver::Operator(name.to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for Approver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Approver::Group(name) => write!(f, "group:{name}"),
            Approver::Operator(name) => write!(f, "operator:{name}"),
        }
    }
}

impl Serialize for Approver {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Approver {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Approver::parse(&text).ok_or_else(|| serde::de::Error::custom("not group:NAME or operator:NAME"))
    }
}

/// Whether the operator who owns the calling agent (`agents.X.owner`) may approve its calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SelfApproval {
    /// No.
    #[default]
    Refused,
    /// Yes.
    Allowed,
}
