//! Methods, in both eras.

use serde_json::{Value, json};

use crate::{
    Offered,
    eras::{LEGACY, MODERN},
    message::{Answer, Failure, Outcome},
    offers, pipe, reads,
    state::{Ask, Era, Session, lock},
    tasks, tools,
};

/// The result of `initialize`.
pub(crate) fn initialized(session: &Session, offered: Offered) -> Value {
    let hello = lock(&session.hello).clone();
    let wanted = hello["protocolVersion"].as_str().unwrap_or_default();
    let version = LEGACY.iter().find(|known| **known == wanted).unwrap_or(&LEGACY[0]);
    let mut capabilities = offers::capabilities(Era::Legacy);
    if offered == Offered::Legacy {
        capabilities["tasks"] = json!({ "cancel": {}, "requests": { "tools": { "call": {} } } });
    }
    json!({
        "protocolVersion": version,
        "capabilities": capabilities,
        "serverInfo": offers::info(),
        "instructions": offers::INSTRUCTIONS,
    })
}

/// Works on a request; returns the status over HTTP and the answer's message.
pub(crate) fn run(ask: &Ask) -> (u16, Option<String>) {
    let outcome = method(ask).map(|answer| match answer {
        Answer::Plain(value) if ask.era == Era::Modern => Answer::Plain(dressed(&ask.method, value)),
        other => other,
    });
    pipe::text(&ask.id, outcome)
}

fn method(ask: &Ask) -> Outcome {
    match ask.era {
        Era::Legacy => match ask.method.as_str() {
            "ping" => return Ok(json!({}).into()),
            "logging/setLevel" => return set_level(ask),
            "resources/subscribe" | "resources/unsubscribe" => return subscribe(ask),
            "tasks/get" | "tasks/result" | "tasks/cancel" => return tasks::method_of_2025(ask),
            _ => {}
        },
        Era::Modern => match ask.method.as_str() {
            "server/discover" => return Ok(discovered().into()),
            "subscriptions/listen" => return listen(ask),
            "tasks/get" | "tasks/update" | "tasks/cancel" => return tasks::method(ask),
            _ => {}
        },
    }
    match ask.method.as_str() {
        "tools/list" => list(ask, "tools", offers::tools(ask.is_changed("tools"))),
        "tools/call" => tools::call(ask),
        "prompts/list" => list(ask, "prompts", offers::prompts(ask.is_changed("prompts"))),
        "prompts/get" => reads::prompt(ask),
        "resources/list" => list(ask, "resources", offers::resources(ask.is_changed("resources"))),
        "resources/templates/list" => list(ask, "resourceTemplates", offers::templates()),
        "resources/read" => reads::resource(ask),
        "completion/complete" => reads::complete(ask),
        "x-everything/echo" => Ok(json!({ "echo": ask.params.value }).into()),
        other => Err(Failure::no_method(other)),
    }
}

fn discovered() -> Value {
    json!({
        "supportedVersions": [MODERN],
        "capabilities": offers::capabilities(Era::Modern),
        "instructions": offers::INSTRUCTIONS,
    })
}

/// What every result of 2026-07-28 has.
fn dressed(method: &str, mut result: Value) -> Value {
    if result.get("resultType").is_none() {
        result["resultType"] = "complete".into();
    }
    let is_complete = result["resultType"] == "complete";
    let cacheable = method.ends_with("/list") || matches!(method, "server/discover" | "resources/read");
    if is_complete && cacheable && result.get("ttlMs").is_none() {
        result["ttlMs"] = 1_000.into();
        result["cacheScope"] = "public".into();
    }
    result["_meta"]["io.modelcontextprotocol/serverInfo"] = offers::info();
    result
}

fn set_level(ask: &Ask) -> Outcome {
    let level = ask.params.value["level"].as_str().ok_or_else(|| Failure::params("no level"))?;
    level.clone_into(&mut lock(&ask.session.level));
    ask.everything.saw(json!({ "level": level }));
    Ok(json!({}).into())
}

fn subscribe(ask: &Ask) -> Outcome {
    let uri = ask.params.value["uri"].as_str().ok_or_else(|| Failure::params("no uri"))?;
    let mut subscribed = lock(&ask.session.subscribed);
    if ask.method == "resources/subscribe" {
        subscribed.insert(uri.to_owned());
    } else {
        subscribed.remove(uri);
    }
    ask.everything.saw(json!({ "method": ask.method, "uri": uri }));
    Ok(json!({}).into())
}

/// Listens until the client no longer does.
fn listen(ask: &Ask) -> Outcome {
    ask.everything.listen(ask);
    while !ask.pause(60_000) {}
    Ok(Answer::Silence)
}

/// One page.
fn list(ask: &Ask, name: &str, mut entries: Vec<Value>) -> Outcome {
    let size = ask.everything.options.page;
    let from = match &ask.params.value["cursor"] {
        Value::Null => 0,
        cursor => cursor
            .as_str()
            .and_then(|cursor| cursor.strip_prefix("from ")?.parse().ok())
            .filter(|from| *from < entries.len())
            .ok_or_else(|| Failure::params("no such cursor"))?,
    };
    let mut page = entries.split_off(from);
    let more = page.len() > size;
    page.truncate(size);
    let mut result = json!({ (name): page });
    if more {
        result["nextCursor"] = format!("from {}", from + size).into();
    }
    Ok(result.into())
}

impl Ask {
    fn is_changed(&self, list: &str) -> bool {
        lock(&self.everything.changed).contains(list)
    }
}
