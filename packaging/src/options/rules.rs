//! Contradictions between options that are each good on their own.

use super::format::port_range;
use super::layers::get;
use super::{Options, Problem, What, check};
use crate::cidr::Cidr;

/// Smallest range of pods: nodes get a /24 each.
const NODE_PREFIX: u8 = 24;
/// Smallest range of services: the tenth address is DNS'.
const SERVICE_PREFIX: u8 = 28;

/// Finds them all.
pub(super) fn check(options: &Options) -> Vec<Problem> {
    let mut found = Found {
        document: options.to_value(),
        problems: Vec::new(),
    };
    ranges(options, &mut found);
    ports(options, &mut found);
    etcd(options, &mut found);
    access(options, &mut found);
    found.problems
}

struct Found {
    document: serde_json::Value,
    problems: Vec<Problem>,
}

impl Found {
    fn add(&mut self, path: &str, why: impl Into<String>) {
        let value = get(&self.document, path)
            .map(check::shown)
            .unwrap_or_default();
        self.problems.push(Problem {
            path: path.to_owned(),
            what: What::Contradiction {
                value,
                why: why.into(),
            },
        });
    }
}

fn ranges(options: &Options, found: &mut Found) {
    let kubernetes = &options.kubernetes;
    let services = kubernetes.service_cidr.parse::<Cidr>().ok();
    let pods = kubernetes.pod_cidr.parse::<Cidr>().ok();
    if let (Some(services), Some(pods)) = (services, pods)
        && services.overlaps(pods)
    {
        found.add(
            "kubernetes.pod_cidr",
            format!("overlaps kubernetes.service_cidr ({services}); choose ranges without a common address"),
        );
    }
    if let Some(services) = services {
        if services.prefix() > SERVICE_PREFIX {
            found.add(
                "kubernetes.service_cidr",
                format!("is too small; take a /{SERVICE_PREFIX} or larger"),
            );
        }
        let dns = &kubernetes.dns;
        if !dns.enabled && !dns.nameservers.is_empty() {
            found.add(
                "kubernetes.dns.nameservers",
                "has no meaning with kubernetes.dns.enabled=false",
            );
        }
        if let Ok(address) = dns.service_ip.parse() {
            if !services.contains(address) {
                found.add(
                    "kubernetes.dns.service_ip",
                    format!("is not in kubernetes.service_cidr ({services})"),
                );
            } else if services.nth(1) == Some(address) {
                found.add(
                    "kubernetes.dns.service_ip",
                    "is the API server's, the first of kubernetes.service_cidr",
                );
            }
        }
    }
    if let Some(pods) = pods
        && pods.prefix() > NODE_PREFIX
    {
        found.add(
            "kubernetes.pod_cidr",
            format!("is too small: each node gets a /{NODE_PREFIX} of it"),
        );
    }
}

/// Every fixed port with its option, those that are used.
pub fn fixed_ports(options: &Options) -> Vec<(&'static str, u16)> {
    let mut ports = vec![
        ("framework.port", options.framework.port),
        ("apiserver.port", options.apiserver.port),
        (
            "apiserver.konnectivity_port",
            options.apiserver.konnectivity_port,
        ),
        (
            "apiserver.konnectivity_admin_port",
            options.apiserver.konnectivity_admin_port,
        ),
        (
            "apiserver.konnectivity_health_port",
            options.apiserver.konnectivity_health_port,
        ),
        ("controller_manager.port", options.controller_manager.port),
    ];
    if options.etcd.storage != "external" {
        ports.extend([
            ("etcd.client_port", options.etcd.client_port),
            ("etcd.peer_port", options.etcd.peer_port),
            ("etcd.metrics_port", options.etcd.metrics_port),
        ]);
    }
    if options.proxy.enabled {
        ports.extend([
            ("proxy.port", options.proxy.port),
            ("proxy.http_port", options.proxy.http_port),
            ("proxy.metrics_port", options.proxy.metrics_port),
        ]);
        if options.proxy.legacy_port != 0 {
            ports.push(("proxy.legacy_port", options.proxy.legacy_port));
        }
    }
    ports
}

