//! The bank as an MCP server: answers `tools/call`, and suffers the faults that are planned for it.

use std::collections::HashSet;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rmcp::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData, Implementation,
    ListToolsResult, PaginatedRequestParams, ProgressNotificationParam, RequestId, ServerCapabilities,
    ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer};

use crate::fault::{Blow, Faults, Noise, Plan};
use crate::teller::{Teller, tools};

/// Shared by all connections and sessions of one process.
pub(crate) struct Bank {
    teller: Teller,
    faults: Faults,
    tools: Vec<Tool>,
    twice: Mutex<HashSet<RequestId>>,
}

type Answer = Result<CallToolResult, ErrorData>;
type Context = RequestContext<RoleServer>;

impl Bank {
    pub(crate) fn new(teller: Teller, faults: Faults) -> Bank {
        Bank { teller, faults, tools: tools(), twice: Mutex::default() }
    }

    /// Whether the answer to this request is to be sent twice; asking settles it.
    pub(crate) fn take_twice(&self, id: &RequestId) -> bool {
        self.twice.lock().unwrap_or_else(PoisonError::into_inner).remove(id)
    }

    async fn answer(&self, request: CallToolRequestParams, context: &Context) -> Answer {
        let plan = self.faults.plan(&request.name).map_err(|e| ErrorData::internal_error(e, None))?;
        if let Some(answer) = before_commit(&plan, context).await {
            return answer;
        }
        let result = self.teller.call(&request.name, request.arguments.unwrap_or_default())?;
        // What was declined was not committed, so nothing can happen after it.
        if result.is_error != Some(true)
            && let Some(answer) = after_commit(&plan, context).await
        {
            return answer;
        }
        for noise in &plan.noise {
            self.make(*noise, context);
        }
        Ok(result)
    }

    fn make(&self, noise: Noise, context: &Context) {
        match noise {
            Noise::AnswerTwice => {
                self.twice.lock().unwrap_or_else(PoisonError::into_inner).insert(context.id.clone());
            }
            Noise::Garbage => {
                // Past the transport, which would refuse; a reader that is gone is not our concern here.
                let _ = writeln!(std::io::stdout(), "garbage: {{this is not JSON");
            }
        }
    }
}

impl ServerHandler for Bank {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("bank", env!("CARGO_PKG_VERSION")))
            .with_instructions(
                "alice and bob open with 1000, mint with a million million, others with 0. Amounts are whole units.",
            )
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tools.clone()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.tools.iter().find(|tool| tool.name == name).cloned()
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: Context,
    ) -> Result<CallToolResponse, ErrorData> {
        self.answer(request, &context).await.map(CallToolResponse::from)
    }
}

/// The answer, if the call ends here.
async fn before_commit(plan: &Plan, context: &Context) -> Option<Answer> {
    if let Err(error) = wait_with_progress(plan, context).await {
        return Some(Err(error));
    }
    match plan.before? {
        Blow::TryLater => {
            Some(Ok(CallToolResult::error(vec![ContentBlock::text("try again later; nothing was done")])))
        }
        blow => Some(strike(blow, "before", context).await),
    }
}

/// The answer, if the call ends here.
async fn after_commit(plan: &Plan, context: &Context) -> Option<Answer> {
    if !plan.slow_after.is_zero() {
        tokio::time::sleep(plan.slow_after).await;
    }
    Some(strike(plan.after?, "after", context).await)
}

async fn strike(blow: Blow, moment: &str, context: &Context) -> Answer {
    match blow {
        Blow::Die => std::process::abort(),
        Blow::Error | Blow::TryLater => {
            Err(ErrorData::internal_error(format!("the bank failed {moment} the commit"), None))
        }
        Blow::Hang => {
            // Until the caller gives up or the process ends; in both cases the transport drops this error.
            context.ct.cancelled().await;
            Err(cancelled())
        }
    }
}

/// Waits `slow`, in as many parts as there are notifications to send. Cancellation ends the wait.
async fn wait_with_progress(plan: &Plan, context: &Context) -> Result<(), ErrorData> {
    let parts = plan.progress.max(1);
    for part in 1..=parts {
        wait(plan.slow / parts, context).await?;
        if plan.progress > 0
            && let Some(token) = context.meta.get_progress_token()
        {
            let progress =
                ProgressNotificationParam::new(token, f64::from(part)).with_total(f64::from(parts));
            // Whoever stopped listening may still want the transfer.
            let _ = context.peer.notify_progress(progress).await;
        }
    }
    Ok(())
}

async fn wait(time: Duration, context: &Context) -> Result<(), ErrorData> {
    if time.is_zero() {
        return Ok(());
    }
    tokio::select! {
        biased;
        () = context.ct.cancelled() => Err(cancelled()),
        () = tokio::time::sleep(time) => Ok(()),
    }
}

fn cancelled() -> ErrorData {
    ErrorData::internal_error("cancelled", None)
}
