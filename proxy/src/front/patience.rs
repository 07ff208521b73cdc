//! A request body that is waited for, but not for ever (slow loris).

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

/// A client that sends nothing for this long in the middle of a body is not waited for.
const IDLE: Duration = Duration::from_secs(20);
/// A body must be here within this time, whatever its size.
const IN_ALL: Duration = Duration::from_secs(120);

/// Why a body did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Its sender took too long.
    TooSlow,
    /// The connection ended, or what came is not HTTP.
    Off,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooSlow => "the request body did not arrive in time",
            Self::Off => "the request body broke off",
        })
    }
}

impl std::error::Error for Broken {}

/// A body whose sender has limited time.
pub(crate) struct Patient<B = Incoming> {
    body: B,
    end: Instant,
    /// Made when something has to be waited for: most bodies are here with their heads.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl<B> Patient<B> {
    /// Time runs from now on.
    pub(crate) fn new(body: B) -> Self {
        Self { body, end: Instant::now() + IN_ALL, timer: None, waiting: false }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Patient<B> {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.waiting = false;
            return Poll::Ready(frame.map(|frame| frame.map_err(|_| Broken::Off)));
        }
        let until = self.end.min(Instant::now() + IDLE);
        let again = !std::mem::replace(&mut self.waiting, true);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if again {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx).map(|()| Some(Err(Broken::TooSlow)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
