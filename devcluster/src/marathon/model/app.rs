//! An app's definition.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::container::{Container, Network, NetworkMode, PortDefinition, Volume};
use super::health::{Check, HealthCheck, ReadinessCheck};
use crate::marathon::ids::{PathId, Version};

/// An app as it is kept and shown: deprecated forms are gone, defaults are filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct App {
    /// Its path.
    pub id: PathId,
    /// Roles whose resources it may use; none: all that Marathon is offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_resource_roles: Option<Vec<String>>,
    /// A command without a shell; instead of `cmd`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// What each failure multiplies the delay with.
    #[serde(default = "defaults::backoff_factor")]
    pub backoff_factor: f64,
    /// The first delay after a failure, in seconds.
    #[serde(default = "defaults::one")]
    pub backoff_seconds: u32,
    /// A Mesos check whose result is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
    /// A command for the shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<String>,
    /// Where instances may be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<Vec<String>>,
    /// Image and volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// Shares of processors.
    #[serde(default = "defaults::cpus")]
    pub cpus: f64,
    /// Apps or groups that must run before this one; may be relative.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<String>,
    /// MiB of the sandbox.
    #[serde(default)]
    pub disk: f64,
    /// Environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, EnvValue>,
    /// Which executor; empty or `//cmd`: Mesos' command executor.
    #[serde(default)]
    pub executor: String,
    /// Resources of an executor of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor_resources: Option<ExecutorResources>,
    /// What the agent fetches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fetch: Vec<Artifact>,
    /// GPUs.
    #[serde(default)]
    pub gpus: u32,
    /// Whether tasks are healthy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub health_checks: Vec<HealthCheck>,
    /// How many tasks.
    #[serde(default = "defaults::one")]
    pub instances: u32,
    /// Which instance goes first.
    #[serde(default)]
    pub kill_selection: KillSelection,
    /// For others; shown to tasks too.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The longest delay after failures, in seconds.
    #[serde(default = "defaults::max_launch_delay")]
    pub max_launch_delay_seconds: u32,
    /// MiB of memory.
    #[serde(default = "defaults::mem")]
    pub mem: f64,
    /// Networks.
    #[serde(default)]
    pub networks: Vec<Network>,
    /// Ports on the host, with host networking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_definitions: Option<Vec<PortDefinition>>,
    /// When a new task of a deployment counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readiness_checks: Vec<ReadinessCheck>,
    /// Deprecated, without effect; there with persistent volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residency: Option<Residency>,
    /// Whether `portDefinitions` are the ports on the host themselves.
    #[serde(default)]
    pub require_ports: bool,
    /// Limits above the requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_limits: Option<ResourceLimits>,
    /// The Mesos role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Secrets by the names that `env` and volumes use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretDef>,
    /// Time between SIGTERM and SIGKILL, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_kill_grace_period_seconds: Option<u32>,
    /// A terminal for the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<bool>,
    /// What happens to instances on unreachable agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable_strategy: Option<UnreachableStrategy>,
    /// How versions replace each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade_strategy: Option<UpgradeStrategy>,
    /// The user that tasks run as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// When this definition was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// Which changes led here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_info: Option<VersionInfo>,
}

/// Values of fields that are left out.
pub(super) mod defaults {
    pub const fn one() -> u32 {
        1
    }
    pub const fn cpus() -> f64 {
        1.0
    }
    pub const fn mem() -> f64 {
        128.0
    }
    pub const fn backoff_factor() -> f64 {
        1.15
    }
    pub const fn max_launch_delay() -> u32 {
        300
    }
    pub const fn yes() -> bool {
        true
    }
}

/// A value of the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EnvValue {
    /// A text.
    Text(String),
    /// The value of one of the app's secrets.
    Secret(SecretRef),
}

/// `{"secret": "name"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretRef {
    /// A key of [`App::secrets`].
    pub secret: String,
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretDef {
    /// Its path in the store.
    pub source: String,
}

