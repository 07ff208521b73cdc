//! `tools/call`: from parameters to a ticket of the driver, and from its news to a response.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use holdfast_store::{CallId, Caller};
use hyper::{HeaderMap, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::{
    Front, absent,
    accept::Accepts,
    body::{self, Outgoing},
    deliver::{self, Output},
    era::{self, Era},
    listen::Link,
    problem::Problem,
    replay::Habit,
    respond,
    retry::{self, Inputs, Named, Retry},
    surface::Surface,
    tools::{self, Found},
    wait::{Offering, Waiting},
};
use crate::{
    driver::{Progress, Receipt, Request, Ticket},
    report::Report,
    upstream::Client,
};

/// `holdfast_wait` without `timeout_s`: below the shortest time-out of a client that we know (60 s).
pub(super) const WAIT_DEFAULT_S: u64 = 45;
const WAIT_MOST_S: u64 = 3_600;

const META_KEY: &str = "io.holdfast/idempotency-key";
const META_RUN: &str = "io.holdfast/run";
const META_INCARNATION: &str = "io.holdfast/incarnation";
/// Longer keys are somebody's mistake, and everything here ends up in a journal.
const KEY_MOST: usize = 1_024;

/// One `tools/call` request, without its parameters.
pub(super) struct Asked {
    /// The request id, as JSON text.
    pub(super) id: String,
    pub(super) era: Era,
    pub(super) caller: Caller,
    pub(super) accepts: Accepts,
    /// The bridge's name for the request.
    pub(super) transport_key: Option<String>,
    /// `Idempotency-Key`.
    pub(super) header_key: Option<String>,
    /// Headers to check the arguments against; none for messages through the bridge.
    pub(super) headers: Option<HeaderMap>,
    /// Whether `notifications/cancelled` can reach it.
    pub(super) cancellable: Cancellable,
    /// What the client is given where the call waits for a person.
    pub(super) surface: Surface,
    /// What the client does with ids of events.
    pub(super) habit: Habit,
    /// What the client can do.
    pub(super) client: Arc<Client>,
}

/// Whether request ids are unique within the caller's channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cancellable {
    /// A session or a bridge.
    ById,
    /// Several clients may share the channel; they cancel by closing the stream.
    No,
}

/// A call that the driver knows of, and what the response needs besides.
pub(super) struct Begun {
    /// None once the request has given it up.
    pub(super) ticket: Option<Ticket>,
    pub(super) output: Output,
    /// The client's progress token, as JSON text, where it gave one.
    pub(super) progress_token: Option<String>,
    /// How often progress of our own was sent; none once the server has sent some.
    pub(super) patience_shown: Option<u32>,
    /// Where the request only collects a call: which, and until when.
    pub(super) collects: Option<(CallId, tokio::time::Instant)>,
    /// Where the request goes on with an earlier one.
    pub(super) retry: Option<Retry>,
    /// The server of the call, where this is known.
    pub(super) server: Option<String>,
    /// Answers to what the server will ask.
    pub(super) inputs: Option<Inputs>,
}

/// Handles the request and gives the whole response.
pub(super) async fn handle(
    front: &Arc<Front>,
    link: &Arc<Link>,
    asked: Asked,
    params: Map<String, Value>,
) -> Response<Outgoing> {
    // Before anything else, so that a cancellation that comes meanwhile finds it.
    let by_id = match asked.cancellable {
        Cancellable::ById => Some(front.waiting.enter(&asked.caller.channel, &asked.id, Instant::now())),
        Cancellable::No => None,
    };
    match begin(front, link, &asked, params).await {
        Ok(begun) => {
            let offered = asked.surface == Surface::Offer && begun.collects.is_none();
            let offering = if offered { Offering::Due } else { Offering::None };
            let (front, link) = (front.clone(), link.clone());
            let (put, track) = (None, OnceLock::new());
            respond::respond(Waiting { front, asked, begun, link, wait: by_id, offering, put, track }).await
        }
        Err(Refusal::Problem(problem)) => {
            body::answer(link, asked.accepts, problem.status, problem.message_to(&asked.id), Receipt::none())
        }
        Err(Refusal::Answer(message)) => {
            body::answer(link, asked.accepts, StatusCode::OK, message, Receipt::none())
        }
    }
}

