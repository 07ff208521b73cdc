//! Which server a request is for that names a resource, a prompt, a task or a server, and what that is called there.

use std::{collections::VecDeque, sync::Arc};

use holdfast_store::Text;
use serde_json::Value;

use super::{Front, era, lists, problem::Problem, rpc::Request, splice::set_member, task_id};
use crate::upstream::{Relayed, Speaks, Upstream};

/// Servers, each with the request as it is sent there.
pub(super) type Homes = VecDeque<(Arc<Upstream>, Relayed)>;

/// The servers that a request can be for, each with the request in its own names.
pub(super) async fn homes(front: &Front, request: &Request<'_>, relayed: Relayed) -> Result<Homes, Problem> {
    let (caller, client) = (request.caller, request.client);
    let text = |name: &str| relayed.member(name).and_then(|value| value.as_str().map(str::to_owned));
    let renamed = |member: &str, (upstream, own): (Arc<Upstream>, String)| {
        let mut relayed = relayed.clone();
        relayed.set(member, Text::of(&own));
        (upstream, relayed)
    };
    match relayed.method.as_str() {
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
            let Some(uri) = text("uri") else { return Err(wants("uri")) };
            let homes = lists::homes_of_uri(front, caller, client, &uri).await;
            Ok(homes.into_iter().map(|home| renamed("uri", home)).collect())
        }
        "prompts/get" => {
            let Some(name) = text("name") else { return Err(wants("name")) };
            let home = lists::home_of_prompt(front, caller, client, &name).await;
            let home = home
                .ok_or_else(|| Problem::invalid_params("unknown-tool", format!("Unknown prompt: {name}")))?;
            Ok(VecDeque::from([renamed("name", home)]))
        }
        "completion/complete" => completing(front, request, relayed).await,
        // 2026-07-28 has done away with it.
        "tasks/result" if client.speaks == Speaks::Modern => {
            Err(era::unknown_method(request.era, "tasks/result"))
        }
        "tasks/get" | "tasks/update" | "tasks/result" | "tasks/cancel" => {
            let home = text("taskId").and_then(|id| task_id::home(front, &request.caller.principal, &id));
            let home = home.ok_or_else(|| {
                let message =
                    "Task not found: there is none of this id for this agent, or it is no longer kept";
                Problem::invalid_params("not-found", message)
            })?;
            Ok(VecDeque::from([renamed("taskId", home)]))
        }
        method => custom(front, request, method, &relayed),
    }
}

fn wants(member: &str) -> Problem {
    Problem::invalid_params("invalid-arguments", format!("params.{member} must be a string"))
}

async fn completing(front: &Front, request: &Request<'_>, relayed: Relayed) -> Result<Homes, Problem> {
    let (caller, client) = (request.caller, request.client);
    let reference = relayed.members.iter().find(|(name, _)| name == "ref").map(|(_, value)| value.clone());
    let Some(reference) = reference else { return Err(wants("ref")) };
    let value = reference.value();
    let renamed = |member: &str, (upstream, own): (Arc<Upstream>, String)| {
        let mut relayed = relayed.clone();
        let reference = set_member(&reference, member, &Value::from(own).to_string());
        relayed.set("ref", Text::parse(&reference).expect("a member of an object was changed"));
        (upstream, relayed)
    };
    if let Some(name) = value["name"].as_str() {
        let home = lists::home_of_prompt(front, caller, client, name).await;
        let home =
            home.ok_or_else(|| Problem::invalid_params("unknown-tool", format!("Unknown prompt: {name}")))?;
        return Ok(VecDeque::from([renamed("name", home)]));
    }
    let Some(uri) = value["uri"].as_str() else { return Err(wants("ref.uri")) };
    let homes = lists::homes_of_uri(front, caller, client, uri).await;
    Ok(homes.into_iter().map(|home| renamed("uri", home)).collect())
}

/// A method that only an agent and its server know: it says which server, or there is no other.
fn custom(front: &Front, request: &Request<'_>, method: &str, relayed: &Relayed) -> Result<Homes, Problem> {
    const META_SERVER: &str = "io.holdfast/server";
    // Their ids would be the server's own, of which nobody knows whose they are; and calls are no custom methods.
    if method.starts_with("tasks/") || method.starts_with("tools/") {
        return Err(era::unknown_method(request.era, method));
    }
    let named = request.params.get("_meta").and_then(|meta| meta.get(META_SERVER)).and_then(Value::as_str);
    let home = match (named, &front.upstreams.all()[..]) {
        (Some(name), _) => front.upstreams.get(name),
        (None, [only]) => Some(only.clone()),
        (None, _) => None,
    };
    let home = home.ok_or_else(|| {
        let mut problem = era::unknown_method(request.era, method);
        problem.message.push_str(&format!(
            "; to pass it on to one of several servers, name it as {META_SERVER:?} in _meta"
        ));
        problem
    })?;
    Ok(VecDeque::from([(home, relayed.clone())]))
}
