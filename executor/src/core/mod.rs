//! What the executor decides: a state machine, `state + event -> state + effects`, with no
//! socket, no clock and no process of its own. [`crate::agent_loop`] feeds it and carries out
//! the effects, in their order.
//!
//! The states of the node, of a pod's task and the way of an update are documented at
//! [`NodeState`], [`task::PodState`] and [`updates::Updates`].

mod event;
mod handover;
mod limits;
mod node;
mod pods;
mod revise;
pub mod task;
pub mod updates;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};

use rand::SeedableRng;
use rand::rngs::StdRng;

pub use event::{Effect, Event, Millis, Refusal};
pub use handover::{Handover, HandoverError};
pub use limits::PodLimits;
pub use revise::Fetched;

use crate::report::{PodObservation, PodRef};
use task::{NodeTask, PodTaskState, TaskId};
use updates::{Status, TaskState, Updates};

/// How long a pod's task waits for the node task of its node. Both are in the same ACCEPT, so
/// this is generous.
pub const NODE_TASK_DEADLINE: Millis = Millis(60_000);
/// A KILL of a bound pod is asked of the API again this often, until the pod shows its deletion.
pub const DELETE_REPEAT: Millis = Millis(10_000);
/// An eviction that a disruption budget may have refused is asked for again this often.
pub const EVICT_REPEAT: Millis = Millis(5_000);
/// Pods that were killed before they were bound are remembered this long, and deleted should
/// they turn up after all.
pub const KILLED_MEMORY: Millis = Millis(5 * 60_000);
/// How many of those are remembered.
pub const KILLED_MEMORY_MAX: usize = 1024;
/// How long the last updates may wait for their acknowledgements before the executor ends
/// without them; the agent then makes terminal updates of its own.
pub const FAREWELL: Millis = Millis(5_000);
/// When a pod's processes are not gone this long after kubelet called it ended, people are told.
pub const EMPTY_PATIENCE: Millis = Millis(60_000);

/// The node's life within one executor.
///
/// ```text
/// Absent --LAUNCH node task--> Starting --Ready--> Up
///    Starting --Failed--> Stopping
///    Starting, Up --last task killed, SHUTDOWN--> Stopping
///    Stopping --all processes ended--> Ended (updates are sent, then exit)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum NodeState {
    /// No node task yet.
    Absent,
    /// The node task is TASK_STARTING; containerd, kubelet and the rest come up.
    Starting,
    /// The node has been Ready once; its task is TASK_RUNNING.
    Up,
    /// The node's processes are being ended.
    Stopping,
    /// They have ended.
    Ended,
}

/// Why the node is stopped; decides what its tasks become.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum Ending {
    /// The agent said SHUTDOWN, or gave us up.
    Shutdown,
    /// The node task was killed and no pod is left.
    Killed,
    /// The bring-up failed.
    Failed(String),
}

/// The executor's state.
#[derive(Debug)]
pub struct Core {
    state: NodeState,
    ending: Option<Ending>,
    node: Option<NodeTask>,
    /// kubelet's Node is Ready now.
    node_ready: bool,
    pods: BTreeMap<TaskId, PodTaskState>,
    /// Every pod of this node, by uid, as last seen.
    observed: HashMap<String, PodObservation>,
    killed: VecDeque<(Millis, PodRef)>,
    updates: Updates,
    /// The limits that were last set.
    limits: Option<PodLimits>,
    /// The node task's end, still to be told.
    last_word: Option<(TaskId, Status)>,
    /// When to end without waiting longer.
    farewell: Option<Millis>,
    exiting: bool,
    revising: Option<revise::Revising>,
}

impl Core {
    /// A new executor's state. The seed makes the identifiers of updates.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            state: NodeState::Absent,
            ending: None,
            node: None,
            node_ready: false,
            pods: BTreeMap::new(),
            observed: HashMap::new(),
            killed: VecDeque::new(),
            updates: Updates::new(StdRng::from_seed(seed)),
            limits: None,
            last_word: None,
            farewell: None,
            exiting: false,
            revising: None,
        }
    }

    /// Where the node is in its life.
    pub fn node_state(&self) -> NodeState {
        self.state
    }

    /// The node task's data, once there is one.
    pub fn node_config(&self) -> Option<&seam::node::NodeConfig> {
        self.node.as_ref().map(|n| &n.config)
    }

    /// The node half is to bring the node to another revision: what kubelet said of its Node
    /// before says nothing.
    pub fn is_revising(&self) -> bool {
        self.revising.is_some()
    }

    /// What SUBSCRIBE must carry.
    pub fn unacknowledged(
        &self,
    ) -> (
        Vec<mesos::pb::TaskInfo>,
        Vec<mesos::pb::executor::call::Update>,
    ) {
        self.updates.unacknowledged()
    }

    /// Takes one event and says what is to be done, in this order.
    pub fn handle(&mut self, now: Millis, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        match event {
            Event::Subscribed => self.updates.subscribed(now),
            Event::Disconnected => self.updates.disconnected(),
            Event::Launch(task) => self.launch(now, *task, &mut out),
            Event::Kill { task, grace } => self.kill(now, &task, grace, &mut out),
            Event::Acknowledged { task, uuid } => self.updates.acknowledged(&task, &uuid),
            Event::ApiServers(servers) => {
                if let Some(node) = &mut self.node {
                    node.config.cluster.api_servers.clone_from(&servers);
                }
                out.push(Effect::ApiServers(servers));
            }
            Event::Revise { digest, revision } => self.revise(digest, revision, &mut out),
            Event::Fetched(outcome) => self.fetched(outcome, &mut out),
            Event::NotReplaced(message) => self.not_replaced(message, &mut out),
            Event::Shutdown => self.stop(Ending::Shutdown, &mut out),
            Event::Node(event) => self.node_event(now, event, &mut out),
            Event::Emptied { uid } => self.emptied(now, &uid, &mut out),
            Event::NodeStopped => self.node_stopped(now, &mut out),
            Event::Tick => self.tick(now, &mut out),
        }
        self.give_up_idle_node(&mut out);
        self.adjust_limits(&mut out);
        self.say_last_word(now);
        for update in self.updates.due(now) {
            out.push(Effect::Send(Box::new(update)));
        }
        if self.state == NodeState::Ended && !self.exiting {
            let patience_over = self.farewell.is_some_and(|at| now >= at);
            let all_told = self.updates.is_empty() && self.last_word.is_none();
            if all_told || patience_over {
                self.exiting = true;
                let failed = matches!(self.ending, Some(Ending::Failed(_)));
                out.push(Effect::Exit { failed });
            }
        }
        out
    }

    fn tick(&mut self, now: Millis, out: &mut Vec<Effect>) {
        while self
            .killed
            .front()
            .is_some_and(|(at, _)| now.since(*at) > KILLED_MEMORY)
        {
            self.killed.pop_front();
        }
        self.tick_pods(now, out);
    }

    fn report(&mut self, task: &TaskId, status: Status) {
        self.updates.push(task, status);
    }

    fn refuse(&mut self, task: mesos::pb::TaskInfo, state: TaskState, refusal: &Refusal) {
        let id = TaskId::of(&task);
        self.updates.launched(task);
        self.report(&id, Status::new(state).message(refusal.to_string()));
    }
}
