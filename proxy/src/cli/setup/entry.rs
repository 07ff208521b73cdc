//! How a client starts Holdfast: the entry that stands in its file instead of the servers.

use std::path::{Path, PathBuf};

use crate::config::import::{self, Client};

/// What stands in a client's file for all servers behind us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Entry {
    /// The program, as an absolute path: clients with windows know little of anybody's `PATH`.
    pub(in crate::cli) command: String,
    /// Its arguments.
    pub(in crate::cli) args: Vec<String>,
    /// What its environment is to have, by the field in which the client writes that.
    pub(in crate::cli) passed: Option<(&'static str, serde_json::Value)>,
}

/// The name of the entry.
pub(in crate::cli) const NAME: &str = "holdfast";

impl Entry {
    /// The entry for the configuration at `config`, an absolute path.
    pub(in crate::cli) fn of(config: &Path) -> Self {
        let args = ["stdio", "-c"].map(str::to_owned).into_iter();
        Self {
            command: program().display().to_string(),
            args: args.chain([config.display().to_string()]).collect(),
            passed: None,
        }
    }

    /// The members of the entry in the file of this client.
    pub(in crate::cli) fn members(&self, client: Client) -> serde_json::Value {
        let mut entry = serde_json::Map::new();
        if client == Client::VsCode {
            entry.insert("type".to_owned(), "stdio".into());
        }
        entry.insert("command".to_owned(), self.command.as_str().into());
        entry.insert("args".to_owned(), self.args.as_slice().into());
        if let Some((field, names)) = &self.passed {
            entry.insert((*field).to_owned(), names.clone());
        }
        entry.into()
    }

    /// Whether what stands in a file is this entry.
    pub(in crate::cli) fn is(&self, found: &import::Node) -> bool {
        let value = found.to_json();
        value["command"] == self.command.as_str()
            && value["args"] == serde_json::Value::from(self.args.as_slice())
    }
}

/// This program, by the path that stays the same when it is updated: the one in `PATH`, if that is this one.
fn program() -> PathBuf {
    let this = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("holdfast"));
    let same = |path: &PathBuf| match (path.canonicalize(), this.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let named = std::env::split_paths(&path).map(|folder| folder.join("holdfast"));
    named.filter(|path| path.is_absolute()).find(same).unwrap_or(this)
}
