//! Where the clients of this machine keep their servers, for the user and for the project one is in.

use std::path::{Path, PathBuf};

/// A place where a client looks for its servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Place {
    /// The client, as people call it.
    pub(in crate::cli) client: &'static str,
    /// Its file.
    pub(in crate::cli) file: PathBuf,
}

/// All places there can be, the user's own first; none stands twice.
pub(in crate::cli) fn places(
    home: &Path,
    project: &Path,
    vars: &dyn Fn(&str) -> Option<String>,
) -> Vec<Place> {
    let set = |name: &str| vars(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = set("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config"));
    let support = home.join("Library/Application Support");
    let claude = set("CLAUDE_CONFIG_DIR").unwrap_or_else(|| home.to_owned());
    let codex = set("CODEX_HOME").unwrap_or_else(|| home.join(".codex"));
    let all = [
        ("Claude Code", claude.join(".claude.json")),
        ("Claude Desktop", config.join("Claude/claude_desktop_config.json")),
        ("Claude Desktop", support.join("Claude/claude_desktop_config.json")),
        ("Cursor", home.join(".cursor/mcp.json")),
        ("VS Code", config.join("Code/User/mcp.json")),
        ("VS Code", support.join("Code/User/mcp.json")),
        ("Windsurf", home.join(".codeium/windsurf/mcp_config.json")),
        ("Codex", codex.join("config.toml")),
        ("Gemini CLI", home.join(".gemini/settings.json")),
        ("Goose", config.join("goose/config.yaml")),
        ("Claude Code", project.join(".mcp.json")),
        ("Cursor", project.join(".cursor/mcp.json")),
        ("VS Code", project.join(".vscode/mcp.json")),
        ("Codex", project.join(".codex/config.toml")),
        ("Gemini CLI", project.join(".gemini/settings.json")),
    ];
    let mut places: Vec<Place> = Vec::new();
    for (client, file) in all {
        if !places.iter().any(|place| place.file == file) {
            places.push(Place { client, file });
        }
    }
    places
}

/// The client that a file belongs to, as far as its place or name tells.
pub(in crate::cli) fn owner(file: &Path, places: &[Place]) -> &'static str {
    let known = places.iter().find(|place| place.file == file);
    let same_name = |place: &&Place| {
        let folder = |path: &Path| path.parent().and_then(Path::file_name).map(ToOwned::to_owned);
        let is_hidden = |name: Option<std::ffi::OsString>| {
            name.is_some_and(|name| name.to_string_lossy().starts_with('.'))
        };
        let named = file.file_name() == place.file.file_name();
        let own_name = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        named && (own_name || (folder(file) == folder(&place.file) && is_hidden(folder(file))))
    };
    known.or_else(|| places.iter().find(same_name)).map_or("MCP client", |place| place.client)
}

/// The project that somebody in `here` works in: the nearest folder upwards with a file of a client or a repository,
/// below the user's own directory.
pub(in crate::cli) fn project(here: &Path, home: &Path) -> PathBuf {
    let signs = [".mcp.json", ".vscode/mcp.json", ".cursor/mcp.json", ".git"];
    let is_project = |folder: &&Path| signs.iter().any(|sign| folder.join(sign).exists());
    let below_home = here.ancestors().take_while(|folder| *folder != home);
    below_home.into_iter().find(is_project).unwrap_or(here).to_owned()
}

/// Whether git keeps this file for others, too. Only a look at the folders, without git.
pub(in crate::cli) fn is_shared(file: &Path) -> bool {
    file.ancestors().skip(1).any(|folder| folder.join(".git").exists())
}
