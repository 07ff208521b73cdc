//! The API's description says what the API does, and all of it.

use std::collections::BTreeSet;

use super::{
    super::{openapi::Operation, routes},
    *,
};

/// What the list of routes says about this request.
fn operation(method: &Method, path: &str) -> Option<Operation> {
    let path = path.split('?').next().unwrap_or_default();
    let fits = |template: &str| {
        let (told, asked) = (template.split('/'), path.split('/'));
        told.clone().count() == asked.clone().count()
            && told.zip(asked).all(|(told, asked)| told.starts_with('{') || told == asked)
    };
    let mut all = routes::all::<Recorder>().into_iter().map(|route| route.operation);
    all.find(|operation| operation.method == method && fits(&operation.path))
}

/// Fails where the document does not know this answer.
#[track_caller]
pub(super) fn check(method: &Method, path: &str, heard: &Heard) {
    let Some(operation) = operation(method, path) else { return };
    let told: Vec<u16> = operation.statuses().collect();
    assert!(told.contains(&heard.status.as_u16()), "{method} {path} gave {}, not of {told:?}", heard.status);
    if heard.status.as_u16() >= 400 && operation.path != "/readyz" {
        assert!(heard.body["code"].is_string() && heard.body["message"].is_string(), "{}", heard.body);
    }
}

#[tokio::test]
async fn the_document_and_the_router_have_the_same_routes() {
    let office = office(Ok(State::Approved));
    let heard = office.send(Method::GET, "/api/v1/openapi.json", &[], "").await;
    assert_eq!(heard.status, 200);
    let mut told = BTreeSet::new();
    for (path, methods) in heard.body["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let method: Method = method.to_uppercase().parse().expect("a method");
            let asked = path.replace("{id}", &id(0xa1).to_string());
            assert!(told.insert(operation["operationId"].to_string()), "{operation}");
            if path.ends_with("/events") {
                continue;
            }
            // Whatever it thinks of an empty request: it is no stranger to it.
            let bearer = format!("Bearer {ADMIN}");
            let heard = office.send(method.clone(), &asked, &[("authorization", &bearer)], "").await;
            assert!(![404, 405].contains(&heard.status.as_u16()), "{method} {asked}: {}", heard.body);
        }
    }
    assert_eq!(told.len(), routes::all::<Recorder>().len());
}

#[tokio::test]
async fn only_what_says_so_is_open() {
    let office = office(Ok(State::Approved));
    let heard = office.send(Method::GET, "/api/v1/openapi.json", &[], "").await;
    for (path, methods) in heard.body["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let open = operation["security"] == json!([]);
            let method: Method = method.to_uppercase().parse().expect("a method");
            let asked = path.replace("{id}", "0000");
            let heard = office.send(method, &asked, &[], "").await;
            assert_eq!(heard.status != 401, open, "{path}: {}", heard.status);
        }
    }
}

#[tokio::test]
async fn every_reference_leads_somewhere() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|field| references(field, found));
            }
            _ => {}
        }
    }
    let office = office(Ok(State::Approved));
    let heard = office.send(Method::GET, "/api/v1/openapi.json", &[], "").await;
    let mut found = Vec::new();
    references(&heard.body, &mut found);
    assert!(found.len() > 50, "{}", found.len());
    for reference in found {
        let pointer = reference.strip_prefix('#').expect("inside the document");
        assert!(heard.body.pointer(pointer).is_some(), "{reference}");
    }
}
