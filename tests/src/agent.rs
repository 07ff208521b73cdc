//! An agent over HTTP, in both eras of the protocol.

use serde_json::{Map, Value, json};

use crate::{
    answer::Answer,
    http::{Connection, Head},
    process::Served,
};

/// How the agent speaks.
#[derive(Clone, Debug, PartialEq)]
pub enum Era {
    /// 2026-07-28: everything in each request.
    Modern,
    /// 2025-11-25, within this session.
    Legacy {
        /// `Mcp-Session-Id`.
        session: String,
    },
}

/// One agent. Its calls go over one connection, unless they are asked for and left open.
pub struct Agent {
    address: String,
    era: Era,
    client: String,
    token: Option<String>,
    /// What it says it can do.
    capabilities: Value,
    /// Members of `_meta` for every call.
    meta: Map<String, Value>,
    headers: Vec<(String, String)>,
    connection: Option<Connection>,
    next_id: i64,
}

/// A request without its answer yet, on a connection of its own.
pub struct Asked {
    /// The id that the agent gave it.
    pub id: i64,
    connection: Connection,
    head: Option<Head>,
    /// Bytes of the event stream that make no whole event yet.
    buffer: String,
    /// The id of the last event that had one.
    last_event: String,
}

impl Agent {
    /// A client of 2026-07-28 with this name.
    pub fn modern(served: &Served, client: &str) -> Agent {
        Self::at(&served.mcp, Era::Modern, client, None)
    }

    /// The same with a token.
    pub fn with_token(served: &Served, client: &str, token: &str) -> Agent {
        Self::at(&served.mcp, Era::Modern, client, Some(token))
    }

    /// A client of 2025-11-25 that has shaken hands.
    pub fn legacy(served: &Served, client: &str) -> Agent {
        Self::legacy_that_can(served, client, json!({}))
    }

    /// The same with these capabilities.
    pub fn legacy_that_can(served: &Served, client: &str, capabilities: Value) -> Agent {
        Self::legacy_of(served, client, "2025-11-25", capabilities)
    }

    /// The same of this version.
    pub fn legacy_of(served: &Served, client: &str, version: &str, capabilities: Value) -> Agent {
        let era = Era::Legacy { session: String::new() };
        let mut agent = Self::at(&served.mcp, era, client, None);
        let info = json!({ "name": client, "version": "1" });
        let params = json!({ "protocolVersion": version, "capabilities": capabilities, "clientInfo": info });
        let mut asked = agent.send("initialize", params, Map::new());
        let head = asked.head().clone();
        let session = head.header("mcp-session-id").expect("a session").to_owned();
        let (answer, connection) = asked.read();
        assert_eq!(answer.result()["protocolVersion"], version);
        agent.connection = Some(connection);
        agent.era = Era::Legacy { session };
        agent.notify("notifications/initialized", json!({}));
        agent
    }

    fn at(address: &str, era: Era, client: &str, token: Option<&str>) -> Agent {
        Agent {
            address: address.to_owned(),
            era,
            client: client.to_owned(),
            token: token.map(str::to_owned),
            capabilities: json!({}),
            meta: Map::new(),
            headers: Vec::new(),
            connection: None,
            next_id: 0,
        }
    }

    /// What it declares in the modern requests to come.
    #[must_use]
    pub fn that_can(mut self, capabilities: Value) -> Agent {
        self.capabilities = capabilities;
        self
    }

    /// Sets a member of `_meta` for the calls to come; `null` takes it away.
    #[must_use]
    pub fn meta(mut self, name: &str, value: impl Into<Value>) -> Agent {
        self.set_meta(name, value);
        self
    }

    /// Sets a member of `_meta` for the calls to come; `null` takes it away.
    pub fn set_meta(&mut self, name: &str, value: impl Into<Value>) {
        match value.into() {
            Value::Null => self.meta.remove(name),
            value => self.meta.insert(name.to_owned(), value),
        };
    }

