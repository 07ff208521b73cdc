//! Everything that people can say of a held call, in any order, of what they saw a while ago: one end, and nothing is
//! sent but what enough of them have approved as it stands.

use std::collections::BTreeSet;

use holdfast_policy::{Gate, SelfApproval};
use proptest::prelude::*;

use super::story::{SECOND, answer, edited, gate_of, never, operator};
use crate::{
    Call, Hash32,
    engine::{AnswerKind, Edited, Entry, Event, Millis, Now, Recheck, Standing, State, step},
    entry::HoldClock,
};

const QUORUM: usize = 2;
const APPROVE_BY: u64 = 3 * SECOND;
const PEOPLE: [&str; 3] = ["ana", "bo", "cy"];

/// What somebody does some time after the act before, deciding on what they saw some entries ago.
#[derive(Clone, Debug)]
struct Act {
    what: u8,
    who: usize,
    wait_ms: u64,
    behind: usize,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = (0..16u8, 0..PEOPLE.len(), 0..300u64, 0..3usize);
    prop::collection::vec(
        act.prop_map(|(what, who, wait_ms, behind)| Act { what, who, wait_ms, behind }),
        1..40,
    )
}

fn gate() -> Gate {
    let mut gate = gate_of(QUORUM as u32, &[], SelfApproval::Refused);
    (gate.approve_by_ms, gate.execute_by_ms) = (APPROVE_BY, SECOND);
    gate
}

/// What the act comes to for somebody who sees the call like this.
fn event(act: &Act, seen: &Call) -> Event {
    let hold = seen.hold.as_ref().expect("a held call has a question");
    let (by, digest) = (operator(PEOPLE[act.who]), hold.digest);
    // Each revision has a digest of its own, as it has with real hashes.
    let next = Hash32([100 + u8::try_from(hold.revision).unwrap_or(u8::MAX); 32]);
    let glass = (act.what == 6).then(|| "the house burns".to_owned());
    match act.what {
        0..=6 => Event::Approve { by, digest, standing: Standing::Other, glass },
        7 => Event::Reject { by, digest: Some(digest), reason: "no".into() },
        8 => Event::Respond { by, digest, answer: answer(AnswerKind::Result, "by hand") },
        9 => Event::Revoke { by, reason: "second thoughts".into() },
        10 => {
            let edited = Edited { digest: next, gates: vec![gate()], ..edited() };
            Event::Edit { by, seen: digest, edited: Box::new(edited) }
        }
        11 => Event::Cancel(by),
        12 => {
            let reason = "drift".into();
            let recheck =
                Recheck::Changed { reason, digest: next, gates: vec![gate()], shown: None, identity: None };
            Event::Rechecked { revision: hold.revision, recheck }
        }
        13 | 14 if seen.state == State::Approved => {
            Event::Rechecked { revision: hold.revision, recheck: Recheck::Same }
        }
        13 => Event::Slot,
        _ => Event::Tick,
    }
}

/// Plays the acts over a journal with compare-and-swap; what was written, and when.
fn written(acts: &[Act]) -> Vec<(Millis, Entry)> {
    let story = never().held_for(&[gate()]).asked();
    let (mut versions, mut written) = (vec![story.call().clone()], Vec::new());
    let mut at = Millis(0);
    for act in acts {
        at = at.plus(act.wait_ms);
        let latest = versions.last().expect("a first version");
        let seen = &versions[versions.len().saturating_sub(1 + act.behind)];
        // Decided on what was seen, taken by the call as it is.
        let Ok(step) = step(Now { at, dice: 0.5 }, latest, event(act, seen)) else { continue };
        let mut next = latest.clone();
        for entry in step.append {
            next.apply(at, &entry).expect("the engine makes legal steps");
            written.push((at, entry));
        }
        versions.push(next);
    }
    written
}

/// The question as the entries alone have it.
#[derive(Debug)]
struct Question {
    digest: Hash32,
    asked: Millis,
    votes: BTreeSet<String>,
    execute_by: Option<Millis>,
}

impl Question {
    fn new(digest: Hash32, asked: Millis) -> Self {
        Self { digest, asked, votes: BTreeSet::new(), execute_by: None }
    }

    fn revoke(&mut self, by: &str) {
        self.execute_by = None;
        if !self.votes.remove(by) {
            self.votes.clear();
        }
    }
}

proptest! {
    #[test]
    fn nothing_is_sent_but_what_enough_people_approved_as_it_stands(acts in acts()) {
        let mut question = Question::new(super::story::DIGEST, Millis(0));
        let mut ends = Vec::new();
        for (at, entry) in written(&acts) {
            prop_assert!(ends.is_empty() || matches!(entry, Entry::Lost { .. }), "{entry:?} after {ends:?}");
            match &entry {
                Entry::Approved { by, digest, grant, glass, .. } => {
                    prop_assert_eq!(*digest, question.digest);
                    prop_assert!(at.0 < question.asked.0 + APPROVE_BY, "approved after approve_by");
                    if glass.is_none() {
                        prop_assert!(question.votes.insert(by.name.clone()), "{} counted twice", by.name);
                    }
                    prop_assert_eq!(grant.is_some(), glass.is_some() || question.votes.len() == QUORUM);
                    question.execute_by = grant.map(|grant| grant.execute_by);
                }
                Entry::Revoked { by, .. } => question.revoke(&by.name),
                Entry::Edited { digest, .. } | Entry::Superseded { digest, .. } => {
                    question = Question::new(*digest, at);
                }
                Entry::Dispatched { .. } => {
                    prop_assert!(question.execute_by.is_some_and(|by| at < by), "sent without a grant: {question:?}");
                    ends.push("dispatched");
                }
                Entry::Expired { clock: HoldClock::ApproveBy } => {
                    prop_assert!(question.execute_by.is_none() && at.0 >= question.asked.0 + APPROVE_BY);
                    ends.push("expired");
                }
                Entry::Expired { clock: HoldClock::ExecuteBy } => {
                    prop_assert!(question.execute_by.is_some_and(|by| at >= by));
                    ends.push("expired");
                }
                Entry::Refused { .. } | Entry::Responded { .. } | Entry::Cancelled { .. } => ends.push(entry.name()),
                Entry::Lost { .. } => {}
                other => prop_assert!(false, "{other:?} has no place here"),
            }
        }
        prop_assert!(ends.len() <= 1, "{ends:?}");
    }
}

/// The acts above reach what they are about: a property over stories that never send anything would say nothing.
#[test]
fn the_acts_reach_every_end() {
    let act = |what, who| Act { what, who, wait_ms: 10, behind: 0 };
    let ends = |acts: &[Act]| written(acts).last().map(|(_, entry)| entry.name());
    let approved = [act(0, 0), act(0, 1)];
    let after = |more: &[Act]| [&approved[..], more].concat();
    assert_eq!(ends(&after(&[act(13, 0)])), Some("dispatched"));
    assert_eq!(ends(&after(&[act(12, 0)])), Some("superseded"));
    assert_eq!(ends(&after(&[act(9, 2)])), Some("revoked"));
    assert_eq!(ends(&after(&[Act { wait_ms: SECOND, ..act(15, 0) }])), Some("expired"));
    assert_eq!(ends(&[act(6, 0), act(13, 0)]), Some("dispatched"));
    assert_eq!(ends(&[act(10, 0), act(7, 1)]), Some("refused"));
    assert_eq!(ends(&[act(8, 0)]), Some("responded"));
    assert_eq!(ends(&[Act { wait_ms: APPROVE_BY, ..act(15, 0) }]), Some("expired"));
}
