//! What an approver has to be warned about: characters that deceive, words of mixed scripts, hosts that only look right.

use super::visible::{Unseen, is_mark};

/// One kind of deception, found at least once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Warning {
    /// What it is: words that a plural `s` can follow.
    pub(crate) what: &'static str,
    /// How often.
    pub(crate) count: usize,
    /// The first one, with nothing in it hidden.
    pub(crate) example: String,
}

/// Everything in `text` that may make it look like something else, one entry for each kind.
pub(crate) fn warnings(text: &str) -> Vec<Warning> {
    let mut found = Found::default();
    let mut unseen = Unseen::default();
    for c in text.chars().filter(|c| unseen.hides(*c)) {
        found.note(kind(c), || format!("U+{:04X}", u32::from(c)));
    }
    for (_, word) in mixed_words(text) {
        found.note("mixed-script word", || spelt_out(word));
    }
    for host in hosts(text) {
        if let Some(what) = suspicion(host) {
            found.note(what, || spelt_out(host));
        }
    }
    for escape in ["\\u001b", "\\u0000", "\\u0007", "\\b"] {
        for _ in text.match_indices(escape).filter(|(at, _)| !is_escaped(text, *at)) {
            found.note("control character", || escape.to_owned());
        }
    }
    found.0
}

/// What a deceptive character does.
pub(crate) fn kind(c: char) -> &'static str {
    match c {
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            "text-reordering character"
        }
        '\u{e0000}'..='\u{e0fff}' => "invisible tag character",
        _ if is_mark(c) && c != '\u{34f}' => "stacked combining mark",
        _ if c.is_control() => "control character",
        _ if c.is_whitespace() => "unusual space",
        _ => "invisible character",
    }
}

/// Words with letters of scripts that look alike, with their places. JSON's escapes are no letters.
pub(crate) fn mixed_words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    words(text).filter(|(_, word)| !word.is_ascii() && is_mixed(word))
}

fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut start = None;
    let mut chars = text.char_indices().peekable();
    std::iter::from_fn(move || {
        loop {
            let Some((at, c)) = chars.next() else {
                return start.take().map(|from| (from, &text[from..]));
            };
            let ended = |start: &mut Option<usize>| start.take().map(|from| (from, &text[from..at]));
            if c == '\\' {
                let word = ended(&mut start);
                if let Some((_, 'u')) = chars.next() {
                    for _ in 0..4 {
                        chars.next_if(|(_, digit)| digit.is_ascii_hexdigit());
                    }
                }
                if word.is_some() {
                    return word;
                }
            } else if c.is_alphanumeric() {
                start.get_or_insert(at);
            } else if let Some(word) = ended(&mut start) {
                return Some(word);
            }
        }
    })
}

/// Scripts whose letters are taken for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Script {
    Latin,
    Greek,
    Cyrillic,
    Armenian,
    Cherokee,
    Styled,
}

fn script(c: char) -> Option<Script> {
    Some(match c {
        'a'..='z' | 'A'..='Z' | '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' => Script::Latin,
        // The micro and ohm signs are no attempt to deceive.
        '\u{370}'..='\u{3ff}' | '\u{1f00}'..='\u{1fff}' => Script::Greek,
        '\u{400}'..='\u{52f}' | '\u{1c80}'..='\u{1c8f}' | '\u{2de0}'..='\u{2dff}' => Script::Cyrillic,
        '\u{530}'..='\u{58f}' => Script::Armenian,
        '\u{13a0}'..='\u{13ff}' | '\u{ab70}'..='\u{abbf}' => Script::Cherokee,
        '\u{ff10}'..='\u{ff5a}' | '\u{1d400}'..='\u{1d7ff}' => Script::Styled,
        _ => return None,
    })
}

fn is_mixed(word: &str) -> bool {
    let mut scripts = word.chars().filter_map(script);
    let Some(first) = scripts.next() else { return false };
    first == Script::Styled || scripts.any(|other| other != first)
}

/// The authorities of all URLs in `text`, and every other name in punycode. Goes through `text` once: it may be long.
fn hosts(text: &str) -> impl Iterator<Item = &str> {
    let by_url = text.match_indices("://").map(|(at, found)| {
        let start = at + found.len();
        let rest = &text[start..];
        start..start + rest.find(ends_host).unwrap_or(rest.len())
    });
    let mut passed = by_url.clone().peekable();
    let bare = text.split(|c| ends_host(c) || c == '@').filter(move |word| {
        let mut labels = word.split('.');
        if !labels.any(is_punycode) {
            return false;
        }
        let at = word.as_ptr() as usize - text.as_ptr() as usize;
        while passed.next_if(|url| url.end < at).is_some() {}
        passed.peek().is_none_or(|url| at < url.start)
    });
    by_url.map(|url| &text[url]).chain(bare)
}

