//! The task ledger: every Mesos task of ours that is not known to have ended.
//!
//! ```text
//! Launching --STARTING--> Starting --bind sent--> Binding --pod bound--> Bound --+
//!     |                      |                       |                    |      | agent lost / back
//!     |                      |                       |                    |   Unreachable
//!     +----------------------+-----------------------+--------------------+------+--> ended (forgotten)
//! ```
//!
//! A node's task skips the two middle states: it is `Bound` from TASK_RUNNING on.
//! Being killed is no state but an intention beside it: a KILL is repeated until the task ends,
//! because Mesos drops one whose executor is not subscribed at that moment.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use seam::id::TaskKind;

use super::ids::{AgentId, NodeName, PodUid, Role, TaskId, Time};

/// Where a task is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskPhase {
    /// An ACCEPT with it was sent (or Mesos says STAGING): its executor has not spoken yet.
    Launching,
    /// The executor has it and its node is Ready; for a pod, the Binding may be created.
    Starting,
    /// The Binding is on its way to the API server, outcome unknown.
    Binding,
    /// The pod is bound to the task's node; for a node task: the node runs.
    Bound,
    /// Mesos cannot reach the agent. The task may be running.
    Unreachable,
}

/// The intention to end a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kill {
    /// Why, for logs.
    pub reason: &'static str,
    /// When KILL is sent again.
    pub next: Time,
    /// How often it was sent.
    pub sent: u32,
}

impl Kill {
    /// How long to wait for the terminal update before KILL number `sent + 1`: 5 s, doubling to 60 s.
    pub fn wait(sent: u32) -> Duration {
        Duration::from_secs(5u64.saturating_mul(1 << sent.min(4)).min(60))
    }
}

/// One task.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Its agent.
    pub agent: AgentId,
    /// The node that it runs on.
    pub node: NodeName,
    /// The pod that it accounts for; `None` for the node's own task.
    pub pod: Option<PodUid>,
    /// Where it is in its life.
    pub phase: TaskPhase,
    /// Since when.
    pub since: Time,
    /// Host ports that this task holds in Mesos; `None` for one of an earlier process until Mesos
    /// has told (`ports`).
    pub ports: Option<Box<[u16]>>,
    /// Whether it is to end.
    pub kill: Option<Kill>,
    /// When Mesos last said something about it; an implicit reconciliation that does not mention
    /// a task asks for it by name.
    pub heard: Time,
    /// The last update's uuid: Mesos repeats updates.
    pub last_update: Option<[u8; 16]>,
    /// Role whose offer it was launched with; unknown after a restart.
    pub role: Option<Role>,
    /// Whether it only holds ports for a pod that has another task.
    pub extra: bool,
}

impl Task {
    /// Whether this task holds the port, for all that is known.
    pub fn holds(&self, port: u16) -> bool {
        self.ports
            .as_ref()
            .is_some_and(|ports| ports.contains(&port))
    }
}

/// All tasks.
#[derive(Debug, Default)]
pub struct Ledger {
    tasks: BTreeMap<TaskId, Task>,
    by_node: BTreeMap<NodeName, BTreeSet<TaskId>>,
    /// Updates of tasks that have ended, so that a repeated one is known as such. Bounded.
    ended: BTreeMap<u64, TaskId>,
    ended_ids: HashMap<TaskId, u64>,
    next_ended: u64,
}

/// How many ended tasks are remembered. A repeated terminal update of a task that was forgotten
/// is harmless; it is only acknowledged once more.
const REMEMBERED: usize = 4096;

impl Ledger {
    /// Adds a task.
    pub fn insert(&mut self, task: Task) {
        self.by_node
            .entry(task.node.clone())
            .or_default()
            .insert(task.id.clone());
        self.tasks.insert(task.id.clone(), task);
    }

    /// Looks a task up.
    pub fn get(&self, id: &TaskId) -> Option<&Task> {
        self.tasks.get(id)
    }

    /// Looks a task up to change it.
    pub fn get_mut(&mut self, id: &TaskId) -> Option<&mut Task> {
        self.tasks.get_mut(id)
    }

