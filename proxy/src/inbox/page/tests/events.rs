//! What pages and programs hear as it happens.

use super::*;

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
