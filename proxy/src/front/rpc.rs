//! Every method but `tools/call`: handshakes of both eras, lists, pings, subscriptions.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use holdfast_store::{Caller, Text};
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    Front,
    accept::Accepts,
    body::{self, Outgoing},
    call::Cancellable,
    deliver,
    era::{self, Era, META_CLIENT},
    fetch,
    guest::Guest,
    http,
    hub::Wants,
    levels,
    listen::Link,
    lists::{self, Failed, Kind},
    problem::Problem,
    relay,
    stream::{self, Announcements},
    tasks,
};
use crate::{
    driver::{Receipt, now},
    upstream::{Client, Relayed, Speaks, Upstream},
    wire,
};

const INSTRUCTIONS: &str = "Tools are named server__tool. A call may be held until a person approves it: then the result \
says so and names a call id. Collect it with holdfast_wait, or by repeating exactly the same call; do not look for \
another way to do it. When a result says outcome-unknown, the call may have happened: do not repeat it.";

/// Resources that one client follows.
const MOST_FOLLOWED: usize = 1_000;
/// How long a server may take to be told something.
const SET_LIMIT: Duration = Duration::from_secs(10);
/// A client's name may be anything; what is kept of it is bounded.
const CLIENT_MOST: usize = 200;

/// One request, without method and parameters.
pub(super) struct Request<'a> {
    /// The request id, as JSON text.
    pub(super) id: &'a str,
    pub(super) era: Era,
    pub(super) caller: &'a Caller,
    /// What the client can do.
    pub(super) client: &'a Arc<Client>,
    pub(super) accepts: Accepts,
    /// The bridge is its own session.
    pub(super) through_bridge: bool,
    /// Whether `notifications/cancelled` can reach it.
    pub(super) cancellable: Cancellable,
    pub(super) params: &'a Map<String, Value>,
    /// The same as text.
    pub(super) raw: Option<&'a str>,
}

/// Answers the request.
pub(super) async fn handle(
    front: &Arc<Front>,
    link: &Arc<Link>,
    request: &Request<'_>,
    method: &str,
) -> Result<Response<Outgoing>, Problem> {
    let params = request.params;
    let result = match (request.era, method) {
        (Era::Legacy, "initialize") => return initialize(front, link, request, params).await,
        (Era::Legacy, "ping") => "{}".to_owned(),
        (Era::Legacy, "logging/setLevel") => set_level(front, request).await?,
        (Era::Legacy, "resources/subscribe") => subscribe(front, request).await?,
        (Era::Legacy, "resources/unsubscribe") => unsubscribe(front, request).await?,
        (Era::Modern, method) if era::ENDED.contains(&method) => {
            return Err(era::unknown_method(Era::Modern, method));
        }
        (Era::Modern, "server/discover") => discover(front),
        (Era::Modern, "subscriptions/listen") => {
            if params.get("notifications").is_some_and(|wanted| wanted.get("taskIds").is_some()) {
                tasks::must_be_known(params)?;
            }
            return Ok(listen(front, link, request).await);
        }
        (Era::Modern, "tasks/get" | "tasks/update" | "tasks/cancel") if tasks::is_ours(params) => {
            return tasks::handle(front, link, request, method, params).await;
        }
        (Era::Legacy, "server/discover" | "subscriptions/listen") => {
            return Err(era::unknown_method(Era::Legacy, method));
        }
        (era, "resources/read") if fetch::is_ours(params) => {
            let read = fetch::read(front, request.caller, params).await?;
            let read = relay::with_cache_hints(era, method, &read);
            return Ok(answer(link, request, deliver::result(request.id, &read, era, &[])));
        }
        (era, "tools/list") => {
            one_page(params)?;
            front.catalogue.result(&front.driver, request.caller, era).await
        }
        (era, method) => match Kind::of(method) {
            Some(kind) => {
                one_page(params)?;
                let list = lists::list(front, request.caller, request.client, kind).await;
                let list = relay::with_cache_hints(era, method, &list);
                return Ok(answer(link, request, deliver::result(request.id, &list, era, &[])));
            }
            None => return relay::handle(front, link, request, method).await,
        },
    };
    Ok(answer(link, request, wire::result(request.id, &result)))
}

