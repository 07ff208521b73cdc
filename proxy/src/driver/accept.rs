//! A request becomes a call, unless it is one that exists.

use std::sync::Arc;

use holdfast_policy::{Plan, Question, Repeat, Verdict};
use holdfast_store::{
    Accepted, Append, Approvable, Call, CallId, Caller, Claim, Disposition, Entry, Hash32, KeyFate,
    KeySource, Refusal, Urgency,
    engine::{self, Advance, SlotAtOnce},
    hash_fields,
};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    Driver, Request,
    join::{By, Wish, refused},
    journaling::{append, now},
    keys::{self, Identity, identify},
    live::Live,
    register::{Known, Reserved},
    reissue::{Gated, NewOrigin},
    task::{Durable, Probing, Task},
    ticket::{Body, Patience, Receipt, Start, Ticket},
};
use crate::{
    report::{Report, Target},
    upstream::{Tool, Upstream},
};

/// Of an agent that has too many held calls so many are named to it, so that it can collect them.
const HELD_NAMED: usize = 10;

/// A call that is ready to be claimed. From here on others can find it, but it has nothing to tell yet.
struct New {
    task: Task,
    facts: Append,
    /// Uses of remembered decisions that are claimed with it.
    reserved: Option<Reserved>,
    then: Vec<engine::Effect>,
    wish: Wish,
}

impl Driver {
    /// Makes a call of a request, or finds the one that it is. Refusals are replies.
    pub(crate) async fn call(self: &Arc<Self>, request: Request) -> Ticket {
        if self.closing.is_cancelled() {
            return Ticket::refused(Report::shutting_down());
        }
        match self.prepare(request).await {
            Err(report) => Ticket::refused(*report),
            Ok(Prepared::Existing(start)) => Ticket::started(start),
            Ok(Prepared::New(new)) => {
                let (tell, started) = oneshot::channel();
                // From here on a client that goes away takes nothing with it.
                tokio::spawn(self.clone().start(*new, tell));
                Ticket::starting(started)
            }
        }
    }

    async fn prepare(self: &Arc<Self>, request: Request) -> Result<Prepared, Box<Report>> {
        // Also what is recorded off the answer path is not sent where it could not be recorded.
        self.journal.health().map_err(|error| Box::new(Report::journal_unavailable(&error.to_string())))?;
        let target = Target { server: &request.server, tool: &request.tool };
        let upstream = self.configured(&request.server)?;
        let behind = upstream.identity();
        let tool = self.tool(&upstream, &request, target).await?;
        let known = self.see(&tool, target).await?;
        let (verdict, plan, policy) = self.judge(&request, &upstream, &tool)?;
        let id = CallId(Uuid::now_v7());
        let denied = matches!(verdict, Verdict::Deny { .. });
        let mut identity = identify(&request, &behind, &plan, id).map_err(Box::new)?;
        let named = identity.keys.iter().any(|key| key.source != KeySource::Transport);
        // A read that nobody names is done again when its answer is lost; that is what "safe" means.
        if denied || (plan.repeat == Repeat::Safe && !named && identity.position.is_none()) {
            identity.keys.clear();
            identity.position = None;
            identity.origin = None;
        }
        if matches!(verdict, Verdict::Ask(..)) {
            identity.extra = keys::extra_without_task(&request);
        }
        let wish = Wish {
            from: super::from(request.connection, &request.caller.channel),
            caller: request.caller.clone(),
            progress: request.progress,
            client: request.client.clone(),
        };
        if let Some(start) = self.sent_before(&identity, &wish).await? {
            return Ok(Prepared::Existing(start));
        }
        if known == Known::Changed {
            return self.quarantined(&identity, wish, target).await.map(Prepared::Existing);
        }
        let mut disposition = disposition(verdict, &request, &identity, &upstream, &tool);
        if let Disposition::Ask { gates, .. } = &mut disposition {
            *gates = self.plans.gates(gates);
        }
        let fingerprint = identity.fingerprint;
        let (origin, keys) = (identity.origin, identity.keys.clone());
        let uses = Vec::new();
        let claim = Claim { keys: keys.clone(), uses, position: identity.position, identical: origin };
        let votes = self.in_advance(&disposition, &request, &upstream, &tool);
        let accepted = Accepted {
            caller: request.caller,
            identity: behind.to_string(),
            server: request.server,
            tool: request.tool,
            definition: tool.hash.to_string(),
            arguments: identity.arguments,
            extra: identity.extra,
            fingerprint,
            keys,
            run: request.run,
            incarnation: request.incarnation,
            meta: identity.meta,
            headers: identity.headers,
            disposition,
            plan,
            policy,
        };
        let new = self.new_call(id, accepted, claim, votes, upstream, wish.clone());
        match self.register(&new)? {
            None => Ok(Prepared::New(Box::new(new))),
            Some((call, place)) => {
                Ok(Prepared::Existing(self.join(call, fingerprint, wish, By::Reissue(place)).await))
            }
        }
    }

