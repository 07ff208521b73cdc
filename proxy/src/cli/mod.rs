//! The command line: one file per command, from arguments to an exit code.
//!
//! stdout is data, stderr is talk. Exit codes: 0 done, 1 refused or failed, 2 wrong usage; `explain` has its own.

mod add;
mod calls;
mod check;
mod client;
mod decide;
mod doctor;
mod explain;
mod explain_error;
mod init;
mod keeper;
mod login;
mod notify_test;
pub(crate) mod out;
mod pending;
mod reload;
mod remember;
mod serve;
mod setup;
mod show;
mod source;
mod stdio;
mod tools;
mod verify;
mod words;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use holdfast_policy::Problem;

use crate::report::Report;

/// A proxy that makes every MCP tool call happen once, and asks a person first where the policy says so.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, propagate_version = true, arg_required_else_help = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Environment:
  HOLDFAST_OPERATOR_TOKEN  who decides, where operators are configured
  HOLDFAST_TOKEN           who calls through `stdio`, where agents are configured
  RUST_LOG                 as --log-level

Exit codes: 0 done, 1 refused or failed, 2 wrong usage";

/// What every command understands.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// The configuration [default: ./holdfast.toml, else holdfast/holdfast.toml in the user's configuration]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// What goes to the log on stderr: error, warn, info, debug, trace, or directives as in RUST_LOG
    #[arg(long, global = true, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
}

/// How a command writes its data.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Output {
    /// Write JSON to stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run proxy and inbox in the foreground
    Serve,
    /// Bridge the stdio of an agent to the running `serve`, starting one when there is none
    Stdio,
    /// Move the servers of your clients behind Holdfast: shows what would change, and does it with --apply
    Init(init::InitArgs),
    /// Add a server to the configuration: `add NAME -- COMMAND ARGS`, or `add NAME --url URL`
    Add(add::AddArgs),
    /// Remove a server from the configuration
    Remove(add::RemoveArgs),
    /// Say what is wrong with this set-up and how to mend it; exit 0 or 1
    Doctor(doctor::DoctorArgs),
    /// Load the configuration and print every error and warning; exit 0 or 1
    Check(check::CheckArgs),
    /// Say what the policy does with a call, and why; exit 0 allow, 10 ask, 20 deny
    Explain(explain::ExplainArgs),
    /// List what waits for a person
    Pending(pending::PendingArgs),
    /// Approve a held call, exactly as it is shown
    Approve(decide::ApproveArgs),
    /// Reject a held call
    Reject(decide::RejectArgs),
    /// Have other arguments asked for than those of a held call
    Edit(decide::EditArgs),
    /// Answer a held call in the tool's place
    Respond(decide::RespondArgs),
    /// Take an approval back before the call is sent
    Revoke(decide::RevokeArgs),
    /// Settle a call in doubt: it happened, it was not sent, or nobody will know
    Resolve(decide::ResolveArgs),
    /// Withdraw a call that was not sent
    Cancel(decide::CallArgs),
    /// Free the keys of a finished call, so that it can be made again
    Release(decide::CallArgs),
    /// Let an approval of yours speak for later calls like that one, too
    Remember(remember::RememberArgs),
    /// List the approvals that are remembered
    Remembered(remember::RememberedArgs),
    /// Let a remembered approval speak for nothing any more
    Forget(remember::ForgetArgs),
    /// List the tools of all servers, and what changed in those that wait to be accepted
    Tools(tools::ToolsArgs),
    /// Accept the changed definition of a tool
    Accept(tools::AcceptArgs),
    /// List calls, newest first
    Calls(calls::CallsArgs),
    /// Print the whole history of one call
    Show(show::ShowArgs),
    /// Check the audit chain of the journal, entry by entry
    Verify(verify::VerifyArgs),
    /// Sign in to a server that wants OAuth: prints where to go, and waits
    Login(login::LoginArgs),
    /// Have the running `serve` read its configuration anew, and say what came of it; exit 0 or 1
    Reload(reload::ReloadArgs),
    /// Send a test message to everybody who is notified, and say what came of it; exit 0 or 1
    NotifyTest(notify_test::NotifyTestArgs),
    /// Print the page about an error code, or the list of codes
    ExplainError(explain_error::ExplainErrorArgs),
    /// Keep the servers of `serve`, which starts this
    #[command(hide = true)]
    Keeper(keeper::KeeperArgs),
}

