//! Writing: data to stdout, talk to stderr.

use std::io::{self, Write};

use holdfast_policy::{Problem, Severity};
use serde::Serialize;
use serde_json::{Value, json};

/// Writes `text` and a line end to stdout. Whoever closes the pipe has read enough.
pub(crate) fn data(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Writes `value` as indented JSON to stdout.
pub(crate) fn json(value: &impl Serialize) {
    data(&serde_json::to_string_pretty(value).expect("our own shapes always serialise"));
}

/// Writes `text` and a line end to stderr.
pub(crate) fn talk(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes all problems of a configuration to stderr.
pub(crate) fn problems(problems: &[Problem]) {
    for problem in problems {
        talk(&problem_text(problem));
    }
    let count = |severity| problems.iter().filter(|problem| problem.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    if errors + warnings > 1 {
        let counted =
            |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
        talk(&format!("{}, {}", counted(errors, "error"), counted(warnings, "warning")));
    }
}

/// A problem as an object.
pub(crate) fn problem_json(problem: &Problem) -> Value {
    json!({
        "severity": problem.severity.to_string(),
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "text": problem.text,
        "message": problem.message,
        "hint": problem.hint,
    })
}

/// A problem of a whole file has no line to name.
fn problem_text(problem: &Problem) -> String {
    if problem.line > 0 {
        return problem.to_string();
    }
    let hint = problem.hint.as_ref().map(|hint| format!("\n   hint: {hint}")).unwrap_or_default();
    format!("{}: {}{hint}", problem.severity, problem.message)
}
