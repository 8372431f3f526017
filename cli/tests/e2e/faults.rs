//! Each process killed with -9 in turn: nothing lost, nothing doubled, and pods that should survive
//! have the same containers.

use std::fs;

use crate::support::Cluster;

#[test]
fn every_process_may_die_and_the_cluster_converges() {
    let cluster = Cluster::up(1, &[]);
    let count = cluster.ready("app=hello");
    assert!(count > 0);
    for victim in [
        "k8sm-framework",
        "kubelet",
        "containerd",
        "kube-proxy",
        "mesos-agent",
        "mesos-master",
    ] {
        let before = cluster.containers("app=hello");
        kill(&cluster, victim);
        a_new_pod_runs(&cluster, victim);
        cluster.wait(&format!("hello is ready after {victim} died"), 120, || {
            cluster.ready("app=hello") == count
        });
        assert_eq!(
            cluster.containers("app=hello"),
            before,
            "containers after {victim} died"
        );
    }
    // The executor's death is the node's: its pods are replaced, and only once.
    let before = cluster.containers("app=hello");
    let node = cluster.get(&["nodes"])["items"][0]["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    kill_executor_of(&cluster, &node);
    cluster.wait("hello is ready with new containers", 180, || {
        let now = cluster.containers("app=hello");
        cluster.ready("app=hello") == count && now.iter().all(|it| !before.contains(it))
    });
    let tasks = cluster.tasks();
    let uids: std::collections::BTreeSet<&str> = tasks
        .iter()
        .filter_map(|it| it.rsplit_once('.').map(|it| it.0))
        .collect();
    assert_eq!(
        uids.len(),
        tasks.len(),
        "one task for each pod and node: {tasks:?}"
    );
    cluster.finish();
}

fn a_new_pod_runs(cluster: &Cluster, after: &str) {
    let name = format!("after-{after}");
    cluster.apply(&format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {{name: c, image: {}, command: [/bin/busybox, sleep, '100000']}}
",
        crate::support::BUSYBOX
    ));
    cluster.wait_ready(&name, 120);
    cluster.kubectl(&["delete", "pod", &name, "--timeout=90s"]);
}

/// Processes of this cluster: those whose command line or environment names its folder.
fn processes(cluster: &Cluster) -> Vec<(i32, String)> {
    let dir = cluster.dir().to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        let read = |name: &str| {
            String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default())
                .replace('\0', " ")
        };
        let line = read("cmdline");
        if line.contains(&dir) || read("environ").contains(&dir) {
            found.push((pid, line));
        }
    }
    found
}

fn signal(pid: i32) {
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
}

fn kill(cluster: &Cluster, victim: &str) {
    let is = |line: &str| {
        let program = line
            .split(' ')
            .next()
            .unwrap_or_default()
            .rsplit('/')
            .next()
            .unwrap_or_default();
        match victim {
            "mesos-agent" => program == "k8sm" && line.contains(" dev mesos agent "),
            "mesos-master" => program == "k8sm" && line.contains(" dev mesos master "),
            _ => program == victim,
        }
    };
    let found: Vec<i32> = processes(cluster)
        .into_iter()
        .filter(|(_, line)| is(line))
        .map(|(pid, _)| pid)
        .collect();
    assert!(
        !found.is_empty(),
        "no process of this cluster is a {victim}"
    );
    for pid in found {
        signal(pid);
    }
}

/// Kills the executor (not its guard) of a node.
pub fn kill_executor_of(cluster: &Cluster, node: &str) {
    let agent =
        cluster.get(&["node", node])["metadata"]["annotations"]["k8s.mesosphere.io/agent-id"]
            .as_str()
            .unwrap()
            .to_owned();
    let found: Vec<i32> = processes(cluster)
        .into_iter()
        .filter(|(pid, line)| {
            line.contains("k8sm-executor")
                && !line.contains(" guard")
                && fs::read(format!("/proc/{pid}/environ")).is_ok_and(|it| {
                    String::from_utf8_lossy(&it).contains(&format!("MESOS_SLAVE_ID={agent}\0"))
                })
        })
        .map(|(pid, _)| pid)
        .collect();
    assert_eq!(
        found.len(),
        1,
        "one executor of node {node} on agent {agent}"
    );
    signal(found[0]);
}
