//! `[servers.*]`: what is spoken to, and how. Imported servers pass the same checks.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::http::{HeaderName, HeaderValue};
use holdfast_policy::{Problem, Section};
use reqwest::Url;

use super::{
    import,
    reach::{self, Http, Patience},
};

/// One MCP server behind us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerConfig {
    /// Its name: letters, digits, `-` and single `_` inside; tools are `name__tool`.
    pub(crate) name: String,
    /// How it is reached.
    pub(crate) transport: Transport,
    /// Whether its names are shown as `name__tool`; else as they are, where nobody else has them.
    pub(crate) prefix: bool,
    /// Where it is reached by HTTP: which transport, and how we sign in.
    pub(crate) http: Http,
    /// Who shares a process or session.
    pub(crate) share: Share,
    /// Whether `readOnlyHint` and `idempotentHint` of its tools count.
    pub(crate) trust_annotations: bool,
    /// JSON-RPC error codes and HTTP statuses by which it says that it executed nothing.
    pub(crate) unexecuted: Vec<i64>,
    /// For whom it makes tasks of calls.
    pub(crate) tasks: Tasks,
    /// When it is left alone for a while.
    pub(crate) breaker: Breaker,
    /// How long it may say nothing.
    pub(crate) patience: Patience,
}

impl ServerConfig {
    /// Only a name and how it is reached, the rest as by default.
    pub(crate) fn plain(name: String, transport: Transport) -> Self {
        Self {
            name,
            transport,
            prefix: true,
            http: Http::default(),
            share: Share::All,
            trust_annotations: false,
            unexecuted: Vec::new(),
            tasks: Tasks::Agents,
            breaker: Breaker::default(),
            patience: Patience::default(),
        }
    }

    /// Command line or URL: never the values of headers or of the environment.
    pub(crate) fn identity(&self) -> String {
        self.transport.to_string()
    }
}

/// How a server is reached.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Transport {
    /// A child process on pipes.
    Stdio {
        /// A program in `PATH`, or an absolute path. No shell.
        command: String,
        /// Its arguments.
        args: Vec<String>,
        /// What its environment has besides the documented minimum.
        env: Vec<(String, String)>,
        /// Its working directory, as an absolute path.
        cwd: Option<PathBuf>,
    },
    /// Streamable HTTP.
    Http {
        /// `http` or `https`.
        url: String,
        /// Sent with each request.
        headers: Vec<(String, String)>,
    },
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Stdio { command, args, .. } = self else {
            let Self::Http { url, .. } = self else { return Ok(()) };
            return f.write_str(url);
        };
        f.write_str(&word(command))?;
        args.iter().try_for_each(|arg| write!(f, " {}", word(arg)))
    }
}

/// Secrets stand in headers and environments, so they are left out.
impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transport({self})")
    }
}

/// Two different lists of arguments never print the same.
fn word(arg: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,~".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) { arg.to_owned() } else { format!("{arg:?}") }
}

/// Who shares a process or session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// One for all agents.
    All,
    /// One for each channel.
    Session,
    /// One for each principal.
    Principal,
}

/// For whom a server makes tasks of calls, where it can (extension Tasks of 2026-07-28).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tasks {
    /// Agents that know tasks, which are theirs then.
    Agents,
    /// Everybody: Holdfast waits for the tasks of those who know none.
    Use,
}

/// After `failures` failures of the transport within `window_ms` calls are refused for `open_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Breaker {
    /// How many.
    pub(crate) failures: u32,
    /// Within which time, in milliseconds.
    pub(crate) window_ms: u64,
    /// For how long, in milliseconds.
    pub(crate) open_ms: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 5, window_ms: 30_000, open_ms: 15_000 }
    }
}

/// What reading a server needs to know besides its own table.
pub(super) struct Surroundings<'a> {
    /// Where relative paths start.
    pub(super) base: &'a Path,
    /// The environment.
    pub(super) vars: &'a dyn Fn(&str) -> Option<String>,
    /// Our own address, which must not stand behind ourselves.
    pub(super) mcp: Option<SocketAddr>,
    /// Reads an imported file.
    pub(super) open: &'a dyn Fn(&Path) -> io::Result<String>,
}

/// Who hears what is wrong with a server: a table of our own file, or an entry of an imported one.
pub(super) trait Hears {
    /// An error at `key`.
    fn problem(&self, key: &str, message: impl Into<String>, hint: impl Into<String>);
    /// A warning, likewise.
    fn warn(&self, key: &str, message: impl Into<String>, hint: impl Into<String>);
}

impl Hears for Section<'_> {
    fn problem(&self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        Section::problem(self, key, message, hint);
    }

    fn warn(&self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        Section::warn(self, key, message, hint);
    }
}

/// An aggregated name `server__tool` has at most 128 characters; this leaves at least half of them to the tool.
pub(super) const LONGEST_NAME: usize = 62;

