//! kube-apiserver: RBAC and the node authorizer, Secrets encrypted in etcd, bootstrap tokens for
//! nodes, aggregation, and konnectivity for everything that goes to nodes, pods and services.

use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{ConfigFile, ControlPlane, NODE_PORTS, Process, Readiness, flag, loopback, path_flag};
use crate::cidr::Cidr;
use crate::files::PUBLIC;
use crate::options::{Audit, Oidc};
use crate::pki::plan::FRONT_PROXY_CLIENT;
use crate::pki::{Authority, Name, Pki};

/// An API server.
#[derive(Debug, Clone)]
pub struct ApiServer {
    /// Certificates.
    pub pki: Pki,
    /// Where its configuration files go.
    pub config_dir: PathBuf,
    /// The EncryptionConfiguration.
    pub encryption_config: PathBuf,
    /// konnectivity's socket.
    pub konnectivity_socket: PathBuf,
    /// Address at which nodes and pods reach it.
    pub advertise: IpAddr,
    /// Its port.
    pub port: u16,
    /// etcd's URLs.
    pub etcd: Vec<String>,
    /// Range of services.
    pub service_cidr: Cidr,
    /// Ports of services of type NodePort, `first-last`.
    pub node_ports: String,
    /// Domain of the cluster.
    pub dns_domain: String,
    /// How long it goes on serving after SIGTERM, seconds.
    pub shutdown_delay: u32,
    /// How long it may take to end, seconds.
    pub stop_seconds: u64,
    /// Admission plugins besides the default ones and NodeRestriction.
    pub admission_plugins: Vec<String>,
    /// `Name=true`.
    pub feature_gates: Vec<String>,
    /// Users from an OpenID Connect provider.
    pub oidc: Option<Oidc>,
    /// The audit log, and where it is written.
    pub audit: Option<(Audit, PathBuf)>,
    /// Further arguments.
    pub extra_args: Vec<String>,
}

impl ApiServer {
    /// Its process.
    pub fn process(&self) -> Process {
        let pki = &self.pki;
        let authentication = self.config_dir.join("authentication.yaml");
        let egress = self.config_dir.join("egress-selector.yaml");
        let cluster_ca = pki.authority_certificate(Authority::Cluster);
        let plugins: Vec<&str> = std::iter::once("NodeRestriction")
            .chain(self.admission_plugins.iter().map(String::as_str))
            .collect();
        let mut args = vec![
            flag("advertise-address", self.advertise),
            flag("bind-address", "0.0.0.0"),
            flag("secure-port", self.port),
            path_flag("tls-cert-file", pki.certificate(Name::ApiServer)),
            path_flag("tls-private-key-file", pki.key(Name::ApiServer)),
            path_flag("client-ca-file", &cluster_ca),
            path_flag("authentication-config", &authentication),
            flag("enable-bootstrap-token-auth", true),
            flag("authorization-mode", "Node,RBAC"),
            flag("enable-admission-plugins", plugins.join(",")),
            flag("allow-privileged", true),
            flag("etcd-servers", self.etcd.join(",")),
            path_flag("etcd-cafile", pki.authority_certificate(Authority::Etcd)),
            path_flag("etcd-certfile", pki.certificate(Name::ApiServerEtcdClient)),
            path_flag("etcd-keyfile", pki.key(Name::ApiServerEtcdClient)),
            path_flag("encryption-provider-config", &self.encryption_config),
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
                format!("https://kubernetes.default.svc.{}", self.dns_domain),
            ),
            path_flag("service-account-key-file", pki.service_account_public_key()),
            path_flag(
                "service-account-signing-key-file",
                pki.service_account_key(),
            ),
            flag("service-cluster-ip-range", self.service_cidr),
            flag("service-node-port-range", &self.node_ports),
            flag("profiling", false),
        ];
        let mut files = vec![
            ConfigFile {
                path: authentication,
                content: authentication_config(self.oidc.as_ref()),
                mode: PUBLIC,
            },
            ConfigFile {
                path: egress,
                content: egress_selector(&self.konnectivity_socket),
                mode: PUBLIC,
            },
        ];
        if self.shutdown_delay > 0 {
            let delay = format!("{}s", self.shutdown_delay);
            args.push(flag("shutdown-delay-duration", delay));
        }
        if !self.feature_gates.is_empty() {
            args.push(flag("feature-gates", self.feature_gates.join(",")));
        }
        if let Some((audit, log)) = &self.audit {
            let policy = self.config_dir.join("audit-policy.yaml");
            args.extend([
                path_flag("audit-policy-file", &policy),
                path_flag("audit-log-path", log),
                flag("audit-log-maxsize", audit.max_size),
                flag("audit-log-maxbackup", audit.max_backups),
            ]);
            files.push(ConfigFile {
                path: policy,
                content: audit_policy(audit),
                mode: PUBLIC,
            });
        }
        args.extend(self.extra_args.iter().cloned());
        Process {
            name: "kube-apiserver".to_owned(),
            program: "kube-apiserver".to_owned(),
            args,
            env: Vec::new(),
            files,
            directories: Vec::new(),
            readiness: Readiness::Https {
                address: loopback(self.port),
                path: "/readyz".to_owned(),
                authority: cluster_ca,
            },
            after: vec!["etcd".to_owned()],
            stop_seconds: self.stop_seconds,
        }
    }
}

