//! One configured server: its instances, its tools, and the way of a call to it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use holdfast_store::{Answer, Caller, Trouble};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    Dispatch, Health, HealthState, Judge, Signal, Tool, UNTRUSTED, Unsent,
    catalog::Catalog,
    instance::{Instance, Keep, START_LIMIT, Shared},
    link::Link,
    peer::{Listener, RequestId},
};
use crate::config::{ServerConfig, Share};

/// An MCP server behind us.
pub(crate) struct Upstream {
    shared: Arc<Shared>,
    identity: String,
    instances: Mutex<Instances>,
}

#[derive(Default)]
struct Instances {
    by_sharer: HashMap<String, Arc<Instance>>,
    stopped: bool,
}

impl Upstream {
    /// Needs a tokio runtime. A server that all share is started at once, so that its tools are known soon.
    pub(super) fn start(config: &ServerConfig, changed: watch::Sender<u64>, judge: Judge) -> Arc<Self> {
        let upstream = Arc::new(Self {
            identity: config.identity(),
            shared: Arc::new(Shared::new(config.clone(), changed, judge)),
            instances: Mutex::default(),
        });
        if config.share == Share::All {
            upstream.instances().of(String::new(), &upstream.shared, Keep::Open);
        }
        upstream
    }

    pub(crate) fn config(&self) -> &ServerConfig {
        &self.shared.config
    }

    /// Command line or URL: what is really spoken to.
    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    pub(crate) fn health(&self) -> Health {
        self.shared.health.lock().expect("nothing panics while it holds the health").clone()
    }

    /// The tools in the server's order: the last good list, even while the server is down. Waits for the first one.
    ///
    /// # Errors
    /// Where there never was a list, and the server does not give one within 10 s.
    pub(crate) async fn tools(&self, caller: &Caller) -> Result<Arc<Vec<Tool>>, Unsent> {
        if let Some(catalog) = self.shared.catalog() {
            return Ok(catalog.tools.clone());
        }
        let link = self.instance(caller)?.opened(&self.shared.name).await?;
        if let Some(catalog) = self.shared.catalog() {
            return Ok(catalog.tools.clone());
        }
        // The connection was opened although its list failed: perhaps now.
        let catalog = match timeout(START_LIMIT, Catalog::fetch(&link, &self.shared.name)).await {
            Ok(Ok(catalog)) => catalog,
            Ok(Err(error)) => return Err(link.unsent(error)),
            Err(_) => return Err(self.unsent("did not list its tools in time".to_owned())),
        };
        let tools = catalog.tools.clone();
        self.shared.listed(&link, catalog);
        Ok(tools)
    }

    /// The tools of a server that is there now: of one that is not, it is opened first, as a dispatch would.
    ///
    /// # Errors
    /// Where it cannot be opened, or never gave a list.
    pub(crate) async fn tools_opened(&self, caller: &Caller) -> Result<Arc<Vec<Tool>>, Unsent> {
        self.instance(caller)?.opened(&self.shared.name).await?;
        self.tools(caller).await
    }

    /// A tool of the last good list, without waiting.
    pub(crate) fn tool_now(&self, name: &str) -> Option<Tool> {
        self.shared.catalog()?.tool(name).cloned()
    }

    /// All tools of the last good list, without waiting.
    pub(crate) fn tools_now(&self) -> Option<Arc<Vec<Tool>>> {
        Some(self.shared.catalog()?.tools.clone())
    }

