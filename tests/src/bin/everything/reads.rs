//! Prompts, resources and completion.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

use crate::{
    message::{Answer, Failure, Outcome},
    rounds,
    state::{Ask, Era, lock},
};

/// A red pixel.
pub(crate) const PIXEL: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC";

/// No sound at all, as WAV.
pub(crate) fn silence() -> String {
    let mut wav = b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
    wav.extend(8_000_u32.to_le_bytes());
    wav.extend(8_000_u32.to_le_bytes());
    wav.extend(b"\x01\0\x08\0data\0\0\0\0");
    STANDARD.encode(wav)
}

pub(crate) fn prompt(ask: &Ask) -> Outcome {
    let text = |text: String| json!({ "role": "user", "content": { "type": "text", "text": text } });
    let argument = |name: &str| ask.argument(name).as_str().unwrap_or_default().to_owned();
    let name = ask.params.value["name"].as_str().unwrap_or_default();
    let messages = match name {
        "test_simple_prompt" => json!([text("This is a simple prompt for testing.".into())]),
        "test_prompt_with_arguments" => {
            let said =
                format!("Prompt with arguments: arg1='{}', arg2='{}'", argument("arg1"), argument("arg2"));
            json!([text(said)])
        }
        "test_prompt_with_embedded_resource" => {
            let resource = json!({
                "uri": argument("resourceUri"),
                "mimeType": "text/plain",
                "text": "Embedded resource content for testing.",
            });
            let content = json!({ "type": "resource", "resource": resource });
            let last = text("Please process the embedded resource above.".into());
            json!([{ "role": "user", "content": content }, last])
        }
        "test_prompt_with_image" => {
            let image = json!({ "type": "image", "data": PIXEL, "mimeType": "image/png" });
            json!([{ "role": "user", "content": image }, text("Please analyze the image above.".into())])
        }
        "test_input_required_result_prompt" => {
            let question = rounds::form(
                "What context should the prompt use?",
                &json!({ "context": { "type": "string" } }),
                &["context"],
            );
            let answers = match rounds::ask(ask, &json!({ "user_context": question }), None)? {
                rounds::Round::Answers(answers) => answers,
                rounds::Round::Again(result) => return Ok(result.into()),
            };
            json!([text(format!("In this context: {}", answers["user_context"]["content"]["context"]))])
        }
        "word_for_word" => return Ok(Answer::Word(argument("result"))),
        "test_dynamic_prompt" => json!([text("It is there for now.".into())]),
        other => return Err(Failure::params(&format!("Unknown prompt: {other}"))),
    };
    Ok(json!({ "description": "a prompt", "messages": messages }).into())
}

pub(crate) fn resource(ask: &Ask) -> Outcome {
    let uri = ask.params.value["uri"].as_str().unwrap_or_default();
    let text = |mime: &str, text: String| json!({ "uri": uri, "mimeType": mime, "text": text });
    let content = match uri {
        "test://static-text" => text("text/plain", "This is the content of the static text resource.".into()),
        "test://static-binary" => json!({ "uri": uri, "mimeType": "image/png", "blob": PIXEL }),
        "test://watched-resource" => {
            let times = lock(&ask.everything.touched).get(uri).copied().unwrap_or(0);
            text("text/plain", format!("touched {times} times"))
        }
        "test://question" => {
            let question = rounds::form("Which one?", &json!({ "one": { "type": "string" } }), &["one"]);
            match rounds::ask(ask, &json!({ "which": question }), None)? {
                rounds::Round::Answers(answers) => text("application/json", answers.to_string()),
                rounds::Round::Again(result) => return Ok(result.into()),
            }
        }
        _ => {
            if let Some(id) = uri.strip_prefix("test://template/").and_then(|rest| rest.strip_suffix("/data"))
            {
                // An id like `slow-500` takes its time, and is noticed.
                if let Some(ms) = id.strip_prefix("slow-").and_then(|ms| ms.parse().ok()) {
                    ask.everything.saw(json!({ "reads": id }));
                    if ask.pause(ms) {
                        ask.everything.saw(json!({ "stopped reading": id }));
                    }
                }
                let data = json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") });
                text("application/json", data.to_string())
            } else if let Some(word) = uri.strip_prefix("test://word/") {
                let word = URL_SAFE_NO_PAD.decode(word).ok().and_then(|word| String::from_utf8(word).ok());
                return Ok(Answer::Word(word.ok_or_else(|| Failure::params("not base64url"))?));
            } else {
                let mut failure = Failure::params("Resource not found").with(json!({ "uri": uri }));
                if ask.era == Era::Legacy {
                    failure.code = -32002;
                }
                return Err(failure);
            }
        }
    };
    Ok(json!({ "contents": [content] }).into())
}

pub(crate) fn complete(ask: &Ask) -> Outcome {
    let params = &ask.params.value;
    let known: &[&str] = match params["ref"]["type"].as_str() {
        Some("ref/prompt") if params["ref"]["name"] == "test_prompt_with_arguments" => {
            &["paris", "park", "party"]
        }
        Some("ref/resource") if params["ref"]["uri"] == "test://template/{id}/data" => &["1", "12", "123"],
        _ => return Err(Failure::params("nothing to complete there")),
    };
    let begin = params["argument"]["value"].as_str().unwrap_or_default();
    let values: Vec<Value> =
        known.iter().filter(|value| value.starts_with(begin)).map(|value| (*value).into()).collect();
    let total = values.len();
    Ok(json!({ "completion": { "values": values, "total": total, "hasMore": false } }).into())
}
