//! What agents see of all servers' resources, templates and prompts: one list each, and the way back to the server.
//!
//! Names of prompts are those of tools: `server__prompt`. Resources keep their URIs, because servers write them into
//! texts; only one that two servers list is shown with its server for the second (`holdfast://server/NAME?uri=...`).

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use holdfast_store::{Caller, Text};
use regex::Regex;
use serde_json::{Value, value::RawValue};
use tokio::time::timeout;

use super::{Front, era::Era, splice::set_member, tools};
use crate::{
    upstream::{Client, Relayed, Signal, Unsent, Upstream},
    wire,
};

/// How long a server may take for all of its list.
const LIST_LIMIT: Duration = Duration::from_secs(10);
/// Pages of one list that are read before a server is taken to be going in circles.
const MOST_PAGES: usize = 1_000;
const WRAPPED: &str = "holdfast://server/";

/// One of the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Resources,
    Templates,
    Prompts,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Resources, Self::Templates, Self::Prompts];

    pub(super) fn of(method: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.method() == method)
    }

    pub(super) fn method(self) -> &'static str {
        match self {
            Self::Resources => "resources/list",
            Self::Templates => "resources/templates/list",
            Self::Prompts => "prompts/list",
        }
    }

    /// The member of the result that is the list.
    fn member(self) -> &'static str {
        match self {
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
            Self::Prompts => "prompts",
        }
    }

    /// The member of an item that names it.
    fn id(self) -> &'static str {
        match self {
            Self::Resources => "uri",
            Self::Templates => "uriTemplate",
            Self::Prompts => "name",
        }
    }

    fn capability(self) -> &'static str {
        match self {
            Self::Resources | Self::Templates => "resources",
            Self::Prompts => "prompts",
        }
    }
}

/// Where things were seen last.
#[derive(Default)]
pub(super) struct Index {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Server by URI as agents see it.
    resources: HashMap<String, String>,
    /// Server by prompt as agents see it, with the server's own name of it.
    prompts: HashMap<String, (String, String)>,
    templates: Vec<(Regex, String)>,
}

/// One server's list.
struct Listed {
    upstream: Arc<Upstream>,
    items: Vec<Text>,
    /// The other members of the result.
    rest: Vec<(String, Text)>,
}

/// The result of a list over all servers.
pub(super) async fn list(front: &Front, caller: &Caller, client: &Arc<Client>, kind: Kind) -> String {
    let all = front.upstreams.all();
    let asked = all.iter().map(async |upstream| {
        let name = &upstream.config().name;
        match timeout(LIST_LIMIT, fetch(upstream, caller, client, kind)).await {
            Ok(Ok(listed)) => listed,
            Ok(Err(why)) => {
                tracing::warn!(server = %name, why, method = kind.method(), "is left out of a list");
                None
            }
            Err(_) => {
                tracing::warn!(server = %name, method = kind.method(), "takes too long and is left out of a list");
                None
            }
        }
    });
    let lists: Vec<Listed> = join_all(asked).await.into_iter().flatten().collect();
    let items = front.index.take(front, kind, &lists);
    result(kind, &items, &lists)
}

/// One server's whole list; none where it has no such thing.
async fn fetch(
    upstream: &Arc<Upstream>,
    caller: &Caller,
    client: &Arc<Client>,
    kind: Kind,
) -> Result<Option<Listed>, String> {
    let about = upstream.about(caller, client).await.map_err(|unsent| unsent.message)?;
    if !about["capabilities"][kind.capability()].is_object() {
        return Ok(None);
    }
    let mut listed = Listed { upstream: upstream.clone(), items: Vec::new(), rest: Vec::new() };
    let (mut cursor, mut cursors) = (None::<Text>, std::collections::HashSet::new());
    for _ in 0..MOST_PAGES {
        let members = cursor.iter().map(|cursor| ("cursor".to_owned(), cursor.clone())).collect();
        let relayed = Relayed::new(caller, client, kind.method(), members);
        let page = match ask(upstream, relayed).await {
            Ok(page) => page,
            // Servers that have resources need not have templates.
            Err(Failed::Refused(error)) if error.value()["code"] == wire::METHOD_NOT_FOUND => break,
            Err(Failed::Refused(error)) => return Err(error.to_string()),
            Err(Failed::Unsent(unsent)) => return Err(unsent.message),
            Err(Failed::Lost(why)) => return Err(why),
        };
        cursor = None;
        for (name, value) in wire::members(&page).unwrap_or_default() {
            let value = Text::parse(value).map_err(|error| error.to_string())?;
            if name == kind.member() {
                let items =
                    serde_json::from_str::<Vec<&RawValue>>(&value).map_err(|error| error.to_string())?;
                listed.items.extend(items.into_iter().map(Text::from));
            } else if name == "nextCursor" {
                cursor = (value.value().is_string() && cursors.insert(value.clone())).then_some(value);
            } else if listed.rest.iter().all(|(other, _)| *other != name) {
                listed.rest.push((name.into_owned(), value));
            }
        }
        if cursor.is_none() {
            break;
        }
    }
    Ok(Some(listed))
}

