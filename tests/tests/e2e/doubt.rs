//! Answers that get lost: what may be sent again is, what may not is told honestly, and nothing happens twice.

use std::time::{Duration, Instant};

use holdfast_tests::{ALLOW, Agent, Answer, World, eventually, eventually_some, payment, payment_of};
use serde_json::{Value, json};

/// Attempts are given up when everybody had the time to do what he was to; there is no probe.
const HASTY: &str = "[defaults]\neffect = \"allow\"\nattempt_timeout = \"3s\"\n\
    retry = { attempts = 4, initial = \"10ms\", cap = \"50ms\" }\n\
    [[rule]]\nid = \"reads\"\nserver = \"bank\"\ntool = \"{balance,echo,find_transfer}\"\nrepeat = \"safe\"\n";

/// Payments in doubt are looked up in the ledger.
const PROBE: &str = "[[rule]]\nid = \"look-up\"\nserver = \"bank\"\ntool = \"transfer\"\n\
    [rule.probe]\ntool = \"find_transfer\"\nargs = { reference = \"{/reference}\" }\n\
    happened = { at = \"/found\", equals = true }\n";

fn pay_once_under(fault: &str, config: &str) -> (World, Answer) {
    let world = World::bank(config);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    // Connected before anything goes wrong.
    assert!(agent.call("bank__echo", json!({ "message": "hi" })).succeeded());
    world.fault(&format!("{fault} once"));
    let answer = agent.call("bank__transfer", payment("INV-1"));
    eventually(fault, || world.fault_fired());
    drop(served);
    (world, answer)
}

#[test]
fn what_may_have_happened_is_called_unknown_and_not_repeated() {
    for (fault, made) in [
        ("error-before-commit", 0),
        ("error-after-commit", 1),
        ("die-before-commit", 0),
        ("die-after-commit", 1),
        ("hang-before-commit", 0),
        ("hang", 1),
        ("slow-after=20s", 1),
    ] {
        let (world, answer) = pay_once_under(fault, HASTY);
        assert!(answer.is_error(), "{fault}: {answer:?}");
        assert_eq!((answer.code(), answer.state()), ("outcome-unknown", "in-doubt"), "{fault}");
        assert!(answer.text().contains(&answer.call()), "{fault}: {}", answer.text());
        assert!(answer.text().contains("Do not repeat it"), "{fault}: {}", answer.text());
        eventually(fault, || world.paid("INV-1") == made);
    }
}

#[test]
fn the_servers_own_error_is_told_along() {
    let (_world, answer) = pay_once_under("error-after-commit", HASTY);
    let error = &answer.note("details")["upstream_error"];
    assert_eq!(error["code"], -32603);
    assert_eq!(error["message"], "the bank failed after the commit");
}

#[test]
fn what_the_ledger_confirms_is_answered() {
    for fault in ["error-after-commit", "die-after-commit", "hang", "slow-after=20s"] {
        let (world, answer) = pay_once_under(fault, &format!("{HASTY}{PROBE}"));
        assert!(answer.succeeded(), "{fault}: {answer:?}");
        assert_eq!(answer.state(), "succeeded", "{fault}");
        assert_eq!(answer.data()["transfer"]["reference"], "INV-1", "{fault}");
        let note = answer.result()["content"][1]["text"].as_str().unwrap_or_default().to_owned();
        assert!(note.contains("A look at the server confirms that it happened"), "{fault}: {answer:?}");
        assert_eq!(world.paid("INV-1"), 1, "{fault}");
    }
}

#[test]
fn what_the_ledger_does_not_have_stays_in_doubt() {
    for fault in ["error-before-commit", "die-before-commit", "hang-before-commit"] {
        let (world, answer) = pay_once_under(fault, &format!("{HASTY}{PROBE}"));
        assert_eq!((answer.code(), answer.state()), ("outcome-unknown", "in-doubt"), "{fault}");
        assert_eq!(world.paid("INV-1"), 0, "{fault}");
    }
}

