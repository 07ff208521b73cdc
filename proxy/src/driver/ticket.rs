//! One request's wait for a call: progress while it runs, one reply, and what its end means.

use std::{sync::Arc, time::Duration};

use holdfast_policy::OnDisconnect;
use holdfast_store::{Answer, Call, CallId, Hash32, State, Text, engine};
use tokio::sync::{mpsc, oneshot};

use super::{
    Driver,
    live::{Heard, Live, WaiterId},
    reissue::From,
    words,
};
use crate::{
    report::Report,
    upstream::{Question, Remark},
};

/// News for one request.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one at a time for each request, and it is moved once")]
pub(crate) enum News {
    /// The `params` of a progress notification as the upstream sent them.
    Progress(Text),
    /// Another notification of the upstream that belongs to the call.
    Remarked(Remark),
    /// The upstream wants to know something before it goes on.
    Asked(Arc<Question>),
    /// The end of this request.
    Reply(Reply),
}

/// What one request is told.
#[derive(Debug)]
pub(crate) struct Reply {
    /// The call it belongs to; none where nothing was accepted.
    pub(crate) call: Option<CallId>,
    /// The call's state in a word.
    pub(crate) state: &'static str,
    /// Whether the answer comes from the record.
    pub(crate) replayed: bool,
    /// What to say.
    pub(crate) body: Body,
    /// To be told when all of it was written.
    pub(crate) receipt: Receipt,
}

/// The content of a reply.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// The upstream's answer.
    Answer(Answer),
    /// Holdfast's own words: a tool result with `isError: true`.
    Report(Report),
    /// Waiting for a person, or still running: not an error, and not a result.
    Handle(Report),
    /// The same, from a Holdfast that stops: the next one goes on with the call.
    Stopped(Report),
}

impl Reply {
    /// A reply to a request that no call was made of.
    pub(crate) fn refusal(report: Report) -> Self {
        Self {
            call: None,
            state: "refused",
            replayed: false,
            body: Body::Report(report),
            receipt: Receipt::none(),
        }
    }
}

/// Evidence that an answer left: [`Receipt::written`] once all of it was handed to the socket. A receipt that is
/// dropped unwritten says that the answer did not get out.
#[derive(Debug)]
pub(crate) struct Receipt(Option<Claim>);

#[derive(Debug)]
struct Claim {
    driver: Arc<Driver>,
    hash: Hash32,
    call: CallId,
    from: From,
}

impl Receipt {
    /// For replies whose delivery does not matter.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    pub(super) fn new(driver: Arc<Driver>, hash: Hash32, call: CallId, from: From) -> Self {
        Self(Some(Claim { driver, hash, call, from }))
    }

    /// There is nothing left that could be delivered: no request is the re-issue of this call any more.
    pub(super) fn withdraw(mut self) {
        if let Some(Claim { driver, hash, call, .. }) = self.0.take() {
            driver.reissues().remove(hash, call);
        }
    }

    /// All of the reply was handed to the socket.
    pub(crate) fn written(mut self) {
        if let Some(Claim { driver, hash, call, from }) = self.0.take() {
            driver.answer_written(hash, call, &from);
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(Claim { driver, hash, call, from }) = self.0.take() {
            driver.answer_not_written(hash, call, &from);
        }
    }
}

/// How long a ticket waits before it gives a handle instead of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// While a person has to decide.
    pub(crate) held: Duration,
    /// In all.
    pub(crate) running: Duration,
}

impl Patience {
    /// Whoever collects a call says by itself how long it waits; this is longer.
    pub(super) const COLLECTING: Self =
        Self { held: Duration::from_secs(2 * 3_600), running: Duration::from_secs(2 * 3_600) };

    fn wait_for_a_person(&mut self, wait: HoldWait) {
        self.held = match wait {
            HoldWait::Policy => self.held,
            HoldWait::Exactly(time) => time,
            HoldWait::AtLeast(time) => self.held.max(time),
        };
    }

