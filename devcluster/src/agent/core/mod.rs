//! What an agent decides: `state + event -> state + effects`, without sockets, files, processes
//! or clocks. The loop in [`super::run`] carries the effects out in their order, so that what
//! has to be on disk before a message leaves stands before it.

mod calls;
mod drain;
mod effect;
mod launch;
pub mod model;
mod recovery;
#[cfg(test)]
mod tests;
pub mod updates;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use mesos::pb;

use super::container::ContainerId;
use crate::clock::Time;
use crate::ids::{AgentId, ExecutorId, FrameworkId, TaskId};
use crate::protocol::{self, from_agent, to_agent};

use super::paths::Layout;
use super::volumes;
use model::{
    Executor, ExecutorState, Framework, MAX_COMPLETED_EXECUTORS, MAX_COMPLETED_FRAMEWORKS, Waiting,
};
use updates::{Received, Updates};

pub use calls::Refusal;
pub use effect::{Effect, Launch, Record, Run, Then};
pub use recovery::{RecoveredExecutor, RecoveredState, RecoveredTask};

/// What the core has to know about its agent.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    /// Its directories.
    pub layout: Layout,
    /// Address at which executors and operators reach it.
    pub ip: std::net::IpAddr,
    /// How long an executor may take from its launch to its first subscription
    /// (`--executor_registration_timeout`, 1 min).
    pub registration_timeout: Duration,
    /// How long executors may take to come back after the agent's restart
    /// (`--executor_reregistration_timeout`, 2 s).
    pub reregistration_timeout: Duration,
    /// How long an executor may take to end after SHUTDOWN, unless it says otherwise itself
    /// (`--executor_shutdown_grace_period`, 5 s).
    pub shutdown_grace_period: Duration,
    /// Program and arguments of the executor of command tasks.
    pub command_executor: Vec<String>,
}

/// The agent's state and its rules.
pub struct Core {
    config: CoreConfig,
    /// Draws UUIDs of version 4.
    random: Box<dyn FnMut() -> uuid::Uuid + Send>,
    /// `id` is set once the master has given one.
    pub(super) info: pb::AgentInfo,
    pub(super) frameworks: BTreeMap<FrameworkId, Framework>,
    pub(super) completed_frameworks: VecDeque<Framework>,
    updates: Updates,
    /// What the agent has with reservations and volumes, once an operation has changed it.
    pub(super) checkpointed: Option<Vec<pb::Resource>>,
    /// An operator takes the agent out of use.
    drain: Option<pb::DrainConfig>,
    connected: bool,
    /// Until when executors of an earlier agent process are waited for.
    recovering: Option<Time>,
    effects: Vec<Effect>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("agent", &self.info.id)
            .field("frameworks", &self.frameworks.len())
            .finish_non_exhaustive()
    }
}

impl Core {
    /// An agent that is new, or has nothing to take over.
    pub fn new(
        config: CoreConfig,
        info: pb::AgentInfo,
        random: Box<dyn FnMut() -> uuid::Uuid + Send>,
    ) -> Self {
        Self {
            config,
            random,
            info,
            frameworks: BTreeMap::new(),
            completed_frameworks: VecDeque::new(),
            updates: Updates::new(),
            checkpointed: None,
            drain: None,
            connected: false,
            recovering: None,
            effects: Vec::new(),
        }
    }

    /// What is to be done since the last time.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The agent's id, empty before its first registration.
    pub fn agent_id(&self) -> AgentId {
        AgentId::from(self.info.id.as_ref().map_or("", |id| id.value.as_str()))
    }

    /// Whether executors of an earlier agent process are still waited for.
    pub const fn is_recovering(&self) -> bool {
        self.recovering.is_some()
    }

