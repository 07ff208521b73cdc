//! Texts with `{/pointer}` in them: argument templates, effect keys, and looking into a tool's result.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::decimal::Decimal;
use crate::pointer::Pointer;

/// A JSON value whose texts may hold `{/pointer}`.
///
/// A text that is one placeholder and nothing else gives the JSON value itself; otherwise what the
/// pointer leads to is written into the text (a text as it is, anything else as JSON). `{{` and `}}` are
/// literal braces. Member names are taken as they are. Serialises as its source.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    source: Value,
    shape: Shape,
}

#[derive(Clone, Debug, PartialEq)]
enum Shape {
    Literal(Value),
    Whole(Pointer),
    Text(Vec<Part>),
    Array(Vec<Shape>),
    Object(Vec<(String, Shape)>),
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Pointer(Pointer),
}

/// A placeholder that leads nowhere in the given arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingPointer(pub Pointer);

impl fmt::Display for MissingPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is nothing at {}", self.0)
    }
}

impl std::error::Error for MissingPointer {}

/// Why a template was refused, in words for the author of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadTemplate(&'static str);

impl fmt::Display for BadTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadTemplate {}

impl Template {
    /// Checks every text in `source`.
    ///
    /// # Errors
    /// [`BadTemplate`] for a brace without its partner and for a placeholder that is no JSON Pointer.
    pub fn parse(source: Value) -> Result<Template, BadTemplate> {
        let shape = shape_of(&source)?;
        Ok(Template { source, shape })
    }

    /// The template filled from `arguments`.
    ///
    /// # Errors
    /// [`MissingPointer`], the first placeholder that leads nowhere.
    pub fn render(&self, arguments: &Value) -> Result<Value, MissingPointer> {
        fill(&self.shape, arguments)
    }

    /// The template as it was written.
    pub fn source(&self) -> &Value {
        &self.source
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.source.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Template::parse(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// The template of an effect key, e.g. `refund:{/charge}`.
///
/// Each part is written as canonical JSON, so that no two lists of parts give one key: the text `a:b`
/// becomes `"a:b"`, and a number that would run into what follows it stands in parentheses. Numbers that are equal as decimals (`1`, `1.0`, `1e0`) and objects that differ in
/// member order give the same key: otherwise an agent could get round it by spelling an amount differently.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyTemplate {
    source: String,
    parts: Vec<Part>,
}

impl KeyTemplate {
    /// Checks the template.
    ///
    /// # Errors
    /// [`BadTemplate`] as for [`Template::parse`], and for a text without any placeholder: such a key
    /// would make all calls of a tool one call.
    pub fn parse(source: &str) -> Result<KeyTemplate, BadTemplate> {
        let parts = parts_of(source)?;
        if !parts.iter().any(|part| matches!(part, Part::Pointer(_))) {
            return Err(BadTemplate("an effect key needs at least one placeholder such as {/id}"));
        }
        Ok(KeyTemplate { source: source.to_owned(), parts })
    }

    /// The key for these arguments.
    ///
    /// # Errors
    /// [`MissingPointer`] when a placeholder leads nowhere, or to `null`, which names no effect either.
    pub fn render(&self, arguments: &Value) -> Result<String, MissingPointer> {
        let mut key = String::with_capacity(self.source.len() + 32);
        for (at, part) in self.parts.iter().enumerate() {
            match part {
                Part::Text(text) => key.push_str(text),
                Part::Pointer(pointer) => {
                    let value = match pointer.find(arguments) {
                        None | Some(Value::Null) => return Err(MissingPointer(pointer.clone())),
                        Some(value) => value,
                    };
                    if ends_by_itself(value) || !runs_on(self.parts.get(at + 1)) {
                        write_canonical(value, &mut key);
                    } else {
                        key.push('(');
                        write_canonical(value, &mut key);
                        key.push(')');
                    }
                }
            }
        }
        Ok(key)
    }

    /// The template as it was written.
    pub fn as_str(&self) -> &str {
        &self.source
    }
}

impl Serialize for KeyTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.source)
    }
}

impl<'de> Deserialize<'de> for KeyTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        KeyTemplate::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// The part of a tool's result that `drift`, `happened` and probe answers point into: `structuredContent`,
/// or else the first text block, parsed if it is JSON; `null` when there is neither.
pub fn look_into(result: &Value) -> Cow<'_, Value> {
    if let Some(structured) = structured(result) {
        return Cow::Borrowed(structured);
    }
    match first_text(result) {
        Some(text) => {
            Cow::Owned(serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())))
        }
        None => Cow::Owned(Value::Null),
    }
}

