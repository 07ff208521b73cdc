//! The simulated driver: the same protocol between engine, journal and world as the real one, and its sabotages.
//!
//! * Facts first: effects of a step are carried out when its append is acknowledged, never before.
//! * Appends name the number of entries they were computed for; on a conflict the event is computed anew.
//! * Agents are answered from the folded durable state only.

mod line;
mod outside;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    mem,
    sync::{Arc, Mutex},
};

use holdfast_store::{
    Accepted, Append, Appended, Call, CallId, Claim, Entry, Journal, KeyFate, Millis, Refusal, State,
    Urgency,
    engine::{self, Effect, Event, Now, SlotAtOnce, Step, Unfit},
};

use self::line::{Line, Slot, server_of};
use crate::{
    audit::Submitted,
    env::{Crashed, Env, Happening, Ran},
    sabotage::Sabotage,
};

type Mailbox = Arc<Mutex<Vec<(u64, Result<Appended, Refusal>)>>>;

/// One life of Holdfast: all of it is forgotten in a crash.
pub(crate) struct Driver {
    epoch: u32,
    /// What is added to real time; it only ever grows, so that no deadline moves away.
    ahead: i64,
    calls: BTreeMap<CallId, Live>,
    lines: Vec<Line>,
    pending: HashMap<u64, Pending>,
    mailbox: Mailbox,
    tokens: u64,
    /// Events that follow from what just happened.
    todo: VecDeque<(CallId, Event)>,
    flush: Flush,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    Idle,
    Scheduled,
}

/// A call in memory.
struct Live {
    call: Call,
    server: usize,
    slot: Slot,
    /// Asks that wait for it, with their streams.
    waiters: Vec<(usize, u32)>,
    probe: Probe,
    /// Appends that are not acknowledged yet.
    appends: u32,
    armed: Option<Millis>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Probe {
    Home,
    Out,
}

/// An append on its way.
struct Pending {
    call: CallId,
    at: Millis,
    entries: Vec<Entry>,
    then: Vec<Effect>,
    why: Why,
}

enum Why {
    /// A request that starts a call.
    Begin { ask: usize, stream: u32, slot: SlotAtOnce },
    /// An event of a call. A decision about a doubt carries the number of attempts it was made for.
    Event { event: Event, decided_for: Option<u32> },
    /// A note in the margin: nothing follows from it.
    Note,
}

impl Driver {
    pub(crate) fn new(env: &Env) -> Self {
        Self {
            epoch: env.epoch,
            ahead: env.skew,
            calls: BTreeMap::new(),
            lines: env.scenario.servers.iter().map(Line::new).collect(),
            pending: HashMap::new(),
            mailbox: Arc::default(),
            tokens: 0,
            todo: VecDeque::new(),
            flush: Flush::Idle,
        }
    }

    /// Reads back what is unfinished and goes on with it.
    pub(crate) fn recover(&mut self, env: &mut Env) -> Ran {
        let unfinished = env.journal.unfinished().expect("the journal is open");
        for &id in &unfinished {
            self.load(env, id);
            let latest =
                env.journal.summary(id).expect("the journal is open").map_or(0, |line| line.updated.0);
            self.ahead = self.ahead.max(latest as i64 - env.now as i64);
        }
        if env.sabotage == Sabotage::ForgetUnfinished {
            return Ok(());
        }
        for id in unfinished {
            env.crash_point()?;
            let call = &self.calls[&id].call;
            if env.sabotage == Sabotage::ResendOnRecovery && call.state == State::InFlight {
                let again = Effect::Send(call.attempt());
                self.carry_out(env, id, vec![again])?;
                continue;
            }
            self.tell(env, id, Event::Recovered, None)?.expect("a restart is no decision");
        }
        Ok(())
    }

    /// Carries on until nothing more follows.
    pub(crate) fn work(&mut self, env: &mut Env) -> Ran {
        while let Some((id, event)) = self.todo.pop_front() {
            // Only decisions can be unfit, and those are told directly or again after a conflict.
            let _too_late = self.tell(env, id, event, None)?;
        }
        Ok(())
    }

    /// The clock that the engine sees: the wall clock, but never earlier than before.
    fn now(&mut self, env: &Env) -> Millis {
        if env.sabotage == Sabotage::WallClock {
            return Millis(env.wall());
        }
        self.ahead = self.ahead.max(env.skew);
        Millis(env.now.saturating_add_signed(self.ahead))
    }

