//! Lost responses: what is asked for again, and what is a new call that only looks the same.

use holdfast_tests::{ALLOW, Agent, World, eventually, payment};
use serde_json::json;

#[test]
fn who_lost_the_connection_gets_the_answer_of_the_first_call() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    world.fault("slow=400ms once");
    let lost = agent.ask("bank__transfer", payment("INV-1"));
    eventually("the payment is with the bank", || world.fault_fired());
    lost.hang_up();
    agent.reconnect();
    // Asked again while it runs, it is joined.
    let answer = agent.call("bank__transfer", payment("INV-1"));
    assert!(answer.succeeded(), "{answer:?}");
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn an_answer_that_nobody_heard_is_kept() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    world.fault("slow=200ms once");
    let lost = agent.ask("bank__transfer", payment("INV-1"));
    eventually("the payment is with the bank", || world.fault_fired());
    lost.hang_up();
    eventually("the payment is made", || world.paid("INV-1") == 1);
    eventually("its answer is recorded", || world.run(&["calls", "--json"]).stdout.contains("succeeded"));
    let answer = agent.call("bank__transfer", payment("INV-1"));
    assert!(answer.succeeded() && answer.replayed(), "{answer:?}");
    assert!(answer.text().starts_with("Made t-1"), "{}", answer.text());
    assert_eq!(world.paid("INV-1"), 1);

    // That was heard, as the next request shows; the same once more is meant.
    agent.call("bank__echo", json!({ "message": "thanks" }));
    let meant = agent.call("bank__transfer", payment("INV-1"));
    assert!(!meant.replayed(), "{meant:?}");
    assert_eq!(world.paid("INV-1"), 2);
}

#[test]
fn identical_calls_one_after_the_other_are_two() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let mut modern = Agent::modern(&served, "modern");
    let mut legacy = Agent::legacy(&served, "legacy");
    for (reference, agent) in [("modern", &mut modern), ("legacy", &mut legacy)] {
        let first = agent.call("bank__transfer", payment(reference));
        let second = agent.call("bank__transfer", payment(reference));
        assert_ne!(first.call(), second.call(), "{reference}");
        assert_eq!((second.replayed(), world.paid(reference)), (false, 2), "{reference}");
    }
    let mut bridge = world.bridge();
    bridge.call("bank__transfer", payment("bridge"));
    bridge.call("bank__transfer", payment("bridge"));
    assert_eq!(world.paid("bridge"), 2);
}

/// Waits until so many calls are with the bank, which has stopped.
fn in_flight(world: &World, count: usize) {
    eventually("all of them run", || {
        world.run(&["calls", "--json", "--state", "in-flight"]).stdout.matches("\"in-flight\"").count()
            == count
    });
}

#[test]
fn identical_calls_at_the_same_time_are_two() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    agent.tools();
    let mut bridge = world.bridge();
    world.pause("bank");
    let asked: Vec<_> = (0..3).map(|_| agent.ask("bank__transfer", payment("INV-1"))).collect();
    let ids = [(); 2].map(|()| bridge.ask_tool("bank__transfer", payment("INV-2")));
    in_flight(&world, 5);
    world.go_on("bank");
    let mut calls: Vec<String> = asked.into_iter().map(|asked| asked.answer().call()).collect();
    calls.sort();
    calls.dedup();
    assert_eq!((calls.len(), world.paid("INV-1")), (3, 3));
    let calls = ids.map(|id| bridge.answer(id).call());
    assert_ne!(calls[0], calls[1]);
    assert_eq!(world.paid("INV-2"), 2);
}

#[test]
fn of_two_lost_calls_each_is_matched_once() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    agent.tools();
    world.pause("bank");
    let lost: Vec<_> = (0..2).map(|_| agent.ask("bank__transfer", payment("INV-1"))).collect();
    in_flight(&world, 2);
    lost.into_iter().for_each(holdfast_tests::Asked::hang_up);
    world.go_on("bank");
    eventually("both are done", || world.paid("INV-1") == 2);
    let again: Vec<_> = (0..2).map(|_| agent.ask("bank__transfer", payment("INV-1"))).collect();
    let mut calls: Vec<String> = again.into_iter().map(|asked| asked.answer().call()).collect();
    calls.sort();
    calls.dedup();
    assert_eq!((calls.len(), world.paid("INV-1")), (2, 2));
}

