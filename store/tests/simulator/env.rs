//! The world around the driver: time, chance, the medium, servers, people, and the auditor who knows everything.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_store::{
    Call, CallId, Chaining, Crash, Delivery, Digest, Journal, Memory,
    engine::{OldProcess, Probed, Recheck},
};

use crate::{
    audit::{Audit, Violation},
    driver::Driver,
    people::{Act, People},
    rng::Rng,
    sabotage::Sabotage,
    scenario::{Scenario, WallClock, hash},
    upstream::{self, Reply, Upstreams},
};

/// The driver's process is gone.
#[derive(Debug)]
pub(crate) struct Crashed;

pub(crate) type Ran<T = ()> = Result<T, Crashed>;

/// Something that is due at a moment.
pub(crate) enum Happening {
    Ask(usize),
    Impatience(usize, u32),
    Withdraw(usize),
    WaitFor(usize),
    OperatorLooks(usize),
    OperatorActs(Box<Act>),
    Flush(u32),
    Timer(u32, CallId),
    RecheckBack(u32, CallId, u32, Box<Recheck>),
    PreviewBack(u32, CallId),
    HoldWait(u32, CallId, usize),
    ProbeLooks(ProbeTrip),
    ProbeBack(ProbeTrip, Probed),
    Execute(usize),
    Reply(usize, Reply),
    ProcessEnds(usize, usize),
    ServerRestarts(usize),
    Crash,
    Restart,
    ClockJump(i64),
    Calm,
}

/// A probe on its way.
#[derive(Clone, Copy)]
pub(crate) struct ProbeTrip {
    pub(crate) epoch: u32,
    pub(crate) call: CallId,
    /// How many attempts there were when it left.
    pub(crate) attempts: u32,
    /// What was known about the old process when it left.
    pub(crate) old_process: OldProcess,
}

/// What a run did.
#[derive(Clone, Default)]
pub(crate) struct Stats {
    pub(crate) crashes: u64,
    pub(crate) dispatches: u64,
    pub(crate) happenings: u64,
    pub(crate) calls: u64,
    pub(crate) entries: u64,
    pub(crate) checks: u64,
    /// Which entry came in which state.
    pub(crate) seen: BTreeSet<(&'static str, &'static str)>,
}

impl Stats {
    pub(crate) fn add(&mut self, other: &Self) {
        self.crashes += other.crashes;
        self.dispatches += other.dispatches;
        self.happenings += other.happenings;
        self.calls += other.calls;
        self.entries += other.entries;
        self.checks += other.checks;
        self.seen.extend(&other.seen);
    }
}

impl std::fmt::Display for Stats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { crashes, dispatches, happenings, calls, entries, checks, seen } = self;
        write!(f, "{crashes} crashes, {calls} calls, {dispatches} dispatches, {entries} entries, ")?;
        write!(f, "{happenings} happenings, {} kinds of transitions, {checks} promises checked", seen.len())
    }
}

pub(crate) struct Env {
    pub(crate) rng: Rng,
    pub(crate) scenario: Scenario,
    pub(crate) sabotage: Sabotage,
    /// Real time since the start, in milliseconds.
    pub(crate) now: u64,
    /// What has to be added to get the wall clock.
    pub(crate) skew: i64,
    /// The life of Holdfast, from 1.
    pub(crate) epoch: u32,
    pub(crate) journal: Memory,
    pub(crate) upstreams: Upstreams,
    pub(crate) people: People,
    pub(crate) audit: Audit,
    pub(crate) stats: Stats,
    trace: Option<Vec<String>>,
    queue: BTreeMap<(u64, u64), Happening>,
    scheduled: u64,
    calm: bool,
    crashes_left: u32,
    digests: u64,
}

/// Whether a run writes down what happens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trace {
    Off,
    On,
}

