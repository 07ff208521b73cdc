//! Kill -9 after each end that a held call can come to, and clocks that run out while nobody is there to see it.

use super::{
    ANA,
    play::{Again, Shop, Step::*, Story},
};

/// It has ended before the kill, and nothing happens after it.
const ENDED: Story =
    Story { killed_in: "succeeded", found: "succeeded", told: "", then: &[], ..Story::PLAIN };

#[test]
fn succeeded() {
    Story { until: &[Ask("held"), Approve(ANA), Await("succeeded")], ..ENDED }.play();
}

#[test]
fn answered_by_hand() {
    Story {
        until: &[Ask("held"), Decide("respond", r#"{"answer":"done at the counter"}"#), Await("succeeded")],
        made: 0,
        ..ENDED
    }
    .play();
}

#[test]
fn failed_by_the_tools_own_word() {
    Story {
        amount: 100_000,
        until: &[Ask("held"), Approve(ANA), Await("failed")],
        killed_in: "failed",
        found: "failed",
        ends: "failed",
        made: 0,
        ..ENDED
    }
    .play();
}

#[test]
fn denied() {
    Story {
        policy: "[[rule]]\nid = \"closed\"\neffect = \"deny\"\nserver = \"shop\"\ntool = \"transfer\"\n",
        until: &[Ask("denied")],
        killed_in: "denied",
        found: "denied",
        told: "denied",
        ends: "denied",
        code: "denied",
        again: Again::Denied,
        made: 0,
        ..ENDED
    }
    .play();
}

#[test]
fn refused_by_an_approver() {
    Story {
        until: &[Ask("held"), Decide("reject", r#"{"reason":"wrong supplier"}"#), Await("refused")],
        killed_in: "refused",
        found: "refused",
        told: "refused",
        ends: "refused",
        code: "refused",
        made: 0,
        ..ENDED
    }
    .play();
}

#[test]
fn refused_by_a_policy_that_became_stricter_while_it_was_down() {
    Story {
        meanwhile: &[Policy(
            "[[rule]]\nid = \"closed\"\neffect = \"deny\"\nserver = \"shop\"\ntool = \"transfer\"\n",
        )],
        ends: "refused",
        code: "refused",
        again: Again::Denied,
        made: 0,
        ..Story::PLAIN
    }
    .play();
}

#[test]
fn cancelled_by_its_agent() {
    Story {
        policy: "hold_wait = \"1m\"\n",
        until: &[AskAndWait, Await("asking"), Withdraw, Await("cancelled")],
        killed_in: "cancelled",
        meanwhile: &[Policy("")],
        found: "cancelled",
        told: "cancelled",
        ends: "cancelled",
        code: "cancelled",
        again: Again::Fresh,
        made: 0,
        ..ENDED
    }
    .play();
}

#[test]
fn cancelled_by_an_operator() {
    Story {
        until: &[Ask("held"), Decide("cancel", "{}"), Await("cancelled")],
        killed_in: "cancelled",
        found: "cancelled",
        told: "cancelled",
        ends: "cancelled",
        code: "cancelled",
        again: Again::Fresh,
        made: 0,
        ..ENDED
    }
    .play();
}

#[test]
fn given_up_as_unknown() {
    Story {
        until: &[
            Ask("held"),
            Fault("error-after-commit once"),
            Approve(ANA),
            Await("in-doubt"),
            Decide("resolve", r#"{"give_up":true}"#),
            Await("unknown"),
        ],
        killed_in: "unknown",
        found: "unknown",
        told: "given-up",
        ends: "unknown",
        code: "given-up",
        ..ENDED
    }
    .play();
}

/// Nobody objected; a clock ran out.
const EXPIRED: Story = Story {
    killed_in: "expired",
    found: "expired",
    told: "expired",
    ends: "expired",
    code: "expired",
    again: Again::Fresh,
    made: 0,
    ..ENDED
};

#[test]
fn expired_because_nobody_decided() {
    Story {
        policy: "[rule.gate]\napprove_by = \"4s\"\n",
        until: &[Ask("held"), Await("expired")],
        ..EXPIRED
    }
    .play();
}

#[test]
fn expired_because_nobody_decided_while_it_was_down() {
    Story {
        policy: "[rule.gate]\napprove_by = \"8s\"\n",
        until: &[Ask("held")],
        killed_in: "asking",
        meanwhile: &[RunsOut("approve_by")],
        ..EXPIRED
    }
    .play();
}

#[test]
fn expired_with_one_vote_of_two_while_it_was_down() {
    Story {
        policy: "[rule.gate]\nquorum = 2\napprove_by = \"8s\"\n",
        until: &[Ask("held"), Approve(ANA)],
        killed_in: "asking",
        meanwhile: &[RunsOut("approve_by")],
        ..EXPIRED
    }
    .play();
}

#[test]
fn expired_because_the_server_stayed_away() {
    Story {
        policy: "[rule.gate]\nexecute_by = \"1s\"\n",
        until: &[Ask("held"), BankGoes, Approve(ANA), Await("expired"), BankReturns],
        ..EXPIRED
    }
    .play();
}

#[test]
fn expired_approved_and_never_sent_while_it_was_down() {
    Story {
        policy: "[rule.gate]\nexecute_by = \"8s\"\n",
        until: &[Ask("held"), BankGoes, Approve(ANA), Await("approved")],
        killed_in: "approved",
        // The server would be there again; the approval is not.
        meanwhile: &[BankReturns, RunsOut("execute_by")],
        ..EXPIRED
    }
    .play();
}

#[test]
fn expired_in_backoff_while_it_was_down() {
    Story {
        shop: Shop::TurnsAway(3600),
        policy: "[rule.gate]\nexecute_by = \"8s\"\n",
        until: &[Ask("held"), Approve(ANA), Await("backoff")],
        killed_in: "backoff",
        meanwhile: &[RunsOut("execute_by")],
        ..EXPIRED
    }
    .play();
}

#[test]
fn expired_in_backoff_before_the_next_attempt_was_due() {
    Story {
        shop: Shop::TurnsAway(3600),
        policy: "[rule.gate]\nexecute_by = \"1s\"\n",
        until: &[Ask("held"), Approve(ANA), Await("expired")],
        ..EXPIRED
    }
    .play();
}
