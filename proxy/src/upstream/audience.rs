//! Who hears what a server says of its own accord, and answers what it asks then.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock, Weak},
};

use holdfast_store::Text;

use super::Question;

/// A notification of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remark {
    pub(crate) method: String,
    /// Its `params`, as they came.
    pub(crate) params: Option<Text>,
}

/// Whose process or session something comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sharer {
    /// Everybody's.
    All,
    /// The one agent's of this channel.
    Channel(Arc<str>),
    /// All agents' of this principal.
    Principal(Arc<str>),
}

/// Where something comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The server's name.
    pub(crate) server: Arc<str>,
    pub(crate) sharer: Sharer,
}

/// What holds for a server beyond the life of one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The least severe level of log messages that any client has asked for.
    pub(crate) level: Option<String>,
    /// The resources whose updates any client wants, as the server names them.
    pub(crate) resources: BTreeSet<String>,
}

/// Hears what belongs to no request. Called from tasks that read connections: it must not block.
pub(crate) trait Audience: Send + Sync {
    /// A server said something.
    fn remarked(&self, origin: &Origin, remark: &Remark);

    /// A server asks something; whoever takes the question answers or refuses it.
    fn asked(&self, origin: &Origin, question: Arc<Question>);

    /// What a new connection to a server has to be told.
    fn standing(&self, origin: &Origin) -> Standing;
}

/// The audience, once it is there.
#[derive(Clone, Default)]
pub(super) struct Audiences(Arc<OnceLock<Weak<dyn Audience>>>);

impl Audiences {
    pub(super) fn set(&self, audience: Weak<dyn Audience>) {
        // Whoever was first stays.
        let _ = self.0.set(audience);
    }

    pub(super) fn get(&self) -> Option<Arc<dyn Audience>> {
        self.0.get().and_then(Weak::upgrade)
    }
}
