//! The memory of which channels have a live connection.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Which channels have connections. A channel whose client certainly holds a connection as long as it lives (a bridge;
/// a session with a notification stream) is gone when the last one closes.
#[derive(Debug, Default)]
pub(super) struct Presence {
    channels: Mutex<HashMap<String, Present>>,
}

#[derive(Debug, Default)]
struct Present {
    connections: usize,
    holds_one: bool,
}

impl Presence {
    /// A connection carried the channel's first message.
    pub(super) fn enter(&self, channel: &str) {
        self.lock().entry(channel.to_owned()).or_default().connections += 1;
    }

    /// The channel's client opened a stream that it keeps as long as it lives.
    pub(super) fn holds_one(&self, channel: &str) {
        if let Some(present) = self.lock().get_mut(channel) {
            present.holds_one = true;
        }
    }

    /// A connection that had entered has closed. True where the channel is gone with it.
    pub(super) fn leave(&self, channel: &str) -> bool {
        let mut channels = self.lock();
        let Some(present) = channels.get_mut(channel) else { return false };
        present.connections = present.connections.saturating_sub(1);
        if present.connections > 0 {
            return false;
        }
        channels.remove(channel).is_some_and(|present| present.holds_one)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Present>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_channel_that_keeps_a_connection_is_gone_with_the_last() {
        let presence = Presence::default();
        presence.enter("a");
        assert!(!presence.leave("a"));
        presence.enter("a");
        presence.enter("a");
        presence.holds_one("a");
        assert!(!presence.leave("a"));
        assert!(presence.leave("a"));
        assert!(!presence.leave("a"));
    }
}
