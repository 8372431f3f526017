//! Several agents: commands that are killed at one step of each kind, a member of etcd that is lost
//! with its agent.

use super::installed::Installed;
use super::nothing_is_left;
use super::site::Site;
use crate::support::Cluster;

/// Options of a cluster on several agents, whose keys lie in files on them.
fn installed<'a>(cluster: &'a Cluster, site: &'a Site) -> Installed<'a> {
    let bundles = cluster.dir().join("state/bundles");
    let keys = format!("pki.file={}", bundles.display());
    let sets = [
        "etcd.count=3",
        "apiserver.instances=2",
        "etcd.disk=512",
        "pki.source=file",
        &keys,
    ];
    Installed::new(cluster, site, "state", &sets)
}

#[test]
fn commands_that_are_killed_or_paused_go_on() {
    let cluster = Cluster::prepare(&[]);
    let site = Site::start(&cluster, 3);
    let here = installed(&cluster, &site);
    // A step of each kind: a look from outside, an app sent, an app awaited, an action.
    for step in [
        "pre-flight",
        "certificates",
        "cp/etcd-0",
        "cp/apiserver",
        "access rights",
    ] {
        here.install_killed_after(step);
    }
    here.install(&["install"], &[]);
    let status = here.status();
    assert_eq!(status["healthy"], true, "{status:#}");
    let pod = here.run_pod("stays");

    // Nobody serves the artifacts any more.
    let change = "--set=controller_manager.mem=600";
    let upgrade = |more: &[&'static str]| -> Vec<&str> { [&["upgrade", "--yes"], more].concat() };
    here.killed_after(&upgrade(&[change]), "snapshot");
    let code = here.while_after(&upgrade(&["--resume"]), "snapshot", || {
        here.k8sm(&["upgrade", "--pause"]);
    });
    assert_eq!(code, Some(1), "it says that it is paused");
    here.k8sm(&upgrade(&["--resume"]));
    assert_eq!(here.status()["healthy"], true);
    assert_eq!(here.container("stays").as_ref(), Some(&pod));

    nodes_are_paused_and_go_on(&here, &upgrade(&[]));
    assert_eq!(here.container("stays").as_ref(), Some(&pod));

    here.killed_after(&["uninstall", "--yes"], "stop /kubernetes");
    here.k8sm(&["uninstall", "--yes"]);
    nothing_is_left(&site);
    drop(site);
    cluster.finish();
}

/// All agents become nodes; then each gets another revision, with a pause on the way.
fn nodes_are_paused_and_go_on(here: &Installed<'_>, upgrade: &[&str]) {
    let with = |more: &[&'static str]| -> Vec<&str> { [upgrade, more].concat() };
    here.k8sm(&with(&["--set=nodes.min=3"]));
    let rollout = || here.status()["rollout"].clone();
    here.cluster.wait("all agents are nodes", 180, || {
        rollout()["nodes"] == 3 && rollout()["in_place"] == 3
    });
    let plan = here.k8sm(&with(&["--dry-run", "--set=nodes.verbosity=3"]));
    assert!(plan.contains("~ change nodes"), "{plan}");

    let change = with(&["--set=nodes.verbosity=3"]);
    let code = here.while_after(&change, "kubeconfig", || {
        let paused = here.k8sm_says(&["upgrade", "--pause"]);
        assert!(paused.contains("paused; nodes: "), "{paused}");
    });
    assert_eq!(code, Some(1), "it says that it is paused");
    let paused = rollout();
    assert!(paused["in_place"].as_u64() < Some(3), "{paused:#}");
    assert_eq!(paused["working"], serde_json::json!([]), "{paused:#}");
    let doctor = here.k8sm_says(&["doctor"]);
    assert!(doctor.contains("node rolling is paused since"), "{doctor}");
    // Another framework has to ask to know what its nodes are, and asks none.
    here.site.kill("/kubernetes", "k8sm-framework");
    here.cluster.wait("the next one leaves them alone", 60, || {
        let now = rollout();
        now["nodes"] == 3 && now["in_place"] == 0 && now["paused_since"].is_string()
    });

    let said = here.k8sm_says(&with(&["--resume"]));
    assert!(said.contains("nodes, one after the other: "), "{said}");
    assert_eq!(rollout()["in_place"], 3, "{said}");
    assert_eq!(here.status()["phase"], "installed");
}

#[test]
fn slow_commands_that_are_killed_after_each_of_their_steps_go_on() {
    let cluster = Cluster::prepare(&[]);
    let site = Site::start(&cluster, 3);
    let here = installed(&cluster, &site);
    let install = here.install_args(&["install"]);
    here.killed_after_each_step(&install, &install);
    assert_eq!(here.status()["healthy"], true);
    let pod = here.run_pod("stays");

    let change = [
        "upgrade",
        "--yes",
        "--set=etcd.mem=600",
        "--set=apiserver.mem=1100",
        "--set=framework.mem=600",
    ];
    let resume = ["upgrade", "--yes", "--resume"];
    here.killed_after_each_step(&change, &resume);
    assert_eq!(here.status()["healthy"], true);
    assert_eq!(here.container("stays").as_ref(), Some(&pod));

    here.killed_after_each_step(&["stop", "--yes"], &["stop", "--yes"]);
    assert_eq!(site.frameworks(), ["marathon"]);
    here.killed_after_each_step(&["start"], &["start"]);
    assert_eq!(here.status()["healthy"], true);

    let uninstall = ["uninstall", "--yes"];
    here.killed_after_each_step(&uninstall, &uninstall);
    nothing_is_left(&site);
    drop(site);
    cluster.finish();
}

#[test]
fn slow_a_member_of_etcd_that_is_lost_with_its_agent_begins_anew_on_another() {
    let cluster = Cluster::prepare(&[]);
    let site = Site::start(&cluster, 4);
    let here = installed(&cluster, &site);
    here.install(&["install"], &[]);
    here.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]);
    let choice = here.record()["choice"].clone();
    let hosts = choice["etcd_hosts"].as_array().unwrap();
    // What a node leaves on a machine that is gone, nobody removes.
    let nodes = here.kubectl(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"]);
    let nodes: Vec<&str> = nodes.split_whitespace().collect();
    let has_no_node = |n: &usize| !nodes.contains(&hosts[*n]["hostname"].as_str().unwrap());
    let member = (0..hosts.len()).find(has_no_node).unwrap();
    let lost = hosts[member]["hostname"].as_str().unwrap();
    site.lose(lost);
    cluster.wait("Mesos misses the agent", 150, || {
        site.state()["activated_slaves"].as_f64() == Some(3.0)
    });
    let number = format!("--replace-member={member}");
    // Its successor's agent has the artifacts, whoever served them.
    here.k8sm(&["upgrade", "--yes", &number]);
    let now = here.record()["choice"]["etcd_hosts"][member]["hostname"].clone();
    assert_ne!(now, lost);
    assert_eq!(here.status()["healthy"], true);
    here.kubectl(&["get", "configmap", "kept"]);
    here.k8sm(&["uninstall", "--yes"]);
    drop(site);
    cluster.finish();
}
