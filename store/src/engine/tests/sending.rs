//! When a call is sent, and when it may be sent again: the table of the contract's section 4, and time.

use holdfast_policy::{Failure, Reuse};

use super::story::{HOUR, MINUTE, SECOND, Story, answer, check, keyed, never, safe};
use crate::{
    engine::{AnswerKind, Event, is_exempt},
    entry::Attempt,
};

#[test]
fn acceptance_and_dispatch_share_a_commit() {
    check(never().sent_at_once(), "accepted dispatched 1 -> send 1 = in-flight");
    check(never().asked(), "accepted -> queue = ready");
    check(never().denied(), "accepted = denied");
    check(never().held(), "accepted = asking");
}

#[test]
fn not_sent_is_retried_always() {
    for story in [never(), keyed(), safe()] {
        // Half of 200 ms: the dice say 0.5.
        check(story.sent().fails(1, Failure::NotSent), "unexecuted 1: retry at 100 = backoff");
    }
}

#[test]
fn refused_for_now_is_retried_always() {
    for story in [never(), keyed(), safe()] {
        check(story.sent().fails(1, Failure::RefusedUnexecuted), "unexecuted 1: retry at 100 = backoff");
    }
}

#[test]
fn refused_for_good_fails_always() {
    for story in [never(), keyed(), safe()] {
        check(story.sent().refused_for_good(1), "answered 1 = failed");
    }
    let unsaid = never().sent().fails(1, Failure::RefusedForGood);
    check(unsaid, "unexecuted 1: stop = failed (keys free)");
}

#[test]
fn a_tool_error_is_an_answer_unless_a_pattern_knows_it() {
    for story in [never, keyed, safe] {
        check(story().sent().tool_error(1, "no such account"), "answered 1 = failed");
        check(story().sent().tool_error(1, "busy"), "unexecuted 1: retry at 100 = backoff");
    }
}

#[test]
fn a_lost_answer_is_doubt_or_a_repetition() {
    check(never().sent().loses_answer(1), "lost 1 by Disconnected: doubt = in-doubt");
    check(keyed().sent().loses_answer(1), "lost 1 by Disconnected: retry at 100 = backoff");
    check(safe().sent().loses_answer(1), "lost 1 by Disconnected: retry at 100 = backoff");
}

fn sent_again(story: Story) -> Story {
    story.sent().loses_answer(1).at(100).ticks().slot().forget()
}

#[test]
fn after_a_lost_answer_nothing_less_than_an_answer_ends_a_keyed_call() {
    check(sent_again(keyed()).refused_for_good(2), "unexecuted 2: doubt = in-doubt");
    check(sent_again(keyed()).tool_error(2, "no such account"), "answered 2 = failed");
    check(sent_again(keyed()).answers(2), "answered 2 = succeeded");
    check(sent_again(keyed()).fails(2, Failure::NotSent), "unexecuted 2: retry at 300 = backoff");
    // The last attempt of three proves something about itself only.
    let third = |story: Story| sent_again(story).loses_answer(2).at(300).ticks().slot().forget();
    check(third(keyed()).fails(3, Failure::NotSent), "unexecuted 3: doubt = in-doubt");
    check(third(keyed()).tool_error(3, "busy"), "unexecuted 3: doubt = in-doubt");
    check(third(keyed()).loses_answer(3), "lost 3 by Disconnected: doubt = in-doubt");
    check(third(safe()).loses_answer(3), "lost 3 by Disconnected: stop = failed");
    check(third(safe()).refused_for_good(3), "answered 3 = failed");
}

#[test]
fn attempts_run_out() {
    let story = never().sent().fails(1, Failure::NotSent).at(100).ticks().slot();
    let story = story.fails(2, Failure::NotSent).at(300).ticks().slot().forget();
    check(story.fails(3, Failure::NotSent), "unexecuted 3: stop = failed (keys free)");
    let once = || never().planned(|plan| plan.retry.attempts = 1).sent();
    check(once().tool_error(1, "busy"), "answered 1 = failed");
    let refused = answer(AnswerKind::Error, "429");
    let story = once().fails_with(1, Failure::RefusedUnexecuted, Some(refused));
    check(story, "answered 1 = failed");
}

