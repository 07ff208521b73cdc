//! Large answers over a journal and a directory: told, read, proven, swept.

use std::fs;

use holdfast_store::{
    Accepted, Answer, AnswerKind, Append, Attempt, Caller, Chaining, Claim, Delivery, Disposition, KeyFate,
    Memory, Millis, Text, Urgency, fingerprint,
};

use super::*;

const MOST: u64 = 1_024;

struct Desk {
    directory: tempfile::TempDir,
    journal: Arc<Memory>,
}

impl Desk {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let journal = Arc::new(Memory::new(Delivery::AtOnce, Chaining::Chained));
        Self { directory, journal }
    }

    fn place(&self) -> Place {
        Place::Redb(self.directory.path().join("journal.redb"))
    }

    fn answers(&self) -> Answers {
        Answers::new(self.journal.clone(), &self.place())
    }

    fn files(&self) -> usize {
        let directory = self.directory.path().join("journal.redb.answers");
        fs::read_dir(directory).map_or(0, Iterator::count)
    }

    /// The call `n` of this principal is answered; gives what is told.
    async fn answer(&self, n: u8, principal: &str, text: &str) -> Answer {
        let mut entries = [answered(text)];
        let writing = self.answers().lighten(call(n), principal, MOST, &mut entries).await;
        self.append(n, entries.to_vec());
        drop(writing);
        let [Entry::Answered { answer, .. }] = entries else { unreachable!("it was put there") };
        answer
    }

    fn append(&self, n: u8, entries: Vec<Entry>) {
        let mut all = vec![Entry::Accepted(Box::new(accepted())), Entry::Dispatched { attempt: Attempt(1) }];
        all.extend(entries);
        let append = Append {
            call: call(n),
            at: Millis(1_800_000_000_000),
            expected: 0,
            entries: all,
            claim: Claim::default(),
            keys: KeyFate::Keep,
            urgency: Urgency::Now,
        };
        self.journal.submit(append, Box::new(|done| assert!(done.is_ok(), "a fresh call")));
    }
}

fn call(n: u8) -> CallId {
    CallId::from_bytes([n; 16])
}

fn accepted() -> Accepted {
    let arguments = Text::of(&json!({}));
    Accepted {
        caller: Caller { principal: "ana".into(), channel: "c".into(), client: String::new() },
        server: "bank".into(),
        identity: "bank".into(),
        tool: "export".into(),
        definition: String::new(),
        fingerprint: fingerprint("bank", "export", &arguments),
        arguments,
        keys: Vec::new(),
        run: None,
        incarnation: None,
        extra: None,
        meta: None,
        headers: Vec::new(),
        disposition: Disposition::Allow,
        plan: Arc::default(),
        policy: "p1".into(),
    }
}

fn answered(text: &str) -> Entry {
    let text = Text::of(&json!({ "content": [{ "type": "text", "text": text }] }));
    Entry::Answered { attempt: Attempt(1), answer: Answer { kind: AnswerKind::Result, text }, kept: None }
}

fn address(told: &Answer) -> String {
    let link = told.text.value()["content"].as_array().and_then(|blocks| blocks.last().cloned());
    link.and_then(|link| link["uri"].as_str().map(str::to_owned)).expect("a link")
}

fn large() -> String {
    "é".repeat(100_000)
}

#[tokio::test]
async fn what_fits_stays_as_it_is() {
    let desk = Desk::new();
    let mut entries = [answered("small")];
    assert!(desk.answers().lighten(call(1), "ana", MOST, &mut entries).await.is_none());
    assert_eq!(entries, [answered("small")]);
    assert_eq!(desk.files(), 0);
}

#[tokio::test]
async fn the_whole_is_read_by_whose_call_it_was() {
    let desk = Desk::new();
    let told = desk.answer(1, "ana", &large()).await;
    assert!(told.text.len() < 40_000);
    let uri = address(&told);
    let answers = desk.answers();
    let whole = answers.read(Reader::Principal("ana"), &uri).await.expect("hers");
    let Entry::Answered { answer, .. } = answered(&large()) else { unreachable!("it is one") };
    assert_eq!(whole.text, *answer.text);
    for (reader, uri) in [
        (Reader::Principal("bob"), uri.clone()),
        (Reader::Principal("ana"), format!("{SCHEME}{}", "0".repeat(64))),
    ] {
        assert!(matches!(answers.read(reader, &uri).await, Err(Unread::NotFound)), "{uri}");
    }
    assert!(answers.read(Reader::Operator, &uri).await.is_ok());
    for wrong in ["holdfast://answers/x", "https://a/", &format!("{uri}?x=1"), &format!("{uri}?length=0")] {
        assert!(matches!(answers.read(Reader::Operator, wrong).await, Err(Unread::NoAddress)), "{wrong}");
    }
}

