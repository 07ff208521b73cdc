//! Who may dispatch now: concurrency, rate and line length of each tool, and the breaker of each server.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use holdfast_policy::{Limits, Rate};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The lines of all tools. The limits of a line are those of the first call that stood in it with them.
#[derive(Default)]
pub(crate) struct Slots {
    lines: Mutex<HashMap<String, Vec<Limited>>>,
}

type Limited = (Limits, Arc<Line>);

/// The right to have one dispatch out. Dropping it lets the next one go.
pub(crate) struct Slot {
    _permit: OwnedSemaphorePermit,
}

/// The line in front of one tool.
pub(crate) struct Line {
    seats: Arc<Semaphore>,
    waiting: AtomicU32,
    longest: u32,
    bucket: Option<Mutex<Bucket>>,
}

/// The line is as long as it may get.
#[derive(Debug)]
pub(crate) struct LineFull;

impl Slots {
    /// The line of a tool.
    pub(crate) fn line(&self, server: &str, tool: &str, limits: &Limits) -> Arc<Line> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let of_tool = lines.entry(format!("{server}/{tool}")).or_default();
        // Rules may give one tool several limits, by argument; each has a line of its own.
        if let Some((_, line)) = of_tool.iter().find(|(known, _)| known == limits) {
            return line.clone();
        }
        let line = Arc::new(Line::new(limits));
        of_tool.push((limits.clone(), line.clone()));
        line
    }
}

impl Line {
    fn new(limits: &Limits) -> Self {
        Self {
            seats: Arc::new(Semaphore::new(limits.concurrency as usize)),
            waiting: AtomicU32::new(0),
            longest: limits.queue,
            bucket: limits.rate.as_ref().map(|rate| Mutex::new(Bucket::new(rate, Instant::now()))),
        }
    }

    /// A slot, if one is free this moment and nobody stands in line.
    pub(crate) fn try_enter(&self) -> Option<Slot> {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let permit = self.seats.clone().try_acquire_owned().ok()?;
        self.wait_for_rate().is_none().then_some(Slot { _permit: permit })
    }

    /// A slot, first come first served.
    ///
    /// # Errors
    /// [`LineFull`] at once, where the line is as long as it may get.
    pub(crate) async fn enter(&self) -> Result<Slot, LineFull> {
        let place = Place::take(&self.waiting, self.longest)?;
        let permit = self.seats.clone().acquire_owned().await.expect("a line's semaphore is never closed");
        while let Some(wait) = self.wait_for_rate() {
            tokio::time::sleep(wait).await;
        }
        drop(place);
        Ok(Slot { _permit: permit })
    }

    /// Takes a token, or says how long to wait for one.
    fn wait_for_rate(&self) -> Option<Duration> {
        self.bucket.as_ref().and_then(|bucket| lock(bucket).take_or_wait(Instant::now()))
    }
}

/// A place in line; given up when the call goes or turns away.
struct Place<'a>(&'a AtomicU32);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicU32, longest: u32) -> Result<Self, LineFull> {
        let taken =
            waiting.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| (n < longest).then_some(n + 1));
        taken.map(|_| Self(waiting)).map_err(|_| LineFull)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A token bucket that holds at most one period's worth.
struct Bucket {
    count: f64,
    per: Duration,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn new(rate: &Rate, now: Instant) -> Self {
        let count = f64::from(rate.count);
        Self { count, per: Duration::from_millis(rate.per_ms), tokens: count, filled: now }
    }

    fn take_or_wait(&mut self, now: Instant) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.tokens = (self.tokens + passed / self.per.as_secs_f64() * self.count).min(self.count);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return None;
        }
        // Rounded up by a millisecond, so that the sleeper does not wake a moment too early again and again.
        let wait = (1.0 - self.tokens) / self.count * self.per.as_secs_f64();
        Some(Duration::from_secs_f64(wait) + Duration::from_millis(1))
    }
}

