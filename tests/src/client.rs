//! A client that can do all of MCP, in either era, over HTTP or standard input and output: nothing is hidden from it.

use std::{
    collections::{HashMap, VecDeque},
    io::Write,
    net::{Shutdown, TcpStream},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json, value::RawValue};

use crate::{
    http::Connection,
    patience::PATIENCE,
    process::{end_group, lines},
};

const META: &str = "io.modelcontextprotocol/";

/// Which family of revisions it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// 2025-11-25, with a session.
    Legacy,
    /// 2026-07-28.
    Modern,
}

/// Where its server is.
pub enum Place<'a> {
    /// `HOST:PORT`, at the path `/mcp`.
    Http(&'a str),
    /// A program that speaks MCP on standard input and output.
    Stdio(&'a mut Command),
}

/// See the module.
pub struct Client {
    speaks: Speaks,
    way: Way,
    /// What it says it can do, in the modern requests to come.
    pub capabilities: Value,
    /// What a server is told that asks, by the method.
    replies: HashMap<String, Value>,
    /// Sent with each request over HTTP, besides what must be.
    pub headers: Vec<(String, String)>,
    inbox: Receiver<String>,
    sender: Sender<String>,
    kept: VecDeque<String>,
    next_id: i64,
    /// What the server said at the beginning: the result of `initialize` or `server/discover`.
    pub hello: Value,
}

/// Connections that wait for the next request, as those of real clients do.
type Idle = Arc<Mutex<Vec<Connection>>>;

enum Way {
    Http { address: String, session: Option<String>, open: HashMap<i64, TcpStream>, idle: Idle },
    Stdio { child: Child, stdin: Option<ChildStdin> },
}

/// A request with everything that happened until its answer.
#[derive(Debug)]
pub struct Exchange {
    /// The answer, whole; null where it holds what no Rust string can.
    pub answer: Value,
    /// The same as it was written.
    pub text: String,
    /// Notifications that came meanwhile.
    pub said: Vec<Value>,
    /// What the server asked meanwhile: `method` and `params`.
    pub asked: Vec<Value>,
}

impl Exchange {
    /// The result.
    ///
    /// # Panics
    /// Where it is an error.
    #[track_caller]
    pub fn result(&self) -> &Value {
        assert!(self.answer["result"].is_object(), "{}", self.text);
        &self.answer["result"]
    }

    /// The text of the first content block.
    #[track_caller]
    pub fn words(&self) -> &str {
        self.result()["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {}", self.text))
    }

    /// The notifications of this kind.
    pub fn said(&self, method: &str) -> Vec<&Value> {
        self.said.iter().filter(|message| message["method"] == method).map(|m| &m["params"]).collect()
    }
}

impl Client {
    /// Connects and shakes hands.
    pub fn connect(place: Place<'_>, speaks: Speaks, capabilities: Value) -> Client {
        let (sender, inbox) = channel();
        let way = match place {
            Place::Http(address) => Way::Http {
                address: address.to_owned(),
                session: None,
                open: HashMap::new(),
                idle: Idle::default(),
            },
            Place::Stdio(command) => {
                // Servers of others would make the stderr that they share with us non-blocking, and ours would lose lines.
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
                let mut child = command.spawn().expect("the program starts");
                let said = lines(child.stdout.take().expect("stdout is piped"));
                let inbox = sender.clone();
                thread::spawn(move || said.into_iter().try_for_each(|line| inbox.send(line)));
                Way::Stdio { stdin: child.stdin.take(), child }
            }
        };
        let mut client = Client {
            speaks,
            way,
            capabilities,
            replies: HashMap::new(),
            headers: Vec::new(),
            inbox,
            sender,
            kept: VecDeque::new(),
            next_id: 0,
            hello: Value::Null,
        };
        client.hello = client.greet();
        client
    }

