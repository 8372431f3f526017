//! A node that is brought to another revision, and back again, under its running pods: another
//! payload and other options, the same executor, tasks and containers.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::faults::{each_pod_runs_once, picture};
use crate::support::{Cluster, processes::Process};

/// Arguments of `up` for one revision of the nodes: with or without one of the images in their
/// payload, and kubelet's verbosity.
fn arguments(cluster: &Cluster, all_images: bool, verbosity: u8) -> Vec<String> {
    let mut args: Vec<String> = cluster
        .up_args()
        .into_iter()
        .filter(|arg| all_images || !arg.ends_with("/extension.tar"))
        .map(str::to_owned)
        .collect();
    args.push(format!("--framework-arg=--node-verbosity={verbosity}"));
    args
}

fn up(cluster: &Cluster, args: &[String]) {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    cluster.k8sm(&args);
}

#[test]
fn a_node_is_brought_to_another_revision_and_back_under_its_pods() {
    let cluster = Cluster::prepare(&["--mesos-port=0", "--agents=1"]);
    let former = arguments(&cluster, false, 2);
    up(&cluster, &former);
    let count = cluster.ready("app=hello");
    assert!(count > 0);
    let before = picture(&cluster);
    let (payload, kubelet) = (payload(&cluster), kubelet(&cluster));
    assert!(kubelet.line.contains(" --v=2"), "{}", kubelet.line);
    let executor = executor(&cluster);

    up(&cluster, &arguments(&cluster, true, 3));
    becomes(&cluster, 3, 1);
    assert_ne!(self::payload(&cluster), payload, "another archive");
    assert_eq!(
        picture(&cluster),
        before,
        "tasks and containers after the upgrade"
    );

    up(&cluster, &former);
    becomes(&cluster, 2, 2);
    assert_eq!(self::payload(&cluster), payload, "the former archive");
    assert_eq!(
        picture(&cluster),
        before,
        "tasks and containers after the way back"
    );

    assert_eq!(
        self::executor(&cluster),
        executor,
        "it had no reason to change"
    );
    assert_ne!(self::kubelet(&cluster).pid, kubelet.pid);
    each_pod_runs_once(&cluster);
    assert_eq!(cluster.ready("app=hello"), count);
    cluster.finish();
}

/// The framework asks every 15 s; a busy machine needs a while to start kubelet again. Afterwards so
/// many revisions have been told of.
fn becomes(cluster: &Cluster, verbosity: u8, revisions: usize) {
    let wanted = format!(" --v={verbosity}");
    cluster.wait(&format!("one kubelet runs with{wanted}"), 120, || {
        let kubelets = programs(cluster, "kubelet");
        kubelets.len() == 1 && kubelets[0].line.contains(&wanted)
    });
    cluster.wait(
        &format!("event {revisions} says that it is there"),
        90,
        || {
            let events = cluster.get(&[
                "events",
                "--all-namespaces",
                "--field-selector=reason=Revised",
            ]);
            let items = events["items"].as_array().cloned().unwrap_or_default();
            let told: BTreeSet<String> = items.iter().map(|it| it["message"].to_string()).collect();
            told.len() == revisions
        },
    );
    cluster.wait("hello is ready", 60, || cluster.ready("app=hello") > 0);
}

/// Programs of that name among the cluster's processes.
fn programs(cluster: &Cluster, name: &str) -> Vec<Process> {
    let mut found = cluster.processes();
    found.retain(|it| it.program() == name);
    found
}

fn kubelet(cluster: &Cluster) -> Process {
    let mut found = programs(cluster, "kubelet");
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// The executor's process.
fn executor(cluster: &Cluster) -> i32 {
    let mut found = programs(cluster, "k8sm-executor");
    found.retain(|it| !it.line.contains(" guard "));
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].pid
}

/// The payload that the node runs from.
fn payload(cluster: &Cluster) -> PathBuf {
    let nodes = cluster.dir().join("state/node/nodes");
    let mut links = std::fs::read_dir(&nodes)
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path().join("programs")).ok());
    let link = links.next().expect("the node's link to its programs");
    assert_eq!(links.next(), None, "one node");
    link
}
