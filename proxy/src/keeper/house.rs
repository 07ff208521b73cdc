//! The keeper itself: starts servers for one `serve` after another, keeps their pipes open in between, and ends with them.
//!
//! On the way of a call it does nothing: `serve` has duplicates of the pipes' ends.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{UnixListener, UnixStream},
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use super::{
    Place,
    group::GRACE,
    parcel::{Ask, Inbox, Logged, Said, VERSION, send},
    ward::Ward,
};

/// A `serve` that does not read what it is told in this time is not there any more.
const SLOWEST_READER: Duration = Duration::from_secs(5);

/// What happens to a keeper.
pub(super) enum News {
    /// Somebody connected.
    Called(UnixStream),
    /// The connection of this number says something.
    Asked(u64, Ask, Vec<OwnedFd>),
    /// It was closed.
    Left(u64),
    /// This server's own process has ended.
    Exited(u64, String),
    /// Every process of this server has.
    Gone(u64, Option<String>),
    /// The system wants us to end.
    Terminated,
}

/// A keeper at work.
pub(super) struct House {
    wards: BTreeMap<u64, Ward>,
    started: u64,
    log: Option<OwnedFd>,
    client: Option<Client>,
    clients: u64,
    news: mpsc::UnboundedSender<News>,
    heard: mpsc::UnboundedReceiver<News>,
}

/// The `serve` that is worked for.
struct Client {
    number: u64,
    stream: Arc<UnixStream>,
    reader: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Whether there is more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    GoesOn,
    IsOver,
}

impl House {
    pub(super) fn new() -> Self {
        let (news, heard) = mpsc::unbounded_channel();
        Self { wards: BTreeMap::new(), started: 0, log: None, client: None, clients: 0, news, heard }
    }

    /// Works for one connection, and ends with it.
    pub(super) async fn serve_one(mut self, stream: UnixStream) {
        self.take_client(stream);
        while let Some(news) = self.heard.recv().await {
            if matches!(news, News::Left(_)) || self.hear(news).await == Work::IsOver {
                break;
            }
        }
        self.end_all().await;
    }

    /// Works for whoever connects of our own user, and ends when told to, or when nobody was there for long enough.
    pub(super) async fn serve_all(mut self, listener: UnixListener, place: &Place) {
        let unclaimed = place.unclaimed;
        tokio::spawn(accept(listener, self.news.clone()));
        tokio::spawn(terminated(self.news.clone()));
        let mut alone = Instant::now();
        loop {
            if self.client.is_some() {
                alone = Instant::now();
            }
            let news = tokio::select! {
                news = self.heard.recv() => news.expect("we have a sender ourselves"),
                () = sleep_until(alone + unclaimed), if self.client.is_none() => {
                    tracing::warn!(servers = self.wards.len(), "nobody has claimed these servers; they end");
                    break;
                }
            };
            if self.hear(news).await == Work::IsOver {
                break;
            }
        }
        self.end_all().await;
        // While the other end still sees us: whoever finds nobody here may begin anew.
        place.remove();
    }

    fn take_client(&mut self, stream: UnixStream) {
        self.clients += 1;
        let (number, stream, news) = (self.clients, Arc::new(stream), self.news.clone());
        let mut inbox = Inbox::of(stream.clone());
        let reader = tokio::spawn(async move {
            while let Ok(Some(ask)) = inbox.next::<Ask>().await {
                let fds = inbox.fds(if matches!(ask, Ask::Log) { 1 } else { 0 });
                if news.send(News::Asked(number, ask, fds)).is_err() {
                    return;
                }
            }
            let _ = news.send(News::Left(number));
        });
        // Only one process can have the claim on the journal, so an earlier one is no more.
        self.client = Some(Client { number, stream, reader });
    }

    async fn hear(&mut self, news: News) -> Work {
        match news {
            News::Called(stream) => self.take_client(stream),
            News::Asked(from, ask, fds) if self.is_client(from) => return self.asked(ask, fds).await,
            News::Left(from) if self.is_client(from) => self.client = None,
            News::Asked(..) | News::Left(_) => {}
            News::Exited(number, status) => {
                if let Some(ward) = self.wards.get_mut(&number) {
                    ward.about.status = Some(status.clone());
                }
                self.say(&Said::Exited { number, status }).await;
            }
            News::Gone(number, status) => {
                self.wards.remove(&number);
                self.say(&Said::Gone { number, status }).await;
            }
            News::Terminated if self.client.is_none() => return Work::IsOver,
            // `serve` is asked to end, too, and may still want its servers' answers.
            News::Terminated => {}
        }
        Work::GoesOn
    }

    fn is_client(&self, number: u64) -> bool {
        self.client.as_ref().is_some_and(|client| client.number == number)
    }

