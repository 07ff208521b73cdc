//! Stories about files of clients: what each format means here, and which line is complained about.

use std::path::Path;

use super::{super::Transport, *};

fn vars(name: &str) -> Option<String> {
    let value = match name {
        "HOME" => "/home/ana",
        "TOKEN" => "t0ken",
        "EMPTY" => "",
        "INPUT_API_KEY" => "from-input",
        _ => return None,
    };
    Some(value.to_owned())
}

fn found(path: &str, text: &str) -> Vec<Found> {
    let reading = Reading { vars: &vars, mcp: Some("127.0.0.1:7411".parse().expect("an address")) };
    let found = entries(Path::new(path), text, reading).unwrap_or_else(|problem| panic!("{text}\n{problem}"));
    found.unwrap_or_else(|| panic!("no place for servers\n{text}"))
}

/// One line for each entry: `name = how it is reached, with everything that is set`.
fn read(path: &str, text: &str) -> Vec<String> {
    found(path, text).iter().map(line).collect()
}

fn line(found: &Found) -> String {
    let pairs = |pairs: &[(String, String)]| -> String {
        pairs.iter().map(|(name, value)| format!(" {name}={value}")).collect()
    };
    let what = match &found.what {
        What::Off => "off".to_owned(),
        What::Ourselves => "holdfast".to_owned(),
        What::Unusable => "unusable".to_owned(),
        What::Server(Transport::Http { url, headers }) => format!("{url}{}", pairs(headers)),
        What::Server(transport @ Transport::Stdio { env, cwd, .. }) => {
            let cwd = cwd.as_ref().map(|cwd| format!(" in {}", cwd.display())).unwrap_or_default();
            format!("{transport}{}{cwd}", pairs(env))
        }
    };
    format!("{} = {what}", found.name)
}

/// The only entry of this `mcpServers` object means this, without any complaint.
#[track_caller]
fn means(entry: &str, expected: &str) {
    let found = found("/home/ana/mcp.json", &format!("{{\"mcpServers\": {{\"a\": {entry}}}}}"));
    let [one] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(line(one), format!("a = {expected}"));
    assert_eq!(one.problems, [], "{entry}");
}

/// The only entry of this `mcpServers` object has exactly this problem.
#[track_caller]
fn complains(entry: &str, column: usize, message: &str, hint: &str) {
    let found = found("/home/ana/mcp.json", &format!("{{\"mcpServers\": {{\n\"a\": {entry}}}}}"));
    let [problem] = found[0].problems.as_slice() else { panic!("{entry}: {:?}", found[0].problems) };
    assert_eq!((problem.line, problem.column), (2, column), "{problem}");
    assert!(problem.message.contains(message), "{problem}");
    assert!(problem.hint.as_ref().is_some_and(|words| words.contains(hint)), "{problem}");
}

#[test]
fn claude_code_has_servers_of_the_user_and_of_projects() {
    let text = r#"{
      "numStartups": 12, "tipsHistory": {"x": 1}, "history": ["echo ${NOT_SET} ${"],
      "mcpServers": {
        "github": {"type": "http", "url": "https://api.example/mcp/", "headers": {"Authorization": "Bearer ${TOKEN}"}},
        "files": {"type": "stdio", "command": "npx", "args": ["-y", "files", "${DIR:-/srv}"], "env": {}}
      },
      "projects": {
        "/work/shop": {"allowedTools": [], "mcpServers": {"db": {"command": "./db", "env": {"PORT": 5432, "SSL": true}}}},
        "/work/blog": {"mcpServers": {}}
      }
    }"#;
    let expected = [
        "github = https://api.example/mcp/ Authorization=Bearer t0ken",
        "files = npx -y files /srv",
        "db = /work/shop/./db PORT=5432 SSL=true in /work/shop",
    ];
    assert_eq!(read("/home/ana/.claude.json", text), expected);
}

