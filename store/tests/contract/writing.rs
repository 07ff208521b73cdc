//! Appends: atomic, in order, by compare-and-swap, and there after a restart.

use std::iter;

use holdfast_store::{Entry, Hash32, JournalError, Millis, Outcome, Refusal, State, Then, Urgency};

use crate::{facts::*, media::Medium};

pub(crate) fn an_append_is_readable_once_acknowledged(medium: &mut dyn Medium) {
    let made_entries = medium.append(fresh(1, vec![])).expect("a new call");
    assert_eq!(made_entries.entries, 2);
    let more = medium.append(append(call(1), 9, 2, vec![answered(1)])).expect("the next entry");
    assert_eq!(more.entries, 3);

    let history = medium.journal().history(call(1)).expect("readable");
    let entries: Vec<_> = history.iter().map(|record| record.entry.clone()).collect();
    assert_eq!(entries, [made(accepted()), dispatched(1), answered(1)]);
    assert_eq!(history.iter().map(|record| record.n).collect::<Vec<_>>(), [0, 1, 2]);
    let at: Vec<_> = history.iter().map(|record| record.at).collect();
    assert_eq!(at, [1, 1, 9].map(|at| Millis(EPOCH + at)));
    assert!(history.iter().all(|record| record.call == call(1)));
}

pub(crate) fn texts_stay_byte_for_byte(medium: &mut dyn Medium) {
    let odd = "{ \"a\" :1.0e+2,\"\\u0041\":\"\u{202e}é\\/\", \"big\":123456789012345678901234567890 ,\n\t\"z\":[ ] }";
    let mut odd_call = accepted();
    odd_call.arguments = text(odd);
    odd_call.meta = Some(text("{\"k\" : 1 }"));
    medium.must(append(call(1), 1, 0, vec![made(odd_call)]));
    medium.restart();
    let history = medium.journal().history(call(1)).expect("readable");
    let Entry::Accepted(accepted) = &history[0].entry else { panic!("the first entry is {:?}", history[0]) };
    assert_eq!(&*accepted.arguments, odd);
    assert_eq!(accepted.meta.as_deref(), Some("{\"k\" : 1 }"));
}

pub(crate) fn another_number_of_entries_is_a_conflict(medium: &mut dyn Medium) {
    let conflict = |medium: &dyn Medium, expected, entries, has| {
        let answer = medium.append(append(call(1), 5, expected, entries));
        assert!(
            matches!(&answer, Err(Refusal::Conflict { entries }) if *entries == has),
            "expected {expected} of {has}: {answer:?}"
        );
    };
    conflict(medium, 1, vec![answered(1)], 0);
    medium.must(fresh(1, vec![]));
    conflict(medium, 0, vec![made(accepted())], 2);
    conflict(medium, 1, vec![answered(1)], 2);
    conflict(medium, 3, vec![answered(1)], 2);
    assert_eq!(medium.journal().tail(0, 10).expect("readable").len(), 2, "a conflict writes nothing");
    medium.must(append(call(1), 6, 2, vec![answered(1)]));
}

pub(crate) fn what_cannot_follow_is_refused_and_the_journal_goes_on(medium: &mut dyn Medium) {
    let refused = |medium: &dyn Medium, append| {
        let answer = medium.append(append);
        assert!(matches!(answer, Err(Refusal::Failed(JournalError::Unreadable(_)))), "{answer:?}");
    };
    refused(medium, append(call(1), 1, 0, vec![]));
    refused(medium, append(call(1), 1, 0, vec![dispatched(1)]));
    refused(medium, append(call(1), 1, 0, vec![made(accepted()), made(accepted())]));
    medium.must(fresh(1, vec![]));
    refused(medium, append(call(1), 2, 2, vec![]));
    refused(medium, append(call(1), 2, 2, vec![answered(1), dispatched(2)]));
    let journal = medium.journal();
    assert_eq!(journal.tail(0, 10).expect("readable").len(), 2);
    assert_eq!(journal.summary(call(1)).expect("readable").map(|line| line.state), Some(State::InFlight));
    medium.must(append(call(1), 3, 2, vec![answered(1)]));
}

pub(crate) fn a_summary_is_the_fold_of_the_entries(medium: &mut dyn Medium) {
    let mut with_run = accepted();
    with_run.run = Some("task-7".into());
    medium.must(append(call(1), 1, 0, vec![made(with_run), dispatched(1)]));
    let due = Millis(EPOCH + 50);
    medium.must(append(call(1), 20, 2, vec![lost(1, Then::Retry { due })]));
    medium.must(append(call(1), 50, 3, vec![dispatched(2)]));
    medium.must(append(call(1), 60, 4, vec![answered(2)]));
    medium.must(append(call(1), 90, 5, vec![joined()]));
    medium.restart();
    let line = medium.journal().summary(call(1)).expect("readable").expect("it exists");
    assert_eq!(line.call, call(1));
    assert_eq!((line.at, line.updated), (Millis(EPOCH + 1), Millis(EPOCH + 90)));
    assert_eq!((&*line.principal, &*line.server, &*line.tool), ("ana", "bank", "refund"));
    assert_eq!(line.run.as_deref(), Some("task-7"));
    assert_eq!(line.state, State::Done(Outcome::Succeeded));
    assert_eq!((line.attempts, line.entries), (2, 6));
}

