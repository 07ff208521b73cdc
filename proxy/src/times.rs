//! Times and spans as people read them, at the terminal and on the page.

use holdfast_store::Millis;
use jiff::{Timestamp, Zoned, tz::TimeZone};

/// A span in its two largest units: `2.3s`, `4m 10s`, `3h 57m`, `12d 4h`.
pub(crate) fn span(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        _ if ms < 1_000 => format!("{ms}ms"),
        0..10 => format!("{}.{}s", seconds, ms % 1_000 / 100),
        10..60 => format!("{seconds}s"),
        60..3_600 => two(seconds / 60, "m", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

fn two(large: u64, unit: &str, small: u64, subunit: &str) -> String {
    if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit} {small}{subunit}") }
}

/// How long ago, in its largest unit: `now`, `12s ago`, `3h ago`.
pub(crate) fn ago(at: Millis, now: Millis) -> String {
    let whole = span(now.since(at) / 1_000 * 1_000);
    match whole.split(' ').next() {
        Some("0ms") | None => "now".to_owned(),
        Some(first) => format!("{} ago", first.replace(".0s", "s")),
    }
}

/// How long until, or that it is over.
pub(crate) fn until(at: Millis, now: Millis) -> String {
    if at <= now { "overdue".to_owned() } else { span(at.since(now)) }
}

/// Date and time here, to the second.
pub(crate) fn local(at: Millis) -> String {
    zoned(at).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Date and time in UTC as ISO 8601 has it, for programs.
pub(crate) fn iso(at: Millis) -> String {
    timestamp(at).to_string()
}

/// Time of day here, to the millisecond.
pub(crate) fn clock(at: Millis) -> String {
    zoned(at).strftime("%H:%M:%S%.3f").to_string()
}

/// The name of the zone that the times are in.
pub(crate) fn zone(at: Millis) -> String {
    zoned(at).strftime("%Z").to_string()
}

fn zoned(at: Millis) -> Zoned {
    timestamp(at).to_zoned(TimeZone::system())
}

fn timestamp(at: Millis) -> Timestamp {
    let ms = i64::try_from(at.0).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        let check = |ms: u64, expected: &str| assert_eq!(span(ms), expected, "{ms}");
        check(0, "0ms");
        check(999, "999ms");
        check(2_345, "2.3s");
        check(59_999, "59s");
        check(60_000, "1m");
        check(250_000, "4m 10s");
        check(3_600_000, "1h");
        check(14_220_000, "3h 57m");
        check(1_051_200_000, "12d 4h");
    }

    #[test]
    fn before_and_after() {
        let now = Millis(10_000_000);
        let check = |at: u64, expected: &str| assert_eq!(ago(Millis(at), now), expected, "{at}");
        check(10_000_000, "now");
        check(9_999_500, "now");
        check(9_997_000, "3s ago");
        check(9_820_000, "3m ago");
        check(9_750_000, "4m ago");
        // A clock that runs backwards is no news from the future.
        check(10_500_000, "now");
        assert_eq!(until(Millis(10_065_000), now), "1m 5s");
        assert_eq!(until(now, now), "overdue");
    }
}
