//! What the tools do.

use serde_json::{Value, json};

use crate::{
    message::{Answer, Failure, Outcome, failed, said},
    odd,
    reads::{PIXEL, silence},
    rounds::{self, Round, form},
    state::{Ask, Era, lock},
    stream::Cut,
    tasks,
};

pub(crate) fn call(ask: &Ask) -> Outcome {
    let name = ask.params.value["name"].as_str().unwrap_or_default();
    if let Some(outcome) = tasks::call(ask, name) {
        return outcome;
    }
    match name {
        "test_simple_text" => Ok(said("This is a simple text response for testing.").into()),
        "test_image_content" => Ok(json!({ "content": [image()] }).into()),
        "test_audio_content" => {
            Ok(json!({ "content": [{ "type": "audio", "data": silence(), "mimeType": "audio/wav" }] }).into())
        }
        "test_embedded_resource" => {
            let text = "This is an embedded resource content.";
            Ok(json!({ "content": [embedded("test://embedded-resource", "text/plain", text)] }).into())
        }
        "test_multiple_content_types" => {
            let text = json!({ "type": "text", "text": "Multiple content types test:" });
            let data = json!({ "test": "data", "value": 123 }).to_string();
            let resource = embedded("test://mixed-content-resource", "application/json", &data);
            Ok(json!({ "content": [text, image(), resource] }).into())
        }
        "test_error_handling" => Ok(failed("This tool intentionally returns an error for testing").into()),
        "json_schema_2020_12_tool" | "test_header_tool" | "test_dynamic_tool" => Ok(said("done").into()),
        "greet" => {
            let name = ask.argument("name").as_str().unwrap_or("nobody");
            Ok(said(format!("Hello, {name}!")).into())
        }
        "structured_sum" => Ok(sum(ask).into()),
        "test_tool_with_logging" => Ok(log(ask).into()),
        "log_everything" | "test_logging_tool" => Ok(log_everything(ask).into()),
        "test_tool_with_progress" => Ok(progress(ask).into()),
        "long_work" => Ok(long_work(ask).into()),
        "what_was_seen" => Ok(said(ask.everything.seen().to_string()).into()),
        "say_custom" => {
            ask.notify("notifications/x-everything/said", &json!({ "word": ask.argument("word") }));
            Ok(said("said").into())
        }
        "test_reconnection" => {
            ask.line.cut(Cut::Politely);
            ask.pause(300);
            Ok(said("The answer came after the connection.").into())
        }
        "test_trigger_tool_change" => Ok(change(ask, "tools", "toolsListChanged").into()),
        "test_trigger_prompt_change" => Ok(change(ask, "prompts", "promptsListChanged").into()),
        "test_trigger_resource_change" => Ok(change(ask, "resources", "resourcesListChanged").into()),
        "touch_resource" => Ok(touch(ask).into()),
        "effect" => Ok(effect(ask).into()),
        "echo_arguments" => Ok(said(ask.params.member("arguments").unwrap_or_default()).into()),
        "word_for_word" => Ok(Answer::Word(ask.argument("result").as_str().unwrap_or("{}").to_owned())),
        "misbehave" => odd::misbehave(ask),
        _ => asking(ask, name),
    }
}

fn image() -> Value {
    json!({ "type": "image", "data": PIXEL, "mimeType": "image/png" })
}

fn embedded(uri: &str, mime: &str, text: &str) -> Value {
    json!({ "type": "resource", "resource": { "uri": uri, "mimeType": mime, "text": text } })
}

fn sum(ask: &Ask) -> Value {
    let number = |name| ask.argument(name).as_i64().unwrap_or(0);
    let data = json!({ "sum": number("a") + number("b") });
    json!({ "content": [{ "type": "text", "text": data.to_string() }], "structuredContent": data })
}

fn log(ask: &Ask) -> Value {
    for (at, text) in
        ["Tool execution started", "Tool processing data", "Tool execution completed"].iter().enumerate()
    {
        if at > 0 {
            ask.pause(50);
        }
        ask.log("info", &json!(text));
    }
    said("logged")
}

fn log_everything(ask: &Ask) -> Value {
    for level in ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"] {
        ask.log(level, &json!({ "level": level, "digits": 1 }));
    }
    said("logged")
}

fn progress(ask: &Ask) -> Value {
    for (at, step) in [0, 50, 100].into_iter().enumerate() {
        if at > 0 {
            ask.pause(50);
        }
        ask.progress(&json!(step), &json!(100), &format!("{step} of 100"));
    }
    said("progressed")
}

