//! The facts of a call in words.

use holdfast_store::{
    Answer, AnswerKind, Caller, Decider, Disposition, Entry, Finding, Grant, HoldClock, KeySource,
    Resolution, ShownKind, Text, Then, Trouble,
};
use maud::{Markup, html};

use super::{
    card,
    text::{shown, shown_lines},
};
use crate::times::{clock, local};

/// How a fact is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Person,
    Sent,
    Good,
    Bad,
    Doubt,
}

impl Tone {
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Person => "person",
            Self::Sent => "sent",
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Doubt => "doubt",
        }
    }
}

/// A fact in words, and how it is coloured.
pub(super) fn told(entry: &Entry) -> (Tone, Markup) {
    asked(entry).or_else(|| sent(entry)).unwrap_or_else(|| {
        // Kinds that this page knows nothing of are told by their names.
        (Tone::Plain, html! { (in_words(entry.name())) })
    })
}

/// The words for what people and agents do.
fn asked(entry: &Entry) -> Option<(Tone, Markup)> {
    Some(match entry {
        Entry::Accepted(accepted) => (Tone::Plain, verdict(&accepted.disposition)),
        Entry::Previewed { shown: preview, .. } => match preview.kind {
            ShownKind::Preview => (Tone::Plain, html! { "Previewed: a person is asked" }),
            ShownKind::Failed => (
                Tone::Bad,
                html! { "No preview, a person is asked without: " (shown_lines(&card::reason(&preview.text))) },
            ),
        },
        Entry::Approved { by, grant, glass, .. } => approved(by, *grant, glass.as_deref()),
        Entry::Revoked { by, reason, .. } => {
            (Tone::Bad, html! { "Approval taken back by " (who(by)) ": " q { (shown(reason)) } })
        }
        Entry::Edited { by, revision, .. } => (
            Tone::Person,
            html! { "Arguments changed by " (who(by)) ", asked again as revision " (revision) },
        ),
        Entry::Responded { by, answer } => {
            (answer_tone(answer), html! { "Answered by " (who(by)) " in the tool’s place: " (kind(answer)) })
        }
        Entry::Refused { by, reason } => {
            (Tone::Bad, html! { "Refused by " (who(by)) ": " q { (shown(reason)) } })
        }
        Entry::Expired { clock: HoldClock::ApproveBy } => {
            (Tone::Bad, html! { "Expired: nobody decided in time" })
        }
        Entry::Expired { clock: HoldClock::ExecuteBy } => {
            (Tone::Bad, html! { "Expired: approved, but not sent in time" })
        }
        Entry::Superseded { reason, revision, .. } => {
            (Tone::Doubt, html! { "Asked again as revision " (revision) ": " (shown(reason)) })
        }
        Entry::Resolved { by, how } => settled(by, how),
        Entry::Cancelled { by } => (Tone::Bad, html! { "Withdrawn by " (who(by)) }),
        Entry::Joined { caller, source } => (Tone::Plain, joined(caller, *source)),
        Entry::Collected { caller } => {
            (Tone::Plain, html! { "Answer collected by " (shown(&caller.channel)) })
        }
        Entry::Released { by } => (Tone::Person, html! { "Keys freed by " (who(by)) }),
        _ => return None,
    })
}

/// The words for what was sent and what came of it.
fn sent(entry: &Entry) -> Option<(Tone, Markup)> {
    Some(match entry {
        Entry::Dispatched { attempt } => (Tone::Sent, html! { "Attempt " (attempt.0) " sent" }),
        Entry::Answered { attempt, answer, kept } => {
            let words = html! {
                "Attempt " (attempt.0) " answered: " (kind(answer))
                @if let Some(kept) = kept { " of " (kept.bytes) " bytes, kept in a file" }
            };
            (answer_tone(answer), words)
        }
        Entry::AnsweredAgain { attempt, answer, .. } => (
            Tone::Plain,
            html! { "Attempt " (attempt.0) " answered after all, for the record: " (kind(answer)) },
        ),
        Entry::Unexecuted { attempt, trouble, then } => (
            Tone::Bad,
            html! { "Attempt " (attempt.0) " changed nothing: " (trouble_words(trouble)) "; " (next(*then)) },
        ),
        Entry::Lost { attempt, trouble, then, .. } => (
            Tone::Doubt,
            html! { "Attempt " (attempt.0) " lost: " (trouble_words(trouble)) "; " (next(*then)) },
        ),
        Entry::Probed { finding, message } => {
            let finding = match finding {
                Finding::Absent => "no trace of it",
                Finding::Unclear => "nothing clear",
            };
            (Tone::Plain, html! { "Looked at the server: " (finding) ": " (shown_lines(message)) })
        }
        Entry::Abandoned { trouble } => {
            (Tone::Bad, html! { "Ended without executing: " (trouble_words(trouble)) })
        }
        _ => return None,
    })
}

