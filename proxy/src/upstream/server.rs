//! One configured server: its instances, its tools, and the way of a call to it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, RwLock},
    time::Duration,
};

use holdfast_store::{Answer, Caller, Millis, Trouble};
use serde_json::Value;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Authorizer, Client, Dispatch, Health, HealthState, RECONFIGURED, Relayed, Sharer, Signal, Speaks, Tool,
    Unsent, Wanted, Way,
    catalog::Catalog,
    errand,
    flight::Flight,
    instance::{For, Instance, Keep, START_LIMIT},
    kept::Again,
    link::Offer,
    peer::Listener,
    relay::Parcel,
    round::{Going, Round, once_begun},
    shared::{Common, Shared},
};
use crate::{
    config::{ServerConfig, Share, Transport},
    keeper::Kept,
    wire,
};

/// An MCP server behind us: whatever the configuration has under its name, from the first time on.
pub(crate) struct Upstream {
    name: Arc<str>,
    /// Another one once the configuration has another server under this name.
    pub(super) shared: RwLock<Arc<Shared>>,
    pub(super) instances: Mutex<Instances>,
}

pub(super) struct Instances {
    /// By whom they are for and, by HTTP, the era: a server that speaks both is spoken to in the agent's own.
    pub(super) by_sharer: HashMap<(Sharer, Speaks), Arc<Instance>>,
    pub(super) door: Door,
    /// What has to end before anything is opened: what the configuration had under this name before.
    pub(super) after: CancellationToken,
}

/// Whether new calls are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Open,
    /// The configuration does not have the server any more.
    Away,
    /// Holdfast stops.
    Stopped,
}

impl Upstream {
    /// Needs a tokio runtime. A server that all share is started at once, so that its tools are known soon.
    pub(super) fn start(
        config: &ServerConfig,
        common: Common,
        (kept, ready): (Vec<Kept>, &CancellationToken),
    ) -> Arc<Self> {
        let shared = Arc::new(Shared::new(config.clone(), common));
        let upstream = Arc::new(Self {
            name: shared.name.clone(),
            shared: RwLock::new(shared.clone()),
            instances: Mutex::new(Instances::none(Door::Open)),
        });
        for (sharer, speaks) in shared.estate.take_over(&shared, kept, ready) {
            upstream.instances().of(sharer, speaks, &shared, &Client::unknown()).want();
        }
        if config.share == Share::All {
            upstream.instances().of(Sharer::All, Speaks::Legacy, &shared, &Client::unknown());
        }
        upstream
    }

