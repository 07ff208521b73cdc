//! `holdfast add` and `holdfast remove`: a server more or less in `holdfast.toml`, whose comments and order stay.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use holdfast_policy::Severity;
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, value};

use super::{
    Done, Failure, Global, out,
    setup::{
        failed,
        files::{self, Readers},
        mask::is_telling,
    },
};
use crate::config::{self, Config};

/// Arguments of `add`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  holdfast add files -- npx -y @modelcontextprotocol/server-filesystem .
  holdfast add github --url https://api.githubcopilot.com/mcp/ --header 'Authorization=Bearer ${GITHUB_TOKEN}'

Write secrets as '${VAR}': the file then names them and does not hold them.")]
pub(super) struct AddArgs {
    /// What the server is called here: its tools are NAME__TOOL
    #[arg(value_name = "NAME")]
    name: String,
    /// Its address, where it is reached over HTTP
    #[arg(long, value_name = "URL", conflicts_with_all = ["command", "env", "cwd"], required_unless_present = "command")]
    url: Option<String>,
    /// A header that is sent to it; can be given more than once
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, requires = "url", conflicts_with = "command")]
    header: Vec<(String, String)>,
    /// A variable of its environment; can be given more than once
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Its working directory
    #[arg(long, value_name = "DIRECTORY")]
    cwd: Option<PathBuf>,
    /// The program that is started, and its arguments, after `--`
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Arguments of `remove`.
#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// The server's name
    #[arg(value_name = "NAME")]
    name: String,
}

/// `NAME=VALUE`, or `Name: value` as headers are often written.
fn pair(text: &str) -> Result<(String, String), String> {
    let found = text.split_once('=').filter(|(name, _)| !name.contains(':'));
    let (name, value) = found.or_else(|| text.split_once(": ")).ok_or("write NAME=VALUE")?;
    if name.trim().is_empty() {
        Err("write NAME=VALUE".to_owned())
    } else {
        Ok((name.trim().to_owned(), value.to_owned()))
    }
}

/// Adds a server.
///
/// # Errors
/// A name that is taken or no name, a configuration that cannot be edited, or would not load afterwards.
pub(super) fn add(global: &Global, args: &AddArgs) -> Done {
    let path = config::place(global.config.as_deref());
    let before = read(&path)?;
    let mut file = parse(&path, before.as_deref().unwrap_or(HEAD))?;
    taken(&path, &args.name, &file)?;
    let servers = file.entry("servers").or_insert_with(implicit);
    let servers = servers.as_table_like_mut().ok_or_else(|| strange(&path, "`servers` is no table"))?;
    servers.insert(&args.name, Item::Table(table(args)));
    let after = file.to_string();
    let mut alone = DocumentMut::new();
    alone["servers"] = implicit();
    alone["servers"][&args.name] = Item::Table(table(args));
    let unset = check(&path, &after)?;
    write(&path, &after)?;
    out::data(alone.to_string().trim());
    let made = if before.is_some() { "added to" } else { "written to the new file" };
    out::talk(&format!("{made} {}", path.display()));
    out::talk("A running `holdfast serve` takes it up within seconds. Try it: holdfast doctor");
    for name in unset {
        out::talk(&format!("{name} is not set here: set it where Holdfast runs."));
    }
    secrets(args);
    Ok(ExitCode::SUCCESS)
}

/// Removes a server that stands in `[servers]`, and says where rules still name it.
///
/// # Errors
/// Where it is not there, or imported.
pub(super) fn remove(global: &Global, args: &RemoveArgs) -> Done {
    let path = config::place(global.config.as_deref());
    let Some(before) = read(&path)? else {
        return Err(failed(format!("there is no {}", path.display()), "Name the file with -c FILE.").into());
    };
    let mut file = parse(&path, &before)?;
    let servers = file.get_mut("servers").and_then(Item::as_table_like_mut);
    let Some(removed) = servers.and_then(|servers| servers.remove(&args.name)) else {
        let imported = Config::load(Some(&path)).is_ok_and(|(config, _)| config.server(&args.name).is_some());
        let hint = match imported {
            true => "It is imported: delete it in the file that [import] names.",
            false => "`holdfast check` lists the servers that are there.",
        };
        return Err(failed(format!("no [servers.{}] stands in {}", args.name, path.display()), hint).into());
    };
    let after = file.to_string();
    check(&path, &after)?;
    write(&path, &after)?;
    out::data(format!("[servers.{}]\n{}", args.name, removed.to_string().trim()).trim());
    out::talk(&format!("removed from {}", path.display()));
    Ok(ExitCode::SUCCESS)
}

