//! Which file is the configuration.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use holdfast_policy::{Problem, Severity};

/// The smallest file that does something.
pub(crate) const STARTER: &str = r#"version = 1
[servers.files]
command = "npx"
args = ["-y", "@modelcontextprotocol/server-filesystem", "."]
[defaults]
effect = "ask""#;

/// `given`, else `./holdfast.toml`, else `holdfast/holdfast.toml` in the user's directory for configuration.
///
/// # Errors
/// Where there is none of them, with an example of what to write.
pub(super) fn file(
    given: Option<&Path>,
    vars: &dyn Fn(&str) -> Option<OsString>,
) -> Result<PathBuf, Problem> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let here = PathBuf::from("holdfast.toml");
    if here.is_file() {
        return Ok(here);
    }
    let own = own(vars);
    if let Some(own) = own.as_ref().filter(|own| own.is_file()) {
        return Ok(own.clone());
    }
    let also = own.map(|own| format!(", nor {}", own.display())).unwrap_or_default();
    let indented = STARTER.replace('\n', "\n     ");
    Err(nowhere(
        &here,
        format!("there is no ./holdfast.toml{also}"),
        format!("name a file with -c FILE, or write ./holdfast.toml, for example:\n     {indented}"),
    ))
}

/// The user's own file, whether or not it is there; none where nobody says who the user is.
pub(super) fn own(vars: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let nonempty = |name| vars(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = nonempty("XDG_CONFIG_HOME").or_else(|| nonempty("HOME").map(|home| home.join(".config")));
    home.map(|home| home.join("holdfast/holdfast.toml"))
}

/// The file cannot be read.
pub(super) fn unreadable(file: &Path, error: &io::Error) -> Problem {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "check the path after -c; relative paths start at the working directory",
        io::ErrorKind::InvalidData => "the file must be UTF-8 text",
        _ => "check the permissions of the file and its directory",
    };
    nowhere(file, format!("{} cannot be read: {error}", file.display()), hint.to_owned())
}

/// A problem of the file as a whole: line 0.
pub(super) fn nowhere(file: &Path, message: String, hint: String) -> Problem {
    Problem {
        severity: Severity::Error,
        file: file.display().to_string(),
        line: 0,
        column: 0,
        text: String::new(),
        message,
        hint: Some(hint),
    }
}
