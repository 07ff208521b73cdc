//! The definitions of tools, prompts and resources.

use serde_json::{Value, json};

use crate::{state::Era, tasks};

pub(crate) const INSTRUCTIONS: &str = "This server has everything, and means nothing by it.";

/// `serverInfo`.
pub(crate) fn info() -> Value {
    json!({ "name": "everything", "title": "Everything", "version": "1.0.0" })
}

pub(crate) fn capabilities(era: Era) -> Value {
    let mut capabilities = json!({
        "tools": { "listChanged": true },
        "prompts": { "listChanged": true },
        "resources": { "listChanged": true, "subscribe": true },
        "completions": {},
        "logging": {},
    });
    match era {
        Era::Legacy => capabilities["experimental"] = json!({ "x-everything": { "level": 1 } }),
        Era::Modern => {
            capabilities["extensions"] =
                json!({ (tasks::EXTENSION): {}, "org.example/everything": { "level": 1 } });
        }
    }
    capabilities
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn number() -> Value {
    json!({ "type": "number" })
}

fn tool(name: &str, description: &str, properties: &Value) -> Value {
    let schema = json!({ "type": "object", "properties": properties });
    json!({ "name": name, "description": description, "inputSchema": schema })
}

/// All tools; one comes and goes.
pub(crate) fn tools(is_changed: bool) -> Vec<Value> {
    let mut tools = plain();
    tools.extend(asking());
    tools.extend(working());
    tools.extend(special());
    if is_changed {
        tools.push(tool("test_dynamic_tool", "is there for now", &json!({})));
    }
    tools
}

fn plain() -> Vec<Value> {
    let none = json!({});
    [
        ("test_simple_text", "answers with a text"),
        ("test_image_content", "answers with an image"),
        ("test_audio_content", "answers with a sound"),
        ("test_embedded_resource", "answers with a resource"),
        ("test_multiple_content_types", "answers with several kinds of content"),
        ("test_error_handling", "always fails"),
        ("test_tool_with_logging", "logs three times"),
        ("test_logging_tool", "logs at every level"),
        ("log_everything", "logs at every level"),
        ("test_tool_with_progress", "makes progress in three steps"),
        ("test_reconnection", "breaks the connection before it answers"),
        ("test_trigger_tool_change", "changes the list of tools"),
        ("test_trigger_prompt_change", "changes the list of prompts"),
        ("test_trigger_resource_change", "changes the list of resources"),
        ("what_was_seen", "tells what the server was told besides calls"),
        ("echo_arguments", "answers with its arguments as they were written"),
    ]
    .into_iter()
    .map(|(name, description)| tool(name, description, &none))
    .collect()
}

fn asking() -> Vec<Value> {
    let mut tools = vec![
        tool("test_sampling", "has the client's model asked", &json!({ "prompt": text() })),
        tool("test_elicitation", "has the user asked", &json!({ "message": text() })),
    ];
    let none = json!({});
    let others = [
        ("test_elicitation_sep1034_defaults", "has the user asked, with defaults"),
        ("test_elicitation_sep1330_enums", "has the user asked, with choices"),
        ("ask_roots", "asks for the client's roots"),
        ("ask_visit", "asks the user to visit a page"),
        ("test_missing_capability", "needs sampling"),
        ("test_streaming_elicitation", "makes progress, then asks"),
        ("test_input_required_result_elicitation", "asks for a name"),
        ("test_input_required_result_sampling", "asks for a capital"),
        ("test_input_required_result_list_roots", "asks for roots"),
        ("test_input_required_result_request_state", "asks, and has to be reminded of it"),
        ("test_input_required_result_tampered_state", "asks, and looks at what it is reminded of"),
        ("test_input_required_result_multiple_inputs", "asks three things at once"),
        ("test_input_required_result_multi_round", "asks twice"),
        ("test_input_required_result_capabilities", "asks what it may"),
    ];
    tools.extend(others.into_iter().map(|(name, description)| tool(name, description, &none)));
    tools
}

fn working() -> Vec<Value> {
    let none = json!({});
    vec![
        tool("greet", "says hello", &json!({ "name": text() })),
        tool("slow_compute", "computes for a while", &json!({ "seconds": number(), "label": text() })),
        tool("failing_job", "fails after a while", &none),
        tool("protocol_error_job", "breaks after a while", &none),
        tool("confirm_delete", "asks before it deletes", &json!({ "filename": text() })),
        tool("multi_input", "asks two things while it works", &none),
        tool("test_tool_with_task", "asks, then works", &none),
        tool(
            "long_work",
            "works, and can be cancelled",
            &json!({ "ms": number(), "steps": number(), "mark": text() }),
        ),
        tool("touch_resource", "changes a resource", &json!({ "uri": text() })),
        tool(
            "asked_effect",
            "asks, and then does what `effect` does",
            &json!({ "reference": text(), "ms": number() }),
        ),
        tool(
            "effect",
            "does something that must not be done twice, and says so `ms` later",
            &json!({ "reference": text(), "ms": number() }),
        ),
        tool("say_custom", "says something that no specification has", &json!({ "word": text() })),
        tool("word_for_word", "answers with this result, word for word", &json!({ "result": text() })),
        tool(
            "misbehave",
            "does what servers should not do",
            &json!({ "how": text(), "reference": text(), "ms": number() }),
        ),
    ]
}

fn special() -> Vec<Value> {
    let region = json!({ "region": { "type": "string", "x-mcp-header": "Region" } });
    let sum =
        json!({ "type": "object", "properties": { "sum": { "type": "integer" } }, "required": ["sum"] });
    let mut structured = tool("structured_sum", "adds", &json!({ "a": number(), "b": number() }));
    structured["outputSchema"] = sum;
    structured["annotations"] = json!({ "readOnlyHint": true, "x-vendor": { "digits": 1.50 } });
    vec![
        tool("test_header_tool", "has an argument that is a header too", &region),
        structured,
        schema_2020_12(),
    ]
}

fn schema_2020_12() -> Value {
    let address = json!({
        "$anchor": "addressDef",
        "type": "object",
        "properties": { "street": text(), "city": text() },
    });
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": { "address": address },
        "properties": {
            "name": text(),
            "address": { "$ref": "#/$defs/address" },
            "contactMethod": { "type": "string", "enum": ["phone", "email"] },
            "phone": text(),
            "email": text(),
        },
        "allOf": [{ "anyOf": [{ "required": ["phone"] }, { "required": ["email"] }] }],
        "if": { "properties": { "contactMethod": { "const": "phone" } }, "required": ["contactMethod"] },
        "then": { "required": ["phone"] },
        "else": { "required": ["email"] },
        "additionalProperties": false,
    });
    json!({
        "name": "json_schema_2020_12_tool",
        "description": "Tool with JSON Schema 2020-12 features",
        "inputSchema": schema,
    })
}