#[test]
fn failures_of_other_attempts_mean_nothing() {
    check(sent_again(keyed()).loses_answer(1), "- = in-flight");
    check(never().sent().loses_answer(1).forget().fails(1, Failure::NotSent), "- = in-doubt");
    check(never().sent().answers(1).forget().loses_answer(1), "- = succeeded");
}

#[test]
fn an_approval_covers_one_dispatch_that_may_have_executed() {
    for story in [never(), keyed(), safe()] {
        let lost = story.approved_and_sent().loses_answer(1);
        check(lost, "lost 1 by Disconnected: doubt = in-doubt");
    }
}

#[test]
fn backoff_waits_and_then_queues() {
    let story = || never().sent().fails(1, Failure::NotSent).forget();
    assert_eq!(story().wakes_at(), Some(100));
    check(story().at(99).ticks(), "- = backoff");
    check(story().at(100).ticks().slot(), "-> queue; dispatched 2 -> send 2 = in-flight");
    // Nobody looked for a long time: the wait in line counts from when it was due.
    let limit = 100 + 30 * SECOND;
    assert_eq!(story().at(100).wakes_at(), Some(limit));
    check(story().at(limit).ticks(), "abandoned by queue-timeout = failed (keys free)");
}

#[test]
fn retry_after_is_honoured() {
    let trouble = crate::Trouble::new("429", "slow down");
    let failed = super::super::Failed {
        failure: Failure::RefusedUnexecuted,
        loss: crate::Loss::UpstreamError,
        trouble,
        retry_after_ms: Some(5 * SECOND),
        answer: None,
    };
    let story = never().sent().tell(Event::Failed(Attempt(1), failed));
    check(story, "unexecuted 1: retry at 5000 = backoff");
}

#[test]
fn attempt_timeout() {
    assert_eq!(never().sent().wakes_at(), Some(MINUTE));
    check(never().sent().at(MINUTE - 1).ticks(), "- = in-flight");
    check(never().sent().at(MINUTE).ticks(), "lost 1 by AttemptTimeout: doubt = in-doubt");
    let keyed = keyed().sent().at(MINUTE).ticks();
    check(keyed, "lost 1 by AttemptTimeout: retry at 60100 = backoff");
    // A read is not worth the work; an effect goes on, for its late answer.
    let safe = safe().sent().at(MINUTE).ticks();
    check(safe, "lost 1 by AttemptTimeout: retry at 60100 -> cancel 1 = backoff");
}

#[test]
fn idle_timeout_counts_from_the_last_sign_of_life() {
    let idle = || never().planned(|plan| plan.idle_timeout_ms = Some(10 * SECOND)).sent();
    assert_eq!(idle().wakes_at(), Some(10 * SECOND));
    check(idle().at(10 * SECOND).ticks(), "lost 1 by Idle: doubt = in-doubt");
    check(idle().at(SECOND).tell(Event::Progress(Attempt(1))), "- = in-flight");
}

#[test]
fn call_timeout_covers_all_attempts() {
    let short = |story: Story| story.planned(|plan| plan.call_timeout_ms = 30 * SECOND);
    let at = 30 * SECOND;
    assert_eq!(short(never()).sent().wakes_at(), Some(at));
    check(short(never()).sent().at(at).ticks(), "lost 1 by CallTimeout: doubt = in-doubt");
    check(short(keyed()).sent().at(at).ticks(), "lost 1 by CallTimeout: doubt = in-doubt");
    check(short(safe()).sent().at(at).ticks(), "lost 1 by CallTimeout: stop -> cancel 1 = failed");
    let waiting = |story: Story| short(story).sent().loses_answer(1).forget().at(at).ticks();
    check(waiting(keyed()), "lost 1 by CallTimeout: doubt = in-doubt");
    check(waiting(safe()), "abandoned by call-timeout = failed");
    let unsent = short(never()).sent().fails(1, Failure::NotSent).forget().at(at).ticks();
    check(unsent, "abandoned by call-timeout = failed (keys free)");
}

