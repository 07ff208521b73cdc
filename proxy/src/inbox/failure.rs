//! Why a request to the API is not answered as it wished: a status, and a report as JSON.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use holdfast_store::JournalError;

use super::{api::problem, body::Unread};
use crate::report::Report;

/// A status and its words.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) report: Box<Report>,
}

impl Failure {
    pub(super) fn new(status: StatusCode, report: Report) -> Self {
        Self { status, report: Box::new(report) }
    }
}

/// What is wrong with the request itself.
impl From<Report> for Failure {
    fn from(report: Report) -> Self {
        Self::new(StatusCode::BAD_REQUEST, report)
    }
}

impl From<(StatusCode, Report)> for Failure {
    fn from((status, report): (StatusCode, Report)) -> Self {
        Self::new(status, report)
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Report::journal_unavailable(&error.to_string()))
    }
}

impl From<Unread> for Failure {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::TooLarge => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                Report::new("body-too-large", "the request body is larger than 2 MiB; nothing was decided"),
            ),
            Unread::TooSlow => Self::new(
                StatusCode::REQUEST_TIMEOUT,
                Report::bad_request("the request body did not arrive in time; nothing was decided"),
            ),
            Unread::Broken => Report::bad_request("the request body broke off; nothing was decided").into(),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        problem(self.status, &self.report)
    }
}
