//! A disk in memory that remembers every write and sync, fails on demand, and can lose power.

#![allow(dead_code, reason = "each test binary uses a part of this")]

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use redb::StorageBackend;

/// What happened to the disk, in order.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Write {
        offset: usize,
        bytes: Vec<u8>,
    },
    Length(usize),
    Sync,
    /// Not the disk's: the test was told that this append is durable.
    Acknowledged(usize),
}

/// Cheap to clone: all clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    events: Vec<Event>,
    operations: u64,
    fault: Option<Fault>,
}

/// From the `at`-th operation on, from 0, everything fails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) at: u64,
    pub(crate) kind: io::ErrorKind,
}

impl Disk {
    pub(crate) fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(State { bytes, ..State::default() })))
    }

    pub(crate) fn failing(fault: Fault) -> Self {
        Self(Arc::new(Mutex::new(State { fault: Some(fault), ..State::default() })))
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.state().bytes.clone()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.state().events.clone()
    }

    pub(crate) fn acknowledge(&self, append: usize) {
        self.state().events.push(Event::Acknowledged(append));
    }

    /// True once the fault has been hit.
    pub(crate) fn has_failed(&self) -> bool {
        let state = self.state();
        state.fault.is_some_and(|fault| state.operations > fault.at)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds the disk")
    }

    fn operate<T>(&self, operate: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state();
        let operation = state.operations;
        state.operations += 1;
        match state.fault {
            Some(fault) if operation >= fault.at => Err(fault.kind.into()),
            _ => operate(&mut state),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.operate(|state| Ok(state.bytes.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.operate(|state| {
            let from = offset as usize;
            let bytes = state.bytes.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(bytes);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.operate(|state| {
            state.bytes.resize(len as usize, 0);
            state.events.push(Event::Length(len as usize));
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.operate(|state| {
            state.events.push(Event::Sync);
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.operate(|state| {
            let offset = offset as usize;
            write_at(&mut state.bytes, offset, data);
            state.events.push(Event::Write { offset, bytes: data.to_vec() });
            Ok(())
        })
    }
}

pub(crate) fn write_at(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[offset..end].copy_from_slice(bytes);
}

/// A small generator of its own (SplitMix64), so that a seed means the same for good.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % sides as u64) as usize
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.roll(last + 1));
        }
    }
}

/// How a machine goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Everything written had reached the medium: kill -9.
    Nothing,
    /// Nothing unsynced had.
    All,
    /// Any part of it had, in any order, some of it torn between sectors.
    Some,
}

const SECTOR: usize = 512;

/// The image that is left of `durable` and the `pending` events after it.
pub(crate) fn crash(durable: &[u8], pending: &[&Event], loss: Loss, dice: &mut Dice) -> Vec<u8> {
    let mut image = durable.to_vec();
    match loss {
        Loss::All => {}
        Loss::Nothing => pending.iter().for_each(|event| apply(&mut image, event)),
        Loss::Some => {
            let mut order: Vec<_> = pending.to_vec();
            if dice.roll(2) == 0 {
                dice.shuffle(&mut order);
            }
            let keep_of_4 = 1 + dice.roll(3);
            for event in order {
                match event {
                    _ if dice.roll(4) >= keep_of_4 => {}
                    Event::Write { offset, bytes } if dice.roll(3) == 0 => {
                        tear(&mut image, *offset, bytes, dice)
                    }
                    event => apply(&mut image, event),
                }
            }
        }
    }
    image
}

pub(crate) fn apply(image: &mut Vec<u8>, event: &Event) {
    match event {
        Event::Write { offset, bytes } => write_at(image, *offset, bytes),
        Event::Length(length) => image.resize(*length, 0),
        Event::Sync | Event::Acknowledged(_) => {}
    }
}

/// Writes some sectors of it: from the start, from the end, or here and there.
fn tear(image: &mut Vec<u8>, offset: usize, bytes: &[u8], dice: &mut Dice) {
    let sectors: Vec<(usize, usize)> = {
        let mut starts = vec![offset];
        starts
            .extend((offset / SECTOR + 1..).map(|n| n * SECTOR).take_while(|&at| at < offset + bytes.len()));
        let ends = starts.iter().copied().skip(1).chain([offset + bytes.len()]);
        starts.iter().copied().zip(ends).collect()
    };
    let (style, cut) = (dice.roll(3), dice.roll(sectors.len() + 1));
    for (n, (from, to)) in sectors.into_iter().enumerate() {
        let written = match style {
            0 => n < cut,
            1 => n >= cut,
            _ => dice.roll(2) == 0,
        };
        if written {
            write_at(image, from, &bytes[from - offset..to - offset]);
        }
    }
}

/// redb's own assertions about damaged files are caught and become errors: they need not be printed a hundred times.
pub(crate) fn quiet_redb() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let in_redb =
            panic.location().is_some_and(|at| at.file().contains("/redb-") || at.file().contains("\\redb-"));
        if !in_redb {
            print(panic);
        }
    }));
}
