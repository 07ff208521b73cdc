//! A bank in a directory of its own, and a client that hides nothing.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

/// Longer than anything here takes; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory with a ledger and a faults file, which outlives the banks in it.
pub(crate) struct World {
    directory: TempDir,
}

impl World {
    pub(crate) fn new() -> World {
        World { directory: tempfile::tempdir().expect("a temporary directory") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `bank ARGS` in this directory and with an empty environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bank"));
        command.args(args).current_dir(self.directory.path()).env_clear();
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().expect("the binary runs")
    }

    /// A bank over stdio that reads `faults` and has shaken hands in the legacy way.
    pub(crate) fn bank(&self, args: &[&str]) -> Bank {
        Bank::start(self.command(&["--faults", "faults"]).args(args)).introduced()
    }

    /// Renamed into place, so that no call reads half of it.
    pub(crate) fn fault(&self, line: &str) {
        std::fs::write(self.path("faults.new"), line).expect("the directory is ours");
        std::fs::rename(self.path("faults.new"), self.path("faults")).expect("the directory is ours");
    }

    pub(crate) fn write_ledger(&self, text: &str) {
        std::fs::write(self.path("ledger.jsonl"), text).expect("the directory is ours");
    }

    pub(crate) fn ledger(&self) -> String {
        std::fs::read_to_string(self.path("ledger.jsonl")).expect("the bank creates its ledger")
    }

    /// What `bank ledger --json` says.
    pub(crate) fn statement(&self) -> Value {
        let output = self.run(&["ledger", "--json"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("--json prints JSON")
    }

    pub(crate) fn count(&self) -> u64 {
        self.statement()["count"].as_u64().expect("a count")
    }

    /// Returns once the ledger has this many transfers.
    pub(crate) fn await_count(&self, expected: u64) {
        let begun = std::time::Instant::now();
        while self.count() != expected {
            assert!(begun.elapsed() < PATIENCE, "still {} transfers", self.count());
        }
    }
}

/// A running bank and the client's end of its pipes.
pub(crate) struct Bank {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    next_id: i64,
}

impl Bank {
    pub(crate) fn start(command: &mut Command) -> Bank {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the binary runs");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Bank { stdin: child.stdin.take(), child, lines, next_id: 0 }
    }

    fn introduced(mut self) -> Bank {
        let client = json!({ "name": "test", "version": "1" });
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
        let answer = self.request("initialize", params);
        assert_eq!(answer["result"]["serverInfo"]["name"], "bank", "{answer}");
        self.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        self
    }

    /// Sends a request and returns its id.
    pub(crate) fn ask(&mut self, method: &str, params: Value) -> i64 {
        self.next_id += 1;
        self.send(&json!({ "jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params }));
        self.next_id
    }

    pub(crate) fn ask_tool(&mut self, name: &str, arguments: Value) -> i64 {
        self.ask("tools/call", json!({ "name": name, "arguments": arguments }))
    }

    /// Sends a request and returns the next line, which must be its answer.
    pub(crate) fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.ask(method, params);
        let answer = self.answer();
        assert_eq!(answer["id"], id, "{answer}");
        answer
    }

    /// The `result` of a tool call.
    pub(crate) fn call(&mut self, name: &str, arguments: Value) -> Value {
        let answer = self.request("tools/call", json!({ "name": name, "arguments": arguments }));
        assert!(answer["result"].is_object(), "{answer}");
        answer["result"].clone()
    }

    /// Pays 40 from alice to shop.
    pub(crate) fn pay(&mut self, reference: &str) -> Value {
        self.call("transfer", payment(reference))
    }

    pub(crate) fn cancel(&mut self, id: i64) {
        let params = json!({ "requestId": id, "reason": "test" });
        self.send(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params }));
    }

    pub(crate) fn send(&mut self, message: &Value) {
        writeln!(self.stdin.as_mut().expect("stdin is open"), "{message}").expect("the bank reads");
    }

    /// The next line; `None` when there are no more.
    pub(crate) fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the bank is silent"),
        }
    }

    pub(crate) fn answer(&self) -> Value {
        serde_json::from_str(&self.line().expect("an answer")).expect("an answer is JSON")
    }

    /// Closes its input and returns what it still had to say.
    pub(crate) fn finish(mut self) -> (ExitStatus, Vec<String>) {
        self.stdin = None;
        let rest = std::iter::from_fn(|| self.line()).collect();
        (self.child.wait().expect("our child"), rest)
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        // Already gone in most tests.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn payment(reference: &str) -> Value {
    json!({ "from": "alice", "to": "shop", "amount": 40, "reference": reference })
}

/// The one text block of a tool's result.
pub(crate) fn text(result: &Value) -> &str {
    assert_eq!(result["content"].as_array().map(Vec::len), Some(1), "{result}");
    result["content"][0]["text"].as_str().expect("a text block")
}
