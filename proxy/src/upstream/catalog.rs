//! A server's tools as it defines them: every page, every member, and a hash to notice changes by.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use holdfast_policy::Hints;
use holdfast_store::definition_hash;
use serde_json::{Map, Value};

use super::{
    Tool,
    headers::{Mirrored, flaw, mirrored},
    link::{Link, NoAnswer},
};
use crate::wire;

/// Pages of one `tools/list` that are read before a server is taken to be going in circles.
const MOST_PAGES: usize = 1000;

/// The tools of one `tools/list`.
pub(super) struct Catalog {
    pub(super) tools: Arc<Vec<Tool>>,
    by_name: HashMap<String, usize>,
    mirrored: HashMap<String, Vec<Mirrored>>,
}

impl Catalog {
    /// Reads all pages.
    pub(super) async fn fetch(link: &Link, server: &str) -> Result<Self, NoAnswer> {
        let (mut definitions, mut cursors, mut cursor) = (Vec::new(), HashSet::new(), None::<String>);
        for _ in 0..MOST_PAGES {
            let members =
                cursor.map(|cursor| format!(r#""cursor":{}"#, Value::from(cursor))).unwrap_or_default();
            let page = match link.request("tools/list", &members).await {
                Ok(page) => page,
                // A server without tools need not know the method.
                Err(NoAnswer::Refused(refused)) if refused.code == Some(wire::METHOD_NOT_FOUND) => break,
                Err(error) => return Err(error),
            };
            let mut page: Map<String, Value> = serde_json::from_str(&page).map_err(|error| {
                NoAnswer::Gone(format!("`tools/list` of server `{server}` cannot be read: {error}"))
            })?;
            if let Some(Value::Array(tools)) = page.remove("tools") {
                definitions.extend(tools);
            }
            cursor = match page.remove("nextCursor") {
                Some(Value::String(next)) if cursors.insert(next.clone()) => Some(next),
                _ => None,
            };
            if cursor.is_none() {
                break;
            }
        }
        if link.has_headers() {
            definitions.retain(|definition| is_usable(definition, server));
        }
        Ok(Self::of(definitions, server))
    }

    pub(super) fn of(definitions: Vec<Value>, server: &str) -> Self {
        let (mut tools, mut by_name, mut all_mirrored) = (Vec::new(), HashMap::new(), HashMap::new());
        for definition in definitions {
            let Some(name) = definition["name"].as_str().map(str::to_owned) else {
                tracing::warn!(target: "upstream", server, "a tool without a name is left out");
                continue;
            };
            if by_name.contains_key(&name) {
                tracing::warn!(target: "upstream", server, tool = name, "a second tool of this name is left out");
                continue;
            }
            by_name.insert(name.clone(), tools.len());
            let wanted = mirrored(&definition);
            if !wanted.is_empty() {
                all_mirrored.insert(name.clone(), wanted);
            }
            tools.push(Tool {
                hash: definition_hash(&definition).to_string().into(),
                hints: Hints::of_tool(&definition),
                has_output_schema: definition["outputSchema"].is_object(),
                name,
                definition,
            });
        }
        Self { tools: Arc::new(tools), by_name, mirrored: all_mirrored }
    }

    pub(super) fn tool(&self, name: &str) -> Option<&Tool> {
        self.by_name.get(name).map(|at| &self.tools[*at])
    }

    /// What of `arguments` goes into headers, for servers that speak the modern era over HTTP.
    pub(super) fn mirrored(&self, tool: &str, arguments: &str) -> Vec<(String, String)> {
        let Some(wanted) = self.mirrored.get(tool) else { return Vec::new() };
        let arguments: Map<String, Value> = serde_json::from_str(arguments).unwrap_or_default();
        wanted.iter().filter_map(|one| Some((one.header.clone(), one.value(&arguments)?))).collect()
    }

    /// Whether both list the same definitions in the same order.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.tools.len() == other.tools.len()
            && self.tools.iter().zip(&*other.tools).all(|(one, other)| one.hash == other.hash)
    }
}

/// Whether a tool's arguments can be mirrored as it wants. Others go on without it.
fn is_usable(definition: &Value, server: &str) -> bool {
    let Some(flaw) = flaw(definition) else { return true };
    let tool = definition["name"].as_str().unwrap_or_default();
    tracing::warn!(target: "upstream", server, tool, flaw, "a tool whose x-mcp-header cannot be is left out");
    false
}
