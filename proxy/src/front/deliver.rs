//! Replies of the driver as JSON-RPC messages: the era and our `_meta` go on here, and nothing comes off.

use std::borrow::Cow;

use holdfast_store::{Answer, AnswerKind};
use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    era::{Era, META_SERVER},
    problem::{HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION},
    splice::{Dressing, set_member, splice_result},
};
use crate::{
    answers,
    driver::{Body, Reply},
    report::Report,
    wire,
};

/// The call that an answer belongs to.
const META_CALL: &str = "io.holdfast/call";
/// The call's state in a word.
const META_STATE: &str = "io.holdfast/state";
/// True where the answer comes from the record.
const META_REPLAYED: &str = "io.holdfast/replayed";
/// The code of a report, for `holdfast explain-error`.
const META_CODE: &str = "io.holdfast/code";
/// Details of a report.
const META_DETAILS: &str = "io.holdfast/details";

/// What the tool that a request named says about its results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// They carry `structuredContent`: a result without it may only be an error.
    Structured,
    /// Nothing.
    Free,
}

/// The response to the request `id` (a JSON text).
pub(super) fn message(id: &str, era: Era, output: Output, reply: &Reply) -> String {
    match &reply.body {
        Body::Answer(Answer { kind: AnswerKind::Error, text }) => wire::error(id, text),
        _ => result(id, &text(output, reply), era, &meta(reply)),
    }
}

/// The result alone, as a message would carry it.
pub(super) fn content(era: Era, reply: &Reply) -> String {
    let mut content = String::new();
    dress(&mut content, &text(Output::Free, reply), era, &meta(reply));
    content
}

fn text(output: Output, reply: &Reply) -> Cow<'_, str> {
    match &reply.body {
        // A result without what the tool's schema promises may only be an error.
        Body::Answer(Answer { kind: AnswerKind::Result, text })
            if output == Output::Structured && answers::lacks_structure(text) =>
        {
            set_member(text, "isError", "true").into()
        }
        Body::Answer(Answer { text, .. }) => Cow::Borrowed(text),
        Body::Report(report) => words(report, true).into(),
        Body::Handle(report) | Body::Stopped(report) => words(report, output == Output::Structured).into(),
    }
}

/// The HTTP status for the message: 200, but for the errors to which 2026-07-28 gives another one.
pub(super) fn status(era: Era, reply: &Reply) -> StatusCode {
    let Body::Answer(Answer { kind: AnswerKind::Error, text }) = &reply.body else { return StatusCode::OK };
    status_of_error(era, text)
}

/// The same for a message with this `error` member.
pub(super) fn status_of_error(era: Era, error: &str) -> StatusCode {
    let error: Value = serde_json::from_str(error).unwrap_or_default();
    match error.get("code").and_then(Value::as_i64) {
        Some(wire::METHOD_NOT_FOUND) if era == Era::Modern => StatusCode::NOT_FOUND,
        Some(HEADER_MISMATCH | MISSING_CAPABILITY | UNSUPPORTED_VERSION) if era == Era::Modern => {
            StatusCode::BAD_REQUEST
        }
        _ => StatusCode::OK,
    }
}

/// The response to the request `id` with a report that no call stands behind.
pub(super) fn report(id: &str, era: Era, report: &Report) -> String {
    let meta = with_report(Vec::new(), report);
    result(id, &words(report, true), era, &meta)
}

/// The response to the request `id` with `text` as its result.
pub(super) fn result(id: &str, text: &str, era: Era, meta: &[(&str, Value)]) -> String {
    let mut message = String::with_capacity(text.len() + 320);
    message.push_str(r#"{"jsonrpc":"2.0","id":"#);
    message.push_str(id);
    message.push_str(r#","result":"#);
    dress(&mut message, text, era, meta);
    message.push('}');
    message
}

fn dress(out: &mut String, text: &str, era: Era, meta: &[(&str, Value)]) {
    let modern = era == Era::Modern;
    let server =
        [(META_SERVER, Value::from_iter([("name", "holdfast"), ("version", env!("CARGO_PKG_VERSION"))]))];
    let dressing = Dressing { modern, ours: meta, defaults: if modern { &server } else { &[] } };
    splice_result(out, text, &dressing);
}

/// What we say about the call in `_meta`.
pub(super) fn meta(reply: &Reply) -> Vec<(&'static str, Value)> {
    let mut meta = Vec::with_capacity(4);
    if let Some(call) = reply.call {
        meta.push((META_CALL, call.to_string().into()));
    }
    meta.push((META_STATE, reply.state.into()));
    if reply.replayed {
        meta.push((META_REPLAYED, true.into()));
    }
    match &reply.body {
        Body::Answer(_) => meta,
        Body::Report(report) | Body::Handle(report) | Body::Stopped(report) => with_report(meta, report),
    }
}

fn with_report(mut meta: Vec<(&'static str, Value)>, report: &Report) -> Vec<(&'static str, Value)> {
    meta.push((META_CODE, report.code.into()));
    if let Some(details) = &report.details {
        meta.push((META_DETAILS, details.clone()));
    }
    meta
}

fn words(report: &Report, is_error: bool) -> String {
    let mut result = Map::new();
    result.insert("content".into(), json!([{ "type": "text", "text": report.agent_text() }]));
    result.insert("isError".into(), is_error.into());
    Value::Object(result).to_string()
}
