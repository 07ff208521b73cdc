//! Calls that wait for a person, as their agents see them and as they end.

mod changes;

use std::time::{Duration, Instant};

use holdfast_tests::{Agent, Desk, World, eventually, payment, payment_of};
use serde_json::{Value, json};

const OPERATORS: &str = "[operators.ana]\ntoken = \"token-of-ana-long-enough\"\ngroups = [\"finance\"]\n\
    [operators.bob]\ntoken = \"token-of-bob-long-enough\"\ngroups = [\"finance\"]\n\
    [operators.eve]\ntoken = \"token-of-eve-long-enough\"\n\
    [operators.root]\ntoken = \"token-of-root-long-enough\"\nrole = \"admin\"\n";
const ANA: &str = "token-of-ana-long-enough";
const BOB: &str = "token-of-bob-long-enough";
const EVE: &str = "token-of-eve-long-enough";
const ROOT: &str = "token-of-root-long-enough";

/// Payments wait for an approver, and their agents do not.
const ASK: &str = "[defaults]\neffect = \"allow\"\nhold_wait = \"0s\"\n\
    [[rule]]\nid = \"payments\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n";

/// A world in which payments are asked for, with `gate` below the rule.
fn asking(gate: &str) -> World {
    World::bank(&format!("{OPERATORS}{ASK}{gate}"))
}

#[test]
fn the_agent_is_told_what_waits_and_how_to_go_on() {
    let world = asking("");
    let served = world.serve();
    for (kind, mut agent) in
        [("modern", Agent::modern(&served, "modern")), ("legacy", Agent::legacy(&served, "legacy"))]
    {
        let held = agent.call("bank__transfer", payment(kind));
        assert_eq!((held.code(), held.state(), held.is_error()), ("held", "asking", false), "{kind}");
        assert!(held.text().contains(&held.call()), "{kind}: {}", held.text());
        assert!(held.text().contains("holdfast_wait"), "{kind}: {}", held.text());
        // The identical call joins it.
        let again = agent.call("bank__transfer", payment(kind));
        assert_eq!((again.code(), again.call()), ("held", held.call()), "{kind}");
        let status = agent.call("holdfast_call_status", json!({ "call_id": held.call() }));
        assert_eq!(status.data()["state"], "asking");
    }
    let pending = Desk::of(&served, ANA).get("/pending").json();
    assert_eq!(pending["pending"].as_array().map(Vec::len), Some(2), "{pending}");
    assert_eq!(world.ledger().len(), 0);
}

#[test]
fn approved_it_is_sent_once_and_collected() {
    let world = asking("");
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let call = agent.call("bank__transfer", payment("INV-1")).call();
    let desk = Desk::of(&served, ANA);
    desk.approve(&call);
    let answer = agent.wait(&call);
    assert!(answer.succeeded(), "{answer:?}");
    assert_eq!(answer.call(), call);
    // By the identical call as well, as long as nobody has heard it; and never again a second payment.
    assert_eq!(agent.wait(&call).text(), answer.text());
    assert_eq!(world.paid("INV-1"), 1);
    let history = desk.call(&call);
    let kinds: Vec<&str> = history["records"].as_array().expect("records").iter().map(kind).collect();
    assert_eq!(kinds[..4], ["accepted", "approved", "dispatched", "answered"], "{history}");
}

/// The kind of a record's entry.
fn kind(record: &Value) -> &str {
    let entry = &record["entry"];
    entry.as_str().or_else(|| entry.as_object()?.keys().next().map(String::as_str)).unwrap_or_default()
}

#[test]
fn who_waits_hears_the_answer_as_soon_as_it_is_there() {
    let world = World::bank(&format!("{OPERATORS}{}", ASK.replace("0s", "30s")));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let asked = agent.ask("bank__transfer", payment("INV-1"));
    let desk = Desk::of(&served, ANA);
    let call = pending_call(&desk);
    let begun = Instant::now();
    desk.approve(&call);
    assert!(asked.answer().succeeded());
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(world.paid("INV-1"), 1);
}

/// The one call that waits.
fn pending_call(desk: &Desk<'_>) -> String {
    holdfast_tests::eventually_some("a call waits", || {
        let pending = desk.get("/pending").json();
        pending["pending"][0]["call"]["call"].as_str().map(str::to_owned)
    })
}

