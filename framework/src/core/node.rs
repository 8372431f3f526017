//! Nodes and agents.
//!
//! A node is the Kubernetes face of one Mesos agent: a Node object, an executor, and the node
//! task that keeps the executor alive. One executor's time is a *life* of the node.
//!
//! ```text
//!                 pods or nodes.min want it
//!   (no node) ------------------------------> ObjectWanted --prepared--> AwaitingPodCidr
//!       ^  ^                                       |  ^                        | pod range known
//!       |  |         the object stays              |  |                        v
//!       |  +--object deleted-- Offline <--timeout--+  +--- wanted again   AwaitingOffer
//!       |                         ^                                            | ACCEPT
//!       |                         | all its pods are terminal or gone          v
//!       |                      Clearing <--proven dead-- any of the five <- Launching
//!       |                         ^                                            | STARTING
//!       |                         |                                            v
//!       |                      Draining <--idle, or the object is deleted-- Starting
//!       |                                                                      | RUNNING
//!       |                                                                      v
//!       +---- object deleted by the operator --- Unreachable <-- lost --->   Ready
//! ```
//!
//! Rules that keep a pod from running twice: no new life begins before `Clearing` is over, that is
//! before every pod bound to the earlier life is terminal or deleted; `Unreachable` proves
//! nothing, so nothing is relaunched there and node heartbeats decide about its pods.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;
use mesos::pb;

use crate::placement::Capacity;

use super::evacuation::Evacuation;
use super::ids::{AgentId, ExecutorId, NodeName, PodUid, Role, TaskId, Time};
use super::maintenance::Unavailability;
use super::pool::{Amounts, Grant};

/// A Mesos agent.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// Its host name, as Mesos shows it.
    pub hostname: Arc<str>,
    /// Its address, from offers or from the agent's pid. Without one it cannot be a node.
    pub ip: Option<IpAddr>,
    /// What its node's labels will be, from attributes and domain.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Attributes that cannot be labels, one sentence each.
    pub label_problems: Arc<[String]>,
    /// Everything that it has and that our roles may use; zero until the operator API told.
    pub total: Amounts,
    /// Whether tasks may have limits (agent capability TASK_RESOURCE_LIMITS).
    pub takes_limits: bool,
    /// Whether the master counts it as active.
    pub active: bool,
    /// Whether an operator drains it.
    pub draining: bool,
    /// Its next planned outage, and when Mesos last spoke of it.
    pub unavailable: Option<(Unavailability, Time)>,
    /// The most that was offered and declined, for the reasons in FailedScheduling, and to tell
    /// news from offers that return.
    pub declined: BTreeMap<Role, Declined>,
    /// Nodes failed to start on it: no new attempt before this.
    pub not_before: Time,
    /// How many starts have failed in a row.
    pub failures: u32,
    /// Executors of ours on it, as its latest offer listed them.
    pub executors: Vec<ExecutorId>,
    /// Whether it was reported that it has no address.
    pub told_without_address: bool,
}

/// What was given back to Mesos.
#[derive(Debug, Clone)]
pub struct Declined {
    /// The resources.
    pub pool: super::pool::Pool,
    /// When.
    pub at: Time,
}

impl Agent {
    /// An agent of which nothing is known but the id.
    pub fn new(id: AgentId, hostname: Arc<str>) -> Self {
        Self {
            id,
            hostname,
            ip: None,
            labels: Arc::default(),
            label_problems: Arc::default(),
            total: Amounts::default(),
            takes_limits: false,
            active: true,
            draining: false,
            unavailable: None,
            declined: BTreeMap::new(),
            not_before: Time(0),
            failures: 0,
            executors: Vec::new(),
            told_without_address: false,
        }
    }

    /// Its total in Kubernetes' units.
    pub fn capacity(&self) -> Capacity {
        Capacity {
            cpu_millis: self.total.cpus,
            memory_bytes: bytes(self.total.mem),
            disk_bytes: bytes(self.total.disk),
            gpus: u32::try_from(self.total.gpus / super::pool::UNIT).unwrap_or(u32::MAX),
        }
    }

    /// After a failed start: 1 s, doubling to 10 min, before the next.
    pub fn failed_to_start(&mut self, now: Time) {
        let wait = Duration::from_secs((1u64 << self.failures.min(10)).min(600));
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + wait;
    }
}

/// Thousandths of a MiB in bytes, rounded down.
pub fn bytes(mib_thousandths: u64) -> u64 {
    let bytes = u128::from(mib_thousandths) * u128::from(crate::resources::MIB) / 1000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// What the operator API says about an agent.
#[derive(Debug, Clone)]
pub struct AgentReport {
    /// Its id.
    pub id: AgentId,
    /// Its host name.
    pub hostname: Arc<str>,
    /// Its address.
    pub ip: Option<IpAddr>,
    /// Attributes.
    pub attributes: Vec<pb::Attribute>,
    /// Fault domain.
    pub domain: Option<pb::DomainInfo>,
    /// All that our roles may use.
    pub total: Amounts,
    /// TASK_RESOURCE_LIMITS.
    pub takes_limits: bool,
    /// Whether it is registered and active.
    pub active: bool,
    /// Whether an operator drains it, or has drained it and not brought it back.
    pub draining: bool,
}

/// A Node object as the API server has it.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeView {
    /// Its name.
    pub name: NodeName,
    /// `metadata.uid`.
    pub uid: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints.
    pub taints: Vec<Taint>,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// `spec.podCIDR`.
    pub pod_cidr: Option<String>,
    /// Allocatable amounts of what Mesos does not know: huge pages and extended resources.
    pub other: BTreeMap<String, u64>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Annotation `k8s.mesosphere.io/drain`: it is to be emptied and given back; disruption
    /// budgets hold for so long.
    pub drain: Option<Duration>,
    /// Our annotations; `None` on nodes that are not ours.
    pub ours: Option<NodeNote>,
}

