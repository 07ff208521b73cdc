//! The page over a journal in memory, and a browser that keeps its cookies.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use holdfast_policy::{Gate, Plan, RuleId};
use holdfast_store::{
    Accepted, Answer, AnswerKind, Append, Approvable, Attempt, CallId, Caller, Chaining, Claim, Decider,
    Definition, Delivery, Digest, Disposition, Entry, Hash32, Journal, KeyFate, Loss, Memory, RememberedId,
    Resolution, Shown, ShownKind, State, Text, Then, Trouble, Urgency, fingerprint,
};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;

use super::{waiting, *};
use crate::{
    config::{Agent, Config, Operator, Role},
    driver::{DecideError, Wish},
    front::{Guard, Tokens},
    inbox::{
        Inbox, Readiness, access,
        decisions::answer_of,
        desk::{Decision, Desk, ServerHealth},
        register::RememberedView,
        router,
    },
};

mod deciding;
mod doors;
mod events;
mod looking;

const CONFIG: &str = r#"
version = 1
[[rule]]
id = "money"
effect = "ask"
tool = "transfer"
when = [{ arg = "/amount", op = "gt", value = 100 }]
"#;
const HOST: &str = "127.0.0.1:7412";
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
        Vec::new()
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

struct Desktop {
    desk: Recorder,
    page: Arc<Page>,
    router: Router,
}

fn desktop(journal: Memory, answer: Result<State, DecideError>) -> Desktop {
    let desk = Recorder { journal: Arc::new(journal), decided: Arc::default(), answer };
    let operator = |name: &str, token: &str, role: Role| Operator {
        name: name.into(),
        token_sha256: Some(access::hash(token)),
        groups: vec!["finance".into()],
        role,
        break_glass: role == Role::Admin,
    };
    let operators = vec![
        operator("vera", VIEWER, Role::Viewer),
        operator("ana", APPROVER, Role::Approver),
        operator("root", ADMIN, Role::Admin),
    ];
    let agents = vec![Agent { name: "nightly".into(), token_sha256: access::hash(AGENT), owner: None }];
    let page = Arc::new(Page::new(CancellationToken::new()));
    let router = router(Inbox {
        desk: desk.clone(),
        operators,
        agents,
        max_depth: 64,
        guard: Guard::new(HOST.parse().expect("an address"), Tokens::Required).with_pages(),
        readiness: Arc::new(Readiness::default()),
        policy: Config::read(std::path::Path::new("/holdfast.toml"), CONFIG, &|_| None)
            .expect("whole")
            .0
            .policy,
        notifications: Arc::default(),
        base: "http://127.0.0.1:7412".to_owned(),
        reloads: crate::reload::Reloads::new().0,
        over: CancellationToken::new(),
        page: page.clone(),
    });
    Desktop { desk, page, router }
}

struct Seen {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Seen {
    fn cookies(&self) -> Vec<String> {
        let all = self.headers.get_all(header::SET_COOKIE).iter();
        all.map(|cookie| cookie.to_str().expect("text").to_owned()).collect()
    }

    fn location(&self) -> &str {
        self.headers[header::LOCATION].to_str().expect("text")
    }

    /// The value of a hidden field.
    fn field(&self, name: &str) -> String {
        let marker = format!("name=\"{name}\" value=\"");
        let from =
            self.body.find(&marker).unwrap_or_else(|| panic!("no {name} in {}", self.body)) + marker.len();
        self.body[from..].split('"').next().expect("it ends").to_owned()
    }
}

/// A browser with its cookies.
struct Browser<'a> {
    desktop: &'a Desktop,
    cookies: Vec<(String, String)>,
}

impl Desktop {
    fn browser(&self) -> Browser<'_> {
        Browser { desktop: self, cookies: Vec::new() }
    }

    async fn signed_in(&self, token: &str) -> Browser<'_> {
        let mut browser = self.browser();
        let seen = browser.sign_in(token).await;
        assert_eq!(seen.status, 303, "{}", seen.body);
        browser
    }

    fn decided(&self) -> Vec<(CallId, Decider, Decision)> {
        self.desk.decided.lock().expect("no panic").clone()
    }
}

