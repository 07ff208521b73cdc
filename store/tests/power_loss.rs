//! What was acknowledged survives a power loss at any moment, also one during the recovery from another.
//!
//! A disk that remembers its writes and syncs gives the image of every crash: all that was synced, and any part of the
//! rest, in any order, torn between sectors. With a sync that does nothing the same test must lose entries: otherwise it
//! would see nothing at all.

#![cfg(feature = "redb")]
#![allow(clippy::print_stdout, reason = "the figures are published")]

mod facts;
mod medium;

use std::{collections::BTreeMap, ops::Range};

use facts::*;
use holdfast_store::{
    Append, CallId, Durability, Entry, Journal, JournalError, KeyFate, KeySource, Options, Redb, Urgency,
};
use medium::{Dice, Disk, Event, Loss, apply, crash, quiet_redb};

const CALLS: u32 = 24;
/// Images per durability, and further ones of crashes during recovery.
const IMAGES: usize = 1500;
const RECOVERIES: usize = 250;
const IMAGES_PER_RECOVERY: usize = 4;

#[test]
fn two_phase_commits_lose_nothing() {
    losses(Durability::TwoPhase, 1).must_be_none();
}

#[test]
fn one_phase_commits_lose_nothing() {
    losses(Durability::OnePhase, 2).must_be_none();
}

#[test]
fn a_disk_that_lies_about_syncs_loses_entries() {
    quiet_redb();
    let story = Story::record(Durability::TwoPhase);
    let mut dice = Dice(3);
    let mut report = Report::default();
    for _ in 0..100 {
        let end = story.events.len() - dice.roll(story.events.len() / 2);
        let events: Vec<_> = story.events[..end].iter().collect();
        let image = crash(&story.start, &events, Loss::Some, &mut dice);
        report.count(story.check(image, acknowledged(&story.events[..end])).map(drop));
    }
    println!("lying disk: {report:?}");
    assert!(report.lost + report.unopened > 90, "a test that cannot see a loss: {report:?}");
}

#[derive(Debug, Default)]
struct Report {
    images: usize,
    in_recovery: usize,
    lost: usize,
    unopened: usize,
    first: Option<String>,
}

impl Report {
    fn count(&mut self, checked: Result<(), Finding>) {
        self.images += 1;
        match checked {
            Ok(()) => {}
            Err(Finding::Lost(what)) => {
                self.lost += 1;
                self.first.get_or_insert(what);
            }
            Err(Finding::Unopened(error)) => {
                self.unopened += 1;
                self.first.get_or_insert(error.to_string());
            }
        }
    }

    fn must_be_none(self) {
        assert!(self.lost + self.unopened == 0, "{self:?}");
        assert!(self.images >= IMAGES && self.in_recovery >= RECOVERIES, "{self:?}");
    }
}

enum Finding {
    /// An acknowledged append is missing, or one is there by half.
    Lost(String),
    Unopened(JournalError),
}

/// Crashes of one story, and of recoveries from them.
fn losses(durability: Durability, seed: u64) -> Report {
    let story = Story::record(durability);
    let mut dice = Dice(seed);
    let mut report = Report::default();
    for n in 0..IMAGES {
        // Each event is the last one before some crash; the others are drawn.
        let end = if n < story.events.len() { n } else { dice.roll(story.events.len() + 1) };
        let loss = [Loss::Nothing, Loss::All, Loss::Some, Loss::Some, Loss::Some][dice.roll(5)];
        let acknowledged = acknowledged(&story.events[..end]);
        let image = image(&story.start, &story.events[..end], loss, &mut dice);
        let checked = story.check(image.clone(), acknowledged);
        let recovery = match &checked {
            Ok(events) if n % (IMAGES / RECOVERIES) == 0 => Some(events.clone()),
            _ => None,
        };
        report.count(checked.map(drop));
        for _ in 0..recovery.as_ref().map_or(0, |_| IMAGES_PER_RECOVERY) {
            let events = recovery.as_deref().unwrap_or_default();
            let end = dice.roll(events.len() + 1);
            let again = self::image(&image, &events[..end], Loss::Some, &mut dice);
            report.in_recovery += 1;
            report.count(story.check(again, acknowledged).map(drop));
        }
    }
    println!("{durability:?}, seed {seed}: {report:?}");
    report
}

/// What a crash after `events` leaves of a disk that held `start`.
fn image(start: &[u8], events: &[Event], loss: Loss, dice: &mut Dice) -> Vec<u8> {
    let synced = events.iter().rposition(|event| matches!(event, Event::Sync)).map_or(0, |at| at + 1);
    let mut durable = start.to_vec();
    events[..synced].iter().for_each(|event| apply(&mut durable, event));
    let pending: Vec<_> = events[synced..].iter().collect();
    crash(&durable, &pending, loss, dice)
}

/// How many appends, of those in order, were acknowledged.
fn acknowledged(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::Acknowledged(_))).count()
}

