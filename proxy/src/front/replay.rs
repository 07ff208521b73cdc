//! What legacy clients may ask for again: the events of their streams, by ids that mean something to the next process.
//!
//! Every event of a legacy session is written through [`Track::event`], which gives it an id and keeps it for a while.
//! An id names its stream and the event's number in it. The name of a call's stream says which call and which request
//! it was, so that whoever lost the stream, with the connection or with the process, gets the answer from the journal;
//! what is kept here is only what came before the answer. The answer itself is not kept here: it may be large, and the
//! journal has it. Ids are no secrets and give nobody anything: whose session and whose call it is, is checked anew.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{asks::Put, event_id::Name, splice::one_line, wait::Offering};

/// Events and bytes that are kept of one session, and its streams; the oldest go first.
const EVENTS_MOST: usize = 256;
const BYTES_MOST: usize = 1 << 20;
const STREAMS_MOST: usize = 64;
/// Bytes that are kept of all sessions. Beyond that each session keeps its last event.
const ALL_BYTES_MOST: usize = 32 << 20;
/// After how many milliseconds a client should come back that was cut off. Clients that try twice meet a Holdfast that
/// was restarted in between.
const RETRY_MS: u32 = 2_000;
/// How long a response may take to stop that somebody else goes on with.
const STOPS_WITHIN: Duration = Duration::from_millis(500);

/// What a client does with ids of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// Nothing: it is of the modern era, or comes through the bridge, which is told differently.
    None,
    /// It may come back with the last one it read.
    Resumes,
    /// Since 2025-11-25: it takes an event without data, and comes back also where it has read nothing else.
    Primed,
}

impl Habit {
    /// Of a session with this protocol version.
    pub(super) fn of(protocol: &str) -> Self {
        if protocol >= "2025-11-25" { Self::Primed } else { Self::Resumes }
    }
}

/// The streams of all legacy sessions.
pub(super) struct Replays {
    /// Tells this process's announcements from those of the one before.
    process: String,
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    sessions: HashMap<String, Session>,
    bytes: usize,
    clock: u64,
}

#[derive(Default)]
struct Session {
    streams: HashMap<String, Stream>,
    /// All kept events in the order of their writing: stream, number, length.
    order: BTreeMap<u64, (String, usize)>,
    bytes: usize,
}

#[derive(Default)]
struct Stream {
    /// The number of the last event.
    last: u64,
    events: VecDeque<(u64, Bytes)>,
    carried: Option<Carried>,
    touched: u64,
    aside: Aside,
    /// The version of the list of tools that the client was last told of.
    told: Option<u64>,
}

/// The response that carries a stream now.
#[derive(Clone, Default)]
struct Carried {
    /// Tells it to stop.
    cut: CancellationToken,
    /// Tells that it has stopped.
    gone: CancellationToken,
}

/// What a request that was cut off leaves for the one that goes on with it.
#[derive(Default)]
pub(super) struct Aside {
    /// What the client was asked for the server.
    pub(super) put: Option<Put>,
    /// What it was asked for ourselves.
    pub(super) offering: Option<Offering>,
}

impl Default for Replays {
    fn default() -> Self {
        Self { process: format!("{:016x}", rand::random::<u64>()), all: Mutex::default() }
    }
}

impl Replays {
    /// The name of the stream of announcements.
    pub(super) fn announcements(&self) -> Name {
        Name::Announcements(self.process.clone())
    }

    /// Begins to carry a stream of the session behind `channel`; whoever carried it before stops. None where the name
    /// would make ids too long.
    pub(super) fn carry(self: &Arc<Self>, channel: &str, name: &Name) -> Option<Track> {
        let (text, now) = (name.text()?, Carried::default());
        let mut all = self.lock();
        all.clock += 1;
        let clock = all.clock;
        let session = all.sessions.entry(channel.to_owned()).or_default();
        let stream = session.streams.entry(text.clone()).or_default();
        stream.touched = clock;
        let (earlier, from) = (stream.carried.replace(now.clone()), stream.last);
        if let Some(earlier) = &earlier {
            earlier.cut.cancel();
        }
        all.shed(channel);
        drop(all);
        let earlier = earlier.map(|earlier| earlier.gone);
        Some(Track { replays: self.clone(), channel: channel.to_owned(), name: text, from, now, earlier })
    }

