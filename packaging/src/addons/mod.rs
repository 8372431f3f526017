//! What runs in every cluster beside the control plane, as Kubernetes objects: who may do what
//! ([`access`]), the cluster's DNS ([`coredns`]), and konnectivity's agents ([`konnectivity`]).
//!
//! The objects are applied server-side in the order given, as often as one likes.

pub mod access;
pub mod coredns;
pub mod konnectivity;

use std::net::IpAddr;

use serde_json::{Value, json};

/// Field manager under which the objects are applied.
pub const FIELD_MANAGER: &str = "k8sm";

/// What the add-ons depend on.
#[derive(Debug, Clone)]
pub struct Addons {
    /// The framework's name; names the objects that only it may change.
    pub framework_name: String,
    /// Address of the cluster's DNS service.
    pub dns_address: IpAddr,
    /// Domain of the cluster.
    pub dns_domain: String,
    /// Who answers names outside the cluster.
    pub dns_upstream: coredns::Upstream,
    /// CoreDNS' image.
    pub coredns_image: String,
    /// konnectivity's agent's image.
    pub konnectivity_image: String,
    /// Host at which the agents reach konnectivity's server.
    pub konnectivity_host: IpAddr,
    /// Its port.
    pub konnectivity_port: u16,
}

impl Addons {
    /// All objects. Access comes first: the framework cannot start without it.
    pub fn manifests(&self) -> Vec<Value> {
        let mut objects = access::manifests();
        objects.extend(crate::rbac::manifests(&self.framework_name));
        objects.extend(coredns::manifests(self));
        objects.extend(konnectivity::manifests(self));
        objects
    }
}

/// A service account in `kube-system`.
fn service_account(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": "kube-system"},
    })
}

/// A binding of a cluster role.
fn cluster_role_binding(name: &str, role: &str, subject: &Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    })
}

/// A user or a group as a binding's subject.
fn subject(kind: &str, name: &str) -> Value {
    json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name})
}

/// What a container of ours may do: nothing that it does not need.
fn restricted() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "runAsUser": crate::image::NON_ROOT,
        "runAsGroup": crate::image::NON_ROOT,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addons(dns_upstream: coredns::Upstream) -> Addons {
        Addons {
            framework_name: "kubernetes".to_owned(),
            dns_address: "10.96.0.10".parse().unwrap(),
            dns_domain: "cluster.local".to_owned(),
            dns_upstream,
            coredns_image: "registry.k8s.io/coredns/coredns:v1.15.0".to_owned(),
            konnectivity_image: "registry.k8s.io/kas-network-proxy/proxy-agent:v0.34.0".to_owned(),
            konnectivity_host: "192.0.2.7".parse().unwrap(),
            konnectivity_port: 8132,
        }
    }

    #[test]
    fn the_objects_are_as_documented() {
        let own: Vec<String> = coredns::manifests(&addons(coredns::Upstream::NodeResolvConf))
            .iter()
            .chain(&konnectivity::manifests(&addons(coredns::Upstream::None)))
            .map(crate::yaml)
            .collect();
        insta::assert_snapshot!(own.join("---\n"));
    }

    #[test]
    fn every_object_has_a_kind_and_a_name_of_its_own() {
        let mut seen = std::collections::BTreeSet::new();
        for object in addons(coredns::Upstream::None).manifests() {
            let namespace = &object["metadata"]["namespace"];
            let name = (
                format!("{} {namespace}", object["kind"].as_str().unwrap()),
                object["metadata"]["name"].as_str().unwrap().to_owned(),
            );
            assert!(seen.insert(name.clone()), "{name:?} twice");
        }
    }

    #[test]
    fn without_an_upstream_other_names_do_not_exist() {
        let text = coredns::corefile("cluster.local", &coredns::Upstream::None);
        assert!(
            text.contains("NXDOMAIN") && !text.contains("forward"),
            "{text}"
        );
    }
}