/// Works for `ms` in `steps`, and remembers what it was told meanwhile.
fn long_work(ask: &Ask) -> Value {
    let steps = ask.argument("steps").as_u64().unwrap_or(1).max(1);
    let ms = ask.argument("ms").as_u64().unwrap_or(1_000);
    let mark = ask.argument("mark");
    ask.everything.saw(json!({ "began": mark }));
    for step in 1..=steps {
        if ask.pause(ms / steps) {
            ask.everything.saw(json!({ "cancelled": mark }));
            return failed("cancelled");
        }
        ask.progress(&json!(step), &json!(steps), "working");
    }
    ask.everything.saw(json!({ "finished": mark }));
    said("worked")
}

fn change(ask: &Ask, list: &'static str, kind: &str) -> Value {
    let mut changed = lock(&ask.everything.changed);
    if !changed.remove(list) {
        changed.insert(list);
    }
    drop(changed);
    ask.everything.announce(kind, &format!("notifications/{list}/list_changed"), &Value::Null);
    said("changed")
}

fn touch(ask: &Ask) -> Value {
    let uri = ask.argument("uri").as_str().unwrap_or("test://watched-resource");
    *lock(&ask.everything.touched).entry(uri.to_owned()).or_default() += 1;
    let params = json!({ "uri": uri });
    ask.everything.announce("resourceSubscriptions", "notifications/resources/updated", &params);
    said("touched")
}

fn effect(ask: &Ask) -> Value {
    let reference = ask.argument("reference").as_str().unwrap_or("none");
    ask.everything.write("effects", reference);
    if let Some(ms) = ask.argument("ms").as_u64() {
        ask.progress(&json!(0), &json!(1), "done, and not said yet");
        ask.pause(ms);
    }
    said(format!("done: {reference}"))
}

/// The tools that ask the client.
fn asking(ask: &Ask, name: &str) -> Outcome {
    let one = |property: &str, kind: &str| json!({ (property): { "type": kind } });
    let argument = |name: &str| ask.argument(name).as_str().unwrap_or_default().to_owned();
    let given = rounds::state(ask)?;
    let (questions, state) = match name {
        "test_sampling" => (json!({ "sample": rounds::sampling(&argument("prompt"), 100) }), None),
        "test_missing_capability" => (json!({ "sample": rounds::sampling("anything", 10) }), None),
        "test_elicitation" => {
            let text = |what: &str| json!({ "type": "string", "description": what });
            let properties =
                json!({ "username": text("User's response"), "email": text("User's email address") });
            (json!({ "user": form(&argument("message"), &properties, &["username", "email"]) }), None)
        }
        "test_elicitation_sep1034_defaults" => {
            (json!({ "user": form("Please check", &defaults(), &[]) }), None)
        }
        "test_elicitation_sep1330_enums" => (json!({ "user": form("Please choose", &choices(), &[]) }), None),
        "ask_roots" | "test_input_required_result_list_roots" => {
            (json!({ "client_roots": rounds::roots() }), None)
        }
        "ask_visit" => (json!({ "visit": rounds::visit("https://example.org/visit") }), None),
        "test_streaming_elicitation" => {
            ask.progress(&json!(1), &json!(2), "asking");
            (json!({ "go_on": form("Shall we go on?", &one("ok", "boolean"), &["ok"]) }), None)
        }
        "test_input_required_result_elicitation" => {
            (json!({ "user_name": form("What is your name?", &one("name", "string"), &["name"]) }), None)
        }
        "test_input_required_result_sampling" => {
            (json!({ "capital_question": rounds::sampling("What is the capital of France?", 100) }), None)
        }
        "test_input_required_result_request_state" | "test_input_required_result_tampered_state" => {
            let question = form("Please confirm", &one("ok", "boolean"), &["ok"]);
            (json!({ "confirm": question }), Some(json!({ "asked": "confirm" })))
        }
        "test_input_required_result_multiple_inputs" => {
            let questions = json!({
                "user_name": form("What is your name?", &one("name", "string"), &["name"]),
                "greeting": rounds::sampling("Generate a greeting", 50),
                "client_roots": rounds::roots(),
            });
            (questions, Some(json!({ "asked": 3 })))
        }
        "asked_effect" => {
            let question = form("Shall it be done?", &one("ok", "boolean"), &["ok"]);
            (json!({ "confirm": question }), Some(json!({ "asked": "confirm" })))
        }
        "test_input_required_result_multi_round" => return rounds_of_two(ask, given.as_ref()),
        "test_input_required_result_capabilities" => {
            (within(&ask.capabilities()), Some(json!({ "asked": "some" })))
        }
        other => return Err(Failure::params(&format!("Unknown tool: {other}"))),
    };
    if ask.era == Era::Modern
        && state.is_some()
        && given.is_none()
        && ask.params.value["inputResponses"].is_object()
    {
        return Err(Failure::params("these answers come without the state of their question"));
    }
    Ok(match rounds::ask(ask, &questions, state)? {
        Round::Again(result) => result.into(),
        Round::Answers(answers) if name == "asked_effect" => asked_effect(ask, &answers["confirm"]).into(),
        Round::Answers(answers) => answered(name, &answers).into(),
    })
}

