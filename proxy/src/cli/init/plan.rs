//! What `init` is going to write, checked as a whole before anything is shown.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use holdfast_policy::{Problem, Severity};

use super::{
    super::{
        Failure,
        setup::{self, edit, entry::Entry, failed, files::Readers, mask, passed, probe::Asked},
    },
    gather::{Gathered, Moving, Source},
    rules::{self, Known},
};
use crate::{
    config::{Config, ServerConfig, Transport, import::Client},
    inbox::visible::visible,
};

/// Files that change, in the order in which they are written: ours before those that rely on them.
#[derive(Debug)]
pub(super) struct Plan {
    /// Each change.
    pub(super) edits: Vec<Edit>,
    /// Servers that were not behind Holdfast before.
    pub(super) new: Vec<ServerConfig>,
    /// What people should know.
    pub(super) notes: Vec<String>,
    moving: Vec<Moving>,
    /// How many of the edits are to our own servers' file.
    config: PathBuf,
}

/// One file's change.
#[derive(Debug)]
pub(super) struct Edit {
    /// The file.
    pub(super) file: PathBuf,
    /// What it holds; none where it is not there.
    pub(super) before: Option<String>,
    /// What it is to hold.
    pub(super) after: String,
    /// Who may read it.
    pub(super) readers: Readers,
    /// Where in a client's file the change is.
    pub(super) parts: Vec<Vec<String>>,
}

/// The file beside the configuration that holds what clients knew about their servers.
const SERVERS: &str = "mcp-servers.json";

impl Plan {
    /// Everything but the rules.
    ///
    /// # Errors
    /// What cannot be edited, or would not load.
    pub(super) fn new(gathered: Gathered, loaded: Option<&Config>, config: &Path) -> Result<Self, Failure> {
        let Gathered { sources, moving, mut notes } = gathered;
        let mut edits = Vec::new();
        if !moving.is_empty() {
            edits.push(servers(config, &moving)?);
            edits.push(configuration(config)?);
        }
        let entry = Entry::of(config);
        let names = variables(config, &edits)?;
        for source in sources.iter().filter(|source| !source.leaving.is_empty()) {
            edits.push(client(source, &entry, &names, &mut notes)?);
        }
        if sources.iter().any(|source| Client::of(&source.file) == Client::Goose) {
            notes.push(format!(
                "Goose: run `goose configure`, add an extension of type stdio with the command\n  {} {}\nand switch the others off.",
                entry.command,
                entry.args.join(" ")
            ));
        }
        if loaded.is_some_and(|config| !config.agents.is_empty()) {
            notes.push(
                "Your configuration has [agents]: give each client HOLDFAST_TOKEN in the `env` of its entry."
                    .to_owned(),
            );
        }
        let mut plan = Self { edits, new: Vec::new(), notes, moving, config: config.to_owned() };
        plan.new = plan.checked()?;
        Ok(plan)
    }

    /// Adds the rules for new servers, of which some may have been asked.
    ///
    /// # Errors
    /// Where the configuration would not load with them.
    pub(super) fn write_rules(&mut self, asked: &[Asked], loaded: Option<&Config>) -> Result<(), Failure> {
        let ids: Vec<String> = loaded
            .map(|config| config.policy.rules().iter().map(|rule| rule.id.as_str().to_owned()).collect())
            .unwrap_or_default();
        let mut text = String::new();
        for server in &self.new {
            let moving = self.moving.iter().find(|moving| moving.name == server.name);
            let Some(moving) = moving else { continue };
            let tools = asked.iter().find(|asked| asked.server == server.name);
            let known = Known {
                server: &server.name,
                identity: what(&server.transport),
                tools: tools.and_then(|asked| asked.tools.as_deref().ok()),
                filter: &moving.filter,
            };
            text.push_str(&rules::text(&known, &|id| ids.iter().any(|there| there == id)));
        }
        let Some(edit) = self.edits.iter_mut().find(|edit| edit.file == self.config) else { return Ok(()) };
        edit.after.push_str(&text);
        self.checked().map(drop)
    }

    /// The new servers, as they come out of the files that would be written.
    fn checked(&self) -> Result<Vec<ServerConfig>, Failure> {
        let planned =
            |file: &Path| self.edits.iter().find(|edit| edit.file == file).map(|edit| edit.after.clone());
        let Some(text) = planned(&self.config) else { return Ok(Vec::new()) };
        let open = |file: &Path| planned(file).map_or_else(|| fs::read_to_string(file), Ok);
        let (config, _) = Config::read_with(&self.config, &text, &setup::var, &open).map_err(wrong)?;
        let mut new = Vec::new();
        for moving in &self.moving {
            match config.server(&moving.name) {
                Some(server) if server.transport == moving.transport => new.push(server.clone()),
                _ => {
                    return Err(failed(
                        format!("server `{}` would not be the same behind Holdfast", moving.name),
                        "Please report this, with its entry; until then, move the others with --from FILE.",
                    )
                    .into());
                }
            }
        }
        Ok(new)
    }
}

