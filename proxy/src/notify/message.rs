//! What is told: which entries of the journal are news for people, and the little that is said about them.
//!
//! Invariant: ids and names only. No arguments, previews, reasons or answers come out of here, so none can go further.

use holdfast_store::{Call, CallId, Disposition, Entry, Illegal, Millis, Record, State, Then};
use serde_json::{Map, Value, json};

use crate::{
    inbox::{ids::short, visible::visible},
    times::iso,
};

/// What somebody can be told about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topic {
    /// A call waits for approvers, or does so again.
    Held,
    /// An attempt may have executed, and nobody knows.
    InDoubt,
    /// A hold's deadline passed.
    Expired,
    /// Somebody approved past the gates.
    Glass,
}

/// Names longer than this are cut: servers choose the names of their tools.
const LONGEST_NAME: usize = 120;

/// An entry that may be news; the call's history decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) seq: u64,
    pub(super) call: CallId,
    pub(super) n: u32,
}

impl Notice {
    /// None for entries that are never news.
    pub(super) fn of(record: &Record) -> Option<Self> {
        let candidate = match &record.entry {
            Entry::Accepted(accepted) => {
                matches!(accepted.disposition, Disposition::Ask { .. }) && accepted.plan.preview.is_none()
            }
            Entry::Previewed { .. }
            | Entry::Superseded { .. }
            | Entry::Edited { .. }
            | Entry::Expired { .. } => true,
            // Where nobody has seen it yet, the preview comes first.
            Entry::Revoked { unseen, .. } => !unseen,
            Entry::Approved { glass, .. } => glass.is_some(),
            Entry::Lost { then, .. } | Entry::Unexecuted { then, .. } => *then == Then::Doubt,
            _ => false,
        };
        candidate.then_some(Self { seq: record.seq, call: record.call, n: record.n })
    }
}

/// One message to one or more people.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Message {
    /// The same however often it is sent, after a restart too: receivers can drop repeats.
    pub(super) id: String,
    /// When it happened.
    pub(super) at: Millis,
    /// What happened.
    pub(super) news: News,
    /// The page to open. Whoever does has to sign in.
    pub(super) url: String,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum News {
    /// Something with a call.
    Call(Topic, About),
    /// Nothing: somebody wants to know whether this works.
    Test,
}

/// What is said about a call.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct About {
    pub(super) call: CallId,
    pub(super) principal: String,
    pub(super) server: String,
    pub(super) tool: String,
    pub(super) state: State,
    /// By when somebody has to decide.
    pub(super) deadline: Option<Millis>,
}

/// The message that `notice` stands for, as of that entry; none where it is no news, or none any more: a question that
/// was answered, asked anew or withdrawn meanwhile.
///
/// # Errors
/// Where the history is not one.
pub(super) fn compose(
    notice: Notice,
    history: &[Record],
    inbox: &str,
) -> Result<Option<(Topic, Message)>, Illegal> {
    let Some((first, rest)) = history.split_first() else { return Ok(None) };
    let mut call = Call::begin(first.call, first.at, &first.entry)?;
    let mut found = (first.n == notice.n).then(|| (topic(None, &call, &first.entry), call.clone(), first.at));
    let mut latest = [None; 2];
    mark(&mut latest, topic(None, &call, &first.entry), first.n);
    for record in rest {
        let before = call.state;
        call.apply(record.at, &record.entry)?;
        let topic = topic(Some(before), &call, &record.entry);
        mark(&mut latest, topic, record.n);
        if record.n == notice.n {
            found = Some((topic, call.clone(), record.at));
        }
    }
    let Some((Some(topic), then, at)) = found else { return Ok(None) };
    let [held, in_doubt] = latest;
    let open = match topic {
        Topic::Held => call.state == State::Asking && held == Some(notice.n),
        Topic::InDoubt => call.state == State::InDoubt && in_doubt == Some(notice.n),
        Topic::Expired | Topic::Glass => true,
    };
    Ok(open.then(|| (topic, Message::about(topic, &then, at, notice.n, inbox))))
}

fn mark(latest: &mut [Option<u32>; 2], topic: Option<Topic>, n: u32) {
    match topic {
        Some(Topic::Held) => latest[0] = Some(n),
        Some(Topic::InDoubt) => latest[1] = Some(n),
        _ => {}
    }
}

