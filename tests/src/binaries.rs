//! Where the programs under test are: beside the test program, made by the same cargo.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// A directory with `holdfast` and `bank` that are to be tested as they are, e.g. those of a release.
const GIVEN: &str = "HOLDFAST_TEST_BINARIES";

/// The path of `holdfast`.
pub fn holdfast() -> PathBuf {
    directory().join("holdfast")
}

/// The path of `bank`.
pub fn bank() -> PathBuf {
    directory().join("bank")
}

/// The path of `odd`, the server that does what its story says.
pub fn odd() -> PathBuf {
    beside_this_program().join("odd")
}

/// The path of `everything`, the server that has one of each.
pub fn everything() -> PathBuf {
    beside_this_program().join("everything")
}

/// The path of `journal_load`, the store's own measurement, which is built first.
///
/// # Panics
/// Where it does not build.
pub fn journal_load() -> PathBuf {
    let directory = beside_this_program();
    cargo_build(&directory, &["-p", "holdfast-store", "--example", "journal_load"]);
    directory.join("examples/journal_load")
}

/// Cargo's target directory.
pub fn target() -> PathBuf {
    let profile = beside_this_program();
    profile.parent().expect("the profile's directory is in the target directory").to_owned()
}

/// The path of something that `tests/setup` has installed.
///
/// # Panics
/// Where it is not there; says what to do.
pub fn from_setup(name: &str) -> PathBuf {
    let path = target().join("e2e").join(name);
    assert!(path.exists(), "{} is missing: run tests/setup once, then this test again", path.display());
    path
}

fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| match std::env::var_os(GIVEN) {
        Some(given) => PathBuf::from(given),
        None => {
            let directory = beside_this_program();
            let there = ["holdfast", "bank"].iter().all(|name| directory.join(name).exists());
            // One process for each story (nextest) would ask cargo a hundred times: whoever starts it builds first.
            if !there || std::env::var_os("NEXTEST").is_none() {
                build(&directory);
            }
            directory
        }
    })
}

/// `target/debug`, from `target/debug/deps/e2e-...` or from `target/debug/bench`.
fn beside_this_program() -> PathBuf {
    let program = std::env::current_exe().expect("a program knows where it is");
    let directory = program.parent().expect("a program is in a directory");
    let profile = if directory.ends_with("deps") { directory.parent() } else { Some(directory) };
    profile.expect("cargo puts test programs into PROFILE/deps").to_owned()
}

/// Cargo does not make the programs of other packages for the sake of a test, and old ones would be judged instead.
fn build(directory: &Path) {
    // What `tests/run` builds: with fewer packages their dependencies have other features, and are built again.
    cargo_build(directory, &["--workspace"]);
}

fn cargo_build(directory: &Path, what: &[&str]) {
    let target = directory.parent().expect("the profile's directory is in the target directory");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet"]).args(what).arg("--target-dir").arg(target);
    if directory.ends_with("release") {
        cargo.arg("--release");
    }
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).stdin(Stdio::null());
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "the programs under test do not build");
}
