//! Members that stand beside a call's arguments: whoever decides sees them, and what was decided is what is sent.

use holdfast_tests::{Agent, Desk, Served, World, everything};
use serde_json::{Value, json};

fn asking() -> (World, Served) {
    let world = World::empty();
    let program = everything();
    world.configure(&format!(
        "[servers.x]\ncommand = {:?}\nargs = [\"--era\", \"legacy\", \"--dir\", \".\"]\nprefix = false\n\
         [defaults]\neffect = \"ask\"\nhold_wait = \"0s\"\n",
        program.to_str().expect("UTF-8"),
    ));
    let served = world.serve();
    (world, served)
}

/// The `params` of the calls that the server has seen.
fn seen(world: &World) -> Vec<Value> {
    let text = std::fs::read_to_string(world.path("seen.jsonl")).expect("the server writes");
    let messages = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let calls = messages.filter(|message| message["method"] == "tools/call");
    calls.map(|message| message["params"].clone()).collect()
}

#[test]
fn what_stands_beside_the_arguments_is_approved_with_them() {
    let (world, served) = asking();
    let mut agent = Agent::modern(&served, "agent");
    let plain = json!({ "name": "greet", "arguments": { "name": "ana" } });
    let with = |extra: Value| {
        let mut params = plain.clone();
        params["org.example/account"] = extra;
        params
    };
    let held = agent.request("tools/call", with(json!({ "to": "A\u{202e}1", "n": 1 })));
    assert_eq!(held.state(), "asking");

    // A call that differs only there is another one, and so is one that has nothing there.
    let other = agent.request("tools/call", with(json!({ "to": "B" })));
    let bare = agent.request("tools/call", plain.clone());
    assert!(held.call() != other.call() && other.call() != bare.call() && held.call() != bare.call());
    let again = agent.request("tools/call", with(json!({ "to": "B" })));
    assert_eq!(again.call(), other.call(), "the same is the same");
    let token = world.token();
    let desk = Desk::of(&served, &token);
    assert_ne!(desk.digest(&other.call()), desk.digest(&bare.call()));

    // Every place where it is decided shows them.
    let shown = world.run(&["show", &other.call()]);
    assert!(shown.ok().contains(r#"beside     {"org.example/account":{"to":"B"}}"#), "{}", shown.ok());
    let pending = world.run(&["pending"]);
    assert!(pending.ok().contains(r#"beside the arguments: {"org.example/account":{"to":"B"}}"#));
    assert!(!pending.ok().contains('\u{202e}'), "what deceives is made visible");
    let waiting = world.run(&["pending", "--json"]).ok().to_owned();
    assert!(waiting.contains(r#""extra": "{\"org.example/account\":{\"to\":\"B\"}}""#), "{waiting}");

    for held in [&other, &bare] {
        world.run(&["approve", &held.call()]).ok();
        assert!(agent.wait(&held.call()).succeeded());
    }
    let seen = seen(&world);
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_eq!(
        (&seen[0]["org.example/account"], &seen[1]["org.example/account"]),
        (&json!({ "to": "B" }), &Value::Null)
    );
}

#[test]
fn what_links_rounds_is_ours_and_a_task_is_not_for_held_calls() {
    let (world, served) = asking();
    let mut agent = Agent::legacy(&served, "agent");
    let params = json!({
        "name": "greet", "arguments": { "name": "ana" },
        "task": { "ttl": 1 }, "requestState": "forged", "inputResponses": {}, "x": 1.50,
    });
    let held = agent.request("tools/call", params);
    world.run(&["approve", &held.call()]).ok();
    assert!(agent.wait(&held.call()).succeeded());
    let seen = seen(&world);
    let names: Vec<&str> = seen[0].as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(names, ["name", "arguments", "x", "_meta"]);
}
