//! A call as a person decides on it: who asks for what, in full, and the forms to answer with.

use holdfast_policy::{Approver, Gate};
use holdfast_store::{
    Accepted, Call, CallId, Entry, Journal, JournalError, Millis, Record, ShownKind, State, Summary,
};
use maud::{Markup, html};

use super::{
    forms, json,
    session::Session,
    text::{bytes, counted, shown, shown_lines, warning_badge},
};
use crate::{
    config::Role,
    inbox::{
        ids::short,
        view::{self, HoldDetail},
        visible::visible,
    },
    times::{ago, local, until},
};

/// More text than this is shown whole on the call's own page only, and decided on there.
const LARGE: usize = 16_000;

/// A call with all that is known about it.
pub(super) struct Known {
    pub(super) summary: Summary,
    /// None once its entries are pruned.
    pub(super) call: Option<Call>,
    pub(super) records: Vec<Record>,
    pub(super) hold: Option<HoldDetail>,
}

impl Known {
    /// Reads everything about a call.
    pub(super) fn read(journal: &dyn Journal, id: CallId) -> Result<Option<Self>, JournalError> {
        let Some(view::Detail { call: summary, records, hold, .. }) = view::detail(journal, id)? else {
            return Ok(None);
        };
        let call = Call::fold(&records)
            .map_err(|illegal| JournalError::Unreadable(format!("call {id}: {illegal}").into()))?;
        Ok(Some(Self { summary, call, records, hold }))
    }

    /// Its first fact.
    pub(super) fn accepted(&self) -> Option<&Accepted> {
        match self.records.first().map(|record| &record.entry) {
            Some(Entry::Accepted(accepted)) => Some(accepted),
            _ => None,
        }
    }

    /// What would be sent, as it stands now.
    pub(super) fn arguments(&self) -> Option<&str> {
        self.call.as_ref().map(|call| &**call.arguments())
    }

    /// What would be sent beside them.
    pub(super) fn extra(&self) -> Option<&str> {
        self.call.as_ref().and_then(|call| call.accepted.extra.as_deref())
    }

    /// The agent's own name for itself; empty where it gave none.
    pub(super) fn client(&self) -> &str {
        self.accepted().map(|accepted| accepted.caller.client.as_str()).unwrap_or_default()
    }

    pub(super) fn id(&self) -> CallId {
        self.summary.call
    }
}

/// How a state is called on the page, and by what class it is coloured.
pub(super) fn badge(state: State) -> Markup {
    let name = state.name();
    html! { span class={ "state s-" (name) } { (name) } }
}

/// `bank / transfer`
pub(super) fn tool_name(server: &str, tool: &str) -> Markup {
    html! { span.tool { span.server { (shown(server)) } " / " strong { (shown(tool)) } } }
}

/// A moment, as long ago; the script keeps it up to date.
pub(super) fn since(at: Millis, now: Millis) -> Markup {
    html! { time datetime=(iso(at)) title=(local(at)) data-since=(at.0) { (ago(at, now)) } }
}

/// A moment to come, as the time that is left.
pub(super) fn left(at: Millis, now: Millis) -> Markup {
    html! { time.left datetime=(iso(at)) title=(local(at)) data-until=(at.0) { (until(at, now)) } }
}

