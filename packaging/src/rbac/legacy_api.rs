//! What everybody on a machine may do through the front door's `localhost:8080`, which acts as
//! [`LEGACY_API_USER`]: pods, replication controllers and services of the namespace `default`, and
//! a look at nodes.
//!
//! The role says *which* objects, and two admission policies say *what* they may hold. Whoever may
//! create a pod may otherwise become whatever a pod may be, so the policies close the ways up:
//! privileges, capabilities, the host's namespaces, paths and loopback, other service accounts,
//! priority over others' pods, and addresses of others (`externalIPs`). They are of our own and
//! not a Pod Security level, since the level `baseline` refuses host ports, which the example of
//! the first README has, and a level would bind all users of the namespace, not this one.
//!
//! Not given, though they are in the namespace: exec, attach, port-forward and the proxies (they
//! reach into pods of other users, who may have more rights, and a page that a pod serves would
//! have this door's origin), Secrets, and other kinds of workload, whose pods a controller creates
//! in its own name, past a policy for this user.

use serde_json::{Value, json};

use super::{API, GROUP, rule};
use crate::pki::plan::LEGACY_API_USER;

/// The namespace that it is limited to.
pub const NAMESPACE: &str = "default";

/// Capabilities that a container may add: those that container runtimes give anyway, which the Pod
/// Security level `baseline` allows too.
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Kinds of volumes that are the pod's own or an object of the namespace.
const VOLUMES: [&str; 7] = [
    "configMap",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// The objects, to be applied server-side as often as one likes.
pub fn manifests() -> Vec<Value> {
    let subjects = json!([{"apiGroup": GROUP, "kind": "User", "name": LEGACY_API_USER}]);
    let bound = |kind: &str, role: &str, namespace: Option<&str>| {
        json!({
            "apiVersion": API,
            "kind": kind,
            "metadata": super::metadata(namespace, LEGACY_API_USER),
            "roleRef": {"apiGroup": GROUP, "kind": role, "name": LEGACY_API_USER},
            "subjects": subjects,
        })
    };
    vec![
        json!({
            "apiVersion": API,
            "kind": "Role",
            "metadata": super::metadata(Some(NAMESPACE), LEGACY_API_USER),
            "rules": rules(),
        }),
        bound("RoleBinding", "Role", Some(NAMESPACE)),
        json!({
            "apiVersion": API,
            "kind": "ClusterRole",
            "metadata": super::metadata(None, LEGACY_API_USER),
            "rules": [rule("", &["nodes"], &["get", "list", "watch"])],
        }),
        bound("ClusterRoleBinding", "ClusterRole", None),
        policy("pods", &pod_validations("object.spec")),
        policy_binding("pods"),
        policy(
            "replicationcontrollers",
            &pod_validations("object.spec.template.spec"),
        ),
        policy_binding("replicationcontrollers"),
        policy("services", &service_validations()),
        policy_binding("services"),
    ]
}

fn rules() -> Vec<Value> {
    vec![
        rule(
            "",
            &["pods", "replicationcontrollers", "services"],
            &[
                "get", "list", "watch", "create", "update", "patch", "delete",
            ],
        ),
        rule("", &["pods/log"], &["get"]),
        rule(
            "",
            &["pods/status", "replicationcontrollers/status"],
            &["get"],
        ),
        rule("", &["endpoints", "events"], &["get", "list", "watch"]),
    ]
}

fn policy_name(resource: &str) -> String {
    format!("legacy-api-{resource}.k8s.mesosphere.io")
}

/// A policy for what this one user writes of a kind.
fn policy(resource: &str, validations: &[Value]) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": policy_name(resource)},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "operations": ["CREATE", "UPDATE"],
                "resources": [resource],
            }]},
            "matchConditions": [{
                "name": "legacy-api",
                "expression": format!("request.userInfo.username == '{LEGACY_API_USER}'"),
            }],
            "validations": validations,
        },
    })
}

fn policy_binding(resource: &str) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": policy_name(resource)},
        "spec": {"policyName": policy_name(resource), "validationActions": ["Deny"]},
    })
}

fn validation(expression: String, what: &str) -> Value {
    json!({
        "expression": expression,
        "message": format!("through localhost:8080 {what}; a kubeconfig with rights of its own may do more"),
        "reason": "Forbidden",
    })
}

