//! Approvals that speak for later calls, too.

use std::thread;

use holdfast_tests::{Agent, Answer, Desk, Ran, World, payment_of};
use serde_json::{Value, json};

const ANA: &str = "token-of-ana-long-enough";
const BOB: &str = "token-of-bob-long-enough";
const EVE: &str = "token-of-eve-long-enough";
const OPERATORS: &str = "[operators.ana]\ntoken = \"token-of-ana-long-enough\"\ngroups = [\"finance\"]\n\
    [operators.bob]\ntoken = \"token-of-bob-long-enough\"\ngroups = [\"finance\"]\n\
    [operators.eve]\ntoken = \"token-of-eve-long-enough\"\nrole = \"viewer\"\n";
const ASK: &str = "[defaults]\neffect = \"allow\"\nhold_wait = \"0s\"\n\
    [[rule]]\nid = \"money\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n";
const PREVIEW: &str = "[rule.preview]\ntool = \"quote_transfer\"\n\
    args = { from = \"{/from}\", to = \"{/to}\", amount = \"{/amount}\" }\ndrift = [\"/balance_after\"]\n";

fn asking(more: &str) -> World {
    World::bank(&format!("{OPERATORS}{ASK}{more}"))
}

fn pay(agent: &mut Agent, amount: i64, reference: &str) -> Answer {
    agent.call("bank__transfer", payment_of(amount, reference))
}

/// A payment that `ana` approves, which comes to its end.
fn approved(agent: &mut Agent, desk: &Desk<'_>, reference: &str) -> String {
    let call = pay(agent, 10, reference).call();
    desk.await_state(&call, "asking");
    desk.approve(&call);
    assert!(agent.wait(&call).succeeded());
    call
}

/// The digest that was approved, of a call that is over.
fn digest(desk: &Desk<'_>, call: &str) -> Value {
    let records = desk.call(call)["records"].clone();
    let vote = |record: &Value| Some(record["entry"]["approved"]["digest"].clone()).filter(Value::is_string);
    records.as_array().expect("entries").iter().find_map(vote).expect("somebody approved it")
}

/// What `desk` hears when it wants this approval remembered for any reference.
fn remember(desk: &Desk<'_>, call: &str, uses: u32) -> (u16, Value) {
    let body = json!({ "digest": digest(desk, call), "vary": ["reference"], "uses": uses, "for": "1h" });
    let response = desk.post(&format!("/calls/{call}/remember"), &body);
    (response.status(), response.json())
}

#[test]
fn an_approval_speaks_for_calls_like_its_own_and_no_others() {
    for preview in ["", PREVIEW] {
        let world = asking(preview);
        let served = world.serve();
        let (mut agent, ana) = (Agent::modern(&served, "agent"), Desk::of(&served, ANA));
        let first = approved(&mut agent, &ana, "INV-1");
        let (status, view) = remember(&ana, &first, 2);
        assert_eq!((status, &view["used"]), (200, &json!(0)), "{view}");

        let spoken = pay(&mut agent, 10, "INV-2");
        assert!(spoken.succeeded(), "{spoken:?}");
        let story = ana.call(&spoken.call());
        let vote = &story["records"][1]["entry"]["approved"];
        assert_eq!(
            (&vote["by"]["name"], &vote["by"]["via"]),
            (&json!("ana"), &json!("remembered")),
            "{story}"
        );
        assert_eq!(vote["remembered"], view["decision"]["id"]);

        assert_eq!(pay(&mut agent, 11, "INV-3").code(), "held", "another amount");
        let mut elsewhere = payment_of(10, "INV-4");
        elsewhere["to"] = "bob".into();
        assert_eq!(agent.call("bank__transfer", elsewhere).code(), "held", "another payee");
        assert!(pay(&mut agent, 10, "INV-5").succeeded());
        assert_eq!(pay(&mut agent, 10, "INV-6").code(), "held", "it is used up");
        assert_eq!(ana.get("/remembered").json()["remembered"][0]["used"], 2);
        assert_eq!(world.ledger().len(), 3);
    }
}

