//! Three agents, each with a network namespace of its own: the pod network, services, names, and
//! what happens when a whole node goes.

use crate::support::{BUSYBOX, Cluster, conditions};

#[test]
fn pods_on_three_nodes_reach_each_other_and_survive_the_loss_of_one() {
    let cluster = Cluster::up(3, &[]);
    pods_spread_over_three_nodes_reach_each_other(&cluster);
    service_names_resolve_inside_pods(&cluster);
    a_replication_controller_keeps_its_count_through_the_loss_of_a_node(&cluster);
    cluster.finish();
}

/// A pod per node, pinned by its host port, which only one pod of a node can have.
fn pods_spread_over_three_nodes_reach_each_other(cluster: &Cluster) {
    cluster.apply(&format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: spread}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: spread}}}}
  template:
    metadata: {{labels: {{app: spread}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: web
        image: {BUSYBOX}
        command: [/bin/busybox, sh, -c, 'busybox mkdir -p /w; echo $NAME > /w/index.html; exec /bin/busybox httpd -f -p 8000 -h /w']
        env: [{{name: NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}, {{name: PATH, value: /bin}}]
        ports: [{{containerPort: 8000, hostPort: 31555}}]
        readinessProbe: {{httpGet: {{path: /index.html, port: 8000}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: spread}}
spec: {{selector: {{app: spread}}, ports: [{{port: 80, targetPort: 8000}}]}}
"
    ));
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
            let (from, ip) = (
                from["metadata"]["name"].as_str().unwrap(),
                to["status"]["podIP"].as_str().unwrap(),
            );
            let name = to["metadata"]["name"].as_str().unwrap();
            cluster.wait(&format!("{from} reaches {name} at {ip}"), 30, || {
                let url = format!("http://{ip}:8000/");
                cluster
                    .try_kubectl(&[
                        "exec",
                        from,
                        "--",
                        "/bin/busybox",
                        "wget",
                        "-T",
                        "5",
                        "-qO-",
                        &url,
                    ])
                    .is_ok_and(|it| it.trim() == name)
            });
        }
    }
}

fn service_names_resolve_inside_pods(cluster: &Cluster) {
    let pods = cluster.containers("app=spread");
    let address = cluster.get(&["service", "spread"])["spec"]["clusterIP"]
        .as_str()
        .unwrap()
        .to_owned();
    for (pod, _) in pods {
        cluster.wait(
            &format!("{pod} resolves and reaches the service"),
            90,
            || {
                let looked_up = cluster.try_kubectl(&[
                    "exec",
                    &pod,
                    "--",
                    "/bin/busybox",
                    "nslookup",
                    "spread.default.svc.cluster.local",
                ]);
                let url = format!("http://{address}/");
                looked_up.is_ok_and(|it| it.contains(&address))
                    && cluster
                        .try_kubectl(&[
                            "exec",
                            &pod,
                            "--",
                            "/bin/busybox",
                            "wget",
                            "-T",
                            "5",
                            "-qO-",
                            &url,
                        ])
                        .is_ok()
            },
        );
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
