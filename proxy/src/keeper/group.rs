//! The process group of a server: everything it started, unless that made a group of its own.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    process::Child,
    time::{Instant, sleep, timeout},
};

/// How long a server may take to end after its stdin was closed, and again after SIGTERM.
pub(crate) const GRACE: Duration = Duration::from_secs(3);

/// A server's processes.
pub(super) struct Group {
    leader: Pid,
    /// Set once the group was seen empty: from then on its number may be given to others.
    ended: AtomicBool,
}

impl Group {
    pub(super) fn of(leader: i32) -> Self {
        Self { leader: Pid::from_raw(leader), ended: AtomicBool::new(false) }
    }

    /// Ends every process of the group, the server itself included, if SIGTERM does not. `child` is the server, where
    /// it is our child: only then can it be waited for.
    pub(super) async fn end(&self, mut child: Option<&mut Child>) {
        if self.is_empty_within(child.as_deref_mut(), Duration::ZERO).await {
            return;
        }
        self.signal(Signal::SIGTERM);
        if self.is_empty_within(child.as_deref_mut(), GRACE).await {
            return;
        }
        self.kill();
        if let Some(child) = child.as_deref_mut() {
            // Reaps the server itself; the others are reaped by whoever adopts them.
            let _ = timeout(GRACE, child.wait()).await;
        }
        self.is_empty_within(child, Duration::from_millis(200)).await;
    }

    /// Ends every process of the group at once.
    pub(super) fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    /// A process that we did not start cannot be waited for, only looked for.
    pub(super) async fn is_empty_within(&self, mut child: Option<&mut Child>, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        loop {
            if let Some(child) = child.as_deref_mut() {
                let _ = child.try_wait();
            }
            if killpg(self.leader, None) == Err(Errno::ESRCH) {
                self.ended.store(true, Ordering::Relaxed);
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn signal(&self, signal: Signal) {
        if !self.ended.load(Ordering::Relaxed)
            && let Err(error) = killpg(self.leader, signal)
            && error != Errno::ESRCH
        {
            tracing::warn!(target: "upstream", group = self.leader.as_raw(), %error, "could not signal a server's group");
        }
    }
}
