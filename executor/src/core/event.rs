//! What goes into the state machine and what comes out.

use std::time::Duration;

use mesos::pb;
use seam::message::ToFramework;
use seam::node::{NodeConfig, Revision};

use super::limits::PodLimits;
use super::revise::Fetched;
use super::task::TaskId;
use crate::report::{NodeEvent, PodRef, Removal};

/// A point in time: milliseconds of a clock that goes on over `exec` (CLOCK_BOOTTIME).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Millis(pub u64);

impl Millis {
    /// How long after `earlier` this is; zero if it is before.
    pub fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }

    /// Later by that much.
    pub fn after(self, delay: Self) -> Self {
        Self(self.0.saturating_add(delay.0))
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The agent accepted our SUBSCRIBE, and with it all unacknowledged updates.
    Subscribed,
    /// The connection to the agent is gone; it will be made again.
    Disconnected,
    /// One task to launch.
    Launch(Box<pb::TaskInfo>),
    /// End a task.
    Kill {
        /// Which.
        task: TaskId,
        /// From the KILL's policy, if it has one.
        grace: Option<Duration>,
    },
    /// The agent has stored an update.
    Acknowledged {
        /// Of which task.
        task: TaskId,
        /// Which update.
        uuid: Vec<u8>,
    },
    /// The framework sent the API servers' addresses.
    ApiServers(Vec<String>),
    /// The framework wants the node to be of another revision.
    Revise {
        /// The framework's name for it.
        digest: String,
        /// What it shall be.
        revision: Box<Revision>,
    },
    /// What [`Effect::Fetch`] asked for is here, or why it is not.
    Fetched(Result<Fetched, String>),
    /// [`Effect::ReplaceExecutor`] failed; everything is as before.
    NotReplaced(String),
    /// The agent wants the executor to end, or has been away for longer than it may.
    Shutdown,
    /// The node half reports.
    Node(NodeEvent),
    /// No process of that pod is left.
    Emptied {
        /// The pod.
        uid: String,
    },
    /// Every process of the node has ended.
    NodeStopped,
    /// Time has passed. Expected about every second.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Send an update to the agent. It is sent again should that fail.
    Send(Box<pb::executor::call::Update>),
    /// Bring up the node.
    StartNode(Box<NodeConfig>),
    /// Fetch the payload and the executor's program. Answered by [`Event::Fetched`].
    Fetch(Box<Revision>),
    /// Become the program that was fetched, as soon as the agent is there. Answered by
    /// [`Event::NotReplaced`], or by nothing at all.
    ReplaceExecutor,
    /// End the node half, not its processes, and start it with that configuration at once.
    RestartNode(Box<NodeConfig>),
    /// What the node was before is not needed any more.
    ForgetFormer,
    /// Set what all pods together may use.
    Limits(PodLimits),
    /// End a pod through the API.
    RemovePod {
        /// Which.
        pod: PodRef,
        /// Whether disruption budgets may refuse.
        removal: Removal,
        /// `None`: its own grace.
        grace: Option<Duration>,
    },
    /// Watch that pod's cgroup and report [`Event::Emptied`] when no process is in it.
    AwaitEmpty {
        /// The pod.
        uid: String,
    },
    /// Tell the node half where the API servers are.
    ApiServers(Vec<String>),
    /// Tell the framework.
    Tell(ToFramework),
    /// End the node: kubelet first, then the containers with grace, then the rest. Answered by
    /// [`Event::NodeStopped`].
    StopNode {
        /// The node is given up: its data (images, logs, certificates) goes too.
        give_up: bool,
    },
    /// End the executor.
    Exit {
        /// The node could not be brought up.
        failed: bool,
    },
}

/// Why a task is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The executor ends.
    #[error("the node's executor is ending; launch the task again, it will start a new one")]
    Ending,
    /// There is a node task already.
    #[error("the node lives by task {0} already; kill that one first")]
    SecondNode(TaskId),
    /// A task of that id is known.
    #[error("a task of this id is known already")]
    Duplicate,
    /// Not one of our ids.
    #[error("{0}")]
    ForeignId(String),
    /// The task's data cannot be read.
    #[error("the task's data cannot be read: {0}")]
    BadData(String),
    /// The node task did not come.
    #[error("no node task came within {} s; a pod's task needs one on its agent", super::NODE_TASK_DEADLINE.0 / 1000)]
    NoNodeTask,
}
