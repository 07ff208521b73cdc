//! People are told that they are needed: signed, at least once, without what is secret, and only where that may go.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use holdfast_tests::{
    Agent, Delivery, Desk, Ran, Receiver, Served, World, eventually, eventually_some, from_setup, payment,
};
use serde_json::{Map, Value, json};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OPERATORS: &str = "[operators.ana]\ntoken = \"token-of-ana-long-enough\"\nbreak_glass = true\n";
const ANA: &str = "token-of-ana-long-enough";
const ASK: &str = "[defaults]\neffect = \"allow\"\nhold_wait = \"0s\"\n\
    [[rule]]\nid = \"payments\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n";
/// Stands in the arguments of every call here.
const CANARY: &str = "canary-4711";

fn webhook(name: &str, url: &str) -> String {
    format!(
        "[notify.{name}]\nkind = \"webhook\"\nurl = \"{url}\"\nsecret = \"{SECRET}\"\nallow_private = true\n"
    )
}

/// Payments are asked for, and `sinks` are told.
fn world(sinks: &str) -> World {
    World::bank(&format!("{OPERATORS}{ASK}{sinks}"))
}

fn hold(served: &Served, reference: &str) -> String {
    let held =
        Agent::modern(served, "agent").call("bank__transfer", payment(&format!("{CANARY}-{reference}")));
    assert_eq!(held.code(), "held", "{held:?}");
    held.call()
}

