//! What a server wants to know before it goes on with a call: noted before the agent is asked, and where the call would
//! be sent again for the answer, noted once more before that. So a restart forgets no question and repeats nothing.

use std::{collections::HashMap, sync::Arc};

use holdfast_store::{Attempt, Call, CallId, Journal, JournalError, KEEP_VALUE_MOST, Millis, Refusal, State};
use serde::{Deserialize, Serialize};

use super::{
    journaling::{now, read},
    live::{GoOn, Input},
    task::{Durable, Halt, Task},
};
use crate::{
    upstream::{Client, Question, Wanted, Way},
    wire,
};

/// Answered questions that are remembered: more than a server has asked by the time that it repeats one.
const REMEMBERED: usize = 256;
/// Under these names the journal keeps the notes, by call.
const NOTES: &str = "asked/";

/// What is known of the questions of one attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Note {
    attempt: Attempt,
    /// For how long its clocks stood still, in ms, but for the question that is open.
    paused_ms: u64,
    /// The numbers of questions that are answered.
    answered: Vec<u64>,
    latest: Option<Latest>,
    /// Of an earlier life: what is answered in it may not have been told.
    #[serde(skip)]
    is_found: bool,
    /// On whose behalf the call is sent again.
    client: Client,
}

/// The latest question.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Latest {
    wanted: Wanted,
    /// Since when it is open.
    since: Millis,
    /// It is answered, and the call is sent again.
    answered: bool,
}

/// What a server wants to know, and since when.
pub(super) type Standing = (Arc<Question>, Millis);

impl Note {
    fn new(attempt: Attempt, client: &Client) -> Self {
        Self {
            attempt,
            paused_ms: 0,
            answered: Vec::new(),
            latest: None,
            is_found: false,
            client: client.clone(),
        }
    }

    /// Whether it is about what this call is doing now.
    pub(super) fn is_of(&self, call: &Call) -> bool {
        call.state == State::InFlight && call.attempt() == self.attempt
    }

    pub(super) fn client(&self) -> Arc<Client> {
        Arc::new(self.client.clone())
    }

    pub(super) fn paused_ms(&self) -> u64 {
        self.paused_ms
    }

    /// The latest question, and whether it was answered.
    pub(super) fn latest(&self) -> Option<(&Wanted, bool)> {
        self.latest.as_ref().map(|latest| (&latest.wanted, latest.answered))
    }

    pub(super) fn has_open(&self) -> bool {
        self.latest.as_ref().is_some_and(|latest| !latest.answered)
    }

    /// Since when this question is open.
    fn since(&self, wanted: &Wanted) -> Option<Millis> {
        self.latest.as_ref().filter(|latest| latest.wanted == *wanted).map(|latest| latest.since)
    }

    fn is_answered(&mut self, number: u64) {
        if self.answered.len() == REMEMBERED {
            self.answered.remove(0);
        }
        self.answered.push(number);
    }

    /// Whether this question was answered, and nothing of that may be missing at the server.
    fn has_done_with(&self, question: &Question) -> bool {
        let is_latest = self.latest.as_ref().is_some_and(|latest| latest.wanted == question.wanted);
        // A task says itself what it still waits for.
        let is_missing = matches!(question.wanted.way, Way::Task(_)) || self.is_found && is_latest;
        self.answered.contains(&question.number) && !is_missing
    }

    /// As it is kept. What is too long for that is left out, and with it the way to ask it again.
    fn kept(&self) -> Vec<u8> {
        let text = |note: &Self| serde_json::to_vec(note).expect("a note is texts and numbers");
        let whole = text(self);
        if whole.len() <= KEEP_VALUE_MOST {
            return whole;
        }
        text(&Self { latest: None, client: (*Client::unknown()).clone(), ..self.clone() })
    }
}

impl Task {
    /// The server wants to know something.
    pub(super) async fn asked(&mut self, attempt: Attempt, question: Arc<Question>) -> Result<(), Halt> {
        let client = self.live.with(|shared| {
            let current = shared.call.state == State::InFlight && shared.call.attempt() == attempt;
            current.then(|| shared.client.clone())
        });
        let Some(client) = client else {
            match question.wanted.way {
                // Only the agent's own words may end it; this is nobody's.
                Way::Round { .. } => question.take_back(),
                Way::Response(_) | Way::Task(_) => {
                    let over = wire::error_member(wire::INVALID_REQUEST, "this request is over", None);
                    question.refuse(&over);
                }
            }
            return Ok(());
        };
        // A stream that is taken up again tells once more what was asked on it.
        let open = |(other, _): &Standing| other.is_open() && other.number == question.number;
        if self.question.as_ref().is_some_and(open) {
            return Ok(());
        }
        let mut note = self.note.take().filter(|note| note.attempt == attempt);
        if note.as_ref().is_some_and(|note| note.has_done_with(&question)) {
            self.note = note;
            return Ok(());
        }
        let known =
            note.as_ref().filter(|note| note.has_open()).and_then(|note| note.since(&question.wanted));
        // A second question before the first one is answered: the clock of the first goes on.
        let since = known.or(self.question.as_ref().map(|(_, since)| *since)).unwrap_or_else(now);
        let noted = note.get_or_insert_with(|| Note::new(attempt, &client));
        if let Some((replaced, _)) = &self.question {
            noted.is_answered(replaced.number);
        }
        noted.answered.retain(|number| *number != question.number);
        noted.is_found = false;
        noted.latest = Some(Latest { wanted: question.wanted.clone(), since, answered: false });
        self.note = note;
        if known.is_none() {
            self.write_note().await?;
        }
        if matches!(question.wanted.way, Way::Round { .. }) {
            let live = self.live.clone();
            question.answered_by(move |answers, respond| {
                live.send(Input::Said(GoOn(Box::new(move || respond(answers))))).ok();
            });
        }
        self.question = Some((question.clone(), since));
        self.live.ask(question);
        Ok(())
    }

