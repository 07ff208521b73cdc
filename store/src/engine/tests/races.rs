//! Whatever comes in whatever order: races have one winner, and no step is illegal.

use holdfast_policy::{Absent, Failure, Repeat, SelfApproval};
use proptest::prelude::*;

use super::story::{CHANGED, DIGEST, SECOND, Story, answer, gate_of, keyed, never, operator, safe};
use crate::{
    Call, Hash32,
    engine::{
        AnswerKind, Attempt, Entry, Event, Failed, Loss, Millis, Now, OldProcess, Probed, Recheck,
        Resolution, Standing, State, Trouble, step, wake,
    },
    state::Outcome,
};

/// What somebody does in a race, decided on what they saw some entries ago.
#[derive(Clone, Debug)]
struct Act {
    event: u8,
    wait_ms: u64,
    behind: usize,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = (0..5u8, 0..400u64, 0..3usize);
    prop::collection::vec(act.prop_map(|(event, wait_ms, behind)| Act { event, wait_ms, behind }), 1..30)
}

fn racing(event: u8) -> Event {
    let approve = |name: &str| Event::Approve {
        by: operator(name),
        digest: DIGEST,
        standing: Standing::Other,
        glass: None,
    };
    match event {
        0 => approve("ana"),
        1 => approve("bo"),
        2 => Event::Reject { by: operator("cy"), digest: Some(DIGEST), reason: "no".into() },
        3 => Event::Slot,
        _ => Event::Tick,
    }
}

/// Plays the race over a journal with compare-and-swap; every version of the call, with the time of each.
fn race(acts: &[Act]) -> (Vec<Call>, Vec<(Millis, Entry)>) {
    let mut gate = gate_of(2, &[], SelfApproval::Refused);
    (gate.approve_by_ms, gate.execute_by_ms) = (2 * SECOND, SECOND);
    let story = never().held_for(&[gate]).asked();
    let (mut versions, mut written) = (vec![story.call().clone()], Vec::new());
    let mut at = Millis(0);
    for act in acts {
        at = at.plus(act.wait_ms);
        let seen = &versions[versions.len().saturating_sub(1 + act.behind)];
        let mut event = racing(act.event);
        if let (Event::Slot, State::Approved) = (&event, seen.state) {
            event = Event::Rechecked { revision: 1, recheck: Recheck::Same };
        }
        let Ok(step) = step(Now { at, dice: 0.5 }, seen, event) else { continue };
        let latest = versions.last().expect("a first version");
        // The journal takes an append only on top of what it was computed from.
        if step.append.is_empty() || seen.entries != latest.entries {
            continue;
        }
        let mut next = latest.clone();
        for entry in step.append {
            next.apply(at, &entry).expect("the engine makes legal steps");
            written.push((at, entry));
        }
        versions.push(next);
    }
    (versions, written)
}

proptest! {
    #[test]
    fn a_race_of_yes_no_and_the_clock_has_one_winner(acts in acts()) {
        let (versions, written) = race(&acts);
        let mut ends = Vec::new();
        let mut execute_by = None;
        for (at, entry) in &written {
            match entry {
                Entry::Approved { grant, .. } => {
                    prop_assert!(at.0 < 2 * SECOND, "approved after approve_by");
                    execute_by = execute_by.or(grant.map(|grant| grant.execute_by));
                }
                Entry::Refused { .. } | Entry::Expired { .. } => ends.push(entry.name()),
                Entry::Dispatched { .. } => {
                    prop_assert!(execute_by.is_some_and(|by| *at < by), "dispatched without a grant in force");
                    ends.push(entry.name());
                }
                // A call under way is past the race: it times out.
                Entry::Lost { .. } => {}
                other => prop_assert!(false, "{other:?} has no place in this race"),
            }
        }
        prop_assert!(ends.len() <= 1, "{ends:?}");
        let last = versions.last().expect("a first version");
        let decided = matches!(last.state, State::Done(Outcome::Refused | Outcome::Expired) | State::InFlight | State::InDoubt);
        prop_assert_eq!(decided, ends.len() == 1);
    }

    #[test]
    fn no_order_of_events_makes_an_illegal_step(
        kind in 0..7u8,
        events in prop::collection::vec((0..30u8, 0..4u32, 0..40_000u64), 0..60),
    ) {
        let mut call = started(kind).call().clone();
        let (mut at, mut open) = (Millis(0), call.attempts);
        for (event, attempt, wait_ms) in events {
            at = at.plus(wait_ms);
            let event = any_event(event, Attempt(attempt));
            let ticks = matches!(event, Event::Tick);
            let Ok(step) = step(Now { at, dice: 0.9 }, &call, event) else { continue };
            for entry in &step.append {
                if matches!(entry, Entry::Dispatched { .. }) {
                    let once = call.is_gated() || call.accepted.plan.repeat == Repeat::Never;
                    prop_assert!(!once || open == 0, "sent twice");
                    prop_assert!(!once || !call.may_have_executed());
                    open += 1;
                }
                if matches!(entry, Entry::Unexecuted { .. }) {
                    open -= 1;
                }
                if let Entry::Resolved { how: Resolution::NotSent, .. } = entry {
                    open = 0;
                }
                prop_assert!(call.apply(at, entry).is_ok(), "{:?} after {:?}", entry, call.state);
                prop_assert_eq!(call.unproven, open);
            }
            // A wake-up that changes nothing must not be asked for again at once; probes may be out.
            if ticks && step.append.is_empty() && call.state != State::InDoubt {
                prop_assert!(wake(at, &call).is_none_or(|next| next > at), "{:?}", call.state);
            }
        }
    }
}

