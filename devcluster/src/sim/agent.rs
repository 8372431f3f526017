//! A played agent: runs tasks by a plan, repeats updates until they are acknowledged, and keeps
//! what a real agent keeps on its disk.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use mesos::pb;
use mesos::pb::TaskState;
use mesos::pb::task_status::{Reason, Source};
use rand::rngs::StdRng;

use crate::agent::core::model::is_partition_aware;
use crate::clock::Time;
use crate::master::StreamId;
use crate::protocol::{
    ExitedExecutor, OperationApplied, Pong, ReconcileTask, Subscribe, Update, from_agent, to_agent,
};
use crate::resources::{Format, Resources};

/// First pause before an unacknowledged update is sent again; it doubles up to the longest.
const RETRY_MIN: Duration = Duration::from_secs(10);
const RETRY_MAX: Duration = Duration::from_secs(600);

/// One step in a task's life.
#[derive(Debug, Clone)]
pub struct Step {
    /// How long after the step before (the launch, for the first).
    pub after: Duration,
    /// What the executor reports then; ids, time stamp, source and uuid are filled in.
    pub status: pb::TaskStatus,
}

impl Step {
    /// A step that reports this state.
    pub fn new(after: Duration, state: TaskState) -> Self {
        let status = pb::TaskStatus {
            state: state as i32,
            ..Default::default()
        };
        Self { after, status }
    }
}

type Steps = dyn FnMut(&pb::TaskInfo, &mut StdRng) -> Vec<Step> + Send;

/// What becomes of launched and of killed tasks.
pub struct Plan {
    launched: Box<Steps>,
    killed: Duration,
}

impl Plan {
    /// Tasks start after `delay`, run right then, and end when killed, `killed` later.
    pub fn runs(delay: Duration, killed: Duration) -> Self {
        Self::by(
            move |_, _| {
                vec![
                    Step::new(delay, TaskState::TaskStarting),
                    Step::new(Duration::ZERO, TaskState::TaskRunning),
                ]
            },
            killed,
        )
    }

    /// Tasks take the steps that `launched` says.
    pub fn by(
        launched: impl FnMut(&pb::TaskInfo, &mut StdRng) -> Vec<Step> + Send + 'static,
        killed: Duration,
    ) -> Self {
        Self {
            launched: Box::new(launched),
            killed,
        }
    }
}

type Key = (String, String);

#[derive(Debug)]
struct Task {
    pb: pb::Task,
    steps: VecDeque<(Time, pb::TaskStatus)>,
    /// Not acknowledged; the first was sent.
    updates: VecDeque<pb::TaskStatus>,
    retry_at: Time,
    retry_pause: Duration,
}

/// See the [module](self).
#[derive(Debug)]
pub struct SimAgent {
    number: usize,
    info: pb::AgentInfo,
    frameworks: BTreeMap<String, pb::FrameworkInfo>,
    executors: BTreeMap<Key, pb::ExecutorInfo>,
    tasks: BTreeMap<Key, Task>,
    uuids: u64,
    /// What it has, once an operation has changed it.
    total: Option<Vec<pb::Resource>>,
    up: bool,
    /// Its connection to the master.
    pub(super) stream: Option<StreamId>,
    pub(super) partitioned: bool,
    /// Told never to come again.
    pub(super) refused: bool,
    timer: Option<Time>,
}

impl SimAgent {
    pub(super) fn new(
        number: usize,
        hostname: &str,
        resources: &Resources,
        attributes: Vec<pb::Attribute>,
    ) -> Self {
        Self {
            number,
            info: pb::AgentInfo {
                hostname: hostname.to_owned(),
                port: Some(5051),
                resources: resources.to_pb(Format::PostRefinement),
                attributes,
                ..Default::default()
            },
            frameworks: BTreeMap::new(),
            executors: BTreeMap::new(),
            tasks: BTreeMap::new(),
            uuids: 0,
            total: None,
            up: true,
            stream: None,
            partitioned: false,
            refused: false,
            timer: None,
        }
    }

    /// Its id, once it has registered.
    pub fn id(&self) -> Option<&pb::AgentId> {
        self.info.id.as_ref()
    }

    /// Its tasks that have not ended, with their latest states.
    pub fn live_tasks(&self) -> impl Iterator<Item = &pb::Task> {
        self.tasks
            .values()
            .map(|t| &t.pb)
            .filter(|t| !is_terminal(t.state))
    }

    /// Its executors.
    pub fn executors(&self) -> impl Iterator<Item = &pb::ExecutorInfo> {
        self.executors.values()
    }

