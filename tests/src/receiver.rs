//! Somebody who is notified over HTTP, and who can be away for a while.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use serde_json::Value;

use crate::patience::{PATIENCE, eventually_some};

/// A local receiver that ends with its story.
pub struct Receiver {
    address: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    taken: Mutex<Vec<Delivery>>,
    missed: Mutex<Vec<Delivery>>,
    away: AtomicBool,
    end: AtomicBool,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// `POST /path HTTP/1.1`.
    pub line: String,
    /// All headers, their names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Delivery {
    /// The value of a header, whose name is given in lower case; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// Where it is not JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.body))
    }
}

impl Receiver {
    /// Somebody at a port that the kernel has chosen.
    ///
    /// # Panics
    /// Where there is no port.
    pub fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let shared = Arc::new(Shared::default());
        let kept = shared.clone();
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if kept.end.load(Ordering::SeqCst) {
                    return;
                }
                // Whoever breaks off has said nothing.
                let _ = stream.map(|stream| kept.serve(stream));
            }
        });
        Receiver { address, shared, thread: Some(thread) }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `http://127.0.0.1:PORT/path`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// From now on it answers nobody.
    pub fn leave(&self) {
        self.shared.away.store(true, Ordering::SeqCst);
    }

    /// It answers again.
    pub fn come_back(&self) {
        self.shared.away.store(false, Ordering::SeqCst);
    }

    /// What was delivered so far.
    pub fn taken(&self) -> Vec<Delivery> {
        lock(&self.shared.taken).clone()
    }

    /// What came while it was away.
    pub fn missed(&self) -> Vec<Delivery> {
        lock(&self.shared.missed).clone()
    }

    /// The `n`-th delivery, from 0, once it is there.
    pub fn delivery(&self, n: usize) -> Delivery {
        eventually_some(&format!("delivery {n}"), || self.taken().get(n).cloned())
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::SeqCst);
        // Wakes it up, so that it sees the end.
        drop(TcpStream::connect(&self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let line = line.trim_end().to_owned();
        let mut headers = Vec::new();
        loop {
            let mut header = String::new();
            stream.read_line(&mut header)?;
            let Some((name, value)) = header.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let body = String::from_utf8_lossy(&body).into_owned();
        let delivery = Delivery { line, headers, body };
        if self.away.load(Ordering::SeqCst) {
            lock(&self.missed).push(delivery);
            return Ok(());
        }
        lock(&self.taken).push(delivery);
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
