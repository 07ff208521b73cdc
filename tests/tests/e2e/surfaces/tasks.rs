//! The Tasks extension: a held call as a task that outlives everybody.

use holdfast_tests::{Agent, Answer, Desk, World, eventually_some, payment};
use serde_json::{Value, json};

use super::{ANA, OPERATOR, asking, asking_with, kind, visits};

/// What clients declare that know tasks.
fn knows_tasks() -> Value {
    json!({ "extensions": { "io.modelcontextprotocol/tasks": {} } })
}

/// Makes a call, which must become a task; gives its id.
#[track_caller]
fn task(agent: &mut Agent, tool: &str, arguments: Value) -> String {
    let answer = agent.call(tool, arguments);
    let task = answer.result();
    assert_eq!((kind(&answer), &task["status"]), ("task", &json!("working")), "{answer:?}");
    let id = task["taskId"].as_str().expect("an id").to_owned();
    assert_eq!(answer.call(), id);
    id
}

fn ask(agent: &mut Agent, verb: &str, task: &str) -> Answer {
    let mut params = json!({ "taskId": task });
    if verb == "update" {
        params["inputResponses"] = json!({ "approval": { "action": "accept" } });
    }
    agent.request(&format!("tasks/{verb}"), params)
}

/// Asks until the task has this status.
fn until(agent: &mut Agent, status: &str, task: &str) -> Answer {
    eventually_some(&format!("the task is {status}"), || {
        let answer = ask(agent, "get", task);
        assert_eq!(kind(&answer), "complete", "{answer:?}");
        assert_eq!(answer.result()["taskId"], task);
        (answer.result()["status"] == status).then_some(answer)
    })
}

