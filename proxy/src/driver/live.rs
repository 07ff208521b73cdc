//! A call that has a task: its folded state, who waits for it, and the way to its task.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use holdfast_store::{Call, CallId, Hash32, State, Text, engine::Event};
use tokio::sync::{Notify, mpsc, oneshot};

use super::{
    decide::Decision,
    ticket::{Body, Receipt, Reply},
    words,
};
use crate::{
    upstream::{Bookmark, Client, Question, Remark, Signal},
    wire,
};

/// A live call. Its task alone changes the state; everybody else looks and waits.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) id: CallId,
    /// Under which hash the call is an origin of re-issues; none for reads and calls with an explicit key.
    pub(crate) origin: Option<Hash32>,
    /// Told on every change of state that waiters may care about.
    pub(super) moved: Notify,
    shared: Mutex<Shared>,
    /// Boxed, because a channel keeps room for 32 messages, and most calls that wait get none for hours.
    task: mpsc::UnboundedSender<Box<Input>>,
}

/// What a call's task is told.
#[derive(Debug)]
pub(super) enum Input {
    Event(Event),
    /// With what keeps it from being lost until it is dealt with.
    Signal(holdfast_store::Attempt, Signal, Option<Arc<Bookmark>>),
    Decision(Decision),
    Probed(holdfast_store::Attempt, holdfast_store::engine::Probed),
    Joined(holdfast_store::Caller, Option<holdfast_store::KeySource>),
    /// Its agent has asked for it.
    Wanted,
    /// What the server wanted to know is answered, or not wanted any more.
    Closed,
    /// It is answered, and the server is told by this.
    Said(GoOn),
}

/// Tells the server what the agent said.
pub(super) struct GoOn(pub(super) Box<dyn FnOnce() + Send>);

impl fmt::Debug for GoOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GoOn")
    }
}

/// The part that tasks share under a lock that is never held across an await.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) call: Call,
    /// What the client can do that asked last.
    pub(super) client: Arc<Client>,
    /// What the server wants to know, and who was told so.
    question: Option<(Arc<Question>, Option<WaiterId>)>,
    waiters: Vec<Waiter>,
    next_waiter: u64,
    /// The task has ended without a durable end of the call (the journal failed, or Holdfast stops).
    broken: Option<Body>,
}

/// A place among the waiters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WaiterId(u64);

#[derive(Debug)]
struct Waiter {
    id: WaiterId,
    /// Of the principal whose call it is.
    own: bool,
    wants: Progress,
    heard: mpsc::Sender<Heard>,
    reply: oneshot::Sender<Box<Reply>>,
    /// Whether the answer comes from the record for this one.
    replayed: bool,
}

/// The two ends that a waiter listens on.
pub(super) struct Ends {
    pub(super) waiter: WaiterId,
    pub(super) heard: mpsc::Receiver<Heard>,
    pub(super) reply: oneshot::Receiver<Box<Reply>>,
}

/// Whether a request wants progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It gave a progress token.
    Wanted,
    /// It did not.
    Unwanted,
}

/// What a server says while a call runs.
#[derive(Clone, Debug)]
pub(super) enum Heard {
    /// The `params` of a progress notification.
    Progress(Text),
    /// Another notification.
    Remarked(Remark),
}

/// What a slow reader may be behind; more is dropped, because of progress only the latest matters.
const BACKLOG: usize = 256;

impl Live {
    pub(super) fn new(
        call: Call,
        origin: Option<Hash32>,
        client: Arc<Client>,
    ) -> (Self, mpsc::UnboundedReceiver<Box<Input>>) {
        let (task, inbox) = mpsc::unbounded_channel();
        let shared =
            Shared { call, client, question: None, waiters: Vec::new(), next_waiter: 0, broken: None };
        let id = shared.call.id;
        (Self { id, origin, moved: Notify::new(), shared: Mutex::new(shared), task }, inbox)
    }

