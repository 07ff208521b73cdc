//! `holdfast explain`: what does the policy do with a call, and why?

use std::process::ExitCode;

use clap::Args;
use holdfast_policy::{Effect, Hints, Question, Trust, Verdict};
use holdfast_store::Likeness;

use super::{Done, Failure, Global, Output, out, remember::tail};
use crate::{
    config::Config,
    driver::now,
    inbox::{register::RememberedView, visible::visible},
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
    let spoken = match explanation.effect {
        Effect::Ask => remembered(global, &config, &question),
        Effect::Allow | Effect::Deny => Vec::new(),
    };
    if args.output.json {
        let mut explained = serde_json::to_value(&explanation).expect("our own shapes always serialise");
        explained["remembered"] = spoken.iter().map(|(view, why)| told(view, why.as_deref())).collect();
        out::json(&explained);
    } else {
        out::data(explanation.to_string().trim_end());
        for (view, why) in &spoken {
            out::data(&line(view, why.as_deref()));
        }
    }
    Ok(ExitCode::from(match explanation.effect {
        Effect::Allow => 0,
        Effect::Ask => 10,
        Effect::Deny => 20,
    }))
}

/// Remembered decisions about this tool, each with the reason why it does not speak for the call, if it does not. Only a
/// running `serve` knows them.
fn remembered(
    global: &Global,
    config: &Config,
    question: &Question<'_>,
) -> Vec<(RememberedView, Option<String>)> {
    let Ok(Ok(all)) = super::source::serve(global).map(|client| super::remember::list(&client)) else {
        out::talk("note: decisions that are remembered are known only while `holdfast serve` runs");
        return Vec::new();
    };
    let Verdict::Ask(_, gates) = config.policy.decide(question).verdict else { return Vec::new() };
    let about = |view: &RememberedView| {
        view.decision.server == question.server && view.decision.tool == question.tool
    };
    let judged = all.into_iter().filter(about).map(|view| {
        let one = &view.decision;
        let asked = Likeness {
            principal: question.principal,
            server: question.server,
            // Whether these are still the same, `serve` has said.
            identity: &one.identity,
            tool: question.tool,
            definition: &one.definition,
            arguments: question.arguments,
            gates: &gates,
        };
        let silent =
            view.silenced.clone().or_else(|| (view.used >= one.uses).then(|| "it is used up".into()));
        let why = silent.or_else(|| one.speaks_for(now(), &asked).err());
        (view, why)
    });
    judged.collect()
}

fn told(view: &RememberedView, why: Option<&str>) -> serde_json::Value {
    let RememberedView { decision, .. } = view;
    serde_json::json!({ "id": decision.id, "by": decision.by.name, "speaks": why.is_none(), "why_not": why })
}

fn line(view: &RememberedView, why: Option<&str>) -> String {
    let (id, by) = (tail(&view.decision), visible(&view.decision.by.name));
    match why {
        None => format!(
            "remembered {id}: the approval of {by} speaks for this call (use {} of {})",
            view.used + 1,
            view.decision.uses
        ),
        Some(why) => format!("remembered {id}: the approval of {by} does not speak for it: {}", visible(why)),
    }
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
