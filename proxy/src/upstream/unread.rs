//! A server's stdout as a stream that is looked at first: what was read stays in the kernel until it is taken, so that
//! the next life reads it again where this one ends too early.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    io::{Errno, ioctl_fionread, read},
    pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, tee},
};
use tokio::{io::Interest, net::unix::pipe::Receiver, sync::Notify};

/// Our end of the pipe.
pub(super) struct Unread {
    pipe: Receiver,
    mirror: Mirror,
    /// Bytes that were looked at and not taken.
    seen: usize,
    /// More than this is never left: the server would have to wait.
    most: usize,
}

impl Unread {
    /// Needs a tokio runtime.
    pub(super) fn of(pipe: OwnedFd) -> io::Result<Self> {
        let size = fcntl_getpipe_size(&pipe)?;
        let mirror = Mirror::of(size)?;
        // What is written by small pieces takes up to twice the room.
        let most = size.min(fcntl_getpipe_size(&mirror.enter)?) / 2;
        Ok(Self { pipe: Receiver::from_owned_fd(pipe)?, mirror, seen: 0, most })
    }

    /// Bytes that were looked at and not taken.
    pub(super) fn seen(&self) -> usize {
        self.seen
    }

    /// Whether there are so many of them that the server may have to wait.
    pub(super) fn is_full(&self) -> bool {
        self.seen > self.most
    }

    /// Looks at more bytes, which are added to `buffer`; how many there are, and 0 at the end of the stream. May be dropped
    /// at any time.
    pub(super) async fn look(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        loop {
            let ready = self.pipe.ready(Interest::READABLE).await?;
            match self.pipe.try_io(|| self.mirror.look(self.pipe.as_fd(), self.seen, buffer)) {
                Ok(fresh) => {
                    self.seen += fresh;
                    return Ok(fresh);
                }
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                // There is nothing new, and there will not be.
                Err(_) if ready.is_read_closed() => return Ok(0),
                Err(_) => {}
            }
        }
    }

    /// Takes the first of them.
    pub(super) fn take(&mut self, mut count: usize) {
        let mut sink = [0; 16 * 1024];
        while count > 0 {
            let most = count.min(sink.len());
            match read(&self.pipe, &mut sink[..most]) {
                Ok(taken) if taken > 0 => {
                    count -= taken;
                    self.seen -= taken;
                }
                Err(Errno::INTR) => {}
                // It cannot fail with bytes there. If it does, the stream ends at the next read.
                Ok(_) | Err(_) => return,
            }
        }
    }
}

/// A second pipe, through which the first can be read without anything leaving it: tee(2). Empty between two looks.
struct Mirror {
    enter: OwnedFd,
    leave: OwnedFd,
}

impl Mirror {
    /// One with as much room as the pipe to be looked at, where the system allows it.
    fn of(size: usize) -> io::Result<Self> {
        let (leave, enter) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let _ = fcntl_setpipe_size(&enter, size);
        Ok(Self { enter, leave })
    }

    /// Adds to `buffer` what comes after the first `seen` bytes in `pipe`; how much that is.
    fn look(&self, pipe: BorrowedFd<'_>, seen: usize, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let there = usize::try_from(ioctl_fionread(pipe)?).unwrap_or(usize::MAX);
        if there <= seen {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let known = buffer.len();
        let copied = tee(pipe, &self.enter, there, SpliceFlags::NONBLOCK)?;
        buffer.resize(known + copied, 0);
        let mut filled = known;
        while filled < buffer.len() {
            match read(&self.leave, &mut buffer[filled..]) {
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        buffer.drain(known..known + seen.min(copied));
        match buffer.len() - known {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            fresh => Ok(fresh),
        }
    }
}

tokio::task_local! {
    static READING: Arc<Bookmark>;
}

/// Keeps a line in the kernel until it is dropped, at the latest when the server would have to wait for it.
#[derive(Debug)]
pub(crate) struct Bookmark {
    wanted: AtomicBool,
    dropped: Arc<Notify>,
}

impl Bookmark {
    /// A bookmark for what is being heard in this moment, where it was read from a pipe. Not an argument of everything
    /// between the reader and whoever makes an answer durable, because nothing in between has a use for it.
    pub(crate) fn here() -> Option<Arc<Self>> {
        let bookmark = READING.try_with(Arc::clone).ok()?;
        bookmark.wanted.store(true, Ordering::Relaxed);
        Some(bookmark)
    }
}

impl Drop for Bookmark {
    fn drop(&mut self) {
        if *self.wanted.get_mut() {
            self.dropped.notify_one();
        }
    }
}

/// The bookmarks of one stream, in its order.
#[derive(Default)]
pub(super) struct Bookmarks {
    /// Where the line begins that each is for.
    waiting: VecDeque<(u64, Weak<Bookmark>)>,
    dropped: Arc<Notify>,
}

impl Bookmarks {
    /// Lets `hear` hear a line that begins there.
    pub(super) fn hear(&mut self, begin: u64, hear: impl FnOnce()) {
        let bookmark = Arc::new(Bookmark { wanted: AtomicBool::new(false), dropped: self.dropped.clone() });
        let waiting = Arc::downgrade(&bookmark);
        READING.sync_scope(bookmark, hear);
        if waiting.strong_count() > 0 {
            self.waiting.push_back((begin, waiting));
        }
    }

    /// Resolves when another line need not be kept any more.
    pub(super) async fn changed(&self) {
        self.dropped.notified().await;
    }

    /// Where the first line begins that is still to be kept; none: all of them can go.
    pub(super) fn first(&mut self, taken: u64) -> Option<u64> {
        while let Some((begin, bookmark)) = self.waiting.front() {
            if *begin >= taken && bookmark.strong_count() > 0 {
                return Some(*begin);
            }
            self.waiting.pop_front();
        }
        None
    }
}
