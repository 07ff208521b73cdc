//! Servers that others wrote, unmodified, behind us.

use holdfast_tests::{ALLOW, Agent, World, from_setup};
use serde_json::json;

#[test]
fn the_time_server_of_the_reference_servers() {
    let world = World::empty();
    let python = from_setup("venv/bin/python");
    world.configure(&format!(
        "[servers.time]\ncommand = {:?}\nargs = [\"-m\", \"mcp_server_time\", \"--local-timezone\", \"UTC\"]\n{ALLOW}",
        python.to_str().expect("UTF-8")
    ));
    let served = world.serve();
    for mut agent in [Agent::modern(&served, "modern"), Agent::legacy(&served, "legacy")] {
        let tools = agent.tools();
        for tool in ["time__get_current_time", "time__convert_time"] {
            assert!(tools.contains(&tool.to_owned()), "{tools:?}");
        }
        let arguments = json!({ "source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo" });
        let answer = agent.call("time__convert_time", arguments);
        assert!(answer.succeeded(), "{answer:?}");
        assert!(answer.text().contains("21:00"), "{}", answer.text());
        let wrong = agent.call("time__get_current_time", json!({ "timezone": "Nowhere/At_All" }));
        assert!(wrong.is_error(), "{wrong:?}");
    }
}

#[test]
fn the_filesystem_server_of_the_reference_servers() {
    let world = World::empty();
    let script = from_setup("node/node_modules/.bin/mcp-server-filesystem");
    std::fs::create_dir(world.path("files")).expect("the directory is ours");
    world.configure(&format!(
        "[servers.files]\ncommand = {:?}\nargs = [{:?}]\n[defaults]\neffect = \"allow\"\nhold_wait = \"0s\"\n\
         [[rule]]\nid = \"writes\"\neffect = \"ask\"\nserver = \"files\"\ntool = \"write_file\"\n",
        script.to_str().expect("UTF-8"),
        world.path("files").to_str().expect("UTF-8"),
    ));
    let served = world.serve();
    let mut agent = Agent::modern(&served, "agent");
    assert!(agent.tools().contains(&"files__read_text_file".to_owned()));
    std::fs::write(world.path("files/a.txt"), "what is in a\n").expect("the directory is ours");
    let path = |name: &str| world.path("files").join(name).to_str().expect("UTF-8").to_owned();
    let read = agent.call("files__read_text_file", json!({ "path": path("a.txt") }));
    assert!(read.succeeded(), "{read:?}");
    assert_eq!(read.text(), "what is in a\n");

    let write = json!({ "path": path("b.txt"), "content": "new" });
    let held = agent.call("files__write_file", write);
    assert_eq!(held.state(), "asking");
    assert!(!world.path("files/b.txt").exists());
    world.run(&["approve", &held.call()]).ok();
    assert!(agent.wait(&held.call()).succeeded());
    assert_eq!(std::fs::read_to_string(world.path("files/b.txt")).expect("written"), "new");
    let outside = agent.call("files__read_text_file", json!({ "path": "/etc/hostname" }));
    assert!(outside.is_error(), "{outside:?}");
}
