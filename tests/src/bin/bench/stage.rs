//! The programs that are measured: a bank of its own over HTTP, and Holdfast in front of banks.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use holdfast_tests::{Served, World, bank};

use crate::load::Target;

/// Settings under which the proxy is measured: no limit of its own but the machine.
const POLICY: &str = r#"[defaults]
effect = "allow"
limits = { concurrency = 256 }
[[rule]]
id = "reads"
tool = "echo"
repeat = "safe"
"#;

/// A bank that is asked without anybody in between.
pub(crate) struct Direct {
    child: Child,
    address: String,
}

impl Direct {
    /// Starts one with this ledger.
    pub(crate) fn start(world: &World, ledger: &str, more: &[&str]) -> Direct {
        let mut command = world.command(&bank());
        command.args(["--http", "127.0.0.1:0", "--ledger", ledger]).args(more);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the bank starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the bank says where it listens");
        let address = line.trim().strip_prefix("bank http://").and_then(|rest| rest.strip_suffix("/mcp"));
        let address = address.expect("its address").to_owned();
        Direct { child, address }
    }

    /// How to ask it.
    pub(crate) fn target(&self) -> Target {
        Target { address: self.address.clone(), prefix: "" }
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        // Already gone where it failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes the configuration: `pipe` and `synced` are banks by stdio, `web` and `websynced` the given ones over HTTP.
pub(crate) fn configure(world: &World, web: &Direct, web_synced: &Direct) {
    let program = bank();
    let program = program.to_str().expect("the target directory is UTF-8");
    let stdio = |name: &str, more: &str| {
        format!("[servers.{name}]\ncommand = {program:?}\nargs = [\"--ledger\", \"{name}.jsonl\"{more}]\n")
    };
    let http =
        |name: &str, direct: &Direct| format!("[servers.{name}]\nurl = \"http://{}/mcp\"\n", direct.address);
    world.configure(&format!(
        "{}{}{}{}{POLICY}",
        stdio("pipe", ", \"--no-sync\""),
        stdio("synced", ""),
        http("web", web),
        http("websynced", web_synced),
    ));
}

/// Only `pipe`, which ends with its Holdfast.
pub(crate) fn configure_alone(world: &World) {
    configure_with(world, "[store]\nkeep_servers = \"off\"\n");
}

/// Only `pipe`.
pub(crate) fn configure_pipe(world: &World) {
    configure_with(world, "");
}

fn configure_with(world: &World, more: &str) {
    let program = bank();
    let program = program.to_str().expect("the target directory is UTF-8");
    world.configure(&format!(
        "{more}[servers.pipe]\ncommand = {program:?}\nargs = [\"--ledger\", \"pipe.jsonl\", \"--no-sync\"]\n{POLICY}"
    ));
}

/// Starts Holdfast, and tells how long that took.
pub(crate) fn serve(world: &World) -> (Served, Duration) {
    let begun = Instant::now();
    let served = world.serve();
    (served, begun.elapsed())
}

/// How to ask Holdfast for a server's tools.
pub(crate) fn behind(served: &Served, prefix: &'static str) -> Target {
    Target { address: served.mcp.clone(), prefix }
}

/// Memory and time that a process has used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Resident now, in MiB.
    pub(crate) resident: f64,
    /// Processor time, user and system, in seconds.
    pub(crate) cpu: f64,
}

impl Usage {
    /// Of the process with this id.
    pub(crate) fn of(pid: i32) -> Usage {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let kib: f64 = line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(f64::NAN);
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name may contain anything; what is wanted comes after it.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        Usage { resident: kib / 1024.0, cpu: ticks / 100.0 }
    }
}
