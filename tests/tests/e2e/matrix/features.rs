//! The features, each as what an agent does and sees.

use std::time::Duration;

use holdfast_tests::{Exchange, Speaks, eventually};
use serde_json::{Value, json};

use super::{Trial, Way};

/// A feature and a trial of it.
pub(super) struct Feature {
    pub(super) name: &'static str,
    pub(super) works: fn(&mut Trial),
}

pub(super) const FEATURES: &[Feature] = &[
    Feature { name: "tools on several pages", works: tools },
    Feature { name: "a text, an image, a sound, resources", works: content },
    Feature { name: "structured output", works: structured },
    Feature { name: "a tool's own error", works: tool_error },
    Feature { name: "an unknown tool", works: unknown_tool },
    Feature { name: "progress", works: progress },
    Feature { name: "logging", works: logging },
    Feature { name: "sampling", works: sampling },
    Feature { name: "elicitation by a form", works: form },
    Feature { name: "elicitation by a visit", works: visit },
    Feature { name: "roots", works: roots },
    Feature { name: "three questions at once", works: several },
    Feature { name: "two rounds of questions", works: rounds },
    Feature { name: "cancellation", works: cancellation },
    Feature { name: "resources on several pages", works: resources },
    Feature { name: "templates", works: templates },
    Feature { name: "reading", works: reading },
    Feature { name: "a resource that is not there", works: no_resource },
    Feature { name: "a resource that asks", works: asking_resource },
    Feature { name: "subscriptions", works: subscriptions },
    Feature { name: "prompts on several pages", works: prompts },
    Feature { name: "prompts with arguments", works: prompt },
    Feature { name: "a prompt that asks", works: asking_prompt },
    Feature { name: "completion", works: completion },
    Feature { name: "changed lists", works: changes },
    Feature { name: "methods of their own", works: custom_method },
    Feature { name: "notifications of their own", works: custom_notifications },
    Feature { name: "tasks", works: tasks },
    Feature { name: "what the server offers", works: offers },
];

fn names(list: &Value, member: &str) -> Vec<String> {
    let entries = list.as_array().expect("a list").iter();
    entries.map(|entry| entry[member].as_str().expect("a name").to_owned()).collect()
}

impl Trial {
    /// All entries of a list, page by page.
    fn all(&mut self, method: &str, member: &str) -> Vec<Value> {
        let (mut entries, mut params) = (Vec::new(), json!({}));
        loop {
            let page = self.client.request(method, params);
            entries.extend(page.result()[member].as_array().expect("a list").iter().cloned());
            match page.result().get("nextCursor") {
                None => return entries,
                Some(cursor) => params = json!({ "cursor": cursor }),
            }
        }
    }

    /// Calls a tool, with an argument that makes the call unlike those of other trials: a client that comes and asks
    /// what another one asked who has just gone would get the same answer.
    fn call(&mut self, tool: &str, arguments: Value) -> Exchange {
        let params = self.of(tool, arguments);
        self.client.request("tools/call", params)
    }

    /// The parameters of such a call.
    fn of(&self, tool: &str, mut arguments: Value) -> Value {
        arguments["trial"] = self.mark(self.name).into();
        json!({ "name": tool, "arguments": arguments })
    }

    /// What the server says that it saw, as text.
    fn seen(&mut self) -> String {
        self.client.call("what_was_seen", json!({})).words().to_owned()
    }

    /// A word that no other trial uses.
    fn mark(&self, what: &str) -> String {
        format!("{what} {:?} {:?}", self.down, self.up).replace(['{', '}', ':', ','], "")
    }
}

fn tools(trial: &mut Trial) {
    let tools: Value = trial.all("tools/list", "tools").into();
    let names = names(&tools, "name");
    for tool in
        ["test_simple_text", "structured_sum", "misbehave", "json_schema_2020_12_tool", "holdfast_wait"]
    {
        assert_eq!(names.iter().filter(|name| *name == tool).count(), 1, "{tool}: {names:?}");
    }
    let sum = tools.as_array().into_iter().flatten().find(|tool| tool["name"] == "structured_sum");
    let sum = sum.expect("it is listed");
    assert_eq!(sum["annotations"]["x-vendor"]["digits"].to_string(), "1.5", "{sum}");
    assert_eq!(sum["outputSchema"]["required"], json!(["sum"]));
}

