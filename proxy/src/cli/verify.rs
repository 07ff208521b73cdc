//! `holdfast verify`: is the journal what was written?

use std::process::ExitCode;

use clap::Args;

use super::{Done, Global, Output, out, source::Source};

/// Arguments of `verify`.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(global: &Global, args: VerifyArgs) -> Done {
    let found = Source::open(global)?.verify()?;
    let whole = found["ok"] == true;
    if args.output.json {
        out::json(&found);
    } else if whole {
        let head = found["head"].as_str().unwrap_or_default();
        out::data(&format!(
            "ok: {} entries ({} pruned to their hashes)\nhead {head}",
            found["entries"], found["pruned"]
        ));
        out::talk("Keep the head elsewhere: with it a later cut of the journal's end can be proven.");
    } else {
        let what = found["what"].as_str().unwrap_or_default();
        out::data(&format!("BROKEN at entry {}: {what}", found["seq"]));
    }
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
