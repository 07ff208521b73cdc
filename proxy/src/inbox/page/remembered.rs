//! *Remembered*: approvals that speak for later calls, too: listed, made and forgotten.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use holdfast_policy::UpstreamKey;
use holdfast_store::{CallId, Digest};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    card::{Known, left, tool_name},
    decide::{lacks, told, words},
    posted::Fields,
    session::{Session, Tone},
    shell::{self, Counts, Frame, Here, Watch, csrf},
    text::{counted, grouped, shown},
    waiting::unavailable,
};
use crate::{
    config::Role,
    driver::{Wish, now},
    inbox::{
        Inbox,
        api::blocking,
        decisions::refusal,
        desk::{Decision, Desk},
        ids::short,
        register::{self, RememberedView, span},
        visible::visible,
    },
    report::Report,
};

/// Characters of an argument's value that are shown beside its box.
const LONGEST: usize = 120;

/// Query of `GET /remembered`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    /// What to say about what was just done.
    flash: String,
}

/// `GET /remembered`
pub(super) async fn show<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(session): Extension<Session>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let journal = inbox.desk.journal();
    let counts = match blocking(move || Counts::read(&*journal)).await {
        Ok(counts) => counts,
        Err(error) => return unavailable(&error),
    };
    let flash = inbox.page.sessions.flash(&session, &wanted.flash);
    let watch = Watch::Everything;
    let frame = Frame { session: &session, here: Here::Waiting, title: "Remembered", counts, flash, watch };
    let all = inbox.desk.remembered();
    let body = html! {
        div.title {
            h1 { "Remembered decisions" }
            p.meta { "An approval that also speaks for later calls, until it is used up, expires or is forgotten." }
        }
        @if all.is_empty() {
            div.empty {
                p.big { "Nothing is remembered." }
                p { "Open a call that you approve, or have approved, to let that speak for calls like it." }
            }
        }
        @for view in &all { (card(view, &session)) }
    };
    shell::page(&frame, &body).into_response()
}

fn card(view: &RememberedView, session: &Session) -> Markup {
    let one = &view.decision;
    let speaks = view.silenced.is_none() && view.used < one.uses;
    html! {
        article.card data-key={ "remembered-" (one.id) } {
            header {
                div.what {
                    h3 { (tool_name(&one.server, &one.tool)) }
                    p.meta {
                        "approved by " strong { (shown(&one.by.name)) } " for " (shown(&one.principal)) " · first for "
                        a.id href={ "/calls/" (one.call) } { (short(one.call)) }
                    }
                }
                p.deadline { span.dim { "ends in " } (left(one.expires, now())) }
            }
            ul.gates {
                @for (name, value) in &one.pins {
                    li { code { (shown(name)) } " must be " code { (shown(value)) } }
                }
                @for name in &one.vary { li { code { (shown(name)) } " may be anything" } }
                @for gate in &one.gates { li { "answers rule " strong { (shown(gate.rule.as_str())) } } }
                li { "used " (grouped(view.used as usize)) " of " (counted(one.uses as usize, "time")) }
            }
            @if !speaks { p.note { "It speaks for no further call: " (shown(&view.standing())) "." } }
            @if session.role >= Role::Approver {
                form.decide method="post" action={ "/remembered/" (one.id) "/forget" } {
                    (csrf(session))
                    button.danger type="submit" aria-label={ "Forget " (visible(&one.tool)) } { "Forget it" }
                }
            }
        }
    }
}

/// The form by which an approval is remembered: with it, or after it.
pub(super) fn form(known: &Known, digest: Digest, session: &Session, when: When) -> Markup {
    let Some(arguments) = pinnable(known) else { return html! {} };
    let plan = known.accepted().map(|accepted| &accepted.plan);
    let previews = plan.is_some_and(|plan| plan.preview.is_some());
    let (path, summary, button) = match when {
        When::Approving => ("approve-and-remember", "Approve and remember…", "Approve, and remember it"),
        When::Approved => ("remember", "Remember your approval…", "Remember it"),
    };
    html! {
        details data-key="remember" {
            summary { (summary) }
            form method="post" action={ "/calls/" (known.id()) "/" (path) } {
                (csrf(session))
                input type="hidden" name="digest" value=(digest);
                p { "Your approval then also speaks for later calls of this agent to this tool, as it is defined now. Ticked arguments must be the same; a call with any other argument is asked about." }
                @if previews { p.note { "Nobody looks at what such a call would do: its preview is not fetched, and nothing in it is checked for change." } }
                fieldset.pins {
                    legend { "Must be the same" }
                    @for (place, (name, value)) in arguments.iter().enumerate() {
                        label.pin {
                            input type="checkbox" name="pin" value=(place) checked;
                            span { code { (shown(name)) } " " (short_value(value)) }
                        }
                    }
                    @if arguments.is_empty() { p.dim { "It has no arguments." } }
                }
                div.row {
                    label { "For how many calls? " input type="number" name="uses" min="1" max="1000" value="10" required; }
                    label {
                        "For how long? "
                        select name="for" {
                            option value="1h" { "1 hour" }
                            option value="8h" selected { "8 hours" }
                            option value="1d" { "1 day" }
                            option value="7d" { "7 days" }
                            option value="30d" { "30 days" }
                        }
                    }
                }
                button type="submit" { (button) }
            }
        }
    }
}

