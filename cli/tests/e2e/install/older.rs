//! An upgrade from the minor version of Kubernetes before, with an etcd and a containerd of its
//! time, while requests go on.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::installed::Installed;
use super::load::{Doors, Load, page};
use super::nothing_is_left;
use super::site::Site;
use crate::support::Cluster;

/// Where the pod's page is on its node: one of the ports that agents offer.
const PAGE_PORT: u16 = 31080;
/// A pod with a page, which is wanted whatever happens to its node's programs.
const POD: &str = r#"{
    "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "page"},
    "spec": {"containers": [{
        "name": "hello", "image": "k8s.mesosphere.io/hello:v0.1.0", "imagePullPolicy": "IfNotPresent",
        "ports": [{"containerPort": 8080, "hostPort": 31080}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 2}
    }]}
}"#;
/// How long the three nodes may take, one after the other.
const NODES_SECONDS: u64 = 300;

#[test]
fn slow_a_cluster_of_the_version_before_is_upgraded_under_load() {
    let before = previous();
    let cluster = Cluster::prepare(&[]);
    let site = Site::start(&cluster, 3);
    let bundles = cluster.dir().join("state/bundles");
    let keys = format!("pki.file={}", bundles.display());
    let sets = [
        "etcd.count=3",
        "apiserver.instances=2",
        // One on each agent: each stays where its clients know it.
        "proxy.instances=3",
        "nodes.min=3",
        "etcd.disk=512",
        "apiserver.shutdown_delay=10",
        "pki.source=file",
        &keys,
    ];
    let here = Installed::new(&cluster, &site, "state", &sets);
    let old = format!("--upstream-dir={}", before.display());
    here.install(&["install"], &[&old]);
    cluster.wait("three nodes are ready", 120, || {
        here.status()["nodes"][0] == 3
    });
    let (was, will) = (version(&before, "kubelet"), version(&now(), "kubelet"));
    assert_eq!(nodes(&here, "kubeletVersion"), vec![was.clone(); 3]);
    let runtime = |programs| {
        let version = version(programs, "containerd");
        format!("containerd://{}", version.trim_start_matches('v'))
    };
    assert_eq!(
        nodes(&here, "containerRuntimeVersion"),
        vec![runtime(&before); 3]
    );
    let pods = [here.run_pod("first"), here.run_pod("second")];
    let file = cluster.dir().join("pod.json");
    std::fs::write(&file, POD).unwrap();
    here.kubectl(&["create", "-f", file.to_str().unwrap()]);
    cluster.wait("the page is there", 90, || here.container("page").is_some());
    let page_pod = here.container("page");
    here.kubectl(&["create", "secret", "generic", "kept", "--from-literal=a=b"]);

    let mut load = Load::new();
    let doors = doors(&site);
    let pki = cluster.dir().join("state/pki");
    load.begin("kept, write", Doors::new(&doors, &pki, true).writes("kept"));
    load.begin(
        "fresh, write",
        Doors::new(&doors, &pki, false).writes("fresh"),
    );
    load.begin("kept, read", Doors::new(&doors, &pki, true).reads());
    let host = here.kubectl(&["get", "pod", "page", "-o", "jsonpath={.status.hostIP}"]);
    load.begin("page", page(format!("http://{host}:{PAGE_PORT}/")));
    cluster.wait("the load runs", 30, || load.fewest() > 20);

    let serve = here.serve();
    let mut upgrade = vec!["upgrade", "--yes"];
    upgrade.extend(serve.iter().map(String::as_str));
    here.k8sm(&upgrade);
    cluster.wait("all nodes are of the new version", NODES_SECONDS, || {
        nodes(&here, "kubeletVersion") == vec![will.clone(); 3]
    });
    cluster.wait("everything is healthy", 90, || {
        here.status()["healthy"] == true
    });
    let through = load.fewest();
    cluster.wait("the load goes on", 30, || load.fewest() > through + 20);
    let outcomes = load.end();

    let server = here.kubectl(&["version", "-o", "json"]);
    let server: Value = serde_json::from_str(&server).unwrap();
    assert_eq!(server["serverVersion"]["gitVersion"], will);
    assert_eq!(
        nodes(&here, "containerRuntimeVersion"),
        vec![runtime(&now()); 3]
    );
    let after = ["first", "second"].map(|pod| here.container(pod));
    assert_eq!(after, pods.map(Some), "containers go on");
    assert_eq!(here.container("page"), page_pod, "containers go on");
    let secret = here.kubectl(&["get", "secret", "kept", "-o", "jsonpath={.data.a}"]);
    assert_eq!(secret, "Yg==");
    for (kind, outcome) in &outcomes {
        eprintln!("{kind}: {outcome:?}");
    }
    let mut without_leader = 0;
    for (kind, outcome) in &outcomes {
        assert_eq!(outcome.failed, Vec::<String>::new(), "{kind}");
        without_leader += outcome.without_leader.len();
    }
    // etcd drops what reaches a leader that hands over; each of its three members is that once at
    // most, and each kind of load has one request at a time.
    assert!(without_leader <= 6, "{without_leader}");
    for kind in ["kept", "fresh"] {
        let label = format!("load={kind}");
        let written = here.kubectl(&["get", "configmaps", "-l", &label, "-o", "name"]);
        let written = written.lines().count();
        let outcome = outcomes.iter().find(|o| o.0 == format!("{kind}, write"));
        let outcome = &outcome.expect("there is such a load").1;
        let most = outcome.answered + outcome.without_leader.len();
        assert!(written >= outcome.answered, "a write was lost: {written}");
        assert!(written <= most, "a write was doubled: {written}");
    }

    let back = here.k8sm_fails(&["upgrade", "--yes", &old, "--serve"], 1);
    assert!(back.contains(&will) && back.contains(&was), "{back}");
    here.k8sm(&["uninstall", "--yes"]);
    nothing_is_left(&site);
    drop(site);
    cluster.finish();
}

/// The folder of today's programs.
fn now() -> PathBuf {
    std::env::var_os("K8SM_UPSTREAM_BIN").unwrap().into()
}

/// The folder of the programs of before; they are built, where that was not done yet, by
/// `make e2e-slow`.
fn previous() -> PathBuf {
    let output = Command::new(env!("CARGO_BIN_EXE_k8sm"))
        .args(["upstream", "path", "--set=previous"])
        .stderr(std::process::Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "the programs of before are built");
    String::from_utf8_lossy(&output.stdout).trim().into()
}

/// The version of a program in a folder that `k8sm upstream` made.
fn version(programs: &std::path::Path, program: &str) -> String {
    let versions = cli::upstream::Versions::of(programs);
    versions.get(program).unwrap().to_owned()
}

/// What each node says of itself.
fn nodes(here: &Installed<'_>, field: &str) -> Vec<String> {
    let path = format!("jsonpath={{.items[*].status.nodeInfo.{field}}}");
    let said = here.try_kubectl(&["get", "nodes", "-o", &path]);
    said.unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

/// Where the front doors are.
fn doors(site: &Site) -> Vec<SocketAddr> {
    let tasks = site.get("/v2/apps/kubernetes-cp/proxy/tasks");
    let tasks = tasks["tasks"].as_array().cloned().unwrap_or_default();
    let doors: Vec<SocketAddr> = tasks
        .iter()
        .filter_map(|task| {
            let (host, port) = (task["host"].as_str()?, task["ports"][0].as_u64()?);
            format!("{host}:{port}").parse().ok()
        })
        .collect();
    assert_eq!(doors.len(), 3, "{tasks:?}");
    doors
}
