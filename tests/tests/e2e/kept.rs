//! The answer outlives the proxy: `kill -9` of Holdfast alone, whose keeper keeps its servers for the next one.

use holdfast_tests::{ALLOW, Agent, Served, World, end_process, eventually, eventually_some, payment};
use serde_json::{Value, json};

fn only_call(world: &World) -> Value {
    let calls = world.run(&["calls", "--json"]).json();
    let [call] = calls["calls"].as_array().expect("a list").as_slice() else { panic!("{calls}") };
    call.clone()
}

fn bank_pid(world: &World) -> i32 {
    eventually_some("there is one bank", || match world.processes_of("bank").as_slice() {
        [pid] => Some(*pid),
        _ => None,
    })
}

#[test]
fn killed_in_mid_call_the_answer_arrives_at_the_re_issue() {
    for fault in ["slow=1500ms once", "slow-after=1500ms once"] {
        let world = World::bank(ALLOW);
        let served = world.serve();
        let bank = bank_pid(&world);
        world.fault(fault);
        let lost = Agent::modern(&served, "agent").ask("bank__transfer", payment("INV-1"));
        eventually("the payment is with the bank", || world.fault_fired());
        served.crash();
        drop(lost);

        let served = world.serve();
        let answer = Agent::modern(&served, "agent").call("bank__transfer", payment("INV-1"));
        assert!(answer.text().starts_with("Made t-1"), "{fault}: {answer:?}");
        assert_eq!(world.paid("INV-1"), 1, "{fault}");
        let call = only_call(&world);
        assert_eq!((&call["state"], &call["attempts"]), (&json!("succeeded"), &json!(1)), "{call}");
        // It is the same process, and it is spoken to as if nothing had happened.
        assert_eq!(bank_pid(&world), bank);
        assert!(Agent::modern(&served, "other").call("bank__transfer", payment("INV-2")).succeeded());
    }
}

#[test]
fn an_answer_that_came_while_nobody_served_is_found() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    world.fault("slow=300ms once");
    let lost = Agent::modern(&served, "agent").ask("bank__transfer", payment("INV-1"));
    eventually("the payment is with the bank", || world.fault_fired());
    served.crash();
    drop(lost);
    eventually("it is paid", || world.paid("INV-1") == 1);
    // Killed again before it can have done much, and again.
    for _ in 0..3 {
        world.serve().crash();
    }
    let served = world.serve();
    let answer = Agent::modern(&served, "agent").call("bank__transfer", payment("INV-1"));
    assert!(answer.text().starts_with("Made t-1"), "{answer:?}");
    assert_eq!((world.paid("INV-1"), &only_call(&world)["attempts"]), (1, &json!(1)));
}

#[test]
fn behind_a_bridge_it_is_only_slow() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let mut bridge = world.bridge();
    world.fault("slow-after=1500ms once");
    let id = bridge.ask_tool("bank__transfer", payment("INV-1"));
    eventually("the payment is made", || world.paid("INV-1") == 1);
    served.crash();
    let answer = bridge.answer(id);
    assert!(answer.text().starts_with("Made t-1"), "{answer:?}");
    assert_eq!((world.paid("INV-1"), world.processes_of("bank").len()), (1, 1));
}

#[test]
fn an_approved_payment_is_not_asked_about_again() {
    let ask = "[defaults]\nhold_wait = \"0s\"\n\
        [[rule]]\nid = \"payments\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n";
    let world = World::bank(ask);
    let served = world.serve();
    let held = Agent::modern(&served, "agent").call("bank__transfer", payment("INV-1"));
    world.fault("slow-after=1500ms once");
    world.run(&["approve", &held.call()]).ok();
    eventually("the payment is made", || world.paid("INV-1") == 1);
    served.crash();
    let served = world.serve();
    let answer = Agent::modern(&served, "agent").wait(&held.call());
    assert!(answer.text().starts_with("Made t-1"), "{answer:?}");
    assert_eq!(world.paid("INV-1"), 1);
}

#[test]
fn what_was_recorded_and_did_not_leave_is_sent_once() {
    let world = World::empty();
    // A bank that does not open before there is a file `open`.
    let bank = world.server_bank().replacen("command = ", "args0 = ", 1);
    let program = bank.lines().find_map(|line| line.strip_prefix("args0 = ")).expect("a program").to_owned();
    let script = "until [ -e open ]; do sleep 0.02; done; exec \"$0\" --ledger ledger.jsonl";
    let server = format!("[servers.bank]\ncommand = \"sh\"\nargs = [\"-c\", '{script}', {program}]\n");
    world.configure(&format!("{server}{ALLOW}"));
    world.write("open", "");
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    assert!(agent.call("bank__transfer", payment("INV-1")).succeeded());
    std::fs::remove_file(world.path("open")).expect("it is there");
    world.kill_one("bank");
    let lost = agent.ask("bank__transfer", payment("INV-2"));
    let state = |state: &str| world.run(&["calls", "--json", "--state", state]).json()["calls"][0].clone();
    eventually("its dispatch is recorded", || !state("in-flight").is_null());
    served.crash();
    drop(lost);

    world.write("open", "");
    let served = world.serve();
    let answer = Agent::modern(&served, "agent").call("bank__transfer", payment("INV-2"));
    assert!(answer.succeeded(), "{answer:?}");
    assert_eq!(world.paid("INV-2"), 1);
    assert_eq!(state("succeeded")["attempts"], 2, "the first one was taken back");
}

