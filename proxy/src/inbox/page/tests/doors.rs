//! Who gets in, and who is kept out.

use super::*;

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
