//! The hash chain over all entries: each link covers its entry and the link before it.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use crate::{
    codec,
    entry::{CallId, Millis},
    fingerprint::{Hash32, hash_fields},
    journal::{JournalError, Verified, VerifyError},
    line::{self, Line},
    state::State,
};

/// The end of the chain so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Number of entries, which is also the last sequence number.
    pub(crate) seq: u64,
    pub(crate) link: Hash32,
}

/// One entry as it is chained. Pruning takes the content and leaves everything here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) call: CallId,
    pub(crate) n: u32,
    pub(crate) at: Millis,
    pub(crate) content: Hash32,
    pub(crate) hash: Hash32,
}

impl Head {
    /// Before the first entry.
    pub(crate) const START: Self = Self { seq: 0, link: Hash32([0; 32]) };

    /// Chains the next entry, and moves on to it.
    pub(crate) fn chain(&mut self, call: CallId, n: u32, at: Millis, content: Hash32) -> Link {
        self.seq += 1;
        self.link = link_hash(self.link, self.seq, call, n, at, content);
        Link { call, n, at, content, hash: self.link }
    }
}

/// The hash that stands for an entry's frame after the frame is gone.
pub(crate) fn content_hash(frame: &[u8]) -> Hash32 {
    Hash32(Sha256::digest(frame).into())
}

fn link_hash(before: Hash32, seq: u64, call: CallId, n: u32, at: Millis, content: Hash32) -> Hash32 {
    let fields: [&[u8]; 6] =
        [&before.0, &seq.to_be_bytes(), &call.bytes(), &n.to_be_bytes(), &at.0.to_be_bytes(), &content.0];
    hash_fields("holdfast/link", &fields)
}

/// Checks a journal's entries in order, then its head, then its lines.
pub(crate) struct Checker {
    head: Head,
    pruned: u64,
    calls: HashMap<CallId, Seen>,
}

struct Seen {
    last: u64,
    entries: u32,
    pruned: u32,
    state: Option<State>,
}

impl Checker {
    pub(crate) fn new() -> Self {
        Self { head: Head::START, pruned: 0, calls: HashMap::new() }
    }

    /// The next entry; `frame` is none where the entry says that its content was pruned.
    pub(crate) fn entry(&mut self, seq: u64, link: &Link, frame: Option<&[u8]>) -> Result<(), VerifyError> {
        let broken = |what: &str| Err(VerifyError::Broken { seq, what: what.to_owned() });
        if seq != self.head.seq + 1 {
            let missing = self.head.seq + 1;
            return Err(VerifyError::Broken { seq: missing, what: "the entry is missing".to_owned() });
        }
        if frame.is_some_and(|frame| content_hash(frame) != link.content) {
            return broken("its content is not what was written");
        }
        if self.head.chain(link.call, link.n, link.at, link.content) != *link {
            return broken("its link does not follow from the entry before it");
        }
        let seen =
            self.calls.entry(link.call).or_insert(Seen { last: 0, entries: 0, pruned: 0, state: None });
        if seen.entries != link.n {
            return broken("its number does not follow from the call's entry before it");
        }
        seen.last = seq;
        seen.entries += 1;
        let Some(frame) = frame else {
            seen.pruned += 1;
            self.pruned += 1;
            return Ok(());
        };
        if seen.pruned == 0 {
            let fact = codec::decode(frame).map_err(VerifyError::Journal)?;
            match line::following(link.call, seen.state, &fact) {
                Ok(state) => seen.state = Some(state),
                Err(illegal) => return broken(&illegal),
            }
        }
        Ok(())
    }

    /// A call's line, after the head: it must say what the entries say.
    pub(crate) fn line(&mut self, line: &Line) -> Result<(), VerifyError> {
        let summary = &line.summary;
        let Some(seen) = self.calls.remove(&summary.call) else {
            let seq = self.head.seq + 1;
            return Err(VerifyError::Broken {
                seq,
                what: format!("all entries of call {} are missing", summary.call),
            });
        };
        let seq = seen.last;
        if seen.entries != summary.entries {
            let what = format!(
                "call {} has {} entries and should have {}",
                summary.call, seen.entries, summary.entries
            );
            return Err(VerifyError::Broken { seq, what });
        }
        if seen.pruned != line.pruned {
            let what = format!(
                "call {} lost the content of {} entries, not {}",
                summary.call, seen.pruned, line.pruned
            );
            return Err(VerifyError::Broken { seq, what });
        }
        if seen.pruned == 0 && seen.state != Some(summary.state) {
            let what = format!(
                "call {} is listed as `{}`, which its entries do not say",
                summary.call,
                summary.state.name()
            );
            return Err(VerifyError::Broken { seq, what });
        }
        Ok(())
    }

    /// The head that was written down beside the entries, after all of them.
    pub(crate) fn head(&self, head: Head) -> Result<(), VerifyError> {
        if self.head.seq < head.seq {
            let what = format!("the entries from here to {} are missing", head.seq);
            return Err(VerifyError::Broken { seq: self.head.seq + 1, what });
        }
        if self.head != head {
            let what = format!("the last known entry is {}", head.seq);
            return Err(VerifyError::Broken { seq: self.head.seq, what });
        }
        Ok(())
    }

    /// After all lines: whatever call has none must have been pruned as a whole.
    pub(crate) fn finish(self) -> Result<Verified, VerifyError> {
        let stray = self.calls.into_iter().filter(|(_, seen)| seen.pruned != seen.entries);
        if let Some((call, seen)) = stray.min_by_key(|(_, seen)| seen.last) {
            return Err(VerifyError::Broken {
                seq: seen.last,
                what: format!("call {call} has entries but no line"),
            });
        }
        Ok(Verified { entries: self.head.seq, pruned: self.pruned, head: self.head.link })
    }
}

impl From<JournalError> for VerifyError {
    fn from(error: JournalError) -> Self {
        Self::Journal(error)
    }
}