    /// Adds a header to the requests to come.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Agent {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Calls a tool and waits for the answer, on the agent's usual connection.
    pub fn call(&mut self, tool: &str, arguments: Value) -> Answer {
        self.request("tools/call", json!({ "name": tool, "arguments": arguments }))
    }

    /// Calls a tool under an explicit key.
    pub fn call_as(&mut self, key: &str, tool: &str, arguments: Value) -> Answer {
        let meta = Map::from_iter([("io.holdfast/idempotency-key".to_owned(), key.into())]);
        self.on_usual_connection("tools/call", json!({ "name": tool, "arguments": arguments }), meta)
    }

    /// `holdfast_wait`.
    pub fn wait(&mut self, call: &str) -> Answer {
        self.call("holdfast_wait", json!({ "call_id": call, "timeout_s": 30 }))
    }

    /// The names that `tools/list` gives.
    pub fn tools(&mut self) -> Vec<String> {
        let list = self.request("tools/list", json!({}));
        let tools = list.result()["tools"].as_array().expect("a list").iter();
        tools.map(|tool| tool["name"].as_str().expect("a name").to_owned()).collect()
    }

    /// Sends a request and waits for the answer, on the agent's usual connection.
    pub fn request(&mut self, method: &str, params: Value) -> Answer {
        self.on_usual_connection(method, params, Map::new())
    }

    fn on_usual_connection(&mut self, method: &str, params: Value, meta: Map<String, Value>) -> Answer {
        let asked = self.send(method, params, meta);
        let (answer, connection) = asked.read();
        self.connection = Some(connection);
        answer
    }

    /// Gives the agent a new connection, as a pool would.
    pub fn reconnect(&mut self) {
        self.connection = None;
    }

    /// Speaks to this `serve` from now on, as if nothing had happened.
    pub fn move_to(&mut self, served: &Served) {
        self.address.clone_from(&served.mcp);
        self.connection = None;
    }

    /// Opens the session's notification stream.
    ///
    /// # Panics
    /// Where there is no session.
    pub fn listen(&self) -> Asked {
        self.get(None)
    }

    /// Goes on with the stream of this request after the event of this id.
    pub fn resume(&self, last_event: &str, id: i64) -> Asked {
        Asked { id, ..self.get(Some(last_event)) }
    }

    fn get(&self, last_event: Option<&str>) -> Asked {
        let Era::Legacy { session } = &self.era else { panic!("modern clients have no session") };
        let mut headers = vec![("Mcp-Session-Id", session.as_str()), ("Accept", "text/event-stream")];
        headers.extend(last_event.map(|id| ("Last-Event-ID", id)));
        let token = self.token.as_ref().map(|token| format!("Bearer {token}"));
        headers.extend(token.as_deref().map(|token| ("Authorization", token)));
        let mut connection = Connection::open(&self.address);
        connection.send("GET", "/mcp", &headers, b"");
        Asked { id: 0, connection, head: None, buffer: String::new(), last_event: String::new() }
    }

    /// Ends the session, as a legacy client does that goes away in an orderly manner.
    ///
    /// # Panics
    /// Where there is none.
    pub fn end_session(&mut self) {
        let Era::Legacy { session } = &self.era else { panic!("modern clients have no session") };
        let mut connection = Connection::open(&self.address);
        connection.send("DELETE", "/mcp", &[("Mcp-Session-Id", session)], b"");
        let response = connection.response();
        assert_eq!(response.status(), 204, "{}", response.body);
    }

    /// Calls a tool and does not wait.
    pub fn ask(&mut self, tool: &str, arguments: Value) -> Asked {
        self.ask_with(tool, arguments, json!({}))
    }

    /// Calls a tool under an explicit key and does not wait.
    pub fn ask_as(&mut self, key: &str, tool: &str, arguments: Value) -> Asked {
        self.ask_with(tool, arguments, json!({ "io.holdfast/idempotency-key": key }))
    }

