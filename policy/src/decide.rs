//! Rules + call -> verdict.
//!
//! The strictest matching rule wins, whatever the order: adding a rule can only make a verdict stricter.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::condition::Outcome;
use crate::gate::Gate;
use crate::plan::{KeyRule, Plan};
use crate::rule::{Defaults, Effect, Mode, Repeat, Rule, RuleId, Settings};
use crate::source::show_duration;

/// Everything a verdict may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Who calls.
    pub principal: &'a str,
    /// Name of the server in the configuration.
    pub server: &'a str,
    /// Name of the tool as the server knows it.
    pub tool: &'a str,
    /// The arguments, parsed losslessly.
    pub arguments: &'a Value,
    /// What the server says about the tool.
    pub hints: Hints,
    /// Whether that is to be believed.
    pub trust: Trust,
}

/// Tool annotations of the MCP specification; `None` where the server says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// `readOnlyHint`.
    pub read_only: Option<bool>,
    /// `destructiveHint`.
    pub destructive: Option<bool>,
    /// `idempotentHint`.
    pub idempotent: Option<bool>,
}

impl Hints {
    /// Reads the `annotations` member of a tool definition; what has another type counts as not said.
    pub fn of_tool(definition: &Value) -> Hints {
        let hint = |name: &str| definition.get("annotations")?.get(name)?.as_bool();
        Hints {
            read_only: hint("readOnlyHint"),
            destructive: hint("destructiveHint"),
            idempotent: hint("idempotentHint"),
        }
    }
}

/// Whether a server's annotations are believed (`trust_annotations`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// They can only raise caution.
    #[default]
    Nothing,
    /// They count, where no rule says otherwise.
    Annotations,
}

/// A checked policy. Immutable and shared; decisions depend on nothing but it and the question.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(crate) rules: Vec<Rule>,
    pub(crate) defaults: Defaults,
    pub(crate) version: String,
}

/// What the policy says about one call.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision {
    /// What happens.
    pub verdict: Verdict,
    /// Shadow rules that matched, and what they would have wanted.
    pub shadow: Vec<(RuleId, Effect)>,
}

/// What happens to a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is sent.
    Allow(Arc<Plan>),
    /// It is held until every gate is satisfied; there is at least one.
    Ask(Arc<Plan>, Vec<Gate>),
    /// It is refused.
    Deny {
        /// The first deny rule that matched, or [`RuleId::defaults`].
        rule: RuleId,
    },
}

impl Verdict {
    /// The verdict without its details.
    pub fn effect(&self) -> Effect {
        match self {
            Verdict::Allow(_) => Effect::Allow,
            Verdict::Ask(..) => Effect::Ask,
            Verdict::Deny { .. } => Effect::Deny,
        }
    }

    /// Whether this verdict, taken anew at dispatch, asks for more than the gates that were satisfied
    /// already: it denies, or has a gate that none of them covers.
    pub fn asks_more_than(&self, satisfied: &[Gate]) -> bool {
        match self {
            Verdict::Allow(_) => false,
            Verdict::Ask(_, gates) => {
                gates.iter().any(|gate| !satisfied.iter().any(|done| done.covers(gate)))
            }
            Verdict::Deny { .. } => true,
        }
    }
}

/// Whether a rule is about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Applies {
    /// It is not.
    No,
    /// Some condition cannot be told and all others hold. A `deny` or `ask` rule then matches; any other
    /// does not, but a `repeat` that it sets still counts where that is stricter than what holds anyway.
    Doubtful,
    /// It is.
    Yes,
}

impl Policy {
    /// Decides over one call.
    pub fn decide(&self, question: &Question<'_>) -> Decision {
        let Matching { matched, caution, shadow } = self.matching(question);
        let effect = self.effect_of(&matched);
        let verdict = match effect {
            Effect::Deny => {
                let rule = matched.iter().find(|rule| rule.effect == Some(Effect::Deny));
                Verdict::Deny { rule: rule.map_or_else(RuleId::defaults, |rule| rule.id.clone()) }
            }
            Effect::Ask => {
                Verdict::Ask(self.plan(&matched, caution, question, &mut ()).into(), gates(&matched))
            }
            Effect::Allow => Verdict::Allow(self.plan(&matched, caution, question, &mut ()).into()),
        };
        Decision { verdict, shadow }
    }

