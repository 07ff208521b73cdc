//! A call's line: its summary, and what listing, releasing and pruning need to know without its entries.

use crate::{
    entry::{CallId, Entry, Millis},
    fingerprint::Hash32,
    journal::{Append, Filter, JournalError, KeyFate, Refusal, Summary},
    state::{Outcome, State},
};

/// Kept by every journal for each call, and rewritten with each append to it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) summary: Summary,
    /// When it ended; retention counts from here, whatever is recorded later.
    pub(crate) done_at: Option<Millis>,
    /// Claimed and not released.
    pub(crate) keys: Vec<Hash32>,
    pub(crate) identical: Option<Hash32>,
    /// How many of the first entries have lost their content.
    pub(crate) pruned: u32,
    /// Sequence numbers of the entries that still have it.
    pub(crate) seqs: Vec<u64>,
}

impl Line {
    /// The line once `append` is made; sequence numbers and claimed keys are still to be added.
    ///
    /// # Errors
    /// The refusals that need no look at other calls: a conflict, or facts that cannot follow.
    pub(crate) fn after(line: Option<Line>, append: &Append) -> Result<Line, Refusal> {
        let entries = line.as_ref().map_or(0, |line| line.summary.entries);
        if entries != append.expected {
            return Err(Refusal::Conflict { entries });
        }
        let mut facts = append.entries.iter();
        let mut line = match line {
            Some(line) => line,
            None => Self::first(append, facts.next())?,
        };
        for fact in facts {
            line.push(append.at, fact)?;
        }
        if line.summary.entries == entries {
            return Err(impossible("an append without entries"));
        }
        if entries == 0 {
            line.identical = append.claim.identical;
        }
        Ok(line)
    }

    /// The claimed keys, which are no longer the call's if the append releases them.
    pub(crate) fn keys_after(&mut self, fate: KeyFate) -> Vec<Hash32> {
        match fate {
            KeyFate::Keep => Vec::new(),
            KeyFate::Release => std::mem::take(&mut self.keys),
        }
    }

    /// When a call ended that may be pruned: nobody will ever know how an unknown one ended, so its record stays; and
    /// what stands in the register holds until it says otherwise.
    pub(crate) fn prunable_at(&self) -> Option<Millis> {
        let kept =
            self.summary.state == State::Done(Outcome::Unknown) || self.summary.call == CallId::REGISTER;
        if kept { None } else { self.done_at }
    }

    fn first(append: &Append, fact: Option<&Entry>) -> Result<Self, Refusal> {
        let Some(fact) = fact else { return Err(impossible("an append without entries")) };
        let state = following(append.call, None, fact).map_err(|what| impossible(&what))?;
        let mut summary = Summary {
            call: append.call,
            at: append.at,
            updated: append.at,
            principal: String::new(),
            server: String::new(),
            tool: String::new(),
            run: None,
            state,
            attempts: 0,
            entries: 1,
        };
        if let Entry::Accepted(accepted) = fact {
            summary.principal.clone_from(&accepted.caller.principal);
            summary.server.clone_from(&accepted.server);
            summary.tool.clone_from(&accepted.tool);
            summary.run.clone_from(&accepted.run);
        }
        let done_at = state.is_done().then_some(append.at);
        Ok(Self { summary, done_at, keys: Vec::new(), identical: None, pruned: 0, seqs: Vec::new() })
    }

    fn push(&mut self, at: Millis, fact: &Entry) -> Result<(), Refusal> {
        let summary = &mut self.summary;
        summary.state =
            following(summary.call, Some(summary.state), fact).map_err(|what| impossible(&what))?;
        summary.updated = at;
        summary.entries += 1;
        summary.attempts += u32::from(matches!(fact, Entry::Dispatched { .. }));
        if summary.state.is_done() && self.done_at.is_none() {
            self.done_at = Some(at);
        }
        Ok(())
    }
}

impl Filter {
    /// True where every given condition holds; [`Filter::limit`] is the caller's business.
    pub(crate) fn admits(&self, summary: &Summary) -> bool {
        let is =
            |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        summary.call != CallId::REGISTER
            && (self.states.is_empty() || self.states.contains(&summary.state))
            && is(&self.server, &summary.server)
            && is(&self.tool, &summary.tool)
            && self.run.as_ref().is_none_or(|run| summary.run.as_ref() == Some(run))
            && self.since.is_none_or(|since| summary.at >= since)
            && self.before.is_none_or(|before| summary.call < before)
    }
}

/// The state after `fact`. The register is no call and has none: what stands there is nobody's to list by state.
pub(crate) fn following(call: CallId, state: Option<State>, fact: &Entry) -> Result<State, String> {
    match fact {
        Entry::Noted(_) if call == CallId::REGISTER => Ok(State::Done(Outcome::Succeeded)),
        _ if call == CallId::REGISTER => Err("a call's fact in the register".to_owned()),
        _ => State::after(state, fact).map_err(|illegal| illegal.to_string()),
    }
}

/// An append that the engine's own rules forbid: nothing of it is written, and the journal goes on.
fn impossible(what: &str) -> Refusal {
    Refusal::Failed(JournalError::Unreadable(format!("refused to write what cannot be: {what}").into()))
}
