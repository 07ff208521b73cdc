//! Ids of the tasks of servers, as agents know them: they say which server it is and are good for one principal only.

use std::sync::Arc;

use serde_json::Value;
use subtle::ConstantTimeEq;

use super::{Front, splice::set_member, state::Seal};
use crate::{upstream::Upstream, wire};

/// Between a server's name and its own id of a task.
const OF: char = '~';

/// The server of a task of its own, and its id there.
pub(super) fn home(front: &Front, principal: &str, id: &str) -> Option<(Arc<Upstream>, String)> {
    let (server, rest) = id.split_once(OF)?;
    let (mark, own) = rest.split_once(OF)?;
    let is_theirs = bool::from(front.seal.of_task(principal, server, own).as_bytes().ct_eq(mark.as_bytes()));
    Some((front.upstreams.get(server).filter(|_| is_theirs)?, own.to_owned()))
}

/// The id under which agents know a task of a server.
///
/// To the server all agents are one; whose a task is stands in its id, sealed.
fn of(seal: &Seal, principal: &str, server: &str, own: &str) -> String {
    format!("{server}{OF}{}{OF}{own}", seal.of_task(principal, server, own))
}

/// A text in which the server's id of a task, where it is one, is the agent's.
pub(super) fn put_into(seal: &Seal, principal: &str, server: &str, text: &str) -> Option<String> {
    let members = wire::members(text)?;
    let (_, own) = members.iter().find(|(name, _)| name == "taskId")?;
    let own: String = serde_json::from_str(own).ok()?;
    Some(set_member(text, "taskId", &Value::from(of(seal, principal, server, &own)).to_string()))
}

/// The result of a task of 2025-11-25, which says in `_meta` whose result it is.
pub(super) fn in_meta(seal: &Seal, principal: &str, server: &str, result: &str) -> Option<String> {
    const RELATED: &str = "io.modelcontextprotocol/related-task";
    let members = wire::members(result)?;
    let (_, meta) = members.iter().find(|(name, _)| name == "_meta")?;
    let all = wire::members(meta)?;
    let (_, related) = all.iter().find(|(name, _)| name == RELATED)?;
    let related = put_into(seal, principal, server, related)?;
    Some(set_member(result, "_meta", &set_member(meta, RELATED, &related)))
}

/// A response that is a task of the server's own (2026-07-28: its result, 2025-11-25: a member of it) names it as agents
/// know it.
pub(super) fn in_response(seal: &Seal, principal: &str, server: &str, message: String) -> String {
    if !message.contains(r#""task""#) {
        return message;
    }
    let members = wire::members(&message).unwrap_or_default();
    let result = members.iter().find(|(name, _)| name == "result").map(|(_, result)| *result);
    let renamed = result.and_then(|result| {
        let members = wire::members(result)?;
        let member = |wanted: &str| members.iter().find(|(name, _)| name == wanted).map(|(_, value)| *value);
        if member("resultType") == Some(r#""task""#) {
            return put_into(seal, principal, server, result);
        }
        let task = member("task").filter(|_| member("content").is_none())?;
        Some(set_member(result, "task", &put_into(seal, principal, server, task)?))
    });
    match renamed {
        Some(result) => set_member(&message, "result", &result),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_keep_their_server() {
        let seal = Seal::new(b"key");
        let text = put_into(&seal, "ana", "s", r#"{"resultType":"task","taskId":"a~b","n":1.50}"#);
        let text = text.expect("a task");
        let mark = seal.of_task("ana", "s", "a~b");
        assert_ne!(mark, seal.of_task("bob", "s", "a~b"));
        assert_eq!(text, format!(r#"{{"resultType":"task","taskId":"s~{mark}~a~b","n":1.50}}"#));
        assert_eq!(put_into(&seal, "ana", "s", r#"{"content":[]}"#), None);
        let response = |result: &str| {
            in_response(&seal, "ana", "s", format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#))
        };
        let id = format!("s~{mark}~a~b");
        for task in [r#"{"resultType":"task","taskId":"ID"}"#, r#"{"task":{"taskId":"ID","ttl":1.50}}"#] {
            assert_eq!(
                response(&task.replace("ID", "a~b")),
                response("RESULT").replace("RESULT", &task.replace("ID", &id))
            );
        }
        let result = |id: &str| {
            format!(
                r#"{{"content":[],"_meta":{{"a":1.50,"io.modelcontextprotocol/related-task":{{"taskId":"{id}"}}}}}}"#
            )
        };
        assert_eq!(in_meta(&seal, "ana", "s", &result("a~b")), Some(result(&id)));
        assert_eq!(in_meta(&seal, "ana", "s", r#"{"content":[]}"#), None);
        let none = r#"{"content":[],"task":{"taskId":"a~b"}}"#;
        assert_eq!(response(none), response("RESULT").replace("RESULT", none));
    }
}
