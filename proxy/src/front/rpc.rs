//! Every method but `tools/call`: handshakes of both eras, lists, pings, subscriptions.

use std::sync::Arc;

use holdfast_store::Caller;
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    Front,
    body::{self, Outgoing},
    deliver,
    era::{self, Era, META_CLIENT},
    guest::Guest,
    http::{self, Accepts},
    listen::Link,
    problem::Problem,
    stream::{self, Announcements},
    tasks,
};
use crate::{
    driver::{Receipt, now},
    upstream::Client,
    wire,
};

const INSTRUCTIONS: &str = "Tools are named server__tool. A call may be held until a person approves it: then the result \
says so and names a call id. Collect it with holdfast_wait, or by repeating exactly the same call; do not look for \
another way to do it. When a result says outcome-unknown, the call may have happened: do not repeat it.";

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
}

/// Answers the request.
pub(super) async fn handle(
    front: &Arc<Front>,
    link: &Arc<Link>,
    request: &Request<'_>,
    method: &str,
    params: &Map<String, Value>,
) -> Result<Response<Outgoing>, Problem> {
    let result = match (request.era, method) {
        (Era::Legacy, "initialize") => return initialize(front, link, request, params).await,
        (Era::Legacy, "ping") => "{}".to_owned(),
        (Era::Modern, "server/discover") => discover(),
        (Era::Modern, "subscriptions/listen") => {
            if params.get("notifications").is_some_and(|wanted| wanted.get("taskIds").is_some()) {
                tasks::must_be_known(params)?;
            }
            return Ok(listen(front, link, request, params));
        }
        (Era::Modern, "tasks/get" | "tasks/update" | "tasks/cancel") => {
            return tasks::handle(front, link, request, method, params).await;
        }
        (era, "tools/list") => {
            if params.get("cursor").is_some_and(|cursor| !cursor.is_null()) {
                return Err(Problem::invalid_params(
                    "invalid-arguments",
                    "unknown cursor: the list has one page",
                ));
            }
            front.catalogue.result(&front.driver, request.caller, era).await
        }
        (era, _) => return Err(era::unknown_method(era, method)),
    };
    Ok(answer(link, request, wire::result(request.id, &result)))
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
    let result = json!({
        "protocolVersion": version,
        "capabilities": capabilities(Era::Legacy),
        "serverInfo": server_info(),
        "instructions": INSTRUCTIONS,
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
        front.driver.channel_gone(&http::session_channel(ended));
    }
    Ok(http::with_session(response, &begun.id))
}

fn discover() -> String {
    let result = json!({
        "supportedVersions": era::supported(),
        "capabilities": capabilities(Era::Modern),
        "instructions": INSTRUCTIONS,
        "resultType": "complete",
        "ttlMs": 0,
        "cacheScope": "private",
        "_meta": { (era::META_SERVER): server_info() },
    });
    result.to_string()
}

fn capabilities(era: Era) -> Value {
    let tools = json!({ "listChanged": true });
    match era {
        Era::Legacy => json!({ "tools": tools }),
        Era::Modern => json!({ "tools": tools, "extensions": { tasks::EXTENSION: {} } }),
    }
}

/// `serverInfo`.
pub(super) fn server_info() -> Value {
    json!({ "name": "holdfast", "title": "Holdfast", "version": env!("CARGO_PKG_VERSION") })
}

/// `subscriptions/listen` (2026-07-28): first which of the wanted announcements there are, then those.
fn listen(
    front: &Arc<Front>,
    link: &Arc<Link>,
    request: &Request<'_>,
    params: &Map<String, Value>,
) -> Response<Outgoing> {
    const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
    let wants_tools = params.get("notifications").and_then(|wanted| wanted.get("toolsListChanged"));
    let granted = if wants_tools == Some(&Value::Bool(true)) { r#"{"toolsListChanged":true}"# } else { "{}" };
    let meta = format!(r#""_meta":{{"{SUBSCRIPTION}":{}}}"#, request.id);
    let opening = format!(r#"{{{meta},"notifications":{granted}}}"#);
    let opening =
        body::message_event(&wire::notification("notifications/subscriptions/acknowledged", &opening));
    let change = (granted != "{}")
        .then(|| wire::notification("notifications/tools/list_changed", &format!("{{{meta}}}")));
    let result = format!("{{{meta}}}");
    let closing = deliver::result(request.id, &result, Era::Modern, &[]);
    let end = CancellationToken::new();
    let closing = (!request.through_bridge).then_some(closing);
    stream::announce(front, link, Announcements { opening, change, closing, end })
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
