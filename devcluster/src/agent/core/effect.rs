//! What the core asks for: effects, in their order, and what is remembered on disk.

use std::path::PathBuf;

use mesos::pb;

use super::model::StreamId;
use crate::agent::container::{ContainerId, Grant};
use crate::agent::volumes::{Mount, VolumeKey};
use crate::ids::{ExecutorId, FrameworkId, TaskId};
use crate::protocol::from_agent;

/// What is to be done, in order.
#[derive(Debug)]
pub enum Effect {
    /// Tell the master; dropped when it is not there, as whoever cares repeats it.
    Send(Box<from_agent::Message>),
    /// Tell an executor.
    Tell(StreamId, Box<pb::executor::Event>),
    /// End an executor's subscription after what was told before.
    Close(StreamId),
    /// Remember something on disk. Done before the effects that follow.
    Remember(Box<Record>),
    /// Make the sandbox and start the container.
    Launch(Box<Launch>),
    /// Change what a container may use; the answer is [`Core::updated`].
    Update {
        /// The container.
        container: ContainerId,
        /// What it is granted from now on.
        grant: Grant,
        /// Its sandbox.
        sandbox: PathBuf,
        /// Persistent volumes that it is to see from now on.
        volumes: Vec<Mount>,
        /// What waits for it.
        then: Then,
    },
    /// End a container.
    Destroy(ContainerId),
    /// The sandbox and the memory of a run are not needed any more and may go once they are
    /// old enough.
    Abandon(Run),
    /// Make the directory of a volume.
    CreateVolume(VolumeKey),
    /// Remove the directory of a volume.
    RemoveVolume(VolumeKey),
    /// End the agent: the master has said so. Everything was shut down.
    Exit(String),
}

/// A container to be started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Its framework.
    pub framework: pb::FrameworkInfo,
    /// The executor.
    pub executor: pb::ExecutorInfo,
    /// Whether it was made for a command task.
    pub command_task: bool,
    /// The container.
    pub container: ContainerId,
    /// Its sandbox, not made yet.
    pub sandbox: PathBuf,
    /// What it is granted.
    pub grant: Grant,
    /// Who runs it.
    pub user: Option<String>,
    /// Persistent volumes that it is to see.
    pub volumes: Vec<Mount>,
    /// Secrets that it or its first tasks refer to.
    pub secrets: Vec<pb::Secret>,
}

/// Who waits for a container's new grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Then {
    /// The framework.
    pub framework: FrameworkId,
    /// The executor.
    pub executor: ExecutorId,
    /// Tasks that are sent to the executor once it is done.
    pub deliver: Vec<TaskId>,
}

/// What is remembered on disk, and forgotten.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "only ever used in a box")]
pub enum Record {
    /// The agent's id and what it offers.
    Agent(pb::AgentInfo),
    /// What the agent has, with reservations and volumes.
    Resources(Vec<pb::Resource>),
    /// A framework.
    Framework(pb::FrameworkInfo),
    /// An executor and its run.
    Executor {
        /// Its framework.
        framework: FrameworkId,
        /// The executor.
        info: pb::ExecutorInfo,
        /// Its container.
        container: ContainerId,
        /// Whether it was made for a command task.
        command_task: bool,
    },
    /// A task that is about to be sent to its executor.
    Task {
        /// Where its run is.
        run: Run,
        /// The task.
        task: pb::Task,
    },
    /// The updates of a task.
    Updates {
        /// Where its run is.
        run: Run,
        /// The task.
        task: TaskId,
        /// Not acknowledged, the oldest first.
        pending: Vec<pb::TaskStatus>,
        /// Acknowledged UUIDs.
        acknowledged: Vec<Vec<u8>>,
        /// The task's statuses so far, the latest last.
        statuses: Vec<pb::TaskStatus>,
        /// Whether the terminal one was acknowledged.
        done: bool,
    },
    /// An executor has ended and nothing is owed any more.
    ExecutorDone(Run),
}

/// One run of an executor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its framework.
    pub framework: FrameworkId,
    /// The executor.
    pub executor: ExecutorId,
    /// The container.
    pub container: ContainerId,
}
