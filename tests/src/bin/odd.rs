//! An MCP server that does what its story says: `odd DIR [--http | --stubborn]`.
//!
//! | file in DIR | is |
//! |---|---|
//! | `tools.json` | the tools, word for word; read at each `tools/list` |
//! | `script.json` | optional: for a tool's name what its calls come to, see [`Part`]; read at each call |
//! | `odd.log` | written: what it was started with, then each message with its headers, one JSON value per line |
//!
//! The tool `announce` says that the list of tools has changed. Calls without a part come to `done`.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use serde_json::{Map, Value, json};

/// What a call comes to.
struct Part {
    /// `{"result": ...}` or `{"error": ...}`.
    outcome: Value,
    /// Over HTTP: a status other than 200 comes with an empty body, and with `retry_after` seconds.
    status: u64,
    retry_after: Option<u64>,
}

struct Odd {
    directory: PathBuf,
    log: Mutex<fs::File>,
    /// How often each tool was called in this life.
    calls: Mutex<HashMap<String, u64>>,
}

fn main() {
    let mut args = std::env::args().skip(1);
    let directory = PathBuf::from(args.next().expect("odd DIR"));
    let mode = args.next().unwrap_or_default();
    let log = fs::OpenOptions::new().create(true).append(true).open(directory.join("odd.log"));
    let log = Mutex::new(log.expect("the directory can be written"));
    let odd = Arc::new(Odd { directory, log, calls: Mutex::default() });
    let variables: Map<String, Value> =
        std::env::vars().map(|(name, value)| (name, Value::from(value))).collect();
    odd.note(&json!({ "started": std::process::id(), "env": variables }));
    match mode.as_str() {
        "--http" => odd.listen(),
        "--stubborn" => odd.stay(),
        _ => odd.read_lines(),
    }
}

impl Odd {
    fn note(&self, line: &Value) {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(log, "{line}").expect("the directory can be written");
    }

    /// Serves standard input until it ends.
    fn read_lines(&self) {
        for line in std::io::stdin().lines() {
            let message: Value = serde_json::from_str(&line.expect("UTF-8")).expect("a message");
            self.note(&json!({ "message": message }));
            let mut out = std::io::stdout().lock();
            if message["params"]["name"] == "announce" {
                let change = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" });
                writeln!(out, "{change}").expect("somebody reads");
            }
            if let Some(answer) = self.answer(&message) {
                writeln!(out, "{}", answer.outcome).expect("somebody reads");
            }
            out.flush().expect("somebody reads");
        }
    }

    /// Serves; when its input ends it stays, because its child does, and only SIGKILL ends that.
    fn stay(&self) {
        let mut child = Command::new("sh");
        child.args(["-c", "trap '' TERM HUP INT; while :; do sleep 1; done"]);
        child.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        let mut child = child.spawn().expect("there is a shell");
        self.note(&json!({ "child": child.id() }));
        self.read_lines();
        child.wait().expect("it is our child");
    }

    /// Serves HTTP at a port of the kernel's choice.
    fn listen(self: Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("it listens");
        println_flushed(&format!("odd http://{address}/mcp"));
        for stream in listener.incoming() {
            let odd = self.clone();
            thread::spawn(move || odd.converse(stream.expect("a connection")));
        }
    }

    fn converse(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        while let Some((method, headers, body)) = read_request(&mut reader) {
            let response = if method == "POST" {
                let message: Value = serde_json::from_slice(&body).expect("a message");
                self.note(&json!({ "headers": headers, "message": message }));
                match self.answer(&message) {
                    None => http(202, "", ""),
                    Some(Part { outcome, status: 200, .. }) => http(200, "", &outcome.to_string()),
                    Some(Part { status, retry_after, .. }) => {
                        let retry = retry_after.map(|s| format!("Retry-After: {s}\r\n")).unwrap_or_default();
                        http(status, &retry, "")
                    }
                }
            } else {
                http(405, "", "")
            };
            if reader.get_mut().write_all(response.as_bytes()).is_err() {
                return;
            }
        }
    }

    /// None for notifications.
    fn answer(&self, message: &Value) -> Option<Part> {
        let id = message.get("id")?;
        let mut part = match message["method"].as_str().unwrap_or_default() {
            "initialize" => plain(json!({ "result": {
                "protocolVersion": message["params"]["protocolVersion"],
                "capabilities": { "tools": { "listChanged": true } },
                "serverInfo": { "name": "odd", "version": "1" },
            } })),
            "ping" => plain(json!({ "result": {} })),
            "tools/list" => {
                plain(json!({ "result": { "tools": self.file("tools.json").unwrap_or(json!([])) } }))
            }
            "tools/call" => self.part(message["params"]["name"].as_str().unwrap_or_default()),
            _ => plain(json!({ "error": { "code": -32601, "message": "Method not found" } })),
        };
        let mut whole = Map::from_iter([("jsonrpc".to_owned(), "2.0".into()), ("id".to_owned(), id.clone())]);
        whole.extend(part.outcome.as_object().cloned().unwrap_or_default());
        part.outcome = whole.into();
        Some(part)
    }

    fn part(&self, tool: &str) -> Part {
        let number = {
            let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
            let calls = calls.entry(tool.to_owned()).or_default();
            *calls += 1;
            *calls
        };
        let script = self.file("script.json").unwrap_or_default();
        let part = &script[tool];
        let over = part["times"].as_u64().is_some_and(|times| number > times);
        if part.is_null() || over {
            return plain(json!({ "result": { "content": [{ "type": "text", "text": "done" }] } }));
        }
        if let Some(ms) = part["sleep_ms"].as_u64() {
            thread::sleep(Duration::from_millis(ms));
        }
        let outcome = part.as_object().expect("a part is an object").iter();
        let outcome = outcome.filter(|(name, _)| matches!(name.as_str(), "result" | "error"));
        Part {
            outcome: Value::Object(outcome.map(|(name, value)| (name.clone(), value.clone())).collect()),
            status: part["status"].as_u64().unwrap_or(200),
            retry_after: part["retry_after"].as_u64(),
        }
    }

    fn file(&self, name: &str) -> Option<Value> {
        let text = fs::read_to_string(self.directory.join(name)).ok()?;
        Some(serde_json::from_str(&text).expect("the story writes JSON"))
    }
}

fn plain(outcome: Value) -> Part {
    Part { outcome, status: 200, retry_after: None }
}

/// Method, headers with lower-case names, body; none at the end of the connection.
fn read_request(reader: &mut BufReader<TcpStream>) -> Option<(String, Value, Vec<u8>)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let method = line.split(' ').next().unwrap_or_default().to_owned();
    let mut headers = Map::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().into());
    }
    let length = headers.get("content-length").and_then(|length| length.as_str()?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((method, headers.into(), body))
}

fn http(status: u64, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Odd\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

fn println_flushed(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("somebody reads");
}
