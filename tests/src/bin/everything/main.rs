//! An MCP server with at least one feature of every kind: `everything [--http ADDR] [--era E] [--page N] [--dir DIR]`.
//!
//! | argument | says |
//! |---|---|
//! | `--http ADDR` | serves HTTP there, and prints the URL; otherwise it serves standard input and output |
//! | `--era both`, `legacy` or `modern` | which revisions it speaks: those with sessions, 2026-07-28, or both |
//! | `--page N` | lists come in pages of so many |
//! | `--dir DIR` | writes there: `seen.jsonl`, each message as it came, and `effects`, a line for each effect |
//!
//! It passes the official conformance suite, so that whatever fails behind a proxy is the proxy's fault.
//!
//! | module | holds |
//! |---|---|
//! | `web`, `pipe` | the two transports |
//! | `stream` | ways to a client |
//! | `state` | sessions, listeners, what was seen |
//! | `message` | what comes in, what goes out |
//! | `eras` | what 2026-07-28 demands of a request |
//! | `dispatch` | methods |
//! | `offers` | the definitions of tools, prompts and resources |
//! | `tools`, `rounds`, `tasks`, `reads`, `odd` | what they do |

#![allow(clippy::print_stdout, reason = "a server on standard output")]

mod dispatch;
mod eras;
mod message;
mod odd;
mod offers;
mod pipe;
mod reads;
mod rounds;
mod state;
mod stream;
mod tasks;
mod tools;
mod web;

use std::path::PathBuf;

/// Which revisions are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offered {
    Both,
    Legacy,
    Modern,
}

struct Options {
    http: Option<String>,
    offered: Offered,
    page: usize,
    directory: Option<PathBuf>,
}

fn main() {
    let options = options();
    let http = options.http.clone();
    let everything = state::Everything::new(options);
    match http {
        Some(address) => web::listen(&everything, &address),
        None => pipe::serve(&everything),
    }
}

fn options() -> Options {
    let mut options = Options { http: None, offered: Offered::Both, page: usize::MAX, directory: None };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().expect("each argument has a value");
        match arg.as_str() {
            "--http" => options.http = Some(value),
            "--era" => {
                options.offered = match value.as_str() {
                    "legacy" => Offered::Legacy,
                    "modern" => Offered::Modern,
                    _ => Offered::Both,
                }
            }
            "--page" => options.page = value.parse().expect("a number of entries"),
            "--dir" => options.directory = Some(value.into()),
            _ => panic!("what is {arg}?"),
        }
    }
    options
}
