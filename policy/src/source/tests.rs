//! Documents, their variables and units, and the words for what is wrong in them.

use proptest::prelude::*;

use super::*;

fn vars(name: &str) -> Option<String> {
    match name {
        "TOKEN" => Some("s3cret".to_owned()),
        "EMPTY" => Some(String::new()),
        "NESTED" => Some("${TOKEN}".to_owned()),
        _ => None,
    }
}

fn parse(text: &str) -> Document {
    Document::parse("h.toml", text, &vars).expect("the text is TOML")
}

/// Reads with `read` and gives the problems as they are printed.
fn problems(text: &str, read: impl FnOnce(&Section<'_>)) -> Vec<String> {
    let document = parse(text);
    read(&document.root());
    document.into_problems().iter().map(ToString::to_string).collect()
}

#[track_caller]
fn check(text: &str, read: impl FnOnce(&Section<'_>), expected: &[&str]) {
    assert_eq!(problems(text, read), expected);
}

#[test]
fn variables_expand_in_every_string_and_nowhere_else() {
    let text = "\
        a = 'x${TOKEN}y'\n'${TOKEN}' = 'key'\nlist = ['${UNSET:-d}', '$${TOKEN}', '$5 and $']\n\
        t = { e = '${EMPTY:-fallback}', f = '${EMPTY}', n = '${NESTED}', none = '${UNSET:-}' }\n";
    let document = parse(text);
    let root = document.root();
    assert_eq!(root.string("a").as_deref(), Some("xs3crety"));
    assert_eq!(root.string("${TOKEN}").as_deref(), Some("key"));
    assert_eq!(root.strings("list").unwrap(), ["d", "${TOKEN}", "$5 and $"]);
    let table = root.string_map("t").unwrap();
    let values: Vec<&str> = ["e", "f", "n", "none"].iter().map(|key| table[*key].as_str()).collect();
    assert_eq!(values, ["fallback", "", "${TOKEN}", ""], "what a variable holds is not expanded again");
    assert!(document.into_problems().is_empty());
}

#[test]
fn variables_that_cannot_be_expanded_name_the_line_and_the_way_out() {
    check(
        "a = 1\ntoken = \"${UNSET}\"\nbad = ['${A-B}', '${']\n",
        |root| {
            root.integer("a");
            assert_eq!(root.string("token"), None);
            assert_eq!(root.strings("bad").unwrap().len(), 0);
            root.finish();
        },
        &[
            "error: h.toml:2:9: the environment variable `UNSET` is not set\n   | token = \"${UNSET}\"\n   hint: set UNSET, or write a default: ${UNSET:-value}",
            "error: h.toml:3:8: `${A-B}` does not name an environment variable\n   | bad = ['${A-B}', '${']\n   hint: names are letters, digits and _; write $${ for a literal ${",
            "error: h.toml:3:18: `${` without a closing `}`\n   | bad = ['${A-B}', '${']\n   hint: write $${ for a literal ${",
        ],
    );
}

#[test]
fn wrong_types_say_what_to_write() {
    check(
        "[s]\nn = 'one'\nb = 1\nt = \"5 minutes\"\nl = 'x'\nf = true\nsize = '4 XB'\nw = 'alow'\nr = 7\n",
        |root| {
            let s = root.section("s").unwrap();
            s.integer("n");
            s.boolean("b");
            s.duration("t");
            s.strings("l");
            s.float("f");
            s.size("size");
            s.one_of("w", &[("allow", 1), ("ask", 2), ("deny", 3)]);
            s.count("r", 1..=5);
            s.finish();
        },
        &[
            "error: h.toml:2:5: `s.n` cannot be a string like 'one'\n   | n = 'one'\n   hint: write 1",
            "error: h.toml:3:5: `s.b` cannot be an integer like 1\n   | b = 1\n   hint: write true or false",
            "error: h.toml:4:5: `s.t` cannot be a string like \"5 minutes\"\n   | t = \"5 minutes\"\n   hint: write a whole number and a unit: \"200ms\", \"30s\", \"10m\", \"4h\" or \"7d\"",
            "error: h.toml:5:5: `s.l` cannot be a string like 'x'\n   | l = 'x'\n   hint: write [\"text\", \"text\"]",
            "error: h.toml:6:5: `s.f` cannot be a boolean like true\n   | f = true\n   hint: write 1.5",
            "error: h.toml:7:8: `s.size` cannot be a string like '4 XB'\n   | size = '4 XB'\n   hint: write a whole number and a unit: \"64KiB\", \"4MiB\" or \"1GB\"",
            "error: h.toml:8:5: `s.w` does not know this word\n   | w = 'alow'\n   hint: did you mean \"allow\"? Known: \"allow\", \"ask\" or \"deny\"",
            "error: h.toml:9:5: `r` is out of range\n   | r = 7\n   hint: write a number from 1 to 5",
        ],
    );
}

#[test]
fn unknown_keys_are_errors_with_the_nearest_known_one() {
    check(
        "lisen = 'x'\nzzz = 1\n[[rule]]\nid = 'a'\n[[rule]]\nefect = 'deny'\n",
        |root| {
            root.string("listen");
            for rule in root.sections("rule") {
                rule.string("id");
                rule.string("effect");
                rule.finish();
            }
            root.finish();
        },
        &[
            "error: h.toml:1:1: unknown key `lisen`\n   | lisen = 'x'\n   hint: did you mean `listen`? known here: listen, rule",
            "error: h.toml:2:1: unknown key `zzz`\n   | zzz = 1\n   hint: known here: listen, rule",
            "error: h.toml:6:1: unknown key `rule[2].efect`\n   | efect = 'deny'\n   hint: did you mean `effect`? known here: effect, id",
        ],
    );
}

#[test]
fn tables_in_the_wrong_place_are_problems_too() {
    check(
        "a = 1\nb = [1]\n[c]\nx = 1\n",
        |root| {
            assert!(root.section("a").is_none());
            assert!(root.sections("b").is_empty());
            assert!(root.named("c").is_empty());
            assert!(root.string("c").is_none());
        },
        &[
            "error: h.toml:1:5: `a` cannot be an integer like 1\n   | a = 1\n   hint: write a table: [a]",
            "error: h.toml:2:5: `b` cannot be an array like this\n   | b = [1]\n   hint: write tables: [[b]]",
            "error: h.toml:3:2: `c` cannot be a table like this\n   | [c]\n   hint: write named tables: [c.NAME]",
            "error: h.toml:3:2: `c` cannot be a table like this\n   | [c]\n   hint: write \"text\"",
        ],
    );
}

#[test]
fn a_file_that_is_no_toml_names_the_line() {
    let check = |text: &str, line: usize| {
        let found = Document::parse("h.toml", text, &vars).expect_err("it is no TOML");
        assert_eq!((found[0].line, found[0].severity), (line, Severity::Error), "{}", found[0]);
        assert!(found[0].hint.is_some());
    };
    check("a = 1\nb = nope\n", 2);
    check("a = 1\na = 2\n", 2);
    check("[t\n", 1);
    check("\u{e9} = 1", 1);
    check("a = \"open", 1);
}

#[test]
fn columns_count_characters() {
    let found = problems("t = { \"\u{e9}\u{e9}\" = 1, n = 'x' }", |root| {
        root.section("t").unwrap().integer("n");
    });
    assert!(found[0].starts_with("error: h.toml:1:21:"), "{}", found[0]);
}

#[test]
fn durations_sizes_and_rates() {
    let ms = |text| parse_duration(text).map(|time| time.as_millis());
    let times = ["200ms", "30s", "10m", "4h", "7d", "0s"].map(|text| ms(text).unwrap());
    assert_eq!(times, [200, 30_000, 600_000, 14_400_000, 604_800_000, 0]);
    for bad in
        ["", "s", "30", "1.5s", "-1s", "30 sec", "1h30m", "99999999999999999999s", "999999999999999999d"]
    {
        assert_eq!(ms(bad), None, "{bad}");
    }
    for shown in ["200ms", "30s", "10m", "4h", "7d", "61s", "0ms"] {
        assert_eq!(ms(shown).map(|time| show_duration(time as u64)).unwrap(), shown);
    }
    let sizes = ["512", "1KB", "4MiB", "2 GiB", "10b"].map(|text| parse_size(text).unwrap());
    assert_eq!(sizes, [512, 1000, 4 << 20, 2 << 30, 10]);
    for bad in ["", "MiB", "1.5MB", "4TiB", "-1", "99999999999GiB"] {
        assert_eq!(parse_size(bad), None, "{bad}");
    }
    assert_eq!(parse_rate("10/s"), Some((10, 1000)));
    assert_eq!(parse_rate("100/m"), Some((100, 60_000)));
    for bad in ["10", "0/s", "/s", "10/x", "10 per s", "99999999999/s"] {
        assert_eq!(parse_rate(bad), None, "{bad}");
    }
}

#[test]
fn values_keep_their_digits() {
    let document =
        parse("v = [1_000, 0x10, 1.50, 1e+400, 123456789012345678901234567890, 'x', { a = true }]");
    let value = document.root().value("v").unwrap();
    assert_eq!(value.to_string(), r#"[1000,16,1.50,1e+400,123456789012345678901234567890,"x",{"a":true}]"#);
    for bad in ["v = nan", "v = [inf]", "v = 2020-01-01"] {
        assert_eq!(problems(bad, |root| assert_eq!(root.value("v"), None)).len(), 1, "{bad}");
    }
}

#[test]
fn off_is_a_word_of_its_own() {
    let document = parse("a = 'off'\nb = '10m'\n");
    let root = document.root();
    assert_eq!(root.duration_or_off("a"), Some(OrOff::Off));
    assert_eq!(root.duration_or_off("b").and_then(OrOff::into_option).map(|t| t.as_secs()), Some(600));
    assert_eq!(root.duration_or_off("c"), None);
    assert_eq!(root.duration("a"), None);
    assert!(document.has_errors());
}

#[test]
fn named_tables_keep_the_order_of_the_file() {
    let document = parse("[servers.zoo]\nurl = 'z'\n[servers.ant]\nurl = 'a'\n");
    let root = document.root();
    let servers = root.named("servers");
    let read: Vec<(String, Option<String>)> =
        servers.iter().map(|(name, section)| (name.clone(), section.string("url"))).collect();
    assert_eq!(read, [("zoo".into(), Some("z".into())), ("ant".into(), Some("a".into()))]);
    assert_eq!(servers[1].1.path(), "servers.ant");
}

#[test]
fn problems_never_show_what_a_variable_holds() {
    let found = problems("a = '${TOKEN}'\nb = ['${TOKEN}']\n", |root| {
        root.integer("a");
        root.one_of("a", &[("x", ())]);
        root.string("b");
        root.duration("a");
    });
    assert_eq!(found.len(), 4);
    assert!(!found.concat().contains("s3cret"), "{found:#?}");
}

proptest! {
    #[test]
    fn no_text_panics(text: String) {
        if let Ok(document) = Document::parse("f", &text, &vars) {
            document.root().finish();
            let _ = document.into_problems();
        }
    }
}
