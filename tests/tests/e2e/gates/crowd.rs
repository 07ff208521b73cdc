//! Agents that ask for more than anybody can look at.

use holdfast_tests::{Agent, Desk, World, eventually, payment};
use serde_json::json;

use super::{ANA, HASTY, OPERATORS};

const AGENTS: &str = "[agents.eager]\ntoken = \"token-of-eager-long-enough\"\n\
    [agents.quiet]\ntoken = \"token-of-quiet-long-enough\"\n[intake]\nheld_per_agent = 3\n";
const EAGER: &str = "token-of-eager-long-enough";
const QUIET: &str = "token-of-quiet-long-enough";

fn world() -> World {
    World::bank(&format!(
        "{OPERATORS}{AGENTS}{HASTY}[[rule]]\nid = \"payments\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n"
    ))
}

#[test]
fn an_agent_at_its_limit_is_told_which_calls_to_collect_first() {
    let world = world();
    let served = world.serve();
    let mut eager = Agent::with_token(&served, "agent", EAGER);
    let held: Vec<String> =
        (0..3).map(|n| eager.call("bank__transfer", payment(&format!("INV-{n}"))).call()).collect();
    let over = eager.call("bank__transfer", payment("INV-3"));
    assert_eq!((over.code(), over.is_error()), ("queue-full", true), "{over:?}");
    assert_eq!(over.note("details"), &json!({ "limit": 3, "held": held }), "{over:?}");
    assert!(
        over.text().contains("holdfast_wait") && over.text().contains("did not happen"),
        "{}",
        over.text()
    );
    let desk = Desk::of(&served, ANA);
    assert_eq!(desk.get("/pending").json()["pending"].as_array().map(Vec::len), Some(3));
    // Another agent has a limit of its own, and what is no held call has none.
    assert_eq!(
        Agent::with_token(&served, "agent", QUIET).call("bank__transfer", payment("INV-4")).code(),
        "held"
    );
    assert!(eager.call("bank__echo", json!({ "message": "hi" })).succeeded());
    // It does what it was told, and has room again.
    desk.approve(&held[0]);
    assert!(eager.wait(&held[0]).succeeded());
    assert_eq!(eager.call("bank__transfer", payment("INV-3")).code(), "held");
    assert_eq!(world.ledger().len(), 1);
}

#[test]
fn the_limit_counts_what_was_held_before_a_kill() {
    let world = world();
    let served = world.serve();
    let mut eager = Agent::with_token(&served, "agent", EAGER);
    let held: Vec<String> =
        (0..3).map(|n| eager.call("bank__transfer", payment(&format!("INV-{n}"))).call()).collect();
    served.kill();
    let served = world.serve();
    let mut eager = Agent::with_token(&served, "agent", EAGER);
    assert_eq!(eager.call("bank__transfer", payment("INV-3")).code(), "queue-full");
    // The same one again is no further one.
    assert_eq!(eager.call("bank__transfer", payment("INV-0")).call(), held[0]);
    let desk = Desk::of(&served, ANA);
    assert_eq!(desk.decide(&held[1], "reject", json!({ "reason": "no" })).status(), 200);
    assert_eq!(eager.call("bank__transfer", payment("INV-3")).code(), "held");
}

#[test]
fn a_flood_from_many_connections_does_not_get_past_the_limit() {
    let world = world();
    let served = world.serve();
    let codes: Vec<String> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..30)
            .map(|n| {
                let served = &served;
                scope.spawn(move || {
                    let mut eager = Agent::with_token(served, &format!("agent-{n}"), EAGER);
                    eager.call("bank__transfer", payment(&format!("INV-{n}"))).code().to_owned()
                })
            })
            .collect();
        asked.into_iter().map(|asked| asked.join().expect("no panic")).collect()
    });
    assert_eq!(codes.iter().filter(|code| *code == "held").count(), 3, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| *code == "queue-full").count(), 27, "{codes:?}");
    eventually("three wait", || {
        Desk::of(&served, ANA).get("/pending").json()["pending"].as_array().map(Vec::len) == Some(3)
    });
}

#[test]
fn however_much_waits_all_of_it_can_be_read_page_by_page() {
    const MANY: usize = 205;
    let world = World::bank(&format!(
        "[intake]\nheld_per_agent = 1000\n{HASTY}[[rule]]\nid = \"all\"\neffect = \"ask\"\nserver = \"bank\"\n"
    ));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let held: Vec<String> =
        (0..MANY).map(|n| agent.call("bank__transfer", payment(&format!("INV-{n}"))).call()).collect();
    let ids = |page: &serde_json::Value| -> Vec<String> {
        let waiting = page["pending"].as_array().expect("a list").iter();
        waiting.map(|waiting| waiting["call"]["call"].as_str().expect("an id").to_owned()).collect()
    };
    let token = world.token();
    let desk = Desk::of(&served, &token);
    let (mut read, mut after) = (Vec::new(), String::new());
    loop {
        let page = desk.get(&format!("/pending?{after}")).json();
        assert!(ids(&page).len() <= 100, "{}", ids(&page).len());
        read.extend(ids(&page));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("after={next}");
    }
    assert_eq!(read, held, "the oldest first");
    assert_eq!(ids(&world.run(&["pending", "--json"]).json()), held);
    let some = world.run(&["pending", "--limit", "3"]);
    assert!(some.ok().contains("INV-2") && !some.ok().contains("INV-3"), "{}", some.stdout);
    assert!(some.stderr.contains("More than 3 wait"), "{}", some.stderr);
    served.kill();
    assert_eq!(ids(&world.run(&["pending", "--json"]).json()), held, "also from the file alone");
}