    /// Looks at the state.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Shared) -> T) -> T {
        look(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells the call's task; a task that has ended hears nothing.
    pub(super) fn tell(&self, event: Event) {
        self.send(Input::Event(event)).ok();
    }

    /// Gives the input back where the task has ended.
    pub(super) fn send(&self, input: Input) -> Result<(), Box<Input>> {
        self.task.send(Box::new(input)).map_err(|unsent| unsent.0)
    }

    /// Joins the waiters; where there is something to say already, the reply is on its way.
    ///
    /// Only those of the principal whose call it is are told what its server wants to know.
    pub(super) fn join(&self, wants: Progress, replayed: bool, principal: &str) -> Ends {
        let (sender, heard) = mpsc::channel(BACKLOG);
        let (tell, reply) = oneshot::channel();
        self.wanted();
        let waiter = self.with(|shared| {
            shared.next_waiter += 1;
            let id = WaiterId(shared.next_waiter);
            let own = shared.call.accepted.caller.principal == principal;
            shared.waiters.push(Waiter { id, own, wants, heard: sender, reply: tell, replayed });
            shared.reply_to_all();
            id
        });
        Ends { waiter, heard, reply }
    }

    /// Its agent is there: an approved call may have waited for that (`detached = false`).
    pub(super) fn wanted(&self) {
        if self.with(|shared| shared.call.state == State::Approved && !shared.call.accepted.plan.detached) {
            self.send(Input::Wanted).ok();
        }
    }

    /// Whether the call is approved, and to be sent only once its agent asks for it.
    pub(super) fn awaits_agent(&self) -> bool {
        self.with(|shared| {
            let approved = shared.call.state == State::Approved;
            approved && !shared.call.accepted.plan.detached && shared.waiters.is_empty()
        })
    }

    /// Leaves the waiters; true where nobody is left.
    pub(super) fn leave(&self, waiter: WaiterId) -> bool {
        self.with(|shared| {
            shared.waiters.retain(|other| other.id != waiter);
            let nobody = shared.waiters.is_empty();
            if nobody {
                // Held calls stay without waiters for long.
                shared.waiters = Vec::new();
            }
            nobody
        })
    }

    /// The state changed.
    pub(super) fn changed(&self) {
        self.with(Shared::reply_to_all);
        self.moved.notify_waiters();
    }

    /// No more will come from the task: everyone who waits is told so.
    pub(super) fn break_off(&self, words: Body) {
        self.with(|shared| {
            shared.broken = Some(words);
            shared.reply_to_all();
        });
    }

    /// Passes on what the server says: progress to those who want it.
    pub(super) fn heard(&self, heard: &Heard) {
        self.with(|shared| {
            for waiter in &shared.waiters {
                if waiter.wants == Progress::Wanted || !matches!(heard, Heard::Progress(_)) {
                    waiter.heard.try_send(heard.clone()).ok();
                }
            }
        });
    }

    /// The server wants to know something: one of those who wait is told so, now or when there is one.
    pub(super) fn ask(&self, question: Arc<Question>) {
        let earlier = self.with(|shared| shared.question.replace((question, None)));
        if let Some((earlier, _)) = earlier.filter(|(earlier, _)| earlier.is_open()) {
            let why =
                wire::error_member(wire::INTERNAL_ERROR, "another question of this call came after it", None);
            earlier.refuse(&why);
        }
        self.moved.notify_waiters();
    }

    /// The question that this waiter is to pass on: one that nobody was told, or somebody who has left since.
    pub(super) fn question_for(&self, waiter: WaiterId) -> Option<Arc<Question>> {
        self.with(|shared| {
            let Shared { question, waiters, .. } = shared;
            let (question, told) = question.as_mut().filter(|(question, _)| question.is_open())?;
            if !waiters.iter().any(|other| other.id == waiter && other.own) {
                return None;
            }
            if told.is_some_and(|told| waiters.iter().any(|other| other.id == told)) {
                return None;
            }
            *told = Some(waiter);
            Some(question.clone())
        })
    }
}

impl Shared {
    fn reply_to_all(&mut self) {
        if self.waiters.is_empty() {
            return;
        }
        let body = match &self.broken {
            Some(words) => words.clone(),
            None => match words::reply(&self.call) {
                Some(body) => body,
                None => return,
            },
        };
        let mut bodies = std::iter::repeat_n(body, self.waiters.len());
        for waiter in self.waiters.drain(..) {
            let reply = Reply {
                call: Some(self.call.id),
                state: self.call.state.name(),
                replayed: waiter.replayed,
                body: bodies.next().expect("one body for each waiter"),
                receipt: Receipt::none(),
            };
            // A waiter that left in this moment needs no reply; its ticket gives the answer back as unheard.
            waiter.reply.send(Box::new(reply)).ok();
        }
    }
}
