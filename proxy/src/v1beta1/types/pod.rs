//! Pods.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Container, Empty, Words, object, part};

object! {
    /// A pod.
    pub struct Pod {
        /// What it should be.
        pub desired_state: PodState,
        /// What it is; the server's.
        pub current_state: PodState,
        /// Its service account.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub service_account: Option<String>,
        /// Labels that its node must have.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub node_selector: Option<Words>,
    }
}

/// What a pod should be, or what it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PodState {
    /// Containers and volumes.
    pub manifest: Manifest,
    /// `Waiting`, `Running`, `Terminated`, `Succeeded`, `Unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// `Ready`.
    #[serde(rename = "Condition", skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<PodCondition>>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Name of its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Address of its node.
    #[serde(rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<String>,
    /// Its address.
    #[serde(rename = "podIP", skip_serializing_if = "Option::is_none")]
    pub pod_ip: Option<String>,
    /// Its containers by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<BTreeMap<String, ContainerStatus>>,
}

/// Containers and volumes. The first four fields were always written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Manifest {
    /// `v1beta1`; empty in what is not a wish.
    #[serde(deserialize_with = "text")]
    pub version: String,
    /// The pod's name.
    #[serde(deserialize_with = "text")]
    pub id: String,
    /// The pod's uid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Volumes.
    pub volumes: Option<Vec<Volume>>,
    /// Containers.
    pub containers: Option<Vec<Container>>,
    /// Always when not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
    /// Seconds between the signal to end and the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub termination_grace_period_seconds: Option<i64>,
    /// Seconds that the pod may live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_deadline_seconds: Option<i64>,
    /// `ClusterFirst` or `Default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_policy: Option<String>,
    /// In the host's network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_network: Option<bool>,
    /// Secrets for registries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_secrets: Option<Vec<LocalReference>>,
}

/// Text, or null for none.
fn text<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(from)?.unwrap_or_default())
}

part! {
    /// The name of an object beside this one.
    pub struct LocalReference {
        /// Its name.
        pub name: String,
    }
}

part! {
    /// One of three.
    pub struct RestartPolicy {
        /// Always.
        pub always: Empty,
        /// Unless it succeeds.
        pub on_failure: Empty,
        /// Never.
        pub never: Empty,
    }
}

part! {
    /// A volume of a pod.
    pub struct Volume {
        /// A DNS label.
        pub name: String,
        /// What it is; an empty directory when not said.
        pub source: VolumeSource,
    }
}

part! {
    /// What a volume is: one of these.
    pub struct VolumeSource {
        /// A directory of the host.
        pub host_dir: HostDir,
        /// A directory that lives as long as the pod.
        pub empty_dir: EmptyDir,
        /// A disk of Google's.
        pub persistent_disk: GcePersistentDisk,
        /// A disk of Amazon's.
        pub aws_elastic_block_store: EbsDisk,
        /// A git repository.
        pub git_repo: GitRepo,
        /// A Secret.
        pub secret: SecretTarget,
        /// An NFS mount.
        pub nfs: Nfs,
        /// A claim.
        pub persistent_volume_claim: Claim,
        /// Is refused.
        pub iscsi: serde_json::Value,
        /// Is refused.
        pub glusterfs: serde_json::Value,
        /// Is refused.
        pub rbd: serde_json::Value,
    }
}

part! {
    /// A directory of the host.
    pub struct HostDir {
        /// Its path.
        pub path: String,
    }
}

part! {
    /// A directory that lives as long as the pod.
    pub struct EmptyDir {
        /// `Memory`, or empty.
        pub medium: String,
    }
}

part! {
    /// A disk of Google's.
    pub struct GcePersistentDisk {
        /// Its name.
        pub pd_name: String,
        /// File system.
        pub fs_type: String,
        /// Partition.
        pub partition: i32,
        /// Whether it is read-only.
        pub read_only: bool,
    }
}

part! {
    /// A disk of Amazon's.
    pub struct EbsDisk {
        /// Its id.
        #[serde(rename = "volumeID")]
        pub volume_id: String,
        /// File system.
        pub fs_type: String,
        /// Partition.
        pub partition: i32,
        /// Whether it is read-only.
        pub read_only: bool,
    }
}

part! {
    /// A git repository.
    pub struct GitRepo {
        /// Its URL.
        pub repository: String,
        /// Commit.
        pub revision: String,
    }
}

part! {
    /// A Secret.
    pub struct SecretTarget {
        /// Which.
        pub target: Reference,
    }
}

part! {
    /// A reference to an object.
    pub struct Reference {
        /// Kind.
        pub kind: String,
        /// Namespace.
        pub namespace: String,
        /// Name.
        pub name: String,
        /// Name, as it was called first.
        pub id: String,
        /// Unique in space and time.
        pub uid: String,
        /// Version of the API.
        pub api_version: String,
        /// Version of the object.
        pub resource_version: String,
        /// Part of the object.
        pub field_path: String,
    }
}

part! {
    /// An NFS mount.
    pub struct Nfs {
        /// Host.
        pub server: String,
        /// Path.
        pub path: String,
        /// Whether it is read-only.
        pub read_only: bool,
    }
}

part! {
    /// A claim.
    pub struct Claim {
        /// Its name.
        pub claim_name: String,
        /// Whether it is read-only.
        pub read_only: bool,
    }
}

part! {
    /// A condition of a pod.
    pub struct PodCondition {
        /// `Ready`.
        pub kind: String,
        /// `Full`, `None` or `Unknown`.
        pub status: String,
    }
}

/// How a container is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ContainerStatus {
    /// Now.
    pub state: ContainerState,
    /// Before its last restart.
    #[serde(rename = "lastState")]
    pub last_state: ContainerState,
    /// Its readiness probe succeeds.
    pub ready: bool,
    /// Restarts.
    pub restart_count: i32,
    /// The image.
    pub image: String,
    /// The image's id.
    #[serde(rename = "imageID")]
    pub image_id: String,
    /// `<runtime>://<id>`.
    #[serde(rename = "containerID", skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
}

part! {
    /// One of three.
    pub struct ContainerState {
        /// Not started yet.
        pub waiting: Waiting,
        /// Runs.
        pub running: Running,
        /// Has ended.
        pub termination: Terminated,
    }
}

part! {
    /// Why a container does not run yet.
    pub struct Waiting {
        /// In a word.
        pub reason: String,
    }
}

part! {
    /// Since when a container runs.
    pub struct Running {
        /// RFC 3339.
        pub started_at: String,
    }
}

part! {
    /// How a container ended.
    pub struct Terminated {
        /// Exit status.
        pub exit_code: i32,
        /// Signal.
        pub signal: i32,
        /// In a word.
        pub reason: String,
        /// For people.
        pub message: String,
        /// RFC 3339.
        pub started_at: String,
        /// RFC 3339.
        pub finished_at: String,
        /// `<runtime>://<id>`.
        #[serde(rename = "containerID")]
        pub container_id: String,
    }
}
