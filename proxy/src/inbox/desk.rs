//! What the inbox needs of whoever carries decisions out.

use std::{future::Future, sync::Arc};

use holdfast_store::{
    Answer, CallId, Decider, Definition, Digest, Hash32, Journal, RememberedId, Resolution, State,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::register::RememberedView;
use crate::{
    answers::Answers,
    driver::{DecideError, Driver, Wish},
    upstream::{Returned, Tool, Upstream},
};

/// Carries decisions out. The driver is one; so tests of the API need no upstreams.
pub(crate) trait Desk: Clone + Send + Sync + 'static {
    /// Where everything about calls is read.
    fn journal(&self) -> Arc<dyn Journal>;

    /// Answers that are too large for the journal; none where there are no files.
    fn answers(&self) -> Option<Arc<Answers>> {
        None
    }

    /// How the servers behind us are.
    fn servers(&self) -> Vec<ServerHealth>;

    /// Begins to sign in to a server: where a person has to go. They come back to `redirect`, and accept this `issuer`
    /// where it is another one than before.
    ///
    /// # Errors
    /// What does not work, in words.
    fn begin_sign_in(
        &self,
        server: &str,
        redirect: &str,
        issuer: Option<&str>,
    ) -> impl Future<Output = Result<String, String>> + Send {
        let _ = (server, redirect, issuer);
        std::future::ready(Err("there is nothing to sign in to".to_owned()))
    }

    /// Ends it with what came back; says to which server.
    ///
    /// # Errors
    /// Likewise.
    fn end_sign_in(&self, returned: Returned) -> impl Future<Output = Result<String, String>> + Send {
        let _ = returned;
        std::future::ready(Err("nobody is signing in".to_owned()))
    }

    /// The tools that a server has listed; none where it has not yet.
    fn tools(&self, server: &str) -> Option<Arc<Vec<Tool>>>;

    /// What is known of a tool's definition.
    fn definition(&self, server: &str, tool: &str) -> Option<Definition>;

    /// Decisions that are remembered, oldest first.
    fn remembered(&self) -> Vec<RememberedView>;

    /// Has an approval speak for later calls, too.
    ///
    /// # Errors
    /// See [`DecideError`]; nothing changed.
    fn remember(
        &self,
        call: CallId,
        by: Decider,
        wish: Wish,
    ) -> impl Future<Output = Result<RememberedView, DecideError>> + Send;

    /// Has a remembered decision speak for nothing any more.
    ///
    /// # Errors
    /// Likewise.
    fn forget(
        &self,
        id: RememberedId,
        by: Decider,
        reason: String,
    ) -> impl Future<Output = Result<(), DecideError>> + Send;

    /// Accepts the definition that a tool has now.
    ///
    /// # Errors
    /// Likewise.
    fn trust(
        &self,
        server: &str,
        tool: &str,
        definition: Hash32,
        by: Decider,
    ) -> impl Future<Output = Result<(), DecideError>> + Send;

    /// Carries `decision` about `call` out, and says where the call stands then.
    ///
    /// # Errors
    /// See [`DecideError`]; nothing changed.
    fn decide(
        &self,
        call: CallId,
        by: Decider,
        decision: Decision,
    ) -> impl Future<Output = Result<State, DecideError>> + Send;
}

/// What an operator decides about one call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision {
    /// Do exactly what this digest covers.
    Approve(Digest),
    /// The same past all gates, for this reason.
    BreakGlass(Digest, String),
    /// Take an approval back, for this reason.
    Revoke(String),
    /// Ask for these arguments instead of what this digest covers.
    Edit(Digest, Value),
    /// Answer in the tool's place what this digest covers.
    Respond(Digest, Answer),
    /// Do not do what this digest covers.
    Reject(Digest, String),
    /// Settle a call in doubt.
    Resolve(Resolution),
    /// Withdraw it.
    Cancel,
    /// Free the keys of a finished call.
    Release,
}

