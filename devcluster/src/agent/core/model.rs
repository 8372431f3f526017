//! What an agent knows: frameworks, their executors on this agent, and their tasks.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use mesos::pb;

use crate::clock::Time;
use crate::ids::{ExecutorId, FrameworkId, TaskId};

use super::super::container::{ContainerId, Grant};
use super::super::volumes;
use super::updates::is_terminal;

/// Ended executors that are remembered per framework (Mesos'
/// `--max_completed_executors_per_framework`).
pub const MAX_COMPLETED_EXECUTORS: usize = 150;
/// Ended tasks that are remembered per executor (Mesos).
pub const MAX_COMPLETED_TASKS: usize = 200;
/// Ended frameworks that are remembered (Mesos).
pub const MAX_COMPLETED_FRAMEWORKS: usize = 50;
/// What Mesos adds for the command executor itself, beyond the task and unknown to the master.
const COMMAND_EXECUTOR_CPUS: f64 = 0.1;
/// MiB, likewise.
const COMMAND_EXECUTOR_MEM: f64 = 32.0;

/// A framework with something on this agent.
#[derive(Debug, Clone)]
pub struct Framework {
    /// As the master told it last, `id` set.
    pub info: pb::FrameworkInfo,
    /// Whether it is being shut down.
    pub terminating: bool,
    /// Its executors that have not been removed.
    pub executors: BTreeMap<ExecutorId, Executor>,
    /// Its executors of the past.
    pub completed: VecDeque<Executor>,
}

/// Whether a framework understands states newer than TASK_LOST.
pub(crate) fn is_partition_aware(info: &pb::FrameworkInfo) -> bool {
    let wanted = pb::framework_info::capability::Type::PartitionAware;
    info.capabilities.iter().any(|c| c.r#type() == wanted)
}

impl Framework {
    /// A framework that is new here.
    pub const fn new(info: pb::FrameworkInfo) -> Self {
        Self {
            info,
            terminating: false,
            executors: BTreeMap::new(),
            completed: VecDeque::new(),
        }
    }

    /// Its id.
    pub fn id(&self) -> FrameworkId {
        FrameworkId::from(self.info.id.as_ref().map_or("", |id| id.value.as_str()))
    }

    /// Whether it understands states newer than TASK_LOST.
    pub fn partition_aware(&self) -> bool {
        is_partition_aware(&self.info)
    }

    /// `state`, or TASK_LOST for a framework that does not know it.
    pub fn or_lost(&self, state: pb::TaskState) -> pb::TaskState {
        if self.partition_aware() {
            state
        } else {
            pb::TaskState::TaskLost
        }
    }

    /// The executor that has a task, queued, launched or not yet acknowledged.
    pub fn executor_of(&self, task: &TaskId) -> Option<ExecutorId> {
        self.executors
            .values()
            .find(|e| e.has_task(task))
            .map(|e| e.id.clone())
    }
}

/// Where an executor is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecutorState {
    /// Being started, or expected back after the agent's restart.
    Registering,
    /// Subscribed at least once.
    Running,
    /// Told to end, or being ended.
    Terminating,
    /// Its container is gone.
    Terminated,
}

/// Names one subscription of an executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// What the agent waits for on an executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Its first subscription; then it is ended.
    Registration,
    /// Its end after SHUTDOWN; then it is killed.
    Shutdown,
}

/// What the tasks are told when their executor is gone.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingTermination {
    /// The state.
    pub state: pb::TaskState,
    /// The reason.
    pub reason: pb::task_status::Reason,
    /// The message.
    pub message: String,
}

/// A task that the executor has not been sent yet.
#[derive(Debug, Clone)]
pub struct Queued {
    /// The task.
    pub task: pb::TaskInfo,
    /// Number of its task group within the executor, if it came with one.
    pub group: Option<u64>,
}

/// An executor on this agent.
#[derive(Debug, Clone)]
pub struct Executor {
    /// Its id.
    pub id: ExecutorId,
    /// Exactly as the master sent it, or made for a command task.
    pub info: pb::ExecutorInfo,
    /// Its container.
    pub container: ContainerId,
    /// Its sandbox.
    pub directory: PathBuf,
    /// Where it is in its life.
    pub state: ExecutorState,
    /// Whether it was made for one command task.
    pub command_task: bool,
    /// Its subscription.
    pub stream: Option<StreamId>,
    /// Pid of its container's init process.
    pub pid: Option<u32>,
    /// Not sent yet, in order.
    pub queued: Vec<Queued>,
    /// Sent and not over.
    pub launched: Vec<pb::Task>,
    /// Over, the last update not acknowledged.
    pub terminated: Vec<pb::Task>,
    /// Over and acknowledged, the latest last.
    pub completed: VecDeque<pb::Task>,
    /// What the agent waits for, and until when.
    pub waiting: Option<(Waiting, Time)>,
    /// What its tasks are told at its end, if not `Executor terminated`.
    pub pending: Option<PendingTermination>,
    /// Number of the next task group.
    pub next_group: u64,
}