fn started(kind: u8) -> Story {
    match kind {
        0 => never().probed(Absent::Resend).sent(),
        1 => keyed().probed(Absent::Hold).sent(),
        2 => safe().sent(),
        3 => never().probed(Absent::Resend).held(),
        4 => keyed().held(),
        5 => never().unseen().held(),
        _ => safe().held(),
    }
}

fn any_event(event: u8, attempt: Attempt) -> Event {
    let failed = |failure| {
        let trouble = Trouble::new("trouble", "words");
        let answer = (failure == Failure::RefusedForGood).then(|| answer(AnswerKind::Error, "-32602"));
        Event::Failed(
            attempt,
            Failed { failure, loss: Loss::Disconnected, trouble, retry_after_ms: None, answer },
        )
    };
    let approve = |name: &str, digest: Hash32| Event::Approve {
        by: operator(name),
        digest,
        standing: Standing::Other,
        glass: None,
    };
    match event {
        0 => Event::Recovered,
        1 | 2 => Event::Slot,
        3 => Event::Rechecked { revision: 1, recheck: Recheck::Same },
        4 => Event::Rechecked { revision: 2, recheck: Recheck::Same },
        5 => Event::Rechecked { revision: 1, recheck: Recheck::Denied { reason: "stricter".into() } },
        6 => Event::Rechecked {
            revision: 1,
            recheck: Recheck::Changed {
                reason: "drift".into(),
                digest: CHANGED,
                gates: vec![super::story::gate()],
                shown: None,
                identity: None,
            },
        },
        7 => Event::Answered(attempt, answer(AnswerKind::Result, "done")),
        8 => Event::Answered(attempt, answer(AnswerKind::ToolError, "busy")),
        9 => Event::Answered(attempt, answer(AnswerKind::ToolError, "no")),
        10 => failed(Failure::NotSent),
        11 => failed(Failure::RefusedUnexecuted),
        12 => failed(Failure::RefusedForGood),
        13 => failed(Failure::AnswerLost),
        14 | 15 => Event::Tick,
        16 => approve("ana", DIGEST),
        17 => approve("bo", CHANGED),
        18 => Event::Cancel(operator("agent")),
        19 => Event::Resolve(operator("ana"), Resolution::NotSent),
        20 => Event::Probed(Probed::Absent { old_process: OldProcess::Gone }),
        21 => Event::Probed(Probed::Unclear("503".into())),
        22 => Event::QueueFull,
        23 => Event::Revoke { by: operator("ana"), reason: "second thoughts".into() },
        24 => Event::Edit { by: operator("bo"), seen: DIGEST, edited: Box::new(super::story::edited()) },
        25 => Event::Respond {
            by: operator("bo"),
            digest: CHANGED,
            answer: answer(AnswerKind::Result, "by hand"),
        },
        26 => Event::Approve {
            by: operator("cy"),
            digest: CHANGED,
            standing: Standing::Owner,
            glass: Some("the house burns".into()),
        },
        27 | 28 => Event::Previewed { shown: super::story::shown(), digest: DIGEST },
        _ => Event::Release(operator("ana")),
    }
}
