//! The ids of our requests: one of an attempt follows from its call, others from the clock.

use std::{
    fmt,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use holdfast_store::{Attempt, CallId, Hash32, hash_fields};

/// The JSON-RPC id of a request of ours, and its progress token.
///
/// That of an attempt follows from its call, so that the answer is known again after a restart. Others start from the
/// clock, so that a server which outlives us does not see one twice. All stay below 2^53, which is what servers written
/// in JavaScript can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct RequestId(u64);

/// Marks the ids of calls; the clock comes so far in the year 2058.
const CALL: u64 = 1 << 52;

impl RequestId {
    /// Of an attempt of a call.
    pub(super) fn of(call: CallId, attempt: Attempt) -> Self {
        Self::call(hash_fields("holdfast/request", &[&call.bytes(), &attempt.0.to_be_bytes()]))
    }

    /// Of an attempt that the server wants to be sent again, with what it asked for.
    pub(super) fn of_round((call, attempt): (CallId, Attempt), round: u32) -> Self {
        if round == 0 {
            return Self::of(call, attempt);
        }
        let (attempt, round) = (attempt.0.to_be_bytes(), round.to_be_bytes());
        Self::call(hash_fields("holdfast/round", &[&call.bytes(), &attempt, &round]))
    }

    fn call(hash: Hash32) -> Self {
        let first = hash.0.first_chunk().expect("a hash has more bytes");
        Self(CALL | (u64::from_be_bytes(*first) >> 12))
    }

    /// Whether it is that of an attempt of a call.
    pub(super) fn is_call(self) -> bool {
        self.0 & CALL != 0
    }

    pub(super) fn number(self) -> u64 {
        self.0
    }

    pub(super) fn fresh() -> Self {
        static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| {
            const JANUARY_2024_MS: u64 = 1_704_067_200_000;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64);
            // 4096 ids for each millisecond: we cannot use them up faster than the clock makes new ones.
            AtomicU64::new((now.saturating_sub(JANUARY_2024_MS) << 12) + rand::random_range(0..4096))
        });
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The id in a server's message. Some servers turn numbers into strings.
    pub(super) fn read(raw: &str) -> Option<Self> {
        raw.trim_matches('"').parse().ok().map(Self)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
