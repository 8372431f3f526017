//! One agent, one node: everything that an ordinary pod does, from its creation to the moment
//! when Mesos has its resources back.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::support::{BUSYBOX, Cluster};

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
    let cluster = Cluster::up(1, &[]);
    hello_is_served_and_each_pod_is_one_task(&cluster);
    a_pod_has_its_volumes_probes_and_commands(&cluster);
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
    cluster.wait("the log has the probe's requests", 20, || {
        cluster.try_kubectl(&["logs", "full", "-c", "web"]).is_ok()
    });
    port_forward_reaches_it(cluster);
    cluster.kubectl(&["delete", "pod", "full", "--wait=true", "--timeout=60s"]);
    cluster.wait("Mesos has the pod's task no more", 30, || {
        cluster.tasks().len() == tasks_of_live_pods(cluster)
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

fn port_forward_reaches_it(cluster: &Cluster) {
    let mut forward =
        cluster.spawn_kubectl(&["port-forward", "pod/full", ":8000", "--address=127.0.0.1"]);
    let mut line = Vec::new();
    let mut output = forward.0.stdout.take().unwrap();
    let mut byte = [0];
    while output.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    let line = String::from_utf8(line).unwrap();
    let port: u16 = line
        .split("127.0.0.1:")
        .nth(1)
        .and_then(|it| it.split(' ').next())
        .and_then(|it| it.parse().ok())
        .unwrap_or_else(|| panic!("kubectl port-forward said {line:?}"));
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
        .write_all(b"GET /index.html HTTP/1.0\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("written by the init container"), "{answer}");
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
