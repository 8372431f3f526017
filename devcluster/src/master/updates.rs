//! Task states: updates from agents, acknowledgements, reconciliation, and the books about it.

use mesos::pb;
use mesos::pb::TaskState;
use mesos::pb::task_status::{Reason, Source};

use super::event::Answer;
use super::state::{MasterState, Task, is_terminal};
use super::view;
use crate::clock::Time;
use crate::ids::{AgentId, ExecutorId, FrameworkId, TaskId};
use crate::protocol::{self, to_agent};
use crate::resources::Resources;

/// Where a task that is no longer followed goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    Completed,
    Unreachable,
}

/// A status of the master's own: no uuid, nothing to acknowledge.
pub(super) fn status(
    now: Time,
    task: &pb::TaskId,
    state: TaskState,
    reason: Reason,
    message: String,
) -> pb::TaskStatus {
    pb::TaskStatus {
        task_id: task.clone(),
        state: state as i32,
        message: Some(message),
        source: Some(Source::Master as i32),
        reason: Some(reason as i32),
        timestamp: Some(now.as_secs_f64()),
        ..Default::default()
    }
}

/// The state as the scheduler was told last.
fn told_state(task: &pb::Task) -> TaskState {
    let state = task.status_update_state.unwrap_or(task.state);
    TaskState::try_from(state).unwrap_or(TaskState::TaskStaging)
}

/// A status of a known task, with what its latest one says of health and container.
pub(super) fn latest(now: Time, task: &pb::Task, reason: Reason, message: &str) -> pb::TaskStatus {
    let mut out = status(
        now,
        &task.task_id,
        told_state(task),
        reason,
        message.to_owned(),
    );
    out.agent_id = Some(task.agent_id.clone());
    out.executor_id.clone_from(&task.executor_id);
    if let Some(last) = task.statuses.last() {
        out.healthy = last.healthy;
        out.check_status = last.check_status;
        out.container_status.clone_from(&last.container_status);
    }
    out
}

impl MasterState {
    /// Sends a status to its scheduler. One with a uuid is remembered until acknowledged.
    pub(super) fn forward(&mut self, id: &FrameworkId, status: pb::TaskStatus) {
        if let Some(task) = self
            .frameworks
            .get_mut(id)
            .and_then(|f| f.tasks.get_mut(status.task_id.value.as_str()))
            && status.uuid.is_some()
        {
            task.pb.status_update_state = Some(status.state);
            task.pb.status_update_uuid.clone_from(&status.uuid);
        }
        let event = pb::scheduler::Event {
            r#type: Some(pb::scheduler::event::Type::Update as i32),
            update: Some(pb::scheduler::event::Update { status }),
            ..Default::default()
        };
        self.tell_scheduler(id, event);
    }

    /// An agent reports a task's state.
    pub(super) fn status_update(&mut self, agent: &AgentId, update: protocol::Update) {
        self.count("master/messages_status_update");
        let id = FrameworkId::from(&update.framework_id);
        if TaskState::try_from(update.status.state).is_err() {
            tracing::warn!(%agent, framework = %id, state = update.status.state,
                "an update with an unknown state is dropped");
            self.count("master/invalid_status_updates");
            return;
        }
        let known = self.frameworks.get(&id).is_some_and(|f| f.connected());
        if known {
            self.forward(&id, update.status.clone());
        } else {
            tracing::debug!(%agent, framework = %id, "an update waits for its framework");
        }
        let owner = self
            .frameworks
            .get(&id)
            .and_then(|f| f.tasks.get(update.status.task_id.value.as_str()))
            .map(|t| AgentId::from(&t.pb.agent_id));
        if owner.as_ref() != Some(agent) {
            self.count("master/invalid_status_updates");
            return;
        }
        self.update_task(&id, &update.status, update.latest_state);
        self.count("master/valid_status_updates");
    }

