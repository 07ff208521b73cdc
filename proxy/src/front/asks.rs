//! Requests of ours to legacy clients: which are open, who may answer them, and what becomes of an answer.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use holdfast_store::{Text, hash_fields};
use serde_json::Value;

use super::splice::set_member;
use crate::{
    upstream::{Answers, Ask, Client, Question, Said},
    wire,
};

type Then = Box<dyn FnOnce(Said) + Send>;

/// Requests that clients have not answered, by our ids.
#[derive(Default)]
pub(super) struct Asks {
    open: Mutex<HashMap<String, Open>>,
}

struct Open {
    channel: String,
    /// What it is part of; none for an offer of ours.
    question: Weak<Question>,
    then: Then,
}

impl fmt::Debug for Asks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asks").field("open", &self.lock().len()).finish()
    }
}

impl Asks {
    /// Makes a request to the client of `channel`; gives its id. `then` hears the answer, unless it is dropped before.
    pub(super) fn make(&self, channel: &str, then: Then) -> String {
        // Random, so that an answer to the one before a restart is never taken for one to this.
        let id = name(rand::random());
        self.add(channel, &id, Weak::new(), then);
        id
    }

    fn add(&self, channel: &str, id: &str, question: Weak<Question>, then: Then) {
        self.lock().insert(id.to_owned(), Open { channel: channel.to_owned(), question, then });
    }

    /// The client of `channel` has answered the request `id` (a JSON text). What answers none of its own is nobody's.
    pub(super) fn answered(&self, channel: &str, id: &str, said: Said) {
        let Ok(id) = serde_json::from_str::<String>(id) else { return };
        let open = {
            let mut table = self.lock();
            if table.get(&id).is_none_or(|open| open.channel != channel) {
                return;
            }
            table.remove(&id)
        };
        if let Some(open) = open {
            (open.then)(said);
        }
    }

    /// No answer is wanted any more. False where it was given.
    pub(super) fn drop_one(&self, id: &str) -> bool {
        self.lock().remove(id).is_some()
    }

    /// The channel is gone: what its client was asked has no answer.
    pub(super) fn forget(&self, channel: &str) {
        let gone: Vec<Open> =
            self.lock().extract_if(|_, open| open.channel == channel).map(|(_, open)| open).collect();
        let why = wire::error_member(wire::INTERNAL_ERROR, "the client is gone", None);
        for question in gone.iter().filter_map(|open| open.question.upgrade()) {
            question.refuse(&why);
        }
    }

