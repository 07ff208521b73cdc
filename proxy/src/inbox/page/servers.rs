//! *Servers and tools*: how each server is, what it offers, and what the policy does with each tool.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use holdfast_policy::{Effect, Mode, Policy, Rule};
use holdfast_store::Millis;
use maud::{Markup, html};
use serde::Deserialize;

use super::{
    card::{since, tool_name},
    decide::{lacks, told, words},
    json,
    posted::Fields,
    session::{Session, Tone},
    shell::{self, Counts, Frame, Here, Watch, csrf},
    text::{counted, shown, warning_badge},
    waiting::unavailable,
};
use crate::{
    config::Role,
    driver::{DecideError, now},
    inbox::{
        Inbox,
        api::blocking,
        desk::{Desk, ServerHealth},
        register::{self, Sign, ToolView, Trust},
        visible::visible,
    },
    upstream::Tool,
};

/// Query of `GET /servers`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    /// What to say about what was just done.
    flash: String,
}

/// `GET /servers`
pub(super) async fn show<D: Desk>(
    State(inbox): State<Arc<Inbox<D>>>,
    Extension(session): Extension<Session>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let journal = inbox.desk.journal();
    let counts = match blocking(move || Counts::read(&*journal)).await {
        Ok(counts) => counts,
        Err(error) => return unavailable(&error),
    };
    let frame = Frame {
        session: &session,
        here: Here::Servers,
        title: "Servers",
        counts,
        flash: inbox.page.sessions.flash(&session, &wanted.flash),
        watch: Watch::Everything,
    };
    let servers = inbox.desk.servers();
    let changed = register::listed(&inbox.desk).into_iter().filter(|view| view.state == Trust::Changed);
    let changed: Vec<_> = changed.collect();
    let body = html! {
        div.title {
            h1 { "Servers and tools" }
            p.meta { "policy " code { (shown(inbox.policy.version())) } }
        }
        @for view in &changed { (waits(view, &session)) }
        @if servers.is_empty() {
            div.empty { p.big { "No servers are configured." } }
        }
        @for server in &servers {
            (card(server, inbox.desk.tools(&server.name).as_deref(), &inbox.policy, now()))
        }
    };
    shell::page(&frame, &body).into_response()
}

/// A tool that is not what it was when it was trusted, with what is different.
fn waits(view: &ToolView, session: &Session) -> Markup {
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

fn card(server: &ServerHealth, tools: Option<&Vec<Tool>>, policy: &Policy, now: Millis) -> Markup {
    html! {
        section.card data-key={ "server-" (server.name) } {
            header {
                div.what {
                    h2 { span class={ "state h-" (server.state) } { (shown(&server.state)) } " " (shown(&server.name)) }
                    p.meta { code { (shown(&server.identity)) } }
                }
                p.deadline.dim { "changed " (since(Millis(server.since), now)) }
            }
            @if server.restarts > 0 || server.last_error.is_some() {
                dl.known {
                    @if server.restarts > 0 {
                        dt { "Started again" } dd { (counted(usize::try_from(server.restarts).unwrap_or(usize::MAX), "time")) }
                    }
                    @if let Some(error) = &server.last_error { dt { "Last error" } dd { (shown(error)) } }
                }
            }
            @match tools {
                None => { p.note { "Its tools are not known yet: it has not listed them." } }
                Some(tools) => {
                    ul.tools {
                        @for tool in tools { (line(&server.name, tool, policy)) }
                    }
                }
            }
        }
    }
}

fn line(server: &str, tool: &Tool, policy: &Policy) -> Markup {
    let rules: Vec<&Rule> = policy
        .rules()
        .iter()
        .filter(|rule| rule.server.matches(server) && rule.tool.matches(&tool.name))
        .collect();
    let description = tool.definition["description"].as_str().unwrap_or_default();
    let definition = tool.definition.to_string();
    html! {
        li {
            details data-key={ "tool-" (tool.name) } {
                summary {
                    strong { (shown(&tool.name)) }
                    span.effects { @for effect in effects(&rules, policy) { span class={ "effect f-" (effect) } { (effect) } } }
                    span.dim.description { (shown(description.lines().next().unwrap_or_default())) }
                }
                (warning_badge([tool.name.as_str(), definition.as_str()]))
                (what_holds(&rules, policy))
                (json::block(&definition, "Definition"))
                p.dim.hash { "definition " code { (tool.hash) } }
            }
        }
    }
}

/// What can become of a call of the tool, by its arguments; the mildest first.
fn effects(rules: &[&Rule], policy: &Policy) -> Vec<&'static str> {
    let enforced = || rules.iter().filter(|rule| rule.mode == Mode::Enforce);
    let certain = enforced().filter(|rule| rule.when.is_empty()).filter_map(|rule| rule.effect).max();
    let floor = certain.unwrap_or(policy.defaults().effect);
    let mut all: Vec<Effect> =
        enforced().filter(|rule| !rule.when.is_empty()).filter_map(|rule| rule.effect).collect();
    // A condition can only make stricter what holds anyway; over the defaults it can also be milder.
    all.retain(|effect| certain.is_none_or(|certain| *effect > certain));
    all.push(floor);
    all.sort_unstable();
    all.dedup();
    all.into_iter().map(word).collect()
}

fn word(effect: Effect) -> &'static str {
    match effect {
        Effect::Allow => "allow",
        Effect::Ask => "ask",
        Effect::Deny => "deny",
    }
}

fn what_holds(rules: &[&Rule], policy: &Policy) -> Markup {
    let decides = |rule: &&&Rule| rule.effect.is_some() && rule.mode == Mode::Enforce && rule.when.is_empty();
    html! {
        ul.rules {
            @for rule in rules {
                li {
                    @if let Some(effect) = rule.effect { span class={ "effect f-" (word(effect)) } { (word(effect)) } " " }
                    "rule " strong { (shown(rule.id.as_str())) }
                    @if rule.mode == Mode::Shadow { " (only recorded)" }
                    @for (n, condition) in rule.when.iter().enumerate() {
                        @if n == 0 { " when " } @else { " and " }
                        code { (shown(&condition.to_string())) }
                    }
                    @if let Some(repeat) = rule.settings.repeat { ", repeat " (repeat.to_string()) }
                    @if let Some(gate) = &rule.gate {
                        @if gate.quorum > 1 { ", by " (gate.quorum) " people" }
                        @for approver in &gate.approvers { ", " (shown(&approver.to_string())) }
                    }
                }
            }
            @if !rules.iter().any(|rule| decides(&rule)) {
                @let effect = word(policy.defaults().effect);
                li { span class={ "effect f-" (effect) } { (effect) } " where no rule says otherwise" }
            }
        }
    }
}
