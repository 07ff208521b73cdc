//! An approver puts other arguments in the place of the agent's.

use std::sync::Arc;

use holdfast_policy::{KeyRule, Plan, UpstreamKey};
use holdfast_store::{
    Call, CallId, Decider, Digest, State, Text,
    engine::{self, Event},
};
use serde_json::Value;

use super::{
    Driver,
    check::another,
    decide::{DecideError, unfit},
    preview::{self, Asked},
    register::untrusted,
};

impl Driver {
    /// An approver who saw `seen` wants these arguments sent instead: they are decided and previewed anew, and asked as
    /// a new revision.
    ///
    /// # Errors
    /// [`DecideError`], also for arguments that the policy denies and for those that would make it another effect.
    pub(crate) async fn edit(
        self: &Arc<Self>,
        id: CallId,
        seen: Digest,
        arguments: Value,
        by: Decider,
    ) -> Result<State, DecideError> {
        let Some(live) = self.find(id) else { return Err(self.not_live(id).await) };
        let call = live.with(|shared| shared.call.clone());
        let Some(hold) = call.hold.as_ref().filter(|_| call.state == State::Asking) else {
            return Err(unfit(engine::Unfit::WrongState(call.state)));
        };
        // Nobody who may not decide has servers asked.
        let nothing = engine::Edited {
            arguments: call.arguments().clone(),
            digest: hold.digest,
            gates: Vec::new(),
            shown: None,
            identity: None,
        };
        let edit = Event::Edit { by: by.clone(), seen, edited: Box::new(nothing) };
        engine::step(self.moment(), &call, edit).map_err(unfit)?;
        same_effect(&call, &arguments).map_err(DecideError::Illegal)?;
        let accepted = &call.accepted;
        let Some(upstream) = self.upstreams.get(&accepted.server) else {
            return Err(DecideError::Illegal(format!(
                "server `{}` is not configured any more",
                accepted.server
            )));
        };
        let tools = upstream.tools_opened(&accepted.caller).await;
        let tools = tools.map_err(|unsent| {
            DecideError::Illegal(format!("its server cannot be asked: {}", unsent.message))
        })?;
        let Some(tool) = tools.iter().find(|tool| tool.name == accepted.tool) else {
            return Err(DecideError::Illegal(format!(
                "server `{}` no longer has this tool",
                accepted.server
            )));
        };
        if let Some(why) = untrusted(self, &upstream, &tool.name) {
            return Err(DecideError::Illegal(why));
        }
        let again = self.decide_again(&call, tool, &upstream, &arguments).map_err(|rule| {
            DecideError::NotAllowed(format!("the policy denies these arguments (rule `{rule}`)"))
        })?;
        same_promises(&accepted.plan, &again.plan).map_err(DecideError::Illegal)?;
        let gates = again.stricter.unwrap_or_else(|| hold.gates.to_vec());
        let arguments = Text::of(&arguments);
        let shown = preview::look(&upstream, &call, &arguments).await;
        let asked = Asked {
            call: &call,
            identity: &upstream.identity(),
            definition: &tool.hash,
            arguments: &arguments,
            shown: shown.as_ref(),
            gates: &gates,
            revision: hold.revision + 1,
        };
        let digest = asked.digest();
        let edited =
            Box::new(engine::Edited { arguments, digest, gates, shown, identity: another(&call, &upstream) });
        self.decide(id, Event::Edit { by, seen, edited }).await
    }
}

/// The call's keys and retries were settled when it was accepted; other arguments may not call for others.
fn same_promises(was: &Plan, is: &Plan) -> Result<(), String> {
    let what = if was.key != is.key || was.scope != is.scope {
        "key"
    } else if was.upstream_key != is.upstream_key {
        "upstream key"
    } else if was.repeat != is.repeat {
        "repeat"
    } else {
        return Ok(());
    };
    Err(format!(
        "the policy has another `{what}` for these arguments: reject it, and let the agent ask for what you want"
    ))
}

/// An edit changes how something is done, not which thing: the keys of the call were claimed for one effect.
fn same_effect(call: &Call, arguments: &Value) -> Result<(), String> {
    let (plan, before) = (&call.accepted.plan, call.arguments().value());
    if let KeyRule::Effect(template) = &plan.key {
        // The key is over what the agent sent; what we inject does not take part in it.
        let [was, is] = [&before, arguments].map(|arguments| template.render(arguments).ok());
        if was != is {
            return Err(format!(
                "these arguments would give it another effect key ({}): reject it, and let the agent ask for the other effect",
                template.as_str()
            ));
        }
    }
    if let Some(UpstreamKey::Arg(pointer)) = &plan.upstream_key
        && pointer.find(&before) != pointer.find(arguments)
    {
        return Err(format!("{pointer} is the key by which the server deduplicates, and stays as it is"));
    }
    Ok(())
}
