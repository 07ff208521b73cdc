//! What is posted: decisions, carried out as the API carries them out, then told on the page they came from.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Path, State},
    response::{IntoResponse, Redirect, Response},
};
use futures_util::future::join_all;
use holdfast_store::{Answer, CallId, Digest, Resolution, State as CallState};

use super::{
    posted::Fields,
    session::{Flash, Session, Tone},
    shell,
    text::counted,
};
use crate::{
    config::Role,
    driver::DecideError,
    inbox::{
        Inbox,
        access::may_break_glass,
        api::{blocking, no_call_words, unavailable},
        decisions::{answer_of, arguments_of, refusal},
        desk::{Decision, Desk},
        ids::{self, short},
    },
    report::Report,
};

type Form<D> = (State<Arc<Inbox<D>>>, Extension<Session>, Path<String>, Extension<Fields>);

/// `POST /calls/{id}/approve`
pub(super) async fn approve<D: Desk>(
    (State(inbox), Extension(session), Path(id), Extension(fields)): Form<D>,
) -> Response {
    let decision = digest(fields.get("digest")).map(Decision::Approve);
    carry_out(&inbox, &session, Role::Approver, &id, &fields, decision).await
}

/// `POST /calls/{id}/reject`
pub(super) async fn reject<D: Desk>(
    (State(inbox), Extension(session), Path(id), Extension(fields)): Form<D>,
) -> Response {
    let decision = digest(fields.get("digest")).map(|digest| Decision::Reject(digest, reason(&fields)));
    carry_out(&inbox, &session, Role::Approver, &id, &fields, decision).await
}

/// `POST /calls/{id}/edit`
pub(super) async fn edit<D: Desk>(
    (State(inbox), Extension(session), Path(id), Extension(fields)): Form<D>,
) -> Response {
    let decision = digest(fields.get("digest")).and_then(|digest| {
        Ok(Decision::Edit(digest, arguments_of(fields.get("arguments").trim(), inbox.max_depth)?))
    });
    carry_out(&inbox, &session, Role::Approver, &id, &fields, decision).await
}

/// `POST /calls/{id}/respond`
pub(super) async fn respond<D: Desk>(
    (State(inbox), Extension(session), Path(id), Extension(fields)): Form<D>,
) -> Response {
    let answer = fields.get("answer").trim();
    let decision = digest(fields.get("digest")).and_then(|digest| {
        if answer.is_empty() {
            return Err(Report::bad_request("an answer by hand cannot be empty; nothing was decided"));
        }
        Ok(Decision::Respond(digest, words_or_json(answer)))
    });
    carry_out(&inbox, &session, Role::Approver, &id, &fields, decision).await
}

/// `POST /calls/{id}/revoke`
pub(super) async fn revoke<D: Desk>(
    (State(inbox), Extension(session), Path(id), Extension(fields)): Form<D>,
) -> Response {
    let decision = Ok(Decision::Revoke(reason(&fields)));
    carry_out(&inbox, &session, Role::Approver, &id, &fields, decision).await
}

/// `POST /calls/{id}/break-glass`
pub(super) async fn break_glass<D: Desk>(
    (State(inbox), Extension(session), Path(id), Extension(fields)): Form<D>,
) -> Response {
    let why = fields.get("reason").trim();
    let decision = may_break_glass(&session.by.name, session.break_glass, why)
        .and_then(|()| Ok(Decision::BreakGlass(digest(fields.get("digest"))?, why.to_owned())));
    match decision {
        Err(report) if report.code == "forbidden" => {
            shell::problem(axum::http::StatusCode::FORBIDDEN, &report)
        }
        decision => carry_out(&inbox, &session, Role::Approver, &id, &fields, decision).await,
    }
}

/// `POST /calls/{id}/resolve`
pub(super) async fn resolve<D: Desk>(
    (State(inbox), Extension(session), Path(id), Extension(fields)): Form<D>,
) -> Response {
    let decision = settlement(&fields).map(Decision::Resolve);
    carry_out(&inbox, &session, Role::Approver, &id, &fields, decision).await
}

/// `POST /calls/{id}/cancel`
pub(super) async fn cancel<D: Desk>(
    (State(inbox), Extension(session), Path(id), Extension(fields)): Form<D>,
) -> Response {
    carry_out(&inbox, &session, Role::Approver, &id, &fields, Ok(Decision::Cancel)).await
}

