//! The commands: what they print, and how they end.

use std::sync::atomic::{AtomicBool, Ordering};

use holdfast_tests::{ALLOW, Agent, World, eventually, payment, payment_of};
use serde_json::{Value, json};

const RULES: &str = "[defaults]\neffect = \"ask\"\nhold_wait = \"0s\"\n\
    [[rule]]\nid = \"small\"\neffect = \"allow\"\nserver = \"bank\"\ntool = \"transfer\"\n\
    when = [{ arg = \"/amount\", op = \"le\", value = 100 }]\n\
    [[rule]]\nid = \"never-close\"\neffect = \"deny\"\nserver = \"bank\"\ntool = \"close_account\"\n";

#[test]
fn check_says_what_it_has_understood() {
    let world = World::bank(RULES);
    let ran = world.run(&["check"]);
    assert!(ran.ok().contains("small, never-close"), "{ran:?}");
    let report = world.run(&["check", "--json"]);
    let report = (report.ok(), report.json()).1;
    assert_eq!(report["ok"], true);
    assert_eq!(report["configuration"]["rules"], json!(["small", "never-close"]));
    assert_eq!(report["configuration"]["servers"][0]["name"], "bank");
    // Nothing is started or made for a look.
    assert_eq!(world.processes(), Vec::<i32>::new());
    assert!(!world.path("holdfast.redb").exists());
}

