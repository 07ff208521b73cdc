//! After a restart: unfinished calls are read back and go on; finished ones are found again for their re-issues.

use std::sync::{Arc, Weak};

use holdfast_store::{
    Append, Call, Claim, Disposition, Entry, Hash32, Journal, JournalError, KeyFate, Millis, State, Urgency,
    engine,
};

use super::{
    Driver, accept,
    journaling::{append, folded, no_earlier_than, now, read},
    live::Live,
    plans::Plans,
    task::{Durable, Probing, Task, abandon_exempt},
};
use crate::upstream::{Client, Trust};

/// Identical earlier calls that are looked at, newest first.
const LOOK_BACK: usize = 32;

impl Driver {
    /// Reads unfinished calls back and lets each go on where the journal has it. Returns how many there are.
    ///
    /// # Errors
    /// Where the journal cannot be read or written.
    pub(crate) async fn recover(self: &Arc<Self>) -> Result<usize, JournalError> {
        self.read_register().await?;
        let judge: Weak<dyn Trust> = Arc::downgrade(&(self.clone() as Arc<dyn Trust>));
        self.upstreams.judged_by(judge);
        let plans = self.plans.clone();
        let calls = read(&self.journal, move |journal| unfinished(journal, &plans)).await?;
        // Before any deadline is looked at: a clock that was set back while Holdfast was down extends none.
        if let Some(latest) = calls.iter().map(|call| call.since.max(call.heard)).max() {
            no_earlier_than(latest);
        }
        let mut count = 0;
        for call in calls {
            count += 1;
            if engine::is_exempt(&call.accepted) {
                self.abandon(&call).await?;
            } else {
                self.resume(call)?;
            }
        }
        tokio::spawn(self.clone().watch_tools());
        Ok(count)
    }

    fn resume(self: &Arc<Self>, call: Call) -> Result<(), JournalError> {
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
        let (live, inbox) = Live::new(call, origin, Client::unknown());
        let live = Arc::new(live);
        self.live_map().insert(live.id, live.clone());
        live.tell(engine::Event::Recovered);
        let task = Task {
            driver: self.clone(),
            live,
            inbox,
            upstream,
            line,
            slot: None,
            queued: None,
            flight: None,
            probing: Probing::No,
            question: None,
            durable: Durable::First,
        };
        tokio::spawn(task.run(Vec::new()));
        Ok(())
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
