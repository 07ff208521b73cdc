//! A server that wants OAuth, and the authorization server that gives tokens for it, behind one address.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, Response, Uri},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

/// Both, until the story ends.
pub struct Authority {
    /// `127.0.0.1:PORT`.
    pub address: String,
    desk: Arc<Desk>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Desk {
    address: String,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    /// Clients that are registered, and where their users are sent back to.
    clients: Vec<String>,
    /// Codes that were given out: what their user agreed to.
    codes: HashMap<String, Agreed>,
    /// Access tokens that are good, with their scopes.
    access: HashMap<String, String>,
    /// Refresh tokens that are good, with their scopes; each works once.
    refresh: HashMap<String, String>,
    /// How long the next tokens are said to live, in seconds.
    lifetime: u64,
    /// The kinds of grants, as they were asked for.
    grants: Vec<String>,
    /// Tools that were run.
    ran: Vec<String>,
    refusals: usize,
    made: usize,
}

struct Agreed {
    challenge: String,
    redirect: String,
    scope: String,
}

impl Authority {
    /// Server and authorization server at a port that the kernel has chosen.
    ///
    /// # Panics
    /// Where there is no port.
    pub fn start() -> Authority {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("it is bound").to_string();
        let books = Mutex::new(Books { lifetime: 3_600, ..Books::default() });
        let desk = Arc::new(Desk { address: address.clone(), books });
        let (stop, stopped) = oneshot::channel();
        let app = Router::new().fallback(answer).with_state(desk.clone());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
                tokio::select! {
                    served = async { axum::serve(listener, app).await } => served.expect("it serves"),
                    _ = stopped => {}
                }
            });
        });
        Authority { address, desk, stop: Some(stop), thread: Some(thread) }
    }

    /// Every access token has ended.
    pub fn end_tokens(&self) {
        self.desk.books().access.clear();
    }

    /// Tokens that are given from now on say that they live so long.
    pub fn lifetime(&self, seconds: u64) {
        self.desk.books().lifetime = seconds;
    }

    /// The kinds of grants that were asked for so far.
    pub fn grants(&self) -> Vec<String> {
        self.desk.books().grants.clone()
    }

    /// The tools that were run so far.
    pub fn ran(&self) -> Vec<String> {
        self.desk.books().ran.clone()
    }

    /// Requests to the server that were refused so far.
    pub fn refusals(&self) -> usize {
        self.desk.books().refusals
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
        // A thread that has panicked has said so.
        self.thread.take().map(JoinHandle::join);
    }
}

async fn answer(
    State(desk): State<Arc<Desk>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let base = format!("http://{}", desk.address);
    match uri.path() {
        "/.well-known/oauth-protected-resource/mcp" => json(
            200,
            &json!({ "resource": format!("{base}/mcp"), "authorization_servers": [base], "scopes_supported": ["read"] }),
        ),
        "/.well-known/oauth-authorization-server" => json(
            200,
            &json!({
                "issuer": base,
                "authorization_endpoint": format!("{base}/authorize"),
                "token_endpoint": format!("{base}/token"),
                "registration_endpoint": format!("{base}/register"),
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": ["none"],
                "authorization_response_iss_parameter_supported": true,
            }),
        ),
        "/register" => {
            let wish: Value = serde_json::from_slice(&body).expect("a client describes itself in JSON");
            let redirect = wish["redirect_uris"][0].as_str().expect("it says where it is").to_owned();
            desk.books().clients.push(redirect);
            json(201, &json!({ "client_id": "holdfast", "token_endpoint_auth_method": "none" }))
        }
        "/authorize" => desk.authorize(&pairs(uri.query().unwrap_or_default())),
        "/token" => desk.token(&pairs(std::str::from_utf8(&body).unwrap_or_default())),
        "/mcp" if method == Method::POST => desk.mcp(&headers, &body),
        _ => json(404, &json!({})),
    }
}

fn json(status: u16, body: &Value) -> Response<Body> {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(body.to_string().into()).expect("valid")
}