/// For machines.
pub(super) fn iso(at: Millis) -> String {
    let ms = i64::try_from(at.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// The head of a card: what, and who asks for it.
pub(super) fn heading(known: &Known, now: Millis) -> Markup {
    let call = &known.summary;
    html! {
        h3 { a.open href={ "/calls/" (call.call) } { (tool_name(&call.server, &call.tool)) } }
        (who_asks(known, now))
    }
}

/// Who asks, since when, and what is really going to be spoken to.
pub(super) fn who_asks(known: &Known, now: Millis) -> Markup {
    let call = &known.summary;
    let client = known.client();
    html! {
        p.meta {
            (shown(&call.principal))
            @if !client.is_empty() { " with " (shown(client)) }
            " · asked " (since(call.at, now))
            " · " a.id href={ "/calls/" (call.call) } { (short(call.call)) }
            @if let Some(call) = &known.call {
                " · " span.identity { (shown(call.identity())) }
            }
        }
    }
}

/// What a held call asks for: its warnings, its arguments and its preview.
pub(super) fn content(known: &Known) -> Markup {
    let Some(arguments) = known.arguments() else { return html! {} };
    let call = &known.summary;
    let preview = known.hold.as_ref().and_then(|hold| hold.preview.as_ref());
    let identity = known.call.as_ref().map_or("", |call| call.identity());
    let run = call.run.as_deref().unwrap_or_default();
    let texts = [arguments, &call.server, identity, &call.tool, &call.principal, known.client(), run];
    html! {
        (warning_badge(texts.into_iter().chain(known.extra()).chain(preview.map(|preview| &*preview.text))))
        @if let Some((by, _)) = known.call.as_ref().and_then(|call| call.edited.as_ref()) {
            p.note.edited { strong { (shown(&by.name)) } " has changed these arguments." }
        }
        div.content {
            div {
                @if preview.is_some() { h4 { "What is asked for" } }
                (json::block(arguments, "Arguments"))
                @if let Some(extra) = known.extra() {
                    h4 { "What is sent beside the arguments" }
                    (json::block(extra, "Sent beside the arguments"))
                }
            }
            @if let Some(hold) = &known.hold { (previews(hold)) }
        }
        @if let Some(call) = known.call.as_ref().filter(|call| call.edited.is_some()) {
            details data-key="agents" {
                summary { "What the agent had asked for, " (bytes(call.accepted.arguments.len())) }
                (json::block(&call.accepted.arguments, "What the agent had asked for"))
            }
        }
    }
}

/// What it would do, as the server says, and what it would have done before.
fn previews(hold: &HoldDetail) -> Markup {
    html! {
        @if let Some(preview) = &hold.preview {
            div.preview {
                @match preview.kind {
                    ShownKind::Preview => { h4 { "What it would do" } (json::block(result(&preview.text), "Preview")) }
                    ShownKind::Failed => {
                        h4.failed { "The preview failed" }
                        p { "You decide without knowing what it would do." }
                        div.code { (shown_lines(&reason(&preview.text))) }
                    }
                }
                @for (pointer, value) in &preview.drift {
                    p.drift {
                        "Still to be so when it is sent: " code { (shown(pointer)) } " = "
                        code { @match value { Some(value) => { (shown(value)) } None => { "nothing" } } }
                    }
                }
            }
        }
        @if let Some(earlier) = &hold.earlier {
            details data-key="earlier" {
                summary { "What it would have done by the revision before" }
                (json::block(&earlier.text, "Earlier preview"))
            }
        }
    }
}

/// Why there is no preview, out of the JSON string that keeps it.
pub(super) fn reason(text: &str) -> String {
    serde_json::from_str(text).unwrap_or_else(|_| text.to_owned())
}

/// The part of a tool's result that says it all, where there is one.
fn result(text: &str) -> &str {
    let structured = serde_json::from_str::<Structured<'_>>(text).ok().and_then(|result| result.content);
    structured.map_or(text, |content| content.get())
}

#[derive(serde::Deserialize)]
struct Structured<'a> {
    #[serde(borrow, rename = "structuredContent")]
    content: Option<&'a serde_json::value::RawValue>,
}

/// A card of the list of what waits.
pub(super) fn waiting(known: &Known, session: &Session, batch: Option<&str>, now: Millis) -> Markup {
    let Some(hold) = &known.hold else { return html! {} };
    let preview = hold.preview.as_ref().map_or(0, |preview| preview.text.len());
    let size = known.arguments().map_or(0, str::len) + known.extra().map_or(0, str::len) + preview;
    let id = known.id();
    let decides = session.role >= Role::Approver && size <= LARGE;
    html! {
        article.card data-key={ "card-" (id) } id={ "c-" (short(id)) } tabindex="-1" {
            header {
                @if let Some(batch) = batch.filter(|_| decides) {
                    label.pick {
                        input type="checkbox" name="pick" form=(batch) value={ (id) ":" (hold.digest) }
                            aria-label={ "Select " (visible(&known.summary.tool)) " " (short(id)) };
                    }
                }
                div.what { (heading(known, now)) }
                p.deadline { span.dim { "decide within " } (left(hold.approve_by, now)) }
            }
            @if size > LARGE {
                p.note {
                    (bytes(size)) " of arguments and preview: too much for this list, so nothing of it is shown here. "
                    a href={ "/calls/" (id) } { "Open the call to see all of it and decide." }
                }
            } @else {
                (content(known))
            }
            (standing(hold, session))
            @if decides { (forms::decide(known, hold, session, "/")) }
        }
    }
}

/// Who has approved, who must, and whether this operator can.
pub(super) fn standing(hold: &HoldDetail, session: &Session) -> Markup {
    let voted = hold.votes.iter().any(|vote| vote.by.name == session.by.name);
    html! {
        ul.gates {
            @for (place, gate) in (0..).zip(&hold.gates) {
                @let votes: Vec<_> = hold.votes.iter().filter(|vote| vote.gates.contains(&place)).collect();
                li {
                    "rule " strong { (shown(gate.rule.as_str())) }
                    @if gate.quorum > 1 || !votes.is_empty() {
                        ": " (votes.len()) " of " (counted(gate.quorum as usize, "approval"))
                    }
                    @if !gate.approvers.is_empty() { " by " (approvers(gate)) }
                    @for vote in votes { " · " span.vote { (shown(&vote.by.name)) " approved" } }
                }
            }
            @if hold.revision > 1 { li { "revision " (hold.revision) ": it has changed since it was first asked" } }
        }
        @if voted {
            p.note { "You have approved this. Others must, too." }
        } @else if session.role >= Role::Approver && !hold.gates.iter().any(|gate| names(gate, session)) {
            p.note { "You are not among those who can approve this." }
        }
    }
}

fn approvers(gate: &Gate) -> String {
    let all: Vec<String> = gate.approvers.iter().map(|approver| visible(&approver.to_string())).collect();
    all.join(" or ")
}

fn names(gate: &Gate, session: &Session) -> bool {
    gate.approvers.is_empty()
        || gate.approvers.iter().any(|approver| match approver {
            Approver::Group(group) => session.by.groups.contains(group),
            Approver::Operator(name) => *name == session.by.name,
        })
}