    /// The server of this name.
    fn configured(&self, server: &str) -> Result<Arc<Upstream>, Box<Report>> {
        self.upstreams.get(server).ok_or_else(|| {
            let config = self.config.get();
            let known: Vec<&str> = config.servers.iter().map(|server| server.name.as_str()).collect();
            Box::new(Report::unknown_server(server, &known))
        })
    }

    /// What the policy in force says, and its version: of a server that it is in force with.
    fn judge(
        &self,
        request: &Request,
        upstream: &Upstream,
        tool: &Tool,
    ) -> Result<(Verdict, Arc<Plan>, Arc<str>), Box<Report>> {
        let steady = self.steady();
        self.configured(&request.server)?;
        let policy = self.config.get().policy.clone();
        let decision = policy.decide(&Question {
            principal: &request.caller.principal,
            server: &request.server,
            tool: &request.tool,
            arguments: &request.arguments,
            hints: tool.hints,
            trust: super::trust(&upstream.config()),
        });
        drop(steady);
        if !decision.shadow.is_empty() {
            tracing::info!(server = request.server, tool = request.tool, rules = ?decision.shadow, "shadow rules match");
        }
        let plan = match &decision.verdict {
            Verdict::Allow(plan) => plan.clone(),
            Verdict::Ask(plan, _) => self.plans.shared(plan.clone()),
            // Nothing is ever sent, so no setting matters.
            Verdict::Deny { .. } => Arc::default(),
        };
        Ok((decision.verdict, plan, policy.version().into()))
    }

    fn new_call(
        self: &Arc<Self>,
        id: CallId,
        accepted: Accepted,
        mut claim: Claim,
        votes: Vec<Advance>,
        upstream: Arc<Upstream>,
        wish: Wish,
    ) -> New {
        let allowed = matches!(accepted.disposition, Disposition::Allow);
        let line = self.slots.line(&accepted.server, &accepted.tool, &accepted.plan.limits);
        let slot = if allowed { line.try_enter() } else { None };
        let durable = if engine::is_exempt(&accepted) { Durable::Later } else { Durable::First };
        let at_once = if slot.is_some() { SlotAtOnce::Held } else { SlotAtOnce::None };
        let decided =
            if votes.is_empty() { None } else { engine::begin_decided(self.moment(), id, &accepted, votes) };
        let decided = decided.and_then(|(step, used)| Some((step, self.reserve(&used)?)));
        let (step, reserved) = match decided {
            Some((step, reserved)) => (step, Some(reserved)),
            None => (engine::begin(accepted, at_once), None),
        };
        claim.uses = reserved.as_ref().map(Reserved::keys).unwrap_or_default();
        let at = now();
        let call = Call::begin(id, at, &step.append[0]).expect("begin() starts with Accepted");
        let (live, inbox) = Live::new(call, claim.identical, wish.client.clone());
        let facts = Append {
            call: id,
            at,
            expected: 0,
            entries: step.append,
            claim,
            keys: KeyFate::Keep,
            urgency: if durable == Durable::Later { Urgency::Soon } else { Urgency::Now },
        };
        let task = Task {
            driver: self.clone(),
            live: Arc::new(live),
            inbox,
            upstream,
            line,
            slot,
            queued: None,
            flight: None,
            probing: Probing::No,
            question: None,
            note: None,
            durable,
        };
        New { task, facts, reserved, then: step.then, wish }
    }

    /// Makes a new call known, unless its request is the re-issue of an earlier one: gives that one then, and the place
    /// among those that wait for it, which a client that goes away gives up again. One step, so that of two requests
    /// that come at the same time the second finds the first.
    fn register(self: &Arc<Self>, new: &New) -> Result<Option<(CallId, Receipt)>, Box<Report>> {
        let live = &new.task.live;
        let (held, origin) = live.with(|shared| {
            let principal = shared.call.accepted.caller.principal.clone();
            let held = shared.call.state.is_held().then_some(principal);
            (held, live.origin.map(|hash| new_origin(&shared.call, hash)))
        });
        let room = held.map_or(Ok(()), |principal| self.check_held(&principal));
        if let Some(origin) = origin {
            let hung_up = |connection| self.hung_up(connection);
            let mut reissues = self.reissues();
            if let Some(call) = reissues.take(now(), origin.hash, &new.wish.from, &hung_up) {
                let place = Receipt::new(self.clone(), origin.hash, call, new.wish.from.clone());
                return Ok(Some((call, place)));
            }
            // Its client has gone already, and may have asked again by another connection: that one is the call.
            if self.hung_up(new.wish.from.connection) {
                return Err(Box::new(Report::client_gone()));
            }
            room?;
            reissues.begun(origin, new.wish.from.connection);
            // Whoever finds it in the index finds it here, too.
            self.live_map().insert(live.id, live.clone());
            return Ok(None);
        }
        room?;
        self.live_map().insert(live.id, live.clone());
        Ok(None)
    }

