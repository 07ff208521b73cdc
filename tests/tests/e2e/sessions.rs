//! Legacy sessions: they outlive the process that made them, and end when their clients say so.

use holdfast_tests::{ALLOW, Agent, World, payment};
use serde_json::json;

#[test]
fn a_session_goes_on_after_a_kill() {
    let world = World::bank(ALLOW);
    let mut served = world.serve();
    let mut agent = Agent::legacy(&served, "agent");
    assert!(agent.call("bank__transfer", payment("INV-1")).succeeded());
    for round in 2..5 {
        served = world.serve_anew(served);
        agent.move_to(&served);
        let mut stream = agent.listen();
        let told = stream.notification();
        assert_eq!(
            told["method"], "notifications/tools/list_changed",
            "what changed meanwhile nobody has said"
        );
        assert!(agent.tools().contains(&"bank__transfer".to_owned()));
        assert!(agent.call("bank__transfer", payment(&format!("INV-{round}"))).succeeded());
        assert_eq!(world.paid(&format!("INV-{round}")), 1);
    }
    // The same call on the same session is the same call, whichever process it came to.
    assert!(agent.call("bank__transfer", payment("INV-1")).succeeded());
}

#[test]
fn a_call_that_was_held_is_collected_on_the_session_that_made_it() {
    let ask = "[defaults]\nhold_wait = \"0s\"\n[[rule]]\nid = \"payments\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n";
    let world = World::bank(ask);
    let served = world.serve();
    let mut agent = Agent::legacy(&served, "agent");
    let held = agent.call("bank__transfer", payment("INV-1"));
    let served = world.serve_anew(served);
    agent.move_to(&served);
    world.run(&["approve", &held.call()]).ok();
    assert!(agent.wait(&held.call()).succeeded());
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn what_a_client_declared_is_known_to_the_next_process() {
    let ask = "[[rule]]\nid = \"payments\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n";
    let world = World::bank(ask);
    let served = world.serve();
    let mut agent = Agent::legacy_that_can(&served, "agent", json!({ "elicitation": { "url": {} } }));
    let served = world.serve_anew(served);
    agent.move_to(&served);
    let mut asked = agent.ask("bank__transfer", payment("INV-1"));
    let question = asked.question();
    assert_eq!(question["method"], "elicitation/create");
    agent.reply(&question["id"], json!({ "action": "decline" }));
    assert_eq!(asked.answer().code(), "held");
}

#[test]
fn a_session_that_was_ended_stays_ended() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let mut agent = Agent::legacy(&served, "agent");
    agent.end_session();
    let served = world.serve_anew(served);
    agent.move_to(&served);
    assert_eq!(agent.ask_for("tools/list", json!({})).status(), 404);
    assert_eq!(agent.listen().status(), 404);
}

#[test]
fn an_orderly_restart_keeps_sessions_too() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let mut agent = Agent::legacy(&served, "agent");
    served.stop();
    let served = world.serve();
    agent.move_to(&served);
    assert!(agent.call("bank__transfer", payment("INV-1")).succeeded());
}
