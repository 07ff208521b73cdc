//! A request waits for its call: what happens meanwhile, in its client's words.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use holdfast_store::{CallId, State, Text};
use serde_json::Value;

use super::{
    Front,
    asks::{self, Put},
    body::{self, Event},
    call::{Asked, Begun},
    cancel::Wait,
    deliver::{self, Output},
    era::Era,
    event_id::{About, CallStream, Name},
    levels,
    listen::Link,
    offer::{self, Offer},
    replay::{Aside, Habit, Track},
    retry::Visit,
    splice::set_member,
    surface, task_id,
};
use crate::{
    driver::{Body, News, Receipt, Reply, Ticket},
    report::{Report, Target},
    upstream::{Question, Remark},
    wire,
};

/// A request that waits for its call.
pub(super) struct Waiting {
    pub(super) front: Arc<Front>,
    pub(super) asked: Asked,
    pub(super) begun: Begun,
    pub(super) link: Arc<Link>,
    /// Where a cancellation by id arrives.
    pub(super) wait: Option<Wait>,
    /// Whether the client is asked to send its user to the inbox.
    pub(super) offering: Offering,
    /// What the server wants to know and the client was asked.
    pub(super) put: Option<Put>,
    /// The stream that the response has become, where the client may come back for it.
    pub(super) track: OnceLock<Track>,
}

/// Where the offer stands that some clients get.
pub(super) enum Offering {
    /// There is none.
    None,
    /// It is made as soon as the call turns out to wait for a person.
    Due,
    /// The client has not answered it.
    Made(Offer),
    /// The user is sent to the page.
    Agreed,
}

impl Drop for Waiting {
    /// A client that cancels and then closes its stream may be gone before the cancellation was looked at here: it has
    /// said what it wants all the same, and its leaving is not a disconnect.
    fn drop(&mut self) {
        let cancelled = self.wait.as_ref().is_some_and(|wait| wait.token().is_cancelled());
        if cancelled && let Some(ticket) = self.begun.ticket.take() {
            tokio::spawn(withdraw(ticket, self.collected()));
        }
        // What the client was asked it may answer all the same.
        if let Some(track) = self.track.get() {
            let offering = Some(std::mem::replace(&mut self.offering, Offering::None));
            track.put_aside(Aside { put: self.put.take(), offering });
        }
    }
}

/// The client cancelled the request. Whoever only collects a call takes back its waiting, not the call.
async fn withdraw(ticket: Ticket, collected: Option<CallId>) {
    match collected {
        Some(_) => ticket.leave(),
        None => ticket.withdraw().await,
    }
}

/// What a waiting request does next.
pub(super) enum Step {
    Progress(Text),
    Remarked(Remark),
    Asked(Arc<Question>),
    /// What the client was asked is not wanted any more.
    TakenBack(Put),
    Reply(Box<Reply>),
    Withdrawn,
    /// A message for the client, which asks something.
    Offer(String),
    /// The wait that the client asked for is over.
    Over,
}

impl Waiting {
    /// One more message of the stream, which a client that was cut off may come back for.
    pub(super) fn event(&self, message: &str) -> Bytes {
        self.track().map_or_else(|| body::message_event(message), |track| track.event(message))
    }

    /// The message that ends the stream.
    pub(super) fn last_event(&self, message: &str) -> Bytes {
        self.track.get().map_or_else(|| body::message_event(message), |track| track.last(message))
    }

    pub(super) fn events(&self, messages: &[String]) -> Event {
        Event::More(messages.iter().flat_map(|message| self.event(message)).collect())
    }

    /// None where the client knows nothing of ids, or the request is no call yet.
    fn track(&self) -> Option<&Track> {
        if self.asked.habit == Habit::None || self.track.get().is_some() {
            return self.track.get();
        }
        let call = self.begun.ticket.as_ref()?.call?;
        let about = match (&self.begun.collects, self.begun.output) {
            (Some(_), _) => About::Collecting,
            (None, Output::Structured) => About::Structured,
            (None, Output::Free) => About::Free,
        };
        let (id, progress_token) = (self.asked.id.clone(), self.begun.progress_token.clone());
        let name = Name::Call(CallStream { call, about, id, progress_token });
        let track = self.front.replays.carry(&self.asked.caller.channel, &name)?;
        Some(self.track.get_or_init(|| track))
    }

