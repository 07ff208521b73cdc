//! The extension Tasks of 2026-07-28, the tasks of 2025-11-25, and the tools that make some.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value, json};

use crate::{
    message::{Failure, Outcome, failed, said},
    rounds::{self, Round, form},
    state::{Ask, Era, lock},
};

pub(crate) const EXTENSION: &str = "io.modelcontextprotocol/tasks";

/// All there ever were.
#[derive(Default)]
pub(crate) struct Tasks(Mutex<HashMap<String, Arc<Mutex<Task>>>>);

struct Task {
    id: String,
    created: String,
    updated: String,
    state: State,
}

enum State {
    Working,
    /// What is still asked, and what was answered.
    Asking(Map<String, Value>, Map<String, Value>),
    Completed(Value),
    Failed(Value),
    Cancelled,
}

/// A tool that makes a task; none for other tools.
pub(crate) fn call(ask: &Ask, tool: &str) -> Option<Outcome> {
    let is_required = match tool {
        "slow_compute" => false,
        "failing_job" | "protocol_error_job" | "confirm_delete" | "multi_input" | "test_tool_with_task" => {
            true
        }
        _ => return None,
    };
    if ask.era == Era::Legacy && tool == "slow_compute" && ask.params.value["task"].is_object() {
        let task = begin(ask, tool, Value::Null);
        return Some(Ok(json!({ "task": of_2025(&task) }).into()));
    }
    let capable = ask.era == Era::Modern && ask.capabilities()["extensions"][EXTENSION].is_object();
    if !capable {
        return Some(if is_required && ask.era == Era::Modern {
            Err(Failure::needs(json!({ "extensions": { (EXTENSION): {} } })))
        } else {
            Ok(compute(ask).into())
        });
    }
    let name = match tool {
        "test_tool_with_task" => {
            let question = form("What is your name?", &json!({ "name": { "type": "string" } }), &["name"]);
            match rounds::ask(ask, &json!({ "user_name": question }), Some(json!({ "asked": "name" }))) {
                Ok(Round::Answers(answers)) => answers["user_name"]["content"]["name"].clone(),
                Ok(Round::Again(result)) => return Some(Ok(result.into())),
                Err(failure) => return Some(Err(failure)),
            }
        }
        _ => Value::Null,
    };
    Some(Ok(begin(ask, tool, name).into()))
}

/// The tool without a task.
fn compute(ask: &Ask) -> Value {
    let seconds = ask.argument("seconds").as_f64().unwrap_or(0.0);
    if ask.pause(Duration::from_secs_f64(seconds).as_millis().try_into().unwrap_or(0)) {
        return failed("cancelled");
    }
    said(format!("computed for {seconds} s"))
}

fn begin(ask: &Ask, tool: &str, name: Value) -> Value {
    let id = format!("task-{}-{}", std::process::id(), ask.everything.number());
    let state = match tool {
        "confirm_delete" => {
            let question = form("Delete it?", &json!({ "confirm": { "type": "boolean" } }), &["confirm"]);
            State::Asking(Map::from_iter([("confirm".to_owned(), question)]), Map::new())
        }
        "multi_input" => {
            let question = |what: &str| form(what, &json!({ "name": { "type": "string" } }), &["name"]);
            let questions =
                [("one".to_owned(), question("The first?")), ("two".to_owned(), question("The second?"))];
            State::Asking(Map::from_iter(questions), Map::new())
        }
        _ => State::Working,
    };
    let task = Arc::new(Mutex::new(Task { id: id.clone(), created: now(), updated: now(), state }));
    lock(&ask.everything.tasks.0).insert(id, task.clone());
    let (ms, end) = match tool {
        "slow_compute" => {
            let seconds = ask.argument("seconds").as_f64().unwrap_or(0.0);
            (seconds * 1_000.0, State::Completed(said(format!("computed for {seconds} s"))))
        }
        "failing_job" => (500.0, State::Completed(failed("the job failed"))),
        "protocol_error_job" => {
            (100.0, State::Failed(json!({ "code": -32603, "message": "the job broke the protocol" })))
        }
        "test_tool_with_task" => (100.0, State::Completed(said(format!("Hello, {name}!")))),
        _ => return created(&task),
    };
    let worked = task.clone();
    thread::spawn(move || {
        thread::sleep(Duration::from_secs_f64(ms / 1_000.0));
        let mut task = lock(&worked);
        if matches!(task.state, State::Working) {
            task.become_(end);
        }
    });
    created(&task)
}

