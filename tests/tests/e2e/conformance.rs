//! The official conformance suite: whatever our server with everything passes alone passes through Holdfast.

use std::{collections::BTreeMap, fs, path::Path, process::Command, time::Duration};

use holdfast_tests::{ALLOW, Ran, World, from_setup, holdfast};
use serde_json::Value;

/// Alone it takes a quarter of a minute; the machine may have much else to do.
const WITHIN: Duration = Duration::from_secs(240);

/// A check's scenario, id and name, and which of those with the same it is.
type Check = (String, String, String, usize);

/// What each check of one run came to: its status, and the suite's words.
type Verdicts = BTreeMap<Check, (String, String)>;

/// Of a server that closes its stream in the middle of a call: that ends at Holdfast, which closes none, so that there is
/// nothing to resume.
const OF_ONE_HOP: [&str; 1] = ["server-sse-disconnect-resume"];

/// `conformance` here, writing what it finds into `output`.
fn suite(world: &World, side: &str, output: &str) -> Command {
    let mut command = world.command(&from_setup("node/node_modules/node/bin/node"));
    let program = "node/node_modules/@modelcontextprotocol/conformance/dist/index.js";
    command.arg(from_setup(program)).args([side, "-o", output]);
    command
}

/// Judges the server at `url`.
fn judged(world: &World, url: &str, revision: &str, output: &str) -> Verdicts {
    let mut command = suite(world, "server", output);
    command.args(["--url", url, "--requirements", revision]);
    // It fails where a check fails, which is for us to judge.
    let ran = Ran::within(&mut command, WITHIN);
    assert!(ran.stdout.contains("=== SUMMARY ==="), "{}\n{}", ran.stdout, ran.stderr);
    verdicts(&world.path(output))
}

/// Reads `SIDE-SCENARIO-TIME/checks.json` of each scenario.
fn verdicts(output: &Path) -> Verdicts {
    let mut verdicts = Verdicts::new();
    for entry in fs::read_dir(output).expect("the suite wrote") {
        let directory = entry.expect("it can be read").path();
        let name = directory.file_name().and_then(|name| name.to_str()).expect("UTF-8");
        // The time is 2026-11-21T19-44-35-425Z.
        let scenario = name.split_once('-').expect("a side").1;
        let scenario = &scenario[..scenario.len() - "-2026-11-21T19-44-35-425Z".len()];
        let text = fs::read_to_string(directory.join("checks.json")).expect("the suite wrote");
        let checks: Vec<Value> = serde_json::from_str(&text).expect("JSON");
        for check in checks {
            let text = |member: &str| check[member].as_str().unwrap_or_default().to_owned();
            let same = |at| (scenario.to_owned(), text("id"), text("name"), at);
            let at = (0..).find(|at| !verdicts.contains_key(&same(*at))).expect("there is a next number");
            verdicts.insert(same(at), (text("status"), text("errorMessage")));
        }
    }
    verdicts
}

fn passed(verdicts: &Verdicts) -> impl Iterator<Item = &Check> {
    verdicts.iter().filter(|(_, (status, _))| status == "SUCCESS").map(|(check, _)| check)
}

/// Those whose other end is the server, not Holdfast.
fn end_to_end(verdicts: &Verdicts) -> impl Iterator<Item = &Check> {
    passed(verdicts).filter(|(_, id, ..)| !OF_ONE_HOP.contains(&id.as_str()))
}

/// What passed alone and not through Holdfast, with the suite's words.
fn lost(alone: &Verdicts, through: &Verdicts) -> Vec<String> {
    let missed = end_to_end(alone).filter_map(|check| {
        let (scenario, id, name, at) = check;
        let (status, words) = match through.get(check) {
            Some((status, _)) if status == "SUCCESS" => return None,
            Some((status, words)) => (status.as_str(), words.as_str()),
            None => ("NOT REACHED", ""),
        };
        Some(format!("{scenario}: {id} {name}[{at}]: {status} {words}"))
    });
    missed.collect()
}

