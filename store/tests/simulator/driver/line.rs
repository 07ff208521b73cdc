//! Slots of servers and the lines for them.

use std::collections::VecDeque;

use holdfast_store::{Accepted, CallId, State, engine::Event, engine::SlotAtOnce};

use super::Driver;
use crate::{env::Env, scenario::ServerSetup};

/// The line for one server.
pub(super) struct Line {
    in_use: u32,
    slots: u32,
    waiting: VecDeque<CallId>,
    longest: usize,
}

/// A call's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    None,
    InLine,
    /// It holds a slot, and that many steps on the way to its dispatch are under way.
    Held(u32),
}

impl Slot {
    pub(super) fn held() -> Self {
        Self::Held(0)
    }

    pub(super) fn is_free(self) -> bool {
        self == Self::None
    }

    pub(super) fn step_begins(&mut self) {
        if let Self::Held(steps) = self {
            *steps += 1;
        }
    }

    pub(super) fn step_done(&mut self) {
        if let Self::Held(steps) = self {
            *steps = steps.saturating_sub(1);
        }
    }
}

impl Line {
    pub(super) fn new(setup: &ServerSetup) -> Self {
        Self { in_use: 0, slots: setup.slots, waiting: VecDeque::new(), longest: setup.line }
    }
}

impl Driver {
    /// A slot for a new call, if nobody waits for one.
    pub(super) fn slot_at_once(&mut self, server: usize) -> SlotAtOnce {
        let line = &mut self.lines[server];
        if line.in_use >= line.slots || !line.waiting.is_empty() {
            return SlotAtOnce::None;
        }
        line.in_use += 1;
        SlotAtOnce::Held
    }

    /// The new call was none.
    pub(super) fn give_back(&mut self, env: &Env, ask: usize, slot: SlotAtOnce) {
        if slot == SlotAtOnce::Held {
            let server = env.scenario.intents[env.scenario.asks[ask].intent].server;
            self.lines[server].in_use -= 1;
            self.pump(server);
        }
    }

    /// Puts a call in line, unless it has its place already.
    pub(super) fn queue(&mut self, id: CallId) {
        if !self.live(id).slot.is_free() {
            return;
        }
        let server = self.live(id).server;
        if self.lines[server].waiting.len() >= self.lines[server].longest {
            self.todo.push_back((id, Event::QueueFull));
            return;
        }
        self.live(id).slot = Slot::InLine;
        self.lines[server].waiting.push_back(id);
        self.pump(server);
    }

    fn pump(&mut self, server: usize) {
        while self.lines[server].in_use < self.lines[server].slots {
            let Some(id) = self.lines[server].waiting.pop_front() else { return };
            // A call that ended while it waited is no longer here, or has no place any more.
            let Some(live) = self.calls.get_mut(&id).filter(|live| live.slot == Slot::InLine) else {
                continue;
            };
            self.lines[server].in_use += 1;
            live.slot = Slot::Held(1);
            self.todo.push_back((id, Event::Slot));
        }
    }

    /// Lets the next one in, if this call needs its place no longer.
    pub(super) fn release_slot(&mut self, id: CallId) {
        let live = self.live(id);
        let server = live.server;
        match live.slot {
            Slot::Held(0) if live.call.state != State::InFlight => {
                live.slot = Slot::None;
                self.lines[server].in_use -= 1;
                self.pump(server);
            }
            Slot::InLine if live.call.state.is_done() => {
                live.slot = Slot::None;
                self.lines[server].waiting.retain(|&other| other != id);
            }
            Slot::None | Slot::InLine | Slot::Held(_) => {}
        }
    }
}

/// Which server a call goes to: the scenario numbers them.
pub(super) fn server_of(accepted: &Accepted) -> usize {
    accepted.server.parse().expect("servers are numbered")
}