#[test]
fn its_uses_are_counted_across_crashes_and_races() {
    let world = asking("");
    let served = world.serve();
    let (mut agent, ana) = (Agent::modern(&served, "agent"), Desk::of(&served, ANA));
    let first = approved(&mut agent, &ana, "INV-0");
    assert_eq!(remember(&ana, &first, 5).0, 200);
    assert!(pay(&mut agent, 10, "INV-1").succeeded());
    assert!(pay(&mut agent, 10, "INV-2").succeeded());
    served.kill();

    let served = world.serve();
    let paid = thread::scope(|scope| {
        let one = |n: u32| {
            let served = &served;
            // Each at a connection of its own, with a name of its own.
            scope.spawn(move || {
                pay(&mut Agent::modern(served, &format!("agent-{n}")), 10, &format!("RACE-{n}")).succeeded()
            })
        };
        let racers: Vec<_> = (0..12).map(one).collect();
        racers.into_iter().map(|racer| racer.join().expect("an answer")).filter(|paid| *paid).count()
    });
    assert_eq!(paid, 3, "5 uses, of which 2 were before the crash");
    assert_eq!(world.ledger().len(), 6);
    let ana = Desk::of(&served, ANA);
    assert_eq!(ana.get("/remembered").json()["remembered"][0]["used"], 5);
    assert_eq!(ana.get("/verify").json()["ok"], true);
}

#[test]
fn what_is_forgotten_or_expired_asks_again() {
    let world = asking("");
    let served = world.serve();
    let (mut agent, ana) = (Agent::modern(&served, "agent"), Desk::of(&served, ANA));
    let first = approved(&mut agent, &ana, "INV-1");
    let id = remember(&ana, &first, 5).1["decision"]["id"].as_str().expect("an id").to_owned();
    assert!(pay(&mut agent, 10, "INV-2").succeeded());
    let forget =
        |desk: &Desk<'_>, id: &str| desk.post(&format!("/remembered/{id}/forget"), &json!({})).status();
    assert_eq!(forget(&Desk::of(&served, EVE), &id), 403, "who may not approve may not decide here either");
    assert_eq!(forget(&Desk::of(&served, BOB), &id), 200);
    assert_eq!(forget(&ana, &id), 404);
    assert_eq!(pay(&mut agent, 10, "INV-3").code(), "held");
    served.kill();
    let served = world.serve();
    assert_eq!(pay(&mut Agent::modern(&served, "agent"), 10, "INV-4").code(), "held");
    assert_eq!(Desk::of(&served, ANA).get("/remembered").json()["remembered"], json!([]));
}

#[test]
fn only_who_approved_can_have_it_remembered_and_within_bounds() {
    let world = asking("");
    let served = world.serve();
    let (mut agent, ana) = (Agent::modern(&served, "agent"), Desk::of(&served, ANA));
    let call = pay(&mut agent, 10, "INV-1").call();
    let asked = ana.digest(&call);
    let wish = |desk: &Desk<'_>, digest: &str, uses: u32, span: &str| {
        let body = json!({ "digest": digest, "uses": uses, "for": span });
        desk.post(&format!("/calls/{call}/remember"), &body).status()
    };
    assert_eq!(wish(&ana, &asked, 1, "1h"), 403, "nobody has approved it yet");
    ana.approve(&call);
    assert!(agent.wait(&call).succeeded());
    assert_eq!(wish(&Desk::of(&served, BOB), &asked, 1, "1h"), 403);
    assert_eq!(wish(&Desk::of(&served, EVE), &asked, 1, "1h"), 403);
    assert_eq!(wish(&ana, &"0".repeat(64), 1, "1h"), 409);
    for (uses, span) in [(0, "1h"), (1001, "1h"), (1, "1s"), (1, "31d")] {
        assert_eq!(wish(&ana, &asked, uses, span), 400, "{uses} {span}");
    }
    assert_eq!(wish(&ana, &asked, 1, "soon"), 400);
    assert_eq!(wish(&ana, &asked, 1, "1h"), 200);
}

#[test]
fn it_speaks_only_while_its_giver_may_approve_and_the_same_is_asked() {
    let world = asking("");
    let served = world.serve();
    let (mut agent, ana) = (Agent::modern(&served, "agent"), Desk::of(&served, ANA));
    let first = approved(&mut agent, &ana, "INV-1");
    assert_eq!(remember(&ana, &first, 5).0, 200);
    served.kill();

    let more = "[[rule]]\nid = \"night\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n";
    world.configure(&format!("{}{OPERATORS}{ASK}{more}", world.server_bank()));
    let served = world.serve();
    assert_eq!(
        pay(&mut Agent::modern(&served, "agent"), 10, "INV-2").code(),
        "held",
        "another rule asks, too"
    );
    served.kill();

    let demoted = OPERATORS.replacen("groups = [\"finance\"]", "role = \"viewer\"", 1);
    world.configure(&format!("{}{demoted}{ASK}", world.server_bank()));
    let served = world.serve();
    assert_eq!(
        pay(&mut Agent::modern(&served, "agent"), 10, "INV-3").code(),
        "held",
        "ana may not approve any more"
    );
    let silenced = Desk::of(&served, BOB).get("/remembered").json()["remembered"][0]["silenced"].to_string();
    assert!(silenced.contains("ana"), "{silenced}");
    assert_eq!(world.ledger().len(), 1);
}

