//! Policies as people write them, and the words they get back.

use crate::{Absent, Approver, Defaults, Document, Policy, PreviewBy};

const REFERENCE: &str = include_str!("../../../examples/reference.toml");

fn load(text: &str) -> (Policy, Vec<String>) {
    let vars = |name: &str| Some(format!("<{name}>"));
    let document = Document::parse("holdfast.toml", text, &vars).expect("the text is TOML");
    let root = document.root();
    let policy = Policy::load(&root);
    let problems = document.into_problems().iter().map(ToString::to_string).collect();
    (policy, problems)
}

#[test]
fn the_reference_configuration_loads_without_a_problem() {
    let (policy, problems) = load(REFERENCE);
    assert_eq!(problems, [""; 0]);
    let ids: Vec<&str> = policy.rules().iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!(ids, ["reads", "small-transfers", "large-transfers", "never-close"]);
    assert_eq!(*policy.defaults(), Defaults::default(), "the reference states the built-in defaults");
}

/// What a rule with these lines gets to hear; `id` and `effect = "ask"` are given.
#[track_caller]
fn check(lines: &str, line: usize, message: &str, hint: &str) {
    let text = format!("[[rule]]\nid = 'r'\neffect = 'ask'\n{lines}\n");
    check_file(&text, line + 3, message, hint);
}

#[track_caller]
fn check_file(text: &str, line: usize, message: &str, hint: &str) {
    let (_, problems) = load(text);
    let at = format!("holdfast.toml:{line}:");
    let found = problems.iter().find(|problem| {
        problem.contains(&at)
            && problem.contains(message)
            && problem.contains("hint: ")
            && problem.contains(hint)
    });
    assert!(found.is_some(), "line {line}, {message:?}, {hint:?} is not in {problems:#?}\n{text}");
    assert_eq!(problems.len(), 1, "one mistake, one problem: {problems:#?}");
}

#[test]
fn a_rule_says_who_it_is() {
    check_file("[[rule]]\neffect = 'deny'\n", 1, "a rule without `id`", "id = \"reads\"");
    check_file("[[rule]]\nid = ''\neffect = 'deny'\n", 2, "an empty `id`", "name");
    check_file("[[rule]]\nid = 'defaults'\neffect = 'deny'\n", 2, "stands for the [defaults]", "name");
    let twice = "[[rule]]\nid = 'a'\neffect = 'deny'\n[[rule]]\nid = 'a'\neffect = 'ask'\ntool = 'x'\nserver = 'y'\nmode = 'shadow'\n";
    check_file(twice, 5, "the id `a` is taken by the rule in line 1", "its own id");
}

#[test]
fn words_that_are_not_known_are_answered_with_those_that_are() {
    check_file(
        "[[rule]]\nid = 'a'\neffect = 'alow'\n",
        3,
        "`rule[1].effect` does not know",
        "did you mean \"allow\"?",
    );
    check_file("[defaults]\neffect = 'maybe'\n", 2, "`defaults.effect`", "\"deny\", \"ask\" or \"allow\"");
    check("repeat = 'always'", 1, "`rule[1].repeat`", "\"never\", \"keyed\" or \"safe\"");
    check("mode = 'audit'", 1, "`rule[1].mode`", "\"enforce\" or \"shadow\"");
    check("on_join = 'wait'", 1, "`rule[1].on_join`", "\"handle\"");
    check("on_disconnect = 'finsh'", 1, "`rule[1].on_disconnect`", "did you mean \"finish\"?");
    check("reuse = 'after-failure'", 1, "`rule[1].reuse`", "did you mean \"after_failure\"?");
    check("tol = 'x'", 1, "unknown key `rule[1].tol`", "did you mean `tool`?");
    check("[rule.retry]\natempts = 3", 2, "unknown key `rule[1].retry.atempts`", "did you mean `attempts`?");
    check("[rule.gate]\nquorums = 3", 2, "unknown key `rule[1].gate.quorums`", "did you mean `quorum`?");
    check_file("[defaults]\ngate = {}\n", 2, "unknown key `defaults.gate`", "known here");
    check_file("[defaults]\nidempotency = {}\n", 2, "unknown key `defaults.idempotency`", "known here");
}

