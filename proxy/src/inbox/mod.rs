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
pub(crate) mod ids;
mod live;
mod page;
mod ready;
pub(crate) mod register;
pub(crate) mod view;
pub(crate) mod visible;

use std::sync::Arc;

use axum::{
    Router, middleware,
    routing::{get, post},
};
use holdfast_policy::Policy;

use crate::{
    config::{Agent, Operator, Role},
    front::Guard,
    notify::Board,
};

use self::desk::Desk;
pub(crate) use self::{
    door::{Door, door},
    live::head as journal_head,
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
    /// What the page keeps: who is signed in, above all.
    pub(crate) page: Arc<Page>,
}

/// The configured operators; without any, one called `local` who shows the token that was made at the first start.
pub(crate) fn operators(configured: &[Operator], made: Option<&str>) -> Vec<Operator> {
    match made {
        Some(token) if configured.is_empty() => vec![Operator {
            name: "local".to_owned(),
            token_sha256: access::hash(token),
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
    let api = Router::new()
        .route("/calls", get(api::calls::<D>))
        .route("/calls/{id}", get(api::call::<D>))
        .route("/pending", get(api::pending::<D>))
        .route("/verify", get(api::verify::<D>))
        .route("/servers", get(api::servers::<D>))
        .route("/notifications", get(api::notifications::<D>))
        .route("/events", get(events::api::<D>))
        .route("/remembered", get(register::remembered::<D>))
        .route("/remembered/{id}/forget", post(register::forget::<D>))
        .route("/tools", get(register::tools::<D>))
        .route("/tools/accept", post(register::accept::<D>))
        .route("/calls/{id}/remember", post(register::remember::<D>))
        .route("/calls/{id}/approve", post(decisions::approve::<D>))
        .route("/calls/{id}/reject", post(decisions::reject::<D>))
        .route("/calls/{id}/revoke", post(decisions::revoke::<D>))
        .route("/calls/{id}/edit", post(decisions::edit::<D>))
        .route("/calls/{id}/respond", post(decisions::respond::<D>))
        .route("/calls/{id}/resolve", post(decisions::resolve::<D>))
        .route("/calls/{id}/cancel", post(decisions::cancel::<D>))
        .route("/calls/{id}/release", post(decisions::release::<D>))
        .layer(middleware::from_fn_with_state(inbox.clone(), access::authenticate::<D>));
    Router::new()
        .route("/healthz", get(api::healthz))
        .route("/readyz", get(api::readyz::<D>))
        .nest("/api/v1", api)
        .merge(page::routes(&inbox))
        .fallback(api::nothing_here)
        .layer(middleware::from_fn_with_state(inbox.clone(), access::guard::<D>))
        .with_state(inbox)
}

#[cfg(test)]
mod tests;
