//! Every address there is: looking changes nothing, and each answer carries what protects it.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_tests::{Agent, Browser, Desk, eventually, payment};
use regex::Regex;
use serde_json::{Value, json};

use super::{ANA, NIGHTLY, ana, asking};

/// What came back from an address.
struct Got {
    status: u64,
    headers: Value,
    body: String,
}

/// Asks as the page itself would, with the cookie and nothing else.
fn get(browser: &Browser, method: &str, path: &str) -> Got {
    let got = browser.script(
        "const [method, path] = arguments;
         const stop = new AbortController();
         return fetch(path, { method, signal: stop.signal, cache: 'no-store' }).then(async response => {
             const headers = Object.fromEntries(response.headers);
             const events = (headers['content-type'] || '').startsWith('text/event-stream');
             const body = events ? '' : await response.text();
             if (events) stop.abort();
             return [response.status, headers, body];
         })",
        &[method.into(), path.into()],
    );
    let status = got[0].as_u64().expect("a status");
    Got { status, headers: got[1].clone(), body: got[2].as_str().unwrap_or_default().to_owned() }
}

/// Everything that a page leads to, forms that are to be posted included: whoever follows links blindly goes there too.
fn leads_to(page: &str) -> BTreeSet<String> {
    let link = Regex::new("(?:href|src|action)=\"(/[^\"]*)\"").expect("it is one");
    link.captures_iter(page).map(|found| found[1].replace("&amp;", "&")).collect()
}

#[test]
fn looking_at_everything_changes_nothing() {
    let world = asking("");
    let served = world.serve();
    let mut agent = Agent::with_token(&served, "clerk", NIGHTLY);
    let done = agent.call("bank__transfer", payment("INV-1")).call();
    let desk = Desk::of(&served, ANA);
    desk.approve(&done);
    assert!(agent.wait(&done).succeeded());
    let held = agent.call("bank__transfer", payment("INV-2")).call();
    world.fault("die-after-commit once");
    let doubtful = agent.call("bank__transfer", payment("INV-3")).call();
    desk.approve(&doubtful);
    desk.await_state(&doubtful, "in-doubt");
    let entries = || desk.get("/verify").json()["entries"].clone();
    let before = entries();
    assert!(before.as_u64().is_some_and(|entries| entries > 8), "{before}");

    let browser = ana(&served);
    let mut to_see: BTreeSet<String> = ["/".to_owned(), "/login".to_owned()].into();
    for call in [&done, &held, &doubtful] {
        to_see.extend(ROUTES.map(|route| route.replace("{id}", call)));
    }
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    while let Some(path) = to_see.pop_first() {
        if seen.contains_key(&path) {
            continue;
        }
        for method in ["HEAD", "GET"] {
            let got = get(&browser, method, &path);
            protected(&path, &got);
            assert_ne!(got.status, 500, "{method} {path}");
            to_see.extend(leads_to(&got.body));
            seen.insert(path.clone(), got.status);
        }
    }
    let looked = |status: u64| seen.values().filter(|seen| **seen == status).count();
    assert!(seen.len() > 60 && looked(200) > 20 && looked(405) > 20, "{seen:?}");
    assert!(seen.iter().all(|(path, status)| !path.starts_with("/api/") || *status == 401), "{seen:?}");
    for path in ["/", "/doubt", "/calls", "/servers", "/remembered", "/overview", &format!("/calls/{held}")] {
        assert_eq!(seen[path], 200, "{path}");
        browser.visit(&served, path);
        browser.wait_for("#places");
    }
    assert_eq!(entries(), before);
    assert_eq!(desk.call(&held)["call"]["state"], "asking");
    assert_eq!(desk.call(&doubtful)["call"]["state"], "in-doubt");
    assert_eq!((world.paid("INV-2"), world.ledger().len()), (0, 2));
    assert_eq!(browser.complaints().iter().filter(|line| line.contains("Content Security")).count(), 0);
}

/// What is not linked, or only from elsewhere.
const ROUTES: [&str; 31] = [
    "/calls/{id}",
    "/calls/{id}/history.json",
    "/calls/{id}/approve",
    "/calls/{id}/approve?digest=x&csrf=x",
    "/calls/{id}/reject",
    "/calls/{id}/edit",
    "/calls/{id}/respond",
    "/calls/{id}/revoke",
    "/calls/{id}/break-glass",
    "/calls/{id}/resolve",
    "/calls/{id}/cancel",
    "/calls/{id}/release",
    "/batch",
    "/batch?do=approve",
    "/logout",
    "/events",
    "/login/no-such-link",
    "/healthz",
    "/readyz",
    "/no-such-page",
    "/calls/no-such-call",
    "/api/v1/calls",
    "/api/v1/calls/{id}",
    "/api/v1/calls/{id}/approve",
    "/api/v1/calls/{id}/resolve",
    "/api/v1/calls/{id}/cancel",
    "/api/v1/calls/{id}/release",
    "/api/v1/pending",
    "/api/v1/verify",
    "/api/v1/servers",
    "/api/v1/events",
];

fn protected(path: &str, got: &Got) {
    let header = |name: &str| got.headers[name].as_str().unwrap_or_default().to_owned();
    let policy = header("content-security-policy");
    for wanted in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(policy.contains(wanted), "{path}: {policy}");
    }
    assert!(
        !policy.contains("unsafe") && !policy.contains('*') && !policy.contains("data:"),
        "{path}: {policy}"
    );
    assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
    assert_eq!(header("x-frame-options"), "DENY", "{path}");
    let referrer = header("referrer-policy");
    assert!(["no-referrer", "same-origin", "origin"].contains(&referrer.as_str()), "{path}: {referrer}");
    let kept = header("cache-control");
    let live = path.ends_with("/events") && kept == "no-cache";
    assert!(kept == "no-store" || live || path.starts_with("/assets/"), "{path}: {kept}");
}

#[test]
fn the_browser_itself_runs_no_script_that_is_written_into_a_page() {
    let world = asking("");
    let served = world.serve();
    let browser = ana(&served);
    // As if the escaping had a hole.
    let tried = browser.script(
        "const tried = [];
         const attempt = work => { try { work(); tried.push('taken'); } catch (error) { tried.push(error.name); } };
         attempt(() => { document.body.innerHTML += '<img src=x onerror=pwned=1>'; });
         attempt(() => { document.body.insertAdjacentHTML('beforeend', '<iframe srcdoc=x>'); });
         attempt(() => { const s = document.createElement('script'); s.text = 'pwned=1'; document.body.append(s); });
         const button = document.createElement('button');
         button.id = 'ours';
         attempt(() => { button.setAttribute('onclick', 'pwned=1'); });
         document.body.prepend(button);
         button.click();
         return tried",
        &[],
    );
    let tried = tried.as_array().expect("a list").clone();
    assert!(!tried.contains(&json!("taken")), "{tried:?}");
    assert_eq!(browser.value("typeof pwned"), "undefined");
    let refuses = |line: &String| line.contains("Content Security Policy") || line.contains("TrustedHTML");
    eventually("the browser says that it refused them", || browser.complaints().iter().any(refuses));
}
