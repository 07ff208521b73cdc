//! Who may do what, and who gets nowhere.

use super::*;

#[tokio::test]
async fn who_may_do_what() {
    let office = office(Ok(State::Approved));
    let approval = json!({ "digest": digest() }).to_string();
    let call = id(0xa1);
    let cases: [(&str, &str, &str, [u16; 5]); 7] = [
        // method, path, body: status for nobody, agent, viewer, approver, admin
        ("GET", "/api/v1/calls", "", [401, 403, 200, 200, 200]),
        ("GET", "/api/v1/pending", "", [401, 403, 200, 200, 200]),
        ("POST", "approve", &approval, [401, 403, 403, 200, 200]),
        ("POST", "reject", &approval, [401, 403, 403, 200, 200]),
        ("POST", "resolve", r#"{"not_sent":true}"#, [401, 403, 403, 200, 200]),
        ("POST", "cancel", "", [401, 403, 403, 200, 200]),
        ("POST", "release", "", [401, 403, 403, 403, 200]),
    ];
    let mut allowed = 0;
    for (method, path, body, expected) in cases {
        let path =
            if path.starts_with('/') { path.to_owned() } else { format!("/api/v1/calls/{call}/{path}") };
        for (token, expected) in ["nobodys", AGENT, VIEWER, APPROVER, ADMIN].into_iter().zip(expected) {
            let bearer = format!("Bearer {token}");
            let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
            let method: Method = method.parse().expect("a method");
            allowed += usize::from(expected == 200 && method == Method::POST);
            let heard = office.send(method, &path, &headers, body).await;
            assert_eq!(heard.status.as_u16(), expected, "{path} {token}: {}", heard.body);
            assert_eq!(office.decided(), allowed, "{path} {token}");
        }
    }
}

#[tokio::test]
async fn no_route_of_operators_lets_anybody_else_in() {
    let routes = routes::all::<Recorder>();
    let closed: Vec<_> =
        routes.iter().filter(|route| route.operation.access == openapi::Access::Operators).collect();
    assert!(closed.len() >= 20, "{}", closed.len());
    for operation in closed.into_iter().map(|route| &route.operation) {
        let office = office(Ok(State::Approved));
        let path = operation.path.replace("{id}", &id(0xa1).to_string());
        let agents = format!("Bearer {AGENT}");
        for (headers, expected) in [(vec![], 401), (vec![("authorization", agents.as_str())], 403)] {
            let headers = [headers, vec![("content-type", "application/json")]].concat();
            let heard = office.send(operation.method.clone(), &path, &headers, "{}").await;
            assert_eq!(heard.status.as_u16(), expected, "{} {path}", operation.method);
        }
        assert_eq!(office.decided(), 0);
    }
}

#[tokio::test]
async fn requests_without_a_bearer_token_are_told_how() {
    let office = office(Ok(State::Approved));
    for headers in [
        vec![],
        vec![("authorization", "Basic x")],
        vec![("authorization", "Bearer ")],
        vec![("cookie", "a=b")],
    ] {
        let heard = office.send(Method::GET, "/api/v1/calls", &headers, "").await;
        assert_eq!(
            (heard.status.as_u16(), &heard.body["code"]),
            (401, &json!("unauthorized")),
            "{headers:?}"
        );
        assert_eq!(heard.headers[header::WWW_AUTHENTICATE], "Bearer");
        assert!(heard.body["hint"].is_string());
    }
}

#[tokio::test]
async fn tokens_cannot_be_guessed_fast() {
    let office = office(Ok(State::Approved));
    assert_eq!(office.get("/api/v1/calls").await.status, 200);
    let ask = async |token: &str| {
        let bearer = format!("Bearer {token}");
        office.send(Method::GET, "/api/v1/calls", &[("authorization", &bearer)], "").await
    };
    for n in 0..10 {
        assert_eq!(ask(&format!("guess-{n}")).await.status, 401, "{n}");
    }
    for token in ["guess-10", ADMIN, AGENT] {
        let heard = ask(token).await;
        assert_eq!(
            (heard.status.as_u16(), &heard.body["code"]),
            (429, &json!("too-many-guesses")),
            "{token}"
        );
        let after: u64 = heard.headers[header::RETRY_AFTER].to_str().expect("text").parse().expect("seconds");
        assert!((1..=60).contains(&after), "{after}");
    }
    // This one was here before.
    assert_eq!(ask(VIEWER).await.status, 200);
    let heard = office.send(Method::GET, "/api/v1/calls", &[], "").await;
    assert_eq!(heard.status, 401, "who shows nothing guesses nothing");
}

#[tokio::test]
async fn other_hosts_and_origins_reach_nothing() {
    let office = office(Ok(State::Approved));
    let bearer = format!("Bearer {ADMIN}");
    let auth = ("authorization", bearer.as_str());
    for path in ["/", "/healthz", "/readyz", "/api/v1/calls"] {
        for bad in [("host", "evil.example"), ("origin", "http://evil.example"), ("origin", "null")] {
            let heard = office.send(Method::GET, path, &[auth, bad], "").await;
            assert_eq!(
                (heard.status.as_u16(), &heard.body["code"]),
                (403, &json!("forbidden")),
                "{path} {bad:?}"
            );
        }
        let heard = office.send(Method::GET, path, &[auth, ("origin", "http://localhost:7412")], "").await;
        assert_eq!(heard.status, 200, "{path}");
    }
}

#[tokio::test]
async fn every_response_has_the_security_headers_and_no_get_decides() {
    let office = office(Ok(State::Approved));
    let bearer = format!("Bearer {ADMIN}");
    let call = id(0xa1);
    let paths = [
        "/".to_owned(),
        "/healthz".to_owned(),
        "/nowhere".to_owned(),
        "/api/v1/servers".to_owned(),
        format!("/api/v1/calls/{call}"),
        format!("/api/v1/calls/{call}/approve?digest={}", digest()),
        format!("/api/v1/calls/{call}/release"),
    ];
    for path in paths {
        for method in [Method::GET, Method::HEAD] {
            let heard = office.send(method, &path, &[("authorization", &bearer)], "").await;
            let policy = heard.headers[header::CONTENT_SECURITY_POLICY].to_str().expect("text");
            assert!(policy.contains("frame-ancestors 'none'"), "{path}");
            assert_eq!(heard.headers[header::X_FRAME_OPTIONS], "DENY", "{path}");
            assert_eq!(heard.headers[header::CACHE_CONTROL], "no-store", "{path}");
        }
    }
    assert_eq!(office.decided(), 0);
}

#[test]
fn without_operators_the_made_token_decides_everything() {
    let made = operators(&[], Some("t"));
    assert_eq!(
        (made[0].name.as_str(), made[0].role, made[0].token_sha256),
        ("local", Role::Admin, Some(access::hash("t")))
    );
    let configured = Operator { name: "ana".into(), ..made[0].clone() };
    assert_eq!(operators(std::slice::from_ref(&configured), Some("t")), [configured]);
}
