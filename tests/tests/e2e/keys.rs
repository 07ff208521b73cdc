//! What makes two requests the same call: the table of cases.

use holdfast_tests::{ALLOW, Agent, World, eventually, payment, payment_of};
use serde_json::json;

const KEY: &str = "io.holdfast/idempotency-key";

#[test]
fn a_key_that_is_done_gives_the_first_answer_again() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let first = agent.call_as("k", "bank__transfer", payment("INV-1"));
    assert!(first.succeeded() && !first.replayed(), "{first:?}");
    for mut other in [Agent::modern(&served, "other"), Agent::legacy(&served, "legacy")] {
        let again = other.call_as("k", "bank__transfer", payment("INV-1"));
        assert!(again.replayed());
        assert_eq!((again.call(), again.text(), again.data()), (first.call(), first.text(), first.data()));
    }
    let mut bridge = world.bridge();
    let params = json!({ "name": "bank__transfer", "arguments": payment("INV-1"), "_meta": { KEY: "k" } });
    let again = bridge.request("tools/call", params);
    assert_eq!((again.replayed(), again.call()), (true, first.call()));
    assert_eq!(world.ledger().len(), 1);

    // Another key is another intention.
    assert!(!agent.call_as("k2", "bank__transfer", payment("INV-1")).replayed());
    assert_eq!(world.paid("INV-1"), 2);
}

#[test]
fn the_header_and_the_meta_member_are_one_key() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let first =
        Agent::modern(&served, "a").header("Idempotency-Key", "k").call("bank__transfer", payment("INV-1"));
    let quoted = Agent::modern(&served, "a").header("Idempotency-Key", "\"k\"");
    for mut agent in [Agent::modern(&served, "a").meta(KEY, "k"), quoted] {
        let again = agent.call("bank__transfer", payment("INV-1"));
        assert_eq!((again.replayed(), again.call()), (true, first.call()));
    }
    let both = Agent::modern(&served, "a").meta(KEY, "k").header("Idempotency-Key", "other");
    let mut both = both;
    assert_eq!(both.call("bank__transfer", payment("INV-1")).error_code(), -32602);
    assert_eq!(world.ledger().len(), 1);
}

#[test]
fn a_key_that_is_not_understood_is_not_passed_over() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    for key in [json!(7), json!(""), json!(["k"]), json!("x".repeat(2_000))] {
        let mut agent = Agent::modern(&served, "a").meta(KEY, key.clone());
        assert_eq!(agent.call("bank__transfer", payment("INV-1")).error_code(), -32602, "{key}");
    }
    assert_eq!(world.ledger().len(), 0);
}

#[test]
fn a_key_for_other_arguments_is_refused_and_tells_nothing() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    agent.call_as("k", "bank__transfer", payment("INV-secret"));
    let reused = agent.call_as("k", "bank__transfer", payment("INV-2"));
    assert!(reused.is_error());
    assert_eq!(reused.code(), "key-reused");
    assert!(!reused.0.to_string().contains("secret"), "{reused:?}");
    assert_eq!((world.paid("INV-secret"), world.paid("INV-2")), (1, 0));
    // Numbers that a float cannot tell apart are other arguments, too.
    agent.call_as("n", "bank__echo", json!({ "message": 9_007_199_254_740_993_i64 }));
    let other = agent.call_as("n", "bank__echo", json!({ "message": 9_007_199_254_740_992_i64 }));
    assert_eq!(other.code(), "key-reused");
}

