//! Stories about configuration files: what loads, and which line is complained about in which words.

mod servers;

use std::{fs, path::Path};

use super::*;

fn vars(name: &str) -> Option<String> {
    let value = match name {
        "TOKEN" => "an-agent-token-of-some-length",
        "OTHER" => "another-token-of-some-length",
        "HOME" => "/home/ana",
        _ => return None,
    };
    Some(value.to_owned())
}

fn read(text: &str) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
    Config::read(Path::new("/etc/holdfast/holdfast.toml"), text, &vars)
}

/// `text` (below `version = 1`) has exactly this error, and no other.
fn check(text: &str, line: usize, message: &str) {
    let problems = read(&format!("version = 1\n{text}")).expect_err(text);
    let errors: Vec<&Problem> =
        problems.iter().filter(|problem| problem.severity == Severity::Error).collect();
    let [error] = errors.as_slice() else { panic!("{text}\n{problems:#?}") };
    assert_eq!((error.line, error.message.contains(message)), (line, true), "{text}\n{error}");
    assert!(error.hint.is_some(), "no hint: {error}");
}

/// `text` loads with exactly this warning.
fn check_warning(text: &str, line: usize, message: &str) {
    let (_, warnings) = read(&format!("version = 1\n{text}")).expect(text);
    let [warning] = warnings.as_slice() else { panic!("{text}\n{warnings:#?}") };
    assert_eq!((warning.line, warning.message.contains(message)), (line, true), "{text}\n{warning}");
}

#[test]
fn the_reference_loads_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let reference = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/reference.toml");
    let text = fs::read_to_string(reference).expect("the reference exists");
    let file = directory.path().join("holdfast.toml");
    fs::write(
        directory.path().join(".mcp.json"),
        r#"{"mcpServers":{"files":{"command":"files","args":["."]}}}"#,
    )
    .expect("writable");
    let vars = |name: &str| match name {
        "HOLDFAST_AGENT_TOKEN"
        | "HOLDFAST_ANA_TOKEN"
        | "HOLDFAST_PROXY_SECRET"
        | "SEARCH_TOKEN"
        | "SEARCH_SECRET" => Some(format!("{name}-of-some-length")),
        "PAGER_SECRET" => Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()),
        "CHAT_WEBHOOK" => Some("https://chat.example/services/T0/B0/x".to_owned()),
        "NTFY_TOKEN" => Some("tk_agqdq7mvbowxas98qzs5s3mf4rpp".to_owned()),
        _ => None,
    };
    let (config, warnings) = Config::read(&file, &text, &vars).expect("the reference is valid");
    assert_eq!(warnings, []);
    assert_eq!(
        config.listen,
        Listen { inbox_url: Some("https://holdfast.example".to_owned()), ..Listen::default() }
    );
    let told: Vec<(&str, &str, usize)> =
        config.notify.iter().map(|sink| (sink.name.as_str(), sink.way.name(), sink.topics.len())).collect();
    let expected =
        [("pager", "webhook", 4), ("chat", "slack", 1), ("phone", "ntfy", 4), ("desktop", "command", 4)];
    assert_eq!(told, expected);
    assert_eq!(config.intake, Intake::default());
    assert_eq!(config.store.place, Place::Redb(directory.path().join("holdfast.redb")));
    assert_eq!((config.store.keep_answers_ms, config.store.keep_tombstones_ms), (604_800_000, 7_776_000_000));
    assert_eq!(config.store.keep_servers_ms, Some(60_000));
    assert_eq!(config.agents[0].owner.as_deref(), Some("ana"));
    assert_eq!(
        (config.operators[0].role, config.operators[0].groups.as_slice()),
        (Role::Approver, &["finance".to_owned()][..])
    );
    let identities: Vec<(&str, String)> =
        config.servers.iter().map(|server| (server.name.as_str(), server.identity())).collect();
    let expected = [
        ("bank", "bank --ledger ledger.jsonl"),
        ("search", "https://search.example/mcp"),
        ("files", "files ."),
    ];
    assert_eq!(identities, expected.map(|(name, identity)| (name, identity.to_owned())));
    assert_eq!(config.server("bank").expect("configured").breaker, Breaker::default());
    assert_eq!(config.policy.rules().len(), 4);
}

