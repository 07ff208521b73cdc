//! Changing files of others so that it can be taken back: a backup beside each, and a record of what was done.
//!
//! The record is written before the file it speaks of. Killed in between, a file is still what its backup says, which
//! `undo` sees; killed before that, there is a backup too many.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::import::{Client, Node, Syntax};

/// What was done to files, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cli) struct Record {
    /// Each change.
    pub(in crate::cli) changes: Vec<Change>,
}

/// One file that was changed or made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cli) struct Change {
    /// The file.
    pub(in crate::cli) file: PathBuf,
    /// What it was before; none where it was not there.
    pub(in crate::cli) backup: Option<PathBuf>,
    /// The hash (SHA-256, hex) of what was written.
    pub(in crate::cli) wrote: String,
    /// The parts of the file that the change was about, where they can be told from the rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::cli) parts: Vec<Part>,
}

/// A part of a JSON file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cli) struct Part {
    path: Vec<String>,
    /// The hash of its value as it was written, whatever its layout.
    wrote: String,
}

/// Where a change is noted, and what it is about.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Noted<'a> {
    /// The record.
    pub(in crate::cli) record: &'a Path,
    /// The names under which the parts stand that change.
    pub(in crate::cli) parts: &'a [Vec<String>],
}

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Readers {
    /// Whoever could before; of a new file everybody.
    Same,
    /// Its owner only.
    Owner,
}

impl Record {
    /// What the file says; nothing where it is not there.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(in crate::cli) fn read(file: &Path) -> io::Result<Self> {
        match fs::read(file) {
            Ok(content) => Ok(serde_json::from_slice(&content)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Writes it whole; where nothing is left, the file goes.
    ///
    /// # Errors
    /// Where that is not possible.
    pub(in crate::cli) fn write(&self, file: &Path) -> io::Result<()> {
        if self.changes.is_empty() {
            return remove(file);
        }
        let text = serde_json::to_string_pretty(self)? + "\n";
        replace(file, text.as_bytes(), Readers::Owner)
    }
}

/// Replaces `file`, keeping what was there beside it, and notes that in the record. Returns the backup.
///
/// # Errors
/// What failed, by its file. Nothing is half done then.
pub(in crate::cli) fn change(
    file: &Path,
    content: &str,
    readers: Readers,
    noted: &Noted<'_>,
) -> io::Result<Option<PathBuf>> {
    let record = noted.record;
    // Where a file is a link, the one it means is changed, and the link stays.
    let file = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let backup = match fs::read(&file) {
        Ok(before) => Some(back_up(&file, &before).map_err(|error| named(&file, &error))?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(named(&file, &error)),
    };
    let mut done = Record::read(record).map_err(|error| named(record, &error))?;
    let parts = parts(&file, content, noted.parts);
    done.changes.push(Change {
        file: file.clone(),
        backup: backup.clone(),
        wrote: hash(content.as_bytes()),
        parts,
    });
    done.write(record).map_err(|error| named(record, &error))?;
    replace(&file, content.as_bytes(), readers).map_err(|error| named(&file, &error))?;
    Ok(backup)
}

/// What came of taking a change back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Undone {
    /// It is what it was.
    Restored,
    /// The servers are what they were; what else has changed since stayed.
    Partly,
    /// What was made is gone.
    Removed,
    /// Somebody else has changed it since, so it was left alone.
    Changed,
    /// Its backup is gone.
    NoBackup,
}

/// Takes one change back, where the file is still what was written then.
///
/// # Errors
/// What failed, by its file.
pub(in crate::cli) fn undo(change: &Change) -> io::Result<Undone> {
    let now = match fs::read(&change.file) {
        Ok(content) => Some(content),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(named(&change.file, &error)),
    };
    let is_ours = now.as_ref().is_some_and(|now| hash(now) == change.wrote);
    let Some(backup) = &change.backup else {
        return match (is_ours, now) {
            (true, _) => fs::remove_file(&change.file)
                .map(|()| Undone::Removed)
                .map_err(|error| named(&change.file, &error)),
            (false, None) => Ok(Undone::Removed),
            (false, Some(_)) => Ok(Undone::Changed),
        };
    };
    let before = match fs::read(backup) {
        Ok(before) => before,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Undone::NoBackup),
        Err(error) => return Err(named(backup, &error)),
    };
    if is_ours {
        // Mode, owner and times came with the backup.
        fs::rename(backup, &change.file).map_err(|error| named(&change.file, &error))?;
        return Ok(Undone::Restored);
    }
    let Some(now) = now else { return Ok(Undone::Changed) };
    let undone = match now == before {
        true => Undone::Restored,
        // Some clients write into their file at each start, and seldom about servers.
        false => match spliced(change, &now, &before) {
            Some(text) => {
                replace(&change.file, text.as_bytes(), Readers::Same)
                    .map_err(|error| named(&change.file, &error))?;
                Undone::Partly
            }
            None => return Ok(Undone::Changed),
        },
    };
    remove(backup).map_err(|error| named(backup, &error))?;
    Ok(undone)
}

fn parts(file: &Path, content: &str, paths: &[Vec<String>]) -> Vec<Part> {
    if Client::of(file).syntax() != Syntax::Json {
        return Vec::new();
    }
    let Ok(tree) = Node::parse(content, Syntax::Json) else { return Vec::new() };
    let part = |path: &Vec<String>| {
        let wrote = hash(at(&tree, path)?.to_json().to_string().as_bytes());
        Some(Part { path: path.clone(), wrote })
    };
    paths.iter().map(part).collect::<Option<_>>().unwrap_or_default()
}

/// What is there now, with the parts as they were; none where somebody has changed those, too.
fn spliced(change: &Change, now: &[u8], before: &[u8]) -> Option<String> {
    let (now, before) = (std::str::from_utf8(now).ok()?, std::str::from_utf8(before).ok()?);
    let [new, old] = [now, before].map(|text| Node::parse(text, Syntax::Json).ok());
    let (new, old) = (new?, old?);
    let mut spans = Vec::new();
    for part in &change.parts {
        let there = at(&new, &part.path)?;
        if hash(there.to_json().to_string().as_bytes()) != part.wrote {
            return None;
        }
        spans.push((there.at.clone(), before.get(at(&old, &part.path)?.at.clone())?));
    }
    spans.sort_by_key(|(span, _)| std::cmp::Reverse(span.start));
    let mut text = now.to_owned();
    for (span, was) in &spans {
        text.replace_range(span.clone(), was);
    }
    (!spans.is_empty()).then_some(text)
}

fn at<'n>(tree: &'n Node, path: &[String]) -> Option<&'n Node> {
    path.iter().try_fold(tree, |node, name| node.get(name))
}

