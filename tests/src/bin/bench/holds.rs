//! What many open questions cost: memory for each, starts, and the first bytes of what operators look at.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use holdfast_tests::{Agent, Connection, Served, World, bank};
use serde_json::json;

use crate::{
    stage::{self, Usage},
    table::{Cell, Report, Table},
};

const TOKEN: &str = "token-of-ana-long-enough";
const AGENTS: usize = 16;
const STARTS: usize = 3;
const LOOKS: usize = 9;

/// Runs everything.
pub(crate) fn measure(holds: usize) -> Report {
    let (empty, full) = (World::empty(), World::empty());
    configure(&empty);
    configure(&full);
    let mut report = Report::default();
    let (served, _) = stage::serve(&full);
    // Everything that grows with the first calls and not with their number.
    fill(&served, 0..AGENTS);
    let few = at_rest(&served);
    let begun = Instant::now();
    fill(&served, AGENTS..holds);
    let filled = begun.elapsed();
    let many = at_rest(&served);
    let taken = (many - few) * 1024.0 / (holds - AGENTS) as f64;
    let (looks, shown) = look(&served);
    let looked = at_rest(&served);
    served.kill();
    let times = starts(&full);
    let [fresh, back] = [&empty, &full].map(|world| at_rest(&stage::serve(world).0));
    let read_back = (back - fresh) * 1024.0 / holds as f64;

    let memory = report.table(format!("memory with {holds} held calls"), &["when", "MiB", "KiB for each"]);
    row(memory, format!("{AGENTS} held"), few, None);
    row(memory, format!("{holds} held, in {:.1} s", filled.as_secs_f64()), many, Some(taken));
    row(memory, "after operators have looked".to_owned(), looked, None);
    row(memory, "an empty journal, started".to_owned(), fresh, None);
    row(memory, format!("started over {holds} held"), back, Some(read_back));
    report.at_most("resident, for each call held", " KiB", taken, 5.0);
    report.at_most("resident, for each call read back", " KiB", read_back, 5.0);

    let table =
        report.table("operators", &["what", "first byte, median ms", "worst ms", "whole, median ms", "KiB"]);
    for Look { what, first, whole, bytes } in &looks {
        table.row(vec![
            (*what).into(),
            Cell::Number(median(first), 1),
            Cell::Number(first[first.len() - 1], 1),
            Cell::Number(median(whole), 1),
            Cell::Number(*bytes as f64 / 1024.0, 0),
        ]);
    }
    report.at_most("first byte of the page, worst", " ms", looks[0].first[LOOKS - 1], 200.0);
    report.at_most("calls on one page", "", shown as f64, 50.0);
    let table = report.table("starts", &["after", "until `mcp ...`, best ms", "worst ms"]);
    table.row(vec!["kill -9".into(), Cell::Number(times[0], 1), Cell::Number(times[STARTS - 1], 1)]);
    report.at_most("start, worst", " ms", times[STARTS - 1], 1000.0);
    report
}

fn row(table: &mut Table, when: String, resident: f64, each: Option<f64>) {
    let each = each.map_or("".into(), |each| Cell::Number(each, 2));
    table.row(vec![when.as_str().into(), Cell::Number(resident, 1), each]);
}

fn configure(world: &World) {
    let program = bank();
    let program = program.to_str().expect("the target directory is UTF-8");
    world.configure(&format!(
        "[servers.bank]\ncommand = {program:?}\nargs = [\"--ledger\", \"ledger.jsonl\", \"--no-sync\"]\n\
         [operators.ana]\ntoken = {TOKEN:?}\n[intake]\nheld_per_agent = 100000\n\
         [defaults]\nhold_wait = \"0s\"\n[[rule]]\nid = \"payments\"\neffect = \"ask\"\nserver = \"bank\"\n\
         tool = \"transfer\"\nidempotency = {{ key = \"transfer:{{/reference}}\" }}\n"
    ));
}

