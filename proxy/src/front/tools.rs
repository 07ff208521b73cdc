//! What agents see of all servers' tools: one list, names that lead back exactly, definitions untouched.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{FutureExt, future::join_all};
use holdfast_store::Caller;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    absent,
    era::{Era, META_SERVER},
    rpc,
};
use crate::{
    driver::{Driver, Known},
    upstream::{Tool, Upstream, Upstreams},
};

/// Collects a held or running call.
pub(super) const WAIT: &str = "holdfast_wait";
/// Tells where a call stands.
pub(super) const STATUS: &str = "holdfast_call_status";

/// MCP 2026-07-28: names have 1 to 128 of `[A-Za-z0-9_.-]`; some clients drop tools that do not keep to it.
const NAME_MOST: usize = 128;
const JOINT: &str = "__";
/// Hex digits of the hash that makes a changed name unique.
const MARK: usize = 12;

/// The name under which agents see `tool` of `server`.
///
/// `server__tool` where that is a valid name that can be read in one way only; else its valid part and a hash of it.
/// Configured server names hold no `__`, so the first one ends the server's name, unless that ends with `_` itself.
pub(super) fn exposed(server: &str, tool: &str) -> String {
    let plain = format!("{server}{JOINT}{tool}");
    if plain.len() <= NAME_MOST && !server.ends_with('_') && !tool.is_empty() && plain.chars().all(is_valid) {
        return plain;
    }
    let mut name = stem(&plain);
    let mut hash = Sha256::new();
    hash.update((server.len() as u64).to_be_bytes());
    hash.update(server);
    hash.update(tool);
    name.push('_');
    for byte in &hash.finalize()[..MARK / 2] {
        name.push_str(&format!("{byte:02x}"));
    }
    name
}

/// What a changed name begins with: every character that is not valid is `_`.
fn stem(plain: &str) -> String {
    plain.chars().map(|c| if is_valid(c) { c } else { '_' }).take(NAME_MOST - MARK - 1).collect()
}

fn is_valid(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

/// Whether agents may see `tool` under its own name, where nobody before has it.
///
/// A name that reads as `server__tool` of any server stays that server's, and ours stay ours.
fn is_bare(upstreams: &Upstreams, upstream: &Upstream, tool: &str) -> bool {
    let config = upstream.config();
    !config.prefix && is_free(tool, upstreams.all().iter().map(|other| other.name()))
}

fn is_free<'a>(tool: &str, mut servers: impl Iterator<Item = &'a str>) -> bool {
    (1..=NAME_MOST).contains(&tool.len())
        && tool.chars().all(is_valid)
        && !tool.starts_with("holdfast_")
        && !servers.any(|server| tool.starts_with(&format!("{server}{JOINT}")))
}

/// The name under which agents see `name`; `taken` where something of another server stands under it as it is.
pub(super) fn shown(upstreams: &Upstreams, upstream: &Upstream, name: &str, taken: bool) -> String {
    let bare = !taken && is_bare(upstreams, upstream, name);
    if bare { name.to_owned() } else { exposed(&upstream.config().name, name) }
}

/// Whether `name` is a name of this tool.
pub(super) fn can_mean(upstreams: &Upstreams, name: &str, server: &str, tool: &str) -> bool {
    exposed(server, tool) == name
        || (tool == name && upstreams.get(server).is_some_and(|upstream| is_bare(upstreams, &upstream, tool)))
}

/// What a name stands for.
pub(super) enum Found {
    /// A tool of a server: the list it stands in, and where.
    Tool(Arc<Upstream>, Arc<Vec<Tool>>, usize),
    /// The name is one of this server's, but whether it has such a tool cannot be found out now.
    Unlisted(Arc<Upstream>, String),
    /// Nothing; with the names that were perhaps meant.
    Nothing(Vec<String>),
}

/// Finds the tool that agents call `name`.
pub(super) async fn find(upstreams: &Upstreams, caller: &Caller, name: &str) -> Found {
    let mut unlisted = None;
    for upstream in upstreams.all() {
        let server = upstream.name();
        // A changed name keeps the server's name in front as far as that is valid, so few servers are ever asked.
        let own = name.strip_prefix(server).and_then(|rest| rest.strip_prefix(JOINT));
        if own.is_none() && !may_be_changed(server, name) {
            continue;
        }
        match upstream.tools(caller).await {
            Ok(tools) => {
                let is_plain =
                    |tool: &Tool| own == Some(tool.name.as_str()) && exposed(server, &tool.name) == name;
                let is_changed = |tool: &Tool| exposed(server, &tool.name) == name;
                if let Some(at) =
                    tools.iter().position(is_plain).or_else(|| tools.iter().position(is_changed))
                {
                    return Found::Tool(upstream.clone(), tools, at);
                }
            }
            Err(_) => {
                if let Some(own) = own {
                    unlisted.get_or_insert((upstream.clone(), own.to_owned()));
                }
            }
        }
    }
    match unlisted {
        Some((upstream, tool)) => Found::Unlisted(upstream, tool),
        None => find_bare(upstreams, caller, name).await,
    }
}

