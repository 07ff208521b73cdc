//! Another configuration for running servers: what is unchanged goes on, the rest ends in order and begins anew.
//!
//! A server that leaves or changes takes no new calls by its old way at once. Those in flight there may end within
//! [`LAST_ORDERS`]; then its processes end, and only then does what has its name now begin: two of them never meet.

use std::{
    collections::HashMap,
    sync::{Arc, MutexGuard},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Client, HealthState, Sharer, Speaks, Upstream, Upstreams,
    instance::Instance,
    server::{Door, Instances, stop_all},
    shared::Shared,
};
use crate::config::{ServerConfig, Share, Transport};

/// How long calls in flight may take to end when their server leaves or changes.
const LAST_ORDERS: Duration = Duration::from_secs(60);
/// By then a dispatch that has just been given the old way is in flight there.
const SETTLE: Duration = Duration::from_millis(100);

/// What another configuration has done to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was not there.
    Added,
    /// It is not there any more.
    Removed,
    /// It is started or connected to anew.
    Restarted,
    /// Only settings have changed that its processes and sessions do not know of.
    Adjusted,
}

impl Fate {
    /// In a word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Restarted => "restarted",
            Self::Adjusted => "adjusted",
        }
    }
}

impl Upstreams {
    /// Puts `servers` in the place of those that are configured. Waits for nothing. Says what became of whom; of
    /// servers that are as they were, nothing. Needs a tokio runtime.
    pub(crate) fn replace(&self, servers: &[ServerConfig]) -> Vec<(String, Fate)> {
        let mut fates = Vec::new();
        let mut away = self.away();
        let mut all = self.all.write().expect("nothing panics while it holds the list");
        let mut before: HashMap<String, Arc<Upstream>> =
            all.drain(..).map(|upstream| (upstream.name().to_owned(), upstream)).collect();
        for server in servers {
            let name = server.name.clone();
            let (upstream, fate) = match before.remove(&name).or_else(|| away.remove(&name)) {
                Some(upstream) => {
                    let fate = self.turn(&upstream, server);
                    (upstream, fate)
                }
                None => (
                    Upstream::start(server, self.common.clone(), (Vec::new(), &self.ready)),
                    Some(Fate::Added),
                ),
            };
            fates.extend(fate.map(|fate| (name, fate)));
            all.push(upstream);
        }
        for (name, upstream) in before {
            self.end(&upstream, None);
            away.insert(name.clone(), upstream);
            fates.push((name, Fate::Removed));
        }
        drop((all, away));
        if !fates.is_empty() {
            self.touch();
        }
        fates
    }

    /// The server of this name; one that takes no calls where the configuration has none, known as `identity`.
    pub(crate) fn or_absent(&self, name: &str, identity: &str) -> Arc<Upstream> {
        if let Some(upstream) = self.get(name) {
            return upstream;
        }
        let absent = || {
            // Never started: only the identity is ever looked at.
            let transport =
                Transport::Stdio { command: String::new(), args: Vec::new(), env: Vec::new(), cwd: None };
            let config = ServerConfig::plain(name.to_owned(), transport);
            let mut shared = Shared::new(config, self.common.clone());
            shared.identity = identity.into();
            Upstream::absent(shared)
        };
        self.away().entry(name.to_owned()).or_insert_with(absent).clone()
    }

    fn away(&self) -> MutexGuard<'_, HashMap<String, Arc<Upstream>>> {
        self.away.lock().expect("nothing panics while it holds the map")
    }

    /// Makes `upstream` what `config` says; none where it is that already.
    fn turn(&self, upstream: &Upstream, config: &ServerConfig) -> Option<Fate> {
        let (old, was_open) = (upstream.shared(), upstream.instances().door == Door::Open);
        let before = old.config();
        if was_open && *before == *config {
            return None;
        }
        if was_open
            && before.transport == config.transport
            && before.share == config.share
            && before.http == config.http
        {
            old.configure(config.clone());
            return Some(Fate::Adjusted);
        }
        let shared = Arc::new(Shared::new(config.clone(), self.common.clone()));
        if was_open && shared.identity == old.identity {
            // Another header or variable: most likely the same tools, which agents need not miss meanwhile.
            shared.inherit(&old);
        }
        self.end(upstream, Some(shared));
        Some(if was_open { Fate::Restarted } else { Fate::Added })
    }

    /// Ends what is there, in the background. `next` takes its place in the same moment, and begins once that has ended.
    fn end(&self, upstream: &Upstream, next: Option<Arc<Shared>>) {
        let ended = CancellationToken::new();
        let door = if next.is_some() { Door::Open } else { Door::Away };
        let (shared, before) = {
            let mut instances = upstream.instances();
            let new = Instances { after: ended.clone(), ..Instances::none(door) };
            let before = std::mem::replace(&mut *instances, new);
            let old = upstream.shared();
            if let Some(next) = next {
                *upstream.shared.write().expect("nothing panics while it holds the server") = next.clone();
                if next.config().share == Share::All {
                    instances.of(Sharer::All, Speaks::Legacy, &next, &Client::unknown());
                }
            }
            (old, before)
        };
        let stopped = self.stopped.clone();
        self.leaving.spawn(async move {
            before.after.cancelled().await;
            tokio::select! {
                () = last_orders(before.by_sharer.values()) => {}
                () = stopped.cancelled() => {}
            }
            stop_all(before.by_sharer.into_values()).await;
            shared.report(HealthState::Stopped, None);
            ended.cancel();
        });
    }
}

/// Waits until no call is in flight any more, or for as long as that may take.
async fn last_orders(instances: impl Iterator<Item = &Arc<Instance>> + Clone) {
    let until = Instant::now() + LAST_ORDERS;
    sleep(SETTLE).await;
    while Instant::now() < until && instances.clone().any(|instance| instance.is_busy()) {
        sleep(Duration::from_millis(20)).await;
    }
}
