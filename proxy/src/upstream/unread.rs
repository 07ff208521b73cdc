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
    time::Duration,
};

use rustix::{
    io::{Errno, ioctl_fionread, read},
    pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, tee},
};
use tokio::{
    io::{Interest, Ready},
    net::unix::pipe::Receiver,
    sync::Notify,
    time::{sleep, timeout},
};

/// Our end of the pipe.
pub(super) struct Unread {
    pipe: Receiver,
    mirror: Mirror,
    /// Bytes that were looked at and not taken.
    seen: usize,
    /// More than this is never left: the server would have to wait.
    most: usize,
    /// There may be more that nobody has told us of.
    unsure: bool,
}

/// Linux wakes who waits for a pipe when a write ends, and in the middle of one only where the pipe was empty. A server
/// that writes more than there is room for beside what is left there waits in silence; so it is looked for.
const SILENCE: Duration = Duration::from_millis(5);

impl Unread {
    /// Needs a tokio runtime.
    pub(super) fn of(pipe: OwnedFd) -> io::Result<Self> {
        let size = fcntl_getpipe_size(&pipe)?;
        let mirror = Mirror::of(size)?;
        // What is written by small pieces takes up to twice the room.
        let most = size.min(fcntl_getpipe_size(&mirror.enter)?) / 2;
        Ok(Self { pipe: Receiver::from_owned_fd(pipe)?, mirror, seen: 0, most, unsure: false })
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
            let look = |buffer: &mut Vec<u8>| self.mirror.look(self.pipe.as_fd(), self.seen, buffer);
            let (looked, is_over) = if std::mem::take(&mut self.unsure) {
                (look(buffer), false)
            } else if let Some(ready) = self.ready().await {
                (self.pipe.try_io(|| look(buffer)), ready?.is_read_closed())
            } else {
                self.unsure = true;
                continue;
            };
            match looked {
                Ok(fresh) => {
                    self.seen += fresh;
                    return Ok(fresh);
                }
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                // There is nothing new, and there will not be, except behind more than the mirror holds.
                Err(_) if is_over && self.there()? <= self.seen => return Ok(0),
                Err(_) if is_over => sleep(SILENCE).await,
                Err(_) => {}
            }
        }
    }

    fn there(&self) -> io::Result<usize> {
        bytes_in(self.pipe.as_fd())
    }

    /// Waits for more, and not for long where it may be there without a word.
    async fn ready(&self) -> Option<io::Result<Ready>> {
        let ready = self.pipe.ready(Interest::READABLE);
        if self.seen == 0 { Some(ready.await) } else { timeout(SILENCE, ready).await.ok() }
    }

    /// Takes the first of them.
    pub(super) fn take(&mut self, mut count: usize) {
        self.unsure |= count > 0;
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
        let there = bytes_in(pipe)?;
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

fn bytes_in(pipe: BorrowedFd<'_>) -> io::Result<usize> {
    Ok(usize::try_from(ioctl_fionread(pipe)?).unwrap_or(usize::MAX))
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

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write, thread};

    use super::*;

    #[tokio::test]
    async fn a_server_that_waits_for_room_in_the_middle_of_a_line_is_heard() {
        for taken in [0, 5] {
            let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
            let (watch, size) =
                (ours.try_clone().expect("a descriptor"), fcntl_getpipe_size(&ours).expect("a pipe"));
            // Up to the last page: pieces share none with what was there before them.
            let is_full = || ioctl_fionread(&watch).is_ok_and(|there| there > size as u64 - 8192);
            let (mut unread, mut read) = (Unread::of(ours).expect("a pipe"), Vec::new());
            let mut server = File::from(theirs);
            server.write_all(b"left\n").expect("room");
            assert_eq!(unread.look(&mut read).await.expect("readable"), 5);
            assert!(timeout(SILENCE * 2, unread.look(&mut read)).await.is_err(), "there is no more");
            let writer = thread::spawn(move || server.write_all(&[b'x'; 1_000_000]));
            while !is_full() {
                thread::yield_now();
            }
            unread.take(taken);
            let all = async {
                while unread.look(&mut read).await.expect("readable") > 0 {
                    unread.take(unread.seen());
                }
            };
            timeout(Duration::from_secs(30), all).await.expect("it ends");
            assert_eq!(read.len(), 1_000_005);
            writer.join().expect("no panic").expect("all of it was read");
        }
    }

    #[tokio::test]
    async fn the_end_is_not_reported_before_what_is_hidden_behind_a_small_mirror() {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
        let (mut unread, mut read) = (Unread::of(ours).expect("a pipe"), Vec::new());
        unread.mirror = Mirror::of(4096).expect("a pipe");
        let mut server = File::from(theirs);
        server.write_all(&[b'x'; 4096]).expect("room");
        assert_eq!(unread.look(&mut read).await.expect("readable"), 4096);
        server.write_all(b"last").expect("room");
        drop(server);
        assert!(timeout(SILENCE * 4, unread.look(&mut read)).await.is_err(), "it is no end");
        unread.take(4096);
        assert_eq!(unread.look(&mut read).await.expect("readable"), 4);
        assert_eq!(unread.look(&mut read).await.expect("readable"), 0);
    }

    #[tokio::test]
    async fn what_is_not_taken_is_there_for_the_next_reader() {
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
        let (next, mut server) = (ours.try_clone().expect("a descriptor"), File::from(theirs));
        let (mut unread, mut read) = (Unread::of(ours).expect("a pipe"), Vec::new());
        for (line, known) in [("one\n", 0), ("two\n", 4), ("three\n", 8)] {
            server.write_all(line.as_bytes()).expect("room");
            assert_eq!(
                unread.look(&mut read).await.expect("readable"),
                line.len(),
                "past the {known} seen before"
            );
        }
        unread.take(4);
        drop(unread);
        let (mut unread, mut again) = (Unread::of(next).expect("a pipe"), Vec::new());
        drop(server);
        while unread.look(&mut again).await.expect("readable") > 0 {}
        assert_eq!((&*read, &*again), (&b"one\ntwo\nthree\n"[..], &b"two\nthree\n"[..]));
    }
}
