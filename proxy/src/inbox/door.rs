//! The operators' side of their listener: every request goes to the router, with the address of who sent it.

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
};

use axum::{Router, body::Body, extract::ConnectInfo};
use hyper::{Request, Response, body::Incoming, service::Service};
use hyper_util::service::TowerToHyperService;

use super::{Inbox, desk::Desk, router};
use crate::front::{Link, Patient, Reception};

/// What stands behind the listener for operators.
pub(crate) struct Door(RwLock<TowerToHyperService<Router>>);

/// The way into `inbox`.
pub(crate) fn door<D: Desk>(inbox: Inbox<D>) -> Door {
    Door(RwLock::new(TowerToHyperService::new(router(inbox))))
}

impl Door {
    /// From now on it leads into `inbox`. Requests that are in go on where they are.
    pub(crate) fn lead_to<D: Desk>(&self, inbox: Inbox<D>) {
        let way = TowerToHyperService::new(router(inbox));
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = way;
    }
}

impl Reception for Door {
    /// A few people and their programs; each of their pages holds one for its events.
    const CONNECTIONS: usize = 1_024;
    type Body = Body;

    async fn answer(self: Arc<Self>, link: Arc<Link>, request: Request<Incoming>) -> Response<Body> {
        let mut request = request.map(|body| Body::new(Patient::new(body)));
        request.extensions_mut().insert(ConnectInfo::<SocketAddr>(link.peer));
        let way = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Ok(response) = way.call(request).await;
        response
    }
}