#[test]
fn keys_of_different_tools_and_agents_do_not_meet() {
    let agents = "[agents.ana]\ntoken = \"token-of-ana-long-enough\"\n[agents.bob]\ntoken = \"token-of-bob-long-enough\"\n";
    let world = World::bank(&format!("{agents}{ALLOW}"));
    let served = world.serve();
    let mut ana = Agent::with_token(&served, "c", "token-of-ana-long-enough");
    let mut bob = Agent::with_token(&served, "c", "token-of-bob-long-enough");
    assert!(ana.call_as("k", "bank__transfer", payment("INV-1")).succeeded());
    assert!(!bob.call_as("k", "bank__transfer", payment("INV-1")).replayed());
    assert!(!ana.call_as("k", "bank__echo", json!({ "message": "hi" })).replayed());
    assert_eq!(world.paid("INV-1"), 2);

    // One agent's call is nothing to another.
    let call = ana.call_as("k", "bank__transfer", payment("INV-1")).call();
    assert_eq!(bob.wait(&call).code(), "not-found");
    assert_eq!(bob.call("holdfast_call_status", json!({ "call_id": call })).code(), "not-found");
}

fn with_effect_key(more: &str) -> String {
    format!(
        "{ALLOW}[[rule]]\nid = \"once\"\nserver = \"bank\"\ntool = \"transfer\"\n\
         [rule.idempotency]\nkey = \"transfer:{{/reference}}\"\n{more}"
    )
}

#[test]
fn an_effect_key_holds_whatever_the_agent_does() {
    let world = World::bank(&with_effect_key(""));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let first = agent.call("bank__transfer", payment("INV-1"));
    assert!(first.succeeded());
    // Asked for again on purpose, on the connection on which the answer was heard.
    assert!(agent.call("bank__transfer", payment("INV-1")).replayed());
    let fresh = agent.call_as("fresh", "bank__transfer", payment("INV-1"));
    assert_eq!((fresh.replayed(), fresh.call()), (true, first.call()));
    let mut other = Agent::legacy(&served, "other");
    assert_eq!(other.call("bank__transfer", payment("INV-1")).call(), first.call());
    let dearer = agent.call("bank__transfer", payment_of(41, "INV-1"));
    assert_eq!(dearer.code(), "key-reused");
    assert_eq!(world.ledger().len(), 1);

    let nameless = agent.call("bank__transfer", json!({ "from": "alice", "to": "shop", "amount": 1 }));
    assert_eq!(nameless.code(), "key-required");
    assert_eq!(world.ledger().len(), 1);
    assert!(agent.call("bank__transfer", payment("INV-2")).succeeded());
}

#[test]
fn the_scope_of_an_effect_key() {
    let agents = "[agents.ana]\ntoken = \"token-of-ana-long-enough\"\n[agents.bob]\ntoken = \"token-of-bob-long-enough\"\n";
    for (scope, made) in [("principal", 2), ("everyone", 1)] {
        let world = World::bank(&format!("{agents}{}", with_effect_key(&format!("scope = \"{scope}\"\n"))));
        let served = world.serve();
        for token in ["token-of-ana-long-enough", "token-of-bob-long-enough"] {
            let answer = Agent::with_token(&served, "c", token).call("bank__transfer", payment("INV-1"));
            assert!(answer.succeeded(), "{scope}: {answer:?}");
        }
        assert_eq!(world.paid("INV-1"), made, "{scope}");
    }
}

#[test]
fn a_key_may_be_demanded() {
    let rule = "[[rule]]\nid = \"named\"\nserver = \"bank\"\ntool = \"transfer\"\n[rule.idempotency]\nkey = \"required\"\n";
    let world = World::bank(&format!("{ALLOW}{rule}"));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let nameless = agent.call("bank__transfer", payment("INV-1"));
    assert!(nameless.is_error());
    assert_eq!(nameless.code(), "key-required");
    assert!(nameless.text().contains(KEY), "{}", nameless.text());
    assert_eq!(world.ledger().len(), 0);
    assert!(agent.call_as("k", "bank__transfer", payment("INV-1")).succeeded());
}

