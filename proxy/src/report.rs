//! Every error's words, once for the agent and once for the operator: what happened, to what, what now.
//!
//! Codes are stable: agents and scripts branch on them. Each has a page in `proxy/errors`.

use std::fmt;

use holdfast_store::{CallId, Digest};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

/// An error or a refusal in words.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Report {
    /// A stable kebab-case code that has a page.
    pub(crate) code: &'static str,
    /// What happened, and to what: one sentence.
    pub(crate) message: Box<str>,
    /// What to do now.
    pub(crate) hint: Option<Box<str>>,
    /// Further facts for programs.
    pub(crate) details: Option<Value>,
}

impl Report {
    /// Words for `code`, which must have a page.
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        debug_assert!(page(code).is_some(), "the code {code} has no page");
        Self { code, message: message.into().into(), hint: None, details: None }
    }

    /// What to do now.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into().into());
        self
    }

    /// Further facts for programs.
    #[must_use]
    pub(crate) fn details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    /// The text that an agent reads: code and message, then the hint on a line of its own.
    pub(crate) fn agent_text(&self) -> String {
        let mut text = format!("{}: {}", self.code, self.message);
        if let Some(hint) = &self.hint {
            text.push('\n');
            text.push_str(hint);
        }
        text
    }

    /// The same as an object: `code`, `message`, and `hint` and `details` where there are any.
    pub(crate) fn json(&self) -> Value {
        let problem = Problem {
            code: self.code,
            message: &self.message,
            hint: self.hint.as_deref(),
            details: self.details.as_ref(),
        };
        serde_json::to_value(problem).expect("our own shapes always serialise")
    }
}

/// A report for programs.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Problem<'a> {
    /// Stable: this is what to branch on. `holdfast explain-error CODE` has a page about it.
    code: &'a str,
    /// What happened, and to what.
    message: &'a str,
    /// What to do now.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    /// Further facts.
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a Value>,
}

/// The words for an operator at a terminal.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        let lines = self.hint.iter().flat_map(|hint| hint.lines()).enumerate();
        for (n, line) in lines {
            write!(f, "\n  {}{line}", if n == 0 { "hint: " } else { "      " })?;
        }
        write!(f, "\n  more: holdfast explain-error {}", self.code)
    }
}

