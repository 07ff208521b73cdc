//! Calls to legacy servers by HTTP whose Holdfast was killed: what the next one finds, and what it makes of that.

use std::{fs, path::Path};

use holdfast_store::{Attempt, CallId, Millis};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::*;
use crate::{
    keeper::Keeper,
    upstream::{Again, Threads},
};

fn first() -> (CallId, Attempt) {
    (CallId::from_bytes([7; 16]), Attempt(1))
}

/// What the server saw of one request: method, JSON-RPC method, session, last event.
type Line = (String, String, String, String);

/// A server that begins the stream of each call with `event`, and what comes of an event that is asked for. Says what it
/// is asked.
async fn server(
    first: &'static str,
    resumed: impl Fn(&Seen, &Value) -> Response<Body> + Send + Sync + 'static,
) -> (SocketAddr, UnboundedReceiver<Line>) {
    let (tell, told) = mpsc::unbounded_channel();
    let (sessions, asked) = (AtomicUsize::new(0), Mutex::new(Value::Null));
    let address = serve(move |seen| {
        assert_eq!(seen.header("authorization"), "Bearer secret");
        note(&tell, seen);
        match (&seen.method, seen.rpc()) {
            (_, "initialize") => {
                let about = json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}});
                let mut response = seen.result(about);
                let session = format!("s{}", sessions.fetch_add(1, Ordering::Relaxed) + 1);
                response.headers_mut().insert("mcp-session-id", session.parse().expect("valid"));
                response
            }
            (_, "tools/list") if seen.header("mcp-session-id") == "gone" => status(404),
            (_, "tools/list") => seen.result(json!({"tools": [{"name": "slow"}]})),
            (_, "notifications/initialized" | "notifications/cancelled") => status(202),
            (&Method::DELETE, _) => status(200),
            (&Method::GET, _) if seen.header("last-event-id").is_empty() => status(405),
            (&Method::GET, _) => resumed(seen, &asked.lock().expect("not poisoned")),
            (_, "tools/call") if seen.body["params"]["name"] == "slow" => {
                *asked.lock().expect("not poisoned") = seen.body["id"].clone();
                endless(first)
            }
            _ => seen.text(seen.header("mcp-session-id")),
        }
    })
    .await;
    (address, told)
}

fn note(tell: &UnboundedSender<Line>, seen: &Seen) {
    let [session, last] = ["mcp-session-id", "last-event-id"].map(|name| seen.header(name).to_owned());
    let _ = tell.send((seen.method.to_string(), seen.rpc().to_owned(), session, last));
}

/// A stream that never ends by itself.
fn endless(first: &str) -> Response<Body> {
    let first = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from(first.to_owned()))]);
    Response::builder()
        .header("content-type", "text/event-stream")
        .body(Body::from_stream(first.chain(futures_util::stream::pending())))
        .expect("valid")
}

/// A life of Holdfast on this journal.
fn life(address: SocketAddr, store: &Path) -> (Arc<Upstreams>, Arc<Upstream>) {
    let kept = (Keeper::within(), Vec::new());
    let upstreams = Upstreams::start_kept(&[web(address)], kept, Threads::beside(store));
    let upstream = upstreams.get("fake").expect("it is configured");
    (upstreams, upstream)
}

