//! Modern servers that want a request sent again.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::json;

use super::{
    http::{serve, web},
    *,
};

/// A server that wants each call again and again, with its state; counts them, and keeps what headers they had.
async fn never_content(counted: Arc<AtomicUsize>, regions: Arc<Mutex<Vec<String>>>) -> std::net::SocketAddr {
    serve(move |seen| match seen.rpc() {
        "server/discover" => {
            seen.result(json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}))
        }
        "tools/list" => {
            let region = json!({"region": {"type": "string", "x-mcp-header": "Region"}});
            seen.result(json!({"tools": [{"name": "echo", "inputSchema": {"properties": region}}]}))
        }
        "tools/call" => {
            counted.fetch_add(1, Ordering::SeqCst);
            regions.lock().expect("not poisoned").push(seen.header("mcp-param-region").to_owned());
            seen.result(json!({"resultType": "input_required", "requestState": "later"}))
        }
        _ => super::http::status(400),
    })
    .await
}

#[tokio::test]
async fn a_call_that_was_taken_back_is_not_sent_again() {
    let (counted, regions) = (Arc::new(AtomicUsize::new(0)), Arc::default());
    let (upstreams, upstream) = start(web(never_content(counted.clone(), Arc::clone(&regions)).await));
    upstream.tools(&caller("test")).await.expect("tools");
    let mut dispatch = call("echo");
    dispatch.arguments = Text::parse(r#"{"region":"eu"}"#).expect("valid JSON");
    let mut heard = send(&upstream, dispatch);
    timeout(PATIENCE, async {
        while counted.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it is sent again");
    heard.flight.cancel("its time is over");
    // It hears of an end: whoever waited to send it again has looked, and has not.
    assert_eq!(heard.told().await, "lost Cancelled");
    let sent = counted.load(Ordering::SeqCst);
    assert!(regions.lock().expect("not poisoned").iter().all(|region| region == "eu"));
    upstreams.stop().await;
    assert_eq!(counted.load(Ordering::SeqCst), sent);
}
