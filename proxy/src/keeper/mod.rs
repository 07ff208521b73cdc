//! The keeper: a small process that starts stdio servers and keeps their pipes open while no `serve` is there.
//!
//! A call that was in flight when `serve` was killed ends with its answer because of three things that outlive it: the
//! server, whose stdin and stdout the keeper holds open; its answers, which stay in the kernel until they are in the
//! journal; and the log of what was sent ([`Sent`]), which proves what was not.
//!
//! * **Nothing on the way of a call.** `serve` gets duplicates of the pipes' ends and uses them itself.
//! * **One keeper for each journal**, found by whoever has the claim on it. It ends with its `serve` when that ends in an
//!   orderly way, and otherwise when nobody has come for a while.
//! * **No secrets stay.** It keeps a fingerprint of how a server was started, not its environment.
//! * **Without a keeper** (`keep_servers = "off"`, or where none can be started) the same code runs within `serve`, and
//!   servers end with it.

mod client;
mod group;
mod house;
mod parcel;
mod place;
mod sent;
mod ward;

use std::{io, os::fd::AsFd, path::PathBuf, time::Duration};

pub(crate) use self::{
    client::{Ended, Hold, Keeper, Kept},
    group::GRACE,
    parcel::{Ends, Recipe, Stage},
    place::Place,
    sent::{Fate, Mark, Sent},
};

/// Keeps servers until told to end, or until nobody has come for them within `unclaimed`. Standard input is the socket
/// that listens in `directory`.
///
/// # Errors
/// Where it is not.
pub(crate) fn run(directory: PathBuf, unclaimed: Duration) -> io::Result<()> {
    // What interrupts a terminal is not meant for us. It fails for the leader of a group, who gets no such signals either.
    let _ = nix::unistd::setsid();
    let listener = io::stdin().as_fd().try_clone_to_owned()?;
    let listener = std::os::unix::net::UnixListener::from(listener);
    listener.set_nonblocking(true)?;
    let place = Place::at(directory, unclaimed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::UnixListener::from_std(listener)?;
        house::House::new().serve_all(listener, &place).await;
        io::Result::Ok(())
    })
}
