//! The whole machine under crashes, lost answers, wrong clocks and busy people: one seed drives everything.
//!
//! `SIM_SEED=<n> cargo test -p holdfast-store --test simulator` replays one seed with its trace;
//! `SIM_SEEDS=<n>` runs another number of them. Promises, by their numbers:
//!
//! 1. At most one dispatch that may have executed per `never` key and per approval, unless an operator or an opted-in
//!    probe says "send it again"; at most one effect per key at a server that deduplicates.
//! 2. Every accepted call ends or waits for a person, and every waiter hears something.
//! 3. Nobody hears two different answers of one call.
//! 4. What is heard is durable.
//! 5. No dispatch without its durable entry.
//! 6. No dispatch of a held call without a quorum on its very text, in time and not after a no.
//! 7. No deadline moves away, whatever the clock does.
//! 8. The live state is the fold of the journal.
//! 9. Keys go back only where nothing can have executed, or where the answer is definitive.
//! 10. Nobody hears that a call failed while it may execute.

// What a failing seed did is printed, wherever it is found out.
#![allow(clippy::print_stdout)]

mod audit;
mod driver;
mod env;
mod people;
mod rng;
mod sabotage;
mod scenario;
mod upstream;

use std::{
    panic::catch_unwind,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use env::{Ended, Stats, Trace, World};
use sabotage::Sabotage;

const SEEDS: u64 = 100_000;

/// Entries in states that only an odd course of events leads to: a simulator that never gets there proves little.
const CORNERS: [(&str, &str); 18] = [
    ("approved", "revoked"),
    ("asking", "edited"),
    ("asking", "responded"),
    ("asking", "revoked"),
    ("previewing", "cancelled"),
    ("previewing", "previewed"),
    ("approved", "expired"),
    ("approved", "superseded"),
    ("asking", "expired"),
    ("backoff", "answered"),
    ("backoff", "expired"),
    ("backoff", "lost"),
    ("backoff", "superseded"),
    ("expired", "answered-again"),
    ("in-doubt", "answered"),
    ("ready", "answered"),
    ("ready", "superseded"),
    ("unknown", "answered-again"),
];

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

/// Runs seeds `0..seeds` on all processors; the first broken one, if any, and what was done.
fn run(seeds: u64, sabotage: Sabotage) -> (Option<(u64, Ended)>, Stats, u64) {
    let (next, broken) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
    let work = || {
        let (mut total, mut count) = (Stats::default(), 0);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds || seed > broken.load(Ordering::Relaxed) {
                return (total, count);
            }
            // A panic is a finding as well; the second run, with a trace, lets it through.
            let ended = catch_unwind(|| World::run(seed, sabotage, Trace::Off));
            count += 1;
            if let Ok(ended) = &ended {
                total.add(&ended.stats);
            }
            if ended.is_err() || ended.is_ok_and(|ended| ended.violation.is_some()) {
                broken.fetch_min(seed, Ordering::Relaxed);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(2, usize::from);
    let (mut total, mut count) = (Stats::default(), 0);
    thread::scope(|scope| {
        for worker in (0..threads).map(|_| scope.spawn(work)).collect::<Vec<_>>() {
            let (stats, seeds) = worker.join().expect("a worker panicked");
            total.add(&stats);
            count += seeds;
        }
    });
    let seed = broken.into_inner();
    let broken = (seed != u64::MAX).then(|| (seed, World::run(seed, sabotage, Trace::On)));
    (broken, total, count)
}

fn tell(seed: u64, ended: &Ended) {
    for line in &ended.trace {
        println!("{line}");
    }
    match &ended.violation {
        Some(violation) => println!("seed {seed} breaks promise {}: {}", violation.promise, violation.words),
        None => println!("seed {seed} keeps every promise"),
    }
}

#[test]
fn every_seed_keeps_every_promise() {
    if let Some(seed) = number("SIM_SEED") {
        let ended = World::run(seed, Sabotage::None, Trace::On);
        tell(seed, &ended);
        assert!(ended.violation.is_none(), "seed {seed} breaks a promise");
        return;
    }
    let started = Instant::now();
    let (broken, total, seeds) = run(number("SIM_SEEDS").unwrap_or(SEEDS), Sabotage::None);
    if let Some((seed, ended)) = broken {
        tell(seed, &ended);
        panic!("replay with SIM_SEED={seed} cargo test -p holdfast-store --test simulator");
    }
    println!("{seeds} seeds, {total} in {:.1} s", started.elapsed().as_secs_f64());
    if seeds >= SEEDS {
        let missing: Vec<_> = CORNERS.iter().filter(|corner| !total.seen.contains(corner)).collect();
        assert!(missing.is_empty(), "these worlds never get to {missing:?}");
        assert!(total.crashes > seeds, "too few crashes to prove anything");
    }
}

#[test]
fn a_seed_is_one_world() {
    for seed in 0..50 {
        let [first, second] = [(), ()].map(|()| World::run(seed, Sabotage::None, Trace::On).trace);
        assert_eq!(first, second, "seed {seed} differs from itself");
    }
}

/// Within `seeds` seeds one of `promises` is found broken.
fn check_caught(sabotage: Sabotage, promises: &[u8], seeds: u64) {
    let (broken, ..) = run(seeds, sabotage);
    let Some((seed, ended)) = broken else { panic!("{sabotage:?} goes unnoticed for {seeds} seeds") };
    let violation = ended.violation.expect("the seed breaks a promise whenever it is run");
    println!("{sabotage:?}: seed {seed}, promise {}: {}", violation.promise, violation.words);
    assert!(
        promises.contains(&violation.promise),
        "{sabotage:?} was caught as promise {}",
        violation.promise
    );
}

macro_rules! sabotages {
    ($($name:ident: $sabotage:ident breaks $promises:expr;)*) => {
        $(
            #[test]
            fn $name() {
                check_caught(Sabotage::$sabotage, &$promises, 20_000);
            }
        )*
    };
}

sabotages! {
    acting_before_writing_is_caught: ActBeforeWriting breaks [5];
    resending_on_recovery_is_caught: ResendOnRecovery breaks [1];
    answering_before_durable_is_caught: AnswerBeforeDurable breaks [4];
    retrying_never_is_caught: RetryNever breaks [1, 9];
    guessing_a_failure_is_caught: GuessFailed breaks [9, 10];
    using_a_grant_twice_is_caught: UseGrantTwice breaks [1, 9];
    claims_that_are_not_atomic_are_caught: ClaimNotAtomic breaks [1];
    ignoring_execute_by_is_caught: IgnoreExecuteBy breaks [6];
    releasing_the_keys_of_a_doubt_is_caught: ReleaseKeysOfDoubt breaks [9];
    ignoring_the_quorum_is_caught: IgnoreQuorum breaks [6];
    approving_an_unseen_text_is_caught: ApproveUnseen breaks [6];
    counting_the_owner_is_caught: CountOwner breaks [6];
    appending_a_stale_step_is_caught: StaleStep breaks [8];
    resolving_an_unseen_doubt_is_caught: ResolveUnseen breaks [1];
    forgetting_unfinished_calls_is_caught: ForgetUnfinished breaks [2];
    forgetting_waiters_is_caught: ForgetWaiters breaks [2];
    a_clock_that_runs_backwards_is_caught: WallClock breaks [2, 6, 7];
    replaying_the_last_answer_is_caught: LastAnswerWins breaks [3, 4];
    judging_the_old_process_late_is_caught: JudgeProcessLate breaks [1];
    a_key_per_attempt_is_caught: KeyPerAttempt breaks [1];
    a_drifting_state_is_caught: DriftingState breaks [8];
}

#[test]
fn dropping_late_answers_breaks_no_promise() {
    let (broken, ..) = run(5_000, Sabotage::DropLateAnswers);
    if let Some((seed, ended)) = broken {
        tell(seed, &ended);
        panic!("a dropped late answer leaves a call in doubt, and breaks nothing");
    }
}
