//! Which revision of MCP a message follows, and the headers that 2026-07-28 demands beside the body.

use hyper::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

use super::problem::{Problem, UNSUPPORTED_VERSION};
use crate::wire;

/// The stateless revision: no `initialize`, no sessions, everything in each request.
pub(super) const MODERN: &str = "2026-07-28";
/// Revisions with `initialize` and sessions, newest first. 2024-11-05 has no streamable HTTP, but comes over stdio.
pub(super) const LEGACY: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
/// Request `_meta`: the version; every modern request carries it.
pub(super) const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// Request `_meta`: what the client can do; every modern request carries it.
pub(super) const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// Request `_meta`: name and version of the client.
pub(super) const META_CLIENT: &str = "io.modelcontextprotocol/clientInfo";
/// Request `_meta`: the least severe level of log messages that the client wants to hear of this request.
pub(super) const META_LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
/// Result `_meta`: name and version of the server.
pub(super) const META_SERVER: &str = "io.modelcontextprotocol/serverInfo";

const VERSION_HEADER: &str = "MCP-Protocol-Version";
const METHOD_HEADER: &str = "Mcp-Method";
const NAME_HEADER: &str = "Mcp-Name";
const PARAM_HEADER: &str = "Mcp-Param-";

/// The two families of revisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Era {
    /// Before 2026-07-28.
    Legacy,
    /// 2026-07-28.
    Modern,
}

/// How a message came, which decides what it must bring along.
#[derive(Clone, Copy, Debug)]
pub(super) enum Carrier<'a> {
    /// Straight over HTTP: headers are what intermediaries route by, so they must say what the body says.
    Http(&'a HeaderMap),
    /// Through our own stdio bridge: stdio has no headers, the body is all there is.
    Bridge,
}

/// All versions that we serve, newest first.
pub(super) fn supported() -> Value {
    std::iter::once(MODERN).chain(LEGACY).collect()
}

/// The version that an `initialize` for `requested` ends up with.
pub(super) fn negotiate(requested: &str) -> &'static str {
    LEGACY.into_iter().find(|known| *known == requested).unwrap_or(LEGACY[0])
}

/// Finds the era of a request or notification and checks everything about it that does not depend on the tool.
///
/// # Errors
/// What the specification says about versions, required `_meta` and headers (2026-07-28, "Streamable HTTP").
pub(super) fn of(
    carrier: Carrier<'_>,
    method: &str,
    params: &Map<String, Value>,
    is_request: bool,
) -> Result<Era, Problem> {
    let meta = params.get("_meta").and_then(Value::as_object);
    let in_meta = meta.and_then(|meta| meta.get(META_VERSION));
    let in_header = match carrier {
        Carrier::Http(headers) => single(headers, VERSION_HEADER)?,
        Carrier::Bridge => None,
    };
    let meta_is_modern = in_meta.is_some_and(|version| version.as_str().is_none_or(|v| !LEGACY.contains(&v)));
    // The handshake is legacy whatever version it offers; without an offer it is only a method that is no more.
    if method == "initialize" && (!meta_is_modern || params.contains_key("protocolVersion")) {
        handshake_headers(carrier, in_header, params)?;
        return Ok(Era::Legacy);
    }
    if !meta_is_modern && method != "server/discover" && in_header.is_none_or(|version| version < MODERN) {
        return match in_header {
            Some(version) if !LEGACY.contains(&version) => Err(unsupported(version)),
            _ => Ok(Era::Legacy),
        };
    }
    if let Carrier::Http(headers) = carrier {
        method_and_name(headers, method, params)?;
    }
    if is_request {
        modern_request(carrier, in_header, in_meta, meta)?;
    }
    Ok(Era::Modern)
}