    /// Sends a call. `on` hears what it brings, from the task that reads the connection: it must not block. A call
    /// that cannot be sent can be heard of before this returns.
    ///
    /// Where the server is not there yet, the call waits for it for up to 10 s. Dropping the flight changes nothing.
    pub(crate) fn dispatch(
        self: &Arc<Self>,
        dispatch: Dispatch,
        on: Box<dyn Fn(Signal) + Send + Sync>,
    ) -> Flight {
        let flight = Flight { place: Arc::new(Mutex::new(Place::Waiting(None))) };
        let instance = match self.instance(&dispatch.caller) {
            Ok(instance) => instance,
            Err(unsent) => {
                flight.swap(Place::Never);
                on(Signal::Unsent(unsent));
                return flight;
            }
        };
        let counted = instance.clone();
        let listener: Listener = Arc::new(move |signal| {
            if matches!(signal, Signal::Answered(_)) {
                counted.answered();
            }
            on(signal);
        });
        match instance.link() {
            Some(link) => flight.send(&self.shared, link, &dispatch, listener),
            None => {
                let (flight, shared) = (flight.clone(), self.shared.clone());
                tokio::spawn(async move {
                    match instance.opened(&shared.name).await {
                        Ok(link) => flight.send(&shared, link, &dispatch, listener),
                        Err(unsent) => {
                            flight.swap(Place::Never);
                            listener(Signal::Unsent(unsent));
                        }
                    }
                });
            }
        }
        flight
    }

    /// Sends a call and waits for its answer. For calls that change nothing.
    ///
    /// # Errors
    /// Why there is no answer, with the server's own error if it gave one.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        dispatch: Dispatch,
        limit: Duration,
    ) -> Result<Answer, Trouble> {
        let (hear, mut heard) = mpsc::unbounded_channel();
        let tool = dispatch.tool.clone();
        let flight = self.dispatch(dispatch, Box::new(move |signal| drop(hear.send(signal))));
        let answer = async {
            while let Some(signal) = heard.recv().await {
                match signal {
                    Signal::Progress(_) => {}
                    Signal::Answered(answer) => return Ok(answer),
                    Signal::Refused(refused) => {
                        let message = format!("server `{}` refused `{tool}`", self.shared.name);
                        return Err(Trouble {
                            upstream: Some(refused.error),
                            ..Trouble::new("refused", message)
                        });
                    }
                    Signal::Unsent(unsent) => return Err(Trouble::new(unsent.code, unsent.message)),
                    Signal::Lost(_, message) => return Err(Trouble::new("outcome-unknown", message)),
                }
            }
            Err(Trouble::new("outcome-unknown", "the connection has ended"))
        };
        match timeout(limit, answer).await {
            Ok(answer) => answer,
            Err(_) => {
                flight.cancel("timed out");
                let message = format!(
                    "server `{}` did not answer `{tool}` within {} ms",
                    self.shared.name,
                    limit.as_millis()
                );
                Err(Trouble::new("call-timeout", message))
            }
        }
    }

    /// Ends every process and session of the server, and waits for that.
    pub(super) async fn stop(&self) {
        let instances = {
            let mut instances = self.instances();
            instances.stopped = true;
            std::mem::take(&mut instances.by_sharer)
        };
        stop_all(instances.into_values()).await;
    }

    /// Ends the instances that nobody has used for longer than `limit`. One that all share stays.
    pub(super) async fn sweep(&self, limit: Duration) {
        if self.shared.config.share == Share::All {
            return;
        }
        let (idle, left) = {
            let mut instances = self.instances();
            let idle: Vec<_> =
                instances.by_sharer.extract_if(|_, instance| instance.is_idle(limit)).collect();
            (idle, instances.by_sharer.len())
        };
        if !idle.is_empty() {
            tracing::info!(target: "upstream", server = &*self.shared.name, ended = idle.len(), left, "idle instances end");
            stop_all(idle.into_iter().map(|(_, instance)| instance)).await;
            if left == 0 {
                self.shared.report(HealthState::Idle, None);
            }
        }
    }

    fn instance(&self, caller: &Caller) -> Result<Arc<Instance>, Unsent> {
        let (sharer, keep) = match self.shared.config.share {
            Share::All => (String::new(), Keep::Open),
            Share::Session => (caller.channel.clone(), Keep::OnDemand),
            Share::Principal => (caller.principal.clone(), Keep::OnDemand),
        };
        let mut instances = self.instances();
        if instances.stopped {
            return Err(self.unsent("was stopped".to_owned()));
        }
        Ok(instances.of(sharer, &self.shared, keep))
    }

    fn instances(&self) -> MutexGuard<'_, Instances> {
        self.instances.lock().expect("nothing panics while it holds the instances")
    }

    fn unsent(&self, what: String) -> Unsent {
        Unsent { code: "upstream-unreachable", message: format!("server `{}` {what}", self.shared.name) }
    }
}

