//! `holdfast explain-error`: the page about a code.

use std::process::ExitCode;

use clap::Args;

use serde_json::json;

use super::{Done, Output, out};
use crate::report::{self, Report};

/// Arguments of `explain-error`.
#[derive(Debug, Args)]
pub(super) struct ExplainErrorArgs {
    /// The code; without one, all codes are listed
    code: Option<String>,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(args: &ExplainErrorArgs) -> Done {
    let Some(code) = &args.code else {
        if args.output.json {
            out::json(&json!({ "codes": report::codes().collect::<Vec<_>>() }));
        } else {
            report::codes().for_each(out::data);
        }
        return Ok(ExitCode::SUCCESS);
    };
    let Some(page) = report::page(code) else {
        let known: Vec<&str> = report::codes().collect();
        return Err(Report::bad_request(format!("there is no error code `{code}`"))
            .hint(format!("Known: {}.", known.join(", ")))
            .into());
    };
    if args.output.json {
        out::json(&json!({ "code": code, "page": page }));
    } else {
        out::data(page.trim_end());
    }
    Ok(ExitCode::SUCCESS)
}