pub(super) fn process(c: &ControlPlane) -> Process {
    let (first, last) = NODE_PORTS;
    ApiServer {
        pki: c.pki.clone(),
        config_dir: c.config_dir.clone(),
        encryption_config: c.encryption_config(),
        konnectivity_socket: c.konnectivity_socket(),
        advertise: c.advertise,
        port: c.ports.api,
        etcd: vec![format!("https://127.0.0.1:{}", c.ports.etcd)],
        service_cidr: c.service_cidr,
        node_ports: format!("{first}-{last}"),
        dns_domain: c.dns_domain.clone(),
        shutdown_delay: 0,
        // It drains requests that run. Connections of nodes that go on would hold it up for a
        // minute, and it has no state of its own that a SIGKILL could harm.
        stop_seconds: 5,
        admission_plugins: Vec::new(),
        feature_gates: Vec::new(),
        oidc: None,
        audit: None,
        extra_args: Vec::new(),
    }
    .process()
}

/// Nobody is let in without credentials, health checks aside.
fn authentication_config(oidc: Option<&Oidc>) -> String {
    crate::yaml(&json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "jwt": oidc.map(jwt).into_iter().collect::<Vec<_>>(),
        "anonymous": {
            "enabled": true,
            "conditions": [{"path": "/livez"}, {"path": "/readyz"}, {"path": "/healthz"}],
        },
    }))
}

/// Users from an OpenID Connect provider.
fn jwt(oidc: &Oidc) -> Value {
    let prefix = |text: &str| {
        if text == "-" {
            String::new()
        } else {
            text.to_owned()
        }
    };
    let mut issuer = json!({"url": oidc.issuer_url, "audiences": [oidc.client_id]});
    if !oidc.ca.is_empty() {
        issuer["certificateAuthority"] = json!(oidc.ca);
    }
    let mut mappings = json!({
        "username": {"claim": oidc.username_claim, "prefix": prefix(&oidc.username_prefix)},
    });
    if !oidc.groups_claim.is_empty() {
        mappings["groups"] =
            json!({"claim": oidc.groups_claim, "prefix": prefix(&oidc.groups_prefix)});
    }
    let rules: Vec<Value> = oidc
        .required_claims
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .map(|(claim, value)| json!({"claim": claim, "requiredValue": value}))
        .collect();
    json!({"issuer": issuer, "claimMappings": mappings, "claimValidationRules": rules})
}

/// What is logged. Bodies of Secrets, tokens and the like never are.
fn audit_policy(audit: &Audit) -> String {
    if audit.level == "policy" {
        return audit.policy.clone();
    }
    let sensitive = json!([
        {"group": "", "resources": ["secrets", "configmaps", "serviceaccounts/token"]},
        {"group": "authentication.k8s.io", "resources": ["tokenreviews"]},
    ]);
    let mut rules = vec![json!({"level": "Metadata", "resources": sensitive})];
    rules.push(match audit.level.as_str() {
        "requests" => json!({"level": "Request"}),
        _ => json!({"level": "Metadata"}),
    });
    crate::yaml(&json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        // One record per request is enough.
        "omitStages": ["RequestReceived"],
        "rules": rules,
    }))
}

/// Nodes, pods and services are reached through konnectivity; etcd and everything else directly.
fn egress_selector(socket: &std::path::Path) -> String {
    crate::yaml(&json!({
        "apiVersion": "apiserver.k8s.io/v1beta1",
        "kind": "EgressSelectorConfiguration",
        "egressSelections": [{
            "name": "cluster",
            "connection": {
                "proxyProtocol": "GRPC",
                "transport": {"uds": {"udsName": socket}},
            },
        }],
    }))
}
