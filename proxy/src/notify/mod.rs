//! Telling people that they are needed: webhooks, Slack, ntfy, a program on this machine.
//!
//! * `message`: which entries are news, and the little that is said about them.
//! * `outbox`: the journal as a durable outbox, with a cursor for each sink.
//! * `courier`: one sink's deliveries, tried again until they succeed or are given up.
//! * `board`: how the sinks are, for operators.
//! * `sink`, `formats`, `http`, `command`, `guard`: one delivery, and where it may go.
//!
//! Invariants: at least once, under an id that stays the same. A slow sink delays nobody else. Only ids and names go
//! out, with a link to a page behind a login: nothing is decided by following it. No secret is logged or shown.

mod board;
mod command;
mod courier;
mod formats;
mod guard;
mod http;
mod message;
mod outbox;
mod sink;

use std::{sync::Arc, time::Duration};

use holdfast_store::{Journal, JournalError};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[cfg(test)]
pub(crate) use self::guard::Found as LookedUp;
pub(crate) use self::{
    board::{Board, SinkHealth},
    guard::{LookUp, System as SystemLookUp, refused_address},
    message::Topic,
};
use self::{courier::Courier, message::Message, outbox::Watcher, sink::Sink};
use crate::{config::SinkConfig, driver::now};

/// What did not work, in words for operators, without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    what: String,
    outlook: Outlook,
}

/// Whether another try may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outlook {
    /// Later, and not before this time has passed, if the receiver says so.
    Later(Option<Duration>),
    /// Hardly: somebody has to mend something. A few tries, in case that happens.
    Doubtful,
    /// The receiver wants no more.
    Gone,
}

/// The sinks of a configuration with their places in the journal.
pub(crate) struct Notifier {
    watcher: Watcher,
    couriers: Vec<Courier>,
    board: Arc<Board>,
}

impl Notifier {
    /// Finds the place of each sink; `inbox` is where people open the inbox, without the last slash. To be called before
    /// anything is written to the journal that a new sink should hear of.
    ///
    /// # Errors
    /// Where the journal fails.
    pub(crate) async fn open(
        journal: &Arc<dyn Journal>,
        sinks: &[SinkConfig],
        inbox: &str,
    ) -> Result<Self, JournalError> {
        let names: Vec<&str> = sinks.iter().map(|sink| sink.name.as_str()).collect();
        let (watcher, outboxes) = outbox::open(journal, &names).await?;
        let board = Arc::new(Board::new(sinks, watcher.recent()));
        let couriers = sinks.iter().zip(outboxes).enumerate().map(|(n, (sink, outbox))| {
            Courier::new(Sink::new(sink.clone()), outbox, inbox.to_owned(), board.desk(n))
        });
        Ok(Self { watcher, couriers: couriers.collect(), board })
    }

    /// How the sinks are.
    pub(crate) fn board(&self) -> Arc<Board> {
        self.board.clone()
    }

    /// Tells people until `stop`. What is not told by then is told after the next start.
    pub(crate) async fn run(self, stop: CancellationToken) {
        if self.couriers.is_empty() {
            return;
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(self.watcher.run(stop.clone()));
        for courier in self.couriers {
            tasks.spawn(courier.run(stop.clone()));
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                // The others go on; this one's cursor stands where it was.
                tracing::error!(%error, "a notifier has failed: one sink less until the next start");
            }
        }
    }
}

/// Sends a test message to a sink, once, and says what came of it.
///
/// # Errors
/// What did not work, in words.
pub(crate) async fn test(sink: &SinkConfig, inbox: &str) -> Result<String, String> {
    let sink = Sink::new(sink.clone());
    sink.send(&Message::test(now(), inbox)).await.map_err(|failure| failure.what)
}

#[cfg(test)]
mod tests;