fn ports(options: &Options, found: &mut Found) {
    let ports = fixed_ports(options);
    for (n, (path, port)) in ports.iter().enumerate() {
        if let Some((other, _)) = ports.iter().take(n).find(|(_, p)| p == port) {
            found.add(
                path,
                format!("is {other} too; programs on one agent need different ports"),
            );
        }
    }
    for (path, value) in [
        ("proxy.vip", &options.proxy.vip),
        ("proxy.haproxy_group", &options.proxy.haproxy_group),
    ] {
        if !value.is_empty() && !options.marathon.require_ports {
            found.add(
                path,
                "needs ports in Mesos, and marathon.require_ports is false",
            );
        }
    }
    let Some((first, last)) = port_range(&options.kubernetes.node_port_range) else {
        return;
    };
    for (path, port) in ports {
        if (first..=last).contains(&port) {
            found.add(
                path,
                format!("is in kubernetes.node_port_range ({first}-{last}), where Kubernetes would take it for a service"),
            );
        }
    }
    if (first..=last).contains(&10250) {
        found.add(
            "kubernetes.node_port_range",
            "contains kubelet's port, 10250",
        );
    }
}

fn etcd(options: &Options, found: &mut Found) {
    let etcd = &options.etcd;
    let external = etcd.storage == "external";
    let own_keys = matches!(options.pki.source.as_str(), "file" | "uri");
    if external && options.pki.ca.is_empty() && !own_keys {
        found.add(
            "etcd.storage",
            "needs the authority of the etcd that exists: put etcd-ca.crt and etcd-ca.key where pki.ca says, or keys of your own with pki.source=file or uri",
        );
    }
    if etcd.storage == "persistent" && options.marathon.role == "*" {
        found.add(
            "etcd.storage",
            "needs a role to reserve for, and marathon.role is *",
        );
    }
    if external && etcd.external_endpoints.is_empty() {
        found.add(
            "etcd.storage",
            "needs etcd.external_endpoints: the addresses of the etcd that exists",
        );
    }
    if !external && !etcd.external_endpoints.is_empty() {
        found.add(
            "etcd.external_endpoints",
            format!(
                "is used with etcd.storage=external only, and that is {}",
                etcd.storage
            ),
        );
    }
    if !etcd.agents.is_empty() {
        let count = usize::try_from(etcd.count).unwrap_or(usize::MAX);
        if external {
            found.add("etcd.agents", "has no meaning with etcd.storage=external");
        } else if etcd.agents.len() != count {
            found.add(
                "etcd.agents",
                format!(
                    "names {} agents, but etcd.count is {count}",
                    etcd.agents.len()
                ),
            );
        }
        let mut seen = std::collections::BTreeSet::new();
        if !etcd.agents.iter().all(|a| seen.insert(a)) {
            found.add(
                "etcd.agents",
                "names an agent twice; members need different ones",
            );
        }
    }
    if etcd.quota > etcd.disk {
        found.add(
            "etcd.quota",
            format!(
                "is more than etcd.disk ({} MiB); the store must fit",
                etcd.disk
            ),
        );
    }
}

fn access(options: &Options, found: &mut Found) {
    let service = &options.service;
    if !service.secret_name.is_empty() && !service.secret_file.is_empty() {
        found.add(
            "service.secret_file",
            "and service.secret_name exclude each other",
        );
    }
    if service.principal.is_empty()
        && !(service.secret_name.is_empty() && service.secret_file.is_empty())
    {
        found.add(
            "service.principal",
            "is empty, but there is a secret: say whose it is",
        );
    }
    match options.pki.source.as_str() {
        "file" if options.pki.file.is_empty() => found.add(
            "pki.source",
            "needs pki.file: the directory on the agents that holds the keys",
        ),
        "uri" if options.pki.uri.is_empty() => found.add(
            "pki.source",
            "needs pki.uri: where the agents can fetch the keys",
        ),
        _ => {}
    }
    if options.oidc.issuer_url.is_empty() != options.oidc.client_id.is_empty() {
        let (path, other) = if options.oidc.client_id.is_empty() {
            ("oidc.client_id", "oidc.issuer_url")
        } else {
            ("oidc.issuer_url", "oidc.client_id")
        };
        found.add(path, format!("is needed with {other}"));
    }
    let policy = options.audit.level == "policy";
    if options.audit.enabled && policy && options.audit.policy.is_empty() {
        found.add("audit.policy", "is needed with audit.level=policy");
    }
    if !policy && !options.audit.policy.is_empty() {
        found.add(
            "audit.policy",
            format!(
                "is used with audit.level=policy only, and that is {}",
                options.audit.level
            ),
        );
    }
    if options.images.runtime != "artifacts" && options.images.repository.is_empty() {
        found.add(
            "images.runtime",
            "needs images.repository: the registry that holds the images",
        );
    }
    if options.images.executor != "artifact" && options.images.repository.is_empty() {
        found.add(
            "images.executor",
            "needs images.repository: the registry that holds the executor's image",
        );
    }
}
