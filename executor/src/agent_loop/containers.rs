//! Ends the containers of a node that is given up, with grace, when kubelet has been stopped.
//!
//! containerd's shim keeps the pid of each container's first process in its bundle. SIGTERM goes
//! to those, not to the sandboxes (they hold the network that the others may still need). What
//! remains after the grace ends with the cgroup.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::cgroup::{CgroupSetup, kill};

/// How often is looked whether they have ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Asks all containers to end and waits for them, at most for `grace`.
pub async fn end(cgroups: &CgroupSetup, containerd_state: &Path, grace: Duration) {
    let Some(pods) = cgroups
        .dir_of("pids", &cgroups.pods)
        .or_else(|| cgroups.dir_of("memory", &cgroups.pods))
    else {
        return;
    };
    let bundles = containerd_state.join("io.containerd.runtime.v2.task/k8s.io");
    let mut waiting = first_processes(&bundles);
    // A stale file must not hit a stranger: only what is in the pods' cgroups is ours.
    retain_living(&mut waiting, &pods);
    if waiting.is_empty() {
        return;
    }
    tracing::info!("ending {} containers", waiting.len());
    for pid in &waiting {
        if let Some(pid) = Pid::from_raw(*pid) {
            // It may have ended since.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
    let deadline = Instant::now() + grace;
    while !waiting.is_empty() && Instant::now() < deadline {
        tokio::time::sleep(LOOK_EVERY).await;
        retain_living(&mut waiting, &pods);
    }
    if !waiting.is_empty() {
        let names: Vec<String> = waiting
            .iter()
            .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok())
            .map(|name| name.trim().to_owned())
            .collect();
        tracing::warn!(
            "these did not end in time and are killed: {}",
            names.join(", ")
        );
    }
}

fn retain_living(waiting: &mut Vec<i32>, pods: &Path) {
    let living: HashSet<i32> = kill::processes(pods).into_iter().collect();
    waiting.retain(|pid| living.contains(pid));
}

/// The first process of each container that is not a sandbox.
fn first_processes(bundles: &Path) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(bundles) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let bundle = entry.path();
            let pid = fs::read_to_string(bundle.join("init.pid")).ok()?;
            let spec = fs::read(bundle.join("config.json")).ok()?;
            if is_sandbox(&spec) {
                return None;
            }
            pid.trim().parse().ok()
        })
        .collect()
}

#[derive(serde::Deserialize)]
struct Spec {
    #[serde(default)]
    annotations: std::collections::HashMap<String, String>,
}

fn is_sandbox(spec: &[u8]) -> bool {
    serde_json::from_slice::<Spec>(spec).is_ok_and(|spec| {
        spec.annotations
            .get("io.kubernetes.cri.container-type")
            .is_some_and(|kind| kind == "sandbox")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sandboxes_are_not_asked_to_end() {
        let dir = tempfile::tempdir().unwrap();
        for (name, kind, pid) in [("a", "sandbox", "11"), ("b", "container", "12\n")] {
            let bundle = dir.path().join(name);
            fs::create_dir(&bundle).unwrap();
            fs::write(bundle.join("init.pid"), pid).unwrap();
            let spec = format!(
                r#"{{"process": {{}}, "annotations": {{"io.kubernetes.cri.container-type": "{kind}"}}}}"#
            );
            fs::write(bundle.join("config.json"), spec).unwrap();
        }
        fs::create_dir(dir.path().join("half-made")).unwrap();
        assert_eq!(first_processes(dir.path()), [12]);
        assert!(first_processes(&dir.path().join("none")).is_empty());
    }
}
