//! What a call through Holdfast costs more than the same call made directly.

use holdfast_tests::{Served, World};

use crate::{
    Effort, disk,
    load::{self, Sample, Target, Work},
    stage::{self, Direct, Usage},
    table::{Cell, Report},
};

/// Connections with one request under way each.
const CONNECTIONS: [usize; 3] = [1, 16, 64];
/// What each of our two commits may cost beside the journal's own time.
const SLACK: f64 = 1.1;

/// One way to a bank.
struct Way {
    name: &'static str,
    target: Target,
    /// The process of Holdfast, where it goes through one.
    through: Option<i32>,
}

/// A kind of call, and the ways to make it; the first one is direct.
struct Contest {
    title: &'static str,
    work: Work,
    ways: Vec<Way>,
}

/// What one way took.
struct Measured {
    sample: Sample,
    /// Processor seconds of Holdfast.
    cpu: f64,
}

/// Runs everything.
pub(crate) fn measure(effort: Effort) -> Report {
    let world = World::empty();
    let direct = Direct::start(&world, "direct.jsonl", &["--no-sync"]);
    let synced = Direct::start(&world, "direct-synced.jsonl", &[]);
    stage::configure(&world, &direct, &synced);
    let (served, started) = stage::serve(&world);
    // What it costs that stdio servers outlive it.
    let alone = World::empty();
    stage::configure_alone(&alone);
    let (unkept, _) = stage::serve(&alone);
    let pipe = stage::behind(&served, "pipe__");
    load::run(&pipe, Work::Read, 1, effort.time.min(std::time::Duration::from_millis(50)));
    let idle = Usage::of(served.pid());
    let mut commits = vec![disk::commit(&world)];
    let syncs = disk::sync(&world);

    let mut report = Report::default();
    let mut found = Vec::new();
    for contest in contests(&served, &unkept, &direct, &synced) {
        found.push(run(&mut report, &contest, effort));
    }
    commits.push(disk::commit(&world));
    let loaded = Usage::of(served.pid());
    let commit = commits.iter().sum::<f64>() / commits.len() as f64;
    let table = report.table("beside", &["what", "value", "unit"]);
    let mut beside = |what: &str, value: f64, unit: &str| {
        table.row(vec![what.into(), Cell::Number(value, 3), unit.into()]);
    };
    beside("one durable commit of the journal alone, p50", commit, "ms");
    beside("one fdatasync of 4 KiB, p50", syncs, "ms");
    beside("start of an empty serve", started.as_secs_f64() * 1e3, "ms");
    beside("resident, idle", idle.resident, "MiB");
    beside("resident, loaded", loaded.resident, "MiB");

    let [reads, effects, _] = found.as_slice() else { unreachable!("there are three contests") };
    let reads_add = reads.adds;
    report.at_most("reads add at c=1, p50 (stdio)", " ms", reads_add, 0.3);
    report.at_most(
        "effects add at c=1, p50 (stdio)",
        " ms",
        effects.adds,
        reads_add.max(0.0) + 2.0 * commit * SLACK,
    );
    report.at_least("effects over reads at c=64 (stdio)", "", effects.rate / reads.rate, 0.6);
    report.at_most("resident, idle", " MiB", idle.resident, 25.0);
    report
}

fn contests(served: &Served, unkept: &Served, direct: &Direct, synced: &Direct) -> [Contest; 3] {
    let by = |served: &Served, name, prefix| Way {
        name,
        target: stage::behind(served, prefix),
        through: Some(served.pid()),
    };
    let through = |name, prefix| by(served, name, prefix);
    let straight = |direct: &Direct| Way { name: "direct, HTTP", target: direct.target(), through: None };
    [
        Contest {
            title: "reads (echo of 200 bytes, `safe`)",
            work: Work::Read,
            ways: vec![
                straight(direct),
                through("Holdfast, stdio", "pipe__"),
                by(unkept, "Holdfast, stdio without keeper", "pipe__"),
                through("Holdfast, HTTP", "web__"),
            ],
        },
        Contest {
            title: "effects (transfer, `never`), the bank does not sync",
            work: Work::Effect,
            ways: vec![
                straight(direct),
                through("Holdfast, stdio", "pipe__"),
                by(unkept, "Holdfast, stdio without keeper", "pipe__"),
                through("Holdfast, HTTP", "web__"),
            ],
        },
        Contest {
            title: "effects (transfer, `never`), the bank syncs each",
            work: Work::Effect,
            ways: vec![
                straight(synced),
                through("Holdfast, stdio", "synced__"),
                through("Holdfast, HTTP", "websynced__"),
            ],
        },
    ]
}

/// The figures that aims are about, of the way by stdio.
struct Found {
    /// Milliseconds more than directly at one connection, half of the calls.
    adds: f64,
    /// Calls in a second at the most connections.
    rate: f64,
}

fn run(report: &mut Report, contest: &Contest, effort: Effort) -> Found {
    let columns = ["way", "c", "p50 ms", "p99 ms", "adds p50 ms", "calls/s", "of direct", "CPU us/call"];
    let table = report.table(contest.title, &columns);
    let mut found = Found { adds: f64::NAN, rate: f64::NAN };
    for connections in CONNECTIONS {
        let measured = by_turns(contest, connections, effort);
        let straight = &measured[0].sample;
        for (way, Measured { sample, cpu }) in contest.ways.iter().zip(&measured) {
            let adds = sample.percentile(50) - straight.percentile(50);
            if way.name.ends_with("stdio") {
                if connections == 1 {
                    found.adds = adds;
                }
                found.rate = sample.rate();
            }
            let per_call = cpu * 1e6 / sample.latencies.len() as f64;
            table.row(vec![
                way.name.into(),
                connections.into(),
                Cell::Number(sample.percentile(50), 3),
                Cell::Number(sample.percentile(99), 3),
                if way.through.is_some() { Cell::Number(adds, 3) } else { "".into() },
                Cell::Number(sample.rate(), 0),
                Cell::Number(sample.rate() / straight.rate(), 2),
                if way.through.is_some() { Cell::Number(per_call, 0) } else { "".into() },
            ]);
        }
    }
    found
}

/// A B C A B C ..., so that whatever else the machine does meets all alike.
fn by_turns(contest: &Contest, connections: usize, effort: Effort) -> Vec<Measured> {
    let mut all: Vec<Measured> =
        contest.ways.iter().map(|_| Measured { sample: Sample::default(), cpu: 0.0 }).collect();
    for _ in 0..effort.rounds {
        for (way, measured) in contest.ways.iter().zip(&mut all) {
            let cpu = || way.through.map_or(0.0, |pid| Usage::of(pid).cpu);
            let before = cpu();
            measured.sample.add(load::run(&way.target, contest.work, connections, effort.time));
            measured.cpu += cpu() - before;
        }
    }
    all
}
