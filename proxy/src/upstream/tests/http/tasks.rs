//! Modern servers that make tasks of calls, for agents that know none.

use std::collections::VecDeque;

use holdfast_store::{Attempt, CallId, Millis};

use super::*;
use crate::{
    config::Tasks,
    keeper::Keeper,
    upstream::{Again, Said, Threads},
};

fn attempt() -> (CallId, Attempt) {
    (CallId::from_bytes([9; 16]), Attempt(1))
}

/// What the server was told about its task, and in which order it says how the task is.
#[derive(Default)]
struct Desk {
    told: Vec<String>,
    says: VecDeque<Value>,
}

/// A server whose tool `job` becomes the task `t1` where the client takes tasks; it is `says`, one after another.
async fn server(says: &[Value]) -> (SocketAddr, Arc<Mutex<Desk>>) {
    let desk = Arc::new(Mutex::new(Desk { says: says.iter().cloned().collect(), ..Desk::default() }));
    let shared = desk.clone();
    let address = serve(move |seen| {
        let mut desk = shared.lock().expect("not poisoned");
        let meta = &seen.body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"];
        let takes_tasks = meta["extensions"]["io.modelcontextprotocol/tasks"].is_object();
        if seen.rpc().starts_with("tasks/") {
            assert!(takes_tasks && seen.body["params"]["taskId"] == "t1", "{}", seen.body);
        }
        let rpc = seen.rpc().to_owned();
        match rpc.as_str() {
            "server/discover" => {
                seen.result(json!({"supportedVersions": ["2026-07-28"], "capabilities": {}}))
            }
            "tools/list" => seen.result(json!({"tools": [{"name": "job"}]})),
            "tools/call" => {
                desk.told.push(rpc);
                let task =
                    json!({"resultType": "task", "taskId": "t1", "status": "working", "pollIntervalMs": 50});
                if takes_tasks { seen.result(task) } else { seen.text("without a task") }
            }
            "tasks/get" => match desk.says.pop_front() {
                Some(Value::Null) => status(503),
                Some(said) if said["code"].is_i64() => {
                    json_response(json!({"id": seen.body["id"], "error": said}))
                }
                Some(said) => seen.result(said),
                None => seen.result(json!({"taskId": "t1", "status": "working", "pollIntervalMs": 50})),
            },
            "tasks/update" => {
                desk.told.push(format!("{rpc} {}", seen.body["params"]["inputResponses"]));
                seen.result(json!({}))
            }
            "tasks/cancel" => {
                desk.told.push(rpc);
                desk.says.push_back(json!({"taskId": "t1", "status": "cancelled"}));
                seen.result(json!({}))
            }
            _ => json_response(json!({"id": seen.body["id"], "error": {"code": -32601, "message": "no"}})),
        }
    })
    .await;
    (address, desk)
}

fn working() -> Value {
    json!({"taskId": "t1", "status": "working", "pollIntervalMs": 50})
}

fn completed(text: &str) -> Value {
    let result = json!({"resultType": "complete", "content": [{"type": "text", "text": text}]});
    json!({"taskId": "t1", "status": "completed", "result": result})
}

fn using(address: SocketAddr) -> ServerConfig {
    ServerConfig { tasks: Tasks::Use, unexecuted: vec![-32050], ..web(address) }
}

fn told_of(desk: &Mutex<Desk>) -> Vec<String> {
    desk.lock().expect("not poisoned").told.clone()
}

#[tokio::test]
async fn the_end_of_a_task_is_the_answer() {
    let cases = [
        (vec![working(), Value::Null, completed("done")], "answer done"),
        (vec![json!({"status": "failed", "error": {"code": -32603, "message": "no"}})], "lost UpstreamError"),
        // Of a request this code says that it was not executed; a task was begun.
        (
            vec![json!({"status": "failed", "error": {"code": -32050, "message": "busy"}})],
            "lost UpstreamError",
        ),
        (
            vec![json!({"status": "failed", "error": {"code": -32602, "message": "no"}})],
            "refused code Some(-32602) status None after None",
        ),
        (vec![json!({"status": "cancelled"})], "lost UpstreamError"),
        (vec![json!({"code": -32602, "message": "no such task"})], "lost UpstreamError"),
        (vec![json!({"status": "completed"})], "lost UpstreamError"),
    ];
    for (says, expected) in cases {
        let (address, desk) = server(&says).await;
        let (upstreams, upstream) = start(using(address));
        assert_eq!(told(&upstream, "job").await, expected);
        assert_eq!(told_of(&desk), ["tools/call"]);
        upstreams.stop().await;
    }
}

