//! Programs that end with their story, whatever happens.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::{fd::AsFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::{
    http::{Connection, Response},
    patience::{PATIENCE, eventually, eventually_some},
};

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Ran {
    /// The exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Starts `command` and waits for its end.
    ///
    /// # Panics
    /// Where it does not end within [`PATIENCE`].
    pub fn of(command: &mut Command) -> Ran {
        Self::within(command, PATIENCE)
    }

    /// The same with another limit.
    ///
    /// # Panics
    /// Where it does not end in time.
    pub fn within(command: &mut Command, limit: Duration) -> Ran {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().expect("the program starts");
        let stdout = drained(child.stdout.take().expect("stdout is piped"));
        let stderr = drained(child.stderr.take().expect("stderr is piped"));
        let status = end_within(&mut child, limit);
        let hung = status.is_none();
        if hung {
            end_group(&mut child);
        }
        let [stdout, stderr] = [stdout, stderr].map(|text| text.recv_timeout(PATIENCE).unwrap_or_default());
        assert!(!hung, "{command:?} hangs\n{stdout}\n{stderr}");
        Ran { code: status.and_then(|status| status.code()), stdout, stderr }
    }

    /// Standard output, of a program that did what it was asked for.
    ///
    /// # Panics
    /// Where it failed.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert_eq!(self.code, Some(0), "{}\n{}", self.stdout, self.stderr);
        &self.stdout
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// Where it is not JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}\n{}", self.stdout, self.stderr))
    }

    /// Standard output as one JSON value per line.
    ///
    /// # Panics
    /// Where a line is not JSON.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<serde_json::Value> {
        let parsed = self.stdout.lines().map(|line| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"))
        });
        parsed.collect()
    }
}

/// A program that says something and then goes on.
pub struct Running {
    child: Child,
    said: Receiver<String>,
    stderr: Receiver<String>,
}

impl Running {
    /// Starts `command`.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn start(command: &mut Command) -> Running {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().expect("the program starts");
        let said = lines(child.stdout.take().expect("stdout is piped"));
        let stderr = drained(child.stderr.take().expect("stderr is piped"));
        Running { child, said, stderr }
    }

    /// Its next line on standard output.
    ///
    /// # Panics
    /// Where none comes within [`PATIENCE`].
    pub fn line(&mut self) -> String {
        self.said.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            end_group(&mut self.child);
            panic!("it says nothing: {}", self.stderr.recv_timeout(PATIENCE).unwrap_or_default())
        })
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// Where it does not end within [`PATIENCE`].
    pub fn end(mut self) -> Ran {
        let status = end_within(&mut self.child, PATIENCE).expect("it ends");
        let stdout = self.said.iter().collect::<Vec<_>>().join("\n");
        let stderr = self.stderr.recv_timeout(PATIENCE).unwrap_or_default();
        Ran { code: status.code(), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end_group(&mut self.child);
    }
}

/// A `holdfast serve` that is ready.
pub struct Served {
    child: Child,
    /// `127.0.0.1:PORT` of the MCP listener.
    pub mcp: String,
    /// `127.0.0.1:PORT` of the inbox.
    pub inbox: String,
    log: PathBuf,
}

impl Served {
    /// Starts `command` and waits for the two lines that say where it listens.
    ///
    /// # Panics
    /// Where it ends or stays silent, with what it wrote to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Served {
        let file = fs::OpenOptions::new().create(true).append(true).open(log).expect("the directory is ours");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file).process_group(0);
        let mut child = command.spawn().expect("the program starts");
        let said = lines(child.stdout.take().expect("stdout is piped"));
        let mut line = |begin: &str, end: &str| {
            let line = said.recv_timeout(PATIENCE).ok();
            let address = line.as_deref().and_then(|line| line.strip_prefix(begin)?.strip_suffix(end));
            match address {
                Some(address) => address.to_owned(),
                None => {
                    end_group(&mut child);
                    let log = fs::read_to_string(log).unwrap_or_default();
                    panic!("expected `{begin}...{end}`, got {line:?}\n{log}");
                }
            }
        };
        let mcp = line("mcp http://", "/mcp");
        let inbox = line("inbox http://", "/");
        Served { child, mcp, inbox, log: log.to_owned() }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id().try_into().expect("process ids fit")
    }

    /// Ends it as a power cut would, as far as a process can tell: with its keeper and its servers.
    pub fn kill(self) {
        let directory = fs::read_link(format!("/proc/{}/cwd", self.pid())).expect("it is our child");
        self.crash();
        // A bridge may have started the next one already, whose keeper is its child.
        let living = living_in(&directory);
        let is_of = |pid: &i32, parents: &[i32]| parent(*pid).is_some_and(|parent| parents.contains(&parent));
        let mut gone = keepers_in(&directory);
        gone.retain(|keeper| !is_of(keeper, &living));
        let servers: Vec<i32> = living.into_iter().filter(|pid| is_of(pid, &gone)).collect();
        gone.extend(servers);
        gone.iter().for_each(|pid| end_process(*pid));
        eventually("the keeper and its servers are gone", || gone.iter().all(|pid| has_ended(*pid)));
    }

    /// Ends it alone: its keeper stays, and keeps its servers.
    pub fn crash(mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    /// Asks it to end, and returns how it did.
    ///
    /// # Panics
    /// Where it does not end within [`PATIENCE`].
    pub fn stop(mut self) -> ExitStatus {
        kill(Pid::from_raw(self.pid()), Signal::SIGTERM).expect("it is our child");
        end_within(&mut self.child, PATIENCE).expect("it stops when it is asked to")
    }

    /// What it wrote to standard error so far, restarts included.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("the log is there from the start")
    }

    /// One HTTP request to the inbox listener.
    pub fn ask_inbox(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let mut connection = Connection::open(&self.inbox);
        connection.send(method, path, headers, body);
        connection.response()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        end_group(&mut self.child);
    }
}

