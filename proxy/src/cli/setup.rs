//! What `init`, `add` and `doctor` share: the clients of this machine, their files, and what servers say when asked.

pub(super) mod clients;
pub(super) mod edit;
pub(super) mod entry;
pub(super) mod files;
pub(super) mod mask;
pub(super) mod passed;
pub(super) mod probe;

use std::path::{Path, PathBuf};

use crate::report::Report;

/// A variable of the environment.
pub(super) fn var(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The user's own directory.
///
/// # Errors
/// Where nobody says which that is.
pub(super) fn home() -> Result<PathBuf, Report> {
    let home = var("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    home.ok_or_else(|| failed("HOME is not set, so the files of your clients cannot be found", "Set HOME."))
}

/// Something about the set-up could not be done.
pub(super) fn failed(what: impl Into<String>, way_out: impl Into<String>) -> Report {
    Report::new("setup-failed", what).hint(way_out)
}

/// A path as people write it.
pub(super) fn short(path: &Path, home: &Path) -> String {
    match path.strip_prefix(home) {
        Ok(rest) if !rest.as_os_str().is_empty() => format!("~/{}", rest.display()),
        _ => path.display().to_string(),
    }
}

/// `1 server`, `2 servers`.
pub(super) fn count(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}
