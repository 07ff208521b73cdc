//! Where Holdfast itself lives: the journal and what lies beside it, the disk, the ports, the clock.

use std::{
    fs,
    io::ErrorKind,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use holdfast_store::Filter;

use super::{Findings, Level};
use crate::{
    address::{self, Presence},
    cli::{Failure, Global, out, source::Source},
    config::{Config, Place},
    driver::now,
};

const STORE: &str = "store";
const NETWORK: &str = "network";

/// With less room the journal is full in a day.
const LITTLE_BYTES: u64 = 512 << 20;
/// With less the next call may not be written.
const NONE_BYTES: u64 = 32 << 20;
/// Journals that are verified whole in about a second.
const QUICK_BYTES: u64 = 64 << 20;
/// When this was written: no clock that is right shows less.
const WRITTEN: Duration = Duration::from_secs(1_790_000_000);

/// Looks at all of that.
pub(super) fn look(global: &Global, config: &Config, findings: &mut Findings) {
    let Place::Redb(store) = &config.store.place else { return };
    let folder = store.parent().unwrap_or(Path::new("/"));
    let writable = room(folder, findings);
    let presence = address::look(store);
    match &presence {
        Ok(_) if writable => journal(global, store, findings),
        Ok(_) => {}
        Err(error) => {
            let mend = "run it as the account that runs `holdfast serve`, or delete the files if none runs";
            findings.add(
                STORE,
                store.display().to_string(),
                Level::Problem,
                format!("the address file cannot be read: {error}"),
                mend,
            );
        }
    }
    for ending in [".operator-token", ".state-key", ".serve.json", ".lock"] {
        private(&beside(store, ending), findings);
    }
    private(&config.file.with_file_name("mcp-servers.json"), findings);
    clock(global, store, findings);
    ports(config, presence.ok().as_ref(), findings);
}

fn beside(store: &Path, ending: &str) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn room(folder: &Path, findings: &mut Findings) -> bool {
    let subject = folder.display().to_string();
    let probe = folder.join(format!(".holdfast-doctor-{}", std::process::id()));
    let tried = fs::write(&probe, b"x").and_then(|()| fs::remove_file(&probe));
    if let Err(error) = tried {
        let _ = fs::remove_file(&probe);
        let mend = match error.kind() {
            ErrorKind::NotFound => format!("mkdir -p {subject}"),
            ErrorKind::StorageFull => "make room on the disk".to_owned(),
            _ => "give it to the account that runs holdfast, or set `store.url` to another place".to_owned(),
        };
        findings.add(
            STORE,
            subject,
            Level::Problem,
            format!("the journal's folder cannot be written: {error}"),
            mend,
        );
        return false;
    }
    let Ok(about) = nix::sys::statvfs::statvfs(folder) else { return true };
    #[allow(clippy::useless_conversion, reason = "the width differs between systems")]
    let free = u64::from(about.blocks_available()).saturating_mul(u64::from(about.fragment_size()));
    let shown = format!("{} MiB are free", free >> 20);
    match free {
        0..NONE_BYTES => findings.add(STORE, subject, Level::Problem, shown, "make room on the disk"),
        NONE_BYTES..LITTLE_BYTES => {
            findings.add(STORE, subject, Level::Warning, shown, "make room on the disk")
        }
        _ => findings.ok(STORE, subject, format!("writable, {shown}")),
    }
    true
}

fn journal(global: &Global, store: &Path, findings: &mut Findings) {
    let subject = store.display().to_string();
    let Ok(about) = fs::metadata(store) else {
        findings.ok(STORE, subject, "no journal yet; the first `holdfast serve` makes it");
        return;
    };
    let size = format!("{:.1} MiB", about.len() as f64 / 1_048_576.0);
    if about.len() > QUICK_BYTES {
        findings.ok(STORE, subject, format!("{size}; `holdfast verify` checks it entry by entry"));
        return;
    }
    out::talk("Checking the journal ...");
    match Source::open(global).and_then(|source| source.verify()) {
        Ok(verdict) if verdict["ok"] == true => {
            findings.ok(STORE, subject, format!("{} entries, unbroken ({size})", verdict["entries"]));
        }
        Ok(verdict) => {
            let what = format!(
                "broken at entry {}: {}",
                verdict["seq"],
                verdict["what"].as_str().unwrap_or_default()
            );
            findings.add(
                STORE,
                subject,
                Level::Problem,
                what,
                "keep the file for inspection and put a backup in its place",
            );
        }
        Err(failure) => {
            let (what, mend) = said(&failure);
            findings.add(STORE, subject, Level::Problem, what, mend);
        }
    }
}

fn said(failure: &Failure) -> (String, String) {
    match failure {
        Failure::Report(report) => {
            (report.message.to_string(), report.hint.as_deref().unwrap_or_default().to_owned())
        }
        Failure::Problems(problems) => {
            let first = problems.first();
            (
                first.map(|problem| problem.message.clone()).unwrap_or_default(),
                "see `holdfast check`".to_owned(),
            )
        }
    }
}

/// Files with secrets are for their owner.
fn private(file: &Path, findings: &mut Findings) {
    let Ok(about) = fs::metadata(file) else { return };
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let what = format!("others can read it (mode {mode:o}), and it holds secrets");
        findings.add(
            STORE,
            file.display().to_string(),
            Level::Problem,
            what,
            format!("chmod 600 {}", file.display()),
        );
    }
}

