//! Approvals past the gates, for others to look at: who broke the glass, when, and why.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::Json;
use holdfast_store::{
    CallId, Decider, Entry, Filter, Journal, JournalError, Millis, Record, State as CallState, Summary,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Inbox, api::blocking, desk::Desk, failure::Failure, strict::Asked};
use crate::report::Report;

/// Calls that are looked at for one page, and for how long: a long journal is looked through page by page.
const LOOKED_AT: usize = 20_000;
const PATIENCE: Duration = Duration::from_millis(500);
const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1_000;

/// An approval past the gates.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(super) struct Review {
    /// What was approved.
    call: Summary,
    /// By whom.
    by: Decider,
    /// When.
    at: Millis,
    /// Why the gates were passed over.
    reason: String,
}

/// A page of them. What is pruned of the journal is not among them.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Reviews {
    /// Those of the newest calls first.
    reviews: Vec<Review>,
    /// `before` of the next page, where there may be one; a page may be empty and still have a next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<CallId>,
}

/// Query of `GET /api/v1/reviews`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReviewsQuery {
    /// An id: only older calls.
    #[schemars(extend("format" = "uuid"))]
    before: Option<String>,
    /// At most this many calls; 100 without it, at most 1000.
    limit: Option<usize>,
}

/// `GET /api/v1/reviews`
pub(super) async fn reviews<D: Desk>(
    inbox: Arc<Inbox<D>>,
    Asked(query): Asked<ReviewsQuery>,
) -> Result<Json<Reviews>, Failure> {
    let before = query.before.map(|id| {
        id.parse::<CallId>()
            .map_err(|_| Report::bad_request(format!("`before` is a whole call id, not `{id}`")))
    });
    let (before, most) = (before.transpose()?, query.limit.unwrap_or(PAGE).clamp(1, LARGEST_PAGE));
    let journal = inbox.desk.journal();
    Ok(Json(blocking(move || find(&*journal, before, most)).await?))
}

fn find(journal: &dyn Journal, before: Option<CallId>, most: usize) -> Result<Reviews, JournalError> {
    let begun = Instant::now();
    let mut filter = Filter { before, limit: 500, ..Filter::default() };
    let (mut reviews, mut calls, mut looked_at) = (Vec::new(), 0, 0);
    loop {
        let some = journal.list(&filter)?;
        for call in &some {
            if calls == most || looked_at >= LOOKED_AT || begun.elapsed() > PATIENCE {
                return Ok(Reviews { reviews, next: filter.before });
            }
            looked_at += 1;
            filter.before = Some(call.call);
            // What still waits for its gates has passed none.
            if call.state == CallState::Previewing {
                continue;
            }
            let records = journal.history(call.call)?;
            let before = reviews.len();
            reviews.extend(broken_glass(&records).map(|(by, at, reason)| Review {
                call: call.clone(),
                by: by.clone(),
                at,
                reason: reason.to_owned(),
            }));
            calls += usize::from(reviews.len() > before);
        }
        if some.len() < filter.limit {
            return Ok(Reviews { reviews, next: None });
        }
    }
}

/// The approvals of a call that went past its gates: by whom, when and why.
pub(super) fn broken_glass(records: &[Record]) -> impl Iterator<Item = (&Decider, Millis, &str)> {
    records.iter().filter_map(|record| match &record.entry {
        Entry::Approved { by, glass: Some(reason), .. } => Some((by, record.at, reason.as_str())),
        _ => None,
    })
}
