//! The two eras of the protocol as a client writes them: what goes into `_meta`, and the text of a `tools/call`.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Dispatch, peer::RequestId};

/// The version that `initialize` offers; a server answers with it or with an older one.
pub(super) const NEWEST_LEGACY: &str = "2025-11-25";
/// The stateless version.
pub(super) const MODERN: &str = "2026-07-28";
/// Versions that begin with `initialize`.
pub(super) const LEGACY: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", NEWEST_LEGACY];

/// How a request is dressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Era {
    /// Nothing is agreed: `initialize` itself.
    Opening,
    /// After `initialize`, with the version that the server chose.
    Legacy(Arc<str>),
    /// Every request says by itself what it needs to say.
    Modern,
}

/// The beginning of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    Initialize,
    Discover,
}

impl Opening {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Initialize => Self::Discover,
            Self::Discover => Self::Initialize,
        }
    }
}

impl Era {
    /// The text of a request. `members` are the members of `params`, without braces and without `_meta`.
    pub(super) fn request(&self, id: RequestId, method: &str, members: &str) -> String {
        let meta = match self {
            Self::Modern => format!(r#""_meta":{{{}}}"#, modern_meta()),
            Self::Opening | Self::Legacy(_) => String::new(),
        };
        let comma = if members.is_empty() || meta.is_empty() { "" } else { "," };
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{members}{comma}{meta}}}}}"#)
    }

    /// The text of a `tools/call`: the arguments stand in it byte for byte, and progress is always asked for.
    pub(super) fn call(&self, id: RequestId, dispatch: &Dispatch) -> String {
        let name = Value::from(dispatch.tool.as_str());
        let arguments = &*dispatch.arguments;
        let mut text = String::with_capacity(arguments.len() + 512);
        text.push_str(r#"{"jsonrpc":"2.0","id":"#);
        text.push_str(&id.to_string());
        text.push_str(r#","method":"tools/call","params":{"name":"#);
        text.push_str(&name.to_string());
        text.push_str(r#","arguments":"#);
        text.push_str(arguments);
        text.push_str(r#","_meta":{"progressToken":"#);
        text.push_str(&id.to_string());
        if *self == Self::Modern {
            text.push(',');
            text.push_str(&modern_meta());
        }
        for (name, value) in forwarded(dispatch) {
            text.push_str(&format!(",{}:{value}", Value::from(name)));
        }
        text.push_str("}}}");
        text
    }
}

/// `_meta` that goes along, without the names that are ours to set.
fn forwarded(dispatch: &Dispatch) -> Map<String, Value> {
    let Some(meta) = &dispatch.meta else { return Map::new() };
    let mut meta: Map<String, Value> = serde_json::from_str(meta).unwrap_or_default();
    meta.retain(|name, _| name != "progressToken" && !is_reserved(name));
    meta
}

/// Whether the protocol keeps this name of `_meta` for itself: its prefix has `mcp` or `modelcontextprotocol` as the
/// second label.
fn is_reserved(name: &str) -> bool {
    name.split_once('/')
        .is_some_and(|(prefix, _)| matches!(prefix.split('.').nth(1), Some("mcp" | "modelcontextprotocol")))
}

/// The members of `clientInfo`.
pub(super) fn client_info() -> String {
    format!(r#"{{"name":"holdfast","title":"Holdfast","version":"{}"}}"#, env!("CARGO_PKG_VERSION"))
}

fn modern_meta() -> String {
    let prefix = "io.modelcontextprotocol";
    format!(
        r#""{prefix}/protocolVersion":"{MODERN}","{prefix}/clientInfo":{},"{prefix}/clientCapabilities":{{}}"#,
        client_info()
    )
}
