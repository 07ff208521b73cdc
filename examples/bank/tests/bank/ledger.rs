//! The file: torn lines, several processes, and what `bank ledger` prints.

use std::fs::OpenOptions;
use std::io::Write;

use serde_json::{Value, json};

use crate::harness::{World, payment, text};

const LINES: &str = "\
{\"n\":1,\"id\":\"t-1\",\"from\":\"alice\",\"to\":\"shop\",\"amount\":40,\"reference\":\"INV-7\",\"at\":\"2026-11-21T08:00:00.000Z\"}
{\"n\":2,\"id\":\"t-2\",\"from\":\"bob\",\"to\":\"alice\",\"amount\":1000,\"reference\":null,\"at\":\"2026-11-21T08:00:01.000Z\"}
{\"n\":3,\"id\":\"c-3\",\"closed\":\"bob\",\"at\":\"2026-11-21T08:00:02.000Z\"}
{\"n\":4,\"id\":\"t-4\",\"from\":\"alice\",\"to\":\"shop\",\"amount\":40,\"reference\":\"INV-7\",\"at\":\"2026-11-21T08:00:03.000Z\"}
";

/// A tail without newline is not counted, whatever is in it, and does not spoil the next line.
fn check_torn(tail: &str) {
    let world = World::new();
    world.bank(&[]).pay("INV-7");
    let whole = world.ledger();
    let mut file = OpenOptions::new().append(true).open(world.path("ledger.jsonl")).expect("it exists");
    file.write_all(tail.as_bytes()).expect("the directory is ours");
    assert_eq!(world.statement()["torn_bytes"], tail.len());
    assert_eq!(world.count(), 1);

    let mut bank = world.bank(&[]);
    assert_eq!(text(&bank.call("balance", json!({ "account": "alice" }))), "alice has 960.");
    assert_eq!(bank.pay("INV-8")["structuredContent"]["id"], "t-2");
    let ledger = world.ledger();
    assert!(ledger.starts_with(&whole), "{ledger}");
    let lines: Vec<Value> = ledger.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[1]["n"], &lines[1]["reference"]), (&json!(2), &json!("INV-8")));
    assert_eq!((world.count(), world.statement()["torn_bytes"].as_u64()), (2, Some(0)));
}

#[test]
fn torn_lines_do_not_count() {
    check_torn("{");
    check_torn("{\"n\":2,\"id\":\"t-2\",\"from\":\"alice\",\"to\":\"sh");
    check_torn(
        "{\"n\":2,\"id\":\"t-2\",\"from\":\"alice\",\"to\":\"shop\",\"amount\":40,\"reference\":null,\"at\":\"\"}",
    );
    check_torn("\0\0\0\0");
}

#[test]
fn a_line_is_written_as_documented() {
    let world = World::new();
    world.bank(&[]).pay("INV-7");
    let ledger = world.ledger();
    let prefix = r#"{"n":1,"id":"t-1","from":"alice","to":"shop","amount":40,"reference":"INV-7","at":"2"#;
    assert!(ledger.starts_with(prefix) && ledger.ends_with("Z\"}\n"), "{ledger}");
}

#[test]
fn an_unknown_line_stops_the_bank_and_is_named() {
    let world = World::new();
    world.write_ledger(&LINES.replace("\"amount\":1000", "\"amount\":"));
    for args in [&[][..], &["ledger"][..]] {
        let output = world.run(args);
        assert_eq!(output.status.code(), Some(1));
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            complaint.starts_with("bank: ledger.jsonl, line 2: not a line of this ledger: "),
            "{complaint}"
        );
        assert!(complaint.contains("\nhint: "), "{complaint}");
    }
}

#[test]
fn two_banks_share_one_ledger() {
    let world = World::new();
    let (mut one, mut other) = (world.bank(&[]), world.bank(&[]));
    for n in 1..=10 {
        let bank = if n % 2 == 0 { &mut one } else { &mut other };
        let receipt = bank.pay("INV-7");
        assert_eq!(receipt["structuredContent"]["n"], n);
    }
    assert_eq!(text(&one.call("balance", json!({ "account": "shop" }))), "shop has 400.");
    assert_eq!(text(&other.call("balance", json!({ "account": "shop" }))), "shop has 400.");
    assert_eq!(world.count(), 10);
}

#[test]
fn calls_in_parallel_are_all_written() {
    let world = World::new();
    let (mut one, mut other) = (world.bank(&[]), world.bank(&[]));
    for _ in 0..12 {
        one.ask_tool("transfer", payment("INV-7"));
        other.ask_tool("transfer", payment("INV-8"));
    }
    for bank in [one, other] {
        let (_, rest) = bank.finish();
        assert_eq!(rest.len(), 12);
    }
    assert_eq!(world.statement()["references"]["INV-7"], 12);
    assert_eq!(world.statement()["references"]["INV-8"], 12);
    let ns: Vec<u64> = world.statement()["transfers"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|transfer| transfer["n"].as_u64().expect("a number"))
        .collect();
    assert_eq!(ns, (1..=24).collect::<Vec<u64>>());
}

#[test]
fn the_statement_counts_references() {
    let world = World::new();
    world.write_ledger(&format!("{LINES}torn"));
    let output = world.run(&["ledger"]);
    let expected = "\
id   at                        from   to     amount  reference
t-1  2026-11-21T08:00:00.000Z  alice  shop       40  INV-7
t-2  2026-11-21T08:00:01.000Z  bob    alice    1000  -
t-4  2026-11-21T08:00:03.000Z  alice  shop       40  INV-7

reference  made
INV-7         2

3 transfers, 1 reference, 1 made more than once
the last line is torn (4 bytes) and not counted
";
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    let statement = world.statement();
    assert_eq!(statement["count"], 3);
    assert_eq!(statement["references"], json!({ "INV-7": 2 }));
    assert_eq!(statement["transfers"][1]["id"], "t-2");
}

#[test]
fn a_closed_account_stays_closed() {
    let world = World::new();
    world.write_ledger(LINES);
    let mut bank = world.bank(&[]);
    let refused = bank.call("transfer", json!({ "from": "alice", "to": "bob", "amount": 1 }));
    assert_eq!(text(&refused), "bob is closed");
    assert_eq!(text(&bank.call("close_account", json!({ "account": "bob" }))), "bob is closed");
    assert_eq!(world.ledger(), LINES);
}

#[test]
fn a_ledger_that_cannot_be_opened_is_a_clear_error() {
    let world = World::new();
    for (args, expected) in [
        (&["--ledger", "missing/l.jsonl"][..], "bank: missing/l.jsonl cannot be opened: "),
        (&["--ledger", "."][..], "bank: . cannot be opened: "),
        (&["ledger"][..], "bank: ledger.jsonl cannot be opened: "),
    ] {
        let output = world.run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(complaint.starts_with(expected) && complaint.contains("\nhint: "), "{complaint}");
    }
    assert_eq!(world.run(&["--nonsense"]).status.code(), Some(2));
    assert_eq!(world.run(&["--http"]).status.code(), Some(2));
}
