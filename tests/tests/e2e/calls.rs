//! What an allowed call comes to, in both eras and over both transports.

use std::time::{Duration, Instant};

use holdfast_tests::{ALLOW, Agent, Answer, World, eventually, payment, payment_of};
use serde_json::{Value, json};

/// One agent of each kind does the same.
fn each_kind_of_agent(world: &World, story: impl Fn(&str, &mut dyn FnMut(&str, Value) -> Answer)) {
    let served = world.serve();
    let mut modern = Agent::modern(&served, "modern");
    story("modern", &mut |tool, arguments| modern.call(tool, arguments));
    let mut legacy = Agent::legacy(&served, "legacy");
    story("legacy", &mut |tool, arguments| legacy.call(tool, arguments));
    let mut bridge = world.bridge();
    story("bridge", &mut |tool, arguments| bridge.call(tool, arguments));
}

#[test]
fn an_allowed_call_is_answered() {
    let world = World::bank(ALLOW);
    each_kind_of_agent(&world, |kind, call| {
        let answer = call("bank__transfer", payment(kind));
        assert!(answer.succeeded(), "{kind}: {answer:?}");
        assert_eq!(answer.data()["reference"], kind);
        assert_eq!((answer.state(), answer.replayed()), ("succeeded", false), "{kind}");
        assert_eq!(answer.call().len(), 36, "{kind}");
        assert_eq!(world.paid(kind), 1, "{kind}");

        let balance = call("bank__balance", json!({ "account": "bob" }));
        assert_eq!(balance.text(), "bob has 1000.", "{kind}");
    });
    assert_eq!(world.ledger().len(), 3);
}

#[test]
fn what_the_tool_declines_is_told_as_it_says_it() {
    let world = World::bank(ALLOW);
    each_kind_of_agent(&world, |kind, call| {
        let too_much = call("bank__transfer", payment_of(5_000, kind));
        assert!(too_much.is_error(), "{kind}");
        assert_eq!((too_much.code(), too_much.state()), ("", "failed"), "{kind}");
        let unfit = call("bank__transfer", json!({ "from": "alice", "amount": "40" }));
        assert!(unfit.is_error(), "{kind}");
        assert!(unfit.text().starts_with("the arguments do not fit: "), "{kind}: {}", unfit.text());
    });
    assert_eq!(world.ledger(), Vec::<Value>::new());
}

#[test]
fn names_that_lead_nowhere() {
    let world = World::bank(ALLOW);
    each_kind_of_agent(&world, |kind, call| {
        let near = call("bank__transfers", payment(kind));
        assert_eq!(near.error_code(), -32602, "{kind}");
        assert!(near.error_message().contains("did you mean bank__transfer?"), "{kind}: {near:?}");
        assert_eq!(call("bonk__transfer", payment(kind)).error_code(), -32602, "{kind}");
        assert_eq!(call("transfer", payment(kind)).error_code(), -32602, "{kind}");
        assert_eq!(call("bank__transfer", json!("all of it")).error_code(), -32602, "{kind}");
    });
    assert_eq!(world.ledger(), Vec::<Value>::new());
}

#[test]
fn what_no_rule_allows_waits_and_what_a_rule_forbids_is_refused() {
    let rules = "[defaults]\neffect = \"allow\"\n\
        [[rule]]\nid = \"never-close\"\neffect = \"deny\"\nserver = \"bank\"\ntool = \"close_account\"\n";
    let world = World::bank(rules);
    each_kind_of_agent(&world, |kind, call| {
        let denied = call("bank__close_account", json!({ "account": "carol" }));
        assert!(denied.is_error(), "{kind}");
        assert_eq!((denied.code(), denied.state()), ("denied", "denied"), "{kind}");
        assert!(denied.text().contains("rule `never-close`"), "{kind}: {}", denied.text());
    });
    assert_eq!(world.ledger(), Vec::<Value>::new());
}

