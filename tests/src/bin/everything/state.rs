//! Sessions, listeners, and what was seen.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::Write,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Sender, channel},
    },
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    Options,
    message::{Params, notification},
    stream::{Line, Nowhere, Stream},
    tasks::Tasks,
};

pub(crate) struct Everything {
    pub(crate) options: Options,
    pub(crate) sessions: Mutex<HashMap<String, Arc<Session>>>,
    listeners: Mutex<Vec<Listener>>,
    /// What has changed from the lists as they were.
    pub(crate) changed: Mutex<HashSet<&'static str>>,
    /// How often each resource was touched.
    pub(crate) touched: Mutex<HashMap<String, u64>>,
    pub(crate) tasks: Tasks,
    seen: Mutex<Vec<Value>>,
    numbers: AtomicU64,
}

/// Somebody who listens, in 2026-07-28.
struct Listener {
    /// The id of the request, as it was written.
    id: String,
    wanted: Value,
    line: Arc<dyn Line>,
    gone: Arc<AtomicBool>,
}

/// Which family of revisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    Legacy,
    Modern,
}

/// A session; in 2026-07-28 no more than what one connection holds together.
pub(crate) struct Session {
    pub(crate) id: String,
    /// What the client said at `initialize`.
    pub(crate) hello: Mutex<Value>,
    /// Where messages go that belong to no request.
    pub(crate) general: Arc<dyn Line>,
    /// The same, where it is a stream.
    pub(crate) stream: Option<Arc<Stream>>,
    /// Streams of responses, by their number, to be read again.
    pub(crate) streams: Mutex<HashMap<u64, Arc<Stream>>>,
    pub(crate) level: Mutex<String>,
    pub(crate) subscribed: Mutex<HashSet<String>>,
    pending: Mutex<HashMap<String, Sender<Result<Value, Value>>>>,
    /// Requests that run, by the text of their ids.
    pub(crate) running: Mutex<HashMap<String, Arc<AtomicBool>>>,
}

/// One request that is worked on.
pub(crate) struct Ask {
    pub(crate) everything: Arc<Everything>,
    pub(crate) session: Arc<Session>,
    pub(crate) era: Era,
    /// As it was written.
    pub(crate) id: String,
    pub(crate) method: String,
    pub(crate) params: Params,
    pub(crate) line: Arc<dyn Line>,
    pub(crate) cancelled: Arc<AtomicBool>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Everything {
    pub(crate) fn new(options: Options) -> Arc<Everything> {
        Arc::new(Everything {
            options,
            sessions: Mutex::default(),
            listeners: Mutex::default(),
            changed: Mutex::default(),
            touched: Mutex::default(),
            tasks: Tasks::default(),
            seen: Mutex::default(),
            numbers: AtomicU64::new(1),
        })
    }

    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Remembers something for the tool `what_was_seen`.
    pub(crate) fn saw(&self, what: Value) {
        lock(&self.seen).push(what);
    }

    pub(crate) fn seen(&self) -> Value {
        lock(&self.seen).clone().into()
    }

    /// Appends a line to a file of `--dir`.
    pub(crate) fn write(&self, file: &str, line: &str) {
        let Some(directory) = &self.options.directory else { return };
        let file = fs::OpenOptions::new().create(true).append(true).open(directory.join(file));
        let mut file = file.expect("the directory can be written");
        // One write, so that lines of several threads do not mix.
        file.write_all(format!("{line}\n").as_bytes()).expect("the directory can be written");
    }

    /// A new session that legacy clients shook hands for, on a stream of its own or on this line.
    pub(crate) fn begin(self: &Arc<Self>, hello: Value, general: Option<Arc<dyn Line>>) -> Arc<Session> {
        let stream = general.is_none().then(Stream::new);
        let line: Option<Arc<dyn Line>> = stream.clone().map(|stream| stream as Arc<dyn Line>);
        let session = Arc::new(Session::new(
            format!("everything-{}-{}", std::process::id(), self.number()),
            hello,
            general.or(line).expect("one of the two"),
            stream,
        ));
        lock(&self.sessions).insert(session.id.clone(), session.clone());
        session
    }

    /// Tells everybody who wants to know; `kind` is the member of the filter in 2026-07-28.
    pub(crate) fn announce(&self, kind: &str, method: &str, params: &Value) {
        for session in lock(&self.sessions).values() {
            let uri = params["uri"].as_str();
            if uri.is_none_or(|uri| lock(&session.subscribed).contains(uri)) {
                session.general.send(&notification(method, params));
            }
        }
        let mut listeners = lock(&self.listeners);
        listeners.retain(|listener| !listener.gone.load(Ordering::SeqCst));
        for listener in listeners.iter() {
            let wanted = match params["uri"].as_str() {
                Some(uri) => {
                    listener.wanted[kind].as_array().is_some_and(|uris| uris.iter().any(|u| u == uri))
                }
                None => listener.wanted[kind] == true,
            };
            if wanted {
                listener.line.send(&tagged(method, params, &listener.id));
            }
        }
    }

    /// `subscriptions/listen`.
    pub(crate) fn listen(&self, ask: &Ask) {
        let wanted = ask.params.value["notifications"].clone();
        let acknowledged = json!({ "notifications": wanted });
        let opening = tagged("notifications/subscriptions/acknowledged", &acknowledged, &ask.id);
        // Nobody may be told something before they were told that they listen.
        let mut listeners = lock(&self.listeners);
        ask.line.send(&opening);
        let (id, line, gone) = (ask.id.clone(), ask.line.clone(), ask.cancelled.clone());
        listeners.push(Listener { id, wanted, line, gone });
    }
}

fn tagged(method: &str, params: &Value, id: &str) -> String {
    let id: Value = serde_json::from_str(id).expect("it was JSON");
    let mut params = if params.is_object() { params.clone() } else { json!({}) };
    params["_meta"] = json!({ "io.modelcontextprotocol/subscriptionId": id });
    notification(method, &params)
}

impl Session {
    fn new(id: String, hello: Value, general: Arc<dyn Line>, stream: Option<Arc<Stream>>) -> Session {
        Session {
            id,
            hello: Mutex::new(hello),
            general,
            stream,
            streams: Mutex::default(),
            level: Mutex::new("info".to_owned()),
            subscribed: Mutex::default(),
            pending: Mutex::default(),
            running: Mutex::default(),
        }
    }

