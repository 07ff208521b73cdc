//! Calls that a server answers with a task (2026-07-28, extension `io.modelcontextprotocol/tasks`) although their agents
//! know none: Holdfast waits in their place, also over restarts, and the task's end is the call's answer.
//!
//! By cases, if we end
//! * *before the task is noted*: by stdio its id is read again from the kept pipe; by HTTP the call is in doubt.
//! * *afterwards*: the next life asks for the task instead.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast_store::{Answer, Caller, Loss, Text};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    Answers, Bookmark, Client, Dispatch, Flight, Question, RECONFIGURED, Refused, Relayed, Said, Signal,
    Upstream, Wanted, Way, id::RequestId, outcome, peer::Listener, relay::Parcel, round, shared::Shared,
    threads::Task,
};
use crate::{config::Tasks, wire};

/// How often a server is asked that does not say how often it wants to be, and the bounds of what it may say.
const POLL: Duration = Duration::from_secs(1);
const SHORTEST_POLL: Duration = Duration::from_millis(50);
const LONGEST_POLL: Duration = Duration::from_secs(60);
/// How long a withdrawal may go unnoticed.
const ATTENTION: Duration = Duration::from_millis(200);
/// How long a server may take to say how a task is.
const REPLY_LIMIT: Duration = Duration::from_secs(60);
/// How long nobody may be there to say it.
const PATIENCE: Duration = Duration::from_secs(600);

/// Somebody waits for a task.
struct Errand {
    upstream: Arc<Upstream>,
    shared: Arc<Shared>,
    flight: Flight,
    /// The call's request; its own id where nobody can ask for it again.
    id: RequestId,
    caller: Caller,
    client: Arc<Client>,
    listener: Listener,
}

/// Has a call say that it takes tasks, where Holdfast is to wait for them in its agent's place.
pub(super) fn equip(
    upstream: &Arc<Upstream>,
    shared: &Arc<Shared>,
    parcel: Parcel,
    flight: &Flight,
    listener: Listener,
) -> (Parcel, Listener) {
    let Parcel::Call(dispatch) = &parcel else { return (parcel, listener) };
    // One of 2025-11-25 that asks for a task gets its own, too.
    let asks = dispatch.extra.as_ref().is_some_and(|extra| extra.value().get("task").is_some());
    if asks || dispatch.client.takes_tasks() || shared.config().tasks != Tasks::Use {
        return (parcel, listener);
    }
    let client = Arc::new(dispatch.client.with_tasks());
    let dispatch = Arc::new(Dispatch { client: client.clone(), ..(**dispatch).clone() });
    let parcel = Parcel::Call(dispatch.clone());
    let listener = hearing(upstream, shared, &parcel, flight, listener);
    (parcel, listener)
}

/// Waits for the task that a result names; `listener` hears everything else, and how the task ends.
fn hearing(
    upstream: &Arc<Upstream>,
    shared: &Arc<Shared>,
    parcel: &Parcel,
    flight: &Flight,
    listener: Listener,
) -> Listener {
    let id = round::request_id(parcel, 0);
    let (upstream, shared) = (Arc::downgrade(upstream), shared.clone());
    let (flight, caller, client) = (flight.clone(), parcel.caller().clone(), parcel.client().clone());
    Arc::new(move |signal| {
        let task = match &signal {
            Signal::Answered(answer) => task_in(&answer.text),
            _ => None,
        };
        let (Some((task, poll)), Some(upstream)) = (task, upstream.upgrade()) else {
            return listener(signal);
        };
        let errand = Errand {
            upstream,
            shared: shared.clone(),
            flight: flight.clone(),
            id,
            caller: caller.clone(),
            client: client.clone(),
            listener: listener.clone(),
        };
        errand.flight.go_on_errand();
        // Until it is noted, the next life has to find it where it was.
        let bookmark = Bookmark::here();
        tokio::spawn(async move {
            errand.note(&task).await;
            drop(bookmark);
            errand.run(&task, poll).await;
        });
    })
}

