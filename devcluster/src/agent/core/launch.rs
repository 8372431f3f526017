//! Launching, killing and ending: what the master asks for, and what containers do.

use std::time::Duration;

use mesos::pb;
use pb::TaskState;
use pb::task_status::Reason;

use super::model::{
    Executor, ExecutorState, Framework, PendingTermination, Queued, Waiting, command_executor,
    task_of,
};
use super::{Core, Effect, Launch, Record, Run, Then};
use crate::agent::container::{Cause, ContainerId, Termination};
use crate::clock::Time;
use crate::ids::{self, ExecutorId, FrameworkId, TaskId};
use crate::protocol;

impl Core {
    pub(super) fn run_task(&mut self, now: Time, run: protocol::RunTask) {
        let command_task = run.task.executor.is_none();
        let framework = id_of(&run.framework);
        let info = match &run.task.executor {
            Some(info) => info.clone(),
            None => command_executor(&run.task, &framework, &self.config.command_executor),
        };
        let tasks = vec![run.task];
        self.run(
            now,
            run.framework,
            info,
            tasks,
            false,
            command_task,
            run.launch_executor,
        );
    }

    pub(super) fn run_task_group(&mut self, now: Time, run: protocol::RunTaskGroup) {
        let mut tasks = run.task_group.tasks;
        for task in &mut tasks {
            task.executor = Some(run.executor.clone());
        }
        self.run(
            now,
            run.framework,
            run.executor,
            tasks,
            true,
            false,
            run.launch_executor,
        );
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a task and a group differ in these"
    )]
    fn run(
        &mut self,
        now: Time,
        framework_info: pb::FrameworkInfo,
        mut info: pb::ExecutorInfo,
        tasks: Vec<pb::TaskInfo>,
        group: bool,
        command_task: bool,
        launch_executor: bool,
    ) {
        let framework = id_of(&framework_info);
        let executor = ExecutorId::from(&info.executor_id);
        info.framework_id = Some(framework.to_pb());
        let task_ids: Vec<_> = tasks.iter().map(|t| TaskId::from(&t.task_id)).collect();
        // Ids name directories. The master has checked them; the agent runs as root.
        let names = task_ids.iter().map(TaskId::as_str);
        let names = names.chain([framework.as_str(), executor.as_str()]);
        if let Some(why) = names.filter_map(ids::why_invalid).next() {
            tracing::error!(%framework, %executor, why, "a task with an unusable id is ignored");
            return;
        }
        let f = self
            .frameworks
            .entry(framework.clone())
            .or_insert_with(|| Framework::new(framework_info.clone()));
        if f.terminating {
            tracing::warn!(%framework, "a task of a framework that is being shut down is ignored");
            return;
        }
        f.info = framework_info;
        let checkpoint = f.info.checkpoint();

        let refused = match f.executors.get(&executor) {
            Some(_) if command_task => {
                Some("Cannot reuse an already existing executor for a command task")
            }
            Some(_) if launch_executor => {
                Some("Master wants to launch executor, but one already exists")
            }
            None if !launch_executor => {
                Some("No executor is expected to launch and there is none running")
            }
            Some(e) if e.state == ExecutorState::Terminating => Some("Executor terminating"),
            Some(e) if e.state == ExecutorState::Terminated => Some("Executor terminated"),
            _ => None,
        };
        if let Some(message) = refused {
            let ended = f
                .executors
                .get(&executor)
                .is_some_and(|e| e.state == ExecutorState::Terminated);
            for task in &task_ids {
                self.drop_task(now, &framework, &executor, task, message);
            }
            if launch_executor && ended && !command_task {
                // The master had heard of its end before it sent this, and now has it in its books
                // again. One that still lives is reported when it ends.
                self.executor_exited(&framework, &executor, -1);
            }
            self.remove_framework_if_idle(&framework);
            return;
        }

        let queue = |e: &mut Executor| {
            let number = group.then_some(e.next_group);
            e.next_group += u64::from(group);
            e.queued.extend(tasks.into_iter().map(|task| Queued {
                task,
                group: number,
            }));
        };
        if let Some(e) = self.executor_mut(&framework, &executor) {
            queue(e);
            if e.state == ExecutorState::Running {
                self.grant_then_deliver(&framework, &executor, task_ids);
            }
            return;
        }

        let container = ContainerId::from(self.uuid().to_string());
        let agent = self.agent_id();
        let directory = self
            .config
            .layout
            .sandbox(&agent, &framework, &executor, &container);
        let mut e = Executor::new(info.clone(), container.clone(), directory, command_task);
        queue(&mut e);
        e.waiting = Some((
            Waiting::Registration,
            now + self.config.registration_timeout,
        ));
        let Some(f) = self.frameworks.get_mut(&framework) else {
            return;
        };
        let launch = Launch {
            framework: f.info.clone(),
            user: info
                .command
                .as_ref()
                .and_then(|c| c.user.clone())
                .or_else(|| Some(f.info.user.clone()).filter(|u| !u.is_empty())),
            executor: info.clone(),
            command_task,
            container: container.clone(),
            sandbox: e.directory.clone(),
            grant: e.grant(),
            volumes: e.volumes(),
            secrets: e.secrets(),
        };
        let framework_info = f.info.clone();
        f.executors.insert(executor.clone(), e);
        if checkpoint {
            self.remember(Record::Framework(framework_info));
            self.remember(Record::Executor {
                framework,
                info,
                container,
                command_task,
            });
        }
        self.effects.push(Effect::Launch(Box::new(launch)));
    }

    fn executor_exited(&mut self, framework: &FrameworkId, executor: &ExecutorId, status: i32) {
        let exited = protocol::ExitedExecutor {
            framework_id: framework.to_pb(),
            executor_id: executor.to_pb(),
            status,
        };
        self.send(protocol::from_agent::Message::ExitedExecutor(exited));
    }

    fn drop_task(
        &mut self,
        now: Time,
        framework: &FrameworkId,
        executor: &ExecutorId,
        task: &TaskId,
        message: &str,
    ) {
        let state = self.state_for(framework, TaskState::TaskDropped);
        let reason = Reason::ExecutorTerminated;
        let status = self.agent_status(task, state, reason, message, Some(executor), now);
        self.agent_update(now, framework, status);
    }

    /// `state`, or TASK_LOST for a framework that does not know it.
    pub(super) fn state_for(&self, framework: &FrameworkId, state: TaskState) -> TaskState {
        self.frameworks
            .get(framework)
            .map_or(state, |f| f.or_lost(state))
    }

    /// Grants what the executor's tasks need now, and then sends it some of them.
    pub(super) fn grant_then_deliver(
        &mut self,
        framework: &FrameworkId,
        executor: &ExecutorId,
        deliver: Vec<TaskId>,
    ) {
        let Some(e) = self.executor(framework, executor) else {
            return;
        };
        self.effects.push(Effect::Update {
            container: e.container.clone(),
            grant: e.grant(),
            sandbox: e.directory.clone(),
            volumes: e.volumes(),
            then: Then {
                framework: framework.clone(),
                executor: executor.clone(),
                deliver,
            },
        });
    }

    /// A container has its new grant, or could not get it.
    pub fn updated(&mut self, container: &ContainerId, then: Then, result: Result<(), String>) {
        let framework_id = then.framework;
        let lost = self.state_for(&framework_id, TaskState::TaskGone);
        let Some(e) = self.executor_mut(&framework_id, &then.executor) else {
            return;
        };
        if e.container != *container {
            return;
        }
        if let Err(why) = result {
            if matches!(e.state, ExecutorState::Terminated) {
                return;
            }
            tracing::error!(framework = %framework_id, executor = %e.id, why, "a container did not get its resources; ending it");
            e.pending = Some(PendingTermination {
                state: lost,
                reason: Reason::ContainerUpdateFailed,
                message: format!("Failed to update resources for container: {why}"),
            });
            e.state = ExecutorState::Terminating;
            self.effects.push(Effect::Destroy(container.clone()));
            return;
        }
        let (ExecutorState::Running, Some(stream)) = (e.state, e.stream) else {
            // Delivered at its next subscription.
            return;
        };
        let taken = e.dequeue(&then.deliver);
        if taken.is_empty() {
            return;
        }
        let command_task = e.command_task;
        let run = Run {
            framework: framework_id.clone(),
            executor: then.executor.clone(),
            container: container.clone(),
        };
        let tasks: Vec<_> = taken
            .iter()
            .map(|q| task_of(&q.task, &framework_id, command_task))
            .collect();
        e.launched.extend(tasks.iter().cloned());
        let checkpoint = self
            .frameworks
            .get(&framework_id)
            .is_some_and(|f| f.info.checkpoint());
        if checkpoint {
            for task in tasks {
                self.remember(Record::Task {
                    run: run.clone(),
                    task,
                });
            }
        }
        for event in launch_events(taken) {
            self.effects.push(Effect::Tell(stream, Box::new(event)));
        }
    }

    pub(super) fn kill_task(&mut self, now: Time, kill: &protocol::KillTask) {
        let framework = FrameworkId::from(&kill.framework_id);
        let task = TaskId::from(&kill.task_id);
        let Some(f) = self.frameworks.get(&framework).filter(|f| !f.terminating) else {
            tracing::warn!(%framework, %task, "a kill for a framework that is not here is ignored");
            return;
        };
        let Some(executor) = f.executor_of(&task) else {
            tracing::warn!(%framework, %task, "a kill for a task that is not here");
            let state = f.or_lost(TaskState::TaskDropped);
            let reason = Reason::ExecutorTerminated;
            let message = "Cannot find executor";
            let status = self.agent_status(&task, state, reason, message, None, now);
            self.agent_update(now, &framework, status);
            return;
        };
        let Some(e) = f.executors.get(&executor) else {
            return;
        };
        let queued = e.queued.iter().find(|q| q.task.task_id == kill.task_id);
        match (e.state, queued) {
            (ExecutorState::Terminating | ExecutorState::Terminated, _) => {
                tracing::warn!(%framework, %task, "a kill for a task of an ending executor is ignored");
            }
            (_, Some(queued)) => {
                let (ids, message) = match queued.group {
                    Some(group) => (
                        e.queued
                            .iter()
                            .filter(|q| q.group == Some(group))
                            .map(|q| TaskId::from(&q.task.task_id))
                            .collect(),
                        "A task within the task group was killed before delivery to the executor",
                    ),
                    None => (vec![task], "Killed before delivery to the executor"),
                };
                for id in ids {
                    let reason = Reason::TaskKilledDuringLaunch;
                    let state = TaskState::TaskKilled;
                    let status =
                        self.agent_status(&id, state, reason, message, Some(&executor), now);
                    self.agent_update(now, &framework, status);
                }
                let unused = self.executor(&framework, &executor).is_some_and(|e| {
                    e.state == ExecutorState::Running && e.queued.is_empty() && !e.was_sent_a_task()
                });
                if unused {
                    self.shut_down_executor(now, &framework, &executor);
                }
            }
            (_, None) => {
                let event = pb::executor::Event {
                    r#type: Some(pb::executor::event::Type::Kill as i32),
                    kill: Some(pb::executor::event::Kill {
                        task_id: kill.task_id.clone(),
                        kill_policy: kill.kill_policy,
                    }),
                    ..Default::default()
                };
                match e.stream {
                    Some(stream) => self.effects.push(Effect::Tell(stream, Box::new(event))),
                    // As in Mesos: the framework repeats it.
                    None => {
                        tracing::warn!(%framework, %executor, %task, "a kill is lost: the executor is not subscribed")
                    }
                }
            }
        }
    }

    /// SHUTDOWN, and the end by force after the grace period.
    pub(super) fn shut_down_executor(
        &mut self,
        now: Time,
        framework: &FrameworkId,
        executor: &ExecutorId,
    ) {
        let default = self.config.shutdown_grace_period;
        let Some(e) = self.executor_mut(framework, executor) else {
            tracing::warn!(%framework, %executor, "an executor that is not here cannot be shut down");
            return;
        };
        if matches!(
            e.state,
            ExecutorState::Terminating | ExecutorState::Terminated
        ) {
            return;
        }
        e.state = ExecutorState::Terminating;
        let own = e
            .info
            .shutdown_grace_period
            .and_then(|d| u64::try_from(d.nanoseconds).ok())
            .map(Duration::from_nanos);
        e.waiting = Some((Waiting::Shutdown, now + own.unwrap_or(default)));
        if let Some(stream) = e.stream {
            self.effects
                .push(Effect::Tell(stream, Box::new(shutdown())));
        }
    }

    pub(super) fn shut_down_framework(&mut self, now: Time, framework: &FrameworkId) {
        let Some(f) = self.frameworks.get_mut(framework) else {
            return;
        };
        f.terminating = true;
        self.updates.forget(framework);
        let executors: Vec<_> = f
            .executors
            .values()
            .map(|e| (e.id.clone(), e.state))
            .collect();
        for (executor, state) in executors {
            if state == ExecutorState::Terminated {
                self.remove_executor(framework, &executor);
            } else {
                self.shut_down_executor(now, framework, &executor);
            }
        }
        self.remove_framework_if_idle(framework);
    }

    fn of_container(&self, container: &ContainerId) -> Option<(FrameworkId, ExecutorId)> {
        self.frameworks.iter().find_map(|(id, f)| {
            let e = f.executors.values().find(|e| e.container == *container)?;
            Some((id.clone(), e.id.clone()))
        })
    }

    /// The init process of a container runs.
    pub fn launched(&mut self, container: &ContainerId, pid: u32) {
        let Some((framework, executor)) = self.of_container(container) else {
            self.effects.push(Effect::Destroy(container.clone()));
            return;
        };
        let Some(e) = self.executor_mut(&framework, &executor) else {
            return;
        };
        e.pid = Some(pid);
        // Told to end before there was anybody to tell. Its subscription would be answered with
        // SHUTDOWN, but its grace has begun already.
        if e.state == ExecutorState::Terminating {
            self.effects.push(Effect::Destroy(container.clone()));
        }
    }

    /// A container could not be started; its termination follows.
    pub fn launch_failed(&mut self, container: &ContainerId, message: &str) {
        let Some((framework, executor)) = self.of_container(container) else {
            return;
        };
        if let Some(e) = self.executor_mut(&framework, &executor) {
            e.pending = Some(PendingTermination {
                state: TaskState::TaskFailed,
                reason: Reason::ContainerLaunchFailed,
                message: format!("Failed to launch container: {message}"),
            });
        }
    }

    /// The sandbox of a container could not be made: there is no container.
    pub fn sandbox_failed(&mut self, now: Time, container: &ContainerId, message: &str) {
        let Some((framework, executor)) = self.of_container(container) else {
            return;
        };
        let state = self.state_for(&framework, TaskState::TaskDropped);
        let Some(e) = self.executor_mut(&framework, &executor) else {
            return;
        };
        e.pending = Some(PendingTermination {
            state,
            reason: Reason::ExecutorTerminated,
            message: message.to_owned(),
        });
        let termination = Termination {
            status: None,
            cause: None,
        };
        self.terminated(now, container, &termination);
    }

    /// A container has ended and nothing of it is left.
    pub fn terminated(&mut self, now: Time, container: &ContainerId, termination: &Termination) {
        let Some((framework, executor)) = self.of_container(container) else {
            return;
        };
        let terminating = self
            .frameworks
            .get(&framework)
            .is_some_and(|f| f.terminating);
        let Some(e) = self.executor_mut(&framework, &executor) else {
            return;
        };
        if e.state == ExecutorState::Terminated {
            return;
        }
        tracing::info!(%framework, %executor, %container, ?termination, "an executor has ended");
        e.state = ExecutorState::Terminated;
        e.waiting = None;
        e.pid = None;
        let stream = e.stream.take();
        let command_task = e.command_task;
        let pending = e.pending.clone();
        let tasks: Vec<_> = e
            .launched
            .iter()
            .map(|t| TaskId::from(&t.task_id))
            .chain(e.queued.iter().map(|q| TaskId::from(&q.task.task_id)))
            .collect();
        if let Some(stream) = stream {
            self.effects.push(Effect::Close(stream));
        }
        if !command_task {
            let status = termination.status.unwrap_or(-1);
            self.executor_exited(&framework, &executor, status);
        }
        if terminating {
            self.remove_executor(&framework, &executor);
            self.remove_framework_if_idle(&framework);
            return;
        }
        let (state, reason, message, limitation) = words(pending, termination.cause.as_ref());
        for task in tasks {
            let mut status =
                self.agent_status(&task, state, reason, &message, Some(&executor), now);
            status.limitation.clone_from(&limitation);
            self.agent_update(now, &framework, status);
        }
        let done = self
            .executor(&framework, &executor)
            .is_some_and(|e| !e.has_incomplete_tasks());
        if done {
            self.remove_executor(&framework, &executor);
            self.remove_framework_if_idle(&framework);
        }
    }
}

