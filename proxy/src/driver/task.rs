//! The task of one call: the only place where the engine's steps are carried out.
//!
//! Order in every turn: step, append, wait until it is durable, fold, tell the waiters, carry out the effects. The one
//! exemption are calls that policy declares safe to repeat and that nobody can ask for again: their appends are
//! queued and not waited for.

use std::{sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, OptionFuture};
use holdfast_store::{
    Append, Attempt, Claim, Entry, KeyFate, Loss, Millis, Refusal, State, Urgency,
    engine::{self, Effect, Event, Step},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Driver,
    asking::{Note, Standing},
    classify,
    decide::unfit,
    journaling::{append, now},
    live::{Heard, Input, Live, Shared},
    slots::{Line, LineFull, Slot},
    ticket::Body,
    words,
};
use crate::{
    answers::Writing,
    report::Report,
    upstream::{Bookmark, Dispatch, Flight, Signal, Unsent, Upstream},
    wire,
};

/// How long an agent may take for what a server wants to know.
const ASK_LIMIT_MS: u64 = 60 * 60 * 1_000;
/// Appends of exempt calls that may be waiting before their callers have to wait, too.
const BACKLOG: usize = 20_000;

/// Whether this call's appends are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durable {
    /// Durable before visible.
    First,
    /// Off the answer path.
    Later,
}

pub(super) struct Task {
    pub(super) driver: Arc<Driver>,
    pub(super) live: Arc<Live>,
    pub(super) inbox: mpsc::UnboundedReceiver<Box<Input>>,
    pub(super) upstream: Arc<Upstream>,
    pub(super) line: Arc<Line>,
    pub(super) slot: Option<Slot>,
    pub(super) queued: Option<BoxFuture<'static, Result<Slot, LineFull>>>,
    pub(super) flight: Option<(Attempt, Flight)>,
    pub(super) probing: Probing,
    /// What the server wants to know from the agent, and since when.
    pub(super) question: Option<Standing>,
    /// What the journal keeps of the questions of this attempt.
    pub(super) note: Option<Note>,
    pub(super) durable: Durable,
}

/// Whether a probe is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probing {
    No,
    Yes,
}

/// The task cannot go on; the call stays as the journal has it.
pub(super) struct Halt;

impl Task {
    /// Carries out `first`, then lives until the call is done or Holdfast stops.
    pub(super) async fn run(mut self, first: Vec<Effect>) {
        self.carry_out(first);
        while !self.live.with(|shared| shared.call.state.is_done()) {
            let Some(input) = self.next().await else { break };
            // On the heap only while something happens: most of its life a call waits.
            if Box::pin(self.take(*input)).await.is_err() {
                break;
            }
        }
        if self.live.with(|shared| shared.call.state.is_done()) {
            self.forget_note().await;
        }
        self.driver.ended(&self.live);
    }

    async fn next(&mut self) -> Option<Box<Input>> {
        let in_line = self.queued.is_some() || self.slot.is_some();
        // The engine takes a pause that is over for one after which the call got in line. Where writing took longer than
        // the pause, it has not: then the end of the pause is still to be told.
        let clock = if in_line { now() } else { Millis(0) };
        let wake = self.live.with(|shared| engine::wake(clock, &shared.call));
        // A probe that is out needs no reminder; its own time limit brings it back.
        let wake = wake.filter(|_| self.probing == Probing::No);
        // While the server waits for the agent, the agent's time is what runs.
        let wake = match &self.question {
            Some((_, since)) => Some(since.plus(ASK_LIMIT_MS)),
            None => wake,
        };
        let closed = self.question.as_ref().map(|(question, _)| question.closed.clone());
        let closed: OptionFuture<_> = closed.map(CancellationToken::cancelled_owned).into();
        let timer: OptionFuture<_> = wake.map(|at| tokio::time::sleep(delay(at))).into();
        let slot: OptionFuture<_> = self.queued.as_mut().into();
        tokio::select! {
            biased;
            input = self.inbox.recv() => input,
            Some(slot) = slot => {
                self.queued = None;
                Some(Box::new(Input::Event(match slot {
                    Ok(slot) => {
                        self.slot = Some(slot);
                        Event::Slot
                    }
                    Err(LineFull) => Event::QueueFull,
                })))
            }
            Some(()) = closed => Some(Box::new(Input::Closed)),
            Some(()) = timer => Some(Box::new(Input::Event(Event::Tick))),
            () = self.driver.stopped.cancelled() => {
                self.stopped();
                None
            }
        }
    }

