//! The journal on disk: one redb file, one writer thread, group commit.

mod index;
mod rows;
mod tables;
mod writer;

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ::redb::{
    Builder, Database, DatabaseError, ReadOnlyTable, ReadTransaction, ReadableDatabase as _,
    ReadableTable as _, StorageBackend, StorageError, WriteTransaction, backends::FileBackend,
};

use crate::{
    chain::{Checker, Head},
    codec,
    entry::{CallId, Millis},
    fingerprint::Hash32,
    journal::{
        Append, Done, Filter, Journal, JournalError, Keep, Record, Summary, Verified, VerifyError,
        must_be_keepable,
    },
    line::Line,
    redb::{
        tables::{CALLS, CURSORS, INDEX, KEPT, KEYS, LOG, META},
        writer::Writer,
    },
    state::State,
};

/// A journal in one file, which one process has open at a time.
pub struct Redb {
    // Dropped first: what is queued is still written.
    writer: Writer,
    db: Arc<Database>,
    place: Arc<str>,
}

/// How a journal's file is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What a commit waits for.
    pub durability: Durability,
    /// How much of the file is kept in memory, in bytes, beside what the kernel keeps.
    pub cache_bytes: usize,
    /// Hears, from 0 to 1, how far the walk through the file has come that opening takes after a crash under load.
    pub on_repair: fn(f64),
}

/// What a commit waits for. Either way, what is acknowledged survives a power loss.
///
/// Measured with a million finished calls in a file of 2.6 GB, 8 MiB of cache, on two cores (`examples/journal_load.rs`):
///
/// | two-phase | empty file | a million calls |
/// |---|---|---|
/// | start | 2 ms | 3 ms |
/// | start after a crash at rest | 2 ms | 3 ms |
/// | start after a crash under load: the file is walked | 2 ms | 2.2 s |
/// | one append alone (p50) | 0.53 ms | 0.57 ms |
/// | CPU for each append, 64 under way | 37 us | 54 us |
///
/// One-phase commits save a third of the latency of an append alone. Writing the allocator's state with each commit
/// would spare the walk, and make an append among a million calls 1.66 times as slow as in an empty file: the writer does
/// it when it has had nothing to do for a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Two fsyncs: the data, then the one byte that makes it current.
    #[default]
    TwoPhase,
    /// One fsync. A torn commit is recognised by a checksum that is no defence against chosen content.
    OnePhase,
}

impl Default for Options {
    fn default() -> Self {
        Self { durability: Durability::default(), cache_bytes: 8 << 20, on_repair: |_| {} }
    }
}

impl Durability {
    fn apply(self, txn: &mut WriteTransaction) {
        match self {
            Self::TwoPhase => txn.set_two_phase_commit(true),
            Self::OnePhase => {}
        }
    }

    /// Quick repair implies two phases.
    fn apply_at_rest(self, txn: &mut WriteTransaction) {
        self.apply(txn);
        txn.set_quick_repair(true);
    }
}

impl Redb {
    /// Opens the file, or creates it (readable by its owner only) in a directory that exists.
    ///
    /// # Errors
    /// [`JournalError::Locked`] where another process has it open, [`JournalError::Unreadable`] where it is not a
    /// journal or damaged, [`JournalError::Io`] where the medium refuses. Texts name the file.
    pub fn open(path: &Path, options: Options) -> Result<Self, JournalError> {
        let place: Arc<str> = path.display().to_string().into();
        let opened = open_file(path, options).map_err(|error| io_error(path, &error)).and_then(|file| {
            Self::start(FileBackend::new(file).map_err(open_fault)?, options, place.clone())
        });
        opened.map_err(|error| error.at(&place))
    }

    /// Opens a journal on something else than a file, for tests of the medium's failures.
    ///
    /// # Errors
    /// As [`Redb::open`].
    pub fn open_with_backend(backend: impl StorageBackend, options: Options) -> Result<Self, JournalError> {
        Self::start(backend, options, "the given backend".into())
    }

    fn start(backend: impl StorageBackend, options: Options, place: Arc<str>) -> Result<Self, JournalError> {
        let (db, head) = guarded(|| prepare(backend, options))?;
        let db = Arc::new(db);
        let writer = Writer::start(db.clone(), head, options.durability, place.clone())?;
        Ok(Self { writer, db, place })
    }

    fn read<T, E: From<JournalError>>(&self, read: impl FnOnce(&Tables) -> Result<T, E>) -> Result<T, E> {
        self.writer.failure()?;
        let place = |error: JournalError| error.at(&self.place);
        let tables = self.db.begin_read().map_err(fault).and_then(|txn| Tables::open(&txn)).map_err(place)?;
        guarded(|| read(&tables))
    }
}

