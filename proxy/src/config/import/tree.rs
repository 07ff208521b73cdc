//! What JSON (with comments), TOML and YAML files of clients have in common: values that know where they stand.

use std::ops::Range;

use holdfast_policy::{Problem, Severity};
use jsonc_parser::{ParseOptions, ast, common::Ranged};
use serde_json::{Map, Value};

/// A value and where it stands, in bytes of the text.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Where.
    pub(crate) at: Range<usize>,
    /// What.
    pub(crate) data: Data,
}

/// A value, as far as it matters here.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    /// A text.
    Text(String),
    /// A number, as it is written.
    Number(String),
    /// `true` or `false`.
    Boolean(bool),
    /// An absent value that is written down.
    Null,
    /// Values in order.
    List(Vec<Node>),
    /// Named values in the order of the file.
    Table(Vec<Member>),
}

/// A named value.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// Its name.
    pub(crate) key: String,
    /// Where the name stands.
    pub(crate) key_at: Range<usize>,
    /// The value.
    pub(crate) node: Node,
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Syntax {
    /// JSON with comments and trailing commas.
    Json,
    /// TOML.
    Toml,
    /// YAML.
    Yaml,
}

/// Why a text is not of its syntax.
#[derive(Debug)]
pub(crate) struct Broken {
    at: usize,
    message: String,
    hint: &'static str,
}

impl Node {
    /// Reads a whole text.
    ///
    /// # Errors
    /// The first mistake.
    pub(crate) fn parse(text: &str, syntax: Syntax) -> Result<Self, Broken> {
        match syntax {
            Syntax::Json => json(text),
            Syntax::Toml => toml(text),
            Syntax::Yaml => super::yaml::parse(text),
        }
    }

    /// The members of a table; of anything else none.
    pub(crate) fn members(&self) -> &[Member] {
        if let Data::Table(members) = &self.data { members } else { &[] }
    }

    /// The member of that name.
    pub(crate) fn member(&self, key: &str) -> Option<&Member> {
        self.members().iter().find(|member| member.key == key)
    }

    /// The value of that name, unless it is absent or null.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.member(key).map(|member| &member.node).filter(|node| !matches!(node.data, Data::Null))
    }

    /// The value at the end of these names.
    pub(crate) fn at_path(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The text, if it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        if let Data::Text(text) = &self.data { Some(text) } else { None }
    }

    /// As JSON; a number that JSON does not know becomes a text.
    pub(crate) fn to_json(&self) -> Value {
        match &self.data {
            Data::Text(text) => Value::String(text.clone()),
            Data::Number(digits) => {
                serde_json::from_str(digits).unwrap_or_else(|_| Value::String(digits.clone()))
            }
            Data::Boolean(value) => Value::Bool(*value),
            Data::Null => Value::Null,
            Data::List(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Data::Table(members) => {
                let members = members.iter().map(|member| (member.key.clone(), member.node.to_json()));
                Value::Object(members.collect::<Map<_, _>>())
            }
        }
    }
}

impl Broken {
    pub(super) fn new(at: usize, message: String, hint: &'static str) -> Self {
        Self { at, message, hint }
    }

    /// As a problem of `file`, whose content is `text`.
    pub(crate) fn problem(&self, file: &str, text: &str) -> Problem {
        problem(file, text, self.at, (Severity::Error, self.message.clone(), self.hint.to_owned()))
    }
}

/// A problem at a byte of `text`.
pub(super) fn problem(
    file: &str,
    text: &str,
    at: usize,
    (severity, message, hint): (Severity, String, String),
) -> Problem {
    let before = text.get(..at).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Problem {
        severity,
        file: file.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[start..].chars().count() + 1,
        text: text[start..].lines().next().unwrap_or_default().to_owned(),
        message,
        hint: (!hint.is_empty()).then_some(hint),
    }
}

/// What every client takes, and no more: what one of them would refuse is not to be guessed.
pub(crate) fn jsonc() -> ParseOptions {
    ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    }
}

