//! `holdfast show`: the whole history of one call.

use std::process::ExitCode;

use clap::Args;
use holdfast_store::{
    Accepted, Answer, AnswerKind, Decider, Disposition, Entry, Finding, HoldClock, Kept, KeySource, Millis,
    Record, Resolution, Shown, ShownKind, Then, Trouble,
};

use super::{
    Done, Global, Output, out,
    pending::among,
    source::Source,
    words::{ago, clock, local, span, until, zone},
};
use crate::driver::now;
use crate::inbox::{
    view::{Detail, HoldDetail},
    visible::visible,
};

/// Arguments of `show`.
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The call's id, or an unambiguous beginning or end of it
    id: String,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(global: &Global, args: &ShowArgs) -> Done {
    let detail = Source::open(global)?.call(&args.id)?;
    if args.output.json {
        out::json(&detail);
    } else {
        out::data(&story(&detail, now()));
    }
    Ok(ExitCode::SUCCESS)
}

/// The call in words: what it is, what is asked, what happened, what came of it.
pub(super) fn story(detail: &Detail, now: Millis) -> String {
    let mut lines = header(detail, now);
    if let Some(hold) = &detail.hold {
        lines.extend(question(hold, now));
    }
    if detail.records.is_empty() {
        lines.push("history    pruned: only this line is left".to_owned());
        return lines.join("\n");
    }
    lines.push(format!("history    times are {}", zone(detail.call.at)));
    lines.extend(history(&detail.records));
    if let Some((kind, text)) = answer(&detail.records) {
        lines.push(format!("answer     {kind}\n  {}", visible(text)));
    }
    lines.join("\n")
}

fn header(detail: &Detail, now: Millis) -> Vec<String> {
    let call = &detail.call;
    let mut lines = vec![
        format!("call       {}", call.call),
        format!("state      {}, {}", call.state.name(), ago(call.updated, now)),
        format!("accepted   {} ({})", local(call.at), ago(call.at, now)),
    ];
    let Some(Entry::Accepted(accepted)) = detail.records.first().map(|record| &record.entry) else {
        lines.push(format!("tool       {} of {}", visible(&call.tool), visible(&call.server)));
        lines.push(format!("who        {}", visible(&call.principal)));
        return lines;
    };
    let Accepted { caller, plan, .. } = &**accepted;
    lines.push(format!(
        "tool       {} of {} ({})",
        visible(&accepted.tool),
        visible(&accepted.server),
        visible(&accepted.identity)
    ));
    let client =
        if caller.client.is_empty() { String::new() } else { format!(" with {}", visible(&caller.client)) };
    lines.push(format!(
        "who        {}{client}, channel {}",
        visible(&caller.principal),
        visible(&caller.channel)
    ));
    lines.extend(accepted.run.as_ref().map(|run| format!("run        {}", visible(run))));
    let rules: Vec<&str> = plan.rules.iter().map(|rule| rule.as_str()).collect();
    let rules = if rules.is_empty() { "defaults".to_owned() } else { visible(&rules.join(", ")) };
    lines.push(format!("rules      {rules} (policy {}); repeat {}", visible(&accepted.policy), plan.repeat));
    let keys: Vec<&str> = accepted.keys.iter().map(|key| source(key.source)).collect();
    lines.push(format!("keys       {}", if keys.is_empty() { "none".to_owned() } else { keys.join(", ") }));
    let (mut arguments, mut server) = (&accepted.arguments, None);
    for record in &detail.records {
        match &record.entry {
            Entry::Edited { arguments: edited, identity, .. } => {
                (arguments, server) = (edited, identity.as_ref());
            }
            Entry::Superseded { identity, .. } => server = identity.as_ref(),
            _ => {}
        }
    }
    lines.extend(server.map(|server| format!("server     now {}", visible(server))));
    if *arguments != accepted.arguments {
        lines.push(format!("asked for  {}", visible(&accepted.arguments)));
    }
    lines.push(format!("arguments  {}", visible(arguments)));
    lines.extend(accepted.extra.as_ref().map(|extra| format!("beside     {}", visible(extra))));
    lines
}

