//! The loss of an agent: missing pings, a broken connection, an operator's word, and what all
//! of them mean for its tasks.

use mesos::pb;
use mesos::pb::TaskState;
use mesos::pb::task_status::Reason;

use super::event::Answer;
use super::state::{MasterState, Timer};
use super::updates::{self, Keep};
use super::view;
use crate::clock::Time;
use crate::ids::{AgentId, FrameworkId, TaskId};
use crate::protocol::{self, Ping, to_agent};

/// Why an agent's tasks are taken off the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// It does not answer; it may come back.
    Unreachable(Time),
    /// An operator says that it is gone.
    Gone,
    /// It said good-bye, or another agent took its address.
    Removed,
    /// An operator says that its machine is down.
    Down,
}

/// What the agents of a machine that goes down are told.
pub(super) const MACHINE_DOWN: &str = "Operator initiated 'Machine DOWN'";

impl MasterState {
    pub(super) fn ping_due(&mut self, id: &AgentId, at: Time) {
        let timeout = self.settings.agent_ping_timeout;
        let most = self.settings.max_agent_ping_timeouts;
        let now = self.now;
        let Some(agent) = self.agents.get_mut(id) else {
            return;
        };
        // An older timer of an agent that subscribed again meanwhile.
        if agent.next_ping != at {
            return;
        }
        if agent.pinged || agent.stream.is_none() {
            agent.missed_pings += 1;
            if agent.missed_pings >= most {
                self.lose_agent(id, Loss::Unreachable(now), "health check timed out");
                return;
            }
        }
        agent.pinged = true;
        agent.next_ping = (at + timeout).max(now);
        self.timers
            .insert((agent.next_ping, Timer::Ping(id.clone())));
        self.tell_agent(id, to_agent::Message::Ping(Ping {}));
    }

    pub(super) fn agent_disconnected(&mut self, id: &AgentId) {
        let Some(agent) = self.agents.get_mut(id) else {
            return;
        };
        let Some(stream) = agent.stream.take() else {
            return;
        };
        tracing::info!(agent = %id, "disconnected");
        let checkpoint = agent.checkpoint;
        let message = format!("Agent {} disconnected", agent.info.hostname);
        self.streams.remove(&stream);
        self.rescind_offers_of(id);
        self.rescind_inverse_offers_of(id);
        self.allocator.set_agent_active(id, false);
        // Whatever is not on the agent's disk does not survive it.
        let perishable = |state: &Self, framework: &FrameworkId| {
            let framework = state.frameworks.get(framework);
            !checkpoint || framework.is_some_and(|f| !f.info.checkpoint())
        };
        for (framework, task) in self.tasks_of(id, perishable) {
            self.lose_task(
                &framework,
                &task,
                TaskState::TaskLost,
                Reason::AgentDisconnected,
                &message,
                None,
            );
            self.remove_task(&framework, &task, Keep::Completed);
        }
        let executors: Vec<_> = match self.agents.get(id) {
            Some(agent) => {
                let keys = agent.executors.keys();
                keys.filter(|(f, _)| perishable(self, f)).cloned().collect()
            }
            None => Vec::new(),
        };
        for (framework, executor) in executors {
            self.remove_executor(id, &framework, &executor);
        }
    }

    fn tasks_of(
        &self,
        id: &AgentId,
        keep: impl Fn(&Self, &FrameworkId) -> bool,
    ) -> Vec<(FrameworkId, TaskId)> {
        self.agents
            .get(id)
            .map(|a| {
                a.tasks
                    .iter()
                    .filter(|(f, _)| keep(self, f))
                    .cloned()
                    .collect()
            })
            .unwrap_or_default()
    }

    /// Books the loss of a task and tells its framework, unless it had ended before.
    fn lose_task(
        &mut self,
        framework: &FrameworkId,
        task: &TaskId,
        state: TaskState,
        reason: Reason,
        message: &str,
        unreachable: Option<Time>,
    ) {
        let Some(record) = self
            .frameworks
            .get(framework)
            .and_then(|f| f.tasks.get(task))
        else {
            return;
        };
        // The framework may not have seen the end of a task whose update it never
        // acknowledged; it hears of the loss all the same, as in Mesos.
        let mut status = updates::status(
            self.now,
            &record.pb.task_id,
            state,
            reason,
            message.to_owned(),
        );
        status.agent_id = Some(record.pb.agent_id.clone());
        status.unreachable_time = unreachable.map(view::time_info);
        let executor = record.pb.executor_id.clone();
        self.update_task(framework, &status, None);
        // The scheduler is told the executor too; the books, as in Mesos, are not.
        status.executor_id = executor;
        self.forward(framework, status);
    }

