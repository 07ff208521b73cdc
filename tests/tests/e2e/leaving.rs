//! Clients that come and go: what the end of a connection or of a wait means for a call.

use std::{fs, time::Duration};

use holdfast_tests::{ALLOW, Agent, World, eventually, payment, payment_of};
use serde_json::json;

const ASK: &str = "[[rule]]\nid = \"payments\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n";

#[test]
fn a_wait_that_is_cancelled_leaves_the_hold() {
    let world = World::bank(&format!("[defaults]\nhold_wait = \"0s\"\n{ASK}"));
    let served = world.serve();
    let mut agent = Agent::legacy(&served, "agent");
    let held = agent.call("bank__transfer", payment("INV-1"));
    let waits = agent.ask("holdfast_wait", json!({ "call_id": held.call(), "timeout_s": 600 }));
    let id = waits.id;
    agent.notify("notifications/cancelled", json!({ "requestId": id, "reason": "timed out" }));
    assert!(waits.ends_without_answer());
    world.run(&["approve", &held.call()]).ok();
    assert!(agent.wait(&held.call()).succeeded());
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn waiting_for_a_person_takes_no_time_of_the_machine() {
    let world = World::bank(&format!("[defaults]\nhold_wait = \"0s\"\n{ASK}"));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let held = agent.call("bank__transfer", payment("INV-1"));
    let used = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", served.pid())).expect("it runs");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("ticks")).sum();
        Duration::from_millis(ticks * 10)
    };
    let before = used();
    let waited = agent.call("holdfast_wait", json!({ "call_id": held.call(), "timeout_s": 5 }));
    assert_eq!(waited.code(), "held");
    let spent = used() - before;
    assert!(spent < Duration::from_millis(250), "{spent:?} of work in 5 s of waiting");
}

#[test]
fn who_hangs_up_and_asks_again_at_once_pays_once() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    for round in 0..40 {
        let reference = format!("INV-{round}");
        world.fault("slow=150ms once");
        let lost = agent.ask("bank__transfer", payment_of(1, &reference));
        eventually("the payment is with the bank", || world.fault_fired());
        lost.hang_up();
        agent.reconnect();
        assert!(agent.call("bank__transfer", payment_of(1, &reference)).succeeded());
        assert_eq!(world.paid(&reference), 1, "round {round}");
    }
}
