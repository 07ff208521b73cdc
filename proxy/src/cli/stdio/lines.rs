//! Messages by line: what stdio transports of MCP are made of.

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader},
    sync::mpsc,
};

/// A longer line is refused rather than held in memory; `intake.max_body` is what `serve` takes.
const LINE_MOST: usize = 64 * 1024 * 1024;

/// A line of input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Text without its line break; never empty.
    Text(String),
    /// Not UTF-8, or too long to be kept.
    Unusable(&'static str),
}

/// Reads lines.
pub(super) struct Reader<R> {
    input: BufReader<R>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// A reader over `input`.
    pub(super) fn new(input: R) -> Self {
        Self { input: BufReader::with_capacity(64 * 1024, input) }
    }

    /// The next line that is not blank; none at the end. Not cancel-safe in the middle of a line.
    pub(super) async fn next(&mut self) -> Option<Line> {
        loop {
            let mut line = Vec::new();
            let mut too_long = false;
            let mut ended = false;
            while !ended {
                let piece = match self.input.fill_buf().await {
                    Ok([]) | Err(_) if line.is_empty() && !too_long => return None,
                    Ok([]) | Err(_) => break,
                    Ok(piece) => piece,
                };
                let end = piece.iter().position(|byte| *byte == b'\n');
                let taken = end.map_or(piece.len(), |end| end + 1);
                ended = end.is_some();
                too_long |= line.len() + taken > LINE_MOST;
                if too_long {
                    line = Vec::new();
                } else {
                    line.extend_from_slice(&piece[..taken]);
                }
                self.input.consume(taken);
            }
            if too_long {
                return Some(Line::Unusable("the line is too long"));
            }
            match String::from_utf8(line) {
                Err(_) => return Some(Line::Unusable("the line is not UTF-8")),
                Ok(text) if text.trim().is_empty() => {}
                Ok(text) => return Some(Line::Text(text.trim().to_owned())),
            }
        }
    }
}

/// Writes messages to stdout, one line each, until nobody sends any more or nobody reads.
pub(super) async fn write(mut messages: mpsc::UnboundedReceiver<String>) {
    let mut stdout = tokio::io::stdout();
    while let Some(mut message) = messages.recv().await {
        message.push('\n');
        // What has come together goes out together.
        while let Ok(more) = messages.try_recv() {
            message.push_str(&more);
            message.push('\n');
        }
        if stdout.write_all(message.as_bytes()).await.is_err() || stdout.flush().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(input: &[u8]) -> Vec<Line> {
        let mut reader = Reader::new(input);
        let mut lines = Vec::new();
        while let Some(line) = reader.next().await {
            lines.push(line);
        }
        lines
    }

    #[tokio::test]
    async fn lines_come_whole() {
        let text = |text: &str| Line::Text(text.to_owned());
        assert_eq!(read(b"{\"a\":1}\r\n\n  \n[2]\n3").await, [text("{\"a\":1}"), text("[2]"), text("3")]);
        assert_eq!(read(b"").await, []);
        assert_eq!(read(b"\xff\nok\n").await, [Line::Unusable("the line is not UTF-8"), text("ok")]);
    }

    #[tokio::test]
    async fn a_line_without_end_is_not_kept() {
        let mut input = vec![b'x'; LINE_MOST + 10];
        input.extend_from_slice(b"\nok\n");
        assert_eq!(read(&input).await, [Line::Unusable("the line is too long"), Line::Text("ok".into())]);
    }
}
