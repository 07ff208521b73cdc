//! The one writer: a queue, a thread, and a commit for all that waits.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use redb::Database;

use crate::{
    chain::{Head, content_hash},
    codec,
    entry::Millis,
    journal::{Append, Appended, Done, JournalError, Keep, Refusal, Urgency},
    redb::{
        Durability, fault,
        tables::{Frame, Tables},
    },
};

/// Bounds of one transaction.
const BATCH_JOBS: usize = 4096;
const BATCH_BYTES: usize = 16 << 20;
/// How long and how many appends that nobody waits for may be kept back.
const SOON: Duration = Duration::from_millis(100);
const SOON_JOBS: usize = 1000;

/// After how long without work the writer makes the file one that opens without being walked. Shorter than a server
/// usually takes to answer, so that also a crash in the middle of a call mostly finds the file at rest.
const REST: Duration = Duration::from_millis(200);

/// The queue's end that submits.
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// The file, for messages.
    place: Arc<str>,
    queue: Mutex<Queue>,
    wake: Condvar,
    /// The first failed write: what the medium holds is no longer known, so nothing works from then on.
    failed: OnceLock<JournalError>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    bytes: usize,
    urgent: usize,
    /// When the oldest job that may wait came in.
    since: Option<Instant>,
    /// The writer sleeps; otherwise nobody needs to wake it.
    asleep: bool,
    end: End,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    /// The journal was dropped: what is queued is still written.
    Closing,
    /// The thread is gone.
    Stopped,
}

enum Job {
    Append { append: Append, frames: Vec<Frame>, reply: Reply<Appended, Done> },
    Prune { answers: Millis, tombstones: Millis, limit: usize, reply: Reply<usize, Told<usize>> },
    Cursor { name: String, seq: u64, reply: Reply<(), Told<()>> },
    Keep { changes: Vec<Keep>, reply: Reply<(), Told<()>> },
}

type Told<T> = Box<dyn FnOnce(Result<T, Refusal>) + Send>;

/// A callback that is always called: by being dropped, if nothing else.
struct Reply<T, F: FnOnce(Result<T, Refusal>)> {
    done: Option<F>,
    result: Option<Result<T, Refusal>>,
}

impl<T, F: FnOnce(Result<T, Refusal>)> Reply<T, F> {
    fn to(done: F) -> Self {
        Self { done: Some(done), result: None }
    }
}

impl<T, F: FnOnce(Result<T, Refusal>)> Drop for Reply<T, F> {
    fn drop(&mut self) {
        let stopped = || Err(Refusal::Failed(JournalError::Io("the journal's writer has stopped".into())));
        let result = self.result.take().unwrap_or_else(stopped);
        if let Some(done) = self.done.take() {
            done(result);
        }
    }
}

impl Writer {
    /// Starts the thread, which owns the end of the chain.
    pub(super) fn start(
        db: Arc<Database>,
        head: Head,
        durability: Durability,
        place: Arc<str>,
    ) -> Result<Self, JournalError> {
        let shared = Arc::new(Shared {
            place,
            queue: Mutex::default(),
            wake: Condvar::new(),
            failed: OnceLock::new(),
        });
        let worker = Worker { shared: shared.clone(), db, head, durability, repair: Repair::Quick };
        let thread = thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || worker.run())
            .map_err(|error| JournalError::Io(format!("cannot start the writer's thread: {error}").into()))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Queues an append; returns the length of the queue.
    pub(super) fn append(&self, append: Append, done: Done) -> usize {
        // Encoded here and not by the writer: submitters run beside each other, the writer is alone.
        let frames: Vec<_> = append.entries.iter().map(codec::encode).map(Frame::new).collect();
        self.push(Job::Append { append, frames, reply: Reply::to(done) })
    }

    /// Queues a pruning and waits for it.
    pub(super) fn prune(
        &self,
        answers: Millis,
        tombstones: Millis,
        limit: usize,
    ) -> Result<usize, JournalError> {
        self.wait(|reply| Job::Prune { answers, tombstones, limit, reply })
    }

    /// Queues a cursor and waits until it is kept.
    pub(super) fn set_cursor(&self, name: &str, seq: u64) -> Result<(), JournalError> {
        self.wait(|reply| Job::Cursor { name: name.to_owned(), seq, reply })
    }

    /// Queues values to be kept and waits until they are.
    pub(super) fn keep(&self, changes: Vec<Keep>) -> Result<(), JournalError> {
        self.wait(|reply| Job::Keep { changes, reply })
    }

