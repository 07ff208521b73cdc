//! `holdfast tools`, `accept`: the definitions of tools, and what changed in those that wait to be accepted.

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use clap::Args;
use serde_json::{Value, json};

use super::{
    Done, Failure, Global, Output,
    client::Client,
    decide::confirmed,
    out,
    source::serve,
    words::{ago, table},
};
use crate::{
    driver::now,
    inbox::{
        register::{Sign, ToolView, Trust},
        visible::visible,
    },
    report::{Report, Target},
};

/// Unchanged lines around a change that are shown.
const CONTEXT: usize = 3;

/// Arguments of `tools`.
#[derive(Debug, Args)]
pub(super) struct ToolsArgs {
    /// Only the tools of this server
    server: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// Arguments of `accept`.
#[derive(Debug, Args)]
pub(super) struct AcceptArgs {
    /// The server's name
    server: String,
    /// The tool's name there; without it, every tool of the server that has changed
    tool: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    output: Output,
}

pub(super) fn tools(global: &Global, args: &ToolsArgs) -> Done {
    let tools = list(&serve(global)?, args.server.as_deref())?;
    if args.output.json {
        out::json(&json!({ "tools": tools }));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(server) = args.server.as_deref().filter(|_| tools.is_empty()) {
        return Err(no_tools(server));
    }
    if tools.is_empty() {
        out::data("No server has listed a tool yet.");
        return Ok(ExitCode::SUCCESS);
    }
    let row = |view: &ToolView| {
        let since = view.since.map(|since| ago(since, now())).unwrap_or_default();
        let by = view.by.as_ref().map_or("first seen".to_owned(), |by| format!("by {}", visible(&by.name)));
        let state = match view.state {
            Trust::Trusted => format!("trusted {since}, {by}"),
            Trust::Unrecorded => "not recorded: nothing is sent to it".to_owned(),
            Trust::Changed => format!("CHANGED since it was trusted {since}, {by}"),
        };
        [format!("{}/{}", visible(&view.server), visible(&view.tool)), view.hash[..12].to_owned(), state]
    };
    let rows: Vec<_> = tools.iter().map(row).collect();
    out::data(table(["TOOL", "DEFINITION", "STATE"], &rows).trim_end());
    let changed: Vec<_> = tools.iter().filter(|view| view.state == Trust::Changed).collect();
    changed.iter().for_each(|view| tell_difference(view));
    if !changed.is_empty() {
        out::talk(
            "\nNothing is sent to a tool that has changed. If that is what you expect: holdfast accept SERVER [TOOL]",
        );
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn accept(global: &Global, args: &AcceptArgs) -> Done {
    let client = serve(global)?;
    let mut tools = list(&client, Some(&args.server))?;
    if tools.is_empty() {
        return Err(no_tools(&args.server));
    }
    if let Some(tool) = args.tool.as_ref().filter(|tool| tools.iter().all(|view| view.tool != **tool)) {
        let known: Vec<&str> = tools.iter().map(|view| view.tool.as_str()).collect();
        return Err(Report::unknown_tool(Target { server: &args.server, tool }, &known).into());
    }
    tools.retain(|view| args.tool.as_ref().is_none_or(|tool| *tool == view.tool));
    tools.retain(|view| view.state == Trust::Changed);
    if tools.is_empty() {
        out::data("Nothing there has changed.");
        return Ok(ExitCode::SUCCESS);
    }
    if !args.yes && io::stdin().is_terminal() && io::stderr().is_terminal() {
        tools.iter().for_each(tell_difference);
        if !confirmed("\nAccept exactly this? [y/N] ") {
            out::talk("Nothing was accepted.");
            return Ok(ExitCode::FAILURE);
        }
    }
    for view in &tools {
        let body = json!({ "server": view.server, "tool": view.tool, "definition": view.hash }).to_string();
        let said: Value = client.post("tools/accept", body)?;
        if args.output.json {
            out::json(&said);
        } else {
            out::data(&format!("{}/{} is trusted as it is now", visible(&view.server), visible(&view.tool)));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn no_tools(server: &str) -> Failure {
    Report::new("not-found", format!("no server `{}` has listed a tool", visible(server)))
        .hint("`holdfast tools` lists all that are known; a server that was never up has listed none.")
        .into()
}

fn list(client: &Client, server: Option<&str>) -> Result<Vec<ToolView>, Report> {
    #[derive(serde::Deserialize)]
    struct All {
        tools: Vec<ToolView>,
    }
    let mut tools = client.get::<All>("tools")?.tools;
    tools.retain(|view| server.is_none_or(|server| server == view.server));
    Ok(tools)
}

/// As a unified diff, with the lines around each change.
fn tell_difference(view: &ToolView) {
    out::data(&format!("\n{}/{}", visible(&view.server), visible(&view.tool)));
    let lines = view.difference();
    let near = |at: usize| {
        let around = at.saturating_sub(CONTEXT)..(at + CONTEXT + 1).min(lines.len());
        lines[around].iter().any(|(sign, _)| *sign != Sign::Same)
    };
    let mut skipped = false;
    for (at, (sign, line)) in lines.iter().enumerate() {
        if near(at) {
            if skipped {
                out::data("  ...");
            }
            out::data(&format!("  {} {}", sign.mark(), visible(line)));
        }
        skipped = !near(at);
    }
}
