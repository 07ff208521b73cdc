//! What a server asks of the client before it goes on with a request: in one shape for both eras.
//!
//! A legacy server sends a request of its own (`sampling/createMessage`, `elicitation/create`, `roots/list`); a modern one
//! ends the request with `resultType: "input_required"` and wants it sent again with the answers (MCP 2026-07-28,
//! "Multi Round-Trip Requests").

use std::{
    fmt,
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use holdfast_store::Text;
use tokio_util::sync::CancellationToken;

/// One thing that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Under which the answer is expected; unique within the question.
    pub(crate) name: String,
    /// `sampling/createMessage`, `elicitation/create`, `roots/list` or the server's own.
    pub(crate) method: String,
    /// Its `params`, as they came.
    pub(crate) params: Option<Text>,
}

/// What the client says to one [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// The `result`.
    Result(Text),
    /// The `error` member.
    Error(Text),
}

/// The answers by the names of what was asked; some may be missing, and the server decides what that means.
pub(crate) type Answers = Vec<(String, Said)>;

type Responder = Box<dyn FnOnce(Answers) + Send>;

/// Asked by a server, answered at most once.
pub(crate) struct Question {
    /// Unique, also over restarts as far as chance goes.
    pub(crate) number: u64,
    pub(crate) asks: Vec<Ask>,
    responder: Mutex<Option<Responder>>,
    /// No answer is wanted any more: it was given, or the server took the question back or is gone.
    pub(crate) closed: CancellationToken,
}

impl Question {
    pub(super) fn new(asks: Vec<Ask>, responder: Responder) -> Self {
        // Not from 1: what a client brings along from before a restart must not fit another question.
        static NUMBERS: LazyLock<AtomicU64> = LazyLock::new(|| AtomicU64::new(rand::random::<u64>() >> 1));
        Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            asks,
            responder: Mutex::new(Some(responder)),
            closed: CancellationToken::new(),
        }
    }

    /// Tells the server. The first answer counts.
    pub(crate) fn answer(&self, answers: Answers) {
        let responder = self.responder.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.closed.cancel();
        if let Some(respond) = responder {
            respond(answers);
        }
    }

    /// Tells the server that nobody will answer, with `error` (an `error` member) as the reason.
    pub(crate) fn refuse(&self, error: &Text) {
        self.answer(self.asks.iter().map(|ask| (ask.name.clone(), Said::Error(error.clone()))).collect());
    }

    /// The server does not want to know any more.
    pub(super) fn take_back(&self) {
        drop(self.responder.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.closed.cancel();
    }

    /// Whether an answer is wanted.
    pub(crate) fn is_open(&self) -> bool {
        !self.closed.is_cancelled()
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question")
            .field("number", &self.number)
            .field("asks", &self.asks)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_first_answer_counts() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let record = heard.clone();
        let asks = vec![Ask { name: "a".into(), method: "roots/list".into(), params: None }];
        let question =
            Question::new(asks, Box::new(move |answers| record.lock().expect("no panic").extend(answers)));
        assert!(question.is_open());
        question.answer(vec![("a".into(), Said::Result(Text::of(&1)))]);
        question.refuse(&Text::of(&2));
        assert!(!question.is_open());
        assert_eq!(*heard.lock().expect("no panic"), [("a".into(), Said::Result(Text::of(&1)))]);
    }

    #[test]
    fn what_is_taken_back_is_not_answered() {
        let question = Question::new(Vec::new(), Box::new(|_| panic!("nobody wants to know")));
        question.take_back();
        question.answer(Vec::new());
        assert!(!question.is_open());
    }
}
