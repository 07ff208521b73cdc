//! `elicitation/create` to a client of 2025-11-25: sending its user to the page of a held call, and what it says to that.
//!
//! Only in URL mode, and only where the client declared it. Nothing that comes back is a decision: it says whether the
//! page is opened, and so whether waiting any longer has a point.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use holdfast_store::Call;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{retry::Visit, surface};
use crate::wire;

/// The offers that clients have not answered, by the ids of our requests.
#[derive(Debug, Default)]
pub(super) struct Offers {
    open: Mutex<HashMap<String, Open>>,
}

#[derive(Debug)]
struct Open {
    channel: String,
    said: oneshot::Sender<Visit>,
}

/// An offer that can be answered until this is dropped.
#[derive(Debug)]
pub(super) struct Offer {
    offers: Arc<Offers>,
    id: String,
    said: oneshot::Receiver<Visit>,
}

impl Offers {
    /// Makes an offer to the client of `channel`.
    pub(super) fn make(self: &Arc<Self>, channel: &str) -> Offer {
        // Random, so that an answer to the one before a restart is never taken for one to this.
        let id = format!("holdfast-{}", uuid::Builder::from_random_bytes(rand::random()).into_uuid());
        let (tell, said) = oneshot::channel();
        self.lock().insert(id.clone(), Open { channel: channel.to_owned(), said: tell });
        Offer { offers: self.clone(), id, said }
    }

    /// The client of `channel` has answered the request `id` (a JSON text). What answers no offer of its own is nobody's.
    pub(super) fn answered(&self, channel: &str, id: &str, visit: Visit) {
        let Ok(id) = serde_json::from_str::<String>(id) else { return };
        let mut open = self.lock();
        if open.get(&id).is_some_and(|open| open.channel == channel)
            && let Some(open) = open.remove(&id)
        {
            // Nobody waits any more where this fails.
            open.said.send(visit).ok();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Offer {
    /// The request, as a JSON-RPC message.
    pub(super) fn message(&self, inbox: &str, call: &Call) -> String {
        let mut params = surface::question(inbox, call);
        if let Some(members) = params.as_object_mut() {
            members.insert("elicitationId".into(), call.id.to_string().into());
        }
        json!({ "jsonrpc": "2.0", "id": self.id, "method": surface::ELICIT, "params": params }).to_string()
    }

    /// What the client says; never, where it says nothing. Cancel-safe, and to be asked once.
    pub(super) async fn said(&mut self) -> Visit {
        match (&mut self.said).await {
            Ok(visit) => visit,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.offers.lock().remove(&self.id);
    }
}

/// The notification that the page has served its purpose.
pub(super) fn complete(call: holdfast_store::CallId) -> String {
    let params = json!({ "elicitationId": call }).to_string();
    wire::notification("notifications/elicitation/complete", &params)
}

/// What a client says with the `result` of our request; none stands for an error.
pub(super) fn read(result: Option<&Value>) -> Visit {
    result.map_or(Visit::Declined, super::retry::visit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_answered_by_its_own_client_once() {
        let offers = Arc::new(Offers::default());
        let mut offer = offers.make("session:a");
        let id = Value::from(offer.id.clone()).to_string();
        offers.answered("session:b", &id, Visit::Declined);
        offers.answered("session:a", "7", Visit::Declined);
        offers.answered("session:a", r#""other""#, Visit::Declined);
        assert!(offer.said.try_recv().is_err());
        offers.answered("session:a", &id, Visit::Agreed);
        offers.answered("session:a", &id, Visit::Declined);
        assert_eq!(offer.said.try_recv(), Ok(Visit::Agreed));
        drop(offers.make("session:a"));
        assert!(offers.lock().is_empty());
    }

    #[test]
    fn an_error_is_a_no() {
        assert_eq!(read(None), Visit::Declined);
        assert_eq!(read(Some(&json!({ "action": "accept" }))), Visit::Agreed);
        assert_eq!(read(Some(&json!({ "action": "decline" }))), Visit::Declined);
    }
}
