//! Marathon's app definition as values: exactly the members that this project sends or reads,
//! under Marathon's own names. What an answer has besides (tasks, deployments, version
//! information) is ignored, so `GET` bodies parse too.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use super::checks::{CheckProtocol, Command, HealthCheck, ReadinessCheck, ReadinessProtocol};
pub use super::container::{
    Container, Containerizer, DiskType, Image, PersistentVolume, Volume, VolumeMode,
};

/// Absolute path of an app or a group, such as `/kubernetes-cp/etcd-0`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AppId(String);

/// What is no absolute path of an app.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no Marathon id: expected for instance /kubernetes-cp/etcd-0, segments of lower-case letters, digits, - and ."
)]
pub struct BadAppId(pub String);

impl AppId {
    /// Checks a path by Marathon's rule for absolute ids.
    pub fn new(path: impl Into<String>) -> Result<Self, BadAppId> {
        let path = path.into();
        let label = |l: &str| {
            let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            l.bytes().all(|b| inner(b) || b == b'-')
                && l.bytes().next().is_some_and(inner)
                && l.bytes().last().is_some_and(inner)
        };
        let good = path
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(|s| s.split('.').all(label)));
        if good {
            Ok(Self(path))
        } else {
            Err(BadAppId(path))
        }
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last segment.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct App {
    /// Its path.
    pub id: AppId,
    /// Shell command; excludes `args`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<String>,
    /// Arguments for the image's entry point; excludes `cmd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// User of the task; Marathon's own default without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// How many tasks.
    pub instances: u32,
    /// CPUs of a task.
    pub cpus: f64,
    /// Memory of a task, MiB.
    pub mem: f64,
    /// Disk of a task's sandbox, MiB.
    #[serde(default)]
    pub disk: f64,
    /// Mesos role (Marathon 1.9 and later).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Roles whose resources are taken; Marathon's own default without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_resource_roles: Option<Vec<String>>,
    /// Where tasks may run: `[field, operator]` or `[field, operator, value]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<Vec<String>>,
    /// Image and volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// Networks; one, the host's, here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Network>,
    /// Ports on the host's network. `Some(vec![])` takes none, `None` means one of Marathon's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_definitions: Option<Vec<PortDefinition>>,
    /// Whether exactly the ports above are needed.
    #[serde(default)]
    pub require_ports: bool,
    /// Files that the Mesos fetcher brings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fetch: Vec<Fetch>,
    /// Environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, EnvValue>,
    /// Secrets that `env` and volumes refer to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretSource>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Apps that must run first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<AppId>,
    /// Health checks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub health_checks: Vec<HealthCheck>,
    /// Readiness checks, during deployments only; at most one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub readiness_checks: Vec<ReadinessCheck>,
    /// How many tasks run at least and at most during a deployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade_strategy: Option<UpgradeStrategy>,
    /// Seconds between SIGTERM and SIGKILL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_kill_grace_period_seconds: Option<u32>,
    /// First delay of a task that failed, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_seconds: Option<u32>,
    /// Factor of the following delays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_factor: Option<f64>,
    /// Longest delay, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_launch_delay_seconds: Option<u32>,
    /// What happens to a task whose agent is unreachable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable_strategy: Option<UnreachableStrategy>,
    /// Which task ends first when fewer are wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_selection: Option<KillSelection>,
    /// How a task with a persistent volume is treated when it is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residency: Option<Residency>,
}

impl App {
    /// An app without anything but its size, on the host's network.
    pub fn new(id: AppId, cpus: f64, mem: f64, disk: f64) -> Self {
        Self {
            id,
            cmd: None,
            args: None,
            user: None,
            instances: 1,
            cpus,
            mem,
            disk,
            role: None,
            accepted_resource_roles: None,
            constraints: Vec::new(),
            container: None,
            networks: vec![Network {
                mode: NetworkMode::Host,
                name: None,
            }],
            port_definitions: None,
            require_ports: false,
            fetch: Vec::new(),
            env: BTreeMap::new(),
            secrets: BTreeMap::new(),
            labels: BTreeMap::new(),
            dependencies: Vec::new(),
            health_checks: Vec::new(),
            readiness_checks: Vec::new(),
            upgrade_strategy: None,
            task_kill_grace_period_seconds: None,
            backoff_seconds: None,
            backoff_factor: None,
            max_launch_delay_seconds: None,
            unreachable_strategy: None,
            kill_selection: None,
            residency: None,
        }
    }

