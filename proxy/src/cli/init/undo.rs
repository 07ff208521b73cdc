//! `holdfast init --undo`: files become what they were, where nobody has changed them since.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::super::{
    Done, out,
    setup::{
        failed,
        files::{self, Record, Undone},
        short,
    },
};

/// Where it stands what `init` did.
pub(super) fn record(config: &Path) -> PathBuf {
    config.with_file_name("holdfast-init.json")
}

/// Takes back everything that can be, latest first.
///
/// # Errors
/// Where nothing was done, or a file cannot be written.
pub(super) fn run(config: &Path, home: &Path) -> Done {
    let file = record(config);
    let mut record = Record::read(&file).map_err(|error| {
        failed(
            format!("{} cannot be read: {error}", file.display()),
            "The backups lie beside the files: FILE.holdfast-TIME.bak.",
        )
    })?;
    if record.changes.is_empty() {
        out::talk(&format!("Nothing to take back: there is no {}.", short(&file, home)));
        return Ok(ExitCode::SUCCESS);
    }
    let mut left = Vec::new();
    while let Some(change) = record.changes.pop() {
        // Our own files stay as long as a client relies on them.
        let is_ours = change.file.parent().map(Path::to_owned)
            == file.parent().and_then(|folder| folder.canonicalize().ok());
        if is_ours && !left.is_empty() {
            out::talk(&format!("kept {}, which the above still needs", short(&change.file, home)));
            left.push(change);
            continue;
        }
        let undone = files::undo(&change)
            .map_err(|error| failed(error.to_string(), "Mend that, and run it again."))?;
        let name = short(&change.file, home);
        match undone {
            Undone::Restored => out::talk(&format!("restored {name}")),
            Undone::Partly => {
                out::talk(&format!("restored the servers in {name}; what else was changed since stays"))
            }
            Undone::Removed => out::talk(&format!("removed {name}")),
            Undone::NoBackup => out::talk(&format!("left {name} alone: its backup is gone")),
            Undone::Changed => {
                let backup =
                    change.backup.as_ref().map(|backup| format!("; as it was: {}", short(backup, home)));
                out::talk(&format!(
                    "left {name} alone: it was changed since{}",
                    backup.unwrap_or_else(|| "; delete it yourself if you want".to_owned())
                ));
                left.push(change);
            }
        }
    }
    left.reverse();
    let all = left.is_empty();
    let rest = Record { changes: left };
    rest.write(&file)
        .map_err(|error| failed(format!("{}: {error}", file.display()), "Check its permissions."))?;
    if let Some(folder) = file.parent().filter(|_| all) {
        // Only where nothing is left in it: a journal stays, and so does its folder.
        let _ = std::fs::remove_dir(folder);
    }
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
