//! One condition of a rule on the arguments of a call.

mod paths;

use std::cmp::Ordering;
use std::fmt;

use serde::Serialize;
use serde::ser::SerializeStruct;
use serde_json::Value;

use crate::decimal::Decimal;
use crate::pattern::{Glob, Pattern};
use crate::pointer::Pointer;

pub(crate) use paths::Base;

/// `{ arg = "/pointer", op = "...", value = ... }`.
#[derive(Clone, Debug)]
pub struct Condition {
    pub(crate) arg: Pointer,
    pub(crate) test: Test,
    /// The operator and value as they were written, for `explain` and for the policy's version.
    pub(crate) op: &'static str,
    pub(crate) value: Value,
}

/// A checked operator with its value.
#[derive(Clone, Debug)]
pub(crate) enum Test {
    Equal(Value),
    NotEqual(Value),
    /// A number, and which orderings of argument to number hold.
    Order(String, &'static [Ordering]),
    OneOf(Vec<Value>),
    Glob(Glob),
    Prefix(String),
    Regex(Pattern),
    Exists(bool),
    Under(Base),
}

/// What a condition says about given arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Holds,
    /// It does not.
    Fails,
    /// It cannot be told: the argument is missing, wrongly typed, or a path that tries tricks. This
    /// counts as a match for `deny` and `ask` and never for anything else.
    Doubtful(Doubt),
}

/// Why a condition cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// There is no such argument.
    Missing,
    /// It has another type than the condition compares with.
    WrongType,
    /// It is a path that may not lead where it seems to: `..`, NUL, a relative or home path, or a name
    /// that differs only in case.
    TrickyPath,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Doubt::Missing => "the argument is missing",
            Doubt::WrongType => "the argument has another type",
            Doubt::TrickyPath => "the path may lead elsewhere",
        })
    }
}

impl Condition {
    /// Evaluates the condition; allocates only for `under`.
    pub fn holds(&self, arguments: &Value) -> Outcome {
        let found = self.arg.find(arguments);
        if let Test::Exists(wanted) = self.test {
            return told(found.is_some() == wanted);
        }
        match found {
            None => Outcome::Doubtful(Doubt::Missing),
            Some(found) => self.test.on(found),
        }
    }
}

impl Test {
    fn on(&self, found: &Value) -> Outcome {
        match self {
            Test::Equal(value) => equal(found, value).map_or(WRONG_TYPE, told),
            Test::NotEqual(value) => equal(found, value).map_or(WRONG_TYPE, |equal| told(!equal)),
            Test::Order(number, accepted) => {
                let Value::Number(found) = found else { return WRONG_TYPE };
                match (Decimal::parse(found.as_str()), Decimal::parse(number)) {
                    (Some(found), Some(number)) => told(accepted.contains(&found.cmp(&number))),
                    _ => WRONG_TYPE,
                }
            }
            Test::OneOf(values) => {
                let mut told_apart = values.iter().filter_map(|value| equal(found, value)).peekable();
                if told_apart.peek().is_none() { WRONG_TYPE } else { told(told_apart.any(|equal| equal)) }
            }
            Test::Glob(glob) => on_text(found, |text| told(glob.matches(text))),
            Test::Prefix(prefix) => on_text(found, |text| told(text.starts_with(prefix.as_str()))),
            Test::Regex(pattern) => on_text(found, |text| told(pattern.matches(text))),
            Test::Under(base) => on_text(found, |path| base.contains(path)),
            Test::Exists(wanted) => told(*wanted),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.arg, self.op, self.value)
    }
}

impl Serialize for Condition {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Condition", 3)?;
        fields.serialize_field("arg", &self.arg)?;
        fields.serialize_field("op", self.op)?;
        fields.serialize_field("value", &self.value)?;
        fields.end()
    }
}

/// Whether two JSON values are the same, with numbers as decimals and members in any order.
pub(crate) fn same(left: &Value, right: &Value) -> bool {
    equal(left, right) == Some(true)
}

const WRONG_TYPE: Outcome = Outcome::Doubtful(Doubt::WrongType);

fn told(holds: bool) -> Outcome {
    if holds { Outcome::Holds } else { Outcome::Fails }
}

fn on_text(found: &Value, test: impl FnOnce(&str) -> Outcome) -> Outcome {
    match found {
        Value::String(text) => test(text),
        _ => WRONG_TYPE,
    }
}

/// `None` when the types differ, so that the two cannot be compared.
fn equal(left: &Value, right: &Value) -> Option<bool> {
    Some(match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            Decimal::parse(left.as_str())? == Decimal::parse(right.as_str())?
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            let found = |(name, value)| right.get(name).is_some_and(|right| same(value, right));
            left.len() == right.len() && left.iter().all(found)
        }
        (Value::Null, Value::Null) => true,
        (Value::Bool(left), Value::Bool(right)) => left == right,
        (Value::String(left), Value::String(right)) => left == right,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
