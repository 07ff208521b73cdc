//! The two eras of the protocol as a client writes them: what goes into `_meta`, and the text of a `tools/call`.

use std::sync::Arc;

use holdfast_store::Text;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    Client, Dispatch, Relayed,
    id::RequestId,
    relay::{Parcel, ROUND},
};

/// The version that `initialize` offers; a server answers with it or with an older one.
pub(super) const NEWEST_LEGACY: &str = "2025-11-25";
/// The stateless version.
pub(super) const MODERN: &str = "2026-07-28";
/// Versions that begin with `initialize`.
pub(super) const LEGACY: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", NEWEST_LEGACY];

/// How a request is dressed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Era {
    /// Nothing is agreed: `initialize` itself.
    Opening,
    /// After `initialize`, with the version that the server chose.
    Legacy(Arc<str>),
    /// Every request says by itself what it needs to say.
    Modern,
}

/// The beginning of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
            Self::Modern => format!(r#""_meta":{{{}}}"#, modern_meta("{}", None)),
            Self::Opening | Self::Legacy(_) => String::new(),
        };
        let comma = if members.is_empty() || meta.is_empty() { "" } else { "," };
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{members}{comma}{meta}}}}}"#)
    }

    /// The text of what is sent; `round` are the members by which it goes on with an earlier request.
    pub(super) fn parcel(&self, id: RequestId, parcel: &Parcel, round: &[(String, Text)]) -> String {
        match parcel {
            Parcel::Call(dispatch) => self.call(id, dispatch, round),
            Parcel::Relayed(relayed) => self.relay(id, relayed, round),
        }
    }

    /// The text of a request of an agent: its members as they came, with the `_meta` of this era.
    fn relay(&self, id: RequestId, relayed: &Relayed, round: &[(String, Text)]) -> String {
        let method = Value::from(relayed.method.as_str());
        let mut text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{method},"params":{{"#);
        self.members(&mut text, relayed, round);
        let mut meta = String::new();
        if relayed.progress {
            push(&mut meta, r#""progressToken":"#, &id.to_string());
        }
        self.meta_of(&mut meta, &relayed.client);
        for (name, value) in relayed.meta.iter().filter(|(name, _)| is_forwarded(name)) {
            push(&mut meta, &format!("{}:", Value::from(name.as_str())), value);
        }
        if !meta.is_empty() {
            if !text.ends_with('{') {
                text.push(',');
            }
            text.push_str(r#""_meta":{"#);
            text.push_str(&meta);
            text.push('}');
        }
        text.push_str("}}");
        text
    }

    /// A notification of an agent.
    pub(super) fn notification(&self, relayed: &Relayed) -> String {
        let mut params = "{".to_owned();
        self.members(&mut params, relayed, &[]);
        if !relayed.meta.is_empty() {
            let mut meta = String::new();
            for (name, value) in relayed.meta.iter().filter(|(name, _)| is_forwarded(name)) {
                push(&mut meta, &format!("{}:", Value::from(name.as_str())), value);
            }
            if !params.ends_with('{') {
                params.push(',');
            }
            params.push_str(&format!(r#""_meta":{{{meta}}}"#));
        }
        params.push('}');
        crate::wire::notification(&relayed.method, &params)
    }

    fn members(&self, text: &mut String, relayed: &Relayed, round: &[(String, Text)]) {
        let mut members = String::new();
        let known = |name: &str| *self == Self::Modern || !ROUND.contains(&name);
        let earlier = relayed.members.iter().filter(|(name, _)| round.iter().all(|(newer, _)| newer != name));
        for (name, value) in earlier.chain(round).filter(|(name, _)| known(name)) {
            push(&mut members, &format!("{}:", Value::from(name.as_str())), value);
        }
        text.push_str(&members);
    }

    fn meta_of(&self, meta: &mut String, client: &Client) {
        if *self == Self::Modern {
            push(meta, "", &modern_meta(&client.declared(), client.log_level.as_deref()));
        }
    }

    /// The text of a `tools/call`: the arguments stand in it byte for byte, and progress is always asked for.
    fn call(&self, id: RequestId, dispatch: &Dispatch, round: &[(String, Text)]) -> String {
        let name = Value::from(dispatch.tool.as_str());
        let arguments = &*dispatch.arguments;
        let mut text = String::with_capacity(arguments.len() + 512);
        text.push_str(r#"{"jsonrpc":"2.0","id":"#);
        text.push_str(&id.to_string());
        text.push_str(r#","method":"tools/call","params":{"name":"#);
        text.push_str(&name.to_string());
        text.push_str(r#","arguments":"#);
        text.push_str(arguments);
        let extra = dispatch.extra.as_deref().and_then(crate::wire::members).unwrap_or_default();
        for (name, value) in extra {
            text.push_str(&format!(",{}:{value}", Value::from(name)));
        }
        for (name, value) in round {
            text.push_str(&format!(",{}:{}", Value::from(name.as_str()), &**value));
        }
        text.push_str(r#","_meta":{"progressToken":"#);
        text.push_str(&id.to_string());
        self.meta_of(&mut text, &dispatch.client);
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
    meta.retain(|name, _| is_forwarded(name));
    meta
}

fn is_forwarded(name: &str) -> bool {
    name != "progressToken" && !is_reserved(name)
}

/// Appends to the members of an object.
fn push(members: &mut String, name: &str, value: &str) {
    if !members.is_empty() {
        members.push(',');
    }
    members.push_str(name);
    members.push_str(value);
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

fn modern_meta(capabilities: &str, log_level: Option<&str>) -> String {
    let prefix = "io.modelcontextprotocol";
    let level =
        log_level.map_or_else(String::new, |level| format!(r#","{prefix}/logLevel":{}"#, Value::from(level)));
    format!(
        r#""{prefix}/protocolVersion":"{MODERN}","{prefix}/clientInfo":{},"{prefix}/clientCapabilities":{capabilities}{level}"#,
        client_info()
    )
}