/// `problems` gets those of imported files; the others are recorded in the document.
pub(super) fn read(
    root: &Section<'_>,
    around: &Surroundings<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<ServerConfig> {
    let mut imported = import::read(root, around, problems);
    let mut servers = Vec::new();
    for (name, section) in root.named("servers") {
        if let Err((what, hint)) = check_name(&name) {
            section.problem("", format!("`{name}` cannot be the name of a server: {what}"), hint);
        }
        let same = imported.iter().position(|server| server.name == name).map(|at| imported.remove(at));
        let own = ["command", "url"].iter().any(|key| section.has(key));
        let imported_old = same.as_ref().is_some_and(|same| same.http.old);
        let transport = match same {
            Some(same) if !own => Some(same.transport),
            Some(_) => {
                section.problem(
                    "",
                    format!("`{name}` is also imported: which of the two is meant would be a guess"),
                    "rename one, or delete `command` and `url` here to give settings to the imported one",
                );
                None
            }
            None => transport(&section, around),
        };
        let mut server = settings(&section, name, transport);
        if let Some(server) = &mut server {
            server.http.old |= imported_old;
        }
        section.finish();
        servers.extend(server);
    }
    servers.extend(imported);
    servers
}

fn settings(section: &Section<'_>, name: String, transport: Option<Transport>) -> Option<ServerConfig> {
    let choices = [("all", Share::All), ("session", Share::Session), ("principal", Share::Principal)];
    let share = section.one_of("share", &choices).unwrap_or(Share::All);
    let http = reach::http(section, transport.as_ref());
    let prefix = section.boolean("prefix").unwrap_or(true);
    let trust_annotations = section.boolean("trust_annotations").unwrap_or(false);
    let unexecuted = codes(section);
    let tasks = section.one_of("tasks", &[("agents", Tasks::Agents), ("use", Tasks::Use)]);
    let breaker = breaker(section);
    let patience = reach::patience(section);
    Some(ServerConfig {
        name,
        transport: transport?,
        prefix,
        http,
        share,
        trust_annotations,
        unexecuted,
        tasks: tasks.unwrap_or(Tasks::Agents),
        breaker,
        patience,
    })
}

/// What is wrong with a name, and what to do. With these rules `a__b` + `c` and `a` + `b__c` cannot meet: the first
/// `__` of an aggregated name always ends the server's part.
pub(super) fn check_name(name: &str) -> Result<(), (&'static str, &'static str)> {
    let rename = "use letters, digits, `-` and single `_`, beginning and ending with a letter or digit";
    let known = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || !name.chars().all(known) {
        return Err(("it has other characters than A-Z a-z 0-9 _ -", rename));
    }
    if name.contains("__") || name.starts_with('_') || name.ends_with('_') {
        return Err(("`__` separates server and tool in `server__tool`", rename));
    }
    if name.len() > LONGEST_NAME {
        return Err(("`server__tool` would be longer than 128 characters", "use at most 62 characters"));
    }
    if name == "holdfast" {
        return Err(("it is the name of Holdfast itself", "use another name"));
    }
    Ok(())
}

/// `command`, `args`, `env`, `cwd`, or `url`, `headers`.
pub(super) fn transport(section: &Section<'_>, around: &Surroundings<'_>) -> Option<Transport> {
    let command = section.string("command");
    let args = section.strings("args");
    let env = section.string_map("env");
    let cwd = section.string("cwd");
    let url = section.string("url");
    let headers = section.string_map("headers");
    match (section.has("command"), section.has("url")) {
        (true, true) => {
            section.problem(
                "url",
                "`command` and `url` are both given",
                "delete one: a server has one way to it",
            );
            None
        }
        (false, false) => {
            section.problem(
                "",
                format!("`{}` says neither how to start nor where to find it", section.path()),
                "write command = \"program\" or url = \"https://...\"",
            );
            None
        }
        (true, false) => {
            misplaced(section, &["headers"], "a server with `command` has no headers", "use `env`");
            let env = environment(section, env.unwrap_or_default());
            let cwd = cwd.map(|cwd| around.base.join(cwd));
            Some(Transport::Stdio {
                command: program(section, command?, around.base)?,
                args: args.unwrap_or_default(),
                env,
                cwd,
            })
        }
        (false, true) => {
            misplaced(
                section,
                &["args", "env", "cwd"],
                "a server with `url` starts no process",
                "delete it, or use `command`",
            );
            let headers = fields(section, headers.unwrap_or_default());
            let url = address(section, &url?)?;
            Some(Transport::Http { url, headers })
        }
    }
}

fn misplaced(section: &Section<'_>, keys: &[&str], message: &str, hint: &str) {
    for key in keys.iter().filter(|key| section.has(key)) {
        section.problem(key, message, hint);
    }
}

/// A program in `PATH`, or an absolute path.
pub(super) fn program(section: &impl Hears, command: String, base: &Path) -> Option<String> {
    if command.trim().is_empty() || command.contains('\0') {
        section.problem("command", "`command` names no program", "write the program's name or path");
        return None;
    }
    let path = Path::new(&command);
    let is_path = path.components().count() > 1 && path.is_relative();
    let command = if is_path { base.join(path).display().to_string() } else { command };
    if command.contains(char::is_whitespace) && !Path::new(&command).exists() {
        let mut words = command.split_whitespace();
        let program = words.next().unwrap_or_default().to_owned();
        let args: Vec<String> = words.map(|word| format!("\"{word}\"")).collect();
        section.warn(
            "command",
            "`command` is one program, without arguments and without a shell",
            format!("write command = \"{program}\" and args = [{}]", args.join(", ")),
        );
    }
    Some(command)
}

pub(super) fn environment(section: &impl Hears, env: BTreeMap<String, String>) -> Vec<(String, String)> {
    for (name, value) in &env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            section.problem(
                "env",
                format!("{name:?} cannot be set in an environment"),
                "use NAME = \"text\"",
            );
        }
    }
    env.into_iter().collect()
}

