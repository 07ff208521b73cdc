//! HTTP/1.1 by hand: many stories are about when a connection opens, idles or breaks, which clients hide.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
};

use serde_json::Value;

use crate::patience::PATIENCE;

/// A connection of its own.
pub struct Connection {
    stream: BufReader<TcpStream>,
    address: String,
}

/// The first part of a response.
#[derive(Clone, Debug)]
pub struct Head {
    /// The status.
    pub status: u16,
    headers: Vec<(String, String)>,
    left: Left,
}

/// What is still to come of a body.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Left {
    Bytes(usize),
    Chunks,
    Nothing,
}

/// A whole response.
#[derive(Debug)]
pub struct Response {
    /// Status and headers.
    pub head: Head,
    /// The body.
    pub body: String,
}

impl Response {
    /// The status.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// Where it is not JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {} {}", self.head.status, self.body))
    }
}

impl Head {
    /// The value of a header, whose name is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether the whole body was read.
    pub fn is_over(&self) -> bool {
        matches!(self.left, Left::Nothing | Left::Bytes(0))
    }

    /// Whether the body is a stream of events.
    pub fn is_event_stream(&self) -> bool {
        self.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"))
    }
}

impl Connection {
    /// Connects to `HOST:PORT`.
    ///
    /// # Panics
    /// Where nobody listens there.
    pub fn open(address: &str) -> Connection {
        Self::try_open(address).unwrap_or_else(|| panic!("nobody listens at {address}"))
    }

    /// Connects to `HOST:PORT`; none where nobody listens there.
    pub fn try_open(address: &str) -> Option<Connection> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
        stream.set_write_timeout(Some(PATIENCE)).expect("the time is not zero");
        stream.set_nodelay(true).expect("the socket is open");
        Some(Connection { stream: BufReader::new(stream), address: address.to_owned() })
    }

    /// Sends a request with `Host` and `Content-Length`, unless `headers` say otherwise.
    pub fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut text = format!("{method} {path} HTTP/1.1\r\n");
        let given = |name: &str| headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        if !given("host") {
            text += &format!("Host: {}\r\n", self.address);
        }
        if !given("content-length") && (method != "GET" || !body.is_empty()) {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(body);
        self.write(&bytes);
    }

    /// Sends bytes as they are. A peer that stopped reading has a reason, which its response tells.
    pub fn write(&mut self, bytes: &[u8]) {
        match self.stream.get_mut().write_all(bytes) {
            Err(error) if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                panic!("{}: {error}", self.address)
            }
            _ => {}
        }
    }

    /// Reads status and headers.
    ///
    /// # Panics
    /// Where the connection breaks or stays silent.
    pub fn head(&mut self) -> Head {
        self.try_head().expect("a response")
    }

    /// Reads status and headers; none where the connection is closed instead.
    pub fn try_head(&mut self) -> Option<Head> {
        let status = self.line()?;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.expect("a status line");
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let find =
            |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let left = match (find("content-length"), find("transfer-encoding")) {
            (Some(length), _) => Left::Bytes(length.parse().expect("a length")),
            (None, Some(_)) => Left::Chunks,
            (None, None) => Left::Nothing,
        };
        Some(Head { status, headers, left })
    }

    /// Reads a whole response.
    ///
    /// # Panics
    /// Where the connection breaks or stays silent.
    pub fn response(&mut self) -> Response {
        let mut head = self.head();
        let mut body = Vec::new();
        while let Some(part) = self.part(&mut head) {
            body.extend(part);
        }
        Response { head, body: String::from_utf8(body).expect("UTF-8") }
    }

    /// The next part of the body; none at its end, or where the connection broke.
    pub fn part(&mut self, head: &mut Head) -> Option<Vec<u8>> {
        match head.left {
            Left::Nothing | Left::Bytes(0) => None,
            Left::Bytes(length) => {
                head.left = Left::Nothing;
                self.exactly(length)
            }
            Left::Chunks => {
                let length = usize::from_str_radix(self.line()?.trim(), 16).expect("a chunk's length");
                let chunk = self.exactly(length)?;
                self.line()?;
                if length == 0 {
                    head.left = Left::Nothing;
                    return None;
                }
                Some(chunk)
            }
        }
    }

    /// From now on it waits as long as it takes.
    #[must_use]
    pub fn patient(self) -> Connection {
        self.stream.get_ref().set_read_timeout(None).expect("the socket is open");
        self
    }

    /// The socket, for whoever wants to break it off while somebody reads.
    pub fn handle(&self) -> TcpStream {
        self.stream.get_ref().try_clone().expect("the socket is open")
    }

    /// Closes both directions now, as a client that crashed.
    pub fn break_off(self) {
        // It may be closed already.
        let _ = self.stream.get_ref().shutdown(Shutdown::Both);
    }

    fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).ok().map(|()| bytes)
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(line.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("{} is silent", self.address)
            }
            Err(_) => None,
        }
    }
}
