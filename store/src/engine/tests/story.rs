//! Tells a story to the engine and writes down what it makes of it.

use std::sync::Arc;

use holdfast_policy::{
    Absent, Approver, Failure, Gate, Happened, Pattern, Plan, Pointer, Preview, PreviewBy, Probe, Repeat,
    RuleId, SelfApproval, Template,
};

use crate::{
    Call, CallId, Hash32, Text,
    accepted::Caller,
    engine::{
        Accepted, Advance, Answer, AnswerKind, Attempt, Decider, Disposition, Edited, Effect, Entry, Event,
        Failed, Loss, Millis, Now, OldProcess, Probed, Recheck, Resolution, SlotAtOnce, Standing, Step, Then,
        Trouble, Unfit, begin, begin_decided, key_fate, step, wake,
    },
    entry::{Shown, ShownKind},
    journal::KeyFate,
    register::RememberedId,
};

/// What is approved in these stories.
pub(super) const DIGEST: Hash32 = Hash32([1; 32]);
/// What is asked after a change.
pub(super) const CHANGED: Hash32 = Hash32([2; 32]);

pub(super) struct Story {
    plan: Plan,
    disposition: Disposition,
    now: Millis,
    call: Option<Call>,
    steps: Vec<String>,
    keys: KeyFate,
}

/// The one comparison of these tests.
#[track_caller]
pub(super) fn check(story: Story, expected: &str) {
    assert_eq!(story.to_string(), expected);
}

pub(super) fn never() -> Story {
    Story::of(Repeat::Never)
}

pub(super) fn keyed() -> Story {
    Story::of(Repeat::Keyed)
}

pub(super) fn safe() -> Story {
    Story::of(Repeat::Safe)
}

/// A gate of one approver, whoever it is, with an hour for each clock.
pub(super) fn gate() -> Gate {
    Gate { approve_by_ms: HOUR, execute_by_ms: HOUR, ..Gate::for_rule(RuleId::new("ask")) }
}

pub(super) const SECOND: u64 = 1_000;
pub(super) const MINUTE: u64 = 60 * SECOND;
pub(super) const HOUR: u64 = 60 * MINUTE;

const ID: CallId = CallId(uuid::Uuid::from_u128(7));

/// Operators of these stories with their groups; `owner` owns the agent that asks.
fn groups(name: &str) -> &'static [&'static str] {
    match name {
        "ana" => &["finance"],
        "bo" => &["finance", "legal"],
        "cy" => &["legal"],
        _ => &[],
    }
}

pub(super) fn operator(name: &str) -> Decider {
    let groups = groups(name).iter().map(|&group| group.to_owned()).collect();
    Decider { name: name.into(), groups, via: "inbox".into() }
}

pub(super) fn answer(kind: AnswerKind, text: &str) -> Answer {
    let is_error = kind == AnswerKind::ToolError;
    let value = serde_json::json!({ "isError": is_error, "content": [{ "type": "text", "text": text }] });
    Answer { kind, text: Text::of(&value) }
}

impl Story {
    fn of(repeat: Repeat) -> Self {
        let mut plan = Plan { repeat, ..Plan::default() };
        plan.retry.initial_ms = 200;
        plan.retry.attempts = 3;
        plan.retry.retry_on = vec![Pattern::parse("busy").expect("a pattern")];
        Self {
            plan,
            disposition: Disposition::Allow,
            now: Millis(0),
            call: None,
            steps: Vec::new(),
            keys: KeyFate::Keep,
        }
    }

    pub(super) fn planned(mut self, change: impl FnOnce(&mut Plan)) -> Self {
        change(&mut self.plan);
        self
    }

    pub(super) fn probed(self, absent: Absent) -> Self {
        self.planned(|plan| {
            plan.probe = Some(Probe {
                tool: "look".into(),
                args: Template::parse(serde_json::json!({})).expect("a template"),
                happened: Happened { at: Pointer::parse("/done").expect("a pointer"), equals: true.into() },
                absent,
                settle_ms: 5 * MINUTE,
                answer: None,
            });
        })
    }

    /// Approvers want to see what it would do.
    pub(super) fn unseen(self) -> Self {
        self.planned(|plan| {
            let by =
                PreviewBy::DryRun { arg: Pointer::parse("/dry").expect("a pointer"), value: true.into() };
            plan.preview = Some(Preview { by, drift: Vec::new() });
        })
    }

