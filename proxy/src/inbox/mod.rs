//! Where a person answers: a page and a JSON API for operators, on a listener of their own.
//!
//! Decisions need an operator's session or token; agents' tokens never decide. A GET never changes anything.

mod access;
pub(crate) mod api;
mod body;
mod deception;
mod decisions;
pub(crate) mod desk;
mod door;
mod events;
mod failure;
pub(crate) mod ids;
mod live;
mod openapi;
mod page;
mod proxied;
mod ready;
pub(crate) mod register;
mod reloading;
mod reviews;
mod routes;
mod sign_in;
mod strict;
pub(crate) mod view;
pub(crate) mod visible;

use std::sync::Arc;

use axum::{Router, middleware};
use holdfast_policy::Policy;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Agent, Operator, Role},
    front::Guard,
    notify::Board,
    reload::Reloads,
};

use self::desk::Desk;
pub(crate) use self::{
    door::{Door, door},
    page::Page,
    ready::Readiness,
};

/// Everything that the listener for operators needs.
pub(crate) struct Inbox<D> {
    /// Who carries decisions out.
    pub(crate) desk: D,
    /// Who may look and decide; see [`operators`].
    pub(crate) operators: Vec<Operator>,
    /// Known only so that their tokens can be told why they are refused.
    pub(crate) agents: Vec<Agent>,
    /// How deep arguments may nest.
    pub(crate) max_depth: usize,
    /// The checks of `Host` and `Origin`.
    pub(crate) guard: Guard,
    /// What is not ready yet, or any more.
    pub(crate) readiness: Arc<Readiness>,
    /// For the page to say what becomes of each tool's calls.
    pub(crate) policy: Arc<Policy>,
    /// How those are who are notified.
    pub(crate) notifications: Arc<Board>,
    /// Where people open it, without the last slash.
    pub(crate) base: String,
    /// Who reads the configuration anew.
    pub(crate) reloads: Arc<Reloads>,
    /// Cancelled when another configuration takes this one's place, with everything that goes on and on.
    pub(crate) over: CancellationToken,
    /// What the page keeps: who is signed in, above all.
    pub(crate) page: Arc<Page>,
}

/// The configured operators; without any, one called `local` who shows the token that was made at the first start.
pub(crate) fn operators(configured: &[Operator], made: Option<&str>) -> Vec<Operator> {
    match made {
        Some(token) if configured.is_empty() => vec![Operator {
            name: "local".to_owned(),
            token_sha256: Some(access::hash(token)),
            groups: Vec::new(),
            role: Role::Admin,
            break_glass: false,
        }],
        _ => configured.to_vec(),
    }
}

/// The routes of the listener.
fn router<D: Desk>(inbox: Inbox<D>) -> Router {
    let inbox = Arc::new(inbox);
    routes::router(&inbox)
        .merge(page::routes(&inbox))
        .fallback(api::nothing_here)
        .layer(middleware::from_fn_with_state(inbox.clone(), access::guard::<D>))
        .with_state(inbox)
}

#[cfg(test)]
mod tests;
