//! The API server calls into the cluster: a validating webhook, an aggregated API, service and pod
//! proxying, all through konnectivity.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::{Cluster, conditions};

const MANIFEST: &str = include_str!("../../../examples/extension/extension.yaml");
const GREETINGS: &str = "/apis/example.k8s.mesosphere.io/v1/greetings";

/// All of it; hello must be there.
pub fn the_api_server_reaches_pods(cluster: &Cluster) {
    let dials = dials(cluster);
    services_and_pods_are_proxied(cluster);
    deploy(cluster);
    a_webhook_in_a_pod_decides(cluster);
    an_aggregated_api_answers_from_a_pod(cluster);
    assert!(
        self::dials(cluster) > dials,
        "konnectivity's server has dialled for the API server"
    );
    without_its_pod_both_refuse(cluster);
    cluster.kubectl(&[
        "delete",
        "apiservice/v1.example.k8s.mesosphere.io",
        "validatingwebhookconfiguration/extension.k8s.mesosphere.io",
        "deployment/extension",
        "service/extension",
        "secret/extension-tls",
        "configmap/allowed",
        "--timeout=60s",
    ]);
}

/// How often konnectivity's server has connected somebody, by its own count.
fn dials(cluster: &Cluster) -> u64 {
    let port = &cluster.settings()["ports"]["konnectivity_admin"];
    let output = std::process::Command::new("curl")
        .args(["-fsS", "--max-time", "10"])
        .arg(format!("http://127.0.0.1:{port}/metrics"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|it| {
            it.starts_with("konnectivity_network_proxy_server_dial_duration_seconds_count")
        })
        .filter_map(|it| it.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

fn services_and_pods_are_proxied(cluster: &Cluster) {
    let page = raw(
        cluster,
        "/api/v1/namespaces/default/services/hello:http/proxy/",
    )
    .unwrap();
    assert!(page.contains("Hello from Kubernetes on Mesos"), "{page}");
    // Each pod, so each node that has one.
    for (pod, _) in cluster.containers("app=hello") {
        let path = format!("/api/v1/namespaces/default/pods/{pod}:8080/proxy/");
        let page = raw(cluster, &path).unwrap();
        assert!(page.contains(&format!("default/{pod}")), "{page}");
    }
}

fn raw(cluster: &Cluster, path: &str) -> Result<String, String> {
    cluster.try_kubectl(&["get", "--raw", path])
}

/// The example with a certificate of its own.
fn deploy(cluster: &Cluster) {
    let names = vec!["extension.default.svc".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let bundle = STANDARD.encode(&certificate);
    let secret = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": "extension-tls"},
        "stringData": {"tls.crt": certificate, "tls.key": key},
    });
    cluster.apply(&secret.to_string());
    cluster.apply(&MANIFEST.replace("CA_BUNDLE", &bundle));
    cluster.wait("the extension's pod is ready", 60, || {
        cluster.ready("app=extension") == 1
    });
}

fn config_map(name: &str, labels: &str) -> String {
    format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, labels: {{{labels}}}}}}}")
}

const CHECKED: &str = "k8s.mesosphere.io/checked: 'true'";
const FORBIDDEN: &str =
    "k8s.mesosphere.io/checked: 'true', k8s.mesosphere.io/forbidden: 'whatever'";

fn a_webhook_in_a_pod_decides(cluster: &Cluster) {
    // The API server learns of a webhook a moment after it is stored.
    let mut refusal = String::new();
    cluster.wait("the webhook refuses what it should", 60, || {
        refusal = cluster
            .try_apply(&config_map("refused", FORBIDDEN))
            .err()
            .unwrap_or_default();
        if refusal.is_empty() {
            cluster.kubectl(&["delete", "configmap", "refused"]);
        }
        refusal.contains("denied the request")
    });
    assert!(
        refusal.contains("refused has the label k8s.mesosphere.io/forbidden"),
        "the webhook's own words: {refusal}"
    );
    assert!(cluster.get(&["configmap", "refused"]).is_null());
    cluster.apply(&config_map("allowed", CHECKED));
}

fn an_aggregated_api_answers_from_a_pod(cluster: &Cluster) {
    cluster.wait("the API is available", 60, || {
        conditions(
            &cluster.get(&["apiservice", "v1.example.k8s.mesosphere.io"]),
            "Available",
        )
    });
    let (pod, _) = cluster.containers("app=extension").remove(0);
    let list = raw(cluster, GREETINGS).unwrap();
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["items"][0]["metadata"]["name"], pod.as_str());
    // Discovery leads kubectl there too.
    let listed = cluster.kubectl(&["get", "greetings.example.k8s.mesosphere.io", "-o", "name"]);
    assert_eq!(
        listed.trim(),
        format!("greeting.example.k8s.mesosphere.io/{pod}")
    );
}

/// What was seen came from the pod: without it nothing is answered, and it is said.
fn without_its_pod_both_refuse(cluster: &Cluster) {
    cluster.kubectl(&["scale", "deployment", "extension", "--replicas=0"]);
    cluster.wait("the pod is gone", 60, || {
        cluster.containers("app=extension").is_empty()
    });
    let mut error = String::new();
    cluster.wait("objects that must be checked are refused", 30, || {
        error = cluster
            .try_apply(&config_map("allowed", &format!("{CHECKED}, again: ''")))
            .err()
            .unwrap_or_default();
        error.contains("failed calling webhook")
    });
    cluster.wait("the API is unavailable", 60, || {
        raw(cluster, GREETINGS).is_err()
    });
}
