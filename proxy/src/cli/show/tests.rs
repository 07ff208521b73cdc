//! The story of a call reads as it happened.

use std::sync::Arc;

use holdfast_policy::{Gate, Plan, RuleId};
use holdfast_store::{
    Attempt, CallId, Caller, Digest, Grant, Hash32, Key, Loss, Outcome, State, Summary, Text, fingerprint,
};

use super::*;
use crate::inbox::view::Vote;

fn detail(entries: Vec<Entry>) -> Detail {
    let call = CallId::from_bytes([0xab; 16]);
    let at = |n: usize| Millis(1_700_000_000_000 + 1_500 * n as u64);
    let records: Vec<Record> = entries
        .into_iter()
        .enumerate()
        .map(|(n, entry)| Record { seq: n as u64 + 1, call, n: n as u32, at: at(n), entry })
        .collect();
    let summary = Summary {
        call,
        at: at(0),
        updated: at(records.len() - 1),
        principal: "nightly".into(),
        server: "bank".into(),
        tool: "transfer".into(),
        run: None,
        state: State::Done(Outcome::Succeeded),
        attempts: 1,
        entries: records.len() as u32,
    };
    Detail { call: summary, records, hold: None }
}

fn accepted() -> Entry {
    let arguments = Text::parse("{\"to\": \"b\u{202e}ob\",\"amount\":1.50}").expect("JSON");
    Entry::Accepted(Box::new(Accepted {
        caller: Caller { principal: "nightly".into(), channel: "c1".into(), client: "claude".into() },
        server: "bank".into(),
        identity: "bank --ledger l".into(),
        tool: "transfer".into(),
        definition: String::new(),
        fingerprint: fingerprint("bank --ledger l", "transfer", &arguments),
        arguments,
        keys: vec![Key { source: KeySource::Effect, hash: Hash32([1; 32]) }],
        run: None,
        incarnation: None,
        extra: None,
        meta: None,
        headers: Vec::new(),
        disposition: Disposition::Ask {
            digest: digest(),
            gates: [Gate::for_rule(RuleId::new("large"))].into(),
        },
        plan: Arc::new(Plan { rules: vec![RuleId::new("large")], ..Plan::default() }),
        policy: "p1".into(),
    }))
}

fn digest() -> Digest {
    Hash32([2; 32])
}

fn ana() -> Decider {
    Decider { name: "ana".into(), groups: Vec::new(), via: "cli".into() }
}

#[test]
fn from_question_to_answer() {
    let answer = |text: &str| Answer { kind: AnswerKind::Result, text: Text::parse(text).expect("JSON") };
    let story = story(
        &detail(vec![
            accepted(),
            Entry::Approved {
                remembered: None,
                by: ana(),
                digest: digest(),
                counts_for: vec![0],
                grant: Some(Grant { execute_by: Millis(0) }),
                glass: None,
            },
            Entry::Dispatched { attempt: Attempt(1) },
            Entry::Lost {
                attempt: Attempt(1),
                loss: Loss::Disconnected,
                trouble: Trouble::new("disconnected", "the process ended"),
                then: Then::Doubt,
            },
            Entry::Resolved { by: ana(), how: Resolution::Happened(answer(r#"{"content":[ ]}"#)) },
            Entry::AnsweredAgain { attempt: Attempt(1), answer: answer("{}"), kept: None },
        ]),
        Millis(1_700_000_060_000),
    );
    let told: Vec<&str> = [
        "call       abababab-abab-abab-abab-abababababab",
        "tool       transfer of bank (bank --ledger l)",
        "who        nightly with claude, channel c1",
        "rules      large (policy p1); repeat never",
        "keys       effect key",
        "arguments  {\"to\": \"b\\u{202e}ob\",\"amount\":1.50}",
        "accepted: a person is asked (large)",
        "    +1.5s  approved by ana (cli): to be sent by",
        "    +1.5s  attempt 1 sent",
        "attempt 1 lost: the process ended (disconnected); nobody knows whether it happened",
        "settled by ana (cli): it happened: a result",
        "attempt 1 answered after all, for the record: a result",
        "answer     a result\n  {\"content\":[ ]}",
    ]
    .to_vec();
    let mut rest = story.as_str();
    for part in told {
        let Some(at) = rest.find(part) else { panic!("`{part}` is not told, or not there:\n{story}") };
        rest = &rest[at + part.len()..];
    }
}

#[test]
fn a_pruned_call_still_has_its_line() {
    let mut pruned = detail(vec![accepted()]);
    pruned.records.clear();
    let story = story(&pruned, pruned.call.at);
    assert!(story.contains("transfer of bank") && story.contains("pruned"), "{story}");
}

#[test]
fn the_open_question_names_digest_gates_and_deadline() {
    let mut held = detail(vec![accepted()]);
    held.hold = Some(HoldDetail {
        digest: digest(),
        revision: 2,
        gates: vec![Gate { quorum: 2, approvers: Vec::new(), ..Gate::for_rule(RuleId::new("large")) }],
        votes: vec![Vote { by: ana(), gates: vec![0] }],
        preview: None,
        earlier: None,
        approve_by: held.call.at.plus(60_000),
        execute_by: None,
    });
    let story = story(&held, held.call.at);
    for part in [
        &digest().to_string(),
        "revision 2",
        "(in 1m)",
        "2 (any approver) for rule large",
        "votes      ana (cli)",
    ] {
        assert!(story.contains(part), "`{part}` is missing:\n{story}");
    }
}
