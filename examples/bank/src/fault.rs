//! The ways in which the bank can be told to misbehave, and when.
//!
//! A fault is a line of words: an optional `all:` (every tool, not only `transfer`), one or more kinds, and an
//! optional `once`. It stands on the command line, in `BANK_FAULT`, or in a file that is read again at each call.
//! A fault that fires `once` in a file is claimed by renaming the file, so that of two calls, or two processes,
//! exactly one gets it; then the file is gone.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The kinds, for `--help` and for error messages.
pub(crate) const KINDS: &str = "  \
  slow=TIME             wait (500ms, 2s), then commit unless cancelled
  slow-after=TIME       commit, then wait
  progress=N            send N progress notifications over the time of `slow`
  try-later             tool error \"try again later\", nothing done
  error-before-commit   -32603, nothing done
  error-after-commit    commit, then -32603
  die-before-commit     abort the process, nothing done
  die-after-commit      commit, then abort the process
  hang-before-commit    never answer, nothing done
  hang                  commit, then never answer
  garbage               print a line that is not JSON before the answer (stdio)
  answer-twice          send the answer twice (stdio)";

/// What one call is to suffer.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) slow: Duration,
    pub(crate) slow_after: Duration,
    /// How many notifications.
    pub(crate) progress: u32,
    pub(crate) before: Option<Blow>,
    pub(crate) after: Option<Blow>,
    pub(crate) noise: Vec<Noise>,
}

/// How a call ends without its answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Blow {
    Die,
    Error,
    Hang,
    /// Only before the commit.
    TryLater,
}

/// What goes wrong around the answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Noise {
    Garbage,
    AnswerTwice,
}

/// A line of words, understood.
#[derive(Debug, PartialEq)]
pub(crate) struct Fault {
    reach: Reach,
    often: Often,
    plan: Plan,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Reach {
    Transfers,
    AllTools,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Often {
    Always,
    Once,
}

impl Fault {
    /// `None` for a blank line. The error names the word that is not understood.
    pub(crate) fn parse(line: &str) -> Result<Option<Fault>, String> {
        let mut fault = Fault { reach: Reach::Transfers, often: Often::Always, plan: Plan::default() };
        for word in line.split_whitespace() {
            let word = match word.strip_prefix("all:") {
                Some(rest) => {
                    fault.reach = Reach::AllTools;
                    rest
                }
                None => word,
            };
            match word {
                "" => {}
                "once" => fault.often = Often::Once,
                _ => fault.plan.add(word)?,
            }
        }
        if fault.plan != Plan::default() {
            return Ok(Some(fault));
        }
        match line.trim() {
            "" => Ok(None),
            words => Err(format!("`{words}` names no fault")),
        }
    }

    fn concerns(&self, tool: &str) -> bool {
        self.reach == Reach::AllTools || tool == "transfer"
    }
}

impl Plan {
    fn add(&mut self, word: &str) -> Result<(), String> {
        let (kind, value) = word.split_once('=').map_or((word, None), |(kind, value)| (kind, Some(value)));
        match (kind, value) {
            ("slow", Some(time)) => self.slow = duration(time)?,
            ("slow-after", Some(time)) => self.slow_after = duration(time)?,
            ("progress", Some(n)) => {
                self.progress = n.parse().map_err(|_| format!("`{n}` is not a number of notifications"))?;
            }
            ("try-later", None) => self.before = Some(Blow::TryLater),
            ("error-before-commit", None) => self.before = Some(Blow::Error),
            ("die-before-commit", None) => self.before = Some(Blow::Die),
            ("hang-before-commit", None) => self.before = Some(Blow::Hang),
            ("error-after-commit", None) => self.after = Some(Blow::Error),
            ("die-after-commit", None) => self.after = Some(Blow::Die),
            ("hang", None) => self.after = Some(Blow::Hang),
            ("garbage", None) => self.noise.push(Noise::Garbage),
            ("answer-twice", None) => self.noise.push(Noise::AnswerTwice),
            _ => return Err(format!("`{word}` is not a fault")),
        }
        Ok(())
    }

    /// Both plans; where they differ, `other` has the last word.
    fn and(self, other: &Plan) -> Plan {
        let longer = |a: Duration, b: Duration| if b.is_zero() { a } else { b };
        Plan {
            slow: longer(self.slow, other.slow),
            slow_after: longer(self.slow_after, other.slow_after),
            progress: if other.progress == 0 { self.progress } else { other.progress },
            before: other.before.or(self.before),
            after: other.after.or(self.after),
            noise: self.noise.into_iter().chain(other.noise.iter().copied()).collect(),
        }
    }
}

/// Where faults come from.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    standing: Vec<Standing>,
    file: Option<PathBuf>,
}

#[derive(Debug)]
struct Standing {
    fault: Fault,
    fired: AtomicBool,
}

impl Faults {
    /// `file` need not exist; without it, or with a blank one, only the standing faults count.
    pub(crate) fn new(standing: Vec<Fault>, file: Option<PathBuf>) -> Faults {
        let standing = standing.into_iter().map(|fault| Standing { fault, fired: AtomicBool::new(false) });
        Faults { standing: standing.collect(), file }
    }