    /// Books a status. A task that ends gives its resources back, once.
    pub(super) fn update_task(
        &mut self,
        id: &FrameworkId,
        status: &pb::TaskStatus,
        latest: Option<i32>,
    ) {
        let Some(task) = self
            .frameworks
            .get_mut(id)
            .and_then(|f| f.tasks.get_mut(status.task_id.value.as_str()))
        else {
            return;
        };
        let state = latest.unwrap_or(status.state);
        let over = |state| is_terminal(state) || state == TaskState::TaskUnreachable as i32;
        let ended = !over(task.pb.state) && over(state);
        if !is_terminal(task.pb.state) {
            task.pb.state = state;
        }
        let mut news = matches!(
            status.reason(),
            Reason::TaskCheckStatusUpdated | Reason::TaskHealthCheckStatusUpdated
        ) && status.reason.is_some();
        if task.pb.statuses.last().map(|s| s.state) == Some(status.state) {
            task.pb.statuses.pop();
        } else {
            news = true;
        }
        let mut kept = status.clone();
        kept.data = None;
        task.pb.statuses.push(kept);
        let state = task.pb.state;
        if ended {
            let resources = std::mem::take(&mut task.resources);
            let agent = AgentId::from(&task.pb.agent_id);
            self.allocator
                .recover(self.now, id, &agent, &resources, None);
            let metric = match TaskState::try_from(status.state) {
                Ok(TaskState::TaskFinished) => Some("master/tasks_finished"),
                Ok(TaskState::TaskFailed) => Some("master/tasks_failed"),
                Ok(TaskState::TaskKilled) => Some("master/tasks_killed"),
                Ok(TaskState::TaskLost) => Some("master/tasks_lost"),
                Ok(TaskState::TaskError) => Some("master/tasks_error"),
                Ok(TaskState::TaskDropped) => Some("master/tasks_dropped"),
                Ok(TaskState::TaskGone) => Some("master/tasks_gone"),
                Ok(TaskState::TaskGoneByOperator) => Some("master/tasks_gone_by_operator"),
                // Unreachable tasks are counted as long as they are.
                _ => None,
            };
            if let Some(metric) = metric {
                self.count(metric);
            }
        }
        if news {
            let status = status.clone();
            self.tell_operators(|_| view::task_updated(id, status, state));
        }
    }

    /// Ends the following of a task.
    pub(super) fn remove_task(&mut self, id: &FrameworkId, task_id: &TaskId, keep: Keep) {
        let Some(framework) = self.frameworks.get_mut(id) else {
            return;
        };
        let Some(task) = framework.tasks.remove(task_id) else {
            return;
        };
        let agent = AgentId::from(&task.pb.agent_id);
        let (list, most) = match keep {
            Keep::Completed => (&mut framework.completed, self.settings.max_completed_tasks),
            Keep::Unreachable => (
                &mut framework.unreachable,
                self.settings.max_unreachable_tasks,
            ),
        };
        list.push_back(task.pb);
        while list.len() > most {
            list.pop_front();
        }
        // Nothing is left here of one that has ended.
        self.allocator
            .recover(self.now, id, &agent, &task.resources, None);
        if let Some(agent) = self.agents.get_mut(&agent) {
            let key = (id.clone(), task_id.clone());
            agent.tasks.remove(&key);
            agent.kills.remove(&key);
        }
    }

    /// Books a task that an agent has; what it uses is charged unless it has ended.
    pub(super) fn add_task(&mut self, id: &FrameworkId, task: pb::Task, resources: Resources) {
        let agent = AgentId::from(&task.agent_id);
        let task_id = TaskId::from(&task.task_id);
        let event = task.clone();
        if let Some(framework) = self.frameworks.get_mut(id) {
            let task = Task {
                pb: task,
                resources,
            };
            framework.tasks.insert(task_id.clone(), task);
        }
        if let Some(agent) = self.agents.get_mut(&agent) {
            agent.tasks.insert((id.clone(), task_id));
        }
        self.tell_operators(|_| view::task_added(event));
    }

    /// The books lose an executor; what it used comes back.
    pub(super) fn remove_executor(
        &mut self,
        agent_id: &AgentId,
        framework: &FrameworkId,
        executor: &ExecutorId,
    ) {
        let Some(agent) = self.agents.get_mut(agent_id) else {
            return;
        };
        let key = (framework.clone(), executor.clone());
        if let Some(executor) = agent.executors.remove(&key) {
            self.allocator
                .recover(self.now, framework, agent_id, &executor.resources, None);
        }
    }

