//! Requests that are no calls of tools: to the server they are for, as they came, and the answer back in the client's era.
//!
//! Nothing of this is journaled. What a connection loses is lost; only clients decide whether to ask again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::stream;
use holdfast_store::{Caller, Text};
use hyper::{Response, StatusCode};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::{
    Front,
    asks::{self, Put},
    body::{self, Event, Outgoing},
    call::Cancellable,
    cancel::Wait,
    deliver,
    era::{self, Era},
    homes::{self, Homes},
    levels,
    listen::Link,
    lists,
    problem::Problem,
    rpc::Request,
    splice::set_member,
    stream::keep_alive,
    task_id,
};
use crate::{
    driver::Receipt,
    upstream::{Flight, Question, Relayed, Remark, Said, Signal, Upstream},
    wire,
};

/// An answer within this time comes as plain JSON.
const PLAIN_WITHIN: Duration = Duration::from_secs(1);
/// A server that gives no sign of life for this long does not answer any more.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a modern client may take for what a legacy server wants to know.
const PARKED: Duration = Duration::from_secs(60 * 60);
const MOST_PARKED: usize = 100;
const STATE: &str = "hfr.";

/// Conversations that wait for their client's next request.
#[derive(Default)]
pub(super) struct Parked {
    table: Mutex<HashMap<String, (String, Instant, Conversation)>>,
}

impl Parked {
    fn park(&self, principal: &str, conversation: Conversation) -> String {
        let state =
            format!("{STATE}{}", uuid::Builder::from_random_bytes(rand::random()).into_uuid().simple());
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.retain(|_, (_, since, _)| since.elapsed() < PARKED);
        let mine = table.iter().filter(|(_, (owner, ..))| owner == principal);
        if mine.clone().count() >= MOST_PARKED {
            let oldest =
                mine.max_by_key(|(_, (_, since, _))| since.elapsed()).map(|(state, _)| state.clone());
            oldest.and_then(|oldest| table.remove(&oldest));
        }
        table.insert(state.clone(), (principal.to_owned(), Instant::now(), conversation));
        state
    }

    fn take(&self, principal: &str, state: &str) -> Option<Conversation> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.get(state).filter(|(owner, ..)| owner == principal)?;
        table.remove(state).map(|(_, _, conversation)| conversation)
    }
}

/// A request that a server works on.
struct Conversation {
    method: String,
    server: String,
    signals: mpsc::UnboundedReceiver<Signal>,
    flight: Flight,
    /// Other servers that it may be for, should this one not know what it is about.
    others: Homes,
    /// What the server waits for.
    question: Option<Arc<Question>>,
    heard: tokio::time::Instant,
}

impl Drop for Conversation {
    /// Nobody waits any more; where the answer is there, this is nothing to the server.
    fn drop(&mut self) {
        self.flight.cancel("the client does not wait any more");
    }
}

enum Turn {
    Progress(Text),
    Remarked(Remark),
    Asked(Arc<Question>),
    /// The end: a result, or an `error` member.
    Over(Result<Text, Text>),
}

impl Conversation {
    fn begin(method: &str, mut homes: Homes) -> Option<Self> {
        let (upstream, relayed) = homes.pop_front()?;
        let (flight, signals) = send(&upstream, relayed);
        Some(Self {
            method: method.to_owned(),
            server: upstream.config().name.clone(),
            signals,
            flight,
            others: homes,
            question: None,
            heard: tokio::time::Instant::now(),
        })
    }

    /// Cancel-safe.
    async fn turn(&mut self) -> Turn {
        loop {
            let silent = tokio::time::sleep_until(self.heard + SILENCE);
            let signal = tokio::select! {
                biased;
                signal = self.signals.recv() => signal,
                // The result of a task comes when it is there.
                () = silent, if self.question.is_none() && self.method != "tasks/result" => {
                    let message = format!(
                        "server `{}` has not answered {} within {} s",
                        self.server, self.method, SILENCE.as_secs()
                    );
                    return Turn::Over(Err(error("call-timeout", &message)));
                }
            };
            self.heard = tokio::time::Instant::now();
            return match signal {
                Some(Signal::Progress(params)) => Turn::Progress(params),
                Some(Signal::Remarked(remark)) => Turn::Remarked(remark),
                Some(Signal::Asked(question)) => Turn::Asked(question),
                Some(Signal::Answered(answer)) => Turn::Over(Ok(answer.text)),
                Some(Signal::Refused(refused)) => match self.others.pop_front() {
                    Some((upstream, relayed)) if is_unknown(refused.code) => {
                        self.server = upstream.config().name.clone();
                        (self.flight, self.signals) = send(&upstream, relayed);
                        continue;
                    }
                    _ => Turn::Over(Err(refused.error)),
                },
                Some(Signal::Unsent(unsent)) => Turn::Over(Err(error(unsent.code, &unsent.message))),
                Some(Signal::Lost(_, message)) => Turn::Over(Err(error("answer-lost", &message))),
                None => Turn::Over(Err(error("answer-lost", "the connection to the server has ended"))),
            };
        }
    }
}