#[test]
fn a_project_is_where_its_servers_start() {
    let text = r#"{"mcpServers": {"a": {"command": "bin/a", "args": ["${CLAUDE_PROJECT_DIR}/x", "${CLAUDE_PROJECT_DIR:-.}"]}}}"#;
    assert_eq!(read("/work/shop/.mcp.json", text), ["a = /work/shop/bin/a /work/shop/x . in /work/shop"]);
    let text =
        r#"{"mcpServers": {"a": {"command": "a", "cwd": "sub"}, "b": {"command": "b", "cwd": "~/x"}}}"#;
    let expected = ["a = a in /work/shop/sub", "b = b in /home/ana/x"];
    assert_eq!(read("/work/shop/.cursor/mcp.json", text), expected);
    // The same file of the user belongs to no project.
    assert_eq!(read("/home/ana/.cursor/mcp.json", r#"{"mcpServers": {"a": {"command": "a"}}}"#), ["a = a"]);
}

#[test]
fn claude_desktop() {
    let text = "{\n  \"globalShortcut\": \"\",\n  \"mcpServers\": {\n    \"memory\": { \"command\": \"npx\", \"args\": [\"-y\", \"@x/server-memory\"] }\n  }\n}\n";
    let path = "/home/ana/.config/Claude/claude_desktop_config.json";
    assert_eq!(read(path, text), ["memory = npx -y @x/server-memory"]);
    assert_eq!(read(path, r#"{"mcpServers": {}}"#), [""; 0]);
}

#[test]
fn cursor() {
    let text = r#"{"mcpServers": {
        "a": {"type": "stdio", "command": "${userHome}/bin/a", "args": ["${workspaceFolder}${/}src", "${workspaceFolderBasename}"], "env": {"K": "${env:TOKEN}"}},
        "b": {"url": "https://b.example/mcp", "headers": {"Authorization": "Bearer ${env:TOKEN}"}}
    }}"#;
    let expected = [
        "a = /home/ana/bin/a /work/shop/src shop K=t0ken in /work/shop",
        "b = https://b.example/mcp Authorization=Bearer t0ken",
    ];
    assert_eq!(read("/work/shop/.cursor/mcp.json", text), expected);
}

#[test]
fn visual_studio_code() {
    let text = r#"{
        // Asked for once, kept by the editor.
        "inputs": [{"type": "promptString", "id": "api-key", "description": "Key", "password": true,},],
        "servers": {
            "one": {"type": "stdio", "command": "one", "args": ["${workspaceFolder}", "${input:api-key}"], "env": {"GONE": null},},
            "two": {"type": "http", "url": "https://two.example/mcp", /* no headers */},
            "three": {"command": "three", "env": {"K": "${input:other.key}"}},
        },
    }"#;
    let entries = found("/work/shop/.vscode/mcp.json", text);
    let lines: Vec<String> = entries.iter().map(line).collect();
    let expected = [
        "one = one /work/shop from-input in /work/shop",
        "two = https://two.example/mcp",
        "three = unusable",
    ];
    assert_eq!(lines, expected);
    let [problem] = entries[2].problems.as_slice() else { panic!("{entries:?}") };
    assert_eq!((problem.line, problem.severity), (7, Severity::Error));
    assert!(problem.hint.as_ref().is_some_and(|hint| hint.contains("INPUT_OTHER_KEY")), "{problem}");
    let settings = r#"{"editor.fontSize": 12, "mcp": {"servers": {"a": {"command": "a"}}}}"#;
    assert_eq!(read("/home/ana/.config/Code/User/settings.json", settings), ["a = a"]);
}

#[test]
fn codex() {
    let text = r#"
model = "gpt"
notify = ["sh", "-c", "echo ${1}"]

[mcp_servers.docs]
command = "docs"
args = ["--port", "1"]
env_vars = ["TOKEN", "NOT_SET"]
cwd = "/srv"
startup_timeout_sec = 20
[mcp_servers.docs.env]
MODE = "test"
[projects."/work"]
trust_level = "trusted"
[mcp_servers."my web"]
url = "https://web.example/mcp"
bearer_token_env_var = "TOKEN"
http_headers = { "X-Region" = "eu" }
env_http_headers = { "X-Key" = "TOKEN" }
[mcp_servers.off]
command = "${NOT_SET}"
enabled = false
"#;
    let entries = found("/home/ana/.codex/config.toml", text);
    let lines: Vec<String> = entries.iter().map(line).collect();
    let expected = [
        "docs = docs --port 1 MODE=test TOKEN=t0ken in /srv",
        "my web = https://web.example/mcp Authorization=Bearer t0ken X-Key=t0ken X-Region=eu",
        "off = off",
    ];
    assert_eq!(lines, expected);
    let [problem] = entries[0].problems.as_slice() else { panic!("{entries:?}") };
    assert_eq!((problem.line, problem.severity), (10, Severity::Warning));
    assert!(problem.hint.as_ref().is_some_and(|hint| hint.contains("attempt_timeout")), "{problem}");
}

#[test]
fn gemini() {
    let text = r#"{
      "theme": "x", "mcp": {"excluded": ["no"]},
      "mcpServers": {
        "py": {"command": "python", "args": ["-m", "s", "$UNSET_STAYS", "$5"], "cwd": "./py", "env": {"KEY": "$TOKEN", "K2": "x${TOKEN}y"}, "trust": true},
        "web": {"httpUrl": "http://localhost:3000/mcp", "excludeTools": ["drop", "wipe"]},
        "no": {"command": "no"}
      }
    }"#;
    let entries = found("/work/shop/.gemini/settings.json", text);
    let lines: Vec<String> = entries.iter().map(line).collect();
    let expected = [
        "py = python -m s \"$UNSET_STAYS\" \"$5\" K2=xt0keny KEY=t0ken in /work/shop/./py",
        "web = http://localhost:3000/mcp",
        "no = off",
    ];
    assert_eq!(lines, expected);
    let hints: Vec<&str> =
        entries.iter().flat_map(|one| &one.problems).filter_map(|one| one.hint.as_deref()).collect();
    assert!(hints[0].contains("[[rule]]") && hints[1].contains("{drop,wipe}"), "{hints:?}");
}