/// The same for names without a prefix: the first server that has it stands.
async fn find_bare(upstreams: &Upstreams, caller: &Caller, name: &str) -> Found {
    for upstream in upstreams.all().iter().filter(|upstream| is_bare(upstreams, upstream, name)) {
        match upstream.tools(caller).await {
            Ok(tools) => {
                if let Some(at) = tools.iter().position(|tool| tool.name == name) {
                    return Found::Tool(upstream.clone(), tools, at);
                }
            }
            // It may be its name, and another server's tool must not answer to it.
            Err(_) => return Found::Unlisted(upstream.clone(), name.to_owned()),
        }
    }
    Found::Nothing(near(upstreams, caller, name))
}

/// Whether `name` may be a changed name of one of the server's tools.
fn may_be_changed(server: &str, name: &str) -> bool {
    name.len() > MARK && name.starts_with(&stem(&format!("{server}{JOINT}")))
}

/// The names that are most like `name`, of the servers whose tools are known already.
fn near(upstreams: &Upstreams, caller: &Caller, name: &str) -> Vec<String> {
    let mut names: Vec<(usize, String)> = Vec::new();
    for upstream in upstreams.all() {
        let tools = upstream.tools(caller).now_or_never().and_then(Result::ok).unwrap_or_default();
        for tool in tools.iter() {
            let bare = is_bare(upstreams, &upstream, &tool.name);
            let shown = if bare { tool.name.clone() } else { exposed(upstream.name(), &tool.name) };
            let distance = if tool.name == name { 0 } else { distance(&shown, name) };
            if distance <= 3.max(name.len() / 4) {
                names.push((distance, shown));
            }
        }
    }
    names.sort();
    names.dedup();
    names.truncate(3);
    names.into_iter().map(|(_, name)| name).collect()
}

/// Levenshtein distance of the first 128 bytes.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (&a.as_bytes()[..a.len().min(NAME_MOST)], &b.as_bytes()[..b.len().min(NAME_MOST)]);
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The servers whose tools are known, in the order of the configuration. One that is down never hides the others.
async fn listed(upstreams: &Upstreams, caller: &Caller) -> Vec<(Arc<Upstream>, Arc<Vec<Tool>>)> {
    let asked = upstreams.all().into_iter().map(|upstream| async move {
        let tools = upstream.tools(caller).await;
        (upstream, tools)
    });
    let mut lists = Vec::new();
    for (upstream, tools) in join_all(asked).await {
        match tools {
            Ok(tools) => lists.push((upstream, tools)),
            Err(unsent) => {
                tracing::warn!(
                    server = upstream.name(),
                    code = unsent.code,
                    "its tools are not known: one that says so stands for them"
                );
                let stand_in = absent::stand_in(&upstream, &unsent);
                lists.push((upstream, stand_in));
            }
        }
    }
    lists
}

/// The rendered list, kept as long as neither a server's list nor what is trusted changes.
#[derive(Default)]
pub(super) struct Catalogue {
    last: Mutex<Option<Rendered>>,
}

struct Rendered {
    register: u32,
    from: Vec<Arc<Vec<Tool>>>,
    tools: Arc<str>,
}

