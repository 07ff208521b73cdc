//! HTTP headers with a meaning of their own: `Retry-After`, and the arguments that a tool wants mirrored.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

/// An argument that its tool's schema wants in a `Mcp-Param-*` header (SEP-2243).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mirrored {
    /// Property names from the root of the arguments.
    path: Vec<String>,
    /// The header's full name.
    pub(super) header: String,
}

/// What a tool's input schema wants mirrored: every `x-mcp-header` reached through `properties` alone.
pub(super) fn mirrored(definition: &Value) -> Vec<Mirrored> {
    let mut found = Vec::new();
    collect(&definition["inputSchema"]["properties"], &mut Vec::new(), &mut found);
    found
}

fn collect(properties: &Value, path: &mut Vec<String>, found: &mut Vec<Mirrored>) {
    const DEEPEST: usize = 32;
    let Some(properties) = properties.as_object().filter(|_| path.len() < DEEPEST) else { return };
    for (name, schema) in properties {
        path.push(name.clone());
        if let Some(header) = schema["x-mcp-header"].as_str().filter(|header| !header.is_empty()) {
            found.push(Mirrored { path: path.clone(), header: format!("Mcp-Param-{header}") });
        }
        collect(&schema["properties"], path, found);
        path.pop();
    }
}

/// Why clients over HTTP must leave a tool out (2026-07-28, "x-mcp-header"); none where they need not.
pub(super) fn flaw(definition: &Value) -> Option<&'static str> {
    flaw_below(&definition["inputSchema"]["properties"], &mut Vec::new())
}

fn flaw_below(properties: &Value, seen: &mut Vec<String>) -> Option<&'static str> {
    properties.as_object()?.values().find_map(|schema| {
        let below = |seen: &mut Vec<String>| flaw_below(&schema["properties"], seen);
        let Some(header) = schema.get("x-mcp-header") else { return below(seen) };
        let header = header.as_str().unwrap_or_default().to_ascii_lowercase();
        if header.is_empty() || !header.bytes().all(is_token) {
            return Some("the name of a header cannot be one");
        }
        if seen.contains(&header) {
            return Some("two arguments want the same header");
        }
        seen.push(header);
        match schema["type"].as_str() {
            None if schema["type"].is_null() => below(seen),
            Some("string" | "integer" | "boolean") => None,
            _ => Some("only a string, an integer or a boolean can be a header"),
        }
    })
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

impl Mirrored {
    /// The header's value for these arguments, if they have such a member and it is a plain one.
    pub(super) fn value(&self, arguments: &Map<String, Value>) -> Option<String> {
        let (first, rest) = self.path.split_first()?;
        let value = rest.iter().try_fold(arguments.get(first)?, |value, name| value.get(name))?;
        match value {
            Value::String(text) => Some(header_text(text)),
            Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
            _ => None,
        }
    }
}

/// `text` as it may stand in a header: as it is, or as `=?base64?...?=`.
pub(super) fn header_text(text: &str) -> String {
    let looks_encoded = text.starts_with("=?base64?") && text.ends_with("?=");
    let is_padded = text.starts_with(' ') || text.ends_with(' ');
    let plain = !looks_encoded && !is_padded && text.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
    if plain { text.to_owned() } else { format!("=?base64?{}?=", base64(text.as_bytes())) }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0u32, |bits, byte| (bits << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() { digit as char } else { '=' });
        }
    }
    text
}

/// Milliseconds from now that a `Retry-After` asks to wait: seconds, or an HTTP date (RFC 9110 section 10.2.3).
pub(crate) fn retry_after_ms(value: &str, now: SystemTime) -> Option<u64> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(seconds.saturating_mul(1000));
    }
    let due_ms = http_date_s(value)?.checked_mul(1000)?;
    let now_ms = now.duration_since(UNIX_EPOCH).ok()?.as_millis() as u64;
    Some(due_ms.saturating_sub(now_ms))
}

