//! One life of a stdio server: requests go out in order, everything it wrote is read, and then nobody is left waiting.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
    time::Duration,
};

use holdfast_store::Loss;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Signal, Unsent,
    id::RequestId,
    lines::{Line, Lines},
    peer::Peer,
    process::{LastWords, Process},
    stage::{Handed, Message, Way},
    unread::{Bookmarks, Unread},
};
use crate::keeper::{Ended, GRACE, Hold};

/// The longest message that is read. A longer one costs its own request the answer, and nothing else.
pub(super) const LONGEST_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// A line that comes no further for so long is taken as far as it is there: its server may wait for room.
const SLOWEST_LINE: Duration = Duration::from_millis(200);
/// An answer that is not durable for so long holds up nothing behind it any more.
const SLOWEST_COMMIT: Duration = Duration::from_secs(5);
/// Pauses while a server does not read its stdin.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// Between the end of a server's output and its exit, which says why.
const LAST_BREATH: Duration = Duration::from_secs(1);
/// How long calls that are out may take to end on a server whose keeper has ended.
const UNKEPT: Duration = Duration::from_secs(10);

/// A running server, from its start to the end of its last process.
pub(super) struct Pipe {
    server: Arc<str>,
    pub(super) peer: Arc<Peer>,
    out: Mutex<Out>,
    /// The server takes no new requests.
    pub(super) over: CancellationToken,
    /// Everything that it wrote was read.
    read_out: CancellationToken,
    /// We want it to end.
    stopping: CancellationToken,
    /// Every process of it is gone.
    pub(super) ended: CancellationToken,
    last_words: Arc<LastWords>,
    cause: OnceLock<String>,
    hold: Hold,
}

struct Out {
    door: Door,
    queue: VecDeque<Message>,
    /// True while a task waits for the pipe to take more.
    flushing: bool,
}

/// Where messages go in.
enum Door {
    Free(Way),
    /// Somebody is handing messages on, and will hand on all that others bring meanwhile.
    Taken,
    Shut,
}

enum Drained {
    All,
    Full,
    Broken,
}

impl Pipe {
    /// Takes over a process. What it writes is read once `ready`. Needs a tokio runtime.
    pub(super) fn attach(peer: Peer, process: Process, ready: CancellationToken) -> Arc<Self> {
        let Process { hold, way, stdout, last_words } = process;
        let queue = way.left().into_iter().collect();
        let out = Out { door: Door::Free(way), queue, flushing: false };
        let pipe = Arc::new(Self {
            server: peer.server().clone(),
            peer: Arc::new(peer),
            out: Mutex::new(out),
            over: CancellationToken::new(),
            read_out: CancellationToken::new(),
            stopping: CancellationToken::new(),
            ended: CancellationToken::new(),
            last_words,
            cause: OnceLock::new(),
            hold,
        });
        pipe.push(None);
        let living = pipe.clone();
        tokio::spawn(async move {
            ready.cancelled().await;
            tokio::spawn(living.clone().read(stdout));
            living.tend().await;
        });
        let way = Arc::downgrade(&pipe);
        pipe.peer.answers_by(Box::new(move |message| {
            if let Some(pipe) = way.upgrade() {
                pipe.write(None, message);
            }
        }));
        pipe
    }

    /// Sends one message. What cannot be written settles its request: as unsent before the first byte, as lost after it.
    pub(super) fn write(self: &Arc<Self>, id: Option<RequestId>, text: String) {
        self.push(Some(Message::line(id, text)));
    }

    /// Puts a message behind those that wait, and hands on what can be.
    fn push(self: &Arc<Self>, message: Option<Message>) {
        let mut out = self.out();
        out.queue.extend(message);
        if out.flushing {
            return;
        }
        let (mut out, drained) = self.drain(out);
        match drained {
            Drained::All => {}
            Drained::Full => {
                out.flushing = true;
                tokio::spawn(self.clone().flush());
            }
            Drained::Broken => {
                let failed = std::mem::take(&mut out.queue);
                drop(out);
                self.not_written(failed);
            }
        }
    }

