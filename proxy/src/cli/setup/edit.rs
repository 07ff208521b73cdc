//! Edits of clients' files that touch nothing else: comments, order and layout stay as they are.

use jsonc_parser::cst::{CstInputValue, CstObject, CstRootNode};
use serde_json::Value;

use super::entry::{Entry, NAME};
use crate::config::import::{Client, Node, Syntax, jsonc};

/// Servers that leave a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Leaving {
    /// The names under which the server stands.
    pub(in crate::cli) path: Vec<String>,
    /// What it is called there.
    pub(in crate::cli) name: String,
}

/// The text of a client's file without the servers that leave, and with Holdfast in their place.
///
/// # Errors
/// Why that cannot be done, in words.
pub(in crate::cli) fn point(
    client: Client,
    text: &str,
    leaving: &[Leaving],
    entry: &Entry,
) -> Result<String, String> {
    match client.syntax() {
        Syntax::Json => json(client, text, leaving, entry),
        Syntax::Toml => toml(text, leaving, entry),
        Syntax::Yaml => Err("YAML is not edited".to_owned()),
    }
}

/// Adds a server to a file like `{"mcpServers": {...}}`.
///
/// # Errors
/// Where the text is not such a file.
pub(in crate::cli) fn add(text: &str, name: &str, members: &Value) -> Result<String, String> {
    let root = CstRootNode::parse(text, &jsonc()).map_err(|error| error.to_string())?;
    let servers = root.object_value_or_set().object_value_or_set("mcpServers");
    servers.append(name, input(members));
    Ok(root.to_string())
}

fn json(client: Client, text: &str, leaving: &[Leaving], entry: &Entry) -> Result<String, String> {
    let members = entry.members(client);
    let tree = Node::parse(text, Syntax::Json).ok();
    let stands = |path: &[String]| {
        let mut names = path.iter().map(String::as_str).chain([NAME]);
        let there = tree.as_ref().and_then(|tree| names.try_fold(tree, |node, name| node.get(name)));
        there.is_some_and(|there| entry.is(there))
    };
    let mark = if text.starts_with('\u{feff}') { "\u{feff}" } else { "" };
    let root = CstRootNode::parse(text.trim_start_matches('\u{feff}'), &jsonc())
        .map_err(|error| error.to_string())?;
    let file = root.object_value().ok_or("it is no JSON object")?;
    // Where the first of them stood; servers of a project have their own place only where the user has none.
    let mut places: Vec<(Vec<String>, usize)> = Vec::new();
    for one in leaving {
        let Some(servers) = object(&file, &one.path) else { continue };
        let Some(property) = servers.get(&one.name) else { continue };
        let index = property.property_index();
        if !places.iter().any(|(path, _)| *path == one.path) {
            places.push((one.path.clone(), index));
        }
        property.remove();
    }
    let own: Vec<String> = client.root().iter().map(|key| (*key).to_owned()).collect();
    if places.is_empty() {
        places.push((own, usize::MAX));
    }
    let is_users = |path: &[String]| path.len() < 3;
    let has_users = places.iter().any(|(path, _)| is_users(path));
    for (path, index) in places.iter().filter(|(path, _)| is_users(path) || !has_users) {
        let servers = object(&file, path)
            .unwrap_or_else(|| path.iter().fold(file.clone(), |object, key| object.object_value_or_set(key)));
        match servers.get(NAME) {
            Some(there) if !stands(path) => there.set_value(input(&members)),
            Some(_) => {}
            None => {
                let index = (*index).min(servers.properties().len());
                servers.insert(index, NAME, input(&members));
            }
        }
    }
    Ok(format!("{mark}{root}"))
}

fn object(file: &CstObject, path: &[String]) -> Option<CstObject> {
    path.iter().try_fold(file.clone(), |object, key| object.object_value(key))
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(value) => CstInputValue::Bool(*value),
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::String(text) => CstInputValue::String(text.clone()),
        Value::Array(items) => CstInputValue::Array(items.iter().map(input).collect()),
        Value::Object(members) => {
            CstInputValue::Object(members.iter().map(|(key, value)| (key.clone(), input(value))).collect())
        }
    }
}