/// Whether a server says that it does not know what a request is about.
fn is_unknown(code: Option<i64>) -> bool {
    const NOT_FOUND: i64 = -32002;
    matches!(code, Some(NOT_FOUND | wire::INVALID_PARAMS | wire::METHOD_NOT_FOUND))
}

fn send(upstream: &Arc<Upstream>, relayed: Relayed) -> (Flight, mpsc::UnboundedReceiver<Signal>) {
    let (tell, signals) = mpsc::unbounded_channel();
    (upstream.relay(relayed, Box::new(move |signal| drop(tell.send(signal)))), signals)
}

fn error(code: &str, message: &str) -> Text {
    let data = Map::from_iter([("code".to_owned(), Value::from(code))]);
    wire::error_member(wire::INTERNAL_ERROR, message, Some(&Value::Object(data)))
}

/// Answers a request by passing it on.
///
/// # Errors
/// Where nobody is there to pass it on to.
pub(super) async fn handle(
    front: &Arc<Front>,
    link: &Arc<Link>,
    request: &Request<'_>,
    method: &str,
) -> Result<Response<Outgoing>, Problem> {
    let wait = match request.cancellable {
        Cancellable::ById => Some(front.waiting.enter(&request.caller.channel, request.id, Instant::now())),
        Cancellable::No => None,
    };
    let (relayed, token) = relayed(request, method);
    let conversation = match taken_up(front, request, &relayed)? {
        Some(conversation) => conversation,
        None => {
            let homes = homes::homes(front, request, relayed).await?;
            Conversation::begin(method, homes).ok_or_else(|| era::unknown_method(request.era, method))?
        }
    };
    let exchange = Exchange {
        front: front.clone(),
        id: request.id.to_owned(),
        era: request.era,
        caller: request.caller.clone(),
        client: request.client.clone(),
        events: request.accepts.events,
        token: token.filter(|_| request.accepts.events),
        conversation: Some(conversation),
        put: None,
        wait,
    };
    Ok(respond(exchange, link, request).await)
}

/// The request as it is passed on, and the client's progress token.
pub(super) fn relayed(request: &Request<'_>, method: &str) -> (Relayed, Option<String>) {
    let mut relayed = Relayed::new(request.caller, request.client, method, Vec::new());
    let mut token = None;
    for (name, value) in request.raw.and_then(wire::members).unwrap_or_default() {
        if name != "_meta" {
            relayed.members.extend(Text::parse(value).ok().map(|value| (name.into_owned(), value)));
            continue;
        }
        for (name, value) in wire::members(value).unwrap_or_default() {
            if name == "progressToken" {
                token = Some(value.to_owned());
            } else if !name.starts_with("io.holdfast/") {
                relayed.meta.extend(Text::parse(value).ok().map(|value| (name.into_owned(), value)));
            }
        }
    }
    relayed.progress = token.is_some();
    (relayed, token)
}

/// The conversation that a modern client goes on with.
fn taken_up(
    front: &Front,
    request: &Request<'_>,
    relayed: &Relayed,
) -> Result<Option<Conversation>, Problem> {
    let state = relayed.member("requestState");
    let Some(state) = state.as_ref().and_then(Value::as_str).filter(|state| state.starts_with(STATE)) else {
        return Ok(None);
    };
    let conversation = front.parked.take(&request.caller.principal, state);
    let Some(mut conversation) = conversation.filter(|one| one.method == relayed.method) else {
        let message = "requestState cannot be used: its request is not waiting; send the request without it";
        return Err(Problem::invalid_params("request-state-invalid", message));
    };
    if let Some(question) = conversation.question.take() {
        let responses = relayed.members.iter().find(|(name, _)| name == "inputResponses");
        let given = responses.and_then(|(_, responses)| wire::members(responses)).unwrap_or_default();
        let said = |(name, value): (std::borrow::Cow<'_, str>, &str)| {
            Some((name.into_owned(), Said::Result(Text::parse(value).ok()?)))
        };
        question.answer(given.into_iter().filter_map(said).collect());
    }
    conversation.heard = tokio::time::Instant::now();
    Ok(Some(conversation))
}

