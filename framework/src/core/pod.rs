//! Pods, as far as decisions need them, and where each is on its way to a task.

use std::sync::Arc;

use crate::placement::PodRequirements;
use crate::resources::PodDemand;

use super::ids::{NodeName, PodUid, Role, TaskId, Time};
use super::pool::{Amounts, UNIT};
use super::preempt::Nomination;

/// `status.phase`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PodPhase {
    /// Pending, or not set yet.
    #[default]
    Pending,
    /// Running.
    Running,
    /// Succeeded or Failed: never runs again.
    Terminal,
}

/// What pods made from one template have in common; shared between them.
#[derive(Debug)]
pub struct PodTemplate {
    /// What the pod needs and where it may run, or why that cannot be known.
    pub requirements: Result<PodRequirements, String>,
    /// Its resources in Mesos' units.
    pub amounts: Amounts,
    /// What of its wishes is not considered, as a sentence for its events.
    pub unconsidered: Option<String>,
    /// Roles whose resources it may use, the preferred one first; empty: any role of ours.
    pub roles: Vec<Role>,
}

impl PodTemplate {
    /// Puts a template together.
    pub fn new(
        requirements: Result<PodRequirements, String>,
        unconsidered: Option<String>,
        roles: Vec<Role>,
    ) -> Self {
        let amounts = match &requirements {
            Ok(requirements) => amounts_of(&requirements.demand),
            Err(_) => Amounts::default(),
        };
        Self {
            requirements,
            amounts,
            unconsidered,
            roles,
        }
    }
}

/// A demand in thousandths of Mesos' units, whole MiB rounded up.
pub fn amounts_of(demand: &PodDemand) -> Amounts {
    let mib = |bytes: u64| bytes.div_ceil(crate::resources::MIB).saturating_mul(UNIT);
    Amounts {
        cpus: demand.cpu_millis,
        mem: mib(demand.memory_bytes),
        disk: mib(demand.disk_bytes),
        gpus: u64::from(demand.gpus) * UNIT,
    }
}

/// A pod as the API server has it.
#[derive(Debug, Clone)]
pub struct PodView {
    /// `metadata.uid`.
    pub uid: PodUid,
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `spec.priority`.
    pub priority: i32,
    /// `metadata.creationTimestamp`.
    pub created: Time,
    /// Whether `spec.schedulerName` is ours.
    pub ours: bool,
    /// Whether it still has scheduling gates.
    pub gated: bool,
    /// `spec.nodeName`.
    pub node: Option<NodeName>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// `status.phase`.
    pub phase: PodPhase,
    /// The task that it was bound with (annotation).
    pub task: Option<TaskId>,
    /// Whether kubelet made it from a file (mirror pod): its resources are the node's.
    pub mirror: bool,
    /// Whether a DaemonSet owns it: such pods do not keep a node from being idle.
    pub daemon: bool,
    /// The rest.
    pub template: Arc<PodTemplate>,
}

impl PodView {
    /// `<namespace>/<name>`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// Where a pod is on its way to a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// It has scheduling gates, or cannot be scheduled at all: nothing to do until it changes.
    Gated,
    /// In the scheduling queue.
    Queued,
    /// It did not fit anywhere; tried again then, or when resources appear.
    BackingOff(Time),
    /// Resources are set aside for it on a node that is being prepared.
    Planned(NodeName),
    /// It has a task.
    Tasked(TaskId),
    /// Bound to a node of ours without a task, since then: it gets one, or is evicted.
    Unaccounted(Time),
}

/// A pod and its stage.
#[derive(Debug)]
pub struct Pod {
    /// The pod as the API server has it.
    pub view: PodView,
    /// Where it is.
    pub stage: Stage,
    /// How often it did not fit, or failed to start, since it last ran or changed.
    pub failures: u32,
    /// When it came to us, or was last put into the queue.
    pub queued_at: Time,
    /// When the Binding may be tried again, after it failed.
    pub bind_after: Time,
    /// Where it waits for the end of pods of lower priority.
    pub nomination: Option<Nomination>,
}