/// Asks for the task that an earlier life was told of.
pub(super) fn take_up(
    upstream: &Arc<Upstream>,
    shared: &Arc<Shared>,
    parcel: &Parcel,
    listener: &Listener,
) -> Option<Flight> {
    let Parcel::Call(dispatch) = parcel else { return None };
    let id = RequestId::of_round(dispatch.attempt?, 0);
    let task = shared.common.threads.task(id).filter(|task| task.identity == *shared.identity)?;
    let flight = Flight::of_asked(0);
    flight.go_on_errand();
    let errand = Errand {
        upstream: upstream.clone(),
        shared: shared.clone(),
        flight: flight.clone(),
        id,
        caller: dispatch.caller.clone(),
        client: Arc::new(dispatch.client.with_tasks()),
        listener: listener.clone(),
    };
    tracing::info!(target: "upstream", server = &*shared.name, "a task of an earlier life is asked for again");
    tokio::spawn(async move { errand.run(&task.id, SHORTEST_POLL).await });
    Some(flight)
}

/// How a task is.
enum Standing {
    Working(Duration),
    Asks(Duration, Value, Text),
    Over(Signal),
}

impl Errand {
    async fn note(&self, task: &str) {
        if self.id.is_call() {
            let task = Task { identity: self.shared.identity.to_string(), id: task.to_owned() };
            self.shared.common.threads.has_task(self.id, task);
            self.shared.common.threads.written().await;
        }
    }

    async fn run(&self, task: &str, poll: Duration) {
        let end = self.wait(task, poll).await;
        // Only then it is known that nothing of it goes on: a cancelled task may, and so may one that nobody tells of.
        if matches!(end, Signal::Answered(_) | Signal::Refused(_)) {
            self.flight.return_from_errand();
        }
        // It was begun, so no error says that it did nothing.
        round::once_begun(&self.shared, self.listener.clone())(end);
        self.shared.common.threads.done(self.id);
    }

    async fn wait(&self, task: &str, mut poll: Duration) -> Signal {
        let (mut heard, mut pause) = (Instant::now(), poll);
        let (mut withdrawn, mut asked) = (false, HashSet::new());
        loop {
            self.rest(pause, withdrawn).await;
            if self.flight.is_withdrawn() && !withdrawn {
                withdrawn = true;
                self.ask("tasks/cancel", task, Vec::new()).await.ok();
            }
            match self.ask("tasks/get", task, Vec::new()).await {
                Ok(text) => match self.read(task, &text, withdrawn) {
                    Standing::Over(signal) => return signal,
                    Standing::Working(next) => poll = next,
                    Standing::Asks(next, requests, text) => {
                        poll = next;
                        self.pass_on(task, &requests, &text, &mut asked);
                    }
                },
                Err(Signal::Refused(refused)) if is_for_good(&refused) => {
                    let message = format!(
                        "server `{}` does not know the task any more that it made of this call: {}",
                        self.shared.name, &*refused.error
                    );
                    return Signal::Lost(Loss::UpstreamError, message);
                }
                Err(Signal::Unsent(unsent)) if unsent.code == RECONFIGURED => {
                    return Signal::Lost(Loss::Disconnected, unsent.message);
                }
                Err(_) if heard.elapsed() < PATIENCE => {
                    pause = (pause * 2).clamp(POLL, LONGEST_POLL);
                    continue;
                }
                Err(_) => {
                    let message = format!(
                        "server `{}` has not said for {} s how the task is that it made of this call",
                        self.shared.name,
                        PATIENCE.as_secs()
                    );
                    return Signal::Lost(Loss::Disconnected, message);
                }
            }
            (heard, pause) = (Instant::now(), poll);
        }
    }

