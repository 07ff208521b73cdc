//! Asking servers for their tools, all at once, as `serve` would.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream::FuturesUnordered};
use holdfast_store::Caller;

use crate::{
    config::ServerConfig,
    upstream::{Tool, Upstreams},
};

/// What a server said.
#[derive(Debug)]
pub(in crate::cli) struct Asked {
    /// Its name here.
    pub(in crate::cli) server: String,
    /// Its tools, or why there are none.
    pub(in crate::cli) tools: Result<Vec<Tool>, String>,
    /// How long it took.
    pub(in crate::cli) took: Duration,
}

/// Starts or connects to each server, lists its tools, and ends it again. `on` hears each as soon as it is known.
pub(in crate::cli) fn ask(servers: &[ServerConfig], limit: Duration, on: &dyn Fn(&Asked)) -> Vec<Asked> {
    if servers.is_empty() {
        return Vec::new();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a process that was just started can have threads");
    let mut asked = runtime.block_on(ask_all(servers, limit, on));
    runtime.shutdown_background();
    asked.sort_by_key(|one| servers.iter().position(|server| server.name == one.server));
    asked
}

/// Why a server gave no list, without its name.
pub(in crate::cli) fn plain<'a>(why: &'a str, server: &str) -> &'a str {
    let named = [format!("server `{server}`: "), format!("server `{server}` ")];
    named.iter().find_map(|name| why.strip_prefix(name.as_str())).unwrap_or(why)
}

async fn ask_all(servers: &[ServerConfig], limit: Duration, on: &dyn Fn(&Asked)) -> Vec<Asked> {
    let upstreams = Upstreams::start(servers);
    let begun = Instant::now();
    let caller = Caller { principal: "local".to_owned(), channel: "setup".to_owned(), client: String::new() };
    let mut answers = FuturesUnordered::new();
    for upstream in upstreams.all() {
        let caller = &caller;
        answers.push(async move {
            let tools = match tokio::time::timeout(limit, upstream.tools(caller)).await {
                Ok(Ok(tools)) => Ok(tools.to_vec()),
                Ok(Err(unsent)) => Err(unsent.message),
                Err(_) => Err(format!("it did not list its tools within {} s", limit.as_secs())),
            };
            Asked { server: upstream.config().name.clone(), tools, took: begun.elapsed() }
        });
    }
    let mut asked = Vec::new();
    while let Some(one) = answers.next().await {
        on(&one);
        asked.push(one);
    }
    drop(answers);
    upstreams.stop().await;
    asked
}
