//! After a restart: unfinished calls are read back and go on; finished ones are found again for their re-issues.

use std::sync::{Arc, Weak};

use holdfast_store::{
    Append, Attempt, Call, Claim, Disposition, Entry, Hash32, Journal, JournalError, KeyFate, Millis, State,
    Urgency, engine,
};

use super::{
    Driver, accept,
    asking::{self, Note},
    journaling::{append, folded, no_earlier_than, now, read},
    live::{Input, Live},
    plans::Plans,
    task::{Durable, Probing, Task, abandon_exempt, dispatch_of, hear},
};
use crate::upstream::{Again, Client, Flight, Signal, Trust, Unsent, Upstream};

/// Identical earlier calls that are looked at, newest first.
const LOOK_BACK: usize = 32;

impl Driver {
    /// Reads unfinished calls back and lets each go on where the journal has it.
    ///
    /// # Errors
    /// Where the journal cannot be read or written.
    pub(crate) async fn recover(self: &Arc<Self>) -> Result<(), JournalError> {
        self.read_register().await?;
        let judge: Weak<dyn Trust> = Arc::downgrade(&(self.clone() as Arc<dyn Trust>));
        self.upstreams.judged_by(judge);
        let plans = self.plans.clone();
        let (calls, mut notes) = read(&self.journal, move |journal| {
            let calls = unfinished(journal, &plans)?;
            let notes = asking::notes(journal, &calls)?;
            Ok((calls, notes))
        })
        .await?;
        // Before any deadline is looked at: a clock that was set back while Holdfast was down extends none.
        if let Some(latest) = calls.iter().map(|call| call.since.max(call.heard)).max() {
            no_earlier_than(latest);
        }
        self.upstreams.recovering(now());
        let mut count = 0;
        for call in calls {
            count += 1;
            if engine::is_exempt(&call.accepted) {
                self.abandon(&call).await?;
            } else {
                let note = notes.remove(&call.id);
                self.resume(call, note)?;
            }
        }
        self.upstreams.recovered();
        tokio::spawn(self.clone().watch_tools());
        if count > 0 {
            tracing::info!(calls = count, "unfinished calls were read back");
        }
        Ok(())
    }

    fn resume(self: &Arc<Self>, mut call: Call, note: Option<Note>) -> Result<(), JournalError> {
        let upstream = self.upstreams.or_absent(&call.accepted.server, call.identity());
        let origin = accept::origin_of(&call);
        if let Some(hash) = origin {
            // Now, because later this call may be among the finished ones, although its answer has been heard.
            self.look_up_earlier(hash)?;
            let mut new = accept::new_origin(&call, hash);
            // Whoever asked was connected to a Holdfast that is no more.
            new.channel.clear();
            self.reissues().read_back(new, None);
        }
        let line = self.slots.line(&call.accepted.server, &call.accepted.tool, &call.accepted.plan.limits);
        if let Some(note) = &note {
            call.paused(Millis(0), Millis(note.paused_ms()));
        }
        let client = note.as_ref().map_or_else(Client::unknown, Note::client);
        let (live, inbox) = Live::new(call, origin, client);
        let live = Arc::new(live);
        self.live_map().insert(live.id, live.clone());
        let flight = self.resume_attempts(&live, &upstream, note.as_ref());
        let in_flight = live.with(|shared| shared.call.state == State::InFlight);
        let task = Task {
            driver: self.clone(),
            live,
            inbox,
            upstream,
            slot: if in_flight && flight.is_some() { line.try_enter() } else { None },
            line,
            queued: None,
            flight,
            probing: Probing::No,
            question: None,
            note,
            durable: Durable::First,
        };
        tokio::spawn(task.run(Vec::new()));
        Ok(())
    }

