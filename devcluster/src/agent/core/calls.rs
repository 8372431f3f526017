//! What executors say: SUBSCRIBE, UPDATE, MESSAGE.

use mesos::pb;
use pb::executor::call::Subscribe;
use pb::executor::event::{Acknowledged, Subscribed, Type};
use pb::task_status::{Reason, Source};

use super::model::{ExecutorState, StreamId};
use super::updates::is_terminal;
use super::{Core, Effect, Run};
use crate::clock::Time;
use crate::ids::{ExecutorId, FrameworkId, TaskId};
use crate::protocol;

/// Why a call of an executor is not accepted. The words are Mesos' own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The agent waits for its executors to come back: try again soon.
    #[error("Agent has not finished recovery")]
    Recovering,
    /// No such framework here. Never worth a retry.
    #[error("Framework cannot be found")]
    NoFramework,
    /// No such executor here. Never worth a retry.
    #[error("Executor cannot be found")]
    NoExecutor,
    /// SUBSCRIBE comes first.
    #[error("Executor is not subscribed")]
    NotSubscribed,
}

impl Core {
    /// SUBSCRIBE. What the executor is to be told goes to `stream`.
    pub fn subscribe(
        &mut self,
        now: Time,
        framework: &FrameworkId,
        executor: &ExecutorId,
        stream: StreamId,
        call: &Subscribe,
    ) -> Result<(), Refusal> {
        let info = self.info.clone();
        let f = self
            .frameworks
            .get_mut(framework)
            .ok_or(Refusal::NoFramework)?;
        let framework_info = f.info.clone();
        let dropped = f.or_lost(pb::TaskState::TaskDropped);
        let e = f.executors.get_mut(executor).ok_or(Refusal::NoExecutor)?;
        if matches!(
            e.state,
            ExecutorState::Terminating | ExecutorState::Terminated
        ) {
            tracing::warn!(%framework, %executor, "an ending executor subscribes; it is told to shut down");
            let event = Box::new(super::launch::shutdown());
            self.effects.push(Effect::Tell(stream, event));
            self.effects.push(Effect::Close(stream));
            return Ok(());
        }
        if let Some(before) = e.stream.replace(stream) {
            tracing::warn!(%framework, %executor, "an executor subscribes again; its first stream ends");
            self.effects.push(Effect::Close(before));
        }
        e.state = ExecutorState::Running;
        e.waiting = None;
        let subscribed = pb::executor::Event {
            r#type: Some(Type::Subscribed as i32),
            subscribed: Some(Subscribed {
                executor_info: e.info.clone(),
                framework_info,
                agent_info: info,
                container_id: Some(e.container.to_pb()),
            }),
            ..Default::default()
        };

        // Tasks that were sent and never heard of: the executor must know them.
        let listed = |task: &pb::Task| {
            call.unacknowledged_tasks
                .iter()
                .any(|t| t.task_id == task.task_id)
        };
        let lost: Vec<_> = e
            .launched
            .iter()
            .filter(|t| t.state() == pb::TaskState::TaskStaging && !listed(t))
            .map(|t| TaskId::from(&t.task_id))
            .collect();
        for task in lost {
            let message = "Task launched during agent restart";
            let reason = Reason::AgentRestarted;
            let status = self.agent_status(&task, dropped, reason, message, Some(executor), now);
            self.agent_update(now, framework, status);
        }
        let Some(e) = self.executor(framework, executor) else {
            return Ok(());
        };
        if e.queued.is_empty() && !e.was_sent_a_task() {
            tracing::warn!(%framework, %executor, "an executor without any task is shut down");
            self.shut_down_executor(now, framework, executor);
            return Ok(());
        }
        let queued = e.queued.iter().map(|q| TaskId::from(&q.task.task_id));
        let queued = queued.collect();
        self.effects
            .push(Effect::Tell(stream, Box::new(subscribed)));
        for update in &call.unacknowledged_updates {
            self.executor_update(now, framework, executor, update.status.clone());
        }
        self.grant_then_deliver(framework, executor, queued);
        Ok(())
    }

    /// An executor's stream is over. That is no event in its life.
    pub fn stream_closed(&mut self, stream: StreamId) {
        for executor in self
            .frameworks
            .values_mut()
            .flat_map(|f| f.executors.values_mut())
        {
            if executor.stream == Some(stream) {
                executor.stream = None;
            }
        }
    }

    /// UPDATE.
    pub fn update(
        &mut self,
        now: Time,
        framework: &FrameworkId,
        executor: &ExecutorId,
        status: pb::TaskStatus,
    ) -> Result<(), Refusal> {
        self.check_caller(framework, executor)?;
        self.executor_update(now, framework, executor, status);
        Ok(())
    }

