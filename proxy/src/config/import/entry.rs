//! One server of a client's file, as we reach it.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use holdfast_policy::{Problem, Severity};
use reqwest::Url;

use super::{
    super::servers::{self, Hears, Transport},
    dialect::{Client, Listed},
    tree::{self, Data, Member, Node},
    variables::{self, Scope},
};

/// What an entry comes to.
#[derive(Debug)]
pub(crate) enum Meaning {
    /// A server.
    Server(Transport),
    /// Holdfast itself.
    Ourselves,
    /// Nothing that can be used here; the problems say why.
    Nothing,
}

/// Where an entry stands, and what it may refer to.
pub(super) struct Around<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
    pub(super) client: Client,
    /// Where relative paths start.
    pub(super) folder: &'a Path,
    pub(super) vars: &'a dyn Fn(&str) -> Option<String>,
    /// Our own address.
    pub(super) mcp: Option<SocketAddr>,
}

struct Entry<'a> {
    around: &'a Around<'a>,
    listed: &'a Listed<'a>,
    problems: RefCell<Vec<Problem>>,
}

/// What `listed` means, and what is wrong with it.
pub(super) fn read(listed: &Listed<'_>, around: &Around<'_>) -> (Meaning, Vec<Problem>) {
    let entry = Entry { around, listed, problems: RefCell::default() };
    let meaning = entry.meaning();
    let mut problems = entry.problems.into_inner();
    problems.sort_by_key(|problem| (problem.line, problem.column));
    (meaning, problems)
}

/// By what word a server says how it is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unsaid,
    Stdio,
    Http,
    Sse,
    BuiltIn,
}