#[test]
fn a_closed_stream_does_not_end_a_hold_but_a_cancellation_does() {
    let world = World::bank(&format!("{OPERATORS}{}", ASK.replace("0s", "30s")));
    let served = world.serve();
    let desk = Desk::of(&served, ANA);
    let mut modern = Agent::modern(&served, "modern");
    let asked = modern.ask("bank__transfer", payment("INV-1"));
    let call = pending_call(&desk);
    asked.hang_up();
    desk.approve(&call);
    eventually("it is paid all the same", || world.paid("INV-1") == 1);

    let mut legacy = Agent::legacy(&served, "legacy");
    let asked = legacy.ask("bank__transfer", payment("INV-2"));
    let call = pending_call(&desk);
    legacy.notify("notifications/cancelled", json!({ "requestId": asked.id }));
    assert!(asked.ends_without_answer());
    desk.await_state(&call, "cancelled");
    assert_eq!(legacy.wait(&call).code(), "cancelled");
    assert_eq!(
        desk.post(&format!("/calls/{call}/approve"), &json!({ "digest": "0".repeat(64) })).status(),
        409
    );
    assert_eq!(world.paid("INV-2"), 0);
}

#[test]
fn a_refusal_is_told_with_its_reason() {
    let world = asking("");
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let call = agent.call("bank__transfer", payment("INV-1")).call();
    let desk = Desk::of(&served, ANA);
    assert_eq!(desk.decide(&call, "reject", json!({ "reason": "wrong supplier" })).status(), 200);
    let refused = agent.wait(&call);
    assert!(refused.is_error());
    assert_eq!((refused.code(), refused.state()), ("refused", "refused"));
    assert!(
        refused.text().contains("ana") && refused.text().contains("wrong supplier"),
        "{}",
        refused.text()
    );
    assert_eq!(world.ledger().len(), 0);
}

#[test]
fn nobody_answers_and_that_is_no_refusal() {
    let world = asking("[rule.gate]\napprove_by = \"4s\"\n");
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let call = agent.call("bank__transfer", payment("INV-1")).call();
    let expired = agent.wait(&call);
    assert_eq!((expired.code(), expired.state(), expired.is_error()), ("expired", "expired", true));
    assert!(expired.text().contains("Nobody refused it"), "{}", expired.text());
    let late =
        Desk::of(&served, ANA).post(&format!("/calls/{call}/approve"), &json!({ "digest": "0".repeat(64) }));
    assert_eq!(late.status(), 409);
    assert_eq!(world.ledger().len(), 0);
}

#[test]
fn an_approval_expires_while_the_server_is_away() {
    let world = World::empty();
    world.configure(&format!(
        "[servers.bank]\ncommand = \"./bank\"\nargs = [\"--ledger\", \"ledger.jsonl\"]\n{OPERATORS}{ASK}\
         [rule.gate]\nexecute_by = \"1s\"\n"
    ));
    let link = || std::os::unix::fs::symlink(holdfast_tests::bank(), world.path("bank")).expect("ours");
    link();
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let call = agent.call("bank__transfer", payment("INV-1")).call();
    std::fs::remove_file(world.path("bank")).expect("ours");
    world.kill_one("bank");
    Desk::of(&served, ANA).approve(&call);
    let expired = agent.wait(&call);
    assert_eq!(expired.code(), "expired", "{expired:?}");
    link();
    assert_eq!(agent.wait(&call).code(), "expired");
    assert_eq!(world.ledger().len(), 0);
}

#[test]
fn one_digest_is_approved_and_no_other() {
    let world = asking("");
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let call = agent.call("bank__transfer", payment("INV-1")).call();
    let desk = Desk::of(&served, ANA);
    let digest = desk.digest(&call);
    for at in [0, 31, 63] {
        let mut flipped = digest.clone().into_bytes();
        flipped[at] = if flipped[at] == b'0' { b'1' } else { b'0' };
        let flipped = String::from_utf8(flipped).expect("ASCII");
        for verb in ["approve", "reject"] {
            let response = desk.post(&format!("/calls/{call}/{verb}"), &json!({ "digest": flipped }));
            assert_eq!(response.status(), 409, "{verb} {at}: {}", response.body);
            assert_eq!(response.json()["code"], "approval-invalid");
            // It names what is asked now, so that whoever decides can look again.
            assert_eq!(response.json()["details"]["digest"], digest.as_str());
        }
    }
    for body in [json!({}), json!({ "digest": "" }), json!({ "digest": digest, "extra": 1 }), json!([])] {
        let response = desk.post(&format!("/calls/{call}/approve"), &body);
        assert_eq!(response.status(), 400, "{body}: {}", response.body);
    }
    assert_eq!(desk.call(&call)["call"]["state"], "asking");
    assert_eq!(world.ledger().len(), 0);
}

