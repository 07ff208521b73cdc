//! Who gets in, what the page shows, and what it does to what is posted.

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

#[tokio::test]
async fn only_operators_get_in() {
    let desktop = desktop(journal(), Ok(State::Approved));
    for (token, status, words) in [
        ("nobodys", 403, "nobody’s token"),
        ("", 403, "nobody’s token"),
        (AGENT, 403, "agent’s token"),
        (VIEWER, 303, ""),
        (APPROVER, 303, ""),
        (ADMIN, 303, ""),
    ] {
        let mut browser = desktop.browser();
        let seen = browser.sign_in(token).await;
        assert_eq!(seen.status.as_u16(), status, "{token}");
        assert!(seen.body.contains(words), "{token}: {}", seen.body);
        let inside = browser.get("/doubt").await;
        assert_eq!(inside.status == 200, status == 303, "{token}");
    }
}

#[tokio::test]
async fn without_a_session_nothing_is_shown() {
    let desktop = desktop(journal(), Ok(State::Approved));
    let mut browser = desktop.browser();
    for path in PAGES {
        let seen = browser.get(path).await;
        let expected = if path == "/" { 200 } else { 303 };
        assert_eq!(seen.status.as_u16(), expected, "{path}");
        assert!(!seen.body.contains("transfer"), "{path}: {}", seen.body);
    }
    let there = browser.get("/calls/00a1").await;
    assert_eq!(there.location(), "/login?next=%2Fcalls%2F00a1");
    let form = browser.get(there.location()).await;
    let fields = [("csrf", &*form.field("csrf")), ("back", &*form.field("back")), ("token", VIEWER)];
    assert_eq!(browser.post("/login", &fields).await.location(), "/calls/00a1");
    // A token or a made-up cookie is no session.
    for header in
        [("authorization", "Bearer admin-token"), ("cookie", "holdfast-7412=0000; __Host-holdfast=0000")]
    {
        let seen = desktop.browser().send(Method::GET, "/doubt", &[header], "").await;
        assert_eq!(seen.status, 303, "{header:?}");
    }
    let events = desktop.browser().send(Method::GET, "/events", &[("accept", "text/event-stream")], "").await;
    assert_eq!(events.status, 401);
}

