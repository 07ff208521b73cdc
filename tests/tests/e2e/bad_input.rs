//! What cannot be right: told at once, with its place and the way out, and nothing hangs.

use holdfast_tests::{ALLOW, Agent, Connection, Response, Served, World, payment};
use serde_json::{Value, json};

/// `check` refuses this configuration at this line, with these words and a hint; and so does `serve`.
#[track_caller]
fn refused(config: &str, line: usize, words: &str) {
    let world = World::empty();
    world.write("holdfast.toml", config);
    for command in ["check", "serve"] {
        let ran = world.run(&[command]);
        assert_eq!(ran.code, Some(1), "{command}: {ran:?}");
        let place = format!("holdfast.toml:{line}:");
        assert!(ran.stderr.contains(&place), "{command} does not say {place}\n{}", ran.stderr);
        assert!(ran.stderr.contains(words), "{command} does not say {words}\n{}", ran.stderr);
        assert!(ran.stderr.contains("hint: "), "{command} gives no hint\n{}", ran.stderr);
        assert_eq!(ran.stdout, "", "{command}");
    }
    assert!(!world.path("holdfast.redb").exists(), "a journal was made for a wrong configuration");
}

#[test]
fn wrong_configurations_are_refused_with_their_line() {
    let server = "version = 1\n[servers.a]\ncommand = \"x\"\n";
    let rule = format!("{server}[[rule]]\nid = \"r\"\n");
    refused("version = 1\n[sever.a]\n", 2, "sever");
    refused("version = 1\n[listen]\nmpc = \"127.0.0.1:0\"\n", 3, "mpc");
    refused("version = 1\n[listen]\nmcp = 7411\n", 3, "listen.mcp");
    refused("version = 1\n[defaults]\neffect = \"alow\"\n", 3, "alow");
    refused("version = 1\n[defaults]\nattempt_timeout = \"soon\"\n", 3, "attempt_timeout");
    refused("version = 1\n[defaults\n", 2, "");
    refused(&format!("{rule}effect = \"deny\"\ntool = \"a{{b\"\n"), 7, "a{b");
    refused(
        &format!("{rule}effect = \"deny\"\nwhen = [{{ arg = \"/a\", op = \"regex\", value = \"(\" }}]\n"),
        7,
        "(",
    );
    refused(
        &format!("{rule}effect = \"deny\"\nwhen = [{{ arg = \"a\", op = \"eq\", value = 1 }}]\n"),
        7,
        "a",
    );
    refused(&format!("{rule}effect = \"deny\"\n[[rule]]\nid = \"r\"\neffect = \"ask\"\n"), 8, "r");
    refused("version = 1\n[servers.a]\ncommand = \"${NOT_SET_ANYWHERE}\"\n", 3, "NOT_SET_ANYWHERE");
    refused("version = 1\n[servers.a]\nshare = \"all\"\n", 2, "");
    refused("version = 1\n[servers.a]\nurl = \"ftp://example.org/\"\n", 3, "ftp");
    refused("version = 1\n[servers.a]\nurl = \"javascript:alert(1)\"\n", 3, "javascript");
    refused("version = 1\n[servers.a__b]\ncommand = \"x\"\n", 2, "a__b");
    refused("version = 1\n[listen]\nmcp = \"0.0.0.0:0\"\n", 3, "token");
    refused("version = 1\n[listen]\ninbox = \"0.0.0.0:0\"\n", 3, "token");
    refused("version = 1\n[store]\nurl = \"sqlite:x\"\n", 3, "sqlite");
    refused("version = 1\n[import]\nmcp_servers = [\"gone.json\"]\n", 3, "gone.json");
}

#[test]
fn a_keyed_rule_without_a_key_for_the_server_is_refused() {
    let world =
        World::bank("[[rule]]\nid = \"r\"\nserver = \"bank\"\ntool = \"transfer\"\nrepeat = \"keyed\"\n");
    let ran = world.run(&["check"]);
    let explained = world.run(&["explain", "bank", "transfer", "--json"]);
    // Either the file is refused, or the verdict is not `keyed`: what must not be is a promise without ground.
    assert!(ran.code == Some(1) || !explained.stdout.contains("\"keyed\""), "{ran:?}\n{explained:?}");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let world = World::empty();
    world.write(
        "holdfast.toml",
        "version = 1\n[listen]\nmcp = \"x\"\n[store]\nurl = \"y:z\"\n[intake]\nmax_depht = 3\n",
    );
    let ran = world.run(&["check", "--json"]);
    assert_eq!(ran.code, Some(1));
    let report = ran.json();
    let lines: Vec<&Value> =
        report["problems"].as_array().expect("a list").iter().map(|p| &p["line"]).collect();
    assert_eq!((&report["ok"], lines), (&json!(false), vec![&json!(3), &json!(5), &json!(7)]), "{report}");
    assert!(ran.stderr.contains("did you mean `max_depth`"), "{}", ran.stderr);
}