fn clock(global: &Global, store: &Path, findings: &mut Findings) {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    if wall < WRITTEN {
        let mend = "set the clock: expiries of approvals and tokens go by it";
        findings.add(STORE, "clock", Level::Problem, "it shows a time before this program was written", mend);
        return;
    }
    let small = fs::metadata(store).is_ok_and(|about| about.len() <= QUICK_BYTES);
    let newest = || {
        Source::open(global)
            .ok()?
            .calls(&Filter { limit: 1, ..Filter::default() })
            .ok()?
            .calls
            .first()
            .map(|call| call.at)
    };
    let ahead = small.then(newest).flatten().filter(|at| at.since(now()) > 60_000);
    match ahead {
        Some(at) => {
            let what = format!(
                "the newest call in the journal is {} s in the future: the clock was set back",
                at.since(now()) / 1000
            );
            findings.add(
                STORE,
                "clock",
                Level::Warning,
                what,
                "set the clock by NTP; until then approvals last longer than they say",
            );
        }
        None => findings.ok(STORE, "clock", "plausible"),
    }
}

fn ports(config: &Config, presence: Option<&Presence>, findings: &mut Findings) {
    if let Some(Presence::Running(address)) = presence {
        for (key, url) in [("mcp", &address.mcp), ("inbox", &address.inbox)] {
            let authority = url.trim_start_matches("http://").split('/').next().unwrap_or_default();
            let answers = authority
                .parse::<SocketAddr>()
                .is_ok_and(|address| TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok());
            match answers {
                true => findings.ok(
                    NETWORK,
                    key,
                    format!("`holdfast serve` (process {}) listens at {url}", address.pid),
                ),
                false => findings.add(
                    NETWORK,
                    key,
                    Level::Problem,
                    format!("`holdfast serve` (process {}) does not answer at {url}", address.pid),
                    format!(
                        "stop it: kill {}; the next client or `holdfast serve` starts it anew",
                        address.pid
                    ),
                ),
            }
        }
        return;
    }
    if presence == Some(&Presence::Starting) {
        findings.add(
            NETWORK,
            "serve",
            Level::Warning,
            "`holdfast serve` is starting and does not listen yet",
            "look again in a moment",
        );
        return;
    }
    for (key, address) in [("mcp", config.listen.mcp), ("inbox", config.listen.inbox)] {
        let mend = format!(
            "stop what listens there, or set `listen.{key}` to another address (port 0: any free one)"
        );
        match TcpListener::bind(address) {
            Ok(_) if address.port() == 0 => findings.ok(NETWORK, key, "any free port will be taken"),
            Ok(_) => findings.ok(NETWORK, key, format!("{address} is free; nothing serves at the moment")),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                findings.add(
                    NETWORK,
                    key,
                    Level::Problem,
                    format!("another program listens on {address}"),
                    mend,
                );
            }
            Err(error) => {
                findings.add(
                    NETWORK,
                    key,
                    Level::Problem,
                    format!("{address} cannot be listened on: {error}"),
                    mend,
                );
            }
        }
    }
}
