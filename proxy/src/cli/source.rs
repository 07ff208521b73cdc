//! Where commands get their answers: the running `serve`, or, to read only, the journal's file itself.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use holdfast_policy::Problem;
use holdfast_store::{CallId, Filter, Journal, JournalError, Options, Redb};
use serde_json::Value;

use super::{Failure, Global, client::Client};
use crate::{
    address::{self, Address, Presence},
    answers::Answers,
    config::{self, Place},
    inbox::{
        api::{no_call_words, verdict},
        ids,
        view::{self, Detail, Listing, Pending},
    },
    report::Report,
};

/// The variable that holds an operator's token for commands.
pub(crate) const TOKEN_VARIABLE: &str = "HOLDFAST_OPERATOR_TOKEN";

/// How often a followed journal is looked at.
pub(super) const FOLLOW_PERIOD: Duration = Duration::from_millis(500);

/// Of what waits, so much is asked for at once.
const PAGE: usize = 200;

/// Where to read.
pub(super) enum Source {
    /// From the running `serve`.
    Serve(Client),
    /// From the file that nobody serves.
    File(Arc<dyn Journal>, Place),
}

impl Source {
    /// The running `serve`, else the file.
    ///
    /// # Errors
    /// Where there is neither, or no right to it.
    pub(super) fn open(global: &Global) -> Result<Self, Failure> {
        let store = store_of(global)?;
        match presence(&store)? {
            Presence::Running(address) => Ok(Self::Serve(client(&address)?)),
            Presence::Starting => Err(starting().into()),
            Presence::Absent => Ok(Self::File(open(&store)?, Place::Redb(store))),
        }
    }

    /// # Errors
    /// Where there is only a file, which does not grow.
    pub(super) fn serving(&self) -> Result<(), Failure> {
        match self {
            Self::Serve(_) => Ok(()),
            Self::File(..) => Err(Report::new("not-running", "a journal that nobody serves does not grow")
                .hint("Start `holdfast serve`, or leave --follow out.")
                .into()),
        }
    }

    /// One page of calls.
    pub(super) fn calls(&self, filter: &Filter) -> Result<Listing, Failure> {
        match self {
            Self::Serve(client) => Ok(client.get(&calls_path(filter))?),
            Self::File(journal, _) => Ok(view::listing(&**journal, filter).map_err(unreadable)?),
        }
    }

    /// Everything about the call that `id` names.
    pub(super) fn call(&self, id: &str) -> Result<Detail, Failure> {
        match self {
            Self::Serve(client) => Ok(client.get(&format!("calls/{}", segment(id)))?),
            Self::File(journal, _) => {
                let call = ids::find(&**journal, id).map_err(|missing| no_call_words(id, &missing).1)?;
                let detail = view::detail(&**journal, call).map_err(unreadable)?;
                Ok(detail.ok_or_else(|| Report::not_found(id))?)
            }
        }
    }

    /// What waits for a person: at most so much, oldest first.
    pub(super) fn pending(&self, limit: usize) -> Result<Pending, Failure> {
        let mut all = Pending { pending: Vec::new(), next: None };
        loop {
            let want = (limit - all.pending.len()).min(PAGE);
            let page: Pending = match self {
                Self::Serve(client) => client.get(&pending_path(all.next, want))?,
                Self::File(journal, _) => view::pending(&**journal, all.next, want).map_err(unreadable)?,
            };
            all.pending.extend(page.pending);
            all.next = page.next;
            if all.next.is_none() || all.pending.len() >= limit {
                return Ok(all);
            }
        }
    }

    /// What checking the chain found.
    pub(super) fn verify(&self) -> Result<Value, Failure> {
        match self {
            Self::Serve(client) => Ok(client.get("verify")?),
            Self::File(journal, place) => {
                let answers = Answers::new(journal.clone(), place);
                Ok(verdict(answers.verify()).map_err(unreadable)?.json())
            }
        }
    }
}