    /// Takes an agent and everything on it off the books.
    pub(super) fn lose_agent(&mut self, id: &AgentId, loss: Loss, message: &str) {
        let Some(stream) = self.agents.get(id).map(|a| a.stream) else {
            return;
        };
        tracing::info!(agent = %id, message, "removed");
        self.count("master/slave_removals");
        if let Some(stream) = stream {
            let told = match loss {
                Loss::Gone => Some(message),
                Loss::Down => Some(MACHINE_DOWN),
                Loss::Unreachable(_) | Loss::Removed => None,
            };
            if let Some(message) = told {
                let message = protocol::Shutdown {
                    message: message.to_owned(),
                };
                self.tell_agent(id, to_agent::Message::Shutdown(message));
            }
            self.close(stream);
        }
        self.registry.admitted.remove(id);
        match loss {
            Loss::Unreachable(since) => {
                self.registry.unreachable.insert(id.clone(), since);
            }
            Loss::Gone => {
                self.registry.gone.insert(id.clone(), self.now);
                self.registry.forget_drain(id);
            }
            Loss::Removed => self.registry.forget_drain(id),
            Loss::Down => {}
        }
        self.save();
        self.forget_operations(|o| o.agent == *id);
        for (framework, task) in self.tasks_of(id, |_, _| true) {
            let aware = self
                .frameworks
                .get(&framework)
                .is_some_and(|f| f.capabilities.partition_aware);
            let (state, reason) = match loss {
                Loss::Unreachable(_) if aware => (TaskState::TaskUnreachable, Reason::AgentRemoved),
                Loss::Gone if aware => (
                    TaskState::TaskGoneByOperator,
                    Reason::AgentRemovedByOperator,
                ),
                _ => (TaskState::TaskLost, Reason::AgentRemoved),
            };
            let (since, keep) = match loss {
                Loss::Unreachable(since) => (Some(since), Keep::Unreachable),
                Loss::Gone | Loss::Removed | Loss::Down => (None, Keep::Completed),
            };
            self.lose_task(&framework, &task, state, reason, message, since);
            self.remove_task(&framework, &task, keep);
        }
        let executors: Vec<_> = self
            .agents
            .get(id)
            .map(|a| a.executors.keys().cloned().collect())
            .unwrap_or_default();
        for (framework, executor) in executors {
            self.remove_executor(id, &framework, &executor);
        }
        self.rescind_offers_of(id);
        self.forget_inverse_offers_of_agent(id);
        self.agents.remove(id);
        self.allocator.remove_agent(id);
        self.tell_agent_is_lost(id);
        self.tell_operators(|_| view::agent_removed(id));
    }

    fn tell_agent_is_lost(&mut self, id: &AgentId) {
        let frameworks: Vec<_> = self.frameworks.keys().cloned().collect();
        for framework in frameworks {
            let event = failure(pb::scheduler::event::Failure {
                agent_id: Some(id.to_pb()),
                executor_id: None,
                status: None,
            });
            self.tell_scheduler(&framework, event);
        }
    }

    /// Agents that did not come back in time after a restart of the master are unreachable.
    pub(super) fn reregistration_over(&mut self) {
        let missing = std::mem::take(&mut self.recovered);
        if missing.is_empty() {
            return;
        }
        for id in missing.keys() {
            tracing::warn!(agent = %id, "did not come back after the restart: unreachable");
            self.registry.admitted.remove(id);
            self.registry.unreachable.insert(id.clone(), self.now);
            self.count("master/recovery_slave_removals");
            self.tell_agent_is_lost(id);
        }
        self.save();
    }

    /// An operator says that an agent will never come back.
    pub(super) fn mark_gone(&mut self, id: &AgentId) -> Answer {
        if self.registry.gone.contains_key(id) {
            return Answer::Ok;
        }
        if self.agents.contains_key(id) {
            self.lose_agent(id, Loss::Gone, "Agent has been marked gone");
            return Answer::Ok;
        }
        let recovered = self.recovered.remove(id).is_some();
        let unreachable = self.registry.unreachable.remove(id).is_some();
        if !recovered && !unreachable {
            return Answer::error(404, "Agent not found");
        }
        self.registry.admitted.remove(id);
        self.registry.gone.insert(id.clone(), self.now);
        self.registry.forget_drain(id);
        self.save();
        let frameworks: Vec<_> = self.frameworks.keys().cloned().collect();
        for framework_id in frameworks {
            let Some(framework) = self.frameworks.get_mut(&framework_id) else {
                continue;
            };
            let aware = framework.capabilities.partition_aware;
            let (mut gone, kept) = std::mem::take(&mut framework.unreachable)
                .into_iter()
                .partition::<Vec<_>, _>(|t| t.agent_id.value == id.as_str());
            framework.unreachable = kept.into();
            let (state, reason) = if aware {
                (
                    TaskState::TaskGoneByOperator,
                    Reason::AgentRemovedByOperator,
                )
            } else {
                (TaskState::TaskLost, Reason::AgentRemoved)
            };
            let mut told = Vec::with_capacity(gone.len());
            for task in &mut gone {
                task.state = state as i32;
                let text = "Agent has been marked gone".to_owned();
                let mut status = updates::status(self.now, &task.task_id, state, reason, text);
                status.agent_id = Some(task.agent_id.clone());
                status.executor_id.clone_from(&task.executor_id);
                told.push(status);
            }
            framework.completed.extend(gone);
            while framework.completed.len() > self.settings.max_completed_tasks {
                framework.completed.pop_front();
            }
            for status in told {
                self.forward(&framework_id, status);
            }
        }
        Answer::Ok
    }
}

/// A FAILURE event.
pub(super) fn failure(failure: pb::scheduler::event::Failure) -> pb::scheduler::Event {
    pb::scheduler::Event {
        r#type: Some(pb::scheduler::event::Type::Failure as i32),
        failure: Some(failure),
        ..Default::default()
    }
}
