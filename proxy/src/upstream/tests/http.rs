//! Servers by streamable HTTP.

mod resumed;
mod tasks;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, Response},
};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::upstream::HealthState;

/// What a request looked like to the server.
pub(super) struct Seen {
    method: Method,
    headers: HeaderMap,
    body: Value,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("plain text"))
    }

    pub(super) fn rpc(&self) -> &str {
        self.body["method"].as_str().unwrap_or_default()
    }

    pub(super) fn result(&self, result: Value) -> Response<Body> {
        json_response(json!({"jsonrpc": "2.0", "id": self.body["id"], "result": result}))
    }

    fn text(&self, text: &str) -> Response<Body> {
        self.result(json!({"content": [{"type": "text", "text": text}]}))
    }
}

fn json_response(body: Value) -> Response<Body> {
    Response::builder()
        .header("content-type", "application/json")
        .body(body.to_string().into())
        .expect("valid")
}

pub(super) fn status(code: u16) -> Response<Body> {
    Response::builder().status(code).body(Body::empty()).expect("valid")
}

fn events(chunks: Vec<String>) -> Response<Body> {
    let chunks = futures_util::stream::iter(chunks).map(|chunk| Ok::<_, std::io::Error>(Bytes::from(chunk)));
    Response::builder()
        .header("content-type", "text/event-stream")
        .body(Body::from_stream(chunks))
        .expect("valid")
}

fn event(message: Value) -> String {
    format!("data: {message}\n\n")
}

type Answerer = Arc<dyn Fn(&Seen) -> Response<Body> + Send + Sync>;

/// Serves one address with `answer`, and returns the address.
pub(super) async fn serve(answer: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static) -> SocketAddr {
    let handle = |State(answer): State<Answerer>, method: Method, headers: HeaderMap, body: Bytes| async move {
        answer(&Seen { method, headers, body: serde_json::from_slice(&body).unwrap_or_default() })
    };
    let app = Router::new().fallback(handle).with_state(Arc::new(answer) as Answerer);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// A server of the legacy era with sessions `s1`, `s2`, ...; `answer` gets what is not the beginning or the list.
async fn legacy(answer: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static) -> SocketAddr {
    let sessions = AtomicUsize::new(0);
    serve(move |seen| match (&seen.method, seen.rpc()) {
        (_, "initialize") => {
            let mut response =
                seen.result(json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}));
            let session = format!("s{}", sessions.fetch_add(1, Ordering::Relaxed) + 1);
            response.headers_mut().insert("mcp-session-id", session.parse().expect("valid"));
            response
        }
        (_, "tools/list") => seen.result(json!({"tools": [{"name": "echo"}]})),
        (_, "notifications/initialized") => status(202),
        (&Method::GET, _) if seen.header("last-event-id").is_empty() => status(405),
        (&Method::DELETE, _) => status(200),
        _ => answer(seen),
    })
    .await
}

pub(super) fn web(address: SocketAddr) -> ServerConfig {
    let headers = vec![("Authorization".to_owned(), "Bearer secret".to_owned())];
    config(Transport::Http { url: format!("http://{address}/mcp"), headers }, Share::All)
}

#[tokio::test]
async fn a_legacy_session_carries_calls_by_json_and_by_stream() {
    let address = legacy(|seen| {
        let about = ["mcp-session-id", "mcp-protocol-version", "authorization", "accept", "x-key", "content-type"]
            .map(|name| seen.header(name).to_owned());
        if seen.body["params"]["name"] == "json" {
            return seen.text(&about.join("|"));
        }
        let token = &seen.body["params"]["_meta"]["progressToken"];
        let mut chunks: Vec<_> = (0..5)
            .map(|step| json!({"method": "notifications/progress", "params": {"progressToken": token, "progress": step}}))
            .map(event)
            .collect();
        chunks.insert(0, ": hello\n\nid: 1\nretry: 10\ndata:\n\n".to_owned());
        chunks.push(event(json!({"id": seen.body["id"], "result": {"content": [{"text": "done"}]}})));
        events(chunks)
    })
    .await;
    let (upstreams, upstream) = start(web(address));
    let mut dispatch = call("json");
    dispatch.headers = vec![
        ("X-Key".into(), "k1".into()),
        ("Content-Type".into(), "text/evil".into()),
        ("Mcp-Session-Id".into(), "stolen".into()),
    ];
    assert_eq!(
        send(&upstream, dispatch).told().await,
        "answer s1|2025-11-25|Bearer secret|application/json, text/event-stream|k1|application/json"
    );
    let mut heard = send(&upstream, call("stream"));
    for step in 0..5 {
        assert_eq!(heard.told().await, format!("progress {step}"));
    }
    assert_eq!(heard.told().await, "answer done");
    upstreams.stop().await;
}

