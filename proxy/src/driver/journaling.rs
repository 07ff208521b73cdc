//! The journal as the driver uses it: appends that are awaited, reads off the async threads.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use holdfast_store::{Append, Appended, Call, CallId, Journal, JournalError, Millis, Refusal};
use tokio::sync::oneshot;

/// Unix time, that never runs backwards while the process lives: a clock that is set back extends no deadline.
pub(crate) fn now() -> Millis {
    let clock = CLOCK.get_or_init(|| Clock { started: Instant::now(), base: AtomicU64::new(wall()) });
    let passed = u64::try_from(clock.started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let expected = clock.base.load(Ordering::Relaxed).saturating_add(passed);
    let wall = wall();
    if wall > expected {
        // The clock was set forward, or the machine slept: downtime counts.
        clock.base.fetch_max(wall - passed.min(wall), Ordering::Relaxed);
        return Millis(wall);
    }
    Millis(expected)
}

/// Time is at least this late: the journal has seen it.
pub(super) fn no_earlier_than(seen: Millis) {
    let passed = now().0.saturating_sub(CLOCK.get().map_or(0, |clock| clock.base.load(Ordering::Relaxed)));
    if let Some(clock) = CLOCK.get() {
        clock.base.fetch_max(seen.0.saturating_sub(passed), Ordering::Relaxed);
    }
}

struct Clock {
    started: Instant,
    /// Unix time in milliseconds at `started`, as the latest reading has it.
    base: AtomicU64,
}

static CLOCK: OnceLock<Clock> = OnceLock::new();

fn wall() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}

/// Appends and waits until it is durable.
pub(super) async fn append(journal: &Arc<dyn Journal>, append: Append) -> Result<Appended, Refusal> {
    let (tell, told) = oneshot::channel();
    journal.submit(append, Box::new(move |outcome| drop(tell.send(outcome))));
    told.await
        .unwrap_or_else(|_| Err(Refusal::Failed(JournalError::Io("the journal's writer has ended".into()))))
}

/// Reads the journal on a thread that may block.
pub(crate) async fn read<T: Send + 'static>(
    journal: &Arc<dyn Journal>,
    read: impl FnOnce(&dyn Journal) -> Result<T, JournalError> + Send + 'static,
) -> Result<T, JournalError> {
    let journal = journal.clone();
    tokio::task::spawn_blocking(move || read(&*journal)).await.expect("journal reads do not panic")
}

/// The call as the journal has it; none for one that is unknown or pruned.
pub(crate) async fn load(journal: &Arc<dyn Journal>, id: CallId) -> Result<Option<Call>, JournalError> {
    read(journal, move |journal| folded(journal, id)).await
}

/// The same, for those that block anyway.
pub(super) fn folded(journal: &dyn Journal, id: CallId) -> Result<Option<Call>, JournalError> {
    Call::fold(&journal.history(id)?)
        .map_err(|illegal| JournalError::Unreadable(format!("call {id}: {illegal}").into()))
}