#[test]
fn a_held_call_is_a_task_until_it_is_done() {
    let world = asking("20s");
    let served = world.serve();
    let desk = Desk::of(&served, ANA);
    // Who can do both gets the one that needs no open connection.
    let mut can = knows_tasks();
    can["elicitation"] = visits()["elicitation"].clone();
    let mut agent = Agent::modern(&served, "agent").that_can(can);
    let found = agent.request("server/discover", json!({}));
    assert!(found.result()["capabilities"]["extensions"]["io.modelcontextprotocol/tasks"].is_object());
    let id = task(&mut agent, "bank__transfer", payment("INV-1"));
    let working = ask(&mut agent, "get", &id);
    let shown = working.result();
    assert_eq!(
        (kind(&working), &shown["status"], &shown["ttlMs"]),
        ("complete", &json!("working"), &Value::Null)
    );
    assert!(shown["createdAt"].as_str().is_some_and(|at| at.ends_with('Z')), "{shown}");
    assert!(shown["statusMessage"].as_str().is_some_and(|words| words.contains("approval")), "{shown}");
    assert_eq!(shown.get("result"), None);
    // What a client says to a task is no decision, and the identical call is the same task.
    assert_eq!(kind(&ask(&mut agent, "update", &id)), "complete");
    assert_eq!(task(&mut agent, "bank__transfer", payment("INV-1")), id);
    assert_eq!((&desk.call(&id)["call"]["state"], world.ledger().len()), (&json!("asking"), 0));
    desk.approve(&id);
    let done = until(&mut agent, "completed", &id);
    let result = &done.result()["result"];
    assert_eq!(
        (&result["isError"], &result["structuredContent"]["reference"]),
        (&json!(false), &json!("INV-1"))
    );
    assert!(done.result()["ttlMs"].as_u64().is_some_and(|ms| ms > 6 * 24 * 3_600 * 1_000), "{done:?}");
    // It was heard, and can be asked for again.
    assert_eq!(until(&mut agent, "completed", &id).result()["result"]["content"], result["content"]);
    assert_eq!(kind(&ask(&mut agent, "cancel", &id)), "complete");
    until(&mut agent, "completed", &id);
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn tasks_outlive_proxy_and_agent() {
    let world = asking("20s");
    let served = world.serve();
    let id = task(
        &mut Agent::modern(&served, "first").that_can(knows_tasks()),
        "bank__transfer",
        payment("INV-1"),
    );
    // At once: that it was told is that it is kept.
    served.kill();
    let served = world.serve();
    until(&mut Agent::modern(&served, "second").that_can(knows_tasks()), "working", &id);
    Desk::of(&served, ANA).approve(&id);
    Desk::of(&served, ANA).await_state(&id, "succeeded");
    served.kill();
    let served = world.serve();
    let done = until(&mut Agent::modern(&served, "third").that_can(knows_tasks()), "completed", &id);
    assert_eq!(done.result()["result"]["structuredContent"]["reference"], "INV-1");
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn a_task_that_is_cancelled_is_never_sent() {
    let world = asking("20s");
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent").that_can(knows_tasks());
    let id = task(&mut agent, "bank__transfer", payment("INV-1"));
    let acknowledged = ask(&mut agent, "cancel", &id);
    assert_eq!(kind(&acknowledged), "complete", "{acknowledged:?}");
    let cancelled = until(&mut agent, "cancelled", &id);
    assert_eq!((cancelled.result().get("result"), cancelled.result().get("error")), (None, None));
    let desk = Desk::of(&served, ANA);
    assert_eq!(desk.call(&id)["call"]["state"], "cancelled");
    assert_eq!(
        desk.post(&format!("/calls/{id}/approve"), &json!({ "digest": "0".repeat(64) })).status(),
        409
    );
    served.kill();
    let served = world.serve();
    until(&mut Agent::modern(&served, "agent").that_can(knows_tasks()), "cancelled", &id);
    assert_eq!(world.ledger().len(), 0);
}

#[test]
fn a_task_is_its_principals_alone_and_only_for_who_knows_tasks() {
    let agents = "[agents.ann]\ntoken = \"token-of-ann-long-enough\"\n[agents.bob]\ntoken = \"token-of-bob-long-enough\"\n";
    let world = asking_with(agents, "0s");
    let served = world.serve();
    let [mut ann, mut bob] = [("ann", "token-of-ann-long-enough"), ("bob", "token-of-bob-long-enough")]
        .map(|(name, token)| Agent::with_token(&served, name, token).that_can(knows_tasks()));
    let id = task(&mut ann, "bank__transfer", payment("INV-1"));
    let nobodys = "01a1fe8a-8fed-718f-be0b-2f3e4ee944b4";
    for verb in ["get", "update", "cancel"] {
        let (others, none) = (ask(&mut bob, verb, &id), ask(&mut ann, verb, nobodys));
        assert_eq!((others.error_code(), none.error_code()), (-32602, -32602), "{verb}");
        // Nobody can tell another's task from none.
        assert_eq!(others.error_message(), none.error_message());
        assert_eq!(ask(&mut ann, verb, "no id at all").error_code(), -32602);
    }
    let mut plain = Agent::with_token(&served, "plain", "token-of-ann-long-enough");
    for verb in ["get", "update", "cancel"] {
        let refused = ask(&mut plain, verb, &id);
        assert_eq!(refused.error_code(), -32021, "{refused:?}");
        assert_eq!(refused.0["error"]["data"]["requiredCapabilities"], knows_tasks(), "{refused:?}");
    }
    let listen = json!({ "notifications": { "taskIds": [id] } });
    assert_eq!(plain.request("subscriptions/listen", listen).error_code(), -32021);
    // What was declared before counts for nothing.
    let held = plain.call("bank__transfer", payment("INV-2"));
    assert_eq!((kind(&held), held.code()), ("complete", "held"), "{held:?}");
    assert_eq!(Desk::of(&served, ANA).call(&id)["call"]["state"], "asking");
    assert_eq!(Agent::modern(&served, "x").ask("bank__transfer", payment("INV-3")).status(), 401);
    assert_eq!(world.ledger().len(), 0);
}

/// A world in which every call of `odd` waits.
fn odd(script: &str) -> World {
    let world = World::empty();
    let output = json!({ "type": "object", "properties": { "n": { "type": "integer" } } });
    let tools = json!([
        { "name": "free", "inputSchema": { "type": "object" } },
        { "name": "bound", "inputSchema": { "type": "object" }, "outputSchema": output },
        { "name": "vague", "inputSchema": { "type": "object" } },
    ]);
    world.write("tools.json", &tools.to_string());
    world.write("script.json", script);
    world.configure(&format!(
        "{}{OPERATOR}[defaults]\neffect = \"ask\"\nhold_wait = \"0s\"\n",
        world.server_odd("")
    ));
    world
}

#[test]
fn a_task_ends_as_its_call_does() {
    let result = r#"{"content":[{"type":"hologram","data":1.50}],"x-vendor":[123456789012345678901234567890],"_meta":{"a":1}}"#;
    let world = odd(&format!(
        r#"{{"free":{{"error":{{"code":-32602,"message":"no such thing","data":{{"why":7}}}}}},"bound":{{"result":{result}}},"vague":{{"error":{{"code":-32603,"message":"oops"}}}}}}"#
    ));
    let served = world.serve();
    let desk = Desk::of(&served, ANA);
    let mut agent = Agent::modern(&served, "agent").that_can(knows_tasks());
    let [free, bound, refused, vague] = [("free", 1), ("bound", 1), ("bound", 2), ("vague", 1)]
        .map(|(tool, n)| task(&mut agent, &format!("odd__{tool}"), json!({ "n": n })));
    for task in [&free, &bound, &vague] {
        desk.approve(task);
    }
    assert_eq!(desk.decide(&refused, "reject", json!({ "reason": "not today" })).status(), 200);
    // An error of the protocol, as the server gave it.
    let failed = until(&mut agent, "failed", &free);
    let error = json!({ "code": -32602, "message": "no such thing", "data": { "why": 7 } });
    assert_eq!((&failed.result()["error"], failed.result().get("result")), (&error, None));
    assert_eq!(failed.result()["statusMessage"], "no such thing");
    // A result, without loss.
    let done = until(&mut agent, "completed", &bound);
    let given = &done.result()["result"];
    let mut expected: Value = serde_json::from_str(result).expect("JSON");
    for name in ["content", "x-vendor"] {
        assert_eq!(given[name].to_string(), expected[name].take().to_string());
    }
    assert_eq!(
        (&given["_meta"]["a"], &given["_meta"]["io.holdfast/state"]),
        (&json!(1), &json!("succeeded"))
    );
    // A decision is no error of the protocol.
    let told = until(&mut agent, "completed", &refused);
    let told = &told.result()["result"];
    assert_eq!((&told["isError"], &told["_meta"]["io.holdfast/code"]), (&json!(true), &json!("refused")));
    assert!(told["content"][0]["text"].as_str().is_some_and(|text| text.contains("not today")), "{told}");
    // Nor is not knowing: who asks is told so, and not kept waiting for an operator.
    let told = until(&mut agent, "completed", &vague);
    let told = &told.result()["result"];
    assert_eq!(
        (&told["isError"], &told["_meta"]["io.holdfast/code"]),
        (&json!(true), &json!("outcome-unknown"))
    );
}

#[test]
fn a_held_result_is_an_error_only_where_results_have_a_schema() {
    let world = odd("{}");
    let served = world.serve();
    for (mut agent, name) in
        [(Agent::modern(&served, "m"), "modern"), (Agent::legacy(&served, "l"), "legacy")]
    {
        for (tool, is_error) in [("odd__free", false), ("odd__bound", true)] {
            let held = agent.call(tool, json!({ "by": name }));
            assert_eq!((held.code(), held.is_error()), ("held", is_error), "{name} {tool}");
            // Our own tool has no schema.
            let params = json!({ "call_id": held.call(), "timeout_s": 0 });
            let held = agent.call("holdfast_wait", params);
            assert_eq!((held.code(), held.is_error()), ("held", false), "{name} {tool}");
        }
    }
}