/// What a tool is called in messages: its server and its own name there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    /// The server's name in the configuration.
    pub(crate) server: &'a str,
    /// The tool's name at that server.
    pub(crate) tool: &'a str,
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` of server `{}`", self.tool, self.server)
    }
}

/// Outcomes of a call.
impl Report {
    /// The call may have executed and nobody knows; `why` is a sentence without a full stop.
    pub(crate) fn outcome_unknown(call: CallId, target: Target<'_>, why: &str) -> Self {
        Self::new(
            "outcome-unknown",
            format!("it is not known whether {target} was executed ({why}); this is call {call}"),
        )
        .hint(
            "Do not repeat it, in any form: it may have happened. Ask `holdfast_call_status` with the call id later, \
             or tell the user that an operator has to settle it in the inbox.",
        )
        .details(json!({ "call": call }))
    }

    /// An operator gave up on finding out; terminal.
    pub(crate) fn given_up(call: CallId, target: Target<'_>, by: &str) -> Self {
        Self::new(
            "given-up",
            format!("whether {target} was executed will stay unknown: {by} gave up on call {call}"),
        )
        .hint(
            "Do not repeat it. Tell the user that the effect has to be checked by hand; its keys are never usable again.",
        )
        .details(json!({ "call": call }))
    }

    /// A rule of the policy says no.
    pub(crate) fn denied(target: Target<'_>, rule: &str) -> Self {
        Self::new("denied", format!("{target} is not allowed by the policy (rule `{rule}`); nothing was sent"))
            .hint("Repeating it will not help. Reach the goal in another way, or tell the user that the rule forbids it.")
            .details(json!({ "rule": rule }))
    }

    /// A person, or a stricter policy at the moment of applying, said no.
    pub(crate) fn refused(call: CallId, target: Target<'_>, by: &str, reason: &str) -> Self {
        Self::new("refused", format!("{by} refused {target}: {reason}; nothing was sent (call {call})"))
            .hint("This is a decision, not a fault: do not repeat the call. Take the reason into account.")
            .details(json!({ "call": call, "by": by, "reason": reason }))
    }

    /// A deadline of a hold passed; this is not a refusal.
    pub(crate) fn expired(call: CallId, target: Target<'_>, clock: &str) -> Self {
        Self::new("expired", format!("the time to {clock} {target} ran out; nothing was sent (call {call})"))
            .hint("Nobody refused it. Calling the tool again asks for a new approval.")
            .details(json!({ "call": call }))
    }

    /// Withdrawn before anything was sent.
    pub(crate) fn cancelled(call: CallId, target: Target<'_>, by: &str) -> Self {
        Self::new(
            "cancelled",
            format!("{target} was cancelled by {by} before anything was sent (call {call})"),
        )
        .hint("It did not happen. Calling the tool again is a new call.")
        .details(json!({ "call": call }))
    }

    /// The call waits for a person.
    pub(crate) fn held(call: CallId, target: Target<'_>, approve_by: Option<&str>) -> Self {
        let until = approve_by.map(|time| format!(" for at most {time}")).unwrap_or_default();
        Self::new("held", format!("{target} waits for a person's approval{until}; this is call {call}"))
            .hint(
                "Nothing was sent yet. Tell the user, then collect the result with `holdfast_wait` and this call id; \
                 repeating the identical call joins the same wait and asks nobody twice.",
            )
            .details(json!({ "call": call }))
    }

    /// The call runs and its caller asked for a handle.
    pub(crate) fn running(call: CallId, target: Target<'_>) -> Self {
        Self::new("running", format!("{target} is still running; this is call {call}"))
            .hint("Collect the result with `holdfast_wait` and this call id. Do not call the tool again meanwhile.")
            .details(json!({ "call": call }))
    }

    /// No attempt is left; `tried` says what each of them met.
    pub(crate) fn attempts_exhausted(target: Target<'_>, attempts: u32, last: &str) -> Self {
        Self::new("attempts-exhausted", format!("{target} did not succeed in {attempts} attempts; the last one: {last}"))
            .hint("None of them was executed. Holdfast has retried already: wait before calling again, or tell the user.")
            .details(json!({ "attempts": attempts }))
    }
}

/// Idempotency keys.
impl Report {
    /// The key belongs to a call with other arguments.
    pub(crate) fn key_reused(call: CallId, source: &str) -> Self {
        Self::new("key-reused", format!("this {source} key was used before, for call {call}, with other arguments; nothing was sent"))
            .hint("Use a new key for a new intention, or send exactly the arguments of the first call to get its answer.")
            .details(json!({ "call": call, "source": source }))
    }

    /// The rule demands a key; `missing` says which part is not there.
    pub(crate) fn key_required(target: Target<'_>, missing: &str) -> Self {
        Self::new("key-required", format!("{target} needs an idempotency key: {missing}; nothing was sent"))
            .hint("Set `_meta[\"io.holdfast/idempotency-key\"]` (or the `Idempotency-Key` header) to a name of this one intention, and give every argument that the key is made of.")
    }

    /// The call was done long ago: its answer is pruned, its key is not.
    pub(crate) fn key_expired(call: CallId, source: &str) -> Self {
        Self::new(
            "key-expired",
            format!(
                "this {source} key belongs to call {call}, whose answer is no longer kept; nothing was sent"
            ),
        )
        .hint("It was executed or settled long ago: do not repeat it. For a new intention use a new key.")
        .details(json!({ "call": call, "source": source }))
    }

    /// An identical call is under way and `on_join = "reject"`.
    pub(crate) fn key_in_flight(call: CallId, target: Target<'_>) -> Self {
        Self::new("key-in-flight", format!("the same call of {target} is under way as call {call}; it was not joined (on_join = \"reject\")"))
            .hint("Do not start it under another key. Collect its result with `holdfast_wait` and this call id.")
            .details(json!({ "call": call }))
    }
}

/// Limits and time.
impl Report {
    /// Too many calls wait for this tool or server.
    pub(crate) fn queue_full(target: Target<'_>, limit: u32) -> Self {
        Self::new("queue-full", format!("{limit} calls of {target} wait already; this one was not sent"))
            .hint("It did not happen. Wait a little, then call again.")
            .details(json!({ "limit": limit }))
    }

    /// No slot came free in time.
    pub(crate) fn queue_timeout(target: Target<'_>, waited: &str) -> Self {
        Self::new("queue-timeout", format!("{target} waited {waited} for a free slot and was not sent"))
            .hint("It did not happen. The server is busy: wait before calling again.")
    }

