//! `holdfast init`: a user's clients, moved behind Holdfast and back.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use holdfast_tests::{Bridge, Ran, World, bank, from_setup, odd};
use serde_json::{Value, json};

/// A home with clients, and a project `shop` in it.
struct Home {
    world: World,
}

impl Home {
    fn new() -> Home {
        let world = World::empty();
        fs::create_dir(world.path("shop")).expect("the directory is ours");
        Home { world }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.world.path(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("the directory is ours");
        fs::write(path, text).expect("the directory is ours");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.world.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// `holdfast ARGS` in the project.
    fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.world.holdfast(args).current_dir(self.world.path("shop")))
    }

    /// Every file with its content and mode, except what servers write that are only asked for their tools.
    fn files(&self) -> BTreeMap<String, (String, u32)> {
        let mut files = BTreeMap::new();
        collect(self.world.directory(), self.world.directory(), &mut files);
        files.remove("ledger.jsonl");
        files
    }

    /// The client's own way to its servers, as it stands in its file.
    fn client(&self, entry: &Value) -> Command {
        let command = entry["command"].as_str().expect("a command");
        let mut client = self.world.command(Path::new(command));
        client.args(
            entry["args"].as_array().expect("arguments").iter().map(|arg| arg.as_str().expect("a text")),
        );
        client.stderr(fs::File::create(self.world.path("stdio.log")).expect("the directory is ours"));
        client
    }
}

fn collect(folder: &Path, from: &Path, files: &mut BTreeMap<String, (String, u32)>) {
    for entry in fs::read_dir(folder).expect("readable").map(|entry| entry.expect("readable")) {
        let path = entry.path();
        if path.extension().is_some_and(|ending| ending == "redb") {
            continue;
        }
        if path.is_dir() {
            collect(&path, from, files);
        } else {
            let name = path.strip_prefix(from).expect("it is below").display().to_string();
            let mode = path.metadata().expect("readable").permissions().mode() & 0o7777;
            files.insert(name, (fs::read_to_string(&path).expect("text"), mode));
        }
    }
}

fn path(program: &Path) -> &str {
    program.to_str().expect("the target directory is UTF-8")
}

/// What a user has: five clients, in all their syntaxes, with secrets, comments and entries that cannot move.
fn furnished() -> Home {
    let home = Home::new();
    let bank = bank();
    let ledger = home.world.path("ledger.jsonl").display().to_string();
    let entry =
        json!({ "command": path(&bank), "args": ["--ledger", ledger], "env": { "API_TOKEN": "hush-one" } });
    home.write(
        ".claude.json",
        &format!(
            "{{\n  \"numStartups\": 7,\n  \"history\": [\"echo ${{\", \"${{NOT_SET}}\"],\n  \"mcpServers\": {{\"bank\": {entry}}},\n  \"projects\": {{\"/elsewhere\": {{\"mcpServers\": {{\"z\": {{\"command\": \"z\"}}}}}}}}\n}}\n"
        ),
    );
    home.write(".config/Claude/claude_desktop_config.json", "{\n  \"globalShortcut\": \"\"\n}\n");
    home.write(
        ".cursor/mcp.json",
        &format!(
            "{{\n  // mine\n  \"mcpServers\": {{\n    \"the bank\": {entry}, // the same one\n    \"off\": {{\"command\": \"off\", \"disabled\": true}},\n    \"needs\": {{\"command\": \"x\", \"args\": [\"${{NOT_SET}}\"]}},\n  }}\n}}\n"
        ),
    );
    home.write(
        "shop/.vscode/mcp.json",
        "{\r\n\t\"inputs\": [{\"id\": \"key\", \"type\": \"promptString\"}],\r\n\t\"servers\": {\r\n\t\t\"web\": {\"type\": \"http\", \"url\": \"https://web.invalid/mcp\", \"headers\": {\"Authorization\": \"Bearer hush-two\"}},\r\n\t\t\"asks\": {\"command\": \"x\", \"env\": {\"K\": \"${input:key}\"}}\r\n\t}\r\n}\r\n",
    );
    home.write(
        ".codex/config.toml",
        "# Mine.\nmodel = \"gpt\"   # odd\n\n[mcp_servers.notes]\ncommand = \"no-such-notes\"\ndisabled_tools = [\"wipe\"]\n[mcp_servers.notes.env]\nNOTES_KEY = \"hush-three\"\n",
    );
    fs::set_permissions(home.world.path(".codex/config.toml"), fs::Permissions::from_mode(0o600))
        .expect("ours");
    home
}