    /// A server that the configuration does not have: it takes no calls until it has one under this name.
    pub(super) fn absent(shared: Shared) -> Arc<Self> {
        Arc::new(Self {
            name: shared.name.clone(),
            shared: RwLock::new(Arc::new(shared)),
            instances: Mutex::new(Instances::none(Door::Away)),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.shared().config()
    }

    /// Command line or URL: what is really spoken to.
    pub(crate) fn identity(&self) -> Arc<str> {
        self.shared().identity.clone()
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        self.shared.read().expect("nothing panics while it holds the server").clone()
    }

    /// Who signs in to it; none where nobody can.
    pub(crate) fn authorizer(&self) -> Option<Arc<Authorizer>> {
        self.shared().authorizer()
    }

    /// Somebody has signed in to it.
    pub(crate) fn signed_in(&self) {
        self.instances().by_sharer.values().for_each(|instance| instance.try_again());
    }

    /// What it wrote to stderr last, the newest line last; nothing where it is no process of ours.
    pub(crate) fn last_words(&self) -> Vec<String> {
        self.shared().last_words()
    }

    pub(crate) fn health(&self) -> Health {
        self.shared().health.lock().expect("nothing panics while it holds the health").clone()
    }

    /// The tools in the server's order: the last good list, even while the server is down. Waits for the first one.
    ///
    /// # Errors
    /// Where there never was a list, and the server does not give one within 10 s.
    pub(crate) async fn tools(&self, caller: &Caller) -> Result<Arc<Vec<Tool>>, Unsent> {
        if let Some(catalog) = self.shared().catalog() {
            return Ok(catalog.tools.clone());
        }
        let (instance, shared) = self.instance(caller, &Client::unknown())?;
        let link = instance.opened(&self.name).await?;
        if let Some(catalog) = shared.catalog() {
            return Ok(catalog.tools.clone());
        }
        // The connection was opened although its list failed: perhaps now.
        let catalog = match timeout(START_LIMIT, Catalog::fetch(&link, &self.name)).await {
            Ok(Ok(catalog)) => catalog,
            Ok(Err(error)) => return Err(link.unsent(error)),
            Err(_) => return Err(self.unsent("did not list its tools in time".to_owned())),
        };
        let tools = catalog.tools.clone();
        shared.listed(&link, catalog);
        Ok(tools)
    }

    /// The tools of a server that is there now: of one that is not, it is opened first, as a dispatch would.
    ///
    /// # Errors
    /// Where it cannot be opened, or never gave a list.
    pub(crate) async fn tools_opened(&self, caller: &Caller) -> Result<Arc<Vec<Tool>>, Unsent> {
        self.instance(caller, &Client::unknown())?.0.opened(&self.name).await?;
        self.tools(caller).await
    }

    /// A tool of the last good list, without waiting.
    pub(crate) fn tool_now(&self, name: &str) -> Option<Tool> {
        self.shared().catalog()?.tool(name).cloned()
    }

    /// All tools of the last good list, without waiting.
    pub(crate) fn tools_now(&self) -> Option<Arc<Vec<Tool>>> {
        Some(self.shared().catalog()?.tools.clone())
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
        self.send(Parcel::Call(Arc::new(dispatch)), on)
    }

    /// Sends a request that is no call; the same as [`Upstream::dispatch`] otherwise.
    pub(crate) fn relay(self: &Arc<Self>, relayed: Relayed, on: Box<dyn Fn(Signal) + Send + Sync>) -> Flight {
        self.send(Parcel::Relayed(Arc::new(relayed)), on)
    }

    fn send(self: &Arc<Self>, parcel: Parcel, on: Box<dyn Fn(Signal) + Send + Sync>) -> Flight {
        let flight = Flight::new();
        let (parcel, on) = errand::equip(self, &self.shared(), parcel, &flight, Arc::from(on));
        let (instance, shared) = match self.instance_for(&parcel) {
            Ok(found) => found,
            Err(unsent) => {
                flight.never();
                on(Signal::Unsent(unsent));
                return flight;
            }
        };
        if let Some(unsent) = instance.hung(&self.name) {
            flight.never();
            on(Signal::Unsent(unsent));
            return flight;
        }
        let counted = instance.clone();
        let listener: Listener = Arc::new(move |signal| {
            if matches!(signal, Signal::Answered(_)) {
                counted.answered();
            }
            on(signal);
        });
        match instance.link() {
            Some(link) => flight.send(&shared, link, &parcel, listener),
            None => {
                let flight = flight.clone();
                tokio::spawn(async move {
                    match instance.opened(&shared.name).await {
                        Ok(link) => flight.send(&shared, link, &parcel, listener),
                        Err(unsent) => {
                            flight.never();
                            listener(Signal::Unsent(unsent));
                        }
                    }
                });
            }
        }
        flight
    }

    /// Tells the server something on behalf of an agent, where it is there to hear it.
    pub(crate) fn tell(&self, relayed: &Relayed) {
        let key = Self::key(&self.shared(), &relayed.caller, &relayed.client);
        let instance = self.instances().by_sharer.get(&key).cloned();
        if let Some(link) = instance.and_then(|instance| instance.link()) {
            link.tell(relayed);
        }
    }

    /// What the server says of itself: the result of `initialize` or `server/discover`. Waits for it to be there.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub(crate) async fn about(&self, caller: &Caller, client: &Arc<Client>) -> Result<Arc<Value>, Unsent> {
        let (instance, _) = self.instance(caller, client)?;
        instance.opened(&self.name).await?;
        let about = instance.offer().map(|Offer { about, .. }| about);
        about.ok_or_else(|| self.unsent("has just ended".to_owned()))
    }

    /// The same, as far as it is known without waiting.
    pub(crate) fn about_now(&self) -> Option<Arc<Value>> {
        self.instances().by_sharer.values().find_map(|instance| Some(instance.offer()?.about))
    }

    /// Whether it has said, in either era, that it makes tasks of calls as 2025-11-25 has them; and whether it cancels those.
    pub(crate) fn legacy_tasks(&self) -> Option<bool> {
        let instances = self.instances();
        let offers = instances.by_sharer.values().filter_map(|instance| instance.offer());
        let mut tasks = offers.map(|offer| offer.about["capabilities"]["tasks"].clone());
        let tasks = tasks.find(|tasks| tasks["requests"]["tools"]["call"].is_object())?;
        Some(tasks["cancel"].is_object())
    }

    /// Asks for the updates of exactly these resources, where the server is there and is to be asked in this way.
    pub(crate) fn subscribe_to(&self, caller: &Caller, client: &Arc<Client>, resources: &BTreeSet<String>) {
        let Ok((instance, _)) = self.instance(caller, client) else { return };
        if let Some(link) = instance.link().filter(|link| link.speaks() == Speaks::Modern) {
            link.subscribe_to(resources.clone());
        }
    }

    /// In which era the server is spoken to on behalf of this agent; none while it is not there.
    pub(crate) fn speaks(&self, caller: &Caller, client: &Arc<Client>) -> Option<Speaks> {
        Some(self.instance(caller, client).ok()?.0.link()?.speaks())
    }

    /// Finds out what became of an attempt that an earlier life meant to send at this time or later, and lets `on` hear
    /// what is still to come of it. `wanted` is what the server has asked for last, and whether it was answered.
    pub(crate) fn again(
        self: &Arc<Self>,
        dispatch: Dispatch,
        meant: Millis,
        wanted: Option<(&Wanted, bool)>,
        on: Box<dyn Fn(Signal) + Send + Sync>,
    ) -> Again {
        let shared = self.shared();
        let parcel = Parcel::Call(Arc::new(dispatch));
        let on: Listener = Arc::from(on);
        if let Some(flight) = errand::take_up(self, &shared, &parcel, &on) {
            return Again::Awaited(flight);
        }
        let is_round = wanted.is_some_and(|(wanted, _)| matches!(wanted.way, Way::Round { .. }));
        match (&shared.config().transport, wanted) {
            (Transport::Stdio { .. }, _) => {
                // What it says of a task may be the first that is read of it.
                let (_, on) = errand::equip(self, &shared, parcel.clone(), &Flight::of_asked(0), on);
                shared.estate.again(&shared, &parcel, meant, wanted, on)
            }
            (Transport::Http { .. }, Some((wanted, false))) if is_round => {
                self.ask_again(&shared, parcel, wanted, on).map_or(Again::Unknown, Again::Awaited)
            }
            // It may have been sent on, and of that nothing is left.
            (Transport::Http { .. }, _) if is_round => Again::Unknown,
            (Transport::Http { .. }, _) => shared.estate.take_up(&shared, &parcel, wanted, on),
        }
    }

    /// Asks again what the server wanted to know in an earlier life. It holds nothing open meanwhile, so that any
    /// connection will do for the answer.
    fn ask_again(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        parcel: Parcel,
        wanted: &Wanted,
        listener: Listener,
    ) -> Option<Flight> {
        let Way::Round { round, state } = wanted.way.clone() else { return None };
        let going = Going { flight: Flight::of_asked(round), shared: shared.clone(), parcel, listener };
        let (upstream, later) = (self.clone(), going.clone());
        going.ask(wanted.clone(), move |answers| {
            tokio::spawn(async move {
                let opened = match upstream.instance_for(&later.parcel) {
                    Ok((instance, shared)) => instance.opened(&shared.name).await,
                    Err(unsent) => Err(unsent),
                };
                match opened {
                    Ok(link) => Round { going: later, link, number: round, state }.go_on(answers),
                    Err(unsent) => once_begun(&later.shared, later.listener)(Signal::Unsent(unsent)),
                }
            });
        });
        Some(going.flight)
    }

    /// Everybody who may be owed an answer by a server of an earlier life has said so.
    pub(super) fn settled(&self) {
        self.shared().estate.settled();
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
                    Signal::Progress(_) | Signal::Remarked(_) => {}
                    Signal::Asked(question) => {
                        let why = "this call has no agent behind it that could be asked";
                        question.refuse(&wire::error_member(wire::METHOD_NOT_FOUND, why, None));
                    }
                    Signal::Answered(answer) => return Ok(answer),
                    Signal::Refused(refused) => {
                        let message = format!("server `{}` refused `{tool}`", self.name);
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
                let message =
                    format!("server `{}` did not answer `{tool}` within {} ms", self.name, limit.as_millis());
                Err(Trouble::new("call-timeout", message))
            }
        }
    }