/// Something to fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Artifact {
    /// From where.
    pub uri: String,
    /// Unpack archives.
    #[serde(default = "defaults::yes")]
    pub extract: bool,
    /// Make it executable.
    #[serde(default)]
    pub executable: bool,
    /// Keep it on the agent.
    #[serde(default)]
    pub cache: bool,
    /// Its name in the sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dest_path: Option<String>,
}

/// Which instance is killed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum KillSelection {
    /// The one that was started last.
    #[default]
    YoungestFirst,
    /// The one that was started first.
    OldestFirst,
}

/// How many instances there are while versions replace each other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpgradeStrategy {
    /// How many more than `instances`, as a part of them.
    #[serde(default = "one")]
    pub maximum_over_capacity: f64,
    /// How many are healthy at any time, as a part of `instances`.
    #[serde(default = "one")]
    pub minimum_health_capacity: f64,
}

const fn one() -> f64 {
    1.0
}

/// What happens to instances on unreachable agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnreachableStrategy {
    /// They are waited for.
    Disabled,
    /// They are replaced, later forgotten.
    Enabled {
        /// When they are replaced, in seconds.
        inactive_after_seconds: u64,
        /// When they are forgotten, in seconds.
        expunge_after_seconds: u64,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct UnreachableEnabled {
    #[serde(default)]
    inactive_after_seconds: u64,
    #[serde(default)]
    expunge_after_seconds: u64,
}

impl Serialize for UnreachableStrategy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Disabled => serializer.serialize_str("disabled"),
            Self::Enabled {
                inactive_after_seconds,
                expunge_after_seconds,
            } => UnreachableEnabled {
                inactive_after_seconds,
                expunge_after_seconds,
            }
            .serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for UnreachableStrategy {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        if value == "disabled" {
            return Ok(Self::Disabled);
        }
        let enabled = UnreachableEnabled::deserialize(value).map_err(serde::de::Error::custom)?;
        Ok(Self::Enabled {
            inactive_after_seconds: enabled.inactive_after_seconds,
            expunge_after_seconds: enabled.expunge_after_seconds,
        })
    }
}

/// Deprecated, without effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Residency {
    /// Seconds.
    #[serde(default = "Residency::timeout")]
    pub relaunch_escalation_timeout_seconds: u64,
    /// `WAIT_FOREVER` or `RELAUNCH_AFTER_TIMEOUT`.
    #[serde(default = "Residency::behavior")]
    pub task_lost_behavior: String,
}

impl Residency {
    const fn timeout() -> u64 {
        3600
    }
    fn behavior() -> String {
        "WAIT_FOREVER".to_owned()
    }
}

impl Default for Residency {
    fn default() -> Self {
        Self {
            relaunch_escalation_timeout_seconds: Self::timeout(),
            task_lost_behavior: Self::behavior(),
        }
    }
}

/// Resources of an executor.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecutorResources {
    /// Shares of processors.
    #[serde(default)]
    pub cpus: f64,
    /// MiB of memory.
    #[serde(default)]
    pub mem: f64,
    /// MiB of the sandbox.
    #[serde(default)]
    pub disk: f64,
}

/// Limits above the requests.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceLimits {
    /// Shares of processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Limit>,
    /// MiB of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem: Option<Limit>,
}

/// A limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Limit {
    /// So much.
    Number(f64),
    /// `"unlimited"`.
    Unlimited(Unlimited),
}

/// The word `unlimited`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unlimited {
    /// No limit.
    Unlimited,
}

impl Limit {
    /// As Mesos has it: infinity for none.
    pub const fn value(self) -> f64 {
        match self {
            Self::Number(value) => value,
            Self::Unlimited(_) => f64::INFINITY,
        }
    }
}

/// Which changes led to a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VersionInfo {
    /// The last change of the number of instances.
    pub last_scaling_at: Version,
    /// The last change that replaced tasks.
    pub last_config_change_at: Version,
}

