//! What the suite runs on: journals that can be restarted.

use std::sync::Arc;

use holdfast_store::{Append, Appended, Chaining, Delivery, Journal, Memory, Refusal};

use crate::facts::{Pending, submit};

/// A journal and what it is kept on.
pub(crate) trait Medium {
    fn journal(&self) -> Arc<dyn Journal>;

    /// Stops the journal in good order and starts it again.
    fn restart(&mut self);

    /// Has what was submitted committed, where that does not happen by itself.
    fn settle(&self) {}

    /// False where `verify` has no chain to check.
    fn is_chained(&self) -> bool {
        true
    }

    fn submit(&self, append: Append) -> Pending {
        submit(&*self.journal(), append)
    }

    fn append(&self, append: Append) -> Result<Appended, Refusal> {
        let pending = self.submit(append);
        self.settle();
        pending.wait()
    }

    /// An append that is made, or the test fails.
    fn must(&self, append: Append) {
        let call = append.call;
        if let Err(refusal) = self.append(append) {
            panic!("the append to {call} was refused: {refusal:?}");
        }
    }
}

pub(crate) struct InMemory {
    journal: Arc<Memory>,
    chaining: Chaining,
}

pub(crate) fn memory_at_once() -> InMemory {
    in_memory(Delivery::AtOnce, Chaining::Unchained)
}

pub(crate) fn memory_on_flush() -> InMemory {
    in_memory(Delivery::OnFlush, Chaining::Chained)
}

#[cfg(feature = "redb")]
pub(crate) fn memory_chained() -> InMemory {
    in_memory(Delivery::AtOnce, Chaining::Chained)
}

fn in_memory(delivery: Delivery, chaining: Chaining) -> InMemory {
    InMemory { journal: Arc::new(Memory::new(delivery, chaining)), chaining }
}

impl Medium for InMemory {
    fn journal(&self) -> Arc<dyn Journal> {
        self.journal.clone()
    }

    fn restart(&mut self) {
        self.journal.flush();
        self.journal = Arc::new(self.journal.reopen());
    }

    fn settle(&self) {
        self.journal.flush();
    }

    fn is_chained(&self) -> bool {
        self.chaining == Chaining::Chained
    }
}

#[cfg(feature = "redb")]
pub(crate) mod disk {
    use std::sync::Arc;

    use holdfast_store::{Durability, Journal, Options, Redb};
    use tempfile::TempDir;

    use super::Medium;

    pub(crate) struct OnDisk {
        journal: Option<Arc<Redb>>,
        options: Options,
        directory: TempDir,
    }

    pub(crate) fn two_phase() -> OnDisk {
        on_disk(Durability::TwoPhase)
    }

    pub(crate) fn one_phase() -> OnDisk {
        on_disk(Durability::OnePhase)
    }

    fn on_disk(durability: Durability) -> OnDisk {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let options = Options { durability, ..Options::default() };
        let mut medium = OnDisk { journal: None, options, directory };
        medium.restart();
        medium
    }

    impl Medium for OnDisk {
        fn journal(&self) -> Arc<dyn Journal> {
            self.journal.clone().expect("open between restarts")
        }

        fn restart(&mut self) {
            if let Some(journal) = self.journal.take() {
                Arc::into_inner(journal).expect("nobody else holds the journal at a restart");
            }
            let path = self.directory.path().join("journal.redb");
            let journal = Redb::open(&path, self.options).expect("the journal opens");
            self.journal = Some(Arc::new(journal));
        }
    }
}
