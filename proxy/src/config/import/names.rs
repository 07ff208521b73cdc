//! Names of imported servers: what another client took may not fit here, and is changed in a way that stays the same.

use super::super::servers;

/// The name by which a server called `name` elsewhere is known here. As clients themselves do: every other character
/// becomes `_`, and `__` stays free for `server__tool`.
pub(crate) fn plain(name: &str) -> String {
    let mapped: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    let parts: Vec<&str> = mapped.split('_').filter(|part| !part.is_empty()).collect();
    let joined = parts.join("_");
    let plain = match joined.as_str() {
        "" => format!("server-{}", short_hash(name)),
        "holdfast" => "holdfast-server".to_owned(),
        _ => joined,
    };
    if plain.len() <= servers::LONGEST_NAME {
        return plain;
    }
    let kept: String = plain.chars().take(servers::LONGEST_NAME - 7).collect();
    format!("{}-{}", kept.trim_end_matches('_'), short_hash(name))
}

/// `name`, or the first of `name_2`, `name_3`, ... that is free.
pub(crate) fn free(name: &str, is_taken: &dyn Fn(&str) -> bool) -> String {
    if !is_taken(name) {
        return name.to_owned();
    }
    let room = servers::LONGEST_NAME - 5;
    let stem: String = name.chars().take(room).collect();
    let stem = stem.trim_end_matches('_');
    let mut numbered = (2_u32..).map(|n| format!("{stem}_{n}"));
    numbered.find(|name| !is_taken(name)).expect("there is always one more number")
}

fn short_hash(name: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(name.as_bytes()).iter().take(3).map(|byte| format!("{byte:02x}")).collect()
}
