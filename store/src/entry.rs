//! Journal entries: past-tense facts about a call.

use std::{fmt, str::FromStr};

use holdfast_policy::Gate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    accepted::{Accepted, Caller, KeySource},
    fingerprint::{Digest, Hash32},
    register::{Note, RememberedId},
    state::Outcome,
    text::Text,
};

/// Unix time in milliseconds. All deadlines are absolute and count downtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// `self + ms`, at most the end of time.
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to `self`; 0 where the clock ran backwards.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One durable tool invocation: a UUIDv7, so ids sort by the time of acceptance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallId(pub Uuid);

impl CallId {
    /// Under this id, which no call can have, the journal keeps what belongs to no call; see [`crate::Register`].
    pub const REGISTER: CallId = CallId(Uuid::nil());

    /// The id as the 16 big-endian bytes that journals sort by.
    pub fn bytes(self) -> [u8; 16] {
        *self.0.as_bytes()
    }

    /// The id that [`CallId::bytes`] came from.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for CallId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// The number of a dispatch of a call, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Attempt(pub u32);

/// An answer as the upstream gave it; era and our `_meta` are put on at delivery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Answer {
    /// Which JSON-RPC member the text belongs to, and whether the tool called it an error.
    pub kind: AnswerKind,
    /// The `result` or `error` member.
    pub text: Text,
}

/// An answer that lies in a file beside the journal, as the upstream gave it. The entry proves the file: whoever reads
/// it checks the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Kept {
    /// SHA-256 of the text, which is the file's name.
    pub sha256: Hash32,
    /// Length of the text.
    pub bytes: u64,
}

/// The kind of an [`Answer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum AnswerKind {
    /// A result without `isError`.
    Result,
    /// A result with `isError: true`: the tool ran and says that it failed.
    ToolError,
    /// A JSON-RPC error.
    Error,
}

impl AnswerKind {
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::Result => Outcome::Succeeded,
            Self::ToolError | Self::Error => Outcome::Failed,
        }
    }
}

/// What follows an attempt that brought no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// Another attempt at this time.
    Retry {
        /// When.
        due: Millis,
    },
    /// Nobody knows whether it happened.
    Doubt,
    /// No further attempt.
    Stop,
}

/// Why an attempt's answer is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// `attempt_timeout` passed.
    AttemptTimeout,
    /// `call_timeout` passed.
    CallTimeout,
    /// `idle_timeout` passed without progress.
    Idle,
    /// The connection or the process ended.
    Disconnected,
    /// The upstream answered with an error that does not say whether it acted.
    UpstreamError,
    /// The caller cancelled after the dispatch.
    Cancelled,
    /// Holdfast itself stopped or was killed in between.
    Restart,
}

/// An error that ended or delayed an attempt, for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Trouble {
    /// A stable kebab-case code.
    pub code: String,
    /// What happened, in a sentence.
    pub message: String,
    /// The upstream's own error member, if it gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Text>,
}

impl Trouble {
    /// A trouble without an upstream's error.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), upstream: None }
    }
}

/// A person, or a part of Holdfast, that decided something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Decider {
    /// Operator name, agent principal, `policy` or `probe`.
    pub name: String,
    /// The groups that the name was in at that moment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Where from: `inbox`, `api`, `cli`, `agent`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub via: String,
}

/// How an in-doubt call was settled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Resolution {
    /// It happened, and this is its answer.
    Happened(Answer),
    /// It did not happen: send it again.
    NotSent,
    /// Nobody will find out. Its keys are never reusable.
    GaveUp,
}

