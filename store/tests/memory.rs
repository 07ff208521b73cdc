//! The points at which the memory journal crashes, and what a restart finds.

mod facts;

use std::sync::Arc;

use facts::*;
use holdfast_store::{Chaining, Crash, Delivery, Journal, JournalError, KeySource, Memory, Refusal};

fn keyed(n: u32) -> holdfast_store::Append {
    fresh(n, vec![key(KeySource::Explicit, &n.to_string())])
}

#[track_caller]
fn failed(answer: Result<holdfast_store::Appended, Refusal>) {
    assert!(matches!(answer, Err(Refusal::Failed(JournalError::Io(_)))), "{answer:?}");
}

/// Crashes in the second of three commits; returns the calls that the restart finds.
fn crash(crash: Crash) -> Vec<holdfast_store::CallId> {
    let journal = Memory::default();
    journal.crash_at(2, crash);
    submit(&journal, keyed(1)).wait().expect("before the crash");
    assert!(!journal.is_crashed());
    failed(submit(&journal, keyed(2)).wait());
    assert!(journal.is_crashed());
    failed(submit(&journal, keyed(3)).wait());
    assert!(journal.history(call(1)).is_err(), "a crashed journal is not read either");

    let again = journal.reopen();
    assert!(!again.is_crashed());
    submit(&again, keyed(4)).wait().expect("it goes on, and crashes no more");
    let kept = again.unfinished().expect("readable");
    // Keys are there exactly if their call is.
    for n in [1, 2, 3] {
        let owner = again.owner(key(KeySource::Explicit, &n.to_string()).hash).expect("readable");
        assert_eq!(owner, kept.contains(&call(n)).then_some(call(n)));
    }
    kept
}

#[test]
fn before_the_commit_nothing_is_kept() {
    assert_eq!(crash(Crash::BeforeCommit), [call(1), call(4)]);
}

#[test]
fn after_the_commit_all_is_kept_and_nobody_knows() {
    assert_eq!(crash(Crash::AfterCommit), [call(1), call(2), call(4)]);
}

#[test]
fn a_flush_is_one_commit() {
    for (point, kept) in [(Crash::BeforeCommit, 0), (Crash::AfterCommit, 3)] {
        let journal = Memory::new(Delivery::OnFlush, Chaining::Chained);
        journal.crash_at(1, point);
        assert_eq!(journal.flush(), 0, "a flush of nothing is no commit");
        let pending: Vec<_> = (1..=3).map(|n| submit(&journal, keyed(n))).collect();
        assert_eq!(journal.tail(0, 10).expect("readable"), [], "not before the flush");
        assert_eq!(journal.flush(), 3);
        pending.into_iter().for_each(|pending| failed(pending.wait()));
        let again = journal.reopen();
        assert_eq!(again.unfinished().expect("readable").len(), kept);
        again.verify(&mut |_| {}).expect("whole");
    }
}

#[test]
fn a_restart_loses_what_was_not_flushed_and_says_so() {
    let journal = Memory::new(Delivery::OnFlush, Chaining::Unchained);
    let waiting = submit(&journal, keyed(1));
    let again = journal.reopen();
    failed(waiting.wait());
    assert_eq!(again.unfinished().expect("readable"), []);
    failed(submit(&journal, keyed(2)).wait());
}

#[test]
fn a_cursor_survives_a_crash_and_none_is_set_after_it() {
    let journal = Memory::default();
    journal.set_cursor("notify/ops", 3).expect("writable");
    journal.crash_at(1, Crash::BeforeCommit);
    failed(submit(&journal, keyed(1)).wait());
    assert!(journal.set_cursor("notify/ops", 4).is_err());
    assert!(journal.cursor("notify/ops").is_err());
    assert_eq!(journal.reopen().cursor("notify/ops").expect("readable"), Some(3));
}

#[test]
fn what_was_kept_survives_a_crash_and_nothing_is_kept_after_it() {
    let journal = Memory::default();
    let one = || vec![("a".to_owned(), Some(b"1".to_vec()))];
    journal.keep(one()).expect("writable");
    journal.crash_at(1, Crash::BeforeCommit);
    failed(submit(&journal, keyed(1)).wait());
    assert!(journal.keep(one()).is_err());
    assert!(journal.kept("").is_err());
    assert_eq!(journal.reopen().kept("").expect("readable"), [("a".to_owned(), b"1".to_vec())]);
}

#[test]
#[should_panic(expected = "not kept under one name")]
fn what_is_too_large_is_not_kept() {
    Memory::default().keep(vec![("a".to_owned(), Some(vec![0; holdfast_store::KEEP_VALUE_MOST + 1]))]).ok();
}

#[test]
fn a_callback_may_submit() {
    let journal = Arc::new(Memory::default());
    let inner = journal.clone();
    let (send, receive) = std::sync::mpsc::channel();
    let next = move |answer: Result<_, Refusal>| {
        answer.expect("the first append");
        inner.submit(keyed(2), Box::new(move |answer| send.send(answer).expect("the test waits")));
    };
    journal.submit(keyed(1), Box::new(next));
    receive.recv().expect("an answer").expect("the second append");
}
