//! What each rule alone cannot see: rules that can never matter, and settings that need each other.

use super::warning;
use crate::condition::{Condition, Test};
use crate::rule::{Defaults, Effect, Mode, Repeat, Rule};
use crate::source::{Problem, Section, Severity};

/// `repeat = "keyed"` without an upstream key, and rules that do not mean what they seem to.
pub(super) fn settings(defaults: &Defaults, rules: &[Rule], root: &Section<'_>) {
    if defaults.plan.repeat == Repeat::Keyed {
        root.warn(
            "defaults",
            "the default `repeat` is \"keyed\"",
            "it counts as \"never\" wherever no matching rule names `idempotency.upstream`",
        );
    }
    let problems = rules.iter().flat_map(|rule| {
        [keyed(rule, rules), idle_shadow(rule), wide_open(rule)]
            .into_iter()
            .flatten()
            .chain(rule.when.iter().filter_map(|condition| loose(rule, condition)))
    });
    problems.for_each(|problem| root.record(problem));
}

/// Rules whose effect can never decide, and rules that say the same thing twice.
pub(super) fn reachable(rules: &[Rule], root: &Section<'_>) {
    for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.mode == Mode::Enforce) {
        let others = || {
            let others = rules.iter().enumerate().filter(move |(other, _)| *other != index);
            others.map(|(at, other)| (at < index, other)).filter(|(_, other)| other.mode == Mode::Enforce)
        };
        let hidden = others().find(|(_, other)| hides(other, rule));
        let doubled = others().find(|(earlier, other)| *earlier && same_meaning(other, rule));
        let id = &rule.id;
        if let Some((_, other)) = hidden {
            let effect = other.effect.map_or("decides", |effect| match effect {
                Effect::Deny => "denies",
                Effect::Ask => "asks for",
                Effect::Allow => "allows",
            });
            root.record(warning(
                &rule.places.rule,
                format!("rule `{id}` never decides: rule `{}` {effect} every call that it matches", other.id),
                "the strictest rule wins whatever the order; narrow the other rule, or delete this one",
            ));
        } else if let Some((_, other)) = doubled {
            let message = format!("rule `{id}` says what rule `{}` says already", other.id);
            root.record(warning(&rule.places.rule, message, "delete one of the two"));
        }
    }
}

/// Globs that match no known server or tool.
pub(super) fn unmatched(rules: &[Rule], known: &[(String, Option<String>)]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for rule in rules {
        let mut servers = known.iter().filter(|(server, _)| rule.server.matches(server)).peekable();
        if servers.peek().is_none() {
            let message = format!("rule `{}` is about no known server", rule.id);
            problems.push(warning(
                &rule.places.server,
                message,
                &list("servers", known.iter().map(|k| Some(k.0.as_str()))),
            ));
            continue;
        }
        // A server without listed tools may have any.
        let tools: Vec<Option<&str>> = servers.map(|(_, tool)| tool.as_deref()).collect();
        let unlisted = tools.iter().any(Option::is_none);
        if !unlisted && !tools.iter().flatten().any(|tool| rule.tool.matches(tool)) {
            let message = format!("rule `{}` is about no known tool", rule.id);
            problems.push(warning(&rule.places.tool, message, &list("tools", tools.into_iter())));
        }
    }
    problems
}

fn list<'a>(what: &str, names: impl Iterator<Item = Option<&'a str>>) -> String {
    const LONGEST: usize = 12;
    let mut names: Vec<&str> = names.flatten().collect();
    names.sort_unstable();
    names.dedup();
    let more = if names.len() > LONGEST { ", ..." } else { "" };
    names.truncate(LONGEST);
    format!("known {what}: {}{more}", names.join(", "))
}

