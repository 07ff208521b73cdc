//! Operators whom a reverse proxy names: only that proxy, only operators, and nothing else becomes easier.

use holdfast_tests::{Agent, Desk, Response, Served, World, payment};

const SECRET: &str = "secret-of-the-proxy-long-enough";
const NIGHTLY: &str = "token-of-nightly-long-enough";
const ROOT: &str = "token-of-root-long-enough";

/// Ana has no token; payments wait for an approver.
fn behind(from: &str) -> World {
    World::bank(&format!(
        "[listen.trusted_proxy]\nfrom = [\"{from}\"]\nsecret = \"{SECRET}\"\nuser_header = \"X-Forwarded-User\"\n\
         [operators.ana]\n[operators.root]\ntoken = \"{ROOT}\"\nrole = \"admin\"\n\
         [agents.nightly]\ntoken = \"{NIGHTLY}\"\n\
         [defaults]\neffect = \"allow\"\nhold_wait = \"0s\"\n\
         [[rule]]\nid = \"payments\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n"
    ))
}

type Header<'a> = (&'a str, &'a str);

const PROXY: Header<'_> = ("Holdfast-Proxy-Secret", SECRET);
const ANA: Header<'_> = ("X-Forwarded-User", "ana");

fn get(served: &Served, path: &str, headers: &[Header<'_>]) -> Response {
    served.ask_inbox("GET", path, headers, b"")
}

/// The value of a hidden field.
#[track_caller]
fn field(page: &Response, name: &str) -> String {
    let marker = format!("name=\"{name}\" value=\"");
    let (_, rest) = page.body.split_once(&marker).unwrap_or_else(|| panic!("no {name}: {}", page.body));
    rest.split('"').next().expect("the value ends").to_owned()
}

/// Who approved the call, and how.
fn approval(desk: &Desk<'_>, call: &str) -> (String, String) {
    let call = desk.call(call);
    let mut records = call["records"].as_array().expect("records").iter();
    let by =
        records.find_map(|record| record["entry"]["approved"]["by"].as_object()).expect("it is approved");
    (by["name"].as_str().unwrap_or_default().to_owned(), by["via"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn whom_the_proxy_names_decides_and_the_journal_says_how() {
    let world = behind("127.0.0.1/32");
    let served = world.serve();
    let mut agent = Agent::with_token(&served, "agent", NIGHTLY);
    let root = Desk::of(&served, ROOT);
    let [one, two] =
        ["INV-1", "INV-2"].map(|reference| agent.call("bank__transfer", payment(reference)).call());

    let body = format!("{{\"digest\": \"{}\"}}", root.digest(&one));
    let json = ("Content-Type", "application/json");
    let path = format!("/api/v1/calls/{one}/approve");
    let strangers = [PROXY, ANA, json, ("Origin", "http://localhost:3000")];
    assert_eq!(served.ask_inbox("POST", &path, &strangers, body.as_bytes()).status(), 403);
    let done = served.ask_inbox("POST", &path, &[PROXY, ANA, json], body.as_bytes());
    assert_eq!(done.status(), 200, "{}", done.body);
    assert_eq!(approval(&root, &one), ("ana".to_owned(), "api/proxy".to_owned()));

    // The proxy answers for the name that the browser has asked for.
    let host = ("Host", "holdfast.example");
    let page = get(&served, "/", &[PROXY, ANA, host]);
    assert!(page.status() == 200 && page.body.contains("INV-2"), "{}", page.body);
    assert!(page.head.header("set-cookie").is_none(), "nothing outlives what the proxy says");
    let form = format!("csrf={}&digest={}&back=/", field(&page, "csrf"), field(&page, "digest"));
    let path = format!("/calls/{two}/approve");
    let kind = ("Content-Type", "application/x-www-form-urlencoded");
    let post = |origin: &str, form: &str| {
        let headers = [PROXY, ANA, host, kind, ("Origin", origin)];
        served.ask_inbox("POST", &path, &headers, form.as_bytes()).status()
    };
    assert_eq!(post("https://evil.example", &form), 403);
    assert_eq!(post("http://127.0.0.1:1", &form), 403);
    assert_eq!(post("https://holdfast.example", &form.replace("csrf=", "csrf=0")), 403);
    assert_eq!(root.call(&two)["call"]["state"], "asking");
    assert_eq!(post("https://holdfast.example", &form), 303);
    assert_eq!(approval(&root, &two), ("ana".to_owned(), "inbox/proxy".to_owned()));
    assert!(agent.wait(&two).succeeded());
    assert!(served.stop().success());
}

#[test]
fn nobody_else_is_believed() {
    let check = |from: &str, headers: &[Header<'_>]| {
        let world = behind(from);
        let served = world.serve();
        assert_eq!(get(&served, "/api/v1/calls", headers).status(), 401, "{from} {headers:?}");
        assert_eq!(get(&served, "/calls", headers).status(), 303, "{from} {headers:?}");
        let elsewhere = [headers, &[("Host", "holdfast.example")]].concat();
        assert_eq!(get(&served, "/healthz", &elsewhere).status(), 403, "{from} {headers:?}");
        let https = [headers, &[("X-Forwarded-Proto", "https")]].concat();
        let form = get(&served, "/login", &https);
        let cookie = form.head.header("set-cookie").unwrap_or_default();
        assert!(!cookie.is_empty() && !cookie.contains("Secure"), "{from} {headers:?} {cookie}");
    };
    check("10.0.0.5/32", &[PROXY, ANA]);
    check("127.0.0.1/32", &[ANA]);
    check("127.0.0.1/32", &[("Holdfast-Proxy-Secret", "secret-of-another-long-enough"), ANA]);
    check("127.0.0.1/32", &[PROXY, ("Holdfast-Proxy-Secret", "x"), ANA]);
}

#[test]
fn what_is_no_operators_name_is_refused() {
    let world = behind("127.0.0.1/32");
    let served = world.serve();
    let names: [&[Header<'_>]; 7] = [
        &[ANA, ANA],
        &[ANA, ("X-Forwarded-User", "root")],
        &[("X-Forwarded-User", "ana, root")],
        &[("X-Forwarded-User", "Ana")],
        &[("X-Forwarded-User", "nightly")],
        &[("X-Forwarded-User", "local")],
        &[("X-Forwarded-User", "")],
    ];
    for names in names {
        for path in ["/api/v1/calls", "/", "/login"] {
            // A right token does not make a wrong name right.
            let token = ("Authorization", "Bearer token-of-root-long-enough");
            let response = get(&served, path, &[&[PROXY, token], names].concat());
            assert_eq!(response.status(), 403, "{path} {names:?}: {}", response.body);
        }
    }
    // Whom the proxy does not name comes in as everybody does.
    assert_eq!(get(&served, "/api/v1/calls", &[PROXY]).status(), 401);
    let token = ("Authorization", "Bearer token-of-root-long-enough");
    assert_eq!(get(&served, "/api/v1/calls", &[PROXY, token]).status(), 200);
    let form = get(&served, "/login", &[PROXY, ("X-Forwarded-Proto", "https")]);
    let cookie = form.head.header("set-cookie").unwrap_or_default();
    assert!(cookie.starts_with("__Host-") && cookie.contains("; Secure"), "{cookie}");
}
