//! Measures the journal on disk: `journal_load FILE (fill CALLS | run SECONDS | open | die) [one-phase]`.
//!
//! `fill` adds finished calls, `run` prints throughput, CPU and latency, `open` the time of a start, and `die` ends the
//! process in the middle of writing, as kill -9 does, so that the next `open` is one after a crash.

#![allow(clippy::print_stdout, reason = "a program that prints what it measured")]

use std::{
    env,
    error::Error,
    path::Path,
    process,
    sync::{Arc, mpsc},
    time::{Duration, Instant, SystemTime},
};

use holdfast_policy::Plan;
use holdfast_store::{
    Accepted, Answer, AnswerKind, Append, Attempt, CallId, Caller, Claim, Disposition, Durability, Entry,
    Journal, Key, KeyFate, KeySource, Millis, Options, Redb, Text, Urgency, fingerprint, hash_fields,
    key_hash,
};

/// Appends under way at a time.
const SUBMITTERS: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [path, mode, rest @ ..] = args.as_slice() else {
        return Err("usage: journal_load FILE (fill CALLS | run SECONDS | open | die) [one-phase]".into());
    };
    let one_phase = args.last().is_some_and(|arg| arg == "one-phase");
    let durability = if one_phase { Durability::OnePhase } else { Durability::TwoPhase };
    let number = || rest.first().ok_or("a number is missing")?.parse::<u64>().map_err(|_| "not a number");

    let start = Instant::now();
    let journal = Redb::open(Path::new(path), Options { durability, ..Options::default() })?;
    println!("open: {:?}, {} kB resident", start.elapsed(), resident_kb());
    let start = Instant::now();
    let unfinished = journal.unfinished()?.len();
    println!("read back: {unfinished} unfinished, {:?}", start.elapsed());
    match mode.as_str() {
        "fill" => fill(&journal, number()?),
        "run" => run(&journal, Duration::from_secs(number()?)),
        "open" => {}
        "die" => {
            load(&journal, Duration::from_secs(1));
            let (send, receive) = mpsc::channel();
            for _ in 0..1000 {
                let (_, first, _) = call();
                let send = send.clone();
                journal.submit(first, Box::new(move |_| send.send(()).expect("it waits")));
            }
            receive.recv()?;
            process::abort();
        }
        other => return Err(format!("unknown mode {other}").into()),
    }
    println!("{} kB resident, {} MB of file", resident_kb(), std::fs::metadata(path)?.len() >> 20);
    Ok(())
}

fn fill(journal: &Redb, calls: u64) {
    let start = Instant::now();
    let (send, receive) = mpsc::sync_channel(8000);
    for n in 0..calls {
        let (_, mut first, then) = call();
        first.entries.extend(then.entries);
        first.urgency = Urgency::Soon;
        let send = send.clone();
        journal.submit(first, Box::new(move |answer| drop(send.send(answer))));
        if n >= 4000 {
            receive.recv().expect("an answer for each").expect("an append");
        }
    }
    for _ in 0..calls.min(4000) {
        receive.recv().expect("an answer for each").expect("an append");
    }
    println!("filled with {calls} calls in {:?}", start.elapsed());
}

fn run(journal: &Redb, duration: Duration) {
    load(journal, duration);
    let mut latencies = Vec::new();
    for _ in 0..2000 {
        let (_, first, then) = call();
        for append in [first, then] {
            let (send, receive) = mpsc::channel();
            let start = Instant::now();
            journal.submit(append, Box::new(move |answer| drop(send.send(answer))));
            receive.recv().expect("an answer").expect("an append");
            latencies.push(start.elapsed());
        }
    }
    latencies.sort_unstable();
    let at = |percent: usize| latencies[latencies.len() * percent / 100];
    println!("one at a time: p50 {:?}, p90 {:?}, p99 {:?}", at(50), at(90), at(99));
}

/// Keeps [`SUBMITTERS`] calls under way, each of two appends.
fn load(journal: &Redb, duration: Duration) {
    let (send, receive) = mpsc::channel();
    let submit = |append: Append, next: Option<Append>| {
        let send = send.clone();
        journal.submit(append, Box::new(move |answer| drop(send.send((answer, next)))));
    };
    let (start, cpu) = (Instant::now(), cpu_ms());
    for _ in 0..SUBMITTERS {
        let (_, first, then) = call();
        submit(first, Some(then));
    }
    let (mut appends, mut under_way) = (0u64, SUBMITTERS);
    while under_way > 0 {
        let (answer, next) = receive.recv().expect("an answer for each");
        answer.expect("an append");
        appends += 1;
        match next {
            Some(then) => submit(then, None),
            None if start.elapsed() < duration => {
                let (_, first, then) = call();
                submit(first, Some(then));
            }
            None => under_way -= 1,
        }
    }
    let (wall, cpu) = (start.elapsed(), cpu_ms() - cpu);
    println!(
        "{SUBMITTERS} at a time: {:.0} appends/s, {:.1} us of CPU each",
        appends as f64 / wall.as_secs_f64(),
        cpu as f64 * 1000.0 / appends as f64
    );
}

/// A call as an agent makes it, and its answer.
fn call() -> (CallId, Append, Append) {
    thread_local! {
        static PLAN: Arc<Plan> = Arc::new(Plan::default());
    }
    let id = CallId(uuid::Uuid::now_v7());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let at = Millis(now.as_millis() as u64);
    let arguments =
        format!(r#"{{"charge":"ch_{id}","amount":1999,"currency":"EUR","reason":"requested_by_customer"}}"#);
    let keys = [KeySource::Transport, KeySource::Effect]
        .map(|source| Key { source, hash: key_hash(source, &["ana", "bank", "refund"], &id.to_string()) });
    let fingerprint = fingerprint("bank --ledger /var/lib/bank", "refund", &arguments);
    let accepted = Accepted {
        caller: Caller { principal: "ana".into(), channel: "bridge-7".into(), client: "editor".into() },
        server: "bank".into(),
        identity: "bank --ledger /var/lib/bank".into(),
        tool: "refund".into(),
        definition: fingerprint.to_string(),
        arguments: Text::parse(&arguments).expect("JSON"),
        fingerprint,
        keys: keys.to_vec(),
        run: None,
        incarnation: None,
        extra: None,
        meta: None,
        headers: Vec::new(),
        disposition: Disposition::Allow,
        plan: PLAN.with(Arc::clone),
        policy: "sha256:0123456789abcdef".into(),
    };
    let identical = Some(hash_fields("identical", &[&fingerprint.0]));
    let dispatched = Entry::Dispatched { attempt: Attempt(1) };
    let first = Append {
        call: id,
        at,
        expected: 0,
        entries: vec![Entry::Accepted(Box::new(accepted)), dispatched],
        claim: Claim { keys: keys.to_vec(), position: None, identical, ..Claim::default() },
        keys: KeyFate::Keep,
        urgency: Urgency::Now,
    };
    let text = r#"{"content":[{"type":"text","text":"Refunded 19.99 EUR."}],"structuredContent":{"id":"re_1","status":"succeeded"}}"#;
    let answer = Answer { kind: AnswerKind::Result, text: Text::parse(text).expect("JSON") };
    let then = Append {
        expected: 2,
        entries: vec![Entry::Answered { attempt: Attempt(1), answer, kept: None }],
        claim: Claim::default(),
        ..first.clone()
    };
    (id, first, then)
}

fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks * 10
}

fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()).and_then(|kb| kb.parse().ok()).unwrap_or(0)
}