impl Entry<'_> {
    fn meaning(&self) -> Meaning {
        let Data::Table(_) = self.node().data else {
            self.say_at(
                &self.node().at.clone(),
                Severity::Error,
                format!("`{}` is no table of settings", self.name()),
                "write { \"command\": \"program\" } or { \"url\": \"https://...\" }".to_owned(),
            );
            return Meaning::Nothing;
        };
        let kind = self.kind();
        if kind == Kind::BuiltIn {
            let message = format!("`{}` is built into its client, so there is nothing to reach", self.name());
            self.warn("", message, "it stays where it is");
            return Meaning::Nothing;
        }
        let address =
            ["httpUrl", "serverUrl", "url", "uri"].into_iter().find(|key| self.node().get(key).is_some());
        let command = ["command", "cmd"].into_iter().find(|key| self.node().get(key).is_some());
        let transport = match (command, address) {
            (Some(command), None) => self.process(command),
            (None, Some(url)) => self.web(url),
            (Some(command), Some(_)) if kind == Kind::Stdio => self.process(command),
            (Some(_), Some(url)) if kind != Kind::Unsaid => self.web(url),
            (Some(_), Some(url)) => {
                self.problem(
                    url,
                    "`command` and `url` are both given",
                    "delete one: a server has one way to it",
                );
                None
            }
            (None, None) => {
                let message = format!("`{}` says neither how to start nor where to find it", self.name());
                self.problem("", message, "write \"command\": \"program\" or \"url\": \"https://...\"");
                None
            }
        };
        match transport {
            Some(transport) if is_ourselves(&transport, self.around.mcp) => Meaning::Ourselves,
            Some(transport) => {
                self.warn_unused();
                Meaning::Server(transport)
            }
            None => Meaning::Nothing,
        }
    }

    fn kind(&self) -> Kind {
        let said = self.node().get("type").or_else(|| self.node().get("transport"));
        match said.and_then(Node::text) {
            None => Kind::Unsaid,
            Some("stdio" | "local") => Kind::Stdio,
            Some("http" | "streamable-http" | "streamableHttp" | "streamable_http" | "remote") => Kind::Http,
            Some("sse") => Kind::Sse,
            Some("builtin" | "platform" | "frontend" | "inline_python")
                if self.around.client == Client::Goose =>
            {
                Kind::BuiltIn
            }
            Some(other) => {
                let message =
                    format!("`{other}` is no known way to a server, so it was guessed by the other fields");
                self.warn("type", message, "write \"stdio\", \"http\" or \"sse\"");
                Kind::Unsaid
            }
        }
    }

    fn process(&self, key: &str) -> Option<Transport> {
        let command = self.text(key);
        let args = self.list("args");
        let mut env = self.env_file();
        env.extend(self.map(if self.node().get("envs").is_some() { "envs" } else { "env" }));
        self.named_variables(&mut env);
        let env = servers::environment(self, env);
        let folder = self.folder();
        let cwd = match self.text("cwd") {
            Some(cwd) => Some(folder.join(self.at_home(&cwd))),
            None => self.listed.project.clone(),
        };
        let command = self.at_home(&command?);
        Some(Transport::Stdio { command: servers::program(self, command, &folder)?, args, env, cwd })
    }

    fn web(&self, key: &str) -> Option<Transport> {
        let mut headers = self.map("headers");
        headers.extend(self.map("http_headers"));
        self.codex_headers(&mut headers);
        let headers = servers::fields(self, headers);
        let url = servers::address(self, &self.text(key)?)?;
        Some(Transport::Http { url, headers })
    }

    /// Codex and Goose name variables that are passed on.
    fn named_variables(&self, env: &mut BTreeMap<String, String>) {
        for key in ["env_vars", "env_keys"] {
            for name in self.list(key) {
                match (self.around.vars)(&name) {
                    Some(value) => _ = env.insert(name, value),
                    None if env.contains_key(&name) => {}
                    None if key == "env_keys" => {
                        let message = format!("the environment variable `{name}` is not set");
                        let hint = format!("Goose keeps it in its keyring: set {name} where holdfast runs");
                        self.warn(key, message, hint);
                    }
                    None => {}
                }
            }
        }
    }

    /// Codex names the variable instead of the value.
    fn codex_headers(&self, headers: &mut BTreeMap<String, String>) {
        let mut named: Vec<(&str, String, String, &str)> = Vec::new();
        if let Some(variable) = self.text("bearer_token_env_var") {
            named.push(("bearer_token_env_var", "Authorization".to_owned(), variable, "Bearer "));
        }
        for (header, variable) in self.map("env_http_headers") {
            named.push(("env_http_headers", header, variable, ""));
        }
        for (key, header, variable, prefix) in named {
            match (self.around.vars)(&variable) {
                Some(value) => _ = headers.insert(header, format!("{prefix}{value}")),
                None => {
                    let (message, _) = variables::unset(&variable);
                    self.problem(key, message, format!("set {variable} where holdfast runs"));
                }
            }
        }
    }

    /// The variables of an `envFile`.
    fn env_file(&self) -> BTreeMap<String, String> {
        let Some(name) = self.text("envFile") else { return BTreeMap::new() };
        let path = self.folder().join(self.at_home(&name));
        match std::fs::read_to_string(&path) {
            Ok(text) => text.lines().filter_map(assignment).collect(),
            Err(error) => {
                let message = format!("{} cannot be read: {error}", path.display());
                self.problem("envFile", message, "correct the path, or delete it here");
                BTreeMap::new()
            }
        }
    }

    fn warn_unused(&self) {
        for member in self.node().members() {
            let key = member.key.as_str();
            if UNDERSTOOD.contains(&key) || matches!(member.node.data, Data::Null) {
                continue;
            }
            let hint = match key {
                "timeout" | "tool_timeout_sec" | "startup_timeout_sec" | "startup_timeout_ms" | "initTimeout" => {
                    "how long a call may take is `attempt_timeout` of [defaults] or of a [[rule]]".to_owned()
                }
                "trust" | "alwaysAllow" | "autoApprove" | "always_allow" => {
                    "what may be called without a question is for a [[rule]] with effect = \"allow\"".to_owned()
                }
                "includeTools" | "enabled_tools" | "available_tools" => {
                    "forbid the others: a [[rule]] with effect = \"deny\" for each".to_owned()
                }
                "excludeTools" | "disabled_tools" | "disabledTools" => {
                    let tools = self.list(key).join(",");
                    format!("forbid them: [[rule]] with effect = \"deny\", server = \"...\", tool = \"{{{tools}}}\"")
                }
                "oauth" | "auth" | "authProviderType" | "scopes" | "oauth_resource" | "headersHelper" => {
                    "who signs in is Holdfast now, not this client".to_owned()
                }
                _ => "what Holdfast has for it stands in holdfast.toml: [servers.NAME], [defaults] and [[rule]]".to_owned(),
            };
            self.warn(key, format!("`{key}` of an imported server has no effect here"), hint);
        }
    }

    fn name(&self) -> &str {
        &self.listed.member.key
    }

    fn node(&self) -> &Node {
        &self.listed.member.node
    }

    fn folder(&self) -> PathBuf {
        self.listed.project.clone().unwrap_or_else(|| self.around.folder.to_owned())
    }

    fn at_home(&self, path: &str) -> String {
        match (path.strip_prefix("~/"), (self.around.vars)("HOME")) {
            (Some(rest), Some(home)) => format!("{home}/{rest}"),
            _ => path.to_owned(),
        }
    }

    fn text(&self, key: &str) -> Option<String> {
        let node = self.node().get(key)?;
        match &node.data {
            Data::Text(text) => self.expanded(node, text),
            _ => self.misshapen(key, node, "\"text\""),
        }
    }

    fn list(&self, key: &str) -> Vec<String> {
        let Some(node) = self.node().get(key) else { return Vec::new() };
        let Data::List(items) = &node.data else {
            return self.misshapen(key, node, "[\"text\", \"text\"]").unwrap_or_default();
        };
        let item = |item: &Node| match self.word(item) {
            Some(word) => self.expanded(item, &word),
            None => self.misshapen(key, item, "texts"),
        };
        items.iter().filter_map(item).collect()
    }

    fn map(&self, key: &str) -> BTreeMap<String, String> {
        let Some(node) = self.node().get(key) else { return BTreeMap::new() };
        let Data::Table(members) = &node.data else {
            return self.misshapen(key, node, "{ \"NAME\": \"text\" }").unwrap_or_default();
        };
        let pair = |member: &Member| {
            let value = match self.word(&member.node) {
                Some(word) => self.expanded(&member.node, &word),
                None => self.misshapen(key, &member.node, "texts"),
            };
            Some((member.key.clone(), value?))
        };
        let given = members.iter().filter(|member| !matches!(member.node.data, Data::Null));
        given.filter_map(pair).collect()
    }

    /// Clients take numbers for texts where only texts make sense.
    fn word(&self, node: &Node) -> Option<String> {
        match &node.data {
            Data::Text(text) | Data::Number(text) => Some(text.clone()),
            Data::Boolean(value) => Some(value.to_string()),
            _ => None,
        }
    }

    fn expanded(&self, node: &Node, text: &str) -> Option<String> {
        let project = self.listed.project.as_deref();
        let scope = Scope { vars: self.around.vars, project, bare: self.around.client.bare() };
        variables::expand(text, scope)
            .map_err(|(message, hint)| self.say_at(&node.at, Severity::Error, message, hint))
            .ok()
    }

    fn misshapen<T>(&self, key: &str, node: &Node, shape: &str) -> Option<T> {
        let source = self.around.text.get(node.at.clone()).unwrap_or_default();
        let like = if source.len() <= 40 && !source.contains('\n') { source } else { "this" };
        let path = self.listed.path.join(".");
        let message = format!("`{path}.{}.{key}` cannot be {like}", self.name());
        self.say_at(&node.at, Severity::Error, message, format!("write {shape}"));
        None
    }

    fn say(&self, key: &str, severity: Severity, message: String, hint: String) {
        let at = match self.node().member(key) {
            Some(member) if matches!(member.node.data, Data::Table(_)) => member.key_at.clone(),
            Some(member) => member.node.at.clone(),
            None => self.node().at.clone(),
        };
        self.say_at(&at, severity, message, hint);
    }

    fn say_at(&self, at: &std::ops::Range<usize>, severity: Severity, message: String, hint: String) {
        let around = self.around;
        let problem = tree::problem(around.file, around.text, at.start, (severity, message, hint));
        let mut problems = self.problems.borrow_mut();
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
}

