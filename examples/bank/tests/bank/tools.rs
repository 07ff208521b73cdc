//! What each tool answers, in both protocol eras.

use serde_json::{Value, json};

use crate::harness::{Bank, World, payment, text};

/// Calls the tools in order on a fresh bank, and compares text and structured content.
fn check(story: &[(&str, Value, &str, Value)]) {
    let world = World::new();
    let mut bank = world.bank(&[]);
    for (tool, arguments, expected_text, expected_data) in story {
        let mut result = bank.call(tool, arguments.clone());
        // The clock is the only thing that differs between two runs.
        for pointer in ["/structuredContent", "/structuredContent/transfer", "/structuredContent/transfers/0"]
        {
            if let Some(object) = result.pointer_mut(pointer).and_then(Value::as_object_mut) {
                object.remove("at");
            }
        }
        assert_eq!(text(&result), *expected_text);
        assert_eq!(result["structuredContent"], *expected_data, "{tool}");
        assert_eq!(result["isError"], expected_data.is_null(), "{result}");
    }
}

#[test]
fn a_day_at_the_bank() {
    let made =
        json!({ "n": 1, "id": "t-1", "from": "alice", "to": "shop", "amount": 40, "reference": "INV-7" });
    let mut receipt = made.clone();
    receipt["balance_after"] = json!(960);
    let quoted = json!({ "from": "alice", "to": "shop", "amount": 40, "fee": 0,
                         "balance_before": 1000, "balance_after": 960 });
    check(&[
        (
            "balance",
            json!({ "account": "bob" }),
            "bob has 1000.",
            json!({ "account": "bob", "balance": 1000 }),
        ),
        ("list_transfers", json!({}), "No transfers.", json!({ "transfers": [] })),
        (
            "find_transfer",
            json!({ "reference": "INV-7" }),
            "No transfer has the reference INV-7.",
            json!({ "found": false, "times": 0 }),
        ),
        (
            "quote_transfer",
            json!({ "from": "alice", "to": "shop", "amount": 40 }),
            "40 from alice to shop, no fee: alice would go from 1000 to 960.",
            quoted,
        ),
        (
            "transfer",
            payment("INV-7"),
            "Made t-1: 40 from alice to shop, reference INV-7. alice has 960 left.",
            receipt,
        ),
        (
            "balance",
            json!({ "account": "shop" }),
            "shop has 40.",
            json!({ "account": "shop", "balance": 40 }),
        ),
        (
            "find_transfer",
            json!({ "reference": "INV-7" }),
            "INV-7 was made once; first as t-1: 40 from alice to shop, reference INV-7.",
            json!({ "found": true, "times": 1, "transfer": made }),
        ),
        (
            "list_transfers",
            json!({ "account": "shop", "limit": 5 }),
            "t-1: 40 from alice to shop, reference INV-7",
            json!({ "transfers": [made] }),
        ),
        ("list_transfers", json!({ "account": "bob" }), "No transfers.", json!({ "transfers": [] })),
        (
            "close_account",
            json!({ "account": "mallory" }),
            "mallory is closed (c-2).",
            json!({ "account": "mallory", "closed": true, "id": "c-2" }),
        ),
        ("echo", json!({ "message": "hi" }), "hi", json!({ "message": "hi" })),
    ]);
}

#[test]
fn what_does_not_work_is_a_tool_error_and_writes_nothing() {
    let world = World::new();
    let mut bank = world.bank(&[]);
    for (tool, arguments, expected) in [
        ("transfer", json!({ "from": "shop", "to": "bob", "amount": 5 }), "insufficient funds: shop has 0"),
        ("transfer", json!({ "from": "bob", "to": "bob", "amount": 5 }), "both accounts are bob"),
        ("transfer", json!({ "from": "bob", "to": "shop", "amount": 0 }), "the amount must be above zero"),
        ("transfer", json!({ "from": "bob", "to": "shop", "amount": 1.5 }), "whole units, and is 1.5"),
        ("transfer", json!({ "from": "bob", "to": "shop", "amount": "5" }), "the arguments do not fit"),
        ("transfer", json!({ "from": "bob", "to": "shop" }), "missing field `amount`"),
        ("transfer", json!({ "from": "bob", "to": "shop", "amount": 5, "tip": 1 }), "unknown field `tip`"),
        ("quote_transfer", json!({ "from": "shop", "to": "bob", "amount": 5 }), "insufficient funds"),
        ("close_account", json!({ "account": "bob" }), "bob still holds 1000"),
    ] {
        let result = bank.call(tool, arguments);
        assert_eq!(result["isError"], true, "{result}");
        assert!(text(&result).contains(expected), "{result}");
    }
    let answer = bank.request("tools/call", json!({ "name": "rob", "arguments": {} }));
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
    assert_eq!(world.ledger(), "");
}

