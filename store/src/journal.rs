//! The contract of a journal: what is acknowledged is durable, and each key is claimed by one call.
//!
//! Every implementation passes the one suite in `tests/contract.rs`.
//!
//! * **Acknowledged means fsynced.** `done` is called only after the append would survive a power loss.
//! * **All or nothing.** Entries, claimed keys, indexes and the chain of one append become durable together.
//! * **Compare-and-swap.** An append names how many entries its call has; anything else is a [`Refusal::Conflict`].
//! * **One order.** Entries get consecutive sequence numbers; each is chained by hash to the one before it.
//! * **A failed write ends it.** After the first failed write every append is refused until the journal is
//!   opened again: what the medium holds is no longer known.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    accepted::{Key, KeySource},
    entry::{CallId, Entry, Millis},
    fingerprint::{Hash32, KeyHash},
    state::State,
};

/// Facts about one call that become durable together.
#[derive(Clone, Debug)]
pub struct Append {
    /// The call.
    pub call: CallId,
    /// When the facts became known.
    pub at: Millis,
    /// How many entries the call has so far; 0 creates it.
    pub expected: u32,
    /// The facts, in order. Not empty.
    pub entries: Vec<Entry>,
    /// What a new call claims; ignored with `expected > 0`.
    pub claim: Claim,
    /// What becomes of the keys of the call.
    pub keys: KeyFate,
    /// Whether somebody waits.
    pub urgency: Urgency,
}

/// What a new call claims, atomically with its first entries.
#[derive(Clone, Debug, Default)]
pub struct Claim {
    /// Checked in this order; the first that is taken decides and nothing is written.
    pub keys: Vec<Key>,
    /// Claimed for good, also where the call's other keys are released, and checked after `keys`: uses of remembered
    /// decisions, each of which counts however the call ends.
    pub uses: Vec<KeyHash>,
    /// Checked last: the call's place among the identical calls of one incarnation of a run.
    ///
    /// The journal keeps a counter under `counter`. The claimed key is `key.numbered(counter + 1)`. The counter
    /// advances durably when that key is claimed *and* when it turns out to be taken, but not when one of `keys`
    /// or `uses` was taken.
    pub position: Option<Position>,
    /// Under which hash the call can be found as the possible origin of a re-issue.
    pub identical: Option<Hash32>,
}

/// A run position (semantics section 5, source 4).
#[derive(Clone, Copy, Debug)]
pub struct Position {
    /// One incarnation of a run and one fingerprint.
    pub counter: Hash32,
    /// The run and the fingerprint; numbered, it is the key.
    pub key: Hash32,
}

impl Position {
    /// The key of the n-th identical call, from 1.
    pub fn numbered(&self, n: u64) -> Key {
        let hash = crate::fingerprint::hash_fields("holdfast/position", &[&self.key.0, &n.to_be_bytes()]);
        Key { source: KeySource::Run, hash }
    }
}

/// What an append does to the keys of its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFate {
    /// They stay with the call.
    Keep,
    /// They are freed, in the same transaction: the next request with one of them is a fresh call.
    Release,
}

/// Whether somebody waits for the append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Commit as soon as the writer is free.
    Now,
    /// May wait a moment for others to share a commit with (at most 100 ms).
    Soon,
}

/// A durable append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// How many entries the call has now.
    pub entries: u32,
}

/// Why an append was not made. Nothing of it was written.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// A key belongs to another call (which may have been pruned down to this tombstone).
    Taken {
        /// The key's namespace.
        source: KeySource,
        /// The call that has it.
        call: CallId,
    },
    /// One of the uses is another call's.
    Spent,
    /// The call has another number of entries than expected.
    Conflict {
        /// How many it has.
        entries: u32,
    },
    /// The journal does not work (any more).
    Failed(JournalError),
}

/// A journal that could not be opened, read or written.
#[derive(Clone, Debug)]
pub enum JournalError {
    /// Another process has it open.
    Locked {
        /// The file.
        place: String,
    },
    /// The medium refused; the text says what and where. No append works until the journal is opened again.
    Io(Arc<str>),
    /// The content is not what this version can read.
    Unreadable(Arc<str>),
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked { place } => write!(f, "{place} is in use by another process"),
            Self::Io(what) => write!(f, "the journal cannot be used: {what}"),
            Self::Unreadable(what) => write!(f, "the journal cannot be read: {what}"),
        }
    }
}

impl std::error::Error for JournalError {}

/// One entry as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Record {
    /// Position in the whole journal, from 1.
    pub seq: u64,
    /// The call.
    pub call: CallId,
    /// Position among the entries of its call, from 0.
    pub n: u32,
    /// When the fact became known.
    pub at: Millis,
    /// The fact.
    pub entry: Entry,
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Summary {
    /// The call.
    pub call: CallId,
    /// When it was accepted.
    pub at: Millis,
    /// When its last entry became known.
    pub updated: Millis,
    /// Who asked.
    pub principal: String,
    /// The server.
    pub server: String,
    /// The tool.
    pub tool: String,
    /// The agent's task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Where it stands.
    pub state: State,
    /// Number of dispatches.
    pub attempts: u32,
    /// Number of entries.
    pub entries: u32,
}

