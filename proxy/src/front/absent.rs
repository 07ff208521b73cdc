//! What stands for the tools of a server that never listed any: one tool that says why, so that nobody guesses.

use std::sync::Arc;

use holdfast_policy::Hints;
use holdfast_store::{Caller, Text};
use serde_json::json;

use super::tools::exposed;
use crate::{
    inbox::visible::visible,
    times::clock,
    upstream::{Tool, Unsent, Upstream, Upstreams},
};

/// Its name after the server's.
const NAME: &str = "unavailable";

/// The list of a server whose tools are not known, for this reason.
pub(super) fn stand_in(upstream: &Upstream, unsent: &Unsent) -> Arc<Vec<Tool>> {
    let description = format!(
        "The tools of `{}` are not known, because it cannot be used: {} Calling this tells how it is now and does \
         nothing else. Once the server is there, its own tools stand here.",
        upstream.name(),
        why(upstream, Some(unsent))
    );
    let definition = json!({
        "name": NAME,
        "title": format!("{} cannot be used", upstream.name()),
        "description": description,
        "inputSchema": { "type": "object", "properties": {}, "additionalProperties": false },
        "annotations": {
            "readOnlyHint": true, "destructiveHint": false, "idempotentHint": true, "openWorldHint": false,
        },
    });
    Arc::new(vec![Tool {
        name: NAME.to_owned(),
        hash: holdfast_store::definition_hash(&definition).to_string().into(),
        hints: Hints::of_tool(&definition),
        has_output_schema: false,
        definition,
    }])
}

/// What a call of the tool that stands for a server's says; none where `name` is no such tool now.
pub(super) async fn asked(upstreams: &Upstreams, caller: &Caller, name: &str) -> Option<Text> {
    let all = upstreams.all();
    let upstream = all.iter().find(|upstream| exposed(upstream.name(), NAME) == name)?;
    let text = match upstream.tools(caller).await {
        Ok(tools) if tools.iter().any(|tool| tool.name == NAME) => return None,
        Ok(_) => format!("Server `{}` can be used: list the tools again.", upstream.name()),
        Err(unsent) => {
            format!("Server `{}` cannot be used: {}", upstream.name(), why(upstream, Some(&unsent)))
        }
    };
    Some(Text::of(&json!({ "content": [{ "type": "text", "text": text }] })))
}

fn why(upstream: &Upstream, unsent: Option<&Unsent>) -> String {
    let health = upstream.health();
    let said = unsent.map(|unsent| unsent.message.clone()).or(health.last_error).unwrap_or_default();
    // What a server last said is its own business; the first line is ours.
    let first = visible(said.lines().next().unwrap_or_default());
    format!("{first} (since {})", clock(health.since))
}