/// What the transport itself sends; a second value would confuse both sides.
const OURS: [&str; 8] = [
    "accept",
    "connection",
    "content-length",
    "content-type",
    "host",
    "mcp-protocol-version",
    "mcp-session-id",
    "transfer-encoding",
];

pub(super) fn fields(section: &impl Hears, headers: BTreeMap<String, String>) -> Vec<(String, String)> {
    for (name, value) in &headers {
        if HeaderName::try_from(name).is_err() {
            section.problem(
                "headers",
                format!("{name:?} cannot be the name of a header"),
                "use letters, digits and -",
            );
        } else if HeaderValue::try_from(value).is_err() {
            let message =
                format!("the value of the header `{name}` has characters that a header cannot carry");
            section.problem("headers", message, "check that the variable holds no line break");
        } else if OURS.contains(&name.to_ascii_lowercase().as_str()) {
            section.problem(
                "headers",
                format!("Holdfast itself sends the header `{name}`"),
                "delete it here",
            );
        }
    }
    headers.into_iter().collect()
}

pub(super) fn address(section: &impl Hears, text: &str) -> Option<String> {
    let shape = "write \"https://host/path\" or \"http://127.0.0.1:PORT/path\"";
    let Ok(url) = Url::parse(text.trim()) else {
        section.problem("url", "`url` is not an address", shape);
        return None;
    };
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        section.problem("url", format!("`{}:` is not a way to an MCP server", url.scheme()), shape);
        return None;
    }
    if !url.username().is_empty() || url.password().is_some() {
        section.problem(
            "url",
            "credentials in a URL end up in logs",
            "write headers = { Authorization = \"Bearer ${TOKEN}\" }",
        );
        return None;
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        section.warn(
            "url",
            "http to another machine: anybody on the way can read and change calls",
            "use https",
        );
    }
    Some(url.to_string())
}

pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn codes(section: &Section<'_>) -> Vec<i64> {
    let shape = "write error codes or HTTP statuses: [429, -32000]";
    let Some(value) = section.value("unexecuted") else { return Vec::new() };
    let codes: Option<Vec<i64>> =
        value.as_array().and_then(|items| items.iter().map(serde_json::Value::as_i64).collect());
    let Some(codes) = codes else {
        section.problem("unexecuted", "`unexecuted` is a list of whole numbers", shape);
        return Vec::new();
    };
    for (index, code) in codes.iter().enumerate() {
        let lost = matches!(code, -32603 | 500..=599);
        if (0..400).contains(code) {
            section.problem_in(
                "unexecuted",
                index,
                format!("{code} is neither an error code nor an HTTP error"),
                shape,
            );
        } else if lost {
            // A server may really promise this; but -32603 and 5xx usually come after the work was begun.
            section.warn(
                "unexecuted",
                format!("{code} usually says nothing about whether the tool was executed"),
                "list it only if the server's documentation promises it",
            );
        }
    }
    codes
}

fn breaker(section: &Section<'_>) -> Breaker {
    let mut breaker = Breaker::default();
    let Some(section) = section.section("breaker") else { return breaker };
    if let Some(failures) = section.count("failures", 1..=10_000) {
        breaker.failures = failures;
    }
    breaker.window_ms = span(&section, "window").unwrap_or(breaker.window_ms);
    breaker.open_ms = span(&section, "open").unwrap_or(breaker.open_ms);
    section.finish();
    breaker
}

pub(super) fn span(section: &Section<'_>, key: &str) -> Option<u64> {
    let time = section.duration(key)?;
    if time.is_zero() || time > Duration::from_secs(24 * 3600) {
        section.problem(key, format!("`{key}` is out of range"), "write a time from \"1ms\" to \"24h\"");
        return None;
    }
    u64::try_from(time.as_millis()).ok()
}
