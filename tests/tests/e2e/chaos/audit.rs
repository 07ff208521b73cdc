//! What the ledger and the journal say in the end, against what the agents were told.

use std::collections::HashMap;

use holdfast_tests::{Connection, World, eventually_some};
use serde_json::Value;

use super::{
    killer,
    payment::{Heard, Payment, Promise},
};

/// One call as the journal has it.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: String,
    pub(super) reference: String,
    /// `succeeded`, `in-doubt` and so on.
    pub(super) state: String,
    /// Dispatches, those excepted that are proven not to have been executed.
    pub(super) dispatches: usize,
    /// The call's answer: `content` and `structuredContent`.
    answer: Option<[Value; 2]>,
}

/// What is counted in the end.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) calls: usize,
    pub(super) dispatches: usize,
    pub(super) in_doubt: usize,
    /// Payments that the ledger has more than once.
    pub(super) doubled: Vec<String>,
    /// Answers that an agent heard and that the ledger or the journal contradicts.
    pub(super) lost: Vec<String>,
    /// Payments that are never to be sent twice, and may have been.
    pub(super) sent_twice: Vec<String>,
}

/// All calls, from the running `serve`.
pub(super) fn journal(world: &World) -> Vec<Call> {
    let [inbox, token] = eventually_some("serve is there", || killer::address(world));
    let mut connection = Connection::open(&inbox);
    let token = format!("Bearer {token}");
    let mut get = |path: &str| {
        connection.send("GET", &format!("/api/v1/{path}"), &[("Authorization", &token)], b"");
        let response = connection.response();
        assert_eq!(response.status(), 200, "{path}: {}", response.body);
        response.json()
    };
    let mut calls = Vec::new();
    let mut page = "calls?limit=1000".to_owned();
    loop {
        let listing = get(&page);
        for summary in listing["calls"].as_array().expect("a list") {
            let id = summary["call"].as_str().expect("a call has an id");
            calls.push(Call::read(&get(&format!("calls/{id}"))));
        }
        match listing["next"].as_str() {
            Some(next) => page = format!("calls?limit=1000&before={next}"),
            None => return calls,
        }
    }
}

impl Call {
    fn read(detail: &Value) -> Call {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let state = &detail["call"]["state"];
        let state = text(if state.is_object() { &state["done"] } else { state });
        let mut call = Call {
            id: text(&detail["call"]["call"]),
            reference: String::new(),
            state,
            dispatches: 0,
            answer: None,
        };
        for record in detail["records"].as_array().expect("a history") {
            let entry = &record["entry"];
            if let Some(accepted) = entry.get("accepted") {
                call.reference = text(&accepted["arguments"]["reference"]);
            }
            if entry.get("dispatched").is_some() {
                call.dispatches += 1;
            }
            if entry.get("unexecuted").is_some() {
                call.dispatches -= 1;
            }
            let answers = [&entry["answered"]["answer"], &entry["resolved"]["how"]["happened"]];
            for answer in answers.into_iter().filter(|answer| answer.is_object()) {
                let result = &answer["text"];
                let parts = [result["content"].clone(), result["structuredContent"].clone()];
                // The first durable answer is the call's answer.
                call.answer.get_or_insert(parts);
            }
        }
        call
    }
}

/// Compares everything that was heard with everything that is recorded.
pub(super) fn compare(world: &World, heard: &[(Payment, Heard)], journal: &[Call]) -> Found {
    let mut found = Found { calls: journal.len(), ..Found::default() };
    let mut made: HashMap<String, Vec<String>> = HashMap::new();
    for line in world.ledger() {
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        made.entry(text("reference")).or_default().push(text("id"));
    }
    found.doubled = made.iter().filter(|(_, ids)| ids.len() > 1).map(|line| format!("{line:?}")).collect();
    let mut dispatches: HashMap<&str, usize> = HashMap::new();
    for call in journal {
        found.dispatches += call.dispatches;
        found.in_doubt += usize::from(call.state == "in-doubt");
        *dispatches.entry(&call.reference).or_default() += call.dispatches;
    }
    let calls: HashMap<&str, &Call> = journal.iter().map(|call| (call.id.as_str(), call)).collect();
    let no_lines = Vec::new();
    for (payment, heard) in heard {
        let sent = dispatches.get(payment.reference.as_str()).copied().unwrap_or_default();
        if payment.promise != Promise::Keyed && sent > 1 {
            found.sent_twice.push(format!("{} ({sent} times)", payment.reference));
        }
        let lines = made.get(&payment.reference).unwrap_or(&no_lines);
        let kept = match heard {
            Heard::Paid { call, id, result } => {
                let call = calls.get(call.as_str());
                let same = call.is_some_and(|call| {
                    call.reference == payment.reference && call.answer.as_ref() == Some(result)
                });
                same && lines.contains(id)
            }
            Heard::Unknown { call } => {
                calls.get(call.as_str()).is_some_and(|call| call.reference == payment.reference)
            }
        };
        if !kept {
            let call = journal.iter().find(|call| call.reference == payment.reference);
            found.lost.push(format!("heard {heard:?}, the ledger has {lines:?}, the journal {call:?}"));
        }
    }
    found
}