fn modern_request(
    carrier: Carrier<'_>,
    in_header: Option<&str>,
    in_meta: Option<&Value>,
    meta: Option<&Map<String, Value>>,
) -> Result<(), Problem> {
    let version = in_meta.and_then(Value::as_str);
    if let (Carrier::Http(_), Some(version)) = (carrier, version) {
        match in_header {
            None => {
                return Err(Problem::header(format!(
                    "`{META_VERSION}` in _meta needs the {VERSION_HEADER} header"
                )));
            }
            Some(header) if header != version => {
                let message = format!("the {VERSION_HEADER} header says {header:?}, _meta says {version:?}");
                return Err(Problem::header(message));
            }
            Some(_) => {}
        }
    }
    if let Some(version) = version
        && version != MODERN
    {
        return Err(unsupported(version));
    }
    let has_capabilities = meta.and_then(|meta| meta.get(META_CAPABILITIES)).is_some_and(Value::is_object);
    let missing: Vec<&str> = [(META_VERSION, version.is_some()), (META_CAPABILITIES, has_capabilities)]
        .into_iter()
        .filter_map(|(name, there)| (!there).then_some(name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let message =
        format!("request _meta is missing or has malformed required fields: {}", missing.join(", "));
    Err(Problem::plain(StatusCode::BAD_REQUEST, wire::INVALID_PARAMS, message))
}

/// `initialize` may come without headers, but what it brings must not contradict the body.
fn handshake_headers(
    carrier: Carrier<'_>,
    in_header: Option<&str>,
    params: &Map<String, Value>,
) -> Result<(), Problem> {
    let Carrier::Http(headers) = carrier else { return Ok(()) };
    let in_body = params.get("protocolVersion").and_then(Value::as_str);
    if let (Some(header), Some(body)) = (in_header, in_body)
        && header != body
    {
        let message =
            format!("the {VERSION_HEADER} header says {header:?}, params.protocolVersion says {body:?}");
        return Err(Problem::invalid_request(message));
    }
    match single(headers, METHOD_HEADER)? {
        Some(method) if method != "initialize" => {
            Err(Problem::header(format!("the {METHOD_HEADER} header says {method:?}, the body `initialize`")))
        }
        _ => Ok(()),
    }
}

fn method_and_name(headers: &HeaderMap, method: &str, params: &Map<String, Value>) -> Result<(), Problem> {
    match single(headers, METHOD_HEADER)? {
        None => return Err(Problem::header(format!("the {METHOD_HEADER} header is missing"))),
        Some(header) if header != method => {
            return Err(Problem::header(format!(
                "the {METHOD_HEADER} header says {header:?}, the body {method:?}"
            )));
        }
        Some(_) => {}
    }
    let Some(name) = name_of(method, params) else { return Ok(()) };
    let Some(header) = single(headers, NAME_HEADER)? else {
        return Err(Problem::header(format!("the {NAME_HEADER} header is missing")));
    };
    match decode(header) {
        Some(header) if header == name => Ok(()),
        Some(header) => {
            Err(Problem::header(format!("the {NAME_HEADER} header says {header:?}, the body {name:?}")))
        }
        None => Err(Problem::header(format!("the {NAME_HEADER} header is not valid Base64"))),
    }
}

fn name_of<'a>(method: &str, params: &'a Map<String, Value>) -> Option<&'a str> {
    let member = match method {
        "tools/call" | "prompts/get" => "name",
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => "uri",
        "tasks/get" | "tasks/update" | "tasks/cancel" => "taskId",
        _ => return None,
    };
    params.get(member)?.as_str()
}

/// Checks the `Mcp-Param-*` headers of a call against its arguments, as the tool's input schema asks (`x-mcp-header`).
///
/// # Errors
/// A header that is missing, is there for an argument that is not, or says something else.
pub(super) fn param_headers(
    headers: &HeaderMap,
    definition: &Value,
    arguments: &Value,
) -> Result<(), Problem> {
    let Some(schema) = definition.get("inputSchema") else { return Ok(()) };
    param_headers_below(headers, schema, Some(arguments), 0)
}