    /// Forgets a task that has ended.
    pub fn end(&mut self, id: &TaskId) -> Option<Task> {
        let task = self.tasks.remove(id)?;
        if let Some(of_node) = self.by_node.get_mut(&task.node) {
            of_node.remove(id);
            if of_node.is_empty() {
                self.by_node.remove(&task.node);
            }
        }
        self.ended.insert(self.next_ended, id.clone());
        self.ended_ids.insert(id.clone(), self.next_ended);
        self.next_ended += 1;
        while self.ended.len() > REMEMBERED {
            if let Some((_, old)) = self.ended.pop_first() {
                self.ended_ids.remove(&old);
            }
        }
        Some(task)
    }

    /// Whether the task is known to have ended.
    pub fn has_ended(&self, id: &TaskId) -> bool {
        self.ended_ids.contains_key(id)
    }

    /// Tasks of a node, its own included.
    pub fn of_node(&self, node: &NodeName) -> impl Iterator<Item = &Task> {
        self.by_node
            .get(node)
            .into_iter()
            .flatten()
            .filter_map(|id| self.tasks.get(id))
    }

    /// How many pods' tasks a node has.
    pub fn pods_of_node(&self, node: &NodeName) -> usize {
        self.of_node(node).filter(|t| t.pod.is_some()).count()
    }

    /// Whether some task of the node holds the port in Mesos.
    pub fn holds_port(&self, node: &NodeName, port: u16) -> bool {
        self.of_node(node).any(|t| t.holds(port))
    }

    /// All tasks.
    pub fn iter(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}

/// What a task id stands for, when it is one of ours.
pub fn kind_of(id: &TaskId) -> Option<TaskKind> {
    TaskKind::parse(id.as_str()).ok()
}

/// A task's state as Mesos tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MesosState {
    /// TASK_STAGING.
    Staging,
    /// TASK_STARTING.
    Starting,
    /// TASK_RUNNING.
    Running,
    /// TASK_KILLING.
    Killing,
    /// TASK_FINISHED, FAILED, KILLED, GONE: it ran, or was delivered, and runs no more.
    Ended(End),
    /// TASK_UNREACHABLE, TASK_LOST, and TASK_UNKNOWN: nobody knows.
    Unreachable,
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its executor said so, or the agent saw the executor's container end.
    Proven(Outcome),
    /// The agent says that the executor ended, but also that it could not destroy its container:
    /// processes may be left.
    Unproven,
    /// TASK_DROPPED or TASK_ERROR: it was never started.
    NeverStarted,
    /// TASK_GONE_BY_OPERATOR: the operator vouches for the agent's end.
    GoneByOperator,
}

/// What the terminal state said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// TASK_FINISHED.
    Finished,
    /// TASK_FAILED.
    Failed,
    /// TASK_KILLED.
    Killed,
    /// TASK_GONE.
    Gone,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_repeated_with_growing_waits_of_at_most_a_minute() {
        let waits: Vec<u64> = (0..7).map(|n| Kill::wait(n).as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 60, 60, 60]);
    }

    #[test]
    fn the_memory_of_ended_tasks_is_bounded() {
        let mut ledger = Ledger::default();
        for n in 0..REMEMBERED + 10 {
            let id = TaskId::from(format!("pod-{n}.00000000"));
            ledger.insert(Task {
                id: id.clone(),
                agent: "a".into(),
                node: "n".into(),
                pod: Some("p".into()),
                phase: TaskPhase::Launching,
                since: Time(0),
                ports: None,
                kill: None,
                heard: Time(0),
                last_update: None,
                role: None,
                extra: false,
            });
            assert!(ledger.end(&id).is_some());
        }
        assert!(!ledger.has_ended(&"pod-0.00000000".into()));
        assert!(ledger.has_ended(&TaskId::from(format!("pod-{}.00000000", REMEMBERED + 9))));
        assert_eq!(ledger.by_node.len(), 0);
    }
}
