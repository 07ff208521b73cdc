//! Event streams of a server by HTTP: an answer's stream, resumed where it can be, and the standing one for news.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt as _;
use holdfast_store::Loss;
use reqwest::{
    Response, StatusCode,
    header::{ACCEPT, HeaderName, HeaderValue},
};
use sse_stream::SseByteStream;
use tokio::time::{Instant, sleep, timeout};

use super::{Web, content_type, in_full, too_long};
use crate::upstream::{
    Signal,
    era::Era,
    id::RequestId,
    link::{LONGEST_PAUSE, SHORTEST_PAUSE},
    pipe::LONGEST_MESSAGE_BYTES,
};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How often in a row a stream is asked for again without bringing anything.
const RESUMPTIONS: u32 = 5;
/// How often, when nobody is there at all: a server that has ended rarely keeps its streams.
const REFUSED: u32 = 2;
/// How long a stream is read on after its answer, so that its connection can be used again.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// How often at most the next life is told how far a stream has come. It need not know each event: the server replays
/// what comes after the one that it knows.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// Where a stream can be taken up again.
#[derive(Default)]
pub(super) struct Place {
    last_event: Option<HeaderValue>,
    retry: Option<Duration>,
    events: u64,
    noted: Option<Instant>,
}

impl Place {
    /// Where an earlier life left off.
    pub(super) fn after(event: &str) -> Self {
        Self { last_event: HeaderValue::try_from(event).ok(), ..Self::default() }
    }
}

impl Web {
    /// Reads the stream that carries the answer to `id`.
    pub(super) async fn follow(self: &Arc<Self>, id: RequestId, response: Response, era: &Era) {
        let mut place = Place::default();
        let end = self.hear_out(response, &mut place, era, Some(id)).await;
        self.follow_on(id, place, end, era).await;
    }

    /// Asks for the rest of a stream that has come to this `end`, as long as the answer to `id` is missing.
    pub(super) async fn follow_on(
        self: &Arc<Self>,
        id: RequestId,
        mut place: Place,
        mut end: End,
        era: &Era,
    ) {
        let (mut fruitless, mut refused) = (0, 0);
        while self.peer.is_waiting(id) {
            // In the modern era a broken stream is the end of its request.
            let resumable = matches!(era, Era::Legacy(_)) && place.last_event.is_some();
            let given_up = fruitless == RESUMPTIONS || refused == REFUSED || self.session_is_over();
            if !resumable || given_up || end == End::TooLong {
                self.note_done(id);
                return self.peer.settle(id, self.broken(&end, fruitless));
            }
            let soon = Duration::from_millis(200) * 2u32.pow(fruitless);
            // A server that ends its stream on purpose says when it wants to be asked again.
            sleep(place.retry.filter(|_| end == End::Closed).unwrap_or(soon)).await;
            let seen = place.events;
            match self.get(&place, era).await {
                Ok(response) if response.status().is_success() => {
                    refused = 0;
                    end = self.hear_out(response, &mut place, era, Some(id)).await;
                }
                Ok(response) if self.means_expired(response.status()) => self.expire(),
                // The server may not have noticed yet that the earlier connection is gone.
                Ok(response) if may_pass(response.status()) => {
                    end = End::Broken(format!("it was not resumed: HTTP {}", response.status()));
                }
                Ok(response) => {
                    end = End::Broken(format!("it was not resumed: HTTP {}", response.status()));
                    fruitless = RESUMPTIONS;
                    continue;
                }
                Err(error) => {
                    refused += u32::from(error.is_connect());
                    end = End::Broken(in_full(&error));
                }
            }
            fruitless = if place.events > seen { 0 } else { fruitless + 1 };
        }
        self.note_done(id);
    }

    /// Keeps the standing stream open, by which a legacy server tells what nobody asked for, where it offers one.
    pub(in crate::upstream) async fn listen(self: Arc<Self>, era: Era) {
        if self.is_old() {
            // Its stream is the session.
            return;
        }
        let (mut place, mut pause) = (Place::default(), SHORTEST_PAUSE);
        while !self.over.is_cancelled() {
            let opened = Instant::now();
            let listened = async {
                match self.get(&place, &era).await {
                    Ok(response) if response.status().is_success() && is_events(&response) => {
                        self.hear_out(response, &mut place, &era, None).await;
                        true
                    }
                    Ok(response) => {
                        if self.means_expired(response.status()) {
                            self.expire();
                        }
                        false
                    }
                    Err(error) => {
                        if error.is_connect() {
                            self.retire("it cannot be reached");
                        }
                        true
                    }
                }
            };
            tokio::select! {
                again = listened => if !again { return },
                () = self.over.cancelled() => return,
            }
            // The stream had an end, and what was said since then may be lost.
            self.peer.list_changed.notify_one();
            pause =
                if opened.elapsed() > LONGEST_PAUSE { SHORTEST_PAUSE } else { LONGEST_PAUSE.min(pause * 2) };
            tokio::select! {
                () = sleep(place.retry.unwrap_or(pause).max(SHORTEST_PAUSE)) => {}
                () = self.over.cancelled() => return,
            }
        }
    }

