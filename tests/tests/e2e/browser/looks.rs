//! Whether everybody can use it: on a phone, at night, with a keyboard, by ear.

use holdfast_tests::{Agent, Browser, Desk, Look, Served, World, payment, payment_of};
use serde_json::{Value, json};

use super::{ANA, NIGHTLY, PEOPLE, ana};

/// A busy day at the bank, with values that are too long for any screen.
struct Day {
    served: Served,
    world: World,
    views: Vec<(&'static str, String)>,
}

impl Day {
    fn begin() -> Day {
        let world = World::bank(&format!(
            "{PEOPLE}[defaults]\neffect = \"ask\"\nhold_wait = \"0s\"\n\
             [[rule]]\nid = \"reads\"\neffect = \"allow\"\ntool = \"{{get_*,list_*,quote_*,balance}}\"\nrepeat = \"safe\"\n\
             [[rule]]\nid = \"payments\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n\
             when = [{{ arg = \"/amount\", op = \"gt\", value = 15 }}]\n\
             [rule.gate]\nquorum = 2\n\
             [rule.preview]\ntool = \"quote_transfer\"\n\
             args = {{ from = \"{{/from}}\", to = \"{{/to}}\", amount = \"{{/amount}}\" }}\n"
        ));
        let served = world.serve();
        let desk = Desk::of(&served, ANA);
        let mut agent =
            Agent::with_token(&served, "month-end-bot 2.1", NIGHTLY).meta("io.holdfast/run", "month-end");
        for n in 1..=3 {
            let call = agent.call("bank__transfer", payment_of(10, &format!("SMALL-{n}"))).call();
            desk.approve(&call);
            agent.wait(&call);
        }
        let done = agent.call("bank__transfer", payment_of(11, "RENT")).call();
        desk.approve(&done);
        agent.wait(&done);
        let refused = agent.call("bank__transfer", payment_of(12, "YACHT")).call();
        desk.decide(
            &refused,
            "reject",
            json!({ "reason": "We have no yacht, and this one is not in the budget either." }),
        );
        world.fault("die-after-commit once");
        let doubtful = agent.call("bank__transfer", payment_of(13, "LOST")).call();
        desk.approve(&doubtful);
        desk.await_state(&doubtful, "in-doubt");
        for n in 1..=3 {
            agent.call("bank__transfer", payment(&format!("INV-{n}")));
        }
        let mut other = Agent::with_token(&served, &"client".repeat(30), NIGHTLY)
            .meta("io.holdfast/run", "run".repeat(60));
        let edited = other.call("bank__transfer", payment_of(900, "EDITED")).call();
        desk.await_state(&edited, "asking");
        desk.decide(&edited, "edit", json!({ "arguments": payment_of(90, "EDITED") }));
        desk.await_state(&edited, "asking");
        desk.approve(&edited);
        let long = other.call("bank__close_account", long()).call();
        let views = vec![
            ("waiting", "/".to_owned()),
            ("doubt", "/doubt".to_owned()),
            ("calls", "/calls".to_owned()),
            ("calls-none", "/calls?q=no-such-thing".to_owned()),
            ("call-done", format!("/calls/{done}")),
            ("call-refused", format!("/calls/{refused}")),
            ("call-doubtful", format!("/calls/{doubtful}")),
            ("call-edited", format!("/calls/{edited}")),
            ("call-long", format!("/calls/{long}")),
            ("servers", "/servers".to_owned()),
            ("overview", "/overview".to_owned()),
            ("remembered", "/remembered".to_owned()),
            ("not-found", "/calls/no-such-call".to_owned()),
        ];
        Day { served, world, views }
    }
}

/// Values that nothing can be broken at.
fn long() -> Value {
    json!({
        "account": "x".repeat(400),
        "url": format!("https://bank.example/{}?q={}", "path/".repeat(40), "a%20".repeat(60)),
        "k".repeat(300): "a long name",
        "number": 123_456_789_012_345_678_901_234_567_890_f64,
        "emoji": "\u{1f600}".repeat(150),
        "deep": { "a": { "b": { "c": { "d": { "e": { "f": { "g": [[[["deep".repeat(40)]]]] } } } } } } },
        "wide": "\u{fdfd}".repeat(60),
    })
}

/// What everybody else can do something with, but has no name.
const NAMELESS: &str = "[...document.querySelectorAll('input:not([type=hidden]), select, textarea, button, summary, a')]
    .filter(node => !node.hidden && !(node.ariaLabel || node.labels && [...node.labels].some(label => label.textContent.trim())
        || node.textContent.trim() && !/^(INPUT|SELECT|TEXTAREA)$/.test(node.nodeName)))
    .map(node => node.outerHTML.slice(0, 200))";

/// What reaches beyond the screen to the right.
const TOO_WIDE: &str = "document.documentElement.scrollWidth <= innerWidth ? [] :
    [...document.querySelectorAll('body *')].filter(node => node.getBoundingClientRect().right > innerWidth + 1)
        .map(node => node.outerHTML.slice(0, 160)).slice(0, 5)";

/// Boxes with more in them than they show; only the exact text, which is unfolded by hand, may be one.
const CUT_OFF: &str = "[...document.querySelectorAll('.card :not(.raw)')]
    .filter(node => /auto|scroll|hidden/.test(getComputedStyle(node).overflowY) && node.scrollHeight > node.clientHeight + 1)
    .filter(node => node.clientHeight > 0 && node.nodeName !== 'TEXTAREA')
    .map(node => node.outerHTML.slice(0, 160))";

/// What is too small for a thumb: buttons, and what is ticked or unfolded.
const TOO_SMALL: &str = "[...document.querySelectorAll('button, summary, a.button, select')]
    .filter(node => { const { width, height } = node.getBoundingClientRect(); return width > 0 && (height < 24 || width < 24); })
    .map(node => node.outerHTML.slice(0, 160))";

/// Text that can hardly be told from what is behind it.
const TOO_FAINT: &str = "(() => {
    const rgb = text => (text.match(/[\\d.]+/g) || []).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
    const behind = node => { for (; node; node = node.parentElement) {
        const color = rgb(getComputedStyle(node).backgroundColor);
        if (color.length === 3 || color[3] === 1) return color; if (color[3] > 0) return null; }
        return matchMedia('(prefers-color-scheme: dark)').matches ? [0, 0, 0] : [255, 255, 255]; };
    const faint = new Set();
    for (const node of document.querySelectorAll('body *')) {
        const says = [...node.childNodes].some(child => child.nodeType === 3 && child.nodeValue.trim());
        const of = getComputedStyle(node);
        if (!says || node.closest('svg, :disabled') || !node.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
        const back = behind(node), color = rgb(of.color);
        if (!back || color.length !== 3) continue;
        const [more, less] = [light(color), light(back)].sort((one, other) => other - one);
        if ((more + 0.05) / (less + 0.05) < 4.5) faint.add(`${node.nodeName}.${node.className}: ${of.color} on ${back}: ${((more + 0.05) / (less + 0.05)).toFixed(2)}`);
    }
    return [...faint];
})()";

