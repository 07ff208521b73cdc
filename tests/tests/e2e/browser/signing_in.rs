//! Who gets in, and who only looks.

use std::{
    io::{BufRead, BufReader},
    process::Command,
    sync::mpsc::channel,
    thread,
};

use holdfast_tests::{Agent, Browser, Desk, PATIENCE, World, payment};
use serde_json::json;

use super::{ANA, ASK, NIGHTLY, VERA, asking};

#[test]
fn a_token_signs_in_until_one_signs_out() {
    let world = asking("");
    let served = world.serve();
    let browser = Browser::open();
    browser.visit(&served, "/calls?q=one");
    for (token, said) in [("no-token-of-anybody", "nobody’s token"), (NIGHTLY, "Agents do not use the inbox")]
    {
        browser.write("#token", token);
        browser.click("form button.primary");
        browser.wait_for_text(said);
    }
    let visitors = browser.cookies();
    assert!(visitors.iter().all(|cookie| cookie["name"] != name(&served.inbox)), "{visitors:?}");
    browser.write("#token", ANA);
    browser.click("form button.primary");
    browser.wait_for("#places");
    assert!(browser.address().ends_with("/calls?q=one"), "{}", browser.address());

    for cookie in browser.cookies() {
        assert_eq!((&cookie["httpOnly"], &cookie["sameSite"]), (&json!(true), &json!("Strict")), "{cookie}");
        assert_eq!((&cookie["domain"], &cookie["path"]), (&json!("127.0.0.1"), &json!("/")), "{cookie}");
    }
    assert_eq!(browser.value("document.cookie"), "");

    browser.click(".me summary");
    browser.click("form[action='/logout'] button");
    browser.wait_for("#token");
    assert!(browser.cookies().iter().all(|cookie| cookie["name"] != name(&served.inbox)));
    browser.script("window.before = true; history.back()", &[]);
    browser.wait_until("window.before === undefined && document.querySelector('#token') !== null");
    browser.visit(&served, "/calls");
    assert_eq!((browser.count("#token"), browser.count("#places")), (1, 0));
}

/// The session's cookie: ports are part of its name, as browsers do not tell them apart.
fn name(inbox: &str) -> String {
    format!("holdfast-{}", inbox.rsplit(':').next().expect("an address has a port"))
}

#[test]
fn the_link_works_once_and_only_by_its_button() {
    let world = World::bank(ASK);
    // Whoever starts it reads along, as at a terminal; into a file no link is written.
    let log = world.path("serve.log");
    assert!(Command::new("mkfifo").arg(&log).status().is_ok_and(|status| status.success()));
    let (sender, said) = channel();
    thread::spawn(move || {
        let lines = BufReader::new(std::fs::File::open(log).expect("it is there")).lines();
        for line in lines.map_while(Result::ok) {
            // The story may be over.
            let _ = sender.send(line);
        }
    });
    let served = world.serve();
    let link = loop {
        let line = said.recv_timeout(PATIENCE).expect("it says how to get in");
        if let Some((_, link)) = line.split_once("Your inbox:") {
            break link.trim().to_owned();
        }
    };
    assert!(link.starts_with(&format!("http://{}/login/", served.inbox)), "{link}");

    let browser = Browser::open();
    for _ in 0..3 {
        browser.go(&link);
        assert!(browser.text().contains("Sign in as local"), "{}", browser.text());
    }
    browser.visit(&served, "/");
    assert_eq!(browser.count("#places"), 0, "looking at it signs nobody in");
    browser.go(&link);
    browser.click("form button.primary");
    browser.wait_for("#places");
    assert!(!browser.address().contains("/login/"), "{}", browser.address());

    let other = Browser::open();
    other.go(&link);
    assert!(other.text().contains("This link has been used"), "{}", other.text());
    assert_eq!(other.count("form[action^='/login/']"), 0);
}

#[test]
fn who_only_looks_has_nothing_to_press() {
    let world = asking("");
    let served = world.serve();
    let call = Agent::with_token(&served, "clerk", NIGHTLY).call("bank__transfer", payment("INV-1")).call();
    let browser = Browser::open();
    browser.sign_in(&served, VERA);
    browser.wait_for_text("INV-1");
    for path in ["/", "/doubt", "/calls", &format!("/calls/{call}"), "/servers", "/remembered", "/overview"] {
        browser.visit(&served, path);
        assert_eq!(browser.count("form[method=post]:not([action='/logout'])"), 0, "{path}");
    }
    // As if there were a button all the same.
    let digest = Desk::of(&served, ANA).digest(&call);
    for verb in ["approve", "reject", "edit", "respond", "revoke", "cancel", "release"] {
        let status = browser.script(
            "const [path, digest] = arguments;
             const csrf = document.querySelector('input[name=csrf]').value;
             const body = new URLSearchParams({ csrf, digest, answer: 'x', arguments: '{}', reason: 'x' });
             return fetch(path, { method: 'POST', body }).then(response => response.status)",
            &[format!("/calls/{call}/{verb}").into(), digest.clone().into()],
        );
        assert_eq!(status, 403, "{verb}");
    }
    assert_eq!(Desk::of(&served, ANA).call(&call)["call"]["state"], "asking");
    assert_eq!(world.ledger().len(), 0);
}