fn one_page(params: &Map<String, Value>) -> Result<(), Problem> {
    if params.get("cursor").is_some_and(|cursor| !cursor.is_null()) {
        return Err(Problem::invalid_params("invalid-arguments", "unknown cursor: the list has one page"));
    }
    Ok(())
}

/// `logging/setLevel`: kept for this client, and told to the servers, of which each hears the most talkative wish.
async fn set_level(front: &Arc<Front>, request: &Request<'_>) -> Result<String, Problem> {
    let level = request.params.get("level").and_then(Value::as_str).unwrap_or_default();
    if levels::rank(level).is_none() {
        let message =
            "params.level must be one of debug, info, notice, warning, error, critical, alert, emergency";
        return Err(Problem::invalid_params("invalid-arguments", message));
    }
    front.hub.set_level(&request.caller.channel, level);
    remember(front, request, |guest| guest.log_level = Some(level.to_owned())).await?;
    let wanted = front.hub.most_talkative(level);
    for upstream in lists::having(front, request.caller, request.client, "logging").await {
        let members = vec![("level".to_owned(), Text::of(&wanted))];
        let relayed = Relayed::new(request.caller, request.client, "logging/setLevel", members);
        tokio::spawn(async move {
            if let Err(error) = tokio::time::timeout(SET_LIMIT, lists::ask(&upstream, relayed)).await {
                tracing::debug!(server = %upstream.config().name, %error, "the level was not set");
            }
        });
    }
    Ok("{}".to_owned())
}

fn uri_of<'a>(request: &Request<'a>) -> Result<&'a str, Problem> {
    let uri = request.params.get("uri").and_then(Value::as_str);
    uri.ok_or_else(|| Problem::invalid_params("invalid-arguments", "params.uri must be a string"))
}