    fn wait<T: Send + 'static>(&self, job: impl FnOnce(Reply<T, Told<T>>) -> Job) -> Result<T, JournalError> {
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        let told: Told<T> = Box::new(move |result| drop(send.send(result)));
        self.push(job(Reply::to(told)));
        match receive.recv().expect("a reply is always sent") {
            Ok(done) => Ok(done),
            Err(Refusal::Failed(error)) => Err(error),
            Err(_) => unreachable!("only appends claim keys and expect entries"),
        }
    }

    /// The failed write that ended this journal, if one did.
    pub(super) fn failure(&self) -> Result<(), JournalError> {
        self.shared.failed.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    fn push(&self, job: Job) -> usize {
        let mut queue = self.shared.queue();
        if queue.end != End::Open {
            drop(queue);
            drop(job);
            return 0;
        }
        queue.push(job);
        let length = queue.jobs.len();
        let wake = queue.asleep && (length == 1 || queue.is_due(Instant::now()));
        if wake {
            queue.asleep = false;
        }
        drop(queue);
        if wake {
            self.shared.wake.notify_one();
        }
        length
    }
}

impl Drop for Writer {
    /// Writes what is queued, then ends the thread.
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        if queue.end == End::Open {
            queue.end = End::Closing;
        }
        drop(queue);
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been answered for already: every reply heard that the writer has stopped.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no code panics while it holds the queue")
    }

    /// Waits for something to do.
    fn next(&self, repair: Repair) -> Next {
        let mut queue = self.queue();
        let begun = Instant::now();
        loop {
            let now = Instant::now();
            if queue.is_due(now) {
                return Next::Batch(queue.take_batch());
            }
            if queue.end != End::Open {
                return Next::Close;
            }
            let limit = match (queue.since, repair) {
                (Some(since), _) => Some(SOON.saturating_sub(now - since)),
                (None, Repair::Slow) if now - begun >= REST => return Next::Rest,
                (None, Repair::Slow) => Some(REST - (now - begun)),
                (None, Repair::Quick) => None,
            };
            queue.asleep = true;
            queue = match limit {
                Some(limit) => {
                    self.wake.wait_timeout(queue, limit).expect("no code panics while it holds the queue").0
                }
                None => self.wake.wait(queue).expect("no code panics while it holds the queue"),
            };
            queue.asleep = false;
        }
    }
}

/// What the writer does next.
enum Next {
    Batch(Vec<Job>),
    /// Nothing came for a while.
    Rest,
    /// The journal is closed and all is written.
    Close,
}

/// What a start after a crash would cost now.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repair {
    /// The last commit holds the allocator's state.
    Quick,
    /// The file would have to be walked.
    Slow,
}

impl Queue {
    fn push(&mut self, job: Job) {
        self.bytes += job.bytes();
        self.urgent += usize::from(job.is_urgent());
        self.since.get_or_insert_with(Instant::now);
        self.jobs.push_back(job);
    }

    fn is_due(&self, now: Instant) -> bool {
        let waited = |since| now.duration_since(since) >= SOON;
        !self.jobs.is_empty()
            && (self.urgent > 0
                || self.jobs.len() >= SOON_JOBS
                || self.bytes >= BATCH_BYTES
                || self.end != End::Open
                || self.since.is_some_and(waited))
    }

    fn take_batch(&mut self) -> Vec<Job> {
        let mut bytes = 0;
        let fits = |job: &&Job| {
            bytes += job.bytes();
            bytes <= BATCH_BYTES
        };
        let count = self.jobs.iter().take(BATCH_JOBS).take_while(fits).count().max(1);
        let batch: Vec<_> = self.jobs.drain(..count).collect();
        self.bytes -= batch.iter().map(Job::bytes).sum::<usize>();
        self.urgent -= batch.iter().filter(|job| job.is_urgent()).count();
        if self.jobs.is_empty() {
            self.since = None;
        }
        batch
    }
}

impl Job {
    fn bytes(&self) -> usize {
        match self {
            Self::Append { frames, .. } => frames.iter().map(|frame| frame.bytes.len()).sum(),
            Self::Keep { changes, .. } => {
                changes.iter().map(|(_, value)| value.as_ref().map_or(0, Vec::len)).sum()
            }
            Self::Prune { .. } | Self::Cursor { .. } => 0,
        }
    }

