//! For which calls a remembered decision speaks, and which facts of the register can follow which.

use serde_json::json;

use super::*;

const NOW: Millis = Millis(1_000);

fn by(name: &str) -> Decider {
    Decider { name: name.into(), groups: Vec::new(), via: "inbox".into() }
}

fn gate(rule: &str, quorum: u32) -> Gate {
    Gate { rule: holdfast_policy::RuleId::new(rule), quorum, ..Gate::default() }
}

fn remembered() -> Remembered {
    Remembered {
        id: RememberedId(Uuid::from_u128(1)),
        by: by("ana"),
        call: CallId(Uuid::from_u128(2)),
        digest: Hash32([1; 32]),
        principal: "nightly".into(),
        server: "bank".into(),
        identity: "bank --stdio".into(),
        tool: "transfer".into(),
        definition: "d1".into(),
        gates: vec![gate("money", 1)],
        pins: vec![("to".into(), Text::of("shop")), ("amount".into(), Text::of(&json!(20)))],
        vary: vec!["reference".into()],
        uses: 2,
        expires: Millis(2_000),
    }
}

/// Whether it speaks for the call of a test with this changed.
#[track_caller]
fn check(change: impl FnOnce(&mut Asked), expected: Result<(), &str>) {
    let mut asked = Asked {
        now: NOW,
        principal: "nightly",
        identity: "bank --stdio",
        tool: "transfer",
        definition: "d1",
        arguments: json!({"reference": "r-1", "amount": 20, "to": "shop"}),
        gates: vec![gate("money", 1)],
    };
    change(&mut asked);
    let Asked { now, principal, identity, tool, definition, arguments, gates } = &asked;
    let like = Likeness { principal, server: "bank", identity, tool, definition, arguments, gates };
    assert_eq!(remembered().speaks_for(*now, &like), expected.map_err(str::to_owned));
}

struct Asked {
    now: Millis,
    principal: &'static str,
    identity: &'static str,
    tool: &'static str,
    definition: &'static str,
    arguments: Value,
    gates: Vec<Gate>,
}

#[test]
fn it_speaks_for_calls_like_its_own() {
    check(|_| {}, Ok(()));
    check(|asked| asked.arguments["reference"] = json!({"any": "thing"}), Ok(()));
    check(|asked| asked.arguments = json!({"to": "shop", "amount": 20}), Ok(()));
    check(|asked| asked.now = Millis(1_999), Ok(()));
}

#[test]
fn and_for_no_others() {
    check(|asked| asked.now = Millis(2_000), Err("it has expired"));
    check(|asked| asked.principal = "other", Err("it is for the agent `nightly`"));
    check(|asked| asked.tool = "close", Err("it is for the tool `transfer`"));
    check(|asked| asked.identity = "sh", Err("the server behind this name was another one then"));
    check(|asked| asked.definition = "d2", Err("the tool's definition was another one then"));
    check(|asked| asked.arguments["to"] = json!("thief"), Err("it is for `to` \"shop\", not \"thief\""));
    // Whoever pins a number pins its text: what the server makes of 20.0 is the server's business.
    let float = serde_json::from_str(r#"{"to": "shop", "amount": 20.0}"#).expect("JSON");
    check(|asked| asked.arguments = float, Err("it is for `amount` 20, not 20.0"));
    check(|asked| asked.arguments = json!({"amount": 20}), Err("it is for calls with `to` \"shop\""));
    check(|asked| asked.arguments["memo"] = json!(""), Err("it is for calls without `memo`"));
    check(|asked| asked.arguments = json!([]), Err("the arguments are no object"));
}

#[test]
fn it_answers_only_what_was_asked_then() {
    let more = Err("what the rule `money` asks was not asked then");
    check(|asked| asked.gates = vec![gate("money", 2)], more);
    let another = Err("what the rule `night` asks was not asked then");
    check(|asked| asked.gates.push(gate("night", 1)), another);
}

#[test]
fn every_use_has_a_key_of_its_own() {
    let (one, mut other) = (remembered(), remembered());
    other.id = RememberedId(Uuid::from_u128(9));
    let keys = [one.use_key(1), one.use_key(2), other.use_key(1)];
    assert!(keys[0] != keys[1] && keys[0] != keys[2] && keys[1] != keys[2]);
}

fn defined(definition: &Value) -> Note {
    Note::Defined { server: "bank".into(), tool: "pay".into(), definition: Text::of(definition) }
}

fn changed(definition: &Value) -> Note {
    Note::Changed { server: "bank".into(), tool: "pay".into(), definition: definition_hash(definition) }
}

fn trusted(definition: &Value) -> Note {
    let definition = Text::of(definition);
    Note::Trusted { server: "bank".into(), tool: "pay".into(), definition, by: by("ana") }
}

#[test]
fn a_definition_is_trusted_when_it_is_seen_first_or_accepted() {
    let (first, second, third) = (json!({"v": 1}), json!({"v": 2}), json!({"v": 3}));
    let mut register = Register::default();
    let mut note = |note: Note| register.apply(NOW, &note).map_err(|misfit| misfit.0);
    assert_eq!(note(changed(&second)), Err("the tool was never seen"));
    assert_eq!(note(trusted(&second)), Err("the tool was never seen"));
    assert_eq!(note(defined(&first)), Ok(()));
    assert_eq!(note(defined(&first)), Err("the tool was seen before"));
    assert_eq!(note(changed(&second)), Ok(()));
    assert_eq!(note(trusted(&third)), Ok(()));

    assert_eq!(register.entries, 3, "what does not fit is not counted");
    let pay = register.definition("bank", "pay").expect("it was seen");
    assert_eq!((&pay.trusted.definition, &pay.changed), (&Text::of(&third), &None));
    assert_eq!(pay.by, Some(by("ana")));
    assert_eq!(register.definition("bank", "other"), None);
}

#[test]
fn the_order_of_members_changes_no_definition() {
    let [one, same, other] = [
        r#"{"name": "pay", "inputSchema": {"type": "object", "required": ["a", "b"]}}"#,
        r#"{"inputSchema": {"required": ["a", "b"], "type": "object"}, "name": "pay"}"#,
        r#"{"inputSchema": {"required": ["b", "a"], "type": "object"}, "name": "pay"}"#,
    ]
    .map(|text| definition_hash(&serde_json::from_str(text).expect("JSON")));
    assert_eq!(one, same);
    assert_ne!(one, other);
}

#[test]
fn what_is_forgotten_speaks_no_more() {
    let mut register = Register::default();
    let forget = Note::Forgotten { id: remembered().id, by: by("bo"), reason: "enough".into() };
    assert_eq!(register.apply(NOW, &forget), Err(Misfit("there is no such remembered decision")));
    register.apply(NOW, &Note::Remembered(remembered())).expect("a new one");
    let again = register.apply(NOW, &Note::Remembered(remembered()));
    assert_eq!(again, Err(Misfit("a remembered decision of this id exists")));
    assert_eq!(register.decision(remembered().id), Some(&remembered()));
    register.apply(NOW, &forget).expect("it is there");
    assert_eq!(register.remembered().count(), 0);
}
