//! Node objects, and what the framework may not do.

use std::collections::BTreeMap;

use framework::kube::nodes::{self, Ensured, NodeRecord};
use framework::placement::names::NodeName;
use k8s_openapi::api::core::v1::{Node, Taint};
use kube::Api;

use crate::cluster::{self, Cluster};

pub fn record(name: &str) -> NodeRecord {
    let name = NodeName::parse(name).unwrap();
    let mut labels = nodes::wellknown_labels(&name);
    labels.insert(
        "k8s.mesosphere.io/attribute-rack".to_owned(),
        "r1".to_owned(),
    );
    NodeRecord {
        labels,
        annotations: [(seam::names::AGENT_ID.to_owned(), "S1".to_owned())].into(),
        taints: Vec::new(),
        provider_id: "mesos://S1".to_owned(),
        name,
    }
}

fn taint(key: &str) -> Taint {
    Taint {
        key: key.to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    }
}

async fn nodes_are_made_changed_and_given_up(cluster: &Cluster) {
    let client = &cluster.framework;
    let api: Api<Node> = Api::all(cluster.admin.clone());

    let (done, made) = nodes::ensure(client, &record("n1")).await.unwrap();
    assert_eq!(done, Ensured::Created);
    let taints = made
        .spec
        .as_ref()
        .unwrap()
        .taints
        .clone()
        .unwrap_or_default();
    assert!(
        taints
            .iter()
            .any(|t| t.key == "node.kubernetes.io/not-ready"),
        "a new node takes no pods yet"
    );
    assert_eq!(
        nodes::ensure(client, &record("n1")).await.unwrap().0,
        Ensured::Unchanged
    );

    let mut changed = record("n1");
    changed.labels.remove("k8s.mesosphere.io/attribute-rack");
    changed
        .labels
        .insert("k8s.mesosphere.io/attribute-row".to_owned(), "7".to_owned());
    let (done, node) = nodes::ensure(client, &changed).await.unwrap();
    let labels = node.metadata.labels.unwrap();
    assert_eq!(done, Ensured::Updated);
    assert_eq!(labels.get("k8s.mesosphere.io/attribute-rack"), None);
    assert_eq!(labels["k8s.mesosphere.io/attribute-row"], "7");

    let annotations: BTreeMap<_, _> = [
        ("a".to_owned(), Some("1".to_owned())),
        (seam::names::AGENT_ID.to_owned(), None),
    ]
    .into();
    let node = nodes::annotate(client, "n1", &annotations)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        node.metadata
            .annotations
            .unwrap()
            .get(seam::names::AGENT_ID),
        None
    );
    assert_eq!(
        nodes::annotate(client, "missing", &annotations)
            .await
            .unwrap(),
        None
    );

    // Writers at the same time lose nothing of each other's.
    let keys = ["example.com/a", "example.com/b", "example.com/c"];
    let writers = keys.map(|key| async move {
        nodes::change_taints(client, "n1", &[taint(key)], &[])
            .await
            .unwrap()
    });
    assert_eq!(futures::future::join_all(writers).await, [true; 3]);
    let taints = api.get("n1").await.unwrap().spec.unwrap().taints.unwrap();
    assert_eq!(
        taints
            .iter()
            .filter(|t| keys.contains(&t.key.as_str()))
            .count(),
        3
    );
    assert!(
        nodes::change_taints(client, "n1", &[], &keys.map(taint))
            .await
            .unwrap()
    );
    assert!(
        !nodes::change_taints(client, "n1", &[], &keys.map(taint))
            .await
            .unwrap()
    );

    nodes::cordon(client, "n1", true).await.unwrap();
    assert_eq!(
        api.get("n1").await.unwrap().spec.unwrap().unschedulable,
        Some(true)
    );

    assert!(!nodes::delete(client, "n1", "another-uid").await.unwrap());
    let uid = api.get("n1").await.unwrap().metadata.uid.unwrap();
    assert!(nodes::delete(client, "n1", &uid).await.unwrap());
    assert!(!nodes::delete(client, "n1", &uid).await.unwrap());
}

async fn the_framework_may_do_nothing_else(cluster: &Cluster) {
    for (namespace, group, resource, name, verb) in [
        ("kube-system", "", "secrets", "", "list"),
        (
            "kube-system",
            "",
            "secrets",
            "bootstrap-token-abc123",
            "get",
        ),
        ("default", "", "secrets", "", "create"),
        (
            "kube-system",
            "",
            "configmaps",
            "extension-apiserver-authentication",
            "get",
        ),
        ("kube-system", "", "configmaps", "other", "patch"),
        (
            "kube-system",
            "coordination.k8s.io",
            "leases",
            "kube-controller-manager",
            "update",
        ),
        ("default", "", "pods", "", "create"),
        ("default", "", "pods/exec", "p", "create"),
        ("default", "", "serviceaccounts/token", "default", "create"),
        ("default", "apps", "deployments", "", "list"),
        ("", "", "nodes/proxy", "n1", "get"),
        ("", "", "nodes/status", "n1", "patch"),
        (
            "",
            "certificates.k8s.io",
            "signers",
            "example.com/other",
            "approve",
        ),
        (
            "",
            "certificates.k8s.io",
            "certificatesigningrequests",
            "",
            "create",
        ),
        (
            "",
            "rbac.authorization.k8s.io",
            "clusterroles",
            "",
            "create",
        ),
        ("", "", "users", "admin", "impersonate"),
    ] {
        let may = cluster.may(namespace, group, resource, name, verb).await;
        assert!(!may, "may {verb} {resource} {name} in `{namespace}`");
    }
    assert!(
        cluster
            .may("kube-system", "", "configmaps", "k8sm-kubernetes", "patch")
            .await
    );
}

#[tokio::test]
async fn the_framework_keeps_its_nodes_and_may_do_nothing_else() {
    let Some(cluster) = cluster::start().await else {
        return;
    };
    nodes_are_made_changed_and_given_up(&cluster).await;
    the_framework_may_do_nothing_else(&cluster).await;
}
