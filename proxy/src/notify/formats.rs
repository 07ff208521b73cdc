//! One message in the ways that receivers want it: signed JSON, Slack's text, ntfy's headers, a program's arguments.
//!
//! Names come from servers and from requests. Where the receiver gives characters a meaning, names are quoted so that
//! they have none; headers hold words of ours only.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use holdfast_store::Millis;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use sha2::Sha256;

use super::message::{Message, News, Topic};
use crate::config::Secret;

/// Headers and body of a request.
pub(super) type Letter = (HeaderMap, String);

/// JSON, signed as Standard Webhooks 1.0 says: HMAC-SHA256 over `id.timestamp.body`, the time in seconds.
pub(super) fn webhook(message: &Message, secret: &Secret, now: Millis) -> Letter {
    let body = message.json();
    let time = (now.0 / 1000).to_string();
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let signature = format!("v1,{}", sign(secret, &format!("{}.{time}.{body}", message.id)));
    for (name, value) in
        [("webhook-id", &message.id), ("webhook-timestamp", &time), ("webhook-signature", &signature)]
    {
        headers.insert(HeaderName::from_static(name), ours(value));
    }
    (headers, body)
}

fn sign(secret: &Secret, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(&secret.0).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

/// Ids, numbers and base64 are header values.
fn ours(value: &str) -> HeaderValue {
    HeaderValue::try_from(value).expect("made of letters, digits and signs that headers carry")
}

/// The text of an incoming webhook. Names stand in code, where nothing but the end of it has a meaning.
pub(super) fn slack(message: &Message) -> Letter {
    let quote = |name: &str| format!("`{}`", slack_text(&name.replace('`', "\\u{60}")));
    let text = format!("*{}*\n{}\n<{}|Open the inbox>", message.title(), message.text(quote), message.url);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    (headers, json!({ "text": text }).to_string())
}

/// Slack's three characters, as Slack's documentation wants them.
fn slack_text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Text to a topic of ntfy. The title is ours and ASCII, so that no name is ever in a header.
pub(super) fn ntfy(message: &Message, token: Option<&Secret>) -> Letter {
    let (tags, priority) = match &message.news {
        News::Call(Topic::Held, _) => ("raised_hand", "4"),
        News::Call(Topic::InDoubt, _) => ("question", "4"),
        News::Call(Topic::Expired, _) => ("hourglass", "3"),
        News::Call(Topic::Glass, _) => ("rotating_light", "4"),
        News::Test => ("wave", "3"),
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    for (name, value) in
        [("title", message.title()), ("tags", tags), ("priority", priority), ("click", &message.url)]
    {
        headers.insert(HeaderName::from_static(name), ours(value));
    }
    // Checked where it was read.
    let bearer =
        token.and_then(|token| HeaderValue::from_bytes(&[b"Bearer ", token.0.as_slice()].concat()).ok());
    if let Some(mut bearer) = bearer {
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
    }
    (headers, message.text(str::to_owned))
}

/// Title and text as the last two arguments of a program. Neither begins with a name, so neither is an option.
pub(super) fn arguments(message: &Message) -> [String; 2] {
    // Some desktops read markup in the text (notify-send): there the three characters have no plain form everywhere.
    let plain = |name: &str| name.replace('&', "\\u{26}").replace('<', "\\u{3c}").replace('>', "\\u{3e}");
    [message.title().to_owned(), format!("{}\n{}", message.text(plain), message.url)]
}

#[cfg(test)]
mod tests;