/// The opened file with all its tables, and the end of its chain.
fn prepare(backend: impl StorageBackend, options: Options) -> Result<(Database, Head), JournalError> {
    let progress = options.on_repair;
    let db = Builder::new()
        .set_cache_size(options.cache_bytes)
        .set_repair_callback(move |repair| progress(repair.progress()))
        .create_with_backend(backend)
        .map_err(open_fault)?;
    let mut txn = db.begin_write().map_err(fault)?;
    options.durability.apply_at_rest(&mut txn);
    let head = tables::prepare(&txn)?;
    txn.commit().map_err(fault)?;
    Ok((db, head))
}

impl Journal for Redb {
    fn submit(&self, append: Append, done: Done) -> usize {
        self.writer.append(append, done)
    }

    fn health(&self) -> Result<(), JournalError> {
        self.writer.failure()
    }

    fn history(&self, call: CallId) -> Result<Vec<Record>, JournalError> {
        self.read(|tables| {
            let Some(line) = tables.line(call)? else { return Ok(Vec::new()) };
            let rows = line.seqs.into_iter().map(|seq| (seq, tables.log.get(seq).map_err(fault)));
            rows.filter_map(|(seq, row)| {
                let missing = || codec::unreadable(format!("entry {seq} of call {call} is missing"));
                row.and_then(|row| record(seq, row.ok_or_else(missing)?.value())).transpose()
            })
            .collect()
        })
    }

    fn summary(&self, call: CallId) -> Result<Option<Summary>, JournalError> {
        self.read(|tables| Ok(tables.line(call)?.map(|line| line.summary)))
    }

    fn unfinished(&self) -> Result<Vec<CallId>, JournalError> {
        self.read(|tables| {
            let mut calls = Vec::new();
            for state in State::ALL.into_iter().filter(|state| !state.is_done()) {
                let [from, to] = ends(&index::state_prefix(state), &Filter::default());
                for row in tables.index.range(from.as_slice()..=to.as_slice()).map_err(fault)? {
                    calls.push(index::call(row.map_err(fault)?.0.value())?);
                }
            }
            calls.sort_unstable();
            Ok(calls)
        })
    }

    fn list(&self, filter: &Filter) -> Result<Vec<Summary>, JournalError> {
        self.read(|tables| match index::prefixes(filter) {
            Some(prefixes) => tables.newest(&prefixes, filter),
            None => tables.newest_of_all(filter),
        })
    }

    fn owner(&self, key: Hash32) -> Result<Option<CallId>, JournalError> {
        self.read(|tables| {
            let owner = tables.keys.get(&key.0).map_err(fault)?;
            Ok(owner.map(|call| CallId::from_bytes(*call.value())))
        })
    }

    fn identical(&self, hash: Hash32, limit: usize) -> Result<Vec<Summary>, JournalError> {
        let filter = Filter { limit, ..Filter::default() };
        self.read(|tables| tables.newest(&[index::identical_prefix(hash)], &filter))
    }

    fn tail(&self, from: u64, limit: usize) -> Result<Vec<Record>, JournalError> {
        self.read(|tables| {
            let rows = tables.log.range(from..).map_err(fault)?;
            let records = rows.filter_map(|row| match row.map_err(fault) {
                Ok((seq, row)) => record(seq.value(), row.value()).transpose(),
                Err(error) => Some(Err(error)),
            });
            records.take(limit).collect()
        })
    }

    fn head(&self) -> Result<u64, JournalError> {
        self.read(|tables| Ok(tables.log.last().map_err(fault)?.map_or(0, |(seq, _)| seq.value())))
    }

    fn cursor(&self, name: &str) -> Result<Option<u64>, JournalError> {
        self.read(|tables| Ok(tables.cursors.get(name).map_err(fault)?.map(|seq| seq.value())))
    }

    fn set_cursor(&self, name: &str, seq: u64) -> Result<(), JournalError> {
        self.writer.set_cursor(name, seq)
    }

    fn keep(&self, changes: Vec<Keep>) -> Result<(), JournalError> {
        must_be_keepable(&changes);
        self.writer.keep(changes)
    }