#[test]
fn two_approvers_have_to_remember_where_two_have_to_approve() {
    let world = asking("[rule.gate]\nquorum = 2\n");
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let (ana, bob) = (Desk::of(&served, ANA), Desk::of(&served, BOB));
    let call = pay(&mut agent, 10, "INV-1").call();
    ana.approve(&call);
    bob.approve(&call);
    assert!(agent.wait(&call).succeeded());
    assert_eq!(remember(&ana, &call, 5).0, 200);
    assert_eq!(pay(&mut agent, 10, "INV-2").code(), "held");
    assert_eq!(remember(&bob, &call, 5).0, 200);
    assert!(pay(&mut agent, 10, "INV-3").succeeded());
    let used = |n: usize| ana.get("/remembered").json()["remembered"][n]["used"].clone();
    assert_eq!(
        (used(0), used(1)),
        (json!(1), json!(1)),
        "a hold that was asked all the same used nothing up"
    );
}

#[test]
fn a_repeat_of_a_call_uses_nothing_up() {
    let world = asking("");
    let served = world.serve();
    let (mut agent, ana) = (Agent::modern(&served, "agent"), Desk::of(&served, ANA));
    let first = approved(&mut agent, &ana, "INV-1");
    assert_eq!(remember(&ana, &first, 1).0, 200);
    let mut again = || agent.call_as("key-1", "bank__transfer", payment_of(10, "INV-2"));
    assert!(again().succeeded());
    assert!(again().replayed());
    assert_eq!(ana.get("/remembered").json()["remembered"][0]["used"], 1);
    assert_eq!(world.paid("INV-2"), 1);
}

/// `holdfast ARGS` as ana.
fn run(world: &World, args: &[&str]) -> Ran {
    Ran::of(world.holdfast(args).env("HOLDFAST_OPERATOR_TOKEN", ANA))
}

#[test]
fn from_a_terminal() {
    let world = asking("");
    let served = world.serve();
    let (mut agent, ana) = (Agent::modern(&served, "agent"), Desk::of(&served, ANA));
    assert!(run(&world, &["remembered"]).ok().contains("Nothing is remembered."));
    let first = approved(&mut agent, &ana, "INV-1");
    let said = run(&world, &["remember", &first, "--vary", "reference", "--uses", "3", "--for", "2h"]);
    assert!(
        said.ok().contains(
            "bank/transfer of local with from = \"alice\", to = \"shop\", amount = 10, any reference"
        ),
        "{}",
        said.ok()
    );
    assert!(pay(&mut agent, 10, "INV-2").succeeded());
    let listed = run(&world, &["remembered"]).ok().to_owned();
    assert!(listed.contains("1 of 3") && listed.contains("speaks"), "{listed}");

    let explain = |amount: i64| {
        let args = payment_of(amount, "INV-9").to_string();
        run(&world, &["explain", "bank", "transfer", "--args", &args])
    };
    let (yes, no) = (explain(10), explain(20));
    assert_eq!((yes.code, no.code), (Some(10), Some(10)), "the policy asks either way");
    assert!(yes.stdout.contains("the approval of ana speaks for this call (use 2 of 3)"), "{}", yes.stdout);
    assert!(no.stdout.contains("does not speak for it: it is for `amount` 10, not 20"), "{}", no.stdout);

    let listed = run(&world, &["remembered", "--json"]).json();
    let id = listed["remembered"][0]["decision"]["id"].as_str().expect("an id").to_owned();
    assert!(run(&world, &["forget", &id[28..], "--reason", "enough"]).ok().contains("forgotten"));
    assert_eq!(pay(&mut agent, 10, "INV-3").code(), "held");
}

#[test]
fn a_key_that_we_put_in_is_nobody_s_to_repeat() {
    let keyed = "repeat = \"keyed\"\n[rule.idempotency]\nkey = \"transfer:{/reference}\"\n\
        upstream = \"arg:/idempotency_key\"\n";
    let world = asking(keyed);
    let served = world.serve();
    let (mut agent, ana) = (Agent::modern(&served, "agent"), Desk::of(&served, ANA));
    let first = approved(&mut agent, &ana, "INV-1");
    let (status, view) = remember(&ana, &first, 5);
    assert_eq!(status, 200, "{view}");
    assert!(!view["decision"]["pins"].to_string().contains("idempotency_key"), "{view}");
    assert!(pay(&mut agent, 10, "INV-2").succeeded());
    assert_eq!((world.paid("INV-1"), world.paid("INV-2")), (1, 1));
}
