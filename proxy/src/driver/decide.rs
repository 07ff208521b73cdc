//! Decisions of operators about calls.

use std::sync::Arc;

use holdfast_store::{
    Answer, Append, CallId, Decider, Digest, Entry, KeyFate, Refusal, Resolution, State, Urgency,
    engine::{Event, Unfit},
};
use tokio::sync::oneshot;

use super::{
    Driver,
    journaling::{append, load, now},
    live::Input,
    register::untrusted,
};

/// A decision on its way to a call's task.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) event: Event,
    pub(super) answer: oneshot::Sender<Result<State, DecideError>>,
}

/// Why a decision was not taken. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DecideError {
    /// There is no such call.
    NotFound,
    /// What was decided on is not what is asked now.
    Stale {
        /// What is asked now.
        digest: Option<Digest>,
    },
    /// This operator's word does not count here.
    NotAllowed(String),
    /// The call is not in a state in which that can be decided.
    Illegal(String),
    /// It could not be recorded.
    Journal(String),
}

impl Driver {
    /// An approver approves exactly `digest`; with a reason in `glass`, past all gates.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub(crate) async fn approve(
        &self,
        call: CallId,
        digest: Digest,
        by: Decider,
        glass: Option<String>,
    ) -> Result<State, DecideError> {
        // A finished call has no task, and no standing matters to it.
        let Some(live) = self.find(call) else { return Err(self.not_live(call).await) };
        let accepted = live.with(|shared| shared.call.accepted.clone());
        if let Some(upstream) = self.upstreams.get(&accepted.server)
            && let Some(why) = untrusted(self, &upstream, &accepted.tool)
        {
            return Err(DecideError::Illegal(why));
        }
        let standing = self.standing(&accepted.caller.principal, &by.name);
        self.decide(call, Event::Approve { by, digest, standing, glass }).await
    }

    /// An approver refuses; without a digest, whatever is asked now.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub(crate) async fn reject(
        &self,
        call: CallId,
        digest: Option<Digest>,
        by: Decider,
        reason: String,
    ) -> Result<State, DecideError> {
        self.decide(call, Event::Reject { by, digest, reason }).await
    }

    /// An approval is taken back before anything was sent.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub(crate) async fn revoke(
        &self,
        call: CallId,
        by: Decider,
        reason: String,
    ) -> Result<State, DecideError> {
        self.decide(call, Event::Revoke { by, reason }).await
    }

    /// An approver answers in the tool's place.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub(crate) async fn respond(
        &self,
        call: CallId,
        digest: Digest,
        by: Decider,
        answer: Answer,
    ) -> Result<State, DecideError> {
        self.decide(call, Event::Respond { by, digest, answer }).await
    }

    /// An operator settles an in-doubt call.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub(crate) async fn resolve(
        &self,
        call: CallId,
        by: Decider,
        how: Resolution,
    ) -> Result<State, DecideError> {
        self.decide(call, Event::Resolve(by, how)).await
    }

    /// An operator withdraws a call.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub(crate) async fn cancel(&self, call: CallId, by: Decider) -> Result<State, DecideError> {
        self.decide(call, Event::Cancel(by)).await
    }

    /// An operator frees the keys of a finished call.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub(crate) async fn release(self: &Arc<Self>, id: CallId, by: Decider) -> Result<State, DecideError> {
        if self.find(id).is_some_and(|live| !live.with(|shared| shared.call.state.is_done())) {
            return Err(DecideError::Illegal("it is not finished".into()));
        }
        // A finished call has no task; the compare-and-swap of the journal stands in for it.
        for _ in 0..3 {
            let loaded =
                load(&self.journal, id).await.map_err(|error| DecideError::Journal(error.to_string()))?;
            let call = loaded.ok_or(DecideError::NotFound)?;
            let step = holdfast_store::engine::step(self.moment(), &call, Event::Release(by.clone()))
                .map_err(unfit)?;
            let facts = Append {
                call: id,
                at: now(),
                expected: call.entries,
                entries: step.append,
                claim: holdfast_store::Claim::default(),
                keys: KeyFate::Release,
                urgency: Urgency::Now,
            };
            match append(&self.journal, facts).await {
                Ok(_) => {
                    self.forget_origin(&call);
                    return Ok(call.state);
                }
                Err(Refusal::Conflict { .. }) => {}
                Err(refusal) => return Err(DecideError::Journal(format!("{refusal:?}"))),
            }
        }
        Err(DecideError::Journal("others keep writing to it".into()))
    }

    /// Why nothing can be decided about a call that has no task.
    pub(super) async fn not_live(&self, call: CallId) -> DecideError {
        match load(&self.journal, call).await {
            Err(error) => DecideError::Journal(error.to_string()),
            Ok(Some(call)) => unfit(Unfit::WrongState(call.state)),
            Ok(None) => DecideError::NotFound,
        }
    }

    pub(super) async fn decide(&self, call: CallId, event: Event) -> Result<State, DecideError> {
        let Some(live) = self.find(call) else { return Err(self.not_live(call).await) };
        let (answer, answered) = oneshot::channel();
        if live.send(Input::Decision(Decision { event, answer })).is_err() {
            let state = live.with(|shared| shared.call.state);
            return Err(unfit(Unfit::WrongState(state)));
        }
        answered.await.unwrap_or_else(|_| {
            let state = live.with(|shared| shared.call.state);
            Err(unfit(Unfit::WrongState(state)))
        })
    }

    /// Records an answer that came after the call's task had ended.
    pub(super) async fn record_late(self: Arc<Self>, id: CallId, mut entry: Entry) {
        let Ok(Some(call)) = load(&self.journal, id).await else { return };
        let (principal, entries) = (&call.accepted.caller.principal, std::slice::from_mut(&mut entry));
        let most = self.config.get().intake.max_answer;
        let _writing = self.answers.lighten(id, principal, most, entries).await;
        for _ in 0..3 {
            let Ok(Some(call)) = load(&self.journal, id).await else { return };
            if State::after(Some(call.state), &entry).is_err() {
                return;
            }
            let facts = Append {
                call: id,
                at: now(),
                expected: call.entries,
                entries: vec![entry.clone()],
                claim: holdfast_store::Claim::default(),
                keys: KeyFate::Keep,
                urgency: Urgency::Soon,
            };
            match append(&self.journal, facts).await {
                Err(Refusal::Conflict { .. }) => {}
                Ok(_) | Err(_) => return,
            }
        }
    }
}

/// The words for a decision that does not fit.
pub(super) fn unfit(unfit: Unfit) -> DecideError {
    match unfit {
        Unfit::Stale { digest } => DecideError::Stale { digest: Some(digest) },
        Unfit::NotAnApprover => {
            DecideError::NotAllowed("none of its gates names you, or it is your own agent's call".into())
        }
        Unfit::AlreadyVoted => DecideError::Illegal("you have approved it already; others must, too".into()),
        Unfit::WrongState(state) => DecideError::Illegal(format!("it is {}", state.name())),
    }
}