#[test]
fn absent_resend_waits_for_the_old_process_to_be_gone() {
    let resend = format!("{HASTY}{PROBE}absent = \"resend\"\nsettle = \"200ms\"\n");
    let world = World::bank(&resend);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    world.fault("die-before-commit once");
    let call = agent.call("bank__transfer", payment("INV-1")).call();
    assert!(settled(&mut agent, &call).succeeded());
    assert_eq!(world.paid("INV-1"), 1);

    // A bank that hangs is still there and may yet act: nothing is sent again while it lives.
    let world = World::bank(&resend);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    world.fault("hang-before-commit once");
    let answer = agent.call("bank__transfer", payment("INV-2"));
    assert_eq!(answer.code(), "outcome-unknown");
    let call = answer.call();
    world.kill_one("bank");
    assert!(settled(&mut agent, &call).succeeded());
    assert_eq!(world.paid("INV-2"), 1);
}

/// What is told of the call as soon as it is not in doubt any more.
fn settled(agent: &mut Agent, call: &str) -> Answer {
    eventually_some("the call is settled", || {
        let answer = agent.wait(call);
        (answer.code() != "outcome-unknown").then_some(answer)
    })
}

#[test]
fn reads_are_simply_repeated() {
    for fault in ["all:die-before-commit", "all:die-after-commit", "all:error-after-commit", "all:hang"] {
        let world = World::bank(HASTY);
        let served = world.serve();
        let mut agent = Agent::modern(&served, "agent");
        world.fault(&format!("{fault} once"));
        let answer = agent.call("bank__balance", json!({ "account": "bob" }));
        assert!(world.fault_fired(), "{fault}");
        assert!(answer.succeeded(), "{fault}: {answer:?}");
        assert_eq!(answer.text(), "bob has 1000.", "{fault}");
    }
}

#[test]
fn a_read_that_never_works_says_what_was_tried() {
    let world = World::bank(HASTY);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    world.fault("all:error-before-commit");
    let answer = agent.call("bank__balance", json!({ "account": "bob" }));
    assert!(answer.is_error());
    assert_eq!((answer.code(), &answer.note("details")["attempts"]), ("attempts-exhausted", &json!(4)));
    assert_eq!(answer.note("details")["upstream_error"]["message"], "the bank failed before the commit");
}

#[test]
fn errors_that_did_nothing_by_their_own_words_are_retried() {
    let retry = format!(
        "{HASTY}[[rule]]\nid = \"later\"\nserver = \"bank\"\ntool = \"transfer\"\n\
         [rule.retry]\nretry_on = [\"(?i)try again later\"]\n"
    );
    let world = World::bank(&retry);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    world.fault("try-later once");
    let answer = agent.call("bank__transfer", payment("INV-1"));
    assert!(answer.succeeded(), "{answer:?}");
    assert_eq!(world.paid("INV-1"), 1);

    world.fault("try-later");
    let answer = agent.call("bank__transfer", payment("INV-2"));
    assert!(answer.is_error(), "{answer:?}");
    assert!(answer.text().contains("try again later"), "{answer:?}");
    assert_eq!((answer.state(), world.paid("INV-2")), ("failed", 0));

    // Without such a pattern it is the tool's answer like any other.
    let world = World::bank(HASTY);
    let served = world.serve();
    world.fault("try-later once");
    let answer = Agent::modern(&served, "agent").call("bank__transfer", payment("INV-3"));
    assert_eq!((answer.text(), answer.is_error()), ("try again later; nothing was done", true));
    assert_eq!(world.paid("INV-3"), 0);
}

#[test]
fn a_late_answer_settles_what_was_in_doubt() {
    let world = World::bank(HASTY);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    agent.tools();
    let paused = world.pause_one("bank");
    let answer = agent.call("bank__transfer", payment("INV-1"));
    assert_eq!(answer.code(), "outcome-unknown");
    let call = answer.call();

    // The same request again, as a client sends it that has not understood: told the same, and nothing is sent.
    let again = agent.call("bank__transfer", payment("INV-1"));
    assert_eq!((again.code(), again.call()), ("outcome-unknown", call.clone()));

    drop(paused);
    let late = eventually_some("the late answer", || {
        let answer = agent.call("bank__transfer", payment("INV-1"));
        (answer.code() != "outcome-unknown").then_some(answer)
    });
    assert!(late.succeeded(), "{late:?}");
    assert_eq!((late.call(), late.replayed()), (call, true));
    assert!(late.text().starts_with("Made t-1"), "{}", late.text());
    assert_eq!(world.paid("INV-1"), 1);
}

