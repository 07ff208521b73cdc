//! What is kept beside the facts: there after a restart, found by name, and no link of the chain.

use crate::{facts::*, media::Medium};

fn keep(medium: &dyn Medium, changes: &[(&str, Option<&str>)]) {
    let changes = changes.iter().map(|(name, value)| {
        let value = value.map(|value| value.as_bytes().to_vec());
        ((*name).to_owned(), value)
    });
    medium.journal().keep(changes.collect()).expect("writable");
}

fn kept(medium: &dyn Medium, prefix: &str) -> Vec<(String, String)> {
    let found = medium.journal().kept(prefix).expect("readable");
    found.into_iter().map(|(name, value)| (name, String::from_utf8(value).expect("text"))).collect()
}

fn check(medium: &dyn Medium, prefix: &str, expected: &[(&str, &str)]) {
    let expected: Vec<_> =
        expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    assert_eq!(kept(medium, prefix), expected, "{prefix:?}");
}

pub(crate) fn what_is_kept_is_there_after_a_restart(medium: &mut dyn Medium) {
    check(medium, "", &[]);
    keep(medium, &[("session/a", Some("1")), ("session/b", Some("2"))]);
    medium.restart();
    check(medium, "session/", &[("session/a", "1"), ("session/b", "2")]);
    keep(medium, &[("session/a", None), ("session/b", Some("3")), ("session/none", None)]);
    medium.restart();
    check(medium, "session/", &[("session/b", "3")]);
    keep(medium, &[("session/b", Some("4")), ("session/b", None), ("session/b", Some(""))]);
    check(medium, "session/", &[("session/b", "")]);
    keep(medium, &[]);
    check(medium, "session/", &[("session/b", "")]);
}

pub(crate) fn names_are_found_by_how_they_begin(medium: &mut dyn Medium) {
    let names = ["a", "a/", "a/1", "a/\u{10ffff}", "a0", "b/1"];
    keep(medium, &names.map(|name| (name, Some(name))));
    check(medium, "a/", &[("a/", "a/"), ("a/1", "a/1"), ("a/\u{10ffff}", "a/\u{10ffff}")]);
    check(medium, "b", &[("b/1", "b/1")]);
    check(medium, "c", &[]);
    assert_eq!(kept(medium, "").len(), names.len());
}

pub(crate) fn what_is_kept_is_no_entry(medium: &mut dyn Medium) {
    medium.must(fresh(1, vec![]));
    let head = |medium: &dyn Medium| medium.journal().verify(&mut |_| {}).expect("whole");
    let before = head(medium);
    keep(medium, &[("session/a", Some("1"))]);
    assert_eq!(head(medium), before);
    medium.restart();
    assert_eq!(head(medium), before);
    check(medium, "", &[("session/a", "1")]);
}
