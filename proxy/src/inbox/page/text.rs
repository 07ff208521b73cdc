//! Text of others as HTML: escaped, with what deceives written out and marked.

use std::fmt::Write;

use maud::{Markup, PreEscaped, html};

use super::super::{
    deception::{self, Warning},
    visible::Unseen,
};

/// Runs of spaces longer than this are counted instead of shown: they push things out of sight.
const LONGEST_RUN: usize = 16;

/// `text` with nothing hidden: deceptive characters as marked escapes, words of mixed scripts marked.
pub(super) fn shown(text: &str) -> Markup {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    push_shown(&mut out, text);
    PreEscaped(out)
}

/// The same, of what may have several lines, such as the last words of a server.
pub(super) fn shown_lines(text: &str) -> Markup {
    html! { @for (n, line) in text.lines().enumerate() { @if n > 0 { br; } (shown(line)) } }
}

/// Appends what [`shown`] gives.
pub(super) fn push_shown(out: &mut String, text: &str) {
    let mut at = 0;
    for (from, word) in deception::mixed_words(text) {
        push_chars(out, &text[at..from]);
        out.push_str(r#"<mark class="mixed" title="letters of different scripts in one word">"#);
        push_chars(out, word);
        out.push_str("</mark>");
        at = from + word.len();
    }
    push_chars(out, &text[at..]);
}

fn push_chars(out: &mut String, text: &str) {
    let mut rest = text;
    let mut unseen = Unseen::default();
    while let Some(c) = rest.chars().next() {
        let spaces = rest.len() - rest.trim_start_matches(' ').len();
        if spaces > LONGEST_RUN {
            let _ =
                write!(out, r#"<span class="esc" title="a run of spaces">{} spaces</span>"#, grouped(spaces));
            rest = &rest[spaces..];
            continue;
        }
        match c {
            _ if unseen.hides(c) => {
                let code = u32::from(c);
                let _ = write!(
                    out,
                    r#"<span class="esc" title="U+{code:04X}: {}">{}</span>"#,
                    deception::kind(c),
                    c.escape_unicode()
                );
            }
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
}

/// The badge for what [`deception::warnings`] found in any of `texts`; nothing where all is plain.
pub(super) fn warning_badge<'a>(texts: impl IntoIterator<Item = &'a str>) -> Markup {
    let mut all: Vec<Warning> = Vec::new();
    for warning in texts.into_iter().flat_map(deception::warnings) {
        match all.iter_mut().find(|other| other.what == warning.what) {
            Some(other) => other.count += warning.count,
            None => all.push(warning),
        }
    }
    html! {
        @if !all.is_empty() {
            div.warning role="note" {
                strong { "Look twice. " }
                @for (n, warning) in all.iter().enumerate() {
                    @if n > 0 { ", " }
                    (counted(warning.count, warning.what))
                    " (" code { (warning.example) } ")"
                }
                "."
            }
        }
    }
}

/// `1 word`, `2 words`.
pub(super) fn counted(count: usize, what: &str) -> String {
    format!("{} {what}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// A number with its thousands apart: `1,048,576`.
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of bytes: `57 bytes`, `34.2 kB`, `1.2 MB`.
pub(super) fn bytes(count: usize) -> String {
    let tenths = |unit: usize| format!("{}.{}", grouped(count / unit), count % unit * 10 / unit);
    match count {
        1 => "1 byte".to_owned(),
        0..1_000 => format!("{count} bytes"),
        1_000..1_000_000 => format!("{} kB", tenths(1_000)),
        _ => format!("{} MB", tenths(1_000_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_through_as_markup() {
        for payload in [
            "<script>alert(1)</script>",
            "<img src=x onerror=alert(1)>",
            "\"><svg/onload=alert(1)>",
            "' autofocus onfocus=alert(1) x='",
            "</textarea><script>",
            "&lt;script&gt;",
            "<!--",
            "javascript:alert(1)",
            "p\u{430}y<b>\u{202e}</b>",
        ] {
            let shown = shown(payload).into_string();
            let ours = ["<span class=\"esc\"", "</span>", "<mark class=\"mixed\"", "</mark>"];
            let bare = ours.iter().fold(shown.clone(), |text, tag| text.replace(tag, ""));
            let bare = bare.replace("\">", "").replace(" title=\"", "");
            assert!(!bare.contains(['<', '"', '\'']), "{payload}: {shown}");
        }
        assert_eq!(shown("&lt;").into_string(), "&amp;lt;");
        assert_eq!(
            shown_lines("its last words:\n<b>\r\nend\n").into_string(),
            "its last words:<br>&lt;b&gt;<br>end"
        );
    }

    #[test]
    fn what_deceives_is_written_out() {
        let shown = shown("a\u{202e}b").into_string();
        assert!(shown.contains(r"\u{202e}") && !shown.contains('\u{202e}'), "{shown}");
        assert!(shown.contains("U+202E: text-reordering character"), "{shown}");
        let padded = super::shown(&format!("a{}b", " ".repeat(1_048_576))).into_string();
        assert!(padded.len() < 200 && padded.contains("1,048,576 spaces"), "{padded}");
        assert_eq!(super::shown("a  b").into_string(), "a  b");
    }

    #[test]
    fn figures() {
        assert_eq!([1, 999, 1_234, 1_048_576].map(grouped), ["1", "999", "1,234", "1,048,576"]);
        assert_eq!(
            [0, 1, 57, 34_249, 1_048_576].map(bytes),
            ["0 bytes", "1 byte", "57 bytes", "34.2 kB", "1.0 MB"]
        );
        assert_eq!([1, 2_000].map(|count| counted(count, "call")), ["1 call", "2,000 calls"]);
    }
}
