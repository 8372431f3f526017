//! The front door of one machine: the first README's commands, and what its limited identity may
//! not do, on a real API server.

use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::Cluster;

const POD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/pod.json");
const CONTROLLER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../examples/v1beta1/controller.json"
);
const SERVICE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../examples/v1beta1/service.json"
);
const API: &str = "http://localhost:8080";

#[test]
fn the_first_readmes_commands_work_with_an_identity_that_reaches_no_further() {
    let cluster = Cluster::up(1, &["--marathon", "--legacy-port=8080"]);
    the_first_readmes_pod_runs(&cluster);
    controllers_services_and_minions_are_there(&cluster);
    what_the_identity_may_not_do_is_refused();
    cluster.finish();
}

/// The same door where a supervisor runs it.
pub fn pods_are_listed(cluster: &Cluster) {
    let port = cluster.settings()["front_door"]["legacy"].clone();
    let (code, text) = curl(&[&format!("http://localhost:{port}/api/v1beta1/pods")]);
    assert_eq!(code, 200, "{text}");
    assert!(text.contains("\"PodList\""), "{text}");
}

/// What curl prints, and the HTTP status.
fn curl(args: &[&str]) -> (u16, String) {
    let output = Command::new("curl")
        .args(["-sSL", "--max-time", "20", "-w", "\n%{http_code}"])
        .args(args)
        .output()
        .expect("curl is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, code) = text.rsplit_once('\n').unwrap_or(("", &text));
    let code = code.trim().parse().unwrap_or(0);
    let error = String::from_utf8_lossy(&output.stderr);
    (code, format!("{body}{error}"))
}

/// Address of the node, this machine's own.
fn address(cluster: &Cluster) -> String {
    cluster.settings()["address"].as_str().unwrap().to_owned()
}

fn get(path: &str) -> Value {
    let (code, text) = curl(&[&format!("{API}{path}")]);
    assert_eq!(code, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
}

fn post(path: &str, file: &str) -> Value {
    let url = format!("{API}{path}");
    let (code, text) = curl(&[&url, "-XPOST", "-d", &format!("@{file}")]);
    assert_eq!(code, 201, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

fn the_first_readmes_pod_runs(cluster: &Cluster) {
    let created = post("/api/v1beta1/pods", POD);
    assert_eq!(created["id"], "php", "{created}");
    cluster.wait_ready("php", 90);
    let ready = Instant::now();
    let list = get("/api/v1beta1/pods");
    let pods = list["items"].as_array().unwrap();
    let pod = pods.iter().find(|p| p["id"] == "php").unwrap();
    assert_eq!(pod["currentState"]["status"], "Running", "{pod}");
    let container = &pod["desiredState"]["manifest"]["containers"][0];
    assert_eq!(container["livenessProbe"]["httpGet"]["port"], "8080");

    // The node's address is the pod, localhost is the API, on the same port.
    let node = format!("http://{}:8080/index.html", address(cluster));
    let (code, page) = curl(&[&node]);
    assert_eq!(code, 200, "{node}: {page}");
    assert!(page.contains("Hello from Kubernetes on Mesos"), "{page}");
    assert_eq!(get("/api/v1beta1/pods/php")["id"], "php");

    // Its probe begins after 30 s and asks every 10 s; three failures would restart it.
    cluster.wait("the probe has asked more than three times", 100, || {
        ready.elapsed().as_secs() > 70
    });
    let now = cluster.get(&["pod", "php"]);
    let status = &now["status"]["containerStatuses"][0];
    assert_eq!(status["restartCount"], 0, "{now}");
    assert_eq!(status["ready"], true, "{now}");
    let events = cluster.get(&[
        "events",
        "--field-selector=involvedObject.name=php,reason=Unhealthy",
    ]);
    assert_eq!(events["items"], json!([]), "{events}");

    let url = format!("{API}/api/v1beta1/pods/php");
    let (code, text) = curl(&[&url, "-XDELETE"]);
    assert_eq!(code, 200, "{text}");
    cluster.wait("the pod is gone", 60, || curl(&[&url]).0 == 404);
}

fn controllers_services_and_minions_are_there(cluster: &Cluster) {
    post("/api/v1beta1/replicationControllers", CONTROLLER);
    post("/api/v1beta1/services", SERVICE);
    let pods = "/api/v1beta1/pods?labels=name%3Dhello";
    cluster.wait("both pods of the controller run", 90, || {
        let pods = get(pods);
        let running = |p: &&Value| p["currentState"]["status"] == "Running";
        pods["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter(running)
            .count()
            == 2
    });
    let mut controller = get("/api/v1beta1/replicationControllers/hello-controller");
    controller["desiredState"]["replicas"] = json!(1);
    controller
        .as_object_mut()
        .unwrap()
        .remove("resourceVersion");
    let url = format!("{API}/api/v1beta1/replicationControllers/hello-controller");
    let (code, text) = curl(&[&url, "-XPUT", "-d", &controller.to_string()]);
    assert_eq!(code, 200, "{text}");
    cluster.wait("one pod is left", 60, || {
        get(pods)["items"].as_array().unwrap().len() == 1
    });
    let service = get("/api/v1beta1/services/hello-v1beta1");
    assert_eq!(service["containerPort"], 80, "{service}");
    let minions = get("/api/v1beta1/minions");
    assert_eq!(
        minions["minions"][0]["hostIP"],
        address(cluster),
        "{minions}"
    );
}

fn what_the_identity_may_not_do_is_refused() {
    let refused = |path: &str, body: &Value, why: &str| {
        let url = format!("{API}{path}");
        let header = "content-type: application/json";
        let (code, text) = curl(&[&url, "-H", header, "-d", &body.to_string()]);
        assert!(
            code == 403 && text.contains(why),
            "{path} {body}: {code} {text}"
        );
    };
    let pods = "/api/v1/namespaces/default/pods";
    let container = |more: Value| {
        let mut container = json!({"name": "c", "image": "k8s.mesosphere.io/hello:v0.1.0"});
        for (name, value) in more.as_object().unwrap() {
            container[name] = value.clone();
        }
        container
    };
    let pod = |spec: Value, more: Value| {
        let mut spec = spec;
        spec["containers"] = json!([container(more)]);
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "x-"}, "spec": spec})
    };
    let none = || json!({});
    for (object, why) in [
        (pod(json!({"hostNetwork": true}), none()), "namespaces"),
        (pod(json!({"hostPID": true}), none()), "namespaces"),
        (
            pod(none(), json!({"securityContext": {"privileged": true}})),
            "privileged",
        ),
        (
            pod(
                none(),
                json!({"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}),
            ),
            "capabilities",
        ),
        (
            pod(
                json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
                none(),
            ),
            "host paths",
        ),
        (
            pod(json!({"serviceAccountName": "other"}), none()),
            "service account",
        ),
        (
            pod(json!({"priorityClassName": "system-node-critical"}), none()),
            "before others",
        ),
        (
            pod(
                none(),
                json!({"livenessProbe": {"httpGet": {"port": 80, "host": "192.0.2.1"}}}),
            ),
            "ask the pod itself",
        ),
    ] {
        refused(pods, &object, why);
    }
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"hostNetwork": true, "containers": [container(none())]}});
    let controller = json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "x"}, "spec": {"selector": {"a": "b"}, "template": template}});
    refused(
        "/api/v1/namespaces/default/replicationcontrollers",
        &controller,
        "namespaces",
    );
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"ports": [{"port": 80}], "externalIPs": ["192.0.2.1"]}});
    refused(
        "/api/v1/namespaces/default/services",
        &service,
        "addresses of others",
    );
    // The same in v1beta1.
    let old = json!({"id": "x", "desiredState": {"manifest": {"version": "v1beta1", "containers": [{"name": "c", "image": "i", "privileged": true}]}}});
    refused("/api/v1beta1/pods", &old, "privileged");
    // Beyond its role.
    for path in [
        "/api/v1/namespaces/default/secrets",
        "/api/v1/namespaces/kube-system/pods",
        "/api/v1/pods",
        "/apis/apps/v1/namespaces/default/deployments",
        "/api/v1beta1/pods?namespace=kube-system",
    ] {
        let (code, text) = curl(&[&format!("{API}{path}")]);
        assert_eq!(code, 403, "{path}: {text}");
    }
    for header in [
        "Host: evil.example",
        "Origin: http://evil.example",
        "Sec-Fetch-Site: cross-site",
    ] {
        let (code, text) = curl(&["-H", header, &format!("{API}{pods}")]);
        assert_eq!(code, 403, "{header}: {text}");
    }
}