    /// As the call's policy has it.
    pub(super) fn of(call: &Call) -> Self {
        let plan = &call.accepted.plan;
        Self {
            held: Duration::from_millis(plan.hold_wait_ms),
            running: Duration::from_millis(plan.call_timeout_ms.saturating_add(plan.hold_wait_ms)),
        }
    }
}

/// How long a request waits for a person, where it is not as the call's policy has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HoldWait {
    /// `hold_wait`.
    Policy,
    /// This long.
    Exactly(Duration),
    /// This long, or longer where policy says so.
    AtLeast(Duration),
}

/// A request's wait. Dropping it ends the wait, not the call (unless `on_disconnect = "cancel"`).
pub(crate) struct Ticket {
    /// The call, once it is known to exist.
    pub(crate) call: Option<CallId>,
    wait: Wait,
    hold_wait: HoldWait,
}

enum Wait {
    Over(Option<Box<Reply>>),
    Starting(oneshot::Receiver<Start>),
    Joined(Joined),
}

/// What became of a request: a wait for a call, or a reply at once.
pub(super) enum Start {
    Reply(Box<Reply>),
    Joined(Joined),
}

/// A place among the waiters of a call.
pub(super) struct Joined {
    pub(super) live: Arc<Live>,
    pub(super) waiter: WaiterId,
    pub(super) heard: mpsc::Receiver<Heard>,
    pub(super) reply: oneshot::Receiver<Box<Reply>>,
    pub(super) receipt: Receipt,
    pub(super) patience: Patience,
    pub(super) since: tokio::time::Instant,
    /// Set once the reply was taken: then there is nothing to leave.
    pub(super) over: bool,
}

impl Ticket {
    pub(super) fn refused(report: Report) -> Self {
        let wait = Wait::Over(Some(Box::new(Reply::refusal(report))));
        Self { call: None, wait, hold_wait: HoldWait::Policy }
    }

    pub(super) fn starting(start: oneshot::Receiver<Start>) -> Self {
        Self { call: None, wait: Wait::Starting(start), hold_wait: HoldWait::Policy }
    }

    pub(super) fn started(start: Start) -> Self {
        let mut ticket = Self { call: None, wait: Wait::Over(None), hold_wait: HoldWait::Policy };
        ticket.take(start);
        ticket
    }

    fn take(&mut self, start: Start) {
        match start {
            Start::Reply(reply) => {
                self.call = reply.call;
                self.wait = Wait::Over(Some(reply));
            }
            Start::Joined(mut joined) => {
                joined.patience.wait_for_a_person(self.hold_wait);
                self.call = Some(joined.live.id);
                self.wait = Wait::Joined(joined);
            }
        }
    }

    /// Changes how long this request waits for a person.
    #[must_use]
    pub(crate) fn with_hold_wait(mut self, wait: HoldWait) -> Self {
        self.hold_wait = wait;
        if let Wait::Joined(joined) = &mut self.wait {
            joined.patience.wait_for_a_person(wait);
        }
        self
    }

    /// Changes how long this request waits at all.
    #[must_use]
    pub(super) fn with_patience(mut self, patience: Patience) -> Self {
        if let Wait::Joined(joined) = &mut self.wait {
            joined.patience = patience;
        }
        self
    }

    /// Waits until the request has become a call (or was refused): from then on its id is known.
    pub(crate) async fn known(&mut self) {
        if let Wait::Starting(start) = &mut self.wait {
            let start = start.await.unwrap_or_else(|_| {
                // The task that should have started it is gone: only at shutdown.
                Start::Reply(Box::new(Reply::refusal(Report::shutting_down())))
            });
            self.take(start);
        }
    }

    /// Whether the call waits for a person now. Cancel-safe.
    pub(crate) async fn is_held(&mut self) -> bool {
        self.known().await;
        match &self.wait {
            Wait::Joined(joined) => joined.live.with(|shared| shared.call.state.is_held()),
            Wait::Over(_) | Wait::Starting(_) => false,
        }
    }