#[test]
fn goose() {
    let text = "GOOSE_MODEL: \"x # y\"\nextensions:\n  developer:\n    type: builtin\n    enabled: true\n  drive:\n    type: stdio\n    cmd: npx\n    args: [\"-y\", '@x/drive']\n    envs: {MODE: 1}\n    env_keys:\n      - TOKEN\n      - DRIVE_KEY\n    enabled: true\n  web:\n    type: streamable_http\n    uri: https://web.example/mcp\n    headers: &h\n      X-A: \"b\"\n  off: {type: stdio, cmd: off, enabled: false}\n";
    let entries = found("/home/ana/.config/goose/config.yaml", text);
    let lines: Vec<String> = entries.iter().map(line).collect();
    let expected = [
        "developer = unusable",
        "drive = npx -y @x/drive MODE=1 TOKEN=t0ken",
        "web = https://web.example/mcp X-A=b",
        "off = off",
    ];
    assert_eq!(lines, expected);
    let places: Vec<(usize, Severity)> =
        entries.iter().flat_map(|one| &one.problems).map(|one| (one.line, one.severity)).collect();
    assert_eq!(places, [(4, Severity::Warning), (12, Severity::Warning)]);
    let broken = entries_of("/x/config.yaml", "extensions:\n  a: [1\n  b: 2\n");
    assert!(broken.message.contains("not valid YAML") && broken.line >= 2, "{broken}");
}

fn entries_of(path: &str, text: &str) -> Problem {
    entries(Path::new(path), text, Reading { vars: &vars, mcp: None }).expect_err(text)
}

