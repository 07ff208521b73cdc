//! A request on its way to a server: taken back as long as it can be.

use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use super::{
    Signal, Speaks, UNTRUSTED, Unsent, Wanted, Way,
    id::RequestId,
    link::Link,
    peer::Listener,
    relay::Parcel,
    round::{self, Going, Round},
    shared::Shared,
};

/// A request on its way. Dropping it cancels nothing: late answers still arrive.
#[derive(Clone)]
pub(crate) struct Flight {
    place: Arc<Mutex<Place>>,
    /// Its answer is not wanted any more: no further round is sent.
    withdrawn: Arc<AtomicBool>,
    rounds: Arc<Rounds>,
    /// Whether its server has made a task of it that goes on without a connection.
    errand: Arc<Mutex<Errand>>,
}

/// How far it is with a server that wants it again and again.
#[derive(Default)]
struct Rounds {
    /// How often it was sent again.
    sent: AtomicU32,
    /// Another attempt takes its place, or its call has ended: it is not sent again.
    over: AtomicBool,
}

/// What the end of is the end of the request's work, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tie {
    /// The stream of the request, where there is neither process nor session.
    Stream,
    /// The process or session. Its stream has ended, or it was our own end that broke it: that says nothing.
    Session,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Errand {
    #[default]
    None,
    Out,
    Over,
}

enum Place {
    /// The server is not there yet; the reason of a withdrawal that came meanwhile.
    Waiting(Option<String>),
    /// Being handed to the connection; the same.
    Sending(Option<String>),
    Sent(Link, RequestId, Tie),
    /// An earlier life sent it; the server waits for an answer, with nothing of ours open.
    Asked,
    /// It never left.
    Never,
}

impl Flight {
    pub(super) fn new() -> Self {
        Self::at(Place::Waiting(None))
    }

    fn at(place: Place) -> Self {
        Self {
            place: Arc::new(Mutex::new(place)),
            withdrawn: Arc::default(),
            rounds: Arc::default(),
            errand: Arc::default(),
        }
    }

    /// That of a request that an earlier life sent, for the last time in this round.
    pub(super) fn of_earlier_life(link: Link, id: RequestId, round: u32) -> Self {
        let flight = Self::at(Place::Sent(link, id, Tie::Session));
        flight.rounds.sent.store(round, Ordering::SeqCst);
        flight
    }

    /// That of a request that an earlier life sent, to a server that has asked back and holds no connection for it.
    pub(super) fn of_asked(round: u32) -> Self {
        let flight = Self::at(Place::Asked);
        flight.rounds.sent.store(round, Ordering::SeqCst);
        flight
    }

    /// It is not sent again, whatever its server wants: another attempt takes its place, or its call has ended. What
    /// still comes of it is passed on.
    pub(crate) fn no_more_rounds(&self) {
        self.rounds.over.store(true, Ordering::SeqCst);
    }

    /// The server has asked back in this round. False where it has done so before, or nobody is to go on.
    pub(super) fn asked_in(&self, round: u32) -> bool {
        if let Place::Sent(_, _, tie) = &mut *self.place() {
            *tie = Tie::Session;
        }
        self.rounds.sent.load(Ordering::SeqCst) == round && !self.rounds.over.load(Ordering::SeqCst)
    }

