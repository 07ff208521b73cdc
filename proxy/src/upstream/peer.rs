//! The client side of JSON-RPC: our request ids, who waits for which, and what a server's messages mean for them.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use holdfast_store::{Answer, AnswerKind, Loss, Text};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use tokio::sync::Notify;

use super::{Refused, Signal};
use crate::wire::{self, Envelope};

/// Who hears what a request brings. Called from the task that reads the connection: it must not block.
pub(super) type Listener = Arc<dyn Fn(Signal) + Send + Sync>;

/// Answered and lost requests that are remembered, so that a late or a second answer still finds its listener.
const REMEMBERED: usize = 256;
/// Withdrawn requests that are kept waiting: servers need not answer those, so they would pile up.
const WITHDRAWN: usize = 1024;

/// The JSON-RPC id of a request of ours, and its progress token.
///
/// Ids start from the clock, so that a server which outlives us does not see one twice, and stay below 2^53, which
/// is what servers written in JavaScript can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct RequestId(u64);

impl RequestId {
    pub(super) fn fresh() -> Self {
        static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| {
            const JANUARY_2024_MS: u64 = 1_704_067_200_000;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64);
            // 4096 ids for each millisecond: we cannot use them up faster than the clock makes new ones.
            AtomicU64::new((now.saturating_sub(JANUARY_2024_MS) << 12) + rand::random_range(0..4096))
        });
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The id in a server's message. Some servers turn numbers into strings.
    pub(super) fn read(raw: &str) -> Option<Self> {
        raw.trim_matches('"').parse().ok().map(Self)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a request is for: only calls keep an otherwise idle server alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Call,
    Housekeeping,
}

/// The requests of one connection.
pub(super) struct Peer {
    server: Arc<str>,
    table: Mutex<Table>,
    /// Woken by `notifications/tools/list_changed`.
    pub(super) list_changed: Notify,
    in_garbage: AtomicBool,
}

#[derive(Default)]
struct Table {
    waiting: HashMap<RequestId, (Listener, Purpose)>,
    settled: VecDeque<(RequestId, Listener)>,
    withdrawn: VecDeque<RequestId>,
    closed: bool,
}

impl Peer {
    pub(super) fn new(server: Arc<str>) -> Self {
        Self {
            server,
            table: Mutex::default(),
            list_changed: Notify::new(),
            in_garbage: AtomicBool::new(false),
        }
    }

    /// Must come before the request's first byte leaves. False once the connection is over.
    pub(super) fn register(&self, id: RequestId, listener: Listener, purpose: Purpose) -> bool {
        let mut table = self.table();
        if !table.closed {
            table.waiting.insert(id, (listener, purpose));
        }
        !table.closed
    }

    pub(super) fn is_waiting(&self, id: RequestId) -> bool {
        self.table().waiting.contains_key(&id)
    }

    /// Calls that wait for their answers.
    pub(super) fn calls(&self) -> usize {
        self.table().waiting.values().filter(|(_, purpose)| *purpose == Purpose::Call).count()
    }

    /// Notes that nobody insists on this answer any more. False if it is not awaited.
    pub(super) fn withdraw(&self, id: RequestId) -> bool {
        let mut table = self.table();
        if !table.waiting.contains_key(&id) {
            return false;
        }
        if !table.withdrawn.contains(&id) {
            table.withdrawn.push_back(id);
        }
        while table.withdrawn.len() > WITHDRAWN {
            if let Some(oldest) = table.withdrawn.pop_front() {
                table.waiting.remove(&oldest);
            }
        }
        true
    }

    /// Ends the wait for `id` with `signal`; a later answer is passed on all the same.
    pub(super) fn settle(&self, id: RequestId, signal: Signal) {
        let listener = {
            let mut table = self.table();
            let Some((listener, _)) = table.waiting.remove(&id) else { return };
            table.remember(id, listener.clone());
            listener
        };
        listener(signal);
    }

    /// Nothing more will be read: whatever waits is lost.
    pub(super) fn close(&self, cause: &str) {
        let lost = {
            let mut table = self.table();
            table.closed = true;
            table.settled.clear();
            std::mem::take(&mut table.waiting)
        };
        for (listener, _) in lost.into_values() {
            listener(Signal::Lost(Loss::Disconnected, cause.to_owned()));
        }
    }

    /// Takes in one message, or a batch, and returns what is to be replied.
    pub(super) fn incoming(&self, text: &str) -> Vec<String> {
        let mut replies = Vec::new();
        if text.trim_start().starts_with('[')
            && let Ok(batch) = serde_json::from_str::<Vec<&RawValue>>(text)
        {
            batch.into_iter().for_each(|message| replies.extend(self.message(message.get())));
        } else {
            replies.extend(self.message(text));
        }
        replies
    }

    /// Logs what is no message: once per burst, since a server that prints to stdout prints a lot.
    pub(super) fn garbage(&self, text: &[u8]) {
        let start = String::from_utf8_lossy(&text[..text.len().min(200)]);
        if self.in_garbage.swap(true, Ordering::Relaxed) {
            tracing::debug!(target: "upstream", server = &*self.server, text = %start, "skipped a line that is no message");
        } else {
            tracing::warn!(
                target: "upstream", server = &*self.server, text = %start,
                "the server wrote something to stdout that is no message; it is skipped"
            );
        }
    }

