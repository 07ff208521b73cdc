//! What a person does all day: look, and answer.

use holdfast_tests::{Agent, Browser, Desk, Served, World, eventually, payment, payment_of};
use serde_json::json;

use super::{ANA, NIGHTLY, PEOPLE, ana, asking, card};

fn nightly(served: &Served) -> Agent {
    Agent::with_token(served, "clerk", NIGHTLY)
}

#[test]
fn a_hold_appears_by_itself_and_is_approved() {
    let world = World::bank(&format!(
        "{PEOPLE}[defaults]\neffect = \"allow\"\nhold_wait = \"300s\"\n\
         [[rule]]\nid = \"payments\"\neffect = \"ask\"\nserver = \"bank\"\ntool = \"transfer\"\n\
         [rule.preview]\ntool = \"quote_transfer\"\n\
         args = {{ from = \"{{/from}}\", to = \"{{/to}}\", amount = \"{{/amount}}\" }}\n"
    ));
    let served = world.serve();
    let browser = ana(&served);
    assert!(browser.text().contains("Nothing waits for you."));
    browser.script("window.sameAsBefore = true", &[]);

    let asked = nightly(&served).ask("bank__transfer", payment("INV-1"));
    browser.wait_for("article.card form.approve");
    let page = browser.text();
    for shown in
        ["bank / transfer", "nightly with clerk", "\"INV-1\"", "What it would do", "balance_after", "960"]
    {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    assert_eq!(browser.value("document.title.startsWith('(1) ')"), true);
    assert_eq!(browser.value("window.sameAsBefore"), true, "it was not loaded again");

    browser.click("form.approve button");
    browser.wait_for_text("It is sent at most once");
    let answer = asked.answer();
    assert!(answer.succeeded(), "{answer:?}");
    assert_eq!(world.ledger().len(), 1);
    browser.visit(&served, &format!("/calls/{}", answer.call()));
    assert!(browser.text().contains("Approved by ana (inbox)"), "{}", browser.text());
    assert!(browser.text().contains("Made t-1"), "{}", browser.text());
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn half_a_reason_survives_what_comes_in_and_is_told_when_it_is_whole() {
    let world = asking("");
    let served = world.serve();
    let mut agent = nightly(&served);
    let call = agent.call("bank__transfer", payment("INV-1")).call();
    let browser = ana(&served);
    let card = card(&call);
    let reason = format!("{card} input[name=reason]");
    browser.click(&format!("{card} details.reject summary"));
    browser.write(&reason, "wrong ");

    let other = agent.call("bank__transfer", payment("INV-2")).call();
    browser.wait_for(&super::card(&other));
    assert_eq!(
        browser.value("document.activeElement.name + ': ' + document.activeElement.value"),
        "reason: wrong "
    );
    browser.press("supplier");
    browser.click(&format!("{card} details.reject button"));
    browser.wait_for_text("rejected. The agent is told.");
    let refused = agent.wait(&call);
    assert_eq!((refused.code(), refused.state()), ("refused", "refused"));
    assert!(refused.text().contains("wrong supplier"), "{}", refused.text());

    // What is settled elsewhere while somebody writes is not taken from under the fingers.
    browser.click(&format!("{} details.reject summary", super::card(&other)));
    browser.write(&format!("{} input[name=reason]", super::card(&other)), "not ");
    Desk::of(&served, ANA).approve(&other);
    browser.wait_for(".gone");
    assert_eq!(browser.count(&format!("{} button:not(:disabled)", super::card(&other))), 0);
    assert_eq!(browser.value("document.activeElement.value"), "not ");
    assert!(agent.wait(&other).succeeded());
    assert_eq!(world.ledger().len(), 1);
}

#[test]
fn what_one_aims_at_stays_where_it_is() {
    let world = asking("");
    let served = world.serve();
    let mut agent = nightly(&served);
    let first = agent.call("bank__transfer", payment("INV-1")).call();
    let browser = ana(&served);
    browser.wait_for("#live.on");
    // A browser without a screen says that it has no mouse.
    browser.script("window.matchMedia = () => ({ matches: true })", &[]);
    browser.hover("form.approve button");
    let second = agent.call("bank__transfer", payment("INV-2")).call();
    browser.wait_for("#news:not([hidden])");
    assert_eq!(browser.count(&card(&second)), 0, "it would push what is pointed at away");
    browser.click("#news button");
    browser.wait_for(&card(&second));
    browser.click(&format!("{} form.approve button", card(&first)));
    assert!(agent.wait(&first).succeeded());
    assert_eq!((world.paid("INV-1"), world.ledger().len()), (1, 1));
}

#[test]
fn changed_arguments_are_asked_anew_and_answered_as_changed() {
    let world = asking("");
    let served = world.serve();
    let mut agent = nightly(&served);
    let call = agent.call("bank__transfer", payment_of(900, "INV-1")).call();
    let browser = ana(&served);
    browser.click(&format!("{} a.open", card(&call)));
    browser.click("details[data-key=edit] summary");
    browser.write("#new-arguments", &payment_of(30, "INV-1").to_string());
    browser.click("details[data-key=edit] button");
    browser.wait_for_text("it is asked again with the new arguments");
    assert!(browser.text().contains("revision 2"), "{}", browser.text());
    assert!(browser.text().contains("ana has changed these arguments."), "{}", browser.text());
    assert_eq!(world.ledger().len(), 0);
    browser.click("form.approve button");
    browser.wait_for_text("It is sent at most once");
    let answer = agent.wait(&call);
    let words = answer.result()["content"].to_string();
    assert!(words.contains("ana changed the arguments") && words.contains("30"), "{words}");
    assert_eq!((world.ledger().len(), &world.ledger()[0]["amount"]), (1, &json!(30)));

    // An answer by hand, for which nothing is sent.
    let call = agent.call("bank__transfer", payment("INV-2")).call();
    browser.visit(&served, &format!("/calls/{call}"));
    browser.click("details[data-key=respond] summary");
    browser.write("#own-answer", "Paid by cheque.");
    browser.click("details[data-key=respond] button");
    browser.wait_for_text("Nothing was sent.");
    assert!(agent.wait(&call).text().contains("Paid by cheque."));
    assert_eq!(world.ledger().len(), 1);
}

#[test]
fn like_calls_are_decided_together() {
    let world = asking("");
    let served = world.serve();
    let mut agent = nightly(&served);
    let calls: Vec<String> =
        (1..=4).map(|n| agent.call("bank__transfer", payment(&format!("INV-{n}"))).call()).collect();
    let browser = ana(&served);
    browser.wait_for("form.batch");
    let page = browser.text();
    assert!((1..=4).all(|n| page.contains(&format!("\"INV-{n}\""))), "each shows what it asks: {page}");
    let can_be_pressed = || browser.count("form.batch button:not(:disabled)");
    assert_eq!(can_be_pressed(), 0, "nothing is ticked");
    browser.script("dispatchEvent(new Event('pageshow'))", &[]);
    assert_eq!(can_be_pressed(), 0, "nor for who comes back to the page");

    for call in &calls[..2] {
        browser.click(&format!("{} input[name=pick]", card(call)));
    }
    browser.wait_for_text("Approve 2");
    browser.click("form.batch button[value=approve]");
    browser.wait_for_text("2 calls approved.");
    for (call, reference) in calls[..2].iter().zip(["INV-1", "INV-2"]) {
        assert!(agent.wait(call).succeeded());
        assert_eq!(world.paid(reference), 1);
    }
    for call in &calls[..2] {
        browser.wait_for_no(&card(call));
    }
    browser.click("form.batch label.all input");
    browser.write("form.batch input[name=reason]", "month is closed");
    browser.click("form.batch button[value=reject]");
    browser.wait_for_text("2 calls rejected.");
    for call in &calls[2..] {
        assert!(agent.wait(call).text().contains("month is closed"));
    }
    assert_eq!(world.ledger().len(), 2);
}

#[test]
fn a_hand_that_trembles_pays_once() {
    let world = asking("");
    let served = world.serve();
    let mut agent = nightly(&served);
    let browser = ana(&served);
    for (reference, scripts) in [("INV-1", true), ("INV-2", false)] {
        if !scripts {
            browser.without_scripts();
        }
        let call = agent.call("bank__transfer", payment(reference)).call();
        browser.visit(&served, "/");
        browser.double_click("form.approve button");
        assert!(agent.wait(&call).succeeded());
        browser.visit(&served, &format!("/calls/{call}"));
        let page = browser.text();
        assert_eq!(page.matches("Approved by ana").count(), 1, "{page}");
        assert_eq!(world.paid(reference), 1);
    }
}

#[test]
fn nobody_approves_what_has_changed_meanwhile() {
    let world = asking("");
    let served = world.serve();
    let mut agent = nightly(&served);
    let call = agent.call("bank__transfer", payment_of(10, "INV-1")).call();
    let browser = ana(&served);
    // This window hears no news.
    let first = browser.window();
    browser.without_scripts();
    browser.visit(&served, &format!("/calls/{call}"));

    let second = browser.new_window();
    browser.visit(&served, "/");
    let shown = browser.value("document.querySelector('input[name=digest]').value");
    browser.new_window();
    browser.visit(&served, &format!("/calls/{call}"));
    browser.click("details[data-key=edit] summary");
    browser.write("#new-arguments", &payment_of(90, "INV-1").to_string());
    browser.click("details[data-key=edit] button");
    browser.wait_for_text("it is asked again with the new arguments");

    // Who hears the news sees the new question, and decides on no other.
    browser.switch_to(&second);
    browser.wait_until(&format!("document.querySelector('input[name=digest]').value !== {shown}"));
    assert!(browser.text().contains("90"), "{}", browser.text());

    browser.switch_to(&first);
    browser.click("form.approve button");
    browser.wait_for_text("It is not what you were shown");
    let page = browser.text();
    assert!(page.contains("Nothing was decided") && page.contains("\"amount\": 90"), "{page}");
    assert_eq!(Desk::of(&served, ANA).call(&call)["call"]["state"], "asking");
    assert_eq!(world.ledger().len(), 0);
    browser.click("form.approve button");
    assert!(agent.wait(&call).succeeded());
    assert_eq!(world.ledger()[0]["amount"], 90);
}

#[test]
fn time_runs_out_before_ones_eyes() {
    let world = asking("[rule.gate]\napprove_by = \"12s\"\n");
    let served = world.serve();
    let browser = ana(&served);
    let mut agent = nightly(&served);
    let call = agent.call("bank__transfer", payment("INV-1")).call();
    browser.wait_for(&format!("{} time.left.soon", card(&call)));
    browser.wait_for_no(&card(&call));
    browser.wait_for_text("Nothing waits for you.");
    assert_eq!(agent.wait(&call).code(), "expired");

    let call = agent.call("bank__transfer", payment("INV-2")).call();
    browser.visit(&served, &format!("/calls/{call}"));
    browser.wait_for("h1 .s-expired");
    browser.wait_for_no("form.approve");
    assert_eq!(world.ledger().len(), 0);
}

#[test]
fn the_keyboard_is_enough() {
    let world = asking("");
    let served = world.serve();
    let mut agent = nightly(&served);
    let call = agent.call("bank__transfer", payment("INV-1")).call();
    let browser = ana(&served);
    browser.wait_for(&card(&call));
    let on_approve = "document.activeElement.closest('form.approve') !== null";
    for _ in 0..40 {
        if browser.value(on_approve) == true {
            break;
        }
        browser.press(TAB);
        assert_eq!(browser.value(FOCUS_SHOWS), true, "{}", browser.value("document.activeElement.outerHTML"));
    }
    assert_eq!(browser.value(on_approve), true, "Tab leads to it");
    browser.press(ENTER);
    browser.wait_for_text("It is sent at most once");
    assert!(agent.wait(&call).succeeded());

    // And by the shortcuts that the page lists.
    let call = agent.call("bank__transfer", payment("INV-2")).call();
    browser.wait_for(&card(&call));
    browser.press("j");
    browser.press("r");
    browser.press("why not");
    browser.press(ENTER);
    browser.wait_for_text("rejected. The agent is told.");
    assert!(agent.wait(&call).text().contains("why not"));
    browser.press("?");
    browser.wait_for("dialog[open]");
    assert_eq!(world.ledger().len(), 1);
}

const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";
/// Whoever has the focus shows it.
const FOCUS_SHOWS: &str = "(() => { const node = document.activeElement; const of = getComputedStyle(node);
    return node === document.body || of.outlineStyle !== 'none' && parseFloat(of.outlineWidth) > 0
        || of.boxShadow !== 'none'; })()";

