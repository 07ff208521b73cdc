//! Log messages of servers, and which of them a client wants (RFC 5424 severities).

use serde_json::Value;

use crate::upstream::{Client, Remark, Speaks};

/// The notification that carries one.
pub(super) const MESSAGE: &str = "notifications/message";

/// From the least to the most severe.
const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];

/// How severe a level is; none for a name that is none.
pub(super) fn rank(level: &str) -> Option<usize> {
    LEVELS.iter().position(|known| *known == level)
}

/// Whether the client wants to hear this. A modern client hears log messages only where its request asks for them.
pub(super) fn is_wanted(client: &Client, remark: &Remark) -> bool {
    // How a task is says its task by the server's name for it, and to all that hear the server. Clients ask instead.
    if remark.method == "notifications/tasks/status" {
        return false;
    }
    if remark.method != MESSAGE {
        return true;
    }
    let Some(least) = &client.log_level else { return client.speaks == Speaks::Legacy };
    let level = remark.params.as_ref().map(|params| params.value()["level"].clone());
    let level = level.as_ref().and_then(Value::as_str).and_then(rank);
    // What names no level that we know is the server's to explain, not ours to keep.
    level.zip(rank(least)).is_none_or(|(level, least)| level >= least)
}

#[cfg(test)]
mod tests {
    use holdfast_store::Text;

    use super::*;

    #[test]
    fn what_a_client_hears() {
        let check = |speaks: Speaks, least: Option<&str>, level: &str, expected: bool| {
            let client = Client {
                speaks,
                capabilities: Text::of(&serde_json::json!({})),
                log_level: least.map(str::to_owned),
            };
            let params = Some(Text::of(&serde_json::json!({ "level": level })));
            let remark = Remark { method: MESSAGE.into(), params };
            assert_eq!(is_wanted(&client, &remark), expected, "{speaks:?} {least:?} {level}");
            assert!(is_wanted(&client, &Remark { method: "notifications/x".into(), params: None }));
        };
        check(Speaks::Legacy, None, "debug", true);
        check(Speaks::Modern, None, "emergency", false);
        for speaks in [Speaks::Legacy, Speaks::Modern] {
            check(speaks, Some("warning"), "notice", false);
            check(speaks, Some("warning"), "warning", true);
            check(speaks, Some("warning"), "alert", true);
            check(speaks, Some("warning"), "of tomorrow", true);
        }
    }
}