    /// Tells the call's task where it stands, and lets it hear what its attempts of earlier lives still bring.
    fn resume_attempts(
        self: &Arc<Self>,
        live: &Arc<Live>,
        upstream: &Arc<Upstream>,
        note: Option<&Note>,
    ) -> Option<(Attempt, Flight)> {
        let (attempts, state, since, same) = live.with(|shared| {
            let call = &shared.call;
            (call.attempts, call.state, call.since, call.identity() == &*upstream.identity())
        });
        let mut flight = None;
        for attempt in (1..=attempts).map(Attempt) {
            let latest = attempt.0 == attempts && state == State::InFlight;
            // Only of the latest it is known when it was to be sent, and what is spoken to now may be another server.
            // Its clocks stood still since.
            let paused_ms = note.map_or(0, Note::paused_ms);
            let meant = if latest && same { Millis(since.0.saturating_sub(paused_ms)) } else { Millis(0) };
            let hear = hear(self, live, upstream, attempt);
            let wanted = note.filter(|_| latest && same).and_then(Note::latest);
            let dispatch = live.with(|shared| dispatch_of(shared, attempt));
            match upstream.again(dispatch, meant, wanted, hear) {
                Again::Awaited(sent) => {
                    if !latest {
                        sent.no_more_rounds();
                    }
                    flight = Some((attempt, sent));
                }
                Again::NeverSent => {
                    let message = "Holdfast was restarted before this attempt left.".to_owned();
                    let unsent = Signal::Unsent(Unsent { code: "upstream-unreachable", message });
                    live.send(Input::Signal(attempt, unsent, None)).ok();
                    return flight;
                }
                Again::Unknown => {}
            }
        }
        let awaited = flight.as_ref().is_some_and(|(attempt, _)| attempt.0 == attempts);
        if awaited && state == State::InFlight {
            // It goes on as if nothing had happened; nobody has listened for signs of life meanwhile. Where a question is
            // open the clocks stand still.
            if !note.is_some_and(Note::has_open) {
                live.with(|shared| shared.call.heard = now());
            }
        } else {
            live.tell(engine::Event::Recovered);
        }
        flight
    }

    /// Nobody can ask for this call again, and repeating it would help nobody.
    async fn abandon(&self, call: &Call) -> Result<(), JournalError> {
        let entry = match call.state {
            State::InFlight => abandon_exempt(call.attempt()),
            _ => Entry::Abandoned {
                trouble: holdfast_store::Trouble::new(
                    "answer-lost",
                    "Holdfast was restarted while it waited.",
                ),
            },
        };
        let facts = Append {
            call: call.id,
            at: now(),
            expected: call.entries,
            entries: vec![entry],
            claim: Claim::default(),
            keys: KeyFate::Keep,
            urgency: Urgency::Now,
        };
        match append(&self.journal, facts).await {
            Err(holdfast_store::Refusal::Failed(error)) => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Makes the re-issue index know the calls of an earlier life that were accepted under this hash.
    pub(super) fn look_up_earlier(&self, hash: Hash32) -> Result<(), JournalError> {
        if self.reissues().is_looked_up(hash) {
            return Ok(());
        }
        let mut earlier = Vec::new();
        for summary in self.journal.identical(hash, LOOK_BACK)? {
            // Unfinished ones are in the index since the start.
            if !summary.state.is_done() {
                continue;
            }
            let Ok(Some(call)) = Call::fold(&self.journal.history(summary.call)?) else { continue };
            let ended = settled_at(&call);
            if call.key_fate() == KeyFate::Release || call.released {
                continue;
            }
            let mut new = accept::new_origin(&call, hash);
            new.channel.clear();
            earlier.push((new, ended));
        }
        // Together, so that nobody finds the hash looked up and its calls not there yet; and only once, because calls of
        // this life, which others may have made since, are in the index, or have been heard and left it.
        let mut reissues = self.reissues();
        if reissues.first_look(hash) {
            for (new, ended) in earlier {
                reissues.read_back(new, ended);
            }
        }
        Ok(())
    }
}

/// The calls that are not done, by one thread and without what they have in common: thousands may wait for people.
fn unfinished(journal: &dyn Journal, plans: &Plans) -> Result<Vec<Call>, JournalError> {
    let mut calls = Vec::new();
    for id in journal.unfinished()? {
        let Some(mut call) = folded(journal, id)?.filter(|call| !call.state.is_done()) else { continue };
        if let Some(accepted) = Arc::get_mut(&mut call.accepted) {
            accepted.plan = plans.shared(accepted.plan.clone());
            if let Disposition::Ask { gates, .. } = &mut accepted.disposition {
                *gates = plans.gates(gates);
            }
        }
        if let Some(hold) = &mut call.hold {
            hold.gates = plans.gates(&hold.gates);
        }
        calls.push(call);
    }
    Ok(calls)
}

/// Since when the re-issue window runs; none for a hold that nobody has collected.
fn settled_at(call: &Call) -> Option<Millis> {
    if call.is_gated() { call.collected } else { Some(call.since) }
}
