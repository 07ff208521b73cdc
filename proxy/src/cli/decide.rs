//! `holdfast approve`, `reject`, `resolve`, `cancel`, `release`: decisions, carried out by the running `serve`.

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use clap::{ArgGroup, Args};
use holdfast_store::CallId;
use serde_json::{Value, json, value::RawValue};

use super::{
    Done, Failure, Global, Output,
    client::Client,
    explain::text_or_file,
    out, show,
    source::{segment, serve},
};
use crate::{
    driver::now,
    inbox::{
        ids::short,
        view::{Detail, HoldDetail},
    },
    report::Report,
};

/// Arguments of `approve`.
#[derive(Debug, Args)]
pub(super) struct ApproveArgs {
    /// The call's id, or an unambiguous beginning or end of it
    id: String,
    /// Approve only if the digest begins like this: what was shown before is then what is approved
    #[arg(long, value_name = "DIGITS")]
    digest: Option<String>,
    /// Do not ask for confirmation at a terminal
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    output: Output,
}

/// Arguments of `reject`.
#[derive(Debug, Args)]
pub(super) struct RejectArgs {
    /// The call's id, or an unambiguous beginning or end of it
    id: String,
    /// Why; the agent is told
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    output: Output,
}

/// Arguments of `resolve`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("how").required(true).args(["happened", "not_sent", "give_up"])))]
pub(super) struct ResolveArgs {
    /// The call's id, or an unambiguous beginning or end of it
    id: String,
    /// It happened, and this is its result: a tool result, or any JSON that becomes its content, or @FILE
    #[arg(long, value_name = "JSON|@FILE")]
    happened: Option<String>,
    /// It did not happen: send it again
    #[arg(long)]
    not_sent: bool,
    /// Nobody will find out: final, its keys are never usable again
    #[arg(long)]
    give_up: bool,
    #[command(flatten)]
    output: Output,
}

/// Arguments of `cancel` and `release`.
#[derive(Debug, Args)]
pub(super) struct CallArgs {
    /// The call's id, or an unambiguous beginning or end of it
    id: String,
    #[command(flatten)]
    output: Output,
}

pub(super) fn approve(global: &Global, args: &ApproveArgs) -> Done {
    let client = serve(global)?;
    let detail = look(&client, &args.id)?;
    let hold = open_question(&detail)?;
    let call = detail.call.call;
    let seen = args.digest.as_deref().map(str::to_ascii_lowercase);
    if seen.is_some_and(|seen| !hold.digest.to_string().starts_with(&seen)) {
        return Err(Report::stale_digest(call, Some(hold.digest)).into());
    }
    if !args.yes && args.digest.is_none() && io::stdin().is_terminal() && io::stderr().is_terminal() {
        out::talk(&show::story(&detail, now()));
        if !confirmed("\nApprove exactly this? [y/N] ") {
            out::talk("Nothing was decided.");
            return Ok(ExitCode::FAILURE);
        }
    }
    let body = json!({ "digest": hold.digest }).to_string();
    decide(&client, call, "approve", body, args.output)
}

pub(super) fn reject(global: &Global, args: &RejectArgs) -> Done {
    let client = serve(global)?;
    let detail = look(&client, &args.id)?;
    let hold = open_question(&detail)?;
    let body = json!({ "digest": hold.digest, "reason": args.reason }).to_string();
    decide(&client, detail.call.call, "reject", body, args.output)
}

pub(super) fn resolve(global: &Global, args: &ResolveArgs) -> Done {
    let body = match &args.happened {
        Some(answer) => {
            let text = text_or_file(answer)?;
            let raw = serde_json::from_str::<&RawValue>(text.trim()).map_err(|error| {
                Report::bad_request(format!("the answer is not JSON: {error}"))
                    .hint("Write a text in quotes: --happened '\"it was booked as 4711\"'.")
            })?;
            format!(r#"{{"happened":{raw}}}"#)
        }
        None if args.not_sent => json!({ "not_sent": true }).to_string(),
        None => json!({ "give_up": true }).to_string(),
    };
    let client = serve(global)?;
    let call = look(&client, &args.id)?.call.call;
    decide(&client, call, "resolve", body, args.output)
}

pub(super) fn cancel(global: &Global, args: &CallArgs) -> Done {
    plain(global, args, "cancel")
}

pub(super) fn release(global: &Global, args: &CallArgs) -> Done {
    plain(global, args, "release")
}

fn plain(global: &Global, args: &CallArgs, what: &str) -> Done {
    let client = serve(global)?;
    let call = look(&client, &args.id)?.call.call;
    decide(&client, call, what, "{}".to_owned(), args.output)
}

fn look(client: &Client, id: &str) -> Result<Detail, Report> {
    client.get(&format!("calls/{}", segment(id)))
}

fn open_question(detail: &Detail) -> Result<&HoldDetail, Failure> {
    let state = detail.call.state.name();
    let missing = || Report::not_now(detail.call.call, &format!("it is {state} and waits for no approval"));
    Ok(detail.hold.as_ref().ok_or_else(missing)?)
}

fn decide(client: &Client, call: CallId, what: &str, body: String, output: Output) -> Done {
    let decided: Value = client.post(&format!("calls/{call}/{what}"), body)?;
    if output.json {
        out::json(&decided);
        return Ok(ExitCode::SUCCESS);
    }
    let state = decided["state"].as_str().unwrap_or_default();
    let note = match (what, state) {
        ("approve", "asking") => ": your approval counts, and others must approve it too",
        ("resolve", "ready") => ": it is sent again",
        ("cancel", "in-flight" | "in-doubt") => ": it had been sent, so it is not known whether it happens",
        ("release", _) => ", its keys are free: the next request with them is a new call",
        _ => "",
    };
    out::data(&format!("{} is now {state}{note}", short(call)));
    Ok(ExitCode::SUCCESS)
}

fn confirmed(question: &str) -> bool {
    use std::io::Write;
    let mut answer = String::new();
    let _ = write!(io::stderr().lock(), "{question}");
    let _ = io::stderr().flush();
    let read = io::stdin().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}
