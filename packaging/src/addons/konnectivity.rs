//! konnectivity's agents, one per node: they dial the server beside the API server and connect,
//! on its behalf, to kubelets, pods and services.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::{Addons, restricted, service_account};
use crate::control_plane::{KONNECTIVITY_AGENT, KONNECTIVITY_AUDIENCE};

/// Port of the agents' health checks, inside the pod.
const HEALTH_PORT: u16 = 8134;

/// The objects.
pub fn manifests(addons: &Addons) -> Vec<Value> {
    let labels = json!({"k8s-app": KONNECTIVITY_AGENT});
    vec![
        service_account(KONNECTIVITY_AGENT),
        json!({
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": KONNECTIVITY_AGENT, "namespace": "kube-system", "labels": labels},
            "spec": {
                "selector": {"matchLabels": labels},
                "updateStrategy": {"type": "RollingUpdate"},
                "template": {"metadata": {"labels": labels}, "spec": pod(addons)},
            },
        }),
    ]
}

/// The way to several servers: a service of their addresses. Agents dial it until they are
/// connected to every server (`--server-count`).
pub fn service(address: Ipv4Addr, port: u16, servers: &[Ipv4Addr]) -> Vec<Value> {
    const NAME: &str = "konnectivity-server";
    let metadata = json!({"name": NAME, "namespace": "kube-system"});
    let endpoints: Vec<Value> = servers
        .iter()
        .map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}}))
        .collect();
    vec![
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "clusterIP": address,
                "ports": [{"name": "agents", "port": port, "targetPort": port, "protocol": "TCP"}],
            },
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": NAME,
                "namespace": "kube-system",
                "labels": {
                    "kubernetes.io/service-name": NAME,
                    "endpointslice.kubernetes.io/managed-by": super::FIELD_MANAGER,
                },
            },
            "addressType": "IPv4",
            "ports": [{"name": "agents", "port": port, "protocol": "TCP"}],
            "endpoints": endpoints,
        }),
    ]
}

fn pod(addons: &Addons) -> Value {
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": HEALTH_PORT}});
    let mut liveness = probe("/healthz");
    liveness["initialDelaySeconds"] = json!(15);
    liveness["timeoutSeconds"] = json!(15);
    let mut readiness = probe("/readyz");
    readiness["periodSeconds"] = json!(2);
    json!({
        "serviceAccountName": KONNECTIVITY_AGENT,
        // It has a token of its own, for the server's audience.
        "automountServiceAccountToken": false,
        "priorityClassName": "system-node-critical",
        // It ends at the second SIGTERM only; after the first it waits for its connections.
        "terminationGracePeriodSeconds": 5,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        // On every node: without it the API server does not reach the pods there.
        "tolerations": [{"operator": "Exists"}],
        "securityContext": {
            "seccompProfile": {"type": "RuntimeDefault"},
            "fsGroup": crate::image::NON_ROOT,
        },
        "containers": [{
            "name": "agent",
            "image": addons.konnectivity_image,
            "imagePullPolicy": "IfNotPresent",
            "args": [
                "--logtostderr=true",
                "--v=1",
                "--ca-cert=/var/run/secrets/konnectivity/ca.crt",
                "--service-account-token-path=/var/run/secrets/konnectivity/token",
                format!("--proxy-server-host={}", addons.konnectivity_host),
                format!("--proxy-server-port={}", addons.konnectivity_port),
                "--agent-identifiers=ipv4=$(HOST_IP)",
                "--admin-server-port=8133",
                format!("--health-server-port={HEALTH_PORT}"),
            ],
            "env": [{"name": "HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}],
            "resources": {"limits": {"memory": "100Mi"}, "requests": {"cpu": "10m", "memory": "30Mi"}},
            "livenessProbe": liveness,
            "readinessProbe": readiness,
            "securityContext": restricted(),
            "volumeMounts": [{
                "name": "credentials",
                "mountPath": "/var/run/secrets/konnectivity",
                "readOnly": true,
            }],
        }],
        "volumes": [{
            "name": "credentials",
            "projected": {"sources": [
                {"serviceAccountToken": {"path": "token", "audience": KONNECTIVITY_AUDIENCE}},
                {"configMap": {
                    "name": "kube-root-ca.crt",
                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                }},
            ]},
        }],
    })
}
