//! Servers that do what they must not, and connections that break: nobody waits in vain, no effect is lost or doubled.

use std::fs;

use holdfast_tests::{Agent, Answer, Client, HttpServer, Place, Served, Speaks, World, eventually};
use serde_json::{Value, json};

use super::{SIDES, configuration, upstream};

/// Holdfast in front of a server, and an agent.
struct Stage {
    agent: Agent,
    served: Served,
    alive: Option<HttpServer>,
    world: World,
}

/// Tells a story in front of a server of each kind.
fn before_each(story: fn(Stage)) {
    for up in SIDES {
        println!("before {up:?}");
        let world = World::empty();
        let (server, alive) = upstream(&world, up);
        world.configure(&configuration(&server));
        let served = world.serve();
        let agent = Agent::modern(&served, "agent");
        story(Stage { agent, served, alive, world });
    }
}

impl Stage {
    /// Calls `misbehave`.
    fn misbehave(&mut self, how: &str) -> Answer {
        self.agent.call("misbehave", json!({ "how": how, "reference": how }))
    }

    /// Whether the server is well, to a caller that has not been told before.
    #[track_caller]
    fn is_well(&mut self, mark: &str) {
        let answer = self.agent.call("greet", json!({ "name": mark }));
        assert!(answer.succeeded(), "{answer:?}");
        assert_eq!(answer.text(), format!("Hello, {mark}!"));
    }

    /// The effects that were made, in order.
    fn effects(&self) -> Vec<String> {
        let text = fs::read_to_string(self.world.path("effects")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Whether the server has noticed this.
    fn was_seen(&mut self, what: &Value) -> bool {
        // Each look is a call of its own, not the last one's answer again.
        let mark = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos().to_string();
        let seen = self.agent.call("what_was_seen", json!({ "trial": mark }));
        seen.text().contains(&what.to_string())
    }
}

#[test]
fn who_answers_twice_is_heard_once() {
    before_each(|mut stage| {
        let answer = stage.misbehave("twice");
        assert!(["first", "misbehaved"].contains(&answer.text()), "{answer:?}");
        stage.is_well("after the second answer");
    });
}

#[test]
fn garbage_is_passed_over() {
    before_each(|mut stage| {
        assert_eq!(stage.misbehave("garbage").text(), "misbehaved");
        stage.is_well("after the garbage");
    });
}

#[test]
fn an_answer_that_nobody_asked_for_reaches_nobody() {
    before_each(|mut stage| {
        assert_eq!(stage.misbehave("stranger").text(), "misbehaved");
        stage.is_well("after the stranger");
    });
}

#[test]
fn a_connection_that_closes_after_the_effect_is_no_reason_for_a_second() {
    before_each(|mut stage| {
        for how in ["effect-close", "effect-die"] {
            if how == "effect-die" && stage.alive.is_some() {
                // Nobody would start that one again.
                continue;
            }
            let answer = stage.misbehave(how);
            assert!(!answer.succeeded(), "{answer:?}");
            assert_eq!(answer.code(), "outcome-unknown", "{answer:?}");
            // The same call again is the same call: it is not made again.
            let again = stage.misbehave(how);
            assert!(!again.succeeded(), "{again:?}");
            assert_eq!(stage.effects().iter().filter(|effect| *effect == how).count(), 1);
            stage.is_well(how);
        }
    });
}

#[test]
fn content_of_an_unknown_type_arrives_as_it_is() {
    before_each(|mut stage| {
        let answer = stage.misbehave("unknown-content");
        let block = json!({ "type": "hologram", "rays": [1.50, { "deep": null }], "text": 7 });
        assert_eq!(answer.result()["content"], json!([block]));
        assert_eq!(answer.result()["x-more"], true);
    });
}

#[test]
fn a_result_that_is_no_object_is_no_reason_for_silence() {
    before_each(|mut stage| {
        // What it means is for the client to say.
        assert_eq!(stage.misbehave("not-an-object").0["result"], json!([1, 2]));
        stage.is_well("after the list");
    });
}

#[test]
fn a_reader_that_goes_away_holds_up_nobody() {
    before_each(|mut stage| {
        for era in ["modern", "legacy"] {
            let mut reader = match era {
                "modern" => Agent::modern(&stage.served, "reader"),
                _ => Agent::legacy(&stage.served, "reader"),
            };
            let id = format!("slow-{}", if era == "modern" { 20_001 } else { 700 });
            let uri = format!("test://template/{id}/data");
            let read = reader.ask_for("resources/read", json!({ "uri": uri }));
            eventually("the server reads", || stage.was_seen(&json!({ "reads": id })));
            read.hang_up();
            stage.is_well(era);
            if era == "modern" {
                // There to close the stream is to take the request back.
                eventually("the server was told", || stage.was_seen(&json!({ "stopped reading": id })));
            }
            let next = reader.request("resources/read", json!({ "uri": "test://static-text" }));
            assert!(next.result()["contents"][0]["text"].is_string(), "{next:?}");
        }
    });
}

#[test]
fn a_client_on_pipes_that_dies_takes_its_reading_along() {
    before_each(|mut stage| {
        for speaks in [Speaks::Legacy, Speaks::Modern] {
            let mut reader = Client::connect(Place::Stdio(&mut stage.world.stdio()), speaks, json!({}));
            let id = format!("slow-{}", if speaks == Speaks::Modern { 20_002 } else { 20_003 });
            reader.ask("resources/read", json!({ "uri": format!("test://template/{id}/data") }));
            eventually("the server reads", || stage.was_seen(&json!({ "reads": id })));
            drop(reader);
            eventually("the server was told", || stage.was_seen(&json!({ "stopped reading": id })));
        }
        stage.is_well("after both");
    });
}

#[test]
fn clients_of_both_eras_go_on_after_a_kill() {
    before_each(|mut stage| {
        let mut agents = [Agent::modern(&stage.served, "modern"), Agent::legacy(&stage.served, "legacy")];
        for round in 0..3 {
            for (name, agent) in ["modern", "legacy"].into_iter().zip(&mut agents) {
                let read = agent.request("resources/read", json!({ "uri": "test://static-text" }));
                assert!(read.result()["contents"][0]["text"].is_string(), "{read:?}");
                let prompt = agent.request("prompts/get", json!({ "name": "test_simple_prompt" }));
                assert!(prompt.result()["messages"].is_array(), "{prompt:?}");
                let reference = format!("{name} {round}");
                let answer = agent.call("effect", json!({ "reference": reference }));
                assert_eq!(answer.text(), format!("done: {reference}"));
            }
            restart(&mut stage);
            agents.iter_mut().for_each(|agent| agent.move_to(&stage.served));
        }
        let effects = ["modern 0", "legacy 0", "modern 1", "legacy 1", "modern 2", "legacy 2"];
        assert_eq!(stage.effects(), effects);
        assert!(stage.served.stop().success());
        let ours = usize::from(stage.alive.is_some());
        eventually("no server of an earlier process is left", || stage.world.processes().len() == ours);
    });
}

/// Kills Holdfast and starts it anew.
fn restart(stage: &mut Stage) {
    let process = stage.served.pid();
    holdfast_tests::end_process(process);
    eventually("it is gone", || !stage.world.processes().contains(&process));
    stage.served = stage.world.serve();
}