    pub(super) fn acknowledge(
        &mut self,
        id: &FrameworkId,
        acknowledge: pb::scheduler::call::Acknowledge,
    ) -> Answer {
        self.count("master/messages_status_update_acknowledgement");
        let agent_id = AgentId::from(&acknowledge.agent_id);
        let task_id = TaskId::from(&acknowledge.task_id);
        let reachable = self
            .agents
            .get(&agent_id)
            .is_some_and(|a| a.stream.is_some());
        if !reachable {
            tracing::debug!(framework = %id, task = %task_id, agent = %agent_id,
                "an acknowledgement is dropped: the agent is not there");
            self.count("master/invalid_status_update_acknowledgements");
            return Answer::Accepted;
        }
        if let Some(task) = self.frameworks.get(id).and_then(|f| f.tasks.get(&task_id))
            && task.pb.agent_id.value == agent_id.as_str()
        {
            let Some(state) = task.pb.status_update_state else {
                // Not sent by this master: its agent sends it again.
                self.count("master/invalid_status_update_acknowledgements");
                return Answer::Accepted;
            };
            let same = task.pb.status_update_uuid.as_ref() == Some(&acknowledge.uuid);
            if same && is_terminal(state) {
                self.remove_task(id, &task_id, Keep::Completed);
            }
        }
        let message = to_agent::Message::Acknowledge(protocol::Acknowledge {
            framework_id: id.to_pb(),
            task_id: acknowledge.task_id,
            uuid: acknowledge.uuid,
        });
        self.tell_agent(&agent_id, message);
        self.count("master/valid_status_update_acknowledgements");
        Answer::Accepted
    }

    pub(super) fn reconcile(
        &mut self,
        id: &FrameworkId,
        tasks: Vec<pb::scheduler::call::reconcile::Task>,
    ) -> Answer {
        self.count("master/messages_reconcile_tasks");
        let statuses: Vec<_> = if tasks.is_empty() {
            let Some(framework) = self.frameworks.get(id) else {
                return Answer::Accepted;
            };
            framework
                .tasks
                .values()
                .map(|t| latest(self.now, &t.pb, Reason::Reconciliation, LATEST))
                .collect()
        } else {
            tasks
                .iter()
                .filter_map(|t| self.reconciled(id, &t.task_id, t.agent_id.as_ref()))
                .collect()
        };
        for status in statuses {
            self.forward(id, status);
        }
        Answer::Accepted
    }

    /// What is known of one task, if anything can be said by now.
    pub(super) fn reconciled(
        &self,
        id: &FrameworkId,
        task_id: &pb::TaskId,
        agent_id: Option<&pb::AgentId>,
    ) -> Option<pb::TaskStatus> {
        let framework = self.frameworks.get(id)?;
        if let Some(task) = framework.tasks.get(task_id.value.as_str()) {
            return Some(latest(self.now, &task.pb, Reason::Reconciliation, LATEST));
        }
        let agent = agent_id.map(AgentId::from);
        let waiting = match &agent {
            Some(agent) => self.recovered.contains_key(agent),
            None => !self.recovered.is_empty(),
        };
        if waiting {
            tracing::info!(framework = %id, task = %task_id.value,
                "not reconciled: not all agents are back yet");
            return None;
        }
        let mut unreachable_time = None;
        let (state, message) = match &agent {
            Some(a) if self.agents.contains_key(a) => (
                TaskState::TaskGone,
                "Reconciliation: Task is unknown to the agent",
            ),
            Some(a) if self.registry.unreachable.contains_key(a) => {
                unreachable_time = self.registry.unreachable.get(a).copied();
                (
                    TaskState::TaskUnreachable,
                    "Reconciliation: Task is unreachable",
                )
            }
            Some(a) if self.registry.gone.contains_key(a) => (
                TaskState::TaskGoneByOperator,
                "Reconciliation: Task is gone",
            ),
            _ => (TaskState::TaskUnknown, "Reconciliation: Task is unknown"),
        };
        let state = if framework.capabilities.partition_aware {
            state
        } else {
            TaskState::TaskLost
        };
        let mut out = status(
            self.now,
            task_id,
            state,
            Reason::Reconciliation,
            message.to_owned(),
        );
        out.agent_id = agent_id.cloned();
        out.unreachable_time = unreachable_time.map(view::time_info);
        Some(out)
    }
}

const LATEST: &str = "Reconciliation: Latest task state";
