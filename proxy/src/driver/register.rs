//! The register while Holdfast runs: which tools are trusted, and whose earlier decisions speak for a call.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use holdfast_store::{
    Append, CallId, Claim, Decider, Definition, Entry, Hash32, Journal, JournalError, KeyFate, KeyHash,
    Likeness, Note, Refusal, Register, Remembered, RememberedId, Text, Urgency, definition_hash,
    engine::{Advance, Standing},
};

use super::{
    Driver,
    decide::DecideError,
    journaling::{append, now, read},
};
use crate::{
    config::Role,
    upstream::{Tool, Trust, Upstream},
};

/// The fold of the register's facts, and what is written to it next.
#[derive(Default)]
pub(super) struct Registrar {
    kept: Mutex<Kept>,
    /// One writer at a time; what it wants to write may depend on what is there.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Kept {
    register: Register,
    /// Uses of remembered decisions that are claimed, or are about to be.
    uses: HashMap<RememberedId, BTreeSet<u32>>,
}

impl Registrar {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn read(journal: &dyn Journal) -> Result<Self, JournalError> {
        let damaged = |what: String| JournalError::Unreadable(format!("the register: {what}").into());
        let records = journal.history(CallId::REGISTER)?;
        let register = Register::fold(&records).map_err(|misfit| damaged(misfit.to_string()))?;
        let mut uses = HashMap::new();
        for remembered in register.remembered().filter(|remembered| now() < remembered.expires) {
            let mut used = BTreeSet::new();
            for n in 1..=remembered.uses {
                if journal.owner(remembered.use_key(n))?.is_some() {
                    used.insert(n);
                }
            }
            uses.insert(remembered.id, used);
        }
        Ok(Self { register, uses })
    }

    fn used(&self, remembered: &Remembered) -> u32 {
        self.uses.get(&remembered.id).map_or(0, |used| u32::try_from(used.len()).unwrap_or(u32::MAX))
    }
}

/// Tools of one server that are recorded, and the largest definition that is: a server that has more of either is not
/// one whose word may fill the journal.
const MOST_TOOLS: usize = 2_000;
const LARGEST: usize = 256 << 10;

/// What is known of a tool's definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nobody has seen the tool before.
    Not,
    /// It is the one that is trusted.
    Trusted,
    /// It is another one than the trusted one.
    Changed,
}

/// Uses that a call is about to claim; given back unless it does.
pub(super) struct Reserved {
    driver: Arc<Driver>,
    uses: Vec<(RememberedId, u32, KeyHash)>,
}

impl Reserved {
    pub(super) fn keys(&self) -> Vec<KeyHash> {
        self.uses.iter().map(|(.., key)| *key).collect()
    }

    /// They are claimed, by this call or, where that was refused, by another one.
    pub(super) fn claimed(mut self) {
        self.uses.clear();
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.uses.is_empty() {
            return;
        }
        let mut kept = self.driver.registrar.kept();
        for (id, n, _) in &self.uses {
            if let Some(used) = kept.uses.get_mut(id) {
                used.remove(n);
            }
        }
    }
}

