//! Node objects. The framework makes a Node before its executor is launched, with labels,
//! annotations and taints; kubelet then finds it and fills in its status.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSpec, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use seam::names::{ATTRIBUTE_LABEL, MANAGED_LABEL};
use serde_json::{Map, Value, json};

use super::api::{ApiError, call, unless_missing};
use crate::placement::attributes::{REGION, ZONE};
use crate::placement::names::NodeName;

/// How often an update is decided anew when others write the same Node meanwhile.
const ATTEMPTS: usize = 5;

/// What the framework says about a node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeRecord {
    /// Name of the node.
    pub name: NodeName,
    /// Labels: attributes, region and zone, and others. [`MANAGED_LABEL`] is added.
    pub labels: BTreeMap<String, String>,
    /// Annotations, as in `seam::names`.
    pub annotations: BTreeMap<String, String>,
    /// Taints of a new node; those of an existing one are left alone.
    pub taints: Vec<Taint>,
    /// `spec.providerID`, for instance `mesos://<agent id>`. Kubernetes lets it be set once.
    pub provider_id: String,
}

/// The labels that every node of this operating system and architecture has: kubelet sets them,
/// and pods select by them before a kubelet runs.
pub fn wellknown_labels(name: &NodeName) -> BTreeMap<String, String> {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    [
        ("kubernetes.io/hostname", name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
        (MANAGED_LABEL, "true"),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// What [`ensure`] found or did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ensured {
    /// The Node was made.
    Created,
    /// It was there and was changed.
    Updated,
    /// It was there as it should be.
    Unchanged,
}

/// The object for a new node.
pub fn object_for(record: &NodeRecord) -> Node {
    let mut labels = record.labels.clone();
    labels.insert(MANAGED_LABEL.to_owned(), "true".to_owned());
    Node {
        metadata: ObjectMeta {
            name: Some(record.name.to_string()),
            labels: Some(labels),
            annotations: Some(record.annotations.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            provider_id: Some(record.provider_id.clone()),
            taints: (!record.taints.is_empty()).then(|| record.taints.clone()),
            ..NodeSpec::default()
        }),
        status: None,
    }
}

/// The merge patch that makes an existing node what the record says; `None` where it is that
/// already. Labels that stand for attributes, regions and zones which the agent no longer has
/// are removed; everything else of others' is left alone.
pub fn patch_for(current: &Node, record: &NodeRecord) -> Option<Value> {
    let none = BTreeMap::new();
    let desired = object_for(record);
    let wanted = desired.metadata.labels.as_ref().unwrap_or(&none);
    let have = current.metadata.labels.as_ref().unwrap_or(&none);
    let ours = |key: &str| key.starts_with(ATTRIBUTE_LABEL) || key == REGION || key == ZONE;
    let mut labels = changes(have, wanted);
    for key in have.keys().filter(|k| ours(k) && !wanted.contains_key(*k)) {
        labels.insert(key.clone(), Value::Null);
    }
    let have = current.metadata.annotations.as_ref().unwrap_or(&none);
    let annotations = changes(have, &record.annotations);
    let without_provider = current
        .spec
        .as_ref()
        .and_then(|s| s.provider_id.as_deref())
        .unwrap_or("")
        .is_empty();

    let mut patch = Map::new();
    if !labels.is_empty() || !annotations.is_empty() {
        patch.insert(
            "metadata".into(),
            json!({"labels": labels, "annotations": annotations}),
        );
    }
    if without_provider && !record.provider_id.is_empty() {
        patch.insert("spec".into(), json!({"providerID": record.provider_id}));
    }
    (!patch.is_empty()).then(|| Value::Object(patch))
}

fn changes(
    have: &BTreeMap<String, String>,
    wanted: &BTreeMap<String, String>,
) -> Map<String, Value> {
    wanted
        .iter()
        .filter(|(key, value)| have.get(*key) != Some(value))
        .map(|(key, value)| (key.clone(), Value::String(value.clone())))
        .collect()
}

/// Makes the Node, or makes an existing one what the record says.
pub async fn ensure(client: &Client, record: &NodeRecord) -> Result<(Ensured, Node), ApiError> {
    let api: Api<Node> = Api::all(client.clone());
    let name = record.name.as_str();
    let object = object_for(record);
    let created = call(
        || format!("create node {name}"),
        api.create(&PostParams::default(), &object),
    )
    .await;
    match created {
        Ok(node) => return Ok((Ensured::Created, node)),
        Err(ApiError::Exists { .. }) => {}
        Err(error) => return Err(error),
    }
    let current = call(|| format!("read node {name}"), api.get(name)).await?;
    let Some(patch) = patch_for(&current, record) else {
        return Ok((Ensured::Unchanged, current));
    };
    let node = patch_node(&api, name, &patch).await?;
    Ok((Ensured::Updated, node))
}

/// Sets annotations, or removes those that are `None`. Missing nodes are no error.
pub async fn annotate(
    client: &Client,
    name: &str,
    annotations: &BTreeMap<String, Option<String>>,
) -> Result<Option<Node>, ApiError> {
    let api: Api<Node> = Api::all(client.clone());
    let patch = json!({"metadata": {"annotations": annotations}});
    unless_missing(patch_node(&api, name, &patch).await)
}

/// Adds and removes taints, told apart by key and effect. Says whether the Node was changed;
/// a missing node is not.
pub async fn change_taints(
    client: &Client,
    name: &str,
    add: &[Taint],
    remove: &[Taint],
) -> Result<bool, ApiError> {
    let api: Api<Node> = Api::all(client.clone());
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let read = call(|| format!("read node {name}"), api.get(name)).await;
        let Some(node) = unless_missing(read)? else {
            return Ok(false);
        };
        let current = node.spec.and_then(|s| s.taints).unwrap_or_default();
        let Some(taints) = with_changes(&current, add, remove) else {
            return Ok(false);
        };
        // The list is written as a whole, so only over the version that was read.
        let version = node.metadata.resource_version;
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"taints": taints}});
        match patch_node(&api, name, &patch).await {
            Ok(_) => return Ok(true),
            Err(error @ ApiError::Conflict { .. }) => last = Some(error),
            Err(ApiError::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| ApiError::Conflict {
        attempted: format!("change taints of node {name}"),
        message: "others write it all the time".to_owned(),
    }))
}

