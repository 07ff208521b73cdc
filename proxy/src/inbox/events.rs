//! News as server-sent events: for programs by token, and for the page by its session.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::State,
    http::{StatusCode, header, request::Parts},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures_util::{StreamExt, stream};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    Inbox,
    desk::Desk,
    failure::Failure,
    live::{Listener, News},
    openapi::{Operation, Place},
    page::Session,
    routes::Output,
    strict::{Asked, Input},
};
use crate::report::Report;

/// Shows both ends that the other one is there.
const ALIVE: Duration = Duration::from_secs(15);
/// How soon a session that has ended is noticed.
const CHECK: Duration = Duration::from_secs(2);

/// Query of `GET /api/v1/events`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// Only entries after this one.
    since: Option<u64>,
}

/// Headers that it looks at.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its shape is needed, for the document")]
struct EventsHeaders {
    /// The last entry that was heard of, as browsers send it when they connect again; it counts before `since`.
    #[serde(rename = "Last-Event-ID")]
    last_event_id: Option<u64>,
}

/// From where on somebody wants to hear.
pub(super) struct From(Option<u64>);

impl Input for From {
    async fn read(parts: &mut Parts) -> Result<Self, Failure> {
        let Asked(query) = Asked::<EventsQuery>::read(parts).await?;
        let resumed = parts.headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
        Ok(Self(resumed.or(query.since)))
    }

    fn describe(operation: Operation) -> Operation {
        Asked::<EventsQuery>::describe(operation).takes::<EventsHeaders>(Place::Header)
    }
}

/// Events for programs.
pub(super) struct Stream(Listener, CancellationToken);

impl Output for Stream {
    fn respond(self) -> Response {
        answer(
            self.0.news().map(|news| {
                let data = serde_json::to_string(&news).expect("our own shapes always serialise");
                Ok(Event::default().id(news.seq.to_string()).event(news.entry).data(data))
            }),
            self.1,
        )
    }

    fn describe(operation: Operation) -> Operation {
        let words = "An event for each entry, named like it. Its `id` is the entry's number, to go on from with `Last-Event-ID`.";
        operation.streams::<News>(words)
    }
}

/// `GET /api/v1/events`
pub(super) async fn api<D: Desk>(inbox: Arc<Inbox<D>>, From(since): From) -> Result<Stream, Failure> {
    Ok(Stream(listen(&inbox, since).await?, inbox.over.clone()))
}

/// `GET /events`: the page hears which calls have changed, and looks for itself.
pub(super) async fn page<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(session): Extension<Session>,
) -> Response {
    let listener = match listen(&inbox, None).await {
        Ok(listener) => listener,
        Err(failure) => return failure.into_response(),
    };
    let over = inbox.over.clone();
    let events = stream::unfold((inbox, session, listener), async |(inbox, session, mut listener)| {
        loop {
            let heard = tokio::time::timeout(CHECK, listener.hear()).await;
            if !inbox.page.is_alive(&session) {
                return None;
            }
            let Ok(heard) = heard else { continue };
            let mut calls: Vec<_> = heard?.iter().map(|news| news.call).collect();
            calls.sort_unstable();
            calls.dedup();
            let event = Event::default().event("news").data(json!({ "calls": calls }).to_string());
            return Some((Ok(event), (inbox, session, listener)));
        }
    });
    answer(events, over)
}

async fn listen<D: Desk>(inbox: &Inbox<D>, since: Option<u64>) -> Result<Listener, Failure> {
    inbox.page.live.listen(inbox.desk.journal(), since).await?.ok_or_else(|| {
        let report = Report::new("queue-full", "too many listen for events already")
            .hint("Close pages and programs that listen, or ask now and then instead.");
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, report)
    })
}

/// Ends with the configuration that let its reader in: whoever may still read connects again.
fn answer(
    events: impl stream::Stream<Item = Result<Event, Infallible>> + Send + 'static,
    over: CancellationToken,
) -> Response {
    let events = events.take_until(over.cancelled_owned());
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE)).into_response();
    // For whatever stands between us and the browser.
    response.headers_mut().insert("x-accel-buffering", header::HeaderValue::from_static("no"));
    response
}