    /// When [`Self::tick`] has something to do.
    pub fn deadline(&self) -> Option<Time> {
        let executors = self
            .frameworks
            .values()
            .flat_map(|f| f.executors.values())
            .filter_map(|e| e.waiting.map(|(_, at)| at));
        executors
            .chain(self.updates.deadline())
            .chain(self.recovering)
            .min()
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Time) {
        if self.recovering.is_some_and(|at| at <= now) {
            self.give_up_on_missing_executors();
        }
        let mut due = Vec::new();
        for (framework, f) in &self.frameworks {
            for (executor, e) in &f.executors {
                if let Some((waiting, at)) = e.waiting
                    && at <= now
                {
                    due.push((framework.clone(), executor.clone(), waiting));
                }
            }
        }
        for (framework, executor, waiting) in due {
            self.waited_long_enough(&framework, &executor, waiting);
        }
        let mut out = Vec::new();
        self.updates.due(now, &mut out);
        self.forward(out);
    }

    fn waited_long_enough(
        &mut self,
        framework: &FrameworkId,
        executor: &ExecutorId,
        waiting: Waiting,
    ) {
        let timeout = super::duration::format(self.config.registration_timeout);
        let Some(e) = self.executor_mut(framework, executor) else {
            return;
        };
        e.waiting = None;
        if waiting == Waiting::Registration {
            tracing::warn!(%framework, %executor, %timeout, "an executor did not register in time");
            e.pending.get_or_insert(model::PendingTermination {
                state: pb::TaskState::TaskFailed,
                reason: pb::task_status::Reason::ExecutorRegistrationTimeout,
                message: format!("Executor did not register within {timeout}"),
            });
        } else {
            tracing::warn!(%framework, %executor, "an executor did not shut down in time");
        }
        e.state = ExecutorState::Terminating;
        let container = e.container.clone();
        self.effects.push(Effect::Destroy(container));
    }

    /// What the agent tells a master to be registered.
    pub fn introduce(&self, version: &str, checkpoint: bool) -> protocol::Subscribe {
        let mut subscribe = protocol::Subscribe {
            info: self.info.clone(),
            ip: self.config.ip.to_string(),
            capabilities: capabilities(),
            version: version.to_owned(),
            checkpoint,
            checkpointed: self.checkpointed.clone().unwrap_or_default(),
            ..Default::default()
        };
        for framework in self.frameworks.values().filter(|f| !f.terminating) {
            subscribe.frameworks.push(framework.info.clone());
            let id = framework.id();
            for executor in framework.executors.values() {
                if !executor.command_task && executor.state != ExecutorState::Terminated {
                    let mut info = executor.info.clone();
                    info.framework_id = Some(id.to_pb());
                    subscribe.executors.push(info);
                }
                subscribe.tasks.extend(
                    executor
                        .queued
                        .iter()
                        .map(|q| model::task_of(&q.task, &id, executor.command_task)),
                );
                let live = executor.launched.iter().chain(&executor.terminated);
                subscribe.tasks.extend(live.cloned());
            }
        }
        subscribe
    }

    /// Whether a master has taken this agent's introduction.
    pub const fn is_connected(&self) -> bool {
        self.connected
    }

    /// The master is gone; executors go on.
    pub fn disconnected(&mut self) {
        self.connected = false;
        self.updates.pause();
    }

    /// The master has said something.
    pub fn from_master(&mut self, now: Time, message: to_agent::Message) {
        use to_agent::Message as M;
        match message {
            M::Registered(registered) => self.registered(now, registered),
            M::Refused(_) => {}
            M::Ping(_) => self.send(from_agent::Message::Pong(protocol::Pong {})),
            M::RunTask(run) => self.run_task(now, run),
            M::RunTaskGroup(run) => self.run_task_group(now, run),
            M::KillTask(kill) => self.kill_task(now, &kill),
            M::ShutdownExecutor(shutdown) => {
                let framework = FrameworkId::from(&shutdown.framework_id);
                let executor = ExecutorId::from(&shutdown.executor_id);
                self.shut_down_executor(now, &framework, &executor);
            }
            M::ShutdownFramework(shutdown) => {
                self.shut_down_framework(now, &FrameworkId::from(&shutdown.framework_id));
            }
            M::Acknowledge(ack) => self.acknowledged(now, &ack),
            M::FrameworkMessage(message) => self.tell_executor(message),
            M::UpdateFramework(update) => self.update_framework(now, update.framework),
            M::ApplyOperation(operation) => self.apply_operation(operation),
            M::Drain(drain) => self.drain(now, &drain),
            M::Shutdown(shutdown) => {
                tracing::warn!(message = %shutdown.message, "the master shuts this agent down");
                let frameworks: Vec<_> = self.frameworks.keys().cloned().collect();
                for framework in frameworks {
                    self.shut_down_framework(now, &framework);
                }
                self.effects.push(Effect::Exit(shutdown.message));
            }
        }
    }

