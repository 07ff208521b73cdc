//! Held calls as agents see them that others wrote: the official TypeScript libraries of both eras, and the inspector.

use std::{path::Path, process::Command, time::Duration};

use holdfast_tests::{Ran, Served, World, eventually, eventually_some, from_setup, holdfast};
use serde_json::{Value, json};

use super::{ANA, OPERATORS};

const WITHIN: Duration = Duration::from_secs(120);

/// Payments wait for an approver, and their agents this long.
fn asking(hold_wait: &str) -> World {
    World::bank(&format!(
        "{OPERATORS}[defaults]\neffect = \"allow\"\nhold_wait = \"{hold_wait}\"\n\
         [[rule]]\nid = \"payments\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n"
    ))
}

/// How an agent gets to Holdfast.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// Through the bridge, which it starts: it is not to notice that anything was killed.
    Stdio,
    /// By HTTP, to whoever serves now: it connects again by itself.
    Http,
}

/// A TypeScript agent that uses this surface to pay INV-1.
fn typescript(world: &World, surface: &str, way: Way) -> Command {
    let mut command = world.command(&from_setup("node/node_modules/node/bin/node"));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/typescript.mjs"));
    command.arg(from_setup("node/node_modules")).arg(surface);
    match way {
        Way::Stdio => command.arg(holdfast()).arg(world.path("holdfast.toml")),
        Way::Http => command.arg(world.path("url")).arg(""),
    };
    command.arg("INV-1");
    command
}

/// Serves, and says where.
fn serve(world: &World) -> Served {
    let served = world.serve();
    world.write("url", &format!("http://{}/mcp", served.mcp));
    served
}

