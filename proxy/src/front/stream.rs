//! Event streams: a call's progress and answer, and what servers announce to clients that listen.

use std::{sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use hyper::Response;
use tokio::{
    sync::watch,
    time::{Interval, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Front,
    body::{self, Event, Outgoing},
    hub::Place,
    listen::Link,
    replay::Track,
};
use crate::wire;

/// Comments keep idle streams alive: browsers, proxies and clients give up on silent ones after 30 s and more.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Ticks whenever a stream has to show that it is alive.
pub(super) fn keep_alive() -> Interval {
    let mut ticks = interval_at(tokio::time::Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// A stream that announces changed tool lists until it, or Holdfast, ends.
pub(super) struct Announcements {
    /// What comes first.
    pub(super) opening: bytes::Bytes,
    /// The notification for a change; none where the client did not ask for any.
    pub(super) change: Option<String>,
    /// What comes last when Holdfast ends the stream.
    pub(super) closing: Option<String>,
    /// Ends this stream alone.
    pub(super) end: CancellationToken,
    /// What servers say besides.
    pub(super) place: Place,
    /// Dropped when the stream ends.
    #[allow(dead_code, reason = "what it does, it does when it is dropped")]
    pub(super) guard: Option<Box<dyn Send>>,
    /// What gives the events of a session their ids.
    pub(super) track: Option<Track>,
}

impl Announcements {
    fn event(&self, message: &str) -> bytes::Bytes {
        self.track.as_ref().map_or_else(|| body::message_event(message), |track| track.event(message))
    }

    /// The event for a change of the list of tools.
    fn change(&self, version: u64) -> bytes::Bytes {
        match (&self.change, &self.track) {
            (None, _) => body::keep_alive(),
            (Some(change), None) => body::message_event(change),
            (Some(change), Some(track)) => {
                track.tells(version);
                track.event(change)
            }
        }
    }
}

/// Answers with `announcements`.
pub(super) fn announce(
    front: &Arc<Front>,
    link: &Arc<Link>,
    announcements: Announcements,
) -> Response<Outgoing> {
    let changed = front.upstreams.changed();
    body::events(link, changes(announcements, changed, front.stop.clone()))
}

/// `notifications/tools/list_changed` as legacy clients know it.
pub(super) fn tools_changed() -> String {
    wire::notification("notifications/tools/list_changed", "{}")
}

fn changes(
    announcements: Announcements,
    changed: watch::Receiver<u64>,
    stop: CancellationToken,
) -> impl Stream<Item = Event> + Send {
    struct State {
        announcements: Announcements,
        changed: watch::Receiver<u64>,
        stop: CancellationToken,
        ticks: Interval,
        phase: Phase,
    }
    enum Phase {
        Opening,
        Open,
        Over,
    }
    let state = State { announcements, changed, stop, ticks: keep_alive(), phase: Phase::Opening };
    stream::unfold(state, async move |mut state| {
        match state.phase {
            Phase::Opening => {
                state.phase = Phase::Open;
                return Some((Event::More(state.announcements.opening.clone()), state));
            }
            Phase::Over => return None,
            Phase::Open => {}
        }
        tokio::select! {
            () = state.announcements.end.cancelled() => None,
            () = state.stop.cancelled() => {
                state.phase = Phase::Over;
                let closing = state.announcements.closing.take()?;
                Some((Event::More(body::message_event(&closing)), state))
            }
            Some(message) = state.announcements.place.heard.recv() => {
                Some((Event::More(state.announcements.event(&message)), state))
            }
            change = state.changed.changed() => {
                change.ok()?;
                let version = *state.changed.borrow_and_update();
                Some((Event::More(state.announcements.change(version)), state))
            }
            _ = state.ticks.tick() => Some((Event::More(body::keep_alive()), state)),
        }
    })
}
