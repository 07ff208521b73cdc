//! Streamable HTTP by hand: JSON where a response is one message, else events that can be read again.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd,
    sync::{Arc, atomic::Ordering},
    thread,
};

use nix::sys::socket::{MsgFlags, recv};
use serde_json::{Map, Value};

use crate::{
    Offered, dispatch,
    eras::{self, LEGACY, says_modern},
    message::{Failure, Message, result},
    pipe,
    state::{Ask, Era, Everything, Session, lock},
    stream::{Cut, Next, Stream},
};

pub(crate) fn listen(everything: &Arc<Everything>, address: &str) {
    let listener = TcpListener::bind(address).expect("the address is free");
    let address = listener.local_addr().expect("it listens");
    let mut out = std::io::stdout().lock();
    writeln!(out, "everything http://{address}/mcp").and_then(|()| out.flush()).expect("somebody reads");
    for stream in listener.incoming() {
        let everything = everything.clone();
        thread::spawn(move || converse(&everything, stream.expect("a connection")));
    }
}

struct Request {
    method: String,
    path: String,
    /// Names in lower case.
    headers: Value,
    body: String,
}

/// What comes after a response on the same connection.
#[derive(PartialEq)]
enum Then {
    More,
    Close,
}

fn converse(everything: &Arc<Everything>, stream: TcpStream) {
    // Two small writes must not wait for each other.
    stream.set_nodelay(true).expect("it is a TCP stream");
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        if handle(everything, reader.get_mut(), &request).unwrap_or(Then::Close) == Then::Close {
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = Map::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end_matches(['\r', '\n']).split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).into());
    }
    let length = headers.get("content-length").and_then(|length| length.as_str()?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, path, headers: headers.into(), body: String::from_utf8_lossy(&body).into_owned() })
}

fn handle(everything: &Arc<Everything>, out: &mut TcpStream, request: &Request) -> std::io::Result<Then> {
    let header = |name: &str| request.headers[name].as_str();
    let is_here = |address: &str| {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        matches!(host, "127.0.0.1" | "localhost" | "[::1]")
    };
    let origin = header("origin").map(|origin| origin.split_once("//").map_or(origin, |(_, host)| host));
    if !header("host").is_some_and(is_here) || !origin.is_none_or(is_here) {
        return respond(out, 403, "", "");
    }
    if request.path != "/mcp" {
        return respond(out, 404, "", "");
    }
    let session = header("mcp-session-id").and_then(|id| lock(&everything.sessions).get(id).cloned());
    match (request.method.as_str(), header("mcp-session-id").is_some(), session) {
        ("POST", is_named, session) => post(everything, out, request, is_named, session),
        ("GET" | "DELETE", true, None) => respond(out, 404, "", ""),
        ("GET", _, Some(session)) => get(out, &session, header("last-event-id")),
        ("DELETE", _, Some(session)) => {
            lock(&everything.sessions).remove(&session.id);
            if let Some(stream) = &session.stream {
                stream.finish(200, None);
            }
            respond(out, 200, "", "")
        }
        _ => respond(out, 405, "Allow: POST\r\n", ""),
    }
}

fn post(
    everything: &Arc<Everything>,
    out: &mut TcpStream,
    request: &Request,
    is_named: bool,
    session: Option<Arc<Session>>,
) -> std::io::Result<Then> {
    everything.write("seen.jsonl", &request.body.replace(['\n', '\r'], " "));
    let Some(message) = Message::parse(&request.body) else {
        return respond(out, 400, "", &Failure::new(400, -32700, "not a message").text("null"));
    };
    let version = request.headers["mcp-protocol-version"].as_str();
    let offered = everything.options.offered;
    let modern = says_modern(&message.params.value)
        || !is_named
            && message.method.as_deref() != Some("initialize")
            && version.is_some_and(|version| !LEGACY.contains(&version));
    let era = match offered {
        Offered::Both if modern => Era::Modern,
        Offered::Modern => Era::Modern,
        _ => Era::Legacy,
    };
    let id = message.id.clone().unwrap_or_else(|| "null".to_owned());
    let is_handshake = era == Era::Legacy && message.method.as_deref() == Some("initialize");
    if is_handshake && !modern {
        let session = everything.begin(message.params.value.clone(), None);
        let header = format!("Mcp-Session-Id: {}\r\n", session.id);
        return respond(
            out,
            200,
            &header,
            &result(&id, &dispatch::initialized(&session, offered).to_string()),
        );
    }
    let session = match (era, session) {
        (Era::Modern, _) => Session::none(),
        (Era::Legacy, Some(session)) => session,
        (Era::Legacy, None) if is_named => {
            return respond(out, 404, "", &Failure::new(404, -32001, "Session not found").text(&id));
        }
        (Era::Legacy, None) => {
            return respond(out, 400, "", &Failure::new(400, -32000, "Bad Request: no session").text(&id));
        }
    };
    let (Some(id), Some(method)) = (message.id.clone(), message.method.clone()) else {
        pipe::session_message(everything, &session, &message);
        return respond(out, 202, "", "");
    };
    if era == Era::Modern
        && let Err(failure) = eras::check(Some(&request.headers), &method, &message.params.value)
    {
        return respond(out, failure.status, "", &failure.text(&id));
    }
    let ask = |line: Arc<Stream>| Ask {
        everything: everything.clone(),
        session,
        era,
        id,
        method,
        params: message.params,
        line,
        cancelled: Arc::default(),
    };
    let prefers_events =
        request.headers["accept"].as_str().is_some_and(|accept| accept.starts_with("text/event-stream"));
    let opening = if prefers_events { Opening::Events } else { Opening::AsNeeded };
    work(out, ask, opening)
}