#[test]
fn a_configuration_that_is_not_there() {
    let world = World::empty();
    let given = world.run(&["serve", "-c", "nowhere.toml"]);
    assert_eq!(given.code, Some(1));
    assert!(given.stderr.contains("nowhere.toml") && given.stderr.contains("hint: "), "{}", given.stderr);
    let none = world.run(&["serve"]);
    assert_eq!(none.code, Some(1));
    assert!(none.stderr.contains("holdfast.toml") && none.stderr.contains("[servers."), "{}", none.stderr);
}

#[test]
fn wrong_usage_is_two() {
    let world = World::bank(ALLOW);
    for args in [
        vec!["serve", "--no-such-flag"],
        vec!["fly"],
        vec!["show"],
        vec!["reject", "abcd1234"],
        vec!["resolve", "abcd1234"],
        vec!["resolve", "abcd1234", "--not-sent", "--give-up"],
        vec!["calls", "--limit", "many"],
    ] {
        let ran = world.run(&args);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{args:?}: {ran:?}");
        assert!(!ran.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn a_port_that_is_taken() {
    let world = World::bank(ALLOW);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = taken.local_addr().expect("it listens").to_string();
    for key in ["mcp", "inbox"] {
        let other = if key == "mcp" { "inbox" } else { "mcp" };
        world.write(
            "holdfast.toml",
            &format!(
                "version = 1\n[listen]\n{key} = \"{address}\"\n{other} = \"127.0.0.1:0\"\n{}",
                world.server_bank()
            ),
        );
        let ran = world.run(&["serve"]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(
            ran.stderr.contains(&address) && ran.stderr.contains(&format!("listen.{key}")),
            "{}",
            ran.stderr
        );
        assert!(ran.stderr.contains("hint: "), "{}", ran.stderr);
        assert_eq!(ran.stdout, "");
    }
    assert_eq!(world.processes(), Vec::<i32>::new());
}

#[test]
fn a_journal_that_another_serve_has() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let second = world.run(&["serve"]);
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains("another `holdfast serve`"), "{}", second.stderr);
    assert!(second.stderr.contains("hint: "), "{}", second.stderr);
    // The first one is none the worse for it, and is still found.
    assert!(Agent::modern(&served, "agent").call("bank__transfer", payment("INV-1")).succeeded());
    assert!(world.run(&["calls"]).ok().contains("bank/transfer"));
}

#[test]
fn a_journal_that_cannot_be() {
    let world = World::bank(ALLOW);
    world.write("a-file", "");
    for place in ["a-file/holdfast.redb", "no/such/directory/holdfast.redb", "/proc/holdfast.redb"] {
        world.configure(&format!("[store]\nurl = \"redb:{place}\"\n{}", world.server_bank()));
        let ran = world.run(&["serve"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{place}: {ran:?}");
        assert!(ran.stderr.contains(place) && ran.stderr.contains("hint: "), "{place}: {}", ran.stderr);
    }
    world.write("holdfast.redb", "this is no journal, and nobody may overwrite it");
    world.configure(&world.server_bank());
    let ran = world.run(&["serve"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
    assert!(ran.stderr.contains("holdfast.redb") && ran.stderr.contains("hint: "), "{}", ran.stderr);
    let kept = std::fs::read_to_string(world.path("holdfast.redb")).expect("it is still there");
    assert_eq!(kept, "this is no journal, and nobody may overwrite it");
}

#[test]
fn ids_that_name_no_call() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    Agent::modern(&served, "agent").call("bank__transfer", payment("INV-1"));
    for args in [
        vec!["show", "ffffffff"],
        vec!["show", "not-an-id"],
        vec!["approve", "ffffffff"],
        vec!["reject", "ffffffff", "--reason", "x"],
        vec!["resolve", "ffffffff", "--not-sent"],
        vec!["cancel", "ffffffff"],
        vec!["release", "ffffffff"],
    ] {
        let ran = world.run(&args);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(args[1]) && ran.stderr.contains("hint: "), "{args:?}: {}", ran.stderr);
    }
    // What is done waits for nobody's decision.
    let call = world.run(&["calls", "--json"]).json()["calls"][0]["call"].as_str().expect("an id").to_owned();
    for args in [vec!["approve", &call], vec!["resolve", &call, "--not-sent"], vec!["cancel", &call]] {
        let ran = world.run(&args);
        assert_eq!(ran.code, Some(1), "{args:?}: {ran:?}");
    }
    drop(served);
    let decided = world.run(&["approve", &call]);
    assert_eq!(decided.code, Some(1));
    assert!(decided.stderr.contains("holdfast serve"), "{}", decided.stderr);
}

/// Posts this body to the MCP listener.
fn post(served: &Served, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let mut connection = Connection::open(&served.mcp);
    let usual = [("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream")];
    connection.send("POST", "/mcp", &[&usual, headers].concat(), body);
    connection.response()
}

const MODERN: [(&str, &str); 3] =
    [("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", "tools/call"), ("Mcp-Name", "bank__transfer")];

/// A payment whose arguments are this text.
fn request(arguments: &str) -> String {
    let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"bank__transfer","arguments":{arguments},"_meta":{meta}}}}}"#
    )
}

