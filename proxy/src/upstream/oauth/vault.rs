//! Where tokens are kept: one file beside the journal, readable by its owner only, replaced whole.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::grant::Identity;

/// One server at a time: they share the file.
static FILE: Mutex<()> = Mutex::new(());

/// What is kept of one server.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Kept {
    /// The server that the tokens are for.
    pub(super) resource: String,
    pub(super) issuer: Option<String>,
    pub(super) client: Option<Identity>,
    /// Where the client was registered to have people sent back to.
    pub(super) redirect: Option<String>,
    pub(super) token_endpoint: Option<String>,
    pub(super) token_resource: Option<String>,
    pub(super) access_token: Option<String>,
    pub(super) refresh_token: Option<String>,
    /// In milliseconds since 1970.
    pub(super) ends: Option<u64>,
    pub(super) scope: Option<String>,
}

/// The place of one server in the file; without a file nothing outlives the process.
pub(super) struct Vault {
    file: Option<PathBuf>,
    server: String,
}

impl Vault {
    pub(super) fn new(file: Option<PathBuf>, server: &str) -> Self {
        Self { file, server: server.to_owned() }
    }

    /// What is kept; nothing where it cannot be read.
    pub(super) fn read(&self) -> Kept {
        let _guard = FILE.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = &self.file else { return Kept::default() };
        match read(file) {
            Ok(mut all) => all
                .remove(&self.server)
                .and_then(|kept| serde_json::from_value(kept).ok())
                .unwrap_or_default(),
            Err(error) => {
                tracing::error!(file = %file.display(), %error, "tokens of servers cannot be read");
                Kept::default()
            }
        }
    }

    /// Keeps it. Where that fails, it is good for as long as this process lives.
    pub(super) fn write(&self, kept: &Kept) {
        let _guard = FILE.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = &self.file else { return };
        let written = read(file).and_then(|mut all| {
            all.insert(self.server.clone(), serde_json::to_value(kept)?);
            replace(file, &Value::Object(all).to_string())
        });
        if let Err(error) = written {
            tracing::error!(file = %file.display(), %error, "tokens of servers cannot be kept");
        }
    }
}

fn read(file: &Path) -> io::Result<Map<String, Value>> {
    let mode = match fs::metadata(file) {
        Ok(about) => about.permissions().mode(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Map::new()),
        Err(error) => return Err(error),
    };
    if mode & 0o077 != 0 {
        return Err(io::Error::other("it can be read by others: chmod 600, or delete it"));
    }
    serde_json::from_slice(&fs::read(file)?).map_err(io::Error::other)
}

fn replace(file: &Path, text: &str) -> io::Result<()> {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    let fresh = PathBuf::from(name);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut new = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    new.write_all(text.as_bytes())?;
    new.sync_all()?;
    fs::rename(&fresh, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_outlive_their_process_and_are_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("h.redb.oauth.json");
        let [a, b] = ["a", "b"].map(|server| Vault::new(Some(file.clone()), server));
        let kept = |token: &str| Kept { access_token: Some(token.into()), ..Kept::default() };
        a.write(&kept("one"));
        b.write(&kept("two"));
        a.write(&kept("three"));
        assert_eq!(a.read().access_token.as_deref(), Some("three"));
        assert_eq!(b.read().access_token.as_deref(), Some("two"));
        assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("ours");
        assert_eq!(a.read().access_token, None, "what others can read is not used");
    }
}