/// A request and its conversation.
struct Exchange {
    front: Arc<Front>,
    id: String,
    era: Era,
    caller: Caller,
    client: Arc<crate::upstream::Client>,
    events: bool,
    token: Option<String>,
    conversation: Option<Conversation>,
    put: Option<Put>,
    wait: Option<Wait>,
}

enum Step {
    /// Something for the client before the answer.
    Say(Event),
    /// The response message, and its status.
    End(String, StatusCode),
    /// The client took it back.
    Withdrawn,
    /// Nothing that the client hears.
    Nothing,
}

impl Drop for Exchange {
    /// What the client was asked for this request is not wanted any more.
    fn drop(&mut self) {
        if let Some(put) = self.put.take() {
            put.question.refuse(&wire::error_member(wire::INTERNAL_ERROR, "the client is gone", None));
            put.take_back();
        }
    }
}

impl Exchange {
    /// Cancel-safe.
    async fn step(&mut self) -> Step {
        let cancelled = async {
            match &self.wait {
                Some(wait) => wait.token().cancelled().await,
                None => std::future::pending().await,
            }
        };
        let settled = async {
            match &self.put {
                Some(put) => put.question.closed.cancelled().await,
                None => std::future::pending().await,
            }
        };
        let conversation = self.conversation.as_mut().expect("a request that goes on has its conversation");
        let turn = tokio::select! {
            biased;
            () = cancelled => return Step::Withdrawn,
            () = settled => None,
            turn = conversation.turn() => Some(turn),
        };
        match turn {
            None => {
                conversation.question = None;
                let messages = self.put.take().map(Put::take_back).unwrap_or_default();
                if messages.is_empty() { Step::Nothing } else { Step::Say(events_of(&messages)) }
            }
            Some(Turn::Progress(params)) => match &self.token {
                Some(token) => {
                    let params = set_member(&params, "progressToken", token);
                    Step::Say(events_of(&[wire::notification("notifications/progress", &params)]))
                }
                None => Step::Nothing,
            },
            Some(Turn::Remarked(remark)) if self.events && levels::is_wanted(&self.client, &remark) => {
                let params = remark.params.as_deref().unwrap_or("{}");
                Step::Say(events_of(&[wire::notification(&remark.method, params)]))
            }
            Some(Turn::Remarked(_)) => Step::Nothing,
            Some(Turn::Asked(question)) => self.asked(question),
            Some(Turn::Over(outcome)) => self.over(outcome),
        }
    }

    fn asked(&mut self, question: Arc<Question>) -> Step {
        if let Some(why) = asks::unfit(&self.client, &question) {
            question.refuse(&why);
            return Step::Nothing;
        }
        match self.era {
            Era::Legacy if self.events => {
                let put = self.front.asks.put(&self.caller.channel, &question);
                let events = events_of(&put.messages);
                self.put = Some(put);
                if let Some(conversation) = &mut self.conversation {
                    conversation.question = Some(question);
                }
                Step::Say(events)
            }
            Era::Modern => {
                let requests = asks::as_members(&question.wanted.asks);
                let Some(mut conversation) = self.conversation.take() else { return Step::Nothing };
                conversation.question = Some(question);
                let state = self.front.parked.park(&self.caller.principal, conversation);
                let result = format!(
                    r#"{{"resultType":"input_required","inputRequests":{requests},"requestState":"{state}"}}"#
                );
                Step::End(deliver::result(&self.id, &result, self.era, &[]), StatusCode::OK)
            }
            Era::Legacy => {
                let why = "the client takes no event streams, so it cannot be asked";
                question.refuse(&wire::error_member(wire::METHOD_NOT_FOUND, why, None));
                Step::Nothing
            }
        }
    }

