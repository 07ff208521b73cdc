//! Held calls: approving, refusing, and the re-check at the dispatch.

use holdfast_policy::{Approver, Gate, SelfApproval};

use super::{
    Advance, Edited, Effect, Now, Recheck, Standing, Step, Unfit, dispatch, facts, no_further_attempt, tick,
};
use crate::{
    call::{Call, Hold},
    entry::{Answer, Decider, Entry, Grant, Loss, Shown, Trouble},
    fingerprint::Digest,
    register::RememberedId,
    state::{Outcome, State},
};

pub(super) fn rechecked(now: Now, call: &Call, revision: u32, recheck: Recheck) -> Step {
    // A slow look at what was asked before the question changed.
    if call.hold.as_ref().is_some_and(|hold| hold.revision != revision) {
        return Step::default();
    }
    if !matches!(call.state, State::Approved | State::Ready | State::Backoff) {
        return Step::default();
    }
    let late = tick(now, call);
    if !late.append.is_empty() {
        return late;
    }
    match recheck {
        Recheck::Same => dispatch(call),
        Recheck::Denied { reason } if call.state == State::Ready || call.may_have_executed() => {
            no_further_attempt(call, Trouble::new("refused", reason), Loss::UpstreamError)
        }
        Recheck::Denied { reason } => {
            let by = Decider { name: "policy".into(), groups: Vec::new(), via: "re-check".into() };
            facts([Entry::Refused { by, reason }])
        }
        Recheck::Changed { reason, .. } if call.may_have_executed() => {
            no_further_attempt(call, Trouble::new("superseded", reason), Loss::UpstreamError)
        }
        Recheck::Changed { reason, digest, gates, shown, identity } => {
            let revision = call.hold.as_ref().map_or(1, |hold| hold.revision) + 1;
            facts([Entry::Superseded { reason, revision, digest, gates, shown, identity }])
        }
    }
}

pub(super) fn previewed(call: &Call, shown: Shown, digest: Digest) -> Step {
    match &call.hold {
        Some(hold) if call.state == State::Previewing => {
            facts([Entry::Previewed { revision: hold.revision, shown, digest }])
        }
        _ => Step::default(),
    }
}

/// An approval, on its way to being counted.
pub(super) struct Vote {
    pub(super) by: Decider,
    pub(super) digest: Digest,
    pub(super) standing: Standing,
    pub(super) glass: Option<String>,
}

pub(super) fn approve(now: Now, call: &Call, vote: Vote) -> Result<Step, Unfit> {
    let hold = open(now, call, vote.digest)?;
    count(now, hold, vote, None)
}

/// As [`approve`], of a call that nobody has been asked about yet.
pub(super) fn approve_in_advance(now: Now, call: &Call, vote: Advance) -> Result<Step, Unfit> {
    let hold = call.hold.as_ref().ok_or(Unfit::WrongState(call.state))?;
    let Advance { remembered, by, standing } = vote;
    count(now, hold, Vote { by, digest: hold.digest, standing, glass: None }, Some(remembered))
}

fn count(now: Now, hold: &Hold, vote: Vote, remembered: Option<RememberedId>) -> Result<Step, Unfit> {
    let Vote { by, digest, standing, glass } = vote;
    if glass.is_none() && hold.votes.iter().any(|(voter, _)| voter.name == by.name) {
        return Err(Unfit::AlreadyVoted);
    }
    let all = 0..u32::try_from(hold.gates.len()).unwrap_or(u32::MAX);
    let counts_for = if glass.is_some() { all.collect() } else { counted_gates(&hold.gates, &by, standing) };
    if counts_for.is_empty() {
        return Err(Unfit::NotAnApprover);
    }
    let satisfied = (0u32..).zip(&*hold.gates).all(|(place, gate)| {
        let earlier = hold.votes.iter().filter(|(_, gates)| gates.contains(&place)).count();
        earlier + usize::from(counts_for.contains(&place)) >= gate.quorum as usize
    });
    let grant = (satisfied || glass.is_some()).then(|| {
        let ms = hold.gates.iter().map(|gate| gate.execute_by_ms).min().unwrap_or_default();
        Grant { execute_by: now.at.plus(ms) }
    });
    let then = if grant.is_some() { vec![Effect::Queue] } else { Vec::new() };
    Ok(Step { append: vec![Entry::Approved { by, digest, counts_for, grant, glass, remembered }], then })
}

