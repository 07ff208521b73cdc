//! What runs in `serve`, and how another configuration takes the place of the one it runs with.

use std::{path::PathBuf, sync::Arc};

use holdfast_store::Journal;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    address::{self, Address, Claim},
    config::Config,
    driver::Driver,
    front::{Front, Guard, Tokens},
    inbox::{self, Door, Inbox, Page, Readiness},
    notify::{Board, Notifier},
    reload::{Reloads, Subject, Turned},
};

/// What every inbox has, whatever the configuration.
pub(super) struct Office {
    pub(super) driver: Arc<Driver>,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) readiness: Arc<Readiness>,
    pub(super) page: Arc<Page>,
    pub(super) reloads: Arc<Reloads>,
    /// Where people open the inbox, without the last slash.
    pub(super) base: String,
}

impl Office {
    /// The inbox by `config`. `made` is the token of the one operator where none is configured.
    pub(super) fn inbox(
        &self,
        config: &Config,
        made: Option<&str>,
        notifications: Arc<Board>,
        over: CancellationToken,
    ) -> Inbox<Arc<Driver>> {
        let tokens = if made.is_some() { Tokens::None } else { Tokens::Required };
        Inbox {
            desk: self.driver.clone(),
            operators: inbox::operators(&config.operators, made),
            agents: config.agents.clone(),
            max_depth: config.intake.max_depth,
            guard: Guard::new(config.listen.inbox, tokens)
                .with_pages()
                .known_as(config.listen.inbox_host())
                .behind(config.trusted_proxy.clone()),
            readiness: self.readiness.clone(),
            policy: config.policy.clone(),
            notifications,
            base: self.base.clone(),
            reloads: self.reloads.clone(),
            over,
            page: self.page.clone(),
        }
    }
}

/// Those who tell people, at work.
pub(super) struct Notifying {
    board: Arc<Board>,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Notifying {
    pub(super) fn start(notifier: Notifier, stop: &CancellationToken) -> Self {
        let stop = stop.child_token();
        Self { board: notifier.board(), task: Some(tokio::spawn(notifier.run(stop.clone()))), stop }
    }

    pub(super) async fn end(&mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }
}

/// A `serve` at work.
pub(super) struct Running {
    pub(super) office: Office,
    pub(super) front: Arc<Front>,
    pub(super) door: Arc<Door>,
    /// Ends what goes on and on at the inbox as it is now.
    pub(super) over: CancellationToken,
    pub(super) notifying: Notifying,
    pub(super) claim: Claim,
    pub(super) address: Address,
    pub(super) store: PathBuf,
    pub(super) stop: CancellationToken,
}

impl Subject for Running {
    fn config(&self) -> Arc<Config> {
        self.office.driver.config()
    }

    async fn take(&mut self, config: Config) -> Result<Vec<Turned>, String> {
        let old = self.config();
        let made = match config.operators.is_empty() {
            true => Some(address::operator_token(&self.store).map_err(|error| error.to_string())?.text),
            false => None,
        };
        // Those who are told now stop first: two for one place in the journal would tell things twice.
        if config.notify != old.notify {
            self.notifying.end().await;
            let opened = Notifier::open(&self.office.journal, &config.notify, &self.office.base).await;
            let (notifier, failed) = match opened {
                Ok(notifier) => (notifier, None),
                Err(error) => {
                    let again = Notifier::open(&self.office.journal, &old.notify, &self.office.base).await;
                    (again.map_err(|error| error.to_string())?, Some(error.to_string()))
                }
            };
            self.notifying = Notifying::start(notifier, &self.stop);
            if let Some(why) = failed {
                return Err(why);
            }
        }
        let fates = self.office.driver.reconfigure(config.clone());
        self.front.reconfigure(&config);
        let over = self.stop.child_token();
        let board = self.notifying.board.clone();
        self.door.lead_to(self.office.inbox(&config, made.as_deref(), board, over.clone()));
        std::mem::replace(&mut self.over, over).cancel();
        let before = inbox::operators(&old.operators, self.address.operator_token.as_deref());
        self.office.page.sign_out_others(&before, &inbox::operators(&config.operators, made.as_deref()));
        if self.address.operator_token != made {
            self.address.operator_token = made;
            if let Err(error) = self.claim.publish(&self.address) {
                tracing::error!(%error, "the address file cannot be written: commands may not find this `serve`");
            }
        }
        let turned =
            |(server, fate): (String, crate::upstream::Fate)| Turned { server, fate: fate.name().to_owned() };
        Ok(fates.into_iter().map(turned).collect())
    }
}
