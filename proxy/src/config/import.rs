//! `[import] mcp_servers`: the files that MCP clients keep their servers in, used as they are.

mod dialect;
mod entry;
mod names;
mod tree;
mod variables;
mod yaml;

#[cfg(test)]
mod tests;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use holdfast_policy::{Problem, Section, Severity};

use self::{
    dialect::Listed,
    entry::{Around, Meaning},
};
pub(crate) use self::{
    dialect::{Client, On, folder_of},
    names::{free as free_name, plain as plain_name},
    tree::{Data, Node, Syntax, jsonc},
};
use super::servers::{ServerConfig, Surroundings, Transport};

/// A server that stands in a client's file.
#[derive(Debug)]
pub(crate) struct Found {
    /// What it is called there.
    pub(crate) name: String,
    /// The names under which it stands there.
    pub(crate) path: Vec<String>,
    /// The project it belongs to; none for one of the user.
    pub(crate) project: Option<PathBuf>,
    /// Its settings, as they are written.
    pub(crate) node: Node,
    /// What it is to us.
    pub(crate) what: What,
    /// What is wrong with it, or not used of it.
    pub(crate) problems: Vec<Problem>,
}

/// What an entry of a client's file is to us.
#[derive(Debug)]
pub(crate) enum What {
    /// A server.
    Server(Transport),
    /// Holdfast itself.
    Ourselves,
    /// Switched off.
    Off,
    /// It cannot be used; its problems say why.
    Unusable,
}

/// Where entries are read.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'a> {
    /// The environment.
    pub(crate) vars: &'a dyn Fn(&str) -> Option<String>,
    /// Our own address, which must not stand behind ourselves.
    pub(crate) mcp: Option<SocketAddr>,
}

/// All entries of the file at `path`, which holds `text`. None: it has no place for servers at all.
///
/// # Errors
/// What makes the file as a whole unreadable.
pub(crate) fn entries(path: &Path, text: &str, reading: Reading<'_>) -> Result<Option<Vec<Found>>, Problem> {
    let client = Client::of(path);
    let file = path.display().to_string();
    let tree = Node::parse(text, client.syntax()).map_err(|broken| broken.problem(&file, text))?;
    let home = (reading.vars)("HOME").map(PathBuf::from);
    let Some(listed) = client.listed(path, home.as_deref(), &tree) else { return Ok(None) };
    twice(&listed, &file, text)?;
    let folder = folder_of(path);
    let around = Around { file: &file, text, client, folder: &folder, vars: reading.vars, mcp: reading.mcp };
    Ok(Some(listed.iter().map(|listed| found(listed, &around)).collect()))
}

fn found(listed: &Listed<'_>, around: &Around<'_>) -> Found {
    let (what, problems) = match listed.on {
        On::No => (What::Off, Vec::new()),
        On::Yes => {
            let (meaning, problems) = entry::read(listed, around);
            let failed = problems.iter().any(|problem| problem.severity == Severity::Error);
            let what = match meaning {
                Meaning::Server(_) | Meaning::Nothing if failed => What::Unusable,
                Meaning::Server(transport) => What::Server(transport),
                Meaning::Ourselves => What::Ourselves,
                Meaning::Nothing => What::Unusable,
            };
            (what, problems)
        }
    };
    Found {
        name: listed.member.key.clone(),
        path: listed.path.clone(),
        project: listed.project.clone(),
        node: listed.member.node.clone(),
        what,
        problems,
    }
}