/// A journal's life on a disk that remembers everything.
struct Story {
    options: Options,
    start: Vec<u8>,
    events: Vec<Event>,
    /// In the order of their acknowledgement.
    appends: Vec<Append>,
}

impl Story {
    fn record(durability: Durability) -> Self {
        // A small cache: pages are written back before their commit, as in a journal that is larger than its cache.
        let options = Options { durability, cache_bytes: 64 << 10, ..Options::default() };
        let appends = appends();
        // A new journal gets its name only once it is whole and synced: no crash can see less than this.
        let blank = Disk::default();
        drop(Redb::open_with_backend(blank.clone(), options).expect("an empty disk becomes a journal"));
        let start = blank.bytes();
        let disk = Disk::holding(start.clone());
        let journal = Redb::open_with_backend(disk.clone(), options).expect("the journal opens");
        let mut sizes = [1, 3, 1, 8, 2, 16].into_iter().cycle();
        let mut next: Range<usize> = 0..0;
        while next.end < appends.len() {
            next = next.end..(next.end + sizes.next().expect("without end")).min(appends.len());
            let pending: Vec<_> = next
                .clone()
                .map(|n| {
                    let (send, receive) = std::sync::mpsc::channel();
                    let disk = disk.clone();
                    let done = move |answer: Result<_, _>| {
                        disk.acknowledge(n);
                        send.send(answer).expect("the story waits");
                    };
                    journal.submit(appends[n].clone(), Box::new(done));
                    receive
                })
                .collect();
            for pending in pending {
                pending.recv().expect("an answer").expect("a legal append to a whole disk");
            }
        }
        drop(journal);
        let events = disk.events();
        Self { options, start, events, appends }
    }

    /// Opens the image and compares it with what must be there; returns what the recovery wrote.
    fn check(&self, image: Vec<u8>, acknowledged: usize) -> Result<Vec<Event>, Finding> {
        let disk = Disk::holding(image);
        let journal = Redb::open_with_backend(disk.clone(), self.options).map_err(Finding::Unopened)?;
        let recovery = disk.events();
        self.compare(&journal, acknowledged)?;
        // And it goes on from here.
        submit(&journal, fresh(CALLS + 1, vec![]))
            .wait()
            .map_err(|refusal| lost(format!("no append: {refusal:?}")))?;
        Ok(recovery)
    }

    fn compare(&self, journal: &Redb, acknowledged: usize) -> Result<(), Finding> {
        journal.verify(&mut |_| {}).map_err(|error| lost(format!("{error:?}")))?;
        let mut calls: BTreeMap<CallId, Vec<(usize, &Append)>> = BTreeMap::new();
        for (n, append) in self.appends.iter().enumerate() {
            calls.entry(append.call).or_default().push((n, append));
        }
        for (call, appends) in calls {
            let history = journal.history(call).map_err(|error| lost(error.to_string()))?;
            let there: Vec<_> = history.into_iter().map(|record| record.entry).collect();
            let mut whole: Vec<Entry> = Vec::new();
            let mut is_whole = there.is_empty();
            let mut kept = 0;
            for (n, append) in &appends {
                whole.extend(append.entries.iter().cloned());
                if there.starts_with(&whole) {
                    kept += 1;
                    is_whole |= there == whole;
                } else if *n < acknowledged {
                    return Err(lost(format!("append {n} of {acknowledged} acknowledged ones, to {call}")));
                }
            }
            if !is_whole {
                return Err(lost(format!("half an append: {there:?}")));
            }
            let released = appends[..kept].iter().any(|(_, append)| append.keys == KeyFate::Release);
            for key in &appends[0].1.claim.keys {
                let owner = journal.owner(key.hash).map_err(|error| lost(error.to_string()))?;
                if owner != (kept > 0 && !released).then_some(call) {
                    return Err(lost(format!("a key of {call} leads to {owner:?} after {kept} appends")));
                }
            }
        }
        Ok(())
    }
}

fn lost(what: String) -> Finding {
    Finding::Lost(what)
}

/// Calls that are made, answered, joined and released, in an order that mixes old calls with new ones.
fn appends() -> Vec<Append> {
    let mut appends = Vec::new();
    for n in 1..=CALLS {
        let mut made =
            fresh(n, vec![key(KeySource::Explicit, &n.to_string()), key(KeySource::Effect, &n.to_string())]);
        made.claim.identical = Some(hash("same"));
        made.urgency = if n % 5 == 0 { Urgency::Soon } else { Urgency::Now };
        appends.push(made);
        if n > 3 {
            let large = format!(r#"{{"content":["{}"]}}"#, "x".repeat(n as usize * 300));
            let answered =
                Entry::Answered { attempt: holdfast_store::Attempt(1), answer: answer(&large), kept: None };
            let mut ended = append(call(n - 3), 100 + u64::from(n), 2, vec![answered, joined()]);
            ended.keys = if n % 4 == 0 { KeyFate::Release } else { KeyFate::Keep };
            appends.push(ended);
        }
    }
    appends
}
