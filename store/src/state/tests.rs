//! The table of legal transitions, cell by cell.

use std::sync::Arc;

use holdfast_policy::{Plan, Pointer, Preview, PreviewBy, RuleId};

use super::*;
use crate::{
    accepted::*,
    entry::*,
    fingerprint::Hash32,
    register::{Note, RememberedId},
    text::Text,
};

fn accepted(disposition: Disposition) -> Entry {
    Entry::Accepted(Box::new(Accepted {
        caller: caller(),
        server: "bank".into(),
        identity: "bank --stdio".into(),
        tool: "refund".into(),
        definition: String::new(),
        arguments: Text::of(&serde_json::json!({})),
        fingerprint: Hash32([0; 32]),
        keys: Vec::new(),
        run: None,
        incarnation: None,
        extra: None,
        meta: None,
        headers: Vec::new(),
        disposition,
        plan: Arc::new(Plan::default()),
        policy: "v1".into(),
    }))
}

fn previewing(mut entry: Entry) -> Entry {
    if let Entry::Accepted(accepted) = &mut entry {
        let by = PreviewBy::DryRun { arg: Pointer::parse("/dry").expect("a pointer"), value: true.into() };
        accepted.plan =
            Arc::new(Plan { preview: Some(Preview { by, drift: Vec::new() }), ..Plan::default() });
    }
    entry
}

fn shown() -> Shown {
    Shown { kind: ShownKind::Preview, text: Text::of(&serde_json::json!({})), drift: Vec::new() }
}

fn caller() -> Caller {
    Caller { principal: "local".into(), channel: String::new(), client: String::new() }
}

fn by() -> Decider {
    Decider { name: "ana".into(), groups: Vec::new(), via: String::new() }
}

fn answer(kind: AnswerKind) -> Answer {
    Answer { kind, text: Text::of(&serde_json::json!({})) }
}

/// One example of every kind of entry, told apart where the next state depends on what is in it.
#[expect(clippy::too_many_lines, reason = "a list")]
fn example(name: &str) -> Entry {
    let (attempt, trouble) = (Attempt(1), Trouble::new("code", "words"));
    let (retry, digest) = (Then::Retry { due: Millis(1) }, Hash32([1; 32]));
    let lost = |then| Entry::Lost { attempt, loss: Loss::Idle, trouble: trouble.clone(), then };
    let unexecuted = |then| Entry::Unexecuted { attempt, trouble: trouble.clone(), then };
    let vote = |grant, remembered| Entry::Approved {
        by: by(),
        digest,
        counts_for: vec![0],
        grant,
        glass: None,
        remembered,
    };
    let approved = |grant| vote(grant, None);
    let in_advance = |grant| vote(grant, Some(RememberedId(uuid::Uuid::nil())));
    match name {
        "accepted allow" => accepted(Disposition::Allow),
        "accepted ask" => accepted(Disposition::Ask { digest, gates: [].into() }),
        "accepted deny" => accepted(Disposition::Deny { rule: RuleId::defaults() }),
        "accepted unseen" => previewing(accepted(Disposition::Ask { digest, gates: [].into() })),
        "previewed" => Entry::Previewed { revision: 1, shown: shown(), digest },
        "revoked" => Entry::Revoked { by: by(), reason: "second thoughts".into(), unseen: false },
        "revoked unseen" => Entry::Revoked { by: by(), reason: "second thoughts".into(), unseen: true },
        "edited" => Entry::Edited {
            by: by(),
            arguments: Text::of(&serde_json::json!({})),
            revision: 2,
            digest,
            gates: Vec::new(),
            shown: Some(shown()),
            identity: None,
        },
        "responded ok" => Entry::Responded { by: by(), answer: answer(AnswerKind::Result) },
        "responded error" => Entry::Responded { by: by(), answer: answer(AnswerKind::ToolError) },
        "approved" => approved(None),
        "granted" => approved(Some(Grant { execute_by: Millis(9) })),
        "approved before" => in_advance(None),
        "granted before" => in_advance(Some(Grant { execute_by: Millis(9) })),
        "refused" => Entry::Refused { by: by(), reason: "no".into() },
        "expired" => Entry::Expired { clock: HoldClock::ApproveBy },
        "superseded" => Entry::Superseded {
            reason: "drift".into(),
            revision: 2,
            digest,
            gates: Vec::new(),
            shown: None,
            identity: None,
        },
        "dispatched" => Entry::Dispatched { attempt },
        "answered ok" => Entry::Answered { attempt, answer: answer(AnswerKind::Result), kept: None },
        "answered error" => Entry::Answered { attempt, answer: answer(AnswerKind::ToolError), kept: None },
        "again" => Entry::AnsweredAgain { attempt, answer: answer(AnswerKind::Error), kept: None },
        "unexecuted retry" => unexecuted(retry),
        "unexecuted doubt" => unexecuted(Then::Doubt),
        "unexecuted stop" => unexecuted(Then::Stop),
        "lost retry" => lost(retry),
        "lost doubt" => lost(Then::Doubt),
        "lost stop" => lost(Then::Stop),
        "probed" => Entry::Probed { finding: Finding::Unclear, message: String::new() },
        "happened" => Entry::Resolved { by: by(), how: Resolution::Happened(answer(AnswerKind::Result)) },
        "not sent" => Entry::Resolved { by: by(), how: Resolution::NotSent },
        "gave up" => Entry::Resolved { by: by(), how: Resolution::GaveUp },
        "abandoned" => Entry::Abandoned { trouble },
        "cancelled" => Entry::Cancelled { by: by() },
        "joined" => Entry::Joined { caller: caller(), source: None },
        "collected" => Entry::Collected { caller: caller() },
        "released" => Entry::Released { by: by() },
        "noted" => Entry::Noted(Box::new(Note::Forgotten {
            id: RememberedId(uuid::Uuid::nil()),
            by: by(),
            reason: "why not".into(),
        })),
        other => panic!("no example of {other:?}"),
    }
}

