//! Signing in and out: by an operator's token, or by a link that works once. Looking at the link does nothing.

use std::sync::Arc;

use axum::{
    Extension,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, Request, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use holdfast_store::hash_fields;
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    super::{Inbox, access, desk::Desk},
    posted::{Fields, is_path},
    session::{Session, cookie, cookie_name, set_cookie},
    shell,
};
use crate::{address::random_token, config::Operator};

/// The cookie of somebody who is not signed in yet: the login form is bound to it.
const VISITOR: &str = "holdfast-visitor";

#[derive(Debug, Default, Deserialize)]
pub(super) struct Next {
    #[serde(default)]
    next: String,
    #[serde(default)]
    ended: String,
}

/// `GET /login`
pub(super) async fn form<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Query(query): Query<Next>,
    headers: HeaderMap,
) -> Response {
    let said = (!query.ended.is_empty())
        .then_some("You are no longer signed in, so nothing was decided. Sign in, look again, then decide.");
    ask(&inbox, &headers, &query.next, said, StatusCode::OK)
}

/// The login form, as the answer to any request of somebody who is not signed in.
pub(super) fn ask<D>(
    inbox: &Inbox<D>,
    headers: &HeaderMap,
    next: &str,
    said: Option<&str>,
    status: StatusCode,
) -> Response {
    let next = if is_path(next) { next } else { "/" };
    let visitor = visitor(headers);
    let body = html! {
        h1 { "Sign in" }
        @if let Some(said) = said { p.flash.bad role="alert" { (said) } }
        form method="post" action="/login" {
            input type="hidden" name="csrf" value=(seal(inbox, &visitor));
            input type="hidden" name="back" value=(next);
            // Password managers want a name to keep it under.
            input type="text" name="username" value="holdfast" autocomplete="username" hidden;
            label for="token" { "Operator token" }
            input #token type="password" name="token" autocomplete="current-password" required autofocus
                spellcheck="false" autocapitalize="off";
            button.primary type="submit" { "Sign in" }
        }
        details {
            summary { "Where is my token?" }
            p {
                "It is the one of your " code { "[operators.NAME]" } " in the configuration. Without any operators, "
                code { "holdfast serve" } " has made one, kept beside the journal as " code { "*.operator-token" }
                ", and prints a login link when it starts. An agent’s token never works here."
            }
        }
    };
    welcome(headers, "Sign in", &body, &visitor, status)
}

/// `POST /login`
pub(super) async fn submit<D: Desk>(State(inbox): State<Arc<Inbox<D>>>, request: Request<Body>) -> Response {
    let from = access::peer(&request);
    let headers = request.headers().clone();
    let refuse = |said: &str, status| ask(&inbox, &headers, "/", Some(said), status);
    let fields = match read(&inbox, request).await {
        Ok(fields) => fields,
        Err(why) => return refuse(why, StatusCode::FORBIDDEN),
    };
    let next = fields.back("/");
    let refuse = |said: &str, status| ask(&inbox, &headers, &next, Some(said), status);
    let hash = access::hash(fields.get("token").trim());
    let guesses = &inbox.page.guesses;
    if let Some(left) = guesses.must_wait(from).filter(|_| !guesses.knows(from, hash)) {
        let said = format!("Too many wrong tokens. Try again in {} s.", left.as_secs() + 1);
        let mut response = refuse(&said, StatusCode::TOO_MANY_REQUESTS);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(left.as_secs() + 1));
        return response;
    }
    if let Some(operator) = access::whose(&inbox.operators, &hash, |operator| operator.token_sha256.as_ref())
    {
        guesses.right(from, hash);
        return signed_in(&inbox, &headers, operator, &next);
    }
    guesses.wrong(from);
    let is_agents = access::whose(&inbox.agents, &hash, |agent| Some(&agent.token_sha256)).is_some();
    let said = if is_agents {
        "This is an agent’s token. Agents do not use the inbox and never decide."
    } else {
        "This is nobody’s token."
    };
    tracing::warn!(agents = is_agents, "a wrong token was given at the inbox");
    refuse(said, StatusCode::FORBIDDEN)
}

