//! A server in the keeper's care: started in a group of its own, waited for, and ended so that nobody is left.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::{ExitStatus, Stdio},
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    io::ioctl_fionbio,
    pipe::{PipeFlags, fcntl_setpipe_size, pipe_with},
};
use serde_json::Value;
use tokio::{
    process::{Child, Command},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use super::{
    group::Group,
    house::News,
    parcel::{About, Ends, Recipe, Stage},
};

/// What a server may have written to stdout that nobody has taken, where the system allows that.
const STDOUT_BYTES: usize = 512 * 1024;

/// What each of its other pipes holds, where the system allows that: messages that are larger can be torn, and what it
/// says on stderr while nobody listens makes it wait.
const PIPE_BYTES: usize = 256 * 1024;

/// A started server.
pub(super) struct Ward {
    pub(super) about: About,
    /// Ours, so that the server's stdin stays open while nobody serves.
    stdin: Option<OwnedFd>,
    stage: Stage,
    stdout: OwnedFd,
    stderr: OwnedFd,
    torn: OwnedFd,
    ending: CancellationToken,
}

impl Ward {
    /// Starts the server; no shell reads the command. `news` hears of its end.
    ///
    /// # Errors
    /// Why it could not be started, and what to look at.
    pub(super) fn start(
        number: u64,
        recipe: Recipe,
        news: mpsc::UnboundedSender<News>,
    ) -> Result<Self, String> {
        if !recipe.cwd.is_dir() {
            return Err(format!("its working directory {} does not exist", recipe.cwd.display()));
        }
        let pipes = |error: io::Error| format!("its pipes could not be set up: {error}");
        let (stdout, theirs) = stdout().map_err(pipes)?;
        let torn = memfd_create("holdfast-torn", MemfdFlags::CLOEXEC).map_err(|error| pipes(error.into()))?;
        let stage = stage().map_err(pipes)?;
        let mut child = spawn(&recipe, theirs)?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        let pid = pid.expect("a child that nobody waited for has an id");
        let stdin = child.stdin.take().expect("stdin is piped").into_owned_fd().map_err(pipes)?;
        let stderr = child.stderr.take().expect("stderr is piped").into_owned_fd().map_err(pipes)?;
        for pipe in [&stdin, &stderr] {
            let _ = fcntl_setpipe_size(pipe, PIPE_BYTES);
        }
        let ending = CancellationToken::new();
        tokio::spawn(tend(number, child, LastResort(Group::of(pid)), ending.clone(), news));
        let Recipe { server, sharer, fingerprint, .. } = recipe;
        let about = About { number, pid, server, sharer, fingerprint, note: None, status: None };
        Ok(Self { about, stdin: Some(stdin), stage, stdout, stderr, torn, ending })
    }

    /// What `serve` works with; none once nobody can write to the server any more.
    pub(super) fn ends(&self) -> Option<[BorrowedFd<'_>; Ends::COUNT]> {
        let stdin = self.stdin.as_ref()?.as_fd();
        let (enter, leave) = (self.stage.enter.as_fd(), self.stage.leave.as_fd());
        Some([stdin, enter, leave, self.stdout.as_fd(), self.stderr.as_fd(), self.torn.as_fd()])
    }

    pub(super) fn note(&mut self, note: Value) {
        self.about.note = Some(note);
    }

    /// Lets go of its stdin: where `serve` has, too, that tells the server to end.
    pub(super) fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Ends every process of it, if SIGTERM does not; the news say when they are gone.
    pub(super) fn end(&mut self) {
        self.close_input();
        self.ending.cancel();
    }
}

/// A pipe, as servers expect it: some are slower on anything else, and a socket has no `/dev/stdout`. Only our end does
/// not block.
fn stdout() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    ioctl_fionbio(&ours, true)?;
    let _ = fcntl_setpipe_size(&ours, STDOUT_BYTES);
    Ok((ours, theirs))
}

fn stage() -> io::Result<Stage> {
    let (leave, enter) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let _ = fcntl_setpipe_size(&enter, PIPE_BYTES);
    Ok(Stage { enter, leave })
}

fn spawn(recipe: &Recipe, stdout: OwnedFd) -> Result<Child, String> {
    let mut command = Command::new(&recipe.command);
    command
        .args(&recipe.args)
        .env_clear()
        .envs(recipe.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&recipe.cwd)
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command.spawn().map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "; is it installed, and is its directory in PATH?",
            io::ErrorKind::PermissionDenied => "; is it executable?",
            _ => "",
        };
        format!("`{}` could not be started: {error}{hint}", recipe.command)
    })
}

async fn tend(
    number: u64,
    mut child: Child,
    group: LastResort,
    ending: CancellationToken,
    news: mpsc::UnboundedSender<News>,
) {
    let words = |status: io::Result<ExitStatus>| status.map(|status| status.to_string()).ok();
    let status = tokio::select! {
        status = child.wait() => words(status),
        () = ending.cancelled() => None,
    };
    if let Some(status) = &status {
        let _ = news.send(News::Exited(number, status.clone()));
    }
    ending.cancelled().await;
    group.0.end(Some(&mut child)).await;
    let status = status.or_else(|| child.try_wait().ok().flatten().map(|status| status.to_string()));
    let _ = news.send(News::Gone(number, status));
}

/// Kills the group where the keeper's own work ends before the server's.
struct LastResort(Group);

impl Drop for LastResort {
    fn drop(&mut self) {
        self.0.kill();
    }
}
