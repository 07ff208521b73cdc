//! How commands and bridges of the same account find the running `serve`: a locked file beside the journal.
//!
//! `STORE.lock` is locked as long as `serve` lives, however it ends; `STORE.serve.json` says where it listens and is
//! readable by its owner only, since the tokens in it are what commands and bridges show.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// Where the `serve` of a journal listens.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Address {
    /// Its process.
    pub(crate) pid: u32,
    /// For agents: `http://ADDR/mcp`.
    pub(crate) mcp: String,
    /// For operators: `http://ADDR/`.
    pub(crate) inbox: String,
    /// What a bridge shows to be principal `local`.
    pub(crate) bridge_token: String,
    /// What a command shows to decide; only where no operators are configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) operator_token: Option<String>,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Address(pid {}, {}, {})", self.pid, self.mcp, self.inbox)
    }
}

/// Whether a `serve` runs on a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// None.
    Absent,
    /// One that does not listen yet.
    Starting,
    /// One that listens.
    Running(Address),
}

/// The right to serve a journal, until it is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct Claim {
    /// Keeps the lock.
    _lock: File,
    file: PathBuf,
}

/// How long a reader that looks at the lock may be in the way.
const PATIENCE: Duration = Duration::from_secs(2);

impl Claim {
    /// Takes the lock of `store`; none where another process has it.
    ///
    /// # Errors
    /// Where the lock file cannot be created or locked.
    pub(crate) fn take(store: &Path) -> io::Result<Option<Self>> {
        let lock = private().create(true).truncate(false).open(beside(store, ".lock"))?;
        let begun = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if begun.elapsed() < PATIENCE => {
                    // Whoever only looks holds it for an instant; whoever serves does not let go.
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        let file = beside(store, ".serve.json");
        // What a killed predecessor left is no longer true.
        remove(&file)?;
        Ok(Some(Self { _lock: lock, file }))
    }

    /// Says where we listen. Readers see the old content or the new one, never a part.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub(crate) fn publish(&self, address: &Address) -> io::Result<()> {
        let mut name = self.file.clone().into_os_string();
        name.push(".new");
        let fresh = PathBuf::from(name);
        remove(&fresh)?;
        let mut file = private().create_new(true).open(&fresh)?;
        serde_json::to_writer(&mut file, address)?;
        file.write_all(b"\n")?;
        drop(file);
        fs::rename(&fresh, &self.file)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // The lock decides; a file that stays is only untidy.
        let _ = remove(&self.file);
    }
}

/// Looks for the `serve` of `store`.
///
/// # Errors
/// Where the files are there but cannot be read.
pub(crate) fn look(store: &Path) -> io::Result<Presence> {
    let lock = match OpenOptions::new().read(true).open(beside(store, ".lock")) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Presence::Absent),
        Err(error) => return Err(error),
    };
    match lock.try_lock_shared() {
        Ok(()) => return Ok(Presence::Absent),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error),
    }
    match fs::read(beside(store, ".serve.json")) {
        Ok(content) => Ok(Presence::Running(serde_json::from_slice(&content)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Presence::Starting),
        Err(error) => Err(error),
    }
}

/// Where the `serve` of `store` listens; none where none listens, or nothing can be read.
pub(crate) fn read(store: &Path) -> Option<Address> {
    match look(store) {
        Ok(Presence::Running(address)) => Some(address),
        _ => None,
    }
}

/// Whether a process serves `store`, listening already or not.
pub(crate) fn is_claimed(store: &Path) -> bool {
    matches!(look(store), Ok(Presence::Starting | Presence::Running(_)))
}

/// A secret that is kept beside the journal (the token of the one operator where none is configured), and whether it was
/// made just now.
pub(crate) struct OperatorToken {
    /// 64 hexadecimal digits.
    pub(crate) text: String,
    /// Where it was made or found.
    pub(crate) origin: Origin,
}

/// Whether something was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was made just now.
    Made,
    /// It was there.
    Found,
}

/// Reads `STORE.operator-token`, or makes it.
///
/// # Errors
/// Where it cannot be read or written, or others may read it.
pub(crate) fn operator_token(store: &Path) -> io::Result<OperatorToken> {
    secret(&beside(store, ".operator-token"))
}

