//! Standard input and output: one client, requests at the same time.

use std::{io::BufRead, sync::Arc, thread};

use serde_json::json;

use crate::{
    Offered, dispatch,
    eras::{self, says_modern},
    message::{Answer, Failure, Message, result},
    state::{Ask, Era, Everything, Session, lock},
    stream::{Line, Stdout},
};

pub(crate) fn serve(everything: &Arc<Everything>) {
    let out: Arc<dyn Line> = Arc::new(Stdout);
    let mut session = Session::none();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        everything.write("seen.jsonl", &line);
        let Some(message) = Message::parse(&line) else { continue };
        let (Some(id), Some(method)) = (message.id.clone(), message.method.clone()) else {
            session_message(everything, &session, &message);
            continue;
        };
        let offered = everything.options.offered;
        let modern = says_modern(&message.params.value) || method == "server/discover";
        let era = if modern && offered != Offered::Legacy || offered == Offered::Modern {
            Era::Modern
        } else {
            Era::Legacy
        };
        if era == Era::Legacy && method == "initialize" {
            session = everything.begin(message.params.value.clone(), Some(out.clone()));
            out.send(&result(&id, &dispatch::initialized(&session, everything.options.offered).to_string()));
            continue;
        }
        if era == Era::Modern
            && let Err(failure) = eras::check(None, &method, &message.params.value)
        {
            out.send(&failure.text(&id));
            continue;
        }
        let ask = Ask {
            everything: everything.clone(),
            session: session.clone(),
            era,
            id,
            method,
            params: message.params,
            line: out.clone(),
            cancelled: Arc::default(),
        };
        lock(&session.running).insert(ask.id.clone(), ask.cancelled.clone());
        thread::spawn(move || work(&ask));
    }
}

fn work(ask: &Ask) {
    let (_, message) = dispatch::run(ask);
    lock(&ask.session.running).remove(&ask.id);
    // MCP: whoever cancelled wants no answer.
    if let Some(message) = message.filter(|_| !ask.is_cancelled()) {
        ask.line.send(&message);
    }
}

/// A notification or an answer.
pub(crate) fn session_message(everything: &Everything, session: &Session, message: &Message) {
    let params = &message.params;
    match (&message.method, &message.id, &message.answer) {
        (None, Some(id), Some(answer)) => session.answered(id, answer.clone()),
        (Some(method), ..) if method == "notifications/cancelled" => {
            session.cancel(&params.member("requestId").unwrap_or_default());
        }
        (Some(method), ..) if method != "notifications/initialized" => {
            everything.saw(json!({ "notification": method, "params": params.value }));
        }
        _ => {}
    }
}

/// The text of an outcome; none where there is to be no answer.
pub(crate) fn text(id: &str, outcome: Result<Answer, Failure>) -> (u16, Option<String>) {
    match outcome {
        Ok(Answer::Plain(value)) => (200, Some(result(id, &value.to_string()))),
        Ok(Answer::Word(text)) => (200, Some(result(id, &text))),
        Ok(Answer::Silence) => (200, None),
        Err(failure) => (failure.status, Some(failure.text(id))),
    }
}
