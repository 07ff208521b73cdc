//! *Calls*: the journal, newest first, filtered and searched; its first page is a live tail.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension,
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use holdfast_store::{
    CallId, Entry, Filter, Journal, JournalError, Millis, Record, State as CallState, Summary,
};
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    card::{badge, since, tool_name},
    query_value,
    session::Session,
    shell::{self, Counts, Frame, Here, Watch},
    text::{bytes, counted, grouped, shown},
    waiting::unavailable,
};
use crate::{
    driver::now,
    inbox::{Inbox, api::blocking, desk::Desk, ids::short, reviews::broken_glass, visible::visible},
    times::{local, span},
};

/// Calls on one page.
const PAGE: usize = 50;
/// Calls that are looked at for one page, and for how long: a search of a long journal goes on by pages.
const LOOKED_AT: usize = 20_000;
const PATIENCE: Duration = Duration::from_millis(150);
/// The choice among the states that is none: calls whose gates were passed over.
const GLASS: &str = "glass";
/// Characters of the arguments that a line shows.
const GLIMPSE: usize = 96;

/// What is to be shown.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    q: String,
    state: String,
    server: String,
    tool: String,
    agent: String,
    run: String,
    since: String,
    before: String,
    flash: String,
}

struct Found {
    lines: Vec<Line>,
    /// Where the next page starts.
    next: Option<CallId>,
    looked_at: usize,
    /// The whole journal was not looked through for this page.
    unfinished: bool,
    values: [BTreeSet<String>; 4],
    counts: Counts,
}

struct Line {
    call: Summary,
    arguments: String,
}

/// `GET /calls`
pub(super) async fn show<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(session): Extension<Session>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let journal = inbox.desk.journal();
    let flash = inbox.page.sessions.flash(&session, &wanted.flash);
    let (asked, time) = (wanted.clone(), now());
    match blocking(move || find(&*journal, &asked, time)).await {
        Ok(found) => {
            let watch = if wanted.before.is_empty() { Watch::Everything } else { Watch::Nothing };
            let frame = Frame {
                session: &session,
                here: Here::Calls,
                title: "Calls",
                counts: found.counts,
                flash,
                watch,
            };
            shell::page(&frame, &body(&found, &wanted, time)).into_response()
        }
        Err(error) => unavailable(&error),
    }
}

const OPEN: [CallState; 7] = [
    CallState::Previewing,
    CallState::Asking,
    CallState::Approved,
    CallState::Ready,
    CallState::InFlight,
    CallState::Backoff,
    CallState::InDoubt,
];

const SINCE: [(&str, &str, u64); 4] = [
    ("15m", "the last 15 minutes", 900_000),
    ("1h", "the last hour", 3_600_000),
    ("24h", "the last day", 86_400_000),
    ("7d", "the last week", 604_800_000),
];

impl Wanted {
    fn filter(&self, now: Millis) -> Filter {
        let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let since = SINCE.iter().find(|(name, ..)| *name == self.since);
        Filter {
            states: match self.state.as_str() {
                "open" => OPEN.to_vec(),
                GLASS => Vec::new(),
                name => CallState::from_name(name).into_iter().collect(),
            },
            server: given(&self.server),
            tool: given(&self.tool),
            run: given(&self.run),
            since: since.map(|(_, _, ms)| Millis(now.0.saturating_sub(*ms))),
            before: self.before.parse().ok(),
            limit: 500,
        }
    }

    fn is_open(&self) -> bool {
        [&self.q, &self.state, &self.server, &self.tool, &self.agent, &self.run, &self.since]
            .iter()
            .all(|field| field.is_empty())
    }

    fn next_url(&self, before: CallId) -> String {
        let fields = [
            ("q", &self.q),
            ("state", &self.state),
            ("server", &self.server),
            ("tool", &self.tool),
            ("agent", &self.agent),
            ("run", &self.run),
            ("since", &self.since),
        ];
        let given = fields.into_iter().filter(|(_, value)| !value.is_empty());
        let given: String = given.map(|(name, value)| format!("&{name}={}", query_value(value))).collect();
        format!("/calls?before={before}{given}")
    }
}

fn find(journal: &dyn Journal, wanted: &Wanted, now: Millis) -> Result<Found, JournalError> {
    let begun = Instant::now();
    let needle = wanted.q.trim().to_lowercase();
    let mut filter = wanted.filter(now);
    let mut found = Found {
        lines: Vec::new(),
        next: None,
        looked_at: 0,
        unfinished: false,
        values: values(journal)?,
        counts: Counts::read(journal)?,
    };
    loop {
        let some = journal.list(&filter)?;
        for call in &some {
            if found.lines.len() == PAGE {
                found.next = found.lines.last().map(|line| line.call.call);
                return Ok(found);
            }
            if found.looked_at >= LOOKED_AT || begun.elapsed() > PATIENCE {
                // Everything up to the one before this has been looked at.
                found.next = filter.before;
                found.unfinished = true;
                return Ok(found);
            }
            found.looked_at += 1;
            filter.before = Some(call.call);
            if !wanted.agent.is_empty() && wanted.agent != call.principal {
                continue;
            }
            let records = journal.history(call.call)?;
            if wanted.state == GLASS && broken_glass(&records).next().is_none() {
                continue;
            }
            let arguments = arguments(&records);
            if fits(&needle, call, &arguments) {
                found.lines.push(Line { call: call.clone(), arguments });
            }
        }
        if some.len() < filter.limit {
            return Ok(found);
        }
    }
}

