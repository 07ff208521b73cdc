//! What comes in and what goes out: envelopes are taken apart, everything inside stays as it was written.

use std::collections::HashMap;

use serde_json::{Map, Value, json, value::RawValue};

/// A message as it came.
pub(crate) struct Message {
    /// As it was written; none for notifications.
    pub(crate) id: Option<String>,
    /// None for answers.
    pub(crate) method: Option<String>,
    pub(crate) params: Params,
    /// `result` or `error` of an answer.
    pub(crate) answer: Option<Result<Value, Value>>,
}

/// What a request brings.
#[derive(Clone, Default)]
pub(crate) struct Params {
    /// As it was written.
    pub(crate) text: String,
    /// Without what no Rust string can hold, e.g. lone surrogates.
    pub(crate) value: Value,
}

impl Message {
    pub(crate) fn parse(text: &str) -> Option<Message> {
        let mut members: HashMap<String, &RawValue> = serde_json::from_str(text).ok()?;
        let id = members.remove("id").map(|id| id.get().to_owned());
        let method = members.remove("method").and_then(|name| serde_json::from_str(name.get()).ok());
        let params = members.remove("params").map(|params| Params::of(params.get())).unwrap_or_default();
        let result = members.remove("result").map(|result| Ok(parsed(result.get())));
        let error = members.remove("error").map(|error| Err(parsed(error.get())));
        (id.is_some() || method.is_some()).then(|| Message { id, method, params, answer: result.or(error) })
    }
}

impl Params {
    fn of(text: &str) -> Params {
        Params { text: text.to_owned(), value: parsed(text) }
    }

    /// The text of one member.
    pub(crate) fn member(&self, name: &str) -> Option<String> {
        let members: HashMap<String, &RawValue> = serde_json::from_str(&self.text).ok()?;
        members.get(name).map(|value| value.get().to_owned())
    }
}

/// As much of a text as can be read: members that cannot are left out.
fn parsed(text: &str) -> Value {
    if let Ok(value) = serde_json::from_str(text) {
        return value;
    }
    let members: HashMap<String, &RawValue> = serde_json::from_str(text).unwrap_or_default();
    members.into_iter().map(|(name, value)| (name, parsed(value.get()))).collect::<Map<_, _>>().into()
}

/// How a request ends.
pub(crate) type Outcome = Result<Answer, Failure>;

/// A result.
pub(crate) enum Answer {
    Plain(Value),
    /// Exactly this text.
    Word(String),
    /// There is no answer.
    Silence,
}

impl From<Value> for Answer {
    fn from(value: Value) -> Answer {
        Answer::Plain(value)
    }
}

/// An error, and the status it has over HTTP.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: u16,
    pub(crate) code: i64,
    pub(crate) message: String,
    pub(crate) data: Option<Value>,
}

impl Failure {
    pub(crate) fn new(status: u16, code: i64, message: &str) -> Failure {
        Failure { status, code, message: message.to_owned(), data: None }
    }

    pub(crate) fn with(mut self, data: Value) -> Failure {
        self.data = Some(data);
        self
    }

    pub(crate) fn params(message: &str) -> Failure {
        Self::new(200, -32602, message)
    }

    pub(crate) fn no_method(method: &str) -> Failure {
        Self::new(404, -32601, &format!("Method not found: {method}"))
    }

    /// The client has not declared what is needed.
    pub(crate) fn needs(capabilities: Value) -> Failure {
        Self::new(400, -32021, "Missing required client capability")
            .with(json!({ "requiredCapabilities": capabilities }))
    }

    pub(crate) fn text(&self, id: &str) -> String {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(data) = &self.data {
            error["data"] = data.clone();
        }
        format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
    }
}

/// A result's message.
pub(crate) fn result(id: &str, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

/// A notification's message.
pub(crate) fn notification(method: &str, params: &Value) -> String {
    let mut message = json!({ "jsonrpc": "2.0", "method": method });
    if !params.is_null() {
        message["params"] = params.clone();
    }
    message.to_string()
}

/// A tool's result with one text.
pub(crate) fn said(text: impl Into<String>) -> Value {
    json!({ "content": [{ "type": "text", "text": text.into() }] })
}

/// The same as an error.
pub(crate) fn failed(text: &str) -> Value {
    let mut result = said(text);
    result["isError"] = true.into();
    result
}