/// Why there is no call to wait for.
pub(super) enum Refusal {
    /// The request is wrong.
    Problem(Problem),
    /// All is said: a whole response message.
    Answer(String),
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

async fn begin(
    front: &Arc<Front>,
    link: &Arc<Link>,
    asked: &Asked,
    mut params: Map<String, Value>,
) -> Result<Begun, Refusal> {
    let Some(Value::String(name)) = params.shift_remove("name") else {
        return Err(Problem::invalid_params("invalid-arguments", "params.name must be a string").into());
    };
    let arguments = match params.shift_remove("arguments") {
        None | Some(Value::Null) => Value::Object(Map::new()),
        Some(arguments @ Value::Object(_)) => arguments,
        Some(_) => {
            return Err(
                Problem::invalid_params("invalid-arguments", "params.arguments must be an object").into()
            );
        }
    };
    let meta = match params.shift_remove("_meta") {
        Some(Value::Object(meta)) => meta,
        _ => Map::new(),
    };
    let token = meta.get("progressToken").filter(|token| token.is_string() || token.is_number());
    let progress_token = token.filter(|_| asked.accepts.events).map(Value::to_string);
    let retried = if asked.era == Era::Modern { retry::brought(&mut params)? } else { None };
    let extra = extra(params);
    let inputs = match retried.map(retry::Brought::parts) {
        Some(Ok(brought)) => {
            let named = Named { name: &name, arguments: &arguments, extra: &extra };
            return retry::rejoin(front, link, asked, named, brought, progress_token).await;
        }
        Some(Err(inputs)) => Some(inputs),
        None => None,
    };
    match name.as_str() {
        tools::WAIT => collect(front, link, asked, &arguments, progress_token).await,
        tools::STATUS => Err(Refusal::Answer(status(front, asked, &arguments).await?)),
        _ => {
            if let Some(state) = absent::asked(&front.upstreams, &asked.caller, &name).await {
                return Err(Refusal::Answer(deliver::result(&asked.id, &state, asked.era, &[])));
            }
            let (server, tool, output) = resolve(front, asked, &name, &arguments).await?;
            let of = server.clone();
            let explicit_key = explicit_key(&meta, asked.header_key.as_deref())?;
            let request = Request {
                caller: asked.caller.clone(),
                connection: link.number,
                server,
                tool,
                arguments,
                extra,
                transport_key: asked.transport_key.clone(),
                explicit_key,
                run: text_member(&meta, META_RUN)?,
                incarnation: text_member(&meta, META_INCARNATION)?,
                progress: wanted(progress_token.as_ref()),
                client: asked.client.clone(),
                meta,
            };
            let ticket = front.driver.call(request).await;
            Ok(Begun {
                ticket: Some(ticket.with_hold_wait(asked.surface.hold_wait())),
                output,
                progress_token,
                patience_shown: Some(0),
                collects: None,
                retry: None,
                server: Some(of),
                inputs,
            })
        }
    }
}

/// The members that no specification gives a meaning between us and a client: they are the server's.
fn extra(mut params: Map<String, Value>) -> Map<String, Value> {
    params.retain(|name, _| !["inputResponses", "requestState"].contains(&name.as_str()));
    params
}

/// Whether the driver has to pass on progress.
pub(super) fn wanted(token: Option<&String>) -> Progress {
    if token.is_some() { Progress::Wanted } else { Progress::Unwanted }
}

/// The tool that `name` stands for, as its server knows it, and what it says about its results. Checks the headers.
pub(super) async fn resolve(
    front: &Arc<Front>,
    asked: &Asked,
    name: &str,
    arguments: &Value,
) -> Result<(String, String, Output), Problem> {
    match tools::find(&front.upstreams, &asked.caller, name).await {
        Found::Tool(upstream, tools, at) => {
            let tool = &tools[at];
            if let Some(headers) = asked.headers.as_ref().filter(|_| asked.era == Era::Modern) {
                era::param_headers(headers, &tool.definition, arguments)?;
            }
            let output = if tool.has_output_schema { Output::Structured } else { Output::Free };
            Ok((upstream.name().to_owned(), tool.name.clone(), output))
        }
        // The driver says why the server cannot be reached, and whether the call can be a re-issue all the same.
        Found::Unlisted(upstream, tool) => Ok((upstream.name().to_owned(), tool, Output::Free)),
        Found::Nothing(near) => {
            let mut message = format!("Unknown tool: {name}");
            if !near.is_empty() {
                message.push_str(&format!(" (did you mean {}?)", near.join(" or ")));
            }
            Err(Problem::invalid_params("unknown-tool", message).with("near", near))
        }
    }
}

/// The key that the agent gave, by either way.
fn explicit_key(meta: &Map<String, Value>, header: Option<&str>) -> Result<Option<String>, Problem> {
    let in_meta = text_member(meta, META_KEY)?;
    // The header's draft standard puts the key in quotes; most senders do not.
    let header = header.map(|key| key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key));
    match (in_meta, header) {
        (Some(meta), Some(header)) if meta != header => {
            let message = format!("`{META_KEY}` in _meta and the Idempotency-Key header are different keys");
            Err(Problem::invalid_params("invalid-arguments", message))
        }
        (_, Some(header)) if header.is_empty() || header.len() > KEY_MOST => {
            let message = format!("the Idempotency-Key header must have 1 to {KEY_MOST} bytes");
            Err(Problem::invalid_params("invalid-arguments", message))
        }
        (Some(key), _) => Ok(Some(key)),
        (None, header) => Ok(header.map(str::to_owned)),
    }
}