    /// The rules, in the order of the file.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The `[defaults]`.
    pub fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// A short hash over what the policy means: comments, layout and variables' names do not change it.
    pub fn version(&self) -> &str {
        &self.version
    }

    pub(crate) fn effect_of(&self, matched: &[&Rule]) -> Effect {
        matched.iter().filter_map(|rule| rule.effect).max().unwrap_or(self.defaults.effect)
    }

    pub(crate) fn matching(&self, question: &Question<'_>) -> Matching<'_> {
        let mut matching = Matching { matched: Vec::new(), caution: None, shadow: Vec::new() };
        for rule in &self.rules {
            let applies = rule.applies(question);
            let cautious = rule.effect.is_some_and(|effect| effect > Effect::Allow);
            match (applies, rule.mode) {
                (Applies::No, _) => {}
                (Applies::Doubtful, Mode::Enforce) if !cautious => {
                    matching.caution = matching.caution.max(caution_of(rule.settings.repeat));
                }
                (Applies::Doubtful, Mode::Shadow) if !cautious => {}
                (_, Mode::Enforce) => matching.matched.push(rule),
                (_, Mode::Shadow) => {
                    matching.shadow.extend(rule.effect.map(|effect| (rule.id.clone(), effect)));
                }
            }
        }
        matching
    }

    /// The effective settings. `record` is told where each comes from.
    pub(crate) fn plan(
        &self,
        matched: &[&Rule],
        caution: Option<Repeat>,
        question: &Question<'_>,
        record: &mut impl Record,
    ) -> Plan {
        let mut plan = self.defaults.plan.clone();
        plan.rules = matched.iter().map(|rule| rule.id.clone()).collect();
        let mut pick = Pick { matched, record };
        pick.times(&mut plan);
        pick.retry(&mut plan);
        pick.limits(&mut plan);
        pick.words(&mut plan);
        pick.parts(&mut plan);
        plan.repeat = self.repeat(&plan, matched, caution, question, record);
        plan
    }

    /// The strictest of the matching rules; where none sets it, the default as hints allow it.
    fn repeat(
        &self,
        plan: &Plan,
        matched: &[&Rule],
        caution: Option<Repeat>,
        question: &Question<'_>,
        record: &mut impl Record,
    ) -> Repeat {
        let strictest = matched
            .iter()
            .filter_map(|rule| Some((rule.settings.repeat?, &rule.id)))
            .reduce(|kept, other| if other.0 > kept.0 { other } else { kept });
        let (mut repeat, mut from) = match strictest {
            Some((repeat, rule)) => (repeat, Origin::Rule(rule)),
            None => hinted(self.defaults.plan.repeat, question),
        };
        if let Some(stricter) = caution.filter(|caution| *caution > repeat) {
            (repeat, from) = (stricter, Origin::Because("a rule that may match"));
        }
        // Repeating is honest only where the upstream can tell that it has seen the key.
        if repeat == Repeat::Keyed && plan.upstream_key.is_none() {
            (repeat, from) = (Repeat::Never, Origin::Because("keyed, but no matching rule names `upstream`"));
        }
        record.note("repeat", from, || word(&repeat));
        repeat
    }
}

impl Rule {
    /// Whether this rule is about the call.
    pub fn applies(&self, question: &Question<'_>) -> Applies {
        if !self.server.matches(question.server) || !self.tool.matches(question.tool) {
            return Applies::No;
        }
        let mut applies = Applies::Yes;
        for condition in &self.when {
            match condition.holds(question.arguments) {
                Outcome::Holds => {}
                Outcome::Fails => return Applies::No,
                Outcome::Doubtful(_) => applies = Applies::Doubtful,
            }
        }
        applies
    }
}

pub(crate) struct Matching<'p> {
    pub(crate) matched: Vec<&'p Rule>,
    /// The strictest `repeat` of rules that may match.
    pub(crate) caution: Option<Repeat>,
    pub(crate) shadow: Vec<(RuleId, Effect)>,
}

