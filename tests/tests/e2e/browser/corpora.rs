//! Hostile text, wherever others can put text, in every view: it is shown as what it is, and does nothing.

use std::path::Path;

use holdfast_tests::{Agent, Browser, Desk, Served, World};
use serde_json::{Value, json};

use super::{ANA, NIGHTLY, PEOPLE, ana};

/// The lines of a corpus, without its comments.
fn corpus(name: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpora").join(name);
    let text = std::fs::read_to_string(path).expect("it is shipped");
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

/// A world in which each text is the name of a tool, its description, an argument and its name, a run, a client, and
/// then a reason, an answer, or nothing yet.
struct Hostile {
    world: World,
    served: Served,
    /// In the order of the texts.
    calls: Vec<String>,
}

/// What becomes of the calls, in turns.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Waits,
    Rejected,
    Answered,
    Doubtful,
}

fn fate(n: usize) -> Fate {
    [Fate::Waits, Fate::Rejected, Fate::Answered, Fate::Waits, Fate::Doubtful, Fate::Answered, Fate::Waits]
        [n % 7]
}

impl Hostile {
    fn of(texts: &[String]) -> Hostile {
        let world = World::empty();
        let asks = "[defaults]\neffect = \"ask\"\nhold_wait = \"0s\"\nlimits = { concurrency = 100 }\n";
        world.configure(&format!("{}{PEOPLE}{asks}", world.server_odd("")));
        let tool = |text: &String| {
            json!({ "name": text, "title": text, "description": text,
                "inputSchema": { "type": "object", "description": text } })
        };
        world.write("tools.json", &Value::from_iter(texts.iter().map(tool)).to_string());
        let script = texts.iter().enumerate().map(|(n, text)| {
            let part = match fate(n) {
                // Those in doubt are sent when all others have been answered, and odd is killed over them.
                Fate::Doubtful => json!({ "sleep_ms": 600_000, "result": {} }),
                _ => json!({ "result": { "content": [{ "type": "text", "text": text }] } }),
            };
            (text.clone(), part)
        });
        world.write("script.json", &Value::from_iter(script).to_string());
        let served = world.serve();
        let tools = Agent::with_token(&served, "clerk", NIGHTLY).tools();
        let tools: Vec<&String> = tools.iter().filter(|name| name.starts_with("odd__")).collect();
        assert_eq!(tools.len(), texts.len(), "{tools:?}");
        let calls = texts.iter().zip(tools).map(|(text, tool)| {
            let mut agent = Agent::with_token(&served, text, NIGHTLY).meta("io.holdfast/run", text.as_str());
            agent.call(tool, json!({ "note": text, text: [text] })).call()
        });
        let calls: Vec<String> = calls.collect();
        let hostile = Hostile { calls, world, served };
        hostile.decide(texts);
        hostile
    }

    fn decide(&self, texts: &[String]) {
        let desk = Desk::of(&self.served, ANA);
        let those = |fate: Fate| {
            self.calls.iter().zip(texts).enumerate().filter(move |(n, _)| self::fate(*n) == fate)
        };
        for (_, (call, text)) in those(Fate::Rejected) {
            assert_eq!(desk.decide(call, "reject", json!({ "reason": text })).status(), 200);
        }
        for (_, (call, _)) in those(Fate::Answered) {
            desk.approve(call);
        }
        for (_, (call, _)) in those(Fate::Answered) {
            desk.await_state(call, "succeeded");
        }
        for (_, (call, _)) in those(Fate::Doubtful) {
            desk.approve(call);
            desk.await_state(call, "in-flight");
        }
        self.world.kill_one("odd");
        for (_, (call, _)) in those(Fate::Doubtful) {
            desk.await_state(call, "in-doubt");
        }
    }

    /// The lists, to their ends.
    fn lists(&self) -> Vec<&'static str> {
        vec![
            "/",
            "/?page=2",
            "/doubt",
            "/calls",
            "/calls?state=refused",
            "/servers",
            "/remembered",
            "/overview",
        ]
    }
}