    fn greet(&mut self) -> Value {
        if self.speaks == Speaks::Modern {
            return self.request("server/discover", json!({})).result().clone();
        }
        let info = json!({ "name": "client", "version": "1" });
        let params = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": self.capabilities,
            "clientInfo": info,
        });
        let hello = self.request("initialize", params).result().clone();
        assert_eq!(hello["protocolVersion"], "2025-11-25");
        self.notify("notifications/initialized", json!({}));
        if let Way::Http { address, session: Some(session), .. } = &self.way {
            let mut connection = Connection::open(address).patient();
            let headers = [("Mcp-Session-Id", session.as_str()), ("Accept", "text/event-stream")];
            connection.send("GET", "/mcp", &headers, b"");
            let inbox = self.sender.clone();
            // Where a server has no such stream there is nothing to read.
            thread::spawn(move || read(connection, &inbox, None));
        }
        hello
    }

    /// From now on a server that asks this way is told this result.
    pub fn reply_with(&mut self, method: &str, result: Value) {
        self.replies.insert(method.to_owned(), result);
    }

    /// Sends a request; returns its id.
    pub fn ask(&mut self, method: &str, params: Value) -> i64 {
        self.ask_text(method, &params.to_string())
    }

    /// Sends a request whose parameters are this text, an object.
    pub fn ask_text(&mut self, method: &str, params: &str) -> i64 {
        self.next_id += 1;
        let id = self.next_id;
        let params = if self.speaks == Speaks::Modern { self.with_meta(params) } else { params.to_owned() };
        self.post(
            method,
            &format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#),
            Some(id),
        );
        id
    }

    /// Adds what each request of 2026-07-28 has, and leaves the rest as it is written.
    fn with_meta(&self, params: &str) -> String {
        let members: Vec<(String, String)> = members(params);
        let theirs = members.iter().find(|(name, _)| name == "_meta").map(|(_, text)| text.as_str());
        let mut meta: Map<String, Value> =
            theirs.map(|text| serde_json::from_str(text).expect("_meta can be read")).unwrap_or_default();
        meta.insert(format!("{META}protocolVersion"), "2026-07-28".into());
        meta.insert(format!("{META}clientCapabilities"), self.capabilities.clone());
        meta.insert(format!("{META}clientInfo"), json!({ "name": "client", "version": "1" }));
        let rest = members.iter().filter(|(name, _)| name != "_meta");
        let rest: String =
            rest.map(|(name, text)| format!("{}:{text},", Value::from(name.as_str()))).collect();
        format!(r#"{{{rest}"_meta":{}}}"#, Value::from(meta))
    }

    /// Sends a notification.
    pub fn notify(&mut self, method: &str, params: Value) {
        let message = json!({ "jsonrpc": "2.0", "method": method, "params": params });
        self.post(method, &message.to_string(), None);
    }

    /// Answers what the server asks by its request of this id.
    pub fn respond(&mut self, id: &Value, result: Value) {
        let reply = json!({ "jsonrpc": "2.0", "id": id, "result": result });
        self.post("", &reply.to_string(), None);
    }

    /// Takes a request back, as this era and transport do that.
    pub fn cancel(&mut self, id: i64) {
        if let (Speaks::Modern, Way::Http { open, .. }) = (self.speaks, &mut self.way) {
            let stream = open.remove(&id).expect("it was asked");
            stream.shutdown(Shutdown::Both).expect("it is open");
        } else {
            self.notify("notifications/cancelled", json!({ "requestId": id, "reason": "a test" }));
        }
    }

    /// Sends a request and does what the server asks for until there is an answer.
    pub fn request(&mut self, method: &str, params: Value) -> Exchange {
        let id = self.ask(method, params.clone());
        self.finish(id, method, params)
    }

    /// Calls a tool.
    pub fn call(&mut self, tool: &str, arguments: Value) -> Exchange {
        self.request("tools/call", json!({ "name": tool, "arguments": arguments }))
    }

    /// The same for a request that was sent before.
    pub fn finish(&mut self, mut id: i64, method: &str, mut params: Value) -> Exchange {
        let (mut said, mut asked) = (Vec::new(), Vec::new());
        loop {
            let text = self.next();
            let message: Value = serde_json::from_str(&text).unwrap_or_default();
            let said_to = member(&text, "id");
            // Whoever could not read a request does not know its id.
            let unread = said_to.as_deref() == Some("null") && message["error"].is_object();
            let is_answer =
                unread || said_to.as_deref() == Some(&id.to_string()) && member(&text, "method").is_none();
            if !is_answer {
                match &message["method"] {
                    Value::String(question) if message.get("id").is_some() => {
                        asked.push(json!({ "method": question, "params": message["params"] }));
                        let result = self.reply(question);
                        self.respond(&message["id"], result);
                    }
                    _ => said.push(message),
                }
                continue;
            }
            let result = &message["result"];
            if result["resultType"] != "input_required" {
                return Exchange { answer: message, text, said, asked };
            }
            let mut replies = Map::new();
            for (name, question) in result["inputRequests"].as_object().into_iter().flatten() {
                asked.push(json!({ "method": question["method"], "params": question["params"] }));
                replies.insert(name.clone(), self.reply(question["method"].as_str().unwrap_or_default()));
            }
            params["inputResponses"] = replies.into();
            params.as_object_mut().expect("params are an object").remove("requestState");
            if let Some(state) = result.get("requestState") {
                params["requestState"] = state.clone();
            }
            id = self.ask(method, params.clone());
        }
    }

    fn reply(&self, method: &str) -> Value {
        self.replies.get(method).cloned().unwrap_or_else(|| panic!("nobody expected {method}"))
    }

    /// Waits for a message that is meant; others are kept.
    ///
    /// # Panics
    /// Where none comes within [`PATIENCE`].
    pub fn wait_for(&mut self, meant: impl Fn(&Value) -> bool) -> Value {
        let parse = |text: &String| serde_json::from_str(text).unwrap_or(Value::Null);
        if let Some(at) = self.kept.iter().position(|text| meant(&parse(text))) {
            return parse(&self.kept.remove(at).expect("it was just found"));
        }
        loop {
            let text = self.inbox.recv_timeout(PATIENCE);
            let text = text.unwrap_or_else(|_| panic!("it does not come; kept: {:#?}", self.kept));
            let message = parse(&text);
            if meant(&message) {
                return message;
            }
            self.kept.push_back(text);
        }
    }

    /// Everything that came so far and was not waited for, and what comes within this time.
    pub fn rest(&mut self, time: Duration) -> Vec<Value> {
        while let Ok(text) = self.inbox.recv_timeout(time) {
            self.kept.push_back(text);
        }
        self.kept.drain(..).map(|text| serde_json::from_str(&text).unwrap_or_default()).collect()
    }

    fn next(&mut self) -> String {
        if let Some(text) = self.kept.pop_front() {
            return text;
        }
        self.inbox.recv_timeout(PATIENCE).expect("the server says something")
    }

    fn post(&mut self, method: &str, message: &str, id: Option<i64>) {
        let headers = self.fields(method, message);
        match &mut self.way {
            Way::Stdio { stdin, .. } => {
                writeln!(stdin.as_mut().expect("stdin is open"), "{message}").expect("the server reads");
            }
            Way::Http { address, session, open, idle } => {
                let reused = lock(idle).pop();
                let mut connection = reused.unwrap_or_else(|| Connection::open(address).patient());
                let headers: Vec<_> =
                    headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                connection.send("POST", "/mcp", &headers, message.as_bytes());
                let Some(id) = id else {
                    let response = connection.response();
                    assert_eq!(response.status(), 202, "{}", response.body);
                    lock(idle).push(connection);
                    return;
                };
                open.insert(id, connection.handle());
                if method == "initialize" {
                    let response = connection.response();
                    *session = response.head.header("mcp-session-id").map(str::to_owned);
                    self.sender.send(response.body).expect("we receive");
                    lock(idle).push(connection);
                    return;
                }
                let (inbox, idle) = (self.sender.clone(), idle.clone());
                thread::spawn(move || read(connection, &inbox, Some((id, idle))));
            }
        }
    }

    fn fields(&self, method: &str, message: &str) -> Vec<(String, String)> {
        let mut fields = vec![
            ("Content-Type", "application/json".to_owned()),
            ("Accept", "application/json, text/event-stream".to_owned()),
        ];
        match (self.speaks, &self.way) {
            (Speaks::Modern, _) => {
                fields.push(("MCP-Protocol-Version", "2026-07-28".to_owned()));
                fields.push(("Mcp-Method", method.to_owned()));
                let params = member(message, "params").unwrap_or_default();
                let names = ["name", "uri", "taskId"].map(|name| member(&params, name));
                if let Some(Ok(name)) =
                    names.into_iter().flatten().next().map(|text| serde_json::from_str::<String>(&text))
                {
                    let plain = name.bytes().all(|byte| matches!(byte, 0x21..=0x7e));
                    let coded = || format!("=?base64?{}?=", STANDARD.encode(&name));
                    fields.push(("Mcp-Name", if plain { name.clone() } else { coded() }));
                }
            }
            (Speaks::Legacy, Way::Http { session: Some(session), .. }) => {
                fields.push(("MCP-Protocol-Version", "2025-11-25".to_owned()));
                fields.push(("Mcp-Session-Id", session.clone()));
            }
            _ => {}
        }
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value));
        fields.chain(self.headers.iter().cloned()).collect()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Way::Stdio { child, stdin } = &mut self.way {
            *stdin = None;
            end_group(child);
        }
    }
}

