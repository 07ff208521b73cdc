//! Legacy sessions, and the memory of which channels have a live connection.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::surface::Surface;
use crate::upstream::Client;

/// A session that nobody used for this long is gone.
const IDLE: Duration = Duration::from_secs(24 * 60 * 60);
/// Sessions of one principal; the one that was silent longest makes room.
const PER_PRINCIPAL: usize = 1_000;

/// The sessions that `initialize` over HTTP made. They live in memory: a client whose session a restart has lost gets
/// 404, as the specification says, and initialises again.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    table: Mutex<HashMap<String, Session>>,
}

#[derive(Debug)]
struct Session {
    principal: String,
    guest: Guest,
    used: Instant,
    /// Ends the notification stream that is open now.
    stream: Option<CancellationToken>,
}

/// What `initialize` said about the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Guest {
    /// Its name.
    pub(super) name: String,
    /// What it declared.
    pub(super) client: Arc<Client>,
    /// What it is given where a call waits for a person.
    pub(super) surface: Surface,
}

/// A new session, and those that ended to make room for it.
#[derive(Debug)]
pub(super) struct Begun {
    /// The new session's id: a random UUID.
    pub(super) id: String,
    /// Ids of sessions that are gone now.
    pub(super) ended: Vec<String>,
}

impl Sessions {
    /// Makes a session.
    pub(super) fn begin(&self, principal: &str, guest: Guest, now: Instant) -> Begun {
        let mut table = self.lock();
        let mut ended: Vec<String> = table
            .iter()
            .filter(|(_, session)| now.saturating_duration_since(session.used) > IDLE)
            .map(|(id, _)| id.clone())
            .collect();
        let mine = table.iter().filter(|(_, session)| session.principal == principal);
        if mine.clone().count() >= PER_PRINCIPAL {
            ended.extend(mine.min_by_key(|(_, session)| session.used).map(|(id, _)| id.clone()));
        }
        for id in &ended {
            if let Some(stream) = table.remove(id).and_then(|session| session.stream) {
                stream.cancel();
            }
        }
        let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string();
        let session = Session { principal: principal.to_owned(), guest, used: now, stream: None };
        table.insert(id.clone(), session);
        Begun { id, ended }
    }

    /// Whose session it is, where it exists and is this principal's.
    pub(super) fn touch(&self, id: &str, principal: &str, now: Instant) -> Option<Guest> {
        let mut table = self.lock();
        let session = table.get_mut(id).filter(|session| session.principal == principal)?;
        if now.saturating_duration_since(session.used) > IDLE {
            table.remove(id);
            return None;
        }
        session.used = now;
        Some(session.guest.clone())
    }

    /// Ends a session. False where there is none of this id and principal.
    pub(super) fn end(&self, id: &str, principal: &str) -> bool {
        let mut table = self.lock();
        if table.get(id).is_none_or(|session| session.principal != principal) {
            return false;
        }
        if let Some(stream) = table.remove(id).and_then(|session| session.stream) {
            stream.cancel();
        }
        true
    }