#[test]
fn without_its_script_the_page_is_as_good() {
    let world = asking("");
    let served = world.serve();
    let mut agent = nightly(&served);
    let browser = Browser::open();
    browser.without_scripts();
    browser.sign_in(&served, ANA);
    assert_eq!(browser.count("html.scripted"), 0);
    let calls: Vec<String> =
        (1..=4).map(|n| agent.call("bank__transfer", payment(&format!("INV-{n}"))).call()).collect();
    browser.reload();

    browser.click(&format!("{} form.approve button", card(&calls[0])));
    browser.wait_for_text("It is sent at most once");
    assert!(agent.wait(&calls[0]).succeeded());
    browser.click(&format!("{} details.reject summary", card(&calls[1])));
    browser.write(&format!("{} input[name=reason]", card(&calls[1])), "not today");
    browser.click(&format!("{} details.reject button", card(&calls[1])));
    browser.wait_for_text("rejected. The agent is told.");
    assert!(agent.wait(&calls[1]).text().contains("not today"));
    for call in &calls[2..] {
        browser.click(&format!("{} input[name=pick]", card(call)));
    }
    browser.click("form.batch button[value=approve]");
    browser.wait_for_text("2 calls approved.");
    eventually("all three are paid", || world.ledger().len() == 3);
}

