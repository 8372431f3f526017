//! Tasks as the executor keeps them.

use std::fmt;
use std::time::Duration;

use mesos::pb;
use seam::node::NodeConfig;
use seam::pod::PodTask;

use super::event::Millis;
use super::{DELETE_REPEAT, EVICT_REPEAT};
use crate::report::{PodRef, Removal};

/// A Mesos task id.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct TaskId(pub String);

impl TaskId {
    /// The id of a TaskInfo.
    pub fn of(task: &pb::TaskInfo) -> Self {
        Self(task.task_id.value.clone())
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The node task.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct NodeTask {
    /// Its id.
    pub id: TaskId,
    /// Its data.
    pub config: NodeConfig,
    /// What it was granted; the node's own processes get their CPU weight from it.
    pub grant: Grant,
    /// It was killed; it ends once no pod is left.
    pub killed: bool,
}

/// What Mesos granted to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Grant {
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    /// Bytes; `None`: no limit.
    pub memory_limit: Option<u64>,
}

impl Grant {
    /// Adds a task's resources up. A limit in `TaskInfo.limits` wins over the resource.
    pub fn of(task: &pb::TaskInfo) -> Self {
        let sum = |name: &str| -> f64 {
            task.resources
                .iter()
                .filter(|r| r.name == name)
                .filter_map(|r| r.scalar.as_ref())
                .map(|s| s.value)
                .filter(|v| v.is_finite() && *v > 0.0)
                .sum()
        };
        let mib = match task.limits.get("mem") {
            Some(limit) if limit.value.is_infinite() && limit.value > 0.0 => None,
            Some(limit) if limit.value > 0.0 => Some(limit.value),
            _ => Some(sum("mem")),
        };
        Self {
            cpu_millis: (sum("cpus") * 1000.0).round() as u64,
            memory_limit: mib.map(|mib| (mib * 1024.0 * 1024.0).round() as u64),
        }
    }
}

/// The life of a pod's task.
///
/// ```text
/// Waiting --node Ready--> Starting --pod phase Running--> Running
///   Waiting, Starting (no pod seen) --KILL--> done: TASK_KILLED
///   Starting, Running --pod ended or gone, in kubelet's view--> Emptying --cgroup empty--> done
/// ```
/// KILL of a bound pod ends the pod through the API and goes the ordinary way ([`KillRequest`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum PodState {
    /// Until the node is Ready; then TASK_STARTING is sent.
    Waiting,
    /// TASK_STARTING is sent; the framework may bind the pod.
    Starting,
    /// TASK_RUNNING is sent.
    Running,
    /// kubelet says that the pod has ended; its processes are still to go.
    Emptying,
}

/// A pod's task.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PodTaskState {
    /// Which pod.
    pub pod: PodRef,
    /// Where it stands.
    pub state: PodState,
    /// What it was granted.
    pub grant: Grant,
    /// When it came, or, in `Emptying`, when kubelet's word came.
    pub since: Millis,
    /// KILL came.
    pub kill: Option<KillRequest>,
    /// The readiness that was last reported.
    pub healthy: Option<bool>,
    /// In `Emptying`: how it ended.
    pub outcome: Option<super::updates::Status>,
    /// In `Emptying`: people were told that it takes long.
    pub told: bool,
}

/// A KILL that is under way.
///
/// Who drains an agent says in the KILL's policy how long that may take. For so long the pod is
/// evicted, which its disruption budget may refuse; then it is deleted. Either way it gets its own
/// grace, but no longer a one than the policy's. A KILL without a policy is a decision of the
/// framework's, which has asked the budgets where they are to be asked: it deletes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KillRequest {
    /// From the KILL's policy.
    pub grace: Option<Duration>,
    /// When the API was asked last; `None` if not yet.
    pub asked: Option<Millis>,
    /// Until then disruption budgets hold; `None`: they do not.
    #[serde(default)]
    pub budgets_until: Option<Millis>,
    /// People were told that a budget holds the pod back.
    #[serde(default)]
    pub told: bool,
}

impl KillRequest {
    /// A KILL that came at `now` with the grace of its policy.
    pub fn new(now: Millis, grace: Option<Duration>) -> Self {
        let until = |grace: Duration| {
            let millis = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
            now.after(Millis(millis))
        };
        Self {
            grace,
            asked: None,
            budgets_until: grace.map(until),
            told: false,
        }
    }

    /// Another KILL for the same task: one whose policy leaves less time counts, as an operator
    /// who drains again in a hurry wants it. One without a policy says nothing new.
    pub fn again(&mut self, now: Millis, grace: Option<Duration>) {
        let other = Self::new(now, grace);
        if let (Some(new), Some(old)) = (other.budgets_until, self.budgets_until)
            && new < old
        {
            *self = Self {
                told: self.told,
                ..other
            };
        }
    }

    /// How the pod is to be ended now.
    pub fn removal(&self, now: Millis) -> Removal {
        match self.budgets_until {
            Some(until) if now < until => Removal::Evict,
            _ => Removal::Delete,
        }
    }

    /// Whether the API is to be asked now.
    pub fn is_due(&self, now: Millis) -> bool {
        let Some(asked) = self.asked else { return true };
        let repeat = match self.removal(now) {
            Removal::Evict => EVICT_REPEAT,
            // The time for budgets is over.
            Removal::Delete if self.removal(asked) == Removal::Evict => return true,
            Removal::Delete => DELETE_REPEAT,
        };
        now.since(asked) >= repeat
    }

    /// What a pod with a grace of its own gets; `None` is its own.
    pub fn grace_for(&self, own: Option<Duration>) -> Option<Duration> {
        let grace = self.grace?;
        Some(own.map_or(grace, |own| own.min(grace)))
    }
}

impl PodTaskState {
    /// A task that has just come.
    pub fn new(now: Millis, data: PodTask, grant: Grant) -> Self {
        Self {
            pod: PodRef {
                namespace: data.namespace,
                name: data.name,
                uid: data.uid,
            },
            state: PodState::Waiting,
            grant,
            since: now,
            kill: None,
            healthy: None,
            outcome: None,
            told: false,
        }
    }
}
