//! What servers should not do, for those who have to live with it.

use serde_json::json;

use crate::{
    message::{Answer, Failure, Outcome, result, said},
    state::Ask,
    stream::Cut,
};

/// The tool `misbehave`: an effect with this `reference` where it says so, and then trouble.
///
/// | `how` | does |
/// |---|---|
/// | `twice` | answers two times |
/// | `garbage` | writes what is no message, then answers |
/// | `silent` | never answers |
/// | `die` | ends the process at once |
/// | `effect-die` | does its work, then ends the process |
/// | `effect-close` | does its work, then breaks the connection (a process on pipes ends) |
/// | `effect-slow` | does its work, then takes `ms` to answer |
/// | `stranger` | answers a request that nobody made, then its own |
/// | `unknown-content` | answers with a content type that no specification has |
/// | `not-an-object` | answers with a result that is a list |
pub(crate) fn misbehave(ask: &Ask) -> Outcome {
    let how = ask.argument("how").as_str().unwrap_or_default().to_owned();
    if how.starts_with("effect") {
        ask.everything.write("effects", ask.argument("reference").as_str().unwrap_or("none"));
    }
    let on_pipes = ask.everything.options.http.is_none();
    match how.as_str() {
        "twice" => ask.line.send(&result(&ask.id, &said("first").to_string())),
        "garbage" => ask.line.send("this is no message {"),
        "silent" => {
            ask.pause(120_000);
            return Ok(Answer::Silence);
        }
        "die" | "effect-die" => std::process::exit(1),
        "effect-close" if on_pipes => std::process::exit(1),
        "effect-close" => {
            ask.line.cut(Cut::Off);
            return Ok(Answer::Silence);
        }
        "effect-slow" => {
            ask.pause(ask.argument("ms").as_u64().unwrap_or(1_000));
        }
        "stranger" => ask.line.send(&result("987654321", &said("to whom?").to_string())),
        "unknown-content" => {
            let block = json!({ "type": "hologram", "rays": [1.50, { "deep": null }], "text": 7 });
            return Ok(json!({ "content": [block], "x-more": true }).into());
        }
        "not-an-object" => return Ok(Answer::Word("[1, 2]".to_owned())),
        other => return Err(Failure::params(&format!("how is {other:?}?"))),
    }
    Ok(said("misbehaved").into())
}
