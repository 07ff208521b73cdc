//! Questions to the client: requests of ours in the legacy era, `input_required` in 2026-07-28.

use std::hash::{DefaultHasher, Hash, Hasher};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use crate::{
    message::Failure,
    state::{Ask, Era},
};

/// What came of a question.
pub(crate) enum Round {
    /// By the questions' names.
    Answers(Value),
    /// The result that asks.
    Again(Value),
}

/// Asks the client all `questions`, which have names; `state` is what to be reminded of.
pub(crate) fn ask(ask: &Ask, questions: &Value, state: Option<Value>) -> Result<Round, Failure> {
    let questions = questions.as_object().expect("questions have names");
    for question in questions.values() {
        let needed = capability(question);
        if ask.capabilities()[needed].is_null() {
            return Err(Failure::needs(json!({ (needed): {} })));
        }
    }
    if ask.era == Era::Legacy {
        let mut answers = Map::new();
        for (name, question) in questions {
            let method = question["method"].as_str().expect("questions have methods");
            let answer = ask
                .request(method, &question["params"])
                .map_err(|error| Failure::new(200, -32603, "the client did not answer").with(error))?;
            answers.insert(name.clone(), answer);
        }
        return Ok(Round::Answers(answers.into()));
    }
    let answers = &ask.params.value["inputResponses"];
    if questions.keys().all(|name| answers[name].is_object()) {
        return Ok(Round::Answers(answers.clone()));
    }
    let mut result = json!({ "resultType": "input_required", "inputRequests": questions });
    if let Some(state) = state {
        result["requestState"] = seal(&state).into();
    }
    Ok(Round::Again(result))
}

/// What the client must be able to do to be asked this.
pub(crate) fn capability(question: &Value) -> &'static str {
    match question["method"].as_str() {
        Some("sampling/createMessage") => "sampling",
        Some("roots/list") => "roots",
        _ => "elicitation",
    }
}

/// What we reminded ourselves of; none where nothing came.
///
/// # Errors
/// It is not what we wrote.
pub(crate) fn state(ask: &Ask) -> Result<Option<Value>, Failure> {
    let Some(sealed) = ask.params.value["requestState"].as_str() else { return Ok(None) };
    let forged = || Failure::params("this requestState is not ours");
    let (body, mark) = sealed.split_once('.').ok_or_else(forged)?;
    if mark != self::mark(body) {
        return Err(forged());
    }
    let body = URL_SAFE_NO_PAD.decode(body).map_err(|_| forged())?;
    Ok(Some(serde_json::from_slice(&body).map_err(|_| forged())?))
}

fn seal(state: &Value) -> String {
    let body = URL_SAFE_NO_PAD.encode(state.to_string());
    let mark = mark(&body);
    format!("{body}.{mark}")
}

/// Enough against mistakes; nobody attacks a server of tests.
fn mark(body: &str) -> String {
    let mut hasher = DefaultHasher::new();
    ("everything", body).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

pub(crate) fn form(message: &str, properties: &Value, required: &[&str]) -> Value {
    let schema = json!({ "type": "object", "properties": properties, "required": required });
    json!({ "method": "elicitation/create", "params": { "message": message, "requestedSchema": schema } })
}

pub(crate) fn sampling(prompt: &str, most: u32) -> Value {
    let message = json!({ "role": "user", "content": { "type": "text", "text": prompt } });
    json!({ "method": "sampling/createMessage", "params": { "messages": [message], "maxTokens": most } })
}

pub(crate) fn roots() -> Value {
    json!({ "method": "roots/list", "params": {} })
}

pub(crate) fn visit(url: &str) -> Value {
    let params =
        json!({ "mode": "url", "message": "Please look there", "url": url, "elicitationId": "visit-1" });
    json!({ "method": "elicitation/create", "params": params })
}
