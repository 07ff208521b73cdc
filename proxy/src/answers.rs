//! Answers that are too large for the journal: files beside it, what is told of them, and who may read them.
//!
//! An answer over `intake.max_answer` becomes a file, a row that says whose it is, and an entry with its hash, in this
//! order, each durable before the next. By cases. Killed after the file: nothing refers to it, and the next start
//! removes it; the call is in flight still, and becomes lost. After the row: likewise, and the row goes with it. After
//! the entry: the call is done, and everything that it refers to was there before. A file goes when no entry refers to
//! it any more, which is when the last call with this answer is pruned. Writers and the sweep exclude each other, since
//! a file that nothing refers to yet must not be swept.

mod files;
mod told;

use std::{collections::HashSet, io, sync::Arc};

use holdfast_store::{CallId, Entry, Hash32, Journal, JournalError, Kept, Verified, VerifyError};
use serde_json::{Value, json};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

pub(crate) use told::lacks_structure;

use crate::{config::Place, driver::read};
use files::Files;

/// How the address of an answer begins.
const SCHEME: &str = "holdfast://answers/";
/// How the names of rows begin that say whose answers there are.
const ROWS: &str = "answer/";
/// Bytes of a part where it is not said how many.
const PART: u64 = 64 << 10;
/// Bytes of a part at most.
const PART_MOST: u64 = 4 << 20;
/// Entries that are looked at in one go.
const AT_ONCE: usize = 1_000;

/// The answers that lie beside a journal.
pub(crate) struct Answers {
    journal: Arc<dyn Journal>,
    /// None where the journal is no file: then every answer is in the journal.
    files: Option<Files>,
    writing: Arc<RwLock<()>>,
}

/// Keeps a file from being swept while nothing refers to it yet.
pub(crate) struct Writing {
    _writing: OwnedRwLockReadGuard<()>,
}

/// Text of an answer, for an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    /// As it was asked for.
    pub(crate) uri: String,
    /// The text, or a part of it.
    pub(crate) text: String,
    /// Where the part begins, in bytes.
    pub(crate) offset: u64,
    /// Bytes of the whole.
    pub(crate) size: u64,
}

/// Bytes of an answer, for HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bytes {
    /// What was asked for.
    pub(crate) bytes: Vec<u8>,
    /// Where they begin.
    pub(crate) offset: u64,
    /// Bytes of the whole.
    pub(crate) size: u64,
}

/// Who wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader<'a> {
    /// An agent: the answers of its own calls.
    Principal(&'a str),
    /// An operator: all.
    Operator,
}

/// Why nothing is read.
#[derive(Debug)]
pub(crate) enum Unread {
    /// It is no address of an answer, or has a range that makes no sense.
    NoAddress,
    /// There is none, or it is somebody else's, which must look the same.
    NotFound,
    /// It begins behind the end; the size is this.
    Behind(u64),
    /// The file or the journal cannot be read.
    Failed(String),
}

impl Answers {
    /// The answers beside the journal at `place`.
    pub(crate) fn new(journal: Arc<dyn Journal>, place: &Place) -> Self {
        let files = match place {
            Place::Redb(store) => Some(Files::beside(store)),
            Place::Postgres(_) => None,
        };
        Self { journal, files, writing: Arc::default() }
    }

    /// Puts the answers among these entries of a call that have more than `most` bytes into files. What cannot be written stays in its
    /// entry, whole. The entries must be durable before what comes back is dropped.
    pub(crate) async fn lighten(
        &self,
        call: CallId,
        principal: &str,
        most: u64,
        entries: &mut [Entry],
    ) -> Option<Writing> {
        let files = self.files.as_ref()?;
        let mut writing = None;
        for entry in entries {
            let (Entry::Answered { answer, kept, .. } | Entry::AnsweredAgain { answer, kept, .. }) = entry
            else {
                continue;
            };
            if kept.is_some() || answer.text.len() as u64 <= most {
                continue;
            }
            if writing.is_none() {
                writing = Some(Writing { _writing: self.writing.clone().read_owned().await });
            }
            let (files, text, principal) =
                (files.clone(), answer.text.clone(), principal.as_bytes().to_vec());
            let put = read(&self.journal, move |journal| {
                let kept = files.put(&text).map_err(|error| JournalError::Io(error.to_string().into()))?;
                journal.keep(vec![(row(kept.sha256, call), Some(principal))])?;
                Ok(kept)
            });
            match put.await {
                Ok(file) => {
                    *answer = told::told(answer, file, most);
                    *kept = Some(file);
                }
                Err(error) => {
                    tracing::warn!(%call, %error, "a large answer could not be put into a file and stays in the journal");
                }
            }
        }
        writing
    }

