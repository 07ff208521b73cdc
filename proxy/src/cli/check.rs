//! `holdfast check`: is the configuration right?

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::{Global, Output, out};
use crate::config::Config;

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(global: &Global, args: &CheckArgs) -> ExitCode {
    let (config, problems) = match Config::load(global.config.as_deref()) {
        Ok((config, warnings)) => (Some(config), warnings),
        Err(problems) => (None, problems),
    };
    out::problems(&problems);
    if args.output.json {
        let mut report = json!({ "ok": config.is_some() });
        report["problems"] = problems.iter().map(out::problem_json).collect();
        if let Some(config) = &config {
            report["configuration"] = summary(config);
        }
        out::json(&report);
    } else if let Some(config) = &config {
        out::data(&words(config));
    }
    if config.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn summary(config: &Config) -> Value {
    let server =
        |server: &crate::config::ServerConfig| json!({ "name": server.name, "identity": server.identity() });
    json!({
        "file": config.file,
        "mcp": config.listen.mcp.to_string(),
        "inbox": config.listen.inbox.to_string(),
        "inbox_url": config.listen.inbox_url,
        "servers": config.servers.iter().map(server).collect::<Vec<_>>(),
        "notify": config.notify.iter().map(|sink| json!({ "name": sink.name, "kind": sink.way.name(), "target": sink.way.to_string() })).collect::<Vec<_>>(),
        "rules": config.policy.rules().iter().map(|rule| rule.id.as_str()).collect::<Vec<_>>(),
        "policy": config.policy.version(),
        "agents": config.agents.iter().map(|agent| &agent.name).collect::<Vec<_>>(),
        "operators": config.operators.iter().map(|operator| &operator.name).collect::<Vec<_>>(),
    })
}

fn words(config: &Config) -> String {
    let list =
        |names: Vec<&str>, none: &str| if names.is_empty() { none.to_owned() } else { names.join(", ") };
    let width = config.servers.iter().map(|server| server.name.len()).max().unwrap_or(0);
    let servers: Vec<String> = config
        .servers
        .iter()
        .map(|server| format!("{:width$}  {}", server.name, server.identity()))
        .collect();
    let servers = match servers.is_empty() {
        true => "none: agents will see no tools".to_owned(),
        false => servers.join("\n           "),
    };
    let rules = config.policy.rules();
    let defaults = config.policy.defaults().effect;
    let agents = config.agents.iter().map(|agent| agent.name.as_str()).collect();
    let notify: Vec<String> = config
        .notify
        .iter()
        .map(|sink| format!("{} ({} {})", sink.name, sink.way.name(), sink.way))
        .collect();
    let operators = config.operators.iter().map(|operator| operator.name.as_str()).collect();
    [
        format!("ok         {}", config.file.display()),
        format!("servers    {servers}"),
        format!("rules      {}", list(rules.iter().map(|rule| rule.id.as_str()).collect(), "none")),
        format!("else       {defaults} (policy {})", config.policy.version()),
        format!("agents     {}", list(agents, "everybody on this machine, as `local`")),
        format!("operators  {}", list(operators, "none: `serve` makes a token for this account")),
        format!(
            "notify     {}",
            list(notify.iter().map(String::as_str).collect(), "nobody: what waits is in the inbox")
        ),
    ]
    .join("\n")
}
