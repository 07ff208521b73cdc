//! Simulated servers: they execute or not, answer or not, in any order, and the world knows the truth.

use std::collections::HashMap;

use holdfast_policy::{Failure, Repeat};
use holdfast_store::{Answer, AnswerKind, Attempt, CallId, Loss, Text, Trouble, engine::Failed};

use crate::{
    env::{Env, Happening},
    rng::Rng,
    scenario::Survives,
};

/// One request that left Holdfast.
pub(crate) struct Sent {
    pub(crate) call: CallId,
    pub(crate) attempt: Attempt,
    pub(crate) server: usize,
    pub(crate) process: usize,
    /// The life of Holdfast that sent it.
    pub(crate) epoch: u32,
    /// The forwarded key, for upstreams that deduplicate.
    key: Option<u64>,
    pub(crate) truth: Truth,
}

/// What really became of a request.
#[derive(Clone, PartialEq)]
pub(crate) enum Truth {
    /// It may still execute.
    Pending,
    /// It was executed, with this result.
    Executed(Text),
    /// It was not executed and never will be.
    Never,
}

/// What comes back.
#[derive(Clone)]
pub(crate) enum Reply {
    /// The result, if it was executed by then.
    Result,
    /// A tool error.
    ToolError(Text),
    /// A failure.
    Failed(Box<Failed>),
    /// A sign of life.
    Progress,
}

/// All servers.
pub(crate) struct Upstreams {
    servers: Vec<Server>,
    pub(crate) sent: Vec<Sent>,
    /// Effects at servers that deduplicate: key, result.
    effects: HashMap<u64, Text>,
    /// How many effects there were.
    serial: u64,
    busy: Text,
    broke: Text,
}

struct Server {
    survives: Survives,
    /// Whether the process of that number is alive; the last one takes new requests.
    processes: Vec<Process>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Process {
    Alive,
    Gone,
}

impl Upstreams {
    pub(crate) fn new(setups: &[crate::scenario::ServerSetup]) -> Self {
        let server = |setup: &crate::scenario::ServerSetup| Server {
            survives: setup.survives,
            processes: vec![Process::Alive],
        };
        let error = |text: &str| {
            Text::of(&serde_json::json!({ "isError": true, "content": [{ "type": "text", "text": text }] }))
        };
        Self {
            servers: setups.iter().map(server).collect(),
            sent: Vec::new(),
            effects: HashMap::new(),
            serial: 0,
            busy: error("busy"),
            broke: error("broke"),
        }
    }

    /// Whether every process that a request of this call went to has ended.
    pub(crate) fn is_gone(&self, call: CallId) -> bool {
        self.of(call).all(|sent| self.servers[sent.server].processes[sent.process] == Process::Gone)
    }

    pub(crate) fn of(&self, call: CallId) -> impl Iterator<Item = &Sent> {
        self.sent.iter().filter(move |sent| sent.call == call)
    }

    /// The result of the call, where it was executed.
    pub(crate) fn result(&self, call: CallId) -> Option<Answer> {
        self.of(call).find_map(|sent| match &sent.truth {
            Truth::Executed(text) => Some(Answer { kind: AnswerKind::Result, text: text.clone() }),
            Truth::Pending | Truth::Never => None,
        })
    }

    /// The last process of each server; new requests go to a new one from now on.
    fn retire(&mut self, server: usize) -> usize {
        self.servers[server].processes.push(Process::Alive);
        self.servers[server].processes.len() - 2
    }

    /// True where it has an effect of its own.
    fn execute(&mut self, index: usize) -> bool {
        let sent = &mut self.sent[index];
        if sent.truth != Truth::Pending || self.servers[sent.server].processes[sent.process] == Process::Gone
        {
            return false;
        }
        let known = sent.key.and_then(|key| self.effects.get(&key));
        let fresh = known.is_none();
        let text = known.cloned().unwrap_or_else(|| {
            self.serial += 1;
            Text::of(&serde_json::json!({ "content": [], "serial": self.serial }))
        });
        if let Some(key) = sent.key {
            self.effects.insert(key, text.clone());
        }
        sent.truth = Truth::Executed(text);
        fresh
    }

