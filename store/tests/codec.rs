//! Frames of every format that was ever written stay readable: one fixture of each kind of entry.

mod facts;

use std::{env, fs, path::PathBuf};

use facts::*;
use holdfast_policy::Gate;
use holdfast_store::{
    Accepted, Answer, AnswerKind, Attempt, Entry, Finding, Grant, HoldClock, JournalError, Kept, KeySource,
    Millis, Note, Resolution, Shown, ShownKind, Then, Trouble, codec, fingerprint_with,
};

/// One entry of each kind, with every optional part filled in somewhere.
fn examples() -> Vec<Entry> {
    let mut full = asking();
    full.keys = vec![key(KeySource::Transport, "t"), key(KeySource::Effect, "e")];
    full.run = Some("task-7".into());
    full.meta = Some(text(r#"{ "traceparent" : "00-1" }"#));
    full.headers = vec![("Idempotency-Key".into(), "k".into())];
    let upstream = Some(text(r#"{"code":-32603,  "message":"no"}"#));
    let trouble = Trouble { code: "upstream-error".into(), message: "the upstream said no".into(), upstream };
    let tool_error = Answer { kind: AnswerKind::ToolError, text: text(r#"{"isError":true,"content":[]}"#) };
    let due = Millis(EPOCH + 500);
    vec![
        made(full),
        Entry::Approved {
            by: operator(),
            digest: hash("digest"),
            counts_for: vec![0],
            grant: Some(Grant { execute_by: due }),
            glass: None,
            remembered: None,
        },
        refused(),
        Entry::Expired { clock: HoldClock::ApproveBy },
        Entry::Superseded {
            reason: "drift".into(),
            revision: 2,
            digest: hash("2"),
            gates: vec![Gate::default()],
            shown: None,
            identity: None,
        },
        Entry::Previewed { revision: 1, shown: shown(), digest: hash("previewed") },
        Entry::Revoked { by: operator(), reason: "second thoughts".into(), unseen: false },
        Entry::Edited {
            by: operator(),
            arguments: text(r#"{"amount" : 5.0}"#),
            revision: 2,
            digest: hash("edited"),
            gates: vec![Gate::default()],
            shown: Some(shown()),
            identity: None,
        },
        Entry::Responded { by: operator(), answer: answer("{\"content\" : []}") },
        dispatched(1),
        Entry::Answered {
            attempt: Attempt(1),
            answer: answer("{\"content\" : [ 1.0, \"\\u00e9\u{e9}\" ]}"),
            kept: None,
        },
        Entry::AnsweredAgain { attempt: Attempt(1), answer: tool_error, kept: None },
        Entry::Unexecuted { attempt: Attempt(1), trouble, then: Then::Retry { due } },
        lost(2, Then::Doubt),
        Entry::Probed { finding: Finding::Absent, message: "no such refund".into() },
        resolved(Resolution::Happened(answer("{}"))),
        Entry::Abandoned { trouble: Trouble::new("queue-timeout", "no slot in time") },
        Entry::Cancelled { by: operator() },
        joined(),
        Entry::Collected { caller: accepted().caller },
        Entry::Released { by: operator() },
        noted(Note::Remembered(remembered(1))),
        noted(Note::Forgotten { id: remembered(1).id, by: operator(), reason: "over".into() }),
        noted(defined("bank", "refund")),
        noted(changed("bank", "refund", "definition")),
        noted(Note::Trusted {
            server: "bank".into(),
            tool: "refund".into(),
            definition: text(r#"{"name": "refund", "title" : "R"}"#),
            by: operator(),
        }),
    ]
}

#[test]
fn who_decided_earlier_is_kept_with_the_vote() {
    let vote = Entry::Approved {
        by: operator(),
        digest: hash("digest"),
        counts_for: vec![0],
        grant: None,
        glass: None,
        remembered: Some(remembered(7).id),
    };
    assert_eq!(codec::decode(&codec::encode(&vote)).expect("readable"), vote);
}

#[test]
fn an_answer_in_a_file_is_kept_by_its_hash() {
    let kept = Some(Kept { sha256: hash("answer"), bytes: 5_000_000 });
    let answered = Entry::Answered { attempt: Attempt(1), answer: answer("{}"), kept };
    let frame = codec::encode(&answered);
    assert_eq!(codec::decode(&frame).expect("readable"), answered);
    let expected = format!(
        "\u{1}{{\"answered\":{{\"attempt\":1,\"answer\":{{\"kind\":\"result\",\"text\":{{}}}},\
         \"kept\":{{\"sha256\":\"{}\",\"bytes\":5000000}}}}}}",
        hash("answer")
    );
    assert_eq!(String::from_utf8_lossy(&frame), expected, "frames of this form were written");
}

#[test]
fn what_stands_beside_the_arguments_is_kept_as_it_is() {
    let extra = r#"{"org.example/b":1.50,"a" : [ 9007199254740993 ],"é":"\u00e9"}"#;
    let call = made(Accepted { extra: Some(text(extra)), ..asking() });
    let frame = codec::encode(&call);
    assert_eq!(codec::decode(&frame).expect("readable"), call);
    assert!(String::from_utf8_lossy(&frame).contains(&format!(r#""extra":{extra},"#)), "byte for byte");
}

#[test]
fn calls_that_were_accepted_before_have_nothing_beside_their_arguments() {
    let frame = fs::read(fixture("accepted")).expect("the fixture is there");
    assert!(!String::from_utf8_lossy(&frame).contains("extra"));
    let Entry::Accepted(accepted) = codec::decode(&frame).expect("readable") else { panic!("another entry") };
    assert_eq!(accepted.extra, None);
    assert_eq!(
        accepted.fingerprint,
        fingerprint_with("bank", "refund", &accepted.arguments, None),
        "what was made then is found by the same request now"
    );
}

fn shown() -> Shown {
    let drift = vec![("/balance".to_owned(), Some(text("640.0"))), ("/none".to_owned(), None)];
    Shown { kind: ShownKind::Preview, text: text(r#"{"balance" : 640.0}"#), drift }
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1").join(format!("{name}.frame"))
}

/// Frames that were written once are read for good. Where this fails, give new fields a default that is not written,
/// or begin a new version of the frame; never change a fixture of an old one. A fixture for a new kind of entry is
/// written by running this test with WRITE_MISSING_FIXTURES=1.
#[test]
fn version_1_stays_readable_and_writable() {
    for example in examples() {
        let path = fixture(example.name());
        if env::var_os("WRITE_MISSING_FIXTURES").is_some() && !path.exists() {
            fs::write(&path, codec::encode(&example)).expect("fixtures can be written");
        }
        let frame = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(frame[0], 1, "{}", path.display());
        let entry = codec::decode(&frame).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(entry.name(), example.name(), "{}", path.display());
        assert_eq!(entry, example, "{}", path.display());
        let again = codec::encode(&entry);
        assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(&frame), "{}", path.display());
    }
}

#[test]
fn every_kind_of_entry_has_a_fixture() {
    let mut kinds: Vec<_> = examples().iter().map(kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, (0..KINDS).collect::<Vec<_>>());
    let files = fs::read_dir(fixture("").parent().expect("a directory")).expect("fixtures").count();
    assert_eq!(files, KINDS);
}

const KINDS: usize = 26;

/// A new kind of entry does not compile here: give it a number, and the list above an example.
fn kind(entry: &Entry) -> usize {
    match entry {
        Entry::Accepted(_) => 0,
        Entry::Approved { .. } => 1,
        Entry::Refused { .. } => 2,
        Entry::Expired { .. } => 3,
        Entry::Superseded { .. } => 4,
        Entry::Dispatched { .. } => 5,
        Entry::Answered { .. } => 6,
        Entry::AnsweredAgain { .. } => 7,
        Entry::Unexecuted { .. } => 8,
        Entry::Lost { .. } => 9,
        Entry::Probed { .. } => 10,
        Entry::Resolved { .. } => 11,
        Entry::Abandoned { .. } => 12,
        Entry::Cancelled { .. } => 13,
        Entry::Joined { .. } => 14,
        Entry::Collected { .. } => 15,
        Entry::Released { .. } => 16,
        Entry::Previewed { .. } => 17,
        Entry::Revoked { .. } => 18,
        Entry::Edited { .. } => 19,
        Entry::Responded { .. } => 20,
        Entry::Noted(note) => match **note {
            Note::Remembered(_) => 21,
            Note::Forgotten { .. } => 22,
            Note::Defined { .. } => 23,
            Note::Changed { .. } => 24,
            Note::Trusted { .. } => 25,
        },
    }
}

#[test]
fn what_cannot_be_read_says_why() {
    let reason = |frame: &[u8]| match codec::decode(frame) {
        Err(JournalError::Unreadable(what)) => what.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(b"\x02{}"), "an entry has format 2; this version of holdfast reads 1");
    assert_eq!(reason(b""), "an entry is empty");
    let whole = codec::encode(&dispatched(1));
    for end in 1..whole.len() {
        assert!(reason(&whole[..end]).starts_with("an entry of format 1 is damaged"), "{end}");
    }
    assert!(reason(b"\x01{\"unheard-of\":{}}").contains("unheard-of"));
}