    /// The session is over.
    pub(super) fn forget(&self, channel: &str) {
        let mut all = self.lock();
        if let Some(session) = all.sessions.remove(channel) {
            all.bytes -= session.bytes;
        }
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    /// Keeps an event.
    fn keep(&mut self, channel: &str, name: &str, n: u64, event: &Bytes) {
        self.clock += 1;
        let Some(session) = self.sessions.get_mut(channel) else { return };
        let Some(stream) = session.streams.get_mut(name) else { return };
        stream.touched = self.clock;
        stream.events.push_back((n, event.clone()));
        session.order.insert(self.clock, (name.to_owned(), event.len()));
        session.bytes += event.len();
        self.bytes += event.len();
        self.shed(channel);
    }

    /// Forgets what is over the bounds.
    fn shed(&mut self, channel: &str) {
        let Some(session) = self.sessions.get_mut(channel) else { return };
        let before = session.bytes;
        let crowded = self.bytes > ALL_BYTES_MOST;
        while session.order.len() > EVENTS_MOST
            || session.bytes > BYTES_MOST
            || crowded && session.order.len() > 1
        {
            session.forget_oldest();
        }
        while session.streams.len() > STREAMS_MOST {
            let idle = session.streams.iter().filter(|(_, stream)| stream.carried.is_none());
            let Some((name, _)) = idle.min_by_key(|(_, stream)| stream.touched) else { break };
            let name = name.clone();
            session.streams.remove(&name);
            let order = std::mem::take(&mut session.order);
            session.order = order.into_iter().filter(|(_, (other, _))| *other != name).collect();
            session.bytes = session.order.values().map(|(_, length)| length).sum();
        }
        self.bytes -= before - session.bytes;
    }
}

impl Session {
    fn forget_oldest(&mut self) {
        let Some((_, (name, length))) = self.order.pop_first() else { return };
        self.bytes -= length;
        if let Some(stream) = self.streams.get_mut(&name) {
            stream.events.pop_front();
        }
    }
}

/// A stream that a response carries now.
pub(super) struct Track {
    replays: Arc<Replays>,
    channel: String,
    name: String,
    /// The number of the last event before this response.
    from: u64,
    now: Carried,
    /// Cancelled when the response that carried it before has stopped.
    earlier: Option<CancellationToken>,
}

impl Track {
    /// A JSON-RPC message as the stream's next event, which is kept.
    pub(super) fn event(&self, json: &str) -> Bytes {
        let mut all = self.replays.lock();
        let next = |stream: &mut Stream| {
            stream.last += 1;
            stream.last
        };
        // A session that was ended keeps nothing.
        let n = self.with(&mut all, next).unwrap_or_default();
        let event = self.written(n, json);
        all.keep(&self.channel, &self.name, n, &event);
        event
    }

    /// The same for the answer that ends the stream, which is not kept.
    pub(super) fn last(&self, json: &str) -> Bytes {
        let n = self.with(&mut self.replays.lock(), |stream| {
            stream.last += 1;
            stream.last
        });
        self.written(n.unwrap_or_default(), json)
    }

    fn written(&self, n: u64, json: &str) -> Bytes {
        Bytes::from(format!("event: message\nid: {}.{n}\ndata: {}\n\n", self.name, one_line(json)))
    }

    /// What comes first for clients that take it: an id to come back with, and when (SEP-1699).
    pub(super) fn priming(&self, habit: Habit) -> Bytes {
        let n = self.from;
        match habit {
            Habit::Primed => Bytes::from(format!("id: {}.{n}\nretry: {RETRY_MS}\ndata: \n\n", self.name)),
            Habit::None | Habit::Resumes => Bytes::new(),
        }
    }

    /// The events after number `n`, as they were written. Later ones are numbered on from there, also where another
    /// process wrote the earlier ones.
    pub(super) fn missed(&self, n: u64) -> Bytes {
        let missed = self.with(&mut self.replays.lock(), |stream| {
            stream.last = stream.last.max(n);
            let missed = stream.events.iter().filter(|(number, _)| *number > n);
            missed.flat_map(|(_, event)| event.iter().copied()).collect()
        });
        missed.unwrap_or_default()
    }

    /// Resolves when another response carries the stream.
    pub(super) fn cut(&self) -> &CancellationToken {
        &self.now.cut
    }

    /// Waits until nobody else carries the stream, but not for one whose connection hangs.
    pub(super) async fn alone(&self) {
        if let Some(earlier) = &self.earlier {
            tokio::time::timeout(STOPS_WITHIN, earlier.cancelled()).await.ok();
        }
    }

    /// Leaves this for the request that goes on with the stream.
    pub(super) fn put_aside(&self, aside: Aside) {
        self.with(&mut self.replays.lock(), |stream| stream.aside = aside);
    }

    /// What the request before has left.
    pub(super) fn take_aside(&self) -> Aside {
        self.with(&mut self.replays.lock(), |stream| std::mem::take(&mut stream.aside)).unwrap_or_default()
    }

    /// The client is told of this version of the list of tools. True where it was told of another one before.
    pub(super) fn tells(&self, version: u64) -> bool {
        let before = self.with(&mut self.replays.lock(), |stream| stream.told.replace(version));
        before.flatten().is_some_and(|before| before != version)
    }