#[test]
fn every_way_to_say_how_a_server_is_reached() {
    means(r#"{"command": "x"}"#, "x");
    means(r#"{"type": "stdio", "command": "x", "url": ""}"#, "x");
    means(r#"{"type": "local", "command": "x"}"#, "x");
    for kind in ["http", "streamable-http", "streamableHttp", "streamable_http", "remote"] {
        means(&format!(r#"{{"type": "{kind}", "url": "https://h/mcp"}}"#), "https://h/mcp");
    }
    means(r#"{"type": "sse", "url": "https://h/sse"}"#, "https://h/sse");
    means(r#"{"serverUrl": "https://h/mcp"}"#, "https://h/mcp");
    means(r#"{"url": "https://h/mcp", "command": null}"#, "https://h/mcp");
    means(r#"{"command": "x", "disabled": true, "args": 5}"#, "off");
    means(r#"{"command": "x", "enabled": false}"#, "off");
    means(r#"{"command": "x", "disabled": false, "args": ["--n", 3, true]}"#, "x --n 3 true");
    complains(r#"{"type": "ws", "url": "https://h/"}"#, 15, "`ws` is no known way", "\"http\"");
    complains(r#"{"args": []}"#, 6, "neither how to start", "\"command\"");
    complains(r#"{"command": "x", "url": "https://h/"}"#, 30, "both given", "delete one");
    complains(r#"{"command": ["x"]}"#, 18, "`mcpServers.a.command` cannot be [\"x\"]", "\"text\"");
    complains(
        r#"{"command": "x", "args": "-y"}"#,
        31,
        "`mcpServers.a.args` cannot be \"-y\"",
        "[\"text\", \"text\"]",
    );
    complains(r#"{"command": "x", "env": {"A": {}}}"#, 36, "`mcpServers.a.env` cannot be {}", "texts");
    complains(r#""npx""#, 6, "no table of settings", "\"command\"");
}

#[test]
fn fields_nobody_knows_are_never_errors() {
    for field in [r#""future": {"deep": [1, null]}"#, r#""oauth": {"clientId": "x"}"#, r#""timeout": 5000"#] {
        let text = format!(r#"{{"mcpServers": {{"a": {{"command": "x", {field}}}}}}}"#);
        let found = found("/m.json", &text);
        assert!(matches!(found[0].what, What::Server(_)), "{field}");
        assert!(found[0].problems.iter().all(|one| one.severity == Severity::Warning && one.hint.is_some()));
    }
    means(r#"{"command": "x", "description": "y", "version": "1", "icon": null}"#, "x");
}

#[test]
fn variables_in_all_spellings() {
    means(
        r#"{"command": "x", "args": ["${TOKEN}", "${NO:-d}", "${EMPTY:-e}", "${EMPTY}", "$TOKEN", "$${TOKEN}", "${", "a$"]}"#,
        r#"x t0ken d e "" "$TOKEN" "${TOKEN}" "${" "a$""#,
    );
    means(r#"{"url": "https://${HOST:-h.example}/mcp"}"#, "https://h.example/mcp");
    complains(r#"{"command": "${NO}"}"#, 18, "`NO` is not set", "set NO");
    complains(r#"{"command": "x", "env": {"K": "${NO}"}}"#, 36, "`NO` is not set", "${NO:-value}");
    complains(
        r#"{"command": "x", "args": ["${workspaceFolder}"]}"#,
        32,
        "belongs to no project",
        "write the path",
    );
    complains(r#"{"command": "x", "args": ["${config:a.b}"]}"#, 32, "its editor only", "${NAME}");
    complains(r#"{"command": "x", "args": ["${input:api}"]}"#, 32, "asked by VS Code", "INPUT_API");
    // What a variable holds is not expanded again, and what is switched off is not looked at.
    means(r#"{"command": "${NO}", "disabled": true}"#, "off");
}

#[test]
fn holdfast_itself_is_left_out() {
    for entry in [
        r#"{"command": "/opt/holdfast", "args": ["stdio", "-c", "x.toml"]}"#,
        r#"{"command": "holdfast", "args": ["-c", "x.toml", "stdio"]}"#,
        r#"{"url": "http://localhost:7411/mcp"}"#,
    ] {
        means(entry, "holdfast");
    }
    means(r#"{"command": "holdfast-tools", "args": ["stdio"]}"#, "holdfast-tools stdio");
    means(r#"{"url": "http://localhost:7410/mcp"}"#, "http://localhost:7410/mcp");
}

#[test]
fn an_env_file_is_read() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(
        directory.path().join(".env"),
        "# note\nexport A=1\nB=\"two words\"\nC='x=y'\nbroken\nK=file\n",
    )
    .expect("writable");
    let path = directory.path().join(".vscode/mcp.json");
    let text =
        r#"{"servers": {"a": {"command": "x", "envFile": "${workspaceFolder}/.env", "env": {"K": "own"}}}}"#;
    let read = read(path.to_str().expect("UTF-8"), text);
    assert!(read[0].starts_with("a = x A=1 B=two words C=x=y K=own"), "{read:?}");
    complains(
        r#"{"command": "x", "envFile": "/gone/.env"}"#,
        34,
        "/gone/.env cannot be read",
        "correct the path",
    );
}

#[test]
fn names_that_do_not_fit_change_and_stay_changed() {
    let long = "x".repeat(80);
    for (name, plain) in [
        ("github", "github"),
        ("My Server!", "My_Server"),
        ("@scope/server.v2", "scope_server_v2"),
        ("a__b", "a_b"),
        ("holdfast", "holdfast-server"),
        ("ä", "server-33e6d7"),
    ] {
        assert_eq!(plain_name(name), plain, "{name}");
    }
    assert_eq!(plain_name(&long).len(), 62);
    assert_ne!(plain_name(&long), plain_name(&format!("{long}y")));
    for name in ["", "__", "☃", &long, "-", "holdfast"] {
        assert_eq!(crate::config::servers::check_name(&plain_name(name)), Ok(()), "{name}");
    }
    assert_eq!(free_name("a", &|name| ["a", "a_2"].contains(&name)), "a_3");
}

#[test]
fn files_that_cannot_be_read_say_where() {
    let at = |path: &str, text: &str, line: usize, message: &str| {
        let problem = entries_of(path, text);
        assert_eq!((problem.line, problem.message.contains(message)), (line, true), "{text}\n{problem}");
        assert!(problem.hint.is_some(), "{problem}");
    };
    at("/m.json", "", 1, "the file is empty");
    at("/m.json", "{\"mcpServers\": {\n\"a\": {'command': 1}}}", 2, "not valid JSON");
    at("/m.json", "{\"mcpServers\": {}\n\"a\": 1}", 1, "Expected comma");
    at("/m.json", &"[".repeat(100_000), 1, "not valid JSON");
    at("/c.toml", "[mcp_servers.a]\ncommand = x\n", 2, "not valid TOML");
    for (path, text) in
        [("/m.json", "[]"), ("/m.json", "{}"), ("/c.toml", "model = 'x'"), ("/c.yaml", "a: 1")]
    {
        let found =
            entries(Path::new(path), text, Reading { vars: &vars, mcp: None }).expect("it can be read");
        assert!(found.is_none(), "{text}");
    }
    at("/m.json", "{\"mcpServers\": {\"a\": {},\n \"a\": {}}}", 2, "duplicate key");
    assert_eq!(read("/m.json", "\u{feff}{\"mcpServers\": {\"a\": {\"command\": \"x\"}}}"), ["a = x"]);
}
