//! Whether a server that is there also answers: a look at it when it owes an answer and says nothing, and what follows.
//!
//! A server that runs one thing at a time says nothing for as long as that takes, so silence alone proves little: only
//! one that also misses a look for [`Patience::hung_ms`](crate::config::Patience) counts as hung. From then on new calls
//! are not sent, which costs nobody a time-out, until it says anything at all. What it took earlier is waited for as
//! before: it may have executed.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use holdfast_store::Millis;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{HealthState, Speaks, Unsent, link::Link, shared::Shared};
use crate::{config::Patience, driver::now, times::clock};

/// How often a connection is looked over, where its server is given more than that.
const ROUND: Duration = Duration::from_secs(1);
/// For what has come while we were stopped ourselves: time that we did not have is not the server's silence.
const CATCH_UP: Duration = Duration::from_millis(100);

/// Since when a connection has been hung; 0 while it is not.
#[derive(Default)]
pub(super) struct Pulse(AtomicU64);

impl Pulse {
    /// Why nothing is sent now.
    pub(super) fn hung(&self, server: &str) -> Option<Unsent> {
        let since = self.0.load(Ordering::Relaxed);
        (since > 0).then(|| Unsent {
            code: "upstream-hung",
            message: format!(
                "server `{server}` has taken requests and answered nothing, not even whether it is there, since {}; \
                 nothing was sent",
                clock(Millis(since))
            ),
        })
    }

    /// Another connection is another server.
    pub(super) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Why a connection is to be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GivenUp;

/// Watches over one connection for as long as it lives. Ends only where it is to be given up.
pub(super) async fn watch(shared: &Shared, link: &Link, pulse: &Pulse) -> GivenUp {
    loop {
        let patience = shared.config().patience;
        let Some(hung) = patience.hung_ms.map(Duration::from_millis) else {
            sleep(ROUND).await;
            continue;
        };
        let round = ROUND.min(hung / 4).max(Duration::from_millis(10));
        let heard = link.peer().heard();
        sleep(round).await;
        // Who owes nothing need not speak.
        if link.peer().calls() == 0 || link.peer().heard() != heard {
            continue;
        }
        if look(link, heard, hung).await {
            continue;
        }
        let since = now();
        pulse.0.store(since.0.max(1), Ordering::Relaxed);
        let seconds = hung.as_secs_f64();
        tracing::warn!(
            target: "upstream", server = &*shared.name, seconds,
            "the server has said nothing for so long: new calls to it are refused at once"
        );
        let error = format!("it takes requests and has answered nothing for {seconds} s");
        shared.report(HealthState::Hung, Some(&error));
        if !recovers(link, heard, &patience).await {
            tracing::warn!(target: "upstream", server = &*shared.name, "a hung server is given up");
            return GivenUp;
        }
        pulse.reset();
        tracing::info!(target: "upstream", server = &*shared.name, "the server answers again");
        shared.report(HealthState::Up, None);
        shared.common.changed.send_modify(|changes| *changes += 1);
    }
}

/// Whether anything is heard within `limit`, having asked whether anybody is there.
async fn look(link: &Link, heard: u64, limit: Duration) -> bool {
    let method = match link.speaks() {
        Speaks::Legacy => "ping",
        Speaks::Modern => "server/discover",
    };
    let until = Instant::now() + limit;
    let pinged = link.request(method, "");
    tokio::pin!(pinged);
    loop {
        tokio::select! {
            // An error is an answer, too.
            _ = &mut pinged => return true,
            () = sleep(Duration::from_millis(20)) => {}
            () = sleep_until(until) => break,
        }
        if link.peer().heard() != heard {
            return true;
        }
    }
    timeout(CATCH_UP, pinged).await.is_ok() || link.peer().heard() != heard
}

/// Whether a hung server says anything before it is to be given up. It is not while it could still answer calls, for as
/// long as policy wants that.
async fn recovers(link: &Link, heard: u64, patience: &Patience) -> bool {
    let begun = Instant::now();
    let over = |limit: Option<u64>| limit.is_some_and(|ms| begun.elapsed() >= Duration::from_millis(ms));
    let pinged = async {
        // By HTTP each look is a request of its own, and the one that was lost proves nothing about the next.
        loop {
            if look(link, heard, ROUND * 5).await {
                return;
            }
        }
    };
    let given_up = async {
        loop {
            if over(patience.give_up_ms) || (over(patience.restart_ms) && link.peer().insisted() == 0) {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = pinged => true,
        () = given_up => false,
    }
}
