//! What reaches the driver from agents, operators, servers and its own errands.

use holdfast_policy::{Failure, OnDisconnect};
use holdfast_store::{
    Accepted, Answer, AnswerKind, CallId, Claim, Decider, Entry, Key, KeyFate, Outcome, Shown, ShownKind,
    State, Text,
    engine::{self, Edited, Effect, Event, OldProcess, Probed, Recheck, Standing},
};

use super::{Driver, Pending, Probe, Why, line::server_of};
use crate::{
    env::{Env, Happening, ProbeTrip, Ran},
    people::{self, Act, Does, Final, News, Seen},
    sabotage::Sabotage,
    scenario::{AGENTS, OPERATORS, Verdict, caller, draw_gate},
    upstream::{self, Reply, Truth},
};

impl Driver {
    /// An agent asks: a new call, or one that exists already.
    pub(crate) fn ask(&mut self, env: &mut Env, ask: usize) -> Ran {
        env.crash_point()?;
        let Some(stream) = env.people.open(ask) else { return Ok(()) };
        let setup = &env.scenario.asks[ask];
        let intent = &env.scenario.intents[setup.intent];
        let accepted = intent.accepted(setup);
        let (server, allowed) = (intent.server, intent.verdict == Verdict::Allow);
        be_patient(env, ask, stream);
        let mut claim = Claim { keys: accepted.keys.clone(), ..Claim::default() };
        if env.sabotage == Sabotage::ClaimNotAtomic {
            if let Some(owner) = claim.keys.iter().find_map(|key| env.audit.owner(key.hash)) {
                return self.join(env, ask, stream, owner);
            }
            claim.keys.clear();
        }
        let slot = if allowed { self.slot_at_once(server) } else { engine::SlotAtOnce::None };
        let id = env.people.fresh_id();
        env.trace(|| format!("agent {ask} asks: {id} keys {:?}", accepted.keys));
        let step = engine::begin(accepted, slot);
        let why = Why::Begin { ask, stream, slot };
        let at = self.now(env);
        let pending = Pending { call: id, at, entries: step.append, then: step.then, why };
        self.submit(env, 0, claim, KeyFate::Keep, pending)
    }

    /// A request turned out to be a call that exists.
    pub(super) fn join(&mut self, env: &mut Env, ask: usize, stream: u32, id: CallId) -> Ran {
        self.load(env, id);
        let setup = &env.scenario.asks[ask];
        let intent = &env.scenario.intents[setup.intent];
        if self.calls[&id].call.accepted.fingerprint != intent.fingerprint(setup) {
            if env.people.close(ask, stream) {
                people::hear(env, ask, id, &News::KeyReused);
            }
            return self.settle(env, id);
        }
        let source = setup.keys(intent).first().map(|key: &Key| key.source);
        if env.rng.percent(50) {
            let caller = caller(env.scenario.asks[ask].agent);
            self.write_down(env, id, Entry::Joined { caller, source })?;
        }
        self.attach(env, ask, stream, id)
    }

    /// A note in the margin of a call: nothing follows from it, and it is dropped where others were faster.
    fn write_down(&mut self, env: &mut Env, id: CallId, entry: Entry) -> Ran {
        let at = self.now(env);
        let live = self.live(id);
        live.appends += 1;
        let expected = live.call.entries;
        let pending = Pending { call: id, at, entries: vec![entry], then: Vec::new(), why: Why::Note };
        self.submit(env, expected, Claim::default(), KeyFate::Keep, pending)
    }

    /// An agent collects a call by its id.
    pub(crate) fn wait_for(&mut self, env: &mut Env, ask: usize) -> Ran {
        let Some(id) = env.people.call(ask) else { return Ok(()) };
        let Some(stream) = env.people.open(ask) else { return Ok(()) };
        be_patient(env, ask, stream);
        if self.load(env, id) {
            return self.attach(env, ask, stream, id);
        }
        env.audit.expect(4, false, || format!("agent {ask} was told of {id}, which does not exist"));
        Ok(())
    }

    pub(super) fn attach(&mut self, env: &mut Env, ask: usize, stream: u32, id: CallId) -> Ran {
        env.people.learn(ask, id);
        let live = self.live(id);
        live.waiters.push((ask, stream));
        if live.call.state == State::Asking {
            let wait = live.call.accepted.plan.hold_wait_ms;
            env.schedule(wait, Happening::HoldWait(self.epoch, id, ask));
        }
        self.settle(env, id)
    }

    pub(crate) fn hold_wait_over(&mut self, env: &mut Env, id: CallId, ask: usize) -> Ran {
        let Some(live) = self.calls.get_mut(&id) else { return Ok(()) };
        if live.call.state != State::Asking {
            return Ok(());
        }
        let (leave, stay) = live.waiters.drain(..).partition(|waiter| waiter.0 == ask);
        live.waiters = stay;
        self.deliver(env, id, leave, &News::Held)
    }

