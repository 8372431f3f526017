//! What Marathon remembers across restarts.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::deploy::Deployment;
use crate::marathon::ids::{InstanceId, PathId, TaskId, Version};
use crate::marathon::model::{App, Root};

/// See the [module](self).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Durable {
    /// Chosen by Marathon itself before it first subscribes, so that it cannot be lost.
    pub framework_id: Option<String>,
    /// Apps and groups as they are to be.
    pub root: Root,
    /// Apps as they were and are, newest last.
    pub history: BTreeMap<PathId, BTreeMap<Version, App>>,
    /// Groups as they were, newest last.
    pub group_history: VecDeque<(Version, Root)>,
    /// Instances, by app.
    pub instances: BTreeMap<PathId, BTreeMap<InstanceId, Instance>>,
    /// Deployments at work, oldest first.
    pub deployments: Vec<Deployment>,
    /// Reservations of instances that are gone, to be given back when they are offered: the
    /// agent on which they are.
    pub garbage: BTreeMap<InstanceId, String>,
    /// The last version that was given.
    pub last_version: Version,
}

/// What is to become of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Goal {
    /// It runs.
    Running,
    /// It stops and keeps its reservation.
    Stopped,
    /// It goes.
    Decommissioned,
}

/// Where an instance stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// It waits for an offer.
    Scheduled,
    /// Its task was sent to Mesos.
    Provisioned,
    /// Mesos has it.
    Staging,
    /// Its executor has it.
    Starting,
    /// It runs.
    Running,
    /// It was told to end.
    Killing,
    /// Its agent cannot be reached.
    Unreachable,
    /// Its agent cannot be reached for so long that it is replaced.
    UnreachableInactive,
}

impl Condition {
    /// Whether Mesos may hold a task.
    pub const fn has_task(self) -> bool {
        !matches!(self, Self::Scheduled)
    }

    /// As the tasks of the API name it.
    pub const fn task_state(self) -> &'static str {
        match self {
            Self::Scheduled | Self::Provisioned | Self::Staging => "TASK_STAGING",
            Self::Starting => "TASK_STARTING",
            Self::Running => "TASK_RUNNING",
            Self::Killing => "TASK_KILLING",
            Self::Unreachable | Self::UnreachableInactive => "TASK_UNREACHABLE",
        }
    }
}

/// Where an instance is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Mesos' id.
    pub id: String,
    /// Its host name.
    pub host: String,
    /// Attributes, as constraints compare them.
    pub attributes: BTreeMap<String, String>,
    /// Its region.
    pub region: Option<String>,
    /// Its zone.
    pub zone: Option<String>,
}

/// A Mesos task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Ports on the host, one for each of the app's ports; none where it has none.
    pub host_ports: Vec<Option<u16>>,
    /// When it was sent to Mesos.
    pub staged_at: Version,
    /// When it first ran.
    pub started_at: Option<Version>,
    /// Its own addresses.
    pub addresses: Vec<String>,
    /// When it was last told to end.
    pub kill_sent: Option<Version>,
    /// The containing Mesos container.
    #[serde(default)]
    pub container_id: Option<String>,
}

/// What is reserved for an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// Whether it was seen in an offer.
    pub confirmed: bool,
    /// When it was asked for.
    pub asked_at: Version,
    /// Ids of the volumes, in the order of the app's volumes.
    pub volumes: Vec<String>,
}

/// A place in an app where a task runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Of which app.
    pub app: PathId,
    /// Of which version.
    pub version: Version,
    /// What is to become of it.
    pub goal: Goal,
    /// Where it stands.
    pub condition: Condition,
    /// Since when.
    pub since: Version,
    /// Its Mesos role.
    pub role: String,
    /// How many tasks it had.
    pub attempts: u32,
    /// The one that it has.
    pub task: Option<Task>,
    /// Where it is, or, with a reservation, has to be.
    pub agent: Option<Agent>,
    /// What is reserved for it.
    pub reservation: Option<Reservation>,
    /// What its health checks say, if there are any.
    pub healthy: Option<bool>,
}

impl Instance {
    /// Whether it is to run and is not given up.
    pub fn is_active(&self) -> bool {
        self.goal == Goal::Running && self.condition != Condition::UnreachableInactive
    }

    /// Whether it is to run and its task does.
    pub fn runs(&self) -> bool {
        self.goal == Goal::Running && self.condition == Condition::Running
    }
}

impl Durable {
    /// The instances of an app.
    pub fn instances_of(&self, app: &PathId) -> impl Iterator<Item = &Instance> + Clone {
        self.instances
            .get(app)
            .into_iter()
            .flat_map(BTreeMap::values)
    }

    /// All instances.
    pub fn all_instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values().flat_map(BTreeMap::values)
    }

    /// An instance by its id.
    pub fn instance(&self, id: &InstanceId) -> Option<&Instance> {
        self.instances.values().find_map(|of_app| of_app.get(id))
    }

    /// An instance by its id.
    pub fn instance_mut(&mut self, id: &InstanceId) -> Option<&mut Instance> {
        self.instances
            .values_mut()
            .find_map(|of_app| of_app.get_mut(id))
    }

    /// The instance that has this task now.
    pub fn instance_of_task(&self, task: &str) -> Option<&Instance> {
        let instance = self.instance(&InstanceId::of_task(task)?)?;
        let current = instance.task.as_ref()?;
        (current.id.as_str() == task).then_some(instance)
    }

    /// An app as it is or was.
    pub fn app_version(&self, id: &PathId, version: Version) -> Option<&App> {
        self.history
            .get(id)
            .and_then(|h| h.get(&version))
            .or_else(|| self.root.apps.get(id).filter(|a| a.version() == version))
    }

    /// Keeps a definition, and of the older ones those that are in use and the newest.
    pub fn remember(&mut self, app: &App, keep: usize) {
        let used: Vec<Version> = self.instances_of(&app.id).map(|i| i.version).collect();
        let history = self.history.entry(app.id.clone()).or_default();
        history.insert(app.version(), app.clone());
        let mut surplus = history.len().saturating_sub(keep.max(1));
        history.retain(|version, _| {
            if surplus > 0 && !used.contains(version) && *version != app.version() {
                surplus -= 1;
                return false;
            }
            true
        });
    }
}