    fn kept(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, JournalError> {
        self.read(|tables| {
            let mut found = Vec::new();
            for row in tables.kept.range(prefix..).map_err(fault)? {
                let (name, value) = row.map_err(fault)?;
                if !name.value().starts_with(prefix) {
                    break;
                }
                found.push((name.value().to_owned(), value.value().to_vec()));
            }
            Ok(found)
        })
    }

    fn verify(&self, progress: &mut dyn FnMut(u64)) -> Result<Verified, VerifyError> {
        const STEP: u64 = 10_000;
        self.read(|tables| {
            let mut checker = Checker::new();
            for row in tables.log.iter().map_err(fault)? {
                let (seq, row) = row.map_err(fault)?;
                let (link, frame) = rows::decode_row(row.value())?;
                checker.entry(seq.value(), &link, frame)?;
                if seq.value() % STEP == 0 {
                    progress(seq.value());
                }
            }
            let head = tables.meta.get("head").map_err(fault)?;
            checker.head(tables::decode_head(head.as_ref().map(|row| row.value()))?)?;
            for row in tables.calls.iter().map_err(fault)? {
                let (id, line) = row.map_err(fault)?;
                checker.line(&rows::decode_line(CallId::from_bytes(*id.value()), line.value())?)?;
            }
            checker.finish()
        })
    }

    fn prune(&self, answers: Millis, tombstones: Millis, limit: usize) -> Result<usize, JournalError> {
        self.writer.prune(answers, tombstones, limit)
    }
}

/// The tables that are read, all as of the same commit.
struct Tables {
    log: ReadOnlyTable<u64, &'static [u8]>,
    calls: ReadOnlyTable<&'static [u8; 16], &'static [u8]>,
    index: ReadOnlyTable<&'static [u8], ()>,
    keys: ReadOnlyTable<&'static [u8; 32], &'static [u8; 16]>,
    meta: ReadOnlyTable<&'static str, &'static [u8]>,
    cursors: ReadOnlyTable<&'static str, u64>,
    kept: ReadOnlyTable<&'static str, &'static [u8]>,
}

impl Tables {
    fn open(txn: &ReadTransaction) -> Result<Self, JournalError> {
        Ok(Self {
            log: txn.open_table(LOG).map_err(fault)?,
            calls: txn.open_table(CALLS).map_err(fault)?,
            index: txn.open_table(INDEX).map_err(fault)?,
            keys: txn.open_table(KEYS).map_err(fault)?,
            meta: txn.open_table(META).map_err(fault)?,
            cursors: txn.open_table(CURSORS).map_err(fault)?,
            kept: txn.open_table(KEPT).map_err(fault)?,
        })
    }

    fn line(&self, call: CallId) -> Result<Option<Line>, JournalError> {
        let row = self.calls.get(&call.bytes()).map_err(fault)?;
        row.map(|row| rows::decode_line(call, row.value())).transpose()
    }

    /// Calls whose rows begin with one of the prefixes, merged by age.
    fn newest(&self, prefixes: &[Vec<u8>], filter: &Filter) -> Result<Vec<Summary>, JournalError> {
        let ranges = prefixes.iter().map(|prefix| {
            let [from, to] = ends(prefix, filter);
            self.index.range(from.as_slice()..=to.as_slice()).map_err(fault)
        });
        let mut ranges = ranges.collect::<Result<Vec<_>, _>>()?;
        let mut next = |range: usize| match ranges[range].next_back() {
            Some(row) => index::call(row.map_err(fault)?.0.value()).map(Some),
            None => Ok(None),
        };
        let mut newest = (0..prefixes.len()).map(&mut next).collect::<Result<Vec<_>, JournalError>>()?;
        let mut found = Vec::new();
        while found.len() < filter.limit
            && let Some((range, call)) = newest
                .iter()
                .enumerate()
                .filter_map(|(range, call)| Some((range, (*call)?)))
                .max_by_key(|(_, call)| *call)
        {
            newest[range] = next(range)?;
            let line =
                self.line(call)?.ok_or_else(|| codec::unreadable(format!("call {call} has no line")))?;
            if filter.admits(&line.summary) {
                found.push(line.summary);
            }
        }
        Ok(found)
    }

