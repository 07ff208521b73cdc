//! Configuration text as a document that knows where each value stands and which ones were read.
//!
//! Both the policy and the rest of `holdfast.toml` are read through this: a reader takes the keys it
//! knows from a [`Section`], and what nobody took is an unknown key. All problems of a file are
//! collected, so that one run of `holdfast check` shows every one of them.

mod section;
mod units;
mod variables;

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use section::{OrOff, Section};
pub use units::{parse_duration, parse_rate, parse_size, show_duration};
pub use variables::{Dollar, Replaced, Variable, replace_dollars};

/// Whether a file with this problem may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file must not be used.
    Error,
    /// The file means what it says, but probably not what its author thinks.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}

/// One thing that is wrong with a file: where, what, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Name of the file, as it was given to [`Document::parse`].
    pub file: String,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// The line of the file as it stands there: variables are never expanded in it.
    pub text: String,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}:{}:{}: {}", self.severity, self.file, self.line, self.column, self.message)?;
        if !self.text.trim().is_empty() {
            write!(f, "\n   | {}", self.text.trim())?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\n   hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// A place in a file, for problems that are found after reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    file: String,
    line: usize,
    column: usize,
    text: String,
}

impl Place {
    /// A problem at this place.
    pub fn problem(
        &self,
        severity: Severity,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Problem {
        let hint = hint.into();
        Problem {
            severity,
            file: self.file.clone(),
            line: self.line,
            column: self.column,
            text: self.text.clone(),
            message: message.into(),
            hint: (!hint.is_empty()).then_some(hint),
        }
    }

    /// Line, counted from 1; 0 for what stands in no file.
    pub fn line(&self) -> usize {
        self.line
    }
}

/// A parsed TOML file and the problems found in it so far.
///
/// Not `Sync`: it lives while a configuration is being read and is then turned into
/// [`Document::into_problems`].
#[derive(Debug)]
pub struct Document {
    file: String,
    text: String,
    root: Node,
    problems: RefCell<Vec<Problem>>,
}

impl Document {
    /// Parses `text` as TOML and expands `${VAR}`, `${VAR:-default}` (unset or empty) and `$${` in every
    /// string value, never in keys; a default reaches to the first `}`.
    ///
    /// `file` is only used to name the file in problems. An unset variable is a problem of the
    /// document (see [`Document::has_errors`]) and its value reads as absent.
    ///
    /// # Errors
    /// The syntax errors, if the text is not TOML.
    pub fn parse(
        file: &str,
        text: &str,
        vars: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Document, Vec<Problem>> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut document = Document {
            file: file.to_owned(),
            text: text.to_owned(),
            root: Node { span: 0..0, data: Data::Absent },
            problems: RefCell::default(),
        };
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            return Err(errors.iter().map(|error| document.syntax_problem(error)).collect());
        }
        let root = Node { span: 0..0, data: document.convert_table(table.get_ref(), vars) };
        document.root = root;
        Ok(document)
    }

    /// The whole file. Every call starts with no key taken.
    pub fn root(&self) -> Section<'_> {
        Section::root(self)
    }

    /// Whether any problem so far is an error.
    pub fn has_errors(&self) -> bool {
        self.problems.borrow().iter().any(|problem| problem.severity == Severity::Error)
    }

    /// Records a problem that was found elsewhere, e.g. by [`crate::Policy::unmatched`].
    pub fn record(&self, problem: Problem) {
        let mut problems = self.problems.borrow_mut();
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    /// All problems found, in the order of the file.
    pub fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| (problem.line, problem.column));
        problems
    }

    fn place(&self, at: usize) -> Place {
        let before = self.text.get(..at).unwrap_or(&self.text);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place {
            file: self.file.clone(),
            line: before.matches('\n').count() + 1,
            column: before[start..].chars().count() + 1,
            text: self.text[start..].lines().next().unwrap_or_default().to_owned(),
        }
    }

    fn source_of(&self, span: &Range<usize>) -> &str {
        self.text.get(span.clone()).unwrap_or_default()
    }

    fn syntax_problem(&self, error: &toml::de::Error) -> Problem {
        let at = error.span().map_or(self.text.len(), |span| span.start);
        let says = |words: &str| error.message().contains(words);
        let hint = if says("duplicate key") {
            "each key may stand only once in a table: delete one of the two"
        } else if says("unclosed") || says("invalid literal string") || says("invalid basic string") {
            "what was opened here is not closed in the same line"
        } else if says("must be quoted") {
            "texts need quotes: key = \"text\""
        } else {
            "one setting per line: key = \"text\", key = 5, key = [\"a\"], or a table: [name]"
        };
        self.place(at).problem(Severity::Error, error.message(), hint)
    }

    fn convert(&self, value: &Spanned<DeValue<'_>>, vars: &dyn Fn(&str) -> Option<String>) -> Node {
        let span = value.span();
        let data = match value.get_ref() {
            DeValue::String(text) => match variables::expand(text, vars) {
                Ok(text) => Data::String(text),
                Err(fault) => {
                    let (message, hint) = fault.words();
                    self.record(self.place(span.start).problem(Severity::Error, message, hint));
                    Data::Absent
                }
            },
            DeValue::Integer(number) => Data::Integer(whole_digits(number.as_str(), number.radix())),
            DeValue::Float(number) => Data::Float(number.as_str().trim_start_matches('+').to_owned()),
            DeValue::Boolean(value) => Data::Boolean(*value),
            DeValue::Datetime(_) => Data::Datetime,
            DeValue::Array(items) => Data::Array(items.iter().map(|item| self.convert(item, vars)).collect()),
            DeValue::Table(table) => self.convert_table(table, vars),
        };
        Node { span, data }
    }

    fn convert_table(&self, table: &DeTable<'_>, vars: &dyn Fn(&str) -> Option<String>) -> Data {
        let mut entries: Vec<Entry> = table
            .iter()
            .map(|(key, value)| Entry {
                key: key.get_ref().to_string(),
                key_span: key.span(),
                node: self.convert(value, vars),
            })
            .collect();
        entries.sort_by_key(|entry| entry.key_span.start);
        Data::Table(entries)
    }
}

/// Decimal digits of a TOML integer, however it was written; the digits as they stand where they are
/// decimal already, since an argument may be compared with more digits than any machine integer has.
fn whole_digits(text: &str, radix: u32) -> String {
    match i128::from_str_radix(text, radix) {
        Ok(number) => number.to_string(),
        Err(_) => text.trim_start_matches('+').to_owned(),
    }
}

#[derive(Debug)]
struct Node {
    span: Range<usize>,
    data: Data,
}

#[derive(Debug)]
enum Data {
    String(String),
    Integer(String),
    Float(String),
    Boolean(bool),
    Datetime,
    Array(Vec<Node>),
    Table(Vec<Entry>),
    /// A string whose variable is unset: the problem is recorded already, so reading it is silent.
    Absent,
}

impl Data {
    fn kind(&self) -> &'static str {
        match self {
            Data::String(_) => "a string",
            Data::Integer(_) => "an integer",
            Data::Float(_) => "a float",
            Data::Boolean(_) => "a boolean",
            Data::Datetime => "a date",
            Data::Array(_) => "an array",
            Data::Table(_) => "a table",
            Data::Absent => "nothing",
        }
    }
}

#[derive(Debug)]
struct Entry {
    key: String,
    key_span: Range<usize>,
    node: Node,
}

#[cfg(test)]
mod tests;