impl Hears for Entry<'_> {
    fn problem(&self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.say(key, Severity::Error, message.into(), hint.into());
    }

    fn warn(&self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.say(key, Severity::Warning, message.into(), hint.into());
    }
}

/// What was read, and what says nothing to a proxy.
const UNDERSTOOD: [&str; 35] = [
    "type",
    "transport",
    "disabled",
    "enabled",
    "command",
    "cmd",
    "args",
    "env",
    "envs",
    "env_vars",
    "env_keys",
    "envFile",
    "cwd",
    "url",
    "uri",
    "headers",
    "httpUrl",
    "serverUrl",
    "http_headers",
    "bearer_token_env_var",
    "env_http_headers",
    "description",
    "gallery",
    "version",
    "name",
    "display_name",
    "icon",
    "bundled",
    "required",
    "dev",
    "note",
    "alwaysLoad",
    "tags",
    "metadata",
    "$schema",
];

/// A line of an `envFile`: `NAME=value`, quotes around the value allowed, `#` begins a comment line.
fn assignment(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
    let value = value.trim();
    let unquoted = ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
    (!line.starts_with('#')).then(|| (name.trim().to_owned(), unquoted.unwrap_or(value).to_owned()))
}

/// A client that uses Holdfast may have it in the very file that Holdfast imports.
fn is_ourselves(transport: &Transport, mcp: Option<SocketAddr>) -> bool {
    match transport {
        Transport::Stdio { command, args, .. } => {
            let program = Path::new(command).file_stem().is_some_and(|stem| stem == "holdfast");
            program && args.iter().any(|arg| arg == "stdio" || arg == "serve")
        }
        Transport::Http { url, .. } => Url::parse(url).is_ok_and(|url| {
            let port = url.port_or_known_default();
            servers::is_loopback(&url) && mcp.is_some_and(|mcp| mcp.port() != 0 && port == Some(mcp.port()))
        }),
    }
}
