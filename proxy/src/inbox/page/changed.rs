//! Tools that are not what they were when they were trusted: what is different, and accepting it.

use std::sync::Arc;

use axum::{Extension, extract::State, response::Response};
use maud::{Markup, html};

use super::{
    card::{since, tool_name},
    decide::{lacks, told, words},
    posted::Fields,
    session::{Session, Tone},
    shell::csrf,
    text::{shown, warning_badge},
};
use crate::{
    config::Role,
    driver::{DecideError, now},
    inbox::{
        Inbox,
        desk::Desk,
        register::{self, Sign, ToolView},
        visible::visible,
    },
};

/// A tool that is not what it was when it was trusted, with what is different.
pub(super) fn card(view: &ToolView, session: &Session) -> Markup {
    let (definition, lines) = (&*view.definition, view.difference());
    html! {
        section.card.changed data-key={ "changed-" (view.server) "-" (view.tool) } {
            h2 { (tool_name(&view.server, &view.tool)) " is not what it was" }
            p {
                "Its definition has changed since it was trusted"
                @if let Some(at) = view.since { ", " (since(at, now())) }
                @if let Some(by) = &view.by { ", by " (shown(&by.name)) }
                ". Agents do not see it, and nothing is sent to it, until an admin accepts the change."
            }
            (warning_badge([definition]))
            pre.diff {
                @for (sign, line) in &lines {
                    span class=(class(*sign)) { (sign.mark()) " " (shown(line)) "\n" }
                }
            }
            @if session.role >= Role::Admin {
                form.decide method="post" action="/servers/accept" {
                    (csrf(session))
                    input type="hidden" name="server" value=(view.server);
                    input type="hidden" name="tool" value=(view.tool);
                    input type="hidden" name="definition" value=(view.hash);
                    button.primary type="submit" aria-label={ "Accept " (visible(&view.tool)) " as it is now" } { "Accept it as it is now" }
                }
            }
        }
    }
}

fn class(sign: Sign) -> &'static str {
    match sign {
        Sign::Same => "same",
        Sign::Gone => "minus",
        Sign::New => "plus",
    }
}

/// `POST /servers/accept`
pub(super) async fn accept<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(session): Extension<Session>,
    Extension(fields): Extension<Fields>,
) -> Response {
    if let Some(response) = lacks(&session, Role::Admin) {
        return response;
    }
    let (server, tool) = (fields.get("server"), fields.get("tool"));
    let accepted = match fields.get("definition").parse() {
        Ok(definition) => inbox.desk.trust(server, tool, definition, session.by.clone()).await,
        Err(_) => Err(DecideError::NotFound),
    };
    let (tone, text) = match accepted {
        Ok(()) => (Tone::Good, format!("{} is trusted as it is now.", visible(tool))),
        Err(error) => (Tone::Bad, words(&register::words(error, &format!("tool `{}`", visible(tool))).1)),
    };
    told(&inbox, &session, "/servers", tone, text)
}
