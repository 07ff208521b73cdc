//! Servers that are child processes.

use std::{collections::BTreeSet, path::PathBuf};

use holdfast_store::{AnswerKind, Loss};
use nix::{errno::Errno, sys::signal::kill, unistd::Pid};
use serde_json::Value;

use super::*;
use crate::{upstream::HealthState, wire};

fn process(command: &str, args: &[&str], env: &[(&str, &str)]) -> Transport {
    Transport::Stdio {
        command: command.into(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        cwd: None,
    }
}

fn fake(mode: &str) -> ServerConfig {
    config(process("python3", &["-u", "-c", include_str!("fake.py"), mode], &[]), Share::All)
}

#[tokio::test]
async fn every_beginning_leads_to_tools_and_answers() {
    for (mode, is_modern) in [("legacy", false), ("modern", true), ("fragile", true), ("reopening", false)] {
        let (upstreams, upstream) = start(fake(mode));
        let tools = upstream.tools(&caller("test")).await.expect(mode);
        assert_eq!(tools.iter().map(|tool| &*tool.name).collect::<Vec<_>>(), ["echo", "odd"], "{mode}");
        assert_eq!(
            tools[0].definition.to_string(),
            r#"{"name":"echo","inputSchema":{"type":"object"},"x-vendor":[1.0],"annotations":{"readOnlyHint":true}}"#
        );
        assert_eq!(tools[0].hints.read_only, Some(true));
        let line = told(&upstream, "echo").await;
        assert_eq!(
            line.contains("io.modelcontextprotocol/protocolVersion\":\"2026-07-28"),
            is_modern,
            "{line}"
        );
        assert_eq!(upstream.health().state, HealthState::Up);
        assert_eq!(*upstreams.changed().borrow(), 1);
        upstreams.stop().await;
        assert_eq!(told(&upstream, "echo").await, "unsent upstream-unreachable");
    }
}

#[tokio::test]
async fn texts_pass_byte_for_byte() {
    let (upstreams, upstream) = start(fake("legacy"));
    let arguments = r#"{ "b":1.0, "a":"\u00fc","n":9007199254740993}"#;
    let meta = r#"{"x.y/z":[1.50],"progressToken":"stolen","io.modelcontextprotocol/protocolVersion":"1"}"#;
    let mut dispatch = call("echo");
    dispatch.arguments = Text::parse(arguments).expect("valid JSON");
    dispatch.meta = Some(Text::parse(meta).expect("valid JSON"));
    let line = send(&upstream, dispatch).told().await;
    assert!(line.contains(&format!(r#""arguments":{arguments},"_meta""#)), "{line}");
    assert!(line.ends_with(r#","x.y/z":[1.50]}}}"#) && !line.contains("stolen"), "{line}");

    let Signal::Answered(answer) = send(&upstream, call("odd")).next().await else { panic!("an answer") };
    assert_eq!(answer.kind, AnswerKind::ToolError);
    assert_eq!(
        &*answer.text,
        r#"{ "z":1.50, "n":123456789012345678901234567890,"content":[{"type":"hologram"}],"isError" : true}"#
    );
    let Signal::Refused(refused) = send(&upstream, call("refuse")).next().await else { panic!("an error") };
    assert_eq!(&*refused.error, r#"{"code": -32602, "message": "no", "data": {"deep": [1]}}"#);
    assert_eq!((refused.code, refused.status), (Some(-32602), None));
    upstreams.stop().await;
}

#[tokio::test]
async fn progress_comes_in_order_and_before_the_answer() {
    let (upstreams, upstream) = start(fake("legacy"));
    let mut heard = send(&upstream, call("progress"));
    for step in 0..50 {
        assert_eq!(heard.told().await, format!("progress {step}"));
    }
    assert_eq!(heard.told().await, "answer done");
    upstreams.stop().await;
}

#[tokio::test]
async fn second_and_late_answers_are_heard() {
    let (upstreams, upstream) = start(fake("legacy"));
    let mut heard = send(&upstream, call("twice"));
    assert_eq!([heard.told().await, heard.told().await], ["answer first", "answer second"]);
    let mut heard = send(&upstream, call("hold"));
    heard.flight.cancel("no patience");
    assert_eq!(heard.told().await, "answer too late: no patience");
    // The server answers what was cancelled once more.
    assert_eq!(told(&upstream, "release").await, "answer done");
    assert_eq!(heard.told().await, "answer released");
    assert_eq!(told(&upstream, "as_text").await, "answer the id came back as text");
    upstreams.stop().await;
}

#[tokio::test]
async fn garbage_and_requests_of_the_server_do_no_harm() {
    let (upstreams, upstream) = start(fake("legacy"));
    let mut heard = send(&upstream, call("garbage"));
    let question = loop {
        match heard.next().await {
            Signal::Asked(question) => break question,
            Signal::Remarked(remark) => assert!(remark.method.starts_with("notifications/"), "{remark:?}"),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(question.wanted.asks[0].method, "sampling/createMessage");
    question.refuse(&wire::error_member(wire::METHOD_NOT_FOUND, "nobody to ask", None));
    let answer = heard.told().await;
    let replies: Value =
        serde_json::from_str(answer.strip_prefix("answer ").expect("an answer")).expect("JSON");
    assert_eq!(replies[0].to_string(), r#"{"jsonrpc":"2.0","id":"s1","result":{}}"#);
    assert_eq!((&replies[1]["id"], &replies[1]["error"]["code"]), (&Value::from("s2"), &Value::from(-32601)));
    assert!(told(&upstream, "echo").await.starts_with("answer"));
    assert_eq!(upstream.health().restarts, 0);
    upstreams.stop().await;
}

#[tokio::test]
async fn what_was_written_before_death_counts_and_the_rest_is_lost() {
    let (upstreams, upstream) = start(fake("legacy"));
    let first = told(&upstream, "pid").await;
    let mut waiting = send(&upstream, call("hold"));
    let mut last = send(&upstream, call("die"));
    assert!(last.told().await.starts_with("answer xxx"));
    let Signal::Lost(Loss::Disconnected, message) = waiting.next().await else { panic!("a loss") };
    assert!(message.contains("exit status: 3") && message.contains("something broke"), "{message}");
    // The next call meets a new process, and by then the old one is gone.
    assert_ne!(told(&upstream, "pid").await, first);
    assert!(waiting.flight.gone() && last.flight.gone());
    assert_eq!(upstream.health().restarts, 1);
    assert!(upstream.health().last_error.is_some_and(|error| error.contains("something broke")));
    upstreams.stop().await;
}

#[tokio::test]
async fn an_answer_too_long_costs_only_its_own_call() {
    let (upstreams, upstream) = start(fake("legacy"));
    let mut other = send(&upstream, call("hold"));
    let Signal::Lost(Loss::UpstreamError, message) = send(&upstream, call("big")).next().await else {
        panic!("a loss")
    };
    assert!(message.contains("64 MiB"), "{message}");
    assert_eq!(told(&upstream, "release").await, "answer done");
    assert_eq!(other.told().await, "answer released");
    upstreams.stop().await;
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let nowhere = process("/nowhere/at-all", &[], &[]);
    let ended = fake("broken").transport;
    let lost = Transport::Stdio {
        command: "cat".into(),
        args: Vec::new(),
        env: Vec::new(),
        cwd: Some(PathBuf::from("/nowhere")),
    };
    for (transport, code, words) in [
        (nowhere, "upstream-spawn-failed", "server `fake`: `/nowhere/at-all` could not be started"),
        (lost, "upstream-spawn-failed", "working directory /nowhere does not exist"),
        (ended, "upstream-spawn-failed", "(exit status: 7); its last words:\ncannot find my database"),
    ] {
        let (upstreams, upstream) = start(config(transport, Share::All));
        let unsent = upstream.tools(&caller("test")).await.expect_err(words);
        assert_eq!(unsent.code, code);
        assert!(unsent.message.contains(words), "{}", unsent.message);
        assert_eq!(told(&upstream, "echo").await, format!("unsent {code}"));
        upstreams.stop().await;
    }
}

#[tokio::test]
async fn a_mute_server_is_given_up_and_holds_up_nobody() {
    let mut good = fake("legacy");
    good.name = "good".into();
    let upstreams = Upstreams::start(&[fake("mute"), good]);
    let (mute, good) =
        (upstreams.get("fake").expect("configured"), upstreams.get("good").expect("configured"));
    let started = std::time::Instant::now();
    assert!(good.tools(&caller("test")).await.is_ok());
    assert!(started.elapsed() < Duration::from_secs(8));
    let unsent = mute.tools(&caller("test")).await.expect_err("it is mute");
    assert!(
        unsent.message.contains("server `fake`") && unsent.message.contains("thinking"),
        "{}",
        unsent.message
    );
    upstreams.stop().await;
}

#[tokio::test]
async fn children_that_ignore_sigterm_go_too() {
    let (upstreams, upstream) = start(fake("legacy"));
    let answer = told(&upstream, "fork").await;
    let pid = answer.strip_prefix("answer ").expect("an answer").parse().expect("a process id");
    assert_eq!(kill(Pid::from_raw(pid), None), Ok(()));
    upstreams.stop().await;
    // Killed, and at most waiting to be reaped by whoever adopts orphans here.
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    let is_zombie = state.is_ok_and(|state| state.contains(") Z "));
    assert!(is_zombie || kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH));
}

#[tokio::test]
async fn children_get_only_the_environment_that_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, done) = (dir.path().join("env"), dir.path().join("done"));
    let script = r#"env > "$OUT"; mv "$OUT" "$DONE""#;
    let env = [("OUT", file.to_str().expect("UTF-8")), ("DONE", done.to_str().expect("UTF-8"))];
    let (upstreams, upstream) = start(config(process("sh", &["-c", script], &env), Share::All));
    upstream.tools(&caller("test")).await.expect_err("it is no server");
    let text = std::fs::read_to_string(done).expect("the server ran");
    let names: BTreeSet<_> = text.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    let of_the_shell = ["PWD", "OLDPWD", "SHLVL", "_"];
    let documented = ["PATH", "HOME", "LANG", "TMPDIR", "USER", "SHELL", "TERM", "OUT", "DONE"];
    let is_allowed =
        |name: &str| name.starts_with("LC_") || of_the_shell.contains(&name) || documented.contains(&name);
    assert!(names.contains("PATH") && names.contains("OUT"), "{names:?}");
    assert!(names.iter().all(|name| is_allowed(name)), "{names:?}");
    let canary = std::env::vars().any(|(name, _)| !is_allowed(&name));
    assert!(canary, "this test sees nothing unless its own environment has more");
    upstreams.stop().await;
}

#[tokio::test]
async fn a_changed_list_is_read_again() {
    let (upstreams, upstream) = start(fake("legacy"));
    assert_eq!(upstream.tools(&caller("test")).await.expect("tools").len(), 2);
    let mut changed = upstreams.changed();
    changed.mark_unchanged();
    assert_eq!(told(&upstream, "grow").await, "answer done");
    timeout(PATIENCE, changed.changed()).await.expect("no hang").expect("it lives");
    assert!(upstream.tool_now("grown").is_some());
    upstreams.stop().await;
}

#[tokio::test]
async fn a_server_of_each_session_is_a_process_of_each_channel() {
    let mut own = fake("legacy");
    own.share = Share::Session;
    let (upstreams, upstream) = start(own);
    assert_eq!(upstream.health().state, HealthState::Idle);
    let mut pids = BTreeSet::new();
    for channel in ["a", "b", "a"] {
        let mut dispatch = call("pid");
        dispatch.caller = caller(channel);
        pids.insert(send(&upstream, dispatch).told().await);
    }
    assert_eq!(pids.len(), 2, "{pids:?}");
    upstreams.stop().await;
}

#[tokio::test]
async fn a_withdrawn_call_that_never_left_is_not_sent() {
    let (upstreams, upstream) = start(fake("legacy"));
    // The server is still starting, so nothing of this has left.
    let mut heard = send(&upstream, call("echo"));
    heard.flight.cancel("changed my mind");
    assert_eq!(heard.told().await, "unsent upstream-unreachable");
    assert!(heard.flight.gone());
    upstreams.stop().await;
}

#[tokio::test]
async fn what_the_pipe_did_not_take_was_not_sent() {
    let dir = tempfile::tempdir().expect("a directory");
    let until = dir.path().join("die");
    let (upstreams, upstream) = start(fake("legacy"));
    upstream.tools(&caller("test")).await.expect("tools");
    let mut deaf = call("deaf");
    deaf.arguments = Text::of(&serde_json::json!({"until": until}));
    let mut deaf = send(&upstream, deaf);
    let mut large = call("echo");
    large.arguments = Text::of(&serde_json::json!({"text": "x".repeat(1024 * 1024)}));
    let mut begun = send(&upstream, large);
    let (mut queued, mut withdrawn) = (send(&upstream, call("echo")), send(&upstream, call("echo")));
    withdrawn.flight.cancel("changed my mind");
    assert_eq!(withdrawn.told().await, "unsent upstream-unreachable");
    std::fs::write(&until, "").expect("the directory exists");
    assert_eq!(deaf.told().await, "lost Disconnected");
    assert_eq!(begun.told().await, "lost Disconnected");
    assert_eq!(queued.told().await, "unsent upstream-unreachable");
    assert!(told(&upstream, "pid").await.starts_with("answer"));
    upstreams.stop().await;
}

#[tokio::test]
async fn only_what_nobody_uses_is_swept() {
    let mut own = fake("legacy");
    own.share = Share::Principal;
    let (upstreams, upstream) = start(own);
    let first = told(&upstream, "pid").await;
    let mut waiting = send(&upstream, call("hold"));
    upstream.sweep(Duration::ZERO).await;
    assert_eq!(told(&upstream, "release").await, "answer done");
    assert_eq!(waiting.told().await, "answer released");
    upstream.sweep(Duration::ZERO).await;
    assert_eq!(upstream.health().state, HealthState::Idle);
    assert_ne!(told(&upstream, "pid").await, first);
    upstreams.stop().await;
}

#[tokio::test]
async fn an_answer_that_comes_right_after_the_end_of_the_process_counts() {
    let (upstreams, upstream) = start(fake("legacy"));
    let mut waiting = send(&upstream, call("hold"));
    assert_eq!(told(&upstream, "heir").await, "answer from the heir");
    // The heir holds the pipe open and never says more: it does not keep the others waiting.
    assert_eq!(waiting.told().await, "lost Disconnected");
    assert!(told(&upstream, "pid").await.starts_with("answer"));
    upstreams.stop().await;
}
