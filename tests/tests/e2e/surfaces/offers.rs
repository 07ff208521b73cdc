//! `elicitation/create` in URL mode, for clients of 2025-11-25 that declared it.

use std::{path::Path, time::Duration};

use holdfast_tests::{Agent, Bridge, Desk, Ran, Served, eventually, eventually_some, from_setup, payment};
use serde_json::{Value, json};

use super::{ANA, asking, pending_call, visits};

/// What the client says to a question.
fn says(action: &str) -> Value {
    json!({ "action": action })
}

#[track_caller]
fn check(question: &Value, served: &Served, call: &str) {
    let params = &question["params"];
    assert_eq!(
        (&question["method"], &params["mode"]),
        (&json!("elicitation/create"), &json!("url")),
        "{question}"
    );
    assert_eq!(params["url"], format!("http://{}/calls/{call}", served.inbox));
    assert_eq!(params["elicitationId"], call);
}

#[test]
fn a_legacy_client_is_asked_to_send_its_user_to_the_inbox() {
    let world = asking("0s");
    let served = world.serve();
    let desk = Desk::of(&served, ANA);
    let mut agent = Agent::legacy_that_can(&served, "agent", visits());
    let mut asked = agent.ask("bank__transfer", payment("INV-1"));
    let question = asked.question();
    let call = pending_call(&desk);
    check(&question, &served, &call);
    // What others answer in its place is not heard, and what it says itself is no decision.
    let mut other = Agent::legacy_that_can(&served, "other", visits());
    other.reply(&question["id"], says("decline"));
    other.reply(&json!("holdfast-nobody"), says("decline"));
    agent.reply(&question["id"], json!({ "action": "accept", "content": { "approve": true } }));
    assert_eq!((&desk.call(&call)["call"]["state"], world.ledger().len()), (&json!("asking"), 0));
    desk.approve(&call);
    let complete = asked.notification();
    assert_eq!(complete["method"], "notifications/elicitation/complete");
    assert_eq!(complete["params"]["elicitationId"], call.as_str());
    let answer = asked.answer();
    assert!(answer.succeeded(), "{answer:?}");
    assert_eq!((answer.call(), world.paid("INV-1")), (call, 1));
}

#[test]
fn who_does_not_go_there_gets_a_held_result() {
    let world = asking("30s");
    let served = world.serve();
    let desk = Desk::of(&served, ANA);
    let mut agent = Agent::legacy_that_can(&served, "agent", visits());
    for action in ["decline", "cancel"] {
        let mut asked = agent.ask("bank__transfer", payment("INV-1"));
        let question = asked.question();
        agent.reply(&question["id"], says(action));
        let held = asked.answer();
        assert_eq!((held.code(), held.is_error()), ("held", false), "{action}: {held:?}");
        assert_eq!(held.call(), pending_call(&desk), "{action}");
    }
    // The hold is as it was: a closed stream does not end it, and nothing that was said did.
    let mut asked = agent.ask("bank__transfer", payment("INV-1"));
    asked.question();
    asked.hang_up();
    let call = pending_call(&desk);
    desk.approve(&call);
    assert!(agent.wait(&call).succeeded());
    assert_eq!(world.paid("INV-1"), 1);
    // A cancellation does.
    let mut asked = agent.ask("bank__transfer", payment("INV-2"));
    asked.question();
    let call = pending_call(&desk);
    agent.notify("notifications/cancelled", json!({ "requestId": asked.id }));
    desk.await_state(&call, "cancelled");
    assert_eq!(world.paid("INV-2"), 0);
}

#[test]
fn nobody_is_asked_who_did_not_declare_it() {
    let world = asking("0s");
    let served = world.serve();
    let declared = [json!({}), json!({ "elicitation": {} }), json!({ "elicitation": { "form": {} } })];
    for (n, capabilities) in declared.into_iter().enumerate() {
        let mut agent = Agent::legacy_that_can(&served, "agent", capabilities);
        let held = agent.call("bank__transfer", payment(&format!("INV-{n}")));
        assert_eq!((held.code(), held.is_error()), ("held", false), "{held:?}");
    }
}

#[test]
fn an_offer_outlives_the_proxy() {
    let world = asking("20s");
    let served = world.serve();
    let mut agent = Agent::legacy_that_can(&served, "agent", visits());
    let mut asked = agent.ask("bank__transfer", payment("INV-1"));
    let first = asked.question();
    let call = pending_call(&Desk::of(&served, ANA));
    served.kill();
    assert!(asked.ends_without_answer());
    let served = world.serve();
    let mut agent = Agent::legacy_that_can(&served, "agent", visits());
    let mut asked = agent.ask("bank__transfer", payment("INV-1"));
    let second = asked.question();
    check(&second, &served, &call);
    // The answer to the question of a process that is gone is nobody's.
    assert_ne!(first["id"], second["id"]);
    agent.reply(&first["id"], says("decline"));
    agent.reply(&second["id"], says("accept"));
    Desk::of(&served, ANA).approve(&call);
    let answer = asked.answer();
    assert!(answer.succeeded(), "{answer:?}");
    assert_eq!((answer.call(), world.paid("INV-1")), (call, 1));
}

#[test]
fn an_offer_comes_through_the_bridge_and_again_after_a_crash() {
    let world = asking("20s");
    let served = world.serve();
    let mut bridge = Bridge::legacy_that_can(&mut world.stdio(), visits());
    let id = bridge.ask_tool("bank__transfer", payment("INV-1"));
    let question = bridge.notification("elicitation/create");
    let call = pending_call(&Desk::of(&served, ANA));
    check(&question, &served, &call);
    bridge.send(&json!({ "jsonrpc": "2.0", "id": question["id"], "result": says("accept") }));
    // The agent does nothing: the bridge asks the next one, which asks anew and knows what the client can do.
    let served = world.serve_anew(served);
    let question = bridge.notification("elicitation/create");
    check(&question, &served, &call);
    bridge.send(&json!({ "jsonrpc": "2.0", "id": question["id"], "result": says("accept") }));
    Desk::of(&served, ANA).approve(&call);
    let answer = bridge.answer(id);
    assert!(answer.succeeded(), "{answer:?}");
    assert_eq!((answer.call(), world.paid("INV-1")), (call, 1));
}

#[test]
fn the_python_sdk_is_asked_in_the_legacy_era_too() {
    let world = asking("20s");
    let served = world.serve();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/surface.py");
    let mut command = world.command(&from_setup("venv/bin/python"));
    command.arg(script).arg("legacy").arg(format!("http://{}/mcp", served.mcp)).args(["", "INV-1"]);
    std::thread::scope(|scope| {
        let ran = scope.spawn(|| Ran::within(&mut command, Duration::from_secs(120)));
        let visits = eventually_some("the user is sent to the page", || {
            std::fs::read_to_string(world.path("visits")).ok().filter(|text| text.ends_with('\n'))
        });
        let desk = Desk::of(&served, ANA);
        let call = pending_call(&desk);
        assert!(visits.contains(&format!("http://{}/calls/{call}", served.inbox)), "{visits}");
        desk.approve(&call);
        let ran = ran.join().expect("no panic");
        ran.ok();
        assert_eq!(ran.json()["protocol"], "2025-11-25");
        assert_eq!(ran.json()["error"], false, "{ran:?}");
    });
    eventually("it is paid", || world.paid("INV-1") == 1);
}
