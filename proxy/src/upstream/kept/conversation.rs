//! Conversations by HTTP that an earlier life began: used again where their sessions still exist, and ended otherwise.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Again, Estate, lock, sharer_of};
use crate::upstream::{
    Flight, Sharer, Speaks, Wanted,
    id::RequestId,
    link::Link,
    peer::Listener,
    relay::Parcel,
    shared::Shared,
    threads::{Number, Session},
};

impl Estate {
    /// Takes over what an earlier life had agreed with this server. Returns whose it is.
    pub(super) fn take_over_sessions(
        &self,
        shared: &Shared,
        ready: &CancellationToken,
    ) -> Vec<(Sharer, Speaks)> {
        let mut taken = Vec::new();
        for (number, session) in shared.common.threads.left_with(&shared.name) {
            let Some(link) = resumed(shared, number, &session) else {
                tracing::info!(target: "upstream", server = &*shared.name, "a session with another server of this name is forgotten");
                shared.common.threads.over(number);
                continue;
            };
            lock(&self.conversations).insert(number, link.clone());
            let sharer = sharer_of(shared.config().share, &session.sharer);
            match sharer.map(|sharer| (sharer, session.speaks)).filter(|key| !taken.contains(key)) {
                Some(key) => {
                    shared.remember(key.1, session.offer.opening);
                    lock(&self.running).insert(key.clone(), (link, session.offer));
                    taken.push(key);
                }
                // Nobody uses it any more but those who wait for an answer from it.
                None => {
                    let ready = ready.clone();
                    tokio::spawn(async move {
                        ready.cancelled().await;
                        end_when_idle(link).await;
                    });
                }
            }
        }
        taken
    }

    /// What becomes of an attempt that an earlier life may have sent by HTTP: where it is known from which event on its
    /// answer comes, that is asked for. `wanted` is what the server has asked for last.
    pub(in crate::upstream) fn take_up(
        &self,
        shared: &Arc<Shared>,
        parcel: &Parcel,
        wanted: Option<(&Wanted, bool)>,
        listener: Listener,
    ) -> Again {
        let Parcel::Call(dispatch) = parcel else { return Again::Unknown };
        let Some((call, attempt)) = dispatch.attempt else { return Again::Unknown };
        let id = RequestId::of(call, attempt);
        let Some((number, event)) = shared.common.threads.place(id) else { return Again::Unknown };
        let Some(link) = lock(&self.conversations).get(&number).cloned() else { return Again::Unknown };
        tracing::info!(target: "upstream", server = &*shared.name, %call, "the answer of a call is asked for again");
        link.take_up(id, &dispatch.caller, listener.clone(), &event);
        let flight = Flight::of_earlier_life(link.clone(), id, 0);
        if let Some((wanted, false)) = wanted {
            flight.ask_again(shared, &link, parcel, listener, wanted);
        }
        Again::Awaited(flight)
    }
}

fn resumed(shared: &Shared, number: Number, session: &Session) -> Option<Link> {
    if session.identity != *shared.identity {
        return None;
    }
    let sharer = sharer_of(shared.config().share, &session.sharer).unwrap_or(Sharer::All);
    shared.resume(number, session, &sharer)
}

/// Ends a conversation that nobody uses any more, once nobody waits for an answer from it.
pub(in crate::upstream) async fn end_when_idle(link: Link) {
    while link.peer().calls() > 0 {
        sleep(Duration::from_millis(100)).await;
    }
    link.stop().await;
}
