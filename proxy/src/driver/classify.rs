//! What an upstream's signal means for the attempt it belongs to (semantics section 4).

use holdfast_policy::Failure;
use holdfast_store::{
    Answer, AnswerKind, Attempt, Loss, Trouble,
    engine::{Event, Failed},
};

use crate::{
    config::ServerConfig,
    upstream::{RECONFIGURED, Refused, Signal, UNTRUSTED, Unsent},
    wire,
};

/// The event that a signal makes; none for progress, which is passed on and only counts as a sign of life.
pub(super) fn event(server: &ServerConfig, attempt: Attempt, signal: Signal) -> Event {
    match signal {
        Signal::Progress(_) | Signal::Remarked(_) | Signal::Asked(_) => Event::Progress(attempt),
        Signal::Answered(answer) => Event::Answered(attempt, answer),
        Signal::Unsent(unsent) => Event::Failed(attempt, not_sent(unsent)),
        Signal::Lost(loss, message) => {
            Event::Failed(attempt, lost(loss, Trouble::new("answer-lost", message)))
        }
        Signal::Refused(refused) => Event::Failed(attempt, self::refused(server, refused)),
    }
}

/// Whether a signal shows that the server's transport works; none where it shows nothing.
pub(super) fn transport(signal: &Signal) -> Option<Transport> {
    match signal {
        Signal::Progress(_) | Signal::Remarked(_) | Signal::Asked(_) => None,
        // The server is there; we do not want to.
        Signal::Unsent(unsent) if [UNTRUSTED, RECONFIGURED].contains(&unsent.code) => None,
        // It has answered that somebody has to sign in; whoever does is not to wait for a breaker then.
        Signal::Unsent(unsent) if unsent.code == UNAUTHORIZED => Some(Transport::Works),
        Signal::Answered(_) | Signal::Refused(_) => Some(Transport::Works),
        Signal::Unsent(_) | Signal::Lost(..) => Some(Transport::Failed),
    }
}

const UNAUTHORIZED: &str = "upstream-unauthorized";

/// What the breaker counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// Something came back.
    Works,
    /// Nothing got through, or nothing came back.
    Failed,
}

fn not_sent(unsent: Unsent) -> Failed {
    Failed {
        failure: Failure::NotSent,
        loss: Loss::Disconnected,
        trouble: Trouble::new(unsent.code, unsent.message),
        retry_after_ms: None,
        answer: None,
    }
}

fn lost(loss: Loss, trouble: Trouble) -> Failed {
    Failed { failure: Failure::AnswerLost, loss, trouble, retry_after_ms: None, answer: None }
}

fn refused(server: &ServerConfig, refused: Refused) -> Failed {
    let listed = |number: i64| server.unexecuted.contains(&number);
    let says_unexecuted =
        refused.code.is_some_and(listed) || refused.status.map(i64::from).is_some_and(listed);
    let for_good = matches!(
        refused.code,
        Some(
            wire::METHOD_NOT_FOUND | wire::INVALID_PARAMS | wire::HEADER_MISMATCH | wire::MISSING_CAPABILITY
        )
    );
    let (failure, code, message) = if says_unexecuted {
        (Failure::RefusedUnexecuted, "upstream-refused", "The server says that it did not execute it.")
    } else if for_good {
        (
            Failure::RefusedForGood,
            "upstream-refused",
            "The server says that it will not execute this request.",
        )
    } else {
        (
            Failure::AnswerLost,
            "upstream-error",
            "The server answered with an error that does not say whether it acted.",
        )
    };
    let answer = (failure == Failure::RefusedForGood)
        .then(|| Answer { kind: AnswerKind::Error, text: refused.error.clone() });
    Failed {
        failure,
        loss: Loss::UpstreamError,
        trouble: Trouble { code: code.into(), message: message.into(), upstream: Some(refused.error) },
        retry_after_ms: refused.retry_after_ms,
        answer,
    }
}
