//! Reads server-sent events from a response body (WHATWG HTML, "Interpreting an event stream").

/// Collects bytes until events are whole.
#[derive(Debug, Default)]
pub(super) struct Events {
    pending: Vec<u8>,
}

impl Events {
    /// Adds `bytes` and gives the data of every event that is complete now. Events without data are left out.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        let searched = self.pending.len().saturating_sub(3);
        self.pending.extend_from_slice(bytes);
        let mut complete = Vec::new();
        let mut from = 0;
        let mut search = searched;
        while let Some((end, next)) = blank_line(&self.pending, search.max(from)) {
            complete.extend(data(&self.pending[from..end]));
            (from, search) = (next, next);
        }
        self.pending.drain(..from);
        complete
    }
}

/// Where the first blank line at or after `from` begins and what follows it.
fn blank_line(bytes: &[u8], from: usize) -> Option<(usize, usize)> {
    let breaks: [&[u8]; 3] = [b"\n\n", b"\r\n\r\n", b"\r\r"];
    let mut found: Option<(usize, usize)> = None;
    for mark in breaks {
        let at = bytes[from..].windows(mark.len()).position(|window| window == mark);
        if let Some(at) = at
            && found.is_none_or(|(earliest, _)| from + at < earliest)
        {
            found = Some((from + at, from + at + mark.len()));
        }
    }
    found
}

fn data(event: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(event);
    let mut data: Option<String> = None;
    for line in text.split(['\n', '\r']) {
        let Some(rest) = line.strip_prefix("data:") else { continue };
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        match &mut data {
            None => data = Some(rest.to_owned()),
            Some(data) => {
                data.push('\n');
                data.push_str(rest);
            }
        }
    }
    data.filter(|data| !data.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_whole_however_they_are_cut() {
        let stream = b": hello\n\nevent: message\ndata: {\"a\":1}\n\ndata:{\ndata: }\n\nid: 7\n\ndata: last\r\n\r\ndata: cut";
        let expected = ["{\"a\":1}", "{\n}", "last"];
        for size in 1..=stream.len() {
            let mut events = Events::default();
            let found: Vec<String> = stream.chunks(size).flat_map(|chunk| events.feed(chunk)).collect();
            assert_eq!(found, expected, "in pieces of {size}");
        }
    }
}
