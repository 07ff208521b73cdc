//! A cursor over one table that remembers which keys were asked for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use serde_json::{Map, Number, Value};

use super::units::{parse_duration, parse_size};
use super::{Data, Document, Entry, Node, Place, Problem, Severity};

/// A value that can also be switched off with the word `"off"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrOff<T> {
    /// `"off"`.
    Off,
    /// Anything else.
    Set(T),
}

impl<T> OrOff<T> {
    /// `None` for off.
    pub fn into_option(self) -> Option<T> {
        match self {
            OrOff::Off => None,
            OrOff::Set(value) => Some(value),
        }
    }
}

/// One table of a [`Document`].
///
/// Every reading method takes its key: it gives `None` when the key is absent, and also when its value
/// has the wrong shape, in which case a [`Problem`] with line, text and hint is recorded in the
/// document. Call [`Section::finish`] when everything known was read.
#[derive(Debug)]
pub struct Section<'d> {
    document: &'d Document,
    entries: &'d [Entry],
    /// What a reader calls this table, e.g. `servers.bank`; empty for the root.
    path: String,
    span: Range<usize>,
    asked: RefCell<Vec<String>>,
}

impl<'d> Section<'d> {
    pub(super) fn root(document: &'d Document) -> Section<'d> {
        let entries = match &document.root.data {
            Data::Table(entries) => entries.as_slice(),
            _ => &[],
        };
        Section { document, entries, path: String::new(), span: 0..0, asked: RefCell::default() }
    }

    /// A text.
    pub fn string(&self, key: &str) -> Option<String> {
        self.take(key, "\"text\"", |node| match &node.data {
            Data::String(text) => Some(text.clone()),
            _ => None,
        })
    }

    /// A list of texts.
    pub fn strings(&self, key: &str) -> Option<Vec<String>> {
        self.take(key, "[\"text\", \"text\"]", |node| {
            let Data::Array(items) = &node.data else { return None };
            // An unset variable inside is already a problem of its own: leave that item out.
            let present = items.iter().filter(|item| !matches!(item.data, Data::Absent));
            present
                .map(|item| match &item.data {
                    Data::String(text) => Some(text.clone()),
                    _ => None,
                })
                .collect()
        })
    }

    /// A whole number.
    pub fn integer(&self, key: &str) -> Option<i64> {
        self.take(key, "1", |node| match &node.data {
            Data::Integer(digits) => digits.parse().ok(),
            _ => None,
        })
    }

    /// A whole number within `range`.
    pub fn count(&self, key: &str, range: RangeInclusive<u32>) -> Option<u32> {
        let number = self.integer(key)?;
        let fitting = u32::try_from(number).ok().filter(|number| range.contains(number));
        if fitting.is_none() {
            let (low, high) = (range.start(), range.end());
            let hint = format!("write a number from {low} to {high}");
            self.problem(key, format!("`{key}` is out of range"), hint);
        }
        fitting
    }

    /// A finite number; integers count too.
    pub fn float(&self, key: &str) -> Option<f64> {
        self.take(key, "1.5", |node| match &node.data {
            Data::Integer(digits) | Data::Float(digits) => {
                digits.parse().ok().filter(|number: &f64| number.is_finite())
            }
            _ => None,
        })
    }

    /// `true` or `false`.
    pub fn boolean(&self, key: &str) -> Option<bool> {
        self.take(key, "true or false", |node| match node.data {
            Data::Boolean(value) => Some(value),
            _ => None,
        })
    }

    /// A length of time: `"200ms"`, `"30s"`, `"10m"`, `"4h"`, `"7d"`.
    pub fn duration(&self, key: &str) -> Option<Duration> {
        let shape = "a whole number and a unit: \"200ms\", \"30s\", \"10m\", \"4h\" or \"7d\"";
        self.take(key, shape, |node| match &node.data {
            Data::String(text) => parse_duration(text),
            _ => None,
        })
    }

    /// A length of time, or `"off"`.
    pub fn duration_or_off(&self, key: &str) -> Option<OrOff<Duration>> {
        self.parsed(key, "\"off\", or a whole number and a unit such as \"30s\" or \"10m\"", |text| {
            if text == "off" { Some(OrOff::Off) } else { parse_duration(text).map(OrOff::Set) }
        })
    }

    /// A number of bytes: `"512"`, `"1KB"`, `"4MiB"`, or an integer.
    pub fn size(&self, key: &str) -> Option<u64> {
        let shape = "a whole number and a unit: \"64KiB\", \"4MiB\" or \"1GB\"";
        self.take(key, shape, |node| match &node.data {
            Data::String(text) => parse_size(text),
            Data::Integer(digits) => digits.parse().ok(),
            _ => None,
        })
    }

    /// A text that `parse` understands; `shape` says in a hint what to write when it does not.
    pub fn parsed<T>(&self, key: &str, shape: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.take(key, shape, |node| match &node.data {
            Data::String(text) => parse(text),
            _ => None,
        })
    }

    /// One of a few words.
    pub fn one_of<T: Clone>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let text = self.take(key, &quoted(&words), |node| match &node.data {
            Data::String(text) => Some(text.as_str()),
            _ => None,
        })?;
        let chosen = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| value.clone());
        if chosen.is_none() {
            let hint = match nearest(text, words.iter().copied()) {
                Some(word) => format!("did you mean \"{word}\"? Known: {}", quoted(&words)),
                None => format!("write {}", quoted(&words)),
            };
            self.problem(key, format!("`{}` does not know this word", self.name_of(key)), hint);
        }
        chosen
    }

    /// A sub-table.
    pub fn section(&self, key: &str) -> Option<Section<'d>> {
        self.take(key, &format!("a table: [{}]", self.name_of(key)), |node| match &node.data {
            Data::Table(entries) => Some(self.below(self.name_of(key), node, entries)),
            _ => None,
        })
    }

    /// An array of tables, `[[key]]`; empty when absent.
    pub fn sections(&self, key: &str) -> Vec<Section<'d>> {
        let name = self.name_of(key);
        self.take(key, &format!("tables: [[{name}]]"), |node| {
            let Data::Array(items) = &node.data else { return None };
            let tables = items.iter().enumerate().map(|(index, item)| match &item.data {
                Data::Table(entries) => Some(self.below(format!("{name}[{}]", index + 1), item, entries)),
                _ => None,
            });
            tables.collect()
        })
        .unwrap_or_default()
    }

    /// The sub-tables of `[key.NAME]` with their names, in the order of the file; empty when absent.
    pub fn named(&self, key: &str) -> Vec<(String, Section<'d>)> {
        let name = self.name_of(key);
        self.take(key, &format!("named tables: [{name}.NAME]"), |node| {
            let Data::Table(entries) = &node.data else { return None };
            let tables = entries.iter().map(|entry| match &entry.node.data {
                Data::Table(inner) => {
                    let path = format!("{name}.{}", entry.key);
                    Some((entry.key.clone(), self.below(path, &entry.node, inner)))
                }
                _ => None,
            });
            tables.collect()
        })
        .unwrap_or_default()
    }

    /// A table of texts with free names, such as an environment.
    pub fn string_map(&self, key: &str) -> Option<BTreeMap<String, String>> {
        self.take(key, "{ NAME = \"text\" }", |node| {
            let Data::Table(entries) = &node.data else { return None };
            let present = entries.iter().filter(|entry| !matches!(entry.node.data, Data::Absent));
            present
                .map(|entry| match &entry.node.data {
                    Data::String(text) => Some((entry.key.clone(), text.clone())),
                    _ => None,
                })
                .collect()
        })
    }

    /// Any value as JSON. Numbers keep the digits they were written with.
    pub fn value(&self, key: &str) -> Option<Value> {
        self.take(key, "a text, number, boolean, array or table (dates, inf and nan have no JSON)", to_json)
    }

    /// Whether the key is there; does not take it.
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// All keys, in the order of the file; does not take them.
    pub fn keys(&self) -> impl Iterator<Item = &'d str> + use<'d> {
        self.entries.iter().map(|entry| entry.key.as_str())
    }

    /// What a reader calls this table, e.g. `rule[2].retry`; empty for the root.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Where the key's value stands, or the table itself when there is no such key.
    pub fn place(&self, key: &str) -> Place {
        let span = self.entries.iter().find(|entry| entry.key == key).map(|entry| match entry.node.data {
            Data::Table(_) => &entry.key_span,
            _ => &entry.node.span,
        });
        self.document.place(span.unwrap_or(&self.span).start)
    }

    /// Records an error at `key`, or at the table itself when there is no such key. An empty hint is no hint.
    pub fn problem(&self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.document.record(self.place(key).problem(Severity::Error, message, hint));
    }

    /// Records a warning, likewise.
    pub fn warn(&self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.document.record(self.place(key).problem(Severity::Warning, message, hint));
    }

    /// Records an error at an element of an array; the first element is 0.
    pub fn problem_in(&self, key: &str, index: usize, message: impl Into<String>, hint: impl Into<String>) {
        let element = self.entries.iter().find(|entry| entry.key == key).and_then(|entry| {
            let Data::Array(items) = &entry.node.data else { return None };
            items.get(index).map(|item| self.document.place(item.span.start))
        });
        let place = element.unwrap_or_else(|| self.place(key));
        self.document.record(place.problem(Severity::Error, message, hint));
    }

    /// Records a problem that was found elsewhere in the same document.
    pub fn record(&self, problem: Problem) {
        self.document.record(problem);
    }

    /// Records every key that nobody asked for as an unknown key.
    pub fn finish(&self) {
        let asked = self.asked.borrow();
        let mut known: Vec<&str> = asked.iter().map(String::as_str).collect();
        known.sort_unstable();
        for entry in self.entries.iter().filter(|entry| !asked.contains(&entry.key)) {
            let list = format!("known here: {}", known.join(", "));
            let free = known.iter().copied().filter(|key| !self.has(key));
            let hint = match nearest(&entry.key, free) {
                Some(key) => format!("did you mean `{key}`? {list}"),
                None => list,
            };
            let message = format!("unknown key `{}`", self.name_of(&entry.key));
            let place = self.document.place(entry.key_span.start);
            self.document.record(place.problem(Severity::Error, message, hint));
        }
    }

    fn take<T>(&self, key: &str, shape: &str, read: impl FnOnce(&'d Node) -> Option<T>) -> Option<T> {
        if !self.asked.borrow().iter().any(|asked| asked == key) {
            self.asked.borrow_mut().push(key.to_owned());
        }
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        if matches!(entry.node.data, Data::Absent) {
            return None;
        }
        let found = read(&entry.node);
        if found.is_none() {
            let kind = entry.node.data.kind();
            let source = self.document.source_of(&entry.node.span);
            let name = self.name_of(key);
            let message = if source.len() <= 40 && !source.contains('\n') && !source.starts_with('[') {
                format!("`{name}` cannot be {kind} like {source}")
            } else {
                format!("`{name}` cannot be {kind} like this")
            };
            self.problem(key, message, format!("write {shape}"));
        }
        found
    }

    fn below(&self, path: String, node: &'d Node, entries: &'d [Entry]) -> Section<'d> {
        Section { document: self.document, entries, path, span: node.span.clone(), asked: RefCell::default() }
    }

    fn name_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

