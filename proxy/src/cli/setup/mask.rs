//! What is shown of a client's file: secrets stand in environments, headers and some arguments, and are left out.

use std::ops::Range;

use crate::config::import::{Client, Data, Node};

const HIDDEN: &str = "***";

/// Under these names stand values that are nobody's business.
const SECRET: [&str; 5] = ["env", "envs", "headers", "http_headers", "oauth"];

/// `text` with every value hidden that may be a secret. What only names a variable is none.
pub(in crate::cli) fn mask(client: Client, text: &str) -> String {
    let Ok(file) = Node::parse(text, client.syntax()) else { return HIDDEN.to_owned() };
    let mut hidden = Vec::new();
    collect(&file, Where::Open, &mut hidden);
    hidden.sort_by_key(|range: &Range<usize>| range.start);
    let (mut masked, mut end) = (String::with_capacity(text.len()), 0);
    for range in hidden {
        masked.push_str(text.get(end..range.start).unwrap_or_default());
        masked.push('"');
        masked.push_str(HIDDEN);
        masked.push('"');
        end = range.end;
    }
    masked.push_str(text.get(end..).unwrap_or_default());
    masked
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Open,
    Secret,
}

fn collect(node: &Node, place: Where, hidden: &mut Vec<Range<usize>>) {
    match &node.data {
        Data::Text(text) if (place == Where::Secret && !is_variable(text)) || is_telling_address(text) => {
            hidden.push(node.at.clone());
        }
        Data::Number(_) if place == Where::Secret => hidden.push(node.at.clone()),
        Data::Table(members) => {
            for member in members {
                let secret = place == Where::Secret
                    || SECRET.contains(&member.key.as_str())
                    || is_telling(&member.key);
                collect(&member.node, if secret { Where::Secret } else { Where::Open }, hidden);
            }
        }
        Data::List(items) => {
            let mut last_names_one = false;
            for item in items {
                let text = item.text().unwrap_or_default();
                // `--token=x`, `TOKEN=x`, `Authorization: Bearer x`.
                let says_one = text.split_once(['=', ':']).is_some_and(|(name, _)| is_telling(name));
                let secret = place == Where::Secret || last_names_one || says_one || is_token(text);
                collect(item, if secret { Where::Secret } else { Where::Open }, hidden);
                last_names_one = text.starts_with('-') && !text.contains('=') && is_telling(text);
            }
        }
        _ => {}
    }
}

/// Whether a value under this name is probably secret.
pub(in crate::cli) fn is_telling(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // The name of a variable is not its value.
    let words = [
        "token",
        "secret",
        "password",
        "passwd",
        "api-key",
        "api_key",
        "apikey",
        "credential",
        "authorization",
    ];
    !name.ends_with("_var") && words.iter().any(|word| name.contains(word))
}

/// Tokens that say what they are.
fn is_token(text: &str) -> bool {
    ["sk-", "ghp_", "github_pat_", "xoxb-", "xoxp-", "glpat-", "Bearer "]
        .iter()
        .any(|token| text.contains(token))
}

/// An address that carries more than a place: a password, or a query that may be a key.
fn is_telling_address(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else { return false };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let variables_only = rest.contains("${");
    !variables_only && (host.contains('@') || rest.contains('?'))
}

fn is_variable(text: &str) -> bool {
    let plain = text.strip_prefix("Bearer ").unwrap_or(text);
    plain.starts_with("${") && plain.find('}') == Some(plain.len() - 1) && !plain.contains(":-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_environments_and_headers_are_not_shown() {
        let text = "{\n  // c\n  \"mcpServers\": {\"a\": {\"command\": \"x\", \"args\": [\"--api-key\", \"hush\", \"--token=hush\", \"sk-hush\", \"-v\", \"open\"],\n    \"env\": {\"K\": \"hush\", \"N\": 5, \"V\": \"${NAME}\"}, \"headers\": {\"Authorization\": \"Bearer hush\"}}}\n}";
        let masked = mask(Client::Common, text);
        assert!(!masked.contains("hush"), "{masked}");
        assert_eq!(masked.lines().count(), text.lines().count());
        for secret in [
            r#""url": "https://h/mcp?api_key=hush""#,
            r#""args": ["--header", "Authorization: Bearer hush"]"#,
            r#""args": ["-e", "GITHUB_TOKEN=hush"]"#,
            r#""args": ["postgresql://u:hush@h/db"]"#,
        ] {
            let masked = mask(Client::Common, &format!(r#"{{"mcpServers": {{"a": {{{secret}}}}}}}"#));
            assert!(!masked.contains("hush"), "{masked}");
        }
        for kept in ["// c", "\"-v\", \"open\"", "${NAME}", "\"N\": \"***\"", "\"command\": \"x\""] {
            assert!(masked.contains(kept), "{kept}\n{masked}");
        }
        let toml = "[mcp_servers.a]\nurl = 'https://h'\nbearer_token_env_var = 'NAME'\n[mcp_servers.a.http_headers]\nX = 'hush'\n";
        let masked = mask(Client::Codex, toml);
        assert!(!masked.contains("hush") && masked.contains("'NAME'"), "{masked}");
    }
}
