//! One call: what it is, what is to be decided, its life as a drawing and as a list, its arguments and answer in full.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Path, Query, State},
    http::header,
    response::{IntoResponse, Response},
};
use holdfast_store::{
    Accepted, Call, CallId, Digest, Disposition, Entry, Millis, Record, State as CallState,
};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    card::{self, Known, badge, left, since, tool_name},
    doubt, entries, forms, json,
    remembered::{self, When},
    session::Session,
    shell::{self, Counts, Frame, Here, Watch, csrf},
    text::{counted, shown},
    timeline,
    waiting::unavailable,
};
use crate::{
    answers::{self, Reader},
    config::Role,
    driver::now,
    inbox::{
        Inbox,
        api::{blocking, no_call_words},
        desk::Desk,
        ids::{self, NoCall, short},
        view::{self, HoldDetail},
        visible::visible,
    },
    times::{clock, local, span, zone},
};

/// What is to be shown besides the call.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    /// The digest that a decision was made on which no longer fits.
    shown: String,
    flash: String,
}

/// `GET /calls/{id}`
pub(super) async fn show<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(session): Extension<Session>,
    Path(id): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let journal = inbox.desk.journal();
    let flash = inbox.page.sessions.flash(&session, &wanted.flash);
    let text = id.clone();
    let found = blocking(move || {
        let call = match ids::find(&*journal, &text) {
            Ok(call) => call,
            Err(missing) => return Ok(Err(missing)),
        };
        let known = Known::read(&*journal, call)?.ok_or(NoCall::Unknown);
        Ok(known.and_then(|known| Ok((known, Counts::read(&*journal).map_err(NoCall::Journal)?))))
    });
    let (known, counts) = match found.await {
        Ok(Ok(found)) => found,
        Ok(Err(missing)) => {
            let (status, report) = no_call_words(&id, &missing);
            return shell::problem(status, &report);
        }
        Err(error) => return unavailable(&error),
    };
    let title = format!("{} {}", known.summary.tool, short(known.id()));
    let here = match known.summary.state {
        CallState::Asking => Here::Waiting,
        CallState::InDoubt => Here::Doubt,
        _ => Here::Calls,
    };
    let watch = Watch::Call(known.id());
    let frame = Frame { session: &session, here, title: &title, counts, flash, watch };
    let shown: Option<Digest> = wanted.shown.parse().ok();
    shell::page(&frame, &body(&known, &session, shown, now())).into_response()
}

/// `GET /calls/{id}/history.json`: what `GET /api/v1/calls/{id}` gives, to keep.
pub(super) async fn history<D: Desk>(State(inbox): State<Arc<Inbox<D>>>, Path(id): Path<String>) -> Response {
    let journal = inbox.desk.journal();
    let found = blocking(move || match id.parse::<CallId>() {
        Ok(call) => view::detail(&*journal, call),
        Err(_) => Ok(None),
    });
    match found.await {
        Ok(Some(detail)) => {
            let name = format!("attachment; filename=\"call-{}.json\"", detail.call.call);
            let text = serde_json::to_string_pretty(&detail).expect("our own shapes always serialise");
            let headers =
                [(header::CONTENT_TYPE, "application/json".to_owned()), (header::CONTENT_DISPOSITION, name)];
            (headers, text).into_response()
        }
        Ok(None) => axum::http::StatusCode::NOT_FOUND.into_response(),
        Err(error) => unavailable(&error),
    }
}

/// `GET /calls/{id}/answer.json`: an answer that is too large to be shown, as the server sent it.
pub(super) async fn large_answer<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Path(id): Path<String>,
) -> Response {
    let journal = inbox.desk.journal();
    let found = blocking(move || match id.parse::<CallId>() {
        Ok(call) => Ok((call, journal.history(call)?)),
        Err(_) => Ok((CallId::from_bytes([0; 16]), Vec::new())),
    });
    let (call, records) = match found.await {
        Ok(found) => found,
        Err(error) => return unavailable(&error),
    };
    let kept = records.iter().find_map(|record| answers::kept(&record.entry));
    let (Some(kept), Some(answers)) = (kept, inbox.desk.answers()) else {
        return axum::http::StatusCode::NOT_FOUND.into_response();
    };
    match answers.bytes(Reader::Operator, kept.sha256, None).await {
        Ok(found) => {
            let name = format!("attachment; filename=\"answer-{call}.json\"");
            let headers =
                [(header::CONTENT_TYPE, "application/json".to_owned()), (header::CONTENT_DISPOSITION, name)];
            (headers, found.bytes).into_response()
        }
        Err(_) => axum::http::StatusCode::NOT_FOUND.into_response(),
    }
}

