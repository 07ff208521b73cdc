//! The journal's file: who may have it, what is said when it cannot be had, and what follows a failed write.

#![cfg(feature = "redb")]

mod facts;
mod medium;

use std::{fs, io, path::Path};

use ::redb::{Database, ReadableTable as _, TableDefinition};
use facts::*;
use holdfast_store::{Durability, Filter, Journal, JournalError, KeySource, Millis, Options, Redb, Refusal};
use medium::{Disk, Fault};

fn open(path: &Path) -> Result<Redb, JournalError> {
    Redb::open(path, Options::default())
}

#[track_caller]
fn unreadable(path: &Path, because: &str) {
    match open(path) {
        Err(JournalError::Unreadable(what)) => {
            assert!(what.starts_with(&*path.to_string_lossy()) && what.contains(because), "{what}");
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused_by_the_medium(path: &Path, because: &str) {
    match open(path) {
        Err(JournalError::Io(what)) => {
            assert!(what.starts_with(&*path.to_string_lossy()) && what.contains(because), "{what}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_process_has_it_at_a_time() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("journal.redb");
    let journal = open(&path).expect("a new journal");
    match open(&path) {
        Err(JournalError::Locked { place }) => assert_eq!(place, path.to_string_lossy()),
        other => panic!("{other:?}"),
    }
    submit(&journal, fresh(1, vec![])).wait().expect("the first opener is not disturbed");
    drop(journal);
    open(&path).expect("free again");
}

#[test]
fn a_cursor_that_was_acknowledged_survives_a_kill() {
    let disk = Disk::default();
    let journal = Redb::open_with_backend(disk.clone(), Options::default()).expect("a new journal");
    journal.set_cursor("notify/ops", 5).expect("writable");
    let left = Disk::holding(disk.bytes());
    let again = Redb::open_with_backend(left, Options::default()).expect("whole");
    assert_eq!(again.cursor("notify/ops").expect("readable"), Some(5));
}

#[test]
fn what_was_kept_survives_a_kill() {
    let disk = Disk::default();
    let journal = Redb::open_with_backend(disk.clone(), Options::default()).expect("a new journal");
    journal.keep(vec![("a".to_owned(), Some(b"1".to_vec()))]).expect("writable");
    let left = Disk::holding(disk.bytes());
    let again = Redb::open_with_backend(left, Options::default()).expect("whole");
    assert_eq!(again.kept("").expect("readable"), [("a".to_owned(), b"1".to_vec())]);
}

#[test]
fn a_journal_made_before_there_were_cursors_gets_them() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("journal.redb");
    drop(open(&path).expect("a new journal"));
    let file = Database::open(&path).expect("nobody has it open");
    let txn = file.begin_write().expect("writable");
    let cursors: TableDefinition<'_, &str, u64> = TableDefinition::new("cursors");
    assert!(txn.delete_table(cursors).expect("writable"), "the table is there");
    let kept: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("kept");
    assert!(txn.delete_table(kept).expect("writable"), "the table is there");
    txn.commit().expect("writable");
    drop(file);
    let journal = open(&path).expect("an older journal");
    assert_eq!(journal.cursor("notify/ops").expect("readable"), None);
    journal.set_cursor("notify/ops", 1).expect("writable");
    assert_eq!(journal.cursor("notify/ops").expect("readable"), Some(1));
    assert_eq!(journal.kept("").expect("readable"), []);
}

#[test]
fn a_new_file_is_its_owners_only() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("journal.redb");
    // As left by a process with our number that was killed while it made a journal.
    for n in 0..20 {
        let left = format!("journal.redb.new-{}-{n}", std::process::id());
        fs::write(directory.path().join(left), "half").expect("written");
    }
    drop(open(&path).expect("a new journal"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(&path).expect("it exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{mode:o}");
    }
    let names: Vec<_> = fs::read_dir(directory.path())
        .expect("readable")
        .map(|file| file.expect("a file").file_name())
        .collect();
    assert_eq!(names.len(), 1 + 19, "the one name that was tried is free again: {names:?}");
}

#[test]
fn many_openers_of_a_new_file_get_one_journal() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("journal.redb");
    let opened = std::thread::scope(|scope| {
        let openers: Vec<_> = (0..8).map(|_| scope.spawn(|| open(&path))).collect();
        openers.into_iter().map(|opener| opener.join().expect("no panic")).collect::<Vec<_>>()
    });
    assert_eq!(opened.iter().filter(|journal| journal.is_ok()).count(), 1, "{opened:?}");
}

#[test]
fn a_missing_directory_is_named() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let missing = directory.path().join("nowhere");
    let because = format!("the directory {} does not exist", missing.display());
    refused_by_the_medium(&missing.join("journal.redb"), &because);
    assert!(!missing.exists());
}

#[test]
fn a_directory_is_no_journal() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    refused_by_the_medium(directory.path(), "directory");
}

#[test]
fn another_file_is_left_as_it_is() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("notes.txt");
    let notes = "not a journal\n".repeat(1000);
    fs::write(&path, &notes).expect("written");
    unreadable(&path, "it is not a journal of holdfast");
    assert_eq!(fs::read_to_string(&path).expect("readable"), notes);
}

#[test]
fn a_damaged_file_is_an_error_and_no_panic() {
    medium::quiet_redb();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("journal.redb");
    let journal = open(&path).expect("a new journal");
    for n in 1..=200 {
        submit(&journal, fresh(n, vec![key(KeySource::Explicit, &n.to_string())])).wait().expect("an append");
    }
    drop(journal);
    let whole = fs::read(&path).expect("readable");
    let (mut errors, mut dice) = (0, medium::Dice(7));
    for _ in 0..60 {
        let mut damaged = whole.clone();
        let at = 320 + dice.roll(damaged.len() - 320 - 4096);
        damaged[at..at + 4096].fill(0x5a);
        fs::write(&path, &damaged).expect("written");
        let readings = open(&path).and_then(|journal| {
            journal
                .verify(&mut |_| {})
                .map_err(|error| JournalError::Unreadable(format!("{error:?}").into()))?;
            journal.list(&Filter { limit: 1000, ..Filter::default() })
        });
        errors += usize::from(readings.is_err());
    }
    assert!(errors > 10, "only {errors} of 60 kinds of damage were noticed");
}

#[test]
fn a_newer_schema_and_newer_entries_are_refused_by_name() {
    const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
    const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("journal.redb");
    let journal = open(&path).expect("a new journal");
    submit(&journal, fresh(1, vec![])).wait().expect("an append");
    drop(journal);

    let edit = |edit: &dyn Fn(&::redb::WriteTransaction)| {
        let file = Database::open(&path).expect("the file opens");
        let txn = file.begin_write().expect("a transaction");
        edit(&txn);
        txn.commit().expect("a commit");
    };
    edit(&|txn| {
        let mut log = txn.open_table(LOG).expect("the log");
        let mut row = log.get(2).expect("readable").expect("the row").value().to_vec();
        row[92] = 9;
        log.insert(2, row.as_slice()).expect("writable");
    });
    match open(&path).expect("the schema is known").history(call(1)) {
        Err(JournalError::Unreadable(what)) => {
            assert!(what.contains("an entry has format 9; this version of holdfast reads 1"), "{what}");
        }
        other => panic!("{other:?}"),
    }
    edit(&|txn| {
        txn.open_table(META).expect("meta").insert("format", [2u8].as_slice()).expect("writable");
    });
    unreadable(&path, "this version of holdfast reads 1");
}

#[test]
fn a_failure_at_any_operation_ends_the_journal_and_loses_nothing() {
    for durability in [Durability::TwoPhase, Durability::OnePhase] {
        let mut failures = 0;
        for at in (0..).step_by(3) {
            if !failing_at(Fault { at, kind: io::ErrorKind::StorageFull }, durability) {
                break;
            }
            failures += 1;
        }
        println!("{durability:?}: failed at {failures} operations");
        assert!(failures > 40, "only {failures} operations");
    }
}

/// False once the fault is so far away that nothing hits it.
fn failing_at(fault: Fault, durability: Durability) -> bool {
    let options = Options { durability, cache_bytes: 32 << 10, ..Options::default() };
    let disk = Disk::failing(fault);
    let journal = match Redb::open_with_backend(disk.clone(), options) {
        Ok(journal) => journal,
        Err(JournalError::Io(what)) => {
            assert!(what.contains("no storage space"), "{fault:?}: {what}");
            return true;
        }
        Err(other) => panic!("{fault:?}: {other}"),
    };
    let answers: Vec<_> = (1..=12)
        .map(|n| submit(&journal, fresh(n, vec![key(KeySource::Explicit, &n.to_string())])).wait())
        .collect();
    let made = answers.iter().take_while(|answer| answer.is_ok()).count();
    for answer in &answers[made..] {
        assert!(matches!(answer, Err(Refusal::Failed(JournalError::Io(_)))), "{fault:?}: {answer:?}");
    }
    if let Some(Err(Refusal::Failed(error))) = answers.get(made) {
        assert!(error.to_string().contains("no storage space"), "the first error tells the reason: {error}");
        // Nothing works any more, and says why.
        for error in [
            journal.health().expect_err("not well"),
            journal.history(call(1)).expect_err("no history"),
            journal.summary(call(1)).expect_err("no summary"),
            journal.unfinished().expect_err("no listing"),
            journal.prune(Millis(0), Millis(0), 1).expect_err("no pruning"),
        ] {
            assert!(error.to_string().contains("no storage space"), "{error}");
        }
    }
    drop(journal);
    let failed = disk.has_failed();
    // The disk works again, and the machine was not even switched off.
    let journal = Redb::open_with_backend(Disk::holding(disk.bytes()), options)
        .unwrap_or_else(|error| panic!("{fault:?}: {error}"));
    journal.verify(&mut |_| {}).unwrap_or_else(|error| panic!("{fault:?}: {error:?}"));
    for n in 1..=made as u32 {
        assert_eq!(journal.history(call(n)).expect("readable").len(), 2, "{fault:?}: acknowledged call {n}");
    }
    submit(&journal, fresh(100, vec![])).wait().unwrap_or_else(|refusal| panic!("{fault:?}: {refusal:?}"));
    failed
}
