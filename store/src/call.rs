//! A call: the fold of its entries, and what follows from it.

use std::sync::Arc;

use holdfast_policy::{Gate, Repeat, Reuse};

use crate::{
    accepted::{Accepted, Disposition},
    entry::{Answer, Attempt, CallId, Decider, Entry, Grant, Millis, Resolution, Shown, Then, Trouble},
    fingerprint::Digest,
    journal::{KeyFate, Record},
    state::{Illegal, Outcome, State},
    text::Text,
};

/// A gated call's open question.
#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    /// From 1; each edit, drift or stricter policy makes a new one.
    pub revision: u32,
    /// What is to be approved.
    pub digest: Digest,
    /// All of them must be satisfied.
    pub gates: Arc<[Gate]>,
    /// When this revision was asked.
    pub asked: Millis,
    /// Approvals of this revision, with the gates that each counts for.
    pub votes: Vec<(Decider, Vec<u32>)>,
    /// What approvers are shown besides the arguments.
    pub shown: Option<Shown>,
    /// What they were shown in the revision before.
    pub earlier: Option<Shown>,
}

impl Hold {
    /// The earliest `approve_by` of its gates.
    pub fn approve_by(&self) -> Millis {
        let ms = self.gates.iter().map(|gate| gate.approve_by_ms).min().unwrap_or(u64::MAX);
        self.asked.plus(ms)
    }
}

/// Where a call stands: state and the figures that the engine decides by. Never stored; always folded.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Its id.
    pub id: CallId,
    /// Its first fact.
    pub accepted: Arc<Accepted>,
    /// When it was accepted.
    pub accepted_at: Millis,
    /// Where it stands.
    pub state: State,
    /// Since when.
    pub since: Millis,
    /// Number of entries folded.
    pub entries: u32,
    /// Number of dispatches.
    pub attempts: u32,
    /// Dispatches that are not proven to have changed nothing.
    pub unproven: u32,
    /// Dispatches that an operator's "send it again" has put out of account.
    pub forgiven: u32,
    /// The open question, or the one that was answered.
    pub hold: Option<Hold>,
    /// An approval that is not used up.
    pub grant: Option<Grant>,
    /// The arguments that an approver put in the place of the agent's, and who did.
    pub edited: Option<(Decider, Text)>,
    /// Command line or URL of the server that is asked about, where it is another one than at first.
    pub identity: Option<String>,
    /// The call's answer.
    pub answer: Option<Answer>,
    /// The latest trouble, for whoever asks why.
    pub trouble: Option<Trouble>,
    /// The entry that ended it.
    pub ending: Option<Box<Entry>>,
    /// When the next attempt is due, in backoff.
    pub due: Millis,
    /// `call_timeout` ends then; it stands still while a person decides.
    pub deadline: Millis,
    /// Probes that settled nothing, since the call is in doubt.
    pub probes: u32,
    /// An operator has freed its keys.
    pub released: bool,
    /// When the answer of a held call was first collected.
    pub collected: Option<Millis>,
    /// When the upstream last showed a sign of life. Not journaled: a restart loses the attempt anyway.
    pub heard: Millis,
}

impl Call {
    /// The call that its first entry makes.
    ///
    /// # Errors
    /// [`Illegal`] for any other entry than `Accepted`.
    pub fn begin(id: CallId, at: Millis, entry: &Entry) -> Result<Self, Illegal> {
        let state = State::after(None, entry)?;
        let Entry::Accepted(accepted) = entry else {
            return Err(Illegal { state: None, entry: entry.name() });
        };
        let hold = match &accepted.disposition {
            Disposition::Ask { digest, gates } => Some(Hold {
                revision: 1,
                digest: *digest,
                gates: gates.clone(),
                asked: at,
                votes: Vec::new(),
                shown: None,
                earlier: None,
            }),
            Disposition::Allow | Disposition::Deny { .. } => None,
        };
        Ok(Self {
            id,
            accepted: Arc::new(Accepted::clone(accepted)),
            accepted_at: at,
            state,
            since: at,
            entries: 1,
            attempts: 0,
            unproven: 0,
            forgiven: 0,
            hold,
            grant: None,
            edited: None,
            identity: None,
            answer: None,
            trouble: None,
            ending: state.is_done().then(|| Box::new(entry.clone())),
            due: at,
            deadline: at.plus(accepted.plan.call_timeout_ms),
            probes: 0,
            released: false,
            collected: None,
            heard: at,
        })
    }

