//! What is asked, and how the question changes: previews, edits, answers by hand, second thoughts, broken glass.

use holdfast_policy::SelfApproval;

use super::story::{CHANGED, DIGEST, HOUR, MINUTE, Story, check, gate_of, never};
use crate::{
    AnswerKind,
    engine::{Event, Recheck},
};

fn held() -> Story {
    never().held().forget()
}

fn approved() -> Story {
    held().approves("ana").forget()
}

#[test]
fn nobody_is_asked_before_the_preview_is_there() {
    let unseen = || never().unseen().held();
    check(unseen(), "accepted -> preview = previewing");
    let unseen = || unseen().forget();
    check(unseen().approves("ana"), "not while previewing = previewing");
    check(unseen().rejects("ana"), "not while previewing = previewing");
    check(unseen().previewed().approves("ana"), "previewed; granted until 3600000 -> queue = approved");
    check(unseen().cancels().previewed(), "cancelled; - = cancelled (keys free)");
    check(unseen().slot().ticks(), "-; - = previewing");
}

#[test]
fn a_preview_is_looked_up_again_after_a_restart() {
    check(never().unseen().held().forget().restarts(), "-> preview = previewing");
    check(held().previewed(), "- = asking");
}

#[test]
fn the_clock_of_the_question_begins_with_the_question() {
    let asked = never().unseen().held().forget().at(30 * MINUTE).previewed();
    assert_eq!(asked.wakes_at(), Some(HOUR + 30 * MINUTE));
    check(asked.forget().at(HOUR + 30 * MINUTE).approves("ana"), "not while expired = asking");
}

#[test]
fn an_edit_is_a_new_question() {
    check(held().edits("ana", DIGEST), "edited to revision 2 = asking");
    check(
        held().edits("ana", DIGEST).approves("ana").approves_text("ana", CHANGED),
        "edited to revision 2; stale; granted until 3600000 -> queue = approved",
    );
    check(held().edits("ana", CHANGED), "stale = asking");
    let gate = [gate_of(2, &["group:finance"], SelfApproval::Refused)];
    let two = || never().held_for(&gate).asked().forget();
    check(two().edits("cy", DIGEST), "not an approver = asking");
    // Votes do not count for other arguments.
    check(
        two().approves("bo").edits("ana", DIGEST).approves_text("ana", CHANGED),
        "approved; edited to revision 2; granted until 3600000 -> queue = approved",
    );
    check(approved().edits("ana", DIGEST), "not while approved = approved");
    check(held().at(HOUR).edits("ana", DIGEST), "not while expired = asking");
}

#[test]
fn what_is_sent_is_what_was_edited() {
    let story = held().edits("ana", DIGEST).approves_text("bo", CHANGED).slot().rechecked(Recheck::Same);
    assert_eq!(story.call().arguments().to_string(), r#"{"amount":5}"#);
    check(story.forget().answers(1), "answered 1 = succeeded");
}

#[test]
fn an_answer_by_hand_ends_it_unsent() {
    check(held().responds("ana", AnswerKind::Result), "responded = succeeded");
    check(held().responds("ana", AnswerKind::ToolError), "responded = failed");
    check(
        held().responds("ana", AnswerKind::Result).slot().approves("bo"),
        "responded; -; not while succeeded = succeeded",
    );
    check(approved().responds("ana", AnswerKind::Result), "not while approved = approved");
    let finance = never().held_for(&[gate_of(1, &["group:finance"], SelfApproval::Refused)]).asked().forget();
    check(finance.responds("cy", AnswerKind::Result), "not an approver = asking");
}

#[test]
fn an_approval_can_be_taken_back_until_the_dispatch() {
    check(approved().revokes("ana"), "revoked = asking");
    check(approved().revokes("bo").slot().rechecked(Recheck::Same), "revoked; -; - = asking");
    check(approved().revokes("ana").approves("ana"), "revoked; granted until 3600000 -> queue = approved");
    check(
        approved().slot().rechecked(Recheck::Same).revokes("ana"),
        "-> recheck; dispatched 1 -> send 1; not while in-flight = in-flight",
    );
    check(held().revokes("ana"), "not while asking = asking");
    let two = || never().held_for(&[gate_of(2, &[], SelfApproval::Refused)]).asked().forget();
    // One's own vote, or, by somebody who has none, all of them.
    check(
        two().approves("ana").approves("bo").revokes("ana").approves("cy"),
        "approved; granted until 3600000 -> queue; revoked; granted until 3600000 -> queue = approved",
    );
    check(
        two().approves("ana").approves("bo").revokes("cy").approves("ana"),
        "approved; granted until 3600000 -> queue; revoked; approved = asking",
    );
}

#[test]
fn taking_back_extends_no_deadline() {
    let story = approved().at(30 * MINUTE).revokes("ana").forget();
    assert_eq!(story.wakes_at(), Some(HOUR));
    check(story.at(HOUR).ticks(), "expired ApproveBy = expired (keys free)");
}

#[test]
fn broken_glass_passes_every_gate() {
    let gates = [
        gate_of(3, &["group:finance"], SelfApproval::Refused),
        gate_of(1, &["group:legal"], SelfApproval::Refused),
    ];
    let story = || never().held_for(&gates).asked().forget();
    check(story().breaks_glass("nobody"), "granted until 3600000 -> queue = approved");
    check(story().approves("ana").breaks_glass("ana"), "approved; granted until 3600000 -> queue = approved");
    check(story().at(HOUR).breaks_glass("ana"), "not while expired = asking");
    check(
        story().tell(Event::Tick).breaks_glass("ana").rejects("bo"),
        "-; granted until 3600000 -> queue; refused = refused",
    );
}

#[test]
fn a_slow_re_check_says_nothing_about_another_question() {
    let asked_anew =
        || approved().slot().revokes("ana").edits("bo", DIGEST).approves_text("bo", CHANGED).slot().forget();
    let slow = |recheck| Event::Rechecked { revision: 1, recheck };
    check(asked_anew().tell(slow(Recheck::Same)), "- = approved");
    check(asked_anew().tell(slow(Recheck::Denied { reason: "stricter".into() })), "- = approved");
    check(asked_anew().rechecked(Recheck::Same), "dispatched 1 -> send 1 = in-flight");
}

#[test]
fn past_the_gates_is_not_through_them() {
    let two = || never().held_for(&[gate_of(2, &[], SelfApproval::Refused)]).asked().forget();
    check(
        two().approves("bo").breaks_glass("cy").revokes("bo").approves("ana"),
        "approved; granted until 3600000 -> queue; revoked; approved = asking",
    );
}
