//! Agents that spawn their servers: `holdfast stdio`, and what they notice of our crashes, which is the delay.

use holdfast_tests::{ALLOW, Bridge, World, eventually, eventually_some, payment};
use serde_json::json;

/// The process of the `serve` that the address file names.
fn serve_pid(world: &World) -> i32 {
    let text = std::fs::read_to_string(world.path("holdfast.redb.serve.json")).expect("serve runs");
    let address: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    address["pid"].as_i64().and_then(|pid| pid.try_into().ok()).expect("a process id")
}

#[test]
fn the_bridge_starts_serve_where_there_is_none() {
    let world = World::bank(ALLOW);
    let mut first = world.bridge();
    assert!(first.call("bank__transfer", payment("INV-1")).succeeded());
    // The second one finds the first one's.
    let pid = serve_pid(&world);
    let mut second = world.bridge();
    assert!(second.call("bank__transfer", payment("INV-2")).succeeded());
    assert_eq!(serve_pid(&world), pid);
    assert!(first.finish().success());
    // Serve stays for the others.
    assert!(second.call("bank__transfer", payment("INV-3")).succeeded());
    assert_eq!(world.ledger().len(), 3);
}

#[test]
fn both_eras_come_through() {
    let world = World::bank(ALLOW);
    let _served = world.serve();
    let mut modern = Bridge::modern(&mut world.stdio());
    let discovered = modern.request("server/discover", json!({}));
    assert!(discovered.result()["supportedVersions"].to_string().contains("2026-07-28"), "{discovered:?}");
    let answer = modern.call("bank__transfer", payment("INV-1"));
    assert!(answer.succeeded());
    assert_eq!(answer.result()["resultType"], "complete");
    let mut legacy = world.bridge();
    let answer = legacy.call("bank__transfer", payment("INV-2"));
    assert!(answer.succeeded());
    assert_eq!(answer.result().get("resultType"), None);
}

