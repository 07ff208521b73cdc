//! What a held call would do, looked up for its approvers, and whether that has changed since.

use std::{sync::Arc, time::Duration};

use holdfast_policy::{Gate, MissingPointer, Pointer, Preview, PreviewBy, UpstreamKey, look_into};
use holdfast_store::{Answer, AnswerKind, Approvable, Call, Digest, Shown, ShownKind, Text, engine::Event};
use serde_json::Value;

use super::task::Task;
use crate::upstream::{Client, Dispatch, Tool, Upstream};

/// A preview that nobody can read helps nobody decide, and it is kept with the call.
const LARGEST: usize = 256 << 10;

impl Task {
    /// Looks up what the call would do; ends in [`Event::Previewed`], whatever comes of it.
    pub(super) fn preview(&self) {
        let (driver, live, upstream) = (self.driver.clone(), self.live.clone(), self.upstream.clone());
        tokio::spawn(async move {
            let call = live.with(|shared| shared.call.clone());
            let shown = tokio::select! {
                shown = look(&upstream, &call, call.arguments()) => shown,
                // The next start looks again.
                () = driver.stopped.cancelled() => return,
            };
            let Some((shown, hold)) = shown.zip(call.hold.as_ref()) else { return };
            let asked = Asked {
                call: &call,
                identity: call.identity(),
                definition: &call.accepted.definition,
                arguments: call.arguments(),
                shown: Some(&shown),
                gates: &hold.gates,
                revision: hold.revision,
            };
            let digest = asked.digest();
            live.tell(Event::Previewed { shown, digest });
        });
    }
}

/// What a revision of a question is about.
pub(super) struct Asked<'a> {
    pub(super) call: &'a Call,
    pub(super) identity: &'a str,
    pub(super) definition: &'a str,
    pub(super) arguments: &'a Text,
    pub(super) shown: Option<&'a Shown>,
    pub(super) gates: &'a [Gate],
    pub(super) revision: u32,
}

impl Asked<'_> {
    /// What approvers approve.
    pub(super) fn digest(&self) -> Digest {
        let rules: Vec<&str> = self.gates.iter().map(|gate| gate.rule.as_str()).collect();
        Approvable {
            principal: &self.call.accepted.caller.principal,
            identity: self.identity,
            tool: &self.call.accepted.tool,
            definition: self.definition,
            arguments: self.arguments,
            extra: self.call.accepted.extra.as_deref(),
            preview: self.shown.map_or("", |shown| &shown.text),
            rules: &rules,
            revision: self.revision,
        }
        .digest()
    }
}

/// What the call would do with these arguments; none where the policy names no preview. A preview that fails is shown
/// as one that failed.
pub(super) async fn look(upstream: &Arc<Upstream>, call: &Call, arguments: &Text) -> Option<Shown> {
    let preview = call.accepted.plan.preview.as_ref()?;
    let asked = match known(upstream, call, preview).await {
        Ok(()) => question(preview, call, &arguments.value()),
        Err(why) => Err(why),
    };
    let seen = match asked {
        Ok((tool, arguments)) => {
            let caller = call.accepted.caller.clone();
            let arguments = Text::of(&arguments);
            let dispatch = Dispatch {
                attempt: None,
                caller,
                tool,
                arguments,
                extra: None,
                meta: None,
                headers: Vec::new(),
                identity: None,
                client: Client::unknown(),
            };
            let limit = Duration::from_millis(call.accepted.plan.attempt_timeout_ms);
            upstream.ask(dispatch, limit).await.map_err(|trouble| trouble.message)
        }
        Err(why) => Err(why),
    };
    Some(match seen.and_then(usable).and_then(|answer| watch(preview, answer)) {
        Ok(shown) => shown,
        Err(why) => Shown { kind: ShownKind::Failed, text: Text::of(&why), drift: Vec::new() },
    })
}

/// Only the tool that was asked for is trusted to do nothing when it is told so: of another one nobody knows yet.
async fn known(upstream: &Arc<Upstream>, call: &Call, preview: &Preview) -> Result<(), String> {
    if let PreviewBy::Companion { .. } = preview.by {
        return Ok(());
    }
    let accepted = &call.accepted;
    let tools = upstream.tools_opened(&accepted.caller).await.map_err(|unsent| unsent.message)?;
    let same = |tool: &Tool| tool.name == accepted.tool && *tool.hash == *accepted.definition;
    if *upstream.identity() == *accepted.identity && tools.iter().any(same) {
        return Ok(());
    }
    Err("the tool is not the one that was asked for, so it was not given a dry run".to_owned())
}