impl Env {
    fn new(seed: u64, sabotage: Sabotage, trace: Trace) -> Self {
        let mut rng = Rng::new(seed);
        let scenario = Scenario::draw(&mut rng);
        let mut env = Self {
            sabotage,
            now: 1_000_000,
            skew: 0,
            epoch: 0,
            journal: Memory::new(Delivery::OnFlush, Chaining::Unchained),
            upstreams: Upstreams::new(&scenario.servers),
            people: People::new(&scenario),
            audit: Audit::default(),
            stats: Stats::default(),
            trace: (trace == Trace::On).then(Vec::new),
            queue: BTreeMap::new(),
            scheduled: 0,
            calm: false,
            crashes_left: scenario.crashes_at_most,
            digests: 0,
            scenario,
            rng,
        };
        env.plan_ahead();
        env
    }

    fn plan_ahead(&mut self) {
        for (ask, setup) in self.scenario.asks.iter().enumerate() {
            let (at, withdraws) = (setup.at, setup.cancels_at.map(|ms| setup.at + ms));
            self.queue.insert((self.now + at, ask as u64), Happening::Ask(ask));
            if let Some(at) = withdraws {
                self.queue.insert((self.now + at, 1_000 + ask as u64), Happening::Withdraw(ask));
            }
        }
        self.scheduled = 10_000;
        let calm_at = self.scenario.calm_at;
        for who in 0..self.rng.below(4) as usize {
            let after = self.rng.below(500);
            self.schedule(after, Happening::OperatorLooks(who));
        }
        let restarts = *self.rng.pick(&[0, 1, 2, 12]);
        for _ in 0..restarts {
            let (after, server) =
                (self.rng.below(calm_at), self.rng.below(self.scenario.servers.len() as u64));
            self.schedule(after, Happening::ServerRestarts(server as usize));
        }
        if self.scenario.clock == WallClock::Jumps {
            for _ in 0..self.rng.between(1, 4) {
                let (after, size) = (self.rng.below(calm_at), *self.rng.pick(&[50, 1_000, 20_000]));
                let by = self.rng.between(1, size) as i64;
                let by = if self.rng.percent(60) { -by } else { by };
                self.schedule(after, Happening::ClockJump(by));
            }
        }
        if self.crashes_left > 0 {
            let after = self.rng.below(calm_at);
            self.schedule(after, Happening::Crash);
        }
        self.schedule(calm_at, Happening::Calm);
    }

    pub(crate) fn schedule(&mut self, after_ms: u64, what: Happening) {
        self.scheduled += 1;
        self.queue.insert((self.now + after_ms, self.scheduled), what);
    }

    pub(crate) fn wall(&self) -> u64 {
        self.now.saturating_add_signed(self.skew)
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.calm
    }

    /// A place at which the process may die.
    pub(crate) fn crash_point(&mut self) -> Ran {
        if self.draws_crash() {
            return Err(Crashed);
        }
        Ok(())
    }

    fn draws_crash(&mut self) -> bool {
        let chance = self.scenario.crash_chance;
        !self.calm && self.crashes_left > 0 && chance > 0 && self.rng.below(10_000) < chance
    }

    /// Commits what waits; the machine may stop before or after it is kept.
    pub(crate) fn commit(&mut self) -> Ran {
        if self.draws_crash() {
            let place = *self.rng.pick(&[Crash::BeforeCommit, Crash::AfterCommit]);
            self.trace(|| format!("the machine stops: {place:?}"));
            self.journal.crash_at(1, place);
        }
        self.journal.flush();
        if self.journal.is_crashed() {
            return Err(Crashed);
        }
        self.read_journal();
        Ok(())
    }

    /// Shows the auditor what has become durable.
    pub(crate) fn read_journal(&mut self) {
        let records = self.journal.tail(self.audit.next_seq(), usize::MAX).expect("the journal is open");
        for record in records {
            self.trace(|| {
                format!("durable: {} #{} at {} {:?}", record.call, record.n, record.at.0, record.entry)
            });
            self.stats.entries += 1;
            let before = self.audit.calls.get(&record.call).map_or("", |mirror| mirror.call.state.name());
            self.stats.seen.insert((before, record.entry.name()));
            self.audit.durable(record, &self.upstreams);
        }
    }

