//! The inbox in a real Chromium: as a person uses it, and as an attacker would like it to be used.

mod corpora;
mod deciding;
mod looks;
mod signing_in;
mod standing;
mod strangers;
mod whole;

use holdfast_tests::{Browser, Served, World};

const ANA: &str = "token-of-ana-long-enough";
const VERA: &str = "token-of-vera-long-enough";
const NIGHTLY: &str = "token-of-nightly-long-enough";
/// Who there is: an administrator, an approver, somebody who only looks, and an agent.
const PEOPLE: &str = "[operators.ana]\ntoken = \"token-of-ana-long-enough\"\nrole = \"admin\"\n\
    [operators.bob]\ntoken = \"token-of-bob-long-enough\"\n\
    [operators.vera]\ntoken = \"token-of-vera-long-enough\"\nrole = \"viewer\"\n\
    [agents.nightly]\ntoken = \"token-of-nightly-long-enough\"\n";
/// Payments wait for an approver, and their agents do not.
const ASK: &str = "[defaults]\neffect = \"allow\"\nhold_wait = \"0s\"\n\
    [[rule]]\nid = \"payments\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n";

/// A world in which payments are asked for, with `gate` below the rule.
fn asking(gate: &str) -> World {
    World::bank(&format!("{PEOPLE}{ASK}{gate}"))
}

/// A browser at whose page ana sits.
fn ana(served: &Served) -> Browser {
    let browser = Browser::open();
    browser.sign_in(served, ANA);
    browser
}

/// Where a call is on the list of what waits.
fn card(call: &str) -> String {
    format!("article[data-key='card-{call}']")
}
