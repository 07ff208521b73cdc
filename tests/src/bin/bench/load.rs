//! Load: so many connections, each with one request under way, and how long each answer took.
//!
//! HTTP/1.1 on bare sockets and one thread, because the client shares two cores with what it measures.

use std::{
    cell::Cell,
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::LocalSet,
};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// `echo` of 200 bytes.
    Read,
    /// `transfer`, each with a reference of its own.
    Effect,
}

/// Where, and under which name.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// `HOST:PORT`.
    pub(crate) address: String,
    /// Before the tool's name, e.g. `pipe__`.
    pub(crate) prefix: &'static str,
}

/// What one run measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// Nanoseconds of each answer.
    pub(crate) latencies: Vec<u64>,
    /// How long it took in all.
    pub(crate) wall: Duration,
}

impl Sample {
    /// Both, as one.
    pub(crate) fn add(&mut self, other: Sample) {
        self.latencies.extend(other.latencies);
        self.wall += other.wall;
    }

    /// Milliseconds within which so many of a hundred answers came.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(at).map_or(f64::NAN, |nanos| *nanos as f64 / 1e6)
    }

    /// Answers in a second.
    pub(crate) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.wall.as_secs_f64()
    }
}

thread_local! {
    /// Makes references unlike any other of this run.
    static NEXT: Cell<u64> = const { Cell::new(0) };
}

/// Keeps `connections` busy for `time`.
///
/// # Panics
/// Where an answer is not a success.
pub(crate) fn run(target: &Target, work: Work, connections: usize, time: Duration) -> Sample {
    let (sample, whole) = run_until_broken(target, work, connections, time);
    assert!(whole, "a connection broke");
    sample
}

/// The same, over as soon as connections break; false where one did.
pub(crate) fn run_until_broken(
    target: &Target,
    work: Work,
    connections: usize,
    time: Duration,
) -> (Sample, bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let set = LocalSet::new();
    set.block_on(&runtime, async {
        let mut open = Vec::new();
        for _ in 0..connections {
            open.push(Client::connect(target, work).await.expect("it listens"));
        }
        // The first answers pay for what comes only once.
        for client in &mut open {
            client.ask().await.expect("an answer");
        }
        let (begun, over) = (Instant::now(), Rc::new(Cell::new(false)));
        let tasks: Vec<_> = open
            .into_iter()
            .map(|mut client| {
                let over = over.clone();
                tokio::task::spawn_local(async move {
                    let mut latencies = Vec::new();
                    while !over.get() {
                        let sent = Instant::now();
                        if client.ask().await.is_err() {
                            return (latencies, false);
                        }
                        latencies.push(u64::try_from(sent.elapsed().as_nanos()).expect("it fits"));
                        over.set(over.get() || begun.elapsed() >= time);
                    }
                    (latencies, true)
                })
            })
            .collect();
        let (mut sample, mut all_whole) = (Sample::default(), true);
        for task in tasks {
            let (latencies, whole) = task.await.expect("no panic");
            sample.latencies.extend(latencies);
            all_whole &= whole;
        }
        sample.wall = begun.elapsed();
        (sample, all_whole)
    })
}

struct Client {
    stream: TcpStream,
    head: String,
    tool: String,
    work: Work,
    buffer: Vec<u8>,
}

impl Client {
    async fn connect(target: &Target, work: Work) -> io::Result<Client> {
        let stream = TcpStream::connect(&target.address).await?;
        stream.set_nodelay(true)?;
        let tool = target.prefix.to_owned()
            + match work {
                Work::Read => "echo",
                Work::Effect => "transfer",
            };
        let head = format!(
            "POST /mcp HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nAccept: application/json, \
             text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: {tool}\r\n",
            target.address
        );
        Ok(Client { stream, head, tool, work, buffer: Vec::with_capacity(16 * 1024) })
    }

    async fn ask(&mut self) -> io::Result<()> {
        let n = NEXT.with(|next| next.replace(next.get() + 1));
        let arguments = match self.work {
            Work::Read => format!(r#"{{"message":"{:0>200}"}}"#, n),
            Work::Effect => {
                let run = std::process::id();
                format!(r#"{{"from":"mint","to":"shop","amount":1,"reference":"INV-{run}-{n}"}}"#)
            }
        };
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{n},"method":"tools/call","params":{{"name":"{}","arguments":{arguments},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}},"io.modelcontextprotocol/clientInfo":{{"name":"bench","version":"1"}}}}}}}}"#,
            self.tool
        );
        let request = format!("{}Content-Length: {}\r\n\r\n{body}", self.head, body.len());
        self.stream.write_all(request.as_bytes()).await?;
        self.buffer.clear();
        let length = loop {
            if let Some(length) = whole(&self.buffer) {
                break length;
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let response = String::from_utf8_lossy(&self.buffer[..length]);
        assert!(
            response.starts_with("HTTP/1.1 200") && response.contains(r#""isError":false"#),
            "{request}\n{response}"
        );
        Ok(())
    }
}

/// The length of the response, once all of it is here.
fn whole(buffer: &[u8]) -> Option<usize> {
    let head = find(buffer, b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&buffer[..head]).expect("heads are text");
    let header = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    if let Some(length) = header("content-length") {
        let end = head + length.parse::<usize>().expect("a length");
        return (buffer.len() >= end).then_some(end);
    }
    let mut at = head;
    loop {
        let line = at + find(&buffer[at..], b"\r\n")?;
        let digits = std::str::from_utf8(&buffer[at..line]).expect("a length is text");
        let chunk = usize::from_str_radix(digits.trim(), 16).expect("a length");
        at = line + 2 + chunk + 2;
        if buffer.len() < at {
            return None;
        }
        if chunk == 0 {
            return Some(at);
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_whole_when_all_of_them_is_there() {
        for text in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ] {
            for end in 0..text.len() {
                assert_eq!(whole(&text.as_bytes()[..end]), None, "{end} of {text:?}");
            }
            assert_eq!(whole(text.as_bytes()), Some(text.len()));
        }
    }

    #[test]
    fn percentiles_are_of_all_answers() {
        let mut sample =
            Sample { latencies: (1..=50).map(|n| n * 1_000_000).collect(), wall: Duration::from_secs(1) };
        sample.add(Sample {
            latencies: (51..=100).map(|n| n * 1_000_000).collect(),
            wall: Duration::from_secs(1),
        });
        assert_eq!((sample.percentile(50), sample.percentile(99)), (51.0, 100.0));
        assert_eq!(sample.rate(), 50.0);
    }
}
