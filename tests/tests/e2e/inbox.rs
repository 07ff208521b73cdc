//! The inbox page through the real binary: a person signs in, looks, decides, and what was shown is what happens.

use holdfast_tests::{Agent, Desk, Response, Served, World, eventually};
use serde_json::json;

const OPERATORS: &str = "[operators.ana]\ntoken = \"token-of-ana-long-enough\"\n\
    [operators.vera]\ntoken = \"token-of-vera-long-enough\"\nrole = \"viewer\"\n\
    [agents.nightly]\ntoken = \"token-of-nightly-long-enough\"\n";
const ASK: &str = "[defaults]\neffect = \"allow\"\nhold_wait = \"0s\"\n\
    [[rule]]\nid = \"payments\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n";
const ANA: &str = "token-of-ana-long-enough";
const NIGHTLY: &str = "token-of-nightly-long-enough";

/// A browser as far as the inbox can tell.
struct Browser<'a> {
    served: &'a Served,
    cookies: String,
}

impl<'a> Browser<'a> {
    fn of(served: &'a Served) -> Self {
        Browser { served, cookies: String::new() }
    }

    fn ask(&mut self, method: &str, path: &str, body: &str) -> Response {
        let origin = format!("http://{}", self.served.inbox);
        let mut headers = vec![("Cookie", self.cookies.as_str())];
        if method == "POST" {
            headers.extend([
                ("Content-Type", "application/x-www-form-urlencoded"),
                ("Origin", &origin),
                ("Sec-Fetch-Site", "same-origin"),
            ]);
        }
        let response = self.served.ask_inbox(method, path, &headers, body.as_bytes());
        if let Some(cookie) = response.head.header("set-cookie") {
            let pair = cookie.split(';').next().expect("a cookie has a name");
            self.cookies =
                if self.cookies.is_empty() { pair.to_owned() } else { format!("{}; {pair}", self.cookies) };
        }
        response
    }

    fn get(&mut self, path: &str) -> Response {
        self.ask("GET", path, "")
    }

    fn sign_in(&mut self, token: &str) -> Response {
        let csrf = field(&self.get("/login"), "csrf");
        self.ask("POST", "/login", &format!("csrf={csrf}&token={token}"))
    }
}

/// The value of a hidden field.
#[track_caller]
fn field(page: &Response, name: &str) -> String {
    let marker = format!("name=\"{name}\" value=\"");
    let (_, rest) = page.body.split_once(&marker).unwrap_or_else(|| panic!("no {name}: {}", page.body));
    rest.split('"').next().expect("the value ends").to_owned()
}

fn payment(reference: &str) -> serde_json::Value {
    json!({ "from": "alice", "to": "shop", "amount": 10, "reference": reference })
}

#[test]
fn a_payment_is_approved_on_the_page_and_made_once() {
    let world = World::bank(&format!("{OPERATORS}{ASK}"));
    let served = world.serve();
    let mut agent = Agent::with_token(&served, "agent", NIGHTLY);
    let call = agent.call("bank__transfer", payment("INV-1")).call();

    let mut ana = Browser::of(&served);
    assert_eq!(ana.sign_in(ANA).status(), 303);
    let page = ana.get("/");
    assert!(page.body.contains("INV-1") && page.body.contains(&call), "{}", page.body);
    let (csrf, digest) = (field(&page, "csrf"), field(&page, "digest"));
    assert_eq!(digest, Desk::of(&served, ANA).digest(&call), "the page shows what the API does");

    let form = format!("csrf={csrf}&digest={digest}&back=/");
    let approve = format!("/calls/{call}/approve");
    for method in ["GET", "HEAD"] {
        ana.ask(method, &format!("{approve}?{form}"), "");
    }
    assert_eq!(world.paid("INV-1"), 0, "looking decides nothing");
    let done = ana.ask("POST", &approve, &form);
    let back = done.head.header("location").expect("it goes on").to_owned();
    assert!(ana.get(&back).body.contains("It is sent at most once"), "{back}");
    // The second click of a double click.
    ana.ask("POST", &approve, &form);
    assert!(agent.wait(&call).succeeded());
    assert_eq!(world.paid("INV-1"), 1);
    let story = ana.get(&format!("/calls/{call}")).body;
    assert!(story.contains("Approved by <strong>ana</strong> (inbox)"), "{story}");
}

#[test]
fn who_does_not_decide_gets_nowhere() {
    let world = World::bank(&format!("{OPERATORS}{ASK}"));
    let served = world.serve();
    let mut agent = Agent::with_token(&served, "agent", NIGHTLY);
    let call = agent.call("bank__transfer", payment("INV-1")).call();
    let digest = Desk::of(&served, ANA).digest(&call);
    let approve = format!("/calls/{call}/approve");

    let mut nightly = Browser::of(&served);
    let refused = nightly.sign_in(NIGHTLY);
    assert!(
        refused.status() == 403 && refused.body.contains("Agents do not use the inbox"),
        "{}",
        refused.body
    );
    assert_eq!(nightly.get("/calls").status(), 303);
    assert_eq!(nightly.ask("POST", &approve, &format!("csrf=x&digest={digest}")).status(), 303);

    let mut vera = Browser::of(&served);
    assert_eq!(vera.sign_in("token-of-vera-long-enough").status(), 303);
    let page = vera.get("/");
    assert!(page.body.contains("INV-1") && !page.body.contains("/approve\""), "{}", page.body);
    let form = format!("csrf={}&digest={digest}", field(&page, "csrf"));
    assert_eq!(vera.ask("POST", &approve, &form).status(), 403);

    let mut ana = Browser::of(&served);
    ana.sign_in(ANA);
    let form = format!("csrf={}&digest={digest}", field(&page, "csrf"));
    assert_eq!(ana.ask("POST", &approve, &form).status(), 403, "the token of another session");
    assert_eq!(world.ledger().len(), 0);
    assert_eq!(Desk::of(&served, ANA).call(&call)["call"]["state"], "asking");
}

#[test]
fn no_link_that_signs_in_is_written_to_a_file() {
    let world = World::bank(ASK);
    let served = world.serve();
    eventually("it says where the inbox is", || served.log().contains("Your inbox:"));
    assert!(!served.log().contains("/login/"), "{}", served.log());
}

#[test]
fn open_pages_do_not_hold_up_the_end() {
    let world = World::bank(&format!("{OPERATORS}{ASK}"));
    let served = world.serve();
    let mut stream = holdfast_tests::Connection::open(&served.inbox);
    let token = format!("Bearer {ANA}");
    stream.send("GET", "/api/v1/events", &[("Authorization", &token)], b"");
    assert_eq!(stream.head().status, 200);
    assert!(served.stop().success());
}