impl Browser<'_> {
    async fn send(&mut self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Seen {
        let mut request = Request::builder().method(method).uri(path).header("host", HOST);
        if !self.cookies.is_empty() {
            let all: Vec<String> =
                self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request = request.header("cookie", all.join("; "));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).expect("a request");
        let service = TowerToHyperService::new(self.desktop.router.clone());
        let (parts, body) = service.call(request).await.expect("infallible").into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let seen = Seen {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8(bytes.to_vec()).expect("text"),
        };
        for cookie in seen.cookies() {
            let (name, value) =
                cookie.split(';').next().and_then(|pair| pair.split_once('=')).expect("a pair");
            self.cookies.retain(|(known, _)| known != name);
            if !value.is_empty() {
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        seen
    }

    async fn get(&mut self, path: &str) -> Seen {
        self.send(Method::GET, path, &[], "").await
    }

    async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Seen {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.send(Method::POST, path, &FORM, &body).await
    }

    async fn sign_in(&mut self, token: &str) -> Seen {
        let csrf = self.get("/login").await.field("csrf");
        self.post("/login", &[("csrf", &csrf), ("token", token)]).await
    }
}

const FORM: [(&str, &str); 2] =
    [("content-type", "application/x-www-form-urlencoded"), ("origin", "http://127.0.0.1:7412")];

fn id(n: u128) -> CallId {
    CallId::from_bytes((0x0190_0000_0000_7000_8000_0000_0000_0000 + n).to_be_bytes())
}

fn append(journal: &dyn Journal, call: CallId, expected: u32, entries: Vec<Entry>) {
    let facts = Append {
        call,
        at: crate::driver::now(),
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

const PLAIN: &str = r#"{"amount":9007199254740993,"to":"shop"}"#;

fn digest(arguments: &str, revision: u32) -> Digest {
    Approvable {
        principal: "nightly",
        identity: "bank --ledger l",
        tool: "transfer",
        definition: "",
        arguments,
        extra: None,
        preview: "",
        rules: &["r"],
        revision,
    }
    .digest()
}

fn accepted(arguments: &str, run: Option<&str>, disposition: Disposition) -> Entry {
    let arguments = Text::parse(arguments).expect("JSON");
    Entry::Accepted(Box::new(Accepted {
        caller: Caller { principal: "nightly".into(), channel: "c".into(), client: "claude".into() },
        server: "bank".into(),
        identity: "bank --ledger l".into(),
        tool: "transfer".into(),
        definition: String::new(),
        fingerprint: fingerprint("bank --ledger l", "transfer", &arguments),
        arguments,
        keys: Vec::new(),
        run: run.map(str::to_owned),
        incarnation: None,
        extra: None,
        meta: None,
        headers: Vec::new(),
        disposition,
        plan: Arc::new(Plan::default()),
        policy: "p".into(),
    }))
}

fn asked(journal: &Memory, call: CallId, arguments: &str, run: Option<&str>) {
    let gates = vec![Gate::for_rule(RuleId::new("r"))];
    let disposition = Disposition::Ask { digest: digest(arguments, 1), gates: gates.into() };
    append(journal, call, 0, vec![accepted(arguments, run, disposition)]);
}

fn doubtful(journal: &Memory, call: CallId) {
    append(journal, call, 0, vec![accepted(PLAIN, None, Disposition::Allow)]);
    let lost = Entry::Lost {
        attempt: Attempt(1),
        loss: Loss::Disconnected,
        trouble: Trouble::new("lost", "the process ended"),
        then: Then::Doubt,
    };
    append(journal, call, 1, vec![Entry::Dispatched { attempt: Attempt(1) }, lost]);
}

fn finished(journal: &dyn Journal, call: CallId, answer: &str) {
    append(journal, call, 0, vec![accepted(PLAIN, None, Disposition::Allow)]);
    let answer = Answer { kind: AnswerKind::Result, text: Text::parse(answer).expect("JSON") };
    let answered = Entry::Answered { attempt: Attempt(1), answer, kept: None };
    append(journal, call, 1, vec![Entry::Dispatched { attempt: Attempt(1) }, answered]);
}

/// Call 0xa1: asking; 0xa2: in doubt; 0xb3: succeeded.
fn journal() -> Memory {
    let journal = Memory::new(Delivery::AtOnce, Chaining::Chained);
    asked(&journal, id(0xa1), PLAIN, Some("refunds"));
    doubtful(&journal, id(0xa2));
    finished(&journal, id(0xb3), r#"{"content":[{"type":"text","text":"done"}]}"#);
    journal
}

const PAGES: [&str; 9] = [
    "/",
    "/doubt",
    "/calls",
    "/servers",
    "/remembered",
    "/overview",
    "/calls/01900000-0000-7000-8000-0000000000a1",
    "/calls/01900000-0000-7000-8000-0000000000a2",
    "/calls/01900000-0000-7000-8000-0000000000b3",
];
