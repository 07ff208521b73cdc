//! The looks that a call's task takes at the world: the re-check of a held call at its dispatch, and probes of a call
//! in doubt.

use std::{sync::Arc, time::Duration};

use holdfast_policy::{Gate, Plan, Probe, Question, RuleId, Verdict};
use holdfast_store::{
    Answer, AnswerKind, Call, Text,
    engine::{Event, OldProcess, Probed, Recheck},
};

use serde_json::Value;

use super::{
    Driver,
    live::Input,
    preview::{self, Asked, Drift},
    register::Known,
    task::{Probing, Task},
};
use crate::upstream::{Client, Dispatch, Tool, Upstream};

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
                // The list of a server that is down is an old one, and another process will get the call.
                let listed = upstream.tools_opened(&caller).await;
                if live.with(|shared| shared.call.state.is_done()) {
                    return;
                }
                // Without the definition nobody can tell whether it changed; the hold's own clock ends the wait.
                if let Ok(tools) = listed {
                    let tool = tools.iter().find(|tool| tool.name == name);
                    let call = live.with(|shared| shared.call.clone());
                    let recheck = check(&driver, &upstream, &call, tool).await;
                    let revision = call.hold.as_ref().map_or(1, |hold| hold.revision);
                    live.tell(Event::Rechecked { revision, recheck });
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
    let arguments = match probe.args.render(&call.arguments().value()) {
        Ok(arguments) => arguments,
        Err(missing) => {
            return Probed::Unclear(format!(
                "its arguments need {}, which the call does not have",
                missing.0
            ));
        }
    };
    let dispatch = Dispatch {
        attempt: None,
        caller: call.accepted.caller.clone(),
        tool: probe.tool.clone(),
        arguments: Text::of(&arguments),
        extra: None,
        meta: None,
        headers: Vec::new(),
        identity: None,
        client: Client::unknown(),
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

/// What the policy, the tool's definition and the preview say now about a call that was approved earlier.
async fn check(driver: &Driver, upstream: &Arc<Upstream>, call: &Call, tool: Option<&Tool>) -> Recheck {
    let Some(tool) = tool else {
        return Recheck::Denied {
            reason: format!("server `{}` no longer has this tool", call.accepted.server),
        };
    };
    let Some(hold) = &call.hold else { return Recheck::Same };
    let (reason, gates, shown) = match judge_again(driver, upstream, call, tool) {
        Judged::Denied(reason) => return Recheck::Denied { reason },
        Judged::Changed(reason, gates) => {
            (reason, gates, preview::look(upstream, call, call.arguments()).await)
        }
        Judged::Same => match preview::drifted(upstream, call).await {
            Drift::None => return Recheck::Same,
            Drift::Found(reason, shown) => (reason, hold.gates.to_vec(), Some(shown)),
        },
    };
    let asked = Asked {
        call,
        identity: &upstream.identity(),
        definition: &tool.hash,
        arguments: call.arguments(),
        shown: shown.as_ref(),
        gates: &gates,
        revision: hold.revision + 1,
    };
    let digest = asked.digest();
    let identity = another(call, upstream);
    Recheck::Changed { reason, digest, gates, shown, identity }
}

/// The server's identity, where it is another one than at first.
pub(super) fn another(call: &Call, upstream: &Upstream) -> Option<String> {
    let now = upstream.identity();
    (*now != *call.accepted.identity).then(|| now.to_string())
}

/// What policy and definition say, without a look at the server.
enum Judged {
    Same,
    Denied(String),
    /// Why, and who is to be asked.
    Changed(String, Vec<Gate>),
}

fn judge_again(driver: &Driver, upstream: &Upstream, call: &Call, tool: &Tool) -> Judged {
    let accepted = &call.accepted;
    let Some(hold) = &call.hold else { return Judged::Same };
    let (gates, stricter) = match driver.decide_again(call, tool, upstream, &call.arguments().value()) {
        Err(rule) => return Judged::Denied(format!("the policy now denies it (rule `{rule}`)")),
        Ok(Again { stricter: Some(gates), .. }) => (gates, true),
        Ok(Again { stricter: None, .. }) => (hold.gates.to_vec(), false),
    };
    let asked = Asked {
        call,
        identity: &upstream.identity(),
        definition: &tool.hash,
        arguments: call.arguments(),
        shown: hold.shown.as_ref(),
        gates: &gates,
        revision: hold.revision,
    };
    // Not even where the digest is the same: an approver is no admin, and had another tool before them.
    let trusted = driver.known(&accepted.server, tool) != Known::Changed;
    // A definition that was approved in an earlier revision is part of that revision's digest; and a digest names the
    // rules, not what they ask for now.
    if trusted && !stricter && asked.digest() == hold.digest {
        return Judged::Same;
    }
    let reason = if *upstream.identity() != *accepted.identity {
        "the server behind this name is another one now"
    } else if !trusted || *tool.hash != *accepted.definition {
        "the tool's definition has changed"
    } else if stricter {
        "the policy asks for more than it did"
    } else {
        // Changed back, for instance: what was approved in between is not what would be sent.
        "what would be sent is not what was approved"
    };
    Judged::Changed(reason.to_owned(), gates)
}

/// A verdict over a call that is held already.
pub(super) struct Again {
    /// What the policy now sets for it.
    pub(super) plan: Arc<Plan>,
    /// Who is to be asked, where the policy asks for more than the open question does: also whoever was asked before.
    pub(super) stricter: Option<Vec<Gate>>,
}

impl Driver {
    /// What the policy now says of the call with these arguments.
    ///
    /// # Errors
    /// The rule that denies them.
    pub(super) fn decide_again(
        &self,
        call: &Call,
        tool: &Tool,
        upstream: &Upstream,
        arguments: &Value,
    ) -> Result<Again, RuleId> {
        let accepted = &call.accepted;
        let steady = self.steady();
        let decision = self.config.get().policy.decide(&Question {
            principal: &accepted.caller.principal,
            server: &accepted.server,
            tool: &accepted.tool,
            arguments,
            hints: tool.hints,
            trust: super::trust(&upstream.config()),
        });
        drop(steady);
        let held = call.hold.as_ref().map(|hold| &*hold.gates).unwrap_or_default();
        let more = decision.verdict.asks_more_than(held);
        match decision.verdict {
            Verdict::Deny { rule, .. } => Err(rule),
            Verdict::Ask(plan, gates) if more => {
                let kept = held.iter().filter(|held| !gates.iter().any(|gate| gate.covers(held))).cloned();
                let stricter = Some(gates.iter().cloned().chain(kept).collect());
                Ok(Again { plan, stricter })
            }
            Verdict::Ask(plan, _) | Verdict::Allow(plan) => Ok(Again { plan, stricter: None }),
        }
    }
}
