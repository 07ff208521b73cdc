//! `bench`: what Holdfast costs, against the same servers asked directly, in one run.
//!
//! `cargo run --release -p holdfast-tests --bin bench -- [--json] [--seconds S] [--rounds N] [--history CALLS | --holds CALLS]`
//!
//! Without `--history`: reads and effects at 1, 16 and 64 connections, direct and through Holdfast by turns, and what a
//! durable commit costs here. With it: starts and latencies over a journal of so many finished calls, against an empty
//! one. With `--holds`: what so many calls that wait for a person cost. Everything shares the machine, the client included: ratios are worth more than figures.

#![allow(clippy::print_stdout, reason = "a program that prints what it measured")]

mod costs;
mod disk;
mod history;
mod holds;
mod load;
mod stage;
mod table;

use std::{process::ExitCode, time::Duration};

/// How long and how often is measured.
#[derive(Clone, Copy, Debug)]
struct Effort {
    /// Of one turn.
    time: Duration,
    /// Turns of each contestant.
    rounds: usize,
}

fn main() -> ExitCode {
    let mut effort = Effort { time: Duration::from_secs(1), rounds: 3 };
    let (mut history, mut holds, mut json) = (None, None, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|number| number.parse::<f64>().ok());
        match (arg.as_str(), arg == "--json") {
            (_, true) => json = true,
            ("--seconds", _) if let Some(seconds) = number() => {
                effort.time = Duration::from_secs_f64(seconds)
            }
            ("--rounds", _) if let Some(rounds) = number() => effort.rounds = rounds as usize,
            ("--holds", _) if let Some(calls) = number() => holds = Some(calls as usize),
            ("--history", _) if let Some(calls) = number() => history = Some(calls as u64),
            _ => {
                println!(
                    "usage: bench [--json] [--seconds S] [--rounds N] [--history CALLS | --holds CALLS]"
                );
                return ExitCode::from(2);
            }
        }
    }
    let report = match (history, holds) {
        (Some(calls), _) => history::measure(calls, effort),
        (None, Some(calls)) => holds::measure(calls),
        (None, None) => costs::measure(effort),
    };
    println!("{}", if json { report.json() } else { report.markdown() });
    ExitCode::SUCCESS
}
