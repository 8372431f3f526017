//! Ends everything in a cgroup tree and removes it. Standard library only and no allocation to
//! speak of: the guard uses it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Pids in the whole tree. Zombies are not listed by the kernel.
pub fn processes(dir: &Path) -> Vec<i32> {
    let mut pids = Vec::new();
    collect(dir, &mut pids, 0);
    pids
}

/// Deeper trees than this do not come from container runtimes.
const DEPTH_MAX: usize = 32;

fn collect(dir: &Path, pids: &mut Vec<i32>, depth: usize) {
    if let Ok(text) = fs::read_to_string(dir.join("cgroup.procs")) {
        pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    }
    if depth < DEPTH_MAX {
        for child in children(dir) {
            collect(&child, pids, depth + 1);
        }
    }
}

fn children(dir: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}

/// Kills until nothing is left or the deadline has passed; returns how many processes remain.
/// The caller's own process is spared.
pub fn kill(dir: &Path, deadline: Duration) -> usize {
    let start = Instant::now();
    let own = std::process::id().cast_signed();
    let mut pause = Duration::from_millis(1);
    loop {
        let mut pids = processes(dir);
        let inside = pids.contains(&own);
        pids.retain(|pid| *pid != own);
        if pids.is_empty() {
            return 0;
        }
        if start.elapsed() > deadline {
            return pids.len();
        }
        // v2: one write, which also catches what forks meanwhile.
        if inside || fs::write(dir.join("cgroup.kill"), "1").is_err() {
            // v1: a frozen tree cannot fork away from the list.
            let freezer = dir.join("freezer.state");
            let frozen = !inside && fs::write(&freezer, "FROZEN").is_ok();
            if frozen {
                pids = processes(dir);
                pids.retain(|pid| *pid != own);
            }
            for pid in &pids {
                if let Some(pid) = Pid::from_raw(*pid) {
                    // It may have ended since.
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            if frozen {
                let _ = fs::write(&freezer, "THAWED");
                // What containers' own freezers hold (a paused pod) must thaw too.
                thaw(dir, 0);
            }
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

fn thaw(dir: &Path, depth: usize) {
    let state = dir.join("freezer.state");
    if fs::read_to_string(&state).is_ok_and(|text| text.trim() != "THAWED") {
        let _ = fs::write(&state, "THAWED");
    }
    if depth < DEPTH_MAX {
        for child in children(dir) {
            thaw(&child, depth + 1);
        }
    }
}

/// Removes an empty tree, children first. Returns whether it is gone.
pub fn remove(dir: &Path, deadline: Duration) -> bool {
    let start = Instant::now();
    loop {
        remove_once(dir, 0);
        if !dir.exists() {
            return true;
        }
        if start.elapsed() > deadline {
            return false;
        }
        // The kernel lets go of dead processes' cgroups a moment after they die.
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn remove_once(dir: &Path, depth: usize) {
    if depth < DEPTH_MAX {
        for child in children(dir) {
            remove_once(&child, depth + 1);
        }
    }
    let _ = fs::remove_dir(dir);
}