fn content(trial: &mut Trial) {
    let kinds = |trial: &mut Trial, tool: &str| -> Vec<String> {
        let result = trial.call(tool, json!({}));
        names(&result.result()["content"], "type")
    };
    assert_eq!(kinds(trial, "test_simple_text"), ["text"]);
    assert_eq!(kinds(trial, "test_image_content"), ["image"]);
    assert_eq!(kinds(trial, "test_audio_content"), ["audio"]);
    assert_eq!(kinds(trial, "test_multiple_content_types"), ["text", "image", "resource"]);
}

fn structured(trial: &mut Trial) {
    let sum = trial.call("structured_sum", json!({ "a": 2, "b": 3 }));
    assert_eq!(sum.result()["structuredContent"], json!({ "sum": 5 }));
}

fn tool_error(trial: &mut Trial) {
    let failed = trial.call("test_error_handling", json!({}));
    assert_eq!(failed.result()["isError"], true);
    assert_eq!(failed.words(), "This tool intentionally returns an error for testing");
}

fn unknown_tool(trial: &mut Trial) {
    let unknown = trial.call("no_such_tool", json!({}));
    assert_eq!(unknown.answer["error"]["code"], -32602, "{}", unknown.text);
}

fn progress(trial: &mut Trial) {
    let mut params = trial.of("test_tool_with_progress", json!({}));
    params["_meta"] = json!({ "progressToken": "mine" });
    let done = trial.client.request("tools/call", params);
    assert_eq!(done.words(), "progressed");
    let steps = done.said("notifications/progress");
    let steps: Vec<_> =
        steps.iter().filter(|step| step["message"].as_str().is_some_and(|m| m.ends_with("of 100"))).collect();
    let values: Vec<&Value> = steps.iter().map(|step| &step["progress"]).collect();
    assert_eq!(values, [&json!(0), &json!(50), &json!(100)], "{:?}", done.said);
    assert!(steps.iter().all(|step| step["progressToken"] == "mine" && step["total"] == 100), "{steps:?}");
}

fn logging(trial: &mut Trial) {
    let mut params = trial.of("log_everything", json!({}));
    match trial.down.speaks {
        Speaks::Legacy => {
            trial.client.request("logging/setLevel", json!({ "level": "warning" })).result();
        }
        Speaks::Modern => params["_meta"] = json!({ "io.modelcontextprotocol/logLevel": "warning" }),
    }
    let id = trial.client.ask("tools/call", params.clone());
    let levels = ["warning", "error", "critical", "alert", "emergency"];
    for level in levels {
        // On which stream they come is the server's choice in the legacy era.
        let line = trial.client.wait_for(|message| message["method"] == "notifications/message");
        assert_eq!(line["params"]["level"], level, "{line}");
        assert_eq!(line["params"]["data"], json!({ "level": level, "digits": 1 }));
    }
    trial.client.finish(id, "tools/call", params).result();
    if trial.down.speaks == Speaks::Modern {
        let quiet = trial.call("log_everything", json!({}));
        assert!(quiet.said("notifications/message").is_empty(), "{:?}", quiet.said);
    }
}

fn sampling(trial: &mut Trial) {
    let text = json!({ "type": "text", "text": "Paris, of course" });
    let sample = json!({ "role": "assistant", "content": text, "model": "none", "stopReason": "endTurn" });
    trial.client.reply_with("sampling/createMessage", sample);
    let done = trial.call("test_sampling", json!({ "prompt": "The capital of France?" }));
    assert_eq!(done.words(), "LLM response: \"Paris, of course\"");
    let [asked] = done.asked.as_slice() else { panic!("{:?}", done.asked) };
    assert_eq!(asked["params"]["messages"][0]["content"]["text"], "The capital of France?");
    assert_eq!(asked["params"]["maxTokens"], 100);
}

