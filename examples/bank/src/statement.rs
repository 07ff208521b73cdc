//! `bank ledger`: what was really paid, and how often.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::book::{Book, Transfer};

/// A page for people.
pub(crate) fn page(book: &Book, torn_bytes: u64) -> String {
    let transfers: Vec<&Transfer> = book.receipts().iter().map(|receipt| &receipt.transfer).collect();
    let counts = counts(book);
    let mut page = String::new();
    let mut rows = vec![["id", "at", "from", "to", "amount", "reference"].map(str::to_owned)];
    rows.extend(transfers.iter().map(|t| {
        let reference = t.reference.clone().unwrap_or_else(|| "-".to_owned());
        [t.id.clone(), t.at.clone(), t.from.clone(), t.to.clone(), t.amount.to_string(), reference]
    }));
    if !transfers.is_empty() {
        page += &table(&rows, 4);
        page.push('\n');
    }
    if !counts.is_empty() {
        let mut rows = vec![["reference", "made"].map(str::to_owned)];
        rows.extend(counts.iter().map(|(reference, times)| [(*reference).to_owned(), times.to_string()]));
        page += &table(&rows, 1);
        page.push('\n');
    }
    let repeated = counts.iter().filter(|(_, times)| *times > 1).count();
    let line = |page: &mut String, text: String| writeln!(page, "{text}").expect("a String takes any text");
    line(&mut page, format!("{}, {repeated} made more than once", plural(transfers.len(), counts.len())));
    if torn_bytes > 0 {
        line(&mut page, format!("the last line is torn ({torn_bytes} bytes) and not counted"));
    }
    page
}

/// One JSON object: `transfers` in order, `references` with how often each was made, `count`, `torn_bytes`.
pub(crate) fn json(book: &Book, torn_bytes: u64) -> Value {
    let transfers: Vec<&Transfer> = book.receipts().iter().map(|receipt| &receipt.transfer).collect();
    let references: Map<String, Value> =
        counts(book).into_iter().map(|(reference, times)| (reference.to_owned(), times.into())).collect();
    json!({ "count": transfers.len(), "references": references, "torn_bytes": torn_bytes, "transfers": transfers })
}

/// Each reference with how often it was made, in order of its first transfer.
fn counts(book: &Book) -> Vec<(&str, usize)> {
    let mut counts = Vec::new();
    for receipt in book.receipts() {
        let Some(reference) = &receipt.transfer.reference else { continue };
        let mut made = book.with_reference(reference);
        if made.next().is_some_and(|first| first.transfer.n == receipt.transfer.n) {
            counts.push((reference.as_str(), 1 + made.count()));
        }
    }
    counts
}

fn plural(transfers: usize, references: usize) -> String {
    let s = |n: usize| if n == 1 { "" } else { "s" };
    format!("{transfers} transfer{}, {references} reference{}", s(transfers), s(references))
}

/// Columns wide enough for their widest cell; the `right`th is aligned to the right.
fn table<const N: usize>(rows: &[[String; N]], right: usize) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            if column == right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}