    /// What the agent has: as it was started, or as operations have made it.
    pub fn total(&self) -> &[pb::Resource] {
        self.checkpointed.as_deref().unwrap_or(&self.info.resources)
    }

    /// Volumes are made before they are on the books and removed after they are off them: a
    /// crash in between leaves a directory too many, never one too few.
    fn apply_operation(&mut self, operation: protocol::ApplyOperation) {
        let before = volumes::keys_of(self.total());
        let after = volumes::keys_of(&operation.total);
        for volume in after.difference(&before) {
            self.effects.push(Effect::CreateVolume(volume.clone()));
        }
        self.remember(Record::Resources(operation.total.clone()));
        self.checkpointed = Some(operation.total);
        for volume in before.difference(&after) {
            self.effects.push(Effect::RemoveVolume(volume.clone()));
        }
        if operation.wants_feedback {
            let uuid = self.uuid().as_bytes().to_vec();
            self.send(from_agent::Message::OperationApplied(
                protocol::OperationApplied {
                    serial: operation.serial,
                    uuid,
                },
            ));
        }
    }

    fn registered(&mut self, now: Time, registered: protocol::Registered) {
        if self.info.id.is_none() {
            self.info.id = Some(registered.agent_id);
            let record = Record::Agent(self.info.clone());
            self.remember(record);
        }
        self.connected = true;
        // What an operator wants of this agent follows.
        self.drain = None;
        let mut out = Vec::new();
        self.updates.resume(now, &mut out);
        self.forward(out);
        for task in registered.reconcile {
            let framework = FrameworkId::from(&task.framework_id);
            let id = TaskId::from(&task.task_id);
            let known = self
                .frameworks
                .get(&framework)
                .is_some_and(|f| f.executor_of(&id).is_some());
            if known || self.updates.get(&framework, &id).is_some() {
                continue;
            }
            let state = if task.partition_aware {
                pb::TaskState::TaskDropped
            } else {
                pb::TaskState::TaskLost
            };
            let status = self.agent_status(
                &id,
                state,
                pb::task_status::Reason::Reconciliation,
                "Task is unknown to the agent",
                None,
                now,
            );
            // The framework may have nothing here: straight to the stream of updates.
            self.take_update(now, &framework, None, None, &status);
        }
    }

    /// It has changed, or its scheduler has come back and may have missed updates.
    fn update_framework(&mut self, now: Time, info: pb::FrameworkInfo) {
        let id = FrameworkId::from(info.id.as_ref().map_or("", |id| id.value.as_str()));
        let mut out = Vec::new();
        self.updates.resend(now, &id, &mut out);
        self.forward(out);
        let Some(framework) = self.frameworks.get_mut(&id) else {
            return;
        };
        framework.info = info.clone();
        if info.checkpoint() {
            self.remember(Record::Framework(info));
        }
    }