    /// Ends every process and session of the server, and waits for that.
    pub(super) async fn stop(&self) {
        let instances = {
            let mut instances = self.instances();
            instances.door = Door::Stopped;
            std::mem::take(&mut instances.by_sharer)
        };
        stop_all(instances.into_values()).await;
    }

    /// Ends the instances that nobody has used for longer than `limit`. One that all share stays.
    pub(super) async fn sweep(&self, limit: Duration) {
        let shared = self.shared();
        let (idle, left) = {
            let mut instances = self.instances();
            let may_end = |instance: &Instance| instance.keep() == Keep::OnDemand && instance.is_idle(limit);
            let idle: Vec<_> = instances.by_sharer.extract_if(|_, instance| may_end(instance)).collect();
            (idle, instances.by_sharer.len())
        };
        if !idle.is_empty() {
            tracing::info!(target: "upstream", server = &*self.name, ended = idle.len(), left, "idle instances end");
            stop_all(idle.into_iter().map(|(_, instance)| instance)).await;
            if left == 0 {
                shared.report(HealthState::Idle, None);
            }
        }
    }

    /// Whose instance serves this agent.
    fn key(shared: &Shared, caller: &Caller, client: &Client) -> (Sharer, Speaks) {
        let config = shared.config();
        let sharer = match config.share {
            Share::All => Sharer::All,
            Share::Session => Sharer::Channel(caller.channel.as_str().into()),
            Share::Principal => Sharer::Principal(caller.principal.as_str().into()),
        };
        let speaks = match config.transport {
            // A process is begun once.
            Transport::Stdio { .. } => Speaks::Legacy,
            Transport::Http { .. } => shared.best_for(client.speaks),
        };
        (sharer, speaks)
    }

