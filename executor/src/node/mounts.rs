//! Puts the node's own directories where programs expect them by a fixed path, inside the mount
//! namespace that only the executor and its children see. The mounts vanish with the namespace.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};

/// A directory of the node's and the path that programs hard-code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// The node's own.
    pub source: PathBuf,
    /// Where it is expected.
    pub target: PathBuf,
}

/// Why a directory is not where it should be.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The executor shares the machine's mounts.
    #[error(
        "the executor has no mount namespace of its own; mounting over {} would reach the whole machine",
        target.display()
    )]
    Shared {
        /// What would be mounted over.
        target: PathBuf,
    },
    /// Something refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MountError {
    let path = path.to_owned();
    move |source| MountError::Io {
        action,
        path,
        source,
    }
}

/// Mounts each source over its target, unless it is there already. Both are made if missing.
pub fn bind(binds: &[Bind]) -> Result<(), MountError> {
    for Bind { source, target } in binds {
        for dir in [source, target] {
            fs::create_dir_all(dir).map_err(error("making the directory", dir))?;
        }
        if same(source, target).map_err(error("looking at", target))? {
            continue;
        }
        if !own_namespace().map_err(error("looking at", Path::new("/proc/self/ns/mnt")))? {
            let target = target.clone();
            return Err(MountError::Shared { target });
        }
        let none: Option<&str> = None;
        mount(
            Some(source),
            target,
            none,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            none,
        )
        .map_err(|e| error("mounting over", target)(e.into()))?;
        // A peer group of its own: what is mounted below the target does not appear below the
        // source as well, and pods with mount propagation find it shared.
        for propagation in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
            mount(none, target, none, propagation, none)
                .map_err(|e| error("setting the propagation of", target)(e.into()))?;
        }
    }
    Ok(())
}

fn same(a: &Path, b: &Path) -> io::Result<bool> {
    let (a, b) = (fs::metadata(a)?, fs::metadata(b)?);
    Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
}

/// Whether this process has other mounts than the first one of the machine (or container).
fn own_namespace() -> io::Result<bool> {
    let own = fs::read_link("/proc/self/ns/mnt")?;
    match fs::read_link("/proc/1/ns/mnt") {
        Ok(first) => Ok(own != first),
        // Where the first process has capabilities that this one lacks (CAP_SYS_RESOURCE in some
        // containers) it cannot be looked at. The executor has made a namespace of its own at its
        // start, or it would not have come this far.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(true),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_own_mounts_are_never_touched() {
        if own_namespace().unwrap_or(true) {
            println!("skipped: this test process has a mount namespace of its own");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let bind_one = Bind {
            source: dir.path().join("own"),
            target: dir.path().join("expected"),
        };
        let refused = bind(std::slice::from_ref(&bind_one)).unwrap_err();
        assert!(matches!(refused, MountError::Shared { .. }), "{refused}");
        let nothing_to_do = Bind {
            target: bind_one.source.clone(),
            ..bind_one
        };
        bind(&[nothing_to_do]).unwrap();
    }
}
