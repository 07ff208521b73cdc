//! What a seed is about: policies, calls to make, servers and how hostile the world is.

use std::sync::{Arc, LazyLock};

use holdfast_policy::{
    Absent, Approver, Gate, Happened, OnDisconnect, Pattern, Plan, Pointer, Preview, PreviewBy, Probe,
    Repeat, Retry, Reuse, RuleId, SelfApproval, Template, UpstreamKey,
};
use holdfast_store::{Accepted, Caller, Digest, Disposition, Hash32, Key, KeySource, Text};

use crate::rng::Rng;

/// Everything that is drawn before the world starts.
pub(crate) struct Scenario {
    pub(crate) intents: Vec<Intent>,
    pub(crate) asks: Vec<AskSetup>,
    pub(crate) servers: Vec<ServerSetup>,
    /// Chance of a crash at each point at which one can happen, in 1/10,000.
    pub(crate) crash_chance: u64,
    pub(crate) crashes_at_most: u32,
    /// Chance of an approver's no, in percent.
    pub(crate) rejections: u64,
    /// Whether the wall clock is ever set back.
    pub(crate) clock: WallClock,
    /// When the world stops being hostile, in real milliseconds.
    pub(crate) calm_at: u64,
    /// Longest wait of an append for others to share a commit with.
    pub(crate) group_commit_ms: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WallClock {
    Steady,
    Jumps,
}

/// One thing that agents want done: a policy's view of it.
pub(crate) struct Intent {
    pub(crate) server: usize,
    pub(crate) plan: Arc<Plan>,
    pub(crate) verdict: Verdict,
    pub(crate) gates: Vec<Gate>,
    pub(crate) digest: Digest,
    pub(crate) explicit: Key,
    pub(crate) effect: Option<Key>,
    pub(crate) arguments: [Text; 2],
    policy: Arc<str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allow,
    Ask,
    Deny,
}

/// One agent's way of asking for an intent.
pub(crate) struct AskSetup {
    pub(crate) intent: usize,
    pub(crate) agent: usize,
    pub(crate) at: u64,
    /// How often it asks at most, the first time included.
    pub(crate) tries: u32,
    pub(crate) key: Option<Key>,
    /// Index into [`Intent::arguments`]; 1 is another text under the same key.
    pub(crate) arguments: usize,
    /// How long it waits before it closes the stream; none is for ever.
    pub(crate) patience_ms: Option<u64>,
    /// When it withdraws what it asked for.
    pub(crate) cancels_at: Option<u64>,
}

pub(crate) struct ServerSetup {
    pub(crate) slots: u32,
    pub(crate) line: usize,
    pub(crate) survives: Survives,
}

/// What becomes of a server when Holdfast crashes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Survives {
    /// It lives on and its answers reach the next Holdfast (resumed streams).
    Yes,
    /// A child that dies a moment later.
    No,
}

/// Operators with their groups.
pub(crate) const OPERATORS: [(&str, &[&str]); 3] = [("ana", &["g1"]), ("bo", &["g1", "g2"]), ("cy", &["g2"])];
/// Agents with their owners.
pub(crate) const AGENTS: [(&str, &str); 3] = [("a0", "ana"), ("a1", "bo"), ("a2", "")];

static BUSY: LazyLock<Vec<Pattern>> =
    LazyLock::new(|| vec![Pattern::parse("busy").expect("a valid pattern")]);
static PROBE: LazyLock<Probe> = LazyLock::new(|| Probe {
    tool: "look".into(),
    args: Template::parse(serde_json::json!({})).expect("a valid template"),
    happened: Happened { at: Pointer::parse("/done").expect("a valid pointer"), equals: true.into() },
    absent: Absent::Hold,
    settle_ms: 0,
    answer: None,
});

static PREVIEW: LazyLock<Preview> = LazyLock::new(|| Preview {
    by: PreviewBy::DryRun { arg: Pointer::parse("/dry").expect("a valid pointer"), value: true.into() },
    drift: Vec::new(),
});

pub(crate) fn hash(kind: u8, n: u64) -> Hash32 {
    let mut bytes = [kind; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    Hash32(bytes)
}

impl Scenario {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let servers = (0..rng.between(1, 2)).map(|_| ServerSetup::draw(rng)).collect::<Vec<_>>();
        let intents = (0..rng.between(1, 3)).map(|n| Intent::draw(rng, n, servers.len())).collect::<Vec<_>>();
        let mut asks = Vec::new();
        for (place, intent) in intents.iter().enumerate() {
            for _ in 0..rng.between(1, 3) {
                asks.push(AskSetup::draw(rng, place, intent, asks.len()));
            }
        }
        Self {
            intents,
            asks,
            servers,
            crash_chance: *rng.pick(&[0, 30, 100, 300, 800]),
            crashes_at_most: rng.between(0, 6) as u32,
            rejections: *rng.pick(&[0, 5, 30]),
            clock: if rng.percent(40) { WallClock::Jumps } else { WallClock::Steady },
            calm_at: rng.between(1_500, 5_000),
            group_commit_ms: *rng.pick(&[0, 3, 20]),
        }
    }
}

impl ServerSetup {
    fn draw(rng: &mut Rng) -> Self {
        Self {
            slots: rng.between(1, 3) as u32,
            line: rng.between(1, 6) as usize,
            survives: if rng.percent(50) { Survives::Yes } else { Survives::No },
        }
    }
}