    /// Whether its tasks keep a reservation: it has a persistent volume.
    pub fn is_resident(&self) -> bool {
        self.container
            .iter()
            .flat_map(|c| &c.volumes)
            .any(|v| v.persistent.is_some())
    }

    /// The app without what is secret in its environment, for plans, logs and bug reports.
    #[must_use]
    pub fn redacted(&self) -> Self {
        let mut app = self.clone();
        for (name, value) in &mut app.env {
            if let EnvValue::Plain(text) = value
                && (name == crate::run::PKI_ENV || text.contains("PRIVATE KEY"))
            {
                *text = "<redacted>".to_owned();
            }
        }
        app
    }
}

/// A network of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Which kind.
    pub mode: NetworkMode,
    /// Its name, for container networks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Kinds of networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// The agent's.
    #[serde(rename = "host")]
    Host,
    /// A CNI network.
    #[serde(rename = "container")]
    Container,
    /// A bridge on the agent.
    #[serde(rename = "container/bridge")]
    Bridge,
}

/// A port on the host's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortDefinition {
    /// The number.
    pub port: u16,
    /// The name; discovery and readiness checks use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `tcp` or `udp`.
    #[serde(default = "tcp")]
    pub protocol: String,
    /// Labels in the discovery information; `VIP_0` among them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

fn tcp() -> String {
    "tcp".to_owned()
}

/// A file that the Mesos fetcher brings into the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fetch {
    /// From where.
    pub uri: String,
    /// Whether an archive is unpacked. Mesos' default is true.
    #[serde(default = "yes")]
    pub extract: bool,
    /// Whether it becomes executable.
    #[serde(default)]
    pub executable: bool,
    /// Whether the agent keeps it, by URI.
    #[serde(default)]
    pub cache: bool,
    /// Name in the sandbox; the URI's last segment without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dest_path: Option<String>,
}

fn yes() -> bool {
    true
}

/// A value in the environment.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EnvValue {
    /// Text.
    Plain(String),
    /// The value of a secret.
    Secret {
        /// Its key in [`App::secrets`].
        secret: String,
    },
}

impl fmt::Debug for EnvValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Without a secret store keys travel here.
            Self::Plain(text) if text.contains("PRIVATE KEY") => f.write_str("Plain(<redacted>)"),
            Self::Plain(text) => f.debug_tuple("Plain").field(text).finish(),
            Self::Secret { secret } => f.debug_struct("Secret").field("secret", secret).finish(),
        }
    }
}

impl From<String> for EnvValue {
    fn from(text: String) -> Self {
        Self::Plain(text)
    }
}

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretSource {
    /// Path in the secret store.
    pub source: String,
}

/// Shares of the instances.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeStrategy {
    /// At least this share is healthy during a deployment.
    pub minimum_health_capacity: f64,
    /// At most this share runs beside them.
    pub maximum_over_capacity: f64,
}

/// What happens to a task whose agent is unreachable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum UnreachableStrategy {
    /// `"disabled"`: nothing; resident tasks only.
    Word(Disabled),
    /// It is replaced, and forgotten, after a time.
    #[serde(rename_all = "camelCase")]
    After {
        /// Seconds to a replacement.
        inactive_after_seconds: u64,
        /// Seconds until the old one is forgotten.
        expunge_after_seconds: u64,
    },
}

/// The word `disabled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Disabled {
    /// Never replaced.
    Disabled,
}

/// Which task ends first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum KillSelection {
    /// The newest.
    YoungestFirst,
    /// The oldest.
    OldestFirst,
}

/// How a task with a persistent volume is treated when it is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Residency {
    /// Seconds after which another agent may be taken.
    pub relaunch_escalation_timeout_seconds: u64,
    /// Whether a lost task is waited for.
    pub task_lost_behavior: TaskLostBehavior,
}

/// What a lost task means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskLostBehavior {
    /// Its volume is waited for.
    WaitForever,
    /// A new one without its data, after the timeout.
    RelaunchAfterTimeout,
}