impl Catalogue {
    /// The result of `tools/list`.
    pub(super) async fn result(&self, driver: &Driver, caller: &Caller, era: Era) -> String {
        let lists = listed(driver.upstreams(), caller).await;
        let tools = self.render(driver, &lists);
        match era {
            Era::Legacy => format!(r#"{{"tools":{tools}}}"#),
            Era::Modern => {
                let server = rpc::server_info();
                format!(
                    r#"{{"tools":{tools},"resultType":"complete","ttlMs":0,"cacheScope":"private","_meta":{{"{META_SERVER}":{server}}}}}"#
                )
            }
        }
    }

    fn render(&self, driver: &Driver, lists: &[(Arc<Upstream>, Arc<Vec<Tool>>)]) -> Arc<str> {
        // Read first: what is accepted while the list is made is in the next one.
        let register = driver.register_version();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = &*last
            && last.register == register
            && last.from.len() == lists.len()
            && last.from.iter().zip(lists).all(|(old, (_, new))| Arc::ptr_eq(old, new))
        {
            return last.tools.clone();
        }
        let mut names = std::collections::HashSet::new();
        let mut shown = Vec::new();
        for (upstream, tools) in lists {
            let server = upstream.name();
            for tool in tools.iter() {
                let bare = is_bare(driver.upstreams(), upstream, &tool.name) && !names.contains(&tool.name);
                let name = if bare { tool.name.clone() } else { exposed(server, &tool.name) };
                // Only a server that lists one name twice, or guesses a hash, is stopped here: the first one stands.
                let is_first = names.insert(name.clone());
                // What an agent would read of a tool that is not trusted could be meant to mislead it.
                if is_first && driver.known(server, tool) != Known::Changed {
                    shown.push(definition(tool, name));
                }
            }
        }
        shown.extend(ours());
        let tools: Arc<str> = Value::Array(shown).to_string().into();
        let from = lists.iter().map(|(_, tools)| tools.clone()).collect();
        *last = Some(Rendered { register, from, tools: tools.clone() });
        tools
    }
}

fn definition(tool: &Tool, name: String) -> Value {
    let mut definition = tool.definition.clone();
    if let Some(members) = definition.as_object_mut() {
        members.insert("name".into(), name.into());
    }
    definition
}

fn ours() -> [Value; 2] {
    let call_id = json!({ "type": "string", "description": "The call id, as given in _meta[\"io.holdfast/call\"] and in the text." });
    let hints = json!({ "readOnlyHint": true, "destructiveHint": false, "idempotentHint": true, "openWorldHint": false });
    [
        json!({
            "name": WAIT,
            "title": "Collect a held or running call",
            "description": "Waits for a call that is held for a person's decision or still runs, and gives its result as the tool itself would have given it. It never starts the call again, so it is safe to repeat.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "call_id": call_id,
                    "timeout_s": { "type": "integer", "minimum": 0, "maximum": 3600, "description": "How many seconds to wait at most, 45 by default." },
                },
                "required": ["call_id"],
                "additionalProperties": false,
            },
            "annotations": hints,
        }),
        json!({
            "name": STATUS,
            "title": "Where a call stands",
            "description": "Tells at once where a call stands (asking, in flight, in doubt, succeeded, ...) without waiting for it.",
            "inputSchema": {
                "type": "object",
                "properties": { "call_id": call_id },
                "required": ["call_id"],
                "additionalProperties": false,
            },
            "annotations": hints,
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_valid_name(name: &str) -> bool {
        (1..=128).contains(&name.len()) && name.chars().all(is_valid)
    }

    #[test]
    fn plain_names_stay_plain() {
        assert_eq!(exposed("bank", "transfer"), "bank__transfer");
        assert_eq!(exposed("b-1.x", "a__b"), "b-1.x__a__b");
        assert_eq!(exposed("a", "_b"), "a___b");
    }

    #[test]
    fn odd_names_become_valid_and_never_meet() {
        let long = "t".repeat(300);
        let servers = ["a", "a_", "bank", "übung", &long];
        let tools = ["b", "_b", "b c", "b_c", "b/c", "", "ä", "__", &long, &long[1..]];
        let mut seen = std::collections::HashMap::new();
        for server in servers {
            for tool in tools {
                let name = exposed(server, tool);
                assert!(is_valid_name(&name), "{name}");
                assert_eq!(seen.insert(name.clone(), (server, tool)), None, "{name}");
                assert_eq!(name, exposed(server, tool));
            }
        }
    }

    #[test]
    fn a_changed_name_still_leads_to_its_server() {
        let long = "s".repeat(200);
        for server in ["a", "a_", "bank", "übung", &long] {
            for tool in ["b c", "", "ä"] {
                assert!(may_be_changed(server, &exposed(server, tool)), "{server} {tool}");
            }
        }
        assert!(!may_be_changed("bank", "search__find_it_0123456789ab"));
    }

    #[test]
    fn a_bare_name_is_never_somebody_elses() {
        let check = |tool: &str, expected: bool| {
            assert_eq!(is_free(tool, ["bank", "search"].into_iter()), expected, "{tool}");
        };
        check("transfer", true);
        check("a__b", true);
        check("bank__transfer", false);
        check("search__", false);
        check("holdfast_wait", false);
        check("", false);
        check("a b", false);
        check(&"t".repeat(129), false);
    }

    #[test]
    fn distances() {
        assert_eq!(distance("bank__transfer", "bank__transfer"), 0);
        assert_eq!(distance("bank__transfer", "bank_transfer"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