#[test]
fn conditions_are_checked_against_their_operator() {
    let check = |condition: &str, message: &str, hint: &str| {
        check(&format!("when = [\n  {{ {condition} }},\n]"), 2, message, hint);
    };
    check("op = 'eq', value = 1", "`arg` is missing", "arg = \"/pointer\"");
    check("arg = 'amount', op = 'eq', value = 1", "`arg` is not a JSON Pointer", "\"/amount\"");
    check("arg = '/a', value = 1", "a condition without `op`", "eq, ne, lt");
    check("arg = '/a', op = '<', value = 1", "does not know this word", "\"eq\"");
    check("arg = '/a', op = 'eq'", "`eq` without `value`", "value = ...");
    check("arg = '/a', op = 'gt', value = '100'", "`gt` compares numbers", "without quotes");
    check("arg = '/a', op = 'in', value = 'x'", "`in` needs a list", "[\"EUR\", \"USD\"]");
    check("arg = '/a', op = 'in', value = []", "`in` needs a list", "[\"EUR\", \"USD\"]");
    check("arg = '/a', op = 'glob', value = '{a'", "no glob", "*.txt");
    check("arg = '/a', op = 'glob', value = 1", "`glob` compares with a text", "quotes");
    check("arg = '/a', op = 'prefix', value = ''", "empty prefix", "`exists`");
    check(
        "arg = '/a', op = 'regex', value = '('",
        "no regular expression: error: unclosed group",
        "Rust `regex`",
    );
    check("arg = '/a', op = 'regex', value = '(?=x)'", "look-around", "Rust `regex`");
    check("arg = '/a', op = 'exists', value = 1", "`exists` needs true or false", "value = true");
    check("arg = '/a', op = 'under', value = '/a/../b'", "read in two ways", "plain path");
    check("arg = '/a', op = 'eq', value = 1, vlaue = 2", "unknown key `rule[1].when[1].vlaue`", "known here");
}

#[test]
fn patterns_that_would_cost_too_much_are_refused() {
    let check = |pattern: &str, message: &str| {
        let text = format!("when = [{{ arg = '/a', op = 'regex', value = '{pattern}' }}]");
        check(&text, 1, message, "regex");
    };
    check("(a{1000}){1000}", "too large once compiled");
    check("((a{100}){100}){100}", "too large once compiled");
    check(&r"\w{5000}".repeat(20), "too large once compiled");
    check(&"a".repeat(5000), "at most 4096 bytes");
    check(&format!("{}a{}", "(".repeat(500), ")".repeat(500)), "no regular expression");
    self::check(&format!("tool = '{}'", "*".repeat(5000)), 1, "at most 4096 bytes", "list_*");
    let slow = crate::Pattern::parse("(a+)+$").expect("it is fine for an engine that does not backtrack");
    assert!(!slow.matches(&format!("{}b", "a".repeat(100_000))));
    let stars = crate::Glob::parse(&"*a".repeat(200)).expect("stars are cheap");
    assert!(!stars.matches(&"a".repeat(199)));
}

#[test]
fn settings_are_checked() {
    check("tool = '{a'", 1, "`tool` is no glob", "{a,b}");
    check("attempt_timeout = '0s'", 1, "may not be zero", "\"30s\"");
    check("idle_timeout = '0s'", 1, "may not be zero", "\"off\"");
    check("call_timeout = 60", 1, "`rule[1].call_timeout` cannot be an integer like 60", "\"30s\"");
    check("retry = { attempts = 0 }", 1, "`attempts` is out of range", "from 1 to 1000");
    check("retry = { factor = 0.5 }", 1, "`factor` is out of range", "from 1.0");
    check("retry = { retry_on = ['ok', '['] }", 1, "no regular expression", "Rust `regex`");
    check("limits = { rate = '10' }", 1, "`rule[1].limits.rate`", "\"10/s\"");
    check("limits = { concurrency = 0 }", 1, "`concurrency` is out of range", "from 1");
    check("attempt_timeout = '60s'\ncall_timeout = '10s'", 2, "shorter than `attempt_timeout`", "no attempt");
}

#[test]
fn idempotency_preview_and_probe_are_checked() {
    check("idempotency = { key = 'requierd' }", 1, "this is no key", "\"required\" or an effect key");
    check("idempotency = { key = 'x:{charge}' }", 1, "JSON Pointer", "refund:{/charge}");
    check("idempotency = { upstream = 'argument:/x' }", 1, "`rule[1].idempotency.upstream`", "arg:/pointer");
    check("idempotency = { upstream = 'header:a b' }", 1, "`rule[1].idempotency.upstream`", "header:Name");
    check_file(
        "[[rule]]\nid = 'r'\nrepeat = 'keyed'\n",
        1,
        "without telling the upstream a key",
        "if the upstream deduplicates",
    );
    check("preview = { drift = ['/a'] }", 1, "without `tool` or `dry_run`", "dry_run = {");
    check(
        "preview = { tool = 'q', dry_run = { arg = '/d' } }",
        1,
        "either a `tool` or a `dry_run`",
        "delete one",
    );
    check("preview = { tool = 'q', args = { a = '{b}' } }", 1, "`args` is no template", "{/from}");
    check("preview = { tool = 'q', drift = ['x'] }", 1, "not a JSON Pointer", "/balance_after");
    check("probe = { happened = { at = '/f', equals = 1 } }", 1, "a probe without `tool`", "read-only tool");
    check("probe = { tool = 'f' }", 1, "a probe without `happened`", "equals = true");
    check(
        "probe = { tool = 'f', happened = { at = '/f' } }",
        1,
        "`happened` without `equals`",
        "equals = true",
    );
    check("probe = { tool = 'f', happened = { equals = 1 } }", 1, "`at` is missing", "at = \"/pointer\"");
}