fn arguments(records: &[Record]) -> String {
    match records.first().map(|record| &record.entry) {
        Some(Entry::Accepted(accepted)) => accepted.arguments.to_string(),
        _ => String::new(),
    }
}

fn fits(needle: &str, call: &Summary, arguments: &str) -> bool {
    if needle.is_empty() {
        return true;
    }
    let id = call.call.to_string();
    let digits = needle.replace('-', "");
    [&id, &call.server, &call.tool, &call.principal]
        .into_iter()
        .chain(&call.run)
        .any(|text| text.to_lowercase().contains(needle))
        || call.call.0.simple().to_string().contains(&digits) && digits.len() >= 4
        || arguments.to_lowercase().contains(needle)
}

/// What occurs among the newest calls, for the filters: servers, tools, agents, runs.
fn values(journal: &dyn Journal) -> Result<[BTreeSet<String>; 4], JournalError> {
    let recent = journal.list(&Filter { limit: 1_000, ..Filter::default() })?;
    let set = |of: fn(&Summary) -> Option<&String>| recent.iter().filter_map(of).cloned().collect();
    Ok([
        set(|call| Some(&call.server)),
        set(|call| Some(&call.tool)),
        set(|call| Some(&call.principal)),
        set(|call| call.run.as_ref()),
    ])
}

fn body(found: &Found, wanted: &Wanted, now: Millis) -> Markup {
    html! {
        div.title { h1 { "Calls" } }
        (filters(found, wanted))
        @if found.lines.is_empty() && !found.unfinished {
            div.empty {
                @if wanted.is_open() {
                    p.big { "No calls yet." }
                    p.dim { "Every call that an agent makes through Holdfast appears here, as it happens." }
                } @else {
                    p.big { "No such calls." }
                    p { a href="/calls" { "Show all" } }
                }
            }
        } @else {
            (table(&found.lines, now))
        }
        nav.pager aria-label="Pages" {
            @if !wanted.before.is_empty() { a.button href={ "/calls" } { "Newest" } }
            @if found.unfinished { span { "looked through " (counted(found.looked_at, "call")) " so far" } }
            @if let Some(next) = found.next {
                a.button rel="next" href=(wanted.next_url(next)) { @if found.unfinished { "Look further back" } @else { "Older" } }
            }
        }
    }
}

fn filters(found: &Found, wanted: &Wanted) -> Markup {
    let [servers, tools, agents, runs] = &found.values;
    html! {
        form.filters.bar method="get" action="/calls" role="search" data-auto="" {
            label.search {
                span.dim { "Search" }
                input type="search" name="q" value=(wanted.q) placeholder="id, tool, agent, run, arguments" autocomplete="off" spellcheck="false";
            }
            div.scroll {
                label {
                    span.dim { "State" }
                    select name="state" {
                        option value="" { "any" }
                        option value="open" selected[wanted.state == "open"] { "not ended" }
                        option value=(GLASS) selected[wanted.state == GLASS] { "approved past the gates" }
                        @for state in CallState::ALL {
                            option value=(state.name()) selected[wanted.state == state.name()] { (state.name()) }
                        }
                    }
                }
                (choice("server", "Server", servers, &wanted.server))
                (choice("tool", "Tool", tools, &wanted.tool))
                (choice("agent", "Agent", agents, &wanted.agent))
                (choice("run", "Run", runs, &wanted.run))
                label {
                    span.dim { "Time" }
                    select name="since" {
                        option value="" { "any" }
                        @for (name, words, _) in SINCE {
                            option value=(name) selected[wanted.since == name] { (words) }
                        }
                    }
                }
            }
            button.for-no-script type="submit" { "Search" }
        }
    }
}

fn choice(name: &str, label: &str, values: &BTreeSet<String>, chosen: &str) -> Markup {
    let missing = (!chosen.is_empty() && !values.contains(chosen)).then_some(chosen);
    html! {
        @if !values.is_empty() || missing.is_some() {
            label {
                span.dim { (label) }
                select name=(name) {
                    option value="" { "any" }
                    @for value in values.iter().map(String::as_str).chain(missing) {
                        option value=(value) selected[value == chosen] { (visible(value)) }
                    }
                }
            }
        }
    }
}

fn table(lines: &[Line], now: Millis) -> Markup {
    html! {
        div.lines role="list" aria-label="Calls" {
            @for Line { call, arguments } in lines {
                a.line role="listitem" href={ "/calls/" (call.call) } data-key={ "line-" (call.call) } {
                    (badge(call.state))
                    span.what {
                        (tool_name(&call.server, &call.tool))
                        (glimpse(arguments))
                    }
                    span.who.dim {
                        (shown(&call.principal))
                        @if let Some(run) = &call.run { " · " (shown(run)) }
                    }
                    span.when.dim title=(local(call.at)) { (since(call.at, now)) }
                    span.took.dim {
                        @if call.state.is_done() { "took " (span(call.updated.since(call.at))) }
                        @if call.attempts > 1 { " · " (grouped(call.attempts as usize)) " attempts" }
                    }
                    span.id.dim { (short(call.call)) }
                }
            }
        }
    }
}

fn glimpse(arguments: &str) -> Markup {
    let cut = arguments.char_indices().nth(GLIMPSE).map_or(arguments.len(), |(at, _)| at);
    let rest = arguments.len() - cut;
    html! {
        @if !arguments.is_empty() {
            span.glimpse { (shown(&arguments[..cut])) @if rest > 0 { span.dim { " … " (bytes(rest)) " more" } } }
        }
    }
}