#[test]
fn a_digest_covers_every_argument() {
    let world = asking("");
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let desk = Desk::of(&served, ANA);
    let mut digests: Vec<String> = [
        json!({ "message": "a" }),
        json!({ "from": "alice", "to": "shop", "amount": 1 }),
        json!({ "from": "alice", "to": "shop", "amount": 1, "reference": "x" }),
        json!({ "from": "alice", "to": "shop", "amount": 1, "reference": "x " }),
        json!({ "from": "alice", "to": "shop", "amount": 9_007_199_254_740_993_i64 }),
        json!({ "from": "alice", "to": "shop", "amount": 9_007_199_254_740_992_i64 }),
    ]
    .into_iter()
    .map(|arguments| {
        let call = agent.call("bank__transfer", arguments.clone()).call();
        let pending = desk.get("/pending").json();
        let shown = pending["pending"]
            .as_array()
            .expect("a list")
            .iter()
            .find(|held| held["call"]["call"] == call.as_str());
        assert_eq!(shown.expect("it waits")["arguments"], arguments.to_string());
        desk.digest(&call)
    })
    .collect();
    let all = digests.len();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), all);
}

#[test]
fn many_approvals_at_once_are_one_payment() {
    let world = asking("");
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let call = agent.call("bank__transfer", payment("INV-1")).call();
    let digest = Desk::of(&served, ANA).digest(&call);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let clicks: Vec<_> = (0..40)
            .map(|n| {
                let (served, call, digest) = (&served, &call, &digest);
                let token = [ANA, BOB][n % 2];
                scope.spawn(move || {
                    let body = json!({ "digest": digest });
                    Desk::of(served, token).post(&format!("/calls/{call}/approve"), &body).status()
                })
            })
            .collect();
        clicks.into_iter().map(|click| click.join().expect("no panic")).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 200 | 409)), "{statuses:?}");
    assert!(agent.wait(&call).succeeded());
    assert_eq!(world.ledger().len(), 1);
}

#[test]
fn agents_do_not_decide() {
    let agents = "[agents.nightly]\ntoken = \"token-of-nightly-long-enough\"\n";
    let world = World::bank(&format!("{agents}{OPERATORS}{ASK}"));
    let served = world.serve();
    let mut agent = Agent::with_token(&served, "agent", "token-of-nightly-long-enough");
    let call = agent.call("bank__transfer", payment("INV-1")).call();
    let digest = Desk::of(&served, ANA).digest(&call);
    let body = json!({ "digest": digest });
    let as_agent = Desk::of(&served, "token-of-nightly-long-enough");
    for verb in ["approve", "reject", "resolve", "cancel", "release"] {
        assert_eq!(as_agent.post(&format!("/calls/{call}/{verb}"), &body).status(), 403, "{verb}");
    }
    assert_eq!(as_agent.get("/pending").status(), 403);
    assert_eq!(
        Desk::of(&served, "nobodys-token").post(&format!("/calls/{call}/approve"), &body).status(),
        401
    );
    // And no tool decides either.
    assert!(agent.tools().iter().all(|tool| !tool.contains("approve") && !tool.contains("reject")));
    // An operator is no agent.
    let response = Agent::with_token(&served, "agent", ANA).ask("bank__transfer", payment("INV-2")).status();
    assert_eq!(response, 401);
    assert_eq!(world.ledger().len(), 0);
}