impl Driver {
    /// Reads the register back.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    pub(super) async fn read_register(&self) -> Result<(), JournalError> {
        let kept = read(&self.journal, |journal| Kept::read(journal)).await?;
        *self.registrar.kept() = kept;
        Ok(())
    }

    /// Writes down what `notes` makes of the register, durably; nothing where it makes nothing.
    pub(super) async fn note(
        &self,
        notes: impl Fn(&Register) -> Result<Vec<Note>, DecideError>,
    ) -> Result<(), DecideError> {
        let unwritten = |error: JournalError| DecideError::Journal(error.to_string());
        let _one = self.registrar.writing.lock().await;
        loop {
            let (notes, expected) = {
                let kept = self.registrar.kept();
                (notes(&kept.register)?, kept.register.entries)
            };
            if notes.is_empty() {
                return Ok(());
            }
            let at = now();
            let facts = Append {
                call: CallId::REGISTER,
                at,
                expected,
                entries: notes.iter().cloned().map(|note| Entry::Noted(Box::new(note))).collect(),
                claim: Claim::default(),
                keys: KeyFate::Keep,
                urgency: Urgency::Now,
            };
            match append(&self.journal, facts).await {
                Ok(_) => {
                    let mut kept = self.registrar.kept();
                    for note in &notes {
                        kept.register.apply(at, note).expect("what was written fits what was there");
                        if let Note::Remembered(remembered) = note {
                            kept.uses.insert(remembered.id, BTreeSet::new());
                        }
                    }
                    return Ok(());
                }
                Err(Refusal::Conflict { .. }) => self.read_register().await.map_err(unwritten)?,
                Err(Refusal::Failed(error)) => return Err(unwritten(error)),
                Err(refusal) => unreachable!("the register claims nothing: {refusal:?}"),
            }
        }
    }

    /// What is known of a tool as its server defines it now.
    pub(crate) fn known(&self, server: &str, tool: &Tool) -> Known {
        self.defined(server, &tool.name, &tool.hash)
    }

    fn defined(&self, server: &str, tool: &str, hash: &str) -> Known {
        let kept = self.registrar.kept();
        match kept.register.definition(server, tool) {
            None => Known::Not,
            Some(known) if known.trusted.hash == *hash => Known::Trusted,
            Some(_) => Known::Changed,
        }
    }

    /// The definition that a tool had when it was seen first or accepted last, and the latest other one.
    pub(crate) fn definition(&self, server: &str, tool: &str) -> Option<Definition> {
        self.registrar.kept().register.definition(server, tool).cloned()
    }

    /// Grows with each fact, for those who keep something that depends on it.
    pub(crate) fn register_version(&self) -> u32 {
        self.registrar.kept().register.entries
    }

    /// Records tools that were never seen, and other definitions of those that were.
    ///
    /// # Errors
    /// Where the journal cannot be written.
    pub(super) async fn see_tools(&self, server: &str, tools: &[Tool]) -> Result<(), DecideError> {
        if tools.iter().all(|tool| self.known(server, tool) == Known::Trusted) {
            return Ok(());
        }
        self.note(|register| {
            let mut room = MOST_TOOLS.saturating_sub(register.tools_of(server));
            let mut notes = Vec::new();
            for note in tools.iter().filter_map(|tool| seen(register, server, tool)) {
                if let Note::Defined { tool, definition, .. } = &note {
                    if room == 0 || definition.len() > LARGEST {
                        tracing::warn!(server, tool, "a definition too many or too large is not recorded");
                        continue;
                    }
                    room -= 1;
                }
                notes.push(note);
            }
            Ok(notes)
        })
        .await
    }

    /// Keeps the register up to date with what the servers list, until the end.
    pub(super) async fn watch_tools(self: Arc<Self>) {
        let mut changed = self.upstreams.changed();
        changed.mark_changed();
        loop {
            tokio::select! {
                news = changed.changed() => if news.is_err() { return },
                () = self.stopped.cancelled() => return,
            }
            for upstream in self.upstreams.all() {
                let Some(tools) = upstream.tools_now() else { continue };
                if let Err(error) = self.see_tools(upstream.name(), &tools).await {
                    tracing::error!(?error, "definitions of tools could not be recorded");
                }
            }
        }
    }

    /// An operator accepts the definition that a tool has now.
    ///
    /// # Errors
    /// [`DecideError`], also where it has another one by now.
    pub(crate) async fn trust(
        &self,
        server: &str,
        tool: &str,
        definition: Hash32,
        by: Decider,
    ) -> Result<(), DecideError> {
        let upstream = self.upstreams.get(server).ok_or(DecideError::NotFound)?;
        let offered = upstream.tool_now(tool).ok_or(DecideError::NotFound)?;
        if definition != *offered.hash {
            return Err(DecideError::Illegal("it has been defined anew since you looked".into()));
        }
        self.see_tools(server, std::slice::from_ref(&offered)).await?;
        self.note(|register| {
            let known = register.definition(server, tool).ok_or(DecideError::NotFound)?;
            if known.trusted.hash == definition {
                return Err(DecideError::Illegal("this definition does not wait to be accepted".into()));
            }
            let (server, tool, by) = (server.to_owned(), tool.to_owned(), by.clone());
            let definition = Text::of(&offered.definition);
            Ok(vec![Note::Trusted { server, tool, definition, by }])
        })
        .await?;
        // Agents may see it again.
        self.upstreams.touch();
        Ok(())
    }

    /// The votes that speak for such a call, in the order in which they were given.
    pub(super) fn votes_in_advance(&self, asked: &Likeness<'_>) -> Vec<Advance> {
        let kept = self.registrar.kept();
        let speaking = kept.register.remembered().filter(|remembered| {
            remembered.speaks_for(now(), asked).is_ok() && kept.used(remembered) < remembered.uses
        });
        let votes = speaking.filter_map(|remembered| {
            let by = Decider { via: "remembered".to_owned(), ..self.voter(&remembered.by.name)? };
            let standing = self.standing(asked.principal, &by.name);
            Some(Advance { remembered: remembered.id, by, standing })
        });
        votes.collect()
    }

    /// The operator as configured now, where they may approve.
    fn voter(&self, name: &str) -> Option<Decider> {
        let decider = |groups: &[String]| Decider {
            name: name.to_owned(),
            groups: groups.to_vec(),
            via: String::new(),
        };
        let operators = &self.config.get().operators;
        if operators.is_empty() {
            return (name == "local").then(|| decider(&[]));
        }
        let operator = operators.iter().find(|operator| operator.name == name)?;
        (operator.role >= Role::Approver).then(|| decider(&operator.groups))
    }

    /// What an operator is to the agent that asks.
    pub(super) fn standing(&self, principal: &str, operator: &str) -> Standing {
        let config = self.config.get();
        let agent = config.agents.iter().find(|agent| agent.name == principal);
        match agent.and_then(|agent| agent.owner.as_deref()) {
            Some(owner) if owner == operator => Standing::Owner,
            _ => Standing::Other,
        }
    }

    /// One use of each; none where one of them has none left.
    pub(super) fn reserve(self: &Arc<Self>, ids: &[RememberedId]) -> Option<Reserved> {
        let mut reserved = Reserved { driver: self.clone(), uses: Vec::with_capacity(ids.len()) };
        let mut kept = self.registrar.kept();
        let kept = &mut *kept;
        for id in ids {
            let decision = kept.register.decision(*id).zip(kept.uses.get_mut(id));
            let free = decision.and_then(|(remembered, used)| {
                let n = (1..=remembered.uses).find(|n| !used.contains(n))?;
                used.insert(n);
                Some((*id, n, remembered.use_key(n)))
            });
            // What is reserved so far goes back once the lock does.
            reserved.uses.push(free?);
        }
        Some(reserved)
    }

    /// Remembered decisions that have not expired, with their uses so far and, where one speaks for nothing any more,
    /// the reason.
    pub(crate) fn remembered(&self) -> Vec<(Remembered, u32, Option<String>)> {
        let kept = self.registrar.kept();
        let current = kept.register.remembered().filter(|remembered| now() < remembered.expires);
        current.map(|one| (one.clone(), kept.used(one), self.silenced(one))).collect()
    }

    fn silenced(&self, remembered: &Remembered) -> Option<String> {
        if self.voter(&remembered.by.name).is_none() {
            return Some(format!("{} may not approve any more", remembered.by.name));
        }
        let Some(upstream) = self.upstreams.get(&remembered.server) else {
            return Some("the server is not configured any more".to_owned());
        };
        if *upstream.identity() != *remembered.identity {
            return Some("the server behind this name is another one now".to_owned());
        }
        // Of a server that has not listed its tools yet nobody knows.
        let tool = upstream.tool_now(&remembered.tool)?;
        (*tool.hash != *remembered.definition).then(|| "the tool's definition is another one now".to_owned())
    }
}

