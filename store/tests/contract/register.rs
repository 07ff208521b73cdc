//! What belongs to no call, and uses of remembered decisions.

use holdfast_store::{Append, CallId, Claim, Entry, Filter, KeyFate, KeySource, Millis, Refusal, Register};

use crate::{facts::*, media::Medium};

fn note(expected: u32, entries: Vec<Entry>) -> Append {
    append(CallId::REGISTER, 0, expected, entries)
}

fn register(medium: &dyn Medium) -> Register {
    let records = medium.journal().history(CallId::REGISTER).expect("readable");
    Register::fold(&records).expect("only what can follow was written")
}

pub(crate) fn the_register_is_kept_in_the_chain_and_is_no_call(medium: &mut dyn Medium) {
    medium.must(fresh(1, vec![]));
    medium.must(note(0, vec![noted(defined("bank", "refund")), noted(defined("bank", "pay"))]));
    medium.must(note(2, vec![noted(holdfast_store::Note::Remembered(remembered(1)))]));
    assert!(matches!(
        medium.append(note(2, vec![noted(defined("x", "y"))])),
        Err(Refusal::Conflict { entries: 3 })
    ));
    medium.restart();
    let kept = register(medium);
    assert_eq!(kept.entries, 3);
    assert_eq!(kept.remembered().collect::<Vec<_>>(), [&remembered(1)]);
    assert!(kept.definition("bank", "pay").is_some());

    let journal = medium.journal();
    let all = Filter { limit: 10, ..Filter::default() };
    let listed = journal.list(&all).expect("readable");
    assert_eq!(listed.iter().map(|line| line.call).collect::<Vec<_>>(), [call(1)]);
    assert_eq!(journal.unfinished().expect("readable"), [call(1)]);
    let seqs: Vec<_> = journal.tail(1, 10).expect("readable").iter().map(|record| record.seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5], "its facts have their place among all others");
    assert_eq!(journal.verify(&mut |_| {}).expect("whole").entries, 5);
}

pub(crate) fn the_register_takes_no_call_s_facts(medium: &mut dyn Medium) {
    for entry in [made(accepted()), dispatched(1)] {
        assert!(matches!(medium.append(note(0, vec![entry])), Err(Refusal::Failed(_))));
    }
    let elsewhere = append(call(1), 0, 0, vec![noted(defined("bank", "refund"))]);
    assert!(matches!(medium.append(elsewhere), Err(Refusal::Failed(_))));
    medium.must(note(0, vec![noted(defined("bank", "refund"))]));
    assert!(matches!(medium.append(note(1, vec![joined()])), Err(Refusal::Failed(_))));
    assert_eq!(register(medium).entries, 1);
}

/// Call `n`, under the `nth` use of a remembered decision.
fn used(n: u32, nth: u32) -> Append {
    let mut append = fresh(n, vec![key(KeySource::Explicit, &n.to_string())]);
    append.claim = Claim { uses: vec![remembered(1).use_key(nth)], ..append.claim };
    append
}

pub(crate) fn a_use_is_claimed_for_good(medium: &mut dyn Medium) {
    medium.must(used(1, 1));
    let mut ended = append(call(1), 50, 2, vec![answered(1)]);
    ended.keys = KeyFate::Release;
    medium.must(ended);
    medium.restart();
    let owner = medium.journal().owner(remembered(1).use_key(1)).expect("readable");
    assert_eq!(owner, Some(call(1)), "released or not, it was a use");
    assert!(matches!(medium.append(used(2, 1)), Err(Refusal::Spent)));
    medium.must(used(2, 2));
}

pub(crate) fn a_spent_use_leaves_nothing(medium: &mut dyn Medium) {
    medium.must(used(1, 1));
    let mut both = used(2, 2);
    both.claim.uses.push(remembered(1).use_key(1));
    both.claim.position = positioned(2, "life-1").claim.position;
    assert!(matches!(medium.append(both), Err(Refusal::Spent)));
    let journal = medium.journal();
    assert_eq!(journal.owner(remembered(1).use_key(2)).expect("readable"), None);
    assert_eq!(journal.owner(key(KeySource::Explicit, "2").hash).expect("readable"), None);
    // Its place among identical calls was not taken either.
    medium.must(positioned(3, "life-1"));
    let first = positioned(3, "life-1").claim.position.expect("it has one").numbered(1);
    assert_eq!(medium.journal().owner(first.hash).expect("readable"), Some(call(3)));
}

pub(crate) fn nothing_of_the_register_is_pruned(medium: &mut dyn Medium) {
    medium.must(note(0, vec![noted(defined("bank", "refund"))]));
    let late = Millis(EPOCH * 2);
    medium.journal().prune(late, late, 100).expect("prunable");
    medium.restart();
    assert!(register(medium).definition("bank", "refund").is_some());
}