fn body(known: &Known, session: &Session, shown: Option<Digest>, now: Millis) -> Markup {
    let call = &known.summary;
    let asks = call.state == CallState::Asking && known.hold.is_some();
    html! {
        div.title {
            h1 { (badge(call.state)) " " (tool_name(&call.server, &call.tool)) }
            p.meta { "for " (self::shown(&call.principal)) ", " (since(call.updated, now)) }
        }
        @if let Some(digest) = shown { (what_changed(known, digest)) }
        @if call.state == CallState::InDoubt {
            section.card.doubtful {
                h2 { "Did it happen?" }
                (doubt::known_so_far(known, now))
                @if session.role >= Role::Approver { (doubt::forms(known, session, &page_of(known))) }
            }
        }
        section.card data-key="what" {
            @match (&known.hold, asks) {
                (Some(hold), true) => {
                    header { h2.what { "May it do exactly this?" } p.deadline { span.dim { "decide within " } (left(hold.approve_by, now)) } }
                }
                _ => { h2 { "Arguments" } }
            }
            @if asks { (card::who_asks(known, now)) }
            @if known.records.is_empty() {
                p.note { "Its entries are no longer kept: only its line is left." }
            }
            (card::content(known))
            @if let Some(hold) = &known.hold { (question(known, hold, session, asks, now)) }
        }
        @if !known.records.is_empty() {
            section data-key="life" { h2 { "Its life" } (timeline::drawing(&known.records, now)) (life(&known.records)) }
        }
        (answer(known))
        section data-key="facts" { h2 { "What is known" } (facts(known, now)) }
        (further(known, session))
    }
}

fn page_of(known: &Known) -> String {
    format!("/calls/{}", known.id())
}

fn question(known: &Known, hold: &HoldDetail, session: &Session, asks: bool, now: Millis) -> Markup {
    html! {
        (card::standing(hold, session))
        @if asks && session.role >= Role::Approver {
            (forms::decide(known, hold, session, &page_of(known)))
            (forms::otherwise(known, hold, session))
        }
        @if let Some(by) = hold.execute_by.filter(|_| !asks) {
            p.note { "Approved, to be sent within " (left(by, now)) "." }
        }
        (forms::revoke(known, hold, session))
    }
}

/// What is different from what an operator decided on.
fn what_changed(known: &Known, shown: Digest) -> Markup {
    let current = known.hold.as_ref().map(|hold| hold.digest);
    if current == Some(shown) {
        return html! {};
    }
    let place = known.records.iter().position(|record| digest(&record.entry) == Some(shown));
    html! {
        section.changed role="alert" {
            h2 { "It is not what you were shown" }
            @match place {
                None => { p { "What you decided on was never asked for this call. Nothing was decided." } }
                Some(place) => {
                    p { "Nothing was decided. Since then:" }
                    ul {
                        @for record in known.records[place + 1..].iter().filter(|record| tells_a_change(&record.entry)) {
                            li { time { (clock(record.at)) } " " (entries::told(&record.entry).1) }
                        }
                    }
                    @if current.is_some() { p { "Below is what is asked now." } }
                }
            }
            p.dim.digests {
                "shown " code { (shown.to_string()[..12]) }
                @if let Some(current) = current { ", now " code { (current.to_string()[..12]) } }
            }
        }
    }
}

/// The digest that an entry asks for.
fn digest(entry: &Entry) -> Option<Digest> {
    match entry {
        Entry::Accepted(accepted) => match &accepted.disposition {
            Disposition::Ask { digest, .. } => Some(*digest),
            _ => None,
        },
        Entry::Previewed { digest, .. } | Entry::Superseded { digest, .. } | Entry::Edited { digest, .. } => {
            Some(*digest)
        }
        _ => None,
    }
}

fn tells_a_change(entry: &Entry) -> bool {
    !matches!(entry, Entry::Joined { .. } | Entry::Collected { .. } | Entry::Probed { .. })
}

fn life(records: &[Record]) -> Markup {
    let first = records.first().map_or(Millis(0), |record| record.at);
    let mut before = first;
    let mut delta = |at: Millis| {
        let delta = at.since(before);
        before = at;
        format!("+{}", span(delta))
    };
    let mut day = String::new();
    let mut new_day = |at: Millis| {
        let today = local(at)[..10].to_owned();
        let is_new = today != day;
        day.clone_from(&today);
        is_new.then_some(today)
    };
    html! {
        ol.life {
            @for record in records {
                @if let Some(day) = new_day(record.at) { li.day { (day) " " (zone(record.at)) } }
                @let (tone, words) = entries::told(&record.entry);
                li class={ "entry " (tone.class()) } data-key={ "e" (record.n) } {
                    time datetime=(card::iso(record.at)) { (clock(record.at)) }
                    span.delta { @if record.n > 0 { (delta(record.at)) } }
                    details {
                        summary { (words) }
                        (json::block(&serde_json::to_string(record).expect("our own shapes always serialise"), "Entry"))
                    }
                }
            }
        }
    }
}

