//! Agents that others wrote, unmodified: the official python SDK in both eras and over both transports, and a framework.

use std::path::Path;

use holdfast_tests::{ALLOW, PATIENCE, Ran, World, from_setup, holdfast};
use serde_json::{Value, json};

/// What the script told, as JSON.
fn python(world: &World, script: &str, args: &[&str]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
    let mut command = world.command(&from_setup("venv/bin/python"));
    command.arg(script).args(args);
    // Its interpreter may need longer for its libraries than for the story.
    let ran = Ran::within(&mut command, 4 * PATIENCE);
    ran.ok();
    ran.json()
}

fn tell(world: &World, told: &Value, name: &str, protocol: &str) {
    assert_eq!(told["protocol"], protocol, "{told}");
    let tools = told["tools"].as_array().expect("a list");
    assert!(tools.contains(&json!("bank__transfer")) && tools.contains(&json!("holdfast_wait")), "{told}");
    assert_eq!(told["paid"]["error"], false, "{told}");
    assert_eq!(told["paid"]["data"]["reference"], format!("{name}-1"));
    assert_eq!(told["paid"]["meta"]["io.holdfast/state"], "succeeded");
    assert_eq!((&told["declined"]["error"], world.paid(&format!("{name}-2"))), (&json!(true), 0), "{told}");
    let steps: Vec<Value> = (1..=5).map(|n| json!([f64::from(n), 5.0])).collect();
    assert_eq!(told["progress"], Value::from(steps), "{told}");
    let [first, again] = [&told["keyed"][0], &told["keyed"][1]];
    assert_eq!((&first["text"], &again["meta"]["io.holdfast/replayed"]), (&again["text"], &json!(true)));
    assert_eq!(told["after"]["error"], false, "{told}");
    let paid = [1, 3, 4, 6].map(|n| world.paid(&format!("{name}-{n}")));
    assert_eq!(paid, [1; 4], "{told}");
}

#[test]
fn the_python_sdk_over_http_in_the_modern_era() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let told = python(&world, "story.py", &["auto", &format!("http://{}/mcp", served.mcp)]);
    tell(&world, &told, "auto-http", "2026-07-28");
    // There a client that cancels closes its stream, and an effect is finished all the same.
    assert_eq!(world.paid("auto-http-5"), 1);
}

#[test]
fn the_python_sdk_over_http_in_the_legacy_era() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let told = python(&world, "story.py", &["legacy", &format!("http://{}/mcp", served.mcp)]);
    tell(&world, &told, "legacy-http", "2025-11-25");
    assert_eq!(world.paid("legacy-http-5"), 0, "a cancelled payment was made");
}

#[test]
fn the_python_sdk_over_stdio_in_both_eras() {
    for (mode, protocol) in [("auto", "2026-07-28"), ("legacy", "2025-11-25")] {
        let world = World::bank(ALLOW);
        let program = holdfast();
        let config = world.path("holdfast.toml");
        let args = [mode, program.to_str().expect("UTF-8"), config.to_str().expect("UTF-8")];
        let told = python(&world, "story.py", &args);
        let name = format!("{mode}-stdio");
        tell(&world, &told, &name, protocol);
        assert_eq!(world.paid(&format!("{name}-5")), 0, "{mode}: a cancelled payment was made");
    }
}

#[test]
fn a_client_that_loses_patience_and_asks_again_pays_once() {
    for mode in ["auto", "legacy"] {
        let world = World::bank(ALLOW);
        let served = world.serve();
        let told = python(&world, "replay.py", &[mode, &format!("http://{}/mcp", served.mcp), "INV-1"]);
        assert!(world.paid("INV-1") <= 1, "{mode}: paid twice: {told}");
        // Legacy clients say that they cancel: then nothing was made and nobody guesses; else it is the one payment.
        if world.paid("INV-1") == 1 {
            assert_eq!(told["error"], false, "{mode}: {told}");
        }
    }
}

#[test]
fn an_agent_of_pydantic_ai_pays_once_and_its_model_hears_so() {
    let world = World::bank(ALLOW);
    let served = world.serve();
    let told = python(&world, "framework.py", &[&format!("http://{}/mcp", served.mcp), "INV-1"]);
    assert!(told["tools"].as_array().expect("a list").contains(&json!("bank__transfer")), "{told}");
    let returned = told["returned"].as_array().expect("a list");
    assert_eq!(returned.len(), 1, "{told}");
    assert_eq!(returned[0]["reference"], "INV-1", "{told}");
    assert_eq!(told["said"], "paid INV-1", "{told}");
    assert_eq!((world.paid("INV-1"), world.ledger().len()), (1, 1), "{told}");
}
