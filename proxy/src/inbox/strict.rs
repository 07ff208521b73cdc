//! What handlers of the API take: a query, a call in the path, a body. Whatever is not known is refused.

use axum::{
    body::Body,
    extract::{FromRequestParts, Path, Query},
    http::{HeaderMap, Request, StatusCode, header, request::Parts},
};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::{
    body,
    failure::Failure,
    openapi::{Operation, Place},
};
use crate::report::Report;

/// What a handler is given of a request's head, and how the document says it.
pub(super) trait Input: Send + Sized + 'static {
    fn read(parts: &mut Parts) -> impl Future<Output = Result<Self, Failure>> + Send;

    fn describe(operation: Operation) -> Operation;
}

impl Input for () {
    async fn read(_: &mut Parts) -> Result<Self, Failure> {
        Ok(())
    }

    fn describe(operation: Operation) -> Operation {
        operation
    }
}

/// The query, whose type refuses what it does not know.
pub(super) struct Asked<Q>(pub(super) Q);

impl<Q: DeserializeOwned + JsonSchema + Send + 'static> Input for Asked<Q> {
    async fn read(parts: &mut Parts) -> Result<Self, Failure> {
        let read = Query::<Q>::from_request_parts(parts, &()).await;
        read.map(|Query(query)| Self(query))
            .map_err(|rejection| Report::bad_request(rejection.body_text()).into())
    }

    fn describe(operation: Operation) -> Operation {
        operation.takes::<Q>(Place::Query).fails(StatusCode::BAD_REQUEST, "The query cannot be read.")
    }
}

/// The call in the path, as it was written; see [`super::ids`].
#[derive(serde::Deserialize, JsonSchema)]
pub(super) struct Named {
    /// A call id; any unambiguous beginning or end of it will do.
    #[schemars(regex(pattern = r"^[0-9a-fA-F]{4}[0-9a-fA-F-]{0,32}$"))]
    pub(super) id: String,
}

impl Input for Named {
    async fn read(parts: &mut Parts) -> Result<Self, Failure> {
        let read = Path::<Self>::from_request_parts(parts, &()).await;
        read.map(|Path(named)| named).map_err(|rejection| Report::bad_request(rejection.body_text()).into())
    }

    fn describe(operation: Operation) -> Operation {
        operation
            .takes::<Self>(Place::Path)
            .fails(StatusCode::BAD_REQUEST, "The request cannot be read.")
            .fails(StatusCode::NOT_FOUND, "There is no such call.")
    }
}

/// Reads a JSON body; without any bytes it is what `unsaid` says.
///
/// # Errors
/// Too large, too slow, no JSON, or not exactly the fields that there are.
pub(super) async fn json<T: DeserializeOwned>(
    request: Request<Body>,
    unsaid: Option<T>,
) -> Result<T, Failure> {
    let (parts, body) = request.into_parts();
    let body = body::read(body).await?;
    match unsaid {
        Some(unsaid) if body.is_empty() => Ok(unsaid),
        _ => parse(&parts.headers, &body),
    }
}

fn parse<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Failure> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    // A page of another origin can send a form or plain text unasked, but not this.
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        let report =
            Report::bad_request("the body must be JSON").hint("Send `Content-Type: application/json`.");
        return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, report));
    }
    serde_json::from_slice(body).map_err(|error| {
        Report::bad_request(format!("the body cannot be read: {error}"))
            .hint("Approving, rejecting, editing and responding need the `digest` of `GET /api/v1/calls/ID`.")
            .into()
    })
}
