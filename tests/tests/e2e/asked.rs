//! What a server has asked outlives Holdfast: `kill -9` while the client's user thinks.

use std::fs;

use holdfast_tests::{
    Agent, Asked, Client, HttpServer, Place, Served, Speaks, World, eventually, everything,
};
use serde_json::{Value, json};

const TOOL: &str = "x__asked_effect";

/// How the server is reached, and in which era.
const SERVERS: [(&str, &str); 4] =
    [("pipes", "legacy"), ("pipes", "modern"), ("http", "legacy"), ("http", "modern")];

/// A Holdfast in front of one server whose effects are written down here.
struct Scene {
    world: World,
    _server: Option<HttpServer>,
}

impl Scene {
    fn of(server: (&str, &str)) -> Self {
        Self::with(server, "")
    }

    /// The same with more in the configuration.
    fn with((way, era): (&str, &str), more: &str) -> Self {
        let world = World::empty();
        let program = everything();
        let (config, server) = if way == "http" {
            let server = world.http_everything(&["--era", era]);
            (format!("[servers.x]\nurl = \"http://{}/mcp\"\n", server.address), Some(server))
        } else {
            let args = format!("args = [\"--era\", {era:?}, \"--dir\", \".\"]\n");
            (format!("[servers.x]\ncommand = {:?}\n{args}", program.to_str().expect("UTF-8")), None)
        };
        world.configure(&format!("{config}[defaults]\neffect = \"allow\"\nrepeat = \"never\"\n{more}"));
        Self { world, _server: server }
    }

    #[track_caller]
    fn was_done_once(&self, server: (&str, &str)) {
        assert_eq!((self.effects(), &self.call()["attempts"]), (1, &json!(1)), "{server:?}");
    }

    fn effects(&self) -> usize {
        fs::read_to_string(self.world.path("effects")).map_or(0, |text| text.lines().count())
    }

    fn call(&self) -> Value {
        let calls = self.world.run(&["calls", "--json"]).json();
        let [call] = calls["calls"].as_array().expect("a list").as_slice() else { panic!("{calls}") };
        call.clone()
    }
}

fn forms() -> Value {
    json!({ "elicitation": { "form": {} } })
}

fn effect() -> Value {
    json!({ "reference": "E-1" })
}

fn confirmed() -> Value {
    json!({ "action": "accept", "content": { "ok": true } })
}

/// What a modern client sends to go on.
fn retry(asked: &Value, arguments: &Value) -> Value {
    json!({
        "name": TOOL,
        "arguments": arguments,
        "requestState": asked["requestState"],
        "inputResponses": { (name_of(asked)): confirmed() },
    })
}

fn name_of(asked: &Value) -> &str {
    let (name, question) =
        asked["inputRequests"].as_object().and_then(|asks| asks.iter().next()).expect("it asks one thing");
    assert_eq!(question["method"], "elicitation/create", "{asked}");
    name
}

#[test]
fn a_modern_agent_that_was_asked_before_a_crash_answers_after_it() {
    for server in SERVERS {
        let scene = Scene::of(server);
        let served = scene.world.serve();
        let mut agent = Agent::modern(&served, "agent").that_can(forms());
        let asked = agent.call(TOOL, effect());
        assert_eq!(asked.result()["resultType"], "input_required", "{server:?}: {asked:?}");
        let served = scene.world.serve_after_crash(served);
        agent.move_to(&served);
        let answer = agent.request("tools/call", retry(asked.result(), &effect()));
        assert_eq!(answer.text(), "done: E-1", "{server:?}: {answer:?}");
        scene.was_done_once(server);
    }
}

#[test]
fn an_agent_that_repeats_its_call_after_a_crash_is_asked_again() {
    for server in SERVERS {
        let scene = Scene::of(server);
        let served = scene.world.serve();
        let mut agent = Agent::modern(&served, "agent").that_can(forms());
        let asked = agent.call(TOOL, effect());
        assert_eq!(asked.result()["resultType"], "input_required", "{server:?}: {asked:?}");
        drop(agent);
        let mut served = served;
        // More than one crash changes nothing.
        for _ in 0..2 {
            served = scene.world.serve_after_crash(served);
        }
        let mut agent = Agent::modern(&served, "agent").that_can(forms());
        let again = agent.call(TOOL, effect());
        assert_eq!(again.result()["inputRequests"], asked.result()["inputRequests"], "{server:?}: {again:?}");
        let answer = agent.request("tools/call", retry(again.result(), &effect()));
        assert_eq!(answer.text(), "done: E-1", "{server:?}: {answer:?}");
        scene.was_done_once(server);
    }
}

