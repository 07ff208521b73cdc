//! The configuration that is in force: whoever needs it takes it once and sees one state of it to the end.

use std::sync::{Arc, PoisonError, RwLock};

use super::Config;

/// A configuration that another one can take the place of, whole.
#[derive(Debug)]
pub(crate) struct Current(RwLock<Arc<Config>>);

impl Current {
    /// `config` is in force.
    pub(crate) fn new(config: Config) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Arc::new(config))))
    }

    /// What is in force now.
    pub(crate) fn get(&self) -> Arc<Config> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on `config` is in force.
    pub(crate) fn replace(&self, config: Config) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }
}
