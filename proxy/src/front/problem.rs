//! Why a message is not handled: a JSON-RPC error, our stable code for it, and the HTTP status that goes with it.

use hyper::StatusCode;
use serde_json::{Map, Value};

use crate::{report, wire};

pub(super) use crate::wire::{HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION};

/// What the reference servers answer for a session that is not there (any version before 2026-07-28).
const SESSION_NOT_FOUND: i64 = -32001;

/// A refusal that the sender can read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Problem {
    /// The status of the HTTP response.
    pub(super) status: StatusCode,
    /// The JSON-RPC code.
    pub(super) code: i64,
    /// What is wrong, for a person or a model.
    pub(super) message: String,
    /// Members of `error.data`.
    pub(super) data: Box<Map<String, Value>>,
}

impl Problem {
    /// A problem of the protocol, for which JSON-RPC and MCP have a code.
    pub(super) fn plain(status: StatusCode, code: i64, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), data: Box::default() }
    }

    /// A problem with our own code for it in `error.data.code`, which must have a page.
    pub(super) fn new(status: StatusCode, code: i64, ours: &str, message: impl Into<String>) -> Self {
        debug_assert!(report::page(ours).is_some(), "the code {ours} has no page");
        let data = Box::new(Map::from_iter([("code".to_owned(), Value::from(ours))]));
        Self { status, code, message: message.into(), data }
    }

    /// A message that is not a JSON-RPC message we accept: 400.
    pub(super) fn invalid_request(message: impl Into<String>) -> Self {
        Self::plain(StatusCode::BAD_REQUEST, wire::INVALID_REQUEST, message)
    }

    /// Parameters that the method does not take. In a well-formed envelope, so the HTTP exchange itself is fine: 200.
    pub(super) fn invalid_params(ours: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::OK, wire::INVALID_PARAMS, ours, message)
    }

    /// A capability that the client would have to declare for this: 400.
    pub(super) fn missing_capability(required: Value) -> Self {
        Self::plain(StatusCode::BAD_REQUEST, MISSING_CAPABILITY, "Missing required client capability")
            .with("requiredCapabilities", required)
    }

    /// A header that does not fit the body: 400.
    pub(super) fn header(message: impl Into<String>) -> Self {
        Self::plain(StatusCode::BAD_REQUEST, HEADER_MISMATCH, message)
    }

    /// A session that is not there, or not this principal's, which must look the same: 404.
    pub(super) fn no_session() -> Self {
        let message = "Session not found: it ended, or this server was restarted; send `initialize` again";
        Self::new(StatusCode::NOT_FOUND, SESSION_NOT_FOUND, "not-found", message)
    }

    /// The journal cannot be used, and what was asked for is not done without it: 503.
    pub(super) fn journal(error: &holdfast_store::JournalError) -> Self {
        let message = format!("the journal cannot be used ({error})");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, wire::INTERNAL_ERROR, "journal-unavailable", message)
    }

    /// A text that is not acceptable JSON.
    pub(super) fn fault(fault: &wire::Fault) -> Self {
        let refused =
            |ours| Self::new(StatusCode::BAD_REQUEST, wire::INVALID_REQUEST, ours, fault.to_string());
        match fault {
            wire::Fault::Syntax(_) => {
                Self::plain(StatusCode::BAD_REQUEST, wire::PARSE_ERROR, fault.to_string())
            }
            wire::Fault::DuplicateKey(_) => refused("duplicate-json-key"),
            wire::Fault::TooDeep(_) => refused("json-too-deep"),
        }
    }

    /// Adds a member to `error.data`.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.data.insert(name.to_owned(), value.into());
        self
    }

    /// The response message to the request `id` (a JSON text; `null` where it is not known).
    pub(super) fn message_to(&self, id: &str) -> String {
        let data = (!self.data.is_empty()).then(|| Value::Object(Map::clone(&self.data)));
        wire::error(id, &wire::error_member(self.code, &self.message, data.as_ref()))
    }
}
