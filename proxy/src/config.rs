//! `holdfast.toml` and the files it imports, turned into checked values before any port is bound.
//!
//! Everything is read through [`holdfast_policy::Section`], so that each problem names its file, line and what to
//! write instead, and all of them are reported at once.

mod current;
mod find;
pub(crate) mod import;
mod intake;
mod listen;
mod notify;
mod people;
mod proxy;
mod reach;
mod servers;
mod store;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use holdfast_policy::{Approver, Document, Policy, Problem, Severity};

pub(crate) use self::{
    current::Current,
    intake::Intake,
    listen::Listen,
    notify::{Reach, Secret, SinkConfig, Way},
    people::{Agent, Operator, Role},
    proxy::TrustedProxy,
    reach::{Grant, Http, OAuth, Patience},
    servers::{Breaker, ServerConfig, Share, Tasks, Transport},
    store::{Place, StoreConfig},
};

/// A whole configuration, checked.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Where to listen.
    pub(crate) listen: Listen,
    /// Who stands before the inbox and is believed.
    pub(crate) trusted_proxy: Option<TrustedProxy>,
    /// The journal.
    pub(crate) store: StoreConfig,
    /// Who may call; without any, everybody on this machine is `local`.
    pub(crate) agents: Vec<Agent>,
    /// Who may decide; without any, `serve` makes a token.
    pub(crate) operators: Vec<Operator>,
    /// Limits on what is taken in.
    pub(crate) intake: Intake,
    /// The MCP servers, in the order of the file, imported ones last.
    pub(crate) servers: Vec<ServerConfig>,
    /// Who is told that a person is needed.
    pub(crate) notify: Vec<SinkConfig>,
    /// The rules.
    pub(crate) policy: Arc<Policy>,
    /// The file, as an absolute path.
    pub(crate) file: PathBuf,
    /// The files that it imports.
    pub(crate) imported: Vec<PathBuf>,
}

impl Config {
    /// Reads the file at `path`; without one, `./holdfast.toml` or the user's own. Variables come from the environment.
    ///
    /// Returns the warnings with the configuration.
    ///
    /// # Errors
    /// Every problem that was found, warnings included; at least one is an error.
    pub(crate) fn load(path: Option<&Path>) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let file = find::file(path, &|name| std::env::var_os(name)).map_err(|problem| vec![problem])?;
        let text = std::fs::read_to_string(&file).map_err(|error| vec![find::unreadable(&file, &error)])?;
        // A variable that is not UTF-8 cannot stand in a text: it counts as unset.
        Self::read(&file, &text, &|name| std::env::var(name).ok())
    }

    /// Reads `text` as the content of `file`, whose directory is what relative paths start from.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub(crate) fn read(
        file: &Path,
        text: &str,
        vars: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        Self::read_with(file, text, vars, &import::open)
    }

    /// The same, where imported files come from `open`: they need not be written yet.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub(crate) fn read_with(
        file: &Path,
        text: &str,
        vars: &dyn Fn(&str) -> Option<String>,
        open: &dyn Fn(&Path) -> std::io::Result<String>,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let document = Document::parse(&file.display().to_string(), text, vars)?;
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let base = file.parent().unwrap_or(Path::new("/"));
        let mut problems = Vec::new();
        let config = read_document(&document, &Sources { base, vars, open }, &mut problems);
        problems.splice(0..0, document.into_problems());
        match config {
            Some(config) if problems.iter().all(|problem| problem.severity == Severity::Warning) => {
                let mut config = Self { file, ..config };
                config.keep_tokens();
                Ok((config, problems))
            }
            _ => Err(problems),
        }
    }

    /// Tokens of servers are kept beside the journal.
    pub(crate) fn keep_tokens(&mut self) {
        let Place::Redb(journal) = &self.store.place else { return };
        let mut name = journal.clone().into_os_string();
        name.push(".oauth.json");
        let vault = PathBuf::from(name);
        self.servers.iter_mut().for_each(|server| server.http.oauth.vault = Some(vault.clone()));
    }

    /// The server of that name.
    pub(crate) fn server(&self, name: &str) -> Option<&ServerConfig> {
        self.servers.iter().find(|server| server.name == name)
    }
}

