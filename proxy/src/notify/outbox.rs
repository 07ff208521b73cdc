//! The journal as an outbox: each sink reads its tail from a durable cursor of its own, and one look serves all of them.
//!
//! By cases: killed before the delivery, the cursor stands before the entry and the next start delivers. Killed between
//! delivery and cursor, the next start delivers again under the same id. Killed after the cursor, it is done.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use holdfast_store::{Journal, JournalError, Record};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::message::Notice;
use crate::driver::read;

/// How often the tail is looked at.
const PERIOD: Duration = Duration::from_millis(250);
/// Entries that are read at once.
const PAGE: usize = 500;
/// Entries without news after which the cursor is kept all the same: so many are read in vain after a restart, at most.
const STRIDE: u64 = 2_000;
/// Notices that are counted for operators who want to know how far behind a sink is.
const COUNTED: usize = 1_000;

/// What one look at the tail has found.
#[derive(Clone, Default)]
struct Look {
    from: u64,
    /// The last entry that was looked at.
    to: u64,
    found: Arc<[Notice]>,
}

/// The one look at the tail.
pub(super) struct Watcher {
    journal: Arc<dyn Journal>,
    looks: watch::Sender<Look>,
    recent: Arc<Recent>,
    next: u64,
}

/// The latest notices, to count by.
#[derive(Default)]
pub(super) struct Recent(Mutex<VecDeque<u64>>);

impl Recent {
    /// How many of them come after `seq`; at most [`COUNTED`].
    pub(super) fn after(&self, seq: u64) -> usize {
        let recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().rev().take_while(|notice| **notice > seq).count()
    }

    fn add(&self, found: &[Notice]) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.extend(found.iter().map(|notice| notice.seq));
        let surplus = recent.len().saturating_sub(COUNTED);
        recent.drain(..surplus);
    }
}

/// One sink's place in the journal.
pub(super) struct Outbox {
    journal: Arc<dyn Journal>,
    name: String,
    looks: watch::Receiver<Look>,
    /// The first entry that was not looked at.
    next: u64,
    found: VecDeque<Notice>,
    /// The cursor as it is kept.
    kept: u64,
}

/// The outboxes of the sinks with these names, and the look that serves them.
///
/// A sink that is seen for the first time begins here and now: what happened before it was configured is no news to it,
/// and what waits is on the page. Durable at once, so that a crash right after the first start loses nothing.
///
/// # Errors
/// Where the journal fails.
pub(super) async fn open(
    journal: &Arc<dyn Journal>,
    names: &[&str],
) -> Result<(Watcher, Vec<Outbox>), JournalError> {
    let mut places = Vec::with_capacity(names.len());
    for name in names {
        let name = format!("notify/{name}");
        places.push((name.clone(), read(journal, move |journal| begin(journal, &name)).await?));
    }
    let looks = watch::Sender::new(Look::default());
    let first = places.iter().map(|(_, kept)| *kept).min().unwrap_or(0);
    let outboxes = places.into_iter().map(|(name, kept)| Outbox {
        journal: journal.clone(),
        name,
        looks: looks.subscribe(),
        next: kept + 1,
        found: VecDeque::new(),
        kept,
    });
    let outboxes = outboxes.collect();
    let watcher = Watcher { journal: journal.clone(), looks, recent: Arc::default(), next: first + 1 };
    Ok((watcher, outboxes))
}

fn begin(journal: &dyn Journal, name: &str) -> Result<u64, JournalError> {
    if let Some(kept) = journal.cursor(name)? {
        return Ok(kept);
    }
    let head = journal.head()?;
    journal.set_cursor(name, head)?;
    Ok(head)
}

impl Watcher {
    /// What was found lately.
    pub(super) fn recent(&self) -> Arc<Recent> {
        self.recent.clone()
    }

    /// Looks until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            match self.look().await {
                Ok(PAGE) if !stop.is_cancelled() => {}
                Ok(_) => {
                    tokio::select! {
                        () = tokio::time::sleep(PERIOD) => {}
                        () = stop.cancelled() => return,
                    }
                }
                Err(error) => {
                    // It ends with the first failed write, and everybody else says so louder.
                    tracing::error!(%error, "the journal cannot be read: nobody is notified any more");
                    return;
                }
            }
        }
    }

    async fn look(&mut self) -> Result<usize, JournalError> {
        let from = self.next;
        let records = read(&self.journal, move |journal| journal.tail(from, PAGE)).await?;
        let Some(last) = records.last() else { return Ok(0) };
        let found: Arc<[Notice]> = records.iter().filter_map(Notice::of).collect();
        self.recent.add(&found);
        self.next = last.seq + 1;
        self.looks.send_replace(Look { from, to: last.seq, found });
        Ok(records.len())
    }
}

impl Outbox {
    /// The next notice; none at the end. Stays at it until [`Outbox::done`].
    pub(super) async fn next(&mut self) -> Result<Option<Notice>, JournalError> {
        loop {
            if let Some(notice) = self.found.front() {
                return Ok(Some(*notice));
            }
            if self.next - 1 - self.kept >= STRIDE {
                self.keep(self.next - 1).await?;
            }
            let look = self.looks.borrow_and_update().clone();
            if look.to < self.next {
                if self.looks.changed().await.is_err() {
                    return Ok(None);
                }
            } else if look.from <= self.next {
                let next = self.next;
                self.found.extend(look.found.iter().filter(|notice| notice.seq >= next));
                self.next = look.to + 1;
            } else {
                self.catch_up(look.to).await?;
            }
        }
    }

    /// Reads a page of what was missed, up to `to`: a slow sink has looks go by, and reads for itself.
    async fn catch_up(&mut self, to: u64) -> Result<(), JournalError> {
        let from = self.next;
        let records: Vec<Record> = read(&self.journal, move |journal| journal.tail(from, PAGE)).await?;
        self.found.extend(records.iter().filter_map(Notice::of));
        self.next = records.last().map_or(to, |record| record.seq) + 1;
        Ok(())
    }

    /// The notice that [`Outbox::next`] gave is told, or will never be: durable once this returns.
    pub(super) async fn done(&mut self) -> Result<(), JournalError> {
        let Some(notice) = self.found.pop_front() else { return Ok(()) };
        self.keep(notice.seq).await
    }

    async fn keep(&mut self, seq: u64) -> Result<(), JournalError> {
        let name = self.name.clone();
        read(&self.journal, move |journal| journal.set_cursor(&name, seq)).await?;
        self.kept = seq;
        Ok(())
    }

    /// The last entry that needs nothing any more.
    pub(super) fn place(&self) -> u64 {
        self.found.front().map_or(self.next, |notice| notice.seq) - 1
    }

    /// The journal.
    pub(super) fn journal(&self) -> &Arc<dyn Journal> {
        &self.journal
    }
}
