//! Which keys apply to a request, and the one argument text that is shown, journaled and sent.

use holdfast_policy::{KeyRule, Plan, Repeat, Scope, UpstreamKey};
use holdfast_store::{
    CallId, Hash32, Key, KeySource, Position, Text, fingerprint_with, hash_fields, key_hash,
};
use serde_json::{Map, Value};

use super::{
    Request,
    accept::{Life, origin_hash},
};
use crate::report::{Report, Target};

/// What identifies a request, and what is sent for it.
#[derive(Debug)]
pub(super) struct Identity {
    /// Server identity, tool, the arguments and the extra members as received.
    pub(super) fingerprint: Hash32,
    /// Checked and claimed in this order.
    pub(super) keys: Vec<Key>,
    /// The place in a run, where no explicit key names the call better.
    pub(super) position: Option<Position>,
    /// Principal, client and fingerprint: under which the call can be the origin of a re-issue.
    pub(super) origin: Option<Hash32>,
    /// The argument text that is sent, with our key in it where policy says so.
    pub(super) arguments: Text,
    /// The extra members of `params`, an object.
    pub(super) extra: Option<Text>,
    /// `_meta` members for the upstream.
    pub(super) meta: Option<Text>,
    /// Headers for the upstream.
    pub(super) headers: Vec<(String, String)>,
}

/// Works out keys and texts.
///
/// # Errors
/// A report for the agent: a key is needed and missing, or the agent's own upstream key contradicts ours.
pub(super) fn identify(
    request: &Request,
    identity: &str,
    plan: &Plan,
    call: CallId,
) -> Result<Identity, Report> {
    let target = Target { server: &request.server, tool: &request.tool };
    let principal = request.caller.principal.as_str();
    let received = Text::of(&request.arguments);
    let extra = object(&request.extra);
    let fingerprint = fingerprint_with(identity, &request.tool, &received, extra.as_deref());

    let mut keys = Vec::new();
    if let Some(name) = &request.transport_key {
        keys.push(key(KeySource::Transport, &[principal], name));
    }
    let explicit = request.explicit_key.as_ref();
    if let Some(name) = explicit {
        keys.push(key(KeySource::Explicit, &[principal, &request.server, &request.tool], name));
    }
    if let KeyRule::Effect(template) = &plan.key {
        let name = template.render(&request.arguments).map_err(|missing| {
            Report::key_required(target, &format!("its effect key needs {}", missing.0))
        })?;
        // The template's own text is the key's namespace, so `refund:{/charge}` may guard several tools.
        let scope = match plan.scope {
            Scope::Principal => vec!["principal", principal],
            Scope::Everyone => vec!["everyone"],
        };
        keys.push(key(KeySource::Effect, &scope, &name));
    }
    let named = keys.iter().rev().find(|key| key.source != KeySource::Transport).copied();
    if plan.key == KeyRule::Required && named.is_none() {
        return Err(Report::key_required(target, "neither an explicit nor an effect key is given"));
    }

    let position = request.run.as_ref().filter(|_| explicit.is_none()).map(|run| {
        let life = request.incarnation.as_deref().unwrap_or(&request.caller.channel);
        let fields = |life: &str| -> Hash32 {
            hash_fields(
                "holdfast/run",
                &[principal.as_bytes(), run.as_bytes(), life.as_bytes(), &fingerprint.0],
            )
        };
        Position { counter: fields(life), key: fields("") }
    });
    let life = Life { run: request.run.as_deref(), incarnation: request.incarnation.as_deref() };
    let origin = (explicit.is_none() && plan.repeat != Repeat::Safe && plan.reissue_window_ms.is_some())
        .then(|| origin_hash(&request.caller, fingerprint, life));

    let mut meta = forwarded(&request.meta);
    let mut headers = Vec::new();
    let mut arguments = received;
    if let Some(upstream) = &plan.upstream_key {
        let value = upstream_value(named, call);
        match upstream {
            UpstreamKey::Arg(pointer) => {
                let mut with_key = request.arguments.clone();
                refuse_other(target, pointer.find(&with_key), &value)?;
                pointer.put(&mut with_key, Value::String(value)).map_err(|_| {
                    Report::invalid_arguments(target, &format!("there is no place for {pointer}"))
                })?;
                arguments = Text::of(&with_key);
            }
            UpstreamKey::Meta(name) => {
                refuse_other(target, meta.get(name), &value)?;
                meta.insert(name.clone(), Value::String(value));
            }
            UpstreamKey::Header(name) => headers.push((name.clone(), value)),
        }
    }
    let meta = object(&meta);
    Ok(Identity { fingerprint, keys, position, origin, arguments, extra, meta, headers })
}

fn object(members: &Map<String, Value>) -> Option<Text> {
    (!members.is_empty()).then(|| Text::of(members))
}

/// The extra members of a request that becomes a gated call. Its agent has a handle of ours already, and a task of the
/// server's (2025-11-25) in its place would be too much for it.
pub(super) fn extra_without_task(request: &Request) -> Option<Text> {
    let mut extra = request.extra.clone();
    extra.shift_remove("task");
    object(&extra)
}

fn key(source: KeySource, scope: &[&str], name: &str) -> Key {
    Key { source, hash: key_hash(source, scope, name) }
}

/// The key that the upstream sees: the same for each attempt, and telling nothing about ours.
fn upstream_value(named: Option<Key>, call: CallId) -> String {
    match named {
        Some(key) => {
            let hash = hash_fields("holdfast/upstream-key", &[&key.hash.0]);
            let mut text = hash.to_string();
            text.truncate(32);
            format!("hf-{text}")
        }
        None => call.to_string(),
    }
}

fn refuse_other(target: Target<'_>, given: Option<&Value>, ours: &str) -> Result<(), Report> {
    match given {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(same)) if same == ours => Ok(()),
        Some(_) => Err(Report::invalid_arguments(
            target,
            "it carries an upstream idempotency key of its own, which Holdfast sets for each call",
        )),
    }
}

/// The `_meta` members that go on: ours and the protocol's own are for this hop only.
fn forwarded(meta: &Map<String, Value>) -> Map<String, Value> {
    meta.iter()
        .filter(|(name, _)| !is_reserved(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// MCP 2026-07-28, "General fields": a prefix whose second label is `mcp` or `modelcontextprotocol` is reserved.
fn is_reserved(name: &str) -> bool {
    if name == "progressToken" {
        return true;
    }
    let Some((prefix, _)) = name.split_once('/') else { return false };
    let mut labels = prefix.split('.');
    let first = labels.next().unwrap_or_default();
    let second = labels.next().unwrap_or_default();
    matches!(second, "mcp" | "modelcontextprotocol")
        || matches!(first, "mcp" | "modelcontextprotocol")
        || prefix == "io.holdfast"
}
