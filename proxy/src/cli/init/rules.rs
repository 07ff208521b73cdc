//! The rules that `init` proposes: reading is allowed where the server itself says so, and everything else asks.
//!
//! Names and hints come from the servers. They get into the file as escaped globs, quoted texts and comments without
//! line breaks: a tool called `*`, or with a line break in its name, must not write rules of its own.

use crate::{inbox::visible::visible, upstream::Tool};

/// What is known about a server when rules are proposed for it.
#[derive(Debug)]
pub(super) struct Known<'a> {
    /// Its name here.
    pub(super) server: &'a str,
    /// What it is, without arguments: those can hold secrets.
    pub(super) identity: String,
    /// Its tools; none where nobody could ask.
    pub(super) tools: Option<&'a [Tool]>,
    /// What its client let through of it.
    pub(super) filter: &'a Filter,
}

/// Which tools of a server a client used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    /// Only these, where there are any.
    pub(super) only: Vec<String>,
    /// None of these.
    pub(super) without: Vec<String>,
}

impl Filter {
    fn hides(&self, tool: &str) -> bool {
        let is_listed = |list: &[String]| list.iter().any(|listed| listed == tool);
        is_listed(&self.without) || (!self.only.is_empty() && !is_listed(&self.only))
    }
}

/// The longest glob that is written; the policy takes 4 KiB.
const LONGEST: usize = 3_000;

/// The text that is added to the configuration for one server. `is_taken` knows the ids of rules that are there.
pub(super) fn text(known: &Known<'_>, is_taken: &dyn Fn(&str) -> bool) -> String {
    let server = known.server;
    let head = format!("\n# {server} ({}): ", visible(&known.identity));
    let Some(tools) = known.tools else {
        let hidden = hidden_by_name(known, is_taken);
        return format!("{head}its tools are not known yet, so all of them ask.\n{hidden}");
    };
    let (hidden, shown): (Vec<&Tool>, Vec<&Tool>) =
        tools.iter().partition(|tool| known.filter.hides(&tool.name));
    let (reads, others): (Vec<&Tool>, Vec<&Tool>) =
        shown.into_iter().partition(|tool| tool.hints.read_only == Some(true));
    let (maybe, others): (Vec<&Tool>, Vec<&Tool>) = others
        .into_iter()
        .partition(|tool| tool.hints.read_only.is_none() && sounds_like_reading(&tool.name));
    let mut text = format!("{head}{}.\n", super::count(tools.len(), "tool"));
    if !reads.is_empty() {
        text.push_str(
            "# It says of these that they only read (`readOnlyHint`); take out what you do not believe.\n",
        );
        text.push_str(&rules(server, "reads", &names(&reads), ALLOW, is_taken));
    }
    if !maybe.is_empty() {
        text.push_str("# These sound like reading, but the server does not say so. Take the marks away to allow them:\n");
        for line in rules(server, "look-ups", &names(&maybe), ALLOW, is_taken).lines() {
            text.push_str(&format!("# {line}\n"));
        }
    }
    if !others.is_empty() {
        text.push_str(&asking(&others));
    }
    if !hidden.is_empty() {
        text.push_str("# Your client did not use these, so nobody does.\n");
        text.push_str(&rules(server, "left-out", &names(&hidden), DENY, is_taken));
    }
    text
}

const ALLOW: &str = "effect = \"allow\"\nrepeat = \"safe\"\n";
const DENY: &str = "effect = \"deny\"\n";

fn names<'a>(tools: &[&'a Tool]) -> Vec<&'a str> {
    tools.iter().map(|tool| tool.name.as_str()).collect()
}

fn asking(tools: &[&Tool]) -> String {
    let named = |tool: &&Tool| {
        let note = if tool.hints.destructive == Some(true) { " (destructive)" } else { "" };
        format!("{}{note}", visible(&tool.name))
    };
    let mut lines = vec!["# A person is asked about:".to_owned()];
    for name in tools.iter().map(named) {
        let line = lines.last_mut().expect("there is always one");
        let first = line.ends_with(':');
        if line.len() + name.len() > 110 {
            line.push_str(if first { "" } else { "," });
            lines.push(format!("#   {name}"));
        } else {
            line.push_str(if first { " " } else { ", " });
            line.push_str(&name);
        }
    }
    lines.join("\n") + "\n"
}

