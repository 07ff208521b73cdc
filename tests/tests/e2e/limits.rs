//! Time and room: limits hold, waits end, and what was not sent is never called doubtful.

use std::time::{Duration, Instant};

use holdfast_tests::{ALLOW, Agent, World, eventually, payment, payment_of};
use serde_json::json;

fn limited(more: &str) -> World {
    World::bank(&format!("[defaults]\neffect = \"allow\"\n{more}"))
}

#[test]
fn one_at_a_time() {
    let world = limited("limits = { concurrency = 1 }\n");
    world.fault("slow=250ms");
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let begun = Instant::now();
    let asked: Vec<_> = (0..3).map(|n| agent.ask("bank__transfer", payment(&format!("INV-{n}")))).collect();
    // Another tool has a line of its own.
    assert!(agent.call("bank__echo", json!({ "message": "hi" })).succeeded());
    assert!(asked.into_iter().all(|asked| asked.answer().succeeded()));
    assert!(begun.elapsed() >= Duration::from_millis(750), "{:?}", begun.elapsed());
    assert_eq!(world.ledger().len(), 3);
}

#[test]
fn a_line_has_an_end() {
    let world = limited("limits = { concurrency = 1, queue = 1 }\n");
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    agent.tools();
    let paused = world.pause_one("bank");
    let first = agent.ask("bank__transfer", payment("INV-1"));
    eventually("the first is with the bank", || world.waits_for("bank"));
    let second = agent.ask("bank__transfer", payment("INV-2"));
    eventually("the second is in line", || {
        world.run(&["calls", "--json", "--state", "ready"]).stdout.contains("\"ready\"")
    });
    let third = agent.call("bank__transfer", payment("INV-3"));
    assert_eq!((third.code(), third.is_error()), ("queue-full", true), "{third:?}");
    drop(paused);
    assert!(first.answer().succeeded() && second.answer().succeeded());
    assert_eq!((world.paid("INV-3"), world.ledger().len()), (0, 2));
}

#[test]
fn nobody_stands_in_line_for_ever() {
    let world = limited("queue_timeout = \"400ms\"\nlimits = { concurrency = 1 }\n");
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    agent.tools();
    let paused = world.pause_one("bank");
    let first = agent.ask("bank__transfer", payment("INV-1"));
    eventually("the first is with the bank", || world.waits_for("bank"));
    let second = agent.call_as("k", "bank__transfer", payment("INV-2"));
    assert_eq!((second.code(), second.is_error()), ("queue-timeout", true), "{second:?}");
    drop(paused);
    assert!(first.answer().succeeded());
    // It was never sent, so its key is free.
    let again = agent.call_as("k", "bank__transfer", payment("INV-2"));
    assert!(again.succeeded() && !again.replayed(), "{again:?}");
    assert_eq!(world.paid("INV-2"), 1);
}

#[test]
fn a_rate_is_kept() {
    let world = limited("limits = { rate = \"4/s\" }\n");
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let begun = Instant::now();
    for n in 0..8 {
        assert!(agent.call("bank__transfer", payment_of(1, &format!("INV-{n}"))).succeeded());
    }
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    assert_eq!(world.ledger().len(), 8);
}

#[test]
fn progress_is_a_sign_of_life() {
    let world = limited("attempt_timeout = \"60s\"\nidle_timeout = \"3s\"\n");
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    world.fault("slow=5s progress=40");
    let alive = agent.ask_with("bank__transfer", payment("INV-1"), json!({ "progressToken": 1 }));
    // Holdfast listens for progress whether the agent wants to hear of it or not.
    let quiet = agent.ask("bank__transfer", payment("INV-2"));
    for asked in [alive, quiet] {
        let answer = asked.answer();
        assert!(answer.succeeded(), "{answer:?}");
    }

    world.fault("hang once");
    let silent = agent.call("bank__transfer", payment("INV-3"));
    assert_eq!(silent.code(), "outcome-unknown", "{silent:?}");
}

#[test]
fn all_of_it_has_its_time() {
    let world = limited("attempt_timeout = \"60s\"\ncall_timeout = \"700ms\"\nrepeat = \"safe\"\n");
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    world.fault("all:hang-before-commit");
    let answer = agent.call("bank__balance", json!({ "account": "bob" }));
    assert!(answer.is_error(), "{answer:?}");
    assert_ne!(answer.code(), "outcome-unknown", "a read is never doubtful: {answer:?}");
}

#[test]
fn a_server_that_hangs_does_not_hang_the_others() {
    let world = World::empty();
    world.write("tools.json", r#"[{"name":"work","inputSchema":{"type":"object"}}]"#);
    world.write("script.json", r#"{"work":{"sleep_ms":600000}}"#);
    let hasty = "[[rule]]\nid = \"hasty\"\nserver = \"odd\"\ntool = \"*\"\nattempt_timeout = \"1s\"\n";
    world.configure(&format!("{}{}{ALLOW}{hasty}", world.server_odd(""), world.server_bank()));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let hung: Vec<_> = (0..3).map(|n| agent.ask("odd__work", json!({ "n": n }))).collect();
    assert!(agent.call("bank__transfer", payment("INV-1")).succeeded());
    for asked in hung {
        assert_eq!(asked.answer().code(), "outcome-unknown");
    }
}

#[test]
fn many_agents_at_once() {
    let world = limited("");
    let served = world.serve();
    std::thread::scope(|scope| {
        for agent in 0..8 {
            let served = &served;
            scope.spawn(move || {
                let mut client = if agent % 2 == 0 {
                    Agent::modern(served, &format!("agent-{agent}"))
                } else {
                    Agent::legacy(served, &format!("agent-{agent}"))
                };
                for n in 0..10 {
                    let answer = client.call("bank__transfer", payment_of(1, &format!("{agent}-{n}")));
                    assert!(answer.succeeded(), "{answer:?}");
                    assert_eq!(answer.data()["reference"], format!("{agent}-{n}"));
                }
            });
        }
    });
    assert_eq!(world.ledger().len(), 80);
    assert!(world.run(&["verify"]).ok().starts_with("ok: "));
}