fn lock(idle: &Idle) -> std::sync::MutexGuard<'_, Vec<Connection>> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Passes on what comes on a response: one message, or a stream of them. An answer that never comes is an error, and a
/// connection whose response is over goes where the next request finds it.
fn read(mut connection: Connection, inbox: &Sender<String>, request: Option<(i64, Idle)>) {
    let Some(mut head) = connection.try_head() else { return };
    let (mut buffer, mut last) = (Vec::new(), None);
    // Whoever does not receive any more has what it wanted.
    let pass = |text: String| drop(inbox.send(text));
    while let Some(part) = connection.part(&mut head) {
        buffer.extend(part);
        while head.is_event_stream()
            && let Some(end) = buffer.windows(2).position(|two| two == b"\n\n")
        {
            let event: Vec<u8> = buffer.drain(..end + 2).collect();
            let event = String::from_utf8(event).expect("UTF-8");
            let data: Vec<&str> = event.lines().filter_map(|line| line.strip_prefix("data:")).collect();
            let data = data.join("\n").trim_start().to_owned();
            if member(&data, "method").is_some() {
                pass(data);
            } else if !data.is_empty() {
                last = Some(data);
            }
        }
    }
    if !head.is_event_stream() && !buffer.is_empty() {
        last = Some(String::from_utf8(buffer).expect("UTF-8"));
    }
    if let Some((id, idle)) = request {
        let status = head.status;
        if head.is_over() {
            lock(&idle).push(connection);
        }
        // Only now, so that the next request finds the connection.
        pass(last.unwrap_or_else(|| {
            let message = format!("the response ended without an answer ({status})");
            json!({ "jsonrpc": "2.0", "id": id, "error": { "code": 0, "message": message } }).to_string()
        }));
    }
}

/// The members of an object, as they are written.
pub fn members(object: &str) -> Vec<(String, String)> {
    // A map would be enough but for the order.
    let map: serde_json::Map<String, Value> = serde_json::from_str(object).unwrap_or_default();
    let texts: HashMap<String, &RawValue> = serde_json::from_str(object).unwrap_or_default();
    let mut names: Vec<String> = map.keys().cloned().collect();
    names.extend(texts.keys().filter(|name| !map.contains_key(*name)).cloned());
    names.into_iter().map(|name| (name.clone(), texts[&name].get().to_owned())).collect()
}

/// One member, as it is written.
pub fn member(object: &str, name: &str) -> Option<String> {
    let texts: HashMap<String, &RawValue> = serde_json::from_str(object).ok()?;
    texts.get(name).map(|text| text.get().to_owned())
}
