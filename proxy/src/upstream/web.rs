//! One connection to a server by streamable HTTP: a session in the legacy era, a common address in the modern one.

mod address;
mod old;
mod resume;
mod stream;

use std::{
    borrow::Cow,
    collections::HashMap,
    error::Error as _,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use holdfast_store::Loss;
use reqwest::{
    RequestBuilder, Response, StatusCode, Url,
    header::{
        AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
    },
};
use serde_json::value::RawValue;
use tokio::{
    sync::{OnceCell, watch},
    task::AbortHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

pub(super) use self::address::Address;
use super::{
    Refused, Signal, Unsent,
    era::{self, Era},
    headers::{header_text, retry_after_ms},
    id::RequestId,
    oauth::{Challenge, Outcome},
    outcome::refused,
    peer::Peer,
    pipe::LONGEST_MESSAGE_BYTES,
    threads::{Number, Threads},
};
use crate::wire::{self, Envelope};

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
/// Headers that a forwarded key may not take the place of.
const OURS: [&str; 6] =
    ["accept", "content-type", "content-length", "host", "last-event-id", "transfer-encoding"];
/// As much of an error's body as is of use to a person.
const LONGEST_ERROR_BYTES: usize = 64 * 1024;

/// What a request has beside its text.
pub(super) struct Post {
    pub(super) era: Era,
    pub(super) method: Cow<'static, str>,
    /// What `Mcp-Name` says.
    pub(super) name: Option<String>,
    pub(super) headers: Vec<(String, String)>,
}

/// A conversation with a server by HTTP.
pub(super) struct Web {
    address: Arc<Address>,
    pub(super) peer: Arc<Peer>,
    session: OnceLock<HeaderValue>,
    session_over: AtomicBool,
    /// By the transport of 2024-11-05: where to post, as its stream says it.
    posts: OnceCell<Url>,
    endpoint: watch::Sender<Option<String>>,
    running: Mutex<HashMap<RequestId, AbortHandle>>,
    /// No new requests go this way.
    pub(super) over: CancellationToken,
    /// What answers to the server's questions are dressed in.
    era: OnceLock<Era>,
    cause: OnceLock<String>,
    /// What the next life will know of it, and under which number.
    threads: Arc<Threads>,
    number: OnceLock<Number>,
}

impl Web {
    pub(super) fn new(peer: Peer, address: Arc<Address>, threads: Arc<Threads>) -> Arc<Self> {
        let web = Arc::new(Self {
            peer: Arc::new(peer),
            address,
            session: OnceLock::new(),
            session_over: AtomicBool::new(false),
            posts: OnceCell::new(),
            endpoint: watch::Sender::new(None),
            running: Mutex::default(),
            over: CancellationToken::new(),
            era: OnceLock::new(),
            cause: OnceLock::new(),
            threads,
            number: OnceLock::new(),
        });
        let (way, runtime) = (Arc::downgrade(&web), tokio::runtime::Handle::current());
        web.peer.answers_by(Box::new(move |message| {
            if let Some(web) = way.upgrade() {
                let era = web.era.get().cloned().unwrap_or(Era::Opening);
                runtime.spawn(web.tell(message, era));
            }
        }));
        web
    }

    /// The era was agreed on.
    pub(super) fn agreed(&self, era: &Era) {
        // There is one agreement for each connection.
        let _ = self.era.set(era.clone());
    }

    /// Sends a request that is registered with the peer. It ends with a signal, whatever happens.
    pub(super) fn send(self: &Arc<Self>, id: RequestId, text: String, post: Post) {
        let web = self.clone();
        self.run(id, async move { web.exchange(id, text, &post).await });
    }

    /// Does what a request needs, for as long as the request is not aborted.
    fn run(self: &Arc<Self>, id: RequestId, work: impl Future<Output = ()> + Send + 'static) {
        let web = self.clone();
        let mut running = self.running.lock().expect("nothing panics while it holds the map");
        let task = tokio::spawn(async move {
            work.await;
            web.running.lock().expect("nothing panics while it holds the map").remove(&id);
        });
        running.insert(id, task.abort_handle());
    }

    /// Ends the stream of a request, which by HTTP in the modern era is how it is cancelled.
    pub(super) fn abort(&self, id: RequestId) {
        let running = self.running.lock().expect("nothing panics while it holds the map").remove(&id);
        if let Some(task) = running {
            task.abort();
        }
    }

    /// Sends a notification or a response, which nobody answers.
    pub(super) async fn tell(self: Arc<Self>, text: String, era: Era) {
        let to = match self.is_old() {
            true => self.posts_to().await.unwrap_or_else(|_| self.address.url.clone()),
            false => self.address.url.clone(),
        };
        let body = Bytes::from(text);
        let request = || {
            let request = self.address.client.post(to.clone()).headers(self.common(&era));
            request.header(CONTENT_TYPE, "application/json").body(body.clone())
        };
        match self.signed(request).await {
            Ok((response, _)) if self.means_expired(response.status()) => self.expire(),
            Ok(_) => {}
            Err(error) => tracing::debug!(
                target: "upstream", server = &*self.address.server, error = in_full(&error), "a notification was not sent"
            ),
        }
    }

    pub(super) fn has_session(&self) -> bool {
        self.session.get().is_some() || self.posts.initialized()
    }

    pub(super) fn session_is_over(&self) -> bool {
        self.session_over.load(Ordering::Relaxed)
    }

    pub(super) fn cause(&self) -> String {
        let cause = self.cause.get().map_or("the connection is over", String::as_str);
        format!("server `{}`: {cause}", self.address.server)
    }

    /// Ends the session, as far as the server takes note, and everything that runs in it.
    pub(super) async fn stop(&self, era: &Era) {
        const LIMIT: Duration = Duration::from_secs(2);
        self.retire("the connection was closed");
        if self.is_left_to_the_next() {
            return;
        }
        if self.session.get().is_some() && !self.session_is_over() {
            let request = || self.address.client.delete(self.address.url.clone()).headers(self.common(era));
            if let Ok(Ok((response, _))) = timeout(LIMIT, self.signed(request)).await
                && (response.status().is_success() || response.status() == StatusCode::NOT_FOUND)
            {
                self.session_over.store(true, Ordering::Relaxed);
            }
        }
        if let Some(number) = self.number.get() {
            self.threads.over(*number);
        }
        let running =
            std::mem::take(&mut *self.running.lock().expect("nothing panics while it holds the map"));
        running.values().for_each(AbortHandle::abort);
        self.peer.close(&self.cause());
    }

    /// Takes no new requests; those on their way still may be answered.
    fn retire(&self, cause: &str) {
        let _ = self.cause.set(cause.to_owned());
        self.over.cancel();
    }

    fn expire(&self) {
        self.session_over.store(true, Ordering::Relaxed);
        self.retire("its session has ended");
    }

    /// In a session, "not found" is about the session.
    fn means_expired(&self, status: StatusCode) -> bool {
        status == StatusCode::NOT_FOUND && self.has_session()
    }

    async fn exchange(self: &Arc<Self>, id: RequestId, text: String, post: &Post) {
        if self.is_old() {
            return self.exchange_old(id, text, post).await;
        }
        let body = Bytes::from(text.clone());
        let request = || {
            self.address.client.post(self.address.url.clone()).headers(self.headers(post)).body(body.clone())
        };
        let (response, to_do) = match self.signed(request).await {
            Ok(answered) => answered,
            Err(error) => return self.peer.settle(id, self.not_sent(&error)),
        };
        if post.method == "initialize"
            && let Some(session) = response.headers().get(SESSION)
        {
            let _ = self.session.set(session.clone());
        }
        if !response.status().is_success() {
            if self.turns_out_old(response.status(), post).await {
                return self.exchange_old(id, text, post).await;
            }
            let signal = self.refusal(response, post, to_do).await;
            return self.peer.settle(id, signal);
        }
        match content_type(&response) {
            "text/event-stream" => self.follow(id, response, &post.era).await,
            "application/json" => self.read(id, response, &post.era).await,
            other => {
                let what =
                    if other.is_empty() { "without an answer".into() } else { format!("with {other}") };
                let message = format!(
                    "server `{}` answered a request {what} (HTTP {})",
                    self.address.server,
                    response.status().as_u16()
                );
                self.peer.settle(id, Signal::Lost(Loss::UpstreamError, message));
            }
        }
    }

    /// Sends a request with our token, and once more where that was refused and there is another one now: a request that
    /// was refused for its token was not executed. With what a person has to do, where somebody has to.
    pub(super) async fn signed(
        &self,
        request: impl Fn() -> RequestBuilder,
    ) -> reqwest::Result<(Response, Option<String>)> {
        let Some(auth) = &self.address.auth else { return Ok((request().send().await?, None)) };
        let send = |bearer: Option<HeaderValue>| match bearer {
            Some(bearer) => request().header(AUTHORIZATION, bearer).send(),
            None => request().send(),
        };
        auth.refresh_in_time().await;
        let used = auth.bearer();
        let response = send(used.clone()).await?;
        let challenge = Challenge::of(response.headers());
        let refused = match response.status() {
            StatusCode::UNAUTHORIZED => true,
            status => status == StatusCode::FORBIDDEN && challenge.wants_more(),
        };
        if !refused {
            return Ok((response, None));
        }
        match auth.refused(challenge, used.as_ref()).await {
            Outcome::SignIn(to_do) => Ok((response, Some(to_do))),
            Outcome::Again => {
                let response = send(auth.bearer()).await?;
                let to_do = "it refuses a token that was just given for it".to_owned();
                let again = response.status() == StatusCode::UNAUTHORIZED;
                Ok((response, again.then_some(to_do)))
            }
        }
    }

    /// Reads an answer that is one JSON body.
    async fn read(self: &Arc<Self>, id: RequestId, response: Response, era: &Era) {
        let server = &self.address.server;
        let (loss, message) = match body(response, LONGEST_MESSAGE_BYTES).await {
            Ok(Body::Whole(bytes)) => match String::from_utf8(bytes) {
                Ok(text) => {
                    self.hear(&text, era, Some(id));
                    if let Some(error) = error_of_nobody(&text) {
                        self.peer.settle(id, Signal::Refused(refused(error)));
                    }
                    (
                        Loss::UpstreamError,
                        format!("server `{server}` answered something else than what was asked"),
                    )
                }
                Err(_) => {
                    (Loss::UpstreamError, format!("server `{server}` answered with text that is not UTF-8"))
                }
            },
            Ok(Body::Cut(_)) => (Loss::UpstreamError, too_long(server)),
            Err(error) => {
                (Loss::Disconnected, format!("server `{server}` broke off its answer: {}", in_full(&error)))
            }
        };
        // Settled already, if that was its answer.
        self.peer.settle(id, Signal::Lost(loss, message));
    }

    fn hear(self: &Arc<Self>, text: &str, era: &Era, stream: Option<RequestId>) {
        for reply in self.peer.incoming(text, stream) {
            tokio::spawn(self.clone().tell(reply, era.clone()));
        }
    }

    /// What it means that a request got no response at all.
    fn not_sent(&self, error: &reqwest::Error) -> Signal {
        let server = &self.address.server;
        if error.is_connect() || error.is_builder() {
            let message = format!("server `{server}` cannot be reached: {}", in_full(error));
            self.retire("it cannot be reached");
            return Signal::Unsent(Unsent { code: "upstream-unreachable", message });
        }
        let message =
            format!("the connection to server `{server}` broke before its answer: {}", in_full(error));
        Signal::Lost(Loss::Disconnected, message)
    }

    /// What a status other than 2xx means.
    async fn refusal(&self, response: Response, post: &Post, to_do: Option<String>) -> Signal {
        let (server, status) = (&self.address.server, response.status());
        if let Some(to_do) = to_do {
            let message = format!("server `{server}` refuses us (HTTP {}): {to_do}", status.as_u16());
            return Signal::Unsent(Unsent { code: "upstream-unauthorized", message });
        }
        if status == StatusCode::UNAUTHORIZED {
            let challenge = response.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
            let message = format!(
                "server `{server}` wants other credentials than the configured headers give (HTTP 401{}{})",
                if challenge.is_some() { ": " } else { "" },
                challenge.unwrap_or_default()
            );
            return Signal::Unsent(Unsent { code: "upstream-unauthorized", message });
        }
        if self.means_expired(status) && post.era != Era::Opening {
            self.expire();
            let message = format!("the session with server `{server}` has ended; a new one is being opened");
            return Signal::Unsent(Unsent { code: "upstream-session-expired", message });
        }
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after_ms = retry_after.and_then(|value| retry_after_ms(value, SystemTime::now()));
        let bytes = match body(response, LONGEST_ERROR_BYTES).await {
            Ok(Body::Whole(bytes) | Body::Cut(bytes)) => bytes,
            Err(_) => Vec::new(),
        };
        let text = String::from_utf8_lossy(&bytes);
        if status == StatusCode::BAD_REQUEST && self.has_session() && text.to_lowercase().contains("session")
        {
            // Some servers say so when they were restarted. That is no proof about this request, but reason enough
            // to open a new session for the next.
            self.expire();
        }
        let said = Envelope::read(&text).ok().and_then(|message| Some(refused(message.error?)));
        let mut refusal = said.unwrap_or_else(|| made_up(server, status, &text));
        if refusal.code == Some(-32022) {
            self.retire("it no longer speaks the agreed version");
        }
        refusal.status = Some(status.as_u16());
        refusal.retry_after_ms = retry_after_ms;
        Signal::Refused(refusal)
    }

    fn headers(&self, post: &Post) -> HeaderMap {
        let mut headers = self.common(&post.era);
        for (name, value) in &post.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value))
                && !OURS.contains(&name.as_str())
                && (!name.as_str().starts_with("mcp-") || name.as_str().starts_with("mcp-param-"))
            {
                headers.insert(name, value);
            }
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if post.era == Era::Modern {
            if let Ok(method) = HeaderValue::try_from(header_text(&post.method)) {
                headers.insert(METHOD, method);
            }
            if let Some(name) =
                post.name.as_deref().and_then(|name| HeaderValue::try_from(header_text(name)).ok())
            {
                headers.insert(NAME, name);
            }
        }
        headers
    }

    /// The headers of every request.
    fn common(&self, era: &Era) -> HeaderMap {
        let mut headers = self.address.headers.clone();
        match era {
            Era::Opening => return headers,
            Era::Legacy(version) => {
                if let Ok(version) = HeaderValue::try_from(&**version) {
                    headers.insert(VERSION, version);
                }
            }
            Era::Modern => {
                headers.insert(VERSION, HeaderValue::from_static(era::MODERN));
                return headers;
            }
        }
        if let Some(session) = self.session.get() {
            headers.insert(SESSION, session.clone());
        }
        headers
    }
}

