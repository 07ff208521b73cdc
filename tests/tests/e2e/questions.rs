//! What approvers are asked: previews, drift, edits, answers by hand, second thoughts and broken glass.

use holdfast_tests::{Agent, Desk, Ran, World, eventually, payment, payment_of};
use serde_json::{Value, json};

const ANA: &str = "token-of-ana-long-enough";
const BOB: &str = "token-of-bob-long-enough";
const OPERATORS: &str = "[operators.ana]\ntoken = \"token-of-ana-long-enough\"\ngroups = [\"finance\"]\n\
    [operators.bob]\ntoken = \"token-of-bob-long-enough\"\nbreak_glass = true\n";

/// Payments wait for an approver who sees what they would do; everything else is allowed.
fn world(more: &str) -> World {
    World::bank(&format!(
        "{OPERATORS}[defaults]\neffect = \"allow\"\nhold_wait = \"0s\"\n\
         [[rule]]\nid = \"large\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n\
         when = [{{ arg = \"/amount\", op = \"gt\", value = 20 }}]\n{more}"
    ))
}

const PREVIEW: &str = "[rule.preview]\ntool = \"quote_transfer\"\n\
    args = { from = \"{/from}\", to = \"{/to}\", amount = \"{/amount}\" }\ndrift = [\"/balance_after\"]\n";

/// The call as a terminal shows it.
fn shown(world: &World, call: &str) -> String {
    let mut command = world.holdfast(&["show", call]);
    Ran::of(command.env("HOLDFAST_OPERATOR_TOKEN", ANA)).ok().to_owned()
}

fn hold(desk: &Desk<'_>, call: &str) -> Value {
    desk.await_state(call, "asking")["hold"].clone()
}

