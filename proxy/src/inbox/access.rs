//! Who may use the API: the right host and origin, then an operator's token.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use holdfast_store::Decider;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use super::{
    Inbox,
    api::problem,
    failure::Failure,
    proxied::{self, Introduced},
};
use crate::{
    config::{Operator, Role},
    report::Report,
};

/// The operator whose token came with the request, for handlers.
#[derive(Clone, Debug)]
pub(super) struct Signed {
    /// As decisions record it.
    pub(super) by: Decider,
    role: Role,
    break_glass: bool,
}

impl Signed {
    /// # Errors
    /// Why this operator cannot pass the gates for this reason.
    pub(super) fn may_break_glass(&self, why: &str) -> Result<(), Failure> {
        may_break_glass(&self.by.name, self.break_glass, why).map_err(|report| {
            let is_forbidden = report.code == "forbidden";
            Failure::new(if is_forbidden { StatusCode::FORBIDDEN } else { StatusCode::BAD_REQUEST }, report)
        })
    }

    /// # Errors
    /// Where the operator's role is less than `role`.
    pub(super) fn require(&self, role: Role) -> Result<(), Failure> {
        if self.role >= role {
            return Ok(());
        }
        let why = format!("`{}` has the role {}; this needs {}", self.by.name, self.role.name(), role.name());
        let report = Report::forbidden(why)
            .hint("Ask somebody with that role, or change `role` in the configuration.");
        Err(Failure::new(StatusCode::FORBIDDEN, report))
    }
}

/// Whether somebody may approve past the gates, for this reason.
///
/// # Errors
/// Why not.
pub(super) fn may_break_glass(name: &str, may: bool, why: &str) -> Result<(), Report> {
    if !may {
        return Err(Report::forbidden(format!("`{name}` may not approve past the gates"))
            .hint("Only operators with break_glass = true in the configuration may."));
    }
    if why.trim().is_empty() {
        return Err(Report::bad_request("breaking the glass needs a reason: it will be reviewed"));
    }
    Ok(())
}

/// Checks `Host` and `Origin` of every request, and puts the security headers on every response.
pub(super) async fn guard<D: Send + Sync + 'static>(
    State(inbox): State<Arc<Inbox<D>>>,
    mut request: Request,
    next: Next,
) -> Response {
    let came = proxied::came(inbox.guard.proxy(), &inbox.operators, &mut request);
    let checked = came.and_then(|came| inbox.guard.check(came, request.uri(), request.headers()));
    let mut response = match checked {
        Ok(()) => next.run(request).await,
        Err(why) => {
            let report = Report::forbidden(why).hint("Use the address that `holdfast serve` prints.");
            problem(StatusCode::FORBIDDEN, &report)
        }
    };
    // The page has a policy of its own, and what has its content in its name may be kept.
    for (name, value) in SECURITY_HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

const SECURITY_HEADERS: [(header::HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Lets only operators pass, and tells handlers who it is.
pub(super) async fn authenticate<D: Send + Sync + 'static>(
    State(inbox): State<Arc<Inbox<D>>>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Some(Introduced(operator)) = request.extensions().get::<Introduced>() {
        let by = Decider { via: proxied::API.to_owned(), ..decider(operator, request.headers()) };
        let signed = Signed { by, role: operator.role, break_glass: operator.break_glass };
        request.extensions_mut().insert(signed);
        return next.run(request).await;
    }
    let Some(token) = bearer(request.headers()) else { return unauthorized() };
    let (from, hash) = (peer(&request), hash(token));
    let guesses = &inbox.page.guesses;
    if let Some(left) = guesses.must_wait(from).filter(|_| !guesses.knows(from, hash)) {
        return too_many_guesses(left);
    }
    let Some(operator) = whose(&inbox.operators, &hash, |operator| operator.token_sha256.as_ref()) else {
        if whose(&inbox.agents, &hash, |agent| Some(&agent.token_sha256)).is_some() {
            let report =
                Report::forbidden("this is an agent's token: agents do not use the inbox and never decide")
                    .hint("Tell the user that an operator has to do it.");
            return problem(StatusCode::FORBIDDEN, &report);
        }
        if !token.is_empty() {
            guesses.wrong(from);
            let from = from.map(tracing::field::display);
            tracing::warn!(from, "a wrong token was given at the inbox's API");
        }
        return unauthorized();
    };
    guesses.right(from, hash);
    let signed = Signed {
        by: decider(operator, request.headers()),
        role: operator.role,
        break_glass: operator.break_glass,
    };
    request.extensions_mut().insert(signed);
    next.run(request).await
}

/// The address at the other end of the connection.
pub(super) fn peer(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip())
}

/// SHA-256 of a token.
pub(super) fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Compares with everybody's, each in constant time, whether or not one was found before.
pub(super) fn whose<'a, T>(
    people: &'a [T],
    hash: &[u8; 32],
    of: impl Fn(&T) -> Option<&[u8; 32]>,
) -> Option<&'a T> {
    let is_its = |one: &T| of(one).is_some_and(|own| own.ct_eq(hash).into());
    people.iter().fold(None, |found, one| if is_its(one) { Some(one) } else { found })
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn decider(operator: &Operator, headers: &HeaderMap) -> Decider {
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    let via = if agent.is_some_and(|agent| agent.starts_with("holdfast-cli/")) { "cli" } else { "api" };
    Decider { name: operator.name.clone(), groups: operator.groups.clone(), via: via.to_owned() }
}

fn too_many_guesses(left: Duration) -> Response {
    let seconds = left.as_secs() + 1;
    let report = Report::new("too-many-guesses", "too many wrong tokens came from your address")
        .hint(format!("Try again in {seconds} s, with the right one."));
    let mut response = problem(StatusCode::TOO_MANY_REQUESTS, &report);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

fn unauthorized() -> Response {
    let report = Report::unauthorized(
        "Send `Authorization: Bearer TOKEN` with an operator's token; commands take it from HOLDFAST_OPERATOR_TOKEN.",
    );
    let mut response = problem(StatusCode::UNAUTHORIZED, &report).into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}
