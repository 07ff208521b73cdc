//! The child process of a stdio server: its own process group, a minimal environment, and an end that leaves nobody.
//!
//! A Holdfast that is killed with SIGKILL cannot end its children; their stdin then reaches its end, which is how a
//! stdio server is told to stop. A server that ignores this outlives us: parent-death signals need code between fork
//! and exec, which safe Rust does not offer.

use std::{
    collections::VecDeque,
    ffi::OsString,
    io,
    path::Path,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    net::unix::pipe,
    process::{Child, ChildStderr, Command},
    time::{Instant, sleep, timeout},
};

use super::lines::{Line, Lines};

/// How long a server may take to end after its stdin was closed, and again after SIGTERM.
pub(super) const GRACE: Duration = Duration::from_secs(3);

/// What children inherit from our environment, beside all of `LC_*`; the rest is for the configuration to name.
const INHERITED: [&str; 7] = ["PATH", "HOME", "LANG", "TMPDIR", "USER", "SHELL", "TERM"];

/// How to start a server.
pub(super) struct Recipe<'a> {
    pub(super) server: &'a str,
    pub(super) command: &'a str,
    pub(super) args: &'a [String],
    pub(super) env: &'a [(String, String)],
    pub(super) cwd: Option<&'a Path>,
}

/// A started server and the ends of its pipes.
pub(super) struct Process {
    pub(super) child: Child,
    pub(super) group: Group,
    pub(super) stdin: pipe::Sender,
    pub(super) stdout: pipe::Receiver,
    pub(super) last_words: Arc<LastWords>,
}

/// Starts the server; no shell reads the command.
///
/// # Errors
/// Why it could not be started, and what to look at.
pub(super) fn start(recipe: &Recipe<'_>) -> Result<Process, String> {
    if let Some(cwd) = recipe.cwd.filter(|cwd| !cwd.is_dir()) {
        return Err(format!("its working directory {} does not exist", cwd.display()));
    }
    let mut command = Command::new(recipe.command);
    command
        .args(recipe.args)
        .env_clear()
        .envs(inherited())
        .envs(recipe.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(cwd) = recipe.cwd {
        command.current_dir(cwd);
    }
    let mut child = command.spawn().map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "; is it installed, and is its directory in PATH?",
            io::ErrorKind::PermissionDenied => "; is it executable?",
            _ => "",
        };
        format!("`{}` could not be started: {error}{hint}", recipe.command)
    })?;
    let leader = Pid::from_raw(child.id().expect("a child that nobody waited for has an id") as i32);
    let group = Group { leader, ended: AtomicBool::new(false) };
    let pipes = |error: io::Error| format!("its pipes could not be set up: {error}");
    let stdin = child.stdin.take().expect("stdin is piped").into_owned_fd().map_err(pipes)?;
    let stdout = child.stdout.take().expect("stdout is piped").into_owned_fd().map_err(pipes)?;
    let last_words = Arc::new(LastWords::default());
    let stderr = child.stderr.take().expect("stderr is piped");
    tokio::spawn(listen(recipe.server.to_owned(), stderr, last_words.clone()));
    Ok(Process {
        child,
        group,
        stdin: pipe::Sender::from_owned_fd(stdin).map_err(pipes)?,
        stdout: pipe::Receiver::from_owned_fd(stdout).map_err(pipes)?,
        last_words,
    })
}

fn inherited() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| {
        name.to_str().is_some_and(|name| INHERITED.contains(&name) || name.starts_with("LC_"))
    })
}

/// The last lines that a server wrote to stderr: the best explanation there is when it does not work.
#[derive(Default)]
pub(super) struct LastWords(Mutex<VecDeque<String>>);

impl LastWords {
    pub(super) const LINES: usize = 20;

    fn hear(&self, line: String) {
        let mut lines = self.0.lock().expect("nothing panics while it holds the lines");
        if lines.len() == Self::LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The lines, the newest last.
    pub(super) fn lines(&self) -> Vec<String> {
        self.0.lock().expect("nothing panics while it holds the lines").iter().cloned().collect()
    }

    /// `; its last words: ...`, or nothing.
    pub(super) fn quote(&self) -> String {
        let lines = self.0.lock().expect("nothing panics while it holds the lines");
        if lines.is_empty() {
            return String::new();
        }
        format!("; its last words:\n{}", lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n"))
    }
}

async fn listen(server: String, mut stderr: ChildStderr, last_words: Arc<LastWords>) {
    const LONGEST_LINE: usize = 8 * 1024;
    let mut lines = Lines::new(LONGEST_LINE);
    let hear = |line: Line<'_>| {
        let text = match line {
            Line::Whole(line) => String::from_utf8_lossy(&line[..line.len().min(LONGEST_LINE)]).into_owned(),
            Line::TooLong(_) => "(a very long line)".to_owned(),
        };
        tracing::info!(target: "upstream", server, line = text, "stderr");
        last_words.hear(text);
    };
    while lines.fill(&mut stderr).await.unwrap_or(false) {
        while let Some(line) = lines.next() {
            hear(line);
        }
    }
    lines.rest().into_iter().for_each(hear);
}

/// The process group of a server: everything it started, unless that made a group of its own. Killed when dropped.
pub(super) struct Group {
    leader: Pid,
    /// Set once the group was seen empty: from then on its number may be given to others.
    ended: AtomicBool,
}

impl Group {
    /// Ends every process of the group, the server itself included, if SIGTERM does not.
    pub(super) async fn end(&self, child: &mut Child) {
        if self.is_empty_within(child, Duration::ZERO).await {
            return;
        }
        self.signal(Signal::SIGTERM);
        if !self.is_empty_within(child, GRACE).await {
            self.kill();
            // Reaps the server itself; the others are reaped by whoever adopts them.
            let _ = timeout(GRACE, child.wait()).await;
            self.is_empty_within(child, Duration::from_millis(200)).await;
        }
    }

    /// Ends every process of the group at once.
    pub(super) fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    /// A process that we did not start cannot be waited for, only looked for.
    async fn is_empty_within(&self, child: &mut Child, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        loop {
            let _ = child.try_wait();
            if killpg(self.leader, None) == Err(Errno::ESRCH) {
                self.ended.store(true, Ordering::Relaxed);
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn signal(&self, signal: Signal) {
        if !self.ended.load(Ordering::Relaxed)
            && let Err(error) = killpg(self.leader, signal)
            && error != Errno::ESRCH
        {
            tracing::warn!(target: "upstream", group = self.leader.as_raw(), %error, "could not signal a server's group");
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
