//! What the clients have: which servers can move behind Holdfast, under which names, and what has to stay.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{super::setup::edit::Leaving, rules::Filter};
use crate::config::{
    Config, Transport,
    import::{self, Client, Data, Found, Node, Reading, What},
};

/// A client's file and what becomes of it.
#[derive(Debug)]
pub(super) struct Source {
    /// The client, as people call it.
    pub(super) client: &'static str,
    /// Its file.
    pub(super) file: PathBuf,
    /// What the file holds.
    pub(super) text: String,
    /// Servers that leave it.
    pub(super) leaving: Vec<Leaving>,
    /// Whether Holdfast stands in it already.
    pub(super) points: Points,
}

/// Whether a client has Holdfast among its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Points {
    /// Yes.
    Here,
    /// No.
    Nowhere,
}

/// A server that comes behind Holdfast.
#[derive(Debug)]
pub(super) struct Moving {
    /// Its name here.
    pub(super) name: String,
    /// How it is reached.
    pub(super) transport: Transport,
    /// What is written about it in `mcp-servers.json`.
    pub(super) members: Value,
    /// Which of its tools the client used.
    pub(super) filter: Filter,
}

/// Everything that was found.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// The files.
    pub(super) sources: Vec<Source>,
    /// Servers that are not behind Holdfast yet.
    pub(super) moving: Vec<Moving>,
    /// What people should know, in sentences.
    pub(super) notes: Vec<String>,
}

/// Where and for whom files are read.
pub(super) struct Surroundings<'a> {
    /// The user's own directory.
    pub(super) home: &'a Path,
    /// The project one is in.
    pub(super) project: &'a Path,
    /// The configuration, where there is one.
    pub(super) config: Option<&'a Config>,
}

impl Gathered {
    /// Adds what `file`, which holds `text`, has to give.
    ///
    /// # Errors
    /// Where the file cannot be understood.
    pub(super) fn add(
        &mut self,
        client: &'static str,
        file: &Path,
        text: String,
        around: &Surroundings<'_>,
    ) -> Result<(), holdfast_policy::Problem> {
        let vars = |name: &str| std::env::var(name).ok();
        let mcp =
            around.config.map_or_else(|| crate::config::Listen::default().mcp, |config| config.listen.mcp);
        let found =
            import::entries(file, &text, Reading { vars: &vars, mcp: Some(mcp) })?.unwrap_or_default();
        let mut source =
            Source { client, file: file.to_owned(), text, leaving: Vec::new(), points: Points::Nowhere };
        let mut elsewhere = 0;
        for one in found {
            match &one.what {
                What::Ourselves => source.points = Points::Here,
                What::Off => {}
                _ if one.path.len() == 3 && one.project.as_deref() != Some(around.project) => elsewhere += 1,
                What::Unusable => self.stays(&one),
                What::Server(_) => self.take(one, &mut source, around),
            }
        }
        if elsewhere > 0 {
            self.notes.push(format!(
                "{} of other projects in {} left as they are: run `holdfast init` in those folders to move them.",
                super::count(elsewhere, "server"),
                super::short(file, around.home)
            ));
        }
        self.sources.push(source);
        Ok(())
    }

    fn stays(&mut self, found: &Found) {
        let problems: Vec<String> = found.problems.iter().map(ToString::to_string).collect();
        self.notes.push(format!("`{}` stays where it is:\n{}", found.name, problems.join("\n")));
    }

    fn take(&mut self, found: Found, source: &mut Source, around: &Surroundings<'_>) {
        let client = Client::of(&source.file);
        if client == Client::Goose {
            self.notes.push(format!(
                "`{}` of Goose was copied; its file is YAML, which is not edited: see below.",
                found.name
            ));
        } else {
            source.leaving.push(Leaving { path: found.path.clone(), name: found.name.clone() });
        }
        let What::Server(transport) = &found.what else { return };
        let there = around.config.map(|config| config.servers.as_slice()).unwrap_or_default();
        let is_known = there.iter().any(|server| server.transport == *transport)
            || self.moving.iter().any(|moving| moving.transport == *transport);
        if is_known {
            return;
        }
        let is_taken = |name: &str| {
            there.iter().any(|server| server.name == name)
                || self.moving.iter().any(|moving| moving.name == name)
        };
        let name = import::free_name(&import::plain_name(&found.name), &is_taken);
        if name != found.name {
            self.notes.push(format!("`{}` of {} is called `{name}` here.", found.name, source.client));
        }
        self.moving.push(Moving {
            name,
            transport: transport.clone(),
            members: members(&found, client, &source.file),
            filter: filter(&found.node),
        });
    }
}