/// The tool to ask and its arguments.
fn question(preview: &Preview, call: &Call, arguments: &Value) -> Result<(String, Value), String> {
    match &preview.by {
        PreviewBy::Companion { tool, args } => match args.render(arguments) {
            Ok(arguments) => Ok((tool.clone(), arguments)),
            Err(MissingPointer(pointer)) => {
                Err(format!("the preview needs {pointer}, which the arguments do not have"))
            }
        },
        PreviewBy::DryRun { arg, value } => {
            let mut dry = arguments.clone();
            if let Some(UpstreamKey::Arg(key)) = &call.accepted.plan.upstream_key {
                // With the key of the real call, a server that deduplicates would answer that with this.
                key.put(&mut dry, format!("preview-{}", call.id).into())
                    .map_err(|_| format!("the arguments have no room for {key}"))?;
            }
            match arg.put(&mut dry, value.clone()) {
                Ok(()) => Ok((call.accepted.tool.clone(), dry)),
                // Without it the tool would do what is to be approved first.
                Err(_) => Err(format!("the arguments have no room for the dry-run argument {arg}")),
            }
        }
    }
}

/// What is shown, with what must not change of it: a watch over nothing would let everything pass.
fn watch(preview: &Preview, answer: Answer) -> Result<Shown, String> {
    let value = answer.text.value();
    let content = look_into(&value);
    let found = |pointer: &Pointer| match pointer.find(&content) {
        Some(found) => Ok((pointer.to_string(), Some(Text::of(found)))),
        None => Err(format!("the preview has no {pointer}, which must not change: {}", &*answer.text)),
    };
    let drift = preview.drift.iter().map(found).collect::<Result<_, _>>()?;
    Ok(Shown { kind: ShownKind::Preview, text: answer.text.clone(), drift })
}

fn usable(answer: Answer) -> Result<Answer, String> {
    match answer.kind {
        AnswerKind::Result if answer.text.len() <= LARGEST => Ok(answer),
        AnswerKind::Result => {
            Err(format!("the preview has {} bytes; at most {LARGEST} are shown", answer.text.len()))
        }
        AnswerKind::ToolError | AnswerKind::Error => {
            let text: String = answer.text.chars().take(2_000).collect();
            Err(format!("the preview's answer is an error: {text}"))
        }
    }
}

/// What has become of an approved preview.
pub(super) enum Drift {
    None,
    /// In words, with the preview as it is now.
    Found(String, Shown),
}

/// Looks again, where something must not have changed since the approval.
pub(super) async fn drifted(upstream: &Arc<Upstream>, call: &Call) -> Drift {
    let watched = call.accepted.plan.preview.as_ref().is_some_and(|preview| !preview.drift.is_empty());
    let approved = call.hold.as_ref().and_then(|hold| hold.shown.as_ref());
    // Of a preview that failed nothing was approved but that it failed.
    let Some(approved) = approved.filter(|shown| watched && shown.kind == ShownKind::Preview) else {
        return Drift::None;
    };
    let Some(now) = look(upstream, call, call.arguments()).await else { return Drift::None };
    if now.kind == ShownKind::Failed {
        return Drift::Found("the preview could not be looked up again".to_owned(), now);
    }
    let changes: Vec<String> = approved
        .drift
        .iter()
        .zip(&now.drift)
        .filter(|(before, after)| before != after)
        .map(|((pointer, before), (_, after))| {
            format!("{pointer} was {} and is {}", show(before), show(after))
        })
        .collect();
    if changes.is_empty() {
        return Drift::None;
    }
    Drift::Found(format!("what was approved has changed: {}", changes.join(", ")), now)
}

fn show(found: &Option<Text>) -> String {
    match found {
        None => "not there".to_owned(),
        Some(text) if text.chars().count() > 100 => {
            format!("{}... ({} bytes)", text.chars().take(100).collect::<String>(), text.len())
        }
        Some(text) => text.to_string(),
    }
}
