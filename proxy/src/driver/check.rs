//! The looks that a call's task takes at the world: the re-check of a held call at its dispatch, and probes of a call
//! in doubt.

use std::{sync::Arc, time::Duration};

use holdfast_policy::{Probe, Question, Verdict};
use holdfast_store::{
    Answer, AnswerKind, Approvable, Call, Text,
    engine::{Event, OldProcess, Probed, Recheck},
};

use super::{
    Driver,
    live::Input,
    task::{Probing, Task},
};
use crate::upstream::{Dispatch, Tool, Upstream};

/// Between two looks at a server that does not answer, while an approved call waits for it.
const RECHECK_PAUSE: Duration = Duration::from_secs(1);

impl Task {
    /// Checks policy and tool definition again; the slot stays held meanwhile.
    pub(super) fn recheck(&self) {
        let (driver, live, upstream) = (self.driver.clone(), self.live.clone(), self.upstream.clone());
        tokio::spawn(async move {
            loop {
                let (caller, name) = live
                    .with(|shared| (shared.call.accepted.caller.clone(), shared.call.accepted.tool.clone()));
                let listed = upstream.tools(&caller).await;
                if live.with(|shared| shared.call.state.is_done()) {
                    return;
                }
                // Without the definition nobody can tell whether it changed; the hold's own clock ends the wait.
                if let Ok(tools) = listed {
                    let tool = tools.iter().find(|tool| tool.name == name);
                    let recheck = live.with(|shared| check(&driver, &upstream, &shared.call, tool));
                    live.tell(Event::Rechecked(recheck));
                    return;
                }
                tokio::select! {
                    () = tokio::time::sleep(RECHECK_PAUSE) => {}
                    () = driver.stopped.cancelled() => return,
                }
            }
        });
    }

    /// Looks whether an in-doubt call happened.
    pub(super) fn probe(&mut self) {
        let Some(probe) = self.live.with(|shared| shared.call.accepted.plan.probe.clone()) else { return };
        if std::mem::replace(&mut self.probing, Probing::Yes) == Probing::Yes {
            return;
        }
        let old_process = match &self.flight {
            Some((_, flight)) if !flight.gone() => OldProcess::MayLive,
            Some(_) => OldProcess::Gone,
            // Sent by a Holdfast that is no more: nobody has seen that process end.
            None => OldProcess::MayLive,
        };
        let (live, upstream) = (self.live.clone(), self.upstream.clone());
        tokio::spawn(async move {
            let call = live.with(|shared| shared.call.clone());
            let probed = ask(&upstream, &call, &probe, old_process).await;
            live.send(Input::Probed(call.attempt(), probed)).ok();
        });
    }
}

async fn ask(upstream: &Arc<Upstream>, call: &Call, probe: &Probe, old_process: OldProcess) -> Probed {
    // The template is over what the agent sent; an injected key is part of that text and does no harm.
    let arguments = match probe.args.render(&call.accepted.arguments.value()) {
        Ok(arguments) => arguments,
        Err(missing) => {
            return Probed::Unclear(format!(
                "its arguments need {}, which the call does not have",
                missing.0
            ));
        }
    };
    let dispatch = Dispatch {
        caller: call.accepted.caller.clone(),
        tool: probe.tool.clone(),
        arguments: Text::of(&arguments),
        meta: None,
        headers: Vec::new(),
    };
    let limit = Duration::from_millis(call.accepted.plan.attempt_timeout_ms);
    match upstream.ask(dispatch, limit).await {
        Err(trouble) => Probed::Unclear(trouble.message),
        Ok(answer) if answer.kind != AnswerKind::Result => {
            Probed::Unclear("the probe's answer is an error".into())
        }
        Ok(answer) => judge(probe, answer, old_process),
    }
}

