//! What a long history costs: starts and latencies over a journal of many finished calls, against an empty one.

use std::time::Duration;

use holdfast_tests::{Served, World};

use crate::{
    Effort, disk,
    load::{self, Sample, Work},
    stage::{self, Usage},
    table::{Cell, Report},
};

const STARTS: usize = 5;
/// A million calls take some minutes on a slow disk.
const FILL_WITHIN: Duration = Duration::from_secs(3600);
const CONNECTIONS: [usize; 2] = [1, 16];

/// Runs everything.
pub(crate) fn measure(calls: u64, effort: Effort) -> Report {
    let (empty, full) = (World::empty(), World::empty());
    disk::load(&full, "holdfast.redb", &["fill", &calls.to_string()], FILL_WITHIN);
    stage::configure_pipe(&empty);
    stage::configure_pipe(&full);
    let bytes = std::fs::metadata(full.path("holdfast.redb")).map_or(0, |file| file.len());

    let mut report = Report::default();
    let table = report.table(
        format!("starts over {calls} finished calls ({} MiB)", bytes >> 20),
        &["after", "until `mcp ...`, best ms", "worst ms", "empty journal, worst ms"],
    );
    let mut worst = 0.0_f64;
    for (name, end) in [
        ("SIGTERM", Served::stop as fn(Served) -> _),
        ("kill -9, idle", |served| {
            served.kill();
            Default::default()
        }),
    ] {
        let [times, others] = [&full, &empty].map(|world| starts(world, end));
        worst = worst.max(times[STARTS - 1]);
        table.row(vec![
            name.into(),
            Cell::Number(times[0], 1),
            Cell::Number(times[STARTS - 1], 1),
            Cell::Number(others[STARTS - 1], 1),
        ]);
    }
    let [times, others] = [&full, &empty].map(|world| starts_under_load(world, effort));
    table.row(vec![
        "kill -9, 16 effects under way".into(),
        Cell::Number(times[0], 1),
        Cell::Number(times[STARTS - 1], 1),
        Cell::Number(others[STARTS - 1], 1),
    ]);
    report.at_most("start, worst after SIGTERM or kill -9 when idle", " ms", worst, 1000.0);
    report.at_most("start, worst after kill -9 under load", " ms", times[STARTS - 1], 1000.0);
    latencies(&mut report, &empty, &full, effort);
    report
}

/// Milliseconds of starts, sorted, each ended by `end`.
fn starts(world: &World, end: fn(Served) -> std::process::ExitStatus) -> Vec<f64> {
    end(stage::serve(world).0);
    let mut times: Vec<f64> = (0..STARTS)
        .map(|_| {
            let (served, time) = stage::serve(world);
            // A call, so that there is something to write at the end.
            load::run(&stage::behind(&served, "pipe__"), Work::Effect, 1, Duration::from_millis(20));
            await_rest(&served);
            end(served);
            time.as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times
}

/// The journal tidies up when nothing has happened for a while.
fn await_rest(served: &Served) {
    std::thread::sleep(Duration::from_secs(1));
    let mut before = Usage::of(served.pid()).cpu;
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(500));
        let now = Usage::of(served.pid()).cpu;
        if now == before {
            return;
        }
        before = now;
    }
}

/// Milliseconds of starts, sorted, each after a kill in the middle of writing.
fn starts_under_load(world: &World, effort: Effort) -> Vec<f64> {
    let mut times: Vec<f64> = (0..STARTS)
        .map(|_| {
            let (served, _) = stage::serve(world);
            let target = stage::behind(&served, "pipe__");
            let pid = nix::unistd::Pid::from_raw(served.pid());
            let killer = std::thread::spawn({
                let time = effort.time / 2;
                move || {
                    std::thread::sleep(time);
                    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it runs");
                }
            });
            load::run_until_broken(&target, Work::Effect, 16, effort.time * 10);
            killer.join().expect("no panic");
            drop(served);
            let (served, time) = stage::serve(world);
            served.stop();
            time.as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times
}

fn latencies(report: &mut Report, empty: &World, full: &World, effort: Effort) {
    let servers = [stage::serve(empty).0, stage::serve(full).0];
    let columns = ["call", "c", "empty p50 ms", "p50 ms", "ratio", "empty calls/s", "calls/s"];
    let table = report.table("latencies", &columns);
    let mut worst = 0.0_f64;
    for (name, work) in [("read", Work::Read), ("effect", Work::Effect)] {
        for connections in CONNECTIONS {
            let mut samples = [Sample::default(), Sample::default()];
            for _ in 0..effort.rounds {
                for (served, sample) in servers.iter().zip(&mut samples) {
                    sample.add(load::run(&stage::behind(served, "pipe__"), work, connections, effort.time));
                }
            }
            let [empty, full] = &samples;
            let ratio = full.percentile(50) / empty.percentile(50);
            worst = worst.max(ratio);
            table.row(vec![
                name.into(),
                connections.into(),
                Cell::Number(empty.percentile(50), 3),
                Cell::Number(full.percentile(50), 3),
                Cell::Number(ratio, 2),
                Cell::Number(empty.rate(), 0),
                Cell::Number(full.rate(), 0),
            ]);
        }
    }
    let [empty, full] = servers.each_ref().map(|served| Usage::of(served.pid()).resident);
    let table = report.table("resident after that", &["journal", "MiB"]);
    table.row(vec!["empty".into(), Cell::Number(empty, 1)]);
    table.row(vec!["full".into(), Cell::Number(full, 1)]);
    report.at_most("p50 against an empty journal, worst ratio", "", worst, 1.3);
}
