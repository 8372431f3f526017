//! The cluster's DNS.

use serde_json::{Value, json};

use super::{Addons, cluster_role_binding, restricted, service_account};

/// Who answers names outside the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// The name servers of the node.
    NodeResolvConf,
    /// These addresses.
    Servers(Vec<std::net::IpAddr>),
    /// Nobody: such names do not exist. For machines without a name server.
    None,
}

/// CoreDNS' configuration.
pub fn corefile(domain: &str, upstream: &Upstream) -> String {
    let outside = match upstream {
        Upstream::None => "template ANY ANY . {\n            rcode NXDOMAIN\n        }".to_owned(),
        Upstream::NodeResolvConf => forward("/etc/resolv.conf"),
        Upstream::Servers(servers) => {
            let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
            forward(&servers.join(" "))
        }
    };
    // `lameduck`: kube-proxy needs some seconds to forget a pod that ends. Answers about the
    // cluster itself are not cached beyond the pod, since they come from memory anyway.
    format!(
        "\
.:53 {{
        errors
        health {{
            lameduck 5s
        }}
        ready
        kubernetes {domain} in-addr.arpa ip6.arpa {{
            pods insecure
            fallthrough in-addr.arpa ip6.arpa
            ttl 30
        }}
        prometheus :9153
        {outside}
        cache 30 {{
            disable success {domain}
            disable denial {domain}
        }}
        loop
        reload
        loadbalance
}}
"
    )
}

fn forward(to: &str) -> String {
    format!("forward . {to} {{\n            max_concurrent 1000\n        }}")
}

/// The objects.
pub fn manifests(addons: &Addons) -> Vec<Value> {
    let labels = json!({"k8s-app": "kube-dns"});
    let corefile = corefile(&addons.dns_domain, &addons.dns_upstream);
    let digest = crate::image::digest_reader(corefile.as_bytes())
        .map(|d| d.0)
        .unwrap_or_default();
    vec![
        service_account("coredns"),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "system:coredns"},
            "rules": [
                {
                    "apiGroups": [""],
                    "resources": ["endpoints", "services", "pods", "namespaces"],
                    "verbs": ["list", "watch"],
                },
                {
                    "apiGroups": ["discovery.k8s.io"],
                    "resources": ["endpointslices"],
                    "verbs": ["list", "watch"],
                },
            ],
        }),
        cluster_role_binding(
            "system:coredns",
            "system:coredns",
            &json!({"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}),
        ),
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "coredns", "namespace": "kube-system"},
            "data": {"Corefile": corefile},
        }),
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "kube-dns",
                "namespace": "kube-system",
                "labels": {
                    "k8s-app": "kube-dns",
                    "kubernetes.io/cluster-service": "true",
                    "kubernetes.io/name": "CoreDNS",
                },
                "annotations": {"prometheus.io/port": "9153", "prometheus.io/scrape": "true"},
            },
            "spec": {
                "clusterIP": addons.dns_address,
                "selector": labels,
                "ports": [
                    {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                    {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
                    {"name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": 9153},
                ],
            },
        }),
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "coredns", "namespace": "kube-system", "labels": labels},
            "spec": {
                "replicas": 2,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {
                        "labels": labels,
                        // A changed configuration is a new rollout, not only a reload some time.
                        "annotations": {"k8s.mesosphere.io/corefile": &digest[..16.min(digest.len())]},
                    },
                    "spec": pod(addons),
                },
            },
        }),
    ]
}

fn pod(addons: &Addons) -> Value {
    let probe =
        |path: &str, port: u16| json!({"httpGet": {"path": path, "port": port, "scheme": "HTTP"}});
    let mut liveness = probe("/health", 8080);
    liveness["initialDelaySeconds"] = json!(60);
    liveness["timeoutSeconds"] = json!(5);
    liveness["failureThreshold"] = json!(5);
    let mut readiness = probe("/ready", 8181);
    readiness["periodSeconds"] = json!(2);
    json!({
        "serviceAccountName": "coredns",
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "CriticalAddonsOnly", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "podAffinityTerm": {
                "topologyKey": "kubernetes.io/hostname",
                "labelSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
            },
        }]}},
        // The node's name servers, not this pod itself.
        "dnsPolicy": "Default",
        "securityContext": {
            // Port 53 without a capability.
            "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [{
            "name": "coredns",
            "image": addons.coredns_image,
            "imagePullPolicy": "IfNotPresent",
            "args": ["-conf", "/etc/coredns/Corefile"],
            "resources": {"limits": {"memory": "170Mi"}, "requests": {"cpu": "100m", "memory": "70Mi"}},
            "ports": [
                {"containerPort": 53, "name": "dns", "protocol": "UDP"},
                {"containerPort": 53, "name": "dns-tcp", "protocol": "TCP"},
                {"containerPort": 9153, "name": "metrics", "protocol": "TCP"},
            ],
            "livenessProbe": liveness,
            "readinessProbe": readiness,
            "securityContext": restricted(),
            "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": true}],
        }],
        "volumes": [{
            "name": "config",
            "configMap": {"name": "coredns", "items": [{"key": "Corefile", "path": "Corefile"}]},
        }],
    })
}
