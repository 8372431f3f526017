//! What has to happen before the first thread exists.

use std::io;

use rustix::mount::{MountPropagationFlags, mount_change};

/// A mount namespace of the executor's own, so that its mounts vanish with it. First private, so
/// that nothing leaks to the machine; then shared inside, since kubelet and the containers'
/// mounts need propagation among themselves.
pub fn own_mount_namespace() -> io::Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    let flags = MountPropagationFlags::REC;
    mount_change("/", MountPropagationFlags::PRIVATE | flags)?;
    mount_change("/", MountPropagationFlags::SHARED | flags)?;
    Ok(())
}

/// Agents may start executors with signals blocked; children would inherit that.
pub fn reset_signals() -> io::Result<()> {
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    Ok(())
}