fn judge(probe: &Probe, answer: Answer, old_process: OldProcess) -> Probed {
    let seen = answer.text.value();
    if probe.confirms(&seen) {
        return match probe.answer_from(&seen) {
            Ok(Some(value)) => {
                let text = Text::of(&tool_result(&value));
                Probed::Confirmed(Answer { kind: AnswerKind::Result, text })
            }
            Ok(None) => Probed::Confirmed(noted(answer)),
            Err(missing) => Probed::Unclear(format!("the probe's answer has no {}", missing.0)),
        };
    }
    if probe.happened.at.find(&holdfast_policy::look_into(&seen)).is_none() {
        return Probed::Unclear(format!("the probe's answer has no {}", probe.happened.at));
    }
    Probed::Absent { old_process }
}

/// The probe's own result, with a note: it is not word for word what the tool would have said.
fn noted(answer: Answer) -> Answer {
    let mut value = answer.text.value();
    let note = serde_json::json!({
        "type": "text",
        "text": "Note from Holdfast: the answer of the call itself was lost. A look at the server confirms that it \
                 happened; this is what that look returned.",
    });
    match value.get_mut("content").and_then(|content| content.as_array_mut()) {
        Some(content) => content.push(note),
        None => {
            if let Some(members) = value.as_object_mut() {
                members.insert("content".into(), serde_json::Value::Array(vec![note]));
            }
        }
    }
    Answer { kind: answer.kind, text: Text::of(&value) }
}

fn tool_result(value: &serde_json::Value) -> serde_json::Value {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut result = serde_json::json!({ "content": [{ "type": "text", "text": text }] });
    if value.is_object() {
        result["structuredContent"] = value.clone();
    }
    result
}

/// What the policy and the tool's definition say now about a call that was approved earlier.
fn check(driver: &Driver, upstream: &Upstream, call: &Call, tool: Option<&Tool>) -> Recheck {
    let accepted = &call.accepted;
    let Some(tool) = tool else {
        return Recheck::Denied { reason: format!("server `{}` no longer has this tool", accepted.server) };
    };
    let arguments = accepted.arguments.value();
    let decision = driver.config.policy.decide(&Question {
        principal: &accepted.caller.principal,
        server: &accepted.server,
        tool: &accepted.tool,
        arguments: &arguments,
        hints: tool.hints,
        trust: super::trust(upstream.config()),
    });
    let Some(hold) = &call.hold else { return Recheck::Same };
    let (gates, stricter) = match decision.verdict {
        Verdict::Deny { rule, .. } => {
            return Recheck::Denied { reason: format!("the policy now denies it (rule `{rule}`)") };
        }
        Verdict::Allow(_) => (hold.gates.clone(), false),
        Verdict::Ask(plan, gates) => {
            let stricter = Verdict::Ask(plan, gates.clone()).asks_more_than(&hold.gates);
            (if stricter { gates } else { hold.gates.clone() }, stricter)
        }
    };
    let rules: Vec<&str> = gates.iter().map(|gate| gate.rule.as_str()).collect();
    let changed_definition = *tool.hash != *accepted.definition;
    let changed_identity = upstream.identity() != accepted.identity;
    let next = Approvable {
        principal: &accepted.caller.principal,
        identity: upstream.identity(),
        tool: &accepted.tool,
        definition: &tool.hash,
        arguments: &accepted.arguments,
        preview: "",
        rules: &rules,
        revision: hold.revision + 1,
    };
    // A definition that was approved in an earlier revision is part of that revision's digest.
    let same_as_asked = Approvable { revision: hold.revision, ..next }.digest() == hold.digest;
    // A digest names the rules, not what they ask for now.
    if same_as_asked && !stricter {
        return Recheck::Same;
    }
    let reason = if changed_identity {
        "the server behind this name is another one now"
    } else if changed_definition {
        "the tool's definition has changed"
    } else if stricter {
        "the policy asks for more than it did"
    } else {
        return Recheck::Same;
    };
    Recheck::Changed { reason: reason.into(), digest: next.digest(), gates }
}
