//! `holdfast explain`: what does the policy do with a call, and why?

use std::process::ExitCode;

use clap::Args;
use holdfast_policy::{Effect, Hints, Question, Trust};

use super::{Done, Failure, Global, Output, out};
use crate::{
    config::Config,
    report::{Report, Target},
    wire,
};

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The server's name in the configuration
    server: String,
    /// The tool's name at that server
    tool: String,
    /// The arguments of the call as JSON, or @FILE
    #[arg(long, value_name = "JSON|@FILE", default_value = "{}")]
    args: String,
    /// Who calls: the name of an agent
    #[arg(long = "as", value_name = "PRINCIPAL", default_value = "local")]
    principal: String,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(global: &Global, args: &ExplainArgs) -> Done {
    let (config, warnings) = Config::load(global.config.as_deref())?;
    out::problems(&warnings);
    let Some(server) = config.server(&args.server) else {
        let known: Vec<&str> = config.servers.iter().map(|server| server.name.as_str()).collect();
        return Err(Report::unknown_server(&args.server, &known).into());
    };
    let agents = &config.agents;
    if !agents.is_empty() && agents.iter().all(|agent| agent.name != args.principal) {
        out::talk(&format!("note: `{}` is no configured agent; choose one with --as", args.principal));
    }
    let target = Target { server: &args.server, tool: &args.tool };
    let text = text_or_file(&args.args)?;
    let arguments = wire::read_strictly(&text, config.intake.max_depth)
        .map_err(|fault| Report::invalid_arguments(target, &fault.to_string()))?;
    if !arguments.is_object() {
        return Err(Report::invalid_arguments(target, "they are not a JSON object").into());
    }
    let trust = if server.trust_annotations { Trust::Annotations } else { Trust::Nothing };
    if trust == Trust::Annotations {
        out::talk("note: the annotations of this server count, but are not known without asking it");
    }
    let question = Question {
        principal: &args.principal,
        server: &args.server,
        tool: &args.tool,
        arguments: &arguments,
        hints: Hints::default(),
        trust,
    };
    let explanation = config.policy.explain(&question);
    if args.output.json {
        out::json(&explanation);
    } else {
        out::data(explanation.to_string().trim_end());
    }
    Ok(ExitCode::from(match explanation.effect {
        Effect::Allow => 0,
        Effect::Ask => 10,
        Effect::Deny => 20,
    }))
}

/// `text` itself, or the content of the file after `@`.
pub(super) fn text_or_file(text: &str) -> Result<String, Failure> {
    let Some(path) = text.strip_prefix('@') else { return Ok(text.to_owned()) };
    std::fs::read_to_string(path).map_err(|error| {
        Report::bad_request(format!("{path} cannot be read: {error}"))
            .hint("After @ stands a file's path.")
            .into()
    })
}