    /// The next news. After the reply there is none: it must not be asked again.
    pub(crate) async fn next(&mut self) -> News {
        self.known().await;
        match &mut self.wait {
            Wait::Over(reply) => News::Reply(*reply.take().expect("a ticket replies once")),
            Wait::Joined(joined) => joined.next().await,
            Wait::Starting(_) => unreachable!("known() has resolved it"),
        }
    }

    /// Ends this wait and nothing else: whoever waited was told to come back.
    pub(crate) fn leave(mut self) {
        if let Wait::Joined(joined) = &mut self.wait {
            joined.over = true;
            joined.live.leave(joined.waiter);
        }
    }

    /// The client cancelled this request on purpose.
    pub(crate) async fn withdraw(mut self) {
        self.known().await;
        if let Wait::Joined(joined) = &mut self.wait {
            joined.leave(Leaving::OnPurpose);
        }
    }
}

/// Why a request does not wait any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// Its stream closed: policy says what that means.
    Disconnected,
    /// The client said so.
    OnPurpose,
}

impl Joined {
    async fn next(&mut self) -> News {
        let running = self.since + self.patience.running;
        let live = self.live.clone();
        loop {
            // Registered before looking, so that no change falls between the look and the wait.
            let mut moved = std::pin::pin!(live.moved.notified());
            moved.as_mut().enable();
            let held = self.live.with(|shared| shared.call.state.is_held());
            if let Some(question) = live.question_for(self.waiter) {
                return News::Asked(question);
            }
            let until = if held { running.min(self.since + self.patience.held) } else { running };
            tokio::select! {
                biased;
                Some(heard) = self.heard.recv() => return match heard {
                    Heard::Progress(params) => News::Progress(params),
                    Heard::Remarked(remark) => News::Remarked(remark),
                },
                reply = &mut self.reply => {
                    let reply = reply.unwrap_or_else(|_| Box::new(Reply::refusal(Report::shutting_down())));
                    return News::Reply(self.finish(*reply));
                }
                () = tokio::time::sleep_until(until) => {
                    if let Some(reply) = self.handle() {
                        return News::Reply(self.finish(reply));
                    }
                }
                () = moved => {}
            }
        }
    }

    fn finish(&mut self, mut reply: Reply) -> Reply {
        self.over = true;
        let receipt = std::mem::replace(&mut self.receipt, Receipt::none());
        // Hearing that the outcome is unknown is not hearing the answer: the call stays open for a re-issue.
        if reply.state != State::InDoubt.name() {
            reply.receipt = receipt;
        }
        reply
    }

    /// What to say when patience is over: none where the state just changed and there is a reason to wait on.
    fn handle(&mut self) -> Option<Reply> {
        let now = tokio::time::Instant::now();
        let (state, body) = self.live.with(|shared| {
            let call = &shared.call;
            match call.state {
                state if state.is_held() && now >= self.since + self.patience.held => {
                    Some((state.name(), words::held(call)))
                }
                _ if now >= self.since + self.patience.running => {
                    Some((call.state.name(), words::running(call)))
                }
                _ => None,
            }
        })?;
        self.live.leave(self.waiter);
        // A handle is not the answer: the answer stays undelivered.
        drop(std::mem::replace(&mut self.receipt, Receipt::none()));
        let body = Body::Handle(body);
        Some(Reply { call: Some(self.live.id), state, replayed: false, body, receipt: Receipt::none() })
    }

    fn leave(&mut self, why: Leaving) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        let last = self.live.leave(self.waiter);
        let cancels = self.live.with(|shared| {
            let call = &shared.call;
            let by_policy = call.accepted.plan.on_disconnect == OnDisconnect::Cancel && !call.is_gated();
            !call.state.is_done() && (why == Leaving::OnPurpose || by_policy)
        });
        if last && cancels {
            let principal = self.live.with(|shared| shared.call.accepted.caller.principal.clone());
            self.live.tell(engine::Event::Cancel(words::agent(&principal)));
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.leave(Leaving::Disconnected);
    }
}
