//! `under`: is a path below a directory, whatever tricks it tries?
//!
//! The file system is never asked, so links are not followed: `under` says what the text says. Where the
//! text may be read in two ways (by another system, or by a tool that decodes or expands it first) the
//! answer is "doubtful", which a `deny` or `ask` rule counts as a match and an `allow` rule never does.

use super::{Doubt, Outcome};

/// The directory of an `under` condition, normalised.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    style: Style,
    absolute: bool,
    names: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// Only `/` separates; names are told apart by case.
    Unix,
    /// `\` separates too, and the drive is a name; chosen by writing the base that way.
    Windows,
}

impl Base {
    /// `None` for an empty text and for one with NUL, `..` or `~`, whose meaning is not in the text alone.
    pub(crate) fn parse(text: &str) -> Option<Base> {
        let drive =
            text.as_bytes().get(1) == Some(&b':') && text.starts_with(|c: char| c.is_ascii_alphabetic());
        let style = if drive || text.contains('\\') { Style::Windows } else { Style::Unix };
        let names = split(text, style)?;
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        let absolute = drive || is_absolute(text, style);
        (absolute || !names.is_empty()).then_some(Base { style, absolute, names })
    }

    /// Whether `path` is the directory itself or something below it.
    pub(crate) fn contains(&self, path: &str) -> Outcome {
        const TRICKY: Outcome = Outcome::Doubtful(Doubt::TrickyPath);
        let Some(names) = split(path, self.style) else { return TRICKY };
        let drive = self.style == Style::Windows && names.first().is_some_and(|name| is_drive(name));
        if (is_absolute(path, self.style) || drive) != self.absolute || (names.is_empty() && !self.absolute) {
            return TRICKY;
        }
        let mut all_equal = true;
        for (index, base) in self.names.iter().enumerate() {
            let Some(name) = names.get(index) else { return Outcome::Fails };
            if base == name {
                continue;
            }
            let non_ascii = !base.is_ascii() && !name.is_ascii();
            if !non_ascii && base.to_lowercase() != name.to_lowercase() {
                return Outcome::Fails;
            }
            all_equal = false;
        }
        if all_equal { Outcome::Holds } else { TRICKY }
    }
}

fn is_absolute(path: &str, style: Style) -> bool {
    path.starts_with('/') || (style == Style::Windows && path.starts_with('\\'))
}

fn is_drive(name: &str) -> bool {
    name.len() == 2 && name.ends_with(':') && name.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// The names of a path without empty ones and `.`; `None` when the text may be read in two ways.
fn split(path: &str, style: Style) -> Option<Vec<&str>> {
    if path.is_empty() || path.contains('\0') || path.starts_with('~') {
        return None;
    }
    let separators: &[char] = match style {
        Style::Unix => &['/'],
        Style::Windows => &['/', '\\'],
    };
    let mut names = Vec::new();
    for name in path.split(separators).filter(|name| !name.is_empty() && *name != ".") {
        if name == ".." || decodes_to_more(name) {
            return None;
        }
        let plain = match style {
            Style::Unix => !name.contains('\\'),
            // Windows drops trailing dots and spaces; `:` elsewhere names a stream of a file.
            Style::Windows => {
                !name.ends_with(['.', ' '])
                    && !name.contains(['?', '*'])
                    && (!name.contains(':') || (names.is_empty() && is_drive(name)))
            }
        };
        if !plain {
            return None;
        }
        names.push(name);
    }
    Some(names)
}

/// Whether a tool that percent-decodes would see other names: `%2e`, `%2f`, `%5c`, `%00`.
fn decodes_to_more(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.windows(3).any(|three| {
        three[0] == b'%'
            && ["2e", "2f", "5c", "00", "25"]
                .iter()
                .any(|code| three[1..].eq_ignore_ascii_case(code.as_bytes()))
    })
}
