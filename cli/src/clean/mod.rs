//! Removes everything that an instance has made on the machine, whatever state it is in: by what
//! is recorded, by the mark in its processes' environment, and by names that follow from the state
//! directory's path. Repeating it is harmless; each part goes on when another fails, and what
//! could not be removed is said at the end.

pub mod cgroups;
pub mod directories;
pub mod executors;
pub mod forwarding;
pub mod leftovers;
pub mod mounts;
pub mod network;
pub mod processes;

use std::path::PathBuf;
use std::time::Duration;

use crate::instance::{Paths, Settings};

/// What is left although everything was tried.
#[derive(Debug, thiserror::Error)]
#[error("these could not be removed:\n  {}\nrun the command again; if it stays so, `ls /proc/<pid>/fd` and `lsof` tell who holds them", .left.join("\n  "))]
pub struct Error {
    /// One line each.
    pub left: Vec<String>,
}

/// How long killed processes may take to be gone. Those that write to a slow disk take a while.
const KILL_PATIENCE: Duration = Duration::from_secs(30);

/// Removes processes, mounts, network and cgroups of an instance; files stay.
pub fn machine(paths: &Paths, settings: Option<&Settings>) -> Result<(), Error> {
    let mut left = Vec::new();
    let roots = cgroups::roots(paths);
    let id = settings.map(|s| s.id.as_str());
    left.extend(processes::kill_all(paths, id, &roots, KILL_PATIENCE));
    left.extend(mounts::unmount_below(&[
        paths.state().to_owned(),
        paths.run().to_owned(),
    ]));
    left.extend(network::remove(paths));
    left.extend(forwarding::restore(
        paths,
        settings.and_then(|s| s.forwarding_before),
    ));
    left.extend(cgroups::remove(&roots));
    cgroups::remove_empty_parents();
    directories::remove_empty(settings.map_or(&[][..], |s| &s.absent_before));
    if left.is_empty() {
        Ok(())
    } else {
        Err(Error { left })
    }
}

/// Removes an instance's files. Call [`machine`] first.
pub fn files(paths: &Paths) -> Result<(), Error> {
    let mut left = Vec::new();
    for dir in [paths.run(), paths.state()] {
        left.extend(remove_dir(dir.to_owned()));
    }
    if left.is_empty() {
        Ok(())
    } else {
        Err(Error { left })
    }
}

fn is_empty(dir: &std::path::Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

fn remove_dir(dir: PathBuf) -> Option<String> {
    match std::fs::remove_dir_all(&dir) {
        Ok(()) => None,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        // A mount point cannot be removed, and only what was in it was ours.
        Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy && is_empty(&dir) => None,
        Err(e) => Some(format!("{}: {e}", dir.display())),
    }
}
