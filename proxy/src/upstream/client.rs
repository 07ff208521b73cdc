//! What a server is told about the client behind a request: its capabilities, as far as we can keep their promises.

use std::sync::{Arc, LazyLock};

use holdfast_store::Text;
use serde_json::{Map, Value, json};

/// The era in which a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Speaks {
    /// Before 2026-07-28: with `initialize`.
    Legacy,
    /// 2026-07-28.
    Modern,
}

/// A client, as it declared itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) speaks: Speaks,
    /// Its `capabilities`, a JSON object text.
    pub(crate) capabilities: Text,
    /// The least severe level of log messages that it wants.
    pub(crate) log_level: Option<String>,
}

/// Capabilities that we answer for ourselves, or that nobody could use through us.
const NOT_PASSED_ON: [&str; 2] = ["tasks", "experimental"];
/// The extension that we are the server of.
const TASKS: &str = "io.modelcontextprotocol/tasks";

impl Client {
    /// A client of which nothing is known.
    pub(crate) fn unknown() -> Arc<Self> {
        static UNKNOWN: LazyLock<Arc<Client>> = LazyLock::new(|| {
            Arc::new(Client { speaks: Speaks::Legacy, capabilities: Text::of(&Map::new()), log_level: None })
        });
        UNKNOWN.clone()
    }

    /// What its requests declare to a server. Tasks are between us and the client, and between us and the server.
    pub(super) fn declared(&self) -> String {
        let Value::Object(mut capabilities) = self.capabilities.value() else { return "{}".to_owned() };
        for name in NOT_PASSED_ON {
            capabilities.remove(name);
        }
        if let Some(Value::Object(extensions)) = capabilities.get_mut("extensions") {
            extensions.remove(TASKS);
        }
        Value::Object(capabilities).to_string()
    }
}

/// What is declared where many clients share one process or session: everything that any of them may be able to do.
/// Where the one whose call it is cannot, the server is told so by an error.
pub(super) fn of_everybody() -> String {
    let all = json!({
        "roots": { "listChanged": true },
        "sampling": { "tools": {}, "context": {} },
        "elicitation": { "form": {}, "url": {} },
    });
    all.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_not_promised_to_servers() {
        let check = |capabilities: &str, expected: &str| {
            let client = Client {
                speaks: Speaks::Modern,
                capabilities: Text::parse(capabilities).expect("JSON"),
                log_level: None,
            };
            assert_eq!(client.declared(), expected);
        };
        check("{}", "{}");
        check("7", "{}");
        check(r#"{"sampling":{},"x":{"n":1.50}}"#, r#"{"sampling":{},"x":{"n":1.50}}"#);
        check(r#"{"tasks":{},"roots":{}}"#, r#"{"roots":{}}"#);
        check(
            r#"{"extensions":{"io.modelcontextprotocol/tasks":{},"io.modelcontextprotocol/ui":{"a":1}}}"#,
            r#"{"extensions":{"io.modelcontextprotocol/ui":{"a":1}}}"#,
        );
    }
}