#[test]
fn explain_ends_with_the_verdict() {
    let world = World::bank(RULES);
    for (tool, arguments, code, rule) in [
        ("transfer", r#"{"amount":100}"#, 0, "small"),
        ("transfer", r#"{"amount":100.01}"#, 10, "defaults"),
        ("transfer", r#"{"amount":"100"}"#, 10, "defaults"),
        ("transfer", "{}", 10, "defaults"),
        ("balance", "{}", 10, "defaults"),
        ("close_account", r#"{"account":"bob"}"#, 20, "never-close"),
    ] {
        let ran = world.run(&["explain", "bank", tool, "--args", arguments]);
        assert_eq!(ran.code, Some(code), "{tool} {arguments}: {ran:?}");
        assert!(ran.stdout.contains(rule), "{tool} {arguments}: {}", ran.stdout);
        let as_json = world.run(&["explain", "bank", tool, "--args", arguments, "--json"]);
        assert_eq!(as_json.code, Some(code));
        assert_eq!(
            as_json.json()["effect"],
            ["allow", "ask", "deny"][usize::try_from(code / 10).expect("small")]
        );
    }
    world.write("args.json", r#"{"amount":1}"#);
    assert_eq!(world.run(&["explain", "bank", "transfer", "--args", "@args.json"]).code, Some(0));
    for wrong in [
        vec!["explain", "bonk", "transfer"],
        vec!["explain", "bank", "transfer", "--args", "{"],
        vec!["explain", "bank", "transfer", "--args", "[]"],
        vec!["explain", "bank", "transfer", "--args", r#"{"a":1,"a":2}"#],
        vec!["explain", "bank", "transfer", "--args", "@gone.json"],
    ] {
        let ran = world.run(&wrong);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{wrong:?}: {ran:?}");
    }
}

#[test]
fn calls_can_be_found_by_what_they_are() {
    let world = World::bank(RULES);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    agent.call("bank__transfer", payment("INV-1"));
    agent.call("bank__transfer", payment_of(500, "INV-2"));
    agent.call("bank__close_account", json!({ "account": "bob" }));
    let mut of_run = Agent::modern(&served, "agent").meta("io.holdfast/run", "task-7");
    of_run.call("bank__transfer", payment("INV-3"));
    let find = |args: &[&str]| -> Vec<Value> {
        let ran = world.run(&[&["calls", "--json"], args].concat());
        ran.ok();
        ran.json()["calls"].as_array().expect("a list").clone()
    };
    let states = |calls: Vec<Value>| calls.iter().map(|call| call["state"].clone()).collect::<Vec<_>>();
    assert_eq!(states(find(&[])), ["succeeded", "denied", "asking", "succeeded"]);
    assert_eq!(states(find(&["--state", "asking,denied"])), ["denied", "asking"]);
    assert_eq!(states(find(&["--tool", "close_account"])), ["denied"]);
    assert_eq!(states(find(&["--run", "task-7"])), ["succeeded"]);
    assert_eq!(states(find(&["--since", "1h"])).len(), 4);
    assert_eq!(states(find(&["--limit", "2"])), ["succeeded", "denied"]);
    assert_eq!(states(find(&["--server", "elsewhere"])), Vec::<Value>::new());
    let wrong = world.run(&["calls", "--state", "lost"]);
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.stderr.contains("in-doubt"), "the states there are: {}", wrong.stderr);

    // The journal can be read without serve as well, and says the same.
    let with_serve = find(&[]);
    assert!(served.stop().success());
    assert_eq!(find(&[]), with_serve);
}

#[test]
fn show_tells_the_whole_story() {
    let world = World::bank(RULES);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let call = agent.call("bank__transfer", payment_of(500, "INV-2")).call();
    let open = world.run(&["show", &call]);
    assert!(open.ok().contains("asking") && open.stdout.contains("INV-2"), "{}", open.stdout);
    world.run(&["approve", &call]).ok();
    assert!(agent.wait(&call).succeeded());
    let short = &call[call.len() - 8..];
    let told = world.run(&["show", short]);
    for part in ["succeeded", "approved by local (cli)", "attempt 1 sent", "attempt 1 answered", "Made t-1"] {
        assert!(told.ok().contains(part), "{part}\n{}", told.stdout);
    }
    let detail = world.run(&["show", short, "--json"]).json();
    assert_eq!(detail["call"]["call"], call.as_str());
    assert!(detail["records"].as_array().is_some_and(|records| records.len() >= 4), "{detail}");
}

#[test]
fn deceptive_arguments_are_made_visible() {
    let world = World::bank(RULES);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let nasty = "INV\u{1b}[2K\u{202e}\u{200b}\u{e0041}x";
    let call = agent.call("bank__transfer", payment_of(500, nasty)).call();
    for args in [vec!["pending"], vec!["show", &call]] {
        let ran = world.run(&args);
        let shown = ran.ok();
        for hidden in ['\u{1b}', '\u{202e}', '\u{200b}', '\u{e0041}'] {
            assert!(!shown.contains(hidden), "{args:?} prints {hidden:?} raw");
        }
        assert!(shown.contains("200b") || shown.contains("200B"), "{args:?}: {shown}");
    }
}

#[test]
fn an_approval_names_what_was_seen() {
    let world = World::bank(RULES);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let call = agent.call("bank__transfer", payment_of(500, "INV-2")).call();
    let stale = world.run(&["approve", &call, "--digest", "0000"]);
    assert_eq!(stale.code, Some(1), "{stale:?}");
    let digest =
        world.run(&["show", &call, "--json"]).json()["hold"]["digest"].as_str().expect("held").to_owned();
    let taken = world.run(&["approve", &call, "--digest", &digest[..8], "--json"]);
    taken.ok();
    assert_eq!(taken.json()["call"], call.as_str());
    assert!(agent.wait(&call).succeeded());
    let again = world.run(&["approve", &call]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert_eq!(world.paid("INV-2"), 1);
}

#[test]
fn verify_counts_every_entry() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    for n in 0..5 {
        agent.call("bank__transfer", payment(&format!("INV-{n}")));
    }
    let live = world.run(&["verify", "--json"]);
    live.ok();
    assert_eq!(live.json()["ok"], true);
    assert!(live.json()["entries"].as_u64().is_some_and(|entries| entries >= 15), "{}", live.stdout);
    assert!(served.stop().success());
    let rested = world.run(&["verify", "--json"]);
    assert_eq!(rested.ok(), live.stdout);
}

#[test]
fn every_code_has_its_page() {
    let world = World::empty();
    let list = world.run(&["explain-error"]);
    let codes: Vec<&str> =
        list.ok().split_whitespace().filter(|word| word.contains('-') || *word == "held").collect();
    assert!(codes.contains(&"outcome-unknown"), "{}", list.stdout);
    let page = world.run(&["explain-error", "outcome-unknown"]);
    assert!(page.ok().starts_with("# outcome-unknown"), "{}", page.stdout);
    assert_eq!(world.run(&["explain-error", "no-such-code"]).code, Some(1));
}

#[test]
fn pending_follows_what_happens() {
    let world = World::bank(RULES);
    let served = world.serve();
    assert!(world.run(&["pending"]).ok().contains("Nothing waits"));
    let mut agent = Agent::modern(&served, "agent");
    let calls: Vec<String> =
        (0..3).map(|n| agent.call("bank__transfer", payment_of(200 + n, "INV")).call()).collect();
    let listed = world.run(&["pending", "--json"]).json();
    let order: Vec<&Value> =
        listed["pending"].as_array().expect("a list").iter().map(|held| &held["call"]["call"]).collect();
    assert_eq!(order, calls.iter().map(|call| json!(call)).collect::<Vec<_>>().iter().collect::<Vec<_>>());
    world.run(&["approve", &calls[0]]).ok();
    world.run(&["reject", &calls[1], "--reason", "no"]).ok();
    world.run(&["cancel", &calls[2]]).ok();
    eventually("nothing waits any more", || world.run(&["pending"]).stdout.contains("Nothing waits"));
    assert!(agent.wait(&calls[0]).succeeded());
    assert_eq!(world.ledger().len(), 1);
}

#[test]
fn who_follows_is_told_of_each_question_once() {
    use std::io::{BufRead, BufReader};
    let world = World::bank(RULES);
    let resting = world.run(&["pending", "--follow"]);
    assert_eq!(resting.code, Some(1));
    assert!(resting.stderr.contains("not-running"), "{}", resting.stderr);
    let served = world.serve();
    let mut follower = world.holdfast(&["pending", "--follow", "--json"]);
    let mut follower = follower.stdout(std::process::Stdio::piped()).spawn().expect("holdfast starts");
    let mut lines = BufReader::new(follower.stdout.take().expect("it is piped")).lines();
    let mut agent = Agent::modern(&served, "agent");
    for n in 0..3 {
        let call = agent.call("bank__transfer", payment_of(200 + n, "INV")).call();
        let line = lines.next().expect("it follows").expect("text");
        let told: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(told["call"]["call"], json!(call), "{told}");
    }
    follower.kill().expect("it runs");
    follower.wait().expect("it is ours");
}

#[test]
fn the_files_beside_the_journal_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::bank(ALLOW);
    let served = world.serve();
    for name in ["holdfast.redb.serve.json", "holdfast.redb.operator-token", "holdfast.redb"] {
        let mode = std::fs::metadata(world.path(name)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name} can be read by others: {mode:o}");
    }
    assert!(served.stop().success());
    assert!(!world.path("holdfast.redb.serve.json").exists(), "the address of nobody is left");
}

#[test]
fn who_only_reads_keeps_nobody_from_serving() {
    let world = World::bank(ALLOW);
    Agent::modern(&world.serve(), "agent").call("bank__transfer", payment("INV-1"));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    world.run(&["calls"]);
                }
            });
        }
        // Also where a start fails and the story with it: else its readers would read for ever.
        let _end = End(&over);
        for _ in 0..6 {
            // Killed, so that the journal is at rest again and the readers open it themselves.
            world.serve().kill();
        }
    });
    assert!(world.run(&["calls"]).ok().contains("succeeded"));
}

/// Is set when it goes.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
