//! JSON laid out for reading, from the stored text itself: every number, string and member as it stands there.
//!
//! Only white space between tokens is ours. What is folded says how much it is, and is in the page all the same.

use std::fmt::Write;

use maud::{Markup, PreEscaped, html};

use super::{
    super::visible::Unseen,
    text::{bytes, counted, grouped, push_shown},
};

/// Lines that are shown before the rest is folded.
const LINES: usize = 120;
/// Characters of one string that are shown before the rest of it is folded.
const STRING: usize = 1_200;
/// Lists and objects without others in them stay on one line up to this length.
const INLINE: usize = 64;
/// Deeper levels are not set in any further.
const DEEPEST: usize = 12;

/// `text`, laid out and folded, with its exact bytes below.
pub(super) fn block(text: &str, name: &str) -> Markup {
    html! {
        div.json {
            div.code tabindex="0" role="region" aria-label=(name) { (laid_out(text)) }
            details.exact {
                summary { "Exact text, " (bytes(text.len())) }
                div.code.raw { (super::text::shown(text)) }
            }
        }
    }
}

/// The lines of `text`; all in one where it is not JSON.
pub(super) fn laid_out(text: &str) -> Markup {
    let Some(lines) = lines(text) else {
        return html! { div.l { (super::text::shown(text)) } };
    };
    let (first, rest) = lines.split_at(lines.len().min(LINES));
    html! {
        @for line in first { (line.markup()) }
        @if !rest.is_empty() {
            details.fold {
                summary {
                    (counted(rest.len(), "more line")) ", "
                    (bytes(rest.iter().map(|line| line.source).sum())) " folded"
                }
                @for line in rest { (line.markup()) }
            }
        }
    }
}