/// Which calls to list: all given conditions hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only calls in one of these states; empty: any.
    pub states: Vec<State>,
    /// Only calls of this server.
    pub server: Option<String>,
    /// Only calls of this tool.
    pub tool: Option<String>,
    /// Only calls of this run.
    pub run: Option<String>,
    /// Only calls accepted at or after.
    pub since: Option<Millis>,
    /// Only calls older than this one: the next page.
    pub before: Option<CallId>,
    /// At most this many.
    pub limit: usize,
}

/// A whole chain that verifies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Verified {
    /// Number of entries.
    pub entries: u64,
    /// Entries whose content has been pruned and of which only the hash is left.
    pub pruned: u64,
    /// Hash of the last link: whoever keeps it elsewhere can prove a truncation later.
    pub head: Hash32,
}

/// Where a chain is broken.
#[derive(Clone, Debug)]
pub enum VerifyError {
    /// This entry is not the one that was written.
    Broken {
        /// Its place.
        seq: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The journal itself failed.
    Journal(JournalError),
}

/// Something that lasts beside the facts: a name and a value, or none where the name is to be forgotten.
pub type Keep = (String, Option<Vec<u8>>);

/// Bytes of a name that [`Journal::keep`] takes.
pub const KEEP_NAME_MOST: usize = 256;
/// Bytes of a value that [`Journal::keep`] takes.
pub const KEEP_VALUE_MOST: usize = 128 << 10;

/// Called once with the outcome of a submitted append, on the journal's own thread: it must not block.
pub type Done = Box<dyn FnOnce(Result<Appended, Refusal>) + Send>;

/// What a journal does. See the module's text for what it promises.
pub trait Journal: Send + Sync {
    /// Queues an append and returns how many are waiting. `done` is always called, exactly once.
    fn submit(&self, append: Append, done: Done) -> usize;

    /// Whether appends are still taken.
    ///
    /// # Errors
    /// The failed write that ended it.
    fn health(&self) -> Result<(), JournalError>;

    /// All entries of a call that are still kept, in order; none for an unknown call.
    ///
    /// A pruned call has no entries but still a summary.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    fn history(&self, call: CallId) -> Result<Vec<Record>, JournalError>;

    /// A call's line, also when its entries have been pruned.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    fn summary(&self, call: CallId) -> Result<Option<Summary>, JournalError>;

    /// Calls that are not done, oldest first.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    fn unfinished(&self) -> Result<Vec<CallId>, JournalError>;

    /// Calls by filter, newest first, by index where one applies.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    fn list(&self, filter: &Filter) -> Result<Vec<Summary>, JournalError>;

    /// The call that has this key, if one has.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    fn owner(&self, key: KeyHash) -> Result<Option<CallId>, JournalError>;

    /// Calls accepted under this `identical` hash, newest first, at most `limit`.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    fn identical(&self, hash: Hash32, limit: usize) -> Result<Vec<Summary>, JournalError>;

    /// Entries in the journal's order from `from` (inclusive), at most `limit`: for export and live tails.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    fn tail(&self, from: u64, limit: usize) -> Result<Vec<Record>, JournalError>;

    /// The number of the newest entry, pruned or not; 0 in an empty journal.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    fn head(&self) -> Result<u64, JournalError>;

    /// How far the reader of the tail with this name has come, as it last said; none for one that never did.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    fn cursor(&self, name: &str) -> Result<Option<u64>, JournalError>;

    /// Keeps how far the reader of the tail with this name has come, and returns once that is durable. No fact about a
    /// call, so no link of the chain; the last word counts, also a smaller number.
    ///
    /// # Errors
    /// Where the journal cannot be written.
    fn set_cursor(&self, name: &str, seq: u64) -> Result<(), JournalError>;

    /// Keeps these values under their names, all or none, and returns once that is durable. No facts about calls, so no
    /// links of the chain; the last word counts. What is kept stays until it is forgotten: who keeps it bounds it.
    ///
    /// # Errors
    /// Where the journal cannot be written.
    ///
    /// # Panics
    /// On a name over [`KEEP_NAME_MOST`] or a value over [`KEEP_VALUE_MOST`].
    fn keep(&self, changes: Vec<Keep>) -> Result<(), JournalError>;

    /// What is kept under names that begin with `prefix`, by name.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    fn kept(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, JournalError>;

    /// Checks every link of the chain and every call's numbering; `progress` hears the count now and then.
    ///
    /// # Errors
    /// The first broken place.
    fn verify(&self, progress: &mut dyn FnMut(u64)) -> Result<Verified, VerifyError>;

    /// Removes the content of calls done before `answers`, and keys and lines of calls done before `tombstones`; at
    /// most `limit` calls a time. Unfinished, in-doubt and unknown calls stay. Returns the number of calls touched.
    ///
    /// # Errors
    /// Where the journal cannot be written.
    fn prune(&self, answers: Millis, tombstones: Millis, limit: usize) -> Result<usize, JournalError>;
}

/// Panics where one of these is too large to be kept.
pub(crate) fn must_be_keepable(changes: &[Keep]) {
    for (name, value) in changes {
        assert!(name.len() <= KEEP_NAME_MOST, "a name of {} bytes is not kept", name.len());
        let length = value.as_ref().map_or(0, Vec::len);
        assert!(length <= KEEP_VALUE_MOST, "{length} bytes are not kept under one name");
    }
}
