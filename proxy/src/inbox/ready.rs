//! What is not ready, and why.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// The parts of Holdfast that must work before it takes calls, as they report themselves.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    missing: Mutex<BTreeMap<&'static str, String>>,
}

impl Readiness {
    /// `part` does not work, for this reason.
    pub(crate) fn missing(&self, part: &'static str, why: impl Into<String>) {
        self.lock().insert(part, why.into());
    }

    /// What does not work; empty when all is well.
    pub(crate) fn reasons(&self) -> BTreeMap<&'static str, String> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