/// Reads `STORE.state-key`, by which we know a `requestState` of ours again after a restart, or makes it.
///
/// # Errors
/// Where it cannot be read or written, or others may read it.
pub(crate) fn state_key(store: &Path) -> io::Result<String> {
    secret(&beside(store, ".state-key")).map(|key| key.text)
}

fn secret(path: &Path) -> io::Result<OperatorToken> {
    use std::os::unix::fs::PermissionsExt;
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mode = match fs::metadata(path) {
        Ok(found) => found.permissions().mode(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return make_secret(path).map(|text| OperatorToken { text, origin: Origin::Made }).map_err(named);
        }
        Err(error) => return Err(named(error)),
    };
    let text = fs::read_to_string(path).map_err(named)?.trim().to_owned();
    let what = match (mode & 0o077, text.len()) {
        (0, 32..) => return Ok(OperatorToken { text, origin: Origin::Found }),
        (0, _) => "holds no token; delete it to have a new one made",
        _ => "can be read by others; make it yours alone with chmod 600, or delete it",
    };
    Err(io::Error::other(format!("{} {what}", path.display())))
}

/// Whole or not at all: one that was killed half-way must not keep the next from starting. Only the process that has
/// the claim on the journal comes here.
fn make_secret(path: &Path) -> io::Result<String> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let fresh = PathBuf::from(name);
    remove(&fresh)?;
    let text = random_token();
    let mut file = private().create_new(true).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    drop(file);
    fs::rename(&fresh, path)?;
    Ok(text)
}

/// 32 random bytes in hexadecimal digits.
pub(crate) fn random_token() -> String {
    holdfast_store::Hash32(rand::random()).to_string()
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn beside(store: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(store);
    name.push(ending);
    PathBuf::from(name)
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn address() -> Address {
        Address {
            pid: 1,
            mcp: "http://127.0.0.1:1/mcp".into(),
            inbox: "http://127.0.0.1:2/".into(),
            bridge_token: random_token(),
            operator_token: None,
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it exists").permissions().mode() & 0o777
    }

    #[test]
    fn a_life_of_serve_as_others_see_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = directory.path().join("h.redb");
        assert_eq!(look(&store).expect("readable"), Presence::Absent);
        let claim = Claim::take(&store).expect("writable").expect("nobody has it");
        assert_eq!(look(&store).expect("readable"), Presence::Starting);
        let address = address();
        claim.publish(&address).expect("writable");
        claim.publish(&address).expect("writable again");
        assert_eq!(look(&store).expect("readable"), Presence::Running(address));
        assert_eq!(mode(&beside(&store, ".serve.json")), 0o600);
        assert!(Claim::take(&store).expect("readable").is_none(), "two at once");
        drop(claim);
        assert_eq!(look(&store).expect("readable"), Presence::Absent);
    }

    #[test]
    fn what_a_killed_serve_left_is_not_believed() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = directory.path().join("h.redb");
        let left = serde_json::to_string(&address()).expect("serialises");
        fs::write(beside(&store, ".serve.json"), left).expect("writable");
        fs::write(beside(&store, ".lock"), "").expect("writable");
        assert_eq!(look(&store).expect("readable"), Presence::Absent);
        let _claim = Claim::take(&store).expect("writable").expect("nobody has it");
        assert_eq!(look(&store).expect("readable"), Presence::Starting);
    }

    #[test]
    fn the_operator_token_is_made_once_and_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = directory.path().join("h.redb");
        let made = operator_token(&store).expect("writable");
        let found = operator_token(&store).expect("readable");
        assert_eq!((made.origin, found.origin), (Origin::Made, Origin::Found));
        assert_eq!((made.text.len(), &made.text), (64, &found.text));
        let path = beside(&store, ".operator-token");
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("ours");
        assert!(operator_token(&store).is_err_and(|error| error.to_string().contains("chmod 600")));
    }

    #[test]
    fn the_state_key_outlives_its_process_and_is_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = directory.path().join("h.redb");
        let made = state_key(&store).expect("writable");
        assert_eq!(state_key(&store).expect("readable"), made);
        // One that was killed while it made its own.
        let half = directory.path().join("other.redb");
        fs::write(beside(&half, ".state-key.new"), "ab").expect("writable");
        assert_eq!(state_key(&half).expect("writable").len(), 64);
        assert_ne!(made, operator_token(&store).expect("writable").text);
        assert_eq!(mode(&beside(&store, ".state-key")), 0o600);
    }
}