    /// The instance for whoever asks, with what it shares with others: both from one moment.
    fn instance(
        &self,
        caller: &Caller,
        client: &Arc<Client>,
    ) -> Result<(Arc<Instance>, Arc<Shared>), Unsent> {
        let mut instances = self.instances();
        let shared = self.shared();
        match instances.door {
            Door::Open => {}
            Door::Away => {
                let message = format!("server `{}` is not in the configuration any more", self.name);
                return Err(Unsent { code: RECONFIGURED, message });
            }
            Door::Stopped => return Err(self.unsent("was stopped".to_owned())),
        }
        let (sharer, speaks) = Self::key(&shared, caller, client);
        Ok((instances.of(sharer, speaks, &shared, client), shared))
    }

    fn instance_for(&self, parcel: &Parcel) -> Result<(Arc<Instance>, Arc<Shared>), Unsent> {
        let (instance, shared) = self.instance(parcel.caller(), parcel.client())?;
        match parcel.identity() {
            Some(wanted) if *wanted != shared.identity => {
                let message = format!(
                    "the server behind the name `{}` is another one than this call was for, so nothing was sent",
                    self.name
                );
                Err(Unsent { code: RECONFIGURED, message })
            }
            _ => Ok((instance, shared)),
        }
    }

    pub(super) fn instances(&self) -> MutexGuard<'_, Instances> {
        self.instances.lock().expect("nothing panics while it holds the instances")
    }

    fn unsent(&self, what: String) -> Unsent {
        Unsent { code: "upstream-unreachable", message: format!("server `{}` {what}", self.name) }
    }
}

impl Instances {
    pub(super) fn none(door: Door) -> Self {
        let after = CancellationToken::new();
        after.cancel();
        Self { by_sharer: HashMap::new(), door, after }
    }

    pub(super) fn of(
        &mut self,
        sharer: Sharer,
        speaks: Speaks,
        shared: &Arc<Shared>,
        client: &Arc<Client>,
    ) -> Arc<Instance> {
        let after = &self.after;
        let start = |(sharer, speaks): &(Sharer, Speaks)| {
            let for_whom = For { sharer: sharer.clone(), speaks: *speaks };
            Instance::start(shared.clone(), for_whom, after.clone())
        };
        let instance = self.by_sharer.entry((sharer, speaks)).or_insert_with_key(start).clone();
        instance.serves(client);
        instance
    }
}

/// All at once: each may take its whole grace.
pub(super) async fn stop_all(instances: impl Iterator<Item = Arc<Instance>>) {
    futures_util::future::join_all(instances.map(|instance| async move { instance.stop().await })).await;
}
