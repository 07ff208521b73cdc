//! Names without a prefix, where nobody else has them.

use holdfast_tests::{ALLOW, Agent, World, odd};
use serde_json::{Value, json};

/// Servers `first` and `second` without prefixes and `third` with one, each an `odd` with these tools.
fn world(tools: [&[&str]; 3]) -> World {
    let world = World::empty();
    let mut config = String::new();
    let program = odd();
    for (server, tools) in ["first", "second", "third"].into_iter().zip(tools) {
        std::fs::create_dir(world.path(server)).expect("the directory is ours");
        let tool = |name: &&str| json!({ "name": name, "inputSchema": { "type": "object" } });
        let tools: Vec<Value> = tools.iter().map(tool).collect();
        world.write(&format!("{server}/tools.json"), &json!(tools).to_string());
        let prefix = if server == "third" { "" } else { "prefix = false\n" };
        let program = program.to_str().expect("the target directory is UTF-8");
        config += &format!("[servers.{server}]\ncommand = {program:?}\nargs = [{server:?}]\n{prefix}");
    }
    world.configure(&format!("{config}{ALLOW}"));
    world
}

/// How often `server` was called as `tool`.
fn calls(world: &World, server: &str, tool: &str) -> usize {
    let log = std::fs::read_to_string(world.path(server).join("odd.log")).unwrap_or_default();
    // The last line may be half-way.
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let is_call =
        |line: &Value| line["message"]["method"] == "tools/call" && line["message"]["params"]["name"] == tool;
    lines.filter(is_call).count()
}

#[test]
fn the_first_server_keeps_the_bare_name_and_the_next_gets_its_prefix() {
    let world =
        world([&["pay", "third__pay", "holdfast_wait", "odd one"], &["pay", "read"], &["pay", "list"]]);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let tools = agent.tools();
    let expected = ["pay", "first__third__pay", "first__holdfast_wait"];
    assert_eq!(tools[..3], expected, "{tools:?}");
    assert!(tools[3].starts_with("first__odd_one_"), "{tools:?}");
    assert_eq!(tools[4..8], ["second__pay", "read", "third__pay", "third__list"], "{tools:?}");

    for (name, server, tool) in [
        ("pay", "first", "pay"),
        ("second__pay", "second", "pay"),
        ("third__pay", "third", "pay"),
        ("first__third__pay", "first", "third__pay"),
        ("read", "second", "read"),
        ("second__read", "second", "read"),
    ] {
        let before = calls(&world, server, tool);
        assert!(agent.call(name, json!({ "for": name })).succeeded(), "{name}");
        assert_eq!(calls(&world, server, tool), before + 1, "{name}");
    }
    let unknown = agent.call("list", json!({}));
    assert!(unknown.0.to_string().contains("third__list"), "{unknown:?}");
}