    fn load(&mut self, env: &Env, id: CallId) -> bool {
        let known = self.calls.contains_key(&id);
        let found = if known { None } else { env.fold(id).map(Live::new) };
        let exists = known || found.is_some();
        self.calls.extend(found.map(|live| (id, live)));
        exists
    }

    /// Asks the engine what follows from an event, and sees to it.
    fn tell(
        &mut self,
        env: &mut Env,
        id: CallId,
        event: Event,
        decided_for: Option<u32>,
    ) -> Ran<Result<(), Unfit>> {
        env.crash_point()?;
        if !self.load(env, id) {
            return Ok(Ok(()));
        }
        let now = self.now(env);
        let live = self.calls.get_mut(&id).expect("it was just loaded");
        let from_slot = matches!(event, Event::Slot | Event::Rechecked { .. });
        if from_slot {
            live.slot.step_done();
        }
        let seen_now = decided_for.is_none_or(|attempts| attempts == live.call.attempts);
        if !seen_now && env.sabotage != Sabotage::ResolveUnseen {
            return Ok(Err(Unfit::WrongState(live.call.state)));
        }
        env.audit.observe(id, now, self.epoch);
        if let Event::Progress(attempt) = event {
            if attempt == live.call.attempt() {
                live.call.heard = now;
                self.arm(env, id);
            }
            return Ok(Ok(()));
        }
        let at = now_for(env.sabotage, &live.call, &event, now);
        let step = match engine::step(Now { at, dice: env.rng.unit() }, &live.call, event.clone()) {
            Ok(step) => sabotaged(env.sabotage, now, step),
            Err(unfit) => return Ok(Err(unfit)),
        };
        env.trace(|| format!("step {id} {event:?} -> {} facts, {:?}", step.append.len(), step.then));
        if step.append.is_empty() {
            self.carry_out(env, id, step.then)?;
            self.settle(env, id)?;
        } else {
            if from_slot {
                live.slot.step_begins();
            }
            live.appends += 1;
            let keys = key_fate(env.sabotage, now, &live.call, &step.append);
            let expected = live.call.entries;
            let why = Why::Event { event, decided_for };
            let pending = Pending { call: id, at: now, entries: step.append, then: step.then, why };
            self.submit(env, expected, Claim::default(), keys, pending)?;
        }
        Ok(Ok(()))
    }

    fn submit(
        &mut self,
        env: &mut Env,
        expected: u32,
        claim: Claim,
        keys: KeyFate,
        mut pending: Pending,
    ) -> Ran {
        env.crash_point()?;
        self.tokens += 1;
        let token = self.tokens;
        let mailbox = Arc::clone(&self.mailbox);
        let submitted = Submitted { keys, real: env.now, epoch: self.epoch, seen: Millis(0) };
        env.audit.submitted(pending.call, expected, pending.entries.len() as u32, submitted);
        let append = Append {
            call: pending.call,
            at: pending.at,
            expected,
            entries: pending.entries.clone(),
            claim,
            keys,
            urgency: Urgency::Now,
        };
        env.journal.submit(
            append,
            Box::new(move |result| mailbox.lock().expect("nobody panics with it").push((token, result))),
        );
        self.act_too_early(env, &mut pending)?;
        self.pending.insert(token, pending);
        if self.flush == Flush::Idle {
            self.flush = Flush::Scheduled;
            let after = env.rng.between(0, env.scenario.group_commit_ms);
            env.schedule(after, Happening::Flush(self.epoch));
        }
        Ok(())
    }

    fn act_too_early(&mut self, env: &mut Env, pending: &mut Pending) -> Ran {
        if env.sabotage == Sabotage::ActBeforeWriting {
            let then = mem::take(&mut pending.then);
            let (sends, rest) = then.into_iter().partition(|effect| matches!(effect, Effect::Send(_)));
            pending.then = rest;
            let server = match pending.entries.first() {
                Some(Entry::Accepted(accepted)) => Some(Accepted::clone(accepted)),
                _ => None,
            };
            self.send_all(env, pending.call, sends, server.as_ref())?;
        }
        if env.sabotage == Sabotage::AnswerBeforeDurable
            && let Some(Entry::Answered { answer, .. }) = pending.entries.first()
        {
            self.answer_early(env, pending.call, answer.clone())?;
        }
        Ok(())
    }