    /// Tells whoever waits what is durable.
    pub(super) fn notify(&mut self, env: &mut Env, id: CallId) -> Ran {
        let live = self.live(id);
        let news = match live.call.state {
            State::Done(outcome) => News::Final(self.end_of(env, id, outcome)),
            State::InDoubt if !engine::is_settling(&live.call) => News::InDoubt,
            _ => return Ok(()),
        };
        let waiters = std::mem::take(&mut self.live(id).waiters);
        if news == News::InDoubt && env.sabotage == Sabotage::ForgetWaiters {
            return Ok(());
        }
        let first = waiters.first().map(|&(ask, _)| caller(env.scenario.asks[ask].agent));
        self.deliver(env, id, waiters, &news)?;
        let call = &self.live(id).call;
        match first.filter(|_| call.is_gated() && call.state.is_done() && call.collected.is_none()) {
            Some(caller) => self.write_down(env, id, Entry::Collected { caller }),
            None => Ok(()),
        }
    }

    fn end_of(&self, env: &Env, id: CallId, outcome: Outcome) -> Final {
        let mut answer = self.calls[&id].call.answer.clone();
        if env.sabotage == Sabotage::LastAnswerWins {
            answer = env.audit.latest_answer(id).or(answer);
        }
        Final { outcome, answer }
    }

    fn deliver(&mut self, env: &mut Env, id: CallId, waiters: Vec<(usize, u32)>, news: &News) -> Ran {
        for (ask, stream) in waiters {
            env.crash_point()?;
            if env.people.close(ask, stream) {
                people::hear(env, ask, id, news);
            }
            env.crash_point()?;
        }
        Ok(())
    }

    pub(super) fn answer_early(&mut self, env: &mut Env, id: CallId, answer: Answer) -> Ran {
        let waiters = std::mem::take(&mut self.live(id).waiters);
        let outcome = if answer.kind == AnswerKind::Result { Outcome::Succeeded } else { Outcome::Failed };
        self.deliver(env, id, waiters, &News::Final(Final { outcome, answer: Some(answer) }))
    }

    /// A stream closes: the last one to go may take the work along.
    pub(crate) fn stream_closed(&mut self, env: &mut Env, ask: usize, stream: u32) -> Ran {
        if !env.people.close(ask, stream) {
            return Ok(());
        }
        let after = env.rng.below(300);
        env.schedule(after, Happening::Ask(ask));
        let found = self.calls.iter().find(|(_, live)| live.waiters.contains(&(ask, stream)));
        let Some((&id, _)) = found else { return Ok(()) };
        let live = self.live(id);
        live.waiters.retain(|&waiter| waiter != (ask, stream));
        let plan = &live.call.accepted.plan;
        if live.waiters.is_empty()
            && plan.on_disconnect == OnDisconnect::Cancel
            && live.call.state != State::Asking
        {
            let by = agent(env.scenario.asks[ask].agent);
            // What cannot be cancelled any more goes on.
            let _too_late = self.tell(env, id, Event::Cancel(by), None)?;
        }
        self.settle(env, id)
    }

    pub(crate) fn withdraw(&mut self, env: &mut Env, ask: usize) -> Ran {
        let Some(id) = env.people.call(ask) else { return Ok(()) };
        let by = agent(env.scenario.asks[ask].agent);
        let _too_late = self.tell(env, id, Event::Cancel(by), None)?;
        self.settle(env, id)
    }

    pub(crate) fn operator_looks(&mut self, env: &mut Env, who: usize) -> Ran {
        let ids: Vec<_> = env.audit.calls.keys().copied().collect();
        for _ in 0..ids.len().min(2) {
            let id = *env.rng.pick(&ids);
            if self.load(env, id) {
                let call = &self.calls[&id].call;
                let digest = call.hold.as_ref().map(|hold| hold.digest);
                let seen = Seen { digest, attempts: call.attempts };
                let state = call.state;
                people::look(env, who, id, state, seen);
                self.settle(env, id)?;
            }
        }
        Ok(())
    }

