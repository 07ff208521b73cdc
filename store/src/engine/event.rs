//! What the engine hears, and what it says.

use holdfast_policy::{Failure, Gate};

use super::Attempt;
use crate::{
    entry::{Answer, Decider, Entry, Loss, Resolution, Shown, Trouble},
    fingerprint::Digest,
    register::RememberedId,
    state::State,
    text::Text,
};

/// What can happen to a call that exists.
#[derive(Clone, Debug)]
pub enum Event {
    /// First event of a new call that found no free slot, and of a call read back after a restart.
    Recovered,
    /// A slot for the next attempt is held for this call.
    Slot,
    /// The line for a slot is as long as `limits.queue` allows.
    QueueFull,
    /// The re-check of a held call at its dispatch came to this.
    Rechecked {
        /// The revision that was checked: says nothing about another one.
        revision: u32,
        /// What was found.
        recheck: Recheck,
    },
    /// The attempt showed a sign of life.
    Progress(Attempt),
    /// The upstream answered this attempt.
    Answered(Attempt, Answer),
    /// The attempt failed without an answer that counts.
    Failed(Attempt, Failed),
    /// What the call would do was looked up.
    Previewed {
        /// What approvers are shown.
        shown: Shown,
        /// What is to be approved.
        digest: Digest,
    },
    /// Time passed.
    Tick,
    /// An approver approves.
    Approve {
        /// Who.
        by: Decider,
        /// What they saw.
        digest: Digest,
        /// Whether they own the agent that asks.
        standing: Standing,
        /// Why the gates are to be passed over, where they are (break-glass).
        glass: Option<String>,
    },
    /// An approval is taken back before anything was sent.
    Revoke {
        /// Who.
        by: Decider,
        /// Why.
        reason: String,
    },
    /// An approver wants other arguments sent.
    Edit {
        /// Who.
        by: Decider,
        /// What they saw.
        seen: Digest,
        /// What is to be asked now.
        edited: Box<Edited>,
    },
    /// An approver answers in the tool's place.
    Respond {
        /// Who.
        by: Decider,
        /// What they saw.
        digest: Digest,
        /// The answer.
        answer: Answer,
    },
    /// An approver refuses.
    Reject {
        /// Who.
        by: Decider,
        /// What they saw; none refuses whatever is asked now.
        digest: Option<Digest>,
        /// Why.
        reason: String,
    },
    /// The caller or an operator withdraws the call.
    Cancel(Decider),
    /// An operator settles an in-doubt call.
    Resolve(Decider, Resolution),
    /// An operator frees the keys of a finished call.
    Release(Decider),
    /// A probe came back.
    Probed(Probed),
}

/// Other arguments, and what is to be approved with them.
#[derive(Clone, Debug)]
pub struct Edited {
    /// What will be sent.
    pub arguments: Text,
    /// Covers them, and the next revision.
    pub digest: Digest,
    /// By whom.
    pub gates: Vec<Gate>,
    /// What would happen.
    pub shown: Option<Shown>,
    /// Command line or URL of the server, where it is another one than at first.
    pub identity: Option<String>,
}

/// A failed attempt, classified (semantics section 4).
#[derive(Clone, Debug)]
pub struct Failed {
    /// Its class.
    pub failure: Failure,
    /// Why the answer is missing, for the class "answer lost".
    pub loss: Loss,
    /// In words.
    pub trouble: Trouble,
    /// From `Retry-After`.
    pub retry_after_ms: Option<u64>,
    /// What the upstream answered, where it did: the call's answer if no attempt follows and the class is definitive.
    pub answer: Option<Answer>,
}

/// The re-check of a held call: policy, tool definition and digest as they are now.
#[derive(Clone, Debug)]
pub enum Recheck {
    /// Nothing that matters has changed.
    Same,
    /// A rule now denies it.
    Denied {
        /// Which, and why that matters.
        reason: String,
    },
    /// Something else would happen than what was approved.
    Changed {
        /// What changed.
        reason: String,
        /// What is to be approved now.
        digest: Digest,
        /// By whom.
        gates: Vec<Gate>,
        /// What would happen now.
        shown: Option<Shown>,
        /// Command line or URL of the server, where it is another one than at first.
        identity: Option<String>,
    },
}

/// An approver's relation to the agent whose call waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Somebody else.
    Other,
    /// The agent's owner: counts only for gates with `self_approve`.
    Owner,
}

/// What a probe saw.
#[derive(Clone, Debug)]
pub enum Probed {
    /// It happened; this is its answer.
    Confirmed(Answer),
    /// No trace.
    Absent {
        /// Whether the process or session that the attempt was sent to is gone for sure.
        old_process: OldProcess,
    },
    /// The probe itself failed.
    Unclear(String),
}

/// What is left of the process that an attempt was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldProcess {
    /// It has ended: it cannot act any more.
    Gone,
    /// It may still be working.
    MayLive,
}

/// What is to be done in the world, once the step's facts are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Get in line for a slot; ends in [`Event::Slot`]. Harmless when already in line.
    Queue,
    /// Check a held call again; ends in [`Event::Rechecked`]. The slot stays held.
    Recheck,
    /// Send this attempt.
    Send(Attempt),
    /// Tell the upstream that nobody wants this attempt any more.
    CancelUpstream(Attempt),
    /// Look up what the call would do; ends in [`Event::Previewed`].
    Preview,
    /// Look whether it happened; ends in [`Event::Probed`]. Harmless while a probe is out.
    Probe,
}

/// Facts to write, then effects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// To be appended in one transaction.
    pub append: Vec<Entry>,
    /// To be carried out once `append` is durable.
    pub then: Vec<Effect>,
}

/// Why a decision was not taken. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// What was decided on is not what is asked now.
    Stale {
        /// What is asked now.
        digest: Digest,
    },
    /// This approver does not count for any gate.
    NotAnApprover,
    /// This approver has approved this revision already.
    AlreadyVoted,
    /// The call is not in a state in which that can be decided.
    WrongState(State),
}

/// A vote that an approver gave in advance, by a remembered decision.
#[derive(Clone, Debug)]
pub struct Advance {
    /// Which.
    pub remembered: RememberedId,
    /// Who gave it, with the groups of this moment.
    pub by: Decider,
    /// Whether they own the agent that asks.
    pub standing: Standing,
}

/// Whether a new call finds a slot free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotAtOnce {
    /// One is held for it.
    Held,
    /// It has to wait.
    None,
}
