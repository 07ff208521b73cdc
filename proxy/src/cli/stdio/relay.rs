//! The life of a message in the bridge: sent, sent again where that is needed, answered once.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Method, Response, StatusCode, body::Incoming, header};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    events::Events,
    lines::Line,
    link::{Connection, IfMissing, NoConnection, Serve},
};
use crate::{
    front::{
        BRIDGE_CAN, BRIDGE_CAPABILITIES, BRIDGE_CLIENT, BRIDGE_INSTANCE, BRIDGE_LOG_LEVEL, BRIDGE_REQUEST,
        Surface, VISIT_PAGES, one_line,
    },
    wire::{self, Envelope},
};

/// A request that has had no sign of life from `serve` for this long is given up.
const GIVE_UP: Duration = Duration::from_secs(15 * 60);
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MOST: Duration = Duration::from_secs(2);
/// `serve` shows every 15 s that a stream is alive; after this long without it, the connection is dead.
const SILENCE: Duration = Duration::from_secs(60);
/// The largest answer that comes as one piece; `serve` stores larger ones elsewhere long before.
const ANSWER_MOST: usize = 256 * 1024 * 1024;

/// Of a client that declares more, servers are told nothing.
const CAPABILITIES_MOST: usize = 16 * 1024;

/// Everything the bridge keeps.
pub(super) struct Relay {
    serve: Serve,
    instance: String,
    client: Mutex<String>,
    /// The agent has said `initialize`, so it knows announcements outside of a subscription.
    legacy: Mutex<bool>,
    /// It has declared that it can send its user to a page.
    visits_pages: Mutex<bool>,
    /// Everything that it has declared, as JSON in ASCII.
    capabilities: Mutex<Option<String>>,
    /// The level of log messages that it has set.
    log_level: Mutex<Option<String>>,
    numbers: AtomicU64,
    /// Requests without an answer, by the canonical text of their id.
    unanswered: Mutex<HashMap<String, CancellationToken>>,
    tasks: TaskTracker,
    out: Mutex<Option<mpsc::UnboundedSender<String>>>,
}

/// A request of the agent.
struct Asked {
    /// Its number, the same each time it is sent.
    number: u64,
    /// Its id, as JSON text.
    id: String,
    body: Bytes,
    again: Again,
}

/// What becomes of a request whose answer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    /// It is sent again: it changes nothing, or `serve` knows it by its number.
    Send,
    /// Nobody knows what it does.
    Ask,
}

impl Again {
    fn of(method: &str) -> Self {
        const KNOWN: [&str; 8] = [
            "tools/",
            "resources/",
            "prompts/",
            "completion/",
            "logging/",
            "server/",
            "subscriptions/",
            "tasks/",
        ];
        let known = KNOWN.iter().any(|group| method.starts_with(group));
        if known || matches!(method, "initialize" | "ping" | "") { Self::Send } else { Self::Ask }
    }
}

/// How a message is sent.
#[derive(Clone, Copy, Debug)]
enum Number {
    /// A request: it may be sent again under this number.
    Of(u64),
    /// A notification.
    None,
}

/// What became of one try.
enum Try {
    /// The agent has its answer, or wants none any more.
    Done,
    /// The connection broke before the answer.
    Broken,
    /// There will be no answer, for this reason.
    GaveUp(String),
}

impl Relay {
    /// A relay that writes to `out`.
    pub(super) fn new(serve: Serve, out: mpsc::UnboundedSender<String>) -> Arc<Self> {
        Arc::new(Self {
            serve,
            instance: uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string(),
            client: Mutex::default(),
            legacy: Mutex::default(),
            visits_pages: Mutex::default(),
            capabilities: Mutex::default(),
            log_level: Mutex::default(),
            numbers: AtomicU64::new(1),
            unanswered: Mutex::default(),
            tasks: TaskTracker::new(),
            out: Mutex::new(Some(out)),
        })
    }