/// Works on a request and sends what comes of it.
fn work(
    out: &mut TcpStream,
    ask: impl FnOnce(Arc<Stream>) -> Ask,
    opening: Opening,
) -> std::io::Result<Then> {
    let stream = Stream::new();
    let ask = Arc::new(ask(stream.clone()));
    lock(&ask.session.running).insert(ask.id.clone(), ask.cancelled.clone());
    let number = (ask.era == Era::Legacy).then(|| ask.everything.number());
    if let Some(number) = number {
        lock(&ask.session.streams).insert(number, stream.clone());
    }
    let (worker, worked) = (ask.clone(), stream.clone());
    thread::spawn(move || {
        let (status, message) = dispatch::run(&worker);
        lock(&worker.session.running).remove(&worker.id);
        if message.is_some() {
            worked.finish(status, message);
        }
    });
    let then = follow(out, &stream, 0, number, opening);
    if ask.era == Era::Modern && !matches!(then, Ok(Then::More)) {
        // HTTP: a connection that ends cancels what it asked for.
        ask.cancelled.store(true, Ordering::SeqCst);
    }
    then
}

/// A session's own stream, or one that broke off.
fn get(out: &mut TcpStream, session: &Session, last: Option<&str>) -> std::io::Result<Then> {
    let own = session.stream.as_ref().expect("sessions over HTTP have one");
    let place = last.and_then(|last| last.split_once('-'));
    let (number, stream, from) = match place {
        None => (0, own.clone(), own.unread()),
        Some((number, at)) => {
            let number: u64 = number.parse().unwrap_or(0);
            let stream = lock(&session.streams).get(&number).cloned().unwrap_or_else(|| own.clone());
            (number, stream, at.parse::<usize>().map_or(0, |at| at + 1))
        }
    };
    follow(out, &stream, from, Some(number), Opening::Again)
}

#[derive(Clone, Copy, PartialEq)]
enum Opening {
    /// JSON where the first message is the last.
    AsNeeded,
    Events,
    /// Events of a stream whose beginning is known.
    Again,
}

/// Sends what comes on `stream`. Legacy streams have numbers and can be read again.
fn follow(
    out: &mut TcpStream,
    stream: &Stream,
    from: usize,
    number: Option<u64>,
    opening: Opening,
) -> std::io::Result<Then> {
    // Whoever reads first must not miss a cut that came before; who comes again has had those.
    let cuts = if opening == Opening::Again { stream.cuts() } else { 0 };
    let mut at = from;
    let mut open = false;
    if opening != Opening::AsNeeded {
        begin(out, number.filter(|_| opening == Opening::Events))?;
        open = true;
    }
    loop {
        match stream.next(at, cuts) {
            Next::Message(message, true) if !open => return respond(out, stream.status(), "", &message),
            Next::Message(message, is_last) => {
                if !open {
                    begin(out, number)?;
                    open = true;
                }
                let id = number.map(|number| format!("id: {number}-{at}\n")).unwrap_or_default();
                chunk(out, &format!("{id}data: {message}\n\n"))?;
                at += 1;
                if is_last {
                    chunk(out, "")?;
                    return Ok(Then::More);
                }
            }
            Next::Nothing if is_gone(out) => return Ok(Then::Close),
            Next::Nothing => {}
            Next::End => {
                chunk(out, "")?;
                return Ok(Then::More);
            }
            Next::Cut(cut) => {
                if cut == Cut::Politely && number.is_some() {
                    if !open {
                        begin(out, number)?;
                    }
                    chunk(out, "")?;
                }
                return Ok(Then::Close);
            }
        }
    }
}

/// Begins a stream of events; the first one of a numbered stream only says where it can be taken up.
fn begin(out: &mut TcpStream, number: Option<u64>) -> std::io::Result<()> {
    out.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n",
    )?;
    match number {
        Some(number) => chunk(out, &format!("id: {number}-start\nretry: 200\ndata: \n\n")),
        None => Ok(()),
    }
}

fn chunk(out: &mut TcpStream, text: &str) -> std::io::Result<()> {
    out.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes())
}

fn is_gone(out: &TcpStream) -> bool {
    let mut byte = [0];
    matches!(recv(out.as_raw_fd(), &mut byte, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT), Ok(0))
}

fn respond(out: &mut TcpStream, status: u16, headers: &str, body: &str) -> std::io::Result<Then> {
    let length = body.len();
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let head = format!("HTTP/1.1 {status} Everything\r\n{kind}Content-Length: {length}\r\n{headers}\r\n");
    out.write_all(format!("{head}{body}").as_bytes())?;
    Ok(Then::More)
}
