//! Who may do what through the API, and what the API says.

use std::sync::Mutex;

use axum::{
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use holdfast_policy::{Gate, Plan, RuleId};
use holdfast_store::{
    Accepted, Answer, AnswerKind, Append, Approvable, Attempt, CallId, Caller, Chaining, Claim, Decider,
    Definition, Delivery, Digest, Disposition, Entry, Hash32, Journal, KeyFate, Memory, Millis, RememberedId,
    Resolution, State, Text, Urgency, fingerprint,
};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    desk::{Decision, ServerHealth},
    register::RememberedView,
    *,
};
use crate::{
    driver::{DecideError, Wish},
    front::Tokens,
};

mod document;
mod doors;
mod reviews;

const VIEWER: &str = "viewer-token";
const APPROVER: &str = "approver-token";
const ADMIN: &str = "admin-token";
const AGENT: &str = "agent-token";

/// Keeps what was decided and answers as it was told to.
#[derive(Clone)]
struct Recorder {
    journal: Arc<dyn Journal>,
    decided: Arc<Mutex<Vec<(CallId, Decider, Decision)>>>,
    answer: Result<State, DecideError>,
}

impl Desk for Recorder {
    fn journal(&self) -> Arc<dyn Journal> {
        self.journal.clone()
    }

    fn servers(&self) -> Vec<ServerHealth> {
        vec![ServerHealth {
            name: "bank".into(),
            identity: "bank".into(),
            state: "connected".into(),
            since: 1,
            last_error: None,
            restarts: 0,
            oauth: None,
            stderr: Vec::new(),
        }]
    }

    fn tools(&self, _: &str) -> Option<Arc<Vec<crate::upstream::Tool>>> {
        None
    }

    fn definition(&self, _: &str, _: &str) -> Option<Definition> {
        None
    }

    fn remembered(&self) -> Vec<RememberedView> {
        Vec::new()
    }

    async fn remember(&self, _: CallId, _: Decider, _: Wish) -> Result<RememberedView, DecideError> {
        Err(DecideError::NotFound)
    }

    async fn forget(&self, _: RememberedId, _: Decider, _: String) -> Result<(), DecideError> {
        Err(DecideError::NotFound)
    }

    async fn trust(&self, _: &str, _: &str, _: Hash32, _: Decider) -> Result<(), DecideError> {
        Err(DecideError::NotFound)
    }

    async fn decide(&self, call: CallId, by: Decider, decision: Decision) -> Result<State, DecideError> {
        self.decided.lock().expect("no panic").push((call, by, decision));
        self.answer.clone()
    }
}

fn id(n: u128) -> CallId {
    CallId::from_bytes((0x0190_0000_0000_7000_8000_0000_0000_0000 + n).to_be_bytes())
}

fn append(journal: &dyn Journal, call: CallId, expected: u32, entries: Vec<Entry>) {
    let facts = Append {
        call,
        at: Millis(1_000),
        expected,
        entries,
        claim: Claim::default(),
        keys: KeyFate::Keep,
        urgency: Urgency::Now,
    };
    let (told, heard) = std::sync::mpsc::channel();
    journal.submit(facts, Box::new(move |done| told.send(done).expect("somebody listens")));
    heard.recv().expect("called once").expect("appended");
}

const ARGUMENTS: &str = r#"{"amount": 9007199254740993}"#;

fn accept(journal: &dyn Journal, call: CallId, disposition: Disposition) {
    let arguments = Text::parse(ARGUMENTS).expect("JSON");
    let accepted = Accepted {
        caller: Caller { principal: "nightly".into(), channel: "c".into(), client: "claude".into() },
        server: "bank".into(),
        identity: "bank --ledger l".into(),
        tool: "transfer".into(),
        definition: String::new(),
        fingerprint: fingerprint("bank --ledger l", "transfer", &arguments),
        arguments,
        keys: Vec::new(),
        run: None,
        incarnation: None,
        extra: None,
        meta: None,
        headers: Vec::new(),
        disposition,
        plan: Arc::new(Plan::default()),
        policy: "p".into(),
    };
    append(journal, call, 0, vec![Entry::Accepted(Box::new(accepted))]);
}

fn digest() -> Digest {
    Approvable {
        principal: "nightly",
        identity: "bank --ledger l",
        tool: "transfer",
        definition: "",
        arguments: ARGUMENTS,
        extra: None,
        preview: "",
        rules: &["r"],
        revision: 1,
    }
    .digest()
}