    pub(super) fn held_for(mut self, gates: &[Gate]) -> Self {
        self.disposition = Disposition::Ask { digest: DIGEST, gates: gates.into() };
        self
    }

    /// Accepted, with the gates of [`Story::held_for`] if there are any.
    pub(super) fn asked(mut self) -> Self {
        self.start(SlotAtOnce::None);
        self
    }

    /// Held by one gate for anybody, and accepted.
    pub(super) fn held(self) -> Self {
        self.held_for(&[gate()]).asked()
    }

    /// Held, approved by `ana`, re-checked and dispatched.
    pub(super) fn approved_and_sent(self) -> Self {
        self.held().approves("ana").slot().rechecked(Recheck::Same).forget()
    }

    /// Accepted, with votes that these operators gave in advance; as any other where they are not enough.
    pub(super) fn asked_with(mut self, voters: &[&str]) -> Self {
        let vote = |(n, name): (usize, &&str)| Advance {
            remembered: RememberedId(uuid::Uuid::from_u128(n as u128)),
            by: operator(name),
            standing: if *name == "owner" { Standing::Owner } else { Standing::Other },
        };
        let votes = voters.iter().enumerate().map(vote).collect();
        let now = Now { at: self.now, dice: 0.5 };
        let Some((step, used)) = begin_decided(now, ID, &self.accepted(), votes) else { return self.asked() };
        let used: Vec<_> = used.iter().map(|id| voters[id.0.as_u128() as usize]).collect();
        self.begin(&step);
        self.steps.push(format!("by {}", used.join(" and ")));
        self
    }

    /// Accepted and dispatched at once; the story begins after that.
    pub(super) fn sent(mut self) -> Self {
        self.start(SlotAtOnce::Held);
        self.forget()
    }

    pub(super) fn sent_at_once(mut self) -> Self {
        self.start(SlotAtOnce::Held);
        self
    }

    pub(super) fn queued(mut self) -> Self {
        self.start(SlotAtOnce::None);
        self.forget()
    }

    pub(super) fn denied(mut self) -> Self {
        self.disposition = Disposition::Deny { rule: RuleId::new("no") };
        self.start(SlotAtOnce::Held);
        self
    }

    /// What came so far goes without saying.
    pub(super) fn forget(mut self) -> Self {
        self.steps.clear();
        self
    }

    fn start(&mut self, slot: SlotAtOnce) {
        let step = begin(self.accepted(), slot);
        self.begin(&step);
    }

    fn begin(&mut self, step: &Step) {
        let (first, rest) = step.append.split_first().expect("a call starts with a fact");
        let mut call = Call::begin(ID, self.now, first).expect("`Accepted` is the first fact");
        for entry in rest {
            call.apply(self.now, entry).expect("legal");
        }
        self.call = Some(call);
        self.steps.push(words(step));
    }

    pub(super) fn accepted(&self) -> Accepted {
        Accepted {
            caller: Caller { principal: "agent".into(), channel: "c".into(), client: String::new() },
            server: "bank".into(),
            identity: "bank --stdio".into(),
            tool: "refund".into(),
            definition: "hash".into(),
            arguments: Text::of(&serde_json::json!({})),
            fingerprint: Hash32([0; 32]),
            keys: Vec::new(),
            run: None,
            incarnation: None,
            extra: None,
            meta: None,
            headers: Vec::new(),
            disposition: self.disposition.clone(),
            plan: Arc::new(self.plan.clone()),
            policy: "v1".into(),
        }
    }

    pub(super) fn call(&self) -> &Call {
        self.call.as_ref().expect("the story has begun")
    }

    /// Sets the clock, in milliseconds after the beginning.
    pub(super) fn at(mut self, ms: u64) -> Self {
        self.now = Millis(ms);
        self
    }

    /// The engine hears of something, and its facts become durable.
    pub(super) fn tell(mut self, event: Event) -> Self {
        let now = Now { at: self.now, dice: 0.5 };
        let words = match step(now, self.call(), event) {
            Ok(step) => {
                self.append(&step);
                words(&step)
            }
            Err(unfit) => refusal(&unfit),
        };
        self.steps.push(words);
        self
    }