    async fn take(&mut self, input: Input) -> Result<(), Halt> {
        match input {
            Input::Event(Event::Tick) if self.question.is_some() => {
                self.refuse_question("the client did not answer in time");
                Ok(())
            }
            Input::Closed => self.closed().await,
            Input::Said(go_on) => self.said(go_on).await,
            Input::Event(Event::Tick) => {
                let event = self.never_left().unwrap_or(Event::Tick);
                self.step(event).await.map(drop)
            }
            // The slot that it was made for is gone, and with the next one it is made again.
            Input::Event(Event::Rechecked { .. }) if self.slot.is_none() => Ok(()),
            Input::Event(event) => self.step(event).await.map(drop),
            Input::Signal(attempt, signal, bookmark) => {
                let signal = match signal {
                    Signal::Progress(params) => return self.heard(&Heard::Progress(params)),
                    Signal::Remarked(remark) => return self.heard(&Heard::Remarked(remark)),
                    Signal::Asked(question) => return self.asked(attempt, question).await,
                    signal => signal,
                };
                let event = classify::event(&self.upstream.config(), attempt, signal);
                let stepped = self.step(event).await.map(drop);
                // What follows from it is durable.
                drop(bookmark);
                stepped
            }
            Input::Decision(decision) => match self.step(decision.event).await? {
                Ok(state) => {
                    decision.answer.send(Ok(state)).ok();
                    Ok(())
                }
                Err(reason) => {
                    decision.answer.send(Err(unfit(reason))).ok();
                    Ok(())
                }
            },
            Input::Probed(attempt, probed) => {
                self.probing = Probing::No;
                // What was seen of an earlier attempt says nothing about a later one.
                if self.live.with(|shared| shared.call.attempt()) != attempt {
                    return Ok(());
                }
                self.step(Event::Probed(probed)).await.map(drop)
            }
            Input::Wanted => {
                if self.live.with(|shared| shared.call.state == State::Approved) {
                    self.queue();
                }
                Ok(())
            }
            Input::Joined(caller, source) => {
                self.commit(now(), Step { append: vec![Entry::Joined { caller, source }], then: Vec::new() })
                    .await
            }
        }
    }

    fn heard(&self, heard: &Heard) -> Result<(), Halt> {
        self.live.with(|shared| shared.call.heard = now());
        self.live.heard(heard);
        Ok(())
    }

    fn refuse_question(&self, why: &str) {
        if let Some((question, _)) = &self.question {
            question.refuse(&wire::error_member(wire::INTERNAL_ERROR, why, None));
        }
    }

    /// The end of an attempt whose time is over while its server was not there to take it: that is no doubt.
    fn never_left(&self) -> Option<Event> {
        let attempt =
            self.live.with(|shared| (shared.call.state == State::InFlight).then(|| shared.call.attempt()))?;
        self.flight.as_ref().filter(|(out, flight)| *out == attempt && flight.recall())?;
        let server = self.upstream.config();
        let message = format!("server `{}` was not there within the time for one attempt", server.name);
        let unsent = Signal::Unsent(Unsent { code: "upstream-unreachable", message });
        self.driver.note_transport(&server, &unsent);
        Some(classify::event(&server, attempt, unsent))
    }

    /// One turn. The inner error says that a decision does not fit; nothing changed then.
    async fn step(&mut self, event: Event) -> Result<Result<State, engine::Unfit>, Halt> {
        let moment = self.driver.moment();
        match self.live.with(|shared| engine::step(moment, &shared.call, event)) {
            Err(reason) => Ok(Err(reason)),
            Ok(step) => {
                self.commit(moment.at, step).await?;
                Ok(Ok(self.live.with(|shared| shared.call.state)))
            }
        }
    }

