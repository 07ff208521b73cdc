//! What outlived an earlier life of ours: servers that still run, and the answers that they owe.

mod conversation;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use holdfast_store::Millis;
use tokio_util::sync::CancellationToken;

pub(super) use self::conversation::end_when_idle;
use super::{
    Flight, Sharer, Speaks, Wanted, Way,
    catalog::Catalog,
    id::RequestId,
    link::{Agreed, Link, Offer},
    peer::Listener,
    pipe::Pipe,
    process::Process,
    relay::Parcel,
    round::once_begun,
    shared::Shared,
    threads::Number,
};
use crate::{
    config::Share,
    keeper::{Fate, Kept},
};

/// What there is to be taken over of one server.
#[derive(Default)]
pub(super) struct Estate {
    /// By whose they are; each is opened once.
    running: Mutex<HashMap<(Sharer, Speaks), (Link, Offer)>>,
    /// By their numbers, for answers that they owe.
    debtors: Mutex<HashMap<u64, Link>>,
    /// Those by HTTP, by the numbers of their sessions.
    conversations: Mutex<HashMap<Number, Link>>,
    /// Those that are not what the configuration says: a new one must not meet them.
    leaving: tokio::sync::Mutex<Vec<Kept>>,
}

/// What became of an attempt that an earlier life meant to send.
pub(crate) enum Again {
    /// Its server still runs, or has left answers: what they bring is heard.
    Awaited(Flight),
    /// It was not sent, for certain.
    NeverSent,
    /// Nobody can know.
    Unknown,
}

impl Estate {
    /// Takes over what fits the configuration. Returns whose it is.
    pub(super) fn take_over(
        &self,
        shared: &Shared,
        kept: Vec<Kept>,
        ready: &CancellationToken,
    ) -> Vec<(Sharer, Speaks)> {
        let mut sharers = Vec::new();
        for kept in kept {
            match agreed(shared, &kept).filter(|(sharer, _)| !sharers.contains(sharer)) {
                None => {
                    let server = &*shared.name;
                    tracing::info!(target: "upstream", server, "a server of an earlier life is not wanted any more; it ends");
                    let leaving = self.leaving.try_lock();
                    leaving.expect("nobody opens a server before it is known what there is").push(kept);
                }
                Some((sharer, agreed)) => {
                    if self.resume(shared, kept, (&sharer, &agreed), ready) {
                        sharers.push(sharer);
                    }
                }
            }
        }
        let processes = sharers.into_iter().map(|sharer| (sharer, Speaks::Legacy));
        processes.chain(self.take_over_sessions(shared, ready)).collect()
    }

    fn resume(
        &self,
        shared: &Shared,
        kept: Kept,
        (sharer, agreed): (&Sharer, &Agreed),
        ready: &CancellationToken,
    ) -> bool {
        let Kept { about, ends, hold } = kept;
        let process = match Process::of(about.server, &shared.common.keeper, hold, ends) {
            Ok(process) => process,
            Err(error) => {
                tracing::warn!(target: "upstream", server = &*shared.name, %error, "a running server could not be taken over");
                return false;
            }
        };
        let link = Link::resume(Pipe::attach(shared.peer(sharer), process, ready.clone()), agreed);
        shared.listed(&link, Catalog::of(agreed.tools.clone(), &shared.name));
        // It may have changed while nobody listened.
        link.peer().list_changed.notify_one();
        tracing::info!(target: "upstream", server = &*shared.name, pid = about.pid, "a running server was taken over");
        lock(&self.debtors).insert(about.number, link.clone());
        lock(&self.running).insert((sharer.clone(), Speaks::Legacy), (link, agreed.offer.clone()));
        true
    }

    /// The running server of this sharer, once; by HTTP, the conversation with it.
    pub(super) fn running(&self, sharer: &Sharer, speaks: Speaks) -> Option<(Link, Offer)> {
        lock(&self.running).remove(&(sharer.clone(), speaks))
    }

    /// Resolves when those are gone that are not wanted.
    pub(super) async fn cleared(&self) {
        let mut leaving = self.leaving.lock().await;
        let ends = leaving.drain(..).map(|kept| kept.hold.dismiss(kept.ends));
        futures_util::future::join_all(ends).await;
    }

