//! Where a keeper is found: a socket in a directory of its own beside the journal, which nobody else may enter.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{
            fs::{DirBuilderExt, MetadataExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::process::{Child, Command};

/// Unix sockets have addresses of 108 bytes.
const LONGEST_ADDRESS: usize = 100;

/// The directory of the keeper of a journal.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    directory: PathBuf,
    /// How long the keeper waits for a `serve` before it ends its servers.
    pub(super) unclaimed: Duration,
}

/// A path to the socket that is short enough, and what has to stay open for it.
struct Address {
    path: PathBuf,
    _directory: Option<File>,
}

impl Place {
    /// Beside the journal.
    pub(crate) fn beside(store: &Path, unclaimed: Duration) -> Self {
        let mut name = store.as_os_str().to_owned();
        name.push(".keeper");
        Self { directory: name.into(), unclaimed }
    }

    /// In this directory, for the keeper itself.
    pub(super) fn at(directory: PathBuf, unclaimed: Duration) -> Self {
        Self { directory, unclaimed }
    }

    /// A connection to the keeper that is there; none where there is none.
    pub(super) fn connect(&self) -> io::Result<Option<UnixStream>> {
        if !self.directory.exists() {
            return Ok(None);
        }
        self.check()?;
        match UnixStream::connect(&self.address()?.path) {
            Ok(stream) => Ok(Some(stream)),
            // One that was killed leaves its socket behind.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Starts a keeper that listens here. Only whoever has the claim on the journal may, and only where none is.
    pub(super) fn start(&self) -> io::Result<(Child, UnixStream)> {
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => self.check()?,
        }
        let address = self.address()?;
        match fs::remove_file(&address.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Bound here, so that there is never a moment in which it runs and cannot be found.
        let listener = UnixListener::bind(&address.path)?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("keeper")
            .arg(&self.directory)
            .args(["--unclaimed-ms", &self.unclaimed.as_millis().to_string()])
            .env_clear()
            .envs(std::env::var_os("RUST_LOG").map(|level| ("RUST_LOG", level)))
            .stdin(OwnedFd::from(listener))
            .stdout(Stdio::null())
            .stderr(log());
        let child = command.spawn()?;
        Ok((child, UnixStream::connect(&address.path)?))
    }

    /// Takes away what a keeper that ends would leave. What cannot be removed is only untidy.
    pub(super) fn remove(&self) {
        if let Ok(address) = self.address() {
            let _ = fs::remove_file(&address.path);
        }
        let _ = fs::remove_dir(&self.directory);
    }

    fn check(&self) -> io::Result<()> {
        let about = fs::symlink_metadata(&self.directory)?;
        let own = nix::unistd::geteuid().as_raw();
        if about.is_dir() && about.uid() == own && about.mode() & 0o077 == 0 {
            return Ok(());
        }
        let message = format!("{} is not a directory that is yours alone", self.directory.display());
        Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
    }

    fn address(&self) -> io::Result<Address> {
        let path = self.directory.join("socket");
        if path.as_os_str().len() <= LONGEST_ADDRESS {
            return Ok(Address { path, _directory: None });
        }
        let directory = File::open(&self.directory)?;
        let path = format!("/proc/self/fd/{}/socket", directory.as_raw_fd()).into();
        Ok(Address { path, _directory: Some(directory) })
    }
}

/// A keeper outlives whoever reads our stderr, so it writes there only where nobody waits for the end of it.
fn log() -> Stdio {
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    match stderr {
        Ok(stderr) if stderr.metadata().is_ok_and(|about| about.is_file()) => stderr.into(),
        _ => Stdio::null(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn bound(place: &Place) -> UnixListener {
        DirBuilder::new().mode(0o700).create(&place.directory).expect("new");
        UnixListener::bind(&place.address().expect("an address").path).expect("free")
    }

    #[test]
    fn a_keeper_is_found_wherever_the_journal_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let deep = directory.path().join("d".repeat(120));
        fs::create_dir(&deep).expect("new");
        for within in [directory.path(), &deep] {
            let place = Place::beside(&within.join("h.redb"), Duration::ZERO);
            assert!(place.connect().expect("nothing there").is_none());
            let listener = bound(&place);
            assert!(place.connect().expect("it listens").is_some());
            drop(listener);
            assert!(place.connect().expect("it was killed").is_none());
            place.remove();
            assert!(!place.directory.exists());
        }
    }

    #[test]
    fn a_directory_that_others_may_enter_is_not_trusted() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = Place::beside(&directory.path().join("h.redb"), Duration::ZERO);
        let _listener = bound(&place);
        fs::set_permissions(&place.directory, fs::Permissions::from_mode(0o755)).expect("ours");
        assert!(place.connect().is_err_and(|error| error.to_string().contains("yours alone")));
    }
}