#[test]
fn queue_timeout_is_the_time_in_line() {
    assert_eq!(never().queued().wakes_at(), Some(30 * SECOND));
    check(never().queued().at(30 * SECOND - 1).slot(), "dispatched 1 -> send 1 = in-flight");
    // The deadline wins over the slot.
    check(never().queued().at(30 * SECOND).slot(), "abandoned by queue-timeout = failed (keys free)");
    check(never().queued().tell(Event::QueueFull), "abandoned by queue-full = failed (keys free)");
    check(never().sent().tell(Event::QueueFull), "- = in-flight");
    let keyed = keyed().sent().loses_answer(1).forget().tell(Event::QueueFull);
    check(keyed, "lost 1 by CallTimeout: doubt = in-doubt");
}

#[test]
fn a_restart_loses_what_was_out() {
    check(never().sent().restarts(), "lost 1 by Restart: doubt = in-doubt");
    check(keyed().sent().restarts(), "lost 1 by Restart: retry at 100 = backoff");
    check(safe().sent().restarts(), "lost 1 by Restart: retry at 100 = backoff");
    check(never().queued().restarts(), "-> queue = ready");
    check(never().held().forget().restarts(), "- = asking");
    check(never().sent().answers(1).forget().restarts(), "- = succeeded");
    let backoff = || never().sent().fails(1, Failure::NotSent).forget();
    check(backoff().restarts(), "- = backoff");
    check(backoff().at(100).restarts(), "-> queue = backoff");
}

#[test]
fn downtime_counts() {
    check(never().queued().at(HOUR).restarts(), "abandoned by call-timeout = failed (keys free)");
    check(never().held().forget().at(HOUR).restarts(), "expired ApproveBy = expired (keys free)");
    let approved = || never().held().approves("ana").forget();
    check(approved().at(HOUR - 1).restarts(), "-> queue = approved");
    check(approved().at(HOUR).restarts(), "expired ExecuteBy = expired (keys free)");
    check(never().sent().at(HOUR).restarts(), "lost 1 by Restart: doubt = in-doubt");
    check(keyed().sent().at(HOUR).restarts(), "lost 1 by Restart: doubt = in-doubt");
    check(safe().sent().at(HOUR).restarts(), "lost 1 by Restart: stop = failed");
    check(never().sent().loses_answer(1).forget().at(HOUR).restarts(), "- = in-doubt");
}

#[test]
fn keys_come_back_after_a_definitive_failure_if_the_policy_says_so() {
    let reuse = |story: Story| story.planned(|plan| plan.reuse = Reuse::AfterFailure);
    check(reuse(never()).sent().tool_error(1, "no such account"), "answered 1 = failed (keys free)");
    check(reuse(never()).sent().answers(1), "answered 1 = succeeded");
    check(reuse(never()).sent().loses_answer(1), "lost 1 by Disconnected: doubt = in-doubt");
    // Nothing of an attempt that is still out is definitive.
    let story = reuse(never()).sent().tool_error(1, "busy").at(100).ticks().slot().forget();
    check(story.tool_error(1, "busy").tool_error(1, "no such account"), "-; - = in-flight");
}

#[test]
fn only_a_keyless_read_outside_a_run_is_exempt() {
    assert!(is_exempt(&safe().accepted()));
    assert!(!is_exempt(&keyed().accepted()));
    assert!(!is_exempt(&safe().held_for(&[]).accepted()));
    let mut in_run = safe().accepted();
    in_run.run = Some("run".into());
    assert!(!is_exempt(&in_run));
}