pub(super) fn revoke(call: &Call, by: Decider, reason: String) -> Result<Step, Unfit> {
    let unsent = match call.state {
        State::Asking => call.hold.as_ref().is_some_and(|hold| !hold.votes.is_empty()),
        State::Approved => true,
        State::Backoff => is_granted_again(call),
        _ => false,
    };
    let hold = call.hold.as_ref().filter(|_| unsent).ok_or(Unfit::WrongState(call.state))?;
    if counted_gates(&hold.gates, &by, Standing::Other).is_empty()
        && !hold.votes.iter().any(|(voter, _)| voter.name == by.name)
    {
        return Err(Unfit::NotAnApprover);
    }
    // Every question but one that was answered in advance, the first, has been shown to somebody.
    let unseen = call.accepted.plan.preview.is_some() && hold.shown.is_none() && hold.revision == 1;
    let then = if unseen { vec![Effect::Preview] } else { Vec::new() };
    Ok(Step { append: vec![Entry::Revoked { by, reason, unseen }], then })
}

/// Whether an attempt that is proven to have done nothing has given its grant back.
fn is_granted_again(call: &Call) -> bool {
    call.state == State::Backoff && call.grant.is_some() && !call.may_have_executed()
}

pub(super) fn edit(now: Now, call: &Call, by: Decider, seen: Digest, edited: Edited) -> Result<Step, Unfit> {
    let hold = open(now, call, seen)?;
    if counted_gates(&hold.gates, &by, Standing::Other).is_empty() {
        return Err(Unfit::NotAnApprover);
    }
    let Edited { arguments, digest, gates, shown, identity } = edited;
    Ok(facts([Entry::Edited { by, arguments, revision: hold.revision + 1, digest, gates, shown, identity }]))
}

pub(super) fn respond(
    now: Now,
    call: &Call,
    by: Decider,
    digest: Digest,
    answer: Answer,
) -> Result<Step, Unfit> {
    let hold = open(now, call, digest)?;
    if counted_gates(&hold.gates, &by, Standing::Other).is_empty() {
        return Err(Unfit::NotAnApprover);
    }
    Ok(facts([Entry::Responded { by, answer }]))
}

/// The question, where it is still open and the one that was seen.
fn open(now: Now, call: &Call, seen: Digest) -> Result<&Hold, Unfit> {
    let hold = asked(call, Some(seen))?;
    // The deadline counts, not the moment at which somebody notices that it has passed.
    if now.at >= hold.approve_by() {
        return Err(Unfit::WrongState(State::Done(Outcome::Expired)));
    }
    Ok(hold)
}

fn counted_gates(gates: &[Gate], by: &Decider, standing: Standing) -> Vec<u32> {
    let counts = |gate: &Gate| {
        let eligible = gate.approvers.is_empty()
            || gate.approvers.iter().any(|approver| match approver {
                Approver::Group(group) => by.groups.contains(group),
                Approver::Operator(name) => *name == by.name,
            });
        eligible && (standing == Standing::Other || gate.self_approve == SelfApproval::Allowed)
    };
    (0u32..).zip(gates).filter(|(_, gate)| counts(gate)).map(|(place, _)| place).collect()
}

pub(super) fn reject(
    call: &Call,
    by: Decider,
    digest: Option<Digest>,
    reason: String,
) -> Result<Step, Unfit> {
    // A no needs no quorum, and counts until something may have been done, whichever text it was said to.
    let hold = match &call.hold {
        Some(hold) if call.state == State::Approved || is_granted_again(call) => hold,
        _ => asked(call, digest)?,
    };
    // Owners may always say no to their own agent.
    if counted_gates(&hold.gates, &by, Standing::Other).is_empty() {
        return Err(Unfit::NotAnApprover);
    }
    Ok(facts([Entry::Refused { by, reason }]))
}

fn asked(call: &Call, digest: Option<Digest>) -> Result<&Hold, Unfit> {
    match &call.hold {
        Some(hold) if call.state == State::Asking => {
            if digest.is_some_and(|digest| digest != hold.digest) {
                return Err(Unfit::Stale { digest: hold.digest });
            }
            Ok(hold)
        }
        _ => Err(Unfit::WrongState(call.state)),
    }
}
