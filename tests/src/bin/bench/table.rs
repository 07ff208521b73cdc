//! Results as Markdown for people and as JSON for programs.

use std::fmt::Write;

use serde_json::{Map, Value, json};

/// Everything that one run of `bench` found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    tables: Vec<Table>,
    findings: Vec<Finding>,
}

/// Figures under their names.
#[derive(Debug)]
pub(crate) struct Table {
    title: String,
    columns: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// One figure.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    /// A word.
    Text(String),
    /// A number, shown with this many decimals.
    Number(f64, usize),
}

/// A figure that was aimed at something.
#[derive(Debug)]
struct Finding {
    what: &'static str,
    found: String,
    aim: String,
    reached: bool,
}

impl Report {
    /// Adds a table with its columns.
    pub(crate) fn table(&mut self, title: impl Into<String>, columns: &[&'static str]) -> &mut Table {
        self.tables.push(Table { title: title.into(), columns: columns.to_vec(), rows: Vec::new() });
        self.tables.last_mut().expect("it was just pushed")
    }

    /// Adds what was found beside what was aimed at: `found` must not be above `most`.
    pub(crate) fn at_most(&mut self, what: &'static str, unit: &str, found: f64, most: f64) {
        let (found_text, aim) = (format!("{found:.2}{unit}"), format!("<= {most:.2}{unit}"));
        self.findings.push(Finding { what, found: found_text, aim, reached: found <= most });
    }

    /// The same, where `found` must not be below `least`.
    pub(crate) fn at_least(&mut self, what: &'static str, unit: &str, found: f64, least: f64) {
        let (found_text, aim) = (format!("{found:.2}{unit}"), format!(">= {least:.2}{unit}"));
        self.findings.push(Finding { what, found: found_text, aim, reached: found >= least });
    }

    /// As Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        for table in &self.tables {
            let rule = vec!["---"; table.columns.len()];
            line(&mut text, &format!("\n### {}\n", table.title));
            line(&mut text, &format!("| {} |", table.columns.join(" | ")));
            line(&mut text, &format!("|{}|", rule.join("|")));
            for row in &table.rows {
                let cells: Vec<String> = row.iter().map(Cell::text).collect();
                line(&mut text, &format!("| {} |", cells.join(" | ")));
            }
        }
        if !self.findings.is_empty() {
            line(&mut text, "\n| aim | found | aimed at | |\n|---|---|---|---|");
        }
        for Finding { what, found, aim, reached } in &self.findings {
            line(
                &mut text,
                &format!("| {what} | {found} | {aim} | {} |", if *reached { "reached" } else { "missed" }),
            );
        }
        text
    }

    /// As JSON: `tables` by title with a list of objects each, and `aims`.
    pub(crate) fn json(&self) -> String {
        let rows = |table: &Table| -> Vec<Value> {
            let object = |row: &Vec<Cell>| {
                let cells =
                    table.columns.iter().zip(row).map(|(name, cell)| ((*name).to_owned(), cell.json()));
                Value::Object(cells.collect())
            };
            table.rows.iter().map(object).collect()
        };
        let tables: Map<String, Value> =
            self.tables.iter().map(|table| (table.title.clone(), rows(table).into())).collect();
        let aims = self.findings.iter().map(|finding| {
            json!({ "aim": finding.what, "found": finding.found, "aimed_at": finding.aim, "reached": finding.reached })
        });
        json!({ "tables": tables, "aims": aims.collect::<Vec<_>>() }).to_string()
    }
}

impl Table {
    /// Adds a row, one cell for each column.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.rows.push(cells);
    }
}

impl Cell {
    fn text(&self) -> String {
        match self {
            Cell::Text(text) => text.clone(),
            Cell::Number(number, decimals) => format!("{number:.decimals$}"),
        }
    }

    fn json(&self) -> Value {
        match self {
            Cell::Text(text) => text.as_str().into(),
            Cell::Number(number, _) => json!(number),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell::Text(text.to_owned())
    }
}

impl From<usize> for Cell {
    fn from(number: usize) -> Cell {
        Cell::Number(number as f64, 0)
    }
}

fn line(text: &mut String, more: &str) {
    writeln!(text, "{more}").expect("a String takes any text");
}