fn filter(node: &Node) -> Filter {
    let lists = |keys: &[&str]| -> Vec<String> {
        let lists = keys.iter().filter_map(|key| node.get(key));
        let items = lists.flat_map(|list| match &list.data {
            Data::List(items) => items.as_slice(),
            _ => &[],
        });
        items.filter_map(|item| item.text().map(str::to_owned)).collect()
    };
    Filter {
        only: lists(&["includeTools", "enabled_tools", "available_tools"]),
        without: lists(&["excludeTools", "disabled_tools", "disabledTools"]),
    }
}

/// What has become rules, or is said by being here.
const DONE: [&str; 11] = [
    "disabled",
    "enabled",
    "includeTools",
    "enabled_tools",
    "available_tools",
    "excludeTools",
    "disabled_tools",
    "disabledTools",
    "trust",
    "alwaysAllow",
    "autoApprove",
];

/// The entry as it stood, except that what depended on its place is written out.
fn members(found: &Found, client: Client, file: &Path) -> Value {
    let Value::Object(all) = found.node.to_json() else { return Value::Null };
    let mut members: Map<String, Value> =
        all.into_iter().filter(|(key, value)| !DONE.contains(&key.as_str()) && !value.is_null()).collect();
    if client == Client::Gemini {
        members.values_mut().for_each(braced);
    }
    if let Some(project) = &found.project {
        let folder = project.display().to_string();
        members.values_mut().for_each(|value| settle(value, &folder));
        if found.node.get("command").is_some() && !members.contains_key("cwd") {
            members.insert("cwd".to_owned(), folder.into());
        }
    }
    let base = found.project.clone().unwrap_or_else(|| import::folder_of(file));
    for key in ["command", "cwd", "envFile"] {
        let Some(Value::String(path)) = members.get_mut(key) else { continue };
        let is_path = key != "command" || path.contains('/');
        if is_path && !path.starts_with(['/', '~', '$']) {
            *path = base.join(&*path).display().to_string();
        }
    }
    Value::Object(members)
}

/// Writes out what the editor would have put in for the project.
fn settle(value: &mut Value, folder: &str) {
    match value {
        Value::String(text) => {
            let name = folder.rsplit('/').next().unwrap_or_default();
            for variable in ["${workspaceFolder}", "${CLAUDE_PROJECT_DIR}", "${CLAUDE_PROJECT_DIR:-.}"] {
                *text = text.replace(variable, folder);
            }
            *text = text.replace("${workspaceFolderBasename}", name);
        }
        Value::Array(items) => items.iter_mut().for_each(|item| settle(item, folder)),
        Value::Object(members) => members.values_mut().for_each(|member| settle(member, folder)),
        _ => {}
    }
}

/// Gemini's `$NAME`, as everybody else writes it: where it is not set, the text stays.
fn braced(value: &mut Value) {
    match value {
        Value::String(text) => {
            let mut parts = text.split('$');
            let mut braced = parts.next().unwrap_or_default().to_owned();
            for part in parts {
                let length =
                    part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(part.len());
                let (name, rest) = part.split_at(length);
                match name.starts_with(|c: char| !c.is_ascii_digit()) {
                    true => braced.push_str(&format!("${{{name}:-${name}}}{rest}")),
                    false => braced.push_str(&format!("${part}")),
                }
            }
            *text = braced;
        }
        Value::Array(items) => items.iter_mut().for_each(braced),
        Value::Object(members) => members.values_mut().for_each(braced),
        _ => {}
    }
}
