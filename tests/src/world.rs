//! A directory of its own for each story: configuration, journal, ledger, faults.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    binaries,
    bridge::Bridge,
    patience::eventually,
    process::{
        HttpServer, Ran, Served, continue_process, end_process, has_ended, has_unread_input, keepers_in,
        living_in, pause_process,
    },
};

/// Everything is allowed that no rule forbids or asks for.
pub const ALLOW: &str = "[defaults]\neffect = \"allow\"\n";

/// A directory that outlives the programs in it; when it goes, they go.
pub struct World {
    directory: TempDir,
}

impl World {
    /// An empty directory.
    ///
    /// # Panics
    /// Where none can be made.
    pub fn empty() -> World {
        World { directory: tempfile::Builder::new().prefix("holdfast-").tempdir().expect("a directory") }
    }

    /// A directory whose `holdfast.toml` listens somewhere, keeps its journal here, and says `more`.
    pub fn with(more: &str) -> World {
        let world = Self::empty();
        world.configure(more);
        world
    }

    /// The same, in front of a bank whose ledger is here and which does what the file `faults` says.
    pub fn bank(more: &str) -> World {
        let world = Self::empty();
        world.configure(&format!("{}{more}", world.server_bank()));
        world
    }

    /// The table of a server `bank`, to be followed by settings of that server.
    pub fn server_bank(&self) -> String {
        let program = binaries::bank();
        let program = program.to_str().expect("the target directory is UTF-8");
        format!(
            "[servers.bank]\ncommand = {program:?}\nargs = [\"--ledger\", \"ledger.jsonl\", \"--faults\", \"faults\"]\n"
        )
    }

    /// The table of a server `odd` that works in this directory, with these further arguments.
    pub fn server_odd(&self, args: &str) -> String {
        let program = binaries::odd();
        let program = program.to_str().expect("the target directory is UTF-8");
        format!("[servers.odd]\ncommand = {program:?}\nargs = [\".\"{args}]\n")
    }

