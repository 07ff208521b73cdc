//! What templates give, and that no two different effects share a key.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::Pattern;
use crate::plan::{Absent, Happened, Probe, Retry};

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[track_caller]
fn check(template: Value, arguments: &str, expected: &str) {
    let template = Template::parse(template).unwrap();
    let rendered = match template.render(&value(arguments)) {
        Ok(rendered) => rendered.to_string(),
        Err(missing) => missing.to_string(),
    };
    assert_eq!(rendered, expected);
}

#[test]
fn a_lone_pointer_gives_the_value_and_anything_else_gives_text() {
    check(json!("{/a}"), r#"{"a": 9007199254740993}"#, "9007199254740993");
    check(json!("{/a}"), r#"{"a": {"z": 1.50, "b": [null]}}"#, r#"{"z":1.50,"b":[null]}"#);
    check(json!(" {/a}"), r#"{"a": 1.50}"#, r#"" 1.50""#);
    check(json!("{/a}/{/b}"), r#"{"a": "x", "b": true}"#, r#""x/true""#);
    check(json!("{{{/a}}}"), r#"{"a": "x"}"#, r#""{x}""#);
    check(json!("{{/a}}"), r#"{"a": "x"}"#, r#""{/a}""#);
    check(json!({"q": ["{/a}", 1, null], "{/a}": "k"}), r#"{"a": 2}"#, r#"{"q":[2,1,null],"{/a}":"k"}"#);
    check(json!("{/a~1b/0}"), r#"{"a/b": ["x"]}"#, r#""x""#);
    check(json!("{}"), r#"{"a": 1}"#, r#"{"a":1}"#);
    check(json!({"x": "{/missing}"}), "{}", "there is nothing at /missing");
    check(json!("{/a/b}"), r#"{"a": "text"}"#, "there is nothing at /a/b");
    check(json!("{/a}"), r#"{"a": null}"#, "null");
}

#[test]
fn what_was_filled_in_is_not_filled_again() {
    check(json!("{/a}!"), r#"{"a": "{/b}", "b": "secret"}"#, r#""{/b}!""#);
}

#[test]
fn stray_braces_and_names_without_a_slash_are_refused() {
    for bad in ["{", "a}", "{/a", "{a}", "{/a~2}", "{{/a}"] {
        assert!(Template::parse(json!([bad])).is_err(), "{bad}");
    }
}

#[test]
fn templates_travel_as_their_source() {
    let template = Template::parse(json!({"a": "x{/b}", "n": 1})).unwrap();
    let text = serde_json::to_string(&template).unwrap();
    assert_eq!(text, r#"{"a":"x{/b}","n":1}"#);
    assert_eq!(serde_json::from_str::<Template>(&text).unwrap(), template);
    assert!(serde_json::from_str::<Template>(r#""{""#).is_err());
    let key = KeyTemplate::parse("refund:{/charge}").unwrap();
    let text = serde_json::to_string(&key).unwrap();
    assert_eq!(serde_json::from_str::<KeyTemplate>(&text).unwrap(), key);
}

fn key(template: &str, arguments: &str) -> String {
    let template = KeyTemplate::parse(template).unwrap();
    template.render(&value(arguments)).unwrap_or_else(|missing| missing.to_string())
}

#[test]
fn effect_keys_keep_their_parts_apart() {
    assert_eq!(key("refund:{/charge}", r#"{"charge": "ch_1"}"#), r#"refund:"ch_1""#);
    assert_ne!(key("{/a}:{/b}", r#"{"a": "x:y", "b": "z"}"#), key("{/a}:{/b}", r#"{"a": "x", "b": "y:z"}"#));
    assert_ne!(key("{/a}", r#"{"a": 1}"#), key("{/a}", r#"{"a": "1"}"#));
    assert_ne!(key("{/a}{/b}", r#"{"a": 1, "b": 23}"#), key("{/a}{/b}", r#"{"a": 12, "b": 3}"#));
    assert_ne!(key("{/a}1{/b}", r#"{"a": 11, "b": 2}"#), key("{/a}1{/b}", r#"{"a": 1, "b": 12}"#));
    assert_eq!(key("order:{/a}:{/b}", r#"{"a": 11, "b": true}"#), "order:11:true");
    assert_eq!(key("{/a}", "{}"), "there is nothing at /a");
    assert_eq!(key("{/a}", r#"{"a": null}"#), "there is nothing at /a");
}

#[test]
fn an_agent_cannot_get_a_fresh_key_by_spelling_differently() {
    let one = key("{/a}", r#"{"a": {"x": 100, "y": [1.5]}}"#);
    for other in [r#"{"a": {"y": [1.50], "x": 1e2}}"#, r#"{"a": {"y": [15e-1], "x": 100.0}}"#] {
        assert_eq!(key("{/a}", other), one);
    }
    assert_ne!(key("{/a}", r#"{"a": 9007199254740993}"#), key("{/a}", r#"{"a": 9007199254740992}"#));
    assert!(key("{/a}", r#"{"a": 1e1000000000}"#).len() < 20);
}

#[test]
fn a_key_template_without_a_placeholder_is_refused() {
    for bad in ["refund", "requierd", "", "{{/a}}", "{"] {
        assert!(KeyTemplate::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn results_are_looked_into_where_they_are_structured() {
    let check = |result: Value, expected: Value| assert_eq!(*look_into(&result), expected);
    let text = |text: &str| json!({"type": "text", "text": text});
    check(json!({"structuredContent": {"a": 1}, "content": [text("{\"a\":2}")]}), json!({"a": 1}));
    check(json!({"content": [{"type": "image"}, text("{\"a\":2}"), text("{}")]}), json!({"a": 2}));
    check(json!({"content": [text("plain")]}), json!("plain"));
    check(json!({"content": []}), Value::Null);
    check(json!({"structuredContent": null, "content": [text("[1]")]}), json!([1]));
    check(Value::Null, Value::Null);
}

#[test]
fn a_probe_confirms_only_what_its_result_says() {
    let probe = Probe {
        tool: "find".into(),
        args: Template::parse(json!({})).unwrap(),
        happened: Happened { at: Pointer::parse("/n").unwrap(), equals: json!(1) },
        absent: Absent::Hold,
        settle_ms: 1,
        answer: Some(Template::parse(json!({"id": "{/id}"})).unwrap()),
    };
    let with = |text: &str| value(&format!(r#"{{"structuredContent": {text}}}"#));
    assert!(probe.confirms(&with(r#"{"n": 1.0}"#)));
    assert!(!probe.confirms(&with(r#"{"n": 2}"#)));
    assert!(!probe.confirms(&with(r#"{"n": "1"}"#)));
    assert!(!probe.confirms(&with("{}")));
    assert!(!probe.confirms(&json!({"isError": true, "structuredContent": {"n": 1}})));
    assert_eq!(probe.answer_from(&with(r#"{"id": "t1"}"#)), Ok(Some(json!({"id": "t1"}))));
    assert!(probe.answer_from(&with("{}")).is_err());
}

#[test]
fn retry_patterns_are_searched_in_tool_errors_only() {
    let retry = Retry { retry_on: vec![Pattern::parse("(?i)try again later").unwrap()], ..Retry::default() };
    let result =
        |error: bool, text: &str| json!({"isError": error, "content": [{"type": "text", "text": text}]});
    assert!(retry.matches(&result(true, "busy, Try Again Later.")));
    assert!(!retry.matches(&result(false, "busy, try again later")));
    assert!(!retry.matches(&result(true, "no such account")));
    assert!(!retry.matches(&json!({"content": "try again later"})));
    assert!(retry.matches(&json!({"isError": true, "structuredContent": {"why": "try again later"}})));
    assert!(!Retry::default().matches(&result(true, "try again later")));
    let journaled: Retry = serde_json::from_str(&serde_json::to_string(&retry).unwrap()).unwrap();
    assert!(journaled.matches(&result(true, "try again later")), "patterns compile again after a restart");
}

#[test]
fn pointers_find_and_put() {
    let pointer = |text: &str| Pointer::parse(text).unwrap();
    let document = json!({"a": {"b": [1, {"c/d": 2}]}, "": 3, "m~n": 4});
    for (text, expected) in [
        ("/a/b/0", Some(json!(1))),
        ("/a/b/1/c~1d", Some(json!(2))),
        ("/", Some(json!(3))),
        ("/m~0n", Some(json!(4))),
        ("/a/b/01", None),
        ("/a/b/2", None),
        ("/a/b/-", None),
        ("/a/x", None),
    ] {
        assert_eq!(pointer(text).find(&document).cloned(), expected, "{text}");
    }
    let mut target = json!({"a": 1});
    pointer("/x/y").put(&mut target, json!(true)).unwrap();
    pointer("/a").put(&mut target, json!(2)).unwrap();
    assert_eq!(target, json!({"a": 2, "x": {"y": true}}));
    assert!(pointer("/a/b").put(&mut target, json!(1)).is_err());
    for bad in ["a", "a/b", "/~", "/~2", "/a~"] {
        assert!(Pointer::parse(bad).is_err(), "{bad}");
    }
}

proptest! {
    /// Two lists of parts that differ give keys that differ, whatever separators the texts contain.
    #[test]
    fn keys_are_injective(a in "[ab:\"\\\\{}]{0,4}", b in "[ab:\"\\\\{}]{0,4}", c in "[ab:\"\\\\{}]{0,4}", d in "[ab:\"\\\\{}]{0,4}") {
        let template = KeyTemplate::parse("{/0}{/1}").unwrap();
        let (left, right) = (json!([a, b]), json!([c, d]));
        prop_assert_eq!(template.render(&left) == template.render(&right), left == right);
    }

    #[test]
    fn no_template_panics(text: String) {
        let _ = Template::parse(json!(text)).map(|template| template.render(&Value::Null).is_ok());
        let _ = KeyTemplate::parse(&text).map(|template| template.render(&Value::Null).is_ok());
    }
}
