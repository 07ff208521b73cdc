//! The pure engine: a call and an event give facts to write, then effects.
//!
//! The effects of a [`Step`] may be carried out only once its facts are durable. Safety, by cases:
//! * *Twice?* `Send(n)` follows only `Dispatched(n)`, and `Dispatched(n)` only a state in which no attempt is out.
//!   After an attempt that may have executed such a state is reached only where the policy permits repeating, or
//!   where an operator or an opted-in probe says that it did not happen.
//! * *Lost?* The call exists durably before anything is sent, so a restart finds it and asks [`Event::Recovered`].
//! * *Contradicted?* An answer is heard only from the folded state, and `Answered` is legal once.

mod event;
mod hold;

use holdfast_policy::{Absent, Earlier, Failure, Next, Repeat};

pub use event::{
    Advance, Edited, Effect, Event, Failed, OldProcess, Probed, Recheck, SlotAtOnce, Standing, Step, Unfit,
};

use crate::{
    accepted::{Accepted, Disposition},
    call::Call,
    entry::{
        Answer, AnswerKind, Attempt, CallId, Decider, Entry, Finding, HoldClock, Loss, Millis, Resolution,
        Then, Trouble,
    },
    journal::KeyFate,
    register::RememberedId,
    state::{Outcome, State},
};

/// The moment of a step: time and chance are arguments.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Unix time in milliseconds.
    pub at: Millis,
    /// A fresh random number in `[0, 1)`, for jitter.
    pub dice: f64,
}

/// The first step of a new call. With a slot, `Accepted` and `Dispatched(1)` become durable in one commit.
pub fn begin(accepted: Accepted, slot: SlotAtOnce) -> Step {
    let (mut append, mut then) = (Vec::with_capacity(2), Vec::with_capacity(1));
    let allowed = matches!(accepted.disposition, Disposition::Allow);
    if matches!(accepted.disposition, Disposition::Ask { .. }) && accepted.plan.preview.is_some() {
        then.push(Effect::Preview);
    }
    append.push(Entry::Accepted(Box::new(accepted)));
    if allowed {
        match slot {
            SlotAtOnce::Held => {
                append.push(Entry::Dispatched { attempt: Attempt(1) });
                then.push(Effect::Send(Attempt(1)));
            }
            SlotAtOnce::None => then.push(Effect::Queue),
        }
    }
    Step { append, then }
}

/// The first step of a held call for which votes given in advance satisfy all gates, and the decisions that are used
/// up by it; none where they do not, so that none of them is: the call then begins as any other.
pub fn begin_decided(
    now: Now,
    id: CallId,
    accepted: &Accepted,
    votes: Vec<Advance>,
) -> Option<(Step, Vec<RememberedId>)> {
    let first = Entry::Accepted(Box::new(accepted.clone()));
    let mut call = Call::begin(id, now.at, &first).ok()?;
    let (mut append, mut used) = (vec![first], Vec::new());
    for vote in votes {
        let remembered = vote.remembered;
        let Ok(step) = hold::approve_in_advance(now, &call, vote) else { continue };
        for entry in &step.append {
            call.apply(now.at, entry).expect("a vote in advance is legal before and while a call is asked");
        }
        append.extend(step.append);
        used.push(remembered);
        if call.state == State::Approved {
            return Some((Step { append, then: step.then }, used));
        }
    }
    None
}

/// What follows from `event`.
///
/// # Errors
/// [`Unfit`] for decisions that cannot be taken; all other events that no longer matter give an empty step.
pub fn step(now: Now, call: &Call, event: Event) -> Result<Step, Unfit> {
    Ok(match event {
        Event::Recovered => recovered(now, call),
        Event::Slot => slot(now, call),
        Event::QueueFull => queue_full(call),
        Event::Rechecked { revision, recheck } => hold::rechecked(now, call, revision, recheck),
        Event::Progress(_) => Step::default(),
        Event::Answered(attempt, answer) => answered(now, call, attempt, answer),
        Event::Failed(attempt, failed) => attempt_failed(now, call, attempt, failed),
        Event::Tick => tick(now, call),
        Event::Previewed { shown, digest } => hold::previewed(call, shown, digest),
        Event::Approve { by, digest, standing, glass } => {
            hold::approve(now, call, hold::Vote { by, digest, standing, glass })?
        }
        Event::Revoke { by, reason } => hold::revoke(call, by, reason)?,
        Event::Edit { by, seen, edited } => hold::edit(now, call, by, seen, *edited)?,
        Event::Respond { by, digest, answer } => hold::respond(now, call, by, digest, answer)?,
        Event::Reject { by, digest, reason } => hold::reject(call, by, digest, reason)?,
        Event::Cancel(by) => cancel(call, by)?,
        Event::Resolve(by, how) => resolve(call, by, how)?,
        Event::Release(by) => release(call, by)?,
        Event::Probed(probed) => probe_returned(now, call, probed),
    })
}

