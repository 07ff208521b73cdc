//! Facts, calls and appends for tests of journals, and a way to wait for an append.

#![allow(dead_code, missing_docs, reason = "each test binary uses a part of this")]

use std::sync::{Arc, mpsc};

use holdfast_policy::{Gate, Plan, RuleId};
use holdfast_store::{
    Accepted, Answer, AnswerKind, Append, Appended, Attempt, CallId, Caller, Claim, Decider, Disposition,
    Entry, Hash32, Journal, Key, KeyFate, KeySource, Loss, Millis, Note, Position, Refusal, Remembered,
    RememberedId, Resolution, Text, Then, Trouble, Urgency, fingerprint, hash_fields,
};

/// A UUIDv7 made at `ms`, the `n`-th of that moment.
pub(crate) fn call_at(ms: u64, n: u32) -> CallId {
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
    bytes[6] = 0x70;
    bytes[8] = 0x80;
    bytes[12..].copy_from_slice(&n.to_be_bytes());
    CallId::from_bytes(bytes)
}

/// The `n`-th call of a test, made `n` milliseconds after [`EPOCH`].
pub(crate) fn call(n: u32) -> CallId {
    call_at(EPOCH + u64::from(n), n)
}

/// Some time in 2026.
pub(crate) const EPOCH: u64 = 1_790_000_000_000;

pub(crate) fn hash(name: &str) -> Hash32 {
    hash_fields("test", &[name.as_bytes()])
}

pub(crate) fn key(source: KeySource, name: &str) -> Key {
    Key { source, hash: hash(&format!("{source:?} {name}")) }
}

pub(crate) fn text(json: &str) -> Text {
    Text::parse(json).expect("a test writes JSON")
}

pub(crate) fn accepted() -> Accepted {
    let arguments = r#"{ "amount": 1.10, "charge":"ch_1" , "n": 9007199254740993 }"#;
    Accepted {
        caller: Caller { principal: "ana".into(), channel: "bridge-1".into(), client: "editor".into() },
        server: "bank".into(),
        identity: "bank --ledger /tmp/ledger".into(),
        tool: "refund".into(),
        definition: "sha256:0".into(),
        arguments: text(arguments),
        fingerprint: fingerprint("bank", "refund", arguments),
        keys: Vec::new(),
        run: None,
        incarnation: None,
        extra: None,
        meta: None,
        headers: Vec::new(),
        disposition: Disposition::Allow,
        plan: Arc::new(Plan::default()),
        policy: "1".into(),
    }
}

pub(crate) fn asking() -> Accepted {
    Accepted {
        disposition: Disposition::Ask { digest: hash("digest"), gates: [Gate::default()].into() },
        ..accepted()
    }
}

pub(crate) fn denied() -> Accepted {
    Accepted { disposition: Disposition::Deny { rule: RuleId::new("no") }, ..accepted() }
}

/// A decision that was remembered, the `n`-th of a test.
pub(crate) fn remembered(n: u32) -> Remembered {
    let accepted = accepted();
    Remembered {
        id: RememberedId(call(n).0),
        by: operator(),
        call: call(n),
        digest: hash("digest"),
        principal: accepted.caller.principal,
        server: accepted.server,
        identity: accepted.identity,
        tool: accepted.tool,
        definition: accepted.definition,
        gates: vec![Gate::default()],
        pins: vec![("charge".into(), text("\"ch_1\"")), ("amount".into(), text("1.10"))],
        vary: vec!["n".into()],
        uses: 3,
        expires: Millis(EPOCH + 3_600_000),
    }
}

pub(crate) fn noted(note: Note) -> Entry {
    Entry::Noted(Box::new(note))
}

pub(crate) fn defined(server: &str, tool: &str) -> Note {
    let definition = text(&format!(r#"{{"name": "{tool}", "inputSchema":{{}}}}"#));
    Note::Defined { server: server.into(), tool: tool.into(), definition }
}

pub(crate) fn changed(server: &str, tool: &str, definition: &str) -> Note {
    Note::Changed { server: server.into(), tool: tool.into(), definition: hash(definition) }
}

pub(crate) fn made(accepted: Accepted) -> Entry {
    Entry::Accepted(Box::new(accepted))
}

pub(crate) fn dispatched(attempt: u32) -> Entry {
    Entry::Dispatched { attempt: Attempt(attempt) }
}

pub(crate) fn answer(json: &str) -> Answer {
    Answer { kind: AnswerKind::Result, text: text(json) }
}

pub(crate) fn answered(attempt: u32) -> Entry {
    Entry::Answered { attempt: Attempt(attempt), answer: answer(r#"{"content":[ ]}"#), kept: None }
}

pub(crate) fn lost(attempt: u32, then: Then) -> Entry {
    let trouble = Trouble::new("answer-lost", "the connection closed");
    Entry::Lost { attempt: Attempt(attempt), loss: Loss::Disconnected, trouble, then }
}

pub(crate) fn operator() -> Decider {
    Decider { name: "ben".into(), groups: vec!["ops".into()], via: "cli".into() }
}

pub(crate) fn resolved(how: Resolution) -> Entry {
    Entry::Resolved { by: operator(), how }
}

pub(crate) fn refused() -> Entry {
    Entry::Refused { by: operator(), reason: "not today".into() }
}

pub(crate) fn joined() -> Entry {
    Entry::Joined { caller: accepted().caller, source: Some(KeySource::Explicit) }
}

/// An urgent append that keeps its keys.
pub(crate) fn append(call: CallId, at: u64, expected: u32, entries: Vec<Entry>) -> Append {
    Append {
        call,
        at: Millis(EPOCH + at),
        expected,
        entries,
        claim: Claim::default(),
        keys: KeyFate::Keep,
        urgency: Urgency::Now,
    }
}

/// A new call with these keys, dispatched at once.
pub(crate) fn fresh(n: u32, keys: Vec<Key>) -> Append {
    let mut fresh = append(call(n), n.into(), 0, vec![made(accepted()), dispatched(1)]);
    fresh.claim.keys = keys;
    fresh
}

/// A new call with a run position.
pub(crate) fn positioned(n: u32, incarnation: &str) -> Append {
    let position = Position { counter: hash(incarnation), key: hash("run") };
    let mut fresh = fresh(n, Vec::new());
    fresh.claim.position = Some(position);
    fresh
}

/// What an append came to, once somebody asks.
pub(crate) struct Pending(mpsc::Receiver<Result<Appended, Refusal>>);

impl Pending {
    pub(crate) fn wait(self) -> Result<Appended, Refusal> {
        let answer = self.0.recv().expect("`done` is always called");
        assert!(self.0.recv().is_err(), "`done` is called once");
        answer
    }
}

pub(crate) fn submit(journal: &dyn Journal, append: Append) -> Pending {
    let (send, receive) = mpsc::channel();
    journal.submit(append, Box::new(move |answer| send.send(answer).expect("the test waits for `done`")));
    Pending(receive)
}