/// What the library of Standard Webhooks makes of it.
fn verify(world: &World, delivery: &Delivery, secret: &str) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/webhook.py");
    let mut command: Command = world.command(&from_setup("venv/bin/python"));
    command.arg(script).arg(secret).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("python starts");
    let headers: Map<String, Value> =
        delivery.headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    let given = json!({ "headers": headers, "body": delivery.body }).to_string();
    child.stdin.take().expect("piped").write_all(given.as_bytes()).expect("python reads");
    let output = child.wait_with_output().expect("python ends");
    assert!(
        output.status.success(),
        "standardwebhooks is missing: run tests/setup once, then this test again"
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn sink(desk: &Desk<'_>, n: usize) -> Value {
    desk.get("/notifications").json()["notifications"][n].clone()
}

#[test]
fn a_held_call_is_told_signed_and_without_its_arguments() {
    let receiver = Receiver::start();
    let world = world(&webhook("ops", &receiver.url("/hook")));
    let served = world.serve();
    let desk = Desk::of(&served, ANA);
    let call = hold(&served, "1");
    let told = receiver.delivery(0);

    assert_eq!(told.line, "POST /hook HTTP/1.1");
    assert_eq!(verify(&world, &told, SECRET)["verified"], told.json());
    let data = &told.json()["data"];
    assert_eq!(told.json()["type"], "call.held");
    let expected = [
        ("call", call.as_str()),
        ("server", "bank"),
        ("tool", "transfer"),
        ("principal", "local"),
        ("state", "asking"),
        ("url", &format!("http://{}/calls/{call}", served.inbox)),
    ];
    for (name, value) in expected {
        assert_eq!(data[name], value, "{name}: {told:?}");
    }
    assert!(data["deadline"].is_string() && data["short_id"].as_str().is_some_and(|id| call.ends_with(id)));

    // The link leads to a login, and neither reading nor following it decides anything.
    let page = served.ask_inbox("GET", &format!("/calls/{call}"), &[], b"");
    assert_eq!(
        (page.status(), page.head.header("location")),
        (303, Some(&*format!("/login?next=%2Fcalls%2F{call}")))
    );
    assert_eq!(desk.call(&call)["call"]["state"], "asking");

    // Once it is decided nothing more is said, and what is out is what was meant to be.
    desk.approve(&call);
    desk.await_state(&call, "succeeded");
    hold(&served, "2");
    let next = receiver.delivery(1);
    assert_ne!(next.header("webhook-id"), told.header("webhook-id"));
    let sent = format!("{:?}", receiver.taken());
    assert!(!sent.contains(CANARY) && !sent.contains("alice") && !sent.contains(ANA), "{sent}");
    assert!(!served.log().contains(CANARY) && !served.log().contains("whsec_"), "{}", served.log());
}

#[test]
fn a_forged_or_stale_webhook_does_not_verify() {
    let receiver = Receiver::start();
    let world = world(&webhook("ops", &receiver.url("/hook")));
    assert!(world.run(&["notify-test"]).ok().contains("ok (HTTP 200)"));
    let told = receiver.delivery(0);
    assert_eq!(verify(&world, &told, SECRET)["verified"]["type"], "holdfast.test");
    let altered = |change: &dyn Fn(&mut Delivery)| {
        let mut altered = told.clone();
        change(&mut altered);
        verify(&world, &altered, SECRET)
    };
    let set = |delivery: &mut Delivery, name: &str, value: String| {
        let header = delivery.headers.iter_mut().find(|(known, _)| known == name);
        header.expect("it is there").1 = value;
    };
    let time: u64 = told.header("webhook-timestamp").parse().expect("seconds");
    let refusals = [
        altered(&|delivery| delivery.body = delivery.body.replace("holdfast.test", "call.held")),
        altered(&|delivery| set(delivery, "webhook-id", "hf_test_0".to_owned())),
        altered(&|delivery| set(delivery, "webhook-timestamp", (time - 1).to_string())),
        altered(&|delivery| set(delivery, "webhook-timestamp", (time - 3600).to_string())),
        altered(&|delivery| set(delivery, "webhook-signature", "v1,AAAA".to_owned())),
        verify(&world, &told, "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
    ];
    for (n, refusal) in refusals.iter().enumerate() {
        assert!(refusal["error"].is_string(), "{n}: {refusal}");
    }
}

#[test]
fn who_was_away_is_told_after_a_crash_under_the_same_id() {
    let receiver = Receiver::start();
    let world = world(&webhook("ops", &receiver.url("/hook")));
    let served = world.serve();
    receiver.leave();
    let call = hold(&served, "1");
    eventually("it is tried", || !receiver.missed().is_empty());
    let tried = receiver.missed()[0].header("webhook-id").to_owned();
    let desk = Desk::of(&served, ANA);
    let health = eventually_some("it is known to be away", || {
        Some(sink(&desk, 0)).filter(|sink| sink["state"] == "retrying")
    });
    assert_eq!((&health["behind"], &health["name"]), (&json!(1), &json!("ops")), "{health}");
    served.kill();

    receiver.come_back();
    let served = world.serve();
    let told = receiver.delivery(0);
    assert_eq!(told.header("webhook-id"), tried);
    assert_eq!(told.json()["data"]["call"], *call);
    assert!(verify(&world, &told, SECRET)["verified"].is_object());
    // And after the next crash not once more: the next message is the next one.
    let desk = Desk::of(&served, ANA);
    eventually("it is kept that it was told", || sink(&desk, 0)["behind"] == 0);
    served.kill();
    let served = world.serve();
    let next = hold(&served, "2");
    assert_eq!(receiver.delivery(1).json()["data"]["call"], *next);
    assert_eq!(receiver.taken().len(), 2);
}

#[test]
fn a_crash_in_flight_is_told_as_a_doubt() {
    let receiver = Receiver::start();
    let config = format!("{OPERATORS}[defaults]\neffect = \"allow\"\n{}", webhook("ops", &receiver.url("/")));
    let world = World::bank(&config);
    let served = world.serve();
    world.fault("hang once");
    let asked = Agent::modern(&served, "agent").ask("bank__transfer", payment(CANARY));
    eventually("the bank hangs", || world.fault_fired());
    served.kill();
    drop(asked);
    let _served = world.serve();
    let told = receiver.delivery(0).json();
    assert_eq!(
        (&told["type"], &told["data"]["state"]),
        (&json!("call.in_doubt"), &json!("in-doubt")),
        "{told}"
    );
}

#[test]
fn each_hears_what_it_wants_to_hear() {
    let (all, some) = (Receiver::start(), Receiver::start());
    let gate = "[rule.gate]\napprove_by = \"4s\"\n[[rule]]\nid = \"other\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"echo\"\n";
    let sinks = format!(
        "{gate}{}{}events = [\"expired\", \"glass\", \"in-doubt\"]\n",
        webhook("all", &all.url("/")),
        webhook("some", &some.url("/")),
    );
    let world = world(&sinks);
    let served = world.serve();
    let desk = Desk::of(&served, ANA);
    let expired = hold(&served, "1");
    let told = |receiver: &Receiver, n: usize| {
        let told = receiver.delivery(n).json();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&told["type"]), text(&told["data"]["call"]), text(&told["data"]["state"]))
    };
    let news = |kind: &str, call: &str, state: &str| (kind.to_owned(), call.to_owned(), state.to_owned());
    assert_eq!(told(&some, 0), news("call.expired", &expired, "expired"));

    let glass = Agent::modern(&served, "agent").call("bank__echo", json!({ "message": CANARY })).call();
    let broken = desk.decide(&glass, "approve", json!({ "break_glass": CANARY }));
    assert_eq!(broken.status(), 200, "{}", broken.body);
    assert_eq!(told(&some, 1), news("call.glass", &glass, "approved"));
    let kinds = |receiver: &Receiver| {
        let all = receiver.taken();
        all.iter().map(|one| one.json()["type"].as_str().expect("a type").to_owned()).collect::<Vec<_>>()
    };
    eventually("everything is told", || kinds(&all).iter().any(|kind| kind == "call.glass"));
    // How soon a question expires is a race, so only who wants to hear of none can be sure.
    assert!(kinds(&all).contains(&"call.expired".to_owned()), "{:?}", kinds(&all));
    assert_eq!(kinds(&some), ["call.expired", "call.glass"]);
    for receiver in [&all, &some] {
        assert!(!format!("{:?}", receiver.taken()).contains(CANARY));
    }
}