#[tokio::test]
async fn the_modern_era_says_everything_with_each_request() {
    let address = serve(|seen| match seen.rpc() {
        "initialize" => {
            let mut response = json_response(json!({"id": seen.body["id"], "error": {"code": -32022, "message": "no"}}));
            *response.status_mut() = axum::http::StatusCode::BAD_REQUEST;
            response
        }
        "server/discover" => seen.result(json!({"supportedVersions": ["2026-07-28"], "capabilities": {}})),
        "tools/list" => seen.result(json!({"tools": [
            {"name": "größe", "inputSchema": {"properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}}
        ]})),
        _ => {
            let names = ["mcp-protocol-version", "mcp-method", "mcp-name", "mcp-param-region", "mcp-session-id"];
            let headers = names.map(|name| seen.header(name)).join("|");
            let meta = &seen.body["params"]["_meta"];
            seen.text(&format!("{headers}|{}", meta["io.modelcontextprotocol/clientCapabilities"]))
        }
    })
    .await;
    let (upstreams, upstream) = start(web(address));
    upstream.tools(&caller("test")).await.expect("tools");
    let mut dispatch = call("größe");
    dispatch.arguments = Text::parse(r#"{"region":"eu-1"}"#).expect("valid JSON");
    assert_eq!(
        send(&upstream, dispatch).told().await,
        "answer 2026-07-28|tools/call|=?base64?Z3LDtsOfZQ==?=|eu-1||{}"
    );
    upstreams.stop().await;
}

#[tokio::test]
async fn an_expired_session_is_replaced() {
    let address = legacy(|seen| match seen.header("mcp-session-id") {
        "s1" => status(404),
        session => seen.text(session),
    })
    .await;
    let (upstreams, upstream) = start(web(address));
    upstream.tools(&caller("test")).await.expect("tools");
    let mut heard = send(&upstream, call("echo"));
    assert_eq!(heard.told().await, "unsent upstream-session-expired");
    assert!(heard.flight.gone());
    assert_eq!(told(&upstream, "echo").await, "answer s2");
    assert_eq!(upstream.health().restarts, 1);
    upstreams.stop().await;
}

#[tokio::test]
async fn statuses_are_told_apart() {
    let address = legacy(|seen| {
        let code: u16 =
            seen.body["params"]["name"].as_str().and_then(|name| name.parse().ok()).expect("a status");
        let mut response = match code {
            403 => json_response(json!({"id": null, "error": {"code": -32001, "message": "not you"}})),
            _ => status(code),
        };
        *response.status_mut() = code.try_into().expect("valid");
        response.headers_mut().insert("retry-after", "7".parse().expect("valid"));
        response
    })
    .await;
    let (upstreams, upstream) = start(web(address));
    for (code, expected) in [
        ("401", "unsent upstream-unauthorized"),
        ("403", "refused code Some(-32001) status Some(403) after Some(7000)"),
        ("429", "refused code None status Some(429) after Some(7000)"),
        ("503", "refused code None status Some(503) after Some(7000)"),
        ("307", "refused code None status Some(307) after Some(7000)"),
        ("202", "lost UpstreamError"),
    ] {
        assert_eq!(told(&upstream, code).await, expected, "{code}");
    }
    upstreams.stop().await;
}

#[tokio::test]
async fn nobody_there_means_nothing_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let (upstreams, upstream) = start(web(address));
    let unsent = upstream.tools(&caller("test")).await.expect_err("nobody is there");
    assert!(unsent.message.contains("server `fake` cannot be reached"), "{}", unsent.message);
    assert_eq!(told(&upstream, "echo").await, "unsent upstream-unreachable");
    assert_eq!(upstream.health().state, HealthState::Down);
    upstreams.stop().await;
}

#[tokio::test]
async fn a_broken_stream_is_resumed_where_the_server_numbers_its_events() {
    let asked = Mutex::new(HashMap::new());
    let address = legacy(move |seen| {
        let mut asked = asked.lock().expect("not poisoned");
        let message = |id: &Value, text: &str| json!({"id": id, "result": {"content": [{"text": text}]}});
        match (seen.header("last-event-id"), seen.body["params"]["name"].as_str()) {
            ("", Some("numbered")) => {
                asked.insert("e1".to_owned(), seen.body["id"].clone());
                events(vec!["id: e1\nretry: 1\ndata:\n\n".to_owned(), "data: {\"id\"".to_owned()])
            }
            ("e1", _) => {
                let id = asked["e1"].clone();
                asked.insert("e2".to_owned(), id);
                events(vec!["id: e2\ndata:\n\n".to_owned()])
            }
            ("e2", _) => events(vec![event(message(&asked["e2"], "resumed"))]),
            _ => events(vec!["data: {}\n\n".to_owned()]),
        }
    })
    .await;
    let (upstreams, upstream) = start(web(address));
    assert_eq!(told(&upstream, "numbered").await, "answer resumed");
    assert_eq!(told(&upstream, "unnumbered").await, "lost Disconnected");
    upstreams.stop().await;
}

/// Reads one request from a socket: its head and its body.
async fn request(socket: &mut tokio::net::TcpStream) -> Option<Value> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                line.to_lowercase().strip_prefix("content-length: ")?.trim().parse::<usize>().ok()
            });
            if body.len() >= length.unwrap_or(0) {
                return Some(serde_json::from_str(body).unwrap_or_default());
            }
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