    fn with<T>(&self, all: &mut All, change: impl FnOnce(&mut Stream) -> T) -> Option<T> {
        Some(change(all.sessions.get_mut(&self.channel)?.streams.get_mut(&self.name)?))
    }
}

impl Drop for Track {
    fn drop(&mut self) {
        self.now.gone.cancel();
        if !self.now.cut.is_cancelled() {
            self.with(&mut self.replays.lock(), |stream| stream.carried = None);
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_store::CallId;

    use super::*;
    use crate::front::event_id::{About, CallStream, TEXT_MOST};

    fn call(id: &str) -> Name {
        Name::Call(CallStream {
            call: CallId::from_bytes([7; 16]),
            about: About::Structured,
            id: id.to_owned(),
            progress_token: Some("\"a.b\n\"".replace('\n', "ü")),
        })
    }

    fn id_of(event: &Bytes) -> String {
        let text = std::str::from_utf8(event).expect("UTF-8");
        let line = text.lines().rfind(|line| line.starts_with("id: ")).expect("an id");
        line["id: ".len()..].to_owned()
    }

    fn texts(events: &Bytes) -> Vec<&str> {
        let text = std::str::from_utf8(events).expect("UTF-8");
        text.lines().filter_map(|line| line.strip_prefix("data: ")).collect()
    }

    #[test]
    fn an_id_says_which_stream_and_where() {
        let replays = Arc::new(Replays::default());
        for name in [call("7"), call("\"x\""), replays.announcements()] {
            let track = replays.carry("session:a", &name).expect("short");
            track.event("{}");
            // However much is written by then: who reads no more than this has read nothing.
            assert_eq!(Name::of_event(&id_of(&track.priming(Habit::Primed))), Some((name.clone(), 0)));
            assert_eq!(Name::of_event(&id_of(&track.event("{}"))), Some((name, 2)));
        }
        for wrong in ["", "7", ".", "s.1", "x.1.2", "f.1.2.3.4", "s.a.b.c.d.e.1"] {
            assert_eq!(Name::of_event(wrong), None, "{wrong}");
        }
        let long = "9".repeat(TEXT_MOST + 1);
        assert!(replays.carry("session:a", &call(&long)).is_none());
    }

    #[test]
    fn a_stream_goes_on_behind_the_last_event_that_was_read() {
        let replays = Arc::new(Replays::default());
        let track = replays.carry("session:a", &call("1")).expect("short");
        let other = replays.carry("session:a", &call("2")).expect("short");
        let read = track.event("1");
        other.event("of the other");
        track.event("2");
        track.event("3");
        let (name, n) = Name::of_event(&id_of(&read)).expect("ours");
        let again = replays.carry("session:a", &name).expect("short");
        assert!(track.cut().is_cancelled() && !other.cut().is_cancelled());
        assert_eq!(texts(&again.missed(n)), ["2", "3"]);
        assert_eq!(texts(&again.missed(n)), ["2", "3"], "as often as it is asked for");
        // Whoever carried it before leaves nothing behind.
        drop(track);
        assert!(id_of(&again.event("4")).ends_with(".4"));
        // Another session has nothing of it.
        let stranger = replays.carry("session:b", &name).expect("short");
        assert!(texts(&stranger.missed(0)).is_empty());
    }

    #[test]
    fn numbers_go_on_where_another_process_stopped() {
        let replays = Arc::new(Replays::default());
        let track = replays.carry("session:a", &call("1")).expect("short");
        assert!(track.missed(41).is_empty());
        assert!(id_of(&track.event("{}")).ends_with(".42"));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let replays = Arc::new(Replays::default());
        let track = replays.carry("session:a", &call("1")).expect("short");
        for n in 0..2 * EVENTS_MOST {
            track.event(&n.to_string());
        }
        let missed = track.missed(0);
        let kept = texts(&missed);
        assert_eq!((kept.len(), kept[0]), (EVENTS_MOST, EVENTS_MOST.to_string().as_str()));
        let large = "x".repeat(BYTES_MOST / 4);
        for _ in 0..10 {
            track.event(&large);
        }
        assert!(replays.lock().bytes <= BYTES_MOST);
        for n in 0..2 * STREAMS_MOST {
            drop(replays.carry("session:a", &call(&n.to_string())));
        }
        assert!(replays.lock().sessions["session:a"].streams.len() <= STREAMS_MOST);
        for n in 0..100 {
            let track = replays.carry(&format!("session:{n}"), &call("1")).expect("short");
            (0..4).for_each(|_| drop(track.event(&large[..BYTES_MOST / 5])));
        }
        assert!(replays.lock().bytes <= ALL_BYTES_MOST + 100 * BYTES_MOST / 4);
        for n in 0..100 {
            replays.forget(&format!("session:{n}"));
        }
        replays.forget("session:a");
        let all = replays.lock();
        assert_eq!((all.bytes, all.sessions.len()), (0, 0));
    }

    #[test]
    fn a_list_that_changed_meanwhile_is_told() {
        let replays = Arc::new(Replays::default());
        let name = replays.announcements();
        assert!(!replays.carry("session:a", &name).expect("short").tells(1));
        assert!(!replays.carry("session:a", &name).expect("short").tells(1));
        assert!(replays.carry("session:a", &name).expect("short").tells(2));
    }
}