#[test]
fn a_look_changes_nothing_and_tells_no_secrets() {
    let home = furnished();
    let before = home.files();
    for args in [vec!["init", "--offline"], vec!["init"]] {
        let ran = home.run(&args);
        let shown = ran.ok();
        for part in [
            "+++ ~/.claude.json",
            "+++ ~/.cursor/mcp.json",
            "+++ ~/shop/.vscode/mcp.json",
            "+++ ~/.codex/config.toml",
        ] {
            assert!(shown.contains(part), "{part}\n{shown}");
        }
        assert!(shown.contains("+++ ~/.config/holdfast/holdfast.toml") && shown.contains("***"), "{shown}");
        assert!(!shown.contains("claude_desktop"), "nothing to do there\n{shown}");
        assert!(!format!("{ran:?}").contains("hush"), "{ran:?}");
        assert!(ran.stderr.contains("Nothing was changed. To do this: holdfast init"), "{ran:?}");
        // What has to stay is said, with the way out.
        assert!(ran.stderr.contains("`needs` stays") && ran.stderr.contains("set NOT_SET"), "{ran:?}");
        assert!(ran.stderr.contains("INPUT_KEY"), "{ran:?}");
        assert!(ran.stderr.contains("1 server of other projects"), "{ran:?}");
        assert_eq!(home.files(), before, "{args:?}");
    }
}

#[test]
fn what_was_applied_is_taken_back_byte_for_byte() {
    let home = furnished();
    let before = home.files();
    let ran = home.run(&["init", "--apply"]);
    assert!(ran.ok().contains("id = \"bank-reads\""), "{ran:?}");
    assert!(ran.stderr.contains("bank") && ran.stderr.contains(" tools"), "progress: {ran:?}");

    // Clients start Holdfast; what could not move, what is off and every comment are where they were.
    let entry = &home.json(".claude.json")["mcpServers"]["holdfast"];
    assert_eq!(entry["args"][0], "stdio");
    assert!(Path::new(entry["command"].as_str().expect("a command")).is_absolute());
    let cursor = home.read(".cursor/mcp.json");
    for kept in
        ["// mine", "\"off\": {\"command\": \"off\", \"disabled\": true}", "\"needs\"", "\"holdfast\""]
    {
        assert!(cursor.contains(kept), "{kept}\n{cursor}");
    }
    let code = home.read("shop/.vscode/mcp.json");
    assert!(
        code.contains("\"asks\"") && !code.contains("web.invalid") && code.contains("\"type\": \"stdio\""),
        "{code}"
    );
    let codex = home.read(".codex/config.toml");
    assert!(codex.starts_with("# Mine.\nmodel = \"gpt\"   # odd\n\n[mcp_servers.holdfast]\n"), "{codex}");

    // Secrets are in one file, for one pair of eyes; the configuration has none and loads.
    let moved = home.read(".config/holdfast/mcp-servers.json");
    for secret in ["hush-one", "hush-two", "hush-three"] {
        assert_eq!(moved.matches(secret).count(), 1, "{moved}");
    }
    assert_eq!(home.files()[".config/holdfast/mcp-servers.json"].1, 0o600);
    assert!(!home.read(".config/holdfast/holdfast.toml").contains("hush"));
    home.run(&["check"]).ok();
    assert_eq!(home.run(&["explain", "bank", "balance"]).code, Some(0));
    assert_eq!(home.run(&["explain", "bank", "transfer"]).code, Some(10));
    assert_eq!(home.run(&["explain", "notes", "wipe"]).code, Some(20));

    // Again there is nothing to do.
    let after = home.files();
    let again = home.run(&["init", "--apply"]);
    assert_eq!((again.ok(), home.files() == after), ("", true), "{again:?}");
    assert!(again.stderr.contains("Nothing to do"), "{again:?}");

    let undone = home.run(&["init", "--undo"]);
    undone.ok();
    assert_eq!(home.files(), before, "{undone:?}");
    assert!(home.run(&["init", "--undo"]).stderr.contains("Nothing to take back"));
}

#[test]
fn what_somebody_changed_since_is_left_alone() {
    let home = furnished();
    let before = home.files();
    home.run(&["init", "--offline", "--apply"]).ok();
    home.write(".cursor/mcp.json", "{\"mcpServers\": {}, \"mine\": true}");
    // Claude Code counts its starts in the file that it keeps its servers in.
    let counted = home.read(".claude.json").replace("\"numStartups\": 7", "\"numStartups\": 8");
    home.write(".claude.json", &counted);
    let undone = home.run(&["init", "--undo"]);
    assert_eq!(undone.code, Some(1), "{undone:?}");
    assert!(undone.stderr.contains("restored the servers in ~/.claude.json"), "{undone:?}");
    assert!(
        undone.stderr.contains(
            "left ~/.cursor/mcp.json alone: it was changed since; as it was: ~/.cursor/mcp.json.holdfast-"
        ),
        "{undone:?}"
    );
    // The others are back; what that client may still rely on is there.
    let counted = before[".claude.json"].0.replace("\"numStartups\": 7", "\"numStartups\": 8");
    assert_eq!(home.files()[".claude.json"].0, counted);
    assert_eq!(home.files()[".codex/config.toml"], before[".codex/config.toml"]);
    assert!(home.read(".cursor/mcp.json").contains("\"mine\""));
    home.run(&["check"]).ok();
    assert!(home.run(&["init", "--undo"]).stderr.contains("left ~/.cursor/mcp.json alone"));
}

