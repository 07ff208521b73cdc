//! `holdfast reload`: the running `serve` reads its configuration anew.

use std::process::ExitCode;

use clap::Args;

use super::{Done, Global, Output, out, source::serve};
use crate::reload::{Fault, Reloaded};

/// Arguments of `reload`.
#[derive(Debug, Args)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(global: &Global, args: &ReloadArgs) -> Done {
    let reloaded: Reloaded = match serve(global)?.post("reload", "{}".to_owned()) {
        Ok(reloaded) => reloaded,
        Err(report) => {
            let problems = report.details.as_ref().map(|details| details["problems"].clone());
            let faults: Vec<Fault> =
                problems.and_then(|problems| serde_json::from_value(problems).ok()).unwrap_or_default();
            faults.iter().for_each(|fault| out::talk(&fault.to_string()));
            return Err(report.into());
        }
    };
    reloaded.problems.iter().for_each(|fault| out::talk(&fault.to_string()));
    if args.output.json {
        out::json(&reloaded);
    } else {
        out::data(&reloaded.words());
    }
    Ok(ExitCode::SUCCESS)
}
