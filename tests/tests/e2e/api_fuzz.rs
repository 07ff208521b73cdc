//! The API against its own description: what it gives has the shape that it says, and no request breaks it.

use std::path::Path;

use holdfast_tests::{Agent, Desk, PATIENCE, Ran, Served, World, eventually, from_setup, payment};
use serde_json::{Value, json};

const ROOT: &str = "token-of-root-long-enough";
const CONFIG: &str = "[operators.root]\ntoken = \"token-of-root-long-enough\"\nrole = \"admin\"\nbreak_glass = true\n\
    [defaults]\neffect = \"allow\"\nhold_wait = \"0s\"\n\
    [[rule]]\nid = \"payments\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n\
    [rule.preview]\ntool = \"quote_transfer\"\n\
    args = { from = \"{/from}\", to = \"{/to}\", amount = \"{/amount}\" }\n\
    [[rule]]\nid = \"closing\"\neffect = \"deny\"\nserver = \"bank\"\ntool = \"close_account\"\n";

/// A payment that waits for an approver; its id.
fn held(agent: &mut Agent, desk: &Desk<'_>, reference: &str) -> String {
    let call = agent.call("bank__transfer", payment(reference)).call();
    desk.await_state(&call, "asking");
    call
}

/// One call for each way that a call can go, or nearly.
fn histories(world: &World, served: &Served) -> Vec<String> {
    let mut agent = Agent::modern(served, "agent");
    let desk = Desk::of(served, ROOT);
    assert!(agent.call("bank__balance", json!({ "account": "alice" })).succeeded());
    assert_eq!(agent.call("bank__close_account", json!({ "account": "bob" })).code(), "denied");
    let decide = |call: &str, verb: &str, body: Value| {
        let response = desk.decide(call, verb, body);
        assert_eq!(response.status(), 200, "{verb}: {}", response.body);
    };

    let approved = held(&mut agent, &desk, "approved");
    desk.approve(&approved);
    assert!(agent.wait(&approved).succeeded());
    let edited = held(&mut agent, &desk, "edited");
    decide(&edited, "edit", json!({ "arguments": payment("edited-2") }));
    desk.await_state(&edited, "asking");
    decide(&edited, "approve", json!({ "break_glass": "the house is on fire" }));
    desk.await_state(&edited, "succeeded");
    let rejected = held(&mut agent, &desk, "rejected");
    decide(&rejected, "reject", json!({ "reason": "no" }));
    let answered = held(&mut agent, &desk, "answered");
    decide(&answered, "respond", json!({ "answer": "it is done" }));
    let cancelled = held(&mut agent, &desk, "cancelled");
    assert_eq!(desk.post(&format!("/calls/{cancelled}/cancel"), &json!({})).status(), 200);
    assert_eq!(desk.post(&format!("/calls/{cancelled}/release"), &json!({})).status(), 200);

    let lost = held(&mut agent, &desk, "lost");
    world.fault("error-after-commit once");
    desk.approve(&lost);
    desk.await_state(&lost, "in-doubt");
    let settled = held(&mut agent, &desk, "settled");
    world.fault("error-after-commit once");
    desk.approve(&settled);
    desk.await_state(&settled, "in-doubt");
    let body = json!({ "happened": { "content": [], "structuredContent": { "id": 1 } } });
    assert_eq!(desk.post(&format!("/calls/{settled}/resolve"), &body).status(), 200);

    let open = (0..8).map(|n| held(&mut agent, &desk, &format!("open-{n}")));
    open.chain([approved, rejected, lost, settled]).collect()
}

#[test]
fn what_the_api_gives_is_what_it_says() {
    let world = World::bank(CONFIG);
    let served = world.serve();
    histories(&world, &served);
    let reviews = Desk::of(&served, ROOT).get("/reviews").json();
    let [review] = reviews["reviews"].as_array().expect("reviews").as_slice() else { panic!("{reviews}") };
    assert_eq!((&review["by"]["name"], &review["reason"]), (&json!("root"), &json!("the house is on fire")));
    assert_eq!(review["call"]["state"], "succeeded");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/api.py");
    let mut command = world.command(&from_setup("venv/bin/python"));
    command.arg(script).arg(format!("http://{}", served.inbox)).env("TOKEN", ROOT);
    let ran = Ran::within(&mut command, 4 * PATIENCE);
    ran.ok();
    let told = ran.json();
    assert!(told["looked_at"].as_u64() >= Some(20), "{told}");
    let has = |list: &str, name: &str| told[list].as_array().is_some_and(|list| list.contains(&json!(name)));
    for state in ["succeeded", "denied", "refused", "cancelled", "in-doubt", "asking"] {
        assert!(has("states", state), "{state}: {told}");
    }
    for entry in ["accepted", "previewed", "approved", "edited", "responded", "lost", "resolved", "released"]
    {
        assert!(has("entries", entry), "{entry}: {told}");
    }
}

/// Where the fuzzer finds calls that there are, and digests that may still fit.
fn fuzzer_config(desk: &Desk<'_>, calls: &[String]) -> String {
    let digests: Vec<String> = calls
        .iter()
        .filter_map(|call| desk.call(call)["hold"]["digest"].as_str().map(str::to_owned))
        .collect();
    let known = |name: &str| format!("{{ dictionary = \"{name}\", probability = 0.7 }}");
    format!(
        "[dictionaries.calls]\nvalues = {}\n[dictionaries.digests]\nvalues = {}\n\
         [parameters]\n\"path.id\" = {}\n\"body.digest\" = {}\n",
        json!(calls),
        json!(digests),
        known("calls"),
        known("digests"),
    )
}

#[test]
fn no_request_breaks_the_api() {
    let world = World::bank(CONFIG);
    let served = world.serve();
    let calls = histories(&world, &served);
    let desk = Desk::of(&served, ROOT);
    world.write("schemathesis.toml", &fuzzer_config(&desk, &calls));

    let mut command = world.command(&from_setup("venv/bin/schemathesis"));
    command.args(["--config-file", "schemathesis.toml", "--no-color", "run"]);
    command.arg(format!("http://{}/api/v1/openapi.json", served.inbox));
    command.args(["--header", &format!("Authorization: Bearer {ROOT}")]);
    // Events never end; a right request may be too late for its call; and a wrong token may be one too many.
    command.args(["--exclude-path", "/api/v1/events"]);
    command.args(["--exclude-checks", "positive_data_acceptance,ignored_auth"]);
    command.args(["--phases", "coverage,fuzzing", "--max-examples", "20", "--seed", "7"]);
    command.args(["--generation-database", "none", "--request-timeout", "10", "--continue-on-failure"]);
    let ran = Ran::within(&mut command, 20 * PATIENCE);
    // All but the events and the document itself.
    assert!(ran.stdout.contains("Tested: 25"), "{}", ran.stdout);
    ran.ok();

    assert_eq!(served.ask_inbox("GET", "/healthz", &[], b"").status(), 200);
    let decided = desk.get("/calls?limit=1000").json();
    assert!(decided["calls"].as_array().is_some_and(|calls| !calls.is_empty()), "{decided}");
    eventually("nothing is out any more", || desk.get("/calls?state=in-flight").json()["calls"] == json!([]));
    assert_eq!(desk.get("/verify").json()["ok"], true);
    assert!(served.stop().success());
    assert!(world.run(&["verify"]).ok().starts_with("ok: "));
}
