//! Legacy sessions, which outlive the process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use holdfast_store::{Journal, JournalError, Keep, Millis};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::guest::Guest;
use crate::driver::read;

/// A session that nobody used for this long is gone. Time during which Holdfast was down counts.
const IDLE_MS: u64 = 24 * 60 * 60 * 1_000;
/// How far the record of a session's last use may be behind: what a killed Holdfast makes a session older at most.
const BEHIND_MS: u64 = 60 * 60 * 1_000;
/// Sessions of one principal; the one that was silent longest makes room.
const PER_PRINCIPAL: usize = 1_000;
/// Sessions that are written in one commit at the end.
const AT_ONCE: usize = 250;
/// How the names of sessions begin among what the journal keeps.
const KEPT: &str = "session/";

/// The sessions that `initialize` over HTTP made. They outlive the process: an id is handed out when the session is on
/// disk, and one that a client has ended is gone from there before the client hears so.
///
/// By cases. Killed before the id was written: nobody knows it. Killed before the client has heard the id: the record
/// goes when it was idle too long. Killed between the end of a session and its record's: the client has heard nothing
/// and may end it again.
pub(super) struct Sessions {
    journal: Arc<dyn Journal>,
    table: Mutex<HashMap<String, Session>>,
    /// Held by those that write about a session others know of, so that no record is written after its end.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Session {
    principal: String,
    guest: Arc<Guest>,
    used: Millis,
    /// What the record says about `used`.
    written: Millis,
    /// Somebody is about to bring the record up to date.
    to_be_written: bool,
    /// Its client may have missed something while Holdfast was down.
    restored: bool,
    /// Ends the notification stream that is open now.
    stream: Option<CancellationToken>,
}

/// A session as it is kept.
#[derive(Serialize, Deserialize)]
struct Record {
    principal: String,
    used: Millis,
    guest: Guest,
}

/// A new session, and those that ended to make room for it.
#[derive(Debug)]
pub(super) struct Begun {
    /// The new session's id: a random UUID.
    pub(super) id: String,
    /// Ids of sessions that are gone now.
    pub(super) ended: Vec<String>,
}

/// A notification stream, as its session knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listening {
    /// The first one since a restart of Holdfast: what changed meanwhile was announced to nobody.
    Again,
    /// Any other.
    On,
}

impl Sessions {
    /// The sessions that an earlier process has left.
    ///
    /// # Errors
    /// Where the journal cannot be used.
    pub(super) fn restore(journal: Arc<dyn Journal>, now: Millis) -> Result<Self, JournalError> {
        let (mut table, mut gone) = (HashMap::new(), Vec::new());
        for (name, value) in journal.kept(KEPT)? {
            let id = name.strip_prefix(KEPT).unwrap_or_default();
            match serde_json::from_slice::<Record>(&value) {
                Ok(record) if now.since(record.used) <= IDLE_MS => {
                    drop(table.insert(id.to_owned(), Session::restored(record)));
                }
                Ok(_) => gone.push((name, None)),
                Err(error) => {
                    tracing::warn!(%error, "a session is kept in a form that this version does not read");
                    gone.push((name, None));
                }
            }
        }
        if !gone.is_empty() {
            journal.keep(gone)?;
        }
        Ok(Self { journal, table: Mutex::new(table), writing: tokio::sync::Mutex::default() })
    }

    /// The channels of all sessions, with what is known of their clients.
    pub(super) fn all(&self) -> Vec<(String, Arc<Guest>)> {
        self.lock().iter().map(|(id, session)| (format!("session:{id}"), session.guest.clone())).collect()
    }

    /// Whether the session of this channel exists.
    pub(super) fn is_there(&self, channel: &str) -> bool {
        channel.strip_prefix("session:").is_some_and(|id| self.lock().contains_key(id))
    }