    pub(super) fn address(&self) -> IpAddr {
        super::address(self.number)
    }

    pub(super) fn subscribe(&self) -> Subscribe {
        use pb::agent_info::capability::Type;
        let capabilities = [
            Type::MultiRole,
            Type::HierarchicalRole,
            Type::ReservationRefinement,
            Type::TaskResourceLimits,
        ];
        Subscribe {
            info: self.info.clone(),
            ip: self.address().to_string(),
            capabilities: capabilities
                .iter()
                .map(|kind| pb::agent_info::Capability {
                    r#type: Some(*kind as i32),
                })
                .collect(),
            version: crate::master::VERSION.to_owned(),
            frameworks: self.frameworks.values().cloned().collect(),
            executors: self.executors.values().cloned().collect(),
            tasks: self.tasks.values().map(|t| t.pb.clone()).collect(),
            checkpoint: true,
            checkpointed: self.total.clone().unwrap_or_default(),
        }
    }

    pub(super) fn die(&mut self) {
        self.up = false;
        let lost: Vec<_> = self
            .frameworks
            .iter()
            .filter(|(_, f)| !f.checkpoint())
            .map(|(id, _)| id.clone())
            .collect();
        for id in lost {
            self.forget(&id);
        }
    }

    pub(super) fn lose_everything(&mut self) {
        self.frameworks.clear();
        self.executors.clear();
        self.tasks.clear();
        // A new machine is a new agent.
        self.info.id = None;
    }

    fn forget(&mut self, framework: &str) {
        self.frameworks.remove(framework);
        self.executors.retain(|(f, _), _| f != framework);
        self.tasks.retain(|(f, _), _| f != framework);
    }

    /// When [`Self::tick`] is due, if that was not said before.
    pub(super) fn next_timer(&mut self) -> Option<Time> {
        let next = self
            .tasks
            .values()
            .flat_map(|t| {
                let retry = (!t.updates.is_empty()).then_some(t.retry_at);
                t.steps.front().map(|(at, _)| *at).into_iter().chain(retry)
            })
            .min()?;
        if self.timer.is_some_and(|timer| timer <= next) {
            return None;
        }
        self.timer = Some(next);
        self.timer
    }

    /// Does what is due: steps of tasks, updates sent again.
    pub(super) fn tick(&mut self, now: Time) -> Vec<from_agent::Message> {
        self.timer = None;
        let due: Vec<Key> = self
            .tasks
            .iter()
            .filter(|(_, t)| {
                t.steps.front().is_some_and(|(at, _)| *at <= now)
                    || (!t.updates.is_empty() && t.retry_at <= now)
            })
            .map(|(key, _)| key.clone())
            .collect();
        let mut out = Vec::new();
        for key in due {
            while let Some(status) = self.take_step(&key, now) {
                out.extend(self.report(now, &key, status));
            }
            let Some(task) = self.tasks.get_mut(&key) else {
                continue;
            };
            if !task.updates.is_empty() && task.retry_at <= now {
                task.retry_pause = (task.retry_pause * 2).min(RETRY_MAX);
                task.retry_at = now + task.retry_pause;
                out.extend(self.head(&key));
            }
        }
        out
    }

    fn take_step(&mut self, key: &Key, now: Time) -> Option<pb::TaskStatus> {
        let steps = &mut self.tasks.get_mut(key)?.steps;
        if steps.front()?.0 > now {
            return None;
        }
        steps.pop_front().map(|(_, status)| status)
    }

    /// A new one each time, of version 4, and the same in each run.
    fn new_uuid(&mut self) -> Vec<u8> {
        self.uuids += 1;
        let bytes = (u128::from(self.uuids) << 64 | self.number as u128).to_be_bytes();
        let uuid = uuid::Builder::from_random_bytes(bytes).into_uuid();
        uuid.as_bytes().to_vec()
    }

    /// A task changes its state.
    fn report(
        &mut self,
        now: Time,
        key: &Key,
        mut status: pb::TaskStatus,
    ) -> Option<from_agent::Message> {
        let uuid = self.new_uuid();
        let task = self.tasks.get_mut(key)?;
        if is_terminal(task.pb.state) {
            return None;
        }
        status.task_id = task.pb.task_id.clone();
        status.agent_id = Some(task.pb.agent_id.clone());
        status.source.get_or_insert(Source::Executor as i32);
        status.timestamp = Some(now.as_secs_f64());
        status.uuid = Some(uuid);
        task.pb.state = status.state;
        let mut kept = status.clone();
        kept.data = None;
        task.pb.statuses = vec![kept];
        if is_terminal(status.state) {
            task.steps.clear();
        }
        task.updates.push_back(status);
        if task.updates.len() > 1 {
            return None;
        }
        task.retry_pause = RETRY_MIN;
        task.retry_at = now + RETRY_MIN;
        self.head(key)
    }

