//! Many who decide at the same moment: each word either stands in the journal or was turned away, and one effect at most.

use std::{
    sync::Barrier,
    time::{SystemTime, UNIX_EPOCH},
};

use holdfast_tests::{Agent, Desk, Served, World, eventually, payment};
use serde_json::{Value, json};

use super::{ANA, BOB, HASTY, OPERATORS};

const CID: &str = "token-of-cid-long-enough";

/// Payments wait for one of three people.
fn world(gate: &str) -> World {
    World::bank(&format!(
        "{OPERATORS}[operators.cid]\ntoken = {CID:?}\n[intake]\nheld_per_agent = 1000\n{HASTY}[[rule]]\n\
         id = \"payments\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n{gate}"
    ))
}

/// One word of somebody about a call.
#[derive(Clone, Debug)]
struct Word {
    token: &'static str,
    verb: &'static str,
    body: Value,
}

fn word(token: &'static str, verb: &'static str, body: Value) -> Word {
    Word { token, verb, body }
}

/// All say their word as nearly at once as threads can; the statuses, in the same order.
fn at_once(served: &Served, call: &str, words: &[Word]) -> Vec<u16> {
    let barrier = Barrier::new(words.len());
    std::thread::scope(|scope| {
        let said: Vec<_> = words
            .iter()
            .map(|word| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let desk = Desk::of(served, word.token);
                    barrier.wait();
                    desk.post(&format!("/calls/{call}/{}", word.verb), &word.body).status()
                })
            })
            .collect();
        said.into_iter().map(|said| said.join().expect("no panic")).collect()
    })
}

/// How many entries of this kind the call has.
fn entries(history: &Value, kind: &str) -> usize {
    let records = history["records"].as_array().expect("records");
    records.iter().filter(|record| record["entry"].get(kind).is_some()).count()
}

#[test]
fn a_hundred_approvals_at_once_are_one_dispatch() {
    for (whose, tokens) in [("one operator's", vec![ANA]), ("three operators'", vec![ANA, BOB, CID])] {
        let world = world("");
        let served = world.serve();
        let mut agent = Agent::modern(&served, "agent");
        let call = agent.call("bank__transfer", payment("INV-1")).call();
        let body = json!({ "digest": Desk::of(&served, ANA).digest(&call) });
        let words: Vec<Word> =
            (0..100).map(|n| word(tokens[n % tokens.len()], "approve", body.clone())).collect();
        let statuses = at_once(&served, &call, &words);
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{whose}: {statuses:?}");
        assert!(statuses.iter().all(|status| matches!(status, 200 | 409)), "{whose}: {statuses:?}");
        assert!(agent.wait(&call).succeeded(), "{whose}");
        let history = Desk::of(&served, ANA).call(&call);
        let found = ["approved", "dispatched", "answered"].map(|kind| entries(&history, kind));
        assert_eq!((found, world.ledger().len()), ([1, 1, 1], 1), "{whose}: {history}");
    }
}

#[test]
fn a_hundred_approvals_of_three_people_make_a_quorum_of_two_once() {
    let world = world("[rule.gate]\nquorum = 2\n");
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let call = agent.call("bank__transfer", payment("INV-1")).call();
    let body = json!({ "digest": Desk::of(&served, ANA).digest(&call) });
    let words: Vec<Word> = (0..100).map(|n| word([ANA, BOB, CID][n % 3], "approve", body.clone())).collect();
    let statuses = at_once(&served, &call, &words);
    let mut counted: Vec<&str> = words
        .iter()
        .zip(&statuses)
        .filter(|(_, status)| **status == 200)
        .map(|(word, _)| word.token)
        .collect();
    counted.sort_unstable();
    assert_eq!(counted.len(), 2, "{statuses:?}");
    assert_ne!(counted[0], counted[1], "one person counted for two");
    assert!(statuses.iter().all(|status| matches!(status, 200 | 409)), "{statuses:?}");
    assert!(agent.wait(&call).succeeded());
    assert_eq!(world.ledger().len(), 1);
}

#[test]
fn a_hundred_calls_approved_twice_each_are_a_hundred_payments() {
    let world = world("");
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let desk = Desk::of(&served, ANA);
    let calls: Vec<String> = (0..100)
        .map(|n| agent.call("bank__transfer", holdfast_tests::payment_of(1, &format!("INV-{n}"))).call())
        .collect();
    let digests: Vec<String> = calls.iter().map(|call| desk.digest(call)).collect();
    std::thread::scope(|scope| {
        for token in [ANA, BOB] {
            let (served, calls, digests) = (&served, &calls, &digests);
            scope.spawn(move || {
                for (call, digest) in calls.iter().zip(digests) {
                    let body = json!({ "digest": digest });
                    let status =
                        Desk::of(served, token).post(&format!("/calls/{call}/approve"), &body).status();
                    assert!(matches!(status, 200 | 409), "{status}");
                }
            });
        }
    });
    eventually("all are paid", || world.ledger().len() == 100);
    for (n, call) in calls.iter().enumerate() {
        desk.await_state(call, "succeeded");
        assert_eq!(world.paid(&format!("INV-{n}")), 1);
    }
}