/// Parses the arguments of the process and does what they say.
pub(crate) fn run() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    // Commands that try servers out say themselves what came of it.
    let quiet =
        matches!(command, Command::Init(_) | Command::Doctor(_)) && std::env::var_os("RUST_LOG").is_none();
    let level = global.log_level.as_deref().or(quiet.then_some("off"));
    if let Err(error) = crate::telemetry::start(level) {
        out::talk(&error);
        return ExitCode::from(2);
    }
    let done = match command {
        Command::Serve => serve::run(&global),
        Command::Stdio => stdio::run(&global),
        Command::Init(args) => init::run(&global, &args),
        Command::Add(args) => add::add(&global, &args),
        Command::Remove(args) => add::remove(&global, &args),
        Command::Doctor(args) => doctor::run(&global, args),
        Command::Check(args) => Ok(check::run(&global, &args)),
        Command::Explain(args) => explain::run(&global, &args),
        Command::Pending(args) => pending::run(&global, args),
        Command::Approve(args) => decide::approve(&global, &args),
        Command::Reject(args) => decide::reject(&global, &args),
        Command::Edit(args) => decide::edit(&global, &args),
        Command::Respond(args) => decide::respond(&global, &args),
        Command::Revoke(args) => decide::revoke(&global, &args),
        Command::Resolve(args) => decide::resolve(&global, &args),
        Command::Cancel(args) => decide::cancel(&global, &args),
        Command::Release(args) => decide::release(&global, &args),
        Command::Remember(args) => remember::remember(&global, &args),
        Command::Remembered(args) => remember::remembered(&global, args),
        Command::Forget(args) => remember::forget(&global, &args),
        Command::Tools(args) => tools::tools(&global, &args),
        Command::Accept(args) => tools::accept(&global, &args),
        Command::Calls(args) => calls::run(&global, &args),
        Command::Show(args) => show::run(&global, &args),
        Command::Verify(args) => verify::run(&global, args),
        Command::Login(args) => login::run(&global, &args),
        Command::Reload(args) => reload::run(&global, &args),
        Command::NotifyTest(args) => notify_test::run(&global, &args),
        Command::ExplainError(args) => explain_error::run(&args),
        Command::Keeper(args) => keeper::run(args),
    };
    done.unwrap_or_else(|failure| {
        failure.tell();
        ExitCode::FAILURE
    })
}

/// Why a command did not do what it should.
#[derive(Debug)]
pub(crate) enum Failure {
    /// In words.
    Report(Box<Report>),
    /// The configuration is wrong.
    Problems(Vec<Problem>),
}

impl Failure {
    fn tell(&self) {
        match self {
            Self::Report(report) => out::talk(&report.to_string()),
            Self::Problems(problems) => {
                out::problems(problems);
                out::talk("more: holdfast explain-error config-invalid");
            }
        }
    }
}

impl From<Report> for Failure {
    fn from(report: Report) -> Self {
        Self::Report(Box::new(report))
    }
}

impl From<Vec<Problem>> for Failure {
    fn from(problems: Vec<Problem>) -> Self {
        Self::Problems(problems)
    }
}

/// What a command comes to.
pub(crate) type Done = Result<ExitCode, Failure>;

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exactly_one_way_to_settle() {
        let parse =
            |line: &str| Cli::try_parse_from(line.split(' ')).map(drop).map_err(|error| error.exit_code());
        assert_eq!(parse("holdfast resolve abcd --not-sent"), Ok(()));
        assert_eq!(parse("holdfast resolve abcd --happened {}"), Ok(()));
        assert_eq!(parse("holdfast resolve abcd"), Err(2));
        assert_eq!(parse("holdfast resolve abcd --not-sent --give-up"), Err(2));
        assert_eq!(parse("holdfast reject abcd"), Err(2));
        assert_eq!(parse("holdfast -c x.toml check --json"), Ok(()));
        assert_eq!(parse("holdfast check -c x.toml"), Ok(()));
        assert_eq!(parse("holdfast chekc"), Err(2));
    }
}