/// When the call next needs [`Event::Tick`], if nothing else happens.
pub fn wake(now: Millis, call: &Call) -> Option<Millis> {
    let plan = &call.accepted.plan;
    let execute_by = call.grant.map(|grant| grant.execute_by);
    match call.state {
        // The look itself has a time limit.
        State::Previewing => None,
        State::Asking => call.hold.as_ref().map(crate::call::Hold::approve_by),
        State::Approved => execute_by,
        State::Ready => Some(call.since.plus(plan.queue_timeout_ms).min(call.deadline)),
        State::InFlight => {
            let attempt = call.since.plus(plan.attempt_timeout_ms);
            let idle = plan.idle_timeout_ms.map_or(attempt, |ms| call.heard.plus(ms));
            Some(attempt.min(idle).min(call.deadline))
        }
        State::Backoff => {
            let next = if now < call.due { call.due } else { call.due.plus(plan.queue_timeout_ms) };
            Some(next.min(call.deadline).min(execute_by.unwrap_or(next)))
        }
        State::InDoubt => next_probe(call),
        State::Done(_) => None,
    }
}

fn recovered(now: Now, call: &Call) -> Step {
    match call.state {
        // What was out when Holdfast went down may or may not have happened.
        State::InFlight => {
            let message = "Holdfast was restarted while this attempt was out.";
            lost(now, call, Loss::Restart, Trouble::new("answer-lost", message))
        }
        State::Ready | State::Approved => {
            let late = tick(now, call);
            if late.append.is_empty() { just(Effect::Queue) } else { late }
        }
        State::Previewing => just(Effect::Preview),
        State::InDoubt if call.accepted.plan.probe.is_some() => just(Effect::Probe),
        State::Asking | State::Backoff | State::InDoubt | State::Done(_) => tick(now, call),
    }
}

fn slot(now: Now, call: &Call) -> Step {
    // A deadline that passed while the call stood in line wins over the slot.
    let late = tick(now, call);
    if !late.append.is_empty() {
        return late;
    }
    match call.state {
        State::Approved | State::Ready | State::Backoff if call.is_gated() => just(Effect::Recheck),
        State::Ready | State::Backoff => dispatch(call),
        State::Previewing
        | State::Approved
        | State::Asking
        | State::InFlight
        | State::InDoubt
        | State::Done(_) => Step::default(),
    }
}

fn dispatch(call: &Call) -> Step {
    let attempt = Attempt(call.attempts + 1);
    Step { append: vec![Entry::Dispatched { attempt }], then: vec![Effect::Send(attempt)] }
}

fn answered(now: Now, call: &Call, attempt: Attempt, answer: Answer) -> Step {
    let settles = settles(call, attempt, &answer);
    match call.state {
        State::Done(_) => facts([Entry::AnsweredAgain { attempt, answer, kept: None }]),
        // A tool error that is known to have done nothing may be tried again; only of the attempt that is out.
        State::InFlight if attempt == call.attempt() && is_transient(call, &answer) => {
            let trouble = Trouble {
                code: "tool-error".into(),
                message: "The tool's error is one that the policy lists as having done nothing.".into(),
                upstream: Some(answer.text.clone()),
            };
            match decide(now, call, Failure::ToolErrorTransient, None) {
                Then::Stop => facts([Entry::Answered { attempt, answer, kept: None }]),
                then => facts_then(call, Entry::Unexecuted { attempt, trouble, then }),
            }
        }
        State::InFlight | State::InDoubt | State::Ready | State::Backoff if settles => {
            facts([Entry::Answered { attempt, answer, kept: None }])
        }
        // A revision is asked after attempts that should not have executed; one that did needs no further attempt.
        State::Asking | State::Approved if attempt <= call.attempt() && answer.kind == AnswerKind::Result => {
            facts([Entry::Answered { attempt, answer, kept: None }])
        }
        State::InFlight
        | State::InDoubt
        | State::Ready
        | State::Backoff
        | State::Previewing
        | State::Asking
        | State::Approved => Step::default(),
    }
}