    /// Puts everything that `question` asks to the client of `channel`.
    pub(super) fn put(self: &Arc<Self>, channel: &str, question: &Arc<Question>) -> Put {
        let heard = Arc::new(Mutex::new(Answers::new()));
        let count = question.wanted.asks.len();
        let mut put =
            Put { asks: self.clone(), question: question.clone(), ids: Vec::new(), messages: Vec::new() };
        for ask in &question.wanted.asks {
            let (name, heard, question) = (ask.name.clone(), heard.clone(), question.clone());
            // The same whenever the same is asked of the same: also the one who was asked before a restart may answer.
            let number = question.number.to_be_bytes();
            let hash = hash_fields("holdfast/ask", &[channel.as_bytes(), &number, name.as_bytes()]);
            let id = self::name(*hash.0.first_chunk().expect("a hash has more bytes"));
            self.add(
                channel,
                &id,
                Arc::downgrade(&question),
                Box::new(move |said| {
                    let mut all = heard.lock().unwrap_or_else(PoisonError::into_inner);
                    all.push((name, said));
                    if all.len() == count {
                        let all = std::mem::take(&mut *all);
                        question.answer(all);
                    }
                }),
            );
            put.messages.push(message(&id, ask));
            put.ids.push(id);
        }
        put
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question that was put to a client. Dropping it changes nothing: the answer may come by another connection.
#[derive(Debug)]
pub(super) struct Put {
    asks: Arc<Asks>,
    pub(super) question: Arc<Question>,
    ids: Vec<String>,
    /// The requests, as JSON-RPC messages.
    pub(super) messages: Vec<String>,
}

impl Put {
    /// Takes back what is not answered; gives the notifications that say so.
    pub(super) fn take_back(self) -> Vec<String> {
        let open = self.ids.iter().filter(|id| self.asks.drop_one(id));
        let params =
            |id: &String| format!(r#"{{"requestId":{},"reason":"not wanted any more"}}"#, Value::from(&**id));
        open.map(|id| wire::notification("notifications/cancelled", &params(id))).collect()
    }
}

fn name(bytes: [u8; 16]) -> String {
    format!("holdfast-{}", uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

fn message(id: &str, ask: &Ask) -> String {
    let (id, method) = (Value::from(id), Value::from(&*ask.method));
    let params = params(&id, ask).map_or_else(String::new, |params| format!(r#","params":{}"#, &*params));
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{method}{params}}}"#)
}

/// As the server gave them; clients of 2025-11-25 want an id with an address, which 2026-07-28 does not have.
fn params(id: &Value, ask: &Ask) -> Option<Text> {
    let params = ask.params.as_ref()?;
    let members = wire::members(params).unwrap_or_default();
    let has = |name: &str| members.iter().any(|(other, _)| other == name);
    let is_url = members.iter().any(|(name, value)| name == "mode" && *value == r#""url""#);
    if is_url && !has("elicitationId") {
        return Text::parse(&set_member(params, "elicitationId", &id.to_string())).ok();
    }
    Some(params.clone())
}

/// What is asked, as the members that a modern client reads.
pub(super) fn as_members(asks: &[Ask]) -> String {
    let mut requests = String::from("{");
    for ask in asks {
        let comma = if requests.len() > 1 { "," } else { "" };
        let params =
            ask.params.as_ref().map_or_else(String::new, |params| format!(r#","params":{}"#, &**params));
        let (name, method) = (Value::from(&*ask.name), Value::from(&*ask.method));
        requests.push_str(&format!(r#"{comma}{name}:{{"method":{method}{params}}}"#));
    }
    requests.push('}');
    requests
}

/// Why this client cannot be asked that; none where it can.
pub(super) fn unfit(client: &Client, question: &Question) -> Option<Text> {
    let capabilities = client.capabilities.value();
    let missing = question.wanted.asks.iter().find(|ask| {
        let wanted = match ask.method.as_str() {
            "roots/list" => "/roots",
            "sampling/createMessage" => "/sampling",
            "elicitation/create" => "/elicitation",
            // Nobody declares what only the two of them know.
            _ => return false,
        };
        capabilities.pointer(wanted).is_none_or(|capability| !capability.is_object())
    })?;
    let message = format!(
        "the client of the agent whose request this is did not declare what {} needs",
        missing.method
    );
    Some(wire::error_member(wire::METHOD_NOT_FOUND, &message, None))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_request_is_answered_by_its_own_client_once() {
        let asks = Asks::default();
        let (tell, told) = mpsc::channel();
        let id = asks.make("session:a", Box::new(move |said| tell.send(said).expect("somebody listens")));
        let id = Value::from(id).to_string();
        let one = || Said::Result(Text::of(&1));
        asks.answered("session:b", &id, one());
        asks.answered("session:a", "7", one());
        asks.answered("session:a", r#""other""#, one());
        assert!(told.try_recv().is_err());
        asks.answered("session:a", &id, one());
        asks.answered("session:a", &id, Said::Error(Text::of(&2)));
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [one()]);
    }

    #[test]
    fn an_address_gets_an_id() {
        let ask = |params: &str| Ask {
            name: "a".into(),
            method: "elicitation/create".into(),
            params: Some(Text::parse(params).expect("JSON")),
        };
        let check = |given: &str, expected: &str| {
            assert_eq!(params(&Value::from("7"), &ask(given)).as_deref(), Some(expected));
        };
        check(r#"{"mode":"url","n":1.50}"#, r#"{"mode":"url","n":1.50,"elicitationId":"7"}"#);
        check(r#"{"mode":"url","elicitationId":"x"}"#, r#"{"mode":"url","elicitationId":"x"}"#);
        check(r#"{"mode":"form"}"#, r#"{"mode":"form"}"#);
    }
}