    pub(crate) fn operator_acts(&mut self, env: &mut Env, act: &Act) -> Ran {
        if !self.load(env, act.call) {
            return Ok(());
        }
        let call = &self.calls[&act.call].call;
        let by = people::decider(act.who);
        let event = match &act.does {
            Does::Approve => {
                let Some(seen) = act.seen.digest else { return Ok(()) };
                let shown = call.hold.as_ref().map_or(seen, |hold| hold.digest);
                let digest = if env.sabotage == Sabotage::ApproveUnseen { shown } else { seen };
                let standing = standing(env.sabotage, act.who, &call.accepted);
                env.audit.means_to_approve(act.who, act.call, seen);
                Event::Approve { by, digest, standing, glass: None }
            }
            Does::Reject => Event::Reject { by, digest: act.seen.digest, reason: "no".into() },
            Does::Revoke => Event::Revoke { by, reason: "second thoughts".into() },
            Does::Edit => {
                let Some(seen) = act.seen.digest else { return Ok(()) };
                let edited = Edited {
                    arguments: Text::of(&serde_json::json!({ "edited": act.who })),
                    digest: env.fresh_digest(),
                    gates: vec![draw_gate(&mut env.rng, 0)],
                    shown: None,
                    identity: None,
                };
                Event::Edit { by, seen, edited: Box::new(edited) }
            }
            Does::Respond => {
                let Some(digest) = act.seen.digest else { return Ok(()) };
                let text = Text::of(&serde_json::json!({ "by": act.who }));
                Event::Respond { by, digest, answer: Answer { kind: AnswerKind::Result, text } }
            }
            Does::GiveUp => Event::Resolve(by, holdfast_store::Resolution::GaveUp),
            Does::Release => Event::Release(by),
            Does::Cancel => Event::Cancel(by),
            Does::Settle(how) => Event::Resolve(by, how.clone()),
        };
        let decided_for = matches!(event, Event::Resolve(..)).then_some(act.seen.attempts);
        let outcome = self.tell(env, act.call, event, decided_for)?;
        env.trace(|| format!("operator {} acts on {}: {outcome:?}", OPERATORS[act.who].0, act.call));
        self.settle(env, act.call)
    }

    /// A server says something about a request.
    pub(crate) fn reply(&mut self, env: &mut Env, index: usize, what: Reply) -> Ran {
        let sent = &env.upstreams.sent[index];
        let (id, attempt) = (sent.call, sent.attempt);
        if !self.load(env, id) {
            return Ok(());
        }
        let call = &self.calls[&id].call;
        if env.sabotage == Sabotage::DropLateAnswers && call.state != State::InFlight {
            return Ok(());
        }
        let event = match what {
            Reply::Result => match &sent.truth {
                Truth::Executed(text) => {
                    Event::Answered(attempt, Answer { kind: AnswerKind::Result, text: text.clone() })
                }
                Truth::Pending | Truth::Never => return Ok(()),
            },
            Reply::ToolError(text) => Event::Answered(attempt, Answer { kind: AnswerKind::ToolError, text }),
            Reply::Failed(mut failed) => {
                let gated = call.is_gated();
                let misjudges = (env.sabotage == Sabotage::RetryNever && !gated)
                    || (env.sabotage == Sabotage::UseGrantTwice && gated);
                if failed.failure == Failure::AnswerLost && misjudges {
                    failed.failure = Failure::NotSent;
                }
                if failed.failure == Failure::AnswerLost && env.sabotage == Sabotage::GuessFailed {
                    failed.failure = Failure::RefusedForGood;
                }
                Event::Failed(attempt, *failed)
            }
            Reply::Progress => Event::Progress(attempt),
        };
        self.tell(env, id, event, None)?.expect("what servers say is no decision");
        self.settle(env, id)
    }

    /// The effect `Send`, and nothing else, makes a server act.
    pub(super) fn send_all(
        &mut self,
        env: &mut Env,
        id: CallId,
        sends: Vec<Effect>,
        unwritten: Option<&Accepted>,
    ) -> Ran {
        for effect in sends {
            let Effect::Send(attempt) = effect else { continue };
            env.crash_point()?;
            let accepted = match unwritten {
                Some(accepted) => accepted.clone(),
                None => holdfast_store::Accepted::clone(&self.calls[&id].call.accepted),
            };
            env.audit.sends(id, attempt, &accepted, &env.upstreams);
            let mut key = upstream_key(id, &accepted);
            if env.sabotage == Sabotage::KeyPerAttempt {
                key = key.wrapping_add(u64::from(attempt.0));
            }
            let server = server_of(&accepted);
            env.trace(|| format!("SEND {id} attempt {}", attempt.0));
            upstream::receive(env, id, attempt, accepted.plan.repeat, key, server);
        }
        Ok(())
    }

    pub(super) fn recheck(&mut self, env: &mut Env, id: CallId) {
        let live = self.live(id);
        live.slot.step_begins();
        let revision = live.call.hold.as_ref().map_or(1, |hold| hold.revision);
        let recheck = match env.rng.below(100) {
            0..8 if !env.is_calm() => Recheck::Changed {
                reason: "drift".into(),
                digest: env.fresh_digest(),
                gates: vec![draw_gate(&mut env.rng, 0)],
                shown: None,
                identity: None,
            },
            8..11 if !env.is_calm() => Recheck::Denied { reason: "stricter".into() },
            _ => Recheck::Same,
        };
        let after = env.rng.between(0, 30);
        env.schedule(after, Happening::RecheckBack(self.epoch, id, revision, Box::new(recheck)));
    }

