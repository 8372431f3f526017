//! `k8sm logs`: logs of the control plane, of Mesos, of the framework, and of the nodes' own
//! processes as long as their agents are this instance's.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::print;
use crate::args::Logs;
use crate::cluster::processes::FRAMEWORK;
use crate::error::Error;
use crate::instance::Paths;
use crate::supervise::logs::tail;

/// Between looks at a followed log.
const POLL: Duration = Duration::from_millis(200);

/// Shows a log, or lists which there are.
pub fn run(paths: &Paths, args: &Logs) -> Result<(), Error> {
    super::settings(paths)?;
    let logs = find(paths);
    let Some(name) = &args.component else {
        let names: String = logs.keys().map(|n| format!("{n}\n")).collect();
        return print(&names);
    };
    let Some(path) = logs.get(name) else {
        let known: Vec<&str> = logs.keys().map(String::as_str).collect();
        return Err(Error::Usage(format!(
            "there is no log of {name}; there are {}. Logs of pods: k8sm kubectl logs",
            known.join(", ")
        )));
    };
    let read = || Error::io(format!("read {}", path.display()));
    for line in tail(path, args.lines).map_err(read())? {
        print(&format!("{line}\n"))?;
    }
    if args.follow {
        follow(path)?;
    }
    Ok(())
}

/// Every log by the name of its process; a node's processes twice where that is unambiguous:
/// `kubelet`, and `<node>/kubelet`.
fn find(paths: &Paths) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let mut nodes = children(&paths.node_data().join("nodes"));
    // Nodes in mount namespaces of their own, as seen from outside.
    for agent in children(&paths.mesos()) {
        nodes.extend(children(&agent.join("namespace/var-lib-k8sm/nodes")));
    }
    for node in &nodes {
        let node_name = node.file_name().unwrap_or_default().to_string_lossy();
        for (name, path) in logs_in(&node.join("logs")) {
            found.insert(format!("{node_name}/{name}"), path.clone());
            if nodes.len() == 1 {
                found.insert(name, path);
            }
        }
    }
    for agent in children(&paths.mesos()) {
        found.extend(tasks(&agent));
    }
    // The control plane's names win.
    found.extend(logs_in(&paths.logs()));
    found
}

/// What the tasks of Marathon's apps say, by the last part of the app's id; the newest task counts.
fn tasks(agent: &Path) -> Vec<(String, PathBuf)> {
    let executors = children(&agent.join("work/slaves"))
        .into_iter()
        .flat_map(|slave| children(&slave.join("frameworks")))
        .flat_map(|framework| children(&framework.join("executors")));
    let mut logs: Vec<(SystemTime, String, PathBuf)> = executors
        .filter_map(|executor| {
            let name = app_of(executor.file_name()?.to_str()?)?;
            Some((name, children(&executor.join("runs"))))
        })
        .flat_map(|(name, runs)| runs.into_iter().map(move |run| (name.clone(), run)))
        .filter_map(|(name, run)| {
            let log = run.join("stderr");
            let written = std::fs::metadata(&log).ok()?.modified().ok()?;
            Some((written, name, log))
        })
        .collect();
    logs.sort();
    logs.into_iter()
        .map(|(_, name, path)| (name, path))
        .collect()
}

/// `kubernetes-cp_etcd-0.instance-<uuid>._app.1` is a task of `etcd-0`; Mesos names a task's
/// executor after it. The app outside of the group is the framework.
fn app_of(task: &str) -> Option<String> {
    let (app, _) = task.split_once(".instance-")?;
    let name = app.rsplit_once('_').map_or(FRAMEWORK, |(_, name)| name);
    Some(name.to_owned())
}

fn logs_in(dir: &Path) -> Vec<(String, PathBuf)> {
    children(dir)
        .into_iter()
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.strip_suffix(".log")?.to_owned();
            Some((name, path))
        })
        .collect()
}

fn children(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|e| Some(e.ok()?.path()))
        .collect()
}

/// Prints what is appended, until Ctrl-C; goes on after the log was cut or replaced.
fn follow(path: &Path) -> Result<(), Error> {
    let failed = || Error::io(format!("read {}", path.display()));
    let size = |p: &Path| std::fs::metadata(p).map(|m| m.len());
    let mut position = size(path).map_err(failed())?;
    loop {
        let length = size(path).unwrap_or(position);
        if length < position {
            position = 0;
        }
        if length > position {
            let mut file = std::fs::File::open(path).map_err(failed())?;
            file.seek(SeekFrom::Start(position)).map_err(failed())?;
            let mut bytes = Vec::new();
            file.take(1 << 20)
                .read_to_end(&mut bytes)
                .map_err(failed())?;
            position += bytes.len() as u64;
            print(&String::from_utf8_lossy(&bytes))?;
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tasks_log_has_the_name_of_its_app() {
        let app = |task| app_of(task).unwrap_or_default();
        assert_eq!(app("kubernetes-cp_etcd-0.instance-5d._app.1"), "etcd-0");
        assert_eq!(app("kubernetes.instance-5d._app.1"), "framework");
        assert_eq!(app("k8sm-node-1"), "");
    }
}
