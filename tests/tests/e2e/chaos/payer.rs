//! An agent over HTTP that asks again until it is answered, as MCP 2026-07-28 demands of clients.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use holdfast_tests::{Answer, Connection, PATIENCE};
use serde_json::{Map, Value, json};

use super::{dice::Dice, payment::Payment};

/// Between two tries where nobody listens.
const PAUSE: Duration = Duration::from_millis(5);

/// What all agents did.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Requests that were sent.
    pub(super) sent: AtomicUsize,
    /// Of these, sent again because the answer was lost.
    pub(super) again: AtomicUsize,
    /// Of these, lost because the agent itself broke off.
    pub(super) hung_up: AtomicUsize,
}

/// One agent.
pub(super) struct Payer<'a> {
    address: &'a str,
    name: String,
    era: Era,
    dice: Dice,
    tally: &'a Tally,
    connection: Option<Connection>,
    next_id: i64,
}

/// How it speaks.
#[derive(Clone, Debug, PartialEq)]
enum Era {
    /// 2026-07-28.
    Modern,
    /// 2025-11-25, in this session, if there is one.
    Legacy(Option<String>),
}

/// The answer was lost: whether the call happened is anybody's guess.
struct Lost;

impl<'a> Payer<'a> {
    /// The agent of this number; one in four is of the old era.
    pub(super) fn new(address: &'a str, who: usize, dice: Dice, tally: &'a Tally) -> Payer<'a> {
        let era = if who % 4 == 3 { Era::Legacy(None) } else { Era::Modern };
        Payer { address, name: format!("payer-{who}"), era, dice, tally, connection: None, next_id: 0 }
    }

    /// Asks for the payment until it is answered.
    ///
    /// # Panics
    /// Where that takes far longer than [`PATIENCE`]: several crashes in a row may hit the same payment.
    pub(super) fn insist(&mut self, payment: &Payment) -> Answer {
        let begun = Instant::now();
        let breaks_off = self.dice.one_in(10);
        for n in 0.. {
            let before = self.next_id;
            match self.ask(payment, breaks_off && n == 0) {
                Ok(answer) => return answer,
                Err(Lost) => self.connection = None,
            }
            if self.next_id > before {
                self.tally.again.fetch_add(1, Ordering::Relaxed);
            }
            assert!(begun.elapsed() < 4 * PATIENCE, "{payment:?} is not answered, asked {n} times");
        }
        unreachable!("numbers do not end")
    }

    fn ask(&mut self, payment: &Payment, breaks_off: bool) -> Result<Answer, Lost> {
        if self.era == Era::Legacy(None) {
            self.shake_hands()?;
        }
        let id = self.send("tools/call", payment.params())?;
        self.tally.sent.fetch_add(1, Ordering::Relaxed);
        if breaks_off {
            thread::sleep(self.dice.up_to(Duration::from_millis(20)));
            self.connection.take().ok_or(Lost)?.break_off();
            self.tally.hung_up.fetch_add(1, Ordering::Relaxed);
            return Err(Lost);
        }
        let (status, _, message) = self.receive()?;
        if status == 404 && matches!(self.era, Era::Legacy(Some(_))) {
            // Sessions do not survive: the agent begins a new one.
            self.era = Era::Legacy(None);
            return Err(Lost);
        }
        assert_eq!(status, 200, "{message:?}");
        let message = message.ok_or(Lost)?;
        assert_eq!(message["id"], id, "{message}");
        Ok(Answer(message))
    }

    fn shake_hands(&mut self) -> Result<(), Lost> {
        let info = json!({ "name": self.name, "version": "1" });
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info });
        self.send("initialize", params)?;
        let (status, session, message) = self.receive()?;
        assert_eq!(status, 200, "{message:?}");
        message.ok_or(Lost)?;
        self.era = Era::Legacy(Some(session.expect("a session")));
        Ok(())
    }

    /// Sends a request; gives its id.
    fn send(&mut self, method: &str, mut params: Value) -> Result<i64, Lost> {
        self.connect()?;
        self.next_id += 1;
        let (id, address) = (self.next_id, self.address);
        let mut headers = vec![
            ("Host", address),
            ("Content-Type", "application/json"),
            ("Accept", "application/json, text/event-stream"),
        ];
        match &self.era {
            Era::Modern => {
                let mut meta = params["_meta"].as_object().cloned().unwrap_or_else(Map::new);
                let prefix = "io.modelcontextprotocol/";
                meta.insert(format!("{prefix}protocolVersion"), "2026-07-28".into());
                meta.insert(format!("{prefix}clientCapabilities"), json!({}));
                meta.insert(format!("{prefix}clientInfo"), json!({ "name": self.name, "version": "1" }));
                params["_meta"] = meta.into();
                let name = "bank__transfer";
                headers.extend([
                    ("MCP-Protocol-Version", "2026-07-28"),
                    ("Mcp-Method", method),
                    ("Mcp-Name", name),
                ]);
            }
            Era::Legacy(Some(session)) => {
                headers.extend([("MCP-Protocol-Version", "2025-11-25"), ("Mcp-Session-Id", session)]);
            }
            Era::Legacy(None) => {}
        }
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string();
        let connection = self.connection.as_mut().ok_or(Lost)?;
        connection.send("POST", "/mcp", &headers, message.as_bytes());
        Ok(id)
    }

    fn connect(&mut self) -> Result<(), Lost> {
        if self.connection.is_none() {
            self.connection = Connection::try_open(self.address);
        }
        if self.connection.is_none() {
            thread::sleep(PAUSE);
            return Err(Lost);
        }
        Ok(())
    }

    /// Status, session and the answer, where all of it arrived.
    fn receive(&mut self) -> Result<(u16, Option<String>, Option<Value>), Lost> {
        let connection = self.connection.as_mut().ok_or(Lost)?;
        let mut head = connection.try_head().ok_or(Lost)?;
        let mut body = Vec::new();
        while let Some(part) = connection.part(&mut head) {
            body.extend(part);
        }
        let body = String::from_utf8(body).map_err(|_| Lost)?;
        let message = if head.is_event_stream() {
            let lines = body.lines().filter_map(|line| line.strip_prefix("data:"));
            let mut messages = lines.filter_map(|data| serde_json::from_str::<Value>(data).ok());
            messages.rfind(|message| message.get("id").is_some())
        } else {
            serde_json::from_str(&body).ok()
        };
        Ok((head.status, head.header("mcp-session-id").map(str::to_owned), message))
    }
}
