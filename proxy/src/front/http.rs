//! One HTTP request: may it come in, who asks, which message, and who answers it.

use std::{borrow::Cow, collections::BTreeSet, sync::Arc, time::Instant};

use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
};
use serde_json::{Map, Value, value::RawValue};
use tokio_util::sync::CancellationToken;

use holdfast_store::{Caller, Text};

use super::{
    Front,
    accept::Accepts,
    body::{self, Outgoing},
    call::{self, Asked, Cancellable},
    era::{self, Carrier, Era, META_CAPABILITIES, META_LOG_LEVEL},
    fetch,
    guard::Came,
    listen::Link,
    problem::Problem,
    replay::Habit,
    resume, rpc,
    stream::{self, Announcements},
    surface::Surface,
    tools,
    visitor::{Refused, Visitor},
};
use crate::{
    driver::{Evidence, now},
    upstream::{Client, Said, Speaks},
    wire::{self, Envelope},
};

/// The path of the one endpoint.
const PATH: &str = "/mcp";
const SESSION: &str = "Mcp-Session-Id";
const LAST_EVENT: &str = "Last-Event-ID";

/// Answers one request.
pub(super) async fn handle(
    front: &Arc<Front>,
    link: &Arc<Link>,
    request: Request<Incoming>,
) -> Response<Outgoing> {
    let rules = front.rules();
    if let Err(message) = rules.guard.check(Came::Straight, request.uri(), request.headers()) {
        return refuse(
            "null",
            &Problem::new(StatusCode::FORBIDDEN, wire::INVALID_REQUEST, "forbidden", message),
        );
    }
    let wanted = fetch::wanted(request.uri().path());
    if request.uri().path() != PATH && wanted.is_none() {
        let message = format!("nothing is here; the MCP endpoint is {PATH}");
        return refuse(
            "null",
            &Problem::new(StatusCode::NOT_FOUND, wire::INVALID_REQUEST, "not-found", message),
        );
    }
    let visitor = match Visitor::of(front, &rules.agents, link, request.headers()) {
        Ok(visitor) => visitor,
        Err(Refused::NoToken(problem)) => {
            let mut response = refuse("null", &problem);
            let challenge = HeaderValue::from_static(r#"Bearer realm="holdfast""#);
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            return response;
        }
        Err(Refused::Forbidden(problem)) => return refuse("null", &problem),
    };
    let handled = match *request.method() {
        Method::GET if let Some(sha256) = wanted => {
            Ok(fetch::answer(front, &visitor.principal, sha256, request.headers()).await)
        }
        _ if wanted.is_some() => Ok(not_allowed("GET")),
        Method::POST => post(front, link, &visitor, request).await,
        Method::GET => get(front, link, &visitor, request.headers()).await,
        Method::DELETE => delete(front, &visitor, request.headers()).await,
        _ => Ok(not_allowed("GET, POST, DELETE")),
    };
    handled.unwrap_or_else(|problem| refuse("null", &problem))
}

async fn post(
    front: &Arc<Front>,
    link: &Arc<Link>,
    visitor: &Visitor,
    request: Request<Incoming>,
) -> Result<Response<Outgoing>, Problem> {
    let (parts, incoming) = request.into_parts();
    let (headers, rules) = (parts.headers, front.rules());
    let accepts = Accepts::of(&headers);
    if !accepts.json && !accepts.events {
        let message = "Accept must list application/json and text/event-stream";
        return Err(Problem { status: StatusCode::NOT_ACCEPTABLE, ..Problem::invalid_request(message) });
    }
    if !is_json(&headers) {
        // Also what keeps a form on some web page from posting here without a preflight request.
        let message = "Content-Type must be application/json";
        return Err(Problem {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ..Problem::invalid_request(message)
        });
    }
    let bytes = match body::read(incoming, &headers, rules.max_body).await {
        Ok(bytes) => bytes,
        Err(problem) => {
            // What is left of the body would be read as the next request.
            let mut response = refuse("null", &problem);
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return Ok(response);
        }
    };
    let text = std::str::from_utf8(&bytes)
        .map_err(|error| Problem::fault(&wire::Fault::Syntax(format!("not UTF-8: {error}"))))?;
    let message = match Message::read(text, rules.max_depth) {
        Ok(message) => message,
        Err((id, problem)) => return Ok(refuse(id.unwrap_or("null"), &problem)),
    };
    let id = message.id.unwrap_or("null").to_owned();
    let handled = message.handle(front, link, visitor, headers, accepts).await;
    Ok(handled.unwrap_or_else(|problem| refuse(&id, &problem)))
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

/// A JSON-RPC message, read strictly.
struct Message<'a> {
    /// The id's own text; none for notifications and responses.
    id: Option<&'a str>,
    /// None for responses.
    method: Option<Cow<'a, str>>,
    params: Map<String, Value>,
    /// The same as text.
    raw: Option<&'a str>,
    /// The response that this is: its id and what it says.
    response: Option<(&'a str, Said)>,
}

impl<'a> Message<'a> {
    /// Reads a message; where that fails, the id comes with the problem as far as it could be read.
    fn read(text: &'a str, max_depth: usize) -> Result<Self, (Option<&'a str>, Problem)> {
        if text.trim_start().starts_with('[') {
            let message = "batches are not served: send each message by itself (MCP 2025-06-18 removed them)";
            return Err((None, Problem::invalid_request(message)));
        }
        let envelope = Envelope::read(text).map_err(|fault| match fault {
            wire::Fault::Syntax(_) if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() => {
                let message = "this is JSON, but no message: an object with a `method` that is text";
                (None, Problem::invalid_request(message))
            }
            fault => (None, Problem::fault(&fault)),
        })?;
        let id = envelope.id.map(|id| id.get());
        if id.is_some_and(|id| !id.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit())) {
            return Err((None, Problem::invalid_request("`id` must be a string or a number")));
        }
        Self::of(&envelope, id, max_depth).map_err(|problem| (id, problem))
    }

    fn of(envelope: &Envelope<'a>, id: Option<&'a str>, max_depth: usize) -> Result<Self, Problem> {
        if envelope.jsonrpc.as_deref() != Some("2.0") {
            return Err(Problem::invalid_request("`jsonrpc` must be \"2.0\""));
        }
        let Some(method) = envelope.method.clone() else {
            let Some(said) = envelope.error.or(envelope.result) else {
                return Err(Problem::invalid_request(
                    "there is neither a `method` nor a `result` nor an `error`",
                ));
            };
            wire::read_strictly(said.get(), max_depth).map_err(|fault| Problem::fault(&fault))?;
            let kind = if envelope.error.is_some() { Said::Error } else { Said::Result };
            let response = id.map(|id| (id, kind(Text::from(said))));
            return Ok(Self { id: None, method: None, params: Map::new(), raw: None, response });
        };
        if id.is_none() && !method.starts_with("notifications/") {
            return Err(Problem::invalid_request(format!("the request {method:?} needs an `id`")));
        }
        let params = match envelope.params {
            None => Map::new(),
            Some(params) => match wire::read_strictly(params.get(), max_depth) {
                Ok(Value::Object(params)) => params,
                Ok(_) => return Err(Problem::invalid_request("`params` must be an object")),
                Err(fault) => return Err(Problem::fault(&fault)),
            },
        };
        let raw = envelope.params.map(RawValue::get);
        Ok(Self { id, method: Some(method), params, raw, response: None })
    }

    async fn handle(
        self,
        front: &Arc<Front>,
        link: &Arc<Link>,
        visitor: &Visitor,
        headers: HeaderMap,
        accepts: Accepts,
    ) -> Result<Response<Outgoing>, Problem> {
        let Some(method) = self.method else {
            // What answers none of our offers answers nobody; it is evidence that its sender lives, no more.
            let sender = Sender::of(front, visitor, Era::Legacy, "", &self.params, &headers);
            if let (Some((id, said)), Ok(Sender { caller, .. })) = (self.response, sender) {
                front.asks.answered(&caller.channel, id, said);
            }
            return Ok(body::empty(StatusCode::ACCEPTED));
        };
        let carrier = if visitor.bridge.is_some() { Carrier::Bridge } else { Carrier::Http(&headers) };
        let era = era::of(carrier, &method, &self.params, self.id.is_some())?;
        let Sender { caller, cancellable, surface, client, habit } =
            Sender::of(front, visitor, era, &method, &self.params, &headers)?;
        if link.carries(&caller.channel) {
            front.presence.enter(&caller.channel);
        }
        front.driver.seen(link.number, &caller.channel, evidence(self.id, &method, &self.params));
        let Some(id) = self.id else {
            if method == "notifications/cancelled"
                && cancellable == Cancellable::ById
                && let Some(request) = self.params.get("requestId")
            {
                front.waiting.cancel(&caller.channel, &request.to_string(), Instant::now());
            }
            rpc::notified(front, &caller, &client, &method, self.raw);
            return Ok(body::empty(StatusCode::ACCEPTED));
        };
        if method == "tools/call" {
            let asked = Asked {
                id: id.to_owned(),
                era,
                caller,
                accepts,
                transport_key: visitor.bridge.as_ref().and_then(|bridge| bridge.transport_key()),
                header_key: era::single(&headers, "Idempotency-Key")?.map(str::to_owned),
                headers: visitor.bridge.is_none().then_some(headers),
                cancellable,
                surface: Surface::of(era, &self.params, surface).over(accepts),
                habit,
                client,
            };
            return Ok(call::handle(front, link, asked, self.params).await);
        }
        let request = rpc::Request {
            id,
            era,
            caller: &caller,
            client: &client,
            accepts,
            through_bridge: visitor.bridge.is_some(),
            cancellable,
            params: &self.params,
            raw: self.raw,
        };
        rpc::handle(front, link, &request, &method).await
    }
}

/// What the message says about earlier answers. Who asks where a call stands has not heard what it came to.
fn evidence(id: Option<&str>, method: &str, params: &Map<String, Value>) -> Evidence {
    let name = params.get("name").and_then(Value::as_str);
    match id {
        None => Evidence::Nothing,
        // A library goes on with an earlier request; that says nothing about what others of the same client heard.
        Some(_) if params.get("requestState").is_some_and(Value::is_string) => Evidence::Request,
        Some(_) if method == "tools/call" && !matches!(name, Some(tools::WAIT | tools::STATUS)) => {
            Evidence::Call
        }
        Some(_) => Evidence::Request,
    }
}

/// On whose behalf a message comes, as exactly as can be told, and what is known of its client.
pub(super) struct Sender {
    pub(super) caller: Caller,
    cancellable: Cancellable,
    /// What its session declared.
    pub(super) surface: Surface,
    pub(super) client: Arc<Client>,
    /// What it does with ids of events.
    pub(super) habit: Habit,
}

impl Sender {
    fn of(
        front: &Front,
        visitor: &Visitor,
        era: Era,
        method: &str,
        params: &Map<String, Value>,
        headers: &HeaderMap,
    ) -> Result<Self, Problem> {
        let principal = visitor.principal.clone();
        if era == Era::Modern || method == "initialize" {
            let name = rpc::client_name(params, era);
            let (channel, cancellable) = match &visitor.bridge {
                Some(bridge) => (bridge.channel(), Cancellable::ById),
                None => (format!("client:{principal}/{name}"), Cancellable::No),
            };
            let caller = Caller { channel, principal, client: name };
            let (surface, client) = (Surface::Result, declared(era, params));
            return Ok(Self { caller, cancellable, surface, client, habit: Habit::None });
        }
        if let Some(bridge) = &visitor.bridge {
            let caller = Caller { channel: bridge.channel(), principal, client: bridge.name.clone() };
            let (surface, mut client) = (bridge.surface, bridge.client.clone());
            if let Some(level) = front.hub.level(&caller.channel) {
                Arc::make_mut(&mut client).log_level = Some(level);
            }
            let (cancellable, habit) = (Cancellable::ById, Habit::None);
            return Ok(Self { caller, cancellable, surface, client, habit });
        }
        let id = session_id(headers)?;
        let guest = front.sessions.touch(id, &principal, now()).ok_or_else(Problem::no_session)?;
        let caller = Caller { channel: session_channel(id), principal, client: guest.client.clone() };
        let (surface, client) = (guest.surface, guest.as_client());
        let (cancellable, habit) = (Cancellable::ById, Habit::of(&guest.protocol));
        Ok(Self { caller, cancellable, surface, client, habit })
    }
}

/// The client as its handshake, or in the modern era its request, declares it.
pub(super) fn declared(era: Era, params: &Map<String, Value>) -> Arc<Client> {
    let meta = params.get("_meta");
    let (speaks, capabilities) = match era {
        Era::Legacy => (Speaks::Legacy, params.get("capabilities")),
        Era::Modern => (Speaks::Modern, meta.and_then(|meta| meta.get(META_CAPABILITIES))),
    };
    let log_level = meta.and_then(|meta| meta.get(META_LOG_LEVEL)).and_then(Value::as_str);
    Arc::new(Client {
        speaks,
        capabilities: capabilities.map_or_else(|| Text::of(&Map::new()), Text::of),
        log_level: log_level.filter(|_| era == Era::Modern).map(str::to_owned),
    })
}

fn session_id(headers: &HeaderMap) -> Result<&str, Problem> {
    era::single(headers, SESSION)?.ok_or_else(|| {
        Problem::invalid_request(format!(
            "the {SESSION} header is missing: send `initialize` first, or 2026-07-28 requests"
        ))
    })
}

/// The channel of a legacy session.
pub(super) fn session_channel(id: &str) -> String {
    format!("session:{id}")
}

/// The header that hands out a session.
pub(super) fn with_session(mut response: Response<Outgoing>, id: &str) -> Response<Outgoing> {
    let id = HeaderValue::from_str(id).expect("a UUID is a header value");
    response.headers_mut().insert(SESSION, id);
    response
}

/// `GET`: what servers announce, for a session or a bridge.
async fn get(
    front: &Arc<Front>,
    link: &Arc<Link>,
    visitor: &Visitor,
    headers: &HeaderMap,
) -> Result<Response<Outgoing>, Problem> {
    if !Accepts::of(headers).events {
        let message = "Accept must list text/event-stream";
        return Err(Problem { status: StatusCode::NOT_ACCEPTABLE, ..Problem::invalid_request(message) });
    }
    if visitor.bridge.is_none() && era::of(Carrier::Http(headers), "", &Map::new(), false)? == Era::Modern {
        return Ok(not_allowed("POST"));
    }
    let sender = Sender::of(front, visitor, Era::Legacy, "", &Map::new(), headers)?;
    if visitor.bridge.is_none() {
        let last_event = era::single(headers, LAST_EVENT)?;
        return Ok(resume::listen(front, link, sender, session_id(headers)?, last_event).await);
    }
    // Not a message: to open a stream is no evidence that an earlier answer was heard.
    let channel = sender.caller.channel.clone();
    if link.carries(&channel) {
        front.presence.enter(&channel);
    }
    front.presence.holds_one(&channel);
    let (opening, change) = (body::keep_alive(), Some(stream::tools_changed()));
    let place = front.hub.listen(&sender.caller, &sender.client, resume::everything(), BTreeSet::new());
    let (closing, end) = (None, CancellationToken::new());
    let announcements = Announcements { opening, change, closing, end, place, guard: None, track: None };
    Ok(stream::announce(front, link, announcements))
}

/// `DELETE`: the client ends its session.
async fn delete(
    front: &Front,
    visitor: &Visitor,
    headers: &HeaderMap,
) -> Result<Response<Outgoing>, Problem> {
    let id = session_id(headers)?;
    if !front.sessions.end(id, &visitor.principal).await.map_err(|error| Problem::journal(&error))? {
        return Err(Problem::no_session());
    }
    front.left(&session_channel(id));
    Ok(body::empty(StatusCode::NO_CONTENT))
}

fn refuse(id: &str, problem: &Problem) -> Response<Outgoing> {
    body::json(problem.status, problem.message_to(id), body::Notice::none())
}

fn not_allowed(allowed: &'static str) -> Response<Outgoing> {
    let mut response = body::empty(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_strictly() {
        let check = |text: &str, expected: Result<(), (i64, &str)>| {
            let found = Message::read(text, 4).map(|_| ()).map_err(|(_, problem)| {
                (
                    problem.code,
                    problem.data.get("code").and_then(Value::as_str).unwrap_or_default().to_owned(),
                )
            });
            assert_eq!(found, expected.map_err(|(code, ours)| (code, ours.to_owned())), "{text}");
        };
        check(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, Ok(()));
        check(r#"{"jsonrpc":"2.0","method":"notifications/x"}"#, Ok(()));
        check(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, Ok(()));
        check(r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, Err((-32600, "")));
        check("{", Err((-32700, "")));
        check(r#"{"id":1,"method":"ping"}"#, Err((-32600, "")));
        check(r#"{"jsonrpc":"2.0","method":"tools/call"}"#, Err((-32600, "")));
        check(r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, Err((-32600, "")));
        check(r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, Err((-32600, "")));
        check(r#"{"jsonrpc":"2.0","id":1,"Method":"ping"}"#, Err((-32600, "")));
        check(r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#, Err((-32600, "duplicate-json-key")));
        check(
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"a":1,"a":2}}"#,
            Err((-32600, "duplicate-json-key")),
        );
        check(
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":[[[[[1]]]]]}"#,
            Err((-32600, "json-too-deep")),
        );
        check(r#"{"jsonrpc":"2.0","id":1,"method":"a","params":[]}"#, Err((-32600, "")));
    }
}
