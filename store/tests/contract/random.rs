//! Random operations leave the journal on disk and the one in memory with the same answers and the same content.

#![cfg(feature = "redb")]

use std::collections::HashSet;

use holdfast_store::{Append, Filter, KeyFate, KeySource, Millis, Position, Resolution, Then, Urgency};
use proptest::prelude::*;

use crate::{
    facts::*,
    media::{Medium, disk, memory_chained},
};

const CALLS: u32 = 12;

#[derive(Clone, Debug)]
enum Op {
    New { call: u32, fate: bool, keys: Vec<u8>, life: Option<u8>, identical: Option<u8>, kind: u8 },
    Next { call: u32, fact: u8, off: i8, fate: bool, soon: bool },
    Prune { answers: u64, tombstones: u64, limit: usize },
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let new = (
        0..CALLS,
        prop::bool::weighted(0.1),
        prop::collection::vec(0u8..12, 0..3),
        prop::option::weighted(0.3, 0u8..3),
        prop::option::of(0u8..3),
        0u8..4,
    );
    let next = (
        0..CALLS,
        0u8..10,
        prop_oneof![8 => Just(0i8), 1 => -2i8..3],
        prop::bool::weighted(0.1),
        any::<bool>(),
    );
    prop_oneof![
        8 => new.prop_map(|(call, fate, keys, life, identical, kind)| Op::New { call, fate, keys, life, identical, kind }),
        16 => next.prop_map(|(call, fact, off, fate, soon)| Op::Next { call, fact, off, fate, soon }),
        2 => (0..80u64, 0..80u64, 0..6usize)
            .prop_map(|(answers, tombstones, limit)| Op::Prune { answers, tombstones, limit }),
        1 => Just(Op::Restart),
    ]
}

fn fate(release: bool) -> KeyFate {
    if release { KeyFate::Release } else { KeyFate::Keep }
}

/// The append that an operation makes at `now`; what it expects is read from the model.
fn append_of(op: &Op, now: u64, model: &dyn Medium) -> Option<Append> {
    match op {
        Op::New { call: n, fate: release, keys, life, identical, kind } => {
            let entries = match kind {
                0 => vec![made(asking())],
                1 => vec![made(denied())],
                _ => vec![made(accepted()), dispatched(1)],
            };
            let mut new = append(call(*n), now, 0, entries);
            let sources = [KeySource::Transport, KeySource::Explicit, KeySource::Effect];
            new.claim.keys =
                keys.iter().map(|k| key(sources[usize::from(k % 3)], &(k / 3).to_string())).collect();
            new.claim.position =
                life.map(|life| Position { counter: hash(&format!("life {life}")), key: hash("run") });
            new.claim.identical = identical.map(|i| hash(&format!("identical {i}")));
            new.keys = fate(*release);
            Some(new)
        }
        Op::Next { call: n, fact, off, fate: release, soon } => {
            let entries = model.journal().summary(call(*n)).expect("readable").map_or(0, |line| line.entries);
            let fact = match fact {
                0 => dispatched(1),
                1 | 2 => answered(1),
                3 => lost(1, Then::Doubt),
                4 => lost(1, Then::Retry { due: Millis(EPOCH) }),
                5 => resolved(Resolution::GaveUp),
                6 => resolved(Resolution::NotSent),
                7 => refused(),
                _ => joined(),
            };
            let mut next = append(call(*n), now, entries.saturating_add_signed((*off).into()), vec![fact]);
            next.keys = fate(*release);
            next.urgency = if *soon { Urgency::Soon } else { Urgency::Now };
            Some(next)
        }
        Op::Prune { .. } | Op::Restart => None,
    }
}

/// Everything that can be read, as text.
fn content(medium: &dyn Medium) -> String {
    let journal = medium.journal();
    let mut out = format!("{:?}\n", journal.tail(0, usize::MAX).expect("readable"));
    out += &format!("{:?}\n", journal.unfinished().expect("readable"));
    out += &format!("{:?}\n", journal.list(&Filter { limit: 100, ..Filter::default() }).expect("readable"));
    for n in 0..CALLS {
        out += &format!("{:?}\n", journal.history(call(n)).expect("readable"));
    }
    for i in 0..3 {
        out += &format!("{:?}\n", journal.identical(hash(&format!("identical {i}")), 100).expect("readable"));
    }
    out + &format!("{:?}\n", journal.verify(&mut |_| {}).expect("whole"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn disk_and_memory_agree(ops in prop::collection::vec(op(), 1..80)) {
        let mut model = memory_chained();
        let mut disk = disk::one_phase();
        let mut waiting = Vec::new();
        let mut used = HashSet::new();
        for (now, op) in (0u64..).zip(&ops) {
            match op {
                Op::Prune { answers, tombstones, limit } => {
                    let [model, disk] = [&model as &dyn Medium, &disk].map(|medium| {
                        medium.journal().prune(Millis(EPOCH + answers), Millis(EPOCH + tombstones), *limit)
                    });
                    prop_assert_eq!(format!("{model:?}"), format!("{disk:?}"));
                }
                Op::Restart => {
                    model.restart();
                    disk.restart();
                }
                _ => {
                    let append = append_of(op, now, &model).expect("all others append");
                    let gone = model.journal().summary(append.call).expect("readable").is_none();
                    if append.expected == 0 && gone && !used.insert(append.call) {
                        continue; // An id is never used again, not even after its call has left the journal.
                    }
                    // Not waited for, so that the writer makes batches as they come.
                    let on_disk = disk.submit(append.clone());
                    waiting.push((append.clone(), model.append(append), on_disk));
                }
            }
        }
        for (append, expected, on_disk) in waiting {
            prop_assert_eq!(format!("{expected:?}"), format!("{:?}", on_disk.wait()), "{:?}", append);
        }
        prop_assert_eq!(content(&model), content(&disk));
    }
}
