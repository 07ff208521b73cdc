//! The answer outlives the proxy, by HTTP: `kill -9` of Holdfast while a legacy server works, and the next one asks it for
//! the answer by session and last event.

use std::fs;

use holdfast_tests::{ALLOW, Agent, HttpServer, Served, World, eventually, from_setup};
use serde_json::{Value, json};

/// A world with a server by HTTP that begins each answer with an event, and an effect that is made and not told yet.
struct Stage {
    world: World,
    server: Option<HttpServer>,
}

impl Stage {
    fn new(settings: &str) -> Stage {
        let world = World::empty();
        let server = world.http_everything(&["--era", "legacy"]);
        Self::before(world, server, settings)
    }

    fn before(world: World, server: HttpServer, settings: &str) -> Stage {
        let url = format!("http://{}/mcp", server.address);
        world.configure(&format!("[servers.x]\nurl = {url:?}\n{ALLOW}{settings}"));
        Stage { world, server: Some(server) }
    }

    /// How often this effect was made.
    fn made(&self, reference: &str) -> usize {
        let text = fs::read_to_string(self.world.path("effects")).unwrap_or_default();
        text.lines().filter(|line| *line == reference).count()
    }

    /// Kills Holdfast when the effect was made and is to be told `ms` later.
    fn killed_after(&self, served: Served, reference: &str, ms: u64) {
        let lost = Agent::legacy(&served, "agent").ask("x__effect", slow(reference, ms));
        eventually("the effect is made", || self.made(reference) == 1);
        self.noted();
        served.crash();
        drop(lost);
    }

    /// The server's answer has begun, and Holdfast knows by what it can ask for the rest.
    fn noted(&self) {
        let noted = || fs::read_to_string(self.world.path("holdfast.redb.threads")).unwrap_or_default();
        eventually("the place in the stream is noted", || noted().contains("\"at\""));
    }

    /// What Holdfast posted to the server, by method.
    fn posted(&self, method: &str) -> usize {
        let text = fs::read_to_string(self.world.path("seen.jsonl")).unwrap_or_default();
        let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        messages.filter(|message| message["method"] == method).count()
    }

    fn only_call(&self) -> Value {
        let calls = self.world.run(&["calls", "--json"]).json();
        let [call] = calls["calls"].as_array().expect("a list").as_slice() else { panic!("{calls}") };
        call.clone()
    }
}

fn slow(reference: &str, ms: u64) -> Value {
    json!({ "reference": reference, "ms": ms })
}

#[test]
fn killed_in_mid_call_the_answer_arrives_at_the_re_issue() {
    let stage = Stage::new("");
    stage.killed_after(stage.world.serve(), "one", 1_500);
    let served = stage.world.serve();
    let answer = Agent::legacy(&served, "agent").call("x__effect", slow("one", 1_500));
    assert_eq!(answer.text(), "done: one", "{answer:?}");
    assert_eq!((stage.made("one"), stage.posted("tools/call")), (1, 1));
    let call = stage.only_call();
    assert_eq!((&call["state"], &call["attempts"]), (&json!("succeeded"), &json!(1)), "{call}");
    // The session goes on, too.
    assert!(Agent::legacy(&served, "other").call("x__effect", json!({ "reference": "two" })).succeeded());
    assert_eq!(stage.posted("initialize"), 1);
    assert!(served.stop().success());
    stage.world.run(&["verify"]).ok();
}

#[test]
fn an_answer_that_came_while_nobody_served_is_found() {
    let stage = Stage::new("");
    stage.killed_after(stage.world.serve(), "one", 300);
    // Killed again before it can have done much, and again.
    for _ in 0..3 {
        stage.world.serve().crash();
    }
    let served = stage.world.serve();
    let answer = Agent::legacy(&served, "agent").call("x__effect", slow("one", 300));
    assert_eq!(answer.text(), "done: one", "{answer:?}");
    assert_eq!((stage.made("one"), stage.posted("tools/call")), (1, 1));
}

#[test]
fn a_server_that_was_started_again_leaves_the_call_in_doubt() {
    let mut stage = Stage::new("");
    stage.killed_after(stage.world.serve(), "one", 60_000);
    let address = stage.server.take().map(|server| {
        let address = server.address.clone();
        server.kill();
        address
    });
    let again = address.expect("it was there");
    let _server = stage.world.http_everything_at(&again, &["--era", "legacy"]);
    let served = stage.world.serve();
    let answer = Agent::legacy(&served, "agent").call("x__effect", slow("one", 60_000));
    assert_eq!(answer.code(), "outcome-unknown", "{answer:?}");
    assert_eq!(stage.made("one"), 1);
    // There is a new session for what comes next.
    assert!(Agent::legacy(&served, "other").call("x__effect", json!({ "reference": "two" })).succeeded());
}

#[test]
fn what_takes_too_long_is_in_doubt_and_its_late_answer_counts() {
    let stage = Stage::new("attempt_timeout = \"2s\"\n");
    stage.killed_after(stage.world.serve(), "one", 12_000);
    let served = stage.world.serve();
    let mut agent = Agent::legacy(&served, "agent");
    let answer = agent.call("x__effect", slow("one", 12_000));
    assert_eq!(answer.code(), "outcome-unknown", "{answer:?}");
    eventually("the late answer is recorded", || stage.only_call()["state"] == "succeeded");
    assert_eq!(agent.call("x__effect", slow("one", 12_000)).text(), "done: one");
    assert_eq!((stage.made("one"), stage.posted("tools/call")), (1, 1));
}

#[test]
fn stopped_in_an_orderly_way_the_call_goes_on_after_the_next_start() {
    let stage = Stage::new("");
    let served = stage.world.serve();
    let lost = Agent::legacy(&served, "agent").ask("x__effect", slow("one", 15_000));
    eventually("the effect is made", || stage.made("one") == 1);
    stage.noted();
    assert!(served.stop().success());
    drop(lost);
    let served = stage.world.serve();
    let answer = Agent::legacy(&served, "agent").call("x__effect", slow("one", 15_000));
    assert_eq!(answer.text(), "done: one", "{answer:?}");
    assert_eq!((stage.made("one"), stage.posted("tools/call")), (1, 1));
}

#[test]
fn a_server_on_the_official_sdk_is_asked_again() {
    let world = World::empty();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/resumable.py");
    let server = HttpServer::start(world.command(&from_setup("venv/bin/python")).args([script, "."]));
    let stage = Stage::before(world, server, "");
    let served = stage.world.serve();
    let lost = Agent::legacy(&served, "agent").ask("x__effect", json!({ "reference": "one" }));
    eventually("the effect is made", || stage.made("one") == 1);
    stage.noted();
    served.crash();
    drop(lost);
    let served = stage.world.serve();
    let answer = Agent::legacy(&served, "agent").call("x__effect", json!({ "reference": "one" }));
    assert_eq!(answer.text(), "done: one", "{answer:?}");
    assert_eq!(stage.made("one"), 1);
    let call = stage.only_call();
    assert_eq!((&call["state"], &call["attempts"]), (&json!("succeeded"), &json!(1)), "{call}");
}
