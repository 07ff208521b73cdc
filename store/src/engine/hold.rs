//! Held calls: approving, refusing, and the re-check at the dispatch.

use holdfast_policy::{Approver, Gate, SelfApproval};

use super::{Effect, Now, Recheck, Standing, Step, Unfit, dispatch, facts, no_further_attempt, tick};
use crate::{
    call::{Call, Hold},
    entry::{Decider, Entry, Grant, Loss, Trouble},
    fingerprint::Digest,
    state::{Outcome, State},
};

pub(super) fn rechecked(now: Now, call: &Call, recheck: Recheck) -> Step {
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
        Recheck::Changed { reason, digest, gates } => {
            let revision = call.hold.as_ref().map_or(1, |hold| hold.revision) + 1;
            facts([Entry::Superseded { reason, revision, digest, gates }])
        }
    }
}

pub(super) fn approve(
    now: Now,
    call: &Call,
    by: Decider,
    digest: Digest,
    standing: Standing,
) -> Result<Step, Unfit> {
    let hold = asked(call, Some(digest))?;
    // The deadline counts, not the moment at which somebody notices that it has passed.
    if now.at >= hold.approve_by() {
        return Err(Unfit::WrongState(State::Done(Outcome::Expired)));
    }
    if hold.votes.iter().any(|(voter, _)| voter.name == by.name) {
        return Err(Unfit::AlreadyVoted);
    }
    let counts_for = counted_gates(&hold.gates, &by, standing);
    if counts_for.is_empty() {
        return Err(Unfit::NotAnApprover);
    }
    let satisfied = (0u32..).zip(&hold.gates).all(|(place, gate)| {
        let earlier = hold.votes.iter().filter(|(_, gates)| gates.contains(&place)).count();
        earlier + usize::from(counts_for.contains(&place)) >= gate.quorum as usize
    });
    let grant = satisfied.then(|| {
        let ms = hold.gates.iter().map(|gate| gate.execute_by_ms).min().unwrap_or_default();
        Grant { execute_by: now.at.plus(ms) }
    });
    let then = if satisfied { vec![Effect::Queue] } else { Vec::new() };
    Ok(Step { append: vec![Entry::Approved { by, digest, counts_for, grant }], then })
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
    // A no needs no quorum, and counts until the first dispatch, whichever text it was said to.
    let hold = match &call.hold {
        Some(hold) if call.state == State::Approved => hold,
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
