//! Another configuration while everything runs: only what changed begins anew, and a bad file changes nothing.

use std::{fs, process::Command};

use holdfast_tests::{ALLOW, Agent, Desk, Served, World, eventually, eventually_some, payment, payment_of};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

const TOOLS: &str = r#"[{"name":"note","inputSchema":{"type":"object"}}]"#;
const ASK: &str = "[[rule]]\nid = \"payments\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n";
const DENY: &str = "[[rule]]\nid = \"none\"\neffect = \"deny\"\nserver = \"bank\"\ntool = \"transfer\"\n";

fn one(world: &World, program: &str) -> i32 {
    eventually_some(&format!("{program} runs as one process"), || {
        match world.processes_of(program).as_slice() {
            [pid] => Some(*pid),
            _ => None,
        }
    })
}

/// Bank and odd, both listed.
fn two_servers() -> (World, Served) {
    let world = World::empty();
    world.write("tools.json", TOOLS);
    world.configure(&format!("{}{}{ALLOW}", world.server_bank(), world.server_odd("")));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "first");
    assert!(agent.tools().contains(&"odd__note".to_owned()));
    (world, served)
}

/// Puts `config` in force; gives what is said to have become of the servers. Whoever was first, the command or Holdfast's
/// own look at the files.
fn reconfigure(world: &World, served: &Served, config: &str) -> String {
    let before = served.log().len();
    world.configure(config);
    world.run(&["reload"]).ok();
    let log = served.log().split_off(before);
    let told =
        log.lines().filter_map(|line| line.split_once("the configuration is in force")).map(|(_, told)| told);
    told.collect()
}

#[test]
fn an_unchanged_server_keeps_its_process_and_a_changed_one_begins_anew() {
    let (world, served) = two_servers();
    let before = (one(&world, "bank"), one(&world, "odd"));
    let other = format!("{}{}env = {{ A = \"b\" }}\n", world.server_bank(), world.server_odd(""));
    let told = reconfigure(&world, &served, &format!("{other}{ALLOW}"));
    assert!(told.contains("odd restarted") && !told.contains("bank"), "{told}");
    eventually("another odd runs", || {
        let odd = world.processes_of("odd");
        odd.len() == 1 && odd[0] != before.1
    });
    assert_eq!(one(&world, "bank"), before.0);
    let mut agent = Agent::modern(&served, "agent");
    assert!(agent.call("odd__note", json!({})).succeeded());
    let log = world.odd_log();
    assert_eq!(log.iter().filter_map(|line| line["env"]["A"].as_str()).collect::<Vec<_>>(), ["b"]);
    // Settings that the process does not know of leave it alone.
    let odd = one(&world, "odd");
    let told = reconfigure(&world, &served, &format!("{other}trust_annotations = true\n{ALLOW}"));
    assert!(told.contains("odd adjusted"), "{told}");
    assert_eq!(one(&world, "odd"), odd);
}

#[test]
fn servers_come_and_go_and_agents_are_told() {
    let (world, served) = two_servers();
    let mut agent = Agent::legacy(&served, "agent");
    let told = reconfigure(&world, &served, &format!("{}{ALLOW}", world.server_bank()));
    assert!(told.contains("odd removed"), "{told}");
    eventually("its process is gone", || world.processes_of("odd").is_empty());
    assert!(!agent.tools().contains(&"odd__note".to_owned()));
    assert!(agent.call("odd__note", json!({})).error_message().contains("Unknown tool"));
    let both = format!("{}{}{ALLOW}", world.server_bank(), world.server_odd(""));
    let told = reconfigure(&world, &served, &both);
    assert!(told.contains("odd added"), "{told}");
    assert!(agent.call("odd__note", json!({})).succeeded());
}

#[test]
fn a_call_in_flight_ends_with_its_answer_although_its_server_leaves() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    world.fault("slow=1500ms once");
    let asked = agent.ask("bank__transfer", payment("INV-1"));
    eventually("the payment is with the bank", || world.fault_fired());
    world.configure(ALLOW);
    world.run(&["reload"]).ok();
    let late = Agent::modern(&served, "late").call("bank__transfer", payment("INV-2"));
    assert!(late.error_message().contains("Unknown tool"), "{late:?}");
    let answer = asked.answer();
    assert!(answer.succeeded(), "{answer:?}");
    eventually("then the bank ends", || world.processes_of("bank").is_empty());
    assert_eq!((world.paid("INV-1"), world.paid("INV-2")), (1, 0));
}