fn approved(by: &Decider, grant: Option<Grant>, glass: Option<&str>) -> (Tone, Markup) {
    let tone = if glass.is_some() { Tone::Bad } else { Tone::Person };
    let words = html! {
        @match glass {
            Some(reason) => {
                strong { "Glass broken: " } "approved past all gates by " (who(by)) ": " q { (shown(reason)) }
            }
            None => { "Approved by " (who(by)) }
        }
        @match grant {
            Some(grant) => { ", to be sent by " (local(grant.execute_by)) }
            None => { "; others must approve it, too" }
        }
    };
    (tone, words)
}

fn joined(caller: &Caller, source: Option<KeySource>) -> Markup {
    html! {
        "Asked for again by " (shown(&caller.channel)) " and taken as this call, "
        @match source {
            Some(source) => { "by its " (key(source)) }
            None => { "as a re-issue of an answer that was not heard" }
        }
    }
}

/// `preview-failed` as `Preview failed`.
fn in_words(name: &str) -> String {
    let mut words = name.replace('-', " ");
    if let Some(first) = words.get(..1).map(str::to_ascii_uppercase) {
        words.replace_range(..1, &first);
    }
    words
}

fn verdict(disposition: &Disposition) -> Markup {
    html! {
        @match disposition {
            Disposition::Allow => { "Accepted: allowed" }
            Disposition::Ask { gates, .. } => {
                "Accepted: a person is asked, by "
                @for (n, gate) in gates.iter().enumerate() {
                    @if n > 0 { ", " }
                    "rule " (shown(gate.rule.as_str()))
                }
            }
            Disposition::Deny { rule } => { "Accepted: denied by rule " (shown(rule.as_str())) }
        }
    }
}

fn settled(by: &Decider, how: &Resolution) -> (Tone, Markup) {
    match how {
        Resolution::Happened(answer) => (
            answer_tone(answer),
            html! {
                "Settled by " (who(by)) ": it happened: " (kind(answer))
            },
        ),
        Resolution::NotSent => (
            Tone::Person,
            html! {
                "Settled by " (who(by)) ": it did not happen, to be sent again"
            },
        ),
        Resolution::GaveUp => (Tone::Doubt, html! { "Given up by " (who(by)) ": unknown for good" }),
    }
}

fn answer_tone(answer: &Answer) -> Tone {
    if answer.kind == AnswerKind::Result { Tone::Good } else { Tone::Bad }
}

/// Where a key came from.
pub(super) fn key(source: KeySource) -> &'static str {
    match source {
        KeySource::Transport => "transport key",
        KeySource::Explicit => "explicit key",
        KeySource::Effect => "effect key",
        KeySource::Run => "position in its run",
    }
}

fn who(by: &Decider) -> Markup {
    html! { strong { (shown(&by.name)) } @if !by.via.is_empty() { " (" (shown(&by.via)) ")" } }
}

/// What an answer is.
pub(super) fn kind(answer: &Answer) -> &'static str {
    match answer.kind {
        AnswerKind::Result => "a result",
        AnswerKind::ToolError => "the tool says that it failed",
        AnswerKind::Error => "an error",
    }
}

pub(super) fn trouble_words(trouble: &Trouble) -> Markup {
    html! {
        (shown_lines(&trouble.message)) " (" (shown(&trouble.code)) ")"
        @if let Some(error) = &trouble.upstream { ": " code { (shown_lines(error)) } }
    }
}

fn next(then: Then) -> Markup {
    html! {
        @match then {
            Then::Retry { due } => { "again at " (clock(due)) }
            Then::Doubt => { "nobody knows whether it happened" }
            Then::Stop => { "not again" }
        }
    }
}

/// The answer of a call: the first one that became durable.
pub(super) fn answer(entry: &Entry) -> Option<(&'static str, &Text)> {
    match entry {
        Entry::Answered { answer, .. }
        | Entry::Responded { answer, .. }
        | Entry::Resolved { how: Resolution::Happened(answer), .. } => Some((kind(answer), &answer.text)),
        _ => None,
    }
}
