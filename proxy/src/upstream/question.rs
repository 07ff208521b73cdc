//! What a server asks of the client before it goes on with a request: in one shape for both eras.
//!
//! A legacy server sends a request of its own (`sampling/createMessage`, `elicitation/create`, `roots/list`); a modern one
//! ends the request with `resultType: "input_required"` and wants it sent again with the answers (MCP 2026-07-28,
//! "Multi Round-Trip Requests").

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use holdfast_store::{Text, hash_fields};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::id::RequestId;

/// One thing that is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// How a server is told the answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Way {
    /// As the response to a request of its own, with this id (a JSON text). To be told twice does no harm.
    Response(String),
    /// By `tasks/update` of this task. To be told twice does no harm.
    Task(String),
    /// By its request sent again. That may be done once.
    Round {
        /// How often it was sent again before.
        round: u32,
        /// What the server wants back as it gave it.
        state: Option<Text>,
    },
}

impl Way {
    /// Of which round of the request it is.
    pub(super) fn round(&self) -> u32 {
        match self {
            Self::Response(_) | Self::Task(_) => 0,
            Self::Round { round, .. } => *round,
        }
    }
}

/// What is asked, so that it can be asked again in another life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wanted {
    pub(crate) asks: Vec<Ask>,
    pub(crate) way: Way,
}

/// Asked by a server, answered at most once.
pub(crate) struct Question {
    /// Known to the client. The same for the same question of the same attempt, in every life of ours; else by chance, so
    /// that what a client brings along from before a restart fits no other question.
    pub(crate) number: u64,
    pub(crate) wanted: Wanted,
    responder: Mutex<Option<Responder>>,
    /// No answer is wanted any more: it was given, or the server took the question back or is gone.
    pub(crate) closed: CancellationToken,
}

impl Question {
    /// `about` is the request of ours that the server asks it for.
    pub(super) fn new(about: Option<RequestId>, wanted: Wanted, responder: Responder) -> Self {
        let number = about.filter(|id| id.is_call()).map_or_else(rand::random, |id| number(id, &wanted));
        let (responder, closed) = (Mutex::new(Some(responder)), CancellationToken::new());
        Self { number, wanted, responder, closed }
    }

    /// One that nobody waits for.
    #[cfg(test)]
    pub(crate) fn asked(wanted: Wanted) -> Self {
        Self::new(None, wanted, Box::new(|_| {}))
    }

    /// Tells the server, or whoever comes first. The first answer counts.
    pub(crate) fn answer(&self, answers: Answers) {
        let responder = self.responder().take();
        self.closed.cancel();
        if let Some(respond) = responder {
            respond(answers);
        }
    }

    /// From now on `first` hears the answers, with the way to the server. Not one that is closed.
    pub(crate) fn answered_by(&self, first: impl FnOnce(Answers, Responder) + Send + 'static) {
        let mut slot = self.responder();
        if let Some(respond) = slot.take() {
            *slot = Some(Box::new(move |answers| first(answers, respond)));
        }
    }

    /// Tells the server that nobody will answer, with `error` (an `error` member) as the reason.
    pub(crate) fn refuse(&self, error: &Text) {
        let asks = self.wanted.asks.iter();
        self.answer(asks.map(|ask| (ask.name.clone(), Said::Error(error.clone()))).collect());
    }

    /// The server does not want to know any more.
    pub(crate) fn take_back(&self) {
        drop(self.responder().take());
        self.closed.cancel();
    }

    /// Whether an answer is wanted.
    pub(crate) fn is_open(&self) -> bool {
        !self.closed.is_cancelled()
    }

    fn responder(&self) -> std::sync::MutexGuard<'_, Option<Responder>> {
        self.responder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn number(about: RequestId, wanted: &Wanted) -> u64 {
    let (round, way) = match &wanted.way {
        Way::Response(id) | Way::Task(id) => (0, id.as_str()),
        Way::Round { round, state } => (round + 1, state.as_deref().unwrap_or_default()),
    };
    let (about, round) = (about.number().to_be_bytes(), round.to_be_bytes());
    let mut fields: Vec<&[u8]> = vec![&about, &round, way.as_bytes()];
    for ask in &wanted.asks {
        let params = ask.params.as_deref().unwrap_or_default();
        fields.extend([ask.name.as_bytes(), ask.method.as_bytes(), params.as_bytes()]);
    }
    let hash = hash_fields("holdfast/question", &fields);
    u64::from_be_bytes(*hash.0.first_chunk().expect("a hash has more bytes"))
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question")
            .field("number", &self.number)
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use holdfast_store::{Attempt, CallId};

    use super::*;

    fn wanted(name: &str, way: Way) -> Wanted {
        Wanted { asks: vec![Ask { name: name.into(), method: "roots/list".into(), params: None }], way }
    }

    fn response() -> Way {
        Way::Response("7".into())
    }

    #[test]
    fn the_first_answer_counts() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let record = heard.clone();
        let question = Question::new(
            None,
            wanted("a", response()),
            Box::new(move |answers| record.lock().expect("no panic").extend(answers)),
        );
        assert!(question.is_open());
        question.answer(vec![("a".into(), Said::Result(Text::of(&1)))]);
        question.refuse(&Text::of(&2));
        assert!(!question.is_open());
        assert_eq!(*heard.lock().expect("no panic"), [("a".into(), Said::Result(Text::of(&1)))]);
    }

    #[test]
    fn what_is_taken_back_is_not_answered() {
        let question =
            Question::new(None, wanted("a", response()), Box::new(|_| panic!("nobody wants to know")));
        question.answered_by(|_, _| panic!("nobody wants to know"));
        question.take_back();
        question.answer(Vec::new());
        assert!(!question.is_open());
    }

    #[test]
    fn whoever_comes_first_tells_the_server_when_it_is_time() {
        let (tell, told) = std::sync::mpsc::channel();
        let (keep, kept) = std::sync::mpsc::channel();
        let question = Question::new(
            None,
            wanted("a", response()),
            Box::new(move |_| tell.send(()).expect("it is heard")),
        );
        question.answered_by(move |answers, respond| keep.send((answers, respond)).expect("it is heard"));
        question.answer(Vec::new());
        assert!(told.try_recv().is_err());
        let (answers, respond) = kept.try_recv().expect("it was answered");
        respond(answers);
        assert_eq!(told.try_recv(), Ok(()));
    }

    #[test]
    fn the_same_question_of_an_attempt_has_the_same_number_and_no_other_has() {
        let attempt = |n| RequestId::of(CallId::from_bytes([7; 16]), Attempt(n));
        let round = |round, state: &str| Way::Round { round, state: Some(Text::of(&state)) };
        let number = |about, wanted| Question::new(about, wanted, Box::new(|_| {})).number;
        let one = number(Some(attempt(1)), wanted("a", response()));
        assert_eq!(one, number(Some(attempt(1)), wanted("a", response())));
        let mut all = vec![
            one,
            number(Some(attempt(2)), wanted("a", response())),
            number(Some(attempt(1)), wanted("b", response())),
            number(Some(attempt(1)), wanted("a", Way::Response("8".into()))),
            number(Some(attempt(1)), wanted("a", round(0, "s"))),
            number(Some(attempt(1)), wanted("a", round(1, "s"))),
            number(Some(attempt(1)), wanted("a", round(1, "t"))),
            // Nobody can ask for these again.
            number(None, wanted("a", response())),
            number(None, wanted("a", response())),
        ];
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 9);
    }
}
