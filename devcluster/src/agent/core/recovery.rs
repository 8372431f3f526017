//! After a restart of the agent: what an earlier process remembered becomes state again, and
//! executors have a short while to come back.

use mesos::pb;

use super::model::{Executor, ExecutorState, Framework, PendingTermination};
use super::updates::{Stream, is_terminal};
use super::{Core, CoreConfig, Effect};
use crate::agent::container::{ContainerId, ProcessRef};
use crate::agent::duration;
use crate::clock::Time;
use crate::ids::{ExecutorId, FrameworkId, TaskId};

/// What an earlier agent process remembered.
#[derive(Debug, Clone, Default)]
pub struct RecoveredState {
    /// The agent, `id` set.
    pub info: pb::AgentInfo,
    /// Frameworks with executors that had not ended.
    pub frameworks: Vec<(pb::FrameworkInfo, Vec<RecoveredExecutor>)>,
    /// What the agent has, once operations have changed it.
    pub resources: Option<Vec<pb::Resource>>,
}

/// An executor that an earlier agent process had started.
#[derive(Debug, Clone)]
pub struct RecoveredExecutor {
    /// As the master sent it.
    pub info: pb::ExecutorInfo,
    /// Its container.
    pub container: ContainerId,
    /// Whether it was made for a command task.
    pub command_task: bool,
    /// Its container's init process, if it got that far.
    pub process: Option<ProcessRef>,
    /// Its tasks.
    pub tasks: Vec<RecoveredTask>,
}

/// A task that an earlier agent process had sent to its executor.
#[derive(Debug, Clone)]
pub struct RecoveredTask {
    /// The task, with its statuses.
    pub task: pb::Task,
    /// Updates that were not acknowledged, the oldest first.
    pub pending: Vec<pb::TaskStatus>,
    /// UUIDs of those that were.
    pub acknowledged: Vec<Vec<u8>>,
    /// Whether its terminal update was acknowledged.
    pub done: bool,
}

impl Core {
    /// An agent that takes over. It waits for its executors until they are all back or the
    /// time is over ([`Core::is_recovering`]); only then it may register.
    pub fn recover(
        config: CoreConfig,
        state: RecoveredState,
        now: Time,
        random: Box<dyn FnMut() -> uuid::Uuid + Send>,
    ) -> Self {
        let wait = config.reregistration_timeout;
        let mut core = Self::new(config, state.info, random);
        core.checkpointed = state.resources;
        let agent = core.agent_id();
        for (info, executors) in state.frameworks {
            let mut framework = Framework::new(info);
            let id = framework.id();
            for recovered in executors {
                let executor = ExecutorId::from(&recovered.info.executor_id);
                let directory =
                    core.config
                        .layout
                        .sandbox(&agent, &id, &executor, &recovered.container);
                let mut e = Executor::new(
                    recovered.info,
                    recovered.container,
                    directory,
                    recovered.command_task,
                );
                e.pid = recovered.process.map(|p| p.pid);
                for task in recovered.tasks {
                    core.recover_task(&id, &mut e, task);
                }
                framework.executors.insert(executor, e);
            }
            if !framework.executors.is_empty() {
                core.recovering = Some(now + wait);
                core.frameworks.insert(id, framework);
            }
        }
        core
    }

    fn recover_task(
        &mut self,
        framework: &FrameworkId,
        e: &mut Executor,
        recovered: RecoveredTask,
    ) {
        let mut task = recovered.task;
        if let Some(latest) = task.statuses.last() {
            task.state = latest.state;
        }
        let id = TaskId::from(&task.task_id);
        if recovered.done {
            e.completed.push_back(task);
            return;
        }
        if let Some(sent) = recovered.pending.first() {
            task.status_update_state = Some(sent.state);
            task.status_update_uuid.clone_from(&sent.uuid);
        }
        if is_terminal(task.state()) {
            e.terminated.push(task);
        } else {
            e.launched.push(task);
        }
        let place = (e.id.clone(), e.container.clone());
        let stream = Stream::recovered(recovered.pending.into(), recovered.acknowledged, place);
        self.updates.restore(framework.clone(), id, stream);
    }

    pub(super) fn give_up_on_missing_executors(&mut self) {
        self.recovering = None;
        let timeout = duration::format(self.config.reregistration_timeout);
        for framework in self.frameworks.values_mut() {
            let gone = framework.or_lost(pb::TaskState::TaskGone);
            for e in framework.executors.values_mut() {
                if e.state != ExecutorState::Registering {
                    continue;
                }
                tracing::warn!(executor = %e.id, %timeout, "an executor did not come back; ending it");
                e.state = ExecutorState::Terminating;
                e.pending = Some(PendingTermination {
                    state: gone,
                    reason: pb::task_status::Reason::ExecutorReregistrationTimeout,
                    message: format!("Executor did not reregister within {timeout}"),
                });
                self.effects.push(Effect::Destroy(e.container.clone()));
            }
        }
    }
}
