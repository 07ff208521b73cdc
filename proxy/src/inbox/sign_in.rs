//! Signing in to servers that want OAuth: an admin begins, and the browser comes back.
//!
//! The way back is a GET that changes something, as OAuth has it. It needs no session, since the browser comes from
//! another site; what it needs is the `state` that was given out, which nobody else knows and which works once.

use std::sync::Arc;

use axum::{
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use holdfast_store::Decider;
use maud::html;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Inbox, desk::Desk, failure::Failure, page::plain, register::Act, visible::visible};
use crate::{config::Role, report::Report, upstream::Returned};

/// Where browsers come back to.
pub(super) const CALLBACK: &str = "/oauth/callback";

/// Sign in to a server.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SigningIn {
    /// The server's name.
    server: String,
    /// The authorization server that is accepted, where it is not the one that was signed in at before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
}

/// How it goes on.
#[derive(Serialize, JsonSchema)]
pub(super) struct Begun {
    /// Where to go with a browser that can open the inbox; it works once, within ten minutes.
    url: String,
}

impl Act for SigningIn {
    const PATH: &'static str = "/api/v1/servers/sign-in";
    const NAME: &'static str = "signIn";
    const SUMMARY: &'static str = "Begins to sign in to a server that wants OAuth";
    const ROLE: Role = Role::Admin;
    type Target = ();
    type Given = Begun;

    async fn act<D: Desk>(self, inbox: &Inbox<D>, by: Decider, (): ()) -> Result<Begun, Failure> {
        let redirect = format!("{}{CALLBACK}", inbox.base);
        let url = inbox.desk.begin_sign_in(&self.server, &redirect, self.issuer.as_deref()).await.map_err(
            |why| {
                let message = format!("nobody can sign in to `{}`: {why}", visible(&self.server));
                Failure::new(StatusCode::CONFLICT, Report::new("not-now", message))
            },
        )?;
        tracing::info!(server = self.server, by = by.name, "somebody signs in to a server");
        Ok(Begun { url })
    }
}

/// What the authorization server sends back.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Back {
    state: String,
    code: Option<String>,
    iss: Option<String>,
    error: Option<String>,
}

/// `GET /oauth/callback`
pub(super) async fn callback<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Query(Back { state, code, iss, error }): Query<Back>,
) -> Response {
    let returned = Returned { state, code, iss, error };
    let (status, title, text) = match inbox.desk.end_sign_in(returned).await {
        Ok(server) => {
            (StatusCode::OK, "Signed in", format!("Holdfast is signed in to {}.", visible(&server)))
        }
        Err(why) => {
            (StatusCode::BAD_REQUEST, "Not signed in", format!("Nobody was signed in: {}.", visible(&why)))
        }
    };
    let body = html! {
        h1 { (title) }
        p { (text) }
        p { "This page can be closed." }
    };
    (status, plain(title, &body)).into_response()
}