    /// Hands on as much as the server takes without our waiting. Nobody else waits for that: the lock is let go of.
    fn drain<'a>(&'a self, mut out: MutexGuard<'a, Out>) -> (MutexGuard<'a, Out>, Drained) {
        let way = match std::mem::replace(&mut out.door, Door::Taken) {
            Door::Free(way) => way,
            Door::Taken => return (out, Drained::All),
            Door::Shut => {
                out.door = Door::Shut;
                return (out, Drained::Broken);
            }
        };
        while let Some(mut message) = out.queue.pop_front() {
            drop(out);
            let handed = way.hand(&mut message);
            out = self.out();
            let shut = matches!(out.door, Door::Shut);
            match handed {
                // What came meanwhile goes nowhere.
                Handed::Whole if shut => return (out, Drained::Broken),
                Handed::Whole => {}
                Handed::Full if !shut => {
                    out.queue.push_front(message);
                    out.door = Door::Free(way);
                    return (out, Drained::Full);
                }
                Handed::Full | Handed::Broken => {
                    if message.written == 0 {
                        way.take_back(&message);
                    }
                    out.queue.push_front(message);
                    out.door = Door::Shut;
                    return (out, Drained::Broken);
                }
            }
        }
        out.door = Door::Free(way);
        (out, Drained::All)
    }

    /// Takes a message back that waits behind others. False if its first byte may be out.
    pub(super) fn take_back(&self, id: RequestId) -> bool {
        let mut out = self.out();
        let at = out.queue.iter().position(|message| message.id == Some(id) && message.written == 0);
        let Some(message) = at.and_then(|at| out.queue.remove(at)) else { return false };
        // Where somebody is handing messages on, none of those that wait has been begun.
        if let Door::Free(way) = &out.door {
            way.take_back(&message);
        }
        true
    }

    /// Lets the keeper keep this, for the next life.
    pub(super) async fn note(&self, note: serde_json::Value) {
        self.hold.note(note).await;
    }

    /// Why the server takes no requests, with what it said last.
    pub(super) fn cause(&self) -> String {
        let cause = self.cause.get().map_or("its process has ended", String::as_str);
        format!("server `{}`: {cause}{}", self.server, self.last_words.quote())
    }

    /// Waits for what a server that has ended wrote last.
    pub(super) async fn said_all(&self) {
        if self.over.is_cancelled() {
            self.last_words.said().await;
        }
    }

    /// What the server wrote to stderr, as the end of a sentence.
    pub(super) fn last_words(&self) -> String {
        self.last_words.quote()
    }

    /// Ends the server: stdin is closed, then SIGTERM, then SIGKILL to all that it started.
    pub(super) async fn stop(&self) {
        let _ = self.cause.set("its process was stopped".to_owned());
        self.stopping.cancel();
        self.ended.cancelled().await;
    }

    async fn flush(self: Arc<Self>) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            // Of a pipe that is written to past the runtime, the runtime cannot tell when there is room.
            tokio::select! {
                () = sleep(pause) => pause = LONGEST_PAUSE.min(pause * 2),
                () = self.read_out.cancelled() => {}
                () = self.stopping.cancelled() => {}
            }
            let (mut out, drained) = self.drain(self.out());
            match drained {
                Drained::All => {
                    out.flushing = false;
                    return;
                }
                // A server that has ended or is being ended does not get to keep us waiting.
                Drained::Full if self.read_out.is_cancelled() || self.stopping.is_cancelled() => break,
                Drained::Full => {}
                Drained::Broken => break,
            }
        }
        self.out().flushing = false;
        self.close_input();
    }

    /// Closes stdin, which tells the server to end. What it did not take is settled.
    fn close_input(&self) {
        let failed = {
            let mut out = self.out();
            let queue = std::mem::take(&mut out.queue);
            if let Door::Free(way) = std::mem::replace(&mut out.door, Door::Shut) {
                // What is told to be unsent must not be handed on by a later life.
                queue
                    .iter()
                    .filter(|message| message.written == 0)
                    .for_each(|message| way.take_back(message));
            }
            queue
        };
        self.not_written(failed);
    }

    fn not_written(&self, failed: VecDeque<Message>) {
        // A server whose stdin is closed can be of no more use, even if its process lives on.
        self.over.cancel();
        for message in failed {
            let Some(id) = message.id else { continue };
            let signal = match message.written {
                0 => Signal::Unsent(Unsent { code: "upstream-unreachable", message: self.cause() }),
                _ => Signal::Lost(
                    Loss::Disconnected,
                    format!("{}; it ended while the request was being written", self.cause()),
                ),
            };
            self.peer.settle(id, signal);
        }
        // Last, since with the end of the server all that is not settled is lost.
        self.stopping.cancel();
    }

    /// Hears every line at once, and takes it out of the kernel when it need not be heard again: if we end before an
    /// answer is durable, the next life finds it there.
    async fn read(self: Arc<Self>, mut stdout: Unread) {
        let mut lines = Lines::new(LONGEST_MESSAGE_BYTES);
        let (mut bookmarks, mut taken) = (Bookmarks::default(), 0);
        loop {
            let seen = taken + stdout.seen() as u64;
            let patience = if seen > lines.handed_out() { SLOWEST_LINE } else { SLOWEST_COMMIT };
            let in_time = tokio::select! {
                more = lines.look(&mut stdout) => match more {
                    Ok(true) => true,
                    Ok(false) | Err(_) => break,
                },
                () = bookmarks.changed() => true,
                () = sleep(patience), if seen > taken => false,
            };
            loop {
                let begin = lines.handed_out();
                let Some(line) = lines.next() else { break };
                bookmarks.hear(begin, || self.hear(line));
            }
            let whole = lines.handed_out();
            // Of a line that is begun to be taken the rest is of no use there.
            let free = if !in_time || stdout.is_full() || taken > whole {
                taken + stdout.seen() as u64
            } else {
                bookmarks.first(taken).unwrap_or(whole)
            };
            stdout.take(usize::try_from(free - taken).expect("it was seen in memory"));
            taken = free;
        }
        let begin = lines.handed_out();
        if let Some(line) = lines.rest() {
            bookmarks.hear(begin, || self.hear(line));
        }
        self.over.cancel();
        let durable = async {
            while bookmarks.first(taken).is_some() {
                bookmarks.changed().await;
            }
        };
        // The keeper lets go of what it has of a server that is over.
        let _ = timeout(SLOWEST_COMMIT, durable).await;
        self.read_out.cancel();
    }

    fn hear(self: &Arc<Self>, line: Line<'_>) {
        match line {
            Line::Whole(line) => match str::from_utf8(line) {
                Ok(text) if text.trim().is_empty() => {}
                Ok(text) => {
                    for reply in self.peer.incoming(text, None) {
                        self.write(None, reply);
                    }
                }
                Err(_) => self.peer.garbage(line),
            },
            Line::TooLong(id) => {
                let limit_mib = LONGEST_MESSAGE_BYTES / (1024 * 1024);
                tracing::warn!(target: "upstream", server = &*self.server, id, limit_mib, "a message too long to read");
                if let Some(id) = id.as_deref().and_then(RequestId::read) {
                    let message = format!(
                        "server `{}` answered with more than {limit_mib} MiB, which is not read",
                        self.server
                    );
                    self.peer.settle(id, Signal::Lost(Loss::UpstreamError, message));
                }
            }
        }
    }

    /// Watches over the process, and over the order of its end: read all, tell those who wait, leave no process.
    async fn tend(self: Arc<Self>) {
        let ended = tokio::select! {
            ended = self.hold.ended() => Some(ended),
            () = self.read_out.cancelled() => None,
            () = self.stopping.cancelled() => None,
        };
        self.over.cancel();
        if ended == Some(Ended::Unkept) {
            self.finish_calls().await;
        }
        let status = if let Some(Ended::Exited(status)) = ended {
            // Something that the server started may hold its stdout open: what was written by now is read at once.
            let _ = timeout(Duration::from_millis(500), self.read_out.cancelled()).await;
            // What waits was not sent, which is more than to be lost.
            self.close_input();
            status
        } else {
            self.close_input();
            self.hold.close_input().await;
            let limit = if self.read_out.is_cancelled() { LAST_BREATH } else { GRACE };
            self.exited_within(limit).await
        };
        let _ = self.cause.set(match status {
            Some(status) => format!("its process has ended ({status})"),
            None => "its process has closed its output".to_owned(),
        });
        if self.read_out.is_cancelled() {
            self.peer.close(&self.cause());
        }
        self.hold.end().await;
        self.close_input();
        let _ = timeout(Duration::from_secs(1), self.read_out.cancelled()).await;
        self.read_out.cancel();
        self.peer.close(&self.cause());
        self.ended.cancel();
    }

    /// The keeper has ended: the server is as good as before, but it would not outlive us. Its calls may end.
    async fn finish_calls(&self) {
        tracing::warn!(target: "upstream", server = &*self.server, "the keeper of the server has ended; the server is started anew");
        let calls = async {
            while self.peer.calls() > 0 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            _ = timeout(UNKEPT, calls) => {}
            () = self.read_out.cancelled() => {}
            () = self.stopping.cancelled() => {}
        }
    }

    async fn exited_within(&self, limit: Duration) -> Option<String> {
        match timeout(limit, self.hold.ended()).await {
            Ok(Ended::Exited(status)) => status,
            Ok(Ended::Unkept) => {
                let _ = timeout(limit, self.read_out.cancelled()).await;
                None
            }
            Err(_) => None,
        }
    }

    fn out(&self) -> MutexGuard<'_, Out> {
        self.out.lock().expect("nothing panics while it holds the queue")
    }
}