    /// What became of an attempt that was meant to be sent at this time or later. `wanted` is what the server has asked
    /// for last, and whether it was answered.
    pub(super) fn again(
        &self,
        shared: &Arc<Shared>,
        parcel: &Parcel,
        meant: Millis,
        wanted: Option<(&Wanted, bool)>,
        listener: Listener,
    ) -> Again {
        let Parcel::Call(dispatch) = parcel else { return Again::Unknown };
        let Some(attempt) = dispatch.attempt else { return Again::Unknown };
        let sent =
            |round| shared.common.keeper.sent().fate(RequestId::of_round(attempt, round).number(), meant);
        let mut round = wanted.map_or(0, |(wanted, _)| wanted.way.round());
        let mut number = match sent(round) {
            Fate::Never if wanted.is_none() => return Again::NeverSent,
            Fate::Never | Fate::Unknown => return Again::Unknown,
            Fate::To(number) => number,
        };
        let asked = round;
        let later = loop {
            match sent(round + 1) {
                Fate::To(next) => (round, number) = (round + 1, next),
                later => break later,
            }
        };
        let Some(link) = lock(&self.debtors).get(&number).cloned() else { return Again::Unknown };
        let id = RequestId::of_round(attempt, round);
        let flight = Flight::of_earlier_life(link.clone(), id, round);
        let open = wanted.filter(|_| asked == round);
        // It may have been sent once more, and what is done twice cannot be undone.
        if open.is_some_and(|(_, answered)| answered) && later != Fate::Never {
            return Again::Unknown;
        }
        // After the result that asks nothing more comes until it is sent again.
        if !open.is_some_and(|(wanted, _)| matches!(wanted.way, Way::Round { .. })) {
            let hear = if round > 0 { once_begun(shared, listener.clone()) } else { listener.clone() };
            let hear = flight.hearing(shared, &link, parcel, hear, round);
            link.await_again(id, &dispatch.caller, hear);
        }
        if let Some((wanted, _)) = open {
            flight.ask_again(shared, &link, parcel, listener, wanted);
        }
        Again::Awaited(flight)
    }

    /// Everybody who may be owed an answer has said so.
    pub(super) fn settled(&self) {
        lock(&self.debtors).clear();
        lock(&self.conversations).clear();
    }
}

/// What was agreed with a server that is still the one that the configuration means, and whose it is.
fn agreed(shared: &Shared, kept: &Kept) -> Option<(Sharer, Agreed)> {
    let about = &kept.about;
    let sharer = sharer_of(shared.config().share, &about.sharer)?;
    if shared.recipe(&sharer)?.fingerprint != about.fingerprint {
        return None;
    }
    // One that was not spoken to to the end of its beginning has done nothing yet.
    Some((sharer, serde_json::from_value(about.note.clone()?).ok()?))
}

/// Who has this name, as servers are shared now.
fn sharer_of(share: Share, name: &str) -> Option<Sharer> {
    match (share, name.split_once(':')) {
        (Share::All, None) => Some(Sharer::All),
        (Share::Session, Some((CHANNEL, channel))) => Some(Sharer::Channel(channel.into())),
        (Share::Principal, Some((PRINCIPAL, principal))) => Some(Sharer::Principal(principal.into())),
        _ => None,
    }
}

const CHANNEL: &str = "channel";
const PRINCIPAL: &str = "principal";

/// How a sharer is named to the keeper.
pub(super) fn name(sharer: &Sharer) -> String {
    match sharer {
        Sharer::All => String::new(),
        Sharer::Channel(channel) => format!("{CHANNEL}:{channel}"),
        Sharer::Principal(principal) => format!("{PRINCIPAL}:{principal}"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// By server, as it is named in the configuration.
pub(super) fn by_server(kept: Vec<Kept>) -> HashMap<String, Vec<Kept>> {
    let mut by_server: HashMap<String, Vec<Kept>> = HashMap::new();
    for kept in kept {
        by_server.entry(kept.about.server.clone()).or_default().push(kept);
    }
    by_server
}

/// Ends servers that the configuration no longer has.
pub(super) fn dismiss(kept: impl Iterator<Item = Kept>) {
    for kept in kept {
        tracing::info!(target: "upstream", server = kept.about.server, "a server that is not configured any more ends");
        tokio::spawn(kept.hold.dismiss(kept.ends));
    }
}