    /// Waits, but not for long once nobody wants the answer any more.
    async fn rest(&self, pause: Duration, withdrawn: bool) {
        let until = Instant::now() + pause;
        while Instant::now() < until && (withdrawn || !self.flight.is_withdrawn()) {
            sleep(ATTENTION.min(until.saturating_duration_since(Instant::now()))).await;
        }
    }

    /// One request about the task, on behalf of the agent.
    async fn ask(&self, method: &str, task: &str, more: Vec<(String, Text)>) -> Result<Text, Signal> {
        if self.upstream.identity() != self.shared.identity {
            let message = format!("the server behind the name `{}` is another one now", self.shared.name);
            return Err(Signal::Unsent(super::Unsent { code: RECONFIGURED, message }));
        }
        let mut members = vec![("taskId".to_owned(), Text::of(&task))];
        members.extend(more);
        let relayed = Relayed::new(&self.caller, &self.client, method, members);
        let (tell, mut told) = mpsc::unbounded_channel();
        let flight = self.upstream.relay(relayed, Box::new(move |signal| drop(tell.send(signal))));
        let lost = || Signal::Lost(Loss::Disconnected, "the connection has ended".to_owned());
        let reply = async {
            loop {
                match told.recv().await.ok_or_else(lost)? {
                    Signal::Answered(answer) => return Ok(answer.text),
                    Signal::Progress(_) | Signal::Remarked(_) => {}
                    Signal::Asked(question) => {
                        let why = "this request has no agent behind it that could be asked";
                        question.refuse(&wire::error_member(wire::METHOD_NOT_FOUND, why, None));
                    }
                    other => return Err(other),
                }
            }
        };
        let replied = timeout(REPLY_LIMIT, reply).await;
        replied.unwrap_or_else(|_| {
            flight.cancel("it takes too long");
            Err(lost())
        })
    }

    fn read(&self, task: &str, text: &Text, withdrawn: bool) -> Standing {
        let about = text.value();
        let poll = poll_of(&about);
        let members = wire::members(text).unwrap_or_default();
        let member = |name: &str| {
            let value = members.iter().rfind(|(other, _)| other == name).map(|(_, value)| *value);
            value.and_then(|value| Text::parse(value).ok())
        };
        let lost = |loss, what: &str| {
            let message =
                format!("server `{}` made a task of this call, {task}, and {what}", self.shared.name);
            Standing::Over(Signal::Lost(loss, message))
        };
        match about["status"].as_str() {
            Some("completed") => match member("result") {
                Some(text) => Standing::Over(Signal::Answered(Answer { kind: outcome::kind(&text), text })),
                None => lost(Loss::UpstreamError, "says that it is complete, without a result"),
            },
            Some("failed") => match member("error") {
                Some(error) => Standing::Over(Signal::Refused(refused(error))),
                None => lost(Loss::UpstreamError, "says that it has failed, without an error"),
            },
            Some("cancelled") if withdrawn => lost(Loss::Cancelled, "has cancelled it"),
            Some("cancelled") => lost(Loss::UpstreamError, "has cancelled it of its own accord"),
            Some("input_required") => {
                let requests = about["inputRequests"].clone();
                Standing::Asks(
                    poll,
                    requests,
                    member("inputRequests").unwrap_or_else(|| Text::of(&json!({}))),
                )
            }
            _ => Standing::Working(poll),
        }
    }

    /// Lets the agent's client be asked what was not asked yet.
    fn pass_on(&self, task: &str, requests: &Value, text: &Text, asked: &mut HashSet<String>) {
        let mut asks = round::asks_in(text);
        asks.retain(|ask| requests.get(&ask.name).is_some() && asked.insert(ask.name.clone()));
        if asks.is_empty() {
            return;
        }
        let methods: Vec<(String, String)> =
            asks.iter().map(|ask| (ask.name.clone(), ask.method.clone())).collect();
        let (responder, task_id) = (self.again(), task.to_owned());
        let respond = move |answers: Answers| {
            tokio::spawn(async move { responder.respond(&task_id, &methods, answers).await });
        };
        let wanted = Wanted { asks, way: Way::Task(task.to_owned()) };
        let question = Question::new(Some(self.id), wanted, Box::new(respond));
        (self.listener)(Signal::Asked(Arc::new(question)));
    }

