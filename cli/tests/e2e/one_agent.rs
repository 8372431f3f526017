//! One agent, one node: everything that an ordinary pod does, from its creation to the moment
//! when Mesos has its resources back.

use crate::support::{BUSYBOX, Cluster};
use crate::{commands, extension, front_door};

const POD: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {greeting: from a config map}
---
apiVersion: v1
kind: Secret
metadata: {name: token}
stringData: {value: from a secret}
---
apiVersion: v1
kind: Pod
metadata: {name: full, labels: {app: full}}
spec:
  terminationGracePeriodSeconds: 1
  volumes:
  - {name: shared, emptyDir: {}}
  - {name: settings, configMap: {name: settings}}
  - {name: token, secret: {secretName: token}}
  initContainers:
  - name: first
    image: IMAGE
    command: [/bin/busybox, sh, -c, 'echo written by the init container > /shared/index.html']
    volumeMounts: [{name: shared, mountPath: /shared}]
  containers:
  - name: web
    image: IMAGE
    command: [/bin/busybox, httpd, -f, -p, '8000', -h, /shared]
    env: [{name: GREETING, valueFrom: {configMapKeyRef: {name: settings, key: greeting}}}]
    ports: [{containerPort: 8000}]
    readinessProbe: {httpGet: {path: /index.html, port: 8000}, periodSeconds: 1}
    livenessProbe: {tcpSocket: {port: 8000}, periodSeconds: 5}
    startupProbe: {exec: {command: [/bin/busybox, test, -e, /shared/index.html]}, periodSeconds: 1}
    volumeMounts:
    - {name: shared, mountPath: /shared}
    - {name: settings, mountPath: /settings}
    - {name: token, mountPath: /token}
    resources: {requests: {cpu: 20m, memory: 16Mi}, limits: {memory: 32Mi}}
";

#[test]
fn an_ordinary_pod_lives_on_mesos_from_its_creation_to_its_end() {
    let cluster = Cluster::up(1, &["--legacy-port=8080"]);
    front_door::pods_are_listed(&cluster);
    hello_is_served_and_each_pod_is_one_task(&cluster);
    a_pod_has_its_volumes_probes_and_commands(&cluster);
    a_deleted_pod_gives_its_resources_back(&cluster);
    commands::work_on_a_running_pod(&cluster);
    extension::the_api_server_reaches_pods(&cluster);
    a_job_ends_and_gives_its_resources_back(&cluster);
    a_daemon_set_has_a_pod_on_the_node(&cluster);
    a_pod_that_cannot_fit_says_why(&cluster);
    a_pod_that_leaks_memory_dies_alone(&cluster);
    up_twice_changes_nothing(&cluster);
    cluster.finish();
}

fn hello_is_served_and_each_pod_is_one_task(cluster: &Cluster) {
    let pods = cluster.get(&["pods", "-l", "app=hello"]);
    let uids: Vec<&str> = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["metadata"]["uid"].as_str().unwrap())
        .collect();
    assert!(!uids.is_empty(), "up has deployed hello: {pods}");
    let tasks = cluster.tasks();
    for uid in uids {
        let of_pod = tasks.iter().filter(|it| it.starts_with(uid)).count();
        assert_eq!(of_pod, 1, "tasks of pod {uid} among {tasks:?}");
    }
    let table = cluster.k8sm(&["ps"]);
    assert!(table.contains("hello-"), "{table}");
}

fn a_pod_has_its_volumes_probes_and_commands(cluster: &Cluster) {
    cluster.apply(&POD.replace("IMAGE", BUSYBOX));
    cluster.wait_ready("full", 60);
    let exec = |script: &str| {
        cluster.kubectl(&[
            "exec",
            "full",
            "-c",
            "web",
            "--",
            "/bin/busybox",
            "sh",
            "-c",
            script,
        ])
    };
    assert_eq!(exec("echo $GREETING"), "from a config map\n");
    assert_eq!(
        exec("/bin/busybox cat /settings/greeting"),
        "from a config map"
    );
    assert_eq!(exec("/bin/busybox cat /token/value"), "from a secret");
    cluster.kubectl(&["delete", "pod", "full", "--wait=true", "--timeout=60s"]);
    cluster.wait("Mesos has the pod's task no more", 30, || {
        cluster.tasks().len() == tasks_of_live_pods(cluster)
    });
}

