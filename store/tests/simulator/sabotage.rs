//! Ways to break each promise on purpose: a simulator that does not notice them proves nothing.

/// What the simulated driver does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// Nothing.
    None,
    /// Sends when `Dispatched` is handed to the journal, not when it is durable.
    ActBeforeWriting,
    /// After a restart, sends what was out once more instead of recording its loss.
    ResendOnRecovery,
    /// Tells the agent when `Answered` is handed to the journal.
    AnswerBeforeDurable,
    /// Takes a lost answer of a `never` call for "not sent".
    RetryNever,
    /// Takes a lost answer for a failure, and says so.
    GuessFailed,
    /// Takes a lost answer of an approved call for "not sent", so that the approval is used again.
    UseGrantTwice,
    /// Looks whether the keys are free, then writes without claiming them.
    ClaimNotAtomic,
    /// Stops the approval's clock.
    IgnoreExecuteBy,
    /// Gives the keys of an in-doubt call back.
    ReleaseKeysOfDoubt,
    /// Takes the first vote for a quorum.
    IgnoreQuorum,
    /// Approves whatever is asked now, not what the approver saw.
    ApproveUnseen,
    /// Takes an agent's owner for anybody.
    CountOwner,
    /// On a conflict, appends the old step again.
    StaleStep,
    /// Settles a later doubt with a decision about an earlier one.
    ResolveUnseen,
    /// After a restart, leaves unfinished calls alone.
    ForgetUnfinished,
    /// Drops the waiters of a call in doubt.
    ForgetWaiters,
    /// Gives the engine the wall clock as it is.
    WallClock,
    /// Replays the latest answer instead of the first.
    LastAnswerWins,
    /// Asks whether the old process is gone when the probe returns, not before it looks.
    JudgeProcessLate,
    /// Forwards another upstream key with each attempt.
    KeyPerAttempt,
    /// Keeps a live state that is not the fold.
    DriftingState,
    /// Drops answers that come after the call is in doubt. Sad, but no promise is broken.
    DropLateAnswers,
}
