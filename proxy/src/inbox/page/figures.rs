//! What the overview tells, counted from the journal: all lines of a stretch of time, and the histories of the newest.

use std::collections::HashMap;

use holdfast_store::{
    CallId, Disposition, Entry, Filter, Journal, JournalError, Millis, Outcome, Record, State,
};

use super::shell::Counts;

/// Lines that are counted at most, and calls of which the whole history is read.
pub(super) const LINES: usize = 20_000;
pub(super) const HISTORIES: usize = 1_000;
/// Bars of the plot over time.
pub(super) const BUCKETS: usize = 48;

/// What became of a call, as the plot tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Succeeded,
    Failed,
    Stopped,
    Doubtful,
    Open,
}

impl Fate {
    pub(super) const ALL: [Self; 5] =
        [Self::Succeeded, Self::Failed, Self::Stopped, Self::Doubtful, Self::Open];

    fn of(state: State) -> Self {
        match state {
            State::Done(Outcome::Succeeded) => Self::Succeeded,
            State::Done(Outcome::Failed) => Self::Failed,
            State::Done(Outcome::Unknown) | State::InDoubt => Self::Doubtful,
            State::Done(_) => Self::Stopped,
            _ => Self::Open,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Stopped => "denied, refused, expired or withdrawn",
            Self::Doubtful => "in doubt or unknown",
            Self::Open => "not ended",
        }
    }

    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Succeeded => "good",
            Self::Failed => "bad",
            Self::Stopped => "off",
            Self::Doubtful => "doubt",
            Self::Open => "run",
        }
    }
}

/// How long the answers of a tool took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Latency {
    pub(super) tool: String,
    pub(super) count: usize,
    pub(super) p50: u64,
    pub(super) p95: u64,
    pub(super) longest: u64,
}

/// Everything that is drawn.
#[derive(Default)]
pub(super) struct Figures {
    pub(super) from: Millis,
    pub(super) to: Millis,
    pub(super) calls: usize,
    /// There are more calls in that time than were counted.
    pub(super) more: bool,
    pub(super) buckets: Vec<[usize; 5]>,
    pub(super) fates: [usize; 5],
    /// Calls with 1, 2, 3, 4, and 5 or more attempts.
    pub(super) attempts: [usize; 5],
    pub(super) histories: usize,
    pub(super) latencies: Vec<Latency>,
    /// How long decisions took, in milliseconds, sorted.
    pub(super) decisions: Vec<u64>,
    pub(super) approved: usize,
    pub(super) refused: usize,
    pub(super) expired: usize,
    pub(super) joined: usize,
    pub(super) doubts: usize,
    pub(super) settled: usize,
    pub(super) counts: Counts,
}

/// Counts what happened in the `window` before `now`.
pub(super) fn read(journal: &dyn Journal, now: Millis, window: u64) -> Result<Figures, JournalError> {
    let from = Millis(now.0.saturating_sub(window));
    let filter = Filter { since: Some(from), limit: LINES, ..Filter::default() };
    let calls = journal.list(&filter)?;
    let mut figures = Figures {
        from,
        to: now,
        calls: calls.len(),
        more: calls.len() == LINES,
        buckets: vec![[0; 5]; BUCKETS],
        counts: Counts::read(journal)?,
        ..Figures::default()
    };
    for call in &calls {
        let fate = Fate::ALL.iter().position(|fate| *fate == Fate::of(call.state)).unwrap_or_default();
        let part = call.at.since(from) as f64 / window.max(1) as f64;
        let bucket = ((part * BUCKETS as f64) as usize).min(BUCKETS - 1);
        figures.buckets[bucket][fate] += 1;
        figures.fates[fate] += 1;
        if let Some(place) = (call.attempts as usize).checked_sub(1) {
            figures.attempts[place.min(4)] += 1;
        }
    }
    let newest: Vec<CallId> = calls.iter().take(HISTORIES).map(|call| call.call).collect();
    figures.look_closer(journal, &newest)?;
    Ok(figures)
}

impl Figures {
    fn look_closer(&mut self, journal: &dyn Journal, calls: &[CallId]) -> Result<(), JournalError> {
        let mut by_tool: HashMap<String, Vec<u64>> = HashMap::new();
        for call in calls {
            let records = journal.history(*call)?;
            let Some(Entry::Accepted(accepted)) = records.first().map(|record| &record.entry) else {
                continue;
            };
            self.histories += 1;
            if let Some(ms) = answered_in(&records) {
                by_tool.entry(format!("{}/{}", accepted.server, accepted.tool)).or_default().push(ms);
            }
            if matches!(accepted.disposition, Disposition::Ask { .. }) {
                self.decided(&records);
            }
            for record in &records {
                match &record.entry {
                    Entry::Joined { .. } => self.joined += 1,
                    Entry::Lost { then: holdfast_store::Then::Doubt, .. } => self.doubts += 1,
                    Entry::Resolved { .. } => self.settled += 1,
                    _ => {}
                }
            }
        }
        self.decisions.sort_unstable();
        self.latencies = by_tool.into_iter().map(|(tool, times)| latency(tool, times)).collect();
        self.latencies
            .sort_by(|one, other| other.count.cmp(&one.count).then_with(|| one.tool.cmp(&other.tool)));
        self.latencies.truncate(12);
        Ok(())
    }

    fn decided(&mut self, records: &[Record]) {
        let mut asked = records.first().map_or(Millis(0), |record| record.at);
        for record in records {
            match &record.entry {
                Entry::Superseded { .. } => asked = record.at,
                Entry::Approved { grant: Some(_), .. } => {
                    self.approved += 1;
                    self.decisions.push(record.at.since(asked));
                }
                Entry::Refused { .. } => {
                    self.refused += 1;
                    self.decisions.push(record.at.since(asked));
                }
                Entry::Expired { .. } => self.expired += 1,
                _ => {}
            }
        }
    }
}

fn answered_in(records: &[Record]) -> Option<u64> {
    let answered = records.iter().find(|record| matches!(record.entry, Entry::Answered { .. }))?;
    let Entry::Answered { attempt, .. } = &answered.entry else { return None };
    let is_sent = |entry: &Entry| matches!(entry, Entry::Dispatched { attempt: sent } if sent == attempt);
    let sent = records.iter().find(|record| is_sent(&record.entry))?;
    Some(answered.at.since(sent.at))
}

fn latency(tool: String, mut times: Vec<u64>) -> Latency {
    times.sort_unstable();
    Latency {
        tool,
        count: times.len(),
        p50: part(&times, 50),
        p95: part(&times, 95),
        longest: times.last().copied().unwrap_or(0),
    }
}

/// The value that `percent` of the sorted values do not exceed; 0 where there are none.
pub(super) fn part(sorted: &[u64], percent: usize) -> u64 {
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts() {
        assert_eq!(part(&[], 50), 0);
        assert_eq!(part(&[7], 95), 7);
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!([50, 95, 100].map(|percent| part(&values, percent)), [50, 95, 100]);
    }
}