/// What the agent has seen on its way.
fn seen(world: &World) -> Vec<Value> {
    let text = std::fs::read_to_string(world.path("seen")).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Waits until the agent has seen something of this kind.
fn sees(world: &World, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    eventually_some(what, || seen(world).into_iter().find(&is))
}

/// `holdfast ARGS` by an operator, of whichever process serves now: bridges start one where there is none.
fn operator(world: &World, args: &[&str]) -> Ran {
    Ran::of(world.holdfast(args).env("HOLDFAST_OPERATOR_TOKEN", ANA))
}

/// The one call that waits.
fn pending(world: &World) -> String {
    eventually_some("a call waits", || {
        let said = operator(world, &["pending", "--json"]);
        let pending: Value = serde_json::from_str(&said.stdout).unwrap_or_default();
        pending["pending"][0]["call"]["call"].as_str().map(str::to_owned)
    })
}

/// Approves the call as soon as somebody serves.
fn approve(world: &World, call: &str) {
    eventually("it is approved", || operator(world, &["approve", call]).code == Some(0));
}

/// All of it was one call and one payment.
fn check_once(world: &World) {
    let calls = operator(world, &["calls", "--json"]).json();
    assert_eq!(calls["calls"].as_array().map(Vec::len), Some(1), "{calls}");
    assert_eq!(world.ledger().len(), 1, "{calls}");
}

/// Runs the agent; once it is at this point, Holdfast is killed, and the call approved. What the agent says in the end.
fn interrupted(
    world: &World,
    surface: &str,
    way: Way,
    to_the_point: impl Fn(&Value, &str, &Served) -> bool,
) -> Value {
    let served = serve(world);
    let mut command = typescript(world, surface, way);
    let told = std::thread::scope(|scope| {
        let ran = scope.spawn(move || Ran::within(&mut command, WITHIN));
        let call = pending(world);
        sees(world, "the agent is at the point", |what| to_the_point(what, &call, &served));
        served.kill();
        // The bridge starts the next one by itself.
        let _served = (way == Way::Http).then(|| serve(world));
        approve(world, &call);
        let ran = ran.join().expect("no panic");
        ran.ok();
        let told = ran.json();
        assert_eq!(told["last"]["_meta"]["io.holdfast/call"], call.as_str(), "{told}");
        check_once(world);
        told
    });
    assert_ne!(told["last"]["isError"], true, "{told}");
    assert_eq!(told["last"]["_meta"]["io.holdfast/state"], "succeeded", "{told}");
    assert_eq!(told["last"]["structuredContent"]["reference"], "INV-1", "{told}");
    told
}

#[test]
fn the_typescript_sdk_collects_a_held_result() {
    for way in [Way::Stdio, Way::Http] {
        let world = asking("0s");
        let told = interrupted(&world, "held", way, |what, _, _| what == "waits");
        assert_eq!(told["first"]["_meta"]["io.holdfast/code"], "held", "{told}");
        assert_ne!(told["first"]["isError"], true, "{told}");
        // The bridge hides the crash; over HTTP nobody can.
        let broke = seen(&world).iter().any(|what| what.get("broke").is_some());
        assert_eq!(broke, way == Way::Http, "{way:?}: {:?}", seen(&world));
    }
}

#[test]
fn the_typescript_sdk_waits_as_long_as_progress_comes() {
    let world = asking("2m");
    interrupted(&world, "progress", Way::Stdio, |what, _, _| {
        what["message"].as_str().is_some_and(|words| words.contains("waiting"))
    });
}

#[test]
fn the_typescript_sdk_sends_its_user_to_the_inbox() {
    let world = asking("2m");
    interrupted(&world, "url", Way::Stdio, |what, call, served| {
        *what == json!({ "mode": "url", "url": format!("http://{}/calls/{call}", served.inbox) })
    });
}

#[test]
fn the_typescript_client_of_2026_comes_again_in_rounds() {
    let world = asking("1s");
    let served = serve(&world);
    let mut command = typescript(&world, "rounds", Way::Stdio);
    std::thread::scope(|scope| {
        let ran = scope.spawn(move || Ran::within(&mut command, WITHIN));
        let call = pending(&world);
        served.kill();
        approve(&world, &call);
        let ran = ran.join().expect("no panic");
        ran.ok();
        let told = ran.json();
        assert_eq!(told["protocol"], "2026-07-28", "{told}");
        assert_eq!(told["last"]["_meta"]["io.holdfast/call"], call.as_str(), "{told}");
        assert_eq!(told["last"]["_meta"]["io.holdfast/state"], "succeeded", "{told}");
    });
    check_once(&world);
}

#[test]
fn the_typescript_client_of_2026_sends_its_user_to_the_inbox() {
    let world = asking("2m");
    let told = interrupted(&world, "visit", Way::Stdio, |what, call, served| {
        *what == json!({ "mode": "url", "url": format!("http://{}/calls/{call}", served.inbox) })
    });
    assert_eq!(told["protocol"], "2026-07-28", "{told}");
    let visits = seen(&world).iter().filter(|what| what["mode"] == "url").count();
    assert_eq!(visits, 1, "{:?}", seen(&world));
}

#[test]
fn the_tasks_library_polls_a_held_call() {
    let world = asking("2m");
    let told = interrupted(&world, "tasks", Way::Http, |what, _, _| {
        what["method"] == "tasks/get" && what["status"] == "working"
    });
    assert_eq!(told["protocol"], "2026-07-28", "{told}");
    let made = seen(&world);
    assert!(made.iter().any(|what| what["kind"] == "task"), "{made:?}");
}

/// The inspector with these arguments, before them those that name the server.
fn inspector(world: &World, era: &str, server: &[&str], args: &str) -> Command {
    let mut command = world.command(&from_setup("node/node_modules/node/bin/node"));
    let launcher = "node/node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js";
    command
        .arg(from_setup(launcher))
        .args(["--cli", "--protocol-era", era])
        .args(server)
        .args(args.split(' '));
    command
}

const PAY: &str =
    "--method tools/call --tool-name bank__transfer --tool-arg from=alice to=shop amount=40 reference=INV-1";

#[test]
fn the_inspector_lists_holds_and_collects_in_the_legacy_era() {
    let world = asking("0s");
    let inspect = |served: &Served, args: &str| {
        let url = format!("http://{}/mcp", served.mcp);
        let ran = Ran::within(&mut inspector(&world, "legacy", &[&url, "--transport", "http"], args), WITHIN);
        ran.ok();
        ran.json()
    };
    let served = serve(&world);
    let list = inspect(&served, "--method tools/list");
    let tools = list["tools"].as_array().expect("tools").iter();
    let names: Vec<&str> = tools.filter_map(|tool| tool["name"].as_str()).collect();
    assert!(names.contains(&"bank__transfer") && names.contains(&"holdfast_wait"), "{names:?}");
    let held = inspect(&served, PAY);
    assert_eq!(
        (&held["_meta"]["io.holdfast/code"], &held["isError"]),
        (&json!("held"), &json!(false)),
        "{held}"
    );
    let call = held["_meta"]["io.holdfast/call"].as_str().expect("an id").to_owned();
    served.kill();
    let served = serve(&world);
    // The same command once more asks nobody twice.
    assert_eq!(inspect(&served, PAY)["_meta"]["io.holdfast/call"], call.as_str());
    approve(&world, &call);
    let collect = format!("--method tools/call --tool-name holdfast_wait --tool-arg call_id={call}");
    let paid = inspect(&served, &collect);
    assert_eq!(paid["structuredContent"]["reference"], "INV-1", "{paid}");
    check_once(&world);
}

#[test]
fn the_inspector_of_2026_gets_a_task_and_notices_no_crash() {
    let world = asking("2m");
    let served = serve(&world);
    let (program, config) = (holdfast(), world.path("holdfast.toml"));
    let bridge = [program.to_str().expect("UTF-8"), "stdio", "-c", config.to_str().expect("UTF-8")];
    let mut list = inspector(&world, "modern", &bridge, "--method tools/list");
    assert!(Ran::within(&mut list, WITHIN).ok().contains("bank__transfer"));
    let mut pay = inspector(&world, "modern", &bridge, PAY);
    let paid = std::thread::scope(|scope| {
        let ran = scope.spawn(move || Ran::within(&mut pay, WITHIN));
        let call = pending(&world);
        served.kill();
        approve(&world, &call);
        let ran = ran.join().expect("no panic");
        ran.ok();
        assert_eq!(ran.json()["_meta"]["io.holdfast/call"], call.as_str());
        ran.json()
    });
    assert_eq!(paid["structuredContent"]["reference"], "INV-1", "{paid}");
    check_once(&world);
}