fn form(trial: &mut Trial) {
    let content = json!({ "username": "ana", "email": "ana@example.org" });
    trial.client.reply_with("elicitation/create", json!({ "action": "accept", "content": content }));
    let done = trial.call("test_elicitation", json!({ "message": "Who are you?" }));
    assert!(done.words().contains(r#"{"username":"ana","email":"ana@example.org"}"#), "{}", done.words());
    let [asked] = done.asked.as_slice() else { panic!("{:?}", done.asked) };
    assert_eq!(asked["params"]["message"], "Who are you?");
    assert_eq!(asked["params"]["requestedSchema"]["required"], json!(["username", "email"]));
    trial.client.reply_with("elicitation/create", json!({ "action": "decline" }));
    let declined = trial.call("test_elicitation", json!({ "message": "And now?" }));
    assert!(declined.words().contains("decline"), "{}", declined.words());
}

fn visit(trial: &mut Trial) {
    trial.client.reply_with("elicitation/create", json!({ "action": "accept" }));
    let done = trial.call("ask_visit", json!({}));
    assert!(done.words().contains("accept"), "{}", done.words());
    let [asked] = done.asked.as_slice() else { panic!("{:?}", done.asked) };
    assert_eq!(asked["params"]["mode"], "url");
    assert_eq!(asked["params"]["url"], "https://example.org/visit");
}

fn roots(trial: &mut Trial) {
    let root = json!({ "uri": "file:///home/ana", "name": "home" });
    trial.client.reply_with("roots/list", json!({ "roots": [root] }));
    let done = trial.call("ask_roots", json!({}));
    assert!(done.words().contains("file:///home/ana"), "{}", done.words());
}

fn several(trial: &mut Trial) {
    let text = json!({ "type": "text", "text": "Hello" });
    let sample = json!({ "role": "assistant", "content": text, "model": "none" });
    trial.client.reply_with("sampling/createMessage", sample);
    let name = json!({ "action": "accept", "content": { "name": "ana" } });
    trial.client.reply_with("elicitation/create", name);
    trial.client.reply_with("roots/list", json!({ "roots": [] }));
    let done = trial.call("test_input_required_result_multiple_inputs", json!({}));
    for part in ["\"ana\"", "\"Hello\"", "\"roots\""] {
        assert!(done.words().contains(part), "{}", done.words());
    }
    assert_eq!(done.asked.len(), 3, "{:?}", done.asked);
}

fn rounds(trial: &mut Trial) {
    let both = json!({ "action": "accept", "content": { "name": "ana", "color": "red" } });
    trial.client.reply_with("elicitation/create", both);
    let done = trial.call("test_input_required_result_multi_round", json!({}));
    assert_eq!(done.words(), "\"ana\" likes \"red\"");
    assert_eq!(done.asked.len(), 2, "{:?}", done.asked);
}

fn cancellation(trial: &mut Trial) {
    let mark = trial.mark("cancelled");
    let mut params = trial.of("long_work", json!({ "ms": 60_000, "steps": 600, "mark": mark }));
    params["_meta"] = json!({ "progressToken": 7 });
    let id = trial.client.ask("tools/call", params);
    trial.client.wait_for(|message| {
        message["method"] == "notifications/progress" && message["params"]["message"] == "working"
    });
    trial.client.cancel(id);
    eventually("the server hears that it is cancelled", || {
        trial.seen().contains(&json!({ "cancelled": mark }).to_string())
    });
}

fn resources(trial: &mut Trial) {
    let resources = trial.all("resources/list", "resources").into();
    let uris = names(&resources, "uri");
    for uri in ["test://static-text", "test://static-binary", "test://watched-resource", "test://question"] {
        assert_eq!(uris.iter().filter(|known| *known == uri).count(), 1, "{uri}: {uris:?}");
    }
    assert_eq!(resources[0]["x-vendor"].to_string(), "1.5");
}

fn templates(trial: &mut Trial) {
    let templates = trial.all("resources/templates/list", "resourceTemplates").into();
    let uris = names(&templates, "uriTemplate");
    assert_eq!(uris, ["test://template/{id}/data", "test://word/{word}"]);
}

fn reading(trial: &mut Trial) {
    let mut read = |uri: &str| trial.client.request("resources/read", json!({ "uri": uri })).result().clone();
    let text = read("test://static-text");
    assert_eq!(text["contents"][0]["text"], "This is the content of the static text resource.");
    assert!(read("test://static-binary")["contents"][0]["blob"].is_string());
    let data = read("test://template/42/data");
    assert_eq!(data["contents"][0]["uri"], "test://template/42/data");
    assert!(data["contents"][0]["text"].as_str().is_some_and(|text| text.contains("Data for ID: 42")));
}

fn no_resource(trial: &mut Trial) {
    let gone = trial.client.request("resources/read", json!({ "uri": "test://nothing" }));
    // -32002 before 2026-07-28, -32602 since: the server's word stands.
    let code = gone.answer["error"]["code"].as_i64();
    assert!(matches!(code, Some(-32002 | -32602)), "{}", gone.text);
    assert_eq!(gone.answer["error"]["data"]["uri"], "test://nothing", "{}", gone.text);
}

fn asking_resource(trial: &mut Trial) {
    let one = json!({ "action": "accept", "content": { "one": "this" } });
    trial.client.reply_with("elicitation/create", one);
    let read = trial.client.request("resources/read", json!({ "uri": "test://question" }));
    let text = read.result()["contents"][0]["text"].as_str().expect("a text");
    assert!(text.contains("\"this\""), "{text}");
}

/// Listens as a client of 2026-07-28; returns the request's id.
fn listen(trial: &mut Trial, notifications: &Value) -> i64 {
    let id = trial.client.ask("subscriptions/listen", json!({ "notifications": notifications }));
    let first = trial
        .client
        .wait_for(|message| message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == id);
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(first["params"]["notifications"], *notifications, "{first}");
    id
}

fn subscriptions(trial: &mut Trial) {
    let uri = "test://watched-resource";
    match trial.down.speaks {
        Speaks::Legacy => {
            trial.client.request("resources/subscribe", json!({ "uri": uri })).result();
        }
        Speaks::Modern => {
            listen(trial, &json!({ "resourceSubscriptions": [uri] }));
        }
    }
    // A stream to a server that is asked for news may open a moment later.
    eventually("the resource is told to have changed", || {
        let mut told = trial.call("touch_resource", json!({ "uri": uri })).said;
        told.extend(trial.client.rest(Duration::from_millis(100)));
        told.iter().any(|message| {
            message["method"] == "notifications/resources/updated" && message["params"]["uri"] == uri
        })
    });
    let mut told = trial.call("touch_resource", json!({ "uri": "test://static-text" })).said;
    told.retain(|message| message["params"]["uri"] != uri);
    if trial.down.speaks == Speaks::Legacy {
        trial.client.request("resources/unsubscribe", json!({ "uri": uri })).result();
        trial.client.rest(Duration::from_millis(200));
        told.extend(trial.call("touch_resource", json!({ "uri": uri })).said);
    }
    told.extend(trial.client.rest(Duration::from_millis(200)));
    let unwanted = told.iter().filter(|message| message["method"] == "notifications/resources/updated");
    let unwanted =
        unwanted.filter(|message| message["params"]["uri"] != uri || trial.down.speaks == Speaks::Legacy);
    assert_eq!(unwanted.count(), 0, "{told:?}");
}

fn prompts(trial: &mut Trial) {
    let prompts = trial.all("prompts/list", "prompts").into();
    let names = names(&prompts, "name");
    for prompt in ["test_simple_prompt", "test_prompt_with_arguments", "word_for_word"] {
        assert_eq!(names.iter().filter(|name| *name == prompt).count(), 1, "{prompt}: {names:?}");
    }
    assert_eq!(prompts[0]["x-vendor"].to_string(), "1.5");
}

fn prompt(trial: &mut Trial) {
    let arguments = json!({ "arg1": "one", "arg2": "two" });
    let params = json!({ "name": "test_prompt_with_arguments", "arguments": arguments });
    let prompt = trial.client.request("prompts/get", params);
    let text = &prompt.result()["messages"][0]["content"]["text"];
    assert_eq!(text, "Prompt with arguments: arg1='one', arg2='two'");
    let unknown = trial.client.request("prompts/get", json!({ "name": "no_such_prompt" }));
    assert_eq!(unknown.answer["error"]["code"], -32602, "{}", unknown.text);
}

fn asking_prompt(trial: &mut Trial) {
    let context = json!({ "action": "accept", "content": { "context": "a test" } });
    trial.client.reply_with("elicitation/create", context);
    let prompt = trial.client.request("prompts/get", json!({ "name": "test_input_required_result_prompt" }));
    let text = &prompt.result()["messages"][0]["content"]["text"];
    assert_eq!(text, "In this context: \"a test\"");
}

fn completion(trial: &mut Trial) {
    let mut complete = |what: Value, value: &str| {
        let argument = json!({ "name": "arg1", "value": value });
        let params = json!({ "ref": what, "argument": argument });
        trial.client.request("completion/complete", params).result()["completion"]["values"].clone()
    };
    let prompt = json!({ "type": "ref/prompt", "name": "test_prompt_with_arguments" });
    assert_eq!(complete(prompt, "par"), json!(["paris", "park", "party"]));
    let template = json!({ "type": "ref/resource", "uri": "test://template/{id}/data" });
    assert_eq!(complete(template, "12"), json!(["12", "123"]));
}

fn changes(trial: &mut Trial) {
    let lists = [
        ("toolsListChanged", "test_trigger_tool_change", "tools", "test_dynamic_tool", "name"),
        ("promptsListChanged", "test_trigger_prompt_change", "prompts", "test_dynamic_prompt", "name"),
        (
            "resourcesListChanged",
            "test_trigger_resource_change",
            "resources",
            "test://template/now/data",
            "uri",
        ),
    ];
    if trial.down.speaks == Speaks::Modern {
        let wanted: serde_json::Map<String, Value> =
            lists.iter().map(|list| (list.0.to_owned(), true.into())).collect();
        listen(trial, &wanted.into());
    }
    for (_, tool, list, entry, member) in lists {
        let is_there = |trial: &mut Trial| {
            let all = trial.all(&format!("{list}/list"), list).into();
            names(&all, member).contains(&entry.to_owned())
        };
        let before = is_there(trial);
        let method = format!("notifications/{list}/list_changed");
        // It may come before the answer, or a moment later.
        if trial.call(tool, json!({})).said(&method).is_empty() {
            trial.client.wait_for(|message| message["method"] == method);
        }
        eventually("the list has changed", || is_there(trial) != before);
        // As it was, for the next ones.
        trial.call(tool, json!({})).result();
        eventually("the list is as it was", || is_there(trial) == before);
    }
}

fn custom_method(trial: &mut Trial) {
    let params = json!({ "word": "hello", "digits": 1.50 });
    let echo = trial.client.request("x-everything/echo", params);
    assert_eq!(echo.result()["echo"]["word"], "hello", "{}", echo.text);
}

fn custom_notifications(trial: &mut Trial) {
    let said = trial.call("say_custom", json!({ "word": "hello" }));
    let said = said.said("notifications/x-everything/said");
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(said[0]["word"], "hello");
    // HTTP has no notifications from clients in 2026-07-28.
    if (trial.down.way, trial.down.speaks) == (Way::Http, Speaks::Modern) {
        return;
    }
    let mark = trial.mark("noted");
    trial.client.notify("notifications/x-everything/note", json!({ "mark": mark }));
    eventually("the server hears of it", || trial.seen().contains(&mark));
}

/// Tasks are of 2026-07-28; for all others the tool works as if there were none.
fn tasks(trial: &mut Trial) {
    let params = trial.of("slow_compute", json!({ "seconds": 0.2 }));
    let plain = trial.client.request("tools/call", params.clone());
    assert_eq!(plain.words(), "computed for 0.2 s");
    if trial.down.speaks == Speaks::Legacy || trial.up.speaks == Speaks::Legacy {
        return;
    }
    let mut declaring = params;
    let extensions = json!({ "extensions": { "io.modelcontextprotocol/tasks": {} } });
    trial.client.capabilities = extensions;
    declaring["arguments"]["label"] = "as a task".into();
    let task = trial.client.request("tools/call", declaring).result().clone();
    assert_eq!(task["resultType"], "task", "{task}");
    eventually("the task is done", || {
        let now = trial.client.request("tasks/get", json!({ "taskId": task["taskId"] }));
        now.result()["result"]["content"][0]["text"] == "computed for 0.2 s"
    });
}

fn offers(trial: &mut Trial) {
    let offered = &trial.client.hello["capabilities"];
    for (capability, member) in [
        ("tools", "listChanged"),
        ("prompts", "listChanged"),
        ("resources", "listChanged"),
        ("resources", "subscribe"),
    ] {
        assert_eq!(offered[capability][member], true, "{capability}: {offered}");
    }
    assert!(offered["completions"].is_object(), "{offered}");
    // In 2026-07-28 requests say by themselves what they want logged.
    assert!(offered["logging"].is_object() || trial.down.speaks == Speaks::Modern, "{offered}");
}
