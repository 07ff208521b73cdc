//! Held calls: who may decide, on what, until when, and what the re-check at dispatch changes.

use holdfast_policy::{Failure, SelfApproval};

use super::story::{
    CHANGED, DIGEST, HOUR, MINUTE, SECOND, Story, check, gate, gate_of, keyed, never, operator, safe,
};
use crate::engine::{Event, Recheck, Resolution};

const REFUSED: SelfApproval = SelfApproval::Refused;

#[test]
fn from_asking_to_dispatch() {
    check(
        never().held().approves("ana").slot().rechecked(Recheck::Same),
        "accepted; granted until 3600000 -> queue; -> recheck; dispatched 1 -> send 1 = in-flight",
    );
}

#[test]
fn a_quorum_needs_different_people() {
    let two = || never().held_for(&[gate_of(2, &[], REFUSED)]).asked().forget();
    check(two().approves("ana"), "approved = asking");
    check(two().approves("ana").approves("ana"), "approved; voted already = asking");
    check(two().approves("ana").approves("bo"), "approved; granted until 3600000 -> queue = approved");
    check(two().approves("ana").slot(), "approved; - = asking");
}

#[test]
fn groups_and_names_decide_who_counts() {
    let story = |approvers: &[&str]| never().held_for(&[gate_of(1, approvers, REFUSED)]).asked().forget();
    check(story(&["group:finance"]).approves("cy"), "not an approver = asking");
    check(story(&["group:finance"]).approves("bo"), "granted until 3600000 -> queue = approved");
    check(story(&["operator:cy"]).approves("bo"), "not an approver = asking");
    check(
        story(&["operator:cy", "group:finance"]).approves("cy"),
        "granted until 3600000 -> queue = approved",
    );
    check(story(&["group:finance"]).rejects("cy"), "not an approver = asking");
    check(story(&["group:finance"]).rejects("ana"), "refused = refused");
}

#[test]
fn every_gate_must_be_satisfied() {
    let gates = [gate_of(1, &["group:finance"], REFUSED), gate_of(1, &["group:legal"], REFUSED)];
    let story = || never().held_for(&gates).asked().forget();
    check(story().approves("ana"), "approved = asking");
    check(story().approves("ana").approves("cy"), "approved; granted until 3600000 -> queue = approved");
    // One person in both groups counts for both gates.
    check(story().approves("bo"), "granted until 3600000 -> queue = approved");
    let many = [gate_of(2, &[], REFUSED), gate_of(1, &["group:legal"], REFUSED)];
    let story = never().held_for(&many).asked().forget().approves("ana").approves("other");
    check(story.approves("cy"), "approved; approved; granted until 3600000 -> queue = approved");
}

#[test]
fn owners_count_only_where_the_gate_says_so() {
    let story = |self_approve| never().held_for(&[gate_of(1, &[], self_approve)]).asked().forget();
    check(story(REFUSED).approves("owner"), "not an approver = asking");
    check(story(SelfApproval::Allowed).approves("owner"), "granted until 3600000 -> queue = approved");
    check(story(REFUSED).rejects("owner"), "refused = refused");
    let two = never().held_for(&[gate_of(1, &[], REFUSED), gate_of(1, &[], SelfApproval::Allowed)]).asked();
    check(
        two.forget().approves("owner").approves("ana"),
        "approved; granted until 3600000 -> queue = approved",
    );
}

#[test]
fn approvals_are_bound_to_a_text() {
    check(never().held().forget().approves_text("ana", CHANGED), "stale = asking");
    let other = Event::Reject { by: operator("ana"), digest: Some(CHANGED), reason: "no".into() };
    check(never().held().forget().tell(other), "stale = asking");
    let whatever = Event::Reject { by: operator("ana"), digest: None, reason: "no".into() };
    check(never().held().forget().tell(whatever), "refused = refused");
}

#[test]
fn the_earlier_of_several_clocks_counts() {
    let mut quick = gate();
    (quick.approve_by_ms, quick.execute_by_ms) = (MINUTE, SECOND);
    let story = || never().held_for(&[gate(), quick.clone()]).asked().forget();
    assert_eq!(story().wakes_at(), Some(MINUTE));
    check(story().at(MINUTE).ticks(), "expired ApproveBy = expired (keys free)");
    check(story().at(MINUTE - 1).approves("ana"), "granted until 60999 -> queue = approved");
}

#[test]
fn a_deadline_counts_before_anybody_notices_it() {
    check(never().held().forget().at(HOUR).approves("ana"), "not while expired = asking");
    let approved = || never().held().approves("ana").forget();
    assert_eq!(approved().wakes_at(), Some(HOUR));
    check(approved().at(HOUR).slot(), "expired ExecuteBy = expired (keys free)");
    check(
        approved().slot().at(HOUR).rechecked(Recheck::Same),
        "-> recheck; expired ExecuteBy = expired (keys free)",
    );
    check(approved().at(HOUR - 1).slot(), "-> recheck = approved");
}

