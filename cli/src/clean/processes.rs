//! Processes of an instance.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::cgroups;
use crate::instance::Paths;
use crate::procfs::{self, ProcessId};
use crate::supervise::record::Records;

/// Every process of an instance: recorded, marked, in its cgroups, or running a program from its
/// directories (the node's programs are unpacked there).
pub fn find(paths: &Paths, id: Option<&str>, roots: &[PathBuf]) -> BTreeSet<u32> {
    let mut found: BTreeSet<u32> = Records::new(paths.pids())
        .alive()
        .into_iter()
        .map(|r| r.id.pid)
        .collect();
    if let Some(id) = id {
        found.extend(procfs::of_instance(id));
    }
    found.extend(procfs::running_below(paths.state()));
    found.extend(roots.iter().flat_map(|root| cgroups::processes(root)));
    // This program may itself lie below the state directory, or run in the cgroup.
    found.remove(&std::process::id());
    found.retain(|pid| procfs::stat(*pid).is_some_and(|s| !s.zombie));
    found
}

/// Kills them until none is left. What one starts while it is being killed is found in the next
/// round. Returns those that would not go.
pub fn kill_all(
    paths: &Paths,
    id: Option<&str>,
    roots: &[PathBuf],
    patience: Duration,
) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let found = find(paths, id, roots);
        if found.is_empty() {
            return Vec::new();
        }
        for pid in &found {
            if let Some(process) = ProcessId::of(*pid) {
                // It may have ended; and the next round sees whether it did.
                let _ = process.signal(Signal::KILL);
            }
        }
        for root in roots {
            cgroups::thaw_and_kill(root);
        }
        if begun.elapsed() >= patience {
            return found
                .into_iter()
                .map(|pid| {
                    let command = procfs::command_line(pid).unwrap_or_default();
                    format!("process {pid}: {command}")
                })
                .collect();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
