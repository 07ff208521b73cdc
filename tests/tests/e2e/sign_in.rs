//! Servers that want OAuth: somebody signs in once, and Holdfast keeps at it.

use std::{fs, os::unix::fs::PermissionsExt as _};

use holdfast_tests::{ALLOW, Agent, Authority, Connection, Response, Running, Served, World};

fn guarded(authority: &Authority) -> (World, Served) {
    let world = World::empty();
    world.configure(&format!("[servers.x]\nurl = \"http://{}/mcp\"\n{ALLOW}", authority.address));
    let served = world.serve();
    (world, served)
}

/// What a browser sees that goes to `url` and wherever it is sent from there.
fn browse(url: &str) -> Response {
    let mut url = url.to_owned();
    for _ in 0..5 {
        let rest = url.strip_prefix("http://").expect("all is on this machine");
        let (address, path) = rest.split_once('/').expect("a path");
        let mut connection = Connection::open(address);
        connection.send("GET", &format!("/{path}"), &[], &[]);
        let response = connection.response();
        match response.head.header("location") {
            Some(next) => url = next.to_owned(),
            None => return response,
        }
    }
    panic!("sent from one place to the next without an end: {url}");
}

/// Somebody runs `holdfast login x` and goes where it says; says where that was.
fn sign_in(world: &World) -> String {
    let mut login = Running::start(&mut world.holdfast(&["login", "x"]));
    let url = login.line();
    let page = browse(&url);
    assert_eq!(page.status(), 200, "{}", page.body);
    assert!(page.body.contains("signed in to x"), "{}", page.body);
    let ran = login.end();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("Signed in to x."), "{}", ran.stderr);
    url
}

/// The call was not made, and its agent hears what an operator has to do.
#[track_caller]
fn refused(answer: &holdfast_tests::Answer, why: &str) {
    let is_refusal = ["upstream-unauthorized", "attempts-exhausted"].contains(&answer.code());
    assert!(is_refusal && answer.is_error(), "{answer:?}");
    assert!(answer.text().contains(why) && answer.text().contains("holdfast login x"), "{}", answer.text());
}

#[test]
fn somebody_signs_in_and_calls_go_through() {
    let authority = Authority::start();
    let (world, served) = guarded(&authority);
    let mut agent = Agent::modern(&served, "agent");
    refused(&agent.call("x__read", serde_json::json!({})), "wants somebody to sign in");
    let url = sign_in(&world);
    assert!(url.contains("scope=read") && url.contains("code_challenge="), "{url}");
    assert_eq!(agent.call("x__read", serde_json::json!({})).text(), "read: done");
    assert_eq!(authority.grants(), ["authorization_code"]);
    // What has worked once works for nobody else.
    let again = browse(&url);
    assert_eq!(again.status(), 400, "{}", again.body);
}

#[test]
fn a_token_is_renewed_when_it_has_ended_and_before_it_does() {
    let authority = Authority::start();
    let (world, served) = guarded(&authority);
    let mut agent = Agent::legacy(&served, "agent");
    sign_in(&world);
    let mut read = || {
        let answer = agent.call("x__read", serde_json::json!({}));
        assert_eq!(answer.text(), "read: done", "{answer:?}");
    };
    read();
    // It said that it would live longer: the refusal is proof that nothing ran, and the agent hears nothing of it.
    authority.lifetime(1);
    authority.end_tokens();
    read();
    assert_eq!(authority.grants(), ["authorization_code", "refresh_token"]);
    // This one says that it ends soon, so nobody waits until it is refused.
    let refusals = authority.refusals();
    authority.lifetime(3_600);
    read();
    read();
    assert_eq!(authority.refusals(), refusals);
    assert_eq!(authority.grants(), ["authorization_code", "refresh_token", "refresh_token"]);
    assert_eq!(authority.ran().len(), 4, "each call ran once");
}

#[test]
fn tokens_outlive_a_killed_holdfast_and_are_nobody_elses() {
    let authority = Authority::start();
    let (world, served) = guarded(&authority);
    sign_in(&world);
    let kept = world.path("holdfast.redb.oauth.json");
    assert_eq!(fs::metadata(&kept).expect("they are kept").permissions().mode() & 0o777, 0o600);
    served.kill();
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    assert_eq!(agent.call("x__read", serde_json::json!({})).text(), "read: done");
    authority.end_tokens();
    assert_eq!(agent.call("x__read", serde_json::json!({})).text(), "read: done", "renewed without anybody");
    assert_eq!(authority.grants(), ["authorization_code", "refresh_token"]);
    for text in [served.log(), world.run(&["log", "--json"]).stdout] {
        assert!(!text.contains("access-") && !text.contains("refresh-"), "{text}");
    }
}

#[test]
fn whoever_wants_more_rights_signs_in_again() {
    let authority = Authority::start();
    let (world, served) = guarded(&authority);
    sign_in(&world);
    let mut agent = Agent::modern(&served, "agent");
    assert_eq!(agent.call("x__read", serde_json::json!({})).text(), "read: done");
    refused(&agent.call("x__write", serde_json::json!({})), "wants more rights than were given");
    assert_eq!(authority.ran(), ["read"], "nothing was written");
    let url = sign_in(&world);
    assert!(url.contains("scope=read+write"), "what was granted is asked for again: {url}");
    assert_eq!(agent.call("x__write", serde_json::json!({})).text(), "write: done");
    assert_eq!(agent.call("x__read", serde_json::json!({})).text(), "read: done");
}