    fn is_urgent(&self) -> bool {
        match self {
            Self::Append { append, .. } => append.urgency == Urgency::Now,
            Self::Prune { .. } | Self::Cursor { .. } | Self::Keep { .. } => true,
        }
    }

    fn run(&mut self, tables: &mut Tables<'_>, head: &mut Head) -> Result<(), JournalError> {
        match self {
            Self::Append { append, frames, reply } => {
                reply.result = Some(tables.append(append, frames, head)?)
            }
            Self::Prune { answers, tombstones, limit, reply } => {
                reply.result = Some(Ok(tables.prune(*answers, *tombstones, *limit)?));
            }
            Self::Cursor { name, seq, reply } => reply.result = Some(Ok(tables.set_cursor(name, *seq)?)),
            Self::Keep { changes, reply } => reply.result = Some(Ok(tables.keep(changes)?)),
        }
        Ok(())
    }

    fn fail(&mut self, error: &JournalError) {
        let refusal = || Refusal::Failed(error.clone());
        match self {
            Self::Append { reply, .. } => reply.result = Some(Err(refusal())),
            Self::Prune { reply, .. } => reply.result = Some(Err(refusal())),
            Self::Cursor { reply, .. } | Self::Keep { reply, .. } => reply.result = Some(Err(refusal())),
        }
    }
}

impl Frame {
    fn new(bytes: Vec<u8>) -> Self {
        Self { hash: content_hash(&bytes), bytes }
    }
}

struct Worker {
    shared: Arc<Shared>,
    db: Arc<Database>,
    head: Head,
    durability: Durability,
    repair: Repair,
}

impl Worker {
    fn run(mut self) {
        let _stop = Stop(self.shared.clone());
        loop {
            let mut batch = match self.shared.next(self.repair) {
                Next::Batch(batch) => batch,
                Next::Rest => Vec::new(),
                Next::Close => return,
            };
            if self.shared.failed.get().is_none() {
                let written = if batch.is_empty() { self.rest() } else { self.commit(&mut batch) };
                if let Err(error) = written {
                    // The only writer of `failed` but for the end of this thread.
                    let _ = self.shared.failed.set(error.at(&self.shared.place));
                }
            }
            if let Some(error) = self.shared.failed.get() {
                batch.iter_mut().for_each(|job| job.fail(error));
            }
            // Everybody hears only now, also those who lost against an append of this same commit.
            drop(batch);
        }
    }

    /// One transaction for the whole batch. Should anything but a refusal go wrong, nothing of it is kept: that is
    /// certain before `commit`, and within it unknown, which is why the journal then ends.
    fn commit(&mut self, batch: &mut [Job]) -> Result<(), JournalError> {
        let mut txn = self.db.begin_write().map_err(fault)?;
        self.durability.apply(&mut txn);
        let mut head = self.head;
        let mut tables = Tables::open(&txn)?;
        for job in batch {
            job.run(&mut tables, &mut head)?;
        }
        if head != self.head {
            tables.write_head(head)?;
        }
        let dirty = tables.dirty;
        drop(tables);
        if dirty {
            txn.commit().map_err(fault)?;
        } else {
            txn.abort().map_err(fault)?;
        }
        self.head = head;
        self.repair = Repair::Slow;
        Ok(())
    }

    /// Writes nothing new, but with it the allocator's state: its size grows with the file, so that each commit would
    /// pay for it (66 % of an append among a million calls), and without it a start after a crash walks the file.
    fn rest(&mut self) -> Result<(), JournalError> {
        // Also after a failure there is nothing to be gained by trying again and again.
        self.repair = Repair::Quick;
        let mut txn = self.db.begin_write().map_err(fault)?;
        self.durability.apply_at_rest(&mut txn);
        Tables::open(&txn)?.write_head(self.head)?;
        txn.commit().map_err(fault)
    }
}

/// However the thread ends, nobody waits for it in vain.
struct Stop(Arc<Shared>);

impl Drop for Stop {
    fn drop(&mut self) {
        let Ok(mut queue) = self.0.queue.lock() else { return };
        queue.end = End::Stopped;
        let jobs = mem::take(&mut queue.jobs);
        drop(queue);
        let error = JournalError::Io("the journal's writer has stopped".into());
        // Already set where a failed write is the reason.
        let _ = self.0.failed.set(error.at(&self.0.place));
        drop(jobs);
    }
}