    /// Makes a session, which is durable then.
    ///
    /// # Errors
    /// Where the journal cannot be written: there is no session then.
    pub(super) async fn begin(
        &self,
        principal: &str,
        guest: Guest,
        now: Millis,
    ) -> Result<Begun, JournalError> {
        let ended = self.make_room(principal, now);
        let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string();
        let session = Session::new(principal, guest, now);
        let mut changes: Vec<Keep> = ended.iter().map(|id| (name(id), None)).collect();
        changes.push(session.kept(&id));
        // Nobody else knows the new one yet.
        let writing = if ended.is_empty() { None } else { Some(self.writing.lock().await) };
        read(&self.journal, |journal| journal.keep(changes)).await?;
        drop(writing);
        self.lock().insert(id.clone(), session);
        Ok(Begun { id, ended })
    }

    /// Takes out the sessions whose time is over, and the one that was silent longest where there are too many.
    fn make_room(&self, principal: &str, now: Millis) -> Vec<String> {
        let mut table = self.lock();
        let mut ended: Vec<String> = table
            .iter()
            .filter(|(_, session)| now.since(session.used) > IDLE_MS)
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
        ended
    }

    /// Whose session it is, where it exists and is this principal's.
    pub(super) fn touch(self: &Arc<Self>, id: &str, principal: &str, now: Millis) -> Option<Arc<Guest>> {
        let mut table = self.lock();
        let session = table.get_mut(id).filter(|session| session.principal == principal)?;
        if now.since(session.used) > IDLE_MS {
            // Its record goes with the next session that begins, or at the next start.
            return None;
        }
        session.used = now;
        let guest = session.guest.clone();
        if now.since(session.written) > BEHIND_MS && !session.to_be_written {
            session.to_be_written = true;
            let (sessions, id) = (self.clone(), id.to_owned());
            drop(table);
            tokio::spawn(async move {
                if let Err(error) = sessions.write(&id).await {
                    tracing::warn!(%error, "the last use of a session was not written");
                }
            });
        }
        Some(guest)
    }

    /// Changes what is known about a session's client; durable when it returns. False where there is no such session.
    ///
    /// # Errors
    /// Where the journal cannot be written: the change holds until the next restart.
    pub(super) async fn change(
        &self,
        id: &str,
        change: impl FnOnce(&mut Guest),
    ) -> Result<bool, JournalError> {
        match self.lock().get_mut(id) {
            Some(session) => change(Arc::make_mut(&mut session.guest)),
            None => return Ok(false),
        }
        self.write(id).await?;
        Ok(true)
    }

    async fn write(&self, id: &str) -> Result<(), JournalError> {
        let _writing = self.writing.lock().await;
        let Some(change) = self.lock().get_mut(id).map(|session| session.written_now(id)) else {
            return Ok(());
        };
        read(&self.journal, |journal| journal.keep(vec![change])).await
    }

    /// Ends a session, for good when it returns. False where there is none of this id and principal.
    ///
    /// # Errors
    /// Where the journal cannot be written: after a restart the session would be there again.
    pub(super) async fn end(&self, id: &str, principal: &str) -> Result<bool, JournalError> {
        let gone = {
            let mut table = self.lock();
            if table.get(id).is_none_or(|session| session.principal != principal) {
                return Ok(false);
            }
            table.remove(id)
        };
        if let Some(stream) = gone.and_then(|session| session.stream) {
            stream.cancel();
        }
        let _writing = self.writing.lock().await;
        let change = (name(id), None);
        read(&self.journal, |journal| journal.keep(vec![change])).await?;
        Ok(true)
    }

    /// Makes `stream` the session's notification stream and ends the one before: after a broken connection the client
    /// is back before we have noticed that it was away.
    pub(super) fn listen(&self, id: &str, stream: CancellationToken) -> Listening {
        let mut table = self.lock();
        let Some(session) = table.get_mut(id) else { return Listening::On };
        if let Some(earlier) = session.stream.replace(stream) {
            earlier.cancel();
        }
        if std::mem::take(&mut session.restored) { Listening::Again } else { Listening::On }
    }