fn is_punycode(label: &str) -> bool {
    label.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("xn--"))
}

fn ends_host(c: char) -> bool {
    c.is_whitespace() || "/?#\\\"'<>()[]{},;`|".contains(c)
}

fn suspicion(authority: &str) -> Option<&'static str> {
    let host = authority.rsplit('@').next().unwrap_or(authority);
    if host.len() < authority.len() {
        return Some("misleading URL");
    }
    if host.split('.').any(is_punycode) {
        return Some("punycode host");
    }
    if host.is_ascii() { None } else { Some("non-ASCII host") }
}

/// `text` with everything written out that is not ASCII: what looks like an `a` may be none.
fn spelt_out(text: &str) -> String {
    let mut spelt = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_graphic() { spelt.push(c) } else { spelt.extend(c.escape_unicode()) }
    }
    spelt
}

/// Whether the backslash at `at` is itself escaped.
fn is_escaped(text: &str, at: usize) -> bool {
    text[..at].bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

#[derive(Default)]
struct Found(Vec<Warning>);

impl Found {
    fn note(&mut self, what: &'static str, example: impl FnOnce() -> String) {
        match self.0.iter_mut().find(|warning| warning.what == what) {
            Some(warning) => warning.count += 1,
            None => self.0.push(Warning { what, count: 1, example: example() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<&'static str> {
        warnings(text).into_iter().map(|warning| warning.what).collect()
    }

    #[test]
    fn a_corpus_of_deceptions() {
        let check = |text: &str, expected: &[&str]| assert_eq!(kinds(text), expected, "{text:?}");
        check("user\u{202e}gnp.exe", &["text-reordering character"]);
        check("a\u{2066}b\u{2069}", &["text-reordering character"]);
        check("pay\u{200b}pal", &["invisible character"]);
        check("ok\u{e0041}\u{e0042}", &["invisible tag character"]);
        check("\u{1b}[31mred", &["control character"]);
        check(r#""\u001b[31mred""#, &["control character"]);
        check("a\u{a0}b\u{3000}c", &["unusual space"]);
        check(&"a\u{301}".repeat(9), &[]);
        check(&format!("a{}", "\u{301}".repeat(9)), &["stacked combining mark"]);
        check("p\u{430}ypal", &["mixed-script word"]);
        check("\u{ff50}\u{ff41}\u{ff59}", &["mixed-script word"]);
        check("\u{1d429}\u{1d41a}y", &["mixed-script word"]);
        check("https://p\u{430}ypal.com/login", &["mixed-script word", "non-ASCII host"]);
        check("https://\u{441}\u{43e}\u{43c}/", &["non-ASCII host"]);
        check("https://xn--pypal-4ve.com/", &["punycode host"]);
        check("mail to billing@xn--pypal-4ve.com", &["punycode host"]);
        check("https://bank.example@evil.example/", &["misleading URL"]);
        check("https://a.example/xn--b-c", &["punycode host"]);
        check("https://me@xn--a.example/", &["misleading URL"]);
    }

    #[test]
    fn long_texts_are_gone_through_once() {
        let begun = std::time::Instant::now();
        for part in [" ", "a ", "xn--a ", "https://xn--a ", "://@", "\\", "\u{301}", "\u{430}a"] {
            warnings(&part.repeat(300_000));
        }
        // By pairs of places it would be days.
        assert!(begun.elapsed() < std::time::Duration::from_secs(60));
    }

    #[test]
    fn what_is_plain_is_not_warned_about() {
        for text in [
            r#"{"to":"shop","note":"Zwölf Boxkämpfer \u00fc\n日本語 😀"}"#,
            r#"{"text":"\nПривет, мир\tДа"}"#,
            r#"{"path":"C:\\u001bad\\new"}"#,
            "Ωmega and Ελλάδα, Москва and Moscow",
            "https://example.com/a?b=c@d see also http://127.0.0.1:7412/",
            "äöü ÀÉÎ naïve café",
        ] {
            let expected: &[&str] = if text.starts_with('Ω') { &["mixed-script word"] } else { &[] };
            assert_eq!(kinds(text), expected, "{text}");
        }
    }

    #[test]
    fn each_kind_is_counted_and_shown_without_deceiving() {
        let found = warnings("a\u{200b}b\u{200b}c\u{2060}");
        assert_eq!((found[0].count, found[0].example.as_str()), (3, "U+200B"));
        assert_eq!(warnings("p\u{430}y")[0].example, r"p\u{430}y");
        assert_eq!(warnings("https://xn--a.com/xn--b")[0].count, 2);
        let found = warnings("https://ex\u{202e}ample.com");
        assert!(found.iter().all(|warning| !warning.example.contains('\u{202e}')), "{found:?}");
    }
}