/// Whether an answer tells how the call ended. A result always does. An error tells about its own attempt; another one
/// that may have executed stays open, unless the upstream answers for the key.
fn settles(call: &Call, attempt: Attempt, answer: &Answer) -> bool {
    let latest = attempt == call.attempt();
    if answer.kind == AnswerKind::Result {
        return true;
    }
    if is_transient(call, answer) {
        // It says nothing about other attempts, and a second copy of it comes after its own was put to the record.
        return latest && call.unproven == 1 && call.attempts - call.forgiven == 1;
    }
    call.accepted.plan.repeat != Repeat::Never || latest || !call.may_have_executed()
}

fn is_transient(call: &Call, answer: &Answer) -> bool {
    answer.kind == AnswerKind::ToolError && call.accepted.plan.retry.matches(&answer.text.value())
}

fn attempt_failed(now: Now, call: &Call, attempt: Attempt, failed: Failed) -> Step {
    if call.state != State::InFlight || attempt != call.attempt() {
        return Step::default();
    }
    match failed.failure {
        Failure::AnswerLost => {
            let then = decide(now, call, Failure::AnswerLost, failed.retry_after_ms);
            facts_then(call, Entry::Lost { attempt, loss: failed.loss, trouble: failed.trouble, then })
        }
        failure => {
            // This attempt is proven harmless; whether an earlier one was out decides between failed and in doubt.
            let then = decide(now, call, failure, failed.retry_after_ms);
            match failed.answer {
                Some(answer) if then == Then::Stop => {
                    facts([Entry::Answered { attempt, answer, kept: None }])
                }
                _ => facts_then(call, Entry::Unexecuted { attempt, trouble: failed.trouble, then }),
            }
        }
    }
}

fn lost(now: Now, call: &Call, loss: Loss, trouble: Trouble) -> Step {
    let attempt = call.attempt();
    let out_of_time = now.at >= call.deadline || loss == Loss::CallTimeout || loss == Loss::Cancelled;
    let then = match decide(now, call, Failure::AnswerLost, None) {
        Then::Retry { .. } if out_of_time && call.is_safe() => Then::Stop,
        Then::Retry { .. } if out_of_time => Then::Doubt,
        then => then,
    };
    facts_then(call, Entry::Lost { attempt, loss, trouble, then })
}

fn tick(now: Now, call: &Call) -> Step {
    let plan = &call.accepted.plan;
    let past = |deadline: Millis| now.at >= deadline;
    if call.grant.is_some_and(|grant| past(grant.execute_by))
        && !call.may_have_executed()
        && let State::Approved | State::Backoff = call.state
    {
        return facts([Entry::Expired { clock: HoldClock::ExecuteBy }]);
    }
    match call.state {
        State::Asking if call.hold.as_ref().is_some_and(|hold| past(hold.approve_by())) => {
            facts([Entry::Expired { clock: HoldClock::ApproveBy }])
        }
        State::Ready | State::Backoff if past(call.deadline) => {
            let trouble = Trouble::new("call-timeout", "The time for the whole call (call_timeout) is over.");
            no_further_attempt(call, trouble, Loss::CallTimeout)
        }
        State::Ready if past(call.since.plus(plan.queue_timeout_ms)) => queue_timeout(call),
        State::Backoff if past(call.due.plus(plan.queue_timeout_ms)) => queue_timeout(call),
        State::Backoff if past(call.due) => just(Effect::Queue),
        State::InFlight => overdue(now, call),
        State::InDoubt if next_probe(call).is_some_and(past) => just(Effect::Probe),
        State::Previewing
        | State::Asking
        | State::Approved
        | State::Ready
        | State::Backoff
        | State::InDoubt
        | State::Done(_) => Step::default(),
    }
}