#[tokio::test]
async fn a_link_of_another_site_goes_on_from_a_page_of_ours() {
    let desktop = desktop(journal(), Ok(State::Approved));
    let seen =
        desktop.browser().send(Method::GET, "/calls/00a1", &[("sec-fetch-site", "cross-site")], "").await;
    assert_eq!(seen.status, 200);
    assert!(seen.body.contains(r#"content="0;url=/calls/00a1""#), "{}", seen.body);
}

#[tokio::test]
async fn nobody_is_sent_elsewhere_after_signing_in() {
    let desktop = desktop(journal(), Ok(State::Approved));
    for next in
        ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:alert(1)", "/a b", ""]
    {
        let mut browser = desktop.browser();
        let csrf = browser.get("/login").await.field("csrf");
        let seen = browser.post("/login", &[("csrf", &csrf), ("token", VIEWER), ("back", next)]).await;
        assert_eq!(seen.location(), "/", "{next}");
    }
}

#[tokio::test]
async fn cookies_are_for_the_browser_and_this_site_alone() {
    let desktop = desktop(journal(), Ok(State::Approved));
    let mut browser = desktop.browser();
    let cookie = browser.sign_in(APPROVER).await.cookies().remove(0);
    assert!(cookie.starts_with("holdfast-7412="), "{cookie}");
    for part in ["Path=/", "HttpOnly", "SameSite=Strict"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Secure") && !cookie.contains("Domain"), "{cookie}");

    let https = ("x-forwarded-proto", "https");
    let mut browser = desktop.browser();
    let csrf = browser.send(Method::GET, "/login", &[https], "").await.field("csrf");
    let body = format!("csrf={csrf}&token={APPROVER}");
    let headers = [FORM[0], ("origin", "https://127.0.0.1:7412"), https];
    let cookie = browser.send(Method::POST, "/login", &headers, &body).await.cookies().remove(0);
    assert!(cookie.starts_with("__Host-holdfast=") && cookie.contains("; Secure"), "{cookie}");
    // Over plain http anybody could have set a cookie of that name.
    assert_eq!(browser.get("/doubt").await.status, 303);
    assert_eq!(browser.send(Method::GET, "/doubt", &[https], "").await.status, 200);
}

#[tokio::test]
async fn signing_out_ends_the_session() {
    let desktop = desktop(journal(), Ok(State::Approved));
    let mut browser = desktop.signed_in(APPROVER).await;
    let before = browser.cookies.clone();
    let csrf = browser.get("/").await.field("csrf");
    assert_eq!(browser.post("/logout", &[("csrf", &csrf)]).await.status, 303);
    assert_eq!(browser.get("/doubt").await.status, 303);
    browser.cookies = before;
    assert_eq!(browser.get("/doubt").await.status, 303, "a copy of the cookie is worth nothing");
}

#[tokio::test]
async fn tokens_cannot_be_guessed_fast() {
    let desktop = desktop(journal(), Ok(State::Approved));
    let mut browser = desktop.browser();
    for _ in 0..10 {
        assert_eq!(browser.sign_in("wrong").await.status, 403);
    }
    let seen = browser.sign_in(ADMIN).await;
    assert_eq!(seen.status, 429, "not even the right one is looked at");
    assert!(seen.headers.contains_key(header::RETRY_AFTER));
}

#[tokio::test]
async fn a_login_link_works_once_and_not_by_looking() {
    let desktop = desktop(journal(), Ok(State::Approved));
    let link = format!("/{}", desktop.page.login_link());
    for method in [Method::GET, Method::HEAD, Method::GET] {
        let mut scanner = desktop.browser();
        assert_eq!(scanner.send(method, &link, &[], "").await.status, 200);
        assert_eq!(scanner.get("/doubt").await.status, 303, "looking signs nobody in");
    }
    let mut browser = desktop.browser();
    let csrf = browser.get(&link).await.field("csrf");
    let stranger = desktop.browser().post(&link, &[("csrf", &csrf)]).await;
    assert_eq!(stranger.status, 403, "the form is bound to the browser that was shown it");
    assert_eq!(browser.post(&link, &[("csrf", &csrf)]).await.status, 303);
    assert_eq!(browser.get("/doubt").await.status, 200);
    let mut late = desktop.browser();
    assert_eq!(late.get(&link).await.status, 410);
    assert_eq!(browser.post(&link, &[("csrf", &csrf)]).await.status, 410);
    let newer = desktop.page.login_link();
    assert_ne!(link, format!("/{newer}"));
}

#[tokio::test]
async fn forms_of_others_decide_nothing() {
    let desktop = desktop(journal(), Ok(State::Approved));
    let mut browser = desktop.signed_in(ADMIN).await;
    let page = browser.get("/").await;
    let (csrf, shown) = (page.field("csrf"), page.field("digest"));
    let good = format!("csrf={csrf}&digest={shown}");
    let path = format!("/calls/{}/approve", id(0xa1));
    let kind = FORM[0];
    let cases: [(&[(&str, &str)], &str); 10] = [
        (&FORM, &format!("digest={shown}")),
        (&FORM, &format!("csrf=&digest={shown}")),
        (&FORM, &format!("csrf={}&digest={shown}", "0".repeat(64))),
        (&[kind, ("origin", "http://127.0.0.1:3000")], &good),
        (&[kind, ("origin", "http://localhost:7412")], &good),
        (&[kind], &good),
        (&[kind, ("sec-fetch-site", "same-site")], &good),
        (&[kind, FORM[1], ("sec-fetch-site", "cross-site")], &good),
        (&[("content-type", "text/plain"), FORM[1]], &good),
        (&[kind, ("origin", "null")], &good),
    ];
    for (headers, body) in cases {
        let seen = browser.send(Method::POST, &path, headers, body).await;
        assert_eq!(seen.status, 403, "{headers:?} {body}: {}", seen.body);
    }
    // Another session's token is none of this one's.
    let other = desktop.signed_in(ADMIN).await.get("/").await.field("csrf");
    let fields = [("csrf", other.as_str()), ("digest", &shown)];
    assert_eq!(browser.post(&path, &fields).await.status, 403);
    assert_eq!(desktop.decided(), []);
    assert_eq!(browser.send(Method::POST, &path, &FORM, &good).await.status, 303);
    assert_eq!(desktop.decided().len(), 1);
}

#[tokio::test]
async fn a_session_is_worth_nothing_to_the_api() {
    let desktop = desktop(journal(), Ok(State::Approved));
    let mut browser = desktop.signed_in(ADMIN).await;
    for path in ["/api/v1/calls", "/api/v1/pending", "/api/v1/events"] {
        assert_eq!(browser.get(path).await.status, 401, "{path}");
    }
    let path = format!("/api/v1/calls/{}/cancel", id(0xa1));
    let json = [("content-type", "application/json"), FORM[1]];
    assert_eq!(browser.send(Method::POST, &path, &json, "{}").await.status, 401);
    assert_eq!(desktop.decided(), []);
}

#[tokio::test]
async fn looking_changes_nothing_and_every_page_is_locked_down() {
    let desktop = desktop(journal(), Ok(State::Approved));
    let mut browser = desktop.signed_in(ADMIN).await;
    let before = desktop.desk.journal.tail(0, 100).expect("readable");
    let posts = ["approve", "reject", "resolve", "cancel", "release"];
    let posts: Vec<String> =
        posts.map(|what| format!("/calls/{}/{what}?digest={}", id(0xa1), digest(PLAIN, 1))).into();
    let others = ["/batch", "/logout", "/login", "/login/guess", "/nowhere"].map(str::to_owned);
    for path in PAGES.map(str::to_owned).into_iter().chain(posts).chain(others) {
        for method in [Method::GET, Method::HEAD] {
            let seen = browser.send(method.clone(), &path, &[], "").await;
            let policy = seen.headers[header::CONTENT_SECURITY_POLICY].to_str().expect("text");
            assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
            assert!(
                policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
                "{path}: {policy}"
            );
            assert_eq!(seen.headers[header::X_FRAME_OPTIONS], "DENY", "{path}");
            assert_eq!(seen.headers[header::CACHE_CONTROL], "no-store", "{path}");
        }
    }
    assert_eq!(browser.get("/").await.status, 200, "still signed in");
    assert_eq!(desktop.desk.journal.tail(0, 100).expect("readable"), before);
    assert_eq!(desktop.decided(), []);
}

#[tokio::test]
async fn nothing_on_a_page_is_inline() {
    let desktop = desktop(journal(), Ok(State::Approved));
    let mut browser = desktop.signed_in(ADMIN).await;
    for path in PAGES {
        let seen = browser.get(path).await;
        assert_eq!(seen.status, 200, "{path}");
        for inline in ["<style", " style=", "javascript:", " onclick", " onload", "http://", "https://"] {
            assert!(!seen.body.contains(inline), "{path} has {inline}");
        }
        let scripts = seen.body.matches("<script").count();
        assert_eq!((scripts, seen.body.matches("<script src=\"/assets/page-").count()), (1, 1), "{path}");
    }
    for kind in ["css", "js", "svg"] {
        let page = browser.get("/").await;
        let from = page.body.find("/assets/").expect("assets");
        assert!(from > 0);
        let start = page
            .body
            .match_indices("/assets/")
            .find(|(at, _)| page.body[*at..].split('"').next().is_some_and(|name| name.ends_with(kind)));
        let url = page.body[start.expect("one of each").0..].split('"').next().expect("it ends").to_owned();
        let asset = browser.get(&url).await;
        assert_eq!(asset.status, 200, "{url}");
        assert!(asset.headers[header::CACHE_CONTROL].to_str().expect("text").contains("immutable"));
    }
}

#[tokio::test]
async fn decisions_go_through_with_what_was_shown_and_by_whom() {
    let desktop = desktop(journal(), Ok(State::Approved));
    let mut browser = desktop.signed_in(APPROVER).await;
    let page = browser.get("/").await;
    let (csrf, shown) = (page.field("csrf"), page.field("digest"));
    assert_eq!(shown, digest(PLAIN, 1).to_string());
    let path = |what: &str| format!("/calls/{}/{what}", id(0xa1));
    let seen = browser.post(&path("approve"), &[("csrf", &csrf), ("digest", &shown), ("back", "/")]).await;
    assert!(seen.location().starts_with("/?flash="), "{}", seen.location());
    let told = browser.get(seen.location()).await;
    assert!(told.body.contains("approved. It is sent at most once"), "{}", told.body);
    assert!(browser.get(seen.location()).await.body.contains("at most once"), "looking uses nothing up");
    let fields = [("csrf", &*csrf), ("digest", &*shown), ("reason", "too much")];
    let seen = browser.post(&path("reject"), &fields).await;
    assert!(seen.location().starts_with(&format!("/calls/{}?flash=", id(0xa1))), "{}", seen.location());
    browser.post(&path("cancel"), &[("csrf", &csrf)]).await;
    let decided = desktop.decided();
    let (call, by, decision) = &decided[0];
    assert_eq!((*call, by.name.as_str(), by.via.as_str()), (id(0xa1), "ana", "inbox"));
    assert_eq!(
        (by.groups.as_slice(), decision),
        (&["finance".to_owned()][..], &Decision::Approve(digest(PLAIN, 1)))
    );
    assert_eq!(decided[1].2, Decision::Reject(digest(PLAIN, 1), "too much".into()));
    assert_eq!(decided[2].2, Decision::Cancel);
}

#[tokio::test]
async fn the_other_answers_go_through_as_well() {
    let desktop = desktop(journal(), Ok(State::Asking));
    let mut browser = desktop.signed_in(APPROVER).await;
    let page = browser.get(&format!("/calls/{}", id(0xa1))).await;
    assert!(page.body.contains("/edit\"") && page.body.contains("/respond\""), "{}", page.body);
    assert!(!page.body.contains("/break-glass\""), "that is not for everybody");
    let (csrf, shown) = (page.field("csrf"), page.field("digest"));
    let digest = digest(PLAIN, 1);
    let large = r#"{"amount":9007199254740995}"#;
    for (what, field, status, expected) in [
        (
            "edit",
            ("arguments", large),
            303,
            Some(Decision::Edit(digest, serde_json::from_str(large).expect("JSON"))),
        ),
        ("edit", ("arguments", r#"{"a":1,"a":2}"#), 303, None),
        ("edit", ("arguments", "[]"), 303, None),
        ("respond", ("answer", ""), 303, None),
        ("respond", ("answer", "no"), 303, Some(Decision::Respond(digest, answer_of(r#""no""#)))),
        ("revoke", ("reason", "a slip"), 303, Some(Decision::Revoke("a slip".into()))),
        ("break-glass", ("reason", "fire"), 403, None),
    ] {
        let before = desktop.decided().len();
        let fields = [("csrf", csrf.as_str()), ("digest", &shown), field];
        let seen = browser.post(&format!("/calls/{}/{what}", id(0xa1)), &fields).await;
        assert_eq!(seen.status.as_u16(), status, "{what} {field:?}: {}", seen.body);
        assert_eq!(
            desktop.decided().get(before).map(|(_, _, decision)| decision.clone()),
            expected,
            "{what} {field:?}"
        );
    }
    let mut root = desktop.signed_in(ADMIN).await;
    let csrf = root.get("/").await.field("csrf");
    for (reason, expected) in [(" ", None), ("fire", Some(Decision::BreakGlass(digest, "fire".into())))] {
        let before = desktop.decided().len();
        let fields = [("csrf", csrf.as_str()), ("digest", &shown), ("reason", reason)];
        root.post(&format!("/calls/{}/break-glass", id(0xa1)), &fields).await;
        assert_eq!(
            desktop.decided().get(before).map(|(_, _, decision)| decision.clone()),
            expected,
            "{reason:?}"
        );
    }
}

#[tokio::test]
async fn a_preview_is_shown_and_so_is_its_failure() {
    for (kind, text, words) in [
        (
            ShownKind::Preview,
            r#"{"structuredContent":{"balance_after":9007199254740993}}"#,
            "What it would do",
        ),
        (ShownKind::Failed, r#""the account is <b>closed</b>""#, "The preview failed"),
    ] {
        let journal = Memory::new(Delivery::AtOnce, Chaining::Chained);
        let gates = vec![Gate::for_rule(RuleId::new("r"))];
        let shown = Shown {
            kind,
            text: Text::parse(text).expect("JSON"),
            drift: vec![("/balance_after".into(), Text::parse("9007199254740993").ok())],
        };
        let edited = Entry::Edited {
            by: Decider { name: "bob".into(), groups: Vec::new(), via: "api".into() },
            arguments: Text::parse(r#"{"amount":7}"#).expect("JSON"),
            revision: 2,
            digest: digest(r#"{"amount":7}"#, 2),
            gates,
            shown: Some(shown),
            identity: None,
        };
        asked(&journal, id(1), PLAIN, None);
        append(&journal, id(1), 1, vec![edited]);
        let desktop = desktop(journal, Ok(State::Approved));
        let body = desktop.signed_in(APPROVER).await.get("/").await.body;
        assert!(
            body.contains(words) && body.contains("9007199254740993") && !body.contains("<b>closed"),
            "{body}"
        );
        assert!(
            body.contains("has changed these arguments") && body.contains("What the agent had asked for"),
            "{body}"
        );
        assert!(body.contains(r#"<span class="u">7</span>"#), "what would be sent is shown: {body}");
    }
}

#[tokio::test]
async fn what_is_in_doubt_is_settled_with_open_eyes() {
    let desktop = desktop(journal(), Ok(State::Approved));
    let mut browser = desktop.signed_in(APPROVER).await;
    let page = browser.get("/doubt").await;
    assert!(page.body.contains("the process ended"), "{}", page.body);
    let csrf = page.field("csrf");
    let path = format!("/calls/{}/resolve", id(0xa2));
    for (fields, expected) in [
        (vec![("how", "not-sent")], None),
        (vec![("how", "give-up"), ("sure", "no")], None),
        (vec![("how", "perhaps"), ("sure", "yes")], None),
        (vec![("how", "not-sent"), ("sure", "yes")], Some("NotSent")),
        (vec![("how", "give-up"), ("sure", "yes")], Some("GaveUp")),
        (vec![("how", "happened"), ("answer", "booked as 4711")], Some("booked as 4711")),
        (vec![("how", "happened"), ("answer", r#"{"id":9007199254740993}"#)], Some("9007199254740993")),
        (vec![("how", "happened")], Some("An operator has confirmed")),
    ] {
        let before = desktop.decided().len();
        let fields: Vec<_> = fields.into_iter().chain([("csrf", csrf.as_str())]).collect();
        assert_eq!(browser.post(&path, &fields).await.status, 303);
        let decided = desktop.decided();
        assert_eq!(decided.len() - before, usize::from(expected.is_some()), "{fields:?}");
        if let Some(expected) = expected {
            let Decision::Resolve(how) = &decided[before].2 else { panic!("{decided:?}") };
            let told = match how {
                Resolution::Happened(answer) => answer.text.to_string(),
                other => format!("{other:?}"),
            };
            assert!(told.contains(expected), "{told}");
        }
    }
}

#[tokio::test]
async fn who_may_only_look_sees_no_buttons_and_decides_nothing() {
    let desktop = desktop(journal(), Ok(State::Approved));
    let mut viewer = desktop.signed_in(VIEWER).await;
    for path in PAGES {
        let body = viewer.get(path).await.body;
        for form in [
            "/approve\"",
            "/reject\"",
            "/resolve\"",
            "/cancel\"",
            "/release\"",
            "/batch\"",
            "/edit\"",
            "/respond\"",
            "/revoke\"",
            "/break-glass\"",
        ] {
            assert!(!body.contains(form), "{path} offers {form}");
        }
    }
    let csrf = viewer.get("/").await.field("csrf");
    let shown = digest(PLAIN, 1).to_string();
    let pick = format!("{}:{shown}", id(0xa1));
    let fields = [
        ("csrf", &*csrf),
        ("digest", &*shown),
        ("how", "give-up"),
        ("sure", "yes"),
        ("pick", &*pick),
        ("do", "approve"),
    ];
    for what in
        ["approve", "reject", "edit", "respond", "revoke", "break-glass", "resolve", "cancel", "release"]
    {
        let seen = viewer.post(&format!("/calls/{}/{what}", id(0xa1)), &fields).await;
        assert_eq!(seen.status, 403, "{what}");
    }
    assert_eq!(viewer.post("/batch", &fields).await.status, 403);
    let mut approver = desktop.signed_in(APPROVER).await;
    let csrf = approver.get("/").await.field("csrf");
    let seen = approver.post(&format!("/calls/{}/release", id(0xb3)), &[("csrf", &csrf)]).await;
    assert_eq!(seen.status, 403, "freeing keys is for admins");
    assert_eq!(desktop.decided(), []);
}

#[tokio::test]
async fn a_digest_that_no_longer_fits_shows_what_changed() {
    let journal = journal();
    let gates = vec![Gate::for_rule(RuleId::new("r"))];
    let (first, second) = (digest(PLAIN, 1), digest(PLAIN, 2));
    let superseded = Entry::Superseded {
        reason: "the tool's definition has changed".into(),
        revision: 2,
        digest: second,
        gates,
        shown: None,
        identity: None,
    };
    append(&journal, id(0xa1), 1, vec![superseded]);
    let desktop = desktop(journal, Err(DecideError::Stale { digest: Some(second) }));
    let mut browser = desktop.signed_in(APPROVER).await;
    let csrf = browser.get("/").await.field("csrf");
    let fields = [("csrf", &*csrf), ("digest", &*first.to_string()), ("back", "/")];
    let seen = browser.post(&format!("/calls/{}/approve", id(0xa1)), &fields).await;
    assert_eq!(seen.status, 303);
    let there = browser.get(seen.location()).await;
    assert!(there.body.contains("It is not what you were shown"), "{}", there.body);
    assert!(
        there.body.contains("Asked again as revision 2: the tool&#39;s definition has changed"),
        "{}",
        there.body
    );
    assert!(there.body.contains("no longer what you were shown; nothing was decided"), "{}", there.body);
    assert_eq!(there.field("digest"), second.to_string(), "what is asked now can be decided on");
}

#[tokio::test]
async fn like_calls_are_decided_on_together_each_by_its_own_digest() {
    let journal = Memory::new(Delivery::AtOnce, Chaining::Chained);
    let arguments = |n: u32| format!(r#"{{"to":"shop","amount":{n}}}"#);
    for n in 1..=3 {
        asked(&journal, id(u128::from(n)), &arguments(n), Some("refunds"));
    }
    let desktop = desktop(journal, Ok(State::Approved));
    let mut browser = desktop.signed_in(APPROVER).await;
    let page = browser.get("/").await;
    for n in 1..=3 {
        assert!(
            page.body.contains(&format!(r#"<span class="u">{n}</span>"#)),
            "each one's arguments are shown"
        );
    }
    let csrf = page.field("csrf");
    let picks = [1, 3].map(|n| format!("{}:{}", id(u128::from(n)), digest(&arguments(n), 1)));
    assert!(picks.iter().all(|pick| page.body.contains(pick.as_str())), "{}", page.body);
    let fields = [("csrf", &*csrf), ("do", "approve"), ("pick", &*picks[0]), ("pick", &*picks[1])];
    let seen = browser.post("/batch", &fields).await;
    assert!(browser.get(seen.location()).await.body.contains("2 calls approved."));
    let decided = desktop.decided();
    assert_eq!(decided.len(), 2);
    assert_eq!((decided[0].0, &decided[0].2), (id(1), &Decision::Approve(digest(&arguments(1), 1))));
    assert_eq!((decided[1].0, &decided[1].2), (id(3), &Decision::Approve(digest(&arguments(3), 1))));
    for bad in [vec![("do", "approve"), ("pick", "x")], vec![("pick", picks[0].as_str())]] {
        let fields: Vec<_> = bad.into_iter().chain([("csrf", csrf.as_str())]).collect();
        assert_eq!(browser.post("/batch", &fields).await.status, 400);
    }
    assert_eq!(desktop.decided().len(), 2);
}

#[tokio::test]
async fn many_that_wait_are_shown_by_pages() {
    let journal = Memory::new(Delivery::AtOnce, Chaining::Chained);
    for n in 1..=120 {
        // Two runs by turns: each page is still in order, group after group.
        asked(&journal, id(n), PLAIN, Some(if n % 2 == 0 { "even" } else { "odd" }));
    }
    let mut all = Vec::new();
    for page in 1..=3 {
        let calls = waiting::on_page(&journal, page);
        assert_eq!(calls.len(), if page == 3 { 20 } else { 50 });
        all.extend(calls);
    }
    let odd = (1..=120).filter(|n| n % 2 == 1);
    let expected: Vec<CallId> = odd.chain((1..=120).filter(|n| n % 2 == 0)).map(id).collect();
    assert_eq!(all, expected);
    let desktop = desktop(journal, Ok(State::Approved));
    let page = desktop.signed_in(APPROVER).await.get("/?page=2&run=even").await;
    assert!(page.body.contains("51–60 of 60"), "{}", page.body);
}

/// A page without the values of its fields, which go back as they are and are not shown.
fn without_values(body: &str) -> String {
    let mut parts = body.split(" value=\"");
    let first = parts.next().unwrap_or_default().to_owned();
    first + &parts.map(|part| part.split_once('"').map_or("", |(_, rest)| rest)).collect::<String>()
}

/// Everything an agent can put into a call, and what must not come of it.
#[tokio::test]
async fn nothing_that_an_agent_writes_is_markup_or_hidden() {
    let payloads = [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "\"><svg/onload=alert(1)>",
        "'-alert(1)-'",
        "</textarea></title></div><b>",
        "<!--",
        "{{7*7}}${7*7}",
        "[click](javascript:alert(1))",
        "user\u{202e}gnp.exe",
        "pay\u{200b}pal p\u{430}ypal",
        "https://xn--pypal-4ve.com/",
    ];
    for payload in payloads {
        let journal = Memory::new(Delivery::AtOnce, Chaining::Chained);
        let arguments = serde_json::json!({ "note": payload, payload: 1 }).to_string();
        asked(&journal, id(1), &arguments, Some(payload));
        finished(
            &journal,
            id(2),
            &serde_json::json!({ "content": [{ "type": "text", "text": payload }] }).to_string(),
        );
        let desktop = desktop(journal, Ok(State::Approved));
        let mut browser = desktop.signed_in(ADMIN).await;
        let query = query_value(payload);
        for path in [
            "/",
            "/calls",
            &format!("/calls/{}", id(1)),
            &format!("/calls/{}", id(2)),
            &format!("/calls?q={query}&run={query}"),
        ] {
            let body = without_values(&browser.get(path).await.body);
            for bad in [
                "<script>alert",
                "<img",
                "<svg/onload",
                "</textarea></title>",
                "<b>",
                "<!--",
                "\u{202e}",
                "\u{200b}",
            ] {
                let harmless = bad == "<img" && body.matches("<img").count() == 1;
                assert!(harmless || !body.contains(bad), "{payload:?} at {path}: {bad}");
            }
        }
        let deceives = payload.contains(['\u{202e}', '\u{200b}']) || payload.contains("xn--");
        let body = browser.get("/").await.body;
        assert_eq!(body.contains("Look twice."), deceives, "{payload:?}");
    }
}

#[tokio::test]
async fn large_arguments_are_decided_on_where_all_of_them_are() {
    let journal = Memory::new(Delivery::AtOnce, Chaining::Chained);
    let arguments = format!(r#"{{"body":"{}THE END"}}"#, "x".repeat(40_000));
    asked(&journal, id(1), &arguments, None);
    let desktop = desktop(journal, Ok(State::Approved));
    let mut browser = desktop.signed_in(APPROVER).await;
    let list = browser.get("/").await.body;
    assert!(list.contains("40.0 kB of arguments") && !list.contains("/approve\""), "{list}");
    let call = browser.get(&format!("/calls/{}", id(1))).await.body;
    assert!(
        call.contains("THE END") && call.contains("38,809 more characters of 40,009"),
        "what is folded says so"
    );
    assert!(call.contains("/approve\""));
}

#[tokio::test]
async fn the_history_can_be_kept() {
    let desktop = desktop(journal(), Ok(State::Approved));
    let mut browser = desktop.signed_in(VIEWER).await;
    let seen = browser.get(&format!("/calls/{}/history.json", id(0xa1))).await;
    assert!(seen.headers[header::CONTENT_DISPOSITION].to_str().expect("text").starts_with("attachment"));
    assert!(seen.body.contains("9007199254740993"), "{}", seen.body);
    assert_eq!(browser.get(&format!("/calls/{}/history.json", id(0xff))).await.status, 404);
}

#[tokio::test]
async fn calls_are_found_by_what_they_say() {
    let desktop = desktop(journal(), Ok(State::Approved));
    let mut browser = desktop.signed_in(VIEWER).await;
    for (query, expected) in [
        ("", vec![0xb3, 0xa2, 0xa1]),
        ("q=SHOP", vec![0xb3, 0xa2, 0xa1]),
        ("q=refunds", vec![0xa1]),
        ("q=9007199254740993&state=asking", vec![0xa1]),
        ("state=open", vec![0xa2, 0xa1]),
        ("q=00a2", vec![0xa2]),
        ("agent=nobody", vec![]),
        ("run=refunds", vec![0xa1]),
        ("since=1h", vec![]),
        ("q=nowhere", vec![]),
    ] {
        let body = browser.get(&format!("/calls?{query}")).await.body;
        let shown: Vec<u128> =
            [0xb3, 0xa2, 0xa1].into_iter().filter(|n| body.contains(&format!("line-{}", id(*n)))).collect();
        // The ids of these calls are of long ago, so a time leaves nothing.
        let expected = if query == "since=1h" { shown.clone() } else { expected };
        assert_eq!(shown, expected, "{query}");
    }
}

#[tokio::test]
async fn who_went_past_the_gates_is_found() {
    let journal = journal();
    asked(&journal, id(0xc4), PLAIN, None);
    let by = Decider { name: "root".into(), groups: Vec::new(), via: "inbox".into() };
    let grant = Some(holdfast_store::Grant { execute_by: holdfast_store::Millis(9_000) });
    let (digest, glass) = (digest(PLAIN, 1), Some("the house is on fire".to_owned()));
    append(
        &journal,
        id(0xc4),
        1,
        vec![Entry::Approved { by, digest, counts_for: vec![], grant, glass, remembered: None }],
    );
    let desktop = desktop(journal, Ok(State::Approved));
    let body = desktop.signed_in(VIEWER).await.get("/calls?state=glass").await.body;
    assert!(body.contains(&format!("line-{}", id(0xc4))), "{body}");
    assert!(!body.contains(&format!("line-{}", id(0xa1))), "{body}");
}

/// What a stream of events has sent once it has sent `wanted`.
async fn heard(body: &mut Body, wanted: &str) -> String {
    let mut all = String::new();
    while !all.contains(wanted) {
        let frame = tokio::time::timeout(std::time::Duration::from_secs(10), body.frame()).await;
        let Some(frame) = frame.unwrap_or_else(|_| panic!("{wanted} did not come: {all}")) else {
            panic!("the stream has ended before {wanted}: {all}");
        };
        let data = frame.expect("no error").into_data().unwrap_or_default();
        all.push_str(std::str::from_utf8(&data).expect("text"));
    }
    all
}

impl Desktop {
    async fn stream(&self, path: &str, headers: &[(&str, &str)]) -> (StatusCode, Body) {
        let mut request =
            Request::builder().uri(path).header("host", HOST).header("accept", "text/event-stream");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).expect("a request");
        let response = TowerToHyperService::new(self.router.clone()).call(request).await.expect("infallible");
        (response.status(), response.into_body())
    }
}

#[tokio::test]
async fn programs_hear_of_every_entry_and_resume_where_they_were() {
    let desktop = desktop(journal(), Ok(State::Approved));
    let bearer = ("authorization", "Bearer viewer-token");
    let (status, mut body) = desktop.stream("/api/v1/events?since=0", &[bearer]).await;
    assert_eq!(status, 200);
    let all = heard(&mut body, "id: 7").await;
    assert_eq!(all.matches("event: ").count(), 7, "{all}");
    assert!(all.contains("event: accepted") && all.contains("event: lost"), "{all}");
    let (_, mut resumed) = desktop.stream("/api/v1/events", &[bearer, ("last-event-id", "5")]).await;
    let rest = heard(&mut resumed, "id: 7").await;
    assert!(rest.contains("id: 6") && !rest.contains("id: 5"), "{rest}");
    let (_, mut fresh) = desktop.stream("/api/v1/events", &[bearer]).await;
    let cancelled =
        Entry::Cancelled { by: Decider { name: "ana".into(), groups: Vec::new(), via: "api".into() } };
    append(&*desktop.desk.journal, id(0xa1), 1, vec![cancelled]);
    for body in [&mut body, &mut resumed, &mut fresh] {
        let news = heard(body, "id: 8").await;
        assert!(news.contains("event: cancelled") && news.contains(&id(0xa1).to_string()), "{news}");
        assert!(!news.contains("id: 7"), "nothing twice: {news}");
    }
    for (token, status) in [("Bearer agent-token", 403), ("Bearer wrong", 401)] {
        assert_eq!(desktop.stream("/api/v1/events", &[("authorization", token)]).await.0, status, "{token}");
    }
    assert_eq!(desktop.stream("/api/v1/events?from=1", &[bearer]).await.0, 400);
}

#[tokio::test]
async fn the_page_hears_which_calls_have_changed_until_its_session_ends() {
    let desktop = desktop(journal(), Ok(State::Approved));
    let mut browser = desktop.signed_in(VIEWER).await;
    let (name, value) = browser.cookies.iter().find(|(name, _)| name == "holdfast-7412").expect("a session");
    let cookie = format!("{name}={value}");
    let (status, mut body) = desktop.stream("/events", &[("cookie", &cookie)]).await;
    assert_eq!(status, 200);
    finished(&*desktop.desk.journal, id(0xc4), "{}");
    let news = heard(&mut body, "event: news").await;
    assert!(news.contains(&id(0xc4).to_string()) && !news.contains("amount"), "only the id: {news}");
    let csrf = browser.get("/").await.field("csrf");
    browser.post("/logout", &[("csrf", &csrf)]).await;
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), body.collect()).await;
    assert!(ended.is_ok(), "the stream outlives the session");
}