    fn again(&self) -> Self {
        Self {
            upstream: self.upstream.clone(),
            shared: self.shared.clone(),
            flight: self.flight.clone(),
            id: self.id,
            caller: self.caller.clone(),
            client: self.client.clone(),
            listener: self.listener.clone(),
        }
    }

    /// Tells the server what the client said. An elicitation that nobody could answer was not answered by anybody;
    /// without an answer to anything else the task cannot go on.
    async fn respond(&self, task: &str, methods: &[(String, String)], answers: Answers) {
        let mut responses = serde_json::Map::new();
        for (name, said) in answers {
            let is_form =
                methods.iter().any(|(other, method)| *other == name && method == "elicitation/create");
            match said {
                Said::Result(result) => drop(responses.insert(name, result.value())),
                Said::Error(_) if is_form => drop(responses.insert(name, json!({ "action": "cancel" }))),
                Said::Error(_) => {
                    self.ask("tasks/cancel", task, Vec::new()).await.ok();
                    return;
                }
            }
        }
        let responses = vec![("inputResponses".to_owned(), Text::of(&Value::Object(responses)))];
        let mut pause = POLL;
        // Told twice it is told once.
        while let Err(signal) = self.ask("tasks/update", task, responses.clone()).await {
            let over = matches!(&signal, Signal::Refused(refused) if is_for_good(refused));
            if over || pause > LONGEST_POLL {
                tracing::warn!(target: "upstream", server = &*self.shared.name, ?signal, "a task could not be told what its server had asked for");
                return;
            }
            sleep(pause).await;
            pause *= 2;
        }
    }
}

/// The task that stands in the place of a result, and how often to ask for it.
fn task_in(result: &Text) -> Option<(String, Duration)> {
    // Almost no result is one, and long ones are not read for this.
    if !result.contains("\"taskId\"") {
        return None;
    }
    let result = result.value();
    let is_task = result["resultType"] == "task";
    let id = result["taskId"].as_str().filter(|id| is_task && !id.is_empty())?;
    Some((id.to_owned(), poll_of(&result)))
}

fn poll_of(task: &Value) -> Duration {
    let poll = task["pollIntervalMs"].as_u64().map_or(POLL, Duration::from_millis);
    poll.clamp(SHORTEST_POLL, LONGEST_POLL)
}

fn is_for_good(refused: &Refused) -> bool {
    matches!(refused.code, Some(wire::METHOD_NOT_FOUND | wire::INVALID_PARAMS | wire::MISSING_CAPABILITY))
}

fn refused(error: Text) -> Refused {
    let code = error.value()["code"].as_i64();
    Refused { error, code, status: None, retry_after_ms: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_task() {
        let read = |text: &str| task_in(&Text::parse(text).expect("JSON"));
        let poll = Duration::from_millis;
        assert_eq!(
            read(r#"{"resultType":"task","taskId":"t","pollIntervalMs":100}"#),
            Some(("t".into(), poll(100)))
        );
        assert_eq!(read(r#"{"resultType":"task","taskId":"t"}"#), Some(("t".into(), POLL)));
        assert_eq!(
            read(r#"{"resultType":"task","taskId":"t","pollIntervalMs":0}"#),
            Some(("t".into(), poll(50)))
        );
        assert_eq!(read(r#"{"resultType":"task","taskId":""}"#), None);
        assert_eq!(read(r#"{"content":[{"type":"text","text":"\"taskId\""}],"taskId":"t"}"#), None);
        assert_eq!(read(r#"{"content":[]}"#), None);
    }
}
