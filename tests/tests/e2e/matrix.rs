//! Every feature of MCP, over both transports and in both eras, on both sides.

mod faults;
mod features;
mod fidelity;

use std::panic::{AssertUnwindSafe, catch_unwind};

use holdfast_tests::{Client, Place, Speaks, World, everything};
use serde_json::json;

use self::features::{FEATURES, Feature};

/// How a side is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Http,
    Stdio,
}

/// One side of Holdfast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Side {
    way: Way,
    speaks: Speaks,
}

const SIDES: [Side; 4] = [
    Side { way: Way::Http, speaks: Speaks::Legacy },
    Side { way: Way::Http, speaks: Speaks::Modern },
    Side { way: Way::Stdio, speaks: Speaks::Legacy },
    Side { way: Way::Stdio, speaks: Speaks::Modern },
];

/// What is tried.
struct Trial {
    name: &'static str,
    client: Client,
    down: Side,
    up: Side,
}

/// `server` as `x` in front of everything that is allowed, and whoever goes away takes their calls along.
fn configuration(server: &str) -> String {
    format!("{server}prefix = false\n[defaults]\neffect = \"allow\"\non_disconnect = \"cancel\"\n")
}

/// A server that speaks like this, in three lines of the configuration and what keeps it alive.
fn upstream(world: &World, up: Side) -> (String, Option<holdfast_tests::HttpServer>) {
    let era = match up.speaks {
        Speaks::Legacy => "legacy",
        Speaks::Modern => "modern",
    };
    match up.way {
        Way::Http => {
            let server = world.http_everything(&["--era", era, "--page", "5"]);
            (format!("[servers.x]\nurl = \"http://{}/mcp\"\n", server.address), Some(server))
        }
        Way::Stdio => {
            let program = everything();
            let program = program.to_str().expect("UTF-8");
            let args = format!("args = [\"--era\", {era:?}, \"--page\", \"5\", \"--dir\", \".\"]\n");
            (format!("[servers.x]\ncommand = {program:?}\n{args}"), None)
        }
    }
}

/// One server, and clients of every kind one after the other, each of which tries everything.
fn try_all(up: Side) {
    let world = World::empty();
    let (server, _alive) = upstream(&world, up);
    world.configure(&configuration(&server));
    let served = world.serve();
    let mut failures = Vec::new();
    for down in SIDES {
        for Feature { name, works } in FEATURES {
            // A client of its own for each: what one leaves behind must not help the next.
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let capabilities =
                    json!({ "elicitation": { "form": {}, "url": {} }, "sampling": {}, "roots": {} });
                let client = match down.way {
                    Way::Http => Client::connect(Place::Http(&served.mcp), down.speaks, capabilities),
                    Way::Stdio => {
                        Client::connect(Place::Stdio(&mut world.stdio()), down.speaks, capabilities)
                    }
                };
                works(&mut Trial { name, client, down, up });
            }));
            if let Err(panic) = outcome {
                let words = panic.downcast_ref::<String>().cloned();
                let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
                let failure = format!("{name}, {down:?} to {up:?}: {}", words.unwrap_or_default());
                println!("{failure}");
                failures.push(failure);
            }
        }
    }
    let tried = SIDES.len() * FEATURES.len();
    assert!(failures.is_empty(), "{} of {tried} fail:\n{}", failures.len(), failures.join("\n"));
    println!("{tried} features in front of {up:?}");
}

#[test]
fn every_feature_of_a_legacy_server_over_http() {
    try_all(SIDES[0]);
}

#[test]
fn every_feature_of_a_modern_server_over_http() {
    try_all(SIDES[1]);
}

#[test]
fn every_feature_of_a_legacy_server_on_pipes() {
    try_all(SIDES[2]);
}

#[test]
fn every_feature_of_a_modern_server_on_pipes() {
    try_all(SIDES[3]);
}
