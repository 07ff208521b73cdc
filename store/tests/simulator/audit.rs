//! The promises, checked by somebody who sees both the journal and the truth.

mod mirror;

use std::collections::{BTreeMap, HashMap, HashSet};

use holdfast_policy::{Absent, Approver, Gate, Repeat, SelfApproval};
use holdfast_store::{
    Accepted, Answer, AnswerKind, Attempt, Call, CallId, Digest, Disposition, Entry, Hash32, Journal,
    KeyFate, Memory, Millis, Outcome, Record, Resolution, State, engine::Recheck,
};

pub(crate) use mirror::Mirror;
use mirror::{Asked, Moment};

use crate::{
    people::{Final, News},
    scenario::{AGENTS, OPERATORS},
    upstream::{Truth, Upstreams},
};

/// A broken promise.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) promise: u8,
    pub(crate) words: String,
}

/// What is known of an append when it is handed to the journal.
#[derive(Clone, Copy)]
pub(crate) struct Submitted {
    pub(crate) keys: KeyFate,
    /// In real time.
    pub(crate) real: u64,
    /// In which life of Holdfast.
    pub(crate) epoch: u32,
    /// The latest time that this life had seen by then, while it looked at the call.
    pub(crate) seen: Millis,
}

#[derive(Default)]
pub(crate) struct Audit {
    pub(crate) calls: BTreeMap<CallId, Mirror>,
    pub(crate) violation: Option<Violation>,
    pub(crate) checks: u64,
    owners: HashMap<Hash32, CallId>,
    seen: u64,
    submitted: HashMap<(CallId, u32), Submitted>,
    meant: HashSet<(String, CallId, Digest)>,
    sent: HashSet<(CallId, Attempt)>,
    heard: HashMap<CallId, Final>,
    effects: HashSet<Hash32>,
}

impl Audit {
    pub(crate) fn expect(&mut self, promise: u8, holds: bool, words: impl FnOnce() -> String) {
        self.checks += 1;
        if !holds && self.violation.is_none() {
            self.violation = Some(Violation { promise, words: words() });
        }
    }

    pub(crate) fn next_seq(&self) -> u64 {
        self.seen + 1
    }

    pub(crate) fn owner(&self, key: Hash32) -> Option<CallId> {
        self.owners.get(&key).copied()
    }

    pub(crate) fn latest_answer(&self, call: CallId) -> Option<Answer> {
        self.calls.get(&call)?.latest_answer.clone()
    }

    pub(crate) fn submitted(&mut self, call: CallId, expected: u32, entries: u32, submitted: Submitted) {
        let seen = self.calls.get(&call).filter(|mirror| mirror.seen.0 == submitted.epoch);
        let submitted = Submitted { seen: seen.map_or(Millis(0), |mirror| mirror.seen.1), ..submitted };
        for n in expected..expected + entries {
            // Of several appends to one place the first wins.
            self.submitted.entry((call, n)).or_insert(submitted);
        }
    }

    pub(crate) fn means_to_approve(&mut self, who: usize, call: CallId, digest: Digest) {
        self.meant.insert((OPERATORS[who].0.to_owned(), call, digest));
    }

    /// The driver hears what a re-check found.
    pub(crate) fn rechecked(&mut self, call: CallId, recheck: &Recheck) {
        if let Some(mirror) = self.calls.get_mut(&call) {
            mirror.changed = !matches!(recheck, Recheck::Same);
        }
    }

    /// The driver has seen this time while it looked at that call.
    pub(crate) fn observe(&mut self, call: CallId, now: Millis, epoch: u32) {
        if let Some(mirror) = self.calls.get_mut(&call) {
            let (last, high) = mirror.seen;
            mirror.seen = (epoch, if last == epoch { high.max(now) } else { now });
        }
    }

