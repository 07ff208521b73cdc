//! An approver has an approval remembered, or forgotten.

use std::sync::Arc;

use holdfast_policy::UpstreamKey;
use holdfast_store::{Call, CallId, Decider, Digest, Hold, Note, Remembered, RememberedId, Text};
use uuid::Uuid;

use super::{
    Driver,
    decide::DecideError,
    journaling::{load, now},
    preview::Asked,
};

/// More uses than that are no decision any more, but a rule: the policy is the place for those.
const MOST_USES: u32 = 1000;
/// The same of time.
const LONGEST_MS: u64 = 30 * 24 * 3_600_000;
/// Remembered decisions at a time.
const MOST: usize = 1000;

/// For which later calls an approval is to speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// What was approved.
    pub(crate) digest: Digest,
    /// Arguments that may vary; all others are pinned to what was approved.
    pub(crate) vary: Vec<String>,
    /// For how many calls.
    pub(crate) uses: u32,
    /// For how long.
    pub(crate) for_ms: u64,
}

impl Driver {
    /// Lets an approval that `by` gave speak for later calls like that one, too.
    ///
    /// # Errors
    /// [`DecideError`]; nothing changed.
    pub(crate) async fn remember(
        self: &Arc<Self>,
        id: CallId,
        by: Decider,
        wish: Wish,
    ) -> Result<Remembered, DecideError> {
        let call = match self.find(id) {
            Some(live) => live.with(|shared| shared.call.clone()),
            None => {
                let loaded = load(&self.journal, id).await;
                let loaded = loaded.map_err(|error| DecideError::Journal(error.to_string()))?;
                loaded.ok_or(DecideError::NotFound)?
            }
        };
        let Some(hold) = &call.hold else {
            return Err(DecideError::Illegal("nobody was asked about it".into()));
        };
        if hold.digest != wish.digest {
            return Err(DecideError::Stale { digest: Some(hold.digest) });
        }
        if !hold.votes.iter().any(|(voter, _)| voter.name == by.name) {
            return Err(DecideError::NotAllowed(
                "only who has approved a call can have that remembered: a remembered decision is your vote"
                    .into(),
            ));
        }
        let remembered = self.like(&call, hold, by, wish)?;
        self.note(|register| {
            let current = register.remembered().filter(|one| now() < one.expires).count();
            if current >= MOST {
                let what = format!("{MOST} decisions are remembered already: forget some, or write a rule");
                return Err(DecideError::Illegal(what));
            }
            Ok(vec![Note::Remembered(remembered.clone())])
        })
        .await?;
        Ok(remembered)
    }

    /// What `by` wishes for calls like this one.
    fn like(&self, call: &Call, hold: &Hold, by: Decider, wish: Wish) -> Result<Remembered, DecideError> {
        let accepted = &call.accepted;
        let upstream = self.upstreams.get(&accepted.server);
        let Some((upstream, tool)) =
            upstream.and_then(|up| up.tool_now(&accepted.tool).map(|tool| (up, tool)))
        else {
            return Err(DecideError::Illegal("its server does not list this tool now".into()));
        };
        if accepted.extra.is_some() {
            let what = "it carries members beside its arguments, which cannot be pinned";
            return Err(DecideError::Illegal(what.into()));
        }
        let arguments = call.arguments();
        let asked = Asked {
            call,
            identity: &upstream.identity(),
            definition: &tool.hash,
            arguments,
            shown: hold.shown.as_ref(),
            gates: &hold.gates,
            revision: hold.revision,
        };
        if asked.digest() != hold.digest {
            return Err(DecideError::Illegal("its tool or server is not what was approved any more".into()));
        }
        let mut value = arguments.value();
        // What we put in for the server is not the agent's to repeat.
        if let Some(UpstreamKey::Arg(key)) = &accepted.plan.upstream_key {
            key.take(&mut value);
        }
        let Some(members) = value.as_object() else {
            return Err(DecideError::Illegal("its arguments cannot be pinned".into()));
        };
        let pinned = members.iter().filter(|(name, _)| !wish.vary.contains(name));
        Ok(Remembered {
            id: RememberedId(Uuid::now_v7()),
            by,
            call: call.id,
            digest: hold.digest,
            principal: accepted.caller.principal.clone(),
            server: accepted.server.clone(),
            identity: upstream.identity().to_string(),
            tool: accepted.tool.clone(),
            definition: tool.hash.to_string(),
            gates: hold.gates.to_vec(),
            pins: pinned.map(|(name, value)| (name.clone(), Text::of(value))).collect(),
            vary: wish.vary,
            uses: wish.uses,
            expires: now().plus(wish.for_ms),
        })
    }

    /// From now on it speaks for no further call.
    ///
    /// # Errors
    /// [`DecideError`]; nothing changed.
    pub(crate) async fn forget(
        &self,
        id: RememberedId,
        by: Decider,
        reason: String,
    ) -> Result<(), DecideError> {
        self.note(|register| {
            register.decision(id).ok_or(DecideError::NotFound)?;
            Ok(vec![Note::Forgotten { id, by: by.clone(), reason: reason.clone() }])
        })
        .await
    }
}

impl Wish {
    /// A wish within bounds.
    ///
    /// # Errors
    /// Which bound it passes.
    pub(crate) fn new(digest: Digest, vary: Vec<String>, uses: u32, for_ms: u64) -> Result<Self, String> {
        if !(1..=MOST_USES).contains(&uses) {
            return Err(format!("an approval can be remembered for 1 to {MOST_USES} calls, not {uses}"));
        }
        if !(60_000..=LONGEST_MS).contains(&for_ms) {
            return Err("an approval can be remembered for a minute to 30 days".to_owned());
        }
        Ok(Self { digest, vary, uses, for_ms })
    }
}
