//! Servers that others wrote, unmodified, behind us: what they say is what they say to a client of their own.

use holdfast_tests::{ALLOW, Agent, Client, Exchange, Place, Served, Speaks, World, eventually, from_setup};
use serde_json::{Value, json};

const FILES: &str = "node/node_modules/.bin/mcp-server-filesystem";
const MEMORY: &str = "node/node_modules/.bin/mcp-server-memory";
const EVERYTHING: &str = "node/node_modules/.bin/mcp-server-everything";
const GIT: &str = "venv/bin/mcp-server-git";
const TIME: &str = "venv/bin/mcp-server-time";

/// One server twice, each in a directory of its own: with a client of its own, and with one of ours in front.
struct Twice {
    // In this order they end.
    direct: Client,
    through: Client,
    _served: Served,
    alone: World,
    world: World,
}

/// In texts, the directory where the server is.
const HERE: &str = "HERE";

/// Tells a story about this server to clients of both eras, each with a world of its own.
fn twice(program: &str, args: &[&str], prepare: fn(&World), story: fn(&mut Twice)) {
    for speaks in [Speaks::Legacy, Speaks::Modern] {
        let (alone, world) = (World::empty(), World::empty());
        [&alone, &world].into_iter().for_each(prepare);
        let program = from_setup(program);
        let here = |world: &World, text: &str| text.replace(HERE, world.directory().to_str().expect("UTF-8"));
        let args = |world: &World| args.iter().map(|arg| here(world, arg)).collect::<Vec<_>>();
        world.configure(&format!(
            "[servers.x]\ncommand = {:?}\nargs = {:?}\nenv = {{ MEMORY_FILE_PATH = {:?} }}\nprefix = false\n{ALLOW}",
            program.to_str().expect("UTF-8"),
            args(&world),
            here(&world, "HERE/memory.jsonl"),
        ));
        let served = world.serve();
        let can = json!({ "sampling": {}, "elicitation": { "form": {}, "url": {} }, "roots": {} });
        let mut command = alone.command(&program);
        command.args(args(&alone)).env("MEMORY_FILE_PATH", here(&alone, "HERE/memory.jsonl"));
        let mut direct = Client::connect(Place::Stdio(&mut command), Speaks::Legacy, can.clone());
        let mut through = match speaks {
            Speaks::Legacy => Client::connect(Place::Stdio(&mut world.stdio()), speaks, can),
            Speaks::Modern => Client::connect(Place::Http(&served.mcp), speaks, can),
        };
        for client in [&mut direct, &mut through] {
            client.reply_with("roots/list", json!({ "roots": [] }));
            client.reply_with(
                "sampling/createMessage",
                json!({ "role": "assistant", "content": { "type": "text", "text": "Paris" }, "model": "none" }),
            );
            client.reply_with("elicitation/create", json!({ "action": "decline" }));
        }
        story(&mut Twice { direct, through, _served: served, alone, world });
    }
}

/// What belongs to the era of the client, or is our own.
fn without_ours(mut result: Value) -> Value {
    let members = result.as_object_mut().expect("an object");
    ["resultType", "ttlMs", "cacheScope", "_meta"].iter().for_each(|name| drop(members.remove(*name)));
    result
}

impl Twice {
    /// Asks both and compares what they answer.
    #[track_caller]
    fn same(&mut self, method: &str, params: Value) -> Exchange {
        let here = |world: &World, text: &str| text.replace(world.directory().to_str().expect("UTF-8"), HERE);
        let ask = |client: &mut Client, world: &World| {
            let directory = world.directory().to_str().expect("UTF-8");
            let params = params.to_string().replace(HERE, directory);
            let exchange = client.request(method, serde_json::from_str(&params).expect("still JSON"));
            let mut answer = exchange.answer.clone();
            let result = match answer.get_mut("result") {
                Some(result) => without_ours(result.take()),
                None => answer["error"].take(),
            };
            (here(world, &result.to_string()), exchange)
        };
        let (one, _) = ask(&mut self.direct, &self.alone);
        let (other, exchange) = ask(&mut self.through, &self.world);
        assert_eq!(one, other, "{method} {params}");
        exchange
    }

    #[track_caller]
    fn call(&mut self, tool: &str, arguments: Value) -> Exchange {
        self.same("tools/call", json!({ "name": tool, "arguments": arguments }))
    }

