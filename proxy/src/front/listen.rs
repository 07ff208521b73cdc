//! Both listeners: connections with a number of their own, watched for stalls, ended in good order.

use std::{
    collections::HashSet,
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, RawFd},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::{
    Request, Response,
    body::{Body, Incoming},
    rt::{Read, ReadBufCursor, Write},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Front,
    body::{self, Outgoing},
    http,
};
use crate::driver::{Peer, Receipt};

/// A request's head must be complete this long after its first byte (slow loris).
const HEAD: Duration = Duration::from_secs(15);
/// A connection without a request is closed after this time: longer than clients keep idle ones, so that it is they
/// who close, and no request meets a closing connection.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// How often stalls are looked for.
const WATCH: Duration = Duration::from_secs(5);

/// Who is behind a listener.
pub(crate) trait Reception: Send + Sync + 'static {
    /// Connections at once; further ones wait in the kernel's queue.
    const CONNECTIONS: usize;
    /// What responses carry.
    type Body: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Send
        + Unpin
        + 'static;

    /// Answers one request.
    fn answer(
        self: Arc<Self>,
        link: Arc<Link>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;

    /// A connection is there.
    fn opened(&self, _: &Arc<Link>) {}

    /// A connection is no longer there.
    fn closed(&self, _: &Link) {}
}

impl Reception for Front {
    const CONNECTIONS: usize = 4_096;
    type Body = Outgoing;

    async fn answer(self: Arc<Self>, link: Arc<Link>, request: Request<Incoming>) -> Response<Outgoing> {
        http::handle(&self, &link, request).await
    }

    fn opened(&self, link: &Arc<Link>) {
        self.connection_opened(link);
    }

    fn closed(&self, link: &Link) {
        self.connection_closed(link);
    }
}