/// A server by HTTP that is ready: its first line says `NAME http://ADDR/mcp`.
pub struct HttpServer {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub address: String,
}

impl HttpServer {
    /// Starts `command` and waits for its first line. Where it ends without one, the address that it had before may be
    /// somebody else's for the moment, so it is started again.
    ///
    /// # Panics
    /// Where it stays silent.
    pub fn start(command: &mut Command) -> HttpServer {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        eventually_some("a server that says its address", || {
            let mut child = command.spawn().expect("the program starts");
            let said = lines(child.stdout.take().expect("stdout is piped"));
            let line = said.recv_timeout(PATIENCE).unwrap_or_default();
            let address = line.split_once(" http://").and_then(|(_, rest)| rest.strip_suffix("/mcp"));
            let Some(address) = address.map(str::to_owned) else {
                end_group(&mut child);
                return None;
            };
            Some(HttpServer { child, address })
        })
    }

    /// Ends it at once.
    pub fn kill(mut self) {
        end_group(&mut self.child);
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        end_group(&mut self.child);
    }
}

/// The lines that come out of a pipe, as they come.
pub(crate) fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn drained(mut pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pipe that breaks has said what it had to say.
        let _ = pipe.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// The exit status, if the child ends in time.
pub(crate) fn end_within(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return Some(status);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Kills the child's process group and the child. Without effect where it has ended.
pub(crate) fn end_group(child: &mut Child) {
    if let (Ok(None), Ok(pid)) = (child.try_wait(), i32::try_from(child.id())) {
        // In between it may have ended by itself.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        let _ = child.wait();
    }
}

/// Processes that work in `directory` or below it, this one excepted.
pub(crate) fn living_in(directory: &Path) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let there =
        |pid: &i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(directory));
    pids.filter(there).filter(|pid| u32::try_from(*pid) != Ok(std::process::id())).collect()
}

/// Whether nothing of it runs any more. Before, its last threads may hold open what is to be seen closed.
pub(crate) fn has_ended(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    threads <= 1 && state_and_parent(pid).is_none_or(|(state, _)| state == "Z")
}

/// Whether something waits in the pipe that is its stdin.
pub(crate) fn has_unread_input(pid: i32) -> bool {
    let Ok(stdin) = fs::File::open(format!("/proc/{pid}/fd/0")) else { return false };
    let mut ends = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let polled = poll(&mut ends, PollTimeout::ZERO).is_ok();
    polled && ends[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN))
}

/// The keepers that work in `directory` or below it.
pub(crate) fn keepers_in(directory: &Path) -> Vec<i32> {
    let keeps = |pid: &i32| {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).nth(1) == Some(b"keeper"))
    };
    living_in(directory).into_iter().filter(keeps).collect()
}

fn parent(pid: i32) -> Option<i32> {
    state_and_parent(pid).map(|(_, parent)| parent)
}

fn state_and_parent(pid: i32) -> Option<(String, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, which may contain anything, ends with the last bracket; then come the state and the parent.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

/// Ends one process of the story at once, by its id.
pub fn end_process(pid: i32) {
    signal(pid, Signal::SIGKILL);
}

/// Stops one process where it is.
pub(crate) fn pause_process(pid: i32) {
    signal(pid, Signal::SIGSTOP);
}

/// Lets it go on.
pub(crate) fn continue_process(pid: i32) {
    signal(pid, Signal::SIGCONT);
}

fn signal(pid: i32, signal: Signal) {
    // It may just have ended by itself.
    let _ = kill(Pid::from_raw(pid), signal);
}
