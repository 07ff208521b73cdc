//! A request of an agent that is no call of a tool, on its way to a server: as it came, in the server's era.

use std::sync::Arc;

use holdfast_store::{Caller, Text};
use serde_json::Value;

use super::Client;

/// A request, or a notification, as an agent sent it.
#[derive(Clone, Debug)]
pub(crate) struct Relayed {
    /// For whom: decides which process or session where a server is not shared by all.
    pub(crate) caller: Caller,
    pub(crate) client: Arc<Client>,
    pub(crate) method: String,
    /// The members of `params` but for `_meta`, each as it came.
    pub(crate) members: Vec<(String, Text)>,
    /// The members of `_meta` that are the agent's own.
    pub(crate) meta: Vec<(String, Text)>,
    /// Whether the agent wants progress.
    pub(crate) progress: bool,
}

/// Members by which a modern request goes on with an earlier one; nothing before 2026-07-28 knows them.
pub(super) const ROUND: [&str; 2] = ["inputResponses", "requestState"];

impl Relayed {
    /// A request that has nothing but a method and members.
    pub(crate) fn new(
        caller: &Caller,
        client: &Arc<Client>,
        method: &str,
        members: Vec<(String, Text)>,
    ) -> Self {
        Self {
            caller: caller.clone(),
            client: client.clone(),
            method: method.to_owned(),
            members,
            meta: Vec::new(),
            progress: false,
        }
    }

    /// What `Mcp-Name` says of it (2026-07-28, "Standard Headers").
    pub(super) fn name(&self) -> Option<String> {
        let member = match self.method.as_str() {
            "prompts/get" => "name",
            "resources/read" | "resources/subscribe" | "resources/unsubscribe" => "uri",
            "tasks/get" | "tasks/update" | "tasks/cancel" | "tasks/result" => "taskId",
            _ => return None,
        };
        self.member(member)?.as_str().map(str::to_owned)
    }

    /// One member of `params`.
    pub(crate) fn member(&self, name: &str) -> Option<Value> {
        Some(self.members.iter().find(|(other, _)| other == name)?.1.value())
    }

    /// Puts a member in the place of the one of its name, or at the end.
    pub(crate) fn set(&mut self, name: &str, value: Text) {
        match self.members.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => *old = value,
            None => self.members.push((name.to_owned(), value)),
        }
    }
}

/// Something that is sent to a server and answered.
#[derive(Clone, Debug)]
pub(super) enum Parcel {
    Call(Arc<super::Dispatch>),
    Relayed(Arc<Relayed>),
}

impl Parcel {
    pub(super) fn caller(&self) -> &Caller {
        match self {
            Self::Call(dispatch) => &dispatch.caller,
            Self::Relayed(relayed) => &relayed.caller,
        }
    }

    /// For which server, where no other one of its name will do.
    pub(super) fn identity(&self) -> Option<&Arc<str>> {
        match self {
            Self::Call(dispatch) => dispatch.identity.as_ref(),
            Self::Relayed(_) => None,
        }
    }

    pub(super) fn client(&self) -> &Arc<Client> {
        match self {
            Self::Call(dispatch) => &dispatch.client,
            Self::Relayed(relayed) => &relayed.client,
        }
    }
}