#[test]
fn gates_are_checked() {
    check("gate = { approvers = ['finance'] }", 1, "this names no approver", "group:NAME");
    check("gate = { approvers = [] }", 1, "nobody could approve", "leave `approvers` out");
    check("gate = { quorum = 0 }", 1, "`quorum` is out of range", "from 1 to 100");
    check(
        "gate = { approvers = ['operator:ana'], quorum = 2 }",
        1,
        "larger than the number of approvers",
        "name more",
    );
    check("gate = { approve_by = '0s' }", 1, "may not be zero", "30s");
    check_file(
        "[[rule]]\nid = 'a'\neffect = 'allow'\ntool = 'x'\ngate = {}\n",
        5,
        "has a gate",
        "effect = \"ask\"",
    );
}

#[test]
fn rules_that_never_matter_are_warned_about() {
    let pair =
        |first: &str, second: &str| format!("[[rule]]\nid = 'a'\n{first}\n[[rule]]\nid = 'b'\n{second}\n");
    let deny_all = "effect = 'deny'\nserver = 'bank'";
    let allow = "effect = 'allow'\nserver = 'bank'\ntool = 'pay'";
    check_file(&pair(deny_all, allow), 5, "rule `b` never decides: rule `a` denies every call", "strictest");
    check_file(&pair(allow, deny_all), 1, "rule `a` never decides: rule `b` denies every call", "strictest");
    let lists = pair("effect = 'ask'\ntool = '{list_*,pay}'", "effect = 'allow'\ntool = '{list_a,list_b*}'");
    check_file(&lists, 5, "rule `b` never decides: rule `a` asks for every call", "strictest");
    let same = "effect = 'ask'\ntool = 'pay'";
    check_file(&pair(same, same), 5, "rule `b` says what rule `a` says already", "delete one");
    for quiet in [
        pair("effect = 'deny'\ntool = 'pay*'", "effect = 'allow'\ntool = 'p*'"),
        pair("effect = 'deny'\nwhen = [{ arg = '/a', op = 'exists' }]", "effect = 'allow'\ntool = 'x'"),
        pair("effect = 'deny'\nmode = 'shadow'", "effect = 'allow'\ntool = 'x'"),
        pair("effect = 'ask'\ntool = 'x'", "effect = 'ask'\ntool = 'x'\nretry.attempts = 1"),
        pair("effect = 'ask'", "tool = 'x'\nretry.attempts = 1"),
    ] {
        assert_eq!(load(&quiet).1, [""; 0], "{quiet}");
    }
}

#[test]
fn rules_that_say_more_than_they_look_like_are_warned_about() {
    check_file(
        "[[rule]]\nid = 'a'\neffect = 'allow'\n",
        1,
        "allows every tool of every server",
        "server = \"*\"",
    );
    check_file("[[rule]]\nid = 'a'\ntool = 'x'\nmode = 'shadow'\n", 1, "no effect to record", "delete it");
    check_file(
        "[defaults]\nrepeat = 'keyed'\n",
        1,
        "the default `repeat` is \"keyed\"",
        "counts as \"never\"",
    );
    let loose = |condition: &str, message: &str, hint: &str| {
        let text = format!(
            "[[rule]]\nid = 'a'\neffect = 'allow'\ntool = 'x'\nwhen = [{{ arg = '/p', {condition} }}]\n"
        );
        check_file(&text, 1, message, hint);
    };
    loose("op = 'prefix', value = '/srv/'", "`/ok/../etc` passes `prefix`", "\"under\"");
    loose("op = 'glob', value = '/srv/*'", "`/ok/../etc` passes `glob`", "\"under\"");
    loose("op = 'regex', value = 'ok'", "anywhere in the text", "'^...$'");
}

