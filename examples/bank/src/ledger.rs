//! The ledger file: one JSON line per fact, synced before it counts.
//!
//! What holds whenever the process dies:
//!
//! - before the line is written: it is not there;
//! - in the middle of the line: the tail has no newline, no reader counts it, and the next writer cuts it off;
//! - after the line, before the sync: it may or may not survive a power cut, and nobody was told that it would;
//! - after the sync: it is there.
//!
//! Several processes may have the file open: each takes a lock to write, and reads what the others wrote first.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::book::{Book, Closure, Line, Order, Receipt, Refusal, Transfer};

/// Whether a line is forced to the disk before it counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Durability {
    Synced,
    /// Survives a crash of the process but not of the machine; for benchmarks.
    Unsynced,
}

/// Why the ledger could not be read or written, in words for the operator.
#[derive(Debug)]
pub(crate) enum LedgerError {
    /// This operation has written nothing.
    Unusable(String),
    /// The line may or may not be on the disk.
    InDoubt(String),
}

/// An open ledger.
pub(crate) struct Ledger {
    file: File,
    path: PathBuf,
    durability: Durability,
    book: Book,
    /// Bytes folded into `book`; always just after a newline.
    read_to: u64,
    /// Why no more is written: a failed sync cannot be repeated to learn what it did.
    broken: Option<String>,
}

impl Ledger {
    /// Opens for writing and creates the file if it is missing.
    pub(crate) fn open(path: &Path, durability: Durability) -> Result<Ledger, LedgerError> {
        let fresh = !path.exists();
        let mut options = OpenOptions::new();
        let ledger = Self::open_with(options.read(true).append(true).create(true), path, durability)?;
        if fresh && durability == Durability::Synced {
            sync_directory_of(path)?;
        }
        Ok(ledger)
    }

    /// Opens an existing file to read it only.
    pub(crate) fn open_to_read(path: &Path) -> Result<Ledger, LedgerError> {
        Self::open_with(OpenOptions::new().read(true), path, Durability::Unsynced)
    }

    fn open_with(options: &OpenOptions, path: &Path, durability: Durability) -> Result<Ledger, LedgerError> {
        let file = options.open(path).map_err(|e| unusable(path, "opened", &e))?;
        let (path, book) = (path.to_owned(), Book::default());
        let mut ledger = Ledger { file, path, durability, book, read_to: 0, broken: None };
        ledger.catch_up()?;
        Ok(ledger)
    }

    /// What the file says now.
    pub(crate) fn book(&mut self) -> Result<&Book, LedgerError> {
        self.catch_up()?;
        Ok(&self.book)
    }

    /// Bytes of a torn last line, which is not counted.
    pub(crate) fn torn_bytes(&mut self) -> Result<u64, LedgerError> {
        Ok(self.catch_up()? - self.read_to)
    }

    pub(crate) fn durability(&self) -> Durability {
        self.durability
    }

    /// Makes the transfer, or returns the receipt of the one that was made under the same idempotency key.
    pub(crate) fn transfer(
        &mut self,
        order: Order,
        at: String,
    ) -> Result<Result<Receipt, Refusal>, LedgerError> {
        self.exclusively(|ledger| {
            match ledger.book.earlier(&order) {
                Err(refusal) => return Ok(Err(refusal)),
                Ok(Some(receipt)) => return Ok(Ok(receipt.clone())),
                Ok(None) => {}
            }
            if let Err(refusal) = ledger.book.quote(&order) {
                return Ok(Err(refusal));
            }
            let n = ledger.book.next_n();
            let Order { from, to, amount, reference, idempotency_key } = order;
            let id = format!("t-{n}");
            ledger.append(Line::Transfer(Transfer {
                n,
                id,
                from,
                to,
                amount,
                reference,
                idempotency_key,
                at,
            }))?;
            Ok(Ok(ledger.book.receipts().last().expect("append has just folded this transfer").clone()))
        })
    }

