//! The Binding: the one commit point of a placement.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status};
use kube::api::PostParams;
use kube::{Api, Client};

use super::api::{ApiError, call, unless_missing};

/// A pod, as an effect needs to know it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodRef {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`: a later pod of the same name is another one.
    pub uid: String,
}

impl PodRef {
    /// The reference to a pod; `None` for an object that has no name or uid.
    pub fn of(pod: &Pod) -> Option<Self> {
        Some(Self {
            namespace: pod.metadata.namespace.clone()?,
            name: pod.metadata.name.clone()?,
            uid: pod.metadata.uid.clone()?,
        })
    }

    pub(super) fn api(&self, client: &Client) -> Api<Pod> {
        Api::namespaced(client.clone(), &self.namespace)
    }
}

impl std::fmt::Display for PodRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What became of a Binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// The pod is bound to the node.
    Now,
    /// It was bound to the node before, for instance by this framework before it was restarted.
    Before,
    /// It is bound to another node: the task that was made for it must be killed.
    Elsewhere {
        /// That node.
        node: String,
    },
    /// It is gone or being deleted: the task must be killed.
    Gone,
}

/// Binds a pod to a node. The annotations become the pod's.
pub async fn bind(
    client: &Client,
    pod: &PodRef,
    node: &str,
    annotations: &BTreeMap<String, String>,
) -> Result<Bound, ApiError> {
    let api = pod.api(client);
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(pod.name.clone()),
            namespace: Some(pod.namespace.clone()),
            uid: Some(pod.uid.clone()),
            annotations: Some(annotations.clone()),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let params = PostParams::default();
    let posted = call::<Status>(
        || format!("bind pod {pod} to node {node}"),
        api.create_subresource("binding", &pod.name, &params, &binding),
    )
    .await;
    let conflict = match posted {
        Ok(_) => return Ok(Bound::Now),
        Err(ApiError::NotFound { .. }) => return Ok(Bound::Gone),
        Err(error @ ApiError::Conflict { .. }) => error,
        Err(error) => return Err(error),
    };
    let read = call(|| format!("read pod {pod}"), api.get(&pod.name)).await;
    match outcome(unless_missing(read)?.as_ref(), pod, node) {
        Some(outcome) => Ok(outcome),
        // Neither bound nor deleted: gated, or changed while we looked.
        None => Err(conflict),
    }
}

/// What a pod that could not be bound says about why.
fn outcome(current: Option<&Pod>, pod: &PodRef, node: &str) -> Option<Bound> {
    let Some(current) = current.filter(|c| c.metadata.uid.as_deref() == Some(&pod.uid)) else {
        return Some(Bound::Gone);
    };
    let bound_to = current.spec.as_ref().and_then(|s| s.node_name.as_deref());
    match bound_to.filter(|name| !name.is_empty()) {
        Some(name) if name == node => Some(Bound::Before),
        Some(name) => Some(Bound::Elsewhere {
            node: name.to_owned(),
        }),
        None if current.metadata.deletion_timestamp.is_some() => Some(Bound::Gone),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refused_binding_is_explained_by_the_pod() {
        let reference = PodRef {
            namespace: "ns".into(),
            name: "p".into(),
            uid: "u1".into(),
        };
        let pod = |value| serde_json::from_value::<Pod>(value).unwrap();
        let cases = [
            (None, Some(Bound::Gone)),
            (Some(json!({"metadata": {"uid": "u2"}})), Some(Bound::Gone)),
            (
                Some(
                    json!({"metadata": {"uid": "u1"}, "spec": {"containers": [], "nodeName": "n1"}}),
                ),
                Some(Bound::Before),
            ),
            (
                Some(
                    json!({"metadata": {"uid": "u1"}, "spec": {"containers": [], "nodeName": "n2"}}),
                ),
                Some(Bound::Elsewhere { node: "n2".into() }),
            ),
            (
                Some(
                    json!({"metadata": {"uid": "u1", "deletionTimestamp": "2026-11-21T10:00:00Z"}}),
                ),
                Some(Bound::Gone),
            ),
            (Some(json!({"metadata": {"uid": "u1"}})), None),
        ];
        for (current, expected) in cases {
            let current = current.map(pod);
            assert_eq!(
                outcome(current.as_ref(), &reference, "n1"),
                expected,
                "{current:?}"
            );
        }
    }
}