    /// Folds one more entry.
    ///
    /// # Errors
    /// [`Illegal`] where the table does not allow it; the call is then unchanged.
    pub fn apply(&mut self, at: Millis, entry: &Entry) -> Result<(), Illegal> {
        let state = State::after(Some(self.state), entry)?;
        self.entries += 1;
        if self.state == State::Approved && state == State::InFlight {
            // Until now the call was the approvers' business, under a clock of its own (`execute_by`).
            self.deadline = at.plus(self.accepted.plan.call_timeout_ms);
        }
        if state != self.state || matches!(entry, Entry::Superseded { .. } | Entry::Edited { .. }) {
            self.state = state;
            self.since = at;
            if state.is_done() {
                self.ending = Some(Box::new(entry.clone()));
            }
        }
        self.note(at, entry);
        Ok(())
    }

    /// The call that these entries make, in their order.
    ///
    /// # Errors
    /// [`Illegal`] where the journal holds what this table does not allow.
    pub fn fold(records: &[Record]) -> Result<Option<Self>, Illegal> {
        let Some((first, rest)) = records.split_first() else { return Ok(None) };
        let mut call = Self::begin(first.call, first.at, &first.entry)?;
        for record in rest {
            call.apply(record.at, &record.entry)?;
        }
        Ok(Some(call))
    }

    fn note(&mut self, at: Millis, entry: &Entry) {
        match entry {
            Entry::Approved { by, counts_for, grant, glass, .. } => {
                // Past the gates is not through them: should the approval be taken back, nothing of it counts.
                if let Some(hold) = self.hold.as_mut().filter(|_| glass.is_none()) {
                    hold.votes.push((by.clone(), counts_for.clone()));
                }
                if grant.is_some() {
                    self.grant = *grant;
                    // The call's own clock stood still while a person decided.
                    self.deadline = at.plus(self.accepted.plan.call_timeout_ms);
                }
            }
            Entry::Previewed { shown, digest, .. } => {
                if let Some(hold) = &mut self.hold {
                    hold.digest = *digest;
                    hold.asked = at;
                    hold.shown = Some(shown.clone());
                }
            }
            Entry::Superseded { revision, digest, gates, shown, identity, .. } => {
                self.ask_again(at, *revision, *digest, gates, shown);
                self.identity = identity.clone();
            }
            Entry::Edited { by, arguments, revision, digest, gates, shown, identity } => {
                self.ask_again(at, *revision, *digest, gates, shown);
                self.identity = identity.clone();
                self.edited = Some((by.clone(), arguments.clone()));
            }
            Entry::Revoked { by, .. } => self.revoke(by),
            Entry::Dispatched { attempt } => {
                self.attempts = attempt.0;
                self.unproven += 1;
                self.heard = at;
            }
            Entry::Unexecuted { trouble, then, .. } => {
                self.unproven = self.unproven.saturating_sub(1);
                self.trouble = Some(trouble.clone());
                self.follow(*then);
            }
            Entry::Lost { trouble, then, .. } => {
                self.trouble = Some(trouble.clone());
                self.probes = 0;
                self.follow(*then);
            }
            Entry::Answered { answer, .. } | Entry::Responded { answer, .. } => {
                self.answer = Some(answer.clone())
            }
            Entry::Resolved { how: Resolution::Happened(answer), .. } => self.answer = Some(answer.clone()),
            Entry::Resolved { how: Resolution::NotSent, .. } => {
                self.unproven = 0;
                self.forgiven = self.attempts;
                // "Send it again" is a decision of its own: the old grant's clock has nothing to say about it.
                self.grant = None;
                self.deadline = at.plus(self.accepted.plan.call_timeout_ms);
            }
            Entry::Collected { .. } => self.collected = self.collected.or(Some(at)),
            Entry::Abandoned { trouble } => self.trouble = Some(trouble.clone()),
            Entry::Probed { .. } => {
                self.probes += 1;
                self.heard = at;
            }
            Entry::Accepted(_)
            | Entry::Refused { .. }
            | Entry::Expired { .. }
            | Entry::AnsweredAgain { .. }
            | Entry::Resolved { how: Resolution::GaveUp, .. }
            | Entry::Cancelled { .. }
            | Entry::Joined { .. }
            | Entry::Noted(_) => {}
            Entry::Released { .. } => self.released = true,
        }
    }

