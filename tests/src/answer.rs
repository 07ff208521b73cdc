//! What an agent was told.

use serde_json::Value;

/// A JSON-RPC response, whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer(pub Value);

impl Answer {
    /// The `result`.
    ///
    /// # Panics
    /// Where it is an error.
    #[track_caller]
    pub fn result(&self) -> &Value {
        assert!(self.0["result"].is_object(), "{}", self.0);
        &self.0["result"]
    }

    /// The text of the first content block.
    #[track_caller]
    pub fn text(&self) -> &str {
        self.result()["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {}", self.0))
    }

    /// `structuredContent`.
    #[track_caller]
    pub fn data(&self) -> &Value {
        &self.result()["structuredContent"]
    }

    /// Whether it is a tool error.
    #[track_caller]
    pub fn is_error(&self) -> bool {
        self.result()["isError"] == true
    }

    /// The code of a JSON-RPC error.
    ///
    /// # Panics
    /// Where it is a result.
    #[track_caller]
    pub fn error_code(&self) -> i64 {
        self.0["error"]["code"].as_i64().unwrap_or_else(|| panic!("no error: {}", self.0))
    }

    /// The message of a JSON-RPC error.
    ///
    /// # Panics
    /// Where it is a result.
    #[track_caller]
    pub fn error_message(&self) -> &str {
        self.0["error"]["message"].as_str().unwrap_or_else(|| panic!("no error: {}", self.0))
    }

    /// What Holdfast says about the call: a member of `_meta` by its name after `io.holdfast/`.
    #[track_caller]
    pub fn note(&self, name: &str) -> &Value {
        &self.result()["_meta"][format!("io.holdfast/{name}")]
    }

    /// The code of Holdfast's own words; empty where the server itself answered.
    #[track_caller]
    pub fn code(&self) -> &str {
        self.note("code").as_str().unwrap_or_default()
    }

    /// The state of the call.
    #[track_caller]
    pub fn state(&self) -> &str {
        self.note("state").as_str().unwrap_or_default()
    }

    /// Whether it comes from the record.
    #[track_caller]
    pub fn replayed(&self) -> bool {
        self.note("replayed") == true
    }

    /// The id of the call.
    ///
    /// # Panics
    /// Where it has none.
    #[track_caller]
    pub fn call(&self) -> String {
        self.note("call").as_str().unwrap_or_else(|| panic!("no call id: {}", self.0)).to_owned()
    }

    /// Whether the server itself answered, and well.
    #[track_caller]
    pub fn succeeded(&self) -> bool {
        !self.is_error() && self.code().is_empty()
    }
}

/// The first call id in a text.
///
/// # Panics
/// Where there is none.
pub fn call_in(text: &str) -> String {
    let is_id = |word: &&str| word.len() == 36 && word.bytes().filter(|byte| *byte == b'-').count() == 4;
    let mut words = text.split(|c: char| !(c.is_ascii_hexdigit() || c == '-'));
    words.find(is_id).unwrap_or_else(|| panic!("no call id in {text}")).to_owned()
}