    fn append(&mut self, step: &Step) {
        if step.append.is_empty() {
            return;
        }
        let fate = key_fate(self.now, self.call(), &step.append);
        let call = self.call.as_mut().expect("the story has begun");
        for entry in &step.append {
            call.apply(self.now, entry).expect("the engine makes legal steps");
        }
        if fate == KeyFate::Release {
            self.keys = fate;
        }
    }

    pub(super) fn slot(self) -> Self {
        self.tell(Event::Slot)
    }

    pub(super) fn ticks(self) -> Self {
        self.tell(Event::Tick)
    }

    pub(super) fn restarts(self) -> Self {
        self.tell(Event::Recovered)
    }

    pub(super) fn rechecked(self, recheck: Recheck) -> Self {
        let revision = self.call().hold.as_ref().map_or(1, |hold| hold.revision);
        self.tell(Event::Rechecked { revision, recheck })
    }

    /// The re-check finds something else, to be approved by anybody.
    pub(super) fn changed(self) -> Self {
        self.rechecked(Recheck::Changed {
            reason: "drift".into(),
            digest: CHANGED,
            gates: vec![gate()],
            shown: None,
            identity: None,
        })
    }

    pub(super) fn answers(self, attempt: u32) -> Self {
        self.tell(Event::Answered(Attempt(attempt), answer(AnswerKind::Result, "done")))
    }

    pub(super) fn tool_error(self, attempt: u32, text: &str) -> Self {
        self.tell(Event::Answered(Attempt(attempt), answer(AnswerKind::ToolError, text)))
    }

    /// The attempt fails, without an answer of the upstream.
    pub(super) fn fails(self, attempt: u32, failure: Failure) -> Self {
        self.fails_with(attempt, failure, None)
    }

    pub(super) fn refused_for_good(self, attempt: u32) -> Self {
        self.fails_with(attempt, Failure::RefusedForGood, Some(answer(AnswerKind::Error, "-32602")))
    }

    pub(super) fn fails_with(self, attempt: u32, failure: Failure, answer: Option<Answer>) -> Self {
        let trouble = Trouble::new("trouble", "words");
        let failed = Failed { failure, loss: Loss::Disconnected, trouble, retry_after_ms: None, answer };
        self.tell(Event::Failed(Attempt(attempt), failed))
    }

    pub(super) fn loses_answer(self, attempt: u32) -> Self {
        self.fails(attempt, Failure::AnswerLost)
    }

    pub(super) fn approves(self, name: &str) -> Self {
        self.approves_text(name, DIGEST)
    }

    pub(super) fn approves_text(self, name: &str, digest: Hash32) -> Self {
        let standing = if name == "owner" { Standing::Owner } else { Standing::Other };
        self.tell(Event::Approve { by: operator(name), digest, standing, glass: None })
    }

    /// Approves past the gates.
    pub(super) fn breaks_glass(self, name: &str) -> Self {
        let (by, glass) = (operator(name), Some("the house burns".to_owned()));
        self.tell(Event::Approve { by, digest: DIGEST, standing: Standing::Other, glass })
    }

    pub(super) fn revokes(self, name: &str) -> Self {
        self.tell(Event::Revoke { by: operator(name), reason: "second thoughts".into() })
    }

    /// Other arguments, to be approved by anybody.
    pub(super) fn edits(self, name: &str, seen: Hash32) -> Self {
        self.tell(Event::Edit { by: operator(name), seen, edited: Box::new(edited()) })
    }

    pub(super) fn responds(self, name: &str, kind: AnswerKind) -> Self {
        self.tell(Event::Respond { by: operator(name), digest: DIGEST, answer: answer(kind, "by hand") })
    }

    /// The look at what it would do comes back.
    pub(super) fn previewed(self) -> Self {
        self.tell(Event::Previewed { shown: shown(), digest: DIGEST })
    }

    pub(super) fn rejects(self, name: &str) -> Self {
        self.tell(Event::Reject { by: operator(name), digest: Some(DIGEST), reason: "no".into() })
    }

    pub(super) fn cancels(self) -> Self {
        self.tell(Event::Cancel(Decider { name: "agent".into(), groups: Vec::new(), via: "agent".into() }))
    }

    pub(super) fn resolved(self, how: Resolution) -> Self {
        self.tell(Event::Resolve(operator("ana"), how))
    }