#[test]
fn lines_that_are_no_messages_are_answered_and_stop_nothing() {
    let world = World::bank(ALLOW);
    let _served = world.serve();
    let mut bridge = world.bridge();
    bridge.send_line("this is not JSON");
    bridge.send_line("");
    bridge.send_line(r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#);
    bridge.send_line(
        r#"{"jsonrpc":"2.0","id":"double","method":"tools/call","params":{"name":"bank__echo","name":"x"}}"#,
    );
    let error = bridge.answer_where(|message| message["id"] == "double");
    assert!(error.0["error"].is_object(), "{error:?}");
    assert!(bridge.call("bank__transfer", payment("INV-1")).succeeded());
    let is_refusal = |message: &serde_json::Value| message["id"].is_null() && message["error"].is_object();
    for _ in ["what is not JSON", "a batch"] {
        bridge.answer_where(is_refusal);
    }
    assert!(!bridge.kept().any(is_refusal), "an empty line is nothing");
}

#[test]
fn a_read_across_a_crash_is_only_slow() {
    let world = World::bank(&format!("{ALLOW}repeat = \"safe\"\n"));
    let served = world.serve();
    let mut bridge = world.bridge();
    world.fault("all:slow=60s once");
    let id = bridge.ask_tool("bank__balance", json!({ "account": "bob" }));
    eventually("the read is with the bank", || world.fault_fired());
    served.kill();
    let answer = bridge.answer(id);
    assert!(answer.succeeded(), "{answer:?}");
    assert_eq!(answer.text(), "bob has 1000.");
}

#[test]
fn a_payment_across_a_crash_is_made_once_and_answered() {
    let probe = "[[rule]]\nid = \"look-up\"\nserver = \"bank\"\ntool = \"transfer\"\n\
        [rule.probe]\ntool = \"find_transfer\"\nargs = { reference = \"{/reference}\" }\n\
        happened = { at = \"/found\", equals = true }\n";
    let world = World::bank(&format!("{ALLOW}{probe}"));
    let served = world.serve();
    let mut bridge = world.bridge();
    world.fault("slow-after=60s once");
    let id = bridge.ask_tool("bank__transfer", payment("INV-1"));
    eventually("the payment is made", || world.paid("INV-1") == 1);
    served.kill();
    let answer = bridge.answer(id);
    assert!(answer.succeeded(), "{answer:?}");
    assert_eq!(answer.data()["transfer"]["reference"], "INV-1");
    assert_eq!(world.paid("INV-1"), 1);
    // And life goes on, with the serve that the bridge has started.
    assert!(bridge.call("bank__transfer", payment("INV-2")).succeeded());
}

#[test]
fn an_answer_that_serve_could_not_deliver_is_delivered_by_the_next() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let mut bridge = world.bridge();
    world.fault("slow=300ms once");
    let id = bridge.ask_tool("bank__transfer", payment("INV-1"));
    eventually("the payment is with the bank", || world.fault_fired());
    bridge.pause();
    eventually("its answer is recorded", || world.run(&["calls", "--json"]).stdout.contains("succeeded"));
    served.kill();
    bridge.resume();
    let answer = bridge.answer(id);
    assert!(answer.succeeded(), "{answer:?}");
    assert!(answer.text().starts_with("Made t-1"), "{}", answer.text());
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn a_held_call_is_collected_across_a_crash() {
    let ask = "[defaults]\nhold_wait = \"60s\"\n\
        [[rule]]\nid = \"payments\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n";
    let world = World::bank(ask);
    let served = world.serve();
    let mut bridge = world.bridge();
    let id = bridge.ask_tool("bank__transfer", payment("INV-1"));
    let call = eventually_some("it is held", || {
        let listed = world.run(&["pending", "--json"]);
        listed.json()["pending"][0]["call"]["call"].as_str().map(str::to_owned)
    });
    served.kill();
    eventually("the bridge has started another serve, which takes the approval", || {
        world.run(&["approve", &call]).code == Some(0)
    });
    let answer = bridge.answer(id);
    assert!(answer.succeeded(), "{answer:?}");
    assert_eq!((answer.call(), world.paid("INV-1")), (call, 1));
}

#[test]
fn many_crashes_many_calls() {
    let probe = "[[rule]]\nid = \"look-up\"\nserver = \"bank\"\ntool = \"transfer\"\n\
        [rule.probe]\ntool = \"find_transfer\"\nargs = { reference = \"{/reference}\" }\n\
        happened = { at = \"/found\", equals = true }\n";
    let world = World::bank(&format!("{ALLOW}{probe}"));
    let mut bridge = world.bridge();
    let mut ids = Vec::new();
    for n in 0..5 {
        world.fault("slow-after=1500ms once");
        let reference = format!("INV-{n}");
        ids.push(bridge.ask_tool("bank__transfer", holdfast_tests::payment_of(1, &reference)));
        eventually("the payment is made", || world.paid(&reference) == 1);
        holdfast_tests::end_process(serve_pid(&world));
    }
    for id in ids {
        let answer = bridge.answer(id);
        assert!(answer.succeeded(), "{answer:?}");
    }
    assert_eq!(world.ledger().len(), 5);
}

#[test]
fn a_configuration_that_cannot_be_used_is_told_on_stderr() {
    let world = World::bank("[defautls]\n");
    let ran = holdfast_tests::Ran::of(&mut world.holdfast(&["stdio"]));
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("defautls") && ran.stdout.is_empty(), "{ran:?}");
}

#[test]
fn with_agents_the_bridge_needs_a_token() {
    let agents = "[agents.ana]\ntoken = \"token-of-ana-long-enough\"\n";
    let world = World::bank(&format!("{agents}{ALLOW}"));
    let _served = world.serve();
    let mut bridge = Bridge::legacy(world.stdio().env("HOLDFAST_TOKEN", "token-of-ana-long-enough"));
    assert!(bridge.call("bank__transfer", payment("INV-1")).succeeded());
    let listed = world.run(&["calls", "--json"]).json();
    assert_eq!(listed["calls"][0]["principal"], "ana");

    for token in [None, Some("wrong")] {
        let mut command = world.stdio();
        command.envs(token.map(|token| ("HOLDFAST_TOKEN", token)));
        let mut bridge = Bridge::modern(&mut command);
        let id = bridge.ask_tool("bank__transfer", payment("INV-2"));
        let refused = bridge.answer(id);
        assert!(refused.error_message().contains("HOLDFAST_TOKEN"), "{refused:?}");
    }
    assert_eq!(world.paid("INV-2"), 0);
}
