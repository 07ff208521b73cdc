//! How often somebody may guess a token.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Wrong tokens from one address, and from all of them, in one window.
const MOST: (u32, u32) = (10, 100);
const WINDOW: Duration = Duration::from_secs(60);

/// Wrong guesses of the last minute.
#[derive(Default)]
pub(super) struct Guesses(Mutex<Window>);

#[derive(Default)]
struct Window {
    begun: Option<Instant>,
    by_address: HashMap<Option<IpAddr>, u32>,
    all: u32,
}

impl Guesses {
    /// How long `from` must wait before the next guess.
    pub(super) fn must_wait(&self, from: Option<IpAddr>) -> Option<Duration> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = window.begun?;
        let left = WINDOW.checked_sub(begun.elapsed());
        let Some(left) = left else {
            *window = Window::default();
            return None;
        };
        let own = window.by_address.get(&from).copied().unwrap_or(0);
        (own >= MOST.0 || window.all >= MOST.1).then_some(left)
    }

    /// A guess was wrong.
    pub(super) fn wrong(&self, from: Option<IpAddr>) {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        window.begun.get_or_insert_with(Instant::now);
        *window.by_address.entry(from).or_default() += 1;
        window.all += 1;
    }
}
