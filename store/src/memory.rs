//! The reference journal: in memory, deterministic, with points to crash at.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    sync::{Mutex, MutexGuard},
};

use crate::{
    chain::{Checker, Head, Link, content_hash},
    codec,
    entry::{CallId, Entry, Millis},
    fingerprint::Hash32,
    journal::{
        Append, Appended, Claim, Done, Filter, Journal, JournalError, Keep, KeyFate, Record, Refusal,
        Summary, Verified, VerifyError, must_be_keepable,
    },
    line::Line,
};

/// A journal whose "medium" is this value: [`Memory::reopen`] is the restart.
///
/// It draws no random numbers and starts no thread. Callbacks run on the thread that submits or flushes, outside locks.
pub struct Memory {
    delivery: Delivery,
    inner: Mutex<Inner>,
}

/// When appends are committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Inside `submit`, each in a commit of its own.
    AtOnce,
    /// By [`Memory::flush`], all that wait in one commit.
    OnFlush,
}

/// Whether entries are hashed into the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chaining {
    /// Off: for simulations. `verify` checks the numbering only, and its head is all zeros.
    Unchained,
    /// As on disk.
    Chained,
}

/// Where in a commit the machine stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Nothing of the commit is kept.
    BeforeCommit,
    /// All of it is kept, and nobody is told.
    AfterCommit,
}

#[derive(Default)]
struct Inner {
    kept: Kept,
    queue: Vec<(Append, Done)>,
    /// Counts down with each commit; at zero the crash happens.
    crash: Option<(u64, Crash)>,
    dead: bool,
}

/// What survives a crash.
#[derive(Default)]
struct Kept {
    head: Option<Head>,
    log: Vec<Row>,
    lines: BTreeMap<CallId, Line>,
    open: BTreeSet<CallId>,
    keys: HashMap<Hash32, CallId>,
    positions: HashMap<Hash32, u64>,
    identical: HashMap<Hash32, BTreeSet<CallId>>,
    cursors: HashMap<String, u64>,
    kept: BTreeMap<String, Vec<u8>>,
}

struct Row {
    call: CallId,
    n: u32,
    at: Millis,
    entry: Option<Entry>,
    link: Option<Link>,
}

impl Memory {
    /// An empty journal.
    pub fn new(delivery: Delivery, chaining: Chaining) -> Self {
        let head = (chaining == Chaining::Chained).then_some(Head::START);
        let inner = Inner { kept: Kept { head, ..Kept::default() }, ..Inner::default() };
        Self { delivery, inner: Mutex::new(inner) }
    }

    /// Stops the machine in the `commit`-th commit from now, from 1. Every append that is not acknowledged by then hears
    /// [`Refusal::Failed`], also those that were kept: that is all a program can know after a failed write.
    pub fn crash_at(&self, commit: u64, crash: Crash) {
        self.lock().crash = Some((commit, crash));
    }

    /// True once a crash happened: nothing works until [`Memory::reopen`].
    pub fn is_crashed(&self) -> bool {
        self.lock().dead
    }

    /// The journal as the next start finds it. Appends that still wait are lost and hear so.
    pub fn reopen(&self) -> Self {
        let mut inner = self.lock();
        inner.dead = true;
        let (kept, queue) = (mem::take(&mut inner.kept), mem::take(&mut inner.queue));
        drop(inner);
        for (_, done) in queue {
            done(Err(Refusal::Failed(stopped())));
        }
        Self { delivery: self.delivery, inner: Mutex::new(Inner { kept, ..Inner::default() }) }
    }

    /// Commits all that waits and returns how many appends that were.
    pub fn flush(&self) -> usize {
        let mut inner = self.lock();
        let queue = mem::take(&mut inner.queue);
        let answers = inner.commit(queue);
        drop(inner);
        let count = answers.len();
        for (done, answer) in answers {
            done(answer);
        }
        count
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no code panics while it holds the memory journal")
    }

    fn read<T>(&self, read: impl FnOnce(&Kept) -> T) -> Result<T, JournalError> {
        let inner = self.lock();
        if inner.dead { Err(stopped()) } else { Ok(read(&inner.kept)) }
    }
}

impl Default for Memory {
    /// For simulations: at once and unchained.
    fn default() -> Self {
        Self::new(Delivery::AtOnce, Chaining::Unchained)
    }
}

fn stopped() -> JournalError {
    JournalError::Io("the memory journal has crashed".into())
}