fn param_headers_below(
    headers: &HeaderMap,
    schema: &Value,
    arguments: Option<&Value>,
    depth: usize,
) -> Result<(), Problem> {
    // A definition comes from a server; deeper annotations than any client would look for are not worth a stack.
    let Some(properties) = schema.get("properties").and_then(Value::as_object).filter(|_| depth < 32) else {
        return Ok(());
    };
    for (name, property) in properties {
        let argument = arguments.and_then(|arguments| arguments.get(name));
        if let Some(header) =
            property.get("x-mcp-header").and_then(Value::as_str).filter(|name| !name.is_empty())
        {
            param_header(headers, &format!("{PARAM_HEADER}{header}"), name, argument)?;
        }
        param_headers_below(headers, property, argument, depth + 1)?;
    }
    Ok(())
}

fn param_header(
    headers: &HeaderMap,
    header: &str,
    property: &str,
    argument: Option<&Value>,
) -> Result<(), Problem> {
    let in_body = match argument {
        Some(Value::String(text)) => Some(text.clone()),
        Some(value @ (Value::Bool(_) | Value::Number(_))) => Some(value.to_string()),
        _ => None,
    };
    match (single(headers, header)?, in_body) {
        (None, None) => Ok(()),
        (Some(_), None) => {
            Err(Problem::header(format!("{header} is there, the argument {property:?} is not")))
        }
        (None, Some(_)) => Err(Problem::header(format!("{header} is missing for the argument {property:?}"))),
        (Some(text), Some(in_body)) => match decode(text) {
            Some(in_header) if in_header == in_body => Ok(()),
            Some(in_header) => Err(Problem::header(format!(
                "{header} says {in_header:?}, the argument {property:?} {in_body:?}"
            ))),
            None => Err(Problem::header(format!("{header} is not valid Base64"))),
        },
    }
}

fn unsupported(version: &str) -> Problem {
    let message = format!("Unsupported protocol version {version:?}");
    Problem::plain(StatusCode::BAD_REQUEST, UNSUPPORTED_VERSION, message)
        .with("requested", version)
        .with("supported", supported())
}

/// The method is not one of ours: 404 in the modern era, a plain JSON-RPC error before.
pub(super) fn unknown_method(era: Era, method: &str) -> Problem {
    let status = match era {
        Era::Modern => StatusCode::NOT_FOUND,
        Era::Legacy => StatusCode::OK,
    };
    Problem::plain(status, wire::METHOD_NOT_FOUND, format!("Method not found: {method}"))
}

/// Methods that 2026-07-28 has no more.
pub(super) const ENDED: [&str; 7] = [
    "initialize",
    "ping",
    "logging/setLevel",
    "resources/subscribe",
    "resources/unsubscribe",
    "tasks/list",
    "tasks/result",
];

/// A header that may stand once: what stands twice could be read differently by somebody in between.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::header(format!("the {name} header stands twice")));
    }
    value
        .to_str()
        .map(Some)
        .map_err(|_| Problem::header(format!("the {name} header contains invalid characters")))
}

/// Undoes `=?base64?...?=` (SEP-2243, value encoding); other text is itself.
fn decode(header: &str) -> Option<String> {
    match header.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        Some(base64) => String::from_utf8(from_base64(base64)?).ok(),
        None => Some(header.to_owned()),
    }
}

/// RFC 4648 section 4, padding required.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let (data, padding) = match text.trim_end_matches('=') {
        data if text.len() - data.len() <= 2 => (data, text.len() - data.len()),
        _ => return None,
    };
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0u32);
    for byte in data.bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    // Left-over bits must be zero, so that one value has one spelling.
    (bits & ((1 << held) - 1) == 0 && held as usize == padding * 2).then_some(bytes)
}

#[cfg(test)]
#[path = "era_tests.rs"]
mod tests;