/// Where the configuration is, or would be written: `given`, else `./holdfast.toml` where there is one, else the user's own.
pub(crate) fn place(given: Option<&Path>) -> PathBuf {
    let found = find::file(given, &|name| std::env::var_os(name)).ok();
    let file = found.or_else(|| find::own(&|name| std::env::var_os(name)));
    let file = file.unwrap_or_else(|| PathBuf::from("holdfast.toml"));
    std::path::absolute(&file).unwrap_or(file)
}

/// The file and its journal, for commands that only look for the running `serve`: the rest is not read, and variables
/// that are not set here, such as tokens of servers, do not matter.
///
/// # Errors
/// Where there is no file, or it does not say where the journal is.
pub(crate) fn locate(path: Option<&Path>) -> Result<(PathBuf, StoreConfig), Vec<Problem>> {
    let file = find::file(path, &|name| std::env::var_os(name)).map_err(|problem| vec![problem])?;
    let text = std::fs::read_to_string(&file).map_err(|error| vec![find::unreadable(&file, &error)])?;
    let vars = |name: &str| Some(std::env::var(name).unwrap_or_default());
    let document = Document::parse(&file.display().to_string(), &text, &vars)?;
    let file = std::path::absolute(&file).unwrap_or(file);
    let store = store::read(&document.root(), file.parent().unwrap_or(Path::new("/")));
    match store {
        Some(store) if !document.has_errors() => Ok((file, store)),
        _ => Err(document.into_problems()),
    }
}

/// Where a configuration takes what does not stand in it.
struct Sources<'a> {
    base: &'a Path,
    vars: &'a dyn Fn(&str) -> Option<String>,
    open: &'a dyn Fn(&Path) -> std::io::Result<String>,
}

/// `imported` gets the problems of other files; those of the document stay in it.
fn read_document(document: &Document, sources: &Sources<'_>, imported: &mut Vec<Problem>) -> Option<Config> {
    let Sources { base, vars, open } = *sources;
    let root = document.root();
    match root.integer("version") {
        Some(1) => {}
        Some(_) => root.problem("version", "this version of the file is not known", "write version = 1"),
        None if root.has("version") => {}
        None => root.problem("version", "the file does not say its version", "begin it with version = 1"),
    }
    let operators = people::operators(&root);
    let agents = people::agents(&root, &operators);
    let (listen, trusted_proxy) = listen::read(&root).unzip();
    let store = store::read(&root, base);
    let intake = intake::read(&root);
    let servers = servers::read(
        &root,
        &servers::Surroundings { base, vars, mcp: listen.as_ref().map(|listen| listen.mcp), open },
        imported,
    );
    let notify = notify::read(&root, base, listen.as_ref());
    let policy = Policy::load(&root);
    root.finish();
    // Of a file with errors it is not known yet what it names.
    if !document.has_errors() {
        check_policy(document, &policy, &servers, &operators);
    }
    Some(Config {
        listen: listen?,
        trusted_proxy: trusted_proxy.flatten(),
        store: store?,
        agents,
        operators,
        intake,
        servers,
        notify,
        policy: Arc::new(policy),
        file: PathBuf::new(),
        imported: import::files(&root, base, vars),
    })
}

/// Rules that name what does not exist are probably misspelt.
fn check_policy(document: &Document, policy: &Policy, servers: &[ServerConfig], operators: &[Operator]) {
    let known: Vec<(String, Option<String>)> =
        servers.iter().map(|server| (server.name.clone(), None)).collect();
    policy.unmatched(&known).into_iter().for_each(|problem| document.record(problem));
    for rule in policy.rules() {
        let approvers = rule.gate.iter().flat_map(|gate| &gate.approvers);
        for approver in approvers.filter(|approver| !operators.iter().any(|one| is_meant(approver, one))) {
            let hint = match approver {
                Approver::Group(group) => format!("write groups = [\"{group}\"] in [operators.NAME]"),
                Approver::Operator(name) => format!("write [operators.{name}] with a token"),
            };
            let message =
                format!("rule `{}` asks {approver}, which no operator is: nobody can approve", rule.id);
            document.record(rule.places.rule.problem(Severity::Warning, message, hint));
        }
    }
}

fn is_meant(approver: &Approver, operator: &Operator) -> bool {
    let decides = operator.role >= Role::Approver;
    decides
        && match approver {
            Approver::Group(group) => operator.groups.contains(group),
            Approver::Operator(name) => operator.name == *name,
        }
}

#[cfg(test)]
mod tests;
