//! Three agents, each with a network namespace of its own: the pod network, services, names, and
//! what happens when a whole node goes.

use crate::support::{BUSYBOX, Cluster, conditions};
use crate::{commands, extension};

#[test]
fn pods_on_three_nodes_reach_each_other_and_survive_the_loss_of_one() {
    let cluster = Cluster::up(3, &[]);
    pods_spread_over_three_nodes_reach_each_other(&cluster);
    a_pod_without_room_says_why_and_runs_once_an_agent_joins(&cluster);
    service_names_resolve_inside_pods(&cluster);
    extension::the_api_server_reaches_pods(&cluster);
    commands::work_on_a_running_pod(&cluster);
    a_replication_controller_keeps_its_count_through_the_loss_of_a_node(&cluster);
    cluster.finish();
}

/// A pod per node, pinned by its host port, which only one pod of a node can have.
fn pods_spread_over_three_nodes_reach_each_other(cluster: &Cluster) {
    cluster.apply(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {name: spread}
spec:
  replicas: 3
  selector: {matchLabels: {app: spread}}
  template:
    metadata: {labels: {app: spread}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: web
        image: k8s.mesosphere.io/hello:v0.1.0
        env: [{name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
        ports: [{containerPort: 8080, hostPort: 31155}]
        readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: spread}
spec: {selector: {app: spread}, ports: [{port: 80, targetPort: 8080}]}
",
    );
    cluster.wait("three pods are ready", 120, || {
        cluster.ready("app=spread") == 3
    });
    let pods = cluster.get(&["pods", "-l", "app=spread"]);
    let pods = pods["items"].as_array().unwrap();
    let nodes: std::collections::BTreeSet<&str> = pods
        .iter()
        .map(|it| it["spec"]["nodeName"].as_str().unwrap())
        .collect();
    assert_eq!(nodes.len(), 3, "a host port is taken once on each node");
    for from in pods {
        for to in pods {
            let (from, name) = (text(from, "name"), text(to, "name"));
            let url = format!("http://{}:8080/", to["status"]["podIP"].as_str().unwrap());
            cluster.wait(&format!("{from} reaches {name} at {url}"), 30, || {
                asked(cluster, from, &url).is_ok_and(|it| it.contains(name))
            });
        }
    }
}

/// A fourth pod with the same host port has no place on three nodes.
fn a_pod_without_room_says_why_and_runs_once_an_agent_joins(cluster: &Cluster) {
    cluster.kubectl(&["scale", "deployment", "spread", "--replicas=4"]);
    cluster.wait("FailedScheduling counts the three agents", 60, || {
        let events = cluster.get(&["events", "--field-selector", "reason=FailedScheduling"]);
        events["items"].as_array().into_iter().flatten().any(|it| {
            it["message"]
                .as_str()
                .is_some_and(|it| it.contains("0/3") && it.to_lowercase().contains("port"))
        })
    });
    assert_eq!(cluster.ready("app=spread"), 3);
    cluster.grow(4);
    cluster.wait("the fourth pod runs on the agent that joined", 120, || {
        cluster.ready("app=spread") == 4
    });
}

fn text<'a>(object: &'a serde_json::Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap()
}

/// What a URL answers, asked from inside a pod.
fn asked(cluster: &Cluster, pod: &str, url: &str) -> Result<String, String> {
    cluster.try_kubectl(&["exec", pod, "--", "/hello", "get", url])
}

fn service_names_resolve_inside_pods(cluster: &Cluster) {
    for (pod, _) in cluster.containers("app=spread") {
        for name in ["spread", "spread.default.svc.cluster.local"] {
            cluster.wait(&format!("{pod} reaches {name} by its name"), 60, || {
                asked(cluster, &pod, &format!("http://{name}/"))
                    .is_ok_and(|it| it.contains("spread-"))
            });
        }
    }
    cluster.kubectl(&["delete", "deployment,service", "spread", "--timeout=60s"]);
}

fn a_replication_controller_keeps_its_count_through_the_loss_of_a_node(cluster: &Cluster) {
    cluster.apply(&format!(
        "
apiVersion: v1
kind: ReplicationController
metadata: {{name: kept}}
spec:
  replicas: 4
  selector: {{app: kept}}
  template:
    metadata: {{labels: {{app: kept}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {{name: c, image: {BUSYBOX}, command: [/bin/busybox, sleep, '100000'], resources: {{requests: {{cpu: 10m, memory: 16Mi}}}}}}
"
    ));
    cluster.wait("four pods are ready", 90, || cluster.ready("app=kept") == 4);
    // The executor of a node that has such pods dies, which is proof: its pods are replaced at once.
    let pods = cluster.get(&["pods", "-l", "app=kept"]);
    let node = pods["items"][0]["spec"]["nodeName"]
        .as_str()
        .unwrap()
        .to_owned();
    let lost: Vec<String> = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["spec"]["nodeName"] == node.as_str())
        .map(|it| it["metadata"]["uid"].as_str().unwrap().to_owned())
        .collect();
    crate::faults::kill_executor_of(cluster, &node);
    cluster.wait("the lost node's pods are replaced", 120, || {
        let now = cluster.get(&["pods", "-l", "app=kept"]);
        let old = now["items"].as_array().into_iter().flatten().any(|it| {
            lost.iter().any(|uid| it["metadata"]["uid"] == uid.as_str()) && conditions(it, "Ready")
        });
        !old && cluster.ready("app=kept") == 4
    });
    cluster.kubectl(&["delete", "rc", "kept", "--timeout=60s"]);
}
