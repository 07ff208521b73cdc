//! `holdfast doctor`: finds what was planted, says how to mend it, and is quiet about the rest.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt};

use holdfast_tests::{ALLOW, Ran, World, holdfast};
use serde_json::{Value, json};

fn findings(ran: &Ran) -> Vec<Value> {
    ran.json()["findings"].as_array().expect("a list").clone()
}

/// What `doctor` says with this level, as `subject: what`.
fn said(world: &World, level: &str) -> Vec<String> {
    let ran = world.run(&["doctor", "--json"]);
    let found = findings(&ran);
    let any = found.iter().any(|finding| finding["level"] == "problem");
    assert_eq!((ran.code, ran.json()["ok"] == true), (Some(i32::from(any)), !any), "{ran:?}");
    for finding in found.iter().filter(|finding| finding["level"] == "problem") {
        assert!(finding["mend"].is_string(), "no way out: {finding}");
    }
    let of_level = found.iter().filter(|finding| finding["level"] == level);
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    of_level.map(|finding| format!("{}: {}", text(&finding["subject"]), text(&finding["what"]))).collect()
}

/// The one problem contains this.
#[track_caller]
fn has_one_problem(world: &World, part: &str) {
    let problems = said(world, "problem");
    assert!(problems.len() == 1 && problems[0].contains(part), "{part}: {problems:#?}");
}

/// A client's file that starts Holdfast with the configuration that is here.
fn point(world: &World, file: &str, command: &str) {
    let config = world.path("holdfast.toml");
    let entry =
        json!({ "mcpServers": { "holdfast": { "command": command, "args": ["stdio", "-c", config] } } });
    fs::create_dir_all(world.path(file).parent().expect("it has one")).expect("the directory is ours");
    fs::write(world.path(file), entry.to_string()).expect("the directory is ours");
}

fn program() -> String {
    holdfast().to_str().expect("UTF-8").to_owned()
}

#[test]
fn a_set_up_that_works() {
    let world = World::bank(ALLOW);
    point(&world, ".cursor/mcp.json", &program());
    for _ in 0..2 {
        assert_eq!(said(&world, "problem"), [""; 0]);
        assert_eq!(said(&world, "warning"), [""; 0]);
        let fine = said(&world, "ok").join("\n");
        for part in [
            "bank: ",
            " tools in ",
            "starts Holdfast with this configuration",
            "MiB are free",
            "clock: plausible",
        ] {
            assert!(fine.contains(part), "{part}\n{fine}");
        }
    }
    let ran = world.run(&["doctor"]);
    assert!(ran.ok().ends_with("Everything is as it should be.\n"), "{ran:?}");
    assert!(ran.stderr.contains("Asking 1 server"), "progress: {ran:?}");
    assert_eq!(world.processes(), Vec::<i32>::new());

    let served = world.serve();
    let fine = said(&world, "ok").join("\n");
    assert!(fine.contains(&format!("`holdfast serve` (process {})", served.pid())), "{fine}");
    assert!(fine.contains("entries, unbroken"), "{fine}");
    assert_eq!(said(&world, "problem"), [""; 0]);
    assert!(served.stop().success());
    assert!(said(&world, "ok").join("\n").contains("unbroken"));
}

#[test]
fn servers_that_do_not_work() {
    let world = World::with("[servers.gone]\ncommand = \"no-such-program\"\n");
    has_one_problem(&world, "gone: `no-such-program` is neither in PATH nor a file");
    world
        .configure("[servers.mute]\ncommand = \"sh\"\nargs = [\"-c\", \"echo my last words >&2; exit 3\"]\n");
    has_one_problem(&world, "my last words");
    world.configure("[servers.lost]\ncommand = \"sh\"\ncwd = \"nowhere\"\n");
    has_one_problem(&world, "does not exist");
    world.write("tool", "#!/bin/sh\n");
    fs::set_permissions(world.path("tool"), fs::Permissions::from_mode(0o644)).expect("ours");
    world.configure("[servers.tool]\ncommand = \"./tool\"\n");
    has_one_problem(&world, "is not executable");
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    world.configure(&format!("[servers.web]\nurl = \"http://{nobody}/mcp\"\n"));
    has_one_problem(&world, "web: ");
    // Nobody is started where that is not wanted.
    let ran = world.run(&["doctor", "--offline"]);
    assert!(!ran.ok().contains("web"), "{ran:?}");
}

