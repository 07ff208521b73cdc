//! Undelivered answers: which earlier call an identical request without a key is the re-issue of.
//!
//! MCP 2026-07-28 tells clients to send a lost request again under a new id, and nothing on the wire links the two. A
//! call is taken as the origin of an identical request when nobody waits for it and its answer may not have been
//! heard (semantics section 5, source 5). A successful socket write is not delivery. What shows that the answer arrived
//! is a later request on the same connection, as HTTP/1.1 sends none before the answer to the one before was read; or
//! another later call of a tool on the same channel, where the connection also outlived the answer by a second: who
//! gives up on an answer closes its connection. What clients send by themselves on other connections (pings, lists)
//! shows no more than that they live, and a cancellation even that they heard nothing.

use std::collections::{HashMap, HashSet, VecDeque};

use holdfast_store::{CallId, Hash32, Millis};

/// How long a channel without a request counts as alive.
const KEEP_ALIVE_MS: u64 = 5 * 60 * 1_000;
/// By how much a connection must outlive an answer, so that what is heard later on the channel counts as evidence.
const OUTLIVES_MS: u64 = 1_000;
/// Channels and connections that are remembered at most; beyond that the oldest are forgotten, which only makes
/// their answers count as unheard for longer.
const REMEMBERED: usize = 100_000;

/// Where a request came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct From {
    /// The TCP connection's number, or the bridge's.
    pub(crate) connection: u64,
    /// The caller's channel.
    pub(crate) channel: String,
}

/// What a message says about the answers that were written before it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// A call of a tool: whoever goes on has read what came before, on whichever connection.
    Call,
    /// Another request: on a connection, requests come after the responses to earlier ones.
    Request,
    /// Nothing; its sender lives.
    Nothing,
}

/// What is known about earlier calls and about who has been heard since.
#[derive(Default)]
pub(crate) struct Reissues {
    origins: HashMap<Hash32, Vec<Origin>>,
    /// Settled origins by the time at which they leave.
    leaving: VecDeque<(Millis, Hash32, CallId)>,
    channels: HashMap<String, Heard>,
    /// Answers written on a connection since its last request.
    written_on: HashMap<u64, Vec<(Hash32, CallId)>>,
    /// Hashes whose earlier calls have been read from the journal since the start.
    looked_up: HashSet<Hash32>,
    requests: u64,
}

#[derive(Debug)]
struct Origin {
    call: CallId,
    channel: String,
    window_ms: u64,
    /// The connections of the requests that wait for it now.
    waiting: Vec<u64>,
    /// Requests that were taken as it so far, itself included.
    taken: u32,
    /// Since when the window runs: from the durable answer, or for a hold from its first collection.
    settled: Option<Millis>,
    gated: Gated,
    written: Option<Written>,
}

/// An answer that was handed to a socket.
#[derive(Clone, Copy, Debug)]
struct Written {
    /// Which.
    connection: u64,
    /// Number of the latest request then.
    request: u64,
    at: Millis,
    /// When the connection ended, if it has.
    closed: Option<Millis>,
}

/// Whether a call was held for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gated {
    /// Its window starts when its answer is first collected.
    Yes,
    /// Its window starts when its answer becomes durable.
    No,
}

/// What the delivery of an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Collection {
    /// The answer of a held call went out for the first time: its window runs from now.
    FirstOfHold,
    /// Nothing to be recorded.
    Other,
}

#[derive(Debug, Default)]
struct Heard {
    /// Number of the latest call of a tool, and of the one before it.
    latest: u64,
    before: u64,
    at: Millis,
    closed: bool,
}

/// A call as the index learns of it.
#[derive(Clone, Debug)]
pub(crate) struct NewOrigin {
    /// Principal, client and fingerprint.
    pub(crate) hash: Hash32,
    /// The call.
    pub(crate) call: CallId,
    /// Its caller's channel; empty for one that is gone.
    pub(crate) channel: String,
    /// `reissue_window`.
    pub(crate) window_ms: u64,
    /// Whether it was held.
    pub(crate) gated: Gated,
}