fn pairs(text: &str) -> HashMap<String, String> {
    form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

impl Desk {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The user agrees to everything.
    fn authorize(&self, asked: &HashMap<String, String>) -> Response<Body> {
        let mut books = self.books();
        let redirect = asked["redirect_uri"].clone();
        let is_known = asked["client_id"] == "holdfast" && books.clients.contains(&redirect);
        let is_safe = asked["code_challenge_method"] == "S256" && asked["response_type"] == "code";
        if !is_known || !is_safe || asked["resource"] != format!("http://{}/mcp", self.address) {
            return json(400, &json!({ "error": "invalid_request" }));
        }
        let code = books.name("code");
        let scope = asked.get("scope").cloned().unwrap_or_default();
        let agreed = Agreed { challenge: asked["code_challenge"].clone(), redirect: redirect.clone(), scope };
        books.codes.insert(code.clone(), agreed);
        let back = form_urlencoded::Serializer::new(String::new())
            .append_pair("code", &code)
            .append_pair("state", &asked["state"])
            .append_pair("iss", &format!("http://{}", self.address))
            .finish();
        let response = Response::builder().status(302).header("location", format!("{redirect}?{back}"));
        response.body(Body::empty()).expect("valid")
    }

    fn token(&self, form: &HashMap<String, String>) -> Response<Body> {
        let mut books = self.books();
        let kind = form["grant_type"].clone();
        books.grants.push(kind.clone());
        let scope = if kind == "refresh_token" {
            books.refresh.remove(&form["refresh_token"])
        } else {
            let agreed = books.codes.remove(&form["code"]);
            let proof = BASE64.encode(Sha256::digest(form["code_verifier"].as_bytes()));
            let agreed =
                agreed.filter(|agreed| agreed.challenge == proof && agreed.redirect == form["redirect_uri"]);
            agreed.map(|agreed| agreed.scope)
        };
        let Some(scope) = scope else { return json(400, &json!({ "error": "invalid_grant" })) };
        let (access, refresh) = (books.name("access"), books.name("refresh"));
        books.access.insert(access.clone(), scope.clone());
        books.refresh.insert(refresh.clone(), scope.clone());
        json(
            200,
            &json!({
                "access_token": access, "token_type": "Bearer", "expires_in": books.lifetime,
                "refresh_token": refresh, "scope": scope,
            }),
        )
    }

    fn mcp(&self, headers: &HeaderMap, body: &Bytes) -> Response<Body> {
        let mut books = self.books();
        let shown = headers.get("authorization").and_then(|value| value.to_str().ok());
        let token = shown.and_then(|shown| shown.strip_prefix("Bearer ")).unwrap_or_default();
        let Some(scope) = books.access.get(token).cloned() else {
            books.refusals += 1;
            return self.challenge(401, "");
        };
        let message: Value = serde_json::from_slice(body).unwrap_or_default();
        let result = match message["method"].as_str().unwrap_or_default() {
            "initialize" => {
                json!({ "protocolVersion": "2025-11-25", "capabilities": { "tools": {} }, "serverInfo": { "name": "guarded", "version": "1" } })
            }
            "tools/list" => {
                let schema = json!({ "type": "object" });
                json!({ "tools": [{ "name": "read", "inputSchema": schema }, { "name": "write", "inputSchema": schema }] })
            }
            "tools/call" => {
                let tool = message["params"]["name"].as_str().unwrap_or_default();
                if !scope.split(' ').any(|granted| granted == tool) {
                    books.refusals += 1;
                    return self.challenge(403, &format!(r#", error="insufficient_scope", scope="{tool}""#));
                }
                books.ran.push(tool.to_owned());
                json!({ "content": [{ "type": "text", "text": format!("{tool}: done") }] })
            }
            _ if message["id"].is_null() => return json(202, &json!({})),
            _ => {
                let error = json!({ "code": -32601, "message": "Method not found" });
                return json(200, &json!({ "jsonrpc": "2.0", "id": message["id"], "error": error }));
            }
        };
        json(200, &json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }))
    }

    fn challenge(&self, status: u16, more: &str) -> Response<Body> {
        let place = format!("http://{}/.well-known/oauth-protected-resource/mcp", self.address);
        let challenge = format!(r#"Bearer resource_metadata="{place}"{more}"#);
        let response = Response::builder().status(status).header("www-authenticate", challenge);
        response.body(Body::empty()).expect("valid")
    }
}

impl Books {
    fn name(&mut self, kind: &str) -> String {
        self.made += 1;
        format!("{kind}-{}", self.made)
    }
}
