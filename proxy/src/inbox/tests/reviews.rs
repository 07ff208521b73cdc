//! Who broke the glass is listed for the others.

use super::*;

fn break_glass(journal: &dyn Journal, n: u128, why: &str) {
    let gates = vec![Gate::for_rule(RuleId::new("r"))];
    accept(journal, id(n), Disposition::Ask { digest: digest(), gates: gates.into() });
    let by = Decider { name: "root".into(), groups: Vec::new(), via: "api".into() };
    let grant = Some(holdfast_store::Grant { execute_by: Millis(9_000) });
    let approved = Entry::Approved {
        by,
        digest: digest(),
        counts_for: vec![],
        grant,
        glass: Some(why.into()),
        remembered: None,
    };
    append(journal, id(n), 1, vec![approved]);
}

#[tokio::test]
async fn approvals_past_the_gates_page_by_page() {
    let office = office(Ok(State::Approved));
    let none = office.get("/api/v1/reviews").await;
    assert_eq!(none.body, json!({ "reviews": [] }));
    for n in 0xc0..0xc5 {
        break_glass(&*office.desk.journal, n, &format!("reason {n}"));
    }
    let mut seen = Vec::new();
    let mut path = "/api/v1/reviews?limit=2".to_owned();
    loop {
        let heard = office.get(&path).await;
        let reviews = heard.body["reviews"].as_array().expect("reviews").clone();
        assert!(reviews.len() <= 2, "{}", heard.body);
        seen.extend(reviews.iter().map(|review| review["reason"].clone()));
        let Some(next) = heard.body["next"].as_str() else { break };
        path = format!("/api/v1/reviews?limit=2&before={next}");
    }
    let expected: Vec<Value> = (0xc0..0xc5).rev().map(|n| json!(format!("reason {n}"))).collect();
    assert_eq!(seen, expected);
    let wrong = office.get("/api/v1/reviews?before=c0").await;
    assert_eq!(wrong.status, 400);
    assert_eq!(office.send(Method::GET, "/api/v1/reviews", &[], "").await.status, 401);
}