fn overdue(now: Now, call: &Call) -> Step {
    let plan = &call.accepted.plan;
    let (loss, message) = if now.at >= call.deadline {
        (Loss::CallTimeout, "No answer within the time for the whole call (call_timeout).")
    } else if now.at >= call.since.plus(plan.attempt_timeout_ms) {
        (Loss::AttemptTimeout, "No answer within the time for one attempt (attempt_timeout).")
    } else if plan.idle_timeout_ms.is_some_and(|ms| now.at >= call.heard.plus(ms)) {
        (Loss::Idle, "The server showed no progress for the allowed time (idle_timeout).")
    } else {
        return Step::default();
    };
    let mut step = lost(now, call, loss, Trouble::new("answer-lost", message));
    if call.is_safe() {
        // An effect is left running, because its late answer settles the doubt; a read is not worth the work.
        step.then.push(Effect::CancelUpstream(call.attempt()));
    }
    step
}

fn queue_timeout(call: &Call) -> Step {
    let message = "No slot came free within the time for waiting in line (queue_timeout).";
    no_further_attempt(call, Trouble::new("queue-timeout", message), Loss::CallTimeout)
}

fn queue_full(call: &Call) -> Step {
    match call.state {
        State::Ready | State::Approved | State::Backoff => {
            let message = "The line for this tool is as long as limits.queue allows.";
            no_further_attempt(call, Trouble::new("queue-full", message), Loss::CallTimeout)
        }
        State::Previewing | State::Asking | State::InFlight | State::InDoubt | State::Done(_) => {
            Step::default()
        }
    }
}

/// Ends a waiting call: failed where nothing can have happened, in doubt where it can.
fn no_further_attempt(call: &Call, trouble: Trouble, loss: Loss) -> Step {
    if call.may_have_executed() && !call.is_safe() {
        return facts_then(call, Entry::Lost { attempt: call.attempt(), loss, trouble, then: Then::Doubt });
    }
    facts([Entry::Abandoned { trouble }])
}

fn decide(now: Now, call: &Call, failure: Failure, retry_after_ms: Option<u64>) -> Then {
    let attempt = call.attempts - call.forgiven;
    // An approval covers one dispatch that may have executed; what may be repeated otherwise does not widen it.
    if failure == Failure::AnswerLost && call.is_gated() {
        return Then::Doubt;
    }
    // One of the unproven attempts is the one that this decision is about.
    let earlier = if call.unproven > 1 { Earlier::MayHaveExecuted } else { Earlier::Unexecuted };
    match holdfast_policy::next(&call.accepted.plan, failure, attempt, retry_after_ms, now.dice, earlier) {
        Next::Retry { delay_ms } => Then::Retry { due: now.at.plus(delay_ms) },
        Next::Fail => Then::Stop,
        Next::InDoubt => Then::Doubt,
    }
}

fn cancel(call: &Call, by: Decider) -> Result<Step, Unfit> {
    let trouble = || Trouble::new("cancelled", format!("Cancelled by {} after it had been sent.", by.name));
    Ok(match call.state {
        State::InFlight => {
            let attempt = call.attempt();
            let then = if call.is_safe() { Then::Stop } else { Then::Doubt };
            let entry = Entry::Lost { attempt, loss: Loss::Cancelled, trouble: trouble(), then };
            let mut step = facts_then(call, entry);
            // The cancellation goes out first: a probe should see what it leaves behind.
            step.then.insert(0, Effect::CancelUpstream(attempt));
            step
        }
        State::Backoff | State::Ready if call.may_have_executed() && !call.is_safe() => {
            no_further_attempt(call, trouble(), Loss::Cancelled)
        }
        State::Previewing | State::Asking | State::Approved | State::Ready | State::Backoff => {
            facts([Entry::Cancelled { by }])
        }
        State::InDoubt | State::Done(_) => return Err(Unfit::WrongState(call.state)),
    })
}

fn resolve(call: &Call, by: Decider, how: Resolution) -> Result<Step, Unfit> {
    if call.state != State::InDoubt {
        return Err(Unfit::WrongState(call.state));
    }
    let then = if how == Resolution::NotSent { vec![Effect::Queue] } else { Vec::new() };
    Ok(Step { append: vec![Entry::Resolved { by, how }], then })
}

