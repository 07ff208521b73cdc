//! `holdfast remember`, `remembered`, `forget`: approvals that speak for later calls, too.

use std::process::ExitCode;

use clap::Args;
use holdfast_store::{Call, CallId, Remembered};
use serde_json::{Value, json};

use super::{
    Done, Global, Output,
    client::Client,
    decide::look,
    out,
    source::{segment, serve},
    words::{table, until},
};
use crate::{
    driver::now,
    inbox::{ids::short, register::RememberedView, visible::visible},
    report::Report,
};

/// Arguments of `remember`.
#[derive(Debug, Args)]
pub(super) struct RememberArgs {
    /// A call that you have approved: its id, or an unambiguous beginning or end of it
    id: String,
    /// An argument that may be anything; all others must be as in that call. May be given several times
    #[arg(long, value_name = "ARGUMENT")]
    vary: Vec<String>,
    /// For how many calls it speaks
    #[arg(long, default_value_t = 10)]
    uses: u32,
    /// For how long: 30m, 8h, 7d
    #[arg(long = "for", value_name = "TIME", default_value = "8h")]
    span: String,
    #[command(flatten)]
    output: Output,
}

/// Arguments of `remembered`.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct RememberedArgs {
    #[command(flatten)]
    output: Output,
}

/// Arguments of `forget`.
#[derive(Debug, Args)]
pub(super) struct ForgetArgs {
    /// The decision's id, or an unambiguous end of it
    id: String,
    /// Why
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    output: Output,
}

pub(super) fn remember(global: &Global, args: &RememberArgs) -> Done {
    let client = serve(global)?;
    let detail = look(&client, &args.id)?;
    let call = detail.call.call;
    let hold = Call::fold(&detail.records).ok().flatten().and_then(|call| call.hold);
    let hold = hold.ok_or_else(|| Report::not_now(call, "nobody was asked about it"))?;
    let body = json!({ "digest": hold.digest, "vary": args.vary, "uses": args.uses, "for": args.span });
    let view: RememberedView = client.post(&format!("calls/{call}/remember"), body.to_string())?;
    if args.output.json {
        out::json(&view);
        return Ok(ExitCode::SUCCESS);
    }
    let one = &view.decision;
    out::data(&format!("{} is remembered: your approval also speaks for", tail(one)));
    out::data(&format!("  {}", subject(one)));
    out::data(&format!("  {} more times, for {}", one.uses, until(one.expires, now())));
    out::talk(&format!("\nholdfast remembered · holdfast forget {}", tail(one)));
    Ok(ExitCode::SUCCESS)
}

pub(super) fn remembered(global: &Global, args: RememberedArgs) -> Done {
    let all = list(&serve(global)?)?;
    if args.output.json {
        out::json(&json!({ "remembered": all }));
        return Ok(ExitCode::SUCCESS);
    }
    if all.is_empty() {
        out::data("Nothing is remembered.");
        return Ok(ExitCode::SUCCESS);
    }
    let row = |view: &RememberedView| {
        let one = &view.decision;
        [
            tail(one),
            visible(&one.by.name),
            subject(one),
            format!("{} of {}", view.used, one.uses),
            until(one.expires, now()),
            visible(&view.standing()),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let headings = ["DECISION", "BY", "SPEAKS FOR", "USED", "ENDS IN", "STATE"];
    out::data(table(headings, &rows).trim_end());
    Ok(ExitCode::SUCCESS)
}

pub(super) fn forget(global: &Global, args: &ForgetArgs) -> Done {
    let client = serve(global)?;
    let body = json!({ "reason": args.reason }).to_string();
    let said: Value = client.post(&format!("remembered/{}/forget", segment(&args.id)), body)?;
    if args.output.json {
        out::json(&said);
    } else {
        out::data(&format!("{} is forgotten: calls like that are asked about again", visible(&args.id)));
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything that is remembered, as the running `serve` has it.
pub(super) fn list(client: &Client) -> Result<Vec<RememberedView>, Report> {
    #[derive(serde::Deserialize)]
    struct All {
        remembered: Vec<RememberedView>,
    }
    Ok(client.get::<All>("remembered")?.remembered)
}

/// The end of the id, as calls are shown.
pub(super) fn tail(remembered: &Remembered) -> String {
    short(CallId(remembered.id.0))
}

/// Which calls it speaks for.
fn subject(remembered: &Remembered) -> String {
    let pins = remembered.pins.iter().map(|(name, value)| format!("{} = {}", visible(name), visible(value)));
    let vary = remembered.vary.iter().map(|name| format!("any {}", visible(name)));
    let what: Vec<String> = pins.chain(vary).collect();
    format!(
        "{}/{} of {}{}{}",
        visible(&remembered.server),
        visible(&remembered.tool),
        visible(&remembered.principal),
        if what.is_empty() { "" } else { " with " },
        what.join(", ")
    )
}
