//! `bank`: an MCP server that keeps a ledger on disk, and can be told to misbehave.
//!
//! It is the upstream in the examples, the end-to-end tests and the benchmark: whatever happens in between,
//! `bank ledger` says how often each payment was really made.

mod book;
mod cli;
mod clock;
mod fault;
mod ledger;
mod listen;
mod server;
mod statement;
mod teller;

fn main() -> std::process::ExitCode {
    cli::run()
}
