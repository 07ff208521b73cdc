//! `GET` of a legacy session: what servers announce, or the rest of a stream that was cut off.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::Response;
use tokio_util::sync::CancellationToken;

use super::{
    Front,
    accept::{Accepts, Prefers},
    body::{self, Event, Outgoing},
    call::{self, Asked, Begun, Cancellable},
    deliver::{self, Output},
    era::Era,
    event_id::{About, CallStream, Name},
    http::Sender,
    hub::Wants,
    listen::Link,
    replay::Track,
    respond,
    session::Listening,
    stream::{self, Announcements},
    wait::{Offering, Waiting},
};
use crate::{driver::Receipt, report::Report};

/// Answers a `GET` of a session whose client has read up to the event `last_event`, where it says so. What is no id of
/// ours is passed over: the stream of announcements is what everybody may have.
pub(super) async fn listen(
    front: &Arc<Front>,
    link: &Arc<Link>,
    sender: Sender,
    session: &str,
    last_event: Option<&str>,
) -> Response<Outgoing> {
    // Not a message: to open a stream is no evidence that an earlier answer was heard.
    if link.carries(&sender.caller.channel) {
        front.presence.enter(&sender.caller.channel);
    }
    match last_event.and_then(Name::of_event) {
        Some((name @ Name::Call(_), n)) => rest(front, link, sender, name, n).await,
        Some((Name::Announcements(process), n)) => {
            announcements(front, link, session, &sender, Some((&process, n)))
        }
        None => announcements(front, link, session, &sender, None),
    }
}

/// What legacy clients hear without asking for it.
pub(super) fn everything() -> Wants {
    Wants { prompts: true, resources: true, remarks: true, subscription: None }
}

fn announcements(
    front: &Arc<Front>,
    link: &Arc<Link>,
    session: &str,
    sender: &Sender,
    read: Option<(&str, u64)>,
) -> Response<Outgoing> {
    let (channel, end) = (&sender.caller.channel, CancellationToken::new());
    let listening = front.sessions.listen(session, end.clone());
    front.presence.holds_one(channel);
    let name = front.replays.announcements();
    let track = front.replays.carry(channel, &name).expect("this name is short");
    let change = stream::tools_changed();
    let mut opening = Vec::new();
    if let Some((_, n)) = read.filter(|(process, _)| name == Name::Announcements((*process).to_owned())) {
        opening.push(track.missed(n));
    } else {
        opening.push(track.priming(sender.habit));
    }
    let version = *front.upstreams.changed().borrow();
    // What the client knows may be the list of the process before, or of before it was away.
    if track.tells(version) || listening == Listening::Again {
        opening.push(track.event(&change));
    }
    let opening = opening.concat();
    let opening = if opening.is_empty() { body::keep_alive() } else { Bytes::from(opening) };
    let place = front.hub.listen(&sender.caller, &sender.client, everything(), BTreeSet::new());
    let (change, closing, guard, track) = (Some(change), None, None, Some(track));
    stream::announce(front, link, Announcements { opening, change, closing, end, place, guard, track })
}

/// The rest of a call's stream: what was written since, and what is still to come.
async fn rest(
    front: &Arc<Front>,
    link: &Arc<Link>,
    sender: Sender,
    name: Name,
    n: u64,
) -> Response<Outgoing> {
    let Sender { caller, surface, client, habit, .. } = sender;
    let Some(track) = front.replays.carry(&caller.channel, &name) else {
        return body::events(link, futures_util::stream::empty());
    };
    track.alone().await;
    let Name::Call(CallStream { call, about, id, progress_token }) = name else {
        unreachable!("only streams of calls have a rest")
    };
    let wanted = call::wanted(progress_token.as_ref());
    let ticket = front.driver.collect(&caller, link.number, call, wanted, &client).await;
    let (ticket, collects) = if about == About::Collecting {
        let until = tokio::time::Instant::now() + Duration::from_secs(call::WAIT_DEFAULT_S);
        (ticket, Some((call, until)))
    } else {
        (ticket.map(|ticket| front.driver.with_patience_of(call, ticket)), None)
    };
    let Some(ticket) = ticket else {
        // The same whether it never was, is pruned, or is somebody else's.
        let message = deliver::report(&id, Era::Legacy, &Report::not_found(&format!("the call {call}")));
        let event = Event::Last(track.last(&message), Receipt::none());
        return body::events(link, futures_util::stream::iter([event]));
    };
    let wait = front.waiting.enter(&caller.channel, &id, Instant::now());
    let output = if about == About::Structured { Output::Structured } else { Output::Free };
    let (aside, missed) = (track.take_aside(), track.missed(n));
    let asked = Asked {
        id,
        era: Era::Legacy,
        caller,
        accepts: Accepts { json: false, events: true, first: Prefers::Events },
        transport_key: None,
        header_key: None,
        headers: None,
        cancellable: Cancellable::ById,
        surface,
        habit,
        client,
    };
    let begun = Begun {
        ticket: Some(ticket.with_hold_wait(asked.surface.hold_wait())),
        output,
        progress_token,
        // Ours would begin anew, below what the client has seen.
        patience_shown: None,
        collects,
        retry: None,
        server: None,
        inputs: None,
    };
    let (front, link) = (front.clone(), link.clone());
    let (offering, put) = (aside.offering.unwrap_or(Offering::None), aside.put);
    respond::stream_on(
        Waiting {
            front,
            asked,
            begun,
            link,
            wait: Some(wait),
            offering,
            put,
            track: OnceLock::<Track>::from(track),
        },
        missed,
    )
}
