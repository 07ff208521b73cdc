//! Durations, sizes and rates as people write them.

use std::time::Duration;

/// Reads `"200ms"`, `"30s"`, `"10m"`, `"4h"` or `"7d"`: a whole number and one unit.
///
/// # Errors
/// `None` for anything else, and for what does not fit 64 bits of milliseconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (count, unit) = split_number(text)?;
    let scale: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    count.checked_mul(scale).map(Duration::from_millis)
}

/// Reads `"512"`, `"512B"`, `"1KB"` (1000), `"4MiB"` (4 * 1024 * 1024) or `"2GiB"`: bytes.
///
/// # Errors
/// `None` for anything else, and for what does not fit 64 bits.
pub fn parse_size(text: &str) -> Option<u64> {
    let (count, unit) = split_number(text)?;
    let scale: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "kib" => 1 << 10,
        "m" | "mb" => 1_000_000,
        "mib" => 1 << 20,
        "g" | "gb" => 1_000_000_000,
        "gib" => 1 << 30,
        _ => return None,
    };
    count.checked_mul(scale)
}

/// Reads `"10/s"`, `"100/m"`, `"50/h"` or `"1000/d"`: how many, per how many milliseconds.
///
/// # Errors
/// `None` for anything else, and for a count of 0 (that is a `deny`, not a rate).
pub fn parse_rate(text: &str) -> Option<(u32, u64)> {
    let (count, unit) = split_number(text)?;
    let per_ms = match unit {
        "/s" => 1_000,
        "/m" => 60_000,
        "/h" => 3_600_000,
        "/d" => 86_400_000,
        _ => return None,
    };
    let count = u32::try_from(count).ok().filter(|count| *count > 0)?;
    Some((count, per_ms))
}

/// Milliseconds in the words of [`parse_duration`], with the largest unit that loses nothing.
pub fn show_duration(ms: u64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    for (scale, unit) in units {
        if ms >= scale && ms.is_multiple_of(scale) {
            return format!("{}{unit}", ms / scale);
        }
    }
    format!("{ms}ms")
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let count = text[..end].parse().ok()?;
    Some((count, text[end..].trim()))
}