/// What the pod requests, its host port among it, is used while it is there, and free afterwards.
fn a_deleted_pod_gives_its_resources_back(cluster: &Cluster) {
    let used = || cluster.mesos_state()["slaves"][0]["used_resources"].clone();
    let mem = |used: &serde_json::Value| used["mem"].as_f64().unwrap_or_default();
    let before = used();
    cluster.apply(&format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: counted}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: {BUSYBOX}
    command: [/bin/busybox, sleep, '100000']
    ports: [{{containerPort: 80, hostPort: 31177}}]
    resources: {{requests: {{cpu: 125m, memory: 48Mi}}}}
"
    ));
    cluster.wait_ready("counted", 60);
    let during = used();
    let cpus = |used: &serde_json::Value| used["cpus"].as_f64().unwrap_or_default();
    assert!(
        (cpus(&during) - cpus(&before)) >= 0.125 && mem(&during) - mem(&before) >= 48.0,
        "before {before}, with the pod {during}"
    );
    assert!(during["ports"].to_string().contains("31177"), "{during}");
    cluster.kubectl(&["delete", "pod", "counted", "--timeout=60s"]);
    cluster.wait("Mesos has the pod's resources back", 30, || {
        used() == before
    });
}

/// One task for each pod that has a node and is not at its end, and one for each node.
fn tasks_of_live_pods(cluster: &Cluster) -> usize {
    let pods = cluster.get(&["pods", "-A"]);
    let live = pods["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|it| {
            !it["spec"]["nodeName"].is_null()
                && !matches!(it["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
        })
        .count();
    live + cluster.get(&["nodes"])["items"]
        .as_array()
        .map_or(0, Vec::len)
}

fn a_job_ends_and_gives_its_resources_back(cluster: &Cluster) {
    cluster.apply(&format!(
        "
apiVersion: batch/v1
kind: Job
metadata: {{name: count}}
spec:
  completions: 3
  parallelism: 2
  template:
    spec:
      restartPolicy: Never
      containers:
      - {{name: c, image: {BUSYBOX}, command: [/bin/busybox, echo, counted]}}
"
    ));
    cluster.kubectl(&[
        "wait",
        "--for=condition=Complete",
        "job/count",
        "--timeout=60s",
    ]);
    cluster.wait("the job's tasks are gone from Mesos", 30, || {
        cluster.tasks().len() == tasks_of_live_pods(cluster)
    });
    cluster.kubectl(&["delete", "job", "count"]);
}

fn a_daemon_set_has_a_pod_on_the_node(cluster: &Cluster) {
    cluster.apply(&format!(
        "
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: each}}
spec:
  selector: {{matchLabels: {{app: each}}}}
  template:
    metadata: {{labels: {{app: each}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {{name: c, image: {BUSYBOX}, command: [/bin/busybox, sleep, '100000']}}
"
    ));
    cluster.wait("the daemon set's pod is ready", 60, || {
        cluster.ready("app=each") == 1
    });
    cluster.kubectl(&["delete", "daemonset", "each", "--timeout=60s"]);
}

fn a_pod_that_cannot_fit_says_why(cluster: &Cluster) {
    for (name, wants, reason) in [
        ("large", "resources: {requests: {cpu: '1000'}}", "cpu"),
        ("port", "ports: [{containerPort: 80, hostPort: 99}]", "port"),
    ] {
        cluster.apply(&format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  containers:
  - {{name: c, image: {BUSYBOX}, command: [/bin/busybox, sleep, '100000'], {wants}}}
"
        ));
        cluster.wait("FailedScheduling names the reason", 60, || {
            let events = cluster.get(&[
                "events",
                "--field-selector",
                &format!("involvedObject.name={name},reason=FailedScheduling"),
            ]);
            events["items"].as_array().into_iter().flatten().any(|it| {
                it["message"]
                    .as_str()
                    .is_some_and(|it| it.contains("0/1") && it.contains(reason))
            })
        });
        assert_eq!(cluster.get(&["pod", name])["status"]["phase"], "Pending");
        cluster.kubectl(&["delete", "pod", name]);
    }
}

fn a_pod_that_leaks_memory_dies_alone(cluster: &Cluster) {
    let before = cluster.containers("app=hello");
    cluster.apply(&format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: leak}}
spec:
  restartPolicy: Never
  containers:
  - name: c
    image: {BUSYBOX}
    command: [/bin/busybox, tail, /dev/zero]
    resources: {{limits: {{memory: 24Mi}}}}
"
    ));
    cluster.wait("the leaking pod is OOMKilled", 90, || {
        cluster.get(&["pod", "leak"])["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] == "OOMKilled"
    });
    assert_eq!(
        cluster.containers("app=hello"),
        before,
        "other pods live on"
    );
    cluster.kubectl(&["delete", "pod", "leak"]);
}

fn up_twice_changes_nothing(cluster: &Cluster) {
    let before = (cluster.containers("app=hello"), cluster.tasks());
    cluster.up_again();
    assert_eq!((cluster.containers("app=hello"), cluster.tasks()), before);
}
