//! What a client takes as a response, by its `Accept` headers.

use hyper::{HeaderMap, header};

/// What a client takes as a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accepts {
    /// `application/json`
    pub(super) json: bool,
    /// `text/event-stream`
    pub(super) events: bool,
    /// Which of the two it names first.
    pub(super) first: Prefers,
}

/// What a client that takes both likes better, as far as the order of its `Accept` header tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prefers {
    Json,
    Events,
}

impl Accepts {
    /// What the `Accept` headers say; without any, everything. Weights do not matter here but for zero.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut accepts = Self { json: false, events: false, first: Prefers::Json };
        let mut values = headers.get_all(header::ACCEPT).iter().peekable();
        if values.peek().is_none() {
            return Self { json: true, events: true, first: Prefers::Json };
        }
        for entry in values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')) {
            let (kind, parameters) = entry.split_once(';').unwrap_or((entry, ""));
            let refused = parameters.split(';').any(|parameter| {
                let weight = parameter.trim().strip_prefix("q=");
                weight.is_some_and(|weight| weight.parse::<f32>().is_ok_and(|weight| weight == 0.0))
            });
            let kind = kind.trim().to_ascii_lowercase();
            if !refused && kind == "text/event-stream" && !accepts.json {
                accepts.first = Prefers::Events;
            }
            accepts.json |= !refused && matches!(kind.as_str(), "application/json" | "application/*" | "*/*");
            accepts.events |= !refused && matches!(kind.as_str(), "text/event-stream" | "text/*" | "*/*");
        }
        accepts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_accept() {
        let check = |accept: Option<&str>, json: bool, events: bool, first: Prefers| {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT, accept.parse().expect("a header value"));
            }
            assert_eq!(Accepts::of(&headers), Accepts { json, events, first }, "{accept:?}");
        };
        check(None, true, true, Prefers::Json);
        check(Some("*/*"), true, true, Prefers::Json);
        check(Some("application/json, text/event-stream"), true, true, Prefers::Json);
        check(Some("text/event-stream, application/json"), true, true, Prefers::Events);
        check(Some("Application/JSON;charset=utf-8"), true, false, Prefers::Json);
        check(Some("text/event-stream;q=0.5, application/json;q=0"), false, true, Prefers::Events);
        check(Some("text/html"), false, false, Prefers::Json);
    }
}