const HEAD: &str =
    "version = 1\n\n[defaults]\neffect = \"ask\"   # a tool that no rule names waits for a person\n";

fn taken(path: &Path, name: &str, file: &DocumentMut) -> Result<(), Failure> {
    let here =
        file.get("servers").and_then(Item::as_table_like).is_some_and(|servers| servers.contains_key(name));
    let imported = || Config::load(Some(path)).is_ok_and(|(config, _)| config.server(name).is_some());
    let way_out = match (here, here || imported()) {
        (true, _) => format!(
            "Edit [servers.{name}] there, remove it with `holdfast remove {name}`, or take another name."
        ),
        (false, true) => {
            "It is imported: change it in the file that [import] names, or take another name.".to_owned()
        }
        (false, false) => return Ok(()),
    };
    Err(failed(format!("there is a server `{name}` in {} already", path.display()), way_out).into())
}

fn read(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(strange(path, &error.to_string())),
    }
}

fn parse(path: &Path, text: &str) -> Result<DocumentMut, Failure> {
    text.parse().map_err(|error: toml_edit::TomlError| strange(path, error.message()))
}

fn strange(path: &Path, what: &str) -> Failure {
    failed(format!("{} cannot be edited: {what}", path.display()), "`holdfast check` says where.").into()
}

fn implicit() -> Item {
    let mut table = Table::new();
    table.set_implicit(true);
    Item::Table(table)
}

fn table(args: &AddArgs) -> Table {
    let mut table = Table::new();
    table.decor_mut().set_prefix("\n");
    let mut put = |key: &str, item: Item| _ = table.insert(key, item);
    match (&args.url, args.command.split_first()) {
        (Some(url), _) => put("url", value(url)),
        (None, Some((command, rest))) => {
            put("command", value(command));
            if !rest.is_empty() {
                put("args", value(rest.iter().collect::<Array>()));
            }
        }
        (None, None) => {}
    }
    for (key, pairs) in [("headers", &args.header), ("env", &args.env)] {
        if !pairs.is_empty() {
            let pairs = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            put(key, value(pairs.collect::<InlineTable>()));
        }
    }
    // `serve` may be started anywhere, and relative paths are meant from here.
    let is_relative =
        |arg: &String| arg == "." || arg == ".." || arg.starts_with("./") || arg.starts_with("../");
    let here = args.command.iter().any(is_relative).then(|| PathBuf::from("."));
    if let Some(cwd) = args.cwd.clone().or(here) {
        let cwd = std::env::current_dir()
            .map_or_else(|_| cwd.clone(), |here| here.join(&cwd).components().collect());
        put("cwd", value(cwd.display().to_string()));
    }
    table
}

/// Whether the file would load; variables that are only not set here are named instead.
fn check(path: &Path, text: &str) -> Result<Vec<String>, Failure> {
    let unset = std::cell::RefCell::new(Vec::new());
    let vars = |name: &str| {
        let set = std::env::var(name).ok();
        Some(set.unwrap_or_else(|| {
            unset.borrow_mut().push(name.to_owned());
            format!("the-value-of-{name}-that-is-not-set-here")
        }))
    };
    if let Err(problems) = Config::read(path, text, &vars) {
        let errors = problems.into_iter().filter(|problem| problem.severity == Severity::Error);
        return Err(errors.collect::<Vec<_>>().into());
    }
    let mut unset = unset.into_inner();
    unset.sort();
    unset.dedup();
    Ok(unset)
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    let written = made.and_then(|()| files::replace(&path, text.as_bytes(), Readers::Same));
    written.map_err(|error| {
        failed(format!("{} cannot be written: {error}", path.display()), "Check its permissions.").into()
    })
}

/// Says so where a value looks like one that should not stand in a file.
fn secrets(args: &AddArgs) {
    for (name, value) in args.env.iter().chain(&args.header) {
        if value.contains("${") || !is_telling(name) {
            continue;
        }
        out::talk(&format!("{name} now stands in the file as it is; write '${{VAR}}' to keep it out."));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_written_in_both_ways() {
        let made = |text: &str| pair(text).map(|(name, value)| format!("{name}|{value}"));
        assert_eq!(made("A=b=c"), Ok("A|b=c".to_owned()));
        assert_eq!(made("Authorization: Bearer a=b"), Ok("Authorization|Bearer a=b".to_owned()));
        assert_eq!(made("X=http://h: 1"), Ok("X|http://h: 1".to_owned()));
        assert!(made("A").is_err() && made("=b").is_err() && made("").is_err());
    }
}