    /// Closes an empty account for good.
    pub(crate) fn close(
        &mut self,
        account: &str,
        at: String,
    ) -> Result<Result<Closure, Refusal>, LedgerError> {
        self.exclusively(|ledger| {
            if let Err(refusal) = ledger.book.check_closable(account) {
                return Ok(Err(refusal));
            }
            let n = ledger.book.next_n();
            let closure = Closure { n, id: format!("c-{n}"), closed: account.to_owned(), at };
            ledger.append(Line::Closure(closure.clone()))?;
            Ok(Ok(closure))
        })
    }

    fn exclusively<T>(
        &mut self,
        act: impl FnOnce(&mut Ledger) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        if let Some(reason) = &self.broken {
            return Err(LedgerError::Unusable(reason.clone()));
        }
        self.file.lock().map_err(|e| unusable(&self.path, "locked", &e))?;
        let result = self.catch_up().and_then(|_| act(self));
        // Closing the file would release the lock as well, so a failure here is worth no error of its own.
        let _ = self.file.unlock();
        result
    }

    /// Folds what was added since the last look, and returns the length of the file.
    fn catch_up(&mut self) -> Result<u64, LedgerError> {
        let length = self.file.metadata().map_err(|e| unusable(&self.path, "read", &e))?.len();
        if length == self.read_to {
            return Ok(length);
        }
        if length < self.read_to {
            let path = self.path.display();
            return Err(LedgerError::Unusable(format!("{path} has become shorter; restart the bank")));
        }
        let mut added = Vec::new();
        self.file
            .seek(SeekFrom::Start(self.read_to))
            .and_then(|_| (&self.file).take(length - self.read_to).read_to_end(&mut added))
            .map_err(|e| unusable(&self.path, "read", &e))?;
        for text in added.split_inclusive(|&b| b == b'\n').filter(|text| text.ends_with(b"\n")) {
            Line::parse(text).and_then(|line| self.book.fold(line)).map_err(|e| {
                let (path, n) = (self.path.display(), self.book.next_n());
                LedgerError::Unusable(format!("{path}, line {n}: not a line of this ledger: {e}"))
            })?;
            self.read_to += text.len() as u64;
        }
        Ok(length)
    }

    /// Only inside `exclusively`: nobody else is writing, so a tail without newline is from a dead writer.
    fn append(&mut self, line: Line) -> Result<(), LedgerError> {
        let mut text = serde_json::to_vec(&line).expect("a line of strings and integers serialises");
        text.push(b'\n');
        self.cut_tail().map_err(|e| unusable(&self.path, "repaired", &e))?;
        if let Err(error) = self.file.write_all(&text) {
            return Err(match self.cut_tail() {
                Ok(()) => unusable(&self.path, "written", &error),
                Err(_) => self.break_off(&error),
            });
        }
        if self.durability == Durability::Synced
            && let Err(error) = self.file.sync_data()
        {
            return Err(self.break_off(&error));
        }
        self.read_to += text.len() as u64;
        self.book.fold(line).expect("the order was checked against this book");
        Ok(())
    }

    fn cut_tail(&self) -> std::io::Result<()> {
        if self.file.metadata()?.len() > self.read_to { self.file.set_len(self.read_to) } else { Ok(()) }
    }

    fn break_off(&mut self, error: &std::io::Error) -> LedgerError {
        let path = self.path.display();
        self.broken = Some(format!("{path} failed earlier ({error}); restart the bank"));
        LedgerError::InDoubt(format!("{path}: the transfer may or may not be written: {error}"))
    }
}

fn unusable(path: &Path, done: &str, error: &std::io::Error) -> LedgerError {
    LedgerError::Unusable(format!("{} cannot be {done}: {error}", path.display()))
}

/// A new file's name is durable only once its directory is.
fn sync_directory_of(path: &Path) -> Result<(), LedgerError> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    File::open(directory).and_then(|d| d.sync_all()).map_err(|e| unusable(directory, "synced", &e))
}