/// `resources/subscribe`: the first subscriber of all is the one that the server hears of.
async fn subscribe(front: &Arc<Front>, request: &Request<'_>) -> Result<String, Problem> {
    let uri = uri_of(request)?;
    if front.hub.count(&request.caller.channel) >= MOST_FOLLOWED {
        let message = format!("more than {MOST_FOLLOWED} resources cannot be followed at once");
        return Err(Problem::invalid_params("invalid-arguments", message));
    }
    let mut refused = None;
    for (upstream, own) in lists::homes_of_uri(front, request.caller, request.client, uri).await {
        let server = upstream.config().name.clone();
        match follow(&upstream, request.caller, request.client, &own).await {
            Ok(()) => {
                front.hub.subscribe(&request.caller.channel, &server, &own);
                follow_modern(front, &upstream, request.caller, request.client);
                remember(front, request, |guest| guest.subscribed.extend([(server, own)])).await?;
                return Ok("{}".to_owned());
            }
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    let message =
        refused.map_or_else(|| format!("no server has the resource {uri}"), |error| error.to_string());
    Err(Problem::invalid_params("not-found", message))
}

async fn unsubscribe(front: &Arc<Front>, request: &Request<'_>) -> Result<String, Problem> {
    let uri = uri_of(request)?;
    for (upstream, own) in lists::homes_of_uri(front, request.caller, request.client, uri).await {
        let server = upstream.config().name.clone();
        if front.hub.unsubscribe(&request.caller.channel, &server, &own) {
            unfollow(front, &upstream, request.caller, request.client, &own);
        }
        remember(front, request, |guest| {
            guest.subscribed.retain(|one| *one != (server.clone(), own.clone()))
        })
        .await?;
    }
    Ok("{}".to_owned())
}

/// Keeps with a session what its client has set; a bridge says such things again by itself.
async fn remember(
    front: &Front,
    request: &Request<'_>,
    change: impl FnOnce(&mut Guest),
) -> Result<(), Problem> {
    if let Some(session) = request.caller.channel.strip_prefix("session:") {
        front.sessions.change(session, change).await.map_err(|error| Problem::journal(&error))?;
    }
    Ok(())
}

/// Subscribes at the server, where it is one of those that are told by a request.
async fn follow(
    upstream: &Arc<Upstream>,
    caller: &Caller,
    client: &Arc<Client>,
    uri: &str,
) -> Result<(), String> {
    upstream.about(caller, client).await.map_err(|unsent| unsent.message)?;
    if upstream.speaks(caller, client) == Some(Speaks::Modern) {
        return Ok(());
    }
    let relayed =
        Relayed::new(caller, client, "resources/subscribe", vec![("uri".to_owned(), Text::of(uri))]);
    match tokio::time::timeout(SET_LIMIT, lists::ask(upstream, relayed)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(Failed::Refused(error))) => {
            Err(error.value()["message"].as_str().unwrap_or(&error).to_owned())
        }
        Ok(Err(failed)) => Err(format!("{failed:?}")),
        Err(_) => Err(format!("server `{}` does not answer", upstream.config().name)),
    }
}

/// Tells a modern server all resources that anybody follows; it is nothing to others.
fn follow_modern(front: &Front, upstream: &Upstream, caller: &Caller, client: &Arc<Client>) {
    upstream.subscribe_to(caller, client, &front.hub.wanted_of(&upstream.config().name));
}

fn unfollow(front: &Front, upstream: &Arc<Upstream>, caller: &Caller, client: &Arc<Client>, uri: &str) {
    follow_modern(front, upstream, caller, client);
    if upstream.speaks(caller, client) == Some(Speaks::Legacy) {
        let members = vec![("uri".to_owned(), Text::of(uri))];
        let relayed = Relayed::new(caller, client, "resources/unsubscribe", members);
        let upstream = upstream.clone();
        tokio::spawn(
            async move { tokio::time::timeout(SET_LIMIT, lists::ask(&upstream, relayed)).await.ok() },
        );
    }
}

/// A channel is gone, and nobody follows what it alone followed.
pub(super) fn leave(front: &Front, channel: &str) {
    let caller = Caller { principal: String::new(), channel: channel.to_owned(), client: String::new() };
    for (server, uri) in front.hub.forget(channel) {
        let still = front.hub.wanted_of(&server).contains(&uri);
        if let Some(upstream) = front.upstreams.get(&server).filter(|_| !still) {
            unfollow(front, &upstream, &caller, &Client::unknown(), &uri);
        }
    }
}

/// A notification of a client: what is not for us alone goes to the servers.
pub(super) fn notified(
    front: &Front,
    caller: &Caller,
    client: &Arc<Client>,
    method: &str,
    raw: Option<&str>,
) {
    const OURS: [&str; 3] =
        ["notifications/initialized", "notifications/cancelled", "notifications/progress"];
    if OURS.contains(&method) {
        return;
    }
    let mut relayed = Relayed::new(caller, client, method, Vec::new());
    for (name, value) in raw.and_then(wire::members).unwrap_or_default() {
        let Ok(value) = Text::parse(value) else { continue };
        if name == "_meta" {
            let meta = wire::members(&value).unwrap_or_default();
            let own = meta.into_iter().filter(|(name, _)| !name.starts_with("io.holdfast/"));
            relayed.meta =
                own.filter_map(|(name, value)| Some((name.into_owned(), Text::parse(value).ok()?))).collect();
        } else {
            relayed.members.push((name.into_owned(), value));
        }
    }
    for upstream in front.upstreams.all() {
        upstream.tell(&relayed);
    }
}

fn answer(link: &Arc<Link>, request: &Request<'_>, message: String) -> Response<Outgoing> {
    body::answer(link, request.accepts, StatusCode::OK, message, Receipt::none())
}

async fn initialize(
    front: &Front,
    link: &Arc<Link>,
    request: &Request<'_>,
    params: &Map<String, Value>,
) -> Result<Response<Outgoing>, Problem> {
    let version = era::negotiate(params.get("protocolVersion").and_then(Value::as_str).unwrap_or_default());
    let mut capabilities = capabilities(Era::Legacy);
    if let Some(tasks) = tasks_of_servers(front) {
        capabilities["tasks"] = tasks;
    }
    let result = json!({
        "protocolVersion": version,
        "capabilities": capabilities,
        "serverInfo": server_info(),
        "instructions": instructions(front),
    });
    let response = answer(link, request, wire::result(request.id, &result.to_string()));
    if request.through_bridge {
        return Ok(response);
    }
    let Caller { principal, client, .. } = request.caller;
    let guest = Guest::of_handshake(client, params)?;
    let begun =
        front.sessions.begin(principal, guest, now()).await.map_err(|error| Problem::journal(&error))?;
    for ended in &begun.ended {
        front.left(&http::session_channel(ended));
    }
    Ok(http::with_session(response, &begun.id))
}

fn discover(front: &Front) -> String {
    let result = json!({
        "supportedVersions": era::supported(),
        "capabilities": capabilities(Era::Modern),
        "instructions": instructions(front),
        "resultType": "complete",
        "ttlMs": 0,
        "cacheScope": "private",
        "_meta": { (era::META_SERVER): server_info() },
    });
    result.to_string()
}

/// The same whatever the servers offer, and whether they are there: what one of them lacks is an empty list.
fn capabilities(era: Era) -> Value {
    let changing = json!({ "listChanged": true });
    let mut capabilities = json!({
        "tools": changing,
        "prompts": changing,
        "resources": { "subscribe": true, "listChanged": true },
        "completions": {},
    });
    match era {
        Era::Legacy => capabilities["logging"] = json!({}),
        Era::Modern => capabilities["extensions"] = json!({ tasks::EXTENSION: {} }),
    }
    capabilities
}

/// Tasks as 2025-11-25 has them, where a server that is there makes some. They cannot be listed: to a server all agents are
/// one.
fn tasks_of_servers(front: &Front) -> Option<Value> {
    let servers = front.upstreams.all();
    let mut cancelled = servers.iter().filter_map(|upstream| upstream.legacy_tasks()).peekable();
    cancelled.peek()?;
    let mut tasks = json!({ "requests": { "tools": { "call": {} } } });
    if cancelled.any(|cancelled| cancelled) {
        tasks["cancel"] = json!({});
    }
    Some(tasks)
}

/// Ours, and those of the servers that are there.
fn instructions(front: &Front) -> String {
    const MOST: usize = 16 * 1024;
    let mut all = INSTRUCTIONS.to_owned();
    for upstream in front.upstreams.all() {
        let about = upstream.about_now();
        let theirs = about.as_ref().and_then(|about| about["instructions"].as_str()).unwrap_or_default();
        if !theirs.is_empty() && theirs.len() <= MOST {
            all.push_str(&format!("\n\nServer `{}` says:\n{theirs}", upstream.config().name));
        }
    }
    all
}

/// `serverInfo`.
pub(super) fn server_info() -> Value {
    json!({ "name": "holdfast", "title": "Holdfast", "version": env!("CARGO_PKG_VERSION") })
}

/// `subscriptions/listen` (2026-07-28): first which of the wanted announcements there are, then those.
async fn listen(front: &Arc<Front>, link: &Arc<Link>, request: &Request<'_>) -> Response<Outgoing> {
    const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
    let wanted = request.params.get("notifications");
    let wants = |name: &str| wanted.and_then(|wanted| wanted.get(name)) == Some(&Value::Bool(true));
    let mut granted = Map::new();
    for name in ["toolsListChanged", "promptsListChanged", "resourcesListChanged"] {
        if wants(name) {
            granted.insert(name.into(), true.into());
        }
    }
    let (updates, uris) = updates(front, request, wanted).await;
    if !uris.is_empty() {
        granted.insert("resourceSubscriptions".into(), uris.into());
    }
    let meta = format!(r#""_meta":{{"{SUBSCRIPTION}":{}}}"#, request.id);
    let opening = format!(r#"{{{meta},"notifications":{}}}"#, Value::Object(granted));
    let opening =
        body::message_event(&wire::notification("notifications/subscriptions/acknowledged", &opening));
    let change = wants("toolsListChanged")
        .then(|| wire::notification("notifications/tools/list_changed", &format!("{{{meta}}}")));
    let result = format!("{{{meta}}}");
    let closing = deliver::result(request.id, &result, Era::Modern, &[]);
    let closing = (!request.through_bridge).then_some(closing);
    let hears = Wants {
        prompts: wants("promptsListChanged"),
        resources: wants("resourcesListChanged"),
        remarks: false,
        subscription: Some(request.id.to_owned()),
    };
    let place = front.hub.listen(request.caller, request.client, hears, updates.subscribed());
    let (end, guard) = (CancellationToken::new(), Some(Box::new(updates) as Box<dyn Send>));
    let track = None;
    stream::announce(front, link, Announcements { opening, change, closing, end, place, guard, track })
}

/// What one stream of a modern client follows; nobody else's when it is dropped.
struct Updates {
    front: Arc<Front>,
    caller: Caller,
    client: Arc<Client>,
    /// The stream's own name among the subscribers.
    channel: String,
    followed: BTreeSet<(String, String)>,
}

impl Updates {
    fn subscribed(&self) -> BTreeSet<(String, String)> {
        self.followed.clone()
    }
}

impl Drop for Updates {
    fn drop(&mut self) {
        for (server, uri) in &self.followed {
            let last = self.front.hub.unsubscribe(&self.channel, server, uri);
            if let Some(upstream) = self.front.upstreams.get(server).filter(|_| last) {
                unfollow(&self.front, &upstream, &self.caller, &self.client, uri);
            }
        }
    }
}

async fn updates(
    front: &Arc<Front>,
    request: &Request<'_>,
    wanted: Option<&Value>,
) -> (Updates, Vec<String>) {
    const MOST: usize = 1_000;
    let mut updates = Updates {
        front: front.clone(),
        caller: request.caller.clone(),
        client: request.client.clone(),
        channel: format!("stream:{}", uuid::Builder::from_random_bytes(rand::random()).into_uuid()),
        followed: BTreeSet::new(),
    };
    let mut granted = Vec::new();
    let uris = wanted.and_then(|wanted| wanted.get("resourceSubscriptions")).and_then(Value::as_array);
    for uri in uris.into_iter().flatten().filter_map(Value::as_str).take(MOST) {
        for (upstream, own) in lists::homes_of_uri(front, request.caller, request.client, uri).await {
            if follow(&upstream, request.caller, request.client, &own).await.is_ok() {
                front.hub.subscribe(&updates.channel, &upstream.config().name, &own);
                follow_modern(front, &upstream, request.caller, request.client);
                updates.followed.insert((upstream.config().name.clone(), own));
                granted.push(uri.to_owned());
                break;
            }
        }
    }
    (updates, granted)
}

/// The client's own name.
pub(super) fn client_name(params: &Map<String, Value>, era: Era) -> String {
    let info = match era {
        Era::Legacy => params.get("clientInfo"),
        Era::Modern => params.get("_meta").and_then(|meta| meta.get(META_CLIENT)),
    };
    let name = info.and_then(|info| info.get("name")).and_then(Value::as_str).unwrap_or_default();
    name.chars().take(CLIENT_MOST).collect()
}