#[test]
fn what_stands_nowhere_has_its_default() {
    let (config, warnings) = read("version = 1").expect("the smallest file");
    assert_eq!(warnings, []);
    assert_eq!(config.store.place, Place::Redb("/etc/holdfast/holdfast.redb".into()));
    assert_eq!(config.listen.mcp.to_string(), "127.0.0.1:7411");
}

#[test]
fn the_starter_loads() {
    read(find::STARTER).expect("what we tell people to write must be right");
}

#[test]
fn the_file_as_a_whole() {
    let problems = read("").expect_err("no version");
    assert!(problems[0].message.contains("does not say its version"), "{problems:?}");
    let problems = read("version = 2").expect_err("unknown version");
    assert!(problems[0].message.contains("version"), "{problems:?}");
    check("[sever.bank]\ncommand = 'x'", 2, "unknown key `sever`");
    check("[listen]\nmpc = '127.0.0.1:1'", 3, "unknown key `listen.mpc`");
    check("[servers.a]\ncommand = '${NOT_SET}'", 3, "`NOT_SET` is not set");
}

#[test]
fn every_problem_is_reported_at_once_and_in_order() {
    let text = "version = 1\n[listen]\nmcp = 'x'\n[store]\nurl = 'mysql://h/d'\n[servers.a__b]\nurl = 'ftp://h/'\n[intake]\nmax_depht = 3";
    let problems = read(text).expect_err("many errors");
    assert_eq!(problems.iter().map(|problem| problem.line).collect::<Vec<_>>(), [3, 5, 6, 7, 9]);
    assert!(
        problems[4].hint.as_ref().is_some_and(|hint| hint.contains("did you mean `max_depth`")),
        "{problems:?}"
    );
}

#[test]
fn addresses() {
    check("[listen]\nmcp = 'localhost:7411'", 3, "`listen.mcp` cannot be");
    check("[listen]\nmcp = '127.0.0.1'", 3, "`listen.mcp` cannot be");
    check("[listen]\nmcp = '127.0.0.1:7412'", 2, "same address");
    check("[listen]\nmcp = '0.0.0.0:7411'", 3, "no agent has a token");
    check("[listen]\nmcp = '[::]:7411'", 3, "no agent has a token");
    check("[listen]\ninbox = '192.168.1.4:7412'", 3, "no operator has a token");
    // A token for one listener opens the other for nobody.
    check(
        "[listen]\ninbox = '192.168.1.4:7412'\n[agents.a]\ntoken = '${TOKEN}'",
        3,
        "no operator has a token",
    );
    let open = "version = 1\n[listen]\nmcp = '0.0.0.0:1'\ninbox = '0.0.0.0:2'\n[agents.a]\ntoken = '${TOKEN}'\n[operators.b]\ntoken = '${OTHER}'";
    read(open).expect("tokens on both sides");
    read("version = 1\n[listen]\nmcp = '[::1]:0'\ninbox = '127.0.0.1:0'").expect("loopback needs no tokens");
}

#[test]
fn stores() {
    check("[store]\nurl = 'sqlite:x.db'", 3, "of no known kind");
    check("[store]\nurl = 'redb:'", 3, "names no file");
    check("[store]\nurl = 'postgres://u@h/d'", 3, "Postgres is not built in");
    check("[store]\ndurability = 'none'", 3, "does not know this word");
    check("[store]\nkeep_answers = '10'", 3, "keep_answers");
    check("[store]\nkeep_answers = '0s'", 3, "out of range");
    check("[store]\nkeep_answers = '100d'", 3, "shorter than");
    check("[store]\nkeep_answers = '2d'\nkeep_tombstones = '1d'", 4, "shorter than");
    let (config, _) =
        read("version = 1\n[store]\nurl = 'redb:/var/lib/h.redb'\ndurability = 'one-phase'").expect("valid");
    assert_eq!(config.store.place, Place::Redb("/var/lib/h.redb".into()));
}

