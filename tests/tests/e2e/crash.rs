//! `kill -9` at the worst moments: nothing that was acknowledged is lost, and nothing happens twice.

use holdfast_tests::{ALLOW, Agent, World, eventually, payment};
use serde_json::json;

const PROBE: &str = "[[rule]]\nid = \"look-up\"\nserver = \"bank\"\ntool = \"transfer\"\n\
    [rule.probe]\ntool = \"find_transfer\"\nargs = { reference = \"{/reference}\" }\n\
    happened = { at = \"/found\", equals = true }\n";

#[test]
fn an_answer_outlives_everybody_who_could_have_heard_it() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    world.fault("slow=300ms once");
    let lost = agent.ask("bank__transfer", payment("INV-1"));
    eventually("the payment is with the bank", || world.fault_fired());
    lost.hang_up();
    eventually("its answer is recorded", || world.run(&["calls", "--json"]).stdout.contains("succeeded"));
    let made_at = world.ledger()[0]["at"].clone();
    served.kill();

    let served = world.serve();
    let answer = Agent::modern(&served, "agent").call("bank__transfer", payment("INV-1"));
    assert!(answer.succeeded() && answer.replayed(), "{answer:?}");
    assert_eq!((&answer.data()["at"], &answer.data()["id"]), (&made_at, &json!("t-1")));
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn killed_after_the_payment_was_made_the_ledger_is_asked() {
    let world = World::bank(&format!("{ALLOW}{PROBE}"));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    world.fault("slow-after=60s once");
    let lost = agent.ask("bank__transfer", payment("INV-1"));
    eventually("the payment is made", || world.paid("INV-1") == 1);
    served.kill();
    drop(lost);

    let served = world.serve();
    let answer = Agent::modern(&served, "agent").call("bank__transfer", payment("INV-1"));
    assert!(answer.succeeded(), "{answer:?}");
    assert_eq!(answer.data()["transfer"]["id"], "t-1");
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn killed_before_the_payment_was_made_it_stays_unknown_and_unpaid() {
    let world = World::bank(&format!("{ALLOW}{PROBE}"));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    world.fault("slow=60s once");
    let lost = agent.ask_as("k", "bank__transfer", payment("INV-1"));
    eventually("the payment is with the bank", || world.fault_fired());
    served.kill();
    drop(lost);

    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let answer = agent.call_as("k", "bank__transfer", payment("INV-1"));
    assert_eq!((answer.code(), answer.state()), ("outcome-unknown", "in-doubt"));
    // Whoever looked into it says so, and then it is paid, once.
    world.run(&["resolve", &answer.call(), "--not-sent"]).ok();
    assert!(agent.wait(&answer.call()).succeeded());
    assert!(agent.call_as("k", "bank__transfer", payment("INV-1")).replayed());
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn with_a_key_for_the_server_a_crash_costs_nothing_but_time() {
    let keyed = "[[rule]]\nid = \"keyed\"\nserver = \"bank\"\ntool = \"transfer\"\nrepeat = \"keyed\"\n\
        [rule.idempotency]\nupstream = \"arg:/idempotency_key\"\n";
    for (fault, made) in [("slow=60s", 0), ("slow-after=60s", 1)] {
        let world = World::bank(&format!("{ALLOW}{keyed}"));
        let served = world.serve();
        let mut agent = Agent::modern(&served, "agent");
        world.fault(&format!("{fault} once"));
        let lost = agent.ask("bank__transfer", payment("INV-1"));
        eventually("the payment is with the bank", || world.fault_fired() && world.paid("INV-1") == made);
        served.kill();
        drop(lost);
        let served = world.serve();
        let answer = Agent::modern(&served, "agent").call("bank__transfer", payment("INV-1"));
        assert!(answer.succeeded(), "{fault}: {answer:?}");
        assert!(answer.text().starts_with("Made t-1"), "{fault}: {}", answer.text());
        assert_eq!(world.paid("INV-1"), 1, "{fault}");
    }
}

#[test]
fn a_hold_outlives_proxy_and_agent() {
    let ask = "[defaults]\nhold_wait = \"0s\"\n\
        [[rule]]\nid = \"payments\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n";
    let world = World::bank(ask);
    let served = world.serve();
    let held = Agent::modern(&served, "agent").call("bank__transfer", payment("INV-1"));
    assert_eq!(held.code(), "held");
    let call = held.call();
    served.kill();

    let served = world.serve();
    let pending = world.run(&["pending", "--json"]).json();
    assert_eq!(pending["pending"][0]["call"]["call"], call.as_str());
    // The identical call joins it and asks nobody twice.
    let joined = Agent::modern(&served, "agent").call("bank__transfer", payment("INV-1"));
    assert_eq!((joined.code(), joined.call()), ("held", call.clone()));
    world.run(&["approve", &call]).ok();
    eventually("it is paid and recorded", || world.run(&["calls", "--json"]).stdout.contains("succeeded"));
    served.kill();

    let served = world.serve();
    let answer = Agent::modern(&served, "agent").wait(&call);
    assert!(answer.succeeded(), "{answer:?}");
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn keys_hold_across_crashes() {
    let world = World::bank(ALLOW);
    let mut calls = Vec::new();
    for life in 0..4 {
        let served = world.serve();
        let mut agent = Agent::modern(&served, "agent");
        let answer = agent.call_as("k", "bank__transfer", payment("INV-1"));
        assert_eq!((answer.succeeded(), answer.replayed()), (true, life > 0), "{answer:?}");
        calls.push(answer.call());
        let other = agent.call_as("k", "bank__transfer", payment("INV-2"));
        assert_eq!(other.code(), "key-reused");
        served.kill();
    }
    calls.dedup();
    assert_eq!((calls.len(), world.ledger().len()), (1, 1));
}

#[test]
fn the_journal_verifies_after_every_crash() {
    let world = World::bank(ALLOW);
    for life in 0..3 {
        let served = world.serve();
        let mut agent = Agent::modern(&served, "agent");
        world.fault("slow-after=60s once");
        let reference = format!("INV-{life}");
        let lost = agent.ask("bank__transfer", payment(&reference));
        eventually("the payment is made", || world.paid(&reference) == 1);
        served.kill();
        drop(lost);
        let verified = world.run(&["verify"]);
        assert!(verified.ok().starts_with("ok: "), "{verified:?}");
    }
    let served = world.serve();
    assert!(world.run(&["verify"]).ok().starts_with("ok: "));
    eventually("all three are in doubt", || {
        let doubtful = world.run(&["calls", "--json", "--state", "in-doubt"]).json();
        doubtful["calls"].as_array().map(Vec::len) == Some(3)
    });
    drop(served);
}

#[test]
fn killed_at_any_moment_no_payment_is_made_twice() {
    let world = World::bank(&format!("{ALLOW}{PROBE}"));
    for n in 0..12 {
        let served = world.serve();
        let reference = format!("INV-{n}");
        let lost =
            Agent::modern(&served, "agent").ask_as(&reference, "bank__transfer", payment_of_one(&reference));
        // Not a wait for anything: each round is killed a little later than the one before.
        std::thread::sleep(std::time::Duration::from_millis(n * 2));
        served.kill();
        drop(lost);
        let served = world.serve();
        let answer =
            Agent::modern(&served, "agent").call_as(&reference, "bank__transfer", payment_of_one(&reference));
        let paid = world.paid(&reference);
        assert!(paid <= 1, "{reference}: {paid} times");
        assert!(answer.succeeded() || answer.code() == "outcome-unknown", "{answer:?}");
        if answer.succeeded() {
            assert_eq!(paid, 1, "{reference}: {answer:?}");
        }
        served.kill();
    }
}

fn payment_of_one(reference: &str) -> serde_json::Value {
    holdfast_tests::payment_of(1, reference)
}