/// Rows: entries. Columns: the state before; in the cells the state after, `.` for "cannot follow", `=` for no change.
const TABLE: &str = "
                   | none       | previewing | asking     | approved   | ready      | in-flight  | backoff    | in-doubt   | done
  accepted allow   | ready      | .          | .          | .          | .          | .          | .          | .          | .
  accepted ask     | asking     | .          | .          | .          | .          | .          | .          | .          | .
  accepted unseen  | previewing | .          | .          | .          | .          | .          | .          | .          | .
  accepted deny    | denied     | .          | .          | .          | .          | .          | .          | .          | .
  previewed        | .          | asking     | .          | .          | .          | .          | .          | .          | .
  approved         | .          | .          | =          | .          | .          | .          | .          | .          | .
  granted          | .          | .          | approved   | .          | .          | .          | .          | .          | .
  approved before  | .          | =          | =          | .          | .          | .          | .          | .          | .
  granted before   | .          | approved   | approved   | .          | .          | .          | .          | .          | .
  revoked          | .          | .          | =          | asking     | .          | .          | asking     | .          | .
  revoked unseen   | .          | .          | .          | previewing | .          | .          | previewing | .          | .
  edited           | .          | .          | =          | .          | .          | .          | .          | .          | .
  responded ok     | .          | .          | succeeded  | .          | .          | .          | .          | .          | .
  responded error  | .          | .          | failed     | .          | .          | .          | .          | .          | .
  refused          | .          | .          | refused    | refused    | .          | .          | refused    | .          | .
  expired          | .          | .          | expired    | expired    | .          | .          | expired    | .          | .
  superseded       | .          | .          | =          | asking     | asking     | .          | asking     | .          | .
  dispatched       | .          | .          | .          | in-flight  | in-flight  | .          | in-flight  | .          | .
  answered ok      | .          | .          | succeeded  | succeeded  | succeeded  | succeeded  | succeeded  | succeeded  | .
  answered error   | .          | .          | failed     | failed     | failed     | failed     | failed     | failed     | .
  again            | .          | .          | .          | .          | .          | .          | .          | .          | =
  unexecuted retry | .          | .          | .          | .          | .          | backoff    | .          | .          | .
  unexecuted doubt | .          | .          | .          | .          | .          | in-doubt   | .          | .          | .
  unexecuted stop  | .          | .          | .          | .          | .          | failed     | .          | .          | .
  lost retry       | .          | .          | .          | .          | backoff    | backoff    | =          | .          | .
  lost doubt       | .          | .          | .          | .          | in-doubt   | in-doubt   | in-doubt   | .          | .
  lost stop        | .          | .          | .          | .          | failed     | failed     | failed     | .          | .
  probed           | .          | .          | .          | .          | .          | .          | .          | =          | .
  happened         | .          | .          | .          | .          | .          | .          | .          | succeeded  | .
  not sent         | .          | .          | .          | .          | .          | .          | .          | ready      | .
  gave up          | .          | .          | .          | .          | .          | .          | .          | unknown    | .
  abandoned        | .          | .          | .          | failed     | failed     | .          | failed     | .          | .
  cancelled        | .          | cancelled  | cancelled  | cancelled  | cancelled  | .          | cancelled  | .          | .
  joined           | .          | =          | =          | =          | =          | =          | =          | =          | =
  collected        | .          | .          | .          | .          | .          | .          | .          | .          | =
  released         | .          | .          | .          | .          | .          | .          | .          | .          | =
  noted            | .          | .          | .          | .          | .          | .          | .          | .          | .