/// What a pod's specification at `spec` must be. Fields that are not there are what they default
/// to, so each is asked for before it is looked at.
fn pod_validations(spec: &str) -> Vec<Value> {
    // All containers, each with a condition on `c`.
    let each = |condition: &str| {
        format!(
            "{spec}.containers.all(c, {condition}) && (!has({spec}.initContainers) || {spec}.initContainers.all(c, {condition}))"
        )
    };
    // A condition on a field of the container's security context, true without one.
    let secure = |field: &str, condition: &str| {
        each(&format!(
            "!has(c.securityContext) || !has(c.securityContext.{field}) || {condition}"
        ))
    };
    // The same on the pod's.
    let pod_wide = |field: &str, condition: &str| {
        format!(
            "!has({spec}.securityContext) || !has({spec}.securityContext.{field}) || {condition}"
        )
    };
    let not_set = |field: &str| format!("(!has({spec}.{field}) || {spec}.{field} == false)");
    let capabilities = CAPABILITIES.map(|c| format!("'{c}'")).join(", ");
    let volumes = VOLUMES.map(|kind| format!("has(v.{kind})")).join(" || ");
    let confined = |profile: &str| format!("{profile}.type != 'Unconfined'");
    vec![
        validation(
            [
                not_set("hostNetwork"),
                not_set("hostPID"),
                not_set("hostIPC"),
            ]
            .join(" && "),
            "no pod is in the host's namespaces",
        ),
        validation(
            secure("privileged", "c.securityContext.privileged == false"),
            "no container is privileged",
        ),
        validation(
            secure(
                "capabilities",
                &format!(
                    "!has(c.securityContext.capabilities.add) || c.securityContext.capabilities.add.all(n, n in [{capabilities}])"
                ),
            ),
            "containers add no capabilities but those that they have anyway",
        ),
        validation(
            secure("procMount", "c.securityContext.procMount == 'Default'"),
            "no container sees an unmasked /proc",
        ),
        validation(
            format!(
                "({}) && ({}) && ({}) && ({})",
                secure(
                    "seccompProfile",
                    &confined("c.securityContext.seccompProfile")
                ),
                secure(
                    "appArmorProfile",
                    &confined("c.securityContext.appArmorProfile")
                ),
                pod_wide(
                    "seccompProfile",
                    &confined(&format!("{spec}.securityContext.seccompProfile"))
                ),
                pod_wide(
                    "appArmorProfile",
                    &confined(&format!("{spec}.securityContext.appArmorProfile"))
                ),
            ),
            "no container runs unconfined",
        ),
        validation(
            format!(
                "({}) && ({})",
                secure("seLinuxOptions", "false"),
                pod_wide("seLinuxOptions", "false"),
            ),
            "SELinux' labels are not chosen",
        ),
        validation(
            pod_wide(
                "sysctls",
                &format!("size({spec}.securityContext.sysctls) == 0"),
            ),
            "no kernel parameters are set",
        ),
        validation(
            format!("!has({spec}.volumes) || {spec}.volumes.all(v, {volumes})"),
            "volumes are the pod's own or objects of the namespace, no host paths",
        ),
        validation(
            each(
                "!has(c.ports) || c.ports.all(p, !has(p.hostIP) || !(p.hostIP.startsWith('127.') || p.hostIP == '::1'))",
            ),
            "host ports are not on loopback, where this port and others are",
        ),
        validation(
            each(&own_host()),
            "probes and hooks, which the node carries out, ask the pod itself",
        ),
        validation(
            format!(
                "!has({spec}.serviceAccountName) || {spec}.serviceAccountName in ['', 'default']"
            ),
            "pods have the service account `default`",
        ),
        validation(
            format!(
                "(!has({spec}.priorityClassName) || {spec}.priorityClassName == '') && (!has({spec}.priority) || {spec}.priority <= 0)"
            ),
            "no pod comes before others",
        ),
    ]
}

/// No probe and no hook of a container `c` names a host.
fn own_host() -> String {
    let places = [
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle.postStart",
        "lifecycle.preStop",
    ];
    let conditions: Vec<String> = places
        .iter()
        .flat_map(|place| ["httpGet", "tcpSocket"].map(|action| format!("{place}.{action}.host")))
        .map(|field| {
            // Each step of the path may be missing.
            let mut path = "c".to_owned();
            let missing: Vec<String> = field
                .split('.')
                .map(|step| {
                    path = format!("{path}.{step}");
                    format!("!has({path})")
                })
                .collect();
            format!("({} || c.{field} == '')", missing.join(" || "))
        })
        .collect();
    conditions.join(" && ")
}

fn service_validations() -> Vec<Value> {
    vec![
        validation(
            "!has(object.spec.externalIPs) || size(object.spec.externalIPs) == 0".to_owned(),
            "services take no addresses of others (externalIPs, publicIPs)",
        ),
        validation(
            "!has(object.spec.type) || object.spec.type == 'ClusterIP'".to_owned(),
            "services have an address in the cluster only",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limited_identity_is_as_documented() {
        let text: String = manifests()
            .iter()
            .map(|object| format!("---\n{}", crate::yaml(object)))
            .collect();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn it_reaches_into_no_pod_and_reads_no_secret() {
        let text = json!(rules()).to_string();
        for word in [
            "exec",
            "attach",
            "portforward",
            "proxy",
            "secrets",
            "*",
            "apps",
        ] {
            assert!(!text.contains(word), "{word}");
        }
    }
}