impl Inner {
    fn commit(&mut self, queue: Vec<(Append, Done)>) -> Vec<(Done, Result<Appended, Refusal>)> {
        let crash = if queue.is_empty() { None } else { self.countdown() };
        if crash == Some(Crash::BeforeCommit) {
            self.dead = true;
        }
        let mut answers = Vec::with_capacity(queue.len());
        for (append, done) in queue {
            let answer = if self.dead { Err(Refusal::Failed(stopped())) } else { self.kept.append(append) };
            answers.push((done, answer));
        }
        if crash == Some(Crash::AfterCommit) {
            self.dead = true;
            answers.iter_mut().for_each(|(_, answer)| *answer = Err(Refusal::Failed(stopped())));
        }
        answers
    }

    fn countdown(&mut self) -> Option<Crash> {
        let (left, crash) = self.crash.as_mut()?;
        *left = left.saturating_sub(1);
        if *left > 0 {
            return None;
        }
        let crash = *crash;
        self.crash = None;
        Some(crash)
    }
}

impl Kept {
    fn append(&mut self, append: Append) -> Result<Appended, Refusal> {
        let before = self.lines.get(&append.call);
        let mut line = Line::after(before.cloned(), &append)?;
        if append.expected == 0 {
            line.keys = self.claim(append.call, &append.claim)?;
            if let Some(hash) = append.claim.identical {
                self.identical.entry(hash).or_default().insert(append.call);
            }
        }
        self.release(append.call, line.keys_after(append.keys));
        for (n, entry) in (append.expected..).zip(append.entries) {
            let link = self.head.as_mut().map(|head| {
                let content = content_hash(&codec::encode(&entry));
                head.chain(append.call, n, append.at, content)
            });
            self.log.push(Row { call: append.call, n, at: append.at, entry: Some(entry), link });
            line.seqs.push(self.log.len() as u64);
        }
        if line.summary.state.is_done() {
            self.open.remove(&append.call);
        } else {
            self.open.insert(append.call);
        }
        let entries = line.summary.entries;
        self.lines.insert(append.call, line);
        Ok(Appended { entries })
    }

    fn claim(&mut self, call: CallId, claim: &Claim) -> Result<Vec<Hash32>, Refusal> {
        let mut free: Vec<Hash32> = Vec::with_capacity(claim.keys.len() + 1);
        for key in &claim.keys {
            if let Some(&call) = self.keys.get(&key.hash) {
                return Err(Refusal::Taken { source: key.source, call });
            }
            if !free.contains(&key.hash) {
                free.push(key.hash);
            }
        }
        if claim.uses.iter().any(|hash| self.keys.contains_key(hash)) {
            return Err(Refusal::Spent);
        }
        if let Some(position) = claim.position {
            let counter = self.positions.entry(position.counter).or_default();
            *counter += 1;
            let key = position.numbered(*counter);
            if let Some(&call) = self.keys.get(&key.hash) {
                return Err(Refusal::Taken { source: key.source, call });
            }
            free.push(key.hash);
        }
        self.keys.extend(free.iter().chain(&claim.uses).map(|&hash| (hash, call)));
        Ok(free)
    }

    fn release(&mut self, call: CallId, keys: Vec<Hash32>) {
        for key in keys {
            if self.keys.get(&key) == Some(&call) {
                self.keys.remove(&key);
            }
        }
    }

    fn record(&self, seq: u64) -> Option<Record> {
        let row = &self.log[seq as usize - 1];
        let entry = row.entry.clone()?;
        Some(Record { seq, call: row.call, n: row.n, at: row.at, entry })
    }

    fn prune_content(&mut self, call: CallId) {
        let Some(line) = self.lines.get_mut(&call) else { return };
        line.pruned = line.summary.entries;
        for seq in mem::take(&mut line.seqs) {
            self.log[seq as usize - 1].entry = None;
        }
    }

    fn prune_line(&mut self, call: CallId) {
        let Some(mut line) = self.lines.remove(&call) else { return };
        self.release(call, line.keys_after(KeyFate::Release));
        let Some(hash) = line.identical else { return };
        if let Some(calls) = self.identical.get_mut(&hash) {
            calls.remove(&call);
            if calls.is_empty() {
                self.identical.remove(&hash);
            }
        }
    }

    fn prune(&mut self, answers: Millis, tombstones: Millis, limit: usize) -> usize {
        let mut due: Vec<_> =
            self.lines.values().filter_map(|line| Some((line.prunable_at()?, line))).collect();
        due.sort_by_key(|(at, line)| (*at, line.summary.call));
        let content = due.iter().filter(|(at, line)| *at < answers && line.pruned < line.summary.entries);
        let tombs = due.iter().filter(|(at, line)| *at < tombstones && line.pruned == line.summary.entries);
        let calls: Vec<_> =
            content.chain(tombs).map(|(at, line)| (*at, line.summary.call)).take(limit).collect();
        for &(at, call) in &calls {
            self.prune_content(call);
            if at < tombstones {
                self.prune_line(call);
            }
        }
        calls.len()
    }

