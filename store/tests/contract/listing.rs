//! Finding calls again: by filter, page by page, by state, and as the possible origin of a re-issue.

use holdfast_store::{CallId, Entry, Filter, Millis, Resolution, State, Then};

use crate::{facts::*, media::Medium};

const SERVERS: [&str; 2] = ["bank", "mail"];
const TOOLS: [&str; 3] = ["send", "refund", "send2"];
const RUNS: [Option<&str>; 3] = [None, Some("task"), Some("task-2")];
const CALLS: u32 = 72;

/// Calls that differ in server, tool, run and state, in all combinations.
fn populate(medium: &dyn Medium) {
    let pick = |n: u32, every: usize, of: usize| n as usize / every % of;
    for n in 0..CALLS {
        let mut accepted = accepted();
        accepted.server = SERVERS[pick(n, 1, 2)].into();
        accepted.tool = TOOLS[pick(n, 2, 3)].into();
        accepted.run = RUNS[pick(n, 6, 3)].map(str::to_owned);
        let mut entries: Vec<Entry> = vec![made(accepted)];
        match pick(n, 18, 4) {
            0 => {}
            1 => entries.push(dispatched(1)),
            2 => entries.extend([dispatched(1), lost(1, Then::Doubt)]),
            _ => entries.extend([dispatched(1), answered(1)]),
        }
        let rest = entries.split_off(1);
        let first = append(call(n), n.into(), 0, entries);
        medium.must(first);
        if !rest.is_empty() {
            medium.must(append(call(n), 1000 + u64::from(n), 1, rest));
        }
    }
}

fn calls(medium: &dyn Medium, filter: &Filter) -> Vec<CallId> {
    medium.journal().list(filter).expect("readable").into_iter().map(|line| line.call).collect()
}

pub(crate) fn filters_agree_with_looking_at_every_call(medium: &mut dyn Medium) {
    populate(medium);
    medium.restart();
    let journal = medium.journal();
    let all: Vec<_> =
        (0..CALLS).map(|n| journal.summary(call(n)).expect("readable").expect("it exists")).collect();
    let done = State::Done(holdfast_store::Outcome::Succeeded);
    let states = [
        vec![],
        vec![State::InDoubt],
        vec![State::Ready, State::InFlight, State::Ready],
        vec![done, State::Ready],
    ];
    let some = |values: &[&str]| {
        [None, Some("nothing".to_owned())]
            .into_iter()
            .chain(values.iter().map(|&v| Some(v.to_owned())))
            .collect::<Vec<_>>()
    };
    let mut filters = 0;
    for states in &states {
        for server in some(&SERVERS) {
            for tool in some(&TOOLS) {
                for run in some(&["task", "task-2"]) {
                    for (since, before) in [
                        (None, None),
                        (Some(20), None),
                        (None, Some(50)),
                        (Some(20), Some(50)),
                        (Some(50), Some(20)),
                    ] {
                        let filter = Filter {
                            states: states.clone(),
                            server: server.clone(),
                            tool: tool.clone(),
                            run: run.clone(),
                            since: since.map(|at| Millis(EPOCH + at)),
                            before: before.map(call),
                            limit: 10,
                        };
                        let is = |wanted: &Option<String>, value: &str| {
                            wanted.as_ref().is_none_or(|wanted| wanted == value)
                        };
                        let mut expected: Vec<_> = all
                            .iter()
                            .rev()
                            .filter(|line| states.is_empty() || states.contains(&line.state))
                            .filter(|line| is(&server, &line.server) && is(&tool, &line.tool))
                            .filter(|line| run.is_none() || line.run == run)
                            .filter(|line| since.is_none_or(|since| line.at >= Millis(EPOCH + since)))
                            .filter(|line| before.is_none_or(|before| line.call < call(before)))
                            .cloned()
                            .collect();
                        expected.truncate(10);
                        assert_eq!(journal.list(&filter).expect("readable"), expected, "{filter:?}");
                        filters += usize::from(!expected.is_empty());
                    }
                }
            }
        }
    }
    assert!(filters > 100, "only {filters} filters found anything");
}

pub(crate) fn pages_hold_every_call_once(medium: &mut dyn Medium) {
    populate(medium);
    let by_state = Filter { states: vec![State::Ready, State::InFlight], ..Filter::default() };
    let by_tool = Filter { tool: Some("send".into()), ..Filter::default() };
    for filter in [Filter::default(), by_state, by_tool] {
        let whole = calls(medium, &Filter { limit: usize::MAX, ..filter.clone() });
        let mut paged = Vec::new();
        loop {
            let page = calls(medium, &Filter { limit: 7, before: paged.last().copied(), ..filter.clone() });
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged, whole);
        assert!(whole.len() > 14 && whole.is_sorted_by(|a, b| a > b));
        assert_eq!(calls(medium, &filter), [], "a limit of 0 is a limit");
    }
}

pub(crate) fn unfinished_calls_come_oldest_first(medium: &mut dyn Medium) {
    for n in [5, 3, 4, 1, 2] {
        medium.must(fresh(n, vec![]));
    }
    medium.must(append(call(6), 6, 0, vec![made(asking())]));
    medium.must(append(call(7), 7, 0, vec![made(denied())]));
    medium.must(append(call(3), 10, 2, vec![answered(1)]));
    medium.must(append(call(1), 10, 2, vec![lost(1, Then::Doubt)]));
    medium.must(append(call(5), 10, 2, vec![lost(1, Then::Doubt), resolved(Resolution::GaveUp)]));
    let unfinished = |medium: &dyn Medium| medium.journal().unfinished().expect("readable");
    assert_eq!(unfinished(medium), [1, 2, 4, 6].map(call));
    medium.restart();
    assert_eq!(unfinished(medium), [1, 2, 4, 6].map(call));
    medium.must(append(call(6), 20, 1, vec![refused()]));
    assert_eq!(unfinished(medium), [1, 2, 4].map(call));
}

pub(crate) fn identical_calls_come_newest_first(medium: &mut dyn Medium) {
    for n in 1..=6 {
        let mut fresh = fresh(n, vec![]);
        fresh.claim.identical = Some(hash(if n % 2 == 0 { "even" } else { "odd" }));
        medium.must(fresh);
    }
    medium.must(fresh(7, vec![]));
    medium.restart();
    let found = |name, limit| {
        let lines = medium.journal().identical(hash(name), limit).expect("readable");
        lines.into_iter().map(|line| line.call).collect::<Vec<_>>()
    };
    assert_eq!(found("even", 10), [6, 4, 2].map(call));
    assert_eq!(found("odd", 2), [5, 3].map(call));
    assert_eq!(found("neither", 10), []);
    // Only a call's first append says what it is identical to.
    let mut later = append(call(7), 20, 2, vec![answered(1)]);
    later.claim.identical = Some(hash("even"));
    medium.must(later);
    let even = medium.journal().identical(hash("even"), 10).expect("readable");
    assert_eq!(even.len(), 3);
}

pub(crate) fn unknown_calls_have_nothing(medium: &mut dyn Medium) {
    medium.must(fresh(1, vec![]));
    let journal = medium.journal();
    assert_eq!(journal.history(call(2)).expect("readable"), []);
    assert_eq!(journal.summary(call(2)).expect("readable"), None);
}