pub(crate) fn structured(result: &Value) -> Option<&Value> {
    result.get("structuredContent").filter(|value| !value.is_null())
}

pub(crate) fn first_text(result: &Value) -> Option<&str> {
    let blocks = result.get("content")?.as_array()?;
    let text = blocks.iter().find(|block| block.get("type").and_then(Value::as_str) == Some("text"))?;
    text.get("text")?.as_str()
}

fn shape_of(source: &Value) -> Result<Shape, BadTemplate> {
    Ok(match source {
        Value::String(text) => match parts_of(text)?.as_slice() {
            [] => Shape::Literal(source.clone()),
            [Part::Text(text)] => Shape::Literal(Value::String(text.clone())),
            [Part::Pointer(pointer)] => Shape::Whole(pointer.clone()),
            parts => Shape::Text(parts.to_vec()),
        },
        Value::Array(items) => Shape::Array(items.iter().map(shape_of).collect::<Result<_, _>>()?),
        Value::Object(members) => {
            let shapes = members.iter().map(|(name, value)| Ok((name.clone(), shape_of(value)?)));
            Shape::Object(shapes.collect::<Result<_, _>>()?)
        }
        _ => Shape::Literal(source.clone()),
    })
}

fn parts_of(text: &str) -> Result<Vec<Part>, BadTemplate> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with("{{") || rest.starts_with("}}") {
            plain.push_str(&rest[..1]);
            rest = &rest[2..];
        } else if let Some(inside) = rest.strip_prefix('{') {
            let end =
                inside.find('}').ok_or(BadTemplate("a `{` without its `}`; write {{ for a literal {"))?;
            let pointer = Pointer::parse(&inside[..end]).map_err(|_| {
                BadTemplate(
                    "what stands in braces must be a JSON Pointer such as {/id}; write {{ for a literal {",
                )
            })?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Pointer(pointer));
            rest = &inside[end + 1..];
        } else {
            return Err(BadTemplate("a `}` without its `{`; write }} for a literal }"));
        }
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    Ok(parts)
}

fn fill(shape: &Shape, arguments: &Value) -> Result<Value, MissingPointer> {
    let find = |pointer: &Pointer| pointer.find(arguments).ok_or_else(|| MissingPointer(pointer.clone()));
    Ok(match shape {
        Shape::Literal(value) => value.clone(),
        Shape::Whole(pointer) => find(pointer)?.clone(),
        Shape::Text(parts) => {
            let mut text = String::new();
            for part in parts {
                match part {
                    Part::Text(plain) => text.push_str(plain),
                    Part::Pointer(pointer) => match find(pointer)? {
                        Value::String(found) => text.push_str(found),
                        other => text.push_str(&other.to_string()),
                    },
                }
            }
            Value::String(text)
        }
        Shape::Array(items) => {
            Value::Array(items.iter().map(|item| fill(item, arguments)).collect::<Result<_, _>>()?)
        }
        Shape::Object(members) => {
            let filled = members.iter().map(|(name, shape)| Ok((name.clone(), fill(shape, arguments)?)));
            Value::Object(filled.collect::<Result<Map<_, _>, _>>()?)
        }
    })
}

/// Whether the JSON of a value says where it ends; that of 1 does not, as 12 begins with it.
fn ends_by_itself(value: &Value) -> bool {
    matches!(value, Value::String(_) | Value::Array(_) | Value::Object(_))
}

/// Whether what follows a placeholder could be taken for more of a number or word.
fn runs_on(next: Option<&Part>) -> bool {
    match next {
        None => false,
        Some(Part::Pointer(_)) => true,
        Some(Part::Text(text)) => text.starts_with(|c: char| c.is_ascii_alphanumeric() || "+-.".contains(c)),
    }
}

/// JSON in which equal values have equal texts: sorted members, numbers as decimals.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Number(number) => match Decimal::parse(number.as_str()) {
            Some(decimal) => out.push_str(&decimal.canonical()),
            None => out.push_str(number.as_str()),
        },
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| name.as_str());
            out.push('{');
            for (index, (name, member)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::String(name.clone()).to_string());
                out.push(':');
                write_canonical(member, out);
            }
            out.push('}');
        }
        plain => out.push_str(&plain.to_string()),
    }
}

#[cfg(test)]
mod tests;