    /// The whole time is used up without an attempt that may have executed.
    pub(crate) fn call_timeout(target: Target<'_>, limit: &str, last: &str) -> Self {
        Self::new(
            "call-timeout",
            format!("{target} was not executed within {limit}; the last attempt: {last}"),
        )
        .hint("It did not happen. Call again later, or tell the user that the server does not answer.")
    }

    /// One principal has too many calls waiting for people.
    pub(crate) fn too_many_held(principal: &str, limit: u32, oldest: &[CallId]) -> Self {
        Self::new("queue-full", format!("{limit} calls of `{principal}` wait for approval already; this one was not accepted"))
            .hint("It did not happen, and nobody is asked. Collect the earlier ones first (holdfast_wait with the ids in `details.held`), or tell the user that they wait for approval; `intake.held_per_agent` is the limit.")
            .details(json!({ "limit": limit, "held": oldest }))
    }
}

/// The upstream.
impl Report {
    /// An `upstream-*` code with the words of whoever found out; nothing was executed.
    pub(crate) fn upstream(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(code, message).hint(match code {
            "upstream-spawn-failed" => "Nothing was sent. The operator finds the reason with `holdfast check` and in the log of `holdfast serve`.",
            "upstream-unauthorized" => "Nothing was executed. The operator must give Holdfast valid credentials for this server (`headers` or `env`), or sign in to it (`holdfast login SERVER`).",
            _ => "Nothing was executed. Try again later, or tell the user that this server is not available.",
        })
    }

    /// No such server is configured.
    pub(crate) fn unknown_server(server: &str, known: &[&str]) -> Self {
        Self::new("unknown-server", format!("there is no server `{server}`; known: {}", list(known)))
            .hint("Tool names are `server__tool`, as `tools/list` gives them.")
    }

    /// The server has no such tool.
    pub(crate) fn unknown_tool(target: Target<'_>, known: &[&str]) -> Self {
        Self::new(
            "unknown-tool",
            format!("server `{}` has no tool `{}`; known: {}", target.server, target.tool, list(known)),
        )
        .hint("Take the exact name from `tools/list`.")
    }

    /// The tool's definition cannot be recorded, so that nobody could tell when it changes.
    pub(crate) fn tool_unrecordable(target: Target<'_>) -> Self {
        Self::new(
            "tool-quarantined",
            format!(
                "the definition of {target} cannot be recorded: it is larger than 256 KiB, or its server has more than \
                 2000 tools; nothing was sent"
            ),
        )
        .hint("Tell the user that the server has to offer less: nobody could tell when such a tool changes.")
        .details(json!({ "server": target.server, "tool": target.tool }))
    }

    /// The tool is not what it was when it was trusted.
    pub(crate) fn tool_quarantined(target: Target<'_>) -> Self {
        Self::new(
            "tool-quarantined",
            format!("the definition of {target} has changed since it was trusted; nothing was sent"),
        )
        .hint(
            "Tell the user that an operator has to look at the change and accept it (`holdfast tools`, or Servers in \
             the inbox). Until then the tool cannot be called.",
        )
        .details(json!({ "server": target.server, "tool": target.tool }))
    }
}

/// The request itself.
impl Report {
    /// The arguments are not what the tool or the policy needs.
    pub(crate) fn invalid_arguments(target: Target<'_>, what: &str) -> Self {
        Self::new(
            "invalid-arguments",
            format!("the arguments of {target} cannot be used: {what}; nothing was sent"),
        )
        .hint("Correct the arguments after the tool's schema and call again.")
    }
}

/// Holdfast itself, and decisions.
impl Report {
    /// The journal cannot be written, so nothing is sent.
    pub(crate) fn journal_unavailable(why: &str) -> Self {
        Self::new("journal-unavailable", format!("the journal cannot be used ({why}); nothing was sent"))
            .hint("What cannot be recorded is not executed. The operator must mend the disk and start Holdfast again.")
    }

    /// The decision names another digest than the one that is asked now.
    pub(crate) fn stale_digest(call: CallId, current: Option<Digest>) -> Self {
        Self::new(
            "approval-invalid",
            format!("call {call} is no longer what you were shown; nothing was decided"),
        )
        .hint("Look at it again and decide on what it is now.")
        .details(json!({ "call": call, "digest": current }))
    }

    /// No such call, or not the caller's.
    pub(crate) fn not_found(what: &str) -> Self {
        Self::new("not-found", format!("there is no call `{what}` here"))
            .hint("Take the id from `holdfast calls`; an agent sees only calls of its own token.")
    }

    /// The token or the request's origin does not allow this.
    pub(crate) fn forbidden(why: impl Into<String>) -> Self {
        Self::new("forbidden", why)
    }