fn toml(text: &str, leaving: &[Leaving], entry: &Entry) -> Result<String, String> {
    let mut file: toml_edit::DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| error.message().to_owned())?;
    let servers = file.entry("mcp_servers").or_insert_with(|| {
        let mut table = toml_edit::Table::new();
        table.set_implicit(true);
        toml_edit::Item::Table(table)
    });
    let servers = servers.as_table_like_mut().ok_or("`mcp_servers` is no table")?;
    let mut place = None;
    for one in leaving {
        let removed = servers.remove(&one.name);
        let Some(table) = removed.as_ref().and_then(toml_edit::Item::as_table) else { continue };
        // What is written above the first of them may be meant for more than it.
        let prefix = table.decor().prefix().cloned();
        place.get_or_insert((table.position(), prefix));
    }
    if let Some(there) = servers.get_mut(NAME).and_then(toml_edit::Item::as_table_like_mut) {
        fill(there, entry);
        return Ok(file.to_string());
    }
    let mut table = toml_edit::Table::new();
    fill(&mut table, entry);
    match place {
        Some((position, prefix)) => {
            table.set_position(position);
            if let Some(prefix) = prefix {
                table.decor_mut().set_prefix(prefix);
            }
        }
        None if !text.is_empty() => table.decor_mut().set_prefix("\n"),
        None => {}
    }
    servers.insert(NAME, toml_edit::Item::Table(table));
    Ok(file.to_string())
}