/// Unix seconds of `Sun, 06 Nov 1994 08:49:37 GMT`, the one form that may be generated today.
fn http_date_s(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, rest) = text.split_once(", ")?;
    let mut parts = rest.split([' ', ':']);
    let mut number = || parts.next()?.parse::<u64>().ok();
    let day = number().filter(|day| (1..=31).contains(day))?;
    let mut parts = rest.split([' ', ':']).skip(1);
    let name = parts.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? as u64 + 1;
    let mut number = || parts.next()?.parse::<u64>().ok();
    let year = number().filter(|year| (1970..=9999).contains(year))?;
    let hour = number().filter(|hour| *hour < 24)?;
    let minute = number().filter(|minute| *minute < 60)?;
    let second = number().filter(|second| *second <= 60)?;
    // Days since 1970-03-01 of a calendar whose year begins in March, so that the leap day is the last of a year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    const DAYS_TO_1970: u64 = 719_468;
    let days = days.checked_sub(DAYS_TO_1970)?;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        let check =
            |value: &str, expected: Option<u64>| assert_eq!(retry_after_ms(value, now), expected, "{value}");
        check("7", Some(7000));
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(0));
        check("Sun, 06 Nov 1994 08:50:37 GMT", Some(60_000));
        check("Thu, 29 Feb 1996 00:00:00 GMT", Some((825_552_000 - 784_111_777) * 1000));
        check("Thu, 01 Jan 1970 00:00:00 GMT", Some(0));
        check("soon", None);
        check("-1", None);
        check("Sun, 06 Nov 1994 25:00:00 GMT", None);
    }

    #[test]
    fn tools_with_impossible_headers_have_a_flaw() {
        let check = |properties: Value, is_flawed: bool| {
            let tool = json!({ "inputSchema": { "properties": properties } });
            assert_eq!(flaw(&tool).is_some(), is_flawed, "{tool}");
        };
        let one = |kind: &str, header: &str| json!({ "type": kind, "x-mcp-header": header });
        check(
            json!({ "a": one("string", "Region"), "b": one("integer", "B"), "c": one("boolean", "C") }),
            false,
        );
        check(json!({ "a": { "x-mcp-header": "Region" }, "b": { "type": "object" } }), false);
        for header in ["", "My Region", "A:B", "R\u{e9}gion", "A\t1"] {
            check(json!({ "a": one("string", header) }), true);
        }
        for kind in ["object", "array", "null", "number"] {
            check(json!({ "a": one(kind, "A") }), true);
        }
        check(
            json!({ "a": one("string", "Same"), "b": { "properties": { "c": one("string", "same") } } }),
            true,
        );
        check(json!({ "a": { "type": "string", "x-mcp-header": 5 } }), true);
    }

    #[test]
    fn arguments_are_mirrored_as_the_schema_says() {
        let tool = json!({"inputSchema": {"properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "deep": {"properties": {"count": {"x-mcp-header": "Count"}, "gone": {"x-mcp-header": "Gone"}}},
            "list": {"items": {"x-mcp-header": "Never"}},
        }}});
        let arguments = json!({"region": "Zürich", "deep": {"count": 3}, "list": ["x"]});
        let arguments = arguments.as_object().expect("an object");
        let seen: Vec<_> =
            mirrored(&tool).into_iter().map(|one| (one.header.clone(), one.value(arguments))).collect();
        assert_eq!(
            seen,
            [
                ("Mcp-Param-Region".to_owned(), Some("=?base64?WsO8cmljaA==?=".to_owned())),
                ("Mcp-Param-Count".to_owned(), Some("3".to_owned())),
                ("Mcp-Param-Gone".to_owned(), None),
            ]
        );
    }

    #[test]
    fn header_text_stays_plain_where_it_can() {
        for (text, expected) in [
            ("us-east 1", "us-east 1"),
            ("", ""),
            (" x", "=?base64?IHg=?="),
            ("a\nb", "=?base64?YQpi?="),
            ("=?base64?eA==?=", "=?base64?PT9iYXNlNjQ/ZUE9PT89?="),
        ] {
            assert_eq!(header_text(text), expected, "{text:?}");
        }
    }
}