    /// What holds the requests of one connection together where there are no sessions.
    pub(crate) fn none() -> Arc<Session> {
        Arc::new(Session::new(String::new(), Value::Null, Arc::new(Nowhere), None))
    }

    /// An answer to a question of ours.
    pub(crate) fn answered(&self, id: &str, answer: Result<Value, Value>) {
        if let Some(waiting) = lock(&self.pending).remove(id) {
            // Whoever asked may have given up.
            let _ = waiting.send(answer);
        }
    }

    /// `notifications/cancelled`.
    pub(crate) fn cancel(&self, id: &str) {
        if let Some(cancelled) = lock(&self.running).get(id) {
            cancelled.store(true, Ordering::SeqCst);
        }
    }
}

impl Ask {
    /// Sends a notification on the request's own way.
    pub(crate) fn notify(&self, method: &str, params: &Value) {
        self.line.send(&notification(method, params));
    }

    /// Asks the client, in the legacy era.
    pub(crate) fn request(&self, method: &str, params: &Value) -> Result<Value, Value> {
        let id = format!("everything-asks-{}", self.everything.number());
        let (sender, answer) = channel();
        let text = Value::from(id.as_str()).to_string();
        lock(&self.session.pending).insert(text, sender);
        let mut message = json!({ "jsonrpc": "2.0", "id": id, "method": method });
        if !params.is_null() {
            message["params"] = params.clone();
        }
        self.line.send(&message.to_string());
        for _ in 0..1_500 {
            if let Ok(answer) = answer.recv_timeout(Duration::from_millis(20)) {
                return answer;
            }
            if self.is_cancelled() {
                return Err("cancelled".into());
            }
        }
        Err("nobody answers".into())
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// Sleeps unless it is cancelled; returns whether it is.
    pub(crate) fn pause(&self, ms: u64) -> bool {
        let mut left = ms;
        while left > 0 && !self.is_cancelled() {
            std::thread::sleep(Duration::from_millis(left.min(10)));
            left = left.saturating_sub(10);
        }
        self.is_cancelled()
    }

    pub(crate) fn argument(&self, name: &str) -> &Value {
        &self.params.value["arguments"][name]
    }

    pub(crate) fn meta(&self, name: &str) -> &Value {
        &self.params.value["_meta"][name]
    }

    /// What the client can do.
    pub(crate) fn capabilities(&self) -> Value {
        match self.era {
            Era::Modern => self.meta("io.modelcontextprotocol/clientCapabilities").clone(),
            Era::Legacy => lock(&self.session.hello)["capabilities"].clone(),
        }
    }

    /// `notifications/progress`, where a token came.
    pub(crate) fn progress(&self, progress: &Value, total: &Value, message: &str) {
        let token = self.meta("progressToken");
        if !token.is_null() {
            let params =
                json!({ "progressToken": token, "progress": progress, "total": total, "message": message });
            self.notify("notifications/progress", &params);
        }
    }

    /// `notifications/message`, where the client wants it.
    pub(crate) fn log(&self, level: &str, data: &Value) {
        const LEVELS: [&str; 8] =
            ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
        let wanted = match self.era {
            Era::Legacy => lock(&self.session.level).clone(),
            Era::Modern => match self.meta("io.modelcontextprotocol/logLevel").as_str() {
                Some(level) => level.to_owned(),
                None => return,
            },
        };
        let rank = |level: &str| LEVELS.iter().position(|known| *known == level);
        if rank(level) >= rank(&wanted) {
            let params = json!({ "level": level, "logger": "everything", "data": data });
            self.notify("notifications/message", &params);
        }
    }
}