fn asked_effect(ask: &Ask, confirmed: &Value) -> Value {
    if confirmed["content"]["ok"] == true { effect(ask) } else { failed("not confirmed") }
}

fn answered(name: &str, answers: &Value) -> Value {
    match name {
        "test_sampling" => said(format!("LLM response: {}", answers["sample"]["content"]["text"])),
        "test_elicitation" => {
            let user = &answers["user"];
            said(format!("User response: action={}, content={}", user["action"], user["content"]))
        }
        "test_elicitation_sep1034_defaults" | "test_elicitation_sep1330_enums" => {
            let (action, content) = (answers["user"]["action"].as_str(), &answers["user"]["content"]);
            said(format!("Elicitation completed: action={}, content={content}", action.unwrap_or_default()))
        }
        "test_input_required_result_elicitation" => {
            said(format!("Hello, {}!", answers["user_name"]["content"]["name"].as_str().unwrap_or("?")))
        }
        "test_input_required_result_request_state" => said("state-ok"),
        _ => said(answers.to_string()),
    }
}

/// Asks twice, and is reminded of the first answer by its state.
fn rounds_of_two(ask: &Ask, given: Option<&Value>) -> Outcome {
    let one = |property: &str| json!({ (property): { "type": "string" } });
    let first = json!({ "step1": form("Step 1: What is your name?", &one("name"), &["name"]) });
    let second = json!({ "step2": form("Step 2: What is your favorite color?", &one("color"), &["color"]) });
    let name = match given.map(|given| &given["name"]) {
        Some(name) if !name.is_null() => name.clone(),
        _ => match rounds::ask(ask, &first, Some(json!({ "step": 1 })))? {
            Round::Again(result) => return Ok(result.into()),
            Round::Answers(answers) => answers["step1"]["content"]["name"].clone(),
        },
    };
    Ok(match rounds::ask(ask, &second, Some(json!({ "step": 2, "name": name })))? {
        Round::Again(result) => result.into(),
        Round::Answers(answers) => {
            said(format!("{name} likes {}", answers["step2"]["content"]["color"])).into()
        }
    })
}

/// Only questions that this client can be asked.
fn within(capabilities: &Value) -> Value {
    let mut questions = json!({
        "sample": rounds::sampling("Say something", 10),
        "name": form("What is your name?", &json!({ "name": { "type": "string" } }), &["name"]),
    });
    let questions = questions.as_object_mut().expect("it was just made");
    questions.retain(|_, question| !capabilities[rounds::capability(question)].is_null());
    questions.clone().into()
}

fn defaults() -> Value {
    json!({
        "name": { "type": "string", "default": "John Doe" },
        "age": { "type": "integer", "default": 30 },
        "score": { "type": "number", "default": 95.5 },
        "status": { "type": "string", "enum": ["active", "inactive", "pending"], "default": "active" },
        "verified": { "type": "boolean", "default": true },
    })
}

fn choices() -> Value {
    let titled = |titles: [&str; 3]| -> Vec<Value> {
        let value =
            |(at, title): (usize, &&str)| json!({ "const": format!("value{}", at + 1), "title": title });
        titles.iter().enumerate().map(value).collect()
    };
    let plain = json!(["option1", "option2", "option3"]);
    json!({
        "untitledSingle": { "type": "string", "enum": plain },
        "titledSingle": { "type": "string", "oneOf": titled(["First Option", "Second Option", "Third Option"]) },
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": { "type": "array", "items": { "type": "string", "enum": plain } },
        "titledMulti": {
            "type": "array",
            "items": { "anyOf": titled(["First Choice", "Second Choice", "Third Choice"]) },
        },
    })
}
