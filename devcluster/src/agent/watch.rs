//! Waiting for file descriptors that are no sockets: pidfds, eventfds, control files.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the reactor.
pub fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    #[allow(
        unsafe_code,
        reason = "tokio offers no safe way, not even for `OwnedFd`"
    )]
    // SAFETY: an `OwnedFd` is a valid, open descriptor for all its life, always the same one,
    // and the `AsyncFd` owns it.
    let registered = unsafe { AsyncFd::register_with_interest(fd, interest) };
    registered.map_err(|error| error.into_parts().1)
}