    /// The commit is due: what is kept is acknowledged, in the order in which it was handed over.
    pub(crate) fn flushed(&mut self, env: &mut Env) -> Ran {
        self.flush = Flush::Idle;
        env.commit()?;
        let acknowledged = mem::take(&mut *self.mailbox.lock().expect("nobody panics with it"));
        for (token, result) in acknowledged {
            env.crash_point()?;
            let pending = self.pending.remove(&token).expect("each append is acknowledged once");
            self.acknowledged(env, pending, result)?;
            self.work(env)?;
        }
        Ok(())
    }

    fn acknowledged(&mut self, env: &mut Env, pending: Pending, result: Result<Appended, Refusal>) -> Ran {
        if let Some(live) = self.calls.get_mut(&pending.call) {
            live.appends = live.appends.saturating_sub(1);
        }
        match result {
            Ok(appended) => self.durable(env, pending, appended),
            Err(Refusal::Conflict { entries }) => self.conflict(env, pending, entries),
            Err(Refusal::Taken { call, .. }) => {
                let Why::Begin { ask, stream, slot } = pending.why else { return Ok(()) };
                self.give_back(env, ask, slot);
                self.join(env, ask, stream, call)
            }
            Err(Refusal::Spent) => unreachable!("no call here is made under a remembered decision"),
            Err(Refusal::Failed(error)) => {
                env.audit.expect(8, false, || format!("the journal refused {:?}: {error}", pending.entries));
                Err(Crashed)
            }
        }
    }

    fn durable(&mut self, env: &mut Env, pending: Pending, appended: Appended) -> Ran {
        let id = pending.call;
        if let Why::Begin { ask, stream, slot } = pending.why {
            let call = Call::begin(id, pending.at, &pending.entries[0]).expect("it starts with `Accepted`");
            let mut live = Live::new(call);
            if slot == SlotAtOnce::Held {
                live.slot = Slot::held();
            }
            self.calls.insert(id, live);
            self.fold(env, id, pending.at, &pending.entries[1..]);
            self.attach(env, ask, stream, id)?;
        } else {
            if matches!(pending.why, Why::Event { event: Event::Slot | Event::Rechecked { .. }, .. }) {
                self.live(id).slot.step_done();
            }
            self.fold(env, id, pending.at, &pending.entries);
        }
        let live = &self.calls[&id];
        env.audit.same(&live.call, appended.entries);
        self.release_slot(id);
        self.carry_out(env, id, pending.then)?;
        self.settle(env, id)
    }

    fn fold(&mut self, env: &Env, id: CallId, at: Millis, entries: &[Entry]) {
        let live = self.live(id);
        for entry in entries {
            live.call.apply(at, entry).expect("the journal has kept it");
            if env.sabotage == Sabotage::DriftingState && matches!(entry, Entry::Lost { .. }) {
                live.call.unproven = 0;
            }
        }
        live.armed = None;
    }

    fn conflict(&mut self, env: &mut Env, pending: Pending, entries: u32) -> Ran {
        let Why::Event { event, decided_for } = pending.why else { return self.settle(env, pending.call) };
        if env.sabotage == Sabotage::StaleStep {
            let why = Why::Event { event, decided_for };
            self.live(pending.call).appends += 1;
            let again = Pending { why, ..pending };
            return self.submit(env, entries, Claim::default(), KeyFate::Keep, again);
        }
        env.trace_call("conflict, computed anew:", pending.call);
        // A decision that does not fit any more is simply not taken.
        let _too_late = self.tell(env, pending.call, event, decided_for)?;
        self.settle(env, pending.call)
    }

    fn live(&mut self, id: CallId) -> &mut Live {
        self.calls.get_mut(&id).expect("calls with appends or effects on their way stay in memory")
    }

    fn carry_out(&mut self, env: &mut Env, id: CallId, effects: Vec<Effect>) -> Ran {
        for effect in effects {
            env.crash_point()?;
            match effect {
                Effect::Queue => self.queue(id),
                Effect::Recheck => self.recheck(env, id),
                Effect::Send(_) => self.send_all(env, id, vec![effect], None)?,
                Effect::CancelUpstream(attempt) => crate::upstream::cancelled(env, id, attempt),
                Effect::Preview => self.preview(env, id),
                Effect::Probe => self.probe(env, id),
            }
            env.crash_point()?;
        }
        Ok(())
    }

