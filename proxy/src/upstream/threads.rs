//! What the next life needs to take up requests by HTTP where this one ended: the sessions of legacy servers, and from which
//! event on the answer of each call comes; and which tasks servers have made of calls.
//!
//! It is kept in a file beside the journal, written by a thread of its own. No call waits for that, and nothing of it is
//! synced but what is known of tasks: a process that is killed leaves all that it wrote, and where a power loss takes the last of it, the calls are
//! in doubt as they would be without it.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{Speaks, era::Era, id::RequestId, link::Offer};

/// The file is written anew when it has this many bytes, and twice as many as it had then.
const LONG_BYTES: usize = 1 << 20;
/// Requests that are done are known for so many more: an answer may have been heard and not be durable yet.
const REMEMBERED: usize = 256;
/// A server that needs more to find a place again gets no second chance.
const LONGEST_EVENT_BYTES: usize = 4096;

/// A conversation that can be taken up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    /// The server, by its name in the configuration and by its URL.
    pub(super) server: String,
    pub(super) identity: String,
    /// Whose it is, as the keeper would know it.
    pub(super) sharer: String,
    pub(super) speaks: Speaks,
    /// What `Mcp-Session-Id` says; some servers have none.
    pub(super) id: Option<String>,
    pub(super) era: Era,
    pub(super) offer: Offer,
}

/// A task that a server has made of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Task {
    /// The server's URL or command line.
    pub(super) identity: String,
    /// The server's own id of it.
    pub(super) id: String,
}

/// A session's number: unique over all lives, as far as chance goes.
pub(super) type Number = u64;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Note {
    Begun(Number, Box<Session>),
    /// A request, by its id, and the event after which more of its answer comes.
    At(u64, Number, String),
    /// The task that a server has made of a request.
    Task(u64, Task),
    Done(u64),
    /// Nobody will ask for this request again.
    Forget(u64),
    Over(Number),
}

enum Order {
    Keep(Note),
    /// Say when everything before is written.
    Flush(oneshot::Sender<()>),
}

/// The notes of this life, and those that an earlier one has left.
pub(crate) struct Threads {
    /// None: nothing outlives the process.
    writer: Option<mpsc::Sender<Order>>,
    found: Mutex<Known>,
    leaving: AtomicBool,
}

/// What the notes come to.
#[derive(Debug, Default)]
struct Known {
    sessions: BTreeMap<Number, Session>,
    places: HashMap<u64, (Number, String)>,
    tasks: HashMap<u64, Task>,
    done: VecDeque<u64>,
    /// The requests that were asked for.
    wanted: HashSet<u64>,
}

impl Threads {
    /// Nothing is kept.
    pub(crate) fn none() -> Arc<Self> {
        Arc::new(Self { writer: None, found: Mutex::default(), leaving: AtomicBool::new(false) })
    }

    /// Reads what an earlier life has left beside the journal, and goes on with it. What cannot be read or written is not
    /// known, and nothing worse.
    pub(crate) fn beside(store: &Path) -> Arc<Self> {
        let mut name = store.as_os_str().to_owned();
        name.push(".threads");
        let path = PathBuf::from(name);
        let found = Known::read(&path);
        let (writer, orders) = mpsc::channel();
        let mut book = Book { path, known: Known::read_again(&found), file: None, bytes: 0, limit: 0 };
        let started = thread::Builder::new().name("threads".to_owned()).spawn(move || book.keep(&orders));
        if let Err(error) = &started {
            tracing::warn!(target: "upstream", %error, "answers by HTTP will not outlive this process");
        }
        Arc::new(Self {
            writer: started.is_ok().then_some(writer),
            found: Mutex::new(found),
            leaving: AtomicBool::new(false),
        })
    }

    /// A conversation has begun that the next life can go on with.
    pub(super) fn begun(&self, session: Session) -> Number {
        let number = rand::random::<u64>() >> 1;
        self.keep(Note::Begun(number, Box::new(session)));
        number
    }