#[test]
fn people() {
    check("[agents.a]\nowner = 'x'", 2, "has no token");
    check("[agents.a]\ntoken = ''", 3, "cannot be empty");
    check("[agents.a]\ntoken = 'two words and more'", 3, "spaces");
    check("[agents.a]\ntoken_sha256 = 'abc'", 3, "token_sha256");
    check(&format!("[agents.a]\ntoken = '${{TOKEN}}'\ntoken_sha256 = '{}'", "0".repeat(64)), 4, "both given");
    check("[agents.a]\ntoken = '${TOKEN}'\n[agents.b]\ntoken = '${TOKEN}'", 5, "also the token of agent `a`");
    check(
        "[agents.a]\ntoken = '${TOKEN}'\n[operators.b]\ntoken = '${TOKEN}'",
        3,
        "also the token of operator `b`",
    );
    check("[operators.'a b']\ntoken = '${TOKEN}'", 2, "cannot be a name");
    check("[operators.a]\ntoken = '${TOKEN}'\nrole = 'boss'", 4, "does not know this word");
    check_warning("[agents.a]\ntoken = 'short'", 3, "only 5 characters");
    check_warning("[agents.a]\ntoken = '${TOKEN}'\nowner = 'bob'", 4, "`bob` is no operator");
}

#[test]
fn whom_the_inbox_believes() {
    let table = "[operators.ana]\n[listen.trusted_proxy]\nfrom = ['10.0.0.5']\nsecret = '${TOKEN}'\n";
    let (config, warnings) =
        read(&format!("version = 1\n{table}user_header = 'X-Forwarded-User'")).expect("valid");
    assert_eq!((warnings.len(), config.operators[0].token_sha256), (0, None), "{warnings:?}");
    assert!(read("version = 1").expect("valid").0.trusted_proxy.is_none());

    check(table, 2, "`operators.ana` has no token");
    let check = |line: usize, keys: &str, message: &str| {
        check(
            &format!("[operators.ana]\ntoken = '${{TOKEN}}'\n[listen.trusted_proxy]\n{keys}"),
            line,
            message,
        );
    };
    let secret = "secret = '${OTHER}'\n";
    check(4, secret, "where the proxy connects from");
    check(4, "from = ['127.0.0.1']", "every program there, an agent too");
    check(6, &format!("{secret}from = ['0.0.0.0/0']"), "has strangers in it");
    check(6, &format!("{secret}from = ['10.0.0.5', '::/0']"), "has strangers in it");
    check(6, &format!("{secret}from = ['proxy.example']"), "is no network");
    check(6, "from = ['10.0.0.5']\nsecret = 'short'", "shorter than 16");
    check(7, &format!("{secret}from = ['::1']\nuser_header = 'Host'"), "user_header");
    check(7, &format!("{secret}from = ['::1']\nuser_headers = 'X-User'"), "user_headers");
}

#[test]
fn the_proxy_can_only_name_operators() {
    let table = "[listen.trusted_proxy]\nfrom = ['10.0.0.5']\nsecret = '${TOKEN}'\nuser_header = 'X-User'";
    check(table, 5, "there are none");
}

#[test]
fn a_hash_stands_for_its_token() {
    let hash = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8";
    let (config, _) =
        read(&format!("version = 1\n[agents.a]\ntoken_sha256 = '{hash}'\n[agents.b]\ntoken='${{TOKEN}}'"))
            .expect("valid");
    let (plain, _) = read("version = 1\n[agents.a]\ntoken = 'password'").expect("valid but short");
    assert_eq!(config.agents[0].token_sha256, plain.agents[0].token_sha256);
    assert!(!format!("{config:?}").contains("an-agent-token"), "a token survived");
}