#[test]
fn every_view_is_for_everybody() {
    let day = Day::begin();
    let browser = ana(&day.served);
    let mut wrong = Vec::new();
    for look in LOOKS {
        browser.look(look);
        for (name, path) in &day.views {
            let at = format!("{name}-{look:?}");
            browser.visit(&day.served, path);
            browser.shoot(&at);
            wrong.extend(found(&browser, &at, &CHECKS[..2]));
            // With everything unfolded it has to fit, too.
            browser.script("for (const fold of document.querySelectorAll('details')) fold.open = true", &[]);
            browser.shoot(&format!("{at}-open"));
            wrong.extend(found(&browser, &at, &CHECKS));
        }
    }
    browser.visit(&day.served, "/");
    browser.click(".me summary");
    browser.click("form[action='/logout'] button");
    browser.wait_for("#token");
    for look in LOOKS {
        browser.look(look);
        browser.visit(&day.served, "/login");
        browser.wait_until("document.activeElement.id === 'token'");
        browser.shoot(&format!("login-{look:?}"));
        wrong.extend(found(&browser, &format!("login-{look:?}"), &CHECKS));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(day.world.ledger().len() >= 5);
}

const LOOKS: [Look; 3] = [Look::Desk, Look::Phone, Look::NightPhone];
const CHECKS: [(&str, &str); 5] = [
    ("too wide", TOO_WIDE),
    ("cut off", CUT_OFF),
    ("nameless", NAMELESS),
    ("too small", TOO_SMALL),
    ("too faint", TOO_FAINT),
];

fn found(browser: &Browser, at: &str, checks: &[(&str, &str)]) -> Vec<String> {
    let all = checks.iter().flat_map(|(what, check)| {
        let found = browser.value(check).as_array().expect("a list").clone();
        found.into_iter().map(move |found| format!("{what}: {at}: {found}"))
    });
    all.collect()
}