fn fill(table: &mut dyn toml_edit::TableLike, entry: &Entry) {
    let args = |item: &toml_edit::Item| -> Option<Vec<String>> {
        item.as_array()?.iter().map(|arg| arg.as_str().map(str::to_owned)).collect()
    };
    if table.get("command").and_then(toml_edit::Item::as_str) != Some(&entry.command) {
        table.insert("command", toml_edit::value(&entry.command));
    }
    if table.get("args").and_then(args).as_ref() != Some(&entry.args) {
        table.insert("args", toml_edit::value(entry.args.iter().collect::<toml_edit::Array>()));
    }
    if let Some((field, Value::Array(names))) = &entry.passed {
        let names = names.iter().filter_map(Value::as_str);
        table.insert(field, toml_edit::value(names.collect::<toml_edit::Array>()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let args = vec!["stdio".into(), "-c".into(), "/h.toml".into()];
        Entry { command: "/bin/holdfast".into(), args, passed: None }
    }

    fn leaving(path: &[&str], names: &[&str]) -> Vec<Leaving> {
        let path: Vec<String> = path.iter().map(|key| (*key).to_owned()).collect();
        names.iter().map(|name| Leaving { path: path.clone(), name: (*name).to_owned() }).collect()
    }

    #[track_caller]
    fn check(client: Client, path: &[&str], names: &[&str], before: &str, after: &str) {
        let edited = point(client, before, &leaving(path, names), &entry()).expect(before);
        assert_eq!(edited, after);
        // A second time there is nothing left to change.
        assert_eq!(point(client, &edited, &leaving(path, names), &entry()).expect("again"), after);
    }

    #[test]
    fn comments_order_and_layout_stay() {
        check(
            Client::VsCode,
            &["servers"],
            &["one", "three"],
            "{\n\t// Mine.\n\t\"inputs\": [],   // odd  spacing\n\t\"servers\": {\n\t\t\"one\": {\"command\": \"one\"},\n\t\t// stays\n\t\t\"two\": {\"command\":  \"two\"}, /* also */\n\t\t\"three\": {\"command\": \"three\"},\n\t},\n\t\"n\": 1e3\n}",
            "{\n\t// Mine.\n\t\"inputs\": [],   // odd  spacing\n\t\"servers\": {\n\t\t\"holdfast\": {\n\t\t\t\"type\": \"stdio\",\n\t\t\t\"command\": \"/bin/holdfast\",\n\t\t\t\"args\": [\"stdio\", \"-c\", \"/h.toml\"],\n\t\t},\n\t\t// stays\n\t\t\"two\": {\"command\":  \"two\"}, /* also */\n\t},\n\t\"n\": 1e3\n}",
        );
    }

    #[test]
    fn one_line_and_no_servers() {
        check(
            Client::Common,
            &["mcpServers"],
            &["a"],
            "{\"x\":1,\"mcpServers\":{\"a\":{\"command\":\"a\"}}}",
            "{\"x\":1,\"mcpServers\":{\n    \"holdfast\": {\n      \"command\": \"/bin/holdfast\",\n      \"args\": [\"stdio\", \"-c\", \"/h.toml\"]\n    }\n  }}",
        );
        check(
            Client::Common,
            &["mcpServers"],
            &[],
            "{}\n",
            "{\n  \"mcpServers\": {\n    \"holdfast\": {\n      \"command\": \"/bin/holdfast\",\n      \"args\": [\"stdio\", \"-c\", \"/h.toml\"]\n    }\n  }\n}\n",
        );
    }

    #[test]
    fn lines_that_end_as_elsewhere_still_do() {
        let before =
            "{\r\n  \"mcpServers\": {\r\n    \"a\": {\"command\": \"a\"},\r\n    \"b\": {}\r\n  }\r\n}\r\n";
        let edited =
            point(Client::Common, before, &leaving(&["mcpServers"], &["a"]), &entry()).expect("edits");
        assert!(!edited.replace("\r\n", "").contains('\n'), "{edited:?}");
        let marked = format!("\u{feff}{before}");
        let edited =
            point(Client::Common, &marked, &leaving(&["mcpServers"], &["a"]), &entry()).expect("edits");
        assert!(edited.starts_with('\u{feff}'));
    }

    #[test]
    fn servers_of_a_project_make_room_where_they_stood() {
        let before = r#"{"projects": {"/p": {"mcpServers": {"a": {"command": "a"}}}, "/q": {"mcpServers": {}}}, "mcpServers": {"b": {}}}"#;
        let own = leaving(&["projects", "/p", "mcpServers"], &["a"]);
        let edited = point(Client::ClaudeCode, before, &own, &entry()).expect("edits");
        let value: Value = serde_json::from_str(&edited).expect("JSON");
        assert_eq!(value["projects"]["/p"]["mcpServers"]["holdfast"]["command"], "/bin/holdfast");
        assert!(value["projects"]["/p"]["mcpServers"].get("a").is_none());
        assert_eq!(value["mcpServers"], serde_json::json!({"b": {}}));
        let both = [own, leaving(&["mcpServers"], &["b"])].concat();
        let edited = point(Client::ClaudeCode, before, &both, &entry()).expect("edits");
        let value: Value = serde_json::from_str(&edited).expect("JSON");
        assert_eq!(value["projects"]["/p"]["mcpServers"], serde_json::json!({}));
        assert_eq!(value["mcpServers"]["holdfast"]["args"][0], "stdio");
    }

    #[test]
    fn toml_keeps_what_is_not_ours() {
        check(
            Client::Codex,
            &["mcp_servers"],
            &["docs"],
            "# Mine.\nmodel = 'x'  # odd\n\n# Servers.\n[mcp_servers.docs]\ncommand = 'docs'\n[mcp_servers.docs.env]\nA = '1'\n\n[mcp_servers.off]\nenabled = false\ncommand = 'off'\n\n[projects.'/w']\ntrust_level = \"trusted\"\n",
            "# Mine.\nmodel = 'x'  # odd\n\n# Servers.\n[mcp_servers.holdfast]\ncommand = \"/bin/holdfast\"\nargs = [\"stdio\", \"-c\", \"/h.toml\"]\n\n[mcp_servers.off]\nenabled = false\ncommand = 'off'\n\n[projects.'/w']\ntrust_level = \"trusted\"\n",
        );
        check(
            Client::Codex,
            &["mcp_servers"],
            &[],
            "model = 'x'\n",
            "model = 'x'\n\n[mcp_servers.holdfast]\ncommand = \"/bin/holdfast\"\nargs = [\"stdio\", \"-c\", \"/h.toml\"]\n",
        );
    }

    #[test]
    fn a_server_is_added_to_what_is_there() {
        let added = add("{\n  // kept\n  \"mcpServers\": {}\n}\n", "a", &serde_json::json!({"command": "x"}));
        assert_eq!(
            added.expect("adds"),
            "{\n  // kept\n  \"mcpServers\": {\n    \"a\": {\n      \"command\": \"x\"\n    }\n  }\n}\n"
        );
    }
}
