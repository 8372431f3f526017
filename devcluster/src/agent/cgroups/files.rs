//! Control files, and the cgroups below one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::{CgroupError, io_error};
use crate::agent::container::kill;

/// How often processes are killed that forked meanwhile.
const KILL_AGAIN: Duration = Duration::from_millis(5);

pub(super) fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    // Control files exist already; `fs::write` would try to truncate them, which is harmless.
    fs::write(path, value).map_err(io_error("write", path))
}

pub(super) fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(io_error("read", path))
}

pub(super) fn read_number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A `key value` table such as `memory.stat`.
pub(super) fn read_table(path: &Path) -> std::collections::HashMap<String, u64> {
    fs::read_to_string(path)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

/// A cgroup and all below it, the deepest first.
pub(super) fn tree(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(path) else {
        return found;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            found.extend(tree(&entry.path()));
        }
    }
    found.push(path.to_owned());
    found
}

pub(super) fn processes(cgroup: &Path) -> Vec<u32> {
    fs::read_to_string(cgroup.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .collect()
}

/// Makes a cgroup, or leaves it as it is.
pub(super) fn make(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(io_error("make cgroup", path)(error)),
    }
}

/// Kills every process of a cgroup and of those below it, until none is left.
pub(super) async fn end_all(
    path: &Path,
    deadline: Instant,
    patience: Duration,
) -> Result<(), CgroupError> {
    // Version 2 since Linux 5.14: one write, which also catches what forks meanwhile.
    let kill_file = path.join("cgroup.kill");
    while path.is_dir() {
        let left: Vec<u32> = tree(path).iter().flat_map(|c| processes(c)).collect();
        if left.is_empty() {
            break;
        }
        if Instant::now() >= deadline {
            return Err(CgroupError::Undead {
                left: left.len(),
                path: path.to_owned(),
                after: patience,
            });
        }
        if kill_file.exists() {
            write(&kill_file, "1")?;
        } else {
            left.into_iter().for_each(kill);
        }
        tokio::time::sleep(KILL_AGAIN).await;
    }
    Ok(())
}

/// Removes a cgroup with all below it. Processes that have just ended may keep it busy for a
/// moment, so it is tried again until the deadline.
pub(super) async fn remove_tree(path: &Path, patience: Duration) -> Result<(), CgroupError> {
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_millis(1);
    loop {
        let mut refused = None;
        for cgroup in tree(path) {
            match fs::remove_dir(&cgroup) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => refused = Some(io_error("remove", &cgroup)(error)),
            }
        }
        match refused {
            None => return Ok(()),
            Some(error) if Instant::now() >= deadline => return Err(error),
            Some(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
