//! News as server-sent events: for programs by token, and for the page by its session.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use futures_util::{Stream, StreamExt, stream};
use serde::Deserialize;
use serde_json::json;

use super::{Inbox, api, desk::Desk, live::Listener, page::Session};
use crate::report::Report;

/// Shows both ends that the other one is there.
const ALIVE: Duration = Duration::from_secs(15);
/// How soon a session that has ended is noticed.
const CHECK: Duration = Duration::from_secs(2);

/// Query of `GET /api/v1/events`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// Only entries after this one.
    since: Option<u64>,
}

/// `GET /api/v1/events`: an event for each entry, named like it; `id` is its number, and `Last-Event-ID` resumes there.
pub(super) async fn api<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    query: Result<Query<EventsQuery>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let since = match query {
        Ok(Query(query)) => query.since,
        Err(rejection) => {
            return api::problem(StatusCode::BAD_REQUEST, &Report::bad_request(rejection.body_text()));
        }
    };
    let resumed = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let listener = match listen(&inbox, resumed.or(since)).await {
        Ok(listener) => listener,
        Err(response) => return *response,
    };
    answer(listener.news().map(|news| {
        let data = serde_json::to_string(&news).expect("our own shapes always serialise");
        Ok(Event::default().id(news.seq.to_string()).event(news.entry).data(data))
    }))
}

/// `GET /events`: the page hears which calls have changed, and looks for itself.
pub(super) async fn page<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(session): Extension<Session>,
) -> Response {
    let listener = match listen(&inbox, None).await {
        Ok(listener) => listener,
        Err(response) => return *response,
    };
    answer(stream::unfold((inbox, session, listener), async |(inbox, session, mut listener)| {
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
    }))
}

async fn listen<D: Desk>(inbox: &Inbox<D>, since: Option<u64>) -> Result<Listener, Box<Response>> {
    match inbox.page.live.listen(inbox.desk.journal(), since).await {
        Ok(Some(listener)) => Ok(listener),
        Ok(None) => {
            let report = Report::new("queue-full", "too many listen for events already")
                .hint("Close pages and programs that listen, or ask now and then instead.");
            Err(Box::new(api::problem(StatusCode::SERVICE_UNAVAILABLE, &report)))
        }
        Err(error) => Err(Box::new(api::unavailable(&error))),
    }
}

fn answer(events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static) -> Response {
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE)).into_response();
    // For whatever stands between us and the browser.
    response.headers_mut().insert("x-accel-buffering", header::HeaderValue::from_static("no"));
    response
}
