//! Text of others made safe to look at: nothing hides, nothing moves the cursor, nothing reads backwards.

/// `text` with every character that is invisible, reorders others or drives a terminal written as `\u{...}`.
pub(crate) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut unseen = Unseen::default();
    for c in text.chars() {
        if unseen.hides(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    shown
}

/// Marks over one letter that writing has use for; more of them cover what is around it.
const MARKS: usize = 4;

/// Goes through a text and tells which of its characters are to be written out.
#[derive(Debug, Default)]
pub(crate) struct Unseen {
    /// Combining marks in a row.
    marks: usize,
}

impl Unseen {
    /// Whether the next character, `c`, is deceptive, or one mark too many.
    pub(crate) fn hides(&mut self, c: char) -> bool {
        self.marks = if is_mark(c) { self.marks + 1 } else { 0 };
        self.marks > MARKS || is_deceptive(c)
    }
}

/// Whether `c` is put over, under or through the letter before it, whatever that is.
pub(crate) fn is_mark(c: char) -> bool {
    matches!(c,
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}

/// Whether `c` shows nothing of itself, or changes how others are shown.
pub(crate) fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
        // Spaces that are not the space: they look alike and are not.
        || (c.is_whitespace() && c != ' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_hides() {
        let check = |text: &str, expected: &str| assert_eq!(visible(text), expected, "{text:?}");
        check("plain äöü 日本 😀 {\"a\": 1}", "plain äöü 日本 😀 {\"a\": 1}");
        check("\u{1b}[2J", "\\u{1b}[2J");
        check("a\rb\nc\td", "a\\u{d}b\\u{a}c\\u{9}d");
        check("user\u{202e}gnp.exe", "user\\u{202e}gnp.exe");
        check("pay\u{200b}pal", "pay\\u{200b}pal");
        check("ok\u{e0041}\u{e0042}", "ok\\u{e0041}\\u{e0042}");
        check("a\u{a0}b\u{3000}c", "a\\u{a0}b\\u{3000}c");
        check("\u{9b}31m", "\\u{9b}31m");
        check("Vie\u{302}\u{323}t", "Vie\u{302}\u{323}t");
        check(&format!("a{}b", "\u{301}".repeat(6)), "a\u{301}\u{301}\u{301}\u{301}\\u{301}\\u{301}b");
    }
}