#[tokio::test]
async fn where_nobody_wants_it_there_is_no_task() {
    let (address, _desk) = server(&[]).await;
    let (upstreams, upstream) = start(web(address));
    assert_eq!(told(&upstream, "job").await, "answer without a task");
    upstreams.stop().await;
}

#[tokio::test]
async fn an_agent_that_knows_tasks_gets_its_own() {
    let (address, _desk) = server(&[]).await;
    let (upstreams, upstream) = start(using(address));
    let knows = Client::unknown().with_tasks();
    let mut heard = send(&upstream, Dispatch { client: Arc::new(knows), ..call("job") });
    let Signal::Answered(answer) = heard.next().await else { panic!("it is answered") };
    assert_eq!(answer.text.value()["taskId"], "t1");
    upstreams.stop().await;
}

#[tokio::test]
async fn what_a_task_asks_is_asked_once_and_told() {
    let asks = json!({
        "status": "input_required", "pollIntervalMs": 50,
        "inputRequests": {"sure": {"method": "elicitation/create", "params": {"message": "Sure?"}}},
    });
    let (address, desk) = server(&[asks.clone(), asks, working(), completed("done")]).await;
    let (upstreams, upstream) = start(using(address));
    let mut heard = send(&upstream, Dispatch { attempt: Some(attempt()), ..call("job") });
    let Signal::Asked(question) = heard.next().await else { panic!("it asks") };
    assert_eq!(question.wanted.asks[0].method, "elicitation/create");
    question.answer(vec![("sure".into(), Said::Result(Text::of(&json!({"action": "accept"}))))]);
    assert_eq!(heard.told().await, "answer done");
    assert_eq!(told_of(&desk), ["tools/call", r#"tasks/update {"sure":{"action":"accept"}}"#]);
    upstreams.stop().await;
}

#[tokio::test]
async fn what_is_withdrawn_is_cancelled() {
    let (address, desk) = server(&[working()]).await;
    let (upstreams, upstream) = start(using(address));
    let mut heard = send(&upstream, call("job"));
    // By then it is known to be a task.
    let looked_after = async {
        while !desk.lock().expect("not poisoned").says.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, looked_after).await.expect("it is looked after");
    assert!(!heard.flight.gone(), "the task goes on without a connection");
    heard.flight.cancel("not wanted");
    assert_eq!(heard.told().await, "lost Cancelled");
    assert!(!heard.flight.gone(), "a cancelled task may go on");
    assert_eq!(told_of(&desk), ["tools/call", "tasks/cancel"]);
    upstreams.stop().await;
}

#[tokio::test]
async fn the_next_life_asks_for_the_task() {
    let directory = tempfile::tempdir().expect("a directory");
    let (address, desk) = server(&[]).await;
    let life = |store: &str| {
        let kept = (Keeper::within(), Vec::new());
        let threads = Threads::beside(&directory.path().join(store));
        let upstreams = Upstreams::start_kept(&[using(address)], kept, threads);
        let upstream = upstreams.get("fake").expect("it is configured");
        (upstreams, upstream)
    };
    let (first, upstream) = life("h.redb");
    first.recovered();
    let _heard = send(&upstream, Dispatch { attempt: Some(attempt()), ..call("job") });
    let file = directory.path().join("h.redb.threads");
    let noted = async {
        while !std::fs::read_to_string(&file).is_ok_and(|text| text.contains("t1")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, noted).await.expect("it is noted");
    // What a killed process leaves.
    std::fs::copy(&file, directory.path().join("next.redb.threads")).expect("writable");
    first.stop().await;

    desk.lock().expect("not poisoned").says.push_back(completed("after all"));
    let (next, upstream) = life("next.redb");
    let (hear, signals) = mpsc::unbounded_channel();
    let dispatch = Dispatch { attempt: Some(attempt()), ..call("job") };
    let again = upstream.again(dispatch, Millis(0), None, Box::new(move |signal| drop(hear.send(signal))));
    let Again::Awaited(flight) = again else { panic!("it is known") };
    next.recovered();
    let mut heard = Heard { signals, flight };
    assert_eq!(heard.told().await, "answer after all");
    assert_eq!(told_of(&desk), ["tools/call"]);
    next.stop().await;
}