#[test]
fn one_mistake_is_one_problem() {
    let text = "[listen]\nmcp = '0.0.0.0:1'\n[agents.a]\ntoken = '${NOT_SET}'\nowner = 'b'\n[operators.b]\ntoken = '${TOKEN}'\ngroups = ['g']";
    check(text, 5, "`NOT_SET` is not set");
    let text = "version = 1\n[agents.a]\ntoken = '${TOKEN}'\nowner = 'b'\n[operators.b]\ntoken = '${NOT_SET}'\n[[rule]]\nid = 'r'\neffect = 'ask'\n[rule.gate]\napprovers = ['operator:b']";
    assert_eq!(read(text).expect_err("unset").len(), 1);
}

const WEBHOOK: &str =
    "kind = 'webhook'\nurl = 'https://203.1.2.3/x'\nsecret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'";

#[test]
fn addresses_that_people_open() {
    check("[listen]\ninbox_url = 'holdfast.example'", 3, "not an address that a browser opens");
    check("[listen]\ninbox_url = 'javascript:alert(1)'", 3, "not an address that a browser opens");
    check("[listen]\ninbox_url = 'https://ana:x@holdfast.example'", 3, "credentials in a URL");
    check("[listen]\ninbox_url = 'https://holdfast.example/inbox'", 3, "at the root of its host");
    check_warning("[listen]\ninbox_url = 'http://holdfast.example'", 3, "http to another machine");
    let base = |listen: &str, bound: &str| {
        let (config, _) = read(&format!("version = 1\n[listen]\n{listen}")).expect(listen);
        config.listen.inbox_base(bound.parse().expect("an address"))
    };
    assert_eq!(base("inbox_url = 'https://holdfast.example/'", "127.0.0.1:80"), "https://holdfast.example");
    assert_eq!(base("", "127.0.0.1:7412"), "http://127.0.0.1:7412");
    assert_eq!(base("", "0.0.0.0:80"), "http://127.0.0.1:80");
    assert_eq!(base("", "[::]:80"), "http://127.0.0.1:80");
    assert_eq!(base("", "[::1]:80"), "http://[::1]:80");
}

#[test]
fn who_is_notified() {
    let check = |sink: &str, line: usize, message: &str| check(&format!("[notify.a]\n{sink}"), line, message);
    check("url = 'https://h/'", 2, "does not say how to tell it");
    check("kind = 'mail'", 3, "does not know this word");
    check("kind = 'webhook'\nurl = 'https://h/'", 2, "has no secret to sign with");
    check("kind = 'webhook'\nurl = 'https://h/'\nsecret = 'whsec_c2hvcnQ='", 5, "base64 of 24 to 64 bytes");
    check(
        "kind = 'webhook'\nurl = 'https://h/'\nsecret = 'MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'",
        5,
        "not `whsec_`",
    );
    check("kind = 'slack'", 2, "has no address");
    check("kind = 'slack'\nurl = 'https://u:p@h/'", 4, "credentials in a URL");
    check("kind = 'slack'\nurl = 'ftp://h/'", 4, "`ftp:` is not a way");
    check("kind = 'slack'\nurl = 'http://h/'", 4, "anybody on the way can read");
    check("kind = 'slack'\nurl = 'https://h/'\ntoken = 'x'", 5, "has no `token`");
    check("kind = 'slack'\nurl = 'https://h/'\nchannel = '#x'", 5, "unknown key `notify.a.channel`");
    check("kind = 'ntfy'\nurl = 'https://ntfy.sh'", 4, "without a topic");
    check("kind = 'ntfy'\nurl = 'https://ntfy.sh/t'\ntoken = 'a b'", 5, "a token cannot be empty");
    check("kind = 'command'", 2, "names no program");
    check("kind = 'command'\ncommand = 'x'\nurl = 'https://h/'", 5, "has no `url`");
    check("kind = 'command'\ncommand = 'x'\nevents = ['held', 'helt']", 5, "does not know \"helt\"");
    check("kind = 'command'\ncommand = 'x'\nevents = []", 5, "told nothing");
    super::tests::check("[notify.'a b']\nkind = 'command'\ncommand = 'x'", 2, "cannot be a name");
    check_warning(
        &format!("[notify.a]\n{WEBHOOK}"),
        2,
        "links to http://127.0.0.1:7412, which only this machine",
    );
}