    /// Makes `stream` the session's notification stream and ends the one before: after a broken connection the client
    /// is back before we have noticed that it was away.
    pub(super) fn listen(&self, id: &str, stream: CancellationToken) {
        if let Some(session) = self.lock().get_mut(id)
            && let Some(earlier) = session.stream.replace(stream)
        {
            earlier.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which channels have connections. A channel whose client certainly holds a connection as long as it lives (a bridge;
/// a session with a notification stream) is gone when the last one closes.
#[derive(Debug, Default)]
pub(super) struct Presence {
    channels: Mutex<HashMap<String, Present>>,
}

#[derive(Debug, Default)]
struct Present {
    connections: usize,
    holds_one: bool,
}

impl Presence {
    /// A connection carried the channel's first message.
    pub(super) fn enter(&self, channel: &str) {
        self.lock().entry(channel.to_owned()).or_default().connections += 1;
    }

    /// The channel's client opened a stream that it keeps as long as it lives.
    pub(super) fn holds_one(&self, channel: &str) {
        if let Some(present) = self.lock().get_mut(channel) {
            present.holds_one = true;
        }
    }

    /// A connection that had entered has closed. True where the channel is gone with it.
    pub(super) fn leave(&self, channel: &str) -> bool {
        let mut channels = self.lock();
        let Some(present) = channels.get_mut(channel) else { return false };
        present.connections = present.connections.saturating_sub(1);
        if present.connections > 0 {
            return false;
        }
        channels.remove(channel).is_some_and(|present| present.holds_one)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Present>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Requests that `notifications/cancelled` can reach: those of one client whose ids are its own (a session, a bridge).
#[derive(Debug, Default)]
pub(super) struct Waiting {
    state: Mutex<Waits>,
}

#[derive(Debug, Default)]
struct Waits {
    running: HashMap<(String, String), CancellationToken>,
    /// Cancellations that overtook their request on another connection, with the time of their arrival.
    early: Vec<((String, String), Instant)>,
}

/// How long a cancellation waits for its request.
const EARLY: Duration = Duration::from_secs(5);
const EARLY_MOST: usize = 256;

/// A request that can be cancelled until this is dropped.
#[derive(Debug)]
pub(super) struct Wait {
    waiting: Arc<Waiting>,
    key: (String, String),
    token: CancellationToken,
}

impl Waiting {
    /// Registers the request `id` (a JSON text) of `channel`.
    pub(super) fn enter(self: &Arc<Self>, channel: &str, id: &str, now: Instant) -> Wait {
        let key = (channel.to_owned(), canonical(id));
        let token = CancellationToken::new();
        let mut state = self.lock();
        state.early.retain(|(_, arrived)| now.saturating_duration_since(*arrived) < EARLY);
        if let Some(at) = state.early.iter().position(|(early, _)| *early == key) {
            state.early.swap_remove(at);
            token.cancel();
        }
        state.running.insert(key.clone(), token.clone());
        drop(state);
        Wait { waiting: self.clone(), key, token }
    }

    /// Cancels the request `id` of `channel`, or the one that is still to arrive under that id.
    pub(super) fn cancel(&self, channel: &str, id: &str, now: Instant) {
        let key = (channel.to_owned(), canonical(id));
        let mut state = self.lock();
        match state.running.get(&key) {
            Some(token) => token.cancel(),
            None => {
                state.early.retain(|(_, arrived)| now.saturating_duration_since(*arrived) < EARLY);
                if state.early.len() < EARLY_MOST {
                    state.early.push((key, now));
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waits> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wait {
    /// Fires on cancellation.
    pub(super) fn token(&self) -> &CancellationToken {
        &self.token
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.waiting.lock().running.remove(&self.key);
    }
}

/// One spelling for one id: strings may be escaped in several ways.
fn canonical(id: &str) -> String {
    match serde_json::from_str::<serde_json::Value>(id) {
        Ok(value) => value.to_string(),
        Err(_) => id.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(client: &str) -> Guest {
        Guest { name: client.to_owned(), client: Client::unknown(), surface: Surface::Offer }
    }

    #[test]
    fn a_session_is_its_principals_alone() {
        let sessions = Sessions::default();
        let now = Instant::now();
        let begun = sessions.begin("ana", guest("claude"), now);
        assert_eq!(begun.ended, Vec::<String>::new());
        assert_eq!(uuid::Uuid::parse_str(&begun.id).expect("a UUID").get_version_num(), 4);
        assert_eq!(sessions.touch(&begun.id, "ana", now), Some(guest("claude")));
        assert_eq!(sessions.touch(&begun.id, "bob", now), None);
        assert!(!sessions.end(&begun.id, "bob"));
        assert!(sessions.end(&begun.id, "ana"));
        assert_eq!(sessions.touch(&begun.id, "ana", now), None);
    }

    #[test]
    fn sessions_end_by_silence_and_by_number() {
        let sessions = Sessions::default();
        let start = Instant::now();
        let first = sessions.begin("ana", guest(""), start).id;
        let later = start + IDLE + Duration::from_secs(1);
        assert_eq!(sessions.begin("bob", guest(""), later).ended, [first.as_str()]);
        assert_eq!(sessions.touch(&first, "ana", later), None);

        let oldest = sessions.begin("ana", guest(""), later).id;
        for _ in 1..PER_PRINCIPAL {
            assert!(sessions.begin("ana", guest(""), later + Duration::from_secs(1)).ended.is_empty());
        }
        assert_eq!(sessions.begin("ana", guest(""), later + Duration::from_secs(2)).ended, [oldest]);
    }

    #[test]
    fn a_new_stream_ends_the_one_before() {
        let sessions = Sessions::default();
        let id = sessions.begin("ana", guest(""), Instant::now()).id;
        let (one, two) = (CancellationToken::new(), CancellationToken::new());
        sessions.listen(&id, one.clone());
        sessions.listen(&id, two.clone());
        assert!(one.is_cancelled() && !two.is_cancelled());
        sessions.end(&id, "ana");
        assert!(two.is_cancelled());
    }

    #[test]
    fn only_a_channel_that_keeps_a_connection_is_gone_with_the_last() {
        let presence = Presence::default();
        presence.enter("a");
        assert!(!presence.leave("a"));
        presence.enter("a");
        presence.enter("a");
        presence.holds_one("a");
        assert!(!presence.leave("a"));
        assert!(presence.leave("a"));
        assert!(!presence.leave("a"));
    }

    #[test]
    fn a_cancellation_finds_its_request_even_when_it_comes_first() {
        let waiting = Arc::new(Waiting::default());
        let now = Instant::now();
        let wait = waiting.enter("c", r#""a""#, now);
        waiting.cancel("other", r#""a""#, now);
        assert!(!wait.token().is_cancelled());
        waiting.cancel("c", r#""\u0061""#, now);
        assert!(wait.token().is_cancelled());
        drop(wait);

        waiting.cancel("c", "7", now);
        assert!(waiting.enter("c", "7", now).token().is_cancelled());
        assert!(!waiting.enter("c", "7", now).token().is_cancelled());
        waiting.cancel("c", "8", now);
        assert!(!waiting.enter("c", "8", now + EARLY).token().is_cancelled());
    }
}