/// The essence of a content type, without parameters.
fn content_type(response: &Response) -> &str {
    let value =
        response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

enum Body {
    Whole(Vec<u8>),
    /// The beginning of a longer one.
    Cut(Vec<u8>),
}

async fn body(mut response: Response, limit_bytes: usize) -> reqwest::Result<Body> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > limit_bytes {
            return Ok(Body::Cut(bytes));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Body::Whole(bytes))
}

/// An error without an id: a server that cannot read a request does not know its id.
fn error_of_nobody(text: &str) -> Option<&RawValue> {
    let message = Envelope::read(text).ok()?;
    message.error.filter(|_| message.id.is_none())
}

fn made_up(server: &str, status: StatusCode, text: &str) -> Refused {
    let start: String = text.chars().take(300).collect();
    let message = match start.trim() {
        "" => format!("server `{server}` answered with HTTP {status}"),
        start => format!("server `{server}` answered with HTTP {status}: {start}"),
    };
    let error = wire::error_member(wire::INTERNAL_ERROR, &message, None);
    Refused { error, code: None, status: None, retry_after_ms: None }
}

fn too_long(server: &str) -> String {
    let limit_mib = LONGEST_MESSAGE_BYTES / (1024 * 1024);
    format!("server `{server}` answered with more than {limit_mib} MiB, which is not read")
}

/// An error with its causes, which is where reqwest keeps what happened. URLs can carry secrets and are left out.
fn in_full(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut source = error.source();
    while let Some(error) = source {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&error.to_string());
        source = error.source();
    }
    if text.is_empty() { "the request failed".to_owned() } else { text }
}