#[test]
fn an_idempotency_key_makes_a_payment_once_even_across_a_restart() {
    let world = World::new();
    let mut keyed = payment("INV-7");
    keyed["idempotency_key"] = json!("k-1");
    let first = world.bank(&[]).call("transfer", keyed.clone());
    let mut bank = world.bank(&[]);
    bank.pay("INV-8");
    assert_eq!(bank.call("transfer", keyed.clone()), first);
    keyed["amount"] = json!(41);
    let refused = bank.call("transfer", keyed);
    assert_eq!(text(&refused), "this idempotency key belongs to another transfer, t-1");
    assert_eq!(refused["isError"], true);
    assert_eq!(world.count(), 2);
}

#[test]
fn without_a_key_each_call_pays() {
    let world = World::new();
    let mut bank = world.bank(&["--no-sync"]);
    for _ in 0..3 {
        let paid = bank
            .call("transfer", json!({ "from": "mint", "to": "shop", "amount": 5000, "reference": "INV-7" }));
        assert_eq!(paid["isError"], false, "{paid}");
    }
    let found = bank.call("find_transfer", json!({ "reference": "INV-7" }));
    assert_eq!(found["structuredContent"]["times"], 3);
    let listed = bank.call("list_transfers", json!({ "limit": 2 }));
    assert_eq!(listed["structuredContent"]["transfers"][0]["id"], "t-3");
    assert_eq!(listed["structuredContent"]["transfers"][1]["id"], "t-2");
    assert_eq!(world.statement()["references"], json!({ "INV-7": 3 }));
}

#[test]
fn definitions_say_what_is_dangerous() {
    let world = World::new();
    let answer = world.bank(&[]).request("tools/list", json!({}));
    let tools = answer["result"]["tools"].as_array().expect("a list of tools");
    let hints: Vec<_> = tools
        .iter()
        .map(|tool| {
            assert_eq!(tool["inputSchema"]["type"], "object", "{tool}");
            let hints = &tool["annotations"];
            (tool["name"].as_str().unwrap(), hints["readOnlyHint"] == true, hints["destructiveHint"] == true)
        })
        .collect();
    let expected = [
        ("balance", true, false),
        ("close_account", false, true),
        ("echo", true, false),
        ("find_transfer", true, false),
        ("list_transfers", true, false),
        ("quote_transfer", true, false),
        ("transfer", false, true),
    ];
    assert_eq!(hints, expected);
    assert_eq!(tools[6]["annotations"]["idempotentHint"], false);
    assert_eq!(tools[6]["inputSchema"]["required"], json!(["from", "to", "amount"]));
}

#[test]
fn the_modern_era_needs_no_handshake() {
    let world = World::new();
    let mut bank = Bank::start(&mut world.command(&[]));
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let discovered = bank.request("server/discover", json!({ "_meta": meta }));
    let versions = discovered["result"]["supportedVersions"].as_array().expect("versions");
    assert!(versions.contains(&json!("2026-07-28")) && versions.contains(&json!("2025-11-25")));
    let params = json!({ "name": "transfer", "arguments": payment("INV-7"), "_meta": meta });
    let paid = bank.request("tools/call", params);
    assert_eq!(paid["result"]["resultType"], "complete", "{paid}");
    assert_eq!(paid["result"]["structuredContent"]["id"], "t-1");
    let listed = bank.request("tools/list", json!({ "_meta": meta }));
    assert_eq!(listed["result"]["tools"].as_array().map(Vec::len), Some(7));
    let (status, rest) = bank.finish();
    assert!(status.success() && rest.is_empty());
    assert_eq!(world.count(), 1);
}

#[test]
fn echo_keeps_every_digit_and_the_order_of_keys() {
    let world = World::new();
    let mut bank = world.bank(&[]);
    let message: Value = serde_json::from_str(r#"{"z":123456789012345678901234567890.10,"a":[null,1e400]}"#)
        .expect("any number is kept as text");
    bank.ask_tool("echo", json!({ "message": message }));
    let line = bank.line().expect("an answer");
    assert!(line.contains(&format!(r#""structuredContent":{{"message":{message}}}"#)), "{line}");
}