    fn tell_executor(&mut self, message: protocol::ExecutorMessage) {
        let framework = FrameworkId::from(&message.framework_id);
        let executor = ExecutorId::from(&message.executor_id);
        let Some(stream) = self
            .executor(&framework, &executor)
            .filter(|e| e.state == ExecutorState::Running)
            .and_then(|e| e.stream)
        else {
            tracing::warn!(%framework, %executor, "a message for an executor that does not run is dropped");
            return;
        };
        let event = pb::executor::Event {
            r#type: Some(pb::executor::event::Type::Message as i32),
            message: Some(pb::executor::event::Message { data: message.data }),
            ..Default::default()
        };
        self.effects.push(Effect::Tell(stream, Box::new(event)));
    }

    fn acknowledged(&mut self, now: Time, ack: &protocol::Acknowledge) {
        let framework = FrameworkId::from(&ack.framework_id);
        let task = TaskId::from(&ack.task_id);
        let mut out = Vec::new();
        let done = self
            .updates
            .acknowledge(now, &framework, &task, &ack.uuid, &mut out);
        let Some(done) = done else {
            tracing::warn!(%framework, %task, "an acknowledgement that nothing waits for is ignored");
            return;
        };
        if let Some((executor, container)) = done.place {
            let run = Run {
                framework: framework.clone(),
                executor,
                container,
            };
            self.remember_updates(run, &framework, &task, done.terminal);
        }
        self.forward(out);
        if !done.terminal {
            return;
        }
        let Some(f) = self.frameworks.get_mut(&framework) else {
            return;
        };
        if let Some(executor) = f.executor_of(&task)
            && let Some(e) = f.executors.get_mut(&executor)
        {
            e.complete(&task);
            if e.state == ExecutorState::Terminated && !e.has_incomplete_tasks() {
                self.remove_executor(&framework, &executor);
            }
        }
        self.remove_framework_if_idle(&framework);
    }

    fn remember_updates(&mut self, run: Run, framework: &FrameworkId, task: &TaskId, done: bool) {
        let (pending, acknowledged) = match self.updates.get(framework, task) {
            Some(stream) => (
                stream.pending.iter().cloned().collect(),
                stream.acknowledged.clone(),
            ),
            None => (Vec::new(), Vec::new()),
        };
        let statuses = self
            .executor(framework, &run.executor)
            .and_then(|e| {
                let mut live = e.launched.iter().chain(&e.terminated);
                live.find(|t| t.task_id.value == task.as_str())
            })
            .map(|t| t.statuses.clone())
            .unwrap_or_default();
        self.remember(Record::Updates {
            run,
            task: task.clone(),
            pending,
            acknowledged,
            statuses,
            done,
        });
    }

    /// Puts a finished status on its way. Returns whether it is on its way now.
    fn take_update(
        &mut self,
        now: Time,
        framework: &FrameworkId,
        executor: Option<&ExecutorId>,
        run: Option<Run>,
        status: &pb::TaskStatus,
    ) -> bool {
        let task = TaskId::from(&status.task_id);
        let mut out = Vec::new();
        let place = run
            .as_ref()
            .map(|r| (r.executor.clone(), r.container.clone()));
        let received = self
            .updates
            .receive(now, framework, executor, place, status, &mut out);
        match received {
            Received::New => {
                if let Some(run) = run {
                    self.remember_updates(run, framework, &task, false);
                }
                self.forward(out);
                true
            }
            Received::Duplicate => true,
            Received::Overflow => {
                tracing::error!(%framework, %task, "too many updates wait for acknowledgement; one is dropped");
                false
            }
        }
    }

    /// Sends updates to the master and notes which of a task's updates was sent last.
    fn forward(&mut self, updates: Vec<protocol::Update>) {
        for update in updates {
            let framework = FrameworkId::from(&update.framework_id);
            let task = TaskId::from(&update.status.task_id);
            if let Some(f) = self.frameworks.get_mut(&framework)
                && let Some(executor) = f.executor_of(&task)
                && let Some(e) = f.executors.get_mut(&executor)
            {
                let of_task = |t: &&mut pb::Task| t.task_id.value == task.as_str();
                let mut tasks = e.launched.iter_mut().chain(e.terminated.iter_mut());
                if let Some(t) = tasks.find(of_task) {
                    t.status_update_state = Some(update.status.state);
                    t.status_update_uuid = update.status.uuid.clone();
                }
            }
            self.send(from_agent::Message::Update(update));
        }
    }