    /// All of the server's tools, with their definitions; what we have besides is left out.
    fn same_tools(&mut self) {
        let tools = |client: &mut Client| {
            let list = client.request("tools/list", json!({})).result()["tools"].clone();
            let Value::Array(mut tools) = list else { panic!("no list") };
            tools.retain(|tool| !tool["name"].as_str().expect("a name").starts_with("holdfast_"));
            tools.sort_by_key(|tool| tool["name"].to_string());
            tools
        };
        // Some of them make tools only once they know what their client can do.
        eventually("both have as many tools", || {
            tools(&mut self.direct).len() == tools(&mut self.through).len()
        });
        assert_eq!(tools(&mut self.direct), tools(&mut self.through));
    }
}

#[test]
fn the_time_server() {
    twice(
        TIME,
        &["--local-timezone", "UTC"],
        |_| (),
        |both| {
            both.same_tools();
            let arguments =
                json!({ "source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo" });
            // It answers with today's date, and midnight would be between the two.
            let day = || std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs() / 86_400;
            let today = day();
            let converted = both.through.call("convert_time", arguments.clone());
            assert!(converted.words().contains("21:00"), "{}", converted.text);
            if today == day() {
                both.call("convert_time", arguments);
            }
            let wrong = both.call("get_current_time", json!({ "timezone": "Nowhere/At_All" }));
            assert_eq!(wrong.result()["isError"], true, "{}", wrong.text);
        },
    );
}

#[test]
fn the_git_server() {
    let prepare = |world: &World| {
        let git = |args: &[&str]| {
            let git =
                world.command("git".as_ref()).args(["-c", "init.defaultBranch=main"]).args(args).output();
            assert!(git.expect("git is there").status.success(), "{args:?}");
        };
        git(&["init", "-q", "."]);
        git(&["config", "user.name", "someone"]);
        git(&["config", "user.email", "someone@example.org"]);
        world.write("a.txt", "one\n");
        git(&["add", "a.txt"]);
        git(&["commit", "-qm", "the first"]);
        world.write("a.txt", "two\n");
    };
    twice(GIT, &["--repository", HERE], prepare, |both| {
        both.same_tools();
        let here = json!({ "repo_path": HERE });
        let difference = both.call("git_diff_unstaged", here.clone());
        assert!(difference.words().contains("+two"), "{}", difference.text);
        both.call("git_add", json!({ "repo_path": HERE, "files": ["a.txt"] }));
        both.call("git_diff_staged", here);
        let committed = both
            .through
            .call("git_commit", json!({ "repo_path": both.world.directory(), "message": "the second" }));
        assert_ne!(committed.result()["isError"], true, "{}", committed.text);
        let log =
            both.world.command("git".as_ref()).args(["log", "--format=%s"]).output().expect("git is there");
        assert_eq!(String::from_utf8_lossy(&log.stdout), "the second\nthe first\n");
    });
}

#[test]
fn the_memory_server() {
    twice(
        MEMORY,
        &[],
        |_| (),
        |both| {
            both.same_tools();
            let entity = json!({ "name": "Zoë", "entityType": "person", "observations": ["ist müde 😀"] });
            both.call("create_entities", json!({ "entities": [entity] }));
            let graph = both.call("read_graph", json!({}));
            assert!(graph.words().contains("ist müde 😀"), "{}", graph.text);
            let kept = std::fs::read_to_string(both.world.path("memory.jsonl")).expect("it was written");
            assert_eq!(kept.lines().count(), 1, "{kept}");
            both.same("resources/list", json!({}));
            let read = both.same("resources/read", json!({ "uri": "memory://knowledge-graph" }));
            assert!(read.text.contains("Zoë"), "{}", read.text);
        },
    );
}