    /// An entry has become durable.
    pub(crate) fn durable(&mut self, record: Record, upstreams: &Upstreams) {
        self.seen = record.seq;
        let unknown = Submitted { keys: KeyFate::Keep, real: 0, epoch: 0, seen: Millis(0) };
        let submitted = self.submitted.get(&(record.call, record.n)).copied().unwrap_or(unknown);
        if let Entry::Accepted(accepted) = &record.entry {
            self.accepted(&record, accepted, submitted);
            return;
        }
        let Some(mut mirror) = self.calls.remove(&record.call) else {
            return self.expect(8, false, || format!("{} has facts before `Accepted`", record.call));
        };
        self.before(&mirror, &record, submitted);
        let deadlines = deadlines(&mirror.call);
        let applied = mirror.call.apply(record.at, &record.entry);
        self.expect(8, applied.is_ok(), || format!("{}: {applied:?}", record.call));
        self.deadlines_stay(&mirror.call, &record.entry, deadlines);
        mirror.note(&record, submitted);
        self.keys_go_back(&mut mirror, &record, submitted, upstreams);
        self.calls.insert(record.call, mirror);
    }

    fn accepted(&mut self, record: &Record, accepted: &Accepted, submitted: Submitted) {
        let call = Call::begin(record.call, record.at, &record.entry).expect("it is `Accepted`");
        for key in &accepted.keys {
            let owner = self.owners.insert(key.hash, record.call);
            let id = record.call;
            self.expect(1, owner.is_none(), || format!("{id} was accepted with a key of {owner:?}"));
        }
        let when = Moment { at: record.at, real: submitted.real, epoch: submitted.epoch };
        let asked = match &accepted.disposition {
            Disposition::Ask { digest, gates } => {
                Some(Asked { digest: *digest, gates: gates.to_vec(), when, voters: Vec::new() })
            }
            Disposition::Allow | Disposition::Deny { .. } => None,
        };
        let mirror = Mirror {
            call,
            asked,
            granted: None,
            open: Vec::new(),
            pardoned: false,
            high: record.at,
            seen: (submitted.epoch, record.at),
            changed: false,
            freed: false,
            latest_answer: None,
        };
        self.calls.insert(record.call, mirror);
    }

    /// Whether this entry may follow, by an account of our own.
    fn before(&mut self, mirror: &Mirror, record: &Record, submitted: Submitted) {
        match &record.entry {
            Entry::Dispatched { attempt } => {
                self.may_be_sent(mirror, record, submitted);
                let (is, next) = (attempt.0, mirror.call.attempts + 1);
                self.expect(5, is == next, || format!("{}: attempt {is} instead of {next}", record.call));
            }
            Entry::Approved { by, digest, grant, .. } => {
                let meant = self.meant.contains(&(by.name.clone(), record.call, *digest));
                self.expect(6, meant, || format!("{}: {} never approved that text", record.call, by.name));
                let asked = mirror.asked.as_ref();
                let current = asked.is_some_and(|asked| asked.digest == *digest);
                self.expect(6, current, || format!("{}: an approval of another text counts", record.call));
                if let Some(asked) = asked.filter(|_| grant.is_some()) {
                    let mut voters = asked.voters.clone();
                    voters.push(by.name.clone());
                    let quorum = asked.gates.iter().all(|gate| satisfied(gate, &voters, &mirror.call));
                    self.expect(6, quorum, || format!("{}: {voters:?} are no quorum", record.call));
                    let ms = asked.gates.iter().map(|gate| gate.approve_by_ms).min().unwrap_or(0);
                    self.in_time("approve_by", mirror, record, submitted, (asked.when, ms));
                }
            }
            Entry::Resolved { by, how: Resolution::NotSent } if by.name == "probe" => {
                let opted =
                    mirror.call.accepted.plan.probe.as_ref().is_some_and(|p| p.absent == Absent::Resend);
                self.expect(1, opted, || format!("{}: a probe sends again without leave", record.call));
            }
            _ => {}
        }
    }