/// Stops sending to a server whose transport keeps failing. What a tool answers never counts.
#[derive(Debug)]
pub(crate) struct Breaker {
    failures: usize,
    window: Duration,
    open: Duration,
    state: Mutex<BreakerState>,
}

#[derive(Debug, Default)]
struct BreakerState {
    recent: VecDeque<Instant>,
    open_until: Option<Instant>,
}

impl Breaker {
    /// Opens for `open` after `failures` transport failures within `window`.
    pub(crate) fn new(failures: u32, window: Duration, open: Duration) -> Self {
        Self { failures: failures as usize, window, open, state: Mutex::default() }
    }

    /// How long the breaker stays open yet; none where a dispatch may go. After the pause one dispatch may try.
    pub(crate) fn closed_for(&self, now: Instant) -> Option<Duration> {
        let mut state = lock(&self.state);
        let until = state.open_until?;
        if now < until {
            return Some(until - now);
        }
        // Half open: this one goes, the others wait for its outcome for one more pause.
        state.open_until = Some(now + self.open);
        None
    }

    /// A dispatch got through to the server, whatever it answered.
    pub(crate) fn succeeded(&self) {
        let mut state = lock(&self.state);
        state.recent.clear();
        state.open_until = None;
    }

    /// A dispatch failed in transport.
    pub(crate) fn failed(&self, now: Instant) {
        let mut state = lock(&self.state);
        state.recent.push_back(now);
        while state.recent.front().is_some_and(|first| now.saturating_duration_since(*first) > self.window) {
            state.recent.pop_front();
        }
        if self.failures > 0 && state.recent.len() >= self.failures {
            state.open_until = Some(now + self.open);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_its_rate_through_and_no_more() {
        let start = Instant::now();
        let mut bucket = Bucket::new(&Rate { count: 2, per_ms: 1_000 }, start);
        assert!(bucket.take_or_wait(start).is_none());
        assert!(bucket.take_or_wait(start).is_none());
        let wait = bucket.take_or_wait(start).expect("the bucket is empty");
        assert!(wait > Duration::from_millis(499) && wait < Duration::from_millis(510), "{wait:?}");
        assert!(bucket.take_or_wait(start + wait).is_none());
        assert!(bucket.take_or_wait(start + wait).is_some());
    }

    #[test]
    fn a_breaker_opens_after_its_failures_and_lets_one_try_after_its_pause() {
        let breaker = Breaker::new(2, Duration::from_secs(30), Duration::from_secs(15));
        let start = Instant::now();
        breaker.failed(start);
        assert_eq!(breaker.closed_for(start), None);
        breaker.failed(start + Duration::from_secs(1));
        assert!(breaker.closed_for(start + Duration::from_secs(2)).is_some());
        let later = start + Duration::from_secs(17);
        assert_eq!(breaker.closed_for(later), None, "one may try");
        assert!(breaker.closed_for(later).is_some(), "the others wait");
        breaker.succeeded();
        assert_eq!(breaker.closed_for(later), None);
    }

    #[test]
    fn old_failures_do_not_count() {
        let breaker = Breaker::new(2, Duration::from_secs(30), Duration::from_secs(15));
        let start = Instant::now();
        breaker.failed(start);
        breaker.failed(start + Duration::from_secs(31));
        assert_eq!(breaker.closed_for(start + Duration::from_secs(31)), None);
    }

    #[tokio::test]
    async fn a_full_line_refuses_and_a_freed_seat_is_taken() {
        let line = Arc::new(Line::new(&Limits { concurrency: 1, rate: None, queue: 1 }));
        let first = line.try_enter().expect("a free seat");
        let second = tokio::spawn({
            let line = line.clone();
            async move { line.enter().await.is_ok() }
        });
        while line.waiting.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(line.enter().await.is_err(), "the line holds one");
        assert!(line.try_enter().is_none());
        drop(first);
        assert!(second.await.expect("no panic"));
    }
}
