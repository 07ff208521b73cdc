//! `[import] mcp_servers`: the files that MCP clients keep their servers in, used as they are.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use holdfast_policy::{Document, Problem, Section};
use reqwest::Url;

use super::{
    convert,
    servers::{self, ServerConfig, Surroundings, Transport},
};

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
        let path = around.base.join(at_home(file, around));
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                let message = format!("{} cannot be read: {error}", path.display());
                let hint = "correct the path (relative paths start at this file), or delete it from the list";
                section.problem_in("mcp_servers", index, message, hint);
                continue;
            }
        };
        let (found, found_problems) = file_content(&path, &text, around);
        problems.extend(found_problems);
        for server in found {
            if imported.iter().any(|other| other.name == server.name) {
                let message = format!("`{}` of {} is also in an earlier file", server.name, path.display());
                section.problem_in("mcp_servers", index, message, "rename it in one of the files");
            } else {
                imported.push(server);
            }
        }
    }
    imported
}

/// The files that are imported, there or not.
pub(super) fn files(root: &Section<'_>, base: &Path, vars: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let around = Surroundings { base, vars, mcp: None };
    let named = root.section("import").and_then(|section| section.value("mcp_servers"));
    let named = named.and_then(|named| Some(named.as_array()?.clone())).unwrap_or_default();
    named.iter().filter_map(|file| Some(base.join(at_home(file.as_str()?, &around)))).collect()
}

