//! A server's stdout as a stream that is looked at first: what was read stays in the kernel until it is taken, so that
//! the next life reads it again where this one ends too early.

use std::{
    collections::VecDeque,
    io::{self, IoSliceMut},
    os::fd::OwnedFd,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    io::Errno,
    net::{RecvAncillaryBuffer, RecvFlags, recv, recvmsg, sockopt::socket_send_buffer_size},
};
use tokio::{io::Interest, net::UnixStream, sync::Notify};

/// What is looked at in one go.
const AT_ONCE_BYTES: usize = 32 * 1024;

/// Our end of the pair of sockets.
pub(super) struct Unread {
    socket: UnixStream,
    /// Bytes that were looked at and not taken.
    seen: usize,
    /// Where looked-at bytes go that are looked at again on the way to new ones.
    again: Vec<u8>,
    /// More than this is never left: the server would have to wait.
    most: usize,
}

impl Unread {
    /// The socket must not block. Needs a tokio runtime.
    pub(super) fn of(socket: OwnedFd) -> io::Result<Self> {
        // Messages take more room there than they have bytes.
        let most = socket_send_buffer_size(&socket)? / 2;
        let socket = UnixStream::from_std(socket.into())?;
        Ok(Self { socket, seen: 0, again: Vec::new(), most })
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
        let Self { socket, seen, again, .. } = self;
        again.resize(*seen, 0);
        let known = buffer.len();
        loop {
            let ready = socket.ready(Interest::READABLE).await?;
            buffer.resize(known + AT_ONCE_BYTES, 0);
            let looked = socket.try_io(Interest::READABLE, || look(socket, again, &mut buffer[known..]));
            buffer.truncate(known + *looked.as_ref().unwrap_or(&0));
            match looked {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                // There is nothing new, and there will not be.
                Err(_) if ready.is_read_closed() => return Ok(0),
                Err(_) => {}
                Ok(fresh) => {
                    *seen += fresh;
                    return Ok(fresh);
                }
            }
        }
    }

    /// Takes the first of them.
    pub(super) fn take(&mut self, mut count: usize) {
        let mut sink = [0; 16 * 1024];
        while count > 0 {
            let most = count.min(sink.len());
            match recv(&self.socket, &mut sink[..most], RecvFlags::empty()) {
                Ok((taken, _)) if taken > 0 => {
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

/// Looks past what was seen; how many bytes there are.
fn look(socket: &UnixStream, seen: &mut [u8], fresh: &mut [u8]) -> io::Result<usize> {
    let known = seen.len();
    loop {
        let mut buffers = [IoSliceMut::new(seen), IoSliceMut::new(fresh)];
        match recvmsg(socket, &mut buffers, &mut RecvAncillaryBuffer::default(), RecvFlags::PEEK) {
            Ok(read) if read.bytes > known => return Ok(read.bytes - known),
            Ok(read) if read.bytes == 0 => return Ok(0),
            Ok(_) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
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
