//! Stories about verdicts: a policy, a call, and what comes of it.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{Document, Explanation, Retry};

fn policy(text: &str) -> Policy {
    let document = Document::parse("test.toml", text, &|_| None).expect("the text is TOML");
    let policy = Policy::load(&document.root());
    let errors = document.has_errors();
    assert!(!errors, "{:#?}", document.into_problems());
    policy
}

fn ask<'a>(tool: &'a str, arguments: &'a Value) -> Question<'a> {
    let (hints, trust) = (Hints::default(), Trust::Nothing);
    Question { principal: "local", server: "bank", tool, arguments, hints, trust }
}

/// The decision in one line: `ask gates: a, b; shadow: c deny`.
fn story(decision: &Decision) -> String {
    let mut line = match &decision.verdict {
        Verdict::Allow(plan) => format!("allow by {:?}", names(plan)),
        Verdict::Ask(_, gates) => {
            format!("ask by {:?}", gates.iter().map(|gate| gate.rule.as_str()).collect::<Vec<_>>())
        }
        Verdict::Deny { rule } => format!("deny by {rule}"),
    };
    for (rule, effect) in &decision.shadow {
        line += &format!(", in shadow {effect} by {rule}");
    }
    line
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.rules.iter().map(RuleId::as_str).collect()
}

#[track_caller]
fn check(rules: &str, tool: &str, arguments: Value, expected: &str) {
    let policy = policy(rules);
    let question = ask(tool, &arguments);
    let decision = policy.decide(&question);
    assert_eq!(story(&decision), expected, "{}", policy.explain(&question));
    assert_eq!(policy.explain(&question).decision, decision, "explain and decide agree");
}

fn plan_of(decision: Decision) -> Plan {
    match decision.verdict {
        Verdict::Allow(plan) | Verdict::Ask(plan, _) => plan.as_ref().clone(),
        Verdict::Deny { rule } => panic!("denied by {rule}"),
    }
}

fn plan(rules: &str, arguments: Value) -> Plan {
    plan_of(policy(rules).decide(&ask("transfer", &arguments)))
}

const ALLOW: &str = r#"
[[rule]]
id = "all"
effect = "allow"
server = "*"
tool = "*"
"#;

fn with_allow(rules: &str) -> String {
    format!("{ALLOW}{rules}")
}

