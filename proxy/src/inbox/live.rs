//! News of the journal, as they become durable, for everybody who listens: one look at its tail for all of them.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{Stream, stream};
use holdfast_store::{CallId, Journal, JournalError, Millis, Record};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::{Mutex, broadcast};
use tokio_util::sync::CancellationToken;

use super::api::blocking;

/// How often the tail is looked at while somebody listens.
const PERIOD: Duration = Duration::from_millis(250);
/// Entries that are read at once.
const PAGE: usize = 500;
/// Who listens at once, at most: each of them holds a connection.
const LISTENERS: usize = 256;
/// Looks that a slow listener may miss before it has to read the journal itself.
const BACKLOG: usize = 64;

/// That an entry became durable; what it says is to be read elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct News {
    pub(super) seq: u64,
    pub(super) call: CallId,
    pub(super) n: u32,
    pub(super) at: Millis,
    pub(super) entry: &'static str,
}

impl From<&Record> for News {
    fn from(record: &Record) -> Self {
        Self { seq: record.seq, call: record.call, n: record.n, at: record.at, entry: record.entry.name() }
    }
}

/// The one look at the tail, and who hears of it.
pub(super) struct Live {
    sender: broadcast::Sender<Arc<[News]>>,
    /// Whether the task that looks is there.
    looking: Arc<Mutex<bool>>,
    listeners: Arc<AtomicUsize>,
    stop: CancellationToken,
}

/// Somebody who listens.
pub(super) struct Listener {
    receiver: broadcast::Receiver<Arc<[News]>>,
    journal: Arc<dyn Journal>,
    /// The next entry that was not heard of.
    next: u64,
    heard: VecDeque<News>,
    listeners: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Live {
    /// Nobody listens yet, so nothing is looked at. `stop` ends all listening.
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self {
            sender: broadcast::Sender::new(BACKLOG),
            looking: Arc::default(),
            listeners: Arc::default(),
            stop,
        }
    }

    /// Listens from here on, or from the entry after `since`; none where too many do.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    pub(super) async fn listen(
        &self,
        journal: Arc<dyn Journal>,
        since: Option<u64>,
    ) -> Result<Option<Listener>, JournalError> {
        if self.listeners.fetch_add(1, Ordering::Relaxed) >= LISTENERS {
            self.listeners.fetch_sub(1, Ordering::Relaxed);
            return Ok(None);
        }
        // From here on dropping it counts it out.
        let mut listener = Listener {
            receiver: self.sender.subscribe(),
            journal: journal.clone(),
            next: 0,
            heard: VecDeque::new(),
            listeners: self.listeners.clone(),
            stop: self.stop.clone(),
        };
        let mut looking = self.looking.lock().await;
        // Whatever is durable after this is heard of.
        let reader = journal.clone();
        let head = blocking(move || reader.head()).await?;
        listener.next = since.map_or(head, |since| since.min(head)) + 1;
        if !*looking {
            *looking = true;
            let (sender, stop) = (self.sender.clone(), self.stop.clone());
            tokio::spawn(look(journal, head + 1, sender, self.looking.clone(), stop));
        }
        drop(looking);
        if listener.next <= head {
            listener.catch_up().await?;
        }
        Ok(Some(listener))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Listener {
    /// The news, one by one, until `serve` stops or the journal cannot be read.
    pub(super) fn news(self) -> impl Stream<Item = News> + Send + 'static {
        stream::unfold(self, async |mut listener| {
            loop {
                if let Some(news) = listener.heard.pop_front() {
                    return Some((news, listener));
                }
                let more = listener.hear().await?;
                listener.heard.extend(more);
            }
        })
    }

    /// The next news, as many as came at once; none at the end.
    pub(super) async fn hear(&mut self) -> Option<Vec<News>> {
        if !self.heard.is_empty() {
            return Some(self.heard.drain(..).collect());
        }
        loop {
            let heard = tokio::select! {
                heard = self.receiver.recv() => heard,
                () = self.stop.cancelled() => return None,
            };
            match heard {
                Ok(batch) => {
                    let fresh: Vec<News> =
                        batch.iter().filter(|news| news.seq >= self.next).copied().collect();
                    if let Some(last) = fresh.last() {
                        self.next = last.seq + 1;
                        return Some(fresh);
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    self.catch_up().await.ok()?;
                    if !self.heard.is_empty() {
                        return Some(self.heard.drain(..).collect());
                    }
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// Reads what was missed, up to now.
    async fn catch_up(&mut self) -> Result<(), JournalError> {
        loop {
            let (journal, from) = (self.journal.clone(), self.next);
            let records = blocking(move || journal.tail(from, PAGE)).await?;
            let Some(last) = records.last() else { return Ok(()) };
            self.next = last.seq + 1;
            self.heard.extend(records.iter().map(News::from));
        }
    }
}

/// Looks at the tail until nobody listens any more.
async fn look(
    journal: Arc<dyn Journal>,
    mut next: u64,
    sender: broadcast::Sender<Arc<[News]>>,
    looking: Arc<Mutex<bool>>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = stop.cancelled() => return,
        }
        {
            let mut looking = looking.lock().await;
            if sender.receiver_count() == 0 {
                *looking = false;
                return;
            }
        }
        let reader = journal.clone();
        match blocking(move || reader.tail(next, PAGE)).await {
            Ok(records) => {
                if let Some(last) = records.last() {
                    next = last.seq + 1;
                    // Nobody left to hear it is found out at the next look.
                    sender.send(records.iter().map(News::from).collect()).ok();
                }
            }
            Err(error) => tracing::debug!(%error, "the journal's tail cannot be read"),
        }
    }
}
