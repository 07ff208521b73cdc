//! Waiting for something that is bound to happen.

use std::time::{Duration, Instant};

/// Longer than anything here takes; only a failing story waits for it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Returns once `done` says so.
///
/// # Panics
/// Where it does not within [`PATIENCE`]; `what` says what was waited for.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    eventually_some(what, || done().then_some(()));
}

/// Returns what `look` finds, once it finds something.
///
/// # Panics
/// Where it does not within [`PATIENCE`]; `what` says what was waited for.
pub fn eventually_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain: {what}");
        // Between two looks, so that whoever is waited for has the processor.
        std::thread::sleep(Duration::from_millis(10));
    }
}