/// The program or the host: arguments and paths can hold secrets, and this is written where none should stand.
fn what(transport: &Transport) -> String {
    match transport {
        Transport::Stdio { command, .. } => command.clone(),
        Transport::Http { url, .. } => {
            let url = reqwest::Url::parse(url).ok();
            url.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
        }
    }
}

/// The text itself is not on the disk yet, so its places help nobody; what is wrong does.
fn wrong(problems: Vec<Problem>) -> Failure {
    let errors: Vec<Problem> =
        problems.into_iter().filter(|problem| problem.severity == Severity::Error).collect();
    errors.into()
}

impl Edit {
    /// The text as it is shown: without secrets, and nothing in it drives the terminal.
    pub(super) fn shown(&self, text: &str) -> String {
        let masked = if text.is_empty() { String::new() } else { mask::mask(Client::of(&self.file), text) };
        let lines = masked.split('\n').map(|line| {
            line.split('\t').map(|part| visible(part.trim_end_matches('\r'))).collect::<Vec<_>>().join("\t")
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// What is there, or `empty` where nothing is.
fn before(file: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(super::unreadable(file, &error)),
    }
}

fn servers(config: &Path, moving: &[Moving]) -> Result<Edit, Failure> {
    let file = config.with_file_name(SERVERS);
    let before = before(&file)?;
    let mut after = before.clone().unwrap_or_else(|| {
        "// What your clients knew about these servers, secrets included. holdfast.toml imports it.\n{\n  \"mcpServers\": {}\n}\n".to_owned()
    });
    for one in moving {
        after = edit::add(&after, &one.name, &one.members).map_err(|what| uneditable(&file, &what))?;
    }
    Ok(Edit { file, before, after, readers: Readers::Owner, parts: Vec::new() })
}

const HEAD: &str = "\
# Written by `holdfast init`, yours to change. `holdfast check` finds mistakes, `holdfast explain SERVER TOOL` says what
# would happen to a call, and `holdfast doctor` what is wrong with the rest.
version = 1

[import]
mcp_servers = [\"mcp-servers.json\"]   # the servers, as your clients had them; their secrets stay there

[defaults]
effect = \"ask\"   # a tool that no rule names waits for a person: `holdfast pending`, or the page in the browser
";

fn configuration(config: &Path) -> Result<Edit, Failure> {
    let before = before(config)?;
    let after = match &before {
        None => HEAD.to_owned(),
        Some(text) => importing(text).map_err(|what| uneditable(config, &what))?,
    };
    Ok(Edit { file: config.to_owned(), before, after, readers: Readers::Same, parts: Vec::new() })
}

/// The configuration with our file in `[import]`.
fn importing(text: &str) -> Result<String, String> {
    let mut file: toml_edit::DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| error.message().to_owned())?;
    let import = file.entry("import").or_insert_with(toml_edit::table);
    let import = import.as_table_like_mut().ok_or("`import` is no table")?;
    let files = import.entry("mcp_servers").or_insert_with(|| toml_edit::value(toml_edit::Array::new()));
    let files = files.as_array_mut().ok_or("`import.mcp_servers` is no list")?;
    let is_there = files.iter().any(|file| file.as_str() == Some(SERVERS));
    if !is_there {
        files.push(SERVERS);
    }
    let mut text = if is_there { text.to_owned() } else { file.to_string() };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// The variables that Holdfast will need where a client starts it.
fn variables(config: &Path, edits: &[Edit]) -> Result<BTreeSet<String>, Failure> {
    let text = |file: &Path| match edits.iter().find(|edit| edit.file == file) {
        Some(edit) => Ok(edit.after.clone()),
        None => before(file).map(Option::unwrap_or_default),
    };
    Ok(passed::names(&text(config)?, &text(&config.with_file_name(SERVERS))?))
}

fn client(
    source: &Source,
    entry: &Entry,
    names: &BTreeSet<String>,
    notes: &mut Vec<String>,
) -> Result<Edit, Failure> {
    let kind = Client::of(&source.file);
    let entry = &Entry { passed: passed::pass(source.client, kind, names), ..entry.clone() };
    if entry.passed.is_none() && !names.is_empty() {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        notes.push(format!(
            "{} does not pass on variables: Holdfast needs {} where it starts it; write them into the `env` of its entry.",
            source.client,
            names.join(", ")
        ));
    }
    let after = edit::point(kind, &source.text, &source.leaving, entry)
        .map_err(|what| uneditable(&source.file, &what))?;
    if setup::clients::is_shared(&source.file) {
        notes.push(format!(
            "{} may be shared through git, and would then start {} for everybody: keep the change to yourself.",
            source.file.display(),
            entry.command
        ));
    }
    let (file, before) = (source.file.clone(), Some(source.text.clone()));
    let mut parts: Vec<Vec<String>> = source.leaving.iter().map(|leaving| leaving.path.clone()).collect();
    parts.dedup();
    Ok(Edit { file, before, after, readers: Readers::Same, parts })
}

fn uneditable(file: &Path, what: &str) -> Failure {
    failed(
        format!("{} cannot be edited: {what}", file.display()),
        "Mend the file, or leave it out: --from FILE.",
    )
    .into()
}