/// The same JSON with what deceives in its strings as JSON's own escapes, for fields in which it is changed.
pub(super) fn editable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut unseen = Unseen::default();
    for c in text.chars() {
        if unseen.hides(c) && !matches!(c, '\n' | '\r' | '\t') {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

struct Line {
    depth: usize,
    html: String,
    /// What is folded below the line.
    below: String,
    /// Bytes of the text that the line shows.
    source: usize,
}

impl Line {
    fn new(depth: usize) -> Self {
        Self { depth: depth.min(DEEPEST), html: String::new(), below: String::new(), source: 0 }
    }

    fn markup(&self) -> Markup {
        html! { div class={ "l d" (self.depth) } { (PreEscaped(&self.html)) (PreEscaped(&self.below)) } }
    }
}

/// A token and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Open(u8),
    Close(u8),
    Comma,
    Colon,
    String,
    Number,
    Word,
}

/// The tokens of a JSON text; none where it is not one, roughly: the journal has checked it already.
fn tokens(text: &str) -> Option<Vec<(Token, &str)>> {
    let bytes = text.as_bytes();
    let (mut at, mut found) = (0, Vec::new());
    while let Some(&byte) = bytes.get(at) {
        let rest = &bytes[at..];
        let run = |inside: fn(&u8) -> bool| rest.iter().take_while(|byte| inside(byte)).count();
        let (token, length) = match byte {
            b' ' | b'\n' | b'\r' | b'\t' => {
                at += 1;
                continue;
            }
            b'{' | b'[' => (Token::Open(byte), 1),
            b'}' | b']' => (Token::Close(byte), 1),
            b',' => (Token::Comma, 1),
            b':' => (Token::Colon, 1),
            b'"' => (Token::String, string_length(rest)?),
            b'-' | b'0'..=b'9' => {
                (Token::Number, run(|byte| byte.is_ascii_digit() || b"+-.eE".contains(byte)))
            }
            b'a'..=b'z' => (Token::Word, run(u8::is_ascii_lowercase)),
            _ => return None,
        };
        found.push((token, text.get(at..at + length)?));
        at += length;
    }
    Some(found)
}

fn string_length(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn lines(text: &str) -> Option<Vec<Line>> {
    let tokens = tokens(text)?;
    let mut lines = vec![Line::new(0)];
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(&(token, source)) = tokens.get(at) {
        let line = lines.last_mut().expect("there is a line from the start");
        line.source += source.len();
        match token {
            Token::Open(_) => {
                if let Some(count) = inline(&tokens[at..], depth) {
                    for &(token, source) in &tokens[at..at + count] {
                        push_inline(line, token, source);
                    }
                    at += count;
                    continue;
                }
                depth += 1;
                line.html.push_str(source);
                lines.push(Line::new(depth));
            }
            Token::Close(_) => {
                depth = depth.checked_sub(1)?;
                let mut closing = Line::new(depth);
                closing.html.push_str(source);
                lines.push(closing);
            }
            Token::Comma => {
                line.html.push(',');
                lines.push(Line::new(depth));
            }
            Token::Colon => line.html.push_str(": "),
            Token::String if matches!(tokens.get(at + 1), Some((Token::Colon, _))) => {
                push_token(line, "k", source);
            }
            Token::String => push_string(line, source),
            Token::Number => push_token(line, "u", source),
            Token::Word => push_token(line, "w", source),
        }
        at += 1;
    }
    (depth == 0).then_some(lines)
}

/// How many tokens make a list or object that fits on one line.
fn inline(tokens: &[(Token, &str)], depth: usize) -> Option<usize> {
    let end =
        1 + tokens[1..].iter().position(|(token, _)| matches!(token, Token::Open(_) | Token::Close(_)))?;
    let closed = matches!(tokens[end].0, Token::Close(_));
    let length: usize = tokens[..end].iter().map(|(_, source)| source.len() + 1).sum();
    // The outermost object gets a line for each member, however short: they are what is read.
    (closed && length <= INLINE && (depth > 0 || end == 1)).then_some(end + 1)
}

fn push_inline(line: &mut Line, token: Token, source: &str) {
    match token {
        Token::Comma => line.html.push_str(", "),
        Token::Colon => line.html.push_str(": "),
        Token::Open(_) | Token::Close(_) => line.html.push_str(source),
        Token::String => push_token(line, "s", source),
        Token::Number => push_token(line, "u", source),
        Token::Word => push_token(line, "w", source),
    }
}

fn push_token(line: &mut Line, class: &str, source: &str) {
    let _ = write!(line.html, r#"<span class="{class}">"#);
    push_shown(&mut line.html, source);
    line.html.push_str("</span>");
}

fn push_string(line: &mut Line, source: &str) {
    let cut = source.char_indices().nth(STRING).map_or(source.len(), |(at, _)| at);
    let (first, rest) = source.split_at(cut);
    push_token(line, "s", first);
    if !rest.is_empty() {
        let count = rest.chars().count();
        let _ = write!(
            line.html,
            r#"<details class="fold"><summary>{} more characters of {}</summary>"#,
            grouped(count),
            grouped(count + STRING)
        );
        push_token(line, "s", rest);
        line.html.push_str("</details>");
    }
    push_as_text(line, source);
}

/// A string of several lines can be read as such, too.
fn push_as_text(line: &mut Line, source: &str) {
    if !source.contains("\\n") {
        return;
    }
    let Ok(text) = serde_json::from_str::<String>(source) else { return };
    let count = text.lines().count();
    if count < 2 {
        return;
    }
    let _ =
        write!(line.below, r#"<details class="fold"><summary>as text, {} lines</summary>"#, grouped(count));
    for one in text.split('\n') {
        line.below.push_str(r#"<div class="t">"#);
        push_shown(&mut line.below, one);
        line.below.push_str("</div>");
    }
    line.below.push_str("</details>");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a reader sees, a line each, set in by two spaces.
    fn seen(text: &str) -> String {
        let strip = |html: &str| {
            let mut out = String::new();
            let mut inside = false;
            for c in html.chars() {
                match c {
                    '<' => inside = true,
                    '>' if inside => inside = false,
                    _ if !inside => out.push(c),
                    _ => {}
                }
            }
            out.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        };
        let lines = lines(text).expect("JSON");
        let set_in = lines.iter().map(|line| format!("{}{}", "  ".repeat(line.depth), strip(&line.html)));
        set_in.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn numbers_order_and_strings_stay() {
        assert_eq!(
            seen(r#"{"z":1.50,"a":9007199254740993,"b":[1,2,3],"c":{},"d":{"e":-1E+400,"f":"\u00e9<b>"}}"#),
            "{\n  \"z\": 1.50,\n  \"a\": 9007199254740993,\n  \"b\": [1, 2, 3],\n  \"c\": {},\n  \
             \"d\": {\"e\": -1E+400, \"f\": \"\\u00e9<b>\"}\n}"
        );
        assert_eq!(seen("[]"), "[]");
        assert_eq!(seen(" 7 "), "7");
        assert_eq!(seen(r#""a\"b\\""#), r#""a\"b\\""#);
        assert_eq!(seen(r#"{"a":[{"b":1}]}"#), "{\n  \"a\": [\n    {\"b\": 1}\n  ]\n}");
        assert_eq!(seen(r#"{"a":1,"a":2}"#), "{\n  \"a\": 1,\n  \"a\": 2\n}", "even what cannot be");
    }

    #[test]
    fn nothing_but_white_space_is_added() {
        let text = r#"{"a":[1,[2,{"b":"c d"}],null,true],"e":"x\ty","f":[[],{}],"g":"üñ 日"}"#;
        let joined: String = seen(text).chars().filter(|c| !c.is_whitespace()).collect();
        assert_eq!(joined, text.replace(' ', ""));
    }

    #[test]
    fn what_is_folded_is_there_and_says_how_much() {
        let long = format!("{{\"body\":\"{}END\"}}", "x".repeat(5_000));
        let html = laid_out(&long).into_string();
        assert!(html.contains("3,805 more characters of 5,005") && html.contains("END"), "{}", html.len());
        let many = format!("[{}]", (0..1_000).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
        let html = laid_out(&many).into_string();
        assert!(html.contains("882 more lines, ") && html.contains(">999<"), "{}", html.len());
    }

    #[test]
    fn strings_of_lines_can_be_read_as_text() {
        let html = laid_out(r#"{"mail":"Dear Bob,\n\nyes <b>\u202e."}"#).into_string();
        assert!(
            html.contains("as text, 3 lines") && html.contains(r#"<div class="t">Dear Bob,</div>"#),
            "{html}"
        );
        assert!(html.contains(r"\u{202e}"), "the decoded text deceives nobody either: {html}");
    }

    #[test]
    fn what_is_edited_means_the_same_and_hides_nothing() {
        let text = "{\"a\u{202e}\": \"x\u{200b}\u{e0041}ü\"}";
        let edited = editable(text);
        assert_eq!(edited, r#"{"a\u202e": "x\u200b\udb40\udc41ü"}"#);
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        assert_eq!(value(&edited), value(text));
    }

    #[test]
    fn what_is_no_json_is_shown_all_the_same() {
        for text in ["", "{", "[1,2", "\"open", "}", "<script>", "nonsense!"] {
            let html = laid_out(text).into_string();
            assert!(!html.contains("<script>"), "{html}");
        }
    }
}