    fn over(&self, outcome: Result<Text, Text>) -> Step {
        let Some(conversation) = &self.conversation else { return Step::Nothing };
        match outcome {
            Ok(result) => {
                let is_task = conversation.method.starts_with("tasks/");
                let (seal, server) = (&self.front.seal, &conversation.server);
                let renamed = match conversation.method.as_str() {
                    "tasks/result" => task_id::in_meta(seal, &self.caller.principal, server, &result),
                    _ if is_task => task_id::put_into(seal, &self.caller.principal, server, &result),
                    _ => None,
                };
                let hinted = renamed.as_deref().unwrap_or(&result);
                let hinted = with_cache_hints(self.era, &conversation.method, hinted);
                Step::End(deliver::result(&self.id, &hinted, self.era, &[]), StatusCode::OK)
            }
            Err(error) => {
                Step::End(wire::error(&self.id, &error), deliver::status_of_error(self.era, &error))
            }
        }
    }
}

/// A result as its era wants it: lists and resources say how long they may be kept (2026-07-28, "Caching").
pub(super) fn with_cache_hints(era: Era, method: &str, result: &str) -> String {
    let mut result = result.to_owned();
    if lists::needs_cache_hints(era, method) {
        let members = wire::members(&result).unwrap_or_default();
        let has = |wanted: &str| members.iter().any(|(name, _)| name == wanted);
        // One that asks for input is no result yet.
        let missing =
            [("ttlMs", "0"), ("cacheScope", r#""private""#)].map(|(name, value)| (!has(name), name, value));
        if !members.iter().any(|(name, value)| name == "resultType" && *value == r#""input_required""#) {
            for (_, name, value) in missing.into_iter().filter(|(missing, ..)| *missing) {
                result = set_member(&result, name, value);
            }
        }
    }
    result
}

fn events_of(messages: &[String]) -> Event {
    Event::More(messages.iter().flat_map(|message| body::message_event(message)).collect())
}

async fn respond(mut exchange: Exchange, link: &Arc<Link>, request: &Request<'_>) -> Response<Outgoing> {
    let plain_for = if request.accepts.json { PLAIN_WITHIN } else { Duration::ZERO };
    let mut plain = std::pin::pin!(tokio::time::sleep(plain_for));
    loop {
        let step = tokio::select! {
            biased;
            step = exchange.step() => step,
            () = &mut plain, if request.accepts.events => return stream_from(exchange, link, None),
        };
        match step {
            Step::Nothing => {}
            Step::Say(event) => return stream_from(exchange, link, Some(event)),
            Step::End(message, status) => {
                return body::answer(link, request.accepts, status, message, Receipt::none());
            }
            Step::Withdrawn if request.accepts.events => return body::events(link, stream::empty()),
            Step::Withdrawn => return body::empty(StatusCode::ACCEPTED),
        }
    }
}

fn stream_from(exchange: Exchange, link: &Arc<Link>, first: Option<Event>) -> Response<Outgoing> {
    let state = (Some(exchange), first, keep_alive());
    let events = stream::unfold(state, async move |(exchange, first, mut ticks)| {
        if let Some(first) = first {
            return Some((first, (exchange, None, ticks)));
        }
        let mut exchange = exchange?;
        loop {
            let step = tokio::select! {
                biased;
                step = exchange.step() => step,
                _ = ticks.tick() => return Some((Event::More(body::keep_alive()), (Some(exchange), None, ticks))),
            };
            match step {
                Step::Nothing => {}
                Step::Say(event) => return Some((event, (Some(exchange), None, ticks))),
                Step::End(message, _) => {
                    let last = Event::Last(body::message_event(&message), Receipt::none());
                    return Some((last, (None, None, ticks)));
                }
                Step::Withdrawn => return None,
            }
        }
    });
    body::events(link, events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_say_how_long_they_are_good() {
        let check = |era: Era, method: &str, result: &str, expected: &str| {
            assert_eq!(with_cache_hints(era, method, result), expected, "{method}");
        };
        let hinted = r#"{"a":[],"ttlMs":0,"cacheScope":"private"}"#;
        check(Era::Modern, "prompts/list", r#"{"a":[]}"#, hinted);
        check(Era::Legacy, "prompts/list", r#"{"a":[]}"#, r#"{"a":[]}"#);
        check(Era::Modern, "prompts/get", r#"{"a":[]}"#, r#"{"a":[]}"#);
        check(
            Era::Modern,
            "resources/read",
            r#"{"ttlMs":7,"cacheScope":"public"}"#,
            r#"{"ttlMs":7,"cacheScope":"public"}"#,
        );
        let asks = r#"{"resultType":"input_required"}"#;
        check(Era::Modern, "resources/read", asks, asks);
    }
}