    pub(crate) fn rechecked(&mut self, env: &mut Env, id: CallId, revision: u32, recheck: Recheck) -> Ran {
        if !self.calls.contains_key(&id) {
            return Ok(());
        }
        if self.live(id).call.hold.as_ref().is_some_and(|hold| hold.revision == revision) {
            env.audit.rechecked(id, &recheck);
        }
        self.tell(env, id, Event::Rechecked { revision, recheck }, None)?.expect("a re-check is no decision");
        self.settle(env, id)
    }

    /// Looks up what the call would do.
    pub(super) fn preview(&mut self, env: &mut Env, id: CallId) {
        let after = env.rng.between(0, 200);
        env.schedule(after, Happening::PreviewBack(self.epoch, id));
    }

    pub(crate) fn previewed(&mut self, env: &mut Env, id: CallId) -> Ran {
        if !self.calls.contains_key(&id) {
            return Ok(());
        }
        let failed = env.rng.percent(20);
        let kind = if failed { ShownKind::Failed } else { ShownKind::Preview };
        let shown = Shown { kind, text: Text::of(&serde_json::json!("seen")), drift: Vec::new() };
        let digest = env.fresh_digest();
        self.tell(env, id, Event::Previewed { shown, digest }, None)?.expect("a preview is no decision");
        self.settle(env, id)
    }

    pub(super) fn probe(&mut self, env: &mut Env, id: CallId) {
        let live = self.live(id);
        if live.probe == Probe::Out {
            return;
        }
        live.probe = Probe::Out;
        let attempts = live.call.attempts;
        let trip = ProbeTrip { epoch: self.epoch, call: id, attempts, old_process: old_process(env, id) };
        let after = env.rng.between(0, 80);
        env.schedule(after, Happening::ProbeLooks(trip));
    }

    /// The probe is at the server: this is the moment that its answer is about.
    pub(crate) fn probe_looks(&mut self, env: &mut Env, trip: ProbeTrip) -> Ran {
        let probed = match env.upstreams.result(trip.call) {
            _ if !env.is_calm() && env.rng.percent(20) => Probed::Unclear("unclear".into()),
            Some(answer) => Probed::Confirmed(answer),
            None => Probed::Absent { old_process: trip.old_process },
        };
        let longest = *env.rng.pick(&[5, 80, 400]);
        let after = env.rng.between(0, longest);
        env.schedule(after, Happening::ProbeBack(trip, probed));
        Ok(())
    }

    pub(crate) fn probe_back(&mut self, env: &mut Env, trip: ProbeTrip, probed: Probed) -> Ran {
        let Some(live) = self.calls.get_mut(&trip.call) else { return Ok(()) };
        live.probe = Probe::Home;
        let judged_late = env.sabotage == Sabotage::JudgeProcessLate;
        let probed = match probed {
            Probed::Absent { .. } if judged_late => {
                Probed::Absent { old_process: old_process(env, trip.call) }
            }
            probed => probed,
        };
        // A probe that left before the latest attempt says nothing about it.
        if live.call.attempts == trip.attempts {
            self.tell(env, trip.call, Event::Probed(probed), None)?.expect("a probe is no decision");
        }
        self.settle(env, trip.call)
    }
}

fn be_patient(env: &mut Env, ask: usize, stream: u32) {
    if let Some(patience_ms) = env.scenario.asks[ask].patience_ms {
        env.schedule(patience_ms, Happening::Impatience(ask, stream));
    }
}

fn old_process(env: &Env, id: CallId) -> OldProcess {
    if env.upstreams.is_gone(id) { OldProcess::Gone } else { OldProcess::MayLive }
}

fn standing(sabotage: Sabotage, who: usize, accepted: &Accepted) -> Standing {
    let owner =
        AGENTS.iter().find(|(name, _)| *name == accepted.caller.principal).map_or("", |agent| agent.1);
    if owner == OPERATORS[who].0 && sabotage != Sabotage::CountOwner {
        Standing::Owner
    } else {
        Standing::Other
    }
}

fn agent(agent: usize) -> Decider {
    Decider { name: AGENTS[agent].0.to_owned(), groups: Vec::new(), via: "agent".into() }
}

/// The same for each attempt, and for whatever else has the same key.
fn upstream_key(id: CallId, accepted: &Accepted) -> u64 {
    let hash = crate::audit::effect_group(id, accepted);
    u64::from_be_bytes(hash.0[..8].try_into().expect("a hash has 32 bytes")) ^ u64::from(hash.0[31])
}
