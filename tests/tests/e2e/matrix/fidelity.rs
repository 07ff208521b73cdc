//! Whatever goes in comes out, as text: unknown members, unusual numbers, odd Unicode, content that nobody knows.
//!
//! Three things are otherwise on purpose. A call's arguments, and what stands beside them, are what a person approves
//! and what makes two calls the same, so they are read and printed anew (without spaces, `1E5` as `1e+5`, escapes only
//! where they must be; no digit changes). Requests that hold a lone surrogate, which is no character, are refused; in
//! answers it passes. Names that stand twice are refused, as `bad_input` tells.

use std::{collections::BTreeMap, fs};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use holdfast_tests::{Client, Place, World, everything, member, members};
use serde_json::{Value, json};

use super::{SIDES, Side, Way, configuration, upstream};

/// Members of an object, as they are written.
const CORPUS: &[(&str, &str)] = &[
    ("thirty digits", r#""n":123456789012345678901234567890,"m":-0.123456789012345678901234567890"#),
    ("beyond a double", r#""n":1e400,"m":-1E-400"#),
    ("as they are written", r#""n":[-0,-0.0,1.50,1E5,1e+5,0.10e-7,10000000000000000,1.0]"#),
    ("a lone surrogate", r#""s":"\ud800","t":"\udc00\ud800x""#),
    ("NUL and other controls", r#""s":"a\u0000b\u0001\u001f\u007f""#),
    ("escapes as they are written", r#""s":"\u0041\/\u00e9\ud83d\ude00\b\f","é":"é😀""#),
    (
        "bidi, joiners and noncharacters",
        "\"s\":\"\u{202e}abc\u{2066}\u{200d}\u{feff}\u{fffe}\u{ffff}\u{10ffff}\u{2028}\"",
    ),
    ("odd names", r#""":1,"__proto__":{"a":1},"constructor":2,"a b\u0000c":3,"$ref":"x","/~":4"#),
    ("every kind", r#""a":null,"b":true,"c":[],"d":{},"e":[[[]]],"f":"""#),
    ("spaces between", r#""a" : [ 1 , 2 ], "b":{ "c" : { } }"#),
    (
        "forty deep",
        r#""d":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1.50]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"#,
    ),
];

/// What is our own, or belongs to one era.
fn is_ours(name: &str) -> bool {
    matches!(name, "_meta" | "resultType" | "ttlMs" | "cacheScope")
}

/// The members of an object that must be the same everywhere, and those of its `_meta` that are nobody's.
fn kept(object: &str) -> BTreeMap<String, String> {
    let mut kept: BTreeMap<_, _> = members(object).into_iter().filter(|(name, _)| !is_ours(name)).collect();
    let meta = member(object, "_meta").unwrap_or_default();
    let theirs = members(&meta).into_iter().filter(|(name, _)| name.starts_with("org.example"));
    kept.extend(theirs.map(|(name, text)| (format!("_meta {name}"), text)));
    kept
}

/// What a server was asked, apart from what is ours: the texts of the members of `params`.
fn asked(world: &World, mark: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(world.path("seen.jsonl")).expect("the server writes");
    let line = text.lines().rfind(|line| line.contains(mark)).unwrap_or_else(|| panic!("{mark} never came"));
    kept(&member(line, "params").expect("it had parameters"))
}

/// What comes of a request: the members of its result, or the whole message where there is none.
fn answered(client: &mut Client, method: &str, params: &str) -> BTreeMap<String, String> {
    let id = client.ask_text(method, params);
    let exchange = client.finish(id, method, Value::Null);
    match member(&exchange.text, "result") {
        Some(result) => kept(&result),
        None => BTreeMap::from([("no result".to_owned(), exchange.text)]),
    }
}

/// What Holdfast makes of a request on purpose, see above; none where it refuses it.
fn expected(method: &str, params: &str) -> Option<String> {
    let read: Value = serde_json::from_str(params).ok()?;
    Some(if method == "tools/call" { read.to_string() } else { params.to_owned() })
}

/// Requests of each kind that carry these members and this mark.
fn requests(members: &str, mark: &str) -> Vec<(&'static str, String)> {
    let meta = format!(r#""_meta":{{"org.example/kept":[1.50,{{"mark":"{mark}"}}]}}"#);
    let arguments = format!(r#"{{{members},"mark":"{mark}"}}"#);
    vec![
        ("tools/call", format!(r#"{{"name":"echo_arguments","arguments":{arguments},{meta}}}"#)),
        (
            "tools/call",
            format!(r#"{{"name":"greet","arguments":{{"name":"{mark}"}},"x-more":{{{members}}}}}"#),
        ),
        (
            "tools/call",
            format!(
                r#"{{"org.example/first":[{{{members}}}],"name":"greet","com.example.b":1.50,"arguments":{{"name":"{mark}"}},"a":null,{meta},"":{{{members}}}}}"#
            ),
        ),
        ("prompts/get", format!(r#"{{"name":"test_simple_prompt","arguments":{arguments},{meta}}}"#)),
        (
            "prompts/get",
            format!(r#"{{"name":"test_simple_prompt","x-mark":"{mark}","x-more":{{{members}}}}}"#),
        ),
        (
            "resources/read",
            format!(r#"{{"uri":"test://static-text","x-mark":"{mark}","x-more":{{{members}}},{meta}}}"#),
        ),
        (
            "completion/complete",
            format!(
                r#"{{"ref":{{"type":"ref/prompt","name":"test_prompt_with_arguments","x-more":{{{members}}}}},"argument":{{"name":"arg1","value":"{mark}"}}}}"#
            ),
        ),
        ("x-everything/echo", format!(r#"{{"x-mark":"{mark}","x-more":{{{members}}}}}"#)),
    ]
}

/// Results of each kind that carry these members: the requests that they are the answers to.
fn results(members: &str) -> Vec<(&'static str, String)> {
    let content = format!(r#"{{"type":"hologram","rays":{{{members}}}}}"#);
    let meta = r#""_meta":{"org.example/kept":1.50}"#;
    let tool = format!(
        r#"{{"content":[{{"type":"text","text":"x",{members}}},{content}],"x-more":{{{members}}},{meta}}}"#
    );
    let prompt = format!(
        r#"{{"messages":[{{"role":"user","content":{content},{members}}}],"x-more":{{{members}}},{meta}}}"#
    );
    let resource = format!(
        r#"{{"contents":[{{"uri":"test://word","text":"x",{members}}}],"x-more":{{{members}}},{meta}}}"#
    );
    let word = |text: &str| json!({ "name": "word_for_word", "arguments": { "result": text } }).to_string();
    let uri = format!("test://word/{}", URL_SAFE_NO_PAD.encode(resource));
    vec![
        ("tools/call", word(&tool)),
        ("prompts/get", word(&prompt)),
        ("resources/read", json!({ "uri": uri }).to_string()),
    ]
}

fn connect(world: &World, mcp: &str, down: Side) -> Client {
    let capabilities = json!({});
    match down.way {
        Way::Http => Client::connect(Place::Http(mcp), down.speaks, capabilities),
        Way::Stdio => Client::connect(Place::Stdio(&mut world.stdio()), down.speaks, capabilities),
    }
}

/// A client of the server itself, in a world of its own.
fn direct(world: &World, up: Side) -> Client {
    let mut program = world.command(&everything());
    program.args(["--dir", "."]);
    Client::connect(Place::Stdio(&mut program), up.speaks, json!({}))
}

fn compare(up: Side) {
    let (alone, world) = (World::empty(), World::empty());
    let (server, _alive) = upstream(&world, up);
    world.configure(&configuration(&server));
    let served = world.serve();
    let mut direct = direct(&alone, up);
    let mut failures = Vec::new();
    for down in SIDES {
        let mut through = connect(&world, &served.mcp, down);
        for (name, members) in CORPUS {
            let mark = format!("mark {name} {:?} {:?}", down.way, down.speaks);
            let mut check = |what: String, one: &BTreeMap<_, _>, other: &BTreeMap<_, _>| {
                if one != other {
                    failures
                        .push(format!("{name}, {what}, {down:?}:\n  direct  {one:?}\n  through {other:?}"));
                }
            };
            for (at, (method, params)) in requests(members, &mark).into_iter().enumerate() {
                let params = params.replace(&mark, &format!("{mark} {at}"));
                let mark = format!("{mark} {at}");
                let other = answered(&mut through, method, &params);
                let Some(expected) = expected(method, &params) else {
                    let refused = other.get("no result").is_some_and(|text| text.contains("-32700"));
                    assert!(refused, "{name}, {method}: {other:?}");
                    continue;
                };
                let one = answered(&mut direct, method, &expected);
                // That one has a `_meta` in it, which each hop has of its own.
                if !method.starts_with("x-") {
                    check(format!("what {method} {at} is answered"), &one, &other);
                }
                check(format!("what {method} {at} asks"), &asked(&alone, &mark), &asked(&world, &mark));
            }
            for (method, params) in results(members) {
                let one = answered(&mut direct, method, &params);
                check(format!("the result of {method}"), &one, &answered(&mut through, method, &params));
            }
        }
    }
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn nothing_is_lost_before_a_legacy_server_over_http() {
    compare(SIDES[0]);
}

#[test]
fn nothing_is_lost_before_a_modern_server_over_http() {
    compare(SIDES[1]);
}

#[test]
fn nothing_is_lost_before_a_legacy_server_on_pipes() {
    compare(SIDES[2]);
}

#[test]
fn nothing_is_lost_before_a_modern_server_on_pipes() {
    compare(SIDES[3]);
}
