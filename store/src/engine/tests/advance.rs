//! Votes that were given in advance, by remembered decisions.

use holdfast_policy::SelfApproval;

use super::story::{DIGEST, HOUR, Story, check, gate_of, never};
use crate::engine::Recheck;

fn asks(quorum: u32, approvers: &[&str]) -> Story {
    never().held_for(&[gate_of(quorum, approvers, SelfApproval::Refused)])
}

#[test]
fn a_vote_given_in_advance_grants_at_once() {
    let granted = "accepted granted until 3600000 -> queue; by ana = approved";
    check(asks(1, &["group:finance"]).asked_with(&["ana"]), granted);
    check(asks(1, &["group:finance"]).unseen().asked_with(&["ana"]), granted);
    let sent = asks(1, &[]).asked_with(&["ana"]).forget().slot().rechecked(Recheck::Same);
    check(sent, "-> recheck; dispatched 1 -> send 1 = in-flight");
    check(asks(1, &[]).asked_with(&["ana"]).forget().restarts(), "-> queue = approved");
    let late = asks(1, &[]).asked_with(&["ana"]).forget().at(HOUR).slot();
    check(late, "expired ExecuteBy = expired (keys free)");
}

#[test]
fn it_counts_for_no_more_than_its_giver_does() {
    let asked = "accepted = asking";
    check(asks(1, &["group:finance"]).asked_with(&["cy"]), asked);
    check(asks(1, &[]).asked_with(&["owner"]), asked);
    check(asks(1, &[]).asked_with(&[]), asked);
    check(asks(1, &["group:finance"]).unseen().asked_with(&["cy"]), "accepted -> preview = previewing");
}

#[test]
fn where_it_is_not_enough_nothing_of_it_is_used() {
    check(asks(2, &["group:finance"]).asked_with(&["ana"]), "accepted = asking");
    // The same person twice is one person.
    check(asks(2, &["group:finance"]).asked_with(&["ana", "ana"]), "accepted = asking");
    let two = "accepted approved granted until 3600000 -> queue; by ana and bo = approved";
    check(asks(2, &["group:finance"]).asked_with(&["ana", "cy", "bo"]), two);
    check(asks(2, &["group:finance"]).unseen().asked_with(&["ana", "bo"]), two);
    // Nobody's vote is used that is not needed.
    let one = "accepted granted until 3600000 -> queue; by ana = approved";
    check(asks(1, &["group:finance"]).asked_with(&["ana", "bo"]), one);
}

#[test]
fn it_can_be_taken_back_and_overtaken_as_any_other() {
    let approved = || asks(1, &[]).asked_with(&["ana"]).forget();
    check(approved().revokes("ana").approves("bo"), "revoked; granted until 3600000 -> queue = approved");
    check(approved().rejects("bo"), "refused = refused");
    // Nobody has seen what it would do: whoever is asked now does.
    let unseen = || asks(1, &[]).unseen().asked_with(&["ana"]).forget();
    check(
        unseen().revokes("ana").approves("bo").previewed().approves("bo"),
        "revoked -> preview; not while previewing; previewed; granted until 3600000 -> queue = approved",
    );
    check(
        approved().slot().changed().approves_text("bo", DIGEST),
        "-> recheck; superseded by revision 2; stale = asking",
    );
}
