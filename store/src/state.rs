//! Where a call stands, and the one table of legal transitions.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    accepted::Disposition,
    entry::{Entry, Resolution, Then},
};

/// Where a call stands. Serialised as its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub enum State {
    /// What it would do is being looked up, for approvers to see.
    Previewing,
    /// Waits for approvers.
    Asking,
    /// Approved; waits for a slot and the re-check at dispatch.
    Approved,
    /// Waits for a slot.
    Ready,
    /// The latest attempt is out.
    InFlight,
    /// Waits for the time of the next attempt.
    Backoff,
    /// An attempt may have executed, and its answer is not known.
    InDoubt,
    /// Ended.
    Done(Outcome),
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It has a result.
    Succeeded,
    /// It has an error, or nothing was executed and no further attempt will be made.
    Failed,
    /// The policy refused it at once.
    Denied,
    /// An approver, or the policy at the re-check, refused it.
    Refused,
    /// A hold's deadline passed.
    Expired,
    /// The caller withdrew it before anything was sent.
    Cancelled,
    /// Given up: it may have happened.
    Unknown,
}

/// An entry that cannot follow a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Illegal {
    /// The state; none before the first entry.
    pub state: Option<State>,
    /// The entry's name.
    pub entry: &'static str,
}

impl fmt::Display for Illegal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state {
            Some(state) => write!(f, "`{}` cannot follow the state `{}`", self.entry, state.name()),
            None => write!(f, "`{}` cannot be a call's first entry", self.entry),
        }
    }
}

impl std::error::Error for Illegal {}

impl State {
    /// The one table of legal transitions.
    ///
    /// # Errors
    /// [`Illegal`] for everything that is not listed.
    pub fn after(state: Option<State>, entry: &Entry) -> Result<State, Illegal> {
        use Entry as E;
        use State as S;
        // `Noted` is in no cell: it belongs to no call.
        let illegal = Illegal { state, entry: entry.name() };
        let Some(state) = state else {
            let E::Accepted(accepted) = entry else { return Err(illegal) };
            return Ok(match accepted.disposition {
                Disposition::Allow => S::Ready,
                Disposition::Ask { .. } if accepted.plan.preview.is_some() => S::Previewing,
                Disposition::Ask { .. } => S::Asking,
                Disposition::Deny { .. } => S::Done(Outcome::Denied),
            });
        };
        Ok(match (state, entry) {
            (S::Previewing, E::Previewed { .. }) => S::Asking,
            // Decided earlier, for calls like this one: nobody needs to be shown anything.
            (S::Previewing, E::Approved { grant: None, remembered: Some(_), .. }) => S::Previewing,
            (S::Previewing, E::Approved { grant: Some(_), remembered: Some(_), .. }) => S::Approved,
            (S::Asking, E::Approved { grant: None, .. }) => S::Asking,
            (S::Asking, E::Approved { grant: Some(_), .. }) => S::Approved,
            (S::Approved | S::Backoff, E::Revoked { unseen: true, .. }) => S::Previewing,
            (S::Asking | S::Approved | S::Backoff, E::Revoked { unseen: false, .. }) => S::Asking,
            (S::Asking, E::Edited { .. }) => S::Asking,
            (S::Asking, E::Responded { answer, .. }) => S::Done(answer.kind.outcome()),
            // A grant that was not used up is still open to a no, to a deadline and to a new revision.
            (S::Asking | S::Approved | S::Backoff, E::Refused { .. }) => S::Done(Outcome::Refused),
            (S::Asking | S::Approved | S::Backoff, E::Expired { .. }) => S::Done(Outcome::Expired),
            // What an operator or a probe wants sent again may have changed since it was approved.
            (S::Asking | S::Approved | S::Ready | S::Backoff, E::Superseded { .. }) => S::Asking,

            (S::Approved | S::Ready | S::Backoff, E::Dispatched { .. }) => S::InFlight,
            (S::Approved | S::Ready | S::Backoff, E::Abandoned { .. }) => S::Done(Outcome::Failed),
            (S::Previewing | S::Asking | S::Approved | S::Ready | S::Backoff, E::Cancelled { .. }) => {
                S::Done(Outcome::Cancelled)
            }

            (S::InFlight, E::Unexecuted { then, .. }) => then.state(),
            // A wait that ends in doubt records the loss of the attempt that caused the doubt.
            (S::InFlight | S::Ready | S::Backoff, E::Lost { then, .. }) => then.state(),
            // Late answers count from wherever the call has got to.
            (
                S::InFlight | S::InDoubt | S::Ready | S::Backoff | S::Asking | S::Approved,
                E::Answered { answer, .. },
            ) => S::Done(answer.kind.outcome()),

            (S::InDoubt, E::Probed { .. }) => S::InDoubt,
            (S::InDoubt, E::Resolved { how, .. }) => match how {
                Resolution::Happened(answer) => S::Done(answer.kind.outcome()),
                Resolution::NotSent => S::Ready,
                Resolution::GaveUp => S::Done(Outcome::Unknown),
            },

            (S::Done(_), E::AnsweredAgain { .. } | E::Collected { .. } | E::Released { .. }) => state,
            (_, E::Joined { .. }) => state,
            _ => return Err(illegal),
        })
    }

    /// A stable kebab-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Previewing => "previewing",
            Self::Asking => "asking",
            Self::Approved => "approved",
            Self::Ready => "ready",
            Self::InFlight => "in-flight",
            Self::Backoff => "backoff",
            Self::InDoubt => "in-doubt",
            Self::Done(outcome) => outcome.name(),
        }
    }

    /// Every state, for listings and for tests over the whole table.
    pub const ALL: [State; 14] = [
        Self::Previewing,
        Self::Asking,
        Self::Approved,
        Self::Ready,
        Self::InFlight,
        Self::Backoff,
        Self::InDoubt,
        Self::Done(Outcome::Succeeded),
        Self::Done(Outcome::Failed),
        Self::Done(Outcome::Denied),
        Self::Done(Outcome::Refused),
        Self::Done(Outcome::Expired),
        Self::Done(Outcome::Cancelled),
        Self::Done(Outcome::Unknown),
    ];

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether a person decides, or will.
    pub fn is_held(self) -> bool {
        matches!(self, Self::Previewing | Self::Asking)
    }

    /// True once nothing more will happen by itself.
    pub fn is_done(self) -> bool {
        matches!(self, Self::Done(_))
    }
}

impl Outcome {
    /// A stable kebab-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Denied => "denied",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
        }
    }
}

impl From<State> for &'static str {
    fn from(state: State) -> Self {
        state.name()
    }
}

impl TryFrom<String> for State {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        Self::from_name(&name).ok_or_else(|| format!("{name:?} is no state"))
    }
}

impl Then {
    fn state(self) -> State {
        match self {
            Self::Retry { .. } => State::Backoff,
            Self::Doubt => State::InDoubt,
            Self::Stop => State::Done(Outcome::Failed),
        }
    }
}

#[cfg(test)]
mod tests;
