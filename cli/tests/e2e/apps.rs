//! What `make up` makes: Mesos, Marathon, and a control plane of Marathon's apps. Apps, Mesos and
//! Marathon are killed, everything is stopped and started, and nothing is left.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::Cluster;
use crate::support::processes::naming;

#[test]
fn a_cluster_of_marathons_apps_outlives_mesos_marathon_and_each_app() {
    let cluster = Cluster::up(1, &["--marathon"]);
    let status = status(&cluster);
    assert_eq!(status["ready"], true, "{status:#}");
    assert_eq!(status["apps"].as_array().map(Vec::len), Some(5));
    let names = cluster.k8sm(&["logs"]);
    for app in [
        "etcd-0",
        "apiserver",
        "controller-manager",
        "proxy",
        "framework",
    ] {
        assert!(names.lines().any(|name| name == app), "{app}: {names}");
        assert!(!cluster.k8sm(&["logs", app]).is_empty(), "{app}");
    }
    let before = cluster.containers("app=hello");
    assert!(!before.is_empty());

    // Marathon starts what dies; pods do not notice.
    for program in [
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "k8sm-framework",
        "k8sm-proxy",
    ] {
        kill(&cluster, program);
        cluster.wait(&format!("all is ready with {program}"), 60, || {
            is_ready(&cluster) && cluster.try_kubectl(&["get", "nodes"]).is_ok()
        });
    }
    assert_eq!(cluster.containers("app=hello"), before);

    // The supervisor and all that it runs; tasks and pods live on.
    let now = self::status(&cluster);
    let processes = now["processes"].as_array().unwrap().iter();
    let pids = processes.map(|p| &p["pid"]).chain([&now["supervisor"]]);
    for pid in pids.filter_map(Value::as_u64) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
        nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
    }
    cluster.up_again();
    assert!(is_ready(&cluster));
    assert_eq!(cluster.containers("app=hello"), before);

    // The installer's own commands find it.
    cluster.k8sm(&["doctor"]);

    cluster.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]);
    cluster.k8sm(&["stop"]);
    assert_eq!(tasks_of(&cluster), Vec::<String>::new());
    cluster.k8sm(&["start"]);
    cluster.kubectl(&["get", "configmap", "kept"]);
    cluster.wait("hello is back", 60, || cluster.ready("app=hello") > 0);
    cluster.finish();
}

fn status(cluster: &Cluster) -> Value {
    let output = cluster.command(&["status", "-o", "json"]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn is_ready(cluster: &Cluster) -> bool {
    status(cluster)["ready"] == true
}

/// Programs that run from sandboxes of the cluster's agents.
fn tasks_of(cluster: &Cluster) -> Vec<String> {
    let sandboxes = cluster.dir().join("state/mesos");
    let all = naming(&sandboxes).into_iter();
    all.map(|process| process.line).collect()
}

/// Kills an app's program, and waits until Marathon has started it again.
fn kill(cluster: &Cluster, program: &str) {
    let running = || -> Vec<i32> {
        let all = naming(&cluster.dir().join("state/mesos")).into_iter();
        let found = all.filter(|process| process.program() == program);
        found.map(|process| process.pid).collect()
    };
    let before = running();
    assert!(!before.is_empty(), "{program} runs");
    for pid in &before {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), Signal::SIGKILL).unwrap();
    }
    cluster.wait(&format!("{program} runs again"), 60, || {
        let now = running();
        !now.is_empty() && now.iter().all(|pid| !before.contains(pid))
    });
}