impl Executor {
    /// An executor that is about to be started.
    pub fn new(
        info: pb::ExecutorInfo,
        container: ContainerId,
        directory: PathBuf,
        command_task: bool,
    ) -> Self {
        Self {
            id: ExecutorId::from(&info.executor_id),
            info,
            container,
            directory,
            state: ExecutorState::Registering,
            command_task,
            stream: None,
            pid: None,
            queued: Vec::new(),
            launched: Vec::new(),
            terminated: Vec::new(),
            completed: VecDeque::new(),
            waiting: None,
            pending: None,
            next_group: 0,
        }
    }

    /// Whether a task is queued, launched, or over but not acknowledged.
    pub fn has_task(&self, task: &TaskId) -> bool {
        let id = task.as_str();
        self.queued.iter().any(|q| q.task.task_id.value == id)
            || self.launched.iter().any(|t| t.task_id.value == id)
            || self.terminated.iter().any(|t| t.task_id.value == id)
    }

    /// Whether any task has not come to its acknowledged end.
    pub fn has_incomplete_tasks(&self) -> bool {
        !self.queued.is_empty() || !self.launched.is_empty() || !self.terminated.is_empty()
    }

    /// Whether a task ever reached it. A task that was dropped before does not count.
    pub fn was_sent_a_task(&self) -> bool {
        let by_executor = |t: &pb::Task| {
            t.statuses
                .iter()
                .any(|s| s.source() == pb::task_status::Source::Executor)
        };
        !self.launched.is_empty()
            || self.terminated.iter().any(by_executor)
            || self.completed.iter().any(by_executor)
    }

    /// Takes the tasks with these ids off the queue.
    pub fn dequeue(&mut self, tasks: &[TaskId]) -> Vec<Queued> {
        let (taken, kept) = std::mem::take(&mut self.queued)
            .into_iter()
            .partition(|q| tasks.iter().any(|t| t.as_str() == q.task.task_id.value));
        self.queued = kept;
        taken
    }

    /// Moves a task that is over and acknowledged to the remembered ones.
    pub fn complete(&mut self, task: &TaskId) {
        let Some(i) = self
            .terminated
            .iter()
            .position(|t| t.task_id.value == task.as_str())
        else {
            return;
        };
        let task = self.terminated.remove(i);
        self.remember_completed([task]);
    }

    /// Nothing more will be heard of its tasks: they are remembered in the states that they
    /// had, as Mesos does with those of a framework that was torn down.
    pub fn complete_all(&mut self) {
        let terminated = std::mem::take(&mut self.terminated);
        let launched = std::mem::take(&mut self.launched);
        self.remember_completed(terminated.into_iter().chain(launched));
    }

    fn remember_completed(&mut self, tasks: impl IntoIterator<Item = pb::Task>) {
        self.completed.extend(tasks);
        while self.completed.len() > MAX_COMPLETED_TASKS {
            self.completed.pop_front();
        }
    }

    /// Persistent volumes of the executor and its live tasks.
    pub fn volumes(&self) -> Vec<volumes::Mount> {
        volumes::mounts_of(&self.resources())
    }

    /// Secrets that the executor and the tasks that wait for it refer to.
    pub fn secrets(&self) -> Vec<pb::Secret> {
        let commands = self.queued.iter().filter_map(|q| q.task.command.as_ref());
        let commands = commands.chain(self.info.command.as_ref());
        let variables = commands
            .flat_map(|c| &c.environment)
            .flat_map(|e| &e.variables);
        variables.filter_map(|v| v.secret.clone()).collect()
    }

    /// The resources of the executor and its live tasks.
    pub fn resources(&self) -> Vec<pb::Resource> {
        let mut all = self.info.resources.clone();
        for queued in &self.queued {
            all.extend(queued.task.resources.iter().cloned());
        }
        for task in &self.launched {
            all.extend(task.resources.iter().cloned());
        }
        all
    }

    /// What its container is to be granted.
    pub fn grant(&self) -> Grant {
        let all = self.resources();
        let tasks: Vec<_> = self
            .queued
            .iter()
            .map(|q| (&q.task.resources, &q.task.limits))
            .chain(self.launched.iter().map(|t| (&t.resources, &t.limits)))
            .collect();
        let limit = |name: &str| {
            // Without any limit Mesos gives none; with one, the tasks that have none count
            // with their requests.
            if !tasks.iter().any(|(_, limits)| limits.contains_key(name)) {
                return None;
            }
            let own = sum(&self.info.resources, name).unwrap_or(0.0);
            Some(tasks.iter().fold(own, |total, (resources, limits)| {
                total
                    + limits
                        .get(name)
                        .map_or_else(|| sum(resources, name).unwrap_or(0.0), |limit| limit.value)
            }))
        };
        Grant {
            cpus: sum(&all, "cpus"),
            mem: sum(&all, "mem"),
            cpus_limit: limit("cpus"),
            mem_limit: limit("mem"),
        }
    }

