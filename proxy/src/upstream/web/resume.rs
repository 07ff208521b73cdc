//! What the next life is told of a conversation by HTTP, and how it goes on with one.

use std::sync::Arc;

use reqwest::header::HeaderValue;

use super::{
    Web,
    stream::{End, Place},
};
use crate::upstream::{
    Sharer, Speaks,
    era::Era,
    id::RequestId,
    kept,
    link::Offer,
    threads::{Number, Session},
};

impl Web {
    /// Notes what is agreed, once, where there is anything that the next life could go on with.
    pub(in crate::upstream) fn note(&self, era: &Era, offer: &Offer, sharer: &Sharer, speaks: Speaks) {
        // In the modern era a broken stream is the end of its request, and the old transport has none to ask for again.
        if !matches!(era, Era::Legacy(_)) || self.is_old() {
            return;
        }
        let id = self.session.get().map(|id| id.to_str().map(str::to_owned));
        let Ok(id) = id.transpose() else { return };
        let session = || Session {
            server: self.address.server.to_string(),
            identity: self.address.identity.to_string(),
            sharer: kept::name(sharer),
            speaks,
            id,
            era: era.clone(),
            offer: offer.clone(),
        };
        self.number.get_or_init(|| self.threads.begun(session()));
    }

    /// Goes on with a conversation of an earlier life. False where that cannot be.
    pub(in crate::upstream) fn resume(&self, number: Number, session: &Session) -> bool {
        let id = session.id.as_deref().map(HeaderValue::try_from).transpose();
        let Ok(id) = id else { return false };
        if let Some(id) = id {
            let _ = self.session.set(id);
        }
        self.agreed(&session.era);
        self.number.set(number).is_ok()
    }

    /// Asks for the answer to a request of an earlier life, which is registered with the peer, from what comes after this
    /// event on.
    pub(in crate::upstream) fn take_up(self: &Arc<Self>, id: RequestId, event: &str, era: Era) {
        let place = Place::after(event);
        let web = self.clone();
        self.run(id, async move {
            let end = End::Broken("Holdfast was restarted".to_owned());
            web.follow_on(id, place, end, &era).await;
        });
    }

    /// Of the answer to this request everything up to this event was dealt with.
    pub(super) fn note_place(&self, id: RequestId, event: &HeaderValue) {
        if let (Some(number), Ok(event)) = (self.number.get(), event.to_str()) {
            self.threads.at(id, *number, event);
        }
    }

    /// Nothing more comes of this request.
    pub(super) fn note_done(&self, id: RequestId) {
        if self.number.get().is_some() {
            self.threads.done(id);
        }
    }

    /// Whether this life ends while calls are under way that the next one can ask for.
    pub(super) fn is_left_to_the_next(&self) -> bool {
        self.threads.is_leaving() && self.number.get().is_some() && self.peer.insisted() > 0
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        if let Some(number) = self.number.get()
            && !self.threads.is_leaving()
        {
            self.threads.over(*number);
        }
    }
}
