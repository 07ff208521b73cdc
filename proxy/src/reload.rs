//! Another configuration while `serve` runs: read and checked whole, then put in force at once, or not at all.
//!
//! Asked for by SIGHUP, `holdfast reload`, or a change of the files themselves, which are looked at now and then. What
//! only a start can change (addresses, the journal) stays as it is, and is named.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use holdfast_policy::{Problem, Severity};
use holdfast_store::Millis;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{config::Config, driver::now};

/// How often the files are looked at. What has changed must look the same twice, so that nobody is read half-way.
const LOOK: Duration = Duration::from_secs(1);

/// What came of reading the configuration anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Reloaded {
    /// Whether what the files say is in force.
    pub(crate) ok: bool,
    /// When, in milliseconds since 1970.
    pub(crate) at: Millis,
    /// Who asked for it: an operator, `signal`, or `file`.
    pub(crate) by: String,
    /// The version of the policy that is in force.
    pub(crate) policy: String,
    /// What became of servers that are not as they were.
    pub(crate) servers: Vec<Turned>,
    /// What only a start can change, and was left.
    pub(crate) left: Vec<String>,
    /// Errors, by which the earlier configuration stays in force, and warnings.
    pub(crate) problems: Vec<Fault>,
}

/// A server that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Turned {
    /// Its name.
    pub(crate) server: String,
    /// `added`, `removed`, `restarted` or `adjusted`.
    pub(crate) fate: String,
}

/// Something that is wrong with the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Fault {
    /// `error` or `warning`.
    pub(crate) severity: String,
    /// Where it stands.
    pub(crate) file: String,
    /// From 1; 0 where it is about the whole file.
    pub(crate) line: usize,
    /// What is wrong.
    pub(crate) message: String,
    /// What to write instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

impl From<&Problem> for Fault {
    fn from(problem: &Problem) -> Self {
        Self {
            severity: problem.severity.to_string(),
            file: problem.file.clone(),
            line: problem.line,
            message: problem.message.clone(),
            hint: problem.hint.clone(),
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.severity, self.message)?;
        if self.line > 0 {
            write!(f, "\n  --> {}:{}", self.file, self.line)?;
        }
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\n  hint: {hint}"))
    }
}

impl Reloaded {
    /// In a line.
    pub(crate) fn words(&self) -> String {
        if !self.ok {
            let errors = self.problems.iter().filter(|fault| fault.severity == "error").count();
            return format!(
                "the configuration was not taken, the earlier one stays in force: {errors} error{}",
                if errors == 1 { "" } else { "s" }
            );
        }
        let servers: Vec<String> =
            self.servers.iter().map(|turned| format!("{} {}", turned.server, turned.fate)).collect();
        let servers = if servers.is_empty() { "no server changed".to_owned() } else { servers.join(", ") };
        let left = match self.left.is_empty() {
            true => String::new(),
            false => format!("; needs a restart: {}", self.left.join(", ")),
        };
        format!("the configuration is in force, policy {}: {servers}{left}", self.policy)
    }
}

type Asked = (String, oneshot::Sender<Reloaded>);

/// The way to whoever reads the configuration anew, and what came of it last.
pub(crate) struct Reloads {
    ask: mpsc::Sender<Asked>,
    last: Mutex<Option<Reloaded>>,
}

impl Reloads {
    /// With the end that [`run`] listens at.
    pub(crate) fn new() -> (Arc<Self>, mpsc::Receiver<Asked>) {
        let (ask, asked) = mpsc::channel(8);
        (Arc::new(Self { ask, last: Mutex::default() }), asked)
    }

    /// Reads the configuration anew for `by`; none where `serve` is stopping.
    pub(crate) async fn ask(&self, by: String) -> Option<Reloaded> {
        let (tell, told) = oneshot::channel();
        self.ask.send((by, tell)).await.ok()?;
        told.await.ok()
    }

    /// What came of it last; none where nobody has asked since the start.
    pub(crate) fn last(&self) -> Option<Reloaded> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, reloaded: Reloaded) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(reloaded);
    }
}

/// Whoever puts a configuration in force.
pub(crate) trait Subject: Send {
    /// What is in force.
    fn config(&self) -> Arc<Config>;

    /// Puts `config` in force; what a start alone can change is as it was. Says what became of which server.
    ///
    /// # Errors
    /// Why nothing changed.
    fn take(&mut self, config: Config) -> impl Future<Output = Result<Vec<Turned>, String>> + Send;
}

/// Reads the configuration anew whenever somebody asks or its files change, until `stop`. Gives the subject back.
pub(crate) async fn run<S: Subject>(
    mut subject: S,
    reloads: Arc<Reloads>,
    mut asked: mpsc::Receiver<Asked>,
    mut hangups: tokio::signal::unix::Signal,
    mut files: Files,
    stop: CancellationToken,
) -> S {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = files.stamp;
    loop {
        let (by, tell) = tokio::select! {
            () = stop.cancelled() => break,
            Some((by, tell)) = asked.recv() => (by, Some(tell)),
            _ = hangups.recv() => ("signal".to_owned(), None),
            _ = looks.tick() => {
                let before = files.stamp;
                if files.look() != before || files.stamp == known {
                    continue;
                }
                ("file".to_owned(), None)
            }
        };
        known = files.look();
        let policy_before = subject.config().policy.version().to_owned();
        let reloaded = reload(&mut subject, by).await;
        tell_log(&reloaded, &policy_before);
        reloads.keep(reloaded.clone());
        if reloaded.ok && files.list(&subject.config()) {
            known = files.look();
        }
        if let Some(tell) = tell {
            let _ = tell.send(reloaded);
        }
    }
    subject
}

