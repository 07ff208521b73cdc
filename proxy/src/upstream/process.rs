//! The process of a stdio server as we have it from the keeper: the ends of its pipes, and what it says on stderr.

use std::{
    collections::VecDeque,
    io,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use holdfast_store::hash_fields;
use tokio::{net::unix::pipe, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    lines::{Line, Lines},
    stage::Way,
    unread::Unread,
};
use crate::keeper::{Ends, Hold, Keeper, Recipe};

/// What children inherit from our environment, beside all of `LC_*`; the rest is for the configuration to name.
const INHERITED: [&str; 7] = ["PATH", "HOME", "LANG", "TMPDIR", "USER", "SHELL", "TERM"];

/// Before what a server wrote last.
pub(super) const LAST_WORDS: &str = "; its last words:";

/// What the configuration says about starting a server.
pub(super) struct Command<'a> {
    pub(super) server: &'a str,
    pub(super) command: &'a str,
    pub(super) args: &'a [String],
    pub(super) env: &'a [(String, String)],
    pub(super) cwd: Option<&'a Path>,
}

impl Command<'_> {
    /// How it is started for one sharer.
    pub(super) fn recipe(&self, sharer: &str) -> Recipe {
        let cwd = self.cwd.map(Path::to_owned).or_else(|| std::env::current_dir().ok()).unwrap_or_default();
        let own = self.env.iter().cloned();
        Recipe {
            server: self.server.to_owned(),
            sharer: sharer.to_owned(),
            fingerprint: self.fingerprint(&cwd),
            command: self.command.to_owned(),
            args: self.args.to_vec(),
            env: inherited().chain(own).collect(),
            cwd,
        }
    }

    /// Of what is configured. What is inherited may differ from one terminal to the next, and nobody would want a server
    /// to end over that.
    fn fingerprint(&self, cwd: &Path) -> String {
        let parts = (self.command, self.args, self.env, cwd);
        let parts = serde_json::to_vec(&parts).unwrap_or_default();
        hash_fields("holdfast/recipe", &[&parts]).to_string()
    }
}

/// A running server, and everything that we need of it.
pub(super) struct Process {
    pub(super) hold: Hold,
    pub(super) way: Way,
    pub(super) stdout: Unread,
    pub(super) last_words: Arc<LastWords>,
}

impl Process {
    /// Starts a server.
    ///
    /// # Errors
    /// Why it could not be started, and what to look at.
    pub(super) async fn start(keeper: &Keeper, recipe: Recipe) -> Result<Self, String> {
        let server = recipe.server.clone();
        let (hold, ends) = keeper.start(recipe).await?;
        Self::of(server, keeper, hold, ends)
            .map_err(|error| format!("its pipes could not be set up: {error}"))
    }

    /// Works with a server that runs.
    pub(super) fn of(server: String, keeper: &Keeper, hold: Hold, ends: Ends) -> io::Result<Self> {
        let last_words = Arc::new(LastWords::default());
        tokio::spawn(listen(server, pipe::Receiver::from_owned_fd(ends.stderr)?, last_words.clone()));
        let way = Way::new(ends.stdin, ends.stage, ends.torn, keeper.sent().clone(), hold.number());
        Ok(Self { hold, way, stdout: Unread::of(ends.stdout)?, last_words })
    }
}

fn inherited() -> impl Iterator<Item = (String, String)> {
    let text = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    text.filter(|(name, _)| INHERITED.contains(&name.as_str()) || name.starts_with("LC_"))
}

/// The last lines that a server wrote to stderr: the best explanation there is when it does not work.
#[derive(Default)]
pub(super) struct LastWords {
    lines: Mutex<VecDeque<String>>,
    /// There will be no more.
    over: CancellationToken,
}

impl LastWords {
    pub(super) const LINES: usize = 20;

    fn hear(&self, line: String) {
        let mut lines = self.lines.lock().expect("nothing panics while it holds the lines");
        if lines.len() == Self::LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The lines, the newest last.
    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("nothing panics while it holds the lines").iter().cloned().collect()
    }

    /// Waits for the last of them, but not for long: something that the server started may go on writing.
    pub(super) async fn said(&self) {
        let _ = timeout(Duration::from_millis(500), self.over.cancelled()).await;
    }

    /// `; its last words: ...`, or nothing.
    pub(super) fn quote(&self) -> String {
        let lines = self.lines.lock().expect("nothing panics while it holds the lines");
        if lines.is_empty() {
            return String::new();
        }
        format!("{LAST_WORDS}\n{}", lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n"))
    }
}

async fn listen(server: String, mut stderr: pipe::Receiver, last_words: Arc<LastWords>) {
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
    last_words.over.cancel();
}
