//! How the sinks are, for operators.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use holdfast_store::Millis;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::outbox::Recent;
use crate::{config::SinkConfig, driver::now};

/// All sinks.
#[derive(Default)]
pub(crate) struct Board {
    desks: Vec<Arc<Desk>>,
    recent: Arc<Recent>,
}

/// Where one courier reports.
pub(super) struct Desk {
    about: Mutex<SinkHealth>,
    /// The last entry that needs nothing any more.
    place: AtomicU64,
}

/// How one sink is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct SinkHealth {
    /// Its name.
    pub(crate) name: String,
    /// `webhook`, `slack`, `ntfy` or `command`.
    pub(crate) kind: String,
    /// Scheme and host, or the program.
    pub(crate) target: String,
    /// In a word: `ready`, `retrying`, or `off` until the next start.
    pub(crate) state: String,
    /// When it last took a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_success: Option<Millis>,
    /// When something last went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_failure: Option<Millis>,
    /// What that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_error: Option<String>,
    /// Messages that were given up since the start.
    pub(crate) given_up: u64,
    /// News that it has not heard yet, up to 1000; some may be no news to it.
    pub(crate) behind: usize,
}

impl Board {
    pub(super) fn new(sinks: &[SinkConfig], recent: Arc<Recent>) -> Self {
        let desks = sinks.iter().map(|sink| Arc::new(Desk::new(sink))).collect();
        Self { desks, recent }
    }

    /// Where the courier of the `n`-th sink reports.
    pub(super) fn desk(&self, n: usize) -> Arc<Desk> {
        self.desks[n].clone()
    }

    /// All sinks, in the order of the configuration.
    pub(crate) fn all(&self) -> Vec<SinkHealth> {
        let health = |desk: &Arc<Desk>| {
            let behind = self.recent.after(desk.place.load(Ordering::Relaxed));
            SinkHealth { behind, ..desk.about().clone() }
        };
        self.desks.iter().map(health).collect()
    }
}

impl Desk {
    fn new(sink: &SinkConfig) -> Self {
        let about = SinkHealth {
            name: sink.name.clone(),
            kind: sink.way.name().to_owned(),
            target: sink.way.to_string(),
            state: "ready".to_owned(),
            last_success: None,
            last_failure: None,
            last_error: None,
            given_up: 0,
            behind: 0,
        };
        Self { about: Mutex::new(about), place: AtomicU64::new(0) }
    }

    pub(super) fn at(&self, place: u64) {
        self.place.store(place, Ordering::Relaxed);
    }

    pub(super) fn succeeded(&self) {
        let mut about = self.about();
        about.last_success = Some(now());
        about.state = "ready".to_owned();
    }

    /// `state` is what follows.
    pub(super) fn failed(&self, what: &str, state: &str) {
        let mut about = self.about();
        about.last_failure = Some(now());
        about.last_error = Some(what.to_owned());
        about.state = state.to_owned();
    }

    pub(super) fn gave_up(&self) {
        let mut about = self.about();
        about.given_up += 1;
        about.state = "ready".to_owned();
    }

    /// A message that was waited with is no news any more.
    pub(super) fn skipped(&self) {
        self.about().state = "ready".to_owned();
    }

    fn about(&self) -> MutexGuard<'_, SinkHealth> {
        self.about.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