fn at_home(file: &str, around: &Surroundings<'_>) -> PathBuf {
    match (file.strip_prefix("~/"), (around.vars)("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(file),
    }
}

fn file_content(path: &Path, text: &str, around: &Surroundings<'_>) -> (Vec<ServerConfig>, Vec<Problem>) {
    let name = path.display().to_string();
    let is_toml = path.extension().is_some_and(|extension| extension == "toml");
    let folder = project_of(path);
    let around = Surroundings { base: &folder, ..*around };
    if is_toml {
        return match Document::parse(&name, text, around.vars) {
            Ok(document) => {
                let found = entries(&document.root(), &around, path);
                (found, document.into_problems())
            }
            Err(problems) => (Vec::new(), problems),
        };
    }
    let places = convert::Places { home: (around.vars)("HOME"), folder: folder.display().to_string() };
    let converted = match convert::json(text, &places) {
        Ok(converted) => converted,
        Err(problem) => return (Vec::new(), vec![Problem { file: name, ..problem }]),
    };
    let (found, mut problems) = match Document::parse(&name, &converted, around.vars) {
        Ok(document) => {
            let root = document.root();
            let found =
                root.section(convert::ROOT).map(|root| entries(&root, &around, path)).unwrap_or_default();
            (found, document.into_problems())
        }
        Err(problems) => (Vec::new(), problems),
    };
    problems.iter_mut().for_each(|problem| convert::restore(problem, text));
    (found, problems)
}

/// The directory that relative paths in an imported file mean: the project, not the editor's folder in it.
fn project_of(path: &Path) -> PathBuf {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let is_editors = folder
        .file_name()
        .is_some_and(|name| [".vscode", ".cursor", ".codex"].iter().any(|one| *one == name));
    match folder.parent() {
        Some(parent) if is_editors => parent.to_owned(),
        _ => folder.to_owned(),
    }
}

/// `mcpServers` (Claude, Cursor, Gemini), `servers` (VS Code), `mcp_servers` (Codex).
const ROOTS: [&str; 3] = ["mcpServers", "servers", "mcp_servers"];

fn entries(root: &Section<'_>, around: &Surroundings<'_>, path: &Path) -> Vec<ServerConfig> {
    let Some(key) = ROOTS.into_iter().find(|key| root.has(key)) else {
        root.problem(
            "",
            format!("{} lists no servers", path.display()),
            "it needs an object `mcpServers`, `servers`, or (TOML) `mcp_servers`",
        );
        return Vec::new();
    };
    root.named(key).into_iter().filter_map(|(name, section)| entry(&name, &section, around)).collect()
}

fn entry(name: &str, section: &Section<'_>, around: &Surroundings<'_>) -> Option<ServerConfig> {
    let off = section.boolean("disabled") == Some(true) || section.boolean("enabled") == Some(false);
    if off {
        return None;
    }
    let kinds = ["stdio", "http", "streamable-http", "streamableHttp", "sse"];
    let kind = section.one_of("type", &kinds.map(|kind| (kind, kind)));
    if kind == Some("sse") {
        section.problem(
            "type",
            "the old SSE transport is not supported",
            "most servers offer streamable HTTP too: \"type\": \"http\" with the server's /mcp address",
        );
        return None;
    }
    let mut transport = match ["httpUrl", "serverUrl"].into_iter().find(|key| section.has(key)) {
        Some(key) => other_url(section, key),
        None => servers::transport(section, around),
    }?;
    if let Transport::Http { headers, .. } = &mut transport {
        codex_headers(section, headers, around);
    }
    warn_unused(section);
    if is_ourselves(&transport, around.mcp) {
        section.warn("", format!("`{name}` is Holdfast itself and was left out"), "");
        return None;
    }
    let plain = plain_name(name);
    if let Err((what, hint)) = servers::check_name(&plain) {
        section.problem("", format!("`{name}` cannot be the name of a server: {what}"), hint);
        return None;
    }
    if plain != name {
        section.warn("", format!("`{name}` is called `{plain}` here"), "rules and tool names use the latter");
    }
    Some(ServerConfig::plain(plain, transport))
}

fn other_url(section: &Section<'_>, key: &str) -> Option<Transport> {
    let url = section.string(key)?;
    let headers = section.string_map("headers").unwrap_or_default();
    match Url::parse(&url) {
        Ok(parsed) if matches!(parsed.scheme(), "http" | "https") => {
            Some(Transport::Http { url: parsed.to_string(), headers: headers.into_iter().collect() })
        }
        _ => {
            section.problem(
                key,
                format!("`{key}` is not an http or https address"),
                "write \"https://host/path\"",
            );
            None
        }
    }
}

/// Codex names the variable instead of the value.
fn codex_headers(section: &Section<'_>, headers: &mut Vec<(String, String)>, around: &Surroundings<'_>) {
    headers.extend(section.string_map("http_headers").unwrap_or_default());
    let mut from_variable =
        |key: &str, header: String, variable: &str, prefix: &str| match (around.vars)(variable) {
            Some(value) => headers.push((header, format!("{prefix}{value}"))),
            None => section.problem(
                key,
                format!("the environment variable `{variable}` is not set"),
                format!("set {variable} where `holdfast serve` runs"),
            ),
        };
    if let Some(variable) = section.string("bearer_token_env_var") {
        from_variable("bearer_token_env_var", "Authorization".to_owned(), &variable, "Bearer ");
    }
    for (header, variable) in section.string_map("env_http_headers").unwrap_or_default() {
        from_variable("env_http_headers", header, &variable, "");
    }
}

/// What was read, and what has no meaning for a proxy.
const UNDERSTOOD: [&str; 20] = [
    "type",
    "disabled",
    "enabled",
    "command",
    "args",
    "env",
    "cwd",
    "url",
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
    "icon",
    "alwaysAllow",
];

fn warn_unused(section: &Section<'_>) {
    for key in section.keys().filter(|key| !UNDERSTOOD.contains(key)) {
        section.warn(
            key,
            format!("`{key}` of an imported server has no effect here"),
            "what Holdfast has for it stands in holdfast.toml: [servers.NAME], [defaults] and [[rule]]",
        );
    }
}

/// A client that uses Holdfast may have it in the very file that Holdfast imports.
fn is_ourselves(transport: &Transport, mcp: Option<SocketAddr>) -> bool {
    match transport {
        Transport::Stdio { command, args, .. } => {
            let program = Path::new(command).file_stem().is_some_and(|stem| stem == "holdfast");
            program && args.first().is_some_and(|arg| arg == "stdio" || arg == "serve")
        }
        Transport::Http { url, .. } => Url::parse(url).is_ok_and(|url| {
            let port = url.port_or_known_default();
            servers::is_loopback(&url) && mcp.is_some_and(|mcp| mcp.port() != 0 && port == Some(mcp.port()))
        }),
    }
}

/// As clients themselves do: every other character becomes `_`, and `__` stays free for `server__tool`.
fn plain_name(name: &str) -> String {
    let mapped: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    let parts: Vec<&str> = mapped.split('_').filter(|part| !part.is_empty()).collect();
    parts.join("_")
}
