//! The way of a message into a server's stdin: put on a stage, noted, and handed on. Whatever moment is our last, the next
//! life knows whether the server has got it, and finishes what was begun.
//!
//! By cases, if we end
//! * *before it is noted*: it stands on the stage and is not in the log, so it is taken off: it was not sent.
//! * *before it is handed on, or half-way*: what stands on the stage is handed on by the next life, once.
//! * *afterwards*: the stage is empty and the log says that it was sent.
//!
//! Only a message that is larger than the stage can be torn; then the next life ends its line.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::fs::FileExt},
    sync::Arc,
};

use rustix::pipe::{SpliceFlags, splice};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::id::RequestId;
use crate::{
    driver::now,
    keeper::{Mark, Sent, Stage},
};

/// The way into one server.
pub(super) struct Way {
    stdin: OwnedFd,
    enter: File,
    leave: File,
    sent: Arc<Sent>,
    torn: Torn,
    /// The server, as the log knows it.
    number: u64,
}

/// A message on its way.
pub(super) struct Message {
    pub(super) id: Option<RequestId>,
    bytes: Vec<u8>,
    staged: usize,
    /// Handed on.
    pub(super) written: usize,
    mark: Option<Mark>,
    line: LineState,
}

impl Message {
    /// A JSON text as a line. Line ends can only stand between tokens there, where a space is as good.
    pub(super) fn line(id: Option<RequestId>, text: String) -> Self {
        let mut bytes = text.into_bytes();
        for byte in &mut bytes {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        bytes.push(b'\n');
        Self { id, bytes, staged: 0, written: 0, mark: None, line: LineState::Whole }
    }

    /// What is left of one that an earlier life did not hand on whole.
    fn rest(mut bytes: Vec<u8>) -> Self {
        if bytes.last() != Some(&b'\n') {
            bytes.push(b'\n');
        }
        Self { id: None, bytes, staged: 0, written: 0, mark: None, line: LineState::Whole }
    }

    fn is_out(&self) -> bool {
        self.written == self.bytes.len()
    }
}

/// How far a message got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handed {
    /// All of it is out.
    Whole,
    /// The server has to read first.
    Full,
    /// The server reads no more.
    Broken,
}

impl Way {
    pub(super) fn new(stdin: OwnedFd, stage: Stage, torn: OwnedFd, sent: Arc<Sent>, number: u64) -> Self {
        let Stage { enter, leave } = stage;
        Self { stdin, enter: enter.into(), leave: leave.into(), sent, torn: Torn(torn.into()), number }
    }

    /// Hands on as much of the message as the server takes without our waiting.
    pub(super) fn hand(&self, message: &mut Message) -> Handed {
        while !message.is_out() {
            if message.staged == message.written && self.put(message).is_err() {
                return Handed::Broken;
            }
            let count = message.staged - message.written;
            match splice(&self.leave, None, &self.stdin, None, count, SpliceFlags::NONBLOCK) {
                Ok(handed) if handed > 0 => message.written += handed,
                Err(error) if error == rustix::io::Errno::AGAIN => return Handed::Full,
                Err(error) if error == rustix::io::Errno::INTR => {}
                Ok(_) | Err(_) => return Handed::Broken,
            }
        }
        if message.line == LineState::Begun {
            self.torn.set(LineState::Whole);
        }
        Handed::Whole
    }

    /// Puts as much of it as there is room for on the stage, which is empty.
    fn put(&self, message: &mut Message) -> io::Result<()> {
        let first = message.staged == 0;
        message.staged += (&self.enter).write(&message.bytes[message.staged..])?;
        if !first {
            return Ok(());
        }
        if message.staged < message.bytes.len() {
            message.line = LineState::Begun;
            self.torn.set(LineState::Begun);
        }
        let call = message.id.filter(|id| id.is_call());
        message.mark = call.map(|id| self.sent.begin(id.number(), self.number, now()));
        Ok(())
    }

    /// Takes a message back of which nothing was handed on.
    pub(super) fn take_back(&self, message: &Message) {
        // First from the log: what is on the stage alone was not sent.
        if let Some(mark) = message.mark {
            self.sent.take_back(mark, now());
        }
        if message.staged > 0 {
            self.clear();
            self.torn.set(LineState::Whole);
        }
    }

    /// What an earlier life left on the stage and has to be handed on first.
    pub(super) fn left(&self) -> Option<Message> {
        let left = self.clear();
        if left.is_empty() {
            // Of a line that was too large for the stage the rest is lost.
            let torn = self.torn.get() == LineState::Begun;
            return torn.then(|| Message::rest(Vec::new()));
        }
        let whole = serde_json::from_slice::<Whole<'_>>(&left).ok();
        let call = whole.and_then(|whole| RequestId::read(whole.id?.get())).filter(|id| id.is_call());
        if call.is_some_and(|id| !self.sent.has(id.number())) {
            return None;
        }
        Some(Message::rest(left))
    }

    fn clear(&self) -> Vec<u8> {
        let mut left = Vec::new();
        // It ends where the stage is empty, since nobody waits there.
        let _ = (&self.leave).read_to_end(&mut left);
        left
    }
}

/// A message that was not handed on at all; what was begun is no object.
#[derive(Deserialize)]
struct Whole<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
}

/// Whether a line to the server was begun and may not have been ended, as the next life will know it.
struct Torn(File);

impl Torn {
    fn set(&self, line: LineState) {
        // Where it cannot be noted, the next life takes the line for whole, and the server skips what it cannot read.
        let _ = self.0.write_all_at(&[u8::from(line == LineState::Begun)], 0);
    }

    fn get(&self) -> LineState {
        let mut state = [0];
        match self.0.read_exact_at(&mut state, 0) {
            Ok(()) if state != [0] => LineState::Begun,
            Ok(()) | Err(_) => LineState::Whole,
        }
    }
}

/// How far a line got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineState {
    Begun,
    Whole,
}
