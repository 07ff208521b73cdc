//! The response of a request that waits for its call: plain JSON for a quick answer, a stream for everything that takes
//! longer.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use hyper::{Response, StatusCode};

use super::{
    accept::Accepts,
    body::{self, Event, Outgoing},
    deliver,
    replay::Habit,
    stream::keep_alive,
    wait::{Passed, Step, Waiting},
};
use crate::driver::Receipt;

/// An answer within this time comes as plain JSON; after it the response becomes a stream, so that nobody in between
/// takes a long call for a dead one.
const PLAIN_WITHIN: Duration = Duration::from_secs(1);
/// The same for clients that come back for a stream: the sooner there is one, the less is lost with a connection.
const PRIMED_WITHIN: Duration = Duration::from_millis(100);

/// How long a response may be plain JSON.
fn plain_within(habit: Habit) -> Duration {
    match habit {
        Habit::Primed => PRIMED_WITHIN,
        Habit::None | Habit::Resumes => PLAIN_WITHIN,
    }
}

/// Waits and gives the whole response.
pub(super) async fn respond(mut waiting: Waiting) -> Response<Outgoing> {
    let Accepts { json, events, .. } = waiting.asked.accepts;
    let plain_until =
        tokio::time::sleep(if json { plain_within(waiting.asked.habit) } else { Duration::ZERO });
    let mut plain_until = std::pin::pin!(plain_until);
    loop {
        let step = tokio::select! {
            biased;
            step = waiting.step() => step,
            () = &mut plain_until, if events => return stream_from(waiting, None),
        };
        match step {
            Step::Reply(reply) if waiting.is_for_the_next_process(&reply) => {
                return body::empty(StatusCode::SERVICE_UNAVAILABLE);
            }
            Step::Reply(reply) => {
                let message = waiting.message(&reply).await;
                let status = deliver::status(waiting.asked.era, &reply);
                return body::answer(&waiting.link, waiting.asked.accepts, status, message, reply.receipt);
            }
            Step::Progress(params) => {
                if let Some(event) = waiting.progress(&params) {
                    return stream_from(waiting, Some(event));
                }
            }
            Step::Remarked(remark) => {
                if let Some(event) = waiting.remark(&remark) {
                    return stream_from(waiting, Some(event));
                }
            }
            Step::Asked(question) => match waiting.pass_on(&question) {
                Passed::On => {}
                Passed::Said(event) => return stream_from(waiting, Some(event)),
                Passed::Over(message) => {
                    let accepts = waiting.asked.accepts;
                    return body::answer(&waiting.link, accepts, StatusCode::OK, message, Receipt::none());
                }
            },
            Step::TakenBack(put) => {
                let messages = put.take_back();
                if !messages.is_empty() {
                    let events = waiting.events(&messages);
                    return stream_from(waiting, Some(events));
                }
            }
            Step::Offer(message) => {
                let event = Event::More(waiting.event(&message));
                return stream_from(waiting, Some(event));
            }
            Step::Over => {
                let message = waiting.not_yet().await;
                let accepts = waiting.asked.accepts;
                return body::answer(&waiting.link, accepts, StatusCode::OK, message, Receipt::none());
            }
            Step::Withdrawn => {
                let link = waiting.link.clone();
                waiting.withdraw().await;
                // A cancelled request gets no response; where the client reads streams, that can be said.
                if events {
                    return body::events(&link, stream::empty());
                }
                return body::empty(StatusCode::ACCEPTED);
            }
        }
    }
}

/// Goes on as a stream, with `first` as its first event.
fn stream_from(waiting: Waiting, first: Option<Event>) -> Response<Outgoing> {
    stream_with(waiting, Opening::Fresh(first))
}

/// Goes on with a stream that was cut, after what was missed of it.
pub(super) fn stream_on(waiting: Waiting, missed: Bytes) -> Response<Outgoing> {
    stream_with(waiting, Opening::Again(missed))
}

/// How a stream begins.
enum Opening {
    /// With what comes first on it, and then this.
    Fresh(Option<Event>),
    /// With what was missed.
    Again(Bytes),
    /// It has begun.
    Over,
}

fn stream_with(waiting: Waiting, opening: Opening) -> Response<Outgoing> {
    let link = waiting.link.clone();
    let state = (Some(waiting), opening, keep_alive());
    let events = stream::unfold(state, async move |(waiting, opening, mut ticks)| {
        let mut waiting = waiting?;
        let first = match opening {
            Opening::Fresh(first) => waiting.opening(first).await,
            Opening::Again(missed) if missed.is_empty() => Some(Event::More(body::keep_alive())),
            Opening::Again(missed) => Some(Event::More(missed)),
            Opening::Over => None,
        };
        if let Some(first) = first {
            return Some((first, (Some(waiting), Opening::Over, ticks)));
        }
        loop {
            let cut = waiting.track.get().map(|track| track.cut().clone());
            let step = tokio::select! {
                biased;
                () = async { cut.expect("it is there").cancelled().await }, if cut.is_some() => return None,
                step = waiting.step() => step,
                _ = ticks.tick() => return Some((waiting.still_waiting(), (Some(waiting), Opening::Over, ticks))),
            };
            match step {
                Step::Reply(reply) if waiting.is_for_the_next_process(&reply) => return None,
                Step::Reply(reply) => {
                    let message = waiting.last_words(&reply).await;
                    return Some((Event::Last(message, reply.receipt), (None, Opening::Over, ticks)));
                }
                Step::Progress(params) => {
                    if let Some(event) = waiting.progress(&params) {
                        return Some((event, (Some(waiting), Opening::Over, ticks)));
                    }
                }
                Step::Remarked(remark) => {
                    if let Some(event) = waiting.remark(&remark) {
                        return Some((event, (Some(waiting), Opening::Over, ticks)));
                    }
                }
                Step::Asked(question) => match waiting.pass_on(&question) {
                    Passed::On => {}
                    Passed::Said(event) => return Some((event, (Some(waiting), Opening::Over, ticks))),
                    Passed::Over(message) => {
                        let message = waiting.last_event(&message);
                        return Some((Event::Last(message, Receipt::none()), (None, Opening::Over, ticks)));
                    }
                },
                Step::TakenBack(put) => {
                    let messages = put.take_back();
                    if !messages.is_empty() {
                        return Some((waiting.events(&messages), (Some(waiting), Opening::Over, ticks)));
                    }
                }
                Step::Offer(message) => {
                    let event = Event::More(waiting.event(&message));
                    return Some((event, (Some(waiting), Opening::Over, ticks)));
                }
                Step::Over => {
                    let message = waiting.not_yet().await;
                    let message = waiting.last_event(&message);
                    return Some((Event::Last(message, Receipt::none()), (None, Opening::Over, ticks)));
                }
                Step::Withdrawn => {
                    waiting.withdraw().await;
                    return None;
                }
            }
        }
    });
    body::events(&link, events)
}
