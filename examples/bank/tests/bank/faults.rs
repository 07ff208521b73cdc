//! Each way to misbehave: what the client sees, and what the ledger says.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Bank, World, payment, text};

/// Pays once under this fault: the client must see `answer`, the ledger must have `made` transfers.
fn check(fault: &str, answer: &str, made: u64) {
    let world = World::new();
    let mut bank = world.bank(&[]);
    world.fault(fault);
    let seen = bank.request("tools/call", json!({ "name": "transfer", "arguments": payment("INV-7") }));
    let seen = match &seen["error"] {
        Value::Null => text(&seen["result"]).to_owned(),
        error => format!("{} {}", error["code"], error["message"].as_str().expect("a message")),
    };
    assert_eq!((seen.as_str(), world.count()), (answer, made), "{fault}");
}

const PAID: &str = "Made t-1: 40 from alice to shop, reference INV-7. alice has 960 left.";

#[test]
fn faults_that_answer() {
    check("", PAID, 1);
    check("try-later", "try again later; nothing was done", 0);
    check("error-before-commit", "-32603 the bank failed before the commit", 0);
    check("error-after-commit", "-32603 the bank failed after the commit", 1);
    check("slow=20ms slow-after=20ms", PAID, 1);
    check("all:slow=20ms once", PAID, 1);
}

#[test]
fn a_faults_file_that_nobody_understands_is_an_error() {
    let world = World::new();
    let mut bank = world.bank(&[]);
    world.fault("explode");
    let seen = bank.request("tools/call", json!({ "name": "transfer", "arguments": payment("INV-7") }));
    assert_eq!(seen["error"]["message"], "faults: `explode` is not a fault");
    assert_eq!(world.count(), 0);
}

#[test]
fn death_leaves_what_was_committed() {
    for (fault, made) in [("die-before-commit", 0), ("die-after-commit", 1)] {
        let world = World::new();
        let mut bank = world.bank(&[]);
        world.fault(&format!("{fault} once"));
        bank.ask_tool("transfer", payment("INV-7"));
        assert_eq!(bank.line(), None, "{fault}");
        let (status, _) = bank.finish();
        assert!(!status.success(), "{fault}");
        assert_eq!(world.count(), made, "{fault}");
        let receipt = world.bank(&[]).pay("INV-8");
        assert_eq!(receipt["structuredContent"]["id"], format!("t-{}", made + 1), "{fault}");
    }
}

#[test]
fn hanging_before_or_after_the_commit() {
    for (fault, made) in [("hang-before-commit", 0), ("hang", 1)] {
        let world = World::new();
        let mut bank = world.bank(&[]);
        world.fault(fault);
        let hanging = bank.ask_tool("transfer", payment("INV-7"));
        world.await_count(made);
        let other = bank.call("balance", json!({ "account": "bob" }));
        assert_eq!(text(&other), "bob has 1000.");
        bank.cancel(hanging);
        let (status, rest) = bank.finish();
        assert!(status.success(), "{fault}");
        assert_eq!(rest, Vec::<String>::new(), "{fault}");
        assert_eq!(world.count(), made, "{fault}");
    }
}

#[test]
fn a_cancelled_payment_is_not_made() {
    let world = World::new();
    let mut bank = world.bank(&[]);
    // A bank that ignored the cancellation would still pay: at the end of its input it waits longer than this.
    world.fault("slow=1s");
    let id = bank.ask_tool("transfer", payment("INV-7"));
    // Its answer tells that the transfer was read before the cancellation.
    bank.call("balance", json!({ "account": "bob" }));
    bank.cancel(id);
    let (status, rest) = bank.finish();
    assert!(status.success());
    assert_eq!((world.count(), rest), (0, Vec::new()));
}

#[test]
fn slow_waits_before_the_commit_and_slow_after_behind_it() {
    let world = World::new();
    let mut bank = world.bank(&[]);
    world.fault("slow=120ms once");
    let begun = Instant::now();
    bank.pay("INV-7");
    assert!(begun.elapsed() >= Duration::from_millis(120));

    world.fault("slow-after=600s");
    bank.ask_tool("transfer", payment("INV-8"));
    world.await_count(2);
    let other = bank.call("balance", json!({ "account": "alice" }));
    assert_eq!(text(&other), "alice has 920.");
}

#[test]
fn progress_goes_to_those_who_asked_for_it() {
    let world = World::new();
    let mut bank = world.bank(&[]);
    world.fault("slow=50ms progress=5");
    let params =
        json!({ "name": "transfer", "arguments": payment("INV-7"), "_meta": { "progressToken": "p" } });
    let id = bank.ask("tools/call", params);
    for n in 1..=5 {
        let told = bank.answer();
        assert_eq!(told["method"], "notifications/progress");
        assert_eq!(told["params"]["progressToken"], "p");
        assert_eq!(
            (told["params"]["progress"].as_f64(), told["params"]["total"].as_f64()),
            (Some(f64::from(n)), Some(5.0))
        );
    }
    assert_eq!(bank.answer()["id"], id);
    assert_eq!(text(&bank.pay("INV-8")).split(':').next(), Some("Made t-2"));
}

#[test]
fn garbage_comes_before_the_answer() {
    let world = World::new();
    let mut bank = world.bank(&[]);
    world.fault("garbage once");
    let id = bank.ask_tool("transfer", payment("INV-7"));
    let garbage = bank.line().expect("a line");
    assert!(serde_json::from_str::<Value>(&garbage).is_err(), "{garbage}");
    assert_eq!(bank.answer()["id"], id);
    assert_eq!(world.count(), 1);
}

#[test]
fn the_same_answer_twice() {
    let world = World::new();
    let mut bank = world.bank(&[]);
    world.fault("answer-twice once");
    bank.ask_tool("transfer", payment("INV-7"));
    let first = bank.line();
    assert!(first.is_some());
    assert_eq!(bank.line(), first);
    bank.pay("INV-8");
    assert_eq!(world.count(), 2);
}

#[test]
fn reads_suffer_only_when_all_tools_do() {
    let world = World::new();
    let mut bank = world.bank(&[]);
    world.fault("try-later");
    assert_eq!(bank.call("echo", json!({ "message": "hi" }))["isError"], false);
    world.fault("all:try-later once");
    assert_eq!(bank.call("echo", json!({ "message": "hi" }))["isError"], true);
    assert!(!world.path("faults").exists());
    assert_eq!(bank.call("echo", json!({ "message": "hi" }))["isError"], false);
}

#[test]
fn faults_may_stand_on_the_command_line_and_in_the_environment() {
    let world = World::new();
    let mut bank = world.bank(&["--fault", "try-later once"]);
    assert_eq!(bank.pay("INV-7")["isError"], true);
    assert_eq!(bank.pay("INV-7")["isError"], false);
    drop(bank);

    let mut bank = Bank::start(world.command(&[]).env("BANK_FAULT", "die-before-commit"));
    let client = json!({ "name": "test", "version": "1" });
    let hello = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client });
    bank.request("initialize", hello);
    bank.ask_tool("transfer", payment("INV-8"));
    assert_eq!(bank.line(), None);
    assert_eq!(world.count(), 1);

    let refused = world.run(&["--fault", "explode"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("`explode` is not a fault\nhint: "));
}
