//! Kill -9 in each state that a held call passes through on its way to an end.

use super::{
    ANA, BOB,
    play::{Again, Shop, Step::*, Story},
};

const QUORUM: &str = "[rule.gate]\nquorum = 2\n";
const PREVIEW: &str = "[rule.preview]\ntool = \"quote_transfer\"\n\
    args = { from = \"{/from}\", to = \"{/to}\", amount = \"{/amount}\" }\ndrift = [\"/balance_after\"]\n";
const PROBE: &str = "[rule.probe]\ntool = \"find_transfer\"\nargs = { reference = \"{/reference}\" }\n\
    happened = { at = \"/found\", equals = true }\n";
const UNKNOWN: &str = "outcome-unknown";

#[test]
fn previewing() {
    Story {
        policy: PREVIEW,
        until: &[Fault("all:slow=60s once"), Ask("held"), FaultFired],
        killed_in: "previewing",
        ..Story::PLAIN
    }
    .play();
}

#[test]
fn asking_with_no_vote() {
    Story { then: &[Ask("held"), Approve(ANA)], ..Story::PLAIN }.play();
}

#[test]
fn asking_with_one_vote_of_two() {
    Story { policy: QUORUM, until: &[Ask("held"), Approve(ANA)], then: &[Approve(BOB)], ..Story::PLAIN }
        .play();
}

#[test]
fn asking_once_more_after_the_books_have_moved() {
    Story {
        policy: PREVIEW,
        until: &[Ask("held"), Await("asking"), Rival, Approve(ANA), AwaitRevision(2)],
        ..Story::PLAIN
    }
    .play();
}