/// What the tasks of an ended executor are told.
fn words(
    pending: Option<PendingTermination>,
    cause: Option<&Cause>,
) -> (
    TaskState,
    Reason,
    String,
    Option<pb::TaskResourceLimitation>,
) {
    let (mut state, mut reason) = (TaskState::TaskFailed, Reason::ExecutorTerminated);
    let mut messages = Vec::new();
    if let Some(pending) = pending {
        (state, reason) = (pending.state, pending.reason);
        messages.push(pending.message);
    }
    let mut limitation = None;
    match cause {
        Some(Cause::Memory { message, limit_mib }) => {
            (state, reason) = (TaskState::TaskFailed, Reason::ContainerLimitationMemory);
            messages.push(message.clone());
            limitation = Some(pb::TaskResourceLimitation {
                resources: vec![pb::Resource {
                    name: "mem".to_owned(),
                    r#type: pb::value::Type::Scalar as i32,
                    scalar: Some(pb::value::Scalar { value: *limit_mib }),
                    ..Default::default()
                }],
            });
        }
        Some(Cause::DestroyFailed(why)) => {
            messages.push(format!("Abnormal executor termination: {why}"));
        }
        None => {}
    }
    if messages.is_empty() {
        messages.push("Executor terminated".to_owned());
    }
    (state, reason, messages.join("; "), limitation)
}

