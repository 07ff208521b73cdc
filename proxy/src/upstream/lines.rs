//! Splits a byte stream into lines of bounded length, and says whose answer a line was that is too long to keep.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::unread::Unread;

/// Memory that is kept from one line to the next.
const MOST_KEPT_BYTES: usize = 1024 * 1024;

/// A line of a server's stdout.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// Without its line end.
    Whole(&'a [u8]),
    /// Longer than the limit and thrown away; the text of its top-level `id`, where one was seen.
    TooLong(Option<String>),
}

/// Lines from a reader.
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// Bytes of the stream before the buffer.
    before: u64,
    /// Bytes of the buffer that were handed out.
    taken: usize,
    /// Bytes of the buffer that hold no line end.
    searched: usize,
    limit_bytes: usize,
    /// Set while the rest of a line that is too long goes by.
    skipping: Option<IdSearch>,
}

impl Lines {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self {
            buffer: Vec::with_capacity(8 * 1024),
            before: 0,
            taken: 0,
            searched: 0,
            limit_bytes,
            skipping: None,
        }
    }

    /// Reads once. False at the end of the stream.
    pub(super) async fn fill(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<bool> {
        self.make_room();
        self.buffer.reserve(8 * 1024);
        Ok(from.read_buf(&mut self.buffer).await? > 0)
    }

    /// The same, of a stream that is only looked at.
    pub(super) async fn look(&mut self, at: &mut Unread) -> io::Result<bool> {
        self.make_room();
        Ok(at.look(&mut self.buffer).await? > 0)
    }

    fn make_room(&mut self) {
        if self.taken > 0 {
            self.buffer.drain(..self.taken);
            self.before += self.taken as u64;
            self.searched -= self.taken;
            self.taken = 0;
        }
        if self.buffer.is_empty() && self.buffer.capacity() > MOST_KEPT_BYTES {
            self.buffer.shrink_to(8 * 1024);
        }
    }

    /// Bytes of the stream that were handed out, or thrown away.
    pub(super) fn handed_out(&self) -> u64 {
        self.before + self.taken as u64
    }

    /// The next line that is complete.
    pub(super) fn next(&mut self) -> Option<Line<'_>> {
        match self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
            Some(at) => {
                let (start, end) = (self.taken, self.searched + at);
                self.taken = end + 1;
                self.searched = end + 1;
                if let Some(mut search) = self.skipping.take() {
                    search.feed(&self.buffer[start..end]);
                    return Some(Line::TooLong(search.found()));
                }
                Some(Line::Whole(trim(&self.buffer[start..end])))
            }
            None => {
                self.searched = self.buffer.len();
                if self.skipping.is_some() || self.searched - self.taken > self.limit_bytes {
                    let search = self.skipping.get_or_insert_default();
                    search.feed(&self.buffer[self.taken..]);
                    self.taken = self.searched;
                }
                None
            }
        }
    }

    /// What is left at the end of the stream: a server may end without a last line end.
    pub(super) fn rest(&mut self) -> Option<Line<'_>> {
        if let Some(search) = self.skipping.take() {
            return Some(Line::TooLong(search.found()));
        }
        let rest = trim(&self.buffer[self.taken..]);
        self.taken = self.buffer.len();
        (!rest.is_empty()).then_some(Line::Whole(rest))
    }
}

fn trim(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Finds the value of a top-level `id` in the bytes of an object, piece by piece and without keeping them.
#[derive(Default)]
struct IdSearch {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// The latest string at depth 1, while it is short enough to be `id`.
    name: Vec<u8>,
    /// True between a top-level `"id":` and the end of its value.
    in_id: bool,
    id: Vec<u8>,
}

const LONGEST_ID: usize = 64;

impl IdSearch {
    fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.byte(*byte);
        }
    }

    fn byte(&mut self, byte: u8) {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => self.keep(byte),
            }
            return;
        }
        match byte {
            b'"' => {
                self.in_string = true;
                self.name.clear();
            }
            b':' if self.depth == 1 => {
                self.in_id = self.name == b"id" && self.id.is_empty();
                self.name.clear();
            }
            b',' if self.depth == 1 => self.in_id = false,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.in_id = self.in_id && self.depth > 0;
            }
            _ => self.keep(byte),
        }
    }

    fn keep(&mut self, byte: u8) {
        let place = match (self.depth, self.in_id, self.in_string) {
            (1, true, _) if !byte.is_ascii_whitespace() => &mut self.id,
            (1, false, true) => &mut self.name,
            _ => return,
        };
        if place.len() < LONGEST_ID {
            place.push(byte);
        }
    }

    fn found(self) -> Option<String> {
        String::from_utf8(self.id).ok().filter(|id| !id.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(input: &str, limit_bytes: usize, expected: &[&str]) {
        for piece in [1, 3, 1000] {
            let mut lines = Lines::new(limit_bytes);
            let mut seen = Vec::new();
            let mut show = |line: Line<'_>| {
                seen.push(match line {
                    Line::Whole(line) => String::from_utf8_lossy(line).into_owned(),
                    Line::TooLong(id) => format!("too long: {id:?}"),
                });
            };
            for mut chunk in input.as_bytes().chunks(piece) {
                while lines.fill(&mut chunk).await.expect("memory does not fail") {
                    while let Some(line) = lines.next() {
                        show(line);
                    }
                }
            }
            lines.rest().into_iter().for_each(&mut show);
            assert_eq!(seen, expected, "in pieces of {piece}");
        }
    }

    #[tokio::test]
    async fn lines_are_split_wherever_the_reads_end() {
        check("a\nbc\r\n\nlast", 100, &["a", "bc", "", "last"]).await;
    }

    #[tokio::test]
    async fn a_line_too_long_still_says_whose_it_was() {
        let early = r#"{"jsonrpc":"2.0","id":12,"result":{"id":9,"text":"xxxxxxxxxxxxxxxxxxxx\",\"id\":3"}}"#;
        let late =
            r#"{"result":{"text":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx","id":{"id":[4]}},"id": "77"}"#;
        let none =
            r#"{"method":"notifications/x","params":{"id":5,"text":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}}"#;
        let text = format!("{early}\n{late}\nok\n{none}\nok");
        let expected = ["too long: Some(\"12\")", "too long: Some(\"77\")", "ok", "too long: None", "ok"];
        // A line is only cut while it is incomplete, so a read that ends a long line at once keeps it.
        let mut lines = Lines::new(20);
        let mut seen = Vec::new();
        for mut chunk in text.as_bytes().chunks(7) {
            while lines.fill(&mut chunk).await.expect("memory does not fail") {
                while let Some(line) = lines.next() {
                    seen.push(match line {
                        Line::Whole(line) => String::from_utf8_lossy(line).into_owned(),
                        Line::TooLong(id) => format!("too long: {id:?}"),
                    });
                }
            }
        }
        lines.rest().into_iter().for_each(|line| assert_eq!(line, Line::Whole(b"ok")));
        seen.push("ok".into());
        assert_eq!(seen, expected);
    }
}