/// What the latest entry of `call` is news of.
fn topic(before: Option<State>, call: &Call, entry: &Entry) -> Option<Topic> {
    let now_is = |state: State| call.state == state && before != Some(state);
    match entry {
        Entry::Expired { .. } => Some(Topic::Expired),
        Entry::Approved { glass: Some(_), .. } => Some(Topic::Glass),
        Entry::Superseded { .. } | Entry::Edited { .. } => Some(Topic::Held),
        _ if now_is(State::Asking) => Some(Topic::Held),
        _ if now_is(State::InDoubt) => Some(Topic::InDoubt),
        _ => None,
    }
}

impl Message {
    fn about(topic: Topic, call: &Call, at: Millis, n: u32, inbox: &str) -> Self {
        let accepted = &call.accepted;
        let deadline = call.hold.as_ref().filter(|_| topic == Topic::Held).map(|hold| hold.approve_by());
        Self {
            // Without a full stop: it separates id, time and body where they are signed.
            id: format!("hf_{}_{n}", call.id.0.simple()),
            at,
            url: format!("{inbox}/calls/{}", call.id),
            news: News::Call(
                topic,
                About {
                    call: call.id,
                    principal: name(&accepted.caller.principal),
                    server: name(&accepted.server),
                    tool: name(&accepted.tool),
                    state: call.state,
                    deadline,
                },
            ),
        }
    }

    /// A message that only says that messages arrive.
    pub(super) fn test(now: Millis, inbox: &str) -> Self {
        let id = format!("hf_test_{:016x}", rand::random::<u64>());
        Self { id, at: now, news: News::Test, url: format!("{inbox}/") }
    }

    /// A line in words that are all ours.
    pub(super) fn title(&self) -> &'static str {
        match &self.news {
            News::Call(Topic::Held, _) => "A call waits for approval",
            News::Call(Topic::InDoubt, _) => "A call is in doubt: did it happen?",
            News::Call(Topic::Expired, _) => "A held call has expired",
            News::Call(Topic::Glass, _) => "A call was approved past its gates (break-glass)",
            News::Test => "Holdfast can reach you",
        }
    }

    /// The type of the event, as programs know it.
    pub(super) fn kind(&self) -> &'static str {
        match &self.news {
            News::Call(Topic::Held, _) => "call.held",
            News::Call(Topic::InDoubt, _) => "call.in_doubt",
            News::Call(Topic::Expired, _) => "call.expired",
            News::Call(Topic::Glass, _) => "call.glass",
            News::Test => "holdfast.test",
        }
    }

    /// The rest in words, without the address; `quote` makes a name one that the receiver takes for nothing else.
    pub(super) fn text(&self, quote: impl Fn(&str) -> String) -> String {
        let News::Call(_, about) = &self.news else {
            return "This is a test: there is nothing to decide.".to_owned();
        };
        let mut text = format!(
            "Tool {} of server {}, called by {} (call {}).",
            quote(&about.tool),
            quote(&about.server),
            quote(&about.principal),
            short(about.call)
        );
        if let Some(deadline) = about.deadline {
            text.push_str(&format!(" To be decided by {}.", iso(Millis(deadline.0 / 1000 * 1000))));
        }
        text
    }

    /// The whole message for programs.
    pub(super) fn json(&self) -> String {
        let mut data = Map::new();
        if let News::Call(_, about) = &self.news {
            let mut put = |name: &str, value: Value| drop(data.insert(name.to_owned(), value));
            put("call", json!(about.call));
            put("short_id", short(about.call).into());
            put("server", about.server.clone().into());
            put("tool", about.tool.clone().into());
            put("principal", about.principal.clone().into());
            put("state", about.state.name().into());
            if let Some(deadline) = about.deadline {
                put("deadline", iso(deadline).into());
            }
        }
        data.insert("url".to_owned(), self.url.clone().into());
        json!({ "type": self.kind(), "timestamp": iso(self.at), "data": data }).to_string()
    }
}

/// A name with nothing hidden in it, and of a bearable length.
fn name(text: &str) -> String {
    let mut name = visible(text);
    if let Some((at, _)) = name.char_indices().nth(LONGEST_NAME) {
        name.truncate(at);
        name.push('…');
    }
    name
}
