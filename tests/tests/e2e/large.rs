//! Answers that are too large: told in part, kept whole in a file, read in ranges, proven and swept.

use std::fs;

use holdfast_tests::{ALLOW, Agent, Answer, Connection, Response, Served, World};
use serde_json::{Value, json};

const SMALL: &str = "[intake]\nmax_answer = \"64KiB\"\n";

/// A server whose tools give what the story says.
fn world(tools: Value, script: &Value, more: &str) -> World {
    let world = World::empty();
    world.configure(&format!("{}{SMALL}{more}", world.server_odd("")));
    world.write("tools.json", &tools.to_string());
    world.write("script.json", &script.to_string());
    world
}

fn export() -> World {
    let script = json!({ "export": { "result": { "content": [{ "type": "text", "text": rows() }] } } });
    world(json!([{ "name": "export", "inputSchema": { "type": "object" } }]), &script, ALLOW)
}

fn rows() -> String {
    (0..40_000).map(|n| format!("row {n} é\n")).collect()
}

fn link(answer: &Answer) -> Value {
    let content = answer.result()["content"].as_array().expect("blocks").clone();
    let link = content.last().expect("a link").clone();
    assert_eq!(link["type"], "resource_link", "{link}");
    link
}

fn hash(answer: &Answer) -> String {
    let uri = link(answer)["uri"].as_str().expect("an address").to_owned();
    uri.strip_prefix("holdfast://answers/").expect("ours").to_owned()
}

fn fetch(served: &Served, hash: &str, headers: &[(&str, &str)]) -> Response {
    let mut connection = Connection::open(&served.mcp);
    connection.send("GET", &format!("/answers/{hash}"), headers, b"");
    connection.response()
}

#[test]
fn the_beginning_is_told_and_the_whole_can_be_had() {
    let world = export();
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let told = agent.call_as("k1", "odd__export", json!({}));
    assert!(told.succeeded());
    let content = told.result()["content"].as_array().expect("blocks").clone();
    let shown = content[0]["text"].as_str().expect("text");
    assert!(rows().starts_with(shown) && shown.len() > 30_000, "{} bytes", shown.len());
    assert!(content[1]["text"].as_str().expect("text").contains("intake.max_answer"));

    let whole = fetch(&served, &hash(&told), &[]);
    assert_eq!((whole.status(), whole.head.header("content-type")), (200, Some("application/json")));
    assert_eq!(whole.json()["content"][0]["text"], rows());
    assert_eq!(link(&told)["size"], whole.body.len());
    let part = fetch(&served, &hash(&told), &[("Range", "bytes=10-19")]);
    assert_eq!((part.status(), &*part.body), (206, &whole.body[10..20]));
    let size = whole.body.len();
    assert_eq!(part.head.header("content-range"), Some(&*format!("bytes 10-19/{size}")));
    let end = fetch(&served, &hash(&told), &[("Range", "bytes=-5")]);
    assert_eq!(end.body, whole.body[size - 5..]);
    assert_eq!(fetch(&served, &hash(&told), &[("Range", &format!("bytes={size}-"))]).status(), 416);
    assert_eq!(fetch(&served, &"0".repeat(64), &[]).status(), 404);

    let read = |uri: &str, agent: &mut Agent| agent.request("resources/read", json!({ "uri": uri }));
    let uri = link(&told)["uri"].as_str().expect("an address").to_owned();
    let read_whole = read(&uri, &mut agent);
    assert_eq!(read_whole.result()["contents"][0]["text"], whole.body);
    let read_part = read(&format!("{uri}?offset=10&length=10"), &mut agent);
    assert_eq!(read_part.result()["contents"][0]["text"], whole.body[10..20]);

    // The journal has the part and the hash, and says the same again.
    let again = agent.call_as("k1", "odd__export", json!({}));
    assert_eq!(again.result()["content"], told.result()["content"]);
    assert_eq!(world.odd_calls("export").len(), 1);
    let shown = world.run(&["show", &told.call()]);
    assert!(shown.ok().contains(&hash(&told)) && shown.ok().len() < 60_000);
}

#[test]
fn what_was_told_is_told_after_a_kill_and_proven() {
    let world = export();
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let told = agent.call_as("k1", "odd__export", json!({}));
    // Left by kills: half a file, and one that nothing refers to.
    let files = world.path("holdfast.redb.answers");
    fs::write(files.join("new-1-1"), "half").expect("writable");
    fs::write(files.join("0".repeat(64)), "an orphan").expect("writable");
    let served = world.serve_anew(served);
    assert_eq!(fs::read_dir(&files).expect("readable").count(), 1);
    let mut agent = Agent::modern(&served, "agent");
    let again = agent.call_as("k1", "odd__export", json!({}));
    assert_eq!(again.result()["content"], told.result()["content"]);
    assert_eq!(fetch(&served, &hash(&told), &[]).json()["content"][0]["text"], rows());
    world.run(&["verify"]).ok();
    fs::write(files.join(hash(&told)), "something else").expect("writable");
    for served in [Some(served), None] {
        let found = world.run(&["verify", "--json"]);
        assert_eq!(found.json()["ok"], false, "{found:?}");
        assert!(found.json()["what"].as_str().expect("words").contains(&hash(&told)));
        drop(served);
    }
}

#[test]
fn structure_that_does_not_fit_is_an_error_and_no_reason_to_repeat() {
    let large = json!({ "rows": rows() });
    let small = json!({ "n": 1 });
    let text = json!([{ "type": "text", "text": rows() }]);
    let script = json!({
        "large": { "result": { "content": [], "structuredContent": large } },
        "small": { "result": { "content": text, "structuredContent": small } },
    });
    let tool = |name: &str| {
        json!({
            "name": name, "inputSchema": { "type": "object" },
            "outputSchema": { "type": "object" },
        })
    };
    let world = world(json!([tool("large"), tool("small")]), &script, ALLOW);
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let told = agent.call("odd__small", json!({}));
    assert_eq!((&told.result()["structuredContent"], told.result().get("isError")), (&small, None));
    for key in ["k", "k"] {
        let told = agent.call_as(key, "odd__large", json!({}));
        assert_eq!(told.result()["isError"], true);
        assert_eq!(told.result()["_meta"]["io.holdfast/state"], "succeeded");
        assert_eq!(fetch(&served, &hash(&told), &[]).json()["structuredContent"], large);
    }
    assert_eq!(world.odd_calls("large").len(), 1);
}

#[test]
fn an_answer_is_read_by_whose_call_it_was() {
    let token = |name: &str| format!("hf_agent_{name}_0123456789abcdef0123456789abcdef");
    let agents = ["ana", "bob"].map(|name| format!("[agents.{name}]\ntoken = {:?}\n", token(name))).concat();
    let script = json!({ "export": { "result": { "content": [{ "type": "text", "text": rows() }] } } });
    let tools = json!([{ "name": "export", "inputSchema": { "type": "object" } }]);
    let world = world(tools, &script, &format!("{agents}{ALLOW}"));
    let served = world.serve();
    let told = Agent::with_token(&served, "agent", &token("ana")).call("odd__export", json!({}));
    let with = |name: &str| {
        fetch(&served, &hash(&told), &[("Authorization", &format!("Bearer {}", token(name)))]).status()
    };
    assert_eq!((with("ana"), with("bob")), (200, 404));
    assert_eq!(fetch(&served, &hash(&told), &[]).status(), 401);
    // Who got the same answer may read it.
    Agent::with_token(&served, "agent", &token("bob")).call("odd__export", json!({}));
    assert_eq!(with("bob"), 200);
}
