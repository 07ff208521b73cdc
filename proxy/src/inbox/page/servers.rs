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
    card::since,
    changed, json,
    session::Session,
    shell::{self, Counts, Frame, Here, Watch},
    text::{counted, shown, shown_lines, warning_badge},
    waiting::unavailable,
};
use crate::{
    driver::now,
    inbox::{
        Inbox,
        api::blocking,
        desk::{Desk, ServerHealth},
        register::{self, Trust},
        reloading,
    },
    notify::SinkHealth,
    reload::Fault,
    upstream::Tool,
};

/// A list of more tools is folded, so that the next server is not pages away.
const FOLDED_FROM: usize = 20;

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
    let mut servers = inbox.desk.servers();
    // What needs somebody comes first; the rest stays as it is configured.
    servers.sort_by_key(|server| !matches!(server.state.as_str(), "down" | "hung"));
    let waiting = register::listed(&inbox.desk).into_iter().filter(|view| view.state == Trust::Changed);
    let waiting: Vec<_> = waiting.collect();
    let body = html! {
        div.title {
            h1 { "Servers and tools" }
            p.meta { "policy " code { (shown(inbox.policy.version())) } }
        }
        (faults(&reloading::faults(&inbox)))
        @for view in &waiting { (changed::card(view, &session)) }
        @if servers.is_empty() {
            div.empty { p.big { "No servers are configured." } }
        }
        (notifications(&inbox.notifications.all(), now()))
        @for server in &servers {
            (card(server, inbox.desk.tools(&server.name).as_deref(), &inbox.policy, now()))
        }
    };
    shell::page(&frame, &body).into_response()
}

/// What is wrong with the files of the configuration; nothing where they are in force.
pub(super) fn faults(faults: &[Fault]) -> Markup {
    html! {
        @if !faults.is_empty() {
            section.card.changed data-key="configuration" {
                h2 { "The configuration was not taken" }
                p { "Its files have changed, but they have errors: the earlier configuration stays in force." }
                pre { @for fault in faults { (shown(&fault.to_string())) "\n" } }
            }
        }
    }
}

/// Who is told when somebody is needed; nothing where nobody is configured.
fn notifications(sinks: &[SinkHealth], now: Millis) -> Markup {
    html! {
        @if !sinks.is_empty() {
            section.card data-key="notifications" {
                header { div.what { h2 { "Notifications" } } }
                @for sink in sinks {
                    dl.known {
                        dt { (shown(&sink.name)) " (" (sink.kind) ")" }
                        dd {
                            code { (shown(&sink.target)) } ", " (sink.state)
                            @if sink.behind > 0 { ", " (sink.behind) " to be told" }
                            @if sink.given_up > 0 { ", " (sink.given_up) " given up" }
                            @match sink.last_success {
                                Some(at) => { ", last told " (since(at, now)) }
                                None => { ", nothing told since the start" }
                            }
                        }
                        @if let (Some(error), Some(at)) = (&sink.last_error, sink.last_failure) {
                            dt { "Last error" } dd { (shown(error)) ", " (since(at, now)) }
                        }
                    }
                }
            }
        }
    }
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
                    @if let Some(error) = &server.last_error { dt { "Last error" } dd { (shown_lines(error)) } }
                }
            }
            @if server.oauth.as_deref() == Some("needed") {
                p.note { "Somebody has to sign in to it: " code { "holdfast login " (shown(&server.name)) } }
            }
            @if !server.stderr.is_empty() {
                details data-key={ "stderr-" (server.name) } {
                    summary { "Its last " (counted(server.stderr.len(), "line")) " on stderr" }
                    pre { @for line in &server.stderr { (shown(line)) "\n" } }
                }
            }
            @match tools {
                None => { p.note { "Its tools are not known yet: it has not listed them." } }
                Some(tools) => {
                    details data-key={ "tools-" (server.name) } open[tools.len() <= FOLDED_FROM] {
                        summary { (counted(tools.len(), "tool")) }
                        ul.tools {
                            @for tool in tools { (line(&server.name, tool, policy)) }
                        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_sinks_are() {
        let seen = |sinks: &[SinkHealth]| notifications(sinks, Millis(60_000)).into_string();
        assert_eq!(seen(&[]), "");
        let sink = SinkHealth {
            name: "ops".into(),
            kind: "webhook".into(),
            target: "https://h.example".into(),
            state: "retrying".into(),
            last_success: None,
            last_failure: Some(Millis(30_000)),
            last_error: Some("it answered HTTP 500: <script>\u{202e}".into()),
            given_up: 0,
            behind: 3,
        };
        let page = seen(std::slice::from_ref(&sink));
        assert!(page.contains("3 to be told") && page.contains("nothing told since the start"), "{page}");
        assert!(page.contains("&lt;script&gt;") && !page.contains('\u{202e}'), "{page}");
        let well = SinkHealth { last_success: Some(Millis(59_000)), last_error: None, behind: 0, ..sink };
        assert!(seen(&[well]).contains("last told "));
    }
}
