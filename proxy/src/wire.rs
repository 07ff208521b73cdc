//! JSON-RPC envelopes without loss: members we do not read stay text, and what we do read is read strictly.

use std::{borrow::Cow, fmt};

use holdfast_store::Text;
use serde::{
    Deserialize, Deserializer as _,
    de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value, value::RawValue};

/// JSON-RPC 2.0: the text is not JSON.
pub(crate) const PARSE_ERROR: i64 = -32700;
/// JSON-RPC 2.0: not a request object.
pub(crate) const INVALID_REQUEST: i64 = -32600;
/// JSON-RPC 2.0: unknown method.
pub(crate) const METHOD_NOT_FOUND: i64 = -32601;
/// JSON-RPC 2.0: invalid parameters.
pub(crate) const INVALID_PARAMS: i64 = -32602;
/// JSON-RPC 2.0: internal error.
pub(crate) const INTERNAL_ERROR: i64 = -32603;
/// MCP 2026-07-28: a header contradicts the body or is missing.
pub(crate) const HEADER_MISMATCH: i64 = -32020;
/// MCP 2026-07-28: the request needs a capability that the client did not declare.
pub(crate) const MISSING_CAPABILITY: i64 = -32021;
/// MCP 2026-07-28: the protocol version is not served.
pub(crate) const UNSUPPORTED_VERSION: i64 = -32022;

/// One JSON-RPC message with its members as they stand in the text.
///
/// Member names are matched exactly (`"Method"` is not `"method"`), after unescaping as JSON demands.
#[derive(Debug, Deserialize)]
pub(crate) struct Envelope<'a> {
    /// Always `2.0` in a valid message.
    #[serde(borrow, default)]
    pub(crate) jsonrpc: Option<Cow<'a, str>>,
    /// The id's own text: a string or a number of any size.
    #[serde(borrow, default)]
    pub(crate) id: Option<&'a RawValue>,
    /// Present in requests and notifications.
    #[serde(borrow, default)]
    pub(crate) method: Option<Cow<'a, str>>,
    /// Parameters, unparsed.
    #[serde(borrow, default)]
    pub(crate) params: Option<&'a RawValue>,
    /// The result of a response, unparsed.
    #[serde(borrow, default)]
    pub(crate) result: Option<&'a RawValue>,
    /// The error of a response, unparsed.
    #[serde(borrow, default)]
    pub(crate) error: Option<&'a RawValue>,
}

impl<'a> Envelope<'a> {
    /// Reads one message.
    ///
    /// # Errors
    /// What is wrong with the text, for the sender.
    pub(crate) fn read(text: &'a str) -> Result<Self, Fault> {
        serde_json::from_str(text).map_err(|error| Fault::from_json(&error))
    }
}

/// Why a text was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Not JSON, with the parser's words.
    Syntax(String),
    /// A name stands twice in one object.
    DuplicateKey(String),
    /// Arrays and objects nest deeper than this many levels.
    TooDeep(usize),
}

impl Fault {
    fn from_json(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        if let Some(rest) = text.strip_prefix(DUPLICATE) {
            return Self::DuplicateKey(rest.split(" at line").next().unwrap_or(rest).to_owned());
        }
        if let Some(rest) = text.strip_prefix(TOO_DEEP) {
            let limit = rest.split(' ').next().and_then(|limit| limit.parse().ok()).unwrap_or_default();
            return Self::TooDeep(limit);
        }
        match text.strip_prefix("duplicate field `").and_then(|rest| rest.split('`').next()) {
            Some(name) => Self::DuplicateKey(name.to_owned()),
            None => Self::Syntax(text),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(what) => write!(f, "not valid JSON: {what}"),
            Self::DuplicateKey(name) => {
                write!(f, "the object key {name:?} stands twice; which one counts would be a guess")
            }
            Self::TooDeep(limit) => write!(f, "nested deeper than {limit} levels (intake.max_depth)"),
        }
    }
}

const DUPLICATE: &str = "holdfast duplicate key ";
const TOO_DEEP: &str = "holdfast depth ";

