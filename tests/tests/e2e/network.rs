//! Servers by HTTP: restarts, refusals, and what they are told. And processes: what they inherit, and how they end.

use std::time::{Duration, Instant};

use holdfast_tests::{ALLOW, Agent, HttpServer, World, eventually, payment};
use serde_json::{Value, json};

/// A server by HTTP, with settings of its own.
fn by_http(name: &str, server: &HttpServer, more: &str) -> String {
    format!("[servers.{name}]\nurl = \"http://{}/mcp\"\n{more}", server.address)
}

const QUICK: &str =
    "[defaults]\neffect = \"allow\"\nretry = { attempts = 4, initial = \"10ms\", cap = \"50ms\" }\n";

#[test]
fn a_server_by_http_is_served_like_any_other() {
    let world = World::empty();
    let bank = world.http_bank("127.0.0.1:0");
    world.configure(&format!("{}{QUICK}", by_http("bank", &bank, "")));
    let served = world.serve();
    for (kind, mut agent) in
        [("modern", Agent::modern(&served, "modern")), ("legacy", Agent::legacy(&served, "legacy"))]
    {
        assert!(agent.call("bank__transfer", payment(kind)).succeeded(), "{kind}");
        world.fault("slow=300ms progress=4 once");
        let reference = format!("{kind}-slow");
        let mut asked = agent.ask_with("bank__transfer", payment(&reference), json!({ "progressToken": 1 }));
        for n in 1..=4 {
            assert_eq!(asked.notification()["params"]["progress"].as_f64(), Some(f64::from(n)), "{kind}");
        }
        assert!(asked.answer().succeeded(), "{kind}");
        assert_eq!((world.paid(kind), world.paid(&reference)), (1, 1), "{kind}");
    }
}

#[test]
fn a_server_that_was_restarted_is_found_again() {
    let world = World::empty();
    let bank = world.http_bank("127.0.0.1:0");
    let address = bank.address.clone();
    world.configure(&format!("{}{QUICK}", by_http("bank", &bank, "")));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    assert!(agent.call("bank__transfer", payment("INV-0")).succeeded());
    let mut bank = bank;
    for n in 1..=3 {
        bank.kill();
        bank = world.http_bank(&address);
        // Its sessions are gone; the agent notices nothing of it.
        let reference = format!("INV-{n}");
        let answer = agent.call("bank__transfer", payment(&reference));
        assert!(answer.succeeded(), "{answer:?}");
        assert_eq!(world.paid(&reference), 1);
    }
}