fn json(text: &str) -> Result<Node, Broken> {
    let hint = "comments and trailing commas are fine, the rest must be JSON";
    // Offsets must be those of the file, so a mark at its begin is made blank instead of cut.
    let blank = text.strip_prefix('\u{feff}').map(|rest| format!("   {rest}"));
    let plain = blank.as_deref().unwrap_or(text);
    match jsonc_parser::parse_to_ast(plain, &Default::default(), &jsonc()) {
        Ok(parsed) => match parsed.value {
            Some(value) => Ok(of_json(&value)),
            None => Err(Broken::new(0, "this is not valid JSON: the file is empty".to_owned(), "write {}")),
        },
        Err(error) => {
            let what = error.kind().to_string();
            Err(Broken::new(error.range().start, format!("this is not valid JSON: {what}"), hint))
        }
    }
}

fn of_json(value: &ast::Value<'_>) -> Node {
    let range = value.range();
    let data = match value {
        ast::Value::StringLit(text) => Data::Text(text.value.to_string()),
        ast::Value::NumberLit(number) => Data::Number(number.value.to_owned()),
        ast::Value::BooleanLit(value) => Data::Boolean(value.value),
        ast::Value::NullKeyword(_) => Data::Null,
        ast::Value::Array(array) => Data::List(array.elements.iter().map(of_json).collect()),
        ast::Value::Object(object) => Data::Table(
            object
                .properties
                .iter()
                .map(|property| Member {
                    key: property.name.as_str().to_owned(),
                    key_at: property.range.start..property.value.range().start,
                    node: of_json(&property.value),
                })
                .collect(),
        ),
    };
    Node { at: range.start..range.end, data }
}

fn toml(text: &str) -> Result<Node, Broken> {
    let parsed = toml_edit::Document::parse(text).map_err(|error| {
        let at = error.span().map_or(text.len(), |span| span.start);
        Broken::new(
            at,
            format!("this is not valid TOML: {}", error.message()),
            "one setting per line: key = \"text\", key = 5, key = [\"a\"], or a table: [name]",
        )
    })?;
    Ok(of_table(parsed.as_table()))
}

fn of_table(table: &dyn toml_edit::TableLike) -> Node {
    let mut members: Vec<Member> = Vec::new();
    for (name, item) in table.iter() {
        let Some(node) = of_item(item) else { continue };
        let key_at = table.key(name).and_then(toml_edit::Key::span).unwrap_or(node.at.clone());
        members.push(Member { key: name.to_owned(), key_at, node });
    }
    members.sort_by_key(|member| member.key_at.start);
    let at = members.first().map_or(0, |member| member.key_at.start);
    Node { at: at..at, data: Data::Table(members) }
}

fn of_item(item: &toml_edit::Item) -> Option<Node> {
    use toml_edit::Item;
    let at = item.span();
    let node = match item {
        Item::None => return None,
        Item::Table(table) => of_table(table),
        Item::ArrayOfTables(tables) => {
            Node { at: 0..0, data: Data::List(tables.iter().map(|table| of_table(table)).collect()) }
        }
        Item::Value(value) => of_value(value),
    };
    Some(match at {
        Some(at) => Node { at, ..node },
        None => node,
    })
}

fn of_value(value: &toml_edit::Value) -> Node {
    use toml_edit::Value;
    let data = match value {
        Value::String(text) => Data::Text(text.value().clone()),
        Value::Integer(number) => Data::Number(number.value().to_string()),
        Value::Float(number) => Data::Number(number.value().to_string()),
        Value::Boolean(value) => Data::Boolean(*value.value()),
        Value::Datetime(date) => Data::Text(date.value().to_string()),
        Value::Array(items) => Data::List(items.iter().map(of_value).collect()),
        Value::InlineTable(table) => of_table(table).data,
    };
    Node { at: value.span().unwrap_or_default(), data }
}