#[tokio::test]
async fn a_request_that_was_read_is_never_sent_again_by_itself() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let serving = tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            let counted = counted.clone();
            tokio::spawn(async move {
                while let Some(seen) = request(&mut socket).await {
                    let result = match seen["method"].as_str() {
                        Some("initialize") => json!({"protocolVersion": "2025-06-18", "capabilities": {}}),
                        Some("tools/call") => {
                            counted.fetch_add(1, Ordering::Relaxed);
                            return;
                        }
                        _ => json!({"tools": []}),
                    };
                    let body = json!({"jsonrpc": "2.0", "id": seen["id"], "result": result}).to_string();
                    let head = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                        body.len()
                    );
                    socket.write_all(format!("{head}{body}").as_bytes()).await.expect("the client reads");
                }
            });
        }
    });
    let (upstreams, upstream) = start(web(address));
    upstream.tools(&caller("test")).await.expect("tools");
    // The connection was used before, which is where clients like to try once more.
    assert_eq!(told(&upstream, "echo").await, "lost Disconnected");
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    upstreams.stop().await;
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    serving.abort();
}

#[tokio::test]
async fn a_question_that_waits_too_long_is_withdrawn() {
    let (told, mut cancelled) = mpsc::unbounded_channel();
    let address = legacy(move |seen| {
        if seen.rpc() == "notifications/cancelled" {
            let _ = told.send(seen.body["params"]["requestId"].clone());
            return status(202);
        }
        let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        Response::builder()
            .header("content-type", "text/event-stream")
            .body(Body::from_stream(never))
            .expect("valid")
    })
    .await;
    let (upstreams, upstream) = start(web(address));
    upstream.tools(&caller("test")).await.expect("tools");
    let trouble = upstream.ask(call("slow"), Duration::from_millis(50)).await.expect_err("it is slow");
    assert_eq!(trouble.code, "call-timeout");
    let id = timeout(PATIENCE, cancelled.recv()).await.expect("no hang").expect("it is told");
    assert!(id.is_number());
    upstreams.stop().await;
}
