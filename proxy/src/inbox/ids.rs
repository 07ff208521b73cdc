//! Call ids as people type them: any unambiguous beginning or end.

use holdfast_store::{CallId, Filter, Journal, JournalError};

/// Fewer digits than this are more likely a slip than a choice.
const SHORTEST: usize = 4;
/// How many calls are looked at, newest first.
const RECENT: usize = 50_000;
const PAGE: usize = 1_000;

/// Why a text names no call.
#[derive(Debug)]
pub(crate) enum NoCall {
    /// It is no part of an id.
    Malformed,
    /// No call has such an id.
    Unknown,
    /// Several have: the newest of them.
    Ambiguous(Vec<CallId>),
    /// The journal cannot be read.
    Journal(JournalError),
}

/// The call whose id is, begins with or ends in `text`; dashes do not count.
///
/// # Errors
/// Where that is not exactly one of the recent calls. A whole id is looked up however old it is.
pub(crate) fn find(journal: &dyn Journal, text: &str) -> Result<CallId, NoCall> {
    let digits: String = text.trim().chars().filter(|c| *c != '-').map(|c| c.to_ascii_lowercase()).collect();
    if digits.len() < SHORTEST || digits.len() > 32 || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
        return Err(NoCall::Malformed);
    }
    if let (32, Ok(call)) = (digits.len(), digits.parse::<CallId>()) {
        let known = journal.summary(call).map_err(NoCall::Journal)?;
        let known = known.filter(|_| call != CallId::REGISTER);
        return known.map(|_| call).ok_or(NoCall::Unknown);
    }
    let mut found = Vec::new();
    let mut before = None;
    for _ in 0..RECENT / PAGE {
        let filter = Filter { before, limit: PAGE, ..Filter::default() };
        let page = journal.list(&filter).map_err(NoCall::Journal)?;
        found.extend(page.iter().map(|summary| summary.call).filter(|call| matches(*call, &digits)));
        before = page.last().map(|summary| summary.call);
        if page.len() < PAGE {
            break;
        }
    }
    match found.as_slice() {
        [] => Err(NoCall::Unknown),
        [call] => Ok(*call),
        _ => {
            found.truncate(5);
            Err(NoCall::Ambiguous(found))
        }
    }
}

/// The id as tables show it: its last 8 digits, which are random. The first ones are a time, alike for calls of the
/// same minute.
pub(crate) fn short(call: CallId) -> String {
    let digits = call.0.simple().to_string();
    digits[24..].to_owned()
}

fn matches(call: CallId, digits: &str) -> bool {
    let id = call.0.simple().to_string();
    id.starts_with(digits) || id.ends_with(digits)
}
