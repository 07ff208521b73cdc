//! Servers that want OAuth, and authorization servers that mean well or do not.

use std::{collections::HashMap, net::SocketAddr, os::unix::fs::PermissionsExt as _, sync::Mutex};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Response, Uri},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::*;
use crate::{
    config::{Grant, Http, OAuth},
    upstream::{Authorizer, Returned},
};

const BACK: &str = "http://127.0.0.1:7412/oauth/callback";

/// How this authorization server is unlike others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Quirk {
    #[default]
    None,
    /// Its server describes another one.
    OtherResource,
    /// It says that it is another one.
    OtherIssuer,
    /// Its server names a second one besides it.
    NamesTwo,
    /// It knows nothing of PKCE.
    NoPkce,
    /// The server answers no call without the scope `write`.
    WantsWrite,
}

/// Server and authorization server in one.
struct World {
    address: SocketAddr,
    quirk: Quirk,
    /// What was posted to the token endpoint, and how the client showed who it is.
    grants: Mutex<Vec<(HashMap<String, String>, String)>>,
    /// The tokens that are good.
    good: Mutex<Vec<String>>,
}

impl World {
    fn json(code: u16, body: &Value) -> Response<Body> {
        let response = Response::builder().status(code).header("content-type", "application/json");
        response.body(body.to_string().into()).expect("valid")
    }

    fn challenged(&self, code: u16, more: &str) -> Response<Body> {
        let place = format!("http://{}/.well-known/oauth-protected-resource/mcp", self.address);
        let challenge = format!(r#"Bearer resource_metadata="{place}"{more}"#);
        let response = Response::builder().status(code).header("www-authenticate", challenge);
        response.body(Body::empty()).expect("valid")
    }

    fn answer(&self, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Response<Body> {
        let base = format!("http://{}", self.address);
        let quirk = |one: Quirk| self.quirk == one;
        match uri.path() {
            "/.well-known/oauth-protected-resource/mcp" => {
                let resource = if quirk(Quirk::OtherResource) {
                    "https://bank.example/mcp"
                } else {
                    &format!("{base}/mcp")
                };
                let servers = match quirk(Quirk::NamesTwo) {
                    true => json!(["https://evil.example", base]),
                    false => json!([base]),
                };
                Self::json(
                    200,
                    &json!({"resource": resource, "authorization_servers": servers, "scopes_supported": ["read"]}),
                )
            }
            "/.well-known/oauth-authorization-server" => {
                let issuer = if quirk(Quirk::OtherIssuer) { "https://bank.example" } else { &*base };
                let methods = if quirk(Quirk::NoPkce) { json!([]) } else { json!(["S256"]) };
                Self::json(
                    200,
                    &json!({
                        "issuer": issuer, "authorization_endpoint": format!("{base}/authorize"),
                        "token_endpoint": format!("{base}/token"), "registration_endpoint": format!("{base}/register"),
                        "code_challenge_methods_supported": methods,
                        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
                        "authorization_response_iss_parameter_supported": true,
                    }),
                )
            }
            "/register" => {
                let wish: Value = serde_json::from_slice(body).expect("JSON");
                assert_eq!(wish["redirect_uris"], json!([BACK]));
                Self::json(
                    201,
                    &json!({"client_id": "us", "client_secret": "s e", "token_endpoint_auth_method": "client_secret_basic"}),
                )
            }
            "/token" => self.token(headers, body),
            "/mcp" => self.mcp(headers, body),
            _ => Self::json(404, &json!({})),
        }
    }

    fn token(&self, headers: &HeaderMap, body: &Bytes) -> Response<Body> {
        let form: HashMap<String, String> = form_urlencoded::parse(body).into_owned().collect();
        let shown = headers.get("authorization").map_or("", |value| value.to_str().expect("text")).to_owned();
        let mut grants = self.grants.lock().expect("whole");
        let number = grants.len() + 1;
        grants.push((form.clone(), shown));
        let mut good = self.good.lock().expect("whole");
        if form["grant_type"] == "refresh_token" && form["refresh_token"] != format!("refresh-{}", number - 1)
        {
            return Self::json(400, &json!({"error": "invalid_grant"}));
        }
        let scope = form.get("scope").cloned().unwrap_or_default();
        *good = vec![format!("Bearer access-{number} {scope}")];
        Self::json(
            200,
            &json!({
                "access_token": format!("access-{number}"), "token_type": "bearer", "expires_in": 3600,
                "refresh_token": format!("refresh-{number}"),
            }),
        )
    }

    fn mcp(&self, headers: &HeaderMap, body: &Bytes) -> Response<Body> {
        let shown = headers.get("authorization").map_or("", |value| value.to_str().expect("text"));
        let good = self.good.lock().expect("whole").clone();
        let Some(token) = good.iter().find(|good| !shown.is_empty() && good.starts_with(shown)) else {
            return self.challenged(401, "");
        };
        let message: Value = serde_json::from_slice(body).unwrap_or_default();
        let result = match message["method"].as_str().unwrap_or_default() {
            "initialize" => json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}}),
            "tools/list" => json!({"tools": [{"name": "echo"}]}),
            "tools/call" if self.quirk == Quirk::WantsWrite && !token.contains("write") => {
                return self.challenged(403, r#", error="insufficient_scope", scope="write""#);
            }
            "tools/call" => json!({"content": [{"type": "text", "text": shown}]}),
            _ => return Self::json(202, &json!({})),
        };
        Self::json(200, &json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
    }

    fn revoke(&self) {
        self.good.lock().expect("whole").clear();
    }
}

async fn world(quirk: Quirk) -> Arc<World> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let world = Arc::new(World { address, quirk, grants: Mutex::default(), good: Mutex::default() });
    let handle = async |State(world): State<Arc<World>>, uri: Uri, headers: HeaderMap, body: Bytes| {
        world.answer(&uri, &headers, &body)
    };
    let app = Router::new().fallback(handle).with_state(world.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    world
}

struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory") }
    }

    fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("h.redb.oauth.json")
    }

    fn config(&self, world: &World, oauth: OAuth) -> ServerConfig {
        let transport = Transport::Http { url: format!("http://{}/mcp", world.address), headers: Vec::new() };
        let oauth = OAuth { vault: Some(self.file()), ..oauth };
        ServerConfig { http: Http { old: false, oauth }, ..config(transport, Share::All) }
    }
}