    /// Calls a tool with these members of `_meta` and does not wait.
    pub fn ask_with(&mut self, tool: &str, arguments: Value, meta: Value) -> Asked {
        let usual = self.connection.take();
        let Value::Object(meta) = meta else { panic!("_meta is an object") };
        let asked = self.send("tools/call", json!({ "name": tool, "arguments": arguments }), meta);
        self.connection = usual;
        asked
    }

    /// Sends a request and does not wait.
    pub fn ask_for(&mut self, method: &str, params: Value) -> Asked {
        let usual = self.connection.take();
        let asked = self.send(method, params, Map::new());
        self.connection = usual;
        asked
    }

    /// Answers a request of the server's, on a connection of its own.
    pub fn reply(&mut self, id: &Value, result: Value) {
        let message = json!({ "jsonrpc": "2.0", "id": id, "result": result });
        let mut connection = Connection::open(&self.address);
        self.post(&mut connection, "", &message);
        let response = connection.response();
        assert_eq!(response.status(), 202, "{}", response.body);
    }

    /// Sends a notification on a connection of its own.
    pub fn notify(&mut self, method: &str, params: Value) {
        let message = json!({ "jsonrpc": "2.0", "method": method, "params": params });
        let mut connection = Connection::open(&self.address);
        self.post(&mut connection, method, &message);
        let response = connection.response();
        assert_eq!(response.status(), 202, "{}", response.body);
    }

    fn send(&mut self, method: &str, mut params: Value, meta: Map<String, Value>) -> Asked {
        self.next_id += 1;
        let mut all = if method == "tools/call" { self.meta.clone() } else { Map::new() };
        all.extend(meta);
        if self.era == Era::Modern {
            let version = "io.modelcontextprotocol/";
            all.insert(format!("{version}protocolVersion"), "2026-07-28".into());
            all.insert(format!("{version}clientCapabilities"), self.capabilities.clone());
            all.insert(format!("{version}clientInfo"), json!({ "name": self.client, "version": "1" }));
        }
        if !all.is_empty() {
            params["_meta"] = all.into();
        }
        let id = self.next_id;
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let mut connection = self.connection.take().unwrap_or_else(|| Connection::open(&self.address));
        self.post(&mut connection, method, &message);
        Asked { id, connection, head: None, buffer: String::new(), last_event: String::new() }
    }

    fn post(&self, connection: &mut Connection, method: &str, message: &Value) {
        let mut headers = vec![
            ("Content-Type", "application/json".to_owned()),
            ("Accept", "application/json, text/event-stream".to_owned()),
        ];
        match &self.era {
            Era::Modern => {
                headers.push(("MCP-Protocol-Version", "2026-07-28".to_owned()));
                headers.push(("Mcp-Method", method.to_owned()));
                let named = &message["params"];
                let named = ["name", "taskId", "uri"].iter().find_map(|member| named[*member].as_str());
                if let Some(name) = named {
                    headers.push(("Mcp-Name", name.to_owned()));
                }
            }
            Era::Legacy { session } if !session.is_empty() => {
                headers.push(("MCP-Protocol-Version", "2025-11-25".to_owned()));
                headers.push(("Mcp-Session-Id", session.clone()));
            }
            Era::Legacy { .. } => {}
        }
        if let Some(token) = &self.token {
            headers.push(("Authorization", format!("Bearer {token}")));
        }
        let own = headers.iter().map(|(name, value)| (*name, value.as_str()));
        let more = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let headers: Vec<(&str, &str)> = own.chain(more).collect();
        connection.send("POST", "/mcp", &headers, message.to_string().as_bytes());
    }
}

impl Asked {
    /// Waits for the answer. Notifications before it are passed over.
    pub fn answer(self) -> Answer {
        self.read().0
    }

    /// Waits for the answer to the request of this id. Everything before it is passed over.
    ///
    /// # Panics
    /// Where there is none.
    pub fn result_of(&mut self, id: i64) -> Answer {
        loop {
            let message = self.message().expect("an answer");
            if message["id"] == id && message.get("method").is_none() {
                return Answer(message);
            }
        }
    }