/// Keyed is only honest if the upstream deduplicates by a key that we send. The key may come from another
/// rule, if that one matches whenever this one does.
fn keyed(rule: &Rule, rules: &[Rule]) -> Option<Problem> {
    let names_upstream =
        |rule: &Rule| rule.settings.idempotency.as_ref().is_some_and(|keys| keys.upstream.is_some());
    let elsewhere = || {
        let enforced = rules.iter().filter(|other| other.mode == Mode::Enforce && other.when.is_empty());
        enforced.filter(|other| covers(other, rule)).any(names_upstream)
    };
    if rule.settings.repeat != Some(Repeat::Keyed) || names_upstream(rule) || elsewhere() {
        return None;
    }
    Some(rule.places.rule.problem(
        Severity::Error,
        format!("rule `{}` says repeat = \"keyed\" without telling the upstream a key", rule.id),
        "add [rule.idempotency] upstream = \"arg:/idempotency_key\" (or meta:, header:) if the upstream deduplicates by it; else repeat = \"never\"",
    ))
}

fn idle_shadow(rule: &Rule) -> Option<Problem> {
    let idle = rule.mode == Mode::Shadow && rule.effect.is_none();
    idle.then(|| {
        let message = format!("shadow rule `{}` has no effect to record", rule.id);
        warning(&rule.places.rule, message, "a shadow rule sets nothing; give it an effect, or delete it")
    })
}

fn wide_open(rule: &Rule) -> Option<Problem> {
    let unsaid = rule.places.server == rule.places.rule && rule.places.tool == rule.places.rule;
    let open =
        unsaid && rule.when.is_empty() && rule.effect == Some(Effect::Allow) && rule.mode == Mode::Enforce;
    open.then(|| {
        let message = format!("rule `{}` allows every tool of every server", rule.id);
        warning(&rule.places.rule, message, "if that is meant, say so: server = \"*\", tool = \"*\"")
    })
}

/// Conditions of `allow` rules that let through more than they look like.
fn loose(rule: &Rule, condition: &Condition) -> Option<Problem> {
    if rule.effect != Some(Effect::Allow) {
        return None;
    }
    let (what, hint) = match &condition.test {
        Test::Prefix(text) if text.starts_with('/') => {
            ("compares text, so `/ok/../etc` passes `prefix`", "use op = \"under\" for paths")
        }
        Test::Glob(glob) if glob.as_str().starts_with('/') && glob.as_str().contains('*') => {
            ("compares text, so `/ok/../etc` passes `glob`", "use op = \"under\" for paths")
        }
        Test::Regex(pattern)
            if !["^", "$", r"\A", r"\z"].iter().any(|anchor| pattern.as_str().contains(anchor)) =>
        {
            ("finds its pattern anywhere in the text", "anchor it: '^...$'")
        }
        _ => return None,
    };
    let message = format!("the condition on {} in allow rule `{}` {what}", condition.arg, rule.id);
    Some(warning(&rule.places.rule, message, hint))
}

/// Whether `other` decides, more strictly, over everything that `rule` could decide over.
fn hides(other: &Rule, rule: &Rule) -> bool {
    other.when.is_empty() && other.effect > rule.effect && matters(other, rule) && covers(other, rule)
}

/// Under a deny nothing of a rule matters; under an ask its settings still do.
fn matters(other: &Rule, rule: &Rule) -> bool {
    other.effect == Some(Effect::Deny) || (rule.effect.is_some() && other.effect == Some(Effect::Ask))
}

fn covers(other: &Rule, rule: &Rule) -> bool {
    other.server.covers(&rule.server) && other.tool.covers(&rule.tool)
}

fn same_meaning(other: &Rule, rule: &Rule) -> bool {
    let words = |rule: &Rule| {
        let mut rule = rule.clone();
        rule.id = crate::rule::RuleId::defaults();
        rule.gate = rule.gate.map(|gate| crate::gate::Gate { rule: rule.id.clone(), ..gate });
        serde_json::to_value(&rule).ok()
    };
    other.server == rule.server && other.tool == rule.tool && words(other) == words(rule)
}
