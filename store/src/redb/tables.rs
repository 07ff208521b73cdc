//! The tables of the file, and the rows that one append writes into them.
//!
//! One append costs one row in `log` and one in `calls`, one in `keys` for each claimed key, and, in `index`, four when
//! the call is made and two for each change of its state. Everything else is derived when it is read.

use redb::{ReadableTable as _, Table, TableDefinition, WriteTransaction};

use crate::{
    chain::{Head, Link},
    codec,
    entry::{CallId, Millis},
    fingerprint::Hash32,
    journal::{Append, Appended, Claim, JournalError, Keep, KeyFate, Refusal},
    line::Line,
    redb::{
        fault,
        index::{self, Content},
        rows,
    },
};

type Bytes16 = &'static [u8; 16];
type Bytes32 = &'static [u8; 32];

/// Sequence number to link and frame.
pub(super) const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// Call to its line.
pub(super) const CALLS: TableDefinition<'_, Bytes16, &[u8]> = TableDefinition::new("calls");
/// Key hash to the call that has it.
pub(super) const KEYS: TableDefinition<'_, Bytes32, Bytes16> = TableDefinition::new("keys");
/// Counters of run positions. They are never removed: a counter that starts again would answer new work from the record.
pub(super) const POSITIONS: TableDefinition<'_, Bytes32, u64> = TableDefinition::new("positions");
/// See `index`.
pub(super) const INDEX: TableDefinition<'_, &[u8], ()> = TableDefinition::new("index");
/// `head` to the last sequence number and link, `format` to the version of this schema.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Reader of the tail to how far it has come.
pub(super) const CURSORS: TableDefinition<'_, &str, u64> = TableDefinition::new("cursors");
/// Name to what is kept under it beside the facts.
pub(super) const KEPT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("kept");

/// Version of the schema; entries and lines have versions of their own.
const FORMAT: u8 = 1;

/// Creates the tables in an empty file, else checks that this program can read them.
pub(super) fn prepare(txn: &WriteTransaction) -> Result<Head, JournalError> {
    let mut tables = Tables::open(txn)?;
    // Files made before there were these get them here; everybody else may expect them.
    txn.open_table(CURSORS).map_err(fault)?;
    txn.open_table(KEPT).map_err(fault)?;
    let format = tables.meta.get("format").map_err(fault)?.map(|row| row.value().to_vec());
    match format.as_deref() {
        None => {
            tables.meta.insert("format", [FORMAT].as_slice()).map_err(fault)?;
            tables.write_head(Head::START)?;
        }
        Some([FORMAT]) => {}
        Some(other) => {
            let what = format!("the file has schema {other:?}; this version of holdfast reads {FORMAT}");
            return Err(codec::unreadable(what));
        }
    }
    // A file that was tampered with may have rows behind its head: they stay for `verify` to find.
    let last = tables.log.last().map_err(fault)?.map_or(0, |(seq, _)| seq.value());
    let head = tables.read_head()?;
    Ok(Head { seq: head.seq.max(last), ..head })
}

/// All tables in one write transaction.
pub(super) struct Tables<'txn> {
    log: Table<'txn, u64, &'static [u8]>,
    calls: Table<'txn, Bytes16, &'static [u8]>,
    keys: Table<'txn, Bytes32, Bytes16>,
    positions: Table<'txn, Bytes32, u64>,
    index: Table<'txn, &'static [u8], ()>,
    meta: Table<'txn, &'static str, &'static [u8]>,
    /// For tables that few transactions need.
    txn: &'txn WriteTransaction,
    /// False while a transaction would change nothing and need not be committed.
    pub(super) dirty: bool,
}

/// A frame with the hash that the chain keeps of it.
pub(super) struct Frame {
    pub(super) bytes: Vec<u8>,
    pub(super) hash: Hash32,
}

impl<'txn> Tables<'txn> {
    pub(super) fn open(txn: &'txn WriteTransaction) -> Result<Self, JournalError> {
        Ok(Self {
            log: txn.open_table(LOG).map_err(fault)?,
            calls: txn.open_table(CALLS).map_err(fault)?,
            keys: txn.open_table(KEYS).map_err(fault)?,
            positions: txn.open_table(POSITIONS).map_err(fault)?,
            index: txn.open_table(INDEX).map_err(fault)?,
            meta: txn.open_table(META).map_err(fault)?,
            txn,
            dirty: false,
        })
    }

