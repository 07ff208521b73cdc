//! What a server is told about the client behind a request: its capabilities, as far as we can keep their promises.

use std::sync::{Arc, LazyLock};

use holdfast_store::Text;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The era in which a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Speaks {
    /// Before 2026-07-28: with `initialize`.
    Legacy,
    /// 2026-07-28.
    Modern,
}

/// A client, as it declared itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Client {
    pub(crate) speaks: Speaks,
    /// Its `capabilities`, a JSON object text.
    pub(crate) capabilities: Text,
    /// The least severe level of log messages that it wants.
    pub(crate) log_level: Option<String>,
}

/// Capabilities that nobody could use through us.
const NOT_PASSED_ON: [&str; 2] = ["tasks", "experimental"];
/// An extension that we are a server of ourselves.
const TASKS: &str = "io.modelcontextprotocol/tasks";

impl Client {
    /// A client of which nothing is known.
    pub(crate) fn unknown() -> Arc<Self> {
        static UNKNOWN: LazyLock<Arc<Client>> = LazyLock::new(|| {
            Arc::new(Client { speaks: Speaks::Legacy, capabilities: Text::of(&Map::new()), log_level: None })
        });
        UNKNOWN.clone()
    }

    /// What is declared to a server on its behalf.
    pub(super) fn declared(&self) -> String {
        let Value::Object(mut capabilities) = self.capabilities.value() else { return "{}".to_owned() };
        for name in NOT_PASSED_ON {
            capabilities.shift_remove(name);
        }
        Value::Object(capabilities).to_string()
    }

    /// Whether it takes tasks of servers.
    pub(super) fn takes_tasks(&self) -> bool {
        self.capabilities.value()["extensions"][TASKS].is_object()
    }

    /// The same client, as one on whose behalf somebody waits for tasks. Only 2026-07-28 has them.
    pub(super) fn with_tasks(&self) -> Self {
        let mut capabilities = self.capabilities.value();
        if !capabilities["extensions"].is_object() {
            capabilities["extensions"] = json!({});
        }
        capabilities["extensions"][TASKS] = json!({});
        Self { speaks: Speaks::Modern, capabilities: Text::of(&capabilities), ..self.clone() }
    }

    /// The same client, as one that takes no tasks of servers: because we have promised it one of ours.
    pub(crate) fn without_tasks(&self) -> Self {
        let mut capabilities = self.capabilities.value();
        if let Some(extensions) = capabilities.get_mut("extensions").and_then(Value::as_object_mut) {
            extensions.shift_remove(TASKS);
        }
        Self { capabilities: Text::of(&capabilities), ..self.clone() }
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
    fn what_servers_are_told() {
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
        let extensions =
            r#"{"extensions":{"io.modelcontextprotocol/tasks":{},"io.modelcontextprotocol/ui":{"a":1}}}"#;
        check(extensions, extensions);
        let client = Client {
            speaks: Speaks::Modern,
            capabilities: Text::parse(extensions).expect("JSON"),
            log_level: None,
        };
        assert_eq!(
            client.without_tasks().declared(),
            r#"{"extensions":{"io.modelcontextprotocol/ui":{"a":1}}}"#
        );
    }
}