/// How a server behind us is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ServerHealth {
    /// Its name.
    pub(crate) name: String,
    /// Command line or URL.
    pub(crate) identity: String,
    /// In a word.
    pub(crate) state: String,
    /// Since when, in milliseconds since 1970.
    pub(crate) since: u64,
    /// The last thing that went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_error: Option<String>,
    /// How often it was started or connected again.
    pub(crate) restarts: u64,
    /// `needed` where somebody has to sign in to it, `signed-in` where somebody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) oauth: Option<String>,
    /// The last lines that it wrote to stderr, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) stderr: Vec<String>,
}

impl Desk for Arc<Driver> {
    fn journal(&self) -> Arc<dyn Journal> {
        Driver::journal(self).clone()
    }

    fn answers(&self) -> Option<Arc<Answers>> {
        Some(Driver::answers(self).clone())
    }

    fn servers(&self) -> Vec<ServerHealth> {
        self.upstreams().all().iter().map(|upstream| health(upstream)).collect()
    }

    async fn begin_sign_in(
        &self,
        server: &str,
        redirect: &str,
        issuer: Option<&str>,
    ) -> Result<String, String> {
        let upstream =
            self.upstreams().get(server).ok_or_else(|| format!("there is no server `{server}`"))?;
        let auth = upstream.authorizer();
        let auth = auth.ok_or("it is not signed in to: it has no `url`, or `headers` or `oauth` say how")?;
        auth.begin(redirect, issuer).await
    }

    async fn end_sign_in(&self, returned: Returned) -> Result<String, String> {
        for upstream in self.upstreams().all() {
            let Some(auth) = upstream.authorizer().filter(|auth| auth.awaits(&returned.state)) else {
                continue;
            };
            auth.finish(&returned).await?;
            upstream.signed_in();
            return Ok(upstream.name().to_owned());
        }
        Err("nobody is signing in, or that was too long ago".to_owned())
    }

    fn tools(&self, server: &str) -> Option<Arc<Vec<Tool>>> {
        self.upstreams().get(server)?.tools_now()
    }

    fn definition(&self, server: &str, tool: &str) -> Option<Definition> {
        Driver::definition(self, server, tool)
    }

    fn remembered(&self) -> Vec<RememberedView> {
        let all = Driver::remembered(self).into_iter();
        all.map(|(decision, used, silenced)| RememberedView { decision, used, silenced }).collect()
    }

    async fn remember(&self, call: CallId, by: Decider, wish: Wish) -> Result<RememberedView, DecideError> {
        let decision = Driver::remember(self, call, by, wish).await?;
        Ok(RememberedView { decision, used: 0, silenced: None })
    }

    async fn forget(&self, id: RememberedId, by: Decider, reason: String) -> Result<(), DecideError> {
        Driver::forget(self, id, by, reason).await
    }

    async fn trust(
        &self,
        server: &str,
        tool: &str,
        definition: Hash32,
        by: Decider,
    ) -> Result<(), DecideError> {
        Driver::trust(self, server, tool, definition, by).await
    }

    async fn decide(&self, call: CallId, by: Decider, decision: Decision) -> Result<State, DecideError> {
        match decision {
            Decision::Approve(digest) => self.approve(call, digest, by, None).await,
            Decision::BreakGlass(digest, reason) => self.approve(call, digest, by, Some(reason)).await,
            Decision::Revoke(reason) => self.revoke(call, by, reason).await,
            Decision::Edit(seen, arguments) => self.edit(call, seen, arguments, by).await,
            Decision::Respond(digest, answer) => self.respond(call, digest, by, answer).await,
            Decision::Reject(digest, reason) => self.reject(call, Some(digest), by, reason).await,
            Decision::Resolve(how) => self.resolve(call, by, how).await,
            Decision::Cancel => self.cancel(call, by).await,
            Decision::Release => self.release(call, by).await,
        }
    }
}

fn health(upstream: &Upstream) -> ServerHealth {
    let health = upstream.health();
    ServerHealth {
        name: upstream.name().to_owned(),
        identity: upstream.identity().to_string(),
        state: health.state.name().to_owned(),
        since: health.since.0,
        last_error: health.last_error,
        restarts: health.restarts,
        oauth: upstream.authorizer().and_then(|auth| auth.standing()).map(str::to_owned),
        stderr: upstream.last_words(),
    }
}