    /// MESSAGE: passed on to the scheduler, or lost.
    pub fn message(
        &mut self,
        framework: &FrameworkId,
        executor: &ExecutorId,
        data: Vec<u8>,
    ) -> Result<(), Refusal> {
        self.check_caller(framework, executor)?;
        let message = protocol::ExecutorMessage {
            framework_id: framework.to_pb(),
            executor_id: executor.to_pb(),
            data,
        };
        self.send(protocol::from_agent::Message::ExecutorMessage(message));
        Ok(())
    }

    /// Whether calls other than SUBSCRIBE are taken from this executor now.
    pub fn check_caller(
        &self,
        framework: &FrameworkId,
        executor: &ExecutorId,
    ) -> Result<(), Refusal> {
        if self.is_recovering() {
            return Err(Refusal::Recovering);
        }
        let f = self.frameworks.get(framework).ok_or(Refusal::NoFramework)?;
        let e = f.executors.get(executor).ok_or(Refusal::NoExecutor)?;
        if e.state == ExecutorState::Registering {
            return Err(Refusal::NotSubscribed);
        }
        Ok(())
    }

    fn executor_update(
        &mut self,
        now: Time,
        framework: &FrameworkId,
        executor: &ExecutorId,
        mut status: pb::TaskStatus,
    ) {
        let own = self.info.id.clone();
        if status.agent_id.is_some() && status.agent_id != own {
            tracing::warn!(%framework, %executor, "an update for another agent is ignored");
            return;
        }
        status.agent_id = own;
        status.source = Some(Source::Executor as i32);
        status.timestamp.get_or_insert(now.as_secs_f64());
        self.handle_update(now, framework, status, true);
    }

    /// A status that the agent itself has made.
    pub(super) fn agent_update(
        &mut self,
        now: Time,
        framework: &FrameworkId,
        status: pb::TaskStatus,
    ) {
        self.handle_update(now, framework, status, false);
    }

    fn handle_update(
        &mut self,
        now: Time,
        framework: &FrameworkId,
        mut status: pb::TaskStatus,
        by_executor: bool,
    ) {
        let task = TaskId::from(&status.task_id);
        self.note_drain(framework, &mut status);
        let Some(f) = self
            .frameworks
            .get_mut(framework)
            .filter(|f| !f.terminating)
        else {
            tracing::warn!(%framework, %task, "an update of a framework that is gone is ignored");
            return;
        };
        let checkpoint = f.info.checkpoint();
        let executor = f.executor_of(&task);
        let Some(e) = executor.as_ref().and_then(|id| f.executors.get_mut(id)) else {
            // Forwarded, yet nobody gets an acknowledgement for it, as seen of a real agent.
            let executor = status.executor_id.as_ref().map(ExecutorId::from);
            self.take_update(now, framework, executor.as_ref(), None, &status);
            return;
        };
        let launched = e.launched.iter().any(|t| t.task_id == status.task_id);
        if by_executor && launched {
            let mut container = status.container_status.take().unwrap_or_default();
            container
                .container_id
                .get_or_insert_with(|| e.container.to_pb());
            container.executor_pid = container.executor_pid.or(e.pid);
            if container.network_infos.is_empty() {
                container.network_infos.push(network_info(self.config.ip));
            }
            status.container_status = Some(container);
        }
        let noted = e.note(framework, &status);
        let (executor, container) = (e.id.clone(), e.container.clone());
        let (stream, alive) = (e.stream, e.state != ExecutorState::Terminated);
        let taken = match noted {
            Err(why) => {
                tracing::warn!(%framework, %executor, %task, why, "an update does not fit");
                true
            }
            Ok(()) => {
                if is_terminal(status.state()) && alive {
                    self.grant_then_deliver(framework, &executor, Vec::new());
                }
                let run = checkpoint.then(|| Run {
                    framework: framework.clone(),
                    executor: executor.clone(),
                    container,
                });
                self.take_update(now, framework, Some(&executor), run, &status)
            }
        };
        if let (true, true, Some(stream)) = (by_executor, taken, stream) {
            let event = pb::executor::Event {
                r#type: Some(Type::Acknowledged as i32),
                acknowledged: Some(Acknowledged {
                    task_id: status.task_id,
                    uuid: status.uuid.unwrap_or_default(),
                }),
                ..Default::default()
            };
            self.effects.push(Effect::Tell(stream, Box::new(event)));
        }
    }
}

fn network_info(ip: std::net::IpAddr) -> pb::NetworkInfo {
    use pb::network_info::{IpAddress, Protocol};
    let protocol = if ip.is_ipv4() {
        Protocol::IPv4
    } else {
        Protocol::IPv6
    };
    pb::NetworkInfo {
        ip_addresses: vec![IpAddress {
            protocol: Some(protocol as i32),
            ip_address: Some(ip.to_string()),
        }],
        ..Default::default()
    }
}
