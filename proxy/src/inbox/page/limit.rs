//! How often somebody may guess a token, at the page and at the API together.
//!
//! Each address has a number of its own: whoever guesses locks out nobody elsewhere, and tokens are too long for guesses
//! from many addresses to get anywhere. Whoever has shown a token here before is not kept waiting by a neighbour at the
//! same address; that token is no guess.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Wrong tokens from one address in one window.
const MOST: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses and tokens that are remembered; beyond that they are all forgotten.
const REMEMBERED: usize = 10_000;

/// Wrong guesses of the last minute, and who needs no guess.
#[derive(Default)]
pub(in super::super) struct Guesses(Mutex<Window>);

#[derive(Default)]
struct Window {
    begun: Option<Instant>,
    by_address: HashMap<Option<IpAddr>, u32>,
    known: HashSet<(Option<IpAddr>, [u8; 32])>,
}

impl Guesses {
    /// How long `from` must wait before the next guess.
    pub(in super::super) fn must_wait(&self, from: Option<IpAddr>) -> Option<Duration> {
        let mut window = self.lock();
        let left = WINDOW.checked_sub(window.begun?.elapsed());
        let Some(left) = left else {
            window.begun = None;
            window.by_address.clear();
            return None;
        };
        let wrong = window.by_address.get(&place(from)).copied().unwrap_or(0);
        (wrong >= MOST).then_some(left)
    }

    /// A guess was wrong.
    pub(in super::super) fn wrong(&self, from: Option<IpAddr>) {
        let mut window = self.lock();
        window.begun.get_or_insert_with(Instant::now);
        if window.by_address.len() >= REMEMBERED {
            window.by_address.clear();
        }
        *window.by_address.entry(place(from)).or_default() += 1;
    }

    /// The token with this hash was right.
    pub(in super::super) fn right(&self, from: Option<IpAddr>, hash: [u8; 32]) {
        let mut window = self.lock();
        if window.known.len() >= REMEMBERED {
            window.known.clear();
        }
        window.known.insert((place(from), hash));
    }

    /// Whether `from` has shown this token before.
    pub(in super::super) fn knows(&self, from: Option<IpAddr>, hash: [u8; 32]) -> bool {
        self.lock().known.contains(&(place(from), hash))
    }

    fn lock(&self) -> MutexGuard<'_, Window> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever has one IPv6 address has the 2^64 beside it as well.
fn place(from: Option<IpAddr>) -> Option<IpAddr> {
    from.map(|address| match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
        address @ IpAddr::V4(_) => address,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn only_the_guesser_waits() {
        let guesses = Guesses::default();
        for _ in 0..MOST {
            assert_eq!(guesses.must_wait(at("192.0.2.1")), None);
            guesses.wrong(at("192.0.2.1"));
        }
        assert!(guesses.must_wait(at("192.0.2.1")).is_some_and(|left| left <= WINDOW));
        assert!(guesses.must_wait(at("::ffff:192.0.2.1")).is_some(), "the same one, written otherwise");
        assert_eq!(guesses.must_wait(at("192.0.2.2")), None);
        assert_eq!(guesses.must_wait(None), None);
    }

    #[test]
    fn one_network_is_one_guesser() {
        let guesses = Guesses::default();
        (0..MOST).for_each(|n| guesses.wrong(at(&format!("2001:db8::{n:x}"))));
        assert!(guesses.must_wait(at("2001:db8::ffff")).is_some());
        assert_eq!(guesses.must_wait(at("2001:db8:0:1::1")), None);
    }

    #[test]
    fn who_was_here_before_is_known_by_address_and_token() {
        let guesses = Guesses::default();
        guesses.right(at("192.0.2.1"), [1; 32]);
        assert!(guesses.knows(at("192.0.2.1"), [1; 32]));
        assert!(!guesses.knows(at("192.0.2.1"), [2; 32]));
        assert!(!guesses.knows(at("192.0.2.2"), [1; 32]));
    }
}