/// Serves until `stop`, then lets running requests end for up to `drain`.
pub(crate) async fn serve<R: Reception>(
    reception: Arc<R>,
    listener: TcpListener,
    stop: CancellationToken,
    drain: Duration,
) {
    let places = Arc::new(Semaphore::new(R::CONNECTIONS));
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    let numbers = AtomicU64::new(1);
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = places.clone().acquire_owned() => place.expect("the semaphore is never closed"),
        };
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, mostly: a little later there may be some.
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let link = Arc::new(Link::new(numbers.fetch_add(1, Ordering::Relaxed), peer));
        reception.opened(&link);
        let (reception, stop, cut) = (reception.clone(), stop.clone(), cut.clone());
        connections.spawn(async move {
            tokio::select! {
                () = cut.cancelled() => {}
                () = connection(&reception, stream, link.clone(), stop) => {}
            }
            reception.closed(&link);
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(drain, connections.wait()).await.is_err() {
        tracing::info!(connections = connections.len(), "cutting connections that did not end in time");
        cut.cancel();
        connections.wait().await;
    }
}

async fn connection<R: Reception>(
    reception: &Arc<R>,
    stream: TcpStream,
    link: Arc<Link>,
    stop: CancellationToken,
) {
    stream.set_nodelay(true).ok();
    let socket = stream.as_raw_fd();
    let io = Watched { io: TokioIo::new(stream), link: link.clone() };
    *lock(&link.socket) = Some(socket);
    let service = service_fn(|request| {
        link.busy();
        let (reception, link) = (reception.clone(), link.clone());
        async move {
            let response = reception.answer(link.clone(), request).await;
            Ok::<_, std::convert::Infallible>(body::track(&link, response))
        }
    });
    let mut builder = http1::Builder::new();
    // The watch below does it better: hyper's own timeout also ends connections that are merely idle.
    builder.timer(TokioTimer::new()).header_read_timeout(None).pipeline_flush(false);
    let mut served = std::pin::pin!(builder.serve_connection(io, service));
    let mut stopping = false;
    loop {
        tokio::select! {
            _ = &mut served => return,
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                served.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep(WATCH) => {
                if link.is_stalled(Instant::now()) {
                    return;
                }
            }
        }
    }
}

/// What is known of one connection.
#[derive(Debug)]
pub(crate) struct Link {
    /// Unique while the process lives, from 1.
    pub(crate) number: u64,
    /// The other end.
    pub(crate) peer: SocketAddr,
    phase: Mutex<Phase>,
    unflushed: Mutex<Vec<Receipt>>,
    channels: Mutex<HashSet<String>>,
    /// Set while the socket is open: it is closed only after this was emptied.
    socket: Mutex<Option<RawFd>>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Between two requests, since then.
    Idle(Instant),
    /// In the middle of a head, since then.
    Head(Instant),
    /// Inside a request, whose own time limits hold.
    Busy,
}

impl Link {
    pub(super) fn new(number: u64, peer: SocketAddr) -> Self {
        Self {
            number,
            peer,
            phase: Mutex::new(Phase::Idle(Instant::now())),
            unflushed: Mutex::default(),
            channels: Mutex::default(),
            socket: Mutex::default(),
        }
    }

    /// `receipt` is told once everything that was handed to the connection so far is with the kernel. Where the
    /// connection ends before that, the receipt is dropped untold.
    pub(super) fn tell_when_flushed(&self, receipt: Receipt) {
        lock(&self.unflushed).push(receipt);
    }

    /// Remembers that the connection carries messages of `channel`. True the first time.
    pub(super) fn carries(&self, channel: &str) -> bool {
        let mut channels = lock(&self.channels);
        !channels.contains(channel) && channels.insert(channel.to_owned())
    }

    /// The channels it carried; for when it has closed.
    pub(super) fn take_channels(&self) -> HashSet<String> {
        std::mem::take(&mut *lock(&self.channels))
    }

    /// The response to the current request is complete.
    pub(super) fn idle(&self) {
        *lock(&self.phase) = Phase::Idle(Instant::now());
    }

    fn busy(&self) {
        *lock(&self.phase) = Phase::Busy;
    }

    fn received(&self) {
        let mut phase = lock(&self.phase);
        if let Phase::Idle(_) = *phase {
            *phase = Phase::Head(Instant::now());
        }
    }

    fn flushed(&self) {
        for receipt in std::mem::take(&mut *lock(&self.unflushed)) {
            receipt.written();
        }
    }

    fn is_stalled(&self, now: Instant) -> bool {
        match *lock(&self.phase) {
            Phase::Idle(since) => now.saturating_duration_since(since) > IDLE,
            Phase::Head(since) => now.saturating_duration_since(since) > HEAD,
            Phase::Busy => false,
        }
    }
}

impl Peer for Link {
    /// Asks the kernel, which knows of the end before hyper has read it: a client that closes one connection and then
    /// sends on another has closed the first one by the time the second one's request is here.
    fn hung_up(&self) -> bool {
        let socket = lock(&self.socket);
        let Some(socket) = *socket else { return true };
        match recv(socket, &mut [0; 1], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
            Ok(count) => count == 0,
            Err(Errno::EAGAIN | Errno::EINTR) => false,
            Err(_) => true,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A socket that tells its [`Link`] what passes through it.
struct Watched {
    io: TokioIo<TcpStream>,
    link: Arc<Link>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        *lock(&self.link.socket) = None;
    }
}

impl Read for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        // The end of the stream counts too; the connection is over then anyway.
        if read.is_ready() {
            self.link.received();
        }
        read
    }
}

impl Write for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// hyper flushes when it has written all that it had, so what was handed to it before is with the kernel now.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        if let Poll::Ready(Ok(())) = flushed {
            self.link.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_told_from_silence() {
        let link = Link::new(1, SocketAddr::from(([127, 0, 0, 1], 1)));
        let later = |time: Duration| Instant::now() + time + Duration::from_secs(1);
        assert!(!link.is_stalled(later(HEAD)));
        assert!(link.is_stalled(later(IDLE)));
        link.received();
        assert!(link.is_stalled(later(HEAD)));
        link.busy();
        link.received();
        assert!(!link.is_stalled(later(IDLE)));
        link.idle();
        assert!(!link.is_stalled(later(HEAD)));
    }

    #[test]
    fn a_channel_is_carried_once() {
        let link = Link::new(1, SocketAddr::from(([127, 0, 0, 1], 1)));
        assert!(link.carries("a"));
        assert!(!link.carries("a"));
        assert!(link.carries("b"));
        assert_eq!(link.take_channels().len(), 2);
    }
}