/// `POST /calls/{id}/release`
pub(super) async fn release<D: Desk>(
    (State(inbox), Extension(session), Path(id), Extension(fields)): Form<D>,
) -> Response {
    carry_out(&inbox, &session, Role::Admin, &id, &fields, Ok(Decision::Release)).await
}

/// `POST /batch`: each of the ticked calls by the digest that it was shown with.
pub(super) async fn batch<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(session): Extension<Session>,
    Extension(fields): Extension<Fields>,
) -> Response {
    if let Some(response) = lacks(&session, Role::Approver) {
        return response;
    }
    let picked: Option<Vec<(CallId, Digest)>> = fields.all("pick").map(pick).collect();
    let decide = |digest| match fields.get("do") {
        "approve" => Some(Decision::Approve(digest)),
        "reject" => Some(Decision::Reject(digest, reason(&fields))),
        _ => None,
    };
    let decided = picked.and_then(|picked| {
        picked.into_iter().map(|(call, digest)| Some((call, decide(digest)?))).collect::<Option<Vec<_>>>()
    });
    let Some(decided) = decided else {
        return shell::problem(
            axum::http::StatusCode::BAD_REQUEST,
            &Report::bad_request("the form names no decision, or no calls that can be read"),
        );
    };
    let back = fields.back("/");
    if decided.is_empty() {
        return told(
            &inbox,
            &session,
            &back,
            Tone::Bad,
            "Nothing was ticked, so nothing was decided.".into(),
        );
    }
    let all = decided
        .into_iter()
        .map(async |(call, decision)| (call, inbox.desk.decide(call, session.by.clone(), decision).await));
    let outcomes = join_all(all).await;
    let (tone, text) = summed_up(&outcomes, fields.get("do"));
    told(&inbox, &session, &back, tone, text)
}

fn pick(text: &str) -> Option<(CallId, Digest)> {
    let (call, digest) = text.split_once(':')?;
    Some((call.parse().ok()?, digest.parse().ok()?))
}

fn summed_up(outcomes: &[(CallId, Result<CallState, DecideError>)], what: &str) -> (Tone, String) {
    let failed: Vec<String> = outcomes
        .iter()
        .filter_map(|(call, outcome)| {
            let report = refusal(*call, outcome.as_ref().err()?.clone()).1;
            Some(format!("{}: {}", short(*call), report.message))
        })
        .collect();
    let done = outcomes.len() - failed.len();
    let verb = if what == "approve" { "approved" } else { "rejected" };
    if failed.is_empty() {
        return (Tone::Good, format!("{} {verb}.", counted(done, "call")));
    }
    let told = failed.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
    let text = format!("{} {verb}, {} not. {told}", counted(done, "call"), failed.len());
    (Tone::Bad, text)
}

async fn carry_out<D: Desk>(
    inbox: &Arc<Inbox<D>>,
    session: &Session,
    role: Role,
    id: &str,
    fields: &Fields,
    decision: Result<Decision, Report>,
) -> Response {
    if let Some(response) = lacks(session, role) {
        return response;
    }
    let (journal, text) = (inbox.desk.journal(), id.to_owned());
    let call = match blocking(move || Ok(ids::find(&*journal, &text))).await {
        Ok(Ok(call)) => call,
        Ok(Err(missing)) => {
            let (status, report) = no_call_words(id, &missing);
            return shell::problem(status, &report);
        }
        Err(error) => return unavailable(&error),
    };
    let page = format!("/calls/{call}");
    let back = fields.back(&page);
    let decision = match decision {
        Ok(decision) => decision,
        Err(report) => return told(inbox, session, &back, Tone::Bad, words(&report)),
    };
    let done = done(&decision);
    match inbox.desk.decide(call, session.by.clone(), decision).await {
        Ok(state) => {
            let text = format!("{}: {}", short(call), done.told(state));
            told(inbox, session, &back, Tone::Good, text)
        }
        Err(error @ DecideError::Stale { .. }) => {
            // The page of the call says what is different from what was shown.
            let (_, report) = refusal(call, error);
            let shown = fields.get("digest");
            let there = format!("{page}?shown={}", super::query_value(shown));
            told(inbox, session, &there, Tone::Bad, words(&report))
        }
        Err(error) => told(inbox, session, &back, Tone::Bad, words(&refusal(call, error).1)),
    }
}

