//! Holdfast: sits between an agent and its MCP servers and lets every tool call happen once.

mod address;
mod answers;
mod cli;
mod config;
mod driver;
mod front;
mod inbox;
mod keeper;
mod notify;
mod reload;
mod report;
mod telemetry;
mod times;
mod upstream;
mod wire;

fn main() -> std::process::ExitCode {
    cli::run()
}