#[tokio::test]
async fn parts_make_the_whole() {
    let desk = Desk::new();
    let uri = address(&desk.answer(1, "ana", &large()).await);
    let answers = desk.answers();
    let (mut whole, mut next) = (String::new(), Some(format!("{uri}?offset=0&length=12345")));
    while let Some(uri) = next {
        let part = answers.read(Reader::Principal("ana"), &uri).await.expect("hers");
        let result = part.result();
        whole += result["contents"][0]["text"].as_str().expect("text");
        let after = &result["contents"][0]["_meta"]["io.holdfast/next"];
        next = after.as_str().map(str::to_owned);
    }
    assert_eq!(whole, answers.read(Reader::Operator, &uri).await.expect("there").text);
}

#[tokio::test]
async fn alike_answers_share_a_file_until_the_last_is_forgotten() {
    let desk = Desk::new();
    let uri = address(&desk.answer(1, "ana", &large()).await);
    assert_eq!(address(&desk.answer(2, "bob", &large()).await), uri);
    assert_eq!(desk.files(), 1);
    assert_eq!(desk.answers().sweep().await.expect("a journal that works"), 0);
    let later = Millis(1_900_000_000_000);
    assert_eq!(desk.journal.prune(later, Millis(0), 1).expect("writable"), 1);
    assert_eq!(desk.answers().sweep().await.expect("a journal that works"), 0);
    assert!(desk.answers().read(Reader::Principal("ana"), &uri).await.is_err(), "hers is pruned");
    assert!(desk.answers().read(Reader::Principal("bob"), &uri).await.is_ok());
    assert_eq!(desk.journal.prune(later, Millis(0), 1).expect("writable"), 1);
    assert_eq!(desk.answers().sweep().await.expect("a journal that works"), 1);
    assert_eq!((desk.files(), desk.journal.kept(ROWS).expect("readable").len()), (0, 0));
}

#[tokio::test]
async fn what_a_kill_left_behind_goes_at_the_next_start() {
    let desk = Desk::new();
    // Killed after file and row, before the entry.
    let mut entries = [answered(&large())];
    drop(desk.answers().lighten(call(1), "ana", MOST, &mut entries).await.expect("it is large"));
    // Killed after the file.
    Files::beside(&desk.directory.path().join("journal.redb")).put("{}").expect("writable");
    let uri = address(&desk.answer(2, "ana", "x".repeat(2_000).as_str()).await);
    assert_eq!(desk.files(), 3);
    assert_eq!(desk.answers().sweep().await.expect("a journal that works"), 2);
    assert_eq!(desk.journal.kept(ROWS).expect("readable").len(), 1);
    assert!(desk.answers().read(Reader::Principal("ana"), &uri).await.is_ok());
}

#[tokio::test]
async fn the_chain_proves_the_file() {
    let desk = Desk::new();
    let uri = address(&desk.answer(1, "ana", &large()).await);
    desk.answers().verify().expect("whole");
    let hash = uri.strip_prefix(SCHEME).expect("an address");
    let file = desk.directory.path().join("journal.redb.answers").join(hash);
    fs::write(&file, "another").expect("writable");
    assert!(matches!(desk.answers().verify(), Err(VerifyError::Broken { seq: 3, .. })));
    fs::remove_file(&file).expect("writable");
    assert!(matches!(desk.answers().verify(), Err(VerifyError::Broken { seq: 3, .. })));
}

#[tokio::test]
async fn where_no_file_can_be_written_the_journal_has_it_all() {
    let desk = Desk::new();
    fs::write(desk.directory.path().join("journal.redb.answers"), "in the way").expect("writable");
    let mut entries = [answered(&large())];
    drop(desk.answers().lighten(call(1), "ana", MOST, &mut entries).await);
    assert_eq!(entries, [answered(&large())]);
}

#[test]
fn ranges_of_http() {
    let check = |header: &str, expected: Option<Range>| assert_eq!(Range::of(header), expected, "{header}");
    check("bytes=0-9", Some(Range::From(0, 10)));
    check("bytes=7-", Some(Range::From(7, u64::MAX)));
    check("bytes=-5", Some(Range::Last(5)));
    for passed_over in ["bytes=0-1,5-6", "lines=1-2", "bytes=9-0", "bytes=-", "bytes=a-b", ""] {
        check(passed_over, None);
    }
}