#[test]
fn the_list_of_tools_has_every_servers_and_ours() {
    let world = World::bank(ALLOW);
    let expected = [
        "bank__balance",
        "bank__close_account",
        "bank__echo",
        "bank__find_transfer",
        "bank__list_transfers",
        "bank__quote_transfer",
        "bank__transfer",
        "holdfast_call_status",
        "holdfast_wait",
    ];
    let served = world.serve();
    for mut agent in [Agent::modern(&served, "modern"), Agent::legacy(&served, "legacy")] {
        let mut tools = agent.tools();
        assert_eq!(tools, agent.tools(), "the order changes");
        tools.sort();
        assert_eq!(tools, expected);
    }
}

#[test]
fn nothing_is_lost_on_the_way() {
    let world = World::empty();
    let definition = json!({
        "name": "report", "inputSchema": { "type": "object", "x-order": ["b", "a"] },
        "annotations": { "x-vendor": { "weight": 0 } }, "execution": { "taskSupport": "forbidden" },
    });
    world.write("tools.json", &json!([definition]).to_string());
    // Digits that no float keeps, a key order that no map keeps, and a kind of content that nobody knows.
    let result = r#"{"content":[{"type":"hologram","z":1,"a":123456789012345678901234567890.10}],"x-cost":0.10,"isError":false}"#;
    world.write("script.json", &format!(r#"{{"report":{{"result":{result}}}}}"#));
    world.configure(&format!("{}{ALLOW}", world.server_odd("")));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");

    let listed = agent.request("tools/list", json!({}));
    let tools = listed.result()["tools"].as_array().expect("a list");
    let mut shown = tools.iter().find(|tool| tool["name"] == "odd__report").expect("it is listed").clone();
    shown["name"] = "report".into();
    assert_eq!(shown.to_string(), definition.to_string());

    let arguments = r#"{"z":9007199254740993,"a":[1.50,null,"\u00e4"],"m":{}}"#;
    let arguments: Value = serde_json::from_str(arguments).expect("JSON");
    let answer = agent.call("odd__report", arguments.clone()).result().clone();
    assert_eq!(
        answer["content"].to_string(),
        r#"[{"type":"hologram","z":1,"a":123456789012345678901234567890.10}]"#
    );
    assert_eq!(answer["x-cost"].to_string(), "0.10");
    let sent = world.odd_calls("report")[0]["message"]["params"]["arguments"].to_string();
    assert_eq!(sent, arguments.to_string());
}

#[test]
fn an_error_of_the_server_is_relayed_as_it_came() {
    let world = World::empty();
    world.write("tools.json", r#"[{"name":"pick","inputSchema":{"type":"object"}}]"#);
    let error = json!({ "code": -32602, "message": "no such colour", "data": { "known": ["red"] } });
    world.write("script.json", &json!({ "pick": { "error": error } }).to_string());
    world.configure(&format!("{}{ALLOW}", world.server_odd("")));
    let served = world.serve();
    for mut agent in [Agent::modern(&served, "modern"), Agent::legacy(&served, "legacy")] {
        let answer = agent.call("odd__pick", json!({ "colour": "blue" }));
        assert_eq!(answer.0["error"], error);
    }
}

#[test]
fn progress_comes_in_order_and_before_the_answer() {
    let world = World::bank(ALLOW);
    world.fault("slow=300ms progress=6");
    let served = world.serve();
    for (kind, mut agent) in
        [("modern", Agent::modern(&served, "modern")), ("legacy", Agent::legacy(&served, "legacy"))]
    {
        let mut asked = agent.ask_with("bank__transfer", payment(kind), json!({ "progressToken": "p-7" }));
        for n in 1..=6 {
            let told = asked.notification();
            assert_eq!(told["method"], "notifications/progress", "{kind}");
            assert_eq!(told["params"]["progressToken"], "p-7", "{kind}");
            assert_eq!(told["params"]["progress"].as_f64(), Some(f64::from(n)), "{kind}: {told}");
        }
        assert!(asked.answer().succeeded(), "{kind}");
    }
    let mut bridge = world.bridge();
    let meta = json!({ "progressToken": 42 });
    let id = bridge.ask(
        "tools/call",
        json!({ "name": "bank__transfer", "arguments": payment("bridge"), "_meta": meta }),
    );
    for n in 1..=6 {
        let told = bridge.notification("notifications/progress");
        assert_eq!(told["params"]["progressToken"], 42);
        assert_eq!(told["params"]["progress"].as_f64(), Some(f64::from(n)), "{told}");
    }
    assert!(bridge.answer(id).succeeded());
}

#[test]
fn a_long_call_is_a_stream_that_stays_alive() {
    let world = World::bank(ALLOW);
    world.fault("slow=1500ms once");
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let begun = Instant::now();
    assert!(agent.call("bank__transfer", payment("INV-1")).succeeded());
    assert!(begun.elapsed() >= Duration::from_millis(1_400));
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn one_server_that_cannot_start_hides_nothing_of_the_others() {
    let world = World::empty();
    let gone = "[servers.gone]\ncommand = \"./no-such-program\"\n";
    world.configure(&format!("{gone}{}{ALLOW}", world.server_bank()));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    assert!(agent.tools().contains(&"bank__transfer".to_owned()));
    assert!(agent.call("bank__transfer", payment("INV-1")).succeeded());

    let answer = agent.call("gone__anything", json!({}));
    assert!(answer.is_error());
    assert_eq!(answer.code(), "upstream-spawn-failed");
    assert!(answer.text().contains("no-such-program"), "{}", answer.text());
    // Told twice, it is still the same story, and nothing hangs.
    assert_eq!(agent.call("gone__anything", json!({})).code(), "upstream-spawn-failed");
}

#[test]
fn a_server_that_dies_is_started_again() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    for n in 1..=3 {
        let reference = format!("INV-{n}");
        let answer = agent.call("bank__transfer", payment(&reference));
        assert!(answer.succeeded(), "{reference}: {answer:?}");
        world.kill_one("bank");
        assert_eq!(world.paid(&reference), 1);
    }
    assert_eq!(agent.call("bank__balance", json!({ "account": "shop" })).text(), "shop has 120.");
}

#[test]
fn garbage_and_answers_too_many_do_no_harm() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    for fault in ["garbage", "answer-twice", "garbage answer-twice"] {
        world.fault(fault);
        for n in 1..=3 {
            let reference = format!("{fault} {n}");
            let answer = agent.call("bank__transfer", payment_of(10, &reference));
            assert!(answer.succeeded(), "{answer:?}");
            assert_eq!(answer.data()["reference"], reference.as_str());
            assert_eq!(world.paid(&reference), 1);
        }
    }
}

#[test]
fn agents_do_not_wait_for_each_other() {
    let world = World::bank(ALLOW);
    world.fault("slow=10s once");
    let served = world.serve();
    let mut slow = Agent::modern(&served, "slow");
    let asked = slow.ask("bank__transfer", payment("INV-1"));
    eventually("the slow payment is with the bank", || world.fault_fired());
    let mut quick = Agent::legacy(&served, "quick");
    assert!(quick.call("bank__transfer", payment("INV-2")).succeeded());
    assert_eq!(world.paid("INV-1"), 0, "the quick one did not wait for it");
    assert!(asked.answer().succeeded());
}

#[test]
fn a_cancellation_reaches_the_server_under_its_own_id() {
    let world = World::empty();
    world.write("tools.json", r#"[{"name":"work","inputSchema":{"type":"object"}}]"#);
    world.write("script.json", r#"{"work":{"sleep_ms":3000,"result":{"content":[]},"times":9}}"#);
    world.configure(&format!("{}{ALLOW}", world.server_odd("")));
    let served = world.serve();
    let cancelled = || {
        let log = world.odd_log();
        let ids = log.iter().filter(|line| line["message"]["method"] == "notifications/cancelled");
        ids.map(|line| line["message"]["params"]["requestId"].clone()).collect::<Vec<_>>()
    };

    let mut legacy = Agent::legacy(&served, "legacy");
    let asked = legacy.ask("odd__work", json!({ "n": 1 }));
    eventually("the call is with the server", || world.odd_calls("work").len() == 1);
    legacy.notify("notifications/cancelled", json!({ "requestId": asked.id }));
    assert!(asked.ends_without_answer());
    eventually("the server was told", || {
        cancelled() == [world.odd_calls("work")[0]["message"]["id"].clone()]
    });

    let mut bridge = world.bridge();
    let id = bridge.ask_tool("odd__work", json!({ "n": 2 }));
    eventually("the call is with the server", || world.odd_calls("work").len() == 2);
    bridge.cancel(id);
    eventually("the server was told", || {
        cancelled().get(1) == Some(&world.odd_calls("work")[1]["message"]["id"])
    });
}

#[test]
fn a_payment_that_is_cancelled_in_time_is_not_made() {
    let world = World::bank(ALLOW);
    world.fault("slow=3s");
    let served = world.serve();
    let mut agent = Agent::legacy(&served, "agent");
    let asked = agent.ask("bank__transfer", payment("INV-1"));
    // The second one is read by the bank after the first, and done after the first would have been.
    let witness = agent.ask("bank__echo", json!({ "message": "hi" }));
    witness.answer();
    agent.notify("notifications/cancelled", json!({ "requestId": asked.id }));
    assert!(asked.ends_without_answer());
    assert!(agent.call("bank__transfer", payment("INV-2")).succeeded());
    assert_eq!((world.paid("INV-1"), world.paid("INV-2")), (0, 1));
}

#[test]
fn a_client_that_leaves_does_not_take_its_payment_along() {
    let world = World::bank(ALLOW);
    world.fault("slow=300ms once");
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let asked = agent.ask("bank__transfer", payment("INV-1"));
    eventually("the payment is with the bank", || world.fault_fired());
    asked.hang_up();
    eventually("the payment is made", || world.paid("INV-1") == 1);
}

#[test]
fn on_disconnect_cancel_takes_it_along() {
    let world = World::bank("[defaults]\neffect = \"allow\"\non_disconnect = \"cancel\"\n");
    world.fault("slow=3s");
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let asked = agent.ask("bank__transfer", payment("INV-1"));
    agent.call("bank__echo", json!({ "message": "the bank has read the payment before this" }));
    asked.hang_up();
    assert!(agent.call("bank__transfer", payment("INV-2")).succeeded());
    assert_eq!((world.paid("INV-1"), world.paid("INV-2")), (0, 1));
}

#[test]
fn an_agent_asks_where_its_call_stands() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let call = agent.call("bank__transfer", payment("INV-1")).call();
    let status = agent.call("holdfast_call_status", json!({ "call_id": call }));
    assert_eq!((&status.data()["state"], &status.data()["attempts"]), (&json!("succeeded"), &json!(1)));
    let again = agent.wait(&call);
    assert_eq!((again.replayed(), again.call()), (true, call));

    let nobodys = agent.call("holdfast_wait", json!({ "call_id": "01900000-0000-7000-8000-000000000000" }));
    assert_eq!(nobodys.code(), "not-found");
    assert_eq!(agent.call("holdfast_wait", json!({ "call_id": "x" })).error_code(), -32602);
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn a_stop_lets_calls_in_flight_end() {
    let world = World::bank(ALLOW);
    world.fault("slow=800ms once");
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let asked = agent.ask("bank__transfer", payment("INV-1"));
    eventually("the payment is with the bank", || world.fault_fired());
    let answer = std::thread::spawn(move || asked.answer());
    assert!(served.stop().success());
    assert!(answer.join().expect("an answer").succeeded());
    assert_eq!(world.paid("INV-1"), 1);
    eventually("nobody is left", || world.processes().is_empty());
}