    /// The text at an address, or the part that the address asks for: `holdfast://answers/<sha256>`, with
    /// `?offset=BYTES&length=BYTES`.
    ///
    /// # Errors
    /// See [`Unread`].
    pub(crate) async fn read(&self, reader: Reader<'_>, uri: &str) -> Result<Contents, Unread> {
        let asked = Asked::of(uri).ok_or(Unread::NoAddress)?;
        let (files, sha256) = (self.for_reader(reader, asked.sha256).await?, asked.sha256);
        let uri = uri.to_owned();
        let found = blocking(move || {
            let size = files.length(sha256)?;
            let (offset, text) = match asked.part {
                None => (0, files.whole(sha256)?),
                Some((offset, length)) => {
                    let part = files.part(sha256, offset, length)?;
                    (part.offset, part.text)
                }
            };
            Ok(Contents { uri, text, offset, size })
        });
        found.await
    }

    /// Bytes of an answer from `offset`, at most `length`; all where neither is given. A negative offset counts from the
    /// end.
    ///
    /// # Errors
    /// See [`Unread`].
    pub(crate) async fn bytes(
        &self,
        reader: Reader<'_>,
        sha256: Hash32,
        range: Option<Range>,
    ) -> Result<Bytes, Unread> {
        let files = self.for_reader(reader, sha256).await?;
        let size = {
            let files = files.clone();
            blocking(move || files.length(sha256)).await?
        };
        let (offset, length) = match range {
            None => (0, size),
            Some(Range::From(offset, length)) => (offset, length),
            Some(Range::Last(length)) => (size.saturating_sub(length), length),
        };
        if range.is_some() && (offset >= size || length == 0) {
            return Err(Unread::Behind(size));
        }
        blocking(move || Ok(Bytes { bytes: files.bytes(sha256, offset, length)?, offset, size })).await
    }

    async fn for_reader(&self, reader: Reader<'_>, sha256: Hash32) -> Result<Files, Unread> {
        let files = self.files.clone().ok_or(Unread::NotFound)?;
        let rows = read(&self.journal, move |journal| journal.kept(&format!("{ROWS}{sha256}/")));
        let rows = rows.await.map_err(|error| Unread::Failed(error.to_string()))?;
        let allowed = rows.iter().any(|(_, owner)| match reader {
            Reader::Principal(principal) => owner == principal.as_bytes(),
            Reader::Operator => true,
        });
        allowed.then_some(files).ok_or(Unread::NotFound)
    }

    /// Removes rows that no entry stands behind, and files without a row: what a crash has left, and what was pruned.
    ///
    /// # Errors
    /// Where the journal or the directory cannot be used.
    pub(crate) async fn sweep(&self) -> Result<usize, JournalError> {
        let Some(files) = self.files.clone() else { return Ok(0) };
        let _alone = self.writing.clone().write_owned().await;
        read(&self.journal, move |journal| {
            let (mut wanted, mut gone) = (HashSet::new(), Vec::new());
            for (name, _) in journal.kept(ROWS)? {
                match row_of(&name) {
                    Some((sha256, call)) if refers(journal, call, sha256)? => drop(wanted.insert(sha256)),
                    _ => gone.push((name, None)),
                }
            }
            for some in gone.chunks(AT_ONCE) {
                journal.keep(some.to_vec())?;
            }
            files
                .keep_only(|sha256| wanted.contains(&sha256))
                .map_err(|error| JournalError::Io(format!("the directory of answers: {error}").into()))
        })
        .await
    }

