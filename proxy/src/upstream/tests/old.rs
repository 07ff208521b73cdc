//! Servers of the transport of 2024-11-05.

use std::{collections::VecDeque, net::SocketAddr, sync::Mutex};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{Method, Response, Uri},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::{config::Http, upstream::HealthState};

/// One stream, and what is to be said on it.
struct Old {
    endpoint: String,
    streams: Mutex<Vec<mpsc::UnboundedSender<Bytes>>>,
    seen: Mutex<VecDeque<Value>>,
}

type Told = Arc<Old>;

async fn answer(State(old): State<Told>, method: Method, uri: Uri, body: Bytes) -> Response<Body> {
    let status = |code: u16| Response::builder().status(code).body(Body::empty()).expect("valid");
    match (method, uri.path()) {
        (Method::GET, "/sse") => {
            let (say, said) = mpsc::unbounded_channel();
            say.send(format!("event: endpoint\ndata: {}\n\n", old.endpoint).into()).expect("it listens");
            old.streams.lock().expect("whole").push(say);
            let said = futures_util::stream::unfold(said, async |mut said| {
                Some((Ok::<_, std::io::Error>(said.recv().await?), said))
            });
            let stream = Body::from_stream(said);
            Response::builder().header("content-type", "text/event-stream").body(stream).expect("valid")
        }
        (Method::POST, "/messages") => {
            let message: Value = serde_json::from_slice(&body).expect("a message");
            let result = match message["method"].as_str().unwrap_or_default() {
                "initialize" => json!({"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}}),
                "tools/list" => json!({"tools": [{"name": "echo"}]}),
                "tools/call" => json!({"content": [{"type": "text", "text": "by stream"}]}),
                _ => Value::Null,
            };
            let mut streams = old.streams.lock().expect("whole");
            if message["params"]["name"] == "leave" {
                streams.clear();
            } else if message.get("id").is_some() {
                let reply = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
                let event = Bytes::from(format!("event: message\ndata: {reply}\n\n"));
                streams.retain(|stream| stream.send(event.clone()).is_ok());
            }
            old.seen.lock().expect("whole").push_back(message);
            status(202)
        }
        _ => status(405),
    }
}

async fn serve(endpoint: &str) -> (SocketAddr, Told) {
    let old = Arc::new(Old { endpoint: endpoint.into(), streams: Mutex::default(), seen: Mutex::default() });
    let app = Router::new().fallback(answer).with_state(old.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, app).await });
    (address, old)
}

fn sse(address: SocketAddr, old: bool) -> ServerConfig {
    let transport = Transport::Http { url: format!("http://{address}/sse"), headers: Vec::new() };
    ServerConfig { http: Http { old, ..Http::default() }, ..config(transport, Share::All) }
}

#[tokio::test]
async fn calls_go_by_post_and_answers_come_by_the_stream() {
    for known in [true, false] {
        let (address, _) = serve("/messages?session=1").await;
        let (upstreams, upstream) = start(sse(address, known));
        assert_eq!(told(&upstream, "echo").await, "answer by stream", "known: {known}");
        assert_eq!(upstream.tools(&caller("x")).await.expect("listed")[0].name, "echo");
        upstreams.stop().await;
    }
}

#[tokio::test]
async fn the_end_of_the_stream_is_the_end_of_the_session() {
    let (address, old) = serve("/messages").await;
    let (upstreams, upstream) = start(sse(address, true));
    assert_eq!(told(&upstream, "echo").await, "answer by stream");
    assert_eq!(told(&upstream, "leave").await, "lost Disconnected");
    assert_eq!(told(&upstream, "echo").await, "answer by stream");
    let begun = |message: &&Value| message["method"] == "initialize";
    assert_eq!(old.seen.lock().expect("whole").iter().filter(begun).count(), 2);
    upstreams.stop().await;
}

#[tokio::test]
async fn messages_go_to_no_other_place() {
    let (elsewhere, other) = serve("/messages").await;
    let (address, _) = serve(&format!("http://{elsewhere}/messages")).await;
    let (upstreams, upstream) = start(sse(address, true));
    assert_eq!(told(&upstream, "echo").await, "unsent upstream-unreachable");
    assert_eq!(upstream.health().state, HealthState::Down);
    assert!(other.seen.lock().expect("whole").is_empty());
    upstreams.stop().await;
}