    fn may_be_sent(&mut self, mirror: &Mirror, record: &Record, submitted: Submitted) {
        let (call, id) = (&mirror.call, record.call);
        let once = call.accepted.plan.repeat == Repeat::Never || call.is_gated();
        let open = &mirror.open;
        self.expect(1, !once || open.is_empty(), || {
            format!("{id}: sent again while {open:?} may have executed")
        });
        if call.state == State::Backoff {
            self.expect(7, record.at >= call.due, || format!("{id}: sent before the end of its backoff"));
        }
        if matches!(call.state, State::Backoff | State::Ready) {
            let in_time = record.at < call.deadline;
            self.expect(7, in_time, || format!("{id}: sent after the time for the whole call"));
        }
        self.expect(6, !mirror.changed, || format!("{id}: sent although the re-check found a change"));
        if !call.is_gated() || mirror.pardoned {
            return;
        }
        let Some((asked, granted)) = mirror.asked.as_ref().zip(mirror.granted) else {
            return self.expect(6, false, || format!("{id}: sent without an approval"));
        };
        let ms = asked.gates.iter().map(|gate| gate.execute_by_ms).min().unwrap_or(0);
        self.in_time("execute_by", mirror, record, submitted, (granted, ms));
    }

    /// Neither by the clock, nor by any time that was seen before, nor in reality.
    fn in_time(
        &mut self,
        what: &str,
        mirror: &Mirror,
        record: &Record,
        submitted: Submitted,
        (from, ms): (Moment, u64),
    ) {
        let (id, deadline) = (record.call, from.at.plus(ms));
        self.expect(6, record.at < deadline, || format!("{id}: after {what}"));
        let seen = mirror.high.max(submitted.seen);
        self.expect(7, seen < deadline, || format!("{id}: {what} was over and the clock ran backwards"));
        if submitted.epoch == from.epoch {
            let real = submitted.real - from.real;
            self.expect(7, real <= ms, || format!("{id}: {what} of {ms} ms took {real} ms"));
        }
    }

    fn deadlines_stay(&mut self, call: &Call, entry: &Entry, before: [Option<Millis>; 3]) {
        let anew = matches!(
            entry,
            Entry::Approved { grant: Some(_), .. }
                | Entry::Superseded { .. }
                | Entry::Edited { .. }
                | Entry::Previewed { .. }
                | Entry::Resolved { how: Resolution::NotSent, .. }
        );
        let first = matches!(entry, Entry::Dispatched { .. }) && call.is_gated();
        let after = deadlines(call);
        let moved = before.iter().zip(&after).any(|(before, after)| after > before && before.is_some());
        self.expect(7, anew || first || !moved, || format!("{}: {entry:?} extended a deadline", call.id));
    }

    fn keys_go_back(
        &mut self,
        mirror: &mut Mirror,
        record: &Record,
        submitted: Submitted,
        upstreams: &Upstreams,
    ) {
        let (call, id) = (&mirror.call, record.call);
        let by_operator = matches!(record.entry, Entry::Released { .. });
        let ends =
            matches!(record.entry, Entry::Expired { .. } | Entry::Cancelled { .. } | Entry::Abandoned { .. });
        if ends && call.attempts == 0 {
            let released = submitted.keys == KeyFate::Release;
            self.expect(9, released, || format!("{id} never was anything, and keeps its keys"));
        }
        let refused = matches!(record.entry, Entry::Refused { .. });
        self.expect(9, !refused || submitted.keys == KeyFate::Keep, || {
            format!("{id} was refused and asks anew")
        });
        if submitted.keys == KeyFate::Keep {
            return;
        }
        let repeat = call.accepted.plan.repeat;
        let spoken_for = repeat == Repeat::Safe || (repeat == Repeat::Keyed && call.answer.is_some());
        let harmless = upstreams.of(id).all(|sent| sent.truth == Truth::Never);
        let done = call.state.is_done();
        self.expect(9, done, || format!("{id} lost its keys in {:?}", call.state));
        self.expect(9, by_operator || spoken_for || harmless, || {
            format!("{id} lost its keys and may execute")
        });
        mirror.freed |= by_operator;
        for key in &mirror.call.accepted.keys {
            if self.owners.get(&key.hash) == Some(&id) {
                self.owners.remove(&key.hash);
            }
        }
    }