fn auth(upstream: &Upstream) -> Arc<Authorizer> {
    upstream.authorizer().expect("by HTTP")
}

fn parts(url: &str) -> HashMap<String, String> {
    let url: reqwest::Url = url.parse().expect("an address");
    url.query_pairs().into_owned().collect()
}

/// What the browser of somebody who agrees brings back.
fn agreed(world: &World, url: &str) -> Returned {
    let state = parts(url)["state"].clone();
    Returned { state, code: Some("code".into()), iss: Some(format!("http://{}", world.address)), error: None }
}

async fn sign_in(world: &World, upstream: &Upstream) {
    let url = auth(upstream).begin(BACK, None).await.expect("it can be done");
    auth(upstream).finish(&agreed(world, &url)).await.expect("signed in");
    upstream.signed_in();
}

#[tokio::test]
async fn somebody_signs_in_and_the_token_outlives_the_process() {
    let (world, place) = (world(Quirk::None).await, Place::new());
    let (upstreams, upstream) = start(place.config(&world, OAuth::default()));
    assert_eq!(told(&upstream, "echo").await, "unsent upstream-unauthorized");
    assert_eq!(auth(&upstream).standing(), Some("needed"));
    let url = auth(&upstream).begin(BACK, None).await.expect("it can be done");
    let asked = parts(&url);
    assert_eq!((&*asked["client_id"], &*asked["redirect_uri"], &*asked["scope"]), ("us", BACK, "read"));
    assert_eq!((&*asked["code_challenge_method"], &*asked["response_type"]), ("S256", "code"));
    assert_eq!(asked["resource"], format!("http://{}/mcp", world.address));
    auth(&upstream).finish(&agreed(&world, &url)).await.expect("signed in");
    upstream.signed_in();
    assert_eq!(told(&upstream, "echo").await, "answer Bearer access-1");
    upstreams.stop().await;
    let (form, shown) = world.grants.lock().expect("whole")[0].clone();
    assert_eq!((&*form["grant_type"], &*form["redirect_uri"]), ("authorization_code", BACK));
    assert!(form["code_verifier"].len() >= 43 && form["resource"].ends_with("/mcp"), "{form:?}");
    // `us:s+e`, as RFC 6749 section 2.3.1 writes it.
    assert_eq!(shown, "Basic dXM6cytl");
    assert_eq!(std::fs::metadata(place.file()).expect("kept").permissions().mode() & 0o777, 0o600);
    let (upstreams, upstream) = start(place.config(&world, OAuth::default()));
    assert_eq!(told(&upstream, "echo").await, "answer Bearer access-1");
    upstreams.stop().await;
}