fn answer(known: &Known) -> Markup {
    let Some((kind, text)) = known.records.iter().find_map(|record| entries::answer(&record.entry)) else {
        return html! {};
    };
    html! {
        section.card data-key="answer" {
            h2 { "Answer: " (kind) }
            (super::text::warning_badge([&**text]))
            @if let Some(kept) = known.records.iter().find_map(|record| answers::kept(&record.entry)) {
                p { "This is the beginning of an answer of " (kept.bytes) " bytes. "
                    a href={ "/calls/" (known.id()) "/answer.json" } download { "Download all of it" } }
            }
            (json::block(text, "Answer"))
        }
    }
}

fn facts(known: &Known, now: Millis) -> Markup {
    let call = &known.summary;
    let joined = known.records.iter().filter(|record| matches!(record.entry, Entry::Joined { .. })).count();
    html! {
        dl.facts {
            dt { "Call" } dd { code.copy { (call.call) } }
            dt { "Accepted" } dd { (local(call.at)) ", " (since(call.at, now)) }
            dt { "Attempts" } dd { (call.attempts) }
            dt { "Asked for again" } dd {
                @if joined == 0 { "never" } @else { (counted(joined, "time")) ", and answered as this one call" }
            }
            @if let Some(accepted) = known.accepted() { (accepted_facts(accepted, known.call.as_ref().map_or(&accepted.identity, Call::identity))) }
            @if let Some(hold) = &known.hold {
                dt { "Digest" } dd { code.copy { (hold.digest) } ", revision " (hold.revision) }
            }
        }
    }
}

fn accepted_facts(accepted: &Accepted, identity: &str) -> Markup {
    let rules: Vec<String> = accepted.plan.rules.iter().map(|rule| visible(rule.as_str())).collect();
    let keys: Vec<&str> = accepted.keys.iter().map(|key| entries::key(key.source)).collect();
    html! {
        dt { "Agent" } dd {
            (shown(&accepted.caller.principal))
            @if !accepted.caller.client.is_empty() { " with " (shown(&accepted.caller.client)) }
            span.dim { ", channel " (shown(&accepted.caller.channel)) }
        }
        @if let Some(run) = &accepted.run { dt { "Run" } dd {
            (shown(run))
            @if let Some(life) = &accepted.incarnation { span.dim { ", incarnation " (shown(life)) } }
        } }
        dt { "Server" } dd { (shown(&accepted.server)) ": " code { (shown(identity)) } }
        dt { "Rules" } dd {
            @if rules.is_empty() { "the defaults" } @else { (rules.join(", ")) }
            span.dim { ", policy " (shown(&accepted.policy)) ", repeat " (accepted.plan.repeat.to_string()) }
        }
        dt { "Keys" } dd { @if keys.is_empty() { "none" } @else { (keys.join(", ")) } }
        dt { "Fingerprint" } dd { code.copy { (accepted.fingerprint) } }
        @if !accepted.definition.is_empty() { dt { "Definition" } dd { code.copy { (shown(&accepted.definition)) } } }
    }
}

/// What this operator has approved of it, where that still counts.
fn approved_by(known: &Known, session: &Session) -> Option<Digest> {
    let hold = known.call.as_ref()?.hold.as_ref()?;
    hold.votes.iter().any(|(voter, _)| voter.name == session.by.name).then_some(hold.digest)
}

/// The history as a file, and what can still be done.
fn further(known: &Known, session: &Session) -> Markup {
    let id = known.id();
    let done = known.summary.state.is_done();
    html! {
        div.further {
            a.button href={ "/calls/" (id) "/history.json" } download { "Download its history" }
            @if let Some(digest) = approved_by(known, session) {
                (remembered::form(known, digest, session, When::Approved))
            }
            @if !done && session.role >= Role::Approver {
                details data-key="cancel" {
                    summary { "Withdraw it…" }
                    form method="post" action={ "/calls/" (id) "/cancel" } {
                        (csrf(session))
                        p { "What was not sent is not sent any more. What was sent already may still happen." }
                        button.danger type="submit" { "Withdraw" }
                    }
                }
            }
            @if done && session.role >= Role::Admin {
                details data-key="release" {
                    summary { "Free its keys…" }
                    form method="post" action={ "/calls/" (id) "/release" } {
                        (csrf(session))
                        p { "The next request with one of them is a new call: it can be executed a second time." }
                        button.danger type="submit" { "Free its keys" }
                    }
                }
            }
        }
    }
}
