//! Four agents: commands that are killed at one step of each kind, a member of etcd that is lost.

use super::nothing_is_left;
use super::site::{Installed, Site};
use crate::support::Cluster;

#[test]
fn commands_that_are_killed_go_on_and_a_lost_member_of_etcd_is_replaced() {
    let cluster = Cluster::prepare(&[]);
    let site = Site::start(&cluster, 4);
    let keys = format!("pki.file={}", cluster.dir().join("state/bundles").display());
    let sets = [
        "etcd.count=3",
        "apiserver.instances=2",
        "etcd.disk=512",
        "pki.source=file",
        &keys,
    ];
    let here = Installed::new(&cluster, &site, "state", &sets);
    // A step of each kind: a look from outside, an app sent, an app awaited, an action.
    for step in [
        "pre-flight",
        "certificates",
        "etcd-0",
        "apiserver",
        "access rights",
    ] {
        here.install_killed_after(step);
    }
    here.install(&["install"], &[]);
    let status = here.status();
    assert_eq!(status["healthy"], true, "{status:#}");
    let pod = here.run_pod("stays");

    let change = "--set=controller_manager.mem=600";
    here.killed_after(&["upgrade", "--yes", change], "snapshot");
    let resume = ["upgrade", "--yes", "--resume"];
    let code = here.while_after(&resume, "etcd-2", || {
        here.k8sm(&["upgrade", "--pause"]);
    });
    assert_eq!(code, Some(1), "it says that it is paused");
    here.k8sm(&resume);
    assert_eq!(here.status()["healthy"], true);
    assert_eq!(here.container("stays").as_ref(), Some(&pod));

    lose_a_member(&here);

    here.killed_after(&["uninstall", "--yes"], "stop /kubernetes");
    here.k8sm(&["uninstall", "--yes"]);
    nothing_is_left(&site);
    drop(site);
    cluster.finish();
}

/// A member of etcd goes with its agent; another agent takes its place. The node is not there.
fn lose_a_member(here: &Installed<'_>) {
    let node = here.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
    let choice = here.record()["choice"].clone();
    let hosts = choice["etcd_hosts"].as_array().unwrap();
    let member = (0..hosts.len())
        .find(|n| hosts[*n]["hostname"] != node.trim())
        .unwrap();
    let lost = hosts[member]["hostname"].as_str().unwrap();
    here.site.lose(lost);
    let number = format!("--replace-member={member}");
    here.cluster.wait("Mesos misses the agent", 120, || {
        here.site.state()["activated_slaves"].as_f64() == Some(3.0)
    });
    here.k8sm(&["upgrade", "--yes", &number]);
    let now = here.record()["choice"]["etcd_hosts"][member]["hostname"].clone();
    assert_ne!(now, lost);
    assert_eq!(here.status()["healthy"], true);
    here.kubectl(&["get", "pod", "stays"]);
}
