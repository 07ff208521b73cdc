//! What is decided, and with what before the eyes.

use super::*;

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
async fn what_stands_beside_the_arguments_is_decided_on_with_them() {
    let journal = Memory::new(Delivery::AtOnce, Chaining::Chained);
    let gates = vec![Gate::for_rule(RuleId::new("r"))];
    let disposition = Disposition::Ask { digest: digest(PLAIN, 1), gates: gates.into() };
    let Entry::Accepted(mut first) = accepted(PLAIN, None, disposition) else { panic!("another entry") };
    first.extra = Text::parse("{\"org.example/account\":\"A\u{202e}<b>\"}").ok();
    append(&journal, id(0xa1), 0, vec![Entry::Accepted(first)]);
    let desktop = desktop(journal, Ok(State::Approved));
    let mut browser = desktop.signed_in(APPROVER).await;
    for path in ["/".to_owned(), format!("/calls/{}", id(0xa1))] {
        let page = browser.get(&path).await.body;
        assert!(page.contains("What is sent beside the arguments"), "{path}");
        assert!(page.contains("org.example/account") && !page.contains('\u{202e}') && !page.contains("A<b>"));
    }
}
