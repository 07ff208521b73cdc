//! Retention: answers go first, keys and lines later, and what nobody knows the end of stays.

use holdfast_store::{Filter, KeySource, Millis, Refusal, Resolution, Then};

use crate::{facts::*, media::Medium};

fn prune(medium: &dyn Medium, answers: u64, tombstones: u64, limit: usize) -> usize {
    medium.journal().prune(Millis(EPOCH + answers), Millis(EPOCH + tombstones), limit).expect("writable")
}

/// Call `n` with the explicit key `n`, ended at `n`.
fn ended(medium: &dyn Medium, n: u32) {
    let mut ended = fresh(n, vec![key(KeySource::Explicit, &n.to_string())]);
    ended.entries.push(answered(1));
    ended.claim.identical = Some(hash("same"));
    medium.must(ended);
}

fn is_taken(medium: &dyn Medium, n: u32) -> bool {
    let answer = medium.append(fresh(1000 + n, vec![key(KeySource::Explicit, &n.to_string())]));
    matches!(answer, Err(Refusal::Taken { call: by, .. }) if by == call(n))
}

pub(crate) fn content_goes_first_and_the_line_later(medium: &mut dyn Medium) {
    for n in 1..=3 {
        ended(medium, n);
    }
    let whole = medium.journal().summary(call(1)).expect("readable");
    assert_eq!(prune(medium, 1, 0, 10), 0, "not before its time");
    assert_eq!(prune(medium, 3, 0, 10), 2);
    assert_eq!(prune(medium, 3, 0, 10), 0, "once");
    medium.restart();
    let journal = medium.journal();
    assert_eq!(journal.history(call(1)).expect("readable"), []);
    assert_eq!(journal.history(call(3)).expect("readable").len(), 3);
    assert_eq!(journal.summary(call(1)).expect("readable"), whole);
    let tail: Vec<_> = journal.tail(0, 10).expect("readable").iter().map(|record| record.seq).collect();
    assert_eq!(tail, [7, 8, 9], "sequence numbers do not move up");
    assert_eq!(journal.identical(hash("same"), 10).expect("readable").len(), 3);
    assert_eq!(journal.list(&Filter { limit: 10, ..Filter::default() }).expect("readable").len(), 3);
    drop(journal);
    assert!(is_taken(medium, 1));

    assert_eq!(prune(medium, 3, 2, 10), 1);
    assert_eq!(prune(medium, 3, 2, 10), 0, "once");
    medium.restart();
    let journal = medium.journal();
    assert_eq!(journal.summary(call(1)).expect("readable"), None);
    assert_eq!(journal.identical(hash("same"), 10).expect("readable").len(), 2);
    assert_eq!(journal.list(&Filter { limit: 10, ..Filter::default() }).expect("readable").len(), 2);
    assert!(!is_taken(medium, 1));
    assert!(is_taken(medium, 2));

    // Both at once, where pruning was away for long.
    assert_eq!(prune(medium, 9, 9, 10), 2);
    assert_eq!(
        journal
            .list(&Filter { limit: 10, server: Some("bank".into()), ..Filter::default() })
            .expect("readable")
            .len(),
        1
    );
}

pub(crate) fn unfinished_and_unknown_calls_stay(medium: &mut dyn Medium) {
    medium.must(fresh(1, vec![]));
    medium.must(append(call(2), 2, 0, vec![made(asking())]));
    medium.must(append(call(3), 3, 0, vec![made(accepted()), dispatched(1), lost(1, Then::Doubt)]));
    let given_up = vec![made(accepted()), dispatched(1), lost(1, Then::Doubt), resolved(Resolution::GaveUp)];
    let mut unknown = append(call(4), 4, 0, given_up);
    unknown.claim.keys = vec![key(KeySource::Explicit, "4")];
    medium.must(unknown);
    medium.must(append(call(5), 5, 0, vec![made(denied())]));
    assert_eq!(prune(medium, 1_000_000, 1_000_000, 10), 1, "only the denied call is over");
    let journal = medium.journal();
    for (n, entries) in [(1, 2), (2, 1), (3, 3), (4, 4), (5, 0)] {
        assert_eq!(journal.history(call(n)).expect("readable").len(), entries, "call {n}");
    }
    assert!(is_taken(medium, 4));
}

pub(crate) fn a_pruned_call_can_still_be_appended_to(medium: &mut dyn Medium) {
    ended(medium, 1);
    assert_eq!(prune(medium, 10, 0, 10), 1);
    let mut released = append(call(1), 50, 3, vec![holdfast_store::Entry::Released { by: operator() }]);
    released.keys = holdfast_store::KeyFate::Release;
    medium.must(released);
    medium.restart();
    let history = medium.journal().history(call(1)).expect("readable");
    assert_eq!(history.iter().map(|record| (record.n, record.seq)).collect::<Vec<_>>(), [(3, 4)]);
    assert!(!is_taken(medium, 1));
    // Retention still counts from the end of the call, not from what was recorded later.
    assert_eq!(prune(medium, 10, 0, 10), 1);
    assert_eq!(medium.journal().history(call(1)).expect("readable"), []);
    assert_eq!(prune(medium, 10, 10, 10), 1);
    assert_eq!(medium.journal().summary(call(1)).expect("readable"), None);
}

pub(crate) fn pruning_stops_at_the_limit(medium: &mut dyn Medium) {
    for n in 1..=5 {
        ended(medium, n);
    }
    let kept = |medium: &dyn Medium| {
        (1..=5)
            .filter(|&n| !medium.journal().history(call(n)).expect("readable").is_empty())
            .collect::<Vec<_>>()
    };
    assert_eq!(prune(medium, 10, 0, 2), 2);
    assert_eq!(kept(medium), [3, 4, 5], "oldest first");
    assert_eq!(prune(medium, 10, 3, 4), 4, "three answers, then one tombstone");
    assert_eq!(kept(medium), [0; 0]);
    assert_eq!(prune(medium, 10, 3, 4), 1);
    assert_eq!(prune(medium, 10, 3, 4), 0);
}

pub(crate) fn a_pruned_journal_verifies(medium: &mut dyn Medium) {
    for n in 1..=4 {
        ended(medium, n);
    }
    let head = |medium: &dyn Medium, pruned| {
        let verified = medium.journal().verify(&mut |_| {}).expect("whole");
        assert_eq!((verified.entries, verified.pruned), (12, pruned));
        verified.head
    };
    let before = head(medium, 0);
    prune(medium, 3, 0, 10);
    assert_eq!(head(medium, 6), before);
    prune(medium, 4, 2, 10);
    assert_eq!(head(medium, 9), before, "pruning removes no link");
    medium.restart();
    assert_eq!(head(medium, 9), before);
}