    /// What the server wanted to know is answered, or not wanted any more: the call's clocks go on.
    pub(super) async fn closed(&mut self) -> Result<(), Halt> {
        self.count_pause();
        let Some((question, _)) = self.question.take() else { return Ok(()) };
        if let Some(note) = &mut self.note {
            note.is_answered(question.number);
            match &mut note.latest {
                Some(latest) if matches!(latest.wanted.way, Way::Round { .. }) => latest.answered = true,
                latest => *latest = None,
            }
            self.write_note().await?;
        }
        Ok(())
    }

    /// No clock of the call counts the time until now for which a question is open.
    pub(super) fn count_pause(&mut self) {
        let Some((_, since)) = &mut self.question else { return };
        let until = now();
        let from = std::mem::replace(since, until);
        self.live.with(|shared| shared.call.paused(from, until));
        if let Some(note) = &mut self.note {
            note.paused_ms += until.since(from);
        }
    }

    /// The agent has answered: the call goes on as soon as that is durable.
    pub(super) async fn said(&mut self, GoOn(go_on): GoOn) -> Result<(), Halt> {
        self.closed().await?;
        go_on();
        Ok(())
    }

    async fn write_note(&mut self) -> Result<(), Halt> {
        // Nobody can ask for a call again that is safe to repeat.
        let Some(note) = self.note.as_ref().filter(|_| self.durable == Durable::First) else { return Ok(()) };
        self.keep(Some(note.kept())).await
    }

    /// The call is done: nothing will be asked again.
    pub(super) async fn forget_note(&mut self) {
        if self.note.take().is_some() && self.durable == Durable::First {
            // Where that fails, the next start forgets it.
            self.keep(None).await.ok();
        }
    }

    async fn keep(&mut self, value: Option<Vec<u8>>) -> Result<(), Halt> {
        let change = (format!("{NOTES}{}", self.live.id), value);
        let kept = read(&self.driver.journal, |journal| journal.keep(vec![change])).await;
        kept.map_err(|error| self.broken(&Refusal::Failed(error)))
    }
}

/// The notes of an earlier life. Those that no unfinished call needs are forgotten.
pub(super) fn notes(journal: &dyn Journal, calls: &[Call]) -> Result<HashMap<CallId, Note>, JournalError> {
    let calls: HashMap<String, &Call> = calls.iter().map(|call| (call.id.to_string(), call)).collect();
    let (mut notes, mut over) = (HashMap::new(), Vec::new());
    for (name, value) in journal.kept(NOTES)? {
        let call = name.strip_prefix(NOTES).and_then(|id| calls.get(id));
        let note = serde_json::from_slice::<Note>(&value).ok();
        match call.zip(note).filter(|(call, note)| note.is_of(call)) {
            Some((call, note)) => drop(notes.insert(call.id, Note { is_found: true, ..note })),
            None => over.push((name, None)),
        }
    }
    if !over.is_empty() {
        journal.keep(over)?;
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use holdfast_store::Text;

    use super::*;
    use crate::upstream::Ask;

    fn wanted(params: &str) -> Wanted {
        let ask = Ask { name: "a".into(), method: "m".into(), params: Some(Text::of(&params)) };
        Wanted { asks: vec![ask], way: Way::Round { round: 0, state: Some(Text::of(&"s")) } }
    }

    fn note(wanted: Wanted, answered: bool) -> Note {
        let latest = Some(Latest { wanted, since: Millis(7), answered });
        Note { latest, ..Note::new(Attempt(1), &Client::unknown()) }
    }

    fn again(note: &Note) -> Note {
        serde_json::from_slice(&note.kept()).expect("it can be read")
    }

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let read = again(&note(wanted("1.50"), false));
        assert_eq!(read.latest(), Some((&wanted("1.50"), false)));
        assert_eq!(read.since(&wanted("1.50")), Some(Millis(7)));
        assert!(read.has_open());
    }

    #[test]
    fn what_is_too_long_is_left_out_of_it() {
        let long = "x".repeat(KEEP_VALUE_MOST);
        assert_eq!(again(&note(wanted(&long), false)).latest(), None);
        let capabilities = Text::of(&serde_json::json!({ "experimental": long }));
        let client = Client { capabilities, ..(*Client::unknown()).clone() };
        let note = Note { client, ..note(wanted("1"), false) };
        assert!(note.kept().len() < KEEP_VALUE_MOST);
        assert_eq!(again(&note).client(), Client::unknown());
    }

    #[test]
    fn what_was_answered_is_asked_again_only_where_that_may_not_have_been_told() {
        let question = Question::asked(wanted("1"));
        let mut known = note(wanted("1"), true);
        known.is_answered(question.number);
        assert!(known.has_done_with(&question), "its server says it twice");
        known.is_found = true;
        assert!(!known.has_done_with(&question), "the end came between the note and the round");
        known.latest = Some(Latest { wanted: wanted("2"), since: Millis(8), answered: false });
        assert!(known.has_done_with(&question), "it has asked something else since");
    }
}
