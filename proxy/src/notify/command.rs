//! A program of this machine, started for each message: no shell, little time, an environment that holds no secrets.

use std::{
    io,
    pin::pin,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStderr, Command},
    time::timeout,
};

use super::{Failure, Outlook, formats, message::Message};
use crate::inbox::visible::visible;

const TIME: Duration = Duration::from_secs(10);
const LAST_WORDS: Duration = Duration::from_millis(100);
const LONGEST_WORDS_BYTES: u64 = 2 * 1024;
const LONGEST_QUOTE: usize = 160;

/// What the program inherits from our environment, beside all of `LC_*`: enough to reach the desktop of who runs us.
const INHERITED: [&str; 10] = [
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "USER",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
];

/// Starts the program with title and text as its last arguments, and the message as JSON on its standard input.
///
/// # Errors
/// Why it could not be started, or how it ended.
pub(super) async fn run(program: &str, args: &[String], message: &Message) -> Result<String, Failure> {
    let doubtful = |what: String| Failure { what, outlook: Outlook::Doubtful };
    let mut child = start(program, args, message).map_err(|error| {
        let hint =
            if error.kind() == io::ErrorKind::NotFound { "; is it installed, and in PATH?" } else { "" };
        doubtful(format!("it could not be started: {error}{hint}"))
    })?;
    let leader = child.id().map(|id| Pid::from_raw(id.cast_signed()));
    let ended = timeout(TIME, hear(&mut child, message)).await;
    if ended.is_err() {
        // The program and what it started; it may be gone by now.
        let _ = leader.map(|leader| killpg(leader, Signal::SIGKILL));
        let _ = timeout(TIME, child.wait()).await;
    }
    match ended {
        Err(_) => Err(doubtful(format!("it did not end within {}s", TIME.as_secs()))),
        Ok(Err(error)) => Err(doubtful(format!("it could not be waited for: {error}"))),
        Ok(Ok((status, _))) if status.success() => Ok("exit code 0".to_owned()),
        Ok(Ok((status, words))) => Err(doubtful(format!("it ended with {status}{words}"))),
    }
}

fn start(program: &str, args: &[String], message: &Message) -> io::Result<Child> {
    let inherited = std::env::vars_os().filter(|(name, _)| {
        name.to_str().is_some_and(|name| INHERITED.contains(&name) || name.starts_with("LC_"))
    });
    Command::new(program)
        .args(args)
        .args(formats::arguments(message))
        .env_clear()
        .envs(inherited)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Keeps the beginning and reads on, so that nobody has to wait for room in the pipe.
async fn listen(stderr: ChildStderr, words: &mut Vec<u8>) {
    let mut stderr = stderr.take(LONGEST_WORDS_BYTES);
    let _ = stderr.read_to_end(words).await;
    let _ = tokio::io::copy(&mut stderr.into_inner(), &mut tokio::io::sink()).await;
}

async fn hear(child: &mut Child, message: &Message) -> io::Result<(ExitStatus, String)> {
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read it is as good.
        let _ = stdin.write_all(message.json().as_bytes()).await;
    }
    let mut words = Vec::new();
    let stderr = child.stderr.take().expect("stderr is piped");
    let status = {
        let mut reading = pin!(listen(stderr, &mut words));
        tokio::select! {
            status = child.wait() => {
                // What it started may keep the pipe open; what it said itself is there already.
                let _ = timeout(LAST_WORDS, &mut reading).await;
                status?
            }
            () = &mut reading => child.wait().await?,
        }
    };
    let text = String::from_utf8_lossy(&words);
    let line: String = text.trim().lines().next().unwrap_or_default().chars().take(LONGEST_QUOTE).collect();
    Ok((status, if line.is_empty() { String::new() } else { format!(": {}", visible(&line)) }))
}