#[test]
fn notifications_stay_out_of_private_networks_unless_that_is_meant() {
    for host in ["127.0.0.1", "localhost", "169.254.169.254", "2852039166", "0xa9fea9fe", "[::ffff:10.0.0.1]"]
    {
        let sink = format!("[notify.a]\nkind = 'slack'\nurl = 'https://{host}/'");
        check(&sink, 4, "notifications do not go there");
        read(&format!("version = 1\n{sink}\nallow_private = true")).expect(host);
    }
}

#[test]
fn what_opens_a_receiver_is_not_printed() {
    let text = "version = 1\n[notify.a]\nkind = 'slack'\nurl = 'https://h.example/services/T0/secret-path'\n\
        [notify.b]\nkind = 'ntfy'\nurl = 'https://n.example/secret-topic'\ntoken = 'secret-token'\n[notify.c]\n";
    let (config, _) = read(&format!("{text}{WEBHOOK}")).expect("valid");
    let printed = format!("{config:?} {}", config.notify[0].way);
    assert!(!printed.contains("secret-") && !printed.contains("MfKQ"), "{printed}");
    assert_eq!(config.notify[0].way.to_string(), "https://h.example");
}

#[test]
fn servers() {
    check("[servers.a]\nshare = 'all'", 2, "neither how to start nor where");
    check("[servers.a]\ncommand = 'x'\nurl = 'http://127.0.0.1/'", 4, "both given");
    check("[servers.a]\ncommand = ' '", 3, "names no program");
    check("[servers.a]\ncommand = 'x'\nheaders = { A = 'b' }", 4, "has no headers");
    check("[servers.a]\nurl = 'https://h/'\nenv = { A = 'b' }", 4, "starts no process");
    check("[servers.a]\nurl = 'file:///etc/passwd'", 3, "`file:` is not a way");
    check("[servers.a]\nurl = 'javascript:alert(1)'", 3, "`javascript:` is not a way");
    check("[servers.a]\nurl = 'https://u:p@h/'", 3, "credentials in a URL");
    check("[servers.a]\nurl = 'h/mcp'", 3, "not an address");
    check("[servers.a]\nurl = 'https://h/'\nheaders = { 'a b' = 'c' }", 4, "name of a header");
    check("[servers.a]\nurl = 'https://h/'\nheaders = { A = \"x\\ny\" }", 4, "cannot carry");
    check("[servers.a]\nurl = 'https://h/'\nheaders = { Host = 'x' }", 4, "itself sends");
    check("[servers.a]\ncommand = 'x'\nenv = { 'A=B' = 'x' }", 4, "cannot be set in an environment");
    check("[servers.a]\ncommand = 'x'\nunexecuted = ['429']", 4, "list of whole numbers");
    check("[servers.a]\ncommand = 'x'\nunexecuted = [429, 200]", 4, "200 is neither");
    check("[servers.a]\ncommand = 'x'\nbreaker = { failures = 0 }", 4, "out of range");
    check("[servers.a]\ncommand = 'x'\nbreaker = { open = '0s' }", 4, "out of range");
    check("[servers.a]\ncommand = 'x'\nshare = 'some'", 4, "does not know this word");
    check_warning("[servers.a]\ncommand = 'npx -y x'", 3, "one program");
    check_warning("[servers.a]\nurl = 'http://example.org/mcp'", 3, "another machine");
    check_warning("[servers.a]\ncommand = 'x'\nunexecuted = [503]", 4, "usually says nothing");
}