/// The response for an operator whose role is less than `role`.
pub(super) fn lacks(session: &Session, role: Role) -> Option<Response> {
    if session.role >= role {
        return None;
    }
    let why =
        format!("`{}` has the role {}; this needs {}", session.by.name, session.role.name(), role.name());
    let report =
        Report::forbidden(why).hint("Ask somebody with that role, or change `role` in the configuration.");
    Some(shell::problem(axum::http::StatusCode::FORBIDDEN, &report))
}

/// On to `back`, where the message is shown.
pub(super) fn told<D>(inbox: &Inbox<D>, session: &Session, back: &str, tone: Tone, text: String) -> Response {
    let name = inbox.page.sessions.keep(session, Flash { tone, text });
    let joint = if back.contains('?') { '&' } else { '?' };
    Redirect::to(&format!("{back}{joint}flash={name}")).into_response()
}

/// A report as one line for people.
pub(super) fn words(report: &Report) -> String {
    let hint = report.hint.as_deref().map(|hint| format!(" {hint}")).unwrap_or_default();
    let mut text = format!("{}.{hint}", report.message);
    if let Some(first) = text.get(..1).map(str::to_ascii_uppercase) {
        text.replace_range(..1, &first);
    }
    text
}

/// What was asked for, for the message about what came of it.
enum Done {
    Approved,
    Revoked,
    Edited,
    Answered,
    Rejected,
    Settled,
    Cancelled,
    Released,
}

fn done(decision: &Decision) -> Done {
    match decision {
        Decision::Approve(_) | Decision::BreakGlass(..) => Done::Approved,
        Decision::Revoke(_) => Done::Revoked,
        Decision::Edit(..) => Done::Edited,
        Decision::Respond(..) => Done::Answered,
        Decision::Reject(..) => Done::Rejected,
        Decision::Resolve(_) => Done::Settled,
        Decision::Cancel => Done::Cancelled,
        Decision::Release => Done::Released,
    }
}

impl Done {
    fn told(&self, state: CallState) -> String {
        let name = state.name();
        match (self, name) {
            (Self::Approved, "asking") => "your approval counts, and others must approve it too.".into(),
            (Self::Approved, _) => {
                "approved. It is sent at most once, and asked again if it has changed by then.".into()
            }
            (Self::Rejected, _) => "rejected. The agent is told.".into(),
            (Self::Settled, "ready" | "approved" | "in-flight") => {
                "settled as not sent: it is sent again.".into()
            }
            (Self::Settled, "asking") => "settled as not sent: it has changed and is asked again.".into(),
            (Self::Settled, "unknown") => "given up: its outcome stays unknown.".into(),
            (Self::Settled, _) => format!("settled: {name}."),
            (Self::Cancelled, "in-flight" | "in-doubt") => {
                "withdrawn after it had been sent, so it is not known whether it happens.".into()
            }
            (Self::Cancelled, _) => "withdrawn; nothing is sent.".into(),
            (Self::Released, _) => "its keys are free: the next request with them is a new call.".into(),
            (Self::Revoked, _) => format!("the approval is taken back. It is {name}."),
            (Self::Edited, _) => "it is asked again with the new arguments, as a new revision.".into(),
            (Self::Answered, _) => "answered in the tool’s place. Nothing was sent.".into(),
        }
    }
}

fn digest(text: &str) -> Result<Digest, Report> {
    text.parse().map_err(|_| Report::bad_request("the form does not say what was shown; nothing was decided"))
}

fn reason(fields: &Fields) -> String {
    let reason = fields.get("reason").trim();
    if reason.is_empty() { "no reason was given".to_owned() } else { reason.to_owned() }
}

fn settlement(fields: &Fields) -> Result<Resolution, Report> {
    let sure = fields.get("sure") == "yes";
    match fields.get("how") {
        "happened" => Ok(Resolution::Happened(happened(fields.get("answer").trim()))),
        "not-sent" if sure => Ok(Resolution::NotSent),
        "give-up" if sure => Ok(Resolution::GaveUp),
        "not-sent" | "give-up" => Err(Report::bad_request(
            "the box that says that you have looked was not ticked; nothing was decided",
        )),
        _ => Err(Report::bad_request("the form does not say how to settle it; nothing was decided")),
    }
}

fn happened(text: &str) -> Answer {
    words_or_json(if text.is_empty() { "An operator has confirmed that it happened." } else { text })
}

/// JSON as it is, anything else as words.
fn words_or_json(text: &str) -> Answer {
    if serde_json::from_str::<serde_json::Value>(text).is_ok() {
        return answer_of(text);
    }
    answer_of(&serde_json::Value::from(text).to_string())
}
