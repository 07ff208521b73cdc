//! Bodies in both directions: requests read under a cap, responses that know when all of them was written.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Response, StatusCode,
    body::{Body, Frame, Incoming, SizeHint},
    header::{self, HeaderValue},
};

use super::{
    accept::{Accepts, Prefers},
    listen::Link,
    patience::{Broken, Patient},
    problem::Problem,
    splice::one_line,
};
use crate::{driver::Receipt, wire};

/// What is read and thrown away of a body that is too large, so that its sender gets to read our answer: many clients
/// only look for one when they have sent everything.
const DRAIN_MOST: usize = 256 * 1024 * 1024;

/// Reads a request body of at most `most` bytes.
///
/// # Errors
/// Too large (413) or too slow (408).
pub(super) async fn read(body: Incoming, headers: &HeaderMap, most: u64) -> Result<Bytes, Problem> {
    let announced = body.size_hint().lower();
    if announced > most && headers.contains_key(header::EXPECT) {
        // Whoever asks before sending has its answer at once.
        return Err(too_large(most));
    }
    let mut body = Patient::new(body);
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    let mut length = 0u64;
    loop {
        let frame = match body.frame().await {
            None => break,
            Some(Err(broken)) => return Err(not_here(broken)),
            Some(Ok(frame)) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        length = length.saturating_add(data.len() as u64);
        if length > most {
            drain(body).await;
            return Err(too_large(most));
        }
        // Almost every body is one frame, and then nothing is copied.
        match &first {
            None => first = Some(data),
            Some(first) => {
                if rest.is_empty() {
                    rest.extend_from_slice(first);
                }
                rest.extend_from_slice(&data);
            }
        }
    }
    Ok(if rest.is_empty() { first.unwrap_or_default() } else { rest.freeze() })
}

async fn drain(mut body: Patient) {
    let mut left = DRAIN_MOST;
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return;
        }
    }
}

fn too_large(most: u64) -> Problem {
    let message = format!("the request body is larger than {most} bytes (intake.max_body)");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, wire::INVALID_REQUEST, "body-too-large", message)
}

fn not_here(broken: Broken) -> Problem {
    match broken {
        Broken::TooSlow => {
            Problem::plain(StatusCode::REQUEST_TIMEOUT, wire::INVALID_REQUEST, broken.to_string())
        }
        Broken::Off => Problem::invalid_request(broken.to_string()),
    }
}

/// A response body.
pub(crate) enum Outgoing {
    /// One piece, or nothing.
    Whole(Option<Bytes>, Notice),
    /// Server-sent events.
    Events(Events),
}

/// Events, as a stream of text blocks.
pub(crate) struct Events {
    stream: Pin<Box<dyn Stream<Item = Event> + Send>>,
    link: Arc<Link>,
    ended: bool,
}

/// A piece of an event stream.
pub(super) enum Event {
    /// More comes after it.
    More(Bytes),
    /// The answer, which ends the stream.
    Last(Bytes, Receipt),
}

/// Whom to tell that a body was written.
pub(crate) struct Notice(Option<(Arc<Link>, Receipt)>);

impl Notice {
    /// Nobody.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// The driver, once the connection has flushed.
    pub(super) fn to(link: &Arc<Link>, receipt: Receipt) -> Self {
        Self(Some((link.clone(), receipt)))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(data, notice) => {
                let data = data.take();
                if data.is_some()
                    && let Some((link, receipt)) = notice.0.take()
                {
                    link.tell_when_flushed(receipt);
                }
                Poll::Ready(data.map(|data| Ok(Frame::data(data))))
            }
            Self::Events(events) if events.ended => Poll::Ready(None),
            Self::Events(events) => match std::task::ready!(events.stream.as_mut().poll_next(cx)) {
                Some(Event::More(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Event::Last(data, receipt)) => {
                    events.ended = true;
                    events.link.tell_when_flushed(receipt);
                    Poll::Ready(Some(Ok(Frame::data(data))))
                }
                None => {
                    events.ended = true;
                    Poll::Ready(None)
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(data, _) => data.is_none(),
            Self::Events(events) => events.ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(data, _) => SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64)),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

/// A body whose end ends the request on its connection.
pub(crate) struct Tracked<B> {
    body: B,
    link: Arc<Link>,
}

/// Ties the response to the connection it goes out on.
pub(super) fn track<B>(link: &Arc<Link>, response: Response<B>) -> Response<Tracked<B>> {
    response.map(|body| Tracked { body, link: link.clone() })
}

impl<B: Body + Unpin> Body for Tracked<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Tracked<B> {
    fn drop(&mut self) {
        self.link.idle();
    }
}

/// The response with a JSON-RPC message, in a form that the client accepts. `receipt` is told when it is written.
pub(super) fn answer(
    link: &Arc<Link>,
    accepts: Accepts,
    status: StatusCode,
    message: String,
    receipt: Receipt,
) -> Response<Outgoing> {
    if status != StatusCode::OK || (accepts.json && accepts.first == Prefers::Json) || !accepts.events {
        return json(status, message, Notice::to(link, receipt));
    }
    let event = Event::Last(message_event(&message), receipt);
    events(link, futures_util::stream::iter([event]))
}

/// The response with a JSON text.
pub(super) fn json(status: StatusCode, text: String, notice: Notice) -> Response<Outgoing> {
    let mut response = Response::new(Outgoing::Whole(Some(Bytes::from(text)), notice));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The response with a piece of a file.
pub(super) fn piece(status: StatusCode, bytes: Vec<u8>) -> Response<Outgoing> {
    let mut response = Response::new(Outgoing::Whole(Some(Bytes::from(bytes)), Notice::none()));
    *response.status_mut() = status;
    response
}

/// The response without a body.
pub(super) fn empty(status: StatusCode) -> Response<Outgoing> {
    let mut response = Response::new(Outgoing::Whole(None, Notice::none()));
    *response.status_mut() = status;
    response
}

/// The response with a stream of events.
pub(super) fn events(
    link: &Arc<Link>,
    stream: impl Stream<Item = Event> + Send + 'static,
) -> Response<Outgoing> {
    let events = Events { stream: Box::pin(stream), link: link.clone(), ended: false };
    let mut response = Response::new(Outgoing::Events(events));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    // nginx would otherwise collect events until a buffer is full.
    headers.insert("X-Accel-Buffering", HeaderValue::from_static("no"));
    response
}

/// A JSON-RPC message as an event.
pub(super) fn message_event(json: &str) -> Bytes {
    Bytes::from(format!("event: message\ndata: {}\n\n", one_line(json)))
}

/// A comment, which keeps what lies between from taking the stream for dead.
pub(super) fn keep_alive() -> Bytes {
    Bytes::from_static(b": holdfast\n\n")
}
