//! Ways to a client, on which messages go out in order.

use std::{
    io::Write,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// A way to a client.
pub(crate) trait Line: Send + Sync {
    /// Sends a message that is not the last one.
    fn send(&self, message: &str);

    /// Ends the connection, if there is one, and goes on where nobody sees it.
    fn cut(&self, _: Cut) {}
}

/// How a connection ends before its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// With the end of the stream, which can be taken up again.
    Politely,
    /// In the middle of everything.
    Off,
}

/// Standard output.
pub(crate) struct Stdout;

impl Line for Stdout {
    fn send(&self, message: &str) {
        let mut out = std::io::stdout().lock();
        // Whoever does not read any more will end us.
        let _ = writeln!(out, "{message}").and_then(|()| out.flush());
    }
}

/// Nowhere.
pub(crate) struct Nowhere;

impl Line for Nowhere {
    fn send(&self, _: &str) {}
}

/// The messages of one response, or of a session's own stream; they stay, so that it can be read again.
#[derive(Default)]
pub(crate) struct Stream {
    told: Mutex<Told>,
    more: Condvar,
}

#[derive(Default)]
struct Told {
    messages: Vec<String>,
    /// The status of a response that is one message.
    status: u16,
    done: bool,
    cuts: Vec<Cut>,
    /// How far somebody has read.
    read: usize,
}

/// What is next on a stream.
pub(crate) enum Next {
    /// A message, and whether it is the last one.
    Message(String, bool),
    /// Nothing for now.
    Nothing,
    /// Nothing any more.
    End,
    /// The connection is to be ended.
    Cut(Cut),
}

impl Stream {
    pub(crate) fn new() -> Arc<Stream> {
        Arc::new(Stream { told: Mutex::new(Told { status: 200, ..Told::default() }), ..Stream::default() })
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says the last message.
    pub(crate) fn finish(&self, status: u16, message: Option<String>) {
        let mut told = self.told();
        told.messages.extend(message);
        told.status = status;
        told.done = true;
        self.more.notify_all();
    }

    /// The status of the whole, once it is done.
    pub(crate) fn status(&self) -> u16 {
        self.told().status
    }

    /// The first message that nobody has read.
    pub(crate) fn unread(&self) -> usize {
        self.told().read
    }

    pub(crate) fn cuts(&self) -> usize {
        self.told().cuts.len()
    }

    /// The message number `at`, for which it waits a moment. `cuts` is how many there were when the reader came.
    pub(crate) fn next(&self, at: usize, cuts: usize) -> Next {
        let mut told = self.told();
        let idle = |told: &mut Told| told.messages.len() <= at && !told.done && told.cuts.len() == cuts;
        if idle(&mut told) {
            let moment = Duration::from_millis(20);
            told = self.more.wait_timeout_while(told, moment, idle).unwrap_or_else(PoisonError::into_inner).0;
        }
        if let Some(cut) = told.cuts.get(cuts) {
            return Next::Cut(*cut);
        }
        match told.messages.get(at) {
            Some(message) => {
                let message = Next::Message(message.clone(), told.done && at + 1 == told.messages.len());
                told.read = told.read.max(at + 1);
                message
            }
            None if told.done => Next::End,
            None => Next::Nothing,
        }
    }
}

impl Line for Stream {
    fn send(&self, message: &str) {
        self.told().messages.push(message.to_owned());
        self.more.notify_all();
    }

    fn cut(&self, cut: Cut) {
        self.told().cuts.push(cut);
        self.more.notify_all();
    }
}