#[test]
fn a_new_life_of_an_agent_replays_its_run() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let life = |incarnation: &str| {
        let agent = Agent::modern(&served, "agent").meta("io.holdfast/run", "task-7");
        agent.meta("io.holdfast/incarnation", incarnation)
    };
    let mut first = life("1");
    let calls: Vec<String> = (0..2).map(|_| first.call("bank__transfer", payment("INV-1")).call()).collect();
    assert_ne!(calls[0], calls[1]);
    assert_eq!(world.paid("INV-1"), 2);

    // The agent starts its task again, does the same, and then goes on.
    let mut second = life("2");
    for call in &calls {
        let answer = second.call("bank__transfer", payment("INV-1"));
        assert_eq!((answer.call(), answer.replayed()), (call.clone(), true));
    }
    let third = second.call("bank__transfer", payment("INV-1"));
    assert!(!third.replayed() && !calls.contains(&third.call()), "{third:?}");
    assert_eq!(world.paid("INV-1"), 3);

    // Another run has nothing to do with it.
    let mut other = Agent::modern(&served, "agent").meta("io.holdfast/run", "task-8");
    assert!(!other.call("bank__transfer", payment("INV-1")).replayed());
    assert_eq!(world.paid("INV-1"), 4);
}

#[test]
fn who_comes_while_the_call_runs_joins_it() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    world.fault("slow=800ms once");
    let mut agent = Agent::modern(&served, "agent");
    let first = agent.ask_as("k", "bank__transfer", payment("INV-1"));
    eventually("the payment is with the bank", || world.fault_fired());
    let second = Agent::legacy(&served, "other").ask_as("k", "bank__transfer", payment("INV-1"));
    let other = agent.call_as("k", "bank__transfer", payment("INV-2"));
    assert_eq!(other.code(), "key-reused");
    let (first, second) = (first.answer(), second.answer());
    assert!(first.succeeded() && second.succeeded(), "{first:?} {second:?}");
    assert_eq!((first.call(), first.text()), (second.call(), second.text()));
    assert_eq!(world.ledger().len(), 1);
}

#[test]
fn or_is_turned_away_or_gets_a_handle() {
    for (on_join, code) in [("reject", "key-in-flight"), ("handle", "running")] {
        let world = World::bank(&format!("{ALLOW}on_join = \"{on_join}\"\n"));
        let served = world.serve();
        let mut agent = Agent::modern(&served, "agent");
        agent.tools();
        let paused = world.pause_one("bank");
        let first = agent.ask_as("k", "bank__transfer", payment("INV-1"));
        eventually("the payment is with the bank", || world.waits_for("bank"));
        let second = agent.call_as("k", "bank__transfer", payment("INV-1"));
        assert_eq!((second.code(), second.is_error()), (code, on_join == "reject"), "{second:?}");
        drop(paused);
        let call = first.answer().call();
        assert!(second.text().contains(&call), "{on_join}: {}", second.text());
        let collected = agent.wait(&call);
        assert!(collected.succeeded(), "{on_join}: {collected:?}");
        // Once it is done, the answer is there for everybody.
        assert!(agent.call_as("k", "bank__transfer", payment("INV-1")).replayed(), "{on_join}");
        assert_eq!(world.paid("INV-1"), 1, "{on_join}");
    }
}