/// The world is well: it still serves, and nothing was paid.
fn unharmed(world: &World, served: &Served) {
    assert_eq!(world.ledger().len(), 0);
    assert!(Agent::modern(served, "agent").call("bank__echo", json!({ "message": "hi" })).succeeded());
}

#[test]
fn requests_that_cannot_be_read() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let payment = r#"{"from":"alice","to":"shop","amount":1}"#;
    let good = request(payment);
    let batch = format!("[{good}]");
    let cut = &good[..good.len() - 2];
    let foreign = good.replace(r#""jsonrpc":"2.0","#, "");
    let nameless = good.replace(r#""name":"bank__transfer","#, "");
    let latin = [b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\xe4\"}".as_slice()].concat();
    for (what, body, status, code) in [
        ("nothing", b"".as_slice(), 400, -32700),
        ("no JSON", b"pay 40 to shop", 400, -32700),
        ("half of it", cut.as_bytes(), 400, -32700),
        ("not UTF-8", &latin, 400, -32700),
        ("a batch", batch.as_bytes(), 400, -32600),
        ("no version", foreign.as_bytes(), 400, -32600),
        ("a text", b"\"hi\"", 400, -32600),
        ("null", b"null", 400, -32600),
        ("no name", nameless.as_bytes(), 200, -32602),
    ] {
        let response = post(&served, &MODERN, body);
        let said = response.json();
        assert_eq!((response.status(), &said["error"]["code"]), (status, &json!(code)), "{what}: {said}");
        assert!(said["error"]["message"].as_str().is_some_and(|words| words.len() > 10), "{what}: {said}");
    }
    unharmed(&world, &served);
}

#[test]
fn keys_that_stand_twice() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let twice = request(r#"{"from":"alice","to":"shop","amount":1,"amount":900}"#);
    let escaped = request(r#"{"from":"alice","to":"shop","amount":1,"\u0061mount":900}"#);
    let deep = request(r#"{"from":"alice","to":"shop","amount":1,"x":[{"a":1,"b":{"c":1,"c":2}}]}"#);
    let outside = request("{}").replacen(r#""id":1"#, r#""id":1,"id":2"#, 1);
    let params = request("{}").replacen(
        r#""name":"bank__transfer""#,
        r#""name":"bank__echo","name":"bank__transfer""#,
        1,
    );
    for body in [twice, escaped, deep, outside, params] {
        let response = post(&served, &MODERN, body.as_bytes());
        let said = response.json();
        assert_eq!(
            (response.status(), &said["error"]["data"]["code"]),
            (400, &json!("duplicate-json-key")),
            "{body}: {said}"
        );
    }
    unharmed(&world, &served);
}

#[test]
fn depths_that_nobody_needs() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let depth = 100_000;
        let inner = if open == "[" { "" } else { "1" };
        let arguments = format!("{{\"x\":{}{inner}{}}}", open.repeat(depth), close.repeat(depth));
        let response = post(&served, &MODERN, request(&arguments).as_bytes());
        let said = response.json();
        assert_eq!(
            (response.status(), &said["error"]["data"]["code"]),
            (400, &json!("json-too-deep")),
            "{said}"
        );
    }
    unharmed(&world, &served);
}

#[test]
fn bodies_that_nobody_needs() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let huge = vec![b' '; 100 * 1024 * 1024];
    let response = post(&served, &MODERN, &huge);
    let said = response.json();
    assert_eq!(
        (response.status(), &said["error"]["data"]["code"]),
        (413, &json!("body-too-large")),
        "{said}"
    );
    assert!(said["error"]["message"].as_str().is_some_and(|words| words.contains("max_body")), "{said}");
    unharmed(&world, &served);
}

#[test]
fn requests_that_never_end_hold_up_nobody() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let mut stalled: Vec<Connection> = (0..50)
        .map(|n| {
            let mut connection = Connection::open(&served.mcp);
            let begun = b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
            connection.write(if n % 2 == 0 { &begun[..40] } else { begun });
            connection
        })
        .collect();
    unharmed(&world, &served);
    assert!(served.stop().success(), "stalled connections keep it from stopping");
    stalled.clear();
}