impl App {
    /// The persistent volumes.
    pub fn persistent_volumes(&self) -> impl Iterator<Item = &Volume> {
        self.container
            .iter()
            .flat_map(|c| &c.volumes)
            .filter(|v| v.persistent.is_some())
    }

    /// Whether instances stay where their data is.
    pub fn is_resident(&self) -> bool {
        self.persistent_volumes().next().is_some()
    }

    /// Whether there must never be two tasks.
    pub fn is_single_instance(&self) -> bool {
        self.labels
            .get("MARATHON_SINGLE_INSTANCE_APP")
            .is_some_and(|v| v == "true")
    }

    /// Whether anything says that a running task is not good enough.
    pub fn has_checks(&self) -> bool {
        !self.health_checks.is_empty() || self.check.is_some() || !self.readiness_checks.is_empty()
    }

    /// Its networking is the host's.
    pub fn uses_host_network(&self) -> bool {
        self.networks.iter().all(|n| n.mode == NetworkMode::Host)
    }

    /// The port mappings, if it has such instead of port definitions.
    pub fn port_mappings(&self) -> &[super::PortMapping] {
        match &self.container {
            Some(c) if !self.uses_host_network() => c.port_mappings.as_deref().unwrap_or(&[]),
            _ => &[],
        }
    }

    /// Numbers under which the outside finds its ports.
    pub fn service_ports(&self) -> Vec<u16> {
        let mappings = self.port_mappings();
        if mappings.is_empty() {
            let definitions = self.port_definitions.as_deref().unwrap_or(&[]);
            definitions.iter().map(|d| d.port).collect()
        } else {
            mappings.iter().map(|m| m.service_port).collect()
        }
    }

    /// How many ports a task has.
    pub fn port_count(&self) -> usize {
        match self.port_mappings().len() {
            0 => self.port_definitions.as_ref().map_or(0, Vec::len),
            count => count,
        }
    }

    /// Names of its ports.
    pub fn port_names(&self) -> BTreeSet<&str> {
        if self.uses_host_network() {
            let definitions = self.port_definitions.iter().flatten();
            definitions.filter_map(|d| d.name.as_deref()).collect()
        } else {
            let mappings = self.port_mappings().iter();
            mappings.filter_map(|m| m.name.as_deref()).collect()
        }
    }

    /// How its versions replace each other.
    pub fn upgrade(&self) -> UpgradeStrategy {
        self.upgrade_strategy.unwrap_or_else(|| {
            let (maximum_over_capacity, minimum_health_capacity) =
                match (self.is_single_instance(), self.is_resident()) {
                    (true, _) => (0.0, 0.0),
                    (_, true) => (0.0, 0.5),
                    _ => (1.0, 1.0),
                };
            UpgradeStrategy {
                maximum_over_capacity,
                minimum_health_capacity,
            }
        })
    }

    /// What happens to its instances on unreachable agents.
    pub fn unreachable(&self) -> UnreachableStrategy {
        match self.unreachable_strategy {
            Some(strategy) => strategy,
            None if self.is_resident() => UnreachableStrategy::Disabled,
            None => UnreachableStrategy::Enabled {
                inactive_after_seconds: 0,
                expunge_after_seconds: 0,
            },
        }
    }

    /// The first delay after a failure.
    pub fn backoff(&self) -> Duration {
        Duration::from_secs(
            self.backoff_seconds
                .min(self.max_launch_delay_seconds)
                .into(),
        )
    }

    /// When it was made; the beginning of time for one that was never stored.
    pub fn version(&self) -> Version {
        self.version.unwrap_or_default()
    }

    /// Whether running tasks would have to be replaced: anything but the number of instances
    /// and what Marathon itself writes differs.
    pub fn is_upgrade_from(&self, old: &Self) -> bool {
        let plain = |app: &Self| Self {
            instances: 0,
            version: None,
            version_info: None,
            residency: None,
            ..app.clone()
        };
        plain(self) != plain(old)
    }
}