/// The arguments that can be pinned, in their order: not what we put in for the server.
fn pinnable(known: &Known) -> Option<Map<String, Value>> {
    // What stands beside the arguments cannot be pinned, so such a call is always asked about.
    if known.extra().is_some() {
        return None;
    }
    let mut arguments: Value = serde_json::from_str(known.arguments()?).ok()?;
    let plan = known.accepted().map(|accepted| &accepted.plan);
    if let Some(UpstreamKey::Arg(key)) = plan.and_then(|plan| plan.upstream_key.as_ref()) {
        key.take(&mut arguments);
    }
    match arguments {
        Value::Object(arguments) => Some(arguments),
        _ => None,
    }
}

/// Whether the approval is given with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// It is.
    Approving,
    /// It was given already.
    Approved,
}

fn short_value(value: &Value) -> Markup {
    let text = value.to_string();
    let count = text.chars().count();
    let begin: String = text.chars().take(LONGEST).collect();
    html! {
        code { (shown(&begin)) }
        @if count > LONGEST { " … and " (counted(count - LONGEST, "more character")) }
    }
}

/// `POST /calls/{id}/approve-and-remember`
pub(super) async fn approve<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(session): Extension<Session>,
    Path(id): Path<CallId>,
    Extension(fields): Extension<Fields>,
) -> Response {
    if let Some(response) = lacks(&session, Role::Approver) {
        return response;
    }
    let back = format!("/calls/{id}");
    let wish = match wish(&inbox, id, &fields).await {
        Ok(wish) => wish,
        Err(report) => return told(&inbox, &session, &back, Tone::Bad, words(&report)),
    };
    match inbox.desk.decide(id, session.by.clone(), Decision::Approve(wish.digest)).await {
        Ok(_) => remembering(&inbox, &session, id, wish, "Approved").await,
        Err(error) => told(&inbox, &session, &back, Tone::Bad, words(&refusal(id, error).1)),
    }
}

/// `POST /calls/{id}/remember`
pub(super) async fn remember<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(session): Extension<Session>,
    Path(id): Path<CallId>,
    Extension(fields): Extension<Fields>,
) -> Response {
    if let Some(response) = lacks(&session, Role::Approver) {
        return response;
    }
    match wish(&inbox, id, &fields).await {
        Ok(wish) => remembering(&inbox, &session, id, wish, "Done").await,
        Err(report) => told(&inbox, &session, &format!("/calls/{id}"), Tone::Bad, words(&report)),
    }
}

async fn remembering<D: Desk>(
    inbox: &Inbox<D>,
    session: &Session,
    id: CallId,
    wish: Wish,
    so_far: &str,
) -> Response {
    let (tone, text) = match inbox.desk.remember(id, session.by.clone(), wish).await {
        Ok(view) => {
            let uses = counted(view.decision.uses as usize, "later call");
            (Tone::Good, format!("{so_far}, and remembered: it speaks for {uses} at most."))
        }
        Err(error) => {
            let why = words(&refusal(id, error).1);
            (Tone::Bad, format!("{so_far}, but it is not remembered. {why}"))
        }
    };
    told(inbox, session, &format!("/calls/{id}"), tone, text)
}

/// `POST /remembered/{id}/forget`
pub(super) async fn forget<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(session): Extension<Session>,
    Path(id): Path<String>,
    Extension(fields): Extension<Fields>,
) -> Response {
    if let Some(response) = lacks(&session, Role::Approver) {
        return response;
    }
    let reason = fields.get("reason").to_owned();
    let forgotten = match register::find(&inbox.desk, &id) {
        Some(id) => inbox.desk.forget(id, session.by.clone(), reason).await,
        None => Err(crate::driver::DecideError::NotFound),
    };
    let (tone, text) = match forgotten {
        Ok(()) => (Tone::Good, "Forgotten: calls like that are asked about again.".to_owned()),
        Err(error) => (Tone::Bad, words(&register::words(error, "remembered decision").1)),
    };
    told(&inbox, &session, "/remembered", tone, text)
}

/// What is wished for. The form names arguments by their places: their names are the agent's. Should they be others by
/// now, the digest is, too.
async fn wish<D: Desk>(inbox: &Inbox<D>, id: CallId, fields: &Fields) -> Result<Wish, Report> {
    let digest = fields.get("digest").parse();
    let digest = digest.map_err(|_| Report::bad_request("the form names no digest; nothing was decided"))?;
    let uses = fields.get("uses").trim().parse();
    let uses =
        uses.map_err(|_| Report::bad_request("the number of calls cannot be read; nothing was decided"))?;
    let pinned: Vec<usize> = fields.all("pin").filter_map(|place| place.parse().ok()).collect();
    let journal = inbox.desk.journal();
    let known = blocking(move || Known::read(&*journal, id)).await;
    let known = known.map_err(|error| Report::journal_unavailable(&error.to_string()))?;
    let arguments = known.as_ref().and_then(pinnable).ok_or_else(|| Report::not_found(&id.to_string()))?;
    let free = arguments.into_iter().enumerate().filter(|(place, _)| !pinned.contains(place));
    let vary = free.map(|(_, (name, _))| name).collect();
    Wish::new(digest, vary, uses, span(fields.get("for"))?).map_err(Report::bad_request)
}
