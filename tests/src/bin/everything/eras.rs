//! What 2026-07-28 demands of a request: its `_meta`, and over HTTP the headers that say the same.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{message::Failure, offers};

pub(crate) const MODERN: &str = "2026-07-28";
pub(crate) const LEGACY: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
const VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

/// Whether a request says by itself that it is of 2026-07-28 or later.
pub(crate) fn says_modern(params: &Value) -> bool {
    params["_meta"][VERSION].as_str().is_some_and(|version| !LEGACY.contains(&version))
}

/// Checks a request; `headers` have lower-case names, and stdio has none.
///
/// # Errors
/// As the specification says, in its order.
pub(crate) fn check(headers: Option<&Value>, method: &str, params: &Value) -> Result<(), Failure> {
    let meta = &params["_meta"];
    if !meta[VERSION].is_string() || !meta[CAPABILITIES].is_object() {
        return Err(Failure::new(400, -32602, "_meta lacks what it must have"));
    }
    if let Some(headers) = headers
        && headers["mcp-protocol-version"] != meta[VERSION]
    {
        return Err(mismatch("MCP-Protocol-Version"));
    }
    if meta[VERSION] != MODERN {
        let data = json!({ "supported": [MODERN], "requested": meta[VERSION] });
        return Err(Failure::new(400, -32022, "Unsupported protocol version").with(data));
    }
    let Some(headers) = headers else { return Ok(()) };
    if headers["mcp-method"] != method {
        return Err(mismatch("Mcp-Method"));
    }
    let name = match method {
        "tools/call" | "prompts/get" => &params["name"],
        "resources/read" => &params["uri"],
        "tasks/get" | "tasks/update" | "tasks/cancel" => &params["taskId"],
        _ => &Value::Null,
    };
    if let Some(name) = name.as_str()
        && decoded(&headers["mcp-name"]).as_deref() != Some(name)
    {
        return Err(mismatch("Mcp-Name"));
    }
    if method == "tools/call" { arguments(headers, params) } else { Ok(()) }
}

/// `Mcp-Param-*`, as the tool's schema asks.
fn arguments(headers: &Value, params: &Value) -> Result<(), Failure> {
    let tools = offers::tools(true);
    let tool = tools.iter().find(|tool| tool["name"] == params["name"]);
    let properties = tool.and_then(|tool| tool["inputSchema"]["properties"].as_object());
    for (argument, schema) in properties.into_iter().flatten() {
        let Some(suffix) = schema["x-mcp-header"].as_str() else { continue };
        let header = &headers[format!("mcp-param-{}", suffix.to_ascii_lowercase())];
        let expected = match &params["arguments"][argument] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        if decoded(header) != expected || header.is_null() != expected.is_none() {
            return Err(mismatch(&format!("Mcp-Param-{suffix}")));
        }
    }
    Ok(())
}

/// What a header says; none where it is not there or is not what it claims to be.
fn decoded(header: &Value) -> Option<String> {
    let text = header.as_str()?;
    match text.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        Some(coded) => String::from_utf8(STANDARD.decode(coded).ok()?).ok(),
        None => Some(text.to_owned()),
    }
}

fn mismatch(header: &str) -> Failure {
    Failure::new(400, -32020, &format!("{header} does not say what the body says"))
}
