//! A call's life as a drawing: who it waited for, when it was out, where it was in doubt.

use holdfast_store::{Entry, Millis, Record, State};
use maud::{Markup, html};

use crate::times::span;

/// Height of a lane, and of what is above the first one, in pixels.
const LANE: f64 = 34.0;
const TOP: f64 = 22.0;

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Person,
    Queue,
    Server,
    Doubt,
}

impl Lane {
    fn of(state: State) -> Option<Self> {
        // States that this page knows nothing of are somewhere between a person and the server.
        #[allow(unreachable_patterns)]
        Some(match state {
            State::Previewing | State::Asking | State::Approved => Self::Person,
            State::InFlight => Self::Server,
            State::InDoubt => Self::Doubt,
            State::Done(_) => return None,
            State::Ready | State::Backoff => Self::Queue,
            _ => Self::Queue,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Queue => "waiting",
            Self::Server => "server",
            Self::Doubt => "in doubt",
        }
    }
}

/// A stretch of time in one state.
#[derive(Clone, Debug, PartialEq)]
struct Stretch {
    state: State,
    ms: u64,
    attempt: Option<u32>,
    /// Place and width, as parts of the whole.
    x: f64,
    width: f64,
}

/// The drawing; nothing for a call that was over at once.
pub(super) fn drawing(records: &[Record], now: Millis) -> Markup {
    let mut stretches = stretches(records, now);
    if stretches.is_empty() {
        return html! {};
    }
    lay_out(&mut stretches);
    let mut lanes: Vec<Lane> = stretches.iter().filter_map(|stretch| Lane::of(stretch.state)).collect();
    lanes.sort_unstable();
    lanes.dedup();
    let marked = records.iter().skip(1).any(|record| mark(&record.entry).is_some());
    let top = if marked { TOP } else { 0.0 };
    let height = top + LANE * lanes.len() as f64 + 4.0;
    let ended = records.last().and_then(|_| end(records));
    html! {
        figure.timeline {
            svg width="100%" height=(height) role="img" aria-label=(in_words(&stretches, ended)) {
                @for (row, lane) in lanes.iter().enumerate() {
                    @let y = top + LANE * row as f64;
                    line.rail x1="0" x2="100%" y1=(y + 15.0) y2=(y + 15.0) {}
                    @for stretch in stretches.iter().filter(|stretch| Lane::of(stretch.state) == Some(*lane)) {
                        (bar(stretch, y))
                    }
                }
                (marks(records, &stretches))
            }
            figcaption.dim {
                @for (n, lane) in lanes.iter().enumerate() { @if n > 0 { " · " } span class={ "key k-" (class(*lane)) } {} (lane.name()) }
                " · longer stretches are drawn wider, but not to scale"
            }
        }
    }
}

fn class(lane: Lane) -> &'static str {
    match lane {
        Lane::Person => "person",
        Lane::Queue => "queue",
        Lane::Server => "server",
        Lane::Doubt => "doubt",
    }
}

fn stretches(records: &[Record], now: Millis) -> Vec<Stretch> {
    let mut found: Vec<Stretch> = Vec::new();
    let (mut state, mut since, mut attempt) = (None, Millis(0), None);
    let mut push = |state: Option<State>, ms: u64, attempt: Option<u32>| {
        if let Some(state) = state.filter(|state: &State| !state.is_done()) {
            found.push(Stretch { state, ms, attempt, x: 0.0, width: 0.0 });
        }
    };
    for record in records {
        let Ok(next) = State::after(state, &record.entry) else { break };
        if state != Some(next) {
            push(state, record.at.since(since), attempt);
            (state, since, attempt) = (Some(next), record.at, None);
        }
        if let Entry::Dispatched { attempt: number } = &record.entry {
            attempt = Some(number.0);
        }
    }
    push(state, now.since(since), attempt);
    // What took no time at all is only a step on the way.
    found.retain(|stretch| {
        stretch.ms > 0 || stretch.attempt.is_some() || Lane::of(stretch.state) == Some(Lane::Doubt)
    });
    found
}