#[test]
fn what_was_never_sent_leaves_its_key_free() {
    let world = World::empty();
    world.configure(&format!(
        "[servers.bank]\ncommand = \"./bank\"\nargs = [\"--ledger\", \"ledger.jsonl\"]\n\
         {ALLOW}retry = {{ attempts = 2, initial = \"10ms\", cap = \"20ms\" }}\n"
    ));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let failed = agent.call_as("k", "bank__transfer", payment("INV-1"));
    assert!(failed.is_error(), "{failed:?}");
    assert_eq!(world.ledger().len(), 0);
    std::os::unix::fs::symlink(holdfast_tests::bank(), world.path("bank")).expect("the directory is ours");
    eventually("the same key gets a fresh try", || {
        let answer = agent.call_as("k", "bank__transfer", payment("INV-1"));
        assert!(!answer.replayed(), "{answer:?}");
        answer.succeeded()
    });
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn a_definitive_failure_is_kept_unless_policy_says_otherwise() {
    for (reuse, second_is_fresh) in [("", false), ("reuse = \"after_failure\"\n", true)] {
        let world = World::bank(&format!("{ALLOW}{reuse}"));
        let served = world.serve();
        let mut agent = Agent::modern(&served, "agent");
        let too_much = payment_of(1_500, "INV-1");
        let declined = agent.call_as("k", "bank__transfer", too_much.clone());
        assert!(declined.is_error() && !declined.replayed(), "{declined:?}");
        // Meanwhile bob pays alice, who now could.
        let gift = json!({ "from": "bob", "to": "alice", "amount": 900 });
        assert!(agent.call("bank__transfer", gift).succeeded());
        let again = agent.call_as("k", "bank__transfer", too_much);
        assert_eq!(
            (again.replayed(), again.succeeded()),
            (!second_is_fresh, second_is_fresh),
            "{reuse}: {again:?}"
        );
        if !second_is_fresh {
            assert_eq!(again.text(), declined.text());
        }
        assert_eq!(world.paid("INV-1"), usize::from(second_is_fresh), "{reuse}");
    }
}

#[test]
fn in_doubt_is_what_the_key_says() {
    let world = World::bank(&format!("{ALLOW}attempt_timeout = \"2s\"\n"));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    world.fault("hang once");
    let first = agent.call_as("k", "bank__transfer", payment("INV-1"));
    assert_eq!(first.code(), "outcome-unknown");
    let again = Agent::legacy(&served, "other").call_as("k", "bank__transfer", payment("INV-1"));
    assert_eq!((again.code(), again.call()), ("outcome-unknown", first.call()));
    eventually("it is made", || world.paid("INV-1") == 1);
}

const ASK: &str = "[[rule]]\nid = \"payments\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n";

#[test]
fn a_refusal_keeps_its_key_until_an_operator_frees_it() {
    let world = World::bank(&format!("[defaults]\nhold_wait = \"0s\"\n{ASK}"));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let held = agent.call_as("k", "bank__transfer", payment("INV-1"));
    let call = held.call();
    world.run(&["reject", &call, "--reason", "not this month"]).ok();
    for _ in 0..2 {
        let refused = agent.call_as("k", "bank__transfer", payment("INV-1"));
        assert!(refused.is_error());
        assert_eq!((refused.code(), refused.call()), ("refused", call.clone()));
        assert!(refused.text().contains("not this month"), "{}", refused.text());
    }
    world.run(&["release", &call]).ok();
    let fresh = agent.call_as("k", "bank__transfer", payment("INV-1"));
    assert_eq!(fresh.code(), "held");
    assert_ne!(fresh.call(), call);
    assert_eq!(world.ledger().len(), 0);
}

#[test]
fn an_expired_hold_frees_its_key() {
    let world =
        World::bank(&format!("[defaults]\nhold_wait = \"0s\"\n{ASK}[rule.gate]\napprove_by = \"4s\"\n"));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let first = agent.call_as("k", "bank__transfer", payment("INV-1"));
    assert_eq!(first.code(), "held");
    let over = agent.wait(&first.call());
    assert_eq!((over.code(), over.is_error()), ("expired", true), "{over:?}");
    let second = agent.call_as("k", "bank__transfer", payment("INV-1"));
    assert_eq!(second.code(), "held");
    assert_ne!(second.call(), first.call());
}

#[test]
fn a_withdrawn_hold_frees_its_key() {
    let world = World::bank(&format!("[defaults]\nhold_wait = \"0s\"\n{ASK}"));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let first = agent.call_as("k", "bank__transfer", payment("INV-1"));
    world.run(&["cancel", &first.call()]).ok();
    assert_eq!(agent.wait(&first.call()).code(), "cancelled");
    let second = agent.call_as("k", "bank__transfer", payment("INV-1"));
    assert_eq!(second.code(), "held");
    assert_ne!(second.call(), first.call());
}