/// Writes `file` whole: readers see the old content or the new one.
///
/// # Errors
/// Where that is not possible.
pub(in crate::cli) fn replace(file: &Path, content: &[u8], readers: Readers) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    let before = fs::metadata(file).ok();
    let mode = match (readers, &before) {
        (Readers::Owner, _) => 0o600,
        (Readers::Same, Some(before)) => before.permissions().mode() & 0o7777,
        (Readers::Same, None) => 0o644,
    };
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let fresh = folder.join(name);
    remove(&fresh)?;
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    let written = out.write_all(content).and_then(|()| own(&out, &fresh, mode, before.as_ref()));
    drop(out);
    written.and_then(|()| fs::rename(&fresh, file)).inspect_err(|_| _ = remove(&fresh))?;
    // The name is part of the folder.
    File::open(folder)?.sync_all()
}

fn own(out: &File, path: &Path, mode: u32, before: Option<&fs::Metadata>) -> io::Result<()> {
    if let Some(before) = before {
        // Only root can give a file away; everybody else has their own files here.
        let _ = std::os::unix::fs::chown(path, Some(before.uid()), Some(before.gid()));
    }
    out.set_permissions(fs::Permissions::from_mode(mode))?;
    out.sync_all()
}

fn back_up(file: &Path, content: &[u8]) -> io::Result<PathBuf> {
    let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let mut numbers = (1_u32..).map(|n| if n == 1 { String::new() } else { format!("-{n}") });
    let named = |number: String| {
        let mut name = file.as_os_str().to_owned();
        name.push(format!(".holdfast-{stamp}{number}.bak"));
        PathBuf::from(name)
    };
    let backup = numbers.find_map(|number| Some(named(number)).filter(|backup| !backup.exists()));
    let backup = backup.expect("there is always one more number");
    let before = fs::metadata(file)?;
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&backup)?;
    let written = out
        .write_all(content)
        .and_then(|()| own(&out, &backup, before.permissions().mode() & 0o7777, Some(&before)));
    written.inspect_err(|_| _ = remove(&backup))?;
    Ok(backup)
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn hash(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn named(file: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(file: &Path) -> u32 {
        fs::metadata(file).expect("it exists").permissions().mode() & 0o777
    }

    #[test]
    fn what_was_changed_can_be_taken_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let [file, made, record] =
            ["a.json", "b.json", "record.json"].map(|name| directory.path().join(name));
        fs::write(&file, "before").expect("writable");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("ours");
        let backup = change(&file, "after", Readers::Same, &Noted { record: &record, parts: &[] })
            .expect("changes")
            .expect("was there");
        assert_eq!(
            change(&made, "new", Readers::Owner, &Noted { record: &record, parts: &[] }).expect("makes"),
            None
        );
        assert_eq!(fs::read_to_string(&file).expect("readable"), "after");
        assert_eq!((mode(&file), mode(&backup), mode(&made), mode(&record)), (0o640, 0o640, 0o600, 0o600));
        let done = Record::read(&record).expect("readable");
        assert_eq!(done.changes.len(), 2);
        assert_eq!(undo(&done.changes[1]).expect("undoes"), Undone::Removed);
        assert_eq!(undo(&done.changes[0]).expect("undoes"), Undone::Restored);
        assert_eq!(fs::read_to_string(&file).expect("readable"), "before");
        assert_eq!((mode(&file), backup.exists(), made.exists()), (0o640, false, false));
        // Once more: nothing is lost.
        assert_eq!(undo(&done.changes[0]).expect("undoes"), Undone::NoBackup);
        assert_eq!(undo(&done.changes[1]).expect("undoes"), Undone::Removed);
    }

    #[test]
    fn what_others_changed_since_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let [file, record] = ["a.json", "record.json"].map(|name| directory.path().join(name));
        fs::write(&file, "before").expect("writable");
        let backup = change(&file, "after", Readers::Same, &Noted { record: &record, parts: &[] })
            .expect("changes")
            .expect("was there");
        let done = Record::read(&record).expect("readable");
        fs::write(&file, "mine").expect("writable");
        assert_eq!(undo(&done.changes[0]).expect("looks"), Undone::Changed);
        assert!(backup.exists());
        // Killed between the record and the file: it is what it was.
        fs::write(&file, "before").expect("writable");
        assert_eq!(undo(&done.changes[0]).expect("looks"), Undone::Restored);
        assert!(!backup.exists());
    }

    #[test]
    fn what_a_client_writes_about_other_things_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let [file, record] = ["a.json", "record.json"].map(|name| directory.path().join(name));
        fs::write(&file, "{\"n\": 1, \"mcpServers\": {\"a\":  {}}}").expect("writable");
        let parts = [vec!["mcpServers".to_owned()]];
        let noted = Noted { record: &record, parts: &parts };
        change(&file, "{\"n\": 1, \"mcpServers\": {\"h\": 1}}", Readers::Same, &noted).expect("changes");
        let done = Record::read(&record).expect("readable");
        fs::write(&file, "{\"n\": 2,\n \"mcpServers\": {\n \"h\": 1}, \"new\": []}").expect("writable");
        assert_eq!(undo(&done.changes[0]).expect("undoes"), Undone::Partly);
        let text = fs::read_to_string(&file).expect("readable");
        assert_eq!(text, "{\"n\": 2,\n \"mcpServers\": {\"a\":  {}}, \"new\": []}");
    }

    #[test]
    fn a_link_stays_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let [file, link, record] =
            ["real.json", "a.json", "record.json"].map(|name| directory.path().join(name));
        fs::write(&file, "before").expect("writable");
        std::os::unix::fs::symlink(&file, &link).expect("links");
        change(&link, "after", Readers::Same, &Noted { record: &record, parts: &[] }).expect("changes");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(fs::read_to_string(&file).expect("readable"), "after");
    }
}
