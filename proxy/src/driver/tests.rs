//! Requests against a real server and a journal in memory: what is done once, and what is said about it.

use std::{fs, future::poll_fn, task::Poll};

use holdfast_store::Memory;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::report::Report;

/// One life of Holdfast.
struct Life {
    driver: Arc<Driver>,
    upstreams: Arc<Upstreams>,
    memory: Arc<Memory>,
    open: Arc<dyn Peer>,
}

/// A connection whose other end is there.
struct Open;

impl Peer for Open {
    fn hung_up(&self) -> bool {
        false
    }
}

/// Nothing that is expected takes as long.
const PATIENCE: Duration = Duration::from_secs(30);

fn world(policy: &str) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().display();
    let text = format!(
        "version = 1\n[servers.test]\ncommand = \"python3\"\nargs = [\"-u\", \"-c\", {script:?}, \"{path}\"]\n{policy}",
        script = include_str!("tests/server.py"),
    );
    fs::write(directory.path().join("holdfast.toml"), text).expect("the directory is ours");
    directory
}

const ALLOW: &str = "[defaults]\neffect = \"allow\"\n";

impl Life {
    async fn begin(world: &TempDir, memory: Memory) -> Self {
        let (config, _) =
            Config::load(Some(&world.path().join("holdfast.toml"))).expect("a good configuration");
        let upstreams = Upstreams::start(&config.servers);
        let memory = Arc::new(memory);
        let driver = Driver::new(Current::new(config), memory.clone(), upstreams.clone());
        driver.recover().await.expect("the journal can be read");
        let open: Arc<dyn Peer> = Arc::new(Open);
        for connection in 1..10 {
            driver.connection_opened(connection, &open);
        }
        Self { driver, upstreams, memory, open }
    }

    /// The machine stops and is started again.
    async fn again(self, world: &TempDir) -> Self {
        let memory = self.memory.reopen();
        self.driver.stopped.cancel();
        drop(self.open);
        self.upstreams.stop().await;
        Self::begin(world, memory).await
    }

    async fn call(&self, tool: &str, connection: u64) -> Reply {
        reply(self.driver.call(request(tool, connection)).await).await
    }

    /// Notes a call as the front does.
    fn seen(&self, connection: u64) {
        self.driver.seen(connection, "channel", Evidence::Call);
    }

    async fn end(self) {
        self.driver.stop(Duration::ZERO).await;
        self.upstreams.stop().await;
    }
}

fn ran(world: &TempDir) -> usize {
    fs::read_to_string(world.path().join("ran")).map_or(0, |ran| ran.lines().count())
}

fn caller() -> Caller {
    Caller { principal: "local".into(), channel: "channel".into(), client: "client".into() }
}

fn request(tool: &str, connection: u64) -> Request {
    Request {
        caller: caller(),
        connection,
        server: "test".into(),
        tool: tool.into(),
        arguments: json!({}),
        extra: Map::new(),
        meta: Map::new(),
        transport_key: None,
        explicit_key: None,
        run: None,
        incarnation: None,
        progress: Progress::Unwanted,
        client: crate::upstream::Client::unknown(),
    }
}

async fn reply(mut ticket: Ticket) -> Reply {
    let next = tokio::time::timeout(PATIENCE, async {
        loop {
            if let News::Reply(reply) = ticket.next().await {
                return reply;
            }
        }
    });
    next.await.expect("no hang")
}

fn report(reply: &Reply) -> &Report {
    match &reply.body {
        Body::Report(report) | Body::Handle(report) | Body::Stopped(report) => report,
        Body::Answer(answer) => panic!("an answer: {}", &*answer.text),
    }
}

#[tokio::test]
async fn who_leaves_while_its_earlier_call_is_looked_up_leaves_it_to_the_next() {
    let world = world(ALLOW);
    let life = Life::begin(&world, Memory::default()).await;
    let lost = life.call("pay", 1).await;
    assert_eq!(lost.state, "succeeded");
    let life = life.again(&world).await;
    // The first to ask again is gone as soon as its call was found, before it could be read.
    let through_a_bridge = || {
        let mut request = request("pay", 2);
        request.caller.channel = "bridge:1".into();
        life.driver.call(request)
    };
    let mut asks = Box::pin(through_a_bridge());
    while life.driver.reissues().looked_up() == 0 {
        // Where the thread that reads the journal is quicker than this one, it goes with its ticket in hand.
        if poll_fn(|context| Poll::Ready(asks.as_mut().poll(context))).await.is_ready() {
            break;
        }
        tokio::task::yield_now().await;
    }
    drop(asks);
    let second = reply(through_a_bridge().await).await;
    assert_eq!((second.call, second.replayed, ran(&world)), (lost.call, true, 1));
    life.end().await;
}

#[tokio::test]
async fn what_was_heard_after_a_restart_is_not_matched_again() {
    let world = world("[defaults]\neffect = \"ask\"\nhold_wait = \"0s\"\n");
    let life = Life::begin(&world, Memory::default()).await;
    let held = life.call("pay", 1).await.call.expect("a call");
    let life = life.again(&world).await;
    let digest =
        life.driver.find(held).expect("it is live").with(|shared| shared.call.hold.clone()).expect("held");
    let by = holdfast_store::Decider { name: "ana".into(), groups: Vec::new(), via: String::new() };
    life.driver.approve(held, digest.digest, by, None).await.expect("it is asked");
    let ticket = life
        .driver
        .collect(&caller(), 2, held, Progress::Unwanted, &crate::upstream::Client::unknown())
        .await
        .expect("it is ours");
    let collected = reply(ticket).await;
    assert_eq!(collected.state, "succeeded");
    collected.receipt.written();
    life.seen(2);
    let meant = life.call("pay", 2).await;
    assert_ne!(meant.call, Some(held), "its answer was heard: the same once more is meant");
    life.end().await;
}

#[tokio::test]
async fn a_stop_dispatches_nothing_more_and_says_what_is_so() {
    let world = world(&format!("{ALLOW}limits.concurrency = 1\n"));
    let life = Life::begin(&world, Memory::default()).await;
    let running = life.driver.call(request("slow", 1)).await;
    while ran(&world) == 0 {
        tokio::task::yield_now().await;
    }
    let mut other = request("slow", 2);
    other.arguments = json!({ "n": 2 });
    let mut waits = life.driver.call(other).await;
    waits.known().await;
    let queued = waits.call.expect("it was accepted");
    let driver = life.driver.clone();
    let stop = tokio::spawn(async move { driver.stop(PATIENCE).await });
    life.driver.closing.cancelled().await;
    fs::write(world.path().join("go"), "").expect("the directory is ours");
    assert_eq!(reply(running).await.state, "succeeded");
    assert_eq!(stop.await.expect("no panic"), 0, "the one in flight could end");
    let told = reply(waits).await;
    assert_eq!((told.call, report(&told).code), (Some(queued), "running"));
    assert!(matches!(told.body, Body::Stopped(_)), "a bridge asks the next process");
    assert_eq!(ran(&world), 1);
    let life = life.again(&world).await;
    let ticket = life
        .driver
        .collect(&caller(), 3, queued, Progress::Unwanted, &crate::upstream::Client::unknown())
        .await
        .expect("it is ours");
    assert_eq!((reply(ticket).await.state, ran(&world)), ("succeeded", 2));
    life.end().await;
}