/// LAUNCH for single tasks, LAUNCH_GROUP for those that came together, in order.
fn launch_events(taken: Vec<Queued>) -> Vec<pb::executor::Event> {
    use pb::executor::event::{Launch, LaunchGroup, Type};
    let mut events = Vec::new();
    let mut groups: Vec<(u64, Vec<pb::TaskInfo>)> = Vec::new();
    for queued in taken {
        match queued.group {
            None => events.push(pb::executor::Event {
                r#type: Some(Type::Launch as i32),
                launch: Some(Launch { task: queued.task }),
                ..Default::default()
            }),
            Some(number) => match groups.last_mut() {
                Some((last, tasks)) if *last == number => tasks.push(queued.task),
                _ => groups.push((number, vec![queued.task])),
            },
        }
    }
    events.extend(groups.into_iter().map(|(_, tasks)| pb::executor::Event {
        r#type: Some(Type::LaunchGroup as i32),
        launch_group: Some(LaunchGroup {
            task_group: pb::TaskGroupInfo { tasks },
        }),
        ..Default::default()
    }));
    events
}

/// The SHUTDOWN event.
pub(super) fn shutdown() -> pb::executor::Event {
    pb::executor::Event {
        r#type: Some(pb::executor::event::Type::Shutdown as i32),
        ..Default::default()
    }
}

fn id_of(framework: &pb::FrameworkInfo) -> FrameworkId {
    FrameworkId::from(framework.id.as_ref().map_or("", |id| id.value.as_str()))
}