/// A payment in doubt, its agent, and its call.
fn doubtful(world: &World, story: impl FnOnce(&mut Agent, &str)) {
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    world.fault("die-before-commit once");
    let answer = agent.call_as("pay-1", "bank__transfer", payment("INV-1"));
    assert_eq!(answer.code(), "outcome-unknown");
    story(&mut agent, &answer.call());
}

#[test]
fn an_operator_says_that_it_happened() {
    let world = World::bank(HASTY);
    doubtful(&world, |agent, call| {
        let said = world.run(&["resolve", call, "--happened", r#"{"booked":"4711"}"#]);
        assert!(said.ok().contains("succeeded"), "{said:?}");
        let answer = agent.call_as("pay-1", "bank__transfer", payment("INV-1"));
        assert!(answer.succeeded(), "{answer:?}");
        assert_eq!((answer.data(), answer.call().as_str()), (&json!({ "booked": "4711" }), call));
        assert!(answer.replayed());
    });
    assert_eq!(world.paid("INV-1"), 0);
}

#[test]
fn an_operator_says_that_it_was_not_sent() {
    let world = World::bank(HASTY);
    doubtful(&world, |agent, call| {
        world.run(&["resolve", call, "--not-sent"]).ok();
        let answer = agent.wait(call);
        assert!(answer.succeeded(), "{answer:?}");
        assert!(answer.text().starts_with("Made t-1"), "{}", answer.text());
        let again = agent.call_as("pay-1", "bank__transfer", payment("INV-1"));
        assert_eq!((again.call().as_str(), again.replayed()), (call, true));
    });
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn an_operator_gives_up() {
    let world = World::bank(HASTY);
    doubtful(&world, |agent, call| {
        let said = world.run(&["resolve", call, "--give-up"]);
        assert!(said.ok().contains("unknown"), "{said:?}");
        for _ in 0..2 {
            let answer = agent.call_as("pay-1", "bank__transfer", payment("INV-1"));
            assert!(matches!(answer.code(), "outcome-unknown" | "given-up"), "{answer:?}");
            assert_eq!((answer.state(), answer.call().as_str()), ("unknown", call));
        }
        // Final: neither another decision nor a release makes it usable again.
        let late = world.run(&["resolve", call, "--not-sent"]);
        assert_eq!(late.code, Some(1), "{late:?}");
        let release = world.run(&["release", call]);
        assert_eq!(release.code, Some(1), "{release:?}");
        let answer = agent.call_as("pay-1", "bank__transfer", payment("INV-1"));
        assert_eq!(answer.state(), "unknown");
    });
    assert_eq!(world.paid("INV-1"), 0);
}

#[test]
fn calls_in_doubt_are_on_the_list_of_what_waits() {
    let world = World::bank(HASTY);
    doubtful(&world, |_, call| {
        let pending = world.run(&["pending"]);
        let short = &call[call.len() - 8..];
        assert!(pending.ok().contains(short) && pending.stdout.contains("IN DOUBT"), "{pending:?}");
        let listed = world.run(&["pending", "--json"]).json();
        assert_eq!(listed["pending"][0]["call"]["call"], call);
        assert_eq!(listed["pending"][0]["arguments"], payment("INV-1").to_string());
    });
}

/// The upstream deduplicates by a key that we forward.
const KEYED: &str = "[[rule]]\nid = \"keyed\"\nserver = \"bank\"\ntool = \"transfer\"\nrepeat = \"keyed\"\n\
    [rule.idempotency]\nupstream = \"arg:/idempotency_key\"\n";

#[test]
fn with_a_key_for_the_server_a_lost_answer_is_asked_for_again() {
    for fault in
        ["die-before-commit", "die-after-commit", "error-before-commit", "error-after-commit", "hang"]
    {
        let (world, answer) = pay_once_under(fault, &format!("{HASTY}{KEYED}"));
        assert!(answer.succeeded(), "{fault}: {answer:?}");
        assert_eq!(answer.data()["reference"], "INV-1", "{fault}");
        assert_eq!(world.paid("INV-1"), 1, "{fault}");
        let key = world.ledger()[0]["idempotency_key"].clone();
        assert!(key.as_str().is_some_and(|key| !key.is_empty()), "{fault}");
    }
}

#[test]
fn each_payment_has_a_key_of_its_own_at_the_server() {
    let world = World::bank(&format!("{HASTY}{KEYED}"));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    for n in 1..=3 {
        assert!(agent.call_as(&format!("k{n}"), "bank__transfer", payment_of(1, "INV-1")).succeeded());
    }
    let mut keys: Vec<Value> = world.ledger().iter().map(|line| line["idempotency_key"].clone()).collect();
    keys.dedup();
    assert_eq!(keys.len(), 3);
    // What the agent calls its key is nobody else's business.
    assert!(keys.iter().all(|key| !key.to_string().contains("k1")), "{keys:?}");

    let mut own = payment("INV-2");
    own["idempotency_key"] = "mine".into();
    let answer = agent.call("bank__transfer", own);
    assert_eq!(answer.code(), "invalid-arguments");
    assert_eq!(world.paid("INV-2"), 0);
}

#[test]
fn the_key_for_the_server_is_the_same_at_each_attempt() {
    for (upstream, place) in [
        ("arg:/deep/key", "/message/params/arguments/deep/key"),
        ("meta:example.com/key", "/message/params/_meta/example.com~1key"),
    ] {
        let world = World::empty();
        world.write("tools.json", r#"[{"name":"pay","inputSchema":{"type":"object"}}]"#);
        world.write("script.json", r#"{"pay":{"error":{"code":-32603,"message":"oops"},"times":2}}"#);
        let rule = format!(
            "[[rule]]\nid = \"keyed\"\nserver = \"odd\"\ntool = \"pay\"\nrepeat = \"keyed\"\n\
             [rule.idempotency]\nupstream = \"{upstream}\"\n"
        );
        world.configure(&format!("{}{HASTY}{rule}", world.server_odd("")));
        let served = world.serve();
        let answer = Agent::modern(&served, "agent").call("odd__pay", json!({ "amount": 1, "deep": {} }));
        assert!(answer.succeeded(), "{upstream}: {answer:?}");
        let calls = world.odd_calls("pay");
        let keys: Vec<Option<&str>> = calls.iter().map(|call| call.pointer(place)?.as_str()).collect();
        assert_eq!(keys.len(), 3, "{upstream}");
        assert!(keys[0].is_some_and(|key| !key.is_empty()), "{upstream}: {calls:?}");
        assert!(keys.iter().all(|key| *key == keys[0]), "{upstream}: {keys:?}");
    }
}

#[test]
fn a_dead_server_fails_fast_and_says_so() {
    let breaker = "breaker = { failures = 3, window = \"30s\", open = \"1s\" }\n";
    let world = World::bank(&format!(
        "{breaker}{HASTY}[[rule]]\nid = \"q\"\nserver = \"bank\"\ntool = \"*\"\ncall_timeout = \"2s\"\n"
    ));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    assert!(agent.call("bank__echo", json!({ "message": "hi" })).succeeded());
    // A ledger that is a directory: the bank cannot start any more.
    std::fs::create_dir(world.path("blocked")).expect("the directory is ours");
    std::fs::rename(world.path("ledger.jsonl"), world.path("blocked/ledger")).expect("the directory is ours");
    std::fs::create_dir(world.path("ledger.jsonl")).expect("the directory is ours");
    world.kill_one("bank");
    let begun = Instant::now();
    let answer = agent.call("bank__transfer", payment("INV-1"));
    assert!(answer.is_error(), "{answer:?}");
    assert_ne!(answer.code(), "outcome-unknown", "nothing was sent: {answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());

    // The same server, well again, is found without a restart of ours.
    std::fs::remove_dir(world.path("ledger.jsonl")).expect("it is empty");
    eventually("the bank works again", || agent.call("bank__transfer", payment("INV-2")).succeeded());
    assert_eq!((world.paid("INV-1"), world.paid("INV-2")), (0, 1));
}

#[test]
fn without_a_word_about_it_allow_means_never_twice() {
    let world = World::bank(&format!("{ALLOW}attempt_timeout = \"500ms\"\n"));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    // Even a read: that it is one is only what the server says.
    world.fault("all:hang-before-commit once");
    let answer = agent.call("bank__balance", json!({ "account": "bob" }));
    assert_eq!(answer.code(), "outcome-unknown");
}