/// Sends the slow call, and returns once the next life could ask for it. What it has then is what a killed process leaves.
async fn killed_in_mid_call(address: SocketAddr, directory: &Path, wanted: &str) -> std::path::PathBuf {
    let [store, after] = ["h.redb", "after.redb"].map(|name| directory.join(name));
    let (upstreams, upstream) = life(address, &store);
    let heard = send(&upstream, Dispatch { attempt: Some(first()), ..call("slow") });
    let file = directory.join("h.redb.threads");
    let noted = async {
        while !fs::read_to_string(&file).is_ok_and(|text| text.contains(wanted)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, noted).await.expect("it is noted");
    fs::copy(&file, directory.join("after.redb.threads")).expect("writable");
    drop((heard, upstreams));
    after
}

fn again(upstream: &Arc<Upstream>) -> Option<Heard> {
    let (hear, signals) = mpsc::unbounded_channel();
    let on = Box::new(move |signal| drop(hear.send(signal)));
    let dispatch = Dispatch { attempt: Some(first()), ..call("echo") };
    match upstream.again(dispatch, Millis(0), None, on) {
        Again::Awaited(flight) => Some(Heard { signals, flight }),
        Again::NeverSent => panic!("nobody can know that"),
        Again::Unknown => None,
    }
}

/// What was asked of the server meanwhile.
fn asked(told: &mut UnboundedReceiver<Line>) -> Vec<String> {
    let mut lines = Vec::new();
    while let Ok((method, rpc, session, last)) = told.try_recv() {
        lines.push(format!("{method} {rpc} {session} {last}").trim_end().to_owned());
    }
    lines
}

fn answer(id: &Value, text: &str) -> String {
    event(json!({"id": id, "result": {"content": [{"text": text}]}}))
}

#[tokio::test]
async fn an_answer_is_asked_for_by_session_and_event() {
    let directory = tempfile::tempdir().expect("a directory");
    let resumed = |_: &Seen, id: &Value| events(vec![answer(id, "after all")]);
    let (address, mut told) = server("id: e1\ndata:\n\n", resumed).await;
    let after = killed_in_mid_call(address, directory.path(), "\"e1\"").await;
    asked(&mut told);

    let (upstreams, upstream) = life(address, &after);
    let mut heard = again(&upstream).expect("it is known where it goes on");
    upstreams.recovered();
    assert_eq!(heard.told().await, "answer after all");
    assert_eq!(self::told(&upstream, "other").await, "answer s1", "the session goes on, too");
    let lines = asked(&mut told);
    assert!(lines.contains(&"GET  s1 e1".to_owned()), "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains("initialize") && !line.contains("slow")), "{lines:?}");
    upstreams.stop().await;
    assert_eq!(asked(&mut told), ["DELETE  s1"]);
    assert_eq!(
        fs::read_to_string(directory.path().join("after.redb.threads"))
            .map(|text| text.contains("over"))
            .ok(),
        Some(true)
    );
}

#[tokio::test]
async fn what_cannot_be_resumed_is_lost() {
    for code in [404, 405, 400] {
        let directory = tempfile::tempdir().expect("a directory");
        let (address, _told) = server("id: e1\ndata:\n\n", move |_, _| status(code)).await;
        let after = killed_in_mid_call(address, directory.path(), "\"e1\"").await;
        let (upstreams, upstream) = life(address, &after);
        let mut heard = again(&upstream).expect("it is tried");
        upstreams.recovered();
        assert_eq!(heard.told().await, "lost Disconnected", "{code}");
        upstreams.stop().await;
    }
}

#[tokio::test]
async fn a_server_that_has_not_noticed_yet_is_asked_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let tries = AtomicUsize::new(0);
    let resumed = move |_: &Seen, id: &Value| match tries.fetch_add(1, Ordering::Relaxed) {
        0 => status(409),
        1 => status(503),
        _ => events(vec![answer(id, "at last")]),
    };
    let (address, _told) = server("id: e1\ndata:\n\n", resumed).await;
    let after = killed_in_mid_call(address, directory.path(), "\"e1\"").await;
    let (upstreams, upstream) = life(address, &after);
    let mut heard = again(&upstream).expect("it is tried");
    upstreams.recovered();
    assert_eq!(heard.told().await, "answer at last");
    upstreams.stop().await;
}

#[tokio::test]
async fn a_session_that_is_gone_is_replaced() {
    let directory = tempfile::tempdir().expect("a directory");
    let (address, mut told) = server("id: e1\ndata:\n\n", |_, _| status(404)).await;
    let after = killed_in_mid_call(address, directory.path(), "\"e1\"").await;
    let file = directory.path().join("after.redb.threads");
    let text = fs::read_to_string(&file).expect("it is there");
    fs::write(&file, text.replace("\"s1\"", "\"gone\"") + "{\"beg").expect("writable");
    asked(&mut told);
    let (upstreams, upstream) = life(address, &after);
    upstreams.recovered();
    assert_eq!(self::told(&upstream, "other").await, "answer s2");
    let lines = asked(&mut told);
    assert!(lines.iter().all(|line| !line.starts_with("DELETE")), "it is gone already: {lines:?}");
    upstreams.stop().await;
}

#[tokio::test]
async fn what_is_not_dealt_with_is_heard_again() {
    // The progress was passed on; the question was not answered.
    let question = r#"id: e3
data: {"id":1,"method":"elicitation/create","params":{}}

id: e4
data: {"method":"notifications/message","params":{"level":"info"}}

"#;
    let stream = format!("id: e1\ndata:\n\n{question}").leak();
    let directory = tempfile::tempdir().expect("a directory");
    let (address, mut told) = server(stream, |_, id| events(vec![answer(id, "after all")])).await;
    let after = killed_in_mid_call(address, directory.path(), "\"e1\"").await;
    asked(&mut told);
    let (upstreams, upstream) = life(address, &after);
    let mut heard = again(&upstream).expect("it is known where it goes on");
    assert_eq!(heard.told().await, "answer after all");
    assert!(asked(&mut told).contains(&"GET  s1 e1".to_owned()));
    upstreams.stop().await;
}

#[tokio::test]
async fn without_numbers_nobody_can_know() {
    let directory = tempfile::tempdir().expect("a directory");
    let (address, mut told) = server("data: {}\n\n", |_, _| status(500)).await;
    let after = killed_in_mid_call(address, directory.path(), "begun").await;
    asked(&mut told);
    let (upstreams, upstream) = life(address, &after);
    assert!(again(&upstream).is_none());
    upstreams.recovered();
    assert_eq!(self::told(&upstream, "other").await, "answer s1");
    upstreams.stop().await;
    assert!(asked(&mut told).contains(&"DELETE  s1".to_owned()), "no session is left behind");
}

#[tokio::test]
async fn an_orderly_end_leaves_a_session_with_a_call_to_the_next_life() {
    let directory = tempfile::tempdir().expect("a directory");
    let (address, mut told) =
        server("id: e1\ndata:\n\n", |_, id| events(vec![answer(id, "after all")])).await;
    let store = directory.path().join("h.redb");
    let (upstreams, upstream) = life(address, &store);
    upstreams.recovered();
    let heard = send(&upstream, Dispatch { attempt: Some(first()), ..call("slow") });
    let asked_for = async { while told.recv().await.is_some_and(|(_, rpc, ..)| rpc != "tools/call") {} };
    timeout(PATIENCE, asked_for).await.expect("it is sent");
    let file = directory.path().join("h.redb.threads");
    while !fs::read_to_string(&file).is_ok_and(|text| text.contains("\"e1\"")) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    upstreams.stop().await;
    assert!(asked(&mut told).iter().all(|line| !line.starts_with("DELETE")));
    drop(heard);
    let (upstreams, upstream) = life(address, &store);
    let mut heard = again(&upstream).expect("it is known where it goes on");
    upstreams.recovered();
    assert_eq!(heard.told().await, "answer after all");
    upstreams.stop().await;
    assert!(asked(&mut told).contains(&"DELETE  s1".to_owned()));
}
