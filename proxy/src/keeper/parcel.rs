//! Messages between `serve` and its keeper: lines of JSON over a unix socket, with file descriptors beside them.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{io::Interest, net::UnixStream};

/// Counts changes of these messages. `Hello` and `Stop` mean the same in all versions.
pub(super) const VERSION: u32 = 2;

/// Descriptors that go with one message at most.
const MOST_FDS: usize = 6;

/// What `serve` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Ask {
    /// From now on the keeper works for this connection.
    Hello { version: u32 },
    /// Goes with the log of what was sent, to be kept.
    Log,
    /// Wants the descriptors of a server that is kept.
    Take { number: u64 },
    /// Wants a server started.
    Start { tag: u64, recipe: Recipe },
    /// What is to be known of a server by the next `serve`.
    Note { number: u64, note: Value },
    /// Nobody will write to it any more.
    CloseInput { number: u64 },
    /// Every process of it is to end.
    End { number: u64 },
    /// All servers are to end, and the keeper.
    Stop,
}

/// What the keeper says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Said {
    /// Goes with the log of what was sent, if it has one.
    Hello { version: u32, logged: Logged, kept: Vec<About> },
    /// Goes with the descriptors of [`Ends`].
    Taken { number: u64 },
    /// The same.
    Started { tag: u64, number: u64, pid: i32 },
    /// Why not.
    NotStarted { tag: u64, why: String },
    /// The server itself has ended.
    Exited { number: u64, status: String },
    /// Every process of it has.
    Gone { number: u64, status: Option<String> },
}

/// Whether the keeper has a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Logged {
    /// It goes with the message.
    Yes,
    /// There is none.
    No,
}

/// How to start a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Recipe {
    /// Its name in the configuration.
    pub(crate) server: String,
    /// Whose it is, where it is not everybody's.
    pub(crate) sharer: String,
    /// Differs where the configuration of the server does.
    pub(crate) fingerprint: String,
    pub(crate) command: String,
    pub(crate) args: Vec<String>,
    /// The whole environment.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: std::path::PathBuf,
}

/// A server that outlived its `serve`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) number: u64,
    pub(crate) pid: i32,
    pub(crate) server: String,
    pub(crate) sharer: String,
    pub(crate) fingerprint: String,
    /// The latest note.
    pub(crate) note: Option<Value>,
    /// How it ended, if it has.
    pub(crate) status: Option<String>,
}

/// Our ends of a server's pipes.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) stdin: OwnedFd,
    /// A pipe where a message waits for the moment in which it is handed on whole.
    pub(crate) stage: Stage,
    /// What is looked at there stays there until it is taken.
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    /// A file in memory whose first byte says whether a line was begun that may not have been ended.
    pub(crate) torn: OwnedFd,
}

/// Both ends of a pipe.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) enter: OwnedFd,
    pub(crate) leave: OwnedFd,
}

impl Ends {
    /// How many they are.
    pub(super) const COUNT: usize = MOST_FDS;

    /// In the order in which they travel.
    pub(super) fn of(fds: Vec<OwnedFd>) -> Option<Self> {
        let [stdin, enter, leave, stdout, stderr, torn] = fds.try_into().ok()?;
        Some(Self { stdin, stage: Stage { enter, leave }, stdout, stderr, torn })
    }
}

/// Sends one message whole.
pub(super) async fn send(
    stream: &UnixStream,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(message)?;
    bytes.push(b'\n');
    let (mut sent, mut fds) = (0, fds);
    while sent < bytes.len() {
        let written = stream
            .async_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
                    return Err(io::Error::other("more descriptors than a message takes"));
                }
                let rest = [IoSlice::new(&bytes[sent..])];
                Ok(sendmsg(stream.as_fd(), &rest, &mut control, SendFlags::NOSIGNAL)?)
            })
            .await?;
        sent += written;
        // They went with the first byte.
        fds = &[];
    }
    Ok(())
}

/// The other end's messages, in order.
pub(super) struct Inbox {
    stream: Arc<UnixStream>,
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Inbox {
    pub(super) fn of(stream: Arc<UnixStream>) -> Self {
        Self { stream, bytes: Vec::new(), fds: VecDeque::new() }
    }

    /// The next message; none at the end. Its descriptors are to be taken before the next is asked for.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        loop {
            if let Some(at) = self.bytes.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=at).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// The descriptors that came with the message, as many as it has.
    pub(super) fn fds(&mut self, count: usize) -> Vec<OwnedFd> {
        self.fds.drain(..count.min(self.fds.len())).collect()
    }

    async fn fill(&mut self) -> io::Result<bool> {
        let stream = self.stream.clone();
        let (bytes, fds) = (&mut self.bytes, &mut self.fds);
        let read = stream
            .async_io(Interest::READABLE, || {
                let mut buffer = [0; 16 * 1024];
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let read = recvmsg(
                    stream.as_fd(),
                    &mut [IoSliceMut::new(&mut buffer)],
                    &mut control,
                    RecvFlags::CMSG_CLOEXEC,
                )?;
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(received) = message {
                        fds.extend(received);
                    }
                }
                bytes.extend_from_slice(&buffer[..read.bytes]);
                Ok(read.bytes)
            })
            .await?;
        Ok(read > 0)
    }
}