    /// What comes first on the stream, before `first`.
    pub(super) async fn opening(&mut self, first: Option<Event>) -> Option<Event> {
        if self.asked.habit == Habit::Primed {
            if let Some(ticket) = &mut self.begun.ticket {
                ticket.known().await;
            }
            let priming = self.track().map_or_else(Bytes::new, |track| track.priming(self.asked.habit));
            return match first {
                Some(Event::More(first)) => Some(Event::More([priming, first].concat().into())),
                None if !priming.is_empty() => Some(Event::More(priming)),
                first => first,
            };
        }
        first
    }

    /// Cancel-safe: nothing is lost where the future is dropped.
    pub(super) async fn step(&mut self) -> Step {
        if matches!(self.offering, Offering::Due) {
            return match self.offer().await {
                Some(message) => Step::Offer(message),
                None => self.next().await,
            };
        }
        self.next().await
    }

    /// The offer, where the call waits for a person.
    async fn offer(&mut self) -> Option<String> {
        let ticket = self.begun.ticket.as_mut()?;
        let call = match (ticket.is_held().await, ticket.call) {
            (true, Some(call)) => self.front.driver.look(&self.asked.caller, call).await,
            _ => None,
        };
        // Nothing is waited for from here on.
        let Some(call) = call else {
            self.offering = Offering::None;
            return None;
        };
        let offer = Offer::make(&self.front.asks, &self.asked.caller.channel);
        let message = offer.message(&self.front.inbox, &call);
        self.offering = Offering::Made(offer);
        Some(message)
    }

