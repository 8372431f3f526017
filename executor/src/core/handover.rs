//! The state as bytes, for an executor that replaces itself by `exec`.
//!
//! It holds the bootstrap token of the node's configuration, so it goes through an anonymous
//! file that only this process and its successor see, never through the file system.

use std::collections::VecDeque;

use mesos::pb;
use prost::Message;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

use super::revise::Stage;
use super::task::{NodeTask, PodTaskState, TaskId};
use super::updates::{Queued, Updates};
use super::{Core, NodeState};

/// Everything that the successor needs. Unknown members are ignored, so a newer executor may
/// follow an older one.
#[derive(Debug, Serialize, Deserialize)]
pub struct Handover {
    version: u32,
    state: NodeState,
    node: Option<NodeTask>,
    pods: Vec<(TaskId, PodTaskState)>,
    updates: Vec<(TaskId, VecDeque<Queued>)>,
    /// Protobuf of the tasks that SUBSCRIBE must list.
    tasks: Vec<Vec<u8>>,
}

/// Why a handover was refused.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// Not now; try again when the node is up or down for good.
    #[error("the executor cannot replace itself while the node is {0:?}; try again later")]
    Busy(NodeState),
    /// Not now; try again when the node is of the new revision.
    #[error(
        "the executor cannot replace itself while its node is brought to another revision; try again later"
    )]
    Revising,
    /// The bytes are not a handover.
    #[error("the predecessor's handover cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// A task in it is not a TaskInfo.
    #[error("a task in the predecessor's handover cannot be read: {0}")]
    BadTask(#[from] prost::DecodeError),
    /// It is of a version that this executor does not know.
    #[error("the predecessor's handover is of version {0}; this executor knows version {VERSION}")]
    Version(u32),
}

const VERSION: u32 = 1;

impl Core {
    /// The state for a successor. Refused while the node comes up or is being stopped, since
    /// what is under way then is not in the state.
    pub fn hand_over(&self) -> Result<Vec<u8>, HandoverError> {
        if !matches!(self.state, NodeState::Absent | NodeState::Up) || self.ending.is_some() {
            return Err(HandoverError::Busy(self.state));
        }
        if let Some(revising) = &self.revising
            && !matches!(revising.stage, Stage::Fetching | Stage::Replacing)
        {
            return Err(HandoverError::Revising);
        }
        let handover = Handover {
            version: VERSION,
            state: self.state,
            node: self.node.clone(),
            pods: self
                .pods
                .iter()
                .map(|(id, task)| (id.clone(), task.clone()))
                .collect(),
            updates: self
                .updates
                .queues
                .iter()
                .map(|(id, queue)| (id.clone(), queue.clone()))
                .collect(),
            tasks: self
                .updates
                .tasks
                .values()
                .map(Message::encode_to_vec)
                .collect(),
        };
        Ok(serde_json::to_vec(&handover)?)
    }

    /// Goes on where the predecessor stopped. The node half must be started anew with
    /// [`Core::node_config`]; it takes over the processes that run.
    pub fn resume(seed: [u8; 32], bytes: &[u8]) -> Result<Self, HandoverError> {
        let handover: Handover = serde_json::from_slice(bytes)?;
        if handover.version != VERSION {
            return Err(HandoverError::Version(handover.version));
        }
        let mut core = Self::new(seed);
        core.state = handover.state;
        core.node = handover.node;
        core.pods = handover.pods.into_iter().collect();
        core.updates = Updates::new(StdRng::from_seed(seed));
        core.updates.queues = handover.updates.into_iter().collect();
        for bytes in handover.tasks {
            core.updates
                .launched(pb::TaskInfo::decode(bytes.as_slice())?);
        }
        Ok(core)
    }
}
