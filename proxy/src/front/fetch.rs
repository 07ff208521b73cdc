//! Large answers of the caller's own calls, whole or in parts: by `resources/read`, and by `GET /answers/<sha256>`.

use std::sync::Arc;

use holdfast_store::{Caller, Hash32};
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderValue},
};

use serde_json::{Map, Value};

use super::{
    Front,
    body::{self, Notice, Outgoing},
    problem::Problem,
};
use crate::{
    answers::{self, Range, Reader, Unread},
    wire,
};

/// MCP before 2026-07-28: there is no such resource.
const RESOURCE_NOT_FOUND: i64 = -32_002;

/// Whether these parameters of `resources/read` name an answer.
pub(super) fn is_ours(params: &Map<String, Value>) -> bool {
    params.get("uri").and_then(Value::as_str).is_some_and(answers::is_address)
}

/// The result of `resources/read`.
pub(super) async fn read(
    front: &Front,
    caller: &Caller,
    params: &Map<String, Value>,
) -> Result<String, Problem> {
    let uri = params.get("uri").and_then(Value::as_str).unwrap_or_default();
    match front.driver.answers().read(Reader::Principal(&caller.principal), uri).await {
        Ok(contents) => Ok(contents.result().to_string()),
        Err(Unread::NoAddress) => {
            let message = "an answer is read as holdfast://answers/<sha256>, with ?offset=BYTES&length=BYTES for a part";
            Err(Problem::invalid_params("invalid-arguments", message))
        }
        Err(Unread::NotFound | Unread::Behind(_)) => {
            let message = "there is no such answer, or it is no longer kept";
            let problem = Problem::new(StatusCode::OK, RESOURCE_NOT_FOUND, "not-found", message);
            Err(problem.with("uri", uri))
        }
        Err(Unread::Failed(why)) => {
            let message = format!("the answer cannot be read: {why}");
            Err(Problem::plain(StatusCode::OK, wire::INTERNAL_ERROR, message))
        }
    }
}

/// The answer that a path names.
pub(super) fn wanted(path: &str) -> Option<Hash32> {
    path.strip_prefix("/answers/")?.parse().ok()
}

/// Gives it, or the one range that is asked for.
pub(super) async fn answer(
    front: &Arc<Front>,
    principal: &str,
    sha256: Hash32,
    headers: &HeaderMap,
) -> Response<Outgoing> {
    let range = headers.get(header::RANGE).and_then(|range| Range::of(range.to_str().ok()?));
    let found = front.driver.answers().bytes(Reader::Principal(principal), sha256, range).await;
    let found = match found {
        Ok(found) => found,
        Err(unread) => return refuse(&unread),
    };
    let status = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let last = (found.offset + found.bytes.len() as u64).saturating_sub(1);
    let place = range.map(|_| format!("bytes {}-{last}/{}", found.offset, found.size));
    let mut response = body::piece(status, found.bytes);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // Somebody's data, under a name that never means anything else.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=3600, immutable"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::ETAG, text(format!("\"{sha256}\"")));
    if let Some(place) = place {
        headers.insert(header::CONTENT_RANGE, text(place));
    }
    response
}

fn refuse(unread: &Unread) -> Response<Outgoing> {
    let problem = match unread {
        Unread::Behind(size) => {
            let mut response = body::empty(StatusCode::RANGE_NOT_SATISFIABLE);
            response.headers_mut().insert(header::CONTENT_RANGE, text(format!("bytes */{size}")));
            return response;
        }
        Unread::NoAddress | Unread::NotFound => {
            let message = "there is no such answer, or it is no longer kept";
            Problem::new(StatusCode::NOT_FOUND, wire::INVALID_REQUEST, "not-found", message)
        }
        Unread::Failed(why) => {
            let message = format!("the answer cannot be read: {why}");
            Problem::plain(StatusCode::INTERNAL_SERVER_ERROR, wire::INTERNAL_ERROR, message)
        }
    };
    body::json(problem.status, problem.message_to("null"), Notice::none())
}

fn text(value: String) -> HeaderValue {
    HeaderValue::try_from(value).expect("digits and hexadecimal digits")
}