    /// `at` is the moment that the step was made for: what was decided in time is recorded as in time.
    async fn commit(&mut self, at: Millis, mut step: Step) -> Result<(), Halt> {
        let dispatches = step.append.iter().any(|entry| matches!(entry, Entry::Dispatched { .. }));
        let recording = dispatches.then(|| self.driver.dispatching.token());
        if dispatches && let Some((_, earlier)) = &self.flight {
            // What its server still wants sent again would be done beside this one.
            earlier.no_more_rounds();
        }
        if dispatches && self.driver.closing.is_cancelled() {
            drop(recording);
            // The next start goes on from here, and nothing is in doubt.
            self.driver.stopped.cancelled().await;
            self.stopped();
            return Err(Halt);
        }
        if !step.append.is_empty() {
            // The engine has seen the answer as it came; what is kept and told of it may be less.
            let most = self.driver.config.get().intake.max_answer;
            let principal = self.live.with(|shared| shared.call.accepted.caller.principal.clone());
            let writing = self.driver.answers.lighten(self.live.id, &principal, most, &mut step.append).await;
            let (expected, keys) = self
                .live
                .with(|shared| (shared.call.entries, engine::key_fate(at, &shared.call, &step.append)));
            let facts = Append {
                call: self.live.id,
                at,
                expected,
                entries: step.append.clone(),
                claim: Claim::default(),
                keys,
                urgency: self.urgency(&step.append),
            };
            self.make_durable(facts, writing).await?;
            self.fold(at, &step.append, keys);
        }
        self.carry_out(step.then);
        Ok(())
    }

    fn urgency(&self, entries: &[Entry]) -> Urgency {
        let remark = entries.iter().all(|entry| matches!(entry, Entry::Joined { .. } | Entry::Probed { .. }));
        if self.durable == Durable::Later || remark { Urgency::Soon } else { Urgency::Now }
    }

    /// `writing` is dropped when the facts are durable.
    async fn make_durable(&mut self, facts: Append, writing: Option<Writing>) -> Result<(), Halt> {
        // A remark changes nothing that anybody is told.
        let remark = facts.entries.iter().all(|entry| matches!(entry, Entry::Joined { .. }));
        if self.durable == Durable::Later || remark {
            let done = move |outcome| {
                drop(writing);
                report_failure(outcome);
            };
            let waiting = self.driver.journal.submit(facts, Box::new(done));
            if waiting < BACKLOG {
                return Ok(());
            }
            // The writer is behind: going on would only fill the memory.
            tokio::time::sleep(Duration::from_millis(1)).await;
            return Ok(());
        }
        let outcome = append(&self.driver.journal, facts).await;
        drop(writing);
        outcome.map(drop).map_err(|refusal| self.broken(&refusal))
    }

    /// Holdfast stops: the call stays as the journal has it.
    fn stopped(&self) {
        let handle = self.live.with(|shared| words::stopped(&shared.call));
        self.live.break_off(handle);
    }

    /// A write failed: the call stays as the journal has it, and nobody is told anything else.
    pub(super) fn broken(&self, refusal: &Refusal) -> Halt {
        let why = match refusal {
            Refusal::Failed(error) => error.to_string(),
            // Only this task appends while it lives.
            other => format!("unexpected {other:?}"),
        };
        tracing::error!(call = %self.live.id, %why, "journal write failed");
        let report = self.live.with(|shared| {
            if shared.call.may_have_executed() {
                Report::outcome_unknown(shared.call.id, words::target(&shared.call), &why)
            } else {
                Report::journal_unavailable(&why)
            }
        });
        self.live.break_off(Body::Report(report));
        Halt
    }

    fn fold(&mut self, at: Millis, entries: &[Entry], keys: KeyFate) {
        // This may be the end of the attempt.
        self.count_pause();
        let (left_flight, state) = self.live.with(|shared| {
            let in_flight = shared.call.state == State::InFlight;
            for entry in entries {
                shared.call.apply(at, entry).expect("the engine only makes steps that its own table allows");
            }
            (in_flight && shared.call.state != State::InFlight, shared.call.state)
        });
        // A slot and a place in line are for a call that can still be dispatched; a re-check keeps its slot meanwhile.
        match state {
            State::InFlight => self.queued = None,
            State::Ready | State::Approved | State::Backoff if !left_flight => {}
            State::Ready | State::Approved | State::Backoff => self.slot = None,
            State::Previewing | State::Asking | State::InDoubt | State::Done(_) => {
                (self.slot, self.queued) = (None, None)
            }
        }
        if left_flight && let Some((question, _)) = self.question.take() {
            // Nobody can tell the server any more.
            question.take_back();
        }
        if state.is_done() {
            if let Some((_, flight)) = &self.flight {
                flight.no_more_rounds();
            }
            self.driver.settled(at, &self.live, keys);
        }
        self.live.changed();
    }

