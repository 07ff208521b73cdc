//! Servers that hang, cannot be started, or say why they fail: others are not affected, and everybody is told.

use std::time::{Duration, Instant};

use holdfast_tests::{ALLOW, Agent, Desk, World, eventually, eventually_some, payment};
use serde_json::{Value, json};

const TOOLS: &str = r#"[{"name":"note","inputSchema":{"type":"object"}}]"#;
const LOOKED_AT: &str = "hung = { after = \"4s\", restart = \"off\", give_up = \"off\" }\n";
const HUNG: &str = "hung = { after = \"300ms\", restart = \"off\", give_up = \"off\" }\n";

fn server(desk: &Desk<'_>, name: &str) -> Value {
    let all = desk.get("/servers").json();
    let mut named = all["servers"].as_array().expect("a list").iter().filter(|one| one["name"] == name);
    named.next().expect("it is configured").clone()
}

#[test]
fn a_hung_server_costs_one_caller_its_patience_and_the_others_nothing() {
    let world = World::empty();
    world.write("tools.json", TOOLS);
    world.configure(&format!(
        "{}{}{HUNG}[defaults]\neffect = \"allow\"\nretry = {{ attempts = 1 }}\n",
        world.server_bank(),
        world.server_odd("")
    ));
    let served = world.serve();
    let token = world.token();
    let desk = Desk::of(&served, &token);
    let mut agent = Agent::modern(&served, "agent");
    assert!(agent.call("odd__note", json!({ "n": 0 })).succeeded());
    world.pause("odd");
    let first = agent.ask("odd__note", json!({ "n": 1 }));
    eventually("it is known to hang", || server(&desk, "odd")["state"] == "hung");
    let refused = Agent::modern(&served, "other").call("odd__note", json!({ "n": 2 }));
    assert_eq!(refused.code(), "upstream-hung", "{refused:?}");
    assert!(agent.call("bank__transfer", payment("INV-1")).succeeded());
    assert!(agent.tools().contains(&"odd__note".to_owned()));
    world.go_on("odd");
    // What it took before it fell silent, it answers.
    assert!(first.answer().succeeded());
    eventually("it is well again", || server(&desk, "odd")["state"] == "up");
    assert!(agent.call("odd__note", json!({ "n": 3 })).succeeded());
    let sent: Vec<Value> = world
        .odd_calls("note")
        .iter()
        .map(|line| line["message"]["params"]["arguments"]["n"].clone())
        .collect();
    assert_eq!(sent, [0, 1, 3]);
}

#[test]
fn a_server_that_hangs_for_long_is_started_anew() {
    let world = World::empty();
    world.write("tools.json", TOOLS);
    let hung = "hung = { after = \"2s\", restart = \"1s\", give_up = \"4s\" }\n";
    world.configure(&format!("{}{hung}{ALLOW}", world.server_odd("")));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    assert!(agent.call("odd__note", json!({ "n": 0 })).succeeded());
    let before = world.processes_of("odd");
    world.pause("odd");
    let first = agent.ask("odd__note", json!({ "n": 1 }));
    eventually("another one runs", || {
        let now = world.processes_of("odd");
        now.len() == 1 && now != before
    });
    // Whether it was executed nobody knows.
    assert_eq!(first.answer().code(), "outcome-unknown");
    let mut n = 1;
    eventually("calls go again", || {
        n += 1;
        agent.call("odd__note", json!({ "n": n })).succeeded()
    });
}

#[test]
fn time_in_which_holdfast_itself_stood_still_is_not_held_against_a_server() {
    let world = World::empty();
    world.write("tools.json", TOOLS);
    world.write("script.json", r#"{"note":{"sleep_ms":4000,"result":{"content":[]},"times":9}}"#);
    world.configure(&format!("{}{LOOKED_AT}{ALLOW}", world.server_odd("")));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    for n in 0..3 {
        let asked = agent.ask("odd__note", json!({ "n": n }));
        eventually("the server has the call", || world.odd_calls("note").len() == n + 1);
        eventually("it is asked whether it is there", || world.waits_for("odd"));
        world.pause("holdfast");
        eventually("it has answered both", || !world.waits_for("odd"));
        // No wait for anything: this is how long we stand still.
        std::thread::sleep(Duration::from_secs(4));
        world.go_on("holdfast");
        assert!(asked.answer().succeeded());
    }
    assert!(!served.log().contains("has said nothing for so long"), "{}", served.log());
}

#[test]
fn a_tool_that_says_so_stands_for_tools_that_are_not_known() {
    let world = World::empty();
    world.write("tools.json", TOOLS);
    let missing = "[servers.gone]\ncommand = \"no-such-program-anywhere\"\n";
    world.configure(&format!("{}{missing}{ALLOW}", world.server_bank()));
    let served = world.serve();
    let mut agent = Agent::legacy(&served, "agent");
    let begun = Instant::now();
    let tools = agent.request("tools/list", json!({})).result()["tools"].clone();
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    let named = |name: &str| tools.as_array().expect("a list").iter().find(|tool| tool["name"] == name);
    assert!(named("bank__transfer").is_some());
    let stand_in = named("gone__unavailable").expect("it stands there");
    assert!(
        stand_in["description"].as_str().expect("words").contains("no-such-program-anywhere"),
        "{stand_in}"
    );
    assert_eq!(stand_in["annotations"]["readOnlyHint"], true);
    let told = agent.call("gone__unavailable", json!({}));
    assert!(told.text().contains("cannot be used"), "{told:?}");
    // Mended, its own tools take the place.
    world.configure(&format!(
        "{}{}{ALLOW}",
        world.server_bank(),
        world.server_odd("").replace("odd]", "gone]")
    ));
    world.run(&["reload"]).ok();
    eventually("its own tools are there", || {
        let tools = agent.tools();
        tools.contains(&"gone__note".to_owned()) && !tools.contains(&"gone__unavailable".to_owned())
    });
}

#[test]
fn what_a_server_writes_to_stderr_is_shown_for_what_it_is() {
    let world = World::empty();
    let script = "for n in $(seq 30); do echo \"line $n\" >&2; done; printf 'a\\342\\200\\256b<script>\\n' >&2; exit 3";
    world.configure(&format!("[servers.talk]\ncommand = \"sh\"\nargs = [\"-c\", {script:?}]\n{ALLOW}"));
    let served = world.serve();
    let token = world.token();
    let desk = Desk::of(&served, &token);
    // They come line by line, and anew each time that it is started.
    let lines = eventually_some("its last words are there", || {
        let lines = server(&desk, "talk")["stderr"].as_array().cloned().unwrap_or_default();
        lines.last().is_some_and(|last| last == "a\u{202e}b<script>").then_some(lines)
    });
    assert_eq!((lines.len(), lines[0].as_str()), (20, Some("line 12")));
    assert!(served.log().contains("line 30"));
    world.run(&["reload"]).ok();
}