#[test]
fn an_approver_sees_what_it_would_do() {
    let world = world(PREVIEW);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let call = agent.call("bank__transfer", payment("INV-1")).call();
    let desk = Desk::of(&served, ANA);
    let hold = hold(&desk, &call);
    assert_eq!(hold["preview"]["kind"], "preview", "{hold}");
    assert_eq!(hold["preview"]["text"]["structuredContent"]["balance_after"], 960, "{hold}");
    desk.approve(&call);
    assert!(agent.wait(&call).succeeded());
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn what_has_drifted_is_asked_again_with_both_previews() {
    let world = world(PREVIEW);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let call = agent.call("bank__transfer", payment("INV-1")).call();
    let desk = Desk::of(&served, ANA);
    let before = hold(&desk, &call);
    // Somebody else spends in between.
    assert!(agent.call("bank__transfer", payment_of(15, "INV-2")).succeeded());
    desk.approve(&call);
    let again = holdfast_tests::eventually_some("it is asked again", || {
        let hold = desk.call(&call)["hold"].clone();
        (hold["revision"] == 2).then_some(hold)
    });
    assert_ne!(again["digest"], before["digest"]);
    assert_eq!(again["preview"]["text"]["structuredContent"]["balance_after"], 945, "{again}");
    assert_eq!(again["earlier"]["text"]["structuredContent"]["balance_after"], 960, "{again}");
    assert_eq!(world.paid("INV-1"), 0);
    let stale = desk.decide(&call, "approve", json!({ "digest": before["digest"] }));
    assert_eq!(stale.status(), 409, "{}", stale.body);
    let told = shown(&world, &call);
    assert!(told.contains("/balance_after was 960 and is 945"), "{told}");
    desk.approve(&call);
    assert!(agent.wait(&call).succeeded());
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn a_failed_preview_is_shown_and_not_skipped() {
    let world = world(&PREVIEW.replace("quote_transfer", "no_such_tool"));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let call = agent.call("bank__transfer", payment("INV-1")).call();
    let desk = Desk::of(&served, ANA);
    let hold = hold(&desk, &call);
    assert_eq!(hold["preview"]["kind"], "failed", "{hold}");
    assert!(hold["preview"]["text"].as_str().is_some_and(|why| !why.is_empty()), "{hold}");
    desk.approve(&call);
    assert!(agent.wait(&call).succeeded());
}

#[test]
fn a_preview_under_way_survives_a_kill() {
    let world = world(PREVIEW);
    let served = world.serve();
    world.fault("all:slow=60s once");
    let mut agent = Agent::modern(&served, "agent");
    let told = agent.call("bank__transfer", payment("INV-1"));
    assert_eq!((told.code(), told.state()), ("held", "previewing"), "{told:?}");
    eventually("the bank is asked", || world.fault_fired());
    served.kill();
    let served = world.serve();
    let desk = Desk::of(&served, ANA);
    assert_eq!(hold(&desk, &told.call())["preview"]["kind"], "preview");
    desk.approve(&told.call());
    assert!(Agent::modern(&served, "agent").wait(&told.call()).succeeded());
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn nobody_decides_before_the_preview_is_there() {
    let world = world(PREVIEW);
    let served = world.serve();
    world.fault("all:slow=60s once");
    let call = Agent::modern(&served, "agent").call("bank__transfer", payment("INV-1")).call();
    let desk = Desk::of(&served, ANA);
    for verb in ["approve", "reject"] {
        let refused = desk.decide(&call, verb, json!({ "digest": "0".repeat(64) }));
        assert_eq!((refused.status(), &refused.json()["code"]), (409, &json!("not-now")), "{}", refused.body);
    }
    assert_eq!(desk.post(&format!("/calls/{call}/cancel"), &json!({})).status(), 200);
    desk.await_state(&call, "cancelled");
}

#[test]
fn an_edit_is_asked_anew_and_the_agent_is_told() {
    let world = world(PREVIEW);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let call = agent.call("bank__transfer", payment_of(900, "INV-1")).call();
    let desk = Desk::of(&served, ANA);
    let before = hold(&desk, &call);
    let edited = desk.decide(&call, "edit", json!({ "arguments": payment_of(30, "INV-1") }));
    assert_eq!(edited.status(), 200, "{}", edited.body);
    let stale = desk.decide(&call, "approve", json!({ "digest": before["digest"] }));
    assert_eq!(stale.status(), 409, "{}", stale.body);
    let after = hold(&desk, &call);
    assert_eq!(after["preview"]["text"]["structuredContent"]["balance_after"], 970, "{after}");
    let pending = desk.get("/pending").json();
    assert!(
        pending["pending"][0]["arguments"].as_str().is_some_and(|text| text.contains(":30")),
        "{pending}"
    );
    assert_eq!(pending["pending"][0]["edited"]["name"], "ana");
    // What the agent asked for still is this call.
    assert_eq!(agent.call("bank__transfer", payment_of(900, "INV-1")).call(), call);
    desk.approve(&call);
    let answer = agent.wait(&call);
    assert!(answer.succeeded(), "{answer:?}");
    let words = answer.result()["content"].to_string();
    assert!(words.contains("ana changed the arguments") && words.contains("30"), "{words}");
    assert_eq!(answer.note("edited")["amount"], 30);
    assert_eq!(world.ledger().last().map(|line| line["amount"].clone()), Some(json!(30)));
}

#[test]
fn an_edit_survives_a_kill() {
    let world = world("");
    let served = world.serve();
    let call = Agent::modern(&served, "agent").call("bank__transfer", payment("INV-1")).call();
    let desk = Desk::of(&served, ANA);
    assert_eq!(desk.decide(&call, "edit", json!({ "arguments": payment_of(25, "INV-1") })).status(), 200);
    served.kill();
    let served = world.serve();
    Desk::of(&served, ANA).approve(&call);
    assert!(Agent::modern(&served, "agent").wait(&call).succeeded());
    assert_eq!(world.ledger()[0]["amount"], 25);
}

#[test]
fn an_edit_cannot_make_another_effect_of_it() {
    let key = "[rule.idempotency]\nkey = \"transfer:{/reference}\"\n\
        [[rule]]\nid = \"never\"\neffect = \"deny\"\nserver = \"bank\"\ntool = \"transfer\"\n\
        when = [{ arg = \"/to\", op = \"eq\", value = \"bob\" }]\n";
    let world = world(key);
    let served = world.serve();
    let call = Agent::modern(&served, "agent").call("bank__transfer", payment("INV-1")).call();
    let desk = Desk::of(&served, ANA);
    let denied = json!({ "from": "alice", "to": "bob", "amount": 30, "reference": "INV-1" });
    let check = |arguments: Value, status: u16, words: &str| {
        let refused = desk.decide(&call, "edit", json!({ "arguments": arguments }));
        assert_eq!(refused.status(), status, "{}", refused.body);
        assert!(refused.body.contains(words), "{}", refused.body);
    };
    check(payment("INV-2"), 409, "another effect key");
    check(denied, 403, "the policy denies");
    check(json!([1]), 400, "must be a JSON object");
    let duplicate = format!(r#"{{"digest":"{}","arguments":{{"amount":1,"amount":2}}}}"#, desk.digest(&call));
    let bearer = format!("Bearer {ANA}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let refused =
        served.ask_inbox("POST", &format!("/api/v1/calls/{call}/edit"), &headers, duplicate.as_bytes());
    assert_eq!(refused.status(), 400, "{}", refused.body);
    assert!(refused.body.contains("stands twice"), "{}", refused.body);
    assert_eq!(desk.call(&call)["hold"]["revision"], 1);
}

#[test]
fn an_edit_cannot_bring_other_promises() {
    let world = world(
        "[[rule]]\nid = \"tiny\"\nserver = \"bank\"\ntool = \"transfer\"\nrepeat = \"safe\"\n\
         when = [{ arg = \"/amount\", op = \"le\", value = 30 }]\n",
    );
    let served = world.serve();
    let call = Agent::modern(&served, "agent").call("bank__transfer", payment("INV-1")).call();
    let desk = Desk::of(&served, ANA);
    let refused = desk.decide(&call, "edit", json!({ "arguments": payment_of(25, "INV-1") }));
    assert_eq!(refused.status(), 409, "{}", refused.body);
    assert!(refused.body.contains("another `repeat`"), "{}", refused.body);
    let taken = desk.decide(&call, "edit", json!({ "arguments": payment_of(35, "INV-1") }));
    assert_eq!(taken.status(), 200, "{}", taken.body);
}

#[test]
fn a_changed_policy_asks_whom_it_names_and_whoever_was_asked_before() {
    let rules = |who: &str| {
        format!(
            "{OPERATORS}[defaults]\neffect = \"allow\"\nhold_wait = \"0s\"\n[[rule]]\nid = \"large\"\n\
             effect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n[rule.gate]\napprovers = [\"operator:{who}\"]\n"
        )
    };
    let world = World::bank(&rules("ana"));
    let served = world.serve();
    let call = Agent::modern(&served, "agent").call("bank__transfer", payment("INV-1")).call();
    served.kill();
    world.configure(&format!("{}{}", world.server_bank(), rules("bob")));
    let served = world.serve();
    let (ana, bob) = (Desk::of(&served, ANA), Desk::of(&served, BOB));
    ana.approve(&call);
    holdfast_tests::eventually_some("it is asked again", || {
        (ana.call(&call)["hold"]["revision"] == 2).then_some(())
    });
    bob.approve(&call);
    assert_eq!(ana.call(&call)["call"]["state"], "asking");
    assert_eq!(world.ledger().len(), 0);
    ana.approve(&call);
    assert!(Agent::modern(&served, "agent").wait(&call).succeeded());
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn an_answer_by_hand_goes_to_the_agent_and_nothing_is_sent() {
    let world = world("");
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let call = agent.call("bank__transfer", payment("INV-1")).call();
    let desk = Desk::of(&served, ANA);
    let answered = desk.decide(&call, "respond", json!({ "answer": "booked by hand as B-7" }));
    assert_eq!(answered.status(), 200, "{}", answered.body);
    let answer = agent.wait(&call);
    assert!(answer.succeeded() && answer.text().contains("B-7"), "{answer:?}");
    assert!(answer.result()["content"].to_string().contains("in the tool's place"), "{answer:?}");
    assert_eq!(world.ledger().len(), 0);
    let late = desk.decide(&call, "approve", json!({ "digest": "0".repeat(64) }));
    assert_eq!(late.status(), 409, "{}", late.body);
}

#[test]
fn an_approval_is_taken_back_before_the_dispatch() {
    let world = World::bank(&format!(
        "{OPERATORS}[defaults]\neffect = \"allow\"\nhold_wait = \"0s\"\nlimits = {{ concurrency = 1 }}\n\
         queue_timeout = \"5m\"\n[[rule]]\nid = \"large\"\neffect = \"ask\"\nserver = \"bank\"\n\
         tool = \"transfer\"\nwhen = [{{ arg = \"/amount\", op = \"gt\", value = 20 }}]\n"
    ));
    let served = world.serve();
    // One that keeps the only slot.
    world.fault("slow=60s once");
    let mut first = Agent::modern(&served, "first");
    let busy = first.ask("bank__transfer", payment_of(5, "INV-0"));
    eventually("the bank is busy", || world.fault_fired());
    let mut agent = Agent::modern(&served, "agent");
    let call = agent.call("bank__transfer", payment("INV-1")).call();
    let desk = Desk::of(&served, ANA);
    desk.approve(&call);
    desk.await_state(&call, "approved");
    let revoked = desk.post(&format!("/calls/{call}/revoke"), &json!({ "reason": "wrong invoice" }));
    assert_eq!(revoked.status(), 200, "{}", revoked.body);
    desk.await_state(&call, "asking");
    served.kill();
    drop(busy);
    let served = world.serve();
    let desk = Desk::of(&served, ANA);
    assert_eq!(desk.call(&call)["hold"]["votes"], json!([]));
    let rejected = desk.decide(&call, "reject", json!({ "reason": "wrong invoice" }));
    assert_eq!(rejected.status(), 200, "{}", rejected.body);
    assert_eq!(world.paid("INV-1"), 0);
}

#[test]
fn the_glass_is_broken_only_by_who_may_and_on_the_record() {
    let world = world("[rule.gate]\napprovers = [\"group:finance\"]\nquorum = 1\n");
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let call = agent.call("bank__transfer", payment("INV-1")).call();
    let (ana, bob) = (Desk::of(&served, ANA), Desk::of(&served, BOB));
    assert_eq!(bob.decide(&call, "approve", json!({})).status(), 403);
    assert_eq!(ana.decide(&call, "approve", json!({ "break_glass": "now" })).status(), 403);
    assert_eq!(bob.decide(&call, "approve", json!({ "break_glass": " " })).status(), 400);
    let broken = bob.decide(&call, "approve", json!({ "break_glass": "the house burns" }));
    assert_eq!(broken.status(), 200, "{}", broken.body);
    assert!(agent.wait(&call).succeeded());
    let told = shown(&world, &call);
    assert!(told.contains("BREAK-GLASS: approved by bob"), "{told}");
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn a_terminal_can_do_all_of_it() {
    let world = World::bank(
        "[defaults]\neffect = \"allow\"\nhold_wait = \"0s\"\n\
         [[rule]]\nid = \"ask\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n",
    );
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let call = agent.call("bank__transfer", payment("INV-1")).call();
    let arguments = payment_of(25, "INV-1").to_string();
    let said = world.run(&["edit", &call, "--args", &arguments]);
    assert!(said.ok().contains("must be approved"), "{}", said.ok());
    world.run(&["approve", &call]).ok();
    assert!(agent.wait(&call).succeeded());
    let call = agent.call("bank__transfer", payment("INV-2")).call();
    let said = world.run(&["respond", &call, "--answer", "\"done by hand\""]);
    assert!(said.ok().contains("nothing is sent"), "{}", said.ok());
    assert!(agent.wait(&call).text().contains("done by hand"));
    assert_eq!(world.ledger().len(), 1);
}
