//! Servers that behave, misbehave and die, and what a dispatch hears of it.

mod http;
mod oauth;
mod old;
mod rounds;
mod stdio;

use std::{sync::Arc, time::Duration};

use holdfast_store::{Caller, Text};
use tokio::{sync::mpsc, time::timeout};

use super::{Client, Dispatch, Flight, Signal, Upstream, Upstreams};
use crate::config::{ServerConfig, Share, Transport};

/// Nothing that is expected takes as long; what takes longer is a hang.
const PATIENCE: Duration = Duration::from_secs(30);

fn config(transport: Transport, share: Share) -> ServerConfig {
    ServerConfig {
        name: "fake".into(),
        transport,
        prefix: true,
        http: crate::config::Http::default(),
        share,
        trust_annotations: false,
        unexecuted: Vec::new(),
        tasks: crate::config::Tasks::Agents,
        breaker: crate::config::Breaker { failures: 5, window_ms: 30_000, open_ms: 15_000 },
        patience: crate::config::Patience::default(),
    }
}

fn start(config: ServerConfig) -> (Arc<Upstreams>, Arc<Upstream>) {
    let upstreams = Upstreams::start(&[config]);
    let upstream = upstreams.get("fake").expect("it is configured");
    (upstreams, upstream)
}

fn caller(channel: &str) -> Caller {
    Caller { principal: "local".into(), channel: channel.into(), client: String::new() }
}

fn call(tool: &str) -> Dispatch {
    Dispatch {
        attempt: None,
        caller: caller("test"),
        tool: tool.into(),
        arguments: Text::parse("{}").expect("valid JSON"),
        extra: None,
        meta: None,
        headers: Vec::new(),
        client: Client::unknown(),
        identity: None,
    }
}

/// Everything that a dispatch hears.
struct Heard {
    signals: mpsc::UnboundedReceiver<Signal>,
    flight: Flight,
}

fn send(upstream: &Arc<Upstream>, dispatch: Dispatch) -> Heard {
    let (hear, signals) = mpsc::unbounded_channel();
    let flight = upstream.dispatch(dispatch, Box::new(move |signal| drop(hear.send(signal))));
    Heard { signals, flight }
}

impl Heard {
    async fn next(&mut self) -> Signal {
        timeout(PATIENCE, self.signals.recv()).await.expect("no hang").expect("the listener lives")
    }

    /// The next signal, in a form that reads well in an assertion.
    async fn told(&mut self) -> String {
        match self.next().await {
            Signal::Progress(params) => format!("progress {}", params.value()["progress"]),
            Signal::Remarked(remark) => format!("remark {}", remark.method),
            Signal::Asked(question) => format!("asked {}", question.wanted.asks[0].method),
            Signal::Answered(answer) => match answer.text.value()["content"][0]["text"].as_str() {
                Some(text) => format!("answer {text}"),
                None => format!("answer {}", &*answer.text),
            },
            Signal::Refused(refused) => format!(
                "refused code {:?} status {:?} after {:?}",
                refused.code, refused.status, refused.retry_after_ms
            ),
            Signal::Unsent(unsent) => format!("unsent {}", unsent.code),
            Signal::Lost(loss, _) => format!("lost {loss:?}"),
        }
    }
}

/// One call and the first thing that is heard of it.
async fn told(upstream: &Arc<Upstream>, tool: &str) -> String {
    send(upstream, call(tool)).told().await
}
