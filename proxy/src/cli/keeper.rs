//! `holdfast keeper`: what `serve` starts to keep its servers; nothing to be started by hand.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;

use super::Done;
use crate::{keeper, report::Report};

/// Where it is found, and for how long.
#[derive(Debug, Args)]
pub(super) struct KeeperArgs {
    /// The directory of its socket, which is its standard input
    directory: PathBuf,
    /// How long it waits for a `serve`
    #[arg(long, value_name = "MS")]
    unclaimed_ms: u64,
}

/// Keeps servers until nobody wants them.
///
/// # Errors
/// Where it was not started by `serve`.
pub(super) fn run(args: KeeperArgs) -> Done {
    let kept = keeper::run(args.directory, Duration::from_millis(args.unclaimed_ms));
    kept.map(|()| ExitCode::SUCCESS).map_err(|error| {
        let what = format!("the keeper has no socket to listen on: {error}");
        Report::new("cannot-start", what).hint("`holdfast serve` starts it; nobody else needs to.").into()
    })
}