#[test]
fn two_of_finance_must_agree() {
    let world = asking("[rule.gate]\napprovers = [\"group:finance\"]\nquorum = 2\n");
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let call = agent.call("bank__transfer", payment("INV-1")).call();
    let [ana, bob, eve] = [ANA, BOB, EVE].map(|token| Desk::of(&served, token));
    let outsider = eve.decide(&call, "approve", json!({}));
    assert_eq!(outsider.status(), 403, "{}", outsider.body);
    let first = ana.decide(&call, "approve", json!({}));
    assert_eq!((first.status(), first.json()["state"].as_str()), (200, Some("asking")));
    let twice = ana.decide(&call, "approve", json!({}));
    assert_ne!(twice.status(), 200, "{}", twice.body);
    assert_eq!(world.ledger().len(), 0);
    bob.approve(&call);
    assert!(agent.wait(&call).succeeded());
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn every_gate_must_be_satisfied() {
    let more = "[rule.gate]\napprovers = [\"group:finance\"]\n\
        [[rule]]\nid = \"large\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n\
        when = [{ arg = \"/amount\", op = \"gt\", value = 100 }]\n[rule.gate]\napprovers = [\"operator:eve\"]\n";
    let world = asking(more);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let [ana, eve] = [ANA, EVE].map(|token| Desk::of(&served, token));
    let small = agent.call("bank__transfer", payment_of(100, "small")).call();
    ana.approve(&small);
    assert!(agent.wait(&small).succeeded());

    let large = agent.call("bank__transfer", payment_of(101, "large")).call();
    ana.approve(&large);
    assert_eq!(ana.call(&large)["call"]["state"], "asking");
    eve.approve(&large);
    assert!(agent.wait(&large).succeeded());
    assert_eq!((world.paid("small"), world.paid("large")), (1, 1));
}

#[test]
fn nobody_approves_what_their_own_agent_asks() {
    for (gate, allowed) in [("", false), ("[rule.gate]\nself_approve = true\n", true)] {
        let agents = "[agents.nightly]\ntoken = \"token-of-nightly-long-enough\"\nowner = \"ana\"\n";
        let world = World::bank(&format!("{agents}{OPERATORS}{ASK}{gate}"));
        let served = world.serve();
        let mut agent = Agent::with_token(&served, "agent", "token-of-nightly-long-enough");
        let call = agent.call("bank__transfer", payment("INV-1")).call();
        let own = Desk::of(&served, ANA).decide(&call, "approve", json!({}));
        assert_eq!(own.status(), if allowed { 200 } else { 403 }, "{}", own.body);
        if !allowed {
            assert_eq!(world.ledger().len(), 0);
            Desk::of(&served, BOB).approve(&call);
        }
        assert!(agent.wait(&call).succeeded());
        assert_eq!(world.paid("INV-1"), 1);
    }
}

#[test]
fn roles_count() {
    let roles = "[operators.vera]\ntoken = \"token-of-vera-long-enough\"\nrole = \"viewer\"\n\
        [operators.adam]\ntoken = \"token-of-adam-long-enough\"\nrole = \"admin\"\n";
    let world = World::bank(&format!("{roles}{OPERATORS}{ASK}"));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let call = agent.call_as("k", "bank__transfer", payment("INV-1")).call();
    let vera = Desk::of(&served, "token-of-vera-long-enough");
    assert_eq!(vera.decide(&call, "approve", json!({})).status(), 403);
    assert_eq!(Desk::of(&served, ANA).decide(&call, "reject", json!({ "reason": "no" })).status(), 200);
    // To free the key of a refused call makes another payment possible: that is for admins.
    assert_eq!(Desk::of(&served, ANA).post(&format!("/calls/{call}/release"), &json!({})).status(), 403);
    let adam = Desk::of(&served, "token-of-adam-long-enough");
    assert_eq!(adam.post(&format!("/calls/{call}/release"), &json!({})).status(), 200);
    assert_eq!(agent.call_as("k", "bank__transfer", payment("INV-1")).code(), "held");
}

#[test]
fn too_many_holds_are_turned_away() {
    let world = World::bank(&format!("[intake]\nheld_per_agent = 3\n{ASK}"));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    for n in 0..3 {
        assert_eq!(agent.call("bank__transfer", payment(&format!("INV-{n}"))).code(), "held");
    }
    let over = agent.call("bank__transfer", payment("INV-3"));
    assert_eq!((over.code(), over.is_error()), ("queue-full", true), "{over:?}");
    // The same one again is no further one.
    assert_eq!(agent.call("bank__transfer", payment("INV-2")).code(), "held");
    assert!(agent.call("bank__echo", json!({ "message": "hi" })).succeeded());
}

#[test]
fn an_approved_call_that_is_not_detached_waits_for_its_agent() {
    let world = asking("detached = false\n");
    let served = world.serve();
    let call = Agent::modern(&served, "agent").call("bank__transfer", payment("INV-1")).call();
    let ana = Desk::of(&served, ANA);
    ana.approve(&call);
    ana.await_state(&call, "approved");
    // Neither a restart nor anybody else makes it go.
    served.kill();
    let served = world.serve();
    let ana = Desk::of(&served, ANA);
    assert!(Agent::modern(&served, "other").call("bank__echo", json!({ "message": "hi" })).succeeded());
    assert_eq!((ana.call(&call)["call"]["state"].clone(), world.ledger().len()), (json!("approved"), 0));
    assert!(Agent::modern(&served, "agent").wait(&call).succeeded());
    assert_eq!(world.paid("INV-1"), 1);
}