/// Call 0xa1: asking; 0xa2: in doubt; 0xb3: succeeded.
fn journal() -> Arc<dyn Journal> {
    let journal = Memory::new(Delivery::AtOnce, Chaining::Chained);
    let gates = vec![Gate::for_rule(RuleId::new("r"))];
    accept(&journal, id(0xa1), Disposition::Ask { digest: digest(), gates: gates.into() });
    accept(&journal, id(0xa2), Disposition::Allow);
    let lost = Entry::Lost {
        attempt: Attempt(1),
        loss: holdfast_store::Loss::Disconnected,
        trouble: holdfast_store::Trouble::new("lost", "the process ended"),
        then: holdfast_store::Then::Doubt,
    };
    append(&journal, id(0xa2), 1, vec![Entry::Dispatched { attempt: Attempt(1) }, lost]);
    accept(&journal, id(0xb3), Disposition::Allow);
    let answer = Answer { kind: AnswerKind::Result, text: Text::parse("{}").expect("JSON") };
    let answered = Entry::Answered { attempt: Attempt(1), answer, kept: None };
    append(&journal, id(0xb3), 1, vec![Entry::Dispatched { attempt: Attempt(1) }, answered]);
    Arc::new(journal)
}

struct Office {
    desk: Recorder,
    readiness: Arc<Readiness>,
    router: Router,
}

fn office(answer: Result<State, DecideError>) -> Office {
    let desk = Recorder { journal: journal(), decided: Arc::default(), answer };
    let operator = |name: &str, token: &str, role: Role| Operator {
        name: name.into(),
        token_sha256: Some(access::hash(token)),
        groups: vec!["finance".into()],
        role,
        break_glass: false,
    };
    let operators = vec![
        operator("vera", VIEWER, Role::Viewer),
        operator("ana", APPROVER, Role::Approver),
        operator("root", ADMIN, Role::Admin),
    ];
    let agents = vec![Agent { name: "nightly".into(), token_sha256: access::hash(AGENT), owner: None }];
    let guard = Guard::new("127.0.0.1:7412".parse().expect("an address"), Tokens::Required);
    let readiness = Arc::new(Readiness::default());
    let router = router(Inbox {
        desk: desk.clone(),
        operators,
        agents,
        max_depth: 64,
        guard,
        readiness: readiness.clone(),
        policy: policy(),
        notifications: Arc::default(),
        base: "http://127.0.0.1:7412".to_owned(),
        reloads: crate::reload::Reloads::new().0,
        over: CancellationToken::new(),
        page: Arc::new(Page::new(CancellationToken::new())),
    });
    Office { desk, readiness, router }
}

fn policy() -> Arc<Policy> {
    let file = std::path::Path::new("/holdfast.toml");
    crate::config::Config::read(file, "version = 1\n", &|_| None).expect("a whole configuration").0.policy
}