    /// One's own vote goes, or, where there is none, everybody's.
    fn revoke(&mut self, by: &Decider) {
        self.grant = None;
        if let Some(hold) = &mut self.hold {
            let own = hold.votes.iter().any(|(voter, _)| voter.name == by.name);
            hold.votes.retain(|(voter, _)| own && voter.name != by.name);
        }
    }

    fn ask_again(
        &mut self,
        at: Millis,
        revision: u32,
        digest: Digest,
        gates: &[Gate],
        shown: &Option<Shown>,
    ) {
        self.grant = None;
        let earlier = self.hold.take().and_then(|hold| hold.shown);
        let (gates, shown) = (gates.into(), shown.clone());
        self.hold = Some(Hold { revision, digest, gates, asked: at, votes: Vec::new(), shown, earlier });
    }

    fn follow(&mut self, then: Then) {
        if let Then::Retry { due } = then {
            self.due = due;
        }
    }

    /// The call waited for its agent, from then until now: its own clocks stood still meanwhile. Like `heard` this is
    /// in no entry: whoever wants it to last keeps it beside them.
    pub fn paused(&mut self, from: Millis, until: Millis) {
        let pause_ms = until.since(from);
        for clock in [&mut self.since, &mut self.heard, &mut self.deadline] {
            *clock = clock.plus(pause_ms);
        }
    }

    /// Whether an attempt may have executed: "unknown" is never "failed".
    pub fn may_have_executed(&self) -> bool {
        self.unproven > 0
    }

    /// The argument text that approvers see and that is sent.
    pub fn arguments(&self) -> &Text {
        self.edited.as_ref().map_or(&self.accepted.arguments, |(_, arguments)| arguments)
    }

    /// Command line or URL of the server that approvers see.
    pub fn identity(&self) -> &str {
        self.identity.as_deref().unwrap_or(&self.accepted.identity)
    }

    /// The number of the latest attempt; 0 before the first.
    pub fn attempt(&self) -> Attempt {
        Attempt(self.attempts)
    }

    /// Whether the call needs a person's approval.
    pub fn is_gated(&self) -> bool {
        matches!(self.accepted.disposition, Disposition::Ask { .. })
    }

    /// Whether sending it again is harmless by the operator's word.
    pub fn is_safe(&self) -> bool {
        self.accepted.plan.repeat == Repeat::Safe
    }

    /// Whether the keys go back when the call ends like this (semantics section 5).
    pub fn key_fate(&self) -> KeyFate {
        let State::Done(outcome) = self.state else { return KeyFate::Keep };
        let free = match outcome {
            Outcome::Expired | Outcome::Cancelled => !self.may_have_executed(),
            Outcome::Failed => {
                // A definitive answer stays the answer, unless the policy frees it after a failure.
                (self.answer.is_none() && !self.may_have_executed())
                    || self.accepted.plan.reuse == Reuse::AfterFailure
            }
            Outcome::Succeeded | Outcome::Denied | Outcome::Refused | Outcome::Unknown => false,
        };
        if free { KeyFate::Release } else { KeyFate::Keep }
    }
}