#[test]
fn programs_that_run_servers_are_looked_at_too() {
    let world = World::empty();
    fs::create_dir(world.path("bin")).expect("the directory is ours");
    for (name, says) in [("npx", "exit 1"), ("node", "echo v16.1.0"), ("uvx", "exit 1")] {
        fs::write(world.path("bin").join(name), format!("#!/bin/sh\n{says}\n"))
            .expect("the directory is ours");
        fs::set_permissions(world.path("bin").join(name), fs::Permissions::from_mode(0o755)).expect("ours");
    }
    world.configure(
        "[servers.a]\ncommand = \"npx\"\n[servers.b]\ncommand = \"uvx\"\n[servers.c]\ncommand = \"bunx\"\n",
    );
    let ran = Ran::of(world.holdfast(&["doctor", "--offline", "--json"]).env("PATH", world.path("bin")));
    let problems: Vec<String> = findings(&ran)
        .iter()
        .filter(|finding| finding["level"] == "problem")
        .map(|finding| format!("{} | {}", finding["what"], finding["mend"]))
        .collect();
    for part in [
        "node is v16.1.0",
        "`uv --version` does not answer",
        "`bunx` is neither",
        "https://bun.sh",
        "https://docs.astral.sh/uv",
    ] {
        assert!(problems.iter().any(|problem| problem.contains(part)), "{part}: {problems:#?}");
    }
    assert_eq!((ran.code, problems.len()), (Some(1), 3), "{problems:#?}");
}

#[test]
fn the_home_of_holdfast() {
    let world = World::with("[store]\nurl = \"redb:gone/h.redb\"\n");
    has_one_problem(&world, "cannot be written");
    world.configure("");
    world.write("holdfast.redb", "this is no journal");
    has_one_problem(&world, "holdfast.redb");
    fs::remove_file(world.path("holdfast.redb")).expect("ours");

    let held = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = held.local_addr().expect("an address");
    world.write(
        "holdfast.toml",
        &format!("version = 1\n[listen]\nmcp = \"{address}\"\ninbox = \"127.0.0.1:0\"\n"),
    );
    has_one_problem(&world, &format!("another program listens on {address}"));
    drop(held);

    world.configure("");
    assert!(world.serve().stop().success());
    fs::set_permissions(world.path("holdfast.redb.operator-token"), fs::Permissions::from_mode(0o644))
        .expect("ours");
    has_one_problem(&world, "others can read it (mode 644)");
}

#[test]
fn the_configuration_itself() {
    let world = World::empty();
    has_one_problem(&world, "there is no such file");
    world.configure(
        "[servers.a]\nurl = \"https://h.example/\"\nheaders = { Authorization = \"Bearer ${NOT_SET}\" }\n",
    );
    has_one_problem(&world, "the environment variable `NOT_SET` is not set");
    world.configure("[sever.a]\n");
    has_one_problem(&world, "unknown key `sever`");
}

#[test]
fn clients_that_would_not_find_us() {
    let world = World::bank(ALLOW);
    assert!(said(&world, "warning").join("\n").contains("no client that was found starts Holdfast"));
    point(&world, ".cursor/mcp.json", "/gone/bin/holdfast");
    has_one_problem(&world, "/gone/bin/holdfast is not there");
    point(&world, ".cursor/mcp.json", "holdfast");
    assert!(said(&world, "warning").join("\n").contains("looked for in the client's own PATH"));
    point(&world, ".cursor/mcp.json", &program());
    let text = fs::read_to_string(world.path(".cursor/mcp.json")).expect("readable");
    fs::write(world.path(".cursor/mcp.json"), text.replace("holdfast.toml", "gone.toml")).expect("ours");
    has_one_problem(&world, "gone.toml is not there");
    point(&world, ".cursor/mcp.json", &program());
    fs::create_dir(world.path(".gemini")).expect("ours");
    fs::write(world.path(".gemini/settings.json"), "{\"mcpServers\": {\"past\": {\"command\": \"us\"}}}")
        .expect("ours");
    assert!(said(&world, "warning").join("\n").contains("1 server is not behind Holdfast: past"));
    fs::write(world.path(".gemini/settings.json"), "{\"mcpServers\": ").expect("ours");
    has_one_problem(&world, "not valid JSON");
    fs::write(world.path(".gemini/settings.json"), "{\"theme\": \"x\"}").expect("ours");
    assert_eq!(said(&world, "problem"), [""; 0]);
}