    /// After anything happened to a call: slot, news, timer.
    fn settle(&mut self, env: &mut Env, id: CallId) -> Ran {
        if !self.calls.contains_key(&id) {
            return Ok(());
        }
        self.release_slot(id);
        self.notify(env, id)?;
        self.arm(env, id);
        Ok(())
    }

    /// Forgets what has ended: whoever asks for it finds it in the journal.
    pub(crate) fn forget_the_done(&mut self) {
        self.calls.retain(|_, live| {
            let idle = live.appends == 0 && live.waiters.is_empty() && live.slot.is_free();
            !(live.call.state.is_done() && idle && live.probe == Probe::Home)
        });
    }

    fn arm(&mut self, env: &mut Env, id: CallId) {
        let now = self.now(env);
        let epoch = self.epoch;
        let Some(live) = self.calls.get_mut(&id) else { return };
        let Some(at) = engine::wake(now, &live.call) else { return };
        if env.sabotage == Sabotage::IgnoreExecuteBy && live.call.state == State::Approved {
            return;
        }
        let waits = live.appends > 0 || (live.call.state == State::InDoubt && live.probe == Probe::Out);
        if waits || live.armed == Some(at) {
            return;
        }
        live.armed = Some(at);
        env.schedule(at.since(now), Happening::Timer(epoch, id));
    }

    pub(crate) fn timer(&mut self, env: &mut Env, id: CallId) -> Ran {
        let now = self.now(env);
        let Some(live) = self.calls.get_mut(&id) else { return Ok(()) };
        if live.appends > 0 || live.armed.is_none_or(|at| at > now) {
            return Ok(());
        }
        live.armed = None;
        self.tell(env, id, Event::Tick, None)?.expect("time is no decision");
        let Some(live) = self.calls.get(&id) else { return Ok(()) };
        if live.appends == 0 && live.probe == Probe::Home {
            let wake = engine::wake(now, &live.call);
            let state = live.call.state;
            let fine = wake.is_none_or(|at| at > now);
            env.audit
                .expect(2, fine, || format!("{id} in {state:?} wants to be woken in the past for nothing"));
        }
        Ok(())
    }

    /// The wall clock was set: sleeping timers know nothing of it.
    pub(crate) fn clock_changed(&mut self, env: &mut Env) -> Ran {
        let _now = self.now(env);
        let idle = self.calls.iter().filter(|(_, live)| live.appends == 0);
        self.todo.extend(idle.map(|(&id, _)| (id, Event::Tick)));
        Ok(())
    }
}

impl Live {
    fn new(call: Call) -> Self {
        let server = server_of(&call.accepted);
        Self {
            call,
            server,
            slot: Slot::None,
            waiters: Vec::new(),
            probe: Probe::Home,
            appends: 0,
            armed: None,
        }
    }
}

/// The time that the engine is told.
fn now_for(sabotage: Sabotage, call: &Call, event: &Event, now: Millis) -> Millis {
    match call.grant {
        Some(grant) if sabotage == Sabotage::IgnoreExecuteBy && !matches!(event, Event::Approve { .. }) => {
            now.min(Millis(grant.execute_by.0.saturating_sub(1)))
        }
        _ => now,
    }
}

fn sabotaged(sabotage: Sabotage, now: Millis, mut step: Step) -> Step {
    if sabotage == Sabotage::IgnoreQuorum
        && let Some(Entry::Approved { grant, .. }) = step.append.first_mut()
        && grant.is_none()
    {
        *grant = Some(holdfast_store::Grant { execute_by: now.plus(1_000) });
        step.then = vec![Effect::Queue];
    }
    step
}

fn key_fate(sabotage: Sabotage, at: Millis, call: &Call, entries: &[Entry]) -> KeyFate {
    let fate = engine::key_fate(at, call, entries);
    let mut after = call.clone();
    if sabotage == Sabotage::ReleaseKeysOfDoubt
        && entries.iter().all(|entry| after.apply(at, entry).is_ok())
        && after.state == State::InDoubt
    {
        return KeyFate::Release;
    }
    fate
}
