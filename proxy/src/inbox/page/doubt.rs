//! *In doubt*: calls of which nobody knows whether they happened, what is known about each, and how to settle it.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use holdfast_store::{Entry, Filter, Journal, JournalError, Millis, State as CallState};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    card::{self, Known, heading, since},
    entries,
    session::Session,
    shell::{self, Counts, Frame, Here, Watch, csrf},
    text::{counted, grouped, shown_lines},
    waiting::{PAGE, unavailable},
};
use crate::{
    config::Role,
    driver::now,
    inbox::{Inbox, api::blocking, desk::Desk, ids::short},
};

/// What is to be shown.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    page: usize,
    flash: String,
}

struct Found {
    calls: Vec<Known>,
    total: usize,
    page: usize,
    counts: Counts,
}

/// `GET /doubt`
pub(super) async fn show<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(session): Extension<Session>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let journal = inbox.desk.journal();
    let flash = inbox.page.sessions.flash(&session, &wanted.flash);
    match blocking(move || find(&*journal, wanted.page)).await {
        Ok(found) => {
            let frame = Frame {
                session: &session,
                here: Here::Doubt,
                title: "In doubt",
                counts: found.counts,
                flash,
                watch: Watch::Everything,
            };
            shell::page(&frame, &body(&found, &session, now())).into_response()
        }
        Err(error) => unavailable(&error),
    }
}

fn find(journal: &dyn Journal, page: usize) -> Result<Found, JournalError> {
    let filter = Filter { states: vec![CallState::InDoubt], limit: usize::MAX, ..Filter::default() };
    let mut all = journal.list(&filter)?;
    all.reverse();
    let total = all.len();
    let page = page.clamp(1, total.div_ceil(PAGE).max(1));
    let mut calls = Vec::new();
    for call in all.into_iter().skip((page - 1) * PAGE).take(PAGE) {
        calls.extend(
            Known::read(journal, call.call)?.filter(|known| known.summary.state == CallState::InDoubt),
        );
    }
    Ok(Found { calls, total, page, counts: Counts::read(journal)? })
}

fn body(found: &Found, session: &Session, now: Millis) -> Markup {
    let pages = found.total.div_ceil(PAGE).max(1);
    html! {
        div.title { h1 { "In doubt" } }
        @if found.total == 0 {
            div.empty {
                p.big { "Nothing is in doubt." }
                p.dim { "A call is in doubt when it was sent, its answer was lost, and sending it again could do it twice." }
            }
        } @else {
            p.lead {
                "These may have happened. Find out at the server, then say what is true: nothing is sent again on a guess."
            }
        }
        @for known in &found.calls {
            article.card.doubtful data-key={ "card-" (known.id()) } id={ "c-" (short(known.id())) } tabindex="-1" {
                header { div.what { (heading(known, now)) } }
                (known_so_far(known, now))
                (card::content(known))
                @if session.role >= Role::Approver { (forms(known, session, "/doubt")) }
            }
        }
        @if pages > 1 {
            nav.pager aria-label="Pages" {
                @if found.page > 1 { a.button rel="prev" href={ "/doubt?page=" (found.page - 1) } { "Earlier" } }
                span { "page " (found.page) " of " (pages) ", " (grouped(found.total)) " calls" }
                @if found.page < pages { a.button rel="next" href={ "/doubt?page=" (found.page + 1) } { "Later" } }
            }
        }
    }
}

/// What is known about a call in doubt: when it was sent, how its answer was lost, what looking has shown.
pub(super) fn known_so_far(known: &Known, now: Millis) -> Markup {
    let sent = known.records.iter().rev().find(|record| matches!(record.entry, Entry::Dispatched { .. }));
    let lost = known.records.iter().rev().find_map(|record| match &record.entry {
        Entry::Lost { trouble, .. } => Some((record.at, trouble)),
        _ => None,
    });
    let probes = known.records.iter().filter(|record| matches!(record.entry, Entry::Probed { .. }));
    let probes: Vec<_> = probes.collect();
    html! {
        dl.known {
            @if let Some(sent) = sent {
                dt { "Sent" } dd { (since(sent.at, now)) ", in " (counted(known.summary.attempts as usize, "attempt")) }
            }
            @if let Some((at, trouble)) = lost {
                dt { "Answer lost" } dd { (since(at, now)) ": " (entries::trouble_words(trouble)) }
            }
            dt { "Looked" }
            dd {
                @match probes.last() {
                    Some(last) => {
                        (counted(probes.len(), "time")) ", the last " (since(last.at, now)) ": "
                        @if let Entry::Probed { message, .. } = &last.entry { (shown_lines(message)) }
                    }
                    None => { "not by Holdfast: no rule gives a probe for it, or it has not answered yet" }
                }
            }
        }
    }
}

/// The three ways to settle it, each with what follows.
pub(super) fn forms(known: &Known, session: &Session, back: &str) -> Markup {
    let id = known.id();
    let open = |how: &'static str| {
        html! {
            (csrf(session))
            input type="hidden" name="back" value=(back);
            input type="hidden" name="how" value=(how);
        }
    };
    let sure = |text: &str| {
        html! { label.sure { input type="checkbox" name="sure" value="yes" required; " " (text) } }
    };
    let action = format!("/calls/{id}/resolve");
    html! {
        div.settle {
            details data-key="happened" {
                summary { "It happened…" }
                form method="post" action=(action) {
                    (open("happened"))
                    p { "The agent gets this as the answer, now and whenever it asks again. Nothing is sent." }
                    label for={ "answer-" (id) } { "The answer: words, or JSON as the tool would have given it" }
                    textarea id={ "answer-" (id) } name="answer" rows="3" spellcheck="false"
                        placeholder="It was booked as t-4711." {}
                    button.primary type="submit" { "It happened" }
                }
            }
            details data-key="not-sent" {
                summary { "It did not happen…" }
                form method="post" action=(action) {
                    (open("not-sent"))
                    p { "It is sent again. If it did happen after all, it happens twice." }
                    (sure("I have looked at the server: it did not happen"))
                    button.danger type="submit" { "Send it again" }
                }
            }
            details data-key="give-up" {
                summary { "Nobody can tell…" }
                form method="post" action=(action) {
                    (open("give-up"))
                    p { "Final: the agent is told that the outcome is unknown for good, and its keys are never usable again." }
                    (sure("Nobody will find out any more"))
                    button.danger type="submit" { "Give up" }
                }
            }
        }
    }
}
