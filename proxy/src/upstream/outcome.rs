//! What a response says: a result, read for its kind, or an error.

use holdfast_store::{Answer, AnswerKind, Text};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{Refused, Signal};
use crate::wire::Envelope;

/// What a response says.
pub(super) fn outcome(message: &Envelope<'_>) -> Signal {
    match (message.error, message.result) {
        (Some(error), _) => Signal::Refused(refused(error)),
        (None, Some(result)) => {
            Signal::Answered(Answer { kind: kind(result.get()), text: Text::from(result) })
        }
        // `"result": null` and no result at all look alike; either way the server is done with the request.
        (None, None) => Signal::Answered(Answer { kind: AnswerKind::Result, text: Text::of(&Value::Null) }),
    }
}

/// An `error` member as a refusal.
pub(super) fn refused(error: &RawValue) -> Refused {
    #[derive(Deserialize)]
    struct Code {
        code: Value,
    }
    let code = serde_json::from_str::<Code>(error.get()).ok().and_then(|error| error.code.as_i64());
    Refused { error: Text::from(error), code, status: None, retry_after_ms: None }
}

/// Of which kind a result is.
pub(super) fn kind(result: &str) -> AnswerKind {
    #[derive(Deserialize)]
    struct Flag<'a> {
        #[serde(borrow, default, rename = "isError")]
        is_error: Option<&'a RawValue>,
    }
    let is_error = match serde_json::from_str::<Flag<'_>>(result) {
        Ok(flag) => flag.is_error.is_some_and(|raw| raw.get() == "true"),
        // Not an object, or a name twice: the generic reader knows.
        Err(_) => serde_json::from_str::<Value>(result).is_ok_and(|value| value["isError"] == true),
    };
    if is_error { AnswerKind::ToolError } else { AnswerKind::Result }
}