    /// What the call that is about to start is to suffer; faults that fire once are used up by asking.
    pub(crate) fn plan(&self, tool: &str) -> Result<Plan, String> {
        let mut plan = Plan::default();
        for Standing { fault, fired } in &self.standing {
            if fault.concerns(tool) && (fault.often == Often::Always || !fired.swap(true, Ordering::Relaxed))
            {
                plan = plan.and(&fault.plan);
            }
        }
        match &self.file {
            Some(path) => Ok(match claim(path, tool)? {
                Some(fault) => plan.and(&fault.plan),
                None => plan,
            }),
            None => Ok(plan),
        }
    }
}

/// The fault in the file, if it concerns this call and nobody else has it.
fn claim(path: &Path, tool: &str) -> Result<Option<Fault>, String> {
    let Some(fault) = read(path)?.filter(|fault| fault.concerns(tool)) else { return Ok(None) };
    if fault.often == Often::Always {
        return Ok(Some(fault));
    }
    let mine = unique(path);
    match std::fs::rename(path, &mine) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable(path, &e)),
    }
    // The file may have been replaced since it was read: what was claimed is what counts.
    let claimed = read(&mine)?;
    match claimed {
        Some(claimed) if claimed.often == Often::Once && claimed.concerns(tool) => {
            std::fs::remove_file(&mine).map_err(|e| unreadable(&mine, &e))?;
            Ok(Some(claimed))
        }
        other => {
            std::fs::rename(&mine, path).map_err(|e| unreadable(&mine, &e))?;
            Ok(other.filter(|fault| fault.often == Often::Always && fault.concerns(tool)))
        }
    }
}

fn read(path: &Path) -> Result<Option<Fault>, String> {
    match std::fs::read_to_string(path) {
        Ok(line) => Fault::parse(&line).map_err(|e| format!("{}: {e}", path.display())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(unreadable(path, &e)),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("faults file {}: {error}", path.display())
}

/// A name beside the file that no other call and no other process uses.
fn unique(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let suffix = format!(".{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit): (&str, fn(u64) -> Duration) = match text.strip_suffix("ms") {
        Some(digits) => (digits, Duration::from_millis),
        None => (text.strip_suffix('s').unwrap_or_default(), Duration::from_secs),
    };
    digits.parse().map(unit).map_err(|_| format!("`{text}` is not a time; write 500ms or 2s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Fault {
        Fault::parse(line).expect("a known fault").expect("not blank")
    }

    #[test]
    fn lines_combine_kinds() {
        let fault = parsed("all:slow=500ms progress=5 error-after-commit once\n");
        let slow = Duration::from_millis(500);
        let plan = Plan { slow, progress: 5, after: Some(Blow::Error), ..Plan::default() };
        assert_eq!(fault, Fault { reach: Reach::AllTools, often: Often::Once, plan });
        assert_eq!(Fault::parse(" \n"), Ok(None));
    }

    #[test]
    fn mistakes_are_named() {
        for (line, expected) in [
            ("slow", "`slow` is not a fault"),
            ("slow=5", "`5` is not a time; write 500ms or 2s"),
            ("slow=s", "`s` is not a time; write 500ms or 2s"),
            ("progress=many", "`many` is not a number of notifications"),
            ("hang=3s", "`hang=3s` is not a fault"),
            ("explode once", "`explode` is not a fault"),
            ("once", "`once` names no fault"),
        ] {
            assert_eq!(Fault::parse(line), Err(expected.to_owned()));
        }
    }

    #[test]
    fn every_kind_in_the_help_is_known() {
        for line in KINDS.lines() {
            let kind = line.split_whitespace().next().expect("a kind on each line");
            let word = kind.replace("=TIME", "=1s").replace("=N", "=1");
            assert_eq!(Fault::parse(&word).map(|fault| fault.is_some()), Ok(true), "{word}");
        }
    }

    #[test]
    fn a_standing_fault_fires_once_and_only_for_its_tools() {
        let faults = Faults::new(vec![parsed("try-later once"), parsed("all:slow=1s")], None);
        let blow = |tool: &str| faults.plan(tool).expect("no file to read").before;
        assert_eq!(blow("balance"), None);
        assert_eq!(blow("transfer"), Some(Blow::TryLater));
        assert_eq!(blow("transfer"), None);
        assert_eq!(faults.plan("echo").expect("no file to read").slow, Duration::from_secs(1));
    }

    #[test]
    fn a_file_fires_once_among_many() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("faults");
        let faults = Faults::new(Vec::new(), Some(file.clone()));
        for _ in 0..20 {
            std::fs::write(&file, "try-later once").expect("the directory is ours");
            let fired: usize = std::thread::scope(|scope| {
                let calls: Vec<_> = (0..8).map(|_| scope.spawn(|| faults.plan("transfer"))).collect();
                let plans = calls.into_iter().map(|call| call.join().expect("no panic").expect("readable"));
                plans.filter(|plan| plan.before == Some(Blow::TryLater)).count()
            });
            assert_eq!(fired, 1);
            assert_eq!(std::fs::read_dir(directory.path()).expect("still there").count(), 0);
        }
    }

    #[test]
    fn a_file_that_concerns_another_tool_stays() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("faults");
        std::fs::write(&file, "hang once").expect("the directory is ours");
        let faults = Faults::new(Vec::new(), Some(file.clone()));
        assert_eq!(faults.plan("balance"), Ok(Plan::default()));
        assert!(file.exists());
    }
}
