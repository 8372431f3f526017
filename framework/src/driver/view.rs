//! Kubernetes objects as the core's views. Pods made from one template share what they have in
//! common, so that ten thousand pods cost what their differences cost.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};
use std::time::Duration;

use base64::Engine;
use k8s_openapi::api::core::v1::{Node, PodSpec};
use seam::names;

use crate::core::ids::{AgentId, ExecutorId, NodeName, PodUid, Role, TaskId, Time};
use crate::core::node::{NodeNote, NodeView};
use crate::core::pod::{PodPhase, PodTemplate, PodView};
use crate::kube::slim::SlimPod;
use crate::placement::{PodRequirements, unconsidered};
use crate::resources::{Accounting, PodDemand, Quantity};

/// Pod annotation: roles whose resources the pod may use, the preferred one first.
const ROLES: &str = "k8s.mesosphere.io/roles";

/// Makes views.
#[derive(Debug)]
pub struct Viewer {
    scheduler_name: String,
    roles: Vec<Role>,
    accounting: Accounting,
    /// What was made of a pod's spec; specs change seldom, statuses often.
    known: HashMap<PodUid, (Option<i64>, Arc<PodTemplate>)>,
    templates: HashMap<u64, Weak<PodTemplate>>,
    /// When dead templates are swept out.
    sweep_at: usize,
}

impl Viewer {
    /// For pods of this scheduler and a framework in these roles.
    pub fn new(scheduler_name: &str, roles: &[String], accounting: Accounting) -> Self {
        Self {
            scheduler_name: scheduler_name.to_owned(),
            roles: roles.iter().map(|r| Role::from(r.as_str())).collect(),
            accounting,
            known: HashMap::new(),
            templates: HashMap::new(),
            sweep_at: 1024,
        }
    }

    /// A pod; `None` for an object without uid or spec, which the API server never sends.
    pub fn pod(&mut self, pod: &SlimPod) -> Option<PodView> {
        let meta = &pod.metadata;
        let uid = PodUid::from(meta.uid.as_deref()?);
        let annotation = |key: &str| meta.annotations.as_ref().and_then(|a| a.get(key));
        let phase = match pod.phase.as_deref() {
            Some("Succeeded" | "Failed") => PodPhase::Terminal,
            Some("Running") => PodPhase::Running,
            _ => PodPhase::Pending,
        };
        let template = if phase == PodPhase::Terminal {
            self.known.remove(&uid).map(|(_, template)| template)
        } else {
            None
        };
        let template = match template {
            Some(template) => template,
            None => self.template(&uid, pod, annotation(ROLES)),
        };
        if phase == PodPhase::Terminal {
            self.known.remove(&uid);
        }
        let owner = meta
            .owner_references
            .iter()
            .flatten()
            .find(|o| o.controller == Some(true));
        let created = meta
            .creation_timestamp
            .as_ref()
            .map_or(0, |t| t.0.as_millisecond());
        Some(PodView {
            uid,
            namespace: meta.namespace.as_deref()?.into(),
            name: meta.name.as_deref()?.into(),
            priority: pod.head.priority.unwrap_or(0),
            created: Time(u64::try_from(created).unwrap_or(0)),
            ours: pod.head.scheduler_name.as_deref() == Some(&self.scheduler_name),
            gated: pod.head.is_gated(),
            node: pod
                .head
                .node_name
                .as_deref()
                .filter(|name| !name.is_empty())
                .map(NodeName::from),
            deleting: meta.deletion_timestamp.is_some(),
            phase,
            task: annotation(names::TASK_ID).map(|id| TaskId::from(id.as_str())),
            mirror: annotation("kubernetes.io/config.mirror").is_some(),
            daemon: owner.is_some_and(|o| o.kind == "DaemonSet"),
            template,
        })
    }

    /// Forgets a pod that is gone.
    pub fn forget(&mut self, uid: &PodUid) {
        self.known.remove(uid);
    }

    fn template(
        &mut self,
        uid: &PodUid,
        pod: &SlimPod,
        roles: Option<&String>,
    ) -> Arc<PodTemplate> {
        let generation = pod.metadata.generation;
        if let Some((known, template)) = self.known.get(uid)
            && generation.is_some()
            && *known == generation
        {
            return template.clone();
        }
        let template = match pod.spec() {
            Ok(spec) => self.intern(&spec, roles),
            Err(error) => Arc::new(PodTemplate::new(
                Err(format!("the pod's specification cannot be read: {error}")),
                None,
                Vec::new(),
            )),
        };
        self.known
            .insert(uid.clone(), (generation, template.clone()));
        template
    }

