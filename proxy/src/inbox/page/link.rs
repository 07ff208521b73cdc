//! A link that signs the operator of this account in, once.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use holdfast_store::{Hash32, hash_fields};
use subtle::ConstantTimeEq;

use crate::address::random_token;

/// How long a link may lie about.
const LIFE: Duration = Duration::from_secs(3_600);

/// The link that has not been followed yet.
#[derive(Default)]
pub(super) struct Links(Mutex<Option<(Hash32, Instant)>>);

impl Links {
    /// A new link's secret; an earlier one no longer works.
    pub(super) fn make(&self) -> String {
        let secret = random_token();
        *self.lock() = Some((hash(&secret), Instant::now()));
        secret
    }

    /// Whether the link would work.
    pub(super) fn works(&self, secret: &str) -> bool {
        fits(&self.lock(), secret)
    }

    /// Uses the link up: true for one caller only.
    pub(super) fn follow(&self, secret: &str) -> bool {
        let mut kept = self.lock();
        let fits = fits(&kept, secret);
        if fits {
            *kept = None;
        }
        fits
    }

    /// No link works any more.
    pub(super) fn forget(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Hash32, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fits(kept: &Option<(Hash32, Instant)>, secret: &str) -> bool {
    kept.is_some_and(|(wanted, made)| made.elapsed() < LIFE && wanted.0.ct_eq(&hash(secret).0).into())
}

fn hash(secret: &str) -> Hash32 {
    hash_fields("holdfast/login-link", &[secret.as_bytes()])
}
