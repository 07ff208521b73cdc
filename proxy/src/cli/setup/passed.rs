//! Variables that a client has to pass on: most give the servers that they start little of their own environment.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::config::import::{Client, Data, Node, Syntax};

/// What every client passes on, or nobody sets.
const ALWAYS: [&str; 9] =
    ["HOME", "PATH", "USER", "SHELL", "TERM", "LOGNAME", "LANG", "TMPDIR", "CLAUDE_PROJECT_DIR"];

/// Fields that name variables instead of holding values.
const NAMING: [&str; 4] = ["env_vars", "env_keys", "bearer_token_env_var", "env_http_headers"];

/// The variables that a configuration and its servers' file refer to.
pub(in crate::cli) fn names(configuration: &str, servers: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    in_text(configuration, &mut names);
    in_text(servers, &mut names);
    if let Ok(tree) = Node::parse(servers, Syntax::Json) {
        in_fields(&tree, &mut names);
    }
    names.retain(|name| !ALWAYS.contains(&name.as_str()));
    names
}

fn in_text(text: &str, names: &mut BTreeSet<String>) {
    for part in text.split("${").skip(1) {
        let inside = part.split('}').next().unwrap_or_default();
        if let Some(id) = inside.strip_prefix("input:") {
            let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
            names.insert(format!("INPUT_{}", id.chars().map(plain).collect::<String>()));
            continue;
        }
        let name = inside.strip_prefix("env:").unwrap_or(inside).split(":-").next().unwrap_or_default();
        // Those of editors are written small, or with a colon.
        let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        if !name.is_empty() && name.chars().all(is_name) {
            names.insert(name.to_owned());
        }
    }
}

fn in_fields(node: &Node, names: &mut BTreeSet<String>) {
    for member in node.members() {
        if !NAMING.contains(&member.key.as_str()) {
            in_fields(&member.node, names);
            continue;
        }
        let texts: Vec<&Node> = match &member.node.data {
            Data::List(items) => items.iter().collect(),
            Data::Table(members) => members.iter().map(|member| &member.node).collect(),
            _ => vec![&member.node],
        };
        names.extend(texts.iter().filter_map(|node| node.text().map(str::to_owned)));
    }
}

/// How this client writes that the variables are passed on; none where it cannot.
pub(in crate::cli) fn pass(
    owner: &str,
    client: Client,
    names: &BTreeSet<String>,
) -> Option<(&'static str, Value)> {
    let all = |write: &dyn Fn(&str) -> String| {
        let pairs = names.iter().map(|name| (name.clone(), Value::String(write(name))));
        Some(("env", Value::Object(pairs.collect::<Map<_, _>>())))
    };
    match (owner, client) {
        _ if names.is_empty() => None,
        (_, Client::Codex) => Some(("env_vars", names.iter().cloned().collect::<Vec<_>>().into())),
        (_, Client::Gemini) => all(&|name| format!("${name}")),
        (_, Client::VsCode) | ("Cursor" | "Windsurf", _) => all(&|name| format!("${{env:{name}}}")),
        // Empty is as good as unset, and an unset one would come as the text it is.
        (_, Client::ClaudeCode) | ("Claude Code", _) => all(&|name| format!("${{{name}:-}}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_is_found_once() {
        let servers = r#"{"mcpServers": {"a": {"command": "${HOME}/a", "args": ["${A}", "${A:-x}", "${workspaceFolder}", "${input:my-key}"],
            "env": {"B": "${env:B}"}, "bearer_token_env_var": "C", "env_http_headers": {"X": "D"}, "env_vars": ["E"]}}}"#;
        let found: Vec<String> = names("token = \"${F}\"", servers).into_iter().collect();
        assert_eq!(found, ["A", "B", "C", "D", "E", "F", "INPUT_MY_KEY"]);
    }

    #[test]
    fn each_client_passes_them_on_in_its_own_words() {
        let names = BTreeSet::from(["A".to_owned()]);
        let said = |owner: &str, client: Client| {
            pass(owner, client, &names).map(|(key, value)| format!("{key} {value}"))
        };
        assert_eq!(said("Codex", Client::Codex).as_deref(), Some(r#"env_vars ["A"]"#));
        assert_eq!(said("Gemini CLI", Client::Gemini).as_deref(), Some(r#"env {"A":"$A"}"#));
        assert_eq!(said("Cursor", Client::Common).as_deref(), Some(r#"env {"A":"${env:A}"}"#));
        assert_eq!(said("Claude Code", Client::Common).as_deref(), Some(r#"env {"A":"${A:-}"}"#));
        assert_eq!(said("Claude Desktop", Client::Common), None);
        assert_eq!(pass("Cursor", Client::Common, &BTreeSet::new()), None);
    }
}