impl Instances {
    fn of(&mut self, sharer: String, shared: &Arc<Shared>, keep: Keep) -> Arc<Instance> {
        self.by_sharer.entry(sharer).or_insert_with(|| Instance::start(shared.clone(), keep)).clone()
    }
}

/// All at once: each may take its whole grace.
async fn stop_all(instances: impl Iterator<Item = Arc<Instance>>) {
    futures_util::future::join_all(instances.map(|instance| async move { instance.stop().await })).await;
}

/// A call on its way. Dropping it cancels nothing: late answers still arrive.
#[derive(Clone)]
pub(crate) struct Flight {
    place: Arc<Mutex<Place>>,
}

enum Place {
    /// The server is not there yet; the reason of a withdrawal that came meanwhile.
    Waiting(Option<String>),
    /// Being handed to the connection; the same.
    Sending(Option<String>),
    Sent(Link, RequestId),
    /// It never left.
    Never,
}

impl Flight {
    /// Tells the server that the answer is not wanted; an answer that comes all the same is still passed on. A call
    /// that has not left is not sent, and `on` hears that.
    pub(crate) fn cancel(&self, reason: &str) {
        let (link, id) = match &mut *self.place() {
            Place::Waiting(withdrawn) | Place::Sending(withdrawn) => {
                *withdrawn = Some(reason.to_owned());
                return;
            }
            Place::Sent(link, id) => (link.clone(), *id),
            Place::Never => return,
        };
        link.withdraw(id, reason);
    }

    /// Takes the call back if the server was not there to take it. True: it has not left and never will, and `on` need
    /// not say so.
    pub(crate) fn recall(&self) -> bool {
        let mut place = self.place();
        let waiting = matches!(*place, Place::Waiting(_));
        if waiting {
            *place = Place::Never;
        }
        waiting
    }

    /// Whether the process or session that the call was sent to no longer exists: whatever it was doing is over.
    /// Without a session, by HTTP, only the end of the call's own stream can be told.
    pub(crate) fn gone(&self) -> bool {
        match &*self.place() {
            Place::Waiting(_) | Place::Sending(_) => false,
            Place::Sent(link, id) => link.is_gone(*id),
            Place::Never => true,
        }
    }

    fn send(&self, shared: &Shared, link: Link, dispatch: &Dispatch, listener: Listener) {
        match self.swap(Place::Sending(None)) {
            Place::Never => {
                self.swap(Place::Never);
                return;
            }
            Place::Waiting(Some(reason)) => {
                self.swap(Place::Never);
                let message = format!("withdrawn before server `{}` was there: {reason}", shared.name);
                listener(Signal::Unsent(Unsent { code: "upstream-unreachable", message }));
                return;
            }
            Place::Waiting(None) | Place::Sending(_) | Place::Sent(..) => {}
        }
        // Looked at here, at the last moment: the process may be another one than the one whose list was looked at before.
        if !shared.trusts(&link, &dispatch.tool) {
            self.swap(Place::Never);
            let message = format!(
                "server `{}` defines `{}` otherwise than when it was trusted, so nothing was sent",
                shared.name, dispatch.tool
            );
            listener(Signal::Unsent(Unsent { code: UNTRUSTED, message }));
            return;
        }
        let id = RequestId::fresh();
        let mirrored = || {
            shared
                .catalog()
                .map_or_else(Vec::new, |catalog| catalog.mirrored(&dispatch.tool, &dispatch.arguments))
        };
        // This can call back into the flight, so no lock is held.
        link.call(id, dispatch, mirrored, listener);
        if let Place::Sending(Some(reason)) = self.swap(Place::Sent(link.clone(), id)) {
            link.withdraw(id, &reason);
        }
    }

    fn swap(&self, place: Place) -> Place {
        std::mem::replace(&mut *self.place(), place)
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().expect("nothing panics while it holds the place")
    }
}