impl Trust for Driver {
    fn trusts(&self, server: &str, tool: &str, hash: &str) -> bool {
        self.defined(server, tool, hash) != Known::Changed
    }
}

/// What a look at a tool adds to the register.
fn seen(register: &Register, server: &str, tool: &Tool) -> Option<Note> {
    let (name, definition) = (tool.name.clone(), || Text::of(&tool.definition));
    let is = |hash: Hash32| hash == *tool.hash;
    match register.definition(server, &tool.name) {
        None => Some(Note::Defined { server: server.to_owned(), tool: name, definition: definition() }),
        Some(known) if is(known.trusted.hash) => None,
        // Once is enough to know that it happened; how it differs is seen at the server.
        Some(known) if known.changed.is_some() => None,
        Some(_) => {
            tracing::warn!(
                server,
                tool = name,
                "a tool's definition has changed: nothing is sent to it until an operator accepts that"
            );
            Some(Note::Changed {
                server: server.to_owned(),
                tool: name,
                definition: definition_hash(&tool.definition),
            })
        }
    }
}

/// As an approver sees it: the tool of a call is there, and is the one that is trusted.
pub(super) fn untrusted(driver: &Driver, upstream: &Upstream, tool: &str) -> Option<String> {
    let tool = upstream.tool_now(tool)?;
    (driver.known(upstream.name(), &tool) == Known::Changed).then(|| {
        format!(
            "the definition of `{}` has changed since it was trusted: an admin has to accept that first (Servers)",
            tool.name
        )
    })
}
