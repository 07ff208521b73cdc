//! The forms by which a person answers a held call, each with the digest of what is shown beside it.

use holdfast_store::State;
use maud::{Markup, html};

use super::{
    card::Known,
    json,
    remembered::{self, When},
    session::Session,
    shell::csrf,
};
use crate::{
    config::Role,
    inbox::{ids::short, view::HoldDetail, visible::visible},
};

/// The hidden fields of every decision.
fn hidden(hold: &HoldDetail, session: &Session, back: &str) -> Markup {
    html! {
        (csrf(session))
        input type="hidden" name="digest" value=(hold.digest);
        input type="hidden" name="back" value=(back);
    }
}

/// Approve and reject, on exactly what is shown.
pub(super) fn decide(known: &Known, hold: &HoldDetail, session: &Session, back: &str) -> Markup {
    let id = known.id();
    let name = format!("{} {}", visible(&known.summary.tool), short(id));
    html! {
        div.decide {
            @if !hold.votes.iter().any(|vote| vote.by.name == session.by.name) {
                form.approve method="post" action={ "/calls/" (id) "/approve" } {
                    (hidden(hold, session, back))
                    button.primary type="submit" aria-label={ "Approve " (name) } { "Approve" }
                }
            }
            details.reject data-key="reject" {
                summary aria-label={ "Reject " (name) } { "Reject…" }
                form method="post" action={ "/calls/" (id) "/reject" } {
                    (hidden(hold, session, back))
                    label for={ "why-" (id) } { "Why? The agent is told." }
                    div.row {
                        input id={ "why-" (id) } name="reason" autocomplete="off" maxlength="2000";
                        button.danger type="submit" { "Reject" }
                    }
                }
            }
            span.digest title="The digest that you decide on" { (hold.digest.to_string()[..12]) }
        }
    }
}

/// The other answers, on the call's own page: other arguments, an answer by hand, past the gates.
pub(super) fn otherwise(known: &Known, hold: &HoldDetail, session: &Session) -> Markup {
    let id = known.id();
    let back = format!("/calls/{id}");
    html! {
        div.settle {
            (remembered::form(known, hold.digest, session, When::Approving))
            details data-key="edit" {
                summary { "Change the arguments…" }
                form method="post" action={ "/calls/" (id) "/edit" } {
                    (hidden(hold, session, &back))
                    p { "It is asked again with these, as a new revision: earlier approvals do not count for it." }
                    label for="new-arguments" { "Arguments, a JSON object" }
                    textarea #new-arguments name="arguments" rows="8" spellcheck="false" required {
                        "\n" (json::editable(known.arguments().unwrap_or_default()))
                    }
                    button type="submit" { "Ask again with these" }
                }
            }
            details data-key="respond" {
                summary { "Answer it yourself…" }
                form method="post" action={ "/calls/" (id) "/respond" } {
                    (hidden(hold, session, &back))
                    p { "The agent gets this as the tool’s answer. Nothing is sent." }
                    label for="own-answer" { "The answer: words, or JSON as the tool would have given it" }
                    textarea #own-answer name="answer" rows="3" spellcheck="false" required {}
                    button type="submit" { "Answer" }
                }
            }
            @if session.break_glass {
                details data-key="glass" {
                    summary { "Break the glass…" }
                    form method="post" action={ "/calls/" (id) "/break-glass" } {
                        (hidden(hold, session, &back))
                        p { "Approves it past all gates. The record says so, and it will be reviewed." }
                        label for="glass-reason" { "Why?" }
                        input #glass-reason name="reason" required maxlength="2000" autocomplete="off";
                        button.danger type="submit" { "Approve past all gates" }
                    }
                }
            }
        }
    }
}

/// Second thoughts, as long as nothing was sent.
pub(super) fn revoke(known: &Known, hold: &HoldDetail, session: &Session) -> Markup {
    let id = known.id();
    let open = matches!(known.summary.state, State::Asking | State::Approved);
    html! {
        @if open && !hold.votes.is_empty() && session.role >= Role::Approver {
            div.further { details data-key="revoke" {
                summary { "Take the approval back…" }
                form method="post" action={ "/calls/" (id) "/revoke" } {
                    (csrf(session))
                    p { "Your own approval; where you gave none, all of them. Nothing is sent until it is approved again." }
                    label for="revoke-reason" { "Why?" }
                    input #revoke-reason name="reason" maxlength="2000" autocomplete="off";
                    button.danger type="submit" { "Take it back" }
                }
            } }
        }
    }
}