impl Reissues {
    /// Notes a message from a client, before it is handled.
    pub(crate) fn seen(&mut self, now: Millis, from: &From, evidence: Evidence) {
        self.requests += 1;
        if evidence != Evidence::Nothing {
            for (hash, call) in self.written_on.remove(&from.connection).unwrap_or_default() {
                self.forget_heard(hash, call);
            }
        }
        if self.channels.len() >= REMEMBERED {
            self.channels.retain(|_, heard| now.since(heard.at) < KEEP_ALIVE_MS);
        }
        let heard = match self.channels.get_mut(&from.channel) {
            Some(heard) => heard,
            None => self.channels.entry(from.channel.clone()).or_default(),
        };
        if evidence == Evidence::Call {
            heard.before = heard.latest;
            heard.latest = self.requests;
        }
        heard.at = now;
        heard.closed = false;
        self.sweep(now);
    }

    /// The channel was closed by its client, or broke for good.
    pub(crate) fn channel_gone(&mut self, channel: &str) {
        if let Some(heard) = self.channels.get_mut(channel) {
            heard.closed = true;
        }
    }

    /// The connection is closed: no request on it can be evidence any more.
    pub(crate) fn connection_gone(&mut self, now: Millis, connection: u64) {
        for (hash, call) in self.written_on.remove(&connection).unwrap_or_default() {
            if let Some(written) = self.find(hash, call).and_then(|origin| origin.written.as_mut())
                && written.connection == connection
            {
                written.closed = Some(now);
            }
        }
    }

    /// A new call, with its first request waiting on `connection`.
    pub(crate) fn begun(&mut self, new: NewOrigin, connection: u64) {
        self.insert(new, Some(connection), None);
    }

    /// A call read back after a restart: nobody waits, and its channel is gone until it is heard again.
    pub(crate) fn read_back(&mut self, new: NewOrigin, settled: Option<Millis>) {
        if self.find(new.hash, new.call).is_none() {
            self.insert(new, None, settled);
        }
    }

    /// Whether the journal has been asked about this hash since the start.
    pub(crate) fn is_looked_up(&self, hash: Hash32) -> bool {
        self.looked_up.contains(&hash)
    }

    /// About how many hashes the journal has been asked.
    #[cfg(test)]
    pub(crate) fn looked_up(&self) -> usize {
        self.looked_up.len()
    }

    /// True the first time: from now on the journal has been asked about this hash.
    pub(crate) fn first_look(&mut self, hash: Hash32) -> bool {
        self.looked_up.insert(hash)
    }

    /// The call that this request is the re-issue of, which now waits for it too. `hung_up` tells of a connection
    /// whether its other end has closed it: whoever waited there does not wait any more.
    pub(crate) fn take(
        &mut self,
        now: Millis,
        hash: Hash32,
        from: &From,
        hung_up: &dyn Fn(u64) -> bool,
    ) -> Option<CallId> {
        let (channels, origins) = (&self.channels, self.origins.get_mut(&hash)?);
        let origin = origins
            .iter_mut()
            .filter(|origin| origin.may_be_unheard(now, channels, from, hung_up))
            .filter(|origin| origin.waiting.iter().all(|connection| hung_up(*connection)))
            .min_by_key(|origin| (origin.taken, origin.call))?;
        origin.waiting.push(from.connection);
        origin.taken += 1;
        Some(origin.call)
    }

    /// One more request waits for this call (it came by a key).
    pub(crate) fn joined(&mut self, hash: Hash32, call: CallId, connection: u64) {
        if let Some(origin) = self.find(hash, call) {
            origin.waiting.push(connection);
        }
    }

    /// A request does not wait for this call any more, and has not been given its answer.
    pub(crate) fn left(&mut self, hash: Hash32, call: CallId, connection: u64) {
        if let Some(origin) = self.find(hash, call) {
            origin.waits_no_more(connection);
        }
    }