    /// The process ends: what it has not done it never will.
    fn end(&mut self, server: usize, process: usize) -> Vec<usize> {
        self.servers[server].processes[process] = Process::Gone;
        let mut orphans = Vec::new();
        for (index, sent) in self.sent.iter_mut().enumerate() {
            if sent.server == server && sent.process == process {
                orphans.push(index);
                if sent.truth == Truth::Pending {
                    sent.truth = Truth::Never;
                }
            }
        }
        orphans
    }
}

/// What a server will do with a request.
#[derive(Clone, Copy)]
enum Fate {
    NoConnection,
    RefusedForNow,
    RefusedForGood,
    Busy,
    Broke,
    Answers,
    AnswersLate,
    DisconnectsAfter,
    DisconnectsBefore,
    DisconnectsAndAnswersLater,
    HangsUndone,
    HangsDone,
    ErrorDone,
    ErrorUndone,
}

const FATES: [Fate; 18] = [
    Fate::NoConnection,
    Fate::RefusedForNow,
    Fate::RefusedForGood,
    Fate::Busy,
    Fate::Busy,
    Fate::Broke,
    Fate::Answers,
    Fate::Answers,
    Fate::Answers,
    Fate::AnswersLate,
    Fate::DisconnectsAfter,
    Fate::DisconnectsAfter,
    Fate::DisconnectsBefore,
    Fate::DisconnectsAndAnswersLater,
    Fate::HangsUndone,
    Fate::HangsDone,
    Fate::ErrorDone,
    Fate::ErrorUndone,
];

/// A request arrives; what becomes of it is drawn now.
pub(crate) fn receive(env: &mut Env, call: CallId, attempt: Attempt, plan: Repeat, key: u64, server: usize) {
    let process = env.upstreams.servers[server].processes.len() - 1;
    let key = (plan == Repeat::Keyed).then_some(key);
    let mut fate = if env.is_calm() { Fate::Answers } else { *env.rng.pick(&FATES) };
    let done_already = key.is_some_and(|key| env.upstreams.effects.contains_key(&key));
    if done_already && matches!(fate, Fate::Broke | Fate::Busy | Fate::RefusedForGood) {
        // Who deduplicates answers a key that it knows with the answer that it gave.
        fate = Fate::Answers;
    }
    let index = env.upstreams.sent.len();
    let epoch = env.epoch;
    let truth = Truth::Pending;
    env.upstreams.sent.push(Sent { call, attempt, server, process, epoch, key, truth });
    env.stats.dispatches += 1;
    play(env, index, fate);
}

fn play(env: &mut Env, index: usize, fate: Fate) {
    let slow = if env.is_calm() { 0 } else { 60 };
    let soon = env.rng.between(0, slow);
    let later = soon + env.rng.between(0, slow);
    let late = later + env.rng.between(100, 1_500);
    let twice = env.rng.percent(20);
    let (busy, broke) = (env.upstreams.busy.clone(), env.upstreams.broke.clone());
    match fate {
        Fate::NoConnection => refuse(env, index, later, Failure::NotSent),
        Fate::RefusedForNow => refuse(env, index, later, Failure::RefusedUnexecuted),
        Fate::RefusedForGood => refuse(env, index, later, Failure::RefusedForGood),
        Fate::Busy | Fate::Broke => {
            let text = if matches!(fate, Fate::Busy) { busy } else { broke };
            never(env, index, later, Reply::ToolError(text.clone()));
            if twice {
                reply(env, index, late, Reply::ToolError(text));
            }
        }
        Fate::Answers => {
            progress(env, index, soon);
            execute(env, index, soon);
            reply(env, index, later, Reply::Result);
            if twice {
                reply(env, index, late, Reply::Result);
            }
        }
        Fate::AnswersLate => {
            progress(env, index, late);
            let executed = if twice { soon } else { late };
            execute(env, index, executed);
            reply(env, index, late + soon, Reply::Result);
        }
        Fate::DisconnectsAfter => {
            execute(env, index, soon);
            reply(env, index, later, lost(Loss::Disconnected));
        }
        Fate::DisconnectsBefore => {
            reply(env, index, soon, lost(Loss::Disconnected));
            if twice {
                execute(env, index, late);
            } else {
                env.upstreams.sent[index].truth = Truth::Never;
            }
        }
        Fate::DisconnectsAndAnswersLater => {
            reply(env, index, soon, lost(Loss::Disconnected));
            execute(env, index, later);
            reply(env, index, late, Reply::Result);
        }
        Fate::HangsUndone => progress(env, index, soon),
        Fate::HangsDone => execute(env, index, soon),
        Fate::ErrorDone => {
            execute(env, index, soon);
            reply(env, index, later, lost(Loss::UpstreamError));
        }
        Fate::ErrorUndone => never(env, index, later, lost(Loss::UpstreamError)),
    }
}

fn never(env: &mut Env, index: usize, after: u64, what: Reply) {
    env.upstreams.sent[index].truth = Truth::Never;
    reply(env, index, after, what);
}

fn execute(env: &mut Env, index: usize, after: u64) {
    env.schedule(after, Happening::Execute(index));
}

fn reply(env: &mut Env, index: usize, after: u64, what: Reply) {
    env.schedule(after, Happening::Reply(index, what));
}

fn progress(env: &mut Env, index: usize, until: u64) {
    let step = env.rng.between(10, 80);
    for n in 1..=(until / step).min(4) {
        reply(env, index, n * step, Reply::Progress);
    }
}

fn refuse(env: &mut Env, index: usize, after: u64, failure: Failure) {
    let what = failed(&mut env.rng, failure);
    never(env, index, after, what);
}

fn lost(loss: Loss) -> Reply {
    Reply::Failed(Box::new(Failed {
        failure: Failure::AnswerLost,
        loss,
        trouble: Trouble::new("answer-lost", "lost"),
        retry_after_ms: None,
        answer: None,
    }))
}

fn failed(rng: &mut Rng, failure: Failure) -> Reply {
    let refused = failure != Failure::NotSent && rng.percent(50);
    Reply::Failed(Box::new(Failed {
        failure,
        loss: Loss::UpstreamError,
        trouble: Trouble::new("refused", "refused"),
        retry_after_ms: rng.percent(30).then(|| rng.between(1, 300)),
        answer: refused.then(|| Answer { kind: AnswerKind::Error, text: Text::of(&-32_602) }),
    }))
}

pub(crate) fn executes(env: &mut Env, index: usize) {
    if env.upstreams.execute(index) {
        let sent = &env.upstreams.sent[index];
        let (call, attempt) = (sent.call, sent.attempt.0);
        env.audit.effect(call, sent.key.is_some());
        env.trace(|| format!("EFFECT of {call} attempt {attempt}"));
    }
}

/// The answer that a reply carries, if it can be given at all.
pub(crate) fn content(env: &Env, index: usize, what: &Reply) -> Option<Reply> {
    let sent = &env.upstreams.sent[index];
    if env.upstreams.servers[sent.server].processes[sent.process] == Process::Gone {
        return match what {
            Reply::Failed(_) => Some(what.clone()),
            Reply::Result | Reply::ToolError(_) | Reply::Progress => None,
        };
    }
    Some(what.clone())
}

/// The process ends, by itself or with Holdfast; whoever still listens to it hears a disconnection.
pub(crate) fn dies(env: &mut Env, server: usize, process: usize) {
    env.trace(|| format!("upstream: process {process} of server {server} ends"));
    for index in env.upstreams.end(server, process) {
        let after = env.rng.below(20);
        reply(env, index, after, lost(Loss::Disconnected));
    }
}

/// The latest process ends and a new one takes its place.
pub(crate) fn restarts(env: &mut Env, server: usize) {
    let old = env.upstreams.retire(server);
    dies(env, server, old);
}

/// All processes end; new ones take their places.
pub(crate) fn all_restart(env: &mut Env) {
    for server in 0..env.upstreams.servers.len() {
        env.upstreams.retire(server);
        for process in 0..env.upstreams.servers[server].processes.len() - 1 {
            if env.upstreams.servers[server].processes[process] == Process::Alive {
                dies(env, server, process);
            }
        }
    }
}

/// Holdfast is gone: its children notice after a moment, in which they may still act.
pub(crate) fn abandoned(env: &mut Env) {
    for server in 0..env.upstreams.servers.len() {
        if env.upstreams.servers[server].survives == Survives::No {
            let process = env.upstreams.retire(server);
            let after = env.rng.below(300);
            env.schedule(after, Happening::ProcessEnds(server, process));
        }
    }
}

/// Whether a reply to a request of an earlier life of Holdfast can reach this one.
pub(crate) fn reaches(env: &Env, index: usize) -> bool {
    let sent = &env.upstreams.sent[index];
    sent.epoch == env.epoch || is_kept(env, index)
}

/// Whether a reply waits until Holdfast is back.
pub(crate) fn is_kept(env: &Env, index: usize) -> bool {
    env.upstreams.servers[env.upstreams.sent[index].server].survives == Survives::Yes
}

/// Nobody wants the answer any more: some servers stop.
pub(crate) fn cancelled(env: &mut Env, call: CallId, attempt: Attempt) {
    let stops = env.rng.percent(50);
    for sent in &mut env.upstreams.sent {
        if stops && sent.call == call && sent.attempt == attempt && sent.truth == Truth::Pending {
            sent.truth = Truth::Never;
        }
    }
}
