//! Entries as bytes, with the version of their format in front.

use std::sync::Arc;

use crate::{entry::Entry, journal::JournalError};

/// Version of the frames that are written now: one byte, then the entry as JSON, texts byte for byte.
const FRAME: u8 = 1;

/// The frame of an entry.
pub fn encode(entry: &Entry) -> Vec<u8> {
    let mut frame = Vec::with_capacity(512);
    frame.push(FRAME);
    serde_json::to_writer(&mut frame, entry).expect("entries always serialise");
    frame
}

/// The entry of a frame.
///
/// # Errors
/// [`JournalError::Unreadable`] for a version that this program does not know and for a frame that is not whole.
pub fn decode(frame: &[u8]) -> Result<Entry, JournalError> {
    match frame.split_first() {
        Some((&FRAME, json)) => serde_json::from_slice(json)
            .map_err(|error| unreadable(format!("an entry of format {FRAME} is damaged: {error}"))),
        Some((version, _)) => {
            Err(unreadable(format!("an entry has format {version}; this version of holdfast reads {FRAME}")))
        }
        None => Err(unreadable("an entry is empty".to_owned())),
    }
}

pub(crate) fn unreadable(what: String) -> JournalError {
    JournalError::Unreadable(Arc::from(what))
}