    /// An attempt leaves Holdfast now.
    pub(crate) fn sends(&mut self, id: CallId, attempt: Attempt, accepted: &Accepted, upstreams: &Upstreams) {
        let state = self.calls.get(&id).map(|mirror| (mirror.call.state, mirror.call.attempt()));
        let written = state.is_some_and(|(state, latest)| state != State::Ready && latest >= attempt);
        self.expect(5, written, || format!("{id}: attempt {} is sent and not written", attempt.0));
        let first = self.sent.insert((id, attempt));
        self.expect(1, first, || format!("{id}: attempt {} is sent twice", attempt.0));
        let never = accepted.plan.repeat == Repeat::Never;
        let gated = matches!(accepted.disposition, Disposition::Ask { .. });
        for sent in &upstreams.sent {
            let may = sent.truth != Truth::Never;
            let same_call = sent.call == id && (never || gated);
            let other = || self.calls.get(&sent.call).filter(|other| !other.freed);
            let same_key = never
                && sent.call != id
                && other().is_some_and(|other| {
                    other.call.accepted.keys.iter().any(|key| accepted.keys.contains(key))
                });
            let holds = !(may && (same_call || same_key));
            self.checks += 1;
            if !holds && self.violation.is_none() {
                let words =
                    format!("{id}: sent, but {} attempt {} may execute too", sent.call, sent.attempt.0);
                self.violation = Some(Violation { promise: 1, words });
            }
        }
    }

    /// A server has acted.
    pub(crate) fn effect(&mut self, call: CallId, deduplicated: bool) {
        let Some(mirror) = self.calls.get(&call).filter(|_| deduplicated) else { return };
        let group = effect_group(call, &mirror.call.accepted);
        let first = self.effects.insert(group);
        self.expect(1, first, || format!("{call}: a second effect under one key"));
    }

    /// An agent is told something about a call.
    pub(crate) fn heard(&mut self, id: CallId, news: &News, upstreams: &Upstreams) {
        let Some(mirror) = self.calls.get(&id) else {
            return self.expect(4, false, || format!("an agent hears of {id}, which is not durable"));
        };
        let state = mirror.call.state;
        match news {
            News::Final(end) => {
                let durable = state == State::Done(end.outcome) && mirror.call.answer == end.answer;
                self.expect(4, durable, || format!("an agent hears {end:?} of {id}, which is {state:?}"));
                let before = self.heard.insert(id, end.clone());
                let same = before.as_ref().is_none_or(|before| before == end);
                self.expect(3, same, || format!("{id}: first {before:?}, then {end:?}"));
                self.no_guess(id, end.outcome, upstreams);
            }
            News::InDoubt => {
                // Settled in the same commit, perhaps: then it was in doubt a moment ago, durably.
                let was = state == State::InDoubt || mirror.call.attempts > 0;
                self.expect(4, was, || format!("an agent hears that {id} is in doubt; it is {state:?}"));
            }
            News::Held | News::KeyReused => {}
        }
    }

    /// "Failed" is said only of what certainly did not happen. Under `keyed` a tool's error speaks for all attempts,
    /// unless the policy knows it as one that did nothing.
    fn no_guess(&mut self, id: CallId, outcome: Outcome, upstreams: &Upstreams) {
        let call = &self.calls[&id].call;
        let claims = !matches!(outcome, Outcome::Succeeded | Outcome::Unknown);
        let speaks_for_all = match call.accepted.plan.repeat {
            Repeat::Never => false,
            Repeat::Keyed => call.answer.as_ref().is_some_and(|answer| {
                answer.kind == AnswerKind::ToolError
                    && !call.accepted.plan.retry.matches(&answer.text.value())
            }),
            Repeat::Safe => true,
        };
        if claims && !speaks_for_all {
            let harmless = upstreams.of(id).all(|sent| sent.truth == Truth::Never);
            self.expect(10, harmless, || format!("{id} is called {outcome:?}, and may execute"));
        }
    }