fn question(asked: &mut Asked, server: (&str, &str)) -> Value {
    let question = asked.question();
    assert_eq!(question["method"], "elicitation/create", "{server:?}: {question}");
    question
}

/// What a legacy agent is asked before and after a crash, and the request that waits for its answer.
fn asked_over_a_crash(
    scene: &Scene,
    served: Served,
    agent: &mut Agent,
    server: (&str, &str),
) -> (Served, Value, Value, Asked) {
    let mut lost = agent.ask(TOOL, effect());
    let before = question(&mut lost, server);
    let served = scene.world.serve_after_crash(served);
    drop(lost);
    agent.move_to(&served);
    let mut again = agent.ask(TOOL, effect());
    let after = question(&mut again, server);
    (served, before, after, again)
}

#[test]
fn a_legacy_agent_is_asked_again_and_either_answer_counts() {
    for server in SERVERS {
        for answers_to in ["the question before the crash", "the question after it"] {
            let scene = Scene::of(server);
            let served = scene.world.serve();
            let mut agent = Agent::legacy_that_can(&served, "agent", forms());
            let (_served, before, after, again) = asked_over_a_crash(&scene, served, &mut agent, server);
            assert_eq!(before["params"], after["params"], "{server:?}");
            let meant = if answers_to.ends_with("after it") { &after } else { &before };
            agent.reply(&meant["id"], confirmed());
            let answer = again.answer();
            assert_eq!(answer.text(), "done: E-1", "{server:?}, {answers_to}: {answer:?}");
            scene.was_done_once(server);
        }
    }
}

/// Killed when the answer was passed on: by then the server may be at work, and what it does is not done twice. A modern
/// server by HTTP forgets what it would have said to a broken stream.
#[test]
fn what_was_answered_is_not_asked_again() {
    for server in SERVERS {
        let scene = Scene::of(server);
        let served = scene.world.serve();
        // For the answer that is lost nobody waits.
        let ms = if server == ("http", "modern") { 60_000 } else { 1_500 };
        let arguments = json!({ "reference": "E-1", "ms": ms });
        let mut agent = Agent::modern(&served, "agent").that_can(forms());
        let asked = agent.call(TOOL, arguments.clone());
        let going = agent.ask_for("tools/call", retry(asked.result(), &arguments));
        eventually("it is done", || scene.effects() == 1);
        let served = scene.world.serve_after_crash(served);
        drop(going);
        let mut agent = Agent::modern(&served, "agent").that_can(forms());
        let mut answer = agent.call(TOOL, arguments.clone());
        // Killed before it was noted that a request of the server's own was answered: to answer that twice does no harm.
        if answer.result()["resultType"] == "input_required" && server.1 == "legacy" {
            answer = agent.request("tools/call", retry(answer.result(), &arguments));
        }
        if server == ("http", "modern") {
            assert_eq!(answer.code(), "outcome-unknown", "{server:?}: {answer:?}");
        } else {
            assert_eq!(answer.text(), "done: E-1", "{server:?}: {answer:?}");
        }
        scene.was_done_once(server);
    }
}

#[test]
fn an_approved_call_may_be_asked_about_and_is_not_approved_twice() {
    for server in SERVERS {
        let ask = "hold_wait = \"0s\"\n[[rule]]\nid = \"ask\"\neffect = \"ask\"\nserver = \"x\"\ntool = \"asked_effect\"\n";
        let scene = Scene::with(server, ask);
        let served = scene.world.serve();
        let mut agent = Agent::legacy_that_can(&served, "agent", forms());
        let held = agent.call(TOOL, effect());
        scene.world.run(&["approve", &held.call()]).ok();
        let (_served, _, asked, again) = asked_over_a_crash(&scene, served, &mut agent, server);
        agent.reply(&asked["id"], confirmed());
        assert_eq!(again.answer().text(), "done: E-1", "{server:?}");
        scene.was_done_once(server);
    }
}

#[test]
fn behind_a_bridge_the_agent_is_asked_again() {
    for server in SERVERS {
        let scene = Scene::of(server);
        let served = scene.world.serve();
        let mut client = Client::connect(Place::Stdio(&mut scene.world.stdio()), Speaks::Legacy, forms());
        let params = json!({ "name": TOOL, "arguments": effect() });
        let id = client.ask("tools/call", params.clone());
        let before = client.wait_for(|message| message["method"] == "elicitation/create");
        let served = scene.world.serve_after_crash(served);
        let after = client.wait_for(|message| message["method"] == "elicitation/create");
        assert_eq!(before, after, "{server:?}");
        client.respond(&before["id"], confirmed());
        let answer = client.finish(id, "tools/call", params);
        assert_eq!(answer.words(), "done: E-1", "{server:?}");
        scene.was_done_once(server);
        drop(served);
    }
}
