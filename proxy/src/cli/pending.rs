//! `holdfast pending`: what waits for a person?

use std::{collections::HashSet, process::ExitCode};

use clap::Args;
use holdfast_policy::Gate;
use holdfast_store::ShownKind;

use super::{
    Done, Global, Output, out,
    source::{FOLLOW_PERIOD, Source},
    words::{ago, table, until},
};
use crate::driver::now;
use crate::inbox::{
    ids::short,
    view::{HoldDetail, Waiting},
    visible::visible,
};

/// Arguments of `pending`.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct PendingArgs {
    /// At most this many, the oldest first; all without it
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Go on printing what comes to wait; needs a running `serve`
    #[arg(long, short, conflicts_with = "limit")]
    follow: bool,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(global: &Global, args: PendingArgs) -> Done {
    let source = Source::open(global)?;
    if args.follow {
        return follow(&source, args.output);
    }
    let pending = source.pending(args.limit.map_or(usize::MAX, |limit| limit as usize))?;
    if args.output.json {
        out::json(&pending);
    } else if pending.pending.is_empty() {
        out::data("Nothing waits for you.");
    } else {
        tell(&pending.pending.iter().collect::<Vec<_>>());
        if pending.next.is_some() {
            out::talk(&format!("\nMore than {} wait: leave --limit out.", pending.pending.len()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints what waits, then each thing that comes to wait, and again what is asked anew.
fn follow(source: &Source, output: Output) -> Done {
    source.serving()?;
    let mut known = HashSet::new();
    loop {
        let pending = source.pending(usize::MAX)?.pending;
        let question = |waiting: &Waiting| (waiting.call.call, waiting.hold.as_ref().map(|hold| hold.digest));
        let new: Vec<&Waiting> =
            pending.iter().filter(|waiting| !known.contains(&question(waiting))).collect();
        if output.json {
            let line = |waiting| serde_json::to_string(waiting).expect("our own shapes always serialise");
            new.iter().for_each(|waiting| out::data(&line(waiting)));
        } else {
            tell(&new);
        }
        known = pending.iter().map(question).collect();
        std::thread::sleep(FOLLOW_PERIOD);
    }
}

fn tell(pending: &[&Waiting]) {
    let (held, doubtful): (Vec<_>, Vec<_>) = pending.iter().partition(|waiting| waiting.hold.is_some());
    tell_held(&held);
    tell_doubtful(&doubtful);
}

fn tell_held(held: &[&Waiting]) {
    if held.is_empty() {
        return;
    }
    let now = now();
    let rows: Vec<[String; 6]> = held
        .iter()
        .filter_map(|waiting| Some((waiting, waiting.hold.as_ref()?)))
        .map(|(waiting, hold)| {
            let Waiting { call, .. } = waiting;
            [
                short(call.call),
                ago(call.at, now),
                visible(&call.principal),
                format!("{}/{}", visible(&call.server), visible(&call.tool)),
                until(hold.approve_by, now),
                approvals(hold),
            ]
        })
        .collect();
    let headings = ["HELD", "ASKED", "WHO", "TOOL", "DECIDE WITHIN", "APPROVALS"];
    interleave(&table(headings, &rows), held.iter().map(|waiting| subject(waiting)));
    out::talk("\nholdfast show ID · holdfast approve ID · holdfast reject ID --reason WHY");
}

fn tell_doubtful(doubtful: &[&Waiting]) {
    if doubtful.is_empty() {
        return;
    }
    let now = now();
    let rows: Vec<[String; 5]> = doubtful
        .iter()
        .map(|waiting| {
            let Waiting { call, trouble, .. } = waiting;
            [
                short(call.call),
                ago(call.updated, now),
                visible(&call.principal),
                format!("{}/{}", visible(&call.server), visible(&call.tool)),
                visible(trouble.as_deref().unwrap_or("its answer was lost")),
            ]
        })
        .collect();
    let headings = ["IN DOUBT", "SINCE", "WHO", "TOOL", "WHY"];
    interleave(&table(headings, &rows), doubtful.iter().map(|waiting| subject(waiting)));
    out::talk(
        "\nFind out at the server, then: holdfast resolve ID --happened ANSWER | --not-sent | --give-up",
    );
}

/// The whole argument text, as nothing that is decided on is cut; who edited it; and what it would do.
fn subject(waiting: &Waiting) -> Vec<String> {
    let mut lines = vec![visible(&waiting.arguments)];
    lines.extend(waiting.extra.as_ref().map(|extra| format!("beside the arguments: {}", visible(extra))));
    lines.extend(waiting.edited.as_ref().map(|by| format!("edited by {}", visible(&by.name))));
    let shown = waiting.hold.as_ref().and_then(|hold| hold.preview.as_ref());
    lines.extend(shown.map(|shown| match shown.kind {
        ShownKind::Failed => format!("no preview: {}", visible(&shown.text)),
        ShownKind::Preview => {
            let value = shown.text.value();
            let words = value["content"][0]["text"].as_str();
            let whole = value["content"].as_array().is_some_and(|content| content.len() == 1);
            match words {
                // `show` has the structured part, too.
                Some(words) if whole => format!("preview: {}", visible(words)),
                _ => format!("preview: {}", visible(&shown.text)),
            }
        }
    }));
    lines
}

/// Each row is followed by what it is about.
fn interleave(table: &str, arguments: impl Iterator<Item = Vec<String>>) {
    let mut lines = table.lines();
    lines.next().into_iter().for_each(out::data);
    for (line, arguments) in lines.zip(arguments) {
        out::data(line);
        arguments.iter().for_each(|line| out::data(&format!("          {line}")));
    }
}

/// How many have approved, of how many, for each gate.
pub(super) fn approvals(hold: &HoldDetail) -> String {
    let gates = (0..).zip(&hold.gates).map(|(place, gate)| {
        let votes = hold.votes.iter().filter(|vote| vote.gates.contains(&place)).count();
        format!("{votes} of {} {}", gate.quorum, among(gate))
    });
    gates.collect::<Vec<_>>().join(" and ")
}

/// Who may decide.
pub(super) fn among(gate: &Gate) -> String {
    let approvers: Vec<String> =
        gate.approvers.iter().map(|approver| visible(&approver.to_string())).collect();
    if approvers.is_empty() { "(any approver)".to_owned() } else { format!("({})", approvers.join(" or ")) }
}
