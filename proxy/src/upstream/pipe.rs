//! One life of a stdio server: requests go out in order, everything it wrote is read, and then nobody is left waiting.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
    time::Duration,
};

use holdfast_store::Loss;
use tokio::{net::unix::pipe, process::Child, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Signal, Unsent,
    lines::{Line, Lines},
    peer::{Peer, RequestId},
    process::{GRACE, Group, LastWords, Process},
};

/// The longest message that is read. A longer one costs its own request the answer, and nothing else.
pub(super) const LONGEST_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

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
}

struct Out {
    pipe: Option<Arc<pipe::Sender>>,
    queue: VecDeque<Message>,
    /// True while a task waits for the pipe to take more.
    flushing: bool,
}

struct Message {
    id: Option<RequestId>,
    bytes: Vec<u8>,
    written: usize,
}

enum Drained {
    All,
    Full,
    Broken,
}

impl Pipe {
    /// Takes over a process. Needs a tokio runtime.
    pub(super) fn attach(peer: Peer, process: Process) -> Arc<Self> {
        let Process { child, group, stdin, stdout, last_words } = process;
        let pipe = Arc::new(Self {
            server: peer.server().clone(),
            peer: Arc::new(peer),
            out: Mutex::new(Out { pipe: Some(Arc::new(stdin)), queue: VecDeque::new(), flushing: false }),
            over: CancellationToken::new(),
            read_out: CancellationToken::new(),
            stopping: CancellationToken::new(),
            ended: CancellationToken::new(),
            last_words,
            cause: OnceLock::new(),
        });
        let way = Arc::downgrade(&pipe);
        pipe.peer.answers_by(Box::new(move |message| {
            if let Some(pipe) = way.upgrade() {
                pipe.write(None, message);
            }
        }));
        tokio::spawn(pipe.clone().read(stdout));
        tokio::spawn(pipe.clone().tend(child, group));
        pipe
    }

    /// Sends one message. What cannot be written settles its request: as unsent before the first byte, as lost after it.
    pub(super) fn write(self: &Arc<Self>, id: Option<RequestId>, text: String) {
        let failed = {
            let mut out = self.out();
            out.queue.push_back(Message { id, bytes: one_line(text), written: 0 });
            if out.flushing {
                return;
            }
            match out.drain() {
                Drained::All => return,
                Drained::Full => {
                    out.flushing = true;
                    tokio::spawn(self.clone().flush());
                    return;
                }
                Drained::Broken => std::mem::take(&mut out.queue),
            }
        };
        self.not_written(failed);
    }

    /// Takes a message back that waits behind others. False if its first byte is out.
    pub(super) fn take_back(&self, id: RequestId) -> bool {
        let mut out = self.out();
        let at = out.queue.iter().position(|message| message.id == Some(id) && message.written == 0);
        at.is_some_and(|at| out.queue.remove(at).is_some())
    }

    /// Why the server takes no requests, with what it said last.
    pub(super) fn cause(&self) -> String {
        let cause = self.cause.get().map_or("its process has ended", String::as_str);
        format!("server `{}`: {cause}{}", self.server, self.last_words.quote())
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
        loop {
            let Some(pipe) = self.out().pipe.clone() else { break };
            tokio::select! {
                _ = pipe.writable() => {}
                () = self.read_out.cancelled() => {}
                () = self.stopping.cancelled() => {}
            }
            drop(pipe);
            let mut out = self.out();
            match out.drain() {
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
            out.pipe = None;
            std::mem::take(&mut out.queue)
        };
        self.not_written(failed);
    }

    fn not_written(&self, failed: VecDeque<Message>) {
        // A server whose stdin is closed can be of no more use, even if its process lives on.
        self.over.cancel();
        self.stopping.cancel();
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
    }

    async fn read(self: Arc<Self>, mut stdout: pipe::Receiver) {
        let mut lines = Lines::new(LONGEST_MESSAGE_BYTES);
        while lines.fill(&mut stdout).await.unwrap_or(false) {
            while let Some(line) = lines.next() {
                self.hear(line);
            }
        }
        lines.rest().into_iter().for_each(|line| self.hear(line));
        self.over.cancel();
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
    async fn tend(self: Arc<Self>, mut child: Child, group: Group) {
        let mut status = tokio::select! {
            status = child.wait() => status.ok(),
            () = self.read_out.cancelled() => None,
            () = self.stopping.cancelled() => None,
        };
        self.over.cancel();
        if status.is_some() {
            // Something that the server started may hold its stdout open: what was written by now is read at once.
            let _ = timeout(Duration::from_millis(500), self.read_out.cancelled()).await;
        } else {
            self.close_input();
            let limit = if self.read_out.is_cancelled() { Duration::from_millis(250) } else { GRACE };
            status = timeout(limit, child.wait()).await.ok().and_then(Result::ok);
        }
        let _ = self.cause.set(match status {
            Some(status) => format!("its process has ended ({status})"),
            None => "its process has closed its output".to_owned(),
        });
        if self.read_out.is_cancelled() {
            self.peer.close(&self.cause());
        }
        group.end(&mut child).await;
        self.close_input();
        let _ = timeout(Duration::from_secs(1), self.read_out.cancelled()).await;
        self.read_out.cancel();
        self.peer.close(&self.cause());
        self.ended.cancel();
    }

    fn out(&self) -> MutexGuard<'_, Out> {
        self.out.lock().expect("nothing panics while it holds the queue")
    }
}

impl Out {
    /// Writes as much as the pipe takes without waiting.
    fn drain(&mut self) -> Drained {
        let Some(pipe) = &self.pipe else { return Drained::Broken };
        while let Some(message) = self.queue.front_mut() {
            match pipe.try_write(&message.bytes[message.written..]) {
                Ok(0) => return Drained::Broken,
                Ok(n) => message.written += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Drained::Full,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.pipe = None;
                    return Drained::Broken;
                }
            }
            if message.written == message.bytes.len() {
                self.queue.pop_front();
            }
        }
        Drained::All
    }
}

/// A JSON text as a line. Line ends can only stand between tokens there, where a space is as good.
fn one_line(text: String) -> Vec<u8> {
    let mut bytes = text.into_bytes();
    for byte in &mut bytes {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    bytes.push(b'\n');
    bytes
}