#[test]
fn a_changed_server_ends_its_calls_before_the_next_process_begins() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let old = one(&world, "bank");
    let mut agent = Agent::modern(&served, "agent");
    world.fault("slow=1s once");
    let asked = agent.ask("bank__transfer", payment("INV-1"));
    eventually("the payment is with the bank", || world.fault_fired());
    world.configure(&format!("{}env = {{ A = \"b\" }}\n{ALLOW}", world.server_bank()));
    world.run(&["reload"]).ok();
    // It waits for the new process, which waits for the old one.
    let next = Agent::modern(&served, "next").call("bank__transfer", payment_of(1, "INV-2"));
    assert!(next.succeeded(), "{next:?}");
    assert!(asked.answer().succeeded());
    assert_ne!(one(&world, "bank"), old);
    assert_eq!((world.paid("INV-1"), world.paid("INV-2")), (1, 1));
}

#[test]
fn a_bad_file_changes_nothing_and_says_so_everywhere() {
    let (world, served) = two_servers();
    let before = (one(&world, "bank"), one(&world, "odd"));
    let policy = |served: &Served| Desk::of(served, &world.token()).get("/reload").json();
    world.configure(&format!("{}[[rule]]\nid = \"x\"\nefect = \"deny\"\n", world.server_bank()));
    let said = world.run(&["reload"]);
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("efect") && said.stderr.contains("stays in force"), "{}", said.stderr);
    assert_eq!(before, (one(&world, "bank"), one(&world, "odd")));
    let mut agent = Agent::modern(&served, "agent");
    assert!(agent.call("bank__transfer", payment("INV-1")).succeeded());
    assert!(served.log().contains("the configuration was not taken"), "{}", served.log());
    let last = policy(&served);
    assert_eq!(last["last"]["ok"], false);
    assert!(last["last"]["problems"][0]["message"].as_str().expect("words").contains("efect"), "{last}");
    // A file that is not there any more is a bad file, too.
    fs::remove_file(world.path("holdfast.toml")).expect("ours");
    eventually("the file is missed", || {
        let last = policy(&served);
        last["last"]["by"] == "file" && last["last"]["ok"] == false
    });
    assert!(agent.call("bank__transfer", payment("INV-2")).succeeded());
}

#[test]
fn a_file_that_changes_is_read_by_itself_and_on_a_hangup() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    assert!(agent.call("bank__transfer", payment("INV-1")).succeeded());
    world.configure(&format!("{}{ALLOW}{DENY}", world.server_bank()));
    let mut number = 1;
    eventually("the new rule holds", || {
        number += 1;
        agent.call("bank__transfer", payment_of(1, &format!("INV-{number}"))).code() == "denied"
    });
    world.configure(&format!("{}{ALLOW}", world.server_bank()));
    kill(Pid::from_raw(served.pid()), Signal::SIGHUP).expect("it is our child");
    eventually("the rule is gone", || {
        number += 1;
        agent.call("bank__transfer", payment_of(1, &format!("INV-{number}"))).succeeded()
    });
}