/// Makes the calls with these numbers; each is held.
fn fill(served: &Served, numbers: std::ops::Range<usize>) {
    let next = AtomicUsize::new(numbers.start);
    thread::scope(|scope| {
        for n in 0..AGENTS {
            let next = &next;
            let end = numbers.end;
            scope.spawn(move || {
                let mut agent = Agent::modern(served, &format!("agent-{n}"));
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end {
                        return;
                    }
                    let payment = json!({ "from": "alice", "to": "shop", "amount": 40, "reference": format!("INV-{number}") });
                    assert_eq!(agent.call("bank__transfer", payment).code(), "held");
                }
            });
        }
    });
}

/// MiB resident once the process does nothing any more.
fn at_rest(served: &Served) -> f64 {
    let mut before = Usage::of(served.pid()).cpu;
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(500));
        let now = Usage::of(served.pid()).cpu;
        if now == before {
            break;
        }
        before = now;
    }
    Usage::of(served.pid()).resident
}

/// Milliseconds of starts, sorted, each after a kill.
fn starts(world: &World) -> Vec<f64> {
    let mut times: Vec<f64> = (0..STARTS)
        .map(|_| {
            let (served, time) = stage::serve(world);
            at_rest(&served);
            served.kill();
            time.as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times
}

/// What an operator asked for, again and again.
struct Look {
    what: &'static str,
    /// Milliseconds until the head, sorted.
    first: Vec<f64>,
    /// Milliseconds until all of it, sorted.
    whole: Vec<f64>,
    bytes: usize,
}

/// What operators look at, the page first; and how many calls the page shows at once.
fn look(served: &Served) -> (Vec<Look>, usize) {
    let cookie = sign_in(served);
    let bearer = format!("Bearer {TOKEN}");
    let (page, api) = (("Cookie", cookie.as_str()), ("Authorization", bearer.as_str()));
    let asked = [
        ("GET /", "/", page),
        ("GET /?page=100", "/?page=100", page),
        ("GET /calls", "/calls", page),
        ("GET /overview", "/overview", page),
        ("GET /api/v1/pending", "/api/v1/pending", api),
        ("GET /api/v1/calls", "/api/v1/calls", api),
    ];
    let mut shown = 0;
    let looks = asked.map(|(what, path, header)| {
        let (mut first, mut whole, mut bytes) = (Vec::new(), Vec::new(), 0);
        for _ in 0..LOOKS {
            let begun = Instant::now();
            let mut connection = Connection::open(&served.inbox);
            connection.send("GET", path, &[header], b"");
            let mut head = connection.head();
            first.push(begun.elapsed().as_secs_f64() * 1e3);
            assert_eq!(head.status, 200, "{path}");
            let mut body = Vec::new();
            while let Some(part) = connection.part(&mut head) {
                body.extend(part);
            }
            whole.push(begun.elapsed().as_secs_f64() * 1e3);
            bytes = body.len();
            if path == "/" {
                // Each has a form to approve it, by its own address.
                shown = String::from_utf8_lossy(&body).matches("/approve\"").count();
            }
        }
        first.sort_by(f64::total_cmp);
        whole.sort_by(f64::total_cmp);
        Look { what, first, whole, bytes }
    });
    (looks.into(), shown)
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

/// The cookie of a session on the page.
fn sign_in(served: &Served) -> String {
    let form = served.ask_inbox("GET", "/login", &[], b"");
    let cookie = |response: &holdfast_tests::Response| {
        let set = response.head.header("set-cookie").unwrap_or_default();
        set.split(';').next().unwrap_or_default().to_owned()
    };
    let marker = "name=\"csrf\" value=\"";
    let (_, rest) = form.body.split_once(marker).expect("the form has a token");
    let csrf = rest.split('"').next().expect("the value ends");
    let before = cookie(&form);
    let origin = format!("http://{}", served.inbox);
    let headers = [
        ("Cookie", before.as_str()),
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Origin", origin.as_str()),
        ("Sec-Fetch-Site", "same-origin"),
    ];
    let body = format!("csrf={csrf}&token={TOKEN}");
    let signed = served.ask_inbox("POST", "/login", &headers, body.as_bytes());
    let after = cookie(&signed);
    [before, after].into_iter().filter(|pair| !pair.is_empty()).collect::<Vec<_>>().join("; ")
}
