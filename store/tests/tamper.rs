//! Whoever edits the file behind our back is found out by `verify`.

#![cfg(feature = "redb")]

mod facts;

use std::{path::PathBuf, sync::Arc};

use ::redb::{Database, ReadableTable as _, Table, TableDefinition};
use facts::*;
use holdfast_store::{
    Attempt, Entry, Hash32, Journal, Millis, Options, Redb, Verified, VerifyError, hash_fields,
};
use tempfile::TempDir;

type Log<'t> = Table<'t, u64, &'static [u8]>;
type Calls<'t> = Table<'t, &'static [u8; 16], &'static [u8]>;
type Meta<'t> = Table<'t, &'static str, &'static [u8]>;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const CALLS: TableDefinition<'_, &[u8; 16], &[u8]> = TableDefinition::new("calls");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// Where a row of the log keeps its parts: call, number, time, content hash, link, frame.
const N: usize = 16;
const AT: usize = 20;
const CONTENT: usize = 28;
const LINK: usize = 60;
const FRAME: usize = 92;

struct Victim {
    directory: TempDir,
}

impl Victim {
    /// Five calls of three entries each; entry 3k + 3 ends call k + 1.
    fn new() -> Self {
        let victim = Self { directory: tempfile::tempdir().expect("a temporary directory") };
        let journal = victim.open();
        for n in 1..=5 {
            submit(&journal, fresh(n, vec![])).wait().expect("a new call");
            let answer = answer(&format!(r#"{{"content":[{n}]}}"#));
            let answered = Entry::Answered { attempt: Attempt(1), answer, kept: None };
            submit(&journal, append(call(n), 10 + u64::from(n), 2, vec![answered]))
                .wait()
                .expect("its answer");
        }
        drop(journal);
        victim
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("journal.redb")
    }

    fn open(&self) -> Redb {
        Redb::open(&self.path(), Options::default()).expect("the journal opens")
    }

    fn verify(&self) -> Result<Verified, VerifyError> {
        self.open().verify(&mut |_| {})
    }

    fn edit(&self, edit: impl FnOnce(&mut Log<'_>, &mut Calls<'_>, &mut Meta<'_>)) {
        let file = Database::open(self.path()).expect("the file opens");
        let txn = file.begin_write().expect("a transaction");
        let mut log = txn.open_table(LOG).expect("the log");
        let mut calls = txn.open_table(CALLS).expect("the lines");
        let mut meta = txn.open_table(META).expect("the head");
        edit(&mut log, &mut calls, &mut meta);
        drop((log, calls, meta));
        txn.commit().expect("a commit");
    }

    fn edit_log(&self, edit: impl FnOnce(&mut Log<'_>)) {
        self.edit(|log, _, _| edit(log));
    }

    /// Where and how `verify` finds the journal broken.
    #[track_caller]
    fn is_broken(&self, at: u64, how: &str) {
        match self.verify() {
            Err(VerifyError::Broken { seq, what }) => {
                assert!(seq == at && what.contains(how), "broken at {seq}: {what}");
            }
            other => panic!("{other:?}"),
        }
    }
}

fn row(log: &Log<'_>, seq: u64) -> Vec<u8> {
    log.get(seq).expect("readable").expect("the row exists").value().to_vec()
}

fn put(log: &mut Log<'_>, seq: u64, row: &[u8]) {
    log.insert(seq, row).expect("writable");
}

/// Chains the rows from `from` on anew, as somebody would who knows how the chain is made.
fn rechain(log: &mut Log<'_>, from: u64) -> (u64, Hash32) {
    let rows: Vec<_> = log.iter().expect("readable").map(|row| row.expect("a row").0.value()).collect();
    let mut before = match from {
        1 => [0; 32],
        _ => row(log, from - 1)[LINK..FRAME].try_into().expect("32 bytes"),
    };
    for seq in rows.iter().copied().filter(|&seq| seq >= from) {
        let mut changed = row(log, seq);
        let parts: [&[u8]; 6] = [
            &before,
            &seq.to_be_bytes(),
            &changed[..N],
            &changed[N..AT],
            &changed[AT..CONTENT],
            &changed[CONTENT..LINK],
        ];
        before = hash_fields("holdfast/link", &parts).0;
        changed[LINK..FRAME].copy_from_slice(&before);
        put(log, seq, &changed);
    }
    (rows.last().copied().unwrap_or(0), Hash32(before))
}

fn put_head(meta: &mut Meta<'_>, (seq, link): (u64, Hash32)) {
    let mut head = meta.get("head").expect("readable").expect("a head").value().to_vec();
    head[..8].copy_from_slice(&seq.to_be_bytes());
    head[8..40].copy_from_slice(&link.0);
    meta.insert("head", head.as_slice()).expect("writable");
}

#[test]
fn an_untouched_journal_verifies() {
    let victim = Victim::new();
    let verified = victim.verify().expect("whole");
    assert_eq!((verified.entries, verified.pruned), (15, 0));
    // An edit that changes nothing, so that the other tests fail for their changes and not for having edited.
    victim.edit(|log, _, meta| {
        let head = rechain(log, 1);
        put_head(meta, head);
    });
    assert_eq!(victim.verify().expect("whole"), verified);
}

#[test]
fn progress_is_told() {
    let victim = Victim::new();
    let journal = Arc::new(victim.open());
    let many: Vec<_> = (10..5010).map(|n| submit(&*journal, fresh(n, vec![]))).collect();
    many.into_iter().for_each(|pending| assert!(pending.wait().is_ok()));
    let mut heard = Vec::new();
    journal.verify(&mut |count| heard.push(count)).expect("whole");
    assert_eq!(heard, [10_000]);
}

#[test]
fn edited_content_is_found() {
    let victim = Victim::new();
    victim.edit_log(|log| {
        let mut edited = row(log, 6);
        *edited.last_mut().expect("a frame") = b' ';
        put(log, 6, &edited);
    });
    victim.is_broken(6, "content");
}

#[test]
fn every_field_of_an_entry_is_covered() {
    for byte in [0, N - 1, N, AT - 1, AT, CONTENT - 1, CONTENT, LINK - 1, LINK, FRAME - 1] {
        let victim = Victim::new();
        victim.edit_log(|log| {
            let mut edited = row(log, 6);
            edited[byte] ^= 1;
            put(log, 6, &edited);
        });
        victim.is_broken(6, if (CONTENT..LINK).contains(&byte) { "content" } else { "link" });
    }
}

#[test]
fn content_with_its_hash_is_found_by_the_next_link() {
    let victim = Victim::new();
    victim.edit(|log, _, _| {
        let answer = row(log, 3)[CONTENT..].to_vec();
        let mut edited = row(log, 6);
        edited.truncate(CONTENT);
        edited.extend(&answer);
        put(log, 6, &edited);
    });
    victim.is_broken(6, "link");
    // And with this link, by the one after it.
    victim.edit_log(|log| {
        let after: Vec<_> = (7..=15).map(|seq| row(log, seq)).collect();
        rechain(log, 6);
        (7..).zip(after).for_each(|(seq, row)| put(log, seq, &row));
    });
    victim.is_broken(7, "link");
}

#[test]
fn a_removed_entry_is_found() {
    for seq in [1, 6, 14] {
        let victim = Victim::new();
        victim.edit_log(|log| drop(log.remove(seq).expect("writable")));
        victim.is_broken(seq, "missing");
    }
}

#[test]
fn a_removed_entry_is_found_when_the_others_move_up() {
    let victim = Victim::new();
    victim.edit_log(|log| {
        for seq in 6..15 {
            let next = row(log, seq + 1);
            put(log, seq, &next);
        }
        log.remove(15).expect("writable");
    });
    victim.is_broken(6, "link");
    victim.edit(|log, _, meta| {
        let head = rechain(log, 6);
        put_head(meta, head);
    });
    victim.is_broken(5, "call 0");
}

#[test]
fn an_inserted_entry_is_found() {
    let victim = Victim::new();
    victim.edit_log(|log| {
        let last = row(log, 15);
        put(log, 16, &last);
    });
    victim.is_broken(16, "link");
    victim.edit_log(|log| {
        rechain(log, 16);
    });
    victim.is_broken(16, "its number");
    // With a fitting number it is one entry more than the head and the call's line know of.
    victim.edit_log(|log| {
        let mut again = row(log, 16);
        again[N..AT].copy_from_slice(&3u32.to_be_bytes());
        let joined = holdfast_store::codec::encode(&joined());
        again.truncate(FRAME);
        again[CONTENT..LINK].copy_from_slice(&sha256(&joined));
        again.extend(joined);
        put(log, 16, &again);
        rechain(log, 16);
    });
    victim.is_broken(16, "the last known entry is 15");
    victim.edit(|log, _, meta| {
        let head = rechain(log, 16);
        put_head(meta, head);
    });
    victim.is_broken(16, "has 4 entries and should have 3");
}

#[test]
fn reordered_entries_are_found() {
    let victim = Victim::new();
    victim.edit_log(|log| {
        let (one, other) = (row(log, 3), row(log, 6));
        put(log, 3, &other);
        put(log, 6, &one);
    });
    victim.is_broken(3, "link");
    // With new links everywhere, what is left to see is that a call begins with its third entry.
    victim.edit(|log, _, meta| {
        let head = rechain(log, 3);
        put_head(meta, head);
    });
    victim.is_broken(3, "its number");
}

#[test]
fn a_cut_tail_is_found() {
    let victim = Victim::new();
    victim.edit_log(|log| drop(log.remove(15).expect("writable")));
    victim.is_broken(15, "missing");
    // Whoever sets the head back as well still has the call's line against him.
    victim.edit(|log, _, meta| {
        let head = (14, Hash32(row(log, 14)[LINK..FRAME].try_into().expect("32 bytes")));
        put_head(meta, head);
    });
    victim.is_broken(14, "has 2 entries and should have 3");
}

#[test]
fn a_tail_cut_with_all_its_traces_is_found_by_a_head_kept_elsewhere() {
    let victim = Victim::new();
    let kept = victim.verify().expect("whole").head;
    victim.edit(|log, calls, meta| {
        (13..=15).for_each(|seq| drop(log.remove(seq).expect("writable")));
        calls.remove(&call(5).bytes()).expect("writable");
        let head = (12, Hash32(row(log, 12)[LINK..FRAME].try_into().expect("32 bytes")));
        put_head(meta, head);
    });
    assert_ne!(victim.verify().expect("nothing is left to see").head, kept);
}

#[test]
fn a_line_without_entries_and_entries_without_a_line_are_found() {
    let victim = Victim::new();
    victim.edit(|_, calls, _| drop(calls.remove(&call(2).bytes()).expect("writable")));
    victim.is_broken(6, "no line");

    let victim = Victim::new();
    victim.edit(|_, calls, _| {
        let line = calls.get(&call(2).bytes()).expect("readable").expect("a line").value().to_vec();
        calls.insert(&call(9).bytes(), line.as_slice()).expect("writable");
    });
    victim.is_broken(16, "all entries of call");
}

#[test]
fn an_edited_state_is_found() {
    let victim = Victim::new();
    victim.edit(|_, calls, _| {
        let mut line = calls.get(&call(2).bytes()).expect("readable").expect("a line").value().to_vec();
        assert_eq!(line[1], 16, "the state `succeeded`");
        line[1] = 17;
        calls.insert(&call(2).bytes(), line.as_slice()).expect("writable");
    });
    victim.is_broken(6, "listed as `failed`");
}

#[test]
fn content_that_was_not_pruned_by_us_is_found() {
    let victim = Victim::new();
    victim.edit_log(|log| {
        let link = row(log, 6)[..FRAME].to_vec();
        put(log, 6, &link);
    });
    victim.is_broken(6, "lost the content of 1 entries, not 0");
}

#[test]
fn pruning_leaves_a_chain_that_is_checked_as_well() {
    let victim = Victim::new();
    let head = victim.verify().expect("whole").head;
    assert_eq!(victim.open().prune(Millis(EPOCH + 13), Millis(EPOCH + 12), 10).expect("writable"), 2);
    let verified = victim.verify().expect("whole");
    assert_eq!((verified.pruned, verified.head), (6, head));
    for seq in [2, 5] {
        let victim = Victim::new();
        victim.open().prune(Millis(EPOCH + 13), Millis(EPOCH + 12), 10).expect("writable");
        victim.edit_log(|log| {
            let mut edited = row(log, seq);
            edited[AT + 7] ^= 1;
            put(log, seq, &edited);
        });
        victim.is_broken(seq, "link");
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}
