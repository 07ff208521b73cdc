//! Each operator: what holds, what fails, and what cannot be told.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{Document, Policy};

/// The condition of a rule, as a policy would write it.
fn condition(text: &str) -> Condition {
    let rule = format!("[[rule]]\nid = 'r'\neffect = 'ask'\nwhen = [{{ arg = '/x', {text} }}]");
    let document = Document::parse("t", &rule, &|_| None).unwrap();
    let policy = Policy::load(&document.root());
    assert!(!document.has_errors(), "{text}: {:?}", document.into_problems());
    policy.rules()[0].when[0].clone()
}

fn outcome(condition: &Condition, argument: &str) -> &'static str {
    let arguments: Value = serde_json::from_str(&format!("{{\"x\": {argument}}}")).unwrap();
    match condition.holds(&arguments) {
        Outcome::Holds => "yes",
        Outcome::Fails => "no",
        Outcome::Doubtful(_) => "?",
    }
}

#[track_caller]
fn check(text: &str, cases: &[(&str, &str)]) {
    let condition = condition(text);
    for (argument, expected) in cases {
        assert_eq!(outcome(&condition, argument), *expected, "{text} on {argument}");
    }
}

#[test]
fn equality_needs_the_same_type() {
    check(
        "op = 'eq', value = 1",
        &[("1", "yes"), ("1.0", "yes"), ("2", "no"), ("\"1\"", "?"), ("null", "?")],
    );
    check("op = 'ne', value = 1", &[("1e0", "no"), ("2", "yes"), ("\"1\"", "?")]);
    check("op = 'eq', value = 'prod'", &[("\"prod\"", "yes"), ("\"Prod\"", "no"), ("true", "?")]);
    check("op = 'eq', value = [1, 'a']", &[("[1.0, \"a\"]", "yes"), ("[\"a\", 1]", "no"), ("{}", "?")]);
    check("op = 'eq', value = { a = 1, b = 2 }", &[(r#"{"b":2,"a":1.0}"#, "yes"), (r#"{"a":1}"#, "no")]);
    check("op = 'eq', value = true", &[("true", "yes"), ("false", "no"), ("1", "?")]);
}

#[test]
fn numbers_compare_as_exact_decimals() {
    check(
        "op = 'le', value = 100",
        &[("100", "yes"), ("100.00000000000000000001", "no"), ("-1e999999999", "yes")],
    );
    check(
        "op = 'gt', value = 100",
        &[("1e1000000000", "yes"), ("1e2", "no"), ("\"1000\"", "?"), ("[]", "?")],
    );
    check("op = 'lt', value = 0.1", &[("0.0999999999999999999999", "yes"), ("0.1", "no")]);
    check("op = 'ge', value = 9007199254740993", &[("9007199254740992", "no"), ("9007199254740993", "yes")]);
    let beyond = format!("1e{}", "9".repeat(50));
    check("op = 'gt', value = 100", &[(&beyond, "?")]);
}

#[test]
fn lists_and_texts() {
    check(
        "op = 'in', value = ['EUR', 'USD', 3]",
        &[
            ("\"EUR\"", "yes"),
            ("\"GBP\"", "no"),
            ("3.0", "yes"),
            ("4", "no"),
            ("true", "?"),
            ("[\"EUR\"]", "?"),
        ],
    );
    check(
        "op = 'glob', value = '*.{txt,md}'",
        &[("\"a/b.txt\"", "yes"), ("\"a.txt.exe\"", "no"), ("\"a\\n.md\"", "yes"), ("1", "?")],
    );
    check(
        "op = 'prefix', value = 'https://a/'",
        &[("\"https://a/x\"", "yes"), ("\"http://a/\"", "no"), ("null", "?")],
    );
    check(
        "op = 'regex', value = '^[a-z]+$'",
        &[("\"abc\"", "yes"), ("\"abc1\"", "no"), ("\"abc\\n\"", "no"), ("5", "?")],
    );
    check("op = 'regex', value = 'b'", &[("\"abc\"", "yes")]);
}

#[test]
fn exists_says_what_it_says() {
    check("op = 'exists'", &[("1", "yes"), ("null", "yes")]);
    check("op = 'exists', value = false", &[("1", "no")]);
    assert_eq!(condition("op = 'exists'").holds(&Value::Null), Outcome::Fails);
    assert_eq!(condition("op = 'exists', value = false").holds(&Value::Null), Outcome::Holds);
    assert_eq!(condition("op = 'eq', value = 1").holds(&Value::Null), Outcome::Doubtful(Doubt::Missing));
}

#[test]
fn under_refuses_every_trick() {
    check(
        "op = 'under', value = '/srv/ok'",
        &[
            ("\"/srv/ok\"", "yes"),
            ("\"/srv/ok/a/b\"", "yes"),
            ("\"//srv/./ok///a\"", "yes"),
            ("\"/srv/ok/\"", "yes"),
            ("\"/srv/okay\"", "no"),
            ("\"/srv\"", "no"),
            ("\"/etc/passwd\"", "no"),
            ("\"/srv/ok/...\"", "yes"),
            // Read in two ways, or not what it seems:
            ("\"/srv/ok/../etc\"", "?"),
            ("\"/srv/ok/a/..\"", "?"),
            ("\"/etc/../srv/ok\"", "?"),
            ("\"/srv/ok/a\\u0000b\"", "?"),
            ("\"/srv/ok/..\\\\..\\\\etc\"", "?"),
            ("\"/srv/ok/%2e%2e/etc\"", "?"),
            ("\"/srv/ok/%252e\"", "?"),
            ("\"/srv/ok/a%2Fb\"", "?"),
            ("\"/srv/OK/a\"", "?"),
            ("\"srv/ok/a\"", "?"),
            ("\"~/a\"", "?"),
            ("\"file:///srv/ok/a\"", "?"),
            ("\"\"", "?"),
            ("7", "?"),
            ("[\"/srv/ok\"]", "?"),
        ],
    );
    check("op = 'under', value = '/'", &[("\"/etc\"", "yes"), ("\"/\"", "yes"), ("\"etc\"", "?")]);
    check(
        "op = 'under', value = 'data'",
        &[("\"data/x\"", "yes"), ("\"./data\"", "yes"), ("\"/data/x\"", "?"), ("\"dat\"", "no")],
    );
    check("op = 'under', value = '/srv/\u{e9}'", &[("\"/srv/e\u{301}/x\"", "?"), ("\"/srv/e/x\"", "no")]);
    check(
        r"op = 'under', value = 'C:\work'",
        &[
            (r#""C:\\work\\a""#, "yes"),
            (r#""C:/work/a""#, "yes"),
            (r#""c:\\Work\\a""#, "?"),
            (r#""D:\\work\\a""#, "no"),
            (r#""C:\\work\\..\\etc""#, "?"),
            (r#""C:\\work.\\a""#, "?"),
            (r#""C:\\work\\a::$DATA""#, "?"),
            (r#""\\\\?\\C:\\work\\a""#, "?"),
        ],
    );
}

proptest! {
    /// Whatever an agent writes, what `under` accepts stays below the base when `.` and empty names are
    /// dropped and `..` is followed.
    #[test]
    fn what_is_under_stays_under(path in "/?(srv|ok|etc|\\.|\\.\\.|/|a){0,3}(/(srv|ok|\\.\\.|\\.|b)?){0,6}") {
        let base = Base::parse("/srv/ok").unwrap();
        if base.contains(&path) == Outcome::Holds {
            let mut names: Vec<&str> = Vec::new();
            for name in path.split('/').filter(|name| !name.is_empty() && *name != ".") {
                if name == ".." { names.pop(); } else { names.push(name); }
            }
            prop_assert!(path.starts_with('/') && names.starts_with(&["srv", "ok"]), "{}", path);
        }
    }

    #[test]
    fn no_path_panics(base: String, path: String) {
        if let Some(base) = Base::parse(&base) {
            let _ = base.contains(&path);
        }
    }
}
