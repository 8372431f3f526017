//! Cgroups of an instance: the devcluster's root and everything below it, in every hierarchy.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::leftovers::{self, Leftover};
use crate::instance::Paths;
use crate::preflight::facts::CGROUP_ROOT;

/// Name of the cgroup below which executors make trees of their own.
const EXECUTORS: &str = "k8sm";

/// The directories that hold an instance's cgroups, those that exist.
pub fn roots(paths: &Paths) -> Vec<PathBuf> {
    let name = paths.cgroups_root();
    let mount = Path::new(CGROUP_ROOT);
    let hierarchies = fs::read_dir(mount)
        .into_iter()
        .flatten()
        .filter_map(|e| Some(e.ok()?.path()));
    // On v2 the mount point is the hierarchy itself; on v1 each of its directories is one.
    let hierarchies: Vec<PathBuf> = hierarchies.chain([mount.to_owned()]).collect();
    let mut found: Vec<PathBuf> = hierarchies.iter().map(|h| h.join(&name)).collect();
    // Where Mesos makes no cgroup, and on v2 always, pods live in a tree named after the Mesos
    // container; the containers' ids are in the agents' work directories.
    for id in containers(&paths.mesos()) {
        found.extend(hierarchies.iter().map(|h| h.join(EXECUTORS).join(&id)));
    }
    let noted = leftovers::noted(&paths.node_data());
    found.extend(noted.into_iter().filter_map(|l| match l {
        Leftover::Cgroup(dir) if dir.starts_with(mount) => Some(dir),
        _ => None,
    }));
    found.retain(|p| p.is_dir());
    found.sort();
    found.dedup();
    found
}

/// The executors' common cgroup, in each hierarchy: gone when it is empty, and not ours alone.
pub fn remove_empty_parents() {
    let mount = Path::new(CGROUP_ROOT);
    for entry in fs::read_dir(mount).into_iter().flatten().flatten() {
        // Fails when somebody else's are in it.
        let _ = fs::remove_dir(entry.path().join(EXECUTORS));
    }
    let _ = fs::remove_dir(mount.join(EXECUTORS));
}

/// Ids of the containers that the agents have run, from
/// `work/slaves/<agent>/frameworks/<framework>/executors/<executor>/runs/<id>` in each.
fn containers(mesos: &Path) -> Vec<String> {
    fn children(dir: &Path) -> Vec<PathBuf> {
        fs::read_dir(dir)
            .into_iter()
            .flatten()
            .filter_map(|e| Some(e.ok()?.path()))
            .collect()
    }
    children(mesos)
        .into_iter()
        .flat_map(|agent| children(&agent.join("work/slaves")))
        .flat_map(|agent| children(&agent.join("frameworks")))
        .flat_map(|framework| children(&framework.join("executors")))
        .flat_map(|executor| children(&executor.join("runs")))
        .filter_map(|run| Some(run.file_name()?.to_str()?.to_owned()))
        .filter(|id| id != "latest")
        .collect()
}

/// Processes in a cgroup and below it.
pub fn processes(root: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    walk(root, &mut |dir| {
        if let Ok(text) = fs::read_to_string(dir.join("cgroup.procs")) {
            // 0 is a process of another pid namespace.
            found.extend(
                text.lines()
                    .filter_map(|l| l.parse().ok())
                    .filter(|p: &u32| *p != 0),
            );
        }
    });
    found
}

/// Lets frozen processes see their end (v1), and ends a whole tree at once (v2).
pub fn thaw_and_kill(root: &Path) {
    walk(root, &mut |dir| {
        let state = dir.join("freezer.state");
        if state.exists() {
            // A frozen process does not die of SIGKILL. Failing means that it is gone.
            let _ = fs::write(state, "THAWED");
        }
    });
    let kill = root.join("cgroup.kill");
    if kill.exists() {
        let _ = fs::write(kill, "1");
    }
}

/// Removes cgroups, the innermost first. Returns those that would not go.
pub fn remove(roots: &[PathBuf]) -> Vec<String> {
    /// The kernel takes a moment to see that a killed process has left.
    const PATIENCE: Duration = Duration::from_secs(10);
    let begun = Instant::now();
    loop {
        let mut left = Vec::new();
        for root in roots {
            let mut dirs = Vec::new();
            walk(root, &mut |dir| dirs.push(dir.to_owned()));
            for dir in dirs.iter().rev() {
                match fs::remove_dir(dir) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        left.push(format!("cgroup {}: {e}", dir.display()));
                    }
                    _ => {}
                }
            }
        }
        if left.is_empty() || begun.elapsed() >= PATIENCE {
            return left;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Visits a directory and those below it, parents first.
fn walk(dir: &Path, visit: &mut impl FnMut(&Path)) {
    if !dir.is_dir() {
        return;
    }
    visit(dir);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_found_in_the_work_directories() {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir
            .path()
            .join("agent-0/work/slaves/S0/frameworks/F0/executors/node.a/runs");
        fs::create_dir_all(runs.join("0b6a8d3c")).unwrap();
        fs::create_dir_all(runs.join("latest")).unwrap();
        assert_eq!(containers(dir.path()), ["0b6a8d3c"]);
    }

    #[test]
    fn parents_come_first() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        let mut seen = Vec::new();
        walk(dir.path(), &mut |d| seen.push(d.to_owned()));
        let expected = [
            dir.path().to_owned(),
            dir.path().join("a"),
            dir.path().join("a/b"),
        ];
        assert_eq!(seen, expected);
        assert!(remove(&[dir.path().join("a")]).is_empty());
        assert!(!dir.path().join("a").exists());
    }
}