#[test]
fn strangers_at_the_door() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let good = request(r#"{"from":"alice","to":"shop","amount":1}"#);
    let evil: [&[(&str, &str)]; 5] = [
        &[("Host", "evil.example")],
        &[("Host", "evil.example:7411")],
        &[("Host", "127.0.0.1.evil.example")],
        &[("Origin", "https://evil.example")],
        &[("Origin", "null")],
    ];
    for headers in evil {
        let response = post(&served, &[&MODERN[..], headers].concat(), good.as_bytes());
        assert_eq!(response.status(), 403, "{headers:?}: {}", response.body);
        for path in ["/", "/api/v1/pending", "/healthz", "/api/v1/calls"] {
            let response = served.ask_inbox("GET", path, headers, b"");
            assert_eq!(response.status(), 403, "{path} {headers:?}: {}", response.body);
        }
    }
    assert_eq!(world.ledger().len(), 0);
    // Pages of this machine are no strangers.
    let own = post(&served, &[&MODERN[..], &[("Origin", "http://localhost:3000")]].concat(), good.as_bytes());
    assert_eq!(own.status(), 200, "{}", own.body);
}

#[test]
fn a_form_of_another_site_cannot_post() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let good = request(r#"{"from":"alice","to":"shop","amount":1}"#);
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let mut connection = Connection::open(&served.mcp);
        connection.send("POST", "/mcp", &[("Content-Type", kind), ("Accept", "*/*")], good.as_bytes());
        assert_eq!(connection.response().status(), 415, "{kind}");
    }
    unharmed(&world, &served);
}

#[test]
fn the_inbox_is_for_operators() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let json = ("Content-Type", "application/json");
    for (method, path) in [
        ("GET", "/api/v1/pending"),
        ("GET", "/api/v1/calls"),
        ("GET", "/api/v1/servers"),
        ("GET", "/api/v1/verify"),
        ("POST", "/api/v1/calls/01900000-0000-7000-8000-000000000000/approve"),
        ("POST", "/api/v1/calls/01900000-0000-7000-8000-000000000000/cancel"),
    ] {
        for token in [None, Some("Bearer "), Some("Bearer wrong"), Some("Basic YTpi")] {
            let headers: Vec<(&str, &str)> =
                token.map(|token| ("Authorization", token)).into_iter().chain([json]).collect();
            let response = served.ask_inbox(method, path, &headers, b"{}");
            assert_eq!(response.status(), 401, "{method} {path} {token:?}: {}", response.body);
            assert_eq!(response.json()["code"], "unauthorized");
            assert!(response.head.header("www-authenticate").is_some());
        }
    }
    for path in ["/healthz", "/readyz", "/"] {
        let response = served.ask_inbox("GET", path, &[], b"");
        assert_eq!(response.status(), 200, "{path}");
        let policy = response.head.header("content-security-policy").unwrap_or_default();
        assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
    }
}

#[test]
fn agents_need_their_tokens() {
    let agents = "[agents.ana]\ntoken = \"token-of-ana-long-enough\"\n";
    let world = World::bank(&format!("{agents}{ALLOW}"));
    let served = world.serve();
    let good = request(r#"{"from":"alice","to":"shop","amount":1}"#);
    for token in
        [None, Some("Bearer wrong"), Some("Basic token-of-ana-long-enough"), Some("token-of-ana-long-enough")]
    {
        let token = token.map(|token| ("Authorization", token));
        let headers: Vec<(&str, &str)> = MODERN.into_iter().chain(token).collect();
        let response = post(&served, &headers, good.as_bytes());
        assert_eq!(response.status(), 401, "{token:?}: {}", response.body);
        assert!(response.head.header("www-authenticate").is_some(), "{token:?}");
    }
    assert_eq!(world.ledger().len(), 0);
}

#[test]
fn a_session_belongs_to_its_agent() {
    let agents = "[agents.ana]\ntoken = \"token-of-ana-long-enough\"\n[agents.bob]\ntoken = \"token-of-bob-long-enough\"\n";
    let world = World::bank(&format!("{agents}{ALLOW}"));
    let served = world.serve();
    let ana = ("Authorization", "Bearer token-of-ana-long-enough");
    let bob = ("Authorization", "Bearer token-of-bob-long-enough");
    let hello = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}"#;
    let response = post(&served, &[ana], hello.as_bytes());
    let session = response.head.header("mcp-session-id").expect("a session").to_owned();
    let list = br#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#;
    let with = |who| post(&served, &[who, ("Mcp-Session-Id", &session)], list).status();
    assert_eq!((with(ana), with(bob)), (200, 404));
    let invented = post(&served, &[ana, ("Mcp-Session-Id", "00000000-0000-0000-0000-000000000000")], list);
    assert_eq!(invented.status(), 404);
}