fn created(task: &Mutex<Task>) -> Value {
    let mut result = lock(task).base();
    result["resultType"] = "task".into();
    result
}

/// `tasks/get`, `tasks/update`, `tasks/cancel`.
pub(crate) fn method(ask: &Ask) -> Outcome {
    if !ask.capabilities()["extensions"][EXTENSION].is_object() {
        return Err(Failure::needs(json!({ "extensions": { (EXTENSION): {} } })));
    }
    let id = ask.params.value["taskId"].as_str().unwrap_or_default();
    let task = lock(&ask.everything.tasks.0).get(id).cloned();
    let task = task.ok_or_else(|| Failure::params("no such task"))?;
    let mut task = lock(&task);
    match ask.method.as_str() {
        "tasks/get" => return Ok(task.detailed().into()),
        "tasks/update" => task.update(&ask.params.value["inputResponses"]),
        _ => {
            ask.everything.saw(json!({ "task cancelled": id }));
            if matches!(task.state, State::Working | State::Asking(..)) {
                task.become_(State::Cancelled);
            }
        }
    }
    Ok(json!({}).into())
}

/// `tasks/get`, `tasks/result` and `tasks/cancel` of 2025-11-25.
pub(crate) fn method_of_2025(ask: &Ask) -> Outcome {
    let id = ask.params.value["taskId"].as_str().unwrap_or_default();
    let task = lock(&ask.everything.tasks.0).get(id).cloned();
    let task = task.ok_or_else(|| Failure::params("no such task"))?;
    if ask.method == "tasks/result" {
        loop {
            match &lock(&task).state {
                State::Working => {}
                State::Completed(result) => {
                    let mut result = result.clone();
                    result["_meta"] = json!({ "io.modelcontextprotocol/related-task": { "taskId": id } });
                    return Ok(result.into());
                }
                _ => return Err(Failure::params("there is no result")),
            }
            ask.pause(20);
        }
    }
    let mut task = lock(&task);
    if ask.method == "tasks/cancel" && matches!(task.state, State::Working) {
        task.become_(State::Cancelled);
    }
    Ok(of_2025(&task.base()).into())
}

/// The same task, as 2025-11-25 writes it.
fn of_2025(task: &Value) -> Value {
    let mut task = task.clone();
    if let Some(members) = task.as_object_mut() {
        members.remove("resultType");
        for (name, before) in [("ttl", "ttlMs"), ("pollInterval", "pollIntervalMs")] {
            let value = members.remove(before);
            members.extend(value.map(|value| (name.to_owned(), value)));
        }
    }
    task
}

impl Task {
    fn become_(&mut self, state: State) {
        self.state = state;
        self.updated = now();
    }

    fn update(&mut self, answers: &Value) {
        let State::Asking(open, given) = &mut self.state else { return };
        for (name, answer) in answers.as_object().into_iter().flatten() {
            if open.remove(name).is_some() {
                given.insert(name.clone(), answer.clone());
            }
        }
        if open.is_empty() {
            let given = Value::Object(given.clone());
            self.become_(State::Completed(said(given.to_string())));
        }
    }

    fn base(&self) -> Value {
        let status = match &self.state {
            State::Working => "working",
            State::Asking(..) => "input_required",
            State::Completed(_) => "completed",
            State::Failed(_) => "failed",
            State::Cancelled => "cancelled",
        };
        json!({
            "taskId": self.id,
            "status": status,
            "createdAt": self.created,
            "lastUpdatedAt": self.updated,
            "ttlMs": 600_000,
            "pollIntervalMs": 100,
        })
    }

    fn detailed(&self) -> Value {
        let mut task = self.base();
        match &self.state {
            State::Asking(open, _) => task["inputRequests"] = open.clone().into(),
            State::Completed(result) => {
                task["result"] = result.clone();
                task["result"]["resultType"] = "complete".into();
            }
            State::Failed(error) => task["error"] = error.clone(),
            State::Working | State::Cancelled => {}
        }
        task
    }
}

/// The time as RFC 3339 wants it (days to civil dates: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
    let (days, second) = (since / 86_400, since % 86_400);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}