    pub(crate) fn trace(&mut self, words: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.trace {
            let line = format!("{:>9} {}", self.now, words());
            lines.push(line);
        }
    }

    pub(crate) fn trace_call(&mut self, what: &str, call: CallId) {
        self.trace(|| format!("{what} {call}"));
    }

    pub(crate) fn fresh_digest(&mut self) -> Digest {
        self.digests += 1;
        hash(0xd2, self.digests)
    }

    /// What the durable record says, read as a restart would.
    pub(crate) fn fold(&self, call: CallId) -> Option<Call> {
        let history = self.journal.history(call).expect("the journal is open");
        Call::fold(&history).expect("the journal holds only what its table allows")
    }
}

impl Drop for Env {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.trace.iter().flatten().for_each(|line| println!("{line}"));
        }
    }
}

/// A run from a seed to the end of all things.
pub(crate) struct World {
    env: Env,
    driver: Option<Driver>,
}

/// How a run ended.
pub(crate) struct Ended {
    pub(crate) violation: Option<Violation>,
    pub(crate) stats: Stats,
    pub(crate) trace: Vec<String>,
}

/// No world of ours needs that many steps: one that does is spinning.
const HAPPENINGS_AT_MOST: u64 = 50_000;

/// Longer than every deadline of a scenario.
const CALM_MS: u64 = 60_000;

impl World {
    pub(crate) fn run(seed: u64, sabotage: Sabotage, trace: Trace) -> Ended {
        let mut world = Self { env: Env::new(seed, sabotage, trace), driver: None };
        world.restart();
        while let Some((&(at, order), _)) = world.env.queue.first_key_value() {
            let what = world.env.queue.remove(&(at, order)).expect("it was just seen");
            world.env.now = at;
            world.env.stats.happenings += 1;
            world.happen(what);
            if world.env.stats.happenings > HAPPENINGS_AT_MOST {
                world.env.audit.expect(2, false, || "the world does not come to rest".into());
            }
            if world.env.audit.violation.is_some() {
                break;
            }
        }
        world.rest()
    }

    fn rest(mut self) -> Ended {
        if self.env.audit.violation.is_none() {
            let waiting = self.env.people.still_waiting();
            let env = &mut self.env;
            env.audit.at_rest(&env.journal, waiting);
        }
        let mut stats = std::mem::take(&mut self.env.stats);
        stats.calls = self.env.audit.calls.len() as u64;
        stats.checks = self.env.audit.checks;
        Ended {
            violation: self.env.audit.violation.take(),
            stats,
            trace: self.env.trace.take().unwrap_or_default(),
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Crash => self.crash(),
            Happening::Restart => self.restart(),
            Happening::Calm => {
                self.env.trace(|| "the world calms down".into());
                // Once more later: what was sent and withdrawn in the last hostile moments is settled then.
                if !self.env.calm {
                    self.env.schedule(CALM_MS, Happening::Calm);
                }
                self.env.calm = true;
                upstream::all_restart(&mut self.env);
            }
            Happening::Execute(index) => upstream::executes(&mut self.env, index),
            Happening::ProcessEnds(server, process) => upstream::dies(&mut self.env, server, process),
            Happening::ServerRestarts(server) => upstream::restarts(&mut self.env, server),
            Happening::ClockJump(by) => {
                self.env.trace(|| format!("the wall clock jumps by {by}"));
                self.env.skew += by;
                self.with_driver(Driver::clock_changed);
            }
            Happening::Reply(index, what) => self.reply(index, what),
            Happening::Flush(epoch) => self.in_epoch(epoch, Driver::flushed),
            Happening::Timer(epoch, call) => self.in_epoch(epoch, |driver, env| driver.timer(env, call)),
            Happening::RecheckBack(epoch, call, revision, recheck) => {
                self.in_epoch(epoch, |driver, env| driver.rechecked(env, call, revision, *recheck));
            }
            Happening::PreviewBack(epoch, call) => {
                self.in_epoch(epoch, |driver, env| driver.previewed(env, call));
            }
            Happening::HoldWait(epoch, call, ask) => {
                self.in_epoch(epoch, |driver, env| driver.hold_wait_over(env, call, ask));
            }
            Happening::ProbeLooks(trip) => {
                self.in_epoch(trip.epoch, |driver, env| driver.probe_looks(env, trip))
            }
            Happening::ProbeBack(trip, probed) => {
                self.in_epoch(trip.epoch, |driver, env| driver.probe_back(env, trip, probed));
            }
            people => self.people(people),
        }
    }