    fn newest_of_all(&self, filter: &Filter) -> Result<Vec<Summary>, JournalError> {
        let [from, to] = ages(filter).map(CallId::bytes);
        let mut rows = self.calls.range::<&[u8; 16]>(&from..=&to).map_err(fault)?;
        let mut found = Vec::new();
        while found.len() < filter.limit
            && let Some(row) = rows.next_back()
        {
            let (id, line) = row.map_err(fault)?;
            let line = rows::decode_line(CallId::from_bytes(*id.value()), line.value())?;
            if filter.admits(&line.summary) {
                found.push(line.summary);
            }
        }
        Ok(found)
    }
}

/// The first and the last row that a prefix can have for a filter.
fn ends(prefix: &[u8], filter: &Filter) -> [Vec<u8>; 2] {
    ages(filter).map(|call| index::with_call(prefix.to_vec(), call))
}

/// The oldest and the youngest call that a filter can mean, roughly: the filter itself has the last word.
fn ages(filter: &Filter) -> [CallId; 2] {
    let first = filter.since.map_or(CallId::from_bytes([0; 16]), index::oldest_id);
    let last = filter.before.unwrap_or(CallId::from_bytes([0xff; 16]));
    // redb wants even an empty range in order.
    [first.min(last), last]
}

/// The record in a row of the log; none if it was pruned.
fn record(seq: u64, row: &[u8]) -> Result<Option<Record>, JournalError> {
    let (link, frame) = rows::decode_row(row)?;
    let Some(frame) = frame else { return Ok(None) };
    let entry = codec::decode(frame)?;
    Ok(Some(Record { seq, call: link.call, n: link.n, at: link.at, entry }))
}

/// The file, which is made first where there is none.
fn open_file(path: &Path, options: Options) -> io::Result<File> {
    let open = || OpenOptions::new().read(true).write(true).open(path);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_file(path, options)?;
            open()
        }
        opened => opened,
    }
}

/// Makes a whole journal under another name and then gives it its own: a crash in between leaves no file that is
/// neither empty nor a journal, which nobody could tell from a damaged one.
fn create_file(path: &Path, options: Options) -> io::Result<()> {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".new-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed)));
    let new = Path::new(&name);
    match fs::remove_file(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        // Left by a process of the same number that was killed while it was here.
        _ => {}
    }
    let mut only_ours = OpenOptions::new();
    only_ours.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut only_ours, 0o600);
    let made = only_ours.open(new).and_then(|file| {
        let failed = |error: JournalError| io::Error::other(error.to_string());
        let backend = FileBackend::new(file).map_err(|error| failed(open_fault(error)))?;
        guarded(|| prepare(backend, options)).map_err(failed).map(drop)
    });
    // Linking replaces no journal that another process made meanwhile.
    let named = made.and_then(|()| match fs::hard_link(new, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(_) => fs::rename(new, path),
        Ok(()) => Ok(()),
    });
    let _ = fs::remove_file(new);
    named.and_then(|()| sync_directory(path))
}

/// Makes a new file's name durable: without it, a power loss could take the whole file.
fn sync_directory(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(directory(path))?.sync_all()?;
    Ok(())
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn io_error(path: &Path, error: &io::Error) -> JournalError {
    let directory = directory(path);
    let what = match error.kind() {
        io::ErrorKind::NotFound if !directory.is_dir() => {
            format!("the directory {} does not exist", directory.display())
        }
        io::ErrorKind::PermissionDenied => format!("not allowed to read and write it ({error})"),
        _ => error.to_string(),
    };
    JournalError::Io(what.into())
}

/// redb asserts some things about what it reads; in a damaged file that is an error like any other.
fn guarded<T, E: From<JournalError>>(read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        Err(codec::unreadable("the file is damaged (its pages contradict each other)".to_owned()).into())
    })
}

fn open_fault(error: DatabaseError) -> JournalError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => JournalError::Locked { place: String::new() },
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
            codec::unreadable(format!("it is not a journal of holdfast ({error})"))
        }
        DatabaseError::Storage(error) => fault(error),
        other => codec::unreadable(other.to_string()),
    }
}

/// What a failed operation of redb means for the journal.
fn fault(error: impl Into<::redb::Error>) -> JournalError {
    match error.into() {
        ::redb::Error::Io(error) => JournalError::Io(error.to_string().into()),
        error @ (::redb::Error::PreviousIo | ::redb::Error::DatabaseClosed) => {
            JournalError::Io(error.to_string().into())
        }
        error => codec::unreadable(error.to_string()),
    }
}

impl JournalError {
    /// The same error, with the file that it happened to.
    fn at(self, place: &str) -> Self {
        match self {
            Self::Locked { .. } => Self::Locked { place: place.to_owned() },
            Self::Io(what) => Self::Io(format!("{place}: {what}").into()),
            Self::Unreadable(what) => Self::Unreadable(format!("{place}: {what}").into()),
        }
    }
}

impl fmt::Debug for Redb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redb").field("place", &self.place).finish_non_exhaustive()
    }
}