pub(crate) fn entries_of_one_append_share_their_fate(medium: &mut dyn Medium) {
    let seen = medium.journal().tail(0, 10).expect("readable").len();
    assert_eq!(seen, 0);
    let pending: Vec<_> = (1..=20).map(|n| medium.submit(fresh(n, vec![]))).collect();
    medium.settle();
    pending.into_iter().for_each(|pending| assert!(pending.wait().is_ok()));
    let records = medium.journal().tail(0, 100).expect("readable");
    for pair in records.chunks(2) {
        let [first, second] = pair else { panic!("half an append: {pair:?}") };
        assert_eq!((first.call, first.n, second.n), (second.call, 0, 1));
    }
}

pub(crate) fn the_tail_is_in_the_order_of_sequence_numbers(medium: &mut dyn Medium) {
    for n in 1..=5 {
        medium.must(fresh(n, vec![]));
    }
    medium.must(append(call(2), 10, 2, vec![answered(1)]));
    let seqs = |from, limit| {
        let records = medium.journal().tail(from, limit).expect("readable");
        records.iter().map(|record| record.seq).collect::<Vec<_>>()
    };
    assert_eq!(seqs(0, 100), (1..=11).collect::<Vec<_>>());
    assert_eq!(seqs(4, 3), [4, 5, 6]);
    assert_eq!(seqs(11, 3), [11]);
    assert_eq!(seqs(12, 3), [0; 0]);
    assert_eq!(seqs(1, 0), [0; 0]);
    let last = medium.journal().tail(11, 1).expect("readable");
    assert_eq!((last[0].call, last[0].n, &last[0].entry), (call(2), 2, &answered(1)));
}

pub(crate) fn everything_acknowledged_is_there_after_a_restart(medium: &mut dyn Medium) {
    let all = |medium: &dyn Medium| {
        let journal = medium.journal();
        let calls = (1..=40).map(|n| journal.summary(call(n)).expect("readable").expect("it is there"));
        (
            journal.tail(0, 1000).expect("readable"),
            calls.collect::<Vec<_>>(),
            journal.unfinished().expect("readable"),
        )
    };
    for n in 1..=40 {
        medium.must(fresh(n, vec![]));
    }
    for n in (2..=40).step_by(2) {
        medium.must(append(call(n), 100 + u64::from(n), 2, vec![answered(1)]));
    }
    let before = all(medium);
    medium.restart();
    assert_eq!(all(medium), before);
    medium.must(append(call(1), 200, 2, vec![answered(1)]));
    assert_eq!(medium.journal().tail(101, 10).expect("readable").len(), 1, "sequence numbers go on");
}

pub(crate) fn appends_that_may_wait_are_answered_too(medium: &mut dyn Medium) {
    let mut lazy = fresh(1, vec![]);
    lazy.urgency = Urgency::Soon;
    let alone = medium.submit(lazy);
    medium.settle();
    assert!(alone.wait().is_ok());

    let mut lazy = fresh(2, vec![]);
    lazy.urgency = Urgency::Soon;
    let first = medium.submit(lazy);
    let second = medium.submit(fresh(3, vec![]));
    medium.settle();
    assert!(first.wait().is_ok() && second.wait().is_ok());
    let order: Vec<_> =
        medium.journal().tail(3, 10).expect("readable").iter().map(|record| record.call).collect();
    assert_eq!(order, [call(2), call(2), call(3), call(3)], "urgency changes no order");
}

pub(crate) fn closing_writes_what_is_queued(medium: &mut dyn Medium) {
    let lazy = |n| {
        let mut lazy = fresh(n, vec![]);
        lazy.urgency = Urgency::Soon;
        lazy
    };
    let pending: Vec<_> = (1..=50).map(|n| medium.submit(lazy(n))).collect();
    medium.restart();
    assert!(pending.into_iter().all(|pending| pending.wait().is_ok()));
    assert_eq!(medium.journal().unfinished().expect("readable").len(), 50);
}

pub(crate) fn a_whole_journal_verifies(medium: &mut dyn Medium) {
    let verify = |medium: &dyn Medium| medium.journal().verify(&mut |_| {}).expect("whole");
    assert_eq!(verify(medium).head, Hash32([0; 32]), "an empty chain has no head");
    for n in 1..=30 {
        medium.must(fresh(n, vec![]));
        medium.must(append(call(n), 100, 2, iter::once(answered(1)).chain([joined()]).collect()));
    }
    let verified = verify(medium);
    assert_eq!((verified.entries, verified.pruned), (120, 0));
    medium.restart();
    assert_eq!(verify(medium), verified, "the head does not change by being read back");
    medium.must(fresh(31, vec![]));
    assert_eq!(verify(medium).head != verified.head, medium.is_chained());
}
