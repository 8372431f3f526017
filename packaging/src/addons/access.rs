//! Who may do what beyond upstream's own bootstrap objects. No component is in `system:masters`.

use serde_json::Value;

use super::{cluster_role_binding, subject};
use crate::pki::plan::{ADMIN_GROUP, KONNECTIVITY_USER, KUBELET_CLIENT_USER};

/// Bindings for the certificates of [`crate::pki::plan`].
pub fn manifests() -> Vec<Value> {
    vec![
        cluster_role_binding(
            "k8sm:cluster-admins",
            "cluster-admin",
            &subject("Group", ADMIN_GROUP),
        ),
        cluster_role_binding(
            "system:k8sm:apiserver-kubelet-client",
            "system:kubelet-api-admin",
            &subject("User", KUBELET_CLIENT_USER),
        ),
        cluster_role_binding(
            "system:konnectivity-server",
            "system:auth-delegator",
            &subject("User", KONNECTIVITY_USER),
        ),
    ]
}