    /// Notes a status of one of its tasks. `Err` says why it does not fit.
    pub fn note(&mut self, framework: &FrameworkId, status: &pb::TaskStatus) -> Result<(), String> {
        let terminal = is_terminal(status.state());
        let id = TaskId::from(&status.task_id);
        let mut task = if let Some(i) = self
            .launched
            .iter()
            .position(|t| t.task_id == status.task_id)
        {
            if !terminal {
                add_status(&mut self.launched[i], status);
                return Ok(());
            }
            self.launched.remove(i)
        } else if self.queued.iter().any(|q| q.task.task_id == status.task_id) {
            if !terminal {
                return Err("Cannot send non-terminal update for queued task".to_owned());
            }
            match self.dequeue(&[id]).pop() {
                Some(queued) => task_of(&queued.task, framework, self.command_task),
                None => return Err("Task is unknown".to_owned()),
            }
        } else if let Some(t) = self.terminated.iter().find(|t| t.task_id == status.task_id) {
            let state = t.state().as_str_name();
            return Err(format!("Task is already terminated with state {state}"));
        } else {
            return Err("Task is unknown".to_owned());
        };
        add_status(&mut task, status);
        self.terminated.push(task);
        Ok(())
    }
}

fn add_status(task: &mut pb::Task, status: &pb::TaskStatus) {
    if task
        .statuses
        .last()
        .is_some_and(|s| s.state == status.state)
    {
        task.statuses.pop();
    }
    task.statuses.push(status.clone());
    task.state = status.state;
}

/// The sum of a scalar resource, if there is any.
pub fn sum(resources: &[pb::Resource], name: &str) -> Option<f64> {
    resources
        .iter()
        .filter(|r| r.name == name)
        .filter_map(|r| r.scalar.as_ref())
        .map(|s| s.value)
        .reduce(|a, b| a + b)
        // Mesos counts in thousandths; binary fractions must not show.
        .map(|total| (total * 1000.0).round() / 1000.0)
}

/// A task as agents and masters remember it.
pub fn task_of(task: &pb::TaskInfo, framework: &FrameworkId, command_task: bool) -> pb::Task {
    let executor = task.executor.as_ref();
    pb::Task {
        name: task.name.clone(),
        task_id: task.task_id.clone(),
        framework_id: framework.to_pb(),
        executor_id: executor
            .filter(|_| !command_task)
            .map(|e| e.executor_id.clone()),
        agent_id: task.agent_id.clone(),
        state: pb::TaskState::TaskStaging as i32,
        resources: task.resources.clone(),
        labels: task.labels.clone(),
        discovery: task.discovery.clone(),
        container: task.container.clone(),
        health_check: task.health_check.clone(),
        kill_policy: task.kill_policy,
        user: task
            .command
            .as_ref()
            .or(executor.and_then(|e| e.command.as_ref()))
            .and_then(|c| c.user.clone()),
        limits: task.limits.clone(),
        ..Default::default()
    }
}

/// The executor that Mesos makes for a task that has only a command. `program` is the agent's
/// own command executor with its arguments.
pub fn command_executor(
    task: &pb::TaskInfo,
    framework: &FrameworkId,
    program: &[String],
) -> pb::ExecutorInfo {
    let command = task.command.clone().unwrap_or_default();
    let role = task
        .resources
        .iter()
        .find_map(|r| r.allocation_info.clone());
    let resource = |name: &str, value| pb::Resource {
        name: name.to_owned(),
        r#type: pb::value::Type::Scalar as i32,
        scalar: Some(pb::value::Scalar { value }),
        allocation_info: role.clone(),
        ..Default::default()
    };
    pb::ExecutorInfo {
        executor_id: pb::ExecutorId {
            value: task.task_id.value.clone(),
        },
        framework_id: Some(framework.to_pb()),
        command: Some(pb::CommandInfo {
            uris: command.uris.clone(),
            environment: command.environment.clone(),
            shell: Some(false),
            value: program.first().cloned(),
            arguments: program.to_vec(),
            user: command.user.clone(),
        }),
        container: task.container.clone(),
        resources: vec![
            resource("cpus", COMMAND_EXECUTOR_CPUS),
            resource("mem", COMMAND_EXECUTOR_MEM),
        ],
        name: Some(format!(
            "Command Executor (Task: {}) (Command: {})",
            task.task_id.value,
            describe(&command)
        )),
        #[allow(deprecated, reason = "Mesos still fills it and tools show it")]
        source: Some(task.task_id.value.clone()),
        discovery: task.discovery.clone(),
        labels: task.labels.clone(),
        shutdown_grace_period: task
            .kill_policy
            .as_ref()
            .and_then(|p| p.grace_period)
            // Time for the executor itself, after the task's own grace.
            .map(|grace| pb::DurationInfo {
                nanoseconds: grace.nanoseconds + 2_000_000_000,
            }),
        ..Default::default()
    }
}

