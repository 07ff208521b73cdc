//! Streamable HTTP: both protocol eras on one address.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::harness::{Bank, World, payment, text};

/// A bank over HTTP and its `host:port`.
fn open(world: &World) -> (Bank, String) {
    let bank = Bank::start(&mut world.command(&["--http", "127.0.0.1:0", "--faults", "faults"]));
    let ready = bank.line().expect("it says where it listens");
    let address = ready.strip_prefix("bank http://").and_then(|rest| rest.strip_suffix("/mcp"));
    let address = address.unwrap_or_else(|| panic!("unexpected: {ready}")).to_owned();
    (bank, address)
}

/// The whole response, head and body.
fn post(address: &str, headers: &[(&str, &str)], body: &Value) -> String {
    let body = body.to_string();
    let mut request = format!(
        "POST /mcp HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    let mut stream = TcpStream::connect(address).expect("the bank listens");
    stream.write_all(format!("{request}\r\n{body}").as_bytes()).expect("the bank reads");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("the bank answers in UTF-8");
    response
}

fn message(response: &str) -> Value {
    let data = response.lines().find_map(|line| line.strip_prefix("data: {"));
    let data = data.unwrap_or_else(|| panic!("no message in {response}"));
    serde_json::from_str(&format!("{{{data}")).expect("a message is JSON")
}

fn modern_payment(reference: &str) -> Value {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let params = json!({ "name": "transfer", "arguments": payment(reference), "_meta": meta });
    json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params })
}

const MODERN: [(&str, &str); 3] =
    [("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", "tools/call"), ("Mcp-Name", "transfer")];

#[test]
fn the_modern_era_is_one_request() {
    let world = World::new();
    let (_bank, address) = open(&world);
    let paid = message(&post(&address, &MODERN, &modern_payment("INV-7")));
    assert_eq!(paid["result"]["resultType"], "complete", "{paid}");
    assert_eq!(paid["result"]["structuredContent"]["id"], "t-1");
    assert_eq!(world.count(), 1);
}

#[test]
fn the_legacy_era_has_a_session() {
    let world = World::new();
    let (_bank, address) = open(&world);
    let client = json!({ "name": "test", "version": "1" });
    let params = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client });
    let hello = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params });
    let response = post(&address, &[], &hello);
    assert_eq!(message(&response)["result"]["protocolVersion"], "2025-06-18");
    let session = response.lines().find_map(|line| line.strip_prefix("mcp-session-id: ")).expect("a session");
    let headers = [("Mcp-Session-Id", session), ("MCP-Protocol-Version", "2025-06-18")];
    post(&address, &headers, &json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
    let params = json!({ "name": "transfer", "arguments": payment("INV-7") });
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let paid = message(&post(&address, &headers, &call));
    assert!(text(&paid["result"]).starts_with("Made t-1: "), "{paid}");
    assert_eq!(paid["result"].get("resultType"), None);
    assert_eq!(world.count(), 1);
}

#[test]
fn death_after_the_commit_cuts_the_connection() {
    let world = World::new();
    let (bank, address) = open(&world);
    world.fault("die-after-commit");
    let mut stream = TcpStream::connect(&address).expect("the bank listens");
    let body = modern_payment("INV-7").to_string();
    let headers: String = MODERN.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Accept: application/json, text/event-stream\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).expect("the bank reads");
    let mut response = Vec::new();
    // A reset and an early end are both fine; an answer is not.
    let _ = stream.read_to_end(&mut response);
    assert!(!String::from_utf8_lossy(&response).contains("t-1"));
    assert!(!bank.finish().0.success());
    assert_eq!(world.count(), 1);
}

#[test]
fn foreign_pages_are_turned_away() {
    let world = World::new();
    let (_bank, address) = open(&world);
    let evil = [MODERN.as_slice(), &[("Origin", "https://evil.example")]].concat();
    let response = post(&address, &evil, &modern_payment("INV-7"));
    assert!(response.starts_with("HTTP/1.1 403 "), "{response}");
    let ours = [MODERN.as_slice(), &[("Origin", "http://localhost:3000")]].concat();
    assert_eq!(message(&post(&address, &ours, &modern_payment("INV-8")))["id"], 1);
    assert_eq!(world.statement()["references"], json!({ "INV-8": 1 }));
}

#[test]
fn a_taken_port_is_a_clear_error() {
    let world = World::new();
    let (_bank, address) = open(&world);
    let output = world.run(&["--http", &address]);
    assert_eq!(output.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(complaint.starts_with(&format!("bank: cannot listen on {address}: ")), "{complaint}");
    assert!(output.stdout.is_empty());
}
