//! Which entries become which messages, and that each sink hears each of them in spite of restarts and slow receivers.

mod delivery;

use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use holdfast_policy::{Gate, Plan, Pointer, Preview, PreviewBy};
use holdfast_store::{
    Accepted, Append, Approvable, Attempt, CallId, Caller, Claim, Decider, Digest, Disposition, Entry, Grant,
    HoldClock, KeyFate, Loss, Memory, Millis, Record, Resolution, Shown, ShownKind, State, Text, Then,
    Trouble, Urgency, fingerprint,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{
    message::{News, Notice, compose},
    outbox::Outbox,
    *,
};
use crate::config::{Reach, Secret, Way};

/// Stands in everything that must not be told.
const CANARY: &str = "canary-4711";

fn id(n: u128) -> CallId {
    CallId::from_bytes((0x0190_0000_0000_7000_8000_0000_0000_0000 + n).to_be_bytes())
}

fn text() -> Text {
    Text::parse(&format!("{{\"secret\":\"{CANARY}\"}}")).expect("JSON")
}

fn digest(revision: u32) -> Digest {
    Approvable {
        principal: "nightly",
        identity: "bank",
        tool: "transfer",
        definition: "",
        arguments: "{}",
        extra: None,
        preview: "",
        rules: &["r"],
        revision,
    }
    .digest()
}

fn accepted(plan: Plan, disposition: Disposition) -> Entry {
    Entry::Accepted(Box::new(Accepted {
        caller: Caller { principal: "nightly".into(), channel: "c".into(), client: "claude".into() },
        server: "bank".into(),
        identity: format!("bank --password {CANARY}"),
        tool: "transfer\u{202e}".into(),
        definition: String::new(),
        fingerprint: fingerprint("bank", "transfer", &text()),
        arguments: text(),
        keys: Vec::new(),
        run: None,
        incarnation: None,
        extra: None,
        meta: None,
        headers: Vec::new(),
        disposition,
        plan: Arc::new(plan),
        policy: "p".into(),
    }))
}

fn asking() -> Entry {
    accepted(Plan::default(), Disposition::Ask { digest: digest(1), gates: [Gate::default()].into() })
}

fn asking_with_preview() -> Entry {
    let arg = Pointer::parse("/dry_run").expect("a pointer");
    let preview = Preview { by: PreviewBy::DryRun { arg, value: true.into() }, drift: vec![] };
    let plan = Plan { preview: Some(preview), ..Plan::default() };
    accepted(plan, Disposition::Ask { digest: digest(1), gates: [Gate::default()].into() })
}

fn allowed() -> Entry {
    accepted(Plan::default(), Disposition::Allow)
}

fn shown() -> Shown {
    Shown { kind: ShownKind::Preview, text: text(), drift: Vec::new() }
}

fn ana() -> Decider {
    Decider { name: "ana".into(), groups: Vec::new(), via: "inbox".into() }
}

fn approved(glass: Option<&str>) -> Entry {
    Entry::Approved {
        remembered: None,
        by: ana(),
        digest: digest(1),
        counts_for: vec![0],
        grant: Some(Grant { execute_by: Millis(9_000) }),
        glass: glass.map(str::to_owned),
    }
}

fn superseded(revision: u32) -> Entry {
    Entry::Superseded {
        reason: CANARY.into(),
        revision,
        digest: digest(revision),
        gates: vec![Gate::default()],
        shown: Some(shown()),
        identity: None,
    }
}

fn edited(revision: u32) -> Entry {
    Entry::Edited {
        by: ana(),
        arguments: text(),
        revision,
        digest: digest(revision),
        gates: vec![Gate::default()],
        shown: None,
        identity: None,
    }
}

fn dispatched() -> Entry {
    Entry::Dispatched { attempt: Attempt(1) }
}

fn lost(then: Then) -> Entry {
    Entry::Lost { attempt: Attempt(1), loss: Loss::Disconnected, trouble: Trouble::new("x", CANARY), then }
}

fn history(entries: Vec<Entry>) -> Vec<Record> {
    let record =
        |(n, entry): (u32, Entry)| Record { seq: u64::from(n) + 1, call: id(1), n, at: Millis(1_000), entry };
    (0..).zip(entries).map(record).collect()
}

/// The news of a call with these entries, as `n:topic` in their order; what is no news any more is left out.
#[track_caller]
fn check(entries: Vec<Entry>, expected: &[(u32, Topic)]) {
    let history = history(entries);
    let mut told = Vec::new();
    for notice in history.iter().filter_map(Notice::of) {
        let composed = compose(notice, &history, "https://holdfast.example").expect("a history");
        let Some((topic, message)) = composed else { continue };
        let News::Call(_, about) = &message.news else { panic!("{message:?}") };
        assert_eq!(about.deadline.is_some(), topic == Topic::Held, "{message:?}");
        assert_eq!(message.id, format!("hf_{}_{}", id(1).0.simple(), notice.n));
        let [title, text] = formats::arguments(&message);
        let (_, slack) = formats::slack(&message);
        for said in [message.json(), format!("{message:?}"), title.clone(), text, slack] {
            assert!(!said.contains(CANARY), "{said}");
            assert!(!said.contains('\u{202e}'), "{said}");
        }
        told.push((notice.n, topic));
    }
    assert_eq!(told, expected);
}

#[test]
fn what_is_news() {
    use Topic::{Expired, Glass, Held, InDoubt};
    let previewed = || Entry::Previewed { revision: 1, shown: shown(), digest: digest(1) };
    let revoked = || Entry::Revoked { by: ana(), reason: CANARY.into(), unseen: false };
    let expired = || Entry::Expired { clock: HoldClock::ApproveBy };
    let settled = |how| Entry::Resolved { by: ana(), how };
    check(vec![allowed()], &[]);
    check(vec![allowed(), dispatched()], &[]);
    check(vec![asking()], &[(0, Held)]);
    // Until it is known what it would do, nobody can decide.
    check(vec![asking_with_preview()], &[]);
    check(vec![asking_with_preview(), previewed()], &[(1, Held)]);
    // The latest question is the one that is asked.
    check(vec![asking(), edited(2)], &[(1, Held)]);
    check(vec![asking(), edited(2), superseded(3)], &[(2, Held)]);
    check(vec![asking(), approved(None), superseded(2)], &[(2, Held)]);
    check(vec![asking(), approved(None), revoked()], &[(2, Held)]);
    // Decided, withdrawn, over: no question any more.
    check(vec![asking(), approved(None)], &[]);
    check(vec![asking(), Entry::Cancelled { by: ana() }], &[]);
    check(vec![asking(), Entry::Refused { by: ana(), reason: CANARY.into() }], &[]);
    check(vec![asking(), expired()], &[(1, Expired)]);
    check(vec![asking(), approved(Some(CANARY)), dispatched()], &[(1, Glass)]);
    check(vec![allowed(), dispatched(), lost(Then::Doubt)], &[(2, InDoubt)]);
    check(vec![allowed(), dispatched(), lost(Then::Retry { due: Millis(2_000) })], &[]);
    check(vec![allowed(), dispatched(), lost(Then::Doubt), settled(Resolution::GaveUp)], &[]);
    check(vec![allowed(), dispatched(), lost(Then::Doubt), settled(Resolution::NotSent)], &[]);
}

fn append(journal: &dyn Journal, call: CallId, expected: u32, entries: Vec<Entry>) {
    let (claim, keys, urgency) = (Claim::default(), KeyFate::Keep, Urgency::Now);
    let facts = Append { call, at: Millis(1_000), expected, entries, claim, keys, urgency };
    let (told, heard) = std::sync::mpsc::channel();
    journal.submit(facts, Box::new(move |done| told.send(done).expect("somebody listens")));
    heard.recv().expect("called once").expect("appended");
}

fn memory() -> (Arc<Memory>, Arc<dyn Journal>) {
    let memory = Arc::new(Memory::default());
    (memory.clone(), memory)
}

async fn open(journal: &Arc<dyn Journal>, stop: &CancellationToken) -> Outbox {
    let (watcher, mut outboxes) = outbox::open(journal, &["ops"]).await.expect("readable");
    tokio::spawn(watcher.run(stop.clone()));
    outboxes.remove(0)
}

/// The calls of the next `count` notices, each of them done.
async fn hear(outbox: &mut Outbox, count: usize) -> Vec<CallId> {
    let mut calls = Vec::new();
    for _ in 0..count {
        let notice = outbox.next().await.expect("readable").expect("not the end");
        calls.push(notice.call);
        outbox.done().await.expect("writable");
    }
    calls
}

#[tokio::test]
async fn a_new_sink_hears_what_comes_and_an_old_one_what_it_missed() {
    let (memory, journal) = memory();
    let stop = CancellationToken::new();
    // It waits since before anybody was configured to be told: that is on the page.
    append(&*journal, id(1), 0, vec![asking()]);
    let mut outbox = open(&journal, &stop).await;
    append(&*journal, id(2), 0, vec![asking()]);
    append(&*journal, id(3), 0, vec![allowed()]);
    append(&*journal, id(4), 0, vec![asking()]);
    assert_eq!(hear(&mut outbox, 1).await, [id(2)]);
    // Read, but not done: after a crash it is read again.
    let read = outbox.next().await.expect("readable").expect("not the end");
    assert_eq!(read.call, id(4));
    stop.cancel();
    drop(outbox);

    let journal: Arc<dyn Journal> = Arc::new(memory.reopen());
    append(&*journal, id(5), 0, vec![asking()]);
    let stop = CancellationToken::new();
    let mut outbox = open(&journal, &stop).await;
    assert_eq!(hear(&mut outbox, 2).await, [id(4), id(5)]);
    stop.cancel();
    assert_eq!(outbox.next().await.expect("readable"), None, "the end");
}

#[tokio::test]
async fn whoever_is_slow_reads_what_went_by() {
    let (_, journal) = memory();
    let stop = CancellationToken::new();
    let (watcher, mut outboxes) = outbox::open(&journal, &["slow", "new"]).await.expect("readable");
    let recent = watcher.recent();
    tokio::spawn(watcher.run(stop.clone()));
    let all: Vec<CallId> = (0..3_000).map(id).collect();
    for (n, call) in all.iter().enumerate() {
        append(&*journal, *call, 0, vec![if n % 2 == 0 { asking() } else { allowed() }]);
    }
    let held: Vec<CallId> = all.iter().copied().step_by(2).collect();
    for outbox in &mut outboxes {
        assert_eq!(hear(outbox, held.len()).await, held);
    }
    assert_eq!(recent.after(outboxes[0].place()), 0);
    assert_eq!((recent.after(0), recent.after(2_980)), (1_000, 10), "counted up to a limit");
    assert_eq!(journal.cursor("notify/slow").expect("readable"), Some(2_999), "where the last news was");
    stop.cancel();
}

#[tokio::test]
async fn cursors_move_on_without_news() {
    let (_, journal) = memory();
    let stop = CancellationToken::new();
    let mut outbox = open(&journal, &stop).await;
    for n in 0..2_500 {
        append(&*journal, id(n), 0, vec![allowed()]);
    }
    append(&*journal, id(9_999), 0, vec![asking()]);
    let notice = outbox.next().await.expect("readable").expect("not the end");
    assert_eq!(notice.call, id(9_999));
    let kept = journal.cursor("notify/ops").expect("readable").expect("set");
    assert!((2_000..=2_500).contains(&kept), "{kept}");
    stop.cancel();
}

fn webhook(name: &str, url: &str, reach: Reach) -> SinkConfig {
    let url = url.parse().expect("an address");
    let topics = vec![Topic::Held, Topic::InDoubt, Topic::Expired, Topic::Glass];
    let way = Way::Webhook { url, secret: Secret(vec![7; 24]) };
    SinkConfig { name: name.to_owned(), way, topics, reach }
}

/// Waits for what is bound to happen.
async fn eventually(mut done: impl FnMut() -> bool) {
    tokio::time::timeout(Duration::from_secs(20), async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it happens in time");
}

#[tokio::test]
async fn a_question_that_was_answered_meanwhile_is_not_told() {
    let down = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = down.local_addr().expect("bound");
    drop(down);
    let (_, journal) = memory();
    let sinks = [webhook("a", &format!("http://{address}/"), Reach::Any)];
    let notifier = Notifier::open(&journal, &sinks, "https://holdfast.example").await.expect("readable");
    let (board, stop) = (notifier.board(), CancellationToken::new());
    let running = tokio::spawn(notifier.run(stop.clone()));
    append(&*journal, id(1), 0, vec![asking()]);
    eventually(|| board.all()[0].state == "retrying").await;
    append(&*journal, id(1), 1, vec![Entry::Cancelled { by: ana() }]);
    eventually(|| board.all()[0].state == "ready" && board.all()[0].behind == 0).await;
    assert_eq!((board.all()[0].last_success, board.all()[0].given_up), (None, 0));
    assert_eq!(compose_now(&*journal), None);
    stop.cancel();
    running.await.expect("it ends");
}

fn compose_now(journal: &dyn Journal) -> Option<State> {
    let history = journal.history(id(1)).expect("readable");
    let notice = Notice::of(&history[0]).expect("a question");
    let (_, message) = compose(notice, &history, "").expect("a history")?;
    let News::Call(_, about) = message.news else { return None };
    Some(about.state)
}

#[tokio::test]
async fn a_program_gets_its_arguments_and_the_message() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("said");
    // The shell is the program here; of what Holdfast adds it makes arguments, not code.
    let script = format!("printf '%s\\n' \"$@\" > {0}; cat >> {0}; env | cut -d= -f1 >> {0}", file.display());
    let program = |script: String| {
        let way = Way::Command {
            program: "sh".into(),
            args: vec!["-c".into(), script, "sh".into(), "$(id)".into()],
        };
        SinkConfig { name: "a".into(), way, topics: Vec::new(), reach: Reach::Public }
    };
    assert_eq!(test(&program(script), "https://holdfast.example").await, Ok("exit code 0".to_owned()));
    let said = std::fs::read_to_string(file).expect("written");
    assert!(said.starts_with("$(id)\nHoldfast can reach you\nThis is a test"), "{said}");
    assert!(said.contains("\"type\":\"holdfast.test\""), "{said}");
    assert!(!said.contains("CARGO"), "{said}");

    let what = test(&program("echo no display >&2; exit 3".into()), "").await.expect_err("it failed");
    assert_eq!(what, "it ended with exit status: 3: no display");
    // What it leaves behind keeps nobody waiting.
    assert_eq!(test(&program("sleep 2 & exit 0".into()), "").await, Ok("exit code 0".to_owned()));
    let none = Way::Command { program: "/nowhere/notify".into(), args: Vec::new() };
    let sink = SinkConfig { name: "a".into(), way: none, topics: Vec::new(), reach: Reach::Public };
    assert!(test(&sink, "").await.expect_err("no program").contains("is it installed"));
}