/// Where a setting comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin<'p> {
    Rule(&'p RuleId),
    Defaults,
    Because(&'static str),
}

/// Told where each setting comes from; `()` listens to nothing and costs nothing.
pub(crate) trait Record {
    fn note(&mut self, name: &'static str, from: Origin<'_>, value: impl FnOnce() -> Value);
}

impl Record for () {
    fn note(&mut self, _: &'static str, _: Origin<'_>, _: impl FnOnce() -> Value) {}
}

fn caution_of(repeat: Option<Repeat>) -> Option<Repeat> {
    repeat.filter(|repeat| *repeat != Repeat::Safe)
}

/// The default `repeat` as the server's hints change it.
///
/// Believed hints may make it `safe` (read-only and not destructive, or idempotent) or `never`
/// (destructive and not idempotent). Hints that are not believed only turn a default of `safe` into
/// `never`, when the tool calls itself destructive, or not idempotent without being read-only. A default
/// of `keyed` rests on the upstream's key and not on what a tool is like, so it stays.
fn hinted(default: Repeat, question: &Question<'_>) -> (Repeat, Origin<'static>) {
    const HINT: Origin<'static> = Origin::Because("the server's annotations");
    let Hints { read_only, destructive, idempotent } = question.hints;
    let says = |hint: Option<bool>| hint == Some(true);
    let harmless = says(read_only) && !says(destructive);
    match question.trust {
        Trust::Annotations if harmless || says(idempotent) => (Repeat::Safe, HINT),
        Trust::Annotations if says(destructive) && default == Repeat::Safe => (Repeat::Never, HINT),
        Trust::Nothing
            if default == Repeat::Safe
                && (says(destructive) || (idempotent == Some(false) && !says(read_only))) =>
        {
            (Repeat::Never, HINT)
        }
        _ => (default, Origin::Defaults),
    }
}

fn gates(matched: &[&Rule]) -> Vec<Gate> {
    let asking = matched.iter().filter(|rule| rule.effect == Some(Effect::Ask));
    let gates: Vec<Gate> =
        asking.map(|rule| rule.gate.clone().unwrap_or_else(|| Gate::for_rule(rule.id.clone()))).collect();
    // No rule asks, so `[defaults]` does.
    if gates.is_empty() { vec![Gate::default()] } else { gates }
}

/// Takes each setting from the first matching rule that has it.
struct Pick<'a, 'p, R> {
    matched: &'a [&'p Rule],
    record: &'a mut R,
}