    fn verify(&self) -> Result<Verified, VerifyError> {
        let Some(head) = self.head else {
            let pruned = self.log.iter().filter(|row| row.entry.is_none()).count() as u64;
            return Ok(Verified { entries: self.log.len() as u64, pruned, head: Hash32([0; 32]) });
        };
        let mut checker = Checker::new();
        for (seq, row) in (1..).zip(&self.log) {
            let link = row.link.expect("a chained journal links every row");
            checker.entry(seq, &link, row.entry.as_ref().map(codec::encode).as_deref())?;
        }
        checker.head(head)?;
        for line in self.lines.values() {
            checker.line(line)?;
        }
        checker.finish()
    }
}

impl Journal for Memory {
    fn submit(&self, append: Append, done: Done) -> usize {
        let mut inner = self.lock();
        if self.delivery == Delivery::OnFlush && !inner.dead {
            inner.queue.push((append, done));
            return inner.queue.len();
        }
        let answers = inner.commit(vec![(append, done)]);
        drop(inner);
        for (done, answer) in answers {
            done(answer);
        }
        0
    }

    fn health(&self) -> Result<(), JournalError> {
        if self.lock().dead { Err(stopped()) } else { Ok(()) }
    }

    fn history(&self, call: CallId) -> Result<Vec<Record>, JournalError> {
        self.read(|kept| {
            let Some(line) = kept.lines.get(&call) else { return Vec::new() };
            line.seqs.iter().filter_map(|&seq| kept.record(seq)).collect()
        })
    }

    fn summary(&self, call: CallId) -> Result<Option<Summary>, JournalError> {
        self.read(|kept| kept.lines.get(&call).map(|line| line.summary.clone()))
    }

    fn unfinished(&self) -> Result<Vec<CallId>, JournalError> {
        self.read(|kept| kept.open.iter().copied().collect())
    }

    fn list(&self, filter: &Filter) -> Result<Vec<Summary>, JournalError> {
        self.read(|kept| {
            let newest_first = kept.lines.values().rev().map(|line| &line.summary);
            newest_first.filter(|summary| filter.admits(summary)).take(filter.limit).cloned().collect()
        })
    }

    fn owner(&self, key: Hash32) -> Result<Option<CallId>, JournalError> {
        self.read(|kept| kept.keys.get(&key).copied())
    }

    fn identical(&self, hash: Hash32, limit: usize) -> Result<Vec<Summary>, JournalError> {
        self.read(|kept| {
            let calls = kept.identical.get(&hash).into_iter().flatten().rev().take(limit);
            calls.filter_map(|call| kept.lines.get(call)).map(|line| line.summary.clone()).collect()
        })
    }

    fn tail(&self, from: u64, limit: usize) -> Result<Vec<Record>, JournalError> {
        self.read(|kept| {
            let seqs = from.max(1)..=kept.log.len() as u64;
            seqs.filter_map(|seq| kept.record(seq)).take(limit).collect()
        })
    }

    fn head(&self) -> Result<u64, JournalError> {
        self.read(|kept| kept.log.len() as u64)
    }

    fn cursor(&self, name: &str) -> Result<Option<u64>, JournalError> {
        self.read(|kept| kept.cursors.get(name).copied())
    }

    fn set_cursor(&self, name: &str, seq: u64) -> Result<(), JournalError> {
        let mut inner = self.lock();
        if inner.dead {
            return Err(stopped());
        }
        inner.kept.cursors.insert(name.to_owned(), seq);
        Ok(())
    }

    fn keep(&self, changes: Vec<Keep>) -> Result<(), JournalError> {
        must_be_keepable(&changes);
        let mut inner = self.lock();
        if inner.dead {
            return Err(stopped());
        }
        for (name, value) in changes {
            match value {
                Some(value) => drop(inner.kept.kept.insert(name, value)),
                None => drop(inner.kept.kept.remove(&name)),
            }
        }
        Ok(())
    }

    fn kept(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, JournalError> {
        self.read(|kept| {
            let from = kept.kept.range(prefix.to_owned()..);
            let found = from.take_while(|(name, _)| name.starts_with(prefix));
            found.map(|(name, value)| (name.clone(), value.clone())).collect()
        })
    }

    fn verify(&self, progress: &mut dyn FnMut(u64)) -> Result<Verified, VerifyError> {
        let verified = self.read(Kept::verify)??;
        progress(verified.entries);
        Ok(verified)
    }

    fn prune(&self, answers: Millis, tombstones: Millis, limit: usize) -> Result<usize, JournalError> {
        let mut inner = self.lock();
        if inner.dead { Err(stopped()) } else { Ok(inner.kept.prune(answers, tombstones, limit)) }
    }
}
