//! Rows of the log and lines of calls as bytes, each line with the version of its format in front.

use crate::{
    chain::Link,
    codec,
    entry::{CallId, Millis},
    fingerprint::Hash32,
    journal::{JournalError, Summary},
    line::Line,
    state::{Outcome, State},
};

/// Version of the lines that are written now.
const LINE: u8 = 1;

/// Length of a link in front of its frame.
const LINK: usize = 16 + 4 + 8 + 32 + 32;

/// A row of the log: the link, then the frame; a pruned entry ends after the link.
pub(super) fn encode_row(link: &Link, frame: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(LINK + frame.len());
    row.extend(link.call.bytes());
    row.extend(link.n.to_be_bytes());
    row.extend(link.at.0.to_be_bytes());
    row.extend(link.content.0);
    row.extend(link.hash.0);
    row.extend(frame);
    row
}

/// The parts of a row of the log.
pub(super) fn decode_row(row: &[u8]) -> Result<(Link, Option<&[u8]>), JournalError> {
    let mut rest = Reader(row);
    let link = Link {
        call: CallId::from_bytes(rest.array()?),
        n: u32::from_be_bytes(rest.array()?),
        at: Millis(u64::from_be_bytes(rest.array()?)),
        content: Hash32(rest.array()?),
        hash: Hash32(rest.array()?),
    };
    Ok((link, (!rest.0.is_empty()).then_some(rest.0)))
}

/// The row without its content.
pub(super) fn prune_row(row: &[u8]) -> &[u8] {
    &row[..row.len().min(LINK)]
}

/// A call's line; the call itself is the row's key.
pub(super) fn encode_line(line: &Line) -> Vec<u8> {
    let summary = &line.summary;
    let mut out = Vec::with_capacity(192);
    out.push(LINE);
    out.push(state_code(summary.state));
    out.extend(summary.at.0.to_be_bytes());
    out.extend(summary.updated.0.to_be_bytes());
    put_option(&mut out, line.done_at.as_ref(), |out, at| out.extend(at.0.to_be_bytes()));
    for number in [summary.entries, summary.attempts, line.pruned] {
        put_number(&mut out, number.into());
    }
    for text in [&summary.principal, &summary.server, &summary.tool] {
        put_text(&mut out, text);
    }
    put_option(&mut out, summary.run.as_deref(), put_text);
    put_option(&mut out, line.identical.as_ref(), |out, hash| out.extend(hash.0));
    put_number(&mut out, line.keys.len() as u64);
    line.keys.iter().for_each(|key| out.extend(key.0));
    put_number(&mut out, line.seqs.len() as u64);
    let mut before = 0;
    for &seq in &line.seqs {
        put_number(&mut out, seq - before);
        before = seq;
    }
    out
}

/// The line of `call`.
pub(super) fn decode_line(call: CallId, bytes: &[u8]) -> Result<Line, JournalError> {
    let mut rest = Reader(bytes);
    let version = rest.byte()?;
    if version != LINE {
        return Err(codec::unreadable(format!(
            "a call's line has format {version}; this version of holdfast reads {LINE}"
        )));
    }
    let state = state_of(rest.byte()?)?;
    let at = Millis(u64::from_be_bytes(rest.array()?));
    let updated = Millis(u64::from_be_bytes(rest.array()?));
    let done_at = rest.option(|rest| Ok(Millis(u64::from_be_bytes(rest.array()?))))?;
    let [entries, attempts, pruned] = [rest.small()?, rest.small()?, rest.small()?];
    let [principal, server, tool] = [rest.text()?, rest.text()?, rest.text()?];
    let run = rest.option(Reader::text)?;
    let identical = rest.option(|rest| Ok(Hash32(rest.array()?)))?;
    let keys = (0..rest.number()?).map(|_| Ok(Hash32(rest.array()?))).collect::<Result<_, JournalError>>()?;
    let mut before = 0;
    let seqs = (0..rest.number()?)
        .map(|_| {
            before = rest.number()?.wrapping_add(before);
            Ok(before)
        })
        .collect::<Result<_, JournalError>>()?;
    let summary = Summary { call, at, updated, principal, server, tool, run, state, attempts, entries };
    Ok(Line { summary, done_at, keys, identical, pruned, seqs })
}

/// The byte that stands for a state in lines and indexes. Never reuse one.
pub(super) fn state_code(state: State) -> u8 {
    match state {
        State::Previewing => 7,
        State::Asking => 1,
        State::Approved => 2,
        State::Ready => 3,
        State::InFlight => 4,
        State::Backoff => 5,
        State::InDoubt => 6,
        State::Done(Outcome::Succeeded) => 16,
        State::Done(Outcome::Failed) => 17,
        State::Done(Outcome::Denied) => 18,
        State::Done(Outcome::Refused) => 19,
        State::Done(Outcome::Expired) => 20,
        State::Done(Outcome::Cancelled) => 21,
        State::Done(Outcome::Unknown) => 22,
    }
}

fn state_of(code: u8) -> Result<State, JournalError> {
    State::ALL
        .into_iter()
        .find(|&state| state_code(state) == code)
        .ok_or_else(|| codec::unreadable(format!("a call's line has the unknown state {code}")))
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(out, text.len() as u64);
    out.extend(text.as_bytes());
}

fn put_option<T: ?Sized>(out: &mut Vec<u8>, value: Option<&T>, put: impl FnOnce(&mut Vec<u8>, &T)) {
    out.push(value.is_some().into());
    if let Some(value) = value {
        put(out, value);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize) -> Result<&'a [u8], JournalError> {
        let (bytes, rest) = self
            .0
            .split_at_checked(length)
            .ok_or_else(|| codec::unreadable("a row ends too early".to_owned()))?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], JournalError> {
        Ok(self.bytes(N)?.try_into().expect("as many bytes as asked for"))
    }

    fn byte(&mut self) -> Result<u8, JournalError> {
        Ok(self.array::<1>()?[0])
    }

    fn number(&mut self) -> Result<u64, JournalError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(codec::unreadable("a number in a row is too long".to_owned()))
    }

    fn small(&mut self) -> Result<u32, JournalError> {
        u32::try_from(self.number()?)
            .map_err(|_| codec::unreadable("a number in a row is too large".to_owned()))
    }

    fn text(&mut self) -> Result<String, JournalError> {
        let length = self.small()? as usize;
        let bytes = self.bytes(length)?.to_vec();
        String::from_utf8(bytes).map_err(|_| codec::unreadable("a text in a row is not UTF-8".to_owned()))
    }

    fn option<T>(
        &mut self,
        some: impl FnOnce(&mut Self) -> Result<T, JournalError>,
    ) -> Result<Option<T>, JournalError> {
        match self.byte()? {
            0 => Ok(None),
            _ => some(self).map(Some),
        }
    }
}
