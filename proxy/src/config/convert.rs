//! JSON with comments, rewritten line by line as TOML: so imported files get the same reader, and problems their lines.
//!
//! TOML 1.1 lets inline tables span lines and end with a comma, which makes JSON a near dialect of it.

use holdfast_policy::{Problem, Severity};
use serde::de::IgnoredAny;

/// Under which key the whole JSON value stands.
pub(super) const ROOT: &str = "json";
const PREFIX: &str = "json=";

/// What editors call `${userHome}` and `${workspaceFolder}`.
pub(super) struct Places {
    pub(super) home: Option<String>,
    pub(super) folder: String,
}

/// The TOML text: each line holds what the same line of the JSON text holds.
///
/// # Errors
/// The first syntax error, its file name empty.
pub(super) fn json(text: &str, places: &Places) -> Result<String, Problem> {
    let tokens = tokens(text);
    // The JSON reader judges the syntax: its words fit the file better than those of a TOML reader would.
    let plain: String = without_trailing_commas(&tokens);
    if let Err(error) = serde_json::from_str::<IgnoredAny>(&plain) {
        return Err(syntax(text, &error));
    }
    let mut toml = String::from(PREFIX);
    for (n, token) in tokens.iter().enumerate() {
        match token {
            Token::Text(raw) => {
                let is_key = tokens[n + 1..]
                    .iter()
                    .find(|token| !token.is_blank())
                    .is_some_and(|next| *next == Token::Mark(':'));
                let value: String = serde_json::from_str(raw).unwrap_or_default();
                toml.push_str(&quoted(&if is_key { value } else { variables(&value, places) }));
            }
            Token::Mark(':') => toml.push('='),
            Token::Mark(mark) => toml.push(*mark),
            // An absent value and an empty text are the same to every client.
            Token::Word("null") => toml.push_str("\"\""),
            Token::Word(word) | Token::Blank(word) => toml.push_str(word),
            Token::Comment(comment) => toml.extend(comment.chars().map(blank)),
        }
    }
    Ok(toml)
}

/// Makes a problem of the TOML text one of the JSON text.
pub(super) fn restore(problem: &mut Problem, text: &str) {
    if problem.line == 1 {
        problem.column = problem.column.saturating_sub(PREFIX.len()).max(1);
    }
    problem.message = problem.message.replace(&format!("`{ROOT}."), "`");
    let line = text.lines().nth(problem.line.saturating_sub(1));
    problem.text = line.unwrap_or_default().to_owned();
}

#[derive(Clone, Copy, PartialEq)]
enum Token<'a> {
    /// A string with its quotes.
    Text(&'a str),
    /// One of `{}[]:,`.
    Mark(char),
    /// Number, `true`, `null`, or anything else.
    Word(&'a str),
    Blank(&'a str),
    Comment(&'a str),
}

impl Token<'_> {
    fn is_blank(&self) -> bool {
        matches!(self, Token::Blank(_) | Token::Comment(_))
    }
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '"' => string_end(rest),
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |at| at + 2),
            c if c.is_whitespace() => rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len()),
            '{' | '}' | '[' | ']' | ':' | ',' => 1,
            _ => {
                let stop = |c: char| c.is_whitespace() || "{}[]:,\"/".contains(c);
                rest.char_indices().skip(1).find(|(_, c)| stop(*c)).map_or(rest.len(), |(at, _)| at)
            }
        };
        let (token, after) = rest.split_at(end);
        tokens.push(match first {
            '"' => Token::Text(token),
            '/' if token.starts_with("//") || token.starts_with("/*") => Token::Comment(token),
            c if c.is_whitespace() => Token::Blank(token),
            '{' | '}' | '[' | ']' | ':' | ',' => Token::Mark(first),
            _ => Token::Word(token),
        });
        rest = after;
    }
    tokens
}

fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Plain JSON with every character where it stands in the file.
fn without_trailing_commas(tokens: &[Token<'_>]) -> String {
    let mut plain = String::new();
    for (n, token) in tokens.iter().enumerate() {
        match token {
            Token::Mark(',') => {
                let next = tokens[n + 1..].iter().find(|token| !token.is_blank());
                let trailing = matches!(next, Some(Token::Mark('}' | ']')));
                plain.push(if trailing { ' ' } else { ',' });
            }
            Token::Mark(mark) => plain.push(*mark),
            Token::Comment(comment) => plain.extend(comment.chars().map(blank)),
            Token::Text(raw) | Token::Word(raw) | Token::Blank(raw) => plain.push_str(raw),
        }
    }
    plain
}

fn blank(c: char) -> char {
    if c == '\n' { '\n' } else { ' ' }
}

fn syntax(text: &str, error: &serde_json::Error) -> Problem {
    let what = error.to_string();
    let what = what.split(" at line ").next().unwrap_or_default();
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
    Problem {
        severity: Severity::Error,
        file: String::new(),
        line: error.line(),
        column: error.column().max(1),
        text: line.to_owned(),
        message: format!("this is not valid JSON: {what}"),
        hint: Some("comments and trailing commas are fine, the rest must be JSON".to_owned()),
    }
}

/// The spellings of editors in ours.
fn variables(value: &str, places: &Places) -> String {
    let mut value = value.replace("${env:", "${").replace("${workspaceFolder}", &places.folder);
    if let Some(home) = &places.home {
        value = value.replace("${userHome}", home);
    }
    value
}

fn quoted(value: &str) -> String {
    let mut quoted = String::from("\"");
    for c in value.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