#[test]
fn in_the_words_of_slack_ntfy_and_a_desktop() {
    let receiver = Receiver::start();
    let sinks = format!(
        "[notify.chat]\nkind = \"slack\"\nurl = \"{}\"\nallow_private = true\n\
         [notify.phone]\nkind = \"ntfy\"\nurl = \"{}\"\ntoken = \"tk_long\"\nallow_private = true\n\
         [notify.desktop]\nkind = \"command\"\ncommand = \"./desktop\"\nargs = [\"--urgency\", \"$(id)\"]\n",
        receiver.url("/services/T0/B0/chat-key"),
        receiver.url("/topic-key"),
    );
    let world = World::empty();
    let inbox = "inbox_url = \"https://holdfast.example\"\n";
    world.configure(&format!("{inbox}{}{OPERATORS}{ASK}{sinks}", world.server_bank()));
    world.write(
        "desktop",
        "#!/bin/sh\nprintf '%s\\n' \"$@\" > said.new && cat >> said.new && mv said.new said\n",
    );
    let mut mode = fs::metadata(world.path("desktop")).expect("written").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o700);
    fs::set_permissions(world.path("desktop"), mode).expect("it is ours");
    let served = world.serve();
    let call = hold(&served, "1");
    let link = format!("https://holdfast.example/calls/{call}");
    let short = &call[call.len() - 8..];

    receiver.delivery(1);
    let told = receiver.taken();
    let to =
        |path: &str| told.iter().find(|one| one.line.contains(path)).unwrap_or_else(|| panic!("{told:?}"));
    let chat = to("/services/T0/B0/chat-key").json()["text"].as_str().expect("a text").to_owned();
    let begin = format!(
        "*A call waits for approval*\nTool `transfer` of server `bank`, called by `local` (call {short}). To be decided by "
    );
    assert!(chat.starts_with(&begin) && chat.ends_with(&format!("\n<{link}|Open the inbox>")), "{chat}");
    let phone = to("/topic-key");
    assert_eq!(phone.header("title"), "A call waits for approval");
    assert_eq!((phone.header("tags"), phone.header("click")), ("raised_hand", &*link));
    assert_eq!(phone.header("authorization"), "Bearer tk_long");
    assert!(phone.body.starts_with("Tool transfer of server bank, called by local"), "{}", phone.body);
    eventually("the program has run", || world.path("said").exists());
    let said = fs::read_to_string(world.path("said")).expect("written whole");
    let begin = "--urgency\n$(id)\nA call waits for approval\nTool transfer of server bank";
    assert!(said.starts_with(begin) && said.contains(&link), "{said}");
    assert!(said.contains("\"type\":\"call.held\""), "{said}");
    assert!(!format!("{told:?}{said}").contains(CANARY));

    // The name of the reverse proxy is ours, too; other names are not.
    let asked = |host: &str| served.ask_inbox("GET", "/login", &[("Host", host)], b"").status();
    assert_eq!((asked("holdfast.example"), asked("evil.example")), (200, 403));
    // Whoever knows these can write there: operators need not.
    let desk = Desk::of(&served, ANA);
    let shown = format!("{}{}{}", desk.get("/notifications").body, served.log(), world.run(&["check"]).ok());
    assert!(!shown.contains("-key") && !shown.contains("tk_long"), "{shown}");
}

