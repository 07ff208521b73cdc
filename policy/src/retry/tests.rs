//! The table of section 4, cell by cell, and the waits.

use super::*;
use crate::plan::Retry;
use Failure::*;

fn plan(repeat: Repeat) -> Plan {
    Plan { repeat, ..Plan::default() }
}

/// What follows, in one word.
fn word(repeat: Repeat, failure: Failure, attempt: u32, earlier: Earlier) -> &'static str {
    match next(&plan(repeat), failure, attempt, None, 0.5, earlier) {
        Next::Retry { .. } => "retry",
        Next::Fail => "fail",
        Next::InDoubt => "in doubt",
    }
}

#[track_caller]
fn check(failure: Failure, attempt: u32, earlier: Earlier, expected: [&str; 3]) {
    let found =
        [Repeat::Never, Repeat::Keyed, Repeat::Safe].map(|repeat| word(repeat, failure, attempt, earlier));
    assert_eq!(found, expected, "never, keyed, safe after {failure:?}, attempt {attempt}, {earlier:?}");
}

#[test]
fn the_first_attempt_fails() {
    let earlier = Earlier::Unexecuted;
    check(NotSent, 1, earlier, ["retry", "retry", "retry"]);
    check(RefusedUnexecuted, 1, earlier, ["retry", "retry", "retry"]);
    check(RefusedForGood, 1, earlier, ["fail", "fail", "fail"]);
    check(ToolErrorTransient, 1, earlier, ["retry", "retry", "retry"]);
    check(ToolError, 1, earlier, ["fail", "fail", "fail"]);
    check(AnswerLost, 1, earlier, ["in doubt", "retry", "retry"]);
}

#[test]
fn the_last_attempt_fails_and_nothing_was_executed_before() {
    let earlier = Earlier::Unexecuted;
    check(NotSent, 5, earlier, ["fail", "fail", "fail"]);
    check(RefusedUnexecuted, 5, earlier, ["fail", "fail", "fail"]);
    check(ToolErrorTransient, 5, earlier, ["fail", "fail", "fail"]);
    check(AnswerLost, 5, earlier, ["in doubt", "in doubt", "fail"]);
}

#[test]
fn an_earlier_attempt_may_have_been_executed() {
    let earlier = Earlier::MayHaveExecuted;
    check(NotSent, 2, earlier, ["in doubt", "retry", "retry"]);
    check(NotSent, 5, earlier, ["in doubt", "in doubt", "fail"]);
    check(RefusedUnexecuted, 5, earlier, ["in doubt", "in doubt", "fail"]);
    check(RefusedForGood, 2, earlier, ["in doubt", "in doubt", "fail"]);
    check(ToolErrorTransient, 2, earlier, ["in doubt", "retry", "retry"]);
    check(ToolErrorTransient, 5, earlier, ["in doubt", "in doubt", "fail"]);
    check(ToolError, 2, earlier, ["in doubt", "fail", "fail"]);
    check(AnswerLost, 5, earlier, ["in doubt", "in doubt", "fail"]);
}

#[test]
fn a_call_that_must_not_be_repeated_is_never_sent_after_it_may_have_happened() {
    for failure in [NotSent, RefusedUnexecuted, RefusedForGood, ToolErrorTransient, ToolError, AnswerLost] {
        for attempt in 0..7 {
            assert_eq!(word(Repeat::Never, failure, attempt, Earlier::MayHaveExecuted), "in doubt");
        }
    }
}

#[test]
fn waits_are_drawn_between_zero_and_a_growing_bound() {
    let delay = |attempt, dice, retry_after| match next(
        &plan(Repeat::Safe),
        NotSent,
        attempt,
        retry_after,
        dice,
        Earlier::Unexecuted,
    ) {
        Next::Retry { delay_ms } => delay_ms,
        other => panic!("{other:?}"),
    };
    assert_eq!([1, 2, 3, 4].map(|attempt| delay(attempt, 0.0, None)), [0, 0, 0, 0]);
    assert_eq!([1, 2, 3, 4].map(|attempt| delay(attempt, 0.5, None)), [100, 200, 400, 800]);
    assert!(delay(1, 0.999_999, None) <= 200);
    assert_eq!(delay(1, 0.5, Some(7_000)), 7_000, "the upstream's Retry-After is the least");
    assert_eq!(delay(3, 0.5, Some(10)), 400);
    assert_eq!(delay(1, f64::NAN, None), 0);
    assert_eq!(delay(1, 9.0, None), 200);
}

#[test]
fn the_bound_never_passes_the_cap_however_many_attempts_there_were() {
    for factor in [1.0, 2.0, 100.0, f64::INFINITY] {
        let retry = Retry { attempts: u32::MAX, factor, cap_ms: 30_000, ..Retry::default() };
        let plan = Plan { repeat: Repeat::Safe, retry, ..Plan::default() };
        for attempt in [1, 2, 50, 5_000, u32::MAX - 1] {
            let found = next(&plan, AnswerLost, attempt, None, 1.0, Earlier::Unexecuted);
            let Next::Retry { delay_ms } = found else { panic!("{found:?}") };
            assert!(delay_ms <= 30_000, "{factor} {attempt} {delay_ms}");
        }
    }
}

#[test]
fn a_single_attempt_means_no_retry() {
    let retry = Retry { attempts: 1, ..Retry::default() };
    let plan = Plan { repeat: Repeat::Safe, retry, ..Plan::default() };
    assert_eq!(next(&plan, NotSent, 1, None, 0.5, Earlier::Unexecuted), Next::Fail);
}