    /// Writes down when each session was used last, so that an orderly end makes none older.
    pub(super) async fn write_all(&self) -> Result<(), JournalError> {
        let _writing = self.writing.lock().await;
        let changed: Vec<Keep> = {
            let mut table = self.lock();
            let changed = table.iter_mut().filter(|(_, session)| session.used != session.written);
            changed.map(|(id, session)| session.written_now(id)).collect()
        };
        for some in changed.chunks(AT_ONCE).map(<[Keep]>::to_vec) {
            read(&self.journal, |journal| journal.keep(some)).await?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn new(principal: &str, guest: Guest, now: Millis) -> Self {
        Self {
            principal: principal.to_owned(),
            guest: Arc::new(guest),
            used: now,
            written: now,
            to_be_written: false,
            restored: false,
            stream: None,
        }
    }

    fn restored(record: Record) -> Self {
        let Record { principal, used, guest } = record;
        Self { restored: true, ..Self::new(&principal, guest.restored(), used) }
    }

    fn written_now(&mut self, id: &str) -> Keep {
        self.written = self.used;
        self.to_be_written = false;
        self.kept(id)
    }

    fn kept(&self, id: &str) -> Keep {
        let record =
            Record { principal: self.principal.clone(), used: self.used, guest: Guest::clone(&self.guest) };
        (name(id), Some(serde_json::to_vec(&record).expect("a record has only texts and numbers")))
    }
}

fn name(id: &str) -> String {
    format!("{KEPT}{id}")
}

#[cfg(test)]
mod tests {
    use holdfast_store::Memory;

    use super::*;

    const NOW: Millis = Millis(1_800_000_000_000);

    fn guest(client: &str) -> Guest {
        Guest::of_handshake(client, &serde_json::Map::new()).expect("small")
    }

    fn restore(journal: &Arc<Memory>, now: Millis) -> Arc<Sessions> {
        Arc::new(Sessions::restore(journal.clone(), now).expect("a journal that works"))
    }

    fn memory() -> (Arc<Memory>, Arc<Sessions>) {
        let journal = Arc::new(Memory::default());
        (journal.clone(), restore(&journal, NOW))
    }

    /// The next process over the same journal.
    fn anew(journal: &Arc<Memory>, now: Millis) -> (Arc<Memory>, Arc<Sessions>) {
        let journal = Arc::new(journal.reopen());
        (journal.clone(), restore(&journal, now))
    }

    async fn begin(sessions: &Sessions, principal: &str, client: &str, now: Millis) -> Begun {
        sessions.begin(principal, guest(client), now).await.expect("a journal that works")
    }

    async fn end(sessions: &Sessions, id: &str, principal: &str) -> bool {
        sessions.end(id, principal).await.expect("a journal that works")
    }

    fn client(sessions: &Arc<Sessions>, id: &str, principal: &str, now: Millis) -> Option<String> {
        Some(sessions.touch(id, principal, now)?.client.clone())
    }

    #[tokio::test]
    async fn a_session_is_its_principals_alone() {
        let (_, sessions) = memory();
        let begun = begin(&sessions, "ana", "claude", NOW).await;
        assert_eq!(begun.ended, Vec::<String>::new());
        assert_eq!(uuid::Uuid::parse_str(&begun.id).expect("a UUID").get_version_num(), 4);
        assert_eq!(client(&sessions, &begun.id, "ana", NOW).as_deref(), Some("claude"));
        assert_eq!(client(&sessions, &begun.id, "bob", NOW), None);
        assert!(!end(&sessions, &begun.id, "bob").await);
        assert!(end(&sessions, &begun.id, "ana").await);
        assert_eq!(client(&sessions, &begun.id, "ana", NOW), None);
    }

    #[tokio::test]
    async fn a_session_outlives_the_process_and_its_end_does_too() {
        let (journal, sessions) = memory();
        let [on, over] =
            [begin(&sessions, "ana", "a", NOW).await.id, begin(&sessions, "ana", "b", NOW).await.id];
        assert_eq!(sessions.listen(&on, CancellationToken::new()), Listening::On);
        assert!(end(&sessions, &over, "ana").await);
        sessions.change(&on, |guest| guest.log_level = Some("debug".to_owned())).await.expect("kept");

        let (_, sessions) = anew(&journal, NOW.plus(1));
        let found = sessions.touch(&on, "ana", NOW.plus(1)).expect("it is there");
        assert_eq!((&*found.client, found.log_level.as_deref()), ("a", Some("debug")));
        assert_eq!(client(&sessions, &on, "bob", NOW), None);
        assert_eq!(client(&sessions, &over, "ana", NOW), None);
        assert_eq!(sessions.listen(&on, CancellationToken::new()), Listening::Again);
        assert_eq!(sessions.listen(&on, CancellationToken::new()), Listening::On);
    }

    #[tokio::test]
    async fn there_is_no_session_that_is_not_on_disk() {
        let (journal, sessions) = memory();
        let id = begin(&sessions, "ana", "a", NOW).await.id;
        let (journal, old) = (Arc::new(journal.reopen()), sessions);
        assert!(old.begin("ana", guest("b"), NOW).await.is_err(), "its journal is closed");
        assert!(old.end(&id, "ana").await.is_err(), "which nobody is told to be the end");
        assert_eq!(journal.kept(KEPT).expect("readable").len(), 1);
        assert!(client(&restore(&journal, NOW), &id, "ana", NOW).is_some());
    }

    #[tokio::test]
    async fn sessions_end_by_silence_and_by_number() {
        let (_, sessions) = memory();
        let first = begin(&sessions, "ana", "", NOW).await.id;
        let later = NOW.plus(IDLE_MS + 1_000);
        assert_eq!(client(&sessions, &first, "ana", later), None);
        assert_eq!(begin(&sessions, "bob", "", later).await.ended, [first.as_str()]);

        let oldest = begin(&sessions, "ana", "", later).await.id;
        for _ in 1..PER_PRINCIPAL {
            assert!(begin(&sessions, "ana", "", later.plus(1_000)).await.ended.is_empty());
        }
        assert_eq!(begin(&sessions, "ana", "", later.plus(2_000)).await.ended, [oldest]);
    }

    #[tokio::test]
    async fn silence_counts_while_nobody_runs() {
        let (journal, sessions) = memory();
        let [used, silent] =
            [begin(&sessions, "ana", "", NOW).await.id, begin(&sessions, "ana", "", NOW).await.id];
        let noon = NOW.plus(IDLE_MS / 2);
        assert!(client(&sessions, &used, "ana", noon).is_some());
        sessions.write_all().await.expect("a journal that works");
        let late = NOW.plus(IDLE_MS + 1);
        let (journal, sessions) = anew(&journal, late);
        assert!(client(&sessions, &used, "ana", late).is_some());
        assert_eq!(client(&sessions, &silent, "ana", late), None);
        assert_eq!(journal.kept(KEPT).expect("readable").len(), 1, "what is over is forgotten");
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_forgotten() {
        let (journal, _) = memory();
        journal.keep(vec![(name("x"), Some(b"{".to_vec()))]).expect("writable");
        let sessions = restore(&journal, NOW);
        assert_eq!(client(&sessions, "x", "", NOW), None);
        assert_eq!(journal.kept(KEPT).expect("readable"), []);
    }

    #[tokio::test]
    async fn a_new_stream_ends_the_one_before() {
        let (_, sessions) = memory();
        let id = begin(&sessions, "ana", "", NOW).await.id;
        let (one, two) = (CancellationToken::new(), CancellationToken::new());
        sessions.listen(&id, one.clone());
        sessions.listen(&id, two.clone());
        assert!(one.is_cancelled() && !two.is_cancelled());
        end(&sessions, &id, "ana").await;
        assert!(two.is_cancelled());
    }
}