    fn intern(&mut self, spec: &PodSpec, roles: Option<&String>) -> Arc<PodTemplate> {
        let key = fingerprint(spec, roles);
        if let Some(template) = self.templates.get(&key).and_then(Weak::upgrade) {
            return template;
        }
        let template = Arc::new(self.make(spec, roles));
        self.templates.insert(key, Arc::downgrade(&template));
        if self.templates.len() > self.sweep_at {
            self.templates.retain(|_, t| t.strong_count() > 0);
            self.sweep_at = (self.templates.len() * 2).max(1024);
        }
        template
    }

    fn make(&self, spec: &PodSpec, roles: Option<&String>) -> PodTemplate {
        let demand = PodDemand::of_spec(spec, &self.accounting).map_err(|e| e.to_string());
        let mut requirements = demand.map(|demand| PodRequirements::of(spec, demand));
        let mut allowed = Vec::new();
        if let Some(text) = roles {
            for role in text.split(',').map(str::trim).filter(|r| !r.is_empty()) {
                let role = Role::from(role);
                if self.roles.contains(&role) && !allowed.contains(&role) {
                    allowed.push(role);
                }
            }
            if allowed.is_empty() && requirements.is_ok() {
                let ours: Vec<&str> = self.roles.iter().map(Role::as_str).collect();
                requirements = Err(format!(
                    "annotation {ROLES} names `{text}`, but this framework has the roles {}",
                    ours.join(", ")
                ));
            }
        }
        let unconsidered = unconsidered::sentence(&unconsidered::unconsidered(spec));
        PodTemplate::new(requirements, unconsidered, allowed)
    }
}

/// A digest of everything that a template is made of. 64 bits: among a million templates a collision has
/// a chance of one in ten million.
fn fingerprint(spec: &PodSpec, roles: Option<&String>) -> u64 {
    // Image names, commands and environments make no difference, so templates are few.
    let containers = |list: &[k8s_openapi::api::core::v1::Container]| {
        list.iter()
            .map(|c| {
                (
                    format!("{:?}", c.resources),
                    format!("{:?}", c.ports),
                    c.restart_policy.clone(),
                )
            })
            .collect::<Vec<_>>()
    };
    let volumes = spec
        .volumes
        .iter()
        .flatten()
        .any(|v| v.persistent_volume_claim.is_some() || v.ephemeral.is_some());
    let mut hasher = DefaultHasher::new();
    (
        containers(&spec.containers),
        containers(spec.init_containers.as_deref().unwrap_or_default()),
        format!("{:?}{:?}", spec.overhead, spec.resources),
        format!("{:?}{:?}", spec.node_selector, spec.affinity),
        format!("{:?}", spec.tolerations),
        (spec.host_network, &spec.node_name, volumes),
        format!(
            "{:?}{:?}",
            spec.topology_spread_constraints, spec.resource_claims
        ),
        (spec.priority, &spec.preemption_policy, roles),
    )
        .hash(&mut hasher);
    hasher.finish()
}