#[test]
fn files_that_are_imported_are_watched_too() {
    let world = World::empty();
    let server = |args: &str| {
        let odd = holdfast_tests::odd();
        format!(r#"{{"mcpServers":{{"odd":{{"command":{odd:?},"args":["."{args}]}}}}}}"#)
    };
    world.write("tools.json", TOOLS);
    world.write(".mcp.json", r#"{"mcpServers":{}}"#);
    world.configure(&format!("[import]\nmcp_servers = [\".mcp.json\"]\n{ALLOW}"));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    assert!(!agent.tools().contains(&"odd__note".to_owned()));
    world.write(".mcp.json", &server(""));
    eventually("the server is there", || agent.tools().contains(&"odd__note".to_owned()));
    world.write(".mcp.json", r#"{"mcpServers":"#);
    eventually("half a file is not taken", || served.log().contains("the configuration was not taken"));
    assert!(agent.call("odd__note", json!({})).succeeded());
}

#[test]
fn a_held_call_is_sent_by_the_stricter_of_both_policies() {
    let world = World::bank(&format!("[defaults]\neffect = \"allow\"\nhold_wait = \"0s\"\n{ASK}"));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let [denied, milder] =
        ["INV-1", "INV-2"].map(|reference| agent.call("bank__transfer", payment(reference)));
    // Nobody has to ask by the new rules, but this was held by the old ones.
    world.configure(&format!("{}{ALLOW}", world.server_bank()));
    world.run(&["reload"]).ok();
    assert_eq!(Desk::of(&served, &world.token()).call(&milder.call())["call"]["state"], "asking");
    world.run(&["approve", &milder.call()]).ok();
    assert!(agent.wait(&milder.call()).succeeded());
    world.configure(&format!("{}{ALLOW}{DENY}", world.server_bank()));
    world.run(&["reload"]).ok();
    world.run(&["approve", &denied.call()]).ok();
    assert!(agent.wait(&denied.call()).is_error());
    assert_eq!((world.paid("INV-1"), world.paid("INV-2")), (0, 1));
}

#[test]
fn what_was_approved_for_one_server_is_not_sent_to_another() {
    let world = World::bank(&format!("[defaults]\neffect = \"allow\"\nhold_wait = \"0s\"\n{ASK}"));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let held = agent.call("bank__transfer", payment("INV-1"));
    let other = world.server_bank().replace("ledger.jsonl", "other.jsonl");
    let config = format!("{other}[defaults]\neffect = \"allow\"\nhold_wait = \"0s\"\n{ASK}");
    let told = reconfigure(&world, &served, &config);
    assert!(told.contains("bank restarted"), "{told}");
    let desk_token = world.token();
    let desk = Desk::of(&served, &desk_token);
    desk.approve(&held.call());
    let call = desk.await_state(&held.call(), "asking");
    assert_eq!(call["hold"]["revision"], 2, "{call}");
    assert_eq!(world.paid("INV-1"), 0);
    desk.approve(&held.call());
    assert!(agent.wait(&held.call()).succeeded());
    assert!(fs::read_to_string(world.path("other.jsonl")).expect("a ledger").contains("INV-1"));
}

#[test]
fn a_held_call_whose_server_is_gone_can_be_decided_and_expires() {
    let gates = "[rule.gate]\napprove_by = \"20s\"\n";
    let world = World::bank(&format!("[defaults]\nhold_wait = \"0s\"\n{ASK}{gates}"));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let [rejected, expired] =
        ["INV-1", "INV-2"].map(|reference| agent.call("bank__transfer", payment(reference)));
    world.configure("[defaults]\nhold_wait = \"0s\"\n");
    // Also over a restart.
    let served = world.serve_anew(served);
    let token = world.token();
    let desk = Desk::of(&served, &token);
    let refused = desk.decide(&rejected.call(), "reject", json!({ "reason": "no bank" }));
    assert_eq!(refused.status(), 200, "{}", refused.body);
    let mut agent = Agent::modern(&served, "agent");
    assert_eq!(agent.wait(&rejected.call()).code(), "refused");
    desk.await_state(&expired.call(), "expired");
}

#[test]
fn operators_and_agents_are_those_of_the_new_file() {
    let operator = |token: &str| format!("[operators.ana]\ntoken = \"{token}\"\nrole = \"admin\"\n");
    let agent = |token: &str| format!("[agents.nightly]\ntoken = \"{token}\"\n");
    let world = World::empty();
    let bank = world.server_bank();
    let settings = |one: &str| {
        format!(
            "{bank}{ALLOW}{}{}",
            operator(&format!("{one}-operator-token")),
            agent(&format!("{one}-agent-token-x"))
        )
    };
    world.configure(&settings("first"));
    let served = world.serve();
    let status = |token: &str| Desk::of(&served, token).get("/pending").status();
    assert_eq!((status("first-operator-token"), status("second-operator-token")), (200, 401));
    // Asked for with the old token, unless Holdfast has looked at the file by itself and knows that one no more.
    let reload = |token: &str| {
        let said = Command::output(world.holdfast(&["reload"]).env("HOLDFAST_OPERATOR_TOKEN", token));
        assert!(said.expect("it runs").status.success() || status(token) == 401);
    };
    world.configure(&settings("second"));
    reload("first-operator-token");
    assert_eq!((status("first-operator-token"), status("second-operator-token")), (401, 200));
    let call = |token: &str| {
        let mut agent = Agent::with_token(&served, "agent", token);
        agent.ask_for("tools/list", json!({})).status()
    };
    assert_eq!((call("first-agent-token-x"), call("second-agent-token-x")), (401, 200));
    // Without any, the token beside the journal is made, and the commands find it.
    world.configure(&format!("{bank}{ALLOW}"));
    reload("second-operator-token");
    world.run(&["pending"]).ok();
}

#[test]
fn what_only_a_start_can_change_is_named_and_left() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let text = fs::read_to_string(world.path("holdfast.toml")).expect("ours");
    let other = text.replace("mcp = \"127.0.0.1:0\"", "mcp = \"127.0.0.1:1\"");
    world.write(
        "holdfast.toml",
        &format!("{other}[store]\nurl = \"redb:other.redb\"\nkeep_answers = \"1d\"\n"),
    );
    let desk_token = world.token();
    let reloaded: Value = Desk::of(&served, &desk_token).post("/reload", &json!({})).json();
    assert_eq!(reloaded["left"], json!(["listen.mcp", "store.url"]), "{reloaded}");
    let mut agent = Agent::modern(&served, "agent");
    assert!(agent.call("bank__transfer", payment("INV-1")).succeeded());
    assert!(!world.path("other.redb").exists());
}