/// A fact about a call. Facts are never changed; the call's state is their fold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Entry {
    /// The call exists and its keys are claimed.
    Accepted(Box<Accepted>),
    /// What would happen was looked up, or that failed: from now on the call is asked.
    Previewed {
        /// The revision that it belongs to.
        revision: u32,
        /// What approvers are shown.
        shown: Shown,
        /// What is to be approved.
        digest: Digest,
    },
    /// An approver approved this digest.
    Approved {
        /// Who.
        by: Decider,
        /// What.
        digest: Digest,
        /// The gates of this revision that the vote counts for, by their place in the list.
        counts_for: Vec<u32>,
        /// The grant, where this vote was the last one needed.
        grant: Option<Grant>,
        /// Why the gates were passed over, where they were (break-glass): to be reviewed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        glass: Option<String>,
        /// The decision made earlier that speaks here, where nobody was asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        remembered: Option<RememberedId>,
    },
    /// An approval was taken back before anything was sent: of the one who says so, or, by anybody else, all of them.
    Revoked {
        /// Who.
        by: Decider,
        /// Why.
        reason: String,
        /// Nobody has seen yet what it would do, because nobody had to be asked: that is looked up first.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unseen: bool,
    },
    /// An approver changed the arguments: a new revision is asked.
    Edited {
        /// Who.
        by: Decider,
        /// What will be sent instead.
        arguments: Text,
        /// The new revision.
        revision: u32,
        /// The new digest.
        digest: Digest,
        /// Its gates.
        gates: Vec<Gate>,
        /// The preview of the new arguments.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shown: Option<Shown>,
        /// Command line or URL of the server, where it is another one than at first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        identity: Option<String>,
    },
    /// An approver answered in the tool's place; nothing is sent.
    Responded {
        /// Who.
        by: Decider,
        /// The answer.
        answer: Answer,
    },
    /// An approver said no, or a stricter policy did at the moment of applying.
    Refused {
        /// Who.
        by: Decider,
        /// Why.
        reason: String,
    },
    /// A deadline of the hold passed.
    Expired {
        /// Which.
        clock: HoldClock,
    },
    /// What was approved is no longer what would happen: a new revision is asked.
    Superseded {
        /// Why.
        reason: String,
        /// The new revision, from 1 for the first.
        revision: u32,
        /// The new digest.
        digest: Digest,
        /// Its gates.
        gates: Vec<Gate>,
        /// The preview as it is now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shown: Option<Shown>,
        /// Command line or URL of the server, where it is another one than at first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        identity: Option<String>,
    },
    /// This attempt may reach the upstream from now on.
    Dispatched {
        /// Number of the attempt.
        attempt: Attempt,
    },
    /// The call's answer: the first one that became durable.
    Answered {
        /// The attempt it belongs to.
        attempt: Attempt,
        /// The answer; where it is `kept`, what is told of it.
        answer: Answer,
        /// Where the answer as it came is too large for the journal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kept: Option<Kept>,
    },
    /// An answer that came after another one had become the call's answer.
    AnsweredAgain {
        /// The attempt it belongs to.
        attempt: Attempt,
        /// The answer, for the record only; where it is `kept`, what would be told of it.
        answer: Answer,
        /// Where the answer as it came is too large for the journal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kept: Option<Kept>,
    },
    /// Proof that this attempt changed nothing.
    Unexecuted {
        /// Number of the attempt.
        attempt: Attempt,
        /// The proof.
        trouble: Trouble,
        /// What follows.
        then: Then,
    },
    /// This attempt's answer is not known.
    Lost {
        /// Number of the attempt.
        attempt: Attempt,
        /// Why.
        loss: Loss,
        /// Details.
        trouble: Trouble,
        /// What follows.
        then: Then,
    },
    /// A probe of an in-doubt call did not settle it.
    Probed {
        /// What it saw.
        finding: Finding,
        /// Why it settles nothing.
        message: String,
    },
    /// An in-doubt call was settled.
    Resolved {
        /// By whom.
        by: Decider,
        /// How.
        how: Resolution,
    },
    /// The call ended without any attempt that may have executed.
    Abandoned {
        /// Why.
        trouble: Trouble,
    },
    /// The caller withdrew the call before anything was sent.
    Cancelled {
        /// By whom.
        by: Decider,
    },
    /// Another request was taken as this call.
    Joined {
        /// Who asked.
        caller: Caller,
        /// Which key made it the same call; none: as a re-issue of an undelivered answer.
        source: Option<KeySource>,
    },
    /// The answer of a call that had been held was handed to a caller for the first time: from now on the window for
    /// re-issues runs.
    Collected {
        /// To whom.
        caller: Caller,
    },
    /// An operator freed the keys of a finished call.
    Released {
        /// Who.
        by: Decider,
    },
    /// A fact that belongs to no call: only [`CallId::REGISTER`] has those.
    Noted(Box<Note>),
}

/// What approvers are shown as the effect of a call, besides its arguments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Shown {
    /// Whether it is a preview, or why there is none.
    pub kind: ShownKind,
    /// The result of the companion or dry run as the server gave it; for a failed preview the reason, as a JSON string.
    pub text: Text,
    /// What must not change until the dispatch: each pointer with what it found, if anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<(String, Option<Text>)>,
}

/// Whether a preview worked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ShownKind {
    /// It says what would happen.
    Preview,
    /// It does not: the approver decides without.
    Failed,
}

/// An approval that reached its quorum, bound to one digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Grant {
    /// The first dispatch must be durable by then.
    pub execute_by: Millis,
}

/// The two clocks of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum HoldClock {
    /// From asking.
    ApproveBy,
    /// From approval.
    ExecuteBy,
}

/// What a probe that did not confirm saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// The probe answered and shows no trace of the effect.
    Absent,
    /// The probe failed or its answer had no such place.
    Unclear,
}

impl Entry {
    /// A stable kebab-case name of the entry's kind.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "accepted",
            Self::Previewed { .. } => "previewed",
            Self::Approved { .. } => "approved",
            Self::Revoked { .. } => "revoked",
            Self::Edited { .. } => "edited",
            Self::Responded { .. } => "responded",
            Self::Refused { .. } => "refused",
            Self::Expired { .. } => "expired",
            Self::Superseded { .. } => "superseded",
            Self::Dispatched { .. } => "dispatched",
            Self::Answered { .. } => "answered",
            Self::AnsweredAgain { .. } => "answered-again",
            Self::Unexecuted { .. } => "unexecuted",
            Self::Lost { .. } => "lost",
            Self::Probed { .. } => "probed",
            Self::Resolved { .. } => "resolved",
            Self::Abandoned { .. } => "abandoned",
            Self::Cancelled { .. } => "cancelled",
            Self::Joined { .. } => "joined",
            Self::Collected { .. } => "collected",
            Self::Released { .. } => "released",
            Self::Noted(note) => note.name(),
        }
    }
}
