//! Containers: what an executor and all its descendants run in.
//!
//! [`Containerizer`] is the agent's side: one small task per container that fetches, makes the
//! cgroups, starts the init process ([`init`]), waits for the end (exit, out of memory, or the
//! agent's own wish) and leaves nothing behind. What the kernel is asked for is in
//! [`super::cgroups`]; without cgroups a container is a session of processes ([`posix`]).

mod containerizer;
pub mod init;
mod lifecycle;
mod posix;
mod process;
pub mod start;
mod statistics;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use mesos::pb;
use serde::{Deserialize, Serialize};

use super::images::Wanted;

pub use containerizer::Containerizer;
pub use lifecycle::{ContainerizerConfig, ContainerizerError, sweep};
pub use process::{ProcessRef, kill, start_time};

/// A container, a UUID that the agent draws.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContainerId(String);

impl ContainerId {
    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The identifier as Mesos writes it in messages.
    pub fn to_pb(&self) -> pb::ContainerId {
        pb::ContainerId {
            value: self.0.clone(),
            parent: None,
        }
    }
}

impl From<String> for ContainerId {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl From<&str> for ContainerId {
    fn from(value: &str) -> Self {
        Self(value.to_owned())
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a container is granted: the sum over the executor and its live tasks.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Grant {
    /// CPUs requested.
    pub cpus: Option<f64>,
    /// MiB of memory requested.
    pub mem: Option<f64>,
    /// CPUs at most; infinite means no quota; `None`: Mesos' default, the request or no quota.
    pub cpus_limit: Option<f64>,
    /// MiB of memory at most; infinite means no limit; `None`: the request.
    pub mem_limit: Option<f64>,
}

/// What to run and where.
#[derive(Debug, Clone)]
pub struct ContainerSpec {
    /// The container.
    pub id: ContainerId,
    /// What to fetch and run.
    pub command: pb::CommandInfo,
    /// The whole environment of the command.
    pub environment: BTreeMap<String, String>,
    /// Working directory; exists already and belongs to the user.
    pub sandbox: PathBuf,
    /// Who runs the command.
    pub user: Option<super::sandbox::User>,
    /// What it is granted at first.
    pub grant: Grant,
    /// Whether it is a plain command task's, whose memory above its request is given up first.
    pub command_task: bool,
    /// The image that it runs from.
    pub image: Option<Wanted>,
    /// Where the init process' pid is remembered before it may run; `None` without
    /// checkpointing.
    pub pid_file: Option<PathBuf>,
}

/// A container that an earlier agent process started.
#[derive(Debug, Clone)]
pub struct RecoveredContainer {
    /// The container.
    pub id: ContainerId,
    /// Its init process, if its pid was remembered.
    pub process: Option<ProcessRef>,
    /// Its sandbox, whose logs go on being bounded.
    pub sandbox: PathBuf,
    /// What it is granted.
    pub grant: Grant,
}

/// The end of a container.
#[derive(Debug, Clone, PartialEq)]
pub struct Termination {
    /// Wait status of its init process, when known.
    pub status: Option<i32>,
    /// Why it was ended, if not by itself and not by the agent's core.
    pub cause: Option<Cause>,
}

/// Why a container was ended from outside its own processes.
#[derive(Debug, Clone, PartialEq)]
pub enum Cause {
    /// It used more memory than granted.
    Memory {
        /// What Mesos says about it, statistics included.
        message: String,
        /// The limit in MiB.
        limit_mib: f64,
    },
    /// Its processes could not all be ended.
    DestroyFailed(String),
}

/// What the containerizer tells the agent.
#[derive(Debug)]
pub enum ContainerEvent {
    /// The init process runs.
    Launched {
        /// The container.
        id: ContainerId,
        /// Its first process.
        pid: u32,
    },
    /// It could not be started; `Terminated` follows.
    LaunchFailed {
        /// The container.
        id: ContainerId,
        /// Why, as Mesos says it after `Failed to launch container: `.
        message: String,
    },
    /// It has ended and nothing is left of it.
    Terminated {
        /// The container.
        id: ContainerId,
        /// How.
        termination: Termination,
    },
}
