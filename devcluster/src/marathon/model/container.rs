//! Containers, volumes, networks and ports of an app.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the tasks run in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Container {
    /// Which containerizer.
    #[serde(default)]
    pub r#type: ContainerType,
    /// The image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker: Option<Docker>,
    /// What the kernel is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linux_info: Option<serde_json::Value>,
    /// Volumes.
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// Ports, with networks of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_mappings: Option<Vec<PortMapping>>,
}

/// Containerizers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ContainerType {
    /// Mesos' own.
    Mesos,
    /// Docker.
    #[default]
    Docker,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Docker {
    /// Its name.
    pub image: String,
    /// Pull it even if it is there.
    #[serde(default)]
    pub force_pull_image: bool,
    /// For Docker only.
    #[serde(default)]
    pub privileged: bool,
    /// For Docker only: options of `docker run`.
    #[serde(default)]
    pub parameters: Vec<Parameter>,
    /// Credentials of the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_config: Option<PullConfig>,
    /// Credentials of old; refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<serde_json::Value>,
}

/// An option of `docker run`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// Credentials of a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PullConfig {
    /// A key of the app's secrets.
    pub secret: String,
}

/// A volume: exactly one of `hostPath`, `persistent`, `secret` and `external`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    /// Where the task sees it.
    pub container_path: String,
    /// A directory of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_path: Option<String>,
    /// A Mesos volume that stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent: Option<Persistent>,
    /// A file with one of the app's secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// A volume of a provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<serde_json::Value>,
    /// Whether it can be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
}

/// Whether a volume can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Mode {
    /// No.
    Ro,
    /// Yes.
    Rw,
}

/// A persistent volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Persistent {
    /// Of which kind of disk.
    #[serde(default)]
    pub r#type: DiskType,
    /// MiB.
    pub size: u64,
    /// MiB; for `mount` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<u64>,
    /// A disk profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile_name: Option<String>,
    /// Which disk, by its path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<Vec<String>>,
}

/// Kinds of disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskType {
    /// The agent's work directory.
    #[default]
    Root,
    /// A directory.
    Path,
    /// A file system.
    Mount,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Network {
    /// A CNI network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which kind.
    #[serde(default)]
    pub mode: NetworkMode,
    /// For the network.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Kinds of networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum NetworkMode {
    /// One with a name.
    #[default]
    #[serde(rename = "container")]
    Container,
    /// The agent's bridge.
    #[serde(rename = "container/bridge")]
    Bridge,
    /// The agent's own.
    #[serde(rename = "host")]
    Host,
}

/// A port on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortDefinition {
    /// Its number, or that under which the outside finds it; 0: any.
    #[serde(default)]
    pub port: u16,
    /// For others.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of which protocol.
    #[serde(default)]
    pub protocol: PortProtocol,
}

/// A port of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortMapping {
    /// In the container; 0: the one on the host.
    #[serde(default)]
    pub container_port: u16,
    /// On the host; 0: any; none: not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<u16>,
    /// For others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of which protocol.
    #[serde(default)]
    pub protocol: PortProtocol,
    /// That under which the outside finds it; 0: any.
    #[serde(default)]
    pub service_port: u16,
    /// On which networks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network_names: Vec<String>,
}

/// Protocols of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PortProtocol {
    /// TCP.
    #[default]
    #[serde(rename = "tcp")]
    Tcp,
    /// UDP.
    #[serde(rename = "udp")]
    Udp,
    /// Both.
    #[serde(rename = "udp,tcp", alias = "tcp,udp")]
    Both,
}

impl PortProtocol {
    /// One name for each.
    pub const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Tcp => &["tcp"],
            Self::Udp => &["udp"],
            Self::Both => &["udp", "tcp"],
        }
    }
}

impl PortDefinition {
    /// The one that an app gets that does not say which it wants.
    pub fn unnamed() -> Self {
        Self {
            port: 0,
            labels: BTreeMap::new(),
            name: Some("default".to_owned()),
            protocol: PortProtocol::Tcp,
        }
    }
}

impl PortMapping {
    /// The one that an app gets that does not say which it wants.
    pub fn unnamed() -> Self {
        Self {
            container_port: 0,
            host_port: None,
            labels: BTreeMap::new(),
            name: Some("default".to_owned()),
            protocol: PortProtocol::Tcp,
            service_port: 0,
            network_names: Vec::new(),
        }
    }
}

impl Docker {
    /// Whether it says anything that only Docker understands.
    pub fn is_docker_only(&self) -> bool {
        self.privileged || !self.parameters.is_empty()
    }
}
