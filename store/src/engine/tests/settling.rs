//! How calls end: late answers, doubt and its three ways out, cancellation, and what comes after the end.

use holdfast_policy::{Absent, Failure};

use super::story::{MINUTE, SECOND, Story, answer, check, gate, keyed, never, safe};
use crate::engine::{AnswerKind, Event, OldProcess, Probed, Resolution, is_settling};

fn in_doubt(story: Story) -> Story {
    story.sent().at(MINUTE).loses_answer(1).forget()
}

#[test]
fn a_late_answer_counts_wherever_the_call_has_got_to() {
    check(never().sent().answers(1), "answered 1 = succeeded");
    check(in_doubt(never()).answers(1), "answered 1 = succeeded");
    check(in_doubt(never()).tool_error(1, "no such account"), "answered 1 = failed");
    check(in_doubt(never()).tool_error(1, "busy"), "answered 1 = failed");
    check(in_doubt(keyed()).answers(1), "answered 1 = succeeded");
    check(never().sent().fails(1, Failure::NotSent).forget().answers(1), "answered 1 = succeeded");
    let ready = || in_doubt(never()).resolved(Resolution::NotSent).forget();
    check(ready().answers(1), "answered 1 = succeeded");
    check(ready().answers(1).slot(), "answered 1; - = succeeded");
    check(never().held().forget().answers(1), "- = asking");
    check(never().held().approves("ana").forget().answers(1), "- = approved");
}

#[test]
fn a_late_result_spares_a_revision_its_dispatch() {
    let asked = || never().approved_and_sent().loses_answer(1).resolved(Resolution::NotSent).slot().changed();
    check(asked().forget().answers(1), "answered 1 = succeeded");
    check(asked().forget().tool_error(1, "no such account"), "- = asking");
    let approved = asked().approves_text("ana", super::story::CHANGED).forget();
    check(approved.answers(1).slot(), "answered 1; - = succeeded");
}

#[test]
fn an_error_of_one_attempt_says_nothing_about_another() {
    // A second copy of an error that was retried, while the next attempt is out.
    let retried = || never().sent().tool_error(1, "busy").at(100).ticks().slot().forget();
    check(retried().tool_error(1, "busy").answers(2), "-; answered 2 = succeeded");
    // The same, of an attempt that was sent again by an operator's word.
    let again = || in_doubt(never()).resolved(Resolution::NotSent).slot().forget();
    check(again().tool_error(1, "no such account"), "- = in-flight");
    check(again().loses_answer(2).tool_error(1, "no"), "lost 2 by Disconnected: doubt; - = in-doubt");
    check(again().answers(1), "answered 1 = succeeded");
    // The second attempt is proven harmless twice; the first one stays open.
    let twice =
        || keyed().planned(|plan| plan.retry.attempts = 2).sent().loses_answer(1).at(100).ticks().slot();
    let story = twice().forget().tool_error(2, "busy").tool_error(2, "busy");
    check(story, "unexecuted 2: doubt; - = in-doubt");
    // While it waits for its next attempt, the error that it waits for is no news.
    let waiting = never().sent().tool_error(1, "busy").forget();
    check(waiting.tool_error(1, "busy"), "- = backoff");
}

#[test]
fn after_the_end_answers_are_recorded_only() {
    check(never().sent().answers(1).answers(1), "answered 1; answered-again = succeeded");
    check(never().sent().answers(1).tool_error(1, "no"), "answered 1; answered-again = succeeded");
    let unknown = in_doubt(never()).resolved(Resolution::GaveUp);
    check(unknown.answers(1), "ana gave up; answered-again = unknown");
    let story = never().sent().answers(1).forget().fails(1, Failure::NotSent).ticks().slot().cancels();
    check(story, "-; -; -; not while succeeded = succeeded");
}

#[test]
fn the_first_answer_is_the_answer() {
    let story = never().sent().answers(1).tool_error(1, "no");
    assert_eq!(story.call().answer, Some(answer(AnswerKind::Result, "done")));
}

#[test]
fn an_operator_ends_doubt() {
    let happened = || Resolution::Happened(answer(AnswerKind::Result, "done"));
    check(in_doubt(never()).resolved(happened()), "ana says it happened = succeeded");
    let failed = Resolution::Happened(answer(AnswerKind::ToolError, "no"));
    check(in_doubt(never()).resolved(failed), "ana says it happened = failed");
    check(
        in_doubt(never()).resolved(Resolution::NotSent).slot(),
        "ana says send again -> queue; dispatched 2 -> send 2 = in-flight",
    );
    check(in_doubt(never()).resolved(Resolution::GaveUp), "ana gave up = unknown");
    check(never().sent().resolved(happened()), "not while in-flight = in-flight");
    check(never().queued().resolved(Resolution::GaveUp), "not while ready = ready");
}

#[test]
fn send_again_counts_attempts_and_time_anew() {
    let again = || in_doubt(never()).at(2 * MINUTE).resolved(Resolution::NotSent).slot().forget();
    check(again().fails(2, Failure::NotSent), "unexecuted 2: retry at 120100 = backoff");
    check(again().loses_answer(2), "lost 2 by Disconnected: doubt = in-doubt");
    let ready = in_doubt(never()).at(100 * MINUTE).resolved(Resolution::NotSent).forget();
    check(ready.slot(), "dispatched 2 -> send 2 = in-flight");
}