    /// The live state of a call is the fold of what is durable, as far as it has been acknowledged.
    pub(crate) fn same(&mut self, live: &Call, acknowledged: u32) {
        let counted = live.entries == acknowledged;
        self.expect(8, counted, || format!("{} has {acknowledged} entries, not {}", live.id, live.entries));
        let Some(mirror) = self.calls.get(&live.id) else { return };
        if mirror.call.entries == live.entries {
            let same = same_call(live, &mirror.call);
            self.expect(8, same, || format!("{} is not what the journal says", live.id));
        }
    }

    /// What was heard is still true, and the state is still the fold.
    pub(crate) fn after_crash(&mut self, journal: &Memory) {
        self.submitted.clear();
        for id in self.calls.keys().copied().collect::<Vec<_>>() {
            let history = journal.history(id).expect("the journal is open");
            let folded = Call::fold(&history).ok().flatten();
            let Some(folded) = folded else {
                self.expect(4, false, || format!("{id} is gone"));
                continue;
            };
            let same = same_call(&folded, &self.calls[&id].call);
            self.expect(8, same, || format!("{id} is folded in two ways"));
            if let Some(end) = self.heard.get(&id).cloned() {
                let kept = folded.state == State::Done(end.outcome) && folded.answer == end.answer;
                self.expect(4, kept, || format!("{id}: an agent heard {end:?}, and the journal forgot it"));
            }
        }
    }

    /// Nothing will happen any more by itself.
    pub(crate) fn at_rest(&mut self, journal: &Memory, waiting: Option<usize>) {
        self.after_crash(journal);
        self.expect(2, waiting.is_none(), || format!("agent {waiting:?} still waits for an answer"));
        for id in journal.unfinished().expect("the journal is open") {
            let state = self.calls[&id].call.state;
            self.expect(2, state == State::InDoubt, || format!("{id} stays {state:?} for ever"));
        }
    }
}

/// What makes two requests one effect for an upstream that deduplicates.
pub(crate) fn effect_group(id: CallId, accepted: &Accepted) -> Hash32 {
    accepted.keys.last().map_or_else(
        || {
            let mut hash = Hash32([0xcc; 32]);
            hash.0[..8].copy_from_slice(&id.bytes()[8..]);
            hash
        },
        |key| key.hash,
    )
}

/// The same, but for signs of life, which are not journaled.
pub(crate) fn same_call(a: &Call, b: &Call) -> bool {
    let b = Call { heard: a.heard, ..b.clone() };
    *a == b
}

fn deadlines(call: &Call) -> [Option<Millis>; 3] {
    [
        Some(call.deadline),
        call.hold.as_ref().map(holdfast_store::Hold::approve_by),
        call.grant.map(|grant| grant.execute_by),
    ]
}

/// Whether these people are enough for a gate: by their names alone, as the operators' table has them.
fn satisfied(gate: &Gate, voters: &[String], call: &Call) -> bool {
    let owner =
        AGENTS.iter().find(|agent| agent.0 == call.accepted.caller.principal).map_or("", |agent| agent.1);
    let counts = |voter: &&String| {
        let groups = OPERATORS.iter().find(|operator| operator.0 == voter.as_str()).map_or(&[][..], |o| o.1);
        let eligible = gate.approvers.is_empty()
            || gate.approvers.iter().any(|approver| match approver {
                Approver::Group(group) => groups.contains(&group.as_str()),
                Approver::Operator(name) => name == *voter,
            });
        eligible && (gate.self_approve == SelfApproval::Allowed || owner != voter.as_str())
    };
    let people: HashSet<_> = voters.iter().filter(counts).collect();
    people.len() >= gate.quorum as usize
}