    fn people(&mut self, what: Happening) {
        match what {
            Happening::Ask(ask) => match &self.driver {
                Some(_) => self.with_driver(|driver, env| driver.ask(env, ask)),
                None => self.env.schedule(100, Happening::Ask(ask)),
            },
            Happening::WaitFor(ask) => match &self.driver {
                Some(_) => self.with_driver(|driver, env| driver.wait_for(env, ask)),
                None => self.env.schedule(100, Happening::WaitFor(ask)),
            },
            Happening::Impatience(ask, stream) => {
                self.with_driver(|driver, env| driver.stream_closed(env, ask, stream));
            }
            Happening::Withdraw(ask) => self.with_driver(|driver, env| driver.withdraw(env, ask)),
            Happening::OperatorLooks(who) if !self.env.calm => {
                let after = self.env.rng.between(20, 600);
                self.env.schedule(after, Happening::OperatorLooks(who));
                self.with_driver(|driver, env| driver.operator_looks(env, who));
            }
            Happening::OperatorActs(act) if !self.env.calm => {
                self.with_driver(|driver, env| driver.operator_acts(env, &act));
            }
            _ => {}
        }
    }

    fn reply(&mut self, index: usize, what: Reply) {
        let Some(what) = upstream::content(&self.env, index, &what) else { return };
        match &self.driver {
            Some(_) if upstream::reaches(&self.env, index) => {
                self.with_driver(|driver, env| driver.reply(env, index, what));
            }
            None if upstream::is_kept(&self.env, index) => {
                self.env.schedule(100, Happening::Reply(index, what))
            }
            _ => {}
        }
    }

    fn in_epoch(&mut self, epoch: u32, what: impl FnOnce(&mut Driver, &mut Env) -> Ran) {
        if epoch == self.env.epoch {
            self.with_driver(what);
        }
    }

    fn with_driver(&mut self, what: impl FnOnce(&mut Driver, &mut Env) -> Ran) {
        let Some(driver) = &mut self.driver else { return };
        match what(driver, &mut self.env).and_then(|()| driver.work(&mut self.env)) {
            Ok(()) => driver.forget_the_done(),
            Err(Crashed) => self.crash(),
        }
    }

    fn crash(&mut self) {
        if self.driver.is_none() || self.env.calm || self.env.crashes_left == 0 {
            return;
        }
        self.driver = None;
        let env = &mut self.env;
        env.trace(|| "CRASH".into());
        env.stats.crashes += 1;
        env.crashes_left -= 1;
        env.journal = env.journal.reopen();
        env.read_journal();
        env.audit.after_crash(&env.journal);
        upstream::abandoned(env);
        let lost = env.people.lose_connections();
        for ask in lost {
            let after = env.rng.below(400);
            env.schedule(after, Happening::Ask(ask));
        }
        let downtime = *env.rng.pick(&[0, 20, 300, 3_000]);
        let after = env.rng.between(0, downtime);
        env.schedule(after, Happening::Restart);
        if env.crashes_left > 0 && env.rng.percent(50) {
            let after = env.rng.below(1_000);
            env.schedule(after, Happening::Crash);
        }
    }

    fn restart(&mut self) {
        if self.driver.is_some() {
            return;
        }
        self.env.epoch += 1;
        self.env.trace(|| "Holdfast starts".into());
        let mut driver = Driver::new(&self.env);
        let recovered = driver.recover(&mut self.env).and_then(|()| driver.work(&mut self.env));
        self.driver = Some(driver);
        if recovered.is_err() {
            self.crash();
        }
    }
}
