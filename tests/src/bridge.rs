//! An agent over standard input and output of `holdfast stdio`, or of anything else that speaks MCP there.

use std::{
    collections::VecDeque,
    io::Write,
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Map, Value, json};

use crate::{
    answer::Answer,
    patience::PATIENCE,
    process::{end_group, end_within, lines},
};

/// A running bridge and the agent's end of its pipes.
pub struct Bridge {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    /// Messages that came while another one was waited for.
    kept: VecDeque<Value>,
    modern: bool,
    next_id: i64,
    /// How long its silence is borne.
    pub patience: Duration,
}

impl Bridge {
    /// Starts `command` and says nothing yet, as a modern client.
    pub fn modern(command: &mut Command) -> Bridge {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().expect("the program starts");
        let lines = lines(child.stdout.take().expect("stdout is piped"));
        let (stdin, kept) = (child.stdin.take(), VecDeque::new());
        Bridge { child, stdin, lines, kept, modern: true, next_id: 0, patience: PATIENCE }
    }

    /// Starts `command` and shakes hands, as a client of 2025-11-25.
    pub fn legacy(command: &mut Command) -> Bridge {
        Self::legacy_that_can(command, json!({}))
    }

    /// The same with these capabilities.
    pub fn legacy_that_can(command: &mut Command, capabilities: Value) -> Bridge {
        let mut bridge = Self::modern(command);
        bridge.modern = false;
        let info = json!({ "name": "e2e", "version": "1" });
        let params =
            json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": info });
        let answer = bridge.request("initialize", params);
        assert_eq!(answer.result()["protocolVersion"], "2025-11-25");
        bridge.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        bridge
    }

    /// Stops the bridge where it is, as a laptop that is shut.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().try_into().expect("process ids fit");
        kill(Pid::from_raw(pid), signal).expect("it is our child");
    }

    /// Sends a request; returns its id.
    pub fn ask(&mut self, method: &str, mut params: Value) -> i64 {
        self.next_id += 1;
        if self.modern {
            let mut meta = params["_meta"].as_object().cloned().unwrap_or_else(Map::new);
            let prefix = "io.modelcontextprotocol/";
            meta.insert(format!("{prefix}protocolVersion"), "2026-07-28".into());
            meta.insert(format!("{prefix}clientCapabilities"), json!({}));
            meta.insert(format!("{prefix}clientInfo"), json!({ "name": "e2e", "version": "1" }));
            params["_meta"] = meta.into();
        }
        self.send(&json!({ "jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params }));
        self.next_id
    }

    /// Calls a tool; returns the request's id.
    pub fn ask_tool(&mut self, tool: &str, arguments: Value) -> i64 {
        self.ask("tools/call", json!({ "name": tool, "arguments": arguments }))
    }

    /// Calls a tool and waits for its answer.
    pub fn call(&mut self, tool: &str, arguments: Value) -> Answer {
        let id = self.ask_tool(tool, arguments);
        self.answer(id)
    }

    /// Sends a request and waits for its answer.
    pub fn request(&mut self, method: &str, params: Value) -> Answer {
        let id = self.ask(method, params);
        self.answer(id)
    }

    /// Waits for the answer to this request. Other messages are kept.
    pub fn answer(&mut self, id: i64) -> Answer {
        Answer(self.wait_for(|message| message["id"] == id))
    }

    /// Waits for the answer that is meant. Other messages are kept.
    pub fn answer_where(&mut self, meant: impl Fn(&Value) -> bool) -> Answer {
        Answer(self.wait_for(meant))
    }

    /// Waits for a notification of this kind. Other messages are kept.
    pub fn notification(&mut self, method: &str) -> Value {
        self.wait_for(|message| message["method"] == method)
    }

    /// Everything else that has come so far, in order.
    pub fn kept(&self) -> impl Iterator<Item = &Value> {
        self.kept.iter()
    }

    /// `notifications/cancelled`.
    pub fn cancel(&mut self, id: i64) {
        let params = json!({ "requestId": id, "reason": "e2e" });
        self.send(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params }));
    }

    /// Sends a message as it is.
    pub fn send(&mut self, message: &Value) {
        self.send_line(&message.to_string());
    }

    /// Sends a line that need not be a message.
    pub fn send_line(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().expect("stdin is open"), "{line}").expect("the bridge reads");
    }

    /// Closes its input, and returns how it ended.
    ///
    /// # Panics
    /// Where it does not end within [`PATIENCE`].
    pub fn finish(mut self) -> ExitStatus {
        self.stdin = None;
        end_within(&mut self.child, PATIENCE).expect("it ends with its input")
    }

    /// Ends the agent and its bridge at once.
    pub fn kill(mut self) {
        end_group(&mut self.child);
    }

    fn wait_for(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.kept.iter().position(&wanted) {
            return self.kept.remove(at).expect("it was just found");
        }
        loop {
            let message = self.next();
            if wanted(&message) {
                return message;
            }
            self.kept.push_back(message);
        }
    }

    fn next(&mut self) -> Value {
        match self.lines.recv_timeout(self.patience) {
            Ok(line) => {
                serde_json::from_str(&line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"))
            }
            Err(RecvTimeoutError::Disconnected) => panic!("the bridge ended; kept: {:?}", self.kept),
            Err(RecvTimeoutError::Timeout) => panic!("the bridge is silent; kept: {:?}", self.kept),
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        end_group(&mut self.child);
    }
}
