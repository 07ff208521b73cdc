//! What a legacy client said about itself at `initialize` and set since: kept with its session, whole.

use std::{collections::BTreeSet, sync::Arc};

use holdfast_store::{KEEP_VALUE_MOST, Text};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{era, problem::Problem, surface::Surface};
use crate::upstream::{Client, Speaks};

/// Bytes of capabilities and client information; what else is kept of a session fits beside it.
const DECLARED_MOST: usize = KEEP_VALUE_MOST - (16 << 10);

/// A legacy client, as its session remembers it. Members that are added must have a default: sessions are read back by
/// later versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Guest {
    /// Its name.
    pub(super) client: String,
    /// The version that the handshake ended up with.
    pub(super) protocol: String,
    /// The `capabilities` that it declared, with every member.
    pub(super) capabilities: Text,
    /// Its `clientInfo`, with every member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) info: Option<Text>,
    /// The level that it set with `logging/setLevel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) log_level: Option<String>,
    /// The resources whose updates it wants, by server.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) subscribed: BTreeSet<(String, String)>,
    /// What it is given where a call waits for a person: follows from the rest.
    #[serde(skip, default = "nothing_known")]
    pub(super) surface: Surface,
}

impl Guest {
    /// By the parameters of `initialize`.
    ///
    /// # Errors
    /// Where it declares more than is kept of a client.
    pub(super) fn of_handshake(client: &str, params: &Map<String, Value>) -> Result<Self, Problem> {
        let requested = params.get("protocolVersion").and_then(Value::as_str).unwrap_or_default();
        let guest = Self {
            client: client.to_owned(),
            protocol: era::negotiate(requested).to_owned(),
            capabilities: params
                .get("capabilities")
                .map_or_else(|| Text::of(&Map::<String, Value>::new()), Text::of),
            info: params.get("clientInfo").map(Text::of),
            log_level: None,
            subscribed: BTreeSet::new(),
            surface: Surface::of_handshake(params),
        };
        if guest.capabilities.len() + guest.info.as_ref().map_or(0, |info| info.len()) > DECLARED_MOST {
            let message =
                format!("capabilities and clientInfo have more than {DECLARED_MOST} bytes together");
            return Err(Problem::invalid_params("invalid-arguments", message));
        }
        Ok(guest)
    }

    /// What servers are told about it.
    pub(super) fn as_client(&self) -> Arc<Client> {
        let (capabilities, log_level) = (self.capabilities.clone(), self.log_level.clone());
        Arc::new(Client { speaks: Speaks::Legacy, capabilities, log_level })
    }

    /// As it was read back.
    pub(super) fn restored(self) -> Self {
        let declared = Map::from_iter([
            ("protocolVersion".to_owned(), Value::from(&*self.protocol)),
            ("capabilities".to_owned(), self.capabilities.value()),
        ]);
        Self { surface: Surface::of_handshake(&declared), ..self }
    }
}

fn nothing_known() -> Surface {
    Surface::Result
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn handshake(params: &Value) -> Result<Guest, Problem> {
        Guest::of_handshake("claude", params.as_object().expect("an object"))
    }

    #[test]
    fn what_it_declared_is_read_back_whole() {
        let check = |text: &str, surface: Surface| {
            let params = crate::wire::read_strictly(text, 64).expect("JSON");
            let guest = handshake(&params).expect("small");
            let kept = serde_json::to_vec(&guest).expect("texts");
            let again = serde_json::from_slice::<Guest>(&kept).expect("what was written").restored();
            assert_eq!(again, guest, "{text}");
            assert_eq!(guest.surface, surface, "{text}");
            assert!(text.contains(&*guest.capabilities), "{text}: {:?}", guest.capabilities);
        };
        check(
            r#"{"protocolVersion":"2025-11-25","capabilities":{"z":1.50,"elicitation":{"url":{}},"a":9007199254740993},"clientInfo":{"name":"x"}}"#,
            Surface::Offer,
        );
        check(r#"{"protocolVersion":"2025-06-18","capabilities":{}}"#, Surface::Result);
        assert_eq!(&*handshake(&json!({})).expect("small").capabilities, "{}");
    }

    #[test]
    fn what_it_declares_has_a_bound() {
        let large = "x".repeat(DECLARED_MOST);
        assert!(handshake(&json!({ "capabilities": { "a": large } })).is_err());
        assert!(handshake(&json!({ "clientInfo": { "a": large } })).is_err());
        assert!(handshake(&json!({ "capabilities": { "a": "x".repeat(1_000) } })).is_ok());
    }
}