impl AskSetup {
    fn draw(rng: &mut Rng, place: usize, intent: &Intent, number: usize) -> Self {
        let fresh = Key { source: KeySource::Explicit, hash: hash(0xf0, number as u64) };
        let key = match rng.below(10) {
            0 => None,
            1 => Some(fresh),
            2 if intent.effect.is_some() => Some(fresh),
            3 if intent.effect.is_some() => None,
            _ => Some(intent.explicit),
        };
        let latest = *rng.pick(&[5, 50, 1_500]);
        Self {
            intent: place,
            agent: rng.below(3) as usize,
            at: rng.below(latest),
            tries: rng.between(1, 6) as u32,
            key,
            arguments: usize::from(rng.percent(5)),
            patience_ms: rng.percent(50).then(|| rng.between(5, 500)),
            cancels_at: rng.percent(15).then(|| rng.between(1, 2_000)),
        }
    }

    /// Every key that the call claims: the agent's own, and always the policy's.
    pub(crate) fn keys(&self, intent: &Intent) -> Vec<Key> {
        self.key.into_iter().chain(intent.effect).collect()
    }
}

impl Intent {
    fn draw(rng: &mut Rng, n: u64, servers: usize) -> Self {
        let verdict = match rng.below(20) {
            0 => Verdict::Deny,
            1..8 => Verdict::Ask,
            _ => Verdict::Allow,
        };
        let gates = (0..rng.between(1, 2)).map(|n| draw_gate(rng, n)).collect();
        let effect = rng.percent(40).then(|| Key { source: KeySource::Effect, hash: hash(0xef, n) });
        let text = |other: u64| Text::of(&serde_json::json!({ "intent": n, "other": other }));
        Self {
            server: rng.below(servers as u64) as usize,
            plan: Arc::new(draw_plan(rng)),
            verdict,
            gates: if verdict == Verdict::Ask { gates } else { Vec::new() },
            digest: hash(0xd1, n << 32),
            explicit: Key { source: KeySource::Explicit, hash: hash(0xe0, n) },
            effect,
            arguments: [text(0), text(1)],
            policy: "v1".into(),
        }
    }

    pub(crate) fn accepted(&self, ask: &AskSetup) -> Accepted {
        let disposition = match self.verdict {
            Verdict::Allow => Disposition::Allow,
            Verdict::Ask => Disposition::Ask { digest: self.digest, gates: self.gates.as_slice().into() },
            Verdict::Deny => Disposition::Deny { rule: RuleId::defaults() },
        };
        Accepted {
            caller: caller(ask.agent),
            server: self.server.to_string(),
            identity: String::new(),
            tool: String::new(),
            definition: String::new(),
            arguments: self.arguments[ask.arguments].clone(),
            fingerprint: self.fingerprint(ask),
            keys: ask.keys(self),
            run: None,
            incarnation: None,
            extra: None,
            meta: None,
            headers: Vec::new(),
            disposition,
            plan: Arc::clone(&self.plan),
            policy: Arc::clone(&self.policy),
        }
    }

    /// Which of the texts it is; the digest of an intent is unique to it.
    pub(crate) fn fingerprint(&self, ask: &AskSetup) -> Hash32 {
        let mut fingerprint = self.digest;
        fingerprint.0[31] = ask.arguments as u8;
        fingerprint
    }
}

pub(crate) fn caller(agent: usize) -> Caller {
    Caller { principal: AGENTS[agent].0.to_owned(), channel: String::new(), client: String::new() }
}

pub(crate) fn draw_gate(rng: &mut Rng, n: u64) -> Gate {
    let approvers = match rng.below(4) {
        0 => vec![Approver::Group("g1".into())],
        1 => vec![Approver::Group("g2".into()), Approver::Operator("ana".into())],
        _ => Vec::new(),
    };
    Gate {
        rule: RuleId::new(if n == 0 { "first" } else { "second" }),
        approvers,
        quorum: if rng.percent(65) { 1 } else { 2 },
        self_approve: if rng.percent(50) { SelfApproval::Allowed } else { SelfApproval::Refused },
        approve_by_ms: rng.between(200, 4_000),
        execute_by_ms: if rng.percent(30) { rng.between(1, 100) } else { rng.between(100, 3_000) },
    }
}

fn draw_plan(rng: &mut Rng) -> Plan {
    let repeat = *rng.pick(&[Repeat::Never, Repeat::Never, Repeat::Keyed, Repeat::Safe]);
    let probe = rng.percent(50).then(|| Probe {
        absent: if rng.percent(60) { Absent::Resend } else { Absent::Hold },
        settle_ms: *rng.pick(&[0, 50, 1_000]),
        ..PROBE.clone()
    });
    Plan {
        repeat,
        retry: Retry {
            attempts: rng.between(1, 4) as u32,
            initial_ms: rng.between(0, 60),
            factor: 2.0,
            cap_ms: 200,
            retry_on: BUSY.clone(),
        },
        attempt_timeout_ms: rng.between(30, 400),
        call_timeout_ms: rng.between(100, 3_000),
        queue_timeout_ms: rng.between(20, 800),
        idle_timeout_ms: rng.percent(30).then(|| rng.between(20, 200)),
        hold_wait_ms: rng.between(0, 200),
        on_disconnect: if rng.percent(25) { OnDisconnect::Cancel } else { OnDisconnect::Finish },
        reuse: if rng.percent(40) { Reuse::AfterFailure } else { Reuse::Never },
        upstream_key: (repeat == Repeat::Keyed).then(|| UpstreamKey::Meta("key".into())),
        probe,
        preview: rng.percent(30).then(|| PREVIEW.clone()),
        ..Plan::default()
    }
}