#[test]
fn keyed_may_get_its_upstream_from_a_rule_that_always_matches_with_it() {
    let keyed = "[[rule]]\nid = 'k'\nrepeat = 'keyed'\ntool = 'pay'\n";
    let upstream = |tool: &str| {
        format!("[[rule]]\nid = 'u'\ntool = '{tool}'\nidempotency = {{ upstream = 'meta:k' }}\n")
    };
    assert_eq!(load(&format!("{keyed}{}", upstream("p*"))).1, [""; 0]);
    let narrow = format!("{keyed}{}", upstream("pay_x"));
    check_file(&narrow, 1, "without telling the upstream a key", "[rule.idempotency]");
}

#[test]
fn rules_about_nothing_known_are_found_once_servers_and_tools_are_known() {
    let (policy, _) = load(
        "[[rule]]\nid = 'a'\neffect = 'ask'\nserver = 'bnak'\ntool = 'pay'\n[[rule]]\nid = 'b'\neffect = 'ask'\nserver = 'bank'\ntool = 'pya'\n[[rule]]\nid = 'c'\neffect = 'ask'\nserver = 'b*'\ntool = '{pay,x}'\n",
    );
    let known = |list: &[(&str, Option<&str>)]| {
        let known: Vec<_> = list.iter().map(|(s, t)| (s.to_string(), t.map(str::to_owned))).collect();
        policy.unmatched(&known).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let servers = "warning: holdfast.toml:4:10: rule `a` is about no known server\n   | server = 'bnak'\n   hint: known servers: bank, web";
    assert_eq!(known(&[("bank", None), ("web", None)]), [servers], "tools are not listed: any may exist");
    let tools = "warning: holdfast.toml:10:8: rule `b` is about no known tool\n   | tool = 'pya'\n   hint: known tools: close, pay";
    assert_eq!(known(&[("bank", Some("pay")), ("bank", Some("close")), ("web", None)]), [servers, tools]);
}

#[test]
fn other_keys_of_the_file_stay_for_other_readers() {
    let document = Document::parse(
        "h",
        "version = 1\n[listen]\nmcp = 'x'\n[[rule]]\nid = 'a'\neffect = 'ask'\n",
        &|_| None,
    )
    .expect("the text is TOML");
    let root = document.root();
    let policy = Policy::load(&root);
    assert_eq!(policy.rules().len(), 1);
    assert!(!document.has_errors());
    root.finish();
    let found: Vec<String> = document.into_problems().into_iter().map(|problem| problem.message).collect();
    assert_eq!(found, ["unknown key `version`", "unknown key `listen`"]);
}

#[test]
fn what_the_reference_says_is_what_a_rule_holds() {
    let (policy, _) = load(REFERENCE);
    let rule = &policy.rules()[2];
    let gate = rule.gate.clone().expect("the rule has a gate");
    assert_eq!(gate.approvers, [Approver::Group("finance".into())]);
    assert_eq!((gate.approve_by_ms, gate.execute_by_ms), (4 * 3_600_000, 15 * 60_000));
    let probe = rule.settings.probe.as_ref().expect("the rule has a probe");
    assert_eq!((probe.absent, probe.settle_ms), (Absent::Hold, 300_000));
    let preview = rule.settings.preview.as_ref().expect("the rule has a preview");
    assert!(matches!(&preview.by, PreviewBy::Companion { tool, .. } if tool == "quote_transfer"));
    let idempotency = rule.settings.idempotency.as_ref().expect("the rule has keys");
    assert_eq!(
        idempotency.upstream.as_ref().map(ToString::to_string).as_deref(),
        Some("arg:/idempotency_key")
    );
    assert_eq!(rule.settings.attempts, Some(3));
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text: String) {
        if let Ok(document) = Document::parse("f", &text, &|_| None) {
            Policy::load(&document.root());
        }
    }

    /// Texts that get further than random ones: the reference with a piece cut out or doubled.
    #[test]
    fn no_damaged_policy_panics(from in 0usize..5000, length in 0usize..40, insert in "[\\[\\]{}'\"=.a-z/$*0-9\n]{0,6}") {
        let cut = |at: usize| (at.min(REFERENCE.len())..=REFERENCE.len()).find(|at| REFERENCE.is_char_boundary(*at)).unwrap();
        let text = format!("{}{insert}{}", &REFERENCE[..cut(from)], &REFERENCE[cut(from + length)..]);
        if let Ok(document) = Document::parse("f", &text, &|_| Some("x".into())) {
            let policy = Policy::load(&document.root());
            let arguments = serde_json::json!({"amount": 250});
            let (hints, trust) = (crate::Hints::default(), crate::Trust::Nothing);
            let question = crate::Question { principal: "p", server: "bank", tool: "transfer", arguments: &arguments, hints, trust };
            let _ = policy.explain(&question).to_string();
        }
    }
}
