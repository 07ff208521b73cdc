//! `[store]`: where the journal is and how long it keeps what.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use holdfast_policy::{OrOff, Section};
use holdfast_store::Durability;

/// The journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreConfig {
    /// Where.
    pub(crate) place: Place,
    /// How a commit reaches the disk.
    pub(crate) durability: Durability,
    /// How long answers are kept, in milliseconds.
    pub(crate) keep_answers_ms: u64,
    /// How long hashes of keys are kept, in milliseconds.
    pub(crate) keep_tombstones_ms: u64,
    /// How long servers by stdio outlive a `serve` that was killed, in milliseconds; none: they end with it.
    pub(crate) keep_servers_ms: Option<u64>,
}

/// Where a journal is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A file, as an absolute path.
    Redb(PathBuf),
    /// A database; this build refuses it.
    Postgres(String),
}

/// As long as an attempt takes at most by default: afterwards its answer would be late in any case.
const KEEP_SERVERS: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);
const SHAPE: &str = "\"redb:PATH\", for example \"redb:holdfast.redb\"";

pub(super) fn read(root: &Section<'_>, base: &Path) -> Option<StoreConfig> {
    let Some(section) = root.section("store") else {
        let named_wrongly = root.has("store");
        return (!named_wrongly).then(|| StoreConfig {
            place: Place::Redb(base.join("holdfast.redb")),
            durability: Durability::TwoPhase,
            keep_answers_ms: millis(7 * DAY),
            keep_tombstones_ms: millis(90 * DAY),
            keep_servers_ms: Some(millis(KEEP_SERVERS)),
        });
    };
    // Asked for in any case, so that the key counts as known.
    let given = url(&section, base);
    let place = if section.has("url") { given } else { Some(Place::Redb(base.join("holdfast.redb"))) };
    let choices = [("two-phase", Durability::TwoPhase), ("one-phase", Durability::OnePhase)];
    let durability = section.one_of("durability", &choices).unwrap_or(Durability::TwoPhase);
    let answers = kept(&section, "keep_answers").unwrap_or(7 * DAY);
    let tombstones = kept(&section, "keep_tombstones").unwrap_or(90 * DAY);
    if tombstones < answers {
        section.problem(
            if section.has("keep_tombstones") { "keep_tombstones" } else { "keep_answers" },
            "`store.keep_tombstones` is shorter than `store.keep_answers`: a key would be free while its answer is kept",
            "keep tombstones at least as long as answers",
        );
    }
    let servers = servers(&section);
    section.finish();
    Some(StoreConfig {
        place: place?,
        durability,
        keep_answers_ms: millis(answers),
        keep_tombstones_ms: millis(tombstones),
        keep_servers_ms: servers.map(millis),
    })
}

fn url(section: &Section<'_>, base: &Path) -> Option<Place> {
    let url = section.string("url")?;
    if let Some(path) = url.strip_prefix("redb:") {
        let path = path.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(path);
        if path.is_empty() || path.ends_with('/') {
            section.problem("url", "`store.url` names no file", format!("write {SHAPE}"));
            return None;
        }
        return Some(Place::Redb(base.join(path)));
    }
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        section.problem(
            "url",
            "this build of holdfast keeps its journal in a file only: Postgres is not built in",
            format!("write {SHAPE}"),
        );
        return Some(Place::Postgres(url));
    }
    section.problem("url", "`store.url` is of no known kind", format!("write {SHAPE}"));
    None
}

fn kept(section: &Section<'_>, key: &str) -> Option<Duration> {
    let time = section.duration(key)?;
    let range = Duration::from_secs(60)..=3660 * DAY;
    if !range.contains(&time) {
        section.problem(
            key,
            format!("`store.{key}` is out of range"),
            "write a time from \"1m\" to \"3660d\"",
        );
        return None;
    }
    Some(time)
}

fn servers(section: &Section<'_>) -> Option<Duration> {
    let time = section.duration_or_off("keep_servers").unwrap_or(OrOff::Set(KEEP_SERVERS)).into_option()?;
    if time > DAY {
        let message = "`store.keep_servers` is out of range";
        section.problem("keep_servers", message, "write a time up to \"1d\", or \"off\"");
    }
    Some(time)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
