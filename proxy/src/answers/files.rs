//! The directory beside the journal: one file for each answer, named by the hash of its text.
//!
//! By cases. Power lost before the rename: a file with another name is left, which the next sweep removes. After the
//! rename and before the directory is on disk: nothing was told yet, so nothing refers to the file, there or not. After
//! that the file is durable under its name, and only then is anything written that refers to it. Two answers that are
//! alike share the file: whichever is renamed last replaces it with the same bytes.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use holdfast_store::{Hash32, Kept};
use sha2::{Digest, Sha256};

/// How names of files that are being written begin.
const UNFINISHED: &str = "new-";

/// The directory, which is made when it is first needed.
#[derive(Clone, Debug)]
pub(super) struct Files {
    directory: PathBuf,
}

/// A part of a text, cut between characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Where it begins.
    pub(super) offset: u64,
    /// The text.
    pub(super) text: String,
}

impl Files {
    /// Beside the journal at `store`.
    pub(super) fn beside(store: &Path) -> Self {
        let mut directory = store.as_os_str().to_owned();
        directory.push(".answers");
        Self { directory: directory.into() }
    }

    /// Keeps a text; it survives a power loss when this returns.
    pub(super) fn put(&self, text: &str) -> io::Result<Kept> {
        static WRITTEN: AtomicU64 = AtomicU64::new(0);
        let kept = Kept {
            sha256: Hash32(Sha256::digest(text.as_bytes()).into()),
            bytes: u64::try_from(text.len()).expect("a length fits"),
        };
        if !self.directory.is_dir() {
            DirBuilder::new().mode(0o700).recursive(true).create(&self.directory)?;
            if let Some(parent) = self.directory.parent().filter(|parent| *parent != Path::new("")) {
                File::open(parent)?.sync_all()?;
            }
        }
        let n = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let new = self.directory.join(format!("{UNFINISHED}{}-{n}", std::process::id()));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        if let Err(error) = written.and_then(|()| fs::rename(&new, self.path(kept.sha256))) {
            fs::remove_file(&new).ok();
            return Err(error);
        }
        File::open(&self.directory)?.sync_all()?;
        Ok(kept)
    }

    /// The whole text, as it was kept.
    pub(super) fn whole(&self, sha256: Hash32) -> io::Result<String> {
        let text = fs::read(self.path(sha256))?;
        if Sha256::digest(&text)[..] != sha256.0 {
            return Err(damaged("the file is not what was kept"));
        }
        String::from_utf8(text).map_err(|_| damaged("the file is no text"))
    }

    /// How many bytes it has.
    pub(super) fn length(&self, sha256: Hash32) -> io::Result<u64> {
        Ok(fs::metadata(self.path(sha256))?.len())
    }

    /// These bytes of it.
    pub(super) fn bytes(&self, sha256: Hash32, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        let mut file = File::open(self.path(sha256))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(length).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// The characters that begin within these bytes: parts that follow each other hold each character once.
    pub(super) fn part(&self, sha256: Hash32, offset: u64, length: u64) -> io::Result<Part> {
        // A character has four bytes at most.
        let bytes = self.bytes(sha256, offset, length.saturating_add(3))?;
        let continues = |byte: &u8| byte & 0b1100_0000 == 0b1000_0000;
        let skipped = bytes.iter().take_while(|byte| continues(byte)).count();
        let limit = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len());
        let more = bytes[limit..].iter().take_while(|byte| continues(byte)).count();
        let text = bytes.get(skipped..limit + more).unwrap_or_default().to_vec();
        let text = String::from_utf8(text).map_err(|_| damaged("the file is no text"))?;
        Ok(Part { offset: offset + skipped as u64, text })
    }

    /// What is wrong with a kept text; none where it is there as it was kept.
    pub(super) fn fault(&self, kept: Kept) -> Option<String> {
        match self.whole(kept.sha256) {
            Ok(text) if text.len() as u64 == kept.bytes => None,
            Ok(text) => {
                Some(format!("the file of its answer has {} bytes and not {}", text.len(), kept.bytes))
            }
            Err(error) => Some(format!("the file {} of its answer: {error}", kept.sha256)),
        }
    }

    /// Removes every file but those of `wanted`. Gives how many that were.
    pub(super) fn keep_only(&self, wanted: impl Fn(Hash32) -> bool) -> io::Result<usize> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            entries => entries?,
        };
        let mut removed = 0;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_ours = match name.parse() {
                Ok(sha256) => !wanted(sha256),
                // What is neither an answer nor half of one was put there by somebody else.
                Err(_) => name.starts_with(UNFINISHED),
            };
            if is_ours {
                fs::remove_file(entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn path(&self, sha256: Hash32) -> PathBuf {
        self.directory.join(sha256.to_string())
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn files() -> (tempfile::TempDir, Files) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let files = Files::beside(&directory.path().join("journal.redb"));
        (directory, files)
    }

    fn names(files: &Files) -> Vec<String> {
        let entries = fs::read_dir(&files.directory).expect("readable");
        entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn what_is_alike_is_one_file_of_its_owner() {
        let (_directory, files) = files();
        let one = files.put("{}").expect("writable");
        assert_eq!(files.put("{}").expect("writable"), one);
        assert_eq!(names(&files), [one.sha256.to_string()]);
        assert_eq!(files.whole(one.sha256).expect("readable"), "{}");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&files.directory), mode(&files.path(one.sha256))), (0o700, 0o600));
        assert_eq!(files.fault(one), None);
    }

    #[test]
    fn a_file_that_was_changed_is_noticed() {
        let (_directory, files) = files();
        let kept = files.put("abc").expect("writable");
        fs::write(files.path(kept.sha256), "abd").expect("writable");
        assert!(files.whole(kept.sha256).is_err());
        assert!(files.fault(kept).is_some());
        fs::remove_file(files.path(kept.sha256)).expect("writable");
        assert!(files.fault(kept).is_some());
    }

    #[test]
    fn parts_hold_each_character_once() {
        let (_directory, files) = files();
        let text = "aé€😀".repeat(7);
        let kept = files.put(&text).expect("writable");
        for length in 1..20 {
            let mut whole = String::new();
            let mut offset = 0;
            while offset < kept.bytes {
                let part = files.part(kept.sha256, offset, length).expect("readable");
                whole += &part.text;
                offset += length;
            }
            assert_eq!(whole, text, "in parts of {length}");
        }
        assert_eq!(files.part(kept.sha256, kept.bytes + 9, 5).expect("readable").text, "");
    }

    #[test]
    fn what_nobody_wants_is_removed() {
        let (_directory, files) = files();
        assert_eq!(files.keep_only(|_| false).expect("nothing is there"), 0);
        let [one, two] = ["1", "2"].map(|text| files.put(text).expect("writable").sha256);
        // As left by a process that was killed while it wrote.
        fs::write(files.directory.join("new-1-1"), "half").expect("writable");
        fs::write(files.directory.join("README"), "mine").expect("writable");
        assert_eq!(files.keep_only(|sha256| sha256 == two).expect("writable"), 2);
        assert!(files.whole(one).is_err());
        assert_eq!(names(&files).len(), 2);
    }
}