/// Runs both, and expects `passing` checks alone.
fn compare(revision: &str, passing: usize) {
    let world = World::empty();
    let (alone, behind) = (world.http_everything(&[]), world.http_everything(&[]));
    world
        .configure(&format!("[servers.x]\nurl = \"http://{}/mcp\"\nprefix = false\n{ALLOW}", behind.address));
    let served = world.serve();
    let (alone, through) = std::thread::scope(|scope| {
        let url = format!("http://{}/mcp", alone.address);
        let world = &world;
        let alone = scope.spawn(move || judged(world, &url, revision, "alone"));
        let through = judged(world, &format!("http://{}/mcp", served.mcp), revision, "through");
        (alone.join().expect("no panic"), through)
    });
    let lost = lost(&alone, &through);
    let (fine, compared) = (passed(&alone).count(), end_to_end(&alone).count());
    let kept = compared - lost.len();
    println!(
        "conformance {revision}: {fine} checks pass alone, {compared} end to end, {kept} of those through Holdfast"
    );
    assert!(fine >= passing, "alone only {fine}: {alone:#?}");
    assert!(lost.is_empty(), "lost {} of {fine}:\n{}", lost.len(), lost.join("\n"));
}

#[test]
fn what_passes_alone_passes_through_in_2026() {
    compare("2026-07-28", 197);
}

#[test]
fn what_passes_alone_passes_through_in_2025() {
    compare("2025-11-25", 83);
}

/// Lets the suite judge Holdfast as the client of its own servers, used by this script.
fn drive(script: &str, revision: &str, scenarios: &[&str]) {
    let world = World::empty();
    let (python, clients) = (from_setup("venv/bin/python"), concat!(env!("CARGO_MANIFEST_DIR"), "/clients"));
    let command = format!("{} {clients}/{script} {}", python.display(), holdfast().display());
    let mut checks = 0;
    for scenario in scenarios {
        let mut suite = suite(&world, "client", "client");
        suite.args(["--command", &command, "--scenario", scenario, "--spec-version", revision]);
        // Its client here is python, which starts Holdfast: a busy machine takes its time.
        suite.args(["--timeout", "120000"]);
        let ran = Ran::within(&mut suite, WITHIN);
        let words = || format!("{scenario}\n{}\n{}", ran.stdout, ran.stderr);
        assert_eq!(ran.code, Some(0), "{}", words());
        // `Passed: 17/17, 0 failed, 0 warnings`
        let said = [&*ran.stdout, &*ran.stderr].concat();
        let passed = said.rsplit("Passed: ").next().and_then(|rest| rest.split('/').next()?.parse().ok());
        let passed: usize = passed.unwrap_or_else(|| panic!("{}", words()));
        assert!(passed > 0, "{}", words());
        checks += passed;
    }
    println!("conformance {revision}, client side: {checks} checks of {} scenarios", scenarios.len());
}

#[test]
fn the_upstream_half_is_a_client_of_2025() {
    let scenarios = ["initialize", "tools_call", "elicitation-sep1034-client-defaults", "sse-retry"];
    drive("upstream.py", "2025-11-25", &scenarios);
}

#[test]
fn the_upstream_half_is_a_client_of_2026() {
    let scenarios = [
        "tools_call",
        "sep-2322-client-request-state",
        "http-custom-headers",
        "http-invalid-tool-headers",
        "json-schema-ref-no-deref",
    ];
    drive("upstream.py", "2026-07-28", &scenarios);
}

#[test]
fn the_upstream_half_signs_in_where_metadata_say() {
    let scenarios = [
        "auth/metadata-default",
        "auth/metadata-var1",
        "auth/metadata-var2",
        "auth/metadata-var3",
        "auth/basic-cimd",
        "auth/pre-registration",
        "auth/resource-mismatch",
        "auth/authorization-server-migration",
        "auth/metadata-issuer-mismatch",
    ];
    drive("signed_in.py", "2026-07-28", &scenarios);
    let old = ["auth/2025-03-26-oauth-metadata-backcompat", "auth/2025-03-26-oauth-endpoint-fallback"];
    drive("signed_in.py", "2025-03-26", &old);
}

#[test]
fn the_upstream_half_asks_for_the_scopes_it_needs() {
    let scenarios = [
        "auth/scope-from-www-authenticate",
        "auth/scope-from-scopes-supported",
        "auth/scope-omitted-when-undefined",
        "auth/scope-step-up",
        "auth/scope-retry-limit",
        "auth/offline-access-scope",
        "auth/offline-access-not-supported",
    ];
    drive("signed_in.py", "2026-07-28", &scenarios);
}

#[test]
fn the_upstream_half_knows_whom_it_talks_to() {
    let scenarios = [
        "auth/token-endpoint-auth-basic",
        "auth/token-endpoint-auth-post",
        "auth/token-endpoint-auth-none",
        "auth/iss-supported",
        "auth/iss-not-advertised",
        "auth/iss-supported-missing",
        "auth/iss-wrong-issuer",
        "auth/iss-unexpected",
        "auth/iss-normalized",
    ];
    drive("signed_in.py", "2026-07-28", &scenarios);
}