#[test]
fn asking_once_more_after_an_edit() {
    Story {
        policy: QUORUM,
        until: &[
            Ask("held"),
            Approve(BOB),
            Decide("edit", r#"{"arguments":{"from":"alice","to":"shop","amount":30,"reference":"INV-1"}}"#),
        ],
        // Bob's vote was for something else.
        then: &[Approve(ANA), Await("asking"), Approve(BOB)],
        ..Story::PLAIN
    }
    .play();
}

#[test]
fn asking_once_more_because_the_policy_asks_for_more() {
    Story {
        meanwhile: &[Policy(QUORUM)],
        then: &[
            Approve(ANA),
            AwaitRevision(2),
            Kill,
            Start,
            AwaitRevision(2),
            Approve(BOB),
            Await("asking"),
            Approve(ANA),
        ],
        ..Story::PLAIN
    }
    .play();
}

#[test]
fn asking_once_more_because_an_approval_was_taken_back() {
    Story {
        until: &[
            Ask("held"),
            BankGoes,
            Approve(ANA),
            Await("approved"),
            Decide("revoke", r#"{"reason":"wrong day"}"#),
            BankReturns,
        ],
        ..Story::PLAIN
    }
    .play();
}

#[test]
fn approved_and_the_server_is_down() {
    Story {
        until: &[Ask("held"), BankGoes, Approve(ANA), Await("approved")],
        killed_in: "approved",
        found: "approved",
        told: "running",
        then: &[AskAndWait, BankReturns],
        ..Story::PLAIN
    }
    .play();
}

#[test]
fn approved_and_taken_back_after_the_restart() {
    Story {
        until: &[Ask("held"), BankGoes, Approve(ANA), Await("approved")],
        killed_in: "approved",
        found: "approved",
        told: "running",
        then: &[
            Decide("revoke", r#"{"reason":"wrong day"}"#),
            Await("asking"),
            BankReturns,
            Decide("reject", r#"{"reason":"wrong day"}"#),
        ],
        ends: "refused",
        code: "refused",
        made: 0,
        ..Story::PLAIN
    }
    .play();
}

#[test]
fn approved_and_behind_another_in_the_line() {
    Story {
        policy: "[[rule]]\nid = \"narrow\"\nserver = \"shop\"\ntool = \"transfer\"\nlimits = { concurrency = 1 }\n",
        // Nobody frees the slot: its payment was never heard of again.
        until: &[Ask("held"), Fault("slow=60s once"), RivalHangs, Approve(ANA), Await("approved")],
        killed_in: "approved",
        // The rival is in doubt now and holds no slot.
        found: "succeeded",
        told: "",
        then: &[],
        ..Story::PLAIN
    }
    .play();
}

#[test]
fn revalidating() {
    Story {
        policy: PREVIEW,
        until: &[
            Ask("held"),
            Await("asking"),
            Fault("all:slow=60s once"),
            Approve(ANA),
            FaultFired,
            Await("approved"),
        ],
        killed_in: "approved",
        found: "succeeded",
        told: "",
        then: &[],
        ..Story::PLAIN
    }
    .play();
}

#[test]
fn revalidating_while_the_books_move() {
    Story {
        policy: PREVIEW,
        until: &[
            Ask("held"),
            Await("asking"),
            Rival,
            Fault("all:slow=60s once"),
            Approve(ANA),
            FaultFired,
            Await("approved"),
        ],
        killed_in: "approved",
        found: "asking",
        then: &[AwaitRevision(2), Approve(ANA)],
        ..Story::PLAIN
    }
    .play();
}

#[test]
fn in_flight_and_not_made() {
    Story {
        until: &[Ask("held"), Fault("slow=60s once"), Approve(ANA), FaultFired, Await("in-flight")],
        killed_in: "in-flight",
        found: "in-doubt",
        told: UNKNOWN,
        then: &[Decide("resolve", r#"{"not_sent":true}"#)],
        ..Story::PLAIN
    }
    .play();
}

#[test]
fn in_flight_and_made_and_an_operator_says_so() {
    Story {
        until: &[Ask("held"), Fault("slow-after=60s once"), Approve(ANA), AwaitPaid],
        killed_in: "in-flight",
        found: "in-doubt",
        told: UNKNOWN,
        then: &[Decide("resolve", r#"{"happened":"booked as t-1"}"#)],
        ..Story::PLAIN
    }
    .play();
}

#[test]
fn in_flight_and_made_and_the_ledger_says_so() {
    Story {
        policy: PROBE,
        until: &[Ask("held"), Fault("slow-after=60s once"), Approve(ANA), AwaitPaid],
        killed_in: "in-flight",
        found: "succeeded",
        told: "",
        then: &[],
        ..Story::PLAIN
    }
    .play();
}

#[test]
fn in_flight_what_may_be_repeated_otherwise_is_not_covered_by_one_approval() {
    Story {
        policy: "repeat = \"safe\"\n",
        until: &[Ask("held"), Fault("slow-after=60s once"), Approve(ANA), AwaitPaid],
        killed_in: "in-flight",
        found: "in-doubt",
        told: UNKNOWN,
        then: &[Decide("resolve", r#"{"give_up":true}"#)],
        ends: "unknown",
        code: "given-up",
        ..Story::PLAIN
    }
    .play();
}

#[test]
fn in_backoff_until_the_server_takes_it() {
    Story {
        shop: Shop::TurnsAway(10),
        until: &[Ask("held"), Approve(ANA), Await("backoff")],
        killed_in: "backoff",
        // The approval still covers it: the first attempt is proven to have done nothing.
        found: "succeeded",
        told: "",
        then: &[],
        ..Story::PLAIN
    }
    .play();
}

#[test]
fn in_backoff_for_an_hour_and_withdrawn() {
    Story {
        shop: Shop::TurnsAway(3600),
        until: &[Ask("held"), Approve(ANA), Await("backoff")],
        killed_in: "backoff",
        found: "backoff",
        told: "running",
        then: &[AskAndWait, Withdraw],
        ends: "cancelled",
        code: "cancelled",
        again: Again::Fresh,
        made: 0,
        ..Story::PLAIN
    }
    .play();
}

#[test]
fn in_backoff_for_an_hour_and_the_approval_taken_back() {
    Story {
        shop: Shop::TurnsAway(3600),
        until: &[Ask("held"), Approve(ANA), Await("backoff")],
        killed_in: "backoff",
        found: "backoff",
        told: "running",
        // Approved anew it need not wait for the hour of the old attempt.
        then: &[Decide("revoke", r#"{"reason":"wrong day"}"#), Await("asking"), Kill, Start, Approve(BOB)],
        ..Story::PLAIN
    }
    .play();
}

#[test]
fn in_backoff_for_an_hour_and_refused() {
    Story {
        shop: Shop::TurnsAway(3600),
        until: &[Ask("held"), Approve(ANA), Await("backoff")],
        killed_in: "backoff",
        found: "backoff",
        told: "running",
        then: &[Decide("reject", r#"{"reason":"too late"}"#)],
        ends: "refused",
        code: "refused",
        made: 0,
        ..Story::PLAIN
    }
    .play();
}

#[test]
fn in_doubt_and_it_did_not_happen() {
    Story {
        until: &[Ask("held"), Fault("error-before-commit once"), Approve(ANA), Await("in-doubt")],
        killed_in: "in-doubt",
        found: "in-doubt",
        told: UNKNOWN,
        then: &[Decide("resolve", r#"{"not_sent":true}"#)],
        ..Story::PLAIN
    }
    .play();
}

#[test]
fn in_doubt_and_it_happened() {
    Story {
        until: &[Ask("held"), Fault("error-after-commit once"), Approve(ANA), Await("in-doubt")],
        killed_in: "in-doubt",
        found: "in-doubt",
        told: UNKNOWN,
        then: &[Decide("resolve", r#"{"happened":{"content":[],"isError":false}}"#)],
        ..Story::PLAIN
    }
    .play();
}

#[test]
fn ready_after_an_operator_said_that_it_did_not_happen() {
    Story {
        until: &[
            Ask("held"),
            Fault("error-before-commit once"),
            Approve(ANA),
            Await("in-doubt"),
            BankGoes,
            Decide("resolve", r#"{"not_sent":true}"#),
            Await("ready"),
        ],
        killed_in: "ready",
        found: "ready",
        told: "running",
        then: &[AskAndWait, BankReturns],
        ..Story::PLAIN
    }
    .play();
}
