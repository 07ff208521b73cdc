//! Which requests may have been sent: written before the first byte of one leaves, into a file in memory that outlives
//! the process because the keeper has it open, too.
//!
//! What is not in the log was not sent, so it may be sent, however the process that should have done it ended. That holds
//! as far back as the log reaches: it forgets the oldest entries, and knows nothing of a time before it was made.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use holdfast_store::Millis;
use rustix::fs::{MemfdFlags, memfd_create};

/// Entries that are kept: more than are in flight at any time.
const ENTRIES: u64 = 1 << 16;
/// An entry: its own number from 1, the request, when it was written, and the number of the server that got it.
const ENTRY_BYTES: usize = 32;
/// Before the entries: since when the log is complete, and zeros.
const HEADER_BYTES: u64 = ENTRY_BYTES as u64;

/// The log.
pub(crate) struct Sent {
    file: File,
    next: AtomicU64,
    /// What was in it when we found it.
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    /// Zero: not known yet.
    complete_since: Millis,
    servers: HashMap<u64, u64>,
}

/// Where an entry is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(u64);

/// What the log says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It may have been sent, to the server of this number.
    To(u64),
    /// It was not.
    Never,
    /// The log does not reach back so far.
    Unknown,
}

impl Sent {
    /// An empty log that is not complete since any time yet.
    ///
    /// # Errors
    /// Where there is no memory for it.
    pub(super) fn new() -> io::Result<Self> {
        let file = File::from(memfd_create("holdfast-sent", MemfdFlags::CLOEXEC)?);
        Ok(Self { file, next: AtomicU64::new(1), found: Mutex::default() })
    }

    /// The log of an earlier life.
    pub(super) fn find(file: OwnedFd) -> io::Result<Self> {
        let file = File::from(file);
        let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut bytes, 0)?;
        let word = |bytes: &[u8], n: usize| {
            bytes
                .get(n * 8..n * 8 + 8)
                .map_or(0, |word| u64::from_le_bytes(word.try_into().expect("8 bytes")))
        };
        let complete_since = word(&bytes, 0);
        let (mut last, mut oldest, mut servers) = (0, (u64::MAX, 0), HashMap::new());
        for entry in bytes.chunks_exact(ENTRY_BYTES).skip(1) {
            let [number, request, at, server] = [0, 1, 2, 3].map(|n| word(entry, n));
            if number == 0 {
                continue;
            }
            last = last.max(number);
            oldest = oldest.min((number, at));
            if request != 0 {
                servers.insert(request, server);
            }
        }
        // Of the time before the oldest entry others may have been overwritten.
        let reaches = if oldest.0 > 1 && last > 0 { complete_since.max(oldest.1) } else { complete_since };
        let complete_since = Millis(if complete_since == 0 { 0 } else { reaches });
        Ok(Self {
            file,
            next: AtomicU64::new(last + 1),
            found: Mutex::new(Found { complete_since, servers }),
        })
    }

    /// For the keeper.
    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// From now on nothing is sent that is not in the log. Without effect on one that is complete already.
    pub(crate) fn complete_from(&self, now: Millis) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.complete_since == Millis(0) && self.file.write_all_at(&now.0.to_le_bytes(), 0).is_ok() {
            found.complete_since = now;
        }
    }

    /// Writes that `request` is about to be sent to this server. One write into memory.
    pub(crate) fn begin(&self, request: u64, server: u64, now: Millis) -> Mark {
        let mark = Mark(self.next.fetch_add(1, Ordering::Relaxed));
        self.write(mark, request, server, now);
        mark
    }

    /// Not a byte of it was taken.
    pub(crate) fn take_back(&self, mark: Mark, now: Millis) {
        self.write(mark, 0, 0, now);
    }

    fn write(&self, Mark(number): Mark, request: u64, server: u64, now: Millis) {
        let mut entry = [0; ENTRY_BYTES];
        for (place, word) in entry.chunks_exact_mut(8).zip([number, request, now.0, server]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let place = HEADER_BYTES + ((number - 1) % ENTRIES) * ENTRY_BYTES as u64;
        if let Err(error) = self.file.write_all_at(&entry, place) {
            tracing::error!(%error, "what is sent cannot be noted; after a crash it will be in doubt");
            // A log that is empty proves nothing.
            let _ = self.file.set_len(0);
        }
    }

    /// Whether it knows of this request of an earlier life.
    pub(crate) fn has(&self, request: u64) -> bool {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).servers.contains_key(&request)
    }

    /// What became of a request of an earlier life that was to be sent at this time or later.
    pub(crate) fn fate(&self, request: u64, meant: Millis) -> Fate {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        match found.servers.get(&request) {
            Some(server) => Fate::To(*server),
            None if found.complete_since != Millis(0) && meant > found.complete_since => Fate::Never,
            None => Fate::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(log: &Sent) -> Sent {
        Sent::find(log.file.try_clone().expect("a descriptor").into()).expect("readable")
    }

    #[test]
    fn what_is_not_in_the_log_was_not_sent() {
        let log = Sent::new().expect("memory");
        assert_eq!(again(&log).fate(5, Millis(100)), Fate::Unknown, "of an empty log nobody knows");
        log.complete_from(Millis(10));
        log.complete_from(Millis(99));
        log.begin(5, 1, Millis(20));
        let mark = log.begin(6, 1, Millis(21));
        log.take_back(mark, Millis(22));
        let later = again(&log);
        assert_eq!(later.fate(5, Millis(20)), Fate::To(1));
        assert_eq!(later.fate(6, Millis(21)), Fate::Never);
        assert_eq!(later.fate(7, Millis(11)), Fate::Never);
        assert_eq!(later.fate(7, Millis(10)), Fate::Unknown, "it may have been before the log");
        later.begin(8, 2, Millis(30));
        assert_eq!(again(&later).fate(8, Millis(30)), Fate::To(2));
        assert_eq!(again(&later).fate(5, Millis(20)), Fate::To(1));
    }

    #[test]
    fn what_was_overwritten_proves_nothing() {
        let log = Sent::new().expect("memory");
        log.complete_from(Millis(1));
        log.begin(5, 1, Millis(2));
        for n in 0..ENTRIES {
            log.begin(1_000 + n, 1, Millis(10 + n));
        }
        let later = again(&log);
        assert_eq!(later.fate(5, Millis(2)), Fate::Unknown);
        assert_eq!(later.fate(6, Millis(10)), Fate::Unknown);
        assert_eq!(later.fate(6, Millis(11)), Fate::Never);
        assert_eq!(later.fate(1_000, Millis(10)), Fate::To(1));
    }
}