    /// Takes a line from the agent.
    pub(super) fn take(self: &Arc<Self>, line: Line) {
        let text = match line {
            Line::Text(text) => text,
            Line::Unusable(why) => return self.refuse("null", wire::PARSE_ERROR, why),
        };
        let envelope = match Envelope::read(&text) {
            Ok(envelope) => envelope,
            // Valid JSON of another shape, a batch above all, is for `serve` to refuse in its own words.
            Err(_) if serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok() => {
                return self.ask("null".to_owned(), text, Again::Send);
            }
            Err(fault) => return self.refuse("null", wire::PARSE_ERROR, &fault.to_string()),
        };
        match (envelope.method.as_deref(), envelope.id.map(|id| id.get().to_owned())) {
            (Some(method), Some(id)) => {
                match method {
                    "initialize" => self.meet(&envelope),
                    "logging/setLevel" => self.set_level(&envelope),
                    _ => {}
                }
                let again = Again::of(method);
                self.ask(id, text, again);
            }
            (Some("notifications/cancelled"), None) => {
                let id = envelope.params.and_then(|params| {
                    let params: Value = serde_json::from_str(params.get()).ok()?;
                    params.get("requestId").map(Value::to_string)
                });
                self.notify(text, id);
            }
            (Some(_), None) => self.notify(text, None),
            // A request without an id and a method: an answer to a question that nobody asked, or nonsense.
            (None, _) => self.notify(text, None),
        }
    }

