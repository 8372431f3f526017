//! Pods as the watch of all pods reads them.
//!
//! Of a pod's four to ten thousand bytes the framework needs a few fields each time, and the whole
//! specification only once; managed fields and container statuses never. Reading just that costs
//! a fraction, and with ten thousand pods this is most of what the framework does.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A pod.
#[derive(Debug, Clone)]
pub struct SlimPod {
    /// Without managed fields, labels and finalizers.
    pub metadata: ObjectMeta,
    /// What changes in a specification, and what decides whose the pod is.
    pub head: SpecHead,
    /// `status.phase`.
    pub phase: Option<String>,
    spec: Box<RawValue>,
}

/// Some fields of a pod's specification.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SpecHead {
    /// `spec.nodeName`.
    pub node_name: Option<String>,
    /// `spec.priority`.
    pub priority: Option<i32>,
    /// `spec.schedulerName`.
    pub scheduler_name: Option<String>,
    scheduling_gates: Option<Vec<IgnoredAny>>,
}

impl SpecHead {
    /// Whether there are scheduling gates.
    pub fn is_gated(&self) -> bool {
        self.scheduling_gates
            .as_ref()
            .is_some_and(|gates| !gates.is_empty())
    }
}

impl SlimPod {
    /// The whole specification.
    pub fn spec(&self) -> Result<PodSpec, serde_json::Error> {
        serde_json::from_str(self.spec.get())
    }
}

#[derive(Deserialize)]
struct Wire {
    metadata: Metadata,
    spec: Box<RawValue>,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    phase: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

impl<'de> Deserialize<'de> for SlimPod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        let head = serde_json::from_str(wire.spec.get()).map_err(serde::de::Error::custom)?;
        let metadata = wire.metadata;
        Ok(Self {
            metadata: ObjectMeta {
                name: metadata.name,
                namespace: metadata.namespace,
                uid: metadata.uid,
                resource_version: metadata.resource_version,
                generation: metadata.generation,
                creation_timestamp: metadata.creation_timestamp,
                deletion_timestamp: metadata.deletion_timestamp,
                annotations: metadata.annotations,
                owner_references: metadata.owner_references,
                ..ObjectMeta::default()
            },
            head,
            phase: wire.status.phase,
            spec: wire.spec,
        })
    }
}

impl Resource for SlimPod {
    type DynamicType = ();
    type Scope = <Pod as Resource>::Scope;

    fn kind(_: &()) -> Cow<'_, str> {
        Pod::kind(&())
    }

    fn group(_: &()) -> Cow<'_, str> {
        Pod::group(&())
    }

    fn version(_: &()) -> Cow<'_, str> {
        Pod::version(&())
    }

    fn plural(_: &()) -> Cow<'_, str> {
        Pod::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::api::{ObjectList, WatchEvent};
    use serde_json::json;

    fn pod() -> serde_json::Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "default", "uid": "u", "generation": 2, "resourceVersion": "7",
                "creationTimestamp": "2026-11-21T10:00:00Z", "annotations": {"a": "b"}, "labels": {"app": "x"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "o", "controller": true}],
                "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {"f:containers": {}}}}]},
            "spec": {"nodeName": "n", "priority": 7, "schedulerName": "s", "schedulingGates": [{"name": "g"}],
                "containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Running", "containerStatuses": [{"name": "c", "unknown": [1, 2, {"deep": true}]}]},
        })
    }

    #[test]
    fn a_watch_and_a_listing_are_read_as_far_as_they_are_needed() {
        // The API server writes the type first.
        let line = format!(r#"{{"type":"MODIFIED","object":{}}}"#, pod());
        let Ok(WatchEvent::Modified(seen)) = serde_json::from_str::<WatchEvent<SlimPod>>(&line)
        else {
            panic!("not read: {line}");
        };
        assert_eq!(seen.metadata.uid.as_deref(), Some("u"));
        assert_eq!(seen.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(seen.metadata.managed_fields, None);
        assert_eq!(
            seen.metadata.owner_references.map(|owners| owners.len()),
            Some(1)
        );
        assert_eq!(seen.phase.as_deref(), Some("Running"));
        assert_eq!(seen.head.node_name.as_deref(), Some("n"));
        assert_eq!(seen.head.priority, Some(7));
        assert!(seen.head.is_gated());

        let list = json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "9"}, "items": [pod()]});
        let list: ObjectList<SlimPod> = serde_json::from_str(&list.to_string()).unwrap();
        assert_eq!(list.items[0].spec().unwrap().containers.len(), 1);
    }

    #[test]
    fn a_specification_that_cannot_be_read_says_where() {
        let mut odd = pod();
        odd["spec"]["priority"] = json!("high");
        let error = serde_json::from_str::<SlimPod>(&odd.to_string()).unwrap_err();
        assert!(error.to_string().contains("high"), "{error}");
    }
}
