//! `[intake]`: limits on what is taken in.

use holdfast_policy::Section;

/// Limits on what is taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Intake {
    /// Bytes of one request.
    pub(crate) max_body: u64,
    /// Levels of arrays and objects in one request.
    pub(crate) max_depth: usize,
    /// Bytes of one answer that is kept in the journal itself.
    pub(crate) max_answer: u64,
    /// Calls of one agent that may wait for people.
    pub(crate) held_per_agent: u32,
}

impl Default for Intake {
    fn default() -> Self {
        Self { max_body: 4 << 20, max_depth: 64, max_answer: 1 << 20, held_per_agent: 100 }
    }
}

pub(super) fn read(root: &Section<'_>) -> Intake {
    let mut intake = Intake::default();
    let Some(section) = root.section("intake") else { return intake };
    if let Some(size) = size(&section, "max_body") {
        intake.max_body = size;
    }
    // The JSON reader itself stops at 128 levels, some of which are the request's own.
    if let Some(depth) = section.count("max_depth", 4..=100) {
        intake.max_depth = depth as usize;
    }
    if let Some(size) = size(&section, "max_answer") {
        intake.max_answer = size;
    }
    if let Some(count) = section.count("held_per_agent", 1..=100_000) {
        intake.held_per_agent = count;
    }
    section.finish();
    intake
}

fn size(section: &Section<'_>, key: &str) -> Option<u64> {
    let size = section.size(key)?;
    if !(1024..=1 << 30).contains(&size) {
        section.problem(
            key,
            format!("`intake.{key}` is out of range"),
            "write a size from \"1KiB\" to \"1GiB\"",
        );
        return None;
    }
    Some(size)
}