#[test]
fn defaults_decide_only_where_no_rule_with_an_effect_matches() {
    check("", "pay", json!({}), r#"ask by ["defaults"]"#);
    check("defaults.effect = 'deny'", "pay", json!({}), "deny by defaults");
    check("defaults.effect = 'allow'", "pay", json!({}), "allow by []");
    check(&format!("defaults.effect = 'deny'\n{ALLOW}"), "pay", json!({}), r#"allow by ["all"]"#);
    let settings_only = "defaults.effect = 'deny'\n[[rule]]\nid = 's'\nrepeat = 'safe'";
    check(settings_only, "pay", json!({}), "deny by defaults");
}

#[test]
fn the_strictest_matching_rule_wins_whatever_the_order() {
    let deny = "[[rule]]\nid = 'no'\neffect = 'deny'\ntool = 'close_*'\n";
    let ask = "[[rule]]\nid = 'careful'\neffect = 'ask'\ntool = '{close,open}_account'\n";
    for rules in [format!("{ALLOW}{ask}{deny}"), format!("{deny}{ask}{ALLOW}"), format!("{ask}{deny}{ALLOW}")]
    {
        check(&rules, "close_account", json!({}), "deny by no");
        check(&rules, "open_account", json!({}), r#"ask by ["careful"]"#);
        check(&rules, "balance", json!({}), r#"allow by ["all"]"#);
    }
}

#[test]
fn globs_are_anchored_and_stars_match_across_anything() {
    let rules = |glob: &str| {
        format!("defaults.effect = 'deny'\n[[rule]]\nid = 'g'\neffect = 'allow'\ntool = '{glob}'")
    };
    check(&rules("list"), "list_all", json!({}), "deny by defaults");
    check(&rules("list"), "a_list", json!({}), "deny by defaults");
    check(&rules("list*"), "list/a.b-c", json!({}), r#"allow by ["g"]"#);
    check(&rules("{balance,list_*}"), "balance", json!({}), r#"allow by ["g"]"#);
    check(&rules("{balance,list_*}"), "balances", json!({}), "deny by defaults");
    check(&rules("list_?"), "list_a", json!({}), r#"allow by ["g"]"#);
    check(&rules("List"), "list", json!({}), "deny by defaults");
    check(&rules("a.b"), "axb", json!({}), "deny by defaults");
    check(&rules("file{,s}"), "file", json!({}), r#"allow by ["g"]"#);
}

#[test]
fn what_cannot_be_told_matches_deny_and_ask_and_nothing_else() {
    let rule = |effect: &str| {
        format!(
            "defaults.effect = 'deny'\n[[rule]]\nid = 'r'\neffect = '{effect}'\nwhen = [{{ arg = '/amount', op = 'gt', value = 100 }}]\n"
        )
    };
    for doubtful in [json!({}), json!({"amount": "1000"}), json!({"amount": null}), json!([1]), Value::Null] {
        check(&rule("deny"), "pay", doubtful.clone(), "deny by r");
        check(&rule("ask"), "pay", doubtful.clone(), r#"ask by ["r"]"#);
        check(&rule("allow"), "pay", doubtful, "deny by defaults");
    }
    check(&rule("ask"), "pay", json!({"amount": 100}), "deny by defaults");
    check(&rule("allow"), "pay", json!({"amount": 101}), r#"allow by ["r"]"#);
}

#[test]
fn one_failed_condition_settles_it_even_if_another_cannot_be_told() {
    let rules = with_allow(
        "[[rule]]\nid = 'r'\neffect = 'deny'\nwhen = [{ arg = '/a', op = 'eq', value = 1 }, { arg = '/b', op = 'eq', value = 1 }]\n",
    );
    check(&rules, "pay", json!({"a": 2}), r#"allow by ["all"]"#);
    check(&rules, "pay", json!({"a": 1}), "deny by r");
    check(&rules, "pay", json!({"a": 1, "b": 1}), "deny by r");
}

#[test]
fn shadow_rules_are_recorded_and_set_nothing() {
    let rules = with_allow(
        "[[rule]]\nid = 'try'\neffect = 'deny'\nmode = 'shadow'\nrepeat = 'safe'\nwhen = [{ arg = '/x', op = 'eq', value = 1 }]\n",
    );
    check(&rules, "pay", json!({"x": 1}), r#"allow by ["all"], in shadow deny by try"#);
    check(&rules, "pay", json!({}), r#"allow by ["all"], in shadow deny by try"#);
    check(&rules, "pay", json!({"x": 2}), r#"allow by ["all"]"#);
    assert_eq!(plan(&rules, json!({"x": 1})).repeat, Repeat::Never);
}

#[test]
fn every_matching_ask_rule_adds_its_gate() {
    let rules = "
        [[rule]]
        id = 'plain'
        effect = 'ask'
        [[rule]]
        id = 'finance'
        effect = 'ask'
        tool = 'transfer'
        gate = { approvers = ['group:finance'], quorum = 2, approve_by = '4h' }
    ";
    check(rules, "transfer", json!({}), r#"ask by ["plain", "finance"]"#);
    let policy = policy(rules);
    let Verdict::Ask(_, gates) = policy.decide(&ask("transfer", &json!({}))).verdict else { panic!("asks") };
    assert_eq!((gates[0].quorum, gates[0].approve_by_ms, gates[0].execute_by_ms), (1, 86_400_000, 3_600_000));
    assert_eq!((gates[1].quorum, gates[1].approve_by_ms, gates[1].execute_by_ms), (2, 14_400_000, 3_600_000));
}

#[test]
fn settings_come_from_the_first_matching_rule_that_has_them_leaf_by_leaf() {
    let rules = "
        [defaults]
        effect = 'allow'
        retry = { attempts = 9, cap = '1m' }
        [[rule]]
        id = 'first'
        retry = { attempts = 2 }
        limits = { queue = 3 }
        idle_timeout = '5s'
        [[rule]]
        id = 'second'
        retry = { attempts = 7, factor = 3 }
        limits = { queue = 4, rate = '10/s' }
        idle_timeout = 'off'
        reissue_window = 'off'
        idempotency = { key = 'transfer:{/id}', scope = 'everyone' }
        [[rule]]
        id = 'third'
        idempotency = { key = 'required', upstream = 'meta:key' }
    ";
    let plan = plan(rules, json!({}));
    assert_eq!(names(&plan), ["first", "second", "third"]);
    let Retry { attempts, initial_ms, factor, cap_ms, .. } = plan.retry;
    assert_eq!((attempts, initial_ms, factor, cap_ms), (2, 200, 3.0, 60_000));
    assert_eq!((plan.limits.queue, plan.limits.concurrency), (3, 16));
    assert_eq!(plan.limits.rate, Some(crate::Rate { count: 10, per_ms: 1000 }));
    assert_eq!((plan.idle_timeout_ms, plan.reissue_window_ms), (Some(5000), None));
    assert_eq!(
        (plan.scope, plan.upstream_key.is_some()),
        (crate::Scope::Everyone, false),
        "tables never mix"
    );
}

#[test]
fn repeat_is_the_strictest_of_the_matching_rules() {
    let check = |rules: &str, arguments: Value, expected: Repeat| {
        assert_eq!(plan(&with_allow(rules), arguments).repeat, expected, "{rules}");
    };
    let safe = "[[rule]]\nid = 'safe'\nrepeat = 'safe'\n";
    let keyed = "[[rule]]\nid = 'keyed'\nrepeat = 'keyed'\nidempotency.upstream = 'arg:/key'\n";
    let never =
        "[[rule]]\nid = 'never'\nrepeat = 'never'\nwhen = [{ arg = '/big', op = 'eq', value = true }]\n";
    check("", json!({}), Repeat::Never);
    check(safe, json!({}), Repeat::Safe);
    check(&format!("{safe}{keyed}"), json!({}), Repeat::Keyed);
    check(&format!("{keyed}{never}{safe}"), json!({"big": true}), Repeat::Never);
    check(&format!("{safe}{never}"), json!({"big": false}), Repeat::Safe);
    // Whether `never` matches cannot be told: it sets nothing, but its caution counts.
    check(&format!("{safe}{never}"), json!({}), Repeat::Never);
    let unsure_safe =
        "[[rule]]\nid = 'unsure'\nrepeat = 'safe'\nwhen = [{ arg = '/big', op = 'eq', value = true }]\n";
    check(unsure_safe, json!({}), Repeat::Never);
}

#[test]
fn keyed_without_an_upstream_key_in_force_is_never() {
    // `other` matches first and its table has no upstream, so the key would reach nobody.
    let rules = with_allow(
        "[[rule]]\nid = 'other'\nidempotency.key = 'required'\n[[rule]]\nid = 'keyed'\nrepeat = 'keyed'\nidempotency.upstream = 'meta:key'\n",
    );
    assert_eq!(plan(&rules, json!({})).repeat, Repeat::Never);
    assert_eq!(plan("defaults = { effect = 'allow', repeat = 'keyed' }", json!({})).repeat, Repeat::Never);
}

#[test]
fn hints_count_only_where_trusted_and_otherwise_only_raise_caution() {
    let says = |read_only, destructive, idempotent| Hints { read_only, destructive, idempotent };
    let (yes, no) = (Some(true), Some(false));
    let read = says(yes, None, None);
    let idempotent = says(None, None, yes);
    let destructive = says(no, yes, None);
    let once = says(None, None, no);
    use Repeat::{Never, Safe};
    use Trust::{Annotations, Nothing};
    let table = [
        ("never", read, Nothing, Never),
        ("never", idempotent, Nothing, Never),
        ("never", read, Annotations, Safe),
        ("never", idempotent, Annotations, Safe),
        ("never", says(yes, yes, None), Annotations, Never),
        ("never", destructive, Annotations, Never),
        ("safe", Hints::default(), Nothing, Safe),
        ("safe", read, Nothing, Safe),
        ("safe", destructive, Nothing, Never),
        ("safe", destructive, Annotations, Never),
        ("safe", says(None, yes, yes), Annotations, Safe),
        ("safe", says(None, yes, yes), Nothing, Never),
        ("safe", once, Nothing, Never),
        ("safe", says(yes, None, no), Nothing, Safe),
    ];
    for (default, hints, trust, expected) in table {
        let policy = policy(&format!("defaults = {{ effect = 'allow', repeat = '{default}' }}"));
        let question = Question { hints, trust, ..ask("transfer", &Value::Null) };
        let plan = plan_of(policy.decide(&question));
        assert_eq!(plan.repeat, expected, "{default} {hints:?} {trust:?}");
    }
    // The operator's word about a tool stands, whatever the server says.
    for (word, expected) in [("safe", Safe), ("never", Never)] {
        let policy = policy(&with_allow(&format!("[[rule]]\nid = 'op'\nrepeat = '{word}'")));
        for hints in [read, destructive, idempotent] {
            let question = Question { hints, trust: Annotations, ..ask("transfer", &Value::Null) };
            assert_eq!(plan_of(policy.decide(&question)).repeat, expected);
        }
    }
}

#[test]
fn hints_are_read_from_a_tool_definition_and_wrong_types_say_nothing() {
    let tool = json!({"name": "x", "annotations": {"readOnlyHint": true, "destructiveHint": "yes"}});
    let expected = Hints { read_only: Some(true), ..Hints::default() };
    assert_eq!(Hints::of_tool(&tool), expected);
    assert_eq!(Hints::of_tool(&json!({"name": "x"})), Hints::default());
}

#[test]
fn a_verdict_asks_for_more_only_with_a_gate_that_was_not_satisfied() {
    let gate = |approvers: &[&str], quorum| Gate {
        approvers: approvers.iter().map(|text| crate::Approver::parse(text).unwrap()).collect(),
        quorum,
        ..Gate::default()
    };
    let one = std::slice::from_ref;
    let asks = |gates: &[Gate]| Verdict::Ask(Arc::default(), gates.to_vec());
    let (anyone, finance) = (gate(&[], 1), gate(&["group:finance"], 1));
    assert!(!asks(one(&anyone)).asks_more_than(one(&finance)), "fewer people were asked before");
    assert!(asks(one(&finance)).asks_more_than(one(&anyone)));
    assert!(asks(&[gate(&["group:finance"], 2)]).asks_more_than(one(&finance)));
    assert!(asks(&[finance.clone(), gate(&["group:legal"], 1)]).asks_more_than(one(&finance)));
    assert!(asks(&[anyone]).asks_more_than(&[]));
    assert!(Verdict::Deny { rule: RuleId::defaults() }.asks_more_than(one(&finance)));
    assert!(!Verdict::Allow(Arc::default()).asks_more_than(&[]));
    let lax = Gate { self_approve: crate::SelfApproval::Allowed, ..finance.clone() };
    assert!(asks(&[finance]).asks_more_than(&[lax]));
}

#[test]
fn plans_are_journaled_compactly_and_old_ones_stay_readable() {
    let reference = include_str!("../../../examples/reference.toml");
    let document = Document::parse("r", reference, &|_| Some("x".into())).expect("TOML");
    let policy = Policy::load(&document.root());
    let arguments = json!({"amount": 250, "from": "a", "to": "b", "reference": "r1"});
    let Verdict::Ask(plan, gates) = policy.decide(&ask("transfer", &arguments)).verdict else {
        panic!("asks")
    };
    let text = serde_json::to_string(&(&plan, &gates)).unwrap();
    let back: (Arc<Plan>, Vec<Gate>) = serde_json::from_str(&text).unwrap();
    assert_eq!(back, (plan.clone(), gates));
    assert_eq!(
        serde_json::from_str::<Plan>("{}").unwrap(),
        Plan { reissue_window_ms: None, ..Plan::default() }
    );
    let off = Plan { idle_timeout_ms: None, reissue_window_ms: None, ..Plan::default() };
    let text = serde_json::to_string(&off).unwrap();
    assert!(!text.contains("null"), "{text}");
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), off);
    check_words(&plan);
}

/// The journal's words for a plan are part of its format.
fn check_words(plan: &Plan) {
    let json = serde_json::to_value(plan).unwrap();
    assert_eq!(json["repeat"], "never");
    assert_eq!(json["key"], json!({"effect": "transfer:{/reference}"}));
    assert_eq!(json["upstream_key"], "arg:/idempotency_key");
    assert_eq!(json["probe"]["happened"], json!({"at": "/found", "equals": true}));
    assert_eq!(json["preview"]["by"]["companion"]["tool"], "quote_transfer");
    assert_eq!(json["retry"]["retry_on"], json!(["(?i)try again later"]));
}

#[test]
fn an_explanation_names_each_rule_condition_and_origin() {
    let rules = "
        defaults.attempt_timeout = '5s'
        [[rule]]
        id = 'small'
        effect = 'allow'
        server = 'bank'
        tool = 'transfer'
        when = [{ arg = '/amount', op = 'le', value = 100 }]
        [[rule]]
        id = 'large'
        effect = 'ask'
        tool = 'transfer'
        when = [{ arg = '/amount', op = 'gt', value = 100 }]
        retry.attempts = 2
        [[rule]]
        id = 'closing'
        effect = 'deny'
        tool = 'close'
    ";
    let policy = policy(rules);
    let arguments = json!({"amount": 250});
    let explanation: Explanation = policy.explain(&ask("transfer", &arguments));
    let text = explanation.to_string();
    for expected in [
        "ask: transfer on bank for local\nbecause of large (policy ",
        "gate of large: 1 of any approver",
        "small (allow, line 3): does not match",
        "no  /amount le 100: it is 250",
        "large (ask, line 9): matches",
        "yes /amount gt 100",
        "no  tool = \"close\": it is \"transfer\"",
        "retry.attempts        2  (rule large)",
        "attempt_timeout       5s  (defaults)",
        "repeat                never  (defaults)",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!((&json["effect"], &json["because"][0]), (&json!("ask"), &json!("large")));
    let missing = policy.explain(&ask("transfer", &Value::Null)).to_string();
    assert!(missing.contains("?   /amount gt 100: the argument is missing"), "{missing}");
    assert!(missing.contains("large (ask, line 9): matches, in doubt"), "{missing}");
    assert!(missing.contains("small (allow, line 3): does not match, in doubt"), "{missing}");
}

#[test]
fn the_version_follows_the_meaning_and_not_the_layout() {
    let version = |text: &str| policy(text).version().to_owned();
    let plain = version(ALLOW);
    assert_eq!(plain.len(), 12);
    assert_eq!(plain, version(&format!("# a comment\n\n{ALLOW}")));
    assert_ne!(plain, version(&ALLOW.replace("allow", "ask")));
    assert_ne!(plain, version(&format!("defaults.hold_wait = '1s'\n{ALLOW}")));
    let when = |value: &str| {
        version(&with_allow(&format!(
            "[[rule]]\nid = 'w'\neffect = 'ask'\nwhen = [{{ arg = '/a', op = 'eq', value = {value} }}]"
        )))
    };
    assert_ne!(when("1"), when("2"));
}

fn any_rule() -> impl Strategy<Value = String> {
    let effect =
        prop_oneof![Just("effect = 'allow'"), Just("effect = 'ask'"), Just("effect = 'deny'"), Just("")];
    let tool = prop_oneof![Just("*"), Just("pay"), Just("{pay,read}"), Just("p*"), Just("read")];
    let when = prop_oneof![
        Just(""),
        Just("when = [{ arg = '/n', op = 'gt', value = 5 }]"),
        Just("when = [{ arg = '/n', op = 'le', value = 5 }, { arg = '/s', op = 'prefix', value = 'a' }]"),
        Just("when = [{ arg = '/s', op = 'under', value = '/srv' }]"),
        Just("when = [{ arg = '/s', op = 'exists' }]"),
    ];
    let repeat = prop_oneof![Just(""), Just("repeat = 'safe'"), Just("repeat = 'never'")];
    let mode = prop_oneof![4 => Just("enforce"), 1 => Just("shadow")];
    (effect, tool, when, repeat, mode).prop_map(|(effect, tool, when, repeat, mode)| {
        format!("{effect}\ntool = '{tool}'\n{when}\n{repeat}\nmode = '{mode}'\n")
    })
}

fn any_arguments() -> impl Strategy<Value = Value> {
    let n = prop_oneof![Just(None), (0..10).prop_map(|n| Some(json!(n))), Just(Some(json!("7")))];
    let texts = ["a", "/srv/x", "/srv/../etc", "b"].map(|text| Some(json!(text)));
    let s = prop_oneof![Just(None), prop::sample::select(texts.to_vec()), Just(Some(json!(1)))];
    (n, s).prop_map(|(n, s)| {
        let members = [("n", n), ("s", s)].into_iter();
        members
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    })
}

fn assemble(rules: &[String]) -> Policy {
    let text: Vec<String> =
        rules.iter().enumerate().map(|(at, rule)| format!("[[rule]]\nid = 'r{at}'\n{rule}")).collect();
    policy(&text.join("\n"))
}

proptest! {
    /// `default = "ask"` applies only where nothing matches, so it is left out of the comparison: there,
    /// the first rule may weaken it, as the operator means it to.
    #[test]
    fn adding_a_rule_never_makes_a_verdict_less_strict(
        rules in prop::collection::vec(any_rule(), 0..6),
        more in any_rule(),
        at in 0usize..6,
        arguments in any_arguments(),
    ) {
        let question = ask("pay", &arguments);
        let before = assemble(&rules);
        let mut longer = rules.clone();
        longer.insert(at.min(rules.len()), more);
        let after = assemble(&longer);
        let decided = before.matching(&question).matched.iter().any(|rule| rule.effect.is_some());
        let (old, new) = (before.decide(&question), after.decide(&question));
        if decided {
            prop_assert!(new.verdict.effect() >= old.verdict.effect());
        }
        let repeat = |decision: Decision| match decision.verdict {
            Verdict::Allow(plan) | Verdict::Ask(plan, _) => Some(plan.repeat),
            Verdict::Deny { .. } => None,
        };
        let sets = before.matching(&question).matched.iter().any(|rule| rule.settings.repeat.is_some());
        if let (true, Some(old), Some(new)) = (sets, repeat(old), repeat(new)) {
            prop_assert!(new >= old);
        }
    }

    #[test]
    fn the_order_of_rules_never_changes_the_effect(
        rules in prop::collection::vec(any_rule(), 0..7).prop_flat_map(|rules| (Just(rules.clone()), Just(rules).prop_shuffle())),
        arguments in any_arguments(),
    ) {
        let question = ask("pay", &arguments);
        let (one, other) = (assemble(&rules.0).decide(&question), assemble(&rules.1).decide(&question));
        prop_assert_eq!(one.verdict.effect(), other.verdict.effect());
        prop_assert_eq!(one.shadow.len(), other.shadow.len());
        if let (Verdict::Ask(one, a), Verdict::Ask(other, b)) = (&one.verdict, &other.verdict) {
            prop_assert_eq!(a.len(), b.len());
            prop_assert_eq!(one.repeat, other.repeat);
        }
    }

    #[test]
    fn explain_and_decide_never_disagree(
        rules in prop::collection::vec(any_rule(), 0..6),
        arguments in any_arguments(),
    ) {
        let question = ask("pay", &arguments);
        let policy = assemble(&rules);
        let explanation = policy.explain(&question);
        prop_assert_eq!(&explanation.decision, &policy.decide(&question));
        if let Verdict::Allow(plan) | Verdict::Ask(plan, _) = &explanation.decision.verdict {
            let repeat = explanation.settings.iter().find(|setting| setting.name == "repeat").unwrap();
            prop_assert_eq!(&repeat.value, &serde_json::to_value(plan.repeat).unwrap());
        }
    }
}
