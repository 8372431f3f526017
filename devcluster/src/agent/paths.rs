//! Where an agent keeps things. The layout is Mesos' own, which operators and tools know:
//!
//! ```text
//! <work dir>/meta/slaves/latest -> <agent id>             the agent's memory
//! <work dir>/meta/slaves/<agent>/slave.info
//! <work dir>/meta/slaves/<agent>/frameworks/<fw>/framework.info
//! <work dir>/meta/slaves/<agent>/frameworks/<fw>/executors/<ex>/executor.info
//! <work dir>/meta/.../executors/<ex>/runs/<container>/{pids/forked.pid,executor.sentinel,tasks/<task>/..}
//! <work dir>/slaves/<agent>/frameworks/<fw>/executors/<ex>/runs/<container>   a sandbox
//! <runtime dir>/containers/<container>/status             wait status, written by the init process
//! ```

use std::path::{Path, PathBuf};

use crate::ids::{AgentId, ExecutorId, FrameworkId, TaskId};

use super::container::ContainerId;

/// The agent's directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// `--work_dir`: sandboxes and the agent's memory.
    pub work_dir: PathBuf,
    /// `--runtime_dir`: what is only true until the machine boots again.
    pub runtime_dir: PathBuf,
    /// `--fetcher_cache_dir`.
    pub cache_dir: PathBuf,
}

impl Layout {
    /// The usual places below one directory.
    pub fn below(dir: &Path) -> Self {
        Self {
            work_dir: dir.join("work"),
            runtime_dir: dir.join("run"),
            cache_dir: dir.join("fetch"),
        }
    }

    /// `meta/boot_id`: which boot of the machine the agent's memory belongs to.
    pub fn boot_id(&self) -> PathBuf {
        self.work_dir.join("meta/boot_id")
    }

    /// Directory of all agents' memories, `latest` among them.
    pub fn meta_agents(&self) -> PathBuf {
        self.work_dir.join("meta/slaves")
    }

    /// Memory of one agent.
    pub fn meta_agent(&self, agent: &AgentId) -> PathBuf {
        self.meta_agents().join(agent.as_str())
    }

    /// Memory of the frameworks of an agent.
    pub fn meta_frameworks(&self, agent: &AgentId) -> PathBuf {
        self.meta_agent(agent).join("frameworks")
    }

    /// Memory of one framework.
    pub fn meta_framework(&self, agent: &AgentId, framework: &FrameworkId) -> PathBuf {
        self.meta_frameworks(agent).join(framework.as_str())
    }

    /// Memory of one executor.
    pub fn meta_executor(
        &self,
        agent: &AgentId,
        framework: &FrameworkId,
        executor: &ExecutorId,
    ) -> PathBuf {
        self.meta_framework(agent, framework)
            .join("executors")
            .join(executor.as_str())
    }

    /// Memory of one run of an executor.
    pub fn meta_run(
        &self,
        agent: &AgentId,
        framework: &FrameworkId,
        executor: &ExecutorId,
        container: &ContainerId,
    ) -> PathBuf {
        self.meta_executor(agent, framework, executor)
            .join("runs")
            .join(container.as_str())
    }

    /// Memory of one task of a run.
    pub fn meta_task(
        &self,
        agent: &AgentId,
        framework: &FrameworkId,
        executor: &ExecutorId,
        container: &ContainerId,
        task: &TaskId,
    ) -> PathBuf {
        self.meta_run(agent, framework, executor, container)
            .join("tasks")
            .join(task.as_str())
    }

    /// Directory of an executor's sandboxes.
    pub fn executor_dir(
        &self,
        agent: &AgentId,
        framework: &FrameworkId,
        executor: &ExecutorId,
    ) -> PathBuf {
        self.work_dir
            .join("slaves")
            .join(agent.as_str())
            .join("frameworks")
            .join(framework.as_str())
            .join("executors")
            .join(executor.as_str())
    }

    /// The sandbox of one run of an executor.
    pub fn sandbox(
        &self,
        agent: &AgentId,
        framework: &FrameworkId,
        executor: &ExecutorId,
        container: &ContainerId,
    ) -> PathBuf {
        self.executor_dir(agent, framework, executor)
            .join("runs")
            .join(container.as_str())
    }

    /// What is known of a container while the machine is up.
    pub fn container(&self, container: &ContainerId) -> PathBuf {
        self.runtime_dir.join("containers").join(container.as_str())
    }

    /// The wait status of a container's first process, once it has ended.
    pub fn container_status(&self, container: &ContainerId) -> PathBuf {
        self.container(container).join("status")
    }

    /// The init process of a container, for ending those that nobody remembers.
    pub fn container_pid(&self, container: &ContainerId) -> PathBuf {
        self.container(container).join("pid")
    }
}
