//! What a request meets before it is a call: whether its tool is there, is trusted, and was asked about before.

use std::sync::Arc;

use holdfast_store::{Disposition, Likeness, engine::Advance};

use super::{
    Driver, Request,
    join::{By, Wish},
    journaling::now,
    keys::Identity,
    register::Known,
    ticket::{Receipt, Start},
};
use crate::{
    report::{Report, Target},
    upstream::{Tool, Upstream},
};

impl Driver {
    pub(super) async fn tool(
        &self,
        upstream: &Arc<Upstream>,
        request: &Request,
        target: Target<'_>,
    ) -> Result<Tool, Box<Report>> {
        if let Some(tool) = upstream.tool_now(&request.tool) {
            return Ok(tool);
        }
        let tools = upstream.tools(&request.caller).await;
        let tools = tools.map_err(|unsent| Box::new(Report::upstream(unsent.code, unsent.message)))?;
        tools.iter().find(|tool| tool.name == request.tool).cloned().ok_or_else(|| {
            let known: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
            Box::new(Report::unknown_tool(target, &known))
        })
    }

    /// What is known of the tool, which is recorded before it is used for the first time.
    pub(super) async fn see(&self, tool: &Tool, target: Target<'_>) -> Result<Known, Box<Report>> {
        let server = target.server;
        let known = self.known(server, tool);
        if known != Known::Trusted {
            let seen = self.see_tools(server, std::slice::from_ref(tool)).await;
            seen.map_err(|error| Box::new(Report::journal_unavailable(&format!("{error:?}"))))?;
            // What could not be recorded cannot be told from what it may become.
            return match self.known(server, tool) {
                Known::Not => Err(Box::new(Report::tool_unrecordable(target))),
                known => Ok(known),
            };
        }
        Ok(known)
    }

    /// Nothing is sent to a tool whose definition is not the one that was seen first or accepted; but what was sent
    /// before is answered for.
    pub(super) async fn quarantined(
        self: &Arc<Self>,
        identity: &Identity,
        wish: Wish,
        target: Target<'_>,
    ) -> Result<Start, Box<Report>> {
        for key in &identity.keys {
            let owner = self.journal.owner(key.hash);
            let owner = owner.map_err(|error| Box::new(Report::journal_unavailable(&error.to_string())))?;
            if let Some(call) = owner {
                return Ok(self.join(call, identity.fingerprint, wish, By::Key(key.source)).await);
            }
        }
        let earlier = identity.origin.and_then(|hash| {
            let hung_up = |connection| self.hung_up(connection);
            Some((hash, self.reissues().take(now(), hash, &wish.from, &hung_up)?))
        });
        match earlier {
            Some((hash, call)) => {
                let place = Receipt::new(self.clone(), hash, call, wish.from.clone());
                Ok(self.join(call, identity.fingerprint, wish, By::Reissue(place)).await)
            }
            None => Err(Box::new(Report::tool_quarantined(target))),
        }
    }

    /// The votes that operators have given in advance for such a call.
    pub(super) fn in_advance(
        &self,
        disposition: &Disposition,
        request: &Request,
        upstream: &Upstream,
        tool: &Tool,
    ) -> Vec<Advance> {
        let Disposition::Ask { gates, .. } = disposition else { return Vec::new() };
        // Whoever decided in advance has pinned arguments, and nothing beside them.
        if !request.extra.is_empty() {
            return Vec::new();
        }
        self.votes_in_advance(&Likeness {
            principal: &request.caller.principal,
            server: &request.server,
            identity: &upstream.identity(),
            tool: &request.tool,
            definition: &tool.hash,
            arguments: &request.arguments,
            gates,
        })
    }
}