    async fn get(&self, place: &Place, era: &Era) -> reqwest::Result<Response> {
        let mut headers = self.common(era);
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(last) = &place.last_event {
            headers.insert(LAST_EVENT_ID, last.clone());
        }
        let request = || self.address.client.get(self.address.url.clone()).headers(headers.clone());
        self.signed(request).await.map(|(response, _)| response)
    }

    /// Hears a stream to its end; one that carries an answer, for a moment more once that has come.
    pub(super) async fn hear_out(
        self: &Arc<Self>,
        response: Response,
        place: &mut Place,
        era: &Era,
        answers: Option<RequestId>,
    ) -> End {
        // The reader of events keeps an event until it is complete, so its size is watched on the way in.
        let size = Arc::new(AtomicUsize::new(0));
        let counter = size.clone();
        let bytes = response.bytes_stream().map(move |chunk| {
            let chunk = chunk.map_err(|error| std::io::Error::other(in_full(&error)))?;
            if counter.fetch_add(chunk.len(), Ordering::Relaxed) + chunk.len() > LONGEST_MESSAGE_BYTES {
                return Err(std::io::Error::from(std::io::ErrorKind::FileTooLarge));
            }
            Ok(chunk)
        });
        let mut events = std::pin::pin!(SseByteStream::new(bytes));
        loop {
            let answered = answers.is_some_and(|id| !self.peer.is_waiting(id));
            let event = if answered {
                timeout(AFTERWARDS, events.next()).await.unwrap_or(None)
            } else {
                events.next().await
            };
            let event = match event {
                Some(Ok(event)) => event,
                Some(Err(_)) if size.load(Ordering::Relaxed) > LONGEST_MESSAGE_BYTES => return End::TooLong,
                Some(Err(error)) => return End::Broken(error.to_string()),
                None => return End::Closed,
            };
            size.store(0, Ordering::Relaxed);
            place.events += 1;
            if let Some(retry_ms) = event.retry {
                place.retry = Some(Duration::from_millis(retry_ms.min(60_000)));
            }
            if let Some(last) = event.id {
                place.last_event = HeaderValue::try_from(last).ok().filter(|id| !id.is_empty());
            }
            if event.event.as_deref() == Some("endpoint") {
                self.endpoint.send_replace(event.data);
                continue;
            }
            if let Some(data) = event.data.filter(|data| !data.is_empty())
                && matches!(event.event.as_deref(), None | Some("message"))
            {
                self.hear(&data, era, answers);
            }
            if let Some(id) = answers.filter(|id| id.is_call()) {
                self.note_progress(id, place);
            }
        }
    }

    /// Lets the next life know how far the stream has come. What is not answered yet has to be heard again: the answer
    /// itself, which is not durable yet, and what the server wants to know.
    fn note_progress(&self, id: RequestId, place: &mut Place) {
        let due = place.noted.is_none_or(|noted| noted.elapsed() >= NOTE_EVERY);
        if let Some(last) = place.last_event.as_ref().filter(|_| due)
            && self.peer.is_waiting(id)
            && !self.peer.is_asked()
        {
            self.note_place(id, last);
            place.noted = Some(Instant::now());
        }
    }

    fn broken(&self, end: &End, fruitless: u32) -> Signal {
        let server = &self.address.server;
        let tried = if fruitless > 0 { ", and it could not be resumed" } else { "" };
        match end {
            End::TooLong => Signal::Lost(Loss::UpstreamError, too_long(server)),
            End::Closed => Signal::Lost(
                Loss::Disconnected,
                format!("server `{server}` closed the stream of its answer before the answer{tried}"),
            ),
            End::Broken(error) => Signal::Lost(
                Loss::Disconnected,
                format!("the stream of the answer of server `{server}` broke{tried}: {error}"),
            ),
        }
    }
}

/// How a stream ended.
#[derive(PartialEq, Eq)]
pub(super) enum End {
    Closed,
    Broken(String),
    TooLong,
}

/// Whether a stream that is refused with this status may be had a little later.
fn may_pass(status: StatusCode) -> bool {
    status == StatusCode::CONFLICT || status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

fn is_events(response: &Response) -> bool {
    content_type(response) == "text/event-stream"
}
