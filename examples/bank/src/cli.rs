//! Arguments in, exit code out: 0 ok, 1 failed, 2 usage.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::fault::{Fault, Faults, KINDS};
use crate::ledger::{Durability, Ledger, LedgerError};
use crate::listen;
use crate::server::Bank;
use crate::statement;
use crate::teller::Teller;

/// An MCP server that keeps a ledger on disk, and can be told to misbehave.
#[derive(Parser)]
#[command(version, after_long_help = faults_help(), args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Subcommand)]
enum Command {
    /// Print each transfer, and how often each reference was really made.
    Ledger {
        /// The ledger file.
        #[arg(long, default_value = "ledger.jsonl", value_name = "FILE")]
        ledger: PathBuf,
        /// One JSON object instead of a page.
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
struct Serve {
    /// The ledger file, created if it is missing.
    #[arg(long, default_value = "ledger.jsonl", value_name = "FILE")]
    ledger: PathBuf,
    /// Serve streamable HTTP at http://ADDR/mcp instead of stdio; port 0 lets the kernel choose.
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// Misbehave; may be given several times. `--help` lists the kinds. BANK_FAULT adds one more.
    #[arg(long, value_name = "KIND")]
    fault: Vec<String>,
    /// Misbehave as this file says at the moment of each call; it need not exist.
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// Do not force transfers to the disk; for benchmarks.
    #[arg(long)]
    no_sync: bool,
}

/// What is told to the operator before a non-zero exit.
struct Failure {
    code: u8,
    what: String,
    hint: Option<&'static str>,
}

/// Runs the command line of this process.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Command::Ledger { ledger, json }) => print_ledger(&ledger, json),
        None => serve(cli.serve),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, what, hint }) => {
            let hint = hint.map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
            // Nobody is left to tell if standard error is gone.
            let _ = writeln!(std::io::stderr(), "bank: {what}{hint}");
            ExitCode::from(code)
        }
    }
}

fn serve(args: Serve) -> Result<(), Failure> {
    let from_env = std::env::var("BANK_FAULT").ok();
    let standing = standing_faults(args.fault.iter().chain(&from_env))?;
    let durability = if args.no_sync { Durability::Unsynced } else { Durability::Synced };
    let ledger = Ledger::open(&args.ledger, durability)
        .map_err(|e| ledger_failure(e, "--ledger FILE says where else to keep it"))?;
    let bank = Arc::new(Bank::new(Teller::new(ledger), Faults::new(standing, args.faults)));
    let runtime = tokio::runtime::Runtime::new().map_err(|e| failed(format!("cannot start: {e}"), None))?;
    let served = match args.http {
        Some(address) => {
            let served = runtime.block_on(listen::http(bank, &address));
            served.map_err(|e| failed(e, Some("--http 127.0.0.1:0 takes a free port")))
        }
        None => {
            greet(&args.ledger);
            runtime.block_on(listen::stdio(bank)).map_err(|e| failed(e, None))
        }
    };
    // A call that hangs on purpose must not keep the process.
    runtime.shutdown_background();
    served
}

fn print_ledger(path: &Path, json: bool) -> Result<(), Failure> {
    let hint = "--ledger FILE says which ledger";
    let mut ledger = Ledger::open_to_read(path).map_err(|e| ledger_failure(e, hint))?;
    let torn = ledger.torn_bytes().map_err(|e| ledger_failure(e, hint))?;
    let book = ledger.book().map_err(|e| ledger_failure(e, hint))?;
    let text = if json { format!("{}\n", statement::json(book, torn)) } else { statement::page(book, torn) };
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(failed(format!("cannot write to stdout: {e}"), None))
        }
        _ => Ok(()),
    }
}

fn standing_faults<'a>(lines: impl Iterator<Item = &'a String>) -> Result<Vec<Fault>, Failure> {
    let parsed = lines.map(|line| Fault::parse(line)).filter_map(Result::transpose);
    parsed.collect::<Result<_, _>>().map_err(|what| Failure {
        code: 2,
        what: format!("cannot misbehave like that: {what}"),
        hint: Some("`bank --help` lists the kinds of faults"),
    })
}

/// A person who starts the bank by hand would otherwise look at nothing.
fn greet(ledger: &Path) {
    if std::io::stdin().is_terminal() {
        let ledger = ledger.display();
        let _ = writeln!(
            std::io::stderr(),
            "bank: speaking MCP on stdin and stdout, ledger {ledger}; `bank --help` says what else it can do"
        );
    }
}

fn ledger_failure(error: LedgerError, hint: &'static str) -> Failure {
    let (LedgerError::Unusable(what) | LedgerError::InDoubt(what)) = error;
    failed(what, Some(hint))
}

fn failed(what: String, hint: Option<&'static str>) -> Failure {
    Failure { code: 1, what, hint }
}

fn faults_help() -> String {
    format!(
        "Faults (--fault, --faults FILE, BANK_FAULT) are words on one line, e.g. `slow=2s progress=4 once`:\n{KINDS}\n  \
         all:...               every tool, not only transfer, e.g. all:slow=1s\n  \
         ... once              fire once; in a file: then remove the file"
    )
}