    /// Of the answer to `request` all was dealt with up to this event.
    pub(super) fn at(&self, request: RequestId, session: Number, event: &str) {
        if event.len() <= LONGEST_EVENT_BYTES {
            self.keep(Note::At(request.number(), session, event.to_owned()));
        }
    }

    /// A task was made of `request`.
    pub(super) fn has_task(&self, request: RequestId, task: Task) {
        self.keep(Note::Task(request.number(), task));
    }

    /// The task that a request of an earlier life has become.
    pub(super) fn task(&self, request: RequestId) -> Option<Task> {
        let mut found = self.found();
        found.wanted.insert(request.number());
        found.tasks.get(&request.number()).cloned()
    }

    /// Nothing more is expected of this request.
    pub(super) fn done(&self, request: RequestId) {
        self.keep(Note::Done(request.number()));
    }

    /// Nobody can go on with this conversation.
    pub(super) fn over(&self, session: Number) {
        self.keep(Note::Over(session));
    }

    /// Sessions with this server that an earlier life has left, once.
    pub(super) fn left_with(&self, server: &str) -> Vec<(Number, Session)> {
        let mut found = self.found();
        let numbers: Vec<Number> = found
            .sessions
            .iter()
            .filter(|(_, session)| session.server == server)
            .map(|(number, _)| *number)
            .collect();
        numbers.into_iter().filter_map(|number| Some((number, found.sessions.remove(&number)?))).collect()
    }

    /// Where the answer to a request of an earlier life goes on.
    pub(super) fn place(&self, request: RequestId) -> Option<(Number, String)> {
        let mut found = self.found();
        found.wanted.insert(request.number());
        found.places.get(&request.number()).cloned()
    }

    /// Forgets the sessions that nobody has asked for: their servers are not configured any more, and with them went what
    /// we would have to say to end them.
    pub(super) fn forget_the_rest(&self) {
        let left = std::mem::take(&mut self.found().sessions);
        for (number, session) in left {
            tracing::info!(target: "upstream", server = session.server, "a session of a server that is not configured any more is forgotten");
            self.over(number);
        }
    }

    /// All unfinished calls have asked for what is theirs: nobody will ask for the rest.
    pub(super) fn recovered(&self) {
        let found = std::mem::take(&mut *self.found());
        let requests: HashSet<u64> = found.places.into_keys().chain(found.tasks.into_keys()).collect();
        requests.difference(&found.wanted).for_each(|request| self.keep(Note::Forget(*request)));
    }

    /// This life ends, and another one may follow: sessions in which calls are under way are left to it.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed) && self.writer.is_some()
    }

    /// Resolves when everything is written.
    pub(super) async fn written(&self) {
        let (tell, told) = oneshot::channel();
        if let Some(writer) = &self.writer
            && writer.send(Order::Flush(tell)).is_ok()
        {
            told.await.ok();
        }
    }

    fn keep(&self, note: Note) {
        if let Some(writer) = &self.writer {
            // It lives as long as there is somebody to send.
            let _ = writer.send(Order::Keep(note));
        }
    }

    fn found(&self) -> MutexGuard<'_, Known> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn read(path: &Path) -> Self {
        let mut known = Self::default();
        match fs::read(path) {
            Ok(bytes) => {
                // A line that was cut off says nothing.
                for note in
                    bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
                {
                    known.take(note);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(target: "upstream", %error, "what was said by HTTP before cannot be read")
            }
        }
        known
    }

    fn read_again(other: &Self) -> Self {
        let Self { sessions, places, tasks, .. } = other;
        let (sessions, places, tasks) = (sessions.clone(), places.clone(), tasks.clone());
        Self { sessions, places, tasks, ..Self::default() }
    }

    fn take(&mut self, note: Note) {
        match note {
            Note::Begun(number, session) => drop(self.sessions.insert(number, *session)),
            Note::At(request, session, event) => drop(self.places.insert(request, (session, event))),
            Note::Task(request, task) => drop(self.tasks.insert(request, task)),
            Note::Done(request) => {
                self.done.push_back(request);
                if self.done.len() > REMEMBERED
                    && let Some(oldest) = self.done.pop_front()
                {
                    self.take(Note::Forget(oldest));
                }
            }
            Note::Forget(request) => {
                self.places.remove(&request);
                self.tasks.remove(&request);
            }
            Note::Over(number) => {
                self.sessions.remove(&number);
                self.places.retain(|_, (session, _)| *session != number);
            }
        }
    }

    /// The shortest notes that come to the same.
    fn notes(&self) -> impl Iterator<Item = Note> {
        let sessions = self.sessions.iter();
        let begun = sessions.map(|(number, session)| Note::Begun(*number, Box::new(session.clone())));
        let places = self.places.iter();
        let at = places.map(|(request, (session, event))| Note::At(*request, *session, event.clone()));
        begun.chain(at).chain(self.tasks.iter().map(|(request, task)| Note::Task(*request, task.clone())))
    }
}

