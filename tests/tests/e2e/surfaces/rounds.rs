//! `input_required`, and the retry that goes on with the same call.

use std::{path::Path, time::Duration};

use holdfast_tests::{
    Agent, Answer, Asked, Desk, Ran, World, eventually, eventually_some, from_setup, holdfast, payment,
};
use serde_json::{Value, json};

use super::{ANA, asking, asking_with, kind, pending_call, visits};

const REFUSED: &str = "request-state-invalid";

/// The state in an `input_required` result.
#[track_caller]
fn state(answer: &Answer) -> String {
    assert_eq!(kind(answer), "input_required", "{answer:?}");
    answer.result()["requestState"].as_str().expect("a state").to_owned()
}

/// The call again, as a library sends it that has what it was asked for.
fn again(arguments: Value, state: &str) -> Value {
    let said = json!({ "approval": { "action": "accept" } });
    json!({ "name": "bank__transfer", "arguments": arguments, "requestState": state, "inputResponses": said })
}

fn retry(agent: &mut Agent, reference: &str, state: &str) -> Asked {
    agent.ask_for("tools/call", again(payment(reference), state))
}

#[test]
fn a_client_that_visits_pages_is_sent_to_the_inbox_and_waits_in_rounds() {
    let world = asking("20s");
    let served = world.serve();
    let desk = Desk::of(&served, ANA);
    let mut agent = Agent::modern(&served, "agent").that_can(visits());
    let first = agent.call("bank__transfer", payment("INV-1"));
    let state = state(&first);
    let call = pending_call(&desk);
    assert_eq!((first.call(), first.state(), first.code()), (call.clone(), "asking", "held"));
    let asked = &first.result()["inputRequests"]["approval"];
    assert_eq!((&asked["method"], &asked["params"]["mode"]), (&json!("elicitation/create"), &json!("url")));
    // The address of the page and nothing else: no token of anybody is in it.
    assert_eq!(asked["params"]["url"], format!("http://{}/calls/{call}", served.inbox), "{first:?}");
    assert_eq!(first.result().get("content"), None);
    let waits = retry(&mut agent, "INV-1", &state);
    desk.approve(&call);
    let answer = waits.answer();
    assert!(answer.succeeded() && kind(&answer) == "complete", "{answer:?}");
    assert_eq!((answer.call(), world.paid("INV-1")), (call.clone(), 1));
    // The answer was lost, so the same request comes again: it is the same call.
    assert_eq!(retry(&mut agent, "INV-1", &state).answer().text(), answer.text());
    assert_eq!(world.paid("INV-1"), 1);
    assert_eq!(desk.get("/calls").json()["calls"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_round_ends_before_clients_lose_patience() {
    let world = asking("100ms");
    let served = world.serve();
    let mut visitor = Agent::modern(&served, "visitor").that_can(visits());
    let mut other = Agent::modern(&served, "other");
    let [first, second] = [("INV-1", &mut visitor), ("INV-2", &mut other)].map(|(reference, agent)| {
        let asked = agent.call("bank__transfer", payment(reference));
        assert_eq!(asked.result().get("inputRequests").is_some(), reference == "INV-1", "{asked:?}");
        retry(agent, reference, &state(&asked))
    });
    // Both wait at the same time, and neither in vain for as long as it takes clients to give up.
    let (first, second) = (first.answer(), second.answer());
    // The page is open already: nobody is sent there a second time.
    assert_eq!((kind(&first), first.result().get("inputRequests")), ("input_required", None), "{first:?}");
    // Who can only come again has done so, and is told how to go on without.
    assert_eq!((kind(&second), second.code(), second.is_error()), ("complete", "held", false), "{second:?}");
    let waits = retry(&mut visitor, "INV-1", &state(&first));
    Desk::of(&served, ANA).approve(&first.call());
    assert!(waits.answer().succeeded());
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn rounds_outlive_the_proxy() {
    for (name, capabilities) in [("visitor", visits()), ("other", json!({}))] {
        let world = asking("100ms");
        let served = world.serve();
        let mut agent = Agent::modern(&served, name).that_can(capabilities.clone());
        let first = agent.call("bank__transfer", payment("INV-1"));
        let (call, state) = (first.call(), state(&first));
        served.kill();
        // The next one waits when it is killed, too.
        let served = world.serve();
        let mut agent = Agent::modern(&served, name).that_can(capabilities.clone());
        let waits = retry(&mut agent, "INV-1", &state);
        eventually("the retry has come", || {
            let shown = Desk::of(&served, ANA).call(&call);
            shown["call"]["state"] == "asking"
        });
        served.kill();
        waits.hang_up();
        let served = world.serve();
        let mut agent = Agent::modern(&served, name).that_can(capabilities);
        let waits = retry(&mut agent, "INV-1", &state);
        Desk::of(&served, ANA).approve(&call);
        let answer = waits.answer();
        assert!(answer.succeeded(), "{name}: {answer:?}");
        assert_eq!((answer.call(), world.paid("INV-1")), (call, 1), "{name}");
    }
}

#[test]
fn a_state_is_nobodys_to_make_change_or_lend() {
    let agents = "[agents.ann]\ntoken = \"token-of-ann-long-enough\"\n[agents.bob]\ntoken = \"token-of-bob-long-enough\"\n";
    let world = asking_with(agents, "20s");
    let served = world.serve();
    let [mut ann, mut bob] = [("ann", "token-of-ann-long-enough"), ("bob", "token-of-bob-long-enough")]
        .map(|(name, token)| Agent::with_token(&served, name, token).that_can(visits()));
    let first = ann.call("bank__transfer", payment("INV-1"));
    let (call, state) = (first.call(), state(&first));
    let refused = |agent: &mut Agent, params: Value| {
        let answer = agent.request("tools/call", params.clone());
        assert_eq!(answer.error_code(), -32602, "{params}: {answer:?}");
        assert_eq!(answer.0["error"]["data"]["code"], REFUSED, "{params}: {answer:?}");
    };
    for at in [0, 4, 20, 50, state.len() - 1] {
        let mut flipped = state.clone().into_bytes();
        flipped[at] = if flipped[at] == b'0' { b'1' } else { b'0' };
        refused(&mut ann, again(payment("INV-1"), &String::from_utf8(flipped).expect("ASCII")));
    }
    for made in ["", "hf1.", "null", &call, &state[4..], &format!("{state}{state}")] {
        refused(&mut ann, again(payment("INV-1"), made));
    }
    refused(&mut ann, json!({ "name": "bank__transfer", "arguments": payment("INV-1"), "requestState": 7 }));
    // What one agent was given is worth nothing to another, nor for another call.
    refused(&mut bob, again(payment("INV-1"), &state));
    refused(&mut ann, again(payment("INV-2"), &state));
    refused(&mut ann, again(json!({}), &state));
    let mut other_tool = again(payment("INV-1"), &state);
    other_tool["name"] = "bank__echo".into();
    refused(&mut ann, other_tool);
    // None of it made a call or changed the one there is.
    let desk = Desk::of(&served, ANA);
    assert_eq!(desk.get("/calls").json()["calls"].as_array().map(Vec::len), Some(1));
    assert_eq!(desk.call(&call)["call"]["state"], "asking");
    let waits = retry(&mut ann, "INV-1", &state);
    desk.approve(&call);
    assert!(waits.answer().succeeded());
    assert_eq!(world.ledger().len(), 1);
}

#[test]
fn what_a_client_says_is_no_decision() {
    let world = asking("20s");
    let served = world.serve();
    let desk = Desk::of(&served, ANA);
    let mut agent = Agent::modern(&served, "agent").that_can(visits());
    let first = agent.call("bank__transfer", payment("INV-1"));
    let (call, state) = (first.call(), state(&first));
    for action in ["decline", "cancel"] {
        let said = json!({ "approval": { "action": action } });
        let params = json!({ "name": "bank__transfer", "arguments": payment("INV-1"), "requestState": state, "inputResponses": said });
        let held = agent.request("tools/call", params);
        assert_eq!((kind(&held), held.code(), held.is_error()), ("complete", "held", false), "{held:?}");
        assert_eq!(held.call(), call);
    }
    let mut approving = again(payment("INV-1"), &state);
    approving["inputResponses"]["approval"]["content"] = json!({ "approve": true, "decision": "approve" });
    let waits = agent.ask_for("tools/call", approving);
    assert_eq!(desk.call(&call)["call"]["state"], "asking");
    assert_eq!(world.ledger().len(), 0);
    // A closed stream ends no hold either.
    waits.hang_up();
    assert_eq!(desk.decide(&call, "reject", json!({ "reason": "no" })).status(), 200);
    let refused = retry(&mut agent, "INV-1", &state).answer();
    assert_eq!((refused.code(), refused.is_error()), ("refused", true));
    assert_eq!(world.ledger().len(), 0);
}

#[test]
fn whoever_is_not_to_wait_gets_a_held_result_at_once() {
    let world = asking("0s");
    let served = world.serve();
    let held = Agent::modern(&served, "agent").call("bank__transfer", payment("INV-1"));
    assert_eq!((kind(&held), held.code(), held.is_error()), ("complete", "held", false), "{held:?}");
    // Forms are not pages.
    let forms = json!({ "elicitation": {} });
    let held = Agent::modern(&served, "forms").that_can(forms).call("bank__transfer", payment("INV-2"));
    assert_eq!((kind(&held), held.code()), ("complete", "held"), "{held:?}");
}

/// The addresses that the python agent's user was sent to.
fn visited(world: &World) -> Vec<Value> {
    let text = std::fs::read_to_string(world.path("visits")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn the_python_sdk_sends_its_user_to_the_inbox_and_notices_no_crash() {
    let world = asking("20s");
    let mut served = world.serve();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/surface.py");
    let mut command = world.command(&from_setup("venv/bin/python"));
    command.arg(script).arg("auto").arg(holdfast()).arg(world.path("holdfast.toml")).arg("INV-1");
    let told = std::thread::scope(|scope| {
        let ran = scope.spawn(|| Ran::within(&mut command, Duration::from_secs(120)));
        let sent = eventually_some("the user is sent to the page", || visited(&world).first().cloned());
        let call = pending_call(&Desk::of(&served, ANA));
        assert_eq!(sent, json!({ "mode": "url", "url": format!("http://{}/calls/{call}", served.inbox) }));
        served = world.serve_anew(served);
        Desk::of(&served, ANA).approve(&call);
        let ran = ran.join().expect("no panic");
        ran.ok();
        ran.json()
    });
    assert_eq!(told["protocol"], "2026-07-28", "{told}");
    assert_eq!((&told["error"], &told["meta"]["io.holdfast/state"]), (&json!(false), &json!("succeeded")));
    assert_eq!((visited(&world).len(), world.paid("INV-1")), (1, 1), "{told}");
}