    /// What `odd` was sent, in order: `{"message": ...}`, over HTTP with `"headers"`.
    pub fn odd_log(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("odd.log")).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.map(|line| serde_json::from_str(line).expect("odd writes JSON")).collect()
    }

    /// The calls of this tool that reached `odd`.
    pub fn odd_calls(&self, tool: &str) -> Vec<Value> {
        let mut log = self.odd_log();
        log.retain(|line| {
            line["message"]["method"] == "tools/call" && line["message"]["params"]["name"] == tool
        });
        log
    }

    /// Writes `holdfast.toml` anew.
    pub fn configure(&self, more: &str) {
        let listen = "[listen]\nmcp = \"127.0.0.1:0\"\ninbox = \"127.0.0.1:0\"\n";
        self.write("holdfast.toml", &format!("version = 1\n{listen}{more}"));
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file whole: nobody reads half of it.
    pub fn write(&self, name: &str, text: &str) {
        let new = self.path(&format!("{name}.new"));
        fs::write(&new, text).expect("the directory is ours");
        fs::rename(&new, self.path(name)).expect("the directory is ours");
    }

    /// Makes the bank suffer this at its next calls.
    pub fn fault(&self, line: &str) {
        self.write("faults", line);
    }

    /// Makes the bank well again.
    pub fn heal(&self) {
        // A fault that fires once takes the file away itself.
        let _ = fs::remove_file(self.path("faults"));
    }

    /// Whether the fault in the file has fired (only for those that fire once).
    pub fn fault_fired(&self) -> bool {
        !self.path("faults").exists()
    }

    /// How often the bank really made the transfer with this reference.
    pub fn paid(&self, reference: &str) -> usize {
        self.ledger().iter().filter(|line| line["reference"] == reference).count()
    }

    /// What the bank's ledger says, line by line; torn lines do not count, as they do not for the bank.
    ///
    /// # Panics
    /// Where a line is not JSON.
    pub fn ledger(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("ledger.jsonl")).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.map(|line| serde_json::from_str(line).expect("a line of the ledger is JSON")).collect()
    }

    /// `PROGRAM` here, with an environment that has nothing of ours but a `PATH` for interpreters.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.directory()).env_clear().env("HOME", self.directory());
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
    }

    /// The bank by HTTP, over the ledger that is here; the kernel chooses the port where it is 0.
    pub fn http_bank(&self, address: &str) -> HttpServer {
        let mut command = self.command(&binaries::bank());
        command.args(["--ledger", "ledger.jsonl", "--faults", "faults", "--http", address]);
        HttpServer::start(&mut command)
    }

    /// `odd` by HTTP.
    pub fn http_odd(&self) -> HttpServer {
        HttpServer::start(self.command(&binaries::odd()).args([".", "--http"]))
    }

    /// Stops the one process here that runs this program where it is.
    pub fn pause(&self, program: &str) {
        self.processes_of(program).into_iter().for_each(pause_process);
    }

    /// Lets it go on.
    pub fn go_on(&self, program: &str) {
        self.processes_of(program).into_iter().for_each(continue_process);
    }

    /// The token of the one operator, made where none is configured.
    pub fn token(&self) -> String {
        fs::read_to_string(self.path("holdfast.redb.operator-token")).expect("`serve` has made it")
    }

    /// `everything ARGS` by HTTP, writing here what it sees.
    pub fn http_everything(&self, args: &[&str]) -> HttpServer {
        self.http_everything_at("127.0.0.1:0", args)
    }

    /// The same, at this address.
    pub fn http_everything_at(&self, address: &str, args: &[&str]) -> HttpServer {
        let mut command = self.command(&binaries::everything());
        HttpServer::start(command.args(["--http", address, "--dir", "."]).args(args))
    }

    /// `holdfast ARGS` here.
    pub fn holdfast(&self, args: &[&str]) -> Command {
        let mut command = self.command(&binaries::holdfast());
        command.args(args);
        command
    }

    /// Runs `holdfast ARGS` to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.holdfast(args))
    }

    /// `holdfast serve`, ready. Started again it goes on with the same journal.
    pub fn serve(&self) -> Served {
        Served::start(&mut self.holdfast(&["serve"]), &self.path("serve.log"))
    }

    /// Ends this one as a power cut would and starts the next, before a bridge that is here starts one by itself.
    pub fn serve_anew(&self, served: Served) -> Served {
        self.serve_after(served, Served::kill)
    }

    /// The same, but its keeper and its servers live on.
    pub fn serve_after_crash(&self, served: Served) -> Served {
        self.serve_after(served, Served::crash)
    }

    fn serve_after(&self, served: Served, end: fn(Served)) -> Served {
        let keepers = self.keepers();
        let mut bridges = self.processes_of("holdfast");
        bridges.retain(|pid| *pid != served.pid() && !keepers.contains(pid));
        bridges.iter().for_each(|pid| pause_process(*pid));
        end(served);
        let next = self.serve();
        bridges.iter().for_each(|pid| continue_process(*pid));
        next
    }

    /// `holdfast stdio` with a legacy client behind it.
    pub fn bridge(&self) -> Bridge {
        Bridge::legacy(&mut self.stdio())
    }

    /// `holdfast stdio`, its standard error in a file.
    pub fn stdio(&self) -> Command {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("stdio.log"));
        let mut command = self.holdfast(&["stdio"]);
        command.stderr(log.expect("the directory is ours"));
        command
    }

    /// The ids of all processes whose working directory is here.
    pub fn processes(&self) -> Vec<i32> {
        living_in(self.directory())
    }

    /// The ids of the processes here that run this program.
    pub fn processes_of(&self, program: &str) -> Vec<i32> {
        let runs = |pid: &i32| {
            fs::read_link(format!("/proc/{pid}/exe"))
                .is_ok_and(|path| path.file_name().is_some_and(|name| name == program))
        };
        self.processes().into_iter().filter(runs).collect()
    }

    /// The ids of the keepers here.
    pub fn keepers(&self) -> Vec<i32> {
        keepers_in(self.directory())
    }

    /// Stops the one process here that runs this program where it is, until it is to go on.
    ///
    /// # Panics
    /// Where there is not exactly one.
    pub fn pause_one(&self, program: &str) -> Paused {
        let pids = self.processes_of(program);
        let [pid] = pids.as_slice() else { panic!("{program} runs {} times", pids.len()) };
        pause_process(*pid);
        Paused(*pid)
    }

    /// Whether something waits on stdin that the processes here that run this program have not read.
    pub fn waits_for(&self, program: &str) -> bool {
        self.processes_of(program).into_iter().any(has_unread_input)
    }

    /// Kills the one process here that runs this program.
    ///
    /// # Panics
    /// Where there is not exactly one.
    pub fn kill_one(&self, program: &str) {
        let pids = self.processes_of(program);
        let [pid] = pids.as_slice() else { panic!("{program} runs {} times", pids.len()) };
        end_process(*pid);
        eventually("the killed process is gone", || has_ended(*pid));
    }
}

/// A process that goes on when this is dropped.
pub struct Paused(i32);

impl Drop for Paused {
    fn drop(&mut self) {
        continue_process(self.0);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::env::var_os("HOLDFAST_TEST_KEEP").is_some() {
            // What a failing story left behind is often all there is to see.
            self.directory.disable_cleanup(true);
        }
        // Those in the background have no parent here that could end them.
        for _ in 0..50 {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            left.into_iter().for_each(end_process);
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// 40 from alice to shop.
pub fn payment(reference: &str) -> Value {
    payment_of(40, reference)
}

/// Some amount from alice to shop.
pub fn payment_of(amount: i64, reference: &str) -> Value {
    json!({ "from": "alice", "to": "shop", "amount": amount, "reference": reference })
}