#[test]
fn yes_no_and_something_else_at_once_have_one_winner() {
    let world = world("");
    let served = world.serve();
    let desk = Desk::of(&served, ANA);
    for round in 0..12 {
        let reference = format!("INV-{round}");
        let mut agent = Agent::modern(&served, "agent");
        let call = agent.call("bank__transfer", payment(&reference)).call();
        let digest = desk.digest(&call);
        let mut words = vec![
            word(ANA, "approve", json!({ "digest": digest })),
            word(BOB, "reject", json!({ "digest": digest, "reason": "no" })),
            word(CID, "respond", json!({ "digest": digest, "answer": "by hand" })),
            word(CID, "cancel", json!({})),
            word(BOB, "approve", json!({ "digest": digest })),
        ];
        // Whoever is first in the line of threads has the better start.
        words.rotate_left(round % 5);
        let statuses = at_once(&served, &call, &words);
        assert!(statuses.iter().all(|status| matches!(status, 200 | 409)), "{words:?} {statuses:?}");
        let stood = |verb: &str| {
            words.iter().zip(&statuses).filter(|(word, status)| word.verb == verb && **status == 200).count()
        };
        let history = desk.call(&call);
        let journaled = ["approved", "refused", "responded"].map(|kind| entries(&history, kind));
        assert_eq!(journaled, ["approve", "reject", "respond"].map(stood), "{statuses:?} {history}");
        // A withdrawal may also follow an approval, or meet the attempt when it is out already.
        let withdrawn = history["records"].as_array().expect("records").iter().filter(|record| {
            let entry = &record["entry"];
            entry.get("cancelled").is_some() || entry["lost"]["loss"] == "cancelled"
        });
        assert_eq!(withdrawn.count(), stood("cancel"), "{statuses:?} {history}");
        let words_that_end = stood("reject") + stood("respond");
        assert!(words_that_end <= 1 && stood("approve") <= 1, "{statuses:?}");
        let told = agent.wait(&call);
        let expected = match told.state() {
            "refused" => (stood("reject"), "refused", 0..=0),
            "succeeded" if stood("respond") == 1 => (1, "", 0..=0),
            "succeeded" => (stood("approve"), "", 1..=1),
            "cancelled" => (stood("cancel"), "cancelled", 0..=0),
            "in-doubt" => (stood("cancel"), "outcome-unknown", 0..=1),
            other => panic!("{other}: {told:?} {history}"),
        };
        assert_eq!((1, told.code()), (expected.0, expected.1), "{told:?} {history}");
        assert!(expected.2.contains(&world.paid(&reference)), "{told:?} {history}");
        // Everybody else is told the same.
        assert_eq!(Agent::modern(&served, "other").wait(&call).code(), told.code());
    }
}

#[test]
fn an_approval_at_the_last_moment_is_in_time_or_not() {
    let world = world("[rule.gate]\napprove_by = \"1s\"\n");
    let served = world.serve();
    let desk = Desk::of(&served, ANA);
    for round in 0..4_u64 {
        let reference = format!("INV-{round}");
        let mut agent = Agent::modern(&served, "agent");
        let call = agent.call("bank__transfer", payment(&reference)).call();
        let hold = desk.call(&call)["hold"].clone();
        let approve_by = hold["approve_by"].as_u64().expect("a clock");
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let clicks: Vec<_> = (0..10_u64)
                .map(|n| {
                    let (served, call, digest) = (&served, &call, &hold["digest"]);
                    scope.spawn(move || {
                        // Around the deadline, each a little later than the one before.
                        let at = approve_by - 12 + 2 * n + round;
                        while now_ms() < at {
                            std::thread::yield_now();
                        }
                        let token = [ANA, BOB][usize::from(n % 2 == 1)];
                        let body = json!({ "digest": digest });
                        Desk::of(served, token).post(&format!("/calls/{call}/approve"), &body).status()
                    })
                })
                .collect();
            clicks.into_iter().map(|click| click.join().expect("no panic")).collect()
        });
        assert!(statuses.iter().all(|status| matches!(status, 200 | 409)), "{statuses:?}");
        let approved = statuses.iter().filter(|status| **status == 200).count();
        let told = agent.wait(&call);
        let history = desk.call(&call);
        assert_eq!(entries(&history, "approved"), approved, "{statuses:?} {history}");
        assert_eq!(entries(&history, "expired"), 1 - approved, "{statuses:?} {history}");
        assert_eq!(told.code(), if approved == 1 { "" } else { "expired" }, "{history}");
        assert_eq!(world.paid(&reference), approved, "{history}");
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    u64::try_from(now.as_millis()).expect("it is before the end of time")
}