    async fn asked(&mut self, ask: Ask, fds: Vec<OwnedFd>) -> Work {
        match ask {
            Ask::Hello { .. } => {
                let kept = self.wards.values().map(|ward| ward.about.clone()).collect();
                let logged = if self.log.is_some() { Logged::Yes } else { Logged::No };
                let hello = Said::Hello { version: VERSION, logged, kept };
                let Some(client) = &self.client else { return Work::GoesOn };
                let fds: Vec<_> = self.log.iter().map(AsFd::as_fd).collect();
                let said = timeout(SLOWEST_READER, send(&client.stream, &hello, &fds)).await;
                self.sent(said.is_ok_and(|said| said.is_ok()));
            }
            Ask::Log => self.log = fds.into_iter().next(),
            Ask::Take { number } => {
                self.give(number, &Said::Taken { number }).await;
                // An earlier life may have been told, and nobody in between.
                let status = self.wards.get(&number).and_then(|ward| ward.about.status.clone());
                if let Some(status) = status {
                    self.say(&Said::Exited { number, status }).await;
                }
            }
            Ask::Start { tag, recipe } => {
                self.started += 1;
                // Never the number of another server, also not of one of an earlier keeper.
                let number = (u64::from(std::process::id()) << 32) + self.started;
                match Ward::start(number, recipe, self.news.clone()) {
                    Ok(ward) => {
                        let pid = ward.about.pid;
                        self.wards.insert(number, ward);
                        self.give(number, &Said::Started { tag, number, pid }).await;
                    }
                    Err(why) => self.say(&Said::NotStarted { tag, why }).await,
                }
            }
            Ask::Note { number, note } => self.with(number, |ward| ward.note(note)),
            Ask::CloseInput { number } => self.with(number, Ward::close_input),
            Ask::End { number } if self.wards.contains_key(&number) => self.with(number, Ward::end),
            Ask::End { number } => self.say(&Said::Gone { number, status: None }).await,
            Ask::Stop => return Work::IsOver,
        }
        Work::GoesOn
    }

    fn with(&mut self, number: u64, act: impl FnOnce(&mut Ward)) {
        if let Some(ward) = self.wards.get_mut(&number) {
            act(ward);
        }
    }

    async fn say(&mut self, said: &Said) {
        if let Some(client) = &self.client {
            let said = timeout(SLOWEST_READER, send(&client.stream, said, &[])).await;
            self.sent(said.is_ok_and(|said| said.is_ok()));
        }
    }

    /// With the ends of the server's pipes; without them where it is not there any more. One that an earlier life was about
    /// to end is ended first.
    async fn give(&mut self, number: u64, said: &Said) {
        let Some(client) = &self.client else { return };
        if let Some(ward) = self.wards.get_mut(&number).filter(|ward| ward.ends().is_none()) {
            ward.end();
            return;
        }
        let ends = self.wards.get(&number).and_then(Ward::ends);
        let said = match &ends {
            Some(ends) => timeout(SLOWEST_READER, send(&client.stream, said, ends)).await,
            None => {
                let gone = Said::Gone { number, status: None };
                timeout(SLOWEST_READER, send(&client.stream, &gone, &[])).await
            }
        };
        self.sent(said.is_ok_and(|said| said.is_ok()));
    }

    fn sent(&mut self, whole: bool) {
        if !whole {
            self.client = None;
        }
    }

    /// Ends what is left as `serve` would: stdin is closed, after the grace the groups get SIGTERM, then SIGKILL.
    async fn end_all(&mut self) {
        self.wards.values_mut().for_each(Ward::close_input);
        let lives = |house: &Self| house.wards.values().any(|ward| ward.about.status.is_none());
        let end = Instant::now() + GRACE;
        while lives(self) {
            let Ok(Some(news)) = tokio::time::timeout_at(end, self.heard.recv()).await else { break };
            self.hear_last(news).await;
        }
        self.wards.values_mut().for_each(Ward::end);
        while !self.wards.is_empty() {
            let Some(news) = self.heard.recv().await else { break };
            self.hear_last(news).await;
        }
    }

    async fn hear_last(&mut self, news: News) {
        if !matches!(news, News::Called(_) | News::Asked(..)) {
            self.hear(news).await;
        }
    }
}

async fn accept(listener: UnixListener, news: mpsc::UnboundedSender<News>) {
    let own = nix::unistd::geteuid().as_raw();
    loop {
        match listener.accept().await {
            // The directory is ours alone; this is for file systems that do not mind modes.
            Ok((stream, _)) if stream.peer_cred().is_ok_and(|peer| peer.uid() == own) => {
                if news.send(News::Called(stream)).is_err() {
                    return;
                }
            }
            Ok(_) => tracing::warn!("another user wanted to be served"),
            // Of descriptors there will be more.
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn terminated(news: mpsc::UnboundedSender<News>) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut term) = signal(SignalKind::terminate()) else { return };
    while term.recv().await.is_some() {
        if news.send(News::Terminated).is_err() {
            return;
        }
    }
}