#[test]
fn what_may_not_be_reached_is_said_before_and_after_the_start() {
    let receiver = Receiver::start();
    let refused =
        world(&format!("[notify.ops]\nkind = \"slack\"\nurl = \"https://{}/\"\n", receiver.address()));
    let checked = refused.run(&["check"]);
    assert_eq!(checked.code, Some(1));
    assert!(checked.stderr.contains("127.0.0.1 is this machine") && checked.stderr.contains("allow_private"));

    // A name says nothing about where it leads until it is asked for.
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("there is one").trim().to_owned();
    let port = receiver.address().rsplit(':').next().expect("a port");
    let world = world(&format!("[notify.ops]\nkind = \"slack\"\nurl = \"https://{host}:{port}/\"\n"));
    let tested = world.run(&["notify-test", "--json"]);
    assert_eq!(tested.code, Some(1), "{}", tested.stdout);
    let what = tested.json()["results"][0]["what"].as_str().expect("a sentence").to_owned();
    // Where this machine does not know its own name there is no address to refuse.
    assert!(what.contains("allow_private") || what.contains("dns error"), "{what}");
    let served = world.serve();
    hold(&served, "1");
    let desk = Desk::of(&served, ANA);
    let health =
        eventually_some("it is tried", || Some(sink(&desk, 0)).filter(|sink| sink["last_error"].is_string()));
    assert_eq!((&health["last_error"], &health["state"]), (&json!(what), &json!("retrying")));
    assert!(receiver.taken().is_empty() && receiver.missed().is_empty());
    assert!(served.stop().success());
}

#[test]
fn a_test_says_what_came_of_it() {
    let (here, away) = (Receiver::start(), Receiver::start());
    away.leave();
    let world = world(&format!("{}{}", webhook("here", &here.url("/")), webhook("away", &away.url("/"))));
    let all: Ran = world.run(&["notify-test"]);
    assert_eq!(all.code, Some(1), "{}", all.stdout);
    let line =
        |name: &str| all.stdout.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert!(line("here").contains("ok (HTTP 200)") && line("away").contains("FAILED: "), "{}", all.stdout);
    assert_eq!(world.run(&["notify-test", "here"]).code, Some(0));
    let unknown = world.run(&["notify-test", "nobody"]);
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.stderr.contains("there is no [notify.nobody]") && unknown.stderr.contains("here, away"));
    assert_eq!(World::with("").run(&["notify-test"]).code, Some(1));
}