/// Why a request of ours has no result.
#[derive(Debug)]
pub(super) enum Failed {
    /// The server's `error` member.
    Refused(Text),
    Unsent(Unsent),
    Lost(String),
}

/// Sends a request that changes nothing and that nobody can be asked about, and waits for its result.
pub(super) async fn ask(upstream: &Arc<Upstream>, relayed: Relayed) -> Result<Text, Failed> {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let flight = upstream.relay(relayed, Box::new(move |signal| drop(tell.send(signal))));
    let _recalled = Recalled(Some(flight));
    while let Some(signal) = told.recv().await {
        match signal {
            Signal::Progress(_) | Signal::Remarked(_) => {}
            Signal::Asked(question) => {
                let why = "nothing can be asked in the middle of this request";
                question.refuse(&wire::error_member(wire::METHOD_NOT_FOUND, why, None));
            }
            Signal::Answered(answer) => return Ok(answer.text),
            Signal::Refused(refused) => return Err(Failed::Refused(refused.error)),
            Signal::Unsent(unsent) => return Err(Failed::Unsent(unsent)),
            Signal::Lost(_, why) => return Err(Failed::Lost(why)),
        }
    }
    Err(Failed::Lost("the connection has ended".into()))
}

/// Cancels what is not waited for any more; of one that is answered this is nothing to the server.
struct Recalled(Option<crate::upstream::Flight>);

impl Drop for Recalled {
    fn drop(&mut self) {
        if let Some(flight) = self.0.take() {
            flight.cancel("not wanted any more");
        }
    }
}

fn result(kind: Kind, items: &[String], lists: &[Listed]) -> String {
    let mut members: BTreeMap<&str, String> = BTreeMap::new();
    let mut order = Vec::new();
    for (name, value) in lists.iter().flat_map(|listed| &listed.rest) {
        match (name.as_str(), members.get(name.as_str())) {
            (name, None) => {
                order.push(name);
                members.insert(name, value.to_string());
            }
            // What one of them wants fresh, all of it must be.
            ("ttlMs", Some(known)) => {
                let least = known.parse::<f64>().unwrap_or(0.0) <= value.parse::<f64>().unwrap_or(0.0);
                if !least {
                    members.insert("ttlMs", value.to_string());
                }
            }
            ("cacheScope", Some(_)) if &**value != r#""public""# => {
                members.insert("cacheScope", value.to_string());
            }
            _ => {}
        }
    }
    let mut text = format!(r#"{{"{}":[{}]"#, kind.member(), items.join(","));
    for name in order {
        text.push_str(&format!(",{}:{}", Value::from(name), members[name]));
    }
    text.push('}');
    text
}

impl Index {
    /// Notes where everything is, and gives the items as agents see them.
    fn take(&self, front: &Front, kind: Kind, lists: &[Listed]) -> Vec<String> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut shown = Vec::new();
        let mut ids: HashMap<String, String> = HashMap::new();
        if kind == Kind::Templates {
            seen.templates.clear();
        }
        for Listed { upstream, items, .. } in lists {
            let server = &upstream.config().name;
            for item in items {
                let id = item.value()[kind.id()].as_str().map(str::to_owned);
                let Some(id) = id else {
                    shown.push(item.to_string());
                    continue;
                };
                let taken = ids.contains_key(&id);
                let name = match kind {
                    Kind::Prompts => tools::shown(&front.upstreams, upstream, &id, taken),
                    Kind::Resources | Kind::Templates if taken => wrap(server, &id),
                    Kind::Resources | Kind::Templates => id.clone(),
                };
                if ids.insert(name.clone(), server.clone()).is_some() {
                    continue;
                }
                shown.push(if name == id {
                    item.to_string()
                } else {
                    set_member(item, kind.id(), &Value::from(&*name).to_string())
                });
                match kind {
                    Kind::Resources => drop(seen.resources.insert(name, server.clone())),
                    Kind::Prompts => drop(seen.prompts.insert(name, (server.clone(), id))),
                    Kind::Templates => {
                        seen.templates.extend(pattern(&id).map(|regex| (regex, server.clone())))
                    }
                }
            }
        }
        shown
    }
}

/// A URI with its server.
fn wrap(server: &str, uri: &str) -> String {
    let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("uri", uri).finish();
    format!("{WRAPPED}{server}?{query}")
}