const LISTEN: &str = "# Mine.\nversion = 1\n[listen]\nmcp = \"127.0.0.1:0\"   # any\ninbox = \"127.0.0.1:0\"\n\n[defaults]\nhold_wait = \"0s\"\n";

#[test]
fn what_init_has_set_up_works_as_the_client_starts_it() {
    let home = furnished();
    // A configuration that is there keeps everything and gets what is new.
    home.write(".config/holdfast/holdfast.toml", LISTEN);
    home.run(&["init", "--apply"]).ok();
    let config = home.read(".config/holdfast/holdfast.toml");
    assert!(
        config.starts_with("# Mine.\nversion = 1\n[listen]\nmcp = \"127.0.0.1:0\"   # any\n"),
        "{config}"
    );

    // The bank of Claude Code and the one of Cursor were the same, and are one.
    for entry in [
        &home.json(".claude.json")["mcpServers"]["holdfast"],
        &home.json("shop/.vscode/mcp.json")["servers"]["holdfast"],
    ] {
        let mut agent = Bridge::legacy(&mut home.client(entry));
        let listed = agent.request("tools/list", json!({}));
        let tools: Vec<&str> = listed.result()["tools"]
            .as_array()
            .expect("tools")
            .iter()
            .filter_map(|tool| tool["name"].as_str())
            .collect();
        assert!(
            tools.contains(&"bank__balance") && !tools.iter().any(|tool| tool.starts_with("the_bank")),
            "{tools:?}"
        );
        // Reading is allowed, because the server says that it is reading; a payment waits for a person.
        let read = agent.call("bank__balance", json!({ "account": "alice" }));
        assert!(read.succeeded() && read.text().contains("1000"), "{read:?}");
        let held = agent.call("bank__transfer", holdfast_tests::payment("INV-1"));
        assert_eq!(held.state(), "asking", "{held:?}");
        assert!(agent.finish().success());
    }
    assert!(home.run(&["pending"]).ok().contains("INV-1"));
    // With a journal beside it the folder stays, and nothing of the journal is lost.
    home.run(&["init", "--undo"]).ok();
    assert_eq!(home.read(".config/holdfast/holdfast.toml"), LISTEN);
    assert!(home.world.path(".config/holdfast/holdfast.redb").exists());
}

#[test]
fn a_server_of_others_gets_cautious_rules() {
    let home = Home::new();
    let files = from_setup("node/node_modules/.bin/mcp-server-filesystem");
    let entry = json!({ "mcpServers": { "files": { "command": path(&files), "args": ["."] } } });
    home.write("shop/.mcp.json", &entry.to_string());
    let ran = home.run(&["init", "--apply"]);
    let shown = ran.ok();
    assert!(
        shown.contains("only read (`readOnlyHint`)") && shown.contains("write_file (destructive)"),
        "{shown}"
    );
    assert_eq!(home.run(&["explain", "files", "read_text_file"]).code, Some(0));
    assert_eq!(home.run(&["explain", "files", "write_file"]).code, Some(10));
    // What was meant from the project's folder still is.
    let moved = home.read(".config/holdfast/mcp-servers.json");
    assert!(
        moved.contains(&format!("\"cwd\": {:?}", home.world.path("shop").to_str().expect("UTF-8"))),
        "{moved}"
    );
}

#[test]
fn tools_that_have_names_like_rules_get_none() {
    let home = Home::new();
    let odd = odd();
    let tools: Vec<Value> = ["*", "x\nid = \"y\"\neffect = \"allow\"\n[[rule]]", "get_it"]
        .iter()
        .map(|name| json!({ "name": name, "inputSchema": { "type": "object" }, "annotations": { "readOnlyHint": *name != "get_it" } }))
        .collect();
    home.write("tools.json", &json!(tools).to_string());
    let entry =
        json!({ "mcpServers": { "odd": { "command": path(&odd), "args": [home.world.directory()] } } });
    home.write(".cursor/mcp.json", &entry.to_string());
    home.run(&["init", "--apply"]).ok();
    home.run(&["check"]).ok();
    for (tool, code) in [("*", 0), ("anything", 10), ("get_it", 10)] {
        assert_eq!(home.run(&["explain", "odd", tool]).code, Some(code), "{tool}");
    }
}

