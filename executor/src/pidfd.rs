//! Waiting for a process' end by its pidfd, inside tokio.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// A pidfd whose readability (the process has ended) can be awaited.
pub struct PidFd(AsyncFd<OwnedFd>);

impl PidFd {
    /// Registers it with the present runtime.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` is open, keeps its number, and lives as long as the `AsyncFd`
        // that owns it; nothing here takes it out again.
        #[allow(unsafe_code)]
        let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Waits until the process has ended. May wake without cause: then clear the guard.
    pub async fn ended(&self) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
        self.0.readable().await
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}