fn release(call: &Call, by: Decider) -> Result<Step, Unfit> {
    match call.state {
        // Given up as unknown: it may have happened, so its keys never come back.
        State::Done(outcome) if outcome != Outcome::Unknown => Ok(facts([Entry::Released { by }])),
        state => Err(Unfit::WrongState(state)),
    }
}

fn probe_returned(now: Now, call: &Call, probed: Probed) -> Step {
    if call.state != State::InDoubt {
        return Step::default();
    }
    let by = Decider { name: "probe".into(), groups: Vec::new(), via: "policy".into() };
    match probed {
        Probed::Confirmed(answer) => facts([Entry::Resolved { by, how: Resolution::Happened(answer) }]),
        Probed::Absent { old_process } if may_resend(now, call, old_process) => {
            Step { append: vec![Entry::Resolved { by, how: Resolution::NotSent }], then: vec![Effect::Queue] }
        }
        Probed::Absent { .. } => {
            let message = "The probe found no trace of it; the server may still be working on it.".into();
            facts([Entry::Probed { finding: Finding::Absent, message }])
        }
        Probed::Unclear(message) => facts([Entry::Probed { finding: Finding::Unclear, message }]),
    }
}

fn may_resend(now: Now, call: &Call, old_process: OldProcess) -> bool {
    call.accepted.plan.probe.as_ref().is_some_and(|probe| {
        probe.absent == Absent::Resend
            && now.at >= call.since.plus(probe.settle_ms)
            && old_process == OldProcess::Gone
    })
}

/// Probes double their distance from one second to an hour and stop after `retry.attempts`, or, where "absent" can
/// lead to a new attempt, go on until it has.
fn next_probe(call: &Call) -> Option<Millis> {
    const FIRST_MS: u64 = 1_000;
    const LONGEST_MS: u64 = 3_600_000;
    let probe = call.accepted.plan.probe.as_ref()?;
    if call.probes == 0 {
        return Some(call.since);
    }
    let resends = probe.absent == Absent::Resend;
    if call.probes >= call.accepted.plan.retry.attempts && !resends {
        return None;
    }
    let distance = (FIRST_MS << (call.probes - 1).min(12)).min(LONGEST_MS);
    Some(call.heard.plus(distance))
}

/// A fact, and the effect that its consequence calls for.
fn facts_then(call: &Call, entry: Entry) -> Step {
    let doubt =
        matches!(&entry, Entry::Lost { then: Then::Doubt, .. } | Entry::Unexecuted { then: Then::Doubt, .. });
    let probe = doubt && call.accepted.plan.probe.is_some();
    Step { append: vec![entry], then: if probe { vec![Effect::Probe] } else { Vec::new() } }
}

fn facts<const N: usize>(entries: [Entry; N]) -> Step {
    Step { append: entries.into(), then: Vec::new() }
}

fn just(effect: Effect) -> Step {
    Step { append: Vec::new(), then: vec![effect] }
}

/// What an append of these entries does to the call's keys. `call` is the call before them.
pub fn key_fate(at: Millis, call: &Call, entries: &[Entry]) -> KeyFate {
    if entries.iter().any(|entry| matches!(entry, Entry::Released { .. })) {
        return KeyFate::Release;
    }
    if call.state.is_done() {
        return KeyFate::Keep;
    }
    let mut after = call.clone();
    for entry in entries {
        after.apply(at, entry).expect("the engine only makes steps that its own table allows");
    }
    after.key_fate()
}

/// Whether a waiter should stay although the call is in doubt: a first probe may settle it within moments.
pub fn is_settling(call: &Call) -> bool {
    call.state == State::InDoubt && call.probes == 0 && call.accepted.plan.probe.is_some()
}

/// Whether repeating the call needs no durable record of the dispatch (semantics section 3, "the one exemption").
pub fn is_exempt(accepted: &Accepted) -> bool {
    accepted.plan.repeat == Repeat::Safe
        && accepted.keys.is_empty()
        && accepted.run.is_none()
        && matches!(accepted.disposition, Disposition::Allow)
}

#[cfg(test)]
mod tests;