fn to_json(node: &Node) -> Option<Value> {
    Some(match &node.data {
        Data::String(text) => Value::String(text.clone()),
        Data::Integer(digits) | Data::Float(digits) => {
            Value::Number(serde_json::from_str::<Number>(digits).ok()?)
        }
        Data::Boolean(value) => Value::Bool(*value),
        Data::Array(items) => Value::Array(items.iter().map(to_json).collect::<Option<_>>()?),
        Data::Table(entries) => {
            let members = entries.iter().map(|entry| Some((entry.key.clone(), to_json(&entry.node)?)));
            Value::Object(members.collect::<Option<Map<_, _>>>()?)
        }
        Data::Absent => Value::Null,
        Data::Datetime => return None,
    })
}

fn quoted(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// The known word that a reader probably meant: at most a third of its letters away.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|candidate| (edits(word, candidate), candidate));
    let close = scored.filter(|(edits, candidate)| *edits <= candidate.chars().count().max(3) / 3);
    close.min_by_key(|(edits, _)| *edits).map(|(_, candidate)| candidate)
}

/// Levenshtein distance, a swap of neighbours counting as one.
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    let mut last = None;
    for (i, l) in left.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, r) in right.iter().enumerate() {
            let mut cost = (row[j] + usize::from(l != *r)).min(row[j + 1] + 1).min(next[j] + 1);
            if j > 0 && last == Some(*r) && right[j - 1] == l {
                cost = cost.min(before[j - 1] + 1);
            }
            next.push(cost);
        }
        (before, row, last) = (row, next, Some(l));
    }
    row[right.len()]
}
