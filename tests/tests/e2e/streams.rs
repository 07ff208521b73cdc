//! Streams of legacy clients that are cut off and gone on with, by the id of the last event that was read.

use holdfast_tests::{ALLOW, Agent, World, eventually, payment};
use serde_json::{Value, json};

const ASK: &str = "[[rule]]\nid = \"payments\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n";

/// Approves the one call that waits.
fn approve(world: &World) {
    let pending = world.run(&["pending", "--json"]).json();
    let call = pending["pending"][0]["call"]["call"].as_str().expect("an id").to_owned();
    world.run(&["approve", &call]).ok();
}

#[test]
fn a_stream_that_was_cut_ends_with_its_answer() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let mut agent = Agent::legacy(&served, "agent");
    world.fault("slow=3s once");
    let mut asked = agent.ask("bank__transfer", payment("INV-1"));
    let (id, read) = (asked.id, asked.primed());
    asked.hang_up();
    let again = agent.resume(&read, id);
    assert!(again.answer().succeeded());
    assert_eq!(world.paid("INV-1"), 1);
    // As often as it is asked for, also when the call is long done.
    assert!(agent.resume(&read, id).answer().succeeded());
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn an_answer_that_came_while_nobody_listened_is_there_after_a_kill() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let mut agent = Agent::legacy(&served, "agent");
    world.fault("slow=2s once");
    let mut asked = agent.ask("bank__transfer", payment("INV-1"));
    let (id, read) = (asked.id, asked.primed());
    asked.hang_up();
    eventually("the answer is durable", || world.run(&["calls", "--json"]).ok().contains("succeeded"));
    let served = world.serve_anew(served);
    agent.move_to(&served);
    let answer = agent.resume(&read, id).answer();
    assert!(answer.succeeded());
    assert_eq!(answer.result()["_meta"]["io.holdfast/replayed"], true);
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn who_waits_for_a_person_goes_on_after_a_kill() {
    let world = World::bank(&format!("[defaults]\nhold_wait = \"60s\"\n{ASK}"));
    let served = world.serve();
    let mut agent = Agent::legacy(&served, "agent");
    let mut asked = agent.ask("bank__transfer", payment("INV-1"));
    let (id, read) = (asked.id, asked.primed());
    let served = world.serve_anew(served);
    drop(asked);
    agent.move_to(&served);
    let mut again = agent.resume(&read, id);
    approve(&world);
    assert!(again.result_of(id).succeeded());
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn a_stream_has_nothing_of_another() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let mut agent = Agent::legacy(&served, "agent");
    world.fault("slow=2500ms progress=5");
    let ask = |agent: &mut Agent, reference: &str, token: i64| {
        agent.ask_with("bank__transfer", payment(reference), json!({ "progressToken": token }))
    };
    let mut first = ask(&mut agent, "INV-1", 71);
    let mut other = ask(&mut agent, "INV-2", 72);
    let told = first.notification();
    assert_eq!(told["params"]["progressToken"], 71);
    let (id, read) = (first.id, first.last_event().to_owned());
    // What is read is not given again; what was missed is.
    let next = first.notification();
    first.hang_up();
    let mut again = agent.resume(&read, id);
    assert_eq!(again.notification(), next);
    let (messages, answer) = again.to_its_end();
    assert!(messages.iter().all(|message| message["params"]["progressToken"] == 71), "{messages:?}");
    assert_eq!(answer["id"], id);
    let steps: Vec<_> =
        messages.iter().filter_map(|message| message["params"]["progress"].as_f64()).collect();
    assert!(steps.is_sorted_by(|a, b| a < b), "{steps:?}");
    assert_eq!(other.notification()["params"]["progressToken"], 72);
    assert!(other.answer().succeeded());
    world.heal();
    assert_eq!((world.paid("INV-1"), world.paid("INV-2")), (1, 1));
}

#[test]
fn a_stream_is_its_sessions_alone() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let mut agent = Agent::legacy(&served, "agent");
    world.fault("slow=2s once");
    let mut asked = agent.ask_with("bank__transfer", payment("INV-1"), json!({ "progressToken": 1 }));
    let (id, read) = (asked.id, asked.primed());
    // Ids of events that are none of ours open the stream of announcements, as without.
    let mut announcements = agent.resume("nonsense", 0);
    assert_eq!(announcements.primed().split('.').next(), Some("s"));
    let forged = read.replace(&read[2..38], "00000000-0000-7000-8000-000000000000");
    let answer = agent.resume(&forged, id).answer();
    assert_eq!(answer.code(), "not-found");
    agent.end_session();
    assert_eq!(agent.resume(&read, id).status(), 404);
    assert!(asked.answer().succeeded());
}

#[test]
fn what_a_client_was_asked_is_asked_again_where_it_did_not_hear() {
    let world = World::bank(ASK);
    let served = world.serve();
    let mut agent = Agent::legacy_that_can(&served, "agent", json!({ "elicitation": { "url": {} } }));
    let mut asked = agent.ask("bank__transfer", payment("INV-1"));
    let (id, read) = (asked.id, asked.primed());
    let question = asked.question();
    asked.hang_up();
    let mut again = agent.resume(&read, id);
    assert_eq!(again.question(), question, "the same question, not another one");
    approve(&world);
    assert!(again.result_of(id).succeeded());
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn older_clients_get_no_events_that_they_cannot_read() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let mut agent = Agent::legacy_of(&served, "agent", "2025-06-18", json!({}));
    world.fault("slow=2500ms progress=5 once");
    let mut asked = agent.ask_with("bank__transfer", payment("INV-1"), json!({ "progressToken": "p" }));
    let told = asked.notification();
    assert_eq!(told["params"]["progressToken"], Value::from("p"));
    let (id, read) = (asked.id, asked.last_event().to_owned());
    asked.hang_up();
    assert!(agent.resume(&read, id).result_of(id).succeeded());
    assert_eq!(world.paid("INV-1"), 1);
}