#[test]
fn names_of_servers_cannot_make_two_tools_one() {
    for name in ["a__b", "_a", "a_", "'a.b'", "'a b'", "''", "'ä'", "holdfast"] {
        check(&format!("[servers.{name}]\ncommand = 'x'"), 2, "cannot be the name of a server");
    }
    check(&format!("[servers.{}]\ncommand = 'x'", "a".repeat(63)), 2, "longer than 128");
    read(&format!(
        "version = 1\n[servers.{}]\ncommand = 'x'\n[servers.a_b-c]\ncommand = 'y'",
        "a".repeat(62)
    ))
    .expect("good names");
}

#[test]
fn paths_start_at_the_file_and_identities_hide_secrets() {
    let text = "version = 1\n[servers.a]\ncommand = './bin/a'\nargs = ['x y', '']\ncwd = 'work'\nenv = { K = '${TOKEN}' }\n[servers.b]\nurl = 'https://h/mcp'\nheaders = { K = '${TOKEN}' }";
    let (config, _) = read(text).expect("valid");
    let Transport::Stdio { command, cwd, .. } = &config.servers[0].transport else { panic!("stdio") };
    assert!(command.starts_with("/etc/holdfast/") && command.ends_with("bin/a"), "{command}");
    assert_eq!(cwd.as_deref(), Some(Path::new("/etc/holdfast/work")));
    assert!(config.servers[0].identity().ends_with(r#"bin/a "x y" """#), "{}", config.servers[0].identity());
    assert!(!format!("{config:?}").contains("an-agent-token"));
}

#[test]
fn rules_that_mean_nothing_are_pointed_out() {
    check_warning(
        "[servers.a]\ncommand = 'x'\n[[rule]]\nid = 'r'\neffect = 'deny'\nserver = 'bank'",
        7,
        "no known server",
    );
    check_warning(
        "[servers.a]\ncommand = 'x'\n[[rule]]\nid = 'r'\neffect = 'ask'\n[rule.gate]\napprovers = ['group:finance']",
        4,
        "asks group:finance, which no operator is",
    );
    check_warning(
        "[servers.a]\ncommand = 'x'\n[operators.ana]\ntoken = '${TOKEN}'\nrole = 'viewer'\n[[rule]]\nid = 'r'\neffect = 'ask'\n[rule.gate]\napprovers = ['operator:ana']",
        7,
        "nobody can approve",
    );
}

/// Imports a file of that name and content.
fn import(name: &str, content: &str, toml: &str) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(name);
    fs::create_dir_all(path.parent().expect("has a parent")).expect("writable");
    fs::write(&path, content).expect("writable");
    let text = format!("version = 1\n[import]\nmcp_servers = ['{name}']\n{toml}");
    Config::read(&directory.path().join("holdfast.toml"), &text, &vars)
}

fn imported(name: &str, content: &str) -> Vec<(String, String)> {
    let (config, _) = import(name, content, "").expect(content);
    config.servers.iter().map(|server| (server.name.clone(), server.identity())).collect()
}

#[test]
fn files_of_clients_are_used_as_they_are() {
    let pair = |name: &str, identity: &str| (name.to_owned(), identity.to_owned());
    let claude = r#"{"mcpServers": {"a": {"type": "stdio", "command": "a", "args": ["${TOKEN}", "${X:-y}"], "env": {}, "cwd": null},
        "b": {"type": "http", "url": "https://h/mcp", "headers": {"Authorization": "Bearer ${TOKEN}"}},
        "c": {"command": "c", "disabled": true}, "holdfast": {"command": "/usr/bin/holdfast", "args": ["stdio"]},
        "d": {"url": "http://127.0.0.1:7411/mcp"}}, "other": [1, null]}"#;
    assert_eq!(
        imported(".mcp.json", claude),
        [pair("a", "a an-agent-token-of-some-length y"), pair("b", "https://h/mcp")]
    );
    let code = "{\n // comment with \"quotes\"\n \"servers\": {\"My Server\": {\"command\": \"x\", \"args\": [\"${env:TOKEN}\", \"\\/\\u00e4\\ud83d\\ude00\",],},},\n /* { */ }";
    assert_eq!(
        imported(".vscode/mcp.json", code),
        [pair("My_Server", "x an-agent-token-of-some-length \"/ä😀\"")]
    );
    let codex =
        "[mcp_servers.a]\ncommand = 'a'\n[mcp_servers.b]\nurl = 'https://h/'\nbearer_token_env_var = 'TOKEN'";
    let (config, warnings) = import("config.toml", codex, "").expect("valid");
    assert_eq!(warnings, []);
    let Transport::Http { headers, .. } = &config.servers[1].transport else { panic!("http") };
    assert_eq!(headers, &[("Authorization".to_owned(), "Bearer an-agent-token-of-some-length".to_owned())]);
    assert_eq!(
        imported("g.json", r#"{"mcpServers":{"g":{"httpUrl":"https://g/mcp"}}}"#),
        [pair("g", "https://g/mcp")]
    );
}

