//! An operator at the JSON API of the inbox.

use serde_json::{Value, json};

use crate::{
    http::Response,
    patience::{eventually, eventually_some},
    process::Served,
};

/// One operator, by a token.
pub struct Desk<'a> {
    served: &'a Served,
    token: String,
}

impl<'a> Desk<'a> {
    /// Whoever has this token.
    pub fn of(served: &'a Served, token: &str) -> Desk<'a> {
        Desk { served, token: token.to_owned() }
    }

    /// `GET` below `/api/v1`.
    pub fn get(&self, path: &str) -> Response {
        self.ask("GET", path, None)
    }

    /// `POST` below `/api/v1`.
    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.ask("POST", path, Some(body))
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        let token = format!("Bearer {}", self.token);
        let headers = [("Authorization", token.as_str()), ("Content-Type", "application/json")];
        let body = body.map(Value::to_string).unwrap_or_default();
        self.served.ask_inbox(method, &format!("/api/v1{path}"), &headers, body.as_bytes())
    }

    /// One call, whole.
    ///
    /// # Panics
    /// Where there is no such call.
    pub fn call(&self, id: &str) -> Value {
        let response = self.get(&format!("/calls/{id}"));
        assert_eq!(response.status(), 200, "{}", response.body);
        response.json()
    }

    /// The digest that an approver of this call sees now.
    pub fn digest(&self, id: &str) -> String {
        let call = self.call(id);
        call["hold"]["digest"].as_str().unwrap_or_else(|| panic!("not held: {call}")).to_owned()
    }

    /// Decides on a call, with the digest that it has now.
    pub fn decide(&self, id: &str, verb: &str, mut body: Value) -> Response {
        if body.get("digest").is_none() {
            body["digest"] = self.digest(id).into();
        }
        self.post(&format!("/calls/{id}/{verb}"), &body)
    }

    /// Approves what is asked now.
    ///
    /// # Panics
    /// Where that is not taken.
    #[track_caller]
    pub fn approve(&self, id: &str) {
        let response = self.decide(id, "approve", json!({}));
        assert_eq!(response.status(), 200, "{}", response.body);
    }

    /// What the inbox says of a tool, once its server has listed it.
    ///
    /// # Panics
    /// Where it never does.
    pub fn tool(&self, server: &str, tool: &str) -> Value {
        eventually_some(&format!("{tool} of {server}"), || {
            let listed = self.get("/tools").json();
            let tools = listed["tools"].as_array().expect("a list").iter();
            let mut named = tools.filter(|view| view["server"] == server && view["tool"] == tool);
            named.next().cloned()
        })
    }

    /// Accepts the definition that a tool has now.
    ///
    /// # Panics
    /// Where that is not taken.
    #[track_caller]
    pub fn accept_tool(&self, server: &str, tool: &str) {
        let definition = self.tool(server, tool)["hash"].clone();
        let body = json!({ "server": server, "tool": tool, "definition": definition });
        let response = self.post("/tools/accept", &body);
        assert_eq!(response.status(), 200, "{}", response.body);
    }

    /// Waits until this server is known to be down.
    pub fn await_down(&self, server: &str) {
        eventually(&format!("{server} is down"), || {
            let listed = self.get("/servers").json();
            let mut all = listed["servers"].as_array().expect("a list").iter();
            all.any(|one| one["name"] == server && one["state"] == "down")
        });
    }

    /// Waits until the call is in this state.
    pub fn await_state(&self, id: &str, state: &str) -> Value {
        eventually_some(&format!("call {id} is {state}"), || {
            let call = self.call(id);
            (call["call"]["state"] == state).then_some(call)
        })
    }
}
