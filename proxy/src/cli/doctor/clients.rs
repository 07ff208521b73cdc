//! The clients: is Holdfast in their files, and would it start from there?

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{Findings, Level};
use crate::{
    address,
    cli::setup::{self, clients, count, short},
    config::{
        Config, Listen, Place,
        import::{self, Found, Reading, What},
    },
};

const AREA: &str = "clients";

/// Looks at every client's file that is there.
pub(super) fn look(config: Option<&Config>, path: &Path, home: &Path, findings: &mut Findings) {
    let here = std::env::current_dir().unwrap_or_else(|_| home.to_owned());
    let project = clients::project(&here, home);
    let mut pointing = 0;
    let places = clients::places(home, &project, &setup::var);
    for place in places.iter().filter(|place| place.file.is_file()) {
        let subject = format!("{} {}", place.client, short(&place.file, home));
        let found = match read(&place.file, config) {
            Ok(found) => found,
            Err((what, mend)) => {
                findings.add(AREA, subject, Level::Problem, what, mend);
                continue;
            }
        };
        let of_here = |one: &&Found| one.path.len() < 3 || one.project.as_deref() == Some(&*project);
        let found: Vec<&Found> = found.iter().filter(of_here).collect();
        let ours: Vec<&&Found> = found.iter().filter(|one| matches!(one.what, What::Ourselves)).collect();
        for one in &ours {
            pointing += 1;
            entry(one, config, path, &subject, findings);
        }
        let past: Vec<&str> = found
            .iter()
            .filter(|one| matches!(one.what, What::Server(_) | What::Unusable))
            .map(|one| one.name.as_str())
            .collect();
        if !past.is_empty() {
            let what = format!("{} not behind Holdfast: {}", verb(past.len()), past.join(", "));
            findings.add(AREA, subject, Level::Warning, what, "holdfast init shows how to move them");
        } else if ours.is_empty() {
            findings.ok(AREA, subject, "has no servers");
        }
    }
    if pointing == 0 && config.is_some() {
        let what = "no client that was found starts Holdfast";
        findings.add(
            AREA,
            "none",
            Level::Warning,
            what,
            "holdfast init, or the lines that `holdfast serve` prints",
        );
    }
}

fn verb(servers: usize) -> String {
    format!("{} {}", count(servers, "server"), if servers == 1 { "is" } else { "are" })
}

fn read(file: &Path, config: Option<&Config>) -> Result<Vec<Found>, (String, String)> {
    let text = fs::read_to_string(file)
        .map_err(|error| (format!("it cannot be read: {error}"), "check its permissions".to_owned()))?;
    let mcp = config.map_or_else(|| Listen::default().mcp, |config| config.listen.mcp);
    let found = import::entries(file, &text, Reading { vars: &setup::var, mcp: Some(mcp) });
    let found = found.map_err(|problem| {
        (format!("line {}: {}", problem.line, problem.message), problem.hint.unwrap_or_default())
    })?;
    Ok(found.unwrap_or_default())
}

fn entry(found: &Found, config: Option<&Config>, path: &Path, subject: &str, findings: &mut Findings) {
    let value = found.node.to_json();
    let Some(command) = value["command"].as_str() else { return by_http(config, subject, findings) };
    let args: Vec<&str> =
        value["args"].as_array().into_iter().flatten().filter_map(|arg| arg.as_str()).collect();
    let mut wrong: Vec<(Level, String, &str)> = Vec::new();
    match Path::new(command).is_absolute() {
        true if !runs(Path::new(command)) => {
            wrong.push((
                Level::Problem,
                format!("{command} is not there, or not executable"),
                "holdfast init --apply, after taking this entry out",
            ));
        }
        true => {}
        false => wrong.push((
            Level::Warning,
            format!("`{command}` is looked for in the client's own PATH"),
            "write the whole path: clients with windows know little of your terminal's PATH",
        )),
    }
    let named =
        args.iter().position(|arg| *arg == "-c" || *arg == "--config").and_then(|at| args.get(at + 1));
    match named.map(PathBuf::from) {
        Some(named) if !named.is_file() => {
            wrong.push((
                Level::Problem,
                format!("its configuration {} is not there", named.display()),
                "correct the path after -c",
            ));
        }
        Some(named) if named.is_relative() => {
            wrong.push((
                Level::Warning,
                "its configuration is a relative path".to_owned(),
                "write the whole path after -c",
            ));
        }
        Some(named) if named.canonicalize().ok() != path.canonicalize().ok() => {
            wrong.push((
                Level::Warning,
                format!("it uses another configuration: {}", named.display()),
                "look at that one: holdfast doctor -c FILE",
            ));
        }
        Some(_) => {}
        None => wrong.push((
            Level::Warning,
            "it names no configuration, so it depends on the folder it is started in".to_owned(),
            "add \"-c\" and the whole path to its args",
        )),
    }
    let needs_token = config.is_some_and(|config| !config.agents.is_empty());
    if needs_token && value["env"]["HOLDFAST_TOKEN"].is_null() {
        wrong.push((
            Level::Warning,
            "the configuration has [agents], and the entry sets no HOLDFAST_TOKEN".to_owned(),
            "add \"env\": {\"HOLDFAST_TOKEN\": \"...\"}, unless the client's environment has it",
        ));
    }
    if wrong.is_empty() {
        findings.ok(AREA, subject, "starts Holdfast with this configuration");
    }
    for (level, what, mend) in wrong {
        findings.add(AREA, subject, level, what, mend);
    }
}

fn by_http(config: Option<&Config>, subject: &str, findings: &mut Findings) {
    let serves = config.is_some_and(|config| match &config.store.place {
        Place::Redb(store) => address::is_claimed(store),
        Place::Postgres(_) => false,
    });
    match serves {
        true => findings.ok(AREA, subject, "connects to the `holdfast serve` that is running"),
        false => findings.add(
            AREA,
            subject,
            Level::Warning,
            "connects by HTTP, and no `holdfast serve` is running",
            "start `holdfast serve`, or let the client start `holdfast stdio`, which starts it by itself",
        ),
    }
}

fn runs(file: &Path) -> bool {
    file.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}