    fn send(&mut self, message: from_agent::Message) {
        self.effects.push(Effect::Send(Box::new(message)));
    }

    fn remember(&mut self, record: Record) {
        self.effects.push(Effect::Remember(Box::new(record)));
    }

    fn uuid(&mut self) -> uuid::Uuid {
        (self.random)()
    }

    /// The container of an executor that is known.
    pub fn container_of(
        &self,
        framework: &FrameworkId,
        executor: &ExecutorId,
    ) -> Option<ContainerId> {
        let executor = self.executor(framework, executor)?;
        Some(executor.container.clone())
    }

    fn executor(&self, framework: &FrameworkId, executor: &ExecutorId) -> Option<&Executor> {
        self.frameworks.get(framework)?.executors.get(executor)
    }

    fn executor_mut(
        &mut self,
        framework: &FrameworkId,
        executor: &ExecutorId,
    ) -> Option<&mut Executor> {
        self.frameworks
            .get_mut(framework)?
            .executors
            .get_mut(executor)
    }

    /// A status that the agent itself makes.
    fn agent_status(
        &mut self,
        task: &TaskId,
        state: pb::TaskState,
        reason: pb::task_status::Reason,
        message: &str,
        executor: Option<&ExecutorId>,
        now: Time,
    ) -> pb::TaskStatus {
        pb::TaskStatus {
            task_id: task.to_pb(),
            state: state as i32,
            message: Some(message.to_owned()),
            source: Some(pb::task_status::Source::Agent as i32),
            reason: Some(reason as i32),
            agent_id: self.info.id.clone(),
            executor_id: executor.map(ExecutorId::to_pb),
            timestamp: Some(now.as_secs_f64()),
            uuid: Some(self.uuid().as_bytes().to_vec()),
            ..Default::default()
        }
    }

    fn remove_executor(&mut self, framework: &FrameworkId, executor: &ExecutorId) {
        let Some(f) = self.frameworks.get_mut(framework) else {
            return;
        };
        let Some(mut e) = f.executors.remove(executor) else {
            return;
        };
        e.complete_all();
        let run = Run {
            framework: framework.clone(),
            executor: executor.clone(),
            container: e.container.clone(),
        };
        f.completed.push_back(e);
        while f.completed.len() > MAX_COMPLETED_EXECUTORS {
            f.completed.pop_front();
        }
        if f.info.checkpoint() {
            self.remember(Record::ExecutorDone(run.clone()));
        }
        self.effects.push(Effect::Abandon(run));
    }

    fn remove_framework_if_idle(&mut self, framework: &FrameworkId) {
        if !self
            .frameworks
            .get(framework)
            .is_some_and(|f| f.executors.is_empty())
        {
            return;
        }
        if let Some(f) = self.frameworks.remove(framework) {
            self.updates.forget(framework);
            if self.frameworks.is_empty() {
                self.drain = None;
            }
            self.completed_frameworks.push_back(f);
            while self.completed_frameworks.len() > MAX_COMPLETED_FRAMEWORKS {
                self.completed_frameworks.pop_front();
            }
        }
    }
}

/// What this agent can do, as it tells the master.
pub fn capabilities() -> Vec<pb::agent_info::Capability> {
    use pb::agent_info::capability::Type as T;
    [
        T::MultiRole,
        T::HierarchicalRole,
        T::ReservationRefinement,
        T::ResourceProvider,
        T::ResizeVolume,
        T::AgentOperationFeedback,
        T::AgentDraining,
        T::TaskResourceLimits,
    ]
    .into_iter()
    .map(|t| pb::agent_info::Capability {
        r#type: Some(t as i32),
    })
    .collect()
}