#[test]
fn a_no_counts_until_the_dispatch() {
    check(never().held().forget().rejects("ana"), "refused = refused");
    let approved = || never().held().approves("ana").forget();
    check(approved().rejects("bo"), "refused = refused");
    check(approved().rejects("bo").slot().rechecked(Recheck::Same), "refused; -; - = refused");
    check(never().approved_and_sent().rejects("bo"), "not while in-flight = in-flight");
    check(never().sent().rejects("bo"), "not while in-flight = in-flight");
    // Proven to have done nothing, it is as it was before: open to a no.
    let back = || never().approved_and_sent().fails(1, Failure::NotSent).forget();
    check(back().rejects("bo"), "refused = refused");
    check(never().sent().fails(1, Failure::NotSent).forget().rejects("bo"), "not while backoff = backoff");
    check(never().queued().approves("ana"), "not while ready = ready");
}

#[test]
fn a_dispatch_that_did_nothing_gives_the_grant_back_until_execute_by() {
    let unsent = |story: Story| story.approved_and_sent().fails(1, Failure::NotSent).forget();
    for story in [never(), keyed(), safe()] {
        let again = unsent(story).at(100).ticks().slot().rechecked(Recheck::Same);
        check(again, "-> queue; -> recheck; dispatched 2 -> send 2 = in-flight");
    }
    let slow = |story: Story| story.planned(|plan| plan.queue_timeout_ms = 2 * HOUR);
    let slow = |story: Story| slow(story).planned(|plan| plan.call_timeout_ms = 3 * HOUR);
    check(unsent(slow(never())).at(HOUR).ticks(), "expired ExecuteBy = expired (keys free)");
    check(unsent(slow(never())).at(HOUR).slot(), "expired ExecuteBy = expired (keys free)");
    assert_eq!(unsent(slow(never())).at(100).wakes_at(), Some(HOUR));
    // Under way, the clock of the approval has nothing more to say.
    let out = || slow(never()).planned(|plan| plan.attempt_timeout_ms = 2 * HOUR).approved_and_sent();
    check(out().at(HOUR).ticks(), "- = in-flight");
    check(
        out().at(HOUR).fails(1, Failure::NotSent).ticks(),
        "unexecuted 1: retry at 3600100; expired ExecuteBy = expired (keys free)",
    );
}

#[test]
fn a_change_asks_again() {
    let approved = || never().held().approves("ana").slot().forget();
    check(approved().changed(), "superseded by revision 2 = asking");
    let story = approved().changed().forget();
    check(
        story.approves_text("ana", DIGEST).approves_text("ana", CHANGED),
        "stale; granted until 3600000 -> queue = approved",
    );
    // Both clocks start anew, and old votes are gone.
    let story = approved().at(MINUTE).changed().forget();
    assert_eq!(story.wakes_at(), Some(MINUTE + HOUR));
    check(story.at(MINUTE + HOUR).ticks(), "expired ApproveBy = expired (keys free)");
    let unsent = never().approved_and_sent().fails(1, Failure::NotSent).at(100).ticks().slot().forget();
    check(unsent.changed(), "superseded by revision 2 = asking");
}

#[test]
fn a_deny_at_the_recheck_refuses() {
    let denied = || Recheck::Denied { reason: "stricter".into() };
    let approved = never().held().approves("ana").slot().forget();
    check(approved.rechecked(denied()), "refused = refused");
    let unsent = never().approved_and_sent().fails(1, Failure::NotSent).at(100).ticks().slot().forget();
    check(unsent.rechecked(denied()), "refused = refused");
    let again = never().approved_and_sent().loses_answer(1).resolved(Resolution::NotSent).slot().forget();
    check(again.rechecked(denied()), "abandoned by refused = failed (keys free)");
}

#[test]
fn what_is_sent_again_by_an_operator_is_checked_again() {
    let again = || never().approved_and_sent().loses_answer(1).resolved(Resolution::NotSent).slot().forget();
    check(again().rechecked(Recheck::Same), "dispatched 2 -> send 2 = in-flight");
    check(again().changed().slot(), "superseded by revision 2; - = asking");
    check(again().changed().rejects("ana"), "superseded by revision 2; stale = asking");
    // It stands in line like any other call, and the old grant's clock is over.
    check(again().at(30 * SECOND).ticks(), "abandoned by queue-timeout = failed (keys free)");
}

#[test]
fn the_calls_own_clock_stands_still_while_people_decide() {
    let day = 24 * HOUR;
    let mut patient = gate();
    (patient.approve_by_ms, patient.execute_by_ms) = (day, day);
    let story = never().held_for(&[patient]).asked().at(day - 1).approves("ana").forget();
    let story = story.at(2 * day - 2).slot().rechecked(Recheck::Same).forget();
    assert_eq!(story.wakes_at(), Some(2 * day - 2 + MINUTE));
    check(story.ticks(), "- = in-flight");
}
