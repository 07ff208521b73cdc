//! `${VAR}` in the spellings of all clients.

use std::path::Path;

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

/// Expands `text`. What a variable holds is not expanded again.
pub(super) fn expand(text: &str, scope: Scope<'_>) -> Result<String, Fault> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$${") {
            expanded.push_str("${");
            rest = after;
            continue;
        }
        let braced = rest.strip_prefix("${").and_then(|inside| Some((inside, inside.find('}')?)));
        if let Some((inside, end)) = braced {
            expanded.push_str(&braces(&inside[..end], scope)?);
            rest = &inside[end + 1..];
        } else if let Some((value, length)) = bare(rest, scope) {
            expanded.push_str(&value);
            rest = &rest[length..];
        } else {
            // As clients do: what is no variable is text.
            expanded.push('$');
            rest = &rest[1..];
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn bare(text: &str, scope: Scope<'_>) -> Option<(String, usize)> {
    let name: String = text[1..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    let counts = scope.bare == Bare::Variable && is_name(&name);
    Some(((scope.vars)(&name).filter(|_| counts)?, name.len() + 1))
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
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    if !is_name(name) {
        let message = format!("`${{{inside}}}` means something to its editor only");
        return Err((message, "write the value itself, or an environment variable: ${NAME}".to_owned()));
    }
    match default {
        Some(default) => {
            let given = (scope.vars)(name).filter(|value| !value.is_empty());
            Ok(given.unwrap_or_else(|| default.to_owned()))
        }
        None => variable(name, scope),
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

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
