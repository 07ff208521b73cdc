//! Somebody who is told: one message, once, in their way.

use std::sync::Arc;

use reqwest::Client;
use tokio::sync::OnceCell;

use super::{
    Failure, Outlook, command, formats,
    guard::System,
    http::{self, Post},
    message::Message,
};
use crate::{
    config::{SinkConfig, Way},
    driver::now,
};

/// A configured sink, ready to send.
pub(super) struct Sink {
    pub(super) config: SinkConfig,
    /// Made with the first request: reading the system's certificates takes a moment.
    client: OnceCell<Client>,
}

impl Sink {
    pub(super) fn new(config: SinkConfig) -> Self {
        Self { config, client: OnceCell::new() }
    }

    /// Sends it once, and says how that was acknowledged.
    ///
    /// # Errors
    /// What came of it, and whether another try may help.
    pub(super) async fn send(&self, message: &Message) -> Result<String, Failure> {
        let ((headers, body), url) = match &self.config.way {
            Way::Command { program, args } => return command::run(program, args, message).await,
            Way::Webhook { url, secret } => (formats::webhook(message, secret, now()), url),
            Way::Slack { url } => (formats::slack(message), url),
            Way::Ntfy { url, token } => (formats::ntfy(message, token.as_ref()), url),
        };
        let reach = self.config.reach;
        let client = self.client.get_or_try_init(async || http::client(url, reach, Arc::new(System))).await;
        let client = client.map_err(|what| Failure { what, outlook: Outlook::Later(None) })?;
        http::send(client, Post { url, headers, body }, reach).await
    }
}