    async fn next(&mut self) -> Step {
        let cancelled = async {
            match &self.wait {
                Some(wait) => wait.token().cancelled().await,
                None => std::future::pending().await,
            }
        };
        let over = async {
            match self.begun.collects {
                Some((_, until)) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let ticket = self.begun.ticket.as_mut().expect("a request that goes on waiting has its ticket");
        let (mut cancelled, mut over) = (std::pin::pin!(cancelled), std::pin::pin!(over));
        loop {
            let said = async {
                match &mut self.offering {
                    Offering::Made(offer) => offer.said().await,
                    Offering::None | Offering::Due | Offering::Agreed => std::future::pending().await,
                }
            };
            let settled = async {
                match &self.put {
                    Some(put) => put.question.closed.cancelled().await,
                    None => std::future::pending().await,
                }
            };
            let visit = tokio::select! {
                biased;
                () = settled => {
                    if let Some(put) = self.put.take() {
                        return Step::TakenBack(put);
                    }
                    continue;
                }
                news = ticket.next() => return match news {
                    News::Progress(params) => Step::Progress(params),
                    News::Remarked(remark) => Step::Remarked(remark),
                    News::Asked(question) => Step::Asked(question),
                    News::Reply(reply) => Step::Reply(Box::new(reply)),
                },
                () = &mut cancelled => return Step::Withdrawn,
                () = &mut over => return Step::Over,
                visit = said => visit,
            };
            if visit == Visit::Agreed {
                self.offering = Offering::Agreed;
                continue;
            }
            self.offering = Offering::None;
            // Nobody goes there from here, so nothing is gained by waiting; what runs already is waited for.
            if ticket.is_held().await {
                return Step::Over;
            }
        }
    }

    pub(super) async fn withdraw(&mut self) {
        if let Some(ticket) = self.begun.ticket.take() {
            withdraw(ticket, self.collected()).await;
        }
    }

    fn collected(&self) -> Option<CallId> {
        self.begun.collects.map(|(call, _)| call)
    }

    /// What to say where the request's own time is over and the call is not.
    pub(super) async fn not_yet(&mut self) -> String {
        let mut known = self.collected();
        // Whoever is told to come back has not gone away: nothing is cancelled for it.
        if let Some(ticket) = self.begun.ticket.take() {
            known = known.or(ticket.call);
            ticket.leave();
        }
        let status = match known {
            Some(call) => {
                self.front.driver.status(&self.asked.caller, call).await.map(|status| (call, status))
            }
            None => None,
        };
        let Some((call, status)) = status else {
            return deliver::report(&self.asked.id, self.asked.era, &Report::not_found("the call"));
        };
        let text = |name: &str| status.get(name).and_then(Value::as_str).unwrap_or_default();
        let target = Target { server: text("server"), tool: text("tool") };
        let state = State::from_name(text("state")).unwrap_or(State::InFlight);
        let report = match state {
            State::Previewing | State::Asking => Report::held(call, target, None),
            _ => Report::running(call, target),
        };
        let body = Body::Handle(report);
        let reply =
            Reply { call: Some(call), state: state.name(), replayed: false, body, receipt: Receipt::none() };
        self.message(&reply).await
    }

    pub(super) async fn message(&self, reply: &Reply) -> String {
        // `holdfast_wait` is a tool of its own, whose results are always results.
        if self.begun.collects.is_none()
            && matches!(reply.body, Body::Handle(_) | Body::Stopped(_))
            && let Some(message) = surface::instead(&self.front, &self.asked, &self.begun, reply).await
        {
            return message;
        }
        let message = deliver::message(&self.asked.id, self.asked.era, self.begun.output, reply);
        match &self.begun.server {
            Some(server) => {
                task_id::in_response(&self.front.seal, &self.asked.caller.principal, server, message)
            }
            None => message,
        }
    }

    /// The events that end a stream: a client that was sent to a page is told when that is done with, then the answer.
    pub(super) async fn last_words(&self, reply: &Reply) -> Bytes {
        let message = self.message(reply).await;
        match (&self.offering, &reply.body, reply.call) {
            (Offering::Made(_) | Offering::Agreed, Body::Answer(_) | Body::Report(_), Some(call)) => {
                let complete = self.event(&offer::complete(call));
                Bytes::from([complete, self.last_event(&message)].concat())
            }
            _ => self.last_event(&message),
        }
    }

    pub(super) fn progress(&mut self, params: &Text) -> Option<Event> {
        let token = self.begun.progress_token.as_ref()?;
        self.begun.patience_shown = None;
        let params = set_member(params, "progressToken", token);
        Some(Event::More(self.event(&wire::notification("notifications/progress", &params))))
    }

    /// Another notification of the server, where the client can hear it and wants to.
    pub(super) fn remark(&self, remark: &Remark) -> Option<Event> {
        if !self.asked.accepts.events || !levels::is_wanted(&self.asked.client, remark) {
            return None;
        }
        let params = remark.params.as_deref().unwrap_or("{}");
        Some(Event::More(self.event(&wire::notification(&remark.method, params))))
    }

    /// The server wants to know something: passes it on in the client's way, or says why that cannot be.
    pub(super) fn pass_on(&mut self, question: &Arc<Question>) -> Passed {
        if self.put.as_ref().is_some_and(|put| Arc::ptr_eq(&put.question, question)) {
            // Asked on this stream before it was cut, and then written again.
            return Passed::On;
        }
        if let Some(answers) = self.begun.inputs.take().and_then(|inputs| inputs.to(question)) {
            question.answer(answers);
            return Passed::On;
        }
        if let Some(why) = asks::unfit(&self.asked.client, question) {
            question.refuse(&why);
            return Passed::On;
        }
        match (self.asked.era, self.begun.ticket.as_ref().and_then(|ticket| ticket.call)) {
            (Era::Legacy, _) if self.asked.accepts.events => {
                let put = self.front.asks.put(&self.asked.caller.channel, question);
                let events = self.events(&put.messages);
                self.put = Some(put);
                Passed::Said(events)
            }
            (Era::Modern, Some(call)) => {
                let result = surface::input_required(&self.front, &self.asked, call, question);
                if let Some(ticket) = self.begun.ticket.take() {
                    ticket.leave();
                }
                Passed::Over(deliver::result(&self.asked.id, &result, self.asked.era, &[]))
            }
            _ => {
                let why = "the client takes no event streams, so it cannot be asked";
                question.refuse(&wire::error_member(wire::METHOD_NOT_FOUND, why, None));
                Passed::On
            }
        }
    }

    /// What shows the client that its call is still waited for: progress as long as the server shows none of its own,
    /// because that is what makes clients wait on (comments do not); else a comment.
    pub(super) fn still_waiting(&mut self) -> Event {
        let Some((token, shown)) = self.begun.progress_token.as_ref().zip(self.begun.patience_shown.as_mut())
        else {
            return Event::More(body::keep_alive());
        };
        *shown += 1;
        // Far below the first step of any server, so that its own progress still goes up from here.
        let params = format!(
            r#"{{"progressToken":{token},"progress":{shown}e-6,"message":"still waiting for the call"}}"#
        );
        Event::More(self.event(&wire::notification("notifications/progress", &params)))
    }

    /// True where the bridge should ask the next process instead: it knows the request by its key.
    pub(super) fn is_for_the_next_process(&self, reply: &Reply) -> bool {
        self.asked.transport_key.is_some()
            && match &reply.body {
                Body::Stopped(_) => true,
                Body::Report(report) => report.code == "shutting-down",
                Body::Answer(_) | Body::Handle(_) => false,
            }
    }
}

/// What became of a question.
pub(super) enum Passed {
    /// The server has its answer.
    On,
    /// The client was asked by these events.
    Said(Event),
    /// The client is asked by the response to its request.
    Over(String),
}