    fn check_held(&self, principal: &str) -> Result<(), Box<Report>> {
        let limit = self.config.get().intake.held_per_agent;
        let mut held = self.lives();
        held.retain(|live| {
            live.with(|shared| {
                shared.call.state.is_held() && shared.call.accepted.caller.principal == principal
            })
        });
        if held.len() < limit as usize {
            return Ok(());
        }
        let mut oldest: Vec<CallId> = held.iter().map(|live| live.id).collect();
        oldest.sort_unstable();
        oldest.truncate(HELD_NAMED);
        Err(Box::new(Report::too_many_held(principal, limit, &oldest)))
    }

    /// The call that the bridge has sent under this name before. Also makes sure that earlier calls which this request
    /// may be the re-issue of are known.
    async fn sent_before(
        self: &Arc<Self>,
        identity: &Identity,
        wish: &Wish,
    ) -> Result<Option<Start>, Box<Report>> {
        let unavailable =
            |error: holdfast_store::JournalError| Box::new(Report::journal_unavailable(&error.to_string()));
        let transport = identity.keys.iter().find(|key| key.source == KeySource::Transport);
        if let Some(key) = transport
            && let Some(call) = self.journal.owner(key.hash).map_err(unavailable)?
        {
            let by = By::Key(KeySource::Transport);
            return Ok(Some(self.join(call, identity.fingerprint, wish.clone(), by).await));
        }
        if let Some(hash) = identity.origin {
            self.look_up_earlier(hash).map_err(unavailable)?;
        }
        Ok(None)
    }

    /// Claims a new call and, where that succeeds, becomes its task.
    async fn start(self: Arc<Self>, new: New, tell: oneshot::Sender<Start>) {
        let New { mut task, mut facts, reserved, mut then, wish } = new;
        let (live, at) = (task.live.clone(), facts.at);
        let place = live.origin.map(|hash| Receipt::new(self.clone(), hash, live.id, wish.from.clone()));
        let recording = self.dispatching.token();
        if self.closing.is_cancelled() {
            drop(task);
            tell.send(self.not_made(&live, Report::shutting_down())).ok();
            return;
        }
        let mut claimed = task.claim(facts.clone()).await;
        if let Err(Refusal::Spent) = claimed {
            // Another Holdfast over the same journal has used it: the call is asked as if nobody had decided.
            let Entry::Accepted(accepted) = facts.entries.swap_remove(0) else {
                unreachable!("begin() starts so")
            };
            let step = engine::begin(*accepted, SlotAtOnce::None);
            (facts.entries, then) = (step.append, step.then);
            facts.claim.uses.clear();
            claimed = task.claim(facts.clone()).await;
        }
        if let Some(reserved) = reserved.filter(|_| claimed.is_ok()) {
            reserved.claimed();
        }
        if let Err(refusal) = claimed {
            drop(task);
            tell.send(self.not_claimed(&live, refusal, wish).await).ok();
            return;
        }
        live.with(|shared| {
            for entry in &facts.entries[1..] {
                shared.call.apply(at, entry).expect("begin() makes a legal start");
            }
        });
        let patience = live.with(|shared| Patience::of(&shared.call));
        let joined = self.attach(&live, wish, place, patience);
        // Where the client has left meanwhile, this drops the place again, with the consequences that policy gives it.
        tell.send(joined).ok();
        drop(recording);
        let run = task.run(then);
        if live.with(|shared| shared.call.state.is_held()) {
            // What it took to start is not kept for as long as a person takes.
            tokio::spawn(run);
        } else {
            run.await;
        }
    }

