//! What the two halves of the executor tell each other: the process half (Mesos, cgroups,
//! supervision) and the node half (containerd, kubelet, kube-proxy, network, pods).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use seam::node::NodeConfig;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cgroup::CgroupSetup;
use crate::guard::manifest::Manifest;
use crate::layout::NodePaths;
use crate::supervise::Supervisor;

/// Everything that the node half gets for bringing up a node.
#[derive(Clone)]
pub struct NodeContext {
    /// From the node task.
    pub config: NodeConfig,
    /// The node's directories; `root`, `run` and `logs` exist.
    pub paths: NodePaths,
    /// Where pods and shims go.
    pub cgroups: CgroupSetup,
    /// The unpacked payload.
    pub payload: PayloadDir,
    /// Starts components and keeps them running.
    pub supervisor: Supervisor,
    /// Write into it whatever outlives the processes, **before** making it.
    pub cleanup: Arc<Manifest>,
    /// What happens.
    pub events: mpsc::Sender<NodeEvent>,
    /// Cancelled when the node is given up, or is started again: end all loops.
    pub stop: CancellationToken,
    /// From when on kubelet's word about its Node counts.
    pub since: SystemTime,
    /// How long the Node may take to become Ready.
    pub ready_within: Duration,
}

/// An unpacked payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadDir(pub PathBuf);

impl PayloadDir {
    /// `bin/<name>`.
    pub fn bin(&self, name: &str) -> PathBuf {
        self.0.join("bin").join(name)
    }
}

/// From the node half. Order between events is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeEvent {
    /// One step of the bring-up is done.
    Progress {
        /// For people: `containerd is up`.
        step: String,
    },
    /// kubelet's Node became Ready. Sent at each change.
    Ready,
    /// kubelet's Node is not Ready (any more).
    NotReady {
        /// From the Node's condition.
        reason: String,
    },
    /// The node cannot be brought up.
    Failed {
        /// `kubelet`, `network`, ...
        component: String,
        /// What failed, and where the log is.
        message: String,
    },
    /// A complete list of this node's pods, at the watch's start and each restart of it.
    Listed(Vec<PodObservation>),
    /// A pod of this node appeared or changed.
    Pod(PodObservation),
    /// A pod's object is gone.
    PodGone {
        /// `metadata.uid`.
        uid: String,
    },
    /// A disruption budget did not let a pod be evicted.
    EvictionHeld {
        /// `metadata.uid`.
        uid: String,
        /// The API server's words.
        message: String,
    },
    /// For the framework; becomes an Event of the Node.
    Component {
        /// `network`, `credentials`, ...
        component: String,
        /// CamelCase.
        reason: String,
        /// One sentence.
        message: String,
        /// Whether it is a warning.
        warning: bool,
    },
}

/// To the node half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeCommand {
    /// End a pod through the API. Repeated until that shows.
    RemovePod {
        /// Which; the uid is a precondition.
        pod: PodRef,
        /// Whether disruption budgets may refuse.
        removal: Removal,
        /// `None`: the pod's own grace.
        grace: Option<Duration>,
    },
    /// The API servers have moved.
    ApiServers(Vec<String>),
}

/// How a pod is ended through the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Evicted; a disruption budget may refuse ([`NodeEvent::EvictionHeld`]).
    Evict,
    /// Deleted, whatever budgets say.
    Delete,
}

/// Names a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct PodRef {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
}

/// `status.phase` as kubelet wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodPhase {
    /// Not all containers have started once.
    Pending,
    /// At least one runs or restarts.
    Running,
    /// All ended well for good.
    Succeeded,
    /// All ended, one of them badly.
    Failed,
}

/// What the API server says about a pod of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodObservation {
    /// Which.
    pub pod: PodRef,
    /// kubelet's view.
    pub phase: PodPhase,
    /// Condition `Ready`.
    pub ready: bool,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// `spec.terminationGracePeriodSeconds`; every stored Pod has one.
    pub grace: Option<Duration>,
    /// `status.reason` or the first terminated container's (`OOMKilled`, `Evicted`), for people.
    pub reason: Option<String>,
    /// `status.message`, for people.
    pub message: Option<String>,
    /// `status.podIP`.
    pub ip: Option<std::net::IpAddr>,
}