/// Minutes beside milliseconds: each stretch can be seen, and the longer is the wider.
fn lay_out(stretches: &mut [Stretch]) {
    let weight = |ms: u64| 1.5 + (1.0 + ms as f64).ln();
    let all: f64 = stretches.iter().map(|stretch| weight(stretch.ms)).sum();
    let mut x = 0.0;
    for stretch in stretches {
        stretch.x = x;
        stretch.width = weight(stretch.ms) / all;
        x += stretch.width;
    }
}

fn percent(part: f64) -> String {
    format!("{:.2}%", part * 100.0)
}

fn bar(stretch: &Stretch, y: f64) -> Markup {
    let label = match stretch.attempt {
        Some(attempt) => format!("#{attempt} {}", span(stretch.ms)),
        None => span(stretch.ms),
    };
    let lane = Lane::of(stretch.state).map_or("queue", class);
    html! {
        g class={ "bar b-" (lane) } {
            title { (stretch.state.name()) ", " (label) }
            rect x=(percent(stretch.x)) y=(y + 4.0) width=(percent(stretch.width)) height="22" rx="4" {}
            @if stretch.width > 0.3 && stretch.attempt.is_none() {
                text x=(percent(stretch.x + stretch.width / 2.0)) y=(y + 19.5) text-anchor="middle" {
                    (stretch.state.name()) " " (label)
                }
            } @else if stretch.width > 0.07 {
                text x=(percent(stretch.x + stretch.width / 2.0)) y=(y + 19.5) text-anchor="middle" { (label) }
            }
        }
    }
}

/// What people and agents did: a tick where a stretch begins or lies.
fn marks(records: &[Record], stretches: &[Stretch]) -> Markup {
    let Some(first) = records.first() else { return html! {} };
    let mut begun = Vec::new();
    let mut at = first.at;
    for stretch in stretches {
        begun.push((at, stretch));
        at = at.plus(stretch.ms);
    }
    let place = |moment: Millis| {
        let (from, stretch) = begun.iter().rev().find(|(from, _)| *from <= moment).or(begun.first())?;
        let part = if stretch.ms == 0 { 0.0 } else { moment.since(*from) as f64 / stretch.ms as f64 };
        Some(stretch.x + stretch.width * part.min(1.0))
    };
    html! {
        @for record in records.iter().skip(1) {
            @if let Some((class, what)) = mark(&record.entry) {
                @if let Some(x) = place(record.at) {
                    g class={ "mark m-" (class) } {
                        title { (what) }
                        circle cx=(percent(x.clamp(0.01, 0.99))) cy=(TOP - 10.0) r="4.5" {}
                    }
                }
            }
        }
    }
}

fn mark(entry: &Entry) -> Option<(&'static str, &'static str)> {
    match entry {
        Entry::Approved { .. } => Some(("good", "approved")),
        Entry::Refused { .. } => Some(("bad", "refused")),
        Entry::Revoked { .. } => Some(("bad", "approval taken back")),
        Entry::Edited { .. } => Some(("doubt", "arguments changed")),
        Entry::Responded { .. } => Some(("good", "answered in the tool’s place")),
        Entry::Superseded { .. } => Some(("doubt", "asked again")),
        Entry::Resolved { .. } => Some(("good", "settled")),
        Entry::Cancelled { .. } => Some(("bad", "withdrawn")),
        Entry::Joined { .. } => Some(("join", "asked for again")),
        Entry::Probed { .. } => Some(("join", "looked at the server")),
        _ => None,
    }
}

fn end(records: &[Record]) -> Option<State> {
    let mut state = None;
    for record in records {
        state = State::after(state, &record.entry).ok();
    }
    state.filter(|state| state.is_done())
}

fn in_words(stretches: &[Stretch], ended: Option<State>) -> String {
    let mut words: Vec<String> = stretches
        .iter()
        .map(|stretch| format!("{} for {}", stretch.state.name(), span(stretch.ms)))
        .collect();
    words.extend(ended.map(|state| format!("then {}", state.name())));
    words.join(", ")
}