    /// No valid token came with the request.
    pub(crate) fn unauthorized(hint: &str) -> Self {
        Self::new("unauthorized", "this needs a valid token in the `Authorization: Bearer` header").hint(hint)
    }

    /// The decision does not fit the state that the call is in.
    pub(crate) fn not_now(call: CallId, why: &str) -> Self {
        Self::new("not-now", format!("call {call} cannot be decided like this: {why}; nothing was changed"))
            .hint("`holdfast show` tells where it stands.")
            .details(json!({ "call": call }))
    }

    /// The request to the inbox is not well formed.
    pub(crate) fn bad_request(what: impl Into<String>) -> Self {
        Self::new("bad-request", what)
    }

    /// Nobody is there to read this, but a log may have it.
    pub(crate) fn client_gone() -> Self {
        Self::bad_request(
            "the client closed its connection before its request was accepted; nothing was sent",
        )
    }

    /// Holdfast is stopping.
    pub(crate) fn shutting_down() -> Self {
        Self::new("shutting-down", "Holdfast is stopping and takes no new calls; nothing was sent")
            .hint("Call again in a moment: it is usually started again at once.")
    }

    /// A command needs a running `serve`.
    pub(crate) fn not_running(store: &str) -> Self {
        Self::new("not-running", format!("no `holdfast serve` runs on the journal {store}"))
            .hint("Start it with `holdfast serve` (with the same -c), then decide again.")
    }
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The page about `code`, as Markdown.
pub(crate) fn page(code: &str) -> Option<&'static str> {
    PAGES.iter().find(|(known, _)| *known == code).map(|(_, page)| *page)
}

/// All codes, in alphabetical order.
pub(crate) fn codes() -> impl Iterator<Item = &'static str> {
    PAGES.iter().map(|(code, _)| *code)
}

macro_rules! pages {
    ($($code:literal),* $(,)?) => {
        &[$(($code, include_str!(concat!("../errors/", $code, ".md")))),*]
    };
}

const PAGES: &[(&str, &str)] = pages![
    "approval-invalid",
    "attempts-exhausted",
    "bad-request",
    "body-too-large",
    "breaker-open",
    "call-timeout",
    "cancelled",
    "cannot-start",
    "config-invalid",
    "denied",
    "duplicate-json-key",
    "expired",
    "forbidden",
    "given-up",
    "held",
    "invalid-arguments",
    "journal-unavailable",
    "json-too-deep",
    "key-expired",
    "key-in-flight",
    "key-required",
    "key-reused",
    "not-found",
    "not-now",
    "not-running",
    "outcome-unknown",
    "queue-full",
    "queue-timeout",
    "refused",
    "request-state-invalid",
    "running",
    "server-changed",
    "setup-failed",
    "shutting-down",
    "too-many-guesses",
    "tool-quarantined",
    "unauthorized",
    "unknown-server",
    "unknown-tool",
    "upstream-hung",
    "upstream-session-expired",
    "upstream-spawn-failed",
    "upstream-unauthorized",
    "upstream-unreachable",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_listed_and_well_formed() {
        let directory =
            std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/errors")).expect("the pages exist");
        let mut files: Vec<String> = directory
            .map(|file| {
                file.expect("readable").file_name().to_string_lossy().trim_end_matches(".md").to_owned()
            })
            .collect();
        files.sort();
        assert_eq!(files, codes().collect::<Vec<_>>());
        for (code, page) in PAGES {
            assert!(page.starts_with(&format!("# {code}\n")), "{code}");
            for heading in ["## Why", "## What the agent should do", "## What the operator should do"] {
                assert!(page.contains(heading), "{code} lacks {heading}");
            }
        }
    }

    #[test]
    fn the_hint_has_its_own_line() {
        let report = Report::denied(Target { server: "bank", tool: "close" }, "never-close");
        assert_eq!(
            report.agent_text().lines().collect::<Vec<_>>(),
            [
                "denied: `close` of server `bank` is not allowed by the policy (rule `never-close`); nothing was sent",
                "Repeating it will not help. Reach the goal in another way, or tell the user that the rule forbids it.",
            ]
        );
        let operator = report.to_string();
        assert!(operator.starts_with("error: `close`"), "{operator}");
        assert!(operator.contains("\n  hint: Repeating"), "{operator}");
        assert!(operator.ends_with("\n  more: holdfast explain-error denied"), "{operator}");
        assert_eq!(report.json()["details"]["rule"], "never-close");
    }
}