    /// The update that waits for its acknowledgement.
    fn head(&mut self, key: &Key) -> Option<from_agent::Message> {
        let task = self.tasks.get_mut(key)?;
        let status = task.updates.front()?.clone();
        task.pb.status_update_state = Some(status.state);
        task.pb.status_update_uuid.clone_from(&status.uuid);
        Some(from_agent::Message::Update(Update {
            framework_id: pb::FrameworkId {
                value: key.0.clone(),
            },
            executor_id: task.pb.executor_id.clone(),
            latest_state: task.updates.back().map(|s| s.state),
            status,
        }))
    }

    /// The master says something; what the agent answers at once.
    pub(super) fn hear(
        &mut self,
        now: Time,
        message: to_agent::Message,
        plan: &mut Plan,
        rng: &mut StdRng,
    ) -> Vec<from_agent::Message> {
        use to_agent::Message as M;
        match message {
            M::Registered(registered) => {
                self.up = true;
                self.info.id = Some(registered.agent_id);
                let mut out = self.all_heads(None);
                out.extend(
                    registered
                        .reconcile
                        .iter()
                        .filter_map(|t| self.reconcile(now, t)),
                );
                out
            }
            M::Refused(_) => {
                self.refused = true;
                Vec::new()
            }
            M::Shutdown(_) => {
                self.refused = true;
                self.lose_everything();
                Vec::new()
            }
            M::ApplyOperation(operation) => {
                self.uuids += 1;
                self.total = Some(operation.total);
                let uuid = u128::from(self.uuids).to_be_bytes().to_vec();
                let applied = OperationApplied {
                    serial: operation.serial,
                    uuid,
                };
                match operation.wants_feedback {
                    true => vec![from_agent::Message::OperationApplied(applied)],
                    false => Vec::new(),
                }
            }
            M::Ping(_) => vec![from_agent::Message::Pong(Pong {})],
            M::RunTask(run) => {
                let executor = run.task.executor.clone();
                self.launch(now, run.framework, executor, run.task, plan, rng);
                Vec::new()
            }
            M::RunTaskGroup(run) => {
                for task in run.task_group.tasks {
                    let executor = Some(run.executor.clone());
                    self.launch(now, run.framework.clone(), executor, task, plan, rng);
                }
                Vec::new()
            }
            M::KillTask(kill) => {
                let key = (kill.framework_id.value, kill.task_id.value);
                if let Some(task) = self.tasks.get_mut(&key)
                    && !is_terminal(task.pb.state)
                {
                    let status = pb::TaskStatus {
                        state: TaskState::TaskKilled as i32,
                        ..Default::default()
                    };
                    task.steps = [(now + plan.killed, status)].into();
                }
                Vec::new()
            }
            M::Drain(drain) => {
                for ((framework, _), task) in &mut self.tasks {
                    if is_terminal(task.pb.state) {
                        continue;
                    }
                    let aware = self
                        .frameworks
                        .get(framework)
                        .is_some_and(is_partition_aware);
                    let state = match drain.config.mark_gone() && aware {
                        true => TaskState::TaskGoneByOperator,
                        false => TaskState::TaskKilled,
                    };
                    let status = pb::TaskStatus {
                        state: state as i32,
                        reason: Some(Reason::AgentDraining as i32),
                        ..Default::default()
                    };
                    task.steps = [(now + plan.killed, status)].into();
                }
                Vec::new()
            }
            M::ShutdownExecutor(shutdown) => {
                let key = (shutdown.framework_id.value, shutdown.executor_id.value);
                self.end_executor(now, &key)
            }
            M::ShutdownFramework(shutdown) => {
                self.forget(&shutdown.framework_id.value);
                Vec::new()
            }
            M::Acknowledge(acknowledge) => {
                let key = (acknowledge.framework_id.value, acknowledge.task_id.value);
                self.acknowledged(now, &key, &acknowledge.uuid)
            }
            M::FrameworkMessage(_) => Vec::new(),
            M::UpdateFramework(update) => {
                let Some(id) = update.framework.id.clone() else {
                    return Vec::new();
                };
                if let Some(known) = self.frameworks.get_mut(&id.value) {
                    *known = update.framework;
                }
                self.all_heads(Some(&id.value))
            }
        }
    }

