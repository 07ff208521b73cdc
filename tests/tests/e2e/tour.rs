//! The tour of the README: its script runs, and what the README shows is what it prints.

use std::{path::Path, process::Command};

use holdfast_tests::{bank, holdfast};
use regex::Regex;

#[test]
fn the_tour_prints_what_the_readme_shows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the root");
    let programs =
        [holdfast(), bank()].map(|program| program.parent().expect("a file is in a directory").to_owned());
    let path = std::env::join_paths(
        programs.into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )
    .expect("no colons in the target directory");
    let ran = Command::new(root.join("examples/tour"))
        .env("PATH", path)
        .env("TZ", "UTC")
        .output()
        .expect("bash is there");
    let printed = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{printed}\n{}", String::from_utf8_lossy(&ran.stderr));

    let readme = std::fs::read_to_string(root.join("README.md")).expect("the README is there");
    let shown = readme
        .split_once("<!-- tour: begin -->\n```console\n")
        .and_then(|(_, rest)| rest.split_once("```\n<!-- tour: end -->"))
        .map(|(shown, _)| shown)
        .expect("the README has the tour between its marks");
    assert_eq!(
        timeless(&printed),
        timeless(shown),
        "to show what it prints now: replace the block of the README by the output of examples/tour"
    );
}

/// The text without what differs from run to run: ids, hashes, times and widths.
fn timeless(text: &str) -> Vec<String> {
    let rules = [
        (r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
        (r"\b[0-9a-f]{64}\b", "HASH"),
        (r"\b[0-9a-f]{12}\b", "POLICY"),
        (r"(?m)^[0-9a-f]{8}\b", "SHORT"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?", "TIME"),
        (r"\d{4}-\d\d-\d\d", "DAY"),
        (r"\d\d:\d\d:\d\d\.\d{3}", "TIME"),
        (r"\+\d+(\.\d+)?m?s", "DELTA"),
        (r"\b3h 59m|\b4h\b", "4h"),
        (r"\b\d+s ago\b", "now"),
        (r"[ \t]+", " "),
    ];
    let mut text = text.trim().to_owned();
    for (pattern, word) in rules {
        text = Regex::new(pattern).expect("a valid pattern").replace_all(&text, word).into_owned();
    }
    text.lines().map(|line| line.trim().to_owned()).collect()
}