    /// Checks the chain, and the files that its entries refer to.
    ///
    /// # Errors
    /// The first broken place.
    pub(crate) fn verify(&self) -> Result<Verified, VerifyError> {
        let verified = self.journal.verify(&mut |_| {})?;
        let Some(files) = &self.files else { return Ok(verified) };
        let mut from = 1;
        loop {
            let records = self.journal.tail(from, AT_ONCE).map_err(VerifyError::Journal)?;
            let Some(last) = records.last() else { return Ok(verified) };
            from = last.seq + 1;
            for record in &records {
                if let Some(what) = kept(&record.entry).and_then(|kept| files.fault(kept)) {
                    return Err(VerifyError::Broken { seq: record.seq, what });
                }
            }
        }
    }
}

/// A part of a file, as HTTP asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Range {
    /// From this byte, so many.
    From(u64, u64),
    /// So many at the end.
    Last(u64),
}

impl Range {
    /// The one range of a `Range` header; none where there is another kind, or several, which may be passed over.
    pub(crate) fn of(header: &str) -> Option<Self> {
        let (first, last) = header.trim().strip_prefix("bytes=")?.split_once('-')?;
        match (first.trim(), last.trim()) {
            ("", last) => Some(Self::Last(last.parse().ok()?)),
            (first, "") => Some(Self::From(first.parse().ok()?, u64::MAX)),
            (first, last) => {
                let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
                Some(Self::From(first, last.checked_sub(first)?.saturating_add(1)))
            }
        }
    }
}

impl Contents {
    /// The result of `resources/read`.
    pub(crate) fn result(&self) -> Value {
        let end = self.offset + self.text.len() as u64;
        let mut meta = json!({ "io.holdfast/offset": self.offset, "io.holdfast/size": self.size });
        if end < self.size {
            let next = self.uri.split('?').next().unwrap_or_default();
            meta["io.holdfast/next"] = format!("{next}?offset={end}&length={PART}").into();
        }
        json!({ "contents": [{
            "uri": self.uri, "mimeType": "application/json", "text": self.text, "_meta": meta,
        }] })
    }
}

/// What an address asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    sha256: Hash32,
    /// Offset and length; none for the whole.
    part: Option<(u64, u64)>,
}

impl Asked {
    fn of(uri: &str) -> Option<Self> {
        let rest = uri.strip_prefix(SCHEME)?;
        let (hash, query) = rest.split_once('?').map_or((rest, None), |(hash, query)| (hash, Some(query)));
        let sha256 = hash.parse().ok()?;
        let Some(query) = query else { return Some(Self { sha256, part: None }) };
        let (mut offset, mut length) = (0, PART);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=')? {
                ("offset", value) => offset = value.parse().ok()?,
                ("length", value) => length = value.parse().ok()?,
                _ => return None,
            }
        }
        (length > 0).then_some(Self { sha256, part: Some((offset, length.min(PART_MOST))) })
    }
}

/// The address of an answer.
fn uri(sha256: Hash32) -> String {
    format!("{SCHEME}{sha256}")
}

/// Whether this is the address of an answer, whoever may read it.
pub(crate) fn is_address(uri: &str) -> bool {
    uri.starts_with(SCHEME)
}

/// The file that an entry refers to.
pub(crate) fn kept(entry: &Entry) -> Option<Kept> {
    match entry {
        Entry::Answered { kept, .. } | Entry::AnsweredAgain { kept, .. } => *kept,
        _ => None,
    }
}

fn refers(journal: &dyn Journal, call: CallId, sha256: Hash32) -> Result<bool, JournalError> {
    let records = journal.history(call)?;
    Ok(records.iter().any(|record| kept(&record.entry).is_some_and(|kept| kept.sha256 == sha256)))
}

fn row(sha256: Hash32, call: CallId) -> String {
    format!("{ROWS}{sha256}/{call}")
}

fn row_of(name: &str) -> Option<(Hash32, CallId)> {
    let (sha256, call) = name.strip_prefix(ROWS)?.split_once('/')?;
    Some((sha256.parse().ok()?, call.parse().ok()?))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Unread> {
    let done = tokio::task::spawn_blocking(work).await.expect("reading a file does not panic");
    done.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Unread::NotFound,
        _ => Unread::Failed(error.to_string()),
    })
}

#[cfg(test)]
mod tests;