    fn launch(
        &mut self,
        now: Time,
        framework: pb::FrameworkInfo,
        executor: Option<pb::ExecutorInfo>,
        task: pb::TaskInfo,
        plan: &mut Plan,
        rng: &mut StdRng,
    ) {
        let Some(id) = framework.id.clone() else {
            return;
        };
        let mut at = now;
        let steps = (plan.launched)(&task, rng)
            .into_iter()
            .map(|step| {
                at += step.after;
                (at, step.status)
            })
            .collect();
        if let Some(executor) = &executor {
            let key = (id.value.clone(), executor.executor_id.value.clone());
            self.executors.insert(key, executor.clone());
        }
        let record = pb::Task {
            name: task.name,
            task_id: task.task_id.clone(),
            framework_id: id.clone(),
            executor_id: executor.map(|e| e.executor_id),
            agent_id: task.agent_id,
            state: TaskState::TaskStaging as i32,
            resources: task.resources,
            limits: task.limits,
            ..Default::default()
        };
        self.frameworks.insert(id.value.clone(), framework);
        self.tasks.insert(
            (id.value, task.task_id.value),
            Task {
                pb: record,
                steps,
                updates: VecDeque::new(),
                retry_at: Time::NEVER,
                retry_pause: RETRY_MIN,
            },
        );
    }

    fn end_executor(&mut self, now: Time, key: &Key) -> Vec<from_agent::Message> {
        if self.executors.remove(key).is_none() {
            return Vec::new();
        }
        let mut out = vec![from_agent::Message::ExitedExecutor(ExitedExecutor {
            framework_id: pb::FrameworkId {
                value: key.0.clone(),
            },
            executor_id: pb::ExecutorId {
                value: key.1.clone(),
            },
            status: 0,
        })];
        let tasks: Vec<_> = self
            .tasks
            .iter()
            .filter(|((f, _), t)| {
                *f == key.0 && t.pb.executor_id.as_ref().is_some_and(|e| e.value == key.1)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for task in tasks {
            let status = pb::TaskStatus {
                state: TaskState::TaskFailed as i32,
                source: Some(Source::Agent as i32),
                reason: Some(Reason::ExecutorTerminated as i32),
                message: Some("Executor terminated".to_owned()),
                ..Default::default()
            };
            out.extend(self.report(now, &task, status));
        }
        out
    }

    fn acknowledged(&mut self, now: Time, key: &Key, uuid: &[u8]) -> Vec<from_agent::Message> {
        let Some(task) = self.tasks.get_mut(key) else {
            return Vec::new();
        };
        if task.updates.front().and_then(|s| s.uuid.as_deref()) != Some(uuid) {
            return Vec::new();
        }
        let over = task
            .updates
            .pop_front()
            .is_some_and(|s| is_terminal(s.state));
        task.pb.status_update_state = None;
        task.pb.status_update_uuid = None;
        if over {
            self.tasks.remove(key);
            return Vec::new();
        }
        task.retry_pause = RETRY_MIN;
        task.retry_at = now + RETRY_MIN;
        self.head(key).into_iter().collect()
    }

    fn all_heads(&mut self, only: Option<&str>) -> Vec<from_agent::Message> {
        let keys: Vec<_> = self
            .tasks
            .keys()
            .filter(|(f, _)| only.is_none_or(|only| f == only))
            .cloned()
            .collect();
        keys.iter().filter_map(|key| self.head(key)).collect()
    }

    /// The master believes in a task that is not here.
    fn reconcile(&mut self, now: Time, task: &ReconcileTask) -> Option<from_agent::Message> {
        let key = (task.framework_id.value.clone(), task.task_id.value.clone());
        if self.tasks.contains_key(&key) {
            return None;
        }
        let state = if task.partition_aware {
            TaskState::TaskDropped
        } else {
            TaskState::TaskLost
        };
        let status = pb::TaskStatus {
            task_id: task.task_id.clone(),
            state: state as i32,
            source: Some(Source::Agent as i32),
            reason: Some(Reason::Reconciliation as i32),
            message: Some("Task is unknown to the agent".to_owned()),
            agent_id: self.info.id.clone(),
            timestamp: Some(now.as_secs_f64()),
            uuid: Some(self.new_uuid()),
            ..Default::default()
        };
        Some(from_agent::Message::Update(Update {
            framework_id: task.framework_id.clone(),
            status,
            latest_state: Some(state as i32),
            executor_id: None,
        }))
    }
}

fn is_terminal(state: i32) -> bool {
    crate::master::is_terminal(state)
}