fn question(hold: &HoldDetail, now: Millis) -> Vec<String> {
    let mut lines = vec![
        format!("digest     {}", hold.digest),
        match hold.execute_by {
            Some(time) => format!("approved   to be sent by {} (in {})", local(time), until(time, now)),
            None => format!(
                "question   revision {}, to be decided by {} (in {})",
                hold.revision,
                local(hold.approve_by),
                until(hold.approve_by, now)
            ),
        },
    ];
    lines.extend(hold.gates.iter().map(|gate| {
        format!("gate       {} {} for rule {}", gate.quorum, among(gate), visible(gate.rule.as_str()))
    }));
    lines.extend(hold.preview.as_ref().map(|shown| preview("preview", shown)));
    lines.extend(hold.earlier.as_ref().map(|shown| preview("before", shown)));
    if !hold.votes.is_empty() {
        let votes: Vec<String> = hold.votes.iter().map(|vote| who(&vote.by)).collect();
        lines.push(format!("votes      {}", votes.join(", ")));
    }
    lines
}

fn preview(label: &str, shown: &Shown) -> String {
    let failed = if shown.kind == ShownKind::Failed { "FAILED: " } else { "" };
    format!("{label:<10} {failed}{}", visible(&shown.text))
}

fn history(records: &[Record]) -> Vec<String> {
    let mut before: Option<Millis> = None;
    let mut day = String::new();
    let mut lines = Vec::new();
    for Record { at, entry, .. } in records {
        let delta = before.map(|before| format!("+{}", span(at.since(before)))).unwrap_or_default();
        let today = local(*at)[..10].to_owned();
        if today != day {
            lines.push(format!("  {today}"));
            day = today;
        }
        lines.push(format!("  {}  {delta:>8}  {}", clock(*at), words(entry)));
        before = Some(*at);
    }
    lines
}

fn words(entry: &Entry) -> String {
    match entry {
        Entry::Accepted(accepted) => verdict(&accepted.disposition),
        Entry::Previewed { shown, .. } => match shown.kind {
            ShownKind::Preview => "previewed: a person is asked".to_owned(),
            ShownKind::Failed => format!("no preview, a person is asked without: {}", visible(&shown.text)),
        },
        Entry::Revoked { by, reason, .. } => {
            format!("approval taken back by {}: {}", who(by), visible(reason))
        }
        Entry::Edited { by, arguments, revision, .. } => {
            format!(
                "asked again as revision {revision}: {} edited the arguments: {}",
                who(by),
                visible(arguments)
            )
        }
        Entry::Responded { by, answer } => {
            format!("answered by {} in the tool's place: {}", who(by), kind(answer))
        }
        Entry::Approved { by, grant: Some(grant), glass: Some(reason), .. } => format!(
            "BREAK-GLASS: approved by {} past all gates: {}: to be sent by {}",
            who(by),
            visible(reason),
            local(grant.execute_by)
        ),
        Entry::Approved { by, grant, .. } => match grant {
            Some(grant) => format!("approved by {}: to be sent by {}", who(by), local(grant.execute_by)),
            None => format!("approved by {}: others must, too", who(by)),
        },
        Entry::Refused { by, reason } => format!("refused by {}: {}", who(by), visible(reason)),
        Entry::Expired { clock: HoldClock::ApproveBy } => "expired: nobody decided in time".to_owned(),
        Entry::Expired { clock: HoldClock::ExecuteBy } => {
            "expired: approved, but not sent in time".to_owned()
        }
        Entry::Superseded { reason, revision, .. } => {
            format!("asked again as revision {revision}: {}", visible(reason))
        }
        Entry::Dispatched { attempt } => format!("attempt {} sent", attempt.0),
        Entry::Answered { attempt, answer, kept } => {
            format!("attempt {} answered: {}{}", attempt.0, kind(answer), whole(kept.as_ref()))
        }
        Entry::AnsweredAgain { attempt, answer, .. } => {
            format!("attempt {} answered after all, for the record: {}", attempt.0, kind(answer))
        }
        Entry::Unexecuted { attempt, trouble, then } => {
            format!("attempt {} changed nothing: {}; {}", attempt.0, told(trouble), next(*then))
        }
        Entry::Lost { attempt, trouble, then, .. } => {
            format!("attempt {} lost: {}; {}", attempt.0, told(trouble), next(*then))
        }
        Entry::Probed { finding, message } => probe(*finding, message),
        Entry::Resolved { by, how } => settled(by, how),
        Entry::Abandoned { trouble } => format!("ended without executing: {}", told(trouble)),
        Entry::Cancelled { by } => format!("cancelled by {}", who(by)),
        Entry::Joined { caller, source: key } => {
            let why = key.map_or("as a re-issue of an answer that was not heard", source);
            format!("joined by {}: {why}", visible(&caller.channel))
        }
        Entry::Collected { caller } => format!("collected by {}", visible(&caller.channel)),
        Entry::Released { by } => format!("keys freed by {}", who(by)),
        // No call has one.
        Entry::Noted(note) => note.name().to_owned(),
    }
}

