//! `holdfast approve`, `reject`, `edit`, `respond`, `revoke`, `resolve`, `cancel`, `release`: decisions, carried out by the running `serve`.

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
    /// Approve past all gates, for this reason: for operators with `break_glass`, and on the record
    #[arg(long, value_name = "REASON")]
    break_glass: Option<String>,
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

/// Arguments of `edit`.
#[derive(Debug, Args)]
pub(super) struct EditArgs {
    /// The call's id, or an unambiguous beginning or end of it
    id: String,
    /// The arguments that are to be asked for instead, all of them
    #[arg(long, value_name = "JSON|@FILE")]
    args: String,
    #[command(flatten)]
    output: Output,
}

/// Arguments of `respond`.
#[derive(Debug, Args)]
pub(super) struct RespondArgs {
    /// The call's id, or an unambiguous beginning or end of it
    id: String,
    /// A tool result, or any JSON that becomes its content
    #[arg(long, value_name = "JSON|@FILE")]
    answer: String,
    #[command(flatten)]
    output: Output,
}

/// Arguments of `revoke`.
#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// The call's id, or an unambiguous beginning or end of it
    id: String,
    /// Why
    #[arg(long, default_value = "")]
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
    let mut body = json!({ "digest": hold.digest });
    if let Some(reason) = &args.break_glass {
        body["break_glass"] = json!(reason);
    }
    decide(&client, call, "approve", body.to_string(), args.output)
}

pub(super) fn edit(global: &Global, args: &EditArgs) -> Done {
    let arguments =
        raw_json(&args.args, "the arguments are", r#"Write a JSON object: --args '{"amount": 80}'."#)?;
    let client = serve(global)?;
    let detail = look(&client, &args.id)?;
    let hold = open_question(&detail)?;
    let body = format!(r#"{{"digest":"{}","arguments":{arguments}}}"#, hold.digest);
    decide(&client, detail.call.call, "edit", body, args.output)
}

pub(super) fn respond(global: &Global, args: &RespondArgs) -> Done {
    let answer =
        raw_json(&args.answer, "the answer is", "Write a text in quotes: --answer '\"done by hand\"'.")?;
    let client = serve(global)?;
    let detail = look(&client, &args.id)?;
    let hold = open_question(&detail)?;
    let body = format!(r#"{{"digest":"{}","answer":{answer}}}"#, hold.digest);
    decide(&client, detail.call.call, "respond", body, args.output)
}

pub(super) fn revoke(global: &Global, args: &RevokeArgs) -> Done {
    let client = serve(global)?;
    let call = look(&client, &args.id)?.call.call;
    let body = json!({ "reason": args.reason }).to_string();
    decide(&client, call, "revoke", body, args.output)
}

/// JSON from the command line or a file, as it stands there.
fn raw_json(text: &str, what: &str, hint: &str) -> Result<Box<RawValue>, Failure> {
    let text = text_or_file(text)?;
    serde_json::from_str::<Box<RawValue>>(text.trim())
        .map_err(|error| Report::bad_request(format!("{what} not JSON: {error}")).hint(hint).into())
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
            let hint = "Write a text in quotes: --happened '\"it was booked as 4711\"'.";
            let raw = raw_json(answer, "the answer is", hint)?;
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

pub(super) fn look(client: &Client, id: &str) -> Result<Detail, Report> {
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
        ("edit", _) => " with other arguments: they must be approved",
        ("respond", _) => ": the agent gets your answer, and nothing is sent",
        ("revoke", _) => " again: nothing is sent",
        ("resolve", "ready") => ": it is sent again",
        ("cancel", "in-flight" | "in-doubt") => ": it had been sent, so it is not known whether it happens",
        ("release", _) => ", its keys are free: the next request with them is a new call",
        _ => "",
    };
    out::data(&format!("{} is now {state}{note}", short(call)));
    Ok(ExitCode::SUCCESS)
}

pub(super) fn confirmed(question: &str) -> bool {
    use std::io::Write;
    let mut answer = String::new();
    let _ = write!(io::stderr().lock(), "{question}");
    let _ = io::stderr().flush();
    let read = io::stdin().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}
