//! A form that was posted: from a page of ours, by whom it was shown to, or not at all.

use axum::{
    body::Body,
    http::{HeaderMap, Request, header},
};
use subtle::ConstantTimeEq;

use super::super::body::{self, Unread};

/// The fields of a form, in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads the body of `request`, after looking where it comes from.
    ///
    /// # Errors
    /// Why the form is not taken, in words for whoever sent it.
    pub(super) async fn read(request: Request<Body>) -> Result<(Request<Body>, Self), &'static str> {
        is_ours(request.headers())?;
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err("It was not sent as a form.");
        }
        let (parts, body) = request.into_parts();
        let body = body::read(body).await.map_err(|unread| match unread {
            Unread::TooLarge => "It is too large.",
            Unread::TooSlow | Unread::Broken => "Not all of it arrived in time.",
        })?;
        let fields = form_urlencoded::parse(&body).into_owned().collect();
        Ok((Request::from_parts(parts, Body::empty()), Self(fields)))
    }

    /// The first field of that name; empty where there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// Every field of that name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether the form carries this token.
    pub(super) fn has_token(&self, token: &str) -> bool {
        self.get("csrf").as_bytes().ct_eq(token.as_bytes()).into()
    }

    /// Where to go next: a path of ours, or `otherwise`.
    pub(super) fn back(&self, otherwise: &str) -> String {
        let wanted = self.get("back");
        if is_path(wanted) { wanted.to_owned() } else { otherwise.to_owned() }
    }
}

/// Whether `text` is a path on this server, and no browser takes it for another address.
pub(super) fn is_path(text: &str) -> bool {
    text.starts_with('/')
        && !text.starts_with("//")
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
}

/// Browsers say where a form comes from, by `Origin` and `Sec-Fetch-Site`: only the very origin that it goes to counts.
/// Another port of this machine is another origin, although cookies go there too.
fn is_ours(headers: &HeaderMap) -> Result<(), &'static str> {
    const STRANGER: &str = "It does not come from a page of this inbox.";
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let site = text("sec-fetch-site");
    if site.is_some_and(|site| site != "same-origin") {
        return Err(STRANGER);
    }
    match (text("origin"), text("host")) {
        (Some(origin), Some(host)) => {
            let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            if authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host)) {
                Ok(())
            } else {
                Err(STRANGER)
            }
        }
        // Every browser sends one of the two with a form.
        _ if site.is_some() => Ok(()),
        _ => Err(STRANGER),
    }
}
