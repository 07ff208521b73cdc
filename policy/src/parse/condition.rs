//! `{ arg = "/amount", op = "le", value = 100 }` -> a checked condition.

use std::cmp::Ordering;

use serde_json::Value;

use super::settings::{REGEX_HINT, load_pointer};
use crate::condition::{Base, Condition, Test};
use crate::decimal::Decimal;
use crate::pattern::{Glob, Pattern};
use crate::source::Section;

const OPERATORS: [&str; 12] =
    ["eq", "ne", "lt", "le", "gt", "ge", "in", "glob", "prefix", "regex", "exists", "under"];

/// `None` where something is wrong, which is then recorded.
pub(super) fn load(section: &Section<'_>) -> Option<Condition> {
    let arg = load_pointer(section, "arg");
    let op = section.one_of("op", &OPERATORS.map(|word| (word, word)));
    if op.is_none() && !section.has("op") {
        section.problem("", "a condition without `op`", format!("write one of {}", OPERATORS.join(", ")));
    }
    let value = section.value("value");
    section.finish();
    let op = op?;
    let value = match value {
        Some(value) => value,
        None if op == "exists" && !section.has("value") => Value::Bool(true),
        None => {
            if !section.has("value") {
                section.problem(
                    "",
                    format!("`{op}` without `value`"),
                    "write what to compare with: value = ...",
                );
            }
            return None;
        }
    };
    match test(op, &value) {
        Ok(test) => Some(Condition { arg: arg?, test, op, value }),
        Err((message, hint)) => {
            section.problem("value", message, hint);
            None
        }
    }
}

fn test(op: &str, value: &Value) -> Result<Test, (String, &'static str)> {
    use Ordering::{Equal, Greater, Less};
    Ok(match op {
        "eq" => Test::Equal(comparable(value)?),
        "ne" => Test::NotEqual(comparable(value)?),
        "lt" => Test::Order(number(op, value)?, &[Less]),
        "le" => Test::Order(number(op, value)?, &[Less, Equal]),
        "gt" => Test::Order(number(op, value)?, &[Greater]),
        "ge" => Test::Order(number(op, value)?, &[Greater, Equal]),
        "in" => match value {
            Value::Array(items) if !items.is_empty() => {
                Test::OneOf(items.iter().map(comparable).collect::<Result<_, _>>()?)
            }
            _ => return Err(("`in` needs a list that is not empty".into(), "write e.g. [\"EUR\", \"USD\"]")),
        },
        "glob" => Test::Glob(
            Glob::parse(text(op, value)?)
                .map_err(|bad| (format!("no glob: {bad}"), "write e.g. \"*.txt\" or \"{a,b}*\""))?,
        ),
        "prefix" => match text(op, value)? {
            "" => return Err(("every text has an empty prefix".into(), "use `exists` to ask for any value")),
            prefix => Test::Prefix(prefix.to_owned()),
        },
        "regex" => Test::Regex(
            Pattern::parse(text(op, value)?)
                .map_err(|bad| (format!("no regular expression: {bad}"), REGEX_HINT))?,
        ),
        "exists" => match value {
            Value::Bool(wanted) => Test::Exists(*wanted),
            _ => return Err(("`exists` needs true or false".into(), "write value = true, or leave it out")),
        },
        _ => Test::Under(Base::parse(text(op, value)?).ok_or((
            "this directory can be read in two ways".to_owned(),
            "write a plain path without `..`, `~`, `%2e` or NUL, e.g. \"/srv/data\"",
        ))?),
    })
}

fn text<'v>(op: &str, value: &'v Value) -> Result<&'v str, (String, &'static str)> {
    value.as_str().ok_or_else(|| (format!("`{op}` compares with a text"), "put the value in quotes"))
}

fn number(op: &str, value: &Value) -> Result<String, (String, &'static str)> {
    let error = || (format!("`{op}` compares numbers"), "write a number without quotes, e.g. value = 100");
    let Value::Number(number) = value else { return Err(error()) };
    Decimal::parse(number.as_str()).ok_or_else(error)?;
    Ok(number.as_str().to_owned())
}

/// A number whose exponent is out of reach could never equal anything.
fn comparable(value: &Value) -> Result<Value, (String, &'static str)> {
    match value {
        Value::Number(number) if Decimal::parse(number.as_str()).is_none() => {
            Err(("this number cannot be compared".into(), "write fewer digits in the exponent"))
        }
        _ => Ok(value.clone()),
    }
}
