//! How a connection is opened in either era, and what its server says of itself then.

use std::{collections::BTreeSet, sync::Arc};

use holdfast_store::Text;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Link, NoAnswer, Wire};
use crate::{
    upstream::{
        Refused, Remark, Unsent,
        era::{self, Era, Opening},
    },
    wire,
};

/// Why a connection could not be opened.
#[derive(Debug)]
pub(in crate::upstream) enum NotOpen {
    /// The server ended over the wrong beginning: a new connection that begins like this may do better.
    Begin(Opening),
    /// It will not do better at once.
    Unsent(Unsent),
}

/// What the server said of itself when the connection was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::upstream) struct Offer {
    pub(in crate::upstream) opening: Opening,
    /// The whole result of `initialize` or `server/discover`.
    pub(in crate::upstream) about: Arc<Value>,
}

impl Offer {
    fn new(opening: Opening, about: Value) -> Self {
        Self { opening, about: Arc::new(about) }
    }

    /// Whether it announces changes of this list.
    fn announces(&self, list: &str) -> bool {
        self.about["capabilities"][list]["listChanged"] == true
    }

    /// The lists that a new process may have changed, as it would have announced them.
    pub(in crate::upstream) fn changes(&self) -> impl Iterator<Item = Remark> {
        let lists = [("prompts", "prompts"), ("resources", "resources")];
        let offered =
            lists.into_iter().filter(|(capability, _)| self.about["capabilities"][capability].is_object());
        offered.map(|(_, list)| Remark { method: format!("notifications/{list}/list_changed"), params: None })
    }

    /// What a modern server is asked to tell us, as the members of a subscription.
    pub(super) fn wanted(&self, resources: &BTreeSet<String>) -> Option<String> {
        let mut wanted = Map::new();
        for (list, name) in [
            ("tools", "toolsListChanged"),
            ("prompts", "promptsListChanged"),
            ("resources", "resourcesListChanged"),
        ] {
            if self.announces(list) {
                wanted.insert(name.into(), true.into());
            }
        }
        if !resources.is_empty() {
            wanted.insert("resourceSubscriptions".into(), resources.iter().cloned().collect());
        }
        (!wanted.is_empty()).then(|| format!(r#""notifications":{}"#, Value::Object(wanted)))
    }
}

/// What the next life has to know of a conversation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::upstream) struct Agreed {
    pub(in crate::upstream) era: Era,
    pub(in crate::upstream) offer: Offer,
    /// The definitions of the tools that were listed last: a server that is busy with a call may not list them for long.
    pub(in crate::upstream) tools: Vec<Value>,
}

impl Link {
    /// Agrees on an era, beginning with `first`, and with the other one if the server refuses that.
    ///
    /// `initialize` comes first by default: servers of either era answer it, where many old ones are mute to
    /// `server/discover`; and a session's streams can be resumed, where a broken modern stream loses its request.
    ///
    /// `capabilities` is what `initialize` declares, an object text.
    pub(in crate::upstream) async fn open(
        &self,
        first: Opening,
        capabilities: &str,
    ) -> Result<Offer, NotOpen> {
        let refusal = match self.begin(first, capabilities).await {
            Ok(offer) => return Ok(offer),
            Err(NoAnswer::Refused(refusal)) if may_begin_otherwise(&refusal) => refusal,
            Err(error) => return Err(NotOpen::Unsent(self.unsent(error))),
        };
        match self.begin(first.other(), capabilities).await {
            Ok(offer) => Ok(offer),
            Err(NoAnswer::Refused(other)) => {
                let mut unsent = self.unsent(NoAnswer::Refused(refusal));
                unsent.message.push_str(&format!("; and {:?} with {}", first.other(), &*other.error));
                Err(NotOpen::Unsent(unsent))
            }
            // Servers of one era may end when they are spoken to in the other.
            Err(_) if self.over().is_cancelled() => Err(NotOpen::Begin(first.other())),
            Err(error) => Err(NotOpen::Unsent(self.unsent(error))),
        }
    }

    async fn begin(&self, opening: Opening, capabilities: &str) -> Result<Offer, NoAnswer> {
        match opening {
            Opening::Initialize => self.initialize(capabilities).await,
            Opening::Discover => self.discover().await,
        }
    }

    async fn initialize(&self, capabilities: &str) -> Result<Offer, NoAnswer> {
        let members = format!(
            r#""protocolVersion":"{}","capabilities":{capabilities},"clientInfo":{}"#,
            era::NEWEST_LEGACY,
            era::client_info()
        );
        let result: Value = read(&self.request_as(&Era::Opening, "initialize", &members).await?)?;
        let version = result["protocolVersion"].as_str().unwrap_or(era::NEWEST_LEGACY);
        let agreed = if version == era::MODERN { Era::Modern } else { Era::Legacy(version.into()) };
        if version != era::MODERN && !era::LEGACY.contains(&version) {
            tracing::warn!(target: "upstream", version, "the server chose a protocol version we do not know");
        }
        self.agree(&agreed);
        if let Wire::Web(web) = &self.wire {
            web.agreed(&agreed);
        }
        // Some servers refuse requests until they have seen this, so by HTTP it has to arrive first.
        let initialized = wire::notification("notifications/initialized", "{}");
        match &self.wire {
            Wire::Pipe(pipe) => pipe.write(None, initialized),
            Wire::Web(web) => web.clone().tell(initialized, agreed).await,
        }
        Ok(Offer::new(Opening::Initialize, result))
    }

    async fn discover(&self) -> Result<Offer, NoAnswer> {
        let result: Value = read(&self.request_as(&Era::Modern, "server/discover", "").await?)?;
        let versions = result["supportedVersions"].as_array();
        if versions.is_some_and(|versions| !versions.iter().any(|version| version == era::MODERN)) {
            let message = format!("server/discover names only the versions {}", result["supportedVersions"]);
            let error = wire::error_member(wire::METHOD_NOT_FOUND, &message, None);
            return Err(NoAnswer::Refused(Refused {
                error,
                code: Some(wire::METHOD_NOT_FOUND),
                status: None,
                retry_after_ms: None,
            }));
        }
        self.agree(&Era::Modern);
        Ok(Offer::new(Opening::Discover, result))
    }
}

/// Errors of the server itself or of its gates would meet the other beginning too.
fn may_begin_otherwise(refusal: &Refused) -> bool {
    !matches!(refusal.status, Some(401 | 403 | 407 | 429 | 500..))
}

fn read(result: &Text) -> Result<Value, NoAnswer> {
    serde_json::from_str(result)
        .map_err(|error| NoAnswer::Gone(format!("its answer cannot be read: {error}")))
}