/// What a page has that it must not have, whoever wrote what is on it.
const INJECTED: &str = r#"(() => {
    const found = [];
    if (typeof pwned !== 'undefined') found.push('a script ran');
    const strange = 'script:not([src^="/assets/page-"]), iframe, frame, object, embed, base, style, template, noscript,'
        + 'link:not([href^="/assets/"]), meta[http-equiv], img:not([src^="/assets/"]), video, audio, source, math,'
        + 'marquee, mglyph, foreignObject, animate, [popover], [popovertarget], [srcdoc], [style], [formaction]';
    for (const node of document.querySelectorAll(strange)) found.push(node.outerHTML.slice(0, 200));
    for (const node of document.querySelectorAll('*')) for (const { name, value } of node.attributes) {
        if (name.startsWith('on')) found.push(name + ' at ' + node.outerHTML.slice(0, 200));
        if (/^(href|src|action|xlink:href)$/.test(name) && !/^(\/(?!\/)|#|\?)/.test(value)) found.push(name + '=' + value);
    }
    if (document.querySelectorAll('script').length !== 1) found.push('scripts');
    if (document.querySelectorAll('main, [role=main]').length !== 1) found.push('mains in ' + document.documentElement.outerHTML.slice(0, 2000));
    return found;
})()"#;

#[track_caller]
fn clean(browser: &Browser, path: &str) {
    assert_eq!(browser.value(INJECTED), json!([]), "{path}");
}

#[test]
fn nothing_that_is_written_becomes_markup_or_runs() {
    let payloads = corpus("xss.txt");
    assert!(payloads.len() >= 40);
    let hostile = Hostile::of(&payloads);
    let browser = ana(&hostile.served);
    for path in hostile.lists() {
        browser.visit(&hostile.served, path);
        browser.wait_for("#places");
        clean(&browser, path);
    }
    for (call, payload) in hostile.calls.iter().zip(&payloads) {
        let path = format!("/calls/{call}");
        browser.visit(&hostile.served, &path);
        clean(&browser, &path);
        let times = browser.script(
            "return document.body.textContent.split(arguments[0]).length - 1",
            &[payload.as_str().into()],
        );
        assert!(times.as_u64().is_some_and(|times| times >= 3), "{payload} is shown {times} times, as it is");
    }
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn nothing_that_is_in_an_address_becomes_markup_or_runs() {
    let payloads = corpus("xss.txt");
    let world = World::with(&format!("{}{PEOPLE}", ""));
    let served = world.serve();
    let browser = ana(&served);
    for (n, payload) in payloads.iter().enumerate() {
        let text = encoded(payload);
        let path = match n % 4 {
            0 => format!(
                "/calls?q={text}&server={text}&tool={text}&agent={text}&run={text}&state={text}&flash={text}"
            ),
            1 => format!("/?server={text}&tool={text}&agent={text}&run={text}&flash={text}"),
            2 => format!("/calls/{text}?shown={text}"),
            _ => format!("/login?next={text}&ended={text}"),
        };
        browser.visit(&served, &path);
        clean(&browser, &path);
    }
    for path in [
        "/login/%3Cscript%3Epwned=1%3C%2Fscript%3E",
        "/%3Cimg%20src=x%20onerror=pwned=1%3E",
        "/?page=%3Cscript%3E",
    ] {
        browser.visit(&served, path);
        assert_eq!(browser.value("typeof pwned"), "undefined", "{path}");
        assert_eq!(browser.count("script:not([src]), img[onerror]"), 0, "{path}");
    }
    // Signing in leads nowhere else.
    browser.visit(&served, "/");
    browser.click(".me summary");
    browser.click("form[action='/logout'] button");
    for next in [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example/",
        "javascript:pwned=1",
        "/%09/evil.example",
    ] {
        browser.wait_for("#token");
        browser.visit(&served, &format!("/login?next={}", encoded(next)));
        browser.write("#token", ANA);
        browser.click("form button.primary");
        browser.wait_until("!location.pathname.startsWith('/login')");
        assert!(
            browser.address().starts_with(&format!("http://{}/", served.inbox)),
            "{next}: {}",
            browser.address()
        );
        browser.visit(&served, "/");
        browser.click(".me summary");
        browser.click("form[action='/logout'] button");
    }
    // A page that is not there is one, and no reason to complain of scripts.
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|line| !line.contains("Content Security")), "{complaints:?}");
}

/// For a query or a path.
fn encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric();
    text.bytes()
        .map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// A line of `deceptive.txt`: what is warned of, and the text.