    /// It is about to be sent again after this round. False where that was done, or is not to be done any more.
    pub(super) fn goes_on_from(&self, round: u32) -> bool {
        let next = round.saturating_add(1);
        !self.rounds.over.load(Ordering::SeqCst)
            && self.rounds.sent.compare_exchange(round, next, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Tells the server that the answer is not wanted; an answer that comes all the same is still passed on. A call
    /// that has not left is not sent, and `on` hears that.
    pub(crate) fn cancel(&self, reason: &str) {
        self.withdrawn.store(true, Ordering::SeqCst);
        let (link, id) = match &mut *self.place() {
            Place::Waiting(withdrawn) | Place::Sending(withdrawn) => {
                *withdrawn = Some(reason.to_owned());
                return;
            }
            Place::Sent(link, id, _) => (link.clone(), *id),
            Place::Asked | Place::Never => return,
        };
        link.withdraw(id, reason);
    }

    /// Takes the call back if the server was not there to take it. True: it has not left and never will, and `on` need
    /// not say so.
    pub(crate) fn recall(&self) -> bool {
        let mut place = self.place();
        let waiting = matches!(*place, Place::Waiting(_));
        if waiting {
            *place = Place::Never;
        }
        waiting
    }

    /// Whether the process or session that the call was sent to no longer exists: whatever it was doing is over.
    /// Without a session, by HTTP, only the end of the call's own stream can be told.
    pub(crate) fn gone(&self) -> bool {
        match *self.errand() {
            Errand::None => {}
            Errand::Out => return false,
            Errand::Over => return true,
        }
        match &*self.place() {
            Place::Waiting(_) | Place::Sending(_) | Place::Asked => false,
            Place::Sent(link, id, Tie::Stream) => link.is_gone(*id),
            Place::Sent(link, _, Tie::Session) => link.is_gone_for_good(),
            Place::Never => true,
        }
    }

    /// Its server has made a task of it, for whose end somebody waits from now on.
    pub(super) fn go_on_errand(&self) {
        *self.errand() = Errand::Out;
    }

    /// The task has come to its end.
    pub(super) fn return_from_errand(&self) {
        *self.errand() = Errand::Over;
    }

    fn errand(&self) -> MutexGuard<'_, Errand> {
        self.errand.lock().expect("nothing panics while it holds the errand")
    }

    /// It will not be sent.
    pub(super) fn never(&self) {
        self.swap(Place::Never);
    }

    pub(super) fn send(&self, shared: &Arc<Shared>, link: Link, parcel: &Parcel, listener: Listener) {
        match self.swap(Place::Sending(None)) {
            Place::Never => {
                self.swap(Place::Never);
                return;
            }
            Place::Waiting(Some(reason)) => {
                self.swap(Place::Never);
                let message = format!("withdrawn before server `{}` was there: {reason}", shared.name);
                listener(Signal::Unsent(Unsent { code: "upstream-unreachable", message }));
                return;
            }
            Place::Waiting(None) | Place::Sending(_) | Place::Sent(..) | Place::Asked => {}
        }
        if let Parcel::Call(dispatch) = parcel
            && let Err(unsent) = trusted(shared, &link, &dispatch.tool)
        {
            self.swap(Place::Never);
            listener(Signal::Unsent(unsent));
            return;
        }
        let id = round::request_id(parcel, 0);
        let hear = self.hearing(shared, &link, parcel, listener, 0);
        // This can call back into the flight, so no lock is held.
        link.convey(id, parcel, &[], || round::mirrored(shared, parcel), hear);
        self.sent(link, id);
    }

    pub(super) fn sent(&self, link: Link, id: RequestId) {
        if let Place::Sending(Some(reason)) = self.swap(Place::Sent(link.clone(), id, Tie::Stream)) {
            link.withdraw(id, &reason);
        }
    }

    /// Makes a question of a result that asks for input, where the one who asked cannot be given that as it is.
    /// `number` is that of the round whose result is heard.
    pub(super) fn hearing(
        &self,
        shared: &Arc<Shared>,
        link: &Link,
        parcel: &Parcel,
        listener: Listener,
        number: u32,
    ) -> Listener {
        let passes_on = matches!(parcel, Parcel::Relayed(relayed) if relayed.client.speaks == Speaks::Modern);
        if passes_on || link.speaks() == Speaks::Legacy {
            return listener;
        }
        let going = Going { flight: self.clone(), shared: shared.clone(), parcel: parcel.clone(), listener };
        let link = link.clone();
        Arc::new(move |signal| match signal {
            Signal::Answered(answer) => match round::input_wanted(&answer.text) {
                None => (going.listener)(Signal::Answered(answer)),
                Some((asks, state)) => {
                    Round { going: going.clone(), link: link.clone(), number, state }.ask(asks)
                }
            },
            signal => (going.listener)(signal),
        })
    }

    /// Asks again what the server wanted to know in an earlier life, by a connection that is there.
    pub(super) fn ask_again(
        &self,
        shared: &Arc<Shared>,
        link: &Link,
        parcel: &Parcel,
        listener: Listener,
        wanted: &Wanted,
    ) {
        match &wanted.way {
            Way::Response(id) => link.peer().ask_again(id, round::request_id(parcel, 0), wanted, &listener),
            // Whoever waits for the task asks by itself.
            Way::Task(_) => {}
            Way::Round { round, state } => {
                let going =
                    Going { flight: self.clone(), shared: shared.clone(), parcel: parcel.clone(), listener };
                Round { going, link: link.clone(), number: *round, state: state.clone() }
                    .ask(wanted.asks.clone());
            }
        }
    }

    pub(super) fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::SeqCst)
    }

    fn swap(&self, place: Place) -> Place {
        std::mem::replace(&mut *self.place(), place)
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().expect("nothing panics while it holds the place")
    }
}

/// Looked at here, at the last moment: the process may be another one than the one whose list was looked at before.
pub(super) fn trusted(shared: &Shared, link: &Link, tool: &str) -> Result<(), Unsent> {
    if shared.trusts(link, tool) {
        return Ok(());
    }
    let message = format!(
        "server `{}` defines `{tool}` otherwise than when it was trusted, so nothing was sent",
        shared.name
    );
    Err(Unsent { code: UNTRUSTED, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_followed_by_one_other() {
        let flight = Flight::new();
        assert!(flight.asked_in(0) && flight.goes_on_from(0));
        assert!(!flight.asked_in(0) && !flight.goes_on_from(0), "a second answer to the same round");
        assert!(flight.asked_in(1));
        flight.no_more_rounds();
        assert!(!flight.asked_in(1) && !flight.goes_on_from(1));
        assert!(Flight::of_asked(3).goes_on_from(3));
    }

    #[test]
    fn between_two_rounds_nothing_is_gone() {
        assert!(!Flight::of_asked(0).gone());
        let never = Flight::new();
        never.never();
        assert!(never.gone());
    }
}
