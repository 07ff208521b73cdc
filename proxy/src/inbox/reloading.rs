//! Reading the configuration anew, as the API asks for it.

use std::sync::Arc;

use axum::{Json, http::StatusCode};
use holdfast_store::Decider;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Inbox, desk::Desk, failure::Failure, register::Act};
use crate::{
    config::Role,
    reload::{Fault, Reloaded},
    report::Report,
};

/// Read the configuration anew.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reloading {}

impl Act for Reloading {
    const PATH: &'static str = "/api/v1/reload";
    const NAME: &'static str = "reload";
    const SUMMARY: &'static str = "Reads the configuration anew; errors leave the earlier one in force";
    const ROLE: Role = Role::Admin;
    type Target = ();
    type Given = Reloaded;

    async fn act<D: Desk>(self, inbox: &Inbox<D>, by: Decider, (): ()) -> Result<Reloaded, Failure> {
        let Some(reloaded) = inbox.reloads.ask(by.name).await else {
            return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, Report::shutting_down()));
        };
        if reloaded.ok {
            return Ok(reloaded);
        }
        let mut report = Report::new("config-invalid", reloaded.words())
            .hint("Correct what is listed; `holdfast check` reads the files without taking them.");
        report.details = Some(json!({ "problems": reloaded.problems }));
        Err(Failure::new(StatusCode::CONFLICT, report))
    }
}

/// What came of reading the configuration anew.
#[derive(Serialize, JsonSchema)]
pub(super) struct Last {
    /// The last time since the start; none where nobody has asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<Reloaded>,
}

/// `GET /api/v1/reload`
pub(super) async fn last<D: Desk>(inbox: Arc<Inbox<D>>, (): ()) -> Result<Json<Last>, Failure> {
    Ok(Json(Last { last: inbox.reloads.last() }))
}

/// What is wrong with the files, where the last reading found that.
pub(super) fn faults<D>(inbox: &Inbox<D>) -> Vec<Fault> {
    let refused = inbox.reloads.last().filter(|last| !last.ok);
    refused.map(|last| last.problems).unwrap_or_default()
}
