//! Calls as an operator sees them, by the API and, without a running `serve`, straight from the journal.

use holdfast_policy::Gate;
use holdfast_store::{
    Call, CallId, Decider, Digest, Disposition, Filter, Illegal, Journal, JournalError, Millis, Record,
    Shown, State, Summary,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A page of calls.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Listing {
    /// Newest first.
    pub(crate) calls: Vec<Summary>,
    /// `before` of the next page, where there may be one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<CallId>,
}

/// Everything about one call.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Detail {
    /// Its line.
    pub(crate) call: Summary,
    /// Its facts, in order; empty once they are pruned.
    pub(crate) records: Vec<Record>,
    /// The open question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hold: Option<HoldDetail>,
}

/// An open question.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct HoldDetail {
    /// What is to be approved: a decision must name it.
    pub(crate) digest: Digest,
    /// From 1.
    pub(crate) revision: u32,
    /// All must be satisfied.
    pub(crate) gates: Vec<Gate>,
    /// The approvals of this revision.
    pub(crate) votes: Vec<Vote>,
    /// What it would do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) preview: Option<Shown>,
    /// What it would have done by the revision before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) earlier: Option<Shown>,
    /// The decision must be made by then.
    pub(crate) approve_by: Millis,
    /// The dispatch must happen by then, once it is approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) execute_by: Option<Millis>,
}

/// An approval of one revision.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Vote {
    /// Who.
    pub(crate) by: Decider,
    /// The gates that it counts for, by their place in the list.
    pub(crate) gates: Vec<u32>,
}

/// A call that waits for a person: to be approved, or, in doubt, to be settled.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Waiting {
    /// Its line.
    pub(crate) call: Summary,
    /// The client's own name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) client: String,
    /// Command line or URL of the server.
    pub(crate) identity: String,
    /// The argument text, byte for byte what would be sent.
    pub(crate) arguments: String,
    /// What would be sent beside the arguments: members of `params` as the text of an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) extra: Option<String>,
    /// Who put them in the place of the agent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) edited: Option<Decider>,
    /// The open question; none for a call in doubt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hold: Option<HoldDetail>,
    /// Why it is in doubt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trouble: Option<String>,
}

/// Reads one page.
///
/// # Errors
/// Where the journal cannot be read.
pub(crate) fn listing(journal: &dyn Journal, filter: &Filter) -> Result<Listing, JournalError> {
    let calls = journal.list(filter)?;
    let full = filter.limit > 0 && calls.len() >= filter.limit;
    let next = calls.last().filter(|_| full).map(|summary| summary.call);
    Ok(Listing { calls, next })
}

/// Reads everything about `call`; none where there is no such call.
///
/// # Errors
/// Where the journal cannot be read.
pub(crate) fn detail(journal: &dyn Journal, call: CallId) -> Result<Option<Detail>, JournalError> {
    // The register has a line, too, but is no call.
    let summary = journal.summary(call)?.filter(|_| call != CallId::REGISTER);
    let Some(summary) = summary else { return Ok(None) };
    let records = journal.history(call)?;
    let hold = Call::fold(&records).map_err(|illegal| broken(call, illegal))?.as_ref().and_then(hold);
    Ok(Some(Detail { call: summary, records, hold }))
}

/// A page of what waits for a person.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Pending {
    /// Oldest first.
    pub(crate) pending: Vec<Waiting>,
    /// `after` of the next page, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<CallId>,
}

/// Reads at most `limit` of what waits for a person, oldest first: of all, or of what was accepted after that call.
///
/// # Errors
/// Where the journal cannot be read.
pub(crate) fn pending(
    journal: &dyn Journal,
    after: Option<CallId>,
    limit: usize,
) -> Result<Pending, JournalError> {
    let states = vec![State::Asking, State::InDoubt];
    let calls = journal.list(&Filter { states, limit: usize::MAX, ..Filter::default() })?;
    let mut later = calls.into_iter().rev().filter(|summary| after.is_none_or(|after| summary.call > after));
    let (mut pending, mut last) = (Vec::new(), None);
    // Lines are short; what is read in full is one page.
    while pending.len() < limit
        && let Some(summary) = later.next()
    {
        last = Some(summary.call);
        pending.extend(waiting(journal, summary)?);
    }
    let next = later.next().and(last);
    Ok(Pending { pending, next })
}

fn waiting(journal: &dyn Journal, summary: Summary) -> Result<Option<Waiting>, JournalError> {
    let records = journal.history(summary.call)?;
    let Some(call) = Call::fold(&records).map_err(|illegal| broken(summary.call, illegal))? else {
        return Ok(None);
    };
    // It may have been decided since the list was read.
    if !matches!(call.state, State::Asking | State::InDoubt) {
        return Ok(None);
    }
    Ok(Some(Waiting {
        client: call.accepted.caller.client.clone(),
        identity: call.identity().to_owned(),
        arguments: call.arguments().to_string(),
        extra: call.accepted.extra.as_ref().map(|extra| extra.to_string()),
        edited: call.edited.as_ref().map(|(by, _)| by.clone()),
        hold: hold(&call),
        trouble: call
            .trouble
            .as_ref()
            .filter(|_| call.state == State::InDoubt)
            .map(|trouble| trouble.message.clone()),
        call: summary,
    }))
}

fn hold(call: &Call) -> Option<HoldDetail> {
    let open = matches!(call.accepted.disposition, Disposition::Ask { .. })
        && matches!(call.state, State::Asking | State::Approved | State::Backoff);
    let hold = call.hold.as_ref().filter(|_| open)?;
    Some(HoldDetail {
        digest: hold.digest,
        revision: hold.revision,
        gates: hold.gates.to_vec(),
        votes: hold.votes.iter().cloned().map(|(by, gates)| Vote { by, gates }).collect(),
        preview: hold.shown.clone(),
        earlier: hold.earlier.clone(),
        approve_by: hold.approve_by(),
        execute_by: call.grant.map(|grant| grant.execute_by),
    })
}

fn broken(call: CallId, illegal: Illegal) -> JournalError {
    JournalError::Unreadable(format!("call {call}: {illegal}").into())
}
