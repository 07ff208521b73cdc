//! Cancellations by id, which find their request even when they come first.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

/// How long a cancellation waits for its request.
const EARLY: Duration = Duration::from_secs(5);
const EARLY_MOST: usize = 256;

/// Requests that `notifications/cancelled` can reach: those of one client whose ids are its own (a session, a bridge).
#[derive(Debug, Default)]
pub(super) struct Waiting {
    state: Mutex<Waits>,
}

#[derive(Debug, Default)]
struct Waits {
    running: HashMap<(String, String), CancellationToken>,
    /// Cancellations that overtook their request on another connection, with the time of their arrival.
    early: Vec<((String, String), Instant)>,
}

/// A request that can be cancelled until this is dropped.
#[derive(Debug)]
pub(super) struct Wait {
    waiting: Arc<Waiting>,
    key: (String, String),
    token: CancellationToken,
}

impl Waiting {
    /// Registers the request `id` (a JSON text) of `channel`.
    pub(super) fn enter(self: &Arc<Self>, channel: &str, id: &str, now: Instant) -> Wait {
        let key = (channel.to_owned(), canonical(id));
        let token = CancellationToken::new();
        let mut state = self.lock();
        state.early.retain(|(_, arrived)| now.saturating_duration_since(*arrived) < EARLY);
        if let Some(at) = state.early.iter().position(|(early, _)| *early == key) {
            state.early.swap_remove(at);
            token.cancel();
        }
        state.running.insert(key.clone(), token.clone());
        drop(state);
        Wait { waiting: self.clone(), key, token }
    }

    /// Cancels the request `id` of `channel`, or the one that is still to arrive under that id.
    pub(super) fn cancel(&self, channel: &str, id: &str, now: Instant) {
        let key = (channel.to_owned(), canonical(id));
        let mut state = self.lock();
        match state.running.get(&key) {
            Some(token) => token.cancel(),
            None => {
                state.early.retain(|(_, arrived)| now.saturating_duration_since(*arrived) < EARLY);
                if state.early.len() < EARLY_MOST {
                    state.early.push((key, now));
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waits> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wait {
    /// Fires on cancellation.
    pub(super) fn token(&self) -> &CancellationToken {
        &self.token
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.waiting.lock().running.remove(&self.key);
    }
}

/// One spelling for one id: strings may be escaped in several ways.
fn canonical(id: &str) -> String {
    match serde_json::from_str::<serde_json::Value>(id) {
        Ok(value) => value.to_string(),
        Err(_) => id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancellation_finds_its_request_even_when_it_comes_first() {
        let waiting = Arc::new(Waiting::default());
        let now = Instant::now();
        let wait = waiting.enter("c", r#""a""#, now);
        waiting.cancel("other", r#""a""#, now);
        assert!(!wait.token().is_cancelled());
        waiting.cancel("c", r#""\u0061""#, now);
        assert!(wait.token().is_cancelled());
        drop(wait);

        waiting.cancel("c", "7", now);
        assert!(waiting.enter("c", "7", now).token().is_cancelled());
        assert!(!waiting.enter("c", "7", now).token().is_cancelled());
        waiting.cancel("c", "8", now);
        assert!(!waiting.enter("c", "8", now + EARLY).token().is_cancelled());
    }
}