impl<'p, R: Record> Pick<'_, 'p, R> {
    fn pick<T: Clone + 'p>(
        &mut self,
        name: &'static str,
        slot: &mut T,
        get: impl Fn(&'p Settings) -> Option<&'p T>,
        show: impl FnOnce(&T) -> Value,
    ) {
        let found = self.matched.iter().find_map(|rule| Some((get(&rule.settings)?, &rule.id)));
        let from = match found {
            Some((value, rule)) => {
                *slot = value.clone();
                Origin::Rule(rule)
            }
            None => Origin::Defaults,
        };
        self.record.note(name, from, || show(slot));
    }

    fn times(&mut self, plan: &mut Plan) {
        let ms = |ms: &u64| Value::from(show_duration(*ms));
        let ms_or_off = |ms: &Option<u64>| Value::from(ms.map_or("off".to_owned(), show_duration));
        self.pick("attempt_timeout", &mut plan.attempt_timeout_ms, |s| s.attempt_timeout_ms.as_ref(), ms);
        self.pick("call_timeout", &mut plan.call_timeout_ms, |s| s.call_timeout_ms.as_ref(), ms);
        self.pick("queue_timeout", &mut plan.queue_timeout_ms, |s| s.queue_timeout_ms.as_ref(), ms);
        self.pick("idle_timeout", &mut plan.idle_timeout_ms, |s| s.idle_timeout_ms.as_ref(), ms_or_off);
        self.pick("hold_wait", &mut plan.hold_wait_ms, |s| s.hold_wait_ms.as_ref(), ms);
        self.pick("reissue_window", &mut plan.reissue_window_ms, |s| s.reissue_window_ms.as_ref(), ms_or_off);
    }

    fn retry(&mut self, plan: &mut Plan) {
        let ms = |ms: &u64| Value::from(show_duration(*ms));
        let retry = &mut plan.retry;
        self.pick("retry.attempts", &mut retry.attempts, |s| s.attempts.as_ref(), word);
        self.pick("retry.initial", &mut retry.initial_ms, |s| s.initial_ms.as_ref(), ms);
        self.pick("retry.factor", &mut retry.factor, |s| s.factor.as_ref(), word);
        self.pick("retry.cap", &mut retry.cap_ms, |s| s.cap_ms.as_ref(), ms);
        self.pick("retry.retry_on", &mut retry.retry_on, |s| s.retry_on.as_ref(), word);
    }

    fn limits(&mut self, plan: &mut Plan) {
        let limits = &mut plan.limits;
        self.pick("limits.concurrency", &mut limits.concurrency, |s| s.concurrency.as_ref(), word);
        self.pick(
            "limits.rate",
            &mut limits.rate,
            |s| s.rate.as_ref(),
            |rate| match rate {
                Some(rate) => Value::from(format!("{} per {}", rate.count, show_duration(rate.per_ms))),
                None => Value::from("off"),
            },
        );
        self.pick("limits.queue", &mut limits.queue, |s| s.queue.as_ref(), word);
    }

    fn words(&mut self, plan: &mut Plan) {
        self.pick("on_disconnect", &mut plan.on_disconnect, |s| s.on_disconnect.as_ref(), word);
        self.pick("on_join", &mut plan.on_join, |s| s.on_join.as_ref(), word);
        self.pick("reuse", &mut plan.reuse, |s| s.reuse.as_ref(), word);
        self.pick("detached", &mut plan.detached, |s| s.detached.as_ref(), word);
    }

    fn parts(&mut self, plan: &mut Plan) {
        let found =
            self.matched.iter().find_map(|rule| Some((rule.settings.idempotency.as_ref()?, &rule.id)));
        let mut from = Origin::Defaults;
        if let Some((idempotency, rule)) = found {
            plan.key = idempotency.key.clone();
            plan.scope = idempotency.scope;
            plan.upstream_key = idempotency.upstream.clone();
            from = Origin::Rule(rule);
        }
        self.record.note("idempotency.key", from, || match &plan.key {
            KeyRule::Effect(template) => Value::from(template.as_str()),
            other => word(other),
        });
        self.record.note("idempotency.scope", from, || word(&plan.scope));
        self.record.note("idempotency.upstream", from, || word(&plan.upstream_key));
        self.pick_option("probe", &mut plan.probe, |s| s.probe.as_ref());
        self.pick_option("preview", &mut plan.preview, |s| s.preview.as_ref());
    }

    fn pick_option<T: Clone + Serialize + 'p>(
        &mut self,
        name: &'static str,
        slot: &mut Option<T>,
        get: impl Fn(&'p Settings) -> Option<&'p T>,
    ) {
        let found = self.matched.iter().find_map(|rule| Some((get(&rule.settings)?, &rule.id)));
        if let Some((value, rule)) = found {
            *slot = Some(value.clone());
            self.record.note(name, Origin::Rule(rule), || word(value));
        }
    }
}

fn word(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("invariant: settings have text keys only")
}

#[cfg(test)]
mod tests;