    /// Reads to the answer: what came before it, and the answer.
    ///
    /// # Panics
    /// Where there is none.
    pub fn to_its_end(mut self) -> (Vec<Value>, Value) {
        let mut before = Vec::new();
        loop {
            let message = self.message().expect("an answer");
            if message.get("id").is_some() {
                return (before, message);
            }
            before.push(message);
        }
    }

    /// Waits for the next notification, which must come before the answer.
    ///
    /// # Panics
    /// Where the answer comes first.
    pub fn notification(&mut self) -> Value {
        let message = self.message().expect("a notification");
        assert!(message.get("id").is_none(), "the answer came first: {message}");
        message
    }

    /// Waits for a request of the server's. Notifications before it are passed over.
    ///
    /// # Panics
    /// Where the answer comes first.
    pub fn question(&mut self) -> Value {
        loop {
            let message = self.message().expect("a request");
            if message.get("id").is_some() {
                assert!(message.get("method").is_some(), "the answer came first: {message}");
                return message;
            }
        }
    }

    /// Waits for the event that comes first and only says where the stream can be gone on with.
    ///
    /// # Panics
    /// Where something else comes first.
    pub fn primed(&mut self) -> String {
        assert!(self.head().is_event_stream());
        assert_eq!(self.event().expect("an event").trim(), "");
        assert_ne!(self.last_event, "");
        self.last_event.clone()
    }

    /// The id of the last event that was read.
    pub fn last_event(&self) -> &str {
        &self.last_event
    }

    /// Waits for the end of the response; true where no answer was in it.
    pub fn ends_without_answer(mut self) -> bool {
        while let Some(message) = self.message() {
            if message.get("id").is_some() {
                return false;
            }
        }
        true
    }

    /// The status of the response.
    pub fn status(mut self) -> u16 {
        self.head().status
    }

    /// Breaks the connection off, as an agent that crashed or lost its network.
    pub fn hang_up(self) {
        self.connection.break_off();
    }

    fn head(&mut self) -> &Head {
        if self.head.is_none() {
            self.head = Some(self.connection.head());
        }
        self.head.as_ref().expect("it was just read")
    }

    fn read(mut self) -> (Answer, Connection) {
        loop {
            let message = self.message().expect("an answer");
            if message.get("id").is_some() {
                assert_eq!(message["id"], self.id, "{message}");
                // What is left of the body has to be read before the connection can be used again.
                assert_eq!(self.message(), None);
                return (Answer(message), self.connection);
            }
        }
    }

    /// The next message of the response; none at its end.
    fn message(&mut self) -> Option<Value> {
        if !self.head().is_event_stream() {
            let mut body = Vec::new();
            let mut head = self.head().clone();
            while let Some(part) = self.connection.part(&mut head) {
                body.extend(part);
            }
            self.head = Some(head);
            return (!body.is_empty()).then(|| parsed(&String::from_utf8(body).expect("UTF-8")));
        }
        loop {
            let data = self.event()?;
            if !data.trim().is_empty() {
                return Some(parsed(&data));
            }
        }
    }

    /// The data of the next event; none at the end of the stream.
    fn event(&mut self) -> Option<String> {
        loop {
            if let Some((event, rest)) = self.buffer.split_once("\n\n") {
                let fields =
                    |name: &str| event.lines().filter_map(|line| line.strip_prefix(name)).collect::<Vec<_>>();
                let data = fields("data:").join("\n");
                if let Some(id) = fields("id:").last() {
                    self.last_event = id.trim().to_owned();
                }
                self.buffer = rest.to_owned();
                return Some(data);
            }
            let mut head = self.head().clone();
            let part = self.connection.part(&mut head)?;
            self.head = Some(head);
            self.buffer +=
                &String::from_utf8(part).expect("events are not cut within a character").replace('\r', "");
        }
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"))
}
