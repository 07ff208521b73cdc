//! `holdfast calls`: the journal, newest first, or as it grows.

use std::{collections::HashMap, process::ExitCode};

use clap::Args;
use holdfast_store::{CallId, Filter, Summary};

use super::{
    Done, Failure, Global, Output, out,
    source::{FOLLOW_PERIOD, Source},
    words::{ago, local, table},
};
use crate::{
    driver::now,
    inbox::{
        api::{since, states},
        ids::short,
        visible::visible,
    },
};

/// Arguments of `calls`.
#[derive(Debug, Args)]
pub(super) struct CallsArgs {
    /// Only calls in these states, separated by commas
    #[arg(long, value_name = "STATE,...")]
    state: Option<String>,
    /// Only calls of this server
    #[arg(long)]
    server: Option<String>,
    /// Only calls of this tool
    #[arg(long)]
    tool: Option<String>,
    /// Only calls of this run of an agent
    #[arg(long)]
    run: Option<String>,
    /// Only calls accepted since: how long ago (2h), or milliseconds since 1970
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Go on printing calls as they change; needs a running `serve`
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(global: &Global, args: &CallsArgs) -> Done {
    let filter = filter(args)?;
    let source = Source::open(global)?;
    if args.follow {
        return follow(&source, &filter, args.output);
    }
    let listing = source.calls(&filter)?;
    if args.output.json {
        out::json(&listing);
    } else if listing.calls.is_empty() {
        out::data(if is_open(&filter) { "No calls yet." } else { "No such calls." });
    } else {
        let now = now();
        let rows: Vec<[String; 7]> = listing.calls.iter().map(|call| row(call, ago(call.at, now))).collect();
        out::data(&table(HEADINGS, &rows));
        if listing.next.is_some() {
            out::talk(&format!("\nThere are more than {}: see --limit, --since.", args.limit));
        }
    }
    Ok(ExitCode::SUCCESS)
}

const HEADINGS: [&str; 7] = ["CALL", "WHEN", "STATE", "WHO", "TOOL", "ATTEMPTS", "RUN"];

fn filter(args: &CallsArgs) -> Result<Filter, Failure> {
    Ok(Filter {
        states: args.state.as_deref().map(states).transpose()?.unwrap_or_default(),
        server: args.server.clone(),
        tool: args.tool.clone(),
        run: args.run.clone(),
        since: args.since.as_deref().map(|text| since(text, now())).transpose()?,
        before: None,
        limit: args.limit as usize,
    })
}

fn is_open(filter: &Filter) -> bool {
    filter.states.is_empty()
        && filter.server.is_none()
        && filter.tool.is_none()
        && filter.run.is_none()
        && filter.since.is_none()
}

/// Prints what is there, oldest first, then each call again whenever it has more entries.
fn follow(source: &Source, filter: &Filter, output: Output) -> Done {
    source.serving()?;
    let mut known: HashMap<CallId, u32> = HashMap::new();
    loop {
        let mut calls = source.calls(filter)?.calls;
        calls.reverse();
        for call in calls.iter().filter(|call| known.get(&call.call) != Some(&call.entries)) {
            if output.json {
                out::data(&serde_json::to_string(call).expect("our own shapes always serialise"));
            } else {
                out::data(&line(call));
            }
        }
        // Only what can still be listed is remembered.
        known = calls.into_iter().map(|call| (call.call, call.entries)).collect();
        std::thread::sleep(FOLLOW_PERIOD);
    }
}

fn row(call: &Summary, when: String) -> [String; 7] {
    [
        short(call.call),
        when,
        call.state.name().to_owned(),
        visible(&call.principal),
        format!("{}/{}", visible(&call.server), visible(&call.tool)),
        call.attempts.to_string(),
        call.run.as_deref().map(visible).unwrap_or_default(),
    ]
}

fn line(call: &Summary) -> String {
    let [id, when, state, who, tool, ..] = row(call, local(call.updated));
    format!("{when}  {id}  {state:9}  {who}  {tool}")
}