fn hidden_by_name(known: &Known<'_>, is_taken: &dyn Fn(&str) -> bool) -> String {
    let without: Vec<&str> = known.filter.without.iter().map(String::as_str).collect();
    let mut text = String::new();
    if !without.is_empty() {
        text.push_str("# Your client did not use these, so nobody does.\n");
        text.push_str(&rules(known.server, "left-out", &without, DENY, is_taken));
    }
    if !known.filter.only.is_empty() {
        let only: Vec<String> = known.filter.only.iter().map(|tool| visible(tool)).collect();
        text.push_str(&format!(
            "# Your client used only {}; forbid the others here once they are known.\n",
            only.join(", ")
        ));
    }
    text
}

/// As many rules as the length of globs asks for.
fn rules(
    server: &str,
    kind: &str,
    tools: &[&str],
    settings: &str,
    is_taken: &dyn Fn(&str) -> bool,
) -> String {
    let mut parts: Vec<Vec<String>> = vec![Vec::new()];
    let mut length = 0;
    for tool in tools.iter().map(|tool| escaped(tool)).filter(|tool| tool.len() < LONGEST) {
        if length + tool.len() > LONGEST {
            parts.push(Vec::new());
            length = 0;
        }
        length += tool.len() + 1;
        parts.last_mut().expect("there is always one").push(tool);
    }
    let mut text = String::new();
    let mut used: Vec<String> = Vec::new();
    for part in parts.iter().filter(|part| !part.is_empty()) {
        let wanted = format!("{server}-{kind}");
        let mut ids = (1_u32..).map(|n| if n == 1 { wanted.clone() } else { format!("{wanted}-{n}") });
        let id = ids.find(|id| !is_taken(id) && !used.contains(id)).expect("there is always one more number");
        let glob = if let [one] = part.as_slice() { one.clone() } else { format!("{{{}}}", part.join(",")) };
        text.push_str(&format!(
            "[[rule]]\nid = {}\nserver = {}\ntool = {}\n{settings}",
            quoted(&id),
            quoted(server),
            quoted(&glob)
        ));
        used.push(id);
    }
    text
}

fn quoted(text: &str) -> String {
    toml_edit::Value::from(text).to_string().trim().to_owned()
}

/// The glob that matches this name and no other.
fn escaped(name: &str) -> String {
    let mut glob = String::new();
    for c in name.chars() {
        if "*?[]{},\\!".contains(c) {
            glob.push('\\');
        }
        glob.push(c);
    }
    glob
}

