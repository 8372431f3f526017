//! Status updates on their way to the agent.
//!
//! Per task at most one update is in flight; the next goes out when the agent has acknowledged
//! (stored) the one before, so order holds even when a call fails. An update that is not
//! acknowledged is sent again with the same identifier, and everything unacknowledged goes along
//! with each SUBSCRIBE. Non-terminal updates that still wait are replaced by newer ones.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use mesos::pb;
use rand::RngCore;
use rand::rngs::StdRng;

use super::event::Millis;
use super::task::TaskId;

/// First delay until an unacknowledged update is sent again; doubles.
const RESEND_FIRST: Millis = Millis(5_000);
/// Longest such delay.
const RESEND_MAX: Millis = Millis(60_000);
/// A terminal update is given up after so many sendings: the agent does not acknowledge
/// updates of tasks that it has forgotten.
const TERMINAL_SENDINGS_MAX: u32 = 10;

/// The states that we report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum TaskState {
    /// Accepted; for a pod: it may be bound.
    Starting,
    /// The pod's containers run; for the node: it is Ready.
    Running,
    /// All containers ended well.
    Finished,
    /// A container failed for good, or the node could not be brought up.
    Failed,
    /// Killed, or the pod was deleted.
    Killed,
    /// Never started here.
    Dropped,
}

impl TaskState {
    /// No update of the task can follow.
    pub fn terminal(self) -> bool {
        !matches!(self, Self::Starting | Self::Running)
    }

    fn pb(self) -> pb::TaskState {
        match self {
            Self::Starting => pb::TaskState::TaskStarting,
            Self::Running => pb::TaskState::TaskRunning,
            Self::Finished => pb::TaskState::TaskFinished,
            Self::Failed => pb::TaskState::TaskFailed,
            Self::Killed => pb::TaskState::TaskKilled,
            Self::Dropped => pb::TaskState::TaskDropped,
        }
    }
}

/// One thing to say about a task.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Status {
    /// Its state.
    pub state: TaskState,
    /// For people.
    pub message: Option<String>,
    /// A container was over its memory limit.
    pub out_of_memory: bool,
    /// The pod's readiness.
    pub healthy: Option<bool>,
    /// The pod's address.
    pub ip: Option<IpAddr>,
}

impl Status {
    /// That state, and nothing more to say.
    pub fn new(state: TaskState) -> Self {
        Self {
            state,
            message: None,
            out_of_memory: false,
            healthy: None,
            ip: None,
        }
    }

    /// With words for people.
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }
}

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Queued {
    pub(super) uuid: [u8; 16],
    pub(super) status: Status,
    /// When it goes out (again); `None`: at once.
    pub(super) next: Option<Millis>,
    pub(super) sendings: u32,
}

/// All updates that the agent has not acknowledged, and the tasks that it must be told of.
#[derive(Debug)]
pub struct Updates {
    pub(super) rng: StdRng,
    pub(super) connected: bool,
    pub(super) queues: BTreeMap<TaskId, VecDeque<Queued>>,
    /// Tasks of which no update is acknowledged yet. The agent drops those that a SUBSCRIBE
    /// does not list.
    pub(super) tasks: BTreeMap<TaskId, pb::TaskInfo>,
}

impl Updates {
    pub(super) fn new(rng: StdRng) -> Self {
        Self {
            rng,
            connected: false,
            queues: BTreeMap::new(),
            tasks: BTreeMap::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    pub(super) fn launched(&mut self, task: pb::TaskInfo) {
        self.tasks.insert(TaskId::of(&task), task);
    }

    pub(super) fn push(&mut self, task: &TaskId, status: Status) {
        let mut random = [0; 16];
        self.rng.fill_bytes(&mut random);
        let uuid = uuid::Builder::from_random_bytes(random).into_uuid();
        let queued = Queued {
            uuid: *uuid.as_bytes(),
            status,
            next: None,
            sendings: 0,
        };
        let queue = self.queues.entry(task.clone()).or_default();
        // TASK_STARTING is kept: the framework binds at its sight.
        if queue
            .back()
            .is_some_and(|last| last.sendings == 0 && last.status.state == TaskState::Running)
        {
            queue.pop_back();
        }
        queue.push_back(queued);
    }

    pub(super) fn subscribed(&mut self, now: Millis) {
        self.connected = true;
        for queue in self.queues.values_mut() {
            for queued in queue {
                // They all went along with SUBSCRIBE.
                queued.sendings += 1;
                queued.next = Some(now.after(RESEND_FIRST));
            }
        }
    }

    pub(super) fn disconnected(&mut self) {
        self.connected = false;
    }

    pub(super) fn acknowledged(&mut self, task: &TaskId, uuid: &[u8]) {
        let Some(queue) = self.queues.get_mut(task) else {
            return;
        };
        if let Some(at) = queue.iter().position(|q| q.uuid == uuid) {
            queue.remove(at);
            self.tasks.remove(task);
        }
        if queue.is_empty() {
            self.queues.remove(task);
        }
    }

    /// What has to go out now. Nothing while there is no connection.
    pub(super) fn due(&mut self, now: Millis) -> Vec<pb::executor::call::Update> {
        let mut due = Vec::new();
        if !self.connected {
            return due;
        }
        let mut forgotten = Vec::new();
        for (task, queue) in &mut self.queues {
            let Some(head) = queue.front_mut() else {
                continue;
            };
            if head.next.is_some_and(|at| now < at) {
                continue;
            }
            if head.status.state.terminal() && head.sendings >= TERMINAL_SENDINGS_MAX {
                forgotten.push(task.clone());
                continue;
            }
            let delay = RESEND_FIRST
                .0
                .checked_shl(head.sendings.min(16))
                .unwrap_or(RESEND_MAX.0)
                .min(RESEND_MAX.0);
            head.sendings += 1;
            head.next = Some(now.after(Millis(delay)));
            due.push(update(task, head));
        }
        for task in forgotten {
            self.queues.remove(&task);
            self.tasks.remove(&task);
        }
        due
    }

    pub(super) fn unacknowledged(&self) -> (Vec<pb::TaskInfo>, Vec<pb::executor::call::Update>) {
        let updates = self
            .queues
            .iter()
            .flat_map(|(task, queue)| queue.iter().map(move |queued| update(task, queued)))
            .collect();
        (self.tasks.values().cloned().collect(), updates)
    }
}

fn update(task: &TaskId, queued: &Queued) -> pb::executor::call::Update {
    let status = &queued.status;
    let container_status = status.ip.map(|ip| pb::ContainerStatus {
        network_infos: vec![pb::NetworkInfo {
            ip_addresses: vec![pb::network_info::IpAddress {
                ip_address: Some(ip.to_string()),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    });
    pb::executor::call::Update {
        status: pb::TaskStatus {
            task_id: pb::TaskId {
                value: task.0.clone(),
            },
            state: status.state.pb() as i32,
            message: status.message.clone(),
            source: Some(pb::task_status::Source::Executor as i32),
            reason: status
                .out_of_memory
                .then_some(pb::task_status::Reason::ContainerLimitationMemory as i32),
            uuid: Some(queued.uuid.to_vec()),
            healthy: status.healthy,
            container_status,
            ..Default::default()
        },
    }
}