/// Holdfast is killed while the bank does not read what it was sent, and waits for that in the pipe.
fn killed_while_the_bank_is_deaf(reference: &str) -> (World, Served) {
    let world = World::bank(&format!("{ALLOW}attempt_timeout = \"5s\"\n"));
    let served = world.serve();
    let bank = bank_pid(&world);
    let mut agent = Agent::modern(&served, "agent");
    assert!(agent.call("bank__transfer", payment("INV-1")).succeeded());
    let paused = world.pause_one("bank");
    let lost = agent.ask("bank__transfer", payment(reference));
    eventually("it is on its way", || world.waits_for("bank"));
    served.crash();
    drop(lost);
    let served = world.serve();
    drop(paused);
    let answer = Agent::modern(&served, "agent").call("bank__transfer", payment("INV-2"));
    assert!(answer.succeeded(), "{answer:?}");
    assert_eq!(bank_pid(&world), bank);
    (world, served)
}

#[test]
fn a_message_that_waits_for_its_server_gets_there_once() {
    // More than one page, more than the usual pipe, and as large as the stage takes.
    for size in [20, 5_000, 100_000, 200_000] {
        let reference = "x".repeat(size);
        let (world, _served) = killed_while_the_bank_is_deaf(&reference);
        let succeeded = || world.run(&["calls", "--json", "--state", "succeeded"]).json()["calls"].clone();
        eventually("all answers are recorded", || {
            succeeded().as_array().is_some_and(|calls| calls.len() == 3)
        });
        assert_eq!(world.paid(&reference), 1, "{size}");
        assert_eq!(world.ledger().len(), 3);
    }
}

#[test]
fn a_line_that_did_not_get_out_whole_is_ended() {
    let reference = "x".repeat(900_000);
    let (world, _served) = killed_while_the_bank_is_deaf(&reference);
    let doubtful = || world.run(&["calls", "--json", "--state", "in-doubt"]).json()["calls"][0].clone();
    eventually("what was cut off is in doubt", || !doubtful().is_null());
    assert_eq!(world.ledger().len(), 2);
}

#[test]
fn an_answer_larger_than_any_buffer_comes_through() {
    let world = World::empty();
    world.configure(&format!("{}{ALLOW}", world.server_odd("")));
    let large = "y".repeat(900_000);
    world.write("tools.json", &json!([{ "name": "tell", "inputSchema": { "type": "object" } }]).to_string());
    let result = json!({ "content": [{ "type": "text", "text": large }] });
    world.write("script.json", &json!({ "tell": { "result": result } }).to_string());
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    for _ in 0..3 {
        assert_eq!(agent.call("odd__tell", json!({})).text().len(), 900_000);
    }
    served.crash();
    let served = world.serve();
    assert_eq!(Agent::modern(&served, "agent").call("odd__tell", json!({})).text().len(), 900_000);
}

#[test]
fn servers_of_another_configuration_end_and_their_calls_are_in_doubt() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let before = bank_pid(&world);
    world.fault("slow-after=60s once");
    let lost = Agent::modern(&served, "agent").ask("bank__transfer", payment("INV-1"));
    eventually("the payment is made", || world.paid("INV-1") == 1);
    served.crash();
    drop(lost);
    let bank = world.server_bank();
    world.configure(&format!("{bank}env = {{ BRANCH = \"other\" }}\n{ALLOW}"));
    let served = world.serve();
    let answer = Agent::modern(&served, "agent").call("bank__transfer", payment("INV-1"));
    assert_eq!(answer.code(), "outcome-unknown");
    assert!(Agent::modern(&served, "other").call("bank__transfer", payment("INV-2")).succeeded());
    eventually("only the new one is left", || world.processes_of("bank").len() == 1);
    assert_ne!(bank_pid(&world), before);
}

