//! Agents that ask, wait, leave and ask again, and operators that decide.

use holdfast_store::{Answer, CallId, Digest, Outcome, Resolution, State};

use crate::{
    env::{Env, Happening},
    scenario::{OPERATORS, Scenario},
    upstream::Truth,
};

/// What an agent is told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum News {
    /// The call ended.
    Final(Final),
    /// It waits for a person.
    Held,
    /// Nobody knows whether it happened.
    InDoubt,
    /// The key belongs to other arguments.
    KeyReused,
}

/// The end of a call as agents hear it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Final {
    pub(crate) outcome: Outcome,
    pub(crate) answer: Option<Answer>,
}

pub(crate) struct People {
    agents: Vec<Asker>,
    ids: u128,
}

/// An agent with one thing to ask.
struct Asker {
    tries_left: u32,
    /// Number of the stream it waits on.
    stream: Option<u32>,
    streams: u32,
    call: Option<CallId>,
}

/// An operator's decision, made some time after a look.
pub(crate) struct Act {
    pub(crate) who: usize,
    pub(crate) call: CallId,
    pub(crate) seen: Seen,
    pub(crate) does: Does,
}

/// What the operator saw.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) digest: Option<Digest>,
    pub(crate) attempts: u32,
}

pub(crate) enum Does {
    Approve,
    Reject,
    /// Takes an approval back.
    Revoke,
    /// Wants something else sent.
    Edit,
    /// Answers in the tool's place.
    Respond,
    /// Says what really happened, as found out at the look.
    Settle(Resolution),
    GiveUp,
    Release,
    Cancel,
}

impl People {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let asker = |setup: &crate::scenario::AskSetup| Asker {
            tries_left: setup.tries,
            stream: None,
            streams: 0,
            call: None,
        };
        Self { agents: scenario.asks.iter().map(asker).collect(), ids: 0 }
    }

    /// Opens a stream for a request, if the agent still wants to and does not wait already.
    pub(crate) fn open(&mut self, ask: usize) -> Option<u32> {
        let asker = &mut self.agents[ask];
        if asker.stream.is_some() || asker.tries_left == 0 {
            return None;
        }
        asker.tries_left -= 1;
        asker.streams += 1;
        asker.stream = Some(asker.streams);
        asker.stream
    }

    /// True where the agent still waits on that stream, which is closed now.
    pub(crate) fn close(&mut self, ask: usize, stream: u32) -> bool {
        let asker = &mut self.agents[ask];
        let open = asker.stream == Some(stream);
        if open {
            asker.stream = None;
        }
        open
    }

    /// The id of a request that may become a call.
    pub(crate) fn fresh_id(&mut self) -> CallId {
        self.ids += 1;
        CallId::from_bytes(self.ids.to_be_bytes())
    }

    pub(crate) fn call(&self, ask: usize) -> Option<CallId> {
        self.agents[ask].call
    }

    /// The agent learns which call it waits for.
    pub(crate) fn learn(&mut self, ask: usize, call: CallId) {
        self.agents[ask].call = Some(call);
    }

    /// Everybody who waited hears nothing any more; they will ask again.
    pub(crate) fn lose_connections(&mut self) -> Vec<usize> {
        let waits = |(ask, asker): (usize, &mut Asker)| asker.stream.take().map(|_| ask);
        self.agents.iter_mut().enumerate().filter_map(waits).collect()
    }

    /// An agent that is never told anything.
    pub(crate) fn still_waiting(&self) -> Option<usize> {
        self.agents.iter().position(|asker| asker.stream.is_some())
    }
}

/// An agent hears something, and perhaps comes back for more.
pub(crate) fn hear(env: &mut Env, ask: usize, call: CallId, news: &News) {
    env.trace(|| format!("agent {ask} hears about {call}: {news:?}"));
    env.audit.heard(call, news, &env.upstreams);
    let asker = &mut env.people.agents[ask];
    asker.stream = None;
    let again = match news {
        News::Final(_) => 30,
        News::Held => 90,
        News::InDoubt => 60,
        News::KeyReused => 0,
    };
    if env.rng.percent(again) {
        let after = env.rng.between(10, 900);
        let by_id = env.rng.percent(50);
        env.schedule(after, if by_id { Happening::WaitFor(ask) } else { Happening::Ask(ask) });
    }
}

/// What an operator does about what there is to see; decided later than seen.
pub(crate) fn look(env: &mut Env, who: usize, call: CallId, state: State, seen: Seen) {
    let rejections = env.scenario.rejections;
    let does = match state {
        State::Asking if env.rng.percent(rejections) => Does::Reject,
        State::Asking => match env.rng.below(30) {
            0 => Does::Edit,
            1 => Does::Respond,
            2 => Does::Revoke,
            _ => Does::Approve,
        },
        State::Approved if env.rng.percent(rejections) => Does::Reject,
        State::Approved if env.rng.percent(10) => Does::Revoke,
        State::InDoubt if env.rng.percent(15) => Does::GiveUp,
        State::InDoubt => match truth(env, call) {
            Some(how) => Does::Settle(how),
            None => return,
        },
        State::Done(_) if env.rng.percent(15) => Does::Release,
        _ if env.rng.percent(5) => Does::Cancel,
        _ => return,
    };
    let longest = *env.rng.pick(&[2, 30, 500, 2_000]);
    let after = env.rng.below(longest);
    env.schedule(after, Happening::OperatorActs(Box::new(Act { who, call, seen, does })));
}

/// What really happened, where that is certain by now.
fn truth(env: &Env, call: CallId) -> Option<Resolution> {
    if env.upstreams.of(call).any(|sent| sent.truth == Truth::Pending) {
        return None;
    }
    Some(env.upstreams.result(call).map_or(Resolution::NotSent, Resolution::Happened))
}

/// An operator as the journal names them.
pub(crate) fn decider(who: usize) -> holdfast_store::Decider {
    let (name, groups) = OPERATORS[who];
    let groups = groups.iter().map(|&group| group.to_owned()).collect();
    holdfast_store::Decider { name: name.to_owned(), groups, via: String::new() }
}