/// JSON lets a name stand twice, and readers disagree about which one counts.
fn twice(listed: &[Listed<'_>], file: &str, text: &str) -> Result<(), Problem> {
    for (n, one) in listed.iter().enumerate() {
        let same = |other: &&Listed<'_>| other.path == one.path && other.member.key == one.member.key;
        if listed[..n].iter().any(|other| same(&other)) {
            let message = format!("duplicate key: `{}` stands here twice", one.member.key);
            let hint = "rename or delete one of the two".to_owned();
            return Err(tree::problem(file, text, one.member.key_at.start, (Severity::Error, message, hint)));
        }
    }
    Ok(())
}

/// `problems` gets those of the imported files; what is wrong with the list itself is recorded in the document.
pub(super) fn read(
    root: &Section<'_>,
    around: &Surroundings<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<ServerConfig> {
    let Some(section) = root.section("import") else { return Vec::new() };
    let files = section.strings("mcp_servers").unwrap_or_default();
    section.finish();
    let mut imported: Vec<ServerConfig> = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let path = around.base.join(at_home(file, around.vars));
        let text = match (around.open)(&path) {
            Ok(text) => text,
            Err(error) => {
                let message = format!("{} cannot be read: {error}", path.display());
                let hint = "correct the path (relative paths start at this file), or delete it from the list";
                section.problem_in("mcp_servers", index, message, hint);
                continue;
            }
        };
        match entries(&path, &text, Reading { vars: around.vars, mcp: around.mcp }) {
            Ok(Some(found)) => {
                take(found, &Source { path: &path, text: &text, base: around.base }, &mut imported, problems)
            }
            Ok(None) => problems.push(no_place(&path, &text)),
            Err(problem) => problems.push(problem),
        }
    }
    imported
}

/// The files that are imported, there or not.
pub(super) fn files(root: &Section<'_>, base: &Path, vars: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let named = root.section("import").and_then(|section| section.value("mcp_servers"));
    let named = named.and_then(|named| Some(named.as_array()?.clone())).unwrap_or_default();
    named.iter().filter_map(|file| Some(base.join(at_home(file.as_str()?, vars)))).collect()
}

fn no_place(path: &Path, text: &str) -> Problem {
    let file = path.display().to_string();
    let message = format!("{file} lists no servers");
    let hint = "it needs an object `mcpServers`, `servers`, or (TOML) `mcp_servers`".to_owned();
    tree::problem(&file, text, 0, (Severity::Error, message, hint))
}

/// Reads a file as configurations do.
pub(super) fn open(path: &Path) -> io::Result<String> {
    std::fs::read_to_string(path)
}

fn at_home(file: &str, vars: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    match (file.strip_prefix("~/"), vars("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(file),
    }
}

struct Source<'a> {
    path: &'a Path,
    text: &'a str,
    base: &'a Path,
}

/// Takes what a file has, under names that are free.
fn take(
    mut found: Vec<Found>,
    from: &Source<'_>,
    imported: &mut Vec<ServerConfig>,
    problems: &mut Vec<Problem>,
) {
    problems.extend(strangers(&mut found, from));
    // What Claude Code knows about a single project is closer than what it knows about the user.
    found.sort_by_key(|one| one.path.len() < 3);
    let mut local: Vec<String> = Vec::new();
    for one in found {
        let warn = |message: String, hint: &str| {
            let file = from.path.display().to_string();
            tree::problem(&file, from.text, one.node.at.start, (Severity::Warning, message, hint.to_owned()))
        };
        if one.path.len() < 3 && local.contains(&one.name) {
            continue;
        }
        if one.path.len() == 3 {
            local.push(one.name.clone());
        }
        if matches!(one.what, What::Ourselves) {
            problems.push(warn(format!("`{}` is Holdfast itself and was left out", one.name), ""));
        }
        problems.extend(one.problems.iter().cloned());
        let What::Server(transport) = &one.what else { continue };
        let plain = plain_name(&one.name);
        if imported.iter().any(|other| other.name == plain && other.transport == *transport) {
            continue;
        }
        let name = free_name(&plain, &|name| imported.iter().any(|other| other.name == name));
        if name != one.name {
            let why = if name == plain { "" } else { ", since another server has that name" };
            let message = format!("`{}` is called `{name}` here{why}", one.name);
            problems.push(warn(message, "rules and tool names use the latter"));
        }
        let mut server = ServerConfig::plain(name, transport.clone());
        server.http.old = one.node.get("type").and_then(Node::text) == Some("sse");
        imported.push(server);
    }
}

/// Leaves out what Claude Code knows about other projects than the one that the configuration lies in, and says so once
/// for each project.
fn strangers(found: &mut Vec<Found>, from: &Source<'_>) -> Vec<Problem> {
    let is_strange = |one: &Found| {
        one.path.len() == 3 && one.project.as_ref().is_some_and(|project| !from.base.starts_with(project))
    };
    let mut told: Vec<(String, Vec<String>, usize)> = Vec::new();
    for one in found.extract_if(.., |one| is_strange(one)) {
        if !matches!(one.what, What::Server(_) | What::Unusable) {
            continue;
        }
        let project = one.path[1].clone();
        match told.iter_mut().find(|(told, ..)| *told == project) {
            Some((_, names, _)) => names.push(one.name),
            None => told.push((project, vec![one.name], one.node.at.start)),
        }
    }
    let file = from.path.display().to_string();
    let problem = |(project, names, at): (String, Vec<String>, usize)| {
        let message = format!("of the project {project}, and so left out here: {}", names.join(", "));
        let hint =
            "a holdfast.toml in that folder would have them; or copy them into [servers.NAME]".to_owned();
        tree::problem(&file, from.text, at, (Severity::Warning, message, hint))
    };
    told.into_iter().map(problem).collect()
}