    fn message(&self, text: &str) -> Option<String> {
        let Ok(message) = Envelope::read(text) else {
            self.garbage(text.as_bytes());
            return None;
        };
        match (&message.method, message.id) {
            (Some(method), Some(id)) => {
                self.in_garbage.store(false, Ordering::Relaxed);
                Some(reply(method, id))
            }
            (Some(method), None) => {
                self.in_garbage.store(false, Ordering::Relaxed);
                self.notified(method, message.params);
                None
            }
            (None, Some(id)) => {
                self.in_garbage.store(false, Ordering::Relaxed);
                self.answered(id, &message);
                None
            }
            (None, None) => {
                match message.error {
                    Some(error) => tracing::warn!(
                        target: "upstream", server = &*self.server, error = error.get(),
                        "the server reported an error without saying for which request"
                    ),
                    None => self.garbage(text.as_bytes()),
                }
                None
            }
        }
    }

    fn notified(&self, method: &str, params: Option<&RawValue>) {
        match (method, params) {
            ("notifications/progress", Some(params)) => {
                #[derive(Deserialize)]
                struct Progress<'a> {
                    #[serde(borrow, rename = "progressToken")]
                    token: &'a RawValue,
                }
                let token = serde_json::from_str::<Progress<'_>>(params.get())
                    .ok()
                    .and_then(|progress| RequestId::read(progress.token.get()));
                let listener = token.and_then(|id| Some(self.table().waiting.get(&id)?.0.clone()));
                match listener {
                    Some(listener) => listener(Signal::Progress(Text::from(params))),
                    None => {
                        tracing::debug!(target: "upstream", server = &*self.server, "progress of nothing that waits")
                    }
                }
            }
            ("notifications/tools/list_changed", _) => self.list_changed.notify_one(),
            _ => tracing::debug!(target: "upstream", server = &*self.server, method, "notification not used"),
        }
    }

    fn answered(&self, raw_id: &RawValue, message: &Envelope<'_>) {
        let id = RequestId::read(raw_id.get());
        let listener = id.and_then(|id| {
            let mut table = self.table();
            match table.waiting.remove(&id) {
                Some((listener, _)) => {
                    table.remember(id, listener.clone());
                    Some(listener)
                }
                None => {
                    let (_, listener) = table.settled.iter().find(|(settled, _)| *settled == id)?;
                    Some(listener.clone())
                }
            }
        });
        match listener {
            Some(listener) => listener(outcome(message)),
            None => tracing::debug!(
                target: "upstream", server = &*self.server, id = raw_id.get(), "an answer to nothing that was asked"
            ),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("nothing panics while it holds the table")
    }
}

impl Table {
    fn remember(&mut self, id: RequestId, listener: Listener) {
        if self.settled.len() == REMEMBERED {
            self.settled.pop_front();
        }
        self.settled.push_back((id, listener));
        if let Some(at) = self.withdrawn.iter().position(|withdrawn| *withdrawn == id) {
            self.withdrawn.remove(at);
        }
    }
}

/// Tools, and nothing else, is what we came for.
fn reply(method: &str, id: &RawValue) -> String {
    if method == "ping" {
        return wire::result(id.get(), "{}");
    }
    let message = format!("this client does not serve {method}");
    wire::error(id.get(), &wire::error_member(wire::METHOD_NOT_FOUND, &message, None))
}

/// What a response says.
fn outcome(message: &Envelope<'_>) -> Signal {
    match (message.error, message.result) {
        (Some(error), _) => Signal::Refused(refused(error)),
        (None, Some(result)) => {
            Signal::Answered(Answer { kind: kind(result.get()), text: Text::from(result) })
        }
        // `"result": null` and no result at all look alike; either way the server is done with the request.
        (None, None) => Signal::Answered(Answer { kind: AnswerKind::Result, text: Text::of(&Value::Null) }),
    }
}

/// An `error` member as a refusal.
pub(super) fn refused(error: &RawValue) -> Refused {
    #[derive(Deserialize)]
    struct Code {
        code: Value,
    }
    let code = serde_json::from_str::<Code>(error.get()).ok().and_then(|error| error.code.as_i64());
    Refused { error: Text::from(error), code, status: None, retry_after_ms: None }
}

fn kind(result: &str) -> AnswerKind {
    #[derive(Deserialize)]
    struct Flag<'a> {
        #[serde(borrow, default, rename = "isError")]
        is_error: Option<&'a RawValue>,
    }
    let is_error = match serde_json::from_str::<Flag<'_>>(result) {
        Ok(flag) => flag.is_error.is_some_and(|raw| raw.get() == "true"),
        // Not an object, or a name twice: the generic reader knows.
        Err(_) => serde_json::from_str::<Value>(result).is_ok_and(|value| value["isError"] == true),
    };
    if is_error { AnswerKind::ToolError } else { AnswerKind::Result }
}