fn sounds_like_reading(name: &str) -> bool {
    const WORDS: [&str; 17] = [
        "get", "list", "read", "search", "find", "fetch", "query", "describe", "show", "view", "count",
        "lookup", "check", "status", "info", "help", "stat",
    ];
    let word: String = name
        .chars()
        .enumerate()
        .take_while(|(n, c)| c.is_ascii_lowercase() || (*n == 0 && c.is_ascii_uppercase()))
        .map(|(_, c)| c.to_ascii_lowercase())
        .collect();
    WORDS.contains(&word.as_str())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use holdfast_policy::Hints;
    use serde_json::{Value, json};

    use super::*;
    use crate::config::Config;

    fn tool(name: &str, annotations: Value) -> Tool {
        let definition = json!({ "name": name, "annotations": annotations });
        Tool {
            name: name.to_owned(),
            hints: Hints::of_tool(&definition),
            definition,
            hash: "".into(),
            has_output_schema: false,
        }
    }

    fn proposed(tools: &[Tool], filter: &Filter) -> String {
        let known = Known { server: "s", identity: "npx s".to_owned(), tools: Some(tools), filter };
        text(&known, &|_| false)
    }

    /// The effect and repeat of a call under the proposed rules, through the whole of the policy.
    fn verdict(rules: &str, tool: &str) -> String {
        let file = format!("version = 1\n[servers.s]\ncommand = 's'\n{rules}");
        let (config, warnings) = Config::read(Path::new("/h.toml"), &file, &|_| None).expect(&file);
        assert_eq!(warnings, [], "{file}");
        let matching: Vec<String> = config
            .policy
            .rules()
            .iter()
            .filter(|rule| rule.tool.matches(tool))
            .map(|rule| format!("{} {}", rule.id, rule.effect.expect("we write one")))
            .collect();
        matching.join(", ")
    }

    #[test]
    fn only_what_the_server_calls_reading_is_allowed() {
        let tools = [
            tool("read_file", json!({ "readOnlyHint": true })),
            tool("list_all", json!({ "readOnlyHint": true })),
            tool("get_it", json!({})),
            tool("search", json!({ "readOnlyHint": false })),
            tool("write_file", json!({ "destructiveHint": true })),
        ];
        let rules = proposed(&tools, &Filter::default());
        assert_eq!(verdict(&rules, "read_file"), "s-reads allow");
        assert_eq!(verdict(&rules, "list_all"), "s-reads allow");
        for asks in ["get_it", "search", "write_file", "anything"] {
            assert_eq!(verdict(&rules, asks), "", "{asks}");
        }
        assert!(rules.contains("# id = \"s-look-ups\"") && rules.contains("# tool = \"get_it\""), "{rules}");
        assert!(rules.contains("# A person is asked about: search, write_file (destructive)"), "{rules}");
    }

    #[test]
    fn names_of_tools_cannot_write_rules() {
        let nasty =
            ["*", "{a,b}", "x\n[[rule]]\nid = \"mine\"\neffect = \"allow\"", "q\"\\", "[!a]", "\u{202e}get"];
        for hint in [true, false] {
            let tools: Vec<Tool> =
                nasty.iter().map(|name| tool(name, json!({ "readOnlyHint": hint }))).collect();
            let rules = proposed(&tools, &Filter::default());
            for name in nasty {
                assert_eq!(verdict(&rules, name), if hint { "s-reads allow" } else { "" }, "{name}\n{rules}");
            }
            for other in ["a", "b", "x", "delete", "mine", ""] {
                assert_eq!(verdict(&rules, other), "", "{other}\n{rules}");
            }
        }
    }

    #[test]
    fn what_a_client_left_out_stays_out() {
        let tools = [tool("a", json!({ "readOnlyHint": true })), tool("b", json!({})), tool("c", json!({}))];
        let without = Filter { without: vec!["a".to_owned()], ..Filter::default() };
        let rules = proposed(&tools, &without);
        assert_eq!(
            (verdict(&rules, "a"), verdict(&rules, "b")),
            ("s-left-out deny".to_owned(), String::new())
        );
        let only = Filter { only: vec!["a".to_owned()], ..Filter::default() };
        let rules = proposed(&tools, &only);
        assert_eq!(verdict(&rules, "a"), "s-reads allow");
        assert_eq!(
            (verdict(&rules, "b"), verdict(&rules, "c")),
            ("s-left-out deny".to_owned(), "s-left-out deny".to_owned())
        );
        let known = Known { server: "s", identity: String::new(), tools: None, filter: &without };
        assert_eq!(verdict(&text(&known, &|_| false), "a"), "s-left-out deny");
    }

    #[test]
    fn many_tools_make_several_rules_with_ids_that_are_free() {
        let tools: Vec<Tool> = (0..400)
            .map(|n| tool(&format!("a_rather_long_name_{n}"), json!({ "readOnlyHint": true })))
            .collect();
        let filter = Filter::default();
        let known = Known { server: "s", identity: String::new(), tools: Some(&tools), filter: &filter };
        let rules = text(&known, &|id| id == "s-reads");
        assert!(!rules.contains("\"s-reads\"") && rules.contains("\"s-reads-2\""), "{rules}");
        assert_eq!(verdict(&rules, "a_rather_long_name_399").split(' ').next_back(), Some("allow"));
    }
}
