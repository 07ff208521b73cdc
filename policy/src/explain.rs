//! The same decision, with the reason for each part.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::condition::Outcome;
use crate::decide::{Applies, Decision, Matching, Origin, Policy, Question, Record, Verdict};
use crate::rule::{Effect, Mode, Rule, RuleId};

/// Why a call gets the verdict it gets.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// Who calls.
    pub principal: String,
    /// The server.
    pub server: String,
    /// The tool.
    pub tool: String,
    /// [`Policy::version`].
    pub policy: String,
    /// allow, ask or deny.
    pub effect: Effect,
    /// The rules that say so, or [`RuleId::defaults`].
    pub because: Vec<RuleId>,
    /// The whole decision.
    pub decision: Decision,
    /// Every rule, in the order of the file.
    pub rules: Vec<RuleReport>,
    /// Every setting with its origin.
    pub settings: Vec<SettingReport>,
}

/// What one rule has to do with the call.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleReport {
    /// The rule.
    pub id: RuleId,
    /// Its line in the file.
    pub line: usize,
    /// Whether it counts.
    pub mode: Mode,
    /// What it wants; none for a rule that only sets settings.
    pub effect: Option<Effect>,
    /// Whether it is about the call.
    pub applies: Applies,
    /// Server, tool and each condition, with how they came out.
    pub reasons: Vec<Reason>,
}

/// One part of a rule and how it came out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reason {
    /// The condition as it stands in the policy.
    pub condition: String,
    /// How it came out.
    pub applies: Applies,
    /// More words, where it failed or cannot be told.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// One effective setting.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SettingReport {
    /// Its key in the configuration, e.g. `retry.attempts`.
    pub name: &'static str,
    /// Its value.
    pub value: Value,
    /// `rule NAME`, `defaults`, or a reason in words.
    pub from: String,
}

impl Policy {
    /// Decides as [`Policy::decide`] does, and says why.
    pub fn explain(&self, question: &Question<'_>) -> Explanation {
        let decision = self.decide(question);
        let effect = decision.verdict.effect();
        let Matching { matched, caution, .. } = self.matching(question);
        let deciding = matched.iter().filter(|rule| rule.effect == Some(effect));
        let mut because: Vec<RuleId> = deciding.map(|rule| rule.id.clone()).collect();
        if because.is_empty() {
            because.push(RuleId::defaults());
        }
        let mut settings = Settings(Vec::new());
        if effect != Effect::Deny {
            self.plan(&matched, caution, question, &mut settings);
        }
        Explanation {
            principal: question.principal.to_owned(),
            server: question.server.to_owned(),
            tool: question.tool.to_owned(),
            policy: self.version().to_owned(),
            effect,
            because,
            decision,
            rules: self.rules.iter().map(|rule| report(rule, question)).collect(),
            settings: settings.0,
        }
    }
}

struct Settings(Vec<SettingReport>);

impl Record for Settings {
    fn note(&mut self, name: &'static str, from: Origin<'_>, value: impl FnOnce() -> Value) {
        let from = match from {
            Origin::Rule(rule) => format!("rule {rule}"),
            Origin::Defaults => "defaults".to_owned(),
            Origin::Because(reason) => reason.to_owned(),
        };
        self.0.push(SettingReport { name, value: value(), from });
    }
}

fn report(rule: &Rule, question: &Question<'_>) -> RuleReport {
    let name = |what: &str, glob: &crate::pattern::Glob, name: &str| {
        let matches = glob.matches(name);
        Reason {
            condition: format!("{what} = {:?}", glob.as_str()),
            applies: if matches { Applies::Yes } else { Applies::No },
            why: if matches { String::new() } else { format!("it is {name:?}") },
        }
    };
    let mut reasons =
        vec![name("server", &rule.server, question.server), name("tool", &rule.tool, question.tool)];
    for condition in &rule.when {
        let (applies, why) = match condition.holds(question.arguments) {
            Outcome::Holds => (Applies::Yes, String::new()),
            Outcome::Fails => (Applies::No, found(condition.arg.find(question.arguments))),
            Outcome::Doubtful(doubt) => (Applies::Doubtful, doubt.to_string()),
        };
        reasons.push(Reason { condition: condition.to_string(), applies, why });
    }
    RuleReport {
        id: rule.id.clone(),
        line: rule.places.rule.line(),
        mode: rule.mode,
        effect: rule.effect,
        applies: rule.applies(question),
        reasons,
    }
}

/// What stands there, short: an explanation is read on one line.
fn found(value: Option<&Value>) -> String {
    const LONGEST: usize = 60;
    let Some(value) = value else { return "it is missing".to_owned() };
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("it is {}...", &text[..end]),
        None => format!("it is {text}"),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let because: Vec<&str> = self.because.iter().map(RuleId::as_str).collect();
        writeln!(f, "{}: {} on {} for {}", self.effect, self.tool, self.server, self.principal)?;
        writeln!(f, "because of {} (policy {})", because.join(", "), self.policy)?;
        if let Verdict::Ask(_, gates) = &self.decision.verdict {
            for gate in gates {
                let approvers: Vec<String> = gate.approvers.iter().map(ToString::to_string).collect();
                let who =
                    if approvers.is_empty() { "any approver".to_owned() } else { approvers.join(" or ") };
                writeln!(f, "  gate of {}: {} of {who}", gate.rule, gate.quorum)?;
            }
        }
        writeln!(f, "\nrules")?;
        for rule in &self.rules {
            self.write_rule(f, rule)?;
        }
        if !self.settings.is_empty() {
            writeln!(f, "\nsettings")?;
        }
        let width = self.settings.iter().map(|setting| setting.name.len()).max().unwrap_or(0);
        for SettingReport { name, value, from } in &self.settings {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            writeln!(f, "  {name:width$}  {value}  ({from})")?;
        }
        Ok(())
    }
}

impl Explanation {
    fn write_rule(&self, f: &mut fmt::Formatter<'_>, rule: &RuleReport) -> fmt::Result {
        let effect = rule.effect.map_or("settings".to_owned(), |effect| effect.to_string());
        let shadow = if rule.mode == Mode::Shadow { ", shadow" } else { "" };
        let cautious = rule.effect.is_some_and(|effect| effect > Effect::Allow);
        let outcome = match (rule.applies, cautious) {
            (Applies::No, _) => "does not match",
            (Applies::Yes, _) => "matches",
            (Applies::Doubtful, true) => "matches, in doubt",
            (Applies::Doubtful, false) => "does not match, in doubt",
        };
        writeln!(f, "  {} ({effect}{shadow}, line {}): {outcome}", rule.id, rule.line)?;
        for Reason { condition, applies, why } in &rule.reasons {
            let mark = match applies {
                Applies::Yes => "yes",
                Applies::No => "no",
                Applies::Doubtful => "?",
            };
            let comma = if why.is_empty() { "" } else { ": " };
            writeln!(f, "    {mark:3} {condition}{comma}{why}")?;
        }
        Ok(())
    }
}