/// Reads `text` without losing anything: numbers keep their digits and objects their order.
///
/// # Errors
/// Duplicate object keys and nesting beyond `max_depth` are refused, with everything that is not JSON.
pub(crate) fn read_strictly(text: &str, max_depth: usize) -> Result<Value, Fault> {
    // serde_json's own recursion limit is switched off by none of its stable settings, so a depth check on the bytes
    // comes first: it also gives the clearer message.
    if depth_exceeds(text.as_bytes(), max_depth) {
        return Err(Fault::TooDeep(max_depth));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let value =
        Strict { depth: max_depth }.deserialize(&mut reader).map_err(|error| Fault::from_json(&error))?;
    reader.end().map_err(|error| Fault::from_json(&error))?;
    Ok(value)
}

/// Whether arrays and objects nest deeper than `limit`, without recursion and without parsing values.
pub(crate) fn depth_exceeds(bytes: &[u8], limit: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in bytes {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

struct Strict {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let depth = self.below()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Strict { depth })? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let depth = self.below()?;
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if name == NUMBER_TOKEN && map.is_empty() {
                // With `arbitrary_precision` serde_json hands a number over as a map with this one private name.
                let digits = members.next_value::<String>()?;
                let number: Number = digits.parse().map_err(A::Error::custom)?;
                return Ok(Value::Number(number));
            }
            if map.contains_key(&name) {
                return Err(A::Error::custom(format!("{DUPLICATE}{name}")));
            }
            let value = members.next_value_seed(Strict { depth })?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

const NUMBER_TOKEN: &str = "$serde_json::private::Number";

impl Strict {
    fn below<E: serde::de::Error>(&self) -> Result<usize, E> {
        self.depth.checked_sub(1).ok_or_else(|| E::custom(TOO_DEEP))
    }
}

/// The members of an object in their order: unescaped name, value as it stands in the text.
pub(crate) type Members<'a> = Vec<(Cow<'a, str>, &'a str)>;

/// The members of the object `text`; none where it is no object.
pub(crate) fn members(text: &str) -> Option<Members<'_>> {
    struct Walk;
    impl<'de> Visitor<'de> for Walk {
        type Value = Members<'de>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Members::new();
            while let Some(Name(name)) = map.next_key()? {
                members.push((name, map.next_value::<&RawValue>()?.get()));
            }
            Ok(members)
        }
    }
    serde_json::Deserializer::from_str(text).deserialize_map(Walk).ok()
}

/// A member's name, borrowed where it holds no escapes (a plain `Cow` would always be copied).
struct Name<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Name<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Take;
        impl<'de> Visitor<'de> for Take {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }
            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(Take)
    }
}

/// A JSON-RPC notification as one line of text.
pub(crate) fn notification(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":{},"params":{params}}}"#, Value::from(method))
}

/// A JSON-RPC response with a result.
pub(crate) fn result(id: &str, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

/// A JSON-RPC response with an error member.
pub(crate) fn error(id: &str, error: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#)
}

/// The text of an `error` member.
pub(crate) fn error_member(code: i64, message: &str, data: Option<&Value>) -> Text {
    let mut member = Map::new();
    member.insert("code".into(), code.into());
    member.insert("message".into(), message.into());
    if let Some(data) = data {
        member.insert("data".into(), data.clone());
    }
    Text::of(&member)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, Fault>) {
        let read = read_strictly(text, 4).map(|value| value.to_string());
        match (read, expected) {
            (Err(Fault::Syntax(_)), Err(Fault::Syntax(_))) => {}
            (read, expected) => assert_eq!(read, expected.map(str::to_owned), "{text}"),
        }
    }

    #[test]
    fn nothing_is_lost_and_nothing_is_guessed() {
        check(
            r#"{"b":1,"a":[9007199254740993, 1.50, -0, 1e400]}"#,
            Ok(r#"{"b":1,"a":[9007199254740993,1.50,-0,1e+400]}"#),
        );
        check(r#"{"a":1,"a":2}"#, Err(Fault::DuplicateKey("a".into())));
        check(r#"{"a":{"b":1,"\u0062":2}}"#, Err(Fault::DuplicateKey("b".into())));
        check("[[[[1]]]]", Ok("[[[[1]]]]"));
        check("[[[[[1]]]]]", Err(Fault::TooDeep(4)));
        check(r#""[[[[[[""#, Ok(r#""[[[[[[""#));
        check("{} x", Err(Fault::Syntax(String::new())));
        check("{", Err(Fault::Syntax(String::new())));
    }

    #[test]
    fn hundred_thousand_levels_are_refused_without_recursion() {
        let text = "[".repeat(100_000);
        assert_eq!(read_strictly(&text, 64), Err(Fault::TooDeep(64)));
    }

    #[test]
    fn member_names_are_exact() {
        let envelope = Envelope::read(r#"{"jsonrpc":"2.0","id":1,"Method":"x"}"#).expect("valid JSON");
        assert!(envelope.method.is_none());
        let envelope = Envelope::read(r#"{"jsonrpc":"2.0","id":1,"\u006dethod":"x"}"#).expect("valid JSON");
        assert_eq!(envelope.method.as_deref(), Some("x"));
        assert_eq!(
            Envelope::read(r#"{"id":1,"method":"a","method":"b"}"#).expect_err("a duplicate"),
            Fault::DuplicateKey("method".into())
        );
    }
}
