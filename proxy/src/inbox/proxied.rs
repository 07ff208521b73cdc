//! Operators whom a trusted reverse proxy names in a header. From anybody else the header says nothing.

use axum::{extract::Request, http::HeaderName};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use super::access::peer;
use crate::{
    config::{Operator, TrustedProxy},
    front::Came,
};

/// How decisions record this way in, at the API and at the page.
pub(super) const API: &str = "api/proxy";
pub(super) const INBOX: &str = "inbox/proxy";

const SECRET: HeaderName = HeaderName::from_static("holdfast-proxy-secret");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The operator that the proxy has named, for handlers.
#[derive(Clone, Debug)]
pub(super) struct Introduced(pub(super) Operator);

/// How `request` came here. What only the proxy may say is taken out of requests that came otherwise, and whom it names
/// is left as [`Introduced`].
///
/// # Errors
/// Where the proxy names nobody that there is, or several.
pub(super) fn came(
    proxy: Option<&TrustedProxy>,
    operators: &[Operator],
    request: &mut Request,
) -> Result<Came, String> {
    let Some(proxy) = proxy else { return Ok(Came::Straight) };
    let is_there = peer(request).is_some_and(|from| proxy.from.iter().any(|network| network.has(from)));
    let knows_it = knows_secret(proxy, request);
    let headers = request.headers_mut();
    headers.remove(SECRET);
    if !(is_there && knows_it) {
        headers.remove(PROTO);
        if let Some(name) = &proxy.user_header
            && headers.remove(name).is_some()
        {
            tracing::warn!(is_there, knows_it, "somebody who is not the trusted proxy said who they are");
        }
        return Ok(Came::Straight);
    }
    let Some(name) = &proxy.user_header else { return Ok(Came::ByProxy) };
    let mut named = headers.get_all(name).iter();
    let Some(user) = named.next() else { return Ok(Came::ByProxy) };
    if named.next().is_some() {
        return Err(format!("the header {name} stands twice"));
    }
    // Exactly: names that only look alike are others.
    let operator = operators.iter().find(|operator| operator.name.as_bytes() == user.as_bytes());
    let operator = operator.cloned().ok_or_else(|| format!("the header {name} names no operator"))?;
    request.extensions_mut().insert(Introduced(operator));
    Ok(Came::ByProxy)
}

fn knows_secret(proxy: &TrustedProxy, request: &Request) -> bool {
    let mut shown = request.headers().get_all(SECRET).iter();
    let (Some(shown), None) = (shown.next(), shown.next()) else { return false };
    let hash: [u8; 32] = Sha256::digest(shown.as_bytes()).into();
    hash.ct_eq(&proxy.secret_sha256).into()
}
