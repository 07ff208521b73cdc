//! One request to one receiver: checked addresses, no redirect, no proxy, a short time, and a little of the answer.

use std::{
    error::Error,
    sync::{Arc, Once},
    time::{Duration, SystemTime},
};

use reqwest::{
    Client, Response, StatusCode, Url,
    header::{HeaderMap, RETRY_AFTER},
};

use super::{
    Failure, Outlook,
    guard::{LookUp, Refused, Resolver, check_url},
};
use crate::{config::Reach, inbox::visible::visible, upstream::retry_after_ms};

const CONNECT: Duration = Duration::from_secs(5);
const WHOLE: Duration = Duration::from_secs(15);
/// As much of an answer as can be of use to a person.
const LONGEST_ANSWER_BYTES: usize = 2 * 1024;
const LONGEST_QUOTE: usize = 160;

/// A POST that is ready to go.
pub(super) struct Post<'a> {
    pub(super) url: &'a Url,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

/// A client for receivers of this reach.
///
/// Nothing is kept open: each delivery resolves the name again and has its addresses checked.
///
/// # Errors
/// In words.
pub(super) fn client(url: &Url, reach: Reach, look_up: Arc<impl LookUp>) -> Result<Client, String> {
    static PROVIDER: Once = Once::new();
    // An error says that another part of this program has chosen a provider, which is as good.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    let mut client = Client::builder()
        .dns_resolver(Resolver { look_up, reach })
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(CONNECT)
        .timeout(WHOLE)
        .pool_max_idle_per_host(0)
        .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")));
    if url.scheme() == "http" {
        // Reading the system's certificates is slow and fails where there are none.
        client = client.tls_certs_only([]);
    }
    client.build().map_err(|error| format!("no HTTP client for it: {}", in_full(&error)))
}

/// Sends it once.
///
/// # Errors
/// What came of it, and whether another try may help.
pub(super) async fn send(client: &Client, post: Post<'_>, reach: Reach) -> Result<String, Failure> {
    let refused = |what: String| Failure { what, outlook: Outlook::Doubtful };
    check_url(post.url, reach).map_err(|error| refused(error.to_string()))?;
    let request = client.post(post.url.clone()).headers(post.headers).body(post.body);
    let response = request.send().await.map_err(|error| {
        // The address is half a password at some receivers: it is not repeated.
        let error = error.without_url();
        match refusal(&error) {
            Some(why) => refused(why.to_string()),
            None if error.is_timeout() => {
                Failure { what: "it did not answer in time".to_owned(), outlook: Outlook::Later(None) }
            }
            None => Failure { what: in_full(&error), outlook: Outlook::Later(None) },
        }
    })?;
    let status = response.status();
    let wait = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let wait = wait.and_then(|value| retry_after_ms(value, SystemTime::now())).map(Duration::from_millis);
    if status.is_success() {
        return Ok(format!("HTTP {}", status.as_u16()));
    }
    let quote = quote(response).await;
    Err(Failure {
        what: format!("it answered HTTP {}{quote}", status.as_u16()),
        outlook: outlook(status, wait),
    })
}

fn outlook(status: StatusCode, wait: Option<Duration>) -> Outlook {
    match status {
        StatusCode::GONE => Outlook::Gone,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Outlook::Later(wait)
        }
        status if status.is_server_error() => Outlook::Later(wait),
        // Redirects too: the receiver has moved, and somebody has to say where to.
        _ => Outlook::Doubtful,
    }
}

/// `: ` and the beginning of the answer; nothing where there is none.
async fn quote(mut response: Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(part)) = response.chunk().await {
        body.extend_from_slice(&part);
        if body.len() >= LONGEST_ANSWER_BYTES {
            break;
        }
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(LONGEST_ANSWER_BYTES)]);
    let line: String = text.trim().lines().next().unwrap_or_default().chars().take(LONGEST_QUOTE).collect();
    if line.is_empty() { String::new() } else { format!(": {}", visible(&line)) }
}

fn refusal(error: &reqwest::Error) -> Option<&Refused> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(refused) = error.downcast_ref::<Refused>() {
            return Some(refused);
        }
        source = error.source();
    }
    None
}

fn in_full(error: &reqwest::Error) -> String {
    let mut parts = Vec::new();
    let mut source = error.source();
    while let Some(error) = source {
        parts.push(error.to_string());
        source = error.source();
    }
    if parts.is_empty() { "the request failed".to_owned() } else { parts.join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_help_later() {
        let check = |status: u16, expected: Outlook| {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(outlook(status, None), expected, "{status}");
        };
        for status in [408, 425, 429, 500, 502, 503, 504] {
            check(status, Outlook::Later(None));
        }
        for status in [301, 302, 307, 400, 401, 403, 404] {
            check(status, Outlook::Doubtful);
        }
        check(410, Outlook::Gone);
        let wait = Some(Duration::from_secs(7));
        assert_eq!(outlook(StatusCode::TOO_MANY_REQUESTS, wait), Outlook::Later(wait));
    }
}