/// The running `serve`, to decide by.
///
/// # Errors
/// Where none runs, or no token is known.
pub(super) fn serve(global: &Global) -> Result<Client, Failure> {
    let store = store_of(global)?;
    match presence(&store)? {
        Presence::Running(address) => client(&address),
        Presence::Starting => Err(starting().into()),
        Presence::Absent => Err(Report::not_running(&store.display().to_string()).into()),
    }
}

fn store_of(global: &Global) -> Result<PathBuf, Failure> {
    let (_, store) = config::locate(global.config.as_deref())?;
    match store.place {
        Place::Redb(path) => Ok(path),
        // Refused when it was read.
        Place::Postgres(_) => Err(Failure::Problems(Vec::<Problem>::new())),
    }
}

fn presence(store: &Path) -> Result<Presence, Report> {
    address::look(store).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => "Run the command as the account that runs `holdfast serve`.",
            _ => "Check the directory of the journal.",
        };
        let message = format!("the address file beside {} cannot be read: {error}", store.display());
        Report::new("not-running", message).hint(hint)
    })
}

fn client(address: &Address) -> Result<Client, Failure> {
    let given = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
    let token = given.or_else(|| address.operator_token.clone()).ok_or_else(|| {
        Report::unauthorized(&format!(
            "Operators are configured: set {TOKEN_VARIABLE} to the token of one of them."
        ))
    })?;
    Ok(Client::new(&address.inbox, token)?)
}

fn starting() -> Report {
    Report::new("not-running", "`holdfast serve` is starting and does not listen yet")
        .hint("Try again in a moment.")
}

fn open(store: &Path) -> Result<Arc<dyn Journal>, Report> {
    if !store.exists() {
        let message = format!("there is no journal at {} yet", store.display());
        return Err(Report::new("not-running", message)
            .hint("`holdfast serve` makes it; check -c if it should be there."));
    }
    let journal = Redb::open(store, Options::default()).map_err(unreadable)?;
    Ok(Arc::new(journal))
}

fn unreadable(error: JournalError) -> Report {
    let hint = match &error {
        JournalError::Locked { .. } => "Another process reads or serves it at this moment: try again.",
        JournalError::Io(_) => "Check the file's permissions and the disk.",
        JournalError::Unreadable(_) => "It may be damaged, or of a newer version of holdfast.",
    };
    Report::new("journal-unavailable", error.to_string()).hint(hint)
}

fn pending_path(after: Option<CallId>, limit: usize) -> String {
    let after = after.map(|after| format!("&after={after}")).unwrap_or_default();
    format!("pending?limit={limit}{after}")
}

fn calls_path(filter: &Filter) -> String {
    let mut query = vec![format!("limit={}", filter.limit)];
    let mut push = |name: &str, value: Option<String>| {
        query.extend(value.map(|value| format!("{name}={}", segment(&value))));
    };
    let states: Vec<&str> = filter.states.iter().map(|state| state.name()).collect();
    push("state", (!states.is_empty()).then(|| states.join(",")));
    push("server", filter.server.clone());
    push("tool", filter.tool.clone());
    push("run", filter.run.clone());
    push("since", filter.since.map(|since| since.0.to_string()));
    push("before", filter.before.map(|call| call.to_string()));
    format!("calls?{}", query.join("&"))
}

/// Percent-encodes everything that has a meaning in a path or query.
pub(super) fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte as char),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use holdfast_store::{Millis, State};

    use super::*;

    #[test]
    fn filters_survive_the_way() {
        let filter = Filter {
            states: vec![State::Asking, State::InDoubt],
            tool: Some("a&b=c d/ä".to_owned()),
            since: Some(Millis(5)),
            limit: 7,
            ..Filter::default()
        };
        assert_eq!(
            calls_path(&filter),
            "calls?limit=7&state=asking%2Cin-doubt&tool=a%26b%3Dc%20d%2F%C3%A4&since=5"
        );
    }
}
