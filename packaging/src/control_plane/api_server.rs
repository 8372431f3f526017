//! kube-apiserver: RBAC and the node authorizer, Secrets encrypted in etcd, bootstrap tokens for
//! nodes, aggregation, and konnectivity for everything that goes to nodes, pods and services.

use serde_json::json;

use super::{ConfigFile, ControlPlane, NODE_PORTS, Process, Readiness, flag, loopback, path_flag};
use crate::files::PUBLIC;
use crate::pki::plan::FRONT_PROXY_CLIENT;
use crate::pki::{Authority, Name};

pub(super) fn process(c: &ControlPlane) -> Process {
    let pki = &c.pki;
    let authentication = c.config_dir.join("authentication.yaml");
    let egress = c.config_dir.join("egress-selector.yaml");
    let cluster_ca = pki.authority_certificate(Authority::Cluster);
    let (first, last) = NODE_PORTS;
    Process {
        name: "kube-apiserver".to_owned(),
        program: "kube-apiserver".to_owned(),
        args: vec![
            flag("advertise-address", c.advertise),
            flag("bind-address", "0.0.0.0"),
            flag("secure-port", c.ports.api),
            path_flag("tls-cert-file", pki.certificate(Name::ApiServer)),
            path_flag("tls-private-key-file", pki.key(Name::ApiServer)),
            path_flag("client-ca-file", &cluster_ca),
            path_flag("authentication-config", &authentication),
            flag("enable-bootstrap-token-auth", true),
            flag("authorization-mode", "Node,RBAC"),
            flag("enable-admission-plugins", "NodeRestriction"),
            flag("allow-privileged", true),
            flag(
                "etcd-servers",
                format!("https://127.0.0.1:{}", c.ports.etcd),
            ),
            path_flag("etcd-cafile", pki.authority_certificate(Authority::Etcd)),
            path_flag("etcd-certfile", pki.certificate(Name::ApiServerEtcdClient)),
            path_flag("etcd-keyfile", pki.key(Name::ApiServerEtcdClient)),
            path_flag("encryption-provider-config", c.encryption_config()),
            // Node names need not resolve; kubelets' serving certificates carry the address.
            flag("kubelet-preferred-address-types", "InternalIP"),
            path_flag("kubelet-certificate-authority", &cluster_ca),
            path_flag(
                "kubelet-client-certificate",
                pki.certificate(Name::ApiServerKubeletClient),
            ),
            path_flag("kubelet-client-key", pki.key(Name::ApiServerKubeletClient)),
            path_flag(
                "requestheader-client-ca-file",
                pki.authority_certificate(Authority::FrontProxy),
            ),
            flag("requestheader-allowed-names", FRONT_PROXY_CLIENT),
            flag("requestheader-username-headers", "X-Remote-User"),
            flag("requestheader-group-headers", "X-Remote-Group"),
            flag("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
            path_flag(
                "proxy-client-cert-file",
                pki.certificate(Name::FrontProxyClient),
            ),
            path_flag("proxy-client-key-file", pki.key(Name::FrontProxyClient)),
            // Straight to the pods of an aggregated API: where this server runs there is no
            // kube-proxy.
            flag("enable-aggregator-routing", true),
            path_flag("egress-selector-config-file", &egress),
            flag(
                "service-account-issuer",
                format!("https://kubernetes.default.svc.{}", c.dns_domain),
            ),
            path_flag("service-account-key-file", pki.service_account_public_key()),
            path_flag(
                "service-account-signing-key-file",
                pki.service_account_key(),
            ),
            flag("service-cluster-ip-range", c.service_cidr),
            flag("service-node-port-range", format!("{first}-{last}")),
            flag("profiling", false),
        ],
        env: Vec::new(),
        files: vec![
            ConfigFile {
                path: authentication,
                content: authentication_config(),
                mode: PUBLIC,
            },
            ConfigFile {
                path: egress,
                content: egress_selector(c),
                mode: PUBLIC,
            },
        ],
        directories: Vec::new(),
        readiness: Readiness::Https {
            address: loopback(c.ports.api),
            path: "/readyz".to_owned(),
            authority: cluster_ca,
        },
        after: vec!["etcd".to_owned()],
        // It drains requests that run. Connections of nodes that go on would hold it up for a
        // minute, and it has no state of its own that a SIGKILL could harm.
        stop_seconds: 5,
    }
}

/// Nobody is let in without credentials, health checks aside.
fn authentication_config() -> String {
    crate::yaml(&json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "jwt": [],
        "anonymous": {
            "enabled": true,
            "conditions": [{"path": "/livez"}, {"path": "/readyz"}, {"path": "/healthz"}],
        },
    }))
}

/// Nodes, pods and services are reached through konnectivity; etcd and everything else directly.
fn egress_selector(c: &ControlPlane) -> String {
    crate::yaml(&json!({
        "apiVersion": "apiserver.k8s.io/v1beta1",
        "kind": "EgressSelectorConfiguration",
        "egressSelections": [{
            "name": "cluster",
            "connection": {
                "proxyProtocol": "GRPC",
                "transport": {"uds": {"udsName": c.konnectivity_socket()}},
            },
        }],
    }))
}
