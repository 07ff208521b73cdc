//! Readers of the tail: each goes on where it was, and leaves no trace among the facts.

use holdfast_store::Millis;

use crate::{facts::*, media::Medium};

fn cursor(medium: &dyn Medium, name: &str) -> Option<u64> {
    medium.journal().cursor(name).expect("readable")
}

fn set(medium: &dyn Medium, name: &str, seq: u64) {
    medium.journal().set_cursor(name, seq).expect("writable");
}

pub(crate) fn a_reader_goes_on_where_it_was(medium: &mut dyn Medium) {
    assert_eq!(cursor(medium, "notify/ops"), None);
    medium.restart();
    assert_eq!(cursor(medium, "notify/ops"), None, "also in a journal that was opened again");
    set(medium, "notify/ops", 0);
    set(medium, "notify/desk", 7);
    assert_eq!((cursor(medium, "notify/ops"), cursor(medium, "notify/desk")), (Some(0), Some(7)));
    set(medium, "notify/ops", u64::MAX);
    set(medium, "notify/desk", 3);
    medium.restart();
    assert_eq!((cursor(medium, "notify/ops"), cursor(medium, "notify/desk")), (Some(u64::MAX), Some(3)));
    assert_eq!(cursor(medium, "notify"), None);
}

pub(crate) fn a_cursor_is_no_entry(medium: &mut dyn Medium) {
    medium.must(fresh(1, vec![]));
    let head = |medium: &dyn Medium| medium.journal().verify(&mut |_| {}).expect("whole");
    let before = head(medium);
    set(medium, "notify/ops", 2);
    assert_eq!(head(medium), before);
    medium.restart();
    assert_eq!(head(medium), before);
    assert_eq!(medium.journal().tail(0, 10).expect("readable").len(), 2);
    assert_eq!(cursor(medium, "notify/ops"), Some(2), "however far the journal itself has come");
}

pub(crate) fn the_head_is_the_newest_entry(medium: &mut dyn Medium) {
    let head = |medium: &dyn Medium| medium.journal().head().expect("readable");
    assert_eq!(head(medium), 0);
    medium.must(fresh(1, vec![]));
    assert_eq!(head(medium), 2);
    medium.must(append(call(1), 9, 2, vec![answered(1)]));
    let later = Millis(EPOCH + 100);
    assert_eq!(medium.journal().prune(later, later, 10).expect("writable"), 1);
    medium.restart();
    assert_eq!(head(medium), 3, "also where nothing is left of it");
}
