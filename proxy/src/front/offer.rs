//! `elicitation/create` to a client of 2025-11-25: sending its user to the page of a held call, and what it says to that.
//!
//! Only in URL mode, and only where the client declared it. Nothing that comes back is a decision: it says whether the
//! page is opened, and so whether waiting any longer has a point.

use std::sync::Arc;

use holdfast_store::Call;
use serde_json::json;
use tokio::sync::oneshot;

use super::{asks::Asks, retry::Visit, surface};
use crate::{upstream::Said, wire};

/// An offer that can be answered until this is dropped.
#[derive(Debug)]
pub(super) struct Offer {
    asks: Arc<Asks>,
    id: String,
    said: oneshot::Receiver<Visit>,
}

impl Offer {
    /// Makes an offer to the client of `channel`.
    pub(super) fn make(asks: &Arc<Asks>, channel: &str) -> Self {
        let (tell, said) = oneshot::channel();
        // Nobody waits any more where telling fails.
        let id = asks.make(
            channel,
            Box::new(move |said| {
                let _ = tell.send(read(&said));
            }),
        );
        Self { asks: asks.clone(), id, said }
    }

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
        self.asks.drop_one(&self.id);
    }
}

/// The notification that the page has served its purpose.
pub(super) fn complete(call: holdfast_store::CallId) -> String {
    let params = json!({ "elicitationId": call }).to_string();
    wire::notification("notifications/elicitation/complete", &params)
}

/// What a client says to our request.
fn read(said: &Said) -> Visit {
    match said {
        Said::Result(result) => super::retry::visit(&result.value()),
        Said::Error(_) => Visit::Declined,
    }
}

#[cfg(test)]
mod tests {
    use holdfast_store::Text;
    use serde_json::Value;

    use super::*;

    #[test]
    fn an_offer_is_answered_while_it_stands() {
        let asks = Arc::new(Asks::default());
        let mut offer = Offer::make(&asks, "session:a");
        let id = Value::from(offer.id.clone()).to_string();
        assert!(offer.said.try_recv().is_err());
        asks.answered("session:a", &id, Said::Result(Text::of(&json!({ "action": "accept" }))));
        assert_eq!(offer.said.try_recv(), Ok(Visit::Agreed));
        let id = Offer::make(&asks, "session:a").id.clone();
        assert!(!asks.drop_one(&id));
    }

    #[test]
    fn an_error_is_a_no() {
        let result = |action: &str| Said::Result(Text::of(&json!({ "action": action })));
        assert_eq!(read(&Said::Error(Text::of(&1))), Visit::Declined);
        assert_eq!(read(&result("accept")), Visit::Agreed);
        assert_eq!(read(&result("decline")), Visit::Declined);
    }
}