    /// Relays what servers announce, as long as the bridge lives. The open connection also shows `serve` that the
    /// agent is there.
    pub(super) async fn listen(self: Arc<Self>) {
        let mut pause = BACKOFF_FIRST;
        loop {
            if let Ok(mut connection) = self.serve.connection(IfMissing::Leave).await {
                let request = self.request(&connection, Method::GET, Bytes::new(), Number::None);
                if let Ok(response) = connection.sender.send_request(request).await
                    && response.status() == StatusCode::OK
                {
                    pause = BACKOFF_FIRST;
                    self.announce(response).await;
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF_MOST);
        }
    }

    /// Waits until everything is answered, for at most `limit`; after that nothing more is said.
    pub(super) async fn settle(&self, limit: Duration) {
        self.tasks.close();
        tokio::time::timeout(limit, self.tasks.wait()).await.ok();
        lock(&self.out).take();
    }

    fn meet(&self, initialize: &Envelope<'_>) {
        *lock(&self.legacy) = true;
        let params: Option<Value> =
            initialize.params.and_then(|params| serde_json::from_str(params.get()).ok());
        let surface = params.as_ref().and_then(Value::as_object).map(Surface::of_handshake);
        *lock(&self.visits_pages) = surface == Some(Surface::Offer);
        let capabilities = params.as_ref().and_then(|params| params.get("capabilities")).map(in_ascii);
        *lock(&self.capabilities) = capabilities.filter(|text| text.len() <= CAPABILITIES_MOST);
        let name =
            params.as_ref().and_then(|params| params.pointer("/clientInfo/name")).and_then(Value::as_str);
        // Headers carry visible ASCII; the name only has to be the same each time.
        let visible = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
        *lock(&self.client) = name.unwrap_or_default().chars().take(200).map(visible).collect();
    }

    /// Told with each request, because a `serve` that was started since has not heard it.
    fn set_level(&self, request: &Envelope<'_>) {
        let params: Option<Value> = request.params.and_then(|params| serde_json::from_str(params.get()).ok());
        let level = params.as_ref().and_then(|params| params["level"].as_str());
        let is_word = |level: &&str| level.len() <= 16 && level.bytes().all(|byte| byte.is_ascii_lowercase());
        *lock(&self.log_level) = level.filter(is_word).map(str::to_owned);
    }

    fn ask(self: &Arc<Self>, id: String, text: String, again: Again) {
        let asked = Asked {
            number: self.numbers.fetch_add(1, Ordering::Relaxed),
            id,
            body: Bytes::from(text),
            again,
        };
        let cancelled = CancellationToken::new();
        let key = canonical(&asked.id);
        lock(&self.unanswered).insert(key.clone(), cancelled.clone());
        let relay = self.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = cancelled.cancelled() => {}
                () = relay.pursue(&asked) => {}
            }
            lock(&relay.unanswered).remove(&key);
        });
    }

    /// Sends a message that nobody answers: once, as soon as there is somebody to take it.
    fn notify(self: &Arc<Self>, text: String, cancels: Option<String>) {
        let relay = self.clone();
        self.tasks.spawn(async move {
            if let Some(mut connection) = relay.patiently().await {
                let request = relay.request(&connection, Method::POST, Bytes::from(text), Number::None);
                if let Ok(response) = connection.sender.send_request(request).await
                    && response.into_body().collect().await.is_ok()
                {
                    relay.serve.keep(connection);
                }
            }
            // Only now: to close the stream first would look like a client that is lost.
            if let Some(task) = cancels.and_then(|id| lock(&relay.unanswered).get(&id).cloned()) {
                task.cancel();
            }
        });
    }

    async fn patiently(&self) -> Option<Connection> {
        let since = Instant::now();
        let mut pause = BACKOFF_FIRST;
        while since.elapsed() < GIVE_UP {
            match self.serve.connection(IfMissing::Start).await {
                Ok(connection) => return Some(connection),
                Err(NoConnection::CannotStart) => return None,
                Err(NoConnection::Yet) => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(BACKOFF_MOST);
        }
        None
    }

    /// Sends the request until it is answered.
    async fn pursue(&self, asked: &Asked) {
        let mut sign_of_life = Instant::now();
        let mut pause = BACKOFF_FIRST;
        loop {
            let before = sign_of_life;
            match self.try_once(asked, &mut sign_of_life).await {
                Try::Done => return,
                Try::GaveUp(why) => return self.refuse(&asked.id, wire::INTERNAL_ERROR, &why),
                Try::Broken if sign_of_life.elapsed() > GIVE_UP => {
                    let why = format!("holdfast did not answer; its log is {}", self.serve.log().display());
                    return self.refuse(&asked.id, wire::INTERNAL_ERROR, &why);
                }
                Try::Broken => {}
            }
            if sign_of_life > before {
                pause = BACKOFF_FIRST;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACKOFF_MOST);
        }
    }

    async fn try_once(&self, asked: &Asked, sign_of_life: &mut Instant) -> Try {
        let mut connection = match self.serve.connection(IfMissing::Start).await {
            Ok(connection) => connection,
            Err(NoConnection::Yet) => return Try::Broken,
            Err(NoConnection::CannotStart) => {
                let log = self.serve.log().display();
                return Try::GaveUp(format!("`holdfast serve` does not start; its log says why: {log}"));
            }
        };
        let request = self.request(&connection, Method::POST, asked.body.clone(), Number::Of(asked.number));
        // The head comes at once, or with the stream that a long call becomes.
        let sent = tokio::time::timeout(SILENCE, connection.sender.send_request(request)).await;
        let lost = || {
            match asked.again {
            Again::Send => Try::Broken,
            Again::Ask => Try::GaveUp(
                "the answer was lost; whether the request was carried out is not known, so it was not sent again"
                    .to_owned(),
            ),
        }
        };
        let Ok(Ok(response)) = sent else { return lost() };
        let outcome = match response.status() {
            // Somebody else has the port, or `serve` was restarted and made a new token.
            StatusCode::UNAUTHORIZED if !self.serve.is_current(&connection) => return Try::Broken,
            StatusCode::UNAUTHORIZED => return Try::GaveUp(self.serve.unauthorized().to_owned()),
            // It is about to end; the next one knows the request by its number.
            StatusCode::SERVICE_UNAVAILABLE => return Try::Broken,
            _ => {
                *sign_of_life = Instant::now();
                self.pass_on(response, asked, sign_of_life).await
            }
        };
        match outcome {
            Try::Done => {
                self.serve.keep(connection);
                Try::Done
            }
            Try::Broken => lost(),
            gave_up => gave_up,
        }
    }

    /// Reads the response and gives it to the agent.
    async fn pass_on(&self, response: Response<Incoming>, asked: &Asked, sign_of_life: &mut Instant) -> Try {
        let kind =
            response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
        if kind.starts_with("text/event-stream") {
            return self.pass_on_events(response.into_body(), asked, sign_of_life).await;
        }
        let is_json = kind.starts_with("application/json");
        if response.status() == StatusCode::ACCEPTED {
            return Try::Done;
        }
        let body = http_body_util::Limited::new(response.into_body(), ANSWER_MOST).collect().await;
        let Ok(body) = body.map(http_body_util::Collected::to_bytes) else { return Try::Broken };
        match std::str::from_utf8(&body) {
            Ok(message) if is_json && Envelope::read(message).is_ok() => {
                self.answer(asked, message);
                Try::Done
            }
            _ => Try::Broken,
        }
    }

    async fn pass_on_events(&self, mut body: Incoming, asked: &Asked, sign_of_life: &mut Instant) -> Try {
        let mut events = Events::default();
        let mut answered = false;
        // Read to its end, so that the connection can be used again.
        while let Ok(Some(Ok(frame))) = tokio::time::timeout(SILENCE, body.frame()).await {
            *sign_of_life = Instant::now();
            let Some(data) = frame.data_ref() else { continue };
            for message in events.feed(data) {
                if Envelope::read(&message).is_ok_and(|envelope| envelope.method.is_none()) {
                    answered = true;
                    self.answer(asked, &message);
                } else {
                    self.say(&message);
                }
            }
        }
        if answered { Try::Done } else { Try::Broken }
    }

    /// Gives the agent its answer, under its own id even where `serve` could not read that.
    fn answer(&self, asked: &Asked, message: &str) {
        match Envelope::read(message) {
            Ok(Envelope { id: None, error: Some(error), .. }) => {
                self.say(&wire::error(&asked.id, error.get()))
            }
            _ => self.say(message),
        }
    }

    async fn announce(&self, response: Response<Incoming>) {
        let mut body = response.into_body();
        let mut events = Events::default();
        while let Ok(Some(Ok(frame))) = tokio::time::timeout(SILENCE, body.frame()).await {
            let Some(data) = frame.data_ref() else { continue };
            for message in events.feed(data) {
                if *lock(&self.legacy) {
                    self.say(&message);
                }
            }
        }
    }

    fn request(
        &self,
        connection: &Connection,
        method: Method,
        body: Bytes,
        number: Number,
    ) -> hyper::Request<http_body_util::Full<Bytes>> {
        let mut request = connection.request(&self.serve, method, body);
        let mut insert = |name: &'static str, value: &str| {
            let value = value.parse().expect("ids, numbers and visible ASCII are header values");
            request.headers_mut().insert(
                hyper::header::HeaderName::from_bytes(name.as_bytes()).expect("a header name"),
                value,
            );
        };
        insert(BRIDGE_INSTANCE, &self.instance);
        insert(BRIDGE_CLIENT, &lock(&self.client));
        if *lock(&self.visits_pages) {
            insert(BRIDGE_CAN, VISIT_PAGES);
        }
        if let Some(capabilities) = &*lock(&self.capabilities) {
            insert(BRIDGE_CAPABILITIES, capabilities);
        }
        if let Some(level) = &*lock(&self.log_level) {
            insert(BRIDGE_LOG_LEVEL, level);
        }
        if let Number::Of(number) = number {
            insert(BRIDGE_REQUEST, &number.to_string());
        }
        request
    }

    fn refuse(&self, id: &str, code: i64, message: &str) {
        self.say(&wire::error(id, &wire::error_member(code, message, None)));
    }

    fn say(&self, message: &str) {
        if let Some(out) = &*lock(&self.out) {
            // Fails only when the writer has ended, and then the bridge ends too.
            out.send(one_line(message).into_owned()).ok();
        }
    }
}

/// JSON as it may stand in a header.
fn in_ascii(value: &Value) -> String {
    let mut text = String::new();
    for c in value.to_string().chars() {
        if matches!(c, ' '..='~') {
            text.push(c);
        } else {
            let mut units = [0; 2];
            c.encode_utf16(&mut units).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}")));
        }
    }
    text
}

/// One spelling for one id.
fn canonical(id: &str) -> String {
    serde_json::from_str::<Value>(id).map_or_else(|_| id.to_owned(), |id| id.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