fn deception(line: &str) -> (String, String) {
    let (kind, escaped) = line.split_once(" | ").expect("a kind and a text");
    let mut text = String::new();
    let mut rest = escaped;
    while let Some(c) = rest.chars().next() {
        let braced = |prefix: &str| {
            let (inside, after) = rest.strip_prefix(prefix)?.split_once('}')?;
            Some((inside.to_owned(), after))
        };
        if let Some((number, after)) = braced("\\u{") {
            let number = u32::from_str_radix(&number, 16).expect("a number");
            text.push(char::from_u32(number).expect("a character"));
            rest = after;
        } else if let Some((times, after)) = braced("{") {
            let last = text.chars().last().expect("something to repeat");
            text.extend(std::iter::repeat_n(last, times.parse::<usize>().expect("a number") - 1));
            rest = after;
        } else {
            text.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    (kind.to_owned(), text)
}

/// Characters that show nothing of themselves or change others, and more marks over one letter than any language has.
const UNSEEN: &str = r"/[\u0000-\u0008\u000b-\u001f\u007f-\u00a0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\u{e0000}-\u{e0fff}]|[\u0300-\u036f\u0483-\u0489\u20d0-\u20ff]{5}/u";

#[test]
fn nothing_deceives_unnoticed() {
    let all: Vec<(String, String)> = corpus("deceptive.txt").iter().map(|line| deception(line)).collect();
    let texts: Vec<String> = all.iter().map(|(_, text)| text.clone()).collect();
    let hostile = Hostile::of(&texts);
    let browser = ana(&hostile.served);
    let unseen = format!(
        "(() => {{ const said = [document.documentElement.textContent, document.title];
         for (const node of document.querySelectorAll('[title], [aria-label], [placeholder]'))
             said.push(node.title, node.ariaLabel, node.placeholder);
         for (const node of document.querySelectorAll('textarea, input:not([type=hidden])')) said.push(node.value);
         return said.filter(text => {UNSEEN}.test(text || '')).map(text => escape(text.match({UNSEEN})[0]) + ' in ' + text.slice(0, 200)) }})()"
    );
    let seen = |path: &str| {
        browser.visit(&hostile.served, path);
        browser.wait_for("#places");
        assert_eq!(browser.value(&unseen), json!([]), "{path}");
        clean(&browser, path);
    };
    for path in hostile.lists() {
        seen(path);
    }
    for (n, (call, (kind, text))) in hostile.calls.iter().zip(&all).enumerate() {
        seen(&format!("/calls/{call}"));
        let warnings =
            browser.value("[...document.querySelectorAll('.warning')].map(node => node.textContent).join()");
        let warnings = warnings.as_str().unwrap_or_default();
        assert!(warnings.contains(kind), "{kind}: {} gives: {warnings}", text.escape_unicode());
        if fate(n) == Fate::Waits {
            assert_eq!(browser.count("section[data-key=what] .warning"), 1, "beside what is decided");
        }
    }
    browser.visit(&hostile.served, "/");
    assert_eq!(browser.count("article.card:not(:has(.warning))"), 0, "every card warns");
    browser.shoot("deceptive-waiting");
}

#[test]
fn nothing_is_pushed_out_of_sight_unsaid() {
    let world = World::empty();
    let asks = "[defaults]\neffect = \"ask\"\nhold_wait = \"0s\"\n";
    world.configure(&format!("{}{PEOPLE}{asks}", world.server_odd("")));
    world.write("tools.json", r#"[{"name":"work","inputSchema":{"type":"object"}}]"#);
    let served = world.serve();
    let browser = ana(&served);
    let mut agent = Agent::with_token(&served, "clerk", NIGHTLY);
    let mut visit = |arguments: Value| {
        let call = agent.call("odd__work", arguments).call();
        browser.visit(&served, &format!("/calls/{call}"));
    };
    visit(json!({ "to": format!("shop{}and evil", " ".repeat(1_000)) }));
    browser.wait_for_text("shop1,000 spacesand evil");
    visit(json!({ "to": format!("shop{}and evil", " ".repeat(500_000)) }));
    browser.wait_for_text("more characters of 500,014");
    visit(json!({ "note": format!("shop{}evil", "\n".repeat(5_000)) }));
    assert!(browser.value("document.body.textContent").as_str().is_some_and(|text| text.contains("evil")));
    browser.wait_for_text("kB");
    visit(json!({ "note": "a".repeat(300_000), "to": "evil" }));
    browser.wait_for_text("more characters");
    browser.wait_for_text("\"evil\"");
    visit(json!({ "list": (0..2_000).collect::<Vec<_>>(), "to": "evil" }));
    browser.wait_for_text("more lines");
    // On the list, what is too long to be seen is not decided.
    browser.visit(&served, "/");
    browser.wait_for_text("Open the call to see all of it and decide.");
    assert_eq!(browser.count("article.card:not(:has(.json)) form.approve"), 0);
}
