//! Files of clients, used as they are by the real program.

use std::fs;

use holdfast_tests::{ALLOW, Agent, Ran, World, bank, payment};
use serde_json::json;

#[test]
fn one_configuration_imports_every_client() {
    let world = World::empty();
    let bank = bank();
    let bank = bank.to_str().expect("UTF-8");
    let write = |name: &str, text: String| {
        let path = world.path(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("the directory is ours");
        fs::write(path, text).expect("the directory is ours");
    };
    let entry = |ledger: &str| format!(r#"{{"command": {bank:?}, "args": ["--ledger", "{ledger}.jsonl"]}}"#);
    write(
        "claude/.claude.json",
        format!(r#"{{"tip": "${{", "mcpServers": {{"claude": {}}}}}"#, entry("claude")),
    );
    write("p/.mcp.json", format!(r#"{{"mcpServers": {{"My Project": {}}}}}"#, entry("${LEDGER:-project}")));
    write(
        "p/.cursor/mcp.json",
        format!(r#"{{"mcpServers": {{"cursor": {}}}}}"#, entry("${workspaceFolder}/cursor")),
    );
    write(
        "p/.vscode/mcp.json",
        format!("{{\n // c\n \"servers\": {{\"code\": {},}},\n}}", entry("${input:ledger}")),
    );
    write(
        "codex/config.toml",
        format!(
            "notify = ['${{1}}']\n[mcp_servers.codex]\ncommand = {bank:?}\nargs = ['--ledger', 'codex.jsonl']\nstartup_timeout_sec = 5\n"
        ),
    );
    write(
        "p/.gemini/settings.json",
        format!(r#"{{"mcpServers": {{"gemini": {}}}}}"#, entry("$LEDGER_DIR/gemini")),
    );
    write(
        "goose/config.yaml",
        format!(
            "extensions:\n  goose:\n    type: stdio\n    cmd: {bank}\n    args: [--ledger, goose.jsonl]\n"
        ),
    );
    let files = "['claude/.claude.json', 'p/.mcp.json', 'p/.cursor/mcp.json', 'p/.vscode/mcp.json', 'codex/config.toml', 'p/.gemini/settings.json', 'goose/config.yaml']";
    world.configure(&format!("[import]\nmcp_servers = {files}\n{ALLOW}"));
    let directory = world.directory().display().to_string();
    let with = |command: &mut std::process::Command| -> Ran {
        Ran::of(command.env("INPUT_LEDGER", "code").env("LEDGER_DIR", &directory))
    };
    let checked = with(&mut world.holdfast(&["check"]));
    checked.ok();
    assert!(checked.stderr.contains("`My Project` is called `My_Project` here"), "{checked:?}");
    assert!(
        checked.stderr.contains("config.toml:5:") && checked.stderr.contains("attempt_timeout"),
        "{checked:?}"
    );

    let mut serve = world.holdfast(&["serve"]);
    serve.env("INPUT_LEDGER", "code").env("LEDGER_DIR", &directory);
    let served = holdfast_tests::Served::start(&mut serve, &world.path("serve.log"));
    let mut agent = Agent::modern(&served, "agent");
    for (server, ledger) in [
        ("claude", "claude.jsonl"),
        ("My_Project", "p/project.jsonl"),
        ("cursor", "p/cursor.jsonl"),
        ("code", "p/code.jsonl"),
        ("codex", "codex.jsonl"),
        ("gemini", "gemini.jsonl"),
        ("goose", "goose.jsonl"),
    ] {
        let answer = agent.call(&format!("{server}__transfer"), payment("INV-1"));
        assert!(answer.succeeded(), "{server}: {answer:?}");
        let paid = fs::read_to_string(world.path(ledger)).unwrap_or_else(|error| panic!("{server}: {error}"));
        assert_eq!(paid.matches("INV-1").count(), 1, "{server}");
    }
}

#[test]
fn what_is_wrong_in_a_clients_file_is_said_with_its_line() {
    let world = World::empty();
    world.configure("[import]\nmcp_servers = [\"m.json\"]\n");
    for (text, says) in [
        (
            "{\"servers\": {\n \"a\": {\"command\": \"x\", \"env\": {\"K\": \"${input:my-key}\"}}}}",
            "m.json:2:",
        ),
        (
            "{\"servers\": {\n \"a\": {\"command\": \"x\", \"env\": {\"K\": \"${input:my-key}\"}}}}",
            "set the environment variable INPUT_MY_KEY",
        ),
        ("{\"mcpServers\": {\n \"a\": {\"command\": \"${NOT_SET}\"}}}", "`NOT_SET` is not set"),
        ("{\"mcpServers\": {\n \"a\": }}", "m.json:2:"),
        ("{}", "it needs an object `mcpServers`"),
    ] {
        world.write("m.json", text);
        let ran = world.run(&["check"]);
        assert_eq!(ran.code, Some(1), "{text}");
        assert!(ran.stderr.contains(says), "{text}\n{ran:?}");
    }
    world.write(
        "m.json",
        "{\"servers\": {\"a\": {\"command\": \"x\", \"env\": {\"K\": \"${input:my-key}\"}}}}",
    );
    Ran::of(world.holdfast(&["check"]).env("INPUT_MY_KEY", "answer")).ok();
}

#[test]
fn holdfast_does_not_stand_behind_itself() {
    let world = World::empty();
    let entry = json!({ "mcpServers": { "hf": { "command": "/opt/bin/holdfast", "args": ["stdio"] }, "b": { "command": "b" } } });
    world.write("m.json", &entry.to_string());
    world.configure("[import]\nmcp_servers = [\"m.json\"]\n");
    let ran = world.run(&["check", "--json"]);
    ran.ok();
    let servers = ran.json()["configuration"]["servers"].clone();
    assert_eq!(servers, json!([{ "name": "b", "identity": "b" }]));
    assert!(ran.stderr.contains("is Holdfast itself and was left out"), "{ran:?}");
}