";

fn before(column: &str) -> Vec<Option<State>> {
    match column {
        "none" => vec![None],
        "done" => State::ALL.into_iter().filter(|state| state.is_done()).map(Some).collect(),
        name => vec![Some(State::from_name(name).expect("a state's name"))],
    }
}

#[test]
fn every_cell_of_the_table() {
    let rows: Vec<Vec<&str>> =
        TABLE.trim_matches('\n').lines().map(|line| line.split('|').map(str::trim).collect()).collect();
    let (columns, rows) = rows.split_first().expect("a heading");
    let mut cells = 0;
    for row in rows {
        let entry = example(row[0]);
        for (column, expected) in columns.iter().zip(row).skip(1) {
            for state in before(column) {
                let actual = State::after(state, &entry);
                let expected = match *expected {
                    "." => Err(Illegal { state, entry: entry.name() }),
                    "=" => Ok(state.expect("an entry that changes nothing follows another")),
                    name => Ok(State::from_name(name).expect("a state's name")),
                };
                assert_eq!(actual, expected, "{} in {column} ({state:?})", row[0]);
                cells += 1;
            }
        }
    }
    // 8 columns of one state and the 7 ends of a call, for each row.
    assert_eq!(cells, rows.len() * (8 + 7));
}

#[test]
fn every_kind_of_entry_is_in_the_table() {
    let mut named: Vec<_> = TABLE
        .trim_matches('\n')
        .lines()
        .skip(1)
        .map(|line| example(line.split('|').next().expect("a first column").trim()).name())
        .collect();
    named.dedup();
    // A new kind of entry makes this match incomplete, and then the table.
    let kinds = |entry: &Entry| match entry {
        Entry::Accepted(_)
        | Entry::Previewed { .. }
        | Entry::Revoked { .. }
        | Entry::Edited { .. }
        | Entry::Responded { .. }
        | Entry::Approved { .. }
        | Entry::Refused { .. }
        | Entry::Expired { .. }
        | Entry::Superseded { .. }
        | Entry::Dispatched { .. }
        | Entry::Answered { .. }
        | Entry::AnsweredAgain { .. }
        | Entry::Unexecuted { .. }
        | Entry::Lost { .. }
        | Entry::Probed { .. }
        | Entry::Resolved { .. }
        | Entry::Abandoned { .. }
        | Entry::Cancelled { .. }
        | Entry::Joined { .. }
        | Entry::Collected { .. }
        | Entry::Released { .. }
        | Entry::Noted(_) => 22,
    };
    assert_eq!(named.len(), kinds(&example("joined")));
}

#[test]
fn names_of_states_lead_back() {
    for state in State::ALL {
        assert_eq!(State::from_name(state.name()), Some(state));
    }
    assert_eq!(State::from_name("done"), None);
}

#[test]
fn a_clock_that_runs_backwards_takes_no_time() {
    assert_eq!(Millis(5).since(Millis(9)), 0);
    assert_eq!(Millis(u64::MAX).plus(1), Millis(u64::MAX));
}
