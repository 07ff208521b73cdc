//! A request is taken as a call that exists: joined while it runs, answered from the record when it is done.

use std::sync::Arc;

use holdfast_policy::OnJoin;
use holdfast_store::{Call, CallId, Caller, Hash32, KeySource};

use super::{
    Driver,
    accept::origin_of,
    journaling::load,
    live::{Input, Live, Progress},
    reissue::From,
    ticket::{Body, Joined, Patience, Receipt, Reply, Start, Ticket},
    words,
};
use crate::{report::Report, upstream::Client};

/// What a request wants of the call that it becomes or joins.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) caller: Caller,
    pub(super) from: From,
    pub(super) progress: Progress,
    /// What the agent's client can do.
    pub(super) client: Arc<Client>,
}

/// How a request came to be taken as an existing call.
pub(super) enum By {
    /// A key that is taken.
    Key(KeySource),
    /// As the re-issue of an answer that may not have been heard, with the place among those that wait for it.
    Reissue(Receipt),
}

impl Driver {
    /// Waits for a call that exists (`holdfast_wait`); none where it is not this principal's.
    pub(crate) async fn collect(
        self: &Arc<Self>,
        caller: &Caller,
        connection: u64,
        id: CallId,
        progress: Progress,
        client: &Arc<Client>,
    ) -> Option<Ticket> {
        let from = super::from(connection, &caller.channel);
        let wish = Wish { caller: caller.clone(), from, progress, client: client.clone() };
        if let Some(live) = self.find(id) {
            let own = live.with(|shared| shared.call.accepted.caller.principal == caller.principal);
            return own.then(|| Ticket::started(self.attach(&live, wish, None, Patience::COLLECTING)));
        }
        let call = load(&self.journal, id).await.ok().flatten()?;
        let own = call.accepted.caller.principal == caller.principal;
        own.then(|| Ticket::started(Start::Reply(Box::new(self.replay(&call, &wish, None)))))
    }

    /// What goes on with a request whose stream was cut is as patient as that was.
    pub(crate) fn with_patience_of(&self, id: CallId, ticket: Ticket) -> Ticket {
        match self.find(id) {
            Some(live) => ticket.with_patience(live.with(|shared| Patience::of(&shared.call))),
            None => ticket,
        }
    }

    /// A call as it is now, for the agent that made it; none where it is not this principal's.
    pub(crate) async fn look(&self, caller: &Caller, id: CallId) -> Option<Call> {
        let live = self.find(id);
        let call = match &live {
            Some(live) => live.with(|shared| shared.call.clone()),
            None => load(&self.journal, id).await.ok().flatten()?,
        };
        if call.accepted.caller.principal != caller.principal {
            return None;
        }
        if let Some(live) = live {
            live.wanted();
        }
        Some(call)
    }

    /// Where a call stands, for the agent that made it.
    pub(crate) async fn status(&self, caller: &Caller, id: CallId) -> Option<serde_json::Value> {
        let call = self.look(caller, id).await?;
        Some(serde_json::json!({
            "call": id,
            "state": call.state.name(),
            "server": call.accepted.server,
            "tool": call.accepted.tool,
            "attempts": call.attempts,
            "accepted_at_ms": call.accepted_at.0,
            "since_ms": call.since.0,
            "trouble": call.trouble.as_ref().map(|trouble| &trouble.message),
        }))
    }

    /// An agent withdraws a call of its own. False where it is not this principal's; one that is past withdrawing stays
    /// as it is.
    pub(crate) async fn withdraw(&self, caller: &Caller, id: CallId) -> bool {
        if self.look(caller, id).await.is_none() {
            return false;
        }
        if let Err(error) = self.cancel(id, words::agent(&caller.principal)).await {
            tracing::debug!(call = %id, ?error, "a withdrawal came too late");
        }
        true
    }