fn text_member(meta: &Map<String, Value>, name: &str) -> Result<Option<String>, Problem> {
    match meta.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if (1..=KEY_MOST).contains(&text.len()) => Ok(Some(text.clone())),
        // A key that is not understood must not be passed over: the agent relies on it.
        Some(_) => {
            let message = format!("`{name}` in _meta must be a string of 1 to {KEY_MOST} bytes");
            Err(Problem::invalid_params("invalid-arguments", message))
        }
    }
}

async fn collect(
    front: &Arc<Front>,
    link: &Arc<Link>,
    asked: &Asked,
    arguments: &Value,
    progress_token: Option<String>,
) -> Result<Begun, Refusal> {
    let call = call_id(arguments)?;
    let seconds = match arguments.get("timeout_s") {
        None | Some(Value::Null) => WAIT_DEFAULT_S,
        Some(seconds) => {
            match seconds.as_u64().or_else(|| seconds.as_f64().filter(|s| *s >= 0.0).map(|s| s as u64)) {
                Some(seconds) => seconds.min(WAIT_MOST_S),
                None => {
                    let message = "timeout_s must be a number of seconds";
                    return Err(Problem::invalid_params("invalid-arguments", message).into());
                }
            }
        }
    };
    let wanted = wanted(progress_token.as_ref());
    match front.driver.collect(&asked.caller, link.number, call, wanted, &asked.client).await {
        Some(ticket) => {
            let until = tokio::time::Instant::now() + Duration::from_secs(seconds);
            let collects = Some((call, until));
            Ok(Begun {
                ticket: Some(ticket),
                output: Output::Free,
                progress_token,
                patience_shown: Some(0),
                collects,
                retry: None,
                server: None,
                inputs: None,
            })
        }
        None => Err(Refusal::Answer(not_found(asked, call))),
    }
}

async fn status(front: &Arc<Front>, asked: &Asked, arguments: &Value) -> Result<String, Problem> {
    let call = call_id(arguments)?;
    let Some(status) = front.driver.status(&asked.caller, call).await else {
        return Ok(not_found(asked, call));
    };
    let result = json!({
        "content": [{ "type": "text", "text": status.to_string() }],
        "structuredContent": status,
        "isError": false,
    });
    Ok(deliver::result(&asked.id, &result.to_string(), asked.era, &[]))
}

fn not_found(asked: &Asked, call: CallId) -> String {
    // The same whether it never was, or is somebody else's.
    deliver::report(&asked.id, asked.era, &Report::not_found(&format!("the call {call}")))
}

fn call_id(arguments: &Value) -> Result<CallId, Problem> {
    arguments.get("call_id").and_then(Value::as_str).and_then(|id| id.trim().parse().ok()).ok_or_else(|| {
        Problem::invalid_params(
            "invalid-arguments",
            "call_id must be the id of a call, as given with its held result",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(meta: Value, header: Option<&str>, expected: Result<Option<&str>, ()>) {
        let meta = meta.as_object().expect("an object").clone();
        let found = explicit_key(&meta, header).map_err(|_| ());
        assert_eq!(found, expected.map(|key| key.map(str::to_owned)), "{meta:?} {header:?}");
    }

    #[test]
    fn one_key_by_two_ways() {
        check(json!({}), None, Ok(None));
        check(json!({ META_KEY: "a" }), None, Ok(Some("a")));
        check(json!({}), Some("a"), Ok(Some("a")));
        check(json!({}), Some("\"a\""), Ok(Some("a")));
        check(json!({ META_KEY: "a" }), Some("a"), Ok(Some("a")));
        check(json!({ META_KEY: "a" }), Some("b"), Err(()));
        check(json!({ META_KEY: "" }), None, Err(()));
        check(json!({ META_KEY: 7 }), None, Err(()));
        check(json!({}), Some(""), Err(()));
        check(json!({}), Some("\"\""), Err(()));
        check(json!({ META_KEY: "x".repeat(1_025) }), None, Err(()));
    }

    #[test]
    fn call_ids() {
        assert!(call_id(&json!({ "call_id": "0193a9c8-0000-7000-8000-000000000000" })).is_ok());
        for wrong in [json!({}), json!({ "call_id": 7 }), json!({ "call_id": "x" })] {
            assert!(call_id(&wrong).is_err(), "{wrong}");
        }
    }
}