async fn reload(subject: &mut impl Subject, by: String) -> Reloaded {
    let old = subject.config();
    let refused = |problems: Vec<Fault>, by| Reloaded {
        ok: false,
        at: now(),
        by,
        policy: old.policy.version().to_owned(),
        servers: Vec::new(),
        left: Vec::new(),
        problems,
    };
    let file = old.file.clone();
    let loaded = tokio::task::spawn_blocking(move || Config::load(Some(&file))).await;
    let (mut config, warnings) = match loaded.expect("reading a configuration does not panic") {
        Ok(loaded) => loaded,
        Err(problems) => return refused(problems.iter().map(Fault::from).collect(), by),
    };
    let left = leave(&mut config, &old);
    let policy = config.policy.version().to_owned();
    let mut problems: Vec<Fault> = warnings.iter().map(Fault::from).collect();
    match subject.take(config).await {
        Ok(servers) => Reloaded { ok: true, at: now(), by, policy, servers, left, problems },
        Err(message) => {
            let severity = Severity::Error.to_string();
            problems.push(Fault { severity, file: String::new(), line: 0, message, hint: None });
            refused(problems, by)
        }
    }
}

/// Takes over from `old` what only a start can change, and names what differs.
fn leave(config: &mut Config, old: &Config) -> Vec<String> {
    let mut left = Vec::new();
    let mut keep = |differs: bool, key: &str| {
        if differs {
            left.push(key.to_owned());
        }
    };
    keep(config.listen.mcp != old.listen.mcp, "listen.mcp");
    keep(config.listen.inbox != old.listen.inbox, "listen.inbox");
    keep(config.listen.inbox_url != old.listen.inbox_url, "listen.inbox_url");
    keep(config.store.place != old.store.place, "store.url");
    keep(config.store.durability != old.store.durability, "store.durability");
    config.listen = old.listen.clone();
    config.store.place = old.store.place.clone();
    config.store.durability = old.store.durability;
    config.keep_tokens();
    left
}

fn tell_log(reloaded: &Reloaded, policy_before: &str) {
    let by = reloaded.by.as_str();
    for fault in &reloaded.problems {
        let (file, line, hint) = (&fault.file, fault.line, fault.hint.as_deref());
        if fault.severity == "error" {
            tracing::error!(file, line, hint, problem = fault.message, "configuration");
        } else {
            tracing::warn!(file, line, hint, problem = fault.message, "configuration");
        }
    }
    if !reloaded.ok {
        tracing::error!(by, "the configuration was not taken: the earlier one stays in force");
        return;
    }
    let servers: Vec<String> =
        reloaded.servers.iter().map(|turned| format!("{} {}", turned.server, turned.fate)).collect();
    if by == "file" && servers.is_empty() && reloaded.policy == policy_before {
        // The files of some clients change all the time, for reasons of their own.
        tracing::debug!("the configuration has been read anew");
        return;
    }
    tracing::info!(by, policy = reloaded.policy, ?servers, "the configuration is in force");
    if !reloaded.left.is_empty() {
        tracing::warn!(keys = ?reloaded.left, "these need a restart: they stay as they were");
    }
}

/// The files of a configuration, as they were when they were looked at last.
pub(crate) struct Files {
    all: Vec<Seen>,
    stamp: u64,
}

struct Seen {
    file: PathBuf,
    /// Time and length; none where there is no such file.
    about: Option<(SystemTime, u64)>,
    content: u64,
}

impl Files {
    /// Those of `config`, which was read from them just now.
    pub(crate) fn of(config: &Config) -> Self {
        let mut files = Self { all: Vec::new(), stamp: 0 };
        files.list(config);
        files.look();
        files
    }

    /// Whether `config` has others than were known.
    fn list(&mut self, config: &Config) -> bool {
        let files = std::iter::once(&config.file).chain(&config.imported);
        if files.clone().eq(self.all.iter().map(|seen| &seen.file)) {
            return false;
        }
        self.all = files.map(|file| Seen { file: file.clone(), about: None, content: 0 }).collect();
        true
    }

    /// Looks at them. Two looks that give the same have seen the same.
    fn look(&mut self) -> u64 {
        let mut all = DefaultHasher::new();
        for seen in &mut self.all {
            let about =
                std::fs::metadata(&seen.file).and_then(|about| Ok((about.modified()?, about.len()))).ok();
            // Some are large, and change seldom.
            if about.is_none() || about != seen.about {
                let mut content = DefaultHasher::new();
                std::fs::read(&seen.file).map_err(|error| error.kind()).hash(&mut content);
                (seen.about, seen.content) = (about, content.finish());
            }
            seen.content.hash(&mut all);
        }
        self.stamp = all.finish();
        self.stamp
    }
}