    pub(super) fn released(self) -> Self {
        self.tell(Event::Release(operator("ana")))
    }

    pub(super) fn probe_confirms(self) -> Self {
        self.tell(Event::Probed(Probed::Confirmed(answer(AnswerKind::Result, "done"))))
    }

    pub(super) fn probe_finds_nothing(self, old_process: OldProcess) -> Self {
        self.tell(Event::Probed(Probed::Absent { old_process }))
    }

    /// When the call wants to be woken, after the beginning.
    pub(super) fn wakes_at(&self) -> Option<u64> {
        wake(self.now, self.call()).map(|at| at.0)
    }
}

impl std::fmt::Display for Story {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} = {}", self.steps.join("; "), self.call().state.name())?;
        if self.keys == KeyFate::Release { f.write_str(" (keys free)") } else { Ok(()) }
    }
}

fn words(step: &Step) -> String {
    let facts: Vec<_> = step.append.iter().map(fact).collect();
    let effects: Vec<_> = step.then.iter().map(effect).collect();
    match (facts.is_empty(), effects.is_empty()) {
        (true, true) => "-".into(),
        (false, true) => facts.join(" "),
        (true, false) => format!("-> {}", effects.join(" ")),
        (false, false) => format!("{} -> {}", facts.join(" "), effects.join(" ")),
    }
}

fn fact(entry: &Entry) -> String {
    let followed = |then: &Then| match then {
        Then::Retry { due } => format!("retry at {}", due.0),
        Then::Doubt => "doubt".into(),
        Then::Stop => "stop".into(),
    };
    match entry {
        Entry::Approved { grant: Some(grant), .. } => format!("granted until {}", grant.execute_by.0),
        Entry::Edited { revision, .. } => format!("edited to revision {revision}"),
        Entry::Superseded { revision, .. } => format!("superseded by revision {revision}"),
        Entry::Dispatched { attempt } => format!("dispatched {}", attempt.0),
        Entry::Answered { attempt, .. } => format!("answered {}", attempt.0),
        Entry::Unexecuted { attempt, then, .. } => format!("unexecuted {}: {}", attempt.0, followed(then)),
        Entry::Lost { attempt, loss, then, .. } => {
            format!("lost {} by {loss:?}: {}", attempt.0, followed(then))
        }
        Entry::Abandoned { trouble } => format!("abandoned by {}", trouble.code),
        Entry::Expired { clock } => format!("expired {clock:?}"),
        Entry::Probed { finding, .. } => format!("probed {finding:?}"),
        Entry::Resolved { by, how } => match how {
            Resolution::Happened(_) => format!("{} says it happened", by.name),
            Resolution::NotSent => format!("{} says send again", by.name),
            Resolution::GaveUp => format!("{} gave up", by.name),
        },
        other => other.name().into(),
    }
}

fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Queue => "queue".into(),
        Effect::Recheck => "recheck".into(),
        Effect::Send(attempt) => format!("send {}", attempt.0),
        Effect::CancelUpstream(attempt) => format!("cancel {}", attempt.0),
        Effect::Preview => "preview".into(),
        Effect::Probe => "probe".into(),
    }
}

fn refusal(unfit: &Unfit) -> String {
    match unfit {
        Unfit::Stale { .. } => "stale".into(),
        Unfit::NotAnApprover => "not an approver".into(),
        Unfit::AlreadyVoted => "voted already".into(),
        Unfit::WrongState(state) => format!("not while {}", state.name()),
    }
}

/// Another amount, to be approved by anybody.
pub(super) fn edited() -> Edited {
    let arguments = Text::of(&serde_json::json!({ "amount": 5 }));
    Edited { arguments, digest: CHANGED, gates: vec![gate()], shown: None, identity: None }
}

/// What a look at the effect brought.
pub(super) fn shown() -> Shown {
    let text = Text::of(&serde_json::json!({ "fee": 1 }));
    Shown { kind: ShownKind::Preview, text, drift: Vec::new() }
}

/// A gate that asks these people.
pub(super) fn gate_of(quorum: u32, approvers: &[&str], self_approve: SelfApproval) -> Gate {
    let approvers = approvers.iter().map(|text| Approver::parse(text).expect("an approver")).collect();
    Gate { approvers, quorum, self_approve, ..gate() }
}
