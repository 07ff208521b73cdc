//! What receivers see, byte for byte where bytes are signed.

use holdfast_store::{CallId, State};
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::*;
use crate::notify::message::About;

const ID: &str = "0190a1fe-9b7a-74a5-8829-69dc0eb5a522";

fn held(tool: &str) -> Message {
    let call: CallId = ID.parse().expect("an id");
    Message {
        id: "hf_0190a1fe9b7a74a5882969dc0eb5a522_0".to_owned(),
        at: Millis(1_700_000_000_123),
        url: format!("https://holdfast.example/calls/{ID}"),
        news: News::Call(
            Topic::Held,
            About {
                call,
                principal: "nightly".to_owned(),
                server: "bank".to_owned(),
                tool: tool.to_owned(),
                state: State::Asking,
                deadline: Some(Millis(1_700_000_600_999)),
            },
        ),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn a_webhook_is_signed_as_the_specification_shows() {
    // The example of the specification and of its libraries.
    let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("base64");
    let text = "msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{\"test\": 2432232314}";
    assert_eq!(sign(&Secret(key), text), "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

#[test]
fn a_webhook_says_ids_and_names() {
    let secret = Secret(vec![7; 24]);
    let (headers, body) = webhook(&held("transfer"), &secret, Millis(1_700_000_001_999));
    assert_eq!(
        serde_json::from_str::<Value>(&body).expect("JSON"),
        json!({
            "type": "call.held",
            "timestamp": "2023-11-14T22:13:20.123Z",
            "data": {
                "call": ID,
                "short_id": "0eb5a522",
                "server": "bank",
                "tool": "transfer",
                "principal": "nightly",
                "state": "asking",
                "deadline": "2023-11-14T22:23:20.999Z",
                "url": format!("https://holdfast.example/calls/{ID}"),
            },
        })
    );
    assert_eq!(header(&headers, "webhook-id"), "hf_0190a1fe9b7a74a5882969dc0eb5a522_0");
    assert_eq!(header(&headers, "webhook-timestamp"), "1700000001");
    let signed = format!("hf_0190a1fe9b7a74a5882969dc0eb5a522_0.1700000001.{body}");
    assert_eq!(header(&headers, "webhook-signature"), format!("v1,{}", sign(&secret, &signed)));
}

#[test]
fn names_mean_nothing_to_slack() {
    let text = |tool: &str| {
        let (_, body) = slack(&held(tool));
        let body: Value = serde_json::from_str(&body).expect("JSON");
        body["text"].as_str().expect("a text").to_owned()
    };
    assert_eq!(
        text("transfer"),
        format!(
            "*A call waits for approval*\nTool `transfer` of server `bank`, called by `nightly` (call 0eb5a522). \
             To be decided by 2023-11-14T22:23:20Z.\n<https://holdfast.example/calls/{ID}|Open the inbox>"
        )
    );
    let evil = text("<!channel> `*x*` <https://evil.example|Open the inbox> & co");
    assert!(
        evil.contains(
            "Tool `&lt;!channel&gt; \\u{60}*x*\\u{60} &lt;https://evil.example|Open the inbox&gt; &amp; co` of"
        ),
        "{evil}"
    );
    assert_eq!(evil.matches('<').count(), 1, "only our own link");
}

#[test]
fn no_name_is_in_a_header_of_ntfy() {
    let (headers, body) = ntfy(&held("x\r\nTags: skull\r\n\r\nü"), Some(&Secret(b"tk_1".to_vec())));
    assert_eq!(header(&headers, "title"), "A call waits for approval");
    assert_eq!(header(&headers, "tags"), "raised_hand");
    assert_eq!(header(&headers, "click"), format!("https://holdfast.example/calls/{ID}"));
    assert_eq!(header(&headers, "authorization"), "Bearer tk_1");
    assert!(headers.values().all(|value| !String::from_utf8_lossy(value.as_bytes()).contains("skull")));
    assert!(body.contains("of server bank"), "{body}");
    assert!(!ntfy(&held("x"), None).0.contains_key("authorization"));
}

#[test]
fn no_name_is_an_option_or_markup_for_a_program() {
    let [title, text] = arguments(&held("--help <a href='https://evil.example'>x</a> &amp;"));
    assert_eq!(title, "A call waits for approval");
    assert!(text.starts_with("Tool --help \\u{3c}a href="), "{text}");
    assert!(!text.contains(['<', '>', '&']), "{text}");
    assert!(text.ends_with(&format!("\nhttps://holdfast.example/calls/{ID}")), "{text}");
}

#[test]
fn a_test_says_that_it_is_one() {
    let message = Message::test(Millis(1_700_000_000_000), "https://holdfast.example");
    let (_, body) = webhook(&message, &Secret(vec![7; 24]), Millis(0));
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(body["type"], "holdfast.test");
    assert_eq!(body["data"], json!({ "url": "https://holdfast.example/" }));
    assert!(message.id.starts_with("hf_test_") && message.id != Message::test(Millis(0), "").id);
}
