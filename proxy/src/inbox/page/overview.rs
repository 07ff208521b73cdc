//! *Overview*: what has happened lately, in figures and drawings.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use holdfast_store::Millis;
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    figures::{self, BUCKETS, Fate, Figures, HISTORIES, Latency},
    servers,
    session::Session,
    shell::{self, Frame, Here, Watch},
    text::{counted, grouped, shown},
    waiting::unavailable,
};
use crate::{
    driver::now,
    inbox::{Inbox, api::blocking, desk::Desk, reloading},
    times::{local, span, zone},
};

/// What is to be shown.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    last: String,
}

const WINDOWS: [(&str, &str, u64); 3] =
    [("1h", "Hour", 3_600_000), ("24h", "Day", 86_400_000), ("7d", "Week", 604_800_000)];

/// `GET /overview`
pub(super) async fn show<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(session): Extension<Session>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let journal = inbox.desk.journal();
    let window = WINDOWS.iter().find(|(name, ..)| *name == wanted.last).unwrap_or(&WINDOWS[1]);
    let time = now();
    match blocking(move || figures::read(&*journal, time, window.2)).await {
        Ok(figures) => {
            let frame = Frame {
                session: &session,
                here: Here::Overview,
                title: "Overview",
                counts: figures.counts,
                flash: None,
                watch: Watch::Everything,
            };
            let body = html! { (servers::faults(&reloading::faults(&inbox))) (body(&figures, window.0)) };
            shell::page(&frame, &body).into_response()
        }
        Err(error) => unavailable(&error),
    }
}

fn body(figures: &Figures, window: &str) -> Markup {
    html! {
        div.title {
            h1 { "Overview" }
            nav.choice aria-label="Time" {
                @for (name, words, _) in WINDOWS {
                    a.button href={ "/overview?last=" (name) } aria-current=[(name == window).then_some("true")] { (words) }
                }
            }
        }
        (headlines(figures))
        @if figures.more {
            p.note { "Of this time only the newest " (grouped(figures.calls)) " calls are counted." }
        }
        section.card { h2 { "Calls over time, by what became of them" } (over_time(figures)) }
        div.pair {
            section.card { h2 { "Latency by tool" } (latencies(&figures.latencies)) }
            section.card { h2 { "Time to a decision" } (decisions(figures)) }
            section.card { h2 { "Attempts per call" } (attempts(figures)) }
            section.card { h2 { "Once, not twice" } (once(figures)) }
        }
        @if figures.calls > HISTORIES {
            p.note { "Latencies, decisions and joins are of the newest " (grouped(figures.histories)) " calls." }
        }
    }
}

fn headlines(figures: &Figures) -> Markup {
    let ended = figures.calls - figures.fates[4];
    let good = (figures.fates[0] * 1_000)
        .checked_div(ended)
        .map_or("–".to_owned(), |tenths| format!("{}.{} %", tenths / 10, tenths % 10));
    let figure = |value: String, what: &str, href: Option<&str>| {
        html! {
            li { strong { (value) } @match href { Some(href) => { a href=(href) { (what) } } None => { span { (what) } } } }
        }
    };
    html! {
        ul.headlines {
            (figure(grouped(figures.calls), "calls", Some("/calls")))
            (figure(good, "of those ended succeeded", None))
            (figure(grouped(figures.counts.asking), "waiting now", Some("/")))
            (figure(grouped(figures.counts.doubtful), "in doubt now", Some("/doubt")))
        }
    }
}

fn percent(part: f64) -> String {
    format!("{:.2}%", part * 100.0)
}

fn over_time(figures: &Figures) -> Markup {
    const HEIGHT: f64 = 168.0;
    let most = figures.buckets.iter().map(|bucket| bucket.iter().sum::<usize>()).max().unwrap_or(0);
    let each = figures.to.since(figures.from) / BUCKETS as u64;
    let width = 1.0 / BUCKETS as f64;
    let moment = |place: usize| Millis(figures.from.0 + each * place as u64);
    html! {
        @if most == 0 {
            p.dim { "No calls in this time." }
        } @else {
            figure.plot {
                svg width="100%" height=(HEIGHT + 8.0) role="img" aria-label={ "Calls over time; at most " (most) " in " (span(each)) } {
                    @for quarter in 0..=2 {
                        @let y = 4.0 + HEIGHT * f64::from(quarter) / 2.0;
                        line.rail x1="0" x2="100%" y1=(y) y2=(y) {}
                    }
                    @for (place, bucket) in figures.buckets.iter().enumerate() {
                        @if bucket.iter().sum::<usize>() > 0 {
                            g {
                                title { (bar_words(moment(place), each, bucket)) }
                                @for (rank, fate) in Fate::ALL.iter().enumerate() {
                                    @let below: usize = bucket[..rank].iter().sum();
                                    @let height = HEIGHT * bucket[rank] as f64 / most as f64;
                                    @if bucket[rank] > 0 {
                                        rect class={ "p-" (fate.class()) }
                                            x=(percent(width * (place as f64 + 0.08))) width=(percent(width * 0.84))
                                            y=(4.0 + HEIGHT - HEIGHT * below as f64 / most as f64 - height) height=(height) {}
                                    }
                                }
                            }
                        }
                    }
                    text.axis x="0" y="16" { (grouped(most)) }
                }
                div.ends.dim { span { (local(figures.from)) } span { (local(figures.to)) " " (zone(figures.to)) } }
                figcaption {
                    @for (fate, count) in Fate::ALL.iter().zip(figures.fates) {
                        @if count > 0 { span { span class={ "key p-" (fate.class()) } {} (fate.name()) " " b { (grouped(count)) } } }
                    }
                }
            }
        }
    }
}

