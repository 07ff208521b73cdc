//! `holdfast stdio`: a bridge between an agent that spawns its servers and the `serve` that does the work.
//!
//! The bridge keeps nothing but what is unanswered. It names every request, so that what it sends again after `serve`
//! died is the same call: the agent notices only the delay.

mod events;
mod lines;
mod link;
mod relay;

use std::{process::ExitCode, time::Duration};

use tokio::sync::mpsc;

use super::{Done, Global};
use crate::config::Config;
use link::Serve;
use relay::Relay;

/// How long running requests may take to end once the agent has closed our stdin.
const LINGER: Duration = Duration::from_secs(2);

/// Relays until stdin ends.
///
/// # Errors
/// A configuration that cannot be used. From then on everything is told to the agent as JSON-RPC.
pub(super) fn run(global: &Global) -> Done {
    // Warnings are for whoever runs `check` or `serve`: many agents show all stderr output as failures.
    let (config, _) = Config::load(global.config.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a process that was just started can have timers and sockets");
    runtime.block_on(bridge(&config))?;
    // A read of stdin that is still going on must not hold up the end.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

async fn bridge(config: &Config) -> Result<(), super::Failure> {
    let (out, messages) = mpsc::unbounded_channel();
    let mut writer = tokio::spawn(lines::write(messages));
    let relay = Relay::new(Serve::of(config)?, out);
    let listening = tokio::spawn(relay.clone().listen());
    let mut stdin = lines::Reader::new(tokio::io::stdin());
    loop {
        tokio::select! {
            line = stdin.next() => match line {
                Some(line) => Relay::take(&relay, line),
                None => break,
            },
            // Nobody reads what we say any more.
            _ = &mut writer => return Ok(()),
        }
    }
    listening.abort();
    relay.settle(LINGER).await;
    tokio::time::timeout(LINGER, writer).await.ok();
    Ok(())
}
