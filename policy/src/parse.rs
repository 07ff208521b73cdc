//! Text -> rules. Every problem carries file, line and a hint; nothing is guessed.

mod check;
mod condition;
mod settings;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::condition::Condition;
use crate::decide::Policy;
use crate::gate::{Approver, Gate, SelfApproval};
use crate::pattern::Glob;
use crate::rule::{Defaults, Effect, Mode, Rule, RuleId, RulePlaces};
use crate::source::{Problem, Section, Severity};

const EFFECTS: [(&str, Effect); 3] = [("deny", Effect::Deny), ("ask", Effect::Ask), ("allow", Effect::Allow)];

impl Policy {
    /// Reads `[defaults]` and `[[rule]]` of a configuration; its other keys stay for other readers.
    ///
    /// Problems are recorded in the document. With an error among them
    /// ([`crate::Document::has_errors`]) the returned policy lacks what could not be read and must not be
    /// put in force.
    pub fn load(root: &Section<'_>) -> Policy {
        let defaults = match root.section("defaults") {
            Some(section) => load_defaults(&section),
            None => Defaults::default(),
        };
        let sections = root.sections("rule");
        let mut rules: Vec<Rule> = Vec::with_capacity(sections.len());
        for section in &sections {
            let rule = load_rule(section);
            if let Some(first) = rules.iter().find(|first| first.id == rule.id) {
                let message =
                    format!("the id `{}` is taken by the rule in line {}", rule.id, first.places.rule.line());
                section.problem("id", message, "give each rule its own id: the journal names rules by it");
            }
            rules.push(rule);
        }
        check::settings(&defaults, &rules, root);
        check::reachable(&rules, root);
        Policy::of(defaults, rules)
    }

    /// The rules whose globs match nothing that is known, as warnings. `known` lists each server once with
    /// no tool (enough to check server globs) or once per tool; tool globs are checked only against
    /// servers whose tools are listed.
    pub fn unmatched(&self, known: &[(String, Option<String>)]) -> Vec<Problem> {
        check::unmatched(&self.rules, known)
    }

    fn of(defaults: Defaults, rules: Vec<Rule>) -> Policy {
        let version = version(&defaults, &rules);
        Policy { rules, defaults, version }
    }
}

impl Default for Policy {
    /// No rules, and the built-in defaults: every call is asked for.
    fn default() -> Self {
        Policy::of(Defaults::default(), Vec::new())
    }
}

/// Twelve hex digits: enough to tell the versions of one installation apart, short enough for a log line.
fn version(defaults: &Defaults, rules: &[Rule]) -> String {
    #[derive(Serialize)]
    struct Meaning<'a> {
        defaults: &'a Defaults,
        rules: &'a [Rule],
    }
    let meaning = serde_json::to_vec(&Meaning { defaults, rules })
        .expect("invariant: a policy has text keys only and finite numbers");
    Sha256::digest(&meaning).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

fn load_defaults(section: &Section<'_>) -> Defaults {
    let mut defaults = Defaults::default();
    if let Some(effect) = section.one_of("effect", &EFFECTS) {
        defaults.effect = effect;
    }
    settings::load(section).apply(&mut defaults.plan);
    section.finish();
    defaults
}

fn load_rule(section: &Section<'_>) -> Rule {
    let effect = section.one_of("effect", &EFFECTS);
    let mut settings = settings::load(section);
    settings::load_parts(section, &mut settings);
    let id = load_id(section);
    let rule = Rule {
        gate: load_gate(section, &id, effect),
        id,
        effect,
        mode: section
            .one_of("mode", &[("enforce", Mode::Enforce), ("shadow", Mode::Shadow)])
            .unwrap_or_default(),
        server: load_glob(section, "server"),
        tool: load_glob(section, "tool"),
        when: load_conditions(section),
        settings,
        places: RulePlaces {
            rule: section.place(""),
            server: section.place("server"),
            tool: section.place("tool"),
        },
    };
    section.finish();
    rule
}

fn load_id(section: &Section<'_>) -> RuleId {
    const HINT: &str = "give the rule a name, e.g. id = \"reads\": the journal and explanations use it";
    let id = section.string("id");
    match id.as_deref() {
        None => {
            if !section.has("id") {
                section.problem("", "a rule without `id`", HINT);
            }
            // The place keeps unnamed rules apart until the file is mended.
            RuleId::new(section.path())
        }
        Some("") => {
            section.problem("id", "an empty `id`", HINT);
            RuleId::new(section.path())
        }
        Some("defaults") => {
            section.problem("id", "the id `defaults` stands for the [defaults] table", HINT);
            RuleId::new(section.path())
        }
        Some(id) => RuleId::new(id),
    }
}

/// A glob that cannot be read becomes `*`; its problem keeps the policy out of force.
fn load_glob(section: &Section<'_>, key: &str) -> Glob {
    let Some(text) = section.string(key) else { return Glob::any() };
    Glob::parse(&text).unwrap_or_else(|bad| {
        section.problem(key, format!("`{key}` is no glob: {bad}"), "write a name, \"list_*\" or \"{a,b}\"");
        Glob::any()
    })
}

fn load_conditions(section: &Section<'_>) -> Vec<Condition> {
    section.sections("when").iter().filter_map(condition::load).collect()
}

fn load_gate(rule: &Section<'_>, id: &RuleId, effect: Option<Effect>) -> Option<Gate> {
    let section = rule.section("gate")?;
    if effect != Some(Effect::Ask) && !(effect.is_none() && rule.has("effect")) {
        rule.problem(
            "gate",
            "only a rule with effect = \"ask\" has a gate",
            "write effect = \"ask\", or delete the gate",
        );
    }
    let mut gate = Gate::for_rule(id.clone());
    load_approvers(&section, &mut gate);
    gate.quorum = section.count("quorum", 1..=100).unwrap_or(gate.quorum);
    let only_operators = gate.approvers.iter().all(|approver| matches!(approver, Approver::Operator(_)));
    if only_operators && !gate.approvers.is_empty() && gate.quorum as usize > gate.approvers.len() {
        section.problem(
            "quorum",
            "the quorum is larger than the number of approvers",
            "name more, or lower it",
        );
    }
    if section.boolean("self_approve") == Some(true) {
        gate.self_approve = SelfApproval::Allowed;
    }
    gate.approve_by_ms = settings::positive_ms(&section, "approve_by").unwrap_or(gate.approve_by_ms);
    gate.execute_by_ms = settings::positive_ms(&section, "execute_by").unwrap_or(gate.execute_by_ms);
    section.finish();
    Some(gate)
}

fn load_approvers(section: &Section<'_>, gate: &mut Gate) {
    let Some(texts) = section.strings("approvers") else { return };
    if texts.is_empty() {
        section.problem("approvers", "nobody could approve", "leave `approvers` out for every approver");
    }
    for (index, text) in texts.iter().enumerate() {
        match Approver::parse(text) {
            Some(approver) => gate.approvers.push(approver),
            None => section.problem_in(
                "approvers",
                index,
                "this names no approver",
                "write \"group:NAME\" or \"operator:NAME\"",
            ),
        }
    }
}

fn warning(place: &crate::source::Place, message: String, hint: &str) -> Problem {
    place.problem(Severity::Warning, message, hint)
}

#[cfg(test)]
mod tests;
