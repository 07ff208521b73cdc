//! `holdfast doctor`: what is wrong with this set-up, and how to mend it.

mod clients;
mod home;
mod servers;

use std::{path::Path, process::ExitCode};

use clap::Args;
use holdfast_policy::{Problem, Severity};
use serde::Serialize;
use serde_json::json;

use super::{
    Done, Global, Output, out,
    setup::{self, count},
};
use crate::{
    config::{self, Config},
    inbox::visible::visible,
};

/// Arguments of `doctor`.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    output: Output,
    /// Do not start or connect to the servers
    #[arg(long)]
    offline: bool,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    /// Of what kind: configuration, servers, store, network, clients.
    area: &'static str,
    /// What was looked at.
    subject: String,
    level: Level,
    /// What was found.
    what: String,
    /// How to mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Level {
    /// As it should be.
    Ok,
    /// It works, but perhaps not as one thinks.
    Warning,
    /// It does not work.
    Problem,
}

/// What was found so far, in the areas' order.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, area: &'static str, subject: impl Into<String>, what: impl Into<String>) {
        self.add(area, subject, Level::Ok, what, "");
    }

    fn add(
        &mut self,
        area: &'static str,
        subject: impl Into<String>,
        level: Level,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) {
        let mend: String = mend.into();
        let mend = (!mend.is_empty()).then_some(mend);
        self.0.push(Finding { area, subject: subject.into(), level, what: what.into(), mend });
    }

    fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|finding| finding.level == level).count()
    }
}

/// Looks at everything; exit code 1 where something does not work.
///
/// # Errors
/// Where it cannot even look.
pub(super) fn run(global: &Global, args: DoctorArgs) -> Done {
    let home = setup::home()?;
    let path = config::place(global.config.as_deref());
    let mut findings = Findings::default();
    let config = configuration(&path, &mut findings);
    if let Some(config) = &config {
        servers::programs(config, &mut findings);
        if !args.offline {
            servers::ask(config, &mut findings);
        }
        home::look(global, config, &mut findings);
    }
    clients::look(config.as_ref(), &path, &home, &mut findings);
    let fine = findings.count(Level::Problem) == 0;
    if args.output.json {
        out::json(&json!({ "ok": fine, "findings": findings.0 }));
    } else {
        out::data(&words(&findings));
    }
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn configuration(path: &Path, findings: &mut Findings) -> Option<Config> {
    let area = "configuration";
    let name = path.display().to_string();
    if !path.exists() {
        let mend =
            "holdfast init writes one from what your clients have; or: holdfast add NAME -- COMMAND ARGS";
        findings.add(area, name, Level::Problem, "there is no such file", mend);
        return None;
    }
    let (config, problems) = match Config::load(Some(path)) {
        Ok((config, warnings)) => (Some(config), warnings),
        Err(problems) => (None, problems),
    };
    for problem in &problems {
        let level = match problem.severity {
            Severity::Error => Level::Problem,
            Severity::Warning => Level::Warning,
        };
        let mend = problem.hint.clone().unwrap_or_default();
        findings.add(area, place(problem), level, &*problem.message, mend);
    }
    if let Some(config) = &config {
        let rules = config.policy.rules().len();
        let what = format!("{}, {}", count(config.servers.len(), "server"), count(rules, "rule"));
        findings.ok(area, name, what);
    }
    config
}

fn place(problem: &Problem) -> String {
    if problem.line == 0 { problem.file.clone() } else { format!("{}:{}", problem.file, problem.line) }
}

fn words(findings: &Findings) -> String {
    let mut lines = Vec::new();
    let mut area = "";
    for finding in &findings.0 {
        if finding.area != area {
            area = finding.area;
            lines.push(area.to_owned());
        }
        let level = match finding.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Problem => "PROBLEM",
        };
        let mut what = finding.what.lines();
        let first = what.next().unwrap_or_default();
        lines.push(format!("  {level:7}  {}: {}", visible(&finding.subject), visible(first)));
        lines.extend(what.map(|line| format!("           {}", visible(line))));
        let mend = finding.mend.iter().flat_map(|mend| mend.lines()).enumerate();
        lines.extend(mend.map(|(n, line)| {
            format!("           {}{}", if n == 0 { "mend: " } else { "      " }, visible(line))
        }));
    }
    let (problems, warnings) = (findings.count(Level::Problem), findings.count(Level::Warning));
    lines.push(match (problems, warnings) {
        (0, 0) => "Everything is as it should be.".to_owned(),
        _ => format!("{}, {}.", count(problems, "problem"), count(warnings, "warning")),
    });
    lines.join("\n")
}