#[test]
fn a_page_outlives_holdfast() {
    let world = asking("");
    let config = std::fs::read_to_string(world.path("holdfast.toml")).expect("it is there");
    let listen_at = |inbox: &str| {
        let config = config.replace("inbox = \"127.0.0.1:0\"", &format!("inbox = \"{inbox}\""));
        world.write("holdfast.toml", &config);
    };
    // Where nobody else takes the port while it is away.
    listen_at("127.61.7.1:0");
    let served = world.serve();
    let mut agent = nightly(&served);
    let call = agent.call("bank__transfer", payment("INV-1")).call();
    let browser = ana(&served);
    browser.wait_for("#live.on");
    let inbox = served.inbox.clone();
    served.kill();
    browser.wait_for("#live:not(.on)");
    assert!(browser.text().contains("INV-1"), "what was there can still be read");

    // The same address, as it is in real life.
    listen_at(&inbox);
    let served = world.serve();
    // By itself it comes back, and asks who is there: sessions do not outlive the process.
    browser.wait_for("#token");
    browser.write("#token", ANA);
    browser.click("form button.primary");
    browser.wait_for(&card(&call));
    browser.wait_for("#live.on");
    browser.click(&format!("{} form.approve button", card(&call)));
    browser.wait_for_text("It is sent at most once");
    assert!(nightly(&served).wait(&call).succeeded());
    assert_eq!(world.paid("INV-1"), 1);
}