    /// Takes a request as the call `id`, if it asks for the same.
    pub(super) async fn join(self: &Arc<Self>, id: CallId, fingerprint: Hash32, wish: Wish, by: By) -> Start {
        let (source, place) = match by {
            By::Key(source) => (Some(source), None),
            By::Reissue(place) => (None, Some(place)),
        };
        if let Some(live) = self.find(id) {
            let (same, on_join, done, patience) = live.with(|shared| {
                let accepted = &shared.call.accepted;
                (
                    accepted.fingerprint == fingerprint,
                    accepted.plan.on_join,
                    words::reply(&shared.call).is_some(),
                    Patience::of(&shared.call),
                )
            });
            if !same {
                return refused(Report::key_reused(id, source_name(source)));
            }
            live.send(Input::Joined(wish.caller.clone(), source)).ok();
            if done || on_join == OnJoin::Attach || source == Some(KeySource::Transport) {
                return self.attach(&live, wish, place, patience);
            }
            return live.with(|shared| not_attached(&shared.call, on_join));
        }
        match load(&self.journal, id).await {
            Err(error) => refused(Report::journal_unavailable(&error.to_string())),
            Ok(None) => {
                // Once said, there is nothing left of it that a request could be the re-issue of.
                if let Some(place) = place {
                    place.withdraw();
                }
                refused(Report::key_expired(id, source_name(source)))
            }
            Ok(Some(call)) if call.accepted.fingerprint != fingerprint => {
                refused(Report::key_reused(id, source_name(source)))
            }
            Ok(Some(call)) => {
                if call.state.is_done() {
                    let entry = holdfast_store::Entry::Joined { caller: wish.caller.clone(), source };
                    tokio::spawn(self.clone().record_late(id, entry));
                }
                Start::Reply(Box::new(self.replay(&call, &wish, place)))
            }
        }
    }

    /// A place among the waiters of a live call; `place` where the re-issue index counts the request already.
    pub(super) fn attach(
        self: &Arc<Self>,
        live: &Arc<Live>,
        wish: Wish,
        place: Option<Receipt>,
        patience: Patience,
    ) -> Start {
        // What was denied with its first fact is told for the first time.
        let replayed = live.with(|shared| shared.call.state.is_done() && shared.call.entries > 1);
        let receipt = place.unwrap_or_else(|| self.place(live.origin, live.id, wish.from));
        live.with(|shared| {
            if shared.call.accepted.caller.principal == wish.caller.principal {
                shared.client = wish.client.clone();
            }
        });
        let ends = live.join(wish.progress, replayed, &wish.caller.principal);
        Start::Joined(Joined {
            live: live.clone(),
            waiter: ends.waiter,
            heard: ends.heard,
            reply: ends.reply,
            receipt,
            patience,
            since: tokio::time::Instant::now(),
            over: false,
        })
    }

    /// One more place among those that wait for a call.
    fn place(self: &Arc<Self>, origin: Option<Hash32>, call: CallId, from: From) -> Receipt {
        let Some(hash) = origin else { return Receipt::none() };
        self.reissues().joined(hash, call, from.connection);
        Receipt::new(self.clone(), hash, call, from)
    }

    /// The reply from the record; `place` where the re-issue index counts the request already.
    fn replay(self: &Arc<Self>, call: &Call, wish: &Wish, place: Option<Receipt>) -> Reply {
        let receipt = place.unwrap_or_else(|| self.place(origin_of(call), call.id, wish.from.clone()));
        // Without a task and not done: its task ended with the journal, and only a restart can go on.
        let body = words::reply(call).unwrap_or_else(|| Body::Handle(words::running(call)));
        Reply { call: Some(call.id), state: call.state.name(), replayed: true, body, receipt }
    }
}

fn not_attached(call: &Call, on_join: OnJoin) -> Start {
    let target = words::target(call);
    let body = match (on_join, call.state) {
        (OnJoin::Reject, _) => Body::Report(Report::key_in_flight(call.id, target)),
        (_, state) if state.is_held() => Body::Handle(words::held(call)),
        _ => Body::Handle(words::running(call)),
    };
    let state = call.state.name();
    Start::Reply(Box::new(Reply {
        call: Some(call.id),
        state,
        replayed: false,
        body,
        receipt: Receipt::none(),
    }))
}

pub(super) fn refused(report: Report) -> Start {
    Start::Reply(Box::new(Reply::refusal(report)))
}

fn source_name(source: Option<KeySource>) -> &'static str {
    match source {
        Some(KeySource::Transport) => "transport",
        Some(KeySource::Explicit) => "explicit",
        Some(KeySource::Effect) => "effect",
        Some(KeySource::Run) => "run position",
        None => "re-issue",
    }
}
