//! `tasks = "use"`: a server makes tasks of calls whose agents know none, Holdfast waits for them, and no kill loses one.

use std::fs;

use holdfast_tests::{ALLOW, Agent, Client, HttpServer, Place, Speaks, World, eventually, everything};
use serde_json::{Value, json};

/// A world with a modern server that can make tasks, by HTTP or as a process.
fn worlds(settings: &str) -> [(World, Option<HttpServer>); 2] {
    let by_http = World::empty();
    let server = by_http.http_everything(&["--era", "modern"]);
    let url = format!("http://{}/mcp", server.address);
    by_http.configure(&format!("[servers.x]\nurl = {url:?}\n{settings}{ALLOW}"));
    let on_pipes = World::empty();
    let program = everything();
    let program = program.to_str().expect("UTF-8");
    let args = "args = [\"--era\", \"modern\", \"--dir\", \".\"]\n";
    on_pipes.configure(&format!("[servers.x]\ncommand = {program:?}\n{args}{settings}{ALLOW}"));
    [(by_http, Some(server)), (on_pipes, None)]
}

/// How often the server was sent this.
fn seen(world: &World, method: &str) -> usize {
    let text = fs::read_to_string(world.path("seen.jsonl")).unwrap_or_default();
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages.filter(|message| message["method"] == method).count()
}

fn only_call(world: &World) -> Value {
    let calls = world.run(&["calls", "--json"]).json();
    let [call] = calls["calls"].as_array().expect("a list").as_slice() else { panic!("{calls}") };
    call.clone()
}

#[test]
fn agents_that_know_no_tasks_get_the_answer() {
    for (world, _server) in worlds("tasks = \"use\"\n") {
        let served = world.serve();
        for mut agent in [Agent::modern(&served, "new"), Agent::legacy(&served, "old")] {
            let answer = agent.call("x__slow_compute", json!({ "seconds": 0.3 }));
            assert_eq!(answer.text(), "computed for 0.3 s", "{answer:?}");
            // What the server does only as a task.
            let failed = agent.call("x__failing_job", json!({}));
            assert_eq!(failed.text(), "the job failed", "{failed:?}");
        }
        assert!(seen(&world, "tasks/get") >= 4);
    }
}

#[test]
fn without_the_setting_nothing_becomes_a_task() {
    for (world, _server) in worlds("") {
        let served = world.serve();
        let answer = Agent::modern(&served, "agent").call("x__slow_compute", json!({ "seconds": 0.3 }));
        assert_eq!(answer.text(), "computed for 0.3 s", "{answer:?}");
        assert_eq!(seen(&world, "tasks/get"), 0);
    }
}

#[test]
fn killed_while_it_waits_for_a_task_the_answer_arrives_at_the_re_issue() {
    for (world, _server) in worlds("tasks = \"use\"\n") {
        let served = world.serve();
        let compute = json!({ "seconds": 3 });
        let lost = Agent::modern(&served, "agent").ask("x__slow_compute", compute.clone());
        eventually("the task is asked for", || seen(&world, "tasks/get") > 0);
        served.crash();
        drop(lost);
        // And again, before it can have done much.
        world.serve().crash();
        let served = world.serve();
        let answer = Agent::modern(&served, "agent").call("x__slow_compute", compute);
        assert_eq!(answer.text(), "computed for 3 s", "{answer:?}");
        assert_eq!(seen(&world, "tools/call"), 1);
        let call = only_call(&world);
        assert_eq!((&call["state"], &call["attempts"]), (&json!("succeeded"), &json!(1)), "{call}");
    }
}

#[test]
fn what_a_task_asks_reaches_the_agent() {
    for (world, _server) in worlds("tasks = \"use\"\n") {
        let served = world.serve();
        for speaks in [Speaks::Modern, Speaks::Legacy] {
            let can = json!({ "elicitation": { "form": {} } });
            let mut client = Client::connect(Place::Http(&served.mcp), speaks, can);
            client.reply_with(
                "elicitation/create",
                json!({ "action": "accept", "content": { "confirm": true } }),
            );
            let exchange = client.call("x__confirm_delete", json!({ "filename": format!("{speaks:?}") }));
            assert!(exchange.words().contains("\"confirm\":true"), "{exchange:?}");
        }
        assert_eq!(seen(&world, "tasks/update"), 2);
    }
}

#[test]
fn a_cancelled_call_cancels_its_task() {
    for (world, _server) in worlds("tasks = \"use\"\n") {
        let served = world.serve();
        let mut client = Client::connect(Place::Http(&served.mcp), Speaks::Legacy, json!({}));
        let call = json!({ "name": "x__slow_compute", "arguments": { "seconds": 60 } });
        let id = client.ask("tools/call", call);
        eventually("the task is asked for", || seen(&world, "tasks/get") > 0);
        client.cancel(id);
        eventually("the server is told", || seen(&world, "tasks/cancel") == 1);
        eventually("it is in doubt", || only_call(&world)["state"] == "in-doubt");
    }
}

#[test]
fn tasks_of_2025_are_passed_on() {
    let world = World::empty();
    let server = world.http_everything(&["--era", "legacy"]);
    world.configure(&format!("[servers.x]\nurl = \"http://{}/mcp\"\n{ALLOW}", server.address));
    let served = world.serve();
    let connect = || Client::connect(Place::Http(&served.mcp), Speaks::Legacy, json!({}));
    // From then on it is known what the server can do.
    assert_eq!(connect().call("x__greet", json!({ "name": "ana" })).words(), "Hello, ana!");
    let mut client = connect();
    let offered = json!({ "requests": { "tools": { "call": {} } }, "cancel": {} });
    assert_eq!(client.hello["capabilities"]["tasks"], offered);

    let compute = |seconds: f64| {
        let (name, arguments) = ("x__slow_compute", json!({ "seconds": seconds }));
        json!({ "name": name, "arguments": arguments, "task": { "ttl": 60_000 } })
    };
    let created = client.request("tools/call", compute(0.5));
    let task = &created.result()["task"];
    assert_eq!((&task["status"], &task["ttl"]), (&json!("working"), &json!(600_000)), "{created:?}");
    let id = task["taskId"].as_str().expect("an id");
    assert!(id.starts_with("x~"), "{id}");
    let about = json!({ "taskId": id });
    assert_eq!(client.request("tasks/get", about.clone()).result()["taskId"], id);
    let result = client.request("tasks/result", about.clone());
    assert_eq!(result.words(), "computed for 0.5 s", "{result:?}");
    assert_eq!(result.result()["_meta"]["io.modelcontextprotocol/related-task"]["taskId"], id);
    assert_eq!(client.request("tasks/get", about).result()["status"], "completed");

    // It outlives a kill: the session with its server goes on, and the same request gets the same task.
    let long = client.request("tools/call", compute(60.0));
    let id = long.result()["task"]["taskId"].clone();
    served.crash();
    let served = world.serve();
    let mut client = Client::connect(Place::Http(&served.mcp), Speaks::Legacy, json!({}));
    assert_eq!(client.request("tools/call", compute(60.0)).result()["task"]["taskId"], id);
    assert_eq!(client.request("tasks/get", json!({ "taskId": id })).result()["status"], "working");
    assert_eq!(client.request("tasks/cancel", json!({ "taskId": id })).result()["status"], "cancelled");
    assert_eq!(client.request("tasks/list", json!({})).answer["error"]["code"], -32601);
    assert_eq!(seen(&world, "tools/call"), 3);
}
