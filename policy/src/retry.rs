//! Failure class + attempt number -> try again when, or stop. The table of the contract, section 4.

use crate::plan::Plan;
use crate::rule::Repeat;

/// How an attempt failed. The class decides, never the text of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing left us: connect refused, spawn failed, queue full, breaker open, 401, expired session.
    NotSent,
    /// The upstream says that it did not execute it and might later, e.g. 429 on its `unexecuted` list.
    RefusedUnexecuted,
    /// The upstream says that it will never execute it: -32601, -32602.
    RefusedForGood,
    /// `isError: true` and [`crate::Retry::matches`]: known to have done nothing.
    ToolErrorTransient,
    /// `isError: true` otherwise: an answer.
    ToolError,
    /// It was sent and no answer came: timeout, broken pipe, crash, -32603, 5xx, anything else.
    AnswerLost,
}

/// What is known about the attempts before this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Earlier {
    /// Each is proven not to have been executed, or there were none.
    Unexecuted,
    /// At least one may have been executed.
    MayHaveExecuted,
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send again after this wait.
    Retry {
        /// Milliseconds from now.
        delay_ms: u64,
    },
    /// It failed, definitively.
    Fail,
    /// It may have happened: report that, guess nothing.
    InDoubt,
}

/// Decides what follows the failure of attempt number `attempt` (the first is 1).
///
/// `retry_after_ms` is what the upstream asked for and the least we wait; `dice` in [0, 1) draws the
/// jitter. The wait is uniform between 0 and min(cap, initial * factor^(attempt - 1)): "full jitter" of
/// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>.
pub fn next(
    plan: &Plan,
    failure: Failure,
    attempt: u32,
    retry_after_ms: Option<u64>,
    dice: f64,
    earlier: Earlier,
) -> Next {
    let executed = failure == Failure::AnswerLost || earlier == Earlier::MayHaveExecuted;
    // A call that must not be repeated and may have happened once is never sent again, whatever this
    // attempt says about itself.
    if plan.repeat == Repeat::Never && executed {
        return Next::InDoubt;
    }
    let final_answer = match failure {
        // Under `keyed` the upstream answers for the key, so its tool error speaks for all attempts.
        Failure::ToolError => true,
        Failure::NotSent
        | Failure::RefusedUnexecuted
        | Failure::RefusedForGood
        | Failure::ToolErrorTransient
        | Failure::AnswerLost => false,
    };
    if final_answer {
        return Next::Fail;
    }
    if failure != Failure::RefusedForGood && attempt < plan.retry.attempts {
        let delay_ms = jitter(plan, attempt, dice).max(retry_after_ms.unwrap_or(0));
        return Next::Retry { delay_ms };
    }
    if plan.repeat == Repeat::Keyed && executed { Next::InDoubt } else { Next::Fail }
}

fn jitter(plan: &Plan, attempt: u32, dice: f64) -> u64 {
    let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
    let grown = plan.retry.initial_ms as f64 * plan.retry.factor.powi(exponent);
    // Float-to-integer casts saturate, and NaN (0 * infinity) becomes 0.
    let bound = (grown as u64).min(plan.retry.cap_ms);
    let dice = if dice.is_finite() { dice.clamp(0.0, 1.0) } else { 0.0 };
    ((bound as f64 * dice) as u64).min(bound)
}

#[cfg(test)]
mod tests;
