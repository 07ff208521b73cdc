//! The servers: are their programs there, and what do they say when they are asked?

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{Findings, Level};
use crate::{
    cli::{
        out,
        setup::{count, probe},
    },
    config::{Config, ServerConfig, Transport},
};

const AREA: &str = "servers";
/// How long a server may take to list its tools.
const LIMIT: Duration = Duration::from_secs(12);
/// How long a program may take to say its version.
const VERSION: Duration = Duration::from_secs(5);
/// What most MCP servers on npm ask for.
const OLDEST_NODE: u32 = 18;

/// Looks whether what the configuration starts is there.
pub(super) fn programs(config: &Config, findings: &mut Findings) {
    let mut runners: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for server in &config.servers {
        let Transport::Stdio { command, cwd, env, .. } = &server.transport else { continue };
        if let Some(cwd) = cwd.as_ref().filter(|cwd| !cwd.is_dir()) {
            let what = format!("its working directory {} does not exist", cwd.display());
            findings.add(AREA, &server.name, Level::Problem, what, "make it, or correct `cwd`");
        }
        let path = env.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.clone());
        let path = path.or_else(|| std::env::var("PATH").ok()).unwrap_or_default();
        match found(command, &path) {
            Lookup::Found => {
                let name = Path::new(command).file_name().and_then(|name| name.to_str()).unwrap_or(command);
                if RUNNERS.iter().any(|(runner, ..)| *runner == name) {
                    runners.entry(name).or_default().push(&server.name);
                }
            }
            Lookup::Missing => {
                let what = format!("`{command}` is neither in PATH nor a file");
                findings.add(AREA, &server.name, Level::Problem, what, install(command));
            }
            Lookup::NotExecutable => {
                let what = format!("`{command}` is not executable");
                findings.add(AREA, &server.name, Level::Problem, what, format!("chmod +x {command}"));
            }
        }
    }
    for (runner, servers) in runners {
        version(runner, &servers, findings);
    }
}

/// Starts or connects to each, lists its tools, and says how long that took.
pub(super) fn ask(config: &Config, findings: &mut Findings) {
    let missing = |server: &&ServerConfig| {
        findings.0.iter().any(|finding| {
            finding.area == AREA && finding.level == Level::Problem && finding.subject == server.name
        })
    };
    let there: Vec<ServerConfig> = config.servers.iter().filter(|server| !missing(server)).cloned().collect();
    if there.is_empty() {
        if config.servers.is_empty() {
            let mend = "holdfast add NAME -- COMMAND ARGS, or holdfast init";
            findings.add(
                AREA,
                "none",
                Level::Warning,
                "no server is configured: agents will see no tools",
                mend,
            );
        }
        return;
    }
    out::talk(&format!(
        "Asking {} for their tools, {} s at most:",
        count(there.len(), "server"),
        LIMIT.as_secs()
    ));
    let asked = probe::ask(&there, LIMIT, &|asked| {
        let what = if asked.tools.is_ok() { "answers" } else { "does not answer" };
        out::talk(&format!("  {} {what} after {:.1} s", asked.server, asked.took.as_secs_f64()));
    });
    for one in asked {
        match &one.tools {
            Ok(tools) if tools.is_empty() => {
                findings.add(AREA, &one.server, Level::Warning, "it works, but has no tools", "");
            }
            Ok(tools) => {
                let what = format!("{} in {:.1} s", count(tools.len(), "tool"), one.took.as_secs_f64());
                findings.ok(AREA, &one.server, what);
            }
            Err(why) => {
                let server = there.iter().find(|server| server.name == one.server);
                let mend = server.map(way_out).unwrap_or_default();
                findings.add(AREA, &one.server, Level::Problem, probe::plain(why, &one.server), mend);
            }
        }
    }
}

fn way_out(server: &ServerConfig) -> String {
    match &server.transport {
        Transport::Stdio { command, args, .. } => {
            format!("run it by hand and see what it says: {command} {}", args.join(" ")).trim_end().to_owned()
        }
        Transport::Http { url, .. } => format!("is it up, and is this its address? {url}"),
    }
}

enum Lookup {
    Found,
    Missing,
    NotExecutable,
}

fn found(command: &str, path: &str) -> Lookup {
    let candidates: Vec<PathBuf> = match command.contains('/') {
        true => vec![PathBuf::from(command)],
        false => std::env::split_paths(path).map(|folder| folder.join(command)).collect(),
    };
    let files: Vec<&PathBuf> = candidates.iter().filter(|candidate| candidate.is_file()).collect();
    let runs = |file: &&&PathBuf| file.metadata().is_ok_and(|about| about.permissions().mode() & 0o111 != 0);
    match (files.is_empty(), files.iter().any(|file| runs(&file))) {
        (true, _) => Lookup::Missing,
        (false, true) => Lookup::Found,
        (false, false) => Lookup::NotExecutable,
    }
}

/// A program that starts servers, the one that says the version, and where it comes from.
const RUNNERS: [(&str, &str, &str); 7] = [
    ("npx", "node", "install Node.js: https://nodejs.org"),
    ("npm", "node", "install Node.js: https://nodejs.org"),
    ("node", "node", "install Node.js: https://nodejs.org"),
    ("bunx", "bun", "install Bun: https://bun.sh"),
    ("uvx", "uv", "install uv: https://docs.astral.sh/uv"),
    ("uv", "uv", "install uv: https://docs.astral.sh/uv"),
    ("docker", "docker", "install Docker: https://docs.docker.com"),
];

fn install(command: &str) -> String {
    let known = RUNNERS.iter().find(|(runner, ..)| *runner == command);
    let how = known.map_or("install it, or write its whole path", |(.., how)| how);
    format!(
        "{how}\nIf your terminal finds it: clients with windows start programs with another PATH, so write its whole path"
    )
}

fn version(runner: &str, servers: &[&str], findings: &mut Findings) {
    let Some((_, program, how)) = RUNNERS.iter().find(|(known, ..)| *known == runner) else { return };
    let subject = format!("{runner} ({})", servers.join(", "));
    match said_version(program) {
        Some(said) => {
            let major =
                said.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
            match major {
                Some(major) if *program == "node" && major < OLDEST_NODE => findings.add(
                    AREA,
                    subject,
                    Level::Problem,
                    format!("node is {said}, which most MCP servers do not run on"),
                    format!("use Node.js {OLDEST_NODE} or later"),
                ),
                _ => findings.ok(AREA, subject, format!("{program} {said}")),
            }
        }
        None => findings.add(
            AREA,
            subject,
            Level::Problem,
            format!("`{program} --version` does not answer"),
            *how,
        ),
    }
}

/// The first line of `PROGRAM --version`, within a limit.
fn said_version(program: &str) -> Option<String> {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let begun = Instant::now();
    while begun.elapsed() < VERSION {
        match child.try_wait() {
            Ok(Some(_)) => {
                let output = child.wait_with_output().ok()?;
                let text = String::from_utf8_lossy(&output.stdout);
                let line = text.lines().next().unwrap_or_default().trim();
                let line = line.strip_prefix(program).unwrap_or(line).trim();
                return (!line.is_empty()).then(|| line.to_owned());
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Err(_) => break,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}