#[test]
fn the_filesystem_server() {
    let prepare = |world: &World| {
        std::fs::create_dir(world.path("files")).expect("the directory is ours");
        world.write("files/a.txt", "what is in a\n");
    };
    twice(FILES, &["HERE/files"], prepare, |both| {
        both.same_tools();
        let read = both.call("read_text_file", json!({ "path": "HERE/files/a.txt" }));
        assert_eq!(read.words(), "what is in a\n");
        both.call("write_file", json!({ "path": "HERE/files/b.txt", "content": "né\u{0}w" }));
        assert_eq!(std::fs::read_to_string(both.world.path("files/b.txt")).expect("written"), "né\u{0}w");
        both.call("directory_tree", json!({ "path": "HERE/files" }));
        let outside = both.call("read_text_file", json!({ "path": "/etc/hostname" }));
        assert_eq!(outside.result()["isError"], true, "{}", outside.text);
    });
}

#[test]
fn a_write_to_the_filesystem_server_waits_for_a_person() {
    let world = World::empty();
    std::fs::create_dir(world.path("files")).expect("the directory is ours");
    world.configure(&format!(
        "[servers.files]\ncommand = {:?}\nargs = [{:?}]\n[defaults]\neffect = \"allow\"\nhold_wait = \"0s\"\n\
         [[rule]]\nid = \"writes\"\neffect = \"ask\"\nserver = \"files\"\ntool = \"write_file\"\n",
        from_setup(FILES).to_str().expect("UTF-8"),
        world.path("files").to_str().expect("UTF-8"),
    ));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    let path = world.path("files/b.txt");
    let held = agent.call("files__write_file", json!({ "path": path, "content": "new" }));
    assert_eq!(held.state(), "asking");
    assert!(!path.exists());
    world.run(&["approve", &held.call()]).ok();
    assert!(agent.wait(&held.call()).succeeded());
    assert_eq!(std::fs::read_to_string(path).expect("written"), "new");
}

#[test]
fn what_the_everything_server_has() {
    twice(
        EVERYTHING,
        &[],
        |_| (),
        |both| {
            both.same_tools();
            both.call("echo", json!({ "message": "a\u{202e}b" }));
            both.call("get-structured-content", json!({ "location": "Chicago" }));
            both.call("get-tiny-image", json!({}));
            both.call("get-annotated-message", json!({ "messageType": "error", "includeImage": true }));
            both.call("get-sum", json!({ "a": "no number", "b": 1 }));
            both.same("prompts/list", json!({}));
            let city = json!({ "city": "Bern", "state": "BE" });
            let prompt = both.same("prompts/get", json!({ "name": "args-prompt", "arguments": city }));
            assert!(prompt.text.contains("Bern"), "{}", prompt.text);
            both.same("resources/list", json!({}));
            both.same("resources/templates/list", json!({}));
            both.same("resources/read", json!({ "uri": "demo://resource/static/document/features.md" }));
            let reference = json!({ "type": "ref/prompt", "name": "completable-prompt" });
            let argument = json!({ "name": "department", "value": "S" });
            both.same("completion/complete", json!({ "ref": reference, "argument": argument }));
        },
    );
}

/// What the client was asked for by a call. For its roots it is asked a while after the handshake, whatever goes on then.
fn asked_for(exchange: &Exchange) -> Vec<&str> {
    let methods = exchange.asked.iter().filter_map(|asked| asked["method"].as_str());
    methods.filter(|method| *method != "roots/list").collect()
}

#[test]
fn what_the_everything_server_asks_and_says_meanwhile() {
    twice(
        EVERYTHING,
        &[],
        |_| (),
        |both| {
            both.same_tools();
            let sampled = both.call("trigger-sampling-request", json!({ "prompt": "capital of France?" }));
            assert_eq!(asked_for(&sampled), ["sampling/createMessage"], "{sampled:?}");
            assert!(sampled.text.contains("Paris"), "{}", sampled.text);
            let asked = both.call("trigger-elicitation-request", json!({}));
            assert_eq!(asked_for(&asked), ["elicitation/create"], "{asked:?}");
            let work = json!({
                "name": "trigger-long-running-operation",
                "arguments": { "duration": 0.3, "steps": 3 },
                "_meta": { "progressToken": "mine" },
            });
            let steps = |exchange: &Exchange| {
                let steps = exchange.said("notifications/progress");
                steps.iter().map(|step| json!([step["progressToken"], step["progress"]])).collect::<Vec<_>>()
            };
            let done = both.same("tools/call", work);
            assert_eq!(
                steps(&done),
                [json!(["mine", 1]), json!(["mine", 2]), json!(["mine", 3])],
                "{done:?}"
            );
        },
    );
}