/// The taints after a change; `None` where nothing changes.
pub fn with_changes(current: &[Taint], add: &[Taint], remove: &[Taint]) -> Option<Vec<Taint>> {
    let same = |a: &Taint, b: &Taint| a.key == b.key && a.effect == b.effect;
    let mut taints: Vec<Taint> = current
        .iter()
        .filter(|taint| !remove.iter().any(|r| same(r, taint)))
        .cloned()
        .collect();
    for taint in add {
        match taints.iter_mut().find(|t| same(t, taint)) {
            Some(present) if present.value == taint.value => {}
            Some(present) => *present = taint.clone(),
            None => taints.push(taint.clone()),
        }
    }
    (taints != current).then_some(taints)
}

/// Cordons a node, or makes it schedulable again. Missing nodes are no error.
pub async fn cordon(client: &Client, name: &str, unschedulable: bool) -> Result<(), ApiError> {
    let api: Api<Node> = Api::all(client.clone());
    let patch = json!({"spec": {"unschedulable": unschedulable}});
    unless_missing(patch_node(&api, name, &patch).await).map(drop)
}

/// Deletes a Node, but only the one with this uid: a later one of the same name stays.
/// Says whether there was one.
pub async fn delete(client: &Client, name: &str, uid: &str) -> Result<bool, ApiError> {
    let api: Api<Node> = Api::all(client.clone());
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let deleted = call(|| format!("delete node {name}"), api.delete(name, &params)).await;
    match deleted {
        Ok(_) => Ok(true),
        // A conflict here is the precondition: the one we meant is gone.
        Err(ApiError::NotFound { .. } | ApiError::Conflict { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn patch_node(api: &Api<Node>, name: &str, patch: &Value) -> Result<Node, ApiError> {
    let params = PatchParams::default();
    call(
        || format!("patch node {name}"),
        api.patch(name, &params, &Patch::Merge(patch)),
    )
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> NodeRecord {
        NodeRecord {
            name: NodeName::parse("n1").unwrap(),
            labels: [(
                "k8s.mesosphere.io/attribute-rack".to_owned(),
                "r1".to_owned(),
            )]
            .into(),
            annotations: [("k8s.mesosphere.io/agent-id".to_owned(), "S1".to_owned())].into(),
            taints: Vec::new(),
            provider_id: "mesos://S1".to_owned(),
        }
    }

    fn taint(key: &str, effect: &str, value: &str) -> Taint {
        Taint {
            key: key.to_owned(),
            effect: effect.to_owned(),
            value: (!value.is_empty()).then(|| value.to_owned()),
            time_added: None,
        }
    }

    #[test]
    fn a_node_that_is_as_it_should_be_is_not_written() {
        assert_eq!(patch_for(&object_for(&record()), &record()), None);
    }

    #[test]
    fn the_patch_changes_what_is_ours_and_leaves_the_rest() {
        let mut node = object_for(&record());
        let labels = node.metadata.labels.as_mut().unwrap();
        labels.insert("k8s.mesosphere.io/attribute-old".to_owned(), "x".to_owned());
        labels.insert(ZONE.to_owned(), "z".to_owned());
        labels.insert("team".to_owned(), "a".to_owned());
        node.spec.as_mut().unwrap().provider_id = None;
        let mut new = record();
        new.annotations
            .insert("k8s.mesosphere.io/agent-id".to_owned(), "S2".to_owned());
        let patch = patch_for(&node, &new).unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&patch).unwrap(), @r#"
        {
          "metadata": {
            "labels": {
              "k8s.mesosphere.io/attribute-old": null,
              "topology.kubernetes.io/zone": null
            },
            "annotations": {
              "k8s.mesosphere.io/agent-id": "S2"
            }
          },
          "spec": {
            "providerID": "mesos://S1"
          }
        }
        "#);
    }

    #[test]
    fn taints_are_told_apart_by_key_and_effect() {
        let current = [taint("a", "NoSchedule", ""), taint("a", "NoExecute", "")];
        assert_eq!(with_changes(&current, &current, &[]), None);
        let removed = with_changes(&current, &[], &[taint("a", "NoSchedule", "any")]).unwrap();
        assert_eq!(removed, [taint("a", "NoExecute", "")]);
        let changed = with_changes(&current, &[taint("a", "NoSchedule", "v")], &[]).unwrap();
        assert_eq!(
            changed,
            [taint("a", "NoSchedule", "v"), taint("a", "NoExecute", "")]
        );
    }
}
