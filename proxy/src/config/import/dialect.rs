//! Which client a file belongs to, and where in it the servers stand.

use std::path::{Path, PathBuf};

use super::{
    tree::{Data, Member, Node, Syntax},
    variables::Bare,
};

/// The client whose file it is, as far as its files differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// `~/.claude.json`: servers of the user, and of single projects.
    ClaudeCode,
    /// `config.toml` of Codex.
    Codex,
    /// `settings.json` of Gemini.
    Gemini,
    /// `config.yaml` of Goose.
    Goose,
    /// `mcp.json` of VS Code.
    VsCode,
    /// `mcpServers`, as Claude, Cursor and most others write it.
    Common,
}

/// A server as it stands in a file.
#[derive(Clone, Debug)]
pub(crate) struct Listed<'t> {
    /// What it is called there.
    pub(crate) member: &'t Member,
    /// The project it belongs to; none for one of the user.
    pub(crate) project: Option<PathBuf>,
    /// The names under which it stands, for edits.
    pub(crate) path: Vec<String>,
    /// Whether it is to be used.
    pub(crate) on: On,
}

/// Whether a server is to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    /// Yes.
    Yes,
    /// It is switched off in the file.
    No,
}

impl Client {
    /// By the file's name and folder.
    pub(crate) fn of(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let folder = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        match (&*folder, &*name) {
            (_, ".claude.json") => Self::ClaudeCode,
            (".gemini", _) => Self::Gemini,
            (".vscode" | "User", _) => Self::VsCode,
            (_, name) if name.ends_with(".toml") => Self::Codex,
            (_, name) if name.ends_with(".yaml") || name.ends_with(".yml") => Self::Goose,
            _ => Self::Common,
        }
    }

    /// How its files are written.
    pub(crate) fn syntax(self) -> Syntax {
        match self {
            Self::Codex => Syntax::Toml,
            Self::Goose => Syntax::Yaml,
            _ => Syntax::Json,
        }
    }

    pub(super) fn bare(self) -> Bare {
        if self == Self::Gemini { Bare::Variable } else { Bare::Text }
    }

    /// Where servers can stand; the first that is there is taken.
    fn roots(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Goose => &[&["extensions"]],
            Self::Codex => &[&["mcp_servers"], &["mcpServers"]],
            Self::VsCode => &[&["servers"], &["mcp", "servers"], &["mcpServers"]],
            _ => &[&["mcpServers"], &["servers"], &["mcp_servers"], &["mcp", "servers"]],
        }
    }

    /// The names under which this client looks for its servers, for a file that has none yet.
    pub(crate) fn root(self) -> &'static [&'static str] {
        self.roots()[0]
    }

    /// The names under which the servers of this file stand.
    pub(crate) fn root_in(self, file: &Node) -> Option<&'static [&'static str]> {
        self.roots().iter().copied().find(|path| file.at_path(path).is_some())
    }

    /// The servers of a file at `path`. None: it has no place for servers at all.
    pub(crate) fn listed<'t>(
        self,
        path: &Path,
        home: Option<&Path>,
        file: &'t Node,
    ) -> Option<Vec<Listed<'t>>> {
        let root = self.root_in(file);
        let project = project_of(path, home);
        let mut listed = Vec::new();
        for member in root.and_then(|root| file.at_path(root)).map(Node::members).unwrap_or_default() {
            let path = root.unwrap_or_default().iter().map(|key| (*key).to_owned()).collect();
            let on = if self.is_off(file, member) { On::No } else { On::Yes };
            listed.push(Listed { member, project: project.clone(), path, on });
        }
        let projects = file.get("projects").filter(|_| self == Self::ClaudeCode);
        for of in projects.map(Node::members).unwrap_or_default() {
            for member in of.node.get("mcpServers").map(Node::members).unwrap_or_default() {
                let path = ["projects", &of.key, "mcpServers"].map(str::to_owned).to_vec();
                let on = if self.is_off(file, member) { On::No } else { On::Yes };
                listed.push(Listed { member, project: Some(PathBuf::from(&of.key)), path, on });
            }
        }
        (root.is_some() || projects.is_some()).then_some(listed)
    }

    fn is_off(self, file: &Node, member: &Member) -> bool {
        let says = |key: &str| match member.node.get(key).map(|node| &node.data) {
            Some(Data::Boolean(value)) => Some(*value),
            _ => None,
        };
        let listed = |path: &[&str]| match file.at_path(path).map(|node| &node.data) {
            Some(Data::List(items)) => Some(items.iter().any(|item| item.text() == Some(&member.key))),
            _ => None,
        };
        let by_gemini = self == Self::Gemini
            && (listed(&["mcp", "excluded"]) == Some(true) || listed(&["mcp", "allowed"]) == Some(false));
        says("disabled") == Some(true) || says("enabled") == Some(false) || by_gemini
    }
}

/// Editors keep a folder of their own in the project.
const EDITORS: [&str; 4] = [".vscode", ".cursor", ".codex", ".gemini"];

/// The directory that relative paths in a file mean: the project, not the editor's folder in it.
pub(crate) fn folder_of(path: &Path) -> PathBuf {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let is_editors = folder.file_name().is_some_and(|name| EDITORS.iter().any(|one| *one == name));
    match folder.parent() {
        Some(parent) if is_editors => parent.to_owned(),
        _ => folder.to_owned(),
    }
}

/// The project a file belongs to: where its servers are started, and what `${workspaceFolder}` is.
fn project_of(path: &Path, home: Option<&Path>) -> Option<PathBuf> {
    let folder = folder_of(path);
    let in_editors = path.parent() != Some(&*folder);
    let named = path.file_name().is_some_and(|name| name == ".mcp.json");
    ((in_editors || named) && Some(&*folder) != home).then_some(folder)
}