#[test]
fn a_lost_call_is_no_other_clients_business() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    world.fault("slow=200ms once");
    let lost = Agent::modern(&served, "one").ask("bank__transfer", payment("INV-1"));
    eventually("the payment is with the bank", || world.fault_fired());
    lost.hang_up();
    eventually("the payment is made", || world.paid("INV-1") == 1);
    let other = Agent::modern(&served, "two").call("bank__transfer", payment("INV-1"));
    assert!(!other.replayed(), "{other:?}");
    assert_eq!(world.paid("INV-1"), 2);
}

#[test]
fn a_session_that_is_gone_leaves_its_answers_to_the_next() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    world.fault("slow=300ms once");
    let mut first = Agent::legacy(&served, "agent");
    let lost = first.ask("bank__transfer", payment("INV-1"));
    eventually("the payment is with the bank", || world.fault_fired());
    lost.hang_up();
    eventually("the payment is made", || world.paid("INV-1") == 1);

    // As long as the session may still ask itself, another one does not get its answer.
    let mut second = Agent::legacy(&served, "agent");
    let own = second.call("bank__transfer", payment("INV-1"));
    assert!(!own.replayed(), "{own:?}");
    assert_eq!(world.paid("INV-1"), 2);

    first.end_session();
    let mut third = Agent::legacy(&served, "agent");
    let answer = third.call("bank__transfer", payment("INV-1"));
    assert!(answer.replayed(), "{answer:?}");
    assert_eq!(world.paid("INV-1"), 2);
}

#[test]
fn a_bridge_that_is_gone_leaves_its_answers_to_the_next() {
    let world = World::bank(ALLOW);
    let _served = world.serve();
    world.fault("slow=300ms once");
    let mut first = world.bridge();
    first.ask_tool("bank__transfer", payment("INV-1"));
    eventually("the payment is with the bank", || world.fault_fired());
    first.kill();
    let calls = || world.run(&["calls", "--json", "--state", "succeeded"]).json()["calls"].clone();
    eventually("the answer is there", || calls().as_array().is_some_and(|calls| calls.len() == 1));
    let mut second = world.bridge();
    let answer = second.call("bank__transfer", payment("INV-1"));
    assert!(answer.succeeded() && answer.replayed(), "{answer:?}");
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn windows_close_and_can_be_shut() {
    for (window, wait) in [("off", false), ("1s", true)] {
        let world = World::bank(&format!("{ALLOW}reissue_window = \"{window}\"\n"));
        let served = world.serve();
        let mut agent = Agent::modern(&served, "agent");
        world.fault("slow=200ms once");
        let lost = agent.ask("bank__transfer", payment("INV-1"));
        eventually("the payment is with the bank", || world.fault_fired());
        lost.hang_up();
        eventually("its answer is recorded", || world.run(&["calls", "--json"]).stdout.contains("succeeded"));
        if wait {
            std::thread::sleep(std::time::Duration::from_millis(1_300));
        }
        let answer = agent.call("bank__transfer", payment("INV-1"));
        assert!(!answer.replayed(), "{window}: {answer:?}");
        assert_eq!(world.paid("INV-1"), 2, "{window}");
    }
}

#[test]
fn reads_are_asked_anew() {
    let world = World::bank(&format!("{ALLOW}repeat = \"safe\"\n"));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    world.fault("all:slow=300ms once");
    let lost = agent.ask("bank__balance", json!({ "account": "alice" }));
    eventually("the read is with the bank", || world.fault_fired());
    lost.hang_up();
    let answer = agent.call("bank__balance", json!({ "account": "alice" }));
    assert!(answer.succeeded() && !answer.replayed(), "{answer:?}");
}