fn bar_words(from: Millis, each: u64, bucket: &[usize; 5]) -> String {
    let parts: Vec<String> = Fate::ALL
        .iter()
        .zip(bucket)
        .filter(|(_, count)| **count > 0)
        .map(|(fate, count)| format!("{count} {}", fate.name()))
        .collect();
    format!("{}, {}: {}", local(from), span(each), parts.join(", "))
}

/// From the median to the 95th percentile, all on one logarithmic scale.
fn latencies(latencies: &[Latency]) -> Markup {
    let longest = latencies.iter().map(|one| one.p95).max().unwrap_or(1).max(10);
    let place = |ms: u64| (1.0 + ms as f64).ln() / (1.0 + longest as f64).ln();
    html! {
        @if latencies.is_empty() {
            p.dim { "No answers in this time." }
        } @else {
            table.bars {
                thead { tr { th { "tool" } th.num { "p50" } th.num { "p95" } th.num { "max" } th.num { "calls" } } }
                @for one in latencies {
                    tr {
                        th scope="row" {
                            span { (shown(&one.tool)) }
                            svg width="100%" height="8" aria-hidden="true" {
                                rect.p-soft x="0" y="1" width=(percent(place(one.p95).max(0.01))) height="6" rx="3" {}
                                rect.p-run x="0" y="1" width=(percent(place(one.p50).max(0.008))) height="6" rx="3" {}
                            }
                        }
                        td.num { (span(one.p50)) } td.num { (span(one.p95)) } td.num { (span(one.longest)) } td.num { (grouped(one.count)) }
                    }
                }
            }
            p.dim { "Bars: p50 within p95, on a logarithmic scale." }
        }
    }
}

const STEPS: [(&str, u64); 6] = [
    ("10s", 10_000),
    ("1m", 60_000),
    ("10m", 600_000),
    ("1h", 3_600_000),
    ("4h", 14_400_000),
    ("longer", u64::MAX),
];

fn decisions(figures: &Figures) -> Markup {
    let mut from = 0;
    let counts: Vec<(String, usize)> = STEPS
        .iter()
        .map(|(name, to)| {
            let count = figures.decisions.iter().filter(|ms| (from..*to).contains(*ms)).count();
            from = *to;
            (if *to == u64::MAX { (*name).to_owned() } else { format!("within {name}") }, count)
        })
        .collect();
    html! {
        @if figures.decisions.is_empty() && figures.expired == 0 {
            p.dim { "No decisions in this time." }
        } @else {
            (columns(&counts, "ask"))
            p.dim {
                (grouped(figures.approved)) " approved, " (grouped(figures.refused)) " refused, "
                (grouped(figures.expired)) " expired; half of the decisions within " (span(figures::part(&figures.decisions, 50))) "."
            }
        }
    }
}

fn attempts(figures: &Figures) -> Markup {
    let names = ["1", "2", "3", "4", "5 or more"];
    let counts: Vec<(String, usize)> =
        names.iter().zip(figures.attempts).map(|(name, count)| ((*name).to_owned(), count)).collect();
    let retried: usize = figures.attempts[1..].iter().sum();
    html! {
        @if figures.attempts.iter().sum::<usize>() == 0 {
            p.dim { "Nothing was sent in this time." }
        } @else {
            (columns(&counts, "run"))
            p.dim { (grouped(retried)) " were sent again after an attempt that changed nothing, or that may be repeated." }
        }
    }
}

fn once(figures: &Figures) -> Markup {
    html! {
        dl.known {
            dt { "Asked for again" } dd { b { (counted(figures.joined, "time")) } ", and taken as the call that it was" }
            dt { "Fell in doubt" } dd { b { (counted(figures.doubts, "time")) } ": the answer was lost, and a second try could have done it twice" }
            dt { "Settled" } dd { b { (grouped(figures.settled)) } " of them, by a probe or a person" }
            dt { "In doubt now" } dd { b { (grouped(figures.counts.doubtful)) } }
        }
    }
}

/// A row for each count, as long as it is large.
fn columns(counts: &[(String, usize)], class: &str) -> Markup {
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    html! {
        table.bars.rows {
            @for (name, count) in counts {
                tr {
                    th scope="row" { (name) }
                    td.bar-cell {
                        svg width="100%" height="14" aria-hidden="true" {
                            @if *count > 0 {
                                rect class={ "p-" (class) } x="0" y="0" width=(percent((*count as f64 / most as f64).max(0.01))) height="14" rx="3" {}
                            }
                        }
                    }
                    td.num { (grouped(*count)) }
                }
            }
        }
    }
}