/// The file, as its thread has it.
struct Book {
    path: PathBuf,
    known: Known,
    file: Option<fs::File>,
    bytes: usize,
    limit: usize,
}

impl Book {
    fn keep(&mut self, orders: &mpsc::Receiver<Order>) {
        self.write_anew();
        while let Ok(first) = orders.recv() {
            let (mut lines, mut flushed, mut sync) = (Vec::new(), Vec::new(), false);
            for order in std::iter::once(first).chain(orders.try_iter().take(1000)) {
                match order {
                    Order::Flush(tell) => flushed.push(tell),
                    Order::Keep(note) => {
                        // The next life finds out by itself which requests are of no use to anybody.
                        if !matches!(note, Note::Done(_) | Note::Forget(_)) {
                            line(&mut lines, &note);
                        }
                        // A task may take days, and somebody waits until this is written.
                        sync |= matches!(note, Note::Task(..));
                        self.known.take(note);
                    }
                }
            }
            self.write(&lines);
            if let Some(file) = self.file.as_ref().filter(|_| sync)
                && let Err(error) = file.sync_data()
            {
                self.fail(&error);
            }
            for tell in flushed {
                let _ = tell.send(());
            }
        }
    }

    fn write(&mut self, lines: &[u8]) {
        let Some(file) = &mut self.file else { return };
        self.bytes += lines.len();
        if let Err(error) = file.write_all(lines) {
            return self.fail(&error);
        }
        if self.bytes > self.limit {
            self.write_anew();
        }
    }

    fn write_anew(&mut self) {
        let mut lines = Vec::new();
        self.known.notes().for_each(|note| line(&mut lines, &note));
        match replace(&self.path, &lines) {
            Ok(file) => {
                (self.file, self.bytes) = (Some(file), lines.len());
                self.limit = LONG_BYTES.max(2 * lines.len());
            }
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &io::Error) {
        tracing::warn!(target: "upstream", file = %self.path.display(), %error, "answers by HTTP will not outlive this process");
        self.file = None;
    }
}

fn line(lines: &mut Vec<u8>, note: &Note) {
    serde_json::to_writer(&mut *lines, note).expect("notes are JSON");
    lines.push(b'\n');
}

/// A new file with these lines, in the place of the one that is there, to be written on.
fn replace(path: &Path, lines: &[u8]) -> io::Result<fs::File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let fresh = PathBuf::from(name);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Session ids are as good as passwords to some servers.
    let mut new = fs::OpenOptions::new().append(true).create_new(true).mode(0o600).open(&fresh)?;
    new.write_all(lines)?;
    // Tasks are among them, of which the next life is to know also after a power loss.
    new.sync_data()?;
    fs::rename(&fresh, path)?;
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::File::open(directory)?.sync_all()?;
    }
    Ok(new)
}
