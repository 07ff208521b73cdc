//! One sink's deliveries, one after the other, each tried again until it succeeds or is given up.

use std::{sync::Arc, time::Duration};

use holdfast_store::JournalError;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Failure, Outlook,
    board::Desk,
    message::{Message, Notice, compose},
    outbox::Outbox,
    sink::Sink,
};
use crate::driver::read;

/// How long one message is tried, from its first attempt in this process on.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// How often one is tried that will hardly ever be taken: after some minutes the next one may fare better.
const DOUBTFUL_ATTEMPTS: u32 = 8;
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Short enough that people hear of what waits soon after their receiver is back.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A receiver may ask for more time than that, up to here.
const LONGEST_WISH: Duration = Duration::from_secs(3600);
/// How long an attempt may go on after the end was asked for.
const GRACE: Duration = Duration::from_secs(1);

/// Delivers what is in one outbox.
pub(super) struct Courier {
    sink: Sink,
    outbox: Outbox,
    inbox: String,
    desk: Arc<Desk>,
}

/// What becomes of a message.
enum Ending {
    /// Delivered, given up, or no news: the next one.
    Done,
    /// Not in this life of the process.
    Stop,
}

impl Courier {
    pub(super) fn new(sink: Sink, outbox: Outbox, inbox: String, desk: Arc<Desk>) -> Self {
        desk.at(outbox.place());
        Self { sink, outbox, inbox, desk }
    }

    /// Delivers until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        if let Err(error) = self.deliver_all(&stop).await {
            let sink = &self.sink.config.name;
            self.desk.failed(&error.to_string(), "off");
            tracing::error!(sink, %error, "the journal failed: this sink is not told any more");
        }
    }

    async fn deliver_all(&mut self, stop: &CancellationToken) -> Result<(), JournalError> {
        loop {
            self.desk.at(self.outbox.place());
            let next = tokio::select! {
                next = self.outbox.next() => next?,
                () = stop.cancelled() => return Ok(()),
            };
            let Some(notice) = next else { return Ok(()) };
            self.desk.at(self.outbox.place());
            match self.deliver(notice, stop).await? {
                Ending::Done => self.outbox.done().await?,
                Ending::Stop => return Ok(()),
            }
        }
    }

    async fn deliver(&self, notice: Notice, stop: &CancellationToken) -> Result<Ending, JournalError> {
        let begun = Instant::now();
        for attempt in 1.. {
            // Looked up each time: somebody may have decided while the receiver was away.
            let Some(message) = self.message(notice).await? else {
                self.desk.skipped();
                return Ok(Ending::Done);
            };
            let sent = tokio::select! {
                sent = self.sink.send(&message) => sent,
                () = async { stop.cancelled().await; sleep(GRACE).await } => return Ok(Ending::Stop),
            };
            let (sink, id) = (&self.sink.config.name, &message.id);
            let failure = match sent {
                Ok(how) => {
                    self.desk.succeeded();
                    tracing::debug!(sink, id, attempt, how, "notified");
                    return Ok(Ending::Done);
                }
                Err(failure) => failure,
            };
            let error = &failure.what;
            let Some(wait) = wait_after(&failure, attempt, begun.elapsed(), rand::random()) else {
                if failure.outlook == Outlook::Gone {
                    self.desk.failed(error, "off");
                    tracing::error!(
                        sink,
                        id,
                        error,
                        "the receiver is gone: not notified until the next start"
                    );
                    stop.cancelled().await;
                    return Ok(Ending::Stop);
                }
                self.desk.failed(error, "ready");
                self.desk.gave_up();
                tracing::error!(sink, id, attempt, error, "a notification was given up");
                return Ok(Ending::Done);
            };
            self.desk.failed(error, "retrying");
            if attempt == 1 {
                tracing::warn!(sink, id, error, "a notification is tried again");
            } else {
                tracing::debug!(sink, id, attempt, error, "a notification is tried again");
            }
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.cancelled() => return Ok(Ending::Stop),
            }
        }
        unreachable!("there is always another attempt")
    }

    /// None where it is no news to this sink, or none any more.
    async fn message(&self, notice: Notice) -> Result<Option<Message>, JournalError> {
        let history = read(self.outbox.journal(), move |journal| journal.history(notice.call)).await?;
        match compose(notice, &history, &self.inbox) {
            Ok(Some((topic, message))) if self.sink.config.topics.contains(&topic) => Ok(Some(message)),
            Ok(_) => Ok(None),
            Err(illegal) => {
                // Pruned in part, perhaps; others say what else it can be.
                tracing::warn!(call = %notice.call, error = %illegal, "no notification about a broken history");
                Ok(None)
            }
        }
    }
}

/// Exponential, with full jitter: `dice` is from 0 to 1. None where it is not tried again.
fn wait_after(failure: &Failure, attempt: u32, passed: Duration, dice: f64) -> Option<Duration> {
    let wish = match failure.outlook {
        Outlook::Gone => return None,
        Outlook::Doubtful if attempt >= DOUBTFUL_ATTEMPTS => return None,
        Outlook::Doubtful => Duration::ZERO,
        Outlook::Later(wish) => wish.unwrap_or_default().min(LONGEST_WISH),
    };
    let most = FIRST_WAIT.saturating_mul(1 << (attempt - 1).min(10)).min(LONGEST_WAIT);
    let wait = wish + most.mul_f64(dice.clamp(0.0, 1.0));
    (passed + wait < LONGEST).then_some(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_it_waits() {
        let check = |outlook: Outlook, attempt: u32, hours: u64, expected: Option<u64>| {
            let failure = Failure { what: String::new(), outlook };
            let wait = wait_after(&failure, attempt, Duration::from_secs(hours * 3600), 1.0);
            assert_eq!(wait, expected.map(Duration::from_secs), "{outlook:?} {attempt} {hours}");
        };
        let later = Outlook::Later(None);
        check(later, 1, 0, Some(1));
        check(later, 2, 0, Some(2));
        check(later, 6, 0, Some(32));
        check(later, 7, 0, Some(60));
        check(later, 10_000, 23, Some(60));
        check(later, 10_000, 24, None);
        check(Outlook::Later(Some(Duration::from_secs(90))), 1, 0, Some(91));
        check(Outlook::Later(Some(Duration::MAX)), 7, 0, Some(3660));
        check(Outlook::Doubtful, 7, 0, Some(60));
        check(Outlook::Doubtful, 8, 0, None);
        check(Outlook::Gone, 1, 0, None);
        let failure = Failure { what: String::new(), outlook: later };
        assert_eq!(wait_after(&failure, 5, Duration::ZERO, 0.0), Some(Duration::ZERO), "full jitter");
    }
}