    /// Checks everything first, so that a refused append leaves nothing (but an advanced position) in the transaction.
    pub(super) fn append(
        &mut self,
        append: &Append,
        frames: &[Frame],
        head: &mut Head,
    ) -> Result<Result<Appended, Refusal>, JournalError> {
        let id = append.call.bytes();
        let before = self.line(append.call)?;
        let was = before.as_ref().map(|line| (line.summary.state, index::ended(line)));
        let mut line = match Line::after(before, append) {
            Ok(line) => line,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if append.expected == 0 {
            line.keys = match self.claim(append.call, &append.claim, append.keys)? {
                Ok(keys) => keys,
                Err(refusal) => return Ok(Err(refusal)),
            };
        }
        self.dirty = true;
        for key in line.keys_after(append.keys) {
            self.release(append.call, key)?;
        }
        for (n, frame) in (append.expected..).zip(frames) {
            let link = head.chain(append.call, n, append.at, frame.hash);
            self.write_row(head.seq, &link, &frame.bytes)?;
            line.seqs.push(head.seq);
        }
        let (was_state, was_ended) = was.unzip();
        match was_state {
            None => index::rows(&line).try_for_each(|row| self.insert_index(&row))?,
            Some(state) => self.move_index(
                Some(index::state(state, append.call)),
                Some(index::state(line.summary.state, append.call)),
            )?,
        }
        self.move_index(was_ended.flatten(), index::ended(&line))?;
        self.calls.insert(&id, rows::encode_line(&line).as_slice()).map_err(fault)?;
        Ok(Ok(Appended { entries: line.summary.entries }))
    }

    fn line(&self, call: CallId) -> Result<Option<Line>, JournalError> {
        let row = self.calls.get(&call.bytes()).map_err(fault)?;
        row.map(|row| rows::decode_line(call, row.value())).transpose()
    }

    /// The keys that the call has from now on. With `Release` they are checked but not kept.
    fn claim(
        &mut self,
        call: CallId,
        claim: &Claim,
        fate: KeyFate,
    ) -> Result<Result<Vec<Hash32>, Refusal>, JournalError> {
        let mut free: Vec<Hash32> = Vec::with_capacity(claim.keys.len() + 1);
        for key in &claim.keys {
            if let Some(call) = self.owner(key.hash)? {
                return Ok(Err(Refusal::Taken { source: key.source, call }));
            }
            if !free.contains(&key.hash) {
                free.push(key.hash);
            }
        }
        for &hash in &claim.uses {
            if self.owner(hash)?.is_some() {
                return Ok(Err(Refusal::Spent));
            }
        }
        if let Some(position) = claim.position {
            let n = self.positions.get(&position.counter.0).map_err(fault)?.map_or(0, |row| row.value()) + 1;
            self.positions.insert(&position.counter.0, n).map_err(fault)?;
            self.dirty = true;
            let key = position.numbered(n);
            if let Some(call) = self.owner(key.hash)? {
                return Ok(Err(Refusal::Taken { source: key.source, call }));
            }
            free.push(key.hash);
        }
        if fate == KeyFate::Keep {
            for key in &free {
                self.keys.insert(&key.0, &call.bytes()).map_err(fault)?;
            }
        }
        for hash in &claim.uses {
            self.keys.insert(&hash.0, &call.bytes()).map_err(fault)?;
        }
        Ok(Ok(free))
    }

    fn owner(&self, key: Hash32) -> Result<Option<CallId>, JournalError> {
        let row = self.keys.get(&key.0).map_err(fault)?;
        Ok(row.map(|row| CallId::from_bytes(*row.value())))
    }

    fn release(&mut self, call: CallId, key: Hash32) -> Result<(), JournalError> {
        if self.owner(key)? == Some(call) {
            self.keys.remove(&key.0).map_err(fault)?;
        }
        Ok(())
    }

    fn write_row(&mut self, seq: u64, link: &Link, frame: &[u8]) -> Result<(), JournalError> {
        self.log.insert(seq, rows::encode_row(link, frame).as_slice()).map_err(fault)?;
        Ok(())
    }

    fn insert_index(&mut self, row: &[u8]) -> Result<(), JournalError> {
        self.index.insert(row, ()).map_err(fault)?;
        Ok(())
    }

    fn remove_index(&mut self, row: &[u8]) -> Result<(), JournalError> {
        self.index.remove(row).map_err(fault)?;
        Ok(())
    }

    fn move_index(&mut self, was: Option<Vec<u8>>, is: Option<Vec<u8>>) -> Result<(), JournalError> {
        if was == is {
            return Ok(());
        }
        was.map_or(Ok(()), |row| self.remove_index(&row))?;
        is.map_or(Ok(()), |row| self.insert_index(&row))
    }

    fn read_head(&self) -> Result<Head, JournalError> {
        decode_head(self.meta.get("head").map_err(fault)?.as_ref().map(|row| row.value()))
    }

    pub(super) fn write_head(&mut self, head: Head) -> Result<(), JournalError> {
        let mut row = [0; 40];
        row[..8].copy_from_slice(&head.seq.to_be_bytes());
        row[8..].copy_from_slice(&head.link.0);
        self.meta.insert("head", row.as_slice()).map_err(fault)?;
        self.dirty = true;
        Ok(())
    }

    /// See [`crate::Journal::set_cursor`].
    pub(super) fn set_cursor(&mut self, name: &str, seq: u64) -> Result<(), JournalError> {
        self.txn.open_table(CURSORS).map_err(fault)?.insert(name, seq).map_err(fault)?;
        self.dirty = true;
        Ok(())
    }

    /// See [`crate::Journal::keep`].
    pub(super) fn keep(&mut self, changes: &[Keep]) -> Result<(), JournalError> {
        let mut kept = self.txn.open_table(KEPT).map_err(fault)?;
        for (name, value) in changes {
            match value {
                Some(value) => drop(kept.insert(name.as_str(), value.as_slice()).map_err(fault)?),
                None => drop(kept.remove(name.as_str()).map_err(fault)?),
            }
        }
        self.dirty = true;
        Ok(())
    }

    /// See [`crate::Journal::prune`].
    pub(super) fn prune(
        &mut self,
        answers: Millis,
        tombstones: Millis,
        limit: usize,
    ) -> Result<usize, JournalError> {
        let mut calls = self.due(Content::Kept, answers, limit)?;
        calls.extend(self.due(Content::Pruned, tombstones, limit - calls.len())?);
        for &call in &calls {
            let Some(line) = self.line(call)? else {
                return Err(codec::unreadable(format!("call {call} is to be pruned and has no line")));
            };
            self.prune_call(line, tombstones)?;
        }
        Ok(calls.len())
    }

    fn due(&self, content: Content, before: Millis, limit: usize) -> Result<Vec<CallId>, JournalError> {
        let [from, to] = [Millis(0), before].map(|at| index::ended_prefix(content, at));
        let rows = self.index.range(from.as_slice()..to.as_slice()).map_err(fault)?;
        rows.take(limit).map(|row| index::call(row.map_err(fault)?.0.value())).collect()
    }

    fn prune_call(&mut self, mut line: Line, tombstones: Millis) -> Result<(), JournalError> {
        let call = line.summary.call;
        let was = index::ended(&line);
        for seq in std::mem::take(&mut line.seqs) {
            let Some(pruned) =
                self.log.get(seq).map_err(fault)?.map(|row| rows::prune_row(row.value()).to_vec())
            else {
                return Err(codec::unreadable(format!("entry {seq} of call {call} is missing")));
            };
            self.log.insert(seq, pruned.as_slice()).map_err(fault)?;
        }
        line.pruned = line.summary.entries;
        self.dirty = true;
        if line.done_at.is_some_and(|at| at >= tombstones) {
            self.move_index(was, index::ended(&line))?;
            self.calls.insert(&call.bytes(), rows::encode_line(&line).as_slice()).map_err(fault)?;
            return Ok(());
        }
        for row in index::rows(&line).chain(was) {
            self.remove_index(&row)?;
        }
        for key in line.keys_after(KeyFate::Release) {
            self.release(call, key)?;
        }
        self.calls.remove(&call.bytes()).map_err(fault)?;
        Ok(())
    }
}

/// The row `head` of `meta`.
pub(super) fn decode_head(row: Option<&[u8]>) -> Result<Head, JournalError> {
    let row: Option<&[u8; 40]> = row.and_then(|row| row.try_into().ok());
    let (seq, link) = row
        .and_then(|row| row.split_first_chunk::<8>())
        .ok_or_else(|| codec::unreadable("the head of the chain is missing".to_owned()))?;
    let link = Hash32(link.try_into().expect("40 - 8 bytes"));
    Ok(Head { seq: u64::from_be_bytes(*seq), link })
}