#[test]
fn a_server_of_each_session_is_kept_for_its_session() {
    let world = World::empty();
    let bank = world.server_bank();
    world.configure(&format!("{bank}share = \"principal\"\n{ALLOW}"));
    let served = world.serve();
    world.fault("slow-after=1500ms once");
    let lost = Agent::modern(&served, "agent").ask("bank__transfer", payment("INV-1"));
    eventually("the payment is made", || world.paid("INV-1") == 1);
    let bank = bank_pid(&world);
    served.crash();
    drop(lost);
    let served = world.serve();
    let answer = Agent::modern(&served, "agent").call("bank__transfer", payment("INV-1"));
    assert!(answer.text().starts_with("Made t-1"), "{answer:?}");
    assert_eq!(bank_pid(&world), bank);
}

#[test]
fn an_orderly_end_leaves_nothing() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    assert!(Agent::modern(&served, "agent").call("bank__transfer", payment("INV-1")).succeeded());
    assert_eq!((world.keepers().len(), world.path("holdfast.redb.keeper").exists()), (1, true));
    assert!(served.stop().success());
    eventually("nobody is left", || world.processes().is_empty());
    assert!(!world.path("holdfast.redb.keeper").exists());
    // The same for one that took over.
    world.serve().crash();
    assert!(world.serve().stop().success());
    eventually("nobody is left", || world.processes().is_empty());
    assert!(!world.path("holdfast.redb.keeper").exists());
}

#[test]
fn what_nobody_claims_ends() {
    let world = World::bank(&format!("{ALLOW}[store]\nkeep_servers = \"1s\"\n"));
    let served = world.serve();
    assert!(Agent::modern(&served, "agent").call("bank__transfer", payment("INV-1")).succeeded());
    served.crash();
    eventually("nobody is left", || world.processes().is_empty());
    assert!(!world.path("holdfast.redb.keeper").exists());
}

#[test]
fn where_nothing_is_to_be_kept_there_is_no_keeper() {
    let world = World::bank(&format!("{ALLOW}[store]\nkeep_servers = \"off\"\n"));
    let served = world.serve();
    assert!(Agent::modern(&served, "agent").call("bank__transfer", payment("INV-1")).succeeded());
    assert!(world.keepers().is_empty());
    served.crash();
    eventually("nobody is left", || world.processes().is_empty());
}

#[test]
fn a_keeper_that_is_killed_costs_no_call() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    world.fault("slow=700ms once");
    let waiting = agent.ask("bank__transfer", payment("INV-1"));
    eventually("the payment is with the bank", || world.fault_fired());
    let killed = world.keepers();
    killed.iter().for_each(|pid| end_process(*pid));
    assert!(waiting.answer().succeeded());
    assert!(agent.call("bank__transfer", payment("INV-2")).succeeded());
    eventually("another keeper has another bank", || {
        let keepers = world.keepers();
        keepers.len() == 1 && keepers != killed && world.processes_of("bank").len() == 1
    });
    // What it keeps outlives the next crash again.
    world.fault("slow-after=1500ms once");
    let lost = agent.ask("bank__transfer", payment("INV-3"));
    eventually("the payment is made", || world.paid("INV-3") == 1);
    served.crash();
    drop(lost);
    let served = world.serve();
    let answer = Agent::modern(&served, "agent").call("bank__transfer", payment("INV-3"));
    assert!(answer.text().starts_with("Made t-3"), "{answer:?}");
}

#[test]
fn without_anybody_servers_end_by_themselves() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    bank_pid(&world);
    world.keepers().into_iter().for_each(end_process);
    served.crash();
    eventually("nobody is left", || world.processes().is_empty());
    // Its socket is still there, and in nobody's way.
    let served = world.serve();
    assert!(Agent::modern(&served, "agent").call("bank__transfer", payment("INV-1")).succeeded());
}

#[test]
fn its_last_words_are_heard_over_a_restart() {
    let world = World::empty();
    let script = "echo before >&2; until [ -e end ]; do sleep 0.02; done; echo the disk is full >&2; exit 3";
    let bank = world.server_bank();
    world.configure(&format!(
        "{bank}[servers.moody]\ncommand = \"sh\"\nargs = [\"-c\", '{MOODY}{script}']\n{ALLOW}"
    ));
    let served = world.serve();
    eventually("it speaks", || served.log().contains("before"));
    served.crash();
    let served = world.serve();
    world.write("end", "");
    eventually("its end is explained", || served.log().contains("the disk is full"));
}

/// Answers `initialize` and `tools/list` in `sh`, and nothing else.
const MOODY: &str = r#"id() { printf "%s" "$1" | sed "s/.*\"id\":\([0-9]*\).*/\1/"; }; read a; printf "{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{},\"serverInfo\":{\"name\":\"m\",\"version\":\"1\"}}}\n" "$(id "$a")"; read b; read c; printf "{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{\"tools\":[]}}\n" "$(id "$c")"; "#;