    fn queue(&mut self) {
        if self.slot.is_some() {
            self.live.tell(Event::Slot);
        } else if self.queued.is_none() {
            let line = self.line.clone();
            self.queued = Some(Box::pin(async move { line.enter().await }));
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                // The grant's own clock goes on meanwhile.
                Effect::Queue if self.live.awaits_agent() => {}
                Effect::Queue => self.queue(),
                Effect::Recheck => self.recheck(),
                Effect::Send(attempt) => self.send(attempt),
                Effect::CancelUpstream(attempt) => {
                    self.refuse_question("the call was cancelled");
                    if let Some((out, flight)) = &self.flight
                        && *out == attempt
                    {
                        flight.cancel("the caller cancelled it");
                    }
                }
                Effect::Preview => self.preview(),
                Effect::Probe => self.probe(),
            }
        }
    }

    fn send(&mut self, attempt: Attempt) {
        if let Some(pause) =
            self.driver.breaker(&self.upstream.config()).closed_for(std::time::Instant::now())
        {
            let message = format!(
                "server `{}` keeps failing; calls to it are refused for another {} s",
                self.upstream.name(),
                pause.as_secs() + 1
            );
            let unsent = Unsent { code: "breaker-open", message };
            self.live.send(Input::Signal(attempt, Signal::Unsent(unsent), None)).ok();
            return;
        }
        let dispatch = self.live.with(|shared| dispatch_of(shared, attempt));
        let hear = hear(&self.driver, &self.live, &self.upstream, attempt);
        self.flight = Some((attempt, self.upstream.dispatch(dispatch, hear)));
    }
}

/// What is sent to the server.
pub(super) fn dispatch_of(shared: &Shared, attempt: Attempt) -> Dispatch {
    let accepted = &shared.call.accepted;
    Dispatch {
        attempt: Some((shared.call.id, attempt)),
        caller: accepted.caller.clone(),
        tool: accepted.tool.clone(),
        arguments: shared.call.arguments().clone(),
        extra: accepted.extra.clone(),
        meta: accepted.meta.clone(),
        headers: accepted.headers.clone(),
        client: if shared.call.is_gated() {
            // Its agent has a task of ours already, and one in the other would be too much for it.
            Arc::new(shared.client.without_tasks())
        } else {
            shared.client.clone()
        },
        identity: Some(shared.call.identity().into()),
    }
}

/// Tells the call's task what an attempt brings; what comes when the task has ended is only recorded.
pub(super) fn hear(
    driver: &Arc<Driver>,
    live: &Arc<Live>,
    upstream: &Arc<Upstream>,
    attempt: Attempt,
) -> Box<dyn Fn(Signal) + Send + Sync> {
    let (driver, live, upstream) = (driver.clone(), live.clone(), upstream.clone());
    Box::new(move |signal| {
        driver.note_transport(&upstream.config(), &signal);
        if let Err(unsent) = live.send(Input::Signal(attempt, signal, Bookmark::here()))
            && let Input::Signal(attempt, Signal::Answered(answer), _) = *unsent
        {
            let entry = Entry::AnsweredAgain { attempt, answer, kept: None };
            tokio::spawn(driver.clone().record_late(live.id, entry));
        }
    })
}

fn delay(at: Millis) -> Duration {
    // A millisecond more, because a timer that fires within the deadline's own millisecond would fire twice.
    Duration::from_millis(at.since(now()) + 1)
}

fn report_failure(outcome: Result<holdfast_store::Appended, Refusal>) {
    if let Err(refusal) = outcome {
        tracing::error!(?refusal, "a call that is safe to repeat could not be recorded");
    }
}

/// The entry that ends a call which nobody can ask for any more, after a restart.
pub(super) fn abandon_exempt(attempt: Attempt) -> Entry {
    let message = "Holdfast was restarted while it ran; it is safe to repeat and nobody waits for it.";
    Entry::Lost {
        attempt,
        loss: Loss::Restart,
        trouble: holdfast_store::Trouble::new("answer-lost", message),
        then: holdfast_store::Then::Stop,
    }
}