#[test]
fn files_can_be_named_and_names_can_meet() {
    let home = Home::new();
    home.write("one.json", r#"{"mcpServers": {"db": {"command": "one"}, "holdfast": {"command": "other"}}}"#);
    home.write(
        "two.json",
        r#"{"mcpServers": {"db": {"command": "two", "includeTools": ["a"], "excludeTools": ["b"]}}}"#,
    );
    home.write(".cursor/mcp.json", r#"{"mcpServers": {"not": {"command": "asked"}}}"#);
    let args = ["init", "--offline", "--apply", "--from", "../one.json", "--from", "../two.json"];
    let ran = home.run(&args);
    ran.ok();
    assert!(ran.stderr.contains("is called `db_2` here"), "{ran:?}");
    let checked = home.run(&["check", "--json"]).json();
    let servers: Vec<(&str, &str)> = checked["configuration"]["servers"]
        .as_array()
        .expect("servers")
        .iter()
        .map(|server| {
            (server["name"].as_str().expect("a name"), server["identity"].as_str().expect("an identity"))
        })
        .collect();
    assert_eq!(servers, [("db", "one"), ("holdfast-server", "other"), ("db_2", "two")]);
    assert_eq!(home.run(&["explain", "db_2", "b"]).code, Some(20));
    assert!(home.read(".cursor/mcp.json").contains("asked"), "a file that nobody named");
}

#[test]
fn what_cannot_be_done_is_said() {
    let home = Home::new();
    let nothing = home.run(&["init"]);
    assert_eq!(nothing.code, Some(1));
    assert!(nothing.stderr.contains("holdfast add NAME"), "{nothing:?}");
    assert_eq!(home.run(&["init", "--from", "gone.json"]).code, Some(1));
    assert_eq!(home.run(&["init", "--undo", "--apply"]).code, Some(2));
    home.write("broken.json", "{\n  \"mcpServers\": {\n    \"a\": {\"command\": }\n");
    let broken = home.run(&["init", "--from", "../broken.json"]);
    assert_eq!(broken.code, Some(1));
    assert!(
        broken.stderr.contains("broken.json:3:") && broken.stderr.contains("not valid JSON"),
        "{broken:?}"
    );
    // A configuration that does not load is not added to.
    home.write(".config/holdfast/holdfast.toml", "version = 1\n[listne]\n");
    home.write(".cursor/mcp.json", r#"{"mcpServers": {"a": {"command": "a"}}}"#);
    let wrong = home.run(&["init", "--offline"]);
    assert_eq!(wrong.stdout, "", "nothing is shown of what cannot be done");
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.stderr.contains("listne"), "{wrong:?}");
}

#[test]
fn clients_pass_on_the_variables_that_their_servers_used() {
    let home = Home::new();
    let server =
        |key: &str| json!({ "mcpServers": { "a": { "command": "a", "env": { "KEY": key } } } }).to_string();
    home.write(".cursor/mcp.json", &server("${env:A_KEY}"));
    home.write("shop/.mcp.json", &server("${B_KEY:-none}"));
    home.write(
        ".codex/config.toml",
        "[mcp_servers.web]\nurl = \"https://web.invalid/mcp\"\nbearer_token_env_var = \"C_KEY\"\n",
    );
    home.write(".config/Claude/claude_desktop_config.json", &server("in clear"));
    let mut init = home.world.holdfast(&["init", "--offline", "--apply"]);
    let init = init.current_dir(home.world.path("shop")).env("A_KEY", "a").env("C_KEY", "c");
    let ran = Ran::of(init);
    ran.ok();
    let names = ["A_KEY", "B_KEY", "C_KEY"];
    let env = |file: &str| home.json(file)["mcpServers"]["holdfast"]["env"].clone();
    for name in names {
        assert_eq!(env(".cursor/mcp.json")[name], format!("${{env:{name}}}"));
        assert_eq!(env("shop/.mcp.json")[name], format!("${{{name}:-}}"));
    }
    let codex = home.read(".codex/config.toml");
    assert!(codex.contains("env_vars = [\"A_KEY\", \"B_KEY\", \"C_KEY\"]"), "{codex}");
    assert!(
        ran.stderr.contains("Claude Desktop does not pass on variables: Holdfast needs A_KEY, B_KEY, C_KEY"),
        "{ran:?}"
    );
}
