//! Rows of the one index table: a tag, a value, and the call, so that each value's calls lie together in order of age.

use std::collections::BTreeSet;

use crate::{
    codec,
    entry::{CallId, Millis},
    fingerprint::Hash32,
    journal::{Filter, JournalError},
    line::Line,
    redb::rows,
    state::State,
};

const ENDED: u8 = b'd';
const TOMBSTONE: u8 = b'x';
const STATE: u8 = b's';
const SERVER: u8 = b'v';
const TOOL: u8 = b't';
const RUN: u8 = b'r';
const IDENTICAL: u8 = b'i';

/// Whether a call still has entries that could be pruned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Kept,
    Pruned,
}

/// All rows of a call but the one of its ending.
pub(super) fn rows(line: &Line) -> impl Iterator<Item = Vec<u8>> {
    let summary = &line.summary;
    let call = summary.call;
    let prefixes = [
        Some(state_prefix(summary.state)),
        Some(text_prefix(SERVER, &summary.server)),
        Some(text_prefix(TOOL, &summary.tool)),
        summary.run.as_deref().map(|run| text_prefix(RUN, run)),
        line.identical.map(identical_prefix),
    ];
    prefixes.into_iter().flatten().map(move |prefix| with_call(prefix, call))
}

/// The row of a call in a state.
pub(super) fn state(state: State, call: CallId) -> Vec<u8> {
    with_call(state_prefix(state), call)
}

/// The row, by time of ending, of a call that may be pruned.
pub(super) fn ended(line: &Line) -> Option<Vec<u8>> {
    let content = if line.pruned == line.summary.entries { Content::Pruned } else { Content::Kept };
    line.prunable_at().map(|at| with_call(ended_prefix(content, at), line.summary.call))
}

/// What the rows of calls that ended `at` begin with.
pub(super) fn ended_prefix(content: Content, at: Millis) -> Vec<u8> {
    let tag = match content {
        Content::Kept => ENDED,
        Content::Pruned => TOMBSTONE,
    };
    let mut prefix = Vec::with_capacity(9 + 16);
    prefix.push(tag);
    prefix.extend(at.0.to_be_bytes());
    prefix
}

/// The call of a row.
pub(super) fn call(row: &[u8]) -> Result<CallId, JournalError> {
    let id =
        row.last_chunk().ok_or_else(|| codec::unreadable("a row of the index is too short".to_owned()))?;
    Ok(CallId::from_bytes(*id))
}

/// The fewest rows that hold every call of the filter; none where all calls must be looked at.
pub(super) fn prefixes(filter: &Filter) -> Option<Vec<Vec<u8>>> {
    let states = || {
        let prefixes: BTreeSet<_> = filter.states.iter().map(|&state| state_prefix(state)).collect();
        prefixes.into_iter().collect()
    };
    if let Some(run) = &filter.run {
        return Some(vec![text_prefix(RUN, run)]);
    }
    // Few calls are unfinished at a time, while "succeeded" may be nearly all of them.
    if !filter.states.is_empty() && !filter.states.iter().any(|state| state.is_done()) {
        return Some(states());
    }
    match (&filter.tool, &filter.server) {
        (Some(tool), _) => Some(vec![text_prefix(TOOL, tool)]),
        (None, Some(server)) => Some(vec![text_prefix(SERVER, server)]),
        (None, None) if !filter.states.is_empty() => Some(states()),
        (None, None) => None,
    }
}

/// What the rows of every call in this state begin with.
pub(super) fn state_prefix(state: State) -> Vec<u8> {
    vec![STATE, rows::state_code(state)]
}

/// What the rows of every call with this `identical` hash begin with.
pub(super) fn identical_prefix(hash: Hash32) -> Vec<u8> {
    let mut prefix = vec![IDENTICAL];
    prefix.extend(hash.0);
    prefix
}

/// `prefix` with a call as its end.
pub(super) fn with_call(mut prefix: Vec<u8>, call: CallId) -> Vec<u8> {
    prefix.extend(call.bytes());
    prefix
}

fn text_prefix(tag: u8, text: &str) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(5 + text.len() + 16);
    prefix.push(tag);
    prefix.extend((text.len() as u32).to_be_bytes());
    prefix.extend(text.as_bytes());
    prefix
}

/// The lower bound of ids of calls accepted at or after `since`: ids are UUIDv7, made at most an hour from their `at`.
pub(super) fn oldest_id(since: Millis) -> CallId {
    const SLACK_MS: u64 = 3_600_000;
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&since.0.saturating_sub(SLACK_MS).to_be_bytes()[2..]);
    CallId::from_bytes(bytes)
}
