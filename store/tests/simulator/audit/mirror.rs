//! The durable truth about a call, and an account of its approvals that does not trust the engine's.

use holdfast_policy::Gate;
use holdfast_store::{Answer, Attempt, Call, Digest, Entry, Millis, Record, Resolution};

use super::Submitted;

/// One call.
pub(crate) struct Mirror {
    pub(crate) call: Call,
    pub(super) asked: Option<Asked>,
    pub(super) granted: Option<Moment>,
    /// Attempts that are not proven unexecuted.
    pub(super) open: Vec<Attempt>,
    /// An operator or an opted-in probe said "send it again", and nothing new was asked since.
    pub(super) pardoned: bool,
    /// The latest time in the journal.
    pub(super) high: Millis,
    /// The latest time that this life of Holdfast has seen.
    pub(super) seen: (u32, Millis),
    /// The latest re-check found something else than what was approved.
    pub(super) changed: bool,
    /// An operator has freed its keys.
    pub(super) freed: bool,
    pub(super) latest_answer: Option<Answer>,
}

pub(super) struct Asked {
    pub(super) digest: Digest,
    pub(super) gates: Vec<Gate>,
    pub(super) when: Moment,
    pub(super) voters: Vec<String>,
}

/// A moment by the call's clock, and in reality.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) at: Millis,
    pub(super) real: u64,
    pub(super) epoch: u32,
}

impl Mirror {
    pub(super) fn note(&mut self, record: &Record, submitted: Submitted) {
        self.high = self.high.max(record.at);
        let when = Moment { at: record.at, real: submitted.real, epoch: submitted.epoch };
        match &record.entry {
            Entry::Approved { by, grant, .. } => {
                if let Some(asked) = &mut self.asked {
                    asked.voters.push(by.name.clone());
                }
                if grant.is_some() {
                    self.granted = Some(when);
                }
            }
            Entry::Previewed { digest, .. } => {
                if let Some(asked) = &mut self.asked {
                    (asked.digest, asked.when) = (*digest, when);
                }
            }
            Entry::Revoked { by, .. } => {
                self.granted = None;
                if let Some(asked) = &mut self.asked {
                    let own = asked.voters.contains(&by.name);
                    asked.voters.retain(|voter| own && *voter != by.name);
                }
            }
            Entry::Responded { answer, .. } => self.latest_answer = Some(answer.clone()),
            Entry::Superseded { digest, gates, .. } | Entry::Edited { digest, gates, .. } => {
                self.asked = Some(Asked { digest: *digest, gates: gates.clone(), when, voters: Vec::new() });
                self.granted = None;
                self.pardoned = false;
                self.changed = false;
            }
            Entry::Dispatched { attempt } => self.open.push(*attempt),
            Entry::Unexecuted { attempt, .. } => self.open.retain(|open| open != attempt),
            Entry::Resolved { how: Resolution::NotSent, .. } => {
                self.open.clear();
                self.pardoned = true;
            }
            Entry::Answered { answer, .. } | Entry::AnsweredAgain { answer, .. } => {
                self.latest_answer = Some(answer.clone());
            }
            _ => {}
        }
    }
}
