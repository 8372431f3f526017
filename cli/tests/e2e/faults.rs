//! Each process killed with -9 in turn: nothing lost, nothing doubled, and pods that should survive
//! have the same containers.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;

use crate::support::{BUSYBOX, Cluster, processes};

/// Processes whose death touches no pod: one after the other, and the control plane at once.
const HARMLESS: [(&str, &[&str]); 7] = [
    ("framework", &["k8sm-framework"]),
    ("kubelet", &["kubelet"]),
    ("containerd", &["containerd"]),
    ("kube-proxy", &["kube-proxy"]),
    ("mesos-agent", &["mesos-agent"]),
    ("mesos-master", &["mesos-master"]),
    (
        "control-plane",
        &[
            "etcd",
            "kube-apiserver",
            "kube-controller-manager",
            "proxy-server",
        ],
    ),
];

#[test]
fn every_process_may_die_and_the_cluster_converges() {
    let cluster = Cluster::up(1, &[]);
    let count = cluster.ready("app=hello");
    assert!(count > 0);
    for (victim, programs) in HARMLESS {
        let before = picture(&cluster);
        for program in programs {
            kill(&cluster, program);
        }
        a_new_pod_runs(&cluster, victim);
        cluster.wait(&format!("hello is ready after {victim} died"), 120, || {
            cluster.ready("app=hello") == count
        });
        cluster.wait("Mesos has the new pod's task no more", 60, || {
            cluster.tasks().len() == before.tasks.len()
        });
        let after = picture(&cluster);
        assert_eq!(after, before, "tasks and containers after {victim} died");
        each_pod_runs_once(&cluster);
    }
    the_death_of_an_executor_is_that_of_its_pods(&cluster, count);
    cluster.finish();
}

/// What must be the same before and after.
#[derive(Debug, PartialEq, Eq)]
pub struct Picture {
    /// Ids of Mesos' tasks.
    tasks: Vec<String>,
    /// Container ids of all pods, by namespace and name.
    containers: Vec<(String, String)>,
}

/// The picture of now.
pub fn picture(cluster: &Cluster) -> Picture {
    let mut containers = Vec::new();
    cluster.wait("the API answers", 60, || {
        containers = cluster.all_containers();
        !containers.is_empty()
    });
    let mut tasks = Vec::new();
    cluster.wait("Mesos answers", 60, || {
        tasks = cluster.tasks();
        !tasks.is_empty()
    });
    Picture { tasks, containers }
}

/// Each of hello's pods has one process on this machine, whatever Kubernetes believes.
pub fn each_pod_runs_once(cluster: &Cluster) {
    for (pod, _) in cluster.containers("app=hello") {
        let running = processes::with_variable("POD_NAME", &pod);
        assert_eq!(running.len(), 1, "processes of pod {pod}: {running:?}");
    }
}

/// The executor's death is the node's: its pods are replaced, and only once.
fn the_death_of_an_executor_is_that_of_its_pods(cluster: &Cluster, count: usize) {
    let before = cluster.containers("app=hello");
    let node = cluster.get(&["nodes"])["items"][0]["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    kill_executor_of(cluster, &node);
    cluster.wait("hello is ready with new containers", 180, || {
        let now = cluster.containers("app=hello");
        cluster.ready("app=hello") == count && now.iter().all(|it| !before.contains(it))
    });
    for (pod, _) in &before {
        let running = processes::with_variable("POD_NAME", pod);
        assert!(running.is_empty(), "the old pod {pod} runs on: {running:?}");
    }
    each_pod_runs_once(cluster);
    let tasks = cluster.tasks();
    let uids: BTreeSet<&str> = tasks
        .iter()
        .filter_map(|it| it.rsplit_once('.').map(|it| it.0))
        .collect();
    assert_eq!(
        uids.len(),
        tasks.len(),
        "one task for each pod and node: {tasks:?}"
    );
}

fn a_new_pod_runs(cluster: &Cluster, after: &str) {
    let name = format!("after-{after}");
    let manifest = format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {{name: c, image: {BUSYBOX}, command: [/bin/busybox, sleep, '100000']}}
"
    );
    // The API itself may be what has just died.
    cluster.wait("the API takes a pod", 60, || {
        cluster.try_apply(&manifest).is_ok()
    });
    cluster.wait_ready(&name, 120);
    cluster.kubectl(&["delete", "pod", &name, "--timeout=90s"]);
}

fn kill(cluster: &Cluster, victim: &str) {
    let is = |process: &processes::Process| match victim {
        "mesos-agent" => process.program() == "k8sm" && process.line.contains(" dev mesos agent "),
        "mesos-master" => {
            process.program() == "k8sm" && process.line.contains(" dev mesos master ")
        }
        _ => process.program() == victim,
    };
    let found: Vec<_> = cluster.processes().into_iter().filter(is).collect();
    assert!(
        !found.is_empty(),
        "no process of this cluster is a {victim}"
    );
    for process in found {
        process.signal(Signal::SIGKILL);
    }
}

/// Kills the executor (not its guard) of a node.
pub fn kill_executor_of(cluster: &Cluster, node: &str) {
    let agent =
        cluster.get(&["node", node])["metadata"]["annotations"]["k8s.mesosphere.io/agent-id"]
            .as_str()
            .unwrap()
            .to_owned();
    let found: Vec<_> = cluster
        .processes()
        .into_iter()
        .filter(|it| {
            it.line.contains("k8sm-executor")
                && !it.line.contains(" guard")
                && it.has("MESOS_SLAVE_ID", &agent)
        })
        .collect();
    assert_eq!(
        found.len(),
        1,
        "one executor of node {node} on agent {agent}: {found:?}"
    );
    found[0].signal(Signal::SIGKILL);
}