/// `GET /login/{link}`: link scanners come here too, so only the button signs in.
pub(super) async fn link<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Path(secret): Path<String>,
    headers: HeaderMap,
) -> Response {
    if !inbox.page.links.works(&secret) {
        return ask(&inbox, &headers, "/", Some(USED), StatusCode::GONE);
    }
    let visitor = visitor(&headers);
    let body = html! {
        h1 { "Sign in as " (inbox.operators.first().map_or("local", |operator| &operator.name)) }
        p { "This link works once, and is used up by the button." }
        form method="post" action={ "/login/" (secret) } {
            input type="hidden" name="csrf" value=(seal(&inbox, &visitor));
            button.primary type="submit" autofocus { "Sign in" }
        }
    };
    welcome(&headers, "Sign in", &body, &visitor, StatusCode::OK)
}

const USED: &str = "This link has been used or is too old. Sign in with your token, or start `holdfast serve` again for a new link.";

/// `POST /login/{link}`
pub(super) async fn follow<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Path(secret): Path<String>,
    request: Request<Body>,
) -> Response {
    let headers = request.headers().clone();
    if let Err(why) = read(&inbox, request).await {
        return ask(&inbox, &headers, "/", Some(why), StatusCode::FORBIDDEN);
    }
    // A link is only made where the one operator is `local`.
    match inbox.operators.first() {
        Some(operator) if inbox.page.links.follow(&secret) => signed_in(&inbox, &headers, operator, "/"),
        _ => ask(&inbox, &headers, "/", Some(USED), StatusCode::GONE),
    }
}

/// `POST /logout`
pub(super) async fn logout<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(session): Extension<Session>,
    headers: HeaderMap,
) -> Response {
    inbox.page.sessions.end(&session);
    let gone = set_cookie(&headers, "holdfast", None);
    ([(header::SET_COOKIE, gone)], Redirect::to("/login")).into_response()
}

fn signed_in<D>(inbox: &Inbox<D>, headers: &HeaderMap, operator: &Operator, next: &str) -> Response {
    tracing::info!(operator = operator.name, "signed in to the inbox");
    let cookie = inbox.page.sessions.begin(operator);
    let cookie = set_cookie(headers, "holdfast", Some(&cookie));
    ([(header::SET_COOKIE, cookie)], Redirect::to(next)).into_response()
}

/// The fields of a login form that this browser was shown.
async fn read<D>(inbox: &Inbox<D>, request: Request<Body>) -> Result<Fields, &'static str> {
    const STALE: &str = "The form was too old, or cookies are blocked. Try again.";
    let visitor = cookie(request.headers(), &cookie_name(request.headers(), VISITOR)).ok_or(STALE);
    let (_, fields) = Fields::read(request).await?;
    if fields.has_token(&seal(inbox, &visitor?)) { Ok(fields) } else { Err(STALE) }
}

fn visitor(headers: &HeaderMap) -> String {
    let is_ours = |value: &String| value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    cookie(headers, &cookie_name(headers, VISITOR)).filter(is_ours).unwrap_or_else(random_token)
}

/// What the login form shown to `visitor` carries. Of fixed length, so nothing can be appended to it.
fn seal<D>(inbox: &Inbox<D>, visitor: &str) -> String {
    hash_fields("holdfast/visitor", &[&inbox.page.key, visitor.as_bytes()]).to_string()
}

fn welcome(headers: &HeaderMap, title: &str, body: &Markup, visitor: &str, status: StatusCode) -> Response {
    let cookie = set_cookie(headers, VISITOR, Some(visitor));
    (status, [(header::SET_COOKIE, cookie)], shell::bare(title, body)).into_response()
}
