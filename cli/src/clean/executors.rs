//! Ends what an instance's agents run, in order: a framework that is a task, and executors, each of
//! which stops its kubelet, then its containers with their grace, and cleans up after itself. What
//! does not manage that in time is killed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::cgroups;
use crate::catalog::Own;
use crate::instance::Paths;
use crate::procfs::{self, ProcessId};

/// Asks every executor to end and waits. Returns whether all have.
pub fn end(paths: &Paths, patience: Duration, on_wait: impl FnMut(usize)) -> bool {
    end_program(paths, Own::Executor, patience, on_wait)
}

/// The same for a framework that is a task: it would start nodes again.
pub fn end_framework(paths: &Paths, patience: Duration) -> bool {
    end_program(paths, Own::Framework, patience, |_| ())
}

fn end_program(
    paths: &Paths,
    program: Own,
    patience: Duration,
    mut on_wait: impl FnMut(usize),
) -> bool {
    let roots = cgroups::roots(paths);
    let found: Vec<ProcessId> = find(&roots, program);
    for process in &found {
        // It may have ended meanwhile.
        let _ = process.signal(Signal::TERM);
    }
    let begun = Instant::now();
    loop {
        let left = found.iter().filter(|e| e.is_alive()).count();
        if left == 0 {
            return true;
        }
        if begun.elapsed() >= patience {
            // Their connections would keep the API server from ending. Their guards do the rest.
            for process in &found {
                let _ = process.signal(Signal::KILL);
            }
            return false;
        }
        on_wait(left);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Processes of a program in the agents' cgroups, executors' guards left out.
fn find(roots: &[PathBuf], program: Own) -> Vec<ProcessId> {
    roots
        .iter()
        .flat_map(|root| cgroups::processes(root))
        .collect::<std::collections::BTreeSet<u32>>()
        .into_iter()
        .filter(|pid| {
            let is_it = procfs::executable(*pid)
                .and_then(|exe| Some(exe.file_name()? == program.file_name()))
                .unwrap_or(false);
            // Its helpers are the same program with a word first; it itself has only flags.
            let only_flags = procfs::command_line(*pid)
                .is_some_and(|line| line.split(' ').nth(1).is_none_or(|w| w.starts_with('-')));
            is_it && only_flags
        })
        .filter_map(ProcessId::of)
        .collect()
}