#[test]
fn a_server_that_dies_in_mid_call_leaves_doubt_and_no_second_payment() {
    let world = World::empty();
    let bank = world.http_bank("127.0.0.1:0");
    let address = bank.address.clone();
    world.configure(&format!("{}{QUICK}", by_http("bank", &bank, "")));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    agent.tools();
    world.fault("slow-after=60s once");
    let asked = agent.ask("bank__transfer", payment("INV-1"));
    eventually("the payment is made", || world.paid("INV-1") == 1);
    bank.kill();
    let answer = asked.answer();
    assert_eq!((answer.code(), answer.state()), ("outcome-unknown", "in-doubt"), "{answer:?}");
    let _bank = world.http_bank(&address);
    assert!(agent.call("bank__transfer", payment("INV-2")).succeeded());
    assert_eq!((world.paid("INV-1"), world.paid("INV-2")), (1, 1));
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let world = World::empty();
    let odd = world.http_odd();
    world.configure(&format!("{}{QUICK}", by_http("odd", &odd, "")));
    odd.kill();
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let begun = Instant::now();
    let answer = agent.call("odd__work", json!({}));
    assert_eq!((answer.code(), answer.is_error()), ("upstream-unreachable", true), "{answer:?}");
    assert!(answer.text().contains("`odd`"), "{}", answer.text());
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

/// A world with `odd` by HTTP, whose tool `work` goes like this.
fn odd_world(part: Value, server: &str, rules: &str) -> (World, HttpServer) {
    let world = World::empty();
    world.write("tools.json", r#"[{"name":"work","inputSchema":{"type":"object"}}]"#);
    world.write("script.json", &json!({ "work": part }).to_string());
    let odd = world.http_odd();
    world.configure(&format!("{}{QUICK}{rules}", by_http("odd", &odd, server)));
    (world, odd)
}

#[test]
fn a_server_that_says_not_now_is_asked_later() {
    let part = json!({ "status": 429, "retry_after": 1, "times": 2 });
    let (world, _odd) = odd_world(part, "unexecuted = [429]\n", "");
    let served = world.serve();
    let begun = Instant::now();
    let answer = Agent::modern(&served, "agent").call("odd__work", json!({}));
    assert!(answer.succeeded(), "{answer:?}");
    assert_eq!(world.odd_calls("work").len(), 3);
    assert!(begun.elapsed() >= Duration::from_secs(2), "Retry-After was not honoured: {:?}", begun.elapsed());
}

#[test]
fn without_the_operators_word_429_proves_nothing() {
    let (world, _odd) = odd_world(json!({ "status": 429, "times": 1 }), "", "");
    let served = world.serve();
    let answer = Agent::modern(&served, "agent").call("odd__work", json!({}));
    assert_eq!(answer.code(), "outcome-unknown", "{answer:?}");
    assert_eq!(world.odd_calls("work").len(), 1);
}

#[test]
fn statuses_after_sending_leave_doubt() {
    for status in [500, 502, 503] {
        let (world, _odd) = odd_world(json!({ "status": status, "times": 1 }), "", "");
        let served = world.serve();
        let answer = Agent::modern(&served, "agent").call("odd__work", json!({}));
        assert_eq!(answer.code(), "outcome-unknown", "{status}: {answer:?}");
        assert_eq!(world.odd_calls("work").len(), 1, "{status}");
    }
}

#[test]
fn a_server_that_does_not_know_us_has_done_nothing() {
    let (world, _odd) = odd_world(json!({ "status": 401 }), "", "");
    let served = world.serve();
    let answer = Agent::modern(&served, "agent").call("odd__work", json!({}));
    assert!(answer.is_error());
    assert_ne!(answer.code(), "outcome-unknown", "{answer:?}");
    assert!(answer.text().contains("odd") && answer.state() == "failed", "{answer:?}");
}

#[test]
fn the_key_for_the_server_can_be_a_header() {
    let rule = "[[rule]]\nid = \"keyed\"\nserver = \"odd\"\ntool = \"work\"\nrepeat = \"keyed\"\n\
        [rule.idempotency]\nupstream = \"header:Idempotency-Key\"\n";
    let part = json!({ "error": { "code": -32603, "message": "oops" }, "times": 2 });
    let (world, _odd) = odd_world(part, "", rule);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    assert!(agent.call("odd__work", json!({})).succeeded());
    assert!(agent.call("odd__work", json!({ "other": true })).succeeded());
    let calls = world.odd_calls("work");
    let keys: Vec<&str> =
        calls.iter().map(|call| call["headers"]["idempotency-key"].as_str().expect("a key")).collect();
    assert_eq!(keys.len(), 4);
    assert!(keys[0] == keys[1] && keys[1] == keys[2] && keys[2] != keys[3], "{keys:?}");
}

#[test]
fn our_credentials_go_to_the_server_and_nowhere_else() {
    let world = World::empty();
    world.write("tools.json", r#"[{"name":"work","inputSchema":{"type":"object"}}]"#);
    let odd = world.http_odd();
    let agents = "[agents.ana]\ntoken = \"token-of-ana-long-enough\"\n";
    let headers = "headers = { Authorization = \"Bearer ${CANARY}\" }\n";
    world.configure(&format!("{}{agents}{QUICK}", by_http("odd", &odd, headers)));
    let mut command = world.holdfast(&["serve", "--log-level", "debug"]);
    let served =
        holdfast_tests::Served::start(command.env("CANARY", "canary-9d1f"), &world.path("serve.log"));
    let mut agent = Agent::with_token(&served, "agent", "token-of-ana-long-enough");
    let answer = agent.call("odd__work", json!({}));
    assert!(answer.succeeded(), "{answer:?}");
    let sent = world.odd_calls("work")[0]["headers"].clone();
    assert_eq!(sent["authorization"], "Bearer canary-9d1f");
    assert!(!sent.to_string().contains("token-of-ana"), "the agent's token was passed on: {sent}");
    let log = served.log();
    assert!(served.stop().success());
    let journal = std::fs::read(world.path("holdfast.redb")).expect("there is a journal");
    for secret in ["canary-9d1f", "token-of-ana"] {
        assert!(!log.contains(secret), "in the log: {secret}");
        assert!(
            !journal.windows(secret.len()).any(|bytes| bytes == secret.as_bytes()),
            "in the journal: {secret}"
        );
        assert!(!answer.0.to_string().contains(secret), "in the answer: {secret}");
    }
}

#[test]
fn a_child_inherits_only_what_it_is_given() {
    let world = World::empty();
    world.write("tools.json", "[]");
    world.configure(&format!("{}env = {{ GIVEN = \"yes ${{SECRET}}\" }}\n{ALLOW}", world.server_odd("")));
    let mut command = world.holdfast(&["serve"]);
    command.env("SECRET", "canary-3b7c").env("AWS_SECRET_ACCESS_KEY", "canary-77aa");
    let served = holdfast_tests::Served::start(&mut command, &world.path("serve.log"));
    Agent::modern(&served, "agent").tools();
    let env = world.odd_log()[0]["env"].clone();
    assert_eq!(env["GIVEN"], "yes canary-3b7c");
    let env = env.as_object().expect("variables");
    assert!(!env.contains_key("SECRET") && !env.contains_key("AWS_SECRET_ACCESS_KEY"), "{env:?}");
}

#[test]
fn children_that_will_not_go_are_ended_with_all_theirs() {
    let world = World::empty();
    world.write("tools.json", "[]");
    world.configure(&format!("{}{ALLOW}", world.server_odd(", \"--stubborn\"")));
    let served = world.serve();
    Agent::modern(&served, "agent").tools();
    eventually("the server has its child", || {
        world.processes_of("odd").len() == 1 && world.processes().len() >= 3
    });
    assert!(served.stop().success());
    eventually("nobody is left", || world.processes().is_empty());
}

#[test]
fn nobody_is_left_behind_by_a_crash() {
    let world = World::bank(ALLOW);
    for n in 0..3 {
        let served = world.serve();
        assert!(
            Agent::modern(&served, "agent").call("bank__transfer", payment(&format!("INV-{n}"))).succeeded()
        );
        served.kill();
    }
    eventually("the banks have noticed", || world.processes().is_empty());
}

#[test]
fn a_breaker_opens_for_one_server_and_closes_again() {
    let world = World::empty();
    let bank = world.http_bank("127.0.0.1:0");
    let address = bank.address.clone();
    world.write("tools.json", r#"[{"name":"work","inputSchema":{"type":"object"}}]"#);
    let breaker = "breaker = { failures = 2, window = \"300s\", open = \"5s\" }\n";
    let once = "[defaults]\neffect = \"allow\"\nretry = { attempts = 1, initial = \"10ms\" }\n";
    world.configure(&format!("{}{}{once}", by_http("bank", &bank, breaker), world.server_odd("")));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    assert!(agent.call("bank__transfer", payment("INV-0")).succeeded());
    bank.kill();
    let mut pay = |n: usize| agent.call("bank__transfer", payment(&format!("INV-{n}")));
    let codes: Vec<String> = (1..=4).map(|n| pay(n).code().to_owned()).collect();
    assert!(codes.contains(&"breaker-open".to_owned()), "{codes:?}");
    assert!(Agent::modern(&served, "other").call("odd__work", json!({})).succeeded());
    let _bank = world.http_bank(&address);
    let mut n = 4;
    eventually("it closes again", || {
        n += 1;
        pay(n).succeeded()
    });
    assert_eq!(world.ledger().len(), 2);
}