    /// A waiting request's answer was handed to its socket whole.
    pub(crate) fn written(&mut self, now: Millis, hash: Hash32, call: CallId, from: &From) -> Collection {
        let number = self.requests;
        let Some(origin) = self.find(hash, call) else { return Collection::Other };
        origin.waits_no_more(from.connection);
        origin.written =
            Some(Written { connection: from.connection, request: number, at: now, closed: None });
        origin.channel.clone_from(&from.channel);
        let first = origin.gated == Gated::Yes && origin.settled.is_none();
        if first {
            origin.settled = Some(now);
        }
        let leaves = origin.settled.map(|settled| settled.plus(origin.window_ms));
        if self.written_on.len() < REMEMBERED {
            self.written_on.entry(from.connection).or_default().push((hash, call));
        }
        if let Some(leaves) = leaves {
            self.leaving.push_back((leaves, hash, call));
        }
        if first { Collection::FirstOfHold } else { Collection::Other }
    }

    /// The call's answer became durable.
    pub(crate) fn settled(&mut self, now: Millis, hash: Hash32, call: CallId) {
        let Some(origin) = self.find(hash, call) else { return };
        if origin.gated == Gated::No && origin.settled.is_none() {
            origin.settled = Some(now);
            let leaves = now.plus(origin.window_ms);
            self.leaving.push_back((leaves, hash, call));
        }
    }

    /// The call can be no request's origin: it was not made, or its keys were freed.
    pub(crate) fn remove(&mut self, hash: Hash32, call: CallId) {
        if let Some(origins) = self.origins.get_mut(&hash) {
            origins.retain(|origin| origin.call != call);
            if origins.is_empty() {
                self.origins.remove(&hash);
            }
        }
    }

    fn insert(&mut self, new: NewOrigin, waiting: Option<u64>, settled: Option<Millis>) {
        if let Some(settled) = settled {
            self.leaving.push_back((settled.plus(new.window_ms), new.hash, new.call));
        }
        self.origins.entry(new.hash).or_default().push(Origin {
            call: new.call,
            channel: new.channel,
            window_ms: new.window_ms,
            taken: waiting.iter().len() as u32,
            waiting: waiting.into_iter().collect(),
            settled,
            gated: new.gated,
            written: None,
        });
    }

    fn find(&mut self, hash: Hash32, call: CallId) -> Option<&mut Origin> {
        self.origins.get_mut(&hash)?.iter_mut().find(|origin| origin.call == call)
    }

    fn forget_heard(&mut self, hash: Hash32, call: CallId) {
        let heard = self.find(hash, call).is_some_and(|origin| {
            // Somebody else may have joined since; an in-doubt call stays an origin whatever was heard of it.
            origin.waiting.is_empty() && origin.settled.is_some()
        });
        if heard {
            self.remove(hash, call);
        }
    }

    fn sweep(&mut self, now: Millis) {
        while let Some((leaves, hash, call)) = self.leaving.front().copied() {
            if leaves > now {
                break;
            }
            self.leaving.pop_front();
            let over = self.find(hash, call).is_some_and(|origin| {
                origin.waiting.is_empty()
                    && origin.settled.is_some_and(|settled| settled.plus(origin.window_ms) <= now)
            });
            if over {
                self.remove(hash, call);
            }
        }
    }
}

impl Origin {
    fn waits_no_more(&mut self, connection: u64) {
        if let Some(place) = self.waiting.iter().position(|waiting| *waiting == connection) {
            self.waiting.swap_remove(place);
        }
    }

    fn may_be_unheard(
        &self,
        now: Millis,
        channels: &HashMap<String, Heard>,
        from: &From,
        hung_up: &dyn Fn(u64) -> bool,
    ) -> bool {
        let own = self.channel == from.channel;
        let heard = channels.get(&self.channel);
        let gone = heard.is_none_or(|heard| heard.closed || now.since(heard.at) > KEEP_ALIVE_MS);
        if !own && !gone {
            return false;
        }
        let Some(settled) = self.settled else { return true };
        if now > settled.plus(self.window_ms) {
            return false;
        }
        // The request that asks is itself the latest of its own channel and proves nothing; the one before it does.
        let later = heard.map_or(0, |heard| if own { heard.before } else { heard.latest });
        self.written.is_none_or(|written| {
            let ended = written.closed.unwrap_or(now);
            let outlived = ended.since(written.at) >= OUTLIVES_MS
                && (written.closed.is_some() || !hung_up(written.connection));
            later <= written.request || !outlived
        })
    }
}

#[cfg(test)]
#[path = "reissue/tests.rs"]
mod tests;