#[test]
fn problems_of_imported_files_stand_in_their_lines() {
    let check = |content: &str, line: usize, column: usize, message: &str| {
        let problems = import("m.json", content, "").expect_err(content);
        let [problem] = problems.as_slice() else { panic!("{content}\n{problems:#?}") };
        assert!(problem.file.ends_with("m.json"), "{problem}");
        assert_eq!((problem.line, problem.column), (line, column), "{problem}");
        assert!(problem.message.contains(message), "{problem}");
        assert_eq!(problem.text, content.lines().nth(line - 1).expect("the line is there"), "{problem}");
    };
    check("{\"mcpServers\":\n {\"a\": {\"command\": 5}}}", 2, 20, "`mcpServers.a.command` cannot be");
    check("{\"mcpServers\": {\"a\": {\"url\": \"ftp://h/\"}}}", 1, 30, "`ftp:` is not a way");
    check("{\"mcpServers\": {\"a\": {\"command\": \"${NOT_SET}\"}}}", 1, 34, "NOT_SET");
    check("{\"mcpServers\":\n {\"a\": }}", 2, 8, "not valid JSON");
    check("{\"x\": {}}", 1, 1, "lists no servers");
    check("{\"mcpServers\":{\"a\":{\"command\":\"x\"},\n\"a\":{\"command\":\"y\"}}}", 2, 1, "duplicate key");
}

#[test]
fn without_a_file_the_error_says_what_to_write() {
    let nowhere = |_: &str| None;
    let given = find::file(Some(Path::new("x.toml")), &nowhere).expect("given");
    assert_eq!(given, Path::new("x.toml"));
    let directory = tempfile::tempdir().expect("a directory");
    let home = directory.path().as_os_str().to_owned();
    let vars = |name: &str| (name == "XDG_CONFIG_HOME").then(|| home.clone());
    let problem = find::file(None, &vars).expect_err("nothing there");
    assert!(problem.hint.as_ref().is_some_and(|hint| hint.contains("[servers.files]")), "{problem}");
    let own = directory.path().join("holdfast/holdfast.toml");
    fs::create_dir_all(own.parent().expect("has a parent")).expect("writable");
    fs::write(&own, find::STARTER).expect("writable");
    assert_eq!(find::file(None, &vars).expect("the user's own"), own);
}

#[test]
fn commands_find_the_journal_whatever_else_is_unset_or_wrong() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("holdfast.toml");
    let located = |text: &str| {
        fs::write(&file, text).expect("writable");
        locate(Some(&file)).map(|(_, store)| store.place).map_err(|problems| problems[0].line)
    };
    let rest = "[servers.a]\nurl = '${NOT_SET_ANYWHERE}'\nshared = 1\n";
    assert_eq!(located(rest), Ok(Place::Redb(directory.path().join("holdfast.redb"))));
    let text = format!("{rest}[store]\nurl = 'redb:journal/h.redb'");
    assert_eq!(located(&text), Ok(Place::Redb(directory.path().join("journal/h.redb"))));
    assert_eq!(located("[store]\nurl = 'x'"), Err(2));
    assert_eq!(located("[store"), Err(1));
}