/// A node; `None` for an object without name.
pub fn node(node: &Node) -> Option<NodeView> {
    let meta = &node.metadata;
    let spec = node.spec.clone().unwrap_or_default();
    let annotation = |key: &str| meta.annotations.as_ref().and_then(|a| a.get(key)).cloned();
    let note = || {
        Some(NodeNote {
            agent: AgentId::from(annotation(names::AGENT_ID)?),
            executor: ExecutorId::from(annotation(names::EXECUTOR_ID)?),
            executor_info: base64::engine::general_purpose::STANDARD
                .decode(annotation(names::EXECUTOR_INFO)?)
                .ok()?
                .into(),
            task: TaskId::from(annotation(names::NODE_TASK_ID)?),
        })
    };
    let allocatable = node.status.as_ref().and_then(|s| s.allocatable.as_ref());
    let mesos_knows = |name: &str| {
        matches!(
            name,
            "cpu" | "memory" | "ephemeral-storage" | "pods" | "nvidia.com/gpu"
        )
    };
    let other: BTreeMap<String, u64> = allocatable
        .into_iter()
        .flatten()
        .filter(|(name, _)| !mesos_knows(name))
        .filter_map(|(name, quantity)| {
            let amount = Quantity::try_from(quantity).ok()?.units();
            (amount > 0).then(|| (name.clone(), amount))
        })
        .collect();
    Some(NodeView {
        name: NodeName::from(meta.name.as_deref()?),
        uid: meta.uid.clone().unwrap_or_default(),
        labels: meta.labels.clone().unwrap_or_default(),
        taints: spec.taints.unwrap_or_default(),
        unschedulable: spec.unschedulable.unwrap_or(false),
        pod_cidr: spec.pod_cidr.filter(|cidr| !cidr.is_empty()),
        other,
        deleting: meta.deletion_timestamp.is_some(),
        // An unreadable time is none: budgets then hold for good.
        drain: annotation(names::DRAIN)
            .map(|text| crate::config::duration(&text).unwrap_or(Duration::MAX)),
        ours: note(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn viewer() -> Viewer {
        let roles = ["k8s".to_owned(), "dev".to_owned()];
        Viewer::new("default-scheduler", &roles, Accounting::default())
    }

    fn pod(name: &str, change: impl FnOnce(&mut serde_json::Value)) -> SlimPod {
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"),
                         "generation": 1, "creationTimestamp": "2026-11-21T10:00:00Z"},
            "spec": {"schedulerName": "default-scheduler",
                     "containers": [{"name": "c", "image": format!("image-of-{name}")}]},
            "status": {"phase": "Pending"},
        });
        change(&mut pod);
        serde_json::from_str(&pod.to_string()).unwrap()
    }

    #[test]
    fn pods_that_ask_for_the_same_share_it() {
        let mut viewer = viewer();
        let one = viewer.pod(&pod("one", |_| {})).unwrap();
        let two = viewer.pod(&pod("two", |_| {})).unwrap();
        assert!(Arc::ptr_eq(&one.template, &two.template));
        let other = pod("three", |p| {
            p["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "2"}});
        });
        let other = viewer.pod(&other).unwrap();
        assert!(!Arc::ptr_eq(&one.template, &other.template));
        assert_eq!(other.template.amounts.cpus, 2000);
    }

    #[test]
    fn what_decides_about_a_pod_is_read() {
        let mut viewer = viewer();
        let view = viewer
            .pod(&pod("p", |p| {
                p["metadata"]["annotations"] = json!({
                    "k8s.mesosphere.io/task-id": "uid-p.00000001",
                    "k8s.mesosphere.io/roles": "dev, other ,k8s",
                });
                p["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "DaemonSet",
                    "name": "d", "uid": "u", "controller": true}]);
                p["spec"]["priority"] = json!(7);
                p["spec"]["schedulingGates"] = json!([{"name": "wait"}]);
                p["spec"]["nodeName"] = json!("n1");
            }))
            .unwrap();
        assert_eq!(view.task, Some("uid-p.00000001".into()));
        assert_eq!(view.node, Some("n1".into()));
        assert_eq!(view.priority, 7);
        assert!(view.gated && view.daemon && view.ours && !view.mirror);
        assert_eq!(view.template.roles, [Role::from("dev"), Role::from("k8s")]);
        assert_eq!(view.created, Time(1_795_255_200_000));
    }

    #[test]
    fn a_pod_that_cannot_be_placed_says_why() {
        let mut viewer = viewer();
        let foreign = viewer.pod(&pod("p", |p| {
            p["metadata"]["annotations"] = json!({"k8s.mesosphere.io/roles": "spark"});
        }));
        let error = foreign.unwrap().template.requirements.clone().unwrap_err();
        assert_eq!(
            error,
            "annotation k8s.mesosphere.io/roles names `spark`, but this framework has the roles k8s, dev"
        );
        let negative = viewer.pod(&pod("q", |p| {
            p["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "-1"}});
        }));
        assert!(negative.unwrap().template.requirements.is_err());
    }

    #[test]
    fn a_node_is_ours_by_its_complete_annotations() {
        let node = |annotations: serde_json::Value| -> Node {
            serde_json::from_value(json!({
                "metadata": {"name": "n1", "uid": "u", "annotations": annotations},
                "spec": {"podCIDR": "10.244.1.0/24", "unschedulable": true},
                "status": {"allocatable": {"cpu": "4", "hugepages-2Mi": "4Mi", "example.com/fpga": "2", "example.com/none": "0"}},
            }))
            .unwrap()
        };
        let complete = json!({
            names::AGENT_ID: "S1", names::EXECUTOR_ID: "e", names::EXECUTOR_INFO: "AQI=",
            names::NODE_TASK_ID: "node.n1.00000001",
        });
        let view = super::node(&node(complete)).unwrap();
        assert_eq!(view.ours.unwrap().executor_info[..], [1, 2]);
        assert_eq!(view.pod_cidr.as_deref(), Some("10.244.1.0/24"));
        assert!(view.unschedulable);
        let other: Vec<(&str, u64)> = view.other.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        assert_eq!(other, [("example.com/fpga", 2), ("hugepages-2Mi", 4 << 20)]);
        let half = json!({names::AGENT_ID: "S1", names::EXECUTOR_INFO: "not base64"});
        assert_eq!(super::node(&node(half)).unwrap().ours, None);
    }
}