fn verdict(disposition: &Disposition) -> String {
    match disposition {
        Disposition::Allow => "accepted: allowed".to_owned(),
        Disposition::Ask { gates, .. } => {
            let rules: Vec<String> = gates.iter().map(|gate| visible(gate.rule.as_str())).collect();
            format!("accepted: a person is asked ({})", rules.join(", "))
        }
        Disposition::Deny { rule } => format!("accepted: denied by rule {}", visible(rule.as_str())),
    }
}

fn probe(finding: Finding, message: &str) -> String {
    let finding = match finding {
        Finding::Absent => "no trace of the effect",
        Finding::Unclear => "nothing clear",
    };
    format!("probe: {finding}: {}", visible(message))
}

fn settled(by: &Decider, how: &Resolution) -> String {
    match how {
        Resolution::Happened(answer) => format!("settled by {}: it happened: {}", who(by), kind(answer)),
        Resolution::NotSent => format!("settled by {}: it did not happen, to be sent again", who(by)),
        Resolution::GaveUp => format!("given up by {}: unknown for good", who(by)),
    }
}

fn source(source: KeySource) -> &'static str {
    match source {
        KeySource::Transport => "transport key",
        KeySource::Explicit => "explicit key",
        KeySource::Effect => "effect key",
        KeySource::Run => "position in its run",
    }
}

fn who(by: &Decider) -> String {
    let via = if by.via.is_empty() { String::new() } else { format!(" ({})", visible(&by.via)) };
    format!("{}{via}", visible(&by.name))
}

fn kind(answer: &Answer) -> &'static str {
    match answer.kind {
        AnswerKind::Result => "a result",
        AnswerKind::ToolError => "the tool says that it failed",
        AnswerKind::Error => "an error",
    }
}

/// Where the answer is larger than what is shown.
fn whole(kept: Option<&Kept>) -> String {
    kept.map_or_else(String::new, |kept| {
        format!(" (all {} bytes of it in the file {})", kept.bytes, kept.sha256)
    })
}

fn told(trouble: &Trouble) -> String {
    let upstream = trouble.upstream.as_ref().map(|error| format!(" {}", visible(error))).unwrap_or_default();
    format!("{} ({}){upstream}", visible(&trouble.message), visible(&trouble.code))
}

fn next(then: Then) -> String {
    match then {
        Then::Retry { due } => format!("again at {}", clock(due)),
        Then::Doubt => "nobody knows whether it happened".to_owned(),
        Then::Stop => "not again".to_owned(),
    }
}

/// The first answer is the call's answer.
fn answer(records: &[Record]) -> Option<(&'static str, &str)> {
    records.iter().find_map(|record| match &record.entry {
        Entry::Answered { answer, .. }
        | Entry::Responded { answer, .. }
        | Entry::Resolved { how: Resolution::Happened(answer), .. } => Some((kind(answer), &*answer.text)),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