struct Heard {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Office {
    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Heard {
        let mut request = Request::builder().method(method).uri(path);
        if headers.iter().all(|(name, _)| *name != "host") {
            request = request.header("host", "127.0.0.1:7412");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let asked = request.method_ref().cloned().unwrap_or_default();
        let request = request.body(Body::from(body.to_owned())).expect("a request");
        let response = TowerToHyperService::new(self.router.clone()).call(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let heard = Heard { status: parts.status, headers: parts.headers, body };
        document::check(&asked, path, &heard);
        heard
    }

    async fn get(&self, path: &str) -> Heard {
        self.send(Method::GET, path, &[("authorization", &format!("Bearer {VIEWER}"))], "").await
    }

    async fn post(&self, token: &str, path: &str, body: &str) -> Heard {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.send(Method::POST, path, &headers, body).await
    }

    fn decided(&self) -> usize {
        self.desk.decided.lock().expect("no panic").len()
    }
}

#[tokio::test]
async fn decisions_carry_who_and_what() {
    let office = office(Ok(State::Approved));
    let heard = office
        .post(
            APPROVER,
            &format!("/api/v1/calls/{}/approve", id(0xa1)),
            &json!({ "digest": digest() }).to_string(),
        )
        .await;
    assert_eq!(heard.body, json!({ "call": id(0xa1), "state": "approved" }));
    let body =
        r#"{"happened": {"content": [{"type":"text","text":"no"}], "isError": true, "n": 9007199254740993}}"#;
    // The end of an id is enough.
    office.post(APPROVER, "/api/v1/calls/00a2/resolve", body).await;
    office.post(APPROVER, "/api/v1/calls/00a2/resolve", r#"{"happened": {"id": 7}}"#).await;
    let decided = office.desk.decided.lock().expect("no panic").clone();
    let (call, by, decision) = &decided[0];
    assert_eq!((call, by.name.as_str(), by.via.as_str()), (&id(0xa1), "ana", "api"));
    assert_eq!((by.groups.as_slice(), decision), (&["finance".to_owned()][..], &Decision::Approve(digest())));
    let Decision::Resolve(Resolution::Happened(answer)) = &decided[1].2 else { panic!("{decided:?}") };
    assert_eq!((decided[1].0, answer.kind), (id(0xa2), AnswerKind::ToolError));
    assert!(answer.text.contains("9007199254740993"), "the text was changed: {:?}", answer.text);
    let Decision::Resolve(Resolution::Happened(answer)) = &decided[2].2 else { panic!("{decided:?}") };
    assert_eq!(answer.text.value()["structuredContent"], json!({ "id": 7 }));
}

#[tokio::test]
async fn bodies_that_leave_something_open_decide_nothing() {
    let office = office(Ok(State::Approved));
    let bodies = [
        ("approve", ""),
        ("approve", "{}"),
        ("approve", r#"{"digest":"abc"}"#),
        ("approve", r#"{"digest":null}"#),
        ("reject", r#"{"reason":"no"}"#),
        ("resolve", "{}"),
        ("resolve", r#"{"not_sent":true,"give_up":true}"#),
        ("resolve", r#"{"happened":1,"give_up":true}"#),
        ("resolve", r#"{"not_sent":"yes"}"#),
        ("cancel", r#"{"why":"x"}"#),
    ];
    for (what, body) in bodies {
        let heard = office.post(ADMIN, &format!("/api/v1/calls/{}/{what}", id(0xa1)), body).await;
        assert_eq!(
            (heard.status.as_u16(), &heard.body["code"]),
            (400, &json!("bad-request")),
            "{what} {body}"
        );
    }
    let bearer = format!("Bearer {ADMIN}");
    let form = [("authorization", bearer.as_str()), ("content-type", "text/plain")];
    let path = format!("/api/v1/calls/{}/approve", id(0xa1));
    let heard = office.send(Method::POST, &path, &form, &json!({ "digest": digest() }).to_string()).await;
    assert_eq!((heard.status.as_u16(), &heard.body["code"]), (415, &json!("bad-request")));
    let large = format!("{{\"digest\": \"{}\"}}", "0".repeat(3 << 20));
    let heard = office.post(ADMIN, &path, &large).await;
    assert_eq!((heard.status.as_u16(), &heard.body["code"]), (413, &json!("body-too-large")));
    assert_eq!(office.decided(), 0);
}

#[tokio::test]
async fn refused_decisions_say_why() {
    let check = async |error: DecideError, status: u16, code: &str| {
        let office = office(Err(error));
        let body = json!({ "digest": digest() }).to_string();
        let heard = office.post(APPROVER, &format!("/api/v1/calls/{}/approve", id(0xa1)), &body).await;
        assert_eq!(
            (heard.status.as_u16(), heard.body["code"].as_str()),
            (status, Some(code)),
            "{}",
            heard.body
        );
        heard.body
    };
    let stale = check(DecideError::Stale { digest: Some(digest()) }, 409, "approval-invalid").await;
    assert_eq!(stale["details"]["digest"], json!(digest()));
    check(DecideError::NotFound, 404, "not-found").await;
    check(DecideError::NotAllowed("not in a group".into()), 403, "forbidden").await;
    check(DecideError::Illegal("it is succeeded".into()), 409, "not-now").await;
    check(DecideError::Journal("disk full".into()), 503, "journal-unavailable").await;
}

#[tokio::test]
async fn calls_are_listed_by_filter_and_page() {
    let office = office(Ok(State::Approved));
    let ids = async |query: &str| {
        let heard = office.get(&format!("/api/v1/calls?{query}")).await;
        assert_eq!(heard.status, 200, "{query}: {}", heard.body);
        let calls = heard.body["calls"].as_array().expect("a list").clone();
        (calls.iter().map(|call| call["call"].clone()).collect::<Vec<_>>(), heard.body["next"].clone())
    };
    let all = [0xb3, 0xa2, 0xa1].map(|n| json!(id(n)));
    assert_eq!(ids("").await, (all.to_vec(), Value::Null));
    assert_eq!(ids("limit=2").await, (all[..2].to_vec(), json!(id(0xa2))));
    assert_eq!(ids(&format!("limit=2&before={}", id(0xa2))).await.0, all[2..]);
    assert_eq!(ids("state=asking,in-doubt").await.0, all[1..]);
    assert_eq!(ids("tool=other").await.0, Vec::<Value>::new());
    assert_eq!(ids("since=1001").await.0, Vec::<Value>::new());
    for bad in ["state=sleeping", "since=yesterday", "before=abc", "limit=x", "sort=up"] {
        let heard = office.get(&format!("/api/v1/calls?{bad}")).await;
        assert_eq!((heard.status.as_u16(), &heard.body["code"]), (400, &json!("bad-request")), "{bad}");
    }
}

#[tokio::test]
async fn one_call_whole() {
    let office = office(Ok(State::Approved));
    let heard = office.get("/api/v1/calls/00a1").await;
    assert_eq!(heard.body["hold"]["digest"], json!(digest()));
    assert_eq!(
        heard.body["records"][0]["entry"]["accepted"]["arguments"].to_string(),
        r#"{"amount":9007199254740993}"#
    );
    assert_eq!(office.get(&format!("/api/v1/calls/{}", id(0xb3))).await.body["hold"], Value::Null);
    for (id, status) in
        [("ffff", 404), ("0190", 409), ("abc", 400), ("zzzz", 400), (&id(0xff).to_string(), 404)]
    {
        assert_eq!(office.get(&format!("/api/v1/calls/{id}")).await.status.as_u16(), status, "{id}");
    }
}

#[tokio::test]
async fn what_waits_for_a_person() {
    let office = office(Ok(State::Approved));
    let heard = office.get("/api/v1/pending").await;
    let [asking, doubtful] = heard.body["pending"].as_array().expect("a list").as_slice() else {
        panic!("{}", heard.body)
    };
    assert_eq!((&asking["call"]["call"], &asking["hold"]["digest"]), (&json!(id(0xa1)), &json!(digest())));
    assert_eq!(asking["arguments"], ARGUMENTS, "the text, byte for byte");
    assert_eq!(
        (&doubtful["call"]["state"], &doubtful["trouble"]),
        (&json!("in-doubt"), &json!("the process ended"))
    );
    assert_eq!(heard.body["next"], Value::Null);
    let page = async |query: &str| {
        let heard = office.get(&format!("/api/v1/pending?{query}")).await;
        let pending = heard.body["pending"].as_array().cloned().unwrap_or_default();
        let calls: Vec<Value> = pending.iter().map(|waiting| waiting["call"]["call"].clone()).collect();
        (heard.status.as_u16(), calls, heard.body["next"].clone())
    };
    assert_eq!(page("limit=1").await, (200, vec![json!(id(0xa1))], json!(id(0xa1))));
    assert_eq!(page(&format!("limit=1&after={}", id(0xa1))).await, (200, vec![json!(id(0xa2))], Value::Null));
    assert_eq!(page(&format!("after={}", id(0xa2))).await, (200, Vec::new(), Value::Null));
    for bad in ["after=abc", "limit=x", "before=1"] {
        assert_eq!(page(bad).await.0, 400, "{bad}");
    }
}

#[tokio::test]
async fn health_readiness_and_the_chain() {
    let office = office(Ok(State::Approved));
    assert_eq!(office.send(Method::GET, "/healthz", &[], "").await.status, 200);
    assert_eq!(
        office.send(Method::GET, "/readyz", &[], "").await.body,
        json!({ "ready": true, "reasons": {} })
    );
    office.readiness.missing("front", "not listening yet");
    let heard = office.send(Method::GET, "/readyz", &[], "").await;
    assert_eq!((heard.status.as_u16(), &heard.body["reasons"]["front"]), (503, &json!("not listening yet")));
    let heard = office.get("/api/v1/verify").await;
    assert_eq!((&heard.body["ok"], &heard.body["entries"]), (&json!(true), &json!(7)));
    assert_eq!(office.get("/api/v1/servers").await.body["servers"][0]["name"], "bank");
}
