//! Stories about eras and headers.

use serde_json::json;

use super::*;

fn headers(list: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        let name = hyper::header::HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        headers.append(name, value.parse().expect("a header value"));
    }
    headers
}

fn modern_meta() -> Value {
    json!({ META_VERSION: MODERN, META_CAPABILITIES: {} })
}

/// `Ok` or the JSON-RPC code with the status.
fn check(list: &[(&str, &str)], method: &str, params: Value, expected: Result<Era, (i64, u16)>) {
    let params = params.as_object().expect("parameters are an object").clone();
    let found = of(Carrier::Http(&headers(list)), method, &params, true)
        .map_err(|problem| (problem.code, problem.status.as_u16()));
    assert_eq!(found, expected, "{method} {list:?} {params:?}");
}

const V: &str = "MCP-Protocol-Version";

#[test]
fn old_clients_are_legacy() {
    check(&[], "tools/list", json!({}), Ok(Era::Legacy));
    check(&[(V, "2025-06-18")], "tools/list", json!({}), Ok(Era::Legacy));
    check(&[(V, "2025-06-18")], "tools/list", json!({"_meta": {"progressToken": 1}}), Ok(Era::Legacy));
    check(&[(V, "1999-01-01")], "tools/list", json!({}), Err((-32022, 400)));
    check(&[(V, "2025-06-18"), (V, "2025-06-18")], "tools/list", json!({}), Err((-32020, 400)));
}

#[test]
fn the_handshake_is_legacy_whatever_it_names() {
    check(&[], "initialize", json!({"protocolVersion": MODERN}), Ok(Era::Legacy));
    check(&[(V, "2025-06-18")], "initialize", json!({"protocolVersion": "2025-11-25"}), Err((-32600, 400)));
    check(&[("Mcp-Method", "tools/list")], "initialize", json!({}), Err((-32020, 400)));
    let modern = [(V, MODERN), ("Mcp-Method", "initialize")];
    check(&modern, "initialize", json!({"_meta": modern_meta()}), Ok(Era::Modern));
    assert_eq!(negotiate("2025-06-18"), "2025-06-18");
    assert_eq!(negotiate("2026-07-28"), "2025-11-25");
    assert_eq!(negotiate("tomorrow"), "2025-11-25");
}

#[test]
fn a_modern_request_says_everything_twice() {
    let both = [(V, MODERN), ("Mcp-Method", "tools/list")];
    check(&both, "tools/list", json!({"_meta": modern_meta()}), Ok(Era::Modern));
    check(&both, "tools/list", json!({}), Err((-32602, 400)));
    check(&both, "tools/list", json!({"_meta": {META_VERSION: MODERN}}), Err((-32602, 400)));
    check(&both[..1], "tools/list", json!({"_meta": modern_meta()}), Err((-32020, 400)));
    check(&both[1..], "tools/list", json!({"_meta": modern_meta()}), Err((-32020, 400)));
    check(&[(V, "2025-11-25"), both[1]], "tools/list", json!({"_meta": modern_meta()}), Err((-32020, 400)));
    check(
        &[both[0], ("Mcp-Method", "tools/call")],
        "tools/list",
        json!({"_meta": modern_meta()}),
        Err((-32020, 400)),
    );
    let mut future = modern_meta();
    future[META_VERSION] = "2031-01-01".into();
    check(&[(V, "2031-01-01"), both[1]], "tools/list", json!({"_meta": future}), Err((-32022, 400)));
    check(&[], "server/discover", json!({}), Err((-32020, 400)));
}

#[test]
fn the_tool_name_stands_in_a_header() {
    let call = |name: &str, expected| {
        let list = [(V, MODERN), ("Mcp-Method", "tools/call"), ("Mcp-Name", name)];
        check(&list, "tools/call", json!({"name": "bank__übung", "_meta": modern_meta()}), expected);
    };
    call("=?base64?YmFua19fw7xidW5n?=", Ok(Era::Modern));
    call("bank__ubung", Err((-32020, 400)));
    call("=?base64?YmFua19fw7xidW5?=", Err((-32020, 400)));
    let list = [(V, MODERN), ("Mcp-Method", "tools/call")];
    check(&list, "tools/call", json!({"name": "x", "_meta": modern_meta()}), Err((-32020, 400)));
}

#[test]
fn the_bridge_has_no_headers() {
    let params = json!({"_meta": modern_meta(), "name": "x"});
    let params = params.as_object().expect("an object");
    assert_eq!(of(Carrier::Bridge, "tools/call", params, true), Ok(Era::Modern));
    assert_eq!(of(Carrier::Bridge, "tools/call", &Map::new(), true), Ok(Era::Legacy));
}

#[test]
fn parameter_headers_follow_the_schema() {
    let definition = json!({"inputSchema": {"type": "object", "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "deep": {"type": "object", "properties": {"n": {"type": "integer", "x-mcp-header": "N"}}},
    }}});
    let check = |list: &[(&str, &str)], arguments: Value, expected: bool| {
        let found = param_headers(&headers(list), &definition, &arguments);
        assert_eq!(found.is_ok(), expected, "{list:?} {arguments} {found:?}");
    };
    check(&[], json!({}), true);
    check(&[], json!({"region": null}), true);
    check(&[], json!({"region": "eu"}), false);
    check(&[("Mcp-Param-Region", "eu")], json!({"region": "eu"}), true);
    check(&[("mcp-param-region", "us")], json!({"region": "eu"}), false);
    check(&[("Mcp-Param-Region", "eu")], json!({}), false);
    check(&[("Mcp-Param-N", "7")], json!({"deep": {"n": 7}}), true);
    check(&[("Mcp-Param-N", "8")], json!({"deep": {"n": 7}}), false);
    check(&[("Mcp-Param-Region", "eu"), ("Mcp-Param-Region", "eu")], json!({"region": "eu"}), false);
}

#[test]
fn base64_has_one_spelling() {
    let check = |text: &str, expected: Option<&str>| {
        assert_eq!(from_base64(text).as_deref(), expected.map(str::as_bytes), "{text}");
    };
    check("", Some(""));
    check("aGk=", Some("hi"));
    check("aGkh", Some("hi!"));
    check("aA==", Some("h"));
    check("aB==", None);
    check("aGl=", None);
    check("aGk", None);
    check("a===", None);
    check("a-k=", None);
    check("====", None);
}