#[test]
fn a_probe_that_confirms_ends_doubt() {
    let probed = never().probed(Absent::Hold).sent().loses_answer(1);
    check(probed, "lost 1 by Disconnected: doubt -> probe = in-doubt");
    check(in_doubt(never().probed(Absent::Hold)).probe_confirms(), "probe says it happened = succeeded");
    check(never().probed(Absent::Hold).sent().answers(1).forget().probe_confirms(), "- = succeeded");
    check(never().probed(Absent::Hold).sent().probe_confirms(), "- = in-flight");
}

#[test]
fn absent_proves_nothing_unless_the_policy_says_so() {
    let hold = in_doubt(never().probed(Absent::Hold)).at(100 * MINUTE);
    check(hold.probe_finds_nothing(OldProcess::Gone), "probed Absent = in-doubt");
    let resend = || in_doubt(never().probed(Absent::Resend));
    let settled = 6 * MINUTE;
    check(resend().at(settled - 1).probe_finds_nothing(OldProcess::Gone), "probed Absent = in-doubt");
    check(resend().at(settled).probe_finds_nothing(OldProcess::MayLive), "probed Absent = in-doubt");
    check(
        resend().at(settled).probe_finds_nothing(OldProcess::Gone),
        "probe says send again -> queue = ready",
    );
    let unclear = Event::Probed(Probed::Unclear("503".into()));
    check(resend().at(settled).tell(unclear), "probed Unclear = in-doubt");
}

#[test]
fn probes_go_further_and_further_apart_and_stop() {
    let nothing = |story: Story| story.probe_finds_nothing(OldProcess::MayLive);
    let story = in_doubt(never().probed(Absent::Hold));
    assert!(is_settling(story.call()));
    assert_eq!(story.wakes_at(), Some(MINUTE));
    let story = nothing(story);
    assert!(!is_settling(story.call()));
    assert_eq!(story.wakes_at(), Some(MINUTE + SECOND));
    let story = nothing(story.at(MINUTE + SECOND));
    assert_eq!(story.wakes_at(), Some(MINUTE + 3 * SECOND));
    check(story.forget().at(MINUTE + 3 * SECOND).ticks(), "-> probe = in-doubt");
    let often = |absent| (0..5).fold(in_doubt(never().probed(absent)), |story, _| nothing(story));
    assert_eq!(often(Absent::Hold).wakes_at(), None);
    assert_eq!(often(Absent::Resend).wakes_at(), Some(MINUTE + 16 * SECOND));
    assert_eq!(in_doubt(never()).wakes_at(), None);
    check(often(Absent::Hold).forget().restarts(), "-> probe = in-doubt");
}

#[test]
fn cancellation_in_each_state() {
    check(never().held().forget().cancels(), "cancelled = cancelled (keys free)");
    check(never().held().approves("ana").forget().cancels(), "cancelled = cancelled (keys free)");
    check(never().queued().cancels(), "cancelled = cancelled (keys free)");
    check(never().sent().fails(1, Failure::NotSent).forget().cancels(), "cancelled = cancelled (keys free)");
    check(keyed().sent().loses_answer(1).forget().cancels(), "lost 1 by Cancelled: doubt = in-doubt");
    check(safe().sent().loses_answer(1).forget().cancels(), "cancelled = cancelled");
    check(in_doubt(never()).cancels(), "not while in-doubt = in-doubt");
    check(never().sent().answers(1).forget().cancels(), "not while succeeded = succeeded");
    check(never().denied().forget().cancels(), "not while denied = denied");
}

#[test]
fn cancelled_in_flight_is_in_doubt_until_an_answer_says_otherwise() {
    check(never().sent().cancels(), "lost 1 by Cancelled: doubt -> cancel 1 = in-doubt");
    check(keyed().sent().cancels(), "lost 1 by Cancelled: doubt -> cancel 1 = in-doubt");
    check(safe().sent().cancels(), "lost 1 by Cancelled: stop -> cancel 1 = failed");
    check(
        never().sent().cancels().answers(1),
        "lost 1 by Cancelled: doubt -> cancel 1; answered 1 = succeeded",
    );
    let probed = never().probed(Absent::Hold).sent().cancels();
    check(probed, "lost 1 by Cancelled: doubt -> cancel 1 probe = in-doubt");
}

#[test]
fn keys_are_freed_by_operators_but_never_those_of_the_unknown() {
    check(never().held().rejects("ana").forget().released(), "released = refused (keys free)");
    check(never().sent().answers(1).forget().released(), "released = succeeded (keys free)");
    check(in_doubt(never()).released(), "not while in-doubt = in-doubt");
    let unknown = in_doubt(never()).resolved(Resolution::GaveUp).forget();
    check(unknown.released(), "not while unknown = unknown");
    check(never().held_for(&[gate()]).asked().forget().released(), "not while asking = asking");
}

#[test]
fn everything_else_is_ignored_where_it_does_not_fit() {
    check(never().sent().slot(), "- = in-flight");
    check(never().held().forget().slot(), "- = asking");
    check(in_doubt(never()).slot(), "- = in-doubt");
    check(never().sent().rechecked(crate::engine::Recheck::Same), "- = in-flight");
    check(in_doubt(never()).changed(), "- = in-doubt");
    check(never().queued().loses_answer(1), "- = ready");
}