    async fn not_claimed(self: &Arc<Self>, live: &Arc<Live>, refusal: Refusal, wish: Wish) -> Start {
        let (fingerprint, target) = live.with(|shared| {
            let accepted = &shared.call.accepted;
            (accepted.fingerprint, (accepted.server.clone(), accepted.tool.clone()))
        });
        let target = Target { server: &target.0, tool: &target.1 };
        match refusal {
            Refusal::Taken { source, call } => {
                self.unregister(live);
                // Whoever was taken as the same call in between is told which call it is.
                live.break_off(Body::Handle(Report::running(call, target)));
                self.join(call, fingerprint, wish, By::Key(source)).await
            }
            Refusal::Spent => unreachable!("claimed without uses by then"),
            Refusal::Conflict { .. } => unreachable!("a fresh UUID has no entries"),
            Refusal::Failed(error) => self.not_made(live, Report::journal_unavailable(&error.to_string())),
        }
    }

    /// Nothing came of a new call.
    fn not_made(&self, live: &Live, report: Report) -> Start {
        self.unregister(live);
        live.break_off(Body::Report(report.clone()));
        refused(report)
    }

    fn unregister(&self, live: &Live) {
        self.ended(live);
        if let Some(hash) = live.origin {
            self.reissues().remove(hash, live.id);
        }
    }
}

/// The verdict, with what an approver would approve.
fn disposition(
    verdict: Verdict,
    request: &Request,
    identity: &Identity,
    upstream: &Upstream,
    tool: &Tool,
) -> Disposition {
    match verdict {
        Verdict::Allow(_) => Disposition::Allow,
        Verdict::Deny { rule, .. } => Disposition::Deny { rule },
        Verdict::Ask(_, gates) => {
            let rules: Vec<&str> = gates.iter().map(|gate| gate.rule.as_str()).collect();
            let approvable = Approvable {
                principal: &request.caller.principal,
                identity: &upstream.identity(),
                tool: &request.tool,
                definition: &tool.hash,
                arguments: &identity.arguments,
                extra: identity.extra.as_deref(),
                preview: "",
                rules: &rules,
                revision: 1,
            };
            Disposition::Ask { digest: approvable.digest(), gates: gates.into() }
        }
    }
}

/// What a request has come to before anything is claimed.
enum Prepared {
    New(Box<New>),
    Existing(Start),
}

impl Task {
    async fn claim(&mut self, facts: Append) -> Result<(), Refusal> {
        if self.durable == Durable::First {
            return append(&self.driver.journal, facts).await.map(drop);
        }
        self.driver.journal.submit(
            facts,
            Box::new(|outcome| {
                if let Err(refusal) = outcome {
                    tracing::error!(?refusal, "a call that is safe to repeat could not be recorded");
                }
            }),
        );
        Ok(())
    }
}

/// Under which hash a call can be the origin of a re-issue.
pub(super) fn origin_of(call: &Call) -> Option<Hash32> {
    let accepted = &call.accepted;
    let explicit = accepted.keys.iter().any(|key| key.source == KeySource::Explicit);
    let eligible = !explicit
        && accepted.plan.repeat != Repeat::Safe
        && accepted.plan.reissue_window_ms.is_some()
        && !matches!(accepted.disposition, Disposition::Deny { .. });
    eligible.then(|| {
        let life = Life { run: accepted.run.as_deref(), incarnation: accepted.incarnation.as_deref() };
        origin_hash(&accepted.caller, accepted.fingerprint, life)
    })
}

/// The agent's task and the life of the agent in it, where it names them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life<'a> {
    pub(super) run: Option<&'a str>,
    pub(super) incarnation: Option<&'a str>,
}

/// Principal, client and fingerprint. Within a run also the agent's life: a new one starts its task again from the
/// first call, so that its calls are found by their position and not as re-issues of the last ones.
pub(super) fn origin_hash(caller: &Caller, fingerprint: Hash32, life: Life<'_>) -> Hash32 {
    let (principal, client) = (caller.principal.as_bytes(), caller.client.as_bytes());
    match life.run {
        None => hash_fields("holdfast/origin", &[principal, client, &fingerprint.0]),
        Some(run) => {
            let life = life.incarnation.unwrap_or(&caller.channel);
            hash_fields(
                "holdfast/origin",
                &[principal, client, &fingerprint.0, run.as_bytes(), life.as_bytes()],
            )
        }
    }
}

/// What the re-issue index keeps of a call.
pub(super) fn new_origin(call: &Call, hash: Hash32) -> NewOrigin {
    NewOrigin {
        hash,
        call: call.id,
        channel: call.accepted.caller.channel.clone(),
        window_ms: call.accepted.plan.reissue_window_ms.unwrap_or_default(),
        gated: if call.is_gated() { Gated::Yes } else { Gated::No },
    }
}
