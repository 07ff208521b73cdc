//! `${VAR}` in the spellings of all clients.

use std::path::Path;

use holdfast_policy::{Dollar, Replaced, Variable, replace_dollars};

/// What texts of a file may refer to.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    /// The environment.
    pub(super) vars: &'a dyn Fn(&str) -> Option<String>,
    /// The project that the file belongs to; none for a user's own file.
    pub(super) project: Option<&'a Path>,
    /// Whether a bare `$VAR` counts, too.
    pub(super) bare: Bare,
}

/// What `$VAR` without braces is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bare {
    /// Text.
    Text,
    /// A variable where it is set, as for Gemini.
    Variable,
}

/// Message and hint.
pub(super) type Fault = (String, String);

/// Expands `text`.
pub(super) fn expand(text: &str, scope: Scope<'_>) -> Result<String, Fault> {
    replace_dollars(text, |dollar| match dollar {
        Dollar::Braced(inside) => Ok(Some((braces(inside, scope)?, 0))),
        Dollar::Bare(rest) => Ok(bare(rest, scope)),
        // As clients do: what is no variable is text.
        Dollar::Unclosed => Ok(None),
    })
}

fn bare(rest: &str, scope: Scope<'_>) -> Replaced {
    let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    let counts = scope.bare == Bare::Variable && Variable::is_name(&name);
    Some(((scope.vars)(&name).filter(|_| counts)?, name.len()))
}

fn braces(inside: &str, scope: Scope<'_>) -> Result<String, Fault> {
    match inside {
        "userHome" => return variable("HOME", scope),
        "pathSeparator" | "/" => return Ok("/".to_owned()),
        "workspaceFolder" => return folder(inside, scope).map(|folder| folder.display().to_string()),
        "workspaceFolderBasename" => {
            let folder = folder(inside, scope)?;
            return Ok(folder.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
        _ => {}
    }
    if let Some(id) = inside.strip_prefix("input:") {
        return input(id, scope);
    }
    let inside = inside.strip_prefix("env:").unwrap_or(inside);
    let Some(named) = Variable::read(inside) else {
        let message = format!("`${{{inside}}}` means something to its editor only");
        return Err((message, "write the value itself, or an environment variable: ${NAME}".to_owned()));
    };
    match named.default {
        Some(_) => Ok(named.value(scope.vars).unwrap_or_default()),
        None => variable(named.name, scope),
    }
}

fn variable(name: &str, scope: Scope<'_>) -> Result<String, Fault> {
    let project = || {
        let folder = scope.project.filter(|_| name == "CLAUDE_PROJECT_DIR");
        folder.map(|folder| folder.display().to_string())
    };
    (scope.vars)(name).or_else(project).ok_or_else(|| unset(name))
}

/// The words about a variable that nobody has set.
pub(super) fn unset(name: &str) -> Fault {
    let message = format!("the environment variable `{name}` is not set");
    (message, format!("set {name} where holdfast runs, or write a default: ${{{name}:-value}}"))
}

fn folder<'a>(inside: &str, scope: Scope<'a>) -> Result<&'a Path, Fault> {
    scope.project.ok_or_else(|| {
        let message = format!("`${{{inside}}}` has no meaning in a file that belongs to no project");
        (message, "write the path of the folder".to_owned())
    })
}

/// VS Code asks for these in its window and keeps the answers to itself.
fn input(id: &str, scope: Scope<'_>) -> Result<String, Fault> {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let name = format!("INPUT_{}", id.chars().map(plain).collect::<String>());
    (scope.vars)(&name).ok_or_else(|| {
        let message =
            format!("`${{input:{id}}}` is asked by VS Code in its window, which Holdfast cannot do");
        (message, format!("set the environment variable {name} to the answer where holdfast runs"))
    })
}
