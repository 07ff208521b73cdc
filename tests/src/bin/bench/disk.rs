//! What it costs here to make something durable: the disk alone, and the journal alone.

use std::{
    fs::OpenOptions,
    os::unix::fs::FileExt,
    process::Command,
    time::{Duration, Instant},
};

use holdfast_tests::{Ran, World, journal_load};

/// Milliseconds of one `fdatasync` after a write of 4 KiB, half of them faster.
pub(crate) fn sync(world: &World) -> f64 {
    let options = OpenOptions::new().create(true).truncate(true).write(true).open(world.path("probe"));
    let file = options.expect("the directory is ours");
    let page = [7; 4096];
    // Written before, so that no sync has to record a new length.
    (0..64).for_each(|n| file.write_all_at(&page, n * 4096).expect("the disk has room"));
    file.sync_all().expect("the disk works");
    let mut times: Vec<Duration> = (0..500)
        .map(|n| {
            let begun = Instant::now();
            file.write_all_at(&page, (n % 64) * 4096).expect("the disk has room");
            file.sync_data().expect("the disk works");
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

/// Milliseconds of one append to a journal, alone and durable, half of them faster.
pub(crate) fn commit(world: &World) -> f64 {
    let ran = load(world, "commits.redb", &["run", "1"], Duration::from_secs(60));
    let line = ran.lines().find_map(|line| line.strip_prefix("one at a time: p50 ")).expect("a latency");
    let text = line.split(',').next().expect("a latency");
    milliseconds(text).unwrap_or_else(|| panic!("not a time: {text}"))
}

/// Runs the store's own measurement on a journal in this directory.
pub(crate) fn load(world: &World, journal: &str, args: &[&str], within: Duration) -> String {
    let mut command: Command = world.command(&journal_load());
    command.arg(world.path(journal)).args(args);
    Ran::within(&mut command, within).ok().to_owned()
}

/// `529.3µs`, `1.2ms` and so on, as `Duration` prints itself.
fn milliseconds(text: &str) -> Option<f64> {
    let units = [("ns", 1e-6), ("µs", 1e-3), ("ms", 1.0), ("s", 1e3)];
    let (digits, factor) =
        units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    digits.parse::<f64>().ok().map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_any_unit() {
        for (text, expected) in [("529.5µs", 0.5295), ("1.25ms", 1.25), ("2s", 2000.0), ("500ns", 0.0005)] {
            assert_eq!(milliseconds(text), Some(expected));
        }
        assert_eq!(milliseconds("soon"), None);
    }
}
