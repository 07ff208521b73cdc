//! What agents get while their calls are held, by what they declare, and that all of it outlives a kill -9.

mod offers;
mod rounds;
mod tasks;

use holdfast_tests::{Answer, Desk, World, eventually_some};
use serde_json::{Value, json};

const OPERATOR: &str = "[operators.ana]\ntoken = \"token-of-ana-long-enough\"\n";
const ANA: &str = "token-of-ana-long-enough";

/// A world in which payments wait for an approver, and their agents this long.
fn asking(hold_wait: &str) -> World {
    asking_with("", hold_wait)
}

/// The same with more of a configuration.
fn asking_with(more: &str, hold_wait: &str) -> World {
    World::bank(&format!(
        "{more}{OPERATOR}[defaults]\neffect = \"allow\"\nhold_wait = \"{hold_wait}\"\n\
         [[rule]]\nid = \"payments\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n"
    ))
}

/// What clients declare that can send their users to a page.
fn visits() -> Value {
    json!({ "elicitation": { "form": {}, "url": {} } })
}

/// The one call that waits.
fn pending_call(desk: &Desk<'_>) -> String {
    eventually_some("a call waits", || {
        let pending = desk.get("/pending").json();
        pending["pending"][0]["call"]["call"].as_str().map(str::to_owned)
    })
}

/// What a result is of.
#[track_caller]
fn kind(answer: &Answer) -> &str {
    answer.result()["resultType"].as_str().unwrap_or_default()
}
