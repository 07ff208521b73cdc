//! `holdfast add` and `remove`: one server more or less, and nothing else touched.

use std::fs;

use holdfast_tests::{ALLOW, Agent, Ran, World, bank, eventually};
use serde_json::json;

#[test]
fn the_first_server_makes_the_configuration() {
    let world = World::empty();
    let added = world.run(&["-c", "new/h.toml", "add", "files", "--", "npx", "-y", "files", "."]);
    assert!(
        added
            .ok()
            .starts_with("[servers.files]\ncommand = \"npx\"\nargs = [\"-y\", \"files\", \".\"]\ncwd = "),
        "{added:?}"
    );
    let checked = world.run(&["-c", "new/h.toml", "check", "--json"]);
    checked.ok();
    assert_eq!(checked.json()["configuration"]["servers"][0]["identity"], "npx -y files .");
}

#[test]
fn a_server_is_added_and_works_and_goes_again() {
    let world = World::with(&format!("# Mine, as it is.\n{ALLOW}"));
    let before = fs::read_to_string(world.path("holdfast.toml")).expect("readable");
    let bank = bank();
    let bank = bank.to_str().expect("UTF-8");
    world.run(&["add", "bank", "--env", "BANK_MODE=test", "--", bank, "--ledger", "ledger.jsonl"]).ok();
    let after = fs::read_to_string(world.path("holdfast.toml")).expect("readable");
    assert!(after.starts_with(before.trim_end()), "{after}");
    assert!(after.contains("env = { BANK_MODE = \"test\" }"), "{after}");
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let answer = agent.call("bank__balance", json!({ "account": "alice" }));
    assert!(answer.succeeded(), "{answer:?}");
    // While it runs, too.
    world.run(&["add", "second", "--", bank, "--ledger", "second.jsonl"]).ok();
    eventually("serve has it", || agent.tools().contains(&"second__balance".to_owned()));
    world.run(&["remove", "second"]).ok();

    let again = world.run(&["add", "bank", "--", "x"]);
    assert_eq!((again.code, again.stdout.as_str()), (Some(1), ""));
    assert!(again.stderr.contains("already") && again.stderr.contains("holdfast remove bank"), "{again:?}");
    let removed = world.run(&["remove", "bank"]);
    assert!(removed.ok().contains("[servers.bank]"), "{removed:?}");
    assert_eq!(fs::read_to_string(world.path("holdfast.toml")).expect("readable"), before);
    assert_eq!(world.run(&["remove", "bank"]).code, Some(1));
}

#[test]
fn an_address_with_headers() {
    let world = World::with("");
    let added = world.run(&[
        "add",
        "web",
        "--url",
        "https://web.example/mcp",
        "--header",
        "Authorization: Bearer ${WEB_TOKEN}",
        "--header",
        "X-Region=eu",
    ]);
    let shown = added.ok();
    assert!(
        shown.contains("headers = { Authorization = \"Bearer ${WEB_TOKEN}\", X-Region = \"eu\" }"),
        "{shown}"
    );
    assert!(added.stderr.contains("WEB_TOKEN is not set here"), "{added:?}");
    let checked = Ran::of(world.holdfast(&["check"]).env("WEB_TOKEN", "t"));
    assert!(checked.ok().contains("https://web.example/mcp"), "{checked:?}");
}

#[test]
fn what_would_not_load_is_not_written() {
    let world = World::with("[servers.a]\ncommand = \"a\"\n");
    let before = fs::read_to_string(world.path("holdfast.toml")).expect("readable");
    for (args, code, says) in [
        (vec!["add", "a b", "--", "x"], 1, "letters, digits"),
        (vec!["add", "b", "--url", "ftp://h/"], 1, "https://host/path"),
        (vec!["add", "b", "--url", "https://h/", "--header", "Host=x"], 1, "Holdfast itself sends"),
        (vec!["add", "b"], 2, "--url"),
        (vec!["add", "b", "--url", "https://h/", "--", "x"], 2, "cannot be used with"),
        (vec!["add", "b", "--env", "NOVALUE", "--", "x"], 2, "NAME=VALUE"),
        (vec!["add", "b", "--header", "A=b", "--", "x"], 2, "--header"),
    ] {
        let ran = world.run(&args);
        assert_eq!(ran.code, Some(code), "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(says), "{args:?}: {ran:?}");
        assert_eq!(fs::read_to_string(world.path("holdfast.toml")).expect("readable"), before, "{args:?}");
    }
    world.write("more.json", r#"{"mcpServers": {"web": {"command": "x"}}}"#);
    world.configure("[import]\nmcp_servers = [\"more.json\"]\n");
    for args in [vec!["add", "web", "--", "x"], vec!["remove", "web"]] {
        let ran = world.run(&args);
        assert_eq!(ran.code, Some(1));
        assert!(ran.stderr.contains("imported"), "{ran:?}");
    }
}
