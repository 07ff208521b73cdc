//! The transport of 2024-11-05: one stream by GET brings everything that the server says, and what is posted is only
//! taken (202). The stream's first event says where to post; its end is the end of the session.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use reqwest::{
    StatusCode, Url,
    header::{ACCEPT, HeaderValue},
};
use tokio::time::timeout;

use super::{Post, Web, content_type, in_full, stream::Place};
use crate::{
    upstream::{Refused, Signal, Unsent, era::Era, id::RequestId},
    wire,
};

/// How long a server may take to say where to post.
const LIMIT: Duration = Duration::from_secs(5);

impl Web {
    /// Whether the server is spoken to in this way.
    pub(super) fn is_old(&self) -> bool {
        self.address.old.load(Ordering::Relaxed)
    }

    /// Whether a server that refused `initialize` with this status speaks in this way, as 2025-11-25 has clients find
    /// out ("Backwards Compatibility").
    pub(super) async fn turns_out_old(self: &Arc<Self>, status: StatusCode, post: &Post) -> bool {
        let refused = [StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED];
        if post.method != "initialize" || self.is_old() || !refused.contains(&status) {
            return false;
        }
        let is_old = self.posts_to().await.is_ok();
        if is_old {
            tracing::info!(target: "upstream", server = &*self.address.server, "the server speaks the old SSE transport");
            self.address.old.store(true, Ordering::Relaxed);
        }
        is_old
    }

    /// Posts a request whose answer the stream will bring.
    pub(super) async fn exchange_old(self: &Arc<Self>, id: RequestId, text: String, post: &Post) {
        if post.method == "server/discover" {
            // Nobody spoke that when this was the transport, and some servers are mute to what they do not know.
            let error =
                wire::error_member(wire::METHOD_NOT_FOUND, "the old transport has no server/discover", None);
            let refused =
                Refused { error, code: Some(wire::METHOD_NOT_FOUND), status: None, retry_after_ms: None };
            return self.peer.settle(id, Signal::Refused(refused));
        }
        let to = match self.posts_to().await {
            Ok(to) => to,
            Err(message) => {
                self.retire("it cannot be reached");
                let unsent = Unsent { code: "upstream-unreachable", message };
                return self.peer.settle(id, Signal::Unsent(unsent));
            }
        };
        let body = Bytes::from(text);
        let request = || self.address.client.post(to.clone()).headers(self.headers(post)).body(body.clone());
        match self.signed(request).await {
            Ok((response, _)) if response.status().is_success() => {}
            Ok((response, to_do)) => {
                let signal = self.refusal(response, post, to_do).await;
                self.peer.settle(id, signal);
            }
            Err(error) => self.peer.settle(id, self.not_sent(&error)),
        }
    }

    /// Where to post: known once the stream is open.
    ///
    /// # Errors
    /// Why it could not be opened.
    pub(super) async fn posts_to(self: &Arc<Self>) -> Result<Url, String> {
        self.posts.get_or_try_init(|| self.open_stream()).await.cloned()
    }

    async fn open_stream(self: &Arc<Self>) -> Result<Url, String> {
        let server = &self.address.server;
        let mut headers = self.common(&Era::Opening);
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        let request = || self.address.client.get(self.address.url.clone()).headers(headers.clone());
        let response = match timeout(LIMIT, self.signed(request)).await {
            Ok(Ok((_, Some(to_do)))) => return Err(format!("server `{server}` refuses us: {to_do}")),
            Ok(Ok((response, None))) => response,
            Ok(Err(error)) => {
                return Err(format!("server `{server}` cannot be reached: {}", in_full(&error)));
            }
            Err(_) => return Err(format!("server `{server}` did not open its stream in time")),
        };
        if !response.status().is_success() || content_type(&response) != "text/event-stream" {
            return Err(format!("server `{server}` has no stream of events (HTTP {})", response.status()));
        }
        let mut told = self.endpoint.subscribe();
        let web = self.clone();
        let stream = tokio::spawn(async move {
            let era = Era::Legacy("2024-11-05".into());
            web.hear_out(response, &mut Place::default(), &era, None).await;
            web.session_over.store(true, Ordering::Relaxed);
            web.retire("its stream of events has ended");
            web.peer.close(&web.cause());
        });
        // As long as the connection: whoever ends it ends this.
        let id = RequestId::fresh();
        self.running.lock().expect("nothing panics while it holds the map").insert(id, stream.abort_handle());
        let endpoint = match timeout(LIMIT, told.wait_for(Option::is_some)).await {
            Ok(Ok(endpoint)) => endpoint.clone().unwrap_or_default(),
            _ => {
                stream.abort();
                return Err(format!("server `{server}` did not say where to post"));
            }
        };
        let to = self.address.url.join(&endpoint);
        match to {
            // Credentials go along, so they go nowhere else.
            Ok(to) if to.origin() == self.address.url.origin() => Ok(to),
            _ => {
                stream.abort();
                Err(format!(
                    "server `{server}` wants messages posted to another place, which is not done: {endpoint}"
                ))
            }
        }
    }
}
