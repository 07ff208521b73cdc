//! What survives a crash, and how it may change.
//!
//! * `entry`: facts, of which `accepted` is the first; `state`: where they lead, and the one table of legal transitions.
//! * `call`: the fold of a call's facts; `register`: the fold of those that belong to no call.
//! * `engine`: call + event -> facts to write, then effects.
//! * `journal`: the contract that `memory` and `redb` keep; `codec` is their format.
//!
//! Invariants: nothing here awaits, reads a clock, draws a random number or talks to the world, but for the journals,
//! which do nothing else than keep what they are given. State is a fold of entries and never stored as the truth.

mod accepted;
mod call;
mod chain;
pub mod codec;
pub mod engine;
mod entry;
mod fingerprint;
mod journal;
mod line;
mod memory;
#[cfg(feature = "redb")]
mod redb;
mod register;
#[cfg(feature = "schema")]
mod schema;
mod state;
mod text;

pub use accepted::{Accepted, Caller, Disposition, Key, KeySource};
pub use call::{Call, Hold};
pub use entry::{
    Answer, AnswerKind, Attempt, CallId, Decider, Entry, Finding, Grant, HoldClock, Kept, Loss, Millis,
    Resolution, Shown, ShownKind, Then, Trouble,
};
pub use fingerprint::{
    Approvable, Digest, Fingerprint, Hash32, KeyHash, NotAHash, definition_hash, fingerprint,
    fingerprint_with, hash_fields, key_hash,
};
pub use journal::{
    Append, Appended, Claim, Done, Filter, Journal, JournalError, KEEP_NAME_MOST, KEEP_VALUE_MOST, Keep,
    KeyFate, Position, Record, Refusal, Summary, Urgency, Verified, VerifyError,
};
pub use memory::{Chaining, Crash, Delivery, Memory};
pub use register::{Definition, Likeness, Misfit, Note, Register, Remembered, RememberedId, Seen};
pub use state::{Illegal, Outcome, State};
pub use text::Text;

#[cfg(feature = "redb")]
pub use self::redb::{Durability, Options, Redb};
