//! Images and volumes of an app.

use serde::{Deserialize, Serialize};

/// Image and volumes of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Which containerizer runs it.
    #[serde(rename = "type")]
    pub kind: Containerizer,
    /// The image; none runs on the agent's own file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker: Option<Image>,
    /// Volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
}

/// Who runs a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Containerizer {
    /// Mesos itself.
    Mesos,
    /// The agent's Docker daemon.
    Docker,
}

/// An image in Docker's naming.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// `registry/name:tag` or `registry/name@sha256:...`.
    pub image: String,
    /// Whether it is pulled although it is there.
    #[serde(default)]
    pub force_pull_image: bool,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Where the task sees it; relative to the sandbox for persistent ones.
    pub container_path: String,
    /// A directory of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_path: Option<String>,
    /// A volume that outlives the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent: Option<PersistentVolume>,
    /// Access.
    pub mode: VolumeMode,
}

/// What kind of disk, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistentVolume {
    /// Which of the agent's disks.
    #[serde(rename = "type", default)]
    pub kind: DiskType,
    /// MiB.
    pub size: u64,
}

/// Kinds of Mesos disk resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskType {
    /// The agent's work directory.
    #[default]
    Root,
    /// A part of a disk that the operator set aside.
    Path,
    /// A whole disk that the operator set aside.
    Mount,
}

/// Access to a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum VolumeMode {
    /// Reading and writing.
    Rw,
    /// Reading.
    Ro,
}