#[tokio::test]
async fn a_token_that_has_ended_is_renewed_and_so_is_what_renews_it() {
    let (world, place) = (world(Quirk::None).await, Place::new());
    let (upstreams, upstream) = start(place.config(&world, OAuth::default()));
    let _ = told(&upstream, "echo").await;
    sign_in(&world, &upstream).await;
    for number in 2..4 {
        world.revoke();
        assert_eq!(told(&upstream, "echo").await, format!("answer Bearer access-{number}"));
    }
    // Whoever has used the refresh token meanwhile has made it worthless.
    world.grants.lock().expect("whole").clear();
    world.revoke();
    assert_eq!(told(&upstream, "echo").await, "unsent upstream-unauthorized");
    assert_eq!(auth(&upstream).standing(), Some("needed"));
    upstreams.stop().await;
}

#[tokio::test]
async fn answers_of_others_sign_nobody_in() {
    let (world, place) = (world(Quirk::None).await, Place::new());
    let (upstreams, upstream) = start(place.config(&world, OAuth::default()));
    let _ = told(&upstream, "echo").await;
    let auth = auth(&upstream);
    let url = auth.begin(BACK, None).await.expect("it can be done");
    let stranger = Returned { state: "x".repeat(64), ..agreed(&world, &url) };
    assert!(auth.finish(&stranger).await.is_err());
    // A code of another authorization server would be given away here (RFC 9207).
    let mixed_up = Returned { iss: Some("https://evil.example".into()), ..agreed(&world, &url) };
    assert!(auth.finish(&mixed_up).await.expect_err("refused").contains("evil.example"));
    assert!(auth.finish(&agreed(&world, &url)).await.is_err(), "each beginning has one end");
    let url = auth.begin(BACK, None).await.expect("it can be done");
    let silent = Returned { iss: None, ..agreed(&world, &url) };
    assert!(auth.finish(&silent).await.is_err(), "it always says who it is");
    let url = auth.begin(BACK, None).await.expect("it can be done");
    let refused = Returned { code: None, error: Some("access_denied".into()), ..agreed(&world, &url) };
    assert!(auth.finish(&refused).await.expect_err("refused").contains("access_denied"));
    assert!(world.grants.lock().expect("whole").is_empty());
    upstreams.stop().await;
}

#[tokio::test]
async fn descriptions_that_do_not_fit_are_not_followed() {
    for (quirk, why) in [
        (Quirk::OtherResource, "another server"),
        (Quirk::OtherIssuer, "bank.example"),
        (Quirk::NoPkce, "PKCE"),
    ] {
        let (world, place) = (world(quirk).await, Place::new());
        let (upstreams, upstream) = start(place.config(&world, OAuth::default()));
        let _ = told(&upstream, "echo").await;
        let refused = auth(&upstream).begin(BACK, None).await.expect_err("refused");
        assert!(refused.contains(why), "{quirk:?}: {refused}");
        upstreams.stop().await;
    }
}

/// What is kept of the server, with another issuer.
fn forge_issuer(place: &Place, issuer: &str) {
    let mut kept: Value = serde_json::from_slice(&std::fs::read(place.file()).expect("kept")).expect("ours");
    kept["fake"]["issuer"] = issuer.into();
    std::fs::write(place.file(), kept.to_string()).expect("ours");
}

