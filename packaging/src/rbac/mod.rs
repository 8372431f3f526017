//! What the framework and the nodes may do in the Kubernetes API: the least that they need.
//!
//! | identity | role |
//! |---|---|
//! | user `system:k8sm:framework` | `system:k8sm:framework`, and roles in `kube-system` and `default` |
//! | group `system:bootstrappers:k8sm` (a node that starts) | upstream's `system:node-bootstrapper`: ask for certificates |
//! | user `system:k8sm:legacy-api` (the front door's `localhost:8080`) | see [`legacy_api`] |
//! | group `system:k8sm:node-proxiers` (each node's kube-proxy) | upstream's `system:node-proxier`, and asking for its own next certificate |
//!
//! The framework reads no Secret, no ConfigMap but its own, and makes no pod. What it could do
//! with more is not needed: kubelets get their rights from upstream's Node authorizer.

pub mod legacy_api;

use serde_json::{Value, json};

use crate::pki::plan::FRAMEWORK_USER;

/// Group of the bearers of our bootstrap tokens.
pub const BOOTSTRAP_GROUP: &str = "system:bootstrappers:k8sm";
/// Group of the nodes' kube-proxies.
pub const PROXY_GROUP: &str = "system:k8sm:node-proxiers";

const API: &str = "rbac.authorization.k8s.io/v1";
const GROUP: &str = "rbac.authorization.k8s.io";

/// The objects, to be applied server-side in this order, as often as one likes.
/// `framework_name` names the framework's own ConfigMap and Lease.
pub fn manifests(framework_name: &str) -> Vec<Value> {
    let mut objects = own_manifests(framework_name);
    objects.extend(legacy_api::manifests());
    objects
}

fn own_manifests(framework_name: &str) -> Vec<Value> {
    let own = format!("k8sm-{framework_name}");
    vec![
        role("ClusterRole", None, &cluster_rules()),
        binding(
            "ClusterRoleBinding",
            None,
            FRAMEWORK_USER,
            ("ClusterRole", FRAMEWORK_USER),
            ("User", FRAMEWORK_USER),
        ),
        role("Role", Some("kube-system"), &system_rules(&own)),
        binding(
            "RoleBinding",
            Some("kube-system"),
            FRAMEWORK_USER,
            ("Role", FRAMEWORK_USER),
            ("User", FRAMEWORK_USER),
        ),
        role("Role", Some("default"), &api_server_rules()),
        binding(
            "RoleBinding",
            Some("default"),
            FRAMEWORK_USER,
            ("Role", FRAMEWORK_USER),
            ("User", FRAMEWORK_USER),
        ),
        binding(
            "ClusterRoleBinding",
            None,
            "system:k8sm:node-bootstrappers",
            ("ClusterRole", "system:node-bootstrapper"),
            ("Group", BOOTSTRAP_GROUP),
        ),
        binding(
            "ClusterRoleBinding",
            None,
            "system:k8sm:node-proxiers",
            ("ClusterRole", "system:node-proxier"),
            ("Group", PROXY_GROUP),
        ),
        binding(
            "ClusterRoleBinding",
            None,
            "system:k8sm:node-proxiers:renewal",
            ("ClusterRole", "system:node-bootstrapper"),
            ("Group", PROXY_GROUP),
        ),
    ]
}

fn cluster_rules() -> Vec<Value> {
    vec![
        // Makes nodes, labels, annotates, taints and cordons them, and gives them up.
        rule(
            "",
            &["nodes"],
            &["get", "list", "watch", "create", "patch", "delete"],
        ),
        // Places pods; ends those whose node is dead; writes the task on those that are bound.
        rule("", &["pods"], &["get", "list", "watch", "patch", "delete"]),
        rule("", &["pods/binding", "pods/eviction"], &["create"]),
        rule("", &["pods/status"], &["patch"]),
        rule("", &["events"], &["create", "patch"]),
        rule(
            "certificates.k8s.io",
            &["certificatesigningrequests"],
            &["get", "list", "watch"],
        ),
        rule(
            "certificates.k8s.io",
            &["certificatesigningrequests/approval"],
            &["patch"],
        ),
        named_rule(
            "certificates.k8s.io",
            &["signers"],
            &["approve"],
            &[
                "kubernetes.io/kube-apiserver-client",
                "kubernetes.io/kube-apiserver-client-kubelet",
                "kubernetes.io/kubelet-serving",
            ],
        ),
    ]
}

fn system_rules(own: &str) -> Vec<Value> {
    vec![
        // The framework id. Creating cannot be limited to a name.
        rule("", &["configmaps"], &["create"]),
        named_rule("", &["configmaps"], &["get", "patch"], &[own]),
        // The election.
        rule("coordination.k8s.io", &["leases"], &["create"]),
        named_rule(
            "coordination.k8s.io",
            &["leases"],
            &["get", "update"],
            &[own],
        ),
        // Bootstrap tokens. No reading: which token is whose is a label of the Node.
        rule("", &["secrets"], &["create", "delete"]),
    ]
}

/// Where the API servers are.
fn api_server_rules() -> Vec<Value> {
    vec![named_rule(
        "discovery.k8s.io",
        &["endpointslices"],
        &["get", "list", "watch"],
        &["kubernetes"],
    )]
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

fn named_rule(group: &str, resources: &[&str], verbs: &[&str], names: &[&str]) -> Value {
    let mut rule = rule(group, resources, verbs);
    rule["resourceNames"] = json!(names);
    rule
}

fn metadata(namespace: Option<&str>, name: &str) -> Value {
    let mut metadata = json!({"name": name});
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    metadata
}

fn role(kind: &str, namespace: Option<&str>, rules: &[Value]) -> Value {
    json!({
        "apiVersion": API,
        "kind": kind,
        "metadata": metadata(namespace, FRAMEWORK_USER),
        "rules": rules,
    })
}

fn binding(
    kind: &str,
    namespace: Option<&str>,
    name: &str,
    (role_kind, role): (&str, &str),
    (subject_kind, subject): (&str, &str),
) -> Value {
    json!({
        "apiVersion": API,
        "kind": kind,
        "metadata": metadata(namespace, name),
        "roleRef": {"apiGroup": GROUP, "kind": role_kind, "name": role},
        "subjects": [{"apiGroup": GROUP, "kind": subject_kind, "name": subject}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roles_are_as_documented() {
        let text: String = own_manifests("kubernetes")
            .iter()
            .map(|object| format!("---\n{}", crate::yaml(object)))
            .collect();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn nothing_may_be_done_to_everything() {
        let text = serde_json::to_string(&manifests("kubernetes")).unwrap();
        assert!(!text.contains("\"*\""));
    }
}
