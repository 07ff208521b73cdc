//! What is shown, and that looking changes nothing.

use super::*;

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