/// The start of a command, as Mesos puts it into the executor's name.
fn describe(command: &pb::CommandInfo) -> String {
    const SHOWN: usize = 15;
    let short = |text: &str| {
        if text.chars().count() > SHOWN {
            let start: String = text.chars().take(SHOWN - 3).collect();
            format!("{start}...")
        } else {
            text.to_owned()
        }
    };
    match (&command.value, command.shell()) {
        (None, true) => "NO COMMAND".to_owned(),
        (Some(value), true) => format!("sh -c '{}'", short(value)),
        (value, false) => {
            let value = value.clone().unwrap_or_default();
            let text = format!("{value}, {}", command.arguments.join(", "));
            format!("[{}]", short(&text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(name: &str, value: f64) -> pb::Resource {
        pb::Resource {
            name: name.into(),
            scalar: Some(pb::value::Scalar { value }),
            ..Default::default()
        }
    }

    fn task(id: &str, cpus: f64, limits: &[(&str, f64)]) -> Queued {
        Queued {
            task: pb::TaskInfo {
                task_id: TaskId::from(id).to_pb(),
                resources: vec![scalar("cpus", cpus), scalar("mem", 32.0)],
                limits: limits
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), pb::value::Scalar { value: *v }))
                    .collect(),
                ..Default::default()
            },
            group: None,
        }
    }

    fn executor(queued: Vec<Queued>) -> Executor {
        let info = pb::ExecutorInfo {
            resources: vec![scalar("cpus", 0.1), scalar("mem", 64.0)],
            ..Default::default()
        };
        let mut executor = Executor::new(info, "c".into(), PathBuf::new(), false);
        executor.queued = queued;
        executor
    }

    #[test]
    fn a_container_is_granted_the_sum_and_limits_only_if_a_task_has_one() {
        let grant = executor(vec![task("a", 0.1, &[]), task("b", 0.1, &[])]).grant();
        assert_eq!((grant.cpus, grant.mem), (Some(0.3), Some(128.0)));
        assert_eq!((grant.cpus_limit, grant.mem_limit), (None, None));
        let grant = executor(vec![task("a", 0.5, &[]), task("b", 0.1, &[("cpus", 2.0)])]).grant();
        assert_eq!(grant.cpus_limit, Some(2.6));
        assert_eq!(grant.mem_limit, None);
        let infinite = [("mem", f64::INFINITY)];
        let grant = executor(vec![task("a", 0.5, &[]), task("b", 0.1, &infinite)]).grant();
        assert_eq!(grant.mem_limit, Some(f64::INFINITY));
    }

    #[test]
    fn a_command_is_described_as_mesos_describes_it() {
        let shell = |value: &str| pb::CommandInfo {
            value: Some(value.into()),
            ..Default::default()
        };
        assert_eq!(describe(&shell("sleep 1000")), "sh -c 'sleep 1000'");
        assert_eq!(
            describe(&shell("echo hello; env | sort; sleep 1")),
            "sh -c 'echo hello; ...'"
        );
        let plain = pb::CommandInfo {
            shell: Some(false),
            value: Some("/no/such/file".into()),
            arguments: vec!["x".into()],
            ..Default::default()
        };
        assert_eq!(describe(&plain), "[/no/such/fil...]");
    }

    #[test]
    fn a_status_moves_a_task_and_only_one_end_counts() {
        let mut executor = executor(vec![task("a", 0.1, &[])]);
        let framework = FrameworkId::from("f");
        let status = |state: pb::TaskState| pb::TaskStatus {
            task_id: TaskId::from("a").to_pb(),
            state: state as i32,
            ..Default::default()
        };
        assert!(
            executor
                .note(&framework, &status(pb::TaskState::TaskRunning))
                .is_err()
        );
        executor
            .note(&framework, &status(pb::TaskState::TaskKilled))
            .unwrap();
        assert!(executor.queued.is_empty());
        assert_eq!(
            executor.note(&framework, &status(pb::TaskState::TaskLost)),
            Err("Task is already terminated with state TASK_KILLED".to_owned())
        );
        executor.complete(&TaskId::from("a"));
        assert!(!executor.has_incomplete_tasks());
        assert_eq!(executor.completed.len(), 1);
    }
}
