//! `holdfast notify-test`: does a message arrive?

use std::process::ExitCode;

use clap::Args;
use futures_util::future::join_all;
use serde_json::json;

use super::{Done, Global, Output, out, words};
use crate::{
    config::{Config, SinkConfig},
    notify,
    report::Report,
};

/// Arguments of `notify-test`.
#[derive(Clone, Debug, Args)]
pub(super) struct NotifyTestArgs {
    /// Only this one, by its name in [notify.NAME]
    name: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// Sends one message to each sink, from this process: no `serve` needs to run.
pub(super) fn run(global: &Global, args: &NotifyTestArgs) -> Done {
    let (config, warnings) = Config::load(global.config.as_deref())?;
    out::problems(&warnings);
    let sinks = chosen(&config, args.name.as_deref())?;
    let inbox = config.listen.inbox_base(config.listen.inbox);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Report::new("cannot-start", format!("no threads can be started: {error}"))
            .hint("Raise the process limits.")
    })?;
    let results = runtime.block_on(join_all(sinks.iter().map(|sink| notify::test(sink, &inbox))));
    if args.output.json {
        let result = |(sink, result): (&&SinkConfig, &Result<String, String>)| {
            let (ok, what) = (result.is_ok(), result.as_ref().unwrap_or_else(|what| what));
            json!({ "name": sink.name, "kind": sink.way.name(), "target": sink.way.to_string(), "ok": ok, "what": what })
        };
        out::json(&json!({ "results": sinks.iter().zip(&results).map(result).collect::<Vec<_>>() }));
    } else {
        let row = |(sink, result): (&&SinkConfig, &Result<String, String>)| {
            let what = match result {
                Ok(how) => format!("ok ({how})"),
                Err(what) => format!("FAILED: {what}"),
            };
            [sink.name.clone(), sink.way.name().to_owned(), sink.way.to_string(), what]
        };
        let rows: Vec<[String; 4]> = sinks.iter().zip(&results).map(row).collect();
        out::data(&words::table(["NAME", "KIND", "TARGET", "RESULT"], &rows));
    }
    Ok(if results.iter().all(Result::is_ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn chosen<'a>(config: &'a Config, name: Option<&str>) -> Result<Vec<&'a SinkConfig>, Report> {
    let names: Vec<&str> = config.notify.iter().map(|sink| sink.name.as_str()).collect();
    let chosen: Vec<&SinkConfig> =
        config.notify.iter().filter(|sink| name.is_none_or(|name| sink.name == name)).collect();
    if !chosen.is_empty() {
        return Ok(chosen);
    }
    Err(match name {
        Some(name) if !names.is_empty() => Report::bad_request(format!("there is no [notify.{name}]"))
            .hint(format!("Known: {}.", names.join(", "))),
        _ => Report::bad_request("nobody is configured to be notified")
            .hint("Write [notify.NAME] with kind = \"webhook\", \"slack\", \"ntfy\" or \"command\"."),
    })
}