fn unwrap(uri: &str) -> Option<(String, String)> {
    let (server, query) = uri.strip_prefix(WRAPPED)?.split_once('?')?;
    let (_, uri) = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "uri")?;
    Some((server.to_owned(), uri.into_owned()))
}

/// What a URI template (RFC 6570) can become, roughly: as narrow as is needed to find its server.
fn pattern(template: &str) -> Option<Regex> {
    let mut pattern = String::from("^");
    let mut rest = template;
    while let Some((literal, after)) = rest.split_once('{') {
        let (expression, after) = after.split_once('}')?;
        pattern.push_str(&regex::escape(literal));
        pattern.push_str(match expression.chars().next()? {
            '+' | '#' | '/' | '.' | ';' => ".*",
            '?' | '&' => r"([?&].*)?",
            _ => "[^/?#]*",
        });
        rest = after;
    }
    pattern.push_str(&regex::escape(rest));
    pattern.push('$');
    Regex::new(&pattern).ok()
}

/// The servers that a resource can be of, the likeliest first, and how they name it.
pub(super) async fn homes_of_uri(
    front: &Front,
    caller: &Caller,
    client: &Arc<Client>,
    uri: &str,
) -> Vec<(Arc<Upstream>, String)> {
    if let Some((server, uri)) = unwrap(uri) {
        return front.upstreams.get(&server).map(|upstream| (upstream, uri)).into_iter().collect();
    }
    let mut homes = Vec::new();
    for known in [true, false] {
        let server = {
            let seen = front.index.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let by_template =
                || seen.templates.iter().find(|(regex, _)| regex.is_match(uri)).map(|(_, server)| server);
            seen.resources.get(uri).or_else(by_template).cloned()
        };
        homes = server.and_then(|server| front.upstreams.get(&server)).into_iter().collect();
        let all = having(front, caller, client, "resources").await;
        if !homes.is_empty() || all.len() < 2 || !known {
            homes.extend(
                all.into_iter()
                    .filter(|one| homes.iter().all(|home| !Arc::ptr_eq(home, one)))
                    .collect::<Vec<_>>(),
            );
            break;
        }
        // Nobody has listed anything yet, as after a restart: now it is known.
        for kind in [Kind::Resources, Kind::Templates] {
            list(front, caller, client, kind).await;
        }
    }
    homes.into_iter().map(|upstream| (upstream, uri.to_owned())).collect()
}

/// The server of a prompt, and its own name of it.
pub(super) async fn home_of_prompt(
    front: &Front,
    caller: &Caller,
    client: &Arc<Client>,
    name: &str,
) -> Option<(Arc<Upstream>, String)> {
    let find = || {
        let seen = front.index.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (server, own) = seen.prompts.get(name)?.clone();
        Some((front.upstreams.get(&server)?, own))
    };
    if let Some(home) = find() {
        return Some(home);
    }
    list(front, caller, client, Kind::Prompts).await;
    find()
}

/// The servers that have this capability, of those that are there or soon are.
pub(super) async fn having(
    front: &Front,
    caller: &Caller,
    client: &Arc<Client>,
    capability: &str,
) -> Vec<Arc<Upstream>> {
    let all = front.upstreams.all();
    let asked = all.iter().map(async |upstream| {
        let about = timeout(LIST_LIMIT, upstream.about(caller, client)).await.ok()?.ok()?;
        about["capabilities"][capability].is_object().then(|| upstream.clone())
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// What a result of these lists needs in the client's era and does not have.
pub(super) fn needs_cache_hints(era: Era, method: &str) -> bool {
    era == Era::Modern && (Kind::of(method).is_some() || method == "resources/read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_uri_leads_back() {
        let uri = "x://y/ü?a=1&uri=2#f";
        assert_eq!(unwrap(&wrap("bank", uri)), Some(("bank".into(), uri.into())));
        assert_eq!(unwrap("holdfast://answers/1"), None);
        assert_eq!(unwrap(uri), None);
    }

    #[test]
    fn templates_find_their_uris() {
        let check = |template: &str, uri: &str, expected: bool| {
            assert_eq!(pattern(template).expect("a pattern").is_match(uri), expected, "{template} {uri}");
        };
        check("test://t/{id}/data", "test://t/7/data", true);
        check("test://t/{id}/data", "test://t/7/8/data", false);
        check("file:///{+path}", "file:///a/b", true);
        check("x://s{?q,lang}", "x://s", true);
        check("x://s{?q,lang}", "x://s?q=1", true);
        check("x://a.b", "x://aXb", false);
        assert!(pattern("x://{broken").is_none());
    }
}