/// All prompts; one comes and goes.
pub(crate) fn prompts(is_changed: bool) -> Vec<Value> {
    let prompt = |name: &str, arguments: &[&str]| {
        let argument = |name: &&str| json!({ "name": name, "description": "an argument", "required": true });
        let arguments: Vec<Value> = arguments.iter().map(argument).collect();
        json!({ "name": name, "description": "a prompt", "arguments": arguments, "x-vendor": 1.50 })
    };
    let mut prompts = vec![
        prompt("test_simple_prompt", &[]),
        prompt("test_prompt_with_arguments", &["arg1", "arg2"]),
        prompt("test_prompt_with_embedded_resource", &["resourceUri"]),
        prompt("test_prompt_with_image", &[]),
        prompt("test_input_required_result_prompt", &[]),
        prompt("word_for_word", &["result"]),
    ];
    if is_changed {
        prompts.push(prompt("test_dynamic_prompt", &[]));
    }
    prompts
}

/// All resources; one comes and goes.
pub(crate) fn resources(is_changed: bool) -> Vec<Value> {
    let resource = |uri: &str, mime: &str| {
        let name = uri.trim_start_matches("test://");
        json!({ "uri": uri, "name": name, "description": "a resource", "mimeType": mime, "x-vendor": 1.50 })
    };
    let mut resources = vec![
        resource("test://static-text", "text/plain"),
        resource("test://static-binary", "image/png"),
        resource("test://watched-resource", "text/plain"),
        resource("test://question", "application/json"),
    ];
    if is_changed {
        resources.push(resource("test://template/now/data", "application/json"));
    }
    resources
}

pub(crate) fn templates() -> Vec<Value> {
    let template = |uri: &str, name: &str, mime: &str| json!({ "uriTemplate": uri, "name": name, "description": "a template", "mimeType": mime });
    vec![
        template("test://template/{id}/data", "data", "application/json"),
        template("test://word/{word}", "word for word", "application/json"),
    ]
}
