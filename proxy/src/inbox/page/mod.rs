//! The page where a person answers: rendered here, readable without its script, live with it.
//!
//! * `session`, `login`, `link`, `limit`, `posted`: who is there, and whether a form is theirs.
//! * `shell`, `text`, `json`, `card`, `forms`, `assets`: how things look.
//! * `waiting`, `remembered`, `doubt`, `calls`, `call`, `timeline`, `entries`, `servers`, `overview`, `figures`: what is shown.
//! * `decide`: what is posted.
//!
//! Invariants: a GET never changes anything. Text of others goes through `text` or maud's own escaping. Decisions carry
//! the digest that was shown, and go the same way as the API's.

mod assets;
mod call;
mod calls;
mod card;
mod changed;
mod decide;
mod doubt;
mod entries;
mod figures;
mod forms;
mod json;
mod limit;
mod link;
mod login;
mod overview;
mod posted;
mod remembered;
mod servers;
mod session;
mod shell;
mod text;
mod timeline;
mod waiting;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use tokio_util::sync::CancellationToken;

use crate::config::Operator;

pub(super) use self::session::Session;
use self::{limit::Guesses, link::Links, posted::Fields, session::Sessions};
use super::{Inbox, desk::Desk, events, live::Live, proxied::Introduced, sign_in};

/// What the page keeps while `serve` runs.
pub(crate) struct Page {
    sessions: Sessions,
    links: Links,
    /// Who has guessed how often.
    pub(super) guesses: Guesses,
    /// Seals login forms.
    key: [u8; 32],
    /// Who is told when something changes, here and through the API.
    pub(super) live: Live,
}

impl Page {
    /// Nobody is signed in yet. `stop` ends the streams of events.
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self {
            sessions: Sessions::default(),
            links: Links::default(),
            guesses: Guesses::default(),
            key: rand::random(),
            live: Live::new(stop),
        }
    }

    /// The path that signs the one operator in, once; an earlier one no longer works.
    pub(crate) fn login_link(&self) -> String {
        format!("login/{}", self.links.make())
    }

    /// Signs out whoever is not in `now` as in `before`: other tokens, other people.
    pub(crate) fn sign_out_others(&self, before: &[Operator], now: &[Operator]) {
        let token = |operators: &[Operator], name: &str| {
            operators.iter().find(|operator| operator.name == name).map(|operator| operator.token_sha256)
        };
        if before != now {
            // Whoever follows it would be signed in as somebody else than it was made for.
            self.links.forget();
        }
        self.sessions.retain(|name| token(now, name).is_some() && token(now, name) == token(before, name));
    }

    /// Whether the session has not ended.
    pub(super) fn is_alive(&self, session: &Session) -> bool {
        self.sessions.is_alive(session)
    }
}

/// A page with nothing around it.
pub(super) fn plain(title: &str, body: &maud::Markup) -> Response {
    shell::bare(title, body).into_response()
}

/// The routes of the page.
pub(super) fn routes<D: Desk>(inbox: &Arc<Inbox<D>>) -> Router<Arc<Inbox<D>>> {
    let signed_in = Router::new()
        .route("/", get(waiting::show::<D>))
        .route("/doubt", get(doubt::show::<D>))
        .route("/calls", get(calls::show::<D>))
        .route("/servers", get(servers::show::<D>))
        .route("/overview", get(overview::show::<D>))
        .route("/events", get(events::page::<D>))
        .route("/calls/{id}", get(call::show::<D>))
        .route("/calls/{id}/history.json", get(call::history::<D>))
        .route("/calls/{id}/answer.json", get(call::large_answer::<D>))
        .route("/calls/{id}/approve", post(decide::approve::<D>))
        .route("/calls/{id}/reject", post(decide::reject::<D>))
        .route("/calls/{id}/edit", post(decide::edit::<D>))
        .route("/calls/{id}/respond", post(decide::respond::<D>))
        .route("/calls/{id}/revoke", post(decide::revoke::<D>))
        .route("/calls/{id}/break-glass", post(decide::break_glass::<D>))
        .route("/calls/{id}/resolve", post(decide::resolve::<D>))
        .route("/calls/{id}/cancel", post(decide::cancel::<D>))
        .route("/calls/{id}/release", post(decide::release::<D>))
        .route("/calls/{id}/remember", post(remembered::remember::<D>))
        .route("/calls/{id}/approve-and-remember", post(remembered::approve::<D>))
        .route("/remembered", get(remembered::show::<D>))
        .route("/remembered/{id}/forget", post(remembered::forget::<D>))
        .route("/servers/accept", post(changed::accept::<D>))
        .route("/batch", post(decide::batch::<D>))
        .route("/logout", post(login::logout::<D>))
        .layer(middleware::from_fn_with_state(inbox.clone(), require::<D>));
    Router::new()
        .route(sign_in::CALLBACK, get(sign_in::callback::<D>))
        .route("/login", get(login::form::<D>).post(login::submit::<D>))
        .route("/login/{link}", get(login::link::<D>).post(login::follow::<D>))
        .merge(signed_in)
        .layer(middleware::map_response(page_headers))
        .route("/assets/{name}", get(assets::get))
}

/// Lets only sessions pass, and forms only with their session's token.
async fn require<D: Desk>(State(inbox): State<Arc<Inbox<D>>>, mut request: Request, next: Next) -> Response {
    let session = match request.extensions().get::<Introduced>() {
        Some(Introduced(operator)) => Some(inbox.page.sessions.introduced(operator)),
        None => inbox.page.sessions.find(&inbox.operators, request.headers()),
    };
    let Some(session) = session else {
        return not_signed_in(&inbox, &request);
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        match Fields::read(request).await {
            Ok((read, fields)) if fields.has_token(&session.csrf) => {
                request = read;
                request.extensions_mut().insert(fields);
            }
            Ok(_) => return refused("It does not carry the token of your session: look at the page again."),
            Err(why) => return refused(why),
        }
    }
    request.extensions_mut().insert::<Session>(session);
    next.run(request).await
}

fn refused(why: &str) -> Response {
    let body = maud::html! {
        h1 { "Nothing was decided" }
        p { "This form was refused. " (why) }
        p { a.button href="/" { "Back to the inbox" } }
    };
    (StatusCode::FORBIDDEN, shell::bare("Refused", &body)).into_response()
}

fn not_signed_in<D>(inbox: &Inbox<D>, request: &Request) -> Response {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Redirect::to("/login?ended=1").into_response();
    }
    if wants_events(request.headers()) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    // A link on another site does not bring the cookie along, but a page of ours does.
    let site = request.headers().get("sec-fetch-site").and_then(|site| site.to_str().ok());
    if matches!(site, Some("cross-site" | "same-site")) {
        return shell::stepping_stone(path).into_response();
    }
    if path == "/" {
        return login::ask(inbox, request.headers(), "/", None, StatusCode::OK);
    }
    Redirect::to(&format!("/login?next={}", query_value(path))).into_response()
}

fn wants_events(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/event-stream"))
}

/// `text` as the value of a query or form.
fn query_value(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// The headers of pages, where those of the API would be too strict: our own script, style and forms, nothing else.
/// With `no-referrer` browsers would not say where a form comes from.
async fn page_headers(uri: Uri, mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in PAGE_HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if uri.path().starts_with("/login/") {
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("origin"));
    }
    response
}

const PAGE_HEADERS: [(header::HeaderName, &str); 3] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; frame-ancestors 'none'; base-uri 'none'; \
         require-trusted-types-for 'script'; trusted-types holdfast",
    ),
    (header::REFERRER_POLICY, "same-origin"),
    (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

#[cfg(test)]
mod tests;