#[tokio::test]
async fn a_secret_goes_to_one_authorization_server_only() {
    let (world, place) = (world(Quirk::None).await, Place::new());
    let here = format!("http://{}", world.address);
    let ours = OAuth {
        client_id: Some("us".into()),
        client_secret: Some("secret".into()),
        grant: Grant::ClientCredentials,
        ..OAuth::default()
    };
    let (upstreams, upstream) = start(place.config(&world, ours.clone()));
    assert_eq!(told(&upstream, "echo").await, "answer Bearer access-1");
    upstreams.stop().await;

    // The server names another one than the one that knows the secret.
    forge_issuer(&place, "https://login.example");
    world.revoke();
    let grants = world.grants.lock().expect("whole").len();
    let (upstreams, upstream) = start(place.config(&world, ours.clone()));
    assert_eq!(told(&upstream, "echo").await, "unsent upstream-unauthorized");
    upstreams.stop().await;
    let person = OAuth { grant: Grant::Code, ..ours.clone() };
    let (upstreams, upstream) = start(place.config(&world, person.clone()));
    let refused = auth(&upstream).begin(BACK, None).await.expect_err("refused");
    assert!(refused.contains("login.example") && refused.contains(&format!("--issuer {here}")), "{refused}");
    assert_eq!(world.grants.lock().expect("whole").len(), grants, "nobody heard the secret");
    // Somebody says that it is right.
    assert!(auth(&upstream).begin(BACK, Some("https://other.example")).await.is_err());
    let url = auth(&upstream).begin(BACK, Some(&here)).await.expect("accepted");
    auth(&upstream).finish(&agreed(&world, &url)).await.expect("signed in");
    auth(&upstream).begin(BACK, None).await.expect("from now on it is the one");
    upstreams.stop().await;

    // The configuration has the last word.
    let only = |issuer: &str| OAuth { issuer: Some(issuer.into()), ..person.clone() };
    let (upstreams, upstream) = start(place.config(&world, only("https://login.example")));
    assert_eq!(auth(&upstream).standing(), None, "tokens of others are not used");
    let refused = auth(&upstream).begin(BACK, Some(&here)).await.expect_err("refused");
    assert!(refused.contains("only https://login.example is accepted"), "{refused}");
    upstreams.stop().await;
}

#[tokio::test]
async fn of_several_authorization_servers_the_one_that_is_wanted() {
    let (world, place) = (world(Quirk::NamesTwo).await, Place::new());
    let here = format!("http://{}", world.address);
    let (upstreams, upstream) = start(place.config(&world, OAuth { issuer: Some(here), ..OAuth::default() }));
    let _ = told(&upstream, "echo").await;
    sign_in(&world, &upstream).await;
    assert_eq!(told(&upstream, "echo").await, "answer Bearer access-1");
    upstreams.stop().await;
}

#[tokio::test]
async fn holdfast_signs_in_by_itself_and_asks_for_more_where_it_must() {
    let (world, place) = (world(Quirk::WantsWrite).await, Place::new());
    let oauth = OAuth {
        client_id: Some("us".into()),
        client_secret: Some("secret".into()),
        grant: Grant::ClientCredentials,
        ..OAuth::default()
    };
    let (upstreams, upstream) = start(place.config(&world, oauth));
    assert_eq!(told(&upstream, "echo").await, "answer Bearer access-2");
    let grants = world.grants.lock().expect("whole").clone();
    let scopes: Vec<&str> = grants.iter().map(|(form, _)| &*form["scope"]).collect();
    assert_eq!(scopes, ["read", "read write"]);
    upstreams.stop().await;
}

#[tokio::test]
async fn more_rights_need_somebody_where_somebody_gave_the_first() {
    let (world, place) = (world(Quirk::WantsWrite).await, Place::new());
    let (upstreams, upstream) = start(place.config(&world, OAuth::default()));
    let _ = told(&upstream, "echo").await;
    sign_in(&world, &upstream).await;
    world.good.lock().expect("whole")[0].push_str("read");
    assert_eq!(told(&upstream, "echo").await, "unsent upstream-unauthorized");
    let url = auth(&upstream).begin(BACK, None).await.expect("it can be done");
    assert_eq!(parts(&url)["scope"], "read write");
    upstreams.stop().await;
}

#[tokio::test]
async fn tokens_of_another_server_of_the_name_are_not_used() {
    let (first, second, place) = (world(Quirk::None).await, world(Quirk::None).await, Place::new());
    let (upstreams, upstream) = start(place.config(&first, OAuth::default()));
    let _ = told(&upstream, "echo").await;
    sign_in(&first, &upstream).await;
    upstreams.stop().await;
    *second.good.lock().expect("whole") = vec!["Bearer access-1".into()];
    let (upstreams, upstream) = start(place.config(&second, OAuth::default()));
    assert_eq!(told(&upstream, "echo").await, "unsent upstream-unauthorized");
    upstreams.stop().await;
}
