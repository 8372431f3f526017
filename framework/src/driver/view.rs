//! Kubernetes objects as the core's views. Pods made from one template share what they have in
//! common, so that ten thousand pods cost what their differences cost.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};

use base64::Engine;
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};
use seam::names;

use crate::core::ids::{AgentId, ExecutorId, NodeName, PodUid, Role, TaskId, Time};
use crate::core::node::{NodeNote, NodeView};
use crate::core::pod::{PodPhase, PodTemplate, PodView};
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
    pub fn pod(&mut self, pod: &Pod) -> Option<PodView> {
        let meta = &pod.metadata;
        let spec = pod.spec.as_ref()?;
        let uid = PodUid::from(meta.uid.as_deref()?);
        let annotation = |key: &str| meta.annotations.as_ref().and_then(|a| a.get(key));
        let phase = match pod.status.as_ref().and_then(|s| s.phase.as_deref()) {
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
            None => self.template(&uid, meta.generation, spec, annotation(ROLES)),
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
            priority: spec.priority.unwrap_or(0),
            created: Time(u64::try_from(created).unwrap_or(0)),
            ours: spec.scheduler_name.as_deref() == Some(&self.scheduler_name),
            gated: spec
                .scheduling_gates
                .as_ref()
                .is_some_and(|g| !g.is_empty()),
            node: spec
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
        generation: Option<i64>,
        spec: &PodSpec,
        roles: Option<&String>,
    ) -> Arc<PodTemplate> {
        if let Some((known, template)) = self.known.get(uid)
            && generation.is_some()
            && *known == generation
        {
            return template.clone();
        }
        let template = self.intern(spec, roles);
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
        ours: note(),
    })
}