/// What the framework wrote on a Node about its present or last life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeNote {
    /// The agent.
    pub agent: AgentId,
    /// The executor.
    pub executor: ExecutorId,
    /// Its ExecutorInfo, protobuf, verbatim.
    pub executor_info: Arc<[u8]>,
    /// The node task.
    pub task: TaskId,
}

/// Where a node is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodePhase {
    /// Its object is being created or, for another life, annotated.
    ObjectWanted,
    /// The controller manager has yet to give it a pod range.
    AwaitingPodCidr,
    /// Ready to launch as soon as an offer has room for the node task.
    AwaitingOffer,
    /// The node task was in an ACCEPT.
    Launching,
    /// The executor has the node task; kubelet and the rest come up.
    Starting,
    /// The node is Ready.
    Ready,
    /// Mesos lost the agent. It may come back, with everything running.
    Unreachable,
    /// It is being given up: pods first, the node task last.
    Draining,
    /// Its executor is proven dead; pods that were bound to it are failed and deleted.
    Clearing,
    /// Only the object is left. May be launched again.
    Offline,
}

impl NodePhase {
    /// Whether pods may be launched onto it: they wait in their executor until it is Ready.
    pub fn takes_pods(self) -> bool {
        matches!(self, Self::Launching | Self::Starting | Self::Ready)
    }

    /// Whether it is on its way to its first ACCEPT.
    pub fn is_prepared_for(self) -> bool {
        matches!(
            self,
            Self::ObjectWanted | Self::AwaitingPodCidr | Self::AwaitingOffer
        )
    }
}

/// One executor's time.
#[derive(Debug, Clone, PartialEq)]
pub struct Life {
    /// What is on the Node's annotations.
    pub note: NodeNote,
    /// The bootstrap token, from when the object was prepared until the node task is launched.
    pub token: Option<Token>,
    /// Role whose offers carry it.
    pub role: Option<Role>,
}

/// A bootstrap token. Debug output leaves the secret out.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// A node of ours.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its agent.
    pub agent: AgentId,
    /// Where it is.
    pub phase: NodePhase,
    /// Since when.
    pub since: Time,
    /// The present life, or the last one.
    pub life: Option<Life>,
    /// The object, once the watch has shown it.
    pub object: Option<NodeView>,
    /// What is set aside for the node task and for pods that will be launched with it.
    pub plan: Plan,
    /// It is being emptied.
    pub evacuation: Option<Evacuation>,
    /// Since when it has had no pods but those of DaemonSets.
    pub idle_since: Option<Time>,
    /// Whether the object is to be deleted once the life is over.
    pub give_up: bool,
    /// Whether our taint for an unreachable agent is wanted.
    pub taint: bool,
    /// Whether the operator vouched for the agent's end.
    pub gone_by_operator: bool,
    /// Whether the executor's processes may have outlived it: its pods are not failed by us.
    pub unproven: bool,
    /// When a wanted effect on the object was last asked for; it is asked for again if the
    /// watch does not show it.
    pub asked: Time,
    /// The same, of the taint for an outage.
    pub asked_outage: Time,
}

/// What is set aside on held offers for a node that is being prepared.
#[derive(Debug, Default)]
pub struct Plan {
    /// The role whose offers are used.
    pub role: Option<Role>,
    /// The node task's resources and its ports.
    pub node: Option<(Grant, [u16; 4])>,
    /// Pods, in the order in which they were placed.
    pub pods: Vec<(PodUid, Grant, Vec<u16>)>,
}

impl Node {
    /// A node whose object was seen or is wanted.
    pub fn new(name: NodeName, agent: AgentId, phase: NodePhase, now: Time) -> Self {
        Self {
            name,
            agent,
            phase,
            since: now,
            life: None,
            object: None,
            plan: Plan::default(),
            evacuation: None,
            idle_since: None,
            give_up: false,
            taint: false,
            gone_by_operator: false,
            unproven: false,
            asked: Time(0),
            asked_outage: Time(0),
        }
    }

    /// Goes to another phase.
    pub fn enter(&mut self, phase: NodePhase, now: Time) {
        if self.phase != phase {
            self.phase = phase;
            self.since = now;
            self.idle_since = None;
            self.evacuation = None;
        }
    }

    /// The present life's task.
    pub fn task(&self) -> Option<&TaskId> {
        self.life.as_ref().map(|life| &life.note.task)
    }

    /// The pod range, once known.
    pub fn pod_cidr(&self) -> Option<&str> {
        self.object.as_ref()?.pod_cidr.as_deref()
    }
}
